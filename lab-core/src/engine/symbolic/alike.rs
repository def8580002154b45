//! What two versions of a chain can treat otherwise, told by their rules alone.
//!
//! Rules of one chain may change places if no packet meets both, or if both
//! decide alike; if a chain's rules come to another's by such steps, the two
//! do the same to every packet. What is left is a few cubes of packets: those
//! that meet a rule of one version alone, and those that meet two rules which
//! have changed places and do not do the same.

use std::borrow::Cow;
use std::collections::HashMap;

use super::chain::{ChainLeaves, RuleId, TableChains};
use super::compile::{targets, Compiler, ANYWHERE};
use crate::model::{Chain, Host, Match, Rule, Statement, Table, Target, Verdict};
use crate::semantics::sets::{Plain, Sets};
use crate::space::{is_oracle, Cube, Field, NotAdded, Ref};

/// So many pairs of rules are looked at, before everything is compared.
const PAIRS: usize = 400_000_000;

/// How many cubes are told at most.
pub(super) const REGIONS: usize = 48;

/// A rule on its own: which packets it may meet, at most.
#[derive(Clone, Debug)]
pub(super) struct Alone<'a> {
    pub rule: &'a Rule,
    /// Around the packets that meet it; none: no packet does.
    pub cube: Option<Cube>,
}

/// The rules of a version of a chain.
pub(super) fn alone<'a>(sets: &mut Sets, chain: &'a Chain) -> Vec<Alone<'a>> {
    chain.rules.iter().map(|rule| Alone { rule, cube: cube_of(sets, &rule.statements) }).collect()
}

/// A cube around the packets that meet conditions, up to the first action;
/// none: no packet does.
pub(super) fn cube_of(sets: &mut Sets, statements: &[Statement]) -> Option<Cube> {
    let mut cube = Cube::default();
    for statement in statements {
        // What comes after an action cannot take back what the action did.
        let Statement::Match(condition) = statement else { break };
        if let Some(Plain::Is(plain)) = sets.plain(condition) {
            match cube.and(&plain) {
                Err(NotAdded::Never) => return None,
                // A full cube says less, and is as right.
                Ok(()) | Err(NotAdded::Full) => {}
            }
        }
    }
    Some(cube)
}

/// Whether a match says the same of a packet on every host.
fn asks_no_host(condition: &Match) -> bool {
    match condition {
        Match::InInterface(pattern) | Match::OutInterface(pattern) => !pattern.value.prefix,
        Match::Source(_)
        | Match::Destination(_)
        | Match::Protocol(_)
        | Match::Fragment(_)
        | Match::Tcp { .. }
        | Match::Udp { .. }
        | Match::Sctp { .. }
        | Match::Icmp(_)
        | Match::Icmp6(_)
        | Match::Multiport { .. }
        | Match::Mark(_)
        | Match::Connmark(_)
        | Match::Comment(_)
        | Match::Limit { .. } => true,
        Match::Conntrack(_) => true,
        _ => false,
    }
}

/// Whether a rule says the same of a packet on every host.
fn asks_no_host_at_all(rule: &Rule) -> bool {
    rule.statements.iter().all(|statement| match statement {
        Statement::Match(condition) => asks_no_host(condition),
        Statement::Target(target) => matches!(
            target,
            Target::Verdict(_) | Target::Reject(_) | Target::Mark(_) | Target::NoEffect { .. }
        ),
    })
}

/// Whether two rules are one.
pub(super) fn same(a: &Rule, b: &Rule) -> bool {
    (a.text == b.text && !a.text.is_empty()) || a.statements == b.statements
}

/// What a rule is told by: its text, or what it does where none was read.
fn key(rule: &Rule) -> Cow<'_, str> {
    match rule.text.is_empty() {
        false => Cow::Borrowed(rule.text.as_str()),
        true => Cow::Owned(format!("{:?}", rule.statements)),
    }
}

/// Whether two rules decide alike about every packet that meets both, and
/// nothing but decide.
fn decide_alike(a: &Rule, b: &Rule) -> bool {
    verdict(a).is_some_and(|verdict_of_a| verdict(b) == Some(verdict_of_a))
}

/// The verdict of a rule that does nothing else, after all its conditions.
fn verdict(rule: &Rule) -> Option<&Target> {
    let mut all = targets(rule).filter(|t| !matches!(t, Target::NoEffect { .. }));
    let (Some(one), None) = (all.next(), all.next()) else { return None };
    let last = matches!(rule.statements.last(), Some(Statement::Target(_)));
    let ends =
        matches!(one, Target::Verdict(Verdict::Accept | Verdict::Drop | Verdict::Return) | Target::Reject(_));
    (last && ends).then_some(one)
}

