//! Sums of any number of tensors of one shape: `AddN`, `AccumulateNV2`.

use graph_core::accelerator::DeviceAddress;
use graph_core::graph::{IntoOperand, Operand, Tensor};
use graph_core::op::{InferenceContext, KernelContext, KernelDefinition, KernelRequest, OpDefinition, Planned};
use graph_core::{Complex, Element, Error, Graph, PartialShape, Result};
use graph_cuda::{Cuda, Source, arguments, source};
use half::{bf16, f16};

use super::elementwise::kernel;
use crate::cpu::parallel::{GRAIN, SharedMut, for_each_range};
use crate::cuda::{NOWHERE, NUMBERS, type_name};

/// Adds the tensors from the first to the last, so that the order of the sum is the order of the list.
fn run<T: Element>(context: &mut KernelContext<'_>, add: impl Fn(T, T) -> T + Sync) -> Result<()> {
    let inputs = (0..context.num_inputs())
        .map(|index| {
            context
                .input_ptr::<T>(index)
                .map(|pointer| SharedMut::from_ptr(pointer.cast_mut()))
        })
        .collect::<Result<Vec<_>>>()?;
    let len = context.output_shape(0).num_elements();
    let output = SharedMut::from_ptr(context.output_ptr::<T>(0)?);
    let (inputs, add) = (&inputs[..], &add);
    for_each_range(len, GRAIN, move |range| {
        // SAFETY: all inputs and the output have `len` elements, and each task has its own range. The output may be the
        // first input, each of whose elements is read before the element at its place is written.
        unsafe {
            let pointer = |shared: SharedMut<T>| shared.as_ptr().add(range.start);
            let out = pointer(output);
            let first = pointer(inputs[0]);
            match inputs.get(1) {
                Some(&second) => {
                    let second = pointer(second);
                    (0..range.len()).for_each(|at| *out.add(at) = add(*first.add(at), *second.add(at)));
                }
                None => std::ptr::copy(first, out, range.len()),
            }
            for &next in inputs.iter().skip(2) {
                let next = pointer(next);
                (0..range.len()).for_each(|at| *out.add(at) = add(*out.add(at), *next.add(at)));
            }
        }
    });
    Ok(())
}

/// The inputs of one launch, as the kernel takes them.
#[repr(C)]
#[derive(Clone, Copy)]
struct Terms([DeviceAddress; 8]);

fn on_device(request: &KernelRequest<'_>) -> Result<Planned> {
    const SOURCE: Source = source!("add_n.cu");
    let defines = [("T", type_name(request.output_dtype(0))?)];
    let function = Cuda::of(request)?.function(&SOURCE, "add_n", &defines)?;
    let (n, bytes) = (request.output_shape(0)?.num_elements(), request.output_bytes());
    Ok(Planned::new(move |context| {
        let output = context.output_address(0);
        let mut next = 0;
        while next < context.num_inputs() {
            // From the second launch on, the first term is the sum so far.
            let sum = (next > 0).then_some(output);
            let rest = (next..context.num_inputs()).map(|index| context.input_address(index));
            let mut terms = Terms([NOWHERE; 8]);
            let mut count = 0;
            for (place, address) in terms.0.iter_mut().zip(sum.into_iter().chain(rest)) {
                *place = address;
                count += 1;
            }
            next += count - usize::from(next > 0);
            let function = function.clone().moving((count + 1) * bytes).doing((count - 1) * n);
            // SAFETY: these are the kernel's parameters; all tensors have `n` elements.
            unsafe { function.launch_over(n, arguments![output, terms, count as i32, n as i64])? };
        }
        Ok(())
    }))
}

