//! `NthElement`: the n-th smallest element along the last axis.

use std::cmp::Ordering;

use graph_core::gradients::GradientContext;
use graph_core::graph::{IntoOperand, Tensor};
use graph_core::op::{InferenceContext, KernelContext, KernelDefinition, KernelRequest, OpDefinition, Planned};
use graph_core::{DType, Element, Error, PartialShape, Result, typed_builder};
use half::{bf16, f16};

use crate::math::nodes::Nodes;

/// `NthElement`
pub(super) fn definition() -> OpDefinition {
    let definition = OpDefinition::new(
        "NthElement",
        "The element along the last axis that n others come before when they are sorted, rising or falling.",
    )
    .input("input: T")
    .input("n: int32")
    .output("values: T")
    .attr("reverse: bool = false")
    .attr("T: realnumbertype")
    .may_fail()
    .shape(shape)
    .gradient(gradient);
    macro_rules! kernels {
        ($($dtype:ident $type:ty),*) => {
            definition$(.kernel(KernelDefinition::cpu(kernel::<$type>).types("T", &[DType::$dtype])))*
        };
    }
    kernels!(
        Float32 f32, Float64 f64, Half f16, BFloat16 bf16, Int8 i8, Int16 i16, Int32 i32, Int64 i64, UInt8 u8,
        UInt16 u16, UInt32 u32, UInt64 u64
    )
}

/// The place asked for, along an axis of `len` elements.
fn place(n: i64, len: Option<usize>) -> Result<usize> {
    usize::try_from(n)
        .ok()
        .filter(|&n| len.is_none_or(|len| n < len))
        .ok_or_else(|| {
            let error = Error::invalid_argument("n is outside of the last axis").got(n);
            match len {
                Some(len) => error.expected(format!("0 to {}", len as i64 - 1)),
                None => error.expected("a number that is not negative"),
            }
        })
}

fn shape(context: &mut InferenceContext<'_>) -> Result<()> {
    let input = context.with_rank_at_least(0, 1)?;
    context.with_rank(1, 0)?;
    let Some((&last, batch)) = input.dims().and_then(|dims| dims.split_last()) else {
        return Ok(());
    };
    if let Some(&[n]) = context.int_values(1)?.as_deref() {
        place(n, last)?;
    }
    context.set_output(0, PartialShape::from_dims(batch.iter().copied()));
    Ok(())
}

fn kernel<T: Element + PartialOrd>(request: &KernelRequest<'_>) -> Result<Planned> {
    let shape = request.input_shape(0);
    let Some(&len) = shape.last() else {
        return Err(Error::invalid_argument("the input must have at least one axis"));
    };
    let reverse: bool = request.attr("reverse")?;
    Ok(Planned::new(move |context: &mut KernelContext<'_>| {
        let n = place(context.input::<i32>(1)?[0].into(), Some(len))?;
        let (input, output) = (context.input::<T>(0)?, context.output::<T>(0)?);
        let mut sorted = Vec::with_capacity(len);
        for (out, row) in output.iter_mut().zip(input.chunks_exact(len)) {
            sorted.clear();
            sorted.extend_from_slice(row);
            let (_, nth, _) = sorted.select_nth_unstable_by(n, |a, b| {
                let order = numbers_first(a, b);
                if reverse { order.reverse() } else { order }
            });
            *out = *nth;
        }
        Ok(())
    }))
}

/// Rising, with what is no number behind all that is.
fn numbers_first<T: PartialOrd>(a: &T, b: &T) -> Ordering {
    let is_nan = |x: &T| x.partial_cmp(x).is_none();
    a.partial_cmp(b).unwrap_or_else(|| is_nan(a).cmp(&is_nan(b)))
}

/// Shared among the elements that are equal to the one that was taken.
fn gradient(context: &mut GradientContext<'_>) -> Result<Vec<Option<Tensor>>> {
    let nodes = Nodes::of(context);
    let (input, output, gradient) = (context.input(0), context.output(0), context.gradient(0)?);
    let expand = |x: &Tensor| nodes.node("ExpandDims").input(x).input(-1i32).build();
    let equal = nodes.binary("Equal", "Equal", expand(&output)?, &input)?;
    let indicators = nodes.cast(&equal, gradient.dtype())?;
    let count = nodes.reduce("Sum", &indicators, Some((-1i32).into_operand()), false)?;
    let share = nodes.truediv(&indicators, expand(&count)?)?;
    Ok(vec![Some(nodes.mul(&share, expand(&gradient)?)?), None])
}

typed_builder! {
    /// The n-th elements about to be found; see [`nth_element`].
    pub struct NthElement;
}

impl NthElement {
    /// Counts from the greatest element instead of from the smallest.
    pub fn reverse(self, reverse: bool) -> Self {
        Self(self.0.attr("reverse", reverse))
    }
}

/// Of the elements along the last axis of `input` the one that `n` (a number, `int32`) others come before when they are
/// sorted: shape [...] for an input of shape [..., k]. An `n` outside of the axis is `InvalidArgument`.
#[track_caller]
pub fn nth_element(input: impl IntoOperand, n: impl IntoOperand) -> NthElement {
    NthElement(crate::op("NthElement").input(input).input(n))
}

#[cfg(test)]
pub(super) fn cases() -> Vec<crate::testing::Case> {
    use crate::testing::Case;
    let matrix = [[3.0f64, 1.0, 2.0], [7.0, 5.0, 4.0]];
    vec![
        Case::new("NthElement").input(matrix).input(0i32).expect([1.0f64, 4.0]),
        Case::new("NthElement").input(matrix).input(2i32).expect([3.0f64, 7.0]),
        Case::new("NthElement")
            .attr("reverse", true)
            .input(matrix)
            .input(0i32)
            .expect([3.0f64, 7.0]),
        Case::new("NthElement").input([3i32, 1, 2]).input(1i32).expect(2i32),
        Case::new("NthElement")
            .input([3.0f32, f32::NAN, 2.0])
            .input(1i32)
            .expect(3.0f32),
        Case::new("NthElement").input([3u8, 255, 2]).input(2i32).expect(255u8),
    ]
}

#[cfg(test)]
pub(super) fn gradient_cases() -> Vec<crate::testing::GradientCase> {
    use crate::testing::GradientCase;
    let matrix = [[3.0f64, 1.0, 2.0], [7.0, 5.0, 4.0]];
    [false, true]
        .map(|reverse| {
            GradientCase::new("NthElement")
                .attr("reverse", reverse)
                .input(matrix)
                .input(0i32)
        })
        .into()
}

#[cfg(test)]
mod tests {
    use crate::testing::Case;

    #[test]
    fn there_is_no_element_outside() {
        for n in [-1i32, 3] {
            let case = Case::new("NthElement").input([3.0f32, 1.0, 2.0]).input(n);
            assert_eq!(case.run().expect_err("it is outside").class(), "InvalidArgument");
        }
        assert!(Case::new("NthElement").input(1.0f32).input(0i32).run().is_err());
    }
}
