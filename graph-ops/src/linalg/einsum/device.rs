//! `Einsum` on a device: operands are brought in the order of matrices where they are not, the library multiplies them, and the
//! products are brought to their places in the result.

use graph_core::accelerator::DeviceAddress;
use graph_core::op::{KernelContext, KernelRequest, Planned};
use graph_core::{DType, Error, Result};
use graph_cuda::{Cuda, Function, Product, Source, arguments, source};

use super::contraction::{Contraction, Packing, dense, strides_of};
use super::equation::Equation;
use crate::cpu::copy::CopyAxis;
use crate::cuda::copy::Transfer;
use crate::cuda::fill::Fill;
use crate::cuda::type_name;

const SOURCE: Source = source!("einsum.cu");

/// Axes, as the kernel takes them.
#[repr(C)]
#[derive(Clone, Copy)]
struct Walk {
    rank: i64,
    sizes: [i64; 8],
    strides: [i64; 8],
}

impl Walk {
    /// # Errors
    /// `Unimplemented` for more axes than the kernel has room for.
    fn new(axes: &[(usize, usize)]) -> Result<Self> {
        let mut walk = Self {
            rank: axes.len() as i64,
            sizes: [1; 8],
            strides: [0; 8],
        };
        if axes.len() > walk.sizes.len() {
            return Err(Error::unimplemented(
                "sums of products over more than 8 axes of an operand",
            ));
        }
        for (at, &(len, stride)) in axes.iter().enumerate() {
            (walk.sizes[at], walk.strides[at]) = (len as i64, stride as i64);
        }
        Ok(walk)
    }
}

/// The sums of an operand along the axes that only it has.
struct Sums {
    function: Function,
    kept: Walk,
    summed: Walk,
    len: usize,
    terms: usize,
}

/// How an operand becomes matrices.
enum Pack {
    /// It lies as they do.
    AsItIs,
    Moved(Transfer),
    Summed(Sums),
}

impl Pack {
    fn new(request: &KernelRequest<'_>, dtype: DType, packing: &Packing, elements: usize) -> Result<Self> {
        let len = count(&packing.kept);
        if !packing.summed.is_empty() {
            let terms = count(&packing.summed);
            let function = Cuda::of(request)?.function(&SOURCE, "sum_axes", &[("T", type_name(dtype)?)])?;
            return Ok(Self::Summed(Sums {
                function: function
                    .moving((len * terms + len) * dtype.size().unwrap_or(0))
                    .doing(len * terms),
                kept: Walk::new(&packing.kept)?,
                summed: Walk::new(&packing.summed)?,
                len,
                terms,
            }));
        }
        if len == elements && dense(&packing.kept) {
            return Ok(Self::AsItIs);
        }
        let axes = packing.kept.iter().zip(strides_of(&packing.kept));
        let axes: Vec<CopyAxis> = axes.map(|(&(len, from), to)| axis(len, from, to)).collect();
        Transfer::new(request, dtype, 0, 0, &axes).map(Self::Moved)
    }

    /// Brings an operand in order, to `to` unless it is so already; where it is then.
    ///
    /// # Safety
    /// It is the operand that this was made for, and there is room for as many elements as its matrices have.
    unsafe fn run(&self, operand: DeviceAddress, to: DeviceAddress) -> Result<DeviceAddress> {
        match self {
            Self::AsItIs => return Ok(operand),
            // SAFETY: the caller's promise.
            Self::Moved(transfer) => unsafe { transfer.run(operand, to)? },
            Self::Summed(sums) => {
                let (len, terms) = (sums.len as i64, sums.terms as i64);
                // SAFETY: these are the kernel's parameters; the caller's promise is of the addresses.
                unsafe {
                    sums.function
                        .launch_over(sums.len, arguments![to, operand, len, terms, sums.kept, sums.summed])?
                }
            }
        }
        Ok(to)
    }
}

/// How the products come to their places in the result, of which `zeros` has those that get none.
struct Spread {
    zeros: Option<Fill>,
    transfer: Transfer,
}

