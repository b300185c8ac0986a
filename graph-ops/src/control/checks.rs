//! Assertions about tensors (`check_ops.py`): what constants decide is an error while the graph is built, the rest when
//! it runs.

use graph_core::graph::{IntoOperand, Operand, Operation, Tensor};
use graph_core::{DType, Error, PartialShape, Result, Value};

use super::assert::Assert;
use super::cond::cond;
use super::group::{no_op, with_dependencies};
use crate::array;
use crate::composite::Composite;
use crate::math::reduce_all;

/// A comparison of two tensors, element by element.
#[derive(Clone, Copy)]
struct Comparison {
    name: &'static str,
    op: &'static str,
    symbol: &'static str,
}

const EQUAL: Comparison = comparison("assert_equal", "Equal", "==");
const NONE_EQUAL: Comparison = comparison("assert_none_equal", "NotEqual", "!=");
const LESS: Comparison = comparison("assert_less", "Less", "<");
const LESS_EQUAL: Comparison = comparison("assert_less_equal", "LessEqual", "<=");
const GREATER: Comparison = comparison("assert_greater", "Greater", ">");
const GREATER_EQUAL: Comparison = comparison("assert_greater_equal", "GreaterEqual", ">=");

const fn comparison(name: &'static str, op: &'static str, symbol: &'static str) -> Comparison {
    Comparison { name, op, symbol }
}

/// A comparison of a tensor with 0.
#[derive(Clone, Copy)]
struct Sign {
    name: &'static str,
    text: &'static str,
    comparison: Comparison,
    /// Whether the comparison is of 0 with the tensor.
    zero_first: bool,
}

#[derive(Clone)]
enum Claim {
    Compare(Comparison, Operand),
    Sign(Sign),
    Near {
        y: Operand,
        rtol: Option<f64>,
        atol: Option<f64>,
    },
    Rank {
        rank: Operand,
        at_least: bool,
    },
}

/// An assertion about tensors about to be made; see [`assert_equal`] and the others.
#[must_use = "an assertion is made by `build`"]
pub struct Check {
    claim: Claim,
    x: Operand,
    data: Option<Vec<Operand>>,
    message: Option<String>,
    summarize: i64,
    name: Option<String>,
    site: Composite,
}

impl Check {
    #[track_caller]
    fn new(x: Operand, claim: Claim) -> Self {
        let site = match &claim {
            Claim::Compare(_, y) | Claim::Near { y, .. } => Composite::of(&[&x, y]),
            Claim::Rank { rank, .. } => Composite::of(&[&x, rank]),
            Claim::Sign(_) => Composite::of(&[&x]),
        };
        Self {
            claim,
            x,
            data: None,
            message: None,
            summarize: 3,
            name: None,
            site,
        }
    }

    /// What the error shows, texts and tensors, in place of the tensors compared.
    pub fn data<D: IntoOperand>(mut self, data: impl IntoIterator<Item = D>) -> Self {
        self.data = Some(data.into_iter().map(IntoOperand::into_operand).collect());
        self
    }

    /// The beginning of the error's text.
    pub fn message(mut self, message: impl Into<String>) -> Self {
        self.message = Some(message.into());
        self
    }

    /// How many elements of each tensor the error shows: 3 without, all if negative.
    pub fn summarize(mut self, elements: i64) -> Self {
        self.summarize = elements;
        self
    }

