// Running totals along the middle one of three dimensions.
//
// Defined from outside: T, the elements' type; OPERATION, `Add`, `Multiply` or `AddExponentials`; FIRST, what stands before the
// first element.

typedef typename Accumulate<T>::type A;

// The logarithm of the sum of the exponentials.
struct AddExponentials {
  template <class X>
  static DEVICE X apply(X x, X y) {
    X greater = x > y || is_nan(x) ? x : y;
    if (is_infinite(greater) && greater < X(0)) return greater;
    return greater + X(log(exp(x - greater) + exp(y - greater)));
  }
};

// A thread a line.
KERNEL(scan_lines, T* out, const T* in, i64 lines, i64 len, i64 inner, i32 exclusive, i32 reverse) {
  GRID_LOOP(line, lines) {
    i64 start = line / inner * len * inner + line % inner;
    A total = FIRST;
    for (i64 step = 0; step < len; ++step) {
      i64 at = start + inner * (reverse ? len - 1 - step : step);
      A next = OPERATION::apply(total, A(in[at]));
      out[at] = T(exclusive ? total : next);
      total = next;
    }
  }
}

// A block a line of neighbouring elements.
BLOCK_KERNEL(scan_rows, 256, T* out, const T* in, i64 lines, i64 len, i32 exclusive, i32 reverse) {
  SHARED A totals[2][256];
  int thread = threadIdx.x;
  for (i64 line = blockIdx.x; line < lines; line += gridDim.x) {
    A before = FIRST;
    for (i64 begin = 0; begin < len; begin += 256) {
      i64 step = begin + thread, at = line * len + (reverse ? len - 1 - step : step);
      int now = 0;
      totals[0][thread] = step < len ? A(in[at]) : A(FIRST);
      sync_threads();
      for (int distance = 1; distance < 256; distance *= 2) {
        A total = totals[now][thread];
        if (thread >= distance) total = OPERATION::apply(totals[now][thread - distance], total);
        now = 1 - now;
        totals[now][thread] = total;
        sync_threads();
      }
      A here = OPERATION::apply(before, exclusive ? (thread > 0 ? totals[now][thread - 1] : A(FIRST)) : totals[now][thread]);
      A all = totals[now][255];
      if (step < len) out[at] = T(here);
      before = OPERATION::apply(before, all);
      // Before anyone writes to `totals` again.
      sync_threads();
    }
  }
}
