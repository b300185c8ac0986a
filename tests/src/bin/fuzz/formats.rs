//! The formats: small whole files of each, its reader, and how to damage it.

use std::fs;
use std::io::{Read, Write};
use std::path::Path;

use fastrand::Rng;
use flate2::read::GzDecoder;
use flate2::write::GzEncoder;
use graph_core::format::checkpoint::{self, BundleReader, BundleWriter};
use graph_core::format::events::{EventReader, EventWriter, event_files};
use graph_core::format::freeze::freeze;
use graph_core::format::graph_def::ExportOptions;
use graph_core::format::graph_file::GraphFile;
use graph_core::format::import::ImportOptions;
use graph_core::format::message_graph::MessageGraph;
use graph_core::format::meta_graph::MetaGraphOptions;
use graph_core::format::proto::summary::value::Value as SummaryValue;
use graph_core::format::proto::{
    AttrValue, CheckpointState, DataType, GraphDef, MetaGraphDef, NodeDef, SavedModel, Summary, TensorShapeProto,
    attr_value, summary, tensor_shape_proto,
};
use graph_core::format::{Message, Name, parse_message, table, text, tf_record};
use graph_core::{DType, Graph, PartialShape, Result, Tensor, Value, Variable, feed};
use graph_ops::train::{AdamOptimizer, Optimizer};
use graph_ops::{array, control, math, nn, state};

use crate::mutate;

/// What a reader says of a file: nothing, or why not.
type Verdict = std::result::Result<(), String>;

/// A format that is read.
pub struct Format {
    pub name: &'static str,
    /// Small whole files.
    pub seeds: fn() -> Vec<Vec<u8>>,
    /// A damaged one.
    pub mutate: fn(&mut Rng, &[Vec<u8>]) -> Vec<u8>,
    /// Reads one, with a folder to put files in.
    pub read: fn(&Path, &[u8]) -> Verdict,
    /// The memory that reading may take, in bytes, whatever the size of the file.
    pub memory: usize,
    /// The memory that reading may take for each byte of the file.
    pub memory_per_byte: usize,
}

const MEBIBYTE: usize = 1 << 20;

/// All formats.
pub fn all() -> Vec<Format> {
    // Messages grow when they become objects; a constant may repeat its last element, within the importer's limit.
    let graphs = |name, seeds, mutate, read| Format {
        name,
        seeds,
        mutate,
        read,
        memory: 600 * MEBIBYTE,
        memory_per_byte: 2_000,
    };
    vec![
        graphs("graph-def", graph_seeds, damaged_graph, read_graph),
        graphs("graph-text", graph_text_seeds, mutate::bytes, read_graph),
        graphs("meta-graph", meta_graph_seeds, mutate::bytes, read_meta_graph),
        graphs("graph-file", graph_file_seeds, mutate::bytes, read_graph_file),
        Format {
            name: "events",
            seeds: event_seeds,
            mutate: |random, seeds| mutate::beneath(random, seeds, records, framed),
            read: read_events,
            memory: MEBIBYTE,
            memory_per_byte: 1_000,
        },
        Format {
            name: "checkpoint",
            seeds: checkpoint_seeds,
            mutate: |random, seeds| mutate::beneath(random, seeds, table_rows, table_of),
            read: read_checkpoint,
            memory: MEBIBYTE,
            memory_per_byte: 1_000,
        },
        Format {
            name: "checkpoint-state",
            seeds: state_seeds,
            mutate: mutate::bytes,
            read: read_state,
            memory: MEBIBYTE,
            memory_per_byte: 2_000,
        },
        Format {
            name: "idx",
            seeds: idx_seeds,
            mutate: |random, seeds| mutate::beneath(random, seeds, unzipped, |parts| zipped(&parts.concat())),
            read: read_idx,
            memory: MEBIBYTE,
            // Gzip shrinks zeros a thousandfold, and they are there then.
            memory_per_byte: 4_000,
        },
    ]
}

fn verdict<T>(result: Result<T>) -> Verdict {
    result.map(drop).map_err(|error| error.to_string())
}

