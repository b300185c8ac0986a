//! Bad input is a typed error that says what, where and what to do; nothing panics and nothing is overwritten.
//!
//! Broken data files and command lines are tested where they are read, in `lenet`.

use std::path::Path;

use graph_core::format::events::{EventReader, event_files};
use graph_core::graph::OpBuilder;
use graph_core::graph::scope::name_scope;
use graph_core::session::SessionOptions;
use graph_core::{DType, Error, Graph, PartialShape, Session, Tensor, Value, Variable, feed};
use graph_ops::summary::FileWriter;
use graph_ops::{array, control, math, state, summary};
use lenet::global_definitions::{Definitions, OptimizerName};
use lenet::network::Lenet5;
use lenet::trainer::{TrainOptions, Trainer, TrainerOptions};
use system_tests::{mnist, scratch, tutorial_network, tutorial_trainer};

/// The error of what must fail: its class must be right and its text hold all of `parts`.
fn fails<T>(result: Result<T, Error>, class: &str, parts: &[&str]) {
    let Err(error) = result else {
        panic!("expected {class} with {parts:?}")
    };
    let text = error.to_string();
    assert_eq!(error.class(), class, "{text}");
    for part in parts {
        assert!(text.contains(part), "no '{part}' in: {text}");
    }
}

fn graph_of(error: lenet::Error) -> Error {
    match error {
        lenet::Error::Graph(error) => error,
        other => panic!("expected an error of the graph, got {other}"),
    }
}

fn placeholder(name: &str) -> Tensor {
    array::placeholder::<f32>([None, Some(2)]).name(name).build().unwrap()
}

#[test]
fn feeds_must_fit() {
    let graph = Graph::new();
    let _default = graph.as_default();
    let x = placeholder("x");
    let y = math::square(&x).build().unwrap();
    let session = Session::new(&graph).unwrap();
    let run = |value: Value| session.run::<Value>(&y, feed! { x => value });
    fails(
        run(Value::from([[1.0f32, 2.0, 3.0]])),
        "InvalidArgument",
        &["'x:0'", "[?,2]", "[1,3]", "bad_input.rs"],
    );
    fails(
        run(Value::from([[1.0f64, 2.0]])),
        "InvalidArgument",
        &["'x:0'", "float", "double"],
    );
    fails(
        session.run::<Value>(&y, feed! { x => [[(1i64 << 24) + 1, 0]] }),
        "InvalidArgument",
        &["without loss"],
    );
    let twice = feed! { x => Value::from([[1.0f32, 2.0]]), x => Value::from([[1.0f32, 2.0]]) };
    fails(session.run::<Value>(&y, twice), "InvalidArgument", &["twice"]);
    assert_eq!(run(Value::from([[1.0f32, 2.0]])).unwrap(), Value::from([[1.0f32, 4.0]]));
}

#[test]
fn unfed_placeholders_are_all_listed_with_what_needs_them() {
    let graph = Graph::new();
    let _default = graph.as_default();
    let (x, y, z) = (placeholder("x"), placeholder("y"), placeholder("z"));
    let sum = math::add(&x, &y).name("sum").build().unwrap();
    let square = math::square(&z).name("square").build().unwrap();
    let session = Session::new(&graph).unwrap();
    let result = session.run::<(Value, Value)>((&sum, &square), feed! { y => Value::from([[1.0f32, 2.0]]) });
    fails(
        result,
        "InvalidArgument",
        &[
            "You must feed a value for placeholder tensor",
            "'x' with dtype float",
            "needed by 'sum'",
            "'z'",
            "needed by 'square'",
        ],
    );
}

#[test]
fn uninitialized_variables_are_all_listed() {
    graph_ops::install();
    let graph = Graph::new();
    let _default = graph.as_default();
    let a = Variable::new(1.0f32).name("a").build().unwrap();
    let b = Variable::new(2.0f32).name("b").build().unwrap();
    let sum = math::add(&a, &b).build().unwrap();
    let session = Session::new(&graph).unwrap();
    fails(
        session.run::<f32>(&sum, ()),
        "FailedPrecondition",
        &["uninitialized value", "a, b", "initializers"],
    );
    session.run(a.initializer(), ()).unwrap();
    fails(
        session.run::<f32>(&sum, ()),
        "FailedPrecondition",
        &["uninitialized value b"],
    );
    session.run(b.initializer(), ()).unwrap();
    assert_eq!(session.run::<f32>(&sum, ()).unwrap(), 3.0);
}

