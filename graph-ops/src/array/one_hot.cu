// Marks at the places that numbers of type I say; elements are words W of their size.

// A mark at the place that a number says: `[outer, inner]` to `[outer, depth, inner]`.
KERNEL(one_hot, W* to, const I* numbers, const W* on, const W* off, i64 n, i64 depth, i64 inner) {
  W mark = *on, blank = *off;
  GRID_LOOP(at, n) {
    i64 rest = at / inner, column = at - rest * inner, outer = rest / depth, place = rest - outer * depth;
    to[at] = i64(numbers[outer * inner + column]) == place ? mark : blank;
  }
}
