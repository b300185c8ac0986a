//! Comparisons of two operands, broadcast together; the result is `bool`. A comparison with NaN is false, `!=` true.

use graph_core::graph::{IntoOperand, OpBuilder};
use graph_core::op::{InferenceContext, KernelContext, KernelDefinition, OpDefinition, Planned};
use graph_core::{Complex, DType, PartialShape, Result, Value, typed_builder};
use half::{bf16, f16};

use crate::cuda::elementwise::{self, expression};
use crate::cuda::fill::fill;
use crate::cuda::{NAMED, NUMBERS};

use super::arithmetic::broadcast_strings;
use super::elementwise::{REAL_NUMBERS, kernel, run_binary, run_function2, run_widened2};
use crate::cpu::broadcast::Function2;

/// The answer of a comparison whose operands do not broadcast, where there is one element for all: not equal.
fn apart(context: &mut KernelContext<'_>, unequal: bool) -> Result<bool> {
    let apart = context.input_shape(0).broadcast(context.input_shape(1)).is_none();
    if apart {
        context.output::<bool>(0)?.fill(unequal);
    }
    Ok(apart)
}

/// Kernels of a comparison, for the types listed and for half types, which are compared as the wider numbers that they stand
/// for. With `apart`, what it is of operands that do not broadcast.
macro_rules! comparison_kernels {
    ([$($t:ty),*] $apart:tt |$x:ident, $y:ident| $e:expr) => {{
        struct F;
        $(
            impl Function2<$t, $t, bool> for F {
                #[inline(always)]
                fn of(&self, $x: $t, $y: $t) -> bool {
                    $e
                }
            }
        )*
        [
            $(comparison_kernels!(@kernel $t, run_function2::<$t, $t, bool>, $apart),)*
            comparison_kernels!(@kernel f16, run_widened2::<f16, bool>, $apart),
            comparison_kernels!(@kernel bf16, run_widened2::<bf16, bool>, $apart),
        ]
    }};
    (@kernel $t:ty, $run:expr, ()) => {
        kernel!($t, |context| $run(context, F))
    };
    (@kernel $t:ty, $run:expr, ($unequal:literal)) => {
        kernel!($t, |context| if apart(context, $unequal)? { Ok(()) } else { $run(context, F) })
    };
}

/// Adds kernels for all numbers with an order.
macro_rules! ordered_kernels {
    ($definition:expr; |$x:ident, $y:ident| $e:expr) => {{
        let mut definition = $definition;
        definition.kernels.extend(comparison_kernels!(
            [f32, f64, i32, i64, i8, i16, u8, u16, u32, u64]() | $x,
            $y | $e
        ));
        definition.kernel(expression!(|$x, $y| stringify!($e)).types("T", NUMBERS))
    }};
}

fn comparison(name: &'static str, summary: &'static str, types: &'static str) -> OpDefinition {
    OpDefinition::new(name, summary)
        .input("x: T")
        .input("y: T")
        .output("z: bool")
        .attr(types)
        .shape(InferenceContext::broadcast)
        .not_differentiable()
}

/// `Equal` and `NotEqual`; `$unequal` is what they say of values that differ.
macro_rules! equality {
    ($op:literal, $summary:literal, $unequal:literal, |$x:ident, $y:ident| $e:expr) => {{
        let mut definition = comparison($op, $summary, "T: type")
            .attr("incompatible_shape_error: bool = true")
            .commutative()
            .shape(equality_shape);
        definition.kernels.extend(comparison_kernels!(
            [f32, f64, i32, i64, i8, i16, u8, u16, u32, u64, bool, Complex<f32>, Complex<f64>]
            ($unequal) |$x, $y| $e
        ));
        let definition = definition.kernel(
            KernelDefinition::cuda(|request| {
                if request.input_shape(0).broadcast(request.input_shape(1)).is_none() {
                    return fill(request, stringify!($unequal));
                }
                elementwise::map(request, &[stringify!($x), stringify!($y)], stringify!($e))
            })
            .types("T", NAMED),
        );
        definition.kernel(
            KernelDefinition::direct(|context| {
                    let shape = context.output_shape(0).clone();
                    let broadcast = context.input_shape(0).broadcast(context.input_shape(1)).is_some();
                    let answers = if broadcast {
                        broadcast_strings(context, |$x, $y| $e)?
                    } else {
                        vec![$unequal]
                    };
                    context.set_output(0, Value::from_vec(shape, answers)?);
                    Ok(())
                })
            .types("T", &[DType::String]),
        )
    }};
}

/// `Equal`
pub(crate) fn equal_op() -> OpDefinition {
    equality!("Equal", "x == y, element by element.", false, |x, y| x == y)
}

/// `NotEqual`
pub(crate) fn not_equal_op() -> OpDefinition {
    equality!("NotEqual", "x != y, element by element.", true, |x, y| x != y)
}

