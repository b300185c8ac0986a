//! Sorted segments on a device: a look at their numbers, for which the host waits, and reductions of their rows (`runs.cu`).

use graph_core::DType;
use graph_core::op::{KernelContext, KernelRequest, Planned};
use graph_core::{Result, Shape};
use graph_cuda::{Cuda, Function, Source, arguments};

use super::sparse::rows_of;
use super::{bounds, check_rows, sorted_segments, width, with_rows};
use crate::cuda::counts::{allocate, device_of, integers, told};
use crate::cuda::window::joined_source;
use crate::cuda::{NOWHERE, blocks, type_name};

const SOURCE: Source = joined_source!("runs.cu": "runs.cuh", "runs.cu");

/// Rows that a run has on average if a block is to take it.
const LONG: usize = 128;

/// With more results than these there is work for all threads without that.
const MANY: usize = 1 << 14;

/// How the rows of a segment become one, in CUDA C.
#[derive(Clone, Copy)]
pub(super) enum Reduction {
    Sum,
    Mean,
    /// The sum, divided by the root of the number of rows.
    SumByRoot,
    Product,
    Least,
    Greatest,
}

impl Reduction {
    /// What it begins with, what becomes of the result `old` that meets the element `update`, how it ends, and what a segment
    /// without rows gives.
    fn expressions(self, dtype: DType) -> [&'static str; 4] {
        let [low, high] = bounds(dtype);
        match self {
            Self::Sum => ["0", "old + update", "total", "0"],
            Self::Mean => ["0", "old + update", "total / A(count)", "0"],
            Self::SumByRoot => ["0", "old + update", "total / A(sqrt(double(count)))", "0"],
            Self::Product => ["1", "old * update", "total", "1"],
            Self::Least => [high, "update < old ? update : old", "total", "0"],
            Self::Greatest => [low, "update > old ? update : old", "total", "0"],
        }
    }
}

/// What results are kept in until they are finished.
fn accumulator(dtype: DType) -> Result<&'static str> {
    Ok(match type_name(dtype)? {
        "f16" | "bf16" => "float",
        "i32" => "i64",
        name => name,
    })
}

/// Runs of rows, about to be reduced.
struct Runs {
    look: Function,
    reduce: Function,
    reduce_long: Function,
    /// How many segment numbers there are.
    count: usize,
    /// The shape of the data.
    shape: Shape,
    dtype: DType,
    /// Whether input 1 names rows, and input 2 has the segment numbers; else input 1 has them.
    indexed: bool,
}

/// A kernel that reduces runs of rows of input 0: all of them, or those that input 1 names if `indexed`.
///
/// # Errors
/// `InvalidArgument` for another number of segments than rows, `Unimplemented` for dtypes that kernels do not calculate with.
pub(super) fn on_device(request: &KernelRequest<'_>, reduction: Reduction, indexed: bool) -> Result<Planned> {
    if !indexed {
        check_rows(request)?;
    }
    let (dtype, ids) = (request.input_dtype(0), if indexed { 2 } else { 1 });
    let [first, change, finish, empty] = reduction.expressions(dtype);
    let defines = [
        ("T", type_name(dtype)?),
        ("A", accumulator(dtype)?),
        ("I", type_name(request.input_dtype(ids))?),
        ("J", type_name(request.input_dtype(1))?),
        ("FIRST", first),
        ("CHANGE", change),
        ("FINISH", finish),
        ("EMPTY", empty),
    ];
    let cuda = Cuda::of(request)?;
    let function = |name| cuda.function(&SOURCE, name, &defines);
    let numbers: usize = (1..=ids).map(|input| bytes_of(request, input)).sum();
    let runs = Runs {
        look: function("look")?.moving(numbers + 2 * size_of::<i64>()),
        reduce: function("reduce_runs")?,
        reduce_long: function("reduce_long_runs")?,
        count: request.input_shape(ids).num_elements(),
        shape: request.input_shape(0).clone(),
        dtype,
        indexed,
    };
    Ok(Planned::new(move |context| runs.run(context, numbers)).with_scratch(2 * size_of::<i64>()))
}

fn bytes_of(request: &KernelRequest<'_>, input: usize) -> usize {
    request.input_shape(input).num_elements() * request.input_dtype(input).size().unwrap_or(0)
}

impl Runs {
    /// `numbers` is how many bytes segment numbers and indices have.
    fn run(&self, context: &mut KernelContext<'_>, numbers: usize) -> Result<()> {
        if self.count == 0 {
            return allocate(context, 0, self.dtype, with_rows(&self.shape, 0)).map(drop);
        }
        let (count, rows) = (self.count as i64, self.shape[0] as i64);
        let (from, scratch) = (context.input_address(0), context.scratch_address());
        let (ids, indices) = if self.indexed {
            (context.input_address(2), context.input_address(1))
        } else {
            (context.input_address(1), NOWHERE)
        };
        device_of(context)?.upload(&[0; 2 * size_of::<i64>()], scratch)?;
        // SAFETY: these are the kernel's parameters: two numbers in scratch memory, and `count` segment numbers and indices.
        unsafe {
            self.look
                .launch_over(self.count, arguments![scratch, ids, indices, count, rows])?;
        }
        let told = told(context, scratch, 2)?;
        if told[1] != 0 {
            self.check(context)?;
        }
        let segments = told[0] as usize + 1;
        let width = width(&self.shape, 1);
        let to = allocate(context, 0, self.dtype, with_rows(&self.shape, segments))?;
        let (elements, taken) = (segments * width, self.count * width);
        if elements == 0 {
            return Ok(());
        }
        let moved = numbers + (elements + taken) * self.dtype.size().unwrap_or(0);
        let said = |function: &Function| function.clone().moving(moved).doing(taken);
        let (results, width) = (elements as i64, width as i64);
        let arguments = arguments![to, from, ids, indices, results, count, width];
        // SAFETY: these are the kernels' parameters: a result of `elements` elements, rows of `width` elements, and segment
        // numbers that are sorted, and indices that name rows, as was seen.
        unsafe {
            if self.count >= LONG.saturating_mul(segments) && elements <= MANY {
                said(&self.reduce_long).launch(blocks(elements), [256, 1, 1], arguments)
            } else {
                said(&self.reduce).launch_over(elements, arguments)
            }
        }
    }

    /// Says on the host what is wrong with the segment numbers or the indices.
    fn check(&self, context: &KernelContext<'_>) -> Result<()> {
        sorted_segments(&integers(context, if self.indexed { 2 } else { 1 })?)?;
        if self.indexed {
            rows_of(&integers(context, 1)?, self.shape[0])?;
        }
        Ok(())
    }
}
