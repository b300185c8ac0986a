//! What a node's op says of it: attributes with their defaults, and the dtypes and shapes of its outputs.

use smallvec::SmallVec;

use crate::dtype::DType;
use crate::error::{Error, Result};
use crate::graph::Graph;
use crate::graph::node::{HandleData, OutputInfo, TensorId};
use crate::op::shape_inference::{InferenceContext, InputValues, arg_len};
use crate::op::{ArgDef, ArgType, AttrType, AttrValue, Attributes, OpDefinition};
use crate::shape::PartialShape;
use crate::value::Value;

/// Fills in defaults, and checks every attribute against its definition.
pub(crate) fn set_defaults(definition: &OpDefinition, attrs: &mut Attributes) -> Result<()> {
    for attr in &definition.attrs {
        let Some(value) = attrs.get(attr.name) else {
            match &attr.default {
                Some(default) => attrs.set(attr.name, default.clone()),
                None => {
                    return Err(
                        Error::invalid_argument(format!("the attribute '{}' is missing", attr.name))
                            .expected(attr.ty.name()),
                    );
                }
            }
            continue;
        };
        let fits = value.kind() == attr.ty.name()
            || (matches!(attr.ty, AttrType::List(_)) && value.is_empty_list())
            || matches!(value, AttrValue::Placeholder(_));
        if !fits {
            return Err(
                Error::invalid_argument(format!("the attribute '{}' is of the wrong kind", attr.name))
                    .expected(attr.ty.name())
                    .got(value.kind()),
            );
        }
        let wrong = |got: String, expected: String| {
            Err(
                Error::invalid_argument(format!("the attribute '{}' has a value that is not allowed", attr.name))
                    .expected(expected)
                    .got(got),
            )
        };
        let types: &[DType] = match value {
            AttrValue::Type(dtype) => std::slice::from_ref(dtype),
            AttrValue::TypeList(list) => list,
            _ => &[],
        };
        if let Some(dtype) = types
            .iter()
            .find(|dtype| !attr.allowed_types.is_empty() && !attr.allowed_types.contains(dtype))
        {
            let names: Vec<_> = attr.allowed_types.iter().map(|dtype| dtype.name()).collect();
            return wrong(dtype.to_string(), names.join(", "));
        }
        if let AttrValue::String(text) = value
            && !attr.allowed_strings.is_empty()
            && !attr.allowed_strings.iter().any(|allowed| allowed.as_bytes() == text)
        {
            return wrong(
                String::from_utf8_lossy(text).into_owned(),
                attr.allowed_strings.join(", "),
            );
        }
        if let Some(minimum) = attr.minimum {
            let size = match value {
                AttrValue::Int(int) => *int,
                AttrValue::IntList(list) => list.len() as i64,
                AttrValue::TypeList(list) => list.len() as i64,
                _ => i64::MAX,
            };
            if size < minimum {
                return wrong(size.to_string(), format!("at least {minimum}"));
            }
        }
    }
    Ok(())
}

/// The most outputs that one argument may stand for; a number in a file must not decide how much memory is asked for.
const MAX_OUTPUTS: usize = 1 << 16;

fn output_len(arg: &ArgDef, attrs: &Attributes) -> Result<usize> {
    match arg_len(arg, attrs)? {
        len if len > MAX_OUTPUTS => Err(Error::invalid_argument(format!("too many outputs '{}'", arg.name))
            .expected(format!("at most {MAX_OUTPUTS}"))
            .got(len)),
        len => Ok(len),
    }
}

/// The dtypes (and whether they are references) of a node's outputs.
pub(crate) fn output_dtypes(definition: &OpDefinition, attrs: &Attributes) -> Result<SmallVec<[(DType, bool); 1]>> {
    let mut dtypes = SmallVec::new();
    for arg in &definition.outputs {
        match arg.ty {
            ArgType::List(name) => dtypes.extend(
                attrs
                    .read::<Vec<DType>>(name)?
                    .into_iter()
                    .map(|dtype| (dtype, arg.is_ref)),
            ),
            ArgType::Fixed(dtype) => dtypes.extend((0..output_len(arg, attrs)?).map(|_| (dtype, arg.is_ref))),
            ArgType::Attr(name) => {
                let dtype = attrs.read(name)?;
                dtypes.extend((0..output_len(arg, attrs)?).map(|_| (dtype, arg.is_ref)));
            }
        }
    }
    Ok(dtypes)
}

/// Values of inputs as the graph knows them while it is built.
pub(crate) struct GraphValues<'a> {
    pub(crate) graph: &'a Graph,
    pub(crate) inputs: &'a [TensorId],
}

impl InputValues for GraphValues<'_> {
    fn handle(&self, index: usize) -> Option<HandleData> {
        let input = self.inputs[index];
        self.graph.read(|data| {
            data.node(input.node).outputs[input.slot as usize]
                .handle
                .as_deref()
                .cloned()
        })
    }

    fn value(&self, index: usize) -> Option<Value> {
        self.graph.constant_value(self.inputs[index])
    }

    fn value_as_shape(&self, index: usize) -> Option<PartialShape> {
        if let Some(value) = self.value(index) {
            return shape_of_values(&value.to_i64_vec().ok()?);
        }
        let input = self.inputs[index];
        let (node, shapes, dtypes) = self.graph.read(|data| {
            let node = data.node(input.node);
            node.definition.value_as_shape?;
            let infos = node
                .inputs
                .iter()
                .map(|id| &data.node(id.node).outputs[id.slot as usize]);
            let (shapes, dtypes): (Vec<_>, Vec<_>) = infos.map(|info| (info.shape.clone(), info.dtype)).unzip();
            Some((node.clone(), shapes, dtypes))
        })?;
        let values = GraphValues {
            graph: self.graph,
            inputs: &node.inputs,
        };
        let context = InferenceContext::new(
            node.definition,
            &node.attrs,
            &shapes,
            &dtypes,
            node.outputs.len(),
            &values,
        );
        node.definition
            .value_as_shape
            .and_then(|function| function(&context, input.slot as usize))
    }
}

/// Dimensions given as numbers; -1 is an unknown one, anything less no shape.
pub(crate) fn shape_of_values(values: &[i64]) -> Option<PartialShape> {
    let dims: Option<Vec<_>> = values
        .iter()
        .map(|&value| {
            if value == -1 {
                Some(None)
            } else {
                usize::try_from(value).ok().map(Some)
            }
        })
        .collect();
    dims.map(PartialShape::from_dims)
}

/// What the op's definition and shape function say of a node's outputs.
pub(crate) fn infer_outputs(
    graph: &Graph,
    definition: &'static OpDefinition,
    attrs: &Attributes,
    inputs: &[TensorId],
) -> Result<SmallVec<[OutputInfo; 1]>> {
    let (shapes, dtypes): (SmallVec<[PartialShape; 2]>, SmallVec<[DType; 2]>) = graph.read(|data| {
        let infos = inputs.iter().map(|id| &data.node(id.node).outputs[id.slot as usize]);
        infos.map(|info| (info.shape.clone(), info.dtype)).unzip()
    });
    let outputs = output_dtypes(definition, attrs)?;
    let values = GraphValues { graph, inputs };
    let inferred = InferenceContext::new(definition, attrs, &shapes, &dtypes, outputs.len(), &values).infer()?;
    Ok(outputs
        .into_iter()
        .zip(inferred.shapes.into_iter().zip(inferred.handles))
        .map(|((dtype, is_ref), (shape, handle))| OutputInfo {
            dtype,
            is_ref,
            shape,
            handle: handle.filter(|_| dtype == DType::Resource).map(Box::new),
        })
        .collect())
}
