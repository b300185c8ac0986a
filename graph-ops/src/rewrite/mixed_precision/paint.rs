//! Which type attributes become of 16 bits.

use graph_core::DType;
use graph_core::rewrite::Program;

use super::lists::Kind;
use super::types::{TypeAttr, TypeId, TypeSet, Types};

/// Those that become `dtype`: all of the list `Allow`; of `Infer` and `Clear`, what lies between two of those; of `Clear`, what
/// lies beside one. What follows from the list `Deny` does not.
pub(super) fn choose(program: &Program, types: &Types, dtype: DType) -> TypeSet {
    let could_be = |id: TypeId| types.could_be(program, id, dtype);
    let is = |id: TypeId, kind: Kind| types.all[id].kind == Some(kind);
    let roots: Vec<TypeId> = (0..types.all.len())
        .filter(|&id| is(id, Kind::Allow) && could_be(id))
        .collect();
    let mut chosen: TypeSet = roots.iter().copied().collect();
    if chosen.is_empty() {
        return chosen;
    }
    let denied = denied(types);
    // What follows from an allowed op through such as may be changed.
    let follows = reached(
        &roots,
        |id| types.all[id].after.iter(),
        |id| {
            let passes = is(id, Kind::Clear) || is(id, Kind::Infer);
            passes && !denied.contains(&id) && could_be(id)
        },
    );
    let leads = reached(&roots, |id| types.all[id].before.iter(), |id| follows.contains(&id));
    chosen.extend(leads);
    let beside: Vec<TypeId> = chosen.iter().copied().collect();
    let beside = reached(
        &beside,
        |id| types.all[id].after.iter().chain(&types.all[id].before),
        |id| is(id, Kind::Clear) && !denied.contains(&id) && could_be(id),
    );
    chosen.extend(beside);
    chosen
}

/// The list `Deny`, and what lies on a way from it to `Deny` or `Infer` through `Clear` and `Infer`.
fn denied(types: &Types) -> TypeSet {
    let is = |id: TypeId, kinds: &[Kind]| types.all[id].kind.is_some_and(|kind| kinds.contains(&kind));
    let all = 0..types.all.len();
    let ends: Vec<TypeId> = all.clone().filter(|&id| is(id, &[Kind::Deny, Kind::Infer])).collect();
    let leads = reached(&ends, |id| types.all[id].before.iter(), |id| is(id, &[Kind::Clear]));
    let starts: Vec<TypeId> = all.filter(|&id| is(id, &[Kind::Deny])).collect();
    reached(&starts, |id| types.all[id].after.iter(), |id| leads.contains(&id))
}

/// What can be reached from `starts`, themselves among them, step by step over what `enters` lets pass.
fn reached<'a, I: Iterator<Item = &'a TypeId>>(
    starts: &[TypeId],
    steps: impl Fn(TypeId) -> I,
    enters: impl Fn(TypeId) -> bool,
) -> TypeSet {
    let mut found: TypeSet = starts.iter().copied().collect();
    let mut stack = starts.to_vec();
    while let Some(id) = stack.pop() {
        for &next in steps(id) {
            if !found.contains(&next) && enters(next) {
                found.insert(next);
                stack.push(next);
            }
        }
    }
    found
}

/// Adds the casts to `float` all of whose takers are chosen: they cast to `dtype` at once.
pub(super) fn add_casts(program: &Program, types: &Types, dtype: DType, chosen: &mut TypeSet) {
    let mut takers = vec![0usize; program.nodes.len()];
    for input in program.nodes.iter().flat_map(|node| &node.inputs) {
        takers[input.node.index()] += 1;
    }
    for id in program.ids().filter(|&id| program.node(id).op() == "Cast") {
        let Some(to) = types.find(id, TypeAttr::single("DstT")) else {
            continue;
        };
        let after = &types.all[to].after;
        let all_chosen =
            !after.is_empty() && after.len() == takers[id.index()] && after.iter().all(|taker| chosen.contains(taker));
        if all_chosen && types.could_be(program, to, dtype) {
            chosen.insert(to);
        }
    }
}
