//! `InplaceUpdate`, `InplaceAdd`, `InplaceSub` and `DeepCopy`: copies of a tensor with some of its rows changed.

use graph_core::graph::{IntoOperand, OpBuilder};
use graph_core::op::{InferenceContext, KernelContext, KernelDefinition, KernelRequest, OpDefinition, Planned};
use graph_core::{Complex, Element, Error, Result};
use graph_cuda::{Source, source};
use half::{bf16, f16};

use crate::array::moving::{Movement, Word, plan};
use crate::cuda::copy::{Transfer, copies};
use crate::cuda::launch::{Launch, Work};
use crate::cuda::{NAMED, NUMBERS, SIZED, type_name};

/// `DeepCopy`
pub(crate) fn deep_copy_definition() -> OpDefinition {
    OpDefinition::new("DeepCopy", "A copy of a tensor.")
        .input("x: T")
        .output("y: T")
        .attr("T: type")
        .stateful()
        .shape(InferenceContext::unchanged)
        .no_gradient()
        .kernel(KernelDefinition::cpu(|request| plan(request, [0], Copying)))
        .kernel(
            KernelDefinition::cuda(|request| {
                let count = request.input_shape(0).num_elements();
                let copy = Transfer::all(request, request.input_dtype(0), count)?;
                Ok(copies(vec![(0, 0, copy)]))
            })
            .types("T", SIZED),
        )
}

struct Copying;

impl Movement for Copying {
    fn run<T: Word>(&self, _: &KernelContext<'_>, inputs: &[&[T]], outputs: &mut [&mut [T]]) -> Result<()> {
        outputs[0].copy_from_slice(inputs[0]);
        Ok(())
    }
}

fn base(name: &'static str, summary: &'static str) -> OpDefinition {
    OpDefinition::new(name, summary)
        .input("x: T")
        .input("i: int32")
        .input("v: T")
        .output("y: T")
        .attr("T: type")
        .may_fail()
        .shape(shape)
        .no_gradient()
}

/// `InplaceUpdate`
pub(crate) fn update_definition() -> OpDefinition {
    base(
        "InplaceUpdate",
        "x with the rows i, counted modulo the number of rows, replaced by those of v; of equal ones the last counts.",
    )
    .kernel(KernelDefinition::cpu(|request| {
        check(request)?;
        let rows = Replace {
            row: row_len(request),
            count: request.input_shape(0)[0],
        };
        plan(request, [0, 2], rows)
    }))
    .kernel(KernelDefinition::cuda(|request| on_device(request, "update")).types("T", NAMED))
}

fn on_device(request: &KernelRequest<'_>, change: &str) -> Result<Planned> {
    const SOURCE: Source = source!("inplace.cu");
    check(request)?;
    let shape = request.input_shape(0);
    let (n, count) = (shape.num_elements(), request.input_shape(1).num_elements());
    let defines = [("T", type_name(request.input_dtype(0))?), ("CHANGE", change)];
    let numbers = [n, shape[0], row_len(request), count];
    let launch = Launch::new(request, &SOURCE, "change_rows", &defines, Work::Elements(n), &numbers)?;
    Ok(launch.over(&[0, 1, 2]))
}

struct Replace {
    row: usize,
    count: usize,
}

impl Movement for Replace {
    fn run<T: Word>(&self, context: &KernelContext<'_>, inputs: &[&[T]], outputs: &mut [&mut [T]]) -> Result<()> {
        let y = &mut *outputs[0];
        y.copy_from_slice(inputs[0]);
        for (at, row) in rows(context, self.count)?.enumerate() {
            y[row * self.row..(row + 1) * self.row].copy_from_slice(&inputs[1][at * self.row..(at + 1) * self.row]);
        }
        Ok(())
    }
}

