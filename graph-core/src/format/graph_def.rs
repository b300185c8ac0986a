//! Graphs, attributes and values to and from TensorFlow's messages.

use std::path::Path;

use crate::dtype::{Complex, DType, Element};
use crate::error::{Error, Result};
use crate::format;
use crate::format::proto::{self, attr_value};
use crate::graph::{Graph, GraphData, Node, NodeId, PRODUCER};
use crate::op::{AttrValue, Attributes, NameAttrList};
use crate::shape::{PartialShape, Shape};
use crate::value::Value;
use half::{bf16, f16};

/// What an exported graph contains beside its nodes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ExportOptions {
    /// Whether each node tells the shapes of its outputs in `_output_shapes`, as TensorBoard's graph tab shows them.
    pub output_shapes: bool,
}

impl Default for ExportOptions {
    fn default() -> Self {
        Self { output_shapes: true }
    }
}

impl Graph {
    /// The graph as TensorFlow's message: nodes in order of creation, versions of TensorFlow 1.15.
    ///
    /// The same graph always gives the same message, and with prost's maps in key order the same bytes.
    pub fn to_graph_def(&self, options: ExportOptions) -> proto::GraphDef {
        self.read(|data| proto::GraphDef {
            node: data.node_ids().map(|id| node_def(data, id, options)).collect(),
            versions: Some(proto::VersionDef {
                producer: PRODUCER,
                ..Default::default()
            }),
            ..Default::default()
        })
    }

    /// Writes the graph to a file, as protobuf's binary or text format. The file appears complete or not at all.
    ///
    /// # Errors
    /// Whatever the operating system refuses, with the path.
    pub fn write_graph_def(&self, path: impl AsRef<Path>, text: bool, options: ExportOptions) -> Result<()> {
        format::write_message(path, &self.to_graph_def(options), text)
    }
}

fn node_def(data: &GraphData, id: NodeId, options: ExportOptions) -> proto::NodeDef {
    let node: &Node = data.node(id);
    let mut input: Vec<String> = node
        .inputs
        .iter()
        .map(|input| data.node(input.node).output_name(input.slot as usize))
        .collect();
    let mut controls: Vec<String> = node
        .control_inputs
        .iter()
        .map(|&control| format!("^{}", data.node(control).name))
        .collect();
    controls.sort_unstable();
    input.append(&mut controls);
    let mut attr: std::collections::BTreeMap<String, proto::AttrValue> = node
        .attrs
        .iter()
        .map(|(name, value)| (name.to_owned(), attr_to_proto(value)))
        .collect();
    if options.output_shapes && !node.outputs.is_empty() {
        let shapes = node.outputs.iter().map(|output| output.shape.clone()).collect();
        attr.insert(
            "_output_shapes".to_owned(),
            attr_to_proto(&AttrValue::ShapeList(shapes)),
        );
    }
    proto::NodeDef {
        name: node.name.to_string(),
        op: node.op().to_owned(),
        input,
        device: node.device.to_string(),
        attr,
        ..Default::default()
    }
}

/// A shape as TensorFlow's message.
pub fn shape_to_proto(shape: &PartialShape) -> proto::TensorShapeProto {
    match shape.dims() {
        None => proto::TensorShapeProto {
            dim: Vec::new(),
            unknown_rank: true,
        },
        Some(dims) => proto::TensorShapeProto {
            dim: dims
                .iter()
                .map(|dim| proto::tensor_shape_proto::Dim {
                    size: dim.map_or(-1, |dim| dim as i64),
                    ..Default::default()
                })
                .collect(),
            unknown_rank: false,
        },
    }
}

/// A shape from TensorFlow's message.
///
/// # Errors
/// `InvalidArgument` for a size below -1, or for dimensions of an unknown rank.
pub fn shape_from_proto(shape: &proto::TensorShapeProto) -> Result<PartialShape> {
    if shape.unknown_rank {
        if !shape.dim.is_empty() {
            return Err(Error::invalid_argument("a shape of unknown rank has dimensions"));
        }
        return Ok(PartialShape::unknown());
    }
    let dims: Vec<Option<usize>> = shape
        .dim
        .iter()
        .map(|dim| match dim.size {
            -1 => Ok(None),
            size => usize::try_from(size)
                .map(Some)
                .map_err(|_| Error::invalid_argument(format!("a dimension of a shape is {size}"))),
        })
        .collect::<Result<_>>()?;
    Ok(PartialShape::from_dims(dims))
}

