//! Kernels of the sources beside ops, all given to the device in one way: the addresses of outputs, of inputs and of scratch
//! memory, then whole numbers, in the order in which the kernel declares them.

use graph_core::Result;
use graph_core::accelerator::DeviceAddress;
use graph_core::op::{KernelContext, KernelRequest, Planned};
use graph_cuda::driver::Argument;
use graph_cuda::{Cuda, Function, Source};
use smallvec::SmallVec;

use super::blocks;

/// How many threads a kernel wants.
#[derive(Clone, Copy)]
pub(crate) enum Work {
    /// One for each of so many elements: a `KERNEL` with a `GRID_LOOP`.
    Elements(usize),
    /// So many blocks of 256, each of which takes every `gridDim.x`-th part of the work: a `BLOCK_KERNEL`.
    Blocks(usize),
}

/// A kernel that is ready to be given to the device.
pub(crate) struct Launch {
    function: Function,
    work: Work,
    structure: Option<Structure>,
    numbers: SmallVec<[i64; 16]>,
}

/// Whole numbers that a kernel takes as one structure of so many.
type Structure = [i64; 24];

impl Launch {
    /// The kernel `name` of a source, and the whole numbers that it takes last, each an `i64`.
    ///
    /// # Errors
    /// The compiler's.
    pub(crate) fn new(
        request: &KernelRequest<'_>,
        source: &Source,
        name: &str,
        defines: &[(&str, &str)],
        work: Work,
        numbers: &[usize],
    ) -> Result<Self> {
        Ok(Self {
            function: Cuda::of(request)?.function(source, name, defines)?,
            work,
            structure: None,
            numbers: numbers.iter().map(|&number| number as i64).collect(),
        })
    }

    /// Says how many bytes the launch moves, where they are not those of the node's inputs and outputs; see [`Function::moving`].
    pub(crate) fn moving(mut self, bytes: usize) -> Self {
        self.function = self.function.moving(bytes);
        self
    }

    /// Says how many operations of arithmetic the launch does; see [`Function::doing`].
    pub(crate) fn doing(mut self, operations: usize) -> Self {
        self.function = self.function.doing(operations);
        self
    }

    /// Has the kernel take a structure of 24 whole numbers before the others; it begins with these, and the rest is zero.
    pub(crate) fn with_structure(mut self, numbers: &[usize]) -> Self {
        self.structure = Some(std::array::from_fn(|at| {
            numbers.get(at).map_or(0, |&number| number as i64)
        }));
        self
    }

    /// Gives the kernel to the device.
    ///
    /// # Errors
    /// The device's.
    ///
    /// # Safety
    /// The addresses are those that the kernel declares, of as many elements as its numbers say.
    pub(crate) unsafe fn run(&self, addresses: impl IntoIterator<Item = DeviceAddress>) -> Result<()> {
        let addresses: SmallVec<[DeviceAddress; 24]> = addresses.into_iter().collect();
        let mut arguments: SmallVec<[Argument<'_>; 40]> = addresses.iter().map(Argument::new).collect();
        arguments.extend(self.structure.as_ref().map(Argument::new));
        arguments.extend(self.numbers.iter().map(Argument::new));
        // SAFETY: the caller's promise.
        unsafe {
            match self.work {
                Work::Elements(count) => self.function.launch_over(count, &arguments),
                Work::Blocks(0) => Ok(()),
                Work::Blocks(count) => self.function.launch(blocks(count), [256, 1, 1], &arguments),
            }
        }
    }

    /// A kernel of this launch alone, which takes all outputs and these inputs.
    pub(crate) fn over(self, inputs: &'static [usize]) -> Planned {
        in_turn(vec![self], inputs)
    }
}

/// A kernel of several launches, one after the other, all of which take all outputs and these inputs.
pub(crate) fn in_turn(launches: Vec<Launch>, inputs: &'static [usize]) -> Planned {
    Planned::new(move |context| {
        for launch in &launches {
            // SAFETY: whoever made the launch did so for the shapes and dtypes of these tensors.
            unsafe { launch.run(tensors(context, inputs))? };
        }
        Ok(())
    })
}

/// The same with scratch memory, whose address comes behind the inputs'.
pub(crate) fn with_scratch(launches: Vec<Launch>, inputs: &'static [usize], bytes: usize) -> Planned {
    let planned = Planned::new(move |context: &mut KernelContext<'_>| {
        for launch in &launches {
            // SAFETY: as above.
            unsafe { launch.run(tensors(context, inputs).chain([context.scratch_address()]))? };
        }
        Ok(())
    });
    planned.with_scratch(bytes)
}

/// The addresses of all outputs and of these inputs.
fn tensors(context: &KernelContext<'_>, inputs: &'static [usize]) -> impl Iterator<Item = DeviceAddress> {
    let outputs = (0..context.num_outputs()).map(|output| context.output_address(output));
    outputs.chain(inputs.iter().map(|&input| context.input_address(input)))
}
