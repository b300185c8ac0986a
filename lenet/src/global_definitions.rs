//! The constants of the network and of its training, with the tutorial's defaults.
//!
//! The constants are what a network is built with when nothing else is said; [`Definitions`] carries values of one's own
//! to the network and the trainer.

use std::fmt;
use std::str::FromStr;

use graph_ops::train::MixedPrecision;

use crate::dataset::SIDE;
use crate::error::{Error, Result};

/// Filters of the first convolution layer.
pub const C1: usize = 20;
/// Filters of the second convolution layer.
pub const C2: usize = 50;
/// Neurons of the first dot-product layer.
pub const D1: usize = 800;
/// Neurons of the second dot-product layer.
pub const D2: usize = 800;
/// Classes to predict.
pub const C: usize = 10;
/// Height and width of the filters of the first convolution layer.
pub const F1: (usize, usize) = (5, 5);
/// Height and width of the filters of the second convolution layer.
pub const F2: (usize, usize) = (3, 3);
/// Probability to *keep* an activity in a dropout layer while training.
pub const DROPOUT_PROBABILITY: f32 = 0.5;

/// Learning rate.
pub const LR: f32 = 0.01;
/// Coefficient of the L2 norm of the weights in the objective.
pub const WEIGHT_DECAY_COEFF: f32 = 0.0001;
/// Coefficient of the L1 norm of the weights in the objective.
pub const L1_COEFF: f32 = 0.0001;
/// Momentum of RMSProp.
pub const MOMENTUM: f32 = 0.7;
/// Decay of RMSProp's running mean of squared gradients.
pub const DECAY: f32 = 0.95;
/// The optimizer.
pub const OPTIMIZER: OptimizerName = OptimizerName::Adam;

/// The optimizers that the network can be cooked with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum OptimizerName {
    /// Adam (Kingma and Ba, 2015).
    Adam,
    /// RMSProp with momentum (Tieleman and Hinton, 2012).
    RmsProp,
    /// Plain gradient descent.
    Sgd,
}

impl OptimizerName {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Adam, Self::RmsProp, Self::Sgd];

    /// The tutorial's word: `adam`, `rmsprop` or `sgd`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Adam => "adam",
            Self::RmsProp => "rmsprop",
            Self::Sgd => "sgd",
        }
    }
}

impl fmt::Display for OptimizerName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl FromStr for OptimizerName {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self> {
        let found = Self::ALL.into_iter().find(|optimizer| optimizer.as_str() == name);
        found.ok_or_else(|| Error::UnknownOptimizer { got: name.to_owned() })
    }
}

/// The values that a network is built and trained with.
///
/// # Example
/// ```
/// use lenet::global_definitions::Definitions;
///
/// let small = Definitions { d1: 100, d2: 50, ..Definitions::default() };
/// assert!(small.validate().is_ok());
/// assert!(Definitions { dropout_probability: 0.0, ..small }.validate().is_err());
/// ```
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Definitions {
    /// See [`C1`].
    pub c1: usize,
    /// See [`C2`].
    pub c2: usize,
    /// See [`D1`].
    pub d1: usize,
    /// See [`D2`].
    pub d2: usize,
    /// See [`C`].
    pub c: usize,
    /// See [`F1`].
    pub f1: (usize, usize),
    /// See [`F2`].
    pub f2: (usize, usize),
    /// See [`DROPOUT_PROBABILITY`].
    pub dropout_probability: f32,
    /// See [`LR`].
    pub lr: f32,
    /// See [`WEIGHT_DECAY_COEFF`].
    pub weight_decay_coeff: f32,
    /// See [`L1_COEFF`].
    pub l1_coeff: f32,
    /// See [`MOMENTUM`].
    pub momentum: f32,
    /// See [`DECAY`].
    pub decay: f32,
    /// See [`OPTIMIZER`].
    pub optimizer: OptimizerName,
    /// What products and convolutions are calculated in while training, if not in `float`. With `f16` the optimizer scales the
    /// loss.
    pub mixed_precision: Option<MixedPrecision>,
}

impl Default for Definitions {
    fn default() -> Self {
        Self {
            c1: C1,
            c2: C2,
            d1: D1,
            d2: D2,
            c: C,
            f1: F1,
            f2: F2,
            dropout_probability: DROPOUT_PROBABILITY,
            lr: LR,
            weight_decay_coeff: WEIGHT_DECAY_COEFF,
            l1_coeff: L1_COEFF,
            momentum: MOMENTUM,
            decay: DECAY,
            optimizer: OPTIMIZER,
            mixed_precision: None,
        }
    }
}

