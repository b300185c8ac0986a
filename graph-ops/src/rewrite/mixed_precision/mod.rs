//! Mixed precision: products in 16 bits, variables and large sums in 32.
//!
//! The algorithm is that of TensorFlow 1.15's `auto_mixed_precision`. What is decided about is not an operation but each of
//! its type attributes ([`Types`]): from the lists of ops ([`lists`]) and from who takes whose results follows which become
//! of 16 bits ([`paint`]), and where such a tensor meets one of 32, a Cast stands between ([`change`]).

mod change;
mod lists;
mod paint;
#[cfg(test)]
mod referee_tests;
#[cfg(test)]
mod tests;
mod types;

use std::fmt;
use std::str::FromStr;

use graph_core::rewrite::{Program, Rewrite};
use graph_core::{DType, Error, Result};

use types::Types;

/// What mixed precision calculates in: products of matrices, convolutions, and what lies between them, in 16 bits;
/// variables, updates, losses and large sums in `float`.
///
/// Sessions do so that are asked to, by their options as here, or for TensorFlow's way by
/// [`enable_mixed_precision_graph_rewrite`](crate::train::enable_mixed_precision_graph_rewrite). The graph stays as it is, and
/// so do dtypes of variables, checkpoints, feeds and fetches; what a run fetches is itself calculated in `float`. Graphs with
/// while loops stay in `float`.
///
/// ```
/// use graph_core::feed;
/// use graph_core::session::{RewriteOptions, Session, SessionOptions};
/// use graph_ops::array::{constant, placeholder};
/// use graph_ops::{math, train::MixedPrecision};
/// # let graph = graph_core::Graph::new();
/// # let _default = graph.as_default();
/// let x = placeholder::<f32>([1, 1]).build()?;
/// let sum = math::reduce_sum(math::matmul(&x, constant([[1.0f32]]))).build()?;
/// let rewrites = RewriteOptions::all().with(MixedPrecision::BFloat16.rewrite());
/// let session = Session::with_options(&graph, SessionOptions::new().rewrites(rewrites))?;
/// assert_eq!(session.run::<f32>(&sum, feed! { x => [[1.0f32 / 3.0]] })?, 0.333984375);
/// # Ok::<(), graph_core::Error>(())
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum MixedPrecision {
    /// `f16`: 11 bits of precision and numbers from 6e-8 to 65504, so that losses must be scaled
    /// ([`MixedPrecisionLossScaleOptimizer`](crate::train::MixedPrecisionLossScaleOptimizer)).
    Half,
    /// `bf16`: 8 bits of precision and the range of `float`.
    BFloat16,
}

impl MixedPrecision {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Half, Self::BFloat16];

    /// The name of the rewrite, for [`RewriteOptions::with`](graph_core::session::RewriteOptions::with): for `f16`
    /// `auto_mixed_precision` as in TensorFlow, for `bf16` `auto_mixed_precision_bfloat16`.
    pub const fn rewrite(self) -> &'static str {
        match self {
            Self::Half => "auto_mixed_precision",
            Self::BFloat16 => "auto_mixed_precision_bfloat16",
        }
    }

    /// The dtype.
    pub const fn dtype(self) -> DType {
        match self {
            Self::Half => DType::Half,
            Self::BFloat16 => DType::BFloat16,
        }
    }

    /// `f16` or `bf16`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Half => "f16",
            Self::BFloat16 => "bf16",
        }
    }
}

impl fmt::Display for MixedPrecision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl FromStr for MixedPrecision {
    type Err = Error;

    fn from_str(word: &str) -> Result<Self> {
        let found = Self::ALL.into_iter().find(|precision| precision.as_str() == word);
        found.ok_or_else(|| {
            Error::invalid_argument("this is no mixed precision")
                .expected("f16 or bf16")
                .got(word)
        })
    }
}

/// Both rewrites.
pub(super) const HALF: AutoMixedPrecision = AutoMixedPrecision(MixedPrecision::Half);
pub(super) const BFLOAT16: AutoMixedPrecision = AutoMixedPrecision(MixedPrecision::BFloat16);

/// The rewrite for one of the dtypes.
pub(super) struct AutoMixedPrecision(MixedPrecision);

impl Rewrite for AutoMixedPrecision {
    fn name(&self) -> &'static str {
        self.0.rewrite()
    }

    fn by_default(&self) -> bool {
        false
    }

    // What lies between two products depends on all of the structure.
    fn runs_once(&self) -> bool {
        true
    }

    fn apply(&self, program: &Program) -> Result<Option<Program>> {
        let dtype = self.0.dtype();
        let mut result = program.clone();
        change::use_batch_norms_of_two_types(&mut result)?;
        let types = Types::new(&result);
        let mut chosen = paint::choose(&result, &types, dtype);
        if chosen.is_empty() {
            return Ok(None);
        }
        paint::add_casts(&result, &types, dtype, &mut chosen);
        change::change(&mut result, &types, dtype, &chosen)?;
        Ok(Some(result))
    }
}
