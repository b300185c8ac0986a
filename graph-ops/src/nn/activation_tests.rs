use half::{bf16, f16};

use crate::testing::{Case, GradientCase};

const NAMES: [&str; 7] = ["Relu", "Relu6", "LeakyRelu", "Elu", "Selu", "Softplus", "Softsign"];

fn exact(name: &str, x: f64) -> f64 {
    let negative = x < 0.0;
    match name {
        "Relu" => x.max(0.0),
        "Relu6" => x.clamp(0.0, 6.0),
        "LeakyRelu" => {
            if negative {
                f64::from(0.2f32) * x
            } else {
                x
            }
        }
        "Elu" => {
            if negative {
                x.exp_m1()
            } else {
                x
            }
        }
        "Selu" => {
            if negative {
                super::SCALE_ALPHA * x.exp_m1()
            } else {
                super::SCALE * x
            }
        }
        "Softplus" => x.max(0.0) + (-x.abs()).exp().ln_1p(),
        _ => x / (1.0 + x.abs()),
    }
}

pub(crate) fn cases() -> Vec<Case> {
    let x = [[-20.0f64, -3.0, -0.5], [-1e-6, 0.0, 0.5], [2.0, 7.0, 90.0]];
    let mut cases = Vec::new();
    for name in NAMES {
        let (single, half, brain) = (
            x.map(|row| row.map(|x| x as f32)),
            x.map(|row| row.map(f16::from_f64)),
            x.map(|row| row.map(bf16::from_f64)),
        );
        let case = || Case::new(name);
        cases.extend([
            case()
                .input(x)
                .expect(x.map(|row| row.map(|x| exact(name, x))))
                .tolerance(1e-12, 1e-15),
            case()
                .input(single)
                .expect(single.map(|row| row.map(|x| exact(name, x.into()) as f32))),
            case()
                .input(half)
                .expect(half.map(|row| row.map(|x| f16::from_f64(exact(name, x.into())))))
                .tolerance(2e-3, 1e-6),
            case()
                .input(brain)
                .expect(brain.map(|row| row.map(|x| bf16::from_f64(exact(name, x.into())))))
                .tolerance(2e-2, 1e-9),
            case().input([f32::NAN]).expect([f32::NAN]),
        ]);
    }
    macro_rules! integers {
        ($($t:ty),*) => {$(cases.extend([
            Case::new("Relu").input([0 as $t, 9]).expect([0 as $t, 9]),
            Case::new("Relu6").input([5 as $t, 9]).expect([5 as $t, 6]),
            Case::new("ReluGrad").input([5 as $t, 9]).input([0 as $t, 7]).expect([0 as $t, 9]),
            Case::new("Relu6Grad").input([5 as $t, 9]).input([3 as $t, 7]).expect([5 as $t, 0]),
        ]);)*};
    }
    integers!(i8, i16, i32, i64, u8, u16, u32, u64);
    let gradient = |op| Case::new(op).input([2.0f32, 3.0, -1.0]);
    cases.extend([
        Case::new("Relu").input([-5i32]).expect([0i32]),
        gradient("ReluGrad")
            .input([-1.0f32, 0.0, 2.0])
            .expect([0.0f32, 0.0, -1.0]),
        gradient("Relu6Grad")
            .input([-1.0f32, 6.0, 2.0])
            .expect([0.0f32, 0.0, -1.0]),
        gradient("LeakyReluGrad")
            .attr("alpha", 0.5f32)
            .input([-1.0f32, 6.0, 2.0])
            .expect([1.0f32, 3.0, -1.0]),
        gradient("EluGrad")
            .input([-0.5f32, 0.0, 2.0])
            .expect([1.0f32, 3.0, -1.0]),
        gradient("SeluGrad")
            .input([-0.5f32, 0.0, 2.0])
            .expect([2.516_198_7f32, 3.152_103, -1.050_701]),
        gradient("SoftplusGrad")
            .input([0.0f32, 0.0, 100.0])
            .expect([1.0f32, 1.5, -1.0]),
        gradient("SoftsignGrad")
            .input([1.0f32, -1.0, 0.0])
            .expect([0.5f32, 0.75, -1.0]),
        Case::new("LeakyRelu")
            .attr("alpha", 2.0f32)
            .input([-1.5f32])
            .expect([-3.0f32]),
    ]);
    cases
}

pub(crate) fn gradient_cases() -> Vec<GradientCase> {
    let x = [[-3.0f64, -0.5], [0.7, 2.0]];
    let mut cases: Vec<GradientCase> = ["Relu", "Relu6", "Elu", "Selu", "Softplus"]
        .into_iter()
        .map(|op| GradientCase::new(op).input(x))
        .collect();
    cases.push(GradientCase::new("LeakyRelu").attr("alpha", 0.25f32).input(x));
    cases.push(GradientCase::new("Softsign").input(x).first_order_only());
    for op in [
        "ReluGrad",
        "Relu6Grad",
        "LeakyReluGrad",
        "EluGrad",
        "SeluGrad",
        "SoftplusGrad",
    ] {
        cases.push(GradientCase::new(op).input([[0.3f64, -1.0], [2.0, 0.5]]).input(x));
    }
    cases
}
