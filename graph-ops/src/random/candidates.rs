//! Samplers of candidate classes: `UniformCandidateSampler` and its like, and `ComputeAccidentalHits`.

use std::path::Path;

use graph_core::graph::{IntoOperand, OpBuilder, Operand, Tensor};
use graph_core::op::kernel::MakeState;
use graph_core::op::{
    Attributes, InferenceContext, KernelContext, KernelDefinition, KernelRequest, KernelState, OpDefinition, Planned,
};
use graph_core::{Error, PartialShape, Result, Value};
use rustc_hash::FxHashMap;

use super::generator::Generator;
use super::seed::get_seed;
use crate::composite::Composite;
use crate::cpu::candidates::{Counts, Sampler, Weights};
use crate::cpu::philox::Words;

/// Blocks of the generator that one run reserves a candidate.
const BLOCKS_A_CANDIDATE: u128 = 512;

/// What a node keeps: its stream, and what it samples from.
struct State {
    generator: Generator,
    sampler: Sampler,
}

impl State {
    fn boxed(attrs: &Attributes, sampler: Sampler) -> Result<Box<dyn KernelState>> {
        let generator = Generator::of(attrs)?;
        Ok(Box::new(Self { generator, sampler }))
    }
}

/// The generator's numbers, and behind them what a learned sampler has counted.
impl KernelState for State {
    fn save(&self) -> Value {
        let Sampler::Learned(counts) = &self.sampler else {
            return self.generator.save();
        };
        let mut numbers = self.generator.numbers().to_vec();
        numbers.extend(counts.as_slice().iter().map(|&count| count as u64));
        Value::from(numbers)
    }

    fn restore(&mut self, saved: &Value) -> Result<()> {
        let Sampler::Learned(counts) = &mut self.sampler else {
            return self.generator.restore(saved);
        };
        let wrong = || Error::invalid_argument("the saved state is not that of such a sampler");
        let (numbers, saved) = saved.as_slice::<u64>()?.split_first_chunk::<3>().ok_or_else(wrong)?;
        let saved: Option<Vec<i32>> = saved.iter().map(|&count| i32::try_from(count).ok()).collect();
        let saved = saved
            .and_then(Counts::of)
            .filter(|saved| saved.as_slice().len() == counts.as_slice().len());
        *counts = saved.ok_or_else(wrong)?;
        self.generator.restore(&Value::from(*numbers))
    }
}

fn base(name: &'static str, summary: &'static str, state: MakeState) -> OpDefinition {
    OpDefinition::new(name, summary)
        .input("true_classes: int64")
        .output("sampled_candidates: int64")
        .output("true_expected_count: float")
        .output("sampled_expected_count: float")
        .attr("num_true: int >= 1")
        .attr("num_sampled: int >= 1")
        .attr("unique: bool")
        .stateful()
        .may_fail()
        .shape(shape)
        .not_differentiable()
        .kernel(KernelDefinition::cpu(make).state(state))
}

fn with_seeds(definition: OpDefinition) -> OpDefinition {
    definition.attr("seed: int = 0").attr("seed2: int = 0")
}

fn range(attrs: &Attributes) -> Result<i64> {
    let range: i64 = attrs.read("range_max")?;
    if range < 1 {
        return Err(Error::invalid_argument("range_max must be positive").got(range));
    }
    Ok(range)
}

/// The definition of `AllCandidateSampler`.
pub(crate) fn all_definition() -> OpDefinition {
    with_seeds(base(
        "AllCandidateSampler",
        "All classes, as if they had been sampled, for testing.",
        |attrs| State::boxed(attrs, Sampler::All(attrs.read("num_sampled")?)),
    ))
}

/// The definition of `UniformCandidateSampler`.
pub(crate) fn uniform_definition() -> OpDefinition {
    let definition = base(
        "UniformCandidateSampler",
        "Classes drawn with equal probabilities, and how often each is expected in a batch.",
        |attrs| State::boxed(attrs, Sampler::Uniform(range(attrs)?)),
    );
    with_seeds(definition.attr("range_max: int >= 1"))
}