#[test]
fn a_fetch_of_another_graph_is_refused() {
    let (ours, theirs) = (Graph::new(), Graph::new());
    let stranger = {
        let _default = theirs.as_default();
        array::constant(1.0f32).name("stranger").build().unwrap()
    };
    let session = Session::new(&ours).unwrap();
    fails(
        session.run::<f32>(&stranger, ()),
        "InvalidArgument",
        &["'stranger:0'", "another graph"],
    );
}

#[test]
fn a_finalized_graph_does_not_change() {
    let graph = Graph::new();
    let _default = graph.as_default();
    let x = array::constant(1.0f32).build().unwrap();
    graph.finalize();
    fails(math::square(&x).build(), "FailedPrecondition", &["finalized"]);
    fails(Variable::new(1.0f32).build(), "FailedPrecondition", &["finalized"]);
    assert_eq!(graph.num_operations(), 1);
}

#[test]
fn a_variable_made_twice_says_where_it_was_made() {
    let graph = Graph::new();
    let _default = graph.as_default();
    state::get_variable("v", [2, 3]).dtype(DType::Float32).build().unwrap();
    let again = state::get_variable("v", [2, 3]).dtype(DType::Float32).build();
    fails(again, "InvalidArgument", &["v already exists", "bad_input.rs"]);
}

#[test]
fn a_histogram_of_nan_names_its_operation() {
    let graph = Graph::new();
    let _default = graph.as_default();
    let x = placeholder("x");
    let histogram = summary::histogram("weights", &x).build().unwrap();
    let session = Session::new(&graph).unwrap();
    for bad in [f32::NAN, f32::INFINITY] {
        let result = session.run::<Value>(&histogram, feed! { x => Value::from([[1.0f32, bad]]) });
        fails(result, "InvalidArgument", &["'weights'", "HistogramSummary"]);
    }
}

#[test]
fn integer_division_by_zero_is_an_error() {
    let graph = Graph::new();
    let _default = graph.as_default();
    let x = array::placeholder::<i32>(PartialShape::unknown()).build().unwrap();
    let session = Session::new(&graph).unwrap();
    for op in ["Div", "FloorDiv", "FloorMod", "Mod", "TruncateDiv", "TruncateMod"] {
        let quotient = OpBuilder::new(op).input(7).input(&x).build().unwrap();
        fails(
            session.run::<i32>(&quotient, feed! { x => 0 }),
            "InvalidArgument",
            &["division by zero", &format!("({op})")],
        );
        session.run::<i32>(&quotient, feed! { x => 2 }).unwrap();
    }
}

#[test]
fn a_dead_tensor_cannot_be_fetched() {
    let graph = Graph::new();
    let _default = graph.as_default();
    let choice = array::placeholder::<bool>(()).build().unwrap();
    let (if_false, if_true) = control::switch(5.0f32, &choice).unwrap();
    let session = Session::new(&graph).unwrap();
    assert_eq!(session.run::<f32>(&if_true, feed! { choice => true }).unwrap(), 5.0);
    fails(
        session.run::<f32>(&if_false, feed! { choice => true }),
        "InvalidArgument",
        &["dead"],
    );
}

#[test]
fn shapes_that_cannot_fit_are_refused_where_the_graph_is_built() {
    let graph = Graph::new();
    let _default = graph.as_default();
    let a = array::placeholder::<f32>([None, Some(784)]).name("a").build().unwrap();
    let b = array::placeholder::<f32>([100, 10]).name("b").build().unwrap();
    let _scope = name_scope("layer").unwrap();
    fails(
        math::matmul(&a, &b).name("dot").build(),
        "InvalidArgument",
        &["784", "100", "layer/dot", "MatMul", "bad_input.rs"],
    );
}

#[test]
fn a_session_needs_a_thread() {
    let graph = Graph::new();
    let result = Session::with_options(&graph, SessionOptions::new().threads(0));
    fails(result.map(|_| ()), "InvalidArgument", &["thread"]);
}

