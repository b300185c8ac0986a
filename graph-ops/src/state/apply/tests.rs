//! Two steps of each update, against what TensorFlow's op of the same name computes.

use std::sync::Arc;

use graph_core::accelerator::Accelerator;
use graph_core::graph::{IntoOperand, OpBuilder};
use graph_core::session::{Feeds, Session, SessionOptions};
use graph_core::{DType, Graph, Value, Variable};

use crate::testing::assert_close;

struct Update {
    op: &'static str,
    attrs: &'static [(&'static str, bool)],
    /// What the slots start from; the variable itself starts from [`START`].
    slots: &'static [[f64; 4]],
    /// The inputs behind the variables; `None` is the gradient.
    scalars: &'static [Option<f64>],
    /// The variable and the slots after two steps.
    expected: &'static [[f64; 4]],
}

const START: [f64; 4] = [1.0, -2.0, 3.0, 0.5];
const GRADIENTS: [[f64; 4]; 2] = [[0.1, -0.25, 0.0, 2.0], [-0.3, 0.5, 0.125, -1.5]];

#[rustfmt::skip]
const UPDATES: &[Update] = &[
    Update { op: "ApplyGradientDescent", attrs: &[], slots: &[], scalars: &[Some(0.1), None], expected: &[[1.02, -2.0250001, 2.9875, 0.45000002]] },
    Update { op: "ApplyMomentum", attrs: &[], slots: &[[0.5, -0.5, 0.25, 0.0]], scalars: &[Some(0.1), None, Some(0.9)], expected: &[[0.92549998, -1.9169999, 2.9447501, 0.27000001], [0.19499999, -0.13, 0.32749999, 0.29999995]] },
    Update { op: "ApplyMomentum", attrs: &[("use_nesterov", true)], slots: &[[0.5, -0.5, 0.25, 0.0]], scalars: &[Some(0.1), None, Some(0.9)], expected: &[[0.95295, -1.9503, 2.9377749, 0.24300002], [0.19499999, -0.13, 0.32749999, 0.29999995]] },
    Update { op: "ApplyProximalGradientDescent", attrs: &[], slots: &[], scalars: &[Some(0.1), Some(0.5), Some(0.25), None], expected: &[[0.87519342, -1.8322428, 2.746877, 0.33551458]] },
    Update { op: "ApplyProximalGradientDescent", attrs: &[], slots: &[], scalars: &[Some(0.1), Some(0.0), Some(0.25), None], expected: &[[0.97156459, -1.928614, 2.8432481, 0.43188581]] },
    Update { op: "ApplyAdam", attrs: &[], slots: &[[0.1, 0.2, 0.0, -0.1], [0.01, 0.02, 0.0, 0.1]], scalars: &[Some(0.9), Some(0.999), Some(0.01), Some(0.9), Some(0.999), Some(0.001), None], expected: &[[0.99499786, -2.0076175, 2.9920189, 0.49941793], [0.059999991, 0.1895, 0.012500003, -0.051000006], [0.010079999, 0.020272454, 1.5624799e-05, 0.10604602]] },
    Update { op: "ApplyAdam", attrs: &[("use_nesterov", true)], slots: &[[0.1, 0.2, 0.0, -0.1], [0.01, 0.02, 0.0, 0.1]], scalars: &[Some(0.9), Some(0.999), Some(0.01), Some(0.9), Some(0.999), Some(0.001), None], expected: &[[0.99612057, -2.0074039, 2.9848361, 0.49897224], [0.059999991, 0.1895, 0.012500003, -0.051000006], [0.010079999, 0.020272454, 1.5624799e-05, 0.10604602]] },
    Update { op: "ApplyAdaMax", attrs: &[], slots: &[[0.1, 0.2, 0.0, -0.1], [0.01, 0.02, 0.0, 0.1]], scalars: &[Some(0.9), Some(0.01), Some(0.9), Some(0.999), Some(0.001), None], expected: &[[0.88105661, -2.0995774, 2.9900794, 0.49705404], [0.059999991, 0.1895, 0.012500003, -0.051000006], [0.30000001, 0.5, 0.125, 1.998]] },
    Update { op: "ApplyRMSProp", attrs: &[], slots: &[[1.0, 1.0, 0.5, 2.0], [0.0, 0.1, -0.1, 0.2]], scalars: &[Some(0.01), Some(0.95), Some(0.7), Some(1e-10), None], expected: &[[1.0014055, -2.1198654, 3.1171408, 0.24887031], [0.90747499, 0.91796875, 0.45203122, 2.1074998], [-0.0024312306, 0.052426111, -0.047140799, 0.097328365]] },
    Update { op: "ApplyCenteredRMSProp", attrs: &[], slots: &[[0.1, 0.0, -0.2, 0.3], [1.0, 1.0, 0.5, 2.0], [0.0, 0.1, -0.1, 0.2]], scalars: &[Some(0.01), Some(0.95), Some(0.7), Some(0.001), None], expected: &[[1.0014066, -2.1198652, 3.1170774, 0.24821301], [0.079999998, 0.013125002, -0.17424999, 0.29075003], [0.90747499, 0.91796875, 0.45203122, 2.1074998], [-0.002437219, 0.052424554, -0.047077306, 0.097474858]] },
    Update { op: "ApplyAdagrad", attrs: &[], slots: &[[0.1, 0.1, 0.2, 0.3]], scalars: &[Some(0.1), None], expected: &[[1.0369309, -2.0158327, 2.9730809, 0.46216127], [0.2, 0.41249999, 0.215625, 6.5500002]] },
    Update { op: "ApplyAdagrad", attrs: &[("update_slots", false)], slots: &[[0.1, 0.1, 0.2, 0.3]], scalars: &[Some(0.1), None], expected: &[[1.0632455, -2.079057, 2.9720492, 0.40871292], [0.1, 0.1, 0.2, 0.30000001]] },
    Update { op: "ApplyAdagradV2", attrs: &[], slots: &[[0.1, 0.1, 0.2, 0.3]], scalars: &[Some(0.1), Some(0.01), None], expected: &[[1.0363462, -2.0161402, 2.9736483, 0.46239606], [0.2, 0.41249999, 0.215625, 6.5500002]] },
    Update { op: "ApplyAdagradV2", attrs: &[("update_slots", false)], slots: &[[0.1, 0.1, 0.2, 0.3]], scalars: &[Some(0.1), Some(0.01), None], expected: &[[1.0613068, -2.0766337, 2.9726605, 0.4103497], [0.1, 0.1, 0.2, 0.30000001]] },
    Update { op: "ApplyKerasMomentum", attrs: &[], slots: &[[0.5, -0.5, 0.25, 0.0]], scalars: &[Some(0.1), None, Some(0.9)], expected: &[[1.8660001, -2.8574998, 3.415, 0.27000004], [0.426, -0.43249997, 0.18999998, -0.029999986]] },
    Update { op: "ApplyKerasMomentum", attrs: &[("use_nesterov", true)], slots: &[[0.5, -0.5, 0.25, 0.0]], scalars: &[Some(0.1), None, Some(0.9)], expected: &[[1.7994001, -2.7967501, 3.3609998, 0.24300003], [0.426, -0.43249997, 0.18999998, -0.029999986]] },
    Update { op: "ApplyAdamWithAmsgrad", attrs: &[], slots: &[[0.1, 0.2, 0.0, -0.1], [0.01, 0.02, 0.0, 0.1], [0.02, 0.0, 0.001, 0.1]], scalars: &[Some(0.9), Some(0.999), Some(0.01), Some(0.9), Some(0.999), Some(0.001), None], expected: &[[0.99644744, -2.0076175, 2.9987884, 0.49941793], [0.059999991, 0.1895, 0.012500003, -0.051000006], [0.010079999, 0.020272454, 1.5624799e-05, 0.10604602], [0.02, 0.020272454, 0.001, 0.10604602]] },
    Update { op: "ApplyAdagradDA", attrs: &[], slots: &[[0.0, 0.1, -0.1, 0.0], [0.1, 0.1, 0.2, 0.3]], scalars: &[None, Some(0.1), Some(0.01), Some(0.02), Some(3.0)], expected: &[[0.037509914, -0.04936279, -0.0, -0.018321468], [-0.20000002, 0.34999999, 0.024999999, 0.5], [0.2, 0.41249999, 0.215625, 6.5500002]] },
    Update { op: "ApplyAdagradDA", attrs: &[], slots: &[[0.0, 0.1, -0.1, 0.0], [0.1, 0.1, 0.2, 0.3]], scalars: &[None, Some(0.1), Some(0.0), Some(0.02), Some(3.0)], expected: &[[0.044129305, -0.05399055, -0.0053151408, -0.019490922], [-0.20000002, 0.34999999, 0.024999999, 0.5], [0.2, 0.41249999, 0.215625, 6.5500002]] },
    Update { op: "ApplyProximalAdagrad", attrs: &[], slots: &[[0.1, 0.1, 0.2, 0.3]], scalars: &[Some(0.1), Some(0.5), Some(0.25), None], expected: &[[0.67900085, -1.6440274, 2.4678307, 0.40998757], [0.2, 0.41249999, 0.215625, 6.5500002]] },
    Update { op: "ApplyAdadelta", attrs: &[], slots: &[[0.1, 0.0, 0.2, 0.3], [0.0, 0.1, 0.2, 0.3]], scalars: &[Some(0.5), Some(0.95), Some(0.001), None], expected: &[[1.010241, -2.1906123, 2.9360228, 0.34664333], [0.095224999, 0.015468754, 0.18128125, 0.57325006], [5.1929994e-05, 0.29388064, 0.18131863, 0.46872127]] },
    Update { op: "ApplyFtrl", attrs: &[], slots: &[[0.1, 0.1, 0.2, 0.3], [0.0, 0.1, -0.2, 0.3]], scalars: &[None, Some(0.1), Some(0.1), Some(0.25), Some(-0.5)], expected: &[[0.051154502, -0.40055639, 0.0, 0.30374309], [0.2, 0.41249999, 0.215625, 6.5500002], [-0.35434714, 2.8728979, -0.078447379, -8.0255585]] },
    Update { op: "ApplyFtrl", attrs: &[], slots: &[[0.1, 0.1, 0.2, 0.3], [0.0, 0.1, -0.2, 0.3]], scalars: &[None, Some(0.1), Some(0.1), Some(0.25), Some(-0.75)], expected: &[[0.066396371, -0.51746672, 0.0, 0.38215339], [0.2, 0.41249999, 0.215625, 6.5500002], [-0.33176965, 3.0222192, -0.079972595, -15.937632]] },
    Update { op: "ApplyFtrlV2", attrs: &[], slots: &[[0.1, 0.1, 0.2, 0.3], [0.0, 0.1, -0.2, 0.3]], scalars: &[None, Some(0.1), Some(0.1), Some(0.25), Some(0.5), Some(-0.5)], expected: &[[-0.11667211, 0.0, -0.4617542, 0.27166331], [0.2, 0.41249999, 0.215625, 6.5500002], [0.68010962, -0.008202523, 2.4750528, -7.1885018]] },
    Update { op: "ApplyAddSign", attrs: &[], slots: &[[0.5, -0.5, 0.25, 0.0]], scalars: &[Some(0.1), Some(1.0), Some(0.75), Some(0.9), None], expected: &[[0.99000001, -1.96875, 2.9781251, 0.1875], [0.38399997, -0.37749997, 0.21499999, 0.030000001]] },
    Update { op: "ApplyPowerSign", attrs: &[], slots: &[[0.5, -0.5, 0.25, 0.0]], scalars: &[Some(0.1), Some(1.0), Some(0.75), Some(0.9), None], expected: &[[0.99300098, -1.9706933, 2.9735374, 0.14745498], [0.38399997, -0.37749997, 0.21499999, 0.030000001]] },
];