/// A kernel for each dtype of numbers, with wrapping arithmetic of integers.
macro_rules! kernels {
    ($definition:expr, $operator:tt, $wrapping:ident) => {{
        let definition = $definition;
        kernels!(@add definition, |x, v| x $operator v; f32, f64, Complex<f32>, Complex<f64>, f16, bf16);
        kernels!(@add definition, |x, v| x.$wrapping(v); i8, i16, i32, i64, u8, u16, u32, u64);
        definition
    }};
    (@add $definition:ident, |$x:ident, $v:ident| $change:expr; $($type:ty),*) => {
        let $definition = $definition$(.kernel(
            KernelDefinition::cpu(|request| change::<$type>(request, |$x, $v| $change))
                .types("T", &[<$type as Element>::DTYPE]),
        ))*;
    };
}

/// `InplaceAdd`
pub(crate) fn add_definition() -> OpDefinition {
    let definition = base(
        "InplaceAdd",
        "x with the rows of v added to its rows i, counted modulo the number of rows.",
    );
    kernels!(definition, +, wrapping_add)
        .kernel(KernelDefinition::cuda(|request| on_device(request, "old + update")).types("T", NUMBERS))
}

/// `InplaceSub`
pub(crate) fn sub_definition() -> OpDefinition {
    let definition = base(
        "InplaceSub",
        "x with the rows of v subtracted from its rows i, counted modulo the number of rows.",
    );
    kernels!(definition, -, wrapping_sub)
        .kernel(KernelDefinition::cuda(|request| on_device(request, "old - update")).types("T", NUMBERS))
}

fn shape(context: &mut InferenceContext<'_>) -> Result<()> {
    context.with_rank_at_least(0, 1)?;
    context.with_rank(1, 1)?;
    context.set_output(0, context.input(0));
    Ok(())
}

fn row_len(request: &KernelRequest<'_>) -> usize {
    request.input_shape(0)[1..].iter().product()
}

/// An error unless there are as many rows as places for them, of the same shape, and rows to change.
fn check(request: &KernelRequest<'_>) -> Result<()> {
    let (x, i, v) = (request.input_shape(0), request.input_shape(1), request.input_shape(2));
    if v.rank() != x.rank() || v.first() != i.first() || v[1..] != x[1..] {
        return Err(
            Error::invalid_argument("v must have a row like those of x for each element of i")
                .expected(format!("rows as in shape {x}, as many as in shape {i}"))
                .got(format!("shape {v}")),
        );
    }
    if x[0] == 0 && i[0] > 0 {
        return Err(Error::invalid_argument("x has no rows to change"));
    }
    Ok(())
}

/// The rows that input 1 names, among `count`; a negative number counts from the end.
fn rows(context: &KernelContext<'_>, count: usize) -> Result<impl Iterator<Item = usize>> {
    let indices = context.input::<i32>(1)?;
    Ok(indices
        .iter()
        .map(move |&index| i64::from(index).rem_euclid(count as i64) as usize))
}

fn change<T: Element>(request: &KernelRequest<'_>, change: fn(T, T) -> T) -> Result<Planned> {
    check(request)?;
    let (row, count) = (row_len(request), request.input_shape(0)[0]);
    Ok(Planned::new(move |context: &mut KernelContext<'_>| {
        let (x, v, y) = (context.input::<T>(0)?, context.input::<T>(2)?, context.output::<T>(0)?);
        y.copy_from_slice(x);
        for (at, target) in rows(context, count)?.enumerate() {
            let y = &mut y[target * row..(target + 1) * row];
            let v = &v[at * row..(at + 1) * row];
            y.iter_mut().zip(v).for_each(|(y, &v)| *y = change(*y, v));
        }
        Ok(())
    }))
}

/// A copy of `x`.
#[track_caller]
pub fn deep_copy(x: impl IntoOperand) -> OpBuilder {
    crate::op("DeepCopy").input(x)
}

