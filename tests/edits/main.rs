//! Edits between labs: laws over random ones, the texts of small ones, and the
//! kernel, which is asked whether the commands do what they say.

#![allow(clippy::unwrap_used, clippy::panic)]

mod bare;
mod draw;
mod kernel;
mod laws;
mod told;
