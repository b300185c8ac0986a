// The convolution and its two gradients as products of matrices that are never in memory: tiles of them are gathered.
//
// Defined from outside: what `tiles.cuh` says; CHANNELS_LAST, whether the images' channels are their last axis; and which kernel
// it is: FORWARD, BACKPROP_INPUT or BACKPROP_FILTER. Neighbouring threads fetch neighbours in memory: channels where they are
// last, else pixels. All three run with THREADS threads, and a grid of tiles of rows, tiles of columns, and parts of the sums.

// Elements of the tiles that each thread fetches.
#define LEFT (TILE_M * DEPTH / THREADS)
#define RIGHT (TILE_N * DEPTH / THREADS)

struct Convolution {
  Axis rows, columns;
  // The rows of the product: output pixels, input pixels, or taps of the filter.
  i64 height;
  i32 in_channels, out_channels, channels_last;

  DEVICE Image input() const { return {rows.input, columns.input, in_channels, channels_last}; }
  DEVICE Image output() const { return {rows.output, columns.output, out_channels, channels_last}; }
};

// A number of a matrix's row of taps and channels, taken apart.
struct Tap {
  i32 row, column, channel;
};
DEVICE Tap tap_of(i32 index, i32 channels, i32 columns) {
  u32 tap = u32(index) / u32(channels), row = tap / u32(columns);
  return {i32(row), i32(tap - row * u32(columns)), i32(u32(index) - tap * u32(channels))};
}

// No pixel: it is outside after any tap is added.
#define NOWHERE (-(1 << 30))

// A pixel's place in its image, and where the image begins.
struct Pixel {
  i64 image;
  i32 row, column;
};
DEVICE Pixel pixel_of(i64 index, i32 rows, i32 columns, i64 image_elements) {
  u64 rest = u64(index);
  Pixel pixel;
  pixel.column = take(rest, columns);
  pixel.row = take(rest, rows);
  pixel.image = i64(rest) * image_elements;
  return pixel;
}

// The product of `left` [TILE_M, ...] and `right` [..., TILE_N] over the terms [from, to): this thread's part.
template <class Left, class Right>
DEVICE void multiply(Left& left, Right& right, i32 from, i32 to, A (&sums)[BLOCK_M][BLOCK_N]) {
  alignas(4 * sizeof(A)) SHARED Lefts lefts;
  alignas(4 * sizeof(A)) SHARED Rights rights;
  for (int m = 0; m < BLOCK_M; ++m)
    for (int n = 0; n < BLOCK_N; ++n) sums[m][n] = A(0);
  if (from >= to) return;
  Kept next_left[LEFT], next_right[RIGHT];
  left.prepare(from, to);
  left.prepare(from + DEPTH, to);
  sync_threads();
  left.fetch(from, to, next_left);
  right.fetch(from, to, next_right);
  for (i32 k = from; k < to; k += DEPTH) {
    left.store(lefts, next_left);
    right.store(rights, next_right);
    sync_threads();
    // The next tiles travel while these are multiplied.
    if (to - k > DEPTH) {
      left.fetch(k + DEPTH, to, next_left);
      right.fetch(k + DEPTH, to, next_right);
      left.prepare(k + 2 * DEPTH, to);
    }
    multiply_tiles(lefts, rights, sums);
    sync_threads();
  }
}

// Tiles in which neighbouring threads fetch neighbouring terms of one row (or column).
struct AlongTerms {
  static DEVICE i32 term() { return i32(threadIdx.x) % DEPTH; }
  static DEVICE i32 index(int r) { return i32(threadIdx.x) / DEPTH + r * (THREADS / DEPTH); }
  DEVICE void prepare(i32, i32) {}
  template <class Tile, int COUNT>
  DEVICE void store(Tile& tile, const Kept (&values)[COUNT]) const {
#pragma unroll
    for (int r = 0; r < COUNT; ++r) keep(tile, term(), index(r), values[r]);
  }
};

