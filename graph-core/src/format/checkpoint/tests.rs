use proptest::prelude::*;

use super::files::{data_path, index_path, names_in};
use super::*;
use crate::format::proto::BundleHeaderProto;
use crate::format::proto::bundle_header_proto::Endianness;
use crate::format::{Message, table};
use crate::value::Value;

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
    let mut names = names_in(dir).unwrap();
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
        include_bytes!("../../../tests/fixtures/tensorflow.index"),
    )
    .unwrap();
    let data = include_bytes!("../../../tests/fixtures/tensorflow.data-00000-of-00001");
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
        include_bytes!("../../../tests/fixtures/tensorflow.index")
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

/// What a machine of the other byte order, or a later TensorFlow, says in the index of its checkpoints.
#[test]
fn a_checkpoint_of_another_byte_order_or_version_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let prefix = dir.path().join("p");
    write_sample(&prefix);
    let index = index_path(&prefix);
    let rows = table::decode(&fs::read(&index).unwrap(), &index).unwrap();
    let little = BundleHeaderProto::decode(rows[0].1.as_slice()).unwrap();
    let with_header = |change: &dyn Fn(&mut BundleHeaderProto)| {
        let (mut rows, mut header) = (rows.clone(), little.clone());
        change(&mut header);
        rows[0].1 = header.encode_to_vec();
        let rows = rows.iter().map(|(key, value)| (key.as_slice(), value.as_slice()));
        fs::write(&index, table::encode(rows).unwrap()).unwrap();
        BundleReader::open(&prefix).err()
    };
    let error = with_header(&|header| header.endianness = Endianness::Big.into()).unwrap();
    assert_eq!(error.class(), "InvalidArgument");
    assert!(error.to_string().contains("p.index: only little-endian"), "{error}");
    assert!(error.to_string().contains("this one is BIG"), "{error}");
    let error = with_header(&|header| header.version.as_mut().unwrap().min_consumer = 2).unwrap();
    assert!(error.to_string().contains("of version 2"), "{error}");
    assert!(with_header(&|_| ()).is_none());
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

#[test]
fn values_of_every_dtype_survive() {
    use half::{bf16, f16};
    use num_complex::Complex;
    let dir = tempfile::tempdir().unwrap();
    let prefix = dir.path().join("p");
    let values: Vec<Value> = vec![
        [1.5f32, -0.0, f32::INFINITY].into(),
        [[1.5f64], [2.5]].into(),
        [f16::from_f32(0.5)].into(),
        [bf16::from_f32(0.5)].into(),
        [-1i8, 1].into(),
        [-1i16].into(),
        Value::scalar(-1i32),
        Value::scalar(i64::MIN),
        [255u8].into(),
        [u16::MAX].into(),
        [u32::MAX].into(),
        [u64::MAX].into(),
        [true, false].into(),
        [Complex::new(1.0f32, -2.0)].into(),
        [Complex::new(1.0f64, -2.0)].into(),
        Value::from_strings([2], vec![b"one".to_vec(), Vec::new()]).unwrap(),
        Value::zeros(crate::DType::Float32, [0, 3]).unwrap(),
    ];
    let mut writer = BundleWriter::create(&prefix).unwrap();
    for (number, value) in values.iter().enumerate() {
        writer.add_value(&number.to_string(), value).unwrap();
    }
    writer.finish().unwrap();
    let reader = BundleReader::open(&prefix).unwrap();
    for (number, value) in values.iter().enumerate() {
        let name = number.to_string();
        assert_eq!(reader.value(&name).unwrap(), *value);
        let told = reader.dtype_and_shape(&name).unwrap().unwrap();
        assert_eq!(told, (value.dtype(), value.shape().clone()));
    }
    assert_eq!(reader.value("absent").unwrap_err().class(), "NotFound");
    assert!(reader.dtype_and_shape("absent").unwrap().is_none());
}

fn write_step(prefix: &Path, step: i64) {
    let mut writer = BundleWriter::create(prefix).unwrap();
    writer.add_value("step", &Value::scalar(step)).unwrap();
    writer.finish().unwrap();
}

fn read_step(prefix: &Path) -> i64 {
    let step = BundleReader::open(prefix).unwrap().value("step").unwrap();
    step.to_scalar().unwrap()
}

#[test]
fn a_replaced_checkpoint_is_whole_until_the_new_index_is_there() {
    let dir = tempfile::tempdir().unwrap();
    let prefix = dir.path().join("p");
    write_step(&prefix, 1);
    let old_index = fs::read(index_path(&prefix)).unwrap();
    let old_data = fs::read(data_path(&prefix, 0, 1)).unwrap();
    write_step(&prefix, 2);
    assert_eq!(read_step(&prefix), 2);
    let new = ["p.data-00000-of-00002", "p.data-00001-of-00002", "p.index"];
    assert_eq!(files(dir.path()), new);
    // As a process leaves it that dies before it has renamed the index.
    fs::write(index_path(&prefix), &old_index).unwrap();
    fs::write(data_path(&prefix, 0, 1), &old_data).unwrap();
    assert_eq!(read_step(&prefix), 1);
    write_step(&prefix, 3);
    assert_eq!(
        (read_step(&prefix), files(dir.path())),
        (3, new.map(String::from).into())
    );
    write_step(&prefix, 4);
    assert_eq!(read_step(&prefix), 4);
    assert_eq!(files(dir.path()), ["p.data-00000-of-00001", "p.index"]);
}

