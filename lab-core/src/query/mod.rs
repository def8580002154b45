//! Questions about a lab, and their answers as data.

pub mod classes;
pub mod diff;
pub mod ends;
mod error;
pub mod flows;
pub mod matrix;
pub mod observed;
pub mod paths;
pub mod plan;
pub mod policy;
pub mod predict;
pub mod reach;
pub mod repair;
pub mod rules;
pub mod service_matrix;
pub mod show;
pub mod trace;
pub mod what_if;

pub use error::Error;

/// The most ways that are followed where chance or ignorance decides.
pub const WAYS: usize = 256;
