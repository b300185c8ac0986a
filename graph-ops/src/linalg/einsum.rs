//! `Einsum`: sums of products by index notation.

mod contraction;
mod device;
mod equation;

use graph_core::gradients::GradientContext;
use graph_core::graph::{IntoOperand, Operand, Tensor};
use graph_core::op::{InferenceContext, KernelContext, KernelDefinition, KernelRequest, OpDefinition, Planned};
use graph_core::{Complex, DType, Element, Result, Value, typed_builder};
use half::{bf16, f16};

use self::contraction::{Contraction, Number};
use self::equation::{ELLIPSIS, Equation};
use crate::cuda::FLOATS;
use crate::math::nodes::Nodes;

/// `Einsum`
pub(crate) fn einsum_op() -> OpDefinition {
    let definition = OpDefinition::new(
        "Einsum",
        "Sums of products of one or two tensors by index notation: axes that the result does not name are summed.",
    )
    .input("inputs: N * T")
    .output("output: T")
    .attr("equation: string")
    .attr("N: int >= 1")
    .attr("T: type")
    .shape(shape)
    .gradient(gradient);
    macro_rules! kernels {
        ($($dtype:ident $type:ty),*) => {
            definition$(.kernel(KernelDefinition::cpu(kernel::<$type>).types("T", &[DType::$dtype])))*
        };
    }
    kernels!(
        Float32 f32, Float64 f64, Half f16, BFloat16 bf16, Int32 i32, Int64 i64, Complex64 Complex<f32>,
        Complex128 Complex<f64>
    )
    .kernel(KernelDefinition::cuda(device::kernel).types("T", FLOATS))
}

fn shape(context: &mut InferenceContext<'_>) -> Result<()> {
    let equation = Equation::parse(&context.attr::<String>("equation")?)?;
    let shape = equation.infer(context.inputs())?;
    context.set_output(0, shape);
    Ok(())
}

macro_rules! numbers {
    ($($type:ty: $wide:ty, $widen:expr, $narrow:expr;)*) => {$(
        impl Number for $type {
            fn sum(terms: impl Iterator<Item = Self>) -> Self {
                let widen: fn($type) -> $wide = $widen;
                let narrow: fn($wide) -> $type = $narrow;
                narrow(terms.map(widen).fold(<$wide>::default(), |sum, x| sum + x))
            }
        }
    )*};
}

numbers! {
    f32: f32, |x| x, |x| x;
    f64: f64, |x| x, |x| x;
    f16: f32, f16::to_f32, f16::from_f32;
    bf16: f32, bf16::to_f32, bf16::from_f32;
    i32: std::num::Wrapping<i32>, std::num::Wrapping, |x| x.0;
    i64: std::num::Wrapping<i64>, std::num::Wrapping, |x| x.0;
    Complex<f32>: Complex<f32>, |x| x, |x| x;
    Complex<f64>: Complex<f64>, |x| x, |x| x;
}

fn kernel<T: Element + Number>(request: &KernelRequest<'_>) -> Result<Planned> {
    let equation = Equation::parse(&request.attr::<String>("equation")?)?;
    let shapes: Vec<_> = request.input_shapes.iter().collect();
    let contraction = Contraction::new(&equation, &shapes, request.output_shape(0)?)?;
    Ok(Planned::new(move |context: &mut KernelContext<'_>| {
        let operands: Vec<&[T]> = (0..context.num_inputs())
            .map(|index| context.input::<T>(index))
            .collect::<Result<_>>()?;
        contraction.run(&operands, context.output::<T>(0)?);
        Ok(())
    }))
}

/// The characters of `text` that do not come in `without`, in their order and once each.
fn labels_without(text: &str, without: &str) -> String {
    let mut labels = String::new();
    for label in text.chars() {
        if label != '.' && !without.contains(label) && !labels.contains(label) {
            labels.push(label);
        }
    }
    labels
}

