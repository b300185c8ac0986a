//! Sessions with a GPU: where operations and variables are, what is copied, what is recorded.
//!
//! The GPU is an emulated one, unless `GRAPH_DEVICE` names a card (`GRAPH_DEVICE=gpu:0`).

use std::sync::Arc;
use std::time::Duration;

use graph_core::accelerator::Accelerator;
use graph_core::graph::scope::{control_dependencies, device};
use graph_core::session::{Feedable, NodeStats, RunOptions, SessionOptions};
use graph_core::{Graph, Session, Value, Variable, feed};
use graph_cuda::{Cuda, DeviceOptions, emulator};
use graph_ops::gpu::DeviceChoice;
use graph_ops::{array, math, state};
use lenet::dataset::{CLASSES, PIXELS};
use lenet::global_definitions::OptimizerName;
use lenet::trainer::{Trainer, TrainerOptions};
use system_tests::{fixture, small, tutorial_trainer};

/// The card that `GRAPH_DEVICE` names, if it names one.
fn card() -> Option<u32> {
    match std::env::var("GRAPH_DEVICE").ok()?.parse() {
        Ok(DeviceChoice::Gpu(index)) => Some(index),
        _ => None,
    }
}

/// The card that is named, or an emulated GPU; a test without one says why and ends.
fn gpu_with(index: u32, options: &DeviceOptions) -> Option<Cuda> {
    let gpu = match card() {
        Some(card) => graph_cuda::open(card + index, options),
        None => emulator::device_with(index, 1 << 30, options),
    };
    gpu.inspect_err(|error| println!("skipped: {error}")).ok()
}

fn gpu(index: u32) -> Option<Cuda> {
    gpu_with(index, &DeviceOptions::default())
}

fn options(gpus: &[&Cuda]) -> SessionOptions {
    let accelerators: Vec<Arc<dyn Accelerator>> = gpus.iter().map(|gpu| gpu.accelerator()).collect();
    SessionOptions::new()
        .accelerators(accelerators)
        .allow_soft_placement(true)
}

#[test]
fn results_are_those_of_the_cpu_however_often_and_in_whatever_shapes() {
    let Some(gpu) = gpu(0) else { return };
    let graph = Graph::new();
    let _default = graph.as_default();
    let x = array::placeholder::<f32>([None, Some(3)]).build().unwrap();
    let w = Variable::new([[1.0f32, 2.0], [3.0, 4.0], [5.0, 6.0]]).build().unwrap();
    let y = math::add(math::matmul(&x, &w), [10.0f32, 20.0]).build().unwrap();
    let total = math::reduce_sum(&y).build().unwrap();
    let session = Session::with_options(&graph, options(&[&gpu])).unwrap();
    session.run(w.initializer(), ()).unwrap();
    // The third run with the same shape is the first that replays what was recorded.
    for round in 0..5 {
        for rows in [1usize, 2, 4] {
            let values: Vec<f32> = (0..rows * 3).map(|at| (at + round) as f32).collect();
            let fed = Value::from_vec([rows, 3], values.clone()).unwrap();
            let (got, sum): (Value, f32) = session.run((&y, &total), feed! { x => fed }).unwrap();
            let expected: Vec<f32> = values
                .chunks(3)
                .flat_map(|row| {
                    let dot = |a: f32, b: f32, c: f32, bias: f32| row[0] * a + row[1] * b + row[2] * c + bias;
                    [dot(1.0, 3.0, 5.0, 10.0), dot(2.0, 4.0, 6.0, 20.0)]
                })
                .collect();
            assert_eq!(got.as_slice::<f32>().unwrap(), expected);
            assert_eq!(sum, expected.iter().sum::<f32>());
        }
    }
}

