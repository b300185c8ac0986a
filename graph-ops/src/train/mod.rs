//! Training: optimizers, learning-rate schedules, the counter of steps, checkpoints. Graph builders all; no ops of their own.

mod adagrad;
mod adam;
mod ftrl;
mod global_step;
mod gradient_descent;
mod loss_scale;
mod loss_scale_optimizer;
#[cfg(test)]
mod loss_scale_tests;
mod momentum;
mod optimizer;
mod proximal;
#[cfg(test)]
mod resource_tests;
mod rms_prop;
mod saver;
mod schedules;
#[cfg(test)]
mod tests;

pub use crate::rewrite::MixedPrecision;
pub use adagrad::{AdadeltaOptimizer, AdagradOptimizer};
pub use adam::AdamOptimizer;
pub use ftrl::FtrlOptimizer;
pub use global_step::{create_global_step, get_global_step, get_or_create_global_step};
pub use gradient_descent::GradientDescentOptimizer;
pub use loss_scale::{DynamicLossScale, DynamicLossScaleBuilder, FixedLossScale, IntoLossScale, LossScale};
pub use loss_scale_optimizer::{
    MixedPrecisionLossScaleOptimizer, disable_mixed_precision_graph_rewrite, enable_mixed_precision_graph_rewrite,
};
pub use momentum::MomentumOptimizer;
pub use optimizer::{Gate, GradientAndVariable, MinimizeOptions, Optimizer, OptimizerState};
pub use proximal::{ProximalAdagradOptimizer, ProximalGradientDescentOptimizer};
pub use rms_prop::RmsPropOptimizer;
pub(crate) use saver::check_only_reads;
pub use saver::{
    CheckpointReport, DEFAULT_STATE_FILE, SaveOptions, Saver, SaverBuilder, checkpoint_exists, get_checkpoint_state,
    latest_checkpoint, update_checkpoint_state,
};
pub use schedules::{
    Decay, cosine_decay, exponential_decay, inverse_time_decay, natural_exp_decay, piecewise_constant, polynomial_decay,
};
