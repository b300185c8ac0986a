//! Updates of variables on an emulated GPU, against those on the host.

use std::sync::Arc;

use graph_core::accelerator::Accelerator;
use graph_core::graph::{IntoOperand, OpBuilder};
use graph_core::session::{Feeds, RunOptions, Session, SessionOptions};
use graph_core::{DType, Graph, Result, Tensor, Value, Variable};

use crate::testing::assert_close;

/// The value of a variable of `[4, 3]` elements after two runs of an update of it.
fn after(
    accelerators: &[Arc<dyn Accelerator>],
    dtype: DType,
    by_handle: bool,
    update: &dyn Fn(&Variable, Tensor) -> OpBuilder,
) -> Result<Value> {
    crate::install();
    let graph = Graph::new();
    let _default = graph.as_default();
    let numbers: Vec<i32> = (-4..8).collect();
    let start = Value::from_vec([4, 3], numbers)?.cast_exactly(dtype)?;
    let variable = Variable::new(start).use_resource(by_handle).build()?;
    let value = OpBuilder::new("Placeholder").attr("dtype", dtype).build()?;
    let update = update(&variable, value.clone()).build_operation()?;
    let options = SessionOptions::default().accelerators(accelerators.to_vec());
    let session = Session::with_options(&graph, options)?;
    session.run(variable.initializer(), ())?;
    for run in 1..=2 {
        let numbers: Vec<i32> = (0..12).map(|number| (number * 5 + run) % 7 + 1).collect();
        let fed = Value::from_vec([4, 3], numbers)?.cast_exactly(dtype)?;
        session.run(&update, Feeds::new().with(&value, fed))?;
    }
    session.run(&variable, ())
}

#[test]
pub(crate) fn variables_are_updated_on_a_gpu() -> Result<()> {
    let device = match crate::testing::gpu() {
        Ok(device) => device,
        Err(reason) => {
            println!("skipped: {reason}");
            return Ok(());
        }
    };
    let accelerators = [device.accelerator()];
    let compare = |label: &str, dtype: DType, by_handle: bool, update: &dyn Fn(&Variable, Tensor) -> OpBuilder| {
        let label = format!("{label} of {dtype}, by handle {by_handle}");
        let expected = after(&[], dtype, by_handle, update)?;
        let got = after(&accelerators, dtype, by_handle, update)?;
        let tolerance = match dtype {
            DType::Half | DType::BFloat16 => 2e-2,
            _ => 1e-6,
        };
        assert_close(&got, &expected, (tolerance, 1e-7), &label);
        Ok(())
    };
    for dtype in [
        DType::Float32,
        DType::Float64,
        DType::Half,
        DType::BFloat16,
        DType::Int64,
    ] {
        for (by_reference, by_handle) in [
            ("Assign", "AssignVariableOp"),
            ("AssignAdd", "AssignAddVariableOp"),
            ("AssignSub", "AssignSubVariableOp"),
        ] {
            compare(by_reference, dtype, false, &|variable, value| {
                OpBuilder::new(by_reference).input(variable).input(value)
            })?;
            compare(by_handle, dtype, true, &|variable, value| {
                OpBuilder::new(by_handle).input(variable).input(value)
            })?;
        }
    }
    for dtype in [DType::Float32, DType::Float64, DType::Half, DType::BFloat16] {
        for change in ["Update", "Add", "Sub", "Mul", "Div", "Min", "Max"] {
            for (by_handle, prefix) in [(false, ""), (true, "Resource")] {
                let op = format!("{prefix}Scatter{change}");
                // A row that comes up again, and one that does not come up.
                let rows = |indices: Value| {
                    let op = &op;
                    move |variable: &Variable, value: Tensor| {
                        OpBuilder::new(op)
                            .input(variable)
                            .input(indices.clone().into_operand())
                            .input(value)
                    }
                };
                compare(&op, dtype, by_handle, &rows(Value::from([2i32, 0, 2, 1])))?;
                compare(&op, dtype, by_handle, &rows(Value::from([3i64, 3, 3, 0])))?;
            }
        }
    }
    for dtype in [DType::Float32, DType::Half] {
        for change in ["Update", "Add", "Sub"] {
            for (by_handle, prefix) in [(false, ""), (true, "Resource")] {
                let op = format!("{prefix}ScatterNd{change}");
                // A place that comes up again.
                let places = Value::from_vec([4, 3, 2], (0..24).map(|at| at * 5 % 3).collect::<Vec<i32>>())?;
                compare(&op, dtype, by_handle, &|variable, value| {
                    OpBuilder::new(&op)
                        .input(variable)
                        .input(places.clone().into_operand())
                        .input(value)
                })?;
            }
        }
    }
    let texts = device.texts();
    let compiled = |source: &str| {
        texts
            .iter()
            .filter(|text| text.contains(&format!("#line 1 \"{source}\"")))
            .count()
    };
    assert_eq!(compiled("scatter.cu"), 4 * 7);
    assert_eq!(compiled("row_order.cu"), 2);
    assert!(compiled("elementwise.cu") >= 10, "{}", compiled("elementwise.cu"));
    Ok(())
}