#[test]
fn a_variable_is_where_what_works_on_it_is() {
    let Some(gpu) = gpu(0) else { return };
    let graph = Graph::new();
    let _default = graph.as_default();
    let v = Variable::new([1.0f32, 2.0]).name("v").build().unwrap();
    let add = state::assign_add(&v, [10.0f32, 20.0]).build().unwrap();
    let doubled = math::multiply(&v, 2.0f32).build().unwrap();
    let on_cpu = {
        let _cpu = device("/cpu:0").unwrap();
        math::multiply(&v, 3.0f32).build().unwrap()
    };
    let session = Session::with_options(&graph, options(&[&gpu])).unwrap();
    let error = session.run::<Value>(&doubled, ()).unwrap_err();
    assert_eq!(error.class(), "FailedPrecondition");
    assert!(error.to_string().contains("uninitialized value v"), "{error}");
    session.run(v.initializer(), ()).unwrap();
    let values = |tensor: &dyn Feedable| {
        session
            .run::<Value>(&tensor.fed_tensor(), ())
            .unwrap()
            .as_slice::<f32>()
            .unwrap()
            .to_vec()
    };
    for round in 1..5 {
        let expected = [1.0 + 10.0 * round as f32, 2.0 + 20.0 * round as f32];
        assert_eq!(values(&add), expected);
        assert_eq!(values(&doubled), expected.map(|x| 2.0 * x));
        assert_eq!(values(&on_cpu), expected.map(|x| 3.0 * x));
        assert_eq!(values(&v), expected);
    }
    let held = gpu.held_bytes();
    assert!(held > 0, "nothing is on the GPU");
    for _ in 0..100 {
        values(&add);
    }
    assert_eq!(gpu.held_bytes(), held, "memory grows");
    session.close();
    drop(session);
    assert_eq!(gpu.held_bytes(), 0, "memory is held beyond the session");
}

#[test]
fn a_read_before_an_update_is_a_snapshot_on_the_gpu_too() {
    let Some(gpu) = gpu(0) else { return };
    let graph = Graph::new();
    let _default = graph.as_default();
    let v = Variable::new(1.0f32).build().unwrap();
    let before = v.value().clone();
    let add = state::assign_add(&v, 1.0f32).build().unwrap();
    let (late, sum) = {
        let _after = control_dependencies([&add.op()]);
        let late = array::identity(v.reference()).build().unwrap();
        let sum = math::add(&before, &late).build().unwrap();
        (late, sum)
    };
    let session = Session::with_options(&graph, options(&[&gpu])).unwrap();
    session.run(v.initializer(), ()).unwrap();
    for round in 0..4 {
        let (late, sum): (f32, f32) = session.run((&late, &sum), ()).unwrap();
        let old = 1.0 + round as f32;
        assert_eq!((late, sum), (old + 1.0, 2.0 * old + 1.0));
    }
}

#[test]
fn operations_go_where_they_ask_and_tensors_are_copied_between() {
    let (Some(first), Some(second)) = (gpu(0), gpu(1)) else {
        return;
    };
    let graph = Graph::new();
    let _default = graph.as_default();
    let x = array::placeholder::<f32>([2]).build().unwrap();
    let on = |name: &str, operand: &graph_core::Tensor| {
        let _device = device(name).unwrap();
        math::add(operand, 1.0f32).build().unwrap()
    };
    let a = on("/gpu:1", &x);
    let b = on("/gpu:0", &a);
    let c = on("/cpu:0", &b);
    let d = on("/gpu:1", &c);
    let session = Session::with_options(&graph, options(&[&first, &second])).unwrap();
    for round in 0..4 {
        let fed = [round as f32, 2.0];
        let got: Vec<f32> = session
            .run::<Value>(&d, feed! { x => Value::from(fed) })
            .unwrap()
            .as_slice::<f32>()
            .unwrap()
            .to_vec();
        assert_eq!(got, fed.map(|x| x + 4.0));
    }
    assert!(first.held_bytes() > 0 && second.held_bytes() > 0);

    let strict = options(&[&first]).allow_soft_placement(false);
    let error = Session::with_options(&graph, strict).unwrap();
    let error = error
        .run::<Value>(&d, feed! { x => Value::from([1.0f32, 2.0]) })
        .unwrap_err();
    assert_eq!(error.class(), "InvalidArgument");
    assert!(error.to_string().contains("/device:GPU:0"), "{error}");
}

