// Greyscale morphology: the greatest sum of a pixel and a tap of each window, and where it is. Images have their channels last.
//
// Defined from outside: T, the elements' type; LOWEST, what a window without pixels gives.

typedef typename Compute<T>::type A;

struct Images {
  Window rows, columns;
  i64 batch, channels, spare[10];
};

// The greatest sum over the window of output `at`, and the number of its first tap; -1 where no pixel is inside.
DEVICE A greatest(const T* images, const T* filter, const Images& g, i64 at, i64& best_tap) {
  i64 channel = at % g.channels, rest = at / g.channels;
  i64 x = rest % g.columns.output, y = rest / g.columns.output % g.rows.output;
  const T* image = images + rest / g.columns.output / g.rows.output * g.rows.input * g.columns.input * g.channels + channel;
  A best = A(LOWEST);
  best_tap = -1;
  for (i64 i = 0; i < g.rows.size; ++i) {
    i64 row = g.rows.under(y, i);
    if (row < 0) continue;
    for (i64 j = 0; j < g.columns.size; ++j) {
      i64 column = g.columns.under(x, j), tap = i * g.columns.size + j;
      if (column < 0) continue;
      // Rounded as the elements are, before sums are compared.
      A sum = A(T(A(image[(row * g.columns.input + column) * g.channels]) + A(filter[tap * g.channels + channel])));
      if (best_tap < 0 || sum > best) {
        best = sum;
        best_tap = tap;
      }
    }
  }
  return best;
}

KERNEL(dilate, T* out, const T* images, const T* filter, Images g, i64 n) {
  GRID_LOOP(at, n) {
    i64 tap;
    out[at] = T(greatest(images, filter, g, at, tap));
  }
}

// Writes the tap of each window's greatest sum.
KERNEL(find_taps, T* out, const T* images, const T* filter, const T* gradient, i32* taps, Images g, i64 n) {
  GRID_LOOP(at, n) {
    i64 tap;
    greatest(images, filter, g, at, tap);
    taps[at] = i32(tap);
  }
}

// Each pixel asks the windows over it whether their greatest sum is of it.
KERNEL(dilate_back_to_images, T* out, const T* images, const T* filter, const T* gradient, const i32* taps, Images g, i64 n) {
  GRID_LOOP(at, n) {
    i64 channel = at % g.channels, rest = at / g.channels;
    i64 column = rest % g.columns.input, row = rest / g.columns.input % g.rows.input;
    i64 image = rest / g.columns.input / g.rows.input;
    T sum = T(A(0));
    for (i64 i = g.rows.size - 1; i >= 0; --i) {
      i64 y = g.rows.over(row, i);
      if (y < 0) continue;
      for (i64 j = g.columns.size - 1; j >= 0; --j) {
        i64 x = g.columns.over(column, j);
        if (x < 0) continue;
        i64 window = ((image * g.rows.output + y) * g.columns.output + x) * g.channels + channel;
        if (i64(taps[window]) == i * g.columns.size + j) sum = T(A(sum) + A(gradient[window]));
      }
    }
    out[at] = sum;
  }
}

// A block an element of the filter.
BLOCK_KERNEL(dilate_back_to_filter, 256, T* out, const T* images, const T* filter, const T* gradient, const i32* taps, Images g,
             i64 n) {
  i64 windows = g.batch * g.rows.output * g.columns.output;
  for (i64 at = blockIdx.x; at < n; at += gridDim.x) {
    i64 channel = at % g.channels, tap = at / g.channels;
    A sum = A(0);
    for (i64 window = threadIdx.x; window < windows; window += 256) {
      i64 own = window * g.channels + channel;
      if (i64(taps[own]) == tap) sum += A(gradient[own]);
    }
    sum = reduce_block<Add, 256>(sum);
    if (threadIdx.x == 0) out[at] = T(sum);
  }
}
