use graph_core::Complex;
use half::{bf16, f16};

use crate::testing::{Case, GradientCase};

pub(crate) fn cases() -> Vec<Case> {
    let unary = |op| Case::new(op);
    let half = |numbers: [f32; 2]| numbers.map(f16::from_f32);
    let brain = |numbers: [f32; 2]| numbers.map(bf16::from_f32);
    let (z, w) = (Complex::new(3.0f64, 4.0), Complex::new(1.0f64, -2.0));
    let (nan, infinity) = (f32::NAN, f32::INFINITY);
    vec![
        unary("Neg")
            .input([[1.5f32, -2.0], [0.0, nan]])
            .expect([[-1.5f32, 2.0], [0.0, nan]]),
        unary("Neg").input(half([1.0, -2.5])).expect(half([-1.0, 2.5])),
        unary("Neg").input(brain([1.0, -2.5])).expect(brain([-1.0, 2.5])),
        unary("Neg").input([i32::MIN, 7]).expect([i32::MIN, -7]),
        unary("Neg").input([i8::MIN, 7]).expect([i8::MIN, -7]),
        unary("Neg").input([1i16, -7]).expect([-1i16, 7]),
        unary("Neg").input([1i64 << 40]).expect([-(1i64 << 40)]),
        unary("Neg").input([z]).expect([-z]),
        unary("Neg")
            .input([Complex::new(1.0f32, -2.0)])
            .expect([Complex::new(-1.0f32, 2.0)]),
        unary("Neg").input(Vec::<f64>::new()).expect(Vec::<f64>::new()),
        unary("Abs")
            .input([-1.5f32, nan, -infinity])
            .expect([1.5f32, nan, infinity]),
        unary("Abs").input(-2.5f64).expect(2.5f64),
        unary("Abs").input([-3i32, i32::MIN]).expect([3i32, i32::MIN]),
        unary("Abs").input([-3i64]).expect([3i64]),
        unary("Sign")
            .input([-1.5f32, nan, 0.0, infinity])
            .expect([-1.0f32, nan, 0.0, 1.0]),
        unary("Sign").input(half([-3.0, 0.0])).expect(half([-1.0, 0.0])),
        unary("Sign").input([-3i32, 0, 9]).expect([-1i32, 0, 1]),
        unary("Sign")
            .input([z, Complex::new(0.0, 0.0)])
            .expect([Complex::new(0.6f64, 0.8), Complex::new(0.0, 0.0)]),
        unary("Square").input([-1.5f32, 3.0]).expect([2.25f32, 9.0]),
        unary("Square").input([-3i32, 1 << 20]).expect([9i32, 0]),
        unary("Square").input([7u8, 16]).expect([49u8, 0]),
        unary("Square").input([z]).expect([Complex::new(-7.0f64, 24.0)]),
        unary("Sqrt")
            .input([4.0f32, 2.0, -1.0, 0.0])
            .expect([2.0f32, std::f32::consts::SQRT_2, nan, 0.0]),
        unary("Sqrt").input([Complex::new(-3.0f64, -4.0)]).expect([w]),
        unary("Rsqrt").input([4.0f64, 0.0]).expect([0.5f64, f64::INFINITY]),
        unary("Rsqrt").input([4.0f32]).expect([0.5f32]),
        unary("Reciprocal").input([4.0f32, 0.0]).expect([0.25f32, infinity]),
        unary("Reciprocal").input([1i32, -1, 2, 0]).expect([1i32, -1, 0, 0]),
        unary("Reciprocal").input([w]).expect([Complex::new(0.2f64, 0.4)]),
        unary("Inv").input([4.0f32]).expect([0.25f32]),
        unary("SqrtGrad").input([2.0f32]).input([3.0f32]).expect([0.75f32]),
        unary("SqrtGrad")
            .input([w])
            .input([z])
            .expect([Complex::new(1.1f64, -0.2)]),
        unary("RsqrtGrad").input([2.0f32]).input([3.0f32]).expect([-12.0f32]),
        unary("ReciprocalGrad")
            .input([2.0f32])
            .input([3.0f32])
            .expect([-12.0f32]),
        unary("InvGrad").input([2.0f64]).input([3.0f64]).expect([-12.0f64]),
        unary("ReciprocalGrad")
            .input([w])
            .input([z])
            .expect([Complex::new(25.0f64, 0.0)]),
    ]
}

pub(crate) fn gradient_cases() -> Vec<GradientCase> {
    let signed = [[-1.5f64, 2.0], [0.7, -0.3]];
    let positive = [1.5f64, 0.7, 2.0];
    let mut cases: Vec<GradientCase> = ["Neg", "Abs", "Square", "Reciprocal", "Inv", "Sign"]
        .into_iter()
        .map(|op| GradientCase::new(op).input(signed))
        .collect();
    for op in ["Sqrt", "Rsqrt"] {
        cases.push(GradientCase::new(op).input(positive));
    }
    for op in ["SqrtGrad", "RsqrtGrad", "ReciprocalGrad", "InvGrad"] {
        cases.push(GradientCase::new(op).input(positive).input([0.3f64, -1.0, 0.5]));
    }
    cases
}
