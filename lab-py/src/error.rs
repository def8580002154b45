//! Errors of lab-core as Python exceptions.

use lab_core::{formats, query, render, snapshot, space};
use pyo3::exceptions::PyException;
use pyo3::prelude::*;
use pyo3::{create_exception, PyErr};

create_exception!(
    lab_py,
    LabError,
    PyException,
    "What lab_py raises: the base of all its exceptions.\n\n\
     Attributes:\n\
     \x20   file (str | None): the file it is about, relative to the snapshot\n\
     \x20       folder, or the folder itself.\n\
     \x20   line (int | None): the line of that file, counted from 1."
);
create_exception!(
    lab_py,
    SnapshotError,
    LabError,
    "A snapshot folder, or a file in it, cannot be read.\n\n\
     `file` is always given, `line` where a text does not follow its format."
);
create_exception!(
    lab_py,
    QuestionError,
    LabError,
    "A question cannot be answered as it was put.\n\n\
     The message offers the nearest right names for a host or interface that\n\
     is not there. `line` is given for probes passed as JSON text."
);

/// Why a call fails. Plain data, so that it can leave a closure that runs
/// detached from the interpreter.
pub enum Failure {
    Snapshot(snapshot::Error),
    Question(query::Error),
    /// Probes given as an argument, and whether the caller wrote the text, so
    /// that its lines mean something.
    Probes(formats::Error, bool),
    /// An answer that is not JSON.
    Answer(serde_json::Error),
}

impl From<snapshot::Error> for Failure {
    fn from(error: snapshot::Error) -> Self {
        Failure::Snapshot(error)
    }
}

impl From<query::Error> for Failure {
    fn from(error: query::Error) -> Self {
        Failure::Question(error)
    }
}

impl From<space::Error> for Failure {
    fn from(error: space::Error) -> Self {
        Failure::Question(query::Error::Space(error))
    }
}

impl From<serde_json::Error> for Failure {
    fn from(error: serde_json::Error) -> Self {
        Failure::Answer(error)
    }
}

impl From<Failure> for PyErr {
    fn from(failure: Failure) -> Self {
        // A message may quote a hostile file, and ends up on a terminal.
        let words = |error: &dyn std::fmt::Display| render::safe(&error.to_string());
        match &failure {
            Failure::Snapshot(error) => {
                let (file, line) = error.place();
                placed(SnapshotError::new_err(words(error)), Some(file), line)
            }
            Failure::Question(error) => QuestionError::new_err(words(error)),
            Failure::Probes(error, written) => {
                placed(QuestionError::new_err(words(error)), None, written.then_some(error.line))
            }
            Failure::Answer(error) => LabError::new_err(words(error)),
        }
    }
}

fn placed(error: PyErr, file: Option<&str>, line: Option<u32>) -> PyErr {
    Python::attach(|py| {
        let value = error.value(py);
        match value.setattr("file", file).and_then(|()| value.setattr("line", line)) {
            Ok(()) => error,
            Err(worse) => worse,
        }
    })
}

/// Gives the base class the attributes, so that every exception has them.
pub fn declare(py: Python<'_>) -> PyResult<()> {
    let base = py.get_type::<LabError>();
    base.setattr("file", py.None())?;
    base.setattr("line", py.None())
}