// Tiles in which neighbouring threads fetch one term of neighbouring rows (or columns), of which there are SIZE.
template <int SIZE>
struct AcrossTerms {
  static DEVICE i32 index() { return i32(threadIdx.x) % SIZE; }
  static DEVICE i32 term(int r) { return i32(threadIdx.x) / SIZE + r * (THREADS / SIZE); }
  template <class Tile, int COUNT>
  DEVICE void store(Tile& tile, const Kept (&values)[COUNT]) const {
#pragma unroll
    for (int r = 0; r < COUNT; ++r) keep(tile, term(r), index(), values[r]);
  }
};

// The window that begins `distance` before a pixel, if there is one.
DEVICE i32 window(i32 distance, i32 stride) {
  if (stride == 1 || distance < 0) return distance;
  u32 whole = u32(distance) / u32(stride);
  return whole * u32(stride) == u32(distance) ? i32(whole) : -1;
}

// What lies under the windows of output pixels: pixels of images.
struct UnderWindows {
  static constexpr i32 DIRECTION = 1;
  static DEVICE Image image(const Convolution& g) { return g.input(); }
  // How many there are along an axis of what the rows of the product are, and of what is fetched.
  static DEVICE i32 rows(const Axis& axis) { return axis.output; }
  static DEVICE i32 fetched(const Axis& axis) { return axis.input; }
  // Where a pixel's reach begins, and where a tap that is so far away leads from there.
  static DEVICE i32 begin(const Axis& axis, i32 pixel) { return pixel * axis.stride - axis.before; }
  static DEVICE i32 lead(const Axis&, i32 begin, i32 far) { return begin + far; }
};

// The windows that reach input pixels: pixels of gradients.
struct OverPixels {
  static constexpr i32 DIRECTION = -1;
  static DEVICE Image image(const Convolution& g) { return g.output(); }
  static DEVICE i32 rows(const Axis& axis) { return axis.input; }
  static DEVICE i32 fetched(const Axis& axis) { return axis.output; }
  static DEVICE i32 begin(const Axis& axis, i32 pixel) { return pixel + axis.before; }
  static DEVICE i32 lead(const Axis& axis, i32 begin, i32 far) { return window(begin - far, axis.stride); }
};

// Where the reach of a row of the product begins, a pixel.
template <class Side>
DEVICE Pixel reach_of(i64 row_of_product, const Convolution& g, const Image& image) {
  if (row_of_product >= g.height) return {0, NOWHERE, NOWHERE};
  Pixel pixel = pixel_of(row_of_product, Side::rows(g.rows), Side::rows(g.columns), image.elements());
  return {pixel.image, Side::begin(g.rows, pixel.row), Side::begin(g.columns, pixel.column)};
}

#if CHANNELS_LAST
// Pixels that taps lead to, whose terms are taps and channels.
template <class Side>
struct Pixels : AlongTerms {
  const T* pixels;
  const Convolution& g;
  Image image;
  Pixel reaches[LEFT];

  DEVICE Pixels(const T* pixels, const Convolution& g) : pixels(pixels), g(g), image(Side::image(g)) {
#pragma unroll
    for (int r = 0; r < LEFT; ++r) reaches[r] = reach_of<Side>(i64(blockIdx.x) * TILE_M + index(r), g, image);
  }
  DEVICE void fetch(i32 k, i32 to, Kept (&values)[LEFT]) const {
    i32 at = k + term();
    Tap tap = tap_of(at, image.channels, g.columns.size);
    i32 down = tap.row * g.rows.dilation, right = tap.column * g.columns.dilation;
    i32 row_step = i32(image.row()), column_step = i32(image.column()), channel = tap.channel * i32(image.channel());
#pragma unroll
    for (int r = 0; r < LEFT; ++r) {
      i32 row = Side::lead(g.rows, reaches[r].row, down), column = Side::lead(g.columns, reaches[r].column, right);
      bool inside = at < to && u32(row) < u32(Side::fetched(g.rows)) && u32(column) < u32(Side::fetched(g.columns));
      values[r] = inside ? Kept(pixels[reaches[r].image + (row * row_step + column * column_step + channel)]) : Kept(0);
    }
  }
};
#else
// What a term adds to a pixel: a tap and a channel.
struct Far {
  i32 row, column, channel;
};
typedef Far Fars[2][DEPTH];

