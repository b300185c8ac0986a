//! What a device beside the host's processor does for a session: memory, copies, and work that is recorded once and replayed.
//!
//! Work given to an accelerator (copies, and the kernels that its own crate launches) runs in the order in which it was
//! given, at some later time; of work that is recorded, parts that say so run side by side ([`Accelerator::enter_lane`]). Only
//! [`Accelerator::download`], [`Accelerator::synchronize`] and [`CapturedWork::launch_timed`] wait for it. The errors of such
//! work may come with a later call.

use std::any::Any;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use crate::dtype::DType;
use crate::error::{Error, Result};
use crate::shape::Shape;
use crate::value::Value;

/// An address in an accelerator's memory. Kernels take it as a pointer; the host may not follow it.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default, PartialOrd, Ord)]
#[repr(transparent)]
pub struct DeviceAddress(pub u64);

impl DeviceAddress {
    /// The address `bytes` further on.
    pub fn offset(self, bytes: usize) -> Self {
        Self(self.0 + bytes as u64)
    }
}

/// What one piece of work took that an accelerator was given: a kernel, a product of its library, a copy.
#[derive(Clone, Debug, PartialEq)]
pub struct KernelStats {
    /// The kernel, or what the library or the driver was asked for.
    pub name: String,
    /// Blocks of the grid, along its three axes; none of what is not the engine's own kernel.
    pub blocks: [u32; 3],
    /// Threads of a block.
    pub threads: [u32; 3],
    /// By the device's own clock.
    pub time: Duration,
    /// Bytes that it has to read and to write, each once; 0 where it does not say so.
    pub bytes: u64,
    /// Operations of arithmetic that it has to do; 0 where it does not say so, as element-wise kernels.
    pub flops: u64,
}

/// A device that runs kernels in memory of its own. All calls may come from any thread.
pub trait Accelerator: Any + Send + Sync {
    /// The number in its name: 0 of `/device:GPU:0`.
    fn index(&self) -> u32;

    /// What it is, for people: the card's name, its memory.
    fn description(&self) -> String;

    /// Memory of `bytes` bytes, aligned to 256. What it holds is arbitrary.
    ///
    /// # Errors
    /// `ResourceExhausted`, which says how much was asked for and how much is held.
    fn allocate(&self, bytes: usize) -> Result<DeviceAddress>;

    /// Takes memory back that [`Accelerator::allocate`] gave; work that was given before may still use it.
    fn free(&self, address: DeviceAddress);

    /// Copies from the host. `from` may be changed as soon as this returns.
    ///
    /// # Errors
    /// Those of the device.
    fn upload(&self, from: &[u8], to: DeviceAddress) -> Result<()>;

    /// Copies to the host, and waits for it.
    ///
    /// # Errors
    /// Those of the device, and of the work that was given before.
    fn download(&self, from: DeviceAddress, to: &mut [u8]) -> Result<()>;

    /// Copies within the device's memory.
    ///
    /// # Errors
    /// Those of the device.
    fn copy(&self, from: DeviceAddress, to: DeviceAddress, bytes: usize) -> Result<()>;

    /// Waits until all work that was given is done.
    ///
    /// # Errors
    /// Those of that work.
    fn synchronize(&self) -> Result<()>;

    /// From now on, work that this thread gives is recorded, not run. No memory may be asked for and nothing waited for until
    /// [`Accelerator::end_capture`].
    ///
    /// # Errors
    /// `Unimplemented` if the device cannot record, `FailedPrecondition` if it does so already.
    fn begin_capture(&self) -> Result<()>;

    /// How many lanes work that is recorded may have.
    fn lanes(&self) -> Lanes {
        Lanes::One
    }

    /// Work that this thread gives from now on, while it is recorded, goes to this lane, a number below [`Lanes::most`]: it runs
    /// after what was given to the lane before, and after what lies before these marks. All recorded work begins in lane 0, and
    /// ends before what is given behind it.
    ///
    /// # Errors
    /// `Unimplemented` if there is but one lane, `FailedPrecondition` if nothing is being recorded, and the device's.
    fn enter_lane(&self, lane: usize, after: &[LaneMark]) -> Result<()> {
        let _ = (lane, after);
        Err(Error::unimplemented("the device records in one lane"))
    }

