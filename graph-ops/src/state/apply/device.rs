//! The updates of optimizers on a device: one kernel, into which the formula of a rule is compiled.

use std::ops::Range;

use graph_core::accelerator::DeviceAddress;
use graph_core::op::{KernelContext, KernelRequest, Planned};
use graph_core::{DType, Error, PartialShape, Result, Shape};
use graph_cuda::{Cuda, Source, arguments, source};

use super::super::assign::different_shapes;
use super::super::update::hand_on;
use crate::cuda::chain::{Operands, Text};
use crate::cuda::window::joined_source;
use crate::cuda::{NOWHERE, type_name};
use crate::rewrite::elementwise;

const SOURCE: Source = source!("apply.cu");
/// With a chain in place of the gradient.
const CHAINED: Source = joined_source!("apply.cu": "../../cuda/chain.cuh", "apply.cu");

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

/// A gradient that is a chain of element-wise operations.
struct Chained {
    text: Text,
    shape: Shape,
    /// The inputs that are the chain's operands.
    operands: Range<usize>,
}

impl Chained {
    fn new(request: &KernelRequest<'_>) -> Result<Self> {
        let broken = || Error::internal("the chain of an update is broken");
        let count = usize::try_from(request.attr::<i64>("N")?).map_err(|_| broken())?;
        let first = request.num_inputs().checked_sub(count).ok_or_else(broken)?;
        let shape: PartialShape = request.attr("shape")?;
        let shape = shape.to_shape().ok_or_else(broken)?;
        let operands = first..request.num_inputs();
        let shapes = request.input_shapes[operands.clone()].iter();
        let (layouts, instructions) = elementwise::parts(request, shapes, &shape)?;
        let text = Text::new(request.input_dtype(first), &layouts, &[instructions])?;
        Ok(Self { text, shape, operands })
    }
}

/// A kernel that updates every element. Inputs that are neither variables nor the gradient are the formula's numbers.
///
/// # Errors
/// `InvalidArgument` for numbers that are no scalars.
pub(super) fn update(request: &KernelRequest<'_>, formula: Formula<'_>) -> Result<Planned> {
    let Formula {
        variables, gradient, ..
    } = formula;
    // The operands of a chain come last, in place of the gradient.
    let chain = match request.attrs.get("instructions") {
        Some(_) => Some(Chained::new(request)?),
        None => None,
    };
    let first_operand = chain
        .as_ref()
        .map_or(request.num_inputs(), |chain| chain.operands.start);
    let others = (variables..first_operand).filter(|&input| chain.is_some() || input != gradient);
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
    let mut defines = vec![
        ("VARIABLES", count.as_str()),
        ("SCALARS", scalars.as_str()),
        ("PREPARE", formula.prepare),
        ("STEP", formula.step),
    ];
    let cuda = Cuda::of(request)?;
    let function = match &chain {
        None => {
            defines.push(("T", type_name(request.input_dtype(gradient))?));
            cuda.function(&SOURCE, "apply", &defines)?
        }
        Some(chain) => {
            defines.extend(chain.text.defines());
            defines.push(("CHAIN", "1"));
            cuda.function(&CHAINED, "apply", &defines)?
        }
    };
    let shape = match &chain {
        None => request.input_shape(gradient).clone(),
        Some(chain) => chain.shape.clone(),
    };
    let chain = chain.map(|chain| (chain.operands, chain.text.strides));
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
        let ([a, b, c, d], elements) = (places, n as i64);
        // SAFETY: these are the kernel's parameters; the variables have the gradient's `n` elements (checked), and the operands
        // of a chain lie as it says.
        unsafe {
            match &chain {
                None => {
                    let gradient = context.input_address(gradient);
                    function.launch_over(n, arguments![a, b, c, d, gradient, elements, addresses, count])?;
                }
                Some((inputs, strides)) => {
                    let operands = Operands::new(inputs.clone().map(|input| context.input_address(input)));
                    function.launch_over(
                        n,
                        arguments![a, b, c, d, operands, *strides, elements, addresses, count],
                    )?;
                }
            }
        }
        hand_on(context);
        Ok(())
    }))
}
