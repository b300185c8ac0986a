use graph_core::format::Message;
use graph_core::format::proto::collection_def::{BytesList, FloatList, Kind, NodeList};
use graph_core::format::proto::meta_graph_def::MetaInfoDef;
use graph_core::format::proto::tensor_info::Encoding;
use graph_core::format::proto::{
    CollectionDef, DataType, GraphDef, MetaGraphDef, SavedModel, SaverDef, SignatureDef, TensorInfo, VariableDef,
};
use graph_core::format::text;

use super::*;

#[test]
fn a_graph_is_described() {
    let folder = network_folder();
    let out = stdout(graph([
        "inspect".as_ref(),
        folder.path().join("network.pb").as_os_str(),
    ]));
    assert!(out.lines().next().unwrap().ends_with("network.pb: GraphDef"), "{out}");
    assert_eq!(line(&out, "versions"), "versions producer 134");
    assert_eq!(line(&out, "size"), "size 11 nodes, 9 edges, 2 control edges");
    assert_eq!(line(&out, "variables"), "variables 1, 6 parameters, 24 B");
    assert_eq!(line(&out, "constants"), "constants 2, 7 parameters, 28 B");
    assert_eq!(line(&out, "x "), "x Placeholder float [?,2]");
    assert_eq!(line(&out, "odd"), "odd OddOp float");
    assert_eq!(line(&out, "summary"), "summary HistogramSummary string");
    assert_eq!(line(&out, "layer/w "), "layer/w VariableV2 float [2,3] 6 24 B");
    assert_eq!(line(&out, "OddOp"), "OddOp 1 unknown to the engine");
    assert_eq!(line(&out, "/device:CPU:0"), "/device:CPU:0 1 node");
}

#[test]
fn text_and_standard_input_give_the_same() {
    let folder = network_folder();
    let report = |mut json: serde_json::Value| json["graphs"].take();
    let binary = report(json(graph([
        "inspect".as_ref(),
        folder.path().join("network.pb").as_os_str(),
        "--json".as_ref(),
    ])));
    let from_text = report(json(graph_reading(["inspect", "-", "--json"], NETWORK.as_bytes())));
    assert_eq!(binary, from_text);
    let graph = &binary[0];
    assert_eq!(graph["nodes"], 11);
    assert_eq!(graph["inputs"][0]["shape"], serde_json::json!([null, 2]));
    assert_eq!(graph["variables"][0]["bytes"], 24);
    assert_eq!(
        graph["unsupported"],
        serde_json::json!([{"op": "OddOp", "dtype": null, "nodes": 1}])
    );
    let outputs: Vec<_> = graph["outputs"]
        .as_array()
        .unwrap()
        .iter()
        .map(|o| &o["name"])
        .collect();
    assert_eq!(outputs, ["odd", "summary", "init"]);
}

#[test]
fn dtypes_without_a_kernel_are_told() {
    let input = r#"node { name: "a" op: "MatMul" attr { key: "T" value { type: DT_INT8 } } }
                   node { name: "b" op: "Relu" attr { key: "T" value { type: DT_FLOAT8_E5M2 } } }
                   node { name: "c" op: "Relu" input: "missing" attr { key: "T" value { type: DT_FLOAT } } }"#;
    let report = json(graph_reading(["inspect", "-", "--json"], input.as_bytes()));
    let graph = &report["graphs"][0];
    let unsupported: Vec<_> = graph["unsupported"]
        .as_array()
        .unwrap()
        .iter()
        .map(|u| (&u["op"], &u["dtype"]))
        .collect();
    assert_eq!(unsupported[0].0, "MatMul");
    assert_eq!(unsupported[0].1, "int8");
    assert_eq!(unsupported[1].1, "float8_e5m2");
    assert_eq!(unsupported.len(), 2);
    assert!(graph["problems"][0].as_str().unwrap().contains("'missing'"));
}

