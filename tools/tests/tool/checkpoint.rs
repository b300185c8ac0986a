use graph_core::format::checkpoint::{BundleWriter, write_state};
use graph_core::format::proto::{CheckpointState, DataType};

use super::*;

/// A checkpoint of numbers with a NaN, of strings and of integers; its prefix.
fn write_checkpoint(folder: &Path) -> PathBuf {
    let prefix = folder.join("model.ckpt-3");
    let mut writer = BundleWriter::create(&prefix).unwrap();
    let floats = [1.0f32, f32::NAN, -3.0, 2.0].map(f32::to_le_bytes).concat();
    writer.add("a/weights", DataType::DtFloat, &[2, 2], &floats).unwrap();
    writer.add_strings("names", &[2], &[&b"one"[..], b"two"]).unwrap();
    writer.add("step", DataType::DtInt64, &[], &7i64.to_le_bytes()).unwrap();
    writer.finish().unwrap();
    prefix
}

fn checkpoint(path: &Path, options: &[&str]) -> Output {
    let start = ["checkpoint".as_ref(), path.as_os_str()];
    graph(start.into_iter().chain(options.iter().map(|option| option.as_ref())))
}

#[test]
fn tensors_are_listed_with_statistics() {
    let folder = tempfile::tempdir().unwrap();
    let prefix = write_checkpoint(folder.path());
    let out = stdout(checkpoint(&prefix, &[]));
    assert_eq!(line(&out, "a/weights"), "a/weights float [2,2] -3 2 0 2.16025 1 ok");
    assert_eq!(line(&out, "step"), "step int64 [] 7 7 7 0 0 ok");
    assert_eq!(line(&out, "names"), "names string [2] ok");
    assert!(
        out.contains("3 tensors, 7 parameters") && out.ends_with("all checksums are right\n"),
        "{out}"
    );
    let report = json(checkpoint(&prefix, &["--json", "--filter", "w"]));
    assert_eq!(report["tensors"].as_array().unwrap().len(), 1);
    assert_eq!(report["tensors"][0]["statistics"]["nan"], 1);
    assert_eq!((&report["verified"], &report["damaged"]), (&1.into(), &0.into()));
}

#[test]
fn any_of_its_files_or_its_folder_means_a_checkpoint() {
    let folder = tempfile::tempdir().unwrap();
    let prefix = write_checkpoint(folder.path());
    let expected = stdout(checkpoint(&prefix, &[]));
    let state = CheckpointState {
        model_checkpoint_path: "model.ckpt-3".to_owned(),
        ..Default::default()
    };
    write_state(folder.path().join("checkpoint"), &state).unwrap();
    for name in [
        "model.ckpt-3.index",
        "model.ckpt-3.data-00000-of-00001",
        "checkpoint",
        "",
    ] {
        assert_eq!(stdout(checkpoint(&folder.path().join(name), &[])), expected, "{name}");
    }
}

#[test]
fn tensorflows_own_checkpoint_is_whole() {
    let prefix = Path::new(env!("CARGO_MANIFEST_DIR")).join("../graph-core/tests/fixtures/tensorflow");
    let report = json(checkpoint(&prefix, &["--json"]));
    assert!(report["verified"].as_u64().unwrap() > 0);
    assert_eq!(report["damaged"], 0);
}

#[test]
fn damage_is_found_and_the_rest_still_listed() {
    let folder = tempfile::tempdir().unwrap();
    let prefix = write_checkpoint(folder.path());
    let data = folder.path().join("model.ckpt-3.data-00000-of-00001");
    let mut bytes = std::fs::read(&data).unwrap();
    bytes[1] ^= 1;
    std::fs::write(&data, &bytes).unwrap();
    let output = checkpoint(&prefix, &[]);
    assert_eq!(output.status.code(), Some(1));
    let out = text_of(&output.stdout);
    assert_eq!(line(&out, "a/weights float"), "a/weights float [2,2] DAMAGED");
    assert!(line(&out, "step").ends_with("ok"), "{out}");
    assert!(
        out.contains("1 tensor damaged:\n  a/weights: ") && out.contains("checksum"),
        "{out}"
    );

    std::fs::write(&data, &bytes[..10]).unwrap();
    let report: serde_json::Value = serde_json::from_slice(&checkpoint(&prefix, &["--json"]).stdout).unwrap();
    assert_eq!(report["damaged"], 3);
}

#[test]
fn what_is_no_checkpoint_is_an_error() {
    let folder = tempfile::tempdir().unwrap();
    let prefix = write_checkpoint(folder.path());
    let index = folder.path().join("model.ckpt-3.index");
    let bytes = std::fs::read(&index).unwrap();
    std::fs::write(&index, &bytes[..bytes.len() - 1]).unwrap();
    let (error, code) = failure(checkpoint(&prefix, &[]));
    assert!(
        code == 1 && error.contains("DataLoss") && error.contains("model.ckpt-3.index"),
        "{error}"
    );
    let (error, code) = failure(graph(["checkpoint", "-"]));
    assert!(code == 1 && error.contains("standard input"), "{error}");
}
