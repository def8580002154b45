use serde::{Deserialize, Serialize};

use super::{Direction, Verdict};
use crate::addr::Family;

/// How two values are compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Comparison {
    /// Equal, or an element of the set.
    Equal,
    /// Not equal, or no element of the set.
    NotEqual,
    /// Less.
    Less,
    /// Less or equal.
    LessOrEqual,
    /// Greater.
    Greater,
    /// Greater or equal.
    GreaterOrEqual,
    /// Any of the right side's bits is set (nft's implicit flag test).
    AnyBit,
    /// None of the right side's bits is set (`!`).
    NoBit,
}

/// How a value is written, and so what its number means.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NftType {
    /// An IPv4 address, as its 32 bits.
    Ipv4,
    /// An IPv6 address, as its 128 bits.
    Ipv6,
    /// A MAC address, as its 48 bits.
    Ether,
    /// A port.
    Port,
    /// An IP protocol number.
    Protocol,
    /// An interface name.
    Name,
    /// Bits of conntrack states: invalid 1, established 2, related 4, new 8,
    /// untracked 64 (`enum ip_conntrack_info` as nft shifts it).
    CtState,
    /// Bits of conntrack status: expected 1, seen-reply 2, assured 4,
    /// confirmed 8, snat 16, dnat 32, dying 512.
    CtStatus,
    /// 0 original, 1 reply.
    CtDirection,
    /// ICMP type.
    IcmpType,
    /// ICMPv6 type.
    Icmp6Type,
    /// TCP flag bits.
    TcpFlags,
    /// An address type: the kernel's `RTN_*` numbers (unicast 1, local 2,
    /// broadcast 3, anycast 4, multicast 5, blackhole 6, unreachable 7,
    /// prohibit 8).
    AddressType,
    /// To whom a frame was sent: host (unicast) 0, broadcast 1, multicast 2,
    /// other 3.
    PacketType,
    /// The layer-3 family: ipv4 2, ipv6 10.
    Nfproto,
    /// Differentiated services code point, 0 to 63.
    Dscp,
    /// Any other number.
    Number,
}

/// One value on the right side, or one part of a concatenation.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Atom {
    /// The numbers from the first to the second, both included; addresses are
    /// numbers too.
    Range(u128, u128),
    /// An interface name; `true`: the start of one (`eth*`).
    Name(String, bool),
}

/// What `fib` is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum FibResult {
    /// The type of the route found.
    Type,
    /// The index of its interface (0: none).
    Oif,
    /// The name of its interface.
    Oifname,
}

/// What nft can look at, and compute.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Expression {
    /// `meta iifname`.
    Iifname,
    /// `meta oifname`.
    Oifname,
    /// `meta l4proto`.
    L4proto,
    /// `meta nfproto`.
    Nfproto,
    /// `meta mark`.
    Mark,
    /// `meta length`, in bytes.
    Length,
    /// `meta pkttype`.
    Pkttype,
    /// `ip saddr`.
    IpSource,
    /// `ip daddr`.
    IpDestination,
    /// `ip protocol`.
    IpProtocol,
    /// `ip ttl`.
    IpTtl,
    /// `ip dscp`.
    IpDscp,
    /// `ip length`.
    IpLength,
    /// `ip6 saddr`.
    Ip6Source,
    /// `ip6 daddr`.
    Ip6Destination,
    /// `ip6 nexthdr`.
    Ip6NextHeader,
    /// `ip6 hoplimit`.
    Ip6HopLimit,
    /// `ip6 dscp`.
    Ip6Dscp,
    /// `tcp sport` and the like: the protocol number; none for `th`.
    SourcePort(Option<u8>),
    /// `tcp dport` and the like.
    DestinationPort(Option<u8>),
    /// `tcp flags`.
    TcpFlags,
    /// `icmp type`.
    IcmpType,
    /// `icmp code`.
    IcmpCode,
    /// `icmpv6 type`.
    Icmp6Type,
    /// `icmpv6 code`.
    Icmp6Code,
    /// `ether saddr`.
    EtherSource,
    /// `ether daddr`.
    EtherDestination,
    /// `ct state`.
    CtState,
    /// `ct status`.
    CtStatus,
    /// `ct direction`.
    CtDirection,
    /// `ct mark`.
    CtMark,
    /// `ct original ip saddr` and the like: the direction, and whether the
    /// destination is meant; the family is the connection's.
    CtAddress(Direction, bool),
    /// `ct original proto-src` and the like.
    CtPort(Direction, bool),
    /// `fib`: what it is asked for, and the words it is asked by (`saddr`,
    /// `daddr`, `mark`, `iif`, `oif`).
    Fib(FibResult, Vec<String>),
    /// `numgen`: the modulus and offset, and whether it counts (`inc`) or
    /// draws by chance.
    Numgen {
        /// Values go from the offset to offset + modulus - 1.
        modulus: u32,
        /// The lowest value.
        offset: u32,
        /// Whether it counts.
        incremental: bool,
    },
    /// A constant.
    Constant(u128),
    /// Several values side by side.
    Concat(Vec<Expression>),
    /// Bits that both have.
    And(Box<Expression>, Box<Expression>),
    /// Bits that either has.
    Or(Box<Expression>, Box<Expression>),
    /// Bits that one has.
    Xor(Box<Expression>, Box<Expression>),
    /// Shifted left by a constant.
    ShiftLeft(Box<Expression>, u8),
    /// Shifted right by a constant.
    ShiftRight(Box<Expression>, u8),
    /// Looked up in a map.
    Map(Box<Expression>, Box<NftMap>),
}

/// An element of a set: one atom for each part of a concatenation.
pub type NftElement = Vec<Atom>;

/// A set of values, in place or by name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum NftSetRef {
    /// The elements; any of them.
    Elements(Vec<NftElement>),
    /// `@name`.
    Named(String),
}

/// A map: values to look up by key, in place or by name.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum NftMap {
    /// Keys and values.
    Elements(Vec<(NftElement, NftElement)>),
    /// `@name`.
    Named(String),
}

/// A named set or map.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct NftSet {
    /// Its name.
    pub name: String,
    /// How its elements are written, one for each part.
    pub types: Vec<NftType>,
    /// Its elements; for a map, its keys.
    pub elements: Vec<NftElement>,
    /// For a map of values, one for each element; else empty.
    pub values: Vec<NftElement>,
    /// For a verdict map, one for each element; else empty.
    pub verdicts: Vec<Verdict>,
    /// Whether packets or time may change it (`dynamic`, `timeout`).
    pub dynamic: bool,
    /// Its text, as read: JSON, or nft's own.
    pub text: String,
    /// What of it is not understood; empty where all is.
    pub unmodelled: String,
}

/// An nft condition.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct NftMatch {
    /// What is looked at.
    pub left: Expression,
    /// How it is compared.
    pub comparison: Comparison,
    /// With what.
    pub right: NftSetRef,
}

impl NftMatch {
    /// `meta nfproto`: packets of a family.
    pub(crate) fn of_family(family: Family) -> Self {
        let number = match family {
            Family::Ipv4 => 2,
            Family::Ipv6 => 10,
        };
        NftMatch {
            left: Expression::Nfproto,
            comparison: Comparison::Equal,
            right: NftSetRef::Elements(vec![vec![Atom::Range(number, number)]]),
        }
    }
}
