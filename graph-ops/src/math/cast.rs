//! `Cast`: elements as another dtype; and `Bitcast`, their bits as another dtype.

use graph_core::graph::{IntoOperand, OpBuilder, Operand, Tensor};
use graph_core::op::{InferenceContext, KernelContext, KernelDefinition, KernelRequest, OpDefinition, Planned};
use graph_core::{Complex, DType, Element, Error, Graph, PartialShape, Result, Value};
use half::{bf16, f16};

use super::elementwise::{run_blocks, run_unary};
use super::nodes::Nodes;
use crate::cpu::broadcast::{Narrow, Widen};
use crate::cpu::parallel::{GRAIN, for_each_range};
use crate::cuda::cast::expression as cast_on_device;
use crate::cuda::copy::{Transfer, copies};
use crate::cuda::{NAMED, SIZED, elementwise};

/// What can be cast.
const NUMERIC: &[DType] = &[
    DType::Float32,
    DType::Float64,
    DType::Half,
    DType::BFloat16,
    DType::Int8,
    DType::Int16,
    DType::Int32,
    DType::Int64,
    DType::UInt8,
    DType::UInt16,
    DType::UInt32,
    DType::UInt64,
    DType::Bool,
    DType::Complex64,
    DType::Complex128,
];

/// `Cast`
pub(crate) fn cast_op() -> OpDefinition {
    OpDefinition::new(
        "Cast",
        "Each element as another dtype: fractions are cut off, integers keep their low bits, what is not zero is true.",
    )
    .input("x: SrcT")
    .output("y: DstT")
    .attr("SrcT: type")
    .attr("DstT: type")
    .attr("Truncate: bool = false")
    .shape(InferenceContext::unchanged)
    .value_as_shape(|context, _| {
        let to: DType = context.attr("DstT").ok()?;
        let whole = DType::INDICES.contains(&to) && DType::INDICES.contains(&context.input_dtype(0));
        whole.then(|| context.value_as_shape(0)).flatten()
    })
    .gradient(|context| {
        let (gradient, from) = (context.gradient(0)?, context.input(0).dtype());
        let carries = |dtype: DType| dtype.is_floating() || dtype.is_complex();
        if !carries(from) || !carries(gradient.dtype()) {
            return Ok(vec![None]);
        }
        Ok(vec![Some(Nodes::of(context).cast(&gradient, from)?)])
    })
    .kernel(
        KernelDefinition::cpu(make)
            .types("SrcT", NUMERIC)
            .types("DstT", NUMERIC),
    )
    .kernel(
        KernelDefinition::cuda(|request| {
            let (from, to) = (request.input_dtype(0), request.output_dtype(0));
            let kept = if request.attr("Truncate")? {
                kept_bits(from, to)
            } else {
                u64::MAX
            };
            elementwise::map(request, &["x"], &cast_on_device(from, to, kept))
        })
        .types("SrcT", NAMED)
        .types("DstT", NAMED),
    )
}

/// An element of any dtype, without loss.
#[derive(Clone, Copy)]
enum Number {
    Int(i128),
    Float(f64),
    Complex(f64, f64),
}

/// A float cut off to 32 bits; what does not fit is the least number, as x86 processors have it.
#[inline(always)]
fn to_i32(x: f64) -> i32 {
    if x > -2_147_483_649.0 && x < 2_147_483_648.0 {
        x as i32
    } else {
        i32::MIN
    }
}

/// [`to_i32`] of a `float`, without branches.
#[inline(always)]
fn float_to_i32(x: f32) -> i32 {
    let fits = (-2_147_483_648.0..2_147_483_648.0).contains(&x);
    // SAFETY: the number is in the range of the type.
    let number = unsafe { (if fits { x } else { 0.0 }).to_int_unchecked() };
    if fits { number } else { i32::MIN }
}

/// A float cut off to 64 bits; what does not fit is the least number.
#[inline(always)]
fn to_i64(x: f64) -> i64 {
    if (-9_223_372_036_854_775_808.0..9_223_372_036_854_775_808.0).contains(&x) {
        x as i64
    } else {
        i64::MIN
    }
}

fn to_u64(x: f64) -> u64 {
    match x {
        x if x >= 18_446_744_073_709_551_616.0 => 1 << 63,
        x if x >= 9_223_372_036_854_775_808.0 => x as u64,
        x => to_i64(x) as u64,
    }
}

