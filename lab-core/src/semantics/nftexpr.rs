//! What nft expressions are worth for one packet (`man nft`;
//! `net/netfilter/nft_meta.c`, `nft_ct.c`, `nft_payload.c`, `nft_fib.c`).
//!
//! An expression that a packet cannot answer (a TCP port of a UDP packet, the
//! mark of no connection) ends the rule, whatever it is compared with.

use std::net::IpAddr;

use super::addrtype::address_type;
use super::conntrack::{Info, TEMPLATE};
use super::header::in_range;
use super::input::uses;
use super::matches::compare;
use super::routing::{link_local, lookup, Flow, Lookup};
use super::{Context, Tri};
use crate::addr::{Family, Mac, PortRange};
use crate::model::{
    AddressType, Atom, Comparison, ConntrackState, Direction, Expression, FibResult, Hook, InterfaceKind,
    NftElement, NftMap, NftMatch, NftSet, NftSetRef, PacketType, PortValue, Route, RouteKind, Transport,
    Verdict,
};

/// Why nothing is known of a route asked for in INPUT: newer kernels do not look
/// up what loops back there, either (`nft_fib_can_skip`).
pub(super) const LOOPS: &str = "whether this kernel looks up what loops back";

/// Why nothing is known of the type of an address to what is in a VRF: only newer
/// kernels ask there where no device is named (`nft_fib_l3mdev_master_ifindex_rcu`).
pub(super) const TYPE_IN_VRF: &str = "whether this kernel asks the VRF what an address is";

/// The value of an expression.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// A number; addresses are numbers too.
    Number(u128),
    /// A port that may not be known.
    Port(PortValue),
    /// An interface name.
    Name(String),
    /// Several values side by side.
    Parts(Vec<Value>),
    /// The packet has no such thing: the rule ends.
    Absent,
    /// It depends on what is not known: the reason.
    Unknown(String),
}

fn number(address: IpAddr) -> Value {
    Value::Number(match address {
        IpAddr::V4(a) => u128::from(a.to_bits()),
        IpAddr::V6(a) => a.to_bits(),
    })
}

fn mac(address: Option<Mac>) -> Value {
    match address {
        Some(mac) => Value::Number(mac.to_bits().into()),
        None => Value::Absent,
    }
}

