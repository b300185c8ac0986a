// Depthwise convolution, each channel with `multiplier` filters of its own, and its two gradients. Dilations are 1.
//
// Defined from outside: T.

typedef typename Compute<T>::type A;

struct Depthwise {
  Axis rows, columns;
  i64 batch;
  i32 channels, multiplier, channels_last;

  DEVICE i32 outputs() const { return channels * multiplier; }
  DEVICE Image input() const { return {rows.input, columns.input, channels, channels_last}; }
  DEVICE Image output() const { return {rows.output, columns.output, outputs(), channels_last}; }
};

DEVICE i64 element(const Image& image, i64 n, i32 row, i32 column, i32 channel) {
  return n * image.elements() + row * image.row() + column * image.column() + channel * image.channel();
}

KERNEL(depthwise, T* out, const T* images, const T* filter, i64 n, Depthwise g) {
  Image image = g.input(), to = g.output();
  GRID_LOOP(i, n) {
    Place place = place_of(to, i);
    i32 channel = place.channel / g.multiplier;
    i32 top = place.row * g.rows.stride - g.rows.before, left = place.column * g.columns.stride - g.columns.before;
    Span rows = pixels_of(g.rows, place.row), columns = pixels_of(g.columns, place.column);
    A sum = A(0);
    for (i32 row = rows.first; row < rows.last; ++row)
      for (i32 column = columns.first; column < columns.last; ++column) {
        i64 tap = i64(row - top) * g.columns.size + (column - left);
        sum += A(images[element(image, place.image, row, column, channel)]) * A(filter[tap * g.outputs() + place.channel]);
      }
    out[i] = T(sum);
  }
}

KERNEL(depthwise_backprop_input, T* out, const T* gradients, const T* filter, i64 n, Depthwise g) {
  Image image = g.input(), from = g.output();
  GRID_LOOP(i, n) {
    Place place = place_of(image, i);
    Span rows = windows_over(g.rows, place.row), columns = windows_over(g.columns, place.column);
    A sum = A(0);
    for (i32 row = rows.first; row < rows.last; ++row)
      for (i32 column = columns.first; column < columns.last; ++column) {
        i32 down = place.row + g.rows.before - row * g.rows.stride;
        i32 right = place.column + g.columns.before - column * g.columns.stride;
        i64 tap = i64(down) * g.columns.size + right;
        for (i32 q = 0; q < g.multiplier; ++q) {
          i32 channel = place.channel * g.multiplier + q;
          sum += A(gradients[element(from, place.image, row, column, channel)]) * A(filter[tap * g.outputs() + channel]);
        }
      }
    out[i] = T(sum);
  }
}

// `partial` [slabs, taps, output channels] becomes the sums over slabs of the output pixels; `blockIdx.z` is the tap.
BLOCK_KERNEL(depthwise_backprop_filter, SUM_THREADS, A* partial, const T* images, const T* gradients, i64 pixels, i64 slab,
             i32 width, Depthwise g) {
  Image image = g.input(), from = g.output();
  i32 down = i32(blockIdx.z) / g.columns.size, right = i32(blockIdx.z) % g.columns.size;
  A* sums = partial + i64(blockIdx.z) * g.outputs();
  sum_slab<1, A>(pixels, slab, g.outputs(), width, sums, i64(gridDim.z) * g.outputs(), [=](i64 pixel, i32 channel, A* terms) {
    u64 rest = u64(pixel);
    i32 window_column = take(rest, g.columns.output), window_row = take(rest, g.rows.output);
    i32 row = window_row * g.rows.stride - g.rows.before + down;
    i32 column = window_column * g.columns.stride - g.columns.before + right;
    bool inside = u32(row) < u32(g.rows.input) && u32(column) < u32(g.columns.input);
    terms[0] = inside ? A(images[element(image, i64(rest), row, column, channel / g.multiplier)]) *
                            A(gradients[element(from, i64(rest), window_row, window_column, channel)])
                      : A(0);
  });
}
