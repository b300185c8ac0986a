//! What traced runs measured, as a table for people: operations, and the kernels of those that ran on a GPU.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use graph_core::Result;
use graph_core::accelerator::{Accelerator, KernelStats};
use graph_core::session::NodeStats;
use graph_cuda::{Cuda, Rates};

/// What the device of a session can do at most, measured; `None` of one that is no GPU.
///
/// # Errors
/// `ResourceExhausted` if there is no memory to measure it with, and the device's.
pub fn rates(accelerator: &Arc<dyn Accelerator>) -> Result<Option<Rates>> {
    let Some(cuda) = Cuda::behind(accelerator) else {
        return Ok(None);
    };
    // An emulated device, which has no compute capability, takes its time.
    let (bytes, side) = match cuda.info().capability.major {
        0 => (1 << 16, 16),
        _ => (256 << 20, 4096),
    };
    Rates::measure(&cuda, bytes, side).map(Some)
}

/// One operation over several runs.
struct Row<'a> {
    node: &'a NodeStats,
    times: Vec<Duration>,
    /// Of each of its kernels, in their order.
    kernels: Vec<Vec<Duration>>,
}

/// The lines of a table of traced runs of the same plan: each operation that takes a thousandth of the time or more, with the
/// median of its times, and beneath it what it gave a GPU. Bytes are those that its kernels have to read and to write, on the host
/// those of the operation's operands and results. With `rates`, a line says what share of what the device can do that was: of
/// its memory or of its arithmetic, whichever is nearer to its limit.
///
/// ```
/// use graph_core::session::{RunOptions, Session};
/// use graph_ops::{array, gpu, math};
///
/// let doubled = math::multiply(array::constant(2.0f32), 21.0f32).build()?;
/// let options = RunOptions { trace: true, ..RunOptions::default() };
/// let (_, traced): (f32, _) = Session::new(&doubled.graph())?.run_with(&doubled, (), &options)?;
/// let lines = gpu::profile_lines(&[traced.nodes], None);
/// assert!(lines[0].contains("time, us"));
/// # Ok::<(), graph_core::Error>(())
/// ```
pub fn profile_lines(runs: &[Vec<NodeStats>], rates: Option<&Rates>) -> Vec<String> {
    let mut rows: BTreeMap<&str, Row<'_>> = BTreeMap::new();
    for node in runs.iter().flatten() {
        let row = rows.entry(&node.name).or_insert_with(|| Row {
            node,
            times: Vec::new(),
            kernels: vec![Vec::new(); node.kernels.len()],
        });
        row.times.push(node.time());
        for (times, kernel) in row.kernels.iter_mut().zip(&node.kernels) {
            times.push(kernel.time);
        }
    }
    let mut rows: Vec<(Duration, Row<'_>)> = rows.into_values().map(|row| (median(row.times.clone()), row)).collect();
    rows.sort_by_key(|&(time, _)| std::cmp::Reverse(time));
    let total: Duration = rows.iter().map(|&(time, _)| time).sum();
    let mut lines = vec![format!(
        "{:>10} {:>9} {:>10} {:>10}  operation, and its kernels",
        "time, us", "of limit", "MB", "GFLOP"
    )];
    for (time, row) in rows.iter().filter(|(time, _)| *time * 1000 >= total) {
        let node = row.node;
        let declared = |amount: fn(&KernelStats) -> u64| node.kernels.iter().map(amount).sum::<u64>();
        let bytes = match declared(|kernel| kernel.bytes) {
            0 => node.bytes(),
            bytes => bytes,
        };
        let whole = KernelStats {
            name: format!("{} = {} on {}", node.name, node.op, node.device),
            blocks: [0; 3],
            threads: [0; 3],
            time: *time,
            bytes,
            flops: declared(|kernel| kernel.flops),
        };
        lines.push(line(&whole, rates.filter(|_| !node.kernels.is_empty()), ""));
        for (kernel, times) in node.kernels.iter().zip(&row.kernels) {
            let kernel = KernelStats {
                time: median(times.clone()),
                ..kernel.clone()
            };
            lines.push(line(&kernel, rates, "  "));
        }
    }
    lines.push(format!("{:>10.1} {:>9} {:>10} {:>10}  all", micros(total), "", "", ""));
    if let Some(rates) = rates {
        lines.push(format!(
            "the device copies {:.1} GB/s (read and written), and multiplies large matrices of float at {:.2} TFLOP/s",
            rates.bytes / 1e9,
            rates.flops / 1e12
        ));
    }
    lines
}

fn line(stats: &KernelStats, rates: Option<&Rates>, indent: &str) -> String {
    let share = rates.and_then(|rates| rates.share(stats));
    let share = share.map_or(String::new(), |share| format!("{:.0} %", share * 100.0));
    let amount = |amount: u64, unit: f64| match amount {
        0 => String::new(),
        amount => format!("{:.3}", amount as f64 / unit),
    };
    let grid = match stats.blocks {
        [0, ..] => String::new(),
        blocks => format!(", {} blocks of {} threads", axes(blocks), axes(stats.threads)),
    };
    format!(
        "{:>10.1} {share:>9} {:>10} {:>10}  {indent}{}{grid}",
        micros(stats.time),
        amount(stats.bytes, 1e6),
        amount(stats.flops, 1e9),
        stats.name
    )
}

/// Sizes along axes, up to the last that is not 1.
fn axes(sizes: [u32; 3]) -> String {
    let count = sizes.iter().rposition(|&size| size != 1).map_or(1, |last| last + 1);
    let sizes: Vec<String> = sizes[..count].iter().map(u32::to_string).collect();
    sizes.join("x")
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort();
    times.get(times.len() / 2).copied().unwrap_or_default()
}

fn micros(time: Duration) -> f64 {
    time.as_secs_f64() * 1e6
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_has_each_operation_its_kernels_and_their_share_of_the_limit() {
        let kernel = |name: &str, micros, bytes, flops| KernelStats {
            name: name.to_owned(),
            blocks: [12, 3, 1],
            threads: [256, 1, 1],
            time: Duration::from_micros(micros),
            bytes,
            flops,
        };
        let run = |scale: u64| {
            let node = |name: &str, op, device: &str, kernels| NodeStats {
                name: name.to_owned(),
                op,
                device: device.to_owned(),
                start: Duration::ZERO,
                end: Duration::from_micros(500),
                inputs: vec![(graph_core::DType::Float32, [1000usize].into())],
                outputs: vec![(graph_core::DType::Float32, [1000usize].into())],
                kernels,
            };
            vec![
                node("parse", "DecodePng", "/device:CPU:0", Vec::new()),
                node(
                    "conv",
                    "Conv2D",
                    "/device:GPU:0",
                    vec![
                        kernel("a.cu/first", 100 * scale, 1_000_000, 0),
                        kernel("second", 300 * scale, 0, 3_000_000),
                    ],
                ),
                node("silent", "Add", "/device:GPU:0", vec![kernel("b.cu/add", 8, 0, 0)]),
            ]
        };
        let rates = Rates {
            bytes: 2e10,
            flops: 2e10,
        };
        let lines = profile_lines(&[run(1), run(2), run(3)], Some(&rates));
        let words: Vec<String> = lines
            .iter()
            .map(|line| line.split_whitespace().collect::<Vec<_>>().join(" "))
            .collect();
        assert_eq!(
            words[1..],
            [
                "800.0 19 % 1.000 0.003 conv = Conv2D on /device:GPU:0",
                "200.0 25 % 1.000 a.cu/first, 12x3 blocks of 256 threads",
                "600.0 25 % 0.003 second, 12x3 blocks of 256 threads",
                "500.0 0.008 parse = DecodePng on /device:CPU:0",
                "8.0 5 % 0.008 silent = Add on /device:GPU:0",
                "8.0 b.cu/add, 12x3 blocks of 256 threads",
                "1308.0 all",
                "the device copies 20.0 GB/s (read and written), and multiplies large matrices of float at 0.02 TFLOP/s",
            ]
        );
    }
}