/// A graph with most of what a graph can hold: variables, slots, branches, strings, constants of several dtypes.
fn sample_graph() -> Graph {
    let build = || -> Result<Graph> {
        let graph = Graph::new();
        graph.set_random_seed(7);
        let _default = graph.as_default();
        let x = array::placeholder::<f32>([None, Some(3)]).name("x").build()?;
        let flag = array::placeholder::<bool>(PartialShape::scalar())
            .name("flag")
            .build()?;
        let w = Variable::new([[0.5f32, -0.5], [1.0, 2.0], [0.0, 0.25]])
            .name("w")
            .build()?;
        let dropped = nn::dropout(math::matmul(&x, &w), 0.5f32).build()?;
        let y = control::cond(
            &flag,
            || math::square(&dropped).build(),
            || math::negative(&dropped).build(),
        )
        .build()?;
        array::constant(["a", "text"]).name("strings").build()?;
        array::constant([1i64, -2, 3]).name("numbers").build()?;
        array::constant([half::f16::ONE; 5]).name("halves").build()?;
        let loss = math::reduce_mean(y).name("loss").build()?;
        AdamOptimizer::new(0.1f32).minimize(&loss, &[w])?;
        state::global_variables_initializer()?;
        Ok(graph)
    };
    build().expect("the sample graph builds")
}

/// A graph of ops that take axes, sizes, indices and windows, which damage makes wrong: all summed up in `loss`.
fn sample_ops() -> Graph {
    let build = || -> Result<Graph> {
        let graph = Graph::new();
        let _default = graph.as_default();
        let x = array::placeholder::<f32>([None, Some(3)]).name("x").build()?;
        let images = array::reshape(array::tile(&x, [4, 4]), [1, 4, 4, 3]).build()?;
        let filter = array::constant([[[[0.5f32, -1.0]; 3]; 2]; 2]).build()?;
        let ids = array::constant([2i32, 0, 1]).build()?;
        let table = array::transpose(array::pad(&x, [[1, 1], [0, 2]])).build()?;
        let (top, places) = nn::top_k(&table, 2).build()?;
        let pieces = array::split(&images, 3).axis(3).build()?;
        let results = [
            nn::conv2d(&images, &filter)
                .strides([1, 2, 1, 1])
                .padding("VALID")
                .build()?,
            nn::max_pool(&images)
                .ksize([1, 2, 2, 1])
                .strides([1, 2, 2, 1])
                .padding("SAME")
                .build()?,
            nn::avg_pool(&images)
                .ksize([1, 3, 3, 1])
                .strides([1, 1, 1, 1])
                .padding("SAME")
                .build()?,
            nn::local_response_normalization(&images).build()?,
            nn::softmax(&x).build()?,
            array::gather(&table, &ids, 0).build()?,
            array::slice(&table, [1, 0], [2, -1]).build()?,
            array::concat(vec![pieces[2].clone(), pieces[0].clone()], 3).build()?,
            array::one_hot(&ids, 4).build()?,
            array::reverse(&table, [0]).build()?,
            array::space_to_depth(&images, 2).build()?,
            array::expand_dims(math::cumsum(&x, 1), 0).build()?,
            array::squeeze(array::stack(vec![x.clone(), x.clone()])).build()?,
            math::reduce_max(&images).axis([1, 2]).build()?,
            math::cast(math::argmax(&table, 1), DType::Float32).build()?,
            math::cast(math::range(0, 5), DType::Float32).build()?,
            array::gather_nd(&table, [[0, 0], [1, 0]]).build()?,
            array::scatter_nd([[3], [1]], [1.0f32, 2.0], [5]).build()?,
            math::cast(places, DType::Float32).build()?,
            top,
        ];
        let sums: Vec<Tensor> = results
            .iter()
            .map(|result| math::reduce_sum(result).build())
            .collect::<Result<_>>()?;
        math::add_n(sums).name("loss").build()?;
        Ok(graph)
    };
    build().expect("the sample ops build")
}

fn graph_seeds() -> Vec<Vec<u8>> {
    let bytes = |graph: Graph, output_shapes| graph.to_graph_def(ExportOptions { output_shapes }).encode_to_vec();
    vec![bytes(sample_graph(), true), bytes(sample_ops(), false)]
}

fn as_text<M: Message + Name>(message: &M) -> Vec<u8> {
    text::to_text(message)
        .expect("a message of ours has a text")
        .into_bytes()
}

