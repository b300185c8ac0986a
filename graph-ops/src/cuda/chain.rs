//! Chains of element-wise operations (`chain.cu`): their kernels' text is made of the instructions that the CPU follows.

use std::fmt::Write;
use std::ops::Range;

use graph_core::accelerator::DeviceAddress;
use graph_core::op::KernelRequest;
use graph_core::{DType, Error, Result};
use graph_cuda::{Cuda, Function, Source, arguments};

use super::window::{compute_size, joined_source};
use super::{NOWHERE, type_name};
use crate::cpu::chain::{Function as Operation, Instruction, Layout, Operand, Precision};

const SOURCE: Source = joined_source!("chain.cu": "members.cuh", "chain.cuh", "chain.cu");

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

    /// Whether some operands are broadcast, and need the strides.
    pub(crate) fn is_strided(&self) -> bool {
        self.strided != "0"
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

/// A set of operands that sums are taken over, as the kernel for several takes it.
#[repr(C)]
#[derive(Clone, Copy)]
struct Set {
    operands: Operands,
    n: i64,
    /// The first of its blocks of threads.
    block: i64,
}

/// A sum, as the kernel that finishes it takes it.
#[repr(C)]
#[derive(Clone, Copy)]
struct Total {
    to: DeviceAddress,
    scale: f64,
    /// The first of its blocks of threads, and how many there are.
    begin: i64,
    count: i32,
    /// Which of the chains it is of.
    result: i32,
}

/// How many sets, and how many sums, a kernel takes.
const TOGETHER: usize = 16;

/// The sums of the elements of chains, over one set of operands or over several.
pub(crate) struct Sums {
    /// Kernels, and which of the sets they take: several, or one whose operands may be broadcast.
    launches: Vec<(Function, Range<usize>, Option<Box<Strides>>)>,
    finish: Function,
    /// For each set its elements and the first of its blocks.
    sets: Vec<(usize, usize)>,
    scales: Vec<f64>,
    blocks: usize,
    chains: usize,
    size: usize,
}

/// Threads of a block.
const THREADS: usize = 256;

/// How many blocks sum over `len` elements: by the length alone, so that the order of a sum does not depend on the device.
fn blocks_of(len: usize) -> usize {
    len.div_ceil(THREADS * 16).clamp(1, 1024)
}

impl Sums {
    /// Of the same chains over sets of operands, each of as many elements as stands beside it; each sum times its scale, those of a
    /// set together.
    ///
    /// # Errors
    /// Those of [`Text::new`].
    pub(crate) fn new(
        request: &KernelRequest<'_>,
        dtype: DType,
        sets: &[(&[Operand], usize)],
        chains: &[Vec<Instruction>],
        scales: Vec<f64>,
    ) -> Result<Self> {
        let (cuda, size) = (Cuda::of(request)?, compute_size(dtype));
        let (mut launches, mut firsts, mut blocks) = (Vec::new(), Vec::with_capacity(sets.len()), 0);
        // Each element is calculated and added.
        let operations = chains.iter().map(|chain| chain.len() + 1).sum::<usize>();
        let texts = sets.iter().map(|(operands, _)| Text::new(dtype, operands, chains));
        let texts = texts.collect::<Result<Vec<_>>>()?;
        let mut begin = 0;
        while begin < sets.len() {
            let text = &texts[begin];
            let same = |other: &Text| !text.is_strided() && other.defines() == text.defines();
            let others = texts[begin + 1..]
                .iter()
                .take(TOGETHER - 1)
                .take_while(|other| same(other));
            let range = begin..begin + 1 + others.count();
            begin = range.end;
            let (mut moved, mut elements, before) = (0, 0, blocks);
            for (operands, len) in &sets[range.clone()] {
                firsts.push((*len, blocks));
                blocks += blocks_of(*len);
                elements += len;
                // What is broadcast is little.
                moved += operands.len() * len * dtype.size().unwrap_or(0);
            }
            let alone = range.len() == 1;
            let name = if alone { "chain_sums" } else { "chain_sums_of_sets" };
            let function = cuda.function(&SOURCE, name, &text.defines())?;
            let function = function
                .moving(moved + chains.len() * (blocks - before) * size)
                .doing(operations * elements);
            launches.push((function, range, alone.then(|| Box::new(text.strides))));
        }
        let text = texts.first().ok_or_else(broken)?;
        let finish = cuda.function(&SOURCE, "finish_sums", &text.defines())?;
        let finished = scales.len().min(TOGETHER);
        let each = blocks.div_ceil(sets.len().max(1));
        Ok(Self {
            launches,
            finish: finish.moving(finished * (each + 1) * size).doing(finished * each),
            sets: firsts,
            scales,
            blocks,
            chains: chains.len(),
            size,
        })
    }

    /// Bytes of scratch memory that it wants.
    pub(crate) fn scratch(&self) -> usize {
        self.chains * self.blocks * self.size
    }

    /// # Errors
    /// The device's.
    ///
    /// # Safety
    /// The operands of each set have the elements that their layouts say; there are as many `outs`, of one element of the dtype, as
    /// chains for each set; there is as much scratch memory as [`Sums::scratch`] says.
    pub(crate) unsafe fn run(&self, sets: &[Operands], outs: &[DeviceAddress], scratch: DeviceAddress) -> Result<()> {
        let threads = [THREADS as u32, 1, 1];
        for (function, range, strides) in &self.launches {
            let first = self.sets[range.start].1;
            let end = self.sets.get(range.end).map_or(self.blocks, |&(_, block)| block);
            let (grid, partial) = (
                [(end - first) as u32, 1, 1],
                scratch.offset(first * self.chains * self.size),
            );
            if let Some(strides) = strides {
                let len = self.sets[range.start].0 as i64;
                // SAFETY: these are the parameters of `chain_sums`; the caller's promise is of the addresses.
                unsafe { function.launch(grid, threads, arguments![partial, sets[range.start], **strides, len]) }?;
                continue;
            }
            let set = |at: usize| {
                let (len, block) = self.sets[at];
                Set {
                    operands: sets[at],
                    n: len as i64,
                    block: (block - first) as i64,
                }
            };
            let all: [Set; TOGETHER] = std::array::from_fn(|at| set((range.start + at).min(range.end - 1)));
            // SAFETY: as above, of `chain_sums_of_sets`.
            unsafe { function.launch(grid, threads, arguments![partial, all, range.len() as i32]) }?;
        }
        let total = |at: usize| {
            let (set, result) = (at / self.chains, at % self.chains);
            let (len, block) = self.sets[set];
            Total {
                to: outs[at],
                scale: self.scales[at],
                begin: block as i64,
                count: blocks_of(len) as i32,
                result: result as i32,
            }
        };
        let count = outs.len().min(self.scales.len());
        for begin in (0..count).step_by(TOGETHER) {
            let end = count.min(begin + TOGETHER);
            let all: [Total; TOGETHER] = std::array::from_fn(|at| total((begin + at).min(end - 1)));
            let grid = [(end - begin) as u32, 1, 1];
            // SAFETY: these are the parameters of `finish_sums`, with a block for each of the totals.
            unsafe { self.finish.launch(grid, threads, arguments![all, scratch]) }?;
        }
        Ok(())
    }
}
