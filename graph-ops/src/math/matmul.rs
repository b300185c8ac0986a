//! `MatMul`, `BatchMatMul`, `BatchMatMulV2`: products of matrices.

use std::panic::Location;

use graph_core::gradients::GradientContext;
use graph_core::graph::{IntoOperand, Operand, Tensor, scope};
use graph_core::op::{InferenceContext, KernelContext, KernelDefinition, KernelRequest, OpDefinition, Planned};
use graph_core::{Complex, DType, Dim, Element, Error, Graph, PartialShape, Result};
use graph_cuda::Cuda;
use half::{bf16, f16};

use super::nodes::Nodes;
use crate::cpu::gemm::{GemmElement, Product, gemm};
use crate::cuda::FLOATS;

mod batch;
mod sparse;
#[cfg(test)]
mod tests;

pub(crate) use batch::{batch_mat_mul, batch_mat_mul_v2};
pub(crate) use sparse::sparse_mat_mul;
#[cfg(test)]
pub(crate) use tests::{cases, gradient_cases};

/// The dtypes that matrices are multiplied in.
const TYPES: &str = "T: {bfloat16, half, float, double, int32, int64, complex64, complex128}";

/// A kernel for each dtype.
macro_rules! kernels {
    ($definition:expr, $kernel:ident) => {
        $definition
            .kernel(KernelDefinition::cpu($kernel::<f32>).types("T", &[DType::Float32]))
            .kernel(KernelDefinition::cpu($kernel::<f64>).types("T", &[DType::Float64]))
            .kernel(KernelDefinition::cpu($kernel::<f16>).types("T", &[DType::Half]))
            .kernel(KernelDefinition::cpu($kernel::<bf16>).types("T", &[DType::BFloat16]))
            .kernel(KernelDefinition::cpu($kernel::<i32>).types("T", &[DType::Int32]))
            .kernel(KernelDefinition::cpu($kernel::<i64>).types("T", &[DType::Int64]))
            .kernel(KernelDefinition::cpu($kernel::<Complex<f32>>).types("T", &[DType::Complex64]))
            .kernel(KernelDefinition::cpu($kernel::<Complex<f64>>).types("T", &[DType::Complex128]))
    };
}
use kernels;

/// `MatMul`
pub(crate) fn definition() -> OpDefinition {
    kernels!(
        OpDefinition::new(
            "MatMul",
            "The matrix product a b, of [m,k] and [k,n]; each operand may be transposed first.",
        )
        .input("a: T")
        .input("b: T")
        .output("product: T")
        .attr("transpose_a: bool = false")
        .attr("transpose_b: bool = false")
        .attr(TYPES)
        .shape(shape)
        .gradient(gradient),
        kernel
    )
    .kernel(KernelDefinition::cuda(on_device).types("T", FLOATS))
}

/// Rows, columns of the first and the second operand, from the last two dimensions of each.
fn sides(a: [Dim; 2], b: [Dim; 2], transpose_a: bool, transpose_b: bool) -> [Dim; 4] {
    let ([m, k], [l, n]) = (
        if transpose_a { [a[1], a[0]] } else { a },
        if transpose_b { [b[1], b[0]] } else { b },
    );
    [m, k, l, n]
}

fn shape(context: &mut InferenceContext<'_>) -> Result<()> {
    let (a, b) = (context.with_rank(0, 2)?, context.with_rank(1, 2)?);
    let (transpose_a, transpose_b): (bool, bool) = (context.attr("transpose_a")?, context.attr("transpose_b")?);
    let [m, k, l, n] = sides([a.dim(0), a.dim(1)], [b.dim(0), b.dim(1)], transpose_a, transpose_b);
    check_inner(context, k, l)?;
    context.set_output(0, PartialShape::from([m, n]));
    Ok(())
}

fn check_inner(context: &InferenceContext<'_>, a: Dim, b: Dim) -> Result<()> {
    context
        .merge_dims(a, b, "the inner dimensions")
        .map(drop)
        .map_err(|error| {
            error
                .context(format!(
                    "multiplying matrices of shapes {} and {}",
                    context.input(0),
                    context.input(1)
                ))
                .hint(
                    "the columns of the first operand must be as many as the rows of the second; transpose one of them",
                )
        })
}