fn graph_text_seeds() -> Vec<Vec<u8>> {
    vec![as_text(&sample_graph().to_graph_def(ExportOptions::default()))]
}

/// Half of the cases are damaged bytes, half are whole messages of graphs that make no sense.
fn damaged_graph(random: &mut Rng, seeds: &[Vec<u8>]) -> Vec<u8> {
    let seed = &seeds[random.usize(..seeds.len())];
    match GraphDef::decode(seed.as_slice()) {
        Ok(mut message) if random.bool() => {
            for _ in 0..random.usize(1..=3) {
                damage_graph(random, &mut message);
            }
            message.encode_to_vec()
        }
        _ => mutate::bytes(random, seeds),
    }
}

/// Sizes that no graph has, or that are too large for one.
const SIZES: [i64; 10] = [i64::MIN, -2, -1, 0, 1, 2, 7, 1 << 31, 1 << 40, i64::MAX];

fn damage_graph(random: &mut Rng, graph: &mut GraphDef) {
    if graph.node.is_empty() {
        return;
    }
    let nodes = graph.node.len();
    let (at, other) = (random.usize(..nodes), random.usize(..nodes));
    let other = graph.node[other].clone();
    let node = &mut graph.node[at];
    let key = |random: &mut Rng, node: &NodeDef| {
        let keys: Vec<&String> = node.attr.keys().collect();
        (!keys.is_empty()).then(|| keys[random.usize(..keys.len())].clone())
    };
    match random.u8(..6) {
        0 => node.op = other.op,
        1 if !node.input.is_empty() => {
            let input = random.usize(..node.input.len());
            let slot = SIZES[random.usize(..SIZES.len())];
            node.input[input] = if random.bool() {
                other.name
            } else {
                format!("{}:{slot}", other.name)
            };
        }
        2 => {
            node.input.pop();
        }
        3 => {
            if let (Some(mine), Some(theirs)) = (key(random, node), key(random, &other)) {
                node.attr.insert(mine, other.attr[&theirs].clone());
            }
        }
        4 => {
            if let Some(mine) = key(random, node) {
                node.attr.remove(&mine);
            }
        }
        _ => {
            if let Some(attr) = key(random, node).and_then(|key| node.attr.get_mut(&key)) {
                damage_attr(random, attr);
            }
        }
    }
}

fn damage_attr(random: &mut Rng, attr: &mut AttrValue) {
    let size = SIZES[random.usize(..SIZES.len())];
    let dims = |random: &mut Rng| TensorShapeProto {
        dim: (0..random.usize(..4))
            .map(|_| tensor_shape_proto::Dim {
                size: SIZES[random.usize(..SIZES.len())],
                ..Default::default()
            })
            .collect(),
        unknown_rank: random.u8(..8) == 0,
    };
    match &mut attr.value {
        Some(attr_value::Value::I(number)) => *number = size,
        Some(attr_value::Value::Type(dtype)) => *dtype = random.i32(-1..26) + 100 * random.i32(0..2),
        Some(attr_value::Value::Shape(shape)) => *shape = dims(random),
        Some(attr_value::Value::Tensor(tensor)) => match random.u8(..4) {
            0 => tensor.tensor_shape = Some(dims(random)),
            1 => tensor.dtype = random.i32(0..26),
            2 => tensor.int_val.push(size as i32),
            _ => tensor
                .tensor_content
                .truncate(random.usize(..=tensor.tensor_content.len())),
        },
        Some(attr_value::Value::List(list)) => {
            list.i.push(size);
            list.shape.iter_mut().for_each(|shape| *shape = dims(random));
        }
        Some(attr_value::Value::S(text)) => text.truncate(random.usize(..=text.len())),
        value => *value = None,
    }
}

fn read_graph(_: &Path, bytes: &[u8]) -> Verdict {
    verdict(parse_message::<GraphDef>(bytes).and_then(|message| {
        let graph = Graph::new();
        graph.import(&message, &ImportOptions::verbatim())?;
        // What is accepted must be whole enough to be written and planned.
        graph.to_graph_def(ExportOptions::default());
        let session = graph_core::Session::new(&graph)?;
        if let Ok(init) = graph.operation("init") {
            let _ = session.run::<()>(&init, ());
        }
        if let (Ok(loss), Ok(x)) = (graph.tensor("loss"), graph.tensor("x")) {
            let batch = Value::from([[1.0f32, 2.0, 3.0]]);
            let feeds = match graph.tensor("flag") {
                Ok(flag) => feed! { x => batch, flag => true },
                Err(_) => feed! { x => batch },
            };
            let _ = session.run::<Value>(&loss, feeds);
        }
        Ok(())
    }))
}

