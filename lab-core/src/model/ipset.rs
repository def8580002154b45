use std::net::IpAddr;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use super::Origin;
use crate::addr::{Family, Mac, PortRange};

/// A dimension of a set: what one part of its elements is compared with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum IpsetField {
    /// An address (`ip`), or several under one prefix length.
    Ip,
    /// A prefix (`net`).
    Net,
    /// A protocol and port, or ICMP type and code (`port`).
    Port,
    /// A MAC address (`mac`).
    Mac,
    /// An interface name (`iface`).
    Iface,
    /// A firewall mark (`mark`).
    Mark,
}

/// One part of an element.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum IpsetItem {
    /// The addresses under a prefix.
    Net(IpNet),
    /// The addresses from the first to the second, both included.
    Range(IpAddr, IpAddr),
    /// Ports of one protocol; for ICMP, `type << 8 | code` as the kernel does.
    Port {
        /// The IP protocol number; none in sets of plain ports (`bitmap:port`).
        protocol: Option<u8>,
        /// The ports.
        ports: PortRange,
    },
    /// A MAC address.
    Mac(Mac),
    /// An interface; `true` for a bridge port (`physdev:`).
    Iface(String, bool),
    /// A mark.
    Mark(u32),
}

/// An element of a set.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct IpsetElement {
    /// One item for each dimension, in order.
    pub items: Vec<IpsetItem>,
    /// Whether the element is an exception (`nomatch`).
    pub nomatch: bool,
    /// Its options, as read: `timeout 300`, `comment "…"`, …; may be empty. In
    /// a set of a type that is not understood, all of the element's text.
    pub options: String,
}

/// An IP set (`man ipset`).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ipset {
    /// Its name.
    pub name: String,
    /// The method of its type: `hash`, `bitmap` or `list`.
    pub method: String,
    /// The dimensions of its type; empty for `list:set`.
    pub fields: Vec<IpsetField>,
    /// Its family.
    pub family: Family,
    /// The options of its creation, as read.
    pub options: String,
    /// Its elements, in the order read.
    pub elements: Vec<IpsetElement>,
    /// The sets that a `list:set` names, in order.
    pub members: Vec<String>,
    /// The options of each of those members, as read; may be empty.
    pub member_options: Vec<String>,
    /// Where it was read.
    pub origin: Origin,
    /// What of it is not understood (`type hash:…`), empty where all is.
    pub unmodelled: String,
}
