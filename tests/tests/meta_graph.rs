//! MetaGraphs carry a graph with its collections: what is read here trains on, whoever wrote it.

use std::path::PathBuf;

use graph_core::format::checkpoint::BundleReader;
use graph_core::format::import::ImportOptions;
use graph_core::format::meta_graph::{MetaGraphOptions, read_meta_graph};
use graph_core::format::proto::{GraphDef, MetaGraphDef};
use graph_core::format::{Message, text};
use graph_core::graph::keys;
use graph_core::{Graph, Operation, Session, Tensor, Value, Variable, feed};
use graph_ops::state::{get_collection, global_variables_initializer};
use graph_ops::train::{GradientDescentOptimizer, Optimizer, Saver};
use lenet::global_definitions::OptimizerName;
use lenet::network::TRAINABLE_PARAMS;
use system_tests::{fixture, scratch, tutorial_graph};

fn of_tensorflow() -> MetaGraphDef {
    graph_ops::install();
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("fixtures/tensorflow.meta");
    read_meta_graph(path).unwrap()
}

fn losses_of_tensorflow() -> Vec<f32> {
    let text = fixture::read("tensorflow_meta_losses.txt");
    text.lines().map(|line| line.parse().unwrap()).collect()
}

/// The data that `make_meta_graph.py` trains on.
fn batch() -> (Value, Value) {
    (
        Value::from([[1.0f32, 2.0], [3.0, -1.0], [0.5, 0.25]]),
        Value::from([[1.0f32], [2.0], [3.0]]),
    )
}

#[test]
fn a_meta_graph_of_tensorflow_trains_to_the_same_losses() {
    for prefix in ["", "net"] {
        let graph = Graph::new();
        let _default = graph.as_default();
        graph
            .import_meta_graph(&of_tensorflow(), &ImportOptions::new().prefix(prefix))
            .unwrap();
        let named = |name: &str| format!("{prefix}{}{name}", if prefix.is_empty() { "" } else { "/" });
        let tensor = |name: &str| graph.tensor(&named(name)).unwrap();
        let session = Session::new(&graph).unwrap();
        session.run(global_variables_initializer().unwrap(), ()).unwrap();
        let [train] = &graph.get_collection::<Operation>(keys::TRAIN_OP).unwrap()[..] else {
            panic!("one training operation");
        };
        assert_eq!(train.name(), named("train"));
        let (x, y) = batch();
        for expected in losses_of_tensorflow() {
            let feeds = feed! { tensor("x") => x.clone(), tensor("y") => y.clone() };
            let ((), loss): ((), f32) = session.run((train, tensor("loss")), feeds).unwrap();
            assert!(
                (loss - expected).abs() <= 1e-6 * expected,
                "{loss}, expected {expected}"
            );
        }
        let [step] = &graph.get_collection::<Variable>(keys::GLOBAL_STEP).unwrap()[..] else {
            panic!("one global step");
        };
        assert_eq!(
            session.run::<i64>(step, ()).unwrap(),
            losses_of_tensorflow().len() as i64
        );
    }
}