/// An element that is read as a [`Number`] and made of one.
trait Castable: Element {
    fn read(self) -> Number;
    fn of(number: Number) -> Self;
}

macro_rules! castable {
    (int $($t:ty, |$x:ident| $of_float:expr);*) => {$(
        impl Castable for $t {
            fn read(self) -> Number {
                Number::Int(self.into())
            }
            fn of(number: Number) -> Self {
                match number {
                    Number::Int(x) => x as $t,
                    Number::Float($x) | Number::Complex($x, _) => $of_float as $t,
                }
            }
        }
    )*};
    (float $($t:ty, |$w:ident| $widen:expr, |$i:ident| $of_int:expr, |$x:ident| $of_float:expr);*) => {$(
        impl Castable for $t {
            fn read(self) -> Number {
                let $w = self;
                Number::Float($widen)
            }
            fn of(number: Number) -> Self {
                match number {
                    Number::Int($i) => $of_int,
                    Number::Float($x) | Number::Complex($x, _) => $of_float,
                }
            }
        }
    )*};
    (complex $($t:ty),*) => {$(
        impl Castable for Complex<$t> {
            fn read(self) -> Number {
                Number::Complex(self.re.into(), self.im.into())
            }
            fn of(number: Number) -> Self {
                match number {
                    Number::Int(x) => Complex::new(x as $t, 0.0),
                    Number::Float(x) => Complex::new(x as $t, 0.0),
                    Number::Complex(re, im) => Complex::new(re as $t, im as $t),
                }
            }
        }
    )*};
}

castable!(int i8, |x| to_i32(x); i16, |x| to_i32(x); i32, |x| to_i32(x); i64, |x| to_i64(x);
    u8, |x| to_i32(x); u16, |x| to_i32(x); u32, |x| to_i64(x); u64, |x| to_u64(x));
castable!(float
    f32, |x| x.into(), |i| i as f32, |x| x as f32;
    f64, |x| x, |i| i as f64, |x| x;
    f16, |x| x.into(), |i| f16::from_f32(i as f32), |x| f16::from_f32(x as f32);
    bf16, |x| x.into(), |i| bf16::from_f32(i as f32), |x| bf16::from_f32(x as f32));
castable!(complex f32, f64);

impl Castable for bool {
    fn read(self) -> Number {
        Number::Int(self.into())
    }
    fn of(number: Number) -> Self {
        match number {
            Number::Int(x) => x != 0,
            Number::Float(x) | Number::Complex(x, _) => x != 0.0,
        }
    }
}

/// Reads element `index` of an array.
type Read = unsafe fn(*const u8, usize) -> Number;
/// Writes element `index` of an array.
type Write = unsafe fn(*mut u8, usize, Number);

/// # Safety
/// `array` is valid for more than `index` elements of type `T`.
unsafe fn read<T: Castable>(array: *const u8, index: usize) -> Number {
    // SAFETY: the caller's promise.
    unsafe { array.cast::<T>().add(index).read() }.read()
}

/// # Safety
/// As for [`read`], and nothing else uses the element.
unsafe fn write<T: Castable>(array: *mut u8, index: usize, number: Number) {
    // SAFETY: the caller's promise.
    unsafe { array.cast::<T>().add(index).write(T::of(number)) }
}

/// Calls a generic function with the element type of a dtype.
macro_rules! with_type {
    ($dtype:expr, $t:ident => $e:expr) => {
        match $dtype {
            DType::Float32 => {
                type $t = f32;
                $e
            }
            DType::Float64 => {
                type $t = f64;
                $e
            }
            DType::Half => {
                type $t = f16;
                $e
            }
            DType::BFloat16 => {
                type $t = bf16;
                $e
            }
            DType::Int8 => {
                type $t = i8;
                $e
            }
            DType::Int16 => {
                type $t = i16;
                $e
            }
            DType::Int32 => {
                type $t = i32;
                $e
            }
            DType::Int64 => {
                type $t = i64;
                $e
            }
            DType::UInt8 => {
                type $t = u8;
                $e
            }
            DType::UInt16 => {
                type $t = u16;
                $e
            }
            DType::UInt32 => {
                type $t = u32;
                $e
            }
            DType::UInt64 => {
                type $t = u64;
                $e
            }
            DType::Bool => {
                type $t = bool;
                $e
            }
            DType::Complex64 => {
                type $t = Complex<f32>;
                $e
            }
            DType::Complex128 => {
                type $t = Complex<f64>;
                $e
            }
            dtype => return Err(Error::internal("no kernel of this dtype").got(dtype)),
        }
    };
}