fn value(numbers: [f64; 4], dtype: DType) -> Value {
    Value::from(numbers).cast_exactly(dtype).unwrap()
}

/// Over references or handles, of all elements or by rows.
#[derive(Clone, Copy, Debug)]
struct Form {
    by_handle: bool,
    sparse: bool,
}

impl Form {
    fn op(self, update: &Update) -> String {
        let (resource, sparse) = (
            if self.by_handle { "Resource" } else { "" },
            if self.sparse { "Sparse" } else { "" },
        );
        format!("{resource}{sparse}{}", update.op)
    }
}

fn check(update: &Update, form: Form, dtype: DType, tolerance: (f64, f64), accelerators: &[Arc<dyn Accelerator>]) {
    let graph = Graph::new();
    let _default = graph.as_default();
    let op = form.op(update);
    let shape: &[usize] = if form.sparse { &[2, 2] } else { &[4] };
    let starts = std::iter::once(&START).chain(update.slots);
    let variables: Vec<Variable> = starts
        .map(|&start| {
            let start = value(start, dtype).reshaped(shape).unwrap();
            Variable::new(start).use_resource(form.by_handle).build().unwrap()
        })
        .collect();
    let placeholder = |dtype: DType| OpBuilder::new("Placeholder").attr("dtype", dtype).build().unwrap();
    let (gradient, indices) = (placeholder(dtype), placeholder(DType::Int64));
    let mut node = OpBuilder::new(&op);
    for variable in &variables {
        node = node.input(variable);
    }
    for (index, scalar) in update.scalars.iter().enumerate() {
        let is_step = update.op == "ApplyAdagradDA" && index == update.scalars.len() - 1;
        node = match scalar {
            None if form.sparse => node.input(&gradient).input(&indices),
            None => node.input(&gradient),
            Some(scalar) if is_step => node.input(*scalar as i64),
            Some(scalar) => node.input(Value::scalar(*scalar).cast_exactly(dtype).unwrap().into_operand()),
        };
    }
    for &(name, flag) in update.attrs {
        node = node.attr(name, flag);
    }
    let operation = node.build_operation().unwrap();
    for variable in variables.iter().filter(|_| !form.by_handle) {
        assert!(
            operation
                .colocation_groups()
                .contains(&variable.op().colocation_groups()[0])
        );
    }
    let options = SessionOptions::default().accelerators(accelerators.to_vec());
    let session = Session::with_options(&graph, options).unwrap();
    for variable in &variables {
        session.run(variable.initializer(), ()).unwrap();
    }
    for (rows, [a, b, c, d]) in [[0i64, 1], [1, 0]].into_iter().zip(GRADIENTS) {
        // Rows in another order are the same rows.
        let gradients = if form.sparse && rows == [1, 0] {
            [c, d, a, b]
        } else {
            [a, b, c, d]
        };
        let gradients = value(gradients, dtype).reshaped(shape).unwrap();
        let mut feeds = Feeds::new().with(&gradient, gradients);
        if form.sparse {
            feeds = feeds.with(&indices, Value::from(rows));
        }
        session.run(&operation, feeds).unwrap();
    }
    let after: Vec<Value> = session.run(&variables, ()).unwrap();
    for (index, (after, &expected)) in after.iter().zip(update.expected).enumerate() {
        let label = format!("{op} {:?} of {dtype}: variable {index}", update.attrs);
        let expected = value(expected, dtype).reshaped(shape).unwrap();
        assert_close(after, &expected, tolerance, &label);
    }
}

