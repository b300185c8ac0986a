// The Philox4x32-10 generator (Salmon, Moraes, Dror, Shaw, 2011), and the uniform numbers that its words give.

// Where the run's numbers begin.
struct Parameters {
  u32 key[2];
  u32 counter[4];
};

struct Philox {
  u32 key[2];
  u32 counter[4];

  DEVICE Philox(const Parameters& from, u64 blocks) {
    for (int i = 0; i < 2; ++i) key[i] = from.key[i];
    for (int i = 0; i < 4; ++i) counter[i] = from.counter[i];
    skip(blocks);
  }
  DEVICE void skip(u64 blocks) {
    u64 low = u64(counter[1]) << 32 | counter[0], high = u64(counter[3]) << 32 | counter[2];
    u64 sum = low + blocks;
    high += sum < low;
    counter[0] = u32(sum);
    counter[1] = u32(sum >> 32);
    counter[2] = u32(high);
    counter[3] = u32(high >> 32);
  }
  // The block of words here; moves on to the next.
  DEVICE void next(u32 (&words)[4]) {
    u32 k0 = key[0], k1 = key[1];
    for (int i = 0; i < 4; ++i) words[i] = counter[i];
#pragma unroll
    for (int round = 0; round < 10; ++round) {
      u32 high0 = multiply_high(words[0], 0xD2511F53u), low0 = words[0] * 0xD2511F53u;
      u32 high1 = multiply_high(words[2], 0xCD9E8D57u), low1 = words[2] * 0xCD9E8D57u;
      words[0] = high1 ^ words[1] ^ k0;
      words[1] = low1;
      words[2] = high0 ^ words[3] ^ k1;
      words[3] = low0;
      k0 += 0x9E3779B9u;
      k1 += 0xBB67AE85u;
    }
    skip(1);
  }
};

// `U[0, 1)` with 23, or 52, random bits.
DEVICE float uniform_float(u32 x) { return float(x & 0x7FFFFF) * 1.1920928955078125e-7f; }
DEVICE double uniform_double(u32 x0, u32 x1) {
  return double(u64(x0 & 0xFFFFF) << 32 | x1) * 2.220446049250313e-16;
}

#ifdef SEED
// The place that two seeds of type SEED lead to, mixed so that any two numbers are good seeds.
KERNEL(mix_seeds, Parameters* to, const SEED* seeds) {
  u64 first = u64(i64(seeds[0])), second = u64(i64(seeds[1]));
  Parameters from = {{0x3ec8f720u, 0x02461e29u}, {u32(first), u32(first >> 32), u32(second), u32(second >> 32)}};
  u32 words[4];
  Philox(from, 0).next(words);
  if (blockIdx.x == 0 && threadIdx.x == 0) *to = {{words[0], words[1]}, {0, 0, words[2], words[3]}};
}
#endif
