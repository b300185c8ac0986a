//! The numeric cases on a GPU, a card or an emulated one, and the sources that they use in NVIDIA's compiler.

use std::collections::BTreeSet;
use std::panic::AssertUnwindSafe;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, OnceLock};

use graph_core::graph::Node;
use graph_core::op::OpDefinition;
use graph_core::op::kernel::DeviceKind;
use graph_core::session::evaluate::evaluate_node_on;
use graph_cuda::cache::Cache;
use graph_cuda::driver::Compiler;
use graph_cuda::nvrtc::Nvrtc;
use graph_cuda::{Capability, Cuda, DeviceOptions};

use super::{Case, all_cases, devices, gpu, gpu_with, runs_alone};

/// What came of the cases.
#[derive(Default)]
struct Outcome {
    failed: usize,
    /// Ops and the numbers, among each op's kernels, of those that ran.
    exercised: BTreeSet<(&'static str, usize)>,
    /// What they ran on.
    device: String,
    cases: usize,
    /// The texts that were compiled.
    texts: BTreeSet<String>,
}

/// The number of the CUDA kernel, among the op's kernels, that serves a node.
fn cuda_kernel(node: &Node) -> Option<usize> {
    let mut kernels = node.definition.kernels.iter();
    kernels.position(|kernel| kernel.device == DeviceKind::Cuda && kernel.serves(&node.attrs))
}

/// Takes the numbers below `count` in turn, in as many threads as there are processors.
fn in_parallel<T>(count: usize, begin: impl Fn() -> T + Sync, work: impl Fn(&T, usize) + Sync, end: impl Fn(T) + Sync) {
    let next = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for _ in 0..std::thread::available_parallelism().map_or(1, usize::from) {
            scope.spawn(|| {
                let own = begin();
                while let Some(number) = Some(next.fetch_add(1, Ordering::Relaxed)).filter(|&number| number < count) {
                    work(&own, number);
                }
                end(own);
            });
        }
    });
}

/// Runs every case that a CUDA kernel serves, once for all tests.
fn outcome() -> Result<&'static Outcome, &'static str> {
    static OUTCOME: OnceLock<Result<Outcome, String>> = OnceLock::new();
    OUTCOME.get_or_init(run).as_ref().map_err(String::as_str)
}

fn run() -> Result<Outcome, String> {
    let device = format!("{:?}", gpu().map_err(|error| error.to_string())?.accelerator());
    let cases = all_cases();
    let outcome: Mutex<Outcome> = Mutex::default();
    let check = |device: &Cuda, case: &Case| {
        let node = case.node().unwrap_or_else(|error| panic!("{}: {error}", case.op));
        let Some(kernel) = cuda_kernel(&node) else { return };
        {
            let mut outcome = outcome.lock().unwrap();
            outcome.exercised.insert((node.definition.name, kernel));
            outcome.cases += 1;
        }
        let gpu = device.accelerator();
        gpu.begin_trace().unwrap();
        let outputs = evaluate_node_on(&node, &case.inputs, &gpu);
        let kernels = gpu.end_trace().unwrap();
        let nothing = case.inputs.iter().all(|input| input.num_elements() == 0);
        let silent = kernels.iter().find(|kernel| kernel.bytes == 0 && !nothing);
        assert!(silent.is_none(), "{} does not say what {silent:?} moves", case.op);
        case.compare(outputs);
    };
    in_parallel(
        cases.len(),
        // A device of its own, so that one does not wait while another compiles.
        || gpu().unwrap(),
        |device, number| {
            if std::panic::catch_unwind(AssertUnwindSafe(|| check(device, &cases[number]))).is_err() {
                outcome.lock().unwrap().failed += 1;
            }
        },
        |device| outcome.lock().unwrap().texts.extend(device.texts()),
    );
    let mut outcome = outcome.into_inner().unwrap();
    outcome.device = device;
    outcome.texts.extend(texts_of_nodes()?);
    Ok(outcome)
}

/// The texts of kernels of which there are no cases, in `float` and in TensorFloat-32.
fn texts_of_nodes() -> Result<Vec<String>, String> {
    let mut texts = Vec::new();
    for tf32 in [false, true] {
        let options = DeviceOptions {
            tf32,
            ..DeviceOptions::default()
        };
        let device = gpu_with(&options).map_err(|error| error.to_string())?;
        for (node, inputs) in devices::nodes() {
            let outputs = evaluate_node_on(&node, &inputs, &device.accelerator());
            outputs.map_err(|error| format!("{}: {error}", node.op()))?;
        }
        texts.extend(device.texts());
    }
    Ok(texts)
}

#[test]
fn every_case_holds_on_a_gpu() {
    let outcome = match outcome() {
        Ok(outcome) => outcome,
        Err(reason) => return println!("skipped: {reason}"),
    };
    let kernels = outcome.exercised.len();
    println!(
        "{} cases on {}, of {kernels} kernels: {} do not hold",
        outcome.cases, outcome.device, outcome.failed
    );
    assert_eq!(outcome.failed, 0, "cases do not hold; each is told above");
    let unexercised = |op: &&OpDefinition| {
        runs_alone(op)
            && op.kernels.iter().enumerate().any(|(number, kernel)| {
                kernel.device == DeviceKind::Cuda && !outcome.exercised.contains(&(op.name, number))
            })
    };
    let unexercised = crate::install().ops().into_iter().filter(unexercised);
    let unexercised: Vec<&str> = unexercised.map(|op| op.name).collect();
    assert!(
        unexercised.is_empty(),
        "no case runs a CUDA kernel of {}",
        unexercised.join(", ")
    );
}

#[test]
fn every_kernel_compiles_for_every_generation_of_gpus() {
    const GENERATIONS: [(u32, u32); 5] = [(7, 5), (8, 0), (9, 0), (10, 0), (12, 0)];
    let compilers = GENERATIONS.map(|(major, minor)| Nvrtc::new(Capability { major, minor }));
    let [Ok(a), Ok(b), Ok(c), Ok(d), Ok(e)] = compilers else {
        for error in compilers.into_iter().filter_map(Result::err).take(1) {
            println!("skipped: {error}");
        }
        return;
    };
    let outcome = match outcome() {
        Ok(outcome) => outcome,
        Err(reason) => return println!("skipped: {reason}"),
    };
    // What steps and updates of variables ask for is in no table.
    let mut texts = super::texts_of(|| {
        devices::run_steps();
        crate::state::run_updates_on_a_gpu();
    });
    texts.extend(outcome.texts.iter().cloned());
    let (compilers, texts) = ([a, b, c, d, e], texts.iter().collect::<Vec<_>>());
    let failed: Mutex<Vec<String>> = Mutex::default();
    in_parallel(
        texts.len() * compilers.len(),
        Cache::of_user,
        |cache, number| {
            let (text, compiler) = (texts[number / compilers.len()], &compilers[number % compilers.len()]);
            let identity = compiler.identity();
            if cache.get(&identity, text).is_some() {
                return;
            }
            match compiler.compile("a kernel of the cases", text) {
                Ok(code) => cache.put(&identity, text, &code),
                Err(error) => failed.lock().unwrap().push(error.to_string()),
            }
        },
        |_| {},
    );
    println!("compiled {} texts for {} generations", texts.len(), compilers.len());
    let failed = failed.into_inner().unwrap();
    assert!(failed.is_empty(), "{}", failed.join("\n"));
}