/// The definition of `LogUniformCandidateSampler`.
pub(crate) fn log_uniform_definition() -> OpDefinition {
    let definition = base(
        "LogUniformCandidateSampler",
        "Classes drawn with probabilities that fall as those of words by rank do: log((k + 2) / (k + 1)) / log(range + 1).",
        |attrs| State::boxed(attrs, Sampler::LogUniform(range(attrs)?)),
    );
    with_seeds(definition.attr("range_max: int >= 1"))
}

fn learned_state(attrs: &Attributes) -> Result<Box<dyn KernelState>> {
    let range = i32::try_from(range(attrs)?).ok().filter(|&range| range < i32::MAX);
    let range = range.ok_or_else(|| Error::invalid_argument("range_max is too large to count its classes"))?;
    State::boxed(attrs, Sampler::Learned(Counts::new(range)))
}

/// The definition of `LearnedUnigramCandidateSampler`.
pub(crate) fn learned_unigram_definition() -> OpDefinition {
    let definition = base(
        "LearnedUnigramCandidateSampler",
        "Classes drawn in proportion to how often each has been among the true classes of earlier runs, plus one.",
        learned_state,
    );
    with_seeds(definition.attr("range_max: int >= 1"))
}

/// The definition of `ThreadUnsafeUnigramCandidateSampler`.
pub(crate) fn thread_unsafe_unigram_definition() -> OpDefinition {
    let definition = base(
        "ThreadUnsafeUnigramCandidateSampler",
        "As LearnedUnigramCandidateSampler; runs of a session take turns anyway.",
        learned_state,
    );
    with_seeds(definition.attr("range_max: int >= 1"))
}

/// The definition of `FixedUnigramCandidateSampler`.
pub(crate) fn fixed_unigram_definition() -> OpDefinition {
    let definition = base(
        "FixedUnigramCandidateSampler",
        "Classes drawn in proportion to given weights, each to the power of `distortion`.",
        |attrs| State::boxed(attrs, Sampler::Fixed(fixed_weights(attrs)?)),
    );
    with_seeds(
        definition
            .attr("range_max: int >= 1")
            .attr("vocab_file: string = ''")
            .attr("distortion: float = 1.0")
            .attr("num_reserved_ids: int = 0")
            .attr("num_shards: int >= 1 = 1")
            .attr("shard: int >= 0 = 0")
            .attr("unigrams: list(float) = []"),
    )
}

/// The weights of a fixed distribution: of a file or an attribute, of one shard of the classes.
fn fixed_weights(attrs: &Attributes) -> Result<Weights> {
    let file: String = attrs.read("vocab_file")?;
    let unigrams: Vec<f32> = attrs.read("unigrams")?;
    if file.is_empty() == unigrams.is_empty() {
        return Err(Error::invalid_argument(
            "exactly one of vocab_file and unigrams must be given",
        ));
    }
    let unigrams = if file.is_empty() {
        unigrams
    } else {
        read_vocabulary(Path::new(&file))?
    };
    let (shards, shard): (i64, i64) = (attrs.read("num_shards")?, attrs.read("shard")?);
    let (distortion, reserved): (f32, i64) = (attrs.read("distortion")?, attrs.read("num_reserved_ids")?);
    let own = |id: &i64| shards > 0 && id % shards == shard;
    let reserved = (0..reserved).filter(own).count();
    // As TensorFlow counts: the other shards' reserved classes have no numbers.
    let weights: Vec<f32> = (reserved as i64..)
        .zip(unigrams)
        .filter(|(id, _)| own(id))
        .map(|(_, weight)| weight.powf(distortion))
        .collect();
    if let Some(bad) = weights.iter().find(|weight| !weight.is_finite() || **weight < 0.0) {
        return Err(Error::invalid_argument("a weight is negative or no number").got(bad));
    }
    if weights.iter().all(|&weight| weight == 0.0) {
        return Err(Error::invalid_argument("no class has a weight"));
    }
    let weights = Weights::new(reserved, &weights);
    let range = range(attrs)?;
    if range != weights.len() as i64 {
        return Err(Error::invalid_argument("range_max must be the number of weights")
            .expected(weights.len())
            .got(range));
    }
    Ok(weights)
}

