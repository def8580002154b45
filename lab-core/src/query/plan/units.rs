//! What a plan may do one by one: whole tables at once, or single edits.

use std::sync::Arc;

use crate::model::{Change, HostChange, Lab, TableId};
use crate::query::diff::edits::{ChainEdits, Edits, HostEdits, RuleEdit};
use crate::query::what_if::{self, what_if};
use crate::query::Error;

/// The most units of a plan: states are told by their bits.
pub(super) const UNITS: usize = 128;

/// Which units are done.
pub(super) type Done = u128;

/// Something that is done at once, or not at all.
#[derive(Clone, Debug)]
pub(super) struct Unit {
    /// The host, by name.
    pub host: String,
    /// What is done.
    pub act: Act,
    /// Units that must be done before.
    pub after: Done,
    /// The table that it is of, by its number among all.
    pub table: Option<usize>,
    /// The unit that takes out the rule or route in whose place this one puts
    /// another: one command does both.
    pub replaces: Option<usize>,
}

#[derive(Clone, Debug)]
pub(super) enum Act {
    /// Changes as they are. More than one: of one table, in one transaction.
    Changes(Vec<Change>),
    /// An edit of a chain whose place hangs on which others are done.
    Edit(Arc<Merged>, usize),
}

/// A chain that is being changed: its rules before and after, in one order.
#[derive(Debug)]
pub(super) struct Merged {
    edits: ChainEdits,
    items: Vec<Item>,
    /// Units that put a rule in where another unit takes one out.
    replaced: Vec<(usize, usize)>,
}

/// A rule of a chain, before or after.
#[derive(Clone, Copy, Debug)]
struct Item {
    /// Its number before; none: it is put in.
    old: Option<usize>,
    /// Its number after; none: it is taken out.
    new: Option<usize>,
    /// The unit that puts it in or takes it out; none: it is kept.
    unit: Option<usize>,
}

/// How finely changes are taken apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Grain {
    /// Each table of a host at once.
    Tables,
    /// Each rule by itself.
    Rules,
}

/// The units of what turns one lab into another.
///
/// # Errors
/// [`Error::Unfit`] if there are more than [`UNITS`].
pub(super) fn units(edits: &Edits, grain: Grain) -> Result<Vec<Unit>, Error> {
    let mut all = Vec::new();
    for host in &edits.hosts {
        of_host(host, grain, &mut all);
    }
    if all.len() > UNITS {
        let what = format!("a plan of {} steps: at most {UNITS} are put in order", all.len());
        return Err(Error::Unfit(what));
    }
    Ok(all)
}

pub(super) fn bit(unit: usize) -> Done {
    1_u128.checked_shl(unit as u32).unwrap_or(0)
}

fn is_of_ipsets(change: &Change) -> bool {
    matches!(
        change,
        Change::CreateIpset(_)
            | Change::DestroyIpset(_)
            | Change::AddIpsetElements(_)
            | Change::DeleteIpsetElements(_)
    )
}

/// Addresses and links bring and take routes: what stands before them in a
/// list is done before them, and what stands behind is done after.
fn is_barrier(change: &Change) -> bool {
    matches!(change, Change::AddAddress { .. } | Change::DeleteAddress { .. } | Change::Link(..))
}

/// Whether a route comes in the place of one that goes: the kernel takes one
/// IPv4 route of a prefix, table, metric and type of service, and `ip route
/// replace` puts another there at once (`fib_table_insert`).
pub(super) fn takes_the_place(comes: &Change, goes: &Change) -> bool {
    let (Change::AddRoute(route), Change::DeleteRoute(key)) = (comes, goes) else { return false };
    route.family == crate::addr::Family::Ipv4
        && (route.destination, route.table, route.tos) == (key.destination, key.table, key.tos)
        && key.metric.unwrap_or(0) == route.metric
}

fn of_host(host: &HostEdits, grain: Grain, all: &mut Vec<Unit>) {
    let rules: Vec<&Change> =
        host.changes.iter().filter(|c| c.table().is_some() || is_of_ipsets(c)).collect();
    if rules.iter().any(|c| is_of_ipsets(c)) {
        // Rules refer to sets, and sets to rules: in the order given.
        let mut before = 0;
        for change in rules {
            push(all, host, Act::Changes(vec![change.clone()]), before);
            before = bit(all.len() - 1);
        }
    } else {
        let mut tables: Vec<&TableId> = Vec::new();
        for table in rules.iter().filter_map(|c| c.table()) {
            if !tables.contains(&table) {
                tables.push(table);
            }
        }
        for table in tables {
            let changes: Vec<&Change> = rules.iter().copied().filter(|c| c.table() == Some(table)).collect();
            let (start, number) = (all.len(), all.iter().filter_map(|u| u.table).max().map_or(0, |n| n + 1));
            of_table(host, table, &changes, grain, all);
            all[start..].iter_mut().for_each(|unit| unit.table = Some(number));
        }
    }
    let (mut barrier, mut since) = (0, 0);
    let network = all.len();
    for change in host.changes.iter().filter(|c| c.table().is_none() && !is_of_ipsets(c)) {
        let stops = is_barrier(change);
        push(all, host, Act::Changes(vec![change.clone()]), if stops { barrier | since } else { barrier });
        let replaced = all[network..].iter().position(|one| match &one.act {
            Act::Changes(list) => list.iter().any(|other| takes_the_place(change, other)),
            Act::Edit(..) => false,
        });
        if let Some(last) = all.last_mut() {
            last.replaces = replaced.map(|at| network + at);
        }
        let own = bit(all.len() - 1);
        if stops {
            (barrier, since) = (own, 0);
        } else {
            since |= own;
        }
    }
}

