//! What a change changes: between two labs, or two sets of rules; as commands
//! ([`edits`]), as packets that rules treat otherwise ([`packets`]), and as
//! flows between hosts ([`flows`]).

mod addresses;
pub mod edits;
pub mod effects;
pub mod flows;
mod network;
pub mod packets;
mod rest;
mod script;
mod sets;
pub(in crate::query) mod tables;
pub mod whole;

#[cfg(test)]
mod tests;
