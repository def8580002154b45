use super::{joined, syntax, unsayable, Error};
use crate::addr::Family;
use crate::formats::iptables::{self, built_in, words};
use crate::model::{Backend, Change, Host, Policy, Rule, Statement, TableFamily, TableId};

const PROGRAMS: [(&str, Family, Option<Backend>); 6] = [
    ("iptables", Family::Ipv4, None),
    ("ip6tables", Family::Ipv6, None),
    ("iptables-legacy", Family::Ipv4, Some(Backend::Legacy)),
    ("ip6tables-legacy", Family::Ipv6, Some(Backend::Legacy)),
    ("iptables-nft", Family::Ipv4, Some(Backend::Nft)),
    ("ip6tables-nft", Family::Ipv6, Some(Backend::Nft)),
];

pub(super) fn is_program(word: &str) -> bool {
    PROGRAMS.iter().any(|(name, ..)| *name == word)
}

fn program(table: &TableId) -> Result<&'static str, Error> {
    let family = match table.family {
        TableFamily::Ip => Family::Ipv4,
        TableFamily::Ip6 => Family::Ipv6,
        other => return unsayable(format!("iptables has no {other} tables")),
    };
    let found = PROGRAMS.iter().find(|(_, f, b)| (*f, *b) == (family, table.backend));
    found.map(|(name, ..)| *name).ok_or_else(|| Error::Unsayable("no such machinery".to_owned()))
}

fn policy_word(policy: Policy) -> &'static str {
    match policy {
        Policy::Accept => "ACCEPT",
        Policy::Drop => "DROP",
    }
}

/// What a rule says, in whichever order and quotes.
fn meaning(rule: &Rule) -> Vec<String> {
    let shown = |s: &Statement| format!("{s:?}").replace(['"', '\\'], "");
    let mut parts: Vec<String> = rule.statements.iter().map(shown).collect();
    parts.sort();
    parts
}

/// The words of a rule behind its chain. A program may make a rule that
/// iptables has no options for: what is said must be read as what was meant.
fn rule_words(id: &TableId, chain: &str, rule: &Rule) -> Result<Vec<String>, Error> {
    let text = iptables::rule_text(rule).map_err(|what| Error::Unsayable(what.to_owned()))?;
    let words: Vec<String> = match words(&text) {
        Ok(words) => words.into_iter().map(|w| w.text.into_owned()).collect(),
        Err(kind) => return unsayable(format!("`{text}`: {kind}")),
    };
    let family = if id.family == TableFamily::Ip6 { Family::Ipv6 } else { Family::Ipv4 };
    let given: Vec<&str> = words.iter().map(String::as_str).collect();
    match iptables::rule(&id.name, chain, &given, family) {
        Ok(read) if meaning(&read) == meaning(rule) => Ok(words),
        Ok(_) => unsayable(format!("`{text}` would mean something else")),
        Err(why) => unsayable(format!("`{text}`: {why}")),
    }
}

/// Empties a table of iptables-legacy, which stays as long as its module.
fn emptied(start: &[String], table: &str) -> Result<String, Error> {
    let mut commands = Vec::new();
    let mut command = |more: &[&str]| {
        let mut words = start.to_vec();
        words.extend(more.iter().map(|w| (*w).to_owned()));
        commands.push(joined(&words)?);
        Ok(())
    };
    command(&["-F"])?;
    command(&["-X"])?;
    for chain in built_in(table) {
        command(&["-P", chain, "ACCEPT"])?;
    }
    Ok(commands.join(" && "))
}

