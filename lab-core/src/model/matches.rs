use std::collections::BTreeSet;
use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use super::{NftMatch, Text};
use crate::addr::{Mac, Masked, PortRange};

/// A condition that may be turned round with `!`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Not<T> {
    /// Whether it holds when `value` does not.
    pub invert: bool,
    /// The condition.
    pub value: T,
}

impl<T> Not<T> {
    /// The condition as it is.
    pub fn plain(value: T) -> Self {
        Not { invert: false, value }
    }
}

/// An interface name, or the start of one.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct InterfacePattern {
    /// The name, without the final `+` or `*`.
    pub name: String,
    /// Whether any name that starts so is meant.
    pub prefix: bool,
}

impl InterfacePattern {
    /// Whether an interface of this name is meant.
    pub fn holds(&self, interface: &str) -> bool {
        if self.prefix {
            interface.starts_with(&self.name)
        } else {
            interface == self.name
        }
    }
}

/// `--tcp-flags MASK COMPARE`: of the flags in `mask`, exactly `set` are set.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TcpFlagsMatch {
    /// The flags looked at, as bits of the TCP header's flag octet.
    pub mask: u8,
    /// Those that must be set.
    pub set: u8,
}

/// Conntrack's word on a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum ConntrackState {
    /// Belongs to no connection and can open none.
    Invalid,
    /// Opens a connection, or follows while no reply was seen.
    New,
    /// Belongs to a connection that has seen a reply.
    Established,
    /// An ICMP error, reset or expected connection about another.
    Related,
    /// Not tracked.
    Untracked,
}

/// What happened to a connection, beside its state.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum ConntrackStatus {
    /// Expected by a helper.
    Expected,
    /// A packet went the reply way.
    SeenReply,
    /// Not to be forgotten early.
    Assured,
    /// Its first packet has left the host.
    Confirmed,
    /// Its source was rewritten.
    Snat,
    /// Its destination was rewritten.
    Dnat,
}

/// Which way a packet goes in its connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Direction {
    /// As the packet that opened it.
    Original,
    /// The other way.
    Reply,
}

/// `-m conntrack` and `-m state`. Every part given must hold.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConntrackMatch {
    /// Whether it was written `-m state --state`.
    pub legacy_state: bool,
    /// `--ctstate`: any of these; the second set is of the pseudo-states
    /// SNAT and DNAT.
    pub states: Option<Not<(BTreeSet<ConntrackState>, BTreeSet<ConntrackStatus>)>>,
    /// `--ctstatus`: any of these; empty: NONE.
    pub status: Option<Not<BTreeSet<ConntrackStatus>>>,
    /// `--ctproto`: the IP protocol number.
    pub protocol: Option<Not<u8>>,
    /// `--ctorigsrc`.
    pub original_source: Option<Not<Masked>>,
    /// `--ctorigdst`.
    pub original_destination: Option<Not<Masked>>,
    /// `--ctreplsrc`.
    pub reply_source: Option<Not<Masked>>,
    /// `--ctrepldst`.
    pub reply_destination: Option<Not<Masked>>,
    /// `--ctorigsrcport`.
    pub original_sport: Option<Not<PortRange>>,
    /// `--ctorigdstport`.
    pub original_dport: Option<Not<PortRange>>,
    /// `--ctreplsrcport`.
    pub reply_sport: Option<Not<PortRange>>,
    /// `--ctrepldstport`.
    pub reply_dport: Option<Not<PortRange>>,
    /// `--ctexpire`, in seconds, as written: depends on time.
    pub expire: Option<Not<(u32, u32)>>,
    /// `--ctdir`.
    pub direction: Option<Direction>,
}

impl ConntrackMatch {
    /// Whether it asks for more than state and direction: for what a
    /// connection holds.
    pub fn asks_of_connection(&self) -> bool {
        let ConntrackMatch { legacy_state, states, direction, .. } = self;
        let plain = ConntrackMatch {
            legacy_state: *legacy_state,
            states: states.clone(),
            direction: *direction,
            ..ConntrackMatch::default()
        };
        *self != plain
    }
}

/// What an address is to a host (`-m addrtype`, nft `fib … type`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum AddressType {
    /// The unspecified address.
    Unspec,
    /// None of the others.
    Unicast,
    /// Its own.
    Local,
    /// A broadcast address.
    Broadcast,
    /// An anycast address.
    Anycast,
    /// A multicast group.
    Multicast,
    /// Of a blackhole route.
    Blackhole,
    /// Of an unreachable route.
    Unreachable,
    /// Of a prohibit route.
    Prohibit,
    /// Of a throw route.
    Throw,
    /// Of a nat route.
    Nat,
    /// Of an external resolver; unused.
    Xresolve,
}

/// To whom a frame was addressed (`-m pkttype`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PacketType {
    /// To this host; also what it sends itself.
    Unicast,
    /// To everybody.
    Broadcast,
    /// To a group.
    Multicast,
    /// To another host, seen in passing.
    Otherhost,
}

/// Which address or port of a packet a set is asked about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SetDirection {
    /// The source.
    Src,
    /// The destination.
    Dst,
}

/// `-m physdev`: the bridge ports behind the bridge that `-i` and `-o` name.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PhysdevMatch {
    /// `--physdev-in`.
    pub input: Option<Not<InterfacePattern>>,
    /// `--physdev-out`.
    pub output: Option<Not<InterfacePattern>>,
    /// `--physdev-is-in`; `true` in the value means "is".
    pub is_in: Option<Not<()>>,
    /// `--physdev-is-out`.
    pub is_out: Option<Not<()>>,
    /// `--physdev-is-bridged`.
    pub is_bridged: Option<Not<()>>,
}

