//! `GRUBlockCell` and its gradient: a step of a gated recurrent unit.

use graph_core::graph::{IntoOperand, OpBuilder, Tensor};
use graph_core::op::{KernelContext, KernelDefinition, KernelRequest, OpDefinition, Planned};
use graph_core::{DType, Error, Result};

use super::recurrent;
use super::windows::require_shape;
use crate::cpu::recurrent::{GruWeights, Sizes, gru_step, gru_step_back};

fn with_operands(definition: OpDefinition) -> OpDefinition {
    ["x: T", "h_prev: T", "w_ru: T", "w_c: T", "b_ru: T", "b_c: T"]
        .into_iter()
        .fold(definition, OpDefinition::input)
}

/// `GRUBlockCell`
pub(super) fn cell() -> OpDefinition {
    let definition = OpDefinition::new(
        "GRUBlockCell",
        "A step of a gated recurrent unit: reset gate, update gate, cell, and the state u h_prev + (1 - u) c.",
    );
    with_operands(definition)
        .output("r: T")
        .output("u: T")
        .output("c: T")
        .output("h: T")
        .attr("T: {float}")
        .shape(|context| {
            let (x, state) = (context.with_rank(0, 2)?, context.with_rank(1, 2)?);
            let batch = context.merge_dims(x.dim(0), state.dim(0), "the batches of x and of the state")?;
            (0..4).for_each(|output| context.set_output(output, [batch, state.dim(1)]));
            Ok(())
        })
        .no_gradient()
        .kernel(KernelDefinition::cpu(kernel).types("T", &[DType::Float32]))
        .kernel(KernelDefinition::cuda(|request| {
            recurrent::gru_cell(request, sizes(request)?)
        }))
}

/// `GRUBlockCellGrad`
pub(super) fn cell_grad() -> OpDefinition {
    let definition = OpDefinition::new(
        "GRUBlockCellGrad",
        "The gradients of GRUBlockCell: of the inputs, of the state before, of cell and gates before they are squashed.",
    );
    with_operands(definition)
        .input("r: T")
        .input("u: T")
        .input("c: T")
        .input("d_h: T")
        .output("d_x: T")
        .output("d_h_prev: T")
        .output("d_c_bar: T")
        .output("d_r_bar_u_bar: T")
        .attr("T: {float}")
        .shape(|context| {
            let (x, state) = (context.with_rank(0, 2)?, context.with_rank(1, 2)?);
            let (batch, cells) = (state.dim(0), state.dim(1));
            context.set_output(0, [batch, x.dim(1)]);
            context.set_output(1, [batch, cells]);
            context.set_output(2, [batch, cells]);
            context.set_output(3, [batch, cells.map(|cells| 2 * cells)]);
            Ok(())
        })
        .no_gradient()
        .kernel(KernelDefinition::cpu(grad_kernel).types("T", &[DType::Float32]))
        .kernel(KernelDefinition::cuda(|request| {
            recurrent::gru_cell_grad(request, grad_sizes(request)?)
        }))
}

/// The sizes of the cell, with the shapes of its weights checked.
fn sizes(request: &KernelRequest<'_>) -> Result<Sizes> {
    let (&[batch, inputs], &[_, cells]) = (request.input_shape(0).dims(), request.input_shape(1).dims()) else {
        return Err(Error::invalid_argument("x and the state must be matrices").got(request.input_shape(0)));
    };
    require_shape("h_prev", request.input_shape(1), &[batch, cells])?;
    require_shape("w_ru", request.input_shape(2), &[inputs + cells, 2 * cells])?;
    require_shape("w_c", request.input_shape(3), &[inputs + cells, cells])?;
    require_shape("b_ru", request.input_shape(4), &[2 * cells])?;
    require_shape("b_c", request.input_shape(5), &[cells])?;
    Ok(Sizes { batch, inputs, cells })
}

fn weights<'a>(context: &KernelContext<'a>) -> Result<GruWeights<'a, f32>> {
    Ok(GruWeights {
        w_ru: context.input(2)?,
        w_c: context.input(3)?,
        b_ru: context.input(4)?,
        b_c: context.input(5)?,
    })
}

fn write(context: &KernelContext<'_>, results: &[Vec<f32>; 4]) -> Result<()> {
    for (output, result) in results.iter().enumerate() {
        context.output::<f32>(output)?.copy_from_slice(result);
    }
    Ok(())
}

fn kernel(request: &KernelRequest<'_>) -> Result<Planned> {
    let sizes = sizes(request)?;
    Ok(Planned::new(move |context: &mut KernelContext<'_>| {
        let step = gru_step(sizes, weights(context)?, context.input(0)?, context.input(1)?);
        write(context, &step)
    }))
}