#[test]
fn a_checkpoint_is_extended_under_another_name() {
    let dir = tempfile::tempdir().unwrap();
    let (part, prefix) = (dir.path().join("part"), dir.path().join("p"));
    write_sample(&part);
    let mut writer = BundleWriter::extend(&part, &prefix).unwrap();
    writer.add_value("more", &Value::string("text")).unwrap();
    assert!(writer.add_value("step", &Value::scalar(1i64)).is_err());
    assert!(!exists(&prefix));
    writer.finish().unwrap();
    assert_eq!(files(dir.path()), ["p.data-00000-of-00001", "p.index"]);
    let reader = BundleReader::open(&prefix).unwrap();
    assert_eq!(reader.entries().len(), 5);
    assert_eq!(reader.value("more").unwrap(), Value::string("text"));
    assert_eq!(reader.value("step").unwrap(), Value::scalar(100i64));
    assert_eq!(reader.value("words").unwrap().num_elements(), 3);

    write_sample(&part);
    drop(BundleWriter::extend(&part, &prefix).unwrap());
    assert_eq!(files(dir.path()), ["p.data-00000-of-00001", "p.index"]);
    assert_eq!(BundleWriter::extend(&part, &prefix).err().unwrap().class(), "NotFound");
}

#[test]
fn checkpoints_are_merged_by_renaming_their_data() {
    let dir = tempfile::tempdir().unwrap();
    let part = |name: &str| dir.path().join(name);
    let prefix = dir.path().join("p");
    for _ in 0..2 {
        write_step(&part("a"), 7);
        let mut writer = BundleWriter::create(part("b")).unwrap();
        writer.add_value("words", &Value::string("text")).unwrap();
        writer.finish().unwrap();
        merge(&[part("a"), part("b")], &prefix).unwrap();
        let reader = BundleReader::open(&prefix).unwrap();
        assert_eq!(reader.value("step").unwrap(), Value::scalar(7i64));
        assert_eq!(reader.value("words").unwrap(), Value::string("text"));
        assert_eq!(
            files(dir.path()),
            ["p.data-00000-of-00002", "p.data-00001-of-00002", "p.index"]
        );
    }
    write_step(&part("a"), 8);
    merge(&[part("a")], &prefix).unwrap();
    assert_eq!(files(dir.path()), ["p.data-00000-of-00001", "p.index"]);
    write_step(&part("a"), 9);
    let error = merge(&[part("a"), prefix.clone()], part("q")).unwrap_err();
    assert!(error.to_string().contains("'step'"), "{error}");
    assert_eq!((read_step(&part("a")), read_step(&prefix)), (9, 8));
    assert_eq!(merge(&[part("absent")], &prefix).unwrap_err().class(), "NotFound");
    assert_eq!(merge::<&Path>(&[], &prefix).unwrap_err().class(), "InvalidArgument");
}

#[test]
fn what_a_dead_process_left_is_removed() {
    let dir = tempfile::tempdir().unwrap();
    let prefix = dir.path().join("p");
    write_step(&prefix, 1);
    let writer = BundleWriter::create(dir.path().join("p-2")).unwrap();
    let unfinished = files(dir.path())
        .into_iter()
        .find(|name| name.contains("tempstate"))
        .unwrap();
    // No process has the largest number, and this one has not come to the second.
    for name in [
        "p-3.index.tempstate4294967295-0".to_owned(),
        "p.tempstate4294967295-7.data-00000-of-00001".to_owned(),
        format!("p-3.index.tempstate{}-99999999", std::process::id()),
        "q.index.tempstate4294967295-0".to_owned(),
        "p.tempstate".to_owned(),
    ] {
        fs::write(dir.path().join(name), "x").unwrap();
    }
    assert_eq!(remove_leftovers(&prefix).unwrap(), 3);
    let left = [
        "p.data-00000-of-00001",
        "p.index",
        "p.tempstate",
        "q.index.tempstate4294967295-0",
    ];
    let mut left: Vec<String> = left.map(String::from).into();
    left.push(unfinished);
    left.sort();
    assert_eq!(files(dir.path()), left);
    drop(writer);
    assert_eq!(remove_leftovers(dir.path().join("absent/p")).unwrap(), 0);
}

#[test]
fn a_removed_checkpoint_leaves_its_namesakes() {
    let dir = tempfile::tempdir().unwrap();
    for name in ["p-1", "p-10"] {
        write_step(&dir.path().join(name), 1);
        fs::write(meta_graph_path(dir.path().join(name)), "").unwrap();
    }
    remove(dir.path().join("p-1")).unwrap();
    remove(dir.path().join("p-1")).unwrap();
    assert_eq!(
        files(dir.path()),
        ["p-10.data-00000-of-00001", "p-10.index", "p-10.meta"]
    );
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
