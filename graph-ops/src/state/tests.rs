//! Variables by name and scope, in sessions, and their errors.

use graph_core::graph::scope::name_scope;
use graph_core::graph::{OpBuilder, keys};
use graph_core::session::{Feeds, Session};
use graph_core::variable::Reuse;
use graph_core::{DType, Graph, PartialShape, Tensor, Value, Variable};

use super::*;

fn names(graph: &Graph) -> Vec<String> {
    graph.operations().iter().map(|operation| operation.name()).collect()
}

/// The name that an op made now gets.
fn named_now() -> String {
    OpBuilder::new("NoOp").name("op").build_operation().unwrap().name()
}

#[test]
fn get_variable_makes_tensorflows_nodes() {
    let graph = Graph::new();
    let _default = graph.as_default();
    let _outer = name_scope("ignored").unwrap();
    {
        let _scope = variable_scope("s").unwrap();
        get_variable("w", [2, 3])
            .initializer(zeros_initializer())
            .build()
            .unwrap();
        get_variable("n", ()).dtype(DType::Int32).build().unwrap();
    }
    let half = constant_initializer([0.5, 1.0]);
    let v = get_variable("v", [3])
        .initializer(half)
        .trainable(false)
        .build()
        .unwrap();
    assert_eq!(
        names(&graph),
        [
            "s/w/Initializer/zeros",
            "s/w",
            "s/w/Assign",
            "s/w/read",
            "s/n/Initializer/zeros",
            "s/n",
            "s/n/Assign",
            "s/n/read",
            "v/Initializer/Const",
            "v",
            "v/Assign",
            "v/read",
        ]
    );
    for operation in graph.operations() {
        let name = operation.name();
        let variable = ["s/w", "s/n", "v"]
            .into_iter()
            .find(|variable| name.starts_with(variable))
            .unwrap();
        assert_eq!(operation.colocation_groups(), [format!("loc:@{variable}").into_bytes()]);
    }
    assert_eq!(trainable_variables().unwrap().len(), 2);
    assert_eq!(global_variables().unwrap().len(), 3);
    let session = Session::new(&graph).unwrap();
    session.run(global_variables_initializer().unwrap(), ()).unwrap();
    assert_eq!(session.run::<Value>(&v, ()).unwrap(), Value::from([0.5f32, 1.0, 1.0]));
}

#[test]
fn default_initializers_draw_from_glorots_limits() {
    let graph = Graph::new();
    let _default = graph.as_default();
    graph.set_random_seed(1);
    let w = get_variable("w", [2, 3]).build().unwrap();
    assert_eq!(
        names(&graph)[..8],
        [
            "w/Initializer/random_uniform/shape",
            "w/Initializer/random_uniform/min",
            "w/Initializer/random_uniform/max",
            "w/Initializer/random_uniform/RandomUniform",
            "w/Initializer/random_uniform/sub",
            "w/Initializer/random_uniform/mul",
            "w/Initializer/random_uniform",
            "w",
        ]
    );
    let max: Value = graph
        .tensor("w/Initializer/random_uniform/max")
        .unwrap()
        .constant_value()
        .unwrap();
    assert_eq!(max.to_scalar::<f32>().unwrap().to_bits(), 0x3f8c378c);
    assert_eq!(w.dtype(), DType::Float32);
}

#[test]
fn scopes_are_entered_again_by_name_and_by_object() {
    let graph = Graph::new();
    let _default = graph.as_default();
    crate::install();
    let (object, first) = {
        let scope = variable_scope("a").unwrap();
        let w = get_variable("w", [2]).initializer(zeros_initializer()).build().unwrap();
        assert_eq!((scope.name(), scope.original_name_scope()), ("a", "a/"));
        assert_eq!(named_now(), "a/op");
        (scope.object(), w)
    };
    {
        let _scope = VariableScope::of("a").reuse(Reuse::Yes).enter().unwrap();
        assert_eq!(get_variable("w", [2]).build().unwrap(), first);
        assert_eq!(named_now(), "a_1/op");
    }
    let _b = variable_scope("b").unwrap();
    {
        let scope = VariableScope::of(&object).reuse(Reuse::Auto).enter().unwrap();
        assert_eq!((scope.name(), scope.original_name_scope()), ("a", "a/"));
        assert_eq!(named_now(), "b/a/op");
        assert_eq!(get_variable("w", PartialShape::unknown()).build().unwrap(), first);
        let inner = variable_scope("inner").unwrap();
        assert_eq!(inner.name(), "a/inner");
        assert_eq!(inner.object().reuse(), Reuse::Auto);
        get_variable("new", [1])
            .initializer(ones_initializer())
            .build()
            .unwrap();
    }
    assert_eq!(get_variable_scope().name(), "b");
    assert!(graph.operation("a/inner/new").is_ok());
    {
        let _plain = VariableScope::of("c").auxiliary_name_scope(false).enter().unwrap();
        assert_eq!(named_now(), "b/op");
        assert_eq!(get_variable_scope().name(), "b/c");
    }
}

