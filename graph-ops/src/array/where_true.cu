// The places of the elements that are not zero, in their order: counted block by block, and written behind those of the blocks
// before.
//
// Defined from outside: T, what an element is made of; PARTS, of how many: two for complex numbers.

#define THREADS 256
// Neighbours that a thread looks at.
#define EACH 8

// The dimensions of the tensor.
struct Depth {
  i64 depth;
  i64 sizes[8];
};

typedef typename Compute<T>::type C;

DEVICE bool is_true(const T* elements, i64 at) {
  bool found = false;
  for (int part = 0; part < PARTS; ++part) found = found || C(elements[at * PARTS + part]) != C(0);
  return found;
}

// What a thread of a block looks at: from `begin` up to `end`.
struct Range {
  i64 begin, end;
};
DEVICE Range range_of(i64 block, i64 n) {
  i64 begin = (block * THREADS + threadIdx.x) * EACH, end = begin + EACH;
  return Range{begin, end < n ? end : n};
}
DEVICE i32 count_of(const T* elements, Range range) {
  i32 count = 0;
  for (i64 at = range.begin; at < range.end; ++at) count += is_true(elements, at) ? 1 : 0;
  return count;
}

BLOCK_KERNEL(count_true, THREADS, i64* counts, const T* elements, i64 n, i64 blocks) {
  for (i64 block = blockIdx.x; block < blocks; block += gridDim.x) {
    i32 count = reduce_block<Add, THREADS>(count_of(elements, range_of(block, n)));
    if (threadIdx.x == 0) counts[block] = count;
  }
}

// `before` has, for each block, how many places come before its own.
BLOCK_KERNEL(write_places, THREADS, i64* places, const T* elements, const i64* before, i64 n, i64 blocks, Depth dims) {
  int depth = int(dims.depth);
  for (i64 block = blockIdx.x; block < blocks; block += gridDim.x) {
    Range range = range_of(block, n);
    i32 total;
    i64 row = before[block] + sum_before<THREADS>(count_of(elements, range), total);
    for (i64 at = range.begin; at < range.end; ++at) {
      if (!is_true(elements, at)) continue;
      i64 rest = at;
      for (int axis = depth - 1; axis > 0; --axis) {
        i64 next = rest / dims.sizes[axis];
        places[row * depth + axis] = rest - next * dims.sizes[axis];
        rest = next;
      }
      places[row * depth] = rest;
      ++row;
    }
  }
}
