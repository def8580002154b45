//! Changes of tables, chains and rules.

use std::collections::HashSet;

use super::{missing, refused};
use crate::formats::iptables::{built_in, built_in_chain};
use crate::model::{
    Backend, BaseChain, Chain, Change, Host, Origin, Part, Policy, Rule, Statement, Table, TableFamily,
    TableId, Target, Verdict,
};
use crate::query::Error;

/// The chains that a rule leads to, of the verdicts written in it.
fn jumps(rule: &Rule) -> impl Iterator<Item = &str> {
    fn of(verdict: &Verdict) -> Option<&str> {
        match verdict {
            Verdict::Jump(chain) | Verdict::Goto(chain) => Some(chain),
            Verdict::Accept | Verdict::Drop | Verdict::Return | Verdict::Continue => None,
        }
    }
    rule.statements.iter().flat_map(|statement| {
        let (one, many) = match statement {
            Statement::Target(Target::Verdict(verdict)) => (of(verdict), [].as_slice()),
            Statement::Target(Target::VerdictMap { elements, .. }) => (None, elements.as_slice()),
            Statement::Target(_) | Statement::Match(_) => (None, [].as_slice()),
        };
        one.into_iter().chain(many.iter().filter_map(|(_, verdict)| of(verdict)))
    })
}

/// The named verdict maps that a rule asks.
fn maps(rule: &Rule) -> impl Iterator<Item = &str> {
    rule.statements.iter().filter_map(|statement| match statement {
        Statement::Target(Target::VerdictMap { name, .. }) => name.as_deref(),
        Statement::Target(_) | Statement::Match(_) => None,
    })
}

/// The chains that a rule leads to, named maps included.
pub(in crate::query) fn leads<'t>(table: &'t Table, rule: &'t Rule) -> impl Iterator<Item = &'t str> {
    let named = maps(rule).filter_map(|name| table.set(name)).flat_map(|set| &set.verdicts);
    let mapped = named.filter_map(|verdict| match verdict {
        Verdict::Jump(chain) | Verdict::Goto(chain) => Some(chain.as_str()),
        Verdict::Accept | Verdict::Drop | Verdict::Return | Verdict::Continue => None,
    });
    jumps(rule).chain(mapped)
}

/// Whether a packet can come from one chain to another.
fn reaches(table: &Table, from: &str, to: &str) -> bool {
    let (mut seen, mut open) = (HashSet::new(), vec![from]);
    while let Some(name) = open.pop() {
        if name == to {
            return true;
        }
        if seen.insert(name) {
            let rules = table.chain(name).map(|c| c.rules.as_slice()).unwrap_or_default();
            open.extend(rules.iter().flat_map(|rule| leads(table, rule)));
        }
    }
    false
}

/// A table with the chains it has from the start.
pub(in crate::query) fn new_table(id: &TableId, backend: Backend) -> Table {
    let chains = if id.xtables { built_in(&id.name) } else { &[] };
    let chain = |name: &&str| Chain {
        name: (*name).into(),
        base: built_in_chain(&id.name, name),
        rules: Vec::new(),
        counters: None,
        handle: None,
        origin: Origin::default(),
    };
    Table {
        backend,
        family: id.family,
        name: id.name.clone(),
        xtables: id.xtables,
        chains: chains.iter().map(chain).collect(),
        sets: Vec::new(),
        unmodelled: Vec::new(),
        origin: Origin::default(),
    }
}

fn position(host: &Host, id: &TableId) -> Option<usize> {
    host.ruleset.tables.iter().position(|table| id.means(table))
}

pub(super) fn table_of<'h>(host: &'h mut Host, id: &TableId) -> Result<&'h mut Table, Error> {
    match position(host, id) {
        Some(place) => Ok(&mut host.ruleset.tables[place]),
        None => Err(missing(host, format_args!("table {id}"))),
    }
}

/// The machinery that a table is made in, where the change does not name one:
/// that of the host's other tables.
fn backend(host: &Host, id: &TableId) -> Backend {
    let other = || host.ruleset.tables.iter().find(|t| t.xtables == id.xtables).map(|t| t.backend);
    id.backend.or_else(other).unwrap_or(Backend::Nft)
}