    /// Names the scope.
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.name = Some(name.into());
        self
    }

    /// Makes the assertion: an operation for others to wait for, as `control_dependencies` and
    /// [`with_dependencies`](super::with_dependencies) let them.
    ///
    /// # Errors
    /// The operands' own, and `InvalidArgument` if constants or shapes show already that the assertion fails.
    pub fn build(self) -> Result<Operation> {
        match self.claim.clone() {
            Claim::Compare(comparison, y) => self.compare(comparison, &y),
            Claim::Sign(sign) => self.sign(sign),
            Claim::Near { y, rtol, atol } => self.near(&y, rtol, atol),
            Claim::Rank { rank, at_least } => self.rank(&rank, at_least),
        }
    }

    fn compare(self, comparison: Comparison, y: &Operand) -> Result<Operation> {
        let site = &self.site;
        if comparison.op == EQUAL.op {
            // TensorFlow opens the scope a first time to see whether the two are the same tensor.
            let _scope = site.scope(self.name.as_deref().unwrap_or(comparison.name))?;
            if let (Operand::Tensor(x), Operand::Tensor(y)) = (&self.x, y)
                && x == y
            {
                return no_op("");
            }
        }
        let scope_name = self.name.as_deref().unwrap_or(comparison.name);
        compare(
            site,
            comparison,
            scope_name,
            (&self.x, y),
            self.data,
            self.message,
            self.summarize,
        )
    }

    fn sign(self, sign: Sign) -> Result<Operation> {
        let site = &self.site;
        let _scope = site.scope(self.name.as_deref().unwrap_or(sign.name))?;
        let x = site.tensor(&self.x, None, "x")?;
        let data = self.data.unwrap_or_else(|| {
            let (text, shown) = (
                format!("Condition {} did not hold element-wise:", sign.text),
                format!("x ({}) = ", x.name()),
            );
            let message = self.message.unwrap_or_default().into_operand();
            // TensorFlow 1.15 lacks a comma between these two texts.
            let texts = match sign.name {
                "assert_non_positive" => vec![(text + &shown).into_operand()],
                _ => vec![text.into_operand(), shown.into_operand()],
            };
            [vec![message], texts, vec![Operand::Tensor(x.clone())]].concat()
        });
        let zero = Operand::Tensor(site.constant(Value::scalar(0i32).cast_exactly(x.dtype())?, "Const")?);
        let x = Operand::Tensor(x);
        let operands = if sign.zero_first { (&zero, &x) } else { (&x, &zero) };
        compare(
            site,
            sign.comparison,
            sign.comparison.name,
            operands,
            Some(data),
            None,
            self.summarize,
        )
    }

    fn near(self, y: &Operand, rtol: Option<f64>, atol: Option<f64>) -> Result<Operation> {
        let site = &self.site;
        let _scope = site.scope(self.name.as_deref().unwrap_or("assert_near"))?;
        let x = site.tensor(&self.x, None, "x")?;
        let y = site.tensor(y, Some(x.dtype()), "y")?;
        let epsilon = match x.dtype() {
            DType::Float32 => f32::EPSILON.into(),
            DType::Float64 => f64::EPSILON,
            DType::Half => half::f16::EPSILON.into(),
            DType::BFloat16 => half::bf16::EPSILON.into(),
            dtype => {
                return Err(Error::invalid_argument("only floating-point tensors can be near each other").got(dtype));
            }
        };
        let tolerance = |given: Option<f64>, name| {
            let value = Value::scalar(given.unwrap_or(10.0 * epsilon)).cast_exactly(x.dtype())?;
            site.constant(value, name)
        };
        let (rtol, atol) = (tolerance(rtol, "rtol")?, tolerance(atol, "atol")?);
        let data = self.data.unwrap_or_else(|| {
            vec![
                self.message.unwrap_or_default().into_operand(),
                format!(
                    "x and y not equal to tolerance rtol = {}, atol = {}",
                    describe(&rtol),
                    describe(&atol)
                )
                .into_operand(),
                format!("x ({}) = ", x.name()).into_operand(),
                Operand::Tensor(x.clone()),
                format!("y ({}) = ", y.name()).into_operand(),
                Operand::Tensor(y.clone()),
            ]
        });
        let magnitude = |tensor: &Tensor| site.node("Abs").input(tensor).build();
        let relative = site.binary("Mul", &rtol, &magnitude(&y)?, "mul")?;
        let allowed = site.binary("AddV2", &atol, &relative, "add")?;
        let difference = magnitude(&site.binary("Sub", &x, &y, "sub")?)?;
        let holds = site.binary("Less", &difference, &allowed, "Less")?;
        let condition = reduce_all(&holds).build()?;
        Assert::at(site, condition, data, self.summarize).build()
    }

    fn rank(self, rank: &Operand, at_least: bool) -> Result<Operation> {
        let site = &self.site;
        let (name, text, op) = match at_least {
            true => ("assert_rank_at_least", "rank at least", "GreaterEqual"),
            false => ("assert_rank", "rank", "Equal"),
        };
        let _scope = site.scope(self.name.as_deref().unwrap_or(name))?;
        let x = site.tensor(&self.x, None, "x")?;
        let rank = site.tensor(rank, Some(DType::Int32), "rank")?;
        let message = self.message.unwrap_or_default();
        let data = match self.data {
            Some(data) => data,
            None => vec![
                message.as_str().into_operand(),
                format!("Tensor {} must have {text}", x.name()).into_operand(),
                Operand::Tensor(rank.clone()),
                "Received shape: ".into_operand(),
                Operand::Tensor(array::shape(&x).build()?),
            ],
        };
        assert_type(&rank, DType::Int32)?;
        if !rank.shape().is_compatible_with(&PartialShape::scalar()) {
            return Err(Error::invalid_argument("a rank must be a scalar").got(format!("{rank:?}")));
        }
        let known = rank.constant_value().map(|value| value.to_i64_vec()).transpose()?;
        if let (Some(&[wanted]), Some(actual)) = (known.as_deref(), x.shape().rank()) {
            let holds = if at_least {
                actual as i64 >= wanted
            } else {
                actual as i64 == wanted
            };
            if holds {
                return no_op("static_checks_determined_all_ok");
            }
            return Err(
                Error::invalid_argument(format!("{message}tensor '{}' has the wrong rank", x.name()))
                    .expected(format!("{text} {wanted}"))
                    .got(format!("rank {actual}, shape {}", x.shape()))
                    .at(x.op().site()),
            );
        }
        let mut condition = site.binary(op, &array::rank(&x).build()?, &rank, op)?;
        if known.is_none() {
            let text = "Rank must be a scalar. Received rank: ".into_operand();
            let scalar = assert_rank(&rank, 0).data([text, Operand::Tensor(rank)]).build()?;
            condition = with_dependencies([scalar], &condition)?;
        }
        Assert::at(site, condition, data, self.summarize).build()
    }
}

