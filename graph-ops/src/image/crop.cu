// Parts of pictures, resized to one size, and the gradients. Pictures are [batch, rows, columns, channels]; boxes of pictures that
// there are not are left out.
//
// Defined from outside: T, the pictures' type; NEAREST, whether the nearest pixel is taken.

// Where the pixels of a crop lie along one axis of its picture, whose last pixel is `last`.
struct Line {
  float start, end, last;
  i64 pixels;

  DEVICE float place(i64 pixel) const {
    if (pixels <= 1) return 0.5f * (start + end) * last;
    float step = (end - start) * last / (float(pixels) - 1.0f);
    return start * last + float(pixel) * step;
  }
  DEVICE bool has(float place) const { return place >= 0.0f && place <= last; }
  // How the place moves with the start and with the end.
  DEVICE float by_start(i64 pixel) const { return pixels > 1 ? last - by_end(pixel) : 0.5f * last; }
  DEVICE float by_end(i64 pixel) const { return pixels > 1 ? float(pixel) * (last / (float(pixels) - 1.0f)) : 0.5f * last; }
};

DEVICE float nearest(float place) { return floor(place + 0.5f); }

// How much of the pixel `pixel` there is at `place`.
DEVICE float share(float place, i64 pixel) {
  if (NEAREST) return i64(nearest(place)) == pixel ? 1.0f : 0.0f;
  float low = floor(place), part = place - low;
  return (i64(low) == pixel ? 1.0f - part : 0.0f) + (i64(ceil(place)) == pixel ? part : 0.0f);
}

struct Crops {
  i64 batch, rows, columns, channels, crop_rows, crop_columns, boxes, spare[17];

  DEVICE Line down(const float* box) const { return {box[0], box[2], float(rows) - 1.0f, crop_rows}; }
  DEVICE Line across(const float* box) const { return {box[1], box[3], float(columns) - 1.0f, crop_columns}; }
};

KERNEL(crop, float* out, const T* image, const float* boxes, const i32* pictures, Crops g, i64 n) {
  GRID_LOOP(at, n) {
    i64 channel = at % g.channels, rest = at / g.channels, x = rest % g.crop_columns;
    rest /= g.crop_columns;
    i64 y = rest % g.crop_rows, box = rest / g.crop_rows, picture = pictures[box];
    Line down = g.down(boxes + 4 * box), across = g.across(boxes + 4 * box);
    float row = down.place(y), column = across.place(x), value = OUTSIDE;
    if (picture >= 0 && picture < g.batch && down.has(row) && across.has(column)) {
      const T* own = image + picture * g.rows * g.columns * g.channels + channel;
      if (NEAREST) {
        value = float(own[(i64(nearest(row)) * g.columns + i64(nearest(column))) * g.channels]);
      } else {
        const T* upper = own + i64(floor(row)) * g.columns * g.channels;
        const T* lower = own + i64(ceil(row)) * g.columns * g.channels;
        i64 left = i64(floor(column)) * g.channels, right = i64(ceil(column)) * g.channels;
        float part = column - floor(column);
        float top = float(upper[left]) + (float(upper[right]) - float(upper[left])) * part;
        float bottom = float(lower[left]) + (float(lower[right]) - float(lower[left])) * part;
        value = top + (bottom - top) * (row - floor(row));
      }
    }
    out[at] = value;
  }
}

// The pixels of a crop that may lie less than a pixel from `pixel`.
DEVICE void pixels_near(const Line& line, i64 pixel, i64& first, i64& last) {
  first = 0;
  last = line.pixels - 1;
  float step = line.pixels > 1 ? (line.end - line.start) * line.last / (float(line.pixels) - 1.0f) : 0.0f;
  if (!(step > 1e-3f) && !(step < -1e-3f)) return;
  // A pixel further on both sides, for what is rounded.
  float a = (float(pixel) - 2.0f - line.start * line.last) / step, b = (float(pixel) + 2.0f - line.start * line.last) / step;
  float low = floor(a < b ? a : b) - 1.0f, high = ceil(a < b ? b : a) + 1.0f;
  if (low > 0.0f) first = low < float(line.pixels) ? i64(low) : line.pixels;
  if (high < float(line.pixels)) last = high > -1.0f ? i64(high) : -1;
}

// Each pixel of the pictures asks the boxes, in their order, for its share.
KERNEL(crop_back_to_image, T* out, const float* gradient, const float* boxes, const i32* pictures, Crops g, i64 n) {
  typedef typename Accumulate<T>::type A;
  GRID_LOOP(at, n) {
    i64 channel = at % g.channels, rest = at / g.channels, column = rest % g.columns;
    rest /= g.columns;
    i64 row = rest % g.rows, picture = rest / g.rows;
    A sum = A(0);
    for (i64 box = 0; box < g.boxes; ++box) {
      if (i64(pictures[box]) != picture) continue;
      Line down = g.down(boxes + 4 * box), across = g.across(boxes + 4 * box);
      i64 top, bottom, left, right;
      pixels_near(down, row, top, bottom);
      pixels_near(across, column, left, right);
      for (i64 y = top; y <= bottom; ++y) {
        float along = down.place(y), of_row = down.has(along) ? share(along, row) : 0.0f;
        if (of_row == 0.0f) continue;
        for (i64 x = left; x <= right; ++x) {
          float place = across.place(x), of_column = across.has(place) ? share(place, column) : 0.0f;
          if (of_column == 0.0f) continue;
          sum += A(gradient[((box * g.crop_rows + y) * g.crop_columns + x) * g.channels + channel] * (of_row * of_column));
        }
      }
    }
    out[at] = T(sum);
  }
}

// A block a box.
BLOCK_KERNEL(crop_back_to_boxes, 256, float* out, const float* gradient, const T* image, const float* boxes, const i32* pictures,
             Crops g, i64 n) {
  i64 len = g.crop_rows * g.crop_columns * g.channels;
  for (i64 box = blockIdx.x; box < g.boxes; box += gridDim.x) {
    i64 picture = pictures[box];
    bool is_one = picture >= 0 && picture < g.batch;
    Line down = g.down(boxes + 4 * box), across = g.across(boxes + 4 * box);
    float sums[4] = {0.0f, 0.0f, 0.0f, 0.0f};
    for (i64 at = threadIdx.x; at < len && is_one; at += 256) {
      i64 channel = at % g.channels, rest = at / g.channels, x = rest % g.crop_columns, y = rest / g.crop_columns;
      float row = down.place(y), column = across.place(x);
      if (!down.has(row) || !across.has(column)) continue;
      const T* own = image + picture * g.rows * g.columns * g.channels + channel;
      const T* upper = own + i64(floor(row)) * g.columns * g.channels;
      const T* lower = own + i64(ceil(row)) * g.columns * g.channels;
      i64 left = i64(floor(column)) * g.channels, right = i64(ceil(column)) * g.channels;
      float a = float(upper[left]), b = float(upper[right]), c = float(lower[left]), d = float(lower[right]);
      float down_part = row - floor(row), part = column - floor(column), own_gradient = gradient[box * len + at];
      float by_row = own_gradient * ((1.0f - part) * (c - a) + part * (d - b));
      float by_column = own_gradient * ((1.0f - down_part) * (b - a) + down_part * (d - c));
      sums[0] += by_row * down.by_start(y);
      sums[1] += by_column * across.by_start(x);
      sums[2] += by_row * down.by_end(y);
      sums[3] += by_column * across.by_end(x);
    }
    for (int k = 0; k < 4; ++k) {
      float total = reduce_block<Add, 256>(sums[k]);
      if (threadIdx.x == 0) out[4 * box + k] = total;
    }
  }
}