/// Defines the builder function of a change of rows.
macro_rules! builders {
    ($($(#[$doc:meta])* $function:ident => $op:literal;)*) => {$(
        $(#[$doc])*
        #[track_caller]
        pub fn $function(x: impl IntoOperand, i: impl IntoOperand, v: impl IntoOperand) -> OpBuilder {
            crate::op($op).input(x).input(i).input(v)
        }
    )*};
}

builders! {
    /// A copy of `x` with its rows `i` (an `int32` vector, counted modulo the number of rows) replaced by the rows of `v`.
    inplace_update => "InplaceUpdate";
    /// A copy of `x` with the rows of `v` added to its rows `i`, as in [`inplace_update`].
    inplace_add => "InplaceAdd";
    /// A copy of `x` with the rows of `v` subtracted from its rows `i`, as in [`inplace_update`].
    inplace_sub => "InplaceSub";
}

#[cfg(test)]
pub(crate) fn cases() -> Vec<crate::testing::Case> {
    use crate::testing::Case;
    let case = |op: &'static str| {
        Case::new(op)
            .input([[1.0f32, 2.0], [3.0, 4.0], [5.0, 6.0]])
            .input([-1i32, 1, 4])
            .input([[1.0f32, 1.0], [2.0, 2.0], [4.0, 4.0]])
    };
    let mut cases = vec![
        case("InplaceUpdate").expect([[1.0f32, 2.0], [4.0, 4.0], [1.0, 1.0]]),
        case("InplaceAdd").expect([[1.0f32, 2.0], [9.0, 10.0], [6.0, 7.0]]),
        case("InplaceSub").expect([[1.0f32, 2.0], [-3.0, -2.0], [4.0, 5.0]]),
        Case::new("InplaceUpdate")
            .input(graph_core::Value::from_strings([2], vec![b"a".to_vec(), b"b".to_vec()]).expect("strings"))
            .input([1i32])
            .input(graph_core::Value::from_strings([1], vec![b"c".to_vec()]).expect("strings"))
            .expect(graph_core::Value::from_strings([2], vec![b"a".to_vec(), b"c".to_vec()]).expect("strings")),
        Case::new("InplaceAdd")
            .input([200u8, 1])
            .input([0i32])
            .input([100u8])
            .expect([44u8, 1]),
        Case::new("InplaceSub")
            .input([Complex::new(1.0f64, 2.0)])
            .input([0i32])
            .input([Complex::new(0.0f64, 1.0)])
            .expect([Complex::new(1.0f64, 1.0)]),
    ];
    cases.push(
        Case::new("InplaceUpdate")
            .input([true, true])
            .input([0i32])
            .input([false])
            .expect([false, true]),
    );
    cases
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Case;

    #[test]
    fn rows_that_do_not_fit_are_refused() {
        let case = |x: graph_core::Value, i: graph_core::Value, v: graph_core::Value| {
            Case::new("InplaceAdd").input(x).input(i).input(v).run()
        };
        let x = [[1.0f32, 2.0], [3.0, 4.0]];
        assert!(case(x.into(), [0i32].into(), [[1.0f32, 1.0]].into()).is_ok());
        assert!(case(x.into(), [0i32].into(), [[1.0f32, 1.0], [1.0, 1.0]].into()).is_err());
        assert!(case(x.into(), [0i32].into(), [[1.0f32]].into()).is_err());
        assert!(case(x.into(), 0i32.into(), [1.0f32, 1.0].into()).is_err());
        let none = graph_core::Value::zeros(graph_core::DType::Float32, [0, 2]).expect("a value");
        assert!(case(none, [0i32].into(), [[1.0f32, 1.0]].into()).is_err());
    }

    #[test]
    fn a_copy_is_equal() -> Result<()> {
        let graph = graph_core::Graph::new();
        let _default = graph.as_default();
        let copy = deep_copy(crate::array::constant([1i64, 2, 3])).build()?;
        let value: Vec<i64> = graph_core::Session::new(&graph)?.run(&copy, ())?;
        assert_eq!(value, [1, 2, 3]);
        Ok(())
    }
}
