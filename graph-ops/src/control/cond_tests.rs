//! What `cond` builds, node by node as TensorFlow does, and what it computes.

use graph_core::gradients::gradients;
use graph_core::graph::scope;
use graph_core::graph::{Graph, OpBuilder, Operation, Tensor};
use graph_core::session::Session;
use graph_core::{DType, PartialShape, Result, Value, feed};

use super::{cond, no_op};
use crate::array::{constant, identity};
use crate::testing::listing;

fn placeholder(name: &str, dtype: DType, shape: impl Into<PartialShape>) -> Tensor {
    let node = crate::op("Placeholder")
        .attr("dtype", dtype)
        .attr("shape", shape.into());
    node.name(name).build().unwrap()
}

fn predicate(name: &str) -> Tensor {
    placeholder(name, DType::Bool, ())
}

fn add(x: &Tensor, y: f32) -> Result<Tensor> {
    OpBuilder::new("AddV2").input(x).input(y).name("add").build()
}

fn mul(x: &Tensor, y: f32) -> Result<Tensor> {
    OpBuilder::new("Mul").input(x).input(y).name("mul").build()
}

#[test]
fn values_come_in_through_switches() {
    let graph = Graph::new();
    let _default = graph.as_default();
    let (p, x) = (predicate("p"), placeholder("x", DType::Float32, [3]));
    let result = cond(&p, || add(&x, 1.0), || mul(&x, 2.0)).build().unwrap();
    assert_eq!(result.name(), "cond/Merge:0");
    assert_eq!(
        listing(&graph)[2..],
        [
            "Switch cond/Switch <- p, p",
            "Identity cond/switch_t <- cond/Switch:1",
            "Identity cond/switch_f <- cond/Switch",
            "Identity cond/pred_id <- p",
            "Const cond/add/y <- ^cond/switch_t",
            "AddV2 cond/add <- cond/add/Switch:1, cond/add/y",
            "Switch cond/add/Switch <- x, cond/pred_id",
            "Const cond/mul/y <- ^cond/switch_f",
            "Mul cond/mul <- cond/mul/Switch, cond/mul/y",
            "Switch cond/mul/Switch <- x, cond/pred_id",
            "Merge cond/Merge <- cond/mul, cond/add",
        ]
    );
    let switch = graph.operation("cond/add/Switch").unwrap();
    assert_eq!(switch.attr::<Vec<Vec<u8>>>("_class").unwrap(), [b"loc:@x".to_vec()]);
    let session = Session::new(&graph).unwrap();
    let run = |taken: bool| -> Vec<f32> {
        session
            .run(&result, feed! { &p => taken, &x => [1.0f32, 2.0, 3.0] })
            .unwrap()
    };
    assert_eq!(run(true), [2.0, 3.0, 4.0]);
    assert_eq!(run(false), [2.0, 4.0, 6.0]);
}

#[test]
fn a_value_from_outside_may_be_the_result() {
    let graph = Graph::new();
    let _default = graph.as_default();
    let (p, x) = (predicate("p"), placeholder("x", DType::Float32, ()));
    let result = cond(&p, || Ok(&x), || Ok(0.0f32)).build().unwrap();
    assert_eq!(
        listing(&graph)[6..],
        [
            "Switch cond/Switch_1 <- x, cond/pred_id",
            "Const cond/Const <- ^cond/switch_f",
            "Merge cond/Merge <- cond/Const, cond/Switch_1:1",
        ]
    );
    let session = Session::new(&graph).unwrap();
    let run = |taken: bool| -> f32 { session.run(&result, feed! { &p => taken, &x => 5.0f32 }).unwrap() };
    assert_eq!((run(true), run(false)), (5.0, 0.0));
}

