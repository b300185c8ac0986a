//! The tutorial's graph is TensorFlow's, node for node: names, ops, inputs, order, attributes, inferred shapes.

use graph_core::format::graph_def::ExportOptions;
use lenet::global_definitions::OptimizerName;
use system_tests::canonical::graph_text;
use system_tests::{fixture, tutorial_graph};

/// How many differing nodes a failure shows.
const SHOWN: usize = 5;

fn same_graph(optimizer: OptimizerName, name: &str, nodes: usize) {
    let (graph, _, _) = tutorial_graph(optimizer).unwrap();
    let ours = graph_text(&graph.to_graph_def(ExportOptions::default())).unwrap();
    let reference = fixture::read(&format!("graph_{name}.txt"));
    let (ours, reference): (Vec<&str>, Vec<&str>) = (ours.split("\n\n").collect(), reference.split("\n\n").collect());
    assert_eq!(reference.len(), nodes + 1, "a header and {nodes} nodes");
    let differing: Vec<usize> = (0..ours.len().max(reference.len()))
        .filter(|&index| {
            ours.get(index).map(|block| block.trim_end()) != reference.get(index).map(|block| block.trim_end())
        })
        .collect();
    let equal = reference.len().max(ours.len()) - differing.len();
    println!("{name}: {equal} of {} blocks equal", reference.len());
    let report: Vec<String> = differing
        .iter()
        .take(SHOWN)
        .map(|&index| {
            let block = |blocks: &[&str]| blocks.get(index).copied().unwrap_or("nothing").to_owned();
            format!(
                "block {index}\nours:\n{}\nTensorFlow's:\n{}",
                block(&ours),
                block(&reference)
            )
        })
        .collect();
    assert!(
        differing.is_empty(),
        "{} of {} blocks differ\n{}",
        differing.len(),
        reference.len(),
        report.join("\n\n")
    );
}

#[test]
fn adam() {
    same_graph(OptimizerName::Adam, "adam", 880);
}

#[test]
fn sgd() {
    same_graph(OptimizerName::Sgd, "sgd", 769);
}

#[test]
fn rmsprop() {
    same_graph(OptimizerName::RmsProp, "rmsprop", 868);
}
