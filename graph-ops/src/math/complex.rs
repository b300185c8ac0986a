//! Complex numbers: made of two real ones, and taken apart.

use graph_core::gradients::GradientContext;
use graph_core::graph::scope::{control_dependencies, name_scope_in};
use graph_core::graph::{IntoOperand, OpBuilder, Operand, Tensor};
use graph_core::op::{InferenceContext, KernelDefinition, OpDefinition};
use graph_core::{Complex, DType, Graph, Result};

use super::broadcasting::unbroadcast;
use super::elementwise::{run_binary, run_unary};
use super::nodes::Nodes;

/// The dtype of a complex number's parts.
fn part_dtype(dtype: DType) -> DType {
    if dtype == DType::Complex128 {
        DType::Float64
    } else {
        DType::Float32
    }
}

/// A node of type `op` from complex to real numbers.
fn part(nodes: &Nodes<'_>, op: &str, z: &Tensor) -> Result<Tensor> {
    nodes.node(op).input(z).attr("Tout", part_dtype(z.dtype())).build()
}

/// A node that makes complex numbers.
fn made_of(nodes: &Nodes<'_>, real: &Tensor, imag: &Tensor) -> Result<Tensor> {
    let dtype = complex_dtype(real.dtype());
    nodes
        .node("Complex")
        .input(real)
        .input(imag)
        .attr("Tout", dtype)
        .build()
}

fn complex_dtype(part: DType) -> DType {
    if part == DType::Float64 {
        DType::Complex128
    } else {
        DType::Complex64
    }
}

/// An op from complex to real numbers.
macro_rules! to_real {
    ($op:literal, $input:literal, $output:literal, $summary:literal, $gradient:expr, |$z:ident| $e:expr) => {
        OpDefinition::new($op, $summary)
            .input($input)
            .output($output)
            .attr("T: {complex64, complex128} = DT_COMPLEX64")
            .attr("Tout: {float, double} = DT_FLOAT")
            .shape(InferenceContext::unchanged)
            .gradient($gradient)
            .kernel(
                KernelDefinition::direct(|context| run_unary::<Complex<f32>, f32>(context, |$z| $e))
                    .types("T", &[DType::Complex64])
                    .types("Tout", &[DType::Float32]),
            )
            .kernel(
                KernelDefinition::direct(|context| run_unary::<Complex<f64>, f64>(context, |$z| $e))
                    .types("T", &[DType::Complex128])
                    .types("Tout", &[DType::Float64]),
            )
    };
}

/// `Real`
pub(crate) fn real_op() -> OpDefinition {
    to_real!(
        "Real",
        "input: T",
        "output: Tout",
        "The real part of each element.",
        |context| {
            let (nodes, gradient) = (Nodes::of(context), context.gradient(0)?);
            let zero = nodes.scalar(0, gradient.dtype(), "Const")?;
            Ok(vec![Some(made_of(&nodes, &gradient, &zero)?)])
        },
        |z| z.re
    )
}

/// `Imag`
pub(crate) fn imag_op() -> OpDefinition {
    to_real!(
        "Imag",
        "input: T",
        "output: Tout",
        "The imaginary part of each element.",
        |context| {
            let (nodes, gradient) = (Nodes::of(context), context.gradient(0)?);
            let zero = nodes.scalar(0, gradient.dtype(), "Const")?;
            Ok(vec![Some(made_of(&nodes, &zero, &gradient)?)])
        },
        |z| z.im
    )
}

/// `ComplexAbs`
pub(crate) fn complex_abs_op() -> OpDefinition {
    to_real!(
        "ComplexAbs",
        "x: T",
        "y: Tout",
        "The absolute value of each complex element.",
        |context| {
            let (nodes, gradient, output) = (Nodes::of(context), context.gradient(0)?, context.output(0));
            let zeros = nodes.zeros_like(&gradient)?;
            let product = nodes.mul(&made_of(&nodes, &gradient, &zeros)?, context.input(0))?;
            let zeros = nodes.zeros_like(&output)?;
            let norm = made_of(&nodes, &output, &zeros)?;
            Ok(vec![Some(nodes.binary("DivNoNan", "div_no_nan", &product, &norm)?)])
        },
        |z| z.re.hypot(z.im)
    )
}

