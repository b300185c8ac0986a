// Sums of a tensor's elements along axes that only it has (`Einsum`).
//
// Defined from outside: T, the elements' type.

typedef typename Compute<T>::type C;

// Axes: how far each goes, and how far apart its elements lie.
struct Walk {
  i64 rank;
  i64 sizes[8];
  i64 strides[8];

  // Where the element of this number lies, the last axis fastest.
  DEVICE i64 place(i64 number) const {
    i64 place = 0;
    for (int axis = int(rank) - 1; axis >= 0; --axis) {
      place += number % sizes[axis] * strides[axis];
      number /= sizes[axis];
    }
    return place;
  }
};

KERNEL(sum_axes, T* out, const T* from, i64 n, i64 terms, Walk kept, Walk summed) {
  GRID_LOOP(i, n) {
    i64 begin = kept.place(i);
    C sum = C(0);
    for (i64 term = 0; term < terms; ++term) sum += C(from[begin + summed.place(term)]);
    out[i] = T(sum);
  }
}
