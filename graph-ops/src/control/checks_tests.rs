//! What the assertions build, node by node as TensorFlow 1.15 does, and when they fail.

use graph_core::graph::{Graph, Operation, Tensor};
use graph_core::session::Session;
use graph_core::{DType, PartialShape, feed};

use super::*;
use crate::array::constant;
use crate::testing::listing;

fn placeholder(name: &str, dtype: DType, shape: PartialShape) -> Tensor {
    let node = crate::op("Placeholder").attr("dtype", dtype).attr("shape", shape);
    node.name(name).build().unwrap()
}

fn labels() -> Tensor {
    placeholder("labels", DType::Int64, PartialShape::unknown_of_rank(1))
}

/// The texts among an assertion's data.
fn texts(assertion: &Operation) -> Vec<String> {
    let inputs = assertion.inputs();
    let constants = inputs[1..].iter().filter(|input| input.op().op_type() == "Const");
    constants
        .map(|input| input.constant_value().unwrap().to_string())
        .collect()
}

#[test]
fn a_check_is_a_guarded_assertion() {
    let graph = Graph::new();
    let _default = graph.as_default();
    let labels = labels();
    let check = assert_non_negative(&labels)
        .message("`labels` contains negative values")
        .build()
        .unwrap();
    let guard = "assert_non_negative/assert_less_equal/Assert/AssertGuard";
    assert_eq!(check.name(), format!("{guard}/Merge"));
    let checked = with_dependencies([&check], &labels).unwrap();
    let expected = [
        "Const Z/Const <- ",
        "LessEqual Z/L/LessEqual <- Z/Const, labels",
        "Const Z/L/Const <- ",
        "All Z/L/All <- Z/L/LessEqual, Z/L/Const",
        "Const Z/L/Assert/Const <- ",
        "Const Z/L/Assert/Const_1 <- ",
        "Const Z/L/Assert/Const_2 <- ",
        "Switch G/Switch <- Z/L/All, Z/L/All",
        "Identity G/switch_t <- G/Switch:1",
        "Identity G/switch_f <- G/Switch",
        "Identity G/pred_id <- Z/L/All",
        "NoOp G/NoOp <- ^G/switch_t",
        "Identity G/control_dependency <- G/switch_t, ^G/NoOp",
        "Const G/Assert/data_0 <- ^G/switch_f",
        "Const G/Assert/data_1 <- ^G/switch_f",
        "Const G/Assert/data_2 <- ^G/switch_f",
        "Assert G/Assert <- G/Assert/Switch, G/Assert/data_0, G/Assert/data_1, G/Assert/data_2, G/Assert/Switch_1",
        "Switch G/Assert/Switch <- Z/L/All, G/pred_id",
        "Switch G/Assert/Switch_1 <- labels, G/pred_id",
        "Identity G/control_dependency_1 <- G/switch_f, ^G/Assert",
        "Merge G/Merge <- G/control_dependency_1, G/control_dependency",
        "Identity control_dependency <- labels, ^G/Merge",
    ];
    let expected = expected.map(|line| {
        let line = line.replace("G/", &format!("{guard}/"));
        line.replace("Z/L/", "assert_non_negative/assert_less_equal/")
            .replace("Z/", "assert_non_negative/")
    });
    assert_eq!(listing(&graph)[1..], expected);
    let assertion = graph.operation(&format!("{guard}/Assert")).unwrap();
    assert_eq!(
        texts(&assertion),
        [
            "`labels` contains negative values",
            "Condition x >= 0 did not hold element-wise:",
            "x (labels:0) = "
        ]
    );
    let session = Session::new(&graph).unwrap();
    let run = |values: [i64; 2]| session.run::<Vec<i64>>(&checked, feed! { &labels => values });
    assert_eq!(run([0, 3]).unwrap(), [0, 3]);
    let error = run([0, -3]).unwrap_err();
    assert_eq!(error.class(), "InvalidArgument");
    let message = &error.report().message;
    assert!(
        message.contains("assertion failed: [`labels` contains negative values]"),
        "{message}"
    );
    assert!(message.contains("[x (labels:0) = ] [0 -3]"), "{message}");
}

