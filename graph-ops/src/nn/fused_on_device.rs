//! CUDA kernels of the fused layers in [`super::fused`].

use graph_core::op::{KernelContext, KernelRequest, Planned};
use graph_core::{Error, Result, Shape};
use graph_cuda::Cuda;

use super::conv2d::Plan;
use super::fused::{Made, function_attrs, pooled_geometry};
use super::pooling::Pooling;
use crate::cuda::channels::{BiasRelu, ChannelSums, Sides, Summed};
use crate::cuda::convolution::{BackpropFilter, Forward};
use crate::cuda::pooled_convolution::{PooledFilterGradient, PooledForward, serves};
use crate::cuda::pooling;
use crate::math::device_product;

/// Scratch memory is cut at multiples of this.
const ALIGNMENT: usize = 256;

/// `_FusedConv2D`. Bias and `Relu` are in the convolution's own kernel, the pool is another; in one, and without an activity in
/// memory, where a convolution of few terms makes nothing but its pool.
pub(super) fn conv2d(request: &KernelRequest<'_>) -> Result<Planned> {
    let (plan, dtype) = (
        Plan::new(request, request.input_shape(0), request.input_shape(1))?,
        request.input_dtype(0),
    );
    let geometry = plan.geometry;
    let (relu, makes): (bool, _) = (request.attr("relu")?, Made::read(request.attrs)?);
    let activity = Shape::from(&geometry.out_shape()[..]);
    let (wants_activity, wants_places) = match makes[..] {
        [Made::Activity] => return activity_alone(request, &plan, relu),
        [Made::Activity, Made::Pooled] => (true, false),
        [Made::Places, Made::Pooled] => (false, true),
        [Made::Pooled] => (false, false),
        _ => return Err(Error::unimplemented("what is normalized with a pool is the host's")),
    };
    let pool = Pooling::of(function_attrs(request, "pool")?)?.geometry(&activity)?;
    if !wants_activity && serves(&geometry, &pool, dtype) {
        let kernel = PooledForward::new(request, &geometry, &pool, wants_places)?;
        return Ok(Planned::new(move |context| {
            let inputs = [0, 1, 2].map(|index| context.input_address(index));
            let pooled = context.output_address(usize::from(wants_places));
            let places = wants_places.then(|| context.output_address(0));
            // SAFETY: the tensors have the sizes that the kernel was made for.
            unsafe { kernel.run(inputs, pooled, places) }
        }));
    }
    // An activity that is not wanted is in scratch memory.
    let own = if wants_activity {
        0
    } else {
        (activity.num_elements() * dtype.size().unwrap_or(0)).next_multiple_of(ALIGNMENT)
    };
    let convolution = Forward::new(request, dtype, &geometry, true, true)?;
    let name = if wants_places { "max_pool_places" } else { "max_pool" };
    let pool = pooling::Pooling::new(request, name, dtype, &pool, true)?;
    let scratch = own + convolution.scratch();
    let planned = Planned::new(move |context: &mut KernelContext<'_>| {
        let [images, filter, bias] = [0, 1, 2].map(|index| context.input_address(index));
        let (first, scratch) = (context.output_address(0), context.scratch_address());
        let activity = if wants_activity { first } else { scratch };
        // SAFETY: the tensors have the sizes that the kernels were made for, and they get the scratch memory they want.
        unsafe {
            convolution.run([images, filter, activity], Some(bias), true, scratch.offset(own))?;
            match (wants_activity, wants_places) {
                (_, true) => pool.places(activity, context.output_address(1), first),
                (true, _) => pool.pool(activity, context.output_address(1)),
                (false, _) => pool.pool(activity, first),
            }
        }
    });
    Ok(planned.with_scratch(scratch))
}

fn activity_alone(request: &KernelRequest<'_>, plan: &Plan, relu: bool) -> Result<Planned> {
    let convolution = Forward::new(request, request.input_dtype(0), &plan.geometry, true, true)?;
    let scratch = convolution.scratch();
    let planned = Planned::new(move |context: &mut KernelContext<'_>| {
        let [images, filter, bias] = [0, 1, 2].map(|index| context.input_address(index));
        let (out, scratch) = (context.output_address(0), context.scratch_address());
        // SAFETY: the tensors have the sizes that the kernel was made for, and it gets the scratch memory it wants.
        unsafe { convolution.run([images, filter, out], Some(bias), relu, scratch) }
    });
    Ok(planned.with_scratch(scratch))
}

