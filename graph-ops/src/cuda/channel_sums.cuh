// Sums over pixels, one for each channel, in two levels: blocks sum slabs of pixels, and another kernel adds the slabs.

#define SUM_THREADS 256

// Adds up `COUNT` terms of each pixel of this block's slab, for each of the block's `width` channels; `term(pixel, channel,
// terms)` gives them. Neighbouring threads take neighbouring channels, then pixels. The sums of slab `blockIdx.y` become
// `partial[(slab * COUNT + which) * step + channel]`.
template <int COUNT, class A, class Term>
DEVICE void sum_slab(i64 pixels, i64 slab, i32 channels, i32 width, A* partial, i64 step, const Term& term) {
  SHARED A shared[COUNT][SUM_THREADS];
  i32 lanes = SUM_THREADS / width, lane = i32(threadIdx.x) / width;
  i32 channel = i32(blockIdx.x) * width + i32(threadIdx.x) % width;
  i64 begin = i64(blockIdx.y) * slab, end = begin + slab < pixels ? begin + slab : pixels;
  A sums[COUNT];
  for (int which = 0; which < COUNT; ++which) sums[which] = A(0);
  if (lane < lanes && channel < channels) {
    for (i64 pixel = begin + lane; pixel < end; pixel += lanes) {
      A terms[COUNT];
      term(pixel, channel, terms);
      for (int which = 0; which < COUNT; ++which) sums[which] += terms[which];
    }
  }
  for (int which = 0; which < COUNT; ++which) shared[which][threadIdx.x] = sums[which];
  sync_threads();
  i32 half = 1;
  while (half < lanes) half *= 2;
  for (half /= 2; half > 0; half /= 2) {
    if (lane < half && lane + half < lanes) {
      for (int which = 0; which < COUNT; ++which)
        shared[which][threadIdx.x] += shared[which][threadIdx.x + half * width];
    }
    sync_threads();
  }
  if (lane == 0 && channel < channels) {
    for (int which = 0; which < COUNT; ++which)
      partial[(i64(blockIdx.y) * COUNT + which) * step + channel] = shared[which][threadIdx.x];
  }
}

// Where the element of a pixel and a channel lies: channels are the last axis, or the axis before `inner` positions.
DEVICE i64 element_of(i64 pixel, i32 channel, i32 channels, i64 inner) {
  if (inner == 1) return pixel * channels + channel;
  i64 outer = pixel / inner;
  return (outer * channels + channel) * inner + (pixel - outer * inner);
}
