//! Device names.

use crate::error::{Error, Result};

/// The full form of a device name: `/gpu:0` and `gpu:0` become `/device:GPU:0`; full TensorFlow names stay as they are.
///
/// # Errors
/// `InvalidArgument` if it is not the name of a device.
pub fn canonical_name(device: &str) -> Result<String> {
    let bad = || {
        Error::invalid_argument(format!("'{device}' is not the name of a device"))
            .expected("a name such as '/cpu:0', '/gpu:1' or '/device:GPU:0'")
    };
    let mut parts: Vec<String> = Vec::new();
    for part in device.split('/').filter(|part| !part.is_empty()) {
        let fields: Vec<&str> = part.split(':').collect();
        let is_index = |text: &str| text == "*" || text.parse::<u32>().is_ok();
        parts.push(match fields.as_slice() {
            ["job", name] if !name.is_empty() => format!("/job:{name}"),
            [key @ ("replica" | "task"), index] if is_index(index) => format!("/{key}:{index}"),
            ["device", kind, index] if is_index(index) => format!("/device:{}:{index}", kind.to_ascii_uppercase()),
            [kind, index] if is_index(index) && matches!(kind.to_ascii_lowercase().as_str(), "cpu" | "gpu") => {
                format!("/device:{}:{index}", kind.to_ascii_uppercase())
            }
            _ => return Err(bad()),
        });
    }
    if parts.is_empty() && !device.is_empty() {
        return Err(bad());
    }
    Ok(parts.concat())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn device_names_have_a_full_form() {
        assert_eq!(canonical_name("/gpu:0").unwrap(), "/device:GPU:0");
        assert_eq!(canonical_name("cpu:1").unwrap(), "/device:CPU:1");
        assert_eq!(
            canonical_name("/job:ps/task:1/device:GPU:2").unwrap(),
            "/job:ps/task:1/device:GPU:2"
        );
        assert_eq!(canonical_name("").unwrap(), "");
        assert!(canonical_name("toaster").is_err());
        assert!(canonical_name("/gpu:x").is_err());
    }
}
