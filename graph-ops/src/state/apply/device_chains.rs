//! The updates of optimizers on a device whose gradients are chains of element-wise operations: one kernel for all variables of
//! an update, as far as its text is the same for them.

use graph_core::accelerator::DeviceAddress;
use graph_core::op::{KernelContext, KernelRequest, Planned};
use graph_core::{DType, Result};
use graph_cuda::{Cuda, Function, Source, arguments};

use super::chained::Chained;
use super::device::{Defines, Formula, Numbers, Variables, formula_numbers, number_addresses, places, updated};
use crate::cuda::NOWHERE;
use crate::cuda::chain::{Operands, Strides, Text};
use crate::cuda::members::Dealt;
use crate::cuda::window::joined_source;
use crate::rewrite::elementwise;
use crate::state::assign::different_shapes;
use crate::state::update::hand_on;

/// With a chain of element-wise operations for the gradient.
const SOURCE: Source = joined_source!("apply.cu": "../../cuda/members.cuh", "../../cuda/chain.cuh", "apply.cu");

/// The most variables of one kernel: what it takes has 4 KiB.
const MEMBERS: usize = 16;

/// A variable and its gradient's operands, as the kernel for several takes them.
#[repr(C)]
#[derive(Clone, Copy)]
struct Member {
    variables: Variables,
    operands: Operands,
    n: i64,
    /// The first of the blocks of threads that update it.
    block: i64,
}

/// One variable of an update in a run: where it, its slots and its operands lie, and how many elements it has.
type Place = (Variables, Operands, usize);

/// The kernel of those updates that one text serves.
struct Launch {
    function: Function,
    /// Which of the updates.
    updates: Vec<usize>,
    /// Of a kernel for one variable alone, whose operands may be broadcast.
    alone: Option<Box<Strides>>,
}

impl Launch {
    /// # Errors
    /// The device's.
    ///
    /// # Safety
    /// The variables, operands and numbers are those for which the launch was made.
    unsafe fn run(
        &self,
        places: &[Place],
        (numbers, whole, mask): (Numbers, DeviceAddress, DeviceAddress),
    ) -> Result<()> {
        if let Some(strides) = &self.alone {
            let (variables, operands, len) = places[self.updates[0]];
            // SAFETY: these are the parameters of `apply`; the caller's promise is of the addresses.
            return unsafe {
                self.function.launch_over(
                    len,
                    arguments![variables, operands, **strides, len as i64, numbers, whole, mask],
                )
            };
        }
        let dealt = Dealt::new(&self.function, self.updates.iter().map(|&update| places[update].2), 1);
        let member = |at: usize| {
            let (variables, operands, len) = places[self.updates[at]];
            Member {
                variables,
                operands,
                n: len as i64,
                block: dealt.first[at],
            }
        };
        let members: [Member; MEMBERS] = std::array::from_fn(|at| member(at.min(self.updates.len() - 1)));
        let (grid, threads) = dealt.grid();
        // SAFETY: these are the parameters of `apply_members`; the caller's promise is of the addresses.
        unsafe {
            self.function.launch(
                grid,
                threads,
                arguments![members, self.updates.len() as i32, numbers, whole, mask],
            )
        }
    }
}

/// Kernels for the updates, and the numbers' count: as few as there are texts, but for those whose operands are broadcast.
fn launches(
    request: &KernelRequest<'_>,
    formula: Formula<'_>,
    chained: &Chained,
    scalars: usize,
) -> Result<Vec<Launch>> {
    let dtype: DType = request.attr("T")?;
    let instructions = elementwise::instructions(request)?;
    let mut texts: Vec<(Text, Vec<usize>, usize)> = Vec::new();
    for (at, (inputs, shape)) in chained.operands.iter().zip(&chained.shapes).enumerate() {
        let operands = elementwise::operands(request, inputs.clone(), shape)?;
        let text = Text::new(dtype, &operands, std::slice::from_ref(&instructions))?;
        let read = inputs.clone().map(|input| {
            let size = request.input_dtype(input).size().unwrap_or(0);
            request.input_shape(input).num_elements() * size
        });
        let bytes = updated(&formula, shape, dtype) + read.sum::<usize>();
        let joins = |(other, updates, _): &&mut (Text, Vec<usize>, usize)| {
            !text.is_strided() && other.defines() == text.defines() && updates.len() < MEMBERS
        };
        match texts.iter_mut().find(joins) {
            Some((_, updates, all_bytes)) => {
                updates.push(at);
                *all_bytes += bytes;
            }
            None => texts.push((text, vec![at], bytes)),
        }
    }
    let (cuda, defines) = (Cuda::of(request)?, Defines::new(formula, scalars));
    let launch = |(text, updates, bytes): (Text, Vec<usize>, usize)| {
        let alone = updates.len() == 1;
        let mut defines = defines.with(&text.defines());
        if !alone {
            defines.push(("MEMBERS", ""));
        }
        let name = if alone { "apply" } else { "apply_members" };
        Ok(Launch {
            function: cuda.function(&SOURCE, name, &defines)?.moving(bytes),
            updates,
            alone: alone.then(|| Box::new(text.strides)),
        })
    };
    texts.into_iter().map(launch).collect()
}

/// The updates of one variable or several by gradients that are chains.
///
/// # Errors
/// `InvalidArgument` for numbers that are no scalars.
pub(super) fn update_by_chains(request: &KernelRequest<'_>, formula: Formula<'_>, chained: Chained) -> Result<Planned> {
    let variables = formula.variables;
    let (whole, numbers) = formula_numbers(request, variables..chained.end_of_numbers())?;
    let launches = launches(request, formula, &chained, numbers.len())?;
    Ok(Planned::new(move |context: &mut KernelContext<'_>| {
        let mut all = Vec::with_capacity(chained.shapes.len());
        for (at, (inputs, shape)) in chained.operands.iter().zip(&chained.shapes).enumerate() {
            let (places, own) = places(context, (0..variables).map(|number| chained.variable(at, number)))?;
            if own != *shape {
                return Err(different_shapes("the variable and its gradient", &own, shape));
            }
            let operands = Operands::new(inputs.clone().map(|input| context.input_address(input)));
            all.push((places, operands, shape.num_elements()));
        }
        let (addresses, count) = number_addresses(context, &numbers, whole);
        let mask = chained.mask.map_or(NOWHERE, |input| context.input_address(input));
        for launch in &launches {
            // SAFETY: the variables have the shapes of the chains (checked), for which the launches were made.
            unsafe { launch.run(&all, (addresses, count, mask))? };
        }
        hand_on(context);
        Ok(())
    }))
}
