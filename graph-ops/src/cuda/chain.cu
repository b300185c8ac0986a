// Chains of element-wise operations in one pass over memory, and the sums of their results.
//
// Defined from outside: what `chain.cuh` says; `members.cuh` lies before it.

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

// The sums of the results of those of `n` elements that this block takes, which is `block` of `blocks`; that of result `r` becomes
// `*row(r)`.
template <class Row>
DEVICE void sum_block(const Operands& operands, const Strides& strides, i64 n, i64 block, i64 blocks, const Row& row) {
  A sums[RESULTS];
  for (int r = 0; r < RESULTS; ++r) sums[r] = A(0);
  for (i64 begin = block * BATCH * blockDim.x + threadIdx.x; begin < n; begin += blocks * BATCH * blockDim.x) {
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
    if (threadIdx.x == 0) *row(r) = sum;
  }
}

// `partial` [blocks, RESULTS] becomes each block's sums of the results.
BLOCK_KERNEL(chain_sums, SUM_THREADS, A* partial, Operands operands, Strides strides, i64 n) {
  sum_block(operands, strides, n, blockIdx.x, gridDim.x, [&](int r) { return partial + i64(blockIdx.x) * RESULTS + r; });
}

// Operands of which none is broadcast, and the first of the blocks that sum over them.
struct Set {
  Operands operands;
  i64 n;
  i64 block;
};
struct Sets {
  Set of[16];
};

// The same over `count` sets of operands, one after the other.
BLOCK_KERNEL(chain_sums_of_sets, SUM_THREADS, A* partial, Sets sets, i32 count) {
  Share share = own_share(sets, count);
  const Set& set = sets.of[share.member];
  sum_block(set.operands, Strides(), set.n, share.block, share.blocks,
            [&](int r) { return partial + i64(blockIdx.x) * RESULTS + r; });
}

// A sum: where it goes, what it is multiplied with, and the blocks whose sums of a result it adds.
struct Total {
  T* of;
  double scale;
  i64 begin;
  i32 count;
  i32 result;
};
struct Totals {
  Total of[16];
};

BLOCK_KERNEL(finish_sums, SUM_THREADS, Totals totals, const A* partial) {
  const Total& total = totals.of[blockIdx.x];
  A sum = A(0);
  for (i32 at = i32(threadIdx.x); at < total.count; at += SUM_THREADS)
    sum += partial[(total.begin + at) * RESULTS + total.result];
  sum = reduce_block<Add, SUM_THREADS>(sum);
  if (threadIdx.x == 0) *total.of = T(sum * A(total.scale));
}
