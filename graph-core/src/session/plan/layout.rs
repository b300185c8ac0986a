//! Where the tensors of a plan lie, and the plan that comes of it.

use std::collections::VecDeque;

use rustc_hash::FxHashMap;

use crate::accelerator::{DeviceAddress, DeviceMemory};
use crate::error::Result;
use crate::op::context::Slot;
use crate::session::evaluate::value_slot;
use crate::session::memory::{ArenaPlanner, Block};
use crate::session::placement::Memory;
use crate::session::plan::devices::PARAMETER_ALIGNMENT;
use crate::session::plan::planner::Planner;
use crate::session::plan::{Accelerated, DevicePlan, Place, Plan, Segment, Work};

/// For how many steps memory of an accelerator is left alone after its last use: a step that writes it must wait for those that
/// read it, though they may have nothing else to do with each other.
const REST: usize = 2;

/// An arena for each memory.
struct Arenas {
    host: ArenaPlanner,
    devices: Vec<ArenaPlanner>,
    /// Memory of accelerators that is not used any more: at which step, the device, the block.
    ended: VecDeque<(usize, usize, Block)>,
}

impl Arenas {
    fn of(&mut self, memory: Memory) -> &mut ArenaPlanner {
        match memory {
            Memory::Host => &mut self.host,
            Memory::Device(position) => &mut self.devices[position],
        }
    }

    /// The last use of a block is at this step.
    fn end(&mut self, memory: Memory, block: Block, step: usize) {
        match memory {
            Memory::Host => self.host.release(block),
            Memory::Device(position) => self.ended.push_back((step, position, block)),
        }
    }

    /// What ended long before this step can be used again.
    fn release_before(&mut self, step: usize) {
        while let Some(&(_, position, block)) = self.ended.front().filter(|(end, ..)| end + REST < step) {
            self.ended.pop_front();
            self.devices[position].release(block);
        }
    }
}

