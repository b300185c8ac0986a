// Normal numbers between bounds, by rejection, row by row on one stream of the generator (`cpu/random_truncated.rs` says how).
//
// Defined from outside: T, the numbers' type.
//
// Where a row's numbers begin in the stream depends on what the rows before it rejected. So there is one block, whose threads try
// as many places of the stream at once. What it keeps, in the stream's order, is what a single thread would.

#define THREADS 256

// Numbers that a block of the generator's words gives.
#define NUMBERS (sizeof(T) == 8 ? 2 : 4)

typedef typename Compute<T>::type C;

// Arithmetic in T: every result is rounded to it, as on the host.
struct Real {
  C x;
  Real() = default;
  DEVICE Real(C value) : x(C(T(value))) {}
};
DEVICE Real operator+(Real a, Real b) { return Real(a.x + b.x); }
DEVICE Real operator-(Real a, Real b) { return Real(a.x - b.x); }
DEVICE Real operator-(Real a) { return Real(-a.x); }
DEVICE Real operator*(Real a, Real b) { return Real(rounded_product(a.x, b.x)); }
DEVICE Real operator/(Real a, Real b) { return Real(a.x / b.x); }
DEVICE bool operator<(Real a, Real b) { return a.x < b.x; }
DEVICE bool operator<=(Real a, Real b) { return a.x <= b.x; }
DEVICE Real square_root(Real a) { return Real(C(sqrt(a.x))); }
// Taken in `double` and rounded, so that they are those of a host whose functions are right to the last bit.
DEVICE Real exponential(Real a) { return Real(C(exp(double(a.x)))); }
DEVICE Real logarithm(Real a) { return Real(C(log(double(a.x)))); }

DEVICE void draw_uniform(Philox& generator, Real* numbers) {
  u32 words[4];
  generator.next(words);
  for (int i = 0; i < NUMBERS; ++i) numbers[i] = Real(C(uniform(words, i, (const T*)nullptr)));
}

DEVICE void draw_normal(Philox& generator, Real* numbers) {
  u32 words[4];
  generator.next(words);
  constexpr int WORDS = Normals<T>::WORDS;
  for (int word = 0; word < 4; word += WORDS) {
    typename Normals<T>::Value pair[2];
    Normals<T>::draw(words + word, pair);
    for (int i = 0; i < 2; ++i) numbers[word * 2 / WORDS + i] = Real(C(pair[i]));
  }
}

struct Distribution {
  Real mean, deviation, low, high;
  // From a normal distribution, a uniform one, or an exponential one.
  enum { NONE, NORMAL, UNIFORM, EXPONENTIAL } from;

  DEVICE Distribution(Real mean, Real stddev, Real min, Real max) : mean(mean), deviation(stddev), from(NONE) {
    if (!(Real(0) < stddev && min < max && (is_finite(min.x) || is_finite(max.x)))) return;
    if ((is_infinite(min.x) && min < Real(0)) || max < mean) {
      // Mirrored, so that the finite bound, or the one next to the mean, is the lower one.
      Real other = min;
      min = max;
      max = other;
      deviation = -deviation;
    }
    low = (min - mean) / deviation;
    high = (max - mean) / deviation;
    Real root = square_root(low * low + Real(4));
    Real cutoff = Real(2) * exponential(Real(C(0.5)) + low * (low - root) / Real(4)) / (low + root);
    Real inside(C(1.3));
    if ((low < -inside && Real(0) <= high) || (inside < high && low <= Real(0)))
      from = NORMAL;
    else
      from = high - low < cutoff ? UNIFORM : EXPONENTIAL;
  }

  // Blocks of the generator's words that one try takes.
  DEVICE int blocks() const { return from == UNIFORM ? 2 : 1; }

  // One try: keeps the numbers that are accepted, and tells how many.
  DEVICE int draw(Philox generator, T* kept) const {
    Real numbers[4], chances[4];
    int count = 0;
    if (from == NORMAL) {
      draw_normal(generator, numbers);
      for (int i = 0; i < NUMBERS; ++i)
        if (low <= numbers[i] && numbers[i] <= high) kept[count++] = scaled(numbers[i]);
    } else if (from == UNIFORM) {
      draw_uniform(generator, numbers);
      draw_uniform(generator, chances);
      Real plus = low < Real(0) ? Real(0) : low * low, width = high - low;
      for (int i = 0; i < NUMBERS; ++i) {
        Real z = numbers[i] * width + low;
        if (chances[i] <= exponential((plus - z * z) / Real(2))) kept[count++] = scaled(z);
      }
    } else {
      draw_uniform(generator, numbers);
      Real alpha = (low + square_root(low * low + Real(4))) / Real(2);
      for (int i = 0; i < NUMBERS; i += 2) {
        Real z = -logarithm(numbers[i]) / alpha + low;
        Real x = low < alpha ? alpha - z : low - alpha;
        if (numbers[i + 1] <= exponential(-x * x / Real(2)) && z < high) kept[count++] = scaled(z);
      }
    }
    return count;
  }

  DEVICE T scaled(Real z) const { return T((z * deviation + mean).x); }
};

// Rows of `row` numbers, the last one maybe shorter; a parameter that is a vector has an element for each. Rows of parameters that
// make no sense, or with which next to nothing is accepted, become what is not a number.
BLOCK_KERNEL(bounded, THREADS, T* out, const T* means, const T* deviations, const T* mins, const T* maxs,
             const Parameters* place, i64 n, i64 row, i64 many_means, i64 many_deviations, i64 many_mins, i64 many_maxs) {
  SHARED i32 until[THREADS];
  SHARED i32 last;
  int thread = threadIdx.x;
  u64 used = 0;
  for (i64 number = 0; number * row < n; ++number) {
    C mean = C(means[many_means ? number : 0]), deviation = C(deviations[many_deviations ? number : 0]);
    C min = C(mins[many_mins ? number : 0]), max = C(maxs[many_maxs ? number : 0]);
    Distribution distribution(mean, deviation, min, max);
    T* to = out + number * row;
    i64 wanted = n - number * row < row ? n - number * row : row, filled = 0;
    int in_vain = distribution.from == Distribution::NONE ? 2 : 0;
    while (filled < wanted && in_vain < 2) {
      T kept[4];
      int blocks = distribution.blocks();
      int count = distribution.draw(Philox(*place, used + u64(thread) * blocks), kept);
      // How many all threads up to this one keep.
      until[thread] = count;
      if (thread == 0) last = THREADS - 1;
      sync_threads();
      for (int distance = 1; distance < THREADS; distance *= 2) {
        i32 before = thread >= distance ? until[thread - distance] : 0;
        sync_threads();
        until[thread] += before;
        sync_threads();
      }
      i64 begin = filled + until[thread] - count;
      for (int i = 0; i < count; ++i)
        if (begin + i < wanted) to[begin + i] = kept[i];
      // Behind the try that fills the row the next one begins.
      if (begin < wanted && begin + count >= wanted) last = thread;
      i32 total = until[THREADS - 1];
      sync_threads();
      used += u64(last + 1) * blocks;
      filled += total;
      in_vain = total == 0 ? in_vain + 1 : 0;
      sync_threads();
    }
    for (i64 at = filled + thread; at < wanted; at += THREADS) to[at] = T(C(not_a_number()));
  }
}
