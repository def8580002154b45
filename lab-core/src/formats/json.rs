//! JSON as `ip`, `bridge` and `nft` print it: one array of objects.

use std::str::FromStr;

use serde_json::value::RawValue;
use serde_json::{Map, Value};

use super::{Error, ErrorKind};

/// The most that is read of one file, in bytes.
const LARGEST: usize = 256 << 20;

/// How much of a long line is shown around an error, in bytes.
const AROUND: usize = 70;

/// An element of an array: its text and the line that it starts at.
pub(super) struct Element<'a> {
    /// The file's name.
    pub file: &'a str,
    /// The line it starts at.
    pub line: u32,
    /// Its text.
    pub text: &'a str,
}

/// The part of a line around a column, so that the error shows what is wrong
/// even where a tool prints all on one line.
fn around(text: &str, line: usize, column: usize) -> &str {
    let line = text.lines().nth(line.saturating_sub(1)).unwrap_or("");
    let floor = |at: usize| (0..=at.min(line.len())).rev().find(|i| line.is_char_boundary(*i)).unwrap_or(0);
    &line[floor(column.saturating_sub(AROUND))..floor(column.saturating_add(AROUND))]
}

/// Turns an error of the JSON reader into ours. `first` is the line of the
/// file where `text` starts.
pub(super) fn broken(file: &str, first: u32, text: &str, error: &serde_json::Error) -> Error {
    let full = error.to_string();
    let message = full.split(" at line ").next().unwrap_or(&full).to_owned();
    let line = first.saturating_add(u32::try_from(error.line()).unwrap_or(u32::MAX)).saturating_sub(1);
    let kind = if error.is_eof() {
        ErrorKind::Truncated(message)
    } else if message.starts_with("recursion limit") {
        ErrorKind::TooLarge("nested too deep".into())
    } else {
        ErrorKind::Syntax(message)
    };
    Error::new(file, line, around(text, error.line(), error.column()), kind)
}

/// Refuses a text that is too large to be what a tool printed.
pub(super) fn guard(file: &str, text: &str) -> Result<(), Error> {
    if text.len() > LARGEST {
        let message = format!("{} bytes, at most {LARGEST} are read", text.len());
        return Err(Error::new(file, 1, "", ErrorKind::TooLarge(message)));
    }
    Ok(())
}

/// Gives the elements of an array, which lie in order in `text`, their lines.
pub(super) fn placed<'a>(file: &'a str, text: &'a str, raw: Vec<&'a RawValue>) -> Vec<Element<'a>> {
    let (mut at, mut line) = (0, 1_u32);
    raw.into_iter()
        .map(|element| {
            let element = element.get();
            // Both point into one text, so the difference is the offset.
            let start = (element.as_ptr() as usize).saturating_sub(text.as_ptr() as usize).min(text.len());
            let passed = text.as_bytes().get(at..start).unwrap_or_default();
            let newlines = passed.iter().filter(|b| **b == b'\n').count();
            line = line.saturating_add(u32::try_from(newlines).unwrap_or(u32::MAX));
            at = start.max(at);
            Element { file, line, text: element }
        })
        .collect()
}

/// The elements of a text that holds one array. Nothing at all is an empty
/// array: `ip` prints that where there is nothing to list.
pub(super) fn elements<'a>(file: &'a str, text: &'a str) -> Result<Vec<Element<'a>>, Error> {
    guard(file, text)?;
    if text.trim().is_empty() {
        return Ok(Vec::new());
    }
    let raw: Vec<&RawValue> = serde_json::from_str(text).map_err(|e| broken(file, 1, text, &e))?;
    Ok(placed(file, text, raw))
}

/// The objects of a text that holds one array. Empty objects stand for what
/// iproute2 filtered out, and are passed over.
pub(super) fn objects<'a>(file: &'a str, text: &'a str) -> Result<Vec<Fields<'a>>, Error> {
    let mut objects = Vec::new();
    for element in elements(file, text)? {
        let fields = element.fields()?;
        if !fields.map.is_empty() {
            objects.push(fields);
        }
    }
    Ok(objects)
}

impl<'a> Element<'a> {
    /// The element's value.
    pub fn value(&self) -> Result<Value, Error> {
        serde_json::from_str(self.text).map_err(|e| broken(self.file, self.line, self.text, &e))
    }

