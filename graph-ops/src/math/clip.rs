//! Clipping: norms and global norms kept within bounds.

use std::panic::Location;

use graph_core::graph::{IntoOperand, Operand, Tensor, scope};
use graph_core::{DType, Error, Graph, Result, Value};

use super::nodes::Nodes;

/// A tensor about to be clipped; see [`clip_by_norm`] and [`clip_by_average_norm`].
#[must_use = "operations are made by `build`"]
pub struct Clip {
    t: Operand,
    how: How,
    axes: Option<Operand>,
    name: Option<String>,
    location: &'static Location<'static>,
}

/// What is kept within bounds.
enum How {
    Norm(Operand),
    AverageNorm(Operand),
}

impl Clip {
    #[track_caller]
    fn new(t: impl IntoOperand, how: How) -> Self {
        crate::install();
        Self {
            t: t.into_operand(),
            how,
            axes: None,
            name: None,
            location: Location::caller(),
        }
    }

    /// The axes along which [`clip_by_norm`] measures; all without.
    pub fn axes(mut self, axes: impl IntoOperand) -> Self {
        self.axes = Some(axes.into_operand());
        self
    }

    /// Names the operation.
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.name = Some(name.into());
        self
    }

    /// Makes the operations; the clipped tensor.
    ///
    /// # Errors
    /// The operands' own; `InvalidArgument` if a bound would broadcast the tensor.
    pub fn build(self) -> Result<Tensor> {
        let graph = self.t.graph().cloned().unwrap_or_else(Graph::current);
        let nodes = Nodes::at(&graph, self.location);
        let default = match self.how {
            How::Norm(_) => "clip_by_norm",
            How::AverageNorm(_) => "clip_by_average_norm",
        };
        let scope = scope::name_scope_in(&graph, self.name.as_deref().unwrap_or(default))?;
        let t = nodes.tensor(&self.t, "t")?;
        match self.how {
            How::Norm(norm) => by_norm(&nodes, &t, norm, self.axes, &scope.scope_name()),
            How::AverageNorm(norm) => by_average_norm(&nodes, &t, norm, &scope.scope_name()),
        }
    }
}

impl IntoOperand for Clip {
    fn into_operand(self) -> Operand {
        self.build().into_operand()
    }
}

/// The floating-point tensor `t` scaled down where its Euclidean norm (along [`axes`](Clip::axes), else of all elements) is
/// greater than `clip_norm`: `t * clip_norm / max(norm, clip_norm)`. The gradient at zero is finite.
#[track_caller]
pub fn clip_by_norm(t: impl IntoOperand, clip_norm: impl IntoOperand) -> Clip {
    Clip::new(t, How::Norm(clip_norm.into_operand()))
}

/// The `float` tensor `t` scaled down where its Euclidean norm divided by the number of elements is greater than
/// `clip_norm`.
#[track_caller]
pub fn clip_by_average_norm(t: impl IntoOperand, clip_norm: impl IntoOperand) -> Clip {
    Clip::new(t, How::AverageNorm(clip_norm.into_operand()))
}

/// An error if a bound has made the tensor larger.
fn same_shape(before: &Tensor, after: &Tensor) -> Result<()> {
    let (before, after) = (before.shape(), after.shape());
    before
        .merge(&after)
        .map(drop)
        .map_err(|error| error.hint("the bound must broadcast to the tensor"))
}

fn by_norm(nodes: &Nodes<'_>, t: &Tensor, clip_norm: Operand, axes: Option<Operand>, name: &str) -> Result<Tensor> {
    let squares = nodes.mul(t, t)?;
    let sum = nodes.reduce("Sum", &squares, axes, true)?;
    let positive = nodes.binary("Greater", "Greater", &sum, 0)?;
    // The root is taken of ones where the sum is zero, whose root has no derivative.
    let ones = nodes.ones_like(&sum, sum.dtype())?;
    let safe = nodes.select(&positive, &sum, &ones)?;
    let root = nodes.unary("Sqrt", &safe)?;
    let norm = nodes.select(&positive, &root, &sum)?;
    let scaled = nodes.mul(t, &clip_norm)?;
    same_shape(t, &scaled)?;
    let greater = nodes.binary("Maximum", "Maximum", &norm, &clip_norm)?;
    let clipped = nodes.truediv(&scaled, &greater)?;
    nodes.node("Identity").input(&clipped).name(name).build()
}

