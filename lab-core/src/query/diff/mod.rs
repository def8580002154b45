//! What differs between two labs.

mod addresses;
pub mod edits;
mod network;
mod rest;
mod script;
mod sets;
mod tables;
