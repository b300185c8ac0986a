// Reductions over any set of dimensions.
//
// Defined from outside: T, the elements' type; A, what partial results are kept in; O, the result's type; OPERATION, a name
// below; FIRST, the result of no elements; MAP, what of an element `x` (an A) is taken; FINISH, the result of the total
// `total` (an A) of `count` elements (an i64).
//
// A result is reduced in an order that the shape alone decides. Where there are fewer results than a GPU has work for, the
// reduced elements are cut into parts, whose totals `join` reduces.

struct LogicalAnd {
  template <class X>
  static DEVICE X apply(X x, X y) {
    return x && y;
  }
};
struct LogicalOr {
  template <class X>
  static DEVICE X apply(X x, X y) {
    return x || y;
  }
};

DEVICE A infinity() { return A(bits_float(0x7f800000u)); }

DEVICE A taken(T element) {
  A x = A(typename Compute<T>::type(element));
  return MAP;
}
DEVICE A combined(A x, A y) { return OPERATION::apply(x, y); }
DEVICE O finished(A total, i64 count) { return O(FINISH); }

// The dimensions that are kept and those that are reduced, neighbours merged, and how far apart elements lie along each.
struct Axes {
  i64 kept_rank;
  i64 kept_sizes[8];
  i64 kept_strides[8];
  i64 reduced_rank;
  i64 reduced_sizes[8];
  i64 reduced_strides[8];
};

DEVICE i64 place(i64 index, i64 rank, const i64* sizes, const i64* strides) {
  i64 at = 0;
  for (int axis = int(rank) - 1; axis > 0; --axis) {
    i64 next;
    if (index < (1LL << 31) && sizes[axis] < (1LL << 31)) next = u32(index) / u32(sizes[axis]);
    else next = index / sizes[axis];
    at += (index - next * sizes[axis]) * strides[axis];
    index = next;
  }
  return at + index * strides[0];
}
DEVICE i64 kept_place(const Axes& axes, i64 index) {
  return place(index, axes.kept_rank, axes.kept_sizes, axes.kept_strides);
}
DEVICE i64 reduced_place(const Axes& axes, i64 index) {
  return place(index, axes.reduced_rank, axes.reduced_sizes, axes.reduced_strides);
}

// What one thread has of the reduced elements: each `step`-th from `begin` up to `end`.
DEVICE A total_of(const T* from, i64 begin, i64 end, i64 step, const Axes& axes) {
  A total = FIRST;
  if (axes.reduced_rank == 1) {
    i64 stride = axes.reduced_strides[0];
#pragma unroll 4
    for (i64 at = begin; at < end; at += step) total = combined(total, taken(from[at * stride]));
    return total;
  }
#pragma unroll 1
  for (i64 at = begin; at < end; at += step) total = combined(total, taken(from[reduced_place(axes, at)]));
  return total;
}

// Of a part of the reduced elements: its first one and the one behind its last.
struct Range {
  i64 begin, end;
};
DEVICE Range range_of_part(i64 reduced) {
  i64 chunk = (reduced + gridDim.y - 1) / gridDim.y;
  i64 begin = blockIdx.y * chunk, end = begin + chunk;
  return Range{begin, end < reduced ? end : reduced};
}

// Writes the total of a part, or the result if there is one part.
DEVICE void put(O* out, A* parts, i64 kept, i64 index, A total, i64 reduced) {
  if (gridDim.y > 1) parts[blockIdx.y * kept + index] = total;
  else out[index] = finished(total, reduced);
}

// A block a result (and part): for long runs of neighbours that are reduced.
BLOCK_KERNEL(reduce_rows, 256, O* out, A* parts, const T* in, i64 kept, i64 reduced, Axes axes) {
  Range range = range_of_part(reduced);
  for (i64 index = blockIdx.x; index < kept; index += gridDim.x) {
    const T* from = in + kept_place(axes, index);
    A total = total_of(from, range.begin + threadIdx.x, range.end, 256, axes);
    total = reduce_block<OPERATION, 256>(total);
    if (threadIdx.x == 0) put(out, parts, kept, index, total, reduced);
  }
}

// A warp a result: for short runs.
BLOCK_KERNEL(reduce_short_rows, 256, O* out, A* parts, const T* in, i64 kept, i64 reduced, Axes axes) {
  int lane = threadIdx.x % 32;
  for (i64 index = blockIdx.x * 8LL + threadIdx.x / 32; index < kept; index += gridDim.x * 8LL) {
    const T* from = in + kept_place(axes, index);
    A total = total_of(from, lane, reduced, 32, axes);
    total = reduce_warp<OPERATION>(total);
    if (lane == 0) out[index] = finished(total, reduced);
  }
}

// `width` neighbouring results (a power of two, at most 32) a block: where neighbours are kept.
BLOCK_KERNEL(reduce_columns, 256, O* out, A* parts, const T* in, i64 kept, i64 reduced, Axes axes, i32 width) {
  SHARED A totals[256];
  int thread = threadIdx.x, column = thread & (width - 1), row = thread / width, rows = 256 / width;
  Range range = range_of_part(reduced);
  i64 tiles = (kept + width - 1) / width;
  for (i64 tile = blockIdx.x; tile < tiles; tile += gridDim.x) {
    i64 index = tile * width + column;
    A total = FIRST;
    if (index < kept) total = total_of(in + kept_place(axes, index), range.begin + row, range.end, rows, axes);
    totals[thread] = total;
    sync_threads();
    for (int half = rows / 2; half > 0; half /= 2) {
      if (row < half) totals[thread] = combined(totals[thread], totals[thread + half * width]);
      sync_threads();
    }
    if (row == 0 && index < kept) put(out, parts, kept, index, totals[thread], reduced);
    // Before anyone writes to `totals` again.
    sync_threads();
  }
}

// The results of the totals of parts, a warp a result.
BLOCK_KERNEL(join, 256, O* out, const A* parts, i64 kept, i64 count, i64 reduced) {
  int lane = threadIdx.x % 32;
  for (i64 index = blockIdx.x * 8LL + threadIdx.x / 32; index < kept; index += gridDim.x * 8LL) {
    A total = FIRST;
    for (i64 part = lane; part < count; part += 32) total = combined(total, parts[part * kept + index]);
    total = reduce_warp<OPERATION>(total);
    if (lane == 0) out[index] = finished(total, reduced);
  }
}
