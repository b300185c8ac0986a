// A GPU's programming model on one thread of the host, for the sources that begin with `prelude.cuh`.
//
// A kernel becomes a C function `name(grid, block, arguments)`, which runs the blocks of the grid one after the
// other. The threads of a block are fibers that take turns: each runs until it waits for the others. What a GPU leaves
// undefined ends the program with a message: a barrier that some threads of a block reach while others have ended, or a
// shuffle that part of a warp does not reach. Threads take their turns in both orders, one grid after the other, so that a
// missing barrier shows as a difference.
// C's headers alone: each kernel source is compiled with all of this.
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <ucontext.h>

#define GRAPH_EMULATOR 1
#define DEVICE inline
#define SHARED static
#define __device__
#define __forceinline__ inline
#define __restrict__ __restrict
#define __ldg(pointer) (*(pointer))

struct Dim3 {
  unsigned x, y, z;
};
static Dim3 gridDim, blockDim, blockIdx, threadIdx;

namespace emulator {

enum Waits { RUNS, FOR_BLOCK, FOR_WARP, ENDED };

struct Fiber {
  ucontext_t context;
  Dim3 index;
  Waits waits;
  char* stack;
  unsigned char given[48];
};

struct Block {
  Fiber* fibers = nullptr;
  ucontext_t scheduler;
  Fiber* current = nullptr;
  void (*body)(void*) = nullptr;
  void* closure = nullptr;
};
static Block block;

[[noreturn]] static void misuse(const char* what) {
  fprintf(stderr, "emulated kernel: %s (block %u %u %u)\n", what, blockIdx.x, blockIdx.y, blockIdx.z);
  __builtin_abort();
}

static void wait(Waits waits) {
  Fiber* me = block.current;
  if (me == nullptr) misuse("a KERNEL waits for other threads; it must be a BLOCK_KERNEL");
  me->waits = waits;
  swapcontext(&me->context, &block.scheduler);
}

// The place of the running thread in its warp.
static int lane() { return int((block.current - block.fibers) % 32); }

static void enter() {
  block.body(block.closure);
  block.current->waits = ENDED;
  swapcontext(&block.current->context, &block.scheduler);
}

static void resume(Fiber& fiber) {
  block.current = &fiber;
  threadIdx = fiber.index;
  fiber.waits = RUNS;
  swapcontext(&block.scheduler, &fiber.context);
  block.current = nullptr;
}

// Runs the threads of one block to their ends; `backward` turns their order.
static void run_block(size_t threads, bool backward) {
  constexpr size_t STACK = 64 << 10, WARP = 32, MOST_THREADS = 1024;
  if (block.fibers == nullptr) {
    // As many as a block may have, for good; memory that is not touched costs nothing.
    block.fibers = static_cast<Fiber*>(__builtin_calloc(MOST_THREADS, sizeof(Fiber)));
    if (block.fibers == nullptr) misuse("there is no memory for threads");
  }
  for (size_t at = 0; at < threads; ++at) {
    Fiber& fiber = block.fibers[at];
    if (fiber.stack == nullptr) fiber.stack = static_cast<char*>(__builtin_malloc(STACK));
    if (fiber.stack == nullptr) misuse("there is no memory for a thread's stack");
    getcontext(&fiber.context);
    fiber.context.uc_stack.ss_sp = fiber.stack;
    fiber.context.uc_stack.ss_size = STACK;
    fiber.context.uc_link = nullptr;
    makecontext(&fiber.context, enter, 0);
    unsigned rest = unsigned(at);
    fiber.index = {rest % blockDim.x, rest / blockDim.x % blockDim.y, rest / blockDim.x / blockDim.y};
    fiber.waits = FOR_BLOCK;
  }
  size_t warps = (threads + WARP - 1) / WARP;
  for (;;) {
    for (size_t turn = 0; turn < warps; ++turn) {
      size_t warp = backward ? warps - 1 - turn : turn;
      size_t begin = warp * WARP, end = begin + WARP < threads ? begin + WARP : threads;
      for (Waits next = FOR_BLOCK;; next = FOR_WARP) {
        size_t shuffling = 0, others = 0;
        for (size_t at = begin; at < end; ++at) {
          Fiber& fiber = block.fibers[backward ? begin + end - 1 - at : at];
          if (fiber.waits == next) resume(fiber);
          if (fiber.waits == FOR_WARP) ++shuffling;
          else ++others;
        }
        if (shuffling == 0) break;
        if (others != 0 || end - begin != WARP) misuse("a shuffle that not all threads of a warp reach");
      }
    }
    size_t ended = 0;
    for (size_t at = 0; at < threads; ++at) ended += block.fibers[at].waits == ENDED;
    if (ended == threads) return;
    if (ended != 0) misuse("a barrier that not all threads of a block reach");
  }
}

template <size_t...>
struct Numbers {};
template <class... Parameters, size_t... NUMBER>
static void call(void (*kernel)(Parameters...), void** arguments, Numbers<NUMBER...>) {
  kernel(*static_cast<Parameters*>(arguments[NUMBER])...);
}

// Runs a grid; `waiting` says whether threads wait for each other.
template <class... Parameters>
static void launch(void (*kernel)(Parameters...), bool waiting, const unsigned* grid, const unsigned* threads, void** arguments) {
  static bool backward = false;
  backward = !backward;
  gridDim = {grid[0], grid[1], grid[2]};
  blockDim = {threads[0], threads[1], threads[2]};
  auto body = [&] { call(kernel, arguments, Numbers<__integer_pack(sizeof...(Parameters))...>{}); };
  block.closure = &body;
  block.body = [](void* closure) { (*static_cast<decltype(body)*>(closure))(); };
  size_t count = size_t(threads[0]) * threads[1] * threads[2];
  for (unsigned z = 0; z < grid[2]; ++z)
    for (unsigned y = 0; y < grid[1]; ++y)
      for (unsigned x = 0; x < grid[0]; ++x) {
        blockIdx = {x, y, z};
        if (waiting) {
          run_block(count, backward);
          continue;
        }
        for (size_t at = 0; at < count; ++at) {
          unsigned thread = unsigned(backward ? count - 1 - at : at);
          threadIdx = {thread % blockDim.x, thread / blockDim.x % blockDim.y, thread / blockDim.x / blockDim.y};
          body();
        }
      }
}

}  // namespace emulator

