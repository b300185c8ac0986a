use super::{ManyRegisters, Masked, Portable, Vector, VectorTask, has_avx2_fma, has_avx512, has_wide_avx512};

/// Types that there are vectors of.
pub trait Vectored: num_traits::Float {
    #[cfg(target_arch = "x86_64")]
    type Avx2: Masked<Scalar = Self>;
    #[cfg(target_arch = "x86_64")]
    type Avx512: Vector<Scalar = Self>;
    type Baseline: Vector<Scalar = Self>;
}

impl Vectored for f32 {
    #[cfg(target_arch = "x86_64")]
    type Avx2 = std::arch::x86_64::__m256;
    #[cfg(target_arch = "x86_64")]
    type Avx512 = std::arch::x86_64::__m512;
    type Baseline = Portable<f32, 4>;
}

impl Vectored for f64 {
    #[cfg(target_arch = "x86_64")]
    type Avx2 = std::arch::x86_64::__m256d;
    #[cfg(target_arch = "x86_64")]
    type Avx512 = std::arch::x86_64::__m512d;
    type Baseline = Portable<f64, 2>;
}

/// Numbers of lanes and of registers of the vectors that [`dispatch`] will use.
pub fn vectors<T: Vectored>() -> (usize, usize) {
    fn of<V: Vector>() -> (usize, usize) {
        (V::LANES, V::REGISTERS)
    }
    #[cfg(target_arch = "x86_64")]
    {
        if has_wide_avx512() {
            return of::<T::Avx512>();
        }
        if has_avx512() {
            return of::<ManyRegisters<T::Avx2>>();
        }
        if has_avx2_fma() {
            return of::<T::Avx2>();
        }
    }
    of::<T::Baseline>()
}

/// Runs a task with the vectors that suit this CPU best. The task's `run` must be `#[inline(always)]`.
pub fn dispatch<T: Vectored>(task: impl VectorTask<T>) {
    dispatch_for(usize::MAX, task);
}

/// [`dispatch`] to vectors with at most so many lanes: one lane, where all have more.
pub fn dispatch_for<T: Vectored>(lanes: usize, task: impl VectorTask<T>) {
    #[cfg(target_arch = "x86_64")]
    {
        /// # Safety
        /// The CPU has AVX2, FMA and AVX-512's F and VL.
        #[target_feature(enable = "avx2,fma,avx512f,avx512vl")]
        unsafe fn wide<T: Vectored>(task: impl VectorTask<T>) {
            // SAFETY: the CPU has what `T::Avx512` uses.
            unsafe { task.run::<T::Avx512>() }
        }
        /// # Safety
        /// The CPU has AVX2, FMA and AVX-512's F and VL.
        #[target_feature(enable = "avx2,fma,avx512f,avx512vl")]
        unsafe fn avx512<T: Vectored>(task: impl VectorTask<T>) {
            // SAFETY: the CPU has what `T::Avx2` uses, and the registers.
            unsafe { task.run::<ManyRegisters<T::Avx2>>() }
        }
        /// # Safety
        /// The CPU has AVX2 and FMA.
        #[target_feature(enable = "avx2,fma")]
        unsafe fn avx2<T: Vectored>(task: impl VectorTask<T>) {
            // SAFETY: the CPU has what `T::Avx2` uses.
            unsafe { task.run::<T::Avx2>() }
        }
        if has_wide_avx512() && T::Avx512::LANES <= lanes {
            // SAFETY: just checked.
            return unsafe { wide(task) };
        }
        if has_avx512() && T::Avx2::LANES <= lanes {
            // SAFETY: just checked.
            return unsafe { avx512(task) };
        }
        if has_avx2_fma() && T::Avx2::LANES <= lanes {
            // SAFETY: just checked.
            return unsafe { avx2(task) };
        }
    }
    if T::Baseline::LANES <= lanes {
        // SAFETY: the baseline's vectors are plain arrays.
        return unsafe { task.run::<T::Baseline>() };
    }
    // SAFETY: as above.
    unsafe { task.run::<Portable<T, 1>>() }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct InverseRoots<'a, T>(&'a [T], &'a mut [T]);

    impl<T: Vectored> VectorTask<T> for InverseRoots<'_, T> {
        #[inline(always)]
        unsafe fn run<V: Vector<Scalar = T>>(self) {
            assert!(self.0.len().is_multiple_of(V::LANES) && self.0.len() == self.1.len());
            for start in (0..self.0.len()).step_by(V::LANES) {
                // SAFETY: the CPU has the instructions (the caller's promise), and the lanes lie in both slices.
                unsafe {
                    let x = V::load(self.0.as_ptr().add(start));
                    x.inverse_root().store(self.1.as_mut_ptr().add(start));
                }
            }
        }
    }

    #[test]
    fn inverse_roots_are_within_two_units_in_the_last_place_in_all_vectors() {
        let spread = |i: i32| 1.7f64.powi(i / 16 - 138) * (1.0 + f64::from(i % 16) / 16.0);
        let wide: Vec<f64> = (0..16 * 276).map(spread).collect();
        let mut x: Vec<f32> = wide.iter().map(|&x| x as f32).collect();
        x.extend(
            [
                0.0,
                f32::INFINITY,
                f32::MAX,
                f32::MIN_POSITIVE,
                1e-42,
                -1.0,
                f32::NAN,
                2.0,
            ]
            .repeat(2),
        );
        for lanes in [16, 8, 4, 1] {
            let (mut roots, mut wide_roots) = (vec![f32::NAN; x.len()], vec![f64::NAN; wide.len()]);
            dispatch_for(lanes, InverseRoots(&x, &mut roots));
            dispatch_for(lanes, InverseRoots(&wide, &mut wide_roots));
            for (&x, root) in x.iter().zip(roots) {
                let expected = (1.0 / f64::from(x).sqrt()) as f32;
                let close = root.to_bits().abs_diff(expected.to_bits()) <= 2;
                assert!(
                    close || root.is_nan() && expected.is_nan(),
                    "{x}: {root}, not {expected}"
                );
            }
            for (&x, root) in wide.iter().zip(wide_roots) {
                assert!((root * x.sqrt() - 1.0).abs() < 1e-15, "{x}: {root}");
            }
        }
    }
}
