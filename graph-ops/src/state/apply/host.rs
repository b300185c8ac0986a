//! What the host's kernels of all rules share: where they find their inputs, and the pass over variables and gradient.

use std::ops::Range;
use std::sync::Arc;

use graph_core::op::{KernelContext, KernelRequest};
use graph_core::{DType, Element, Error, Result, Shape};

use super::chained::Chained;
use super::{Number, no_rows};
use crate::cpu::Short;
use crate::cpu::chain::Chain;
use crate::cpu::parallel::{GRAIN, SharedMut, for_each_range};
use crate::cpu::simd::multiversion;
use crate::rewrite::elementwise;
use crate::state::assign::{different_shapes, variable_shape};
use crate::state::update::hand_on;

/// Which input the condition of a masked update is.
pub(super) fn mask_of(request: &KernelRequest<'_>) -> Option<usize> {
    let last = request.num_inputs().checked_sub(1)?;
    (request.input_dtype(last) == DType::Bool).then_some(last)
}

/// Whether the condition holds that is input `mask`.
pub(in crate::state) fn holds(context: &KernelContext<'_>, mask: usize) -> Result<bool> {
    match context.input::<bool>(mask)? {
        [holds] => Ok(*holds),
        _ => Err(Error::invalid_argument("the condition must be a scalar").got(context.input_shape(mask))),
    }
}

/// Where a kernel finds its inputs: in the order of its rule, but for the indices of a sparse update behind the gradient.
#[derive(Clone)]
pub(super) struct Inputs {
    gradient: usize,
    indices: Option<usize>,
    /// The condition of a masked update.
    mask: Option<usize>,
    /// What the gradients are made of, where they are chains: one of each variable that is updated.
    chained: Option<(Arc<Chained>, Vec<Arc<Chain>>)>,
}

impl Inputs {
    /// The inputs of a rule whose gradient is input `gradient`.
    ///
    /// # Errors
    /// `Internal` for a broken chain.
    pub(super) fn of(request: &KernelRequest<'_>, gradient: usize) -> Result<Self> {
        let sparse = request.attrs.get("Tindices").is_some();
        let chained = Chained::of(request)?;
        let mask = match &chained {
            Some(chained) => chained.mask,
            None => mask_of(request),
        };
        let chained = chained.map(|chained| {
            let parts = chained.operands.iter().zip(&chained.shapes);
            let chains =
                parts.map(|(operands, shape)| elementwise::chain(request, operands.clone(), shape).map(Arc::new));
            Ok::<_, Error>((chains.collect::<Result<Vec<_>>>()?, chained))
        });
        Ok(Self {
            gradient,
            indices: sparse.then_some(gradient + 1),
            mask,
            chained: chained
                .transpose()?
                .map(|(chains, chained)| (Arc::new(chained), chains)),
        })
    }

    /// How many variables are updated.
    fn count(&self) -> usize {
        self.chained.as_ref().map_or(1, |(_, chains)| chains.len())
    }

    /// Which input is the variable, or its slot, `number` of the update `at`.
    fn variable(&self, at: usize, number: usize) -> usize {
        self.chained
            .as_ref()
            .map_or(number, |(chained, _)| chained.variable(at, number))
    }

    /// The chain that the gradient of the update `at` is, and its operands.
    fn chain(&self, at: usize) -> Option<(&Chain, Range<usize>, &Shape)> {
        let (chained, chains) = self.chained.as_ref()?;
        Some((&*chains[at], chained.operands[at].clone(), &chained.shapes[at]))
    }

    /// Whether the update is to change nothing.
    fn is_masked(&self, context: &KernelContext<'_>) -> Result<bool> {
        self.mask.map_or(Ok(false), |mask| Ok(!holds(context, mask)?))
    }

    /// The scalar that is input `index` of the rule.
    pub(super) fn scalar<T: Element>(&self, context: &KernelContext<'_>, index: usize) -> Result<T> {
        let index = match self.indices {
            Some(indices) if index >= indices => index + 1,
            _ if self.chained.is_some() && index > self.gradient => index - 1,
            _ => index,
        };
        match context.input::<T>(index)? {
            [scalar] => Ok(*scalar),
            _ => {
                Err(Error::invalid_argument(format!("input {index} must be a scalar")).got(context.input_shape(index)))
            }
        }
    }

    /// Where the rows begin that are to be updated, and how long they are; `None` for all of the variable.
    fn rows(&self, context: &KernelContext<'_>, variable: &Shape) -> Result<Option<(Vec<usize>, usize)>> {
        let Some(indices) = self.indices else {
            let gradient = context.input_shape(self.gradient);
            if gradient != variable {
                return Err(different_shapes("the variable and its gradient", variable, gradient));
            }
            return Ok(None);
        };
        let (&count, row) = variable.split_first().ok_or_else(no_rows)?;
        let named = context.input_shape(indices);
        let expected: Shape = named.iter().chain(row).copied().collect();
        if named.rank() != 1 || *context.input_shape(self.gradient) != expected {
            return Err(
                Error::invalid_argument("the gradient must have a row of the variable for each index")
                    .expected(expected)
                    .got(context.input_shape(self.gradient)),
            );
        }
        let len = row.iter().product();
        let starts = match context.input_dtype(indices) {
            DType::Int32 => starts(context.input::<i32>(indices)?, count, len)?,
            _ => starts(context.input::<i64>(indices)?, count, len)?,
        };
        Ok(Some((starts, len)))
    }
}

