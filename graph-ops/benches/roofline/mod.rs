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

/// Sums that do not wait for each other: enough to keep two units at work, of four cycles each.
const SUMS: usize = 12;

/// A function that multiplies and adds vectors in registers, and nothing else, so many times for each of [`SUMS`].
macro_rules! multiply_and_add {
    ($name:ident, $features:literal, $set1:ident, $fma:ident) => {
        #[cfg(target_arch = "x86_64")]
        #[target_feature(enable = $features)]
        fn $name(steps: usize) {
            use std::arch::x86_64::{$fma, $set1};
            let (factor, term) = ($set1(black_box(0.999)), $set1(black_box(0.001)));
            let mut sums = [$set1(1.0); SUMS];
            for _ in 0..steps {
                for sum in &mut sums {
                    *sum = $fma(*sum, factor, term);
                }
            }
            black_box(sums);
        }
    };
}
multiply_and_add!(multiply_avx512, "avx512f", _mm512_set1_ps, _mm512_fmadd_ps);
multiply_and_add!(multiply_avx2, "avx2,fma", _mm256_set1_ps, _mm256_fmadd_ps);

/// The same for any CPU.
fn multiply(steps: usize) {
    let (factor, term) = (black_box(0.999f32), black_box(0.001f32));
    let mut sums = [[1.0f32; 4]; SUMS];
    for _ in 0..steps {
        for x in sums.as_flattened_mut() {
            *x = *x * factor + term;
        }
    }
    black_box(sums);
}

/// Multiplications and additions of numbers in registers.
fn operations_a_second() -> f64 {
    const STEPS: usize = 1_000_000;
    let (lanes, run): (usize, fn(usize)) = 'kind: {
        #[cfg(target_arch = "x86_64")]
        {
            if is_x86_feature_detected!("avx512f") {
                // SAFETY: the CPU has what the function was compiled for, here and below.
                break 'kind (16, |steps| unsafe { multiply_avx512(steps) });
            }
            if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") {
                // SAFETY: as above.
                break 'kind (8, |steps| unsafe { multiply_avx2(steps) });
            }
        }
        (4, multiply)
    };
    let threads = rayon::current_num_threads();
    best(|| {
        let start = Instant::now();
        rayon::broadcast(|_| run(STEPS));
        (threads * STEPS * SUMS * 2 * lanes) as f64 / start.elapsed().as_secs_f64()
    })
}

/// Bytes read and written by a copy of as much as the larger kernels here move.
fn bytes_a_second() -> f64 {
    const LEN: usize = 24 << 20;
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
