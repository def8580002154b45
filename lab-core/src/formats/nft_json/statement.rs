//! The statements of a rule.

use serde_json::{Map, Value};

use super::super::names;
use super::expression::{compute, look, Looked};
use super::value::{constant, element, elements, pairs, Writing, ICMP6_CODES, ICMP_CODES};
use crate::addr::{Family, PortRange};
use crate::model::{
    Comparison, Direction, Expression, FibResult, Mangle, Match, NatAddress, NatKind, NatRange, NftMap,
    NftMatch, NftSet, NftSetRef, NftType, RejectWith, Statement, TableFamily, Target, Verdict,
};

/// What `icmpx` codes are called.
const ICMPX_CODES: [(&str, u32); 4] =
    [("no-route", 0), ("port-unreachable", 1), ("host-unreachable", 2), ("admin-prohibited", 3)];

/// A verdict.
pub(super) fn verdict(value: &Value) -> Option<Verdict> {
    let map = value.as_object().filter(|map| map.len() == 1)?;
    let (key, inner) = map.iter().next()?;
    let target = || inner.get("target")?.as_str().map(str::to_owned);
    Some(match key.as_str() {
        "accept" => Verdict::Accept,
        "drop" => Verdict::Drop,
        "return" => Verdict::Return,
        "continue" => Verdict::Continue,
        "jump" => Verdict::Jump(target()?.into()),
        "goto" => Verdict::Goto(target()?.into()),
        _ => return None,
    })
}

/// `fib` knows interfaces by index and by name; nft compares either with a
/// name, or asks whether there is one.
fn settle_fib(left: Looked, right: &Value) -> Looked {
    let sample = match right.get("set") {
        Some(Value::Array(items)) => items.first().unwrap_or(right),
        _ => right,
    };
    match left.expression {
        Expression::Fib(FibResult::Oif | FibResult::Oifname, flags) => {
            let (result, writing) = match sample {
                // Index 0: there is none.
                Value::String(word) if word != "0" => (FibResult::Oifname, Writing::Of(NftType::Name)),
                _ => (FibResult::Oif, Writing::Exists),
            };
            Looked {
                expression: Expression::Fib(result, flags),
                writings: vec![writing],
                families: left.families,
            }
        }
        expression => Looked { expression, ..left },
    }
}

fn condition(value: &Value) -> Option<(NftMatch, Vec<Family>)> {
    let right = value.get("right")?;
    let left = settle_fib(look(value.get("left")?)?, right);
    let flags = matches!(left.writings.as_slice(), [writing] if writing.flags());
    let set = match right {
        Value::String(name) if name.starts_with('@') => true,
        other => other.get("set").is_some(),
    };
    let comparison = match value.get("op")?.as_str()? {
        "in" if flags && !set => Comparison::AnyBit,
        "in" | "==" => Comparison::Equal,
        "!" if flags && !set => Comparison::NoBit,
        "!=" => Comparison::NotEqual,
        "<" => Comparison::Less,
        "<=" => Comparison::LessOrEqual,
        ">" => Comparison::Greater,
        ">=" => Comparison::GreaterOrEqual,
        _ => return None,
    };
    // The kernel orders devices by their numbers, which no rule tells.
    let ordered = !matches!(comparison, Comparison::Equal | Comparison::NotEqual);
    if ordered && left.writings.iter().any(|w| matches!(w, Writing::Of(NftType::Name) | Writing::Index)) {
        return None;
    }
    let right = match (right, right.get("set")) {
        (Value::String(name), _) if name.starts_with('@') => NftSetRef::Named(name[1..].to_owned()),
        (_, Some(Value::Array(items))) => NftSetRef::Elements(elements(items, &left.writings)?),
        (_, Some(_)) => return None,
        (one, None) => NftSetRef::Elements(vec![element(one, &left.writings)?]),
    };
    Some((NftMatch { left: left.expression, comparison, right }, left.families))
}

fn verdict_map(value: &Value) -> Option<(Target, Vec<Family>)> {
    let key = look(value.get("key")?)?;
    let (elements, name) = match value.get("data")? {
        Value::String(name) => (Vec::new(), Some(name.strip_prefix('@')?.to_owned())),
        data => (pairs(data.get("set")?.as_array()?, &key.writings, verdict)?, None),
    };
    Some((Target::VerdictMap { key: key.expression, elements, name }, key.families))
}

fn reject(value: &Value, family: TableFamily) -> Option<Target> {
    let by_family = match family {
        TableFamily::Ip => RejectWith::Icmp(3),
        TableFamily::Ip6 => RejectWith::Icmp6(4),
        _ => RejectWith::Icmpx(1),
    };
    let code = |table: &[(&str, u32)], usual: u8| match value.get("expr") {
        None => Some(usual),
        Some(Value::String(word)) => names::look(table, word).and_then(|n| u8::try_from(n).ok()),
        Some(number) => u8::try_from(number.as_u64()?).ok(),
    };
    Some(Target::Reject(match value.get("type") {
        None if value.get("expr").is_none() => by_family,
        None => return None,
        Some(kind) => match kind.as_str()? {
            "tcp reset" => RejectWith::TcpReset,
            "icmp" => RejectWith::Icmp(code(&ICMP_CODES, 3)?),
            "icmpv6" => RejectWith::Icmp6(code(&ICMP6_CODES, 4)?),
            "icmpx" => RejectWith::Icmpx(code(&ICMPX_CODES, 1)?),
            _ => return None,
        },
    }))
}

