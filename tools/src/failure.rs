//! Why a subcommand could not do its work.

use std::fmt;
use std::io;

use graph_core::Error;

/// A result with [`Failure`].
pub type Result<T> = std::result::Result<T, Failure>;

/// What went wrong: with the input, or with the output.
#[derive(Debug)]
pub enum Failure {
    /// An error of the engine; it names the file and says what to do.
    Engine(Error),
    /// Standard output cannot be written to.
    Output(io::Error),
}

impl Failure {
    /// Whether nobody reads the output any more.
    pub fn is_broken_pipe(&self) -> bool {
        matches!(self, Self::Output(error) if error.kind() == io::ErrorKind::BrokenPipe)
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Engine(error) => error.fmt(f),
            Self::Output(error) => write!(f, "cannot write to standard output: {error}"),
        }
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::Engine(error)
    }
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        Self::Output(error)
    }
}