/// The last fields of a file's lines, which commas separate.
fn read_vocabulary(path: &Path) -> Result<Vec<f32>> {
    let text = std::fs::read_to_string(path).map_err(|error| Error::io(path, error))?;
    text.lines()
        .map(|line| {
            let last = line.rsplit(',').next().unwrap_or(line);
            last.trim()
                .parse()
                .map_err(|_| Error::invalid_argument("a line of the vocabulary does not end in a number").got(line))
        })
        .collect()
}

fn shape(context: &mut InferenceContext<'_>) -> Result<()> {
    let classes = context.with_rank(0, 2)?;
    let (true_count, sampled): (i64, i64) = (context.attr("num_true")?, context.attr("num_sampled")?);
    let columns = context.merge_dims(
        Some(true_count.max(0) as usize),
        classes.dim(1),
        "num_true and the columns of true_classes",
    )?;
    let sampled = PartialShape::vector(sampled.max(0) as usize);
    context.set_output(0, &sampled);
    context.set_output(1, PartialShape::from([classes.dim(0), columns]));
    context.set_output(2, sampled);
    Ok(())
}

fn make(request: &KernelRequest<'_>) -> Result<Planned> {
    let unique: bool = request.attr("unique")?;
    Ok(Planned::new(move |context: &mut KernelContext<'_>| {
        let classes = context.input::<i64>(0)?;
        let sampled = context.output::<i64>(0)?;
        let (true_counts, sampled_counts) = (context.output::<f32>(1)?, context.output::<f32>(2)?);
        let State { generator, sampler } = context.state::<State>()?;
        if unique && sampled.len() > sampler.possible() {
            return Err(Error::invalid_argument("Sampler's range is too small.")
                .expected(format!("at least {} classes", sampled.len()))
                .got(sampler.possible()));
        }
        let range = sampler.range();
        if let Some(bad) = classes.iter().find(|class| !(0..range).contains(*class)) {
            return Err(Error::invalid_argument("a true class is out of range")
                .expected(format!("0 to {}", range - 1))
                .got(bad));
        }
        let place = generator.reserve(sampled.len() as u128 * BLOCKS_A_CANDIDATE);
        let tries = sampler.draw(&mut Words::new(place), unique, sampled);
        let expected = |class: &i64| sampler.expected_count(*class, sampled.len(), tries);
        let pairs = classes
            .iter()
            .zip(true_counts)
            .chain(sampled.iter().zip(sampled_counts));
        pairs.for_each(|(class, out)| *out = expected(class));
        if let Sampler::Learned(counts) = sampler {
            counts.see(classes);
        }
        Ok(())
    }))
}

/// The definition of `ComputeAccidentalHits`.
pub(crate) fn accidental_hits_definition() -> OpDefinition {
    OpDefinition::new(
        "ComputeAccidentalHits",
        "Where sampled candidates are true classes: the rows, the candidates' places, and a weight that rules them out.",
    )
    .input("true_classes: int64")
    .input("sampled_candidates: int64")
    .output("indices: int32")
    .output("ids: int64")
    .output("weights: float")
    .attr("num_true: int")
    .attr("seed: int = 0")
    .attr("seed2: int = 0")
    .may_fail()
    .shape(|context| {
        let classes = context.with_rank(0, 2)?;
        context.with_rank(1, 1)?;
        let count: i64 = context.attr("num_true")?;
        let count = usize::try_from(count).ok();
        context.merge_dims(count, classes.dim(1), "num_true and the columns of true_classes")?;
        (0..3).for_each(|output| context.set_output(output, PartialShape::unknown_of_rank(1)));
        Ok(())
    })
    .not_differentiable()
    .kernel(KernelDefinition::cpu(make_hits).data_dependent())
}

fn make_hits(request: &KernelRequest<'_>) -> Result<Planned> {
    let columns = request.input_shape(0)[1];
    Ok(Planned::new(move |context: &mut KernelContext<'_>| {
        let (classes, candidates) = (context.input::<i64>(0)?, context.input::<i64>(1)?);
        // Of equal candidates the last one counts.
        let places: FxHashMap<i64, usize> = candidates.iter().copied().zip(0..).collect();
        let hits: Vec<(i32, i64)> = classes
            .iter()
            .enumerate()
            .filter_map(|(at, class)| Some(((at / columns) as i32, *places.get(class)? as i64)))
            .collect();
        let (indices, ids) = (
            context.allocate_output::<i32>(0, [hits.len()])?,
            context.allocate_output::<i64>(1, [hits.len()])?,
        );
        context.allocate_output::<f32>(2, [hits.len()])?.fill(f32::MIN);
        for ((index, id), hit) in indices.iter_mut().zip(ids).zip(hits) {
            (*index, *id) = hit;
        }
        Ok(())
    }))
}

