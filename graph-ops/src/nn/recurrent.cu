// Recurrent cells: what comes before and behind the products with their weights. A thread an element of the state, [batch, cells].
//
// Defined from outside: T, the elements' type; FORGET_BIAS and CLIP of long short-term memory.

typedef typename Compute<T>::type C;

DEVICE C sigmoid(C x) { return C(1) / (C(1) + C(exp(-x))); }
DEVICE C peephole(const T* weights, i64 c, C cell, bool has) { return has ? cell * C(weights[c]) : C(0); }

#ifdef FORGET_BIAS
// `gates` are [batch, 4 cells] of x and h times the weights: input gate, cell, forget gate, output gate. Steps from `*steps` on are
// zeros.
KERNEL(lstm_step, T* i_out, T* cs_out, T* f_out, T* o_out, T* ci_out, T* co_out, T* h_out, const T* gates, const T* cs_prev,
       const T* wci, const T* wcf, const T* wco, const T* b, const i64* steps, i64 n, i64 cells, i64 peepholes, i64 step) {
  bool has = peepholes != 0, rests = steps != nullptr && step >= *steps;
  GRID_LOOP(at, n) {
    i64 row = at / cells, c = at - row * cells;
    const T* own = gates + row * 4 * cells + c;
    C before = C(cs_prev[at]);
    C i = sigmoid(C(own[0]) + C(b[c]) + peephole(wci, c, before, has));
    C ci = C(tanh(C(own[cells]) + C(b[cells + c])));
    C f = sigmoid(C(own[2 * cells]) + C(b[2 * cells + c]) + C(FORGET_BIAS) + peephole(wcf, c, before, has));
    C cs = ci * i + before * f, clip = C(CLIP);
    if (clip > C(0)) cs = cs < -clip ? -clip : cs > clip ? clip : cs;
    C o = sigmoid(C(own[3 * cells]) + C(b[3 * cells + c]) + peephole(wco, c, cs, has));
    C co = C(tanh(cs));
    i_out[at] = rests ? T(C(0)) : T(i);
    cs_out[at] = rests ? T(C(0)) : T(cs);
    f_out[at] = rests ? T(C(0)) : T(f);
    o_out[at] = rests ? T(C(0)) : T(o);
    ci_out[at] = rests ? T(C(0)) : T(ci);
    co_out[at] = rests ? T(C(0)) : T(co);
    h_out[at] = rests ? T(C(0)) : T(o * co);
  }
}
#endif

// The gradients of the gates before they are squashed, and of the cell before; the incoming ones are `cs_grad` and `h_grad`, and, where
// there are, `cs_carried` and `h_carried` of the step behind. Steps from `*steps` on pass zeros.
KERNEL(lstm_step_back, T* cs_prev_grad, T* gates, const T* cs_prev, const T* wci, const T* wcf, const T* wco, const T* i_in,
       const T* f_in, const T* o_in, const T* ci_in, const T* co_in, const T* cs_grad, const T* h_grad, const T* cs_carried,
       const T* h_carried, const i64* steps, i64 n, i64 cells, i64 peepholes, i64 step) {
  bool has = peepholes != 0, rests = steps != nullptr && step >= *steps;
  GRID_LOOP(at, n) {
    i64 row = at / cells, c = at - row * cells;
    C i = C(i_in[at]), f = C(f_in[at]), o = C(o_in[at]), ci = C(ci_in[at]), co = C(co_in[at]), before = C(cs_prev[at]);
    C to_h = C(h_grad[at]) + (h_carried != nullptr ? C(h_carried[at]) : C(0));
    C to_cs = C(cs_grad[at]) + (cs_carried != nullptr ? C(cs_carried[at]) : C(0));
    C output = o * (C(1) - o) * to_h * co;
    C cell = (C(1) - co * co) * to_h * o + to_cs + peephole(wco, c, output, has);
    C offered = (C(1) - ci * ci) * cell * i, forget = f * (C(1) - f) * cell * before, input = i * (C(1) - i) * cell * ci;
    C to_before = cell * f + peephole(wci, c, input, has) + peephole(wcf, c, forget, has);
    T* own = gates + row * 4 * cells + c;
    own[0] = rests ? T(C(0)) : T(input);
    own[cells] = rests ? T(C(0)) : T(offered);
    own[2 * cells] = rests ? T(C(0)) : T(forget);
    own[3 * cells] = rests ? T(C(0)) : T(output);
    cs_prev_grad[at] = rests ? T(C(0)) : T(to_before);
  }
}