#[test]
fn too_little_memory_is_an_error_and_the_session_goes_on() {
    let limited = DeviceOptions {
        memory_limit: Some(1 << 20),
        ..DeviceOptions::default()
    };
    let Some(gpu) = gpu_with(0, &limited) else { return };
    let graph = Graph::new();
    let _default = graph.as_default();
    let x = array::placeholder::<f32>([None]).build().unwrap();
    let y = math::square(math::add(&x, 1.0f32)).build().unwrap();
    let session = Session::with_options(&graph, options(&[&gpu])).unwrap();
    let run = |count: usize| {
        session.run::<Value>(
            &y,
            feed! { x => Value::zeros(graph_core::DType::Float32, [count]).unwrap() },
        )
    };
    assert!(run(1000).is_ok());
    let error = run(1_000_000).unwrap_err();
    assert_eq!(error.class(), "ResourceExhausted", "{error}");
    assert!(error.to_string().contains("the limit is 1048576"), "{error}");
    assert_eq!(run(1000).unwrap().as_slice::<f32>().unwrap(), [1.0; 1000]);
}

/// A trainer of the small network in a session with these options, its variables initialized.
fn small_trainer(optimizer: OptimizerName, session: SessionOptions) -> Trainer {
    let options = TrainerOptions {
        logdir: None,
        accelerators: session.accelerators.clone(),
        ..TrainerOptions::default()
    };
    let mut trainer: Trainer = small::trainer(optimizer, options).unwrap();
    trainer.session = Session::with_options(trainer.network.graph(), session).unwrap();
    let init = trainer.network.graph().operation("init").unwrap();
    trainer.session.run(&init, ()).unwrap();
    trainer
}

/// Objective and cost of `steps` steps of the small network.
fn trained(optimizer: OptimizerName, steps: usize, session: SessionOptions) -> Vec<(f32, f32)> {
    let mut trainer = small_trainer(optimizer, session);
    (0..steps).map(|_| trainer.bp_step(10).unwrap()).collect()
}

#[test]
fn training_follows_the_cpu_and_recording_changes_no_bit() {
    let Some(gpu) = gpu(0) else { return };
    for optimizer in [OptimizerName::Sgd, OptimizerName::Adam, OptimizerName::RmsProp] {
        let on_cpu = trained(optimizer, 12, options(&[]));
        let recorded = trained(optimizer, 12, options(&[&gpu]));
        let eager = trained(optimizer, 12, options(&[&gpu]).record_steps(false));
        assert_eq!(recorded, eager);
        for (step, (gpu, cpu)) in recorded.iter().zip(&on_cpu).enumerate() {
            let apart = |x: f32, y: f32| ((x - y) / y).abs();
            let difference = apart(gpu.0, cpu.0).max(apart(gpu.1, cpu.1));
            assert!(difference < 1e-4, "step {step}: {gpu:?} and {cpu:?}");
        }
    }
}

/// The operations of a traced step of the small network.
fn traced_step(trainer: &Trainer) -> Vec<NodeStats> {
    let training = trainer.network.training().unwrap();
    let train = &trainer.dataset.train;
    let feeds = feed! {
        trainer.network.images => Value::from_vec([10, PIXELS], train.images(0..10).unwrap()).unwrap(),
        training.labels => Value::from_vec([10, CLASSES], train.labels(0..10).unwrap()).unwrap(),
        trainer.network.dropout_prob => 0.5f32,
    };
    let traced = RunOptions {
        trace: true,
        ..RunOptions::default()
    };
    let ((), metadata) = trainer.session.run_with(&training.back_prop, feeds, &traced).unwrap();
    metadata.nodes
}

