//! What element-wise ops share: definitions in one line, and kernels of one or two operands for many dtypes.
//!
//! A loop of its own, which the compiler can turn into vector code, is made for the dtypes where speed counts (`fast`);
//! the others share one loop a dtype and call a function for each element (`plain`), which keeps the library small and
//! quick to build.

use graph_core::op::{InferenceContext, KernelContext, OpDefinition};
use graph_core::{Element, Error, Result};

use crate::cpu::broadcast::{Function, Function2, broadcast_binary_ptr, map_unary_ptr};

/// The floating-point dtypes.
pub(crate) const FLOATS: &str = "T: {bfloat16, half, float, double}";
/// The floating-point and complex dtypes.
pub(crate) const FLOATS_AND_COMPLEX: &str = "T: {bfloat16, half, float, double, complex64, complex128}";
/// The integer dtypes.
pub(crate) const INTEGERS: &str = "T: {int8, int16, int32, int64, uint8, uint16, uint32, uint64}";
/// The numbers that have an order.
pub(crate) const REAL_NUMBERS: &str =
    "T: {float, double, int32, uint8, int16, int8, int64, bfloat16, uint16, half, uint32, uint64}";

/// An op of `x` that keeps its shape.
pub(crate) fn unary_op(name: &'static str, summary: &'static str, types: &'static str) -> OpDefinition {
    OpDefinition::new(name, summary)
        .input("x: T")
        .output("y: T")
        .attr(types)
        .shape(InferenceContext::unchanged)
}

/// An op of `x` and `y`, broadcast together.
pub(crate) fn binary_op(name: &'static str, summary: &'static str, types: &'static str) -> OpDefinition {
    OpDefinition::new(name, summary)
        .input("x: T")
        .input("y: T")
        .output("z: T")
        .attr(types)
        .shape(InferenceContext::broadcast)
}

/// Runs a map of input 0 to output 0.
pub(crate) fn run_unary<T: Element, O: Element>(
    context: &mut KernelContext<'_>,
    f: impl Fn(T) -> O + Sync,
) -> Result<()> {
    run_function(context, f)
}

/// [`run_unary`] of a function that is no closure.
pub(crate) fn run_function<T: Element, O: Element>(
    context: &mut KernelContext<'_>,
    f: impl Function<T, O>,
) -> Result<()> {
    let len = context.input_shape(0).num_elements();
    let (input, output) = (context.input_ptr::<T>(0)?, context.output_ptr::<O>(0)?);
    // SAFETY: slots are valid for their shapes, which are the same; they are one memory only where a kernel is declared
    // `in_place`, which is for elements of one size.
    unsafe { map_unary_ptr(input, output, len, f) };
    Ok(())
}

/// Runs a map of inputs 0 and 1, broadcast together, to output 0.
pub(crate) fn run_binary<A: Element, B: Element, O: Element>(
    context: &mut KernelContext<'_>,
    f: impl Fn(A, B) -> O + Sync,
) -> Result<()> {
    run_function2(context, f)
}

/// [`run_binary`] of a function that is no closure.
pub(crate) fn run_function2<A: Element, B: Element, O: Element>(
    context: &mut KernelContext<'_>,
    f: impl Function2<A, B, O>,
) -> Result<()> {
    let (a, b) = (context.input_ptr::<A>(0)?, context.input_ptr::<B>(1)?);
    let output = context.output_ptr::<O>(0)?;
    let (a_shape, b_shape) = (context.input_shape(0), context.input_shape(1));
    // SAFETY: slots are valid for their shapes, and the shape function broadcast these to the output's; memory is shared
    // only where a kernel is declared `in_place` and the sizes are the same.
    unsafe { broadcast_binary_ptr(a, a_shape, b, b_shape, output, context.output_shape(0), f) };
    Ok(())
}