/// `Angle`
pub(crate) fn angle_op() -> OpDefinition {
    to_real!(
        "Angle",
        "input: T",
        "output: Tout",
        "The angle of each complex element, in (-pi, pi].",
        angle_gradient,
        |z| z.im.atan2(z.re)
    )
}

/// `-grad / (im + i re)`
fn angle_gradient(context: &mut GradientContext<'_>) -> Result<Vec<Option<Tensor>>> {
    let (nodes, gradient, z) = (Nodes::of(context), context.gradient(0)?, context.input(0));
    let _after = control_dependencies([&gradient.op()])?;
    let (re, im) = (part(&nodes, "Real", &z)?, part(&nodes, "Imag", &z)?);
    let inverse = nodes.unary("Reciprocal", &made_of(&nodes, &im, &re)?)?;
    let zero = nodes.scalar(0, gradient.dtype(), "Const")?;
    let minus = nodes.unary("Neg", &made_of(&nodes, &gradient, &zero)?)?;
    Ok(vec![Some(nodes.mul(&minus, &inverse)?)])
}

/// `Complex`
pub(crate) fn complex_op() -> OpDefinition {
    macro_rules! kernel {
        ($t:ty, $part:ident, $whole:ident) => {
            KernelDefinition::direct(|context| {
                run_binary::<$t, $t, Complex<$t>>(context, |re, im| Complex::new(re, im))
            })
            .types("T", &[DType::$part])
            .types("Tout", &[DType::$whole])
        };
    }
    OpDefinition::new("Complex", "Complex numbers of their real and imaginary parts.")
        .input("real: T")
        .input("imag: T")
        .output("out: Tout")
        .attr("T: {float, double} = DT_FLOAT")
        .attr("Tout: {complex64, complex128} = DT_COMPLEX64")
        .shape(InferenceContext::broadcast)
        .gradient(|context| {
            let gradient = context.gradient(0)?;
            unbroadcast(
                context,
                |nodes| part(nodes, "Real", &gradient),
                |nodes| part(nodes, "Imag", &gradient),
            )
        })
        .kernel(kernel!(f32, Float32, Complex64))
        .kernel(kernel!(f64, Float64, Complex128))
}

/// `Conj`
pub(crate) fn conj_op() -> OpDefinition {
    macro_rules! kernel {
        ($t:ty, $dtype:ident) => {
            KernelDefinition::direct(|context| {
                run_unary::<Complex<$t>, Complex<$t>>(context, |z| Complex::new(z.re, -z.im))
            })
            .types("T", &[DType::$dtype])
            .in_place(0, 0)
        };
    }
    OpDefinition::new("Conj", "The conjugate of each complex element.")
        .input("input: T")
        .output("output: T")
        .attr("T: {complex64, complex128} = DT_COMPLEX64")
        .shape(InferenceContext::unchanged)
        .gradient(|context| Ok(vec![Some(Nodes::of(context).conj(&context.gradient(0)?)?)]))
        .kernel(kernel!(f32, Complex64))
        .kernel(kernel!(f64, Complex128))
}

/// Complex numbers of real and imaginary parts, `f32` or `f64`, broadcast together.
#[track_caller]
pub fn complex(real: impl IntoOperand, imag: impl IntoOperand) -> OpBuilder {
    let (real, imag) = (real.into_operand(), imag.into_operand());
    let part = real.dtype().or(imag.dtype()).or(real.number_dtype());
    let dtype = complex_dtype(part.unwrap_or(DType::Float32));
    crate::op("Complex").input(real).input(imag).attr("Tout", dtype)
}

