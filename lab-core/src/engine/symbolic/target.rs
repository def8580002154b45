//! What targets do, as diagrams.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::chain::{End, Leaf, NatAction, RuleId};
use super::compile::{after_effects, Compiler, Known};
use super::effects::{Effects, Marking, Tracking};
use crate::addr::Family;
use crate::model::{Mangle, NatAddress, NatKind, RejectWith, Target, TtlOperation, Verdict};
use crate::semantics::conntrack::{zones, TEMPLATE_MARK};
use crate::semantics::sets::{Bit, Computed, Site};
use crate::space::{ct, tracking, Error, Field, Ref};

impl Compiler<'_, '_> {
    fn end(&mut self, id: RuleId, end: End) -> Ref {
        self.leaves.leaf(Leaf { end, rule: Some(id), effects: Effects::default() })
    }

    fn effect(&mut self, effects: &Effects, then: Ref) -> Result<Ref, Error> {
        let Compiler { sets, leaves, .. } = self;
        after_effects(leaves, &mut sets.store, effects, then)
    }

    /// What a target does, before `then` where it decides nothing.
    pub(super) fn target(
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
                let then = if at.raw { self.with_template(&effects, then)? } else { then };
                self.with_connection(&effects, then)
            }
            Target::Notrack { .. } => {
                self.effect(&Effects { fresh: Tracking::Untracked, ..Effects::default() }, then)
            }
            Target::CtZone { zone, direction } => {
                let (original, reply) = zones(*zone, *direction);
                let fresh = Tracking::Zones(original, reply);
                let untracked = if at.table.xtables { Tracking::Kept } else { fresh };
                self.effect(&Effects { fresh, untracked, ..Effects::default() }, then)
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
                let any = self.sets.store.choose(accepts, accept, rest)?;
                // It may write whatever it likes into the packet.
                let unclear = vec![format!("target {name}")];
                self.effect(&Effects { unclear, ..Effects::default() }, any)
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

    /// An effect on a template: its mark is read as 0. What is written stays
    /// with the rule that made it, for packets to come.
    fn with_template(&mut self, effects: &Effects, then: Ref) -> Result<Ref, Error> {
        let mut effects = effects.clone();
        if effects.connection_mark != Marking::KEPT {
            effects.connection_mark = Marking::KEPT;
            effects.unclear.push(TEMPLATE_MARK.into());
        }
        let changed = self.effect(&effects, then)?;
        let template = self.sets.store.value(Field::Tracking, tracking::TEMPLATE.into())?;
        self.sets.store.choose(template, changed, then)
    }

    /// An effect on the connection: nothing happens without one.
    fn with_connection(&mut self, effects: &Effects, then: Ref) -> Result<Ref, Error> {
        let changed = self.effect(effects, then)?;
        let place = ct::place(ct::KNOWN);
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
