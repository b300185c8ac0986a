//! Random numbers, on TensorFlow's Philox streams: equal seeds give equal numbers.
//!
//! Each op keeps its own generator in the session, seeded by the graph's seed ([`set_random_seed`]) and the op's own
//! (`.seed(..)`); without either it starts anywhere. A run moves the generator on, so that the next run goes on from there.

#[cfg(feature = "full")]
mod candidates;
#[cfg(feature = "full")]
mod gamma;
pub(crate) mod generator;
mod mask;
#[cfg(feature = "full")]
mod multinomial;
mod normal;
#[cfg(feature = "full")]
mod parameterized;
mod seed;
mod shuffle;
mod stateless;
mod uniform;

#[cfg(feature = "full")]
pub use candidates::{
    CandidateSampler, Candidates, all_candidate_sampler, compute_accidental_hits, fixed_unigram_candidate_sampler,
    learned_unigram_candidate_sampler, log_uniform_candidate_sampler, uniform_candidate_sampler,
};
#[cfg(feature = "full")]
pub use gamma::{RandomGamma, random_gamma};
#[cfg(feature = "full")]
pub use multinomial::{Multinomial, multinomial};
pub use normal::{RandomNormal, random_normal, truncated_normal};
#[cfg(feature = "full")]
pub use parameterized::{ParameterizedTruncatedNormal, parameterized_truncated_normal};
pub use seed::{get_seed, set_random_seed};
pub use shuffle::{RandomShuffle, random_shuffle};
pub use uniform::{RandomUniform, random_uniform};

pub(crate) use mask::definition as mask;

use graph_core::op::OpDefinition;

#[cfg(test)]
use crate::testing::{Case, GradientCase};

/// The family's op definitions.
pub(crate) const OPS: &[fn() -> OpDefinition] = &[
    uniform::definition,
    uniform::int_definition,
    normal::standard_normal,
    normal::truncated,
    shuffle::definition,
    stateless::uniform,
    stateless::normal,
    stateless::truncated_normal,
    stateless::uniform_int,
];

/// Those that only the feature `full` has.
#[cfg(feature = "full")]
pub(crate) const MORE_OPS: &[fn() -> OpDefinition] = &[
    multinomial::definition,
    multinomial::stateless_definition,
    gamma::definition,
    gamma::grad_definition,
    parameterized::definition,
    candidates::all_definition,
    candidates::uniform_definition,
    candidates::log_uniform_definition,
    candidates::learned_unigram_definition,
    candidates::thread_unsafe_unigram_definition,
    candidates::fixed_unigram_definition,
    candidates::accidental_hits_definition,
];

/// The family's numeric test cases.
#[cfg(test)]
pub(crate) const CASES: &[fn() -> Vec<Case>] = &[uniform::cases, normal::cases, shuffle::cases, stateless::cases];

/// The numeric test cases of those.
#[cfg(all(test, feature = "full"))]
pub(crate) const MORE_CASES: &[fn() -> Vec<Case>] = &[
    multinomial::cases,
    gamma::cases,
    parameterized::cases,
    candidates::cases,
];

/// The family's gradient test cases: random ops have no gradients.
#[cfg(test)]
pub(crate) const GRADIENT_CASES: &[fn() -> Vec<GradientCase>] = &[];

#[cfg(test)]
mod tests;