fn axis(len: usize, from: usize, to: usize) -> CopyAxis {
    CopyAxis {
        len,
        from: from as isize,
        to: to as isize,
    }
}

/// How many elements a walk has.
fn count(walk: &[(usize, usize)]) -> usize {
    walk.iter().map(|axis| axis.0).product()
}

/// A kernel for an equation of one or two operands.
///
/// # Errors
/// Those of [`Contraction::new`], and `Unimplemented` for more axes than kernels have room for.
pub(super) fn kernel(request: &KernelRequest<'_>) -> Result<Planned> {
    let equation = Equation::parse(&request.attr::<String>("equation")?)?;
    let shapes: Vec<_> = request.input_shapes.iter().collect();
    let (output, dtype) = (request.output_shape(0)?, request.output_dtype(0));
    let contraction = Contraction::new(&equation, &shapes, output)?;
    let Contraction {
        operands,
        batches,
        product,
        result,
    } = &contraction;
    let (m, n, k) = (product.m, product.n, product.k);
    let products = count(result);
    // Of one operand the result may be a copy.
    let only = match operands.as_slice() {
        [only] if only.summed.is_empty() => Some(only),
        _ => None,
    };
    let packs = match only {
        Some(_) => vec![Pack::AsItIs],
        None => {
            let packs = operands.iter().zip(&shapes);
            packs
                .map(|(packing, shape)| Pack::new(request, dtype, packing, shape.num_elements()))
                .collect::<Result<Vec<_>>>()?
        }
    };
    let multiply = match operands.len() {
        2 => {
            let product = Product::new(dtype, m, n, k).batched(*batches, [m * k, k * n, m * n]);
            Some((Cuda::of(request)?, product))
        }
        _ => None,
    };
    let in_order = multiply.is_some() && dense(result);
    let spread = if in_order {
        None
    } else {
        let from: Vec<usize> = match only {
            Some(only) => only.kept.iter().map(|axis| axis.1).collect(),
            None => strides_of(result).to_vec(),
        };
        let axes = result.iter().zip(from);
        let axes: Vec<CopyAxis> = axes.map(|(&(len, to), from)| axis(len, from, to)).collect();
        // Where a label is repeated in the result, only its diagonal is written.
        let zeros = if products == output.num_elements() {
            None
        } else {
            Some(Fill::zeros(request, dtype, output.num_elements())?)
        };
        Some(Spread {
            zeros,
            transfer: Transfer::new(request, dtype, 0, 0, &axes)?,
        })
    };
    let mut scratch = 0;
    let mut place = |elements: usize| {
        let begin = scratch;
        scratch += (elements * dtype.size().unwrap_or(0)).next_multiple_of(256);
        begin
    };
    let packs: Vec<(Pack, usize)> = packs
        .into_iter()
        .zip(operands)
        .map(|(pack, packing)| {
            let elements = if matches!(pack, Pack::AsItIs) {
                0
            } else {
                count(&packing.kept)
            };
            (pack, place(elements))
        })
        .collect();
    let of_products = place(if multiply.is_some() && !in_order { products } else { 0 });
    let planned = Planned::new(move |context: &mut KernelContext<'_>| {
        let (output, memory) = (context.output_address(0), context.scratch_address());
        let packed = |at: usize| {
            let (pack, begin) = &packs[at];
            // SAFETY: the operands have the shapes that the packs were made for, and each has its part of the scratch memory.
            unsafe { pack.run(context.input_address(at), memory.offset(*begin)) }
        };
        let from = match &multiply {
            None => packed(0)?,
            Some((cuda, product)) => {
                let (a, b) = (packed(0)?, packed(1)?);
                let to = if in_order { output } else { memory.offset(of_products) };
                // SAFETY: the matrices lie there, and there is room for the products.
                unsafe { cuda.multiply(product, a, b, to)? };
                to
            }
        };
        let Some(Spread { zeros, transfer }) = &spread else {
            return Ok(());
        };
        // SAFETY: the output has the shape that these were made for.
        unsafe {
            if let Some(zeros) = zeros {
                zeros.run(output)?;
            }
            transfer.run(from, output)
        }
    });
    Ok(planned.with_scratch(scratch))
}
