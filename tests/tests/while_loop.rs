//! While loops and their gradients are TensorFlow's, node for node, and so is what comes out of them.
//!
//! The GPU is an emulated one.

use graph_core::format::graph_def::ExportOptions;
use graph_core::session::SessionOptions;
use graph_core::{Graph, Session, Value};
use graph_cuda::emulator;
use system_tests::canonical::graph_text;
use system_tests::{fixture, loops};

/// How many differing nodes a failure shows.
const SHOWN: usize = 5;

/// A case of the fixture: its graph, node by node, and a line for each tensor that was fetched.
fn reference(name: &str) -> (Vec<String>, Vec<String>) {
    let text = fixture::read("while_loop.txt");
    let after = |text: &str, mark: String| text.split_once(&mark).map(|(_, rest)| rest.to_owned());
    let rest = after(&format!("\n{text}"), format!("\ncase {name}\n")).expect("the case");
    let (graph, rest) = rest.split_once(&format!("\nvalues {name}\n")).expect("its values");
    let values = rest.split("\ncase ").next().unwrap_or_default();
    (
        graph.split("\n\n").map(str::to_owned).collect(),
        values.lines().map(str::to_owned).collect(),
    )
}

fn same_graph(name: &str, graph: &Graph) {
    let ours = graph_text(&graph.to_graph_def(ExportOptions::default())).unwrap();
    let ours: Vec<String> = ours.split("\n\n").map(|block| block.trim_end().to_owned()).collect();
    let (reference, _) = reference(name);
    let nothing = "nothing".to_owned();
    let pairs = (0..ours.len().max(reference.len())).map(|index| {
        (
            ours.get(index).unwrap_or(&nothing),
            reference.get(index).unwrap_or(&nothing),
        )
    });
    let differing: Vec<_> = pairs.filter(|(ours, reference)| ours != reference).collect();
    let shown: Vec<String> = differing
        .iter()
        .take(SHOWN)
        .map(|(ours, reference)| format!("ours:\n{ours}\nTensorFlow's:\n{reference}"))
        .collect();
    assert!(
        differing.is_empty(),
        "{name}: {} of {} blocks differ\n{}",
        differing.len(),
        reference.len(),
        shown.join("\n\n")
    );
}

fn same_values(name: &str, graph: &Graph, fetches: &[graph_core::Tensor], session: &Session) {
    let (_, expected) = reference(name);
    assert_eq!(fetches.len(), expected.len(), "{name}");
    for _ in 0..2 {
        let values: Vec<Value> = loops::run(session, graph, fetches).unwrap();
        for ((tensor, value), line) in fetches.iter().zip(&values).zip(&expected) {
            let mut words = line.split_whitespace();
            assert_eq!(words.next(), Some(tensor.name().as_str()));
            let expected: Vec<f64> = words.map(|word| word.parse().unwrap()).collect();
            let got = match value.as_slice::<i32>() {
                Ok(integers) => integers.iter().map(|&integer| f64::from(integer)).collect(),
                Err(_) => value
                    .as_slice::<f32>()
                    .unwrap()
                    .iter()
                    .map(|&x| f64::from(x))
                    .collect::<Vec<_>>(),
            };
            assert_eq!(got.len(), expected.len(), "{name}: {line}");
            for (got, expected) in got.iter().zip(&expected) {
                let near = (got - expected).abs() <= 1e-5 * expected.abs().max(1e-3);
                assert!(near, "{name}: {line}\ngot {value}");
            }
        }
    }
}

fn check(name: &str) {
    let (_, build) = loops::CASES.iter().find(|(case, _)| *case == name).expect("the case");
    let graph = Graph::new();
    let _default = graph.as_default();
    let fetches = build().unwrap();
    let session = Session::new(&graph).unwrap();
    same_values(name, &graph, &fetches, &session);
    match emulator::device() {
        Err(error) => println!("skipped: {error}"),
        Ok(gpu) => {
            let options = SessionOptions::new().accelerators(vec![gpu.accelerator()]);
            same_values(name, &graph, &fetches, &Session::with_options(&graph, options).unwrap());
        }
    }
    // What TensorArrays are kept beside differs.
    if name != "array" {
        same_graph(name, &graph);
    }
}

macro_rules! cases {
    ($($name:ident)*) => {
        $(#[test]
        fn $name() {
            check(stringify!($name));
        })*

        #[test]
        fn every_case_is_a_test() {
            let names: Vec<&str> = loops::CASES.iter().map(|(name, _)| *name).collect();
            assert_eq!(names, [$(stringify!($name)),*]);
        }
    };
}

cases! {
    counting options what_comes_in growing newton power_iteration unused unknown_shapes nested branch_inside
    inside_a_branch array
}