/// The absolute value of complex numbers.
#[track_caller]
pub(crate) fn complex_abs(z: Tensor) -> OpBuilder {
    let dtype = part_dtype(z.dtype());
    crate::op("ComplexAbs").input(z).attr("Tout", dtype).name("Abs")
}

/// A part of complex numbers about to be made; see [`real`], [`imag`], [`conj`] and [`angle`].
#[must_use = "an operation is made by `build`"]
pub struct ComplexPart {
    operand: Operand,
    op: &'static str,
    name: String,
}

impl ComplexPart {
    /// Names the operation.
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.name = name.into();
        self
    }

    /// Makes the operation.
    ///
    /// # Errors
    /// The operand's own.
    #[track_caller]
    pub fn build(self) -> Result<Tensor> {
        crate::install();
        let graph = self.operand.graph().cloned().unwrap_or_else(Graph::current);
        if let Operand::Tensor(x) = &self.operand
            && self.op == "Conj"
            && !x.dtype().is_complex()
        {
            return Ok(x.clone());
        }
        let scope = name_scope_in(&graph, &self.name)?;
        let x = self
            .operand
            .to_tensor(&graph, if self.op == "Conj" { "x" } else { "input" }, None)?;
        let nodes = Nodes::at(&graph, std::panic::Location::caller());
        match (self.op, x.dtype().is_complex()) {
            ("Conj", true) => nodes.node("Conj").input(&x).name(scope.scope_name()).build(),
            (op, true) => nodes
                .node(op)
                .input(&x)
                .attr("Tout", part_dtype(x.dtype()))
                .name(scope.scope_name())
                .build(),
            ("Conj" | "Real", false) => Ok(x),
            (_, false) => nodes.zeros_like(&x),
        }
    }
}

impl IntoOperand for ComplexPart {
    #[track_caller]
    fn into_operand(self) -> Operand {
        self.build().into_operand()
    }
}

fn part_of(x: impl IntoOperand, op: &'static str) -> ComplexPart {
    ComplexPart {
        operand: x.into_operand(),
        op,
        name: op.to_owned(),
    }
}

/// The real part of each element; a real tensor itself.
pub fn real(x: impl IntoOperand) -> ComplexPart {
    part_of(x, "Real")
}

/// The imaginary part of each element; zeros for a real tensor.
pub fn imag(x: impl IntoOperand) -> ComplexPart {
    part_of(x, "Imag")
}

/// The conjugate of each element; a real tensor itself.
pub fn conj(x: impl IntoOperand) -> ComplexPart {
    part_of(x, "Conj")
}

/// The angle of each complex element, in radians, in (-pi, pi]; zeros for a real tensor.
pub fn angle(x: impl IntoOperand) -> ComplexPart {
    part_of(x, "Angle")
}

#[cfg(test)]
pub(crate) fn cases() -> Vec<crate::testing::Case> {
    use crate::testing::Case;
    let (z, single) = (Complex::new(3.0f64, -4.0), Complex::new(3.0f32, -4.0));
    let double = |op| Case::new(op).attr("Tout", DType::Float64).input([z]);
    let float = |op| Case::new(op).input([single]);
    vec![
        double("Real").expect([3.0f64]),
        float("Real").expect([3.0f32]),
        double("Imag").expect([-4.0f64]),
        float("Imag").expect([-4.0f32]),
        double("ComplexAbs").expect([5.0f64]),
        float("ComplexAbs").expect([5.0f32]),
        double("Angle").expect([(-4.0f64).atan2(3.0)]),
        float("Angle").expect([(-4.0f32).atan2(3.0)]),
        Case::new("Conj").input([z]).expect([Complex::new(3.0f64, 4.0)]),
        Case::new("Conj").input([single]).expect([Complex::new(3.0f32, 4.0)]),
        Case::new("Complex").input([3.0f32]).input(-4.0f32).expect([single]),
        Case::new("Complex")
            .attr("Tout", DType::Complex128)
            .input([[3.0f64]])
            .input([-4.0f64, 1.0])
            .expect([[z, Complex::new(3.0, 1.0)]]),
    ]
}

