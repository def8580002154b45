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
    Chain, Hook, Host, Mangle, NatAddress, NatKind, Policy, RejectWith, Rule, Statement, Table, Target,
    TtlOperation, Verdict,
};
use crate::semantics::hooks::CONNTRACK;
use crate::semantics::sets::{Bit, Computed, Leaves, Sets, Site};
use crate::space::{Error, Field, Ref, Segments, OPEN};

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
    /// The ids of its rules, in order.
    ids: Vec<RuleId>,
    /// Whether a rule may end it by a return.
    returns: bool,
    /// What callers see: returns have become falls.
    called: Ref,
}

/// The diagrams of a table's chains.
#[derive(Debug, Default)]
pub struct TableChains {
    chains: HashMap<(usize, bool), Compiled>,
    names: HashMap<String, usize>,
    /// Why each oracle of these diagrams is one.
    pub oracles: Vec<String>,
    /// For each chain the ids of its rules at first; later ones are appended.
    first_ids: Vec<u32>,
    next_id: u32,
    /// Which chain each id is of.
    owners: HashMap<RuleId, usize>,
    /// The chains that are being compiled, the innermost last.
    open: Vec<usize>,
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
    let Some(Leaf { effects, .. }) = leaves.value(leaf).cloned() else { return Ok(next) };
    after_effects(leaves, sets, &effects, next)
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
            let found = leaves.value(leaf).cloned();
            let found = found.unwrap_or(Leaf { end: End::Fall, rule: None, effects: Effects::default() });
            let effects = effects.then(&found.effects);
            leaves.leaf(Leaf { effects, ..found })
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
    /// The chain of that name, by its index in the table.
    fn index(&self, name: &str) -> Option<usize> {
        self.names.get(name).copied()
    }

    /// The id of a rule that stands at a place (from 0) of a chain.
    pub fn id(&self, chain: usize, place: usize) -> Option<RuleId> {
        let compiled = self.chains.get(&(chain, false)).or_else(|| self.chains.get(&(chain, true)));
        match compiled {
            Some(compiled) => compiled.ids.get(place).copied(),
            None => self.first_ids.get(chain).map(|first| RuleId(first + 1 + place as u32)),
        }
    }

    /// Where a rule stands: its chain, and its number from 1; none for the
    /// policy.
    pub fn place(&self, id: RuleId) -> Option<(usize, Option<usize>)> {
        let chain = match self.owners.get(&id) {
            Some(chain) => *chain,
            None => self.first_ids.partition_point(|first| *first <= id.0).checked_sub(1)?,
        };
        if self.first_ids.get(chain) == Some(&id.0) {
            return Some((chain, None));
        }
        let compiled = self.chains.get(&(chain, false)).or_else(|| self.chains.get(&(chain, true)));
        let place = compiled?.ids.iter().position(|other| *other == id)?;
        Some((chain, Some(place + 1)))
    }

    /// Every diagram held, for [`crate::space::Store::collect`].
    pub fn roots(&mut self) -> impl Iterator<Item = &mut Ref> {
        self.chains.values_mut().flat_map(|c| c.segments.roots().chain(std::iter::once(&mut c.called)))
    }
}