fn meta_graph_seeds() -> Vec<Vec<u8>> {
    let message = sample_graph()
        .to_meta_graph(&MetaGraphOptions::default())
        .expect("the sample graph has collections that can be written");
    vec![message.encode_to_vec(), as_text(&message)]
}

fn read_meta_graph(_: &Path, bytes: &[u8]) -> Verdict {
    verdict(parse_message::<MetaGraphDef>(bytes).and_then(|message| {
        let graph = Graph::new();
        graph.import_meta_graph(&message, &ImportOptions::verbatim())?;
        graph.to_meta_graph(&MetaGraphOptions::default())
    }))
}

fn graph_file_seeds() -> Vec<Vec<u8>> {
    let meta_graph = sample_graph()
        .to_meta_graph(&MetaGraphOptions::default())
        .expect("the sample graph has collections that can be written");
    let model = SavedModel {
        saved_model_schema_version: 1,
        meta_graphs: vec![meta_graph],
    };
    let seeds = [graph_seeds(), graph_text_seeds(), meta_graph_seeds()].concat();
    seeds
        .into_iter()
        .chain([model.encode_to_vec(), as_text(&model)])
        .collect()
}

/// A file of any form by its message alone: cut to what a node needs, and frozen.
fn read_graph_file(_: &Path, bytes: &[u8]) -> Verdict {
    verdict(GraphFile::parse(bytes).and_then(|file| {
        file.to_bytes(true)?;
        let message = file.graph_def()?;
        let graph = MessageGraph::new(message);
        if let Some(last) = message.node.last() {
            graph.extract(&[&last.name])?;
            freeze(message, &[&last.name], |_| Value::from_vec([3, 2], [0.5f32; 6]))?;
        }
        Ok(())
    }))
}

fn event_seeds() -> Vec<Vec<u8>> {
    let folder = system_tests::scratch();
    let write = || -> Result<Vec<u8>> {
        let mut events = EventWriter::create(folder.path())?;
        events.add_graph(&sample_graph().to_graph_def(ExportOptions::default()))?;
        for step in 0..3 {
            let value = summary::Value {
                tag: "loss".to_owned(),
                value: Some(SummaryValue::SimpleValue(0.5)),
                ..Default::default()
            };
            events.add_summary(Summary { value: vec![value] }, step)?;
        }
        let path = events.path().to_owned();
        events.close()?;
        Ok(fs::read(path).expect("the file was just written"))
    };
    vec![write().expect("events can be written")]
}

fn read_events(folder: &Path, bytes: &[u8]) -> Verdict {
    let path = folder.join("events.out.tfevents.1.host");
    fs::write(&path, bytes).map_err(|error| error.to_string())?;
    verdict(event_files(folder).and_then(|files| {
        for file in files {
            for event in EventReader::open(file)? {
                event?;
            }
        }
        Ok(())
    }))
}

/// The records of a file, without their frames.
fn records(file: &[u8]) -> Vec<Vec<u8>> {
    tf_record::RecordReader::new(file, "seed")
        .map_while(Result::ok)
        .collect()
}

fn framed(records: &[Vec<u8>]) -> Vec<u8> {
    let mut file = Vec::new();
    for record in records {
        tf_record::write_record(&mut file, record).expect("memory takes what is written");
    }
    file
}

/// An index and its data in one case: the index's length first.
fn checkpoint_seeds() -> Vec<Vec<u8>> {
    let folder = system_tests::scratch();
    let prefix = folder.path().join("seed");
    let write = || -> Result<()> {
        let mut bundle = BundleWriter::create(&prefix)?;
        let bytes: Vec<u8> = (0..24).collect();
        bundle.add("a/weights", DataType::DtFloat, &[2, 3], &bytes)?;
        bundle.add("b", DataType::DtInt64, &[3], &bytes)?;
        bundle.add_strings("names", &[2], &["one", "two"])?;
        bundle.finish()
    };
    write().expect("a checkpoint can be written");
    let part = |extension: &str| {
        let mut path = prefix.clone().into_os_string();
        path.push(extension);
        fs::read(path).expect("the file was just written")
    };
    vec![joined(&part(".index"), &part(".data-00000-of-00001"))]
}

