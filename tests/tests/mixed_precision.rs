//! Training in mixed precision: it learns what training in `float` learns, variables and checkpoints are the same kind, and the
//! graph of a run without it is untouched.

use graph_core::format::checkpoint::BundleReader;
use graph_core::session::{Accelerators, RewriteOptions};
use graph_core::{DType, Session, Value};
use graph_cuda::emulator;
use graph_ops::train::MixedPrecision;
use lenet::checkpoints::CheckpointOptions;
use lenet::dataset::Placeholders;
use lenet::global_definitions::{Definitions, OptimizerName};
use lenet::network::Lenet5;
use lenet::trainer::{Trainer, TrainerOptions};
use system_tests::small;

fn network(definitions: Definitions) -> Lenet5 {
    let graph = graph_core::Graph::new();
    graph.set_random_seed(1);
    let _default = graph.as_default();
    let inputs = Placeholders::new().unwrap();
    let mut network = Lenet5::with_definitions(&inputs.images, definitions).unwrap();
    network.cook(&inputs.labels).unwrap();
    network
}

/// A trainer of the small network on the host.
fn trainer(optimizer: OptimizerName, precision: Option<MixedPrecision>, options: TrainerOptions) -> Trainer {
    let definitions = Definitions {
        mixed_precision: precision,
        dropout_probability: 1.0,
        ..small::definitions(optimizer)
    };
    let options = TrainerOptions {
        logdir: None,
        ..options
    };
    Trainer::with_options(network(definitions), small::images().unwrap(), options).unwrap()
}

fn on_host() -> TrainerOptions {
    TrainerOptions {
        accelerators: Accelerators::Only(Vec::new()),
        ..TrainerOptions::default()
    }
}

fn losses(trainer: &mut Trainer, steps: usize) -> Vec<(f32, f32)> {
    (0..steps).map(|_| trainer.bp_step(10).unwrap()).collect()
}

#[test]
fn the_first_steps_are_those_of_float_within_rounding() {
    for optimizer in OptimizerName::ALL {
        let float = losses(&mut trainer(optimizer, None, on_host()), 4);
        for precision in MixedPrecision::ALL {
            let rounding = match precision {
                MixedPrecision::Half => 2e-3,
                MixedPrecision::BFloat16 => 2e-2,
            };
            let mixed = losses(&mut trainer(optimizer, Some(precision), on_host()), 4);
            assert_ne!(mixed, float, "{optimizer} in {precision} is float");
            for (step, (mixed, float)) in mixed.iter().zip(&float).enumerate() {
                let apart = ((mixed.1 - float.1) / float.1).abs();
                assert!(
                    apart < rounding,
                    "{optimizer} in {precision}, step {step}: {mixed:?} and {float:?}"
                );
            }
        }
    }
}

#[test]
fn without_the_rewrite_a_loss_scale_changes_nothing_but_rounding() {
    for optimizer in OptimizerName::ALL {
        let float = losses(&mut trainer(optimizer, None, on_host()), 6);
        let options = TrainerOptions {
            rewrites: RewriteOptions::all().without(MixedPrecision::Half.rewrite()),
            ..on_host()
        };
        let scaled = losses(&mut trainer(optimizer, Some(MixedPrecision::Half), options), 6);
        for (scaled, float) in scaled.iter().zip(&float) {
            // The chains that are fused round elsewhere.
            assert!(
                (scaled.0 - float.0).abs() <= 2e-5 * float.0.abs(),
                "{optimizer}: {scaled:?} and {float:?}"
            );
        }
    }
}

#[test]
fn it_learns_what_float_learns_on_the_host_and_on_a_gpu() {
    let gpu = emulator::device()
        .inspect_err(|error| println!("skipped: {error}"))
        .ok();
    let places = [Some(Vec::new()), gpu.map(|gpu| vec![gpu.accelerator()])];
    for accelerators in places.into_iter().flatten() {
        for precision in [None, Some(MixedPrecision::Half), Some(MixedPrecision::BFloat16)] {
            let options = TrainerOptions {
                accelerators: Accelerators::Only(accelerators.clone()),
                ..TrainerOptions::default()
            };
            let mut trainer = trainer(OptimizerName::Adam, precision, options);
            let losses = losses(&mut trainer, 60);
            let (first, last) = (losses[0].1, losses[59].1);
            println!("{precision:?} on {} GPUs: cost {first} to {last}", accelerators.len());
            assert!(last < 0.5 * first, "{precision:?}: cost {first} to {last}");
        }
    }
}

#[test]
fn variables_stay_float_and_a_run_goes_on_from_its_checkpoint_bit_for_bit() {
    for precision in MixedPrecision::ALL {
        let folder = tempfile::tempdir().unwrap();
        let saved = |resume: bool| TrainerOptions {
            checkpoints: Some(CheckpointOptions {
                folder: folder.path().to_owned(),
                save_every: 1,
                resume,
            }),
            ..on_host()
        };
        let mut whole = trainer(OptimizerName::Adam, Some(precision), saved(false));
        losses(&mut whole, 3);
        // A step that overflows leaves its mark on the scale alone.
        let nan = Value::from_vec([10, 784], vec![f32::NAN; 7840]).unwrap();
        let labels = Value::zeros(DType::Float32, [10, 10]).unwrap();
        if precision == MixedPrecision::Half {
            whole.bp_step_on(nan, labels).unwrap();
        }
        whole.save().unwrap();
        let reader = BundleReader::open(folder.path().join("lenet.ckpt-3")).unwrap();
        for name in ["conv_1/weights", "dot_2/weights", "conv_1/weights/adam_1"] {
            let name = reader.entries().keys().find(|key| key.ends_with(name)).unwrap();
            assert_eq!(reader.value(name).unwrap().dtype(), DType::Float32, "{name}");
        }
        let scale = |name: &str| reader.value(&format!("train/{name}")).map(|value| value.to_string());
        match precision {
            MixedPrecision::Half => {
                assert_eq!(
                    reader.value("train/current_loss_scale").unwrap(),
                    Value::scalar(16_384f32)
                );
                assert_eq!(reader.value("train/good_steps").unwrap(), Value::scalar(0i64));
            }
            MixedPrecision::BFloat16 => assert!(scale("current_loss_scale").is_err()),
        }
        let expected = losses(&mut whole, 3);
        let mut resumed = trainer(OptimizerName::Adam, Some(precision), saved(true));
        assert_eq!(resumed.iteration(), 3);
        assert_eq!(losses(&mut resumed, 3), expected, "{precision}");
    }
}

#[test]
fn a_step_that_overflows_changes_no_parameter() {
    let trainer = trainer(OptimizerName::RmsProp, Some(MixedPrecision::Half), on_host());
    let graph = trainer.network.graph().clone();
    let variables: Vec<graph_core::Variable> = {
        let _default = graph.as_default();
        graph_ops::state::global_variables().unwrap()
    };
    let values = |session: &Session| -> Vec<Value> { session.run(&variables, ()).unwrap() };
    let before = values(&trainer.session);
    let large = Value::from_vec([10, 784], vec![1e30f32; 7840]).unwrap();
    let labels = Value::from_vec([10, 10], vec![0.1f32; 100]).unwrap();
    trainer.bp_step_on(large, labels).unwrap();
    for (variable, (before, after)) in variables.iter().zip(before.iter().zip(values(&trainer.session))) {
        match variable.name().as_str() {
            "train/current_loss_scale:0" => assert_eq!(after, Value::scalar(16_384f32)),
            name => assert_eq!(*before, after, "{name}"),
        }
    }
}
