// How many of the elements (of type T) fall into each of `bins` bins of equal width; O is an integer of 32 or 64 bits.

KERNEL(clear, O* counts, i64 bins) {
  GRID_LOOP(at, bins) counts[at] = 0;
}

KERNEL(count, O* counts, const T* values, const T* range, i64 n, i64 bins) {
  double low = double(range[0]), high = double(range[1]), width = (high - low) / double(bins);
  GRID_LOOP(at, n) {
    double value = double(values[at]);
    // What is no number counts in the first bin.
    double place = value > low ? (value - low) / width : 0.0;
    i64 bin = place < double(bins) ? i64(place) : bins - 1;
    atomicAdd(&counts[bin], O(1));
  }
}
