//! Kernels that calculate an expression element by element, of one to three operands that are broadcast together.

use graph_core::accelerator::DeviceAddress;
use graph_core::op::{KernelRequest, Planned};
use graph_core::{DType, Error, Result};
use graph_cuda::{Cuda, Function, Source, arguments, source};

use super::window::joined_source;
use super::{NOWHERE, type_name};

const SOURCE: Source = source!("elementwise.cu");

/// The same for expressions in special functions, which are of double precision.
const SPECIAL: Source = joined_source!("elementwise.cu": "special.cuh", "elementwise.cu");

/// The most dimensions of the result, once neighbours are merged.
const MOST: usize = 8;

/// The result's dimensions and the operands' strides, as the kernel takes them.
#[repr(C)]
#[derive(Clone, Copy)]
struct Layout {
    rank: i64,
    sizes: [i64; MOST],
    strides: [[i64; MOST]; 3],
}

/// An operand of an expression.
pub(crate) struct Operand {
    /// Which input of the op it is.
    pub(crate) input: usize,
    /// What it is called in the expression.
    pub(crate) name: &'static str,
    /// The name of its elements' type.
    pub(crate) type_name: &'static str,
    /// Its shape, which broadcasts to the result's.
    pub(crate) shape: Vec<usize>,
}

/// A kernel of an expression in CUDA C in which the inputs go by these names, in their own types and shapes.
pub(crate) fn map(request: &KernelRequest<'_>, names: &[&'static str], expression: &str) -> Result<Planned> {
    map_inputs(request, &SOURCE, names, expression)
}

/// The same of an expression in the functions of `special.cuh`.
pub(crate) fn map_special(request: &KernelRequest<'_>, names: &[&'static str], expression: &str) -> Result<Planned> {
    map_inputs(request, &SPECIAL, names, expression)
}