#[test]
fn updates_are_tensorflows() {
    let mut checked = std::collections::BTreeSet::new();
    for update in UPDATES {
        for (by_handle, sparse) in [(false, false), (true, false), (false, true), (true, true)] {
            let form = Form { by_handle, sparse };
            if crate::install().op(&form.op(update)).is_err() {
                continue;
            }
            checked.insert(form.op(update));
            check(update, form, DType::Float32, (2e-6, 1e-7), &[]);
            check(update, form, DType::Float64, (1e-5, 1e-6), &[]);
            check(update, form, DType::Half, (2e-2, 2e-2), &[]);
            check(update, form, DType::BFloat16, (6e-2, 6e-2), &[]);
        }
    }
    let all: std::collections::BTreeSet<String> = [super::DENSE, super::SPARSE, super::BY_HANDLE]
        .concat()
        .iter()
        .map(|make| make().name.to_owned())
        .collect();
    assert_eq!(checked, all);
}

#[test]
pub(crate) fn updates_are_tensorflows_on_a_gpu() {
    let device = match crate::testing::gpu() {
        Ok(device) => device,
        Err(reason) => return println!("skipped: {reason}"),
    };
    let accelerators = [device.accelerator()];
    let mut forms = 0;
    for update in UPDATES {
        for (by_handle, sparse) in [(false, false), (true, false), (false, true), (true, true)] {
            let form = Form { by_handle, sparse };
            if crate::install().op(&form.op(update)).is_err() {
                continue;
            }
            forms += usize::from(!sparse);
            check(update, form, DType::Float32, (3e-6, 1e-7), &accelerators);
            if by_handle {
                check(update, form, DType::Float64, (1e-5, 1e-6), &accelerators);
                check(update, form, DType::Half, (2e-2, 2e-2), &accelerators);
                check(update, form, DType::BFloat16, (6e-2, 6e-2), &accelerators);
            }
        }
    }
    // Every formula was compiled for each dtype.
    let texts = device.texts();
    let compiled = texts
        .iter()
        .filter(|text| text.contains("#line 1 \"apply.cu\"") && !text.contains("#define ROWS"))
        .count();
    assert_eq!(
        compiled,
        4 * UPDATES
            .iter()
            .map(|update| format!("{} {:?}", update.op, update.attrs))
            .collect::<std::collections::BTreeSet<_>>()
            .len()
    );
    assert!(forms > UPDATES.len());
}

