// The update of an optimizer: a step for each element of a variable, its slots and its gradient.
//
// Defined from outside: T, the elements' type; VARIABLES, how many there are, with their slots; SCALARS, how many numbers the
// formula has; PREPARE, what is calculated once; and STEP, what is done to the elements `a`, `b`, `c` and `d` of the variables
// by the element `grad` of the gradient. Both find the numbers as `s[0]`, `s[1]`, ...; all are of type C. Where the gradient is a
// chain of element-wise operations, there is also what `chain.cuh` says; where rows are updated, I, the type of their numbers.

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

// `gradient(at)` is the gradient's element `at`.
template <class Gradient>
DEVICE void update(T* pa, T* pb, T* pc, T* pd, i64 n, const Numbers& numbers, const i64* whole, const bool* mask,
                   const Gradient& gradient) {
  // Where there is a condition and it does not hold, nothing changes.
  if (mask != nullptr && !*mask) return;
  C s[SCALARS + 1];
  for (int k = 0; k < SCALARS; ++k) s[k] = C(*numbers.of[k]);
  // A number that counts, where a formula has one.
  s[SCALARS] = whole != nullptr ? C(*whole) : C(0);
  PREPARE;
  GRID_LOOP(at, n) {
    C grad = gradient(at);
    C a = C(pa[at]);
#if VARIABLES > 1
    C b = C(pb[at]);
#endif
#if VARIABLES > 2
    C c = C(pc[at]);
#endif
#if VARIABLES > 3
    C d = C(pd[at]);
#endif
    STEP;
    pa[at] = T(a);
#if VARIABLES > 1
    pb[at] = T(b);
#endif
#if VARIABLES > 2
    pc[at] = T(c);
#endif
#if VARIABLES > 3
    pd[at] = T(d);
#endif
  }
}

#ifdef I
// The rows of the variables that numbers name: a block a number. The first of several that name a row takes them all, in their
// order, so that no two blocks write to a row. Numbers that name no row are left out.
BLOCK_KERNEL(apply_rows, 256, T* pa, T* pb, T* pc, T* pd, const T* gradient, const I* indices, i64 named, i64 rows, i64 inner,
             Numbers numbers, const i64* whole) {
  SHARED i32 found;
  SHARED bool same[256];
  C s[SCALARS + 1];
  for (int k = 0; k < SCALARS; ++k) s[k] = C(*numbers.of[k]);
  s[SCALARS] = whole != nullptr ? C(*whole) : C(0);
  PREPARE;
  int thread = threadIdx.x;
  for (i64 first = blockIdx.x; first < named; first += gridDim.x) {
    i64 row = i64(indices[first]);
    if (row < 0 || row >= rows) continue;
    bool earlier = false;
    for (i64 begin = 0; begin < first && !earlier; begin += 256) {
      if (thread == 0) found = 0;
      sync_threads();
      if (begin + thread < first && i64(indices[begin + thread]) == row) found = 1;
      sync_threads();
      earlier = found != 0;
      sync_threads();
    }
    if (earlier) continue;
    for (i64 left = 0; left < inner; left += 256) {
      i64 column = left + thread, at = row * inner + column;
      bool inside = column < inner;
      C a = inside ? C(pa[at]) : C(0);
#if VARIABLES > 1
      C b = inside ? C(pb[at]) : C(0);
#endif
#if VARIABLES > 2
      C c = inside ? C(pc[at]) : C(0);
#endif
#if VARIABLES > 3
      C d = inside ? C(pd[at]) : C(0);
#endif
      for (i64 begin = first; begin < named; begin += 256) {
        if (thread == 0) found = 0;
        sync_threads();
        same[thread] = begin + thread < named && i64(indices[begin + thread]) == row;
        if (same[thread]) found = 1;
        sync_threads();
        if (found != 0 && inside) {
          for (int other = 0; other < 256; ++other) {
            if (!same[other]) continue;
            C grad = C(gradient[(begin + other) * inner + column]);
            STEP;
            // What the next step finds is what is kept.
            a = C(T(a));
#if VARIABLES > 1
            b = C(T(b));
#endif
#if VARIABLES > 2
            c = C(T(c));
#endif
#if VARIABLES > 3
            d = C(T(d));
#endif
          }
        }
        sync_threads();
      }
      if (!inside) continue;
      pa[at] = T(a);
#if VARIABLES > 1
      pb[at] = T(b);
#endif
#if VARIABLES > 2
      pc[at] = T(c);
#endif
#if VARIABLES > 3
      pd[at] = T(d);
#endif
    }
  }
}
#elif defined(RESULTS)
// What the chain reads of a variable's own memory it reads before the element there changes.
KERNEL(apply, T* pa, T* pb, T* pc, T* pd, Operands operands, Strides strides, i64 n, Numbers numbers, const i64* whole,
       const bool* mask) {
  update(pa, pb, pc, pd, n, numbers, whole, mask, [&](i64 at) { return C(chains(load(operands, strides, at)).of[0]); });
}
#else
KERNEL(apply, T* pa, T* pb, T* pc, T* pd, const T* gradient, i64 n, Numbers numbers, const i64* whole, const bool* mask) {
  update(pa, pb, pc, pd, n, numbers, whole, mask, [&](i64 at) { return C(gradient[at]); });
}
#endif
