use serde::{Deserialize, Serialize};

/// A text could not be read. Names the file, the line and the offending text.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{file}:{line}: {kind}{}", shown(.text))]
#[non_exhaustive]
pub struct Error {
    /// The file, relative to the snapshot folder.
    pub file: String,
    /// The line, counted from 1.
    pub line: u32,
    /// The offending text, cut to what a line of a terminal holds.
    pub text: String,
    /// What is wrong with it.
    pub kind: ErrorKind,
}

/// What is wrong with a text.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[non_exhaustive]
pub enum ErrorKind {
    /// The text ends before it should.
    #[error("the file ends too early: {0}")]
    Truncated(String),
    /// The text does not follow its grammar.
    #[error("{0}")]
    Syntax(String),
    /// A value is out of its range, or of the wrong sort.
    #[error("bad value: {0}")]
    Value(String),
    /// A name points to nothing.
    #[error("no {what} named {name}")]
    Dangling {
        /// What sort of thing is missing: `chain`, `set`, `host`.
        what: String,
        /// The name.
        name: String,
    },
    /// A name is given twice.
    #[error("{what} {name} is given twice")]
    Duplicate {
        /// What sort of thing.
        what: String,
        /// The name.
        name: String,
    },
    /// Chains jump in a circle.
    #[error("jump cycle: {0}")]
    Cycle(String),
    /// The text is larger, deeper or longer than is read.
    #[error("too large: {0}")]
    TooLarge(String),
}

/// The most of an offending text that an error carries, in characters.
const SHOWN: usize = 160;

fn shown(text: &str) -> String {
    if text.is_empty() {
        String::new()
    } else {
        format!(": `{text}`")
    }
}

impl Error {
    /// An error about a line of a file. Long texts are cut, control
    /// characters are escaped: the text may come from a hostile file.
    pub fn new(file: &str, line: u32, text: &str, kind: ErrorKind) -> Self {
        let mut cut: String = text.trim().chars().take(SHOWN).collect();
        if text.trim().chars().nth(SHOWN).is_some() {
            cut.push('…');
        }
        let text =
            cut.chars().flat_map(|c| if c.is_control() { c.escape_default().collect() } else { vec![c] });
        Error { file: file.to_owned(), line, text: text.collect(), kind }
    }

    /// A syntax error.
    pub fn syntax(file: &str, line: u32, text: &str, message: impl Into<String>) -> Self {
        Error::new(file, line, text, ErrorKind::Syntax(message.into()))
    }

    /// A value error.
    pub fn value(file: &str, line: u32, text: &str, message: impl Into<String>) -> Self {
        Error::new(file, line, text, ErrorKind::Value(message.into()))
    }
}
