//! `LSTMBlockCell`, `BlockLSTM` and their gradients: long short-term memory, a step or a sequence at a time.

use graph_core::gradients::GradientContext;
use graph_core::graph::{IntoOperand, OpBuilder, Tensor};
use graph_core::op::{KernelContext, KernelDefinition, KernelRequest, OpDefinition, Planned};
use graph_core::{DType, Element, Error, Result};
use half::f16;

use super::recurrent;
use super::volumes::{narrow, widened};
use super::windows::require_shape;
use crate::cpu::element::{Real, Wide};
use crate::cpu::gemm::GemmElement;
use crate::cpu::recurrent::{LstmSlices, LstmTotals, LstmWeights, Sizes, lstm_step, lstm_step_back};

const OPERANDS: [&str; 8] = [
    "x: T",
    "cs_prev: T",
    "h_prev: T",
    "w: T",
    "wci: T",
    "wcf: T",
    "wco: T",
    "b: T",
];
const RESULTS: [&str; 7] = ["i: T", "cs: T", "f: T", "o: T", "ci: T", "co: T", "h: T"];

fn with_inputs(definition: OpDefinition, inputs: &[&'static str]) -> OpDefinition {
    inputs
        .iter()
        .fold(definition, |definition, input| definition.input(input))
}

fn with_outputs(definition: OpDefinition, outputs: &[&'static str]) -> OpDefinition {
    outputs
        .iter()
        .fold(definition, |definition, output| definition.output(output))
}

/// Kernels for the dtypes of these cells.
macro_rules! kernels {
    ($definition:expr, $kernel:ident) => {
        $definition
            .kernel(KernelDefinition::cpu($kernel::<f32>).types("T", &[DType::Float32]))
            .kernel(KernelDefinition::cpu($kernel::<f16>).types("T", &[DType::Half]))
    };
    ($definition:expr, $kernel:ident, $on_device:expr) => {
        kernels!($definition, $kernel).kernel(KernelDefinition::cuda($on_device))
    };
}

/// The options of a step; their defaults are those of TensorFlow 1.
fn with_options(definition: OpDefinition) -> OpDefinition {
    definition
        .attr("forget_bias: float = 1.0")
        .attr("cell_clip: float = 3.0")
        .attr("use_peephole: bool = false")
        .attr("T: {half, float}")
}

/// `LSTMBlockCell`
pub(super) fn cell() -> OpDefinition {
    let definition = OpDefinition::new(
        "LSTMBlockCell",
        "A step of long short-term memory: its gates, its cell and its state, from [x, h_prev] w + b.",
    );
    let definition = with_options(with_outputs(with_inputs(definition, &OPERANDS), &RESULTS))
        .shape(|context| {
            let (x, state) = (context.with_rank(0, 2)?, context.with_rank(1, 2)?);
            let batch = context.merge_dims(x.dim(0), state.dim(0), "the batches of x and of the cell")?;
            (0..7).for_each(|output| context.set_output(output, [batch, state.dim(1)]));
            Ok(())
        })
        .no_gradient();
    kernels!(definition, cell_kernel, |request| recurrent::lstm_cell(
        request,
        sizes(request, 0)?
    ))
}

/// `LSTMBlockCellGrad`
pub(super) fn cell_grad() -> OpDefinition {
    let definition = OpDefinition::new(
        "LSTMBlockCellGrad",
        "The gradients of LSTMBlockCell: of the cell before, of the gates before they are squashed, of the peepholes.",
    );
    let definition = with_inputs(with_inputs(definition, &OPERANDS), &RESULTS[..6])
        .input("cs_grad: T")
        .input("h_grad: T");
    let definition = with_outputs(
        definition,
        &[
            "cs_prev_grad: T",
            "dicfo: T",
            "wci_grad: T",
            "wcf_grad: T",
            "wco_grad: T",
        ],
    )
    .attr("use_peephole: bool")
    .attr("T: {half, float}")
    .shape(|context| {
        let state = context.with_rank(1, 2)?;
        let (batch, cells) = (state.dim(0), state.dim(1));
        context.set_output(0, [batch, cells]);
        context.set_output(1, [batch, cells.map(|cells| 4 * cells)]);
        (2..5).for_each(|output| context.set_output(output, [cells]));
        Ok(())
    })
    .no_gradient();
    kernels!(definition, cell_grad_kernel, |request| recurrent::lstm_cell_grad(
        request,
        cell_grad_sizes(request)?
    ))
}

/// `BlockLSTM`
pub(super) fn sequence() -> OpDefinition {
    let definition = OpDefinition::new(
        "BlockLSTM",
        "LSTMBlockCell over a sequence: gates, cells and states of all steps; zeros from seq_len_max on.",
    )
    .input("seq_len_max: int64");
    let definition = with_options(with_outputs(with_inputs(definition, &OPERANDS), &RESULTS))
        .may_fail()
        .shape(|context| {
            let (x, state) = (context.with_rank(1, 3)?, context.with_rank(2, 2)?);
            context.with_rank(0, 0)?;
            let batch = context.merge_dims(x.dim(1), state.dim(0), "the batches of x and of the cell")?;
            (0..7).for_each(|output| context.set_output(output, [x.dim(0), batch, state.dim(1)]));
            Ok(())
        })
        .gradient(sequence_gradient);
    kernels!(definition, sequence_kernel, |request| {
        let time = request.input_shape(1)[0];
        recurrent::lstm_sequence(request, sizes(request, 1)?, time)
    })
}

/// `BlockLSTMGrad`
pub(super) fn sequence_grad() -> OpDefinition {
    let definition = OpDefinition::new(
        "BlockLSTMGrad",
        "The gradients of BlockLSTM with respect to its operands.",
    )
    .input("seq_len_max: int64");
    let definition = with_inputs(with_inputs(definition, &OPERANDS), &RESULTS)
        .input("cs_grad: T")
        .input("h_grad: T");
    let definition = with_outputs(
        definition,
        &[
            "x_grad: T",
            "cs_prev_grad: T",
            "h_prev_grad: T",
            "w_grad: T",
            "wci_grad: T",
            "wcf_grad: T",
            "wco_grad: T",
            "b_grad: T",
        ],
    )
    .attr("use_peephole: bool")
    .attr("T: {half, float}")
    .may_fail()
    .shape(|context| {
        (0..8).for_each(|output| context.set_output(output, context.input(output + 1)));
        Ok(())
    })
    .no_gradient();
    kernels!(definition, sequence_grad_kernel, |request| {
        let (sizes, time) = sequence_grad_sizes(request)?;
        recurrent::lstm_sequence_grad(request, sizes, time)
    })
}

/// The sizes of a cell with inputs from `first` on; checks the shapes of the weights.
fn sizes(request: &KernelRequest<'_>, first: usize) -> Result<Sizes> {
    let x = request.input_shape(first);
    let (Some(&inputs), Some(&batch), Some(&cells)) = (
        x.last(),
        x.len().checked_sub(2).and_then(|axis| x.get(axis)),
        request.input_shape(first + 1).last(),
    ) else {
        return Err(Error::invalid_argument("x and the states must be matrices").got(x));
    };
    let sizes = Sizes { batch, inputs, cells };
    for (index, name) in [(1, "cs_prev"), (2, "h_prev")] {
        require_shape(name, request.input_shape(first + index), &[batch, cells])?;
    }
    require_shape("w", request.input_shape(first + 3), &[inputs + cells, 4 * cells])?;
    for (index, name) in [(4, "wci"), (5, "wcf"), (6, "wco")] {
        require_shape(name, request.input_shape(first + index), &[cells])?;
    }
    require_shape("b", request.input_shape(first + 7), &[4 * cells])?;
    Ok(sizes)
}

/// A cell's weights in the type that is computed in.
struct Weights<W> {
    w: Vec<W>,
    b: Vec<W>,
    peepholes: Option<[Vec<W>; 3]>,
}

impl<W: Wide> Weights<W> {
    /// From the inputs `first` (that of x) and on.
    fn read<T: Real<Wide = W> + Element>(context: &KernelContext<'_>, first: usize, peepholes: bool) -> Result<Self> {
        let of = |index: usize| context.input::<T>(first + index).map(widened);
        Ok(Self {
            w: of(3)?,
            b: of(7)?,
            peepholes: if peepholes {
                Some([of(4)?, of(5)?, of(6)?])
            } else {
                None
            },
        })
    }

    fn peepholes(&self) -> Option<[&[W]; 3]> {
        self.peepholes
            .as_ref()
            .map(|weights| weights.each_ref().map(Vec::as_slice))
    }

    fn slices(&self) -> LstmWeights<'_, W> {
        LstmWeights {
            w: &self.w,
            b: &self.b,
            peepholes: self.peepholes(),
        }
    }
}

/// Forget bias and clip of the cell.
fn options<W: Wide>(request: &KernelRequest<'_>) -> Result<(W, W)> {
    let (bias, clip): (f32, f32) = (request.attr("forget_bias")?, request.attr("cell_clip")?);
    Ok((W::from_f64(bias.into()), W::from_f64(clip.into())))
}

fn cell_kernel<T: Real + Element>(request: &KernelRequest<'_>) -> Result<Planned>
where
    T::Wide: GemmElement,
{
    let (sizes, options) = (sizes(request, 0)?, options::<T::Wide>(request)?);
    let peepholes: bool = request.attr("use_peephole")?;
    Ok(Planned::new(move |context: &mut KernelContext<'_>| {
        let weights = Weights::read::<T>(context, 0, peepholes)?;
        let of = |index: usize| context.input::<T>(index).map(widened);
        let step = lstm_step(sizes, weights.slices(), options, &of(0)?, &of(1)?, &of(2)?);
        let results = [step.i, step.cs, step.f, step.o, step.ci, step.co, step.h];
        for (output, result) in results.iter().enumerate() {
            narrow(result, context.output::<T>(output)?);
        }
        Ok(())
    }))
}

/// The sizes of the cell, with the shapes of what its step gave and of its gradients checked.
fn cell_grad_sizes(request: &KernelRequest<'_>) -> Result<Sizes> {
    let sizes = sizes(request, 0)?;
    for index in 8..16 {
        require_shape("an operand", request.input_shape(index), &[sizes.batch, sizes.cells])?;
    }
    Ok(sizes)
}

fn cell_grad_kernel<T: Real + Element>(request: &KernelRequest<'_>) -> Result<Planned> {
    let sizes = cell_grad_sizes(request)?;
    let peepholes: bool = request.attr("use_peephole")?;
    Ok(Planned::new(move |context: &mut KernelContext<'_>| {
        let weights = Weights::read::<T>(context, 0, peepholes)?;
        let of = |index: usize| context.input::<T>(index).map(widened);
        let [i, cs, f, o, ci, co] = [of(8)?, of(9)?, of(10)?, of(11)?, of(12)?, of(13)?];
        let step = LstmSlices {
            i: &i,
            cs: &cs,
            f: &f,
            o: &o,
            ci: &ci,
            co: &co,
        };
        let gradients = lstm_step_back(sizes, weights.peepholes(), &of(1)?, step, &of(14)?, &of(15)?);
        narrow(&gradients.cs_prev, context.output::<T>(0)?);
        narrow(&gradients.gates, context.output::<T>(1)?);
        for (index, gradient) in gradients.peepholes.iter().enumerate() {
            narrow(gradient, context.output::<T>(2 + index)?);
        }
        Ok(())
    }))
}

