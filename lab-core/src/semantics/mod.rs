//! What Linux does, stage by stage, one noun a file.
//!
//! Each file gives the meaning of one match, target or stage for a single
//! packet; the meaning for a set of packets belongs beside it. A match whose
//! result cannot be known answers [`Tri::Unknown`] with the reason.
//!
//! Sources named in the docs are paths of the Linux kernel tree (6.18), or
//! manual pages.

pub mod addrtype;
pub mod br_netfilter;
pub mod bridge;
pub mod conntrack;
pub mod context;
pub mod header;
pub mod hooks;
pub mod icmp;
pub mod input;
pub mod matches;
pub mod nat;
pub mod nftexpr;
pub mod reject;
pub mod routing;
pub mod segment;
pub mod sets;
pub mod source;
pub mod tri;
pub mod tunnel;
pub mod vlan;

pub use context::Context;
pub use tri::Tri;

#[cfg(test)]
mod tests;
