//! Loops of the ops that TensorFlow makes them of.

use graph_core::graph::{IntoOperand, Tensor};
use graph_core::session::{Feeds, Session};
use graph_core::{DType, Graph, Result, Value};

use super::{TensorArray, cond, merge, switch};
use crate::array::{constant, placeholder};

pub(crate) fn binary(op: &str, a: impl IntoOperand, b: impl IntoOperand) -> Tensor {
    crate::op(op).input(a).input(b).build().expect("a node")
}

fn unary(op: &str, x: &Tensor) -> Tensor {
    crate::op(op).input(x).build().expect("a node")
}

/// A tensor as a constant of the loop `name`.
pub(crate) fn inside(name: &str, x: impl IntoOperand) -> Tensor {
    let enter = crate::op("Enter")
        .input(x)
        .attr("frame_name", name)
        .attr("is_constant", true);
    enter.build().expect("a node")
}

/// What the variables are at the end of the loop `name`.
pub(crate) fn repeat(
    name: &str,
    start: &[Tensor],
    goes_on: impl FnOnce(&[Tensor]) -> Tensor,
    body: impl FnOnce(&[Tensor]) -> Vec<Tensor>,
) -> Vec<Tensor> {
    let graph = start[0].graph();
    let enter = |x: &Tensor| {
        crate::op("Enter")
            .input(x)
            .attr("frame_name", name)
            .build()
            .expect("a node")
    };
    let entered: Vec<Tensor> = start.iter().map(enter).collect();
    let merged: Vec<Tensor> = entered.iter().map(|x| merge([x, x]).expect("a node").output).collect();
    let condition = unary("LoopCond", &goes_on(&merged));
    let ways: Vec<(Tensor, Tensor)> = merged.iter().map(|x| switch(x, &condition).expect("a node")).collect();
    let again: Vec<Tensor> = ways.iter().map(|(_, again)| unary("Identity", again)).collect();
    for (merged, next) in merged.iter().zip(body(&again)) {
        let next = unary("NextIteration", &next);
        graph.set_input(&merged.op(), 1, &next).expect("the way back");
    }
    ways.iter().map(|(end, _)| unary("Exit", end)).collect()
}

/// A body that takes one way of a branch without a `Merge` behind it has no value where the other is taken.
#[test]
fn a_variable_that_is_not_carried_on_is_an_error() -> Result<()> {
    let graph = Graph::new();
    let _default = graph.as_default();
    let start = [constant(0i32).build()?, constant([1.0f32, 2.0]).build()?];
    let last = inside("loop", constant(6i32));
    let ends = repeat(
        "loop",
        &start,
        |x| binary("Less", &x[0], &last),
        |x| {
            let early = binary("Less", &x[0], inside("loop", constant(2i32)));
            let (_, when_early) = switch(&x[1], &early).expect("a node");
            let one = inside("loop", constant(1i32));
            vec![binary("AddV2", &x[0], one), binary("Mul", &when_early, &x[1])]
        },
    );
    let session = Session::new(&graph)?;
    for end in [&ends[0], &ends[1]] {
        let error = session.run::<(Value, Value)>((&ends[0], &ends[1]), ()).unwrap_err();
        assert_eq!(error.class(), "InvalidArgument", "{error}");
        let message = error.to_string();
        assert!(
            message.contains("NextIteration") && message.contains("Merge"),
            "{message}"
        );
        // The counter alone goes through.
        if std::ptr::eq(end, &ends[0]) {
            assert_eq!(session.run::<i32>(end, ())?, 6);
        }
    }
    Ok(())
}

