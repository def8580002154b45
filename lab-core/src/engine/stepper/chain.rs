//! Running one base chain (`ipt_do_table`, `nft_do_chain`).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::hook::Ends;
use super::skb::{Skb, Tracked};
use super::Walk;
use crate::addr::Family;
use crate::engine::journey::{ChainRun, Event, RuleStep};
use crate::model::{
    Chain, Hook, Host, Mangle, MarkOperation, Match, NatAddress, NatKind, NatRange, Policy, RejectWith, Rule,
    RuleRef, Scope, Statement, Table, Target, TtlOperation, Verdict,
};
use crate::semantics::conntrack::{self, Info, TEMPLATE_MARK};
use crate::semantics::matches::holds;
use crate::semantics::nat::{self, redirect_to, End, Mapping};
use crate::semantics::nftexpr::{self, Value};
use crate::semantics::{source, Context, Tri};

/// Where rules are run: a table at a hook of a host.
#[derive(Clone, Copy)]
struct Site<'a, 's> {
    host: &'a Host,
    hook: Hook,
    ends: Ends<'s>,
    table: &'a Table,
}

/// How a base chain ended.
#[derive(Clone, Debug)]
pub(super) enum ChainEnd {
    Accept,
    Drop(Box<RuleRef>),
    Reject(Box<RuleRef>, RejectWith),
}

/// What a rule's statements came to.
enum RuleEnd {
    /// A condition did not hold.
    NoMatch,
    /// All did, and nothing was decided.
    Continue(String),
    Verdict(Verdict),
    Reject(RejectWith),
}

/// The most jumps in one run of a base chain. Readers refuse jump cycles; this
/// bounds chains that fan out, where each of n chains jumps twice to the next.
const JUMPS: usize = 100_000;

