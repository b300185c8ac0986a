//! From which step to which each tensor is needed.

use rustc_hash::FxHashMap;

use crate::graph::NodeId;
use crate::op::ControlFlow;
use crate::session::plan::planner::Planner;
use crate::session::plan::{Place, Step, Work};
use crate::session::structure::{input_args, updates};

impl Planner<'_> {
    /// The tensor at whose address this one lies.
    pub(super) fn root(&self, mut tensor: u32) -> u32 {
        while let Some(Place::Alias(other)) = self.places[tensor as usize] {
            tensor = other;
        }
        tensor
    }

    /// The last step that reads each tensor, under any of its names; `usize::MAX` for those that live to the end.
    pub(super) fn last_uses(&self) -> Vec<usize> {
        let mut last = vec![0usize; self.places.len()];
        for (index, step) in self.steps.iter().enumerate() {
            for &tensor in step.inputs.iter().chain(&step.outputs) {
                let root = self.root(tensor) as usize;
                last[root] = last[root].max(index);
                last[tensor as usize] = last[tensor as usize].max(index);
            }
        }
        // What a loop works on may be needed in any later iteration, and behind it.
        for step in self.steps.iter().filter(|step| step.in_loop) {
            for &tensor in step.inputs.iter().chain(&step.outputs) {
                let root = self.root(tensor) as usize;
                (last[root], last[tensor as usize]) = (usize::MAX, usize::MAX);
            }
        }
        // The ways of a Switch, and what a Merge passes on, lie where their inputs lie.
        for step in self.steps.iter().rev() {
            let node = self.program.node(step.node);
            let passes = (node.definition.control_flow != ControlFlow::None && !matches!(step.work, Work::Copy))
                || (matches!(step.work, Work::Dynamic) && step.definition.is_some_and(|kernel| kernel.alias.is_some()));
            if passes {
                let end = step
                    .outputs
                    .iter()
                    .map(|&output| last[self.root(output) as usize])
                    .max()
                    .unwrap_or(0);
                for &input in &step.inputs {
                    let root = self.root(input) as usize;
                    last[root] = last[root].max(end);
                }
            }
        }
        for &fetch in &self.fetches {
            let mut tensors = vec![fetch];
            while let Some(tensor) = tensors.pop() {
                let root = self.root(tensor);
                last[root as usize] = usize::MAX;
                if root as usize >= self.count {
                    // A copy of its own.
                    continue;
                }
                let node = self.first.partition_point(|&first| first <= root) - 1;
                if let Some(&step) = self.step_of.get(&NodeId::new(node)) {
                    let step = &self.steps[step];
                    let flow = self.program.node(step.node).definition.control_flow != ControlFlow::None;
                    let dynamic = matches!(step.work, Work::Dynamic)
                        && step.definition.is_some_and(|kernel| kernel.alias.is_some());
                    if flow || dynamic {
                        tensors.extend(
                            step.inputs
                                .iter()
                                .filter(|&&input| last[self.root(input) as usize] != usize::MAX),
                        );
                    }
                }
            }
        }
        last
    }

    /// Makes reads of variables copies where a name of the variable's memory is read after an update.
    pub(super) fn snapshot_reads(&mut self, last_use: &[usize], fetches: &[u32]) {
        let mut first_update: FxHashMap<usize, usize> = FxHashMap::default();
        // The first update of a variable that only the run can tell.
        let mut first_of_any: Option<usize> = None;
        let computing = |(_, step): &(usize, &Step)| !matches!(step.work, Work::Copy);
        for (index, step) in self.steps.iter().enumerate().filter(computing) {
            let node = self.program.node(step.node);
            for ((arg, id), &input) in input_args(node).zip(&node.inputs).zip(&step.inputs) {
                if updates(self.program, node, arg, *id) {
                    match self.variables[input as usize] {
                        Some(variable) => {
                            first_update.entry(variable).or_insert(index);
                        }
                        None => first_of_any = first_of_any.or(Some(index)),
                    }
                }
            }
        }
        // The last use of each name and of the names made from it.
        let mut uses = last_use.to_vec();
        for step in self.steps.iter().rev() {
            if matches!(step.work, Work::Alias) {
                let (input, output) = (step.inputs[0] as usize, step.outputs[0] as usize);
                if fetches.contains(&(output as u32)) {
                    uses[output] = usize::MAX;
                }
                uses[input] = uses[input].max(uses[output]);
            }
        }
        for index in 0..self.steps.len() {
            let step = &self.steps[index];
            let copied = match step.work {
                Work::Alias if !step.reads.is_empty() => Work::Snapshot,
                Work::Read { .. } => Work::Read { copy: true },
                _ => continue,
            };
            let output = step.outputs[0];
            let update = match self.variables[step.inputs[0] as usize] {
                Some(variable) => first_update
                    .get(&variable)
                    .copied()
                    .into_iter()
                    .chain(first_of_any)
                    .min(),
                None => first_update.values().copied().chain(first_of_any).min(),
            };
            // An update that takes the value itself must not see it change under its hands, unless it looks at each element
            // before it changes it.
            let last = uses[output as usize];
            let looks_first = |update: usize| {
                let kernel = self.steps[update].definition;
                update == last && kernel.is_some_and(|kernel| kernel.reads_before_update)
            };
            if update.is_some_and(|update| update <= last && !looks_first(update)) {
                self.steps[index].work = copied;
                self.places[output as usize] = None;
            }
        }
    }
}
