//! Chains as diagrams: what a table does to every packet at once.
//!
//! A chain becomes a diagram whose leaves say how it ends, by which rule, and
//! what was changed on the way. Rules are put together in halves, so that an
//! edit of one puts only its own path together anew, and callers after that.

use std::collections::HashMap;
use std::hash::Hash;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::effects::{Effects, Marking};
use crate::addr::{Family, PortRange};
use crate::model::{
    Chain, Hook, Host, Mangle, Match, NatAddress, NatKind, Policy, RejectWith, Rule, Statement, Table,
    Target, Text, TtlOperation, Verdict,
};
use crate::semantics::hooks::CONNTRACK;
use crate::semantics::sets::{Bit, Computed, Doubt, Leaves, Plain, Sets, Site};
use crate::space::{Cube, Error, Field, Mapping, NotAdded, Ref, Segments, OPEN};

/// What NAT is to do.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct NatAction {
    /// Which end, and to what.
    pub kind: NatKind,
    /// The addresses, first and last; none: kept, or those the kind implies.
    pub addresses: Option<(IpAddr, IpAddr)>,
    /// The prefix that replaces one, host bits kept (NETMAP).
    pub netmap: Option<ipnet::IpNet>,
    /// The ports.
    pub ports: Option<PortRange>,
    /// The first port of the original range, where ports are shifted.
    pub base_port: Option<u16>,
    /// Whether the port is picked by chance.
    pub random: bool,
}

/// How a chain ends.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum End {
    /// At its last rule, undecided.
    Fall,
    /// By a return, undecided.
    Return,
    /// The packet goes on.
    Accept,
    /// It is dropped.
    Drop,
    /// It is rejected.
    Reject(RejectWith),
    /// It goes on, and this is its connection's NAT.
    Nat(NatAction),
}

/// A leaf of a chain's diagram.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Leaf {
    /// How the chain ends.
    pub end: End,
    /// The rule that decides, by its id; for a policy, the chain's.
    pub rule: Option<RuleId>,
    /// What was changed on the way.
    pub effects: Effects,
}

/// A rule of a table that stays the same when others come and go. Policies
/// have ids, too.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RuleId(pub u32);

/// Leaves of chains, shared among tables and hosts, so that equal tables are
/// one diagram.
#[derive(Debug, Default)]
pub struct ChainLeaves(Leaves<Leaf>);

impl ChainLeaves {
    pub(super) fn leaf(&mut self, leaf: Leaf) -> Ref {
        if leaf.end == End::Fall && leaf.effects.is_none() {
            return Ref::NONE;
        }
        let open = if leaf.end == End::Fall { OPEN } else { 0 };
        Ref::leaf(self.0.leaf(leaf).value().unwrap_or(0) | open)
    }

    /// What a leaf stands for; none for 0: the chain ends undecided.
    pub fn value(&self, leaf: u32) -> Option<&Leaf> {
        self.0.value(leaf & !OPEN)
    }
}

/// A chain of a table as a diagram.
#[derive(Debug, Default)]
struct Compiled {
    segments: Segments,
    /// The ids of its rules, in order; empty while they are those it had at
    /// first.
    ids: Vec<RuleId>,
    /// Whether its rules are no longer those it had at first.
    edited: bool,
    /// Whether a rule may end it by a return.
    returns: bool,
    /// What callers see: returns have become falls.
    called: Ref,
    /// What is known of every packet that comes here, by its number in
    /// [`TableChains::contexts`]: its rules do not ask for it again.
    context: u32,
}

/// The diagrams of a table's chains.
#[derive(Debug, Default)]
pub struct TableChains {
    /// By chain; those that run before connection tracking apart.
    forms: [Vec<Option<Compiled>>; 2],
    names: HashMap<Text, u32, foldhash::fast::RandomState>,
    /// Why each oracle of these diagrams is one.
    pub oracles: Vec<Doubt>,
    /// For each chain the ids of its rules at first; later ones are appended.
    first_ids: Vec<u32>,
    next_id: u32,
    /// Rules put in later, and the chain each is of.
    added: HashMap<RuleId, (usize, Rule), rustc_hash::FxBuildHasher>,
    /// How many rules name each chain; 2 for two or more.
    calls: Vec<u8>,
    /// For each chain the rules that may call it, by id; made for the first
    /// edit.
    callers: Option<Callers>,
    contexts: Vec<Cube>,
    /// What is known of every packet asked about.
    known: Option<(Cube, Mapping)>,
    /// Rules of the chains that are being compiled.
    parts: Vec<Ref>,
    /// The chains that are being compiled, the innermost last.
    open: Vec<usize>,
}