/// The number of steps that are computed: what input 0 says.
fn steps(context: &KernelContext<'_>, time: usize) -> Result<usize> {
    let len = context.input::<i64>(0)?[0];
    usize::try_from(len).ok().filter(|&len| len <= time).ok_or_else(|| {
        Error::invalid_argument("seq_len_max is not a number of steps of x")
            .expected(format!("0 to {time}"))
            .got(len)
    })
}

fn sequence_kernel<T: Real + Element>(request: &KernelRequest<'_>) -> Result<Planned>
where
    T::Wide: GemmElement,
{
    let (sizes, options) = (sizes(request, 1)?, options::<T::Wide>(request)?);
    let peepholes: bool = request.attr("use_peephole")?;
    let time = request.input_shape(1)[0];
    Ok(Planned::new(move |context: &mut KernelContext<'_>| {
        let steps = steps(context, time)?;
        let weights = Weights::read::<T>(context, 1, peepholes)?;
        let of = |index: usize| context.input::<T>(index).map(widened);
        let (x, mut cs, mut h) = (of(1)?, of(2)?, of(3)?);
        let (x_len, len) = (sizes.batch * sizes.inputs, sizes.state());
        let mut outputs: Vec<&mut [T]> = (0..7)
            .map(|output| context.output::<T>(output))
            .collect::<Result<_>>()?;
        outputs.iter_mut().for_each(|output| output.fill(T::default()));
        for at in 0..steps {
            let x = &x[at * x_len..(at + 1) * x_len];
            let step = lstm_step(sizes, weights.slices(), options, x, &cs, &h);
            let results = [&step.i, &step.cs, &step.f, &step.o, &step.ci, &step.co, &step.h];
            for (output, result) in outputs.iter_mut().zip(results) {
                narrow(result, &mut output[at * len..(at + 1) * len]);
            }
            (cs, h) = (step.cs, step.h);
        }
        Ok(())
    }))
}

