// An update of a variable where a condition holds.
//
// Defined from outside: T, the elements' type; CHANGE, the new element in terms of the `old` one and `value`, of type C.

typedef typename Compute<T>::type C;

KERNEL(masked, T* variable, const T* values, const bool* mask, i64 n) {
  if (!*mask) return;
  GRID_LOOP(at, n) {
    C old = C(variable[at]), value = C(values[at]);
    (void)old;
    variable[at] = T(CHANGE);
  }
}
