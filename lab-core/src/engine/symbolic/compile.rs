//! Compiling chains: rules, one by one, and chains put together from them.

use std::sync::Arc;

use super::chain::{ChainLeaves, Compiled, End, Leaf, RuleId, TableChains};
use super::effects::Effects;
use crate::model::{Chain, Host, Match, Policy, Rule, Statement, Table, Target, Verdict};
use crate::semantics::hooks::CONNTRACK;
use crate::semantics::sets::{Plain, Sets, Site};
use crate::space::{Cube, Error, NotAdded, Ref, Segments, Store};

/// What it takes to compile a table of a host.
pub struct Compiler<'a, 's> {
    /// The host.
    pub host: &'a Host,
    /// The table.
    pub table: &'a Table,
    /// Diagrams.
    pub sets: &'s mut Sets,
    /// Leaves.
    pub leaves: &'s mut ChainLeaves,
    /// What is compiled already.
    pub chains: &'s mut TableChains,
}

/// The context of which nothing is known.
pub(super) const ANYWHERE: u32 = 0;

/// What is known of packets that are about to enter a chain.
#[derive(Clone, Copy)]
pub(super) struct Known<'c> {
    pub cube: &'c Cube,
    /// Its number among the contexts, if it has one.
    pub number: Option<u32>,
}

/// How deep chains may call each other.
const CALLS: usize = 200;

