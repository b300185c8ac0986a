use proptest::prelude::*;

use super::*;

fn floats(values: &[f32]) -> Vec<u8> {
    values.iter().flat_map(|x| x.to_le_bytes()).collect()
}

fn write_sample(prefix: &Path) {
    let mut writer = BundleWriter::create(prefix).unwrap();
    let bytes = floats(&[1.0, -2.5, 3.0, 0.0, 1e30, 7.0]);
    writer.add("dense/weights", DataType::DtFloat, &[2, 3], &bytes).unwrap();
    writer
        .add("step", DataType::DtInt64, &[], &100i64.to_le_bytes())
        .unwrap();
    writer.add("dense/none", DataType::DtDouble, &[0, 4], &[]).unwrap();
    writer.add_strings("words", &[3], &["one", "", "three"]).unwrap();
    writer.finish().unwrap();
}

fn files(dir: &Path) -> Vec<String> {
    let names = fs::read_dir(dir).unwrap();
    let mut names: Vec<_> = names.map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[test]
fn tensors_survive() {
    let dir = tempfile::tempdir().unwrap();
    let prefix = dir.path().join("new/model.ckpt-1");
    write_sample(&prefix);
    assert_eq!(
        files(&dir.path().join("new")),
        ["model.ckpt-1.data-00000-of-00001", "model.ckpt-1.index"]
    );

    let reader = BundleReader::open(&prefix).unwrap();
    let names: Vec<_> = reader.entries().keys().collect();
    assert_eq!(names, ["dense/none", "dense/weights", "step", "words"]);
    let weights = reader.read("dense/weights").unwrap();
    assert_eq!((weights.dtype, weights.shape), (DataType::DtFloat, vec![2, 3]));
    assert_eq!(weights.bytes, floats(&[1.0, -2.5, 3.0, 0.0, 1e30, 7.0]));
    assert_eq!(reader.read("step").unwrap().bytes, 100i64.to_le_bytes());
    assert_eq!(reader.read("dense/none").unwrap().shape, [0, 4]);
    let words: Vec<Vec<u8>> = ["one", "", "three"].map(Vec::from).into();
    assert_eq!(reader.read_strings("words").unwrap(), (vec![3], words));
}

#[test]
fn reads_what_tensorflow_wrote() {
    let dir = tempfile::tempdir().unwrap();
    let prefix = dir.path().join("tf");
    fs::write(
        index_path(&prefix),
        include_bytes!("../../tests/fixtures/tensorflow.index"),
    )
    .unwrap();
    let data = include_bytes!("../../tests/fixtures/tensorflow.data-00000-of-00001");
    fs::write(data_path(&prefix, 0, 1), data).unwrap();

    let reader = BundleReader::open(&prefix).unwrap();
    assert_eq!(reader.entries().len(), 43);
    assert_eq!(reader.read("layer/7/bias").unwrap().bytes, floats(&[7.0, 7.5]));
    assert_eq!(reader.read("flag").unwrap().bytes, [1]);
    let (shape, words) = reader.read_strings("words").unwrap();
    assert_eq!((shape, words[3].len()), (vec![2, 2], 300));
    assert_eq!(words[0], b"one");

    // And writes the same bytes.
    let again = dir.path().join("again");
    let mut writer = BundleWriter::create(&again).unwrap();
    for (name, entry) in reader.entries() {
        match entry.dtype() {
            DataType::DtString => {
                let (shape, strings) = reader.read_strings(name).unwrap();
                writer.add_strings(name, &shape, &strings).unwrap();
            }
            _ => {
                let tensor = reader.read(name).unwrap();
                writer.add(name, tensor.dtype, &tensor.shape, &tensor.bytes).unwrap();
            }
        }
    }
    writer.finish().unwrap();
    assert_eq!(fs::read(data_path(&again, 0, 1)).unwrap(), data);
    assert_eq!(
        fs::read(index_path(&again)).unwrap(),
        include_bytes!("../../tests/fixtures/tensorflow.index")
    );
}

#[test]
fn what_cannot_be_saved_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let mut writer = BundleWriter::create(dir.path().join("p")).unwrap();
    let mut refused =
        |name, dtype, shape: &[i64], bytes: &[u8]| writer.add(name, dtype, shape, bytes).unwrap_err().to_string();
    assert!(refused("", DataType::DtFloat, &[], &[0; 4]).contains("needs a name"));
    assert!(refused("x", DataType::DtFloat, &[2], &[0; 4]).contains("4 bytes for DT_FLOAT of shape [2]"));
    assert!(refused("x", DataType::DtFloat, &[-1, -4], &[0; 16]).contains("shape"));
    assert!(refused("x", DataType::DtFloat, &[i64::MAX, 8], &[0; 16]).contains("shape"));
    assert!(refused("x", DataType::DtString, &[], &[]).contains("DT_STRING"));
    assert!(refused("x", DataType::DtFloatRef, &[], &[0; 4]).contains("DT_FLOAT_REF"));
    writer.add("x", DataType::DtBool, &[], &[1]).unwrap();
    let error = writer.add("x", DataType::DtBool, &[], &[1]).unwrap_err().to_string();
    assert!(error.contains("taken"), "{error}");
    assert!(writer.add_strings("s", &[2], &["one"]).is_err());
}

#[test]
fn an_unfinished_checkpoint_leaves_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let mut writer = BundleWriter::create(dir.path().join("p")).unwrap();
    writer.add("x", DataType::DtBool, &[], &[1]).unwrap();
    drop(writer);
    assert!(files(dir.path()).is_empty());
    assert!(BundleReader::open(dir.path().join("p")).is_err());
}

#[test]
fn a_missing_tensor_or_data_file_is_an_error() {
    let dir = tempfile::tempdir().unwrap();
    let prefix = dir.path().join("p");
    write_sample(&prefix);
    let reader = BundleReader::open(&prefix).unwrap();
    assert!(reader.read("no").unwrap_err().to_string().contains("'no'"));
    assert!(reader.read("words").is_err());
    assert!(reader.read_strings("step").is_err());
    fs::remove_file(data_path(&prefix, 0, 1)).unwrap();
    assert!(reader.read("step").is_err());
}

#[test]
fn the_state_file_survives() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("checkpoint");
    let state = CheckpointState {
        model_checkpoint_path: "model.ckpt-2".to_string(),
        all_model_checkpoint_paths: vec!["model.ckpt-1".to_string(), "model.ckpt-2".to_string()],
        ..Default::default()
    };
    write_state(&path, &state).unwrap();
    write_state(&path, &state).unwrap();
    assert_eq!(read_state(&path).unwrap(), state);
    assert_eq!(files(dir.path()), ["checkpoint"]);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn a_damaged_tensor_is_noticed(at in any::<prop::sample::Index>(), flip in 1..=255u8, cut in any::<bool>()) {
        let dir = tempfile::tempdir().unwrap();
        let prefix = dir.path().join("p");
        write_sample(&prefix);
        let path = data_path(&prefix, 0, 1);
        let mut data = fs::read(&path).unwrap();
        let at = at.index(data.len());
        if cut {
            data.truncate(at);
        } else {
            data[at] ^= flip;
        }
        fs::write(&path, data).unwrap();
        let reader = BundleReader::open(&prefix).unwrap();
        let intact = reader.read("dense/weights").is_ok()
            && reader.read("step").is_ok()
            && reader.read_strings("words").is_ok();
        prop_assert!(!intact);
    }
}