fn make(request: &KernelRequest<'_>) -> Result<Planned> {
    let (from, to) = (request.input_dtype(0), request.output_dtype(0));
    let truncate: bool = request.attr("Truncate")?;
    if !truncate && let Some(planned) = direct(from, to) {
        return Ok(planned);
    }
    let read: Read = with_type!(from, T => read::<T>);
    let write: Write = with_type!(to, T => write::<T>);
    let kept = if truncate { kept_bits(from, to) } else { u64::MAX };
    Ok(Planned::new(move |context| {
        let len = context.input_shape(0).num_elements();
        let (input, output) = (input_bytes(context)?, output_bytes(context, to)?);
        let addresses = (input as usize, output as usize);
        for_each_range(len, GRAIN, |range| {
            let (input, output) = (addresses.0 as *const u8, addresses.1 as *mut u8);
            for index in range {
                // SAFETY: both hold `len` elements of their dtypes, and each task writes its own.
                unsafe {
                    let number = match read(input, index) {
                        Number::Float(x) => Number::Float(f64::from_bits(x.to_bits() & kept)),
                        number => number,
                    };
                    write(output, index, number);
                }
            }
        });
        Ok(())
    }))
}

/// The bits of a double that stay when a float is cut to a smaller one instead of rounded.
fn kept_bits(from: DType, to: DType) -> u64 {
    let mantissa = |dtype| match dtype {
        DType::Float64 => 52,
        DType::Float32 => 23,
        DType::Half => 10,
        DType::BFloat16 => 7,
        _ => 52u32,
    };
    if from.is_floating() && mantissa(to) < mantissa(from) {
        u64::MAX << (52 - mantissa(to))
    } else {
        u64::MAX
    }
}

/// Loops of their own for the pairs that programs use in every step.
fn direct(from: DType, to: DType) -> Option<Planned> {
    macro_rules! pairs {
        (blocks { $($from:ident $f:ty => $to:ident $t:ty: $map:expr;)* }
         $($a:ident $s:ty => $b:ident $d:ty: |$x:ident| $e:expr;)*) => {
            match (from, to) {
                $((DType::$from, DType::$to) => Some(Planned::new(|context| run_blocks::<$f, $t>(context, &$map))),)*
                $((DType::$a, DType::$b) => Some(Planned::new(|context| run_unary::<$s, $d>(context, |$x: $s| $e))),)*
                _ => None,
            }
        };
    }
    pairs! {
        blocks {
            Half f16 => Float32 f32: Widen;
            BFloat16 bf16 => Float32 f32: Widen;
            Float32 f32 => Half f16: Narrow;
            Float32 f32 => BFloat16 bf16: Narrow;
        }
        Bool bool => Float32 f32: |x| f32::from(u8::from(x));
        Bool bool => Float64 f64: |x| f64::from(u8::from(x));
        Bool bool => Int32 i32: |x| x.into();
        Bool bool => Int64 i64: |x| x.into();
        UInt8 u8 => Float32 f32: |x| x.into();
        UInt8 u8 => Int32 i32: |x| x.into();
        Int32 i32 => Float32 f32: |x| x as f32;
        Int32 i32 => Float64 f64: |x| x.into();
        Int32 i32 => Int64 i64: |x| x.into();
        Int64 i64 => Int32 i32: |x| x as i32;
        Int64 i64 => Float32 f32: |x| x as f32;
        Int64 i64 => Float64 f64: |x| x as f64;
        Float32 f32 => Float64 f64: |x| x.into();
        Float64 f64 => Float32 f32: |x| x as f32;
        Float32 f32 => Int32 i32: |x| float_to_i32(x);
        Float32 f32 => Int64 i64: |x| to_i64(x.into());
        Float64 f64 => Int32 i32: |x| to_i32(x);
        Float64 f64 => Int64 i64: |x| to_i64(x);
        Float32 f32 => UInt8 u8: |x| float_to_i32(x) as u8;
        Float32 f32 => Bool bool: |x| x != 0.0;
        Int32 i32 => Bool bool: |x| x != 0;
    }
}

fn input_bytes(context: &KernelContext<'_>) -> Result<*const u8> {
    Ok(with_type!(context.input_dtype(0), T => context.input_ptr::<T>(0)?.cast()))
}

