//! The formats: small whole files of each, its reader, and how to damage it.

mod arrays;
mod checkpoints;
mod damage;
mod events;
mod graphs;
mod idx;
mod recorded;
mod samples;
mod saved_model;

use std::path::Path;

use fastrand::Rng;
use graph_core::Result;

use crate::mutate;

/// What a reader says of a file: nothing, or why not.
type Verdict = std::result::Result<(), String>;

/// A format that is read.
pub struct Format {
    pub name: &'static str,
    /// Small whole files.
    pub seeds: fn() -> Vec<Vec<u8>>,
    /// A damaged one.
    pub mutate: fn(&mut Rng, &[Vec<u8>]) -> Vec<u8>,
    /// Reads one, with a folder to put files in.
    pub read: fn(&Path, &[u8]) -> Verdict,
    /// The memory that reading may take, in bytes, whatever the size of the file.
    pub memory: usize,
    /// The memory that reading may take for each byte of the file.
    pub memory_per_byte: usize,
}

const MEBIBYTE: usize = 1 << 20;

/// All formats.
pub fn all() -> Vec<Format> {
    // Messages grow when they become objects; a constant may repeat its last element, within the importer's limit.
    let graphs = |name, seeds, mutate, read| Format {
        name,
        seeds,
        mutate,
        read,
        memory: 600 * MEBIBYTE,
        memory_per_byte: 2_000,
    };
    let small = |name, memory_per_byte, seeds, mutate, read| Format {
        name,
        seeds,
        mutate,
        read,
        memory: MEBIBYTE,
        memory_per_byte,
    };
    // Compression shrinks zeros a thousandfold, and they are there then.
    const COMPRESSED: usize = 4_000;
    vec![
        graphs("graph-def", samples::graph_seeds, damage::graph, graphs::read_graph),
        graphs(
            "graph-text",
            samples::graph_text_seeds,
            mutate::bytes,
            graphs::read_graph,
        ),
        graphs(
            "meta-graph",
            graphs::meta_graph_seeds,
            mutate::bytes,
            graphs::read_meta_graph,
        ),
        graphs(
            "graph-file",
            graphs::graph_file_seeds,
            mutate::bytes,
            graphs::read_graph_file,
        ),
        graphs(
            "saved-model",
            saved_model::seeds,
            saved_model::damaged,
            saved_model::load,
        ),
        small(
            "events",
            1_000,
            events::event_seeds,
            |random, seeds| mutate::beneath(random, seeds, events::records, events::framed),
            events::read_events,
        ),
        small(
            "checkpoint",
            1_000,
            checkpoints::checkpoint_seeds,
            |random, seeds| mutate::beneath(random, seeds, checkpoints::table_rows, checkpoints::table_of),
            checkpoints::read_checkpoint,
        ),
        small(
            "checkpoint-state",
            2_000,
            checkpoints::state_seeds,
            mutate::bytes,
            checkpoints::read_state,
        ),
        small(
            "idx",
            COMPRESSED,
            idx::idx_seeds,
            |random, seeds| mutate::beneath(random, seeds, idx::unzipped, |parts| idx::zipped(&parts.concat())),
            idx::read_idx,
        ),
        small(
            "npy",
            1_000,
            arrays::npy_seeds,
            |random, seeds| mutate::beneath(random, seeds, arrays::npy_parts, arrays::npy_of),
            arrays::read_npy,
        ),
        small(
            "npz",
            COMPRESSED,
            arrays::npz_seeds,
            |random, seeds| mutate::beneath(random, seeds, arrays::members, arrays::archive),
            arrays::read_npz,
        ),
        graphs("trace", recorded::seeds, mutate::bytes, recorded::replay),
    ]
}

fn verdict<T>(result: Result<T>) -> Verdict {
    result.map(drop).map_err(|error| error.to_string())
}
