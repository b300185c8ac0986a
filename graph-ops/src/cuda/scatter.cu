// Rows of updates that meet rows of a tensor, each by the number of a row, in the order of the updates.
//
// Defined from outside: T, the elements' type; I, the numbers' type; CHANGE, what becomes of an element `old` that meets `update`.
//
// The first update of a row looks for the others and takes them all, so that no two blocks write to a row. Numbers that name no
// row are left out.

typedef typename Compute<T>::type C;

DEVICE C changed(C old, C update) { return CHANGE; }

// A block an update. `repeated` says that one number is the update of all.
BLOCK_KERNEL(scatter_rows, 256, T* to, const I* numbers, const T* updates, i64 count, i64 rows, i64 inner, i32 repeated) {
  SHARED i32 found;
  SHARED bool same[256];
  int thread = threadIdx.x;
  for (i64 first = blockIdx.x; first < count; first += gridDim.x) {
    i64 row = i64(numbers[first]);
    if (row < 0 || row >= rows) continue;
    // Whether an earlier update is of the same row.
    bool earlier = false;
    for (i64 begin = 0; begin < first && !earlier; begin += 256) {
      if (thread == 0) found = 0;
      sync_threads();
      if (begin + thread < first && i64(numbers[begin + thread]) == row) found = 1;
      sync_threads();
      earlier = found != 0;
      sync_threads();
    }
    if (earlier) continue;
    for (i64 left = 0; left < inner; left += 256) {
      i64 column = left + thread;
      C value = column < inner ? C(to[row * inner + column]) : C(0);
      for (i64 begin = first; begin < count; begin += 256) {
        if (thread == 0) found = 0;
        sync_threads();
        same[thread] = begin + thread < count && i64(numbers[begin + thread]) == row;
        if (same[thread]) found = 1;
        sync_threads();
        if (found != 0 && column < inner) {
          for (int next = 0; next < 256; ++next) {
            if (same[next]) value = changed(value, C(updates[repeated ? 0 : (begin + next) * inner + column]));
          }
        }
        sync_threads();
      }
      if (column < inner) to[row * inner + column] = T(value);
    }
  }
}
