//! `Multinomial`: draws of classes by their unnormalized log-probabilities.

use graph_core::accelerator::DeviceAddress;
use graph_core::graph::IntoOperand;
use graph_core::op::{InferenceContext, KernelContext, KernelDefinition, KernelRequest, OpDefinition, Planned};
use graph_core::{DType, Element, Error, PartialShape, Result, typed_builder};
use graph_cuda::Source;
use half::{bf16, f16};

use super::generator::Generator;
use super::seed::get_seed;
use super::stateless::{generator, require_two_seeds};
use crate::composite::Composite;
use crate::cpu::philox::{Philox, Words};
use crate::cpu::random::RESERVED_BLOCKS_PER_ELEMENT;
use crate::cuda::launch::{Launch, Work};
use crate::cuda::philox::{BYTES, mixing, write_place};
use crate::cuda::window::joined_source;
use crate::cuda::{NUMBERS, type_name};

/// A kernel for each dtype.
macro_rules! kernels {
    ($definition:ident, $make:ident, |$kernel:ident| $finish:expr) => {
        kernels!(
            $definition, $make, |$kernel| $finish;
            Float32 f32, Float64 f64, Half f16, BFloat16 bf16, Int8 i8, Int16 i16, Int32 i32, Int64 i64, UInt8 u8,
            UInt16 u16, UInt32 u32, UInt64 u64
        )
    };
    ($definition:ident, $make:ident, |$kernel:ident| $finish:expr; $($dtype:ident $type:ty),*) => {
        $definition$(.kernel({
            let $kernel = KernelDefinition::cpu($make::<$type>).types("T", &[DType::$dtype]);
            $finish
        }))*
    };
}

/// The definition of `Multinomial`.
pub(crate) fn definition() -> OpDefinition {
    let definition = OpDefinition::new(
        "Multinomial",
        "Draws of classes, a row of the result for each row of unnormalized log-probabilities.",
    )
    .input("logits: T")
    .input("num_samples: int32")
    .output("output: output_dtype")
    .attr("seed: int = 0")
    .attr("seed2: int = 0")
    .attr("T: realnumbertype")
    .attr("output_dtype: {int32, int64} = DT_INT64")
    .stateful()
    .may_fail()
    .plan_time_inputs(&[1])
    .shape(shape)
    .not_differentiable();
    kernels!(definition, make, |kernel| kernel.state(Generator::state)).kernel(
        KernelDefinition::cuda(on_device)
            .types("T", NUMBERS)
            .state(Generator::state),
    )
}

/// The definition of `StatelessMultinomial`.
pub(crate) fn stateless_definition() -> OpDefinition {
    let definition = OpDefinition::new(
        "StatelessMultinomial",
        "Draws of classes, a row of the result for each row of unnormalized log-probabilities, which the seed alone decides.",
    )
    .input("logits: T")
    .input("num_samples: int32")
    .input("seed: Tseed")
    .output("output: output_dtype")
    .attr("T: realnumbertype")
    .attr("Tseed: {int32, int64} = DT_INT64")
    .attr("output_dtype: {int32, int64} = DT_INT64")
    .may_fail()
    .plan_time_inputs(&[1])
    .shape(|context| {
        require_two_seeds(context, 2)?;
        shape(context)
    })
    .not_differentiable();
    kernels!(definition, make_stateless, |kernel| kernel)
        .kernel(KernelDefinition::cuda(stateless_on_device).types("T", NUMBERS))
}

fn shape(context: &mut InferenceContext<'_>) -> Result<()> {
    let rows = context.with_rank(0, 2)?.dim(0);
    context.with_rank(1, 0)?;
    let samples = match context.int_values(1)?.as_deref() {
        Some(&[samples]) => Some(count(samples)?),
        _ => None,
    };
    context.set_output(0, PartialShape::from([rows, samples]));
    Ok(())
}

fn count(samples: i64) -> Result<usize> {
    usize::try_from(samples).map_err(|_| Error::invalid_argument("the number of samples is negative").got(samples))
}

/// A logit as `f64`.
trait Logit: Element {
    fn logit(self) -> f64;
}

macro_rules! logits {
    ($($type:ty => |$x:ident| $convert:expr),*) => {$(
        impl Logit for $type {
            fn logit(self) -> f64 {
                let $x = self;
                $convert
            }
        }
    )*};
}

logits!(
    f32 => |x| x.into(), f64 => |x| x, f16 => |x| x.into(), bf16 => |x| x.into(), i8 => |x| x.into(), i16 => |x| x.into(),
    i32 => |x| x.into(), i64 => |x| x as f64, u8 => |x| x.into(), u16 => |x| x.into(), u32 => |x| x.into(),
    u64 => |x| x as f64
);

/// What is drawn, as far as shapes say.
#[derive(Clone, Copy)]
struct Draws {
    rows: usize,
    classes: usize,
    samples: usize,
    wide: bool,
}