/// Shapes that do not broadcast are unequal as a whole, where the attribute asks for that.
fn equality_shape(context: &mut InferenceContext<'_>) -> Result<()> {
    if context.attr::<bool>("incompatible_shape_error")? {
        return InferenceContext::broadcast(context);
    }
    let (x, y) = (context.input(0), context.input(1));
    let shape = match x.broadcast(y) {
        // What is not known might not broadcast, and then the result is a scalar.
        Some(shape) if x.is_fully_defined() && y.is_fully_defined() => shape,
        Some(_) => PartialShape::unknown(),
        None => PartialShape::scalar(),
    };
    context.set_output(0, shape);
    Ok(())
}

/// `Less`
pub(crate) fn less_op() -> OpDefinition {
    ordered_kernels!(comparison("Less", "x < y, element by element.", REAL_NUMBERS); |x, y| x < y)
}

/// `LessEqual`
pub(crate) fn less_equal_op() -> OpDefinition {
    ordered_kernels!(comparison("LessEqual", "x <= y, element by element.", REAL_NUMBERS); |x, y| x <= y)
}

/// `Greater`
pub(crate) fn greater_op() -> OpDefinition {
    ordered_kernels!(comparison("Greater", "x > y, element by element.", REAL_NUMBERS); |x, y| x > y)
}

/// `GreaterEqual`
pub(crate) fn greater_equal_op() -> OpDefinition {
    ordered_kernels!(comparison("GreaterEqual", "x >= y, element by element.", REAL_NUMBERS); |x, y| x >= y)
}

/// `ApproximateEqual`
pub(crate) fn approximate_equal_op() -> OpDefinition {
    macro_rules! within {
        ($definition:expr; $($t:ty: |$d:ident| $distance:expr),*) => {
            $definition $(.kernel(
                KernelDefinition::cpu(|request| {
                    let tolerance: f32 = request.attr("tolerance")?;
                    Ok(Planned::new(move |context| {
                        let close: &(dyn Fn($t, $t) -> bool + Sync) = &|x, y| {
                            let $d = if x < y { y - x } else { x - y };
                            $distance < tolerance as _
                        };
                        run_binary::<$t, $t, bool>(context, |x, y| close(x, y))
                    }))
                })
                .types("T", &[<$t as graph_core::Element>::DTYPE])
            ))*
        };
    }
    let definition = comparison(
        "ApproximateEqual",
        "|x - y| < tolerance, element by element.",
        REAL_NUMBERS,
    )
    .attr("tolerance: float = 1e-05")
    .commutative()
    .shape(InferenceContext::merged);
    within!(
        definition;
        f32: |d| d, f64: |d| d, f16: |d| d.to_f32(), bf16: |d| d.to_f32(),
        i8: |d| d as f32, i16: |d| d as f32, i32: |d| d as f32, i64: |d| d as f32, u8: |d| d as f32, u16: |d| d as f32
    )
    .kernel(
        KernelDefinition::cuda(|request| {
            let tolerance: f32 = request.attr("tolerance")?;
            // The distance is rounded as the elements are.
            let within = format!("X0(x < y ? y - x : x - y) < bits_float({:#x}u)", tolerance.to_bits());
            elementwise::map(request, &["x", "y"], &within)
        })
        .types("T", NUMBERS),
    )
}

typed_builder! {
    /// A test for equality about to be made; see [`equal`] and [`not_equal`].
    pub struct Equality;
}

impl Equality {
    /// Whether shapes that do not broadcast are an error; if not, the operands are unequal as a whole, a scalar.
    pub fn incompatible_shape_error(self, error: bool) -> Self {
        Self(self.0.attr("incompatible_shape_error", error))
    }
}

/// `x == y`, element by element, of numbers, truth values or strings; a `bool` tensor.
///
/// ```
/// use graph_ops::{array::constant, math};
/// let same = math::equal(&constant(["a", "b"]).build()?, "a").build()?;
/// assert_eq!(same.dtype(), graph_core::DType::Bool);
/// # Ok::<(), graph_core::Error>(())
/// ```
///
/// # Errors
/// `InvalidArgument` on `build` for operands of different dtypes or of shapes that do not broadcast.
#[track_caller]
pub fn equal(x: impl IntoOperand, y: impl IntoOperand) -> Equality {
    Equality(crate::op("Equal").input(x).input(y))
}

/// `x != y`, element by element, of numbers, truth values or strings; a `bool` tensor.
#[track_caller]
pub fn not_equal(x: impl IntoOperand, y: impl IntoOperand) -> Equality {
    Equality(crate::op("NotEqual").input(x).input(y))
}

/// `x < y`, element by element; a `bool` tensor.
#[track_caller]
pub fn less(x: impl IntoOperand, y: impl IntoOperand) -> OpBuilder {
    crate::op("Less").input(x).input(y)
}

/// `x <= y`, element by element; a `bool` tensor.
#[track_caller]
pub fn less_equal(x: impl IntoOperand, y: impl IntoOperand) -> OpBuilder {
    crate::op("LessEqual").input(x).input(y)
}

