//! Errors: TensorFlow's classes, each with a report of what was wrong, where, and what to do.

use std::error::Error as StdError;
use std::fmt;
use std::panic::Location;
use std::path::Path;

/// A result with the crate's [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Where an error arose: the operation, and the place in the user's source that made it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OpSite {
    /// The operation's name in the graph.
    pub name: String,
    /// The operation's type, such as `MatMul`.
    pub op: String,
    /// `file:line:column` of the call that made it, where known.
    pub made_at: Option<String>,
}

impl OpSite {
    /// The site of an operation made by the call at `location`.
    pub fn new(name: impl Into<String>, op: impl Into<String>, location: Option<&Location<'_>>) -> Self {
        Self {
            name: name.into(),
            op: op.into(),
            made_at: location.map(ToString::to_string),
        }
    }
}

impl fmt::Display for OpSite {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "operation '{}' ({})", self.name, self.op)?;
        if let Some(place) = &self.made_at {
            write!(f, ", made at {place}")?;
        }
        Ok(())
    }
}

/// What was wrong, and all that helps to mend it.
#[derive(Debug, Default)]
pub struct Report {
    /// What was wrong.
    pub message: String,
    /// The operation it concerns.
    pub op: Option<OpSite>,
    /// What would have been right.
    pub expected: Option<String>,
    /// What was found instead.
    pub got: Option<String>,
    /// What to do about it.
    pub hint: Option<String>,
    /// What was being done, innermost first.
    pub context: Vec<String>,
    /// The error of another library beneath it.
    pub source: Option<Box<dyn StdError + Send + Sync>>,
}

