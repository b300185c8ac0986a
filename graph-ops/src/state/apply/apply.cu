// The update of an optimizer: a step for each element of a variable, its slots and its gradient.
//
// Defined from outside: T, the elements' type; VARIABLES, how many there are, with their slots; SCALARS, how many numbers the
// formula has; PREPARE, what is calculated once; and STEP, what is done to the elements `a`, `b`, `c` and `d` of the variables
// by the element `grad` of the gradient. Both find the numbers as `s[0]`, `s[1]`, ...; all are of type C. Where the gradient is a
// chain of element-wise operations, there is also what `members.cuh` and `chain.cuh` say, and MEMBERS where several variables are updated; where
// rows are updated, what `row_order.cuh` does, and ROWS.

typedef typename Compute<T>::type C;

DEVICE C sign_of(C x) { return x > C(0) ? C(1) : x < C(0) ? C(-1) : x; }
DEVICE C larger(C x, C y) { return x > y || is_nan(y) ? x : y; }
DEVICE C square_root(C x) { return C(sqrt(x)); }

// `x` to the power of `power`.
DEVICE C powered(C x, C power) { return power == C(0.5) ? square_root(x) : C(pow(x, power)); }

// What l1 and l2 leave of `x` after a step of size `rate`.
DEVICE C shrink(C x, C rate, C l1, C l2) {
  C scale = C(1) + l2 * rate;
  if (l1 > C(0)) return sign_of(x) * larger(C(abs(x)) - rate * l1, C(0)) / scale;
  return x / scale;
}

// Where the numbers lie.
struct Numbers {
  const T* of[8];
};

// The variables.
struct Variables {
  T* of[4];
};

// An element of each variable.
struct Elements {
  C of[VARIABLES];

  DEVICE Elements(const Variables& variables, i64 at) {
    for (int k = 0; k < VARIABLES; ++k) of[k] = C(variables.of[k][at]);
  }

  DEVICE void store(const Variables& variables, i64 at) const {
    for (int k = 0; k < VARIABLES; ++k) variables.of[k][at] = T(of[k]);
  }

  // Becomes what is found after `store`.
  DEVICE void round() {
    for (int k = 0; k < VARIABLES; ++k) of[k] = C(T(of[k]));
  }
};

// Calls `body` with the formula: what does a step with the elements and the gradient that it is given.
template <class Body>
DEVICE void with_formula(const Numbers& numbers, const i64* whole, const Body& body) {
  C s[SCALARS + 1];
  for (int k = 0; k < SCALARS; ++k) s[k] = C(*numbers.of[k]);
  // A number that counts, where a formula has one.
  s[SCALARS] = whole != nullptr ? C(*whole) : C(0);
  PREPARE;
  body([&](Elements& elements, C grad) {
    // A formula names no more than there are.
    C &a = elements.of[0], &b = elements.of[VARIABLES > 1 ? 1 : 0];
    C &c = elements.of[VARIABLES > 2 ? 2 : 0], &d = elements.of[VARIABLES > 3 ? 3 : 0];
    (void)b, (void)c, (void)d;
    STEP;
  });
}

#ifdef ROWS
// The rows of the variables that have updates. One thread for each element of a row takes all of them.
KERNEL(apply_rows, Variables variables, const T* gradient, RowOrder order, i64 inner, Numbers numbers, const i64* whole) {
  with_formula(numbers, whole, [&](const auto& step) {
    GRID_LOOP(i, order.count * inner) {
      i64 first = i / inner, column = i - first * inner;
      if (!order.begins(first)) continue;
      i64 at = i64(order.row_at(first)) * inner + column;
      Elements elements(variables, at);
      order.each(first, [&](i64 update) {
        step(elements, C(gradient[update * inner + column]));
        // What the next step finds is what is kept.
        elements.round();
      });
      elements.store(variables, at);
    }
  });
}
#else
// Updates `n` elements with `blocks` blocks of threads, of which this one is `block`; `gradient(at)` is the gradient's element `at`.
template <class Step, class Gradient>
DEVICE void update(const Variables& variables, i64 n, i64 block, i64 blocks, const Step& step, const Gradient& gradient) {
  for (i64 at = block * blockDim.x + threadIdx.x; at < n; at += blocks * blockDim.x) {
    // The gradient may lie in the variable's own memory: it is read before the element there changes.
    C grad = gradient(at);
    Elements elements(variables, at);
    step(elements, grad);
    elements.store(variables, at);
  }
}

// Where there is a condition and it does not hold, nothing changes.
DEVICE bool is_left_out(const bool* mask) { return mask != nullptr && !*mask; }

#if defined(MEMBERS)
// A variable, and the operands of its gradient's chain, none of which is broadcast.
struct Member {
  Variables variables;
  Operands operands;
  i64 n;
  // The first of the blocks that update it.
  i64 block;
};

struct Members {
  Member of[16];
};

// The updates of `count` variables by the same numbers.
KERNEL(apply_members, Members members, i32 count, Numbers numbers, const i64* whole, const bool* mask) {
  if (is_left_out(mask)) return;
  Share share = own_share(members, count);
  const Member& member = members.of[share.member];
  with_formula(numbers, whole, [&](const auto& step) {
    update(member.variables, member.n, share.block, share.blocks, step, [&](i64 at) {
      return C(chains(load(member.operands, Strides(), at)).of[0]);
    });
  });
}
#elif defined(RESULTS)
KERNEL(apply, Variables variables, Operands operands, Strides strides, i64 n, Numbers numbers, const i64* whole,
       const bool* mask) {
  if (is_left_out(mask)) return;
  with_formula(numbers, whole, [&](const auto& step) {
    update(variables, n, blockIdx.x, gridDim.x, step, [&](i64 at) { return C(chains(load(operands, strides, at)).of[0]); });
  });
}
#else
KERNEL(apply, Variables variables, const T* gradient, i64 n, Numbers numbers, const i64* whole, const bool* mask) {
  if (is_left_out(mask)) return;
  with_formula(numbers, whole, [&](const auto& step) {
    update(variables, n, blockIdx.x, gridDim.x, step, [&](i64 at) { return C(gradient[at]); });
  });
}
#endif
#endif
