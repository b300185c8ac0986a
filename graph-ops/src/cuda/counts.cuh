// Sums of what comes before, in a fixed order.

// The sum of the values of a block's threads before this one, and of all in `total`. All threads of the block, which has
// THREADS, must take part; they have waited for each other when it returns.
template <int THREADS, class Sum>
DEVICE Sum sum_before(Sum value, Sum& total) {
  SHARED Sum sums[THREADS];
  int thread = threadIdx.x;
  sums[thread] = value;
  sync_threads();
  for (int distance = 1; distance < THREADS; distance *= 2) {
    Sum other = thread >= distance ? sums[thread - distance] : Sum(0);
    sync_threads();
    sums[thread] += other;
    sync_threads();
  }
  Sum before = sums[thread] - value;
  total = sums[THREADS - 1];
  // Before anyone writes to `sums` again.
  sync_threads();
  return before;
}
