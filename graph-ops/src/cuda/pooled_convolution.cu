// A convolution of few terms with bias, `Relu` and a pool of 2x2 behind it, and the gradients of filter and bias through all of
// these: image by image, so that the activity, which is the largest tensor of such layers, is never in memory.
//
// Defined from outside: T; HEIGHT, WIDTH and DEPTH of an image; ROWS and COLUMNS of the filter, which makes CHANNELS; its steps
// DOWN and ACROSS; ABOVE and BEFORE, the pixels of padding; POOLED_ROWS and POOLED_COLUMNS.

typedef typename Compute<T>::type A;

const i32 PIXELS = POOLED_ROWS * POOLED_COLUMNS;
const i32 IMAGE = HEIGHT * WIDTH * DEPTH;
const i32 TERMS = ROWS * COLUMNS * DEPTH;

// An image's pixel; zero in the padding.
DEVICE A pixel(const A* image, i32 row, i32 column, i32 depth) {
  bool inside = row >= 0 && row < HEIGHT && column >= 0 && column < WIDTH;
  return inside ? image[(row * WIDTH + column) * DEPTH + depth] : A(0);
}

DEVICE void fetch(A* to, const T* from, i32 n) {
  for (i32 i = i32(threadIdx.x); i < n; i += i32(blockDim.x)) to[i] = A(from[i]);
}

// The larger one; the first where they do not compare.
DEVICE A larger(A x, A y) { return x < y ? y : x; }

// Each thread makes all channels of a pooled pixel from the pixels under its four windows, which it keeps. With PLACES it says
// where each maximum was found: 0 to 3 from left to right and down, and 4 more where it is not above zero.
const i32 POOLERS = 128;
BLOCK_KERNEL(convolve_and_pool, POOLERS, T* pooled, T* places, const T* images, const T* filter, const T* bias, i64 batch) {
  SHARED A image[IMAGE];
  SHARED A weights[TERMS * CHANNELS];
  SHARED T maxima[POOLERS * CHANNELS];
  SHARED u8 found[POOLERS * CHANNELS];
  fetch(weights, filter, TERMS * CHANNELS);
  for (i64 at = blockIdx.x; at < batch; at += gridDim.x) {
    fetch(image, images + at * IMAGE, IMAGE);
    sync_threads();
    for (i32 first = 0; first < PIXELS; first += POOLERS) {
      i32 thread = i32(threadIdx.x), own = first + thread;
      if (own < PIXELS) {
        i32 top = own / POOLED_COLUMNS * 2 * DOWN - ABOVE, left = own % POOLED_COLUMNS * 2 * ACROSS - BEFORE;
        A under[ROWS + DOWN][COLUMNS + ACROSS][DEPTH];
#pragma unroll
        for (i32 row = 0; row < ROWS + DOWN; ++row)
#pragma unroll
          for (i32 column = 0; column < COLUMNS + ACROSS; ++column)
#pragma unroll
            for (i32 depth = 0; depth < DEPTH; ++depth)
              under[row][column][depth] = pixel(image, top + row, left + column, depth);
        for (i32 channel = 0; channel < CHANNELS; ++channel) {
          A sums[4] = {A(0), A(0), A(0), A(0)};
#pragma unroll
          for (i32 row = 0; row < ROWS; ++row)
#pragma unroll
            for (i32 column = 0; column < COLUMNS; ++column)
#pragma unroll
              for (i32 depth = 0; depth < DEPTH; ++depth) {
                A weight = weights[((row * COLUMNS + column) * DEPTH + depth) * CHANNELS + channel];
#pragma unroll
                for (i32 window = 0; window < 4; ++window)
                  sums[window] += under[row + window / 2 * DOWN][column + window % 2 * ACROSS][depth] * weight;
              }
#pragma unroll
          for (i32 window = 0; window < 4; ++window) {
            sums[window] += A(bias[channel]);
            if (sums[window] <= A(0)) sums[window] = A(0);
          }
          A upper = larger(sums[0], sums[1]), lower = larger(sums[2], sums[3]), most = larger(upper, lower);
          i32 below = upper < lower, right = below ? sums[2] < sums[3] : sums[0] < sums[1];
          maxima[thread * CHANNELS + channel] = T(most);
          found[thread * CHANNELS + channel] = u8(below * 2 + right + (most > A(0) ? 0 : 4));
        }
      }
      sync_threads();
      i64 to = (at * PIXELS + first) * CHANNELS;
      i32 count = (PIXELS - first < POOLERS ? PIXELS - first : POOLERS) * CHANNELS;
      for (i32 i = thread; i < count; i += POOLERS) {
        pooled[to + i] = maxima[i];
        if (PLACES) places[to + i] = T(A(found[i]));
      }
      sync_threads();
    }
  }
}

// Each thread adds up, for one channel, the terms of every so many-th pooled pixel, as the place of its maximum says. A row of
// `filters` and one of `biases` for each block are the sums of its images.
const i32 ADDERS = 256;
BLOCK_KERNEL(filter_gradient, ADDERS, A* filters, A* biases, const T* images, const T* places, const T* gradients, i64 batch) {
  SHARED A image[IMAGE];
  SHARED A shared[ADDERS];
  const i32 groups = ADDERS / CHANNELS;
  i32 channel = i32(threadIdx.x) % CHANNELS, group = i32(threadIdx.x) / CHANNELS;
  A sums[TERMS + 1];
#pragma unroll
  for (i32 term = 0; term <= TERMS; ++term) sums[term] = A(0);
  for (i64 at = blockIdx.x; at < batch; at += gridDim.x) {
    fetch(image, images + at * IMAGE, IMAGE);
    sync_threads();
    for (i32 own = group; own < PIXELS && group < groups; own += groups) {
      i64 from = (at * PIXELS + own) * CHANNELS + channel;
      i32 place = i32(A(places[from]));
      A share = A(gradients[from]) * (place < 4 ? A(1) : A(0));
      i32 top = (own / POOLED_COLUMNS * 2 + (place >> 1 & 1)) * DOWN - ABOVE;
      i32 left = (own % POOLED_COLUMNS * 2 + (place & 1)) * ACROSS - BEFORE;
#pragma unroll
      for (i32 row = 0; row < ROWS; ++row)
#pragma unroll
        for (i32 column = 0; column < COLUMNS; ++column)
#pragma unroll
          for (i32 depth = 0; depth < DEPTH; ++depth)
            sums[(row * COLUMNS + column) * DEPTH + depth] += share * pixel(image, top + row, left + column, depth);
      sums[TERMS] += share;
    }
    sync_threads();
  }
#pragma unroll
  for (i32 term = 0; term <= TERMS; ++term) {
    shared[threadIdx.x] = sums[term];
    sync_threads();
    if (group == 0) {
      A total = A(0);
      for (i32 other = 0; other < groups; ++other) total += shared[other * CHANNELS + channel];
      if (term < TERMS) filters[(i64(blockIdx.x) * TERMS + term) * CHANNELS + channel] = total;
      else biases[i64(blockIdx.x) * CHANNELS + channel] = total;
    }
    sync_threads();
  }
}
