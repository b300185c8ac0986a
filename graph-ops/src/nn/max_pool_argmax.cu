// Maxima of windows and where they are, of images with their channels last; padding takes no part.
//
// Defined from outside: T, the elements' type; I, that of indices.

struct Images {
  Window rows, columns;
  i64 batch, channels;
  // Elements of an image if indices count from the batch's beginning, else 0.
  i64 image_len, spare[9];
};

KERNEL(max_pool_with_argmax, T* out, I* argmax, const T* images, Images g, i64 n) {
  i64 len = g.rows.input * g.columns.input * g.channels;
  GRID_LOOP(at, n) {
    i64 channel = at % g.channels, rest = at / g.channels;
    i64 x = rest % g.columns.output, y = rest / g.columns.output % g.rows.output;
    i64 number = rest / g.columns.output / g.rows.output;
    const T* image = images + number * len;
    i64 top = y * g.rows.stride - g.rows.before, left = x * g.columns.stride - g.columns.before, best_at = -1;
    T best = T(LOWEST);
    for (i64 row = top < 0 ? 0 : top; row < top + g.rows.size && row < g.rows.input; ++row) {
      for (i64 column = left < 0 ? 0 : left; column < left + g.columns.size && column < g.columns.input; ++column) {
        i64 pixel = (row * g.columns.input + column) * g.channels + channel;
        if (best_at >= 0 && !(best < image[pixel])) continue;
        best = image[pixel];
        best_at = pixel;
      }
    }
    out[at] = best;
    argmax[at] = I(number * g.image_len + (best_at < 0 ? 0 : best_at));
  }
}

// Each element asks the windows over it, in their order, whether their index is its.
KERNEL(max_pool_argmax_back, T* out, const T* gradient, const I* argmax, Images g, i64 n) {
  i64 len = g.rows.input * g.columns.input * g.channels;
  GRID_LOOP(at, n) {
    i64 channel = at % g.channels, rest = at / g.channels;
    i64 column = rest % g.columns.input, row = rest / g.columns.input % g.rows.input;
    i64 image = rest / g.columns.input / g.rows.input;
    i64 own = at - image * len + image * g.image_len;
    i64 down = row + g.rows.before, across = column + g.columns.before;
    i64 first_y = down < g.rows.size ? 0 : (down - g.rows.size) / g.rows.stride + 1;
    i64 first_x = across < g.columns.size ? 0 : (across - g.columns.size) / g.columns.stride + 1;
    T sum = T(0);
    for (i64 y = first_y; y <= down / g.rows.stride && y < g.rows.output; ++y) {
      for (i64 x = first_x; x <= across / g.columns.stride && x < g.columns.output; ++x) {
        i64 window = ((image * g.rows.output + y) * g.columns.output + x) * g.channels + channel;
        if (i64(argmax[window]) == own) sum += gradient[window];
      }
    }
    out[at] = sum;
  }
}
