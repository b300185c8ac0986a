// Products by tensor cores: a warp adds the product of a left matrix [16, 16] and a right one [16, 8] to sums [16, 8].
//
// Each thread holds some elements of each, where PTX's `mma.sync` wants them: of half types two terms in a register, of `float`,
// which is rounded to TensorFloat-32, one. The instruction for 16 terms of half types needs compute capability 8.0, the one for 8
// terms of f16 is there from 7.5 on and takes half of the registers at a time, and so does the one of TensorFloat-32, from 8.0 on.

DEVICE int lane() { return int(threadIdx.x) % 32; }

// Which elements the registers of a thread hold: the (first) term of each of the left matrix and of the right one.
template <class X>
struct Fragments {
  static constexpr int LEFT = 4, RIGHT = 2;
  static DEVICE int left_term(int r) { return lane() % 4 * 2 + r / 2 * 8; }
  static DEVICE int right_term(int r) { return lane() % 4 * 2 + r * 8; }
};
template <>
struct Fragments<float> {
  static constexpr int LEFT = 8, RIGHT = 4;
  static DEVICE int left_term(int r) { return lane() % 4 + r / 2 * 4; }
  static DEVICE int right_term(int r) { return lane() % 4 + r * 4; }
};

// The row of the left matrix in register `r`, and the column of the right one in all registers.
DEVICE int left_row(int r) { return lane() / 4 + r % 2 * 8; }
DEVICE int right_column() { return lane() / 4; }

// Row and column of a thread's sum `i`.
DEVICE int sum_row(int i) { return lane() / 4 + i / 2 * 8; }
DEVICE int sum_column(int i) { return lane() % 4 * 2 + i % 2; }

#ifndef GRAPH_EMULATOR
DEVICE f16 for_tensor_cores(f16 value) { return value; }
DEVICE bf16 for_tensor_cores(bf16 value) { return value; }
DEVICE float for_tensor_cores(float value) {
  u32 bits = 0;
#if __CUDA_ARCH__ >= 800
  asm("cvt.rna.tf32.f32 %0, %1;" : "=r"(bits) : "f"(value));
#endif
  return bits_float(bits);
}

#define SUMS "+f"(sums[0]), "+f"(sums[1]), "+f"(sums[2]), "+f"(sums[3])
#define MMA(shape_and_types, registers, ...) \
  asm volatile("mma.sync.aligned." shape_and_types " {%0, %1, %2, %3}, " registers ", {%0, %1, %2, %3};" : SUMS : __VA_ARGS__)

DEVICE void multiply_add(float (&sums)[4], const u32 (&left)[4], const u32 (&right)[2], f16) {
#if __CUDA_ARCH__ >= 800
  MMA("m16n8k16.row.col.f32.f16.f16.f32", "{%4, %5, %6, %7}, {%8, %9}", "r"(left[0]), "r"(left[1]), "r"(left[2]), "r"(left[3]),
      "r"(right[0]), "r"(right[1]));
#else
#pragma unroll
  for (int k = 0; k < 2; ++k)
    MMA("m16n8k8.row.col.f32.f16.f16.f32", "{%4, %5}, {%6}", "r"(left[2 * k]), "r"(left[2 * k + 1]), "r"(right[k]));
#endif
}
#if __CUDA_ARCH__ >= 800
DEVICE void multiply_add(float (&sums)[4], const u32 (&left)[4], const u32 (&right)[2], bf16) {
  MMA("m16n8k16.row.col.f32.bf16.bf16.f32", "{%4, %5, %6, %7}, {%8, %9}", "r"(left[0]), "r"(left[1]), "r"(left[2]),
      "r"(left[3]), "r"(right[0]), "r"(right[1]));
}
DEVICE void multiply_add(float (&sums)[4], const u32 (&left)[8], const u32 (&right)[4], float) {
#pragma unroll
  for (int k = 0; k < 2; ++k)
    MMA("m16n8k8.row.col.f32.tf32.tf32.f32", "{%4, %5, %6, %7}, {%8, %9}", "r"(left[4 * k]), "r"(left[4 * k + 1]),
        "r"(left[4 * k + 2]), "r"(left[4 * k + 3]), "r"(right[2 * k]), "r"(right[2 * k + 1]));
}
#endif
#else
DEVICE f16 for_tensor_cores(f16 value) { return value; }
DEVICE bf16 for_tensor_cores(bf16 value) { return value; }
// To the nearest of 10 bits, ties away from zero.
DEVICE float for_tensor_cores(float value) {
  return is_finite(value) ? bits_float((float_bits(value) + 0x1000u) & ~0x1fffu) : value;
}

// Where an element is: the thread, the register, and which of the terms in that.
struct Held {
  int lane, r, part;
};
DEVICE Held held_left(int row, int term, f16) { return {row % 8 * 4 + term % 8 / 2, row / 8 + term / 8 * 2, term % 2}; }
DEVICE Held held_right(int term, int column, f16) { return {column * 4 + term % 8 / 2, term / 8, term % 2}; }
DEVICE Held held_left(int row, int term, float) { return {row % 8 * 4 + term % 4, row / 8 + term / 4 * 2, 0}; }
DEVICE Held held_right(int term, int column, float) { return {column * 4 + term % 4, term / 4, 0}; }
DEVICE Held held_left(int row, int term, bf16) { return held_left(row, term, f16()); }
DEVICE Held held_right(int term, int column, bf16) { return held_right(term, column, f16()); }

DEVICE float number_in(u32 bits, int part, f16) { return half_to_float(u16(bits >> 16 * part)); }
DEVICE float number_in(u32 bits, int part, bf16) { return bits_float(bits >> 16 * part << 16); }
DEVICE float number_in(u32 bits, int, float) { return bits_float(bits); }

template <class X, int LEFT, int RIGHT>
DEVICE void multiply_add(float (&sums)[4], const u32 (&left)[LEFT], const u32 (&right)[RIGHT], X type) {
  struct Registers {
    u32 left[LEFT], right[RIGHT];
  } mine;
  for (int r = 0; r < LEFT; ++r) mine.left[r] = left[r];
  for (int r = 0; r < RIGHT; ++r) mine.right[r] = right[r];
  exchange(mine, [&](const auto& of_lane) {
    for (int i = 0; i < 4; ++i)
      for (int term = 0; term < 16; ++term) {
        Held x = held_left(sum_row(i), term, type), y = held_right(term, sum_column(i), type);
        sums[i] += number_in(of_lane(x.lane).left[x.r], x.part, type) * number_in(of_lane(y.lane).right[y.r], y.part, type);
      }
  });
}
#endif