impl Planner<'_> {
    /// The plan of what is known of all nodes.
    ///
    /// # Errors
    /// `ResourceExhausted` if an accelerator has no room for constants.
    pub(super) fn finish(mut self) -> Result<Plan> {
        self.host_first();
        let last_use = self.last_uses();
        let fetches = std::mem::take(&mut self.fetches);
        self.fetches.clone_from(&fetches);
        self.snapshot_reads(&last_use, &fetches);
        let last_use = self.last_uses();
        let fetched = self.place_fetches(&fetches);
        let (mut arenas, parameters) = self.place_in_arenas(&last_use);
        let places: Vec<Place> = self
            .places
            .iter()
            .map(|place| place.unwrap_or(Place::Dynamic))
            .collect();
        for (tensor, place) in places.iter().enumerate() {
            let ends =
                *place == Place::Dynamic && last_use[tensor] != usize::MAX && !fetches.contains(&(tensor as u32));
            if let Some(step) = self.steps.get_mut(last_use[tensor]).filter(|_| ends) {
                step.release.push(tensor as u32);
            }
        }
        let mut slots = Vec::with_capacity(places.len());
        for (tensor, place) in places.iter().enumerate() {
            let mut slot = match self.values[tensor].clone().filter(|_| *place == Place::Constant) {
                Some(value) => value_slot(value),
                None => Slot::empty(self.dtypes[tensor], self.shapes[tensor].to_shape().unwrap_or_default()),
            };
            slot.dtype = self.dtypes[tensor];
            slots.push(slot);
        }
        for (slot, &variable) in slots.iter_mut().zip(&self.variables) {
            slot.variable = variable;
        }
        // Elements from which on kernels share out work among threads.
        const MANY: usize = 16 * 1024;
        let is_large = |(slot, memory): (&Slot, &Memory)| *memory == Memory::Host && slot.shape.num_elements() >= MANY;
        let parallel = slots.iter().zip(&self.memory).any(is_large);
        let feeds = self.program.feeds.iter().map(|&feed| self.tensor(feed)).collect();
        let dead = vec![false; self.steps.len()];
        let accelerated = self.accelerated(&mut slots, &mut arenas, parameters)?;
        let mut homes: Vec<(usize, Memory)> = self.homes.into_iter().collect();
        homes.sort_unstable_by_key(|&(variable, _)| variable);
        Ok(Plan {
            steps: self.steps,
            slots,
            places,
            memory: self.memory,
            feeds,
            fetches,
            fetched,
            arena_size: arenas.host.size(),
            arena_base: std::ptr::null_mut(),
            accelerated,
            homes,
            dead,
            loops: self.loops,
            parallel,
        })
    }

    /// What the plan does on accelerators: constants go there now.
    fn accelerated(
        &self,
        slots: &mut [Slot],
        arenas: &mut Arenas,
        parameters: Vec<(usize, usize)>,
    ) -> Result<Option<Box<Accelerated>>> {
        if self.devices.is_empty() {
            return Ok(None);
        }
        let mut residents = Vec::with_capacity(self.constant_copies.len());
        for &(source, copy) in &self.constant_copies {
            let (Some(value), Some(accelerator)) = (
                &self.values[source as usize],
                self.devices.get(self.memory[copy as usize]),
            ) else {
                continue;
            };
            let memory = DeviceMemory::new(accelerator, value.bytes().len())?;
            accelerator.upload(value.bytes(), memory.address())?;
            slots[copy as usize].data = memory.address().0 as *mut u8;
            residents.push(memory);
        }
        let devices = self.devices.accelerators().iter().zip(&arenas.devices).zip(parameters);
        let devices = devices.map(|((accelerator, arena), (offset, bytes))| DevicePlan {
            accelerator: accelerator.clone(),
            arena_size: arena.size(),
            arena_base: DeviceAddress::default(),
            parameters: vec![0; bytes],
            parameters_offset: offset,
        });
        Ok(Some(Box::new(Accelerated {
            devices: devices.collect(),
            feeds: self.feed_copies.clone(),
            _residents: residents,
            segments: self.segments(),
            addresses: Vec::new(),
            same_addresses: false,
            not_recorded: None,
        })))
    }

    /// The longest parts of the schedule that give work to one accelerator and touch nothing on the host.
    fn segments(&self) -> Vec<Segment> {
        let mut segments: Vec<Segment> = Vec::new();
        for (index, step) in self.steps.iter().enumerate() {
            let inside = |tensor: &u32| self.memory[*tensor as usize] == step.memory;
            // What lies at another address in each run cannot be recorded.
            let stays = |tensor: &u32| !matches!(self.places[self.root(*tensor) as usize], Some(Place::Dynamic));
            let recordable = step.is_straight()
                && match step.work {
                    Work::Static(_) | Work::Snapshot | Work::Read { .. } => true,
                    Work::Alias => inside(&step.inputs[0]),
                    Work::Copy => step.inputs.iter().chain(&step.outputs).all(inside),
                    Work::Nothing | Work::Dynamic => false,
                }
                && step.inputs.iter().all(stays);
            let last = segments.last_mut().filter(|last| last.steps.end == index);
            match (step.memory, last) {
                (Memory::Device(device), Some(last)) if recordable && last.device == device => last.steps.end += 1,
                (Memory::Device(device), _) if recordable => segments.push(Segment {
                    steps: index..index + 1,
                    device,
                    turns: Vec::new(),
                    recorded: None,
                }),
                // What only keeps an order interrupts nothing.
                (_, Some(last)) if matches!(step.work, Work::Nothing) && step.guards.is_none() => last.steps.end += 1,
                _ => {}
            }
        }
        for segment in &mut segments {
            let lanes = self.devices.accelerators()[segment.device].lanes().most();
            if lanes > 1 {
                segment.turns = self.turns(segment.steps.clone(), lanes);
            }
        }
        segments
    }

    /// Gives every static fetched tensor a value of its own in each run.
    fn place_fetches(&mut self, fetches: &[u32]) -> Vec<u32> {
        let mut fetched = Vec::new();
        for &fetch in fetches {
            if self.places[fetch as usize].is_none() && self.shapes[fetch as usize].is_fully_defined() {
                self.places[fetch as usize] = Some(Place::Fetched);
                fetched.push(fetch);
            }
        }
        fetched
    }

    /// Lays the remaining tensors and all scratch memory out in the arenas; these, and where in each accelerator's what the
    /// host tells the kernels lies, and how many bytes.
    fn place_in_arenas(&mut self, last_use: &[usize]) -> (Arenas, Vec<(usize, usize)>) {
        let mut arenas = Arenas {
            host: ArenaPlanner::default(),
            devices: self
                .devices
                .accelerators()
                .iter()
                .map(|_| ArenaPlanner::default())
                .collect(),
            ended: VecDeque::new(),
        };
        let mut blocks: FxHashMap<u32, Block> = FxHashMap::default();
        let mut ends: Vec<Vec<u32>> = vec![Vec::new(); self.steps.len()];
        // What is there before the first step.
        let parameters = self.place_parameters();
        let parameters = parameters.into_iter().enumerate().map(|(device, bytes)| {
            let offset = if bytes == 0 {
                0
            } else {
                arenas.devices[device].allocate(bytes).offset
            };
            (offset, bytes)
        });
        let parameters = parameters.collect();
        for (_, copy) in self.feed_copies.clone() {
            let block = arenas.of(self.memory[copy as usize]).allocate(self.bytes(copy));
            self.places[copy as usize] = Some(Place::Arena(block.offset));
            blocks.insert(copy, block);
            if let Some(ends) = ends.get_mut(last_use[copy as usize]) {
                ends.push(copy);
            }
        }
        for index in 0..self.steps.len() {
            arenas.release_before(index);
            let step = &self.steps[index];
            let outputs = step.outputs.clone();
            let in_place = step
                .definition
                .map(|kernel| kernel.in_place.clone())
                .unwrap_or_default();
            let is_static = matches!(step.work, Work::Static(_));
            let mut taken: Vec<u32> = Vec::new();
            for (slot, &output) in outputs.iter().enumerate() {
                if self.places[output as usize].is_some() {
                    continue;
                }
                let bytes = self.bytes(output);
                // An input that ends here, lies in the arena and has the same size can be overwritten.
                let reused = in_place
                    .iter()
                    .filter(|(_, to)| is_static && *to == slot)
                    .find_map(|&(from, _)| {
                        let step = &self.steps[index];
                        let input = self.root(*step.inputs.get(from)?);
                        let others = step.inputs.iter().filter(|&&other| self.root(other) == input).count();
                        let ends_here = last_use[input as usize] == index && others == 1 && !taken.contains(&input);
                        let beside = self.memory[input as usize] == self.memory[output as usize];
                        let fits = bytes > 0 && self.bytes(input) == bytes && beside;
                        (ends_here && fits && blocks.contains_key(&input)).then_some(input)
                    });
                let block = match reused {
                    Some(input) => {
                        taken.push(input);
                        self.steps[index].in_place = true;
                        blocks.remove(&input).expect("found above")
                    }
                    None => arenas.of(self.memory[output as usize]).allocate(bytes),
                };
                self.places[output as usize] = Some(Place::Arena(block.offset));
                blocks.insert(output, block);
                let end = last_use[output as usize];
                if end != usize::MAX {
                    ends[end.max(index)].push(output);
                }
            }
            if let Work::Static(planned) = &self.steps[index].work
                && planned.scratch > 0
            {
                let bytes = planned.scratch;
                let memory = self.steps[index].memory;
                let block = arenas.of(memory).allocate(bytes);
                arenas.end(memory, block, index);
                self.steps[index].scratch = (block.offset, bytes);
            }
            for ended in std::mem::take(&mut ends[index]) {
                if let Some(block) = blocks.remove(&ended) {
                    arenas.end(self.memory[ended as usize], block, index);
                }
            }
        }
        (arenas, parameters)
    }

    /// Lays out what the host tells kernels on accelerators; the bytes for each.
    fn place_parameters(&mut self) -> Vec<usize> {
        let mut bytes = vec![0; self.devices.accelerators().len()];
        for step in &mut self.steps {
            if let (Work::Static(planned), Memory::Device(device)) = (&step.work, step.memory)
                && let Some(parameters) = &planned.parameters
            {
                step.parameters = bytes[device];
                bytes[device] += parameters.bytes.next_multiple_of(PARAMETER_ALIGNMENT);
            }
        }
        bytes
    }

    pub(super) fn bytes(&self, tensor: u32) -> usize {
        let shape = self.shapes[tensor as usize].to_shape();
        let size = self.dtypes[tensor as usize].size().unwrap_or(0);
        shape.map_or(0, |shape| shape.num_elements() * size)
    }
}
