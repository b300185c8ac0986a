// Linear algebra of batches of real matrices, row by row in memory: a block a matrix. Where the CPU's kernels refuse (a pivot of zero,
// a matrix that is not positive definite), results here are infinite or not numbers.
//
// Defined from outside: T, the elements' type; I, that of permutations.

#ifndef I
#define I i32
#endif

DEVICE T modulus(T x) { return x < T(0) ? -x : x; }

// Factorizes the matrix `a` of `n` rows in place, with exchanges of rows: ones on the diagonal of the lower triangle. `rows` says
// which row became each row. Returns whether the number of exchanges is odd. Called by all threads of a block.
DEVICE bool factorize(T* a, I* rows, i64 n) {
  SHARED T best[256];
  SHARED i64 where[256];
  int thread = threadIdx.x;
  bool odd = false;
  for (i64 row = thread; row < n; row += 256) rows[row] = I(row);
  sync_threads();
  for (i64 k = 0; k < n; ++k) {
    T greatest = T(-1);
    i64 pivot = k;
    for (i64 row = k + thread; row < n; row += 256) {
      T own = modulus(a[row * n + k]);
      if (own > greatest) {
        greatest = own;
        pivot = row;
      }
    }
    best[thread] = greatest;
    where[thread] = pivot;
    sync_threads();
    if (thread == 0) {
      // The diagonal's own element counts first, and of equal ones the upper.
      greatest = modulus(a[k * n + k]);
      pivot = k;
      for (int other = 0; other < 256; ++other) {
        if (best[other] > greatest || (best[other] == greatest && where[other] < pivot)) {
          greatest = best[other];
          pivot = where[other];
        }
      }
      where[0] = pivot;
    }
    sync_threads();
    pivot = where[0];
    if (pivot != k) {
      odd = !odd;
      for (i64 column = thread; column < n; column += 256) {
        T kept = a[k * n + column];
        a[k * n + column] = a[pivot * n + column];
        a[pivot * n + column] = kept;
      }
      if (thread == 0) {
        I kept = rows[k];
        rows[k] = rows[pivot];
        rows[pivot] = kept;
      }
    }
    sync_threads();
    T diagonal = a[k * n + k];
    if (diagonal != T(0)) {
      for (i64 row = k + 1 + thread; row < n; row += 256) a[row * n + k] /= diagonal;
    }
    sync_threads();
    if (diagonal != T(0)) {
      i64 left = n - k - 1;
      for (i64 at = thread; at < left * left; at += 256) {
        i64 row = k + 1 + at / left, column = k + 1 + at % left;
        a[row * n + column] -= a[row * n + k] * a[k * n + column];
      }
    }
    sync_threads();
  }
  return odd;
}

// Copies a matrix, or its transpose.
DEVICE void copy_matrix(T* to, const T* from, i64 n, bool transposed) {
  for (i64 at = threadIdx.x; at < n * n; at += 256) to[at] = from[transposed ? at % n * n + at / n : at];
  sync_threads();
}

BLOCK_KERNEL(lu, 256, T* out, I* rows, const T* in, i64 count, i64 n) {
  for (i64 matrix = blockIdx.x; matrix < count; matrix += gridDim.x) {
    copy_matrix(out + matrix * n * n, in + matrix * n * n, n, false);
    factorize(out + matrix * n * n, rows + matrix * n, n);
  }
}

// Determinants as a sign and the logarithm of the absolute value; where `whole` is not 0, `sign` takes both.
BLOCK_KERNEL(determinant, 256, T* sign, T* logarithm, const T* in, T* factors, I* rows, i64 count, i64 n, i64 whole) {
  for (i64 matrix = blockIdx.x; matrix < count; matrix += gridDim.x) {
    T* own = factors + matrix * n * n;
    copy_matrix(own, in + matrix * n * n, n, false);
    bool odd = factorize(own, rows + matrix * n, n);
    if (threadIdx.x == 0) {
      T turn = odd ? T(-1) : T(1), sum = T(0);
      for (i64 k = 0; k < n; ++k) {
        T pivot = own[k * n + k];
        if (pivot == T(0)) {
          turn = T(0);
          sum = T(bits_float(0xff800000u));
          break;
        }
        if (pivot < T(0)) turn = -turn;
        if (is_nan(pivot)) turn = pivot;
        sum += T(log(modulus(pivot)));
      }
      if (whole != 0) {
        sign[matrix] = turn * T(exp(sum));
      } else {
        sign[matrix] = turn;
        logarithm[matrix] = sum;
      }
    }
    sync_threads();
  }
}

