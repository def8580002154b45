//! Interpreters of the semantics.
//!
//! [`stepper`] takes one packet through the lab rule by rule, as the kernel
//! does: it is the specification. Where something cannot be known it asks
//! [`explore::Choices`] which way to go, and [`explore::all`] runs it once for
//! every way.

pub mod explore;
pub mod forwarding;
pub mod journey;
pub mod stepper;
pub mod symbolic;
