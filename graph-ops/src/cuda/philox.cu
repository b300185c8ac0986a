// Random numbers in TensorFlow's streams: each group of four elements (two of 64-bit types) has a place of the generator of its own.
//
// Defined from outside: T, and the distribution: UNIFORM, NORMAL, TRUNCATED_NORMAL, UNIFORM_INT, or MASK, which compares uniform
// numbers with a threshold.

#define GROUP (sizeof(T) == 8 ? 2 : 4)
struct alignas(GROUP * sizeof(T)) Group {
  T of[GROUP];
};

#if defined(UNIFORM) || defined(MASK)
// Element `i` of a group of uniform numbers, of the low bits that fill the mantissa.
DEVICE float uniform(const u32* words, int i, const float*) { return uniform_float(words[i]); }
DEVICE double uniform(const u32* words, int i, const double*) { return uniform_double(words[2 * i], words[2 * i + 1]); }
DEVICE f16 uniform(const u32* words, int i, const f16*) { return f16(float(words[i] & 0x3FF) * 0.0009765625f); }
DEVICE bf16 uniform(const u32* words, int i, const bf16*) { return bf16(float(words[i] & 0x7F) * 0.0078125f); }
#endif

#if defined(NORMAL) || defined(TRUNCATED_NORMAL)
template <class X>
struct Normals {
  // Standard normals of two words by the Box-Muller transform, sine first. The functions are taken in `double` and rounded, so
  // that they are those of a host whose `float` functions are right to the last bit.
  static constexpr int WORDS = 2;
  typedef float Value;
  static DEVICE void draw(const u32* words, float* pair) {
    float u = uniform_float(words[0]);
    if (u < 1.0e-7f) u = 1.0e-7f;
    float angle = float(6.283185307179586 * double(uniform_float(words[1])));
    float radius = sqrt(-2.0f * float(log(double(u))));
    pair[0] = float(sin(double(angle))) * radius;
    pair[1] = float(cos(double(angle))) * radius;
  }
};
template <>
struct Normals<double> {
  static constexpr int WORDS = 4;
  typedef double Value;
  static DEVICE void draw(const u32* words, double* pair) {
    double u = uniform_double(words[0], words[1]);
    if (u < 1.0e-7) u = 1.0e-7;
    double angle = 6.283185307179586 * uniform_double(words[2], words[3]), radius = sqrt(-2.0 * log(u));
    pair[0] = sin(angle) * radius;
    pair[1] = cos(angle) * radius;
  }
};
#endif

#ifdef UNIFORM_INT
// A number that a random word and the bounds give; the lower bound where there is no number between them.
DEVICE i32 between(const u32* words, int i, i32 low, i32 high) {
  u32 range = low < high ? u32(high) - u32(low) : 1;
  return i32(u32(low) + words[i] % range);
}
DEVICE i64 between(const u32* words, int i, i64 low, i64 high) {
  u64 range = low < high ? u64(high) - u64(low) : 1, x = u64(words[2 * i + 1]) << 32 | words[2 * i];
  return i64(u64(low) + x % range);
}
#endif

// `low` and `high` are the bounds of integers; `low` is the threshold of a mask.
DEVICE Group group_of(const Parameters& parameters, u64 number, const T* low, const T* high) {
  Group group;
  u32 words[4];
#if defined(TRUNCATED_NORMAL)
  Philox generator(parameters, number * (64 * GROUP));
  for (int filled = 0; filled < GROUP;) {
    generator.next(words);
    for (int word = 0; word < 4; word += Normals<T>::WORDS) {
      typename Normals<T>::Value pair[2];
      Normals<T>::draw(words + word, pair);
      for (int i = 0; i < 2; ++i)
        if (abs(pair[i]) < 2 && filled < GROUP) group.of[filled++] = T(pair[i]);
    }
  }
#else
  Philox generator(parameters, number);
  generator.next(words);
#if defined(NORMAL)
  for (int word = 0; word < 4; word += Normals<T>::WORDS) {
    typename Normals<T>::Value pair[2];
    Normals<T>::draw(words + word, pair);
    for (int i = 0; i < 2; ++i) group.of[word * 2 / Normals<T>::WORDS + i] = T(pair[i]);
  }
#elif defined(UNIFORM_INT)
  for (int i = 0; i < GROUP; ++i) group.of[i] = between(words, i, *low, *high);
#elif defined(MASK)
  typedef typename Compute<T>::type C;
  for (int i = 0; i < GROUP; ++i) group.of[i] = T(C(uniform(words, i, (const T*)nullptr)) >= C(*low) ? C(1) : C(0));
#else
  for (int i = 0; i < GROUP; ++i) group.of[i] = uniform(words, i, (const T*)nullptr);
#endif
#endif
  return group;
}

KERNEL(fill, T* out, const Parameters* parameters, i64 n, const T* low, const T* high) {
  i64 groups = (n + GROUP - 1) / GROUP;
  GRID_LOOP(number, groups) {
    Group group = group_of(*parameters, u64(number), low, high);
    i64 begin = number * GROUP;
    if (begin + GROUP <= n) {
      *(Group*)(out + begin) = group;
    } else {
      for (i64 i = begin; i < n; ++i) out[i] = group.of[i - begin];
    }
  }
}
