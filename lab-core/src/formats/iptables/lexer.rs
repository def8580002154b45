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
    let mut at = 0;
    loop {
        let blank = |b: &u8| b.is_ascii_whitespace();
        let Some(skip) = line.as_bytes()[at..].iter().position(|b| !blank(b)) else { return Ok(words) };
        let start = at + skip;
        // Most words are as they stand: no quote before the next blank.
        let rest = &line.as_bytes()[start..];
        let stop = rest.iter().position(|b| *b == b'"' || blank(b)).unwrap_or(rest.len());
        if rest.get(stop) != Some(&b'"') {
            at = start + stop;
            words.push(Word { text: Cow::Borrowed(&line[start..at]), quoted: false, start, end: at });
        } else {
            let (text, end) = quoted(line, start, start + stop)?;
            words.push(Word { text: Cow::Owned(text), quoted: true, start, end });
            at = end;
        }
    }
}

/// A word that has its first quote at `quote`: its text, and where it ends.
fn quoted(line: &str, start: usize, quote: usize) -> Result<(String, usize), ErrorKind> {
    let mut text = line[start..quote].to_owned();
    let mut escaped = false;
    for (at, c) in line[quote + 1..].char_indices() {
        match c {
            _ if escaped => escaped = false,
            '\\' => {
                escaped = true;
                continue;
            }
            '"' => return Ok((text, quote + 1 + at + 1)),
            _ => {}
        }
        text.push(c);
    }
    Err(ErrorKind::Syntax("a quote is never closed".into()))
}

/// The text that some words were written with: blanks between neighbours as
/// they stood, one blank where words between were another's.
pub(super) fn written(line: &str, words: &[Word], picked: &[usize]) -> String {
    let mut text = String::new();
    let mut last: Option<usize> = None;
    for &index in picked {
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