/// Evaluates an expression.
pub fn value(expression: &Expression, at: &Context) -> Value {
    let packet = at.packet;
    let v4 = packet.family() == Family::Ipv4;
    let only = |wanted: bool, then: Value| if wanted { then } else { Value::Absent };
    let plain = |n: u128| Value::Number(n);
    match expression {
        Expression::Iifname => Value::Name(at.input.unwrap_or("").to_owned()),
        Expression::Oifname => Value::Name(at.output.unwrap_or("").to_owned()),
        Expression::L4proto => plain(packet.transport.protocol().into()),
        Expression::Nfproto => plain(if v4 { 2 } else { 10 }),
        Expression::Mark => plain(packet.mark.into()),
        Expression::Length => plain(packet.length.into()),
        Expression::Pkttype => plain(match at.packet_type {
            PacketType::Unicast => 0,
            PacketType::Broadcast => 1,
            PacketType::Multicast => 2,
            PacketType::Otherhost => 3,
        }),
        Expression::IpSource => only(v4, number(packet.src)),
        Expression::IpDestination => only(v4, number(packet.dst)),
        Expression::IpProtocol => only(v4, plain(packet.transport.protocol().into())),
        Expression::IpTtl => only(v4, plain(packet.ttl.into())),
        Expression::IpDscp => only(v4, plain((packet.tos >> 2).into())),
        Expression::IpLength => only(v4, plain(packet.length.into())),
        Expression::Ip6Source => only(!v4, number(packet.src)),
        Expression::Ip6Destination => only(!v4, number(packet.dst)),
        Expression::Ip6NextHeader => only(!v4, plain(packet.transport.protocol().into())),
        Expression::Ip6HopLimit => only(!v4, plain(packet.ttl.into())),
        Expression::Ip6Dscp => only(!v4, plain((packet.tos >> 2).into())),
        Expression::SourcePort(protocol) => port(at, *protocol, false),
        Expression::DestinationPort(protocol) => port(at, *protocol, true),
        Expression::TcpFlags => match packet.transport {
            Transport::Tcp { flags, .. } => plain(flags.0.into()),
            _ => Value::Absent,
        },
        Expression::IcmpType | Expression::IcmpCode => match packet.transport {
            Transport::Icmp { kind, code, .. } => {
                plain(if *expression == Expression::IcmpType { kind } else { code }.into())
            }
            _ => Value::Absent,
        },
        Expression::Icmp6Type | Expression::Icmp6Code => match packet.transport {
            Transport::Icmp6 { kind, code, .. } => {
                plain(if *expression == Expression::Icmp6Type { kind } else { code }.into())
            }
            _ => Value::Absent,
        },
        Expression::EtherSource => mac(at.source_mac),
        Expression::EtherDestination => mac(at.destination_mac),
        Expression::CtState => plain(match at.info.state() {
            ConntrackState::Invalid => 1,
            ConntrackState::Established => 2,
            ConntrackState::Related => 4,
            ConntrackState::New => 8,
            ConntrackState::Untracked => 64,
        }),
        Expression::CtDirection if at.info == Info::Template => plain(0),
        Expression::CtStatus | Expression::CtAddress(..) | Expression::CtPort(..)
            if at.info == Info::Template =>
        {
            Value::Unknown(TEMPLATE.into())
        }
        Expression::CtStatus => match at.connection {
            None => Value::Absent,
            Some(c) => plain(
                [
                    (c.seen_reply, 2),
                    (c.assured, 4),
                    (c.confirmed, 8),
                    (c.snat, 16),
                    (c.dnat, 32),
                    (c.source_done, 128),
                    (c.destination_done, 256),
                ]
                .iter()
                .filter(|(set, _)| *set)
                .map(|(_, bit)| bit)
                .sum(),
            ),
        },
        Expression::CtDirection => match (at.connection, at.info) {
            (None, _) | (_, Info::Invalid | Info::Untracked) => Value::Absent,
            (Some(_), info) => plain(u128::from(info.direction() == Direction::Reply)),
        },
        Expression::CtMark => at.connection_mark().map_or(Value::Absent, |mark| plain(mark.into())),
        Expression::CtAddress(direction, destination) => at.connection.map_or(Value::Absent, |c| {
            let tuple = if *direction == Direction::Original { c.original } else { c.reply };
            number(if *destination { tuple.dst } else { tuple.src })
        }),
        Expression::CtPort(direction, destination) => at.connection.map_or(Value::Absent, |c| {
            let tuple = if *direction == Direction::Original { c.original } else { c.reply };
            Value::Port(if *destination { tuple.dport } else { tuple.sport })
        }),
        Expression::Fib(result, words) => fib(at, *result, words),
        Expression::Numgen { modulus, offset, incremental } => {
            if *modulus <= 1 {
                plain((*offset).into())
            } else if *incremental {
                Value::Unknown(format!("a counter modulo {modulus}"))
            } else {
                Value::Unknown(format!("chance, one of {modulus}"))
            }
        }
        Expression::Constant(n) => plain(*n),
        Expression::Concat(parts) => {
            let parts: Vec<Value> = parts.iter().map(|p| value(p, at)).collect();
            if parts.contains(&Value::Absent) {
                return Value::Absent;
            }
            Value::Parts(parts)
        }
        Expression::And(a, b) => both(value(a, at), value(b, at), |a, b| a & b),
        Expression::Or(a, b) => both(value(a, at), value(b, at), |a, b| a | b),
        Expression::Xor(a, b) => both(value(a, at), value(b, at), |a, b| a ^ b),
        Expression::ShiftLeft(a, by) => both(value(a, at), plain((*by).into()), |a, by| a << by.min(127)),
        Expression::ShiftRight(a, by) => both(value(a, at), plain((*by).into()), |a, by| a >> by.min(127)),
        Expression::Map(key, map) => mapped(key, map, at),
    }
}

fn both(a: Value, b: Value, then: impl Fn(u128, u128) -> u128) -> Value {
    let plain = |v: Value| match v {
        Value::Port(PortValue::Is(n)) => Value::Number(n.into()),
        Value::Port(PortValue::Fresh(_)) => Value::Unknown("the port that the sender's kernel picks".into()),
        Value::Name(_) | Value::Parts(_) => Value::Absent,
        other => other,
    };
    match (plain(a), plain(b)) {
        (Value::Number(a), Value::Number(b)) => Value::Number(then(a, b)),
        (Value::Absent, _) | (_, Value::Absent) => Value::Absent,
        (Value::Unknown(why), _) | (_, Value::Unknown(why)) => Value::Unknown(why),
        _ => Value::Absent,
    }
}

fn port(at: &Context, protocol: Option<u8>, destination: bool) -> Value {
    let transport = &at.packet.transport;
    if protocol.is_some_and(|p| p != transport.protocol()) {
        return Value::Absent;
    }
    match transport.ports() {
        Some((src, dst)) => Value::Port(if destination { dst } else { src }),
        // `th` reads whatever bytes stand there.
        None => Value::Unknown("header bytes of a protocol without ports".into()),
    }
}

