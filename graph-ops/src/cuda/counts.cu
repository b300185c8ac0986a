// Each of `n` counts becomes the sum of those before it; the sum of all comes behind the last. One block.

BLOCK_KERNEL(sum_counts, 256, i64* counts, i64 n) {
  i64 sum = 0;
  for (i64 begin = 0; begin < n; begin += 256) {
    i64 at = begin + threadIdx.x, total;
    i64 before = sum_before<256>(at < n ? counts[at] : 0, total);
    if (at < n) counts[at] = sum + before;
    sum += total;
  }
  if (threadIdx.x == 0) counts[n] = sum;
}