#[test]
pub(crate) fn parts_of_variables_are_picked_on_a_gpu() -> Result<()> {
    let device = match crate::testing::gpu() {
        Ok(device) => device,
        Err(reason) => {
            println!("skipped: {reason}");
            return Ok(());
        }
    };
    crate::install();
    let graph = Graph::new();
    let _default = graph.as_default();
    let numbers: Vec<f32> = (0..24).map(|number| number as f32).collect();
    let variable = Variable::new(Value::from_vec([4, 3, 2], numbers)?)
        .use_resource(true)
        .build()?;
    let rows = super::gather_rows(&variable, [[3i32, 0], [0, 2]]).build()?;
    let of_batches = super::gather_rows(&variable, [[2i64], [0], [1], [2]])
        .attr("batch_dims", 1i64)
        .build()?;
    let points = |indices: Value| {
        let node = OpBuilder::new("ResourceGatherNd").input(&variable);
        node.input(indices.into_operand()).attr("dtype", DType::Float32).build()
    };
    let (planes, elements) = (
        points(Value::from([[2i32], [0], [3]]))?,
        points(Value::from([[3i64, 2, 1], [0, 1, 0]]))?,
    );
    let run = |accelerators: Vec<Arc<dyn Accelerator>>| -> Result<Vec<Value>> {
        let on_device = !accelerators.is_empty();
        let session = Session::with_options(&graph, SessionOptions::default().accelerators(accelerators))?;
        for picked in [&rows, &elements] {
            let error = session.run::<Value>(picked, ()).unwrap_err();
            assert_eq!(error.class(), "NotFound", "{error}");
        }
        session.run(variable.initializer(), ())?;
        let fetches = [&rows, &of_batches, &planes, &elements];
        let fetches: Vec<Tensor> = fetches.into_iter().cloned().collect();
        let options = RunOptions {
            trace: true,
            ..RunOptions::default()
        };
        let (values, metadata) = session.run_with(fetches, (), &options)?;
        let picks = metadata
            .nodes
            .iter()
            .filter(|step| step.op.starts_with("ResourceGather"));
        assert!(picks.clone().count() == 4);
        assert!(picks.clone().all(|step| step.device.contains("GPU") == on_device));
        Ok(values)
    };
    assert_eq!(run(vec![device.accelerator()])?, run(Vec::new())?);
    assert!(device.texts().iter().any(|text| text.contains("#line 1 \"gather.cu\"")));
    Ok(())
}

/// Every update of `slices` one after the other, by references and by handles; what is left of the variable.
fn set_parts(accelerators: &[Arc<dyn Accelerator>], dtype: DType, by_handle: bool) -> Result<Vec<Value>> {
    crate::install();
    let graph = Graph::new();
    let _default = graph.as_default();
    let values = |shape: &[usize], from: i32| {
        let len = shape.iter().product::<usize>() as i32;
        Value::from_vec(shape.to_vec(), (from..from + len).collect::<Vec<_>>())?.cast_exactly(dtype)
    };
    let variable = Variable::new(values(&[5, 4, 3], 0)?).use_resource(by_handle).build()?;
    let op = if by_handle {
        "ResourceStridedSliceAssign"
    } else {
        "StridedSliceAssign"
    };
    // Begins, ends and strides, masks of new axes and single indices, and the shape of the value.
    type Slice = ([[i64; 3]; 3], [i64; 2], &'static [usize]);
    let slices: [Slice; 6] = [
        ([[0, 0, 0], [5, 4, 3], [2, 3, 1]], [0, 0], &[3, 2, 3]),
        ([[4, -1, 2], [0, -5, 0], [-2, -1, -1]], [0, 0], &[4, 1]),
        ([[1, 1, 0], [2, 3, 3], [1, 1, 2]], [0, 1], &[2, 2]),
        ([[0, 1, 2], [1, 4, 3], [1, 1, 1]], [1, 0], &[]),
        ([[3, 2, 1], [4, 3, 2], [1, 1, 1]], [0, 7], &[]),
        ([[2, 2, 2], [2, 2, 2], [1, 1, 1]], [0, 0], &[1]),
    ];
    let options = SessionOptions::default().accelerators(accelerators.to_vec());
    let session = Session::with_options(&graph, options)?;
    let mut left = Vec::new();
    for (number, ([begin, end, strides], [new_axis, shrink], shape)) in slices.into_iter().enumerate() {
        let node = OpBuilder::new(op)
            .input(&variable)
            .input(begin)
            .input(end)
            .input(strides);
        let node = node.input(values(shape, 100 + 30 * number as i32)?.into_operand());
        let node = node.attr("new_axis_mask", new_axis).attr("shrink_axis_mask", shrink);
        let set = node.build_operation()?;
        if number == 0 {
            let error = session.run::<()>(&set, ()).unwrap_err();
            let class = if by_handle { "NotFound" } else { "FailedPrecondition" };
            assert_eq!(error.class(), class, "{error}");
            session.run(variable.initializer(), ())?;
        }
        for _ in 0..2 {
            let options = RunOptions {
                trace: true,
                ..RunOptions::default()
            };
            let ((), metadata) = session.run_with(&set, (), &options)?;
            let mut steps = metadata.nodes.iter().filter(|step| step.op == op);
            assert!(steps.any(|step| step.device.contains("GPU") != accelerators.is_empty()));
        }
        left.push(session.run(&variable, ())?);
    }
    Ok(left)
}

#[test]
pub(crate) fn parts_of_variables_are_set_on_a_gpu() -> Result<()> {
    let device = match crate::testing::gpu() {
        Ok(device) => device,
        Err(reason) => {
            println!("skipped: {reason}");
            return Ok(());
        }
    };
    for dtype in [
        DType::Float32,
        DType::Float64,
        DType::Half,
        DType::Int16,
        DType::UInt8,
        DType::Complex128,
    ] {
        for by_handle in [false, true] {
            let expected = set_parts(&[], dtype, by_handle)?;
            assert_eq!(
                set_parts(&[device.accelerator()], dtype, by_handle)?,
                expected,
                "{dtype}"
            );
            for pair in expected.windows(2).take(4) {
                assert_ne!(pair[0], pair[1], "every slice changes something");
            }
        }
    }
    Ok(())
}