#[test]
fn collections_come_back_as_what_they_were() {
    let graph = Graph::new();
    let _default = graph.as_default();
    graph
        .import_meta_graph(&of_tensorflow(), &ImportOptions::verbatim())
        .unwrap();
    let names = |key| {
        let variables = get_collection::<Variable>(key).unwrap();
        variables.iter().map(Variable::name).collect::<Vec<_>>()
    };
    assert_eq!(
        names(keys::GLOBAL_VARIABLES),
        ["weights:0", "global_step:0", "weights/Momentum:0"]
    );
    assert_eq!(names(keys::TRAINABLE_VARIABLES), ["weights:0"]);
    // TensorFlow writes only the name of a variable in a collection of the user's.
    assert_eq!(names("trainable_params"), ["weights:0"]);
    let weights = &get_collection::<Variable>("trainable_params").unwrap()[0];
    assert_eq!(weights.value().name(), "weights/read:0");
    assert_eq!(weights.initializer().name(), "weights/Assign");
    assert_eq!(weights.initial_value().unwrap().name(), "weights/initial_value:0");
    assert!(weights.is_trainable());
    let summaries = get_collection::<Tensor>(keys::SUMMARIES).unwrap();
    assert_eq!(summaries.iter().map(Tensor::name).collect::<Vec<_>>(), ["watched:0"]);
    // What TensorFlow wrote is written back, collection for collection; but the variables of a MetaGraph of TensorFlow
    // say more of replicas than this engine knows.
    let ours = graph
        .to_meta_graph(&MetaGraphOptions::default())
        .unwrap()
        .collection_def;
    let theirs = of_tensorflow().collection_def;
    for key in [
        "trainable_variables",
        "trainable_params",
        "summaries",
        "train_op",
        "numbers",
        "names",
        "rates",
    ] {
        assert_eq!(ours[key], theirs[key], "{key}");
    }
    assert_eq!(ours.keys().collect::<Vec<_>>(), theirs.keys().collect::<Vec<_>>());
}

#[test]
fn an_optimizer_made_after_the_import_trains_the_imported_variables() {
    let graph = Graph::new();
    let _default = graph.as_default();
    graph
        .import_meta_graph(&of_tensorflow(), &ImportOptions::verbatim())
        .unwrap();
    let variables = get_collection::<Variable>(keys::TRAINABLE_VARIABLES).unwrap();
    let loss = graph.tensor("loss").unwrap();
    let step = GradientDescentOptimizer::new(0.1f32)
        .minimize(&loss, &variables)
        .unwrap();
    let session = Session::new(&graph).unwrap();
    session.run(global_variables_initializer().unwrap(), ()).unwrap();
    let (x, y) = batch();
    let tensor = |name: &str| graph.tensor(name).unwrap();
    let losses: Vec<f32> = (0..3)
        .map(|_| {
            let feeds = feed! { tensor("x") => x.clone(), tensor("y") => y.clone() };
            session.run::<((), f32)>((&step, &loss), feeds).unwrap().1
        })
        .collect();
    assert!(losses.windows(2).all(|pair| pair[1] < pair[0]), "{losses:?}");
}

#[test]
fn the_tutorial_s_meta_graph_survives_the_round_trip() {
    let (graph, ..) = tutorial_graph(OptimizerName::Adam).unwrap();
    let message = graph.to_meta_graph(&MetaGraphOptions::default()).unwrap();
    let copy = Graph::new();
    copy.import_meta_graph(&message, &ImportOptions::verbatim()).unwrap();
    let again = copy.to_meta_graph(&MetaGraphOptions::default()).unwrap();
    assert_eq!(again.encode_to_vec(), message.encode_to_vec());
    let params = copy.get_collection::<Variable>(TRAINABLE_PARAMS).unwrap();
    assert_eq!(
        params,
        copy.get_collection::<Variable>(keys::TRAINABLE_VARIABLES).unwrap()
    );
    assert_eq!(params.len(), 10);
    let ops = &message
        .meta_info_def
        .as_ref()
        .unwrap()
        .stripped_op_list
        .as_ref()
        .unwrap()
        .op;
    assert!(ops.iter().any(|op| op.name == "Conv2D") && ops.windows(2).all(|pair| pair[0].name < pair[1].name));
}

#[test]
fn a_file_in_either_format_reads_the_same() {
    let (graph, ..) = tutorial_graph(OptimizerName::Sgd).unwrap();
    let folder = scratch();
    let (binary, plain) = (folder.path().join("a.meta"), folder.path().join("a.meta.pbtxt"));
    graph
        .write_meta_graph(&binary, false, &MetaGraphOptions::default())
        .unwrap();
    graph
        .write_meta_graph(&plain, true, &MetaGraphOptions::default())
        .unwrap();
    assert_eq!(read_meta_graph(binary).unwrap(), read_meta_graph(plain).unwrap());
}

