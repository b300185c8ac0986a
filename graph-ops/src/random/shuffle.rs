//! `RandomShuffle`: the rows of a tensor in random order.

use graph_core::graph::IntoOperand;
use graph_core::op::{InferenceContext, KernelDefinition, KernelRequest, OpDefinition, Planned};
use graph_core::{Complex, DType, Element, Result, Value, typed_builder};

use super::generator::Generator;
use super::seed::get_seed;
use crate::composite::Composite;
use crate::cpu::philox::Words;

/// The definition of `RandomShuffle`.
pub(crate) fn definition() -> OpDefinition {
    let definition = OpDefinition::new(
        "RandomShuffle",
        "The rows of a tensor, its parts along the first dimension, in random order.",
    )
    .input("value: T")
    .output("output: T")
    .attr("seed: int = 0")
    .attr("seed2: int = 0")
    .attr("T: type")
    .stateful()
    .shape(InferenceContext::unchanged)
    .not_differentiable();
    macro_rules! kernels {
        ($definition:ident, $($dtype:ident $type:ty),*) => {
            $definition$(.kernel(
                KernelDefinition::cpu(make::<$type>).types("T", &[DType::$dtype]).state(Generator::state),
            ))*
        };
    }
    kernels!(
        definition, Float32 f32, Float64 f64, Half half::f16, BFloat16 half::bf16, Int8 i8, Int16 i16, Int32 i32,
        Int64 i64, UInt8 u8, UInt16 u16, UInt32 u32, UInt64 u64, Bool bool, Complex64 Complex<f32>,
        Complex128 Complex<f64>
    )
    .kernel(
        KernelDefinition::cpu(make_strings)
            .types("T", &[DType::String])
            .state(Generator::state),
    )
}

/// Where the rows come from. A tensor of at most one row or element stays as it is, and the generator where it is.
fn order(generator: &mut Generator, rows: usize, elements: usize) -> Vec<usize> {
    let mut order: Vec<usize> = (0..rows).collect();
    if rows <= 1 || elements <= 1 {
        return order;
    }
    let mut words = Words::new(generator.reserve((rows as u128 - 1).div_ceil(4)));
    for index in 0..rows - 1 {
        let left = (rows - index) as u32;
        order.swap(index, index + (words.next() % left) as usize);
    }
    order
}

fn make<T: Element>(request: &KernelRequest<'_>) -> Result<Planned> {
    let shape = request.input_shape(0).clone();
    let rows = shape.first().copied().unwrap_or(1);
    let row: usize = shape.iter().skip(1).product();
    Ok(Planned::new(move |context| {
        let (input, output) = (context.input::<T>(0)?, context.output::<T>(0)?);
        let order = order(context.state::<Generator>()?, rows, input.len());
        if row > 0 {
            for (output, from) in output.chunks_exact_mut(row).zip(order) {
                output.copy_from_slice(&input[from * row..(from + 1) * row]);
            }
        }
        Ok(())
    }))
}

fn make_strings(request: &KernelRequest<'_>) -> Result<Planned> {
    let shape = request.input_shape(0).clone();
    let rows = shape.first().copied().unwrap_or(1);
    let row: usize = shape.iter().skip(1).product();
    Ok(Planned::new(move |context| {
        let input = context.input_strings(0)?.to_vec();
        let order = order(context.state::<Generator>()?, rows, input.len());
        let rows = order.into_iter().map(|from| &input[from * row..(from + 1) * row]);
        let strings = rows.flatten().cloned().collect();
        context.set_output(0, Value::from_strings(shape.clone(), strings)?);
        Ok(())
    }))
}

typed_builder! {
    /// A random order about to be made; see [`random_shuffle`].
    pub struct RandomShuffle;
}

/// The rows of `value`, its parts along the first dimension, in random order: each order equally likely, another in each
/// run.
#[track_caller]
pub fn random_shuffle(value: impl IntoOperand) -> RandomShuffle {
    let value = value.into_operand();
    let (seed, seed2) = get_seed(&Composite::of(&[&value]).graph, None);
    RandomShuffle(
        crate::op("RandomShuffle")
            .input(value)
            .attr("seed", seed)
            .attr("seed2", seed2),
    )
}

impl RandomShuffle {
    /// The op's own seed, for an op of the current graph.
    pub fn seed(self, seed: i64) -> Self {
        let (seed, seed2) = get_seed(&graph_core::graph::Graph::current(), Some(seed));
        Self(self.0.attr("seed", seed).attr("seed2", seed2))
    }
}

/// What TensorFlow makes of the same seeds.
#[cfg(test)]
pub(crate) fn cases() -> Vec<crate::testing::Case> {
    use crate::testing::Case;
    let case = || Case::new("RandomShuffle").attr("seed", 3i64).attr("seed2", 4i64);
    let strings = |strings: [&str; 4]| {
        let strings = strings.map(|text| text.as_bytes().to_vec()).to_vec();
        Value::from_strings([4], strings).expect("four strings")
    };
    vec![
        case().input([0i32, 1, 2, 3, 4, 5, 6]).expect([1i32, 5, 3, 0, 2, 4, 6]),
        case()
            .input([[0.0f32, 1.0], [2.0, 3.0], [4.0, 5.0]])
            .expect([[0.0f32, 1.0], [2.0, 3.0], [4.0, 5.0]]),
        case()
            .input(strings(["a", "b", "c", "d"]))
            .expect(strings(["b", "c", "d", "a"])),
        case().input(7u8).expect(7u8),
        case()
            .input(Value::from(Vec::<f64>::new()))
            .expect(Value::from(Vec::<f64>::new())),
    ]
}
