//! The updates of optimizers on a device: one kernel, into which the formula of a rule is compiled.

use graph_core::accelerator::DeviceAddress;
use graph_core::op::{KernelContext, KernelRequest, Planned};
use graph_core::{DType, Error, PartialShape, Result, Shape};
use graph_cuda::{Cuda, Function, Source, arguments, source};

use super::super::assign::different_shapes;
use super::super::update::hand_on;
use crate::cuda::chain::{Operands, Strides, Text};
use crate::cuda::row_order::{self, Depth, SortRows};
use crate::cuda::window::joined_source;
use crate::cuda::{NOWHERE, type_name};
use crate::rewrite::elementwise;

const SOURCE: Source = source!("apply.cu");

/// With a chain of element-wise operations for the gradient.
const OF_CHAIN: Source = joined_source!("apply.cu": "../../cuda/chain.cuh", "apply.cu");

/// Of rows that numbers name.
const OF_ROWS: Source = joined_source!("apply.cu": "../../cuda/row_order.cuh", "apply.cu");

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

/// Where a formula's variables lie, as the kernel takes them.
#[repr(C)]
#[derive(Clone, Copy)]
struct Variables([DeviceAddress; MOST[0]]);

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

/// The kernel of a formula, the gradient's shape, and where it is. It reads and writes the variables, and reads the gradient.
fn kernel(request: &KernelRequest<'_>, formula: &Formula<'_>, scalars: usize) -> Result<(Function, Shape, Gradient)> {
    let updated =
        |shape: &Shape, dtype: DType| 2 * formula.variables * shape.num_elements() * dtype.size().unwrap_or(0);
    let (count, scalars) = (formula.variables.to_string(), scalars.to_string());
    let mut defines = vec![
        ("VARIABLES", count.as_str()),
        ("SCALARS", scalars.as_str()),
        ("PREPARE", formula.prepare),
        ("STEP", formula.step),
    ];
    let cuda = Cuda::of(request)?;
    let Some(first) = first_operand(request)? else {
        let (shape, dtype) = (
            request.input_shape(formula.gradient).clone(),
            request.input_dtype(formula.gradient),
        );
        defines.push(("T", type_name(dtype)?));
        let function = cuda.function(&SOURCE, "apply", &defines)?;
        let read = shape.num_elements() * dtype.size().unwrap_or(0);
        let function = function.moving(updated(&shape, dtype) + read);
        return Ok((function, shape, Gradient::Input(formula.gradient)));
    };
    let shape: PartialShape = request.attr("shape")?;
    let shape = shape
        .to_shape()
        .ok_or_else(|| Error::internal("a chain of unknown shape"))?;
    let operands = elementwise::operands(request, first..request.num_inputs(), &shape)?;
    let text = Text::new(request.attr("T")?, &operands, &[elementwise::instructions(request)?])?;
    defines.extend(text.defines());
    let operands = request.input_dtypes[first..].iter().zip(&request.input_shapes[first..]);
    let read: usize = operands
        .map(|(dtype, shape)| shape.num_elements() * dtype.size().unwrap_or(0))
        .sum();
    let function = cuda.function(&OF_CHAIN, "apply", &defines)?;
    let function = function.moving(updated(&shape, request.attr("T")?) + read);
    Ok((function, shape, Gradient::Chain(first, Box::new(text.strides))))
}

/// The first operand of the chain that is the gradient, if it is one.
fn first_operand(request: &KernelRequest<'_>) -> Result<Option<usize>> {
    if request.attrs.get("instructions").is_none() {
        return Ok(None);
    }
    let types: Vec<DType> = request.attr("operand_types")?;
    let first = request.num_inputs().checked_sub(types.len());
    first
        .map(Some)
        .ok_or_else(|| Error::internal("a chain of more operands than there are inputs"))
}

/// What becomes of the variables `0..variables`, found with [`KernelContext::variable_address`], and their shape.
///
/// # Errors
/// `InvalidArgument` if two are one variable, or if their shapes differ.
fn places(context: &mut KernelContext<'_>, variables: usize) -> Result<(Variables, Shape)> {
    let mut places = [NOWHERE; MOST[0]];
    let mut shape: Option<Shape> = None;
    for index in 0..variables {
        let place = context.variable_address(index)?;
        let Some((_, own)) = context.variable(index)?.extent() else {
            return Err(Error::failed_precondition("the variable is not initialized"));
        };
        match &shape {
            Some(shape) if own != shape => return Err(different_shapes("the variable and its slot", shape, own)),
            _ => shape = Some(own.clone()),
        }
        if own.num_elements() > 0 && places[..index].contains(&place) {
            return Err(Error::invalid_argument(format!(
                "input {index} is the same variable as one before it"
            )));
        }
        places[index] = place;
    }
    Ok((Variables(places), shape.unwrap_or_default()))
}

