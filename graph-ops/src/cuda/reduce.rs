//! Kernels that reduce tensors over any set of dimensions.

use graph_core::op::{KernelRequest, Planned};
use graph_core::{Error, Result};
use graph_cuda::{Cuda, Source, arguments, source};

use super::window::compute_size;
use super::{blocks, type_name};

const SOURCE: Source = source!("reduce.cu");

/// The most dimensions, once neighbours are merged.
const MOST: usize = 8;

/// How many blocks keep a large GPU busy.
const BUSY: usize = 1024;

/// What is reduced and how, in the words of `reduce.cu`.
pub(crate) struct Reduction<'a> {
    /// The type of partial results.
    pub(crate) accumulator: &'a str,
    /// `Add`, `Multiply`, `Maximum`, `Minimum`, `LogicalAnd` or `LogicalOr`.
    pub(crate) operation: &'a str,
    /// The result of no elements.
    pub(crate) first: &'a str,
    /// What is taken of the element `x`.
    pub(crate) map: &'a str,
    /// The result of the total `total` of `count` elements.
    pub(crate) finish: &'a str,
}

#[repr(C)]
#[derive(Clone, Copy)]
struct Axes {
    kept: Side,
    reduced: Side,
}

#[repr(C)]
#[derive(Clone, Copy)]
struct Side {
    rank: i64,
    sizes: [i64; MOST],
    strides: [i64; MOST],
}

/// How the work is cut.
#[derive(Clone, Copy)]
enum Cut {
    /// A warp a result.
    ShortRows,
    /// A block a result and part.
    Rows { parts: usize },
    /// A block for `width` neighbouring results, and part.
    Columns { width: usize, parts: usize },
}

/// The type that partial results of a dtype are kept in, for sums and products.
pub(crate) fn accumulator(dtype: graph_core::DType) -> Result<&'static str> {
    Ok(match type_name(dtype)? {
        "f16" | "bf16" => "float",
        "bool" => "i32",
        name => name,
    })
}

/// A kernel that reduces input 0 over the axes marked in `reduced` to output 0.
///
/// # Errors
/// `Unimplemented` for more dimensions than the kernel has room for.
pub(crate) fn reduce(request: &KernelRequest<'_>, reduced: &[bool], reduction: &Reduction<'_>) -> Result<Planned> {
    let shape = request.input_shape(0).to_vec();
    let axes = merged(&shape, reduced);
    let product = |of: bool| -> usize {
        let lens = shape.iter().zip(reduced).filter(|axis| *axis.1 == of);
        lens.map(|axis| *axis.0).product()
    };
    let (kept, count) = (product(false), product(true));
    let layout = layout(&axes)?;
    // No axis of more than one element is left: a row of one.
    let rows = axes.last().is_none_or(|axis| axis.reduced);
    let cut = cut(rows, kept, count);
    let defines = [
        ("T", type_name(request.input_dtype(0))?),
        ("A", reduction.accumulator),
        ("O", type_name(request.output_dtype(0))?),
        ("OPERATION", reduction.operation),
        ("FIRST", reduction.first),
        ("MAP", reduction.map),
        ("FINISH", reduction.finish),
    ];
    let name = match cut {
        Cut::ShortRows => "reduce_short_rows",
        Cut::Rows { .. } => "reduce_rows",
        Cut::Columns { .. } => "reduce_columns",
    };
    let cuda = Cuda::of(request)?;
    let parts = match cut {
        Cut::ShortRows => 1,
        Cut::Rows { parts } | Cut::Columns { parts, .. } => parts,
    };
    let partial = parts * kept * compute_size(request.output_dtype(0));
    let (input, output) = (request.input_bytes(), request.output_bytes());
    let function = cuda.function(&SOURCE, name, &defines)?.doing(kept * count);
    let (function, join) = match parts {
        1 => (function, None),
        _ => {
            let join = cuda.function(&SOURCE, "join", &defines)?;
            let join = join.moving(partial + output).doing(parts * kept);
            (function.moving(input + partial), Some(join))
        }
    };
    // An accumulator has at most eight bytes.
    let scratch = if parts > 1 { parts * kept * 8 } else { 0 };
    Ok(Planned::new(move |context| {
        if kept == 0 {
            return Ok(());
        }
        let (input, output, partial) = (
            context.input_address(0),
            context.output_address(0),
            context.scratch_address(),
        );
        let (results, elements, pieces) = (kept as i64, count as i64, parts as i64);
        let threads = [256, 1, 1];
        // SAFETY: these are the kernels' parameters: an input of the layout's elements, an output of `kept` results, and
        // scratch memory for a partial result of each part and result.
        unsafe {
            match cut {
                Cut::ShortRows => {
                    let arguments = arguments![output, partial, input, results, elements, layout];
                    function.launch(blocks(kept.div_ceil(8)), threads, arguments)?;
                }
                Cut::Rows { parts } => {
                    let [x, ..] = blocks(kept);
                    let arguments = arguments![output, partial, input, results, elements, layout];
                    function.launch([x, parts as u32, 1], threads, arguments)?;
                }
                Cut::Columns { width, parts } => {
                    let [x, ..] = blocks(kept.div_ceil(width));
                    let width_of_tile = width as i32;
                    let arguments = arguments![output, partial, input, results, elements, layout, width_of_tile];
                    function.launch([x, parts as u32, 1], threads, arguments)?;
                }
            }
            match &join {
                None => Ok(()),
                Some(join) => {
                    let arguments = arguments![output, partial, results, pieces, elements];
                    join.launch(blocks(kept.div_ceil(8)), threads, arguments)
                }
            }
        }
    })
    .with_scratch(scratch))
}

