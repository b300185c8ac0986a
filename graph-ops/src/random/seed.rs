//! Seeds of graphs and ops, as TensorFlow derives them (`random_seed.py`).

use graph_core::graph::Graph;

/// The seed of a graph's ops where only the op has one.
const DEFAULT_GRAPH_SEED: i64 = 87_654_321;
/// Seeds are taken modulo this, 2³¹ - 1.
const MODULUS: i64 = (1 << 31) - 1;

/// Sets the random seed of the current graph, from which random ops made later derive theirs.
pub fn set_random_seed(seed: i64) {
    Graph::current().set_random_seed(seed);
}

/// The seeds (`seed` and `seed2`) of a random op about to be made in `graph`, with or without a seed of its own.
///
/// With a graph's seed, an op without one takes the number of operations made so far. Both zero mean that the op starts
/// anywhere, which only happens where neither graph nor op has a seed.
pub fn get_seed(graph: &Graph, op_seed: Option<i64>) -> (i64, i64) {
    let (seed, seed2) = match (graph.random_seed(), op_seed) {
        (None, None) => return (0, 0),
        (None, Some(op)) => (DEFAULT_GRAPH_SEED, op),
        (Some(graph_seed), op) => (graph_seed, op.unwrap_or_else(|| graph.num_operations() as i64)),
    };
    match (seed.rem_euclid(MODULUS), seed2.rem_euclid(MODULUS)) {
        (0, 0) => (0, MODULUS),
        seeds => seeds,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seeds_are_derived_as_in_tensorflow() {
        let graph = Graph::new();
        assert_eq!(get_seed(&graph, None), (0, 0));
        assert_eq!(get_seed(&graph, Some(7)), (87_654_321, 7));
        graph.set_random_seed(1);
        assert_eq!(get_seed(&graph, Some(7)), (1, 7));
        assert_eq!(get_seed(&graph, Some(-1)), (1, MODULUS - 1));
        let _default = graph.as_default();
        crate::array::constant(1).build().unwrap();
        assert_eq!(get_seed(&graph, None), (1, 1));
        graph.set_random_seed(MODULUS);
        assert_eq!(get_seed(&graph, Some(0)), (0, MODULUS));
    }
}
