//! Left sides: what a rule looks at, and what it computes.

use serde_json::{json, Map, Value};

use super::cursor::{Cursor, Read, Unread};
use super::lexer::Kind;
use super::value::{braces, reference, scalar};

/// What may stand without `meta` before it.
const BARE: [&str; 20] = [
    "iif",
    "iifname",
    "iifgroup",
    "iiftype",
    "oif",
    "oifname",
    "oifgroup",
    "oiftype",
    "mark",
    "skuid",
    "skgid",
    "nftrace",
    "rtclassid",
    "pkttype",
    "cpu",
    "cgroup",
    "ibrname",
    "obrname",
    "ibriport",
    "obriport",
];

/// Headers of which a rule may name a field.
const HEADERS: [&str; 19] = [
    "ip", "ip6", "tcp", "udp", "udplite", "sctp", "dccp", "icmp", "icmpv6", "igmp", "ether", "vlan", "arp",
    "th", "ah", "esp", "comp", "gre", "vxlan",
];

/// Extension headers of IPv6.
const EXTENSIONS: [&str; 6] = ["frag", "hbh", "dst", "mh", "srh", "rt"];

/// Whether the next word says what to look at.
pub(super) fn starts(cursor: &Cursor<'_, '_>) -> bool {
    match cursor.peek() {
        Some(token) if token.is("@") => raw(&mut cursor.clone()).is_ok(),
        Some(token) if token.kind == Kind::Word => {
            let word = token.text;
            let named =
                ["meta", "ct", "fib", "exthdr", "socket", "osf", "ipsec", "numgen", "jhash", "symhash"];
            BARE.contains(&word)
                || HEADERS.contains(&word)
                || EXTENSIONS.contains(&word)
                || named.contains(&word)
        }
        _ => false,
    }
}

/// Whether a field's name can be next.
fn named(cursor: &Cursor<'_, '_>) -> bool {
    cursor.word().is_some_and(|word| !matches!(word, "exists" | "missing" | "set" | "." | "map" | "vmap"))
}

fn option(cursor: &mut Cursor<'_, '_>, key: &str) -> Read<Value> {
    let name = cursor.take_word()?;
    let mut inner = Map::new();
    inner.insert("name".to_owned(), name.into());
    if named(cursor) {
        inner.insert("field".to_owned(), cursor.take_word()?.into());
    }
    Ok(json!({ key: inner }))
}

fn header(cursor: &mut Cursor<'_, '_>, header: &str) -> Read<Value> {
    let field = cursor.take_word()?;
    match (header, field) {
        ("tcp", "option") => option(cursor, "tcp option"),
        ("ip", "option") => option(cursor, "ip option"),
        ("sctp", "chunk") => option(cursor, "sctp chunk"),
        ("arp", "saddr" | "daddr") => {
            let field = format!("{field} {}", cursor.take_word()?);
            Ok(json!({ "payload": { "protocol": "arp", "field": field } }))
        }
        _ => Ok(json!({ "payload": { "protocol": header, "field": field } })),
    }
}

/// `@th,64,8`.
fn raw(cursor: &mut Cursor<'_, '_>) -> Read<Value> {
    cursor.expect("@")?;
    let base = cursor.take_word()?;
    if !["ll", "nh", "th", "ih"].contains(&base) {
        return Err(Unread);
    }
    cursor.expect(",")?;
    let offset = cursor.take_number()?;
    cursor.expect(",")?;
    let length = cursor.take_number()?;
    Ok(json!({ "payload": { "base": base, "offset": offset, "len": length } }))
}

fn ct(cursor: &mut Cursor<'_, '_>) -> Read<Value> {
    let direction = match cursor.word() {
        Some(word @ ("original" | "reply")) => {
            cursor.next()?;
            Some(word)
        }
        _ => None,
    };
    let mut key = cursor.take_word()?.to_owned();
    if key == "ip" || key == "ip6" {
        key = format!("{key} {}", cursor.take_word()?);
    }
    Ok(match direction {
        Some(direction) => json!({ "ct": { "key": key, "dir": direction } }),
        None => json!({ "ct": { "key": key } }),
    })
}

fn fib(cursor: &mut Cursor<'_, '_>) -> Read<Value> {
    let mut flags = vec![cursor.take_word()?];
    while cursor.eat_word(".") {
        flags.push(cursor.take_word()?);
    }
    // `check` is how later versions write that a route is asked for.
    let result = cursor.take_word()?;
    Ok(json!({ "fib": { "result": result, "flags": flags } }))
}

/// The words and numbers behind `numgen` and the hashes.
fn settings(cursor: &mut Cursor<'_, '_>, inner: &mut Map<String, Value>) -> Read<()> {
    cursor.expect_word("mod")?;
    inner.insert("mod".to_owned(), cursor.take_number()?.into());
    for key in ["seed", "offset"] {
        if cursor.eat_word(key) {
            inner.insert(key.to_owned(), cursor.take_number()?.into());
        }
    }
    Ok(())
}

fn rt(cursor: &mut Cursor<'_, '_>) -> Read<Value> {
    let word = cursor.take_word()?;
    Ok(match word {
        "classid" | "mtu" | "ipsec" | "nexthop" => json!({ "rt": { "key": word } }),
        "ip" | "ip6" => json!({ "rt": { "key": cursor.take_word()?, "family": word } }),
        field => json!({ "exthdr": { "name": "rt", "field": field } }),
    })
}

