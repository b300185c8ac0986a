//! Random numbers in TensorFlow's streams (`philox.cu`). A stream's place is the session's, on the host; each run tells its
//! kernel where it begins.

use graph_core::op::{KernelRequest, Planned};
use graph_core::{Error, Result};
use graph_cuda::{Cuda, Source, arguments, source};

use super::{NOWHERE, type_name};
use crate::cpu::philox::Key;
use crate::random::generator::{Generator, check_dimensions};

const SOURCE: Source = source!("philox.cu");

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
const BYTES: usize = 24;

/// A kernel that fills output 0, whose dimensions input 0 holds; of a mask, they are the output's own.
///
/// # Errors
/// Those of [`check_dimensions`], and `Unimplemented` for dtypes that kernels do not calculate with.
pub(crate) fn filling(request: &KernelRequest<'_>, distribution: Distribution) -> Result<Planned> {
    let masks = distribution == Distribution::Mask;
    if !masks {
        check_dimensions(request)?;
    }
    let which = match distribution {
        Distribution::Uniform => "UNIFORM",
        Distribution::Normal => "NORMAL",
        Distribution::TruncatedNormal => "TRUNCATED_NORMAL",
        Distribution::UniformInt => "UNIFORM_INT",
        Distribution::Mask => "MASK",
    };
    let defines = [("T", type_name(request.output_dtype(0))?), (which, "")];
    let n = request.output_shape(0)?.num_elements();
    let bytes = n * request.output_dtype(0).size().unwrap_or(0);
    let function = Cuda::of(request)?
        .function(&SOURCE, "fill", &defines)?
        .declaring(bytes as u64, 0);
    let group = 16 / request.output_dtype(0).size().unwrap_or(4).max(4);
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
        let Key { key, counter } = context.state::<Generator>()?.reserve_elements(n).place();
        let words = [key[0].to_le_bytes(), key[1].to_le_bytes()];
        let (head, tail) = bytes
            .split_at_mut_checked(8)
            .filter(|(_, tail)| tail.len() == 16)
            .ok_or_else(|| Error::internal("the parameters of random numbers have another size"))?;
        head.copy_from_slice(words.as_flattened());
        tail.copy_from_slice(&counter.to_le_bytes());
        Ok(())
    }))
}