#[test]
fn branches_of_operations_wait_for_their_pivots() {
    let graph = Graph::new();
    let _default = graph.as_default();
    let p = predicate("p");
    let done: Operation = cond(&p, || no_op(""), || no_op("")).name("either").build().unwrap();
    assert_eq!(done.name(), "either/Merge");
    assert_eq!(
        listing(&graph)[5..],
        [
            "NoOp either/NoOp <- ^either/switch_t",
            "Identity either/control_dependency <- either/switch_t, ^either/NoOp",
            "NoOp either/NoOp_1 <- ^either/switch_f",
            "Identity either/control_dependency_1 <- either/switch_f, ^either/NoOp_1",
            "Merge either/Merge <- either/control_dependency_1, either/control_dependency",
        ]
    );
}

#[test]
fn conds_nest() {
    let graph = Graph::new();
    let _default = graph.as_default();
    let (p, q, x) = (predicate("p"), predicate("q"), placeholder("x", DType::Float32, ()));
    let inner = || cond(&q, || add(&x, 1.0), || add(&x, 2.0)).build();
    let result = cond(&p, inner, || mul(&x, 3.0)).build().unwrap();
    assert_eq!(
        listing(&graph)[7..],
        [
            "Switch cond/cond/Switch <- cond/cond/Switch/Switch:1, cond/cond/Switch/Switch:1",
            "Switch cond/cond/Switch/Switch <- q, cond/pred_id",
            "Identity cond/cond/switch_t <- cond/cond/Switch:1",
            "Identity cond/cond/switch_f <- cond/cond/Switch",
            "Identity cond/cond/pred_id <- cond/cond/Switch/Switch:1",
            "Const cond/cond/add/y <- ^cond/cond/switch_t",
            "AddV2 cond/cond/add <- cond/cond/add/Switch_1:1, cond/cond/add/y",
            "Switch cond/cond/add/Switch <- x, cond/pred_id",
            "Switch cond/cond/add/Switch_1 <- cond/cond/add/Switch:1, cond/cond/pred_id",
            "Const cond/cond/add_1/y <- ^cond/cond/switch_f",
            "AddV2 cond/cond/add_1 <- cond/cond/add_1/Switch, cond/cond/add_1/y",
            "Switch cond/cond/add_1/Switch <- cond/cond/add/Switch:1, cond/cond/pred_id",
            "Merge cond/cond/Merge <- cond/cond/add_1, cond/cond/add",
            "Const cond/mul/y <- ^cond/switch_f",
            "Mul cond/mul <- cond/mul/Switch, cond/mul/y",
            "Switch cond/mul/Switch <- x, cond/pred_id",
            "Merge cond/Merge <- cond/mul, cond/cond/Merge",
        ]
    );
    let session = Session::new(&graph).unwrap();
    let run = |p_is: bool, q_is: bool| -> f32 {
        session
            .run(&result, feed! { &p => p_is, &q => q_is, &x => 5.0f32 })
            .unwrap()
    };
    assert_eq!([run(true, true), run(true, false), run(false, true)], [6.0, 7.0, 15.0]);
}

#[test]
fn several_results_merge_one_by_one() {
    let graph = Graph::new();
    let _default = graph.as_default();
    let (p, x) = (predicate("p"), placeholder("x", DType::Float32, [2]));
    let (a, b) = cond(
        &p,
        || Ok((add(&x, 1.0)?, constant(1i32).build()?)),
        || Ok((x.clone(), constant(2i32).build()?)),
    )
    .build()
    .unwrap();
    assert_eq!(
        (a.name().as_str(), b.name().as_str()),
        ("cond/Merge:0", "cond/Merge_1:0")
    );
    let list = cond(&p, || Ok(vec![x.clone(), a.clone()]), || Ok(vec![a.clone(), x.clone()]))
        .build()
        .unwrap();
    let session = Session::new(&graph).unwrap();
    let (b, list): (i32, Vec<Value>) = session
        .run((&b, &list), feed! { &p => false, &x => [1.0f32, 2.0] })
        .unwrap();
    assert_eq!((b, list.len()), (2, 2));
}

