// The sum of up to eight tensors of type T, from the first to the last, rounded after each. It may lie over the first.

typedef typename Compute<T>::type C;

struct Terms {
  const T* of[8];
};

KERNEL(add_n, T* out, Terms terms, i32 count, i64 n) {
  GRID_LOOP(at, n) {
    C sum = C(terms.of[0][at]);
    for (int k = 1; k < 8; ++k) {
      if (k < count) sum = C(T(sum + C(terms.of[k][at])));
    }
    out[at] = T(sum);
  }
}
