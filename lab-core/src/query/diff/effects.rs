//! What each edited rule does by itself, and if it does nothing, why.

use std::sync::Arc;

use serde::Serialize;

use super::edits::{ChainEdits, Edits, Fate, HostEdits, RuleEdit};
use super::flows::{flows, FlowChange};
use super::packets::{deed, packets, ChainPackets, Deed, Rules};
use crate::engine::symbolic::decides;
use crate::engine::symbolic::{Comparison, Version};
use crate::model::{Host, Lab, RuleRef, Table, TableId};
use crate::query::flows::Headers;
use crate::query::Error;

/// What a rule that comes or goes changes by itself: the lab it is in against
/// the same without it.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Effect {
    /// Nothing: no packet comes to it, as these decide first.
    Shadowed(Vec<Deed>),
    /// Nothing: without it these do the same to the same packets; none: it
    /// decides nothing itself, and every packet fares alike without it.
    Redundant(Vec<Deed>),
    /// It treats packets otherwise, but none that open a connection between
    /// hosts or from outside, and no first answer to one: about those these
    /// decide alike without it.
    Unsent {
        /// Who decides without it.
        instead: Vec<Deed>,
        /// What it does to other packets.
        packets: Vec<ChainPackets>,
    },
    /// It opens, cuts or changes flows between hosts.
    Flows(Vec<FlowChange>),
    /// It treats packets otherwise; whether any host sends such was not asked.
    Packets(Vec<ChainPackets>),
}

/// What a rule does by itself.
#[derive(Clone, Debug, Serialize)]
pub struct RuleEffect {
    /// The host.
    pub host: String,
    /// The table.
    pub table: TableId,
    /// The chain.
    pub chain: String,
    /// Its number from 1: in the new chain, or in the old one if it goes.
    pub rule: usize,
    /// Whether it goes.
    pub gone: bool,
    /// Its text.
    pub text: String,
    /// What it does.
    pub effect: Effect,
}

/// A rule that is kept, but whose turn comes for packets about which others
/// decided, or no longer comes: its place among them is another.
#[derive(Clone, Debug, Serialize)]
pub struct Turn {
    /// The host.
    pub host: String,
    /// The table.
    pub table: TableId,
    /// The chain.
    pub chain: String,
    /// Its text.
    pub text: String,
    /// Its number before.
    pub old: usize,
    /// Its number now.
    pub new: usize,
    /// Who decides instead, and otherwise, in the lab where its turn does not
    /// come.
    pub by: Vec<Deed>,
    /// Whether its turn comes now; else it came before.
    pub comes: bool,
}

/// What the edits of rules do, one by one.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Effects {
    /// Rules that come and go.
    pub rules: Vec<RuleEffect>,
    /// Rules that are kept and whose turn comes, or comes no longer.
    pub turns: Vec<Turn>,
    /// How many rules were passed over, as there are too many.
    pub more: usize,
}

/// So many rules are looked at one by one.
pub const RULES: usize = 200;

/// Of so many it is asked which flows each opens and cuts.
pub const FLOWS: usize = 12;

/// What each rule does that comes or goes with a change of a lab, and for which
/// kept rules the turn comes, or comes no longer.
///
/// Cost: for each rule a comparison of its chain with the same without it; for
/// each of at most [`FLOWS`] rules that matters there, a comparison of flows.
///
/// # Errors
/// Packet sets that outgrow their budget.
pub fn effects(old: &Lab, new: &Lab, edits: &Edits) -> Result<Effects, Error> {
    let mut found = Effects::default();
    let count: usize = edits.hosts.iter().flat_map(|h| &h.chains).map(|c| c.edits.len()).sum();
    for host in &edits.hosts {
        let sides = (old.hosts.get(&host.host), new.hosts.get(&host.host));
        let (Some(before), Some(after)) = sides else { continue };
        for chain in host.chains.iter().filter(|c| c.fate == Fate::Changed) {
            let mut turns = turns(before, after, chain)?;
            // What new rules take is told of them.
            for turn in turns.iter_mut().filter(|turn| !turn.comes) {
                turn.by.retain(|deed| !is_new(host, deed));
            }
            turns.retain(|turn| !turn.by.is_empty());
            found.turns.append(&mut turns);
        }
        for chain in &host.chains {
            for edit in &chain.edits {
                if found.rules.len() >= RULES {
                    found.more += 1;
                    continue;
                }
                let (lab, number, gone) = match *edit {
                    RuleEdit::Insert { new: number }
                    | RuleEdit::Replace { new: number, .. }
                    | RuleEdit::Move { new: number, .. } => (new, number, false),
                    RuleEdit::Delete { old: number } => (old, number, true),
                };
                let side = if gone { before } else { after };
                let (Some(effect), Some(rule)) = (
                    effect(lab, side, chain, number, count <= FLOWS)?,
                    if gone { &chain.old } else { &chain.new }.get(number - 1),
                ) else {
                    continue;
                };
                found.rules.push(RuleEffect {
                    host: host.host.clone(),
                    table: chain.table.clone(),
                    chain: chain.chain.clone(),
                    rule: number,
                    gone,
                    text: rule.text.to_string(),
                    effect,
                });
            }
        }
    }
    Ok(found)
}

