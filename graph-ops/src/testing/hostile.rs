//! Every op on inputs and attributes that nobody would write: an error is fine, a panic is not.

use std::panic::{AssertUnwindSafe, catch_unwind};

use graph_core::graph::builder::constant_in;
use graph_core::graph::{OpBuilder, Tensor};
use graph_core::op::{ArgDef, ArgType, AttrDef, AttrType, AttrValue, ControlFlow, OpDefinition};
use graph_core::session::{Feeds, Session};
use graph_core::{Complex, DType, Graph, PartialShape, Result, Value};

/// How often each op is tried, each time with inputs that the graph knows and with inputs that only the run knows.
const ROUNDS: u64 = 60;

/// Ops that end the process or touch files by design.
const LEFT_OUT: &[&str] = &[
    "Abort",
    "Save",
    "SaveV2",
    "SaveSlices",
    "Restore",
    "RestoreV2",
    "RestoreSlice",
];

/// A generator of plain numbers: SplitMix64.
struct Dice(u64);

impl Dice {
    fn throw(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, bound: usize) -> usize {
        (self.throw() % bound as u64) as usize
    }

    fn one_of<T: Clone>(&mut self, choices: &[T]) -> T {
        choices[self.below(choices.len())].clone()
    }

    fn chance(&mut self, percent: usize) -> bool {
        self.below(100) < percent
    }

    fn shape(&mut self) -> Vec<usize> {
        let rank = self.one_of(&[0, 1, 1, 2, 2, 3, 4, 5]);
        (0..rank).map(|_| self.one_of(&[0, 1, 1, 2, 2, 3, 4])).collect()
    }

    fn integer(&mut self) -> i64 {
        match self.below(20) {
            0 => self.one_of(&[i64::MIN, i32::MIN.into(), -100, 1 << 16, 255]),
            _ => self.one_of(&[-2, -1, 0, 0, 1, 1, 1, 2, 2, 3, 4, 5]),
        }
    }

    fn float(&mut self) -> f64 {
        match self.below(12) {
            0 => self.one_of(&[f64::NAN, f64::INFINITY, f64::NEG_INFINITY, 1e300, -1e-300, -0.0]),
            _ => self.integer() as f64 * 0.5,
        }
    }

    fn value(&mut self, dtype: DType, shape: &[usize]) -> Option<Value> {
        let count = shape.iter().product();
        let value = match dtype {
            DType::String => {
                let words = (0..count).map(|_| self.one_of(&["", "a", "NHWC", "%s {}", "\u{e9}"]).as_bytes().to_vec());
                Value::from_strings(shape, words.collect())
            }
            DType::Bool => Value::from_vec(shape, (0..count).map(|_| self.chance(50)).collect::<Vec<bool>>()),
            DType::Complex64 => {
                let numbers = (0..count).map(|_| Complex::new(self.float() as f32, self.float() as f32));
                Value::from_vec(shape, numbers.collect::<Vec<_>>())
            }
            DType::Complex128 => {
                let numbers = (0..count).map(|_| Complex::new(self.float(), self.float()));
                Value::from_vec(shape, numbers.collect::<Vec<_>>())
            }
            DType::Float32 => Value::from_vec(shape, (0..count).map(|_| self.float() as f32).collect::<Vec<_>>()),
            DType::Float64 => Value::from_vec(shape, (0..count).map(|_| self.float()).collect::<Vec<_>>()),
            DType::Half | DType::BFloat16 => {
                let small = (0..count).map(|_| self.one_of(&[-1.0f64, 0.0, 0.5, 2.0]));
                let small = Value::from_vec(shape, small.collect::<Vec<_>>());
                small.and_then(|small| small.cast_exactly(dtype))
            }
            DType::Int64 => Value::from_vec(shape, (0..count).map(|_| self.integer()).collect::<Vec<_>>()),
            DType::Int32 => Value::from_vec(shape, (0..count).map(|_| self.integer() as i32).collect::<Vec<_>>()),
            DType::Int8 | DType::Int16 | DType::UInt8 | DType::UInt16 | DType::UInt32 | DType::UInt64 => {
                let small = (0..count).map(|_| self.one_of(&[0i64, 1, 2, 3, 100]));
                let small = Value::from_vec(shape, small.collect::<Vec<_>>());
                small.and_then(|small| small.cast_exactly(dtype))
            }
            _ => return None,
        };
        value.ok()
    }

