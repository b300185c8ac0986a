//! A SavedModel that TensorFlow wrote runs here.

use std::path::PathBuf;

use graph_core::format::proto::tensor_info::Encoding;
use graph_core::{Graph, Session, Value, feed};
use graph_ops::saved_model::{load, tags};
use system_tests::fixture;

fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("fixtures/saved_model")
}

#[test]
fn a_saved_model_of_tensorflow_answers_as_it_did_there() {
    let session = Session::new(&Graph::new()).unwrap();
    let meta = load(&session, &[tags::SERVING], folder()).unwrap();
    let signature = &meta.signature_def["serving_default"];
    let tensor = |info: &graph_core::format::proto::TensorInfo| match &info.encoding {
        Some(Encoding::Name(name)) => session.graph().tensor(name).unwrap(),
        other => panic!("a tensor of one name, not {other:?}"),
    };
    let (x, y) = (tensor(&signature.inputs["x"]), tensor(&signature.outputs["y"]));
    let answer: Value = session.run(&y, feed! { x => [[1.0f32, 2.0], [-0.5, 0.25]] }).unwrap();
    let expected = fixture::read("saved_model.txt");
    let expected: Vec<f32> = expected.split_whitespace().map(|word| word.parse().unwrap()).collect();
    assert_eq!(answer.as_slice::<f32>().unwrap().len(), expected.len());
    for (got, expected) in answer.as_slice::<f32>().unwrap().iter().zip(expected) {
        assert!((got - expected).abs() < 1e-6, "{answer}");
    }
}

#[test]
fn its_other_graph_is_found_by_its_tags() {
    let session = Session::new(&Graph::new()).unwrap();
    load(&session, &["gpu", tags::TRAINING], folder()).unwrap();
    let bias: Vec<f32> = session.run(session.graph().tensor("bias/read").unwrap(), ()).unwrap();
    assert_eq!(bias, [0.1, 0.2, 0.3]);
}
