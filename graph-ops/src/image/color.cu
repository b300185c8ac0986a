// Colours as hue, saturation and value, and contrast.
//
// Defined from outside: T, the elements' type; CHANGE, what becomes of the colour `c` by the number `amount`.

typedef typename Compute<T>::type C;

struct Colour {
  C of[3];
};

DEVICE C larger(C x, C y) { return x > y ? x : y; }
DEVICE C smaller(C x, C y) { return x < y ? x : y; }
DEVICE C between(C x, C low, C high) { return smaller(larger(x, low), high); }

// Smith, "Color gamut transform pairs" (1978)
DEVICE Colour to_hsv(const Colour& c) {
  C r = c.of[0], g = c.of[1], b = c.of[2];
  C value = larger(larger(r, g), b), range = value - smaller(smaller(r, g), b);
  C saturation = value > C(0) ? range / value : C(0);
  if (!(range > C(0))) return {{C(0), saturation, value}};
  C sixths = r == value ? (g - b) / range : g == value ? (b - r) / range + C(2) : (r - g) / range + C(4);
  C hue = sixths / C(6);
  return {{hue < C(0) ? hue + C(1) : hue, saturation, value}};
}

DEVICE Colour to_rgb(const Colour& c) {
  C hue = c.of[0], saturation = c.of[1], value = c.of[2], sixths = hue * C(6);
  C parts[3] = {C(abs(sixths - C(3))) - C(1), C(2) - C(abs(sixths - C(2))), C(2) - C(abs(sixths - C(4)))};
  Colour colour;
  for (int k = 0; k < 3; ++k) {
    colour.of[k] = (C(1) - saturation + saturation * between(parts[k], C(0), C(1))) * value;
  }
  return colour;
}

DEVICE Colour turned(const Colour& c, C amount) {
  Colour hsv = to_hsv(c);
  C hue = hsv.of[0] + amount;
  return to_rgb({{hue - C(floor(hue)), hsv.of[1], hsv.of[2]}});
}

DEVICE Colour saturated(const Colour& c, C amount) {
  Colour hsv = to_hsv(c);
  return to_rgb({{hsv.of[0], between(hsv.of[1] * amount, C(0), C(1)), hsv.of[2]}});
}

#ifdef CHANGE
KERNEL(map_colours, T* out, const T* in, const float* number, i64 n, i64 adjusted) {
  C amount = adjusted != 0 ? C(*number) : C(0);
  GRID_LOOP(at, n) {
    Colour c = {{C(in[3 * at]), C(in[3 * at + 1]), C(in[3 * at + 2])}};
    Colour changed = CHANGE;
    for (int k = 0; k < 3; ++k) out[3 * at + k] = T(changed.of[k]);
  }
}
#else
// A block a channel of a picture: the distance of each pixel from the mean, times the number.
BLOCK_KERNEL(contrast, 256, T* out, const T* in, const float* number, i64 lines, i64 pixels, i64 channels) {
  for (i64 line = blockIdx.x; line < lines; line += gridDim.x) {
    i64 begin = line / channels * pixels * channels + line % channels;
    double sum = 0.0;
    for (i64 pixel = threadIdx.x; pixel < pixels; pixel += 256) sum += double(C(in[begin + pixel * channels]));
    C mean = C(reduce_block<Add, 256>(sum) / double(pixels)), factor = C(*number);
    for (i64 pixel = threadIdx.x; pixel < pixels; pixel += 256) {
      out[begin + pixel * channels] = T((C(in[begin + pixel * channels]) - mean) * factor + mean);
    }
  }
}
#endif