#[test]
fn a_loop_runs_until_its_condition_is_false() -> Result<()> {
    let graph = Graph::new();
    let _default = graph.as_default();
    let limit = placeholder::<i32>(()).build()?;
    let start = [constant(0i32).build()?, constant([1.0f32, 2.0]).build()?];
    let last = inside("loop", &limit);
    let ends = repeat(
        "loop",
        &start,
        |x| binary("Less", &x[0], &last),
        |x| {
            let two = inside("loop", constant(2.0f32));
            vec![
                binary("AddV2", &x[0], inside("loop", constant(1i32))),
                binary("Mul", &x[1], two),
            ]
        },
    );
    let session = Session::new(&graph)?;
    for (limit_is, factor) in [(3, 8.0f32), (0, 1.0), (10, 1024.0), (3, 8.0)] {
        let feeds = Feeds::new().with(&limit, limit_is);
        let (count, x): (i32, Value) = session.run((&ends[0], binary("AddV2", &ends[1], 0.0f32)), feeds)?;
        assert_eq!((count, x), (limit_is, [factor, 2.0 * factor].into()));
    }
    Ok(())
}

#[test]
fn variables_of_a_loop_may_change_places_and_shapes() -> Result<()> {
    let graph = Graph::new();
    let _default = graph.as_default();
    let start = [
        constant(0i32).build()?,
        constant([1.0f32]).build()?,
        constant([5.0f32]).build()?,
    ];
    let ends = repeat(
        "loop",
        &start,
        |x| binary("Less", &x[0], inside("loop", constant(3i32))),
        |x| {
            let both = crate::op("ConcatV2")
                .input([&x[1], &x[2]])
                .input(inside("loop", constant(0i32)));
            let both = both.build().expect("a node");
            vec![
                binary("AddV2", &x[0], inside("loop", constant(1i32))),
                x[2].clone(),
                both,
            ]
        },
    );
    let (short, long): (Value, Value) = Session::new(&graph)?.run((&ends[1], &ends[2]), ())?;
    assert_eq!(short, [5.0f32, 1.0, 5.0].into());
    assert_eq!(long, [1.0f32, 5.0, 5.0, 1.0, 5.0].into());
    Ok(())
}

#[test]
fn loops_may_lie_in_loops() -> Result<()> {
    let graph = Graph::new();
    let _default = graph.as_default();
    let start = [constant(0i32).build()?, constant(0i32).build()?];
    // The sum of i * j for j < i < 5.
    let ends = repeat(
        "outer",
        &start,
        |x| binary("Less", &x[0], inside("outer", constant(5i32))),
        |x| {
            let i = inside("inner", &x[0]);
            let zero = binary("Mul", &x[0], inside("outer", constant(0i32)));
            let inner = repeat(
                "inner",
                &[zero, x[1].clone()],
                |y| binary("Less", &y[0], &i),
                |y| {
                    let one = inside("inner", inside("outer", constant(1i32)));
                    vec![
                        binary("AddV2", &y[0], one),
                        binary("AddV2", &y[1], binary("Mul", &i, &y[0])),
                    ]
                },
            );
            vec![
                binary("AddV2", &x[0], inside("outer", constant(1i32))),
                inner[1].clone(),
            ]
        },
    );
    let expected: i32 = (0..5).map(|i| (0..i).map(|j| i * j).sum::<i32>()).sum();
    assert_eq!(Session::new(&graph)?.run::<i32>(&ends[1], ())?, expected);
    Ok(())
}

#[test]
fn branches_lie_in_loops_and_loops_in_branches() -> Result<()> {
    let graph = Graph::new();
    let _default = graph.as_default();
    let wanted = placeholder::<bool>(()).build()?;
    let result = cond(
        &wanted,
        || {
            let start = [constant(0i32).build()?, constant(0i32).build()?];
            let ends = repeat(
                "loop",
                &start,
                |x| binary("Less", &x[0], inside("loop", constant(6i32))),
                |x| {
                    let two = inside("loop", constant(2i32));
                    let odd = binary("Equal", binary("FloorMod", &x[0], two), inside("loop", constant(1i32)));
                    let (even, other) = switch(&x[1], &odd).expect("a node");
                    let plus = binary("AddV2", &other, inside("loop", constant(10i32)));
                    let sum = merge([&even, &plus]).expect("a node").output;
                    vec![binary("AddV2", &x[0], inside("loop", constant(1i32))), sum]
                },
            );
            Ok(ends[1].clone())
        },
        || constant(-1i32).build(),
    )
    .build()?;
    let session = Session::new(&graph)?;
    for (wanted_is, expected) in [(true, 30), (false, -1), (true, 30)] {
        assert_eq!(
            session.run::<i32>(&result, Feeds::new().with(&wanted, wanted_is))?,
            expected
        );
    }
    Ok(())
}

