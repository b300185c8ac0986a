//! What can go wrong in this crate: each message says what was found, what was expected and what to do.

use std::io;
use std::ops::Range;
use std::path::PathBuf;

/// The crate's result.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// The crate's error.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The graph, the session or a file of theirs.
    #[error(transparent)]
    Graph(#[from] graph_core::Error),

    /// The objective became infinite or no number: training cannot go on.
    #[error(
        "the objective of iteration {iter} is {objective} (cost {cost}), not a finite number. \
             Train with a smaller --learning-rate"
    )]
    NotFinite { iter: u64, objective: f32, cost: f32 },

    /// The handler of Ctrl-C could not be installed.
    #[error("cannot listen for Ctrl-C: {0}")]
    Signal(ctrlc::Error),

    /// One of the four files of a dataset is not there.
    #[error("{}: no such file. {advice}", path.display())]
    MissingFile { path: PathBuf, advice: String },

    /// The operating system refused to open or read a file.
    #[error("{}: cannot be read: {source}", path.display())]
    Read { path: PathBuf, source: io::Error },

    /// The file does not begin as gzip does.
    #[error("{}: not a gzip file: it begins with {found:02x?} where gzip begins with [1f, 8b]. \
             Download it again; keep it compressed", path.display())]
    NotGzip { path: PathBuf, found: Vec<u8> },

    /// The gzip stream ends before its end: an interrupted download.
    #[error("{}: the file is cut short: its gzip stream ends too early. Download it again", path.display())]
    CutShort { path: PathBuf },

    /// The gzip stream is damaged: bad codes or a wrong checksum.
    #[error("{}: the gzip stream is damaged ({source}). Download it again", path.display())]
    Damaged { path: PathBuf, source: io::Error },

    /// The first four bytes name another kind of IDX file.
    #[error("{}: wrong magic number: expected {expected} ({kind}), got {got}. Check that the file has its right name",
            path.display())]
    Magic {
        path: PathBuf,
        kind: &'static str,
        expected: u32,
        got: u32,
    },

    /// The images are not 28 by 28 pixels.
    #[error("{}: expected images of 28 x 28 pixels, got {rows} x {columns}", path.display())]
    ImageSize { path: PathBuf, rows: u32, columns: u32 },

    /// The content is shorter than its own header.
    #[error("{}: the unpacked file ends within its header. Download it again", path.display())]
    Header { path: PathBuf },

    /// The header announces another number of items than the file holds.
    #[error("{}: the header announces {announced} {kind} ({expected} bytes), but the unpacked file holds {} after it",
            path.display(), if *more { "more".to_owned() } else { format!("only {got} bytes") })]
    Content {
        path: PathBuf,
        kind: &'static str,
        announced: u32,
        expected: u64,
        got: u64,
        more: bool,
    },

    /// A label that is no class; `path` is the file it was read from, if from one.
    #[error("{}label {index} is {got}; labels are 0 to {}", prefix(path), classes - 1)]
    Label {
        path: Option<PathBuf>,
        index: usize,
        got: u8,
        classes: usize,
    },

    /// An image file and its label file do not belong together.
    #[error("{} holds {images} images, but {} holds {labels} labels. The two files must belong together",
            images_path.display(), labels_path.display())]
    CountMismatch {
        images_path: PathBuf,
        images: usize,
        labels_path: PathBuf,
        labels: usize,
    },

    /// Pixels and labels handed over in memory do not fit each other.
    #[error("{labels} labels need {} pixels (28 x 28 each), got {pixels}", labels * 784)]
    ExampleShape { pixels: usize, labels: usize },

    /// More validation images asked for than there are training images.
    #[error("the validation set takes the first {validation} training images, but there are only {training}")]
    ValidationSize { validation: usize, training: usize },

    /// A mini batch of no examples, or of more than the set holds.
    #[error("the mini batch size must be between 1 and {examples}, the number of examples in the set; got {got}")]
    BatchSize { got: usize, examples: usize },

    /// A buffer given for a batch has the wrong length.
    #[error("the buffer for a batch of {batch_size} {kind} needs {expected} elements, got {got}")]
    BufferLength {
        kind: &'static str,
        batch_size: usize,
        expected: usize,
        got: usize,
    },

    /// Rows that the set does not have.
    #[error("rows {} to {} asked for, but the set holds {examples} examples", rows.start, rows.end)]
    Rows { rows: Range<usize>, examples: usize },

    /// A saved position that belongs to another set.
    #[error("the saved position does not fit this set: {problem}. Resume with the dataset the position was saved from")]
    FeedState { problem: String },

    /// A checkpoint that does not exist.
    #[error("there is no checkpoint {}. Name one by its prefix, such as folder/lenet.ckpt-1000, or a folder that has a \
             file named checkpoint", path.display())]
    NoCheckpoint { path: PathBuf },

    /// A checkpoint that training cannot go on from.
    #[error("training cannot go on from checkpoint {}: {problem}. Resume from one that this program saved",
            prefix.display())]
    Checkpoint { prefix: PathBuf, problem: String },

    /// A constant of the network or its training outside its range.
    #[error("{name} must be {expected}, got {got}")]
    Definition {
        name: &'static str,
        expected: String,
        got: String,
    },

    /// An optimizer that does not exist.
    #[error("unknown optimizer {got:?}; the choices are adam, rmsprop and sgd")]
    UnknownOptimizer { got: String },

    /// Progress could not be written.
    #[error("cannot write progress: {0}")]
    Progress(#[source] io::Error),
}

fn prefix(path: &Option<PathBuf>) -> String {
    path.as_ref()
        .map(|path| format!("{}: ", path.display()))
        .unwrap_or_default()
}
