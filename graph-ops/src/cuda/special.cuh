// Special functions in double precision, by the formulas of the CPU's (`cpu/special.rs`, `cpu/incomplete.rs`, `cpu/bessel.rs`).

#define EPSILON 2.220446049250313e-16
#define PI 3.14159265358979323846

DEVICE double infinite() { return double(bits_float(0x7f800000u)); }
DEVICE double undefined() { return double(not_a_number()); }
DEVICE double magnitude(double x) { return x < 0.0 ? -x : x; }

// The digamma function, the derivative of lgamma; not a number at zero and the negative integers.
DEVICE double digamma(double x) {
  double reflection = 0.0;
  if (x <= 0.0) {
    if (floor(x) == x) return undefined();
    // psi(1 - x) - psi(x) = pi cot(pi x), with the nearest integer taken away first.
    double part = x - floor(x + 0.5);
    reflection = PI / tan(PI * part);
    x = 1.0 - x;
  }
  double sum = 0.0;
  while (x < 10.0) {
    sum += 1.0 / x;
    x += 1.0;
  }
  double z = 1.0 / (x * x), tail = 0.0;
  if (x < 1e17) {
    double p = 8.33333333333333333333e-2;
    p = p * z - 2.10927960927960927961e-2;
    p = p * z + 7.57575757575757575758e-3;
    p = p * z - 4.16666666666666666667e-3;
    p = p * z + 3.96825396825396825397e-3;
    p = p * z - 8.33333333333333333333e-3;
    p = p * z + 8.33333333333333333333e-2;
    tail = z * p;
  }
  return log(x) - 0.5 / x - tail - sum - reflection;
}

// The Hurwitz zeta function, the sum of (k + q)^-x over k >= 0: the first terms, then the Euler-Maclaurin formula.
DEVICE double zeta(double x, double q) {
  // (2k)! / B2k
  const double corrections[12] = {12.0,
                                  -720.0,
                                  30240.0,
                                  -1209600.0,
                                  47900160.0,
                                  -1.8924375803183791606e9,
                                  7.471218740478976e10,
                                  -2.950130727918164416e12,
                                  1.1646782814350067246e14,
                                  -4.5979787224074726128e15,
                                  1.8152105401943546439e17,
                                  -7.16616525617566701e18};
  if (x == 1.0) return infinite();
  if (!(x >= 1.0) || is_nan(q)) return undefined();
  if (q <= 0.0) {
    // A pole, or a power of a negative number with a real exponent.
    if (q == floor(q) && fmod(x, 2.0) == 0.0) return infinite();
    if (x != floor(x) || q == floor(q)) return undefined();
  }
  double sum = pow(q, -x), at = q, term = 0.0;
  for (int count = 0; count < 9 || at <= 9.0; ++count) {
    at += 1.0;
    term = pow(at, -x);
    sum += term;
    if (magnitude(term / sum) < EPSILON / 2.0) return sum;
  }
  sum += term * at / (x - 1.0) - 0.5 * term;
  double factor = 1.0, k = 0.0;
  for (int next = 0; next < 12; ++next) {
    factor *= x + k;
    term /= at;
    double t = factor * term / corrections[next];
    sum += t;
    if (magnitude(t / sum) < EPSILON / 2.0) return sum;
    k += 1.0;
    factor *= x + k;
    term /= at;
    k += 1.0;
  }
  return sum;
}

// Derivative n of digamma, for a whole n.
DEVICE double polygamma(double n, double x) {
  if (!(floor(n) == n) || n < 0.0) return undefined();
  if (n == 0.0) return digamma(x);
  double sign = fmod(n, 2.0) == 0.0 ? -1.0 : 1.0;
  return sign * exp(lgamma(n + 1.0)) * zeta(n + 1.0, x);
}

// x^a e^-x / gamma(a)
DEVICE double gamma_factor(double a, double x) { return exp(a * log(x) - x - lgamma(a)); }

