//! Recurrent cells: the LSTM with peepholes (Gers, Schraudolph, "Recurrent Nets that Time and Count", 2000) and the GRU (Cho
//! et al., "Learning Phrase Representations using RNN Encoder-Decoder", 2014), forwards and backwards.

use super::element::Wide;
use super::gemm::{GemmElement, Product, gemm};

/// The sizes of a cell.
#[derive(Clone, Copy, Debug)]
pub struct Sizes {
    pub batch: usize,
    pub inputs: usize,
    pub cells: usize,
}

impl Sizes {
    /// Elements of a state.
    pub fn state(&self) -> usize {
        self.batch * self.cells
    }

    /// Inputs and state side by side.
    fn joined(&self) -> usize {
        self.inputs + self.cells
    }
}

/// Each row of `a`, of `a_len` elements, followed by the same row of `b`.
fn side_by_side<W: Wide>(a: &[W], a_len: usize, b: &[W], b_len: usize, rows: usize) -> Vec<W> {
    let mut joined = Vec::with_capacity(rows * (a_len + b_len));
    for row in 0..rows {
        joined.extend_from_slice(&a[row * a_len..(row + 1) * a_len]);
        joined.extend_from_slice(&b[row * b_len..(row + 1) * b_len]);
    }
    joined
}

/// `x w + b` for `rows` rows of `inner` elements.
fn affine<W: Wide + GemmElement>(x: &[W], w: &[W], b: &[W], rows: usize, inner: usize) -> Vec<W> {
    let mut out: Vec<W> = b.iter().copied().cycle().take(rows * b.len()).collect();
    let mut product = Product::new(rows, b.len(), inner);
    product.accumulate = true;
    gemm(product, x, w, &mut out);
    out
}

/// `gradient wᵀ`
fn back<W: Wide + GemmElement>(gradient: &[W], w: &[W], rows: usize, inner: usize, columns: usize) -> Vec<W> {
    let mut out = vec![W::zero(); rows * inner];
    gemm(
        Product::new(rows, inner, columns).transposed(false, true),
        gradient,
        w,
        &mut out,
    );
    out
}

fn sigmoid<W: Wide>(x: W) -> W {
    (W::one() + (-x).exp()).recip()
}

/// The weights of an LSTM cell.
#[derive(Clone, Copy)]
pub struct LstmWeights<'a, W> {
    /// Of inputs and state, for the input gate, the cell, the forget gate and the output gate side by side.
    pub w: &'a [W],
    pub b: &'a [W],
    /// Of the cell for the input, forget and output gates.
    pub peepholes: Option<[&'a [W]; 3]>,
}

/// What an LSTM cell computes of a step, a row for each member of the batch.
#[derive(Clone, Default)]
pub struct LstmStep<W> {
    /// Input gate.
    pub i: Vec<W>,
    /// Cell.
    pub cs: Vec<W>,
    /// Forget gate.
    pub f: Vec<W>,
    /// Output gate.
    pub o: Vec<W>,
    /// What the cell is offered.
    pub ci: Vec<W>,
    /// The cell, squashed.
    pub co: Vec<W>,
    /// State.
    pub h: Vec<W>,
}

/// One step: `forget_bias` is added to the forget gate, and the cell clipped to `clip` on both sides if that is positive.
pub fn lstm_step<W: Wide + GemmElement>(
    sizes: Sizes,
    weights: LstmWeights<'_, W>,
    (forget_bias, clip): (W, W),
    x: &[W],
    cs_prev: &[W],
    h_prev: &[W],
) -> LstmStep<W> {
    let Sizes { batch, inputs, cells } = sizes;
    let joined = side_by_side(x, inputs, h_prev, cells, batch);
    let gates = affine(&joined, weights.w, weights.b, batch, sizes.joined());
    let mut step = LstmStep {
        i: Vec::with_capacity(sizes.state()),
        ..LstmStep::default()
    };
    let peephole =
        |gate: usize, cell: W, c: usize| weights.peepholes.map_or(W::zero(), |weights| cell * weights[gate][c]);
    for row in 0..batch {
        let gates = &gates[row * 4 * cells..(row + 1) * 4 * cells];
        for c in 0..cells {
            let before = cs_prev[row * cells + c];
            let i = sigmoid(gates[c] + peephole(0, before, c));
            let ci = gates[cells + c].tanh();
            let f = sigmoid(gates[2 * cells + c] + forget_bias + peephole(1, before, c));
            let mut cs = ci * i + before * f;
            if clip > W::zero() {
                cs = cs.max(-clip).min(clip);
            }
            let o = sigmoid(gates[3 * cells + c] + peephole(2, cs, c));
            let co = cs.tanh();
            step.i.push(i);
            step.cs.push(cs);
            step.f.push(f);
            step.o.push(o);
            step.ci.push(ci);
            step.co.push(co);
            step.h.push(o * co);
        }
    }
    step
}

