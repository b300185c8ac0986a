//! Which steps of a recorded part run side by side.
//!
//! Recorded work need not run in the order of the schedule. Of two steps the later must wait for the earlier only if one of them
//! writes what the other reads or writes: a part of the arena, a variable, a kernel's state. All other pairs may run in any order,
//! or at once, and give the same bits. So the steps are dealt out to a few lanes, as a list schedule does it: in their order, each
//! to the lane where it can begin first. What a step takes is guessed, as the time between two kernels and the time to move its
//! tensors; of two that wait for the same step, the one with the longer way to the end follows it in its lane.

use std::ops::Range;

use rustc_hash::FxHashMap;

use crate::session::placement::Memory;
use crate::session::plan::planner::Planner;
use crate::session::plan::{Place, Turn, Work};
use crate::session::structure::{input_args, updates};

/// What a device could move in the time between two kernels, and in the time by which one begins later that waits for another
/// lane, in bytes: some 1.2 and 0.8 microseconds of 3.5 TB/s. They decide of no result, and on a device on which they are wrong,
/// of which order is faster.
const BETWEEN_KERNELS: usize = 4 << 20;
const BETWEEN_LANES: usize = 3 << 20;

/// What two steps may want both.
#[derive(Debug)]
enum Resource {
    /// Bytes of the arena.
    Arena(Range<usize>),
    Variable(usize),
    State(usize),
}

/// What a step reads and writes. One that refers to a variable of which only the run tells which it is may touch all.
#[derive(Default, Debug)]
struct Touched {
    reads: Vec<Resource>,
    writes: Vec<Resource>,
    anything: bool,
    /// Bytes of all tensors.
    bytes: usize,
}

/// Who touched something last.
#[derive(Default)]
struct History {
    writer: Option<usize>,
    readers: Vec<usize>,
}

impl History {
    fn read(&mut self, step: usize, before: &mut Vec<usize>) {
        before.extend(self.writer);
        self.readers.push(step);
    }

    fn write(&mut self, step: usize, before: &mut Vec<usize>) {
        before.extend(self.writer.replace(step));
        before.append(&mut self.readers);
    }
}

impl Planner<'_> {
    /// Deals these steps out to at most so many lanes; nothing where one lane is as good.
    pub(super) fn turns(&self, steps: Range<usize>, lanes: usize) -> Vec<Option<Turn>> {
        let touched: Vec<Option<Touched>> = steps.clone().map(|index| self.touched(index)).collect();
        let turns = deal(&touched, &waits(&touched), lanes);
        match turns.iter().flatten().any(|turn| turn.lane > 0) {
            true => turns,
            false => Vec::new(),
        }
    }

    /// What the step has its device do; `None` if nothing.
    fn touched(&self, index: usize) -> Option<Touched> {
        let step = &self.steps[index];
        match step.work {
            Work::Nothing | Work::Alias | Work::Read { copy: false } => return None,
            Work::Static(_) | Work::Dynamic | Work::Copy | Work::Snapshot | Work::Read { copy: true } => {}
        }
        let mut touched = Touched::default();
        for &input in &step.inputs {
            self.add(input, &mut touched, |touched| &mut touched.reads);
        }
        for &output in &step.outputs {
            self.add(output, &mut touched, |touched| &mut touched.writes);
        }
        if !matches!(step.work, Work::Copy) {
            let node = self.program.node(step.node);
            for ((arg, id), &input) in input_args(node).zip(&node.inputs).zip(&step.inputs) {
                if updates(self.program, node, arg, *id) {
                    match self.variables[input as usize] {
                        Some(variable) => touched.writes.push(Resource::Variable(variable)),
                        None => touched.anything = true,
                    }
                }
            }
        }
        let (offset, bytes) = step.scratch;
        touched.writes.push(Resource::Arena(offset..offset + bytes));
        touched.writes.extend(step.state.map(Resource::State));
        Some(touched)
    }

    /// Adds where a tensor lies to what a step touches.
    fn add(&self, tensor: u32, touched: &mut Touched, list: fn(&mut Touched) -> &mut Vec<Resource>) {
        let root = self.root(tensor);
        if self.memory[root as usize] == Memory::Host {
            return;
        }
        let bytes = self.bytes(root);
        touched.bytes += bytes;
        match self.places[root as usize] {
            Some(Place::Arena(offset)) => list(touched).push(Resource::Arena(offset..offset + bytes)),
            Some(Place::Variable) => match self.variable_of(root) {
                Some(variable) => list(touched).push(Resource::Variable(variable)),
                None => touched.anything = true,
            },
            Some(Place::Resident | Place::Constant | Place::Feed(_)) => {}
            Some(Place::Fetched | Place::Dynamic | Place::Alias(_)) | None => touched.anything = true,
        }
    }

    /// The variable in whose memory a tensor lies: its own, or the one that a handle names whose value was read.
    fn variable_of(&self, tensor: u32) -> Option<usize> {
        self.variables[tensor as usize].or_else(|| {
            let read = self.steps.iter().find(|step| step.outputs.contains(&tensor))?;
            self.variables[read.inputs[0] as usize]
        })
    }
}