/// Whether a rule that decides is one that edits put in.
fn is_new(host: &HostEdits, deed: &Deed) -> bool {
    let Some(by) = &deed.by else { return false };
    let chain = host.chains.iter().find(|c| c.chain == *by.chain && c.table.name == by.table);
    chain.into_iter().flat_map(|c| &c.edits).any(|edit| match *edit {
        RuleEdit::Insert { new } | RuleEdit::Replace { new, .. } => by.rule == Some(new),
        RuleEdit::Delete { .. } | RuleEdit::Move { .. } => false,
    })
}

/// What a rule of a host of a lab does: against the same lab without it.
fn effect(
    lab: &Lab,
    host: &Arc<Host>,
    edits: &ChainEdits,
    number: usize,
    ask_flows: bool,
) -> Result<Option<Effect>, Error> {
    let at = |h: &Host| h.ruleset.tables.iter().position(|t| edits.table.means(t));
    let Some(table) = at(host) else { return Ok(None) };
    let mut without = Host::clone(host);
    let Some(chain) = without.ruleset.tables[table].chains.iter().position(|c| c.name == *edits.chain) else {
        return Ok(None);
    };
    let rule = without.ruleset.tables[table].chains[chain].rules.remove(number - 1);
    let here = without.ruleset.tables.get(table).zip(host.ruleset.tables.get(table));
    let Some((less, whole)) = here else { return Ok(None) };
    let found =
        packets(Rules { host: &without, ruleset: &without.ruleset }, Rules { host, ruleset: &host.ruleset })?;
    // Of a rule that only jumps or marks, others decide about its packets.
    let (instead, shadowed) = match decides(&rule) {
        true => instead(&without, less, host, whole, (chain, number - 1))?,
        false => (Vec::new(), false),
    };
    if found.is_empty() {
        return Ok(Some(if shadowed { Effect::Shadowed(instead) } else { Effect::Redundant(instead) }));
    }
    if !ask_flows {
        return Ok(Some(Effect::Packets(found)));
    }
    let mut other = lab.clone();
    other.hosts.insert(host.name.clone(), without.into());
    let changes = flows(&other, lab, &Headers::default())?.changes;
    Ok(Some(match changes.is_empty() {
        true => Effect::Unsent { instead, packets: found },
        false => Effect::Flows(changes),
    }))
}

/// Who decides without a rule about the packets that it decides about, over
/// all base chains that lead to it; or who decides before it.
fn instead(
    without: &Host,
    less: &Table,
    host: &Host,
    whole: &Table,
    rule: (usize, usize),
) -> Result<(Vec<Deed>, bool), Error> {
    let version = |host, table| Some(Version { host, table });
    let mut comparison = Comparison::new(version(without, less), version(host, whole));
    let (mut deciding, mut shadowing) = (Vec::new(), Vec::new());
    let bases = whole.chains.iter().enumerate().filter(|(_, c)| c.base.is_some());
    for (base, chain) in bases {
        let (leaves, shadowed) = comparison.instead_of((Some(base), base), rule)?;
        for leaf in leaves {
            // The rule that shadows is told as it stands beside it.
            let (side, table, place) = match shadowed {
                true => (host, whole, leaf.rule.and_then(|id| comparison.new_place(id))),
                false => (without, less, leaf.rule.and_then(|id| comparison.old_place(id))),
            };
            let by = place.and_then(|(at, number)| {
                let mut by = RuleRef::of(side, table, chain, table.chains.get(at)?, number);
                // As it is numbered where the rule stands.
                if !shadowed && at == rule.0 {
                    by.rule = by.rule.map(|n| if n > rule.1 { n + 1 } else { n });
                }
                Some(by)
            });
            let told = deed(&leaf, by);
            let into = if shadowed { &mut shadowing } else { &mut deciding };
            if !into.contains(&told) {
                into.push(told);
            }
        }
    }
    Ok(if deciding.is_empty() { (shadowing, true) } else { (deciding, false) })
}

