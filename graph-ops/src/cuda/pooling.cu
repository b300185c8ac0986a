// Poolings over windows of rows and columns, and their gradients. As in the CPU's kernels, padding takes no part, and the
// first largest element of a window in row-major order is its maximum.
//
// Defined from outside: T.

typedef typename Compute<T>::type A;

template <class X>
DEVICE X lowest();
template <>
DEVICE float lowest<float>() { return -3.402823466e38f; }
template <>
DEVICE double lowest<double>() { return -1.7976931348623157e308; }
template <>
DEVICE f16 lowest<f16>() { return f16(-65504.0f); }
template <>
DEVICE bf16 lowest<bf16>() { return bf16(bits_float(0xff7f0000u)); }

struct Pool {
  Axis rows, columns;
  i32 channels, channels_last;
  // Whether windows are of 2x2 pixels, side by side and wholly inside.
  i32 halves;

  DEVICE Image input() const { return {rows.input, columns.input, channels, channels_last}; }
  DEVICE Image output() const { return {rows.output, columns.output, channels, channels_last}; }
};

// The first element of an image's channel.
DEVICE i64 channel_begin(const Image& image, const Place& place) {
  return place.image * image.elements() + place.channel * image.channel();
}

// The larger one; the first where they do not compare.
DEVICE A larger(A x, A y) { return x < y ? y : x; }

// A window's pixels in one channel: `pixels` is the channel's first element.
struct Window {
  const T* pixels;
  i64 row_step, column_step;
  Span rows, columns;

  DEVICE A at(i32 row, i32 column) const { return A(pixels[row * row_step + column * column_step]); }

  DEVICE A maximum(bool halves) const {
    if (halves) {
      A upper = larger(at(rows.first, columns.first), at(rows.first, columns.first + 1));
      return larger(upper, larger(at(rows.first + 1, columns.first), at(rows.first + 1, columns.first + 1)));
    }
    A best = A(lowest<T>());
    for (i32 row = rows.first; row < rows.last; ++row)
      for (i32 column = columns.first; column < columns.last; ++column) best = larger(best, at(row, column));
    return best;
  }

  // The offset of the maximum from `pixels`; -1 of an empty window.
  DEVICE i64 position(bool halves) const {
    if (halves) {
      A p[4] = {at(rows.first, columns.first), at(rows.first, columns.first + 1), at(rows.first + 1, columns.first),
                at(rows.first + 1, columns.first + 1)};
      bool lower = larger(p[0], p[1]) < larger(p[2], p[3]);
      bool right = lower ? p[2] < p[3] : p[0] < p[1];
      return (rows.first + lower) * row_step + (columns.first + right) * column_step;
    }
    i64 position = -1;
    A best = A(0);
    for (i32 row = rows.first; row < rows.last; ++row)
      for (i32 column = columns.first; column < columns.last; ++column) {
        A x = at(row, column);
        if (position < 0 || best < x) {
          best = x;
          position = row * row_step + column * column_step;
        }
      }
    return position;
  }
};

DEVICE Window window_of(const Pool& pool, const Image& image, const T* pixels, i32 row, i32 column) {
  return {pixels, image.row(), image.column(), pixels_of(pool.rows, row), pixels_of(pool.columns, column)};
}

KERNEL(max_pool, T* out, const T* images, i64 n, Pool pool) {
  Image image = pool.input(), pooled = pool.output();
  GRID_LOOP(i, n) {
    Place place = place_of(pooled, i);
    Window window = window_of(pool, image, images + channel_begin(image, place), place.row, place.column);
    out[i] = T(window.maximum(pool.halves));
  }
}

// The same of windows that are `halves`, and where the maxima were found: 0 to 3 from left to right and down, and 4 more where
// the maximum is not above zero.
KERNEL(max_pool_places, T* out, T* places, const T* images, i64 n, Pool pool) {
  Image image = pool.input(), pooled = pool.output();
  GRID_LOOP(i, n) {
    Place place = place_of(pooled, i);
    Window window = window_of(pool, image, images + channel_begin(image, place), place.row, place.column);
    A maximum = window.maximum(true);
    i64 own = window.position(true) - window.rows.first * image.row() - window.columns.first * image.column();
    i32 below = own >= image.row(), right = own - below * image.row() != 0;
    out[i] = T(maximum);
    places[i] = T(A(below * 2 + right + (maximum > A(0) ? 0 : 4)));
  }
}

