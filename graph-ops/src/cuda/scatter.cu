// Rows of updates that meet rows of a tensor, in the order of the updates (`row_order.cuh`).
//
// Defined from outside: T, the elements' type; CHANGE, what becomes of an element `old` that meets `update`.
//
// One thread for each element of a row takes all its updates, so that no two write to it.

typedef typename Compute<T>::type C;

DEVICE C changed(C old, C update) { return CHANGE; }

// Each element of a row takes its updates. `repeated` says that one number is the update of all.
KERNEL(scatter_rows, T* to, const T* updates, RowOrder order, i64 inner, i32 repeated) {
  GRID_LOOP(i, order.count * inner) {
    i64 first = i / inner, column = i - first * inner;
    if (!order.begins(first)) continue;
    i64 place = i64(order.row_at(first)) * inner + column;
    C value = C(to[place]);
    order.each(first, [&](i64 update) { value = changed(value, C(updates[repeated ? 0 : update * inner + column])); });
    to[place] = T(value);
  }
}