fn push(all: &mut Vec<Unit>, host: &HostEdits, act: Act, after: Done) {
    all.push(Unit { host: host.host.clone(), act, after, table: None, replaces: None });
}

fn of_table(host: &HostEdits, table: &TableId, changes: &[&Change], grain: Grain, all: &mut Vec<Unit>) {
    use crate::query::diff::edits::Fate;
    let chains: Vec<&ChainEdits> = host.chains.iter().filter(|c| c.table == *table).collect();
    let moved = |c: &&ChainEdits| {
        let place = |base: Option<crate::model::BaseChain>| base.map(|b| (b.kind, b.hook, b.priority));
        c.fate == Fate::Changed && place(c.old_base) != place(c.new_base)
    };
    let whole = changes.iter().any(|c| matches!(c, Change::AddTable(_) | Change::DeleteTable(_)));
    if grain == Grain::Tables || whole || chains.iter().any(moved) {
        push(all, host, Act::Changes(changes.iter().map(|c| (*c).clone()).collect()), 0);
        return;
    }
    let fate = |change: &Change| {
        let name = change.chain()?;
        chains.iter().find(|c| c.chain == name).map(|c| c.fate)
    };
    // New chains and sets come before everything; nothing leads there yet.
    let early = |c: &Change| match c {
        Change::AddSet { .. } => true,
        _ => fate(c) == Some(Fate::Added),
    };
    let late = |c: &Change| match c {
        Change::DeleteSet { .. } => true,
        _ => fate(c) == Some(Fate::Deleted),
    };
    let of = |which: &dyn Fn(&Change) -> bool| -> Vec<Change> {
        changes.iter().filter(|c| which(c)).map(|c| (*c).clone()).collect()
    };
    let mut before = 0;
    let first = of(&early);
    if !first.is_empty() {
        push(all, host, Act::Changes(first), 0);
        before = bit(all.len() - 1);
    }
    let start = all.len();
    for change in changes.iter().copied() {
        let alone = matches!(
            change,
            Change::SetPolicy { .. } | Change::AddElements { .. } | Change::DeleteElements { .. }
        );
        if alone && !early(change) && !late(change) {
            push(all, host, Act::Changes(vec![change.clone()]), before);
        }
    }
    for chain in chains.iter().filter(|c| c.fate == Fate::Changed) {
        let merged = Arc::new(merged(chain, all.len()));
        let count = merged.items.iter().filter_map(|i| i.unit).max().map_or(all.len(), |last| last + 1);
        for unit in all.len()..count {
            push(all, host, Act::Edit(Arc::clone(&merged), unit), before);
            let replaces = merged.replaced.iter().find(|(new, _)| *new == unit).map(|(_, old)| *old);
            if let Some(last) = all.last_mut() {
                last.replaces = replaces;
            }
        }
    }
    let last = of(&late);
    if !last.is_empty() {
        let after = (start..all.len()).fold(before, |set, unit| set | bit(unit));
        push(all, host, Act::Changes(last), after);
    }
}

/// Puts the rules of a chain before and after into one order; units are
/// numbered from `first`.
fn merged(edits: &ChainEdits, first: usize) -> Merged {
    let (n, m) = (edits.old.len(), edits.new.len());
    let (mut gone, mut come) = (vec![false; n + 1], vec![false; m + 1]);
    // Rules in whose place another comes, just behind.
    let mut turned = vec![false; n + 1];
    let mut replaced = Vec::new();
    for edit in &edits.edits {
        match *edit {
            RuleEdit::Insert { new } => come[new] = true,
            RuleEdit::Delete { old } => gone[old] = true,
            RuleEdit::Replace { old, new } => (turned[old], gone[old], come[new]) = (true, true, true),
            RuleEdit::Move { old, new } => (gone[old], come[new]) = (true, true),
        }
    }
    let mut items = Vec::new();
    let mut unit = first;
    let mut next = || {
        unit += 1;
        Some(unit - 1)
    };
    let (mut i, mut j) = (1, 1);
    while i <= n || j <= m {
        if i <= n && gone[i] {
            items.push(Item { old: Some(i), new: None, unit: next() });
            if turned[i] && j <= m && come[j] {
                let pair = (next(), items.last().and_then(|item: &Item| item.unit));
                items.push(Item { old: None, new: Some(j), unit: pair.0 });
                replaced.extend(pair.0.zip(pair.1));
                j += 1;
            }
            i += 1;
        } else if j <= m && come[j] {
            items.push(Item { old: None, new: Some(j), unit: next() });
            j += 1;
        } else {
            items.push(Item { old: Some(i), new: Some(j), unit: None });
            i += 1;
            j += 1;
        }
    }
    Merged { edits: edits.clone(), items, replaced }
}