/// A tensor as Python prints it.
fn describe(tensor: &Tensor) -> String {
    let shape = tensor.shape().dims().map_or_else(String::new, |dims| {
        let dims: Vec<String> = dims
            .iter()
            .map(|dim| dim.map_or("?".to_owned(), |dim| dim.to_string()))
            .collect();
        let comma = if dims.len() == 1 { "," } else { "" };
        format!(", shape=({}{comma})", dims.join(", "))
    });
    // Python's names of the dtypes differ from TensorFlow's own for three.
    let dtype = match tensor.dtype() {
        DType::Float32 => "float32",
        DType::Float64 => "float64",
        DType::Half => "float16",
        dtype => dtype.name(),
    };
    format!("Tensor(\"{}\"{shape}, dtype={dtype})", tensor.name())
}

/// Asserts that a comparison holds for all elements.
fn compare(
    site: &Composite,
    comparison: Comparison,
    scope_name: &str,
    (x, y): (&Operand, &Operand),
    data: Option<Vec<Operand>>,
    message: Option<String>,
    summarize: i64,
) -> Result<Operation> {
    let _scope = site.scope(scope_name)?;
    let dtype = |operand: &Operand| match operand {
        Operand::Tensor(tensor) => Some(tensor.dtype()),
        Operand::Variable(variable) => Some(variable.dtype()),
        _ => None,
    };
    // A bare number takes the other's dtype.
    let (x, y) = (site.tensor(x, dtype(y), "x")?, site.tensor(y, dtype(x), "y")?);
    let mut data = data.unwrap_or_else(|| {
        vec![
            format!("Condition x {} y did not hold element-wise:", comparison.symbol).into_operand(),
            format!("x ({}) = ", x.name()).into_operand(),
            Operand::Tensor(x.clone()),
            format!("y ({}) = ", y.name()).into_operand(),
            Operand::Tensor(y.clone()),
        ]
    });
    if let Some(message) = message {
        data.insert(0, message.into_operand());
    }
    let condition = reduce_all(&site.binary(comparison.op, &x, &y, comparison.op)?).build()?;
    if x.constant_value().is_some()
        && y.constant_value().is_some()
        && let Some(holds) = condition.constant_value()
        && !holds.to_scalar::<bool>()?
    {
        let shown: Vec<String> = data.iter().filter_map(known_text).collect();
        return Err(Error::invalid_argument(shown.join(" ")).at(x.op().site()));
    }
    Assert::at(site, condition, data, summarize).build()
}

/// An operand of an error's data, as far as it is known while the graph is built.
fn known_text(operand: &Operand) -> Option<String> {
    match operand {
        Operand::Number(value) | Operand::Array(value) => Some(value.to_string()),
        Operand::Tensor(tensor) => Some(
            tensor
                .constant_value()
                .map_or_else(|| describe(tensor), |value| value.to_string()),
        ),
        _ => None,
    }
}

macro_rules! comparisons {
    ($($function:ident, $constant:ident, $doc:literal;)*) => {$(
        #[doc = concat!("Asserts that ", $doc, ", element by element; the two are broadcast together.")]
        #[track_caller]
        pub fn $function(x: impl IntoOperand, y: impl IntoOperand) -> Check {
            Check::new(x.into_operand(), Claim::Compare($constant, y.into_operand()))
        }
    )*};
}

comparisons! {
    assert_equal, EQUAL, "x = y";
    assert_none_equal, NONE_EQUAL, "x ≠ y";
    assert_less, LESS, "x < y";
    assert_less_equal, LESS_EQUAL, "x ≤ y";
    assert_greater, GREATER, "x > y";
    assert_greater_equal, GREATER_EQUAL, "x ≥ y";
}

macro_rules! signs {
    ($($function:ident, $text:literal, $comparison:ident, $zero_first:literal;)*) => {$(
        #[doc = concat!("Asserts that `", $text, "` for every element of `x`.")]
        #[track_caller]
        pub fn $function(x: impl IntoOperand) -> Check {
            Check::new(x.into_operand(), Claim::Sign(Sign {
                name: stringify!($function),
                text: $text,
                comparison: $comparison,
                zero_first: $zero_first,
            }))
        }
    )*};
}

