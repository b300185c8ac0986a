// What kernels over images share: windows that slide over them, and where their elements lie.

// One spatial axis of a windowed operation: pixels of the input, taps of the window, and how it slides.
struct Axis {
  i32 input, size, stride, dilation, before, output;
};

// The pixels inside the input that window `index` covers, for dilation 1: from `first` to before `last`.
struct Span {
  i32 first, last;
};
DEVICE Span pixels_of(const Axis& axis, i32 index) {
  i32 start = index * axis.stride - axis.before, end = start + axis.size;
  i32 first = start < 0 ? 0 : start, last = end < axis.input ? end : axis.input;
  return {first, last < first ? first : last};
}

// The windows that cover the input pixel `pixel`, for dilation 1: from `first` to before `last`.
DEVICE Span windows_over(const Axis& axis, i32 pixel) {
  i32 at = pixel + axis.before, reach = at - axis.size + axis.stride;
  i32 first = reach < 0 ? 0 : reach / axis.stride, last = at / axis.stride + 1;
  return {first, last < axis.output ? last : axis.output};
}

// Divides `rest` by `size`, and returns the remainder; fast where `rest` has 32 bits.
DEVICE i32 take(u64& rest, i32 size) {
  if (rest >> 32 == 0) {
    u32 whole = u32(rest), next = whole / u32(size);
    rest = next;
    return i32(whole - next * u32(size));
  }
  u64 next = rest / u64(size);
  i32 left = i32(rest - next * u64(size));
  rest = next;
  return left;
}

// The sizes of one image, and the order of its axes: rows, columns, channels, or the channels first.
struct Image {
  i32 rows, columns, channels, channels_last;

  DEVICE i64 elements() const { return i64(rows) * columns * channels; }
  // From one element to its neighbour along an axis.
  DEVICE i64 row() const { return channels_last ? i64(columns) * channels : columns; }
  DEVICE i64 column() const { return channels_last ? channels : 1; }
  DEVICE i64 channel() const { return channels_last ? 1 : i64(rows) * columns; }
};

struct Place {
  i64 image;
  i32 row, column, channel;
};

// The place of element `index` of a batch.
DEVICE Place place_of(const Image& image, i64 index) {
  u64 rest = u64(index);
  Place place;
  if (image.channels_last) place.channel = take(rest, image.channels);
  place.column = take(rest, image.columns);
  place.row = take(rest, image.rows);
  if (!image.channels_last) place.channel = take(rest, image.channels);
  place.image = i64(rest);
  return place;
}
