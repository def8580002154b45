use std::net::IpAddr;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use super::{Origin, Scope};
use crate::addr::Family;

/// A routing table, by number. `ip` prints 253 to 255 by name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct RouteTable(pub u32);

impl RouteTable {
    /// Table 253.
    pub const DEFAULT: RouteTable = RouteTable(253);
    /// Table 254.
    pub const MAIN: RouteTable = RouteTable(254);
    /// Table 255: the host's own addresses.
    pub const LOCAL: RouteTable = RouteTable(255);
}

impl std::fmt::Display for RouteTable {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match *self {
            RouteTable::DEFAULT => f.write_str("default"),
            RouteTable::MAIN => f.write_str("main"),
            RouteTable::LOCAL => f.write_str("local"),
            RouteTable(number) => write!(f, "{number}"),
        }
    }
}

/// What a route does with a packet (`man ip-route`, "Route types").
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RouteKind {
    /// Forward to a next hop.
    Unicast,
    /// Deliver to this host.
    Local,
    /// Deliver as broadcast.
    Broadcast,
    /// Deliver as multicast.
    Multicast,
    /// Deliver to this host; not usable as a source.
    Anycast,
    /// Answer host unreachable.
    Unreachable,
    /// Discard in silence.
    Blackhole,
    /// Answer administratively prohibited.
    Prohibit,
    /// Go on with the next policy rule.
    Throw,
    /// Stateless NAT; gone from the kernel since 2.6. Not modelled.
    Nat,
}

/// One way on from a route.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NextHop {
    /// The router; none: the destination is on the link itself.
    pub gateway: Option<IpAddr>,
    /// The interface; none for routes that need none.
    pub interface: Option<String>,
    /// Its share among several next hops, from 1.
    pub weight: u32,
    /// Whether the kernel takes the gateway to be on the link unchecked.
    pub onlink: bool,
    /// Whether the kernel passes it over (`dead`, or `linkdown` where
    /// `ignore_routes_with_linkdown` is set).
    pub dead: bool,
    /// Whether the interface has no carrier.
    pub linkdown: bool,
}

/// A route.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Route {
    /// Its family.
    pub family: Family,
    /// The destinations it covers.
    pub destination: IpNet,
    /// The sources it covers (IPv6 subtrees); none: all.
    pub source: Option<IpNet>,
    /// What it does.
    pub kind: RouteKind,
    /// The table it is in.
    pub table: RouteTable,
    /// Its priority among routes of one prefix: lower wins.
    pub metric: u32,
    /// The type-of-service it is for; 0: any.
    pub tos: u8,
    /// How far its destinations are.
    pub scope: Scope,
    /// The source address it suggests (`src`).
    pub prefsrc: Option<IpAddr>,
    /// Where it leads; several: the kernel picks by hash.
    pub next_hops: Vec<NextHop>,
    /// The MTU it sets, in bytes.
    pub mtu: Option<u32>,
    /// Who added it: `kernel`, `static`, `dhcp`, `boot`, ….
    pub protocol: String,
    /// Where it was read.
    pub origin: Origin,
    /// What the line holds that is not modelled (an encapsulation, …), as
    /// read; empty where all is understood.
    pub unmodelled: String,
}

/// What a policy rule does with packets it matches.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum PolicyAction {
    /// Look the destination up in a table.
    Lookup(RouteTable),
    /// Look the destination up in the table of the VRF that the packet came in
    /// by or is bound to (`l3mdev`); elsewhere the rule is passed over.
    LookupVrf,
    /// Go on at the rule of that priority.
    Goto(u32),
    /// Nothing.
    Nop,
    /// Answer network unreachable.
    Unreachable,
    /// Discard in silence.
    Blackhole,
    /// Answer administratively prohibited.
    Prohibit,
}

/// A rule of the routing policy database (`man ip-rule`).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PolicyRule {
    /// Its family.
    pub family: Family,
    /// Its priority: lower is asked first.
    pub priority: u32,
    /// Whether it matches what its selectors do not.
    pub invert: bool,
    /// The sources it is for; none: all.
    pub source: Option<IpNet>,
    /// The destinations it is for; none: all.
    pub destination: Option<IpNet>,
    /// The interface a packet came in by; `lo`: it was sent by this host.
    pub iif: Option<String>,
    /// The interface that a local socket is bound to.
    pub oif: Option<String>,
    /// Firewall mark and mask.
    pub fwmark: Option<(u32, u32)>,
    /// Type of service; 0: any.
    pub tos: u8,
    /// IP protocol number.
    pub protocol: Option<u8>,
    /// Source ports.
    pub sport: Option<crate::addr::PortRange>,
    /// Destination ports.
    pub dport: Option<crate::addr::PortRange>,
    /// Socket owners, both ends included.
    pub uid_range: Option<(u32, u32)>,
    /// Routes with this prefix length or less are passed over.
    pub suppress_prefix_len: Option<u8>,
    /// What it does.
    pub action: PolicyAction,
    /// Where it was read.
    pub origin: Origin,
    /// What the line holds that is not modelled, as read; empty where all is.
    pub unmodelled: String,
}

impl PolicyRule {
    /// A rule for every packet of a family.
    pub fn new(family: Family, priority: u32, action: PolicyAction) -> Self {
        PolicyRule {
            family,
            priority,
            invert: false,
            source: None,
            destination: None,
            iif: None,
            oif: None,
            fwmark: None,
            tos: 0,
            protocol: None,
            sport: None,
            dport: None,
            uid_range: None,
            suppress_prefix_len: None,
            action,
            origin: Origin::default(),
            unmodelled: String::new(),
        }
    }

    /// The rules a kernel starts with: local, main and, for IPv4, default.
    pub fn initial(family: Family) -> Vec<Self> {
        let rule = |priority, table| PolicyRule::new(family, priority, PolicyAction::Lookup(table));
        let mut rules = vec![rule(0, RouteTable::LOCAL), rule(32766, RouteTable::MAIN)];
        if family == Family::Ipv4 {
            rules.push(rule(32767, RouteTable::DEFAULT));
        }
        rules
    }
}
