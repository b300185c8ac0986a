//! Updates of variables on an emulated GPU, against those on the host.

use std::sync::Arc;

use graph_core::accelerator::Accelerator;
use graph_core::graph::{IntoOperand, OpBuilder};
use graph_core::session::{Feeds, Session, SessionOptions};
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
    let run = |accelerators: Vec<Arc<dyn Accelerator>>| -> Result<(Value, Value)> {
        let session = Session::with_options(&graph, SessionOptions::default().accelerators(accelerators))?;
        let error = session.run::<Value>(&rows, ()).unwrap_err();
        assert_eq!(error.class(), "NotFound", "{error}");
        session.run(variable.initializer(), ())?;
        session.run((&rows, &of_batches), ())
    };
    assert_eq!(run(vec![device.accelerator()])?, run(Vec::new())?);
    assert!(device.texts().iter().any(|text| text.contains("#line 1 \"gather.cu\"")));
    Ok(())
}
