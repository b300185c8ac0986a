use graph_core::{Complex, Value};
use half::{bf16, f16};

use crate::testing::{Case, GradientCase};

const NAMES: [&str; 6] = ["Exp", "Expm1", "Log", "Log1p", "Sigmoid", "Tanh"];

fn exact(name: &str, x: f64) -> f64 {
    match name {
        "Exp" => x.exp(),
        "Expm1" => x.exp_m1(),
        "Log" => x.ln(),
        "Log1p" => x.ln_1p(),
        "Sigmoid" => 1.0 / (1.0 + (-x).exp()),
        _ => x.tanh(),
    }
}

pub(crate) fn cases() -> Vec<Case> {
    let numbers = [
        0.0f32,
        -0.5,
        0.5,
        2.0,
        -3.0,
        80.0,
        f32::INFINITY,
        f32::NEG_INFINITY,
        f32::NAN,
        1e-6,
    ];
    let mut cases = Vec::new();
    for name in NAMES {
        let case = || Case::new(name);
        let map = |x: f32| exact(name, x.into());
        cases.push(case().input(numbers).expect(numbers.map(|x| map(x) as f32)));
        cases.push(
            case()
                .input(numbers.map(f64::from))
                .expect(numbers.map(map))
                .tolerance(1e-14, 1e-300),
        );
        let (half, brain) = (numbers.map(f16::from_f32), numbers.map(bf16::from_f32));
        cases.push(
            case()
                .input(half)
                .expect(half.map(|x| f16::from_f64(exact(name, x.to_f64()))))
                .tolerance(1e-3, 1e-7),
        );
        cases.push(
            case()
                .input(brain)
                .expect(brain.map(|x| bf16::from_f64(exact(name, x.to_f64()))))
                .tolerance(1e-2, 1e-38),
        );
        cases.push(case().input(Vec::<f32>::new()).expect(Vec::<f32>::new()));
    }
    // Long enough for several tasks.
    let many: Vec<f32> = (0..70_001).map(|i| i as f32 * 1e-4 - 3.0).collect();
    cases.push(
        Case::new("Tanh")
            .input(Value::from_vec([70_001], &many).expect("the length fits"))
            .expect(
                Value::from_vec(
                    [70_001],
                    many.iter().map(|x| f64::from(*x).tanh() as f32).collect::<Vec<_>>(),
                )
                .expect("the length fits"),
            ),
    );
    let z = Complex::new(0.3f64, -0.4);
    let one = Complex::new(1.0f64, 0.0);
    for (name, expected) in [
        ("Exp", z.exp()),
        ("Expm1", z.exp() - one),
        ("Log", Complex::new(0.5f64.ln(), -0.927_295_218_001_612_2)),
        ("Log1p", (one + z).ln()),
        ("Sigmoid", one / (one + (-z).exp())),
        ("Tanh", z.sinh() / z.cosh()),
    ] {
        cases.push(Case::new(name).input([z]).expect([expected]));
        let narrow = |z: Complex<f64>| Complex::new(z.re as f32, z.im as f32);
        cases.push(Case::new(name).input([narrow(z)]).expect([narrow(expected)]));
    }
    cases.extend([
        Case::new("SigmoidGrad")
            .input([0.25f32])
            .input([2.0f32])
            .expect([0.375f32]),
        Case::new("SigmoidGrad")
            .input([0.25f64])
            .input([2.0f64])
            .expect([0.375f64]),
        Case::new("TanhGrad").input([0.5f32]).input([2.0f32]).expect([1.5f32]),
        Case::new("TanhGrad")
            .input([f16::from_f32(0.5)])
            .input([f16::from_f32(2.0)])
            .expect([f16::from_f32(1.5)]),
        Case::new("TanhGrad")
            .input([Complex::new(0.0f64, 1.0)])
            .input([one])
            .expect([Complex::new(2.0f64, 0.0)]),
    ]);
    cases
}

pub(crate) fn gradient_cases() -> Vec<GradientCase> {
    let mut cases: Vec<GradientCase> = NAMES
        .into_iter()
        .map(|op| GradientCase::new(op).input([[0.5f64, 1.5], [0.1, 0.9]]))
        .collect();
    for op in ["SigmoidGrad", "TanhGrad"] {
        cases.push(GradientCase::new(op).input([0.3f64, 0.8]).input([-1.0f64, 0.5]));
    }
    cases
}
