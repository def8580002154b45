//! Left sides: what a rule looks at.

use serde_json::Value;

use super::value::{constant, element, pairs, Writing};
use crate::addr::Family;
use crate::model::{Direction, Expression, FibResult, NftMap, NftType};

/// An expression, how its values are written, and the layer-3 families that
/// a packet must be of for it to have one.
pub(super) struct Looked {
    pub expression: Expression,
    pub writings: Vec<Writing>,
    pub families: Vec<Family>,
}

fn single(expression: Expression, writing: Writing) -> Looked {
    Looked { expression, writings: vec![writing], families: Vec::new() }
}

fn of(expression: Expression, kind: NftType) -> Option<Looked> {
    Some(single(expression, Writing::Of(kind)))
}

fn meta(value: &Value) -> Option<Looked> {
    match value.get("key")?.as_str()? {
        "iifname" => of(Expression::Iifname, NftType::Name),
        "oifname" => of(Expression::Oifname, NftType::Name),
        "iif" => Some(single(Expression::Iifname, Writing::Index)),
        "oif" => Some(single(Expression::Oifname, Writing::Index)),
        "l4proto" => of(Expression::L4proto, NftType::Protocol),
        "nfproto" => of(Expression::Nfproto, NftType::Nfproto),
        "protocol" => Some(single(Expression::Nfproto, Writing::Ethertype)),
        "mark" => of(Expression::Mark, NftType::Number),
        "length" => of(Expression::Length, NftType::Number),
        "pkttype" => of(Expression::Pkttype, NftType::PacketType),
        _ => None,
    }
}

fn payload(value: &Value) -> Option<Looked> {
    let protocol = value.get("protocol")?.as_str()?;
    let field = value.get("field")?.as_str()?;
    let transport = match protocol {
        "tcp" => Some(Some(6)),
        "udp" => Some(Some(17)),
        "dccp" => Some(Some(33)),
        "sctp" => Some(Some(132)),
        "udplite" => Some(Some(136)),
        "th" => Some(None),
        _ => None,
    };
    match (transport, field) {
        (Some(number), "sport") => return of(Expression::SourcePort(number), NftType::Port),
        (Some(number), "dport") => return of(Expression::DestinationPort(number), NftType::Port),
        _ => {}
    }
    match (protocol, field) {
        ("ip", "saddr") => of(Expression::IpSource, NftType::Ipv4),
        ("ip", "daddr") => of(Expression::IpDestination, NftType::Ipv4),
        ("ip", "protocol") => of(Expression::IpProtocol, NftType::Protocol),
        ("ip", "ttl") => of(Expression::IpTtl, NftType::Number),
        ("ip", "dscp") => of(Expression::IpDscp, NftType::Dscp),
        ("ip", "length") => of(Expression::IpLength, NftType::Number),
        ("ip6", "saddr") => of(Expression::Ip6Source, NftType::Ipv6),
        ("ip6", "daddr") => of(Expression::Ip6Destination, NftType::Ipv6),
        ("ip6", "nexthdr") => of(Expression::Ip6NextHeader, NftType::Protocol),
        ("ip6", "hoplimit") => of(Expression::Ip6HopLimit, NftType::Number),
        ("ip6", "dscp") => of(Expression::Ip6Dscp, NftType::Dscp),
        ("tcp", "flags") => of(Expression::TcpFlags, NftType::TcpFlags),
        ("icmp", "type") => of(Expression::IcmpType, NftType::IcmpType),
        ("icmp", "code") => Some(single(Expression::IcmpCode, Writing::IcmpCode)),
        ("icmpv6", "type") => of(Expression::Icmp6Type, NftType::Icmp6Type),
        ("icmpv6", "code") => Some(single(Expression::Icmp6Code, Writing::Icmp6Code)),
        ("ether", "saddr") => of(Expression::EtherSource, NftType::Ether),
        ("ether", "daddr") => of(Expression::EtherDestination, NftType::Ether),
        _ => None,
    }
}

fn ct(value: &Value) -> Option<Looked> {
    let key = value.get("key")?.as_str()?;
    let Some(direction) = value.get("dir") else {
        return match key {
            "state" => of(Expression::CtState, NftType::CtState),
            "status" => of(Expression::CtStatus, NftType::CtStatus),
            "direction" => of(Expression::CtDirection, NftType::CtDirection),
            "mark" => of(Expression::CtMark, NftType::Number),
            _ => None,
        };
    };
    let direction = match direction.as_str()? {
        "original" => Direction::Original,
        "reply" => Direction::Reply,
        _ => return None,
    };
    let (family, field) = match key.split_once(' ') {
        Some(("ip", field)) => (Some(Family::Ipv4), field),
        Some(("ip6", field)) => (Some(Family::Ipv6), field),
        Some(_) => return None,
        None => (None, key),
    };
    let writing = match family {
        Some(Family::Ipv4) => Writing::Of(NftType::Ipv4),
        Some(Family::Ipv6) => Writing::Of(NftType::Ipv6),
        None => Writing::Address,
    };
    let looked = match field {
        "saddr" => single(Expression::CtAddress(direction, false), writing),
        "daddr" => single(Expression::CtAddress(direction, true), writing),
        "proto-src" => return of(Expression::CtPort(direction, false), NftType::Port),
        "proto-dst" => return of(Expression::CtPort(direction, true), NftType::Port),
        _ => return None,
    };
    Some(Looked { families: family.into_iter().collect(), ..looked })
}