impl<'a> Walk<'a, '_> {
    /// Runs a base chain on a packet, and applies what its rules change.
    pub(super) fn chain(
        &mut self,
        host: &'a Host,
        hook: Hook,
        ends: Ends,
        skb: &mut Skb,
        table: &'a Table,
        base: &'a Chain,
    ) -> ChainEnd {
        let mut steps = Vec::new();
        let end = self.rules(Site { host, hook, ends, table }, skb, base, &mut steps);
        self.events.push(Event::Chain(ChainRun {
            host: host.name.clone(),
            hook,
            backend: table.backend,
            family: table.family,
            table: table.name.clone(),
            base: base.name.clone(),
            steps,
            passed: matches!(end, ChainEnd::Accept),
            outer: !self.tunnels.is_empty(),
        }));
        end
    }

    fn rules(
        &mut self,
        at: Site<'a, '_>,
        skb: &mut Skb,
        base: &'a Chain,
        steps: &mut Vec<RuleStep>,
    ) -> ChainEnd {
        let Site { host, table, .. } = at;
        let named = |chain, rule| Box::new(RuleRef::of(host, table, base, chain, rule));
        let mut stack: Vec<(&Chain, usize)> = vec![(base, 0)];
        let mut jumps = 0;
        while let Some((chain, next)) = stack.last().copied() {
            if jumps > JUMPS {
                self.unknown.push(format!("{}: more than {JUMPS} jumps in {}", host.name, base.name));
                break;
            }
            let Some(rule) = chain.rules.get(next) else {
                stack.pop();
                continue;
            };
            if let Some(top) = stack.last_mut() {
                top.1 += 1;
            }
            let number = next + 1;
            let ended = self.rule(at, skb, rule);
            let mut note = |effect: String| {
                steps.push(RuleStep {
                    chain: chain.name.clone(),
                    rule: Some(number),
                    text: rule.text.clone(),
                    effect,
                });
            };
            match ended {
                RuleEnd::NoMatch => {}
                RuleEnd::Continue(effect) => note(effect),
                RuleEnd::Reject(with) => {
                    note("REJECT".into());
                    return ChainEnd::Reject(named(chain, Some(number)), with);
                }
                RuleEnd::Verdict(verdict) => match verdict {
                    Verdict::Continue => note("continue".into()),
                    Verdict::Accept => {
                        note("ACCEPT".into());
                        return ChainEnd::Accept;
                    }
                    Verdict::Drop => {
                        note("DROP".into());
                        return ChainEnd::Drop(named(chain, Some(number)));
                    }
                    Verdict::Return => {
                        note("RETURN".into());
                        stack.pop();
                    }
                    Verdict::Jump(name) => {
                        jumps += 1;
                        note(format!("jump {name}"));
                        stack.extend(table.chain(&name).map(|target| (target, 0)));
                    }
                    Verdict::Goto(name) => {
                        jumps += 1;
                        note(format!("goto {name}"));
                        stack.pop();
                        stack.extend(table.chain(&name).map(|target| (target, 0)));
                    }
                },
            }
        }
        let policy = base.base.map_or(Policy::Accept, |b| b.policy);
        let effect = if policy == Policy::Accept { "ACCEPT" } else { "DROP" };
        steps.push(RuleStep {
            chain: base.name.clone(),
            rule: None,
            text: format!("policy {effect}").into(),
            effect: effect.into(),
        });
        match policy {
            Policy::Accept => ChainEnd::Accept,
            Policy::Drop => ChainEnd::Drop(named(base, None)),
        }
    }

    /// The rule that the last base chain stopped at.
    pub(super) fn last_rule(&self, host: &Host, table: &Table, base: &Chain) -> Option<RuleRef> {
        let Some(Event::Chain(run)) = self.events.last() else { return None };
        let step = run.steps.last()?;
        Some(RuleRef::of(host, table, base, table.chain(&step.chain)?, Some(step.rule?)))
    }

    fn rule(&mut self, at: Site<'a, '_>, skb: &mut Skb, rule: &'a Rule) -> RuleEnd {
        let mut effects = Vec::new();
        for statement in &rule.statements {
            match statement {
                Statement::Match(condition) => match self.condition(at, skb, rule, condition) {
                    true => {}
                    false => return RuleEnd::NoMatch,
                },
                Statement::Target(target) => match self.target(at, skb, rule, target) {
                    RuleEnd::Continue(effect) => {
                        if !effect.is_empty() {
                            effects.push(effect);
                        }
                    }
                    end => return end,
                },
            }
        }
        RuleEnd::Continue(if effects.is_empty() { "continue".into() } else { effects.join(", ") })
    }

    fn context<'s>(&'s mut self, at: Site<'s, 's>, skb: &'s Skb) -> Context<'s> {
        let Site { host, hook, ends, table } = at;
        let bridged = skb.bridged.as_ref();
        Context {
            host,
            hook,
            packet: &skb.packet,
            input: ends.input,
            output: ends.output,
            phys_input: bridged.map(|b| b.input.as_str()),
            phys_output: bridged.and_then(|b| b.output.as_deref()),
            source_mac: skb.source_mac,
            destination_mac: skb.destination_mac,
            packet_type: skb.packet_type,
            info: skb.info,
            connection: self.connection(host, skb),
            table,
        }
    }

    fn condition(&mut self, at: Site<'a, '_>, skb: &Skb, rule: &Rule, condition: &Match) -> bool {
        let Site { host, table, .. } = at;
        let truth = holds(condition, &self.context(at, skb));
        if matches!(condition, Match::Limit { .. } | Match::Hashlimit { .. }) {
            self.assume(format!("{} `{}`: within its rate, a lone packet", host.name, rule.text));
        }
        match truth {
            Tri::Yes => true,
            Tri::No => false,
            Tri::Unknown(_) if harmless(rule) => false,
            Tri::Unknown(why) => {
                let why = format!("{}, {} `{}`: {why}", host.name, table.name, rule.text);
                self.choices.pick(2, &why) == 0
            }
        }
    }

    fn target(&mut self, at: Site<'a, '_>, skb: &mut Skb, rule: &Rule, target: &Target) -> RuleEnd {
        let Site { host, hook, table, .. } = at;
        let next = |effect: String| RuleEnd::Continue(effect);
        match target {
            Target::Verdict(verdict) => RuleEnd::Verdict(verdict.clone()),
            Target::VerdictMap { key, elements, name } => {
                let found = {
                    let at = self.context(at, skb);
                    nftexpr::verdict(key, elements, name.as_deref(), &at)
                };
                match found {
                    Ok(None) => RuleEnd::NoMatch,
                    Ok(Some(verdict)) => RuleEnd::Verdict(verdict),
                    Err(why) => self.unknown_map(host, table, rule, elements, name.as_deref(), &why),
                }
            }
            Target::Reject(with) if table.xtables || implied(*with, skb) => RuleEnd::Reject(*with),
            Target::Reject(_) => RuleEnd::NoMatch,
            Target::Nat { kind, range } => self.nat_target(at, skb, *kind, range),
            Target::Netmap(net) => {
                let end = if matches!(hook, Hook::Prerouting | Hook::Output) {
                    End::Destination
                } else {
                    End::Source
                };
                let old = if end == End::Destination { skb.packet.dst } else { skb.packet.src };
                let mapping = Mapping { address: Some(netmap(*net, old)), ..Mapping::default() };
                self.settle(host, skb, end, mapping);
                RuleEnd::Verdict(Verdict::Accept)
            }
            Target::Mark(operation) => {
                let connection_mark = self.connection(host, skb).map_or(0, |c| c.mark);
                let mark = operate(*operation, skb.packet.mark, connection_mark).0;
                skb.packet.mark = mark;
                next(format!("mark {mark:#x}"))
            }
            Target::Connmark(operation) => {
                let template = (skb.info == Info::Template).then_some(0);
                let Some(old) = self.connection(host, skb).map(|c| c.mark).or(template) else {
                    return next(String::new());
                };
                let (mark, connection_mark) = match operation {
                    MarkOperation::SetXor { value, mask } => (skb.packet.mark, (old & !mask) ^ value),
                    other => operate(*other, skb.packet.mark, old),
                };
                skb.packet.mark = mark;
                let restores = matches!(operation, MarkOperation::Restore { .. });
                if skb.info == Info::Template && !restores {
                    self.unknown.push(format!("{}: {TEMPLATE_MARK}", host.name));
                }
                self.set_connection_mark(host, skb, connection_mark);
                next(format!("mark {mark:#x}, connection mark {connection_mark:#x}"))
            }
            Target::Notrack { .. } => {
                skb.untrack();
                next("not tracked".into())
            }
            Target::CtZone { zone, direction } => {
                skb.give_zones(conntrack::zones(*zone, *direction), !table.xtables);
                next(format!("zone {zone}"))
            }
            Target::Ttl(operation) | Target::HopLimit(operation) => {
                let ttl = &mut skb.packet.ttl;
                *ttl = match operation {
                    TtlOperation::Set(value) => *value,
                    TtlOperation::Increment(by) => ttl.saturating_add(*by),
                    TtlOperation::Decrement(by) => ttl.saturating_sub(*by),
                };
                next(format!("ttl {ttl}"))
            }
            Target::Dscp(dscp) => {
                skb.packet.tos = (skb.packet.tos & 3) + (dscp << 2);
                next(format!("dscp {dscp:#04x}"))
            }
            Target::Tos { value, mask } => {
                skb.packet.tos = (skb.packet.tos & !mask) ^ value;
                next(format!("tos {:#04x}", skb.packet.tos))
            }
            Target::Mangle(field, expression) => {
                let value = nftexpr::value(expression, &self.context(at, skb));
                self.mangle(host, skb, rule, *field, value)
            }
            Target::Limit { over } => {
                self.assume(format!("{} `{}`: within its rate, a lone packet", host.name, rule.text));
                if *over {
                    RuleEnd::NoMatch
                } else {
                    next(String::new())
                }
            }
            Target::NoEffect { name, .. } => {
                next(if name == "counter" { String::new() } else { name.clone() })
            }
            Target::Unmodelled { name, .. } => {
                let why = format!("{}, {} `{}`: target {name}", host.name, table.name, rule.text);
                // It may write whatever it likes into the packet.
                if !self.unknown.contains(&why) {
                    self.unknown.push(why.clone());
                }
                match self.choices.pick(3, &why) {
                    0 => RuleEnd::Verdict(Verdict::Accept),
                    1 => RuleEnd::Verdict(Verdict::Drop),
                    _ => next(name.clone()),
                }
            }
        }
    }

    /// A verdict map whose key is not known: any of its verdicts, or none.
    fn unknown_map(
        &mut self,
        host: &Host,
        table: &Table,
        rule: &Rule,
        elements: &[(crate::model::NftElement, Verdict)],
        name: Option<&str>,
        why: &str,
    ) -> RuleEnd {
        let mut verdicts: Vec<Verdict> = match name.and_then(|n| table.set(n)) {
            Some(set) => set.verdicts.clone(),
            None => elements.iter().map(|(_, v)| v.clone()).collect(),
        };
        verdicts.sort();
        verdicts.dedup();
        let why = format!("{}, {} `{}`: {why}", host.name, table.name, rule.text);
        match verdicts.get(self.choices.pick(verdicts.len() + 1, &why)) {
            Some(verdict) => RuleEnd::Verdict(verdict.clone()),
            None => RuleEnd::NoMatch,
        }
    }

    fn mangle(&mut self, host: &Host, skb: &mut Skb, rule: &Rule, field: Mangle, value: Value) -> RuleEnd {
        let number = match value {
            Value::Number(n) => n,
            Value::Port(crate::model::PortValue::Is(n)) => n.into(),
            Value::Absent => return RuleEnd::NoMatch,
            Value::Unknown(_) | Value::Port(_) | Value::Name(_) | Value::Parts(_) => {
                self.unknown.push(format!("{} `{}`: what is written", host.name, rule.text));
                return RuleEnd::Continue(String::new());
            }
        };
        match field {
            Mangle::Mark => skb.packet.mark = number as u32,
            Mangle::CtMark => {
                if matches!(skb.tracked, Tracked::None) {
                    return RuleEnd::Continue(String::new());
                }
                self.set_connection_mark(host, skb, number as u32);
            }
            Mangle::IpTtl | Mangle::Ip6HopLimit | Mangle::IpDscp | Mangle::Ip6Dscp => {
                let v4 = matches!(field, Mangle::IpTtl | Mangle::IpDscp);
                if v4 != (skb.packet.family() == Family::Ipv4) {
                    return RuleEnd::NoMatch;
                }
                if matches!(field, Mangle::IpTtl | Mangle::Ip6HopLimit) {
                    skb.packet.ttl = number as u8;
                } else {
                    skb.packet.tos = (skb.packet.tos & 3) + ((number as u8) << 2);
                }
            }
        }
        RuleEnd::Continue(format!("set {field:?} {number:#x}"))
    }

    fn nat_target(&mut self, at: Site<'a, '_>, skb: &mut Skb, kind: NatKind, range: &NatRange) -> RuleEnd {
        let Site { host, hook, ends, .. } = at;
        let v4 = skb.packet.family() == Family::Ipv4;
        let end = match kind {
            NatKind::Snat | NatKind::Masquerade => End::Source,
            NatKind::Dnat | NatKind::Redirect => End::Destination,
        };
        let address = match kind {
            NatKind::Masquerade => {
                let Some(device) = ends.output else { return RuleEnd::Verdict(Verdict::Drop) };
                let own = match skb.packet.dst {
                    IpAddr::V4(_) => {
                        let near = ends.next_hop.or(Some(skb.packet.dst));
                        source::for_interface_v4(host, device, near, Scope::Global).map(IpAddr::V4)
                    }
                    IpAddr::V6(dst) => source::for_interface_v6(host, device, dst).map(IpAddr::V6),
                };
                match own {
                    None => return RuleEnd::Verdict(Verdict::Drop),
                    address => address,
                }
            }
            NatKind::Redirect if hook == Hook::Output => {
                Some(if v4 { IpAddr::V4(Ipv4Addr::LOCALHOST) } else { IpAddr::V6(Ipv6Addr::LOCALHOST) })
            }
            NatKind::Redirect => {
                let device = ends.input.and_then(|i| host.interface(i));
                match device.and_then(|d| redirect_to(d, skb.packet.dst)) {
                    None => return RuleEnd::Verdict(Verdict::Drop),
                    address => address,
                }
            }
            NatKind::Snat | NatKind::Dnat => match &range.address {
                None => None,
                Some(NatAddress::Range(low, high)) => Some(self.nat_address(host, *low, *high)),
                Some(NatAddress::Computed(expression)) => {
                    let value = nftexpr::value(expression, &self.context(at, skb));
                    match value {
                        Value::Number(n) if v4 => Some(IpAddr::V4(Ipv4Addr::from_bits(n as u32))),
                        Value::Number(n) => Some(IpAddr::V6(Ipv6Addr::from_bits(n))),
                        Value::Absent => return RuleEnd::NoMatch,
                        _ => {
                            self.unknown.push(format!("{}: the address a NAT map gives", host.name));
                            None
                        }
                    }
                }
            },
        };
        if address.is_some_and(|a| a.is_ipv4() != v4) {
            return RuleEnd::Continue(String::new());
        }
        let mapping = Mapping {
            address,
            ports: range.ports,
            base_port: range.base_port,
            random: range.random || range.random_fully,
        };
        self.settle(host, skb, end, mapping);
        RuleEnd::Verdict(Verdict::Accept)
    }

    /// One address of a NAT range: the kernel picks by a hash of the
    /// connection (`find_best_ips_proto`).
    fn nat_address(&mut self, host: &Host, low: IpAddr, high: IpAddr) -> IpAddr {
        if low == high {
            return low;
        }
        let Some(all) = nat::picks(low, high) else {
            self.unknown.push(format!("{}: {}", host.name, nat::too_many(low, high)));
            return low;
        };
        let why = format!("{}: which of {low}-{high} NAT picks", host.name);
        all[self.choices.pick(all.len(), &why)]
    }
}

