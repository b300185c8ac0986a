//! Chains of element-wise operations (`chain.cu`): their kernels' text is made of the instructions that the CPU follows.

use std::fmt::Write;

use graph_core::accelerator::DeviceAddress;
use graph_core::op::KernelRequest;
use graph_core::{DType, Error, Result};
use graph_cuda::{Cuda, Function, Source, arguments};

use super::window::{compute_size, joined_source};
use super::{NOWHERE, type_name};
use crate::cpu::chain::{Function as Operation, Instruction, Layout, Operand, Precision};

const SOURCE: Source = joined_source!("chain.cu": "chain.cuh", "chain.cu");

/// The most operands of a chain, and the most dimensions of a result, once neighbours are merged.
const OPERANDS: usize = 16;
const MOST: usize = 8;

impl Operation {
    /// What it computes of `x`, `y` and `z`, of the type `A`, in CUDA C.
    fn expression(self) -> &'static str {
        match self {
            Self::Add => "x + y",
            Self::Sub => "x - y",
            Self::Mul => "x * y",
            Self::Div => "x / y",
            Self::Maximum => "is_nan(y) ? y : x < y ? y : x",
            Self::Minimum => "is_nan(y) ? y : y < x ? y : x",
            Self::SquaredDifference => "(x - y) * (x - y)",
            Self::ReluGrad => "x * (y > A(0) ? A(1) : A(0))",
            Self::TanhGrad => "y * (A(1) - x * x)",
            Self::SigmoidGrad => "y * x * (A(1) - x)",
            Self::Greater => "x > y ? A(1) : A(0)",
            Self::GreaterEqual => "x >= y ? A(1) : A(0)",
            Self::Less => "x < y ? A(1) : A(0)",
            Self::LessEqual => "x <= y ? A(1) : A(0)",
            Self::Equal => "x == y ? A(1) : A(0)",
            Self::NotEqual => "x != y ? A(1) : A(0)",
            Self::Select => "x != A(0) ? y : z",
            Self::Identity => "x",
            Self::Neg => "-x",
            Self::Abs => "abs(x)",
            Self::Sign => "is_nan(x) ? x : x > A(0) ? A(1) : x < A(0) ? A(-1) : A(0)",
            Self::Square => "x * x",
            Self::Sqrt => "sqrt(x)",
            Self::Rsqrt => "A(1) / sqrt(x)",
            Self::Reciprocal => "A(1) / x",
            Self::Relu => "x > A(0) || is_nan(x) ? x : A(0)",
            Self::Exp => "exp(x)",
            Self::Log => "log(x)",
            Self::Tanh => "tanh(x)",
            Self::Sigmoid => "(x < A(0) ? exp(-abs(x)) : A(1)) / (A(1) + exp(-abs(x)))",
        }
    }
}

/// The addresses of a chain's operands, as kernels take them.
#[repr(C)]
#[derive(Clone, Copy)]
pub(crate) struct Operands([DeviceAddress; OPERANDS]);

impl Operands {
    /// Of at most 16; what is more is left out.
    pub(crate) fn new(addresses: impl Iterator<Item = DeviceAddress>) -> Self {
        let mut operands = Self([NOWHERE; OPERANDS]);
        operands.0.iter_mut().zip(addresses).for_each(|(to, from)| *to = from);
        operands
    }
}

/// The result's dimensions and the strides of operands that are broadcast, as kernels take them.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub(crate) struct Strides {
    rank: i64,
    sizes: [i64; MOST],
    of: [[i64; MOST]; OPERANDS],
}

impl Strides {
    /// # Errors
    /// `Unimplemented` for more dimensions than kernels have room for.
    fn new(operands: &[Operand]) -> Result<Self> {
        let strided: Vec<&Vec<(usize, usize)>> = operands
            .iter()
            .filter_map(|operand| match &operand.layout {
                Layout::Strided(axes) => Some(axes),
                _ => None,
            })
            .collect();
        let mut merged: Vec<(usize, Vec<usize>)> = Vec::new();
        for axis in 0..strided.first().map_or(0, |axes| axes.len()) {
            let size = strided[0][axis].0;
            let strides: Vec<usize> = strided.iter().map(|axes| axes[axis].1).collect();
            match merged.last_mut() {
                _ if size == 1 => {}
                Some((len, last)) if last.iter().zip(&strides).all(|(&last, &stride)| last == stride * size) => {
                    (*len, *last) = (*len * size, strides);
                }
                _ => merged.push((size, strides)),
            }
        }
        if merged.len() > MOST {
            return Err(Error::unimplemented(format!(
                "operands that are repeated along more than {MOST} dimensions in turn"
            )));
        }
        let mut result = Self {
            rank: merged.len() as i64,
            sizes: [1; MOST],
            of: [[0; MOST]; OPERANDS],
        };
        for (at, (size, strides)) in merged.into_iter().enumerate() {
            result.sizes[at] = size as i64;
            for (of, stride) in result.of.iter_mut().zip(strides) {
                of[at] = stride as i64;
            }
        }
        Ok(result)
    }
}