/// What cubes are too coarse to tell, asked of diagrams.
pub(super) struct Exact<'a, 's> {
    pub host: &'a Host,
    pub table: &'a Table,
    pub sets: &'s mut Sets,
    pub leaves: &'s mut ChainLeaves,
    /// Rules that were asked about, by where they are kept.
    pub known: HashMap<*const Rule, Option<(Ref, Ref)>, rustc_hash::FxBuildHasher>,
}

impl Exact<'_, '_> {
    /// What a rule does, and which packets may meet it as they come; none: it
    /// cannot be told.
    fn diagrams(&mut self, rule: &Rule) -> Option<(Ref, Ref)> {
        if let Some(known) = self.known.get(&std::ptr::from_ref(rule)) {
            return *known;
        }
        let mut chains = TableChains::default();
        let Exact { host, table, sets, leaves, .. } = self;
        let mut compiler = Compiler { host, table, sets, leaves, chains: &mut chains };
        compiler.prepare_for_rules();
        let part = compiler.rule(rule, RuleId(0), (false, ANYWHERE));
        let told = part.ok().and_then(|part| {
            let store = &mut self.sets.store;
            let met = store.where_leaf(part, &|leaf| leaf != 0).ok()?;
            Some((part, store.forget(met, &|p| is_oracle(p) || is_mutable(p), true).ok()?))
        });
        self.known.insert(std::ptr::from_ref(rule), told);
        told
    }

    /// Whether a packet may meet both rules, if they call no chain.
    fn meet(&mut self, a: &Rule, b: &Rule) -> bool {
        let calls = |rule| {
            targets(rule).any(|t| {
                matches!(t, Target::Verdict(Verdict::Jump(_) | Verdict::Goto(_)) | Target::VerdictMap { .. })
            })
        };
        if calls(a) || calls(b) {
            return true;
        }
        match (self.diagrams(a), self.diagrams(b)) {
            (Some((_, a)), Some((_, b))) => !self.sets.store.guard(a, b).is_ok_and(Ref::is_none),
            _ => true,
        }
    }

    /// Whether a rule does the same as others together, no more and no less;
    /// all decide alike.
    fn is_in_parts(&mut self, whole: &Rule, parts: &[&Rule]) -> bool {
        let Some((whole, _)) = self.diagrams(whole) else { return false };
        let Some(parts) = parts.iter().map(|rule| Some(self.diagrams(rule)?.0)).collect::<Option<Vec<_>>>()
        else {
            return false;
        };
        self.sets.store.first_of(&parts).is_ok_and(|parts| parts == whole)
    }
}

/// Whether a bit is of a field that rules may change.
fn is_mutable(position: u32) -> bool {
    Field::of_word((position >> 5) as usize).is_some_and(Field::is_mutable)
}

/// Rules that do nothing to any packet: their place says nothing.
fn is_idle(rule: &Rule) -> bool {
    targets(rule).all(|t| matches!(t, Target::NoEffect { .. } | Target::Limit { .. }))
}

/// A rule of either version, or a part of one, and its place in both.
struct Placed<'a> {
    alone: &'a Alone<'a>,
    old: usize,
    new: usize,
}

