//! Modified Bessel functions of the first kind, scaled by `exp(-|x|)`.

/// Up to here the power series, whose terms are all positive, is summed; from here on the asymptotic one is precise enough.
const FAR: f64 = 30.0;

/// `exp(-|x|) I0(x)`
pub fn i0e(x: f64) -> f64 {
    scaled(0.0, x.abs())
}

/// `exp(-|x|) I1(x)`, an odd function.
pub fn i1e(x: f64) -> f64 {
    let value = scaled(1.0, x.abs());
    if x < 0.0 { -value } else { value }
}

/// `exp(-x) I_n(x)` for n of 0 or 1 and `x >= 0` (DLMF 10.25.2 and 10.40.1).
fn scaled(n: f64, x: f64) -> f64 {
    if x.is_nan() || x.is_infinite() {
        return if x.is_nan() { x } else { 0.0 };
    }
    if x <= FAR {
        let quarter = x * x / 4.0;
        let (mut term, mut sum, mut k) = (1.0, 0.0, 1.0);
        while term > f64::EPSILON * 0.1 * sum {
            sum += term;
            term *= quarter / (k * (k + n));
            k += 1.0;
        }
        return (if n == 0.0 { 1.0 } else { x / 2.0 }) * sum * (-x).exp();
    }
    let mu = 4.0 * n * n;
    let (mut term, mut sum, mut k) = (1.0f64, 0.0, 1.0f64);
    while term.abs() > f64::EPSILON * 0.1 && k < FAR {
        sum += term;
        let odd = 2.0 * k - 1.0;
        term *= -(mu - odd * odd) / (k * 8.0 * x);
        k += 1.0;
    }
    sum / (std::f64::consts::TAU * x).sqrt()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_values() {
        // Abramowitz and Stegun, tables 9.8 and 9.11.
        let cases = [
            (0.0, 1.0, 0.0),
            (1.0, 0.465_759_607_6, 0.207_910_415_3),
            (5.0, 0.183_540_812_6, 0.163_972_266_9),
            (50.0, 0.056_561_628, 0.055_993_122),
        ];
        let assert_close = |got: f64, expected: f64| assert!((got - expected).abs() < 1e-8, "{got}, not {expected}");
        for (x, even, odd) in cases {
            assert_close(i0e(x), even);
            assert_close(i0e(-x), even);
            assert_close(i1e(x), odd);
            assert_close(i1e(-x), -odd);
        }
        assert!(i0e(f64::NAN).is_nan());
        assert_eq!(i1e(f64::INFINITY), 0.0);
    }

    #[test]
    fn both_series_meet() {
        for function in [i0e, i1e] {
            let (below, above) = (function(FAR), function(FAR * (1.0 + 1e-15)));
            assert!((below / above - 1.0).abs() < 1e-12, "{below} and {above}");
        }
    }
}
