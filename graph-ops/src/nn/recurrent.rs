//! Recurrent cells on a device: the library's products, and kernels of what lies between them (`recurrent.cu`).

use graph_core::accelerator::DeviceAddress;
use graph_core::op::{KernelContext, KernelRequest, Planned};
use graph_core::{DType, Result};
use graph_cuda::{Cuda, Product, Source, source};

use crate::cpu::copy::CopyAxis;
use crate::cpu::recurrent::Sizes;
use crate::cuda::NOWHERE;
use crate::cuda::copy::Transfer;
use crate::cuda::elementwise::constant;
use crate::cuda::fill::Fill;
use crate::cuda::launch::{Launch, Work};
use crate::cuda::type_name;

const SOURCE: Source = source!("recurrent.cu");

/// The kernels and products of long short-term memory, a step at a time.
struct Lstm {
    cuda: Cuda,
    sizes: Sizes,
    dtype: DType,
    /// Bytes of an element.
    size: usize,
}

/// A part of scratch memory: where it begins, and where the next does.
fn part(scratch: DeviceAddress, at: &mut usize, bytes: usize) -> DeviceAddress {
    let address = scratch.offset(*at);
    *at += bytes.next_multiple_of(256);
    address
}

impl Lstm {
    fn new(request: &KernelRequest<'_>, sizes: Sizes) -> Result<Self> {
        let dtype = request.output_dtype(0);
        Ok(Self {
            cuda: Cuda::of(request)?,
            sizes,
            dtype,
            size: dtype.size().unwrap_or(4),
        })
    }

    /// Bytes of a state, and of the gates of a step.
    fn bytes(&self) -> [usize; 2] {
        let state = self.sizes.state() * self.size;
        [state, 4 * state]
    }

    /// The weights of the state, which lie behind those of the inputs.
    fn of_state(&self, w: DeviceAddress) -> DeviceAddress {
        w.offset(self.sizes.inputs * 4 * self.sizes.cells * self.size)
    }

    /// `to = from x w`, of `rows` rows of `inner` elements.
    fn product(&self, rows: usize, inner: usize) -> Product {
        Product::new(self.dtype, rows, 4 * self.sizes.cells, inner)
    }

    /// `to = gates x wᵀ`, of `rows` rows of `columns` elements.
    fn product_back(&self, rows: usize, columns: usize) -> Product {
        Product::new(self.dtype, rows, columns, 4 * self.sizes.cells).transposed(false, true)
    }

    /// The weights' gradient from `rows` rows of `width` elements and as many of gates.
    fn product_weights(&self, rows: usize, width: usize) -> Product {
        Product::new(self.dtype, width, 4 * self.sizes.cells, rows).transposed(true, false)
    }

    fn step(&self, request: &KernelRequest<'_>, name: &str, peepholes: bool, step: usize) -> Result<Launch> {
        let mut defines = vec![("T", type_name(self.dtype)?)];
        let (bias, clip);
        if name == "lstm_step" {
            bias = constant(request.attr::<f32>("forget_bias")?.into());
            clip = constant(request.attr::<f32>("cell_clip")?.into());
            defines.extend([("FORGET_BIAS", bias.as_str()), ("CLIP", clip.as_str())]);
        }
        let n = self.sizes.state();
        let numbers = [n, self.sizes.cells, usize::from(peepholes), step];
        let launch = Launch::new(request, &SOURCE, name, &defines, Work::Elements(n), &numbers)?;
        // Forward: the cell's state and four gates are read, and seven results written. Back: the state, six results and two
        // gradients are read, and the gradients of the state and of four gates written.
        let states = if name == "lstm_step" { 12 } else { 14 };
        Ok(launch.moving(states * n * self.size))
    }

    fn sums(&self, request: &KernelRequest<'_>, rows: usize, peepholes: bool) -> Result<Launch> {
        let Sizes { batch, cells, .. } = self.sizes;
        let defines = [("T", type_name(self.dtype)?)];
        let numbers = [rows, cells, batch, usize::from(peepholes)];
        let work = Work::Blocks(4 * cells);
        let launch = Launch::new(request, &SOURCE, "lstm_sums", &defines, work, &numbers)?;
        // The gates' gradients and, where there are peepholes, the states before and behind them.
        let read = rows * cells * if peepholes { 6 } else { 4 };
        Ok(launch.moving((read + 7 * cells) * self.size).doing(read))
    }
}

/// The addresses of inputs.
fn inputs<const N: usize>(context: &KernelContext<'_>, inputs: [usize; N]) -> [DeviceAddress; N] {
    inputs.map(|input| context.input_address(input))
}