#[test]
fn a_training_step_is_one_launch_and_waits_for_nothing_it_does_not_fetch() {
    let Some(gpu) = gpu(0) else { return };
    let trainer = small_trainer(OptimizerName::Adam, options(&[&gpu]));
    let training = trainer.network.training().unwrap();
    let train = &trainer.dataset.train;
    let images = Value::from_vec([10, PIXELS], train.images(0..10).unwrap()).unwrap();
    let labels = Value::from_vec([10, CLASSES], train.labels(0..10).unwrap()).unwrap();
    let step = || {
        let feeds = feed! {
            trainer.network.images => images.clone(),
            training.labels => labels.clone(),
            trainer.network.dropout_prob => 0.5f32,
        };
        trainer.session.run(&training.back_prop, feeds).unwrap();
    };
    // One by one, then recorded.
    step();
    step();
    let before = gpu.work();
    step();
    let after = gpu.work();
    assert_eq!(after.recorded - before.recorded, 1);
    assert_eq!(after.kernels, before.kernels, "kernels run one by one");
    assert_eq!(
        after.uploads - before.uploads,
        4,
        "three feeds, and what the host tells the random streams"
    );
    assert_eq!(
        (after.downloads, after.waits),
        (before.downloads, before.waits),
        "the host waits"
    );
}

/// Objective and cost of the tutorial's first steps with sgd, in a session with these options.
fn tutorial(steps: usize, session: SessionOptions) -> Vec<(f32, f32)> {
    let mut trainer = tutorial_trainer(OptimizerName::Sgd, None).unwrap();
    trainer.session = Session::with_options(trainer.network.graph(), session).unwrap();
    let init = trainer.network.graph().operation("init").unwrap();
    trainer.session.run(&init, ()).unwrap();
    let train = &trainer.dataset.train;
    let step = |step: usize| {
        let rows = step * 500..(step + 1) * 500;
        let images = Value::from_vec([500, PIXELS], train.images(rows.clone()).unwrap()).unwrap();
        let labels = Value::from_vec([500, CLASSES], train.labels(rows).unwrap()).unwrap();
        trainer.bp_step_on(images, labels).unwrap()
    };
    (0..steps).map(step).collect()
}

#[test]
fn the_tutorial_follows_tensorflow_on_a_card() {
    const STEPS: usize = 100;
    if card().is_none() {
        return println!("skipped: GRAPH_DEVICE names no card");
    }
    let gpu = gpu(0).unwrap();
    let reference = fixture::trajectory("sgd");
    let losses = tutorial(STEPS, options(&[&gpu]));
    let mut worst = 0f64;
    for (step, (got, expected)) in losses.iter().zip(&reference.steps).enumerate() {
        let apart = |got: f32, expected: f64| ((f64::from(got) - expected) / expected).abs();
        let difference = apart(got.0, expected.0).max(apart(got.1, expected.1));
        assert!(difference < 1e-4, "step {step}: {got:?}, expected {expected:?}");
        worst = worst.max(difference);
    }
    println!("on the GPU, sgd is at most {worst:.1e} from TensorFlow over {STEPS} steps (asked for: 1e-4)");
    assert_eq!(tutorial(STEPS, options(&[&gpu])), losses, "two runs differ");
    assert_eq!(
        tutorial(STEPS, options(&[&gpu]).record_steps(false)),
        losses,
        "recording changes the result"
    );
    println!("on the GPU, two runs and one without recording are the same bits");
}

