// What a border that mirrors the inside hands back to it.
//
// Defined from outside: T, the elements' type.

typedef typename Accumulate<T>::type A;

// Along each axis: the inside's size, the border before it and behind it, and how far apart the elements of the whole lie.
struct Axes {
  i64 rank;
  i64 size[8], before[8], behind[8], stride[8];
};

// `twice` is 1 where the outermost element of the inside is mirrored too, else 0. The terms are added up in the order in which
// they lie in the whole.
KERNEL(fold, T* out, const T* in, i64 n, i64 twice, Axes axes) {
  int rank = int(axes.rank);
  GRID_LOOP(at, n) {
    // Up to three places along each axis: in the border before, inside, in the border behind.
    i64 places[8][3], rest = at;
    int counts[8], chosen[8];
    for (int axis = rank - 1; axis >= 0; --axis) {
      i64 size = axes.size[axis], before = axes.before[axis], index = rest % size;
      rest /= size;
      i64 first = before - index - twice, last = size + twice - 2 - index;
      int count = 0;
      if (first >= 0 && first < before) places[axis][count++] = first;
      places[axis][count++] = before + index;
      if (last >= 0 && last < axes.behind[axis]) places[axis][count++] = before + size + last;
      counts[axis] = count;
      chosen[axis] = 0;
    }
    A total = A(0);
    for (bool more = true; more;) {
      i64 from = 0;
      for (int axis = 0; axis < rank; ++axis) from += places[axis][chosen[axis]] * axes.stride[axis];
      total += A(in[from]);
      more = false;
      for (int axis = rank - 1; axis >= 0 && !more; --axis) {
        more = ++chosen[axis] < counts[axis];
        if (!more) chosen[axis] = 0;
      }
    }
    out[at] = T(total);
  }
}
