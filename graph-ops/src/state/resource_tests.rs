//! Resource variables in sessions: when they are read, what is shared, and their errors.

use graph_core::format::import::ImportOptions;
use graph_core::graph::scope::control_dependencies;
use graph_core::graph::{IntoOperand, OpBuilder, Operand};
use graph_core::session::{Feeds, Session};
use graph_core::{DType, Graph, PartialShape, Result, Tensor, Value, Variable, gradients};

use super::*;
use crate::testing::listing;

fn resource(name: &str, value: impl IntoOperand) -> Variable {
    crate::install();
    Variable::new(value).name(name).use_resource(true).build().unwrap()
}

/// A handle of the variable `shared_name`, of no Variable.
fn handle(shared_name: &str, dtype: DType, shape: impl Into<PartialShape>) -> Tensor {
    let builder = crate::op("VarHandleOp")
        .attr("dtype", dtype)
        .attr("shape", shape.into());
    builder.attr("shared_name", shared_name).build().unwrap()
}

fn read(handle: impl IntoOperand, dtype: DType) -> Result<Tensor> {
    crate::op("ReadVariableOp").input(handle).attr("dtype", dtype).build()
}

fn fed(dtype: DType) -> Tensor {
    crate::op("Placeholder").attr("dtype", dtype).build().unwrap()
}

#[test]
fn nodes_are_tensorflows() {
    let graph = Graph::new();
    let _default = graph.as_default();
    let v = resource("v", [1.0f32, 2.0]);
    let w = {
        let _scope = VariableScope::of("s").use_resource(true).enter().unwrap();
        get_variable("w", [2]).initializer(zeros_initializer()).build().unwrap()
    };
    assert!(v.is_resource() && w.is_resource());
    assert_eq!(
        (v.name(), v.dtype(), v.shape()),
        ("v:0".into(), DType::Float32, [2].into())
    );
    let product = (&v * 3.0f32).unwrap();
    crate::math::add(product, &w).name("sum").build().unwrap();
    assign(&v, [0.0f32, 0.0]).build().unwrap();
    assign_add(&v, [1.0f32, 1.0]).name("plus").build().unwrap();
    is_variable_initialized(&v).build().unwrap();
    assert_eq!(
        listing(&graph),
        [
            "Const v/Initializer/initial_value <- ",
            "VarHandleOp v <- ",
            "VarIsInitializedOp v/IsInitialized/VarIsInitializedOp <- v",
            "AssignVariableOp v/Assign <- v, v/Initializer/initial_value",
            "ReadVariableOp v/Read/ReadVariableOp <- v",
            "Const s/w/Initializer/zeros <- ",
            "VarHandleOp s/w <- ",
            "VarIsInitializedOp s/w/IsInitialized/VarIsInitializedOp <- s/w",
            "AssignVariableOp s/w/Assign <- s/w, s/w/Initializer/zeros",
            "ReadVariableOp s/w/Read/ReadVariableOp <- s/w",
            "ReadVariableOp ReadVariableOp <- v",
            "Const mul/y <- ",
            "Mul mul <- ReadVariableOp, mul/y",
            "ReadVariableOp sum/ReadVariableOp <- s/w",
            "Add sum <- mul, sum/ReadVariableOp",
            "Const Const <- ",
            "AssignVariableOp AssignVariableOp <- v, Const",
            "ReadVariableOp ReadVariableOp_1 <- v, ^AssignVariableOp",
            "Const Const_1 <- ",
            "AssignAddVariableOp plus <- v, Const_1",
            "ReadVariableOp ReadVariableOp_2 <- v, ^plus",
            "VarIsInitializedOp VarIsInitializedOp <- v",
        ]
    );
    let class = |name: &str| graph.operation(name).unwrap().attr_value("_class");
    for name in ["v/Initializer/initial_value", "v"] {
        assert_eq!(class(name), Some(vec![b"loc:@v".to_vec()].into()), "{name}");
    }
    assert_eq!(class("v/Assign"), None);
}

