use std::collections::{HashMap, HashSet};

use serde_json::{json, Value};

use crate::formats::command::{json_expressions, nft_rule_text, rule_json, say, Error, Said};
use crate::formats::iptables::{built_in, rule_text};
use crate::model::{Backend, Change, Host, Policy, TableFamily, TableId};
use crate::query::diff::edits::HostEdits;
use crate::query::what_if::apply;

/// A file for a tool that makes several changes at once: per table, all or
/// none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Payload {
    /// The tool and its arguments; it reads the text from its standard input.
    pub command: Vec<String>,
    /// The text.
    pub text: String,
}

/// The changes of a host's rule set as files: `iptables-restore --noflush` for
/// what speaks iptables, `nft -f -` (or `nft -j -f -`, for rules that are known
/// by their JSON) for the rest. Only chains that change are named, and rules
/// that are kept keep their counters.
///
/// IP sets, routes, addresses, links and settings go by commands alone. What
/// no file says is named: a table that is to go stays, empty. Where the handle
/// of a rule of nft is needed and not known, its chain is emptied and filled
/// anew, in the same file.
///
/// nft takes a file at once. It takes two of them if rules are known by their
/// JSON and elements of named sets change, which are told in nft's words.
///
/// A user chain that stands in a file as `:CHAIN` would be emptied, so new ones
/// are made by `-N`.
pub fn payloads(before: &Host, edits: &HostEdits) -> (Vec<Payload>, Vec<Error>) {
    let mut unsaid = Vec::new();
    let mut out = restores(before, edits, &mut unsaid);
    out.extend(nft_files(before, edits, &mut unsaid));
    (out, unsaid)
}

fn policy(policy: Policy) -> &'static str {
    match policy {
        Policy::Accept => "ACCEPT",
        Policy::Drop => "DROP",
    }
}

/// A change as lines of `iptables-restore`.
fn restore_lines(host: &Host, change: &Change) -> Result<Vec<String>, Error> {
    let of = |rule: &crate::model::Rule| -> Result<String, Error> {
        let text = rule_text(rule).map_err(|why| Error::Unsayable(why.to_owned()))?;
        match text.contains('\n') {
            true => Err(Error::Unsayable("a line feed, in a file that is read by lines".to_owned())),
            false => Ok(text),
        }
    };
    Ok(vec![match change {
        // The table's line makes it.
        Change::AddTable(_) => return Ok(Vec::new()),
        Change::DeleteTable(id) => {
            let found = host.ruleset.tables.iter().find(|t| id.means(t));
            let own = found.into_iter().flat_map(|t| &t.chains).filter(|c| c.base.is_none());
            let mut lines = vec!["-F".to_owned()];
            lines.extend(own.map(|chain| format!("-X {}", chain.name)));
            lines.extend(built_in(&id.name).iter().map(|chain| format!("-P {chain} ACCEPT")));
            return Ok(lines);
        }
        Change::AddChain { chain, .. } => format!("-N {chain}"),
        Change::DeleteChain { chain, .. } => format!("-X {chain}"),
        Change::SetPolicy { chain, policy: to, .. } => format!("-P {chain} {}", policy(*to)),
        Change::InsertRule { chain, place: None, rule, .. } => format!("-A {chain}{}", of(rule)?),
        Change::InsertRule { chain, place: Some(place), rule, .. } => {
            format!("-I {chain} {place}{}", of(rule)?)
        }
        Change::ReplaceRule { chain, place, rule, .. } => format!("-R {chain} {place}{}", of(rule)?),
        Change::DeleteRule { chain, place, .. } => format!("-D {chain} {place}"),
        _ => return Err(Error::Unsayable("iptables-restore has no words for it".to_owned())),
    }])
}

/// The lines of a table, by its name.
type TableLines = Vec<(String, Vec<String>)>;

fn restores(before: &Host, edits: &HostEdits, unsaid: &mut Vec<Error>) -> Vec<Payload> {
    // By program, then by table, in the order in which they first come.
    let mut programs: Vec<(String, TableLines)> = Vec::new();
    for change in &edits.changes {
        let Some(table) = change.table().filter(|table| table.xtables) else { continue };
        let six = if table.family == TableFamily::Ip6 { "6" } else { "" };
        let sort = match table.backend {
            None => "",
            Some(Backend::Legacy) => "-legacy",
            Some(Backend::Nft) => "-nft",
        };
        let lines = match restore_lines(before, change) {
            Ok(lines) => lines,
            Err(why) => {
                unsaid.push(why);
                continue;
            }
        };
        if let Change::DeleteTable(table) = change {
            let left = format!("table {table} is emptied, but stays");
            unsaid.push(Error::Unsayable(left));
        }
        let name = format!("ip{six}tables{sort}-restore");
        let at = programs.iter().position(|(program, _)| *program == name).unwrap_or_else(|| {
            programs.push((name, Vec::new()));
            programs.len() - 1
        });
        let tables = &mut programs[at].1;
        let at = tables.iter().position(|(name, _)| *name == table.name).unwrap_or_else(|| {
            tables.push((table.name.clone(), Vec::new()));
            tables.len() - 1
        });
        tables[at].1.extend(lines);
    }
    let written = |(name, lines): &(String, Vec<String>)| {
        let lines: String = lines.iter().map(|line| format!("{line}\n")).collect();
        format!("*{name}\n{lines}COMMIT\n")
    };
    programs
        .into_iter()
        .map(|(program, tables)| Payload {
            command: vec![program, "--noflush".to_owned()],
            text: tables.iter().map(written).collect(),
        })
        .collect()
}