#[test]
pub(crate) fn rows_that_come_up_again_are_updated_in_turn_on_a_gpu() {
    let device = match crate::testing::gpu() {
        Ok(device) => device,
        Err(reason) => return println!("skipped: {reason}"),
    };
    crate::install();
    const ROWS: usize = 7;
    // Sorted by one block, and by several.
    let numbers = |count: i64| (0..count).map(|at| (at * at + at / 7) % (ROWS as i64 - 1));
    for (count, width) in [(600, 3), (40, 300), (5000, 2)] {
        let indices: Vec<i64> = numbers(count).collect();
        let after = |accelerators: Vec<Arc<dyn Accelerator>>| -> Vec<Value> {
            let graph = Graph::new();
            let _default = graph.as_default();
            let variables: Vec<Variable> = [1.0f32, 0.5]
                .into_iter()
                .map(|start| {
                    let start = Value::from_vec([ROWS, width], vec![start; ROWS * width]).unwrap();
                    Variable::new(start).use_resource(true).build().unwrap()
                })
                .collect();
            let count = indices.len() * width;
            let gradient: Vec<f32> = (0..count).map(|at| (at % 13) as f32 / 8.0 - 0.75).collect();
            let update = OpBuilder::new("ResourceSparseApplyAdagrad")
                .input(&variables[0])
                .input(&variables[1])
                .input(0.1f32)
                .input(
                    Value::from_vec([indices.len(), width], gradient)
                        .unwrap()
                        .into_operand(),
                )
                .input(Value::from(indices.clone()).into_operand());
            let update = update.build_operation().unwrap();
            let session = Session::with_options(&graph, SessionOptions::default().accelerators(accelerators)).unwrap();
            for variable in &variables {
                session.run(variable.initializer(), ()).unwrap();
            }
            session.run(&update, ()).unwrap();
            session.run(&variables, ()).unwrap()
        };
        for (got, expected) in after(vec![device.accelerator()]).iter().zip(&after(Vec::new())) {
            assert_close(got, expected, (1e-5, 1e-6), &format!("{count} rows of {width}"));
        }
    }
}

