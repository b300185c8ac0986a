// Whether there is a NaN (the first number found) or an infinity (the second) among elements of the type T. Who finds one says
// so; that several do changes nothing.

typedef typename Compute<T>::type C;

KERNEL(look, i32* found, const T* elements, i64 n) {
  GRID_LOOP(at, n) {
    C x = C(elements[at]);
    if (is_nan(x)) found[0] = 1;
    else if (is_infinite(x)) found[1] = 1;
  }
}