/// For `z = einsum("x,y->z", x, y)`: `dx = einsum("z,y->x", dz, y)`, where what only x has is repeated.
fn gradient(context: &mut GradientContext<'_>) -> Result<Vec<Option<Tensor>>> {
    let nodes = Nodes::of(context);
    let gradient = context.gradient(0)?;
    let text: String = context.attr("equation")?;
    let (inputs, output) = text
        .split_once("->")
        .ok_or_else(|| graph_core::Error::internal("an equation without an arrow"))?;
    let x = context.input(0);
    let Some((x_text, y_text)) = inputs.split_once(',') else {
        return Ok(vec![Some(repeated(&nodes, &gradient, output, &x, inputs)?)]);
    };
    let with_ellipsis = |text: &str| match output.contains(ELLIPSIS) && !text.contains(ELLIPSIS) {
        true => format!("{text}{ELLIPSIS}"),
        false => text.to_owned(),
    };
    let (x_text, y_text) = (with_ellipsis(x_text), with_ellipsis(y_text));
    let y = context.input(1);
    let (x_conj, y_conj) = (nodes.conj(&x)?, nodes.conj(&y)?);
    let with_respect_to = |own: &Tensor, own_text: &str, other: &Tensor, other_text: &str| {
        let alone = labels_without(own_text, &format!("{output}{other_text}"));
        let rest: String = own_text.chars().filter(|label| !alone.contains(*label)).collect();
        let product = sum_of_products(&nodes, &[&gradient, other], &format!("{output},{other_text}->{rest}"))?;
        if alone.is_empty() {
            return Ok(product);
        }
        repeated(&nodes, &product, &rest, own, own_text)
    };
    let to_x = with_respect_to(&x, &x_text, &y_conj, &y_text)?;
    let to_y = with_respect_to(&y, &y_text, &x_conj, &x_text)?;
    if !output.contains(ELLIPSIS) {
        return Ok(vec![Some(to_x), Some(to_y)]);
    }
    let [to_x, to_y] = unbroadcast(&nodes, [(&x, &x_text, to_x), (&y, &y_text, to_y)])?;
    Ok(vec![Some(to_x), Some(to_y)])
}

fn sum_of_products(nodes: &Nodes<'_>, operands: &[&Tensor], equation: &str) -> Result<Tensor> {
    let operands: Vec<Tensor> = operands.iter().map(|&operand| operand.clone()).collect();
    nodes.node("Einsum").input(operands).attr("equation", equation).build()
}

/// The gradient of `einsum("input->output", input)`: repeated along the axes that the result lacks.
fn repeated(nodes: &Nodes<'_>, gradient: &Tensor, output: &str, input: &Tensor, input_text: &str) -> Result<Tensor> {
    let alone = labels_without(input_text, output);
    if alone.is_empty() {
        return sum_of_products(nodes, &[gradient], &format!("{output}->{input_text}"));
    }
    let shape = nodes.shape(input)?;
    let dims: Vec<Operand> = alone
        .chars()
        .map(|label| Ok(nodes.at_index(&shape, place_of(input_text, label))?.into_operand()))
        .collect::<Result<_>>()?;
    let count = dims.len();
    let own = nodes.shape(gradient)?;
    let full = nodes.concat(vec![dims.into_operand(), own.clone().into_operand()])?;
    let ones = nodes.constant(Value::int32_vector(std::iter::repeat_n(1, count)), "ones")?;
    let thin = nodes.concat(vec![ones.into_operand(), own.into_operand()])?;
    let wide = nodes.reshape(gradient, &thin)?;
    let wide = nodes.node("BroadcastTo").input(&wide).input(&full).build()?;
    sum_of_products(nodes, &[&wide], &format!("{alone}{output}->{input_text}"))
}

/// The axis of a label's first place: from the front before an ellipsis, from the end after it.
fn place_of(text: &str, label: char) -> i32 {
    let position = |text: &str| text.chars().position(|other| other == label);
    match text.split_once(ELLIPSIS) {
        None => position(text).map_or(0, |at| at as i32),
        Some((before, after)) => match (position(before), position(after)) {
            (Some(at), _) => at as i32,
            (None, Some(at)) => at as i32 - after.chars().count() as i32,
            (None, None) => 0,
        },
    }
}

