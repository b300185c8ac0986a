//! `cond`: one of two branches, as the graph runs.

use graph_core::graph::scope;
use graph_core::graph::{IntoOperand, OpBuilder, Operand, Operation, Tensor};
use graph_core::variable::Variable;
use graph_core::{DType, Error, Result};

use super::context::CondContext;
use super::group::wait_with;
use crate::composite::Composite;

/// A single result of a branch, before the branches are merged.
#[derive(Clone, Debug)]
pub enum BranchPart {
    /// Something with a value.
    Value(Operand),
    /// Something that only runs.
    Run(Operation),
}

/// What a branch can give singly: tensors, variables, builders and numbers, which merge into a [`Tensor`], and operations,
/// which merge into an [`Operation`].
pub trait BranchValue {
    /// What the two branches merge into.
    type Merged;
    /// The result as a part.
    fn into_part(self) -> BranchPart;
    /// What the tensor stands for that the two branches merged into.
    fn merged(tensor: Tensor) -> Self::Merged;
}

macro_rules! values_of_branches {
    ($($type:ty),*) => {$(
        impl BranchValue for $type {
            type Merged = Tensor;
            fn into_part(self) -> BranchPart {
                BranchPart::Value(self.into_operand())
            }
            fn merged(tensor: Tensor) -> Tensor {
                tensor
            }
        }
    )*};
}

values_of_branches!(
    Tensor, &Tensor, Variable, &Variable, OpBuilder, Operand, f32, f64, i32, i64, bool, &str
);

impl BranchValue for Operation {
    type Merged = Operation;
    fn into_part(self) -> BranchPart {
        BranchPart::Run(self)
    }
    fn merged(tensor: Tensor) -> Operation {
        tensor.op()
    }
}

/// What a branch can give: a [`BranchValue`], a vector of them, or a pair or triple.
pub trait BranchResult {
    /// What the two branches merge into.
    type Merged;
    /// The results one by one.
    fn into_parts(self) -> Vec<BranchPart>;
    /// What these tensors stand for, one for each part.
    ///
    /// # Errors
    /// `InvalidArgument` for another number of tensors.
    fn merged(tensors: Vec<Tensor>) -> Result<Self::Merged>;
}

fn wrong_count(got: usize) -> Error {
    Error::invalid_argument("the branches give another number of results").got(got)
}

impl<V: BranchValue> BranchResult for V {
    type Merged = V::Merged;
    fn into_parts(self) -> Vec<BranchPart> {
        vec![self.into_part()]
    }
    fn merged(tensors: Vec<Tensor>) -> Result<V::Merged> {
        let [tensor] = <[Tensor; 1]>::try_from(tensors).map_err(|tensors| wrong_count(tensors.len()))?;
        Ok(V::merged(tensor))
    }
}

impl<V: BranchValue> BranchResult for Vec<V> {
    type Merged = Vec<V::Merged>;
    fn into_parts(self) -> Vec<BranchPart> {
        self.into_iter().map(V::into_part).collect()
    }
    fn merged(tensors: Vec<Tensor>) -> Result<Vec<V::Merged>> {
        Ok(tensors.into_iter().map(V::merged).collect())
    }
}

impl<A: BranchValue, B: BranchValue> BranchResult for (A, B) {
    type Merged = (A::Merged, B::Merged);
    fn into_parts(self) -> Vec<BranchPart> {
        vec![self.0.into_part(), self.1.into_part()]
    }
    fn merged(tensors: Vec<Tensor>) -> Result<Self::Merged> {
        let [a, b] = <[Tensor; 2]>::try_from(tensors).map_err(|tensors| wrong_count(tensors.len()))?;
        Ok((A::merged(a), B::merged(b)))
    }
}

impl<A: BranchValue, B: BranchValue, C: BranchValue> BranchResult for (A, B, C) {
    type Merged = (A::Merged, B::Merged, C::Merged);
    fn into_parts(self) -> Vec<BranchPart> {
        vec![self.0.into_part(), self.1.into_part(), self.2.into_part()]
    }
    fn merged(tensors: Vec<Tensor>) -> Result<Self::Merged> {
        let [a, b, c] = <[Tensor; 3]>::try_from(tensors).map_err(|tensors| wrong_count(tensors.len()))?;
        Ok((A::merged(a), B::merged(b), C::merged(c)))
    }
}

/// A choice about to be made; see [`cond`].
#[must_use = "the branches are made by `build`"]
pub struct Cond<T, F> {
    predicate: Operand,
    true_branch: T,
    false_branch: F,
    name: String,
    site: Composite,
}

