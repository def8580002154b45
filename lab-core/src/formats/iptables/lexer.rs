use std::borrow::Cow;

use super::super::ErrorKind;

/// A word of a line, with the place it stands at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::formats) struct Word<'a> {
    /// The word without its quotes and escapes.
    pub text: Cow<'a, str>,
    /// Whether any of it was quoted: then it is an argument, never an option.
    pub quoted: bool,
    /// Where it starts in the line, in bytes, quotes included.
    pub start: usize,
    /// Where it ends.
    pub end: usize,
}

impl Word<'_> {
    /// Whether the word is the bare `!`.
    pub fn is_bang(&self) -> bool {
        !self.quoted && self.text == "!"
    }
}

/// Splits a line as iptables-restore does (`add_param_to_argv`): blanks part
/// words, `"` quotes, `\` escapes inside quotes, and a closing quote ends the
/// word. A single quote is a character like any other.
pub(in crate::formats) fn words(line: &str) -> Result<Vec<Word<'_>>, ErrorKind> {
    let mut words = Vec::with_capacity(16);
    split(line, &mut words)?;
    Ok(words)
}

/// [`words`] into a list that was used before.
pub(super) fn split<'a>(line: &'a str, words: &mut Vec<Word<'a>>) -> Result<(), ErrorKind> {
    words.clear();
    let mut at = 0;
    loop {
        let rest = &line.as_bytes()[at..];
        let Some(skip) = rest.iter().position(|b| !b.is_ascii_whitespace()) else { return Ok(()) };
        let start = at + skip;
        // Most words are as they stand: no quote before the next blank.
        let stop = end(&rest[skip..]);
        if rest.get(skip + stop) != Some(&b'"') {
            at = start + stop;
            words.push(Word { text: Cow::Borrowed(&line[start..at]), quoted: false, start, end: at });
        } else {
            let (text, end) = quoted(line, start, start + stop)?;
            words.push(Word { text, quoted: true, start, end });
            at = end;
        }
    }
}

/// How far it is to the next blank or quote, or to the end. Eight bytes are
/// looked at together: blanks and the quote come before all but `!` of the
/// characters that words are made of.
pub(super) fn end(text: &[u8]) -> usize {
    const ONES: u64 = 0x0101_0101_0101_0101;
    const ABOVE: u64 = ONES * (b'"' as u64 + 1);
    let ends = |b: u8| b == b'"' || b.is_ascii_whitespace();
    let mut at = 0;
    while let Some(chunk) = text.get(at..).and_then(<[u8]>::first_chunk) {
        let chunk = u64::from_le_bytes(*chunk);
        // The lowest bit set is at the first byte below; those after it may
        // be set by a borrow.
        let below = chunk.wrapping_sub(ABOVE) & !chunk & (ONES << 7);
        at += (below.trailing_zeros() / 8) as usize;
        if below != 0 {
            match text.get(at) {
                Some(b) if !ends(*b) => at += 1,
                _ => return at,
            }
        }
    }
    let rest = text.get(at..).unwrap_or_default();
    at + rest.iter().position(|b| ends(*b)).unwrap_or(rest.len())
}

/// The lines of a text, without their line feeds.
pub(super) fn lines(mut text: &str) -> impl Iterator<Item = &str> {
    std::iter::from_fn(move || {
        let end = memchr::memchr(b'\n', text.as_bytes()).unwrap_or(text.len());
        let line = text.get(..end).filter(|_| !text.is_empty())?;
        text = text.get(end + 1..).unwrap_or_default();
        Some(line)
    })
}

/// A word that has its first quote at `quote`: its text, and where it ends.
fn quoted(line: &str, start: usize, quote: usize) -> Result<(Cow<'_, str>, usize), ErrorKind> {
    let inner = &line[quote + 1..];
    if let Some(length) = memchr::memchr2(b'"', b'\\', inner.as_bytes()) {
        if start == quote && inner.as_bytes()[length] == b'"' {
            return Ok((Cow::Borrowed(&inner[..length]), quote + length + 2));
        }
    }
    let mut text = line[start..quote].to_owned();
    let mut escaped = false;
    for (at, c) in inner.char_indices() {
        match c {
            _ if escaped => escaped = false,
            '\\' => {
                escaped = true;
                continue;
            }
            '"' => return Ok((text.into(), quote + 1 + at + 1)),
            _ => {}
        }
        text.push(c);
    }
    Err(ErrorKind::Syntax("a quote is never closed".into()))
}

/// The text that some words were written with: blanks between neighbours as
/// they stood, one blank where words between were another's.
pub(super) fn written(line: &str, words: &[Word], picked: impl Iterator<Item = usize>) -> String {
    let mut text = String::new();
    let mut last: Option<usize> = None;
    for index in picked {
        let Some(word) = words.get(index) else { continue };
        let from = match last {
            Some(last) if last + 1 == index => words.get(last).map_or(word.start, |w| w.end),
            Some(_) => {
                text.push(' ');
                word.start
            }
            None => word.start,
        };
        text.push_str(line.get(from..word.end).unwrap_or_default());
        last = Some(index);
    }
    text
}

/// A word as iptables-save writes it (`xtables_save_string`).
pub(super) fn quote(text: &str) -> String {
    if !text.is_empty() && text.chars().all(|c| c.is_ascii_alphanumeric() || c == '_' || c == '-') {
        return text.to_owned();
    }
    let mut quoted = String::with_capacity(text.len() + 2);
    quoted.push('"');
    for c in text.chars() {
        if matches!(c, '"' | '\\' | '\'') {
            quoted.push('\\');
        }
        quoted.push(c);
    }
    quoted.push('"');
    quoted
}