// Pixels that taps lead to; rows of the product, which are pixels too, are neighbours in memory.
template <class Side>
struct Pixels : AcrossTerms<TILE_M> {
  const T* pixels;
  const Convolution& g;
  Image image;
  Fars& fars;
  Pixel reach;

  DEVICE Pixels(const T* pixels, const Convolution& g, Fars& fars) : pixels(pixels), g(g), image(Side::image(g)), fars(fars) {
    reach = reach_of<Side>(i64(blockIdx.x) * TILE_M + index(), g, image);
  }
  // Takes terms apart, for `fetch` after the next barrier. What is no term lies nowhere, in the direction that terms are added.
  DEVICE void prepare(i32 k, i32 to) const {
    if (threadIdx.x >= DEPTH) return;
    i32 at = k + i32(threadIdx.x);
    Far& far = fars[k / DEPTH % 2][threadIdx.x];
    if (at >= to) {
      far = {Side::DIRECTION * NOWHERE, Side::DIRECTION * NOWHERE, 0};
      return;
    }
    Tap tap = tap_of(at, image.channels, g.columns.size);
    far = {tap.row * g.rows.dilation, tap.column * g.columns.dilation, tap.channel * i32(image.channel())};
  }
  DEVICE void fetch(i32 k, i32, Kept (&values)[LEFT]) const {
    i32 columns = Side::fetched(g.columns);
#pragma unroll
    for (int r = 0; r < LEFT; ++r) {
      Far far = fars[k / DEPTH % 2][term(r)];
      i32 row = Side::lead(g.rows, reach.row, far.row), column = Side::lead(g.columns, reach.column, far.column);
      bool inside = u32(row) < u32(Side::fetched(g.rows)) && u32(column) < u32(columns);
      values[r] = inside ? Kept(pixels[reach.image + (row * columns + column + far.channel)]) : Kept(0);
    }
  }
};
#endif

// The filter with taps and input channels for rows.
struct Filter : AcrossTerms<TILE_N> {
  const T* filter;
  i32 width;

  DEVICE Filter(const T* filter, i32 width) : filter(filter), width(width) {}
  DEVICE void fetch(i32 k, i32 to, Kept (&values)[RIGHT]) const {
    i32 n = i32(blockIdx.y) * TILE_N + index();
#pragma unroll
    for (int r = 0; r < RIGHT; ++r) {
      i32 at = k + term(r);
      values[r] = at < to && n < width ? Kept(filter[i64(at) * width + n]) : Kept(0);
    }
  }
};

// The filter with taps and output channels for rows, and input channels for columns.
struct FilterBackwards : AlongTerms {
  const T* filter;
  const Convolution& g;

  DEVICE FilterBackwards(const T* filter, const Convolution& g) : filter(filter), g(g) {}
  DEVICE void fetch(i32 k, i32 to, Kept (&values)[RIGHT]) const {
    i32 at = k + term();
    u32 tap = u32(at) / u32(g.out_channels);
    i64 row = i64(tap) * g.in_channels;
    i32 channel = i32(u32(at) - tap * u32(g.out_channels));
#pragma unroll
    for (int r = 0; r < RIGHT; ++r) {
      i32 n = i32(blockIdx.y) * TILE_N + index(r);
      values[r] = at < to && n < g.in_channels ? Kept(filter[(row + n) * g.out_channels + channel]) : Kept(0);
    }
  }
};

// Output pixels that are terms: where the window begins in which image, and where its gradient lies.
struct Term {
  Pixel window;
  i64 gradient;
};
typedef Term Terms[2][DEPTH];

// Output pixels for terms.
struct OverWindows {
  const Convolution& g;
  Image image, out;
  Terms& terms;

