// The gradients of the rows that indices name, before they are added up: that of their segment, divided.
//
// Defined from outside: T, the elements' type; DIVISOR, what the gradient of a segment of `count` rows is divided by.

DEVICE T divisor_of(T count) { return DIVISOR; }

KERNEL(shares, T* out, const T* gradient, const i32* segments, i64 n, i64 width, i64 count, i64 gradients) {
  GRID_LOOP(at, n) {
    i64 row = at / width, segment = i64(segments[row]);
    T share = T(0);
    if (segment >= 0 && segment < gradients) {
      i64 rows = first_from(segments, 0, count, segment + 1) - first_from(segments, 0, count, segment);
      share = gradient[segment * width + at % width] / divisor_of(T(rows > 0 ? rows : 1));
    }
    out[at] = share;
  }
}