fn fib(at: &Context, result: FibResult, words: &[String]) -> Value {
    let has = |word: &str| words.iter().any(|w| w == word);
    let packet = at.packet;
    let (asked, other) = if has("saddr") { (packet.src, packet.dst) } else { (packet.dst, packet.src) };
    let device = if has("iif") {
        at.input
    } else if has("oif") {
        at.output
    } else {
        None
    };
    let own = match at.hook {
        Hook::Postrouting => at.output,
        Hook::Output => None,
        _ => at.input,
    };
    if result == FibResult::Type {
        if device.is_none() && own.is_some_and(|own| at.host.vrf_of(own).is_some()) {
            return Value::Unknown(TYPE_IN_VRF.into());
        }
        let kind = match address_type(at.host, asked, device) {
            Ok(kind) => kind,
            Err(why) => return Value::Unknown(why),
        };
        return Value::Number(match kind {
            AddressType::Unspec => 0,
            AddressType::Unicast => 1,
            AddressType::Local => 2,
            AddressType::Broadcast => 3,
            AddressType::Anycast => 4,
            AddressType::Multicast => 5,
            AddressType::Blackhole => 6,
            AddressType::Unreachable => 7,
            AddressType::Prohibit => 8,
            AddressType::Throw => 9,
            AddressType::Nat => 10,
            AddressType::Xresolve => 11,
        });
    }
    let found = |name: Option<&str>| match result {
        FibResult::Oifname => Value::Name(name.unwrap_or("").to_owned()),
        FibResult::Oif | FibResult::Type => {
            let index = name.and_then(|n| at.host.interface(n)).map_or(0, |i| i.index);
            Value::Number(index.into())
        }
    };
    // A packet that loops back has no route to look up (nft_fib_is_loopback).
    let loopback =
        at.input.and_then(|i| at.host.interface(i)).is_some_and(|i| i.kind == InterfaceKind::Loopback);
    match at.hook {
        Hook::Prerouting if loopback => return found(at.input),
        Hook::Input if loopback => return Value::Unknown(LOOPS.into()),
        _ => {}
    }
    // What reaches as far as its link is asked by the packet's device
    // (nft_fib6_flowi_init); and whatever is in a VRF, there.
    let flow = Flow {
        dst: asked,
        src: Some(other),
        iif: "lo",
        oif: device.or(own).filter(|_| link_local(asked)),
        vrf: device.or(own),
        bound: false,
        mark: if has("mark") { packet.mark } else { 0 },
        tos: packet.tos,
        protocol: Some(packet.transport.protocol()),
        ports: None,
    };
    match lookup(at.host, &flow) {
        Lookup::Unknown(why) => Value::Unknown(why),
        Lookup::NoRoute | Lookup::Refused(_) => found(None),
        Lookup::Found(route, hops) => {
            if !fib_tells(route) {
                return found(None);
            }
            match device {
                Some(device) => found(uses(at.host, hops, device).then_some(device)),
                None => found(hops.first().and_then(|h| h.interface.as_deref())),
            }
        }
    }
}

/// Whether `fib … oif` tells by what device a route leads: IPv4 keeps to itself what
/// is local (`nft_fib4_eval`), IPv6 what is anybody's, too (`nft_fib6_eval`).
pub(super) fn fib_tells(route: &Route) -> bool {
    match route.family {
        Family::Ipv4 => route.kind != RouteKind::Local,
        Family::Ipv6 => !matches!(route.kind, RouteKind::Local | RouteKind::Anycast),
    }
}

fn mapped(key: &Expression, map: &NftMap, at: &Context) -> Value {
    let key = value(key, at);
    let of = |element: &NftElement| match element.as_slice() {
        [Atom::Range(low, high)] if low == high => Value::Number(*low),
        [Atom::Name(name, _)] => Value::Name(name.clone()),
        parts => Value::Parts(
            parts
                .iter()
                .map(|p| match p {
                    Atom::Range(low, _) => Value::Number(*low),
                    Atom::Name(name, _) => Value::Name(name.clone()),
                })
                .collect(),
        ),
    };
    let pairs: Vec<(&NftElement, &NftElement)> = match map {
        NftMap::Elements(pairs) => pairs.iter().map(|(k, v)| (k, v)).collect(),
        NftMap::Named(name) => match named(at, name) {
            Ok(set) => set.elements.iter().zip(&set.values).collect(),
            Err(why) => return Value::Unknown(why),
        },
    };
    for (element, result) in pairs {
        match element_holds(&key, element) {
            Tri::Yes => return of(result),
            Tri::No => {}
            Tri::Unknown(why) => return Value::Unknown(why),
        }
    }
    Value::Absent
}

fn named<'a>(at: &Context<'a>, name: &str) -> Result<&'a NftSet, String> {
    match at.table.set(name) {
        None => Err(format!("set @{name} is not in the table")),
        Some(set) if !set.unmodelled.is_empty() => Err(format!("set @{name}: {}", set.unmodelled)),
        Some(set) if set.dynamic => Err(format!("set @{name} changes by itself")),
        Some(set) => Ok(set),
    }
}