/// The sizes of the cell and the number of steps, with the shapes of what they gave and of their gradients checked.
fn sequence_grad_sizes(request: &KernelRequest<'_>) -> Result<(Sizes, usize)> {
    let sizes = sizes(request, 1)?;
    let time = request.input_shape(1)[0];
    for index in 9..18 {
        require_shape(
            "an operand",
            request.input_shape(index),
            &[time, sizes.batch, sizes.cells],
        )?;
    }
    Ok((sizes, time))
}

fn sequence_grad_kernel<T: Real + Element>(request: &KernelRequest<'_>) -> Result<Planned>
where
    T::Wide: GemmElement,
{
    let (sizes, time) = sequence_grad_sizes(request)?;
    let peepholes: bool = request.attr("use_peephole")?;
    Ok(Planned::new(move |context: &mut KernelContext<'_>| {
        let steps = steps(context, time)?;
        let weights = Weights::read::<T>(context, 1, peepholes)?;
        let of = |index: usize| context.input::<T>(index).map(widened);
        let (x, cs_first, h_first) = (of(1)?, of(2)?, of(3)?);
        let [i, cs, f, o, ci, co, h] = [of(9)?, of(10)?, of(11)?, of(12)?, of(13)?, of(14)?, of(15)?];
        let (cs_grad, h_grad) = (of(16)?, of(17)?);
        let (x_len, len) = (sizes.batch * sizes.inputs, sizes.state());
        let zero = T::Wide::default();
        let (mut w_grad, mut b_grad) = (vec![zero; weights.w.len()], vec![zero; weights.b.len()]);
        let mut x_grad = vec![zero; x.len()];
        let mut peephole_grads: [Vec<T::Wide>; 3] = std::array::from_fn(|_| vec![zero; sizes.cells]);
        let (mut cs_carried, mut h_carried) = (vec![zero; len], vec![zero; len]);
        for at in (0..steps).rev() {
            let now = at * len..(at + 1) * len;
            let (cs_prev, h_prev): (&[T::Wide], &[T::Wide]) = match at {
                0 => (&cs_first, &h_first),
                _ => (&cs[now.start - len..now.start], &h[now.start - len..now.start]),
            };
            let plus = |own: &[T::Wide], carried: &[T::Wide]| -> Vec<T::Wide> {
                own.iter().zip(carried).map(|(&a, &b)| a + b).collect()
            };
            let step = LstmSlices {
                i: &i[now.clone()],
                cs: &cs[now.clone()],
                f: &f[now.clone()],
                o: &o[now.clone()],
                ci: &ci[now.clone()],
                co: &co[now.clone()],
            };
            let to_cs = plus(&cs_grad[now.clone()], &cs_carried);
            let to_h = plus(&h_grad[now], &h_carried);
            let gradients = lstm_step_back(sizes, weights.peepholes(), cs_prev, step, &to_cs, &to_h);
            let mut totals = LstmTotals {
                w: &mut w_grad,
                b: &mut b_grad,
            };
            let own_x = at * x_len..(at + 1) * x_len;
            let (to_x, to_h) = totals.add_step(sizes, &weights.w, &x[own_x.clone()], h_prev, &gradients.gates);
            x_grad[own_x].copy_from_slice(&to_x);
            for (total, share) in peephole_grads.iter_mut().zip(&gradients.peepholes) {
                total.iter_mut().zip(share).for_each(|(total, &x)| *total += x);
            }
            (cs_carried, h_carried) = (gradients.cs_prev, to_h);
        }
        let [wci, wcf, wco] = &peephole_grads;
        let results = [&x_grad, &cs_carried, &h_carried, &w_grad, wci, wcf, wco, &b_grad];
        for (output, result) in results.into_iter().enumerate() {
            narrow(result, context.output::<T>(output)?);
        }
        Ok(())
    }))
}

