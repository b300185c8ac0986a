// Kernels that do the same for several members, each in blocks of its own.

// The member that this block works for, which of the member's blocks it is, and how many there are.
struct Share {
  int member;
  i64 block, blocks;
};

// This block's share of `count` members; the blocks of member `k` begin at `members.of[k].block`.
template <class Members>
DEVICE Share own_share(const Members& members, i32 count) {
  int own = 0;
  while (own + 1 < count && members.of[own + 1].block <= blockIdx.x) ++own;
  i64 begin = members.of[own].block, end = own + 1 < count ? members.of[own + 1].block : i64(gridDim.x);
  return Share{own, blockIdx.x - begin, end - begin};
}

