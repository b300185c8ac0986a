//! The generator that a random op keeps in its session, and what random ops share.

use std::hash::{BuildHasher, RandomState};

use graph_core::op::{Attributes, InferenceContext, KernelRequest, KernelState};
use graph_core::{Error, Result, Shape, Value};

use crate::cpu::philox::{Key, Philox};
use crate::cpu::random::RESERVED_BLOCKS_PER_ELEMENT;

/// A generator that moves on with each run.
pub(crate) struct Generator(Philox);

impl Generator {
    /// The state of a node.
    pub(crate) fn state(attrs: &Attributes) -> Result<Box<dyn KernelState>> {
        Ok(Box::new(Self::of(attrs)?))
    }

    /// The generator of a node, from its attributes `seed` and `seed2`; anywhere where both are 0.
    pub(crate) fn of(attrs: &Attributes) -> Result<Self> {
        let (seed, seed2): (i64, i64) = (attrs.read("seed")?, attrs.read("seed2")?);
        let (seed, seed2) = if (seed, seed2) == (0, 0) {
            (from_entropy(), from_entropy())
        } else {
            (seed as u64, seed2 as u64)
        };
        Ok(Self::new(Key::from_seeds(seed, seed2)))
    }

    /// A generator at the beginning of a stream.
    pub(crate) fn new(key: Key) -> Self {
        Self(Philox::new(key))
    }

    /// The generator's place now; it moves on by `blocks`.
    pub(crate) fn reserve(&mut self, blocks: u128) -> Philox {
        let here = self.0;
        self.0.skip(blocks);
        here
    }

    /// The generator's place now; it moves on as a run that fills `elements` does.
    pub(crate) fn reserve_elements(&mut self, elements: usize) -> Philox {
        self.reserve(elements as u128 * RESERVED_BLOCKS_PER_ELEMENT)
    }
}

impl Generator {
    /// The key, the lower and the upper half of the counter.
    pub(crate) fn numbers(&self) -> [u64; 3] {
        let Key { key, counter } = self.0.place();
        let key = u64::from(key[0]) | u64::from(key[1]) << 32;
        [key, counter as u64, (counter >> 64) as u64]
    }
}

/// Saved as `uint64` [3]: the key, the lower and the upper half of the counter.
impl KernelState for Generator {
    fn save(&self) -> Value {
        self.numbers().into()
    }

    fn restore(&mut self, saved: &Value) -> Result<()> {
        let &[key, low, high] = saved.as_slice::<u64>()? else {
            return Err(
                Error::invalid_argument("the saved state is not that of a random stream")
                    .expected("3 numbers of 64 bits")
                    .got(saved.shape()),
            );
        };
        self.0 = Philox::new(Key {
            key: [key as u32, (key >> 32) as u32],
            counter: u128::from(high) << 64 | u128::from(low),
        });
        Ok(())
    }
}

/// A number from the operating system's source of randomness, through the standard library's hash keys.
fn from_entropy() -> u64 {
    RandomState::new().hash_one(0)
}

/// Shape function: input 0 holds the dimensions of output 0.
pub(crate) fn shape_of_input(context: &mut InferenceContext<'_>) -> Result<()> {
    let shape = context.shape_from_input(0)?;
    context.set_output(0, shape);
    Ok(())
}

/// Checks that input 0, a plan-time input, holds dimensions.
pub(crate) fn check_dimensions(request: &KernelRequest<'_>) -> Result<()> {
    let dims = request.value(0)?.to_i64_vec()?;
    if let Some(dim) = dims.iter().find(|&&dim| dim < 0) {
        return Err(Error::invalid_argument("a dimension is negative").got(format!("{dim} in the shape {dims:?}")));
    }
    let shape: Shape = dims.iter().map(|&dim| dim as usize).collect();
    match shape.checked_num_elements() {
        Some(_) => Ok(()),
        None => Err(Error::invalid_argument("the shape has too many elements").got(shape)),
    }
}