fn sequence_gradient(context: &mut GradientContext<'_>) -> Result<Vec<Option<Tensor>>> {
    let node: OpBuilder = context.node("BlockLSTMGrad");
    let node = (0..9).fold(node, |node, index| node.input(context.input(index)));
    let node = (0..7).fold(node, |node, index| node.input(context.output(index)));
    let gradients = node
        .input(context.gradient(1)?)
        .input(context.gradient(6)?)
        .attr("use_peephole", context.attr_value("use_peephole")?)
        .build_all()?;
    Ok(std::iter::once(None).chain(gradients.into_iter().map(Some)).collect())
}

/// The weights of an LSTM cell of `cells` cells and `inputs` inputs, all of one dtype.
#[derive(Clone, Copy, Debug)]
pub struct LstmVariables<'a> {
    /// Shape [inputs + cells, 4 * cells]: for the input gate, the cell, the forget gate and the output gate.
    pub w: &'a Tensor,
    /// Shape [4 * cells], in the same order.
    pub b: &'a Tensor,
    /// Of the cell for the input, forget and output gate, shape [cells] each; used with [`LstmBlockCell::use_peephole`].
    pub peepholes: [&'a Tensor; 3],
}

/// A step of an LSTM about to be made; see [`lstm_block_cell`].
#[must_use = "an operation is made by `build`"]
pub struct LstmBlockCell(OpBuilder);