/// The slices of a step, for its gradient.
#[derive(Clone, Copy)]
pub struct LstmSlices<'a, W> {
    pub i: &'a [W],
    pub cs: &'a [W],
    pub f: &'a [W],
    pub o: &'a [W],
    pub ci: &'a [W],
    pub co: &'a [W],
}

/// The gradients of a step.
pub struct LstmGradients<W> {
    /// Of the cell before.
    pub cs_prev: Vec<W>,
    /// Of the four gates side by side, before they are squashed.
    pub gates: Vec<W>,
    /// Of the peepholes.
    pub peepholes: [Vec<W>; 3],
}

/// The gradients of a step from those of its cell and its state.
pub fn lstm_step_back<W: Wide>(
    sizes: Sizes,
    peepholes: Option<[&[W]; 3]>,
    cs_prev: &[W],
    step: LstmSlices<'_, W>,
    cs_grad: &[W],
    h_grad: &[W],
) -> LstmGradients<W> {
    let Sizes { batch, cells, .. } = sizes;
    let (zero, one) = (W::zero(), W::one());
    let mut gradients = LstmGradients {
        cs_prev: vec![zero; sizes.state()],
        gates: vec![zero; sizes.state() * 4],
        peepholes: std::array::from_fn(|_| vec![zero; cells]),
    };
    for row in 0..batch {
        for c in 0..cells {
            let at = row * cells + c;
            let (i, f, o, ci, co) = (step.i[at], step.f[at], step.o[at], step.ci[at], step.co[at]);
            let output = o * (one - o) * h_grad[at] * co;
            let mut cell = (one - co * co) * h_grad[at] * o + cs_grad[at];
            if let Some([_, _, wco]) = peepholes {
                cell += output * wco[c];
            }
            let offered = (one - ci * ci) * cell * i;
            let forget = f * (one - f) * cell * cs_prev[at];
            let input = i * (one - i) * cell * ci;
            let mut before = cell * f;
            if let Some([wci, wcf, _]) = peepholes {
                before = before + input * wci[c] + forget * wcf[c];
                gradients.peepholes[0][c] += input * cs_prev[at];
                gradients.peepholes[1][c] += forget * cs_prev[at];
                gradients.peepholes[2][c] += output * step.cs[at];
            }
            gradients.cs_prev[at] = before;
            for (gate, gradient) in [input, offered, forget, output].into_iter().enumerate() {
                gradients.gates[(row * 4 + gate) * cells + c] = gradient;
            }
        }
    }
    gradients
}

/// What the gradient of an LSTM over several steps adds up.
pub struct LstmTotals<'a, W> {
    pub w: &'a mut [W],
    pub b: &'a mut [W],
}

impl<W: Wide + GemmElement> LstmTotals<'_, W> {
    /// Adds a step's share to the weights; the gradients of its inputs and of the state before.
    pub fn add_step(&mut self, sizes: Sizes, w: &[W], x: &[W], h_prev: &[W], gates: &[W]) -> (Vec<W>, Vec<W>) {
        let Sizes { batch, inputs, cells } = sizes;
        let joined = side_by_side(x, inputs, h_prev, cells, batch);
        let mut product = Product::new(sizes.joined(), 4 * cells, batch).transposed(true, false);
        product.accumulate = true;
        gemm(product, &joined, gates, self.w);
        for row in gates.chunks_exact((4 * cells).max(1)) {
            self.b.iter_mut().zip(row).for_each(|(total, &x)| *total += x);
        }
        split_columns(&back(gates, w, batch, sizes.joined(), 4 * cells), inputs, cells)
    }
}

