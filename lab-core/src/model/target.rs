use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use super::{Expression, NftElement, Text};
use crate::addr::PortRange;

/// What a packet does next, as far as chains go.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// Leave this base chain, go on with the next.
    Accept,
    /// Drop.
    Drop,
    /// Run a chain, then come back.
    Jump(Text),
    /// Run a chain, then go back to where this one was jumped to from.
    Goto(Text),
    /// Go back to the calling chain; in a base chain, its policy.
    Return,
    /// Go on with the next rule.
    Continue,
}

/// How a REJECT answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RejectWith {
    /// An ICMP destination-unreachable error with this code (IPv4).
    Icmp(u8),
    /// An ICMPv6 destination-unreachable error with this code.
    Icmp6(u8),
    /// An error for either family: nft's `icmpx` code (no-route 0,
    /// port-unreachable 1, host-unreachable 2, admin-prohibited 3).
    Icmpx(u8),
    /// A TCP reset.
    TcpReset,
}

/// Which end of a connection is rewritten.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum NatKind {
    /// The source, to given addresses.
    Snat,
    /// The destination, to given addresses.
    Dnat,
    /// The source, to the address of the interface it leaves by.
    Masquerade,
    /// The destination, to this host.
    Redirect,
}

/// What an address is rewritten to.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum NatAddress {
    /// From the first to the second address, both included.
    Range(IpAddr, IpAddr),
    /// Computed from the packet (nft maps).
    Computed(Expression),
}

/// What a NAT target rewrites to.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct NatRange {
    /// The addresses; none: unchanged, or those the kind implies.
    pub address: Option<NatAddress>,
    /// The ports; none: kept if they can be.
    pub ports: Option<PortRange>,
    /// The first port of the original range, where ports are shifted one to
    /// one (`--to-destination a-b:p-q/base`).
    pub base_port: Option<u16>,
    /// `--random`: ports are picked by hash.
    pub random: bool,
    /// `--random-fully`: ports are picked by chance.
    pub random_fully: bool,
    /// `--persistent`: a client keeps its address.
    pub persistent: bool,
}

/// `--set-xmark` and its kin: `mark = (mark & !clear) ^ value`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum MarkOperation {
    /// Bits to clear, then bits to flip.
    SetXor {
        /// Bits flipped.
        value: u32,
        /// Bits cleared first.
        mask: u32,
    },
    /// `--save-mark`: connection mark from packet mark, under two masks.
    Save {
        /// Mask of the packet's mark.
        nfmask: u32,
        /// Mask of the connection's mark.
        ctmask: u32,
    },
    /// `--restore-mark`: packet mark from connection mark, under two masks.
    Restore {
        /// Mask of the packet's mark.
        nfmask: u32,
        /// Mask of the connection's mark.
        ctmask: u32,
    },
}

/// How TTL or hop limit is changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum TtlOperation {
    /// Set to this.
    Set(u8),
    /// Made greater by this, up to 255.
    Increment(u8),
    /// Made less by this, down to 0.
    Decrement(u8),
}

/// What nft's `… set …` writes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Mangle {
    /// `meta mark`.
    Mark,
    /// `ct mark`.
    CtMark,
    /// `ip ttl`.
    IpTtl,
    /// `ip6 hoplimit`.
    Ip6HopLimit,
    /// `ip dscp`.
    IpDscp,
    /// `ip6 dscp`.
    Ip6Dscp,
}

/// An action of a rule: iptables targets, nft statements, and whatever else,
/// kept verbatim.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Target {
    /// A verdict: `-j ACCEPT`, `-j CHAIN`, `-g CHAIN`.
    Verdict(Verdict),
    /// A verdict map: the first element that holds the value of the key.
    VerdictMap {
        /// The key.
        key: Expression,
        /// The elements in place, or none if `name` is given.
        elements: Vec<(NftElement, Verdict)>,
        /// `@name`.
        name: Option<String>,
    },
    /// `REJECT`; `tcp` options and default as written in the answer.
    Reject(RejectWith),
    /// `SNAT`, `DNAT`, `MASQUERADE`, `REDIRECT`.
    Nat {
        /// Which end is rewritten.
        kind: NatKind,
        /// To what.
        range: NatRange,
    },
    /// `NETMAP`: the prefix is replaced, host bits stay.
    Netmap(ipnet::IpNet),
    /// `MARK`.
    Mark(MarkOperation),
    /// `CONNMARK`.
    Connmark(MarkOperation),
    /// `CT --notrack`, `NOTRACK`, nft `notrack`.
    Notrack {
        /// Whether it was written `-j NOTRACK`.
        legacy: bool,
    },
    /// `CT --zone`.
    CtZone {
        /// The zone, from 0 to 65535.
        zone: u16,
        /// `--zone-orig` or `--zone-reply`: for one direction only.
        direction: Option<super::Direction>,
    },
    /// `TTL`.
    Ttl(TtlOperation),
    /// `HL`.
    HopLimit(TtlOperation),
    /// `DSCP --set-dscp`, from 0 to 63.
    Dscp(u8),
    /// `TOS --set-tos`: value and mask: `tos = (tos & !mask) ^ value`.
    Tos {
        /// Bits flipped.
        value: u8,
        /// Bits cleared first.
        mask: u8,
    },
    /// An nft `… set …`.
    Mangle(Mangle, Expression),
    /// nft `limit`: within its rate for a lone packet on a quiet network;
    /// `over` holds only beyond it, and so ends the rule.
    Limit {
        /// Whether it is `limit rate over`.
        over: bool,
    },
    /// A target that changes nothing that decides: LOG, NFLOG, CHECKSUM,
    /// TCPMSS, counter, …, with its options as written.
    NoEffect {
        /// The target's name.
        name: String,
        /// Its options, as written.
        options: String,
    },
    /// A target that is not modelled: it may accept, drop or go on, and what
    /// it changes is not known.
    Unmodelled {
        /// The target.
        name: String,
        /// Its text, as read: `TPROXY --on-port 80`.
        text: String,
    },
}