// Maxima over windows of `size` neighbouring channels.
KERNEL(max_pool_channels, T* out, const T* images, i64 n, i32 size) {
  GRID_LOOP(i, n) {
    A best = A(lowest<T>());
    for (i32 k = 0; k < size; ++k) best = larger(best, A(images[i * size + k]));
    out[i] = T(best);
  }
}

// The gradient of `max_pool`; with `relu` that of the maximum over outputs of `Relu`, `images`, with respect to its inputs.
// Each pixel asks the windows over it, in their order, whether it is their maximum.
KERNEL(max_pool_grad, T* out, const T* images, const T* gradients, i64 n, Pool pool, i32 relu) {
  Image image = pool.input(), pooled = pool.output();
  GRID_LOOP(i, n) {
    Place place = place_of(image, i);
    const T* pixels = images + channel_begin(image, place);
    const T* gradient = gradients + channel_begin(pooled, place);
    i64 own = place.row * image.row() + place.column * image.column();
    Span rows = windows_over(pool.rows, place.row), columns = windows_over(pool.columns, place.column);
    T sum = T(A(0));
    for (i32 row = rows.first; row < rows.last; ++row)
      for (i32 column = columns.first; column < columns.last; ++column) {
        if (window_of(pool, image, pixels, row, column).position(pool.halves) != own) continue;
        A share = A(gradient[row * pooled.row() + column * pooled.column()]);
        sum = T(A(sum) + share);
      }
    if (relu) sum = T(A(sum) * (A(images[i]) > A(0) ? A(1) : A(0)));
    out[i] = sum;
  }
}

// The same with `relu`, by what `max_pool_places` found.
KERNEL(max_pool_grad_at, T* out, const T* places, const T* gradients, i64 n, Pool pool) {
  Image image = pool.input(), pooled = pool.output();
  GRID_LOOP(i, n) {
    Place place = place_of(image, i);
    i32 row = place.row / 2, column = place.column / 2;
    T share = T(A(0));
    if (row < pooled.rows && column < pooled.columns) {
      i64 from = channel_begin(pooled, place) + row * pooled.row() + column * pooled.column();
      i32 found = i32(A(places[from]));
      if ((found & 3) == place.row % 2 * 2 + place.column % 2) share = T(A(gradients[from]) * (found < 4 ? A(1) : A(0)));
    }
    out[i] = share;
  }
}

// The gradient of `max_pool_grad` with respect to its gradient: `gradients`, shaped as the images, where the maxima are.
KERNEL(max_pool_grad_grad, T* out, const T* images, const T* gradients, i64 n, Pool pool) {
  Image image = pool.input(), pooled = pool.output();
  GRID_LOOP(i, n) {
    Place place = place_of(pooled, i);
    i64 begin = channel_begin(image, place);
    i64 position = window_of(pool, image, images + begin, place.row, place.column).position(pool.halves);
    out[i] = position < 0 ? T(A(0)) : gradients[begin + position];
  }
}

KERNEL(avg_pool, T* out, const T* images, i64 n, Pool pool) {
  Image image = pool.input(), pooled = pool.output();
  GRID_LOOP(i, n) {
    Place place = place_of(pooled, i);
    Window window = window_of(pool, image, images + channel_begin(image, place), place.row, place.column);
    A sum = A(0);
    for (i32 row = window.rows.first; row < window.rows.last; ++row)
      for (i32 column = window.columns.first; column < window.columns.last; ++column) sum += window.at(row, column);
    i64 count = i64(window.rows.last - window.rows.first) * (window.columns.last - window.columns.first);
    out[i] = T(sum / A(count));
  }
}

// The gradient of `avg_pool`: each pixel gets its share of the windows over it.
KERNEL(avg_pool_grad, T* out, const T* gradients, i64 n, Pool pool) {
  Image image = pool.input(), pooled = pool.output();
  GRID_LOOP(i, n) {
    Place place = place_of(image, i);
    const T* gradient = gradients + channel_begin(pooled, place);
    Span rows = windows_over(pool.rows, place.row), columns = windows_over(pool.columns, place.column);
    A sum = A(0);
    for (i32 row = rows.first; row < rows.last; ++row) {
      Span down = pixels_of(pool.rows, row);
      for (i32 column = columns.first; column < columns.last; ++column) {
        Span across = pixels_of(pool.columns, column);
        i64 count = i64(down.last - down.first) * (across.last - across.first);
        sum += A(gradient[row * pooled.row() + column * pooled.column()]) / A(count);
      }
    }
    out[i] = T(sum);
  }
}