impl<'a> Compiler<'a, '_> {
    /// Makes ready for single rules.
    pub(super) fn prepare_for_rules(&mut self) {
        self.chains.contexts.resize(1, Cube::default());
    }

    pub(super) fn prepare(&mut self) {
        if self.chains.first_ids.len() == self.table.chains.len() {
            return;
        }
        let table = self.table;
        let names = table.chains.iter().enumerate().map(|(i, c)| (c.name.clone(), i as u32));
        self.chains.names = Arc::new(names.collect());
        self.chains.contexts = vec![self.chains.known.as_ref().map_or(Cube::default(), |(cube, _)| *cube)];
        let mut next = 0;
        let mut calls = vec![0_u8; table.chains.len()];
        let mut first_ids = Vec::with_capacity(table.chains.len());
        for chain in &table.chains {
            first_ids.push(next);
            next += 1 + chain.rules.len() as u32;
            for target in chain.rules.iter().flat_map(targets) {
                // Of what a map calls, nothing is known beforehand.
                let Target::Verdict(Verdict::Jump(name) | Verdict::Goto(name)) = target else { continue };
                if let Some(count) = self.chains.index(name).and_then(|i| calls.get_mut(i)) {
                    *count = (*count + 1).min(2);
                }
            }
        }
        self.chains.first_ids = first_ids;
        self.chains.calls = calls;
        for base in table.chains.iter().filter(|chain| chain.base.is_some()) {
            self.chains.runs[usize::from(is_raw(base))] = true;
        }
        self.chains.next_id = next;
        // Of chains for a part of all packets little is compiled.
        if self.chains.known.is_none() {
            let rules = next as usize - table.chains.len();
            self.sets.store.reserve(rules.saturating_mul(8));
        }
    }

    /// A base chain as a diagram: every leaf decides. Compiled once.
    ///
    /// # Errors
    /// If the store's budget is used up.
    pub fn base(&mut self, index: usize) -> Result<Ref, Error> {
        let whole = self.undecided(index)?;
        let policy = self.policy(index);
        let Compiler { sets, leaves, .. } = self;
        sets.store.map_leaves(whole, &mut |leaf| decided(leaves, leaf, &policy))
    }

    /// A base chain's diagram where who accepts is not told, so that packets
    /// that fare alike stay together.
    ///
    /// # Errors
    /// If the store's budget is used up.
    pub fn verdicts(&mut self, whole: Ref) -> Result<Ref, Error> {
        let Compiler { sets, leaves, .. } = self;
        sets.store.map_leaves(whole, &mut |leaf| match leaves.value(leaf).cloned() {
            Some(found) if found.end == End::Accept => leaves.leaf(Leaf { rule: None, ..found }),
            _ => Ref::leaf(leaf),
        })
    }

    /// The diagrams of a chain's rules, in order: each as if it were alone.
    ///
    /// # Errors
    /// If the store's budget is used up.
    pub fn parts(&mut self, index: usize) -> Result<Vec<Ref>, Error> {
        self.undecided(index)?;
        let raw = self.table.chains.get(index).is_some_and(is_raw);
        Ok(self.chains.compiled(index, raw).map(|c| c.segments.items()).unwrap_or_default())
    }

    /// A base chain as a diagram whose undecided leaves mean its policy; an
    /// edit of a chain below changes little of it.
    ///
    /// # Errors
    /// If the store's budget is used up.
    pub fn undecided(&mut self, index: usize) -> Result<Ref, Error> {
        self.prepare();
        let raw = self.table.chains.get(index).is_some_and(is_raw);
        std::mem::swap(&mut self.sets.oracles, &mut self.chains.oracles);
        let result = self.whole_chain(index, raw);
        std::mem::swap(&mut self.sets.oracles, &mut self.chains.oracles);
        result
    }

    /// The leaf of a base chain's policy.
    pub fn policy(&self, index: usize) -> Leaf {
        let policy = self.table.chains.get(index).and_then(|c| c.base).map_or(Policy::Accept, |b| b.policy);
        Leaf {
            end: if policy == Policy::Accept { End::Accept } else { End::Drop },
            rule: self.chains.first_ids.get(index).map(|first| RuleId(*first)),
            effects: Effects::default(),
        }
    }

    /// A chain as its callers see it.
    pub(super) fn whole_chain(&mut self, index: usize, raw: bool) -> Result<Ref, Error> {
        let cube = self.chains.contexts.first().copied().unwrap_or_default();
        self.chain(index, raw, Known { cube: &cube, number: Some(ANYWHERE) })
    }

    /// A chain as those of its callers see it who know something of the
    /// packets that they send there.
    pub(super) fn chain(&mut self, index: usize, raw: bool, known: Known) -> Result<Ref, Error> {
        if let Some(compiled) = self.chains.compiled(index, raw) {
            let asked = self.chains.contexts.get(compiled.context as usize);
            if asked.is_none_or(|asked| known.cube.implies(asked)) {
                return Ok(compiled.called);
            }
            // Who called it up to now may go on with what they have.
            return self.recompile(index, raw);
        }
        // No kernel loads a chain that comes back to itself.
        if self.chains.open.contains(&index) || self.chains.open.len() > CALLS {
            return Err(Error::Depth);
        }
        let alone = self.chains.calls.get(index).is_some_and(|calls| *calls < 2);
        let context = match known.number {
            _ if !alone => ANYWHERE,
            Some(number) => number,
            None => self.chains.context(*known.cube),
        };
        self.chains.open.push(index);
        let result = self.compile(index, raw, context);
        self.chains.open.pop();
        result
    }

    fn compile(&mut self, index: usize, raw: bool, context: u32) -> Result<Ref, Error> {
        let table = self.table;
        let Some(chain) = table.chains.get(index) else { return Ok(Ref::NONE) };
        let first = self.chains.first_ids.get(index).copied().unwrap_or(0);
        let start = self.chains.parts.len();
        let mut returns = false;
        for (place, rule) in chain.rules.iter().enumerate() {
            let id = RuleId(first + 1 + place as u32);
            let part = self.rule(rule, id, (raw, context))?;
            self.chains.parts.push(part);
            returns |= may_return(rule);
        }
        let compiled = Compiled { returns, context, ..Compiled::default() };
        self.assemble(index, raw, compiled, start)
    }

    /// Puts a chain together from its rules, the parts from `start` on.
    fn assemble(
        &mut self,
        index: usize,
        raw: bool,
        mut compiled: Compiled,
        start: usize,
    ) -> Result<Ref, Error> {
        let Compiler { sets, leaves, chains, .. } = self;
        let parts = chains.parts.get(start..).unwrap_or_default();
        compiled.segments = Segments::build(&mut sets.store, parts, &mut |store, a, b| {
            store.sequence(a, b, &mut |store, leaf, next| after(leaves, store, leaf, next))
        })?;
        chains.parts.truncate(start);
        compiled.called = called(self, compiled.segments.value(), compiled.returns)?;
        let called = compiled.called;
        self.chains.put(index, raw, compiled);
        Ok(called)
    }

    /// Compiles a chain anew, for packets of which nothing is known.
    fn recompile(&mut self, index: usize, raw: bool) -> Result<Ref, Error> {
        let table = self.table;
        let (Some(chain), Some(old)) = (table.chains.get(index), self.chains.take(index, raw)) else {
            return Ok(Ref::NONE);
        };
        let count = if old.edited { old.ids.len() } else { chain.rules.len() };
        let start = self.chains.parts.len();
        let first = self.chains.first_ids.get(index).copied().unwrap_or(0);
        for place in 0..count {
            let id = if old.edited { old.ids.get(place).copied() } else { None };
            let id = id.unwrap_or(RuleId(first + 1 + place as u32));
            let part = self.rule_by_id(index, id, (raw, ANYWHERE))?;
            self.chains.parts.push(part);
        }
        self.assemble(index, raw, Compiled { context: ANYWHERE, ..old }, start)
    }

    /// A rule of a chain, whenever it was put in, as a diagram.
    pub(super) fn rule_by_id(&mut self, index: usize, id: RuleId, site: (bool, u32)) -> Result<Ref, Error> {
        let table = self.table;
        let Some(chain) = table.chains.get(index) else { return Ok(Ref::NONE) };
        if let Some((owner, rule)) = self.chains.added.remove(&id) {
            let part = self.rule(&rule, id, site);
            self.chains.added.insert(id, (owner, rule));
            return part;
        }
        match self.chains.place_at_first(index, id).and_then(|place| chain.rules.get(place)) {
            Some(rule) => self.rule(rule, id, site),
            None => Ok(Ref::NONE),
        }
    }

    /// What a rule does, as a diagram: open leaves where it does not decide.
    /// `raw`: before connection tracking; `context`: what is known of packets
    /// that come to it.
    pub(super) fn rule(
        &mut self,
        rule: &Rule,
        id: RuleId,
        (raw, context): (bool, u32),
    ) -> Result<Ref, Error> {
        if harmless(rule) {
            return Ok(Ref::NONE);
        }
        let caller = self.sets.enter_rule(&rule.text);
        let part = self.rule_alone(rule, id, (raw, context));
        self.sets.leave_rule(caller);
        part
    }

    fn rule_alone(&mut self, rule: &Rule, id: RuleId, (raw, context): (bool, u32)) -> Result<Ref, Error> {
        let at = Site { host: self.host, table: self.table, raw };
        let known = self.sets.oracles.len();
        let first = rule.statements.iter().position(|s| matches!(s, Statement::Target(_))).unwrap_or(0);
        let (leading, rest) = rule.statements.split_at(first);
        // What must hold for the first target to be reached, so far as it is
        // one conjunction, and is not known before.
        let outer = self.chains.contexts.get(context as usize).copied().unwrap_or_default();
        let mut cube = Cube::default();
        let mut other: Vec<(&Match, Option<Cube>)> = Vec::new();
        for statement in leading {
            let Statement::Match(condition) = statement else { continue };
            match self.sets.plain(condition) {
                Some(Plain::Is(plain)) => {
                    let Some(left) = plain.within(&outer) else { return Ok(Ref::NONE) };
                    match cube.and(&left) {
                        Ok(()) => {}
                        Err(NotAdded::Never) => return Ok(Ref::NONE),
                        Err(NotAdded::Full) => other.push((condition, None)),
                    }
                }
                Some(Plain::IsNot(plain)) => match plain.within(&outer) {
                    // It never meets what is excluded.
                    None => {}
                    Some(left) if left.is_everything() => return Ok(Ref::NONE),
                    Some(left) => other.push((condition, Some(left))),
                },
                None => other.push((condition, None)),
            }
        }
        let calls = targets(rule).any(|t| matches!(t, Target::Verdict(Verdict::Jump(_) | Verdict::Goto(_))));
        let mut whole = outer;
        let told = calls && !cube.is_everything() && whole.and(&cube).is_ok();
        let inner = match told {
            true => Known { cube: &whole, number: None },
            false => Known { cube: &outer, number: Some(context) },
        };
        let mut result = Ref::NONE;
        let mut conditions: Vec<Ref> = Vec::new();
        for statement in rest.iter().rev() {
            match statement {
                Statement::Match(condition) => conditions.push(self.condition(condition, at)?),
                Statement::Target(target) => {
                    // Conditions after this target hold for what follows it.
                    result = self.guarded(&mut conditions, result)?;
                    result = self.target(target, at, (id, inner), result)?;
                }
            }
        }
        for (condition, excluded) in other.into_iter().rev() {
            result = match excluded {
                Some(cube) => self.sets.store.outside_cube(&cube, result)?,
                None => {
                    let condition = self.condition(condition, at)?;
                    self.sets.store.guard(condition, result)?
                }
            };
        }
        result = self.sets.store.within_cube(&cube, result)?;
        for doubt in self.sets.oracles.get_mut(known..).unwrap_or_default() {
            doubt.rule.get_or_insert_with(|| rule.text.clone());
        }
        Ok(result)
    }

    /// Where a match holds, of the packets asked about.
    fn condition(&mut self, condition: &Match, at: Site) -> Result<Ref, Error> {
        let set = self.sets.condition(condition, at)?;
        match &self.chains.known {
            Some((_, mapping)) => self.sets.store.pull_back(Ref::ALL, set, mapping),
            None => Ok(set),
        }
    }

    fn guarded(&mut self, conditions: &mut Vec<Ref>, then: Ref) -> Result<Ref, Error> {
        let mut result = then;
        for condition in conditions.drain(..) {
            result = self.sets.store.guard(condition, result)?;
        }
        Ok(result)
    }
}

