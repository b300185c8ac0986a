// The greatest elements of rows, and whether a target is among them.
//
// Defined from outside: T, the elements' type; I, that of targets.

#ifndef I
#define I i32
#endif

// A number's place in the order of all; what is not a number comes before all that is, and both zeros are one.
DEVICE u64 key_of(double x) {
  if (is_nan(x)) return 0;
  u64 bits = double_bits(x + 0.0);
  return bits >> 63 != 0 ? ~bits : bits | 1ULL << 63;
}
DEVICE u64 key_of(float x) { return key_of(double(x)); }
DEVICE u64 key_of(f16 x) { return key_of(double(float(x))); }
DEVICE u64 key_of(bf16 x) { return key_of(double(float(x))); }
DEVICE u64 key_of(i64 x) { return u64(x) ^ 1ULL << 63; }
DEVICE u64 key_of(i32 x) { return key_of(i64(x)); }
DEVICE u64 key_of(i16 x) { return key_of(i64(x)); }
DEVICE u64 key_of(i8 x) { return key_of(i64(x)); }
DEVICE u64 key_of(u64 x) { return x; }
DEVICE u64 key_of(u32 x) { return x; }
DEVICE u64 key_of(u16 x) { return x; }
DEVICE u64 key_of(u8 x) { return x; }

struct Entry {
  u64 key;
  i64 index;
};

// Greater keys come first, and of equal ones the first.
DEVICE bool comes_first(const Entry& a, const Entry& b) { return a.key != b.key ? a.key > b.key : a.index < b.index; }

// The sum of the values of the threads before this one, and that of all in `total`. `sums` is of the block.
DEVICE i32 sum_before(i32 value, i32* sums, i32& total) {
  int thread = threadIdx.x;
  sums[thread] = value;
  sync_threads();
  for (int distance = 1; distance < 256; distance *= 2) {
    i32 other = thread >= distance ? sums[thread - distance] : 0;
    sync_threads();
    sums[thread] += other;
    sync_threads();
  }
  total = sums[255];
  i32 before = sums[thread] - value;
  // Before anyone writes to `sums` again.
  sync_threads();
  return before;
}

// A block a row of `columns` elements: finds the k-th greatest key, byte by byte, collects what is not below it in `entries`,
// which has `padded` places (a power of two, at least k) for each block, and sorts those.
BLOCK_KERNEL(top_k, 256, T* values, i32* indices, const T* input, Entry* entries, i64 rows, i64 columns, i64 k, i64 padded) {
  SHARED u32 counts[256];
  SHARED i32 sums[256];
  SHARED u64 chosen;
  SHARED i64 wanted;
  int thread = threadIdx.x;
  entries += i64(blockIdx.x) * padded;
  for (i64 row = blockIdx.x; row < rows; row += gridDim.x) {
    const T* elements = input + row * columns;
    u64 prefix = 0;
    i64 left = k;
    for (int shift = 56; shift >= 0; shift -= 8) {
      counts[thread] = 0;
      sync_threads();
      for (i64 at = thread; at < columns; at += 256) {
        u64 key = key_of(elements[at]);
        if (shift == 56 || key >> (shift + 8) == prefix >> (shift + 8)) atomicAdd(&counts[key >> shift & 255], 1u);
      }
      sync_threads();
      if (thread == 0) {
        i64 rest = left;
        int byte = 255;
        while (byte > 0 && i64(counts[byte]) < rest) rest -= counts[byte--];
        chosen = prefix | u64(byte) << shift;
        wanted = rest;
      }
      sync_threads();
      prefix = chosen;
      left = wanted;
      // Before anyone writes to them again.
      sync_threads();
    }
    // All that are greater, and the first `left` of those that are equal.
    i64 taken = 0, equal = 0;
    for (i64 begin = 0; begin < columns; begin += 256) {
      i64 at = begin + thread;
      u64 key = at < columns ? key_of(elements[at]) : 0;
      bool same = at < columns && key == prefix;
      i32 all;
      i64 before = equal + sum_before(same ? 1 : 0, sums, all);
      equal += all;
      bool takes = at < columns && (key > prefix || (same && before < left));
      i64 place = taken + sum_before(takes ? 1 : 0, sums, all);
      taken += all;
      if (takes) entries[place] = {key, at};
    }
    for (i64 at = k + thread; at < padded; at += 256) entries[at] = {0, 1LL << 62};
    sync_threads();
    for (i64 run = 2; run <= padded; run *= 2) {
      for (i64 distance = run / 2; distance > 0; distance /= 2) {
        for (i64 at = thread; at < padded; at += 256) {
          i64 other = at ^ distance;
          if (other < at) continue;
          Entry a = entries[at], b = entries[other];
          bool forward = (at & run) == 0;
          if (forward ? comes_first(b, a) : comes_first(a, b)) {
            entries[at] = b;
            entries[other] = a;
          }
        }
        sync_threads();
      }
    }
    for (i64 at = thread; at < k; at += 256) {
      i64 index = entries[at].index;
      values[row * k + at] = elements[index];
      indices[row * k + at] = i32(index);
    }
    // Before the next row's are collected.
    sync_threads();
  }
}

