//! `MirrorPad` and `MirrorPadGrad`: a border that mirrors the tensor.

use graph_core::op::{InferenceContext, KernelDefinition, KernelRequest, OpDefinition, Planned};
use graph_core::{DType, Dim, Element, Error, PartialShape, Result};
use graph_cuda::{Cuda, Source, arguments, source};

use crate::array::axis::planned_ints;
use crate::array::moving::plan;
use crate::array::pad::{Mode, on_device, pairs, shape as padded_shape};
use crate::array::scatter_nd::Accumulate;
use crate::array::tables::Tables;
use crate::cuda::{NUMBERS, SIZED, type_name};

/// `MirrorPad`
pub(crate) fn definition() -> OpDefinition {
    OpDefinition::new(
        "MirrorPad",
        "A tensor with a border that mirrors it, at its outermost elements or at its edge.",
    )
    .input("input: T")
    .input("paddings: Tpaddings")
    .output("output: T")
    .attr("T: type")
    .attr("Tpaddings: {int32, int64} = DT_INT32")
    .attr("mode: {'REFLECT', 'SYMMETRIC'}")
    .plan_time_inputs(&[1])
    .shape(padded_shape)
    .gradient(|context| {
        let node = context
            .node("MirrorPadGrad")
            .input(context.gradient(0)?)
            .input(context.input(1));
        Ok(vec![
            Some(node.attr("mode", context.attr_value("mode")?).build()?),
            None,
        ])
    })
    .kernel(KernelDefinition::cpu(|request| {
        let shape = request.input_shape(0).to_vec();
        plan(request, [0], mirror(shape, request)?)
    }))
    .kernel(
        KernelDefinition::cuda(|request| {
            let symmetric = request.attr::<String>("mode")? == "SYMMETRIC";
            check_paddings(request.input_shape(0), &pairs(&planned_ints(request, 1)?)?, symmetric)?;
            on_device(request, if symmetric { Mode::Symmetric } else { Mode::Reflect })
        })
        .types("T", SIZED),
    )
}

/// `MirrorPadGrad`
pub(crate) fn grad_definition() -> OpDefinition {
    let definition = OpDefinition::new(
        "MirrorPadGrad",
        "The gradient of MirrorPad: the border's gradients folded back.",
    )
    .input("input: T")
    .input("paddings: Tpaddings")
    .output("output: T")
    .attr("T: type")
    .attr("Tpaddings: {int32, int64} = DT_INT32")
    .attr("mode: {'REFLECT', 'SYMMETRIC'}")
    .plan_time_inputs(&[1])
    .shape(inner_shape)
    .gradient(|context| {
        let node = context
            .node("MirrorPad")
            .input(context.gradient(0)?)
            .input(context.input(1));
        Ok(vec![
            Some(node.attr("mode", context.attr_value("mode")?).build()?),
            None,
        ])
    });
    definition
        .kernel(KernelDefinition::cpu(folding::<f32>).types("T", &[DType::Float32]))
        .kernel(KernelDefinition::cpu(folding::<f64>).types("T", &[DType::Float64]))
        .kernel(KernelDefinition::cpu(folding::<half::f16>).types("T", &[DType::Half]))
        .kernel(KernelDefinition::cpu(folding::<half::bf16>).types("T", &[DType::BFloat16]))
        .kernel(KernelDefinition::cpu(folding::<i32>).types("T", &[DType::Int32]))
        .kernel(KernelDefinition::cpu(folding::<i64>).types("T", &[DType::Int64]))
        .kernel(KernelDefinition::cuda(folding_on_device).types("T", NUMBERS))
}

fn inner_shape(context: &mut InferenceContext<'_>) -> Result<()> {
    let paddings = context.with_rank(1, 2)?;
    let rank = context.input(0).rank().or(paddings.dim(0));
    let Some(rank) = rank else { return Ok(()) };
    let input = context.with_rank(0, rank)?;
    context.merge_dims(
        Some(rank),
        paddings.dim(0),
        "the input's rank and the number of paddings",
    )?;
    let Some(values) = context.int_values(1)? else {
        context.set_output(0, PartialShape::unknown_of_rank(rank));
        return Ok(());
    };
    let dims = pairs(&values)?
        .into_iter()
        .enumerate()
        .map(|(axis, (before, behind))| match input.dim(axis) {
            None => Ok(None),
            Some(dim) => dim.checked_sub(before + behind).map(Some).ok_or_else(|| {
                Error::invalid_argument(format!("dimension {axis} is smaller than its paddings")).got(dim)
            }),
        });
    let dims = dims.collect::<Result<Vec<Dim>>>()?;
    context.set_output(0, PartialShape::from(dims));
    Ok(())
}

/// A border must not be longer than what it mirrors.
fn check_paddings(shape: &[usize], pairs: &[(usize, usize)], symmetric: bool) -> Result<()> {
    for (axis, (&dim, &(before, behind))) in shape.iter().zip(pairs).enumerate() {
        let most = if symmetric { dim } else { dim.saturating_sub(1) };
        if before > most || behind > most {
            return Err(
                Error::invalid_argument(format!("the paddings of dimension {axis} are too large to mirror"))
                    .expected(format!("at most {most}"))
                    .got(before.max(behind)),
            );
        }
    }
    Ok(())
}

