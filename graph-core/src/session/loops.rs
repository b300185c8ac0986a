//! While loops: what lies between the Enters and the Exits of a loop stands together in the order, and runs again for as long
//! as a NextIteration has something to carry on.
//!
//! An Enter stands before its loop and an Exit behind it. A value of an iteration that is the last one never passes the
//! Switches, so that the NextIterations are dead at its end, and the Exits alone live.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::ops::Range;

use rustc_hash::FxHashMap;

use crate::error::{Error, Result};
use crate::graph::{Node, NodeId, TensorId};
use crate::op::ControlFlow;
use crate::rewrite::Program;
use crate::session::structure::{cycle_error, is_update};

/// A loop as a part of an order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Loop {
    /// The part of the order that runs again and again.
    pub(crate) body: Range<usize>,
    /// What the loop's own NextIterations carry on, without those of the loops inside.
    pub(crate) back: Vec<TensorId>,
    /// What the Merges behind them take in the first iteration alone.
    pub(crate) first: Vec<TensorId>,
}

/// Whether the program has a loop.
pub(crate) fn has_loops(program: &Program) -> bool {
    program.nodes.iter().any(is_of_loop)
}

fn is_of_loop(node: &Node) -> bool {
    use ControlFlow::{Enter, Exit, LoopCond, NextIteration};
    matches!(node.definition.control_flow, Enter | Exit | NextIteration | LoopCond)
}

/// Whether `node` is a Merge to which its input `input` comes back.
fn comes_back(program: &Program, node: &Node, input: NodeId) -> bool {
    node.definition.control_flow == ControlFlow::Merge
        && program.node(input).definition.control_flow == ControlFlow::NextIteration
}

/// The nodes that a node waits for in the same iteration: its inputs and control inputs but for the way back to a Merge.
fn predecessors<'a>(program: &'a Program, node: &'a Node) -> impl Iterator<Item = NodeId> + 'a {
    let inputs = node.inputs.iter().map(|input| input.node);
    inputs
        .filter(move |&input| !comes_back(program, node, input))
        .chain(node.control_inputs.iter().copied())
}

/// The frames of loops, one inside of another; frame 0 is the graph outside of all loops.
struct Frames {
    /// The frame in which each node runs.
    of: Vec<usize>,
    parents: Vec<usize>,
    depths: Vec<usize>,
}

impl Frames {
    fn new(program: &Program) -> Result<Self> {
        let mut frames = Self {
            of: vec![0; program.nodes.len()],
            parents: vec![0],
            depths: vec![0],
        };
        let mut named: FxHashMap<(usize, String), usize> = FxHashMap::default();
        // The frame of what each node gives.
        let mut given = vec![0; program.nodes.len()];
        for id in forward_order(program)? {
            let node = program.node(id);
            let mut frame = 0;
            for before in predecessors(program, node) {
                frame = frames.deeper(frame, given[before.index()]).ok_or_else(|| {
                    Error::invalid_argument("the inputs come from two loops, neither of which is in the other")
                        .at(node.site())
                })?;
            }
            let flow = node.definition.control_flow;
            if flow == ControlFlow::Exit {
                if frame == 0 {
                    return Err(Error::invalid_argument("there is no loop to leave").at(node.site()));
                }
                frame = frames.parents[frame];
            }
            frames.of[id.index()] = frame;
            given[id.index()] = match flow {
                ControlFlow::Enter => {
                    let name: String = node.attrs.read("frame_name")?;
                    *named.entry((frame, name)).or_insert_with(|| {
                        frames.parents.push(frame);
                        frames.depths.push(frames.depths[frame] + 1);
                        frames.parents.len() - 1
                    })
                }
                _ => frame,
            };
        }
        Ok(frames)
    }

    /// The inner one of two frames, if one of them lies in the other.
    fn deeper(&self, a: usize, b: usize) -> Option<usize> {
        let (outer, inner) = if self.depths[a] <= self.depths[b] {
            (a, b)
        } else {
            (b, a)
        };
        let mut around = inner;
        while self.depths[around] > self.depths[outer] {
            around = self.parents[around];
        }
        (around == outer).then_some(inner)
    }

    /// The innermost frame that holds both units, and the units that stand for them there: a node stands for itself in its
    /// frame, and outside of it its frame, as unit `nodes + frame`, stands for it.
    fn meet(&self, a: usize, b: usize) -> (usize, usize) {
        let nodes = self.of.len();
        let (mut a, mut b) = ((a, self.of[a]), (b, self.of[b]));
        while a.1 != b.1 {
            let up = if self.depths[a.1] >= self.depths[b.1] {
                &mut a
            } else {
                &mut b
            };
            *up = (nodes + up.1, self.parents[up.1]);
        }
        (a.0, b.0)
    }
}