#[test]
fn a_read_comes_before_updates_or_where_control_dependencies_put_it() {
    let graph = Graph::new();
    let _default = graph.as_default();
    let v = resource("v", [1.0f32, 2.0]);
    let before = v.read_value().unwrap();
    let changed = assign_add(&v, [10.0f32, 10.0]).build_operation().unwrap();
    let after = {
        let _after = control_dependencies([&changed]).unwrap();
        v.read_value().unwrap()
    };
    let twice = (&after + &before).unwrap();
    let session = Session::new(&graph).unwrap();
    session.run(v.initializer(), ()).unwrap();
    let (before, after, twice, read): (Value, Value, Value, Value) =
        session.run((&before, &after, &twice, &v), ()).unwrap();
    assert_eq!(before, Value::from([1.0f32, 2.0]));
    assert_eq!(after, Value::from([11.0f32, 12.0]));
    assert_eq!(twice, Value::from([12.0f32, 14.0]));
    assert_eq!(read, Value::from([1.0f32, 2.0]));
    assert_eq!(session.run::<Value>(&v, ()).unwrap(), Value::from([11.0f32, 12.0]));
}

#[test]
fn an_update_by_the_variables_own_value_does_not_see_itself_change() {
    let graph = Graph::new();
    let _default = graph.as_default();
    let v = resource("v", [1.0f32, 2.0]);
    let plain = Variable::new([1.0f32, 2.0]).name("plain").build().unwrap();
    let reversed = |variable: &Variable| {
        let indices = Value::from([1i32, 0]);
        scatter_add(variable, indices, variable).build().unwrap()
    };
    let reversed = [reversed(&v), reversed(&plain)];
    let itself = assign(&v, &v).build().unwrap();
    let session = Session::new(&graph).unwrap();
    session.run((v.initializer(), plain.initializer()), ()).unwrap();
    let results: [Value; 2] = session.run(&reversed, ()).unwrap();
    assert_eq!(results, [Value::from([3.0f32, 3.0]), Value::from([3.0f32, 3.0])]);
    assert_eq!(session.run::<Value>(&itself, ()).unwrap(), Value::from([3.0f32, 3.0]));
}

#[test]
fn handles_of_one_name_are_one_variable() {
    let graph = Graph::new();
    let _default = graph.as_default();
    let one = handle("shared", DType::Float32, [2]);
    let two = handle("shared", DType::Float32, [2]);
    let other = {
        let builder = crate::op("VarHandleOp").attr("dtype", DType::Float32);
        let builder = builder
            .attr("shape", PartialShape::from([2]))
            .attr("shared_name", "shared");
        builder.attr("container", "elsewhere").build().unwrap()
    };
    let set = assign(&one, [1.0f32, 2.0]).build_operation().unwrap();
    let known = is_variable_initialized(&other).build().unwrap();
    // The value read through one handle must not change under an update through the other.
    let before = read(&two, DType::Float32).unwrap();
    let doubled = {
        let change = assign_add(&one, [5.0f32, 5.0]).build_operation().unwrap();
        let _after = control_dependencies([&change]).unwrap();
        (&before * 2.0f32).unwrap()
    };
    let session = Session::new(&graph).unwrap();
    session.run(&set, ()).unwrap();
    assert_eq!(session.run::<Value>(&doubled, ()).unwrap(), Value::from([2.0f32, 4.0]));
    assert_eq!(session.run::<Value>(&before, ()).unwrap(), Value::from([6.0f32, 7.0]));
    assert!(!session.run::<bool>(&known, ()).unwrap());

    // The empty name is a name like any other to handles; references without one go by their nodes'.
    let (unnamed, too) = (handle("", DType::Int32, ()), handle("", DType::Int32, ()));
    let set = assign(&unnamed, 7i32).build_operation().unwrap();
    session.run(&set, ()).unwrap();
    assert_eq!(session.run::<i32>(&read(&too, DType::Int32).unwrap(), ()).unwrap(), 7);
    let reference = |name: &str, shared: &str| {
        let builder = crate::op("VariableV2")
            .attr("dtype", DType::Int32)
            .attr("shape", PartialShape::scalar());
        builder.attr("shared_name", shared).name(name).build().unwrap()
    };
    let (a, b) = (reference("shared", ""), reference("b", "shared"));
    let set = assign(&a, 3i32).build_operation().unwrap();
    session.run(&set, ()).unwrap();
    assert_eq!(session.run::<i32>(&b, ()).unwrap(), 3);
    assert_eq!(session.run::<Value>(&before, ()).unwrap(), Value::from([6.0f32, 7.0]));
}

