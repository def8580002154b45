//! Right sides and elements: constants, ranges, prefixes, sets and maps.

use std::net::IpAddr;

use serde_json::{json, Map, Value};

use super::cursor::{number, seconds, Cursor, Read, Unread};
use super::lexer::Kind;
use crate::addr::Mac;

/// A constant that does not look like a word: what a range may go from and to.
fn plain(word: &str) -> Option<Value> {
    if let Some(number) = number(word) {
        return Some(number.into());
    }
    let inner = word.strip_prefix('[').and_then(|word| word.strip_suffix(']')).unwrap_or(word);
    if inner.parse::<IpAddr>().is_ok() {
        return Some(inner.into());
    }
    (word.parse::<Mac>().is_ok() || seconds(word).is_some()).then(|| word.into())
}

/// A word as nft's JSON has it: a number, a range, a prefix, or a string.
pub(super) fn scalar(word: &str) -> Value {
    if let Some((address, length)) = word.split_once('/') {
        if let (Some(address), Some(length)) = (plain(address), number(length)) {
            return json!({ "prefix": { "addr": address, "len": length } });
        }
    }
    for (at, _) in word.match_indices('-') {
        let (low, high) = (word.get(..at).and_then(plain), word.get(at + 1..).and_then(plain));
        if let (Some(low), Some(high)) = (low, high) {
            return json!({ "range": [low, high] });
        }
    }
    match word {
        "exists" => true.into(),
        "missing" => false.into(),
        _ => plain(word).unwrap_or_else(|| word.into()),
    }
}

/// One constant: a word, a quoted string, or a range of quoted strings.
fn one(cursor: &mut Cursor<'_, '_>) -> Read<Value> {
    let token = cursor.next()?;
    match token.kind {
        Kind::Word => Ok(scalar(token.text)),
        Kind::Quoted if cursor.eat_word("-") => {
            let high = cursor.take_name()?;
            Ok(json!({ "range": [token.text, high] }))
        }
        Kind::Quoted => Ok(token.text.into()),
        Kind::Mark | Kind::Newline | Kind::Comment => Err(Unread),
    }
}

/// One constant, or several with `|` between them, perhaps in parentheses.
pub(super) fn flags(cursor: &mut Cursor<'_, '_>) -> Read<Value> {
    let parenthesis = cursor.eat("(");
    let mut all = vec![one(cursor)?];
    while cursor.eat("|") {
        all.push(one(cursor)?);
    }
    if parenthesis {
        cursor.expect(")")?;
    }
    Ok(if all.len() == 1 { all.remove(0) } else { json!({ "|": all }) })
}

/// Values side by side, each read by `part`.
pub(super) fn joined(
    cursor: &mut Cursor<'_, '_>,
    part: impl Fn(&mut Cursor<'_, '_>) -> Read<Value>,
) -> Read<Value> {
    let mut parts = vec![part(cursor)?];
    while cursor.eat_word(".") {
        parts.push(part(cursor)?);
    }
    Ok(if parts.len() == 1 { parts.remove(0) } else { json!({ "concat": parts }) })
}

/// The right side of a match: a constant, flags with commas, or a set.
pub(super) fn right(cursor: &mut Cursor<'_, '_>) -> Read<Value> {
    if cursor.is("{") {
        return braces(cursor);
    }
    if cursor.is("@") {
        return reference(cursor);
    }
    let first = joined(cursor, flags)?;
    if !cursor.is(",") {
        return Ok(first);
    }
    let mut all = vec![first];
    while cursor.eat(",") {
        all.push(one(cursor)?);
    }
    Ok(Value::Array(all))
}

/// `@name`.
pub(super) fn reference(cursor: &mut Cursor<'_, '_>) -> Read<Value> {
    cursor.expect("@")?;
    Ok(format!("@{}", cursor.take_name()?).into())
}

/// A verdict, if one is next.
pub(super) fn verdict(cursor: &mut Cursor<'_, '_>) -> Read<Option<Value>> {
    Ok(Some(match cursor.word() {
        Some(word @ ("accept" | "drop" | "return" | "continue")) => {
            cursor.next()?;
            json!({ word: null })
        }
        Some(word @ ("jump" | "goto")) => {
            cursor.next()?;
            json!({ word: { "target": cursor.take_name()? } })
        }
        _ => return Ok(None),
    }))
}

/// An element with what is written behind it.
fn element(cursor: &mut Cursor<'_, '_>) -> Read<Value> {
    let value = joined(cursor, flags)?;
    let mut more = Map::new();
    loop {
        let word = match cursor.word() {
            Some(word @ ("timeout" | "expires" | "comment" | "counter")) => word,
            None if cursor.is(",") || cursor.is("}") => break,
            Some(":") => break,
            _ => return Err(Unread),
        };
        cursor.next()?;
        let told = match word {
            "comment" => cursor.take_name()?.into(),
            "counter" => super::statement::counted(cursor)?,
            _ => seconds(cursor.take_word()?).ok_or(Unread)?.into(),
        };
        more.insert(word.to_owned(), told);
    }
    if more.is_empty() {
        return Ok(value);
    }
    more.insert("val".to_owned(), value);
    Ok(json!({ "elem": more }))
}

/// The elements between braces, those of maps as pairs.
pub(super) fn elements(cursor: &mut Cursor<'_, '_>) -> Read<Value> {
    cursor.expect("{")?;
    let mut all = Vec::new();
    while !cursor.eat("}") {
        let key = element(cursor)?;
        all.push(if cursor.eat_word(":") {
            let data = match verdict(cursor)? {
                Some(verdict) => verdict,
                None => joined(cursor, flags)?,
            };
            // Old versions write the comment behind the value.
            if cursor.eat_word("comment") {
                cursor.take_name()?;
            }
            json!([key, data])
        } else {
            key
        });
        if !cursor.eat(",") && !cursor.is("}") {
            return Err(Unread);
        }
    }
    Ok(Value::Array(all))
}

/// A set or map in place.
pub(super) fn braces(cursor: &mut Cursor<'_, '_>) -> Read<Value> {
    Ok(json!({ "set": elements(cursor)? }))
}