fn starts<I: Element + Into<i64>>(indices: &[I], rows: usize, len: usize) -> Result<Vec<usize>> {
    let start = |(number, &index): (usize, &I)| {
        let index: i64 = index.into();
        match usize::try_from(index) {
            Ok(row) if row < rows => Ok(row * len),
            _ => Err(Error::invalid_argument(format!(
                "indices[{number}] = {index} is not in [0, {rows})"
            ))),
        }
    };
    indices.iter().enumerate().map(start).collect()
}

/// The variable and the slots of the update `at`, all of one shape.
fn variables<'a, T: Element, const N: usize>(
    context: &mut KernelContext<'a>,
    inputs: &Inputs,
    at: usize,
    shape: &Shape,
) -> Result<[&'a mut [T]; N]> {
    for slot in 1..N {
        let slot = variable_shape(context, inputs.variable(at, slot))?;
        if slot != *shape {
            return Err(different_shapes("the variable and its slot", shape, &slot));
        }
    }
    let mut variables: [&mut [T]; N] = std::array::from_fn(|_| Default::default());
    for (number, variable) in variables.iter_mut().enumerate() {
        *variable = context.variable_mut::<T>(inputs.variable(at, number))?;
    }
    Ok(variables)
}

/// Functions that call `step` for each element of so many variables and their gradient: of all of a variable in parallel over
/// fixed chunks, of rows in the order of their indices, in which a row may come up again.
macro_rules! passes {
    ($($(#[$doc:meta])* $name:ident $chunk:ident $count:literal ($($variable:ident),*);)*) => {$(
        $(#[$doc])*
        pub(super) fn $name<T: Number>(
            context: &mut KernelContext<'_>,
            inputs: &Inputs,
            step: impl Fn($(elements!($variable T),)* T) + Copy + Send + Sync,
        ) -> Result<()> {
            multiversion! {
                wide fn $chunk[T: Element, F: Fn($(elements!($variable T),)* T)]($($variable: &mut [T],)* gradient: &[T], step: F) {
                    let len = gradient.len();
                    $(let $variable = &mut $variable[..len];)*
                    for i in 0..len {
                        step($(&mut $variable[i],)* gradient[i]);
                    }
                }
            }
            let masked = inputs.is_masked(context)?;
            for at in 0..inputs.count() {
                let shape = variable_shape(context, inputs.variable(at, 0))?;
                let Some((chain, operands, of_gradient)) = inputs.chain(at) else {
                    let rows = inputs.rows(context, &shape)?;
                    if masked {
                        continue;
                    }
                    let [$($variable),*] = variables::<T, $count>(context, inputs, at, &shape)?;
                    let gradient = context.input::<T>(inputs.gradient)?;
                    if let Some((starts, len)) = rows {
                        for (number, start) in starts.into_iter().enumerate() {
                            let gradient = &gradient[number * len..][..len];
                            $chunk($(&mut $variable[start..start + len],)* gradient, step);
                        }
                        continue;
                    }
                    $(let $variable = SharedMut::new($variable);)*
                    for_each_range(gradient.len(), GRAIN, |range| {
                        // SAFETY: the variables have the gradient's length (checked), and each task has its own range.
                        $(let $variable = unsafe { $variable.slice(range.clone()) };)*
                        $chunk($($variable,)* &gradient[range], step);
                    });
                    continue;
                };
                if *of_gradient != shape {
                    return Err(different_shapes("the variable and its gradient", &shape, of_gradient));
                }
                if masked {
                    continue;
                }
                let [$($variable),*] = variables::<T, $count>(context, inputs, at, &shape)?;
                let operands = elementwise::pointers::<T>(context, operands)?;
                let operands: Short<_> = operands.iter().map(|at| SharedMut::from_ptr(at.cast_mut())).collect();
                $(let $variable = SharedMut::new($variable);)*
                for_each_range(shape.num_elements(), GRAIN, |range| {
                    T::through(chain, &operands, range, &mut |at, gradient| {
                        // SAFETY: each task has its own range of the variables, all of one shape (checked). The chain has
                        // read what it needs of this block.
                        $(let $variable = unsafe { $variable.slice(at..at + gradient.len()) };)*
                        $chunk($($variable,)* gradient, step);
                    });
                });
            }
            hand_on(context);
            Ok(())
        }
    )*};
}

macro_rules! elements {
    ($variable:ident $type:ident) => {
        &mut $type
    };
}

passes! {
    /// One variable.
    pass1 chunk1 1 (a);
    /// A variable and a slot.
    pass2 chunk2 2 (a, b);
    /// A variable and two slots.
    pass3 chunk3 3 (a, b, c);
    /// A variable and three slots.
    pass4 chunk4 4 (a, b, c, d);
}
