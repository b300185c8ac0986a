//! What TensorFlow's own rewrite makes of random graphs, this one makes of them: the same type attributes, the same casts.

use std::collections::BTreeSet;

use graph_core::graph::{Node, NodeId, OutputInfo, TensorId};
use graph_core::op::{ArgType, AttrValue, Attributes, OpDefinition};
use graph_core::rewrite::{Program, Rewrite};
use graph_core::{DType, PartialShape};
use rustc_hash::FxHashMap;

use super::HALF;
use super::lists::{ALLOW, CLEAR, DENY, INFER};

/// By TensorFlow 1.15; `tests/tensorflow/make_mixed_precision_fixture.py` tells what is in it.
const FIXTURE: &str = include_str!("../../../../tests/fixtures/mixed_precision.txt");

#[test]
fn the_lists_are_tensorflows() {
    for (kind, ours) in [("allow", ALLOW), ("deny", DENY), ("infer", INFER), ("clear", CLEAR)] {
        let heading = format!("list {kind} ");
        let theirs = FIXTURE.lines().find_map(|line| line.strip_prefix(&heading));
        let theirs: BTreeSet<&str> = theirs.expect("the list").split(' ').collect();
        assert_eq!(ours.iter().copied().collect::<BTreeSet<_>>(), theirs, "{kind}");
    }
}

/// A node of the fixture, with the type attributes that an op has of that name, all of its inputs of `float` where they are not
/// fixed.
fn node(name: &str, definition: &'static OpDefinition, inputs: Vec<TensorId>) -> Node {
    let mut attrs = Attributes::new();
    for attr in &definition.attrs {
        let value = match (definition.name, attr.name) {
            ("Placeholder", "dtype") if name == "predicate" => AttrValue::Type(DType::Bool),
            ("Const", "dtype") => AttrValue::Type(DType::Int32),
            ("Cast", "SrcT") => AttrValue::Type(DType::Bool),
            (_, "N") => AttrValue::Int(inputs.len() as i64),
            ("IdentityN", "T") => AttrValue::TypeList(vec![DType::Float32; inputs.len()]),
            (_, "Tidx") => AttrValue::Type(DType::Int32),
            (_, "T" | "dtype" | "DstT") => AttrValue::Type(DType::Float32),
            _ => match &attr.default {
                Some(default) => default.clone(),
                None => continue,
            },
        };
        attrs.set(attr.name, value);
    }
    let mut node = Node {
        name: name.into(),
        definition,
        attrs,
        inputs: inputs.into_iter().collect(),
        control_inputs: Default::default(),
        outputs: Default::default(),
        device: "".into(),
        location: std::panic::Location::caller(),
    };
    let dtypes = definition.outputs.iter().flat_map(|arg| match arg.ty {
        ArgType::Fixed(dtype) => vec![dtype],
        ArgType::Attr(attr) => vec![node.attrs.read::<DType>(attr).expect("a dtype")],
        ArgType::List(attr) => node.attrs.read::<Vec<DType>>(attr).expect("dtypes"),
    });
    let info = |dtype| OutputInfo {
        dtype,
        is_ref: false,
        shape: PartialShape::unknown(),
        handle: None,
    };
    node.outputs = dtypes.map(info).collect();
    node
}

/// A fixture's graph, the outputs of it that become of 16 bits, by node and number, and the casts that are added.
type Rewritten<'a> = (Program, BTreeSet<(&'a str, usize)>, BTreeSet<&'a str>);

/// The fixture's graph whose lines these are.
fn graph<'a>(lines: &[&'a str]) -> Rewritten<'a> {
    let registry = crate::install();
    let mut program = Program::default();
    let mut places: FxHashMap<&str, NodeId> = FxHashMap::default();
    let mut half = BTreeSet::new();
    let mut casts = BTreeSet::new();
    for line in lines {
        if let Some(names) = line.strip_prefix("casts") {
            casts.extend(names.split_whitespace());
            continue;
        }
        let (made, becomes) = line.split_once(" -> ").unwrap_or((line, ""));
        let mut words = made.split(' ');
        let (name, op) = (words.next().unwrap(), words.next().unwrap());
        let inputs = words.map(|input| {
            let (node, slot) = input.split_once(':').unwrap_or((input, "0"));
            TensorId::new(places[node], slot.parse().unwrap())
        });
        let node = node(name, registry.op(op).unwrap(), inputs.collect());
        let origin = program.ids().next().unwrap_or_default();
        places.insert(name, program.push(node, origin));
        let slots = becomes.split_whitespace().map(|slot| slot.parse::<usize>().unwrap());
        half.extend(slots.map(|slot| (name, slot)));
    }
    program.fetches = vec![TensorId::new(places["end"], 0)];
    (program, half, casts)
}

#[test]
fn random_graphs_become_what_tensorflow_makes_of_them() {
    let mut lines = FIXTURE
        .lines()
        .skip_while(|line| !line.starts_with("graph "))
        .peekable();
    let (mut count, mut changed) = (0, 0);
    while let Some(heading) = lines.next() {
        let mut own = Vec::new();
        while let Some(line) = lines.next_if(|line| !line.starts_with("graph ")) {
            own.push(line);
        }
        let (program, half, casts) = graph(&own);
        let after = HALF.apply(&program).unwrap().unwrap_or_else(|| program.clone());
        let (before, added) = after.nodes.split_at(program.nodes.len());
        let mut got = BTreeSet::new();
        for node in before {
            // Both outputs of a Switch are of one type, and the number that a Merge tells is of none.
            let count = if node.op() == "IdentityN" {
                node.outputs.len()
            } else {
                1
            };
            for (slot, output) in node.outputs.iter().take(count).enumerate() {
                if output.dtype == DType::Half {
                    got.insert((&*node.name, slot));
                }
            }
        }
        assert_eq!(got, half, "{heading}: of 16 bits");
        let got: BTreeSet<&str> = added.iter().map(|node| &*node.name).collect();
        assert_eq!(got, casts, "{heading}: casts");
        count += 1;
        changed += half.len();
    }
    assert!(count >= 50 && changed >= 5 * count, "{count} graphs, {changed} changes");
}
