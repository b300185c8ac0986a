// The beginnings of sequences turned round. Elements are moved as words W; lengths are of type I.

// `len` elements along the sequence's axis lie `stride` apart, and entries of the batch `batch_stride`. A length beyond the axis
// is that of the axis.
KERNEL(reverse_sequences, W* out, const W* in, const I* lengths, i64 n, i64 len, i64 stride, i64 batch, i64 batch_stride) {
  GRID_LOOP(place, n) {
    i64 at = place / stride % len, length = i64(lengths[place / batch_stride % batch]);
    if (length > len) length = len;
    out[place] = in[place + (at < length ? length - 1 - 2 * at : 0) * stride];
  }
}