fn socket(cursor: &mut Cursor<'_, '_>) -> Read<Value> {
    let key = cursor.take_word()?;
    if key == "cgroupv2" {
        cursor.expect_word("level")?;
        let level = cursor.take_number()?;
        return Ok(json!({ "socket": { "key": key, "level": level } }));
    }
    Ok(json!({ "socket": { "key": key } }))
}

fn ipsec(cursor: &mut Cursor<'_, '_>) -> Read<Value> {
    let direction = cursor.take_word()?;
    if cursor.eat_word("spnum") {
        cursor.take_number()?;
    }
    let mut key = cursor.take_word()?;
    if key == "ip" || key == "ip6" {
        key = cursor.take_word()?;
    }
    Ok(json!({ "ipsec": { "key": key, "dir": direction } }))
}

fn looked(cursor: &mut Cursor<'_, '_>) -> Read<Value> {
    if cursor.is("@") {
        return raw(cursor);
    }
    let word = cursor.take_word()?;
    let mut inner = Map::new();
    Ok(match word {
        "meta" => json!({ "meta": { "key": cursor.take_word()? } }),
        "ct" => ct(cursor)?,
        "fib" => fib(cursor)?,
        "exthdr" => json!({ "exthdr": { "name": cursor.take_word()? } }),
        "rt" => rt(cursor)?,
        "socket" => socket(cursor)?,
        "ipsec" => ipsec(cursor)?,
        "osf" => {
            if cursor.eat_word("ttl") {
                cursor.take_word()?;
            }
            json!({ "osf": { "key": cursor.take_word()? } })
        }
        "numgen" => {
            inner.insert("mode".to_owned(), cursor.take_word()?.into());
            settings(cursor, &mut inner)?;
            json!({ "numgen": inner })
        }
        "jhash" => {
            let value = cursor.deeper(expression)?;
            inner.insert("expr".to_owned(), value);
            settings(cursor, &mut inner)?;
            json!({ "jhash": inner })
        }
        "symhash" => {
            settings(cursor, &mut inner)?;
            json!({ "symhash": inner })
        }
        word if EXTENSIONS.contains(&word) => {
            json!({ "exthdr": { "name": word, "field": cursor.take_word()? } })
        }
        word if HEADERS.contains(&word) => header(cursor, word)?,
        word if BARE.contains(&word) => json!({ "meta": { "key": word } }),
        _ => return Err(Unread),
    })
}

/// One operand: in parentheses, looked at, or a constant.
fn operand(cursor: &mut Cursor<'_, '_>) -> Read<Value> {
    if cursor.eat("(") {
        let value = cursor.deeper(expression)?;
        cursor.expect(")")?;
        return Ok(value);
    }
    if starts(cursor) {
        let start = cursor.clone();
        if let Ok(value) = looked(cursor) {
            return Ok(value);
        }
        *cursor = start;
    }
    let token = cursor.next()?;
    match token.kind {
        Kind::Word => Ok(scalar(token.text)),
        Kind::Quoted => Ok(token.text.into()),
        Kind::Mark | Kind::Newline | Kind::Comment => Err(Unread),
    }
}

/// How many operators of one sort may follow each other.
const MOST_OPERATORS: u32 = 16;

/// Operators, those that bind closest first.
const OPERATORS: [&[(&str, &str)]; 4] = [
    &[("<<", "<<"), (">>", ">>")],
    &[("&", "&"), ("and", "&")],
    &[("^", "^"), ("xor", "^")],
    &[("|", "|"), ("or", "|")],
];

fn operation(cursor: &mut Cursor<'_, '_>, level: usize) -> Read<Value> {
    let Some(below) = level.checked_sub(1) else { return operand(cursor) };
    let mut value = operation(cursor, below)?;
    // Each operator nests the value one deeper.
    for _ in 0..MOST_OPERATORS {
        let next =
            OPERATORS[below].iter().find(|(written, _)| cursor.is(written) || cursor.word() == Some(written));
        let Some((_, operator)) = next else { return Ok(value) };
        cursor.next()?;
        let more = operation(cursor, below)?;
        value = json!({ *operator: [value, more] });
    }
    Err(Unread)
}

/// An expression: operands with operators, side by side, perhaps looked up in
/// a map.
pub(super) fn expression(cursor: &mut Cursor<'_, '_>) -> Read<Value> {
    let value = super::value::joined(cursor, |cursor| operation(cursor, OPERATORS.len()))?;
    if cursor.eat_word("map") {
        let data = if cursor.is("@") { reference(cursor)? } else { braces(cursor)? };
        return Ok(json!({ "map": { "key": value, "data": data } }));
    }
    Ok(value)
}

/// Whether a value is of flags, so that a match without operator asks for any
/// of them.
pub(super) fn has_flags(value: &Value) -> bool {
    let field = |sort: &str, key: &str| value.get(sort).and_then(|inner| inner.get(key)?.as_str());
    matches!(field("ct", "key"), Some("state" | "status" | "label"))
        || (field("payload", "protocol"), field("payload", "field")) == (Some("tcp"), Some("flags"))
}