pub(super) fn print(host: &Host, id: &TableId, change: &Change) -> Result<String, Error> {
    let mut words: Vec<String> = [program(id)?, "-t", &id.name].map(str::to_owned).into();
    let mut say = |more: &[&str]| words.extend(more.iter().map(|w| (*w).to_owned()));
    match change {
        // Whatever is done first to a table makes it: this does nothing else.
        Change::AddTable(_) => match built_in(&id.name).first() {
            Some(chain) => say(&["-P", chain, "ACCEPT"]),
            None => return unsayable(format!("iptables has no table {}", id.name)),
        },
        Change::DeleteTable(_) => {
            let found = host.ruleset.tables.iter().find(|t| id.means(t));
            return match id.backend.or(found.map(|t| t.backend)) {
                Some(Backend::Nft) => {
                    let family = id.family.to_string();
                    super::quoted(["nft", "delete", "table", &family, &id.name])
                }
                Some(Backend::Legacy) => emptied(&words, &id.name),
                None => unsayable(format!("the host has no table {id}")),
            };
        }
        Change::AddChain { chain, base: None, .. } => say(&["-N", chain]),
        Change::AddChain { chain, .. } => {
            return unsayable(format!("{chain} is there as soon as the table is"));
        }
        Change::DeleteChain { chain, .. } => say(&["-X", chain]),
        Change::SetPolicy { chain, policy, .. } => say(&["-P", chain, policy_word(*policy)]),
        Change::InsertRule { chain, place: None, rule, .. } => {
            say(&["-A", chain]);
            words.extend(rule_words(id, chain, rule)?);
        }
        Change::InsertRule { chain, place: Some(place), rule, .. } => {
            say(&["-I", chain, &place.to_string()]);
            words.extend(rule_words(id, chain, rule)?);
        }
        Change::ReplaceRule { chain, place, rule, .. } => {
            say(&["-R", chain, &place.to_string()]);
            words.extend(rule_words(id, chain, rule)?);
        }
        Change::DeleteRule { chain, place, .. } => say(&["-D", chain, &place.to_string()]),
        _ => return unsayable("iptables has no words for it"),
    }
    joined(&words)
}

/// `-I CHAIN [PLACE] RULE`, `-A CHAIN RULE`, `-R CHAIN PLACE RULE`,
/// `-D CHAIN PLACE`, `-N CHAIN`, `-X CHAIN`, `-P CHAIN POLICY`, with
/// `-t TABLE`.
pub(super) fn parse(program: &str, words: &[&str]) -> Result<Change, Error> {
    let Some((_, family, backend)) = PROGRAMS.iter().find(|(name, ..)| *name == program) else {
        return syntax(format!("{program} is not understood here"));
    };
    let mut name = "filter".to_owned();
    let mut rest: Vec<&str> = Vec::new();
    let mut words = words.iter();
    while let Some(word) = words.next() {
        // The word behind a long option may be its value.
        let value = rest.last().is_some_and(|before| before.starts_with("--"));
        match *word {
            "-t" | "--table" if !value => {
                name = (*words.next().ok_or(Error::Syntax("-t without a table".into()))?).to_owned();
            }
            "-w" | "--wait" if !value => {}
            other => rest.push(other),
        }
    }
    let [verb, chain, spec @ ..] = rest.as_slice() else {
        return syntax("write -I CHAIN …, -A CHAIN …, -R CHAIN PLACE … or -D CHAIN PLACE");
    };
    let table = TableId { backend: *backend, ..TableId::iptables(*family, &name) };
    let chain = (*chain).to_owned();
    let number = spec.first().and_then(|w| w.parse::<usize>().ok());
    let rule = |skip: usize| {
        iptables::rule(&name, &chain, spec.get(skip..).unwrap_or_default(), *family)
            .map(Box::new)
            .map_err(|kind| Error::Syntax(kind.to_string()))
    };
    Ok(match (*verb, spec, number) {
        ("-D" | "--delete", [_], Some(place)) => Change::DeleteRule { table, chain, place },
        ("-D" | "--delete", ..) => return syntax("write -D CHAIN PLACE, the rule's number from 1"),
        ("-A" | "--append", ..) => {
            let rule = rule(0)?;
            Change::InsertRule { table, chain, place: None, rule }
        }
        ("-I" | "--insert", ..) => {
            let rule = rule(usize::from(number.is_some()))?;
            Change::InsertRule { table, chain, place: Some(number.unwrap_or(1)), rule }
        }
        ("-R" | "--replace", _, Some(place)) => {
            let rule = rule(1)?;
            Change::ReplaceRule { table, chain, place, rule }
        }
        ("-N" | "--new-chain" | "--new", [], _) => Change::AddChain { table, chain, base: None },
        ("-X" | "--delete-chain", [], _) => Change::DeleteChain { table, chain },
        ("-P" | "--policy", ["ACCEPT"], _) => Change::SetPolicy { table, chain, policy: Policy::Accept },
        ("-P" | "--policy", ["DROP"], _) => Change::SetPolicy { table, chain, policy: Policy::Drop },
        (other, ..) => return syntax(format!("{other} is not understood here, or not with these words")),
    })
}