/// Sums two gradients over the axes of the ellipsis that the operands were broadcast along.
fn unbroadcast(nodes: &Nodes<'_>, operands: [(&Tensor, &str, Tensor); 2]) -> Result<[Tensor; 2]> {
    let bounds = |text: &str| {
        let (before, after) = text.split_once(ELLIPSIS).unwrap_or((text, ""));
        let after = after.chars().count() as i32;
        (before.chars().count() as i32, (after > 0).then_some(-after))
    };
    let shapes = [nodes.shape(operands[0].0)?, nodes.shape(operands[1].0)?];
    let hidden = |index: usize| {
        let (start, end) = bounds(operands[index].1);
        nodes.slice(&shapes[index], Some(start), end)
    };
    let axes = nodes
        .node("BroadcastGradientArgs")
        .input(hidden(0)?)
        .input(hidden(1)?)
        .build_all()?;
    let sum = |index: usize| {
        let start = nodes.constant(bounds(operands[index].1).0, "add/x")?;
        let axes = nodes.add(&start, &axes[index])?;
        let sum = nodes.reduce("Sum", &operands[index].2, Some(axes.into_operand()), false)?;
        nodes.reshape(&sum, &shapes[index])
    };
    Ok([sum(0)?, sum(1)?])
}

typed_builder! {
    /// A sum of products about to be made; see [`einsum`].
    pub struct Einsum;
}

/// The sum of products of one or two `inputs` that `equation` describes: it names the axes of each input by a character
/// each, and those of the result after `->`. Axes with one name belong together; what the result does not name is summed; a
/// name that comes twice in one place means a diagonal. An ellipsis stands for any number of axes, which broadcast.
///
/// ```
/// use graph_ops::{array::constant, linalg::einsum};
/// let (a, b) = (constant([[1.0f32, 2.0], [3.0, 4.0]]).build()?, constant([5.0f32, 6.0]).build()?);
/// let product = einsum("ij,j->i", [&a, &b]).build()?;
/// let value: Vec<f32> = graph_core::Session::new(product.graph())?.run(&product, ())?;
/// assert_eq!(value, [17.0, 39.0]);
/// # Ok::<(), graph_core::Error>(())
/// ```
#[track_caller]
pub fn einsum<T: IntoOperand>(equation: &str, inputs: impl IntoIterator<Item = T>) -> Einsum {
    let inputs: Vec<Operand> = inputs.into_iter().map(IntoOperand::into_operand).collect();
    Einsum(crate::op("Einsum").input(inputs).attr("equation", equation))
}

#[cfg(test)]
pub(super) fn cases() -> Vec<crate::testing::Case> {
    use crate::testing::Case;
    let case = |equation: &str| Case::new("Einsum").attr("equation", equation);
    let (a, b) = (
        [[1.0f64, 2.0, 3.0], [4.0, 5.0, 6.0]],
        [[1.0f64, 2.0], [3.0, 4.0], [5.0, 6.0]],
    );
    vec![
        case("ij,jk->ik")
            .input(a)
            .input(b)
            .expect([[22.0f64, 28.0], [49.0, 64.0]]),
        case("ij,jk->ki")
            .input(a)
            .input(b)
            .expect([[22.0f64, 49.0], [28.0, 64.0]]),
        case("ij->ji").input(a).expect([[1.0f64, 4.0], [2.0, 5.0], [3.0, 6.0]]),
        case("ij->j").input(a).expect([5.0f64, 7.0, 9.0]),
        case("ij->").input(a).expect(21.0f64),
        case("ii->i").input([[1i32, 2], [3, 4]]).expect([1i32, 4]),
        case("ii->").input([[1i64, 2], [3, 4]]).expect(5i64),
        case("i->ii").input([1.0f32, 2.0]).expect([[1.0f32, 0.0], [0.0, 2.0]]),
        case("i,i->ii")
            .input([1.0f32, 2.0])
            .input([3.0f32, 4.0])
            .expect([[3.0f32, 0.0], [0.0, 8.0]]),
        case("a,b->")
            .input([1.0f32, 2.0])
            .input([1.0f32, 2.0, 3.0])
            .expect(18.0f32),
        case("ab,->ab")
            .input([[1.0f32, 2.0]])
            .input(3.0f32)
            .expect([[3.0f32, 6.0]]),
        case("...,...->...")
            .input([[1.0f32], [2.0]])
            .input([1.0f32, 2.0, 3.0])
            .expect([[1.0f32, 2.0, 3.0], [2.0, 4.0, 6.0]]),
        case("...i,i->...")
            .input(a)
            .input([1.0f64, 2.0, 3.0])
            .expect([14.0f64, 32.0]),
        case("b...ii->...b")
            .input([[[[1.0f32, 2.0], [3.0, 4.0]]], [[[5.0, 6.0], [7.0, 8.0]]]])
            .expect([[5.0f32, 13.0]]),
        case("ij,ij->")
            .input(a.map(|row| row.map(f16_of)))
            .input(a.map(|row| row.map(f16_of)))
            .expect(f16_of(91.0)),
        case("i,i->")
            .input([Complex::new(0.0f32, 1.0), Complex::new(1.0, 0.0)])
            .input([Complex::new(0.0f32, 1.0), Complex::new(1.0, 1.0)])
            .expect(Complex::new(0.0f32, 1.0)),
        case("ij,ij->")
            .input(Value::zeros(DType::Float32, [2, 0]).expect("a value"))
            .input(Value::zeros(DType::Float32, [2, 0]).expect("a value"))
            .expect(0.0f32),
    ]
}

