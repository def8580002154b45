use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use crate::addr::Mac;

/// The state of a neighbour entry (`man ip-neighbour`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum NeighbourState {
    /// Set by hand: never asked for, never forgotten.
    Permanent,
    /// Valid without a question.
    Noarp,
    /// Confirmed lately.
    Reachable,
    /// Learned some time ago; still used.
    Stale,
    /// Waiting before a new question.
    Delay,
    /// Asking again.
    Probe,
    /// Nobody has answered yet.
    Incomplete,
    /// Nobody answered.
    Failed,
    /// No state is told.
    None,
}

/// A neighbour entry: the ARP or ND table.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Neighbour {
    /// The neighbour's address.
    pub address: IpAddr,
    /// The interface it is on.
    pub interface: String,
    /// Its MAC address, if known.
    pub mac: Option<Mac>,
    /// The state of the entry.
    pub state: NeighbourState,
    /// Whether it is an entry for which this host answers (`proxy`).
    pub proxy: bool,
}

/// An entry of a bridge's or VXLAN device's forwarding table.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FdbEntry {
    /// The MAC address.
    pub mac: Mac,
    /// The port, or the VXLAN device itself.
    pub interface: String,
    /// The bridge, for an entry of a bridge's table (`master`).
    pub master: Option<String>,
    /// The VTEP, for an entry of a VXLAN device.
    pub destination: Option<IpAddr>,
    /// The UDP port there, if it is not the device's own.
    pub port: Option<u16>,
    /// The VNI there, if it is not the device's own.
    pub vni: Option<u32>,
    /// The VLAN it is for.
    pub vlan: Option<u16>,
    /// Whether it is the bridge's own address or a port's (`permanent`).
    pub local: bool,
    /// Whether it was set by hand (`static`).
    pub fixed: bool,
}
