use graph_core::format::checkpoint::BundleWriter;
use graph_core::format::graph_def::attr_from_proto;
use graph_core::format::proto::meta_graph_def::MetaInfoDef;
use graph_core::format::proto::tensor_info::Encoding;
use graph_core::format::proto::{DataType, MetaGraphDef, SavedModel, SignatureDef, TensorInfo};
use graph_core::op::AttrValue;

use super::*;

fn convert(folder: &TempDir, from: &str, to: &str, options: &[&str]) -> Output {
    let [from, to] = [from, to].map(|name| folder.path().join(name));
    let paths = ["convert".as_ref(), from.as_os_str(), to.as_os_str()];
    graph(paths.into_iter().chain(options.iter().map(|option| option.as_ref())))
}

/// A checkpoint of the network's weights, and its prefix.
fn write_weights(folder: &Path, shape: &[i64]) -> String {
    let prefix = folder.join("model.ckpt-7");
    let mut writer = BundleWriter::create(&prefix).unwrap();
    let weights = [1.0f32, 2.0, 3.0, 4.0, 5.0, 6.0].map(f32::to_le_bytes).concat();
    writer.add("layer/w", DataType::DtFloat, shape, &weights).unwrap();
    writer.finish().unwrap();
    prefix.to_str().unwrap().to_owned()
}

#[test]
fn a_graph_survives_text_byte_for_byte() {
    let folder = network_folder();
    let out = stdout(convert(&folder, "network.pb", "again.pbtxt", &[]));
    assert!(
        out.contains("again.pbtxt: GraphDef in text format") && out.contains("11 nodes\n"),
        "{out}"
    );
    stdout(convert(&folder, "again.pbtxt", "again.pb", &[]));
    let [first, second] = ["network.pb", "again.pb"].map(|name| std::fs::read(folder.path().join(name)).unwrap());
    assert_eq!(first, second);
    let report = json(convert(
        &folder,
        "network.pb",
        "text.graph",
        &["--to", "pbtxt", "--json"],
    ));
    assert_eq!((&report["format"], &report["nodes"]), (&"text".into(), &11.into()));
    assert!(
        std::fs::read_to_string(folder.path().join("text.graph"))
            .unwrap()
            .starts_with("node {")
    );
}

#[test]
fn standard_input_and_output_are_files_too() {
    let text = stdout(graph_reading(["convert", "-", "-"], NETWORK.as_bytes()));
    assert!(text.starts_with("node {\n  name: \"x\"\n"), "{text}");
    let binary = graph_reading(["convert", "-", "-", "--to", "pb"], text.as_bytes());
    assert_eq!(GraphDef::decode(binary.stdout.as_slice()).unwrap().node.len(), 11);
}

#[test]
fn a_frozen_graph_has_its_weights() {
    let folder = network_folder();
    let prefix = write_weights(folder.path(), &[2, 3]);
    let freeze = ["--freeze", "--outputs", "layer/relu:0", "--checkpoint", &prefix];
    let out = stdout(convert(&folder, "network.pb", "frozen.pb", &freeze));
    assert!(
        out.contains("5 nodes, 6 removed, 1 variables became constants"),
        "{out}"
    );
    let frozen = read_graph(&folder.path().join("frozen.pb"));
    assert_eq!(
        node_names(&frozen),
        ["x", "layer/w", "layer/w/read", "layer/dot", "layer/relu"]
    );
    assert_eq!(frozen.node[1].op, "Const");
    let AttrValue::Tensor(weights) = attr_from_proto(&frozen.node[1].attr["value"]).unwrap() else {
        panic!("no tensor")
    };
    assert_eq!(weights.as_slice::<f32>().unwrap(), [1.0, 2.0, 3.0, 4.0, 5.0, 6.0]);
    let again = json(convert(
        &folder,
        "network.pb",
        "again.pb",
        &[&freeze[..], &["--json"]].concat(),
    ));
    assert_eq!(again["frozen"], serde_json::json!(["layer/w"]));
    let [first, second] = ["frozen.pb", "again.pb"].map(|name| std::fs::read(folder.path().join(name)).unwrap());
    assert_eq!(first, second);
}

#[test]
fn what_cannot_be_frozen_leaves_no_file() {
    let folder = network_folder();
    let weights = write_weights(folder.path(), &[2, 3]);
    let misshapen = write_weights(&folder.path().join("other"), &[3, 2]);
    let cases: [(&[&str], &str); 6] = [
        (&[], "--outputs"),
        (&["--outputs", "layer/relu"], "--checkpoint"),
        (&["--outputs", "relu"], "no node 'relu'"),
        (
            &["--outputs", "init", "--checkpoint", &weights],
            "changes the variable 'layer/w'",
        ),
        (
            &["--outputs", "layer/relu", "--checkpoint", &misshapen],
            "expected: float [2,3]",
        ),
        (
            &["--outputs", "layer/relu", "--checkpoint", "/nowhere/x"],
            "/nowhere/x.index",
        ),
    ];
    for (options, expected) in cases {
        let options = [&["--freeze"], options].concat();
        let (error, code) = failure(convert(&folder, "network.pb", "frozen.pb", &options));
        assert!(code == 1 && error.contains(expected), "{options:?}: {error}");
        assert!(!folder.path().join("frozen.pb").exists());
    }
}