// The power series of the lower function.
DEVICE double lower_gamma(double a, double x) {
  double factor = gamma_factor(a, x);
  if (factor == 0.0) return 0.0;
  double r = a, term = 1.0, sum = 1.0;
  for (int count = 0; count < 2000; ++count) {
    r += 1.0;
    term *= x / r;
    sum += term;
    if (term <= sum * EPSILON) break;
  }
  return sum * factor / a;
}

// The continued fraction of the upper function.
DEVICE double upper_gamma(double a, double x) {
  const double large = 4503599627370496.0;
  double factor = is_infinite(x) ? 0.0 : gamma_factor(a, x);
  if (factor == 0.0) return 0.0;
  double y = 1.0 - a, z = x + 2.0 - a, c = 0.0;
  double p2 = 1.0, q2 = x, p1 = x + 1.0, q1 = z * x, value = p1 / q1;
  for (int count = 0; count < 2000; ++count) {
    c += 1.0;
    y += 1.0;
    z += 2.0;
    double p = p1 * z - p2 * y * c, q = q1 * z - q2 * y * c, change = 1.0;
    if (q != 0.0) {
      double next = p / q;
      change = magnitude((value - next) / next);
      value = next;
    }
    p2 = p1;
    p1 = p;
    q2 = q1;
    q1 = q;
    if (magnitude(p) > large) {
      p2 /= large;
      p1 /= large;
      q2 /= large;
      q1 /= large;
    }
    if (change <= EPSILON) break;
  }
  return value * factor;
}

// The regularized lower incomplete gamma function P(a, x).
DEVICE double igamma(double a, double x) {
  if (x == 0.0 && a >= 0.0) return 0.0;
  if (!(x >= 0.0) || !(a > 0.0)) return undefined();
  return x > 1.0 && x > a ? 1.0 - upper_gamma(a, x) : lower_gamma(a, x);
}

// The regularized upper one, Q(a, x) = 1 - P(a, x).
DEVICE double igammac(double a, double x) {
  if (!(x >= 0.0) || !(a > 0.0)) return undefined();
  if (x < 1.0 || x < a) return x == 0.0 ? 1.0 : 1.0 - lower_gamma(a, x);
  return upper_gamma(a, x);
}

// How a sample of the gamma distribution of order a moves with a where its probability stays (Figurnov, Mohamed, Mnih, 2018).
DEVICE double gamma_sample_derivative(double a, double x) {
  const double large = 4503599627370496.0;
  if (!(a > 0.0) || !(x >= 0.0) || is_infinite(x)) return undefined();
  if (x == 0.0) return 0.0;
  if (x <= 1.0 || x <= a) {
    double sum = 1.0, slope = 0.0, term = 1.0, rate = 0.0;
    for (int n = 1; n < 10000; ++n) {
      double divisor = a + n;
      term *= x / divisor;
      rate -= 1.0 / divisor;
      sum += term;
      slope += term * rate;
      if (term <= EPSILON * sum && magnitude(term * rate) <= EPSILON * magnitude(slope)) break;
    }
    return -x / a * (sum * (log(x) - digamma(a + 1.0)) + slope);
  }
  double y = 1.0 - a, z = x + 2.0 - a;
  // Numerators, denominators and their derivatives: of the last step, and of the one before it.
  double p1 = x + 1.0, q1 = z * x, dp1 = 0.0, dq1 = -x, p2 = 1.0, q2 = x, dp2 = 0.0, dq2 = 0.0;
  double value = p1 / q1, slope = (dp1 - value * dq1) / q1;
  for (int c = 1; c < 10000; ++c) {
    y += 1.0;
    z += 2.0;
    double yc = y * c;
    double p = p1 * z - p2 * yc, q = q1 * z - q2 * yc;
    double dp = dp1 * z - p1 - dp2 * yc + p2 * c, dq = dq1 * z - q1 - dq2 * yc + q2 * c;
    p2 = p1;
    q2 = q1;
    dp2 = dp1;
    dq2 = dq1;
    p1 = p;
    q1 = q;
    dp1 = dp;
    dq1 = dq;
    if (magnitude(p) > large) {
      p1 /= large;
      q1 /= large;
      dp1 /= large;
      dq1 /= large;
      p2 /= large;
      q2 /= large;
      dp2 /= large;
      dq2 /= large;
    }
    if (q1 == 0.0) continue;
    double next = p1 / q1, next_slope = (dp1 - next * dq1) / q1;
    bool done = magnitude(next - value) <= EPSILON * magnitude(next) &&
                magnitude(next_slope - slope) <= EPSILON * magnitude(next_slope);
    value = next;
    slope = next_slope;
    if (done) break;
  }
  return x * (value * (log(x) - digamma(a)) + slope);
}