fn ports(value: &Value) -> Option<PortRange> {
    let port = |value: &Value| u16::try_from(constant(value, Writing::Of(NftType::Port))?).ok();
    match value.get("range").and_then(Value::as_array).map(Vec::as_slice) {
        Some([low, high]) => Some(PortRange { low: port(low)?, high: port(high)? }),
        Some(_) => None,
        None => port(value).map(PortRange::from),
    }
}

/// The address of a NAT statement, and the families it is for where that
/// does not show from the address.
fn nat_address(value: &Value, family: Option<Family>) -> Option<(NatAddress, Vec<Family>)> {
    if let Some(address) = value.as_str().filter(|word| !word.starts_with('@')) {
        let address = address.parse().ok()?;
        return Some((NatAddress::Range(address, address), Vec::new()));
    }
    if let Some([low, high]) = value.get("range").and_then(Value::as_array).map(Vec::as_slice) {
        let range = NatAddress::Range(low.as_str()?.parse().ok()?, high.as_str()?.parse().ok()?);
        return Some((range, Vec::new()));
    }
    if let Some(prefix) = value.get("prefix") {
        let length = u8::try_from(prefix.get("len")?.as_u64()?).ok()?;
        let net = ipnet::IpNet::new(prefix.get("addr")?.as_str()?.parse().ok()?, length).ok()?;
        return Some((NatAddress::Range(net.network(), net.broadcast()), Vec::new()));
    }
    let writing = match family? {
        Family::Ipv4 => Writing::Of(NftType::Ipv4),
        Family::Ipv6 => Writing::Of(NftType::Ipv6),
    };
    let mut looked = compute(value, writing)?;
    if looked.writings != [writing] {
        return None;
    }
    looked.families.extend(family);
    Some((NatAddress::Computed(looked.expression), looked.families))
}

fn nat(kind: NatKind, value: &Value, table: TableFamily) -> Option<(Target, Vec<Family>)> {
    const KEYS: [&str; 5] = ["addr", "family", "port", "flags", "type_flags"];
    let empty = Map::new();
    let map = match value {
        Value::Null => &empty,
        other => other.as_object()?,
    };
    if map.keys().any(|key| !KEYS.contains(&key.as_str())) {
        return None;
    }
    // Other type flags make prefixes or pairs of what stands in `addr`.
    let words = |key: &str| match map.get(key) {
        None => Some(Vec::new()),
        Some(Value::String(word)) => Some(vec![word.as_str()]),
        Some(Value::Array(items)) => items.iter().map(Value::as_str).collect(),
        Some(_) => None,
    };
    if words("type_flags")?.iter().any(|flag| *flag != "interval") {
        return None;
    }
    let family = match map.get("family").and_then(Value::as_str).unwrap_or(match table {
        TableFamily::Ip => "ip",
        TableFamily::Ip6 => "ip6",
        _ => "",
    }) {
        "ip" => Some(Family::Ipv4),
        "ip6" => Some(Family::Ipv6),
        _ => None,
    };
    let mut range = NatRange::default();
    let mut families = Vec::new();
    if let Some(address) = map.get("addr") {
        let (address, known) = nat_address(address, family)?;
        range.address = Some(address);
        families = known;
    }
    if let Some(port) = map.get("port") {
        range.ports = Some(ports(port)?);
    }
    for flag in words("flags")? {
        match flag {
            "random" => range.random = true,
            "fully-random" => range.random_fully = true,
            "persistent" => range.persistent = true,
            _ => return None,
        }
    }
    Some((Target::Nat { kind, range }, families))
}

fn mangle(value: &Value) -> Option<(Target, Vec<Family>)> {
    let key = value.get("key")?;
    let new = value.get("value")?;
    if let Some("zone") = key.get("ct").and_then(|ct| ct.get("key")?.as_str()) {
        let direction = match key.get("ct").and_then(|ct| ct.get("dir")?.as_str()) {
            None => None,
            Some("original") => Some(Direction::Original),
            Some("reply") => Some(Direction::Reply),
            Some(_) => return None,
        };
        let zone = u16::try_from(new.as_u64()?).ok()?;
        return Some((Target::CtZone { zone, direction }, Vec::new()));
    }
    // The priority of a queue, traces and the MSS decide nothing.
    let harmless = match (key.get("meta").and_then(|meta| meta.get("key")?.as_str()), key.get("tcp option")) {
        (Some(word @ ("priority" | "nftrace")), _) => Some(format!("meta {word}")),
        (_, Some(option)) if option.get("name")?.as_str()? == "maxseg" => {
            Some("tcp option maxseg".to_owned())
        }
        _ => None,
    };
    if let Some(name) = harmless {
        return Some((Target::NoEffect { name, options: new.to_string() }, Vec::new()));
    }
    let looked = look(key)?;
    let what = match looked.expression {
        Expression::Mark => Mangle::Mark,
        Expression::CtMark => Mangle::CtMark,
        Expression::IpTtl => Mangle::IpTtl,
        Expression::Ip6HopLimit => Mangle::Ip6HopLimit,
        Expression::IpDscp => Mangle::IpDscp,
        Expression::Ip6Dscp => Mangle::Ip6Dscp,
        _ => return None,
    };
    let [writing] = looked.writings.as_slice() else { return None };
    let value = compute(new, *writing)?;
    Some((Target::Mangle(what, value.expression), value.families))
}

