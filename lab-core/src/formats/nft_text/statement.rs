//! The statements of a rule.

use serde_json::{json, Map, Value};

use super::cursor::{number, Cursor, Read, Unread};
use super::expression::{expression, has_flags, starts};
use super::value::{braces, flags, reference, right, scalar, verdict};

/// What a counter counted.
pub(super) fn counted(cursor: &mut Cursor<'_, '_>) -> Read<Value> {
    if !cursor.eat_word("packets") {
        return Ok(Value::Null);
    }
    let packets = cursor.take_number()?;
    cursor.expect_word("bytes")?;
    let bytes = cursor.take_number()?;
    Ok(json!({ "packets": packets, "bytes": bytes }))
}

/// An object of the table, named or looked up; none if it is not `name`.
fn named(cursor: &mut Cursor<'_, '_>) -> Read<Option<Value>> {
    if !cursor.eat_word("name") {
        return Ok(None);
    }
    if starts(cursor) {
        return expression(cursor).map(Some);
    }
    Ok(Some(cursor.take_name()?.into()))
}

fn log(cursor: &mut Cursor<'_, '_>) -> Read<Value> {
    let mut inner = Map::new();
    let mut flags: Vec<Value> = Vec::new();
    while let Some(key @ ("prefix" | "group" | "snaplen" | "queue-threshold" | "level" | "flags")) =
        cursor.word()
    {
        cursor.next()?;
        let value: Value = match key {
            "flags" => {
                let words = cursor.take_list()?;
                if matches!(words.as_slice(), ["tcp" | "ip"]) {
                    flags.extend(cursor.take_list()?.into_iter().map(|w| format!("{} {w}", words[0]).into()));
                } else {
                    flags.extend(words.into_iter().map(Value::from));
                }
                continue;
            }
            "prefix" | "level" => cursor.take_name()?.into(),
            _ => cursor.take_number()?.into(),
        };
        inner.insert(key.to_owned(), value);
    }
    if !flags.is_empty() {
        inner.insert("flags".to_owned(), flags.into());
    }
    Ok(if inner.is_empty() { Value::Null } else { inner.into() })
}

/// `5/second burst 3 packets`, `10 mbytes/second`: what follows `rate`.
pub(super) fn rate(cursor: &mut Cursor<'_, '_>) -> Read<Value> {
    let over = cursor.eat_word("over");
    cursor.eat_word("until");
    let mut words = cursor.take_word()?.splitn(2, '/');
    let count = words.next().and_then(number).ok_or(Unread)?;
    let mut limit = json!({ "rate": count, "burst": 5 });
    match words.next() {
        Some(per) => limit["per"] = per.into(),
        None => {
            let (unit, per) = cursor.take_word()?.split_once('/').ok_or(Unread)?;
            limit["burst"] = 0.into();
            limit["per"] = per.into();
            limit["rate_unit"] = unit.into();
            limit["burst_unit"] = "bytes".into();
        }
    }
    if cursor.eat_word("burst") {
        limit["burst"] = cursor.take_number()?.into();
        match cursor.take_word()? {
            "packets" => {}
            unit @ ("bytes" | "kbytes" | "mbytes") => limit["burst_unit"] = unit.into(),
            _ => return Err(Unread),
        }
    }
    if over {
        limit["inv"] = true.into();
    }
    Ok(limit)
}

fn quota(cursor: &mut Cursor<'_, '_>) -> Read<Value> {
    let over = cursor.eat_word("over");
    cursor.eat_word("until");
    let mut inner = json!({ "val": cursor.take_number()?, "val_unit": cursor.take_word()? });
    if cursor.eat_word("used") {
        inner["used"] = cursor.take_number()?.into();
        inner["used_unit"] = cursor.take_word()?.into();
    }
    if over {
        inner["inv"] = true.into();
    }
    Ok(inner)
}

fn reject(cursor: &mut Cursor<'_, '_>) -> Read<Value> {
    if !cursor.eat_word("with") {
        return Ok(Value::Null);
    }
    let kind = cursor.take_word()?;
    if kind == "tcp" {
        cursor.expect_word("reset")?;
        return Ok(json!({ "type": "tcp reset" }));
    }
    cursor.eat_word("type");
    let code = scalar(cursor.take_word()?);
    Ok(json!({ "type": kind, "expr": code }))
}

