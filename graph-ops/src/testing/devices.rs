//! CUDA kernels beside the CPU's, over shapes, strides and paddings that the table of cases has not.

mod arrays;
mod branches;
mod chains;
mod convolutions;
#[cfg(feature = "full")]
mod data_shapes;
#[cfg(feature = "full")]
mod families;
mod groups;
mod lanes;
mod layouts;
mod libraries;
mod pools;
mod reductions;
mod rows;
#[cfg(feature = "full")]
mod selection;
mod steps;
mod streams;

use graph_core::graph::{Node, OutputInfo};
use graph_core::op::{AttrValue, Attributes, OpDefinition};
use graph_core::session::evaluate::{evaluate_node, evaluate_node_on};
use graph_core::{DType, PartialShape, Value};
use graph_cuda::Cuda;
use half::{bf16, f16};

use super::{Case, assert_close, gpu};

/// Nodes of which the table has no cases, with their inputs: the engine's own ops, and convolutions, in every dtype.
pub(super) fn nodes() -> Vec<(Node, Vec<Value>)> {
    let mut numbers = Numbers(30);
    let of_families = [chains::nodes, convolutions::nodes, pools::nodes].map(|nodes| nodes(&mut numbers));
    of_families.concat()
}

/// A GPU; `None`, which it says, where there is not even an emulated one.
fn device() -> Option<Cuda> {
    gpu().inspect_err(|error| println!("skipped: {error}")).ok()
}

/// Runs the tests of whole training steps, and of what only they have.
pub(super) fn run_steps() {
    streams::random_masks_are_those_of_the_cpu();
    steps::training_on_a_device_is_training_on_the_host();
    steps::mixed_precision_on_a_device_is_that_of_the_host_and_near_float();
    steps::a_step_that_overflows_is_left_out_on_a_device_as_on_the_host();
}

/// Runs a node on both devices and compares all outputs; NaN equals NaN.
fn check_node(device: &Cuda, node: &Node, inputs: &[Value], tolerance: (f64, f64), label: &str) {
    let expected = evaluate_node(node, inputs).unwrap_or_else(|error| panic!("{label}: {error}"));
    // Threads take their turns in another order in every second grid.
    for run in 0..2 {
        let got = evaluate_node_on(node, inputs, &device.accelerator());
        let got = got.unwrap_or_else(|error| panic!("{label}: on the device: {error}"));
        assert_eq!(got.len(), expected.len(), "{label}");
        for (slot, (got, expected)) in got.iter().zip(&expected).enumerate() {
            assert_close(got, expected, tolerance, &format!("{label}: run {run}, output {slot}"));
        }
    }
}

/// The same of an op and its operands.
fn check_case(device: &Cuda, case: &Case, tolerance: (f64, f64)) {
    let label = format!("{} {:?} {:?}", case.op, case.attrs, shapes(&case.inputs));
    let node = case.node().unwrap_or_else(|error| panic!("{label}: {error}"));
    check_node(device, &node, &case.inputs, tolerance, &label);
}

fn shapes(values: &[Value]) -> Vec<&graph_core::Shape> {
    values.iter().map(Value::shape).collect()
}

/// A node by itself, of an op that is not registered.
fn node(definition: &'static OpDefinition, attrs: Vec<(&'static str, AttrValue)>, outputs: &[DType]) -> Node {
    let mut all = Attributes::new();
    for (name, value) in attrs {
        all.set(name, value);
    }
    for attr in &definition.attrs {
        if let (None, Some(default)) = (all.get(attr.name), &attr.default) {
            all.set(attr.name, default.clone());
        }
    }
    let info = |&dtype| OutputInfo {
        dtype,
        is_ref: false,
        shape: PartialShape::unknown(),
        handle: None,
    };
    Node {
        name: "node".into(),
        definition,
        attrs: all,
        inputs: Default::default(),
        control_inputs: Default::default(),
        outputs: outputs.iter().map(info).collect(),
        device: "".into(),
        location: std::panic::Location::caller(),
    }
}

/// Numbers without pattern, the same in every run.
struct Numbers(u64);

impl Numbers {
    fn next(&mut self) -> u64 {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        self.0 >> 33
    }

    /// One of `low..=high`.
    fn among(&mut self, low: usize, high: usize) -> usize {
        low + self.next() as usize % (high - low + 1)
    }

    /// In -1..1.
    fn unit(&mut self) -> f64 {
        self.next() as f64 / f64::from(1u32 << 30) - 1.0
    }

    /// A tensor of numbers in -1..1.
    fn tensor(&mut self, shape: &[usize]) -> Value {
        let len = shape.iter().product();
        Value::from_vec(shape.to_vec(), (0..len).map(|_| self.unit()).collect::<Vec<f64>>()).expect("a value")
    }

    /// Places of maxima in windows of 2x2, as `_FusedConv2D` tells them.
    fn places(&mut self, shape: &[usize]) -> Value {
        let len = shape.iter().product();
        let places = (0..len).map(|_| self.among(0, 7) as f64).collect::<Vec<f64>>();
        Value::from_vec(shape.to_vec(), places).expect("a value")
    }

    /// A tensor of few different numbers, among which ties are.
    fn coarse(&mut self, shape: &[usize]) -> Value {
        let len = shape.iter().product();
        let numbers = (0..len).map(|_| self.among(0, 4) as f64 - 1.0).collect::<Vec<f64>>();
        Value::from_vec(shape.to_vec(), numbers).expect("a value")
    }
}

fn cast(value: &Value, dtype: DType) -> Value {
    let numbers = value.as_slice::<f64>().expect("numbers");
    match dtype {
        DType::Float32 => Value::from_vec(
            value.shape().clone(),
            numbers.iter().map(|&x| x as f32).collect::<Vec<_>>(),
        ),
        DType::Half => Value::from_vec(
            value.shape().clone(),
            numbers.iter().map(|&x| f16::from_f64(x)).collect::<Vec<_>>(),
        ),
        DType::BFloat16 => Value::from_vec(
            value.shape().clone(),
            numbers.iter().map(|&x| bf16::from_f64(x)).collect::<Vec<_>>(),
        ),
        _ => Ok(value.clone()),
    }
    .expect("a value")
}