#[test]
fn branches_must_match_and_predicates_be_tensors() {
    let graph = Graph::new();
    let _default = graph.as_default();
    let p = predicate("p");
    assert!(cond(true, || Ok(1.0f32), || Ok(2.0f32)).build().is_err());
    assert!(cond(&p, || Ok(1.0f32), || Ok(2i32)).build().is_err());
    assert!(cond(&p, || Ok(vec![1.0f32]), || Ok(vec![1.0f32, 2.0])).build().is_err());
    let vector = placeholder("v", DType::Bool, [2]);
    assert!(cond(&vector, || Ok(1.0f32), || Ok(2.0f32)).build().is_err());
    // A failed branch leaves no branch open.
    assert!(scope::current_control_flow_context(&graph).is_none());
    assert!(identity(&p).build().unwrap().op().control_inputs().is_empty());
}

#[test]
fn gradients_flow_through_the_branch_taken() {
    let graph = Graph::new();
    let _default = graph.as_default();
    let (p, x) = (predicate("p"), placeholder("x", DType::Float32, [3]));
    let square = || OpBuilder::new("Mul").input(&x).input(&x).build();
    let y = cond(&p, square, || mul(&x, 2.0)).build().unwrap();
    let gradient = gradients([&y], [&x]).unwrap().build().unwrap().remove(0).unwrap();
    let switch = graph.operation("gradients/cond/Merge_grad/cond_grad").unwrap();
    assert_eq!(
        (switch.op_type(), switch.input(1).name().as_str()),
        ("Switch", "cond/pred_id:0")
    );
    let session = Session::new(&graph).unwrap();
    let run = |taken: bool| -> Vec<f32> {
        session
            .run(&gradient, feed! { &p => taken, &x => [1.0f32, 2.0, 3.0] })
            .unwrap()
    };
    assert_eq!(run(true), [2.0, 4.0, 6.0]);
    assert_eq!(run(false), [2.0, 2.0, 2.0]);
}

#[test]
fn what_a_branch_makes_of_constants_dies_with_it() {
    let graph = Graph::new();
    let _default = graph.as_default();
    let (p, x) = (predicate("p"), placeholder("x", DType::Float32, ()));
    let product = || {
        let two = OpBuilder::new("Mul").input(1.0f32).input(2.0f32).build()?;
        OpBuilder::new("Mul").input(&two).input(&two).build()
    };
    let y = cond(&p, product, || mul(&x, 3.0)).build().unwrap();
    let z = cond(&p, || mul(&x, 3.0), product).build().unwrap();
    let session = Session::new(&graph).unwrap();
    for (taken, expected) in [(true, (4.0, 15.0)), (false, (15.0, 4.0)), (true, (4.0, 15.0))] {
        let got: (f32, f32) = session.run((&y, &z), feed! { &p => taken, &x => 5.0f32 }).unwrap();
        assert_eq!(got, expected, "{taken}");
    }
}

#[test]
fn what_is_known_beforehand_waits_for_branches_all_the_same() {
    let graph = Graph::new();
    let _default = graph.as_default();
    let (p, x) = (predicate("p"), placeholder("x", DType::Float32, [2]));
    let wanted = super::assert(&p, [&x]).build().unwrap();
    let ones = {
        let _scope = scope::control_dependencies([&wanted]).unwrap();
        let shape = OpBuilder::new("Shape").input(&x).build().unwrap();
        let one = OpBuilder::new("Const").attr("value", graph_core::Value::scalar(1.0f32));
        let one = one.attr("dtype", DType::Float32).build().unwrap();
        OpBuilder::new("Fill").input(shape).input(one).build().unwrap()
    };
    let y = OpBuilder::new("Mul").input(&x).input(ones).build().unwrap();
    let session = Session::new(&graph).unwrap();
    let run = |p_is: bool| session.run::<Vec<f32>>(&y, feed! { &p => p_is, &x => [1.0f32, 2.0] });
    assert_eq!(run(true).unwrap(), [1.0, 2.0]);
    assert_eq!(run(false).unwrap_err().class(), "InvalidArgument");
    assert_eq!(run(true).unwrap(), [1.0, 2.0]);
}
