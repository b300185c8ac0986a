// Draws of classes by inversion of the cumulative distribution of each row, in the CPU's stream: a draw takes two words.
//
// Defined from outside: T, the logits' type; O, the classes'.

// The cumulative probabilities of the rows, with the greatest logit's as the unit: a block a row. Infinite logits and what is not a
// number have no probability. They are added up one by one, as on the CPU.
BLOCK_KERNEL(accumulate, 256, double* cumulative, const T* logits, i64 rows, i64 classes) {
  for (i64 row = blockIdx.x; row < rows; row += gridDim.x) {
    const T* own = logits + row * classes;
    double* sums = cumulative + row * classes;
    double greatest = -1.7976931348623157e308;
    for (i64 at = threadIdx.x; at < classes; at += 256) {
      double logit = double(own[at]);
      if (is_finite(logit) && logit > greatest) greatest = logit;
    }
    greatest = reduce_block<Maximum, 256>(greatest);
    for (i64 at = threadIdx.x; at < classes; at += 256) {
      double logit = double(own[at]);
      sums[at] = is_finite(logit) ? exp(logit - greatest) : 0.0;
    }
    sync_threads();
    if (threadIdx.x == 0) {
      double total = 0.0;
      for (i64 at = 0; at < classes; ++at) {
        total += sums[at];
        sums[at] = total;
      }
    }
    sync_threads();
  }
}

KERNEL(draw, O* out, const double* cumulative, const Parameters* parameters, i64 n, i64 samples, i64 classes) {
  GRID_LOOP(at, n) {
    u32 words[4];
    Philox generator(*parameters, u64(at) / 2);
    generator.next(words);
    int first = int(at % 2) * 2;
    const double* sums = cumulative + at / samples * classes;
    double place = uniform_double(words[first], words[first + 1]) * sums[classes - 1];
    i64 low = 0, high = classes;
    while (low < high) {
      i64 middle = low + (high - low) / 2;
      if (sums[middle] <= place) low = middle + 1;
      else high = middle;
    }
    out[at] = O(low);
  }
}
