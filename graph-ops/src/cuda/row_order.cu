// Sorts updates by the rows that they are of. A row is named by numbers, one for each of the tensor's first dimensions.
//
// Defined from outside: I, the numbers' type.
//
// Keys (`row_order.cuh`) are sorted by Batcher's bitonic network. Numbers that name no row make keys that come last.

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

// Keys that a block has in shared memory.
#define CHUNK 2048
#define THREADS 256

// Puts a pair in order: upwards where bit `size` of its place is 0, so that neighbours of `size` keys rise and fall.
DEVICE void order(u64& low, u64& high, i64 place, i64 size) {
  bool up = (place & size) == 0;
  if ((low > high) == up) {
    u64 other = low;
    low = high;
    high = other;
  }
}

// The first of pair `number` of places that are `distance` (a power of two) apart.
DEVICE i64 first_of(i64 number, i64 distance) { return (number & ~(distance - 1)) * 2 + (number & (distance - 1)); }

// Merges within a block's chunk, which begins at `begin`, over falling distances.
DEVICE void merge_chunk(u64* chunk, i64 begin, i64 size, int distance) {
  for (; distance > 0; distance /= 2) {
    sync_threads();
    for (int pair = threadIdx.x; pair < CHUNK / 2; pair += THREADS) {
      int at = int(first_of(pair, distance));
      order(chunk[at], chunk[at + distance], begin + at, size);
    }
  }
}

// Makes the keys of all updates, and sorts each chunk of them. A block a chunk.
BLOCK_KERNEL(sort_chunks, THREADS, u64* keys, const I* numbers, i64 count, i32 bits, Depth dims) {
  SHARED u64 chunk[CHUNK];
  i64 begin = i64(blockIdx.x) * CHUNK;
  for (int at = threadIdx.x; at < CHUNK; at += THREADS) {
    i64 row = begin + at < count ? row_of(numbers, begin + at, dims) : -1;
    chunk[at] = row < 0 ? NO_ROW : u64(row) << bits | u64(begin + at);
  }
  for (int size = 2; size <= CHUNK; size *= 2) merge_chunk(chunk, begin, size, size / 2);
  sync_threads();
  for (int at = threadIdx.x; at < CHUNK; at += THREADS) keys[begin + at] = chunk[at];
}

// One step of merging `size` keys, over a distance that reaches beyond chunks.
KERNEL(merge_far, u64* keys, i64 pairs, i64 size, i64 distance) {
  GRID_LOOP(pair, pairs) {
    i64 at = first_of(pair, distance);
    order(keys[at], keys[at + distance], at, size);
  }
}

// The other steps. A block a chunk.
BLOCK_KERNEL(merge_near, THREADS, u64* keys, i64 size) {
  SHARED u64 chunk[CHUNK];
  i64 begin = i64(blockIdx.x) * CHUNK;
  for (int at = threadIdx.x; at < CHUNK; at += THREADS) chunk[at] = keys[begin + at];
  merge_chunk(chunk, begin, size, CHUNK / 2);
  sync_threads();
  for (int at = threadIdx.x; at < CHUNK; at += THREADS) keys[begin + at] = chunk[at];
}