fn plan(request: &KernelRequest<'_>) -> Result<Draws> {
    let &[rows, classes] = request.input_shape(0).dims() else {
        return Err(Error::invalid_argument("logits must be a matrix").got(request.input_shape(0)));
    };
    let samples = match request.value(1)?.to_i64_vec()?.as_slice() {
        &[samples] => count(samples)?,
        _ => return Err(Error::invalid_argument("num_samples must be a scalar")),
    };
    if rows > 0 && samples > 0 && classes == 0 {
        return Err(Error::invalid_argument("there are no classes to draw").got(request.input_shape(0)));
    }
    Ok(Draws {
        rows,
        classes,
        samples,
        wide: request.output_dtype(0) == DType::Int64,
    })
}

fn make<T: Logit>(request: &KernelRequest<'_>) -> Result<Planned> {
    let draws = plan(request)?;
    Ok(Planned::new(move |context| {
        let place = context.state::<Generator>()?.reserve(draws.blocks());
        draws.run::<T>(context, place)
    }))
}

fn make_stateless<T: Logit>(request: &KernelRequest<'_>) -> Result<Planned> {
    let draws = plan(request)?;
    Ok(Planned::new(move |context| {
        let place = generator(&context.input_value(2)?)?;
        draws.run::<T>(context, place)
    }))
}

/// The kernels of draws on a device: the rows' cumulative probabilities, for which there must be scratch memory, and the classes.
struct OnDevice {
    accumulate: Launch,
    draw: Launch,
    /// Of scratch memory.
    bytes: usize,
}

impl OnDevice {
    fn new(request: &KernelRequest<'_>, draws: Draws) -> Result<Self> {
        const SOURCE: Source = joined_source!("multinomial.cu": "../cuda/philox.cuh", "multinomial.cu");
        let Draws {
            rows, classes, samples, ..
        } = draws;
        let defines = [
            ("T", type_name(request.input_dtype(0))?),
            ("O", type_name(request.output_dtype(0))?),
        ];
        let (n, work) = (rows * samples, Work::Blocks(if samples == 0 { 0 } else { rows }));
        let bytes = rows * classes * 8;
        let accumulate = Launch::new(request, &SOURCE, "accumulate", &defines, work, &[rows, classes])?;
        let (work, numbers) = (Work::Elements(n), [n, samples, classes]);
        let draw = Launch::new(request, &SOURCE, "draw", &defines, work, &numbers)?;
        let logits = rows * classes * request.input_dtype(0).size().unwrap_or(0);
        Ok(Self {
            // Of each logit: the greatest, the difference from it, its power, the sum.
            accumulate: accumulate.moving(logits + bytes).doing(4 * rows * classes),
            draw: draw.moving(bytes + request.output_bytes()),
            bytes,
        })
    }

    /// Gives them to the device.
    ///
    /// # Safety
    /// The sums have room for as many bytes as this says, and the place holds a generator's.
    unsafe fn run(&self, context: &KernelContext<'_>, sums: DeviceAddress, place: DeviceAddress) -> Result<()> {
        // SAFETY: these are the kernels' parameters, which say how many elements each tensor has.
        unsafe {
            self.accumulate.run([sums, context.input_address(0)])?;
            self.draw.run([context.output_address(0), sums, place])
        }
    }
}

fn on_device(request: &KernelRequest<'_>) -> Result<Planned> {
    let draws = plan(request)?;
    let kernels = OnDevice::new(request, draws)?;
    let scratch = kernels.bytes;
    let planned = Planned::new(move |context: &mut KernelContext<'_>| {
        let (sums, place) = (context.scratch_address(), context.parameters_address()?);
        // SAFETY: the scratch memory is that of the sums.
        unsafe { kernels.run(context, sums, place) }
    });
    let planned = planned.with_scratch(scratch);
    Ok(planned.with_parameters(BYTES, move |context, bytes| {
        write_place(context.state::<Generator>()?.reserve(draws.blocks()).place(), bytes)
    }))
}

fn stateless_on_device(request: &KernelRequest<'_>) -> Result<Planned> {
    let kernels = OnDevice::new(request, plan(request)?)?;
    let mix = mixing(request, 2)?;
    let begin = kernels.bytes.next_multiple_of(16);
    let planned = Planned::new(move |context: &mut KernelContext<'_>| {
        let sums = context.scratch_address();
        let place = sums.offset(begin);
        // SAFETY: the scratch memory is that of the sums and of a place behind them.
        unsafe {
            mix.run([place, context.input_address(2)])?;
            kernels.run(context, sums, place)
        }
    });
    Ok(planned.with_scratch(begin + BYTES))
}

impl Draws {
    /// How far a run moves the generator: a draw takes two words.
    fn blocks(self) -> u128 {
        self.rows as u128 * (self.samples.next_multiple_of(4) * 2) as u128 * RESERVED_BLOCKS_PER_ELEMENT
    }

