//! Right sides: constants, ranges, prefixes, sets of them.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use serde_json::Value;

use super::super::names;
use crate::addr::Mac;
use crate::model::{Atom, NftElement, NftType};

/// How a value is written: the types of the model, and those which only
/// differ in their words.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Writing {
    /// As a type of the model.
    Of(NftType),
    /// `icmp code`.
    IcmpCode,
    /// `icmpv6 code`.
    Icmp6Code,
    /// `meta protocol`, of which the model keeps the layer-3 family.
    Ethertype,
    /// An interface index, which nft prints as a name.
    Index,
    /// Whether `fib` finds an interface.
    Exists,
    /// An address of whichever family.
    Address,
}

const CT_STATE: [(&str, u32); 5] =
    [("invalid", 1), ("established", 2), ("related", 4), ("new", 8), ("untracked", 64)];
const CT_STATUS: [(&str, u32); 7] = [
    ("expected", 1),
    ("seen-reply", 2),
    ("assured", 4),
    ("confirmed", 8),
    ("snat", 16),
    ("dnat", 32),
    ("dying", 512),
];
const CT_DIRECTION: [(&str, u32); 2] = [("original", 0), ("reply", 1)];
const TCP_FLAGS: [(&str, u32); 8] =
    [("fin", 1), ("syn", 2), ("rst", 4), ("psh", 8), ("ack", 16), ("urg", 32), ("ecn", 64), ("cwr", 128)];
const ADDRESS_TYPES: [(&str, u32); 10] = [
    ("unspec", 0),
    ("unicast", 1),
    ("local", 2),
    ("broadcast", 3),
    ("anycast", 4),
    ("multicast", 5),
    ("blackhole", 6),
    ("unreachable", 7),
    ("prohibit", 8),
    ("throw", 9),
];
const PACKET_TYPES: [(&str, u32); 5] =
    [("host", 0), ("unicast", 0), ("broadcast", 1), ("multicast", 2), ("other", 3)];
const NFPROTO: [(&str, u32); 2] = [("ipv4", 2), ("ipv6", 10)];
const ETHERTYPE: [(&str, u32); 2] = [("ip", 2), ("ip6", 10)];
const ICMP_TYPES: [(&str, u32); 13] = [
    ("echo-reply", 0),
    ("destination-unreachable", 3),
    ("source-quench", 4),
    ("redirect", 5),
    ("echo-request", 8),
    ("router-advertisement", 9),
    ("router-solicitation", 10),
    ("time-exceeded", 11),
    ("parameter-problem", 12),
    ("timestamp-request", 13),
    ("timestamp-reply", 14),
    ("info-request", 15),
    ("info-reply", 16),
];
const ICMP_MORE: [(&str, u32); 2] = [("address-mask-request", 17), ("address-mask-reply", 18)];
const ICMP6_TYPES: [(&str, u32); 19] = [
    ("destination-unreachable", 1),
    ("packet-too-big", 2),
    ("time-exceeded", 3),
    ("parameter-problem", 4),
    ("echo-request", 128),
    ("echo-reply", 129),
    ("mld-listener-query", 130),
    ("mld-listener-report", 131),
    ("mld-listener-done", 132),
    ("mld-listener-reduction", 132),
    ("nd-router-solicit", 133),
    ("nd-router-advert", 134),
    ("nd-neighbor-solicit", 135),
    ("nd-neighbor-advert", 136),
    ("nd-redirect", 137),
    ("router-renumbering", 138),
    ("ind-neighbor-solicit", 141),
    ("ind-neighbor-advert", 142),
    ("mld2-listener-report", 143),
];
pub(super) const ICMP_CODES: [(&str, u32); 8] = [
    ("net-unreachable", 0),
    ("host-unreachable", 1),
    ("prot-unreachable", 2),
    ("port-unreachable", 3),
    ("frag-needed", 4),
    ("net-prohibited", 9),
    ("host-prohibited", 10),
    ("admin-prohibited", 13),
];
pub(super) const ICMP6_CODES: [(&str, u32); 6] = [
    ("no-route", 0),
    ("admin-prohibited", 1),
    ("addr-unreachable", 3),
    ("port-unreachable", 4),
    ("policy-fail", 5),
    ("reject-route", 6),
];
impl Writing {
    /// The bits of a value.
    fn bits(self) -> u32 {
        match self {
            Writing::Of(kind) => match kind {
                NftType::Ipv4 | NftType::CtState | NftType::CtStatus | NftType::AddressType => 32,
                NftType::Number => 32,
                NftType::Ipv6 => 128,
                NftType::Ether => 48,
                NftType::Port => 16,
                NftType::Name => 0,
                NftType::Dscp => 6,
                NftType::Protocol
                | NftType::CtDirection
                | NftType::IcmpType
                | NftType::Icmp6Type
                | NftType::TcpFlags
                | NftType::PacketType
                | NftType::Nfproto => 8,
            },
            Writing::IcmpCode | Writing::Icmp6Code | Writing::Ethertype => 8,
            Writing::Index => 0,
            Writing::Exists => 32,
            Writing::Address => 128,
        }
    }

