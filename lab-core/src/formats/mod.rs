//! Text to model and back: one module for each thing a tool prints.
//!
//! No I/O here: every `parse` takes the file's name (for errors and
//! provenance) and its text.

mod error;
pub mod ipset;
pub mod iptables;

pub use error::{Error, ErrorKind};
