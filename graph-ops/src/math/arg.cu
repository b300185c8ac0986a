// Where the extremum along the middle one of three dimensions is: of several, the first; NaN never is; 0 if there is none.
//
// Defined from outside: T, the elements' type; O, the indices' type; BETTER, whether `x` wins against `y`.

typedef typename Compute<T>::type C;

DEVICE bool better(C x, C y) { return BETTER; }

// A thread a result.
KERNEL(arg_along, O* out, const T* in, i64 results, i64 len, i64 inner) {
  GRID_LOOP(result, results) {
    const T* from = in + result / inner * len * inner + result % inner;
    i64 best = -1;
    C value = C(0);
    for (i64 at = 0; at < len; ++at) {
      C x = C(from[at * inner]);
      if (!is_nan(x) && (best < 0 || better(x, value))) {
        best = at;
        value = x;
      }
    }
    out[result] = O(best < 0 ? 0 : best);
  }
}

// A warp a result, of neighbouring elements.
BLOCK_KERNEL(arg_rows, 256, O* out, const T* in, i64 results, i64 len) {
  int lane = threadIdx.x % 32;
  for (i64 result = blockIdx.x * 8LL + threadIdx.x / 32; result < results; result += gridDim.x * 8LL) {
    const T* from = in + result * len;
    i64 best = -1;
    C value = C(0);
    for (i64 at = lane; at < len; at += 32) {
      C x = C(from[at]);
      if (!is_nan(x) && (best < 0 || better(x, value))) {
        best = at;
        value = x;
      }
    }
    for (int mask = 16; mask > 0; mask >>= 1) {
      i64 other = shuffle_xor(best, mask);
      C x = shuffle_xor(value, mask);
      if (other >= 0 && (best < 0 || better(x, value) || (!better(value, x) && other < best))) {
        best = other;
        value = x;
      }
    }
    if (lane == 0) out[result] = O(best < 0 ? 0 : best);
  }
}
