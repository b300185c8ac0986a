// Blocks of space and entries of the batch. Elements are moved as words W.
//
// Space has the shape [batch, sizes..., inner]; the other tensor has [volume * batch, parts..., inner]: element `o` of entry
// `place * batch + n` along an axis is element `o * block + place - before` of space along it.

struct Blocks {
  i64 rank;
  i64 size[6], part[6], block[6], before[6];
};

KERNEL(space_to_batch, W* out, const W* space, i64 n, i64 batch, i64 inner, Blocks blocks) {
  int rank = int(blocks.rank);
  GRID_LOOP(at, n) {
    i64 rest = at / inner, column = at - rest * inner, index[6];
    for (int axis = rank - 1; axis >= 0; --axis) {
      index[axis] = rest % blocks.part[axis];
      rest /= blocks.part[axis];
    }
    i64 place = rest / batch, from = 0, stride = 1;
    bool inside = true;
    for (int axis = rank - 1; axis >= 0; --axis) {
      i64 block = blocks.block[axis], pixel = index[axis] * block + place % block - blocks.before[axis];
      place /= block;
      inside = inside && pixel >= 0 && pixel < blocks.size[axis];
      from += pixel * stride;
      stride *= blocks.size[axis];
    }
    W word = {};
    if (inside) word = space[(rest % batch * stride + from) * inner + column];
    out[at] = word;
  }
}

KERNEL(batch_to_space, W* out, const W* parts, i64 n, i64 batch, i64 inner, Blocks blocks) {
  int rank = int(blocks.rank);
  GRID_LOOP(at, n) {
    i64 rest = at / inner, column = at - rest * inner;
    i64 place = 0, volume = 1, from = 0, stride = 1;
    for (int axis = rank - 1; axis >= 0; --axis) {
      i64 block = blocks.block[axis], pixel = rest % blocks.size[axis] + blocks.before[axis];
      rest /= blocks.size[axis];
      place += pixel % block * volume;
      from += pixel / block * stride;
      volume *= block;
      stride *= blocks.part[axis];
    }
    out[at] = parts[((place * batch + rest) * stride + from) * inner + column];
  }
}