#[test]
fn two_event_files_of_one_second_stand_side_by_side() {
    let folder = scratch();
    let graph = Graph::new();
    let _default = graph.as_default();
    let summary = summary::scalar("x", 1.5f32).build().unwrap();
    let summary: Value = Session::new(&graph).unwrap().run(&summary, ()).unwrap();
    let mut writers: Vec<FileWriter> = (0..3).map(|_| FileWriter::new(folder.path()).unwrap()).collect();
    for (step, writer) in writers.iter_mut().enumerate() {
        writer.add_summary(&summary, step as i64).unwrap();
    }
    writers.iter_mut().for_each(|writer| writer.close().unwrap());
    let files = event_files(folder.path()).unwrap();
    let mut steps: Vec<i64> = files
        .iter()
        .map(|file| EventReader::open(file).unwrap().last().unwrap().unwrap().step)
        .collect();
    steps.sort_unstable();
    assert_eq!(steps, [0, 1, 2], "each file holds what its own writer wrote");
}

#[test]
fn a_logdir_that_cannot_be_written_is_an_error() {
    let folder = scratch();
    let file = folder.path().join("file");
    std::fs::write(&file, "a file, not a folder").unwrap();
    let (_, network) = tutorial_network(OptimizerName::Sgd).unwrap();
    let options = TrainerOptions {
        logdir: Some(file.join("logs")),
        ..TrainerOptions::default()
    };
    let trainer = Trainer::with_options(network, mnist().unwrap(), options);
    fails(trainer.map_err(graph_of), "FailedPrecondition", &["file/logs"]);
    assert_eq!(std::fs::read_to_string(&file).unwrap(), "a file, not a folder");
}

#[test]
fn mini_batches_must_fit_the_training_set() {
    let mut trainer = tutorial_trainer(OptimizerName::Sgd, None).unwrap();
    for size in [0, 55_001] {
        let options = TrainOptions {
            iter: 1,
            mini_batch_size: size,
            summarize: false,
            ..TrainOptions::default()
        };
        let error = trainer.train(options).unwrap_err();
        assert!(
            matches!(error, lenet::Error::BatchSize { got, examples: 55_000 } if got == size),
            "{error}"
        );
    }
}

#[test]
fn a_keep_probability_of_zero_is_refused() {
    let graph = Graph::new();
    let _default = graph.as_default();
    let images = array::placeholder::<f32>([None, Some(784)]).build().unwrap();
    let definitions = Definitions {
        dropout_probability: 0.0,
        ..Definitions::default()
    };
    let error = Lenet5::with_definitions(&images, definitions).unwrap_err();
    assert_eq!(
        error.to_string(),
        "the dropout (keep) probability must be above 0 and at most 1, got 0"
    );
    for keep in [0.0f32, 1.5, -0.5, f32::NAN] {
        fails(
            graph_ops::nn::dropout(&images, keep).build(),
            "InvalidArgument",
            &["keep_prob"],
        );
    }
}

#[test]
fn a_loss_that_is_no_number_ends_training_with_events_on_disk() {
    let folder = scratch();
    let graph = Graph::new();
    let _default = graph.as_default();
    let inputs = lenet::dataset::Placeholders::new().unwrap();
    let definitions = Definitions {
        optimizer: OptimizerName::Sgd,
        lr: 1e30,
        ..Definitions::default()
    };
    let mut network = Lenet5::with_definitions(&inputs.images, definitions).unwrap();
    network.cook(&inputs.labels).unwrap();
    let options = TrainerOptions {
        logdir: Some(folder.path().to_owned()),
        ..TrainerOptions::default()
    };
    let mut trainer = Trainer::with_options(network, mnist().unwrap(), options).unwrap();
    let options = TrainOptions {
        iter: 20,
        mini_batch_size: 10,
        summarize: false,
        ..TrainOptions::default()
    };
    let error = trainer.train(options).unwrap_err();
    assert!(matches!(error, lenet::Error::NotFinite { .. }), "{error}");
    assert!(file_size(folder.path()) > 100_000, "the graph is in the event file");
}

fn file_size(folder: &Path) -> u64 {
    std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().metadata().unwrap().len())
        .sum()
}
