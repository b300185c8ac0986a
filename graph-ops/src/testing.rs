//! Numeric test cases of ops: one table, run by every device.

#[cfg(feature = "full")]
mod coverage;
mod cuda;
mod devices;
mod gradient;
mod hostile;

use graph_core::graph::{Node, OutputInfo};
use graph_core::op::kernel::DeviceKind;
use graph_core::op::{ArgType, AttrValue, Attributes, ControlFlow, GradientRule, OpDefinition};
use graph_core::{DType, PartialShape, Result, Value};
use graph_cuda::{Cuda, DeviceOptions};
use std::collections::{BTreeSet, HashSet};
use std::sync::{Mutex, PoisonError};

use crate::gpu::DeviceChoice;

pub(crate) use gradient::GradientCase;
use gradient::{REFUSE_GRADIENTS, all_gradient_cases, has_slopes};

/// The GPU that CUDA kernels are tested on: the card that `GRAPH_DEVICE` names, or an emulated one.
///
/// # Errors
/// A card that cannot be used; `Unavailable` where there is no C++ compiler for an emulated one.
pub(crate) fn gpu() -> Result<Cuda> {
    gpu_with(&DeviceOptions::default())
}

/// The same with options.
fn gpu_with(options: &DeviceOptions) -> Result<Cuda> {
    let device = match std::env::var("GRAPH_DEVICE").map(|told| told.parse()) {
        Ok(Ok(DeviceChoice::Gpu(index))) => graph_cuda::open(index, options),
        _ => graph_cuda::emulator::device_with(0, 4 << 30, options),
    }?;
    if let Some(handed_out) = HANDED_OUT.lock().unwrap_or_else(PoisonError::into_inner).as_mut() {
        handed_out.push(device.clone());
    }
    Ok(device)
}

/// The devices that [`gpu`] has handed out since someone began to note them.
static HANDED_OUT: Mutex<Option<Vec<Cuda>>> = Mutex::new(None);

/// The texts of all kernels that devices are asked for while `work` runs.
fn texts_of(work: impl FnOnce()) -> BTreeSet<String> {
    let noted = || HANDED_OUT.lock().unwrap_or_else(PoisonError::into_inner);
    *noted() = Some(Vec::new());
    work();
    let devices = noted().take().unwrap_or_default();
    devices.iter().flat_map(Cuda::texts).collect()
}

/// An op with attributes and inputs, and the outputs it must give.
pub(crate) struct Case {
    pub(crate) op: &'static str,
    attrs: Vec<(&'static str, AttrValue)>,
    pub(crate) inputs: Vec<Value>,
    expected: Vec<Value>,
    tolerance: (f64, f64),
}

impl Case {
    pub(crate) fn new(op: &'static str) -> Self {
        Self {
            op,
            attrs: Vec::new(),
            inputs: Vec::new(),
            expected: Vec::new(),
            tolerance: (1e-6, 1e-7),
        }
    }

    pub(crate) fn attr(mut self, name: &'static str, value: impl Into<AttrValue>) -> Self {
        self.attrs.push((name, value.into()));
        self
    }

    pub(crate) fn input(mut self, value: impl Into<Value>) -> Self {
        self.inputs.push(value.into());
        self
    }

    /// Adds the value of the next output.
    pub(crate) fn expect(mut self, value: impl Into<Value>) -> Self {
        self.expected.push(value.into());
        self
    }

    /// Sets the relative and absolute tolerance of floating-point outputs; 1e-6 and 1e-7 without.
    pub(crate) fn tolerance(mut self, relative: f64, absolute: f64) -> Self {
        self.tolerance = (relative, absolute);
        self
    }

    /// Runs the op on the CPU and compares.
    pub(crate) fn check(&self) {
        self.compare(self.run());
    }

    /// Compares outputs with what they must be.
    fn compare(&self, outputs: Result<Vec<Value>>) {
        let label = format!("{} {:?}", self.op, self.attrs);
        let outputs = outputs.unwrap_or_else(|error| panic!("{label}: {error}"));
        assert_eq!(outputs.len(), self.expected.len(), "{label}: number of outputs");
        for (index, (got, expected)) in outputs.iter().zip(&self.expected).enumerate() {
            assert_close(got, expected, self.tolerance, &format!("{label}: output {index}"));
        }
    }

