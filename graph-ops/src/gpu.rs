//! The machine's GPUs, the choice among them and the CPU that programs offer, and tables of what they did.

mod profile;

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use graph_core::accelerator::Accelerator;
use graph_core::device::DeviceSpec;
use graph_core::{Error, Result};
use graph_cuda::Cuda;
pub use graph_cuda::{Capability, ConvolutionKernels, DeviceInfo, DeviceOptions, Rates, devices};
pub use profile::{profile_lines, rates};

/// What a session computes on that is told nothing: what the environment variable `GRAPH_DEVICE` says in the words of
/// [`DeviceChoice`], or else the machine's GPUs. Where these cannot be used, standard error is told, unless there is no driver at
/// all.
///
/// # Errors
/// What keeps the device from being used that `GRAPH_DEVICE` names.
pub(crate) fn all() -> Result<Vec<Arc<dyn Accelerator>>> {
    let options = DeviceOptions::default();
    let told = std::env::var("GRAPH_DEVICE").ok().filter(|told| !told.is_empty());
    let choice = told.as_deref().map_or(Ok(DeviceChoice::Auto), str::parse);
    let asked = |error: Error| error.context("using the device that GRAPH_DEVICE names");
    match choice.map_err(asked)? {
        DeviceChoice::Auto => Ok(match graph_cuda::open_all(&options) {
            Ok(devices) => devices.iter().map(Cuda::accelerator).collect(),
            Err(error) => {
                if error.class() != "Unavailable" {
                    eprintln!("computing on the CPU: {error}");
                }
                Vec::new()
            }
        }),
        choice => choice.open(&options).map(|chosen| chosen.accelerators).map_err(asked),
    }
}

/// Where a program computes: `auto`, `cpu` or `gpu:N`.
///
/// ```
/// use graph_ops::gpu::DeviceChoice;
///
/// assert_eq!("gpu:1".parse::<DeviceChoice>()?, DeviceChoice::Gpu(1));
/// assert!("toaster".parse::<DeviceChoice>().is_err());
/// # Ok::<(), graph_core::Error>(())
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum DeviceChoice {
    /// The first GPU, or the CPU where none can be used.
    #[default]
    Auto,
    /// The CPU.
    Cpu,
    /// The GPU of this index among those that are visible.
    Gpu(u32),
    /// A GPU made of the host's processor, for tests.
    #[cfg(feature = "emulator")]
    Emulated,
}

/// What was chosen.
pub struct ChosenDevices {
    /// For [`SessionOptions::accelerators`](graph_core::SessionOptions): empty for the CPU.
    pub accelerators: Vec<Arc<dyn Accelerator>>,
    /// One line for people: the device, or why it is the CPU.
    pub note: String,
}

impl DeviceChoice {
    /// Opens what is chosen.
    ///
    /// # Errors
    /// For a GPU by its index: `Unavailable` or `FailedPrecondition` if none can be used, `InvalidArgument` if there is none
    /// of this index.
    pub fn open(self, options: &DeviceOptions) -> Result<ChosenDevices> {
        let gpu = match self {
            Self::Cpu => Err("as asked".to_owned()),
            Self::Gpu(index) => Ok(graph_cuda::open(index, options)?),
            #[cfg(feature = "emulator")]
            Self::Emulated => Ok(graph_cuda::emulator::device()?),
            Self::Auto => graph_cuda::open(0, options).map_err(|error| error.report().message.clone()),
        };
        Ok(match gpu {
            Ok(gpu) => {
                let accelerator = gpu.accelerator();
                ChosenDevices {
                    note: format!("computing on {accelerator:?}"),
                    accelerators: vec![accelerator],
                }
            }
            Err(why) => ChosenDevices {
                accelerators: Vec::new(),
                note: format!("computing on the CPU: {why}"),
            },
        })
    }
}

impl FromStr for DeviceChoice {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let wrong = || {
            Error::invalid_argument(format!("'{text}' is no device to compute on"))
                .expected("auto, cpu, or gpu:0 and so on")
        };
        if text.eq_ignore_ascii_case("auto") {
            return Ok(Self::Auto);
        }
        #[cfg(feature = "emulator")]
        if text == "emulated" {
            return Ok(Self::Emulated);
        }
        let spec = DeviceSpec::parse(text).map_err(|_| wrong())?;
        match (spec.kind(), spec.index()) {
            (Some("CPU"), None | Some(0)) => Ok(Self::Cpu),
            (Some("GPU"), index) => Ok(Self::Gpu(index.unwrap_or(0))),
            _ => Err(wrong()),
        }
    }
}

impl fmt::Display for DeviceChoice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Auto => f.write_str("auto"),
            Self::Cpu => f.write_str("cpu"),
            Self::Gpu(index) => write!(f, "gpu:{index}"),
            #[cfg(feature = "emulator")]
            Self::Emulated => f.write_str("emulated"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn choices_are_read_as_they_are_written() {
        for choice in [
            DeviceChoice::Auto,
            DeviceChoice::Cpu,
            DeviceChoice::Gpu(0),
            DeviceChoice::Gpu(7),
        ] {
            assert_eq!(choice.to_string().parse::<DeviceChoice>().unwrap(), choice);
        }
        for (text, choice) in [
            ("AUTO", DeviceChoice::Auto),
            ("gpu", DeviceChoice::Gpu(0)),
            ("/device:GPU:2", DeviceChoice::Gpu(2)),
        ] {
            assert_eq!(text.parse::<DeviceChoice>().unwrap(), choice);
        }
        for wrong in ["", "toaster", "cpu:1", "gpu:x", "tpu:0", "/job:ps"] {
            assert_eq!(
                wrong.parse::<DeviceChoice>().unwrap_err().class(),
                "InvalidArgument",
                "{wrong}"
            );
        }
    }

    #[test]
    fn the_cpu_can_always_be_chosen() {
        let chosen = DeviceChoice::Cpu.open(&DeviceOptions::default()).unwrap();
        assert!(chosen.accelerators.is_empty() && chosen.note.contains("CPU"));
    }

    #[test]
    fn without_a_gpu_auto_is_the_cpu_and_says_why() {
        let chosen = DeviceChoice::Auto.open(&DeviceOptions::default()).unwrap();
        if devices().is_ok() {
            return println!("skipped: there is a GPU");
        }
        assert!(chosen.accelerators.is_empty());
        assert!(
            chosen.note.starts_with("computing on the CPU: ") && chosen.note.len() > 30,
            "{}",
            chosen.note
        );
        assert!(DeviceChoice::Gpu(0).open(&DeviceOptions::default()).is_err());
    }
}