/// The addresses of all outputs, `bytes` further on.
fn outputs<const N: usize>(context: &KernelContext<'_>, bytes: usize) -> [DeviceAddress; N] {
    std::array::from_fn(|output| context.output_address(output).offset(bytes))
}

/// `LSTMBlockCell`
pub(super) fn lstm_cell(request: &KernelRequest<'_>, sizes: Sizes) -> Result<Planned> {
    let lstm = Lstm::new(request, sizes)?;
    let step = lstm.step(request, "lstm_step", request.attr("use_peephole")?, 0)?;
    let of_inputs = lstm.product(sizes.batch, sizes.inputs);
    let mut of_state = lstm.product(sizes.batch, sizes.cells);
    of_state.accumulate = true;
    let [_, scratch] = lstm.bytes();
    let planned = Planned::new(move |context: &mut KernelContext<'_>| {
        let [x, cs, h, w, wci, wcf, wco, b] = inputs(context, [0, 1, 2, 3, 4, 5, 6, 7]);
        let gates = context.scratch_address();
        // SAFETY: these are tensors of the cell's sizes (checked) and scratch memory for the gates.
        unsafe {
            lstm.cuda.multiply(&of_inputs, x, w, gates)?;
            lstm.cuda.multiply(&of_state, h, lstm.of_state(w), gates)?;
            step.run(
                outputs::<7>(context, 0)
                    .into_iter()
                    .chain([gates, cs, wci, wcf, wco, b, NOWHERE]),
            )
        }
    });
    Ok(planned.with_scratch(scratch))
}

/// `LSTMBlockCellGrad`
pub(super) fn lstm_cell_grad(request: &KernelRequest<'_>, sizes: Sizes) -> Result<Planned> {
    let lstm = Lstm::new(request, sizes)?;
    let peepholes: bool = request.attr("use_peephole")?;
    let step = lstm.step(request, "lstm_step_back", peepholes, 0)?;
    let sums = lstm.sums(request, sizes.batch, peepholes)?;
    Ok(Planned::new(move |context: &mut KernelContext<'_>| {
        let [to_cs, gates, to_wci, to_wcf, to_wco] = outputs(context, 0);
        let [cs_prev, wci, wcf, wco] = inputs(context, [1, 4, 5, 6]);
        let [i, cs, f, o, ci, co, cs_grad, h_grad] = inputs(context, [8, 9, 10, 11, 12, 13, 14, 15]);
        let operands = [cs_prev, wci, wcf, wco, i, f, o, ci, co, cs_grad, h_grad];
        // SAFETY: these are tensors of the cell's sizes (checked).
        unsafe {
            step.run([to_cs, gates].into_iter().chain(operands).chain([NOWHERE; 3]))?;
            sums.run([to_wci, to_wcf, to_wco, NOWHERE, gates, cs_prev, cs])
        }
    }))
}

/// `BlockLSTM` of `time` steps
pub(super) fn lstm_sequence(request: &KernelRequest<'_>, sizes: Sizes, time: usize) -> Result<Planned> {
    let lstm = Lstm::new(request, sizes)?;
    let peepholes: bool = request.attr("use_peephole")?;
    let steps = (0..time).map(|step| lstm.step(request, "lstm_step", peepholes, step));
    let steps = steps.collect::<Result<Vec<_>>>()?;
    let of_inputs = lstm.product(time * sizes.batch, sizes.inputs);
    let mut of_state = lstm.product(sizes.batch, sizes.cells);
    of_state.accumulate = true;
    let [state, gates] = lstm.bytes();
    let planned = Planned::new(move |context: &mut KernelContext<'_>| {
        let [len, x, mut cs, mut h, w, wci, wcf, wco, b] = inputs(context, [0, 1, 2, 3, 4, 5, 6, 7, 8]);
        let scratch = context.scratch_address();
        // SAFETY: these are tensors of the cell's sizes (checked) for all steps, and scratch memory for all gates.
        unsafe {
            lstm.cuda.multiply(&of_inputs, x, w, scratch)?;
            for (at, step) in steps.iter().enumerate() {
                let own = scratch.offset(at * gates);
                lstm.cuda.multiply(&of_state, h, lstm.of_state(w), own)?;
                let results: [DeviceAddress; 7] = outputs(context, at * state);
                step.run(results.into_iter().chain([own, cs, wci, wcf, wco, b, len]))?;
                (cs, h) = (results[1], results[6]);
            }
        }
        Ok(())
    });
    Ok(planned.with_scratch(time * gates))
}