/// The first `left` columns and the other `right` ones.
fn split_columns<W: Wide>(rows: &[W], left: usize, right: usize) -> (Vec<W>, Vec<W>) {
    rows.chunks_exact((left + right).max(1))
        .fold((Vec::new(), Vec::new()), |(mut a, mut b), row| {
            a.extend_from_slice(&row[..left]);
            b.extend_from_slice(&row[left..]);
            (a, b)
        })
}

/// The weights of a GRU cell.
#[derive(Clone, Copy)]
pub struct GruWeights<'a, W> {
    /// Of inputs and state, for the reset and the update gate side by side.
    pub w_ru: &'a [W],
    /// Of inputs and the state that was let through, for the cell.
    pub w_c: &'a [W],
    pub b_ru: &'a [W],
    pub b_c: &'a [W],
}

/// What a GRU cell computes of a step: reset gate, update gate, cell, state.
pub fn gru_step<W: Wide + GemmElement>(sizes: Sizes, weights: GruWeights<'_, W>, x: &[W], h_prev: &[W]) -> [Vec<W>; 4] {
    let Sizes { batch, inputs, cells } = sizes;
    let joined = side_by_side(x, inputs, h_prev, cells, batch);
    let gates: Vec<W> = affine(&joined, weights.w_ru, weights.b_ru, batch, sizes.joined())
        .into_iter()
        .map(sigmoid)
        .collect();
    let (r, u) = split_columns(&gates, cells, cells);
    let through: Vec<W> = h_prev.iter().zip(&r).map(|(&h, &r)| h * r).collect();
    let joined = side_by_side(x, inputs, &through, cells, batch);
    let mut c = affine(&joined, weights.w_c, weights.b_c, batch, sizes.joined());
    c.iter_mut().for_each(|c| *c = c.tanh());
    let h = u
        .iter()
        .zip(h_prev)
        .zip(&c)
        .map(|((&u, &before), &c)| u * before + (W::one() - u) * c)
        .collect();
    [r, u, c, h]
}

/// The gradients of a step of a GRU cell: of the inputs, the state before, the cell before it is squashed, and both gates
/// before they are.
pub fn gru_step_back<W: Wide + GemmElement>(
    sizes: Sizes,
    weights: GruWeights<'_, W>,
    h_prev: &[W],
    [r, u, c]: [&[W]; 3],
    d_h: &[W],
) -> [Vec<W>; 4] {
    let Sizes { batch, inputs, cells } = sizes;
    let one = W::one();
    let places = 0..sizes.state();
    let d_c_bar: Vec<W> = places
        .clone()
        .map(|at| d_h[at] * (one - u[at]) * (one - c[at] * c[at]))
        .collect();
    let d_u_bar: Vec<W> = places
        .clone()
        .map(|at| d_h[at] * (h_prev[at] - c[at]) * u[at] * (one - u[at]))
        .collect();
    let (x_by_cell, d_through) = split_columns(
        &back(&d_c_bar, weights.w_c, batch, sizes.joined(), cells),
        inputs,
        cells,
    );
    let d_r_bar: Vec<W> = places
        .clone()
        .map(|at| d_through[at] * h_prev[at] * r[at] * (one - r[at]))
        .collect();
    let d_gates = side_by_side(&d_r_bar, cells, &d_u_bar, cells, batch);
    let (x_by_gates, h_by_gates) = split_columns(
        &back(&d_gates, weights.w_ru, batch, sizes.joined(), 2 * cells),
        inputs,
        cells,
    );
    let d_x = x_by_cell.iter().zip(&x_by_gates).map(|(&a, &b)| a + b).collect();
    let d_h_prev = places
        .map(|at| h_by_gates[at] + d_through[at] * r[at] + d_h[at] * u[at])
        .collect();
    [d_x, d_h_prev, d_c_bar, d_gates]
}
