// Batch normalization over all pixels of each channel, and its gradient. The statistics are `float`.
//
// Defined from outside: T.

// The channels are the last axis, or (`inner` > 1) the one before `inner` positions.
struct Norm {
  i64 pixels, inner;
  i32 channels;
  float epsilon;

  DEVICE i64 element(i64 pixel, i32 channel) const { return element_of(pixel, channel, channels, inner); }
  DEVICE i32 channel(i64 element) const {
    u64 rest = u64(element);
    if (inner > 1) rest /= u64(inner);
    return take(rest, channels);
  }
  DEVICE float inverse_deviation(const float* variance, i32 channel) const {
    return 1.0f / sqrt(variance[channel] + epsilon);
  }
};

// The sum of a channel's partial sums `which` of `count` in each slab.
DEVICE double total(const float* partial, i32 slabs, i32 count, i32 which, i32 channels, i32 channel) {
  double sum = 0;
  for (i32 slab = 0; slab < slabs; ++slab) sum += double(partial[(i64(slab) * count + which) * channels + channel]);
  return sum;
}

BLOCK_KERNEL(sums, SUM_THREADS, float* partial, const T* x, i64 slab, i32 width, Norm norm) {
  sum_slab<1, float>(norm.pixels, slab, norm.channels, width, partial, norm.channels,
                     [=](i64 pixel, i32 channel, float* terms) { terms[0] = float(x[norm.element(pixel, channel)]); });
}

// The means of the channels.
KERNEL(means, float* mean, float* saved_mean, const float* partial, i32 slabs, Norm norm) {
  GRID_LOOP(at, norm.channels) {
    float value = float(total(partial, slabs, 1, 0, norm.channels, i32(at)) / double(norm.pixels));
    mean[at] = value;
    saved_mean[at] = value;
  }
}

BLOCK_KERNEL(square_sums, SUM_THREADS, float* partial, const T* x, const float* mean, i64 slab, i32 width, Norm norm) {
  sum_slab<1, float>(norm.pixels, slab, norm.channels, width, partial, norm.channels, [=](i64 pixel, i32 channel, float* terms) {
    float away = float(x[norm.element(pixel, channel)]) - mean[channel];
    terms[0] = away * away;
  });
}

// The variances: that which normalizes is divided by the number of pixels, that which is reported by one less.
KERNEL(variances, float* variance, float* saved_variance, const float* partial, i32 slabs, Norm norm) {
  GRID_LOOP(at, norm.channels) {
    float value = float(total(partial, slabs, 1, 0, norm.channels, i32(at)) / double(norm.pixels));
    float pixels = float(norm.pixels), others = pixels - 1.0f;
    saved_variance[at] = value;
    variance[at] = value * (pixels / (others > 1.0f ? others : 1.0f));
  }
}

// Hands statistics on that are given.
KERNEL(given, float* mean, float* saved_mean, float* variance, float* saved_variance, const float* given_mean,
       const float* given_variance, i64 n) {
  GRID_LOOP(at, n) {
    mean[at] = given_mean[at];
    saved_mean[at] = given_mean[at];
    variance[at] = given_variance[at];
    saved_variance[at] = given_variance[at];
  }
}

KERNEL(zero, float* out, i64 n) {
  GRID_LOOP(at, n) { out[at] = 0.0f; }
}

KERNEL(normalize, T* y, const T* x, const float* scale, const float* offset, const float* mean, const float* variance, i64 n,
       Norm norm) {
  GRID_LOOP(i, n) {
    i32 c = norm.channel(i);
    y[i] = T((float(x[i]) - mean[c]) * (norm.inverse_deviation(variance, c) * scale[c]) + offset[c]);
  }
}

// The sums of the gradient, and of the gradient times the distance from the mean.
BLOCK_KERNEL(gradient_sums, SUM_THREADS, float* partial, const T* gradient, const T* x, const float* mean, i64 slab, i32 width,
             Norm norm) {
  sum_slab<2, float>(norm.pixels, slab, norm.channels, width, partial, norm.channels, [=](i64 pixel, i32 channel, float* terms) {
    i64 at = norm.element(pixel, channel);
    terms[0] = float(gradient[at]);
    terms[1] = float(gradient[at]) * (float(x[at]) - mean[channel]);
  });
}

// The gradients of scale and offset, and `terms` [channels, 3] of the gradient of x.
KERNEL(gradient_terms, float* to_scale, float* to_offset, float* terms, const float* partial, i32 slabs, const float* scale,
       const float* variance, i32 training, Norm norm) {
  GRID_LOOP(at, norm.channels) {
    i32 c = i32(at);
    double sum = total(partial, slabs, 2, 0, norm.channels, c), product = total(partial, slabs, 2, 1, norm.channels, c);
    float inverse = norm.inverse_deviation(variance, c);
    to_scale[c] = float(product * double(inverse));
    to_offset[c] = float(sum);
    double pixels = double(norm.pixels);
    terms[3 * c] = scale[c] * inverse;
    terms[3 * c + 1] = training ? float(sum / pixels) : 0.0f;
    terms[3 * c + 2] = training ? float(product / pixels / double(variance[c] + norm.epsilon)) : 0.0f;
  }
}

KERNEL(gradient_of_x, T* to_x, const T* gradient, const T* x, const float* mean, const float* terms, i64 n, Norm norm) {
  GRID_LOOP(i, n) {
    i32 c = norm.channel(i);
    float away = float(x[i]) - mean[c];
    to_x[i] = T(terms[3 * c] * (float(gradient[i]) - terms[3 * c + 1] - away * terms[3 * c + 2]));
  }
}