/// `BlockLSTMGrad` of `time` steps
pub(super) fn lstm_sequence_grad(request: &KernelRequest<'_>, sizes: Sizes, time: usize) -> Result<Planned> {
    let lstm = Lstm::new(request, sizes)?;
    let peepholes: bool = request.attr("use_peephole")?;
    let steps = (0..time).map(|step| lstm.step(request, "lstm_step_back", peepholes, step));
    let steps = steps.collect::<Result<Vec<_>>>()?;
    let rows = time * sizes.batch;
    let sums = lstm.sums(request, rows, peepholes)?;
    let to_state = lstm.product_back(sizes.batch, sizes.cells);
    let to_inputs = lstm.product_back(rows, sizes.inputs);
    let (to_w, to_w_of_state) = (
        lstm.product_weights(rows, sizes.inputs),
        lstm.product_weights(rows, sizes.cells),
    );
    let first = Transfer::all(request, lstm.dtype, sizes.state())?;
    // Behind the first, which need not end where a longer word may begin.
    let rest = CopyAxis {
        len: sizes.state() * time.saturating_sub(1),
        from: 1,
        to: 1,
    };
    let others = Transfer::new(request, lstm.dtype, 0, sizes.state(), &[rest])?;
    let zeros = Fill::zeros(request, lstm.dtype, sizes.state())?;
    let [state, gates] = lstm.bytes();
    let sizes_of_parts = [time * gates, time * state, state];
    let planned = Planned::new(move |context: &mut KernelContext<'_>| {
        let [x, cs_first, h_first, w, wci, wcf, wco] = inputs(context, [1, 2, 3, 4, 5, 6, 7]);
        let [i, cs, f, o, ci, co, h] = inputs(context, [9, 10, 11, 12, 13, 14, 15]);
        let [len, cs_grad, h_grad] = inputs(context, [0, 16, 17]);
        let [to_x, to_cs, to_h, w_grad, to_wci, to_wcf, to_wco, to_b] = outputs(context, 0);
        let mut at = 0;
        let [all_gates, before, other] = sizes_of_parts.map(|bytes| part(context.scratch_address(), &mut at, bytes));
        // The cell's gradient is carried from one step to the one before in the output and in scratch memory by turns, so that
        // it ends in the output.
        let carried = |step: usize| if step.is_multiple_of(2) { to_cs } else { other };
        // SAFETY: these are tensors of the cell's sizes (checked) for all steps, and scratch memory for the gates' gradients
        // of all steps, the states before them, and a cell.
        unsafe {
            if steps.is_empty() {
                zeros.run(to_cs)?;
                zeros.run(to_h)?;
            }
            for (step, launch) in steps.iter().enumerate().rev() {
                let now = |tensor: DeviceAddress| tensor.offset(step * state);
                let cs_prev = if step == 0 {
                    cs_first
                } else {
                    cs.offset((step - 1) * state)
                };
                let (cs_carried, h_carried) = match step + 1 {
                    last if last == steps.len() => (NOWHERE, NOWHERE),
                    next => (carried(next), to_h),
                };
                let own = all_gates.offset(step * gates);
                let incoming = [now(i), now(f), now(o), now(ci), now(co), now(cs_grad), now(h_grad)];
                launch.run(
                    [carried(step), own, cs_prev, wci, wcf, wco]
                        .into_iter()
                        .chain(incoming)
                        .chain([cs_carried, h_carried, len]),
                )?;
                lstm.cuda.multiply(&to_state, own, lstm.of_state(w), to_h)?;
            }
            first.run(h_first, before)?;
            others.run(h, before)?;
            lstm.cuda.multiply(&to_inputs, all_gates, w, to_x)?;
            lstm.cuda.multiply(&to_w, x, all_gates, w_grad)?;
            lstm.cuda
                .multiply(&to_w_of_state, before, all_gates, lstm.of_state(w_grad))?;
            sums.run([to_wci, to_wcf, to_wco, to_b, all_gates, cs_first, cs])
        }
    });
    let bytes = sizes_of_parts.iter().map(|bytes| bytes.next_multiple_of(256)).sum();
    Ok(planned.with_scratch(bytes))
}

/// A kernel of a gated recurrent unit, over the elements of its state.
fn gru_launch(request: &KernelRequest<'_>, name: &str, sizes: Sizes) -> Result<Launch> {
    let n = sizes.state();
    let numbers: &[usize] = if name == "gru_state_back" {
        &[n]
    } else {
        &[n, sizes.cells]
    };
    let launch = Launch::new(request, &SOURCE, name, &[("T", "float")], Work::Elements(n), numbers)?;
    // Tensors as large as the state that are read and written; two gates are two.
    let states = match name {
        "gru_gates" | "gru_state_back" => 6,
        "gru_back" => 7,
        _ => 5,
    };
    Ok(launch.moving(states * n * size_of::<f32>()))
}

