// The second level of sums in two levels: rows of partial sums are added, always in the same order.
//
// Defined from outside: T, the result's type. The partial sums are of the type that it is calculated in.

typedef typename Accumulate<T>::type A;

// `out[i]` is the sum of `partial[row * n + i]` over the rows.
BLOCK_KERNEL(sum_rows, 256, T* out, const A* partial, i64 n, i32 rows) {
  SHARED A shared[8][32];
  i32 lane = i32(threadIdx.x) / 32, column = i32(threadIdx.x) % 32;
  i64 at = i64(blockIdx.x) * 32 + column;
  A sum = A(0);
  if (at < n) {
    for (i32 row = lane; row < rows; row += 8) sum += partial[row * n + at];
  }
  shared[lane][column] = sum;
  sync_threads();
  if (lane == 0 && at < n) {
    for (int other = 1; other < 8; ++other) sum += shared[other][column];
    out[at] = T(sum);
  }
}
