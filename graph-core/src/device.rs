//! Device names.

use std::fmt;

use crate::error::{Error, Result};

/// What a device name says; what it leaves open may be said by a name around it.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct DeviceSpec {
    job: Option<String>,
    replica: Option<u32>,
    task: Option<u32>,
    kind: Option<String>,
    index: Option<u32>,
}

impl DeviceSpec {
    /// Reads a name in TensorFlow's notation: `/gpu:0`, `cpu:1`, `/job:ps/task:0`, `/device:GPU:*`. The empty string says
    /// nothing.
    ///
    /// # Errors
    /// `InvalidArgument` if it is not the name of a device.
    pub fn parse(device: &str) -> Result<Self> {
        let bad = || {
            Error::invalid_argument(format!("'{device}' is not the name of a device"))
                .expected("a name such as '/cpu:0', '/gpu:1' or '/device:GPU:0'")
        };
        let index = |text: &str| match text {
            "*" => Ok(None),
            _ => text.parse().map(Some).map_err(|_| bad()),
        };
        let mut spec = Self::default();
        for part in device.split('/').filter(|part| !part.is_empty()) {
            let fields: Vec<&str> = part.split(':').collect();
            match fields.as_slice() {
                ["job", name] if !name.is_empty() => spec.job = Some((*name).to_owned()),
                ["replica", at] => spec.replica = index(at)?,
                ["task", at] => spec.task = index(at)?,
                ["device", rest @ ..] | rest if spec.kind.is_none() => {
                    let is_kind = |kind: &str| !kind.is_empty() && (rest.len() < fields.len() || is_short(kind));
                    let (kind, at) = match rest {
                        [kind] if is_kind(kind) => (kind, None),
                        [kind, at] if is_kind(kind) => (kind, index(at)?),
                        _ => return Err(bad()),
                    };
                    (spec.kind, spec.index) = (Some(kind.to_ascii_uppercase()), at);
                }
                _ => return Err(bad()),
            }
        }
        if spec == Self::default() && !device.is_empty() {
            return Err(bad());
        }
        Ok(spec)
    }

    /// Whether it says nothing.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// The kind of the device, such as `CPU`, if it says one.
    pub fn kind(&self) -> Option<&str> {
        self.kind.as_deref()
    }

    /// The number of the device among those of its kind, if it says one.
    pub fn index(&self) -> Option<u32> {
        self.index
    }

    /// Whether a device of the name `full` is what this asks for: all that it says, `full` says too.
    pub fn fits(&self, full: &Self) -> bool {
        fn says<T: PartialEq>(asked: &Option<T>, full: &Option<T>) -> bool {
            asked.is_none() || asked == full
        }
        says(&self.job, &full.job)
            && says(&self.replica, &full.replica)
            && says(&self.task, &full.task)
            && says(&self.kind, &full.kind)
            && says(&self.index, &full.index)
    }

    /// Takes over what `inner` says, as a scope inside of another does.
    pub fn merge(&mut self, inner: &Self) {
        fn take<T: Clone>(outer: &mut Option<T>, inner: &Option<T>) {
            if inner.is_some() {
                outer.clone_from(inner);
            }
        }
        take(&mut self.job, &inner.job);
        take(&mut self.replica, &inner.replica);
        take(&mut self.task, &inner.task);
        take(&mut self.kind, &inner.kind);
        take(&mut self.index, &inner.index);
    }
}

/// Kinds that may stand without `device:` before them.
fn is_short(kind: &str) -> bool {
    matches!(kind.to_ascii_lowercase().as_str(), "cpu" | "gpu")
}

impl fmt::Display for DeviceSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(job) = &self.job {
            write!(f, "/job:{job}")?;
        }
        if let Some(replica) = self.replica {
            write!(f, "/replica:{replica}")?;
        }
        if let Some(task) = self.task {
            write!(f, "/task:{task}")?;
        }
        match (&self.kind, self.index) {
            (Some(kind), Some(index)) => write!(f, "/device:{kind}:{index}"),
            (Some(kind), None) => write!(f, "/device:{kind}:*"),
            (None, _) => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn full(device: &str) -> Result<String> {
        DeviceSpec::parse(device).map(|spec| spec.to_string())
    }

    #[test]
    fn device_names_have_a_full_form() {
        let forms = [
            ("/gpu:0", "/device:GPU:0"),
            ("cpu:1", "/device:CPU:1"),
            ("/cpu", "/device:CPU:*"),
            ("/device:tpu:*", "/device:TPU:*"),
            ("/device:GPU:2/task:1/job:ps", "/job:ps/task:1/device:GPU:2"),
            ("/job:ps/replica:0/task:*", "/job:ps/replica:0"),
            ("", ""),
        ];
        for (short, long) in forms {
            assert_eq!(full(short).unwrap(), long);
        }
        for bad in [
            "toaster",
            "toaster:0",
            "/gpu:x",
            "/job:",
            "/",
            "/gpu:0/gpu:1",
            "/device:",
        ] {
            assert_eq!(full(bad).unwrap_err().class(), "InvalidArgument", "{bad}");
        }
    }

    #[test]
    fn an_inner_name_says_what_it_says_and_leaves_the_rest() {
        let merged = |inner: &str| {
            let mut spec = DeviceSpec::parse("/job:ps/task:1/gpu:0").unwrap();
            spec.merge(&DeviceSpec::parse(inner).unwrap());
            spec.to_string()
        };
        assert_eq!(merged("/cpu:1"), "/job:ps/task:1/device:CPU:1");
        assert_eq!(merged("/device:CPU:*"), "/job:ps/task:1/device:CPU:0");
        assert_eq!(merged("/job:worker"), "/job:worker/task:1/device:GPU:0");
        assert_eq!(merged(""), "/job:ps/task:1/device:GPU:0");
    }
}