// Heaps of indices into a row, the least element at the root; of equal ones the later is the lesser.
struct Heap {
  i32* places;
  i64 len;
  const T* elements;

  DEVICE bool greater(i32 a, i32 b) const {
    u64 x = key_of(elements[a]), y = key_of(elements[b]);
    return x != y ? x > y : a < b;
  }

  DEVICE void rise(i64 hole, i64 root, i32 element) {
    while (hole > root && greater(places[(hole - 1) / 2], element)) {
      places[hole] = places[(hole - 1) / 2];
      hole = (hole - 1) / 2;
    }
    places[hole] = element;
  }

  // The lesser child moves up all the way, then the element rises.
  DEVICE void settle(i64 root, i32 element) {
    i64 hole = root;
    while (2 * hole + 1 < len) {
      i64 left = 2 * hole + 1, right = left + 1;
      i64 child = right < len && !greater(places[right], places[left]) ? right : left;
      places[hole] = places[child];
      hole = child;
    }
    rise(hole, root, element);
  }

  DEVICE void drop_root() {
    i32 last = places[--len];
    if (len > 0) settle(0, last);
  }
};

// In the order in which they lie in TensorFlow's heap of them: a thread a row, with k + 1 places in `heaps`; 1 < k < columns.
KERNEL(heap_order, T* values, i32* indices, const T* input, i32* heaps, i64 rows, i64 columns, i64 k) {
  GRID_LOOP(row, rows) {
    Heap heap = {heaps + row * (k + 1), k + 1, input + row * columns};
    for (i64 at = 0; at <= k; ++at) heap.places[at] = i32(at);
    for (i64 root = (k + 1) / 2 - 1; root >= 0; --root) heap.settle(root, heap.places[root]);
    heap.drop_root();
    for (i64 at = k + 1; at < columns; ++at) {
      if (!heap.greater(i32(at), heap.places[0])) continue;
      heap.drop_root();
      heap.len = k;
      heap.rise(k - 1, 0, i32(at));
    }
    for (i64 at = 0; at < k; ++at) {
      i32 index = heap.places[at];
      values[row * k + at] = heap.elements[index];
      indices[row * k + at] = index;
    }
  }
}

// A warp a row. `most` is k where `of_input` is not 0; else `fixed` is.
BLOCK_KERNEL(in_top_k, 256, bool* out, const float* predictions, const I* targets, const I* most, i64 rows, i64 classes,
             i64 of_input, i64 fixed) {
  i64 k = of_input != 0 ? i64(*most) : fixed;
  for (i64 row = i64(blockIdx.x) * 8 + threadIdx.x / 32; row < rows; row += i64(gridDim.x) * 8) {
    const float* own = predictions + row * classes;
    i64 target = i64(targets[row]);
    bool is_class = target >= 0 && target < classes;
    float prediction = is_class ? own[target] : 0.0f;
    i64 above = 0, bad = 0;
    for (i64 at = threadIdx.x % 32; at < classes; at += 32) {
      above += own[at] > prediction ? 1 : 0;
      bad += is_finite(own[at]) ? 0 : 1;
    }
    above = reduce_warp<Add>(above);
    bad = reduce_warp<Add>(bad);
    if (threadIdx.x % 32 == 0) out[row] = is_class && bad == 0 && above < k;
  }
}
