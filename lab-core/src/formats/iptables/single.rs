use super::lexer::quote;
use super::table::Reader;
use super::{dangling, TARGETS};
use crate::addr::Family;
use crate::formats::ErrorKind;
use crate::model::{Backend, Rule, Text};

/// Verdicts that iptables has beside the extensions.
const VERDICTS: [&str; 4] = ["ACCEPT", "DROP", "RETURN", "QUEUE"];

/// Reads one rule from the words of a command behind its chain. A target that
/// is no extension of iptables is taken to be a chain.
pub(in crate::formats) fn rule(
    table: &str,
    chain: &str,
    words: &[&str],
    family: Family,
) -> Result<Rule, ErrorKind> {
    let mut line = format!("-A {}", written(chain));
    for (at, word) in words.iter().enumerate() {
        // A comment may look like anything.
        let comment = at > 0 && matches!(words[at - 1], "--comment" | "--log-prefix" | "--nflog-prefix");
        line.push(' ');
        line.push_str(&if comment { quote_always(word) } else { written(word) });
    }
    let text = Text::from(line);
    let file = Text::from("command");
    let mut reader = Reader::new(&file, &text, 1, table, Backend::Legacy, family)?;
    let jumps = words.windows(2).filter_map(|pair| match pair {
        ["-j" | "--jump", to] if !VERDICTS.contains(to) && !TARGETS.iter().any(|t| t.name == *to) => {
            Some(*to)
        }
        ["-g" | "--goto", to] => Some(*to),
        _ => None,
    });
    for name in jumps.filter(|to| *to != chain).chain([chain]) {
        reader.chain_there(name)?;
    }
    reader.line(1, &text)?;
    let found = reader.finish().map_err(|error| error.kind)?;
    let mut rules = found.chains.into_iter().filter(|c| c.name == *chain).flat_map(|c| c.rules);
    match (rules.next(), rules.next()) {
        (Some(rule), None) => Ok(rule),
        (Some(_), Some(_)) => {
            Err(ErrorKind::Syntax("the command stands for several rules: give them one by one".into()))
        }
        (None, _) => Err(dangling("chain", chain)),
    }
}

/// A word as the line's reader takes it for the same word.
fn written(word: &str) -> String {
    if word.is_empty() || word.contains(|c: char| c.is_whitespace() || matches!(c, '"' | '\\')) {
        quote(word)
    } else {
        word.to_owned()
    }
}

fn quote_always(word: &str) -> String {
    match quote(word) {
        quoted if quoted.starts_with('"') => quoted,
        plain => format!("\"{plain}\""),
    }
}
