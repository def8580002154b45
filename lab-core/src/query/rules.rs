//! Rules that do nothing: no packet comes to them, or they change nothing.

use serde::Serialize;

use super::Error;
use crate::engine::symbolic::{End, Leaf, Symbolic};
use crate::model::{Host, Lab, Origin, Statement, Target};
use crate::space::{is_oracle, Field, Ref};

/// Why a rule does nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Idle {
    /// Its conditions contradict each other, or can never hold.
    Impossible,
    /// Rules before it in its chain decide about every packet that meets it.
    Shadowed,
    /// Without it the same would happen to every packet.
    Redundant,
}

/// A rule that does nothing.
#[derive(Clone, Debug, Serialize)]
pub struct IdleRule {
    /// The host.
    pub host: String,
    /// The table.
    pub table: String,
    /// The chain.
    pub chain: String,
    /// The rule's number from 1.
    pub rule: usize,
    /// Its text.
    pub text: String,
    /// Where it was read.
    pub origin: Origin,
    /// Why it does nothing.
    pub why: Idle,
    /// The rules that stand before it and meet its packets, by number.
    pub shadowed_by: Vec<usize>,
}

/// Finds the rules of a lab that do nothing, chain by chain: told by what the
/// chain does with every packet, whoever calls it. Rules that only count or
/// log, and chains of which something is not modelled as far as it matters,
/// are passed over.
///
/// Cost: for each chain of n rules n merges from either end.
///
/// # Errors
/// Packet sets that outgrow their budget.
pub fn idle(lab: &Lab) -> Result<Vec<IdleRule>, Error> {
    let mut engine = Symbolic::new(lab);
    let mut found = Vec::new();
    for host in lab.all_hosts() {
        for (table, model) in host.ruleset.tables.iter().enumerate() {
            for chain in 0..model.chains.len() {
                chain_idle(&mut engine, host, table, chain, &mut found)?;
            }
        }
    }
    Ok(found)
}

/// Whether a rule changes something that other rules look at, so that what
/// comes after it cannot be told by the packet before it alone.
fn mangles(engine: &Symbolic, leaves: &[u32]) -> bool {
    leaves.iter().filter_map(|l| engine.leaf(*l)).any(|l| !l.effects.is_none())
}

fn chain_idle<'a>(
    engine: &mut Symbolic<'a>,
    host: &'a Host,
    table: usize,
    chain: usize,
    found: &mut Vec<IdleRule>,
) -> Result<(), Error> {
    let Some(model) = host.ruleset.tables.get(table) else { return Ok(()) };
    let Some(read) = model.chains.get(chain) else { return Ok(()) };
    if read.rules.is_empty() {
        return Ok(());
    }
    let parts = engine.rule_diagrams(host, table, chain)?;
    // What each rule settles by itself, whatever cannot be known, as verdicts.
    let policy = read.base.map(|b| b.policy);
    let mut known = Verdicts::default();
    let end = if policy == Some(crate::model::Policy::Drop) { End::Drop } else { End::Accept };
    let fall = known.number(&end);
    let mut settled = Vec::with_capacity(parts.len());
    let mut clear = Vec::with_capacity(parts.len());
    for part in &parts {
        let leaves = engine.store().leaves(*part);
        let mangled = mangles(engine, &leaves);
        let verdicts: Vec<(u32, u32)> =
            leaves.iter().map(|l| (*l, engine.leaf(*l).map_or(0, |leaf| known.of_leaf(leaf)))).collect();
        let store = engine.store();
        let told = store.map_leaves(*part, &mut |leaf| {
            let verdict = verdicts.iter().find(|(l, _)| *l == leaf).map_or(0, |(_, v)| *v);
            Ref::leaf(verdict)
        })?;
        let unknown = !store.oracles(*part).is_empty();
        clear.push(!mangled && !unknown);
        settled.push(told);
    }
    // After each rule, what the rest of the chain would do.
    let base_end = if read.base.is_some() { Ref::leaf(fall) } else { Ref::leaf(FALLS) };
    let mut after = vec![base_end; parts.len() + 1];
    let mut after_clear = vec![true; parts.len() + 1];
    for index in (0..parts.len()).rev() {
        after[index] = engine.store().or_else(settled[index], after[index + 1])?;
        after_clear[index] = after_clear[index + 1] && clear[index];
    }
    let mut before = Ref::NONE;
    for (index, rule) in read.rules.iter().enumerate() {
        let decides = rule.statements.iter().any(|s| {
            matches!(s, Statement::Target(t) if !matches!(t, Target::NoEffect { .. } | Target::Limit { .. }))
        });
        let store = engine.store();
        let may = store.where_leaf(parts[index], &|leaf| leaf != 0)?;
        let may = store.forget(may, &is_oracle, true)?;
        let why = if !decides {
            None
        } else if settled[index].is_none() && parts[index].is_none() {
            // A jump to a chain without effect is not the rule's fault.
            (!jumps(rule)).then_some(Idle::Impossible)
        } else if store.without(may, before)?.is_none() {
            Some(Idle::Shadowed)
        } else if clear[index] && after_clear[index + 1] {
            let left = store.without(settled[index], before)?;
            let reached = store.where_leaf(left, &|leaf| leaf != 0)?;
            let instead = store.guard(reached, after[index + 1])?;
            (left == instead).then_some(Idle::Redundant)
        } else {
            None
        };
        if let Some(why) = why {
            let mut shadowed_by = Vec::new();
            if why == Idle::Shadowed {
                for (other, part) in settled[..index].iter().enumerate() {
                    if !engine.store().guard(may, *part)?.is_none() {
                        shadowed_by.push(other + 1);
                    }
                }
            }
            found.push(IdleRule {
                host: host.name.clone(),
                table: model.name.clone(),
                chain: read.name.to_string(),
                rule: index + 1,
                text: rule.text.to_string(),
                origin: rule.origin.clone(),
                why,
                shadowed_by,
            });
        }
        // Only what certainly ends here, whatever is not known, is taken from
        // the rules that follow.
        let store = engine.store();
        let ends = store.where_leaf(settled[index], &|leaf| leaf != 0)?;
        let ends = store.forget(ends, &|p| is_oracle(p) || mutable(p), false)?;
        before = store.or_else(before, ends)?;
    }
    Ok(())
}

/// Whether a bit is of a field that rules may change: what an earlier rule
/// made of it is not told by the packet.
fn mutable(position: u32) -> bool {
    Field::of_word((position >> 5) as usize).is_some_and(Field::is_mutable)
}

fn jumps(rule: &crate::model::Rule) -> bool {
    use crate::model::Verdict;
    rule.statements.iter().any(|s| {
        matches!(
            s,
            Statement::Target(
                Target::Verdict(Verdict::Jump(_) | Verdict::Goto(_) | Verdict::Continue)
                    | Target::VerdictMap { .. }
            )
        )
    })
}

/// The end of a chain, undecided.
const FALLS: u32 = 1;

/// Numbers for what leaves do, whoever says so: from 2.
#[derive(Default)]
struct Verdicts(Vec<End>);

impl Verdicts {
    /// The number of what a leaf does; 0 where it goes on.
    fn of_leaf(&mut self, leaf: &Leaf) -> u32 {
        match &leaf.end {
            End::Fall => 0,
            // In the chain itself a return is as good as its end.
            End::Return => FALLS,
            other => self.number(other),
        }
    }

    fn number(&mut self, end: &End) -> u32 {
        let place = self.0.iter().position(|known| known == end).unwrap_or_else(|| {
            self.0.push(end.clone());
            self.0.len() - 1
        });
        place as u32 + 2
    }
}
