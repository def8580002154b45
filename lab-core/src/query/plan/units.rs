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
}

/// A rule of a chain before or after, or a place where one becomes another.
#[derive(Clone, Copy, Debug)]
struct Item {
    /// Its number before.
    old: Option<usize>,
    /// Its number after.
    new: Option<usize>,
    /// The unit that changes it; none: it is kept.
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

fn bit(unit: usize) -> Done {
    1_u128.checked_shl(unit as u32).unwrap_or(0)
}

/// The table that a change is of.
fn table_of(change: &Change) -> Option<&TableId> {
    match change {
        Change::AddTable(table) | Change::DeleteTable(table) => Some(table),
        Change::AddChain { table, .. }
        | Change::DeleteChain { table, .. }
        | Change::SetPolicy { table, .. }
        | Change::InsertRule { table, .. }
        | Change::DeleteRule { table, .. }
        | Change::ReplaceRule { table, .. }
        | Change::AddSet { table, .. }
        | Change::DeleteSet { table, .. }
        | Change::AddElements { table, .. }
        | Change::DeleteElements { table, .. } => Some(table),
        _ => None,
    }
}

/// The chain that a change is of.
fn chain_of(change: &Change) -> Option<&str> {
    match change {
        Change::AddChain { chain, .. }
        | Change::DeleteChain { chain, .. }
        | Change::SetPolicy { chain, .. }
        | Change::InsertRule { chain, .. }
        | Change::DeleteRule { chain, .. }
        | Change::ReplaceRule { chain, .. } => Some(chain),
        _ => None,
    }
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

fn of_host(host: &HostEdits, grain: Grain, all: &mut Vec<Unit>) {
    let rules: Vec<&Change> =
        host.changes.iter().filter(|c| table_of(c).is_some() || is_of_ipsets(c)).collect();
    if rules.iter().any(|c| is_of_ipsets(c)) {
        // Rules refer to sets, and sets to rules: in the order given.
        let mut before = 0;
        for change in rules {
            push(all, host, Act::Changes(vec![change.clone()]), before);
            before = bit(all.len() - 1);
        }
    } else {
        let mut tables: Vec<&TableId> = Vec::new();
        for table in rules.iter().filter_map(|c| table_of(c)) {
            if !tables.contains(&table) {
                tables.push(table);
            }
        }
        for table in tables {
            let changes: Vec<&Change> =
                rules.iter().copied().filter(|c| table_of(c) == Some(table)).collect();
            of_table(host, table, &changes, grain, all);
        }
    }
    let (mut barrier, mut since) = (0, 0);
    for change in host.changes.iter().filter(|c| table_of(c).is_none() && !is_of_ipsets(c)) {
        let stops = is_barrier(change);
        push(all, host, Act::Changes(vec![change.clone()]), if stops { barrier | since } else { barrier });
        let own = bit(all.len() - 1);
        if stops {
            (barrier, since) = (own, 0);
        } else {
            since |= own;
        }
    }
}

fn push(all: &mut Vec<Unit>, host: &HostEdits, act: Act, after: Done) {
    all.push(Unit { host: host.host.clone(), act, after });
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
        let name = chain_of(change)?;
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
    let (mut gone, mut come, mut turned) = (vec![false; n + 1], vec![false; m + 1], vec![0; n + 1]);
    for edit in &edits.edits {
        match *edit {
            RuleEdit::Insert { new } => come[new] = true,
            RuleEdit::Delete { old } => gone[old] = true,
            RuleEdit::Replace { old, new } => turned[old] = new,
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
            i += 1;
        } else if j <= m && come[j] {
            items.push(Item { old: None, new: Some(j), unit: next() });
            j += 1;
        } else {
            let unit = if i <= n && turned[i] != 0 { next() } else { None };
            items.push(Item { old: Some(i), new: Some(j), unit });
            i += 1;
            j += 1;
        }
    }
    Merged { edits: edits.clone(), items }
}

impl Merged {
    /// The change that a unit makes, where some others are done.
    fn change(&self, unit: usize, done: Done) -> Option<Change> {
        let there = |item: &&Item| match (item.old, item.new, item.unit) {
            (Some(_), None, Some(unit)) => done & bit(unit) == 0,
            (None, Some(_), Some(unit)) => done & bit(unit) != 0,
            _ => true,
        };
        let at = self.items.iter().position(|item| item.unit == Some(unit))?;
        let place = 1 + self.items[..at].iter().filter(there).count();
        let (table, chain) = (self.edits.table.clone(), self.edits.chain.clone());
        let rule = |number: usize| self.edits.new.get(number - 1).cloned().map(Box::new);
        Some(match (self.items[at].old, self.items[at].new) {
            (Some(_), None) => Change::DeleteRule { table, chain, place },
            (None, Some(new)) => {
                let length = self.items.iter().filter(there).count();
                let place = (place <= length).then_some(place);
                Change::InsertRule { table, chain, place, rule: rule(new)? }
            }
            (_, new) => Change::ReplaceRule { table, chain, place, rule: rule(new?)? },
        })
    }
}

impl Unit {
    /// What it does as commands, where some others are done.
    pub fn changes(&self, done: Done) -> Vec<HostChange> {
        let changes = match &self.act {
            Act::Changes(list) => list.clone(),
            Act::Edit(merged, unit) => merged.change(*unit, done).into_iter().collect(),
        };
        changes.into_iter().map(|change| HostChange { host: self.host.clone(), change }).collect()
    }

    /// The lab after it, what was done, and what takes that back.
    ///
    /// # Errors
    /// If the kernel would refuse it there.
    pub fn apply(&self, lab: &Lab, done: Done) -> Result<(Lab, Vec<HostChange>), Error> {
        let changes = self.changes(done);
        Ok((what_if(lab, &changes)?, changes))
    }
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
