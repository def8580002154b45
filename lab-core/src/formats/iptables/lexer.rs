use super::super::ErrorKind;

/// A word of a line, with the place it stands at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::formats) struct Word {
    /// The word without its quotes and escapes.
    pub text: String,
    /// Whether any of it was quoted: then it is an argument, never an option.
    pub quoted: bool,
    /// Where it starts in the line, in bytes, quotes included.
    pub start: usize,
    /// Where it ends.
    pub end: usize,
}

impl Word {
    /// Whether the word is the bare `!`.
    pub fn is_bang(&self) -> bool {
        !self.quoted && self.text == "!"
    }
}

/// Splits a line as iptables-restore does (`add_param_to_argv`): blanks part
/// words, `"` quotes, `\` escapes inside quotes, and a closing quote ends the
/// word. A single quote is a character like any other.
pub(in crate::formats) fn words(line: &str) -> Result<Vec<Word>, ErrorKind> {
    let mut words = Vec::new();
    let mut word = Word { text: String::new(), quoted: false, start: 0, end: 0 };
    let mut open = false;
    let mut escaped = false;
    for (at, c) in line.char_indices() {
        if escaped {
            word.text.push(c);
            escaped = false;
        } else if open && c == '\\' {
            escaped = true;
        } else if open && c == '"' {
            open = false;
            word.end = at + 1;
            let next = Word { text: String::new(), quoted: false, start: at + 1, end: at + 1 };
            words.push(std::mem::replace(&mut word, next));
        } else if open {
            word.text.push(c);
        } else if c == '"' {
            if word.text.is_empty() {
                word.start = at;
            }
            word.quoted = true;
            open = true;
        } else if c.is_ascii_whitespace() {
            if !word.text.is_empty() {
                word.end = at;
                let next = Word { text: String::new(), quoted: false, start: at, end: at };
                words.push(std::mem::replace(&mut word, next));
            }
        } else {
            if word.text.is_empty() {
                word.start = at;
            }
            word.text.push(c);
        }
    }
    if open {
        return Err(ErrorKind::Syntax("a quote is never closed".into()));
    }
    if !word.text.is_empty() {
        word.end = line.len();
        words.push(word);
    }
    Ok(words)
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
