//! Edits between labs: laws over random ones, the texts of small ones, and the
//! kernel, which is asked whether the commands do what they say, and whether
//! packets fare as it is said that a change makes them.

#![allow(clippy::unwrap_used, clippy::panic)]

mod bare;
mod draw;
mod kernel;
mod laws;
mod packets;
mod told;

// Frames, namespaces and their sockets are those of the kernel's own test.
#[allow(dead_code)]
#[path = "../kernel/peel.rs"]
mod peel;
#[allow(dead_code)]
#[path = "../kernel/space.rs"]
mod space;
#[allow(dead_code)]
#[path = "../kernel/sys.rs"]
mod sys;
#[allow(dead_code)]
#[path = "../kernel/wire.rs"]
mod wire;