/// Rules of a chain that are kept, and whose turn comes now or no longer.
fn turns(old: &Host, new: &Host, edits: &ChainEdits) -> Result<Vec<Turn>, Error> {
    let mut into = Vec::new();
    let (mut gone, mut come, mut kept) = (Vec::new(), Vec::new(), Vec::new());
    for edit in &edits.edits {
        match *edit {
            RuleEdit::Insert { new } => come.push(new),
            RuleEdit::Delete { old } => gone.push(old),
            RuleEdit::Replace { old, new } | RuleEdit::Move { old, new } => {
                gone.push(old);
                come.push(new);
                if matches!(edit, RuleEdit::Move { .. }) {
                    kept.push((old, new));
                }
            }
        }
    }
    let old_host = old.name.as_str();
    let (n, m) = (edits.old.len(), edits.new.len());
    let in_both = (1..=n).filter(|i| !gone.contains(i)).zip((1..=m).filter(|j| !come.contains(j)));
    kept.extend(in_both);
    if kept.len() > RULES {
        return Ok(into);
    }
    kept.sort_unstable();
    for (from, to) in kept {
        for (comes, (old, from), (new, to)) in
            [(true, (old, from), (new, to)), (false, (new, to), (old, from))]
        {
            let by = decided_otherwise(old, (new, to), from, edits)?;
            if !by.is_empty() {
                let (old, new) = if comes { (from, to) } else { (to, from) };
                into.push(Turn {
                    host: old_host.to_owned(),
                    table: edits.table.clone(),
                    chain: edits.chain.clone(),
                    text: edits.new.get(new - 1).map(|r| r.text.to_string()).unwrap_or_default(),
                    old,
                    new,
                    by,
                    comes,
                });
            }
        }
    }
    Ok(into)
}

/// Who decides on one host, and otherwise, about packets that a rule of the
/// same chain on another decides about; both by their numbers.
fn decided_otherwise(
    old: &Host,
    (new, to): (&Host, usize),
    from: usize,
    edits: &ChainEdits,
) -> Result<Vec<Deed>, Error> {
    let table = |host: &'_ Host| host.ruleset.tables.iter().position(|t| edits.table.means(t));
    let (Some(a), Some(b)) = (table(old), table(new)) else { return Ok(Vec::new()) };
    let (before, after) = (&old.ruleset.tables[a], &new.ruleset.tables[b]);
    let chain = |table: &Table| table.chains.iter().position(|c| c.name == *edits.chain);
    let (Some(here), Some(there)) = (chain(after), chain(before)) else { return Ok(Vec::new()) };
    let mut comparison = Comparison::new(
        Some(Version { host: old, table: before }),
        Some(Version { host: new, table: after }),
    );
    let mut found = Vec::new();
    for (base, model) in after.chains.iter().enumerate().filter(|(_, c)| c.base.is_some()) {
        let other = before.chains.iter().position(|c| c.name == model.name && c.base.is_some());
        let (leaves, shadowed) = comparison.instead_of((other, base), (here, to - 1))?;
        if shadowed {
            continue;
        }
        let own = comparison.own().to_vec();
        for leaf in leaves {
            let place = leaf.rule.and_then(|id| comparison.old_place(id));
            let same_rule = place == Some((there, Some(from)));
            let alike = own.iter().any(|mine| (&mine.end, &mine.effects) == (&leaf.end, &leaf.effects));
            if same_rule || alike {
                continue;
            }
            let by = place.and_then(|(at, number)| {
                let base = before.chains.get(other?)?;
                Some(RuleRef::of(old, before, base, before.chains.get(at)?, number))
            });
            let told = deed(&leaf, by);
            if !found.contains(&told) {
                found.push(told);
            }
        }
    }
    Ok(found)
}