/// An attribute as TensorFlow's message.
pub fn attr_to_proto(value: &AttrValue) -> proto::AttrValue {
    use attr_value::Value as Proto;
    let list = |list: attr_value::ListValue| Proto::List(Box::new(list));
    let value = match value {
        AttrValue::String(bytes) => Proto::S(bytes.clone()),
        AttrValue::Int(int) => Proto::I(*int),
        AttrValue::Float(float) => Proto::F(*float),
        AttrValue::Bool(flag) => Proto::B(*flag),
        AttrValue::Type(dtype) => Proto::Type(*dtype as i32),
        AttrValue::Shape(shape) => Proto::Shape(shape_to_proto(shape)),
        AttrValue::Tensor(value) => Proto::Tensor(Box::new(value_to_proto(value))),
        AttrValue::Func(func) => Proto::Func(func_to_proto(func)),
        AttrValue::Placeholder(name) => Proto::Placeholder(name.clone()),
        AttrValue::StringList(s) => list(attr_value::ListValue {
            s: s.clone(),
            ..Default::default()
        }),
        AttrValue::IntList(i) => list(attr_value::ListValue {
            i: i.clone(),
            ..Default::default()
        }),
        AttrValue::FloatList(f) => list(attr_value::ListValue {
            f: f.clone(),
            ..Default::default()
        }),
        AttrValue::BoolList(b) => list(attr_value::ListValue {
            b: b.clone(),
            ..Default::default()
        }),
        AttrValue::TypeList(types) => list(attr_value::ListValue {
            r#type: types.iter().map(|dtype| *dtype as i32).collect(),
            ..Default::default()
        }),
        AttrValue::ShapeList(shapes) => list(attr_value::ListValue {
            shape: shapes.iter().map(shape_to_proto).collect(),
            ..Default::default()
        }),
        AttrValue::TensorList(values) => list(attr_value::ListValue {
            tensor: values.iter().map(value_to_proto).collect(),
            ..Default::default()
        }),
        AttrValue::FuncList(funcs) => list(attr_value::ListValue {
            func: funcs.iter().map(func_to_proto).collect(),
            ..Default::default()
        }),
    };
    proto::AttrValue { value: Some(value) }
}

fn func_to_proto(func: &NameAttrList) -> proto::NameAttrList {
    proto::NameAttrList {
        name: func.name.clone(),
        attr: func
            .attrs
            .iter()
            .map(|(name, value)| (name.to_owned(), attr_to_proto(value)))
            .collect(),
    }
}

/// An attribute from TensorFlow's message. Reference types are read as their base types.
///
/// # Errors
/// `InvalidArgument` for a message without a value, for unknown dtypes and for broken shapes and tensors.
pub fn attr_from_proto(attr: &proto::AttrValue) -> Result<AttrValue> {
    use attr_value::Value as Proto;
    let value = attr
        .value
        .as_ref()
        .ok_or_else(|| Error::invalid_argument("the attribute has no value"))?;
    Ok(match value {
        Proto::S(bytes) => AttrValue::String(bytes.clone()),
        Proto::I(int) => AttrValue::Int(*int),
        Proto::F(float) => AttrValue::Float(*float),
        Proto::B(flag) => AttrValue::Bool(*flag),
        Proto::Type(number) => AttrValue::Type(dtype_from_number(*number)?),
        Proto::Shape(shape) => AttrValue::Shape(shape_from_proto(shape)?),
        Proto::Tensor(tensor) => AttrValue::Tensor(value_from_proto(tensor)?),
        Proto::Func(func) => AttrValue::Func(Box::new(func_from_proto(func)?)),
        Proto::Placeholder(name) => AttrValue::Placeholder(name.clone()),
        Proto::List(list) => list_from_proto(list)?,
    })
}

fn list_from_proto(list: &attr_value::ListValue) -> Result<AttrValue> {
    let filled = [
        !list.s.is_empty(),
        !list.f.is_empty(),
        !list.b.is_empty(),
        !list.r#type.is_empty(),
        !list.shape.is_empty(),
        !list.tensor.is_empty(),
        !list.func.is_empty(),
        !list.i.is_empty(),
    ];
    if filled.iter().filter(|&&filled| filled).count() > 1 {
        return Err(Error::invalid_argument("the list attribute mixes kinds of elements"));
    }
    Ok(match filled.iter().position(|&filled| filled) {
        Some(0) => AttrValue::StringList(list.s.clone()),
        Some(1) => AttrValue::FloatList(list.f.clone()),
        Some(2) => AttrValue::BoolList(list.b.clone()),
        Some(3) => AttrValue::TypeList(
            list.r#type
                .iter()
                .map(|&number| dtype_from_number(number))
                .collect::<Result<_>>()?,
        ),
        Some(4) => AttrValue::ShapeList(list.shape.iter().map(shape_from_proto).collect::<Result<_>>()?),
        Some(5) => AttrValue::TensorList(list.tensor.iter().map(value_from_proto).collect::<Result<_>>()?),
        Some(6) => AttrValue::FuncList(list.func.iter().map(func_from_proto).collect::<Result<_>>()?),
        _ => AttrValue::IntList(list.i.clone()),
    })
}

