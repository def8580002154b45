use crate::formats;

/// A snapshot could not be read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A file or folder could not be read.
    #[error("{path}: {source}")]
    Io {
        /// The path, relative to the snapshot folder where it is inside.
        path: String,
        /// What the system said.
        source: std::io::Error,
    },
    /// A file or folder was not read, for safety.
    #[error("{path}: refused: {why}")]
    Refused {
        /// The path, relative to the snapshot folder.
        path: String,
        /// Why.
        why: String,
    },
    /// A file that must be there is not.
    #[error("no {what} in `{folder}`: not a snapshot folder, or not the right one")]
    Missing {
        /// The file.
        what: String,
        /// The folder it was looked for in.
        folder: String,
    },
    /// A file does not follow its format.
    #[error(transparent)]
    Format(#[from] formats::Error),
    /// Files contradict each other.
    #[error("{file}:{line}: {what}")]
    Inconsistent {
        /// The file.
        file: String,
        /// The line, from 1.
        line: u32,
        /// What does not fit.
        what: String,
    },
}

impl Error {
    /// The file the error is about, relative to the snapshot folder, and its
    /// line where it has one.
    pub fn place(&self) -> (&str, Option<u32>) {
        match self {
            Error::Io { path, .. } | Error::Refused { path, .. } => (path, None),
            Error::Missing { what, .. } => (what, None),
            Error::Format(error) => (&error.file, Some(error.line)),
            Error::Inconsistent { file, line, .. } => (file, Some(*line)),
        }
    }
}
