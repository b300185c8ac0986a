// An expression of one to three operands, element by element.
//
// Defined from outside: INPUTS, the operands' types X0, X1, X2 and names N0, N1, N2, the result's type O, and EXPRESSION in the
// operands' names, which are of the types that X0, X1 and X2 are calculated in; `C(number)` is a constant of the first one's.

typedef typename Compute<X0>::type C;
#if INPUTS < 2
typedef X0 X1;
#define N1
#endif
#if INPUTS < 3
typedef X0 X2;
#define N2
#endif

DEVICE O value_of(typename Compute<X0>::type N0, typename Compute<X1>::type N1, typename Compute<X2>::type N2) {
  return O(EXPRESSION);
}

// Neighbouring elements that are loaded and stored at once, in up to 16 bytes.
#define PACK 4
template <class T>
struct alignas(sizeof(T) * PACK < 16 ? sizeof(T) * PACK : 16) Pack {
  T of[PACK];
};

template <class T>
DEVICE Pack<T> load_pack(const T* from, i64 at, bool repeated) {
  Pack<T> pack;
  if (repeated) {
    T value = *from;
    for (int k = 0; k < PACK; ++k) pack.of[k] = value;
  } else {
    pack = ((const Pack<T>*)from)[at];
  }
  return pack;
}

// Each operand has as many elements as the result, or (a bit of `repeated` is set) one. The result may lie over an operand.
KERNEL(map_flat, O* out, const X0* x, const X1* y, const X2* z, i64 n, i32 repeated) {
  bool one_x = repeated & 1, one_y = repeated & 2, one_z = repeated & 4;
  i64 packs = n / PACK;
  GRID_LOOP(at, packs) {
    Pack<X0> a = load_pack(x, at, one_x);
#if INPUTS > 1
    Pack<X1> b = load_pack(y, at, one_y);
#endif
#if INPUTS > 2
    Pack<X2> c = load_pack(z, at, one_z);
#endif
    Pack<O> result;
    for (int k = 0; k < PACK; ++k) {
#if INPUTS == 1
      result.of[k] = value_of(a.of[k], a.of[k], a.of[k]);
#elif INPUTS == 2
      result.of[k] = value_of(a.of[k], b.of[k], a.of[k]);
#else
      result.of[k] = value_of(a.of[k], b.of[k], c.of[k]);
#endif
    }
    ((Pack<O>*)out)[at] = result;
  }
  // The few that are left over.
  GRID_LOOP(rest, n - packs * PACK) {
    i64 at = packs * PACK + rest;
#if INPUTS == 1
    out[at] = value_of(x[one_x ? 0 : at], x[one_x ? 0 : at], x[one_x ? 0 : at]);
#elif INPUTS == 2
    out[at] = value_of(x[one_x ? 0 : at], y[one_y ? 0 : at], x[one_x ? 0 : at]);
#else
    out[at] = value_of(x[one_x ? 0 : at], y[one_y ? 0 : at], z[one_z ? 0 : at]);
#endif
  }
}

#if INPUTS > 1
// The result's dimensions, and how far apart the operands' elements lie along each; 0 along which one is repeated.
struct Layout {
  i64 rank;
  i64 sizes[8];
  i64 strides[3][8];
};

template <class I>
DEVICE void map_over(O* out, const X0* x, const X1* y, const X2* z, i64 n, const Layout& layout) {
  int rank = int(layout.rank);
  GRID_LOOP(at, n) {
    I rest = I(at), at_x = 0, at_y = 0, at_z = 0;
    for (int axis = rank - 1; axis > 0; --axis) {
      I size = I(layout.sizes[axis]), next = rest / size, index = rest - next * size;
      at_x += index * I(layout.strides[0][axis]);
      at_y += index * I(layout.strides[1][axis]);
      if (INPUTS > 2) at_z += index * I(layout.strides[2][axis]);
      rest = next;
    }
    at_x += rest * I(layout.strides[0][0]);
    at_y += rest * I(layout.strides[1][0]);
#if INPUTS > 2
    at_z += rest * I(layout.strides[2][0]);
    out[at] = value_of(x[at_x], y[at_y], z[at_z]);
#else
    out[at] = value_of(x[at_x], y[at_y], x[at_x]);
#endif
  }
}

// Operands that are repeated along some of the result's dimensions.
KERNEL(map_broadcast, O* out, const X0* x, const X1* y, const X2* z, i64 n, Layout layout) {
  if (n < (1LL << 31)) map_over<u32>(out, x, y, z, n, layout);
  else map_over<u64>(out, x, y, z, n, layout);
}
#endif