/// `x > y`, element by element; a `bool` tensor.
#[track_caller]
pub fn greater(x: impl IntoOperand, y: impl IntoOperand) -> OpBuilder {
    crate::op("Greater").input(x).input(y)
}

/// `x >= y`, element by element; a `bool` tensor.
#[track_caller]
pub fn greater_equal(x: impl IntoOperand, y: impl IntoOperand) -> OpBuilder {
    crate::op("GreaterEqual").input(x).input(y)
}

typed_builder! {
    /// A test for closeness about to be made; see [`approximate_equal`].
    pub struct ApproximateEqual;
}

impl ApproximateEqual {
    /// The distance at which numbers count as different; 1e-5 without.
    pub fn tolerance(self, tolerance: f32) -> Self {
        Self(self.0.attr("tolerance", tolerance))
    }
}

/// `|x - y| < tolerance`, element by element, of tensors of one shape; a `bool` tensor.
#[track_caller]
pub fn approximate_equal(x: impl IntoOperand, y: impl IntoOperand) -> ApproximateEqual {
    ApproximateEqual(crate::op("ApproximateEqual").input(x).input(y))
}

#[cfg(test)]
pub(crate) fn cases() -> Vec<crate::testing::Case> {
    use crate::testing::Case;
    let case = |op: &'static str, x: Value, y: Value| Case::new(op).input(x).input(y);
    let strings = || Value::from_strings([2], vec![b"a".to_vec(), b"b".to_vec()]).expect("one shape");
    let nan = f32::NAN;
    let (x, y) = ([[1.0f32], [nan], [3.0]], [1.0f32, 2.0]);
    let mut cases = vec![
        case("Equal", strings(), Value::string("a")).expect([true, false]),
        case("NotEqual", strings(), Value::string("a")).expect([false, true]),
        case("Equal", [true, false].into(), true.into()).expect([true, false]),
        case(
            "Equal",
            [Complex::new(1.0f32, 2.0)].into(),
            [Complex::new(1.0f32, 2.5)].into(),
        )
        .expect([false]),
        case("Equal", [1.0f32, 2.0].into(), [1.0f32, 2.0, 3.0].into())
            .attr("incompatible_shape_error", false)
            .expect(false),
        case("NotEqual", [1.0f32, 2.0].into(), [1.0f32, 2.0, 3.0].into())
            .attr("incompatible_shape_error", false)
            .expect(true),
        case("Equal", Vec::<f32>::new().into(), 1.0f32.into()).expect(Vec::<bool>::new()),
        case(
            "ApproximateEqual",
            [1.0f32, nan, 2.0].into(),
            [1.05f32, nan, 3.0].into(),
        )
        .attr("tolerance", 0.1f32)
        .expect([true, false, false]),
        case("ApproximateEqual", [1u8, 5].into(), [2u8, 5].into()).expect([false, true]),
    ];
    for (op, expected) in [
        ("Equal", [[true, false], [false, false], [false, false]]),
        ("NotEqual", [[false, true], [true, true], [true, true]]),
        ("Less", [[false, true], [false, false], [false, false]]),
        ("LessEqual", [[true, true], [false, false], [false, false]]),
        ("Greater", [[false, false], [false, false], [true, true]]),
        ("GreaterEqual", [[true, false], [false, false], [true, true]]),
    ] {
        cases.extend([
            case(op, x.into(), y.into()).expect(expected),
            case(op, x.map(|row| row.map(f64::from)).into(), y.map(f64::from).into()).expect(expected),
            case(
                op,
                x.map(|row| row.map(f16::from_f32)).into(),
                y.map(f16::from_f32).into(),
            )
            .expect(expected),
            case(
                op,
                x.map(|row| row.map(bf16::from_f32)).into(),
                y.map(bf16::from_f32).into(),
            )
            .expect(expected),
        ]);
        let row = [expected[0], expected[2]];
        macro_rules! integers {
            ($($t:ty),*) => {
                $(cases.push(case(op, [[1 as $t], [3]].into(), [1 as $t, 2].into()).expect(row));)*
            };
        }
        integers!(i8, i16, i32, i64, u8, u16, u32, u64);
    }
    cases
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shapes_that_do_not_broadcast_are_an_error_or_unequal() {
        use crate::array::constant;
        let graph = graph_core::Graph::new();
        let _default = graph.as_default();
        let (a, b) = (
            constant([1.0f32, 2.0]).build().unwrap(),
            constant([1.0f32, 2.0, 3.0]).build().unwrap(),
        );
        let error = equal(&a, &b).build().unwrap_err();
        assert!(error.to_string().contains("[2] vs. [3]"), "{error}");
        let unequal = equal(&a, &b).incompatible_shape_error(false).build().unwrap();
        assert_eq!(unequal.shape(), PartialShape::scalar());
    }
}