    /// The element as a value that knows its own fields.
    pub fn read<T: serde::de::DeserializeOwned>(&self) -> Result<T, Error> {
        serde_json::from_str(self.text).map_err(|e| broken(self.file, self.line, self.text, &e))
    }

    /// The element as an object.
    pub fn fields(&self) -> Result<Fields<'a>, Error> {
        match self.value()? {
            Value::Object(map) => Ok(Fields { file: self.file, line: self.line, map }),
            _ => Err(Error::syntax(self.file, self.line, self.text, "an object is expected here")),
        }
    }
}

/// The fields of an object. Reading one takes it out: what is left at the end
/// is what nobody understood.
pub(super) struct Fields<'a> {
    /// The file's name.
    pub file: &'a str,
    /// The line the object starts at.
    pub line: u32,
    /// What has not been taken yet.
    pub map: Map<String, Value>,
}

impl<'a> Fields<'a> {
    /// A value error about a field.
    pub fn wrong(&self, key: &str, value: &Value, expected: &str) -> Error {
        let text = format!("{}:{value}", Value::from(key));
        Error::value(self.file, self.line, &text, format!("`{key}` is not {expected}"))
    }

    /// The error of a field that must be there.
    pub fn missing(&self, key: &str) -> Error {
        let text = Value::Object(self.map.clone()).to_string();
        Error::value(self.file, self.line, &text, format!("`{key}` is missing"))
    }

    /// A field, of any sort.
    pub fn take(&mut self, key: &str) -> Option<Value> {
        self.map.shift_remove(key)
    }

    /// Whether a flag is set: iproute2 prints `null`, `true` or a number.
    pub fn flag(&mut self, key: &str) -> Result<bool, Error> {
        Ok(self.switch(key)?.unwrap_or(false))
    }

    /// A switch, if it is told.
    pub fn switch(&mut self, key: &str) -> Result<Option<bool>, Error> {
        match self.take(key) {
            None => Ok(None),
            Some(Value::Null) => Ok(Some(true)),
            Some(Value::Bool(on)) => Ok(Some(on)),
            Some(Value::Number(n)) => Ok(Some(n.as_u64() != Some(0))),
            Some(Value::String(s)) if s == "on" || s == "off" => Ok(Some(s == "on")),
            Some(other) => Err(self.wrong(key, &other, "a switch")),
        }
    }

    /// A string.
    pub fn string(&mut self, key: &str) -> Result<Option<String>, Error> {
        match self.take(key) {
            None => Ok(None),
            Some(Value::String(s)) => Ok(Some(s)),
            Some(other) => Err(self.wrong(key, &other, "a string")),
        }
    }

    /// A string that must be there.
    pub fn required(&mut self, key: &str) -> Result<String, Error> {
        match self.string(key)? {
            Some(text) => Ok(text),
            None => Err(self.missing(key)),
        }
    }

    /// A string, or a number as one.
    pub fn word(&mut self, key: &str) -> Result<Option<String>, Error> {
        match self.take(key) {
            None => Ok(None),
            Some(Value::String(s)) => Ok(Some(s)),
            Some(Value::Number(n)) => Ok(Some(n.to_string())),
            Some(other) => Err(self.wrong(key, &other, "a word")),
        }
    }

    /// A string or number that is written as a `T`.
    pub fn parsed<T: FromStr>(&mut self, key: &str, what: &str) -> Result<Option<T>, Error> {
        match self.word(key)? {
            None => Ok(None),
            Some(word) => match word.parse() {
                Ok(value) => Ok(Some(value)),
                Err(_) => Err(self.wrong(key, &Value::from(word), what)),
            },
        }
    }

    /// A number in the range of `T`, in digits or after `0x`.
    pub fn number<T: TryFrom<u64>>(&mut self, key: &str) -> Result<Option<T>, Error> {
        let Some(value) = self.take(key) else { return Ok(None) };
        let number = match &value {
            Value::Number(n) => n.as_u64(),
            Value::String(s) => super::names::number(s),
            _ => None,
        };
        match number.and_then(|n| T::try_from(n).ok()) {
            Some(number) => Ok(Some(number)),
            None => Err(self.wrong(key, &value, "a number in range")),
        }
    }