fn by_average_norm(nodes: &Nodes<'_>, t: &Tensor, clip_norm: Operand, name: &str) -> Result<Tensor> {
    let size = nodes.size(t)?;
    let size = nodes.cast(&size, DType::Float32)?;
    let squares = nodes.mul(t, t)?;
    let rank = nodes.rank(t)?;
    let axes = nodes.range(0, &rank)?;
    let sum = nodes.reduce("Sum", &squares, Some(axes.into_operand()), false)?;
    let inverse = nodes.unary("Rsqrt", &sum)?;
    let scaled = nodes.mul(t, &clip_norm)?;
    let per_element = nodes.mul(&inverse, &size)?;
    let one = nodes.constant(1.0f32, "Const")?;
    let bound = nodes.truediv(&one, &clip_norm)?;
    let least = nodes.binary("Minimum", "Minimum", &per_element, &bound)?;
    let clipped = nodes.mul(&scaled, &least)?;
    nodes.node("Identity").input(&clipped).name(name).build()
}

/// The tensors of a list, constants named `t_0` and so on where they are none yet.
fn tensors(nodes: &Nodes<'_>, list: &[Operand]) -> Result<Vec<Tensor>> {
    let tensors = list.iter().enumerate();
    tensors
        .map(|(index, operand)| nodes.tensor(operand, &format!("t_{index}")))
        .collect()
}

fn graph_of(list: &[Operand]) -> Graph {
    list.iter()
        .find_map(Operand::graph)
        .cloned()
        .unwrap_or_else(Graph::current)
}

/// The Euclidean norm of all elements of several floating-point tensors together.
///
/// # Errors
/// The operands' own; `InvalidArgument` for an empty list or tensors of different dtypes.
#[track_caller]
pub fn global_norm<T: IntoOperand>(list: impl IntoIterator<Item = T>) -> Result<Tensor> {
    let list: Vec<Operand> = list.into_iter().map(IntoOperand::into_operand).collect();
    crate::install();
    global_norm_of(&Nodes::at(&graph_of(&list), Location::caller()), &list, "global_norm")
}

fn global_norm_of(nodes: &Nodes<'_>, list: &[Operand], name: &str) -> Result<Tensor> {
    if list.is_empty() {
        return Err(Error::invalid_argument("the norm of no tensors").expected("at least one tensor"));
    }
    let _scope = scope::name_scope_in(nodes.graph(), name)?;
    let mut halves = Vec::with_capacity(list.len());
    for tensor in tensors(nodes, list)? {
        let _colocation = scope::colocate_with(&tensor.op());
        halves.push(nodes.unary("L2Loss", &tensor)?.into_operand());
    }
    let halves = nodes.stack(halves)?;
    let sum = nodes.reduce("Sum", &halves, None, false)?;
    let two = nodes.scalar(2, sum.dtype(), "Const")?;
    let squares = nodes.mul(&sum, &two)?;
    nodes.node("Sqrt").input(&squares).name("global_norm").build()
}

/// Tensors about to be clipped together; see [`clip_by_global_norm`].
#[must_use = "operations are made by `build`"]
pub struct ClipByGlobalNorm {
    list: Vec<Operand>,
    clip_norm: Operand,
    use_norm: Option<Operand>,
    name: Option<String>,
    location: &'static Location<'static>,
}

/// Several floating-point tensors, all scaled down by one factor if their [`global_norm`] is greater than `clip_norm`. Where
/// the norm is not finite the results are not numbers.
#[track_caller]
pub fn clip_by_global_norm<T: IntoOperand>(
    list: impl IntoIterator<Item = T>,
    clip_norm: impl IntoOperand,
) -> ClipByGlobalNorm {
    crate::install();
    ClipByGlobalNorm {
        list: list.into_iter().map(IntoOperand::into_operand).collect(),
        clip_norm: clip_norm.into_operand(),
        use_norm: None,
        name: None,
        location: Location::caller(),
    }
}

impl ClipByGlobalNorm {
    /// The norm, where it is known already.
    pub fn use_norm(mut self, norm: impl IntoOperand) -> Self {
        self.use_norm = Some(norm.into_operand());
        self
    }

