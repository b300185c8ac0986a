//! `ParameterizedTruncatedNormal`: normal numbers between bounds, of one distribution or one for each row.

use graph_core::graph::IntoOperand;
use graph_core::op::{KernelContext, KernelDefinition, KernelRequest, OpDefinition, Planned};
use graph_core::{DType, Element, Error, Result, Shape, typed_builder};
use graph_cuda::Source;
use half::{bf16, f16};

use super::generator::{Generator, check_dimensions, shape_of_input};
use super::seed::get_seed;
use crate::composite::Composite;
use crate::cpu::random_truncated::{Bounded, BoundedReal, Failure, MOST_ITERATIONS, fill_bounded};
use crate::cuda::launch::{Launch, Work};
use crate::cuda::philox::{BYTES, write_place};
use crate::cuda::window::joined_source;
use crate::cuda::{FLOATS, type_name};

/// Numbers of one distribution are drawn in rows of this many, which decides how far a run moves the generator.
const ROW: usize = 100;

/// The definition of `ParameterizedTruncatedNormal`.
pub(crate) fn definition() -> OpDefinition {
    let kernel = |make, dtypes| {
        KernelDefinition::cpu(make)
            .types("dtype", dtypes)
            .state(Generator::state)
    };
    OpDefinition::new(
        "ParameterizedTruncatedNormal",
        "Normal numbers between bounds; means, deviations and bounds are scalars or vectors, an element for each row.",
    )
    .input("shape: T")
    .input("means: dtype")
    .input("stdevs: dtype")
    .input("minvals: dtype")
    .input("maxvals: dtype")
    .output("output: dtype")
    .attr("seed: int = 0")
    .attr("seed2: int = 0")
    .attr("dtype: {half, bfloat16, float, double}")
    .attr("T: {int32, int64}")
    .stateful()
    .may_fail()
    .plan_time_inputs(&[0])
    .shape(|context| {
        for parameter in 1..5 {
            context.with_rank_at_most(parameter, 1)?;
        }
        shape_of_input(context)
    })
    .not_differentiable()
    .kernel(kernel(make::<f32>, &[DType::Float32]))
    .kernel(kernel(make::<f64>, &[DType::Float64]))
    .kernel(kernel(make::<f16>, &[DType::Half]))
    .kernel(kernel(make::<bf16>, &[DType::BFloat16]))
    .kernel(
        KernelDefinition::cuda(on_device)
            .types("dtype", FLOATS)
            .state(Generator::state),
    )
}

/// How the numbers lie in rows, each of one distribution.
struct Rows {
    count: usize,
    len: usize,
}

impl Rows {
    fn new(request: &KernelRequest<'_>) -> Result<Self> {
        check_dimensions(request)?;
        let shape = request.output_shape(0)?;
        let Some(&rows) = shape.dims().first() else {
            return Err(Error::invalid_argument("the shape must have at least one dimension").got(shape));
        };
        let parameter = |index: usize| request.input_shape(index);
        let single = |shape: &Shape| shape.num_elements() == 1;
        let one_distribution =
            single(parameter(1)) && single(parameter(2)) && parameter(3).rank() == 0 && parameter(4).rank() == 0;
        if one_distribution {
            return Ok(Self {
                count: shape.num_elements().div_ceil(ROW),
                len: ROW,
            });
        }
        for index in 1..5 {
            let len = parameter(index).num_elements();
            if len != 1 && len != rows {
                return Err(Error::invalid_argument(format!(
                    "parameter {index} must be a scalar, or a vector with an element for each row"
                ))
                .expected(format!("1 or {rows} elements"))
                .got(len));
            }
        }
        Ok(Self {
            count: rows,
            len: shape[1..].iter().product(),
        })
    }

    /// Blocks of the generator that a run takes: each number takes two of the generator's, at each try.
    fn blocks(&self) -> u128 {
        self.count as u128 * 2 * MOST_ITERATIONS as u128 * (self.len as u128 + 3) / 4
    }
}

/// On a device, where parameters that make no sense give what is not a number.
fn on_device(request: &KernelRequest<'_>) -> Result<Planned> {
    const SOURCE: Source = joined_source!("bounded.cu": "../cuda/philox.cuh", "../cuda/numbers.cuh", "bounded.cu");
    let rows = Rows::new(request)?;
    let n = request.output_shape(0)?.num_elements();
    let many = |index: usize| usize::from(request.input_shape(index).num_elements() != 1);
    let numbers = [n, rows.len, many(1), many(2), many(3), many(4)];
    let defines = [("T", type_name(request.output_dtype(0))?)];
    let work = Work::Blocks(usize::from(n > 0));
    let launch = Launch::new(request, &SOURCE, "bounded", &defines, work, &numbers)?;
    let planned = Planned::new(move |context: &mut KernelContext<'_>| {
        let parameters = [1, 2, 3, 4].map(|index| context.input_address(index));
        let (output, place) = (context.output_address(0), context.parameters_address()?);
        // SAFETY: these are the kernel's parameters, which say how many numbers there are and which parameters are vectors.
        unsafe { launch.run([output].into_iter().chain(parameters).chain([place])) }
    });
    Ok(planned.with_parameters(BYTES, move |context, bytes| {
        write_place(context.state::<Generator>()?.reserve(rows.blocks()).place(), bytes)
    }))
}