    /// A list of strings; none where the field is missing.
    pub fn strings(&mut self, key: &str) -> Result<Vec<String>, Error> {
        match self.take(key) {
            None => Ok(Vec::new()),
            Some(Value::Array(items)) if items.iter().all(Value::is_string) => {
                Ok(items.iter().filter_map(|i| i.as_str().map(str::to_owned)).collect())
            }
            Some(other) => Err(self.wrong(key, &other, "a list of words")),
        }
    }

    /// An object inside this one.
    pub fn object(&mut self, key: &str) -> Result<Option<Fields<'a>>, Error> {
        match self.take(key) {
            None => Ok(None),
            Some(Value::Object(map)) => Ok(Some(Fields { file: self.file, line: self.line, map })),
            Some(other) => Err(self.wrong(key, &other, "an object")),
        }
    }

    /// A list of objects inside this one; empty objects are passed over.
    pub fn objects(&mut self, key: &str) -> Result<Option<Vec<Fields<'a>>>, Error> {
        let Some(value) = self.take(key) else { return Ok(None) };
        let mut objects = Vec::new();
        let Value::Array(items) = value else { return Err(self.wrong(key, &value, "a list of objects")) };
        for item in items {
            match item {
                Value::Object(map) if map.is_empty() => {}
                Value::Object(map) => objects.push(Fields { file: self.file, line: self.line, map }),
                other => return Err(self.wrong(key, &other, "a list of objects")),
            }
        }
        Ok(Some(objects))
    }

    /// What is left, as JSON without the braces; empty where nothing is.
    pub fn rest(self) -> String {
        let mut text = Value::Object(self.map).to_string();
        text.pop();
        text.split_off(1.min(text.len()))
    }
}

/// The fields that [`Fields::rest`] wrote down.
pub(super) fn kept(rest: &str) -> Map<String, Value> {
    match serde_json::from_str(&format!("{{{rest}}}")) {
        Ok(Value::Object(map)) => map,
        _ => Map::new(),
    }
}

/// Prints an array, one element a line.
pub(super) fn array(elements: impl IntoIterator<Item = Value>) -> String {
    let lines: Vec<String> = elements.into_iter().map(|e| e.to_string()).collect();
    if lines.is_empty() {
        "[]\n".to_owned()
    } else {
        format!("[{}]\n", lines.join(",\n"))
    }
}

/// An object under construction: fields that are not told are left out.
#[derive(Default)]
pub(super) struct Object(pub Map<String, Value>);

impl Object {
    /// Sets a field.
    pub fn set(&mut self, key: &str, value: impl Into<Value>) {
        self.0.insert(key.to_owned(), value.into());
    }

    /// Sets a field to the text of a value, if there is one.
    pub fn show<T: ToString>(&mut self, key: &str, value: Option<T>) {
        if let Some(value) = value {
            self.set(key, value.to_string());
        }
    }

    /// Sets a field to a number, if there is one.
    pub fn count<T: Into<u64>>(&mut self, key: &str, value: Option<T>) {
        if let Some(value) = value {
            self.set(key, value.into());
        }
    }

    /// Sets a flag where it is on.
    pub fn flag(&mut self, key: &str, on: bool) {
        if on {
            self.set(key, true);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn elements_know_their_lines() {
        let lines: Vec<u32> =
            elements("f", "[{\"a\":1},{},\n\n {\"a\":2}]").unwrap().iter().map(|e| e.line).collect();
        assert_eq!(lines, [1, 1, 3]);
        assert_eq!(objects("f", " [ {}, {\"a\":2}] ").unwrap().len(), 1);
    }

    #[test]
    fn nothing_is_an_empty_array() {
        for text in ["", "\n", "[]", "[ ]\n"] {
            assert_eq!(elements("f", text).unwrap().len(), 0);
        }
    }

    fn failure(text: &str) -> String {
        objects("f.json", text).err().unwrap().to_string()
    }

    #[test]
    fn damage_is_named_with_its_line() {
        assert_eq!(
            failure("[{\"a\":1},\n{\"b\""),
            "f.json:2: the file ends too early: EOF while parsing an object: `{\"b\"`"
        );
        assert_eq!(failure("[{\"a\":1}\n{}]"), "f.json:2: expected `,` or `]`: `{}]`");
        assert_eq!(failure("[1]"), "f.json:1: an object is expected here: `1`");
        let deep = format!("[{{\"a\":{}{}}}]", "[".repeat(500), "]".repeat(500));
        assert!(failure(&deep).starts_with("f.json:1: too large: nested too deep"));
    }
}