/// An address with a port, as `10.0.0.1:80`, `[fe80::1]-[fe80::2]:80-90` or
/// `:80`.
fn destination(word: &str, inner: &mut Map<String, Value>) -> Read<()> {
    let plain = word.parse::<std::net::Ipv6Addr>().is_ok();
    let ends = |word: &str| word.split('-').all(|end| end.parse::<std::net::Ipv6Addr>().is_ok());
    let (address, port) = match word.rsplit_once(':') {
        Some((address, port)) if !plain && !word.ends_with(']') && (word.contains('[') || !ends(word)) => {
            (address, Some(port))
        }
        _ => (word, None),
    };
    if !address.is_empty() {
        inner.insert("addr".to_owned(), scalar(address));
    }
    if let Some(port) = port {
        match scalar(port) {
            Value::String(_) => return Err(Unread),
            port => inner.insert("port".to_owned(), port),
        };
    }
    Ok(())
}

fn nat(cursor: &mut Cursor<'_, '_>) -> Read<Value> {
    let mut inner = Map::new();
    if let Some(family @ ("ip" | "ip6")) = cursor.word() {
        cursor.next()?;
        inner.insert("family".to_owned(), family.into());
    }
    let mut how: Vec<Value> = Vec::new();
    let mut flags: Vec<Value> = Vec::new();
    loop {
        match cursor.word() {
            Some(word @ ("prefix" | "interval")) => how.push(word.into()),
            Some("addr") => {
                cursor.next()?;
                cursor.expect_word(".")?;
                if cursor.word() != Some("port") {
                    return Err(Unread);
                }
                how.push("concat".into());
            }
            _ => break,
        }
        cursor.next()?;
    }
    if cursor.eat_word("to") {
        if starts(cursor) {
            inner.insert("addr".to_owned(), expression(cursor)?);
        } else {
            destination(cursor.take_word()?, &mut inner)?;
        }
    }
    while let Some("random" | "fully-random" | "persistent") = cursor.word() {
        flags.extend(cursor.take_list()?.into_iter().map(Value::from));
    }
    for (key, words) in [("flags", flags), ("type_flags", how)] {
        if !words.is_empty() {
            inner.insert(key.to_owned(), words.into());
        }
    }
    Ok(if inner.is_empty() { Value::Null } else { inner.into() })
}

fn queue(cursor: &mut Cursor<'_, '_>) -> Read<Value> {
    let mut inner = Map::new();
    if cursor.eat_word("flags") {
        inner.insert("flags".to_owned(), cursor.take_list()?.into());
    }
    if cursor.eat_word("num") || cursor.eat_word("to") {
        inner.insert("num".to_owned(), expression(cursor)?);
    }
    if let Some("bypass" | "fanout") = cursor.word() {
        inner.insert("flags".to_owned(), cursor.take_list()?.into());
    }
    Ok(inner.into())
}

fn synproxy(cursor: &mut Cursor<'_, '_>) -> Read<Value> {
    let mut inner = Map::new();
    loop {
        match cursor.word() {
            Some(key @ ("mss" | "wscale")) => {
                cursor.next()?;
                inner.insert(key.to_owned(), cursor.take_number()?.into());
            }
            Some(flag @ ("timestamp" | "sack-perm")) => {
                cursor.next()?;
                inner.insert(flag.to_owned(), true.into());
            }
            _ => return Ok(inner.into()),
        }
    }
}

/// `tproxy [ip] to …`, `dup to …`, `fwd [ip] to …`.
fn forwarded(cursor: &mut Cursor<'_, '_>) -> Read<Value> {
    let mut inner = Map::new();
    if let Some(family @ ("ip" | "ip6")) = cursor.word() {
        cursor.next()?;
        inner.insert("family".to_owned(), family.into());
    }
    cursor.expect_word("to")?;
    inner.insert("to".to_owned(), expression(cursor)?);
    if cursor.eat_word("device") {
        inner.insert("device".to_owned(), expression(cursor)?);
    }
    Ok(inner.into())
}

