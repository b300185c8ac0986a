//! The updates of optimizers on a device: one kernel, into which the formula of a rule is compiled.

use graph_core::accelerator::DeviceAddress;
use graph_core::op::{KernelContext, KernelRequest, Planned};
use graph_core::{DType, Error, Result};
use graph_cuda::{Cuda, Source, arguments, source};

use super::super::assign::different_shapes;
use super::super::update::hand_on;
use crate::cuda::{NOWHERE, type_name};

const SOURCE: Source = source!("apply.cu");

/// A rule's formula, in the words of `apply.cu`.
#[derive(Clone, Copy)]
pub(super) struct Formula<'a> {
    /// The variable and its slots, which come first among the inputs.
    pub(super) variables: usize,
    /// Which input the gradient is.
    pub(super) gradient: usize,
    /// What is calculated once.
    pub(super) prepare: &'a str,
    /// What is done to each element.
    pub(super) step: &'a str,
}

/// The most variables and numbers that a formula has.
const MOST: [usize; 2] = [4, 8];

/// Where a formula's numbers lie, as the kernel takes them.
#[repr(C)]
#[derive(Clone, Copy)]
struct Numbers([DeviceAddress; MOST[1]]);

/// A kernel that updates every element. Inputs that are neither variables nor the gradient are the formula's numbers.
///
/// # Errors
/// `InvalidArgument` for numbers that are no scalars.
pub(super) fn update(request: &KernelRequest<'_>, formula: Formula<'_>) -> Result<Planned> {
    let Formula {
        variables, gradient, ..
    } = formula;
    let others = (variables..request.num_inputs()).filter(|&input| input != gradient);
    let (whole, numbers): (Vec<usize>, Vec<usize>) =
        others.partition(|&input| request.input_dtype(input) == DType::Int64);
    if let Some(&bad) = whole
        .iter()
        .chain(&numbers)
        .find(|&&input| request.input_shape(input).num_elements() != 1)
    {
        return Err(Error::invalid_argument(format!("input {bad} must be a scalar")).got(request.input_shape(bad)));
    }
    if variables > MOST[0] || numbers.len() > MOST[1] {
        return Err(Error::internal("the formula of an update is too long for its kernel"));
    }
    let (count, scalars) = (variables.to_string(), numbers.len().to_string());
    let defines = [
        ("T", type_name(request.input_dtype(gradient))?),
        ("VARIABLES", count.as_str()),
        ("SCALARS", scalars.as_str()),
        ("PREPARE", formula.prepare),
        ("STEP", formula.step),
    ];
    let function = Cuda::of(request)?.function(&SOURCE, "apply", &defines)?;
    let shape = request.input_shape(gradient).clone();
    let n = shape.num_elements();
    Ok(Planned::new(move |context: &mut KernelContext<'_>| {
        let mut places = [NOWHERE; MOST[0]];
        for index in 0..variables {
            let place = context.variable_address(index)?;
            if n > 0 && places[..index].contains(&place) {
                return Err(Error::invalid_argument(format!(
                    "input {index} is the same variable as one before it"
                )));
            }
            places[index] = place;
            match context.variable(index)?.extent() {
                Some((_, own)) if *own != shape => {
                    return Err(different_shapes(
                        "the variable or its slot, and its gradient",
                        own,
                        &shape,
                    ));
                }
                _ => {}
            }
        }
        let mut addresses = Numbers([NOWHERE; MOST[1]]);
        for (address, &input) in addresses.0.iter_mut().zip(&numbers) {
            *address = context.input_address(input);
        }
        let count = whole.first().map_or(NOWHERE, |&input| context.input_address(input));
        let gradient = context.input_address(gradient);
        let [a, b, c, d] = places;
        // SAFETY: these are the kernel's parameters; the variables have the gradient's `n` elements (checked).
        unsafe { function.launch_over(n, arguments![a, b, c, d, gradient, n as i64, addresses, count])? };
        hand_on(context);
        Ok(())
    }))
}
