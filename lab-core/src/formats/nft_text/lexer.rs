//! The words of nft's text, each with the place it stands at.

use super::super::{Error, ErrorKind};

/// What a token is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// A word: names, numbers, addresses, also `10.0.0.1-10.0.0.9`, `.`, `*`.
    Word,
    /// What stands between quotes.
    Quoted,
    /// An operator or bracket.
    Mark,
    /// The end of a line.
    Newline,
    /// What follows a `#`.
    Comment,
}

/// A token.
#[derive(Clone, Copy, Debug)]
pub(super) struct Token<'a> {
    pub kind: Kind,
    /// Its text, without quotes or `#`.
    pub text: &'a str,
    /// Where it starts, in bytes, quotes included.
    pub start: usize,
    /// Where it ends.
    pub end: usize,
    /// Its line.
    pub line: u32,
}

impl Token<'_> {
    /// Whether it is this operator or bracket.
    pub fn is(&self, mark: &str) -> bool {
        self.kind == Kind::Mark && self.text == mark
    }

    /// Whether it is this word, unquoted.
    pub fn word(&self, word: &str) -> bool {
        self.kind == Kind::Word && self.text == word
    }
}

const PAIRS: [&str; 6] = ["!=", "==", "<=", ">=", "<<", ">>"];
const SINGLE: &[u8] = b"{}();,=<>&|^!@";

/// How far a word goes.
fn word(rest: &str) -> usize {
    let ends = |b: u8| b.is_ascii_whitespace() || SINGLE.contains(&b) || b == b'"' || b == b'#';
    rest.bytes().position(ends).unwrap_or(rest.len())
}

/// Splits a text as nft's scanner does, but for words: an address with its
/// port or a range is one.
pub(super) fn tokens<'a>(file: &str, text: &'a str) -> Result<Vec<Token<'a>>, Error> {
    let mut tokens = Vec::with_capacity(text.len() / 6);
    let (mut at, mut line) = (0, 1_u32);
    while let Some(first) = text.as_bytes().get(at) {
        let rest = text.get(at..).unwrap_or_default();
        let pair = rest.get(..2).filter(|pair| PAIRS.contains(pair));
        let (kind, inside, length) = match first {
            b'\n' => (Kind::Newline, "", 1),
            b'\\' if rest.starts_with("\\\n") => {
                line = line.saturating_add(1);
                at += 2;
                continue;
            }
            blank if blank.is_ascii_whitespace() => {
                at += 1;
                continue;
            }
            b'#' => {
                let length = rest.find('\n').unwrap_or(rest.len());
                (Kind::Comment, rest.get(1..length).unwrap_or_default().trim(), length)
            }
            b'"' => match rest.get(1..).and_then(|rest| rest.find('"')) {
                Some(length) => (Kind::Quoted, rest.get(1..=length).unwrap_or_default(), length + 2),
                None => {
                    let shown = rest.lines().next().unwrap_or_default();
                    let kind = ErrorKind::Truncated("a quote is not closed".to_owned());
                    return Err(Error::new(file, line, shown, kind));
                }
            },
            _ if pair.is_some() => (Kind::Mark, pair.unwrap_or_default(), 2),
            single if SINGLE.contains(single) => (Kind::Mark, rest.get(..1).unwrap_or_default(), 1),
            _ => {
                let length = word(rest).max(1);
                (Kind::Word, rest.get(..length).unwrap_or(rest), length)
            }
        };
        tokens.push(Token { kind, text: inside, start: at, end: at + length, line });
        let lines = rest.get(..length).map_or(0, |part| part.bytes().filter(|b| *b == b'\n').count());
        line = line.saturating_add(u32::try_from(lines).unwrap_or(u32::MAX));
        at += length;
    }
    Ok(tokens)
}

/// A part of a text on one line: blanks and ends of lines become one blank.
pub(super) fn folded(text: &str, from: usize, to: usize) -> String {
    let part = text.get(from..to).unwrap_or_default();
    if !part.contains(['\n', '\t']) {
        return part.trim().to_owned();
    }
    part.split('\n').map(str::trim).filter(|line| !line.is_empty()).collect::<Vec<_>>().join(" ")
}
