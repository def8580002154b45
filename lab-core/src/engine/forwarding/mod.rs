//! Networks of forwarding devices, rule by rule: switches and routers with
//! prefix tables, the links between their ports, VLANs, and access lists.
//!
//! A [`Topology`] holds what does not change: devices, ports, groups of ports,
//! links, and the access lists on the links. A [`Network`] holds the rules on
//! it. After every change it knows every forwarding loop, and for which
//! headers. [`Reachability`] holds which addresses get from which edge port to
//! which, and follows the changes.
//!
//! Addresses are IPv4. Only destinations are routed by, so sets of them are
//! ranges; the other fields matter to access lists alone, and are looked at
//! when a way passes one.

mod acl;
mod atoms;
mod change;
mod cycles;
mod error;
mod ids;
mod loops;
mod network;
mod prefix;
mod reach;
mod rules;
mod topology;

#[cfg(test)]
mod tests;

pub use acl::{AclRule, Addresses, Header, Headers};
pub use change::{Change, Report, Route};
pub use error::Error;
pub use ids::{AclId, DeviceId, LinkId, PortId};
pub use network::{Loop, Network};
pub use prefix::{AddressRange, Prefix};
pub use reach::{FilterId, PairChange, PairChanges, PairSets, Reachability, Reached};
pub use topology::{Link, Topology, TopologyBuilder};