/// Puts `next` after an open leaf.
pub(super) fn after(leaves: &mut ChainLeaves, sets: &mut Store, leaf: u32, next: Ref) -> Result<Ref, Error> {
    let Some(Leaf { effects, .. }) = leaves.value(leaf) else { return Ok(next) };
    if let Some(value) = next.value() {
        let leaf = changed(leaves, effects, value);
        return Ok(leaves.leaf(leaf));
    }
    let effects = effects.clone();
    after_effects(leaves, sets, &effects, next)
}

/// A leaf after some effects.
fn changed(leaves: &ChainLeaves, effects: &Effects, leaf: u32) -> Leaf {
    match leaves.value(leaf) {
        Some(found) => {
            Leaf { end: found.end.clone(), rule: found.rule, effects: effects.then(&found.effects) }
        }
        None => Leaf { end: End::Fall, rule: None, effects: effects.clone() },
    }
}

pub(super) fn after_effects(
    leaves: &mut ChainLeaves,
    store: &mut Store,
    effects: &Effects,
    next: Ref,
) -> Result<Ref, Error> {
    store.after_change(
        next,
        &mut |store, position, len, pattern| effects.bits(store, position, len, pattern),
        &mut |leaf| {
            let leaf = changed(leaves, effects, leaf);
            leaves.leaf(leaf)
        },
    )
}