/// Whether a packet is of the sort that an nft `reject` is for: `nft` adds a
/// test for its protocol or family to the rule, and does not list it.
fn implied(with: RejectWith, skb: &Skb) -> bool {
    match with {
        RejectWith::TcpReset => skb.packet.transport.protocol() == 6,
        RejectWith::Icmp(_) => skb.packet.family() == Family::Ipv4,
        RejectWith::Icmp6(_) => skb.packet.family() == Family::Ipv6,
        RejectWith::Icmpx(_) => true,
    }
}

/// Whether it makes no difference if a rule matches.
fn harmless(rule: &Rule) -> bool {
    rule.statements.iter().all(|s| {
        matches!(s, Statement::Match(_) | Statement::Target(Target::NoEffect { .. } | Target::Limit { .. }))
    })
}

/// A mark operation: the packet's mark and the connection's after it.
fn operate(operation: MarkOperation, mark: u32, connection: u32) -> (u32, u32) {
    match operation {
        MarkOperation::SetXor { value, mask } => ((mark & !mask) ^ value, connection),
        MarkOperation::Save { nfmask, ctmask } => (mark, (connection & !ctmask) ^ (mark & nfmask)),
        MarkOperation::Restore { nfmask, ctmask } => ((mark & !nfmask) ^ (connection & ctmask), connection),
    }
}

/// The prefix replaced, host bits kept (`xt_NETMAP.c`).
fn netmap(net: ipnet::IpNet, address: IpAddr) -> IpAddr {
    match (net, address) {
        (ipnet::IpNet::V4(net), IpAddr::V4(a)) => {
            let own = a.to_bits() & net.hostmask().to_bits();
            IpAddr::V4(Ipv4Addr::from_bits(net.network().to_bits() + own))
        }
        (ipnet::IpNet::V6(net), IpAddr::V6(a)) => {
            let own = a.to_bits() & net.hostmask().to_bits();
            IpAddr::V6(Ipv6Addr::from_bits(net.network().to_bits() + own))
        }
        _ => address,
    }
}
