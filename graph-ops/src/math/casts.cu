// Tensors of `float` rounded to 16 bits, several at once.
//
// Defined from outside: T, the type of 16 bits; `members.cuh` lies before.

struct Tensor {
  const float* from;
  T* to;
  i64 n;
  // The first of the blocks that cast it.
  i64 block;
};

struct Tensors {
  Tensor of[64];
};

KERNEL(casts, Tensors tensors, i32 count) {
  Share share = own_share(tensors, count);
  const Tensor& tensor = tensors.of[share.member];
  for (i64 at = share.block * blockDim.x + threadIdx.x; at < tensor.n; at += share.blocks * blockDim.x)
    tensor.to[at] = T(tensor.from[at]);
}
