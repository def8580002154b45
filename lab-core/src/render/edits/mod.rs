//! Edits as text: unified diffs, commands, files for `iptables-restore` and
//! `nft -f`, and JSON.

mod payload;

use serde_json::{json, Map, Value};
use similar::{Algorithm, TextDiff};

pub use payload::{payloads, Payload};

use super::safe;
use crate::formats::command::{self, base_text};
use crate::formats::iptables::rule_text;
use crate::model::{BaseChain, Host, Lab, Policy, Rule};
use crate::query::diff::edits::{ChainEdits, Edits, Fate, HostEdits, RuleEdit};
use crate::query::what_if::apply;

/// Lines of a diff that are shown around what differs.
const CONTEXT: usize = 3;

/// A rule as a line: as its tool lists it.
fn line(chain: &ChainEdits, rule: &Rule) -> String {
    let text = match rule_text(rule) {
        Ok(text) if chain.table.xtables => format!("-A {}{text}", chain.chain),
        _ => match &rule.comment {
            Some(comment) if !chain.table.xtables => format!("{} comment \"{comment}\"", rule.text),
            _ if rule.text.is_empty() => format!("{:?}", rule.statements),
            _ => rule.text.to_string(),
        },
    };
    safe(&text)
}

/// What stands over a chain's rules: its policy, and where it is hooked in.
fn head(chain: &ChainEdits, base: Option<BaseChain>) -> String {
    let base = match base {
        Some(base) if chain.table.xtables => match base.policy {
            Policy::Accept => "ACCEPT".to_owned(),
            Policy::Drop => "DROP".to_owned(),
        },
        None if chain.table.xtables => "-".to_owned(),
        Some(base) => base_text(&base).unwrap_or_else(|_| "{ at a device }".to_owned()),
        None => return safe(&format!("chain {}", chain.chain)),
    };
    match chain.table.xtables {
        true => safe(&format!(":{} {base}", chain.chain)),
        false => safe(&format!("chain {} {base}", chain.chain)),
    }
}

/// The unified diff of a chain, as `diff -u` prints it. A rule that is kept is
/// shown as it is spelt now.
pub fn unified(chain: &ChainEdits) -> String {
    let mut gone = vec![false; chain.old.len()];
    let mut come = vec![false; chain.new.len()];
    let mark = |list: &mut Vec<bool>, number: usize| {
        if let Some(slot) = number.checked_sub(1).and_then(|at| list.get_mut(at)) {
            *slot = true;
        }
    };
    for edit in &chain.edits {
        match edit {
            RuleEdit::Insert { new } => mark(&mut come, *new),
            RuleEdit::Delete { old } => mark(&mut gone, *old),
            RuleEdit::Replace { old, new } | RuleEdit::Move { old, new } => {
                mark(&mut gone, *old);
                mark(&mut come, *new);
            }
        }
    }
    let new: Vec<String> = chain.new.iter().map(|rule| line(chain, rule)).collect();
    let mut kept = new.iter().zip(&come).filter(|(_, come)| !**come).map(|(text, _)| text);
    let old: Vec<String> = chain
        .old
        .iter()
        .zip(&gone)
        .map(|(rule, gone)| match gone {
            true => line(chain, rule),
            false => kept.next().cloned().unwrap_or_default(),
        })
        .collect();
    let lines = |there: bool, base, rules: Vec<String>| -> Vec<String> {
        let head = there.then(|| head(chain, base));
        head.into_iter().chain(rules).collect()
    };
    let old = lines(chain.fate != Fate::Added, chain.old_base, old);
    let new = lines(chain.fate != Fate::Deleted, chain.new_base, new);
    let (old, new): (Vec<&str>, Vec<&str>) =
        (old.iter().map(String::as_str).collect(), new.iter().map(String::as_str).collect());
    let name = safe(&format!("{} {}", chain.table, chain.chain));
    let title = |there: bool| if there { name.clone() } else { "/dev/null".to_owned() };
    let diff = TextDiff::configure().algorithm(Algorithm::Myers).diff_slices(&old, &new);
    diff.unified_diff()
        .context_radius(CONTEXT)
        .header(&title(chain.fate != Fate::Added), &title(chain.fate != Fate::Deleted))
        .to_string()
}

/// The commands that make the changes of a host, in order: each is for the
/// host as those before it left it, so places are right at every step. Where
/// no command says a change, why.
pub fn commands(before: &Host, edits: &HostEdits) -> Vec<Result<String, command::Error>> {
    let mut host = before.clone();
    let mut said = Vec::with_capacity(edits.changes.len());
    for change in &edits.changes {
        said.push(command::print(&host, change));
        // A change that does not fit leaves the host as it is, and its command
        // fails as well.
        let _ = apply(&mut host, change);
    }
    said
}

fn chain_json(chain: &ChainEdits) -> Value {
    let rules = |rules: &[Rule]| rules.iter().map(|rule| line(chain, rule)).collect::<Vec<_>>();
    json!({
        "table": chain.table,
        "chain": chain.chain,
        "fate": chain.fate,
        "old_base": chain.old_base,
        "new_base": chain.new_base,
        "old": rules(&chain.old),
        "new": rules(&chain.new),
        "edits": chain.edits,
        "diff": unified(chain),
    })
}

/// The edits of one host as JSON; `host` is as it is before.
pub fn host_json(host: Option<&Host>, edits: &HostEdits) -> Value {
    let empty = Host::default();
    let commands = commands(host.unwrap_or(&empty), edits);
    let changes: Vec<Value> = edits
        .changes
        .iter()
        .zip(commands)
        .map(|(change, command)| {
            let mut object = Map::new();
            object.insert("change".to_owned(), change.to_string().into());
            match command {
                Ok(command) => object.insert("command".to_owned(), command.into()),
                Err(why) => object.insert("unsayable".to_owned(), why.to_string().into()),
            };
            Value::Object(object)
        })
        .collect();
    json!({
        "host": edits.host,
        "chains": edits.chains.iter().map(chain_json).collect::<Vec<_>>(),
        "changes": changes,
        "unsaid": edits.unsaid,
    })
}

/// The edits as JSON, of schema `lab.edits/1`. `from` is the lab that they
/// begin with.
pub fn json(from: &Lab, edits: &Edits) -> Value {
    json!({
        "schema": "lab.edits/1",
        "hosts": edits.hosts.iter().map(|host| host_json(from.host(&host.host), host)).collect::<Vec<_>>(),
        "unsaid": edits.unsaid,
    })
}
