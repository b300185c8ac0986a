// Chains of element-wise operations in one pass over memory, and the sums of their results.
//
// Defined from outside: T; OPERANDS, their number; LOADS, statements that read the operands' values of element `i` into
// `v[0]`, ..., with `at[k]` the place of the `k`th of STRIDED operands that are broadcast; BODY, statements that make `r[0]`,
// ... of them, one for each of RESULTS chains.

struct Operands {
  const T* of[16];
};

// The result's dimensions, and how far apart the elements of operands that are broadcast lie along each.
struct Strides {
  i64 rank;
  i64 sizes[8];
  i64 of[16][8];
};

struct Values {
  T of[OPERANDS];
};
struct Results {
  T of[RESULTS];
};

template <class I>
DEVICE void places(const Strides& strides, I rest, i64* at) {
  for (int k = 0; k < STRIDED; ++k) at[k] = 0;
  for (int axis = int(strides.rank) - 1; axis >= 0; --axis) {
    I size = I(strides.sizes[axis]), next = axis == 0 ? 0 : rest / size, index = rest - next * size;
    for (int k = 0; k < STRIDED; ++k) at[k] += i64(index) * strides.of[k][axis];
    rest = next;
  }
}

DEVICE Values load(const Operands& operands, const Strides& strides, i64 i) {
  Values values;
  T* v = values.of;
  const T* const* o = operands.of;
#if STRIDED > 0
  i64 at[STRIDED];
  if (i >> 32 == 0) places<u32>(strides, u32(i), at);
  else places<u64>(strides, u64(i), at);
#endif
  LOADS
  return values;
}

DEVICE Results chains(const Values& values) {
  Results results;
  const T* v = values.of;
  T* r = results.of;
  BODY
  return results;
}

// Elements of a thread that are read before one is written: enough reads are under way at once.
#define BATCH 4
#define EACH_BATCH(begin, n)                                                              \
  for (i64 begin = i64(blockIdx.x) * BATCH * blockDim.x + threadIdx.x; begin < (n); \
       begin += i64(gridDim.x) * BATCH * blockDim.x)

// The result may lie over an operand of as many elements.
KERNEL(chain, T* out, Operands operands, Strides strides, i64 n) {
  EACH_BATCH(begin, n) {
    Values values[BATCH];
#pragma unroll
    for (int k = 0; k < BATCH; ++k) {
      i64 i = begin + i64(k) * blockDim.x;
      if (i < n) values[k] = load(operands, strides, i);
    }
#pragma unroll
    for (int k = 0; k < BATCH; ++k) {
      i64 i = begin + i64(k) * blockDim.x;
      if (i < n) out[i] = chains(values[k]).of[0];
    }
  }
}

#define SUM_THREADS 256

// `partial` [RESULTS, blocks] becomes each block's sums of the results.
BLOCK_KERNEL(chain_sums, SUM_THREADS, T* partial, Operands operands, Strides strides, i64 n) {
  T sums[RESULTS];
  for (int r = 0; r < RESULTS; ++r) sums[r] = T(0);
  EACH_BATCH(begin, n) {
#pragma unroll
    for (int k = 0; k < BATCH; ++k) {
      i64 i = begin + i64(k) * blockDim.x;
      if (i >= n) continue;
      Results results = chains(load(operands, strides, i));
      for (int r = 0; r < RESULTS; ++r) sums[r] += results.of[r];
    }
  }
  for (int r = 0; r < RESULTS; ++r) {
    T sum = reduce_block<Add, SUM_THREADS>(sums[r]);
    if (threadIdx.x == 0) partial[i64(r) * gridDim.x + blockIdx.x] = sum;
  }
}

struct Totals {
  T* of[16];
  double scales[16];
};

// The totals of the rows of `partial` [gridDim.x, blocks], times their scales.
BLOCK_KERNEL(finish_sums, SUM_THREADS, Totals totals, const T* partial, i32 blocks) {
  T sum = T(0);
  for (i32 at = i32(threadIdx.x); at < blocks; at += SUM_THREADS) sum += partial[i64(blockIdx.x) * blocks + at];
  sum = reduce_block<Add, SUM_THREADS>(sum);
  if (threadIdx.x == 0) *totals.of[blockIdx.x] = sum * T(totals.scales[blockIdx.x]);
}