/// The sizes of the cell, with the shapes of what its step gave and of its gradient checked.
fn grad_sizes(request: &KernelRequest<'_>) -> Result<Sizes> {
    let sizes = sizes(request)?;
    for index in 6..10 {
        require_shape("an operand", request.input_shape(index), &[sizes.batch, sizes.cells])?;
    }
    Ok(sizes)
}

fn grad_kernel(request: &KernelRequest<'_>) -> Result<Planned> {
    let sizes = grad_sizes(request)?;
    Ok(Planned::new(move |context: &mut KernelContext<'_>| {
        let step = [context.input(6)?, context.input(7)?, context.input(8)?];
        let gradients = gru_step_back(sizes, weights(context)?, context.input(1)?, step, context.input(9)?);
        write(context, &gradients)
    }))
}

/// The weights of a GRU cell of `cells` cells and `inputs` inputs.
#[derive(Clone, Copy, Debug)]
pub struct GruVariables<'a> {
    /// Shape [inputs + cells, 2 * cells]: for the reset and the update gate.
    pub w_ru: &'a Tensor,
    /// Shape [inputs + cells, cells]: for the cell.
    pub w_c: &'a Tensor,
    /// Shape [2 * cells].
    pub b_ru: &'a Tensor,
    /// Shape [cells].
    pub b_c: &'a Tensor,
}

/// A step of a GRU about to be made; see [`gru_block_cell`].
#[must_use = "an operation is made by `build`"]
pub struct GruBlockCell(OpBuilder);

impl GruBlockCell {
    /// Names the operation.
    pub fn name(self, name: impl Into<String>) -> Self {
        Self(self.0.name(name))
    }

    /// Makes the operation: reset gate, update gate, cell, state.
    ///
    /// # Errors
    /// The operands' own; `InvalidArgument` if the shapes do not fit.
    pub fn build(self) -> Result<[Tensor; 4]> {
        let operation = self.0.build_operation()?;
        Ok(std::array::from_fn(|output| operation.output(output)))
    }
}

/// A step of a gated recurrent unit for inputs `x` of shape [batch, inputs], from the state before, of shape [batch, cells];
/// of `float`.
#[track_caller]
pub fn gru_block_cell(x: impl IntoOperand, h_prev: impl IntoOperand, variables: GruVariables<'_>) -> GruBlockCell {
    let node = crate::op("GRUBlockCell").input(x).input(h_prev);
    let node = node.input(variables.w_ru).input(variables.w_c);
    GruBlockCell(node.input(variables.b_ru).input(variables.b_c))
}

#[cfg(test)]
pub(super) fn cases() -> Vec<crate::testing::Case> {
    use crate::testing::Case;
    use graph_core::Value;
    let matrix = |columns: usize, count: usize, middle: f32| {
        let elements: Vec<f32> = (0..count).map(|i| (i as f32 - middle) / 10.0).collect();
        Value::from_vec([count / columns, columns], elements).expect("a value")
    };
    let case = |op: &'static str| {
        Case::new(op)
            .input([[0.1f32, 0.2]])
            .input([[0.5f32, 0.6]])
            .input(matrix(4, 16, 7.0))
            .input(matrix(2, 8, 3.0))
            .input([0.0f32, 0.1, 0.2, 0.3])
            .input([0.0f32, 0.1])
            .tolerance(1e-5, 1e-6)
    };
    let (r, u, c) = (
        [[0.55477923f32, 0.61301416]],
        [[0.6681878f32, 0.71909964]],
        [[0.087854445f32, 0.275311]],
    );
    vec![
        case("GRUBlockCell")
            .expect(r)
            .expect(u)
            .expect(c)
            .expect([[0.36324507f32, 0.5087948]]),
        case("GRUBlockCellGrad")
            .input(r)
            .input(u)
            .input(c)
            .input([[1.0f32, 2.0]])
            .expect([[-0.3387727f32, -0.055854358]])
            .expect([[0.83435947f32, 1.8295848]])
            .expect([[0.32925114f32, 0.5192184]])
            .expect([[0.016890893f32, 0.04362089, 0.09137797, 0.13117135]]),
    ]
}

#[cfg(test)]
mod tests {
    use crate::testing::Case;

    #[test]
    fn weights_must_fit() {
        let case = Case::new("GRUBlockCell")
            .input([[0.1f32, 0.2]])
            .input([[0.5f32]])
            .input([[1.0f32, 2.0]])
            .input([[1.0f32], [1.0], [1.0]])
            .input([0.0f32, 0.1])
            .input([0.0f32]);
        assert!(case.run().is_err());
    }
}
