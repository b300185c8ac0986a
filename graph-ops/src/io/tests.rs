//! Checkpoints saved and restored by ops in sessions.

use std::path::{Path, PathBuf};

use graph_core::graph::{Graph, IntoOperand};
use graph_core::session::Session;
use graph_core::{Complex, DType, PartialShape, Result, Value};
use half::{bf16, f16};

use super::*;
use crate::array::{constant, placeholder_of};
use crate::testing::Case;

fn texts(texts: &[&str]) -> Value {
    Value::from_strings(
        [texts.len()],
        texts.iter().map(|text| text.as_bytes().to_vec()).collect(),
    )
    .unwrap()
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// Runs `SaveV2` on these tensors.
fn save(prefix: &Path, names: &[&str], slices: &[&str], values: &[Value]) -> Result<()> {
    let graph = Graph::new();
    let _default = graph.as_default();
    let tensors: Vec<_> = values.iter().map(IntoOperand::into_operand).collect();
    let save = save_v2(text(prefix), texts(names), texts(slices), tensors).build()?;
    Session::new(&graph)?.run(&save, ())
}

/// Runs `RestoreV2`.
fn restore(prefix: &Path, names: &[&str], slices: &[&str], dtypes: &[DType]) -> Result<Vec<Value>> {
    let graph = Graph::new();
    let _default = graph.as_default();
    let tensors = restore_v2(text(prefix), texts(names), texts(slices), dtypes).build()?;
    Session::new(&graph)?.run(&tensors, ())
}

fn scratch() -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let prefix = folder.path().join("p");
    (folder, prefix)
}