#[test]
fn default_names_are_numbered() {
    let graph = Graph::new();
    let _default = graph.as_default();
    let enter = || {
        variable_scope_default("layer")
            .map(|scope| scope.name().to_owned())
            .unwrap()
    };
    assert_eq!([enter(), enter()], ["layer", "layer_1"]);
    {
        let _outer = variable_scope("outer").unwrap();
        assert_eq!([enter(), enter()], ["outer/layer", "outer/layer_1"]);
    }
    // Scopes inside are new again when the outer one is entered again.
    let _outer = variable_scope("outer").unwrap();
    assert_eq!(enter(), "outer/layer");
    assert!(VariableScope::by_default("x").reuse(Reuse::Yes).enter().is_err());
}

#[test]
fn scopes_hand_down_defaults() {
    let graph = Graph::new();
    let _default = graph.as_default();
    let _scope = VariableScope::of("layer")
        .dtype(DType::Float64)
        .initializer(ones_initializer())
        .regularizer(l2_regularizer(0.5).unwrap())
        .enter()
        .unwrap();
    let _inner = variable_scope("inner").unwrap();
    let w = get_variable("w", [2]).build().unwrap();
    assert_eq!(w.dtype(), DType::Float64);
    let losses: Vec<Tensor> = get_collection(keys::REGULARIZATION_LOSSES).unwrap();
    assert_eq!(losses.len(), 1);
    assert!(losses[0].name().starts_with("layer/inner/w/Regularizer/"), "{losses:?}");
    assert_eq!(losses[0].op().colocation_groups(), [b"loc:@layer/inner/w"]);
}

#[test]
fn errors_of_sharing_say_what_tensorflow_says() {
    let graph = Graph::new();
    let _default = graph.as_default();
    get_variable("w", [2]).initializer(zeros_initializer()).build().unwrap();
    let error = get_variable("w", [2]).build().unwrap_err().to_string();
    assert!(
        error.contains("Variable w already exists, disallowed. Did you mean to set reuse=True"),
        "{error}"
    );
    assert!(error.contains("state/tests.rs:"), "{error}");
    let _shared = VariableScope::of(&get_variable_scope())
        .reuse(Reuse::Yes)
        .enter()
        .unwrap();
    let error = get_variable("missing", [2]).build().unwrap_err().to_string();
    assert!(
        error.contains("Variable missing does not exist, or was not created with tf.get_variable()"),
        "{error}"
    );
    let error = get_variable("w", [3]).build().unwrap_err().to_string();
    assert!(
        error.contains("Trying to share variable w") && error.contains("[3]"),
        "{error}"
    );
    let error = get_variable("w", [2])
        .dtype(DType::Int32)
        .build()
        .unwrap_err()
        .to_string();
    assert!(error.contains("dtype"), "{error}");
    let error = get_variable("v", [1]).initial_value([1.0f32]).build().unwrap_err();
    assert_eq!(error.class(), "InvalidArgument");
}

#[test]
fn assignments_run_in_sessions() {
    let graph = Graph::new();
    let _default = graph.as_default();
    crate::install();
    let v = Variable::new([1.0f32, 2.0]).name("v").build().unwrap();
    let n = Variable::new(5i64).name("n").build().unwrap();
    let set = assign(&v, [3.0f32, 4.0]).build().unwrap();
    let add = assign_add(&v, [1.0f32, 1.0]).build().unwrap();
    let sub = assign_sub(&n, 2i64).name("minus").build().unwrap();
    assert_eq!(
        (set.name(), add.name(), sub.name()),
        ("Assign:0".into(), "AssignAdd:0".into(), "minus:0".into())
    );
    assert_eq!(set.op().colocation_groups(), [b"loc:@v"]);
    assert!(set.is_ref());
    let ready = is_variable_initialized(&v).build().unwrap();
    let session = Session::new(&graph).unwrap();
    assert!(!session.run::<bool>(&ready, ()).unwrap());
    assert_eq!(
        session.run::<Value>(&add, ()).unwrap_err().class(),
        "FailedPrecondition"
    );
    assert_eq!(session.run::<Value>(&set, ()).unwrap(), Value::from([3.0f32, 4.0]));
    assert!(session.run::<bool>(&ready, ()).unwrap());
    assert_eq!(session.run::<Value>(&add, ()).unwrap(), Value::from([4.0f32, 5.0]));
    session.run(global_variables_initializer().unwrap(), ()).unwrap();
    assert_eq!(session.run::<Value>(&v, ()).unwrap(), Value::from([1.0f32, 2.0]));
    assert_eq!(session.run::<i64>(&sub, ()).unwrap(), 3);
    assert!(assign(&v, [1.0f32]).build().is_err());
    assert!(assign(&v, 1i32).build().is_err());
    assert!(assign(v.value(), [1.0f32, 2.0]).build().is_err());
}

