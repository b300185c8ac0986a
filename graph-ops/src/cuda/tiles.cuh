// Tiles of two matrices in shared memory, and the sums of their products over DEPTH terms, of which each thread of a block has
// a part.
//
// Defined from outside: T; TILE_M and TILE_N, the rows and columns of a block's tile of the product; BLOCK_M, the rows of a
// thread's part of it, which has four columns; and, where tensor cores may multiply, TENSOR_CORES, the least architecture that has
// them for T.

typedef typename Compute<T>::type A;

// Terms of the sums that are in shared memory at once, and columns of a thread's part.
#define DEPTH 16
#define BLOCK_N 4
#define THREADS (TILE_M / BLOCK_M * (TILE_N / BLOCK_N))

#if defined(TENSOR_CORES) && (defined(GRAPH_EMULATOR) || __CUDA_ARCH__ >= TENSOR_CORES)
// Elements are kept as they are stored, terms side by side; what is added to a row lets all threads of a warp read without conflict.
typedef T Kept;
#define APART (DEPTH + 16 / int(sizeof(Kept)))
typedef Kept Lefts[TILE_M][APART];
typedef Kept Rights[TILE_N][APART];

template <class Tile>
DEVICE void keep(Tile& tile, i32 term, i32 index, Kept value) {
  tile[index][term] = for_tensor_cores(value);
}

// A warp's part is of 32 rows, two fragments, and of BLOCK_M / 2 fragments of eight columns.
#define ACROSS (BLOCK_M / 2)
DEVICE i32 warp_row() { return i32(threadIdx.x) / 32 / (TILE_N / (8 * ACROSS)) * 32; }
DEVICE i32 warp_column() { return i32(threadIdx.x) / 32 % (TILE_N / (8 * ACROSS)) * (8 * ACROSS); }

DEVICE void multiply_tiles(const Lefts& lefts, const Rights& rights, A (&sums)[BLOCK_M][BLOCK_N]) {
  typedef Fragments<T> F;
  u32 left[2][F::LEFT], right[F::RIGHT];
#pragma unroll
  for (int m = 0; m < 2; ++m)
#pragma unroll
    for (int r = 0; r < F::LEFT; ++r)
      left[m][r] = *(const u32*)&lefts[warp_row() + 16 * m + left_row(r)][F::left_term(r)];
#pragma unroll
  for (int n = 0; n < ACROSS; ++n) {
#pragma unroll
    for (int r = 0; r < F::RIGHT; ++r)
      right[r] = *(const u32*)&rights[warp_column() + 8 * n + right_column()][F::right_term(r)];
#pragma unroll
    for (int m = 0; m < 2; ++m) multiply_add(sums[m * ACROSS + n], left[m], right, T());
  }
}

// Calls `write(row of the product, column, sum)` for this thread's part of it.
template <class Write>
DEVICE void each_sum(const A (&sums)[BLOCK_M][BLOCK_N], i64 height, i32 width, const Write& write) {
  i64 row = i64(blockIdx.x) * TILE_M + warp_row();
  i32 column = i32(blockIdx.y) * TILE_N + warp_column();
#pragma unroll
  for (int m = 0; m < 2; ++m)
#pragma unroll
    for (int n = 0; n < ACROSS; ++n)
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        i64 own_row = row + 16 * m + sum_row(i);
        i32 own_column = column + 8 * n + sum_column(i);
        if (own_row < height && own_column < width) write(own_row, own_column, sums[m * ACROSS + n][i]);
      }
}
#else
typedef A Kept;
typedef Kept Lefts[DEPTH][TILE_M + 4];
typedef Kept Rights[DEPTH][TILE_N + 4];

template <class Tile>
DEVICE void keep(Tile& tile, i32 term, i32 index, Kept value) {
  tile[term][index] = value;
}

// Four numbers that are read at once.
struct alignas(4 * sizeof(A)) Four {
  A of[4];
};

DEVICE void multiply_tiles(const Lefts& lefts, const Rights& rights, A (&sums)[BLOCK_M][BLOCK_N]) {
  i32 row = i32(threadIdx.x) / (TILE_N / BLOCK_N) * BLOCK_M, column = i32(threadIdx.x) % (TILE_N / BLOCK_N) * BLOCK_N;
#pragma unroll
  for (int d = 0; d < DEPTH; ++d) {
    Four x[BLOCK_M / 4];
#pragma unroll
    for (int m = 0; m < BLOCK_M / 4; ++m) x[m] = *(const Four*)&lefts[d][row + 4 * m];
    Four y = *(const Four*)&rights[d][column];
#pragma unroll
    for (int m = 0; m < BLOCK_M; ++m)
#pragma unroll
      for (int n = 0; n < BLOCK_N; ++n) sums[m][n] += x[m / 4].of[m % 4] * y.of[n];
  }
}

// Calls `write(row of the product, column, sum)` for this thread's part of it.
template <class Write>
DEVICE void each_sum(const A (&sums)[BLOCK_M][BLOCK_N], i64 height, i32 width, const Write& write) {
  i64 row = i64(blockIdx.x) * TILE_M + i32(threadIdx.x) / (TILE_N / BLOCK_N) * BLOCK_M;
  i32 column = i32(blockIdx.y) * TILE_N + i32(threadIdx.x) % (TILE_N / BLOCK_N) * BLOCK_N;
#pragma unroll
  for (int m = 0; m < BLOCK_M; ++m)
#pragma unroll
    for (int n = 0; n < BLOCK_N; ++n)
      if (row + m < height && column + n < width) write(row + m, column + n, sums[m][n]);
}
#endif