macro_rules! classes {
    ($($(#[$doc:meta])* $variant:ident $constructor:ident),* $(,)?) => {
        /// An error, by TensorFlow's class (`tf.errors.InvalidArgumentError` is [`Error::InvalidArgument`], and so on).
        #[derive(Debug)]
        pub enum Error {
            $($(#[$doc])* $variant(Box<Report>),)*
        }

        impl Error {
            $($(#[$doc])*
            pub fn $constructor(message: impl Into<String>) -> Self {
                Self::$variant(Box::new(Report { message: message.into(), ..Report::default() }))
            })*

            /// The name of the class, such as `InvalidArgument`.
            pub fn class(&self) -> &'static str {
                match self { $(Self::$variant(_) => stringify!($variant),)* }
            }

            /// The whole report.
            pub fn report(&self) -> &Report {
                match self { $(Self::$variant(report) => report,)* }
            }

            fn report_mut(&mut self) -> &mut Report {
                match self { $(Self::$variant(report) => report,)* }
            }
        }
    };
}

classes! {
    /// An argument that is wrong whatever the state of the system: a shape, a dtype, a name.
    InvalidArgument invalid_argument,
    /// The system is not in the state that the operation needs, as with a variable that was never initialized.
    FailedPrecondition failed_precondition,
    /// Something named does not exist.
    NotFound not_found,
    /// Something that was to be made exists already.
    AlreadyExists already_exists,
    /// Past the end, or too large for its type.
    OutOfRange out_of_range,
    /// Not supported by this engine.
    Unimplemented unimplemented,
    /// A broken invariant of the engine itself: a bug worth reporting.
    Internal internal,
    /// Memory, disk or another resource ran out.
    ResourceExhausted resource_exhausted,
    /// Data that cannot be recovered: a file cut short, a checksum that is wrong.
    DataLoss data_loss,
    /// No permission, as with a folder that cannot be written.
    PermissionDenied permission_denied,
    /// Cancelled by the caller.
    Cancelled cancelled,
    /// Ended in the middle, as by a conflict.
    Aborted aborted,
    /// Not done in time.
    DeadlineExceeded deadline_exceeded,
    /// A device or library is not there.
    Unavailable unavailable,
    /// None of the others.
    Unknown unknown,
}

impl Error {
    /// The error in other words, of the same class; what else it said of the place is dropped.
    #[must_use]
    pub(crate) fn with_message(mut self, message: String) -> Self {
        *self.report_mut() = Report {
            message,
            ..Report::default()
        };
        self
    }

    /// Says which operation it concerns, unless a more precise place is known already.
    #[must_use]
    pub fn at(mut self, site: OpSite) -> Self {
        self.report_mut().op.get_or_insert(site);
        self
    }

    /// Says what would have been right.
    #[must_use]
    pub fn expected(mut self, expected: impl fmt::Display) -> Self {
        self.report_mut().expected = Some(expected.to_string());
        self
    }

    /// Says what was found instead.
    #[must_use]
    pub fn got(mut self, got: impl fmt::Display) -> Self {
        self.report_mut().got = Some(got.to_string());
        self
    }

    /// Says what to do about it.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.report_mut().hint = Some(hint.into());
        self
    }

    /// Says what was being done.
    #[must_use]
    pub fn context(mut self, context: impl Into<String>) -> Self {
        self.report_mut().context.push(context.into());
        self
    }

    /// Keeps the error of another library that caused it.
    #[must_use]
    pub fn caused_by(mut self, source: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        self.report_mut().source = Some(source.into());
        self
    }

    /// An error of the operating system about a file or folder, in the class that fits it.
    pub fn io(path: impl AsRef<Path>, error: std::io::Error) -> Self {
        use std::io::ErrorKind;
        let message = format!("{}: {error}", path.as_ref().display());
        match error.kind() {
            ErrorKind::NotFound => Self::not_found(message),
            ErrorKind::PermissionDenied | ErrorKind::ReadOnlyFilesystem => Self::permission_denied(message),
            ErrorKind::AlreadyExists => Self::already_exists(message),
            ErrorKind::StorageFull | ErrorKind::QuotaExceeded => Self::resource_exhausted(message),
            ErrorKind::UnexpectedEof | ErrorKind::InvalidData => Self::data_loss(message),
            ErrorKind::NotADirectory | ErrorKind::IsADirectory => Self::failed_precondition(message),
            _ => Self::unknown(message),
        }
        .caused_by(error)
    }

    /// A copy for another place that must report it too; the error beneath it becomes text.
    pub fn duplicate(&self) -> Self {
        macro_rules! same_class {
            ($($variant:ident),*) => {
                match self {
                    $(Self::$variant(report) => Self::$variant(Box::new(Report {
                        message: report.message.clone(),
                        op: report.op.clone(),
                        expected: report.expected.clone(),
                        got: report.got.clone(),
                        hint: report.hint.clone(),
                        context: report.context.clone(),
                        source: None,
                    })),)*
                }
            };
        }
        same_class!(
            InvalidArgument,
            FailedPrecondition,
            NotFound,
            AlreadyExists,
            OutOfRange,
            Unimplemented,
            Internal,
            ResourceExhausted,
            DataLoss,
            PermissionDenied,
            Cancelled,
            Aborted,
            DeadlineExceeded,
            Unavailable,
            Unknown
        )
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let report = self.report();
        write!(f, "{}: {}", self.class(), report.message)?;
        if let Some(expected) = &report.expected {
            write!(f, "\n  expected: {expected}")?;
        }
        if let Some(got) = &report.got {
            write!(f, "\n  got: {got}")?;
        }
        if let Some(op) = &report.op {
            write!(f, "\n  in {op}")?;
        }
        for context in &report.context {
            write!(f, "\n  while {context}")?;
        }
        if let Some(hint) = &report.hint {
            write!(f, "\n  hint: {hint}")?;
        }
        Ok(())
    }
}

impl StdError for Error {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.report()
            .source
            .as_deref()
            .map(|source| source as &(dyn StdError + 'static))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_says_what_where_and_what_to_do() {
        let error = Error::invalid_argument("the inner dimensions differ")
            .expected("[?,784]")
            .got("[500,100]")
            .at(OpSite::new("dot_1/dot", "MatMul", None))
            .at(OpSite::new("outer", "NoOp", None))
            .hint("transpose one of them");
        assert_eq!(
            error.to_string(),
            "InvalidArgument: the inner dimensions differ\n  expected: [?,784]\n  got: [500,100]\n  \
             in operation 'dot_1/dot' (MatMul)\n  hint: transpose one of them"
        );
        assert_eq!(error.class(), "InvalidArgument");
        assert_eq!(error.duplicate().to_string(), error.to_string());
    }
}
