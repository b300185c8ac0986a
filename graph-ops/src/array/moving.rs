//! Ops that move elements without looking at them: one code path for every dtype.
//!
//! Elements are moved as plain words of their size. Byte strings, which live outside the plan's memory, are moved as the
//! numbers of their places among all the strings of the inputs; number 0 stands for the empty string, as zero does elsewhere.

use graph_core::op::{KernelContext, KernelRequest, Planned};
use graph_core::{DType, Error, Result, Shape, Value};

use crate::cpu::Short;

/// A word of an element's size: all that moving needs to know of it. The default is the word of zero.
pub(crate) trait Word: Copy + Default + Send + Sync + 'static {}

impl Word for u8 {}
impl Word for u16 {}
impl Word for u32 {}
impl Word for u64 {}
impl Word for [u64; 2] {}

/// What an op does to the words of its data inputs and outputs.
pub(crate) trait Movement: Send + Sync + 'static {
    /// Whether each output is made for itself, so that those that nothing reads may be given as empty.
    const SEPARATE_OUTPUTS: bool = false;

    /// Fills every word of the outputs. `inputs` are the data inputs alone; others are read from the context.
    fn run<T: Word>(&self, context: &KernelContext<'_>, inputs: &[&[T]], outputs: &mut [&mut [T]]) -> Result<()>;
}

/// A kernel that moves elements of the inputs `data` into its outputs, all of one dtype.
///
/// # Errors
/// `Unimplemented` for dtypes that have no values.
pub(crate) fn plan(
    request: &KernelRequest<'_>,
    data: impl IntoIterator<Item = usize>,
    movement: impl Movement,
) -> Result<Planned> {
    let data: Vec<usize> = data.into_iter().collect();
    let dtype = data.first().map_or(DType::Float32, |&index| request.input_dtype(index));
    match dtype.size() {
        None if dtype == DType::String => Ok(strings(data, movement)),
        Some(1) => Ok(words::<u8, _>(request, dtype, data, movement)),
        Some(2) => Ok(words::<u16, _>(request, dtype, data, movement)),
        Some(4) => Ok(words::<u32, _>(request, dtype, data, movement)),
        Some(8) => Ok(words::<u64, _>(request, dtype, data, movement)),
        Some(16) => Ok(words::<[u64; 2], _>(request, dtype, data, movement)),
        _ => Err(Error::unimplemented(format!(
            "tensors of dtype {dtype} cannot be moved"
        ))),
    }
}

fn words<T: Word, M: Movement>(request: &KernelRequest<'_>, dtype: DType, data: Vec<usize>, movement: M) -> Planned {
    let filled: Short<bool> = (0..request.num_outputs())
        .map(|index| !M::SEPARATE_OUTPUTS || request.is_read(index))
        .collect();
    Planned::new(move |context| {
        let (inputs, mut outputs) = (
            input_words::<T>(context, &data)?,
            output_words::<T>(context, dtype, &filled)?,
        );
        movement.run(context, &inputs, &mut outputs)
    })
}

fn strings<M: Movement>(data: Vec<usize>, movement: M) -> Planned {
    Planned::new(move |context| {
        let numbered = Numbered::new(context, &data)?;
        let mut moved = numbered.outputs(context);
        let inputs: Vec<&[u64]> = numbered.inputs.iter().map(Vec::as_slice).collect();
        let mut outputs: Vec<&mut [u64]> = moved.iter_mut().map(Vec::as_mut_slice).collect();
        movement.run(context, &inputs, &mut outputs)?;
        for (index, value) in numbered.values(context, &moved)?.into_iter().enumerate() {
            context.set_output(index, value);
        }
        Ok(())
    })
}

/// The strings of the inputs, and their places among them in each input.
struct Numbered<'c> {
    pool: Vec<&'c [u8]>,
    inputs: Vec<Vec<u64>>,
}

impl<'c> Numbered<'c> {
    fn new(context: &'c KernelContext<'_>, data: &[usize]) -> Result<Self> {
        let (mut pool, mut inputs): (Vec<&[u8]>, _) = (vec![&[]], Vec::with_capacity(data.len()));
        for &index in data {
            let strings = context.input_strings(index)?;
            inputs.push((0..strings.len()).map(|at| (pool.len() + at) as u64).collect());
            pool.extend(strings.iter().map(Vec::as_slice));
        }
        Ok(Self { pool, inputs })
    }

    /// Outputs of empty strings.
    fn outputs(&self, context: &KernelContext<'_>) -> Vec<Vec<u64>> {
        let sizes = (0..context.num_outputs()).map(|index| context.output_shape(index).num_elements());
        sizes.map(|size| vec![0; size]).collect()
    }

