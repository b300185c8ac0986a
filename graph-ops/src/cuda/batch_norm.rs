//! Batch normalization and its gradient (`batch_norm.cu`).

use graph_core::Result;
use graph_core::op::{KernelRequest, Planned};
use graph_cuda::{Cuda, Function, Source, arguments};

use super::channels::{Sides, Slabs};
use super::type_name;
use super::window::{joined_source, small};

const SOURCE: Source = joined_source!("batch_norm.cu": "images.cuh", "channel_sums.cuh", "batch_norm.cu");

/// Threads of a block of sums.
const THREADS: [u32; 3] = [256, 1, 1];

/// What is normalized, as the kernels take it.
#[repr(C)]
#[derive(Clone, Copy)]
struct Norm {
    pixels: i64,
    inner: i64,
    channels: i32,
    epsilon: f32,
}

impl Norm {
    fn new(sides: Sides, epsilon: f32) -> Result<Self> {
        Ok(Self {
            pixels: sides.pixels() as i64,
            inner: sides.inner as i64,
            channels: small(sides.channels)?,
            epsilon,
        })
    }
}

/// The kernels of these names, for elements like those of input 0.
fn functions<const N: usize>(request: &KernelRequest<'_>, names: [&str; N]) -> Result<[Function; N]> {
    let (cuda, dtype) = (Cuda::of(request)?, type_name(request.input_dtype(0))?);
    let functions = names
        .into_iter()
        .map(|name| cuda.function(&SOURCE, name, &[("T", dtype)]));
    let functions = functions.collect::<Result<Vec<_>>>()?;
    functions
        .try_into()
        .map_err(|_| graph_core::Error::internal("as many kernels as names"))
}

/// `FusedBatchNorm`: of x, scale, offset, and unless in `training` mean and variance, to y, mean and variance twice. An output
/// `reserved` means nothing and becomes zero.
///
/// # Errors
/// `Unimplemented` for dtypes that kernels do not calculate with.
pub(crate) fn forward(
    request: &KernelRequest<'_>,
    sides: Sides,
    epsilon: f32,
    training: bool,
    reserved: Option<usize>,
) -> Result<Planned> {
    let norm = Norm::new(sides, epsilon)?;
    let [sums, means, square_sums, variances, given, normalize, zero] = functions(
        request,
        [
            "sums",
            "means",
            "square_sums",
            "variances",
            "given",
            "normalize",
            "zero",
        ],
    )?;
    let slabs = Slabs::new(sides.pixels(), sides.channels, sides.inner == 1);
    let (channels, len) = (sides.channels, sides.pixels() * sides.channels);
    let (elements, vector) = (
        len * request.input_dtype(0).size().unwrap_or(0),
        channels * size_of::<f32>(),
    );
    let partial = slabs.count * vector;
    let sums = sums.moving(elements + partial).doing(len);
    let means = means.moving(partial + 2 * vector).doing(slabs.count * channels);
    let square_sums = square_sums.moving(elements + vector + partial).doing(3 * len);
    let variances = variances.moving(partial + 2 * vector).doing(slabs.count * channels);
    let given = given.moving(6 * vector);
    let normalize = normalize.moving(2 * elements + 4 * vector);
    let reserved_len = match reserved {
        Some(reserved) => request.output_shape(reserved)?.num_elements(),
        None => 0,
    };
    let zero = zero.moving(reserved_len * size_of::<f32>());
    let planned = Planned::new(move |context| {
        let [x, scale, offset] = [0, 1, 2].map(|index| context.input_address(index));
        let y = context.output_address(0);
        let [mean, variance, saved_mean, saved_variance] = [1, 2, 3, 4].map(|index| context.output_address(index));
        let partial = context.scratch_address();
        let (slab, width, count) = (slabs.len as i64, slabs.width as i32, slabs.count as i32);
        // SAFETY: these are the kernels' parameters: x and y have a number for each pixel and channel, the rest one for each
        // channel, and the scratch memory one for each slab and channel.
        unsafe {
            if training {
                sums.launch(slabs.blocks(), THREADS, arguments![partial, x, slab, width, norm])?;
                means.launch_over(channels, arguments![mean, saved_mean, partial, count, norm])?;
                square_sums.launch(
                    slabs.blocks(),
                    THREADS,
                    arguments![partial, x, saved_mean, slab, width, norm],
                )?;
                variances.launch_over(channels, arguments![variance, saved_variance, partial, count, norm])?;
            } else {
                let (given_mean, given_variance) = (context.input_address(3), context.input_address(4));
                given.launch_over(
                    channels,
                    arguments![
                        mean,
                        saved_mean,
                        variance,
                        saved_variance,
                        given_mean,
                        given_variance,
                        channels as i64
                    ],
                )?;
            }
            normalize.launch_over(
                len,
                arguments![y, x, scale, offset, saved_mean, saved_variance, len as i64, norm],
            )?;
            if let Some(reserved) = reserved {
                zero.launch_over(
                    reserved_len,
                    arguments![context.output_address(reserved), reserved_len as i64],
                )?;
            }
        }
        Ok(())
    });
    Ok(planned.with_scratch(partial))
}

/// The gradient of [`forward`]: of the gradient of y, x, scale, mean and variance to the gradients of x, scale and offset.
///
/// # Errors
/// Those of [`forward`].
pub(crate) fn backward(request: &KernelRequest<'_>, sides: Sides, epsilon: f32, training: bool) -> Result<Planned> {
    let norm = Norm::new(sides, epsilon)?;
    let [sums, gradient_terms, gradient_of_x] =
        functions(request, ["gradient_sums", "gradient_terms", "gradient_of_x"])?;
    let slabs = Slabs::new(sides.pixels(), sides.channels, sides.inner == 1);
    let (channels, len) = (sides.channels, sides.pixels() * sides.channels);
    let sums_len = 2 * slabs.count * channels;
    let (elements, vector) = (
        len * request.input_dtype(0).size().unwrap_or(0),
        channels * size_of::<f32>(),
    );
    let partial = sums_len * size_of::<f32>();
    let sums = sums.moving(2 * elements + vector + partial).doing(4 * len);
    let gradient_terms = gradient_terms.moving(partial + 7 * vector).doing(sums_len);
    let gradient_of_x = gradient_of_x.moving(3 * elements + 4 * vector);
    let planned = Planned::new(move |context| {
        let [gradient, x, scale, mean, variance] = [0, 1, 2, 3, 4].map(|index| context.input_address(index));
        let [to_x, to_scale, to_offset] = [0, 1, 2].map(|index| context.output_address(index));
        let partial = context.scratch_address();
        let terms = partial.offset(sums_len * size_of::<f32>());
        let (slab, width, count) = (slabs.len as i64, slabs.width as i32, slabs.count as i32);
        // SAFETY: as in `forward`; the scratch memory has two sums for each slab and channel, and three terms for each channel.
        unsafe {
            sums.launch(
                slabs.blocks(),
                THREADS,
                arguments![partial, gradient, x, mean, slab, width, norm],
            )?;
            gradient_terms.launch_over(
                channels,
                arguments![
                    to_scale,
                    to_offset,
                    terms,
                    partial,
                    count,
                    scale,
                    variance,
                    i32::from(training),
                    norm
                ],
            )?;
            gradient_of_x.launch_over(len, arguments![to_x, gradient, x, mean, terms, len as i64, norm])
        }
    });
    Ok(planned.with_scratch((sums_len + 3 * channels) * size_of::<f32>()))
}