#[test]
fn a_value_of_another_shape_is_set_only_if_asked_for() {
    let graph = Graph::new();
    let _default = graph.as_default();
    crate::install();
    let v = Variable::new([1.0f32, 2.0])
        .validate_shape(false)
        .name("v")
        .build()
        .unwrap();
    let value = OpBuilder::new("Placeholder")
        .attr("dtype", DType::Float32)
        .build()
        .unwrap();
    let strict = assign(&v, &value).build().unwrap();
    let loose = assign(&v, &value).validate_shape(false).build().unwrap();
    let session = Session::new(&graph).unwrap();
    session.run(v.initializer(), ()).unwrap();
    let run = |target: &Tensor| session.run::<Value>(target, Feeds::new().with(&value, Value::from([5.0f32])));
    assert_eq!(run(&strict).unwrap_err().class(), "InvalidArgument");
    assert_eq!(run(&loose).unwrap(), Value::from([5.0f32]));
    assert_eq!(session.run::<Value>(&v, ()).unwrap(), Value::from([5.0f32]));
}

#[test]
fn string_variables_are_set_and_read() {
    let graph = Graph::new();
    let _default = graph.as_default();
    crate::install();
    let v = Variable::new("first").name("v").build().unwrap();
    let set = assign(&v, "second").build().unwrap();
    let session = Session::new(&graph).unwrap();
    session.run(v.initializer(), ()).unwrap();
    assert_eq!(session.run::<Value>(&v, ()).unwrap(), Value::string("first"));
    session.run(set.op(), ()).unwrap();
    assert_eq!(session.run::<Value>(&v, ()).unwrap(), Value::string("second"));
}

#[test]
fn parts_of_variables_are_scattered_to() {
    let graph = Graph::new();
    let _default = graph.as_default();
    crate::install();
    let v = Variable::new([[1.0f32, 2.0], [3.0, 4.0], [5.0, 6.0]])
        .name("v")
        .build()
        .unwrap();
    let session = Session::new(&graph).unwrap();
    let after = |change: graph_core::Result<Tensor>| {
        session.run(v.initializer(), ()).unwrap();
        session.run::<Value>(&change.unwrap(), ()).unwrap()
    };
    let rows = [[10.0f32, 20.0], [30.0, 40.0]];
    assert_eq!(
        after(scatter_update(&v, [2i32, 0], rows).build()),
        Value::from([[30.0f32, 40.0], [3.0, 4.0], [10.0, 20.0]])
    );
    assert_eq!(
        after(scatter_add(&v, [1i64, 1], rows).build()),
        Value::from([[1.0f32, 2.0], [43.0, 64.0], [5.0, 6.0]])
    );
    assert_eq!(
        after(scatter_sub(&v, 1i32, [1.0f32, 2.0]).build()),
        Value::from([[1.0f32, 2.0], [2.0, 2.0], [5.0, 6.0]])
    );
    assert_eq!(
        after(scatter_mul(&v, [0i32, 2], 2.0f32).build()),
        Value::from([[2.0f32, 4.0], [3.0, 4.0], [10.0, 12.0]])
    );
    assert_eq!(
        after(scatter_div(&v, [0i32], [[2.0f32, 4.0]]).build()),
        Value::from([[0.5f32, 0.5], [3.0, 4.0], [5.0, 6.0]])
    );
    assert_eq!(
        after(scatter_min(&v, [1i32], [[3.5f32, 3.5]]).build()),
        Value::from([[1.0f32, 2.0], [3.0, 3.5], [5.0, 6.0]])
    );
    assert_eq!(
        after(scatter_max(&v, [1i32], [[3.5f32, 3.5]]).build()),
        Value::from([[1.0f32, 2.0], [3.5, 4.0], [5.0, 6.0]])
    );
    let points = [[0i32, 1], [2, 0]];
    assert_eq!(
        after(scatter_nd_update(&v, points, [7.0f32, 8.0]).build()),
        Value::from([[1.0f32, 7.0], [3.0, 4.0], [8.0, 6.0]])
    );
    assert_eq!(
        after(scatter_nd_add(&v, [[1i32]], [[1.0f32, 1.0]]).build()),
        Value::from([[1.0f32, 2.0], [4.0, 5.0], [5.0, 6.0]])
    );
    assert_eq!(
        after(scatter_nd_sub(&v, points, [1.0f32, 1.0]).build()),
        Value::from([[1.0f32, 1.0], [3.0, 4.0], [4.0, 6.0]])
    );
    let outside = scatter_add(&v, [3i32], [[1.0f32, 1.0]]).build().unwrap();
    let error = session.run::<Value>(&outside, ()).unwrap_err();
    assert_eq!(error.class(), "InvalidArgument");
    assert!(error.to_string().contains("indices[0] = 3 is not in [0, 3)"), "{error}");
    assert!(scatter_add(&v, [0i32], [1.0f32, 1.0, 1.0]).build().is_err());
    assert!(scatter_nd_add(&v, [[0i32, 0, 0]], [1.0f32]).build().is_err());
    let n = Variable::new([4i32]).build().unwrap();
    session.run(n.initializer(), ()).unwrap();
    let by_zero = scatter_div(&n, [0i32], [0i32]).build().unwrap();
    assert_eq!(
        session.run::<Value>(&by_zero, ()).unwrap_err().class(),
        "InvalidArgument"
    );
}

