//! Short forms of the nodes that gradients and composite functions are made of, named as Python's wrappers name them.

use std::panic::Location;

use graph_core::gradients::GradientContext;
use graph_core::graph::{IntoOperand, OpBuilder, Tensor};
use graph_core::{DType, Graph, Operand, Result, Value};

use crate::array::shape_of;

/// Makes nodes of one graph that all have one place in the user's source.
pub(crate) struct Nodes<'a> {
    context: Option<&'a GradientContext<'a>>,
    graph: Graph,
    location: &'static Location<'static>,
}

impl<'a> Nodes<'a> {
    /// Nodes of a gradient: made where the forward operation was.
    #[track_caller]
    pub(crate) fn of(context: &'a GradientContext<'a>) -> Self {
        Self {
            graph: context.op().graph().clone(),
            context: Some(context),
            location: Location::caller(),
        }
    }
}

impl Nodes<'static> {
    /// Nodes of a function that a user calls at `location`.
    pub(crate) fn at(graph: &Graph, location: &'static Location<'static>) -> Self {
        Self {
            context: None,
            graph: graph.clone(),
            location,
        }
    }
}

impl Nodes<'_> {
    /// A node of type `op`.
    pub(crate) fn node(&self, op: &str) -> OpBuilder {
        match self.context {
            Some(context) => context.node(op),
            None => crate::op(op).in_graph(&self.graph).made_at(self.location),
        }
    }

    /// The graph.
    pub(crate) fn graph(&self) -> &Graph {
        &self.graph
    }

    /// A constant named `name`.
    pub(crate) fn constant(&self, value: impl Into<Value>, name: &str) -> Result<Tensor> {
        let value = value.into();
        self.node("Const")
            .attr("dtype", value.dtype())
            .attr("value", value)
            .name(name)
            .build()
    }

    /// `value` as a scalar constant of `dtype`, named `name`.
    pub(crate) fn scalar(&self, value: impl Into<Value>, dtype: DType, name: &str) -> Result<Tensor> {
        self.constant(value.into().cast_exactly(dtype)?, name)
    }

    /// The operand as a tensor; a constant named `name` where it is none yet.
    pub(crate) fn tensor(&self, operand: &Operand, name: &str) -> Result<Tensor> {
        operand.to_tensor(&self.graph, name, None)
    }

    /// One operand, under the op's own name.
    pub(crate) fn unary(&self, op: &str, x: &Tensor) -> Result<Tensor> {
        self.node(op).input(x).build()
    }

    /// Two operands, under `name`.
    pub(crate) fn binary(&self, op: &str, name: &str, x: impl IntoOperand, y: impl IntoOperand) -> Result<Tensor> {
        self.node(op).input(x).input(y).name(name).build()
    }

    /// `x + y`
    pub(crate) fn add(&self, x: impl IntoOperand, y: impl IntoOperand) -> Result<Tensor> {
        self.binary("AddV2", "add", x, y)
    }

    /// `x - y`
    pub(crate) fn sub(&self, x: impl IntoOperand, y: impl IntoOperand) -> Result<Tensor> {
        self.binary("Sub", "sub", x, y)
    }

    /// `x * y`
    pub(crate) fn mul(&self, x: impl IntoOperand, y: impl IntoOperand) -> Result<Tensor> {
        self.binary("Mul", "mul", x, y)
    }

    /// `x / y` of floating-point tensors
    pub(crate) fn truediv(&self, x: impl IntoOperand, y: impl IntoOperand) -> Result<Tensor> {
        self.binary("RealDiv", "truediv", x, y)
    }

    /// `x // max(y, 1)`: how often `y` fits into `x`, where 0 fits into 0 no times.
    pub(crate) fn shape_quotient(&self, x: impl IntoOperand, y: &Tensor) -> Result<Tensor> {
        let y = self.binary("Maximum", "Maximum", y, 1i32)?;
        self.binary("FloorDiv", "floordiv", x, &y)
    }

    /// `tf.cast`: nothing where the dtype is right already.
    pub(crate) fn cast(&self, x: &Tensor, dtype: DType) -> Result<Tensor> {
        if x.dtype() == dtype {
            return Ok(x.clone());
        }
        self.node("Cast").input(x).attr("DstT", dtype).build()
    }

    /// `tf.conj`: nothing for real numbers.
    pub(crate) fn conj(&self, x: &Tensor) -> Result<Tensor> {
        if x.dtype().is_complex() {
            self.unary("Conj", x)
        } else {
            Ok(x.clone())
        }
    }

    /// `tf.matmul`
    pub(crate) fn matmul(&self, a: &Tensor, b: &Tensor, adjoint_a: bool, adjoint_b: bool) -> Result<Tensor> {
        let scope = graph_core::graph::scope::name_scope_in(&self.graph, "MatMul")?;
        let operands = [a.clone(), b.clone()];
        super::matmul::product(self, operands, [false; 2], [adjoint_a, adjoint_b], &scope.scope_name())
    }

    /// `tf.shape`
    pub(crate) fn shape(&self, x: &Tensor) -> Result<Tensor> {
        shape_of::shape_of(x, "Shape")
    }

    /// `tf.size`
    pub(crate) fn size(&self, x: &Tensor) -> Result<Tensor> {
        shape_of::size_of(x, "Size")
    }

    /// `tf.rank`
    pub(crate) fn rank(&self, x: &Tensor) -> Result<Tensor> {
        shape_of::rank_of(x, "Rank")
    }

    /// `tf.reshape`
    pub(crate) fn reshape(&self, x: &Tensor, shape: impl IntoOperand) -> Result<Tensor> {
        self.node("Reshape").input(x).input(shape).build()
    }

    /// `tf.tile`
    pub(crate) fn tile(&self, x: &Tensor, multiples: impl IntoOperand) -> Result<Tensor> {
        self.node("Tile").input(x).input(multiples).build()
    }

    /// `tf.range` of `int32` from 0 or `start`.
    pub(crate) fn range(&self, start: i32, limit: &Tensor) -> Result<Tensor> {
        self.node("Range")
            .input(start)
            .input(limit)
            .input(1i32)
            .name("range")
            .build()
    }

    /// `tf.range` of `int64` from 0 in steps of `delta`.
    pub(crate) fn int64_range(&self, limit: &Tensor, delta: &Tensor) -> Result<Tensor> {
        let scope = graph_core::graph::scope::name_scope_in(&self.graph, "range")?;
        let start = self.constant(0i32, "start")?;
        let start = self.cast(&start, DType::Int64)?;
        let node = self.node("Range").input(&start).input(limit).input(delta);
        node.name(scope.scope_name()).build()
    }

    /// `tf.gather` along the first axis.
    pub(crate) fn gather(&self, params: &Tensor, indices: &Tensor) -> Result<Tensor> {
        self.node("GatherV2").input(params).input(indices).input(0i32).build()
    }

    /// `tf.concat` of vectors.
    pub(crate) fn concat(&self, values: Vec<Operand>) -> Result<Tensor> {
        self.node("ConcatV2").input(values).input(0i32).name("concat").build()
    }

    /// `tf.stack` of scalars.
    pub(crate) fn stack(&self, values: Vec<Operand>) -> Result<Tensor> {
        Operand::List(values).to_tensor(&self.graph, "stack", None)
    }

    /// `tf.where` of three operands.
    pub(crate) fn select(&self, condition: &Tensor, x: &Tensor, y: &Tensor) -> Result<Tensor> {
        self.node("Select").input(condition).input(x).input(y).build()
    }

    /// `tf.zeros_like`: a constant for a small known shape.
    pub(crate) fn zeros_like(&self, x: &Tensor) -> Result<Tensor> {
        match x.shape().to_shape() {
            Some(shape) => self.filled(0, &shape, x.dtype(), "zeros_like"),
            None => self.node("ZerosLike").input(x).name("zeros_like").build(),
        }
    }

    /// `tf.ones_like`, of `dtype`
    pub(crate) fn ones_like(&self, x: &Tensor, dtype: DType) -> Result<Tensor> {
        let scope = graph_core::graph::scope::name_scope_in(&self.graph, "ones_like")?;
        let shape = self.shape(x)?;
        let one = self.constant(one(dtype)?, "Const")?;
        let ones = self.binary("Fill", &scope.scope_name(), &shape, &one)?;
        ones.set_shape(x.shape())?;
        Ok(ones)
    }

    /// `tf.cast` of an operand, which may be a number.
    pub(crate) fn cast_operand(&self, operand: &Operand, dtype: DType) -> Result<Tensor> {
        if let Operand::Tensor(tensor) = operand {
            return self.cast(tensor, dtype);
        }
        let scope = graph_core::graph::scope::name_scope_in(&self.graph, "Cast")?;
        let x = self.tensor(operand, "x")?;
        if x.dtype() == dtype {
            return Ok(x);
        }
        self.node("Cast")
            .input(&x)
            .attr("DstT", dtype)
            .name(scope.scope_name())
            .build()
    }

    /// `tf.zeros` of a shape that is a tensor.
    pub(crate) fn zeros(&self, shape: &Tensor, dtype: DType) -> Result<Tensor> {
        let scope = graph_core::graph::scope::name_scope_in(&self.graph, "zeros")?;
        let zero = self.constant(Value::zeros(dtype, ())?, "Const")?;
        self.binary("Fill", &scope.scope_name(), shape, &zero)
    }

    /// `tf.zeros` and `tf.ones` of a known shape: a constant if it is small, else a `Fill`.
    pub(crate) fn filled(&self, number: u8, shape: &[usize], dtype: DType, name: &str) -> Result<Tensor> {
        let number = if number == 0 {
            Value::zeros(dtype, ())?
        } else {
            one(dtype)?
        };
        if shape.iter().product::<usize>() < 1000 {
            return self.constant(repeat(&number, shape)?, name);
        }
        let scope = graph_core::graph::scope::name_scope_in(&self.graph, name)?;
        let shape = self.constant(
            Value::int32_vector(shape.iter().map(|&dim| dim as i32)),
            "shape_as_tensor",
        )?;
        let number = self.constant(number, "Const")?;
        self.binary("Fill", &scope.scope_name(), &shape, &number)
    }

    /// A reduction over `axes`, or over all where there are none, by Python's `reduce_...` functions.
    pub(crate) fn reduce(&self, op: &str, x: &Tensor, axes: Option<Operand>, keep_dims: bool) -> Result<Tensor> {
        let axes = match axes {
            Some(axes) => axes,
            None => all_axes(self, x.shape().rank(), x)?.into_operand(),
        };
        self.node(op).input(x).input(axes).attr("keep_dims", keep_dims).build()
    }

    /// `vector[index]`
    pub(crate) fn at_index(&self, vector: &Tensor, index: i32) -> Result<Tensor> {
        self.strided_slice(vector, Some(index), Some(index + 1), true)
    }

    /// `vector[begin:end]`
    pub(crate) fn slice(&self, vector: &Tensor, begin: Option<i32>, end: Option<i32>) -> Result<Tensor> {
        self.strided_slice(vector, begin, end, false)
    }

    fn strided_slice(&self, vector: &Tensor, begin: Option<i32>, end: Option<i32>, shrink: bool) -> Result<Tensor> {
        let scope = graph_core::graph::scope::name_scope_in(&self.graph, "strided_slice")?;
        let bounds = (
            self.constant([begin.unwrap_or(0)], "stack")?,
            self.constant([end.unwrap_or(0)], "stack_1")?,
            self.constant([1i32], "stack_2")?,
        );
        self.node("StridedSlice")
            .input(vector)
            .input(&bounds.0)
            .input(&bounds.1)
            .input(&bounds.2)
            .attr("begin_mask", i64::from(begin.is_none()))
            .attr("end_mask", i64::from(end.is_none()))
            .attr("shrink_axis_mask", i64::from(shrink))
            .name(scope.scope_name())
            .build()
    }
}

/// All axes of `x`: a constant for a known rank, else a range up to its rank.
pub(crate) fn all_axes(nodes: &Nodes<'_>, rank: Option<usize>, x: &Tensor) -> Result<Tensor> {
    match rank {
        Some(rank) => nodes.constant(Value::int32_vector(0..rank as i32), "Const"),
        None => {
            let rank = nodes.rank(x)?;
            nodes.range(0, &rank)
        }
    }
}

/// The number one of any dtype; true for `bool`.
fn one(dtype: DType) -> Result<Value> {
    match dtype {
        DType::Bool => Ok(Value::from(true)),
        _ => Value::from(1u8).cast_exactly(dtype),
    }
}

/// A scalar spread over a shape.
fn repeat(number: &Value, shape: &[usize]) -> Result<Value> {
    let len = shape.iter().product();
    match number.as_strings() {
        Ok(text) => Value::from_strings(shape, vec![text[0].clone(); len]),
        Err(_) => Value::from_bytes(number.dtype(), shape, &number.bytes().repeat(len)),
    }
}