#[test]
fn the_texts_of_tensorflow() {
    let graph = Graph::new();
    let _default = graph.as_default();
    let x = placeholder("x", DType::Float32, PartialShape::unknown());
    let find = |name: &str| texts(&graph.operation(name).unwrap());
    assert_less(&x, 2.0).build().unwrap();
    let both = [
        "Condition x < y did not hold element-wise:",
        "x (x:0) = ",
        "y (assert_less/y:0) = ",
    ];
    assert_eq!(find("assert_less/Assert/AssertGuard/Assert"), both);
    assert_non_positive(&x).build().unwrap();
    assert_eq!(
        find("assert_non_positive/assert_less_equal/Assert/AssertGuard/Assert"),
        ["", "Condition x <= 0 did not hold element-wise:x (x:0) = "]
    );
    // The scope of assert_equal is opened twice.
    let equal = assert_equal(&x, 1.0).build().unwrap();
    assert_eq!(equal.name(), "assert_equal_1/Assert/AssertGuard/Merge");
    assert_eq!(assert_equal(&x, &x).build().unwrap().name(), "assert_equal_2/NoOp");
    assert_near(&x, 1.0, None, None).build().unwrap();
    let near = &find("assert_near/Assert/AssertGuard/Assert")[1];
    let expected = "x and y not equal to tolerance rtol = Tensor(\"assert_near/rtol:0\", shape=(), dtype=float32), \
                    atol = Tensor(\"assert_near/atol:0\", shape=(), dtype=float32)";
    assert_eq!(near, expected);
}

#[test]
fn what_constants_show_fails_while_the_graph_is_built() {
    let graph = Graph::new();
    let _default = graph.as_default();
    let x = constant([1.0f32, 2.0]).build().unwrap();
    assert!(assert_positive(&x).build().is_ok());
    let error = assert_negative(&x).message("as said").build().unwrap_err();
    assert_eq!(error.class(), "InvalidArgument");
    assert!(error.report().message.starts_with("as said Condition x < 0"), "{error}");
    assert!(assert_greater(&x, 0.5).build().is_ok());
    assert!(assert_greater_equal(&x, 1.5).build().is_err());
    assert!(assert_none_equal(&x, 2.0).build().is_err());
    assert!(assert_less_equal(&x, 2.0).build().is_ok());
}

#[test]
fn ranks_and_dtypes() {
    let graph = Graph::new();
    let _default = graph.as_default();
    let (known, unknown) = (
        constant([1.0f32, 2.0]).name("known").build().unwrap(),
        placeholder("my_tensor", DType::Float32, PartialShape::unknown()),
    );
    assert_eq!(assert_rank(&known, 1).build().unwrap().op_type(), "NoOp");
    assert!(assert_rank(&known, 2).build().is_err());
    assert!(assert_rank_at_least(&known, 2).build().is_err());
    let start = graph.num_operations();
    let check = assert_rank_at_least(&unknown, 2).name("check").build().unwrap();
    assert_eq!(
        listing(&graph)[start..],
        [
            "Const check/rank <- ",
            "Shape check/Shape <- my_tensor",
            "NoOp check/assert_type/statically_determined_correct_type <- ",
            "Rank check/Rank_1 <- my_tensor",
            "GreaterEqual check/GreaterEqual <- check/Rank_1, check/rank",
            "Const check/Assert/Const <- ",
            "Const check/Assert/Const_1 <- ",
            "Const check/Assert/Const_2 <- ",
            "Const check/Assert/Assert/data_0 <- ",
            "Const check/Assert/Assert/data_1 <- ",
            "Const check/Assert/Assert/data_3 <- ",
            "Assert check/Assert/Assert <- check/GreaterEqual, check/Assert/Assert/data_0, check/Assert/Assert/data_1, \
             check/rank, check/Assert/Assert/data_3, check/Shape",
        ]
    );
    let session = Session::new(&graph).unwrap();
    assert!(session.run::<()>(&check, feed! { &unknown => [[1.0f32]] }).is_ok());
    let error = session.run::<()>(&check, feed! { &unknown => [1.0f32] }).unwrap_err();
    assert_eq!(error.class(), "InvalidArgument");
    assert!(assert_integer(&known).is_err());
    assert!(assert_integer(1i64).is_ok());
    assert!(assert_type(&known, DType::Float64).is_err());
}

#[test]
fn rows_that_grow() {
    let graph = Graph::new();
    let _default = graph.as_default();
    let x = placeholder("x", DType::Int32, PartialShape::unknown());
    let (grows, strictly) = (is_non_decreasing(&x).unwrap(), is_strictly_increasing(&x).unwrap());
    let session = Session::new(&graph).unwrap();
    let run = |values: &[i32]| -> (bool, bool) {
        let values = graph_core::Value::from(values);
        session.run((&grows, &strictly), feed! { &x => values }).unwrap()
    };
    assert_eq!(run(&[-1, 2, 3, 3]), (true, false));
    assert_eq!(run(&[1, 2, 5]), (true, true));
    assert_eq!(run(&[2, 1]), (false, false));
    assert_eq!(run(&[1]), (true, true));
    assert_eq!(run(&[]), (true, true));
}
