// Reductions of runs of rows. With `indices`, these name the rows; without (null), the rows come in their order.
//
// Defined from outside: T, the elements' type; A, what results are kept in until they are finished; I, the segment numbers' type;
// J, that of the indices; FIRST, the result of no rows, before the first is taken; CHANGE, what becomes of the result `old` that
// meets `update`, the element of a row; FINISH, the result of the total `total` (an A) of `count` rows (an i64); EMPTY, what a
// segment without rows gives.

typedef typename Compute<T>::type C;

struct Change {
  template <class X>
  static DEVICE X apply(X old, X update) {
    return CHANGE;
  }
};
DEVICE T finished(A total, i64 count) { return count > 0 ? T(FINISH) : T(EMPTY); }

// Tells the last segment number (told[0]), and whether a number is negative or less than the one before it, or an index names no
// row (told[1]). Who finds that says so; that several do changes nothing.
KERNEL(look, i64* told, const I* ids, const J* indices, i64 n, i64 rows) {
  GRID_LOOP(at, n) {
    i64 id = i64(ids[at]);
    bool wrong = id < 0 || (at > 0 && id < i64(ids[at - 1]));
    if (indices != nullptr) wrong = wrong || i64(indices[at]) < 0 || i64(indices[at]) >= rows;
    if (wrong) told[1] = 1;
    if (at == n - 1) told[0] = id;
  }
}

// What is reduced to one element: the rows of a run, in one column.
struct Run {
  const T* column;
  const J* indices;
  i64 width, begin, end;

  DEVICE A element(i64 at) const { return A(C(column[(indices != nullptr ? i64(indices[at]) : at) * width])); }
};
DEVICE Run run_of(const T* from, const I* ids, const J* indices, i64 n, i64 width, i64 at) {
  i64 segment = at / width, begin = first_from(ids, 0, n, segment);
  return Run{from + (at - segment * width), indices, width, begin, first_from(ids, begin, n, segment + 1)};
}

// A thread takes the rows of a run in their order: where there are many results, or short runs.
KERNEL(reduce_runs, T* to, const T* from, const I* ids, const J* indices, i64 elements, i64 n, i64 width) {
  GRID_LOOP(at, elements) {
    Run run = run_of(from, ids, indices, n, width, at);
    A total = A(FIRST);
    for (i64 row = run.begin; row < run.end; ++row) total = Change::apply(total, run.element(row));
    to[at] = finished(total, run.end - run.begin);
  }
}

// A block takes them, each thread every 256th row: for few long runs.
BLOCK_KERNEL(reduce_long_runs, 256, T* to, const T* from, const I* ids, const J* indices, i64 elements, i64 n, i64 width) {
  for (i64 at = blockIdx.x; at < elements; at += gridDim.x) {
    Run run = run_of(from, ids, indices, n, width, at);
    A total = A(FIRST);
    for (i64 row = run.begin + threadIdx.x; row < run.end; row += 256) total = Change::apply(total, run.element(row));
    total = reduce_block<Change, 256>(total);
    if (threadIdx.x == 0) to[at] = finished(total, run.end - run.begin);
  }
}