    /// Runs the op on the CPU.
    pub(crate) fn run(&self) -> Result<Vec<Value>> {
        graph_core::session::evaluate::evaluate_node(&self.node()?, &self.inputs)
    }

    /// The op as a node by itself.
    pub(crate) fn node(&self) -> Result<Node> {
        let definition = crate::install().op(self.op)?;
        let mut attrs = Attributes::new();
        for (name, value) in &self.attrs {
            attrs.set(*name, value.clone());
        }
        let mut next = 0;
        for arg in &definition.inputs {
            let count = match arg.number {
                Some(number) if attrs.get(number).is_none() => {
                    // The list takes all inputs that no later argument needs.
                    let later = definition
                        .inputs
                        .iter()
                        .rev()
                        .take_while(|other| other.name != arg.name)
                        .count();
                    let count = self.inputs.len() - next - later;
                    attrs.set(number, count as i64);
                    count
                }
                Some(number) => attrs.read::<i64>(number)? as usize,
                None => match arg.ty {
                    ArgType::List(name) => {
                        if attrs.get(name).is_none() {
                            attrs.set(name, self.inputs[next..].iter().map(Value::dtype).collect::<Vec<_>>());
                        }
                        attrs.read::<Vec<DType>>(name)?.len()
                    }
                    _ => 1,
                },
            };
            if let (ArgType::Attr(name), Some(first)) = (arg.ty, self.inputs.get(next))
                && attrs.get(name).is_none()
            {
                attrs.set(name, first.dtype());
            }
            next += count;
        }
        for attr in &definition.attrs {
            if let (None, Some(default)) = (attrs.get(attr.name), &attr.default) {
                attrs.set(attr.name, default.clone());
            }
        }
        let mut outputs = Vec::new();
        for arg in &definition.outputs {
            let count = arg.number.map_or(Ok(1), |number| attrs.read::<i64>(number))?;
            let dtypes = match arg.ty {
                ArgType::Fixed(dtype) => vec![dtype; count as usize],
                ArgType::Attr(name) => vec![attrs.read(name)?; count as usize],
                ArgType::List(name) => attrs.read(name)?,
            };
            let info = |dtype| OutputInfo {
                dtype,
                is_ref: arg.is_ref,
                shape: PartialShape::unknown(),
                handle: None,
            };
            outputs.extend(dtypes.into_iter().map(info));
        }
        Ok(Node {
            name: "case".into(),
            definition,
            attrs,
            inputs: Default::default(),
            control_inputs: Default::default(),
            outputs: outputs.into_iter().collect(),
            device: "".into(),
            location: std::panic::Location::caller(),
        })
    }
}

/// The elements as `f64`, for comparison, real and imaginary parts in turn; `None` for dtypes that are compared exactly.
pub(crate) fn floats(value: &Value) -> Option<Vec<f64>> {
    Some(match value.dtype() {
        DType::Float32 => value.as_slice::<f32>().ok()?.iter().map(|&x| x.into()).collect(),
        DType::Float64 => value.as_slice::<f64>().ok()?.to_vec(),
        DType::Half => value.as_slice::<half::f16>().ok()?.iter().map(|&x| x.into()).collect(),
        DType::BFloat16 => value.as_slice::<half::bf16>().ok()?.iter().map(|&x| x.into()).collect(),
        DType::Complex64 => value
            .as_slice::<graph_core::Complex<f32>>()
            .ok()?
            .iter()
            .flat_map(|x| [x.re.into(), x.im.into()])
            .collect(),
        DType::Complex128 => value
            .as_slice::<graph_core::Complex<f64>>()
            .ok()?
            .iter()
            .flat_map(|x| [x.re, x.im])
            .collect(),
        _ => return None,
    })
}

/// Asserts equal dtypes and shapes, and elements within the relative and absolute tolerance; NaN equals NaN.
pub(crate) fn assert_close(got: &Value, expected: &Value, (relative, absolute): (f64, f64), label: &str) {
    assert_eq!(
        (got.dtype(), got.shape()),
        (expected.dtype(), expected.shape()),
        "{label}: dtype and shape"
    );
    match (floats(got), floats(expected)) {
        (Some(got), Some(expected)) => {
            for (index, (&got, &expected)) in got.iter().zip(&expected).enumerate() {
                let same = got == expected || (got.is_nan() && expected.is_nan());
                let close = (got - expected).abs() <= absolute + relative * expected.abs();
                assert!(same || close, "{label}: element {index} is {got}, expected {expected}");
            }
        }
        _ => assert_eq!(got, expected, "{label}"),
    }
}

/// Every family's cases.
pub(crate) fn all_cases() -> Vec<Case> {
    [
        crate::array::CASES,
        crate::control::CASES,
        #[cfg(feature = "full")]
        crate::image::CASES,
        crate::io::CASES,
        #[cfg(feature = "full")]
        crate::linalg::CASES,
        crate::math::CASES,
        #[cfg(feature = "full")]
        crate::math::MORE_CASES,
        crate::nn::CASES,
        #[cfg(feature = "full")]
        crate::nn::MORE_CASES,
        crate::random::CASES,
        #[cfg(feature = "full")]
        crate::random::MORE_CASES,
        crate::summary::CASES,
    ]
    .concat()
    .into_iter()
    .flat_map(|cases| cases())
    .collect()
}

/// Whether the op can be a [`Case`]: it needs no feed and no variable, keeps no random stream and is not the executor's own.
fn runs_alone(definition: &OpDefinition) -> bool {
    !matches!(definition.name, "Placeholder" | "PlaceholderV2")
        && !definition.stateful
        && !definition.inputs.iter().any(|arg| arg.is_ref)
        && definition.control_flow == ControlFlow::None
}

#[test]
fn every_op_says_all_that_is_true_of_it() {
    let cases: HashSet<&str> = all_cases().iter().map(|case| case.op).collect();
    let gradient_cases: HashSet<&str> = all_gradient_cases().iter().map(|case| case.op).collect();
    let mut lacks: Vec<String> = Vec::new();
    for op in crate::install().ops() {
        let mut lack = |missing: bool, what: &str| missing.then(|| lacks.push(format!("{}: {what}", op.name)));
        let loops = matches!(
            op.control_flow,
            ControlFlow::Enter | ControlFlow::Exit | ControlFlow::NextIteration | ControlFlow::LoopCond
        );
        lack(op.summary.len() < 10, "no summary");
        lack(
            !loops && !op.kernels.iter().any(|kernel| kernel.device == DeviceKind::Cpu),
            "no CPU kernel",
        );
        lack(
            !loops && matches!(op.gradient, GradientRule::Unsaid),
            "no word on its gradient",
        );
        lack(runs_alone(op) && !cases.contains(op.name), "no numeric case");
        lack(
            matches!(op.gradient, GradientRule::Function(_))
                && has_slopes(op)
                && !gradient_cases.contains(op.name)
                && !REFUSE_GRADIENTS.contains(&op.name),
            "no case of its gradient",
        );
    }
    assert!(
        lacks.is_empty(),
        "{} things are missing:\n{}",
        lacks.len(),
        lacks.join("\n")
    );
}

/// Checks every case, and then fails if one did not hold: no family hides the failures of another.
fn all_hold<T: std::panic::RefUnwindSafe>(cases: &[T], check: fn(&T)) {
    let failed = cases
        .iter()
        .filter(|case| std::panic::catch_unwind(|| check(case)).is_err())
        .count();
    assert_eq!(
        failed,
        0,
        "of {} cases {failed} do not hold; each is told above",
        cases.len()
    );
}

#[test]
fn every_case_holds() {
    all_hold(&all_cases(), Case::check);
}

/// The operations of a graph in order of creation, as `Type name <- inputs`; control inputs begin with `^`.
pub(crate) fn listing(graph: &graph_core::graph::Graph) -> Vec<String> {
    let line = |operation: &graph_core::graph::Operation| {
        let data = operation.inputs().into_iter().map(|input| match input.id().slot {
            0 => input.op().name(),
            _ => input.name(),
        });
        let mut controls: Vec<String> = operation
            .control_inputs()
            .iter()
            .map(|control| control.name())
            .collect();
        controls.sort();
        let inputs: Vec<String> = data
            .chain(controls.into_iter().map(|name| format!("^{name}")))
            .collect();
        format!("{} {} <- {}", operation.op_type(), operation.name(), inputs.join(", "))
    };
    graph.operations().iter().map(line).collect()
}
