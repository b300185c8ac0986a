// Counts of numbers, intervals, and cross products.
//
// Defined from outside: T, the elements' type; BOUNDARIES, a list of them.

#ifdef BOUNDARIES
// The number of boundaries that are not above each element; what is not a number lies above all.
KERNEL(bucketize, i32* out, const T* in, i64 n, i64 count) {
  const float boundaries[] = {BOUNDARIES};
  GRID_LOOP(at, n) {
    double x = double(in[at]);
    i64 low = 0, high = count;
    while (low < high) {
      i64 middle = low + (high - low) / 2;
      if (x != x || double(boundaries[middle]) <= x) low = middle + 1;
      else high = middle;
    }
    out[at] = i32(low);
  }
}
#else
typedef typename Compute<T>::type C;

// Adds up whole numbers in bins that are zero: the order does not matter. `weights` is empty where each counts as one.
KERNEL(count_bins, T* bins, const i32* numbers, const T* weights, i64 n, i64 size, i64 weighted) {
  GRID_LOOP(at, n) {
    i32 number = numbers[at];
    T weight = weighted != 0 ? weights[at] : T(1);
    if (number < 0 || number >= size) continue;
    if (sizeof(T) == 8) atomicAdd((u64*)bins + number, (u64)(i64)weight);
    else atomicAdd((u32*)bins + number, (u32)(i64)weight);
  }
}

// A block a bin, which goes over all numbers.
BLOCK_KERNEL(sum_bins, 256, T* bins, const i32* numbers, const T* weights, i64 n, i64 size, i64 weighted) {
  for (i64 bin = blockIdx.x; bin < size; bin += gridDim.x) {
    C total = C(0);
    for (i64 at = threadIdx.x; at < n; at += 256) {
      if (i64(numbers[at]) == bin) total += weighted != 0 ? C(weights[at]) : C(1);
    }
    total = reduce_block<Add, 256>(total);
    if (threadIdx.x == 0) bins[bin] = T(total);
  }
}

KERNEL(cross, T* out, const T* a, const T* b, i64 n) {
  GRID_LOOP(at, n) {
    i64 place = at % 3, next = at - place + (place + 1) % 3, last = at - place + (place + 2) % 3;
    out[at] = T(C(a[next]) * C(b[last]) - C(a[last]) * C(b[next]));
  }
}
#endif