fn with_kernels(definition: OpDefinition) -> OpDefinition {
    macro_rules! kernels {
        ($($t:ty: |$x:ident, $y:ident| $e:expr;)*) => {
            definition
                .gradient(|context| {
                    let gradient = context.gradient(0)?;
                    Ok(vec![Some(gradient); context.op().inputs().len()])
                })
                $(.kernel(kernel!($t, |context| run::<$t>(context, |$x, $y| $e)).in_place(0, 0)))*
                .kernel(KernelDefinition::cuda(on_device).types("T", NUMBERS))
        };
    }
    kernels! {
        f32: |x, y| x + y;
        f64: |x, y| x + y;
        f16: |x, y| x + y;
        bf16: |x, y| x + y;
        i8: |x, y| x.wrapping_add(y);
        i16: |x, y| x.wrapping_add(y);
        i32: |x, y| x.wrapping_add(y);
        i64: |x, y| x.wrapping_add(y);
        u8: |x, y| x.wrapping_add(y);
        u16: |x, y| x.wrapping_add(y);
        u32: |x, y| x.wrapping_add(y);
        u64: |x, y| x.wrapping_add(y);
        Complex<f32>: |x, y| x + y;
        Complex<f64>: |x, y| x + y;
    }
}

/// `AddN`
pub(crate) fn add_n_op() -> OpDefinition {
    with_kernels(
        OpDefinition::new("AddN", "The sum of tensors of one shape, from the first to the last.")
            .input("inputs: N * T")
            .output("sum: T")
            .attr("N: int >= 1")
            .attr("T: numbertype")
            .commutative()
            .aggregate()
            .shape(InferenceContext::merged),
    )
}

/// `AccumulateNV2`
pub(crate) fn accumulate_n_v2() -> OpDefinition {
    with_kernels(
        OpDefinition::new(
            "AccumulateNV2",
            "The sum of tensors of one shape that is known beforehand.",
        )
        .input("inputs: N * T")
        .output("sum: T")
        .attr("N: int >= 1")
        .attr("T: numbertype")
        .attr("shape: shape")
        .commutative()
        .aggregate()
        .shape(|context| {
            let mut shape: PartialShape = context.attr("shape")?;
            for input in context.inputs() {
                shape = shape.merge(input)?;
            }
            context.set_output(0, shape);
            Ok(())
        }),
    )
}

/// A sum of many about to be made; see [`add_n`] and [`accumulate_n`].
#[must_use = "an operation is made by `build`"]
pub struct AddN {
    inputs: Operand,
    op: &'static str,
    name: Option<String>,
}

impl AddN {
    /// Names the operation.
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.name = Some(name.into());
        self
    }

    /// Makes the operation. The sum of one tensor is that tensor, or an `Identity` of it where there is a name.
    ///
    /// # Errors
    /// The operands' own; `InvalidArgument` for an empty list, or for tensors of different shapes or dtypes.
    #[track_caller]
    pub fn build(self) -> Result<Tensor> {
        crate::install();
        let graph = self.inputs.graph().cloned().unwrap_or_else(Graph::current);
        let Operand::List(members) = self.inputs else {
            return match self.inputs {
                Operand::Failed(error) => Err(error.duplicate()),
                _ => Err(Error::invalid_argument("the sum of many takes a list of tensors")),
            };
        };
        let dtype = members.iter().find_map(Operand::dtype);
        let tensors = members
            .iter()
            .map(|member| member.to_tensor(&graph, "Const", dtype))
            .collect::<Result<Vec<_>>>()?;
        match (tensors.as_slice(), self.name) {
            ([], _) => Err(Error::invalid_argument("the sum of many takes at least one tensor")),
            ([one], None) => Ok(one.clone()),
            ([one], Some(name)) => crate::op("Identity").input(one).name(name).build(),
            (_, name) => {
                let mut builder = crate::op(self.op);
                if self.op == "AccumulateNV2" {
                    let mut shape = PartialShape::unknown();
                    for tensor in &tensors {
                        shape = shape.merge(&tensor.shape())?;
                    }
                    builder = builder.attr("shape", shape);
                }
                builder
                    .input(tensors)
                    .name(name.unwrap_or_else(|| self.op.to_owned()))
                    .build()
            }
        }
    }
}

