//! `graph devices`: what the machine has to compute on.

use std::io::Write;
use std::process::ExitCode;

use clap::Args;
use graph_ops::gpu;
use serde::Serialize;

use crate::failure::Result;
use crate::json;
use crate::table::Table;

/// Lists the devices of this machine: the CPU, and the GPUs that CUDA_VISIBLE_DEVICES leaves
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  graph devices\n  CUDA_VISIBLE_DEVICES=1 graph devices --json")]
pub struct Options {
    /// Write JSON
    #[arg(long)]
    json: bool,
}

/// A device as it is printed.
#[derive(Serialize)]
struct Device {
    name: String,
    description: String,
    /// Of a GPU, as 9.0.
    #[serde(skip_serializing_if = "Option::is_none")]
    compute_capability: Option<String>,
    /// In bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    memory: Option<usize>,
    /// Threads of a CPU, multiprocessors of a GPU.
    parallelism: usize,
}

#[derive(Serialize)]
struct Devices {
    devices: Vec<Device>,
    /// Why there is no GPU, if there is none.
    #[serde(skip_serializing_if = "Option::is_none")]
    no_gpu: Option<String>,
}

/// Prints the devices.
pub fn run(options: &Options, out: &mut dyn Write) -> Result<ExitCode> {
    let (gpus, no_gpu) = match gpu::devices() {
        Ok(gpus) => (gpus, None),
        Err(error) => (Vec::new(), Some(error.to_string())),
    };
    let cpu = Device {
        name: "/device:CPU:0".to_owned(),
        description: "the host's processor".to_owned(),
        compute_capability: None,
        memory: None,
        parallelism: std::thread::available_parallelism().map_or(1, usize::from),
    };
    let gpus = gpus.into_iter().map(|gpu| Device {
        name: format!("/device:GPU:{}", gpu.index),
        description: gpu.name,
        compute_capability: Some(format!("{}.{}", gpu.capability.major, gpu.capability.minor)),
        memory: Some(gpu.memory),
        parallelism: gpu.multiprocessors as usize,
    });
    let devices = Devices {
        devices: std::iter::once(cpu).chain(gpus).collect(),
        no_gpu,
    };
    if options.json {
        json::write(out, &devices)?;
        return Ok(ExitCode::SUCCESS);
    }
    let mut table = Table::new(&["name", "description", "compute capability", ">memory", ">parallelism"]);
    for device in &devices.devices {
        let memory = device
            .memory
            .map(|bytes| format!("{:.1} GiB", bytes as f64 / f64::from(1 << 30)));
        table.row([
            device.name.clone(),
            device.description.clone(),
            device.compute_capability.clone().unwrap_or_default(),
            memory.unwrap_or_default(),
            device.parallelism.to_string(),
        ]);
    }
    table.write(out, 0)?;
    if let Some(why) = &devices.no_gpu {
        writeln!(out, "\nno GPU: {why}")?;
    }
    Ok(ExitCode::SUCCESS)
}
