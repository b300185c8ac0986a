//! What this machine could do at most, measured, and how much of it a kernel does.

use criterion::Criterion;
use rayon::prelude::*;
use std::hint::black_box;
use std::sync::OnceLock;
use std::time::{Duration, Instant};

/// What a kernel must do at least.
#[derive(Clone, Copy)]
pub struct Work {
    /// Multiplications and additions.
    pub operations: f64,
    /// Bytes of operands and results, each moved once.
    pub bytes: f64,
}

impl Work {
    /// So many operations, on so many elements of `float`, results among them.
    pub fn new(operations: usize, elements: usize) -> Self {
        Self {
            operations: operations as f64,
            bytes: (elements * size_of::<f32>()) as f64,
        }
    }
}

/// What the machine does a second, with all threads.
struct Machine {
    operations: f64,
    bytes: f64,
}

impl Machine {
    fn get() -> &'static Self {
        static MACHINE: OnceLock<Machine> = OnceLock::new();
        MACHINE.get_or_init(|| {
            let machine = Self {
                operations: operations_a_second(),
                bytes: bytes_a_second(),
            };
            println!(
                "roofline: {} threads, {:.1} GFLOP/s, {:.1} GB/s\n",
                rayon::current_num_threads(),
                machine.operations / 1e9,
                machine.bytes / 1e9
            );
            machine
        })
    }
}

/// The most of a few tries.
fn best(mut rate: impl FnMut() -> f64) -> f64 {
    (0..7).map(|_| rate()).fold(0.0, f64::max)
}

/// Independent sums, of as many lanes as the longest vectors have.
type Sums = [[f32; 16]; 12];

#[inline(always)]
fn multiply_and_add<const FUSED: bool>(steps: usize, sums: &mut Sums) {
    let (factor, term) = (black_box(0.999f32), black_box(0.001f32));
    for _ in 0..steps {
        for sum in sums.iter_mut() {
            for x in sum.iter_mut() {
                *x = if FUSED {
                    x.mul_add(factor, term)
                } else {
                    *x * factor + term
                };
            }
        }
    }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma,avx512f,avx512vl")]
fn multiply_avx512(steps: usize, sums: &mut Sums) {
    multiply_and_add::<true>(steps, sums);
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma")]
fn multiply_avx2(steps: usize, sums: &mut Sums) {
    multiply_and_add::<true>(steps, sums);
}

/// Multiplications and additions of numbers in registers.
fn operations_a_second() -> f64 {
    const STEPS: usize = 1_000_000;
    let run = || {
        let mut sums = black_box([[1.0; 16]; 12]);
        #[cfg(target_arch = "x86_64")]
        if is_x86_feature_detected!("avx512f")
            && is_x86_feature_detected!("avx512vl")
            && is_x86_feature_detected!("fma")
        {
            // SAFETY: the CPU has what the function was compiled for.
            unsafe { multiply_avx512(STEPS, &mut sums) };
            return black_box(sums);
        } else if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") {
            // SAFETY: as above.
            unsafe { multiply_avx2(STEPS, &mut sums) };
            return black_box(sums);
        }
        multiply_and_add::<false>(STEPS, &mut sums);
        black_box(sums)
    };
    let threads = rayon::current_num_threads();
    best(|| {
        let start = Instant::now();
        (0..threads).into_par_iter().for_each(|_| {
            run();
        });
        (threads * STEPS * 2 * 16 * 12) as f64 / start.elapsed().as_secs_f64()
    })
}

/// Bytes read and written by a copy beyond the caches.
fn bytes_a_second() -> f64 {
    const LEN: usize = 64 << 20;
    let (from, mut to) = (vec![1.0f32; LEN / 4], vec![0.0f32; LEN / 4]);
    best(|| {
        let start = Instant::now();
        let chunks = to.par_chunks_mut(1 << 18).zip(from.par_chunks(1 << 18));
        chunks.for_each(|(to, from)| to.copy_from_slice(from));
        black_box(&mut to);
        (2 * LEN) as f64 / start.elapsed().as_secs_f64()
    })
}

/// Measures a kernel as `group/name`, and prints how much of its roofline it reaches.
pub fn bench(c: &mut Criterion, group: &str, name: &str, work: Work, mut kernel: impl FnMut()) {
    let machine = Machine::get();
    let mut times: Vec<f64> = Vec::new();
    c.benchmark_group(group).bench_function(name, |bencher| {
        bencher.iter_custom(|count| {
            let start = Instant::now();
            (0..count).for_each(|_| kernel());
            let time: Duration = start.elapsed();
            times.push(time.as_secs_f64() / count as f64);
            time
        });
    });
    // None where a filter leaves it out.
    times.sort_by(f64::total_cmp);
    let Some(&time) = times.get(times.len() / 2) else {
        return;
    };
    let (computing, moving) = (work.operations / machine.operations, work.bytes / machine.bytes);
    let (bound, by) = if computing > moving {
        (computing, "operations")
    } else {
        (moving, "bytes")
    };
    println!(
        "roofline: {group}/{name}: {:.1} us, {:.1} GFLOP/s, {:.1} GB/s: {:.0} % of what its {by} allow\n",
        time * 1e6,
        work.operations / time / 1e9,
        work.bytes / time / 1e9,
        bound / time * 100.0
    );
}
