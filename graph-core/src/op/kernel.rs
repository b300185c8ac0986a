//! What a kernel is: made once when a plan is made, run in every step.
//!
//! A [`KernelDefinition`] says on which device and for which dtypes a kernel serves, and what the planner may do with its
//! buffers. Its `make` function reads attributes, shapes and plan-time values from a [`KernelRequest`] and returns the
//! kernel as a closure over what it found. Running it gets a [`KernelContext`] with inputs and outputs that are already
//! allocated, except for kernels whose output shapes only the data can tell.

use std::any::Any;
use std::sync::Arc;

use crate::accelerator::Accelerator;
use crate::dtype::DType;
use crate::error::{Error, Result};
use crate::op::attr::{Attributes, FromAttr};
use crate::op::context::KernelContext;
use crate::shape::Shape;
use crate::value::Value;

/// The kind of device that a kernel runs on.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, PartialOrd, Ord)]
pub enum DeviceKind {
    /// The host's processor.
    Cpu,
    /// An NVIDIA GPU.
    Cuda,
}

/// Makes a kernel for one node of a plan.
pub type MakeKernel = fn(&KernelRequest<'_>) -> Result<Planned>;

/// What a kernel does in a step, if that is the same for every node.
pub type RunKernel = fn(&mut KernelContext<'_>) -> Result<()>;

/// Where a node's kernel comes from.
#[derive(Clone, Copy)]
enum Source {
    Made(MakeKernel),
    Same(RunKernel),
}

/// What a stateful kernel keeps in the session, under its node: a random stream, a counter.
pub trait KernelState: Any + Send {
    /// The state as a value, from which [`KernelState::restore`] makes the same state again, in another process too.
    fn save(&self) -> Value;

    /// Becomes the state that was saved.
    ///
    /// # Errors
    /// `InvalidArgument` for a value that is none of the state's; it does not change then.
    fn restore(&mut self, saved: &Value) -> Result<()>;
}

/// A counter: an `int64` scalar.
impl KernelState for i64 {
    fn save(&self) -> Value {
        Value::scalar(*self)
    }

    fn restore(&mut self, saved: &Value) -> Result<()> {
        *self = saved.to_scalar()?;
        Ok(())
    }
}

/// Makes the state that a stateful kernel keeps in the session, under its node.
pub type MakeState = fn(&Attributes) -> Result<Box<dyn KernelState>>;

/// A kernel of an op: where and for what it serves, and how it is made.
#[derive(Clone)]
pub struct KernelDefinition {
    /// The device.
    pub device: DeviceKind,
    /// The dtypes it serves for each type attribute; an attribute that is not named may be any.
    pub types: Vec<(&'static str, &'static [DType])>,
    /// Pairs of an input and an output that may share memory: the kernel reads each element of the input before it writes
    /// the same element of the output.
    pub in_place: Vec<(usize, usize)>,
    /// Whether the kernel, which changes a variable, reads each element of its other inputs before it changes the element at
    /// the same place, so that they may lie in the variable's own memory.
    pub reads_before_update: bool,
    /// An input and an output that are the same memory: the kernel does nothing, as for `Identity` and `Reshape`.
    pub alias: Option<(usize, usize)>,
    /// Inputs that live on the host even on another device.
    pub host_inputs: Vec<usize>,
    /// Outputs that live on the host even on another device.
    pub host_outputs: Vec<usize>,
    /// Whether the kernel asks for nothing but the shapes of its inputs, which may be in any memory.
    pub reads_shapes_only: bool,
    /// Whether only the data can tell the output shapes: the kernel allocates its outputs itself.
    pub data_dependent: bool,
    /// Makes the session's state for the node, if it keeps one.
    pub state: Option<MakeState>,
    source: Source,
}

impl KernelDefinition {
    /// A kernel for the CPU, made for each node.
    pub fn cpu(make: MakeKernel) -> Self {
        Self::on_cpu(Source::Made(make))
    }

    /// A kernel for the CPU that is the same for every node.
    pub fn direct(run: RunKernel) -> Self {
        Self::on_cpu(Source::Same(run))
    }

    /// A kernel for CUDA, made for each node when its shapes are known. Its `run` gives work to the device and neither
    /// allocates nor waits: the work may be recorded once and replayed after. What changes from step to step on the host's side
    /// comes by [`Planned::with_parameters`]. One that is data-dependent may do all of that, and is never recorded.
    pub fn cuda(make: MakeKernel) -> Self {
        Self {
            device: DeviceKind::Cuda,
            ..Self::on_cpu(Source::Made(make))
        }
    }

    fn on_cpu(source: Source) -> Self {
        Self {
            device: DeviceKind::Cpu,
            types: Vec::new(),
            in_place: Vec::new(),
            reads_before_update: false,
            alias: None,
            host_inputs: Vec::new(),
            host_outputs: Vec::new(),
            reads_shapes_only: false,
            data_dependent: false,
            state: None,
            source,
        }
    }

    /// The kernel for one node of a plan.
    ///
    /// # Errors
    /// What the op's definition says of bad attributes, shapes and plan-time values.
    pub fn make(&self, request: &KernelRequest<'_>) -> Result<Planned> {
        match self.source {
            Source::Made(make) => make(request),
            Source::Same(run) => Ok(Planned::new(run)),
        }
    }

    /// A kernel that only passes input 0 on as output 0, as it is, on any device: `Identity`, `Reshape`.
    pub fn alias() -> Self {
        let mut kernel = Self::direct(|_| Ok(()));
        kernel.alias = Some((0, 0));
        kernel
    }

    /// Restricts a type attribute to these dtypes.
    pub fn types(mut self, attr: &'static str, dtypes: &'static [DType]) -> Self {
        self.types.push((attr, dtypes));
        self
    }

    /// Lets `output` share the memory of `input`.
    pub fn in_place(mut self, input: usize, output: usize) -> Self {
        self.in_place.push((input, output));
        self
    }

    /// Says that input `input` lives on the host even on another device. Plan-time inputs do so anyway.
    pub fn host_input(mut self, input: usize) -> Self {
        self.host_inputs.push(input);
        self
    }

    /// Says that output `output` lives on the host even on another device.
    pub fn host_output(mut self, output: usize) -> Self {
        self.host_outputs.push(output);
        self
    }

    /// Lets inputs lie in the memory of the variable that the kernel changes.
    pub fn reads_before_update(mut self) -> Self {
        self.reads_before_update = true;
        self
    }

    /// Says that the kernel asks for nothing but the shapes of its inputs.
    pub fn reads_shapes_only(mut self) -> Self {
        self.reads_shapes_only = true;
        self
    }

    /// Says that the kernel allocates its outputs itself.
    pub fn data_dependent(mut self) -> Self {
        self.data_dependent = true;
        self
    }

    /// Keeps a state in the session.
    pub fn state(mut self, make: MakeState) -> Self {
        self.state = Some(make);
        self
    }

    /// Whether the kernel serves a node with these attributes.
    pub fn serves(&self, attrs: &Attributes) -> bool {
        self.types.iter().all(|(name, dtypes)| match attrs.get(name) {
            Some(crate::op::AttrValue::Type(dtype)) => dtypes.contains(dtype),
            Some(crate::op::AttrValue::TypeList(list)) => list.iter().all(|dtype| dtypes.contains(dtype)),
            _ => true,
        })
    }
}

/// What a kernel does in a step.
pub trait Kernel: Send + Sync {
    /// Reads the inputs and writes the outputs.
    ///
    /// # Errors
    /// What the op's definition says of bad data; the executor adds the operation's name.
    fn run(&self, context: &mut KernelContext<'_>) -> Result<()>;
}

impl<F: Fn(&mut KernelContext<'_>) -> Result<()> + Send + Sync> Kernel for F {
    fn run(&self, context: &mut KernelContext<'_>) -> Result<()> {
        self(context)
    }
}

/// A kernel that is ready to run, and what it needs.
pub struct Planned {
    /// The kernel.
    pub kernel: Box<dyn Kernel>,
    /// Bytes of scratch memory it wants in each run.
    pub scratch: usize,
    /// On an accelerator: what the host tells each run of it.
    pub parameters: Option<Parameters>,
}

/// Writes what the host tells a run of a kernel on an accelerator: random keys, counters.
pub type WriteParameters = Box<dyn Fn(&mut KernelContext<'_>, &mut [u8]) -> Result<()> + Send + Sync>;

/// What the host tells each run of a kernel on an accelerator.
pub struct Parameters {
    /// How many bytes.
    pub bytes: usize,
    /// Writes them, on the host, before each run. It may use the node's state, but no data.
    pub write: WriteParameters,
}

impl Planned {
    /// A kernel that needs no scratch memory.
    pub fn new(kernel: impl Fn(&mut KernelContext<'_>) -> Result<()> + Send + Sync + 'static) -> Self {
        Self {
            kernel: Box::new(kernel),
            scratch: 0,
            parameters: None,
        }
    }

    /// Has the host write `bytes` bytes before each run, which the kernel finds in the device's memory at
    /// [`KernelContext::parameters_address`], aligned to 16.
    pub fn with_parameters(
        mut self,
        bytes: usize,
        write: impl Fn(&mut KernelContext<'_>, &mut [u8]) -> Result<()> + Send + Sync + 'static,
    ) -> Self {
        self.parameters = Some(Parameters {
            bytes,
            write: Box::new(write),
        });
        self
    }

    /// Asks for scratch memory.
    pub fn with_scratch(mut self, bytes: usize) -> Self {
        self.scratch = bytes;
        self
    }
}

/// The node that a kernel is made for: everything that is known when a plan is made.
pub struct KernelRequest<'a> {
    /// The node's attributes, defaults included.
    pub attrs: &'a Attributes,
    /// The dtypes of the inputs.
    pub input_dtypes: &'a [DType],
    /// The shapes of the inputs.
    pub input_shapes: &'a [Shape],
    /// The values of the inputs, where known; always those of the op's plan-time inputs.
    pub input_values: &'a [Option<Value>],
    /// The dtypes of the outputs.
    pub output_dtypes: &'a [DType],
    /// The shapes of the outputs; `None` for those that the kernel allocates itself.
    pub output_shapes: &'a [Option<Shape>],
    /// For each output, whether anything reads it; empty where that is not known.
    pub outputs_read: &'a [bool],
    /// The device, unless it is the host's processor.
    pub accelerator: Option<&'a Arc<dyn Accelerator>>,
}

impl KernelRequest<'_> {
    /// The attribute `name`.
    ///
    /// # Errors
    /// `InvalidArgument` if it is missing or of another kind.
    pub fn attr<T: FromAttr>(&self, name: &str) -> Result<T> {
        self.attrs.read(name)
    }

    /// The shape of input `index`.
    pub fn input_shape(&self, index: usize) -> &Shape {
        &self.input_shapes[index]
    }

    /// The dtype of input `index`.
    pub fn input_dtype(&self, index: usize) -> DType {
        self.input_dtypes[index]
    }

    /// The dtype of output `index`.
    pub fn output_dtype(&self, index: usize) -> DType {
        self.output_dtypes[index]
    }

    /// The shape of output `index`.
    ///
    /// # Errors
    /// `Internal` if only the kernel can tell it.
    pub fn output_shape(&self, index: usize) -> Result<&Shape> {
        self.output_shapes[index].as_ref().ok_or_else(|| {
            Error::internal(format!(
                "the shape of output {index} is not known before the kernel runs"
            ))
        })
    }

    /// Whether anything may read output `index`; a kernel need not fill one that nothing reads.
    pub fn is_read(&self, index: usize) -> bool {
        self.outputs_read.get(index).copied().unwrap_or(true)
    }

    /// The value of plan-time input `index`.
    ///
    /// # Errors
    /// `Internal` if the op's definition does not name it as a plan-time input.
    pub fn value(&self, index: usize) -> Result<&Value> {
        self.input_values[index]
            .as_ref()
            .ok_or_else(|| Error::internal(format!("input {index} is not declared as a plan-time input")))
    }

    /// Bytes of the inputs, as far as their elements have a size: strings and handles have none.
    pub fn input_bytes(&self) -> usize {
        let sizes = self.input_dtypes.iter().zip(self.input_shapes);
        sizes
            .map(|(dtype, shape)| dtype.size().unwrap_or(0) * shape.num_elements())
            .sum()
    }

    /// Bytes of the outputs, as far as their shapes are known and their elements have a size.
    pub fn output_bytes(&self) -> usize {
        let sizes = self.output_dtypes.iter().zip(self.output_shapes);
        sizes
            .map(|(dtype, shape)| dtype.size().unwrap_or(0) * shape.as_ref().map_or(0, Shape::num_elements))
            .sum()
    }

    /// The number of inputs, lists counted by their members.
    pub fn num_inputs(&self) -> usize {
        self.input_shapes.len()
    }

    /// The number of outputs, lists counted by their members.
    pub fn num_outputs(&self) -> usize {
        self.output_dtypes.len()
    }
}
