//! lab-core answers questions about a Linux network before anyone touches it:
//! which packets get from where to where, what they look like when they
//! arrive, and which rule decided.
//!
//! Rooms, from the bottom up; each uses only those above it:
//!
//! - [`addr`]: addresses and sets of them
//! - [`model`]: the lab as plain values
//! - [`formats`]: text to model and back
//! - [`semantics`]: what Linux does, stage by stage
//! - [`engine`]: interpreters of the semantics
//! - [`query`]: the questions
//! - [`render`]: answers as text and JSON
//! - [`snapshot`]: a lab folder on disk

pub mod addr;
pub mod formats;
pub mod model;