    fn highest(self) -> u128 {
        match self.bits() {
            128 => u128::MAX,
            bits => (1 << bits) - 1,
        }
    }

    /// Whether values are sets of flags, so that `in` asks for any of them.
    pub fn flags(self) -> bool {
        matches!(self, Writing::Of(NftType::CtState | NftType::CtStatus | NftType::TcpFlags))
    }

    fn name(self) -> bool {
        matches!(self, Writing::Of(NftType::Name) | Writing::Index)
    }

    fn symbol(self, word: &str) -> Option<u128> {
        let table: &[(&str, u32)] = match self {
            Writing::Of(kind) => match kind {
                NftType::Ipv4 => return word.parse::<Ipv4Addr>().ok().map(|a| a.to_bits().into()),
                NftType::Ipv6 => return word.parse::<Ipv6Addr>().ok().map(Ipv6Addr::to_bits),
                NftType::Ether => {
                    let mac: Mac = word.parse().ok()?;
                    return Some(mac.0.iter().fold(0, |bits, octet| bits << 8 | u128::from(*octet)));
                }
                NftType::Protocol => return names::protocol(word).map(u128::from),
                NftType::Dscp => return names::dscp(word).map(u128::from),
                NftType::Port => return names::service(word).map(u128::from),
                NftType::CtState => &CT_STATE,
                NftType::CtStatus => &CT_STATUS,
                NftType::CtDirection => &CT_DIRECTION,
                NftType::TcpFlags => &TCP_FLAGS,
                NftType::AddressType => &ADDRESS_TYPES,
                NftType::PacketType => &PACKET_TYPES,
                NftType::Nfproto => &NFPROTO,
                NftType::IcmpType => {
                    return names::look(&ICMP_TYPES, word).or(names::look(&ICMP_MORE, word)).map(u128::from)
                }
                NftType::Icmp6Type => &ICMP6_TYPES,
                NftType::Name | NftType::Number => &[],
            },
            Writing::IcmpCode => &ICMP_CODES,
            Writing::Icmp6Code => &ICMP6_CODES,
            Writing::Ethertype => &ETHERTYPE,
            Writing::Index | Writing::Exists => &[],
            Writing::Address => {
                return word.parse().ok().map(|address| match address {
                    IpAddr::V4(a) => a.to_bits().into(),
                    IpAddr::V6(a) => a.to_bits(),
                })
            }
        };
        names::look(table, word).map(u128::from)
    }
}

/// A constant: a number, a word, or several flags.
pub(super) fn constant(value: &Value, writing: Writing) -> Option<u128> {
    if writing.name() {
        return None;
    }
    let number = match value {
        // Numbers for the Ethernet type are not those of the family.
        Value::Number(n) if writing != Writing::Ethertype => u128::from(n.as_u64()?),
        Value::String(word) => match writing.symbol(word) {
            Some(number) => number,
            None if writing == Writing::Ethertype => return None,
            None => u128::from(names::number(word)?),
        },
        Value::Array(flags) if !flags.is_empty() => flags_of(flags, writing)?,
        Value::Object(map) if map.len() == 1 => flags_of(map.get("|")?.as_array()?, writing)?,
        _ => return None,
    };
    (number <= writing.highest()).then_some(number)
}

