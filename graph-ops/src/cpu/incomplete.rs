//! Derivatives of the incomplete gamma function with respect to its order, and the incomplete beta function.

use super::special::{digamma, lgamma};

/// Terms of a series or steps of a continued fraction, at most.
const MOST_TERMS: usize = 10_000;

/// Numerators and denominators of continued fractions are scaled down from here on.
const LARGE: f64 = 4_503_599_627_370_496.0;

/// How a sample of the gamma distribution of order `a` moves with `a` where its probability stays: `dx/da` for
/// `P(a, x) = const`, as in Figurnov, Mohamed and Mnih, "Implicit Reparameterization Gradients" (2018).
pub fn gamma_sample_derivative(a: f64, x: f64) -> f64 {
    if a.is_nan() || x.is_nan() || a <= 0.0 || x < 0.0 || x.is_infinite() {
        return f64::NAN;
    }
    if x == 0.0 {
        return 0.0;
    }
    // With the density p(x) = x^(a-1) e^-x / gamma(a): dx/da = -(dP/da) / p = (dQ/da) / p.
    if x <= 1.0 || x <= a {
        let (sum, slope) = lower_series(a, x);
        -x / a * (sum * (x.ln() - digamma(a + 1.0)) + slope)
    } else {
        let (fraction, slope) = upper_fraction(a, x);
        x * (fraction * (x.ln() - digamma(a)) + slope)
    }
}

/// `dP(a, x)/da` of the regularized lower incomplete gamma function.
pub fn igamma_derivative(a: f64, x: f64) -> f64 {
    let density = ((a - 1.0) * x.ln() - x - lgamma(a)).exp();
    match gamma_sample_derivative(a, x) {
        // Both factors have a limit at 0, and their product's is 0.
        _ if x == 0.0 && a > 0.0 => 0.0,
        derivative => -derivative * density,
    }
}

/// `S` and `dS/da` of `P(a, x) = x^a e^-x / gamma(a + 1) S`, where S is the sum of `x^n / ((a+1)...(a+n))`.
fn lower_series(a: f64, x: f64) -> (f64, f64) {
    let (mut sum, mut slope) = (1.0, 0.0);
    // The term, and its logarithmic derivative.
    let (mut term, mut rate) = (1.0, 0.0);
    for n in 1..MOST_TERMS {
        let divisor = a + n as f64;
        term *= x / divisor;
        rate -= divisor.recip();
        sum += term;
        slope += term * rate;
        if term <= f64::EPSILON * sum && (term * rate).abs() <= f64::EPSILON * slope.abs() {
            break;
        }
    }
    (sum, slope)
}

/// `F` and `dF/da` of `Q(a, x) = x^a e^-x / gamma(a) F`, where F is a continued fraction.
fn upper_fraction(a: f64, x: f64) -> (f64, f64) {
    let (mut y, mut z) = (1.0 - a, x + 2.0 - a);
    // Numerators, denominators and their derivatives: of the last step, and of the one before it.
    let (mut last, mut before) = ([x + 1.0, z * x, 0.0, -x], [1.0, x, 0.0, 0.0]);
    let value = |[p, q, dp, dq]: [f64; 4]| {
        let value = p / q;
        (value, (dp - value * dq) / q)
    };
    let mut result = value(last);
    for c in (1..MOST_TERMS).map(|c| c as f64) {
        y += 1.0;
        z += 2.0;
        let yc = y * c;
        let ([p1, q1, dp1, dq1], [p2, q2, dp2, dq2]) = (last, before);
        let next = [
            p1 * z - p2 * yc,
            q1 * z - q2 * yc,
            dp1 * z - p1 - dp2 * yc + p2 * c,
            dq1 * z - q1 - dq2 * yc + q2 * c,
        ];
        (before, last) = (last, next);
        if next[0].abs() > LARGE {
            last = last.map(|x| x / LARGE);
            before = before.map(|x| x / LARGE);
        }
        if last[1] == 0.0 {
            continue;
        }
        let improved = value(last);
        let close = |new: f64, old: f64| (new - old).abs() <= f64::EPSILON * new.abs();
        let done = close(improved.0, result.0) && close(improved.1, result.1);
        result = improved;
        if done {
            break;
        }
    }
    result
}