impl<'a> Compiler<'a, '_> {
    fn prepare(&mut self) {
        if self.chains.first_ids.len() == self.table.chains.len() {
            return;
        }
        self.chains.names =
            self.table.chains.iter().enumerate().map(|(i, c)| (c.name.to_string(), i)).collect();
        let mut next = 0;
        self.chains.first_ids = self
            .table
            .chains
            .iter()
            .map(|chain| {
                let first = next;
                next += 1 + chain.rules.len() as u32;
                first
            })
            .collect();
        self.chains.next_id = next;
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

    /// A base chain as a diagram whose undecided leaves mean its policy; an
    /// edit of a chain below changes little of it.
    ///
    /// # Errors
    /// If the store's budget is used up.
    pub fn undecided(&mut self, index: usize) -> Result<Ref, Error> {
        self.prepare();
        let raw =
            self.table.chains.get(index).is_some_and(|c| c.base.is_some_and(|b| b.priority < CONNTRACK));
        std::mem::swap(&mut self.sets.oracles, &mut self.chains.oracles);
        let result = self.chain(index, raw);
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
    fn chain(&mut self, index: usize, raw: bool) -> Result<Ref, Error> {
        if let Some(known) = self.chains.chains.get(&(index, raw)) {
            return Ok(known.called);
        }
        // No kernel loads a chain that comes back to itself.
        if self.chains.open.contains(&index) || self.chains.open.len() > CALLS {
            return Err(Error::Depth);
        }
        self.chains.open.push(index);
        let result = self.compiled(index, raw);
        self.chains.open.pop();
        result
    }

    fn compiled(&mut self, index: usize, raw: bool) -> Result<Ref, Error> {
        let table = self.table;
        let Some(chain) = table.chains.get(index) else { return Ok(Ref::NONE) };
        let first = self.chains.first_ids.get(index).copied().unwrap_or(0);
        let mut parts = Vec::with_capacity(chain.rules.len());
        let mut ids = Vec::with_capacity(chain.rules.len());
        let mut returns = false;
        for (place, rule) in chain.rules.iter().enumerate() {
            let id = RuleId(first + 1 + place as u32);
            parts.push(self.rule(chain, rule, id, raw)?);
            ids.push(id);
            returns |= may_return(rule);
        }
        let Compiler { sets, leaves, .. } = self;
        let segments = Segments::build(&mut sets.store, &parts, &mut |store, a, b| {
            store.sequence(a, b, &mut |store, leaf, next| after(leaves, store, leaf, next))
        })?;
        let called = called(self, segments.value(), returns)?;
        self.chains.chains.insert((index, raw), Compiled { segments, ids, returns, called });
        Ok(called)
    }

    /// Puts a rule into a chain before the one at `place` (from 0), and brings
    /// the chains that call it up to date.
    ///
    /// # Errors
    /// If the store's budget is used up.
    pub fn insert(&mut self, chain: usize, place: usize, rule: &Rule) -> Result<RuleId, Error> {
        self.prepare();
        let id = RuleId(self.chains.next_id);
        self.chains.next_id += 1;
        self.chains.owners.insert(id, chain);
        self.edit(chain, |compiler, compiled, raw| {
            let model = compiler.table.chains.get(chain);
            let Some(model) = model else { return Ok(()) };
            let part = compiler.rule(model, rule, id, raw)?;
            let Compiler { sets, leaves, .. } = compiler;
            let place = place.min(compiled.ids.len());
            compiled.segments.insert(&mut sets.store, place, part, &mut |store, a, b| {
                store.sequence(a, b, &mut |store, leaf, next| after(leaves, store, leaf, next))
            })?;
            compiled.ids.insert(place, id);
            compiled.returns |= may_return(rule);
            Ok(())
        })?;
        Ok(id)
    }

    /// Takes the rule at `place` (from 0) out of a chain.
    ///
    /// # Errors
    /// If the store's budget is used up.
    pub fn remove(&mut self, chain: usize, place: usize) -> Result<(), Error> {
        self.prepare();
        self.edit(chain, |compiler, compiled, _| {
            if place < compiled.ids.len() {
                let Compiler { sets, leaves, .. } = compiler;
                compiled.segments.remove(&mut sets.store, place, &mut |store, a, b| {
                    store.sequence(a, b, &mut |store, leaf, next| after(leaves, store, leaf, next))
                })?;
                let id = compiled.ids.remove(place);
                compiler.chains.owners.remove(&id);
            }
            Ok(())
        })
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
            if let Some(mut compiled) = self.chains.chains.remove(&(chain, raw)) {
                result = change(self, &mut compiled, raw).and_then(|()| {
                    compiled.called = called(self, compiled.segments.value(), compiled.returns)?;
                    Ok(())
                });
                self.chains.chains.insert((chain, raw), compiled);
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
        let table = self.table;
        let Some(name) = table.chains.get(callee).map(|c| c.name.to_string()) else { return Ok(()) };
        for (index, chain) in table.chains.iter().enumerate() {
            let calls: Vec<usize> = chain
                .rules
                .iter()
                .enumerate()
                .filter(|(_, rule)| calls(rule, &name))
                .map(|(place, _)| place)
                .collect();
            if calls.is_empty() || !self.chains.chains.contains_key(&(index, raw)) {
                continue;
            }
            let first = self.chains.first_ids.get(index).copied().unwrap_or(0);
            for place in calls {
                let id = RuleId(first + 1 + place as u32);
                let Some(rule) = chain.rules.get(place) else { continue };
                let part = self.rule(chain, rule, id, raw)?;
                let Some(mut compiled) = self.chains.chains.remove(&(index, raw)) else { continue };
                if let Some(now) = compiled.ids.iter().position(|other| *other == id) {
                    let Compiler { sets, leaves, .. } = self;
                    compiled.segments.replace(&mut sets.store, now, part, &mut |store, a, b| {
                        store.sequence(a, b, &mut |store, leaf, next| after(leaves, store, leaf, next))
                    })?;
                    compiled.called = called(self, compiled.segments.value(), compiled.returns)?;
                }
                self.chains.chains.insert((index, raw), compiled);
            }
            self.callers(index, raw)?;
        }
        Ok(())
    }

    /// What a rule does, as a diagram: open leaves where it does not decide.
    fn rule(&mut self, chain: &Chain, rule: &Rule, id: RuleId, raw: bool) -> Result<Ref, Error> {
        if harmless(rule) {
            return Ok(Ref::NONE);
        }
        let hook = chain.base.map_or(Hook::Forward, |b| b.hook);
        let at = Site { host: self.host, table: self.table, hook, raw };
        let known = self.sets.oracles.len();
        let mut result = Ref::NONE;
        let mut conditions: Vec<Ref> = Vec::new();
        for statement in rule.statements.iter().rev() {
            match statement {
                Statement::Match(condition) => conditions.push(self.sets.condition(condition, at)?),
                Statement::Target(target) => {
                    // Conditions after this target hold for what follows it.
                    result = self.guarded(&mut conditions, result)?;
                    result = self.target(target, at, id, result)?;
                }
            }
        }
        result = self.guarded(&mut conditions, result)?;
        for why in &mut self.sets.oracles[known..] {
            if !why.starts_with('`') {
                *why = format!("`{}`: {why}", rule.text);
            }
        }
        Ok(result)
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
    fn target(&mut self, target: &Target, at: Site, id: RuleId, then: Ref) -> Result<Ref, Error> {
        match target {
            Target::Verdict(verdict) => self.verdict(verdict, id, at.raw, then),
            Target::VerdictMap { key, elements, name } => {
                let (found, unclear) = self.sets.verdicts(key, elements, name.as_deref(), at)?;
                // Elements of a map do not overlap.
                let mut parts = Vec::new();
                for (set, verdict) in &found {
                    let end = self.verdict(verdict, id, at.raw, then)?;
                    parts.push(self.sets.store.guard(*set, end)?);
                }
                let mut result = self.sets.store.first_of(&parts)?;
                for (set, why) in unclear {
                    let open = self.any_verdict(elements, name.as_deref(), at, id, then, &why)?;
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
        id: RuleId,
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
            let end = self.verdict(&verdict, id, at.raw, then)?;
            result = self.sets.store.choose(is, end, result)?;
        }
        Ok(result)
    }

    fn verdict(&mut self, verdict: &Verdict, id: RuleId, raw: bool, then: Ref) -> Result<Ref, Error> {
        match verdict {
            Verdict::Accept => Ok(self.end(id, End::Accept)),
            Verdict::Drop => Ok(self.end(id, End::Drop)),
            Verdict::Return => {
                let leaf = Leaf { end: End::Return, rule: None, effects: Effects::default() };
                Ok(self.leaves.leaf(leaf))
            }
            Verdict::Continue => Ok(then),
            Verdict::Jump(name) => match self.chains.index(name) {
                Some(index) => self.chain(index, raw),
                None => Ok(Ref::NONE),
            },
            Verdict::Goto(name) => {
                let target = match self.chains.index(name) {
                    Some(index) => self.chain(index, raw)?,
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

fn targets<'r>(rule: &'r Rule) -> impl Iterator<Item = &'r Target> {
    rule.statements.iter().filter_map(|s| match s {
        Statement::Target(target) => Some(target),
        Statement::Match(_) => None,
    })
}

fn may_return(rule: &Rule) -> bool {
    targets(rule)
        .any(|t| matches!(t, Target::Verdict(Verdict::Return | Verdict::Goto(_)) | Target::VerdictMap { .. }))
}

fn calls(rule: &Rule, name: &str) -> bool {
    targets(rule).any(|t| match t {
        Target::Verdict(Verdict::Jump(other) | Verdict::Goto(other)) => **other == *name,
        // Which chains a map names need not be asked: it is compiled anew.
        Target::VerdictMap { .. } => true,
        _ => false,
    })
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