impl LstmBlockCell {
    /// Added to the forget gate; 1 without.
    pub fn forget_bias(self, bias: f32) -> Self {
        Self(self.0.attr("forget_bias", bias))
    }

    /// The cell's greatest absolute value, if positive; 3 without.
    pub fn cell_clip(self, clip: f32) -> Self {
        Self(self.0.attr("cell_clip", clip))
    }

    /// Whether the gates see the cell; false without.
    pub fn use_peephole(self, peephole: bool) -> Self {
        Self(self.0.attr("use_peephole", peephole))
    }

    /// Names the operation.
    pub fn name(self, name: impl Into<String>) -> Self {
        Self(self.0.name(name))
    }

    /// Makes the operation: input gate, cell, forget gate, output gate, what the cell was offered, the squashed cell, state.
    ///
    /// # Errors
    /// The operands' own; `InvalidArgument` if the shapes do not fit.
    pub fn build(self) -> Result<[Tensor; 7]> {
        let operation = self.0.build_operation()?;
        Ok(std::array::from_fn(|output| operation.output(output)))
    }
}

fn with_operands(node: OpBuilder, x: impl IntoOperand, state: [&Tensor; 2], variables: LstmVariables<'_>) -> OpBuilder {
    let [cs_prev, h_prev] = state;
    let node = node.input(x).input(cs_prev).input(h_prev).input(variables.w);
    let node = variables
        .peepholes
        .into_iter()
        .fold(node, |node, weights| node.input(weights));
    node.input(variables.b)
}

/// A step of long short-term memory for inputs `x` of shape [batch, inputs], from the cell and the state before, each of shape
/// [batch, cells]; of `float` or `half`.
#[track_caller]
pub fn lstm_block_cell(x: impl IntoOperand, state: [&Tensor; 2], variables: LstmVariables<'_>) -> LstmBlockCell {
    LstmBlockCell(with_operands(crate::op("LSTMBlockCell"), x, state, variables))
}

/// [`lstm_block_cell`] for a sequence: inputs `x` of shape [time, batch, inputs] give results of shape [time, batch, cells];
/// only the first `seq_len_max` (a number, `int64`) steps are computed, the others are zeros.
#[track_caller]
pub fn block_lstm(
    seq_len_max: impl IntoOperand,
    x: impl IntoOperand,
    state: [&Tensor; 2],
    variables: LstmVariables<'_>,
) -> LstmBlockCell {
    LstmBlockCell(with_operands(
        crate::op("BlockLSTM").input(seq_len_max),
        x,
        state,
        variables,
    ))
}

#[cfg(test)]
#[path = "lstm_tests.rs"]
mod tests;
#[cfg(test)]
pub(super) use tests::{cases, gradient_cases};