    /// Marks this place in the lane where work goes now, for this recording.
    ///
    /// # Errors
    /// Those of [`Accelerator::enter_lane`].
    fn mark_lane(&self) -> Result<LaneMark> {
        Err(Error::unimplemented("the device records in one lane"))
    }

    /// Ends what [`Accelerator::begin_capture`] began, and hands out what was recorded.
    ///
    /// # Errors
    /// Those of the device, as for work that cannot be recorded. Recording has ended all the same.
    fn end_capture(self: Arc<Self>) -> Result<Box<dyn CapturedWork>>;

    /// From now on, each piece of work that this thread gives is timed, until [`Accelerator::end_trace`]. A device that cannot
    /// do so times nothing.
    ///
    /// # Errors
    /// Those of the device, and `FailedPrecondition` if it is traced already.
    fn begin_trace(&self) -> Result<()> {
        Ok(())
    }

    /// Ends what [`Accelerator::begin_trace`] began: waits for all work, and hands out what was timed, in its order.
    ///
    /// # Errors
    /// Those of the device, and of the work. Tracing has ended all the same.
    fn end_trace(&self) -> Result<Vec<KernelStats>> {
        self.synchronize()?;
        Ok(Vec::new())
    }

    /// The object itself, by which the crate that made it finds its own type again.
    fn as_any(self: Arc<Self>) -> Arc<dyn Any + Send + Sync>;
}

impl fmt::Debug for dyn Accelerator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "/device:GPU:{} ({})", self.index(), self.description())
    }
}

/// Recorded work. It holds the addresses that it was recorded with.
pub trait CapturedWork: Send {
    /// Gives it to the device once more.
    ///
    /// # Errors
    /// Those of the device.
    fn launch(&self) -> Result<()>;

    /// [`CapturedWork::launch`] that waits until the work is done, and tells what it took by the device's own clock.
    ///
    /// # Errors
    /// Those of the device, and of the work.
    fn launch_timed(&self) -> Result<Duration>;
}

/// How many lanes work that is recorded may have: parts that run side by side.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Lanes {
    /// One: all work in the order in which it is given.
    One,
    /// Up to this many.
    Several(usize),
    /// One or up to this many, whichever is faster.
    Measured(usize),
}

impl Lanes {
    /// The most that there may be.
    pub fn most(self) -> usize {
        match self {
            Self::One => 1,
            Self::Several(most) | Self::Measured(most) => most.max(1),
        }
    }
}

/// A place in a lane of recorded work, as the device numbers it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct LaneMark(pub usize);

/// Memory of an accelerator, given back when it is dropped.
pub struct DeviceMemory {
    accelerator: Arc<dyn Accelerator>,
    address: DeviceAddress,
    bytes: usize,
}

impl DeviceMemory {
    /// New memory, of arbitrary contents.
    ///
    /// # Errors
    /// `ResourceExhausted`
    pub fn new(accelerator: &Arc<dyn Accelerator>, bytes: usize) -> Result<Self> {
        Ok(Self {
            address: accelerator.allocate(bytes)?,
            accelerator: accelerator.clone(),
            bytes,
        })
    }

    /// Where it begins.
    pub fn address(&self) -> DeviceAddress {
        self.address
    }

    /// Its size in bytes.
    pub fn len(&self) -> usize {
        self.bytes
    }

    /// Whether it holds nothing.
    pub fn is_empty(&self) -> bool {
        self.bytes == 0
    }

    /// The device that it is of.
    pub fn accelerator(&self) -> &Arc<dyn Accelerator> {
        &self.accelerator
    }
}

impl Drop for DeviceMemory {
    fn drop(&mut self) {
        self.accelerator.free(self.address);
    }
}