#[test]
fn what_is_saved_is_restored_in_every_dtype() {
    let (_folder, prefix) = scratch();
    let values: Vec<Value> = vec![
        [[1.5f32, -0.0]].into(),
        [1.5f64].into(),
        [f16::from_f32(0.5)].into(),
        [bf16::from_f32(0.5)].into(),
        [-1i8].into(),
        [-1i16].into(),
        7i32.into(),
        i64::MIN.into(),
        [255u8].into(),
        [u16::MAX].into(),
        [u32::MAX].into(),
        [u64::MAX].into(),
        [true, false].into(),
        [Complex::new(1.0f32, -2.0)].into(),
        [Complex::new(1.0f64, -2.0)].into(),
        texts(&["one", ""]),
        Value::zeros(DType::Float32, [0, 3]).unwrap(),
    ];
    let names: Vec<String> = (0..values.len()).map(|number| format!("v/{number}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let dtypes: Vec<DType> = values.iter().map(Value::dtype).collect();
    let whole = vec![""; names.len()];
    save(&prefix, &names, &whole, &values).unwrap();
    assert_eq!(restore(&prefix, &names, &whole, &dtypes).unwrap(), values);
}

#[test]
fn slices_are_saved_and_restored() {
    let (_folder, prefix) = scratch();
    let (upper, lower) = ([[0i32, 1, 2]], [[3i32, 4, 5]]);
    let values = [Value::from(upper), lower.into(), [7i32, 8].into()];
    save(&prefix, &["v", "v", "w"], &["2 3 0,1:-", "2 3 1,1:-", ""], &values).unwrap();
    let names = ["v", "v", "v", "w"];
    let restored = restore(
        &prefix,
        &names,
        &["", "2 3 1,1:-", "2 3 -:1,2", "2 1,1"],
        &[DType::Int32; 4],
    )
    .unwrap();
    let expected = [
        [upper[0], lower[0]].into(),
        lower.into(),
        [[1i32, 2], [4, 5]].into(),
        [8i32].into(),
    ];
    assert_eq!(restored, expected);
    let error = restore(&prefix, &["w"], &["3 1,1"], &[DType::Int32]).unwrap_err();
    assert_eq!(error.class(), "InvalidArgument");
}

#[test]
fn restoring_names_all_that_is_wrong() {
    let (_folder, prefix) = scratch();
    save(&prefix, &["a", "b"], &["", ""], &[1.0f32.into(), 2i32.into()]).unwrap();
    let restored = |names: &[&str], dtypes: &[DType]| {
        let error = restore(&prefix, names, &vec![""; names.len()], dtypes).unwrap_err();
        (error.class(), error.to_string())
    };
    let (class, message) = restored(&["a", "x", "y"], &[DType::Float32; 3]);
    assert!(
        class == "NotFound" && message.contains("Key x, y not found"),
        "{message}"
    );
    let (class, message) = restored(&["a", "b"], &[DType::Float64, DType::Float32]);
    assert!(
        class == "InvalidArgument" && message.contains("'a' is float, not double"),
        "{message}"
    );
    assert!(message.contains("'b' is int32, not float"), "{message}");
    let error = restore(&prefix.with_file_name("absent"), &["a"], &[""], &[DType::Float32]).unwrap_err();
    assert_eq!(error.class(), "NotFound");
}

#[test]
fn names_slices_and_prefixes_are_checked() {
    let (folder, prefix) = scratch();
    let one = [Value::from(1.0f32)];
    for (names, slices) in [
        (&["a", "b"][..], &[""][..]),
        (&["a"], &["", ""]),
        (&["a"], &["4"]),
        (&["a"], &["2 0,1"]),
    ] {
        let error = save(&prefix, names, slices, &one).unwrap_err();
        assert_eq!(error.class(), "InvalidArgument", "{names:?} {slices:?}");
    }
    assert_eq!(
        save(Path::new(""), &["a"], &[""], &one).unwrap_err().class(),
        "InvalidArgument"
    );
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
    // What only the run can see is refused there.
    let graph = Graph::new();
    let _default = graph.as_default();
    let names = placeholder_of(DType::String, PartialShape::unknown()).build().unwrap();
    let saved = save_v2(text(&prefix), &names, texts(&[""]), [constant(1.0f32)])
        .build()
        .unwrap();
    let session = Session::new(&graph).unwrap();
    let error = session
        .run(&saved, graph_core::feed! { names => texts(&["a", "b"]) })
        .unwrap_err();
    assert_eq!(error.class(), "InvalidArgument");
    session
        .run(&saved, graph_core::feed! { names => texts(&["a"]) })
        .unwrap();
}

#[test]
fn the_shapes_of_slices_are_known_when_the_graph_is_built() {
    let graph = Graph::new();
    let _default = graph.as_default();
    let dtypes = [DType::Float32; 2];
    let tensors = restore_v2("p", texts(&["a", "b"]), texts(&["", "4 3 0,2:-"]), &dtypes)
        .build()
        .unwrap();
    assert_eq!(tensors[0].shape(), PartialShape::unknown());
    assert_eq!(tensors[1].shape(), [2, 3].into());
    assert_eq!(tensors[0].op().input(1).name(), "RestoreV2/tensor_names:0");
    assert!(restore_v2("p", texts(&["a"]), texts(&[""]), &dtypes).build().is_err());
}

#[test]
fn shards_are_merged_and_their_folder_goes() {
    let (folder, prefix) = scratch();
    let part = |name: &str| folder.path().join("p_temp").join(name);
    save(&part("part-00000-of-00002"), &["a"], &[""], &[1.0f32.into()]).unwrap();
    save(&part("part-00001-of-00002"), &["b"], &[""], &[2.0f32.into()]).unwrap();
    let graph = Graph::new();
    let _default = graph.as_default();
    let base = string_join([constant(text(&prefix)), constant("_temp/part")])
        .build()
        .unwrap();
    let shards: Vec<_> = (0..2)
        .map(|shard| sharded_filename(&base, shard, 2).build().unwrap())
        .collect();
    let merged = merge_v2_checkpoints(&shards, text(&prefix)).build().unwrap();
    let session = Session::new(&graph).unwrap();
    session.run(&merged, ()).unwrap();
    let values = restore(&prefix, &["b", "a"], &["", ""], &[DType::Float32; 2]).unwrap();
    assert_eq!(values, [2.0f32.into(), 1.0f32.into()]);
    assert!(!folder.path().join("p_temp").exists());
    assert_eq!(session.run(&merged, ()).unwrap_err().class(), "NotFound");
}

#[test]
fn joined_texts_must_agree_in_shape() {
    let case = Case::new("StringJoin").input(texts(&["a"])).input(texts(&["a", "b"]));
    assert_eq!(case.run().unwrap_err().class(), "InvalidArgument");
    let graph = Graph::new();
    let _default = graph.as_default();
    assert!(
        string_join([constant(texts(&["a"])), constant(texts(&["a", "b"]))])
            .build()
            .is_err()
    );
    let any = placeholder_of(DType::String, PartialShape::unknown()).build().unwrap();
    let joined = string_join([&any, &constant(texts(&["a"])).build().unwrap()])
        .separator("-")
        .build()
        .unwrap();
    assert_eq!(joined.shape(), [1].into());
}
