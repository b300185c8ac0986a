// Pictures of another size: each pixel a sum of pixels around its place, told by tables of taps that the host makes. Pictures are
// [batch, rows, columns, channels].
//
// Defined from outside: T, the elements' type; O, the results'; WEIGHTED, whether taps have weights.

typedef typename Accumulate<O>::type A;

// For each place along an axis the taps `starts[place]..starts[place + 1]`: pixels, and their weights.
struct Axis {
  const i32* starts;
  const i32* pixels;
  const float* weights;
};

DEVICE Axis axis_of(const i32*& table, i64 places, i64 taps) {
  const i32* starts = table;
  const i32* pixels = starts + places + 1;
  const float* weights = (const float*)(pixels + taps);
  table = pixels + 2 * taps;
  return {starts, pixels, weights};
}

KERNEL(resample, O* out, const T* in, const i32* table, i64 n, i64 in_rows, i64 in_columns, i64 rows, i64 columns, i64 channels,
       i64 row_taps, i64 column_taps) {
  Axis down = axis_of(table, rows, row_taps), across = axis_of(table, columns, column_taps);
  GRID_LOOP(at, n) {
    i64 channel = at % channels, rest = at / channels, x = rest % columns;
    rest /= columns;
    i64 y = rest % rows;
    const T* picture = in + rest / rows * in_rows * in_columns * channels + channel;
    A total = A(0);
    for (i32 i = down.starts[y]; i < down.starts[y + 1]; ++i) {
      const T* line = picture + i64(down.pixels[i]) * in_columns * channels;
#if WEIGHTED
      float sum = 0.0f;
      for (i32 k = across.starts[x]; k < across.starts[x + 1]; ++k) {
        sum += float(line[i64(across.pixels[k]) * channels]) * across.weights[k];
      }
      total += A(sum * down.weights[i]);
#else
      for (i32 k = across.starts[x]; k < across.starts[x + 1]; ++k) total += A(line[i64(across.pixels[k]) * channels]);
#endif
    }
    out[at] = O(total);
  }
}
