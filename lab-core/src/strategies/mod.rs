//! Random packets, rules, hosts and labs, for laws that hold whatever a
//! network looks like (feature `proptest`).
//!
//! Everything is drawn from a small universe of addresses, ports and names, so
//! that rules and packets meet; boundaries are drawn often. Every strategy
//! shrinks: to fewer rules, routes and hosts, and to plainer packets.
//!
//! ```
//! use lab_core::engine::explore::Choices;
//! use lab_core::engine::stepper::{walk, Entry, World};
//! use lab_core::model::Place;
//! use lab_core::strategies::{lab, packet};
//! use proptest::prelude::*;
//! use proptest::test_runner::TestRunner;
//!
//! // A law: whatever the lab, no packet is sent on with more hops left than
//! // its sender gave it, unless a rule says so.
//! let law = (lab(), packet());
//! TestRunner::deterministic().run(&law, |(lab, packet)| {
//!     let place = Place { host: "client".into(), iface: "eth0".into() };
//!     let (mut world, mut choices) = (World::default(), Choices::default());
//!     let journey = walk(&lab, &mut world, &mut choices, &Entry::Arrive(place), &packet);
//!     prop_assert!(journey.hops().count() < 2000);
//!     Ok(())
//! })?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod address;
mod condition;
mod expression;
mod host;
mod ipset;
mod iptables;
mod lab;
mod layered;
mod nft;
mod packet;
mod route;
mod target;

pub use address::{address, address_range, family, masked, port, ports, prefix};
pub use condition::condition;
pub use expression::{element, expression, nft_match};
pub use host::{address_of, nic, settings, Rules};
pub use ipset::ipsets;
pub use iptables::{chain_rule, ruleset, table};
pub use lab::lab;
pub use layered::layered;
pub use nft::nft_table;
pub use packet::{packet, packet_of, transport};
pub use route::{policy_rules, routes};
pub use target::{target, Site};
