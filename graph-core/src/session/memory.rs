//! The memory plan: where in the arena each tensor of a plan lies, from the step that makes it to the last that reads it.

use std::collections::BTreeMap;

use crate::buffer::ALIGNMENT;

/// A block of the arena.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Block {
    pub(crate) offset: usize,
    pub(crate) size: usize,
}

/// Hands out blocks of an arena that grows as needed, and takes them back. Used while a plan is made, in the order of its
/// steps, so that tensors that do not live together share memory.
#[derive(Default)]
pub(crate) struct ArenaPlanner {
    /// Free blocks by offset, never adjacent.
    free: BTreeMap<usize, usize>,
    size: usize,
}

impl ArenaPlanner {
    /// A block of at least `bytes` bytes: the smallest free one that suffices, else new memory at the end.
    pub(crate) fn allocate(&mut self, bytes: usize) -> Block {
        let size = bytes.next_multiple_of(ALIGNMENT).max(ALIGNMENT);
        let best = self
            .free
            .iter()
            .filter(|(_, free)| **free >= size)
            .min_by_key(|(_, free)| **free);
        if let Some((&offset, &free)) = best {
            self.free.remove(&offset);
            if free > size {
                self.free.insert(offset + size, free - size);
            }
            return Block { offset, size };
        }
        // The last free block may reach to the end: it is extended.
        let offset = match self.free.last_key_value() {
            Some((&offset, &free)) if offset + free == self.size => {
                self.free.remove(&offset);
                offset
            }
            _ => self.size,
        };
        self.size = offset + size;
        Block { offset, size }
    }

    /// Takes a block back.
    pub(crate) fn release(&mut self, block: Block) {
        let (mut offset, mut size) = (block.offset, block.size);
        if let Some(next) = self.free.remove(&(offset + size)) {
            size += next;
        }
        if let Some((&before, &before_size)) = self.free.range(..offset).next_back()
            && before + before_size == offset
        {
            self.free.remove(&before);
            (offset, size) = (before, before_size + size);
        }
        self.free.insert(offset, size);
    }

    /// The bytes that the arena must have.
    pub(crate) fn size(&self) -> usize {
        self.size
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_are_reused_and_joined() {
        let mut planner = ArenaPlanner::default();
        let (a, b, c) = (planner.allocate(100), planner.allocate(64), planner.allocate(64));
        assert_eq!((a.offset, b.offset, c.offset), (0, 128, 192));
        planner.release(a);
        planner.release(b);
        assert_eq!(planner.allocate(192), Block { offset: 0, size: 192 });
        planner.release(c);
        assert_eq!(planner.allocate(128).offset, 192);
        assert_eq!(planner.size(), 320);
    }

    proptest::proptest! {
        #[test]
        fn living_blocks_never_overlap(actions in proptest::collection::vec((0usize..5, 0usize..500), 1..200)) {
            let mut planner = ArenaPlanner::default();
            let mut living: Vec<Block> = Vec::new();
            for (action, bytes) in actions {
                if action == 0 && !living.is_empty() {
                    planner.release(living.swap_remove(bytes % living.len()));
                    continue;
                }
                let block = planner.allocate(bytes);
                assert!(block.size >= bytes && block.offset + block.size <= planner.size());
                for other in &living {
                    assert!(block.offset + block.size <= other.offset || other.offset + other.size <= block.offset);
                }
                living.push(block);
            }
        }
    }
}