struct Axis {
    len: usize,
    stride: usize,
    reduced: bool,
}

/// The axes of more than one element, neighbours merged that are both kept or both reduced.
fn merged(shape: &[usize], reduced: &[bool]) -> Vec<Axis> {
    let mut axes: Vec<Axis> = Vec::new();
    let mut stride = 1;
    for (&len, &reduced) in shape.iter().zip(reduced).rev().filter(|axis| *axis.0 != 1) {
        match axes.last_mut() {
            Some(last) if last.reduced == reduced => last.len *= len,
            _ => axes.push(Axis { len, stride, reduced }),
        }
        stride *= len;
    }
    axes.reverse();
    axes
}

fn layout(axes: &[Axis]) -> Result<Axes> {
    let side = |reduced: bool| {
        let mut side = Side {
            rank: 0,
            sizes: [1; MOST],
            strides: [0; MOST],
        };
        for (at, axis) in axes.iter().filter(|axis| axis.reduced == reduced).enumerate() {
            if at == MOST {
                return Err(Error::unimplemented(format!(
                    "a reduction of more than {} dimensions that are kept and reduced in turn",
                    2 * MOST
                )));
            }
            side.rank += 1;
            (side.sizes[at], side.strides[at]) = (axis.len as i64, axis.stride as i64);
        }
        side.rank = side.rank.max(1);
        Ok(side)
    };
    Ok(Axes {
        kept: side(false)?,
        reduced: side(true)?,
    })
}

/// How to cut a reduction of `count` elements to each of `kept` results; by the shape alone, so that the order of a sum does
/// not depend on the device.
fn cut(rows: bool, kept: usize, count: usize) -> Cut {
    if rows {
        if count <= 1024 && (kept >= 64 || count <= 32) {
            return Cut::ShortRows;
        }
        let parts = (BUSY / kept.max(1)).min(count / 4096);
        return Cut::Rows { parts: parts.max(1) };
    }
    let width = kept.next_power_of_two().clamp(1, 32);
    let rows_of_block = 256 / width;
    let parts = (BUSY / kept.div_ceil(width).max(1)).min(count / (rows_of_block * 16));
    Cut::Columns {
        width,
        parts: parts.max(1),
    }
}
