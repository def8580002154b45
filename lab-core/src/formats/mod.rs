//! Text to model and back: one module for each thing a tool prints.
//!
//! No I/O here: every `parse` takes the file's name (for errors and
//! provenance) and its text.

pub mod address;
pub mod bridge_vlan;
pub mod command;
mod device;
mod error;
pub mod fdb;
pub mod ipset;
pub mod iptables;
mod json;
pub mod lab_toml;
pub mod link;
mod names;
pub mod neighbour;
pub mod nft_json;
pub mod nft_text;
pub mod observed;
pub mod probes;
pub mod route;
pub mod rule;
pub mod sysctl;
pub mod wire;
pub mod wireguard;

pub use error::{Error, ErrorKind};