fn output_bytes(context: &KernelContext<'_>, dtype: DType) -> Result<*mut u8> {
    Ok(with_type!(dtype, T => context.output_ptr::<T>(0)?.cast()))
}

/// `Bitcast`
pub(crate) fn bitcast_op() -> OpDefinition {
    OpDefinition::new(
        "Bitcast",
        "The same bits as another dtype; between sizes, the last dimension counts the smaller elements in a larger one.",
    )
    .input("input: T")
    .output("output: type")
    .attr(
        "T: {bfloat16, half, float, double, int64, int32, uint8, uint16, uint32, uint64, int8, int16, complex64, \
         complex128}",
    )
    .attr(
        "type: {bfloat16, half, float, double, int64, int32, uint8, uint16, uint32, uint64, int8, int16, complex64, \
         complex128}",
    )
    .shape(bitcast_shape)
    .not_differentiable()
    .kernel(KernelDefinition::cpu(|request| {
        let to = request.output_dtype(0);
        Ok(Planned::new(move |context| {
            let bytes = context.input_dtype(0).size().unwrap_or(0) * context.input_shape(0).num_elements();
            let (input, output) = (input_bytes(context)?, output_bytes(context, to)?);
            // SAFETY: the shape function gave the output as many bytes as the input has; they are different memory.
            unsafe { std::ptr::copy_nonoverlapping(input, output, bytes) };
            Ok(())
        }))
    }))
    .kernel(
        KernelDefinition::cuda(|request| {
            let bytes = request.input_dtype(0).size().unwrap_or(0) * request.input_shape(0).num_elements();
            Ok(copies(vec![(0, 0, Transfer::all(request, DType::UInt8, bytes)?)]))
        })
        .types("T", SIZED)
        .types("type", SIZED),
    )
}

fn bitcast_shape(context: &mut InferenceContext<'_>) -> Result<()> {
    let size = |dtype: DType| dtype.size().unwrap_or(1);
    let (from, to) = (size(context.input_dtype(0)), size(context.attr("type")?));
    let input = context.input(0);
    let output = match input.dims() {
        None => PartialShape::unknown(),
        Some(_) if from == to => input.clone(),
        Some(dims) if from > to => PartialShape::from_dims(dims.iter().copied().chain([Some(from / to)])),
        Some(dims) => match dims.split_last() {
            Some((last, outer)) if last.is_none_or(|last| last == to / from) => {
                PartialShape::from_dims(outer.iter().copied())
            }
            _ => {
                return Err(Error::invalid_argument("the elements do not make up larger ones")
                    .expected(format!("a last dimension of {}", to / from))
                    .got(input));
            }
        },
    };
    context.set_output(0, output);
    Ok(())
}

/// A cast about to be made; see [`cast`].
#[must_use = "an operation is made by `build`"]
pub struct Cast {
    operand: Operand,
    dtype: DType,
    name: String,
    saturate: bool,
}

impl Cast {
    /// Names the operation.
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.name = name.into();
        self
    }

    /// Makes the operation; the operand itself where it has the dtype already.
    ///
    /// # Errors
    /// The operand's own; `InvalidArgument` for dtypes that are not numbers or truth values.
    #[track_caller]
    pub fn build(self) -> Result<Tensor> {
        crate::install();
        let graph = self.operand.graph().cloned().unwrap_or_else(Graph::current);
        let scope = graph_core::graph::scope::name_scope_in(&graph, &self.name)?;
        let mut x = self
            .operand
            .to_tensor(&graph, if self.saturate { "value" } else { "x" }, None)?;
        if self.saturate {
            x = within(&Nodes::at(&graph, std::panic::Location::caller()), x, self.dtype)?;
        }
        if x.dtype() == self.dtype {
            return Ok(x);
        }
        crate::op("Cast")
            .input(x)
            .attr("DstT", self.dtype)
            .name(scope.scope_name())
            .build()
    }
}

impl IntoOperand for Cast {
    #[track_caller]
    fn into_operand(self) -> Operand {
        self.build().into_operand()
    }
}