#[test]
fn broken_meta_graphs_are_refused_whole() {
    graph_ops::install();
    let node = r#"graph_def { node { name: "a" op: "NoOp" } }"#;
    let cases = [
        ("".to_owned(), "no graph"),
        (
            format!(r#"{node} collection_def {{ key: "k" value {{ node_list {{ value: "gone:0" }} }} }}"#),
            "'gone:0'",
        ),
        (
            format!(r#"{node} collection_def {{ key: "k" value {{ node_list {{ value: "a:0" }} }} }}"#),
            "'a:0'",
        ),
        (
            format!(r#"{node} collection_def {{ key: "variables" value {{ bytes_list {{ value: "\377" }} }} }}"#),
            "no variable",
        ),
    ];
    for (message, part) in cases {
        let message: MetaGraphDef = text::from_text(&message).unwrap();
        let graph = Graph::new();
        let error = graph
            .import_meta_graph(&message, &ImportOptions::verbatim())
            .unwrap_err();
        assert!(error.to_string().contains(part), "no '{part}' in {error}");
        assert_eq!(graph.num_operations(), 0, "{error}");
    }
}

#[test]
fn a_collection_of_mixed_kinds_cannot_be_written() {
    let graph = Graph::new();
    let _default = graph.as_default();
    let message: GraphDef = text::from_text(r#"node { name: "a" op: "NoOp" }"#).unwrap();
    graph_ops::install();
    graph.import(&message, &ImportOptions::verbatim()).unwrap();
    graph.add_to_collection("mixed", &graph.operation("a").unwrap());
    graph.add_to_collection("mixed", &graph_core::graph::CollectionItem::Int(1));
    let error = graph.to_meta_graph(&MetaGraphOptions::default()).unwrap_err();
    assert!(error.to_string().contains("'mixed'"), "{error}");
    let some = MetaGraphOptions {
        collections: Some(vec!["other".to_owned()]),
        ..MetaGraphOptions::default()
    };
    assert!(graph.to_meta_graph(&some).unwrap().collection_def.is_empty());
}

#[test]
fn a_saver_that_writes_a_file_for_each_device_goes_on_here() {
    let fixtures = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("fixtures");
    let meta = read_meta_graph(fixtures.join("sharded.meta")).unwrap();
    let graph = Graph::new();
    let _default = graph.as_default();
    graph.import_meta_graph(&meta, &ImportOptions::verbatim()).unwrap();
    let def = meta.saver_def.as_ref().unwrap();
    let mut saver = Saver::from_saver_def(&graph, def).unwrap();
    assert_eq!(&saver.saver_def(), def);

    let session = Session::new(&graph).unwrap();
    saver.restore(&session, fixtures.join("sharded")).unwrap();
    let names = ["first/read", "second/read", "third/read"].map(|name| graph.operation(name).unwrap().output(0));
    let values = || session.run::<Vec<Value>>(&names[..], ()).unwrap();
    let restored = [
        Value::from([[0.0f32, 1.0], [2.0, 3.0]]),
        Value::from([0.5f32, 1.5, 2.5]),
        Value::from([7i64, 8]),
    ];
    assert_eq!(values(), restored);

    // The parts are merged into one checkpoint, and a session that was another comes back to it.
    let folder = scratch();
    let prefix = saver.save(&session, folder.path().join("again")).unwrap();
    let bundle = BundleReader::open(&prefix).unwrap();
    assert_eq!(
        bundle.entries().keys().collect::<Vec<_>>(),
        ["first", "second", "third"]
    );
    let files = |part: &str| folder.path().join(format!("again.data-{part}-of-00002")).is_file();
    assert!(files("00000") && files("00001"));
    session.run(global_variables_initializer().unwrap(), ()).unwrap();
    let doubled = graph_ops::state::assign(graph.tensor("second:0").unwrap(), [9.0f32, 9.0, 9.0])
        .build()
        .unwrap();
    session.run(doubled.op(), ()).unwrap();
    assert_ne!(values(), restored);
    saver.restore(&session, &prefix).unwrap();
    assert_eq!(values(), restored);
}
