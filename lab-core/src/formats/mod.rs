//! Text to model and back: one module for each thing a tool prints.
//!
//! No I/O here: every `parse` takes the file's name (for errors and
//! provenance) and its text.

mod error;
pub mod observed;
pub mod probes;
pub mod wire;
pub mod ipset;
pub mod iptables;

pub use error::{Error, ErrorKind};

/// The line, from 1, where a part of a text begins. `part` must be a slice of
/// `text`.
fn line_of(text: &str, part: &str) -> u32 {
    let offset = (part.as_ptr() as usize).saturating_sub(text.as_ptr() as usize).min(text.len());
    text.as_bytes()[..offset].iter().filter(|b| **b == b'\n').count() as u32 + 1
}

/// An error of the JSON reader, with its line.
fn json_error(file: &str, text: &str, error: &serde_json::Error) -> Error {
    let line = error.line() as u32;
    let shown = text.lines().nth(error.line().saturating_sub(1)).unwrap_or_default();
    let kind = if error.is_eof() {
        ErrorKind::Truncated(error.to_string())
    } else {
        ErrorKind::Syntax(error.to_string())
    };
    Error::new(file, line, shown, kind)
}