#[test]
fn handles_pass_through_branches() {
    let graph = Graph::new();
    let _default = graph.as_default();
    let v = resource("v", 1.0f32);
    let w = resource("w", 2.0f32);
    let which = fed(DType::Bool);
    let taken = crate::control::cond(&which, || v.read_value(), || w.read_value())
        .build()
        .unwrap();
    // A handle that only the run can tell: of either variable, read before and after an update.
    let through = |variable: &Variable| {
        let switch = crate::op("Switch").input(variable.handle().unwrap()).input(&which);
        switch.build_all().unwrap()
    };
    let merged = crate::op("Merge")
        .input([through(&v)[1].clone(), through(&w)[0].clone()].to_vec())
        .build_all()
        .unwrap()
        .swap_remove(0);
    let merged = crate::array::identity(merged).build().unwrap();
    let before = read(&merged, DType::Float32).unwrap();
    let after = {
        let change = assign_add(&merged, 10.0f32).build_operation().unwrap();
        let _after = control_dependencies([&change]).unwrap();
        read(&merged, DType::Float32).unwrap()
    };
    let session = Session::new(&graph).unwrap();
    session.run((v.initializer(), w.initializer()), ()).unwrap();
    for (choice, value) in [(true, 1.0f32), (false, 2.0), (true, 11.0)] {
        let feeds = || Feeds::new().with(&which, choice);
        assert_eq!(session.run::<f32>(&taken, feeds()).unwrap(), value);
        let read: (f32, f32) = session.run((&before, &after), feeds()).unwrap();
        assert_eq!(read, (value, value + 10.0));
    }
}

#[test]
fn variables_of_unknown_shape_take_any_value() {
    let graph = Graph::new();
    let _default = graph.as_default();
    let value = fed(DType::Float32);
    let v = handle("v", DType::Float32, PartialShape::unknown());
    let set = assign(&v, &value).build_operation().unwrap();
    let read = read(&v, DType::Float32).unwrap();
    assert_eq!(read.shape(), PartialShape::unknown());
    let sum = crate::math::reduce_sum(&read).build().unwrap();
    let shape = variable_shape_of(&v).build().unwrap();
    let session = Session::new(&graph).unwrap();
    for numbers in [Value::from([1.0f32, 2.0]), Value::from([[1.0f32], [2.0], [4.0]])] {
        session.run(&set, Feeds::new().with(&value, &numbers)).unwrap();
        let (got, sum, dims): (Value, f32, Vec<i32>) = session.run((&read, &sum, &shape), ()).unwrap();
        assert_eq!(got, numbers);
        assert_eq!(sum, numbers.as_slice::<f32>().unwrap().iter().sum::<f32>());
        assert_eq!(dims, numbers.shape().iter().map(|&dim| dim as i32).collect::<Vec<_>>());
    }
}

#[test]
fn strings_are_held_too() {
    let graph = Graph::new();
    let _default = graph.as_default();
    let words = Value::from_strings([2], vec![b"a".to_vec(), b"bc".to_vec()]).unwrap();
    let v = resource("v", &words);
    let session = Session::new(&graph).unwrap();
    session.run(v.initializer(), ()).unwrap();
    assert_eq!(session.run::<Value>(&v, ()).unwrap(), words);
}

#[test]
fn what_is_not_initialized_is_reported() {
    let graph = Graph::new();
    let _default = graph.as_default();
    let (v, w) = (resource("v", [1.0f32]), resource("w", [1.0f32]));
    let sum = crate::math::add(&v, &w).build().unwrap();
    let change = assign_sub(&v, [1.0f32]).build_operation().unwrap();
    let missing = report_uninitialized_variables(&[v.clone(), w.clone()]).unwrap();
    let shape = variable_shape_of(&v).build().unwrap();
    let session = Session::new(&graph).unwrap();
    let error = session.run::<Value>(&sum, ()).unwrap_err();
    assert_eq!(error.class(), "FailedPrecondition");
    assert!(error.to_string().contains("v, w"), "{error}");
    // To TensorFlow, a variable that was never set does not exist.
    assert_eq!(session.run(&change, ()).unwrap_err().class(), "NotFound");
    assert_eq!(session.run::<Value>(&shape, ()).unwrap_err().class(), "NotFound");
    session.run(w.initializer(), ()).unwrap();
    let words = Value::from_strings([1], vec![b"v".to_vec()]).unwrap();
    assert_eq!(session.run::<Value>(&missing, ()).unwrap(), words);

    session.run(v.initializer(), ()).unwrap();
    let strict = crate::op("DestroyResourceOp")
        .input(&v)
        .attr("ignore_lookup_error", false);
    let strict = strict.build_operation().unwrap();
    let destroy = destroy_variable(&v).unwrap();
    session.run(&strict, ()).unwrap();
    session.run(&destroy, ()).unwrap();
    assert_eq!(session.run(&strict, ()).unwrap_err().class(), "NotFound");
    assert_eq!(session.run::<Value>(&v, ()).unwrap_err().class(), "FailedPrecondition");
}

