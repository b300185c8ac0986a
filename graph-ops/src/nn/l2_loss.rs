//! `L2Loss`: half the sum of squares.

use std::marker::PhantomData;

use graph_core::graph::IntoOperand;
use graph_core::op::{InferenceContext, KernelContext, KernelDefinition, KernelRequest, OpDefinition, Planned};
use graph_core::{DType, Element, Result, typed_builder};
use half::{bf16, f16};
use num_traits::Zero;

use crate::cpu::element::{Real, Wide};
use crate::cpu::reduce::{Reduction, reduce};
use crate::cpu::scratch::Plain;
use crate::cuda;
use crate::math::nodes::Nodes;

/// The op's definition.
pub(crate) fn definition() -> OpDefinition {
    OpDefinition::new("L2Loss", "Half the sum of the squares of all elements.")
        .input("t: T")
        .output("output: T")
        .attr("T: {half, bfloat16, float, double}")
        .shape(InferenceContext::scalars)
        .gradient(|context| {
            let product = Nodes::of(context).mul(context.input(0), context.gradient(0)?)?;
            Ok(vec![Some(product)])
        })
        .kernel(KernelDefinition::cpu(kernel::<f32>).types("T", &[DType::Float32]))
        .kernel(KernelDefinition::cpu(kernel::<f64>).types("T", &[DType::Float64]))
        .kernel(KernelDefinition::cpu(kernel::<f16>).types("T", &[DType::Half]))
        .kernel(KernelDefinition::cpu(kernel::<bf16>).types("T", &[DType::BFloat16]))
        .kernel(KernelDefinition::cuda(on_device).types("T", cuda::FLOATS))
}

fn on_device(request: &KernelRequest<'_>) -> Result<Planned> {
    let reduction = cuda::reduce::Reduction {
        accumulator: cuda::reduce::accumulator(request.input_dtype(0))?,
        operation: "Add",
        first: "0",
        map: "x * x",
        finish: "total * A(0.5)",
    };
    cuda::reduce::reduce(request, &vec![true; request.input_shape(0).rank()], &reduction)
}

/// Half the sum of squares; half types are summed in `float`.
struct HalfSquares<T>(PhantomData<fn(T)>);

impl<T> Clone for HalfSquares<T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for HalfSquares<T> {}

impl<T: Real> Reduction for HalfSquares<T>
where
    T::Wide: Plain,
{
    type In = T;
    type State = T::Wide;
    type Out = T;
    #[inline(always)]
    fn begin(&self) -> T::Wide {
        T::Wide::zero()
    }
    #[inline(always)]
    fn take(&self, state: T::Wide, x: T) -> T::Wide {
        let x = x.widen();
        state + x * x
    }
    #[inline(always)]
    fn join(&self, a: T::Wide, b: T::Wide) -> T::Wide {
        a + b
    }
    fn finish(&self, state: T::Wide, _: usize) -> T {
        T::narrow(state * T::Wide::from_f64(0.5))
    }
}

fn kernel<T: Element + Real>(_: &KernelRequest<'_>) -> Result<Planned>
where
    T::Wide: Plain,
{
    Ok(Planned::new(|context: &mut KernelContext<'_>| {
        let input = context.input::<T>(0)?;
        let half_squares = HalfSquares::<T>(PhantomData);
        reduce(half_squares, input, &[input.len()], &[true], context.output::<T>(0)?);
        Ok(())
    }))
}

typed_builder! {
    /// Half a sum of squares about to be made; see [`l2_loss`].
    pub struct L2Loss;
}

/// Half the sum of the squares of all elements of the floating-point tensor `t`: `sum(t * t) / 2`, a scalar.
///
/// ```
/// use graph_ops::{array::constant, nn::l2_loss};
/// assert_eq!(l2_loss(constant([3.0f32, 4.0])).build()?.shape(), ().into()); // 12.5
/// # Ok::<(), graph_core::Error>(())
/// ```
#[track_caller]
pub fn l2_loss(t: impl IntoOperand) -> L2Loss {
    L2Loss(crate::op("L2Loss").input(t))
}

#[cfg(test)]
pub(crate) fn cases() -> Vec<crate::testing::Case> {
    use crate::testing::Case;
    vec![
        Case::new("L2Loss").input([[3.0f32, 4.0]]).expect(12.5f32),
        Case::new("L2Loss").input([1.0f64, -2.0, 0.5]).expect(2.625f64),
        Case::new("L2Loss")
            .input([f16::from_f32(3.0)])
            .expect(f16::from_f32(4.5)),
        Case::new("L2Loss")
            .input([bf16::from_f32(2.0)])
            .expect(bf16::from_f32(2.0)),
        Case::new("L2Loss").input(Vec::<f32>::new()).expect(0.0f32),
        // Accurate over many elements.
        Case::new("L2Loss")
            .input(vec![0.1f32; 1_000_000])
            .expect(5000.0f32)
            .tolerance(1e-6, 0.0),
    ]
}

#[cfg(test)]
pub(crate) fn gradient_cases() -> Vec<crate::testing::GradientCase> {
    use crate::testing::GradientCase;
    vec![GradientCase::new("L2Loss").input([[1.0f64, -2.0], [0.5, 3.0]])]
}