/// Products with the weights of the inputs and of the state, which lie behind them: each writes or adds.
fn gru_products(sizes: Sizes, columns: usize) -> [Product; 2] {
    let of_inputs = Product::new(DType::Float32, sizes.batch, columns, sizes.inputs);
    let mut of_state = Product::new(DType::Float32, sizes.batch, columns, sizes.cells);
    of_state.accumulate = true;
    [of_inputs, of_state]
}

/// `GRUBlockCell`
pub(super) fn gru_cell(request: &KernelRequest<'_>, sizes: Sizes) -> Result<Planned> {
    let cuda = Cuda::of(request)?;
    let Sizes {
        inputs: width, cells, ..
    } = sizes;
    let (gates, state) = (
        gru_launch(request, "gru_gates", sizes)?,
        gru_launch(request, "gru_state", sizes)?,
    );
    let (of_gates, of_cell) = (gru_products(sizes, 2 * cells), gru_products(sizes, cells));
    let bytes = sizes.state() * 4;
    let sizes_of_parts = [2 * bytes, bytes, bytes];
    let planned = Planned::new(move |context: &mut KernelContext<'_>| {
        let [x, h_prev, w_ru, w_c, b_ru, b_c] = inputs(context, [0, 1, 2, 3, 4, 5]);
        let [r, u, c, h] = outputs(context, 0);
        let mut at = 0;
        let [all, through, offered] = sizes_of_parts.map(|bytes| part(context.scratch_address(), &mut at, bytes));
        // SAFETY: these are tensors of the cell's sizes (checked) and scratch memory for the gates and two states.
        unsafe {
            cuda.multiply(&of_gates[0], x, w_ru, all)?;
            cuda.multiply(&of_gates[1], h_prev, w_ru.offset(width * 2 * cells * 4), all)?;
            gates.run([r, u, through, all, h_prev, b_ru])?;
            cuda.multiply(&of_cell[0], x, w_c, offered)?;
            cuda.multiply(&of_cell[1], through, w_c.offset(width * cells * 4), offered)?;
            state.run([c, h, offered, u, h_prev, b_c])
        }
    });
    Ok(planned.with_scratch(sizes_of_parts.iter().map(|bytes| bytes.next_multiple_of(256)).sum()))
}

/// `GRUBlockCellGrad`
pub(super) fn gru_cell_grad(request: &KernelRequest<'_>, sizes: Sizes) -> Result<Planned> {
    let cuda = Cuda::of(request)?;
    let Sizes {
        batch,
        inputs: width,
        cells,
    } = sizes;
    let launch = |name: &str| gru_launch(request, name, sizes);
    let (back, reset, state) = (
        launch("gru_back")?,
        launch("gru_reset_back")?,
        launch("gru_state_back")?,
    );
    let product =
        |columns: usize, inner: usize| Product::new(DType::Float32, batch, columns, inner).transposed(false, true);
    let (cell_to_x, cell_to_state) = (product(width, cells), product(cells, cells));
    let (mut gates_to_x, gates_to_state) = (product(width, 2 * cells), product(cells, 2 * cells));
    gates_to_x.accumulate = true;
    let planned = Planned::new(move |context: &mut KernelContext<'_>| {
        let [h_prev, w_ru, w_c, r, u, c, d_h] = inputs(context, [1, 2, 3, 6, 7, 8, 9]);
        let [d_x, d_h_prev, d_c, d_gates] = outputs(context, 0);
        let through = context.scratch_address();
        // SAFETY: these are tensors of the cell's sizes (checked) and scratch memory for a state.
        unsafe {
            back.run([d_c, d_gates, h_prev, u, c, d_h])?;
            cuda.multiply(&cell_to_x, d_c, w_c, d_x)?;
            cuda.multiply(&cell_to_state, d_c, w_c.offset(width * cells * 4), through)?;
            reset.run([d_gates, through, h_prev, r])?;
            cuda.multiply(&gates_to_x, d_gates, w_ru, d_x)?;
            cuda.multiply(&gates_to_state, d_gates, w_ru.offset(width * 2 * cells * 4), d_h_prev)?;
            state.run([d_h_prev, through, r, u, d_h])
        }
    });
    Ok(planned.with_scratch(sizes.state() * 4))
}
