// Chains of element-wise operations in one pass over memory, and the sums of their results.
//
// Defined from outside: what `chain.cuh` says.

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
      if (i < n) out[i] = T(chains(values[k]).of[0]);
    }
  }
}

#define SUM_THREADS 256

// `partial` [RESULTS, blocks] becomes each block's sums of the results.
BLOCK_KERNEL(chain_sums, SUM_THREADS, A* partial, Operands operands, Strides strides, i64 n) {
  A sums[RESULTS];
  for (int r = 0; r < RESULTS; ++r) sums[r] = A(0);
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
    A sum = reduce_block<Add, SUM_THREADS>(sums[r]);
    if (threadIdx.x == 0) partial[i64(r) * gridDim.x + blockIdx.x] = sum;
  }
}

struct Totals {
  T* of[16];
  double scales[16];
};

// The totals of the rows of `partial` [gridDim.x, blocks], times their scales.
BLOCK_KERNEL(finish_sums, SUM_THREADS, Totals totals, const A* partial, i32 blocks) {
  A sum = A(0);
  for (i32 at = i32(threadIdx.x); at < blocks; at += SUM_THREADS) sum += partial[i64(blockIdx.x) * blocks + at];
  sum = reduce_block<Add, SUM_THREADS>(sum);
  if (threadIdx.x == 0) *totals.of[blockIdx.x] = T(sum * A(totals.scales[blockIdx.x]));
}
