//! Named sets of nft: what declares them, and their elements in nft's words.

use std::net::{Ipv4Addr, Ipv6Addr};

use serde_json::{Map, Value};

use super::{unsayable, Error};
use crate::model::{Atom, NftElement, NftSet, NftType, Verdict};

/// What a set was declared by, elements and all.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Declared {
    /// Its JSON: `set` or `map`, and its fields without the handle.
    Json { sort: String, fields: Map<String, Value> },
    /// Its text: `set` or `map`, and the lines of its block.
    Text { sort: String, lines: Vec<String> },
}

impl Declared {
    /// The declaration alone.
    pub fn bare(self) -> Self {
        match self {
            Declared::Json { sort, mut fields } => {
                fields.shift_remove("elem");
                Declared::Json { sort, fields }
            }
            Declared::Text { sort, mut lines } => {
                lines.retain(|line| !line.starts_with("elements"));
                Declared::Text { sort, lines }
            }
        }
    }
}

/// What a set was declared by, if its text tells.
pub(crate) fn declared(set: &NftSet) -> Option<Declared> {
    if set.text.starts_with('{') {
        let Ok(Value::Object(outer)) = serde_json::from_str(&set.text) else { return None };
        let (sort, inner) = outer.into_iter().next()?;
        let Value::Object(mut fields) = inner else { return None };
        fields.shift_remove("handle");
        return Some(Declared::Json { sort, fields });
    }
    let (head, rest) = set.text.split_once('{')?;
    let sort = head.split_whitespace().next().filter(|sort| matches!(*sort, "set" | "map"))?.to_owned();
    let body = rest.trim_end().strip_suffix('}')?;
    Some(Declared::Text { sort, lines: lines(body) })
}

/// The lines of a block: a line feed or semicolon inside of braces or quotes
/// ends none, and what `-a` adds is no part of them.
fn lines(body: &str) -> Vec<String> {
    let mut lines = Vec::new();
    let (mut line, mut depth, mut quote, mut comment) = (String::new(), 0_i32, false, false);
    for c in body.chars() {
        match c {
            '\n' => comment = false,
            _ if comment => continue,
            '#' if !quote => {
                comment = true;
                continue;
            }
            '"' => quote = !quote,
            '{' if !quote => depth += 1,
            '}' if !quote => depth -= 1,
            _ => {}
        }
        if depth == 0 && !quote && matches!(c, '\n' | ';') {
            lines.push(std::mem::take(&mut line));
        } else {
            line.push(c);
        }
    }
    lines.push(line);
    let folded = |line: String| line.split_whitespace().collect::<Vec<_>>().join(" ");
    lines.into_iter().map(folded).filter(|line| !line.is_empty()).collect()
}

const TYPES: [(&str, NftType); 15] = [
    ("ipv4_addr", NftType::Ipv4),
    ("ipv6_addr", NftType::Ipv6),
    ("ether_addr", NftType::Ether),
    ("inet_service", NftType::Port),
    ("inet_proto", NftType::Protocol),
    ("ifname", NftType::Name),
    ("ct_state", NftType::CtState),
    ("ct_status", NftType::CtStatus),
    ("ct_dir", NftType::CtDirection),
    ("icmp_type", NftType::IcmpType),
    ("icmpv6_type", NftType::Icmp6Type),
    ("tcp_flag", NftType::TcpFlags),
    ("dscp", NftType::Dscp),
    ("pkt_type", NftType::PacketType),
    ("mark", NftType::Number),
];

fn type_name(kind: NftType) -> Option<&'static str> {
    TYPES.iter().find(|(_, k)| *k == kind).map(|(name, _)| *name)
}

/// A declaration for a set that a program made.
///
/// # Errors
///
/// The types are not enough to tell it.
pub(super) fn invented(set: &NftSet) -> Result<(String, Vec<String>), Error> {
    let names: Option<Vec<&str>> = set.types.iter().map(|kind| type_name(*kind)).collect();
    let Some(names) = names.filter(|names| !names.is_empty() && set.values.is_empty() && !set.dynamic) else {
        return unsayable(format!("set {}, of which no text is known", set.name));
    };
    let verdicts = !set.verdicts.is_empty();
    let ranges =
        set.elements.iter().flatten().any(|atom| matches!(atom, Atom::Range(low, high) if low < high));
    let mut lines = vec![format!("type {}{}", names.join(" . "), if verdicts { " : verdict" } else { "" })];
    if ranges {
        lines.push("flags interval".to_owned());
    }
    Ok((if verdicts { "map" } else { "set" }.to_owned(), lines))
}

