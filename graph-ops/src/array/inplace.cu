// Copies of a tensor with some of its rows changed.
//
// Defined from outside: T, the elements' type; CHANGE, what becomes of an element `old` that meets `update`.

typedef typename Compute<T>::type C;

DEVICE C changed(C old, C update) { return CHANGE; }

// Rows are counted modulo their number. Several changes of a row follow each other.
KERNEL(change_rows, T* y, const T* x, const i32* indices, const T* v, i64 n, i64 rows, i64 width, i64 count) {
  GRID_LOOP(at, n) {
    i64 row = at / width, column = at - row * width;
    C value = C(x[at]);
    for (i64 next = 0; next < count; ++next) {
      i64 target = i64(indices[next]) % rows;
      if (target < 0) target += rows;
      if (target == row) value = T(changed(value, C(v[next * width + column])));
    }
    y[at] = T(value);
  }
}
