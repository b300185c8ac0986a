// Borders around tensors; elements are moved as words W of their size, whatever they mean.

// The dimensions of a tensor with a border, and of the tensor inside it.
struct Border {
  i64 rank;
  i64 outer[8];
  i64 inner[8];
  i64 before[8];
};

// What stands at a place of the border: a number (`mode` 0), or the tensor mirrored at its outermost elements (1), or at
// its edge (2).
KERNEL(pad, W* to, const W* from, const W* value, i64 n, Border border, i32 mode) {
  int rank = int(border.rank);
  GRID_LOOP(at, n) {
    i64 rest = at, source = 0, stride = 1;
    bool inside = true;
    for (int axis = rank - 1; axis >= 0; --axis) {
      i64 size = border.inner[axis], next;
      if (rest < (1LL << 31) && border.outer[axis] < (1LL << 31)) next = u32(rest) / u32(border.outer[axis]);
      else next = rest / border.outer[axis];
      i64 index = rest - next * border.outer[axis] - border.before[axis];
      if (mode == 0) inside = inside && index >= 0 && index < size;
      else if (index < 0) index = mode == 1 ? -index : -index - 1;
      else if (index >= size) index = mode == 1 ? 2 * size - 2 - index : 2 * size - 1 - index;
      source += index * stride;
      stride *= size;
      rest = next;
    }
    W word = {};
    if (inside) word = from[source];
    else if (value != nullptr) word = *value;
    to[at] = word;
  }
}