// The sums over `rows` rows of `gates`, [rows, 4 cells], and of them times the cells that the peepholes see: `first` for the first
// `batch` rows and then the rows of `cs` one step before. A block a column; `bias` may be missing.
BLOCK_KERNEL(lstm_sums, 256, T* wci, T* wcf, T* wco, T* bias, const T* gates, const T* first, const T* cs, i64 rows, i64 cells,
             i64 batch, i64 peepholes) {
  for (i64 column = blockIdx.x; column < 4 * cells; column += gridDim.x) {
    i64 gate = column / cells, c = column % cells;
    C sum = C(0), product = C(0);
    for (i64 row = threadIdx.x; row < rows; row += 256) {
      C gradient = C(gates[row * 4 * cells + column]);
      sum += gradient;
      if (peepholes == 0) continue;
      C seen = gate == 3 ? C(cs[row * cells + c]) : row < batch ? C(first[row * cells + c]) : C(cs[(row - batch) * cells + c]);
      product += gradient * seen;
    }
    sum = reduce_block<Add, 256>(sum);
    product = reduce_block<Add, 256>(product);
    if (threadIdx.x != 0) continue;
    if (bias != nullptr) bias[column] = T(sum);
    if (gate == 0) wci[c] = T(product);
    if (gate == 2) wcf[c] = T(product);
    if (gate == 3) wco[c] = T(product);
  }
}

// The gates of a gated recurrent unit from [batch, 2 cells] of x and h times the weights; `through` is what of h passes the reset gate.
KERNEL(gru_gates, T* r_out, T* u_out, T* through, const T* gates, const T* h_prev, const T* b, i64 n, i64 cells) {
  GRID_LOOP(at, n) {
    i64 row = at / cells, c = at - row * cells;
    const T* own = gates + row * 2 * cells + c;
    C r = sigmoid(C(own[0]) + C(b[c]));
    r_out[at] = T(r);
    u_out[at] = T(sigmoid(C(own[cells]) + C(b[cells + c])));
    through[at] = T(C(h_prev[at]) * r);
  }
}

KERNEL(gru_state, T* c_out, T* h_out, const T* offered, const T* u, const T* h_prev, const T* b, i64 n, i64 cells) {
  GRID_LOOP(at, n) {
    C c = C(tanh(C(offered[at]) + C(b[at % cells]))), update = C(u[at]);
    c_out[at] = T(c);
    h_out[at] = T(update * C(h_prev[at]) + (C(1) - update) * c);
  }
}

// The gradients of the cell and of the update gate (the second half of `gates`) before they are squashed.
KERNEL(gru_back, T* cell, T* gates, const T* h_prev, const T* u, const T* c, const T* d_h, i64 n, i64 cells) {
  GRID_LOOP(at, n) {
    i64 row = at / cells;
    C update = C(u[at]), own = C(c[at]), gradient = C(d_h[at]);
    cell[at] = T(gradient * (C(1) - update) * (C(1) - own * own));
    gates[(2 * row + 1) * cells + at - row * cells] = T(gradient * (C(h_prev[at]) - own) * update * (C(1) - update));
  }
}

// That of the reset gate, the first half.
KERNEL(gru_reset_back, T* gates, const T* through, const T* h_prev, const T* r, i64 n, i64 cells) {
  GRID_LOOP(at, n) {
    i64 row = at / cells;
    C reset = C(r[at]);
    gates[2 * row * cells + at - row * cells] = T(C(through[at]) * C(h_prev[at]) * reset * (C(1) - reset));
  }
}

// Adds to what came by the gates' weights what comes to the state directly.
KERNEL(gru_state_back, T* d_h_prev, const T* through, const T* r, const T* u, const T* d_h, i64 n) {
  GRID_LOOP(at, n) d_h_prev[at] = T(C(d_h_prev[at]) + C(through[at]) * C(r[at]) + C(d_h[at]) * C(u[at]));
}
