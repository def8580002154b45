use std::fmt;
use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use super::{Backend, Chain, Host, Origin, Owner, Packet, Table, TableFamily, Text};

/// An interface of a host.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Place {
    /// The host.
    pub host: String,
    /// The interface.
    pub iface: String,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.host, self.iface)
    }
}

/// A rule by its place, as the kernel's tools would name it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct RuleRef {
    /// The host.
    pub host: String,
    /// The machinery.
    pub backend: Backend,
    /// The table's family.
    pub family: TableFamily,
    /// The table.
    pub table: String,
    /// The base chain that was run.
    pub base: Text,
    /// The chain.
    pub chain: Text,
    /// The rule's number from 1; none: the base chain's policy.
    pub rule: Option<usize>,
    /// The rule's text; empty for a policy.
    pub text: Text,
    /// Who wrote it.
    pub owner: Owner,
    /// Where it was read.
    pub origin: Origin,
}

impl RuleRef {
    /// A rule by its number from 1, or the policy, of a chain that a base chain
    /// ran.
    pub fn of(host: &Host, table: &Table, base: &Chain, chain: &Chain, rule: Option<usize>) -> Self {
        let read = rule.and_then(|number| chain.rules.get(number.checked_sub(1)?));
        RuleRef {
            host: host.name.clone(),
            backend: table.backend,
            family: table.family,
            table: table.name.clone(),
            base: base.name.clone(),
            chain: chain.name.clone(),
            rule,
            text: read.map(|r| r.text.clone()).unwrap_or_default(),
            owner: read.map_or_else(|| Owner::of_chain(&table.name, &chain.name), |r| r.owner),
            origin: read.map_or_else(|| chain.origin.clone(), |r| r.origin.clone()),
        }
    }
}

/// A place in the kernel, other than a rule, that ends a packet's way. The
/// names are those of the recorded answers in `FORMAT.md`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Stage {
    /// TTL or hop limit ran out.
    Ttl,
    /// No route, or only one that says so.
    NoRoute,
    /// The next hop does not answer, or an `unreachable` route.
    HostUnreachable,
    /// A `prohibit` route.
    Prohibit,
    /// A `blackhole` route.
    Blackhole,
    /// The reverse path test.
    RpFilter,
    /// The source is an address of the receiver's own, or is none a packet
    /// may come from.
    MartianSource,
    /// A loopback address from or to the outside.
    MartianLocalnet,
    /// An address that no packet may carry.
    Martian,
    /// A destination that nothing may be sent to here.
    MartianDest,
    /// The host does not forward.
    NotForwarding,
    /// The next hop does not answer, and nobody is told.
    NeighbourFailed,
    /// A bridge has no port to send it to, but the one it came by.
    BridgeNoPort,
    /// The frame is for another host.
    NotMyMac,
    /// It was rejected, but the answer never left.
    AnswerLost,
    /// The device that it goes to is down, or has no carrier.
    LinkDown,
    /// It is too big for the way on.
    Mtu,
    /// A tunnel's outer packet is routed into the tunnel.
    TunnelLoop,
    /// No tunnel here has that network identifier or remote.
    TunnelUnknown,
    /// A bridge that filters VLANs refuses it.
    BridgeVlan,
    /// It came in by a port of a bond that stands by.
    BondInactive,
    /// A macvlan device and the device it sits on do not reach each other.
    Macvlan,
    /// No WireGuard peer has that destination among its allowed addresses.
    WireguardNoPeer,
    /// The WireGuard peer may not send from that source.
    WireguardAllowedIps,
    /// A device or protocol swallowed it.
    Silent,
    /// The sending call failed with this errno name: nothing left.
    Send(String),
    /// Something that is not modelled: what happens is not known.
    Unmodelled(String),
}