/// The least and the largest number of a dtype.
fn range(dtype: DType) -> Option<(f64, f64)> {
    Some(match dtype {
        DType::Float32 => (f32::MIN.into(), f32::MAX.into()),
        DType::Float64 => (f64::MIN, f64::MAX),
        DType::Half => (f16::MIN.into(), f16::MAX.into()),
        DType::BFloat16 => (bf16::MIN.into(), bf16::MAX.into()),
        DType::Int8 => (i8::MIN.into(), i8::MAX.into()),
        DType::Int16 => (i16::MIN.into(), i16::MAX.into()),
        DType::Int32 => (i32::MIN.into(), i32::MAX.into()),
        DType::Int64 => (i64::MIN as f64, i64::MAX as f64),
        DType::UInt8 => (0.0, u8::MAX.into()),
        DType::UInt16 => (0.0, u16::MAX.into()),
        DType::UInt32 => (0.0, u32::MAX.into()),
        DType::UInt64 => (0.0, u64::MAX as f64),
        _ => return None,
    })
}

/// `x` limited to what `dtype` can hold.
fn within(nodes: &Nodes<'_>, x: Tensor, dtype: DType) -> Result<Tensor> {
    let (Some(from), Some(to)) = (range(x.dtype()), range(dtype)) else {
        return Err(Error::invalid_argument("only real numbers are limited to a dtype")
            .got(format!("{} to {dtype}", x.dtype())));
    };
    let bound = |limit: f64, name: &str| {
        let number = Value::from(limit);
        let number = if x.dtype().is_floating() {
            number.cast_exactly(x.dtype())?
        } else {
            integer(limit, x.dtype())?
        };
        nodes.constant(number, name)
    };
    let mut x_limited = x.clone();
    if from.0 < to.0 {
        x_limited = nodes.binary("Maximum", "Maximum", &x_limited, &bound(to.0, "min")?)?;
    }
    if from.1 > to.1 {
        x_limited = nodes.binary("Minimum", "Minimum", &x_limited, &bound(to.1, "max")?)?;
    }
    Ok(x_limited)
}

/// A limit of one integer dtype, as another that can hold it.
fn integer(limit: f64, dtype: DType) -> Result<Value> {
    if limit >= i64::MAX as f64 {
        return Value::from(i64::MAX).cast_exactly(dtype);
    }
    Value::from(limit as i64).cast_exactly(dtype)
}

/// `x` as `dtype`: fractions are cut off, integers keep their low bits, what is not zero is true. A tensor that has the
/// dtype already is given back as it is.
///
/// ```
/// use graph_core::DType;
/// use graph_ops::{array::constant, math};
/// let x = constant([1.7f32, -1.7]).build()?;
/// assert_eq!(math::cast(&x, DType::Int32).build()?.dtype(), DType::Int32);
/// assert_eq!(math::cast(&x, DType::Float32).build()?, x);
/// # Ok::<(), graph_core::Error>(())
/// ```
pub fn cast(x: impl IntoOperand, dtype: DType) -> Cast {
    Cast {
        operand: x.into_operand(),
        dtype,
        name: "Cast".to_owned(),
        saturate: false,
    }
}

/// `x` as `dtype`, limited to what that can hold instead of wrapped around.
pub fn saturate_cast(x: impl IntoOperand, dtype: DType) -> Cast {
    Cast {
        saturate: true,
        ..cast(x, dtype).name("saturate_cast")
    }
}

/// `x` as `f32`.
pub fn to_float(x: impl IntoOperand) -> Cast {
    cast(x, DType::Float32).name("ToFloat")
}

/// `x` as `f64`.
pub fn to_double(x: impl IntoOperand) -> Cast {
    cast(x, DType::Float64).name("ToDouble")
}

/// `x` as `i32`.
pub fn to_int32(x: impl IntoOperand) -> Cast {
    cast(x, DType::Int32).name("ToInt32")
}

/// `x` as `i64`.
pub fn to_int64(x: impl IntoOperand) -> Cast {
    cast(x, DType::Int64).name("ToInt64")
}

/// `x` as `bf16`.
pub fn to_bfloat16(x: impl IntoOperand) -> Cast {
    cast(x, DType::BFloat16).name("ToBFloat16")
}

/// The bits of `input` as elements of `dtype`.
#[track_caller]
pub fn bitcast(input: impl IntoOperand, dtype: DType) -> OpBuilder {
    crate::op("Bitcast").input(input).attr("type", dtype)
}

#[cfg(test)]
#[path = "cast_tests.rs"]
mod tests;
#[cfg(test)]
pub(crate) use tests::{cases, gradient_cases};
