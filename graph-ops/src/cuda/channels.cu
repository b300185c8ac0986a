// A vector added to the channels, and the sum over everything else.
//
// Defined from outside: T.

typedef typename Compute<T>::type A;

// The channels are the last axis, or (`inner` > 1) the one before `inner` positions.
KERNEL(bias_add, T* out, const T* value, const T* bias, i64 n, i32 channels, i64 inner) {
  GRID_LOOP(i, n) {
    u64 rest = u64(i);
    if (inner > 1) rest /= u64(inner);
    out[i] = T(A(value[i]) + A(bias[take(rest, channels)]));
  }
}

// The bias is added, and `Relu` of it taken if wanted, where the values are; each step is rounded as it is between operations.
KERNEL(bias_relu, T* values, const T* bias, i64 n, i32 channels, i64 inner, i32 relu) {
  GRID_LOOP(i, n) {
    u64 rest = u64(i);
    if (inner > 1) rest /= u64(inner);
    T value = T(A(values[i]) + A(bias[take(rest, channels)]));
    values[i] = relu && A(value) <= A(0) ? T(A(0)) : value;
  }
}

// `partial` [slabs, channels] becomes the sums of slabs of the pixels.
BLOCK_KERNEL(sum_pixels, SUM_THREADS, A* partial, const T* x, i64 pixels, i64 slab, i32 channels, i32 width,
             i64 inner) {
  sum_slab<1, A>(pixels, slab, channels, width, partial, channels, [=](i64 pixel, i32 channel, A* terms) {
    terms[0] = A(x[element_of(pixel, channel, channels, inner)]);
  });
}

// The same of the gradients that `max_pool_grad_at` brings to the pixels, from where they come: `Relu` stops some.
BLOCK_KERNEL(sum_at_places, SUM_THREADS, A* partial, const T* gradients, const T* places, i64 pixels, i64 slab, i32 channels,
             i32 width) {
  sum_slab<1, A>(pixels, slab, channels, width, partial, channels, [=](i64 pixel, i32 channel, A* terms) {
    i64 at = pixel * channels + channel;
    terms[0] = A(T(A(gradients[at]) * (i32(A(places[at])) < 4 ? A(1) : A(0))));
  });
}