    fn dtype(&mut self, attr: Option<&AttrDef>) -> DType {
        const COMMON: [DType; 6] = [
            DType::Float32,
            DType::Float64,
            DType::Int32,
            DType::Int64,
            DType::Bool,
            DType::String,
        ];
        match attr.map(|attr| attr.allowed_types.as_slice()) {
            Some(allowed) if !allowed.is_empty() => self.one_of(allowed),
            _ => self.one_of(&COMMON),
        }
    }

    /// A value for an attribute; `None` leaves its default.
    fn attr(&mut self, attr: &AttrDef) -> Option<AttrValue> {
        if attr.default.is_some() && self.chance(50) {
            return None;
        }
        let text = |dice: &mut Self| {
            let texts = if attr.allowed_strings.is_empty() {
                vec!["", "SAME", "VALID", "NHWC", "other"]
            } else {
                attr.allowed_strings.clone()
            };
            dice.one_of(&texts).as_bytes().to_vec()
        };
        let list = |dice: &mut Self| dice.one_of(&[0usize, 1, 2, 4, 4, 4]);
        Some(match attr.ty {
            AttrType::String => AttrValue::String(text(self)),
            AttrType::Int => AttrValue::Int(self.integer()),
            AttrType::Float => AttrValue::Float(self.float() as f32),
            AttrType::Bool => AttrValue::Bool(self.chance(50)),
            AttrType::Shape => {
                let dims = self.shape().into_iter().map(|dim| (dim != 3).then_some(dim));
                AttrValue::Shape(PartialShape::from_dims(dims.collect::<Vec<_>>()))
            }
            AttrType::List(AttrType::Int) => AttrValue::IntList((0..list(self)).map(|_| self.integer()).collect()),
            AttrType::List(AttrType::Float) => {
                AttrValue::FloatList((0..list(self)).map(|_| self.float() as f32).collect())
            }
            AttrType::List(AttrType::String) => AttrValue::StringList((0..list(self)).map(|_| text(self)).collect()),
            _ => return None,
        })
    }
}