#[test]
fn wrong_dtypes_and_shapes_are_errors() {
    let graph = Graph::new();
    let _default = graph.as_default();
    let v = resource("v", [1.0f32, 2.0]);
    let class = |result: Result<Tensor>| result.unwrap_err().class();
    assert_eq!(class(read(&v, DType::Int32)), "InvalidArgument");
    assert_eq!(class(assign(&v, Value::from([1i32, 2])).build()), "InvalidArgument");
    assert_eq!(class(assign(&v, [1.0f32, 2.0, 3.0]).build()), "InvalidArgument");
    assert_eq!(class(assign_add(&v, Value::from([1i32, 2])).build()), "InvalidArgument");
    assert_eq!(
        class(OpBuilder::new("Assign").input(&v).input(1.0f32).build()),
        "InvalidArgument"
    );
    let reference = Variable::new(1.0f32).build().unwrap();
    assert_eq!(class(read(&reference, DType::Float32)), "InvalidArgument");
    assert!(reference.handle().is_err());

    let session = Session::new(&graph).unwrap();
    session.run(v.initializer(), ()).unwrap();
    assert_eq!(
        session.run::<Value>(v.handle().unwrap(), ()).unwrap_err().class(),
        "InvalidArgument"
    );
    let value = fed(DType::Float32);
    let add = assign_add(&v, &value).build_operation().unwrap();
    let set = assign(&v, &value).build_operation().unwrap();
    let feeds = |value_of: Value| Feeds::new().with(&value, value_of);
    let error = session.run(&add, feeds(Value::scalar(1.0f32))).unwrap_err();
    assert_eq!(error.class(), "InvalidArgument");
    // A handle that says another dtype finds out in the run.
    let integers = handle("v", DType::Int32, [2]);
    let unknown = handle("v", DType::Int32, PartialShape::unknown());
    for handle in [&integers, &unknown] {
        let read = read(handle, DType::Int32).unwrap();
        assert_eq!(session.run::<Value>(&read, ()).unwrap_err().class(), "InvalidArgument");
    }
    let set_integers = assign(&integers, Value::from([1i32, 2])).build_operation().unwrap();
    assert_eq!(session.run(&set_integers, ()).unwrap_err().class(), "InvalidArgument");
    let longer = || feeds(Value::from([1.0f32, 2.0, 3.0]));
    assert_eq!(session.run(&set, longer()).unwrap_err().class(), "InvalidArgument");
    let set_any = assign(handle("v", DType::Float32, PartialShape::unknown()), &value);
    let set_any = set_any.build_operation().unwrap();
    session.run(&set_any, longer()).unwrap();
    assert_eq!(session.run::<Value>(&v, ()).unwrap_err().class(), "InvalidArgument");
}

#[test]
fn gradients_of_all_reads_meet_at_the_handle() {
    let graph = Graph::new();
    let _default = graph.as_default();
    let v = resource("v", [2.0f32, 3.0]);
    let square = crate::math::square(&v).build().unwrap();
    let sum = (&square + &v).unwrap();
    let gradient = gradients([&sum], [&v])
        .unwrap()
        .build()
        .unwrap()
        .swap_remove(0)
        .unwrap();
    assert_eq!((gradient.dtype(), gradient.shape()), (DType::Float32, [2].into()));
    let by_handle = gradients([Operand::Tensor(sum)], [v.handle().unwrap()])
        .unwrap()
        .build()
        .unwrap();
    let session = Session::new(&graph).unwrap();
    session.run(v.initializer(), ()).unwrap();
    assert_eq!(session.run::<Value>(&gradient, ()).unwrap(), Value::from([5.0f32, 7.0]));
    let by_handle: Value = session.run(by_handle[0].as_ref().unwrap(), ()).unwrap();
    assert_eq!(by_handle, Value::from([5.0f32, 7.0]));
}