fn map_inputs(
    request: &KernelRequest<'_>,
    source: &Source,
    names: &[&'static str],
    expression: &str,
) -> Result<Planned> {
    let operands = names
        .iter()
        .enumerate()
        .map(|(input, name)| {
            Ok(Operand {
                input,
                name,
                type_name: type_name(request.input_dtype(input))?,
                shape: request.input_shape(input).to_vec(),
            })
        })
        .collect::<Result<Vec<_>>>()?;
    map_with(
        request,
        source,
        &operands,
        type_name(request.output_dtype(0))?,
        expression,
    )
}

/// A kernel of these operands, whose result is output 0.
///
/// # Errors
/// `Unimplemented` for more dimensions than the kernel has room for.
pub(crate) fn map_operands(
    request: &KernelRequest<'_>,
    operands: &[Operand],
    result: &'static str,
    expression: &str,
) -> Result<Planned> {
    map_with(request, &SOURCE, operands, result, expression)
}

fn map_with(
    request: &KernelRequest<'_>,
    source: &Source,
    operands: &[Operand],
    result: &'static str,
    expression: &str,
) -> Result<Planned> {
    let output = request.output_shape(0)?.to_vec();
    let shapes: Vec<&[usize]> = operands.iter().map(|operand| operand.shape.as_slice()).collect();
    let axes = merged(&output, &shapes)?;
    let count = operands.len().to_string();
    let mut defines = vec![("INPUTS", count.as_str()), ("O", result), ("EXPRESSION", expression)];
    defines.extend(
        ["N0", "N1", "N2"]
            .into_iter()
            .zip(operands)
            .map(|(name, operand)| (name, operand.name)),
    );
    defines.extend(
        ["X0", "X1", "X2"]
            .into_iter()
            .zip(operands)
            .map(|(name, operand)| (name, operand.type_name)),
    );
    let cuda = Cuda::of(request)?;
    let flat = axes.len() <= 1 && axes.iter().all(|axis| axis.strides.iter().all(|&stride| stride <= 1));
    let function = cuda.function(source, if flat { "map_flat" } else { "map_broadcast" }, &defines)?;
    let n: usize = output.iter().product();
    let inputs: Vec<usize> = operands.iter().map(|operand| operand.input).collect();
    let layout = Layout::new(&axes)?;
    let mut repeated = 0i32;
    for (bit, shape) in shapes.iter().enumerate() {
        if shape.iter().product::<usize>() == 1 {
            repeated |= 1 << bit;
        }
    }
    Ok(Planned::new(move |context| {
        let address = |at: usize| inputs.get(at).map_or(NOWHERE, |&input| context.input_address(input));
        let (x, y, z, out) = (address(0), address(1), address(2), context.output_address(0));
        if n == 0 {
            return Ok(());
        }
        // SAFETY: these are the kernel's parameters; the operands have the elements that the layout says, the output has `n`.
        unsafe {
            if flat {
                function.launch_over(n.div_ceil(4), arguments![out, x, y, z, n as i64, repeated])
            } else {
                function.launch_over(n, arguments![out, x, y, z, n as i64, layout])
            }
        }
    }))
}

/// An expression of operands of one type and one number of elements, ready to be given to the device.
pub(crate) struct Flat {
    function: Function,
    len: usize,
}

impl Flat {
    /// An expression in CUDA C of operands of these names, one to three, each of `len` elements.
    ///
    /// # Errors
    /// `Unimplemented` for dtypes that kernels do not calculate with.
    pub(crate) fn new(cuda: &Cuda, (dtype, len): (DType, usize), names: &[&str], expression: &str) -> Result<Self> {
        let count = names.len().to_string();
        let element = type_name(dtype)?;
        let mut defines = vec![("INPUTS", count.as_str()), ("O", element), ("EXPRESSION", expression)];
        for (name, (letter, own)) in names.iter().zip([("N0", "X0"), ("N1", "X1"), ("N2", "X2")]) {
            defines.extend([(letter, *name), (own, element)]);
        }
        let function = cuda.function(&SOURCE, "map_flat", &defines)?;
        Ok(Self {
            function: function.moving((names.len() + 1) * len * dtype.size().unwrap_or(0)),
            len,
        })
    }

    /// Gives the work to the device; the result may lie over an operand.
    ///
    /// # Errors
    /// The device's.
    ///
    /// # Safety
    /// The result and the operands are tensors of as many elements of the dtype.
    pub(crate) unsafe fn run(&self, out: DeviceAddress, [x, y, z]: [DeviceAddress; 3]) -> Result<()> {
        // SAFETY: these are the kernel's parameters; the caller's promise is of the addresses.
        unsafe {
            self.function
                .launch_over(self.len.div_ceil(4), arguments![out, x, y, z, self.len as i64, 0i32])
        }
    }
}

/// A dimension of the result, neighbours merged, and the operands' strides along it.
struct Axis {
    len: usize,
    strides: [usize; 3],
}

/// The result's dimensions without those of length one, merged where that changes no operand's order.
fn merged(output: &[usize], shapes: &[&[usize]]) -> Result<Vec<Axis>> {
    let mut strides = vec![[0usize; 3]; output.len()];
    for (operand, shape) in shapes.iter().enumerate() {
        let missing = output.len().checked_sub(shape.len());
        let fits = |missing: usize| {
            let pairs = shape.iter().zip(&output[missing..]);
            pairs.into_iter().all(|(&own, &whole)| own == whole || own == 1)
        };
        let Some(missing) = missing.filter(|&missing| fits(missing)) else {
            return Err(
                Error::invalid_argument("an operand does not broadcast to the result's shape")
                    .expected(format!("{output:?}"))
                    .got(format!("{shape:?}")),
            );
        };
        let mut stride = 1;
        for (at, &len) in shape.iter().enumerate().rev() {
            if len != 1 {
                strides[missing + at][operand] = stride;
            }
            stride *= len;
        }
    }
    let mut axes: Vec<Axis> = Vec::new();
    for (&len, strides) in output.iter().zip(strides).filter(|axis| *axis.0 != 1) {
        match axes.last_mut() {
            Some(last) if (0..3).all(|operand| last.strides[operand] == strides[operand] * len) => {
                *last = Axis {
                    len: last.len * len,
                    strides,
                };
            }
            _ => axes.push(Axis { len, strides }),
        }
    }
    Ok(axes)
}

impl Layout {
    fn new(axes: &[Axis]) -> Result<Self> {
        let mut layout = Self {
            rank: axes.len() as i64,
            sizes: [1; MOST],
            strides: [[0; MOST]; 3],
        };
        if axes.len() > MOST {
            return Err(Error::unimplemented(format!(
                "operands that are repeated along more than {MOST} dimensions in turn"
            )));
        }
        for (at, axis) in axes.iter().enumerate() {
            layout.sizes[at] = axis.len as i64;
            for operand in 0..3 {
                layout.strides[operand][at] = axis.strides[operand] as i64;
            }
        }
        Ok(layout)
    }
}

/// A number as a constant of CUDA C, exact.
pub(crate) fn constant(number: f64) -> String {
    if number.is_nan() {
        "C(not_a_number())".to_owned()
    } else if number.is_infinite() {
        format!("C(bits_float({:#x}u))", (number as f32).to_bits())
    } else {
        format!("C({number:e})")
    }
}

/// A kernel that calculates an expression in CUDA C of the inputs, named in order: `expression!(|x, y| "x + y")`; see [`map`].
/// `special` has the functions of `special.cuh`.
macro_rules! expression {
    (special |$($name:ident),*| $expression:expr) => {
        graph_core::op::KernelDefinition::cuda(|request| {
            $crate::cuda::elementwise::map_special(request, &[$(stringify!($name)),*], $expression)
        })
    };
    (|$($name:ident),*| $expression:expr) => {
        graph_core::op::KernelDefinition::cuda(|request| {
            $crate::cuda::elementwise::map(request, &[$(stringify!($name)),*], $expression)
        })
    };
}
pub(crate) use expression;

/// The dtype's least finite number as a constant of CUDA C.
pub(crate) fn lowest(dtype: DType) -> &'static str {
    match dtype {
        DType::Float32 => "-3.402823466e38f",
        DType::Float64 => "-1.7976931348623157e308",
        DType::Half => "-65504.0f",
        DType::BFloat16 => "bits_float(0xff7f0000u)",
        other => least(other),
    }
}

/// The dtype's least number as a constant of CUDA C.
pub(crate) fn least(dtype: DType) -> &'static str {
    match dtype {
        DType::Int32 => "(-2147483647 - 1)",
        DType::Int64 => "(-9223372036854775807LL - 1)",
        _ => "-infinity()",
    }
}

/// The dtype's greatest number as a constant of CUDA C.
pub(crate) fn greatest(dtype: DType) -> &'static str {
    match dtype {
        DType::Int32 => "2147483647",
        DType::Int64 => "9223372036854775807LL",
        _ => "infinity()",
    }
}