fn flags_of(flags: &[Value], writing: Writing) -> Option<u128> {
    if !writing.flags() {
        return None;
    }
    flags.iter().try_fold(0, |bits, flag| Some(bits | constant(flag, writing)?))
}

fn prefix(value: &Value, writing: Writing) -> Option<Atom> {
    let address = value.get("addr")?;
    let length = u32::try_from(value.get("len")?.as_u64()?).ok()?;
    let writing = match (writing, address.as_str()) {
        (Writing::Address, Some(word)) if word.contains(':') => Writing::Of(NftType::Ipv6),
        (Writing::Address, _) => Writing::Of(NftType::Ipv4),
        (other, _) => other,
    };
    let host = writing.bits().checked_sub(length)?;
    let mask = if host == 128 { u128::MAX } else { (1 << host) - 1 };
    let low = constant(address, writing)? & !mask;
    Some(Atom::Range(low, low | mask))
}

/// One value, range or prefix.
pub(super) fn atom(value: &Value, writing: Writing) -> Option<Atom> {
    if let Value::Object(map) = value {
        if let Some(inner) = map.get("prefix") {
            return prefix(inner, writing);
        }
        if let Some(Value::Array(ends)) = map.get("range") {
            let [low, high] = ends.as_slice() else { return None };
            return Some(Atom::Range(constant(low, writing)?, constant(high, writing)?));
        }
    }
    match (value, writing) {
        (Value::String(word), _) if writing.name() => Some(match word.strip_suffix('*') {
            // A name that really ends in an asterisk is printed escaped.
            Some(start) => match start.strip_suffix('\\') {
                Some(start) => Atom::Name(format!("{start}*"), false),
                None => Atom::Name(start.to_owned(), true),
            },
            None => Atom::Name(word.clone(), false),
        }),
        (Value::String(word), _) if word == "*" => Some(Atom::Range(0, writing.highest())),
        (Value::Bool(exists), Writing::Exists) if *exists => Some(Atom::Range(1, u32::MAX.into())),
        (Value::Bool(_), Writing::Exists) => Some(Atom::Range(0, 0)),
        _ => constant(value, writing).map(|number| Atom::Range(number, number)),
    }
}

/// The value inside `{"elem": …}`, which may carry a timeout and so on; none
/// if it carries what may keep it from matching.
fn bare(value: &Value) -> Option<&Value> {
    const HARMLESS: [&str; 5] = ["val", "timeout", "expires", "comment", "counter"];
    match value.get("elem") {
        None => Some(value),
        Some(Value::Object(elem)) if elem.keys().all(|key| HARMLESS.contains(&key.as_str())) => {
            elem.get("val")
        }
        Some(_) => None,
    }
}

/// An element: one value, or several side by side.
pub(super) fn element(value: &Value, writings: &[Writing]) -> Option<NftElement> {
    let value = bare(value)?;
    if let Some(parts) = value.get("concat") {
        let parts = parts.as_array()?;
        if parts.len() != writings.len() {
            return None;
        }
        return parts.iter().zip(writings).map(|(part, writing)| atom(part, *writing)).collect();
    }
    match writings {
        [writing] => Some(vec![atom(value, *writing)?]),
        several if value == "*" => several.iter().map(|w| atom(value, *w)).collect(),
        _ => None,
    }
}

/// The elements of a set in place.
pub(super) fn elements(values: &[Value], writings: &[Writing]) -> Option<Vec<NftElement>> {
    values.iter().map(|value| element(value, writings)).collect()
}

/// The pairs of a map in place, the one for everything else (`*`) last, since
/// the others win over it.
pub(super) fn pairs<T>(
    values: &[Value],
    writings: &[Writing],
    read: impl Fn(&Value) -> Option<T>,
) -> Option<Vec<(NftElement, T)>> {
    let pair = |value: &Value| match value.as_array()?.as_slice() {
        [key, value] => Some((bare(key)? == "*", element(key, writings)?, read(value)?)),
        _ => None,
    };
    let mut pairs: Vec<(bool, NftElement, T)> = values.iter().map(pair).collect::<Option<_>>()?;
    pairs.sort_by_key(|(rest, _, _)| *rest);
    Some(pairs.into_iter().map(|(_, key, value)| (key, value)).collect())
}