/// A tensor in an accelerator's memory.
#[derive(Clone)]
pub struct DeviceTensor {
    /// Its elements, row by row.
    pub memory: Arc<DeviceMemory>,
    /// Their type.
    pub dtype: DType,
    /// Its shape.
    pub shape: Shape,
}

impl DeviceTensor {
    /// Memory for a tensor of this dtype and shape. What it holds is arbitrary.
    ///
    /// # Errors
    /// `ResourceExhausted`, `InvalidArgument` for a shape of more elements than can be counted, and `Internal` for a dtype whose
    /// elements have no fixed size.
    pub fn new(accelerator: &Arc<dyn Accelerator>, dtype: DType, shape: Shape) -> Result<Self> {
        let bytes = bytes_of(dtype, &shape)?;
        Ok(Self {
            memory: Arc::new(DeviceMemory::new(accelerator, bytes)?),
            dtype,
            shape,
        })
    }

    /// A copy of a value of the host's.
    ///
    /// # Errors
    /// Those of [`DeviceTensor::new`], and the device's.
    pub fn upload(accelerator: &Arc<dyn Accelerator>, value: &Value) -> Result<Self> {
        let tensor = Self::new(accelerator, value.dtype(), value.shape().clone())?;
        accelerator.upload(value.bytes(), tensor.memory.address())?;
        Ok(tensor)
    }

    /// A copy on the host, which waits for the device.
    ///
    /// # Errors
    /// `ResourceExhausted`, and the device's.
    pub fn download(&self) -> Result<Value> {
        let mut value = Value::zeros(self.dtype, self.shape.clone())?;
        let accelerator = self.memory.accelerator();
        accelerator.download(self.memory.address(), value.unique_buffer()?.as_mut_slice())?;
        Ok(value)
    }
}

/// The bytes of a tensor of this dtype and shape.
///
/// # Errors
/// `Internal` for a dtype whose elements have no fixed size, and those of [`Value::zeros`] for shapes that are too large.
pub(crate) fn bytes_of(dtype: DType, shape: &Shape) -> Result<usize> {
    let size = dtype
        .size()
        .ok_or_else(|| Error::internal("elements without a fixed size are not on an accelerator").got(dtype))?;
    let count = shape
        .checked_num_elements()
        .ok_or_else(|| Error::invalid_argument(format!("the shape {shape} has too many elements")))?;
    count
        .checked_mul(size)
        .ok_or_else(|| Error::resource_exhausted(format!("a {dtype} value of shape {shape} is too large")))
}

/// A tensor that may outlive the step that made it, in the memory where it lies. Nothing changes what it holds.
#[derive(Clone)]
pub enum StoredTensor {
    /// On the host.
    Host(Value),
    /// On an accelerator.
    Device(DeviceTensor),
}

impl StoredTensor {
    /// The type of its elements.
    pub fn dtype(&self) -> DType {
        match self {
            Self::Host(value) => value.dtype(),
            Self::Device(tensor) => tensor.dtype,
        }
    }

    /// Its shape.
    pub fn shape(&self) -> &Shape {
        match self {
            Self::Host(value) => value.shape(),
            Self::Device(tensor) => &tensor.shape,
        }
    }

    /// It on the host: itself or a copy.
    ///
    /// # Errors
    /// Those of [`DeviceTensor::download`].
    pub fn into_host(self) -> Result<Value> {
        match self {
            Self::Host(value) => Ok(value),
            Self::Device(tensor) => tensor.download(),
        }
    }

    /// It on this accelerator: itself or a copy.
    ///
    /// # Errors
    /// Those of [`DeviceTensor::upload`] and [`DeviceTensor::download`].
    pub fn into_device(self, accelerator: &Arc<dyn Accelerator>) -> Result<DeviceTensor> {
        match self {
            Self::Device(tensor) if Arc::ptr_eq(tensor.memory.accelerator(), accelerator) => Ok(tensor),
            other => DeviceTensor::upload(accelerator, &other.into_host()?),
        }
    }
}