  // Takes output pixels apart, for `fetch` after the next barrier.
  DEVICE void prepare(i32 k, i32 to) const {
    if (threadIdx.x >= DEPTH) return;
    Term& place = terms[k / DEPTH % 2][threadIdx.x];
    i32 at = k + i32(threadIdx.x);
    if (at >= to) {
      place.window = {0, NOWHERE, NOWHERE};
      return;
    }
    Pixel pixel = pixel_of(at, g.rows.output, g.columns.output, 1);
    place.gradient = pixel.image * out.elements() + pixel.row * out.row() + pixel.column * out.column();
    place.window = {pixel.image * image.elements(), pixel.row * g.rows.stride - g.rows.before,
                    pixel.column * g.columns.stride - g.columns.before};
  }
};

// A tap and a channel, a row of the product.
struct TapPlace {
  i32 down, right;
  i64 channel;
};
DEVICE TapPlace tap_place_of(i64 at, const Convolution& g, const Image& image) {
  Tap tap = tap_of(at < g.height ? i32(at) : 0, g.in_channels, g.columns.size);
  return {at < g.height ? tap.row * g.rows.dilation : NOWHERE, tap.column * g.columns.dilation,
          tap.channel * image.channel()};
}

#if CHANNELS_LAST
// Pixels of images under the same tap of many windows.
struct UnderTaps : OverWindows, AcrossTerms<TILE_M> {
  const T* images;
  TapPlace tap;

  DEVICE UnderTaps(const T* images, const Convolution& g, Terms& terms)
      : OverWindows{g, g.input(), g.output(), terms}, images(images) {
    tap = tap_place_of(i64(blockIdx.x) * TILE_M + index(), g, image);
  }
  DEVICE void fetch(i32 k, i32, Kept (&values)[LEFT]) const {
    i32 row_step = i32(image.row()), column_step = i32(image.column());
#pragma unroll
    for (int r = 0; r < LEFT; ++r) {
      const Pixel& window = terms[k / DEPTH % 2][term(r)].window;
      i32 row = window.row + tap.down, column = window.column + tap.right;
      bool inside = u32(row) < u32(g.rows.input) && u32(column) < u32(g.columns.input);
      values[r] = inside ? Kept(images[window.image + (row * row_step + column * column_step) + tap.channel]) : Kept(0);
    }
  }
};

// The gradients of output pixels.
struct Gradients : AcrossTerms<TILE_N> {
  const T* gradients;
  const Convolution& g;
  const Terms& terms;

  DEVICE Gradients(const T* gradients, const Convolution& g, const Terms& terms)
      : gradients(gradients), g(g), terms(terms) {}
  DEVICE void fetch(i32 k, i32 to, Kept (&values)[RIGHT]) const {
    i32 n = i32(blockIdx.y) * TILE_N + index();
    i64 channel = n * g.output().channel();
#pragma unroll
    for (int r = 0; r < RIGHT; ++r) {
      bool inside = k + term(r) < to && n < g.out_channels;
      values[r] = inside ? Kept(gradients[terms[k / DEPTH % 2][term(r)].gradient + channel]) : Kept(0);
    }
  }
};
#else
// Pixels of images under the same tap of many windows.
struct UnderTaps : OverWindows, AlongTerms {
  const T* images;
  TapPlace taps[LEFT];

  DEVICE UnderTaps(const T* images, const Convolution& g, Terms& terms)
      : OverWindows{g, g.input(), g.output(), terms}, images(images) {
#pragma unroll
    for (int r = 0; r < LEFT; ++r) taps[r] = tap_place_of(i64(blockIdx.x) * TILE_M + index(r), g, image);
  }
  DEVICE void prepare(i32 k, i32 to) const { OverWindows::prepare(k, to); }
  DEVICE void fetch(i32 k, i32, Kept (&values)[LEFT]) const {
    Pixel window = terms[k / DEPTH % 2][term()].window;
#pragma unroll
    for (int r = 0; r < LEFT; ++r) {
      i32 row = window.row + taps[r].down, column = window.column + taps[r].right;
      bool inside = u32(row) < u32(g.rows.input) && u32(column) < u32(g.columns.input);
      values[r] = inside ? Kept(images[window.image + (row * g.columns.input + column) + taps[r].channel]) : Kept(0);
    }
  }
};