fn make<T: Element + BoundedReal>(request: &KernelRequest<'_>) -> Result<Planned> {
    let rows = Rows::new(request)?;
    Ok(Planned::new(move |context| {
        let parameters: Vec<&[T]> = (1..5).map(|index| context.input::<T>(index)).collect::<Result<_>>()?;
        let output = context.output::<T>(0)?;
        let mut place = context.state::<Generator>()?.reserve(rows.blocks());
        for (index, out) in output.chunks_mut(rows.len.max(1)).enumerate() {
            let of = |which: usize| {
                let values = parameters[which];
                if values.len() == 1 { values[0] } else { values[index] }
            };
            let distribution = Bounded {
                mean: of(0),
                stddev: of(1),
                min: of(2),
                max: of(3),
            };
            fill_bounded(&mut place, distribution, out).map_err(|failure| match failure {
                Failure::Parameters => Error::invalid_argument("Invalid parameters")
                    .expected("a positive standard deviation, and bounds in order of which at least one is finite")
                    .got(format!("{distribution:?}")),
                Failure::Iterations => Error::internal("the rejection sampler failed to accept a sample"),
            })?;
        }
        Ok(())
    }))
}

typed_builder! {
    /// Normal numbers between bounds about to be made; see [`parameterized_truncated_normal`].
    pub struct ParameterizedTruncatedNormal;
}

/// Normal random numbers between `minvals` and `maxvals`, of the mean and the standard deviation that they would have
/// without the bounds, as a tensor of this shape (a vector of dimensions). The parameters are scalars, or vectors with an
/// element for each part along the first axis; all have one floating-point dtype, which the result has too.
///
/// A standard deviation that is not positive, bounds that are not in order, or two infinite ones are `InvalidArgument` in
/// the run.
#[track_caller]
pub fn parameterized_truncated_normal(
    shape: impl IntoOperand,
    means: impl IntoOperand,
    stdevs: impl IntoOperand,
    minvals: impl IntoOperand,
    maxvals: impl IntoOperand,
) -> ParameterizedTruncatedNormal {
    let operands = [shape.into_operand(), means.into_operand()];
    let (seed, seed2) = get_seed(&Composite::of(&[&operands[0], &operands[1]]).graph, None);
    let [shape, means] = operands;
    let node = crate::op("ParameterizedTruncatedNormal").input(shape).input(means);
    let node = node.input(stdevs).input(minvals).input(maxvals);
    ParameterizedTruncatedNormal(
        node.attr("seed", seed)
            .attr("seed2", seed2)
            .default_name("parameterized_truncated_normal"),
    )
}

impl ParameterizedTruncatedNormal {
    /// The op's own seed, for an op of the current graph.
    pub fn seed(self, seed: i64) -> Self {
        let (seed, seed2) = get_seed(&graph_core::graph::Graph::current(), Some(seed));
        Self(self.0.attr("seed", seed).attr("seed2", seed2))
    }
}