#[test]
fn a_saved_model_knows_its_outputs_and_values() {
    let folder = tempfile::tempdir().unwrap();
    let info = TensorInfo {
        encoding: Some(Encoding::Name("layer/relu:0".to_owned())),
        ..Default::default()
    };
    let signature = SignatureDef {
        outputs: [("y".to_owned(), info)].into(),
        ..Default::default()
    };
    let meta = MetaGraphDef {
        meta_info_def: Some(MetaInfoDef {
            tags: vec!["serve".to_owned()],
            ..Default::default()
        }),
        graph_def: Some(text::from_text(NETWORK).unwrap()),
        signature_def: [("serving_default".to_owned(), signature)].into(),
        ..Default::default()
    };
    let model = SavedModel {
        saved_model_schema_version: 1,
        meta_graphs: vec![meta],
    };
    std::fs::write(folder.path().join("saved_model.pb"), model.encode_to_vec()).unwrap();
    let mut writer = BundleWriter::create(folder.path().join("variables/variables")).unwrap();
    writer.add("layer/w", DataType::DtFloat, &[2, 3], &[0; 24]).unwrap();
    writer.finish().unwrap();

    stdout(convert(&folder, "", "frozen.pb", &["--freeze"]));
    assert_eq!(read_graph(&folder.path().join("frozen.pb")).node.len(), 5);
    stdout(convert(&folder, "saved_model.pb", "model.pbtxt", &[]));
    stdout(convert(&folder, "model.pbtxt", "model.pb", &[]));
    assert_eq!(
        std::fs::read(folder.path().join("model.pb")).unwrap(),
        model.encode_to_vec()
    );
    stdout(convert(&folder, "model.pb", "graph.pb", &["--graph"]));
    assert_eq!(read_graph(&folder.path().join("graph.pb")).node.len(), 11);
}

#[test]
fn a_stripped_graph_has_no_training_nodes() {
    let folder = network_folder();
    stdout(convert(&folder, "network.pb", "stripped.pb", &["--strip"]));
    let stripped = read_graph(&folder.path().join("stripped.pb"));
    let expected = ["x", "layer/w", "layer/w/read", "layer/dot", "layer/relu", "odd"];
    assert_eq!(node_names(&stripped), expected);
    assert!(
        stripped
            .node
            .iter()
            .all(|node| node.attr.keys().all(|name| !name.starts_with('_')))
    );
    assert_eq!(stripped.node[3].attr.keys().collect::<Vec<_>>(), ["T", "transpose_a"]);
    stdout(convert(&folder, "network.pb", "short.pb", &["--strip-default-attrs"]));
    let short = read_graph(&folder.path().join("short.pb"));
    assert_eq!(short.node[5].attr.keys().collect::<Vec<_>>(), ["T"]);
    assert_eq!(short.node.len(), 11);
}

#[test]
fn gradients_and_slots_go_with_the_optimizer() {
    let folder = tempfile::tempdir().unwrap();
    let training = r#"
        node { name: "v" op: "VariableV2" } node { name: "v/read" op: "Identity" input: "v" }
        node { name: "loss" op: "Square" input: "v/read" }
        node { name: "loss/tag" op: "Const" } node { name: "loss/summary" op: "ScalarSummary" input: "loss/tag" input: "loss" }
        node { name: "gradients/ones" op: "Const" }
        node { name: "gradients/loss_grad/Mul" op: "Mul" input: "gradients/ones" input: "v/read" }
        node { name: "gradients/loss_grad/unused" op: "Identity" input: "gradients/loss_grad/Mul" input: "^gradients/group" }
        node { name: "gradients/group" op: "NoOp" input: "^gradients/loss_grad/Mul" }
        node { name: "v/slot" op: "VariableV2" } node { name: "v/slot/read" op: "Identity" input: "v/slot" }
        node { name: "v/slot/zeros" op: "Const" }
        node { name: "v/slot/Assign" op: "Assign" input: "v/slot" input: "v/slot/zeros" }
        node { name: "train/rate" op: "Const" }
        node { name: "train/update" op: "ApplyMomentum" input: "v" input: "v/slot" input: "train/rate" input: "gradients/loss_grad/Mul" }
        node { name: "train" op: "NoOp" input: "^train/update" }
        node { name: "after" op: "Identity" input: "loss" input: "^train" }
    "#;
    write_graph(folder.path(), "training.pb", training);
    stdout(convert(&folder, "training.pb", "stripped.pb", &["--strip"]));
    let stripped = read_graph(&folder.path().join("stripped.pb"));
    assert_eq!(node_names(&stripped), ["v", "v/read", "loss", "after"]);
    assert_eq!(stripped.node[3].input, ["loss"]);
}

#[test]
fn a_file_is_replaced_only_by_a_whole_one() {
    let folder = network_folder();
    std::fs::write(folder.path().join("kept.pb"), "before").unwrap();
    let (error, _) = failure(convert(&folder, "missing.pb", "kept.pb", &[]));
    assert!(error.contains("missing.pb"), "{error}");
    assert_eq!(std::fs::read(folder.path().join("kept.pb")).unwrap(), b"before");
    let (error, _) = failure(convert(&folder, "network.pb", "no/such/folder/x.pb", &[]));
    assert!(error.contains("no/such/folder"), "{error}");
    stdout(convert(&folder, "network.pb", "network.pb", &["--outputs", "x"]));
    assert_eq!(read_graph(&folder.path().join("network.pb")).node.len(), 1);
}
