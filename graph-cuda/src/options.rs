//! How a device is used, by what a program says or its environment.

use graph_core::accelerator::Lanes;
use graph_core::{Error, Result};

use crate::choice::ConvolutionKernels;
use crate::driver::LANES;

/// How a device is used.
#[derive(Clone, Debug, Default)]
pub struct DeviceOptions {
    /// The most device memory, in bytes, that tensors may take; all that there is without.
    pub memory_limit: Option<usize>,
    /// Whether products of `float` matrices, and convolutions, round their operands to TensorFloat-32, which tensor cores multiply
    /// several times faster: 10 bits of fraction in place of 23, sums as before.
    pub tf32: bool,
    /// Whose convolutions it runs; without, what the environment variable `GRAPH_CONVOLUTIONS` says: `faster`, `own` or
    /// `cudnn`.
    pub convolutions: Option<ConvolutionKernels>,
    /// The most bytes that an algorithm of cuDNN may work in; 256 MiB without.
    pub convolution_workspace: Option<usize>,
    /// In how many lanes, at most [`LANES`], recorded steps run side by side; without, what the environment variable
    /// `GRAPH_LANES` says: a number, or `faster`, which measures one lane against several.
    pub lanes: Option<Lanes>,
}

impl DeviceOptions {
    /// These options, with what the environment says where they say nothing.
    pub(crate) fn completed(&self) -> Result<Self> {
        let convolutions = match self.convolutions {
            Some(kernels) => kernels,
            None => ConvolutionKernels::of_environment()?,
        };
        Ok(Self {
            convolutions: Some(convolutions),
            ..self.with_lanes(Lanes::Measured(LANES))?
        })
    }

    /// These options, with what `GRAPH_LANES` says of lanes where they say nothing, or else `lanes`.
    pub(crate) fn with_lanes(&self, lanes: Lanes) -> Result<Self> {
        let told = std::env::var("GRAPH_LANES").ok().filter(|text| !text.is_empty());
        let lanes = match (self.lanes, told) {
            (Some(lanes), _) => lanes,
            (None, Some(text)) => lanes_of(&text).map_err(|error| error.context("reading GRAPH_LANES"))?,
            (None, None) => lanes,
        };
        Ok(Self {
            lanes: Some(lanes),
            ..self.clone()
        })
    }
}

/// The lanes that a text tells: a number, or `faster`.
fn lanes_of(text: &str) -> Result<Lanes> {
    match text.parse() {
        _ if text == "faster" => Ok(Lanes::Measured(LANES)),
        Ok(1) => Ok(Lanes::One),
        Ok(lanes @ 2..=LANES) => Ok(Lanes::Several(lanes)),
        _ => Err(Error::invalid_argument("no such number of lanes")
            .expected(format!("1 to {LANES}, or faster"))
            .got(text)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lanes_are_a_number_or_faster() {
        assert_eq!(lanes_of("1").unwrap(), Lanes::One);
        assert_eq!(lanes_of("3").unwrap(), Lanes::Several(3));
        assert_eq!(lanes_of("faster").unwrap(), Lanes::Measured(LANES));
        for wrong in ["0", "5", "many", "-1"] {
            assert_eq!(lanes_of(wrong).unwrap_err().class(), "InvalidArgument", "{wrong}");
        }
    }
}
