//! `trace.json`: what was fed, fetched and run, in order.

use std::fs;
use std::path::{Component, Path};

use graph_core::{DType, Error, Result};
use serde::{Deserialize, Serialize};

/// The name of the file in a recorded folder.
pub(crate) const TRACE_FILE: &str = "trace.json";
/// The name of the graph's file in a recorded folder.
pub(crate) const GRAPH_FILE: &str = "graph.pb";

/// A recorded session: its runs in order.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Trace {
    /// What was recorded, in words.
    #[serde(default, deserialize_with = "null_as_default")]
    pub source: String,
    /// The op types of the graph.
    #[serde(default, deserialize_with = "null_as_default")]
    pub ops: Vec<String>,
    /// The runs.
    pub runs: Vec<RecordedRun>,
}

/// One run.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RecordedRun {
    /// The names of the tensors that were fed, `x:0`.
    #[serde(default, deserialize_with = "null_as_default")]
    pub feeds: Vec<String>,
    /// The names of the tensors that were fetched.
    #[serde(default, deserialize_with = "null_as_default")]
    pub fetches: Vec<String>,
    /// The names of the operations that were run.
    #[serde(default, deserialize_with = "null_as_default")]
    pub targets: Vec<String>,
    /// The file of the fed values; none if nothing was fed.
    #[serde(default)]
    pub feeds_file: Option<String>,
    /// The file of the fetched values; none if nothing was fetched, or if the run failed.
    #[serde(default)]
    pub fetches_file: Option<String>,
    /// The dtypes of the feeds, by TensorFlow's names.
    #[serde(default)]
    pub feed_dtypes: Option<Vec<String>>,
    /// The dtypes of the fetches.
    #[serde(default)]
    pub fetch_dtypes: Option<Vec<String>>,
    /// The class of the error that the run must end in, such as `InvalidArgumentError`.
    #[serde(default)]
    pub error: Option<String>,
}

/// A list that is `null` is empty.
fn null_as_default<'de, T: Default + Deserialize<'de>, D: serde::Deserializer<'de>>(json: D) -> Result<T, D::Error> {
    Option::<T>::deserialize(json).map(Option::unwrap_or_default)
}

impl Trace {
    /// Reads the trace of a recorded folder.
    ///
    /// # Errors
    /// Whatever the operating system refuses, and `DataLoss` for a file that is no trace.
    pub fn read(folder: impl AsRef<Path>) -> Result<Self> {
        let path = folder.as_ref().join(TRACE_FILE);
        let bytes = fs::read(&path).map_err(|error| Error::io(&path, error))?;
        Self::parse(&bytes).map_err(|error| error.context(format!("reading {}", path.display())))
    }

    /// The trace in this JSON.
    ///
    /// # Errors
    /// `DataLoss` for what is no trace, or one whose lists do not fit together.
    pub fn parse(json: &[u8]) -> Result<Self> {
        let trace: Self =
            serde_json::from_slice(json).map_err(|error| Error::data_loss(format!("this is no trace: {error}")))?;
        for (index, run) in trace.runs.iter().enumerate() {
            run.check()
                .map_err(|error| error.context(format!("reading run {index}")))?;
        }
        Ok(trace)
    }
}

impl RecordedRun {
    fn check(&self) -> Result<()> {
        let lists = [
            ("feed_dtypes", &self.feed_dtypes, &self.feeds),
            ("fetch_dtypes", &self.fetch_dtypes, &self.fetches),
        ];
        for (name, dtypes, tensors) in lists {
            let Some(dtypes) = dtypes else { continue };
            if dtypes.len() != tensors.len() {
                return Err(
                    Error::data_loss(format!("'{name}' is of another length than its tensors"))
                        .expected(tensors.len())
                        .got(dtypes.len()),
                );
            }
            if let Some(unknown) = dtypes.iter().find(|name| DType::from_name(name).is_none()) {
                return Err(Error::data_loss(format!("'{name}' has an unknown dtype")).got(unknown));
            }
        }
        for file in [&self.feeds_file, &self.fetches_file].into_iter().flatten() {
            // Recorded folders come from anyone: they must not name files elsewhere.
            let mut parts = Path::new(file).components();
            if !matches!((parts.next(), parts.next()), (Some(Component::Normal(_)), None)) {
                return Err(Error::data_loss("the file of a run must lie in the folder itself").got(file));
            }
        }
        if !self.feeds.is_empty() && self.feeds_file.is_none() {
            return Err(Error::data_loss("there are feeds, but no file of their values"));
        }
        Ok(())
    }

    /// The dtype of feed `index`, where the trace tells it.
    pub(crate) fn feed_dtype(&self, index: usize) -> Option<DType> {
        DType::from_name(self.feed_dtypes.as_ref()?.get(index)?)
    }

    /// The dtype of fetch `index`, where the trace tells it.
    pub(crate) fn fetch_dtype(&self, index: usize) -> Option<DType> {
        DType::from_name(self.fetch_dtypes.as_ref()?.get(index)?)
    }
}

/// TensorFlow's name of an error's class: `InvalidArgumentError`.
pub fn class_name(error: &Error) -> String {
    format!("{}Error", error.class())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_trace_leaves_out_is_empty() {
        let trace =
            Trace::parse(br#"{"runs": [{"fetches": ["y:0"], "targets": null, "other": {"deep": [1]}}], "x": 1}"#);
        let run = RecordedRun {
            fetches: vec!["y:0".to_owned()],
            ..RecordedRun::default()
        };
        assert_eq!(trace.unwrap().runs, [run]);
    }

    #[test]
    fn broken_traces_are_errors() {
        for json in [
            "",
            "[]",
            "{}",
            r#"{"runs": 1}"#,
            r#"{"runs": [{"feeds": ["x:0"]}]}"#,
            r#"{"runs": [{"fetches": ["x:0"], "fetch_dtypes": []}]}"#,
            r#"{"runs": [{"fetches": ["x:0"], "fetch_dtypes": ["float33"]}]}"#,
            r#"{"runs": [{"fetches_file": "../0.npz"}]}"#,
            r#"{"runs": [{"fetches_file": "/etc/0.npz"}]}"#,
            r#"{"runs": [{"fetches_file": "a/0.npz"}]}"#,
            r#"{"runs": [{"fetches_file": ""}]}"#,
        ] {
            assert_eq!(Trace::parse(json.as_bytes()).unwrap_err().class(), "DataLoss", "{json}");
        }
        let deep = format!(r#"{{"runs": [], "x": {}}}"#, "[".repeat(100_000));
        assert_eq!(Trace::parse(deep.as_bytes()).unwrap_err().class(), "DataLoss");
    }
}
