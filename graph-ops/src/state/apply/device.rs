//! The updates of optimizers on a device: one kernel, into which the formula of a rule is compiled.

use graph_core::accelerator::DeviceAddress;
use graph_core::op::{KernelContext, KernelRequest, Planned};
use graph_core::{DType, Error, Result, Shape};
use graph_cuda::{Cuda, Source, arguments, source};

use super::chained::Chained;
use super::device_chains::update_by_chains;
use super::host::mask_of;
use crate::cuda::row_order::{self, Depth, SortRows};
use crate::cuda::window::joined_source;
use crate::cuda::{NOWHERE, type_name};
use crate::state::assign::different_shapes;
use crate::state::update::hand_on;

const SOURCE: Source = source!("apply.cu");

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
pub(super) const MOST: [usize; 2] = [4, 8];

/// Where a formula's variables lie, as the kernel takes them.
#[repr(C)]
#[derive(Clone, Copy)]
pub(super) struct Variables(pub(super) [DeviceAddress; MOST[0]]);

/// Where a formula's numbers lie, as the kernel takes them.
#[repr(C)]
#[derive(Clone, Copy)]
pub(super) struct Numbers([DeviceAddress; MOST[1]]);

/// What is compiled into the kernels of a formula, but for its gradient.
pub(super) struct Defines<'a> {
    variables: String,
    scalars: String,
    formula: Formula<'a>,
}

impl<'a> Defines<'a> {
    pub(super) fn new(formula: Formula<'a>, scalars: usize) -> Self {
        Self {
            variables: formula.variables.to_string(),
            scalars: scalars.to_string(),
            formula,
        }
    }

    pub(super) fn with<'s>(&'s self, others: &[(&'s str, &'s str)]) -> Vec<(&'s str, &'s str)> {
        let own = [
            ("VARIABLES", self.variables.as_str()),
            ("SCALARS", self.scalars.as_str()),
            ("PREPARE", self.formula.prepare),
            ("STEP", self.formula.step),
        ];
        own.into_iter().chain(others.iter().copied()).collect()
    }
}

/// Where the variable and the slots lie that these inputs are, and their shape.
///
/// # Errors
/// `InvalidArgument` if two are one variable, or if their shapes differ.
pub(super) fn places(
    context: &mut KernelContext<'_>,
    inputs: impl Iterator<Item = usize>,
) -> Result<(Variables, Shape)> {
    let mut places = [NOWHERE; MOST[0]];
    let mut shape: Option<Shape> = None;
    for (number, index) in inputs.enumerate() {
        let place = context.variable_address(index)?;
        let Some((_, own)) = context.variable(index)?.extent() else {
            return Err(Error::failed_precondition("the variable is not initialized"));
        };
        match &shape {
            Some(shape) if own != shape => return Err(different_shapes("the variable and its slot", shape, own)),
            _ => shape = Some(own.clone()),
        }
        if own.num_elements() > 0 && places[..number].contains(&place) {
            return Err(Error::invalid_argument(format!(
                "input {index} is the same variable as one before it"
            )));
        }
        places[number] = place;
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
    let defines = Defines::new(formula, numbers.len());
    let defines = defines.with(&[("T", type_name(request.input_dtype(gradient))?), ("ROWS", "")]);
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
        let (places, shape) = places(context, 0..variables)?;
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
pub(super) fn formula_numbers(
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
pub(super) fn number_addresses(
    context: &KernelContext<'_>,
    numbers: &[usize],
    whole: Option<usize>,
) -> (Numbers, DeviceAddress) {
    let mut addresses = Numbers([NOWHERE; MOST[1]]);
    for (address, &input) in addresses.0.iter_mut().zip(numbers) {
        *address = context.input_address(input);
    }
    (addresses, whole.map_or(NOWHERE, |input| context.input_address(input)))
}

/// Bytes of a variable and its slots, read and written.
pub(super) fn updated(formula: &Formula<'_>, shape: &Shape, dtype: DType) -> usize {
    2 * formula.variables * shape.num_elements() * dtype.size().unwrap_or(0)
}

/// A kernel that updates every element, or some rows where the op says so. Inputs that are neither variables nor gradients nor a
/// condition are the formula's numbers.
///
/// # Errors
/// `InvalidArgument` for numbers that are no scalars.
pub(super) fn update(request: &KernelRequest<'_>, formula: Formula<'_>) -> Result<Planned> {
    if request.attrs.get("Tindices").is_some() {
        return update_rows(request, formula);
    }
    if let Some(chained) = Chained::of(request)? {
        return update_by_chains(request, formula, chained);
    }
    let (variables, gradient, mask) = (formula.variables, formula.gradient, mask_of(request));
    let others = variables..mask.unwrap_or(request.num_inputs());
    let (whole, numbers) = formula_numbers(request, others.filter(|&input| input != gradient))?;
    let (shape, dtype) = (request.input_shape(gradient).clone(), request.input_dtype(gradient));
    let (len, size) = (shape.num_elements(), dtype.size().unwrap_or(0));
    let defines = Defines::new(formula, numbers.len());
    let function = Cuda::of(request)?
        .function(&SOURCE, "apply", &defines.with(&[("T", type_name(dtype)?)]))?
        .moving(updated(&formula, &shape, dtype) + len * size);
    Ok(Planned::new(move |context: &mut KernelContext<'_>| {
        let (places, own) = places(context, 0..variables)?;
        if own != shape {
            return Err(different_shapes("the variable and its gradient", &own, &shape));
        }
        let (addresses, count) = number_addresses(context, &numbers, whole);
        let mask = mask.map_or(NOWHERE, |input| context.input_address(input));
        let gradient = context.input_address(gradient);
        // SAFETY: these are the kernel's parameters; the variables have the gradient's `n` elements (checked).
        unsafe { function.launch_over(len, arguments![places, gradient, len as i64, addresses, count, mask])? };
        hand_on(context);
        Ok(())
    }))
}