/// The types of a map's values, as its declaration names them.
fn value_types(set: &NftSet) -> Option<Vec<NftType>> {
    let named = match declared(set)? {
        Declared::Json { fields, .. } => match fields.get("map")? {
            Value::String(word) => word.clone(),
            Value::Array(words) => words.iter().map(Value::as_str).collect::<Option<Vec<_>>>()?.join(" . "),
            _ => return None,
        },
        Declared::Text { lines, .. } => {
            let line = lines.iter().find(|line| line.starts_with("type "))?;
            line.split_once(" : ")?.1.to_owned()
        }
    };
    named
        .split(" . ")
        .map(|word| TYPES.iter().find(|(name, _)| *name == word).map(|(_, kind)| *kind))
        .collect()
}

/// The shortest prefix that is just the range, of so many bits.
fn prefix_length(low: u128, high: u128, bits: u32) -> Option<u32> {
    let size = high.checked_sub(low)?;
    let whole = size & size.wrapping_add(1) == 0 && low & size == 0;
    whole.then(|| bits - (128 - size.leading_zeros()))
}

fn atom(kind: NftType, atom: &Atom) -> Option<String> {
    let between = |show: &dyn Fn(u128) -> Option<String>, low: u128, high: u128| {
        Some(if low == high { show(low)? } else { format!("{}-{}", show(low)?, show(high)?) })
    };
    match (kind, atom) {
        (NftType::Name, Atom::Name(name, start)) => {
            let usual = !name.contains(['"', '\\', '*', '\n']);
            usual.then(|| format!("\"{name}{}\"", if *start { "*" } else { "" }))
        }
        (_, Atom::Name(..)) | (NftType::Name, _) => None,
        (NftType::Ipv4, Atom::Range(low, high)) => {
            let show = |n: u128| u32::try_from(n).ok().map(|n| Ipv4Addr::from(n).to_string());
            match prefix_length(*low, *high, 32).filter(|length| *length < 32) {
                Some(length) => Some(format!("{}/{length}", show(*low)?)),
                None => between(&show, *low, *high),
            }
        }
        (NftType::Ipv6, Atom::Range(low, high)) => {
            let show = |n: u128| Some(Ipv6Addr::from(n).to_string());
            match prefix_length(*low, *high, 128).filter(|length| *length < 128) {
                Some(length) => Some(format!("{}/{length}", show(*low)?)),
                None => between(&show, *low, *high),
            }
        }
        (NftType::Ether, Atom::Range(low, high)) => {
            let show = |n: u128| {
                let bytes = u64::try_from(n).ok()?.to_be_bytes();
                let parts: Vec<String> = bytes[2..].iter().map(|b| format!("{b:02x}")).collect();
                Some(parts.join(":"))
            };
            between(&show, *low, *high)
        }
        (NftType::Nfproto | NftType::AddressType, _) => None,
        (_, Atom::Range(low, high)) => between(&|n| Some(n.to_string()), *low, *high),
    }
}

fn element(types: &[NftType], element: &NftElement) -> Option<String> {
    if types.len() != element.len() {
        return None;
    }
    let parts: Option<Vec<String>> = types.iter().zip(element).map(|(kind, one)| atom(*kind, one)).collect();
    Some(parts?.join(" . "))
}

fn verdict(verdict: &Verdict) -> String {
    match verdict {
        Verdict::Accept => "accept".to_owned(),
        Verdict::Drop => "drop".to_owned(),
        Verdict::Return => "return".to_owned(),
        Verdict::Continue => "continue".to_owned(),
        Verdict::Jump(chain) => format!("jump {chain}"),
        Verdict::Goto(chain) => format!("goto {chain}"),
    }
}

/// The elements of a set as nft writes them between braces, with what a map
/// has for each if `whole`.
///
/// # Errors
///
/// nft's words for an element, or what a map has for it, are not known.
pub(crate) fn elements(set: &NftSet, whole: bool) -> Result<String, Error> {
    let unknown = || Error::Unsayable(format!("the elements of set {}", set.name));
    if !set.unmodelled.is_empty() || set.elements.is_empty() {
        return Err(unknown());
    }
    let types = if set.values.is_empty() || !whole { Some(Vec::new()) } else { value_types(set) };
    let types = types.ok_or_else(unknown)?;
    let mut out = Vec::new();
    for (at, key) in set.elements.iter().enumerate() {
        let key = element(&set.types, key).ok_or_else(unknown)?;
        let value = match (set.values.get(at), set.verdicts.get(at)) {
            _ if !whole => None,
            (Some(value), _) => Some(element(&types, value).ok_or_else(unknown)?),
            (None, Some(one)) => Some(verdict(one)),
            (None, None) => None,
        };
        out.push(match value {
            Some(value) => format!("{key} : {value}"),
            None => key,
        });
    }
    Ok(out.join(", "))
}
