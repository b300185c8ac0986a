// Random numbers in TensorFlow's streams: each group of four elements (two of 64-bit types) has a place of the generator of its own.
//
// Defined from outside: T, and the distribution: UNIFORM, NORMAL, TRUNCATED_NORMAL, UNIFORM_INT, or MASK, which compares uniform
// numbers with a threshold.

#define GROUP (sizeof(T) == 8 ? 2 : 4)
struct alignas(GROUP * sizeof(T)) Group {
  T of[GROUP];
};

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
#pragma unroll
      for (int i = 0; i < GROUP; ++i)
        if (begin + i < n) out[begin + i] = group.of[i];
    }
  }
}