/// Chains over the same operands, as text.
pub(crate) struct Text {
    type_name: &'static str,
    operands: String,
    strided: String,
    results: String,
    loads: String,
    body: String,
    pub(crate) strides: Strides,
}

impl Text {
    /// Of chains over these operands whose results are of `dtype`.
    ///
    /// # Errors
    /// `Internal` for an instruction that uses a value which is not there yet, `Unimplemented` for more operands or dimensions
    /// than kernels have room for.
    pub(crate) fn new(dtype: DType, chain_operands: &[Operand], chains: &[Vec<Instruction>]) -> Result<Self> {
        let count = chain_operands.len();
        if count > OPERANDS {
            return Err(Error::unimplemented(format!(
                "a chain of more than {OPERANDS} operands"
            )));
        }
        let (mut loads, mut strided) = (String::new(), 0);
        for (index, Operand { layout, precision }) in chain_operands.iter().enumerate() {
            let place = match layout {
                Layout::Whole => "i".to_owned(),
                Layout::Scalar => "0".to_owned(),
                Layout::Strided(_) => {
                    strided += 1;
                    format!("at[{}]", strided - 1)
                }
            };
            let stored = stored_as(*precision);
            let _ = write!(loads, "v[{index}] = A(((const {stored}*)o[{index}])[{place}]); ");
        }
        let mut body = String::new();
        for (number, instructions) in chains.iter().enumerate() {
            body.push_str("{ ");
            for (index, instruction) in instructions.iter().enumerate() {
                let Instruction {
                    function,
                    operands,
                    precision,
                } = instruction;
                if operands.iter().any(|&operand| operand >= count + index) {
                    return Err(broken());
                }
                let [x, y, z] = operands.map(|operand| match operand.checked_sub(count) {
                    None => format!("v[{operand}]"),
                    Some(result) => format!("t{result}"),
                });
                let (expression, stored) = (function.expression(), stored_as(*precision));
                let _ = write!(
                    body,
                    "A t{index}; {{ const A x = {x}, y = {y}, z = {z}; t{index} = A({stored}({expression})); }} "
                );
            }
            let last = instructions.len().checked_sub(1).ok_or_else(broken)?;
            let _ = write!(body, "r[{number}] = t{last}; }} ");
        }
        Ok(Self {
            type_name: type_name(dtype)?,
            operands: count.to_string(),
            strided: strided.to_string(),
            results: chains.len().to_string(),
            loads,
            body,
            strides: Strides::new(chain_operands)?,
        })
    }

    /// What kernels want to be defined.
    pub(crate) fn defines(&self) -> [(&str, &str); 6] {
        [
            ("T", self.type_name),
            ("OPERANDS", &self.operands),
            ("STRIDED", &self.strided),
            ("RESULTS", &self.results),
            ("LOADS", &self.loads),
            ("BODY", &self.body),
        ]
    }
}

fn broken() -> Error {
    Error::internal("a chain of element-wise operations is broken")
}

/// The type that a value is stored as, or would be.
fn stored_as(precision: Precision) -> &'static str {
    match precision {
        Precision::Full => "A",
        Precision::Half => "f16",
        Precision::BFloat16 => "bf16",
    }
}

/// A chain that is ready to be given to the device.
pub(crate) struct Chain {
    function: Function,
    strides: Strides,
    len: usize,
}

impl Chain {
    /// Of `len` elements; the result is of `dtype`.
    ///
    /// # Errors
    /// Those of [`Text::new`].
    pub(crate) fn new(
        request: &KernelRequest<'_>,
        dtype: DType,
        operands: &[Operand],
        instructions: Vec<Instruction>,
        len: usize,
    ) -> Result<Self> {
        let text = Text::new(dtype, operands, &[instructions])?;
        Ok(Self {
            function: Cuda::of(request)?.function(&SOURCE, "chain", &text.defines())?,
            strides: text.strides,
            len,
        })
    }