fn func_from_proto(func: &proto::NameAttrList) -> Result<NameAttrList> {
    let mut attrs = Attributes::new();
    for (name, value) in &func.attr {
        attrs.set(name.clone(), attr_from_proto(value)?);
    }
    Ok(NameAttrList {
        name: func.name.clone(),
        attrs,
    })
}

/// The dtype of a `DataType` number; reference types give their base type.
///
/// # Errors
/// `InvalidArgument` for a number that is none.
pub fn dtype_from_number(number: i32) -> Result<DType> {
    const REFERENCE: i32 = 100;
    let base = if number > REFERENCE { number - REFERENCE } else { number };
    DType::from_number(base).ok_or_else(|| Error::invalid_argument(format!("{number} is not a known dtype")))
}

/// A value as TensorFlow's message: one element that fills a splat, raw bytes for all else.
pub fn value_to_proto(value: &Value) -> proto::TensorProto {
    let mut tensor = proto::TensorProto {
        dtype: value.dtype() as i32,
        tensor_shape: Some(shape_to_proto(&PartialShape::from(value.shape()))),
        ..Default::default()
    };
    if let Ok(strings) = value.as_strings() {
        tensor.string_val = strings.to_vec();
        return tensor;
    }
    let size = value.dtype().size().unwrap_or(1);
    let bytes = value.bytes();
    let splat = bytes.len() >= size && bytes.chunks_exact(size).all(|element| element == &bytes[..size]);
    if splat && set_element(&mut tensor, value).is_some() {
        return tensor;
    }
    tensor.tensor_content = bytes.to_vec();
    tensor
}

/// Sets the typed field of a message to the first element of a value.
fn set_element(tensor: &mut proto::TensorProto, value: &Value) -> Option<()> {
    macro_rules! first {
        ($type:ty) => {
            *value.as_slice::<$type>().ok()?.first()?
        };
    }
    match value.dtype() {
        DType::Float32 => tensor.float_val.push(first!(f32)),
        DType::Float64 => tensor.double_val.push(first!(f64)),
        DType::Half => tensor.half_val.push(first!(f16).to_bits().into()),
        DType::BFloat16 => tensor.half_val.push(first!(bf16).to_bits().into()),
        DType::Int8 => tensor.int_val.push(first!(i8).into()),
        DType::Int16 => tensor.int_val.push(first!(i16).into()),
        DType::Int32 => tensor.int_val.push(first!(i32)),
        DType::UInt8 => tensor.int_val.push(first!(u8).into()),
        DType::UInt16 => tensor.int_val.push(first!(u16).into()),
        DType::Int64 => tensor.int64_val.push(first!(i64)),
        DType::UInt32 => tensor.uint32_val.push(first!(u32)),
        DType::UInt64 => tensor.uint64_val.push(first!(u64)),
        DType::Bool => tensor.bool_val.push(first!(bool)),
        DType::Complex64 => {
            let number = first!(Complex<f32>);
            tensor.scomplex_val.extend([number.re, number.im]);
        }
        DType::Complex128 => {
            let number = first!(Complex<f64>);
            tensor.dcomplex_val.extend([number.re, number.im]);
        }
        _ => return None,
    }
    Some(())
}