/// For which earlier steps each must wait.
fn waits(touched: &[Option<Touched>]) -> Vec<Vec<usize>> {
    let all = || {
        touched
            .iter()
            .flatten()
            .flat_map(|touched| touched.reads.iter().chain(&touched.writes))
    };
    // Between two neighbouring bounds, whoever touches a byte of the arena touches all.
    let mut bounds: Vec<usize> = all()
        .filter_map(|resource| match resource {
            Resource::Arena(range) => Some([range.start, range.end]),
            _ => None,
        })
        .flatten()
        .collect();
    bounds.sort_unstable();
    bounds.dedup();
    let mut arena: Vec<History> = bounds.iter().map(|_| History::default()).collect();
    let mut variables: FxHashMap<usize, History> = FxHashMap::default();
    let mut states: FxHashMap<usize, History> = FxHashMap::default();
    let mut last_of_all: Option<usize> = None;
    let mut waits = Vec::with_capacity(touched.len());
    let does_something = |step: &usize| touched[*step].is_some();
    for (step, touched) in touched.iter().enumerate() {
        let mut before: Vec<usize> = Vec::new();
        if let Some(touched) = touched {
            before.extend(last_of_all);
            let mut visit = |resources: &[Resource], visit: fn(&mut History, usize, &mut Vec<usize>)| {
                for resource in resources {
                    match resource {
                        Resource::Arena(range) => {
                            let [from, to] =
                                [range.start, range.end].map(|bound| bounds.partition_point(|&b| b < bound));
                            for history in &mut arena[from..to] {
                                visit(history, step, &mut before);
                            }
                        }
                        Resource::Variable(index) => visit(variables.entry(*index).or_default(), step, &mut before),
                        Resource::State(index) => visit(states.entry(*index).or_default(), step, &mut before),
                    }
                }
            };
            visit(&touched.reads, History::read);
            visit(&touched.writes, History::write);
            if touched.anything {
                before.extend((0..step).filter(does_something));
                last_of_all = Some(step);
            }
        }
        before.retain(|&other| other != step);
        before.sort_unstable();
        before.dedup();
        waits.push(before);
    }
    waits
}

/// A lane while steps are dealt out.
#[derive(Clone)]
struct Lane {
    /// When its last step ends.
    end: usize,
    /// Its last step.
    last: Option<usize>,
    /// The last step of each lane, and one, that is done before the next of this lane begins.
    known: Vec<usize>,
}

/// How long a step takes, in bytes.
fn cost(touched: &Touched) -> usize {
    BETWEEN_KERNELS + touched.bytes
}

/// For each step, which of those that wait for it has the longest way to the end.
fn heirs(touched: &[Option<Touched>], waits: &[Vec<usize>]) -> Vec<Option<usize>> {
    let mut heirs: Vec<Option<usize>> = vec![None; touched.len()];
    // From the begin of a step to the end of all, by the longest way.
    let mut rest = vec![0; touched.len()];
    for (step, touched) in touched.iter().enumerate().rev() {
        let Some(touched) = touched else { continue };
        // All that wait for it come after it, and have been here.
        rest[step] = cost(touched) + heirs[step].map_or(0, |heir| rest[heir]);
        for &other in &waits[step] {
            if heirs[other].is_none_or(|heir| rest[heir] < rest[step]) {
                heirs[other] = Some(step);
            }
        }
    }
    heirs
}