#[test]
fn rows_are_updated_in_the_order_of_their_indices() {
    let graph = Graph::new();
    let _default = graph.as_default();
    crate::install();
    let variables: Vec<Variable> = [[[1.0f32], [2.0], [3.0]], [[1.0], [1.0], [1.0]]]
        .into_iter()
        .map(|rows| Variable::new(rows.into_operand()).use_resource(true).build().unwrap())
        .collect();
    let indices = OpBuilder::new("Placeholder")
        .attr("dtype", DType::Int32)
        .build()
        .unwrap();
    let update = OpBuilder::new("ResourceSparseApplyMomentum")
        .input(&variables[0])
        .input(&variables[1])
        .input(1.0f32)
        .input([[1.0f32], [10.0]])
        .input(&indices)
        .input(0.5f32);
    let update = update.build_operation().unwrap();
    let session = Session::new(&graph).unwrap();
    let run = |rows: Value| session.run(&update, Feeds::new().with(&indices, rows));
    assert_eq!(run(Value::from([2i32, 2])).unwrap_err().class(), "NotFound");
    for variable in &variables {
        session.run(variable.initializer(), ()).unwrap();
    }
    assert_eq!(run(Value::from([0i32, 3])).unwrap_err().class(), "InvalidArgument");
    assert_eq!(run(Value::from([-1i32, 0])).unwrap_err().class(), "InvalidArgument");
    assert_eq!(run(Value::from([0i32, 1, 2])).unwrap_err().class(), "InvalidArgument");
    assert_eq!(run(Value::scalar(1i32)).unwrap_err().class(), "InvalidArgument");
    run(Value::from([2i32, 2])).unwrap();
    let after: (Vec<f32>, Vec<f32>) = session.run((&flat(&variables[0]), &flat(&variables[1])), ()).unwrap();
    // A row that comes up twice moves twice: 0.5 * 1 + 1 = 1.5, then 0.5 * 1.5 + 10 = 10.75.
    assert_eq!(after, (vec![1.0, 2.0, 3.0 - 1.5 - 10.75], vec![1.0, 1.0, 10.75]));
    let scalar = Variable::new(1.0f32).use_resource(true).build().unwrap();
    let no_rows = OpBuilder::new("ResourceSparseApplyAdagrad")
        .input(&scalar)
        .input(&scalar)
        .input(1.0f32)
        .input([1.0f32])
        .input([0i32]);
    assert_eq!(no_rows.build_operation().unwrap_err().class(), "InvalidArgument");
}