#[test]
fn a_loop_writes_a_tensor_array() -> Result<()> {
    let graph = Graph::new();
    let _default = graph.as_default();
    let array = TensorArray::new(DType::Int32, 4)?;
    let start = [constant(0i32).build()?, array.flow().clone()];
    let handle = inside("loop", array.handle());
    let ends = repeat(
        "loop",
        &start,
        |x| binary("Less", &x[0], inside("loop", constant(4i32))),
        |x| {
            let square = binary("Mul", &x[0], &x[0]);
            let write = crate::op("TensorArrayWriteV3")
                .input(&handle)
                .input(&x[0])
                .input(square)
                .input(&x[1]);
            vec![
                binary("AddV2", &x[0], inside("loop", constant(1i32))),
                write.build().expect("a node"),
            ]
        },
    );
    let squares: Value = Session::new(&graph)?.run(array.with_flow(ends[1].clone()).stack()?, ())?;
    assert_eq!(squares, [0i32, 1, 4, 9].into());
    Ok(())
}

#[test]
fn a_loop_changes_a_variable_in_each_iteration() -> Result<()> {
    let graph = Graph::new();
    let _default = graph.as_default();
    let handle = crate::op("VarHandleOp").attr("dtype", DType::Float32);
    let handle = handle.attr("shape", graph_core::PartialShape::scalar()).build()?;
    let initialize = crate::op("AssignVariableOp")
        .input(&handle)
        .input(1.0f32)
        .build_operation()?;
    let (held, one, three) = (
        inside("loop", &handle),
        inside("loop", constant(1i32)),
        inside("loop", constant(3i32)),
    );
    let start = [constant(0i32).build()?];
    let ends = repeat(
        "loop",
        &start,
        |x| binary("Less", &x[0], &three),
        |x| {
            let read = crate::op("ReadVariableOp").input(&held).attr("dtype", DType::Float32);
            let read = read.control_input(&x[0].op()).build().expect("a node");
            let assign = crate::op("AssignVariableOp")
                .input(&held)
                .input(binary("AddV2", &read, &read));
            let assign = assign.build_operation().expect("a node");
            let next = crate::op("AddV2").input(&x[0]).input(&one).control_input(&assign);
            vec![next.build().expect("a node")]
        },
    );
    let read = crate::op("ReadVariableOp")
        .input(&handle)
        .attr("dtype", DType::Float32)
        .build()?;
    let session = Session::new(&graph)?;
    session.run::<()>(&initialize, ())?;
    assert_eq!(session.run::<i32>(&ends[0], ())?, 3);
    assert_eq!(session.run::<f32>(&read, ())?, 8.0);
    Ok(())
}

#[test]
fn what_is_no_loop_is_an_error() -> Result<()> {
    let graph = Graph::new();
    let _default = graph.as_default();
    let session = Session::new(&graph)?;
    let lonely = unary("Exit", &constant(1.0f32).build()?);
    assert_eq!(
        session.run::<Value>(&lonely, ()).unwrap_err().class(),
        "InvalidArgument"
    );
    let sum = binary(
        "AddV2",
        inside("one", constant(1.0f32)),
        inside("other", constant(2.0f32)),
    );
    assert_eq!(session.run::<Value>(&sum, ()).unwrap_err().class(), "InvalidArgument");
    Ok(())
}