/// Where each place of the padded tensor comes from in a tensor of shape `shape`.
fn mirror(shape: Vec<usize>, request: &KernelRequest<'_>) -> Result<Tables> {
    // At the edge the outermost element comes twice, else once.
    let twice = usize::from(request.attr::<String>("mode")? == "SYMMETRIC");
    let pairs = pairs(&planned_ints(request, 1)?)?;
    check_paddings(&shape, &pairs, twice == 1)?;
    let places = shape.iter().zip(pairs).map(|(&dim, (before, behind))| {
        let head = (0..before).rev().map(move |at| at + 1 - twice);
        let tail = (0..behind).map(move |at| dim + twice - 2 - at);
        head.chain(0..dim).chain(tail)
    });
    let places: Vec<_> = places.collect();
    Tables::new(shape, places)
}

/// The most dimensions on a device.
const MOST: usize = 8;

/// Along each axis what `mirror_pad.cu` wants to know.
#[repr(C)]
#[derive(Clone, Copy)]
struct Axes {
    rank: i64,
    size: [i64; MOST],
    before: [i64; MOST],
    behind: [i64; MOST],
    stride: [i64; MOST],
}

fn folding_on_device(request: &KernelRequest<'_>) -> Result<Planned> {
    const SOURCE: Source = source!("mirror_pad.cu");
    let (whole, shape) = (request.input_shape(0), request.output_shape(0)?);
    let twice = i64::from(request.attr::<String>("mode")? == "SYMMETRIC");
    let pairs = pairs(&planned_ints(request, 1)?)?;
    check_paddings(shape, &pairs, twice == 1)?;
    if shape.rank() > MOST {
        return Err(Error::unimplemented(format!(
            "mirrored borders of more than {MOST} dimensions"
        )));
    }
    let strides = crate::cpu::copy::strides(whole);
    let padded = |of: &dyn Fn(usize) -> usize| -> [i64; MOST] {
        std::array::from_fn(|axis| if axis < shape.rank() { of(axis) as i64 } else { 0 })
    };
    let axes = Axes {
        rank: shape.rank() as i64,
        size: padded(&|axis| shape[axis]),
        before: padded(&|axis| pairs[axis].0),
        behind: padded(&|axis| pairs[axis].1),
        stride: padded(&|axis| strides[axis]),
    };
    let function = Cuda::of(request)?.function(&SOURCE, "fold", &[("T", type_name(request.input_dtype(0))?)])?;
    let n = shape.num_elements();
    Ok(Planned::new(move |context| {
        let (input, output) = (context.input_address(0), context.output_address(0));
        // SAFETY: these are the kernel's parameters, which say how many elements each tensor has.
        unsafe { function.launch_over(n, arguments![output, input, n as i64, twice, axes]) }
    }))
}

fn folding<T: Element + Accumulate>(request: &KernelRequest<'_>) -> Result<Planned> {
    let tables = mirror(request.output_shape(0)?.to_vec(), request)?;
    Ok(Planned::new(move |context| {
        let (input, output) = (context.input::<T>(0)?, context.output::<T>(0)?);
        output.fill(T::default());
        tables.for_each(|from, to| output[to] = output[to].plus(input[from]));
        Ok(())
    }))
}

#[cfg(test)]
pub(crate) fn cases() -> Vec<crate::testing::Case> {
    use crate::testing::Case;
    let pad = |mode: &'static str| Case::new("MirrorPad").attr("mode", mode);
    let fold = |mode: &'static str| Case::new("MirrorPadGrad").attr("mode", mode);
    vec![
        pad("REFLECT")
            .input([1i32, 2, 3])
            .input([[2i32, 1]])
            .expect([3i32, 2, 1, 2, 3, 2]),
        pad("SYMMETRIC")
            .input([1i32, 2, 3])
            .input([[2i64, 1]])
            .expect([2i32, 1, 1, 2, 3, 3]),
        pad("SYMMETRIC")
            .input([[1u8, 2]])
            .input([[0i32, 1], [2, 0]])
            .expect([[2u8, 1, 1, 2]; 2]),
        fold("REFLECT")
            .input([1.0f32, 2.0, 3.0, 4.0, 5.0, 6.0])
            .input([[2i32, 1]])
            .expect([3.0f32, 12.0, 6.0]),
        fold("SYMMETRIC")
            .input([1i64, 2, 3, 4, 5, 6])
            .input([[2i32, 1]])
            .expect([5i64, 5, 11]),
    ]
}

#[cfg(test)]
pub(crate) fn gradient_cases() -> Vec<crate::testing::GradientCase> {
    use crate::testing::GradientCase;
    let pad = |mode: &'static str| {
        let case = GradientCase::new("MirrorPad").attr("mode", mode);
        case.input([[1.0f64, 2.0, 3.0], [4.0, 5.0, 6.0]])
            .input([[1i32, 0], [2, 1]])
    };
    let back = |mode: &'static str| {
        let case = GradientCase::new("MirrorPadGrad").attr("mode", mode);
        case.input([[1.0f64, 2.0, 3.0, 7.0], [4.0, 5.0, 6.0, 8.0], [0.5, 1.5, 2.5, 3.5]])
            .input([[1i32, 0], [1, 1]])
    };
    vec![pad("REFLECT"), pad("SYMMETRIC"), back("REFLECT"), back("SYMMETRIC")]
}

#[cfg(test)]
mod tests {
    use crate::testing::Case;

    #[test]
    fn there_is_only_so_much_to_mirror() {
        let pad = |mode: &'static str, behind: i32| {
            Case::new("MirrorPad")
                .attr("mode", mode)
                .input([1.0f32, 2.0])
                .input([[0i32, behind]])
                .run()
        };
        assert!(pad("REFLECT", 1).is_ok());
        assert!(pad("REFLECT", 2).is_err());
        assert!(pad("SYMMETRIC", 2).is_ok());
        assert!(pad("SYMMETRIC", 3).is_err());
        assert!(pad("SYMMETRIC", -1).is_err());
    }
}