signs! {
    assert_negative, "x < 0", LESS, false;
    assert_positive, "x > 0", LESS, true;
    assert_non_negative, "x >= 0", LESS_EQUAL, true;
    assert_non_positive, "x <= 0", LESS_EQUAL, false;
}

/// Asserts that `|x - y| < atol + rtol |y|` for every element of two floating-point tensors; both tolerances are ten times
/// the dtype's epsilon where `None`.
#[track_caller]
pub fn assert_near(x: impl IntoOperand, y: impl IntoOperand, rtol: Option<f64>, atol: Option<f64>) -> Check {
    let y = y.into_operand();
    Check::new(x.into_operand(), Claim::Near { y, rtol, atol })
}

/// Asserts that `x` has this rank, an `int32` scalar.
#[track_caller]
pub fn assert_rank(x: impl IntoOperand, rank: impl IntoOperand) -> Check {
    let rank = rank.into_operand();
    Check::new(x.into_operand(), Claim::Rank { rank, at_least: false })
}

/// Asserts that `x` has at least this rank, an `int32` scalar.
#[track_caller]
pub fn assert_rank_at_least(x: impl IntoOperand, rank: impl IntoOperand) -> Check {
    let rank = rank.into_operand();
    Check::new(x.into_operand(), Claim::Rank { rank, at_least: true })
}

/// Checks that `x` is of an integer dtype; a `NoOp` to wait for.
///
/// # Errors
/// `InvalidArgument` if it is not.
#[track_caller]
pub fn assert_integer(x: impl IntoOperand) -> Result<Operation> {
    let x = x.into_operand();
    let site = Composite::of(&[&x]);
    let _scope = site.scope("assert_integer")?;
    let x = site.tensor(&x, None, "x")?;
    if !x.dtype().is_integer() {
        return Err(Error::invalid_argument("the tensor must be of an integer dtype").got(format!("{x:?}")));
    }
    site.node("NoOp")
        .name("statically_determined_was_integer")
        .build_operation()
}

/// Checks that `tensor` is of this dtype; a `NoOp` to wait for.
///
/// # Errors
/// `InvalidArgument` if it is not.
#[track_caller]
pub fn assert_type(tensor: impl IntoOperand, dtype: DType) -> Result<Operation> {
    let tensor = tensor.into_operand();
    let site = Composite::of(&[&tensor]);
    let _scope = site.scope("assert_type")?;
    let tensor = site.tensor(&tensor, None, "tensor")?;
    if tensor.dtype() != dtype {
        return Err(Error::invalid_argument("the tensor is of the wrong dtype")
            .expected(dtype)
            .got(format!("{tensor:?}")));
    }
    site.node("NoOp")
        .name("statically_determined_correct_type")
        .build_operation()
}

/// Whether each element of `x`, row by row, is at least the one before it; true for less than two.
///
/// # Errors
/// The operand's own, or those of making nodes.
#[track_caller]
pub fn is_non_decreasing(x: impl IntoOperand) -> Result<Tensor> {
    is_monotonic(x.into_operand(), "is_non_decreasing", "LessEqual")
}

/// Whether each element of `x`, row by row, is greater than the one before it; true for less than two.
///
/// # Errors
/// The operand's own, or those of making nodes.
#[track_caller]
pub fn is_strictly_increasing(x: impl IntoOperand) -> Result<Tensor> {
    is_monotonic(x.into_operand(), "is_strictly_increasing", "Less")
}

#[track_caller]
fn is_monotonic(x: Operand, name: &str, op: &str) -> Result<Tensor> {
    let site = &Composite::of(&[&x]);
    let _scope = site.scope(name)?;
    let flat = site.node("Reshape").input(x).input([-1i32]).build()?;
    let short = site.binary("Less", &array::size(&flat).build()?, 2, "Less")?;
    let steps = site.binary("Sub", &array::shape(&flat).build()?, 1, "sub")?;
    let none = || site.constant(Value::zeros(flat.dtype(), [0])?, "Const");
    let part = |begin: i32, end: &Tensor| {
        let strides = array::ones_like([begin]).build()?;
        let slice = site.node("StridedSlice").input(&flat).input([begin]);
        slice.input(end).input(&strides).build()
    };
    let differences = || {
        let end = site.binary("AddV2", [1i32], &steps, "add")?;
        let later = part(1, &end)?;
        site.binary("Sub", &later, &part(0, &steps)?, "sub")
    };
    let differences = cond(&short, none, differences).build()?;
    let zero = site.constant(Value::scalar(0i32).cast_exactly(flat.dtype())?, "Const")?;
    reduce_all(&site.binary(op, &zero, &differences, op)?).build()
}

#[cfg(test)]
#[path = "checks_tests.rs"]
mod tests;
