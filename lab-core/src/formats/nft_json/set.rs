//! Named sets and maps.

use serde_json::{Map, Value};

use super::expression::look;
use super::statement::verdict;
use super::value::{element, elements, pairs, Writing};
use crate::model::{NftSet, NftType};

/// Fields of a set that the model has, or that change nothing.
const KNOWN: [&str; 13] = [
    "family",
    "name",
    "table",
    "type",
    "handle",
    "map",
    "flags",
    "elem",
    "timeout",
    "gc-interval",
    "size",
    "policy",
    "comment",
];

fn writing(word: &str) -> Option<Writing> {
    Some(Writing::Of(match word {
        "ipv4_addr" => NftType::Ipv4,
        "ipv6_addr" => NftType::Ipv6,
        "ether_addr" => NftType::Ether,
        "inet_service" => NftType::Port,
        "inet_proto" => NftType::Protocol,
        "ifname" => NftType::Name,
        "ct_state" => NftType::CtState,
        "ct_status" => NftType::CtStatus,
        "ct_dir" => NftType::CtDirection,
        "icmp_type" => NftType::IcmpType,
        "icmpv6_type" => NftType::Icmp6Type,
        "tcp_flag" => NftType::TcpFlags,
        "fib_addrtype" => NftType::AddressType,
        "pkt_type" => NftType::PacketType,
        "nf_proto" => NftType::Nfproto,
        "dscp" => NftType::Dscp,
        "mark" | "integer" => NftType::Number,
        "iface_index" => return Some(Writing::Index),
        "icmp_code" => return Some(Writing::IcmpCode),
        "icmpv6_code" => return Some(Writing::Icmp6Code),
        "ether_type" => return Some(Writing::Ethertype),
        _ => return None,
    }))
}

/// The types of the parts of an element, by name or by an expression that has
/// them (`typeof`).
fn writings(value: &Value) -> Option<Vec<Writing>> {
    match value {
        Value::String(word) => word.split(" . ").map(writing).collect(),
        Value::Array(parts) => {
            let parts: Option<Vec<Vec<Writing>>> = parts.iter().map(writings).collect();
            Some(parts?.concat())
        }
        Value::Object(map) => match map.get("typeof") {
            Some(inner @ Value::Array(_)) => writings(inner),
            Some(inner) => look(inner).map(|looked| looked.writings),
            None => look(value).map(|looked| looked.writings),
        },
        _ => None,
    }
}

fn kind(writing: &Writing) -> NftType {
    match writing {
        Writing::Of(kind) => *kind,
        Writing::Index => NftType::Name,
        Writing::Ethertype => NftType::Nfproto,
        Writing::IcmpCode | Writing::Icmp6Code | Writing::Exists | Writing::Address => NftType::Number,
    }
}

/// Fills in the elements; gives back what is not understood of them.
fn fill(set: &mut NftSet, fields: &Map<String, Value>, keys: &[Writing]) -> String {
    let empty = Vec::new();
    let items = match fields.get("elem") {
        None => &empty,
        Some(Value::Array(items)) => items,
        Some(_) => return "elements".to_owned(),
    };
    match fields.get("map") {
        None => match elements(items, keys) {
            Some(elements) => set.elements = elements,
            None => return "elements".to_owned(),
        },
        Some(values) if values == "verdict" => match pairs(items, keys, verdict) {
            Some(pairs) => (set.elements, set.verdicts) = pairs.into_iter().unzip(),
            None => return "elements".to_owned(),
        },
        Some(values) => {
            let Some(values) = writings(values) else { return format!("values of type {values}") };
            match pairs(items, keys, |value| element(value, &values)) {
                Some(pairs) => (set.elements, set.values) = pairs.into_iter().unzip(),
                None => return "elements".to_owned(),
            }
        }
    }
    String::new()
}

/// Reads a set or map, keeping its text.
pub(super) fn set(text: String, name: &str, fields: &Map<String, Value>) -> NftSet {
    let flag = |flag: &str| match fields.get("flags") {
        Some(Value::String(word)) => word == flag,
        Some(Value::Array(flags)) => flags.iter().any(|f| f == flag),
        _ => false,
    };
    let mut set = NftSet {
        name: name.to_owned(),
        types: Vec::new(),
        elements: Vec::new(),
        values: Vec::new(),
        verdicts: Vec::new(),
        dynamic: flag("timeout") || fields.contains_key("timeout"),
        text,
        unmodelled: String::new(),
    };
    let mut missing = Vec::new();
    match fields.get("type").and_then(writings) {
        Some(keys) => {
            set.types = keys.iter().map(kind).collect();
            missing.push(fill(&mut set, fields, &keys));
        }
        None => missing.push(format!("type {}", fields.get("type").unwrap_or(&Value::Null))),
    }
    // Each element of such a set has statements of its own: only counters
    // leave the packet alone.
    let counts = |value: &Value| value.get("counter").is_some();
    for (key, value) in fields {
        let counted = key == "stmt" && value.as_array().is_some_and(|items| items.iter().all(counts));
        if !KNOWN.contains(&key.as_str()) && key != "auto-merge" && !counted {
            missing.push(format!("{key} {value}"));
        }
    }
    missing.retain(|what| !what.is_empty());
    set.unmodelled = missing.join(", ");
    set
}