/// `_MaxPoolReluGrad`: the gradient, and then its sums.
pub(super) fn max_pool_relu_grad(request: &KernelRequest<'_>) -> Result<Planned> {
    let (by_places, dtype): (bool, _) = (request.attr("places")?, request.input_dtype(0));
    let images = request.output_shape(0)?;
    let geometry = Pooling::of(request)?.geometry(images)?;
    let name = if by_places { "max_pool_grad_at" } else { "max_pool_grad" };
    let gradient = pooling::Pooling::new(request, name, dtype, &geometry, true)?;
    // What is at places goes to one pixel each: its sum is that of what comes.
    let (summed, shape) = match by_places {
        true => (Summed::AtPlaces, request.input_shape(1)),
        false => (Summed::All, images),
    };
    let sums = ChannelSums::of(request, [dtype, request.output_dtype(1)], Sides::of(shape, 3), summed)?;
    let scratch = sums.scratch();
    let planned = Planned::new(move |context: &mut KernelContext<'_>| {
        let [from, gradients] = [0, 1].map(|index| context.input_address(index));
        let [backprop, bias] = [0, 1].map(|index| context.output_address(index));
        // SAFETY: the tensors have the sizes that the kernels were made for, and they get the scratch memory they want.
        unsafe {
            let summed = if by_places {
                gradient.grad_at(from, gradients, backprop)?;
                gradients
            } else {
                gradient.max_grad(from, gradients, true, backprop)?;
                backprop
            };
            sums.run([summed, from], bias, context.scratch_address())
        }
    });
    Ok(planned.with_scratch(scratch))
}

/// `_PoolFilterGrad`: in one kernel for a convolution of few terms; else the gradient of the convolution's output is in scratch
/// memory.
pub(super) fn pool_filter_grad(request: &KernelRequest<'_>) -> Result<Planned> {
    let ((geometry, pool), dtype) = (pooled_geometry(request)?, request.input_dtype(0));
    if serves(&geometry, &pool, dtype) {
        let kernel = PooledFilterGradient::new(request, dtype, &geometry, &pool)?;
        let scratch = kernel.scratch();
        let planned = Planned::new(move |context: &mut KernelContext<'_>| {
            let inputs = [0, 1, 2].map(|index| context.input_address(index));
            let outputs = [0, 1].map(|index| context.output_address(index));
            // SAFETY: the tensors have the sizes that the kernel was made for, and it gets the scratch memory it wants.
            unsafe { kernel.run(inputs, outputs, context.scratch_address()) }
        });
        return Ok(planned.with_scratch(scratch));
    }
    let whole = Shape::from(&geometry.out_shape()[..]);
    let own = (whole.num_elements() * dtype.size().unwrap_or(0)).next_multiple_of(ALIGNMENT);
    let gradient = pooling::Pooling::new(request, "max_pool_grad_at", dtype, &pool, true)?;
    let filter = BackpropFilter::new(request, dtype, &geometry, true)?;
    let sums = ChannelSums::of(
        request,
        [dtype; 2],
        Sides::of(request.input_shape(2), 3),
        Summed::AtPlaces,
    )?;
    let scratch = own + filter.scratch().max(sums.scratch());
    let planned = Planned::new(move |context: &mut KernelContext<'_>| {
        let [images, places, gradients] = [0, 1, 2].map(|index| context.input_address(index));
        let [filter_backprop, bias_backprop] = [0, 1].map(|index| context.output_address(index));
        let (backprop, rest) = (context.scratch_address(), context.scratch_address().offset(own));
        // SAFETY: the tensors have the sizes that the kernels were made for, and they get the scratch memory they want.
        unsafe {
            gradient.grad_at(places, gradients, backprop)?;
            filter.run(images, backprop, filter_backprop, rest)?;
            sums.run([gradients, places], bias_backprop, rest)
        }
    });
    Ok(planned.with_scratch(scratch))
}

/// `_FusedMatMul`: in one pass where the device's library can do so; else the product, and then bias and `Relu` where it lies.
pub(super) fn mat_mul(request: &KernelRequest<'_>) -> Result<Planned> {
    let (product, relu): (_, bool) = (device_product(request)?, request.attr("relu")?);
    let (cuda, dtype) = (Cuda::of(request)?, request.input_dtype(0));
    let finish = BiasRelu::new(request, dtype, Sides::of(&[product.rows, product.columns], 1))?;
    Ok(Planned::new(move |context| {
        let [a, b, bias] = [0, 1, 2].map(|index| context.input_address(index));
        let out = context.output_address(0);
        // SAFETY: the tensors have the dimensions of the product, and the output is no input's memory.
        unsafe {
            if cuda.multiply_with_bias(&product, [a, b, bias], relu, out)? {
                return Ok(());
            }
            cuda.multiply(&product, a, b, out)?;
            finish.run(out, bias, relu)
        }
    }))
}
