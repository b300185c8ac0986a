//! What is generated from the repository's `proto/` folder is what that folder says.
//!
//! The message types and their descriptors are kept in the repository, so that a build needs no compiler of protobufs. After a
//! change of a `.proto` file, `UPDATE=1 cargo test -p graph-core --test generated` writes them anew.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};

use prost::Message;

/// The generated files in `format/proto/`: the message types, and the descriptor set for their text format.
fn generate() -> [(&'static str, Vec<u8>); 2] {
    let protos = Path::new(env!("CARGO_MANIFEST_DIR")).join("../proto");
    let entries = fs::read_dir(&protos).expect("the folder of .proto files");
    let mut files: Vec<PathBuf> = entries.map(|entry| entry.expect("an entry").path()).collect();
    files.retain(|path| path.extension().is_some_and(|extension| extension == "proto"));
    files.sort();
    let mut descriptors = protox::compile(&files, [&protos]).expect("valid .proto files");

    let out = tempfile::tempdir().expect("a scratch folder");
    prost_build::Config::new()
        .out_dir(out.path())
        .btree_map(["."]) // map entries in key order: the same message is always the same bytes
        .boxed(".tensorflow.AttrValue.value.tensor") // else every attribute is as large as a TensorProto
        .boxed(".tensorflow.AttrValue.value.list")
        .enable_type_names()
        .compile_fds(descriptors.clone())
        .expect("message types");
    let types = fs::read(out.path().join("tensorflow.rs")).expect("the message types");

    // Comments became docs; the text format has no use for them.
    for file in &mut descriptors.file {
        file.source_code_info = None;
    }
    [
        ("tensorflow.rs", types),
        ("descriptors.bin", descriptors.encode_to_vec()),
    ]
}

#[test]
fn the_messages_are_those_of_the_proto_files() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/format/proto");
    for (name, generated) in generate() {
        let path = folder.join(name);
        if env::var_os("UPDATE").is_some() {
            fs::write(&path, &generated).expect("writing what was generated");
        }
        let kept = fs::read(&path).unwrap_or_default();
        assert!(
            kept == generated,
            "{name} is not what proto/ says; `UPDATE=1 cargo test -p graph-core --test generated` makes it anew"
        );
    }
}