/// What TensorFlow draws with the same seeds.
#[cfg(test)]
pub(crate) fn cases() -> Vec<crate::testing::Case> {
    use crate::testing::Case;
    let seeded = || {
        let case = Case::new("ParameterizedTruncatedNormal");
        case.attr("seed", 1i64).attr("seed2", 12i64)
    };
    let case = |[mean, stddev, min, max]: [f64; 4], expected: [f64; 5]| {
        let case = seeded().input([5i32]).input(mean).input(stddev);
        case.input(min).input(max).expect(expected)
    };
    let single = |[mean, stddev, min, max]: [f32; 4], expected: [f32; 5]| {
        let case = seeded().input([5i32]).input(mean).input(stddev);
        case.input(min).input(max).expect(expected)
    };
    let half = |[mean, stddev, min, max]: [f32; 4], expected: [f32; 5]| {
        let of = f16::from_f32;
        let case = seeded().input([5i64]).input(of(mean)).input(of(stddev));
        let case = case.input(of(min)).input(of(max)).expect(expected.map(of));
        case.tolerance(1e-3, 1e-3)
    };
    vec![
        case(
            [0.0, 1.0, -2.0, 2.0],
            [0.573905587, 0.227524007, 0.269409534, 0.75114016, 1.90560931],
        ),
        case(
            [0.0, 1.0, 5.0, f64::INFINITY],
            [5.036699928, 5.061317567, 5.369010808, 5.291550748, 5.487662407],
        ),
        case(
            [1.0, 2.0, f64::NEG_INFINITY, -3.0],
            [-3.157871202, -3.263768312, -4.587364977, -4.254156887, -5.097765727],
        ),
        single(
            [0.0, 1.0, -1.0, 1.0],
            [0.20662236, 0.047482014, 0.18478394, -0.7132058, 0.003062725],
        ),
        single(
            [0.0, 1.0, 2.0, 4.0],
            [2.2093112, 2.267896, 2.6349373, 2.190166, 2.8044596],
        ),
        half([0.0, 1.0, -1.0, 1.0], [-0.3496, -0.02734, 0.75, 0.418, 0.08984]),
        seeded()
            .input([2i32, 3])
            .input([0.0f32, 5.0])
            .input(1.0f32)
            .input([-1.0f32, 4.0])
            .input(9.0f32)
            .expect([[-0.47795692f32, 0.88442147, -0.62377393], [4.039362, 6.463873, 5.91942]]),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Case;
    use graph_core::{Session, Value};

    #[test]
    fn parameters_that_make_no_sense_are_errors() {
        let run = |mean: graph_core::Value, stddev: f32, min: f32, max: f32| {
            let case = Case::new("ParameterizedTruncatedNormal").input([3i32]).input(mean);
            case.input(stddev).input(min).input(max).run()
        };
        assert!(run(0.0f32.into(), 1.0, -1.0, 1.0).is_ok());
        assert!(run(0.0f32.into(), -1.0, -1.0, 1.0).is_err());
        assert!(run(0.0f32.into(), 1.0, 1.0, -1.0).is_err());
        assert!(run(0.0f32.into(), 1.0, f32::NEG_INFINITY, f32::INFINITY).is_err());
        assert!(run([0.0f32, 1.0].into(), 1.0, -1.0, 1.0).is_err());
    }

    #[test]
    fn a_gpu_draws_the_numbers_of_the_cpu() -> Result<()> {
        let device = match crate::testing::gpu() {
            Ok(device) => device,
            Err(reason) => {
                println!("skipped: {reason}");
                return Ok(());
            }
        };
        let graph = graph_core::Graph::new();
        let _default = graph.as_default();
        // Of rows of 100 and of rows of distributions of their own, two of which keep little of what is drawn; twice.
        let mut drawn = Vec::new();
        for dtype in [DType::Float32, DType::Float64, DType::Half, DType::BFloat16] {
            let of = |numbers: &[f64]| -> Result<graph_core::Tensor> {
                let value = match *numbers {
                    [number] => Value::scalar(number),
                    _ => Value::from_vec([numbers.len()], numbers)?,
                };
                crate::array::constant(value.cast_exactly(dtype)?).build()
            };
            for [min, max] in [[-1.0, 1.5], [0.5, 1.0], [2.0, f64::INFINITY], [f64::NEG_INFINITY, 0.25]] {
                let numbers =
                    parameterized_truncated_normal([25, 30], of(&[0.5])?, of(&[1.5])?, of(&[min])?, of(&[max])?);
                drawn.push(numbers.seed(7).build()?);
            }
            let (mins, maxs) = (of(&[-1.0, 2.0, -0.25, -8.0])?, of(&[1.0, 9.0, 0.25, -3.0])?);
            let numbers = parameterized_truncated_normal([4, 700], of(&[0.0, 1.0, 0.0, 0.5])?, of(&[1.0])?, mins, maxs);
            drawn.push(numbers.seed(8).build()?);
        }
        let on_cpu = Session::new(&graph)?;
        let options = graph_core::session::SessionOptions::default().accelerators(vec![device.accelerator()]);
        let on_gpu = Session::with_options(&graph, options.allow_soft_placement(false))?;
        for _ in 0..2 {
            let (got, expected): (Vec<Value>, Vec<Value>) = (on_gpu.run(&drawn, ())?, on_cpu.run(&drawn, ())?);
            for ((got, expected), tensor) in got.iter().zip(&expected).zip(&drawn) {
                crate::testing::assert_close(got, expected, (1e-6, 1e-6), &tensor.name());
            }
        }
        Ok(())
    }

    #[test]
    fn the_next_run_goes_on() -> Result<()> {
        let graph = graph_core::Graph::new();
        let _default = graph.as_default();
        let node = parameterized_truncated_normal([5], 0.0f32, 1.0f32, -2.0f32, 2.0f32);
        let numbers = ParameterizedTruncatedNormal(node.0.attr("seed", 1i64).attr("seed2", 12i64)).build()?;
        let session = Session::new(&graph)?;
        let first: Vec<f32> = session.run(&numbers, ())?;
        let second: Vec<f32> = session.run(&numbers, ())?;
        assert_eq!(first, [-0.47795692, 0.88442147, -0.62377393, -0.951011, -0.9606378]);
        assert_eq!(second, [0.22592668, -1.5478342, 0.88211274, -0.8799996, 0.5371416]);
        Ok(())
    }
}
