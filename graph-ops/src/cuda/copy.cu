// Elements that are moved as words W of their size, whatever they mean.

// The dimensions of what is moved, and how far apart words lie along each where they come from and where they go to.
struct Moved {
  i64 rank;
  i64 sizes[8];
  i64 from[8];
  i64 to[8];
};

template <class N>
DEVICE void copy(W* to, const W* from, i64 n, const Moved& moved) {
  int rank = int(moved.rank);
  GRID_LOOP(at, n) {
    N rest = N(at);
    i64 source = 0, target = 0;
    for (int axis = rank - 1; axis > 0; --axis) {
      N size = N(moved.sizes[axis]), next = rest / size, index = rest - next * size;
      source += i64(index) * moved.from[axis];
      target += i64(index) * moved.to[axis];
      rest = next;
    }
    to[target + i64(rest) * moved.to[0]] = from[source + i64(rest) * moved.from[0]];
  }
}

// Words between two arrangements of them.
KERNEL(copy_strided, W* to, const W* from, i64 n, Moved moved) {
  if (n < (1LL << 31)) copy<u32>(to, from, n, moved);
  else copy<u64>(to, from, n, moved);
}

// `[batch, rows, columns]` to `[batch, columns, rows]`, by tiles of 32 by 32 words.
BLOCK_KERNEL(transpose_tiles, 256, W* to, const W* from, i64 batch, i64 rows, i64 columns) {
  SHARED W tile[32][33];
  int x = threadIdx.x % 32, y = threadIdx.x / 32;
  i64 across = (columns + 31) / 32, down = (rows + 31) / 32;
  for (i64 number = blockIdx.x; number < batch * across * down; number += gridDim.x) {
    i64 column = number % across * 32, row = number / across % down * 32, start = number / across / down * rows * columns;
    for (int k = y; k < 32; k += 8) {
      if (row + k < rows && column + x < columns) tile[k][x] = from[start + (row + k) * columns + column + x];
    }
    sync_threads();
    for (int k = y; k < 32; k += 8) {
      if (column + k < columns && row + x < rows) to[start + (column + k) * rows + row + x] = tile[x][k];
    }
    // Before anyone writes to `tile` again.
    sync_threads();
  }
}