#[test]
fn parts_are_gathered_without_a_read() {
    let graph = Graph::new();
    let _default = graph.as_default();
    let v = resource("v", [[1.0f32, 2.0], [3.0, 4.0], [5.0, 6.0]]);
    let rows = gather_rows(&v, [[2i32, 0]]).build().unwrap();
    assert_eq!(rows.shape(), [1, 2, 2].into());
    let squares = crate::math::square(&rows).build().unwrap();
    let twice = gather_rows(&v, [2i32]).build().unwrap();
    let gradient = gradients([&squares, &twice], [&v])
        .unwrap()
        .build()
        .unwrap()
        .swap_remove(0)
        .unwrap();
    let points = crate::op("ResourceGatherNd")
        .input(&v)
        .input([[2i32, 1], [0, 0]])
        .attr("dtype", DType::Float32);
    let points = points.build().unwrap();
    assert_eq!(points.shape(), [2].into());
    let of_points = gradients([&points], [&v])
        .unwrap()
        .build()
        .unwrap()
        .swap_remove(0)
        .unwrap();
    let paired = gather_rows(&v, [[1i32], [0], [1]])
        .attr("batch_dims", 1i64)
        .build()
        .unwrap();
    let index = fed(DType::Int64);
    let one = gather_rows(&v, &index).build().unwrap();
    let session = Session::new(&graph).unwrap();
    assert_eq!(session.run::<Value>(&rows, ()).unwrap_err().class(), "NotFound");
    session.run(v.initializer(), ()).unwrap();
    let got: Vec<Value> = session
        .run([&rows, &gradient, &points, &of_points, &paired].as_slice(), ())
        .unwrap();
    assert_eq!(
        got[0],
        Value::from([[5.0f32, 6.0], [1.0, 2.0]]).reshaped([1, 2, 2]).unwrap()
    );
    assert_eq!(got[1], Value::from([[2.0f32, 4.0], [0.0, 0.0], [11.0, 13.0]]));
    assert_eq!(got[2], Value::from([6.0f32, 1.0]));
    assert_eq!(got[3], Value::from([[1.0f32, 0.0], [0.0, 0.0], [0.0, 1.0]]));
    assert_eq!(got[4], Value::from([[2.0f32], [3.0], [6.0]]));
    let at = |index_of: i64| session.run::<Value>(&one, Feeds::new().with(&index, index_of));
    assert_eq!(at(1).unwrap(), Value::from([3.0f32, 4.0]));
    assert_eq!(at(3).unwrap_err().class(), "InvalidArgument");
    assert_eq!(at(-1).unwrap_err().class(), "InvalidArgument");

    // Nothing is known of this variable before the run.
    let words = handle("words", DType::String, PartialShape::unknown());
    let set = assign(
        &words,
        Value::from_strings([2], vec![b"a".to_vec(), b"b".to_vec()]).unwrap(),
    );
    session.run(set.build_operation().unwrap(), ()).unwrap();
    let last = crate::op("ResourceGather")
        .input(&words)
        .input([1i32, 1])
        .attr("dtype", DType::String);
    let last: Value = session.run(last.build().unwrap(), ()).unwrap();
    assert_eq!(last, Value::from_strings([2], vec![b"b".to_vec(); 2]).unwrap());
}

