use super::*;

/// Every 1009th number there is.
fn numbers() -> impl Iterator<Item = f32> {
    (0..=u32::MAX).step_by(1009).map(f32::from_bits)
}

const SPECIAL: [f32; 8] = [
    0.0,
    -0.0,
    1.0,
    -1.0,
    f32::INFINITY,
    f32::NEG_INFINITY,
    f32::NAN,
    f32::MAX,
];

#[track_caller]
fn follows(name: &str, got: fn(f32) -> f32, exact: fn(f64) -> f64, tolerance: f64) {
    follows_up_to(f32::INFINITY, name, got, exact, tolerance);
}

/// Compares with the exact function, for numbers of at most a size.
#[track_caller]
fn follows_up_to(largest: f32, name: &str, got: fn(f32) -> f32, exact: fn(f64) -> f64, tolerance: f64) {
    let tried = numbers().chain(SPECIAL).filter(|x| x.is_nan() || x.abs() <= largest);
    for x in tried {
        let (got, exact) = (got(x), exact(x.into()));
        let wide = f64::from(got);
        let rounded = exact as f32;
        let close = (wide - exact).abs() <= tolerance * exact.abs() + 1.5e-45;
        assert!(
            got == rounded || (got.is_nan() && exact.is_nan()) || (close && got.is_finite()),
            "{name}({x:e}) is {got:e}, not {exact:e}"
        );
        assert!(
            got != 0.0 || rounded != 0.0 || got.is_sign_negative() == rounded.is_sign_negative(),
            "{name}({x:e}) is {got:?}, not {rounded:?}"
        );
    }
}

#[test]
fn functions_follow_the_exact_ones() {
    follows("exp", exp, f64::exp, 2e-7);
    follows("ln", ln, f64::ln, 2e-7);
    follows("exp_m1", exp_m1, f64::exp_m1, 4e-7);
    follows("tanh", tanh, f64::tanh, 2e-7);
    follows("sigmoid", sigmoid, |x| 1.0 / (1.0 + (-x).exp()), 3e-7);
    follows("ln_1p", ln_1p, f64::ln_1p, 4e-7);
    follows("sinh", sinh, f64::sinh, 4e-7);
    follows("cosh", cosh, f64::cosh, 4e-7);
    follows("erf", erf, crate::cpu::special::erf, 5e-7);
    follows(
        "softplus",
        softplus,
        |x| if x > 700.0 { x } else { x.exp().ln_1p() },
        1e-6,
    );
}

#[test]
fn angles_follow_the_exact_ones() {
    use angle::*;
    follows_up_to(LARGEST, "sin", sin, f64::sin, 7e-8);
    follows_up_to(LARGEST, "cos", cos, f64::cos, 7e-8);
    follows_up_to(LARGEST, "tan", tan, f64::tan, 9e-8);
    follows("asin", asin, f64::asin, 3e-7);
    follows("acos", acos, f64::acos, 3e-7);
    follows("atan", atan, f64::atan, 3e-7);
}

/// Of all numbers that normal numbers are made from: what GNU's C library gives, and elsewhere a neighbour of what there is.
#[test]
fn logarithms_and_sines_of_normal_numbers_are_those_of_the_library() {
    let mut apart = 0;
    let mut compare = |what: &str, x: f32, got: f32, library: f32| {
        let distance = got.to_bits().abs_diff(library.to_bits());
        assert!(distance <= 1, "{what}({x:e}) is {got:e}, not {library:e}");
        apart += distance;
    };
    for bits in 0..1u32 << 23 {
        let uniform = f32::from_bits(0x3f80_0000 | bits) - 1.0;
        let angle = (std::f64::consts::TAU * f64::from(uniform)) as f32;
        let (sin, cos) = angle::sin_cos(angle);
        compare("sin", angle, sin, angle.sin());
        compare("cos", angle, cos, angle.cos());
        if uniform > 0.0 {
            compare("ln", uniform, ln_rounded(uniform), uniform.ln());
        }
    }
    let gnu = cfg!(all(target_env = "gnu", target_arch = "x86_64"));
    assert!(apart == 0 || !gnu, "{apart} differ");
}

/// Numbers of all sizes, mostly moderate.
fn doubles() -> impl Iterator<Item = f64> {
    let moderate = (-200_000..200_000).map(|i| f64::from(i) * 1.234_567_89e-4);
    let spread = (0..=u64::MAX).step_by(0x0002_3456_789a_bcde).map(f64::from_bits);
    moderate
        .chain(spread)
        .chain(SPECIAL.map(f64::from))
        .chain([f64::MAX, f64::MIN_POSITIVE, 5e-324, 1e-310])
}

#[track_caller]
fn follows_library(name: &str, got: fn(f64) -> f64, library: fn(f64) -> f64, tolerance: f64) {
    for x in doubles() {
        let (got, expected) = (got(x), library(x));
        let close = (got - expected).abs() <= tolerance * expected.abs() + 5e-324;
        assert!(
            got == expected || (got.is_nan() && expected.is_nan()) || (close && got.is_finite()),
            "{name}({x:e}) is {got:e}, not {expected:e}"
        );
        assert!(
            got != 0.0 || expected != 0.0 || got.is_sign_negative() == expected.is_sign_negative(),
            "{name}({x:e}) is {got:?}, not {expected:?}"
        );
    }
}

#[test]
fn doubles_follow_the_library() {
    use double::*;
    follows_library("exp", exp, f64::exp, 4e-16);
    follows_library("ln", ln, f64::ln, 4e-16);
    follows_library("exp_m1", exp_m1, f64::exp_m1, 7e-16);
    follows_library("ln_1p", ln_1p, f64::ln_1p, 7e-16);
    follows_library("tanh", tanh, f64::tanh, 7e-16);
    let logistic = |x: f64| {
        if x < 0.0 {
            x.exp() / (1.0 + x.exp())
        } else {
            1.0 / (1.0 + (-x).exp())
        }
    };
    follows_library("sigmoid", sigmoid, logistic, 6e-16);
    follows_library(
        "softplus",
        softplus,
        |x| if x > 700.0 { x } else { x.exp().ln_1p() },
        2e-15,
    );
    follows_library("atan", angle::atan64, f64::atan, 4e-16);
}

#[test]
fn angles_of_points_follow_the_library() {
    let numbers: Vec<f64> = [
        0.0,
        1e-300,
        1e-30,
        0.3,
        1.0,
        1.0000001,
        2.5,
        1e30,
        1e300,
        f64::INFINITY,
        f64::NAN,
    ]
    .into_iter()
    .flat_map(|x| [x, -x])
    .collect();
    for &y in &numbers {
        for &x in &numbers {
            let (got, expected) = (angle::atan2_64(y, x), y.atan2(x));
            let same = got.is_nan() && expected.is_nan() || got.is_sign_negative() == expected.is_sign_negative();
            assert!(
                same && (got.is_nan() || (got - expected).abs() <= 4e-16 * expected.abs()),
                "atan2({y:e}, {x:e}) is {got:e}, not {expected:e}"
            );
            let (y, x) = (y as f32, x as f32);
            let (got, expected) = (angle::atan2(y, x), f64::from(y).atan2(x.into()) as f32);
            let same = got.is_nan() && expected.is_nan() || got.is_sign_negative() == expected.is_sign_negative();
            assert!(
                same && (got.is_nan() || (got - expected).abs() <= 4e-7 * expected.abs()),
                "atan2({y:e}, {x:e}) is {got:e}, not {expected:e}"
            );
        }
    }
}