/// What `true_branch` makes where `predicate` (a `bool` scalar) is true when the graph runs, else what `false_branch`
/// makes. Only the operations made inside the branch that is taken run; those made before, outside, always do.
///
/// Both branches are built, and give results of the same number and dtypes; shapes may differ. A tensor made inside a
/// branch cannot be fetched where the other is taken: use what `build` gives.
///
/// ```
/// use graph_ops::array::constant;
/// use graph_ops::control::cond;
/// use graph_ops::math::{reduce_any, reduce_sum};
/// let x = constant([1.0f32, 2.0]).build()?;
/// let wanted = reduce_any([true, false]).build()?;
/// let result = cond(&wanted, || reduce_sum(&x).build(), || constant(0.0f32).build()).build()?;
/// assert_eq!(result.shape(), ().into());
/// # Ok::<(), graph_core::Error>(())
/// ```
#[track_caller]
pub fn cond<R, S, T, F>(predicate: impl IntoOperand, true_branch: T, false_branch: F) -> Cond<T, F>
where
    R: BranchResult,
    S: BranchResult<Merged = R::Merged>,
    T: FnOnce() -> Result<R>,
    F: FnOnce() -> Result<S>,
{
    let predicate = predicate.into_operand();
    let site = Composite::of(&[&predicate]);
    Cond {
        predicate,
        true_branch,
        false_branch,
        name: "cond".to_owned(),
        site,
    }
}

impl<R, S, T, F> Cond<T, F>
where
    R: BranchResult,
    S: BranchResult<Merged = R::Merged>,
    T: FnOnce() -> Result<R>,
    F: FnOnce() -> Result<S>,
{
    /// Names the scope.
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.name = name.into();
        self
    }

    /// Makes the branches and merges them.
    ///
    /// # Errors
    /// The branches' own, and `InvalidArgument` if the predicate is no `bool` scalar or is known while the graph is built,
    /// or if the branches' results do not match.
    pub fn build(self) -> Result<R::Merged> {
        let site = self.site;
        if let Operand::Number(known) | Operand::Array(known) = &self.predicate {
            return Err(Error::invalid_argument("the predicate must be a tensor")
                .got(known)
                .hint("choose with `if` what is known while the graph is built"));
        }
        let _scope = site.scope(&self.name)?;
        let predicate = site.tensor(&self.predicate, Some(DType::Bool), "pred")?;
        let split = site
            .node("Switch")
            .input(&predicate)
            .input(&predicate)
            .build_operation()?;
        let identity = |input: &Tensor, name: &str| site.node("Identity").input(input).name(name).build();
        let pivot_true = identity(&split.output(1), "switch_t")?;
        let pivot_false = identity(&split.output(0), "switch_f")?;
        let predicate = identity(&predicate, "pred_id")?;
        let (context, guard) = enter(&predicate, &pivot_true, true);
        let when_true = build_branch(&site, &context, &pivot_true, (self.true_branch)()?.into_parts())?;
        drop(guard);
        let (context, guard) = enter(&predicate, &pivot_false, false);
        let when_false = build_branch(&site, &context, &pivot_false, (self.false_branch)()?.into_parts())?;
        drop(guard);
        R::merged(merge_branches(&site, &when_true, &when_false)?)
    }
}

fn enter(predicate: &Tensor, pivot: &Tensor, branch: bool) -> (std::sync::Arc<CondContext>, scope::ScopeGuard) {
    let context = CondContext::new(predicate, pivot, branch);
    let guard = scope::control_flow_context(predicate.graph(), Some(context.clone()));
    (context, guard)
}

/// The results of a branch as tensors of the branch, which is still open.
fn build_branch(
    site: &Composite,
    context: &CondContext,
    pivot: &Tensor,
    parts: Vec<BranchPart>,
) -> Result<Vec<Tensor>> {
    let results: Vec<Tensor> = parts
        .into_iter()
        .map(|part| match part {
            BranchPart::Run(operation) => wait_with(
                site,
                &[operation],
                &Operand::Tensor(pivot.clone()),
                "control_dependency",
            ),
            BranchPart::Value(operand) => context.result(&site.tensor(&operand, None, "Const")?),
        })
        .collect::<Result<_>>()?;
    results.iter().try_for_each(|result| context.leave_with(result))?;
    Ok(results)
}

fn merge_branches(site: &Composite, when_true: &[Tensor], when_false: &[Tensor]) -> Result<Vec<Tensor>> {
    let describe = |results: &[Tensor]| {
        let dtypes: Vec<_> = results.iter().map(|result| result.dtype().to_string()).collect();
        format!("[{}]", dtypes.join(", "))
    };
    let same =
        when_true.len() == when_false.len() && when_true.iter().zip(when_false).all(|(a, b)| a.dtype() == b.dtype());
    if !same {
        return Err(Error::invalid_argument("the branches give different results")
            .expected(format!("{} as where the predicate is true", describe(when_true)))
            .got(describe(when_false)));
    }
    when_false
        .iter()
        .zip(when_true)
        .map(|(when_false, when_true)| {
            let op = if when_false.is_ref() && when_true.is_ref() {
                "RefMerge"
            } else {
                "Merge"
            };
            site.node(op).input([when_false, when_true]).name("Merge").build()
        })
        .collect()
}
