//! What a traced run measured.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

pub use crate::accelerator::KernelStats;
use crate::dtype::DType;
use crate::format::proto;
use crate::shape::Shape;

/// What one operation did in a traced run.
#[derive(Clone, Debug)]
pub struct NodeStats {
    /// The operation's name.
    pub name: String,
    /// Its op.
    pub op: &'static str,
    /// Where it ran: `/device:CPU:0`, `/device:GPU:0`.
    pub device: String,
    /// When it started, from the beginning of the run.
    pub start: Duration,
    /// When it ended.
    pub end: Duration,
    /// The dtypes and shapes of its inputs.
    pub inputs: Vec<(DType, Shape)>,
    /// The dtypes and shapes of its outputs.
    pub outputs: Vec<(DType, Shape)>,
    /// Of what ran on an accelerator: the work that it was given, in its order.
    pub kernels: Vec<KernelStats>,
}

impl NodeStats {
    /// How long it took: by an accelerator's own clock where it gave work to one, else by the host's.
    pub fn time(&self) -> Duration {
        match self.kernels.is_empty() {
            true => self.end.saturating_sub(self.start),
            false => self.kernels.iter().map(|kernel| kernel.time).sum(),
        }
    }

    /// Bytes of its operands and results.
    pub fn bytes(&self) -> u64 {
        self.inputs.iter().chain(&self.outputs).map(bytes_of).sum()
    }
}

/// Bytes of a tensor; none of strings and handles.
fn bytes_of((dtype, shape): &(DType, Shape)) -> u64 {
    (dtype.size().unwrap_or(0) * shape.num_elements()) as u64
}

/// What a traced run measured, operation by operation in the order in which they ran.
#[derive(Clone, Debug, Default)]
pub struct RunMetadata {
    /// The operations.
    pub nodes: Vec<NodeStats>,
    /// Whether the run first had to make its plan: these fetches with feeds of these shapes were not run lately.
    pub planned: bool,
    /// How many bytes the plan's intermediate results share, those apart whose shapes only the run tells.
    pub arena_bytes: usize,
}

impl RunMetadata {
    /// As TensorFlow's message, which TensorBoard's graph tab reads: the operations of each device and, of accelerators, what
    /// their stream did.
    pub fn to_proto(&self) -> proto::RunMetadata {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let begin = now.as_micros() as i64;
        let mut devices: Vec<proto::DeviceStepStats> = Vec::new();
        let mut put = |device: String, stats: proto::NodeExecStats| {
            let at = devices
                .iter()
                .position(|known| known.device == device)
                .unwrap_or_else(|| {
                    devices.push(proto::DeviceStepStats {
                        device,
                        ..Default::default()
                    });
                    devices.len() - 1
                });
            devices[at].node_stats.push(stats);
        };
        for node in &self.nodes {
            let device = format!("{HERE}{}", node.device);
            let mut start = begin + node.start.as_micros() as i64;
            put(device.clone(), stats_of(node, start));
            for kernel in &node.kernels {
                let length = (kernel.time.as_micros() as i64).max(1);
                let stats = proto::NodeExecStats {
                    node_name: format!("{}:{}", node.name, node.op),
                    all_start_micros: start,
                    op_end_rel_micros: length,
                    all_end_rel_micros: length,
                    timeline_label: kernel_label(kernel),
                    ..Default::default()
                };
                put(format!("{device}/stream:all"), stats);
                start += length;
            }
        }
        proto::RunMetadata {
            step_stats: Some(proto::StepStats { dev_stats: devices }),
            ..Default::default()
        }
    }
}

/// What device names of this process begin with.
const HERE: &str = "/job:localhost/replica:0/task:0";

/// A kernel and its grid, in one line.
fn kernel_label(kernel: &KernelStats) -> String {
    match kernel.blocks {
        [0, ..] => kernel.name.clone(),
        blocks => format!("{} grid:{blocks:?} block:{:?}", kernel.name, kernel.threads),
    }
}

fn stats_of(node: &NodeStats, start: i64) -> proto::NodeExecStats {
    let length = (node.end.saturating_sub(node.start).as_micros() as i64).max(1);
    let allocator = if node.device.contains("GPU") { "gpu" } else { "cpu" };
    let output = |(slot, (dtype, shape)): (usize, &(DType, Shape))| proto::NodeOutput {
        slot: slot as i32,
        tensor_description: Some(proto::TensorDescription {
            dtype: *dtype as i32,
            shape: Some(proto::TensorShapeProto {
                dim: shape
                    .iter()
                    .map(|&size| proto::tensor_shape_proto::Dim {
                        size: size as i64,
                        ..Default::default()
                    })
                    .collect(),
                unknown_rank: false,
            }),
            allocation_description: None,
        }),
    };
    proto::NodeExecStats {
        node_name: node.name.clone(),
        all_start_micros: start,
        op_start_rel_micros: 0,
        op_end_rel_micros: length,
        all_end_rel_micros: length,
        timeline_label: format!("{} = {}()", node.name, node.op),
        memory: vec![proto::AllocatorMemoryUsed {
            allocator_name: allocator.into(),
            total_bytes: node.outputs.iter().map(bytes_of).sum::<u64>() as i64,
            ..Default::default()
        }],
        output: node.outputs.iter().enumerate().map(output).collect(),
        ..Default::default()
    }
}
