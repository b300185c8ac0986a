// Diagonals and bands of matrices of shape [batch, rows, columns]. Elements are moved as words W; the band's bounds are of type I.

// Zeros around the diagonals, of min(rows, columns) elements each.
KERNEL(spread, W* out, const W* diagonal, i64 n, i64 rows, i64 columns) {
  i64 least = rows < columns ? rows : columns;
  GRID_LOOP(at, n) {
    i64 line = at / columns, column = at - line * columns, row = line % rows;
    W word = {};
    if (row == column) word = diagonal[line / rows * least + row];
    out[at] = word;
  }
}

// Others in the diagonals' place.
KERNEL(replace, W* out, const W* in, const W* diagonal, i64 n, i64 rows, i64 columns) {
  i64 least = rows < columns ? rows : columns;
  GRID_LOOP(at, n) {
    i64 line = at / columns, column = at - line * columns, row = line % rows;
    out[at] = row == column ? diagonal[line / rows * least + row] : in[at];
  }
}

// Zeros but for so many diagonals below and above the main one; all of them where the number is negative.
KERNEL(band, W* out, const W* in, const I* below, const I* above, i64 n, i64 rows, i64 columns) {
  i64 lower = i64(*below), upper = i64(*above);
  GRID_LOOP(at, n) {
    i64 line = at / columns, column = at - line * columns, row = line % rows;
    W word = {};
    if ((lower < 0 || row - column <= lower) && (upper < 0 || column - row <= upper)) word = in[at];
    out[at] = word;
  }
}