/// Inputs and attributes for one try.
struct Try {
    attrs: Vec<(&'static str, AttrValue)>,
    /// The inputs of each argument.
    inputs: Vec<Vec<Value>>,
}

/// Draws a try; `None` where the op takes what has no values.
fn draw(op: &OpDefinition, dice: &mut Dice) -> Option<Try> {
    let mut attrs: Vec<(&'static str, AttrValue)> = Vec::new();
    for attr in &op.attrs {
        let counts = op
            .inputs
            .iter()
            .chain(&op.outputs)
            .any(|arg| arg.number == Some(attr.name));
        match attr.ty {
            AttrType::Type => attrs.push((attr.name, AttrValue::Type(dice.dtype(Some(attr))))),
            AttrType::List(AttrType::Type) => {
                let count = dice.below(4);
                let types = (0..count).map(|_| dice.dtype(Some(attr))).collect();
                attrs.push((attr.name, AttrValue::TypeList(types)));
            }
            AttrType::Int if counts => attrs.push((attr.name, AttrValue::Int(dice.below(4) as i64))),
            AttrType::Tensor => {
                let shape = dice.shape();
                attrs.push((attr.name, AttrValue::Tensor(dice.value(DType::Float32, &shape)?)));
            }
            _ => attrs.extend(dice.attr(attr).map(|value| (attr.name, value))),
        }
    }
    let read = |name: &str| {
        attrs
            .iter()
            .find(|(attr, _)| *attr == name)
            .map(|(_, value)| value.clone())
    };
    let (common, alike) = (dice.shape(), dice.chance(50));
    let mut inputs = Vec::new();
    for arg in &op.inputs {
        let dtypes = dtypes_of(arg, &read)?;
        let mut values = Vec::new();
        for dtype in dtypes {
            // What may be a shape or axes is mostly a vector or a number.
            let index = matches!(arg.ty, ArgType::Fixed(_)) || dtype == DType::Int32;
            let shape = match (index && dice.chance(70), alike && dice.chance(80)) {
                (true, _) => dice.one_of(&[vec![], vec![1], vec![2], vec![common.len()], vec![common.len(), 2]]),
                (_, true) => common.clone(),
                _ => dice.shape(),
            };
            values.push(dice.value(dtype, &shape)?);
        }
        inputs.push(values);
    }
    Some(Try { attrs, inputs })
}

fn dtypes_of(arg: &ArgDef, read: &impl Fn(&str) -> Option<AttrValue>) -> Option<Vec<DType>> {
    let one = match arg.ty {
        ArgType::Fixed(dtype) => dtype,
        ArgType::Attr(name) => match read(name)? {
            AttrValue::Type(dtype) => dtype,
            _ => return None,
        },
        ArgType::List(name) => match read(name)? {
            AttrValue::TypeList(dtypes) => return Some(dtypes),
            _ => return None,
        },
    };
    let count = match arg.number.map(read) {
        None => 1,
        Some(Some(AttrValue::Int(count))) => count as usize,
        Some(_) => return None,
    };
    Some(vec![one; count])
}

impl Try {
    fn build(
        &self,
        op: &OpDefinition,
        graph: &Graph,
        input: impl Fn(&Value) -> Result<Tensor>,
    ) -> Result<(Vec<Tensor>, Vec<Tensor>)> {
        let mut builder = OpBuilder::new(op.name).in_graph(graph);
        let mut all = Vec::new();
        for (name, value) in &self.attrs {
            builder = builder.attr(name, value.clone());
        }
        for (arg, values) in op.inputs.iter().zip(&self.inputs) {
            let tensors = values.iter().map(&input).collect::<Result<Vec<_>>>()?;
            all.extend(tensors.iter().cloned());
            builder = match (arg.is_list(), tensors.as_slice()) {
                (false, [tensor]) => builder.input(tensor),
                _ => builder.input(tensors),
            };
        }
        Ok((all, builder.build_all()?))
    }

    /// With inputs that the graph knows, and their gradients.
    fn with_constants(&self, op: &OpDefinition) -> Result<()> {
        let graph = Graph::new();
        let _default = graph.as_default();
        let (inputs, outputs) = self.build(op, &graph, |value| constant_in(&graph, value.clone(), "x"))?;
        let session = Session::new(&graph)?;
        let _: Vec<Value> = session.run(&outputs, ())?;
        let floating: Vec<&Tensor> = outputs.iter().filter(|output| output.dtype().is_floating()).collect();
        if floating.is_empty() {
            return Ok(());
        }
        let gradients: Vec<Tensor> = graph_core::gradients(floating, &inputs)?
            .build()?
            .into_iter()
            .flatten()
            .collect();
        let _: Vec<Value> = session.run(&gradients, ())?;
        Ok(())
    }

    /// With inputs of which the graph knows nothing but the dtype.
    fn with_feeds(&self, op: &OpDefinition) -> Result<()> {
        let graph = Graph::new();
        let _default = graph.as_default();
        let (inputs, outputs) = self.build(op, &graph, |value| {
            let placeholder = crate::op("Placeholder").in_graph(&graph).attr("dtype", value.dtype());
            placeholder.attr("shape", PartialShape::unknown()).build()
        })?;
        let values = self.inputs.iter().flatten().cloned();
        let feeds = inputs
            .iter()
            .zip(values)
            .fold(Feeds::new(), |feeds, (input, value)| feeds.with(input, value));
        let _: Vec<Value> = Session::new(&graph)?.run(&outputs, feeds)?;
        Ok(())
    }
}

/// How a try is run.
type Way = fn(&Try, &OpDefinition) -> Result<()>;
const WAYS: [(&str, Way); 2] = [("constants", Try::with_constants), ("feeds", Try::with_feeds)];

#[test]
fn no_op_panics_whatever_it_is_given() {
    let mut panicked = Vec::new();
    let (mut tried, mut succeeded) = (0, std::collections::HashSet::new());
    for op in crate::install().ops() {
        let plain = op.control_flow == ControlFlow::None && !op.inputs.iter().any(|arg| arg.is_ref);
        if !plain || LEFT_OUT.contains(&op.name) {
            continue;
        }
        for round in 0..ROUNDS {
            let seed = op
                .name
                .bytes()
                .fold(round, |seed, byte| seed.wrapping_mul(257).wrapping_add(byte.into()));
            let Some(case) = draw(op, &mut Dice(seed)) else {
                continue;
            };
            tried += 1;
            for (way, run) in WAYS {
                match catch_unwind(AssertUnwindSafe(|| run(&case, op))) {
                    Ok(result) => {
                        if result.is_ok() {
                            succeeded.insert(op.name);
                        }
                    }
                    Err(_) => panicked.push(format!(
                        "{} by {way}, round {round}: {:?} {:?}",
                        op.name, case.attrs, case.inputs
                    )),
                }
            }
        }
    }
    assert!(
        panicked.is_empty(),
        "{} of {tried} tries panic:\n{}",
        panicked.len(),
        panicked.join("\n")
    );
    assert!(
        succeeded.len() > 150,
        "only {} ops ever succeed: the tries are too wild",
        succeeded.len()
    );
}