fn fib(value: &Value) -> Option<Looked> {
    let flags = match value.get("flags")? {
        Value::String(word) => vec![word.clone()],
        Value::Array(words) => words.iter().map(|w| w.as_str().map(str::to_owned)).collect::<Option<_>>()?,
        _ => return None,
    };
    match value.get("result")?.as_str()? {
        "type" => of(Expression::Fib(FibResult::Type, flags), NftType::AddressType),
        // Later versions write `check` where only a route is asked for.
        "oif" | "check" => Some(single(Expression::Fib(FibResult::Oif, flags), Writing::Exists)),
        "oifname" => of(Expression::Fib(FibResult::Oifname, flags), NftType::Name),
        _ => None,
    }
}

fn numgen(value: &Value) -> Option<Looked> {
    let number = |key: &str| u32::try_from(value.get(key)?.as_u64()?).ok();
    let modulus = number("mod").filter(|modulus| *modulus > 0)?;
    let incremental = match value.get("mode")?.as_str()? {
        "inc" => true,
        "random" => false,
        _ => return None,
    };
    let offset = number("offset").unwrap_or(0);
    of(Expression::Numgen { modulus, offset, incremental }, NftType::Number)
}

/// `&`, `|`, `^` of two or more operands, of which constants are written as
/// the others.
fn bitwise(operands: &Value, join: fn(Box<Expression>, Box<Expression>) -> Expression) -> Option<Looked> {
    let operands = operands.as_array()?;
    let known = operands.iter().find_map(look)?;
    let [writing] = known.writings.as_slice() else { return None };
    let (writing, mut families) = (*writing, known.families);
    let mut joined: Option<Expression> = None;
    for operand in operands {
        let next = match constant(operand, writing) {
            Some(number) => Expression::Constant(number),
            None => {
                let looked = look(operand)?;
                families.extend(looked.families);
                looked.expression
            }
        };
        joined = Some(match joined {
            None => next,
            Some(before) => join(Box::new(before), Box::new(next)),
        });
    }
    Some(Looked { expression: joined?, writings: vec![writing], families })
}

fn shift(operands: &Value, join: fn(Box<Expression>, u8) -> Expression) -> Option<Looked> {
    let [value, by] = operands.as_array()?.as_slice() else { return None };
    let looked = look(value)?;
    let by = u8::try_from(by.as_u64()?).ok()?;
    Some(Looked { expression: join(Box::new(looked.expression), by), ..looked })
}

/// Whether a part of a concatenation is a code point by the shift with which it is
/// read. `nft` 1.0.6 shows that shift there, and shifts the values of the other
/// parts by it, so that what they are is not known.
fn shifted(part: &Expression) -> bool {
    let Expression::ShiftRight(inner, _) = part else { return false };
    matches!(**inner, Expression::IpDscp | Expression::Ip6Dscp)
}

fn concat(parts: &Value) -> Option<Looked> {
    let mut all = Looked { expression: Expression::Constant(0), writings: Vec::new(), families: Vec::new() };
    let mut expressions = Vec::new();
    for part in parts.as_array()? {
        let looked = look(part)?;
        expressions.push(looked.expression);
        all.writings.extend(looked.writings);
        all.families.extend(looked.families);
    }
    if expressions.iter().any(shifted) {
        return None;
    }
    Some(Looked { expression: Expression::Concat(expressions), ..all })
}

/// An expression whose value tells how it is written; none if it is not
/// understood.
pub(super) fn look(value: &Value) -> Option<Looked> {
    let map = value.as_object().filter(|map| map.len() == 1)?;
    let (key, inner) = map.iter().next()?;
    match key.as_str() {
        "meta" => meta(inner),
        "payload" => payload(inner),
        "ct" => ct(inner),
        "fib" => fib(inner),
        "numgen" => numgen(inner),
        "concat" => concat(inner),
        "&" => bitwise(inner, Expression::And),
        "|" => bitwise(inner, Expression::Or),
        "^" => bitwise(inner, Expression::Xor),
        "<<" => shift(inner, Expression::ShiftLeft),
        ">>" => shift(inner, Expression::ShiftRight),
        _ => None,
    }
}

/// An expression whose value is to be written in a given way: also constants
/// and maps.
pub(super) fn compute(value: &Value, writing: Writing) -> Option<Looked> {
    if let Some(number) = constant(value, writing) {
        return Some(single(Expression::Constant(number), writing));
    }
    let Some(map) = value.get("map") else { return look(value) };
    let key = look(map.get("key")?)?;
    let data = match map.get("data")? {
        Value::String(name) => NftMap::Named(name.strip_prefix('@')?.to_owned()),
        data => {
            let set = data.get("set")?.as_array()?;
            NftMap::Elements(pairs(set, &key.writings, |value| element(value, &[writing]))?)
        }
    };
    let expression = Expression::Map(Box::new(key.expression), Box::new(data));
    Some(Looked { expression, writings: vec![writing], families: key.families })
}