/// Which rules call which chain.
#[derive(Debug, Default)]
struct Callers {
    by_name: HashMap<u32, Vec<RuleId>, rustc_hash::FxBuildHasher>,
    /// Rules with verdict maps may call any.
    any: Vec<RuleId>,
}

impl Callers {
    fn note(&mut self, names: &TableChains, rule: &Rule, id: RuleId) {
        for target in targets(rule) {
            match target {
                Target::Verdict(Verdict::Jump(name) | Verdict::Goto(name)) => {
                    if let Some(callee) = names.index(name) {
                        self.by_name.entry(callee as u32).or_default().push(id);
                    }
                }
                Target::VerdictMap { .. } => self.any.push(id),
                _ => {}
            }
        }
    }

    fn forget(&mut self, names: &TableChains, rule: &Rule, id: RuleId) {
        for target in targets(rule) {
            match target {
                Target::Verdict(Verdict::Jump(name) | Verdict::Goto(name)) => {
                    let callee = names.index(name).and_then(|i| self.by_name.get_mut(&(i as u32)));
                    callee.into_iter().for_each(|callers| callers.retain(|other| *other != id));
                }
                Target::VerdictMap { .. } => self.any.retain(|other| *other != id),
                _ => {}
            }
        }
    }

    fn of(&self, callee: usize) -> Vec<RuleId> {
        let named = self.by_name.get(&(callee as u32)).map(Vec::as_slice).unwrap_or_default();
        named.iter().chain(&self.any).copied().collect()
    }
}

/// The context of which nothing is known.
const ANYWHERE: u32 = 0;

/// What is known of packets that are about to enter a chain.
#[derive(Clone, Copy)]
struct Known<'c> {
    cube: &'c Cube,
    /// Its number among the contexts, if it has one.
    number: Option<u32>,
}

/// How deep chains may call each other.
const CALLS: usize = 200;

