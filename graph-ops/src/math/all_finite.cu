// Whether all elements of several tensors are finite.
//
// Defined from outside: T, their type; `members.cuh` lies before.

struct Tensor {
  const T* elements;
  i64 n;
  // The first of the blocks that look through it.
  i64 block;
};

struct Tensors {
  Tensor of[64];
};

KERNEL(set_true, bool* out) {
  if (blockIdx.x == 0 && threadIdx.x == 0) *out = true;
}

// Every thread that finds an element which is not finite writes the same.
KERNEL(look, bool* out, Tensors tensors, i32 count) {
  Share share = own_share(tensors, count);
  const Tensor& tensor = tensors.of[share.member];
  bool finite = true;
  for (i64 at = share.block * blockDim.x + threadIdx.x; at < tensor.n; at += share.blocks * blockDim.x)
    finite &= is_finite(typename Compute<T>::type(tensor.elements[at]));
  if (!finite) *out = false;
}