/// A sampler of candidates about to be made; see [`uniform_candidate_sampler`] and its like.
#[must_use = "an operation is made by `build`"]
pub struct CandidateSampler(OpBuilder);

/// Sampled candidates.
#[derive(Clone, Debug)]
pub struct Candidates {
    /// The sampled classes, `int64` of shape [num_sampled].
    pub sampled: Tensor,
    /// How often each true class is expected in such a batch, `float` of shape [batch, num_true].
    pub true_expected_count: Tensor,
    /// How often each sampled class is expected in such a batch, `float` of shape [num_sampled].
    pub sampled_expected_count: Tensor,
}

impl CandidateSampler {
    #[track_caller]
    fn new(op: &str, true_classes: Operand, [num_true, num_sampled]: [i64; 2], unique: bool) -> Self {
        let (seed, seed2) = get_seed(&Composite::of(&[&true_classes]).graph, None);
        Self(
            crate::op(op)
                .input(true_classes)
                .attr("num_true", num_true)
                .attr("num_sampled", num_sampled)
                .attr("unique", unique)
                .attr("seed", seed)
                .attr("seed2", seed2),
        )
    }

    /// The op's own seed, for an op of the current graph.
    pub fn seed(self, seed: i64) -> Self {
        let (seed, seed2) = get_seed(&graph_core::graph::Graph::current(), Some(seed));
        Self(self.0.attr("seed", seed).attr("seed2", seed2))
    }

    /// Names the operation.
    pub fn name(self, name: impl Into<String>) -> Self {
        Self(self.0.name(name))
    }

    /// Makes the operation.
    ///
    /// # Errors
    /// The operand's own; `InvalidArgument` if it is no matrix of `num_true` columns.
    pub fn build(self) -> Result<Candidates> {
        let operation = self.0.build_operation()?;
        Ok(Candidates {
            sampled: operation.output(0),
            true_expected_count: operation.output(1),
            sampled_expected_count: operation.output(2),
        })
    }
}