/// A match, a verdict map or a `… set …`.
fn looked(cursor: &mut Cursor<'_, '_>) -> Read<Value> {
    let left = expression(cursor)?;
    if cursor.eat_word("set") {
        let value = if cursor.is("{") { return Err(Unread) } else { expression(cursor)? };
        let value = if cursor.is(",") {
            let mut all = vec![value];
            while cursor.eat(",") {
                all.push(cursor.take_name()?.into());
            }
            Value::Array(all)
        } else {
            value
        };
        return Ok(json!({ "mangle": { "key": left, "value": value } }));
    }
    if cursor.eat_word("vmap") {
        let data = if cursor.is("@") { reference(cursor)? } else { braces(cursor)? };
        return Ok(json!({ "vmap": { "key": left, "data": data } }));
    }
    let written = ["==", "!=", "<=", ">=", "<", ">", "!"].into_iter().find(|mark| cursor.eat(mark));
    let right = right(cursor)?;
    if cursor.eat_word("/") {
        // `tcp flags syn / fin,syn`: the bits of the mask are compared.
        let mask = right_list(cursor)?;
        let op = written.unwrap_or("==");
        return Ok(json!({ "match": { "op": op, "left": { "&": [left, mask] }, "right": right } }));
    }
    let usual = if has_flags(&left) && right.get("set").is_none() { "in" } else { "==" };
    Ok(json!({ "match": { "op": written.unwrap_or(usual), "left": left, "right": right } }))
}

/// Flags with commas.
fn right_list(cursor: &mut Cursor<'_, '_>) -> Read<Value> {
    let mut all = vec![flags(cursor)?];
    while cursor.eat(",") {
        all.push(flags(cursor)?);
    }
    Ok(if all.len() == 1 { all.remove(0) } else { all.into() })
}

/// `ct helper set "ftp"` and `ct count over 10`.
fn ct(cursor: &mut Cursor<'_, '_>) -> Read<Option<Value>> {
    let start = cursor.clone();
    cursor.next()?;
    match cursor.take_word()? {
        word @ ("helper" | "timeout" | "expectation") if cursor.eat_word("set") => {
            let key = format!("ct {word}");
            let value = if starts(cursor) { expression(cursor)? } else { cursor.take_name()?.into() };
            Ok(Some(json!({ key: value })))
        }
        "count" => {
            let over = cursor.eat_word("over");
            let mut inner = json!({ "val": cursor.take_number()? });
            if over {
                inner["inv"] = true.into();
            }
            Ok(Some(json!({ "ct count": inner })))
        }
        _ => {
            *cursor = start;
            Ok(None)
        }
    }
}

/// `add @set { … }`, which changes a set by packets.
fn update(cursor: &mut Cursor<'_, '_>, operation: &str) -> Read<Value> {
    let set = reference(cursor)?;
    cursor.skip_braces()?;
    if cursor.eat_word(":") {
        return Err(Unread);
    }
    Ok(json!({ "set": { "op": operation, "set": set } }))
}

/// Reads one statement.
pub(super) fn statement(cursor: &mut Cursor<'_, '_>) -> Read<Value> {
    if let Some(verdict) = verdict(cursor)? {
        return Ok(verdict);
    }
    let Some(word) = cursor.word().filter(|_| !starts(cursor)) else {
        if cursor.word() == Some("ct") {
            if let Some(found) = ct(cursor)? {
                return Ok(found);
            }
        }
        return looked(cursor);
    };
    cursor.next()?;
    let inner = match word {
        "counter" => match named(cursor)? {
            Some(object) => object,
            None => counted(cursor)?,
        },
        "limit" => match named(cursor)? {
            Some(object) => object,
            None => {
                cursor.expect_word("rate")?;
                rate(cursor)?
            }
        },
        "quota" => match named(cursor)? {
            Some(object) => object,
            None => quota(cursor)?,
        },
        "synproxy" => match named(cursor)? {
            Some(object) => object,
            None => synproxy(cursor)?,
        },
        "log" => log(cursor)?,
        "reject" => reject(cursor)?,
        "snat" | "dnat" | "masquerade" | "redirect" => nat(cursor)?,
        "notrack" => Value::Null,
        "queue" => queue(cursor)?,
        "tproxy" | "dup" | "fwd" => forwarded(cursor)?,
        "reset" => expression(cursor)?,
        "flow" => {
            cursor.expect_word("add")?;
            json!({ "op": "add", "flowtable": reference(cursor)? })
        }
        "add" | "update" | "delete" => return update(cursor, word),
        "meter" => {
            let name = cursor.take_name()?;
            if cursor.eat_word("size") {
                cursor.take_number()?;
            }
            cursor.skip_braces()?;
            json!({ "name": name })
        }
        "xt" => {
            let kind = cursor.take_word()?;
            json!({ "type": kind, "name": cursor.take_name()? })
        }
        _ => return Err(Unread),
    };
    Ok(json!({ word: inner }))
}
