//! What a plan knows of the values of inputs.

use crate::dtype::DType;
use crate::graph::{HandleData, Node};
use crate::op::shape_inference::{InferenceContext, InputValues};
use crate::session::plan::planner::Planner;
use crate::session::structure::input_args;
use crate::shape::PartialShape;
use crate::value::Value;

/// The flat positions of a node's plan-time inputs.
pub(crate) fn plan_time_inputs(node: &Node) -> Vec<usize> {
    let wanted = &node.definition.plan_time_inputs;
    if wanted.is_empty() {
        return Vec::new();
    }
    let names: Vec<&str> = wanted
        .iter()
        .filter_map(|&index| node.definition.inputs.get(index))
        .map(|arg| arg.name)
        .collect();
    input_args(node)
        .enumerate()
        .filter(|(_, arg)| names.contains(&arg.name))
        .map(|(index, _)| index)
        .collect()
}

/// Values of inputs as a plan knows them.
pub(super) struct PlanValues<'a, 'b> {
    pub(super) planner: &'a Planner<'b>,
    pub(super) node: &'a Node,
}

impl InputValues for PlanValues<'_, '_> {
    fn handle(&self, index: usize) -> Option<HandleData> {
        self.planner.handles[self.planner.tensor(self.node.inputs[index]) as usize].clone()
    }

    fn value(&self, index: usize) -> Option<Value> {
        self.planner.values[self.planner.tensor(self.node.inputs[index]) as usize].clone()
    }

    fn value_as_shape(&self, index: usize) -> Option<PartialShape> {
        if let Some(value) = self.value(index) {
            return crate::graph::inference::shape_of_values(&value.to_i64_vec().ok()?);
        }
        let input = self.node.inputs[index];
        let source = self.planner.program.node(input.node);
        let function = source.definition.value_as_shape?;
        let tensors: Vec<usize> = source
            .inputs
            .iter()
            .map(|&input| self.planner.tensor(input) as usize)
            .collect();
        let shapes: Vec<PartialShape> = tensors
            .iter()
            .map(|&tensor| self.planner.shapes[tensor].clone())
            .collect();
        let dtypes: Vec<DType> = tensors.iter().map(|&tensor| self.planner.dtypes[tensor]).collect();
        let values = PlanValues {
            planner: self.planner,
            node: source,
        };
        let context = InferenceContext::new(
            source.definition,
            &source.attrs,
            &shapes,
            &dtypes,
            source.outputs.len(),
            &values,
        );
        function(&context, input.slot as usize)
    }
}
