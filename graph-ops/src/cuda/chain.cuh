// A chain of element-wise operations: its operands, and what is computed of an element of each.
//
// Defined from outside: T, the results' type; OPERANDS, their number; LOADS, statements that read the operands' values of element
// `i`, from `o[0]`, ..., into `v[0]`, ..., with `at[k]` the place of the `k`th of STRIDED operands that are broadcast; BODY,
// statements that make `r[0]`, ... of them, one for each of RESULTS chains. All values are of type A; those of a half type are
// among its numbers.

typedef typename Compute<T>::type A;

struct Operands {
  const void* of[16];
};

// The result's dimensions, and how far apart the elements of operands that are broadcast lie along each.
struct Strides {
  i64 rank;
  i64 sizes[8];
  i64 of[16][8];
};

struct Values {
  A of[OPERANDS];
};
struct Results {
  A of[RESULTS];
};

template <class I>
DEVICE void places(const Strides& strides, I rest, i64* at) {
  for (int k = 0; k < STRIDED; ++k) at[k] = 0;
  for (int axis = int(strides.rank) - 1; axis >= 0; --axis) {
    I size = I(strides.sizes[axis]), next = axis == 0 ? 0 : rest / size, index = rest - next * size;
    for (int k = 0; k < STRIDED; ++k) at[k] += i64(index) * strides.of[k][axis];
    rest = next;
  }
}

DEVICE Values load(const Operands& operands, const Strides& strides, i64 i) {
  Values values;
  A* v = values.of;
  const void* const* o = operands.of;
#if STRIDED > 0
  i64 at[STRIDED];
  if (i >> 32 == 0) places<u32>(strides, u32(i), at);
  else places<u64>(strides, u64(i), at);
#endif
  LOADS
  return values;
}

DEVICE Results chains(const Values& values) {
  Results results;
  const A* v = values.of;
  A* r = results.of;
  BODY
  return results;
}
