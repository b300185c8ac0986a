// What every kernel source begins with: the names of element types, the shape of a kernel, and reductions in a fixed order.
//
// The same text is compiled by NVRTC for a GPU and, behind `emulator.h`, by the host's C++ compiler, where a kernel's logic
// is tested without a GPU. So a source includes nothing and uses what is declared here.
//
// Two kinds of kernels:
//
//     KERNEL(name, parameters...) { ... }                  no thread waits for another
//     BLOCK_KERNEL(name, THREADS, parameters...) { ... }   blocks of THREADS threads that wait with sync_threads()
//
// What a kernel is made for is defined between this text and its own (`#define T f16`); `Compute<T>::type` is what to calculate in.

typedef signed char i8;
typedef short i16;
typedef int i32;
typedef long long i64;
typedef unsigned char u8;
typedef unsigned short u16;
typedef unsigned int u32;
typedef unsigned long long u64;

// A word of 16 bytes, for what is moved and not calculated with.
struct alignas(16) u128 {
  u64 halves[2];
};

#ifndef GRAPH_EMULATOR
#define DEVICE __device__ __forceinline__
#define SHARED __shared__
#define KERNEL(name, ...) extern "C" __global__ void name(__VA_ARGS__)
#define BLOCK_KERNEL(name, threads, ...) extern "C" __global__ void __launch_bounds__(threads) name(__VA_ARGS__)
DEVICE void sync_threads() { __syncthreads(); }
template <class A>
DEVICE A shuffle_xor(A value, int mask) {
  return __shfl_xor_sync(0xffffffffu, value, mask);
}
DEVICE float half_to_float(u16 bits) {
  float value;
  asm("cvt.f32.f16 %0, %1;" : "=f"(value) : "h"(bits));
  return value;
}
DEVICE u16 float_to_half(float value) {
  u16 bits;
  asm("cvt.rn.f16.f32 %0, %1;" : "=h"(bits) : "f"(value));
  return bits;
}
DEVICE u32 float_bits(float value) { return __float_as_uint(value); }
DEVICE float bits_float(u32 bits) { return __uint_as_float(bits); }
DEVICE u64 double_bits(double value) { return u64(__double_as_longlong(value)); }
DEVICE double bits_double(u64 bits) { return __longlong_as_double(i64(bits)); }
// The upper half of the product.
DEVICE u32 multiply_high(u32 x, u32 y) { return __umulhi(x, y); }
// The product, rounded before anything is added to it.
DEVICE float rounded_product(float x, float y) { return __fmul_rn(x, y); }
DEVICE double rounded_product(double x, double y) { return __dmul_rn(x, y); }
#endif

// IEEE half precision: 16 bits in memory, calculated in float.
struct f16 {
  u16 bits;
  f16() = default;
  DEVICE f16(float value) : bits(float_to_half(value)) {}
  DEVICE operator float() const { return half_to_float(bits); }
};

// The upper half of a float.
struct bf16 {
  u16 bits;
  bf16() = default;
  DEVICE bf16(float value) {
    u32 all = float_bits(value);
    // Rounds to the nearest, ties to even; a NaN keeps a bit of its payload.
    bits = value != value ? u16(all >> 16 | 0x40) : u16((all + 0x7fff + (all >> 16 & 1)) >> 16);
  }
  DEVICE operator float() const { return bits_float(u32(bits) << 16); }
};

// What elements of type T are calculated in.
template <class T>
struct Compute {
  typedef T type;
};
template <>
struct Compute<f16> {
  typedef float type;
};
template <>
struct Compute<bf16> {
  typedef float type;
};

// What sums of elements of type T are kept in.
template <class T>
struct Accumulate {
  typedef typename Compute<T>::type type;
};

// Goes over [0, n) with all threads of the grid.
#define GRID_LOOP(i, n) \
  for (i64 i = (i64)blockIdx.x * blockDim.x + threadIdx.x; i < (n); i += (i64)gridDim.x * blockDim.x)

DEVICE float not_a_number() { return bits_float(0x7fc00000u); }
template <class A>
DEVICE bool is_nan(A x) {
  return x != x;
}
template <class A>
DEVICE bool is_finite(A x) {
  return x - x == x - x;
}
template <class A>
DEVICE bool is_infinite(A x) {
  return !is_nan(x) && !is_finite(x);
}

struct Add {
  template <class A>
  static DEVICE A apply(A x, A y) {
    return x + y;
  }
};
struct Multiply {
  template <class A>
  static DEVICE A apply(A x, A y) {
    return x * y;
  }
};
// As in the CPU's kernels, a NaN on either side is kept.
struct Maximum {
  template <class A>
  static DEVICE A apply(A x, A y) {
    return x > y || is_nan(x) ? x : y;
  }
};
struct Minimum {
  template <class A>
  static DEVICE A apply(A x, A y) {
    return x < y || is_nan(x) ? x : y;
  }
};

// Reduces one value of each of the 32 threads of a warp, for all of them, always in the same order. All threads of the warp
// must take part.
template <class Operation, class A>
DEVICE A reduce_warp(A value) {
  for (int mask = 16; mask > 0; mask >>= 1) value = Operation::apply(value, shuffle_xor(value, mask));
  return value;
}

// Reduces one value of each thread of a block of THREADS (a multiple of 32, at most 1024) threads, for all of them, always in
// the same order. All threads of the block must take part; they have waited for each other when it returns.
template <class Operation, int THREADS, class A>
DEVICE A reduce_block(A value) {
  SHARED A of_warps[THREADS / 32];
  value = reduce_warp<Operation>(value);
  if (threadIdx.x % 32 == 0) of_warps[threadIdx.x / 32] = value;
  sync_threads();
  A total = of_warps[0];
  for (int warp = 1; warp < THREADS / 32; ++warp) total = Operation::apply(total, of_warps[warp]);
  // Before anyone writes to `of_warps` again.
  sync_threads();
  return total;
}