fn atom_holds(value: &Value, atom: &Atom) -> Tri {
    match (value, atom) {
        (Value::Number(n), Atom::Range(low, high)) => (low <= n && n <= high).into(),
        (Value::Port(port), Atom::Range(low, high)) => {
            let clip = |n: &u128| u16::try_from(*n).unwrap_or(u16::MAX);
            in_range(*port, PortRange { low: clip(low), high: clip(high) })
        }
        (Value::Name(name), Atom::Name(wanted, prefix)) => {
            (if *prefix { name.starts_with(wanted) } else { name == wanted }).into()
        }
        (Value::Unknown(why), _) => Tri::Unknown(why.clone()),
        _ => Tri::No,
    }
}

fn element_holds(value: &Value, element: &NftElement) -> Tri {
    match value {
        Value::Unknown(why) => Tri::Unknown(why.clone()),
        Value::Parts(parts) if parts.len() == element.len() => parts
            .iter()
            .zip(element)
            .fold(Tri::Yes, |truth, (part, atom)| truth.and(|| atom_holds(part, atom))),
        single => match element.as_slice() {
            [atom] => atom_holds(single, atom),
            _ => Tri::No,
        },
    }
}

/// Whether an nft condition holds.
pub fn holds(condition: &NftMatch, at: &Context) -> Tri {
    let left = value(&condition.left, at);
    if left == Value::Absent {
        return Tri::No;
    }
    let elements = match &condition.right {
        NftSetRef::Elements(elements) => elements.as_slice(),
        NftSetRef::Named(name) => match named(at, name) {
            Ok(set) => set.elements.as_slice(),
            Err(why) => return Tri::Unknown(why),
        },
    };
    match condition.comparison {
        Comparison::Equal | Comparison::NotEqual => elements
            .iter()
            .fold(Tri::No, |truth, element| truth.or(|| element_holds(&left, element)))
            .inverted(condition.comparison == Comparison::NotEqual),
        other => {
            // One constant stands on the right of an order or bit test.
            let Some([Atom::Range(low, high)]) = elements.first().map(Vec::as_slice) else { return Tri::No };
            let right = &bound(other, *low, *high);
            match left {
                Value::Number(n) => compare(other, n, *right).into(),
                Value::Port(PortValue::Is(n)) => compare(other, n.into(), *right).into(),
                Value::Port(port @ PortValue::Fresh(_)) => ordered(port, other, *right),
                Value::Unknown(why) => Tri::Unknown(why),
                Value::Name(_) | Value::Parts(_) | Value::Absent => Tri::No,
            }
        }
    }
}

/// The end of a prefix that an order test is about: the kernel masks the left
/// side, so that only what lies behind all of the prefix is greater.
pub(super) fn bound(comparison: Comparison, low: u128, high: u128) -> u128 {
    match comparison {
        Comparison::Greater | Comparison::LessOrEqual => high,
        _ => low,
    }
}

/// An order test on a port that is not known: the range of ports it admits.
fn ordered(port: PortValue, comparison: Comparison, right: u128) -> Tri {
    let right = u16::try_from(right).unwrap_or(u16::MAX);
    let range = match comparison {
        Comparison::Less if right == 0 => return Tri::No,
        Comparison::Less => PortRange { low: 0, high: right - 1 },
        Comparison::LessOrEqual => PortRange { low: 0, high: right },
        Comparison::Greater if right == u16::MAX => return Tri::No,
        Comparison::Greater => PortRange { low: right + 1, high: u16::MAX },
        Comparison::GreaterOrEqual => PortRange { low: right, high: u16::MAX },
        _ => return Tri::Unknown("the port that the sender's kernel picks".into()),
    };
    in_range(port, range)
}

/// What a verdict map says to a packet: none if no element holds its key.
///
/// # Errors
/// The reason, where it cannot be known.
pub fn verdict(
    key: &Expression,
    elements: &[(NftElement, Verdict)],
    name: Option<&str>,
    at: &Context,
) -> Result<Option<Verdict>, String> {
    let key = value(key, at);
    if key == Value::Absent {
        return Ok(None);
    }
    let pairs: Vec<(&NftElement, &Verdict)> = match name {
        None => elements.iter().map(|(k, v)| (k, v)).collect(),
        Some(name) => {
            let set = named(at, name)?;
            set.elements.iter().zip(&set.verdicts).collect()
        }
    };
    for (element, verdict) in pairs {
        match element_holds(&key, element) {
            Tri::Yes => return Ok(Some(verdict.clone())),
            Tri::No => {}
            Tri::Unknown(why) => return Err(why),
        }
    }
    Ok(None)
}