#[cfg(test)]
pub(crate) fn gradient_cases() -> Vec<crate::testing::GradientCase> {
    use crate::testing::GradientCase;
    let z = || [Complex::new(0.6f64, 0.9), Complex::new(-1.2, 0.4)];
    let part = |op: &'static str| GradientCase::new(op).attr("Tout", DType::Float64).input(z());
    vec![
        part("Real"),
        part("Imag"),
        part("ComplexAbs"),
        part("Angle"),
        GradientCase::new("Conj").input(z()),
        GradientCase::new("Complex")
            .attr("Tout", DType::Complex128)
            .input([[0.5f64], [1.5]])
            .input([0.7f64, -0.3]),
        GradientCase::new("Mul").input(z()).input([[z()[1]], [z()[0]]]),
        GradientCase::new("RealDiv").input(z()).input(z()[0]),
        GradientCase::new("Exp").input(z()),
        GradientCase::new("Tanh").input(z()),
        GradientCase::new("Sqrt").input(z()),
        GradientCase::new("MatMul").input([z(), z()]).input([z(), z()]),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use graph_core::{Value, gradients};

    /// Real functions of two real numbers by way of complex ones, against finite differences.
    #[test]
    fn gradients_flow_through_complex_numbers() {
        let graph = Graph::new();
        let _default = graph.as_default();
        let session = graph_core::session::Session::new(&graph).unwrap();
        let re = crate::array::constant([0.6f64, -1.2]).build().unwrap();
        let im = crate::array::constant([0.9f64, 0.4]).build().unwrap();
        let z = complex(&re, &im).build().unwrap();
        type Function = fn(&Tensor) -> Result<Tensor>;
        let functions: [Function; 7] = [
            |z| super::super::abs(z).build(),
            |z| angle(z).build(),
            |z| real(super::super::multiply(z, z)).build(),
            |z| imag(super::super::exp(z)).build(),
            |z| real(super::super::divide(conj(z), super::super::sin(z))).build(),
            |z| imag(super::super::sqrt(super::super::reciprocal(z))).build(),
            |z| real(super::super::tanh(z)).build(),
        ];
        for (index, function) in functions.into_iter().enumerate() {
            let y = function(&z).unwrap();
            let slopes = gradients([&y], [&re, &im]).unwrap().build().unwrap();
            for (x, slope) in [&re, &im].into_iter().zip(slopes) {
                let slope: Value = session.run(slope.unwrap(), ()).unwrap();
                let start = x.constant_value().unwrap();
                let start = start.as_slice::<f64>().unwrap();
                for element in 0..2 {
                    let at = |step: f64| {
                        let mut moved = start.to_vec();
                        moved[element] += step;
                        let feeds = graph_core::session::Feeds::new().with(x, Value::from(moved));
                        let y: Value = session.run(&y, feeds).unwrap();
                        y.as_slice::<f64>().unwrap()[element]
                    };
                    let numeric = (at(1e-5) - at(-1e-5)) / 2e-5;
                    let symbolic = slope.as_slice::<f64>().unwrap()[element];
                    assert!(
                        (numeric - symbolic).abs() < 1e-6 * (1.0 + numeric.abs()),
                        "function {index}: {symbolic}, {numeric}"
                    );
                }
            }
        }
    }

    #[test]
    fn parts_of_real_numbers() {
        let graph = Graph::new();
        let _default = graph.as_default();
        let x = crate::array::constant([0.6f64]).name("x").build().unwrap();
        assert_eq!(
            (real(&x).build().unwrap(), conj(&x).build().unwrap()),
            (x.clone(), x.clone())
        );
        assert_eq!(imag(&x).build().unwrap().name(), "Imag/zeros_like:0");
    }
}
