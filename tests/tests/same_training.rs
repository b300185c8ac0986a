//! With the same seeds training is TensorFlow's: initial values, dropout masks, objective and cost step by step.

use graph_core::Value;
use lenet::dataset::{CLASSES, PIXELS};
use lenet::global_definitions::OptimizerName;
use lenet::trainer::Trainer;
use system_tests::{fixture, tutorial_trainer};

const BATCH: usize = 500;

/// Rows 500 k to 500 (k + 1) of the training images, in file order.
fn batch(trainer: &Trainer, step: usize) -> (Value, Value) {
    let rows = step * BATCH..(step + 1) * BATCH;
    let train = &trainer.dataset.train;
    let images = Value::from_vec([BATCH, PIXELS], train.images(rows.clone()).unwrap()).unwrap();
    let labels = Value::from_vec([BATCH, CLASSES], train.labels(rows).unwrap()).unwrap();
    (images, labels)
}

/// Trains as many steps as the bounds reach to; each bound is (steps it holds for, relative difference).
fn follows(optimizer: OptimizerName, name: &str, bounds: &[(usize, f64)]) {
    let reference = fixture::trajectory(name);
    let trainer = tutorial_trainer(optimizer, None).unwrap();
    let steps = bounds.iter().map(|bound| bound.0).max().unwrap();
    let mut worst: Vec<f64> = vec![0.0; bounds.len()];
    for step in 0..steps {
        let (images, labels) = batch(&trainer, step);
        let (objective, cost) = trainer.bp_step_on(images, labels).unwrap();
        let (expected_objective, expected_cost) = reference.steps[step];
        let relative = |got: f32, expected: f64| (f64::from(got) - expected).abs() / expected.abs();
        let difference = relative(objective, expected_objective).max(relative(cost, expected_cost));
        for (worst, &(until, bound)) in worst.iter_mut().zip(bounds) {
            if step < until {
                *worst = worst.max(difference);
                assert!(
                    difference <= bound,
                    "{name}, step {step}: objective {objective} and cost {cost}, expected {expected_objective} and \
                     {expected_cost}: {difference:e} apart, more than {bound:e}"
                );
            }
        }
    }
    println!("{name}: worst relative differences {worst:?} within {bounds:?}");
}

#[test]
fn sgd_follows_tensorflow_over_100_steps() {
    follows(OptimizerName::Sgd, "sgd", &[(100, 1e-5)]);
}

#[test]
fn rmsprop_follows_tensorflow_over_20_steps() {
    follows(OptimizerName::RmsProp, "rmsprop", &[(20, 1e-5)]);
}

#[test]
fn adam_follows_tensorflow_over_10_steps() {
    follows(OptimizerName::Adam, "adam", &[(5, 1e-5), (10, 1e-3)]);
}

#[test]
fn initial_values_are_tensorflow_s() {
    let reference = fixture::trajectory("adam");
    let trainer = tutorial_trainer(OptimizerName::Adam, None).unwrap();
    for (name, count, weighted, elements) in &reference.samples {
        let tensor = trainer.session.graph().tensor(&format!("{name}/read:0")).unwrap();
        let value: Value = trainer.session.run(&tensor, ()).unwrap();
        let values = value.as_slice::<f32>().unwrap();
        assert_eq!(values.len(), *count, "{name}");
        for &(index, expected) in elements {
            assert!(
                (values[index] - expected).abs() <= 1e-6,
                "{name}[{index}] is {}, expected {expected}",
                values[index]
            );
        }
        let sum: f64 = values
            .iter()
            .zip(0u32..)
            .map(|(&value, index)| f64::from(value) * f64::from(1 + index % 97))
            .sum();
        assert!(
            (sum - weighted).abs() <= 1e-6 * 97.0 * *count as f64,
            "{name}: weighted sum {sum}, expected {weighted}"
        );
    }
}

#[test]
fn runs_repeat_bit_for_bit_whatever_the_threads() {
    let losses = |threads: usize| -> Vec<(u32, u32)> {
        let trainer = tutorial_trainer(OptimizerName::Adam, Some(threads)).unwrap();
        (0..5)
            .map(|step| {
                let (images, labels) = batch(&trainer, step);
                let (objective, cost) = trainer.bp_step_on(images, labels).unwrap();
                (objective.to_bits(), cost.to_bits())
            })
            .collect()
    };
    let first = losses(1);
    assert_eq!(first, losses(1), "the same twice");
    assert_eq!(first, losses(2), "the same with two threads");
    assert_eq!(first, losses(3), "the same with three threads");
}