/// An error if any element of input `index` is bad, unless there is nothing to compute.
pub(crate) fn check_elements<T: Element>(
    context: &KernelContext<'_>,
    index: usize,
    bad: impl Fn(T) -> bool,
    error: impl FnOnce() -> Error,
) -> Result<()> {
    if context.output_shape(0).num_elements() == 0 {
        return Ok(());
    }
    let pointer = context.input_ptr::<T>(index)?;
    // SAFETY: the slot is valid for its shape, and nothing is written while the slice is used.
    let elements = unsafe { std::slice::from_raw_parts(pointer, context.input_shape(index).num_elements()) };
    if elements.iter().any(|&element| bad(element)) {
        return Err(error());
    }
    Ok(())
}

/// A kernel for the attribute `T` of one element type, that runs `$run`.
macro_rules! kernel {
    ($t:ty, |$context:ident| $run:expr) => {
        graph_core::op::KernelDefinition::direct(|$context| $run).types("T", &[<$t as graph_core::Element>::DTYPE])
    };
}

/// Adds kernels of one operand. `float` stands for `f32` and `f64` and for the half types computed in `f32`; `single` is that
/// without `f64`; `complex` stands for both complex types, `plain` for those listed. `cuda` has the expression in CUDA C
/// ([`expression`](crate::cuda::elementwise::expression)), for the types listed or for all floating-point types; `special` is
/// the same with the special functions.
macro_rules! unary_kernels {
    ($definition:expr; $($kind:ident $([$($t:ty),*])? |$x:ident| $e:expr;)*) => {{
        let mut definition = $definition;
        $(definition.kernels.extend($crate::math::elementwise::unary_kernels!(@$kind $([$($t),*])? |$x| $e));)*
        definition
    }};
    (@plain [$($t:ty),*] |$x:ident| $e:expr) => {
        [$($crate::math::elementwise::kernel!($t, |context| {
            struct F;
            impl $crate::cpu::broadcast::Function<$t, $t> for F {
                #[inline(always)]
                fn of(&self, $x: $t) -> $t {
                    $e
                }
            }
            $crate::math::elementwise::run_function::<$t, $t>(context, F)
        }).in_place(0, 0)),*]
    };
    (@cuda |$x:ident| $e:expr) => {
        $crate::math::elementwise::unary_kernels!(@cuda [f32, f64, half::f16, half::bf16] |$x| $e)
    };
    (@cuda [$($t:ty),*] |$x:ident| $e:expr) => {
        [$crate::cuda::elementwise::expression!(|$x| $e)
            .types("T", &[$(<$t as graph_core::Element>::DTYPE),*])
            .in_place(0, 0)]
    };
    (@special [$($t:ty),*] |$x:ident| $e:expr) => {
        [$crate::cuda::elementwise::expression!(special |$x| $e)
            .types("T", &[$(<$t as graph_core::Element>::DTYPE),*])
            .in_place(0, 0)]
    };
    (@complex |$x:ident| $e:expr) => {
        $crate::math::elementwise::unary_kernels!(
            @plain [graph_core::Complex<f32>, graph_core::Complex<f64>] |$x| $e
        )
    };
    (@half |$x:ident| $e:expr) => {
        $crate::math::elementwise::unary_kernels!(@plain [half::f16, half::bf16] |x| {
            let $x = $crate::cpu::element::Real::widen(x);
            $crate::cpu::element::Real::narrow($e)
        })
    };
    (@float |$x:ident| $e:expr) => {
        [
            $crate::math::elementwise::unary_kernels!(@plain [f32, f64] |$x| $e),
            $crate::math::elementwise::unary_kernels!(@half |$x| $e),
        ].concat()
    };
    // In single precision by one function, in double by another.
    (@single |$x:ident| $e:expr) => {
        [
            $crate::math::elementwise::unary_kernels!(@plain [f32] |$x| $e).to_vec(),
            $crate::math::elementwise::unary_kernels!(@half |$x| $e).to_vec(),
        ].concat()
    };
    // Only in double precision, to which the others are widened.
    (@double |$x:ident| $e:expr) => {
        [
            $crate::math::elementwise::unary_kernels!(@plain [f64] |$x| $e),
            $crate::math::elementwise::unary_kernels!(@plain [f32] |x| { let $x = f64::from(x); ($e) as f32 }),
            $crate::math::elementwise::unary_kernels!(
                @plain [half::f16] |x| { let $x = x.to_f64(); half::f16::from_f64($e) }
            ),
            $crate::math::elementwise::unary_kernels!(
                @plain [half::bf16] |x| { let $x = x.to_f64(); half::bf16::from_f64($e) }
            ),
        ].concat()
    };
}