// The gradients of output pixels.
struct Gradients : AlongTerms {
  const T* gradients;
  const Convolution& g;
  const Terms& terms;

  DEVICE Gradients(const T* gradients, const Convolution& g, const Terms& terms)
      : gradients(gradients), g(g), terms(terms) {}
  DEVICE void fetch(i32 k, i32 to, Kept (&values)[RIGHT]) const {
    i64 pixel = terms[k / DEPTH % 2][term()].gradient, channel = g.output().channel();
#pragma unroll
    for (int r = 0; r < RIGHT; ++r) {
      i32 n = i32(blockIdx.y) * TILE_N + index(r);
      bool inside = k + term() < to && n < g.out_channels;
      values[r] = inside ? Kept(gradients[pixel + n * channel]) : Kept(0);
    }
  }
};
#endif

// Where the element of a row of the product, a pixel of any image, and a channel lies.
DEVICE i64 pixel_element(const Image& image, i64 pixel, i32 channel) {
  if (image.channels_last) return pixel * image.channels + channel;
  u64 rest = u64(pixel);
  i32 inside = take(rest, image.rows * image.columns);
  return i64(rest) * image.elements() + channel * image.channel() + inside;
}

#ifdef FORWARD
// With a bias where there is one, and then `Relu`; each step is rounded as it is between operations.
BLOCK_KERNEL(conv2d, THREADS, T* out, const T* images, const T* filter, const T* bias, Convolution g, i32 relu) {
#if CHANNELS_LAST
  Pixels<UnderWindows> left(images, g);
#else
  SHARED Fars fars;
  Pixels<UnderWindows> left(images, g, fars);
#endif
  Filter right(filter, g.out_channels);
  A sums[BLOCK_M][BLOCK_N];
  multiply(left, right, 0, g.rows.size * g.columns.size * g.in_channels, sums);
  Image image = g.output();
  each_sum(sums, g.height, g.out_channels, [&](i64 pixel, i32 channel, A sum) {
    T value = T(sum);
    if (bias != nullptr) value = T(A(value) + A(bias[channel]));
    if (relu && A(value) <= A(0)) value = T(A(0));
    out[pixel_element(image, pixel, channel)] = value;
  });
}
#endif

#ifdef BACKPROP_INPUT
BLOCK_KERNEL(conv2d_backprop_input, THREADS, T* out, const T* gradients, const T* filter, Convolution g) {
#if CHANNELS_LAST
  Pixels<OverPixels> left(gradients, g);
#else
  SHARED Fars fars;
  Pixels<OverPixels> left(gradients, g, fars);
#endif
  FilterBackwards right(filter, g);
  A sums[BLOCK_M][BLOCK_N];
  multiply(left, right, 0, g.rows.size * g.columns.size * g.out_channels, sums);
  Image image = g.input();
  each_sum(sums, g.height, g.in_channels,
           [&](i64 pixel, i32 channel, A sum) { out[pixel_element(image, pixel, channel)] = T(sum); });
}
#endif

#ifdef BACKPROP_FILTER
// `partial` [parts, taps and input channels, output channels] becomes the sums over parts of `part` output pixels.
BLOCK_KERNEL(conv2d_backprop_filter, THREADS, A* partial, const T* images, const T* gradients, Convolution g, i32 pixels,
             i32 part) {
  SHARED Terms terms;
  UnderTaps left(images, g, terms);
  Gradients right(gradients, g, terms);
  A sums[BLOCK_M][BLOCK_N];
  i32 from = i32(blockIdx.z) * part, to = pixels - from < part ? pixels : from + part;
  multiply(left, right, from, to, sums);
  A* out = partial + i64(blockIdx.z) * g.height * g.out_channels;
  each_sum(sums, g.height, g.out_channels, [&](i64 tap, i32 channel, A sum) { out[tap * g.out_channels + channel] = sum; });
}
#endif
