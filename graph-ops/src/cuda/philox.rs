//! Random numbers in TensorFlow's streams (`philox.cu`). A stream's place is the session's, on the host; each run tells its
//! kernel where it begins.

use graph_core::op::{KernelContext, KernelRequest, Planned};
use graph_core::{Error, Result};
use graph_cuda::{Cuda, Function, Source, arguments, source};

use super::launch::{Launch, Work};
use super::window::joined_source;
use super::{NOWHERE, type_name};
use crate::cpu::philox::Key;
use crate::random::generator::{Generator, check_dimensions};

const SOURCE: Source = joined_source!("philox.cu": "philox.cuh", "numbers.cuh", "philox.cu");

/// The generator alone.
const GENERATOR: Source = source!("philox.cuh");

/// The numbers of a distribution.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Distribution {
    Uniform,
    Normal,
    TruncatedNormal,
    /// Integers between the bounds that are inputs 1 and 2.
    UniformInt,
    /// 1 where a uniform number is at least input 0, a scalar; else 0.
    Mask,
}

/// Key and counter, as kernels take them.
pub(crate) const BYTES: usize = 24;

/// The kernel of a distribution, and how many elements have one place of the generator.
fn kernel(request: &KernelRequest<'_>, distribution: Distribution) -> Result<(Function, usize)> {
    let which = match distribution {
        Distribution::Uniform => "UNIFORM",
        Distribution::Normal => "NORMAL",
        Distribution::TruncatedNormal => "TRUNCATED_NORMAL",
        Distribution::UniformInt => "UNIFORM_INT",
        Distribution::Mask => "MASK",
    };
    let defines = [("T", type_name(request.output_dtype(0))?), (which, "")];
    let bytes = request.output_shape(0)?.num_elements() * request.output_dtype(0).size().unwrap_or(0);
    let function = Cuda::of(request)?.function(&SOURCE, "fill", &defines)?.moving(bytes);
    Ok((function, 16 / request.output_dtype(0).size().unwrap_or(4).max(4)))
}

/// A kernel that writes the place that the two seeds in input `seeds` lead to.
///
/// # Errors
/// The compiler's.
pub(crate) fn mixing(request: &KernelRequest<'_>, seeds: usize) -> Result<Launch> {
    let defines = [("SEED", type_name(request.input_dtype(seeds))?)];
    let launch = Launch::new(request, &GENERATOR, "mix_seeds", &defines, Work::Elements(1), &[])?;
    Ok(launch.moving(BYTES + 2 * request.input_dtype(seeds).size().unwrap_or(0)))
}

/// Writes a place as kernels take it.
///
/// # Errors
/// `Internal` if there is not the room for it.
pub(crate) fn write_place(Key { key, counter }: Key, bytes: &mut [u8]) -> Result<()> {
    let words = [key[0].to_le_bytes(), key[1].to_le_bytes()];
    let (head, tail) = bytes
        .split_at_mut_checked(8)
        .filter(|(_, tail)| tail.len() == 16)
        .ok_or_else(|| Error::internal("the parameters of random numbers have another size"))?;
    head.copy_from_slice(words.as_flattened());
    tail.copy_from_slice(&counter.to_le_bytes());
    Ok(())
}

/// A kernel that fills output 0, whose dimensions input 0 holds, from the seeds in input 1; the bounds of integers are inputs 2
/// and 3.
///
/// # Errors
/// Those of [`filling`].
pub(crate) fn filling_by_seeds(request: &KernelRequest<'_>, distribution: Distribution) -> Result<Planned> {
    check_dimensions(request)?;
    let mix = mixing(request, 1)?;
    let (function, group) = kernel(request, distribution)?;
    let n = request.output_shape(0)?.num_elements();
    let bounded = distribution == Distribution::UniformInt;
    let planned = Planned::new(move |context: &mut KernelContext<'_>| {
        let (out, place) = (context.output_address(0), context.scratch_address());
        let bound = |index| if bounded { context.input_address(index) } else { NOWHERE };
        // SAFETY: these are the kernels' parameters: the output has `n` elements, bounds are scalars, and there is room for a
        // place.
        unsafe {
            mix.run([place, context.input_address(1)])?;
            function.launch_over(n.div_ceil(group), arguments![out, place, n as i64, bound(2), bound(3)])
        }
    });
    Ok(planned.with_scratch(BYTES))
}

/// A kernel that fills output 0, whose dimensions input 0 holds; of a mask, they are the output's own.
///
/// # Errors
/// Those of [`check_dimensions`], and `Unimplemented` for dtypes that kernels do not calculate with.
pub(crate) fn filling(request: &KernelRequest<'_>, distribution: Distribution) -> Result<Planned> {
    let masks = distribution == Distribution::Mask;
    if !masks {
        check_dimensions(request)?;
    }
    let (function, group) = kernel(request, distribution)?;
    let n = request.output_shape(0)?.num_elements();
    let bounded = distribution == Distribution::UniformInt;
    let planned = Planned::new(move |context| {
        let (out, parameters) = (context.output_address(0), context.parameters_address()?);
        let bound = |index| match (bounded, masks) {
            (true, _) => context.input_address(index),
            // The threshold.
            (_, true) => context.input_address(0),
            _ => NOWHERE,
        };
        // SAFETY: these are the kernel's parameters: the output has `n` elements, bounds are scalars.
        unsafe {
            function.launch_over(
                n.div_ceil(group),
                arguments![out, parameters, n as i64, bound(1), bound(2)],
            )
        }
    });
    Ok(planned.with_parameters(BYTES, move |context, bytes| {
        write_place(context.state::<Generator>()?.reserve_elements(n).place(), bytes)
    }))
}
