//! Maps of types that are computed in a wider one: a block is widened, mapped, and narrowed.
//!
//! The map itself is the loop of the wider type, so that half types need none of their own.

use std::mem::MaybeUninit;

use super::{BLOCK, Binary, Each, Function, Function2, Unary, broadcast_blocks, is_scalar, unary_blocks};
use crate::cpu::element::Real;

/// What a map in the type `W` gives, as it is stored: narrowed, or as it is.
pub trait Stored<W: Real>: Copy {
    /// What the map gives.
    type Given: Copy;
    /// Stores a value.
    fn stored(value: Self::Given) -> Self;
    /// Fills `out` with what `map` gives.
    fn fill(out: &mut [MaybeUninit<Self>], map: impl FnOnce(&mut [MaybeUninit<Self::Given>]));
}

impl<T: Real> Stored<T::Wide> for T {
    type Given = T::Wide;
    #[inline(always)]
    fn stored(value: T::Wide) -> T {
        T::narrow(value)
    }
    fn fill(out: &mut [MaybeUninit<T>], map: impl FnOnce(&mut [MaybeUninit<T::Wide>])) {
        let mut wide = [MaybeUninit::uninit(); BLOCK];
        let wide = &mut wide[..out.len()];
        map(wide);
        // SAFETY: the map has filled them.
        let wide = unsafe { std::slice::from_raw_parts(wide.as_ptr().cast::<T::Wide>(), wide.len()) };
        T::narrow_all(wide, written(out));
    }
}

impl Stored<f32> for bool {
    type Given = bool;
    fn stored(value: bool) -> bool {
        value
    }
    fn fill(out: &mut [MaybeUninit<bool>], map: impl FnOnce(&mut [MaybeUninit<bool>])) {
        map(out);
    }
}

/// A map of blocks in the wider type.
pub(crate) struct Widened<'m, M: ?Sized>(pub(crate) &'m M);

/// The map of a type to the wider one.
pub(crate) struct Widen;

impl<T: Real> Unary<T, T::Wide> for Widen {
    fn run(&self, input: &[T], out: &mut [MaybeUninit<T::Wide>]) {
        T::widen_all(input, written(out));
    }
}

/// The map to a type from the wider one.
pub(crate) struct Narrow;

impl<T: Real> Unary<T::Wide, T> for Narrow {
    fn run(&self, input: &[T::Wide], out: &mut [MaybeUninit<T>]) {
        T::narrow_all(input, written(out));
    }
}

/// A block of plain numbers, which is only written.
fn written<T: Real>(out: &mut [MaybeUninit<T>]) -> &mut [T] {
    // SAFETY: any bits are a number, and a conversion writes without reading.
    unsafe { std::slice::from_raw_parts_mut(out.as_mut_ptr().cast::<T>(), out.len()) }
}

/// The elements of a block, widened into `wide`.
fn widened<'w, T: Real>(block: &[T], wide: &'w mut [MaybeUninit<T::Wide>; BLOCK]) -> &'w [T::Wide] {
    let wide = written(&mut wide[..block.len()]);
    T::widen_all(block, wide);
    wide
}

impl<T: Real, O: Stored<T::Wide>> Unary<T, O> for Widened<'_, dyn Unary<T::Wide, O::Given> + '_> {
    fn run(&self, input: &[T], out: &mut [MaybeUninit<O>]) {
        let mut wide = [MaybeUninit::uninit(); BLOCK];
        let input = widened(input, &mut wide);
        O::fill(out, |out| self.0.run(input, out));
    }
}

impl<T: Real, O: Stored<T::Wide>> Binary<T, T, O> for Widened<'_, dyn Binary<T::Wide, T::Wide, O::Given> + '_> {
    fn run(&self, a: &[T], b: &[T], out: &mut [MaybeUninit<O>]) {
        let mut wide = [[MaybeUninit::uninit(); BLOCK]; 2];
        let [wide_a, wide_b] = &mut wide;
        let (a, b) = (widened(a, wide_a), widened(b, wide_b));
        O::fill(out, |out| self.0.run(a, b, out));
    }
}

/// [`map_unary_ptr`](super::map_unary_ptr) by a function of the wider type.
///
/// # Safety
/// As there.
pub unsafe fn map_widened_ptr<T: Real, O: Stored<T::Wide>>(
    input: *const T,
    out: *mut O,
    len: usize,
    f: impl Function<T::Wide, O::Given>,
) {
    if len == 1 {
        // SAFETY: each is valid for one element.
        unsafe { out.write(O::stored(f.of((*input).widen()))) };
        return;
    }
    let map: &dyn Unary<T::Wide, O::Given> = &Each(f);
    // SAFETY: the caller's promise.
    unsafe { unary_blocks(input, out, len, &Widened(map)) };
}

/// [`broadcast_binary_ptr`](super::broadcast_binary_ptr) by a function of the wider type.
///
/// # Safety
/// As there.
pub unsafe fn broadcast_widened_ptr<T: Real, O: Stored<T::Wide>>(
    a: *const T,
    a_shape: &[usize],
    b: *const T,
    b_shape: &[usize],
    out: *mut O,
    out_shape: &[usize],
    f: impl Function2<T::Wide, T::Wide, O::Given>,
) {
    if is_scalar(a_shape, b_shape, out_shape) {
        // SAFETY: each is valid for its one element; both are read before the output is written.
        unsafe { out.write(O::stored(f.of((*a).widen(), (*b).widen()))) };
        return;
    }
    let map: &dyn Binary<T::Wide, T::Wide, O::Given> = &Each(f);
    // SAFETY: the caller's promise.
    unsafe { broadcast_blocks(a, a_shape, b, b_shape, out, out_shape, &Widened(map)) };
}