impl IntoOperand for AddN {
    #[track_caller]
    fn into_operand(self) -> Operand {
        self.build().into_operand()
    }
}

/// The sum of a list of tensors of one shape and dtype, element by element.
///
/// ```
/// use graph_ops::{array::constant, math};
/// let x = constant([1.0f32, 2.0]).build()?;
/// let thrice = math::add_n([&x, &x, &x]).name("thrice").build()?;
/// assert_eq!(thrice.shape(), [2].into());
/// # Ok::<(), graph_core::Error>(())
/// ```
pub fn add_n(inputs: impl IntoOperand) -> AddN {
    AddN {
        inputs: inputs.into_operand(),
        op: "AddN",
        name: None,
    }
}

/// The sum of a list of tensors of one shape and dtype, as [`add_n`]; TensorFlow's form that keeps only one of them.
pub fn accumulate_n(inputs: impl IntoOperand) -> AddN {
    AddN {
        op: "AccumulateNV2",
        ..add_n(inputs)
    }
}

#[cfg(test)]
pub(crate) fn cases() -> Vec<crate::testing::Case> {
    use crate::testing::Case;
    let mut cases = vec![
        Case::new("AddN").input([[1.5f32, 2.0]]).expect([[1.5f32, 2.0]]),
        Case::new("AddN")
            .input([0.1f32, 1e8])
            .input([0.2f32, 1.0])
            .input([0.3f32, -1e8])
            .expect([0.1f32 + 0.2 + 0.3, 0.0]),
        Case::new("AddN")
            .input(vec![1.0f32; 70_000])
            .input(vec![2.0f32; 70_000])
            .expect(vec![3.0f32; 70_000]),
        Case::new("AddN")
            .input(Vec::<f64>::new())
            .input(Vec::<f64>::new())
            .expect(Vec::<f64>::new()),
        Case::new("AccumulateNV2")
            .attr("shape", PartialShape::from([2]))
            .input([1i32, 2])
            .input([3i32, 4])
            .expect([4i32, 6]),
    ];
    macro_rules! dtypes {
        ($($one:expr, $three:expr);*) => {
            $(cases.push(Case::new("AddN").input([$one]).input([$one]).input([$one]).expect([$three]));)*
        };
    }
    dtypes!(
        1.0f64, 3.0f64; f16::ONE, f16::from_f32(3.0); bf16::ONE, bf16::from_f32(3.0); 1i8, 3i8; 1i16, 3i16; 1i32, 3i32;
        1i64, 3i64; 200u8, 88u8; 1u16, 3u16; 1u32, 3u32; 1u64, 3u64; Complex::new(1.0f32, 2.0), Complex::new(3.0f32, 6.0);
        Complex::new(1.0f64, 2.0), Complex::new(3.0, 6.0)
    );
    cases
}

#[cfg(test)]
pub(crate) fn gradient_cases() -> Vec<crate::testing::GradientCase> {
    use crate::testing::GradientCase;
    let sum = |case: GradientCase| case.input([0.5f64, 2.0]).input([1.0f64, -1.0]).input([3.0f64, 4.0]);
    vec![
        sum(GradientCase::new("AddN")),
        sum(GradientCase::new("AccumulateNV2").attr("shape", PartialShape::from([2]))),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sum_of_one_is_itself() {
        let graph = Graph::new();
        let _default = graph.as_default();
        let x = crate::array::constant([1.0f32]).build().unwrap();
        assert_eq!(add_n([&x]).build().unwrap(), x);
        assert_eq!(add_n([&x]).name("one").build().unwrap().op().op_type(), "Identity");
        assert_eq!(
            add_n(Vec::<Tensor>::new()).build().unwrap_err().class(),
            "InvalidArgument"
        );
    }
}