pub(super) fn add_table(host: &mut Host, id: &TableId) -> Result<(), Error> {
    if position(host, id).is_some() {
        return Err(refused(host, format_args!("table {id} is there already")));
    }
    if id.xtables && built_in(&id.name).is_empty() {
        return Err(refused(host, format_args!("iptables has no table {}", id.name)));
    }
    let made = new_table(id, backend(host, id));
    host.ruleset.tables.push(made);
    Ok(())
}

pub(super) fn delete_table(host: &mut Host, id: &TableId) -> Result<(), Error> {
    match position(host, id) {
        Some(place) => {
            host.ruleset.tables.remove(place);
            Ok(())
        }
        None => Err(missing(host, format_args!("table {id}"))),
    }
}

/// The table of a rule; iptables makes its own with the first rule, if nothing
/// hides which there are.
fn table_for_rule<'h>(host: &'h mut Host, id: &TableId, chain: &str) -> Result<&'h mut Table, Error> {
    if position(host, id).is_none() && id.xtables && built_in(&id.name).contains(&chain) {
        let part = if id.family == TableFamily::Ip { Part::Firewall4 } else { Part::Firewall6 };
        if !host.unknown.contains(&part) {
            add_table(host, id)?;
        }
    }
    match position(host, id) {
        Some(place) => Ok(&mut host.ruleset.tables[place]),
        None => Err(missing(host, format_args!("chain {chain}"))),
    }
}

pub(super) fn add_chain(
    host: &mut Host,
    id: &TableId,
    name: &str,
    base: Option<BaseChain>,
) -> Result<(), Error> {
    if name.is_empty() || (id.xtables && name.starts_with(['-', '!'])) {
        return Err(refused(host, format_args!("`{name}` cannot name a chain")));
    }
    // The first chain of one's own makes the table, as the first rule does.
    if let Some(chain) = built_in(&id.name).first().filter(|_| id.xtables) {
        table_for_rule(host, id, chain)?;
    }
    if table_of(host, id)?.chain(name).is_some() {
        return Err(refused(host, format_args!("{} {name} is there already", id.name)));
    }
    table_of(host, id)?.chains.push(Chain {
        name: name.into(),
        base,
        rules: Vec::new(),
        counters: None,
        handle: None,
        origin: Origin::default(),
    });
    Ok(())
}

pub(super) fn delete_chain(host: &mut Host, id: &TableId, name: &str) -> Result<(), Error> {
    let found = table_of(host, id)?;
    let why = match found.chain(name) {
        None => return Err(missing(host, format_args!("chain {name}"))),
        Some(chain) if id.xtables && chain.base.is_some() => Some(format!("{name} is built in")),
        Some(chain) if !chain.rules.is_empty() => Some(format!("{name} still has rules")),
        Some(_) => {
            let jumps = |c: &&Chain| c.rules.iter().any(|r| jumps(r).any(|to| to == name));
            let mapped = |v: &Verdict| matches!(v, Verdict::Jump(to) | Verdict::Goto(to) if to == name);
            let from = found.chains.iter().find(jumps).map(|c| c.name.to_string());
            let set = found.sets.iter().find(|s| s.verdicts.iter().any(mapped)).map(|s| s.name.clone());
            from.or(set).map(|from| format!("{from} still leads to {name}"))
        }
    };
    if let Some(why) = why {
        return Err(refused(host, why));
    }
    table_of(host, id)?.chains.retain(|c| c.name != *name);
    Ok(())
}

fn chain_of<'h>(host: &'h mut Host, id: &TableId, name: &str) -> Result<&'h mut Chain, Error> {
    let host_name = host.name.clone();
    let found = position(host, id)
        .and_then(|place| host.ruleset.tables.get_mut(place)?.chains.iter_mut().find(|c| c.name == *name));
    found.ok_or_else(|| Error::Unfit(format!("{host_name} has no chain {name}")))
}

pub(super) fn set_policy(host: &mut Host, id: &TableId, name: &str, policy: Policy) -> Result<(), Error> {
    table_for_rule(host, id, name)?;
    if chain_of(host, id, name)?.base.is_none() {
        return Err(refused(host, format_args!("{name} is no base chain: it has no policy")));
    }
    if let Some(base) = &mut chain_of(host, id, name)?.base {
        base.policy = policy;
    }
    Ok(())
}

