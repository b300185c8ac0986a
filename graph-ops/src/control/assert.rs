//! `Assert` and `Abort`, and the guarded assertion that is built of them.

use graph_core::graph::{IntoOperand, Operand, Operation, Tensor};
use graph_core::op::{KernelContext, KernelDefinition, KernelRequest, OpDefinition, Planned};
use graph_core::{DType, Error, Result};

use super::cond::cond;
use super::group::no_op;
use super::summarize::summarize;
use crate::composite::Composite;

/// The definition of `Assert`.
pub(crate) fn definition() -> OpDefinition {
    OpDefinition::new(
        "Assert",
        "Fails where the condition is false, with the first elements of `data` in the message.",
    )
    .input("condition: bool")
    .input("data: T")
    .attr("T: list(type) >= 1")
    .attr("summarize: int = 3")
    .stateful()
    .may_fail()
    .shape(|context| context.with_rank(0, 0).map(drop))
    .not_differentiable()
    .kernel(KernelDefinition::cpu(make_assert))
}

fn make_assert(request: &KernelRequest<'_>) -> Result<Planned> {
    let limit: i64 = request.attr("summarize")?;
    Ok(Planned::new(move |context: &mut KernelContext<'_>| {
        match context.input::<bool>(0)? {
            [true] => return Ok(()),
            [false] => {}
            _ => {
                return Err(
                    Error::invalid_argument("the condition of an assertion must be a scalar")
                        .got(format!("shape {}", context.input_shape(0))),
                );
            }
        }
        let data = (1..context.num_inputs())
            .map(|index| Ok(format!("[{}]", summarize(&context.input_value(index)?, limit))))
            .collect::<Result<Vec<_>>>()?;
        Err(Error::invalid_argument(format!("assertion failed: {}", data.join(" "))))
    }))
}

/// The definition of `Abort`.
pub(crate) fn abort() -> OpDefinition {
    OpDefinition::new("Abort", "Fails with a message; the process goes on.")
        .attr("error_msg: string = ''")
        .attr("exit_without_error: bool = false")
        .may_fail()
        .not_differentiable()
        .kernel(KernelDefinition::cpu(|request| {
            let message: String = request.attr("error_msg")?;
            let quiet: bool = request.attr("exit_without_error")?;
            Ok(Planned::new(move |_: &mut KernelContext<'_>| match quiet {
                true => Ok(()),
                false => Err(Error::aborted(message.clone())),
            }))
        }))
}

/// An assertion about to be made; see [`assert`].
#[must_use = "an assertion is made by `build`"]
pub struct Assert {
    condition: Operand,
    data: Vec<Operand>,
    summarize: i64,
    name: String,
    site: Composite,
}

/// An operation that fails with `InvalidArgument` where `condition` (a `bool` scalar) is false, and shows the first
/// elements of each of `data`, tensors and texts. It runs only if something waits for it: see
/// [`with_dependencies`](super::with_dependencies) and `control_dependencies`.
///
/// ```
/// use graph_core::graph::IntoOperand;
/// use graph_ops::array::constant;
/// use graph_ops::control::{assert, with_dependencies};
/// use graph_ops::math::reduce_all;
/// let x = constant([true, true]).build()?;
/// let all = reduce_all(&x).build()?;
/// let checked = assert(&all, ["not all are true:".into_operand(), x.clone().into_operand()]).build()?;
/// let x = with_dependencies([checked], &x)?;
/// # Ok::<(), graph_core::Error>(())
/// ```
#[track_caller]
pub fn assert<D: IntoOperand>(condition: impl IntoOperand, data: impl IntoIterator<Item = D>) -> Assert {
    let condition = condition.into_operand();
    let data: Vec<Operand> = data.into_iter().map(IntoOperand::into_operand).collect();
    let operands: Vec<&Operand> = std::iter::once(&condition).chain(&data).collect();
    let site = Composite::of(&operands);
    Assert {
        condition,
        data,
        summarize: 3,
        name: "Assert".to_owned(),
        site,
    }
}

impl Assert {
    pub(super) fn at(site: &Composite, condition: Tensor, data: Vec<Operand>, summarize: i64) -> Self {
        Self {
            condition: Operand::Tensor(condition),
            data,
            summarize,
            name: "Assert".to_owned(),
            site: site.clone(),
        }
    }

    /// How many elements of each tensor are shown: 3 without, all if negative.
    pub fn summarize(mut self, elements: i64) -> Self {
        self.summarize = elements;
        self
    }

    /// Names the scope.
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.name = name.into();
        self
    }

    /// Makes the operations: the assertion stands in a branch that only a false condition takes, so that data on another
    /// device is only copied then; texts and `int32` are on the host anyway and need no branch.
    ///
    /// # Errors
    /// The operands' own, and `InvalidArgument` if the condition is no `bool` scalar.
    pub fn build(self) -> Result<Operation> {
        let site = &self.site;
        let _scope = site.scope(&self.name)?;
        let mut on_host = true;
        for operand in &self.data {
            let dtype = site.tensor(operand, None, "Const")?.dtype();
            on_host &= matches!(dtype, DType::String | DType::Int32);
        }
        let node = |condition: &Operand| {
            let node = site
                .node("Assert")
                .input(condition)
                .input(Operand::List(self.data.clone()));
            node.attr("summarize", self.summarize).build_operation()
        };
        if on_host {
            return node(&self.condition);
        }
        let condition = site.tensor(&self.condition, Some(DType::Bool), "Condition")?;
        let guarded = cond(&condition, || no_op(""), || node(&Operand::Tensor(condition.clone())));
        guarded.name("AssertGuard").build()
    }
}

#[cfg(test)]
pub(crate) fn cases() -> Vec<crate::testing::Case> {
    use crate::testing::Case;
    vec![
        Case::new("Assert")
            .input(true)
            .input(1i32)
            .attr("T", vec![graph_core::DType::Int32]),
        Case::new("Abort").attr("exit_without_error", true),
    ]
}

#[cfg(test)]
mod kernel_tests {
    use crate::testing::Case;
    use graph_core::DType;

    #[test]
    fn a_failed_assertion_shows_its_data() {
        let error = Case::new("Assert")
            .attr("T", vec![DType::String, DType::Float32])
            .input(false)
            .input("x is")
            .input([1.5f32, 2.0, 1.0 / 3.0, 7.0])
            .run()
            .unwrap_err();
        assert_eq!(error.class(), "InvalidArgument");
        assert_eq!(
            error.report().message,
            "assertion failed: [x is] [1.5 2 0.333333343...]"
        );
        let error = Case::new("Abort").attr("error_msg", "enough").run().unwrap_err();
        assert_eq!((error.class(), error.report().message.as_str()), ("Aborted", "enough"));
    }
}
