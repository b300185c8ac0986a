//! One summary value as a row of numbers.

use graph_core::Value as Data;
use graph_core::format::graph_def::value_from_proto;
use graph_core::format::proto::summary::{Value, value::Value as Kind};
use graph_core::format::proto::{TensorProto, TensorShapeProto};
use serde::Serialize;

use crate::attr_text;
use crate::table::short;

/// A value of a tag at a step.
#[derive(Serialize)]
pub struct Point {
    pub step: i64,
    pub wall_time: f64,
    /// What the columns of its kind say.
    #[serde(flatten)]
    pub value: Shown,
}

/// What is shown of a value.
#[derive(Serialize)]
#[serde(untagged)]
pub enum Shown {
    Scalar {
        value: f64,
        /// As written: a float has fewer digits than the double that it is in JSON.
        #[serde(skip)]
        text: String,
    },
    Histogram {
        min: f64,
        max: f64,
        count: f64,
        mean: f64,
    },
    Image {
        width: i32,
        height: i32,
        bytes: usize,
    },
    Audio {
        sample_rate: f32,
        frames: i64,
        bytes: usize,
    },
    Other {
        value: String,
    },
}

/// The kind of a summary value; TensorFlow 2 writes scalars as tensors.
pub fn kind(value: &Value) -> &'static str {
    match &value.value {
        Some(Kind::SimpleValue(_)) => "scalar",
        Some(Kind::Histo(_)) => "histogram",
        Some(Kind::Image(_)) => "image",
        Some(Kind::Audio(_)) => "audio",
        Some(Kind::Tensor(tensor)) if tensor_scalar(value, tensor).is_some() => "scalar",
        Some(Kind::Tensor(_)) => "tensor",
        Some(Kind::ObsoleteOldStyleHistogram(_)) | None => "other",
    }
}

/// The headings of a kind's columns.
pub fn columns(kind: &str) -> &'static [&'static str] {
    match kind {
        "scalar" => &[">value"],
        "histogram" => &[">min", ">max", ">count", ">mean"],
        "image" => &[">width", ">height", ">bytes"],
        "audio" => &[">sample_rate", ">frames", ">bytes"],
        _ => &["value"],
    }
}

/// The number in a tensor that the scalar plugin is to show.
fn tensor_scalar(value: &Value, tensor: &TensorProto) -> Option<f64> {
    let plugin = value.metadata.as_ref()?.plugin_data.as_ref()?;
    let one = |shape: &TensorShapeProto| shape.dim.iter().all(|dim| dim.size == 1);
    if plugin.plugin_name != "scalars" || !tensor.tensor_shape.as_ref().is_none_or(one) {
        return None;
    }
    let data: Data = value_from_proto(tensor).ok()?;
    let float = data
        .as_slice::<f32>()
        .ok()
        .and_then(|x| x.first().map(|&x| f64::from(x)));
    float.or_else(|| data.as_slice::<f64>().ok()?.first().copied())
}

impl Point {
    /// What is shown of a value, in the columns of `kind`: those of the tag's first value.
    pub fn new(step: i64, wall_time: f64, kind: &str, value: &Value) -> Self {
        let shown = match (&value.value, kind) {
            (Some(Kind::SimpleValue(x)), "scalar") => Shown::Scalar {
                value: f64::from(*x),
                text: x.to_string(),
            },
            (Some(Kind::Tensor(tensor)), "scalar") => match tensor_scalar(value, tensor) {
                Some(x) => Shown::Scalar {
                    value: x,
                    text: match tensor.dtype {
                        1 => (x as f32).to_string(),
                        _ => x.to_string(),
                    },
                },
                None => Shown::Other {
                    value: attr_text::tensor(tensor),
                },
            },
            (Some(Kind::Histo(histogram)), "histogram") => Shown::Histogram {
                min: histogram.min,
                max: histogram.max,
                count: histogram.num,
                mean: histogram.sum / histogram.num,
            },
            (Some(Kind::Image(image)), "image") => Shown::Image {
                width: image.width,
                height: image.height,
                bytes: image.encoded_image_string.len(),
            },
            (Some(Kind::Audio(audio)), "audio") => Shown::Audio {
                sample_rate: audio.sample_rate,
                frames: audio.length_frames,
                bytes: audio.encoded_audio_string.len(),
            },
            (Some(Kind::Tensor(tensor)), _) => Shown::Other {
                value: attr_text::tensor(tensor),
            },
            _ => Shown::Other { value: String::new() },
        };
        Self {
            step,
            wall_time,
            value: shown,
        }
    }

    /// The value in a few words.
    pub fn summary(&self) -> String {
        match &self.value {
            Shown::Scalar { text, .. } => text.clone(),
            Shown::Histogram { min, max, count, mean } => {
                let [min, max, mean] = [min, max, mean].map(|number| short(Some(*number)));
                format!("{count} numbers, {min} to {max}, mean {mean}")
            }
            Shown::Image { width, height, .. } => format!("{width} x {height}"),
            Shown::Audio {
                sample_rate, frames, ..
            } => format!("{frames} frames at {sample_rate} Hz"),
            Shown::Other { value } => value.clone(),
        }
    }

    /// The texts of its columns.
    pub fn texts(&self) -> Vec<String> {
        match &self.value {
            Shown::Scalar { text, .. } => vec![text.clone()],
            Shown::Histogram { min, max, count, mean } => {
                [min, max, count, mean].map(|number| format!("{number}")).to_vec()
            }
            Shown::Image { width, height, bytes } => vec![width.to_string(), height.to_string(), bytes.to_string()],
            Shown::Audio {
                sample_rate,
                frames,
                bytes,
            } => vec![sample_rate.to_string(), frames.to_string(), bytes.to_string()],
            Shown::Other { value } => vec![value.clone()],
        }
    }
}
