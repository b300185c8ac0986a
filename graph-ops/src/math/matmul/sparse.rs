//! `SparseMatMul`: the product of matrices of `float` or `bfloat16`, in `float`.
//!
//! That an operand has many zeros is a hint, which the product here does not take.

use super::*;

/// `SparseMatMul`
pub(crate) fn sparse_mat_mul() -> OpDefinition {
    macro_rules! kernels {
        ($($a:ident $a_type:ty, $b:ident $b_type:ty;)*) => {
            OpDefinition::new(
                "SparseMatMul",
                "The matrix product a b of [m,k] and [k,n], in single precision; each operand may be transposed first.",
            )
            .input("a: Ta")
            .input("b: Tb")
            .output("product: float")
            .attr("transpose_a: bool = false")
            .attr("transpose_b: bool = false")
            .attr("a_is_sparse: bool = false")
            .attr("b_is_sparse: bool = false")
            .attr("Ta: {float, bfloat16} = DT_FLOAT")
            .attr("Tb: {float, bfloat16} = DT_FLOAT")
            .shape(shape)
            .gradient(gradient)
            $(.kernel(
                KernelDefinition::cpu(kernel::<$a_type, $b_type>)
                    .types("Ta", &[DType::$a])
                    .types("Tb", &[DType::$b]),
            ))*
            .kernel(
                KernelDefinition::cuda(super::on_device)
                    .types("Ta", &[DType::Float32])
                    .types("Tb", &[DType::Float32]),
            )
        };
    }
    kernels! {
        Float32 f32, Float32 f32;
        Float32 f32, BFloat16 bf16;
        BFloat16 bf16, Float32 f32;
        BFloat16 bf16, BFloat16 bf16;
    }
}

/// An element that single precision holds exactly.
trait Single: Element {
    fn single(self) -> f32;
}

impl Single for f32 {
    fn single(self) -> f32 {
        self
    }
}

impl Single for bf16 {
    fn single(self) -> f32 {
        self.to_f32()
    }
}

fn kernel<A: Single, B: Single>(request: &KernelRequest<'_>) -> Result<Planned> {
    let (transpose_a, transpose_b): (bool, bool) = (request.attr("transpose_a")?, request.attr("transpose_b")?);
    let (a, b) = (request.input_shape(0), request.input_shape(1));
    let (m, k) = if transpose_a { (a[1], a[0]) } else { (a[0], a[1]) };
    let n = if transpose_b { b[0] } else { b[1] };
    let product = Product::new(m, n, k).transposed(transpose_a, transpose_b);
    Ok(Planned::new(move |context: &mut KernelContext<'_>| {
        let a: Vec<f32> = context.input::<A>(0)?.iter().map(|x| x.single()).collect();
        let b: Vec<f32> = context.input::<B>(1)?.iter().map(|x| x.single()).collect();
        gemm(product, &a, &b, context.output::<f32>(0)?);
        Ok(())
    }))
}

/// As that of `MatMul`; an operand that was sparse still is, and a gradient that comes from a rectifier is.
fn gradient(context: &mut GradientContext<'_>) -> Result<Vec<Option<Tensor>>> {
    let nodes = Nodes::of(context);
    let (a, b, gradient) = (context.input(0), context.input(1), context.gradient(0)?);
    let flags: (bool, bool) = (context.attr("transpose_a")?, context.attr("transpose_b")?);
    let of_gradient = (gradient.clone(), gradient.op().op_type() == "ReluGrad");
    let of_a = (a.clone(), context.attr("a_is_sparse")?);
    let of_b = (b.clone(), context.attr("b_is_sparse")?);
    type Factor = (Tensor, bool);
    let product = |x: &Factor, y: &Factor, transpose_x: bool, transpose_y: bool, dtype: DType| {
        let node = nodes.node("SparseMatMul").input(&x.0).input(&y.0);
        let node = node.attr("transpose_a", transpose_x).attr("transpose_b", transpose_y);
        let product = node.attr("a_is_sparse", x.1).attr("b_is_sparse", y.1).build()?;
        nodes.cast(&product, dtype).map(Some)
    };
    let (to_a, to_b) = (a.dtype(), b.dtype());
    Ok(match flags {
        (false, false) => vec![
            product(&of_gradient, &of_b, false, true, to_a)?,
            product(&of_a, &of_gradient, true, false, to_b)?,
        ],
        (false, true) => vec![
            product(&of_gradient, &of_b, false, false, to_a)?,
            product(&of_gradient, &of_a, true, false, to_b)?,
        ],
        (true, false) => vec![
            product(&of_b, &of_gradient, false, true, to_a)?,
            product(&of_a, &of_gradient, false, false, to_b)?,
        ],
        (true, true) => vec![
            product(&of_b, &of_gradient, true, true, to_a)?,
            product(&of_gradient, &of_a, true, true, to_b)?,
        ],
    })
}

#[cfg(test)]
pub(super) fn cases() -> Vec<crate::testing::Case> {
    use crate::testing::Case;
    let (a, b) = (
        [[1.0f32, 2.0, 0.0], [0.0, 3.0, 4.0]],
        [[1.0f32, 2.0], [3.0, 4.0], [5.0, 6.0]],
    );
    let transposed = [[1.0f32, 0.0], [2.0, 3.0], [0.0, 4.0]];
    let expected = [[7.0f32, 10.0], [29.0, 36.0]];
    let brain = |x: [[f32; 2]; 3]| x.map(|row| row.map(bf16::from_f32));
    vec![
        Case::new("SparseMatMul")
            .attr("a_is_sparse", true)
            .input(a)
            .input(b)
            .expect(expected),
        Case::new("SparseMatMul").input(a).input(brain(b)).expect(expected),
        Case::new("SparseMatMul")
            .attr("transpose_a", true)
            .input(brain(transposed))
            .input(b)
            .expect(expected),
        Case::new("SparseMatMul")
            .attr("transpose_a", true)
            .attr("transpose_b", true)
            .input(brain(transposed))
            .input([[1.0f32, 3.0, 5.0], [2.0, 4.0, 6.0]].map(|row| row.map(bf16::from_f32)))
            .expect(expected),
    ]
}

#[cfg(test)]
pub(super) fn gradient_cases() -> Vec<crate::testing::GradientCase> {
    use crate::testing::GradientCase;
    use graph_core::Value;
    let matrix = |rows: usize, columns: usize| {
        let elements: Vec<f32> = (0..rows * columns).map(|i| (i as f32 * 0.9).sin()).collect();
        Value::from_vec([rows, columns], elements).expect("a value")
    };
    let case = |transpose_a: bool, transpose_b: bool| {
        let sides = |transpose: bool, rows, columns| {
            if transpose {
                matrix(columns, rows)
            } else {
                matrix(rows, columns)
            }
        };
        GradientCase::new("SparseMatMul")
            .attr("transpose_a", transpose_a)
            .attr("transpose_b", transpose_b)
            .input(sides(transpose_a, 2, 3))
            .input(sides(transpose_b, 3, 2))
            .tolerance(1e-2, 1e-3, 1e-2)
    };
    vec![
        case(false, false),
        case(false, true),
        case(true, false),
        case(true, true),
    ]
}