/// Adds kernels of two operands, in the words of [`unary_kernels`].
macro_rules! binary_kernels {
    ($definition:expr; $($kind:ident $([$($t:ty),*])? |$x:ident, $y:ident| $e:expr;)*) => {{
        let mut definition = $definition;
        $(definition.kernels.extend(
            $crate::math::elementwise::binary_kernels!(@$kind $([$($t),*])? |$x, $y| $e)
        );)*
        definition
    }};
    (@plain [$($t:ty),*] |$x:ident, $y:ident| $e:expr) => {
        [$($crate::math::elementwise::kernel!($t, |context| {
            struct F;
            impl $crate::cpu::broadcast::Function2<$t, $t, $t> for F {
                #[inline(always)]
                fn of(&self, $x: $t, $y: $t) -> $t {
                    $e
                }
            }
            $crate::math::elementwise::run_function2::<$t, $t, $t>(context, F)
        }).in_place(0, 0).in_place(1, 0)),*]
    };
    (@cuda |$x:ident, $y:ident| $e:expr) => {
        $crate::math::elementwise::binary_kernels!(@cuda [f32, f64, half::f16, half::bf16] |$x, $y| $e)
    };
    (@cuda [$($t:ty),*] |$x:ident, $y:ident| $e:expr) => {
        [$crate::cuda::elementwise::expression!(|$x, $y| $e)
            .types("T", &[$(<$t as graph_core::Element>::DTYPE),*])
            .in_place(0, 0)
            .in_place(1, 0)]
    };
    (@special [$($t:ty),*] |$x:ident, $y:ident| $e:expr) => {
        [$crate::cuda::elementwise::expression!(special |$x, $y| $e)
            .types("T", &[$(<$t as graph_core::Element>::DTYPE),*])
            .in_place(0, 0)
            .in_place(1, 0)]
    };
    (@complex |$x:ident, $y:ident| $e:expr) => {
        $crate::math::elementwise::binary_kernels!(
            @plain [graph_core::Complex<f32>, graph_core::Complex<f64>] |$x, $y| $e
        )
    };
    (@half |$x:ident, $y:ident| $e:expr) => {
        $crate::math::elementwise::binary_kernels!(@plain [half::f16, half::bf16] |x, y| {
            let ($x, $y) = ($crate::cpu::element::Real::widen(x), $crate::cpu::element::Real::widen(y));
            $crate::cpu::element::Real::narrow($e)
        })
    };
    (@float |$x:ident, $y:ident| $e:expr) => {
        [
            $crate::math::elementwise::binary_kernels!(@plain [f32, f64] |$x, $y| $e),
            $crate::math::elementwise::binary_kernels!(@half |$x, $y| $e),
        ].concat()
    };
    (@single |$x:ident, $y:ident| $e:expr) => {
        [
            $crate::math::elementwise::binary_kernels!(@plain [f32] |$x, $y| $e).to_vec(),
            $crate::math::elementwise::binary_kernels!(@half |$x, $y| $e).to_vec(),
        ].concat()
    };
    (@double |$x:ident, $y:ident| $e:expr) => {
        [
            $crate::math::elementwise::binary_kernels!(@plain [f64] |$x, $y| $e),
            $crate::math::elementwise::binary_kernels!(@plain [f32] |x, y| {
                let ($x, $y) = (f64::from(x), f64::from(y));
                ($e) as f32
            }),
        ].concat()
    };
}

pub(crate) use {binary_kernels, kernel, unary_kernels};