/// Whether it makes no difference if a rule matches.
fn harmless(rule: &Rule) -> bool {
    rule.statements.iter().all(|s| {
        matches!(s, Statement::Match(_) | Statement::Target(Target::NoEffect { .. } | Target::Limit { .. }))
    })
}

/// Whether a chain runs before connection tracking.
pub(super) fn is_raw(chain: &Chain) -> bool {
    chain.base.is_some_and(|b| b.priority < CONNTRACK)
}

/// What a chain is to its callers: a return falls out of it.
pub(super) fn called(compiler: &mut Compiler, whole: Ref, returns: bool) -> Result<Ref, Error> {
    if !returns {
        return Ok(whole);
    }
    let Compiler { sets, leaves, .. } = compiler;
    sets.store.map_leaves(whole, &mut |leaf| match leaves.value(leaf).cloned() {
        Some(found) if found.end == End::Return => leaves.leaf(Leaf { end: End::Fall, ..found }),
        _ => Ref::leaf(leaf),
    })
}

/// An undecided leaf made the policy's.
fn decided(leaves: &mut ChainLeaves, leaf: u32, policy: &Leaf) -> Ref {
    match leaves.value(leaf).cloned() {
        None => leaves.leaf(policy.clone()),
        Some(found) if matches!(found.end, End::Fall | End::Return) => {
            leaves.leaf(Leaf { effects: found.effects, ..policy.clone() })
        }
        Some(_) => Ref::leaf(leaf),
    }
}

pub(super) fn targets(rule: &Rule) -> impl Iterator<Item = &Target> {
    rule.statements.iter().filter_map(|s| match s {
        Statement::Target(target) => Some(target),
        Statement::Match(_) => None,
    })
}

pub(super) fn may_return(rule: &Rule) -> bool {
    targets(rule)
        .any(|t| matches!(t, Target::Verdict(Verdict::Return | Verdict::Goto(_)) | Target::VerdictMap { .. }))
}