impl Merged {
    /// The change that a unit makes, where some others are done.
    fn change(&self, unit: usize, done: Done) -> Option<Change> {
        let at = self.items.iter().position(|item| item.unit == Some(unit))?;
        let there = |item: &&Item| self.is_there(item, done);
        let place = 1 + self.items[..at].iter().filter(there).count();
        let (table, chain) = (self.edits.table.clone(), self.edits.chain.clone());
        match self.items[at].new {
            None => Some(Change::DeleteRule { table, chain, place }),
            Some(new) => {
                let length = self.items.iter().filter(there).count();
                let place = (place <= length).then_some(place);
                Some(Change::InsertRule { table, chain, place, rule: self.rule(new)? })
            }
        }
    }

    /// The change that puts a rule in for one that is taken out.
    fn replacement(&self, unit: usize, done: Done) -> Option<Change> {
        let at = self.items.iter().position(|item| item.unit == Some(unit))?;
        let place = self.items[..at].iter().filter(|item| self.is_there(item, done)).count();
        let (table, chain) = (self.edits.table.clone(), self.edits.chain.clone());
        Some(Change::ReplaceRule { table, chain, place, rule: self.rule(self.items[at].new?)? })
    }

    fn is_there(&self, item: &Item, done: Done) -> bool {
        let is_done = item.unit.is_some_and(|unit| done & bit(unit) != 0);
        match (item.old, item.new) {
            (Some(_), None) => !is_done,
            (None, Some(_)) => is_done,
            _ => true,
        }
    }

    fn rule(&self, number: usize) -> Option<Box<crate::model::Rule>> {
        self.edits.new.get(number - 1).cloned().map(Box::new)
    }
}

/// What some units do at once, as commands, where others are done.
fn changes(units: &[Unit], which: &[usize], done: Done) -> Vec<HostChange> {
    let mut done = done;
    let mut all = Vec::new();
    let mut left = which.to_vec();
    while let Some(unit) = left.first().copied() {
        left.remove(0);
        let one = &units[unit];
        // A rule that goes, and one that comes in its place.
        let follower = left.iter().position(|other| units[*other].replaces == Some(unit));
        let made = match (&one.act, follower) {
            (Act::Edit(merged, _), Some(at)) => {
                let other = left.remove(at);
                let change = merged.replacement(other, done);
                done |= bit(other);
                change.into_iter().collect()
            }
            (Act::Edit(merged, unit), None) => merged.change(*unit, done).into_iter().collect(),
            (Act::Changes(list), _) => list.clone(),
        };
        done |= bit(unit);
        all.extend(made.into_iter().map(|change| HostChange { host: one.host.clone(), change }));
    }
    all
}

/// What may be done next: units one by one, a rule put in another's place,
/// and all that is left of a table at once.
pub(super) fn moves(units: &[Unit], done: Done) -> Vec<Vec<usize>> {
    let open = |unit: &usize| done & bit(*unit) == 0;
    let ready = |unit: &usize| open(unit) && units[*unit].after & !done == 0;
    let mut all: Vec<Vec<usize>> = (0..units.len()).filter(ready).map(|unit| vec![unit]).collect();
    all.extend((0..units.len()).filter(ready).filter_map(|unit| {
        let other = units[unit].replaces.filter(ready)?;
        Some(vec![other, unit])
    }));
    let tables = units.iter().filter_map(|unit| unit.table).max().map_or(0, |last| last + 1);
    for table in 0..tables {
        let rest: Vec<usize> =
            (0..units.len()).filter(|unit| units[*unit].table == Some(table)).filter(open).collect();
        if rest.len() > 1 {
            all.push(rest);
        }
    }
    all
}

/// The lab after some units are done at once, and what was done.
///
/// # Errors
/// If the kernel would refuse it there.
pub(super) fn apply(
    units: &[Unit],
    which: &[usize],
    lab: &Lab,
    done: Done,
) -> Result<(Lab, Vec<HostChange>), Error> {
    let changes = changes(units, which, done);
    Ok((what_if(lab, &changes)?, changes))
}

/// What takes changes back, the last first.
///
/// # Errors
/// If that cannot be told.
pub(super) fn undo(lab: &Lab, changes: &[HostChange]) -> Result<Vec<HostChange>, Error> {
    let mut before = lab.clone();
    let mut parts = Vec::new();
    for change in changes {
        parts.push(what_if::undo(&before, change)?);
        before = what_if(&before, std::slice::from_ref(change))?;
    }
    parts.reverse();
    Ok(parts.into_iter().flatten().collect())
}
