//! Running a hook on flows: everything that is registered there, in order.

use super::chain::End;
use super::effects::Tracking;
use super::engine::Symbolic;
use super::flow::{Ending, Flow, HookEnds, Tracked, Way};
use super::track::confirmed;
use crate::addr::Family;
use crate::model::{Chain, ChainKind, Decision, Hook, Host, Part, RejectWith, RuleRef, Stage, Table};
use crate::semantics::conntrack::Info;
use crate::semantics::hooks::{ambiguous, order, tied, Item};
use crate::space::{Error, Source};

/// A flow at a hook, with the way it is to leave by, where that is known.
pub(super) type Passing<'a> = (Flow, Option<Way<'a>>);

/// What is registered at a hook, by the places of tables and chains.
enum Registered {
    Track,
    Confirm,
    Chain(usize, usize),
    Nat(Vec<(usize, usize)>),
}

fn place(host: &Host, table: &Table, chain: &Chain) -> Option<(usize, usize)> {
    let table = host.ruleset.tables.iter().position(|t| std::ptr::eq(t, table))?;
    let chain = host.ruleset.tables.get(table)?.chains.iter().position(|c| std::ptr::eq(c, chain))?;
    Some((table, chain))
}

impl<'a> Symbolic<'a> {
    /// Runs a hook. Gives the flows that pass; the others have ended.
    pub(super) fn hook(
        &mut self,
        host: &'a Host,
        hook: Hook,
        ends: HookEnds,
        flow: Flow,
        way: Option<Way<'a>>,
    ) -> Result<Vec<Passing<'a>>, Error> {
        let Some(family) = flow.family(&self.sets.store) else { return Ok(Vec::new()) };
        let part = match family {
            Family::Ipv4 => Part::Firewall4,
            Family::Ipv6 => Part::Firewall6,
        };
        let flow = if host.unknown.contains(&part) {
            flow.claimless(&[format!("{}: the {part} is not in the snapshot", host.name)])
        } else {
            flow
        };
        let flow = match tied(host, hook, family) {
            Some(either) => flow.claimless(&[format!("{}: which runs first, {either}", host.name)]),
            None => flow,
        };
        let orders: Vec<bool> = if ambiguous(host, hook, family) { vec![true, false] } else { vec![true] };
        let why = format!("{}: whether iptables-legacy or nft was registered first", host.name);
        let mut passed = Vec::new();
        for (legacy_first, flow) in Self::suppose(&flow, orders, &why) {
            let items: Vec<Registered> = order(host, hook, family, ends.output, legacy_first)
                .into_iter()
                .filter_map(|item| match item {
                    Item::Track => Some(Registered::Track),
                    Item::Confirm => Some(Registered::Confirm),
                    Item::Chain(table, chain) => {
                        place(host, table, chain).map(|(t, c)| Registered::Chain(t, c))
                    }
                    Item::Nat(chains) => {
                        Some(Registered::Nat(chains.iter().filter_map(|(t, c)| place(host, t, c)).collect()))
                    }
                })
                .collect();
            let mut flows = vec![(flow, way)];
            for item in &items {
                let mut next = Vec::new();
                for (flow, way) in flows {
                    match item {
                        Registered::Track
                            if flow
                                .family(&self.sets.store)
                                .is_some_and(|family| !self.tracks(host, family)) =>
                        {
                            next.push((flow, way));
                        }
                        Registered::Track => {
                            next.extend(self.track(host, flow)?.into_iter().map(|f| (f, way)));
                        }
                        Registered::Confirm => next.push((confirmed(host, flow), way)),
                        Registered::Chain(table, chain) => {
                            self.filter(host, hook, ends, (flow, way), (*table, *chain), &mut next)?;
                        }
                        Registered::Nat(chains) => {
                            self.nat(host, hook, ends, (flow, way), chains, &mut next)?;
                        }
                    }
                }
                flows = next;
            }
            passed.extend(flows);
        }
        Ok(passed)
    }

    /// The parts of a flow by what a base chain does to them.
    pub(super) fn run(
        &mut self,
        host: &'a Host,
        ends: HookEnds,
        flow: &Flow,
        (table, chain): (usize, usize),
    ) -> Result<Vec<(End, Option<RuleRef>, Flow)>, Error> {
        let base = self.base(host, table, chain)?;
        let Some(model) = host.ruleset.tables.get(table).and_then(|t| t.chains.get(chain)) else {
            return Ok(Vec::new());
        };
        let names = &mut self.sets.names;
        let hook = model.base.map_or(Hook::Forward, |b| b.hook);
        let mapping = flow.mapping_at(host, &mut |n| names.number(n), hook, ends);
        self.watch(host, (table, chain), flow, &mapping, base.whole)?;
        let parts = self.split(flow, base.verdicts, &mapping, &|s, told| s.doubts(host, table, told))?;
        let mut done = Vec::new();
        for (leaf, mut part) in parts {
            let Some(leaf) = self.leaves.value(leaf).cloned() else { continue };
            let rule = leaf.rule.and_then(|id| self.rule_ref(host, table, model, id));
            let effects = &leaf.effects;
            let old = part.connection(&host.name).map_or(0, |c| c.mark);
            let (mark, connection_mark) = effects.marks(part.now.mark, old);
            part.now.mark = mark;
            if let Some(connection) = part.connection_mut(&host.name) {
                connection.mark = connection_mark;
            }
            part.now.ttl = effects.ttl(part.now.ttl);
            let tracking = match (&part.tracked, part.info) {
                (Tracked::None, Info::Invalid) => effects.fresh,
                (Tracked::None, Info::Untracked) => effects.untracked,
                _ => Tracking::Kept,
            };
            match tracking {
                Tracking::Kept => {}
                Tracking::Untracked => part.info = Info::Untracked,
                Tracking::Zones(original, reply) => {
                    (part.info, part.zones) = (Info::Template, (original, reply));
                }
            }
            if !effects.unclear.is_empty() {
                let why: Vec<String> =
                    effects.unclear.iter().map(|w| format!("{}: {w}", host.name)).collect();
                part = part.claimless(&why);
            }
            for part in self.overwritten(part, effects.tos)? {
                done.push((leaf.end.clone(), rule.clone(), part));
            }
        }
        Ok(done)
    }

    /// Gives packets the type of service `(tos & keep) ^ flip`. A bit that is
    /// turned round is known in each part.
    fn overwritten(&mut self, flow: Flow, (keep, flip): (u8, u8)) -> Result<Vec<Flow>, Error> {
        let mut parts = vec![flow];
        for bit in (0..8_u8).filter(|bit| (keep & flip) >> bit & 1 == 1) {
            let one = 1_u128 << bit;
            let mut next = Vec::new();
            for part in parts {
                let tos = part.now.tos;
                if tos.mask & one != 0 {
                    next.push(part);
                    continue;
                }
                let store = &mut self.sets.store;
                let is = store.bit(tos.field.bit(7 - u32::from(bit)))?;
                for (set, value) in [(store.guard(is, part.set)?, one), (store.without(part.set, is)?, 0)] {
                    if !set.is_none() {
                        let mut part = part.part(set);
                        let value = (tos.value & !one) + value;
                        part.now.tos = Source { mask: tos.mask | one, value, ..tos };
                        next.push(part);
                    }
                }
            }
            parts = next;
        }
        let (keep, flip) = (u128::from(keep), u128::from(flip));
        for part in &mut parts {
            let tos = &mut part.now.tos;
            let mask = tos.mask | u128::from(u8::MAX) & !keep;
            *tos = Source { mask, value: ((tos.value & tos.mask & keep) ^ flip) & mask, ..*tos };
        }
        Ok(parts)
    }

    fn filter(
        &mut self,
        host: &'a Host,
        hook: Hook,
        ends: HookEnds,
        (flow, way): Passing<'a>,
        at: (usize, usize),
        next: &mut Vec<Passing<'a>>,
    ) -> Result<(), Error> {
        let kind = host.ruleset.tables.get(at.0).and_then(|t| t.chains.get(at.1)).and_then(|c| c.base);
        let routes = hook == Hook::Output && kind.is_some_and(|b| b.kind == ChainKind::Route);
        let (mark, tos) = (flow.now.mark, flow.now.tos);
        // Only IPv6 counts its hop limit (ip6t_mangle_out, nf_route_table_hook6).
        let v6 = flow.family(&self.sets.store) == Some(Family::Ipv6);
        let ttl = flow.now.ttl;
        for (end, rule, part) in self.run(host, ends, &flow, at)? {
            match end {
                End::Accept | End::Nat(_) | End::Fall | End::Return => {
                    let now = part.now.tos;
                    let same = part.now.mark == mark && (!v6 || part.now.ttl == ttl);
                    let (kept, changed) = match (routes, same) {
                        (false, _) => (Some(part), None),
                        (true, true) => self.by_change(part, tos, now)?,
                        (true, false) => (None, Some(part)),
                    };
                    next.extend(kept.map(|part| (part, way)));
                    if let Some(part) = changed {
                        self.reroute(host, part, way, next)?;
                    }
                }
                stop => self.stopped(host, part, &stop, rule),
            }
        }
        Ok(())
    }

    pub(super) fn stopped(&mut self, host: &Host, flow: Flow, end: &End, rule: Option<RuleRef>) {
        let Some(rule) = rule else { return self.dropped(flow, &host.name, Stage::Silent) };
        let by = Decision::Rule(rule);
        match end {
            // A reset answers no reset, and nothing but TCP; whether an answer
            // is sent is not asked here.
            End::Reject(
                RejectWith::TcpReset | RejectWith::Icmp(_) | RejectWith::Icmp6(_) | RejectWith::Icmpx(_),
            ) => {
                self.end(flow, Ending::Rejected(by));
            }
            _ => self.end(flow, Ending::Dropped(by)),
        }
    }
}