fn flat(variable: &Variable) -> graph_core::Tensor {
    OpBuilder::new("Reshape")
        .input(variable)
        .input([-1i32])
        .build()
        .unwrap()
}

#[test]
fn operands_that_do_not_fit_are_errors() {
    let graph = Graph::new();
    let _default = graph.as_default();
    crate::install();
    let variable = Variable::new([1.0f32, 2.0]).name("v").build().unwrap();
    let node = |gradient: Value, rate: Value| {
        OpBuilder::new("ApplyGradientDescent")
            .input(&variable)
            .input(rate)
            .input(gradient)
            .build()
    };
    let rate = || Value::scalar(0.1f32);
    assert_eq!(
        node(Value::from([1.0f32]), rate()).unwrap_err().class(),
        "InvalidArgument"
    );
    assert!(node(Value::from([1.0f32, 2.0]), Value::from([0.1f32])).is_err());
    assert!(node(Value::from([1.0f64, 2.0]), rate()).is_err());
    let unknown = OpBuilder::new("Placeholder")
        .attr("dtype", DType::Float32)
        .build()
        .unwrap();
    let update = OpBuilder::new("ApplyGradientDescent")
        .input(&variable)
        .input(rate())
        .input(&unknown);
    let update = update.build_operation().unwrap();
    let session = Session::new(&graph).unwrap();
    let run = |gradient: Value| session.run(&update, Feeds::new().with(&unknown, gradient));
    assert_eq!(
        run(Value::from([1.0f32, 2.0])).unwrap_err().class(),
        "FailedPrecondition"
    );
    session.run(variable.initializer(), ()).unwrap();
    assert_eq!(run(Value::from([1.0f32])).unwrap_err().class(), "InvalidArgument");
    run(Value::from([10.0f32, 20.0])).unwrap();
    let after: Value = session.run(&variable, ()).unwrap();
    assert_close(&after, &Value::from([0.0f32, 0.0]), (1e-6, 1e-6), "after");
}

#[test]
fn long_variables_are_updated_everywhere() {
    let graph = Graph::new();
    let _default = graph.as_default();
    crate::install();
    let len = 3 * crate::cpu::parallel::GRAIN + 5;
    let numbers: Vec<f32> = (0..len).map(|index| index as f32).collect();
    let start = Value::from_vec([len], numbers).unwrap();
    let variable = Variable::new(start.clone()).build().unwrap();
    let update = OpBuilder::new("ApplyGradientDescent")
        .input(&variable)
        .input(0.5f32)
        .input(start);
    let update = update.build_operation().unwrap();
    let session = Session::new(&graph).unwrap();
    session.run(variable.initializer(), ()).unwrap();
    session.run(&update, ()).unwrap();
    let after: Value = session.run(&variable, ()).unwrap();
    let halved = |(index, &number): (usize, &f32)| number == index as f32 * 0.5;
    assert!(after.as_slice::<f32>().unwrap().iter().enumerate().all(halved));
}
