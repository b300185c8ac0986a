//! What element-wise ops share: definitions in one line, and kernels of one or two operands for many dtypes.
//!
//! Each function has a loop of its own for each dtype, which the compiler can turn into vector code; half types are widened
//! block by block and go through the loop of `f32`.

use std::sync::atomic::{AtomicBool, Ordering};

use graph_core::op::{InferenceContext, KernelContext, OpDefinition};
use graph_core::{Element, Error, Result};

use crate::cpu::broadcast::{
    Function, Function2, Stored, Unary, broadcast_binary_ptr, broadcast_widened_ptr, map_unary_ptr, map_widened_ptr,
    unary_blocks,
};
use crate::cpu::element::Real;
use crate::cpu::parallel::{GRAIN, for_each_range};

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

/// [`run_unary`] of a map that knows whole blocks.
pub(crate) fn run_blocks<T: Element, O: Element>(context: &mut KernelContext<'_>, map: &dyn Unary<T, O>) -> Result<()> {
    let len = context.input_shape(0).num_elements();
    let (input, output) = (context.input_ptr::<T>(0)?, context.output_ptr::<O>(0)?);
    // SAFETY: as for `run_function`.
    unsafe { unary_blocks(input, output, len, map) };
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

/// [`run_function`] in the type that `T` is computed in.
pub(crate) fn run_widened<T: Element + Real, O: Element + Stored<T::Wide>>(
    context: &mut KernelContext<'_>,
    f: impl Function<T::Wide, O::Given>,
) -> Result<()> {
    let len = context.input_shape(0).num_elements();
    let (input, output) = (context.input_ptr::<T>(0)?, context.output_ptr::<O>(0)?);
    // SAFETY: as for `run_function`.
    unsafe { map_widened_ptr(input, output, len, f) };
    Ok(())
}

/// [`run_function2`] in the type that `T` is computed in.
pub(crate) fn run_widened2<T: Element + Real, O: Element + Stored<T::Wide>>(
    context: &mut KernelContext<'_>,
    f: impl Function2<T::Wide, T::Wide, O::Given>,
) -> Result<()> {
    let (a, b) = (context.input_ptr::<T>(0)?, context.input_ptr::<T>(1)?);
    let output = context.output_ptr::<O>(0)?;
    let (a_shape, b_shape) = (context.input_shape(0), context.input_shape(1));
    // SAFETY: as for `run_function2`.
    unsafe { broadcast_widened_ptr(a, a_shape, b, b_shape, output, context.output_shape(0), f) };
    Ok(())
}

/// An error if any element of input `index` is bad, unless there is nothing to compute.
pub(crate) fn check_elements<T: Element>(
    context: &KernelContext<'_>,
    index: usize,
    bad: impl Fn(T) -> bool + Sync,
    error: impl FnOnce() -> Error,
) -> Result<()> {
    if context.output_shape(0).num_elements() == 0 {
        return Ok(());
    }
    let pointer = context.input_ptr::<T>(index)?;
    // SAFETY: the slot is valid for its shape, and nothing is written while the slice is used.
    let elements = unsafe { std::slice::from_raw_parts(pointer, context.input_shape(index).num_elements()) };
    let found = AtomicBool::new(false);
    for_each_range(elements.len(), GRAIN, |range| {
        // No early end, so that the loop becomes vector code.
        if elements[range].iter().fold(false, |any, &element| any | bad(element)) {
            found.store(true, Ordering::Relaxed);
        }
    });
    if found.into_inner() { Err(error()) } else { Ok(()) }
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
    (@plain [$($t:ty),*] |$x:ident| $e:expr) => {{
        struct F;
        $($crate::math::elementwise::unary_kernels!(@function $t, |$x| $e);)*
        [$($crate::math::elementwise::unary_kernels!(@of $t)),*]
    }};
    (@function $t:ty, |$x:ident| $e:expr) => {
        impl $crate::cpu::broadcast::Function<$t, $t> for F {
            #[inline(always)]
            fn of(&self, $x: $t) -> $t {
                $e
            }
        }
    };
    (@of $t:ty) => {
        $crate::math::elementwise::kernel!($t, |context| {
            $crate::math::elementwise::run_function::<$t, $t>(context, F)
        })
        .in_place(0, 0)
    };
    (@widened $t:ty) => {
        $crate::math::elementwise::kernel!($t, |context| {
            $crate::math::elementwise::run_widened::<$t, $t>(context, F)
        })
        .in_place(0, 0)
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
    (@float |$x:ident| $e:expr) => {{
        struct F;
        $crate::math::elementwise::unary_kernels!(@function f32, |$x| $e);
        $crate::math::elementwise::unary_kernels!(@function f64, |$x| $e);
        [
            $crate::math::elementwise::unary_kernels!(@of f32),
            $crate::math::elementwise::unary_kernels!(@of f64),
            $crate::math::elementwise::unary_kernels!(@widened half::f16),
            $crate::math::elementwise::unary_kernels!(@widened half::bf16),
        ]
    }};
    // In single precision by one function, in double by another.
    (@single |$x:ident| $e:expr) => {{
        struct F;
        $crate::math::elementwise::unary_kernels!(@function f32, |$x| $e);
        [
            $crate::math::elementwise::unary_kernels!(@of f32),
            $crate::math::elementwise::unary_kernels!(@widened half::f16),
            $crate::math::elementwise::unary_kernels!(@widened half::bf16),
        ]
    }};
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
    (@plain [$($t:ty),*] |$x:ident, $y:ident| $e:expr) => {{
        struct F;
        $($crate::math::elementwise::binary_kernels!(@function $t, |$x, $y| $e);)*
        [$($crate::math::elementwise::binary_kernels!(@of $t)),*]
    }};
    (@function $t:ty, |$x:ident, $y:ident| $e:expr) => {
        impl $crate::cpu::broadcast::Function2<$t, $t, $t> for F {
            #[inline(always)]
            fn of(&self, $x: $t, $y: $t) -> $t {
                $e
            }
        }
    };
    (@of $t:ty) => {
        $crate::math::elementwise::kernel!($t, |context| {
            $crate::math::elementwise::run_function2::<$t, $t, $t>(context, F)
        })
        .in_place(0, 0)
        .in_place(1, 0)
    };
    (@widened $t:ty) => {
        $crate::math::elementwise::kernel!($t, |context| {
            $crate::math::elementwise::run_widened2::<$t, $t>(context, F)
        })
        .in_place(0, 0)
        .in_place(1, 0)
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
    (@float |$x:ident, $y:ident| $e:expr) => {{
        struct F;
        $crate::math::elementwise::binary_kernels!(@function f32, |$x, $y| $e);
        $crate::math::elementwise::binary_kernels!(@function f64, |$x, $y| $e);
        [
            $crate::math::elementwise::binary_kernels!(@of f32),
            $crate::math::elementwise::binary_kernels!(@of f64),
            $crate::math::elementwise::binary_kernels!(@widened half::f16),
            $crate::math::elementwise::binary_kernels!(@widened half::bf16),
        ]
    }};
    (@single |$x:ident, $y:ident| $e:expr) => {{
        struct F;
        $crate::math::elementwise::binary_kernels!(@function f32, |$x, $y| $e);
        [
            $crate::math::elementwise::binary_kernels!(@of f32),
            $crate::math::elementwise::binary_kernels!(@widened half::f16),
            $crate::math::elementwise::binary_kernels!(@widened half::bf16),
        ]
    }};
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
