//! Command-line tools around graphs, checkpoints and event files. Nothing is here yet.