fn meta_graph() -> MetaGraphDef {
    let info = |name: &str| TensorInfo {
        dtype: DataType::DtFloat.into(),
        encoding: Some(Encoding::Name(name.to_owned())),
        ..Default::default()
    };
    let variable = VariableDef {
        variable_name: "layer/w:0".to_owned(),
        ..Default::default()
    };
    let kinds = [
        (
            "losses",
            Kind::NodeList(NodeList {
                value: vec!["odd:0".to_owned()],
            }),
        ),
        ("rates", Kind::FloatList(FloatList { value: vec![0.5] })),
        (
            "trainable_variables",
            Kind::BytesList(BytesList {
                value: vec![variable.encode_to_vec()],
            }),
        ),
    ];
    let signature = SignatureDef {
        inputs: [("images".to_owned(), info("x:0"))].into(),
        outputs: [("scores".to_owned(), info("layer/relu:0"))].into(),
        method_name: "tensorflow/serving/predict".to_owned(),
        ..Default::default()
    };
    MetaGraphDef {
        meta_info_def: Some(MetaInfoDef {
            tags: vec!["serve".to_owned()],
            tensorflow_version: "1.15.0".to_owned(),
            ..Default::default()
        }),
        graph_def: Some(text::from_text::<GraphDef>(NETWORK).unwrap()),
        saver_def: Some(SaverDef {
            restore_op_name: "save/restore_all".to_owned(),
            ..Default::default()
        }),
        collection_def: kinds
            .into_iter()
            .map(|(name, kind)| (name.to_owned(), CollectionDef { kind: Some(kind) }))
            .collect(),
        signature_def: [("serving_default".to_owned(), signature)].into(),
        ..Default::default()
    }
}

#[test]
fn a_meta_graph_has_collections_and_signatures() {
    let out = stdout(graph_reading(["inspect", "-"], &meta_graph().encode_to_vec()));
    assert_eq!(out.lines().next(), Some("standard input: MetaGraph"));
    assert_eq!(line(&out, "tags"), "tags serve");
    assert_eq!(line(&out, "written by"), "written by TensorFlow 1.15.0");
    assert_eq!(line(&out, "variables"), "variables 1, 6 parameters, 24 B, 6 trainable");
    assert_eq!(line(&out, "losses"), "losses 1 nodes odd:0");
    assert_eq!(line(&out, "rates"), "rates 1 floats 0.5");
    assert_eq!(
        line(&out, "trainable_variables"),
        "trainable_variables 1 variables layer/w:0"
    );
    assert_eq!(
        line(&out, "signature"),
        "signature serving_default (tensorflow/serving/predict)"
    );
    assert_eq!(line(&out, "output scores"), "output scores layer/relu:0 float");
    assert_eq!(line(&out, "restore"), "restore save/restore_all");
}

#[test]
fn a_saved_models_folder_is_read() {
    let folder = tempfile::tempdir().unwrap();
    let model = SavedModel {
        saved_model_schema_version: 1,
        meta_graphs: vec![meta_graph(), MetaGraphDef::default()],
    };
    std::fs::write(folder.path().join("saved_model.pb"), model.encode_to_vec()).unwrap();
    let report = json(graph([
        "inspect".as_ref(),
        folder.path().as_os_str(),
        "--json".as_ref(),
    ]));
    assert_eq!(report["format"], "SavedModel");
    assert_eq!(report["graphs"][0]["tags"], serde_json::json!(["serve"]));
    assert_eq!(report["graphs"][0]["variables"][0]["trainable"], true);
    assert!(
        report["graphs"][1]["problems"][0]
            .as_str()
            .unwrap()
            .contains("no graph")
    );
}

#[test]
fn what_is_no_graph_is_an_error() {
    let folder = network_folder();
    let bytes = std::fs::read(folder.path().join("network.pb")).unwrap();
    for (input, expected) in [
        (&bytes[..bytes.len() - 3], "DataLoss"),
        (&b""[..], "the file is empty"),
        (&b"node { nmae: 1 }"[..], "line 1"),
    ] {
        let (error, code) = failure(graph_reading(["inspect", "-"], input));
        assert!(
            code == 1 && error.contains(expected) && error.contains("standard input"),
            "{error}"
        );
    }
}
