use super::{quoted, unsayable, Error};
use crate::formats::ipset;
use crate::formats::iptables::words;
use crate::model::{Change, Ipset};

/// The options of a set that a kernel draws or changes by itself; `ipset save`
/// prints them, and to give them back would be to say more than was meant.
const OWN: [&str; 1] = ["initval"];

/// The lines of `ipset save` for a set, each as its words.
fn lines(set: &Ipset) -> Result<Vec<Vec<String>>, Error> {
    let read = |line: &str| match words(line) {
        Ok(words) => Ok(words.into_iter().map(|w| w.text.into_owned()).collect()),
        Err(kind) => unsayable(format!("`{line}`: {kind}")),
    };
    // A comment cannot hold a line feed: ipset takes it for the end of the line.
    ipset::print(std::slice::from_ref(set)).lines().map(read).collect()
}

/// One command, or `ipset restore` for several lines of it.
fn restored(lines: Vec<Vec<String>>) -> Result<String, Error> {
    match lines.as_slice() {
        [] => unsayable("a change of no element"),
        [line] => quoted(std::iter::once("ipset").chain(line.iter().map(String::as_str))),
        several => {
            let texts: Vec<String> = several.iter().map(|line| restore_line(line)).collect();
            let printed = quoted(["printf", "%s\\n"].into_iter().chain(texts.iter().map(String::as_str)))?;
            Ok(format!("{printed} | ipset restore"))
        }
    }
}

/// A line as `ipset restore` reads it: only a comment may need its quotes.
fn restore_line(words: &[String]) -> String {
    let plain = |word: &String| match word.contains(char::is_whitespace) || word.is_empty() {
        true => format!("\"{word}\""),
        false => word.clone(),
    };
    words.iter().map(plain).collect::<Vec<_>>().join(" ")
}

fn without_own(line: &mut Vec<String>) {
    for option in OWN {
        if let Some(at) = line.iter().position(|word| word == option) {
            line.drain(at..(at + 2).min(line.len()));
        }
    }
}

pub(super) fn print(change: &Change) -> Result<String, Error> {
    match change {
        Change::CreateIpset(set) => {
            let mut lines = lines(set)?;
            lines.iter_mut().take(1).for_each(without_own);
            restored(lines)
        }
        Change::DestroyIpset(name) => quoted(["ipset", "destroy", name]),
        Change::AddIpsetElements(set) => restored(lines(set)?.into_iter().skip(1).collect()),
        Change::DeleteIpsetElements(set) => {
            let lines = lines(set)?.into_iter().skip(1);
            // What tells an element from others is its third word.
            restored(
                lines
                    .map(|mut line| {
                        line.truncate(3);
                        if let Some(verb) = line.first_mut() {
                            *verb = "del".to_owned();
                        }
                        line
                    })
                    .collect(),
            )
        }
        _ => unsayable("ipset has no words for it"),
    }
}