/// A value from TensorFlow's message.
///
/// A typed list shorter than the shape repeats its last element, which a hostile file can use to ask for far more memory
/// than it takes itself: beyond [`MAX_REPEATED_BYTES`] that is refused.
///
/// # Errors
/// `InvalidArgument` if dtype, shape and contents do not fit together, `Unimplemented` for resources and variants.
pub fn value_from_proto(tensor: &proto::TensorProto) -> Result<Value> {
    let dtype = dtype_from_number(tensor.dtype)?;
    let shape = tensor
        .tensor_shape
        .as_ref()
        .map_or(Ok(PartialShape::scalar()), shape_from_proto)?;
    let shape = shape
        .to_shape()
        .filter(|shape| shape.checked_num_elements().is_some())
        .ok_or_else(|| Error::invalid_argument("the shape of a constant must be known").got(shape))?;
    if dtype == DType::String {
        let strings = repeat(&tensor.string_val, &shape, Vec::new())?;
        return Value::from_strings(shape, strings);
    }
    if !tensor.tensor_content.is_empty() {
        return Value::from_bytes(dtype, shape, &tensor.tensor_content);
    }
    fn fill<T: Element, P: Copy>(elements: &[P], shape: Shape, convert: impl Fn(P) -> T) -> Result<Value> {
        let elements: Vec<T> = elements.iter().map(|&element| convert(element)).collect();
        let elements = repeat(&elements, &shape, T::default())?;
        Value::from_vec(shape, elements)
    }
    fn pairs<P: Copy>(elements: &[P]) -> Result<Vec<(P, P)>> {
        if elements.len() % 2 == 1 {
            return Err(Error::invalid_argument("a complex constant has an odd number of parts"));
        }
        Ok(elements.chunks_exact(2).map(|pair| (pair[0], pair[1])).collect())
    }
    match dtype {
        DType::Float32 => fill(&tensor.float_val, shape, |x| x),
        DType::Float64 => fill(&tensor.double_val, shape, |x| x),
        DType::Half => fill(&tensor.half_val, shape, |bits| f16::from_bits(bits as u16)),
        DType::BFloat16 => fill(&tensor.half_val, shape, |bits| bf16::from_bits(bits as u16)),
        DType::Int8 => fill(&tensor.int_val, shape, |x| x as i8),
        DType::Int16 => fill(&tensor.int_val, shape, |x| x as i16),
        DType::Int32 => fill(&tensor.int_val, shape, |x| x),
        DType::UInt8 => fill(&tensor.int_val, shape, |x| x as u8),
        DType::UInt16 => fill(&tensor.int_val, shape, |x| x as u16),
        DType::Int64 => fill(&tensor.int64_val, shape, |x| x),
        DType::UInt32 => fill(&tensor.uint32_val, shape, |x| x),
        DType::UInt64 => fill(&tensor.uint64_val, shape, |x| x),
        DType::Bool => fill(&tensor.bool_val, shape, |x| x),
        DType::Complex64 => fill(&pairs(&tensor.scomplex_val)?, shape, |(re, im)| Complex::new(re, im)),
        DType::Complex128 => fill(&pairs(&tensor.dcomplex_val)?, shape, |(re, im)| Complex::new(re, im)),
        _ => Err(Error::unimplemented(format!(
            "constants of dtype {dtype} are not supported"
        ))),
    }
}

/// The most bytes that repeating the last element of a constant may make.
pub const MAX_REPEATED_BYTES: usize = 1 << 28;

fn repeat<T: Clone>(elements: &[T], shape: &Shape, default: T) -> Result<Vec<T>> {
    let count = shape.num_elements();
    if elements.len() > count {
        return Err(Error::invalid_argument(format!(
            "a constant of shape {shape} has {} elements",
            elements.len()
        )));
    }
    if count.saturating_mul(size_of::<T>()) > MAX_REPEATED_BYTES {
        return Err(Error::resource_exhausted(format!(
            "a constant of shape {shape} is too large to repeat one element"
        )));
    }
    let mut filled = elements.to_vec();
    let last = elements.last().cloned().unwrap_or(default);
    filled.resize(count, last);
    Ok(filled)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_survive_the_message() {
        let values = [
            Value::from(1.5f32),
            Value::from([1i64, -2, 3]),
            Value::from([[true, false], [false, true]]),
            Value::from([f16::from_f32(0.5); 3]),
            Value::from([Complex::new(1.0f32, -2.0)]),
            Value::zeros(DType::Float64, [0, 3]).unwrap(),
            Value::from_strings([2], vec![b"a".to_vec(), Vec::new()]).unwrap(),
            Value::from_vec([3, 2], [7u8; 6]).unwrap(),
        ];
        for value in values {
            let message = value_to_proto(&value);
            assert_eq!(value_from_proto(&message).unwrap(), value);
        }
    }

    #[test]
    fn a_splat_is_one_element() {
        let message = value_to_proto(&Value::from_vec([1000], [2.0f32; 1000]).unwrap());
        assert_eq!(message.float_val, [2.0]);
        assert!(message.tensor_content.is_empty());
    }

    #[test]
    fn broken_messages_are_errors() {
        let message = |dims: &[i64]| proto::TensorProto {
            dtype: DType::Float32 as i32,
            tensor_shape: Some(proto::TensorShapeProto {
                dim: dims
                    .iter()
                    .map(|&size| proto::tensor_shape_proto::Dim {
                        size,
                        ..Default::default()
                    })
                    .collect(),
                unknown_rank: false,
            }),
            float_val: vec![1.0, 2.0, 3.0],
            ..Default::default()
        };
        assert!(value_from_proto(&message(&[2])).is_err());
        assert!(value_from_proto(&message(&[-1])).is_err());
        assert!(value_from_proto(&message(&[-2])).is_err());
        assert!(value_from_proto(&message(&[1 << 40, 1 << 40])).is_err());
        assert!(value_from_proto(&message(&[1 << 40])).is_err());
        let mut cut = message(&[2]);
        cut.tensor_content = vec![0; 7];
        assert!(value_from_proto(&cut).is_err());
        assert!(dtype_from_number(99).is_err());
        assert_eq!(dtype_from_number(101).unwrap(), DType::Float32);
    }
}