    fn run<T: Logit>(self, context: &mut KernelContext<'_>, place: Philox) -> Result<()> {
        if self.rows == 0 || self.samples == 0 {
            return Ok(());
        }
        let logits = context.input::<T>(0)?;
        let mut words = Words::new(place);
        let classes = logits
            .chunks_exact(self.classes)
            .flat_map(|row| draw(row, self.samples, &mut words));
        if self.wide {
            let out = context.output::<i64>(0)?.iter_mut();
            out.zip(classes).for_each(|(out, class)| *out = class as i64);
        } else {
            let out = context.output::<i32>(0)?.iter_mut();
            out.zip(classes).for_each(|(out, class)| *out = class as i32);
        }
        Ok(())
    }
}

/// Draws by inversion of the cumulative distribution. Infinite logits and NaN have no probability.
fn draw<T: Logit>(logits: &[T], samples: usize, words: &mut Words) -> Vec<usize> {
    let finite = |logit: &T| Some(logit.logit()).filter(|logit| logit.is_finite());
    let greatest = logits.iter().filter_map(finite).fold(f64::MIN, f64::max);
    let cumulative: Vec<f64> = logits
        .iter()
        .scan(0.0, |total, logit| {
            *total += finite(logit).map_or(0.0, |logit| (logit - greatest).exp());
            Some(*total)
        })
        .collect();
    let total = cumulative.last().copied().unwrap_or(0.0);
    (0..samples)
        .map(|_| {
            let place = words.uniform_f64() * total;
            cumulative.partition_point(|&bound| bound <= place)
        })
        .collect()
}

typed_builder! {
    /// Draws about to be made; see [`multinomial`].
    pub struct Multinomial;
}

/// `num_samples` independent draws for each row of `logits`, unnormalized log-probabilities of shape [rows, classes]: the
/// classes' numbers, `int64` of shape [rows, num_samples].
#[track_caller]
pub fn multinomial(logits: impl IntoOperand, num_samples: impl IntoOperand) -> Multinomial {
    let (logits, num_samples) = (logits.into_operand(), num_samples.into_operand());
    let (seed, seed2) = get_seed(&Composite::of(&[&logits, &num_samples]).graph, None);
    let node = crate::op("Multinomial").input(logits).input(num_samples);
    Multinomial(node.attr("seed", seed).attr("seed2", seed2).default_name("multinomial"))
}

impl Multinomial {
    /// The op's own seed, for an op of the current graph.
    pub fn seed(self, seed: i64) -> Self {
        let (seed, seed2) = get_seed(&graph_core::graph::Graph::current(), Some(seed));
        Self(self.0.attr("seed", seed).attr("seed2", seed2))
    }

    /// The result's dtype: `Int64` (without) or `Int32`.
    pub fn output_dtype(self, dtype: DType) -> Self {
        Self(self.0.attr("output_dtype", dtype))
    }
}

#[cfg(test)]
pub(crate) fn cases() -> Vec<crate::testing::Case> {
    use crate::testing::Case;
    let case = || Case::new("Multinomial").attr("seed", 3i64).attr("seed2", 4i64);
    vec![
        case()
            .input([[0.1f32, 0.2, 0.7], [0.5, 0.25, 0.25]].map(|row| row.map(f32::ln)))
            .input(6i32)
            .expect([[2i64, 2, 2, 2, 0, 0], [0, 1, 2, 0, 2, 1]]),
        case()
            .attr("output_dtype", DType::Int32)
            .input([[0.1f64, 0.2, 0.7], [f64::NEG_INFINITY, 0.25, 0.25]])
            .input(5i32)
            .expect([[1i32, 2, 1, 2, 0], [1, 1, 2, 2, 1]]),
        case()
            .input([[1.0f32, 2.0, 3.0], [3.0, 2.0, 1.0]].map(|row| row.map(f16::from_f32)))
            .input(3i32)
            .expect([[2i64, 2, 1], [1, 0, 0]]),
        Case::new("StatelessMultinomial")
            .input([[0.1f32, 0.5, 1.0], [2.0, 1.0, 0.0]])
            .input(6i32)
            .input([1i64, 12])
            .expect([[1i64, 2, 1, 1, 2, 1], [1, 0, 1, 0, 0, 0]]),
    ]
}

#[cfg(test)]
mod tests {
    use crate::testing::Case;

    #[test]
    fn bad_draws_are_errors() {
        let empty = graph_core::Value::zeros(graph_core::DType::Float32, [2, 0]).unwrap();
        assert!(Case::new("Multinomial").input(empty).input(2i32).run().is_err());
        assert!(Case::new("Multinomial").input([[1.0f32]]).input(-1i32).run().is_err());
        assert!(Case::new("Multinomial").input([1.0f32]).input(1i32).run().is_err());
    }
}
