//! `conv1d` and `conv2d_transpose`, made of the ops of two-dimensional convolution.

use std::panic::Location;

use graph_core::graph::{Graph, IntoOperand, Operand, Tensor, scope};
use graph_core::{Error, Result};

use crate::math::nodes::Nodes;

/// A one-dimensional convolution about to be made; see [`conv1d`].
#[must_use = "operations are made by `build`"]
pub struct Conv1d {
    value: Operand,
    filters: Operand,
    stride: i64,
    dilation: i64,
    padding: String,
    data_format: String,
    name: Option<String>,
    location: &'static Location<'static>,
}

impl Conv1d {
    /// Elements from one window to the next; 1 without.
    pub fn stride(mut self, stride: i64) -> Self {
        self.stride = stride;
        self
    }

    /// Elements from one tap of the filter to the next; 1 without.
    pub fn dilation(mut self, dilation: i64) -> Self {
        self.dilation = dilation;
        self
    }

    /// `"VALID"` or `"SAME"` (without this), as for [`conv2d`](super::conv2d).
    pub fn padding(mut self, padding: &str) -> Self {
        self.padding = padding.to_owned();
        self
    }

    /// The order of the axes: `"NWC"` (without this) or `"NCW"`.
    pub fn data_format(mut self, format: &str) -> Self {
        self.data_format = format.to_owned();
        self
    }

    /// Names the operation.
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.name = Some(name.into());
        self
    }

    /// Makes the operations.
    ///
    /// # Errors
    /// The operands' own; `InvalidArgument` for shapes that do not fit, wrong dtypes or an unknown data format.
    pub fn build(self) -> Result<Tensor> {
        let (axis, format) = match self.data_format.as_str() {
            "NWC" | "NHWC" => (1i32, "NHWC"),
            "NCW" | "NCHW" => (2, "NCHW"),
            other => {
                return Err(
                    Error::invalid_argument("the data format of a one-dimensional convolution is unknown")
                        .expected("NWC or NCW")
                        .got(other),
                );
            }
        };
        let along = |number: i64| {
            if axis == 1 {
                [1, 1, number, 1]
            } else {
                [1, 1, 1, number]
            }
        };
        let graph = self.value.graph().or(self.filters.graph()).cloned();
        let graph = graph.unwrap_or_else(Graph::current);
        let nodes = Nodes::at(&graph, self.location);
        let scope = scope::name_scope_in(&graph, self.name.as_deref().unwrap_or("conv1d"))?;
        let value = nodes.node("ExpandDims").input(&self.value).input(axis).build()?;
        let filters = nodes.node("ExpandDims").input(&self.filters).input(0i32).build()?;
        let convolved = nodes
            .node("Conv2D")
            .input(&value)
            .input(&filters)
            .attr("strides", along(self.stride))
            .attr("dilations", along(self.dilation))
            .attr("padding", self.padding.as_str())
            .attr("data_format", format)
            .name(scope.scope_name())
            .build()?;
        nodes
            .node("Squeeze")
            .input(&convolved)
            .attr("squeeze_dims", [i64::from(axis)])
            .build()
    }
}

impl IntoOperand for Conv1d {
    fn into_operand(self) -> Operand {
        self.build().into_operand()
    }
}

/// Convolves sequences `value` of shape [batch, width, channels] with `filters` of shape [filter width, channels, output
/// channels]; a tensor of shape [batch, output width, output channels]. Both are of one floating-point dtype.
#[track_caller]
pub fn conv1d(value: impl IntoOperand, filters: impl IntoOperand) -> Conv1d {
    crate::install();
    Conv1d {
        value: value.into_operand(),
        filters: filters.into_operand(),
        stride: 1,
        dilation: 1,
        padding: "SAME".to_owned(),
        data_format: "NWC".to_owned(),
        name: None,
        location: Location::caller(),
    }
}

/// A transposed convolution about to be made; see [`conv2d_transpose`].
#[must_use = "operations are made by `build`"]
pub struct Conv2dTranspose {
    value: Operand,
    filter: Operand,
    output_shape: Operand,
    strides: [i64; 4],
    dilations: [i64; 4],
    padding: String,
    data_format: String,
    name: Option<String>,
    location: &'static Location<'static>,
}

impl Conv2dTranspose {
    /// Pixels of the output from one window to the next, for each axis; 1 without.
    pub fn strides(mut self, strides: [i64; 4]) -> Self {
        self.strides = strides;
        self
    }

    /// Pixels from one tap of the filter to the next, for each axis; 1 without.
    pub fn dilations(mut self, dilations: [i64; 4]) -> Self {
        self.dilations = dilations;
        self
    }

    /// `"VALID"` or `"SAME"` (without this), as for [`conv2d`](super::conv2d).
    pub fn padding(mut self, padding: &str) -> Self {
        self.padding = padding.to_owned();
        self
    }

    /// The order of the images' axes: `"NHWC"` (without this) or `"NCHW"`.
    pub fn data_format(mut self, format: &str) -> Self {
        self.data_format = format.to_owned();
        self
    }

    /// Names the operation.
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.name = Some(name.into());
        self
    }

    /// Makes the operations.
    ///
    /// # Errors
    /// The operands' own; `InvalidArgument` for shapes that do not fit or wrong dtypes.
    pub fn build(self) -> Result<Tensor> {
        let graph = [&self.value, &self.filter, &self.output_shape]
            .into_iter()
            .find_map(Operand::graph)
            .cloned()
            .unwrap_or_else(Graph::current);
        let nodes = Nodes::at(&graph, self.location);
        let scope = scope::name_scope_in(&graph, self.name.as_deref().unwrap_or("conv2d_transpose"))?;
        nodes
            .node("Conv2DBackpropInput")
            .input(&self.output_shape)
            .input(&self.filter)
            .input(&self.value)
            .attr("strides", self.strides)
            .attr("dilations", self.dilations)
            .attr("padding", self.padding.as_str())
            .attr("data_format", self.data_format.as_str())
            .name(scope.scope_name())
            .build()
    }
}

impl IntoOperand for Conv2dTranspose {
    fn into_operand(self) -> Operand {
        self.build().into_operand()
    }
}

/// The transpose of [`conv2d`](super::conv2d), which is its gradient: images `value` of shape [batch, rows, columns, channels] and
/// `filter` of shape [filter rows, filter columns, output channels, channels] give images of `output_shape`, an `int32`
/// vector of four.
#[track_caller]
pub fn conv2d_transpose(
    value: impl IntoOperand,
    filter: impl IntoOperand,
    output_shape: impl IntoOperand,
) -> Conv2dTranspose {
    crate::install();
    Conv2dTranspose {
        value: value.into_operand(),
        filter: filter.into_operand(),
        output_shape: output_shape.into_operand(),
        strides: [1; 4],
        dilations: [1; 4],
        padding: "SAME".to_owned(),
        data_format: "NHWC".to_owned(),
        name: None,
        location: Location::caller(),
    }
}
