// Rows of updates that meet rows of a tensor, in the order of the updates. A row is named by numbers, one for each of the
// tensor's first dimensions.
//
// Defined from outside: T, the elements' type; I, the numbers' type; CHANGE, what becomes of an element `old` that meets `update`.
//
// The first update of a row looks for the others and takes them all, so that no two blocks write to a row. Numbers that name no
// row are left out.

typedef typename Compute<T>::type C;

DEVICE C changed(C old, C update) { return CHANGE; }

// The dimensions that numbers speak of.
struct Depth {
  i64 depth;
  i64 sizes[8];
};

// The row that update `at` is of; -1 if there is none.
DEVICE i64 row_of(const I* numbers, i64 at, const Depth& dims) {
  int depth = int(dims.depth);
  i64 row = 0;
  bool inside = true;
  for (int axis = 0; axis < depth; ++axis) {
    i64 number = i64(numbers[at * depth + axis]);
    inside = inside && number >= 0 && number < dims.sizes[axis];
    row = row * dims.sizes[axis] + number;
  }
  return inside ? row : -1;
}

// A block an update. `repeated` says that one number is the update of all.
BLOCK_KERNEL(scatter_rows, 256, T* to, const I* numbers, const T* updates, i64 count, Depth dims, i64 inner, i32 repeated) {
  SHARED i32 found;
  SHARED bool same[256];
  int thread = threadIdx.x;
  for (i64 first = blockIdx.x; first < count; first += gridDim.x) {
    i64 row = row_of(numbers, first, dims);
    if (row < 0) continue;
    // Whether an earlier update is of the same row.
    bool earlier = false;
    for (i64 begin = 0; begin < first && !earlier; begin += 256) {
      if (thread == 0) found = 0;
      sync_threads();
      if (begin + thread < first && row_of(numbers, begin + thread, dims) == row) found = 1;
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
        same[thread] = begin + thread < count && row_of(numbers, begin + thread, dims) == row;
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
