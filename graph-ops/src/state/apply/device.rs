//! The updates of optimizers on a device: one kernel, into which the formula of a rule is compiled.

use graph_core::accelerator::DeviceAddress;
use graph_core::op::{KernelContext, KernelRequest, Planned};
use graph_core::{DType, Error, PartialShape, Result, Shape};
use graph_cuda::{Cuda, Function, Source, arguments, source};

use super::super::assign::different_shapes;
use super::super::update::hand_on;
use crate::cuda::chain::{Operands, Strides, Text};
use crate::cuda::window::joined_source;
use crate::cuda::{NOWHERE, type_name};
use crate::rewrite::elementwise;

const SOURCE: Source = source!("apply.cu");

/// With a chain of element-wise operations for the gradient.
const OF_CHAIN: Source = joined_source!("apply.cu": "../../cuda/chain.cuh", "apply.cu");

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

/// Where a kernel finds its gradient.
enum Gradient {
    Input(usize),
    /// A chain over the inputs from this one on.
    Chain(usize, Box<Strides>),
}

/// The kernel of a formula, the gradient's shape, and where it is.
fn kernel(request: &KernelRequest<'_>, formula: &Formula<'_>, scalars: usize) -> Result<(Function, Shape, Gradient)> {
    let (count, scalars) = (formula.variables.to_string(), scalars.to_string());
    let mut defines = vec![
        ("VARIABLES", count.as_str()),
        ("SCALARS", scalars.as_str()),
        ("PREPARE", formula.prepare),
        ("STEP", formula.step),
    ];
    let cuda = Cuda::of(request)?;
    let Some(first) = first_operand(request)? else {
        defines.push(("T", type_name(request.input_dtype(formula.gradient))?));
        let function = cuda.function(&SOURCE, "apply", &defines)?;
        let shape = request.input_shape(formula.gradient).clone();
        return Ok((function, shape, Gradient::Input(formula.gradient)));
    };
    let shape: PartialShape = request.attr("shape")?;
    let shape = shape
        .to_shape()
        .ok_or_else(|| Error::internal("a chain of unknown shape"))?;
    let (layouts, instructions) = elementwise::parts(request, request.input_shapes[first..].iter(), &shape)?;
    let text = Text::new(request.attr("T")?, &layouts, &[instructions])?;
    defines.extend(text.defines());
    let function = cuda.function(&OF_CHAIN, "apply", &defines)?;
    Ok((function, shape, Gradient::Chain(first, Box::new(text.strides))))
}

/// The first operand of the chain that is the gradient, if it is one.
fn first_operand(request: &KernelRequest<'_>) -> Result<Option<usize>> {
    if request.attrs.get("instructions").is_none() {
        return Ok(None);
    }
    let count: i64 = request.attr("N")?;
    let first = usize::try_from(count)
        .ok()
        .and_then(|count| request.num_inputs().checked_sub(count));
    first
        .map(Some)
        .ok_or_else(|| Error::internal("a chain of more operands than there are inputs"))
}

/// A kernel that updates every element. Inputs that are neither variables nor the gradient are the formula's numbers.
///
/// # Errors
/// `InvalidArgument` for numbers that are no scalars.
pub(super) fn update(request: &KernelRequest<'_>, formula: Formula<'_>) -> Result<Planned> {
    let variables = formula.variables;
    let operands = first_operand(request)?;
    let mask = super::mask_of(request);
    let others = variables..operands.or(mask).unwrap_or(request.num_inputs());
    let others = others.filter(|&input| operands.is_some() || input != formula.gradient);
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
    let (function, shape, gradient) = kernel(request, &formula, numbers.len())?;
    let len = shape.num_elements();
    Ok(Planned::new(move |context: &mut KernelContext<'_>| {
        let mut places = [NOWHERE; MOST[0]];
        for index in 0..variables {
            let place = context.variable_address(index)?;
            if len > 0 && places[..index].contains(&place) {
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
        let mask = mask.map_or(NOWHERE, |input| context.input_address(input));
        let ([a, b, c, d], n) = (places, len as i64);
        match &gradient {
            Gradient::Input(input) => {
                let gradient = context.input_address(*input);
                // SAFETY: these are the kernel's parameters; the variables have the gradient's `n` elements (checked).
                unsafe { function.launch_over(len, arguments![a, b, c, d, gradient, n, addresses, count, mask])? };
            }
            Gradient::Chain(first, strides) => {
                let operands = Operands::new((*first..context.num_inputs()).map(|input| context.input_address(input)));
                // SAFETY: as above; the operands have the shapes from which the strides were made.
                unsafe {
                    function.launch_over(
                        len,
                        arguments![a, b, c, d, operands, **strides, n, addresses, count, mask],
                    )?
                };
            }
        }
        hand_on(context);
        Ok(())
    }))
}