/// The regularized incomplete beta function `I_x(a, b)`, by its continued fraction (DLMF 8.17.22); NaN outside of `a, b > 0`
/// and `0 <= x <= 1`.
pub fn betainc(a: f64, b: f64, x: f64) -> f64 {
    if a.is_nan() || b.is_nan() || a <= 0.0 || b <= 0.0 || !(0.0..=1.0).contains(&x) {
        return f64::NAN;
    }
    if x == 0.0 || x == 1.0 {
        return x;
    }
    let front = (lgamma(a + b) - lgamma(a) - lgamma(b) + a * x.ln() + b * (-x).ln_1p()).exp();
    // The fraction converges fast below the mean; above it the function's symmetry helps.
    if x < (a + 1.0) / (a + b + 2.0) {
        front * beta_fraction(a, b, x) / a
    } else {
        1.0 - front * beta_fraction(b, a, 1.0 - x) / b
    }
}

fn beta_fraction(a: f64, b: f64, x: f64) -> f64 {
    const TINY: f64 = 1e-300;
    let away_from_zero = |x: f64| if x.abs() < TINY { TINY } else { x };
    let mut c = 1.0;
    let mut d = away_from_zero(1.0 - (a + b) * x / (a + 1.0)).recip();
    let mut fraction = d;
    for m in (1..MOST_TERMS).map(|m| m as f64) {
        let even = m * (b - m) * x / ((a + 2.0 * m - 1.0) * (a + 2.0 * m));
        let odd = -(a + m) * (a + b + m) * x / ((a + 2.0 * m) * (a + 2.0 * m + 1.0));
        let mut step = 1.0;
        for coefficient in [even, odd] {
            d = away_from_zero(1.0 + coefficient * d).recip();
            c = away_from_zero(1.0 + coefficient / c);
            step = c * d;
            fraction *= step;
        }
        if (step - 1.0).abs() <= f64::EPSILON {
            break;
        }
    }
    fraction
}

#[cfg(test)]
mod tests {
    use super::*;

    fn assert_close(got: f64, expected: f64, what: &str) {
        assert!(
            (got - expected).abs() <= 1e-8 * expected.abs(),
            "{what}: {got}, expected {expected}"
        );
    }

    #[test]
    fn gamma_samples_move_as_tensorflow_says() {
        let cases = [
            (0.5, 0.3, 1.009801946),
            (1.0, 2.5, 1.797032233),
            (3.0, 2.0, 0.856571422),
            (10.0, 12.0, 1.112329443),
            (200.0, 190.0, 0.97538506),
            (0.01, 1e-3, 0.635413801),
        ];
        for (a, x, expected) in cases {
            assert!((gamma_sample_derivative(a, x) - expected).abs() < 1e-8, "{a}, {x}");
        }
        assert_eq!(gamma_sample_derivative(2.0, 0.0), 0.0);
        assert!(gamma_sample_derivative(-1.0, 1.0).is_nan());
    }

    #[test]
    fn the_derivative_agrees_with_differences() {
        for (a, x) in [(0.5, 0.3), (2.0, 5.0), (7.0, 6.0), (30.0, 42.0)] {
            let step = 1e-5;
            let differences = (super::super::special::igamma(a + step, x) - super::super::special::igamma(a - step, x))
                / (2.0 * step);
            assert!((igamma_derivative(a, x) - differences).abs() < 1e-8, "{a}, {x}");
        }
        assert_eq!(igamma_derivative(2.0, 0.0), 0.0);
    }

    #[test]
    fn incomplete_beta_values() {
        // Of a = 1 and b = 1 it is x; the others from the distributions' closed forms.
        assert_close(betainc(1.0, 1.0, 0.3), 0.3, "uniform");
        assert_close(betainc(2.0, 1.0, 0.3), 0.09, "a power");
        assert_close(betainc(0.5, 0.5, 0.25), 1.0 / 3.0, "arcsine");
        assert_close(betainc(2.0, 3.0, 0.5), 0.6875, "a polynomial");
        assert_close(betainc(50.0, 60.0, 0.9), 1.0, "far out");
        assert_eq!((betainc(2.0, 3.0, 0.0), betainc(2.0, 3.0, 1.0)), (0.0, 1.0));
        assert!(betainc(0.0, 1.0, 0.5).is_nan() && betainc(1.0, 1.0, 1.5).is_nan());
    }
}