/// Whether a rule may stand in a chain: what it jumps to is there, and does
/// not lead back.
fn check_jumps(host: &Host, table: &Table, chain: &str, rule: &Rule) -> Result<(), Error> {
    for to in leads(table, rule) {
        if table.chain(to).is_none() {
            return Err(missing(host, format_args!("chain {to}")));
        }
        if reaches(table, to, chain) {
            return Err(refused(host, format_args!("a jump from {chain} to {to} leads back to {chain}")));
        }
    }
    Ok(())
}

/// A rule as a kernel that has just got it knows it.
fn fresh(rule: &Rule) -> Rule {
    Rule { handle: None, ..rule.clone() }
}

pub(super) fn insert(
    host: &mut Host,
    id: &TableId,
    name: &str,
    place: Option<usize>,
    rule: &Rule,
) -> Result<(), Error> {
    table_for_rule(host, id, name)?;
    let length = chain_of(host, id, name)?.rules.len();
    let at = place.map_or(length, |p| p.saturating_sub(1));
    if at > length || place == Some(0) {
        return Err(missing(host, format_args!("place {} in {name}", place.unwrap_or_default())));
    }
    let known = position(host, id).and_then(|place| host.ruleset.tables.get(place));
    if let Some(table) = known {
        check_jumps(host, table, name, rule)?;
    }
    chain_of(host, id, name)?.rules.insert(at, fresh(rule));
    Ok(())
}

/// The index of the rule at a place.
fn at(host: &mut Host, id: &TableId, name: &str, place: usize) -> Result<usize, Error> {
    let length = chain_of(host, id, name)?.rules.len();
    match place.checked_sub(1).filter(|at| *at < length) {
        Some(at) => Ok(at),
        None => Err(missing(host, format_args!("rule {place} in {name}"))),
    }
}

pub(super) fn delete(host: &mut Host, id: &TableId, name: &str, place: usize) -> Result<(), Error> {
    let at = at(host, id, name, place)?;
    chain_of(host, id, name)?.rules.remove(at);
    Ok(())
}

pub(super) fn replace(
    host: &mut Host,
    id: &TableId,
    name: &str,
    place: usize,
    rule: &Rule,
) -> Result<(), Error> {
    let at = at(host, id, name, place)?;
    if let Some(table) = position(host, id).and_then(|place| host.ruleset.tables.get(place)) {
        check_jumps(host, table, name, rule)?;
    }
    if let Some(old) = chain_of(host, id, name)?.rules.get_mut(at) {
        *old = fresh(rule);
    }
    Ok(())
}

/// The change that takes one of a rule or policy back, where that is plain: a
/// chain may hold equal rules, of which not any is the one.
pub(super) fn undo(host: &Host, change: &Change) -> Option<Change> {
    let chain_of = |id: &TableId, name: &str| -> Option<&Chain> {
        host.ruleset.tables.get(position(host, id)?)?.chain(name)
    };
    let rule = |id: &TableId, name: &str, place: usize| {
        let rule = chain_of(id, name)?.rules.get(place.checked_sub(1)?)?;
        Some(Box::new(rule.clone()))
    };
    let (id, name) = (TableId::clone, String::clone);
    Some(match change {
        Change::InsertRule { table, chain, place, .. } => {
            let place = place.unwrap_or(chain_of(table, chain)?.rules.len() + 1);
            Change::DeleteRule { table: id(table), chain: name(chain), place }
        }
        Change::DeleteRule { table, chain, place } => {
            let rule = rule(table, chain, *place)?;
            let last = chain_of(table, chain)?.rules.len() == *place;
            let place = Some(*place).filter(|_| !last);
            Change::InsertRule { table: id(table), chain: name(chain), place, rule }
        }
        Change::ReplaceRule { table, chain, place, .. } => {
            let rule = rule(table, chain, *place)?;
            Change::ReplaceRule { table: id(table), chain: name(chain), place: *place, rule }
        }
        Change::SetPolicy { table, chain, .. } => {
            let policy = chain_of(table, chain)?.base?.policy;
            Change::SetPolicy { table: id(table), chain: name(chain), policy }
        }
        _ => return None,
    })
}
