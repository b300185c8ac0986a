// Uniform and normal numbers of the generator's words.

// Element `i` of a group of uniform numbers, of the low bits that fill the mantissa.
DEVICE float uniform(const u32* words, int i, const float*) { return uniform_float(words[i]); }
DEVICE double uniform(const u32* words, int i, const double*) { return uniform_double(words[2 * i], words[2 * i + 1]); }
DEVICE f16 uniform(const u32* words, int i, const f16*) { return f16(float(words[i] & 0x3FF) * 0.0009765625f); }
DEVICE bf16 uniform(const u32* words, int i, const bf16*) { return bf16(float(words[i] & 0x7F) * 0.0078125f); }

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