    /// # Errors
    /// The device's.
    ///
    /// # Safety
    /// The operands have the elements that their layouts say, and `out` has `len` of the dtype. It may lie over a whole operand of
    /// the dtype.
    pub(crate) unsafe fn run(&self, operands: Operands, out: DeviceAddress) -> Result<()> {
        // A thread takes four elements at a time.
        // SAFETY: these are the kernel's parameters; the caller's promise is of the addresses.
        unsafe {
            self.function.launch_over(
                self.len.div_ceil(4),
                arguments![out, operands, self.strides, self.len as i64],
            )
        }
    }
}

/// Where sums go, and what they are multiplied with, as the kernel takes them.
#[repr(C)]
#[derive(Clone, Copy)]
struct Totals {
    of: [DeviceAddress; OPERANDS],
    scales: [f64; OPERANDS],
}

/// The sums of the elements of chains over the same operands.
pub(crate) struct Sums {
    function: Function,
    finish: Function,
    strides: Strides,
    scales: Vec<f64>,
    len: usize,
    blocks: usize,
    size: usize,
}

/// Threads of a block.
const THREADS: usize = 256;

impl Sums {
    /// Of chains of `len` elements, each sum times its scale.
    ///
    /// # Errors
    /// Those of [`Text::new`].
    pub(crate) fn new(
        request: &KernelRequest<'_>,
        dtype: DType,
        operands: &[Operand],
        chains: &[Vec<Instruction>],
        scales: Vec<f64>,
        len: usize,
    ) -> Result<Self> {
        let text = Text::new(dtype, operands, chains)?;
        let (cuda, defines) = (Cuda::of(request)?, text.defines());
        // By the length alone, so that the order of a sum does not depend on the device.
        let blocks = len.div_ceil(THREADS * 16).clamp(1, 1024);
        let (count, size) = (chains.len(), compute_size(dtype));
        // Each element is calculated and added.
        let operations = chains.iter().map(|chain| chain.len() + 1).sum::<usize>() * len;
        let (function, finish) = (
            cuda.function(&SOURCE, "chain_sums", &defines)?,
            cuda.function(&SOURCE, "finish_sums", &defines)?,
        );
        let finished = count.min(OPERANDS);
        Ok(Self {
            function: function
                .moving(request.input_bytes() + count * blocks * size)
                .doing(operations),
            finish: finish.moving(finished * (blocks + 1) * size).doing(finished * blocks),
            strides: text.strides,
            scales,
            len,
            blocks,
            size,
        })
    }

    /// Bytes of scratch memory that it wants.
    pub(crate) fn scratch(&self) -> usize {
        self.scales.len() * self.blocks * self.size
    }

    /// # Errors
    /// The device's.
    ///
    /// # Safety
    /// The operands have the elements that their layouts say; there are as many `outs`, of one element of the dtype, as chains;
    /// there is as much scratch memory as [`Sums::scratch`] says.
    pub(crate) unsafe fn run(&self, operands: Operands, outs: &[DeviceAddress], scratch: DeviceAddress) -> Result<()> {
        let (blocks, threads) = (self.blocks as u32, [THREADS as u32, 1, 1]);
        // SAFETY: these are the kernel's parameters; the caller's promise is of the addresses.
        unsafe {
            self.function.launch(
                [blocks, 1, 1],
                threads,
                arguments![scratch, operands, self.strides, self.len as i64],
            )
        }?;
        for (part, (outs, scales)) in outs.chunks(OPERANDS).zip(self.scales.chunks(OPERANDS)).enumerate() {
            let mut totals = Totals {
                of: [NOWHERE; OPERANDS],
                scales: [1.0; OPERANDS],
            };
            totals.of[..outs.len()].copy_from_slice(outs);
            totals.scales[..scales.len()].copy_from_slice(scales);
            let partial = scratch.offset(part * OPERANDS * self.blocks * self.size);
            let grid = [outs.len().min(scales.len()) as u32, 1, 1];
            // SAFETY: as above.
            unsafe {
                self.finish
                    .launch(grid, threads, arguments![totals, partial, blocks as i32])
            }?;
        }
        Ok(())
    }
}