/// Whether a rule's address translation takes more than an address from a
/// named map: then `addr . port` was meant, which the JSON does not say.
pub(super) fn takes_more(target: &Target, sets: &[NftSet]) -> bool {
    let Target::Nat { range, .. } = target else { return false };
    let Some(NatAddress::Computed(Expression::Map(_, map))) = &range.address else { return false };
    let NftMap::Named(name) = map.as_ref() else { return false };
    sets.iter().any(|set| set.name == *name && set.values.iter().any(|value| value.len() != 1))
}

/// A name for what is not modelled: its keys, as far as they tell something.
fn name(key: &str, value: &Value) -> String {
    let word = |value: &Value| value.as_str().map(str::to_owned);
    match key {
        "match" => match value.get("left").and_then(Value::as_object).and_then(|map| map.iter().next()) {
            Some((key, inner)) => match inner.get("key").or(inner.get("field")).and_then(word) {
                Some(field) => format!("{key} {field}"),
                None => key.clone(),
            },
            None => key.to_owned(),
        },
        "xt" => value.get("name").and_then(word).unwrap_or_else(|| key.to_owned()),
        _ => key.to_owned(),
    }
}

fn harmless(name: &str, options: &Value) -> Target {
    let options = match options {
        Value::Null => String::new(),
        other => other.to_string(),
    };
    Target::NoEffect { name: name.to_owned(), options }
}

fn target(key: &str, value: &Value, family: TableFamily) -> Option<(Target, Vec<Family>)> {
    let plain = |target: Target| Some((target, Vec::new()));
    match key {
        "vmap" => verdict_map(value),
        "counter" if value.is_string() => plain(harmless(key, value)),
        "counter" => plain(harmless(key, &Value::Null)),
        "log" => plain(harmless(key, value)),
        "limit" => {
            let rate = value.as_object().filter(|limit| limit.contains_key("rate"))?;
            plain(Target::Limit { over: rate.get("inv").and_then(Value::as_bool).unwrap_or(false) })
        }
        "reject" => plain(reject(value, family)?),
        "snat" => nat(NatKind::Snat, value, family),
        "dnat" => nat(NatKind::Dnat, value, family),
        "masquerade" => nat(NatKind::Masquerade, value, family),
        "redirect" => nat(NatKind::Redirect, value, family),
        "notrack" => plain(Target::Notrack { legacy: false }),
        "mangle" => mangle(value),
        _ => None,
    }
}

/// Says the families that a packet must be of. In tables of one family that
/// goes without saying.
fn guard(families: &[Family], table: TableFamily, statements: &mut Vec<Statement>) {
    let mut families = families.to_vec();
    families.sort();
    families.dedup();
    if matches!(table, TableFamily::Ip | TableFamily::Ip6) {
        return;
    }
    let only = |family| Statement::Match(Match::Nft(Box::new(NftMatch::of_family(family))));
    statements.extend(families.into_iter().map(only));
}

/// Reads one statement. The kernel ends a rule that looks at what a packet of
/// the other family lacks; where the expression does not show its family, a
/// match on the family is put before it.
pub(super) fn statement(value: &Value, family: TableFamily, statements: &mut Vec<Statement>) {
    let null = Value::Null;
    let (key, inner) = match (value, value.as_object().and_then(|map| map.iter().next())) {
        (_, Some((key, inner))) => (key.as_str(), inner),
        (Value::String(word), _) => (word.as_str(), &null),
        _ => ("", &null),
    };
    let text = || value.to_string();
    if key == "match" {
        let condition = match condition(inner) {
            Some((condition, families)) => {
                guard(&families, family, statements);
                Match::Nft(Box::new(condition))
            }
            None => Match::Unmodelled { name: name(key, inner), text: text() },
        };
        statements.push(Statement::Match(condition));
        return;
    }
    if key == "xt" && inner.get("type").and_then(Value::as_str) == Some("match") {
        statements.push(Statement::Match(Match::Unmodelled { name: name(key, inner), text: text() }));
        return;
    }
    let target = match verdict(value) {
        Some(verdict) => Target::Verdict(verdict),
        None => match target(key, inner, family) {
            Some((target, families)) => {
                guard(&families, family, statements);
                target
            }
            None => Target::Unmodelled { name: name(key, inner), text: text() },
        },
    };
    statements.push(Statement::Target(target));
}
