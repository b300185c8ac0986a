// Softmax over the last axis, and the cross entropies that are computed with it: as in the CPU's kernels the largest logit is
// taken away first.
//
// Defined from outside: T; TEAM, the threads that share a row, 32 or 256, of blocks of 256; for sparse labels I, their type.

typedef typename Compute<T>::type A;
#define THREADS 256

// The team's sum and maximum of a value of each thread.
template <class Operation>
DEVICE A reduce_team(A value) {
#if TEAM == 32
  return reduce_warp<Operation>(value);
#else
  return reduce_block<Operation, THREADS>(value);
#endif
}

DEVICE i32 member() { return i32(threadIdx.x) % TEAM; }
// All members of a team go over the same rows.
#define EACH_ROW(row, rows)                                                                  \
  for (i64 row = i64(blockIdx.x) * (THREADS / TEAM) + i32(threadIdx.x) / TEAM; row < (rows); \
       row += i64(gridDim.x) * (THREADS / TEAM))

// A row of logits, `step` apart: its maximum, and the sum of the exponentials of what is left without it.
struct Row {
  const T* logits;
  i64 step;
  A largest, sum;

  DEVICE A shifted(i32 c) const { return A(logits[c * step]) - largest; }
};
DEVICE Row row_of(const T* logits, i64 step, i32 classes) {
  Row row{logits, step, A(bits_float(0xff800000u)), A(0)};
  for (i32 c = member(); c < classes; c += TEAM) row.largest = Maximum::apply(A(logits[c * step]), row.largest);
  row.largest = reduce_team<Maximum>(row.largest);
  for (i32 c = member(); c < classes; c += TEAM) row.sum += exp(row.shifted(c));
  row.sum = reduce_team<Add>(row.sum);
  return row;
}

BLOCK_KERNEL(softmax, THREADS, T* out, const T* logits, i64 rows, i32 classes) {
  EACH_ROW(r, rows) {
    Row row = row_of(logits + r * classes, 1, classes);
    for (i32 c = member(); c < classes; c += TEAM) out[r * classes + c] = T(exp(row.shifted(c)) / row.sum);
  }
}

BLOCK_KERNEL(log_softmax, THREADS, T* out, const T* logits, i64 rows, i32 classes) {
  EACH_ROW(r, rows) {
    Row row = row_of(logits + r * classes, 1, classes);
    A log_sum = log(row.sum);
    for (i32 c = member(); c < classes; c += TEAM) out[r * classes + c] = T(row.shifted(c) - log_sum);
  }
}

// Distances from row to row and from class to class; 0 where an operand is repeated.
struct Steps {
  i64 logits_row, logits_class, labels_row, labels_class;
};

BLOCK_KERNEL(cross_entropy, THREADS, T* loss, T* backprop, const T* logits, const T* labels, i64 rows, i32 classes, Steps steps) {
  EACH_ROW(r, rows) {
    Row row = row_of(logits + r * steps.logits_row, steps.logits_class, classes);
    const T* label = labels + r * steps.labels_row;
    A log_sum = log(row.sum), total = A(0);
    for (i32 c = member(); c < classes; c += TEAM) {
      A shifted = row.shifted(c), weight = A(label[c * steps.labels_class]);
      total += weight * (log_sum - shifted);
      backprop[r * classes + c] = T(exp(shifted) / row.sum - weight);
    }
    total = reduce_team<Add>(total);
    if (member() == 0) loss[r] = T(total);
  }
}

#ifdef I
// A label that is no class makes its row not numbers.
BLOCK_KERNEL(sparse_cross_entropy, THREADS, T* loss, T* backprop, const T* logits, const I* labels, i64 rows, i32 classes) {
  EACH_ROW(r, rows) {
    Row row = row_of(logits + r * classes, 1, classes);
    i64 label = i64(labels[r]);
    bool valid = label >= 0 && label < classes;
    A unknown = A(not_a_number());
    for (i32 c = member(); c < classes; c += TEAM) {
      A value = exp(row.shifted(c)) / row.sum - (c == label ? A(1) : A(0));
      backprop[r * classes + c] = T(valid ? value : unknown);
    }
    if (member() == 0) loss[r] = T(valid ? log(row.sum) - row.shifted(i32(label)) : unknown);
  }
}
#endif
