// Local response normalization across the channels, which are the last axis, and its gradient.
//
// Defined from outside: T.

typedef typename Compute<T>::type A;

// Channels on each side that take part, at most the depth, and what becomes of the sums of their squares.
struct Response {
  i32 depth, radius;
  float bias, alpha, beta;

  DEVICE A norm(A sum) const { return A(alpha) * sum + A(bias); }
  // `norm^-beta`, by square roots where the exponent allows.
  DEVICE A power(A norm) const {
    A root = sqrt(norm);
    if (beta == 0.75f) return A(1) / (root * sqrt(root));
    if (beta == 0.5f) return A(1) / root;
    if (beta == 1.0f) return A(1) / norm;
    return pow(norm, A(-beta));
  }
  // The channels around element `i`, as elements: from the first to the last.
  DEVICE void around(i64 i, i64& first, i64& last) const {
    u64 rest = u64(i);
    i32 channel = take(rest, depth);
    first = i - (channel < radius ? channel : radius);
    i32 after = depth - 1 - channel;
    last = i + (after < radius ? after : radius);
  }
};

DEVICE A norm_at(const Response& response, const T* input, i64 i) {
  i64 first, last;
  response.around(i, first, last);
  A sum = A(0);
  for (i64 k = first; k <= last; ++k) sum += A(input[k]) * A(input[k]);
  return response.norm(sum);
}

KERNEL(lrn, T* out, const T* input, i64 n, Response response) {
  GRID_LOOP(i, n) { out[i] = T(A(input[i]) * response.power(norm_at(response, input, i))); }
}

// Elements of a block, and channels on each side for which their neighbours' shares fit into shared memory.
#define THREADS 256
#define MAX_RADIUS 32

// `gradient * norm^-beta - 2 alpha beta input * sum over the channels around of gradient * output / norm`
BLOCK_KERNEL(lrn_grad, THREADS, T* out, const T* gradients, const T* input, const T* output, i64 n, Response response) {
  SHARED A shares[THREADS + 2 * MAX_RADIUS];
  A factor = A(-2) * A(response.alpha) * A(response.beta);
  bool fits = response.radius <= MAX_RADIUS;
  i32 halo = fits ? response.radius : 0;
  for (i64 begin = i64(blockIdx.x) * THREADS; begin < n; begin += i64(gridDim.x) * THREADS) {
    A power = A(0);
    for (i32 at = i32(threadIdx.x); at < THREADS + 2 * halo; at += THREADS) {
      i64 j = begin - halo + at;
      A share = A(0);
      if (j >= 0 && j < n) {
        A norm = norm_at(response, input, j);
        share = A(gradients[j]) * A(output[j]) / norm;
      }
      shares[at] = share;
    }
    sync_threads();
    i64 i = begin + threadIdx.x;
    if (i < n) {
      power = response.power(norm_at(response, input, i));
      i64 first, last;
      response.around(i, first, last);
      A sum = A(0);
      if (fits) {
        for (i64 j = first; j <= last; ++j) sum += shares[j - begin + halo];
      } else {
        for (i64 j = first; j <= last; ++j)
          sum += A(gradients[j]) * A(output[j]) / norm_at(response, input, j);
      }
      out[i] = T(A(gradients[i]) * power + factor * A(input[i]) * sum);
    }
    sync_threads();
  }
}
