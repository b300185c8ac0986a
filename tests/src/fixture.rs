//! The reference's fixtures, as `tensorflow/make_fixtures.py` writes them.

use std::path::PathBuf;

/// The text of a fixture.
///
/// # Panics
/// If it is not in the repository.
pub fn read(name: &str) -> String {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("fixtures").join(name);
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Name, number of elements and weighted sum of a parameter, and some of its elements by flat index.
pub type Sample = (String, usize, f64, Vec<(usize, f32)>);

/// A reference training run.
#[derive(Debug, Default)]
pub struct Trajectory {
    /// Name, sum and sum of magnitudes of each parameter at the start, and its first elements.
    pub initial: Vec<(String, f64, f64, Vec<f32>)>,
    /// Name, number of elements, weighted sum of each parameter at the start, and some elements by flat index.
    pub samples: Vec<Sample>,
    /// Objective and cost before each step.
    pub steps: Vec<(f64, f64)>,
    /// Over the test images, after the last step.
    pub test_accuracy: f64,
    /// Of the first test images.
    pub logits: Vec<Vec<f32>>,
}

/// The reference run of an optimizer.
///
/// # Panics
/// If the fixture is not in its form.
pub fn trajectory(optimizer: &str) -> Trajectory {
    let mut trajectory = Trajectory::default();
    for line in read(&format!("trajectory_{optimizer}.txt")).lines() {
        let mut words = line.split_whitespace();
        let Some(kind) = words.next() else { continue };
        let words: Vec<&str> = words.collect();
        let number = |index: usize| -> f64 { words[index].parse().unwrap_or_else(|_| panic!("a number in '{line}'")) };
        match kind {
            "init" => {
                let first = (3..words.len()).map(|index| number(index) as f32).collect();
                trajectory
                    .initial
                    .push((words[0].to_owned(), number(1), number(2), first));
            }
            "sample" => {
                let elements = (3..words.len())
                    .step_by(2)
                    .map(|index| (number(index) as usize, number(index + 1) as f32))
                    .collect();
                trajectory
                    .samples
                    .push((words[0].to_owned(), number(1) as usize, number(2), elements));
            }
            "step" => {
                assert_eq!(number(0) as usize, trajectory.steps.len(), "steps in order");
                trajectory.steps.push((number(1), number(2)));
            }
            "test_accuracy" => trajectory.test_accuracy = number(0),
            "logits" => trajectory
                .logits
                .push((1..words.len()).map(|index| number(index) as f32).collect()),
            _ => {}
        }
    }
    trajectory
}
