// Parts of a tensor that are picked by numbers of type I; elements are moved as words W of their size. What a number outside of
// the tensor picks is zero.

// From `[batch, outer, rows, inner]` by numbers `[batch, count]` to `[batch, outer, count, inner]`.
KERNEL(gather, W* to, const W* from, const I* numbers, i64 n, i64 outer, i64 rows, i64 count, i64 inner) {
  bool small = n < (1LL << 31);
  GRID_LOOP(at, n) {
    i64 column, slot, line, batch;
    if (small) {
      u32 rest = u32(at) / u32(inner), next = rest / u32(count);
      column = u32(at) - rest * u32(inner);
      slot = rest - next * u32(count);
      line = next;
      batch = next / u32(outer);
    } else {
      i64 rest = at / inner;
      column = at % inner;
      slot = rest % count;
      line = rest / count;
      batch = line / outer;
    }
    i64 row = i64(numbers[batch * count + slot]);
    W word = {};
    if (row >= 0 && row < rows) word = from[(line * rows + row) * inner + column];
    to[at] = word;
  }
}

// The first dimensions of a tensor.
struct Depth {
  i64 depth;
  i64 sizes[8];
};

// Parts of `inner` words, each by `depth` numbers.
KERNEL(gather_points, W* to, const W* from, const I* numbers, i64 n, i64 inner, Depth dims) {
  int depth = int(dims.depth);
  GRID_LOOP(at, n) {
    i64 point = at / inner, column = at - point * inner, part = 0;
    bool inside = true;
    for (int axis = 0; axis < depth; ++axis) {
      i64 index = i64(numbers[point * depth + axis]);
      inside = inside && index >= 0 && index < dims.sizes[axis];
      part = part * dims.sizes[axis] + index;
    }
    W word = {};
    if (inside) word = from[part * inner + column];
    to[at] = word;
  }
}