type ChainName<'e> = (&'e TableId, &'e str);

fn rule_chain(change: &Change) -> Option<ChainName<'_>> {
    match change {
        Change::InsertRule { table, chain, .. }
        | Change::DeleteRule { table, chain, .. }
        | Change::ReplaceRule { table, chain, .. } => Some((table, chain)),
        _ => None,
    }
}

/// The chains of which a rule must be found whose handle is not known: a file
/// cannot look it up, so they are emptied and filled again.
fn without_handles<'e>(before: &Host, edits: &'e HostEdits) -> HashSet<ChainName<'e>> {
    let mut host = before.clone();
    let mut found = HashSet::new();
    for change in &edits.changes {
        let of = rule_chain(change).filter(|(table, _)| !table.xtables);
        if let Some(chain) = of {
            let hard = match say(&host, chain.0, change, false) {
                Ok(Said::TextByHandle(..) | Said::JsonByHandle(..)) => true,
                // Where the handle would have been looked up, but cannot be.
                Err(_) => !matches!(change, Change::InsertRule { .. }),
                Ok(Said::Text(text)) => text.contains(" index "),
                Ok(_) => false,
            };
            if hard {
                found.insert(chain);
            }
        }
        let _ = apply(&mut host, change);
    }
    found
}

/// Everything of a chain, from its first line on.
fn refilled(edits: &HostEdits, (table, name): ChainName<'_>) -> Result<Vec<Said>, Error> {
    let chain = edits.chains.iter().find(|c| c.table == *table && c.chain == name);
    let rules = chain.map(|c| c.new.as_slice()).unwrap_or_default();
    let add = |rule| match json_expressions(rule) {
        None => {
            let text = nft_rule_text(rule)?;
            Ok(Said::Text(format!("add rule {} {} {name} {text}", table.family, table.name)))
        }
        Some(_) => Ok(Said::Json(json!({ "add": { "rule": rule_json(table, name, rule)? } }))),
    };
    rules.iter().map(add).collect()
}

fn flush((table, chain): ChainName<'_>, as_json: bool) -> Said {
    let (family, name) = (table.family.to_string(), &table.name);
    match as_json {
        true => {
            Said::Json(json!({ "flush": { "chain": { "family": family, "table": name, "name": chain } } }))
        }
        false => Said::Text(format!("flush chain {family} {name} {chain}")),
    }
}

fn nft_files(before: &Host, edits: &HostEdits, unsaid: &mut Vec<Error>) -> Vec<Payload> {
    let refill = without_handles(before, edits);
    // One file is made at once; rules that only JSON says take the rest along.
    let rules = || edits.chains.iter().filter(|c| !c.table.xtables).flat_map(|c| &c.new);
    let as_json = rules().any(|rule| json_expressions(rule).is_some());
    let mut last: HashMap<ChainName<'_>, usize> = HashMap::new();
    for (at, change) in edits.changes.iter().enumerate() {
        if let Some(chain) = rule_chain(change) {
            last.insert(chain, at);
        }
    }
    let mut host = before.clone();
    let mut flushed: HashSet<ChainName<'_>> = HashSet::new();
    let mut parts: Vec<Said> = Vec::new();
    for (at, change) in edits.changes.iter().enumerate() {
        let Some(table) = change.table().filter(|table| !table.xtables) else { continue };
        match rule_chain(change).filter(|chain| refill.contains(chain)) {
            Some(chain) => {
                if flushed.insert(chain) {
                    parts.push(flush(chain, as_json));
                }
                if last.get(&chain) == Some(&at) {
                    match refilled(edits, chain) {
                        Ok(rules) => parts.extend(rules),
                        Err(why) => unsaid.push(why),
                    }
                }
            }
            None => match say(&host, table, change, as_json) {
                Ok(said) => parts.push(said),
                Err(why) => unsaid.push(why),
            },
        }
        let _ = apply(&mut host, change);
    }
    written(parts, unsaid)
}

/// One file for each run of what is said in one language.
fn written(parts: Vec<Said>, unsaid: &mut Vec<Error>) -> Vec<Payload> {
    let mut out: Vec<Payload> = Vec::new();
    let mut objects: Vec<Value> = Vec::new();
    let mut lines = String::new();
    let flat = parts.into_iter().flat_map(|part| match part {
        Said::Several(parts) => parts,
        one => vec![one],
    });
    let close = |objects: &mut Vec<Value>, lines: &mut String, out: &mut Vec<Payload>| {
        if !objects.is_empty() {
            let text = format!("{}\n", json!({ "nftables": std::mem::take(objects) }));
            out.push(Payload { command: ["nft", "-j", "-f", "-"].map(str::to_owned).into(), text });
        }
        if !lines.is_empty() {
            let command = ["nft", "-f", "-"].map(str::to_owned).into();
            out.push(Payload { command, text: std::mem::take(lines) });
        }
    };
    for part in flat {
        match part {
            Said::Text(text) => {
                close(&mut objects, &mut String::new(), &mut out);
                lines.push_str(&text);
                lines.push('\n');
            }
            Said::Json(object) => {
                close(&mut Vec::new(), &mut lines, &mut out);
                objects.push(object);
            }
            Said::TextByHandle(..) | Said::JsonByHandle(..) | Said::Several(_) => {
                unsaid.push(Error::Unsayable("a rule whose handle is not known".to_owned()));
            }
        }
    }
    close(&mut objects, &mut lines, &mut out);
    out
}