#[test]
fn a_profile_of_training_has_the_bytes_of_each_kernel() {
    let Some(gpu) = gpu(0) else { return };
    for optimizer in [OptimizerName::Sgd, OptimizerName::Adam] {
        let trainer = small_trainer(optimizer, options(&[&gpu]));
        let nodes = traced_step(&trainer);
        let (mut moved, mut multiplied) = (0, 0);
        for node in nodes.iter().filter(|node| !node.kernels.is_empty()) {
            let bytes: u64 = node.kernels.iter().map(|kernel| kernel.bytes).sum();
            let least: u64 = node
                .outputs
                .iter()
                .map(|(dtype, shape)| (dtype.size().unwrap_or(0) * shape.num_elements()) as u64)
                .sum();
            assert!(bytes >= least, "{} writes {least} bytes: {:?}", node.name, node.kernels);
            for kernel in &node.kernels {
                assert!(kernel.bytes > 0, "{} = {}: {kernel:?}", node.name, node.op);
                // No kernel of this network reads anything often: what it moves is in proportion to what it is given.
                assert!(
                    kernel.bytes <= 4 * (node.bytes() + (1 << 16)),
                    "{} = {}: {kernel:?}",
                    node.name,
                    node.op
                );
                moved += 1;
                multiplied += usize::from(kernel.flops > 0);
            }
            if [
                "MatMul",
                "_FusedMatMul",
                "Conv2D",
                "_FusedConv2D",
                "Conv2DBackpropFilter",
            ]
            .contains(&node.op)
            {
                assert!(node.kernels.iter().any(|kernel| kernel.flops > 0), "{node:?}");
            }
        }
        assert!(
            moved > 20 && multiplied > 5,
            "{moved} kernels, {multiplied} with arithmetic"
        );
        let lines = graph_ops::gpu::profile_lines(&[nodes], None);
        assert!(lines.len() > 10, "{lines:#?}");
    }
}

#[test]
fn a_traced_run_tells_the_kernels_of_each_operation_and_their_times() {
    let Some(gpu) = gpu(0) else { return };
    let graph = Graph::new();
    let _default = graph.as_default();
    let x = array::placeholder::<f32>([Some(64), Some(3)])
        .name("x")
        .build()
        .unwrap();
    let w = Variable::new([[1.0f32, 2.0], [3.0, 4.0], [5.0, 6.0]])
        .name("w")
        .build()
        .unwrap();
    let product = math::matmul(&x, &w).name("product").build().unwrap();
    let total = math::reduce_sum(&product).name("total").build().unwrap();
    let session = Session::with_options(&graph, options(&[&gpu])).unwrap();
    session.run(w.initializer(), ()).unwrap();
    let traced = RunOptions {
        trace: true,
        ..RunOptions::default()
    };
    let fed = || feed! { x => Value::from_vec([64, 3], vec![1.0f32; 192]).unwrap() };
    // Recorded steps run one by one while they are traced.
    for _ in 0..3 {
        assert_eq!(session.run::<f32>(&total, fed()).unwrap(), 64.0 * 21.0);
        let (sum, metadata): (f32, _) = session.run_with(&total, fed(), &traced).unwrap();
        assert_eq!(sum, 64.0 * 21.0);
        let node = |name: &str| {
            let mut nodes = metadata.nodes.iter();
            nodes
                .find(|node| node.name == name)
                .unwrap_or_else(|| panic!("{name} did not run"))
        };
        let product = node("product");
        assert_eq!(product.device, "/device:GPU:0");
        let [kernel] = &product.kernels[..] else {
            panic!("{product:?}")
        };
        assert_eq!(kernel.name, "product 64x3x2 float");
        assert_eq!((kernel.bytes, kernel.flops), (4 * (192 + 6 + 128), 2 * 64 * 3 * 2));
        assert!(kernel.time > Duration::ZERO);
        assert_eq!(product.bytes(), kernel.bytes);
        let total = node("total");
        assert!(!total.kernels.is_empty());
        for kernel in &total.kernels {
            assert!(kernel.name.contains(".cu/"), "{kernel:?}");
            assert!(
                kernel.blocks[0] > 0 && kernel.threads[0] > 0 && kernel.time > Duration::ZERO,
                "{kernel:?}"
            );
        }
        let devices: Vec<String> = metadata
            .to_proto()
            .step_stats
            .unwrap()
            .dev_stats
            .into_iter()
            .map(|device| device.device)
            .collect();
        for device in ["/device:GPU:0", "/device:GPU:0/stream:all"] {
            let whole = format!("/job:localhost/replica:0/task:0{device}");
            assert!(devices.contains(&whole), "{devices:?}");
        }
    }
}
