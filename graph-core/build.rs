//! Compiles the repository's `proto/` folder into message types and a descriptor set for their text format.

use std::env;
use std::error::Error;
use std::fs;
use std::path::{Path, PathBuf};

use prost::Message;

fn main() -> Result<(), Box<dyn Error>> {
    let protos = Path::new(&env::var("CARGO_MANIFEST_DIR")?).join("../proto");
    println!("cargo:rerun-if-changed={}", protos.display());
    println!("cargo:rerun-if-changed=build.rs");
    let mut files: Vec<PathBuf> = fs::read_dir(&protos)?
        .map(|entry| entry.map(|e| e.path()))
        .collect::<Result<_, _>>()?;
    files.retain(|path| path.extension().is_some_and(|ext| ext == "proto"));
    files.sort();

    let mut descriptors = protox::compile(&files, [&protos])?;
    prost_build::Config::new()
        .btree_map(["."]) // map entries in key order: the same message is always the same bytes
        .boxed(".tensorflow.AttrValue.value.tensor") // else every attribute is as large as a TensorProto
        .boxed(".tensorflow.AttrValue.value.list")
        .enable_type_names()
        .compile_fds(descriptors.clone())?;

    // Comments became docs; the text format has no use for them.
    for file in &mut descriptors.file {
        file.source_code_info = None;
    }
    let out = PathBuf::from(env::var("OUT_DIR")?).join("descriptors.bin");
    fs::write(out, descriptors.encode_to_vec())?;
    Ok(())
}
