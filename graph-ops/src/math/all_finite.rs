//! `_AllFinite`, the engine's own: whether all elements of some tensors are finite, as loss scales ask of gradients.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};

use graph_core::accelerator::DeviceAddress;
use graph_core::op::{KernelContext, KernelDefinition, KernelRequest, OpDefinition, Planned};
use graph_core::{DType, Element, Error, PartialShape, Result};
use graph_cuda::{Cuda, Function, Source, arguments};
use half::{bf16, f16};
use num_traits::Float;

use crate::cpu::parallel::{GRAIN, for_each_range};
use crate::cpu::simd::multiversion;
use crate::cuda::members::Dealt;
use crate::cuda::type_name;
use crate::cuda::window::joined_source;

const SOURCE: Source = joined_source!("all_finite.cu": "../cuda/members.cuh", "all_finite.cu");

/// The name of the op.
pub(crate) const OP: &str = "_AllFinite";

/// `_AllFinite`: whether all elements of all tensors, of floating-point dtypes, are finite; true where there is none.
pub(crate) fn definition() -> &'static OpDefinition {
    static DEFINITION: OnceLock<OpDefinition> = OnceLock::new();
    DEFINITION.get_or_init(|| {
        OpDefinition::new(OP, "Whether all elements of all tensors are finite.")
            .input("tensors: types")
            .output("finite: bool")
            .attr("types: list(type) >= 1")
            .not_differentiable()
            .shape(|context| {
                context.set_output(0, PartialShape::scalar());
                Ok(())
            })
            .kernel(KernelDefinition::direct(kernel))
            .kernel(KernelDefinition::cuda(on_device))
    })
}

multiversion! {
    fn is_finite[T: Float](elements: &[T]) -> bool {
        // Short sums stay in narrow lanes.
        elements.chunks(128).all(|block| block.iter().map(|x| u8::from(!x.is_finite())).sum::<u8>() == 0)
    }
}

fn look<T: Element + Float>(context: &KernelContext<'_>, index: usize) -> Result<bool> {
    let (elements, finite) = (context.input::<T>(index)?, AtomicBool::new(true));
    for_each_range(elements.len(), GRAIN, |range| {
        if finite.load(Ordering::Relaxed) && !is_finite(&elements[range]) {
            finite.store(false, Ordering::Relaxed);
        }
    });
    Ok(finite.into_inner())
}

fn kernel(context: &mut KernelContext<'_>) -> Result<()> {
    let mut finite = true;
    for index in 0..context.num_inputs() {
        finite = finite
            && match context.input_dtype(index) {
                DType::Float32 => look::<f32>(context, index)?,
                DType::Float64 => look::<f64>(context, index)?,
                DType::Half => look::<f16>(context, index)?,
                DType::BFloat16 => look::<bf16>(context, index)?,
                other => return Err(Error::internal(format!("numbers of {other} that may not be finite"))),
            };
    }
    context.output::<bool>(0)?[0] = finite;
    Ok(())
}

/// The most tensors of one kernel.
const TENSORS: usize = 64;

/// A tensor, as the kernel takes it.
#[repr(C)]
#[derive(Clone, Copy)]
struct Tensor {
    elements: DeviceAddress,
    n: i64,
    /// The first of its blocks of threads.
    block: i64,
}

/// The kernel that looks through tensors of one dtype: which inputs they are, with their lengths.
struct Look {
    function: Function,
    tensors: Vec<(usize, usize)>,
}

impl Look {
    /// # Errors
    /// The device's.
    ///
    /// # Safety
    /// The inputs are those for which the kernel was made.
    unsafe fn run(&self, context: &KernelContext<'_>, out: DeviceAddress) -> Result<()> {
        // Enough elements for a thread that most of its time is theirs.
        let dealt = Dealt::new(&self.function, self.tensors.iter().map(|&(_, len)| len), 4);
        let tensor = |at: usize| {
            let (input, len) = self.tensors[at];
            Tensor {
                elements: context.input_address(input),
                n: len as i64,
                block: dealt.first[at],
            }
        };
        let tensors: [Tensor; TENSORS] = std::array::from_fn(|at| tensor(at.min(self.tensors.len() - 1)));
        let (grid, threads) = dealt.grid();
        // SAFETY: these are the kernel's parameters; the tensors have as many elements as they say.
        unsafe {
            self.function
                .launch(grid, threads, arguments![out, tensors, self.tensors.len() as i32])
        }
    }
}

fn on_device(request: &KernelRequest<'_>) -> Result<Planned> {
    let cuda = Cuda::of(request)?;
    let mut looks: Vec<(DType, Vec<(usize, usize)>)> = Vec::new();
    for (input, &dtype) in request.input_dtypes.iter().enumerate() {
        let len = request.input_shape(input).num_elements();
        let joins = |(other, tensors): &&mut (DType, Vec<_>)| *other == dtype && tensors.len() < TENSORS;
        match looks.iter_mut().find(joins) {
            _ if len == 0 => {}
            Some((_, tensors)) => tensors.push((input, len)),
            None => looks.push((dtype, vec![(input, len)])),
        }
    }
    let make = |(dtype, tensors): (DType, Vec<(usize, usize)>)| {
        let elements: usize = tensors.iter().map(|(_, len)| len).sum();
        let function = cuda.function(&SOURCE, "look", &[("T", type_name(dtype)?)])?;
        Ok(Look {
            function: function.moving(elements * dtype.size().unwrap_or(0)),
            tensors,
        })
    };
    let looks = looks.into_iter().map(make).collect::<Result<Vec<Look>>>()?;
    let set_true = cuda.function(&SOURCE, "set_true", &[("T", "float")])?.moving(1);
    Ok(Planned::new(move |context| {
        let out = context.output_address(0);
        // SAFETY: the result is one truth value, and the kernels were made for these inputs.
        unsafe {
            set_true.launch_over(1, arguments![out])?;
            looks.iter().try_for_each(|look| look.run(context, out))
        }
    }))
}
