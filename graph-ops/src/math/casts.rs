//! `_Casts`, the engine's own: several tensors of `float` rounded to 16 bits, as mixed precision does with variables.

use std::sync::OnceLock;

use graph_core::accelerator::DeviceAddress;
use graph_core::op::{KernelContext, KernelDefinition, KernelRequest, OpDefinition, Planned};
use graph_core::{DType, Element, PartialShape, Result};
use graph_cuda::{Cuda, Source, arguments};
use half::slice::HalfFloatSliceExt;
use half::{bf16, f16};

use crate::cpu::parallel::{GRAIN, SharedMut, for_each_range};
use crate::cuda::members::Dealt;
use crate::cuda::type_name;
use crate::cuda::window::joined_source;

const SOURCE: Source = joined_source!("casts.cu": "../cuda/members.cuh", "casts.cu");

/// `_Casts`: each tensor rounded to the nearest of the type of 16 bits, ties to even.
pub(crate) fn definition() -> &'static OpDefinition {
    static DEFINITION: OnceLock<OpDefinition> = OnceLock::new();
    DEFINITION.get_or_init(|| {
        OpDefinition::new("_Casts", "Tensors of float rounded to 16 bits.")
            .input("x: N * float")
            .output("y: N * T")
            .attr("N: int >= 1")
            .attr("T: {half, bfloat16}")
            .attr("shapes: list(shape)")
            .not_differentiable()
            .shape(|context| {
                let shapes: Vec<PartialShape> = context.attr("shapes")?;
                for (slot, shape) in shapes.into_iter().enumerate() {
                    context.set_output(slot, shape);
                }
                Ok(())
            })
            .kernel(KernelDefinition::direct(kernel::<f16>).types("T", &[DType::Half]))
            .kernel(KernelDefinition::direct(kernel::<bf16>).types("T", &[DType::BFloat16]))
            .kernel(KernelDefinition::cuda(on_device).types("T", &[DType::Half, DType::BFloat16]))
    })
}

fn kernel<T: Element>(context: &mut KernelContext<'_>) -> Result<()>
where
    [T]: HalfFloatSliceExt,
{
    for index in 0..context.num_inputs() {
        let to = SharedMut::new(context.output::<T>(index)?);
        let from = context.input::<f32>(index)?;
        for_each_range(from.len(), GRAIN, |range| {
            // SAFETY: the output has the input's elements, and each task its own range of them.
            unsafe { to.slice(range.clone()) }.convert_from_f32_slice(&from[range]);
        });
    }
    Ok(())
}

/// The most tensors of one kernel.
const TENSORS: usize = 64;

/// A tensor, as the kernel takes it.
#[repr(C)]
#[derive(Clone, Copy)]
struct Tensor {
    from: DeviceAddress,
    to: DeviceAddress,
    n: i64,
    /// The first of its blocks of threads.
    block: i64,
}

fn on_device(request: &KernelRequest<'_>) -> Result<Planned> {
    let lengths: Vec<usize> = request.input_shapes.iter().map(|shape| shape.num_elements()).collect();
    let cuda = Cuda::of(request)?;
    let function = cuda.function(&SOURCE, "casts", &[("T", type_name(request.output_dtype(0))?)])?;
    Ok(Planned::new(move |context| {
        for (part, lengths) in lengths.chunks(TENSORS).enumerate() {
            // Enough elements for a thread that most of its time is theirs.
            let dealt = Dealt::new(&function, lengths.iter().copied(), 4);
            let tensor = |at: usize| Tensor {
                from: context.input_address(part * TENSORS + at),
                to: context.output_address(part * TENSORS + at),
                n: lengths[at] as i64,
                block: dealt.first[at],
            };
            let tensors: [Tensor; TENSORS] = std::array::from_fn(|at| tensor(at.min(lengths.len() - 1)));
            let bytes = lengths.iter().sum::<usize>() * (size_of::<f32>() + size_of::<f16>());
            let (grid, threads) = dealt.grid();
            let function = function.clone().moving(bytes);
            // SAFETY: these are the kernel's parameters; inputs and outputs have as many elements as they say.
            unsafe { function.launch(grid, threads, arguments![tensors, lengths.len() as i32]) }?;
        }
        Ok(())
    }))
}