/// Defines the builder function of a sampler of classes below `range_max`.
macro_rules! samplers {
    ($($(#[$doc:meta])* $function:ident => $op:literal;)*) => {$(
        $(#[$doc])*
        #[track_caller]
        pub fn $function(
            true_classes: impl IntoOperand,
            num_true: i64,
            num_sampled: i64,
            unique: bool,
            range_max: i64,
        ) -> CandidateSampler {
            let sampler = CandidateSampler::new($op, true_classes.into_operand(), [num_true, num_sampled], unique);
            CandidateSampler(sampler.0.attr("range_max", range_max))
        }
    )*};
}

samplers! {
    /// `num_sampled` classes below `range_max`, all with the same probability, and all different if `unique`. The true
    /// classes, `int64` of shape [batch, num_true], are only looked at for their expected counts.
    uniform_candidate_sampler => "UniformCandidateSampler";
    /// As [`uniform_candidate_sampler`], of classes in the order of their frequency, with probabilities as of words.
    log_uniform_candidate_sampler => "LogUniformCandidateSampler";
    /// As [`uniform_candidate_sampler`], with probabilities that follow the true classes of the session's earlier runs.
    learned_unigram_candidate_sampler => "LearnedUnigramCandidateSampler";
}

/// As [`uniform_candidate_sampler`], in proportion to `unigrams`, the weights of all classes.
#[track_caller]
pub fn fixed_unigram_candidate_sampler(
    true_classes: impl IntoOperand,
    num_true: i64,
    num_sampled: i64,
    unique: bool,
    unigrams: impl Into<Vec<f32>>,
) -> CandidateSampler {
    let unigrams: Vec<f32> = unigrams.into();
    let counts = [num_true, num_sampled];
    let sampler = CandidateSampler::new(
        "FixedUnigramCandidateSampler",
        true_classes.into_operand(),
        counts,
        unique,
    );
    CandidateSampler(
        sampler
            .0
            .attr("range_max", unigrams.len() as i64)
            .attr("unigrams", unigrams),
    )
}

/// All `num_sampled` classes in order, as if they had been sampled: the exact loss, for comparison.
#[track_caller]
pub fn all_candidate_sampler(
    true_classes: impl IntoOperand,
    num_true: i64,
    num_sampled: i64,
    unique: bool,
) -> CandidateSampler {
    CandidateSampler::new(
        "AllCandidateSampler",
        true_classes.into_operand(),
        [num_true, num_sampled],
        unique,
    )
}

/// Where `sampled_candidates` are among the `true_classes` of a row: the rows (`int32`), the candidates' places (`int64`) and
/// weights (`float`) of the least number, to be added to the candidates' logits.
///
/// # Errors
/// The operands' own; `InvalidArgument` if the shapes do not fit.
#[track_caller]
pub fn compute_accidental_hits(
    true_classes: impl IntoOperand,
    sampled_candidates: impl IntoOperand,
    num_true: i64,
) -> Result<(Tensor, Tensor, Tensor)> {
    let node = crate::op("ComputeAccidentalHits")
        .input(true_classes)
        .input(sampled_candidates);
    let operation = node.attr("num_true", num_true).build_operation()?;
    Ok((operation.output(0), operation.output(1), operation.output(2)))
}

/// What TensorFlow draws with the same seeds.
#[cfg(test)]
pub(crate) fn cases() -> Vec<crate::testing::Case> {
    use crate::testing::Case;
    let case = |op, num_sampled: i64, unique: bool| {
        let case = Case::new(op)
            .attr("seed", 1i64)
            .attr("seed2", 12i64)
            .attr("num_true", 1i64);
        let case = case.attr("num_sampled", num_sampled).attr("unique", unique);
        case.input([[1i64], [3]])
    };
    let below_7 = |op: &'static str, unique| case(op, 4, unique).attr("range_max", 7i64);
    let uniform = 4.0f32 / 7.0;
    vec![
        below_7("UniformCandidateSampler", true)
            .expect([6i64, 4, 2, 0])
            .expect([[0.5373357f32], [0.5373357]])
            .expect([0.5373357f32; 4]),
        below_7("UniformCandidateSampler", false)
            .expect([6i64, 4, 2, 6])
            .expect([[uniform], [uniform]])
            .expect([uniform; 4]),
        below_7("LogUniformCandidateSampler", true)
            .expect([4i64, 0, 3, 2])
            .expect([[0.9079913f32], [0.71311307]])
            .expect([0.6355576f32, 0.98843896, 0.71311307, 0.80561495]),
        below_7("LogUniformCandidateSampler", false)
            .expect([4i64, 0, 3, 0])
            .expect([[0.77995f32], [0.42923746]])
            .expect([0.35071254f32, 1.3333334, 0.42923746, 1.3333334]),
        below_7("LearnedUnigramCandidateSampler", true)
            .expect([5i64, 2, 4, 0])
            .expect([[uniform], [uniform]])
            .expect([uniform; 4]),
        below_7("ThreadUnsafeUnigramCandidateSampler", false)
            .expect([5i64, 2, 4, 0])
            .expect([[uniform], [uniform]])
            .expect([uniform; 4]),
        case("FixedUnigramCandidateSampler", 4, false)
            .attr("range_max", 5i64)
            .attr("distortion", 0.7f32)
            .attr("unigrams", vec![1.0f32, 2.0, 3.0, 4.0, 0.5])
            .expect([3i64, 3, 4, 3])
            .expect([[0.80853695f32], [1.313472]])
            .expect([1.313472f32, 1.313472, 0.30637822, 1.313472]),
        case("FixedUnigramCandidateSampler", 4, true)
            .attr("range_max", 6i64)
            .attr("num_reserved_ids", 1i64)
            .attr("unigrams", vec![1.0f32, 2.0, 3.0, 4.0, 0.5])
            .expect([3i64, 2, 4, 1])
            .expect([[0.777149f32], [0.99357194]])
            .expect([0.99357194f32, 0.9579811, 0.9992486, 0.777149]),
        case("AllCandidateSampler", 5, true)
            .expect([0i64, 1, 2, 3, 4])
            .expect([[1.0f32], [1.0]])
            .expect([1.0f32; 5]),
        Case::new("ComputeAccidentalHits")
            .attr("num_true", 2i64)
            .input([[1i64, 2], [3, 1]])
            .input([1i64, 5, 3])
            .expect([0i32, 1, 1])
            .expect([0i64, 2, 0])
            .expect([f32::MIN; 3]),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Case;
    use graph_core::Session;

    #[test]
    fn a_learned_sampler_follows_what_it_has_seen() -> Result<()> {
        let graph = graph_core::Graph::new();
        let _default = graph.as_default();
        let classes = crate::array::constant([[1i64], [3]]).build()?;
        let sampler = learned_unigram_candidate_sampler(&classes, 1, 4, true, 7);
        let candidates = CandidateSampler(sampler.0.attr("seed", 1i64).attr("seed2", 12i64)).build()?;
        let session = Session::new(&graph)?;
        let fetches = (&candidates.sampled, &candidates.sampled_expected_count);
        let (first, _): (Vec<i64>, Vec<f32>) = session.run(fetches, ())?;
        let (second, expected): (Vec<i64>, Vec<f32>) = session.run(fetches, ())?;
        assert_eq!((first, second), (vec![5, 2, 4, 0], vec![3, 0, 4, 1]));
        let often = [0.8660804f32, 0.61025566, 0.61025566, 0.8660804];
        assert!(
            expected.iter().zip(often).all(|(x, y)| (x - y).abs() < 1e-6),
            "{expected:?}"
        );
        Ok(())
    }

    #[test]
    fn a_saved_sampler_goes_on() -> Result<()> {
        let make = || State {
            generator: Generator::new(crate::cpu::philox::Key::from_seeds(1, 12)),
            sampler: Sampler::Learned(Counts::new(3)),
        };
        let (mut first, mut second) = (make(), make());
        if let Sampler::Learned(counts) = &mut first.sampler {
            counts.see(&[2, 2, 0]);
        }
        first.generator.reserve(7);
        let saved = first.save();
        second.restore(&saved)?;
        assert_eq!(second.save(), saved);
        assert!(second.restore(&Value::from([1u64, 2, 3])).is_err());
        assert!(second.restore(&Value::from([1u64, 2, 3, u64::MAX, 1, 1])).is_err());
        assert_eq!(second.save(), saved);
        Ok(())
    }

    #[test]
    fn what_cannot_be_sampled_is_an_error() {
        let case = |num_sampled: i64, unique: bool, class: i64| {
            let case = Case::new("UniformCandidateSampler")
                .attr("num_true", 1i64)
                .attr("range_max", 3i64);
            case.attr("num_sampled", num_sampled)
                .attr("unique", unique)
                .input([[class]])
                .run()
        };
        assert!(case(3, true, 0).is_ok() && case(4, false, 0).is_ok());
        for (num_sampled, unique, class) in [(4, true, 0), (1, false, 3), (1, false, -1)] {
            let error = case(num_sampled, unique, class).expect_err("it cannot be");
            assert_eq!(error.class(), "InvalidArgument");
        }
        let weights = |attr: &'static str, value: graph_core::op::AttrValue| {
            let case = Case::new("FixedUnigramCandidateSampler")
                .attr("num_true", 1i64)
                .attr("range_max", 2i64);
            let case = case.attr("num_sampled", 1i64).attr("unique", false).attr(attr, value);
            case.input([[0i64]]).run()
        };
        assert!(weights("unigrams", vec![1.0f32, 2.0].into()).is_ok());
        assert!(weights("unigrams", vec![1.0f32].into()).is_err());
        assert!(weights("unigrams", vec![0.0f32, 0.0].into()).is_err());
        assert_eq!(
            weights("vocab_file", "no such file".into())
                .expect_err("it is not there")
                .class(),
            "NotFound"
        );
    }

    #[test]
    fn a_vocabulary_is_a_file_of_weights() -> Result<()> {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("vocabulary");
        std::fs::write(&path, "the,1\nof,x,2\n3\n").expect("a file");
        assert_eq!(read_vocabulary(&path)?, [1.0, 2.0, 3.0]);
        std::fs::write(&path, "the,one\n").expect("a file");
        assert_eq!(
            read_vocabulary(&path).expect_err("no number").class(),
            "InvalidArgument"
        );
        Ok(())
    }
}