impl Definitions {
    /// Checks that a network of 28 x 28 images can be built and trained with these values.
    ///
    /// # Errors
    /// [`Error::Definition`] for a layer without neurons, filters larger than what they run over, a keep probability
    /// outside (0, 1], a momentum or decay outside [0, 1], or a negative or not finite rate or coefficient.
    pub fn validate(&self) -> Result<()> {
        for (name, count) in [
            ("c1", self.c1),
            ("c2", self.c2),
            ("d1", self.d1),
            ("d2", self.d2),
            ("c", self.c),
        ] {
            check(name, count, count >= 1, "at least 1")?;
        }
        let height = second_filter_room("f1 (height)", self.f1.0)?;
        let width = second_filter_room("f1 (width)", self.f1.1)?;
        for (name, size, room) in [("f2 (height)", self.f2.0, height), ("f2 (width)", self.f2.1, width)] {
            check(
                name,
                size,
                (1..room).contains(&size),
                format!("1 to {} with this f1", room - 1),
            )?;
        }
        let keep = self.dropout_probability;
        check(
            "the dropout (keep) probability",
            keep,
            keep > 0.0 && keep <= 1.0,
            "above 0 and at most 1",
        )?;
        for (name, value) in [("momentum", self.momentum), ("decay", self.decay)] {
            check(name, value, (0.0..=1.0).contains(&value), "0 to 1")?;
        }
        let coefficients = [
            ("the learning rate", self.lr),
            ("the weight decay coefficient", self.weight_decay_coeff),
            ("the L1 coefficient", self.l1_coeff),
        ];
        for (name, value) in coefficients {
            check(
                name,
                value,
                value.is_finite() && value >= 0.0,
                "a finite number, 0 or above",
            )?;
        }
        Ok(())
    }
}

/// How many pixels a side has after the first convolution ("VALID" padding) and its pooling (2 x 2, stride 2).
/// The second pooling needs two pixels of the second convolution, so both filters must be smaller than their room.
fn second_filter_room(name: &'static str, filter: usize) -> Result<usize> {
    // Four pixels of the first convolution are two of its pooling: room for a second filter of one pixel.
    check(
        name,
        filter,
        (1..=SIDE - 3).contains(&filter),
        format!("1 to {}", SIDE - 3),
    )?;
    let convolved = SIDE - filter + 1;
    Ok(convolved / 2)
}

fn check(name: &'static str, value: impl fmt::Display, valid: bool, expected: impl Into<String>) -> Result<()> {
    if valid {
        return Ok(());
    }
    Err(Error::Definition {
        name,
        expected: expected.into(),
        got: value.to_string(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_are_valid() {
        Definitions::default().validate().unwrap();
    }

    #[test]
    fn each_value_has_its_range() {
        let good = Definitions::default();
        let bad = [
            Definitions { c1: 0, ..good },
            Definitions { c2: 0, ..good },
            Definitions { d1: 0, ..good },
            Definitions { d2: 0, ..good },
            Definitions { c: 0, ..good },
            Definitions { f1: (0, 5), ..good },
            Definitions { f1: (5, 26), ..good },
            Definitions { f2: (3, 0), ..good },
            Definitions { f2: (12, 3), ..good },
            Definitions {
                dropout_probability: 0.0,
                ..good
            },
            Definitions {
                dropout_probability: 1.5,
                ..good
            },
            Definitions {
                dropout_probability: f32::NAN,
                ..good
            },
            Definitions { lr: -0.1, ..good },
            Definitions { lr: f32::NAN, ..good },
            Definitions {
                lr: f32::INFINITY,
                ..good
            },
            Definitions {
                weight_decay_coeff: -1.0,
                ..good
            },
            Definitions {
                l1_coeff: f32::NAN,
                ..good
            },
            Definitions { momentum: 1.1, ..good },
            Definitions { decay: -0.1, ..good },
        ];
        for definitions in bad {
            assert!(
                matches!(definitions.validate(), Err(Error::Definition { .. })),
                "{definitions:?}"
            );
        }
    }

    #[test]
    fn filters_may_be_as_large_as_they_fit() {
        let good = Definitions::default();
        Definitions {
            f1: (25, 1),
            f2: (1, 13),
            ..good
        }
        .validate()
        .unwrap();
        Definitions { f2: (11, 11), ..good }.validate().unwrap();
        let error = Definitions { f2: (3, 12), ..good }.validate().unwrap_err();
        assert_eq!(error.to_string(), "f2 (width) must be 1 to 11 with this f1, got 12");
    }

    #[test]
    fn optimizers_are_known_by_the_tutorials_words() {
        for optimizer in OptimizerName::ALL {
            assert_eq!(optimizer.to_string().parse::<OptimizerName>().unwrap(), optimizer);
        }
        let error = "adagrad".parse::<OptimizerName>().unwrap_err();
        assert_eq!(
            error.to_string(),
            r#"unknown optimizer "adagrad"; the choices are adam, rmsprop and sgd"#
        );
    }
}