#[cfg(test)]
fn f16_of(x: f64) -> f16 {
    f16::from_f64(x)
}

#[cfg(test)]
pub(super) fn gradient_cases() -> Vec<crate::testing::GradientCase> {
    use crate::testing::GradientCase;
    let numbers = |shape: &[usize]| {
        let count = shape.iter().product::<usize>();
        let elements: Vec<f64> = (0..count).map(|i| (i as f64 * 0.9).sin()).collect();
        Value::from_vec(shape, elements).expect("a value")
    };
    let unary = |equation: &str, shape: &[usize]| {
        let case = GradientCase::new("Einsum").attr("equation", equation);
        case.input(numbers(shape))
    };
    let binary = |equation: &str, x: &[usize], y: &[usize]| unary(equation, x).input(numbers(y));
    vec![
        unary("ij->ji", &[2, 3]),
        unary("ij->j", &[2, 3]),
        unary("aabc->cb", &[2, 2, 3, 2]),
        unary("...ii->...i", &[2, 3, 3]),
        unary("a...b->...", &[2, 3, 2]),
        unary("i->ii", &[3]),
        binary("ij,jk->ik", &[2, 3], &[3, 2]),
        binary("abi,bc->ca", &[2, 3, 2], &[3, 2]),
        binary("...ij,...jk->...ik", &[2, 1, 2, 3], &[2, 3, 2]),
        binary("...i,i->...", &[2, 3], &[3]),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Case;
    use graph_core::PartialShape;

    #[test]
    fn equations_that_make_no_sense_are_refused() {
        for equation in ["ab", "a->b->c", "a,b,c->a", "a->b", "a..->a", "......->..."] {
            let error = Equation::parse(equation).expect_err(equation);
            assert_eq!(error.class(), "InvalidArgument", "{equation}");
        }
    }

    #[test]
    fn operands_that_do_not_fit_are_refused() {
        let run = |equation: &str, x: [[f32; 3]; 2]| Case::new("Einsum").attr("equation", equation).input(x).run();
        let x = [[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]];
        for equation in ["abc->a", "a->a", "aa->a", "...a->a"] {
            assert_eq!(
                run(equation, x).expect_err(equation).class(),
                "InvalidArgument",
                "{equation}"
            );
        }
        assert!(run("ab->b", x).is_ok());
    }

    #[test]
    fn a_shape_is_known_as_far_as_its_operands() -> Result<()> {
        let infer = |equation: &str, shapes: &[PartialShape]| Equation::parse(equation)?.infer(shapes);
        let unknown = PartialShape::unknown();
        let matrix = PartialShape::from([Some(2), None]);
        assert_eq!(infer("ij,jk->ik", &[matrix.clone(), unknown.clone()])?, matrix);
        assert_eq!(infer("...i->i...", std::slice::from_ref(&unknown))?, unknown);
        assert_eq!(
            infer("...i->i...", std::slice::from_ref(&matrix))?,
            PartialShape::from([None, Some(2)])
        );
        Ok(())
    }
}
