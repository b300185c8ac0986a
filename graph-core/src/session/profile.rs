//! What a traced run measured.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

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
    /// When it started, from the beginning of the run.
    pub start: Duration,
    /// When it ended.
    pub end: Duration,
    /// The dtypes and shapes of its outputs.
    pub outputs: Vec<(DType, Shape)>,
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
    /// As TensorFlow's message, which TensorBoard's graph tab reads.
    pub fn to_proto(&self) -> proto::RunMetadata {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let begin = now.as_micros() as i64;
        let node_stats = self.nodes.iter().map(|node| {
            let bytes = |(dtype, shape): &(DType, Shape)| (dtype.size().unwrap_or(0) * shape.num_elements()) as i64;
            let length = (node.end - node.start).as_micros().max(1) as i64;
            proto::NodeExecStats {
                node_name: node.name.clone(),
                all_start_micros: begin + node.start.as_micros() as i64,
                op_start_rel_micros: 0,
                op_end_rel_micros: length,
                all_end_rel_micros: length,
                timeline_label: format!("{} = {}()", node.name, node.op),
                memory: vec![proto::AllocatorMemoryUsed {
                    allocator_name: "cpu".into(),
                    total_bytes: node.outputs.iter().map(bytes).sum(),
                    ..Default::default()
                }],
                output: node
                    .outputs
                    .iter()
                    .enumerate()
                    .map(|(slot, (dtype, shape))| proto::NodeOutput {
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
                    })
                    .collect(),
                ..Default::default()
            }
        });
        proto::RunMetadata {
            step_stats: Some(proto::StepStats {
                dev_stats: vec![proto::DeviceStepStats {
                    device: "/job:localhost/replica:0/task:0/device:CPU:0".into(),
                    node_stats: node_stats.collect(),
                    ..Default::default()
                }],
            }),
            ..Default::default()
        }
    }
}
