//! What the tests of this module share: numbers, pools of threads, comparison.

use super::philox::{Key, Philox};

/// `len` numbers in -1..1, the same for the same seed.
pub fn numbers(seed: u64, len: usize) -> Vec<f64> {
    let mut philox = Philox::new(Key::from_seeds(seed, 77));
    let mut out = Vec::with_capacity(len + 3);
    while out.len() < len {
        out.extend(philox.next_block().map(|x| f64::from(x) / f64::from(1u32 << 31) - 1.0));
    }
    out.truncate(len);
    out
}

/// The same as `float`.
pub fn numbers_f32(seed: u64, len: usize) -> Vec<f32> {
    numbers(seed, len).into_iter().map(|x| x as f32).collect()
}

/// Widened.
pub fn wide(x: &[f32]) -> Vec<f64> {
    x.iter().map(|&x| f64::from(x)).collect()
}

/// Runs `f` on pools of 1, 2 and 3 threads, checks that all results are equal, and returns one.
pub fn same_on_any_pool<R: PartialEq + std::fmt::Debug + Send>(f: impl Fn() -> R + Sync) -> R {
    let run = |threads| {
        rayon::ThreadPoolBuilder::new()
            .num_threads(threads)
            .build()
            .unwrap()
            .install(&f)
    };
    let one = run(1);
    for threads in [2, 3] {
        assert!(
            run(threads) == one,
            "the result depends on the number of threads ({threads})"
        );
    }
    one
}

/// Checks `got` against `expected` within `tolerance`, relative to the larger of 1 and the expected magnitude.
#[track_caller]
pub fn assert_close(got: &[f32], expected: &[f64], tolerance: f64) {
    assert_eq!(got.len(), expected.len());
    for (i, (&g, &e)) in got.iter().zip(expected).enumerate() {
        let error = (f64::from(g) - e).abs() / e.abs().max(1.0);
        assert!(error <= tolerance, "element {i}: got {g}, expected {e}");
    }
}