/// Rows, columns and inner dimension of the product.
fn extent(request: &KernelRequest<'_>, [transpose_a, transpose_b]: [bool; 2]) -> [usize; 3] {
    let (a, b) = (request.input_shape(0), request.input_shape(1));
    let (m, k) = if transpose_a { (a[1], a[0]) } else { (a[0], a[1]) };
    [m, if transpose_b { b[0] } else { b[1] }, k]
}

/// The product of inputs 0 and 1 of a `MatMul`, as a device takes it.
pub(crate) fn device_product(request: &KernelRequest<'_>) -> Result<graph_cuda::Product> {
    let (transpose_a, transpose_b): (bool, bool) = (request.attr("transpose_a")?, request.attr("transpose_b")?);
    let [m, n, k] = extent(request, [transpose_a, transpose_b]);
    Ok(graph_cuda::Product::new(request.input_dtype(0), m, n, k).transposed(transpose_a, transpose_b))
}

fn on_device(request: &KernelRequest<'_>) -> Result<Planned> {
    let (product, cuda) = (device_product(request)?, Cuda::of(request)?);
    Ok(Planned::new(move |context| {
        let (a, b) = (context.input_address(0), context.input_address(1));
        // SAFETY: the tensors have the dimensions of the product, and the output is no input's memory.
        unsafe { cuda.multiply(&product, a, b, context.output_address(0)) }
    }))
}

/// The product that a `MatMul`, or what becomes of it, is of its inputs 0 and 1.
pub(crate) fn product_of(request: &KernelRequest<'_>) -> Result<Product> {
    let (transpose_a, transpose_b): (bool, bool) = (request.attr("transpose_a")?, request.attr("transpose_b")?);
    let [m, n, k] = extent(request, [transpose_a, transpose_b]);
    Ok(Product::new(m, n, k).transposed(transpose_a, transpose_b))
}

fn kernel<T: Element + GemmElement>(request: &KernelRequest<'_>) -> Result<Planned> {
    let product = product_of(request)?;
    Ok(Planned::new(move |context: &mut KernelContext<'_>| {
        gemm(
            product,
            context.input::<T>(0)?,
            context.input::<T>(1)?,
            context.output::<T>(0)?,
        );
        Ok(())
    }))
}

/// For C = A B: dA = dC Bᴴ and dB = Aᴴ dC, with the flags moved along where an operand was transposed.
fn gradient(context: &mut GradientContext<'_>) -> Result<Vec<Option<Tensor>>> {
    let nodes = Nodes::of(context);
    let gradient = context.gradient(0)?;
    let flags: (bool, bool) = (context.attr("transpose_a")?, context.attr("transpose_b")?);
    let (a, b) = (nodes.conj(&context.input(0))?, nodes.conj(&context.input(1))?);
    let product = |a: &Tensor, b: &Tensor, transpose_a: bool, transpose_b: bool| {
        nodes
            .node("MatMul")
            .input(a)
            .input(b)
            .attr("transpose_a", transpose_a)
            .attr("transpose_b", transpose_b)
            .build()
            .map(Some)
    };
    Ok(match flags {
        (false, false) => vec![
            product(&gradient, &b, false, true)?,
            product(&a, &gradient, true, false)?,
        ],
        (false, true) => vec![
            product(&gradient, &b, false, false)?,
            product(&gradient, &a, true, false)?,
        ],
        (true, false) => vec![
            product(&b, &gradient, false, true)?,
            product(&a, &gradient, false, false)?,
        ],
        (true, true) => vec![product(&b, &gradient, true, true)?, product(&gradient, &a, true, true)?],
    })
}

/// A matrix product about to be made; see [`matmul`].
#[must_use = "an operation is made by `build`"]
pub struct MatMul {
    a: Operand,
    b: Operand,
    transpose: [bool; 2],
    adjoint: [bool; 2],
    name: Option<String>,
    location: &'static Location<'static>,
}

impl MatMul {
    /// Transposes `a` first.
    pub fn transpose_a(mut self, transpose: bool) -> Self {
        self.transpose[0] = transpose;
        self
    }

    /// Transposes `b` first.
    pub fn transpose_b(mut self, transpose: bool) -> Self {
        self.transpose[1] = transpose;
        self
    }