#[test]
fn parts_are_scattered_and_set() {
    let graph = Graph::new();
    let _default = graph.as_default();
    let start = [[1.0f32, 2.0], [3.0, 4.0], [5.0, 6.0]];
    let (v, plain) = (
        resource("v", start),
        Variable::new(start).name("plain").build().unwrap(),
    );
    let session = Session::new(&graph).unwrap();
    let check = |update: Tensor, expected: [[f32; 2]; 3]| {
        let value: Value = session.run(&update, ()).unwrap();
        assert_eq!(value, Value::from(expected), "{update:?}");
    };
    for variable in [&v, &plain] {
        let set = |slice: [i32; 3], value: Value| {
            let op = ["StridedSliceAssign", "ResourceStridedSliceAssign"][usize::from(variable.is_resource())];
            let node = crate::op(op)
                .input(variable)
                .input([slice[0]])
                .input([slice[1]])
                .input([slice[2]]);
            let set = node.input(value).build_operation().unwrap();
            let _after = control_dependencies([&set]).unwrap();
            match variable.is_resource() {
                true => variable.read_value().unwrap(),
                false => set.output(0),
            }
        };
        session.run(variable.initializer(), ()).unwrap();
        check(
            scatter_add(variable, [0i32, 0], 1.0f32).build().unwrap(),
            [[3.0, 4.0], [3.0, 4.0], [5.0, 6.0]],
        );
        check(
            scatter_sub(variable, [0i64], [[1.0f32, 2.0]]).build().unwrap(),
            [[2.0, 2.0], [3.0, 4.0], [5.0, 6.0]],
        );
        check(
            scatter_mul(variable, 2i32, 2.0f32).build().unwrap(),
            [[2.0, 2.0], [3.0, 4.0], [10.0, 12.0]],
        );
        check(
            scatter_div(variable, 2i32, 4.0f32).build().unwrap(),
            [[2.0, 2.0], [3.0, 4.0], [2.5, 3.0]],
        );
        check(
            scatter_min(variable, 1i32, 3.5f32).build().unwrap(),
            [[2.0, 2.0], [3.0, 3.5], [2.5, 3.0]],
        );
        check(
            scatter_max(variable, 1i32, 3.25f32).build().unwrap(),
            [[2.0, 2.0], [3.25, 3.5], [2.5, 3.0]],
        );
        check(
            scatter_update(variable, 1i32, [7.0f32, 8.0]).build().unwrap(),
            [[2.0, 2.0], [7.0, 8.0], [2.5, 3.0]],
        );
        check(
            scatter_nd_add(variable, [[1i32, 0]], [1.0f32]).build().unwrap(),
            [[2.0, 2.0], [8.0, 8.0], [2.5, 3.0]],
        );
        check(
            scatter_nd_sub(variable, [[1i32]], [[1.0f32, 2.0]]).build().unwrap(),
            [[2.0, 2.0], [7.0, 6.0], [2.5, 3.0]],
        );
        check(
            scatter_nd_update(variable, [[1i32, 1]], [0.0f32]).build().unwrap(),
            [[2.0, 2.0], [7.0, 0.0], [2.5, 3.0]],
        );
        check(
            set([0, 2, 1], Value::from([[9.0f32, 8.0]])),
            [[9.0, 8.0], [9.0, 8.0], [2.5, 3.0]],
        );
        check(
            set([-1, -4, -2], Value::from([[1.0f32], [2.0]])),
            [[2.0, 2.0], [9.0, 8.0], [1.0, 1.0]],
        );
        let too_many = crate::op("StridedSliceAssign")
            .input(&plain)
            .input([0i32])
            .input([2i32])
            .input([1i32]);
        let too_many = too_many.input([[1.0f32, 2.0, 3.0]]).build();
        assert_eq!(too_many.unwrap_err().class(), "InvalidArgument");
        let outside = scatter_add(variable, [3i32], 1.0f32).build().unwrap();
        assert_eq!(
            session.run::<Value>(&outside, ()).unwrap_err().class(),
            "InvalidArgument"
        );
    }
}

#[test]
fn counters_count_to_their_limit() {
    let graph = Graph::new();
    let _default = graph.as_default();
    let counter = resource("n", 1i64);
    let count = count_up_to(&counter, 3).build().unwrap();
    assert_eq!(
        (count.op().op_type(), count.dtype()),
        ("ResourceCountUpTo", DType::Int64)
    );
    let session = Session::new(&graph).unwrap();
    session.run(counter.initializer(), ()).unwrap();
    let counted: Vec<i64> = (0..2).map(|_| session.run(&count, ()).unwrap()).collect();
    assert_eq!(counted, [1, 2]);
    assert_eq!(session.run::<i64>(&count, ()).unwrap_err().class(), "OutOfRange");
    assert_eq!(session.run::<i64>(&counter, ()).unwrap(), 3);
}

#[test]
fn a_meta_graph_keeps_them() {
    let graph = Graph::new();
    let _default = graph.as_default();
    resource("v", [1.0f32, 2.0]);
    let meta = graph.to_meta_graph(&Default::default()).unwrap();
    let read = Graph::new();
    read.import_meta_graph(&meta, &ImportOptions::verbatim()).unwrap();
    let _default = read.as_default();
    let variables = trainable_variables().unwrap();
    assert!(variables[0].is_resource());
    assert_eq!(
        (variables[0].dtype(), variables[0].shape()),
        (DType::Float32, [2].into())
    );
    let session = Session::new(&read).unwrap();
    session.run(global_variables_initializer().unwrap(), ()).unwrap();
    assert_eq!(
        session.run::<Value>(&variables[0], ()).unwrap(),
        Value::from([1.0f32, 2.0])
    );
    let again = read.to_meta_graph(&Default::default()).unwrap();
    assert_eq!(again.collection_def, meta.collection_def);
}