/// Puts `next` after an open leaf.
fn after(
    leaves: &mut ChainLeaves,
    sets: &mut crate::space::Store,
    leaf: u32,
    next: Ref,
) -> Result<Ref, Error> {
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

fn after_effects(
    leaves: &mut ChainLeaves,
    store: &mut crate::space::Store,
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

impl TableChains {
    /// Chains for packets of which something is known: fields that no rule
    /// changes. Their diagrams ask for it nowhere, and mean nothing for other
    /// packets.
    pub fn within(cube: &Cube) -> Self {
        TableChains { known: Some((*cube, Mapping::from(cube))), ..TableChains::default() }
    }

    /// The chain of that name, by its index in the table.
    fn index(&self, name: &Text) -> Option<usize> {
        self.names.get(name).map(|index| *index as usize)
    }

    fn compiled(&self, chain: usize, raw: bool) -> Option<&Compiled> {
        self.forms[usize::from(raw)].get(chain)?.as_ref()
    }

    fn take(&mut self, chain: usize, raw: bool) -> Option<Compiled> {
        self.forms[usize::from(raw)].get_mut(chain)?.take()
    }

    fn put(&mut self, chain: usize, raw: bool, compiled: Compiled) {
        let count = self.first_ids.len();
        let form = &mut self.forms[usize::from(raw)];
        if form.len() < count {
            form.resize_with(count, || None);
        }
        if let Some(place) = form.get_mut(chain) {
            *place = Some(compiled);
        }
    }

    fn either(&self, chain: usize) -> Option<&Compiled> {
        self.compiled(chain, false).or_else(|| self.compiled(chain, true))
    }

    /// The id that the rule at a place of a chain had at first.
    fn first_id(&self, chain: usize, place: usize) -> Option<RuleId> {
        self.first_ids.get(chain).map(|first| RuleId(first + 1 + place as u32))
    }

    /// The id of a rule that stands at a place (from 0) of a chain.
    pub fn id(&self, chain: usize, place: usize) -> Option<RuleId> {
        match self.either(chain).filter(|c| c.edited) {
            Some(compiled) => compiled.ids.get(place).copied(),
            None => self.first_id(chain, place),
        }
    }

    /// The chain of a rule.
    fn owner(&self, id: RuleId) -> Option<usize> {
        match self.added.get(&id) {
            Some((chain, _)) => Some(*chain),
            None => self.first_ids.partition_point(|first| *first <= id.0).checked_sub(1),
        }
    }

    /// Where a rule stands: its chain, and its number from 1; none for the
    /// policy.
    pub fn place(&self, id: RuleId) -> Option<(usize, Option<usize>)> {
        let chain = self.owner(id)?;
        let first = self.first_ids.get(chain)?;
        if *first == id.0 {
            return Some((chain, None));
        }
        let place = match self.either(chain).filter(|c| c.edited) {
            Some(compiled) => compiled.ids.iter().position(|other| *other == id)?,
            None => (id.0 - first) as usize - 1,
        };
        Some((chain, Some(place + 1)))
    }

    /// Every diagram held, for [`crate::space::Store::collect`].
    pub fn roots(&mut self) -> impl Iterator<Item = &mut Ref> {
        let compiled = self.forms.iter_mut().flatten().flatten();
        compiled.flat_map(|c| c.segments.roots().chain(std::iter::once(&mut c.called)))
    }

    /// A context's number.
    fn context(&mut self, cube: Cube) -> u32 {
        self.contexts.push(cube);
        self.contexts.len() as u32 - 1
    }
}

impl<'a> Compiler<'a, '_> {
    fn prepare(&mut self) {
        if self.chains.first_ids.len() == self.table.chains.len() {
            return;
        }
        let table = self.table;
        self.chains.names =
            table.chains.iter().enumerate().map(|(i, c)| (c.name.clone(), i as u32)).collect();
        self.chains.contexts = vec![self.chains.known.as_ref().map_or(Cube::default(), |(cube, _)| *cube)];
        let mut next = 0;
        let mut calls = vec![0_u8; table.chains.len()];
        let mut first_ids = Vec::with_capacity(table.chains.len());
        for chain in &table.chains {
            first_ids.push(next);
            next += 1 + chain.rules.len() as u32;
            for target in chain.rules.iter().flat_map(targets) {
                match target {
                    Target::Verdict(Verdict::Jump(name) | Verdict::Goto(name)) => {
                        if let Some(count) = self.chains.index(name).and_then(|i| calls.get_mut(i)) {
                            *count = (*count + 1).min(2);
                        }
                    }
                    // It may call any.
                    Target::VerdictMap { .. } => calls.fill(2),
                    _ => {}
                }
            }
        }
        self.chains.first_ids = first_ids;
        self.chains.calls = calls;
        self.chains.next_id = next;
        let rules = next as usize - table.chains.len();
        self.sets.store.reserve(rules.saturating_mul(8));
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
    fn whole_chain(&mut self, index: usize, raw: bool) -> Result<Ref, Error> {
        let cube = self.chains.contexts.first().copied().unwrap_or_default();
        self.chain(index, raw, Known { cube: &cube, number: Some(ANYWHERE) })
    }

    /// A chain as those of its callers see it who know something of the
    /// packets that they send there.
    fn chain(&mut self, index: usize, raw: bool, known: Known) -> Result<Ref, Error> {
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
            let part = self.rule(chain, rule, id, (raw, context))?;
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
    fn rule_by_id(&mut self, index: usize, id: RuleId, site: (bool, u32)) -> Result<Ref, Error> {
        let table = self.table;
        let Some(chain) = table.chains.get(index) else { return Ok(Ref::NONE) };
        if let Some((owner, rule)) = self.chains.added.remove(&id) {
            let part = self.rule(chain, &rule, id, site);
            self.chains.added.insert(id, (owner, rule));
            return part;
        }
        let first = self.chains.first_ids.get(index).copied().unwrap_or(0);
        match (id.0 - first).checked_sub(1).and_then(|place| chain.rules.get(place as usize)) {
            Some(rule) => self.rule(chain, rule, id, site),
            None => Ok(Ref::NONE),
        }
    }

    /// Puts a rule into a chain before the one at `place` (from 0), and brings
    /// the chains that call it up to date.
    ///
    /// # Errors
    /// [`Error::Loop`] if the chain would call itself, and if the store's budget
    /// is used up.
    pub fn insert(&mut self, chain: usize, place: usize, rule: &Rule) -> Result<RuleId, Error> {
        self.ready_for_edits(chain)?;
        if self.would_loop(chain, rule) {
            return Err(Error::Loop);
        }
        let id = RuleId(self.chains.next_id);
        self.chains.next_id += 1;
        if let Some(mut callers) = self.chains.callers.take() {
            callers.note(self.chains, rule, id);
            self.chains.callers = Some(callers);
        }
        self.edit(chain, |compiler, compiled, raw| {
            let model = compiler.table.chains.get(chain);
            let Some(model) = model else { return Ok(()) };
            let part = compiler.rule(model, rule, id, (raw, compiled.context))?;
            let Compiler { sets, leaves, .. } = compiler;
            let place = place.min(compiled.ids.len());
            compiled.segments.insert(&mut sets.store, place, part, &mut |store, a, b| {
                store.sequence(a, b, &mut |store, leaf, next| after(leaves, store, leaf, next))
            })?;
            compiled.ids.insert(place, id);
            compiled.returns |= may_return(rule);
            Ok(())
        })?;
        self.chains.added.insert(id, (chain, rule.clone()));
        Ok(id)
    }

    /// Takes the rule at `place` (from 0) out of a chain.
    ///
    /// # Errors
    /// If the store's budget is used up.
    pub fn remove(&mut self, chain: usize, place: usize) -> Result<(), Error> {
        self.ready_for_edits(chain)?;
        self.edit(chain, |compiler, compiled, _| {
            if place < compiled.ids.len() {
                let Compiler { sets, leaves, .. } = compiler;
                compiled.segments.remove(&mut sets.store, place, &mut |store, a, b| {
                    store.sequence(a, b, &mut |store, leaf, next| after(leaves, store, leaf, next))
                })?;
                let id = compiled.ids.remove(place);
                compiler.forget(id);
            }
            Ok(())
        })
    }

    /// A rule is gone. One that was there at first may still be noted as a
    /// caller; it is no longer found in its chain.
    fn forget(&mut self, id: RuleId) {
        let Some((_, rule)) = self.chains.added.remove(&id) else { return };
        if let Some(mut callers) = self.chains.callers.take() {
            callers.forget(self.chains, &rule, id);
            self.chains.callers = Some(callers);
        }
    }

    /// Whether a rule in a chain would call a chain that calls this one.
    fn would_loop(&self, chain: usize, rule: &Rule) -> bool {
        let called: Vec<usize> = targets(rule)
            .filter_map(|t| match t {
                Target::Verdict(Verdict::Jump(name) | Verdict::Goto(name)) => self.chains.index(name),
                _ => None,
            })
            .collect();
        let mut above = vec![chain];
        let mut next = 0;
        while let Some(chain) = above.get(next).copied().filter(|_| !called.is_empty()) {
            next += 1;
            if called.contains(&chain) {
                return true;
            }
            let calling = self.chains.callers.as_ref().map(|c| c.of(chain)).unwrap_or_default();
            for owner in calling.into_iter().filter_map(|id| self.chains.owner(id)) {
                if !above.contains(&owner) {
                    above.push(owner);
                }
            }
        }
        false
    }

    /// Compiles a chain that is to be edited if nobody called it yet, and
    /// finds out who calls whom.
    fn ready_for_edits(&mut self, chain: usize) -> Result<(), Error> {
        self.prepare();
        // A form that is compiled only later would not know of the edit.
        let mut forms: Vec<bool> =
            self.table.chains.iter().filter(|c| c.base.is_some()).map(is_raw).collect();
        forms.sort_unstable();
        forms.dedup();
        for raw in forms {
            if self.chains.compiled(chain, raw).is_none() {
                std::mem::swap(&mut self.sets.oracles, &mut self.chains.oracles);
                let result = self.whole_chain(chain, raw);
                std::mem::swap(&mut self.sets.oracles, &mut self.chains.oracles);
                result?;
            }
        }
        if self.chains.callers.is_none() {
            let mut callers = Callers::default();
            for (index, chain) in self.table.chains.iter().enumerate() {
                for (place, rule) in chain.rules.iter().enumerate() {
                    if let Some(id) = self.chains.first_id(index, place) {
                        callers.note(self.chains, rule, id);
                    }
                }
            }
            self.chains.callers = Some(callers);
        }
        Ok(())
    }

    /// Changes a chain, in each form that is compiled, and its callers after.
    fn edit(
        &mut self,
        chain: usize,
        mut change: impl FnMut(&mut Self, &mut Compiled, bool) -> Result<(), Error>,
    ) -> Result<(), Error> {
        std::mem::swap(&mut self.sets.oracles, &mut self.chains.oracles);
        let mut result = Ok(());
        for raw in [false, true] {
            if let Some(mut compiled) = self.chains.take(chain, raw) {
                if !compiled.edited {
                    let count = self.table.chains.get(chain).map_or(0, |c| c.rules.len());
                    compiled.ids =
                        (0..count).filter_map(|place| self.chains.first_id(chain, place)).collect();
                    compiled.edited = true;
                }
                result = change(self, &mut compiled, raw).and_then(|()| {
                    compiled.called = called(self, compiled.segments.value(), compiled.returns)?;
                    Ok(())
                });
                self.chains.put(chain, raw, compiled);
                result = result.and_then(|()| self.callers(chain, raw));
            }
            if result.is_err() {
                break;
            }
        }
        std::mem::swap(&mut self.sets.oracles, &mut self.chains.oracles);
        result
    }

    /// Brings the chains that call one up to date.
    fn callers(&mut self, callee: usize, raw: bool) -> Result<(), Error> {
        let calling = self.chains.callers.as_ref().map(|c| c.of(callee)).unwrap_or_default();
        let mut changed = Vec::new();
        for id in calling {
            let Some(index) = self.chains.owner(id) else { continue };
            let Some(context) = self.chains.compiled(index, raw).map(|c| c.context) else { continue };
            let part = self.rule_by_id(index, id, (raw, context))?;
            let Some(mut compiled) = self.chains.take(index, raw) else { continue };
            let place = match compiled.edited {
                true => compiled.ids.iter().position(|other| *other == id),
                false => self.chains.first_id(index, 0).map(|first| (id.0 - first.0) as usize),
            };
            if let Some(place) = place {
                let Compiler { sets, leaves, .. } = self;
                compiled.segments.replace(&mut sets.store, place, part, &mut |store, a, b| {
                    store.sequence(a, b, &mut |store, leaf, next| after(leaves, store, leaf, next))
                })?;
                let before = compiled.called;
                compiled.called = called(self, compiled.segments.value(), compiled.returns)?;
                if compiled.called != before && !changed.contains(&index) {
                    changed.push(index);
                }
            }
            self.chains.put(index, raw, compiled);
        }
        changed.into_iter().try_for_each(|index| self.callers(index, raw))
    }

    /// What a rule does, as a diagram: open leaves where it does not decide.
    /// `raw`: before connection tracking; `context`: what is known of packets
    /// that come to it.
    fn rule(
        &mut self,
        chain: &Chain,
        rule: &Rule,
        id: RuleId,
        (raw, context): (bool, u32),
    ) -> Result<Ref, Error> {
        if harmless(rule) {
            return Ok(Ref::NONE);
        }
        let hook = chain.base.map_or(Hook::Forward, |b| b.hook);
        let at = Site { host: self.host, table: self.table, hook, raw };
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

    fn end(&mut self, id: RuleId, end: End) -> Ref {
        self.leaves.leaf(Leaf { end, rule: Some(id), effects: Effects::default() })
    }

    fn effect(&mut self, effects: &Effects, then: Ref) -> Result<Ref, Error> {
        let Compiler { sets, leaves, .. } = self;
        after_effects(leaves, &mut sets.store, effects, then)
    }

    /// What a target does, before `then` where it decides nothing.
    fn target(
        &mut self,
        target: &Target,
        at: Site,
        (id, known): (RuleId, Known),
        then: Ref,
    ) -> Result<Ref, Error> {
        match target {
            Target::Verdict(verdict) => self.verdict(verdict, id, (at.raw, known), then),
            Target::VerdictMap { key, elements, name } => {
                let (found, unclear) = self.sets.verdicts(key, elements, name.as_deref(), at)?;
                // Elements of a map do not overlap.
                let mut parts = Vec::new();
                for (set, verdict) in &found {
                    let end = self.verdict(verdict, id, (at.raw, known), then)?;
                    parts.push(self.sets.store.guard(*set, end)?);
                }
                let mut result = self.sets.store.first_of(&parts)?;
                for (set, why) in unclear {
                    let open = self.any_verdict(elements, name.as_deref(), at, (id, known), then, &why)?;
                    result = self.sets.store.choose(set, open, result)?;
                }
                Ok(result)
            }
            Target::Reject(with) => {
                let end = self.end(id, End::Reject(*with));
                if at.table.xtables {
                    return Ok(end);
                }
                // `nft` adds a test for protocol or family, and does not list it.
                let implied = match with {
                    RejectWith::TcpReset => self.sets.store.value(Field::Protocol, 6)?,
                    RejectWith::Icmp(_) => self.sets.store.family(Family::Ipv4)?,
                    RejectWith::Icmp6(_) => self.sets.store.family(Family::Ipv6)?,
                    RejectWith::Icmpx(_) => Ref::ALL,
                };
                self.sets.store.guard(implied, end)
            }
            Target::Nat { kind, range } => self.nat(*kind, range, at, id, then),
            Target::Netmap(net) => {
                // Which end is rewritten is told by the hook.
                let action = NatAction {
                    kind: NatKind::Dnat,
                    addresses: None,
                    netmap: Some(*net),
                    ports: None,
                    base_port: None,
                    random: false,
                };
                Ok(self.end(id, End::Nat(action)))
            }
            Target::Mark(operation) => self.effect(&Effects::marking(*operation), then),
            Target::Connmark(operation) => {
                let effects = match operation {
                    crate::model::MarkOperation::SetXor { value, mask } => Effects {
                        connection_mark: Marking { keep: !mask, from: 0, flip: *value },
                        ..Effects::default()
                    },
                    other => Effects::marking(*other),
                };
                self.with_connection(&effects, then)
            }
            Target::Notrack { .. } => self.effect(&Effects { notrack: true, ..Effects::default() }, then),
            Target::CtZone { zone, direction } => {
                let zones = match direction {
                    None => (Some(*zone), Some(*zone)),
                    Some(crate::model::Direction::Original) => (Some(*zone), None),
                    Some(crate::model::Direction::Reply) => (None, Some(*zone)),
                };
                self.effect(&Effects { zones, ..Effects::default() }, then)
            }
            Target::Ttl(operation) | Target::HopLimit(operation) => {
                self.effect(&Effects { ttl: vec![*operation], ..Effects::default() }, then)
            }
            Target::Dscp(dscp) => self.effect(&Effects { tos: (3, dscp << 2), ..Effects::default() }, then),
            Target::Tos { value, mask } => {
                self.effect(&Effects { tos: (!mask, *value), ..Effects::default() }, then)
            }
            Target::Mangle(field, expression) => self.mangle(*field, expression, at, then),
            Target::Limit { over } => Ok(if *over { Ref::NONE } else { then }),
            Target::NoEffect { .. } => Ok(then),
            Target::Unmodelled { name, .. } => {
                let accepts = self.sets.unknown(format!("target {name}"))?;
                let drops = self.sets.unknown(format!("target {name}"))?;
                let (accept, drop) = (self.end(id, End::Accept), self.end(id, End::Drop));
                let rest = self.sets.store.choose(drops, drop, then)?;
                self.sets.store.choose(accepts, accept, rest)
            }
        }
    }

    /// A verdict map whose key is not known: any of its verdicts, or none.
    fn any_verdict(
        &mut self,
        elements: &[(crate::model::NftElement, Verdict)],
        name: Option<&str>,
        at: Site,
        (id, known): (RuleId, Known),
        then: Ref,
        why: &str,
    ) -> Result<Ref, Error> {
        let mut verdicts: Vec<Verdict> = match name.and_then(|n| at.table.set(n)) {
            Some(set) => set.verdicts.clone(),
            None => elements.iter().map(|(_, v)| v.clone()).collect(),
        };
        verdicts.sort();
        verdicts.dedup();
        let mut result = Ref::NONE;
        for verdict in verdicts {
            let is = self.sets.unknown(why)?;
            let end = self.verdict(&verdict, id, (at.raw, known), then)?;
            result = self.sets.store.choose(is, end, result)?;
        }
        Ok(result)
    }

    fn verdict(
        &mut self,
        verdict: &Verdict,
        id: RuleId,
        (raw, known): (bool, Known),
        then: Ref,
    ) -> Result<Ref, Error> {
        match verdict {
            Verdict::Accept => Ok(self.end(id, End::Accept)),
            Verdict::Drop => Ok(self.end(id, End::Drop)),
            Verdict::Return => {
                let leaf = Leaf { end: End::Return, rule: None, effects: Effects::default() };
                Ok(self.leaves.leaf(leaf))
            }
            Verdict::Continue => Ok(then),
            Verdict::Jump(name) => match self.chains.index(name) {
                Some(index) => self.chain(index, raw, known),
                None => Ok(Ref::NONE),
            },
            Verdict::Goto(name) => {
                let target = match self.chains.index(name) {
                    Some(index) => self.chain(index, raw, known)?,
                    None => Ref::NONE,
                };
                // What falls out of a chain gone to, leaves this one, too.
                let Compiler { sets, leaves, .. } = self;
                sets.store.map_leaves(target, &mut |leaf| match leaves.value(leaf).cloned() {
                    None => leaves.leaf(Leaf { end: End::Return, rule: None, effects: Effects::default() }),
                    Some(found) if found.end == End::Fall => leaves.leaf(Leaf { end: End::Return, ..found }),
                    Some(_) => Ref::leaf(leaf),
                })
            }
        }
    }

    /// An effect on the connection: nothing happens without one.
    fn with_connection(&mut self, effects: &Effects, then: Ref) -> Result<Ref, Error> {
        let changed = self.effect(effects, then)?;
        let place = Field::CtBits.bit(6);
        let known = self.sets.store.bit(place)?;
        self.sets.store.choose(known, changed, then)
    }

    fn mangle(
        &mut self,
        field: Mangle,
        expression: &crate::model::Expression,
        at: Site,
        then: Ref,
    ) -> Result<Ref, Error> {
        let mut result = Ref::NONE;
        for (set, value) in self.sets.worth(expression, at)? {
            let family = match field {
                Mangle::IpTtl | Mangle::IpDscp => Some(Family::Ipv4),
                Mangle::Ip6HopLimit | Mangle::Ip6Dscp => Some(Family::Ipv6),
                Mangle::Mark | Mangle::CtMark => None,
            };
            let set = match family {
                None => set,
                Some(family) => {
                    let family = self.sets.store.family(family)?;
                    self.sets.store.guard(set, family)?
                }
            };
            let effects = mangled(field, &value).unwrap_or_else(|| Effects {
                unclear: vec![format!("what is written to {field:?}")],
                ..Effects::default()
            });
            let changed = match field {
                Mangle::CtMark => self.with_connection(&effects, then)?,
                _ => self.effect(&effects, then)?,
            };
            let changed = self.sets.store.guard(set, changed)?;
            result = self.sets.store.or_else(result, changed)?;
        }
        Ok(result)
    }

    fn nat(
        &mut self,
        kind: NatKind,
        range: &crate::model::NatRange,
        at: Site,
        id: RuleId,
        then: Ref,
    ) -> Result<Ref, Error> {
        let action = |addresses| NatAction {
            kind,
            addresses,
            netmap: None,
            ports: range.ports,
            base_port: range.base_port,
            random: range.random || range.random_fully,
        };
        // An address of the other family does nothing.
        let fitting = |compiler: &mut Self, addresses: (IpAddr, IpAddr)| -> Result<Ref, Error> {
            let end = compiler.end(id, End::Nat(action(Some(addresses))));
            let family = compiler.sets.store.family(Family::of(addresses.0))?;
            compiler.sets.store.choose(family, end, then)
        };
        match &range.address {
            None => Ok(self.end(id, End::Nat(action(None)))),
            Some(NatAddress::Range(low, high)) => fitting(self, (*low, *high)),
            Some(NatAddress::Computed(expression)) => {
                let mut result = Ref::NONE;
                for (set, value) in self.sets.worth(expression, at)? {
                    for family in [Family::Ipv4, Family::Ipv6] {
                        let here = self.sets.store.family(family)?;
                        let here = self.sets.store.guard(set, here)?;
                        let end = match value.known() {
                            Some(n) => {
                                let address = match family {
                                    Family::Ipv4 => IpAddr::V4(Ipv4Addr::from_bits(n as u32)),
                                    Family::Ipv6 => IpAddr::V6(Ipv6Addr::from_bits(n)),
                                };
                                fitting(self, (address, address))?
                            }
                            None => {
                                let unclear = vec!["the address a NAT map gives".to_owned()];
                                let effects = Effects { unclear, ..Effects::default() };
                                let end = End::Nat(action(None));
                                self.leaves.leaf(Leaf { end, rule: Some(id), effects })
                            }
                        };
                        let end = self.sets.store.guard(here, end)?;
                        result = self.sets.store.or_else(result, end)?;
                    }
                }
                Ok(result)
            }
        }
    }
}

/// Whether a chain runs before connection tracking.
fn is_raw(chain: &Chain) -> bool {
    chain.base.is_some_and(|b| b.priority < CONNTRACK)
}

/// What a chain is to its callers: a return falls out of it.
fn called(compiler: &mut Compiler, whole: Ref, returns: bool) -> Result<Ref, Error> {
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

fn targets(rule: &Rule) -> impl Iterator<Item = &Target> {
    rule.statements.iter().filter_map(|s| match s {
        Statement::Target(target) => Some(target),
        Statement::Match(_) => None,
    })
}

fn may_return(rule: &Rule) -> bool {
    targets(rule)
        .any(|t| matches!(t, Target::Verdict(Verdict::Return | Verdict::Goto(_)) | Target::VerdictMap { .. }))
}

/// What writing a value does, if that can be told.
fn mangled(field: Mangle, value: &Computed) -> Option<Effects> {
    let none = Effects::default();
    let bits = match value {
        Computed::Bits(bits) => bits,
        _ => return None,
    };
    match field {
        Mangle::Mark | Mangle::CtMark => {
            let (own, other) = if field == Mangle::Mark {
                (Field::Mark, Field::CtMark)
            } else {
                (Field::CtMark, Field::Mark)
            };
            let mut marking = Marking { keep: 0, from: 0, flip: 0 };
            for (i, bit) in bits.iter().enumerate().take(32) {
                let one = 1_u32 << i;
                let (place, turned) = match bit {
                    Bit::Known(known) => {
                        marking.flip |= if *known { one } else { 0 };
                        continue;
                    }
                    Bit::Is(place) => (*place, false),
                    Bit::Not(place) => (*place, true),
                };
                match place {
                    p if p == own.bit(31 - i as u32) => marking.keep |= one,
                    p if p == other.bit(31 - i as u32) => marking.from |= one,
                    _ => return None,
                }
                marking.flip |= if turned { one } else { 0 };
            }
            Some(match field {
                Mangle::Mark => Effects { mark: marking, ..none },
                _ => Effects { connection_mark: marking, ..none },
            })
        }
        Mangle::IpTtl | Mangle::Ip6HopLimit => {
            Some(Effects { ttl: vec![TtlOperation::Set(value.known()? as u8)], ..none })
        }
        Mangle::IpDscp | Mangle::Ip6Dscp => Some(Effects { tos: (3, (value.known()? as u8) << 2), ..none }),
    }
}