/// Cubes outside of which two versions of a chain do the same to every packet
/// that comes there, if what they call does; none: not in few.
///
/// `same_host`: whether the versions are asked on hosts that are alike.
pub(super) fn regions(old: &[Alone], new: &[Alone], same_host: bool, exact: &mut Exact) -> Option<Vec<Cube>> {
    let mut found: Vec<Cube> = Vec::new();
    // Rules that are in both, each with its like in order.
    let mut waiting: HashMap<Cow<str>, Vec<usize>, foldhash::fast::RandomState> = HashMap::default();
    for (place, alone) in new.iter().enumerate().rev() {
        waiting.entry(key(alone.rule)).or_default().push(place);
    }
    let mut taken = vec![false; new.len()];
    let mut placed: Vec<Placed> = Vec::with_capacity(old.len());
    let mut left_old: Vec<usize> = Vec::new();
    for (place, alone) in old.iter().enumerate() {
        let stays = same_host || asks_no_host_at_all(alone.rule);
        match waiting.get_mut(&key(alone.rule)).and_then(Vec::pop).filter(|_| stays) {
            Some(other) => {
                taken[other] = true;
                placed.push(Placed { alone, old: place, new: other });
            }
            None => left_old.push(place),
        }
    }
    let mut left_new: Vec<usize> = (0..new.len()).filter(|place| !taken[*place]).collect();
    // Spelt otherwise, at the same place among those left.
    let stays = |place: &usize| same_host || asks_no_host_at_all(old[*place].rule);
    if left_old.len() == left_new.len() {
        let pairs: Vec<(usize, usize)> = left_old.iter().copied().zip(left_new.iter().copied()).collect();
        let (alike, other): (Vec<_>, Vec<_>) =
            pairs.into_iter().partition(|(a, b)| stays(a) && same(old[*a].rule, new[*b].rule));
        placed.extend(alike.into_iter().map(|(a, b)| Placed { alone: &old[a], old: a, new: b }));
        (left_old, left_new) = other.into_iter().unzip();
    }
    if left_old.len().saturating_mul(left_new.len()) > PAIRS / 8 {
        return None;
    }
    // Rules that the other version says in parts.
    let whole_rules = |a: &Alone| same_host || asks_no_host_at_all(a.rule);
    for (place, part) in in_parts((old, &mut left_old), (new, &mut left_new), &whole_rules, exact) {
        placed.push(Placed { alone: &new[part], old: place, new: part });
    }
    for (place, part) in in_parts((new, &mut left_new), (old, &mut left_old), &whole_rules, exact) {
        placed.push(Placed { alone: &old[part], old: part, new: place });
    }
    let lone = left_old.iter().map(|p| &old[*p]).chain(left_new.iter().map(|p| &new[*p]));
    for alone in lone.filter(|a| !is_idle(a.rule)) {
        if let Some(cube) = alone.cube {
            note(&mut found, cube)?;
        }
    }
    changed_places(placed, exact, &mut found)?;
    Some(found)
}

/// Takes out rules that others do the work of together: which, and who.
fn in_parts(
    (whole, left): (&[Alone], &mut Vec<usize>),
    (many, left_parts): (&[Alone], &mut Vec<usize>),
    stays: &dyn Fn(&Alone) -> bool,
    exact: &mut Exact,
) -> Vec<(usize, usize)> {
    let mut found = Vec::new();
    left.retain(|place| {
        let one = &whole[*place];
        let Some(cube) = one.cube.filter(|_| stays(one)) else { return true };
        let inside: Vec<usize> = left_parts
            .iter()
            .copied()
            .filter(|p| many[*p].cube.is_some_and(|c| c.implies(&cube)))
            .filter(|p| decide_alike(one.rule, many[*p].rule))
            .collect();
        let rules: Vec<&Rule> = inside.iter().map(|p| many[*p].rule).collect();
        if inside.is_empty() || !exact.is_in_parts(one.rule, &rules) {
            return true;
        }
        left_parts.retain(|p| !inside.contains(p));
        found.extend(inside.into_iter().map(|part| (*place, part)));
        false
    });
    found
}

/// Notes where rules meet that have changed places and do not do the same.
fn changed_places(mut placed: Vec<Placed>, exact: &mut Exact, found: &mut Vec<Cube>) -> Option<()> {
    placed.retain(|p| p.alone.cube.is_some() && !is_idle(p.alone.rule));
    placed.sort_by_key(|p| (p.old, p.new));
    // The first place in the new version of all rules from here on.
    let mut first = vec![usize::MAX; placed.len() + 1];
    for index in (0..placed.len()).rev() {
        first[index] = first[index + 1].min(placed[index].new);
    }
    let mut looked = 0_usize;
    for (index, one) in placed.iter().enumerate() {
        let Some(cube) = one.alone.cube else { continue };
        for (offset, other) in placed[index + 1..].iter().enumerate() {
            if first[index + 1 + offset] >= one.new {
                break;
            }
            looked += 1;
            if looked > PAIRS {
                return None;
            }
            if other.new >= one.new || other.old == one.old {
                continue;
            }
            let Some(theirs) = other.alone.cube.filter(|theirs| theirs.meets(&cube)) else { continue };
            if decide_alike(one.alone.rule, other.alone.rule) || !exact.meet(one.alone.rule, other.alone.rule)
            {
                continue;
            }
            let mut both = cube;
            // A full cube says less, and is as right.
            let _ = both.and(&theirs);
            note(found, both)?;
        }
    }
    Some(())
}

/// Notes a cube, if it is not in another; none: there are too many.
pub(super) fn note(found: &mut Vec<Cube>, cube: Cube) -> Option<()> {
    if found.iter().any(|known| cube.implies(known)) {
        return Some(());
    }
    found.retain(|known| !known.implies(&cube));
    found.push(cube);
    (found.len() <= REGIONS).then_some(())
}