/// Deals out steps that wait for those that `waits` says: each to the lane where it can begin first. Behind a step comes the
/// one that has the longest way to the end, if no other lane is so much later for the others.
fn deal(touched: &[Option<Touched>], waits: &[Vec<usize>], lanes: usize) -> Vec<Option<Turn>> {
    let heirs = heirs(touched, waits);
    let empty = Lane {
        end: 0,
        last: None,
        known: vec![0; lanes],
    };
    let mut state = vec![empty; lanes];
    let mut turns: Vec<Option<Turn>> = Vec::with_capacity(touched.len());
    // The lane of each step as it is when the step ends.
    let mut done: Vec<Lane> = Vec::with_capacity(touched.len());
    for (step, (touched, waits)) in touched.iter().zip(waits).enumerate() {
        let Some(touched) = touched else {
            turns.push(None);
            done.push(state[0].clone());
            continue;
        };
        let lane_of = |other: usize| turns[other].as_ref().map_or(0, |turn: &Turn| turn.lane);
        let begin = |lane: usize| {
            let Lane { end, last, .. } = state[lane];
            let first = if lane > 0 && last.is_none() { BETWEEN_LANES } else { end };
            let after = |&other: &usize| done[other].end + if lane_of(other) == lane { 0 } else { BETWEEN_LANES };
            waits.iter().map(after).max().unwrap_or(0).max(first)
        };
        let is_kept = |lane: usize| {
            let heir = state[lane].last.and_then(|last| heirs[last]);
            heir.is_some_and(|heir| heir > step)
        };
        // Where two are as good, the one whose work it waits for last.
        let last = waits
            .iter()
            .max_by_key(|&&other| done[other].end)
            .map(|&other| lane_of(other));
        let lane = (0..lanes)
            .min_by_key(|&lane| {
                let kept = if is_kept(lane) { BETWEEN_LANES + 1 } else { 0 };
                (begin(lane) + kept, last != Some(lane), lane)
            })
            .unwrap_or(0);
        let mut known = state[lane].known.clone();
        let mut after = Vec::new();
        for &other in waits.iter().rev() {
            if known[lane_of(other)] <= other {
                after.push(other);
                for (known, &also) in known.iter_mut().zip(&done[other].known) {
                    *known = also.max(*known);
                }
            }
        }
        known[lane] = step + 1;
        state[lane] = Lane {
            end: begin(lane) + cost(touched),
            last: Some(step),
            known,
        };
        done.push(state[lane].clone());
        for &other in &after {
            if let Some(turn) = &mut turns[other] {
                turn.is_awaited = true;
            }
        }
        turns.push(Some(Turn {
            lane,
            after,
            is_awaited: false,
        }));
    }
    turns
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A step that reads and writes these ranges, variables and states.
    fn step(reads: Vec<Resource>, writes: Vec<Resource>) -> Option<Touched> {
        Some(Touched {
            reads,
            writes,
            anything: false,
            bytes: 10 << 20,
        })
    }

    fn meet(one: &Resource, other: &Resource) -> bool {
        match (one, other) {
            (Resource::Arena(one), Resource::Arena(other)) => one.start.max(other.start) < one.end.min(other.end),
            (Resource::Variable(one), Resource::Variable(other)) | (Resource::State(one), Resource::State(other)) => {
                one == other
            }
            _ => false,
        }
    }

    /// Whether the later of two steps must wait for the earlier, straight from the definition.
    fn conflict(one: &Touched, other: &Touched) -> bool {
        let any =
            |ones: &[Resource], others: &[Resource]| ones.iter().any(|one| others.iter().any(|other| meet(one, other)));
        one.anything
            || other.anything
            || any(&one.writes, &other.reads)
            || any(&one.writes, &other.writes)
            || any(&one.reads, &other.writes)
    }

    /// Which steps are done before each begins, by its turn.
    fn done_before(turns: &[Option<Turn>]) -> Vec<Vec<bool>> {
        let mut before: Vec<Vec<bool>> = Vec::new();
        for (step, turn) in turns.iter().enumerate() {
            let mut own = vec![false; turns.len()];
            if let Some(turn) = turn {
                let in_lane = |other: &usize| turns[*other].as_ref().is_some_and(|other| other.lane == turn.lane);
                for other in turn.after.iter().copied().chain((0..step).rev().find(in_lane)) {
                    own[other] = true;
                    for (own, &also) in own.iter_mut().zip(&before[other]) {
                        *own |= also;
                    }
                }
            }
            before.push(own);
        }
        before
    }

    fn resource() -> impl Strategy<Value = Resource> {
        prop_oneof![
            (0usize..40, 0usize..12).prop_map(|(start, len)| Resource::Arena(start..start + len)),
            (0usize..3).prop_map(Resource::Variable),
            (0usize..2).prop_map(Resource::State),
        ]
    }

    fn any_step() -> impl Strategy<Value = Option<Touched>> {
        let resources = || proptest::collection::vec(resource(), 0..3);
        let touched =
            (resources(), resources(), 0usize..30, 0usize..20 << 20).prop_map(|(reads, writes, rare, bytes)| Touched {
                reads,
                writes,
                anything: rare == 0,
                bytes,
            });
        proptest::option::weighted(0.9, touched)
    }

    proptest! {
        #[test]
        fn what_conflicts_keeps_its_order(steps in proptest::collection::vec(any_step(), 0..40), lanes in 1usize..5) {
            let turns = deal(&steps, &waits(&steps), lanes);
            let before = done_before(&turns);
            for (later, one) in steps.iter().enumerate() {
                let Some(one) = one else {
                    prop_assert!(turns[later].is_none());
                    continue;
                };
                for (earlier, other) in steps[..later].iter().enumerate() {
                    if other.as_ref().is_some_and(|other| conflict(other, one)) {
                        prop_assert!(before[later][earlier], "{later} does not wait for {earlier}");
                    }
                }
            }
            for turn in turns.iter().flatten() {
                prop_assert!(turn.lane < lanes);
                for &other in &turn.after {
                    let other = turns[other].as_ref();
                    prop_assert!(other.is_some_and(|other| other.is_awaited && other.lane != turn.lane));
                }
            }
        }
    }

    #[test]
    fn what_is_free_of_each_other_goes_to_lanes_and_the_longest_way_stays_in_one() {
        let arena = |range: Range<usize>| vec![Resource::Arena(range)];
        let steps = [
            step(vec![], arena(0..10)),
            // Two that take what the first gives: the second one's way is longer.
            step(arena(0..10), arena(10..20)),
            step(arena(0..10), arena(20..30)),
            step(arena(20..30), arena(30..40)),
            step(
                [arena(30..40), arena(10..20)].into_iter().flatten().collect(),
                arena(40..50),
            ),
        ];
        let turns: Vec<Turn> = deal(&steps, &waits(&steps), 4).into_iter().flatten().collect();
        let lanes: Vec<usize> = turns.iter().map(|turn| turn.lane).collect();
        assert_eq!(lanes, [0, 1, 0, 0, 0]);
        let after: Vec<&[usize]> = turns.iter().map(|turn| &turn.after[..]).collect();
        assert_eq!(after, [&[][..], &[0], &[], &[], &[1]]);
    }

    #[test]
    fn a_chain_needs_one_lane() {
        let steps: Vec<_> = (0..5)
            .map(|at| step(vec![Resource::Arena(at..at + 1)], vec![Resource::Arena(at + 1..at + 2)]))
            .collect();
        let turns = deal(&steps, &waits(&steps), 4);
        assert!(
            turns
                .iter()
                .flatten()
                .all(|turn| turn.lane == 0 && turn.after.is_empty())
        );
    }
}