/// The nodes so that each comes after what it waits for in the same iteration.
fn forward_order(program: &Program) -> Result<Vec<NodeId>> {
    let mut waits = vec![0u32; program.nodes.len()];
    let mut successors: Vec<Vec<NodeId>> = vec![Vec::new(); program.nodes.len()];
    for id in program.ids() {
        for before in predecessors(program, program.node(id)) {
            successors[before.index()].push(id);
            waits[id.index()] += 1;
        }
    }
    let mut order: Vec<NodeId> = program.ids().filter(|id| waits[id.index()] == 0).collect();
    let mut next = 0;
    while next < order.len() {
        for &successor in &successors[order[next].index()] {
            waits[successor.index()] -= 1;
            if waits[successor.index()] == 0 {
                order.push(successor);
            }
        }
        next += 1;
    }
    let stuck = program.ids().find(|id| waits[id.index()] > 0);
    match stuck {
        Some(id) => Err(cycle_error(program.node(id))),
        None => Ok(order),
    }
}

/// An order as [`super::structure`] wants it, in which the nodes of each loop stand together, and the loops, inner ones first.
///
/// # Errors
/// `InvalidArgument` for a cycle that does not run through NextIteration, or loops that are not nested; `Unimplemented` if
/// anything but a Merge takes what a NextIteration carries on.
pub(crate) fn order(program: &Program) -> Result<(Vec<NodeId>, Vec<Loop>)> {
    let frames = Frames::new(program)?;
    let (nodes, units) = (program.nodes.len(), program.nodes.len() + frames.parents.len());
    let mut waits = vec![0u32; units];
    let mut successors: Vec<Vec<usize>> = vec![Vec::new(); units];
    // What decides between units that are ready: whether they update a variable, and the first of their nodes.
    let mut ranks = vec![(false, usize::MAX); units];
    for id in program.ids() {
        let node = program.node(id);
        for input in node.inputs.iter().filter(|input| comes_back(program, node, input.node)) {
            if frames.of[input.node.index()] != frames.of[id.index()] {
                return Err(Error::invalid_argument("what comes back is of another loop").at(node.site()));
            }
        }
        for before in predecessors(program, node) {
            if program.node(before).definition.control_flow == ControlFlow::NextIteration {
                return Err(
                    Error::unimplemented("only a Merge can take what a NextIteration carries on").at(node.site()),
                );
            }
            let (from, to) = frames.meet(before.index(), id.index());
            if from != to {
                successors[from].push(to);
                waits[to] += 1;
            }
        }
        let own = (is_update(program, node), id.index());
        ranks[id.index()] = own;
        let mut frame = frames.of[id.index()];
        while frame != 0 {
            let rank = &mut ranks[nodes + frame];
            *rank = (rank.0 || own.0, rank.1.min(own.1));
            frame = frames.parents[frame];
        }
    }
    let mut sequences: Vec<Vec<usize>> = vec![Vec::new(); frames.parents.len()];
    let mut ready: BinaryHeap<Reverse<((bool, usize), usize)>> = (0..units)
        .filter(|&unit| unit != nodes && waits[unit] == 0)
        .map(|unit| Reverse((ranks[unit], unit)))
        .collect();
    while let Some(Reverse((_, unit))) = ready.pop() {
        let frame = match unit.checked_sub(nodes) {
            Some(frame) => frames.parents[frame],
            None => frames.of[unit],
        };
        sequences[frame].push(unit);
        for &successor in &successors[unit] {
            waits[successor] -= 1;
            if waits[successor] == 0 {
                ready.push(Reverse((ranks[successor], successor)));
            }
        }
    }
    if let Some(stuck) = (0..nodes).find(|&unit| waits[unit] > 0) {
        return Err(cycle_error(program.node(NodeId::new(stuck))));
    }
    if let Some(frame) = (1..frames.parents.len()).find(|&frame| waits[nodes + frame] > 0) {
        let (_, first) = ranks[nodes + frame];
        return Err(match program.nodes.get(first) {
            Some(node) => cycle_error(node),
            None => Error::internal("a loop without nodes"),
        });
    }
    Ok(flattened(program, &frames, &sequences))
}

/// The sequences of the frames, each in its place in its parent's.
fn flattened(program: &Program, frames: &Frames, sequences: &[Vec<usize>]) -> (Vec<NodeId>, Vec<Loop>) {
    let nodes = program.nodes.len();
    let (mut back, mut first) = (vec![Vec::new(); sequences.len()], vec![Vec::new(); sequences.len()]);
    for id in program.ids() {
        let (node, frame) = (program.node(id), frames.of[id.index()]);
        let comes_back = |input: &&TensorId| comes_back(program, node, input.node);
        if node.inputs.iter().any(|input| comes_back(&input)) {
            back[frame].extend(node.inputs.iter().filter(comes_back));
            first[frame].extend(node.inputs.iter().filter(|input| !comes_back(input)));
        }
    }
    let (mut order, mut loops) = (Vec::with_capacity(nodes), Vec::new());
    // Frames that are under way: the frame, how many of its units are written, where it begins.
    let mut under_way = vec![(0, 0, 0)];
    while let Some((frame, written, start)) = under_way.last_mut() {
        let Some(&unit) = sequences[*frame].get(*written) else {
            if *frame != 0 {
                loops.push(Loop {
                    body: *start..order.len(),
                    back: std::mem::take(&mut back[*frame]),
                    first: std::mem::take(&mut first[*frame]),
                });
            }
            under_way.pop();
            continue;
        };
        *written += 1;
        match unit.checked_sub(nodes) {
            Some(inner) => under_way.push((inner, 0, order.len())),
            None => order.push(NodeId::new(unit)),
        }
    }
    (order, loops)
}