// dP(a, x)/da
DEVICE double igamma_derivative(double a, double x) {
  // Both factors have a limit at 0, and their product's is 0.
  if (x == 0.0 && a > 0.0) return 0.0;
  return -gamma_sample_derivative(a, x) * exp((a - 1.0) * log(x) - x - lgamma(a));
}

DEVICE double away_from_zero(double x) { return magnitude(x) < 1e-300 ? 1e-300 : x; }

DEVICE double beta_fraction(double a, double b, double x) {
  double c = 1.0, d = 1.0 / away_from_zero(1.0 - (a + b) * x / (a + 1.0)), fraction = d;
  for (int m = 1; m < 10000; ++m) {
    double even = m * (b - m) * x / ((a + 2.0 * m - 1.0) * (a + 2.0 * m));
    double odd = -(a + m) * (a + b + m) * x / ((a + 2.0 * m) * (a + 2.0 * m + 1.0));
    double step = 1.0;
    for (int turn = 0; turn < 2; ++turn) {
      double coefficient = turn == 0 ? even : odd;
      d = 1.0 / away_from_zero(1.0 + coefficient * d);
      c = away_from_zero(1.0 + coefficient / c);
      step = c * d;
      fraction *= step;
    }
    if (magnitude(step - 1.0) <= EPSILON) break;
  }
  return fraction;
}

// The regularized incomplete beta function I_x(a, b), by its continued fraction.
DEVICE double betainc(double a, double b, double x) {
  if (!(a > 0.0) || !(b > 0.0) || !(x >= 0.0 && x <= 1.0)) return undefined();
  if (x == 0.0 || x == 1.0) return x;
  double front = exp(lgamma(a + b) - lgamma(a) - lgamma(b) + a * log(x) + b * log1p(-x));
  // The fraction converges fast below the mean; above it the function's symmetry helps.
  if (x < (a + 1.0) / (a + b + 2.0)) return front * beta_fraction(a, b, x) / a;
  return 1.0 - front * beta_fraction(b, a, 1.0 - x) / b;
}

// exp(-x) I_n(x) for n of 0 or 1 and x >= 0: the power series, and the asymptotic one where that is precise enough.
DEVICE double scaled_bessel(double n, double x) {
  if (is_nan(x)) return x;
  if (is_infinite(x)) return 0.0;
  double term = 1.0, sum = 0.0, k = 1.0;
  if (x <= 30.0) {
    double quarter = x * x / 4.0;
    while (term > EPSILON * 0.1 * sum) {
      sum += term;
      term *= quarter / (k * (k + n));
      k += 1.0;
    }
    return (n == 0.0 ? 1.0 : x / 2.0) * sum * exp(-x);
  }
  while (magnitude(term) > EPSILON * 0.1 && k < 30.0) {
    sum += term;
    double odd = 2.0 * k - 1.0;
    term *= -(4.0 * n * n - odd * odd) / (k * 8.0 * x);
    k += 1.0;
  }
  return sum / sqrt(2.0 * PI * x);
}

DEVICE double i0e(double x) { return scaled_bessel(0.0, magnitude(x)); }
DEVICE double i1e(double x) { return x < 0.0 ? -scaled_bessel(1.0, -x) : scaled_bessel(1.0, x); }