/// A kernel that updates the rows that the input behind the gradient names, those that come up again in turn; numbers that name
/// none are left out.
///
/// # Errors
/// `InvalidArgument` for numbers that are no scalars.
fn update_rows(request: &KernelRequest<'_>, formula: Formula<'_>) -> Result<Planned> {
    let (variables, gradient) = (formula.variables, formula.gradient);
    let indices = gradient + 1;
    let others = (variables..request.num_inputs()).filter(|&input| input != gradient && input != indices);
    let (whole, numbers) = formula_numbers(request, others)?;
    let (count, scalars) = (variables.to_string(), numbers.len().to_string());
    let defines = [
        ("VARIABLES", count.as_str()),
        ("SCALARS", scalars.as_str()),
        ("PREPARE", formula.prepare),
        ("STEP", formula.step),
        ("T", type_name(request.input_dtype(gradient))?),
        ("ROWS", ""),
    ];
    let count = request.input_shape(indices).num_elements();
    let sort = SortRows::new(request, request.input_dtype(indices), count)?;
    // As if each number named a row of its own.
    let elements = (2 * variables + 1) * request.input_shape(gradient).num_elements();
    let bytes = count * size_of::<u64>() + elements * request.input_dtype(gradient).size().unwrap_or(0);
    let function = Cuda::of(request)?
        .function(&OF_ROWS, "apply_rows", &defines)?
        .moving(bytes);
    let (named, updates) = (
        request.input_shape(indices).clone(),
        request.input_shape(gradient).clone(),
    );
    let planned = Planned::new(move |context: &mut KernelContext<'_>| {
        let (places, shape) = places(context, variables)?;
        let (&rows, row) = shape.split_first().ok_or_else(super::no_rows)?;
        let expected: Shape = named.iter().chain(row).copied().collect();
        if named.rank() != 1 || updates != expected {
            return Err(
                Error::invalid_argument("the gradient must have a row of the variable for each index")
                    .expected(expected)
                    .got(&updates),
            );
        }
        let (addresses, whole) = number_addresses(context, &numbers, whole);
        let (gradient, indices) = (context.input_address(gradient), context.input_address(indices));
        let (inner, dims) = (row.iter().product::<usize>(), Depth::new(&[rows])?);
        if count > 0 && inner > 0 {
            // SAFETY: these are the kernel's parameters: the order is that of the gradient's rows, which are as long as the
            // variables' (checked); the scratch memory is that of the keys.
            unsafe {
                let order = sort.run(indices, dims, context.scratch_address())?;
                function.launch_over(
                    count * inner,
                    arguments![places, gradient, order, inner as i64, addresses, whole],
                )?
            };
        }
        hand_on(context);
        Ok(())
    });
    Ok(planned.with_scratch(row_order::scratch(count)))
}

/// The inputs that are a formula's numbers, and before them the one that counts, if there is one.
fn formula_numbers(
    request: &KernelRequest<'_>,
    others: impl Iterator<Item = usize>,
) -> Result<(Option<usize>, Vec<usize>)> {
    let (whole, numbers): (Vec<usize>, Vec<usize>) =
        others.partition(|&input| request.input_dtype(input) == DType::Int64);
    if let Some(&bad) = whole
        .iter()
        .chain(&numbers)
        .find(|&&input| request.input_shape(input).num_elements() != 1)
    {
        return Err(Error::invalid_argument(format!("input {bad} must be a scalar")).got(request.input_shape(bad)));
    }
    if numbers.len() > MOST[1] {
        return Err(Error::internal("the formula of an update is too long for its kernel"));
    }
    Ok((whole.first().copied(), numbers))
}

/// Where those are.
fn number_addresses(context: &KernelContext<'_>, numbers: &[usize], whole: Option<usize>) -> (Numbers, DeviceAddress) {
    let mut addresses = Numbers([NOWHERE; MOST[1]]);
    for (address, &input) in addresses.0.iter_mut().zip(numbers) {
        *address = context.input_address(input);
    }
    (addresses, whole.map_or(NOWHERE, |input| context.input_address(input)))
}

/// A kernel that updates every element, or some rows where the op says so. Inputs that are neither variables nor the gradient are
/// the formula's numbers.
///
/// # Errors
/// `InvalidArgument` for numbers that are no scalars.
pub(super) fn update(request: &KernelRequest<'_>, formula: Formula<'_>) -> Result<Planned> {
    if request.attrs.get("Tindices").is_some() {
        return update_rows(request, formula);
    }
    let variables = formula.variables;
    let operands = first_operand(request)?;
    let mask = super::mask_of(request);
    let others = variables..operands.or(mask).unwrap_or(request.num_inputs());
    let others = others.filter(|&input| operands.is_some() || input != formula.gradient);
    let (whole, numbers) = formula_numbers(request, others)?;
    let (function, shape, gradient) = kernel(request, &formula, numbers.len())?;
    let len = shape.num_elements();
    Ok(Planned::new(move |context: &mut KernelContext<'_>| {
        let (places, own) = places(context, variables)?;
        if own != shape {
            return Err(different_shapes("the variable and its gradient", &own, &shape));
        }
        let (addresses, count) = number_addresses(context, &numbers, whole);
        let mask = mask.map_or(NOWHERE, |input| context.input_address(input));
        let n = len as i64;
        match &gradient {
            Gradient::Input(input) => {
                let gradient = context.input_address(*input);
                // SAFETY: these are the kernel's parameters; the variables have the gradient's `n` elements (checked).
                unsafe { function.launch_over(len, arguments![places, gradient, n, addresses, count, mask])? };
            }
            Gradient::Chain(first, strides) => {
                let operands = Operands::new((*first..context.num_inputs()).map(|input| context.input_address(input)));
                // SAFETY: as above; the operands have the shapes from which the strides were made.
                unsafe {
                    function.launch_over(len, arguments![places, operands, **strides, n, addresses, count, mask])?
                };
            }
        }
        hand_on(context);
        Ok(())
    }))
}