    /// The strings that the outputs' numbers stand for.
    fn values(&self, context: &KernelContext<'_>, outputs: &[Vec<u64>]) -> Result<Vec<Value>> {
        let values = outputs.iter().enumerate().map(|(index, numbers)| {
            let strings = numbers.iter().map(|&number| self.pool[number as usize].to_vec());
            Value::from_strings(context.output_shape(index).clone(), strings.collect())
        });
        values.collect()
    }
}

/// Evaluates an expression with a type parameter bound to the element type of a dtype.
macro_rules! with_element {
    ($dtype:expr, $element:ident => $body:expr) => {
        match $dtype {
            graph_core::DType::Float32 => {
                type $element = f32;
                $body
            }
            graph_core::DType::Float64 => {
                type $element = f64;
                $body
            }
            graph_core::DType::Half => {
                type $element = half::f16;
                $body
            }
            graph_core::DType::BFloat16 => {
                type $element = half::bf16;
                $body
            }
            graph_core::DType::Int8 => {
                type $element = i8;
                $body
            }
            graph_core::DType::Int16 => {
                type $element = i16;
                $body
            }
            graph_core::DType::Int32 => {
                type $element = i32;
                $body
            }
            graph_core::DType::Int64 => {
                type $element = i64;
                $body
            }
            graph_core::DType::UInt8 => {
                type $element = u8;
                $body
            }
            graph_core::DType::UInt16 => {
                type $element = u16;
                $body
            }
            graph_core::DType::UInt32 => {
                type $element = u32;
                $body
            }
            graph_core::DType::UInt64 => {
                type $element = u64;
                $body
            }
            graph_core::DType::Bool => {
                type $element = bool;
                $body
            }
            graph_core::DType::Complex64 => {
                type $element = graph_core::Complex<f32>;
                $body
            }
            graph_core::DType::Complex128 => {
                type $element = graph_core::Complex<f64>;
                $body
            }
            other => Err(graph_core::Error::unimplemented(format!(
                "tensors of dtype {other} are not supported here"
            ))),
        }
    };
}
pub(crate) use with_element;

/// The elements of the inputs `data` as words of their size.
fn input_words<'c, T: Word>(context: &'c KernelContext<'_>, data: &[usize]) -> Result<Short<&'c [T]>> {
    let words = data.iter().map(|&index| {
        let dtype = context.input_dtype(index);
        let start = with_element!(dtype, E => context.input_ptr::<E>(index).map(|at| at.cast::<T>()))?;
        let len = context.input_shape(index).num_elements();
        if len == 0 {
            return Ok(&[][..]);
        }
        // SAFETY: the input is valid for `len` elements, which have the size of a `T` and at least its alignment while the
        // kernel runs, and kernels planned here are never in place, so that no output overlaps it.
        Ok(unsafe { std::slice::from_raw_parts(start, len) })
    });
    words.collect()
}

/// The elements of the outputs as words of their size.
fn output_words<'c, T: Word>(context: &KernelContext<'c>, dtype: DType, filled: &[bool]) -> Result<Short<&'c mut [T]>> {
    let words = filled.iter().enumerate().map(|(index, filled)| {
        if !filled {
            return Ok(&mut [][..]);
        }
        let start = with_element!(dtype, E => context.output_ptr::<E>(index).map(|at| at.cast::<T>()))?;
        let len = context.output_shape(index).num_elements();
        if len == 0 {
            return Ok(&mut [][..]);
        }
        // SAFETY: as for inputs; `output_ptr` hands each output out once.
        Ok(unsafe { std::slice::from_raw_parts_mut(start, len) })
    });
    words.collect()
}

/// The rows `numbers` of a value, each of `row` elements in row-major order, as a value of shape `shape`.
///
/// # Errors
/// `Internal` for a row that there is not, and those of making a value.
pub(crate) fn pick_rows(value: &Value, row: usize, numbers: &[usize], shape: impl Into<Shape>) -> Result<Value> {
    let missing = || Error::internal("a row outside of the value");
    if value.dtype() == DType::String {
        let strings = value.as_strings()?;
        let rows = numbers
            .iter()
            .map(|&at| strings.get(at * row..(at + 1) * row).ok_or_else(missing));
        return Value::from_strings(shape, rows.collect::<Result<Vec<_>>>()?.concat());
    }
    let row = row * value.dtype().size().ok_or_else(missing)?;
    let bytes = value.bytes();
    let rows = numbers
        .iter()
        .map(|&at| bytes.get(at * row..(at + 1) * row).ok_or_else(missing));
    Value::from_bytes(value.dtype(), shape, &rows.collect::<Result<Vec<_>>>()?.concat())
}
