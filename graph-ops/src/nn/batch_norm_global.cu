// The first form of batch normalization, of images with their channels last.
//
// Defined from outside: T, the elements' type; EPSILON, what is added to variances.

typedef typename Accumulate<T>::type A, C;

DEVICE A inverse(const T* variance, i64 c) { return A(1) / A(sqrt(A(variance[c]) + EPSILON)); }

KERNEL(normalize, T* out, const T* t, const T* m, const T* v, const T* beta, const T* gamma, i64 n, i64 channels, i64 scaled) {
  GRID_LOOP(at, n) {
    i64 c = at % channels;
    A factor = inverse(v, c);
    if (scaled != 0) factor *= A(gamma[c]);
    out[at] = T((A(t[at]) - A(m[c])) * factor + A(beta[c]));
  }
}

KERNEL(normalize_back, T* dx, T* dm, T* dv, T* db, T* dg, const T* t, const T* m, const T* v, const T* gamma, const T* gradient,
       i64 n, i64 channels, i64 scaled) {
  GRID_LOOP(at, n) {
    i64 c = at % channels;
    A factor = inverse(v, c);
    if (scaled != 0) factor *= A(gamma[c]);
    dx[at] = T(A(gradient[at]) * factor);
  }
}

// The gradients of the vectors: a block a channel.
BLOCK_KERNEL(vectors_back, 256, T* dx, T* dm, T* dv, T* db, T* dg, const T* t, const T* m, const T* v, const T* gamma,
             const T* gradient, i64 n, i64 channels, i64 scaled) {
  for (i64 c = blockIdx.x; c < channels; c += gridDim.x) {
    A sum = A(0), product = A(0), mean = A(m[c]);
    for (i64 at = threadIdx.x * channels + c; at < n; at += 256 * channels) {
      A own = A(gradient[at]);
      sum += own;
      product += own * (A(t[at]) - mean);
    }
    sum = reduce_block<Add, 256>(sum);
    product = reduce_block<Add, 256>(product);
    if (threadIdx.x != 0) continue;
    A root = inverse(v, c), scale = scaled != 0 ? A(gamma[c]) : A(1);
    dm[c] = T(-sum * root * scale);
    dv[c] = T(-product * root * root * root * scale / A(2));
    db[c] = T(sum);
    dg[c] = scaled != 0 ? T(product * root) : T(A(0));
  }
}