/// How `-m statistic` counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NthMode {
    /// One packet in so many.
    pub every: u32,
    /// Which of them, from 0.
    pub packet: u32,
}

/// `-m statistic`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Statistic {
    /// By chance: the probability as written, from 0 to 1.
    Random(Text),
    /// By count.
    Nth(NthMode),
}

/// A condition of a rule: iptables' built-in options, each extension that is
/// modelled, nft expressions, and whatever else, kept verbatim.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Match {
    /// `-s`.
    Source(Not<Masked>),
    /// `-d`.
    Destination(Not<Masked>),
    /// `-i`.
    InInterface(Not<InterfacePattern>),
    /// `-o`.
    OutInterface(Not<InterfacePattern>),
    /// `-p`, by number; 0 is `all`.
    Protocol(Not<u8>),
    /// `-f`: a fragment that is not the first.
    Fragment(Not<()>),
    /// `-m tcp`.
    Tcp {
        /// `--sport`.
        sport: Option<Not<PortRange>>,
        /// `--dport`.
        dport: Option<Not<PortRange>>,
        /// `--tcp-flags`.
        flags: Option<Not<TcpFlagsMatch>>,
        /// `--tcp-option`, by number.
        option: Option<Not<u8>>,
    },
    /// `-m udp`.
    Udp {
        /// `--sport`.
        sport: Option<Not<PortRange>>,
        /// `--dport`.
        dport: Option<Not<PortRange>>,
    },
    /// `-m sctp`.
    Sctp {
        /// `--sport`.
        sport: Option<Not<PortRange>>,
        /// `--dport`.
        dport: Option<Not<PortRange>>,
        /// `--chunk-types`, as written after the option.
        chunks: Option<Not<String>>,
    },
    /// `-m icmp --icmp-type`: type 255 is `any`; codes from the first to the
    /// second.
    Icmp(Not<(u8, u8, u8)>),
    /// `-m icmp6 --icmpv6-type`.
    Icmp6(Not<(u8, u8, u8)>),
    /// `-m multiport`.
    Multiport {
        /// Which ports: source, destination, or either (none).
        side: Option<SetDirection>,
        /// The ports.
        ports: Not<Vec<PortRange>>,
    },
    /// `-m conntrack`, `-m state`.
    Conntrack(Box<ConntrackMatch>),
    /// `-m mark`: value and mask.
    Mark(Not<(u32, u32)>),
    /// `-m connmark`: value and mask.
    Connmark(Not<(u32, u32)>),
    /// `-m addrtype`.
    AddressType {
        /// `--src-type`: any of these.
        source: Option<Not<BTreeSet<AddressType>>>,
        /// `--dst-type`: any of these.
        destination: Option<Not<BTreeSet<AddressType>>>,
        /// `--limit-iface-in`.
        limit_in: bool,
        /// `--limit-iface-out`.
        limit_out: bool,
    },
    /// `-m set --match-set`.
    Set {
        /// The set's name.
        name: Not<String>,
        /// What is compared with each of its dimensions.
        directions: Vec<SetDirection>,
        /// Further options that only count or that limit, as written.
        options: String,
    },
    /// `-m mac --mac-source`.
    Mac(Not<Mac>),
    /// `-m physdev`.
    Physdev(Box<PhysdevMatch>),
    /// `-m comment`: always holds.
    Comment(Text),
    /// `-m limit`: holds for a lone packet on a quiet network.
    Limit {
        /// `--limit` as written: `3/hour`.
        rate: String,
        /// `--limit-burst`, in packets.
        burst: Option<u32>,
    },
    /// `-m hashlimit`: `--hashlimit-upto` holds for a lone packet.
    Hashlimit {
        /// Whether it is `--hashlimit-above`, which does not.
        above: bool,
        /// Every option, as written.
        options: String,
    },
    /// `-m statistic`.
    Statistic(Not<Statistic>),
    /// `-m dscp`, from 0 to 63.
    Dscp(Not<u8>),
    /// `-m tos`: value and mask.
    Tos(Not<(u8, u8)>),
    /// `-m iprange`: first and last address.
    IpRange {
        /// `--src-range`.
        source: Option<Not<(IpAddr, IpAddr)>>,
        /// `--dst-range`.
        destination: Option<Not<(IpAddr, IpAddr)>>,
    },
    /// `-m length`: the IP packet's length in bytes, ends included.
    Length(Not<(u32, u32)>),
    /// `-m ttl`.
    Ttl {
        /// How it is compared.
        comparison: super::Comparison,
        /// The hops left.
        value: u8,
    },
    /// `-m hl`.
    HopLimit {
        /// How it is compared.
        comparison: super::Comparison,
        /// The hops left.
        value: u8,
    },
    /// `-m pkttype`.
    PacketType(Not<PacketType>),
    /// `-m nfacct`: counts, and always holds.
    Nfacct(String),
    /// `-m rpfilter`: holds for packets that pass (or, inverted, fail) a
    /// reverse path test.
    RpFilter {
        /// `--invert`.
        invert: bool,
        /// `--loose`.
        loose: bool,
        /// `--validmark`.
        valid_mark: bool,
        /// `--accept-local`.
        accept_local: bool,
    },
    /// An nft expression.
    Nft(Box<NftMatch>),
    /// A condition that is not modelled: it may hold or not.
    Unmodelled {
        /// The extension or expression.
        name: String,
        /// Its text, as read: `-m recent --rcheck --name A --rsource`.
        text: String,
    },
}