impl fmt::Display for Stage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Stage::Ttl => "ttl",
            Stage::NoRoute => "no-route",
            Stage::HostUnreachable => "host-unreachable",
            Stage::Prohibit => "prohibit",
            Stage::Blackhole => "blackhole",
            Stage::RpFilter => "rp_filter",
            Stage::MartianSource => "martian-source",
            Stage::MartianLocalnet => "martian-localnet",
            Stage::Martian => "martian",
            Stage::MartianDest => "martian-dest",
            Stage::NotForwarding => "not-forwarding",
            Stage::NeighbourFailed => "neighbour-failed",
            Stage::BridgeNoPort => "bridge-no-port",
            Stage::NotMyMac => "not-my-mac",
            Stage::AnswerLost => "answer-lost",
            Stage::LinkDown => "link-down",
            Stage::Mtu => "mtu",
            Stage::TunnelLoop => "tunnel-loop",
            Stage::TunnelUnknown => "tunnel-unknown",
            Stage::BridgeVlan => "bridge-vlan",
            Stage::BondInactive => "bond-inactive",
            Stage::Macvlan => "macvlan",
            Stage::WireguardNoPeer => "wireguard-no-peer",
            Stage::WireguardAllowedIps => "wireguard-allowed-ips",
            Stage::Silent => "silent",
            Stage::Send(errno) => return write!(f, "send:{errno}"),
            Stage::Unmodelled(what) => return write!(f, "unmodelled:{what}"),
        })
    }
}

/// What ended a packet's way.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Decision {
    /// A rule or a policy.
    Rule(RuleRef),
    /// A stage of a host.
    Stage {
        /// The host.
        host: String,
        /// The stage.
        stage: Stage,
    },
}

impl Decision {
    /// The host that decided.
    pub fn host(&self) -> &str {
        match self {
            Decision::Rule(rule) => &rule.host,
            Decision::Stage { host, .. } => host,
        }
    }
}

/// What sort of answer a rejected packet gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum AnswerKind {
    /// An ICMP error of this type and code.
    Icmp(u8, u8),
    /// An ICMPv6 error of this type and code.
    Icmp6(u8, u8),
    /// A TCP reset.
    TcpReset,
}

impl fmt::Display for AnswerKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            AnswerKind::Icmp(kind, code) => write!(f, "ICMP {kind}/{code}"),
            AnswerKind::Icmp6(kind, code) => write!(f, "ICMPv6 {kind}/{code}"),
            AnswerKind::TcpReset => f.write_str("TCP reset"),
        }
    }
}

/// The answer to a rejected packet.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Answer {
    /// What it is.
    pub kind: AnswerKind,
    /// The host that sent it.
    pub from_host: String,
    /// Its source address, as first seen on a wire.
    pub from_addr: IpAddr,
    /// Its destination address, as first seen on a wire.
    pub to_addr: IpAddr,
    /// Whether it reached the host that sent the packet.
    pub came_back: bool,
    /// Where it arrived, if anywhere: the place and the header then.
    pub received: Option<(Place, Packet)>,
    /// What ended its way, if it did not arrive.
    pub lost: Option<Decision>,
    /// The interfaces it passed.
    pub hops: Vec<Hop>,
}

/// What becomes of a packet. The list is closed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Outcome {
    /// It passed INPUT of a host: a socket there would get it.
    Delivered {
        /// The host and the interface that it came in by.
        at: Place,
        /// Its header then.
        seen: Packet,
    },
    /// It left the lab by an interface that no link joins.
    ForwardedOut {
        /// The host and interface.
        at: Place,
        /// Its header then.
        seen: Packet,
    },
    /// An ICMP error or TCP reset was sent about it.
    Rejected {
        /// What ended its way.
        by: Decision,
        /// The answer.
        answer: Box<Answer>,
    },
    /// It vanished, and nothing was sent.
    Dropped {
        /// What ended its way.
        by: Decision,
    },
}

impl Outcome {
    /// `delivered`, `forwarded-out`, `rejected` or `dropped`.
    pub fn name(&self) -> &'static str {
        match self {
            Outcome::Delivered { .. } => "delivered",
            Outcome::ForwardedOut { .. } => "forwarded-out",
            Outcome::Rejected { .. } => "rejected",
            Outcome::Dropped { .. } => "dropped",
        }
    }

    /// What ended the packet's way, if it did not arrive.
    pub fn decision(&self) -> Option<&Decision> {
        match self {
            Outcome::Rejected { by, .. } | Outcome::Dropped { by } => Some(by),
            Outcome::Delivered { .. } | Outcome::ForwardedOut { .. } => None,
        }
    }
}

/// Into an interface or out of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum HopDirection {
    /// Into it.
    In,
    /// Out of it.
    Out,
}

/// A packet seen at an interface.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hop {
    /// Where.
    pub at: Place,
    /// Which way.
    pub direction: HopDirection,
    /// The packet then.
    pub packet: Packet,
}
