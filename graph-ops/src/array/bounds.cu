// Where values belong in sorted rows.
//
// Defined from outside: T, the elements' type; O, the results'; BEFORE, whether an element `x` of the row lies before `value`.

typedef typename Compute<T>::type C;

DEVICE bool lies_before(C x, C value) { return BEFORE; }

KERNEL(bounds, O* out, const T* sorted, const T* values, i64 n, i64 row, i64 count) {
  GRID_LOOP(at, n) {
    const T* elements = sorted + at / count * row;
    C value = C(values[at]);
    i64 low = 0, high = row;
    while (low < high) {
      i64 middle = low + (high - low) / 2;
      if (lies_before(C(elements[middle]), value)) low = middle + 1;
      else high = middle;
    }
    out[at] = O(low);
  }
}