// The solutions of systems, `columns` right sides each, by factorization of the matrices or their transposes. Where `identity` is
// not 0, the right sides are those of the inverse. A thread a right side.
BLOCK_KERNEL(solve, 256, T* out, const T* in, const T* right, T* factors, I* rows, i64 count, i64 n, i64 columns, i64 transposed,
             i64 identity) {
  for (i64 matrix = blockIdx.x; matrix < count; matrix += gridDim.x) {
    T* own = factors + matrix * n * n;
    I* order = rows + matrix * n;
    copy_matrix(own, in + matrix * n * n, n, transposed != 0);
    factorize(own, order, n);
    T* x = out + matrix * n * columns;
    const T* b = right + matrix * n * columns;
    for (i64 column = threadIdx.x; column < columns; column += 256) {
      for (i64 row = 0; row < n; ++row) {
        i64 from = i64(order[row]);
        T rest = identity != 0 ? (from == column ? T(1) : T(0)) : b[from * columns + column];
        for (i64 k = 0; k < row; ++k) rest -= own[row * n + k] * x[k * columns + column];
        x[row * columns + column] = rest;
      }
      for (i64 row = n - 1; row >= 0; --row) {
        T rest = x[row * columns + column];
        for (i64 k = row + 1; k < n; ++k) rest -= own[row * n + k] * x[k * columns + column];
        x[row * columns + column] = rest / own[row * n + row];
      }
    }
    sync_threads();
  }
}

// Systems with a triangle of a matrix: a thread a right side. `places` says which matrix and which right sides are each system's;
// it is empty where they are in order.
KERNEL(solve_triangular, T* out, const T* matrices, const T* right, const i32* places, i64 count, i64 n, i64 columns, i64 lower,
       i64 transposed, i64 placed) {
  GRID_LOOP(at, count * columns) {
    i64 system = at / columns, column = at % columns;
    const T* a = matrices + (placed != 0 ? i64(places[2 * system]) : system) * n * n;
    const T* b = right + (placed != 0 ? i64(places[2 * system + 1]) : system) * n * columns;
    T* x = out + system * n * columns;
    bool forward = (lower != 0) != (transposed != 0);
    for (i64 step = 0; step < n; ++step) {
      i64 row = forward ? step : n - 1 - step;
      T rest = b[row * columns + column];
      for (i64 known = 0; known < step; ++known) {
        i64 k = forward ? known : n - 1 - known;
        rest -= (transposed != 0 ? a[k * n + row] : a[row * n + k]) * x[k * columns + column];
      }
      x[row * columns + column] = rest / a[row * n + row];
    }
  }
}

// Lower triangles L with L Lt = A; only the lower triangle of A is read.
BLOCK_KERNEL(cholesky, 256, T* out, const T* in, i64 count, i64 n) {
  int thread = threadIdx.x;
  for (i64 matrix = blockIdx.x; matrix < count; matrix += gridDim.x) {
    T* l = out + matrix * n * n;
    const T* a = in + matrix * n * n;
    for (i64 at = thread; at < n * n; at += 256) l[at] = at % n > at / n ? T(0) : a[at];
    sync_threads();
    for (i64 k = 0; k < n; ++k) {
      // A number that is not positive has no root here.
      T square = l[k * n + k], root = square > T(0) ? T(sqrt(square)) : T(not_a_number());
      sync_threads();
      for (i64 row = k + thread; row < n; row += 256) l[row * n + k] = row == k ? root : l[row * n + k] / root;
      sync_threads();
      i64 left = n - k - 1;
      for (i64 at = thread; at < left * left; at += 256) {
        i64 row = k + 1 + at / left, column = k + 1 + at % left;
        if (column <= row) l[row * n + column] -= l[row * n + k] * l[column * n + k];
      }
      sync_threads();
    }
  }
}
