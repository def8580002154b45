//! Python bindings of lab-core.