#[test]
fn counters_end_at_their_limit() {
    let graph = Graph::new();
    let _default = graph.as_default();
    crate::install();
    let v = Variable::new(0i32).name("v").build().unwrap();
    let next = count_up_to(&v, 2).build().unwrap();
    let session = Session::new(&graph).unwrap();
    session.run(v.initializer(), ()).unwrap();
    assert_eq!(session.run::<i32>(&next, ()).unwrap(), 0);
    assert_eq!(session.run::<i32>(&next, ()).unwrap(), 1);
    let error = session.run::<i32>(&next, ()).unwrap_err();
    assert_eq!(error.class(), "OutOfRange");
    assert!(error.to_string().contains("Reached limit of 2"), "{error}");
    assert!(count_up_to(Variable::new([0i32]).build().unwrap(), 2).build().is_err());
}

#[test]
fn uninitialized_variables_are_reported_by_tensorflows_nodes() {
    let graph = Graph::new();
    let _default = graph.as_default();
    crate::install();
    let none = report_uninitialized_variables(&[]).unwrap();
    assert_eq!(
        (none.name().as_str(), none.shape()),
        ("report_uninitialized_variables/Const:0", [0].into())
    );
    Variable::new([1.0f32, 2.0]).name("v").build().unwrap();
    let n = Variable::new(1i32).name("n").build().unwrap();
    let before = graph.num_operations();
    report_uninitialized_variables(&global_variables().unwrap()).unwrap();
    let made = graph.operations().split_off(before);
    let names: Vec<String> = made.iter().map(|operation| operation.name()).collect();
    let expected = "IsVariableInitialized IsVariableInitialized_1 stack LogicalNot Const boolean_mask/Shape \
        boolean_mask/strided_slice/stack boolean_mask/strided_slice/stack_1 boolean_mask/strided_slice/stack_2 \
        boolean_mask/strided_slice boolean_mask/Prod/reduction_indices boolean_mask/Prod boolean_mask/Shape_1 \
        boolean_mask/strided_slice_1/stack boolean_mask/strided_slice_1/stack_1 boolean_mask/strided_slice_1/stack_2 \
        boolean_mask/strided_slice_1 boolean_mask/Shape_2 boolean_mask/strided_slice_2/stack \
        boolean_mask/strided_slice_2/stack_1 boolean_mask/strided_slice_2/stack_2 boolean_mask/strided_slice_2 \
        boolean_mask/concat/values_1 boolean_mask/concat/axis boolean_mask/concat boolean_mask/Reshape \
        boolean_mask/Reshape_1/shape boolean_mask/Reshape_1 boolean_mask/Where boolean_mask/Squeeze \
        boolean_mask/GatherV2/axis boolean_mask/GatherV2";
    let expected: Vec<String> = expected
        .split_whitespace()
        .map(|name| format!("report_uninitialized_variables_1/{name}"))
        .collect();
    assert_eq!(names, expected);
    assert!(made[2..].iter().all(|operation| operation.device() == "/device:CPU:0"));
    let report = made.last().unwrap().output(0);
    let session = Session::new(&graph).unwrap();
    session.run(n.initializer(), ()).unwrap();
    let missing: Value = session.run(&report, ()).unwrap();
    assert_eq!(missing.as_strings().unwrap(), [b"v"]);
}
