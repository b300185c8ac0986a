//! The program with type attributes changed, and casts where the changed meet the others.

use graph_core::graph::{Node, TensorId};
use graph_core::op::{AttrValue, Attributes, registry};
use graph_core::rewrite::Program;
use graph_core::{DType, Result};
use rustc_hash::FxHashMap;

use super::types::{TypeAttr, TypeSet, Types, of_inputs, of_outputs};

/// Makes `FusedBatchNorm` and its gradient of `float` their second version, in which the images may be of another dtype than
/// the channels' numbers.
pub(super) fn use_batch_norms_of_two_types(program: &mut Program) -> Result<()> {
    for node in &mut program.nodes {
        let second = match node.op() {
            "FusedBatchNorm" => "FusedBatchNormV2",
            "FusedBatchNormGrad" => "FusedBatchNormGradV2",
            _ => continue,
        };
        if node.attrs.read::<DType>("T")? == DType::Float32 {
            node.definition = registry()?.op(second)?;
            node.attrs.set("U", DType::Float32);
        }
    }
    Ok(())
}

/// Changes these attributes to `dtype`.
pub(super) fn change(program: &mut Program, types: &Types, dtype: DType, chosen: &TypeSet) -> Result<()> {
    let is_chosen = |program: &Program, tensor: TensorId| {
        let id = types.of_tensor(program, tensor);
        id.is_some_and(|id| chosen.contains(&id))
    };
    let mut casts: FxHashMap<TensorId, TensorId> = FxHashMap::default();
    // Where each tensor meets an input of the other kind; fetches are never of a chosen node.
    for id in program.ids() {
        let node = program.node(id);
        let attrs: Vec<Option<TypeAttr>> = of_inputs(node).collect();
        for (input, attr) in attrs.into_iter().enumerate() {
            let tensor = program.node(id).inputs[input];
            let wanted = attr
                .and_then(|attr| types.find(id, attr))
                .is_some_and(|id| chosen.contains(&id));
            if wanted == is_chosen(program, tensor) {
                continue;
            }
            let cast = match casts.get(&tensor) {
                Some(&cast) => cast,
                None => {
                    let node = if wanted {
                        cast(program, tensor, DType::Float32, dtype)?
                    } else {
                        cast(program, tensor, dtype, DType::Float32)?
                    };
                    let cast = program.push(node, program.origins[tensor.node.index()]);
                    let cast = TensorId::new(cast, 0);
                    casts.insert(tensor, cast);
                    cast
                }
            };
            program.nodes[id.index()].inputs[input] = cast;
        }
    }
    for &id in chosen {
        let changed = &types.all[id];
        let node = &mut program.nodes[changed.node.index()];
        changed.attr.set(&mut node.attrs, dtype);
        let attrs: Vec<Option<TypeAttr>> = of_outputs(node).collect();
        for (output, attr) in node.outputs.iter_mut().zip(attrs) {
            if attr == Some(changed.attr) {
                output.dtype = dtype;
            }
        }
    }
    Ok(())
}

fn cast(program: &Program, tensor: TensorId, from: DType, to: DType) -> Result<Node> {
    let source = program.node(tensor.node);
    let mut output = source.outputs[tensor.slot as usize].clone();
    (output.dtype, output.is_ref) = (to, false);
    let mut attrs = Attributes::new();
    attrs.set("SrcT", from);
    attrs.set("DstT", to);
    attrs.set("Truncate", AttrValue::Bool(false));
    let word = match to {
        DType::Float32 => "Fp32",
        DType::Half => "Fp16",
        _ => "Bf16",
    };
    Ok(Node {
        name: format!("{}-{}-CastTo{word}-AutoMixedPrecision", source.name, tensor.slot).into(),
        definition: registry()?.op("Cast")?,
        attrs,
        inputs: [tensor].into_iter().collect(),
        control_inputs: Default::default(),
        outputs: [output].into_iter().collect(),
        device: source.device.clone(),
        location: source.location,
    })
}