// Everything else is hidden: libraries of kernels that are made for other types or sizes have functions, and shared memory, of
// the same names.
#define EXPORTED __attribute__((visibility("default")))
#define EMULATED_KERNEL(name, waiting, ...)                                                                              \
  static void name##_body(__VA_ARGS__);                                                                                  \
  extern "C" EXPORTED void name(const unsigned* grid, const unsigned* threads, void** arguments) {                       \
    emulator::launch(name##_body, waiting, grid, threads, arguments);                                                    \
  }                                                                                                                      \
  static void name##_body(__VA_ARGS__)
#define KERNEL(name, ...) EMULATED_KERNEL(name, false, __VA_ARGS__)
#define BLOCK_KERNEL(name, count, ...) EMULATED_KERNEL(name, true, __VA_ARGS__)

static inline void sync_threads() { emulator::wait(emulator::FOR_BLOCK); }

// Calls `body` when all threads of the warp have given a value; it may ask for that of each lane.
template <class A, class Body>
static inline void exchange(const A& value, const Body& body) {
  static_assert(sizeof(A) <= sizeof(emulator::Fiber::given), "");
  emulator::Fiber* me = emulator::block.current;
  if (me == nullptr) emulator::misuse("a KERNEL shuffles; it must be a BLOCK_KERNEL");
  memcpy(me->given, &value, sizeof value);
  emulator::wait(emulator::FOR_WARP);
  emulator::Fiber* first = me - emulator::lane();
  body([&](int lane) {
    A other;
    memcpy(&other, first[lane].given, sizeof other);
    return other;
  });
  // All have read before one gives again.
  emulator::wait(emulator::FOR_WARP);
}

template <class A>
static inline A shuffle_xor(A value, int mask) {
  A other;
  exchange(value, [&](const auto& of_lane) { other = of_lane(emulator::lane() ^ mask); });
  return other;
}

// Additions of integers to one place by many threads; their order does not matter.
template <class A>
static inline A atomicAdd(A* place, A value) {
  A before = *place;
  *place += value;
  return before;
}

static inline unsigned float_bits(float value) {
  unsigned bits;
  memcpy(&bits, &value, 4);
  return bits;
}
static inline float bits_float(unsigned bits) {
  float value;
  memcpy(&value, &bits, 4);
  return value;
}
static inline unsigned long long double_bits(double value) {
  unsigned long long bits;
  memcpy(&bits, &value, 8);
  return bits;
}
static inline double bits_double(unsigned long long bits) {
  double value;
  memcpy(&value, &bits, 8);
  return value;
}
static inline float rounded_product(float x, float y) { return x * y; }
static inline double rounded_product(double x, double y) { return x * y; }
static inline unsigned multiply_high(unsigned x, unsigned y) {
  return unsigned((unsigned long long)x * y >> 32);
}
static inline float half_to_float(unsigned short bits) {
  unsigned sign = unsigned(bits & 0x8000) << 16, exponent = bits >> 10 & 31, fraction = bits & 0x3ff;
  if (exponent == 31) return bits_float(sign | 0x7f800000u | fraction << 13);
  if (exponent != 0) return bits_float(sign | (exponent + 112) << 23 | fraction << 13);
  float small = __builtin_ldexpf(float(fraction), -24);
  return sign != 0 ? -small : small;
}
static inline unsigned short float_to_half(float value) {
  unsigned bits = float_bits(value);
  unsigned sign = bits >> 16 & 0x8000, magnitude = bits & 0x7fffffff;
  if (magnitude > 0x7f800000) return (unsigned short)(sign | 0x7e00);
  if (magnitude >= 0x477ff000) return (unsigned short)(sign | 0x7c00);
  if (magnitude < 0x38800000) {
    // Below the smallest normal number: a multiple of 2^-24, rounded to even.
    float scaled = __builtin_ldexpf(bits_float(magnitude), 24);
    return (unsigned short)(sign | unsigned(__builtin_nearbyintf(scaled)));
  }
  magnitude += 0xfff + (magnitude >> 13 & 1);
  return (unsigned short)(sign | (magnitude - 0x38000000) >> 13);
}

// CUDA's mathematics, for both types.
#define FUNCTION(name)                                                \
  static inline float name(float x) { return __builtin_##name##f(x); } \
  static inline double name(double x) { return __builtin_##name(x); }
#define FUNCTION_OF_TWO(name)                                                     \
  static inline float name(float x, float y) { return __builtin_##name##f(x, y); } \
  static inline double name(double x, double y) { return __builtin_##name(x, y); }
FUNCTION(acos)
FUNCTION(acosh)
FUNCTION(asin)
FUNCTION(asinh)
FUNCTION(atan)
FUNCTION_OF_TWO(atan2)
FUNCTION(atanh)
FUNCTION(ceil)
FUNCTION(cos)
FUNCTION(cosh)
FUNCTION(erf)
FUNCTION(erfc)
FUNCTION(exp)
FUNCTION(expm1)
FUNCTION(floor)
FUNCTION_OF_TWO(fmod)
FUNCTION(lgamma)
FUNCTION(log)
FUNCTION(log1p)
FUNCTION_OF_TWO(pow)
FUNCTION(rint)
FUNCTION(sin)
FUNCTION(sinh)
FUNCTION(sqrt)
FUNCTION(tan)
FUNCTION(tanh)
#undef FUNCTION
#undef FUNCTION_OF_TWO
static inline float abs(float x) { return __builtin_fabsf(x); }
static inline double abs(double x) { return __builtin_fabs(x); }
static inline long long abs(long long x) { return x < 0 ? -x : x; }