    /// Takes the conjugate transpose of `a`.
    pub fn adjoint_a(mut self, adjoint: bool) -> Self {
        self.adjoint[0] = adjoint;
        self
    }

    /// Takes the conjugate transpose of `b`.
    pub fn adjoint_b(mut self, adjoint: bool) -> Self {
        self.adjoint[1] = adjoint;
        self
    }

    /// Names the operation.
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.name = Some(name.into());
        self
    }

    /// Makes the operation: `MatMul`, or `BatchMatMulV2` where an operand has (or may have) more than two axes.
    ///
    /// # Errors
    /// The operands' own; `InvalidArgument` if the shapes do not fit or an operand is both transposed and conjugated.
    pub fn build(self) -> Result<Tensor> {
        if self
            .transpose
            .iter()
            .zip(self.adjoint)
            .any(|(&transpose, adjoint)| transpose && adjoint)
        {
            return Err(Error::invalid_argument(
                "an operand of a matrix product is either transposed or conjugated and transposed, not both",
            ));
        }
        let graph = self
            .a
            .graph()
            .or(self.b.graph())
            .cloned()
            .unwrap_or_else(Graph::current);
        let nodes = Nodes::at(&graph, self.location);
        let scope = scope::name_scope_in(&graph, self.name.as_deref().unwrap_or("MatMul"))?;
        let other_dtype = |operand: &Operand| match operand {
            Operand::Tensor(tensor) => Some(tensor.dtype()),
            Operand::Variable(variable) => Some(variable.dtype()),
            _ => None,
        };
        let operands = [
            self.a.to_tensor(&graph, "a", other_dtype(&self.b))?,
            self.b.to_tensor(&graph, "b", other_dtype(&self.a))?,
        ];
        product(&nodes, operands, self.transpose, self.adjoint, &scope.scope_name())
    }
}

/// The product as `MatMul`, or as `BatchMatMulV2` where an operand has or may have more than two axes.
pub(super) fn product(
    nodes: &Nodes<'_>,
    mut operands: [Tensor; 2],
    transpose: [bool; 2],
    adjoint: [bool; 2],
    name: &str,
) -> Result<Tensor> {
    let batched = operands
        .iter()
        .any(|operand| operand.shape().rank().is_none_or(|rank| rank > 2));
    // One op knows the transpose, the other the conjugate transpose; the other form is a conjugate away.
    let conjugated = if batched { transpose } else { adjoint };
    for (operand, conjugated) in operands.iter_mut().zip(conjugated) {
        if conjugated {
            *operand = nodes.conj(operand)?;
        }
    }
    let (op, names) = if batched {
        ("BatchMatMulV2", ["adj_x", "adj_y"])
    } else {
        ("MatMul", ["transpose_a", "transpose_b"])
    };
    let [a, b] = &operands;
    nodes
        .node(op)
        .input(a)
        .input(b)
        .attr(names[0], transpose[0] || adjoint[0])
        .attr(names[1], transpose[1] || adjoint[1])
        .name(name)
        .build()
}

impl IntoOperand for MatMul {
    fn into_operand(self) -> Operand {
        self.build().into_operand()
    }
}

/// The product of the matrices `a` of shape [..., m, k] and `b` of shape [..., k, n]: [..., m, n]. Axes before the last two
/// are batches and broadcast. Of floating-point, complex, `int32` and `int64` tensors; half types are multiplied in `float`.
///
/// ```
/// use graph_ops::{array::constant, math::matmul};
/// let (a, b) = (constant([[1.0f32, 2.0]]).build()?, constant([[3.0f32, 4.0]]).build()?);
/// assert_eq!(matmul(&a, &b).transpose_b(true).build()?.shape(), [1, 1].into());
/// assert!(matmul(&a, &b).build().is_err());
/// # Ok::<(), graph_core::Error>(())
/// ```
#[track_caller]
pub fn matmul(a: impl IntoOperand, b: impl IntoOperand) -> MatMul {
    crate::install();
    MatMul {
        a: a.into_operand(),
        b: b.into_operand(),
        transpose: [false; 2],
        adjoint: [false; 2],
        name: None,
        location: Location::caller(),
    }
}