fn joined(index: &[u8], data: &[u8]) -> Vec<u8> {
    let mut case = (index.len() as u32).to_le_bytes().to_vec();
    case.extend(index);
    case.extend(data);
    case
}

fn parted(case: &[u8]) -> (&[u8], &[u8]) {
    let Some((length, rest)) = case.split_first_chunk::<4>() else {
        return (case, &[]);
    };
    rest.split_at((u32::from_le_bytes(*length) as usize).min(rest.len()))
}

/// Keys and values of the index in turn, then the data.
fn table_rows(case: &[u8]) -> Vec<Vec<u8>> {
    let (index, data) = parted(case);
    let rows = table::decode(index, Path::new("seed")).unwrap_or_default();
    rows.into_iter()
        .flat_map(|(key, value)| [key, value])
        .chain([data.to_vec()])
        .collect()
}

fn table_of(rows: &[Vec<u8>]) -> Vec<u8> {
    let Some((data, rows)) = rows.split_last() else {
        return Vec::new();
    };
    let mut rows: Vec<(&[u8], &[u8])> = rows.chunks_exact(2).map(|row| (&row[0][..], &row[1][..])).collect();
    rows.sort_unstable();
    rows.dedup_by_key(|row| row.0);
    joined(&table::encode(rows).unwrap_or_default(), data)
}

fn read_checkpoint(folder: &Path, case: &[u8]) -> Verdict {
    let (index, data) = parted(case);
    let write = |name: &str, bytes: &[u8]| fs::write(folder.join(name), bytes).map_err(|error| error.to_string());
    write("case.index", index)?;
    write("case.data-00000-of-00001", data)?;
    verdict(BundleReader::open(folder.join("case")).and_then(|bundle| {
        let mut first_error = None;
        for name in bundle.entries().keys() {
            let numbers = bundle.read(name).map(drop);
            let strings = bundle.read_strings(name).map(drop);
            if let (Err(error), Err(_)) = (numbers, strings) {
                first_error.get_or_insert(error);
            }
        }
        first_error.map_or(Ok(()), Err)
    }))
}

fn state_seeds() -> Vec<Vec<u8>> {
    vec![as_text(&CheckpointState {
        model_checkpoint_path: "model-2".to_owned(),
        all_model_checkpoint_paths: vec!["model-1".to_owned(), "model-2".to_owned()],
        all_model_checkpoint_timestamps: vec![1.5, 2.5],
        last_preserved_timestamp: 0.5,
    })]
}

fn read_state(folder: &Path, bytes: &[u8]) -> Verdict {
    let path = folder.join("checkpoint");
    fs::write(&path, bytes).map_err(|error| error.to_string())?;
    verdict(checkpoint::read_state(path))
}

fn idx_seeds() -> Vec<Vec<u8>> {
    let file = |header: &[u32], content: &[u8]| {
        let mut bytes: Vec<u8> = header.iter().flat_map(|word| word.to_be_bytes()).collect();
        bytes.extend(content);
        zipped(&bytes)
    };
    let pixels: Vec<u8> = (0..2 * 784u32).map(|index| (index % 251) as u8).collect();
    vec![file(&[2051, 2, 28, 28], &pixels), file(&[2049, 4], &[0, 9, 3, 7])]
}

fn zipped(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).expect("memory takes what is written");
    encoder.finish().expect("memory takes what is written")
}

fn unzipped(file: &[u8]) -> Vec<Vec<u8>> {
    let mut bytes = Vec::new();
    // What comes before damage is enough.
    let _ = GzDecoder::new(file).read_to_end(&mut bytes);
    vec![bytes]
}

fn read_idx(folder: &Path, bytes: &[u8]) -> Verdict {
    let path = folder.join("case.gz");
    fs::write(&path, bytes).map_err(|error| error.to_string())?;
    let images = lenet::dataset::read_images(&path).map(drop);
    let labels = lenet::dataset::read_labels(&path).map(drop);
    images.or(labels).map_err(|error| error.to_string())
}