    /// Names the scope.
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.name = Some(name.into());
        self
    }

    /// Makes the operations: the clipped tensors, and the norm before.
    ///
    /// # Errors
    /// The operands' own; `InvalidArgument` for an empty list or tensors of different dtypes.
    pub fn build(self) -> Result<(Vec<Tensor>, Tensor)> {
        let graph = graph_of(&self.list);
        let nodes = Nodes::at(&graph, self.location);
        let norm = match &self.use_norm {
            Some(norm) => nodes.tensor(norm, "norm")?,
            None => global_norm_of(&nodes, &self.list, self.name.as_deref().unwrap_or("global_norm"))?,
        };
        let scope = scope::name_scope_in(&graph, self.name.as_deref().unwrap_or("clip_by_global_norm"))?;
        let inverse = nodes.truediv(1, &norm)?;
        let one = nodes.scalar(1, norm.dtype(), "Const")?;
        let bound = nodes.truediv(&one, &self.clip_norm)?;
        let least = nodes.binary("Minimum", "Minimum", &inverse, &bound)?;
        let scale = nodes.mul(&self.clip_norm, &least)?;
        let finite = nodes.unary("IsFinite", &norm)?;
        let nan = nodes.constant(Value::from(f64::NAN).cast_exactly(norm.dtype())?, "Const")?;
        let scale = nodes.select(&finite, &scale, &nan)?;
        let mut clipped = Vec::with_capacity(self.list.len());
        for (index, tensor) in tensors(&nodes, &self.list)?.iter().enumerate() {
            let _colocation = scope::colocate_with(&tensor.op());
            let scaled = nodes.mul(tensor, &scale)?;
            // TensorFlow puts the scope's name before the number again.
            let name = format!("{}_{index}", scope.scope_name());
            clipped.push(nodes.node("Identity").input(&scaled).name(name).build()?);
        }
        Ok((clipped, norm))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::array::constant;
    use graph_core::session::Session;

    fn run(tensor: &Tensor) -> Vec<f32> {
        Session::new(tensor.graph()).unwrap().run(tensor, ()).unwrap()
    }

    #[test]
    fn norms_are_clipped() {
        let graph = Graph::new();
        let _default = graph.as_default();
        let x = constant([3.0f32, 4.0]).name("x").build().unwrap();
        let close = |got: &[f32], expected: &[f32]| {
            assert!(
                got.iter().zip(expected).all(|(a, b)| (a - b).abs() < 1e-6),
                "{got:?} {expected:?}"
            );
        };
        close(&run(&clip_by_norm(&x, 1.0).build().unwrap()), &[0.6, 0.8]);
        close(&run(&clip_by_norm(&x, 10).axes([0]).build().unwrap()), &[3.0, 4.0]);
        close(&run(&clip_by_average_norm(&x, 0.5).build().unwrap()), &[0.6, 0.8]);
        let y = constant([12.0f32]).build().unwrap();
        let (clipped, norm) = clip_by_global_norm([&x, &y], 6.5).build().unwrap();
        close(&run(&clipped[0]), &[1.5, 2.0]);
        close(&run(&clipped[1]), &[6.0]);
        let norm: f32 = Session::new(&graph).unwrap().run(&norm, ()).unwrap();
        close(&[norm], &[13.0]);
        let bad = constant([f32::INFINITY]).build().unwrap();
        let (clipped, _) = clip_by_global_norm([&x, &bad], 1.0).build().unwrap();
        assert!(run(&clipped[0]).iter().all(|x| x.is_nan()));
        assert!(global_norm(Vec::<Tensor>::new()).is_err());
        assert!(clip_by_norm(&x, [[1.0f32], [1.0]]).build().is_err());
    }

    #[test]
    fn nodes_are_those_of_python() {
        let graph = Graph::new();
        let _default = graph.as_default();
        let x = constant([[3.0f32, 4.0]]).name("x").build().unwrap();
        let from = graph.num_operations();
        clip_by_average_norm(&x, 2.0).name("a").build().unwrap();
        clip_by_global_norm([&x], 2.0).name("g").build().unwrap();
        let names: Vec<String> = graph.operations()[from..]
            .iter()
            .map(|operation| operation.name())
            .collect();
        let expected = [
            "a/Size",
            "a/Cast",
            "a/mul",
            "a/Rank",
            "a/range/start",
            "a/range/delta",
            "a/range",
            "a/Sum",
            "a/Rsqrt",
            "a/mul_1/y",
            "a/mul_1",
            "a/mul_2",
            "a/Const",
            "a/truediv/y",
            "a/truediv",
            "a/Minimum",
            "a/mul_3",
            "a",
            "g/L2Loss",
            "g/stack",
            "g/Const",
            "g/Sum",
            "g/Const_1",
            "g/mul",
            "g/global_norm",
            "g_1/truediv/x",
            "g_1/truediv",
            "g_1/Const",
            "g_1/truediv_1/y",
            "g_1/truediv_1",
            "g_1/Minimum",
            "g_1/mul/x",
            "g_1/mul",
            "g_1/IsFinite",
            "g_1/Const_1",
            "g_1/Select",
            "g_1/mul_1",
            "g_1/g_1/_0",
        ];
        assert_eq!(names, expected);
    }
}
