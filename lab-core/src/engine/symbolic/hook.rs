//! Running a hook on flows: everything that is registered there, in order.

use std::net::IpAddr;

use super::chain::{End, NatAction};
use super::engine::{constant_address, Symbolic};
use super::flow::{Connection, Ending, Ends, Flow, HookEnds, Passed, Tracked, Way};
use crate::addr::{Family, PortRange};
use crate::model::{
    Chain, ChainKind, Decision, Direction, Hook, Host, NatKind, Part, RejectWith, RuleRef, Stage, Table,
    TcpFlags,
};
use crate::semantics::conntrack::{sane, tcp_step, Info, TcpState, TcpStep};
use crate::semantics::hooks::{ambiguous, order, Item};
use crate::semantics::source;
use crate::space::{Bits, Error, Field, Ref, Source, Store};

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
        let orders: Vec<bool> = if ambiguous(host, hook, family) { vec![true, false] } else { vec![true] };
        let why = format!("{}: whether iptables-legacy or nft was registered first", host.name);
        let mut passed = Vec::new();
        for (legacy_first, flow) in Self::suppose(&flow, orders, &why) {
            let items: Vec<Registered> = order(host, hook, family, legacy_first)
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
    fn run(
        &mut self,
        host: &'a Host,
        ends: HookEnds,
        flow: &Flow,
        (table, chain): (usize, usize),
    ) -> Result<Vec<(End, Option<RuleRef>, Flow)>, Error> {
        let base = self.base(host, table, chain)?;
        let names = &mut self.sets.names;
        let mapping = flow.mapping_at(host, &mut |n| names.number(n), ends);
        self.watch(host, (table, chain), flow, &mapping, base.whole)?;
        let parts = self.split(flow, base.verdicts, &mapping, &|s, told| s.doubts(host, table, told))?;
        let Some(model) = host.ruleset.tables.get(table).and_then(|t| t.chains.get(chain)) else {
            return Ok(Vec::new());
        };
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
            if effects.notrack && part.tracked == Tracked::None && part.info != Info::Untracked {
                part.info = Info::Untracked;
            }
            if part.tracked == Tracked::None && part.info != Info::Untracked {
                part.zones.0 = effects.zones.0.unwrap_or(part.zones.0);
                part.zones.1 = effects.zones.1.unwrap_or(part.zones.1);
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
                        let value = tos.value & !one | value;
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
        for (end, rule, part) in self.run(host, ends, &flow, at)? {
            match end {
                End::Accept | End::Nat(_) | End::Fall | End::Return => {
                    let now = part.now.tos;
                    let (kept, changed) = match (routes, part.now.mark == mark) {
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

    fn stopped(&mut self, host: &Host, flow: Flow, end: &End, rule: Option<RuleRef>) {
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

    /// Connection tracking looks at a flow.
    fn track(&mut self, host: &'a Host, flow: Flow) -> Result<Vec<Flow>, Error> {
        if flow.tracked != Tracked::None || flow.info == Info::Untracked {
            return Ok(vec![flow]);
        }
        let diagram = match self.tracking {
            Some(known) => known,
            None => *self.tracking.insert(tracking(&mut self.sets.store)?),
        };
        let mapping = flow.mapping();
        let mut tracked = Vec::new();
        for (leaf, part) in self.split(&flow, diagram, &mapping, &|_, _| Vec::new())? {
            match leaf {
                INVALID => tracked.push(Flow { info: Info::Invalid, ..part }),
                UNTRACKED => tracked.push(Flow { info: Info::Untracked, ..part }),
                opens => self.find(host, part, opens, &mut tracked)?,
            }
        }
        Ok(tracked)
    }

    /// Finds the connection of packets that may have one, or opens it.
    fn find(&mut self, host: &'a Host, flow: Flow, kind: u32, tracked: &mut Vec<Flow>) -> Result<(), Error> {
        let flags = kind.checked_sub(TCP).map(|f| f as u8);
        let mut rest = vec![flow];
        let known: Vec<Connection> = rest[0].world.get(&host.name).cloned().unwrap_or_default();
        for (index, connection) in known.iter().enumerate() {
            for (direction, tuple, zone) in [
                (Direction::Original, connection.original, connection.zones.0),
                (Direction::Reply, connection.reply, connection.zones.1),
            ] {
                let mut left = Vec::new();
                for flow in rest {
                    if flow.zones.0 != zone || !connection.confirmed || flow.kind.1 != connection.protocol {
                        left.push(flow);
                        continue;
                    }
                    let set = self.alike(&flow, tuple)?;
                    let inside = self.sets.store.guard(flow.set, set)?;
                    let outside = self.sets.store.without(flow.set, set)?;
                    if !outside.is_none() {
                        left.push(flow.part(outside));
                    }
                    if !inside.is_none() {
                        tracked.push(follow(host, flow.part(inside), index, direction, flags));
                    }
                }
                rest = left;
            }
        }
        for mut flow in rest {
            let loose = host.sysctls.number("net.netfilter.nf_conntrack_tcp_loose") != Some(0);
            let tcp = match flags {
                None => None,
                Some(flags) => match tcp_step(TcpState::None, flags, Direction::Original) {
                    TcpStep::To(TcpState::SynSent) => Some(TcpState::SynSent),
                    TcpStep::To(state) if loose => Some(state),
                    _ => {
                        tracked.push(Flow { info: Info::Invalid, ..flow });
                        continue;
                    }
                },
            };
            if kind == ANSWER {
                tracked.push(Flow { info: Info::Invalid, ..flow });
                continue;
            }
            flow.info = Info::New;
            flow.tracked = Tracked::New(Box::new(Connection {
                original: flow.now.ends,
                reply: flow.now.ends.inverted(),
                protocol: flow.kind.1,
                zones: flow.zones,
                mark: 0,
                confirmed: false,
                seen_reply: false,
                assured: false,
                rewritten: (false, false),
                settled: (false, false),
                tcp,
            }));
            tracked.push(flow);
        }
        Ok(())
    }

    /// Where the ends of packets are those of a tuple. Packets whose source is
    /// their own destination are not spoken of, so two different fields are
    /// never equal.
    fn alike(&mut self, flow: &Flow, tuple: Ends) -> Result<Ref, Error> {
        let now = flow.now.ends;
        let v6 = flow.family(&self.sets.store) == Some(Family::Ipv6);
        let mut all = Ref::ALL;
        for (a, b) in
            [(now.src, tuple.src), (now.dst, tuple.dst), (now.sport, tuple.sport), (now.dport, tuple.dport)]
        {
            let store = &mut self.sets.store;
            let set = same(store, a, b, v6)?;
            all = store.guard(set, all)?;
        }
        Ok(all)
    }

    /// NAT at a hook: chains are asked only about the first packet of a
    /// connection; every packet is then rewritten as settled.
    fn nat(
        &mut self,
        host: &'a Host,
        hook: Hook,
        ends: HookEnds,
        (flow, way): Passing<'a>,
        chains: &[(usize, usize)],
        next: &mut Vec<Passing<'a>>,
    ) -> Result<(), Error> {
        let source = !matches!(hook, Hook::Prerouting | Hook::Output);
        let Some(connection) = flow.connection(&host.name) else {
            next.push((flow, way));
            return Ok(());
        };
        let settled = if source { connection.settled.0 } else { connection.settled.1 };
        let mut flows = vec![flow];
        if matches!(flows[0].info, Info::New) && !settled {
            let mut open = flows;
            flows = Vec::new();
            for at in chains {
                let mut still = Vec::new();
                for flow in open {
                    for (end, rule, part) in self.run(host, ends, &flow, *at)? {
                        match end {
                            End::Accept | End::Fall | End::Return => still.push(part),
                            End::Nat(action) => {
                                for part in
                                    self.settle(host, hook, ends, way, part, &action, rule.as_ref())?
                                {
                                    if is_settled(&part, host, source) {
                                        flows.push(part);
                                    } else {
                                        still.push(part);
                                    }
                                }
                            }
                            stop => self.stopped(host, part, &stop, rule),
                        }
                    }
                }
                open = still;
            }
            for flow in open {
                flows.extend(self.bind(host, flow, source, None, None)?);
            }
        }
        for mut flow in flows {
            let before = flow.now.ends.dst;
            translate(host, &mut flow, source);
            let now = flow.now.ends.dst;
            let (kept, changed) = match hook {
                Hook::Output => self.by_change(flow, before, now)?,
                _ => (Some(flow), None),
            };
            next.extend(kept.map(|flow| (flow, way)));
            if let Some(flow) = changed {
                self.reroute(host, flow, way, next)?;
            }
        }
        Ok(())
    }

    /// Splits a flow by whether a field is what it was: the same may be told in
    /// two ways, a constant and the field of a packet that has it already.
    pub(super) fn by_change(
        &mut self,
        flow: Flow,
        before: Source,
        now: Source,
    ) -> Result<(Option<Flow>, Option<Flow>), Error> {
        let v6 = flow.family(&self.sets.store) == Some(Family::Ipv6);
        let store = &mut self.sets.store;
        let same = same(store, before, now, v6)?;
        let kept = store.guard(same, flow.set)?;
        let changed = store.without(flow.set, kept)?;
        let part = |set: Ref| (!set.is_none()).then(|| flow.part(set));
        Ok((part(kept), part(changed)))
    }

    /// Does what a NAT target says.
    #[allow(clippy::too_many_arguments)]
    fn settle(
        &mut self,
        host: &'a Host,
        hook: Hook,
        ends: HookEnds,
        way: Option<Way<'a>>,
        flow: Flow,
        action: &NatAction,
        rule: Option<&RuleRef>,
    ) -> Result<Vec<Flow>, Error> {
        let v6 = flow.family(&self.sets.store) == Some(Family::Ipv6);
        let (source, field) = match (action.kind, action.netmap) {
            (_, Some(_)) if matches!(hook, Hook::Prerouting | Hook::Output) => (false, Field::Dst),
            (_, Some(_)) => (true, Field::Src),
            (NatKind::Snat | NatKind::Masquerade, _) => (true, Field::Src),
            (NatKind::Dnat | NatKind::Redirect, _) => (false, Field::Dst),
        };
        // Each address with the part of the flow that gets it.
        let mut parts: Vec<(Option<Source>, Flow)> = Vec::new();
        let mut none: Vec<Flow> = Vec::new();
        if let Some(net) = action.netmap {
            let old = if source { flow.now.ends.src } else { flow.now.ends.dst };
            let bits = match net {
                ipnet::IpNet::V4(n) => {
                    (u128::from(n.network().to_bits()) << 96, u128::from(n.netmask().to_bits()) << 96)
                }
                ipnet::IpNet::V6(n) => (n.network().to_bits(), n.netmask().to_bits()),
            };
            let value = (old.value & old.mask & !bits.1) | (bits.0 & bits.1);
            parts.push((Some(Source { field: old.field, mask: old.mask | bits.1, value }), flow));
        } else {
            match action.kind {
                NatKind::Masquerade => {
                    let device = ends.output.unwrap_or("").to_owned();
                    let nets: Vec<ipnet::IpNet> = own_nets(host);
                    let near = way.and_then(|w| w.gateway);
                    let by = match near {
                        Some(_) if !v6 => Source::constant(Field::Dst, 0),
                        _ => flow.now.ends.dst,
                    };
                    let told = self.by_address(
                        &flow,
                        by,
                        || nets,
                        |dst| match dst {
                            IpAddr::V4(_) => {
                                let near = near.or(Some(dst));
                                source::for_interface_v4(host, &device, near, crate::model::Scope::Global)
                                    .map(IpAddr::V4)
                            }
                            IpAddr::V6(dst) => source::for_interface_v6(host, &device, dst).map(IpAddr::V6),
                        },
                    )?;
                    for (own, part) in told {
                        match own {
                            Some(own) => parts.push((Some(constant_address(field, own)), part)),
                            None => none.push(part),
                        }
                    }
                }
                NatKind::Redirect if hook == Hook::Output => {
                    let own = if v6 {
                        IpAddr::V6(std::net::Ipv6Addr::LOCALHOST)
                    } else {
                        IpAddr::V4(std::net::Ipv4Addr::LOCALHOST)
                    };
                    parts.push((Some(constant_address(field, own)), flow));
                }
                NatKind::Redirect => {
                    let device = ends.input.and_then(|i| host.interface(i));
                    let own = device
                        .and_then(|d| d.addresses.iter().map(|a| a.address).find(|a| a.is_ipv6() == v6));
                    match own {
                        Some(own) => parts.push((Some(constant_address(field, own)), flow)),
                        None => none.push(flow),
                    }
                }
                NatKind::Snat | NatKind::Dnat => match action.addresses {
                    None => parts.push((None, flow)),
                    Some((low, high)) => {
                        for (own, part) in addresses(&flow, host, low, high) {
                            parts.push((Some(constant_address(field, own)), part));
                        }
                    }
                },
            }
        }
        for flow in none {
            self.stopped(host, flow, &End::Drop, rule.cloned());
        }
        let mut done = Vec::new();
        for (address, mut flow) in parts {
            if let Some(rule) = rule {
                flow.note(Passed::Rewritten(rule.clone()));
            }
            done.extend(self.bind(host, flow, source, address, Some(action))?);
        }
        Ok(done)
    }

    /// Settles one end of a connection (`nf_nat_setup_info`).
    fn bind(
        &mut self,
        host: &Host,
        flow: Flow,
        source: bool,
        address: Option<Source>,
        action: Option<&NatAction>,
    ) -> Result<Vec<Flow>, Error> {
        if is_settled(&flow, host, source) {
            return Ok(vec![flow]);
        }
        let Some(connection) = flow.connection(&host.name).cloned() else { return Ok(vec![flow]) };
        let current = connection.reply.inverted();
        let mut wanted = current;
        match source {
            true => wanted.src = address.unwrap_or(wanted.src),
            false => wanted.dst = address.unwrap_or(wanted.dst),
        }
        let ports = action.and_then(|a| a.ports);
        let random = action.is_some_and(|a| a.random);
        let base = action.and_then(|a| a.base_port);
        let port = if source { wanted.sport } else { wanted.dport };
        let taken = flow.world.get(&host.name).is_some_and(|all| {
            all.iter().any(|c| {
                c.confirmed
                    && c.protocol == connection.protocol
                    && c.original != connection.original
                    && (c.reply == wanted.inverted() || c.original == wanted.inverted())
            })
        });
        // A query's identifier counts as its source port, and no header here has
        // it; it is kept where it may be.
        let mut done = Vec::new();
        let mut flow = flow;
        if source && (random || taken || ports.is_some()) {
            let icmp = self.sets.store.value(Field::Protocol, 1)?;
            let icmp6 = self.sets.store.value(Field::Protocol, 58)?;
            let queries = self.sets.store.or_else(icmp, icmp6)?;
            let (queries, rest) = self.divide(flow, queries)?;
            let other = Ends { sport: Source::keep(Field::FreshPort), ..wanted };
            for query in queries {
                let whole = ports.is_none_or(|r| r.low == 0 && r.high == u16::MAX);
                let ends = match (random || taken, whole) {
                    (true, _) => vec![other],
                    (false, true) => vec![wanted],
                    (false, false) => vec![wanted, other],
                };
                let why = format!("{}: {IDENTIFIER}", host.name);
                for (wanted, query) in Self::either(&query, ends, &why) {
                    done.extend(self.bound(query, host, source, current, wanted)?);
                }
            }
            let Some(rest) = rest.into_iter().next() else { return Ok(done) };
            flow = rest;
        }
        // Which packets keep their port.
        let unknown = flow.fresh.filter(|_| is_fresh(port));
        let mut kept: Vec<(bool, Flow)> = Vec::new();
        match (random, ports, base) {
            (true, ..) => kept.push((false, flow)),
            (_, None, _) => kept.push((!taken, flow)),
            (_, Some(_), Some(_)) => kept.push((false, flow)),
            (_, Some(range), None) if unknown.is_some() => {
                let covered = unknown.is_some_and(|r| range.low <= r.low && r.high <= range.high);
                kept.push((covered, flow));
            }
            (_, Some(range), None) => {
                let set = self.sets.store.range(Field::Sport, range.low.into(), range.high.into())?;
                let mut here = crate::space::Mapping::default();
                here.set(Field::Sport, port);
                let inside = self.sets.store.pull_back(flow.set, set, &here)?;
                let outside = self.sets.store.without(flow.set, inside)?;
                let keep = range.low == range.high || !taken;
                for (set, keep) in [(inside, keep), (outside, false)] {
                    if !set.is_none() {
                        kept.push((keep, flow.part(set)));
                    }
                }
            }
        }
        for (keep, flow) in kept {
            if keep {
                done.extend(self.bound(flow, host, source, current, wanted)?);
                continue;
            }
            // Only protocols with ports get another one.
            let with_ports = self.sets.store.with_ports()?;
            let (with, without) = self.divide(flow, with_ports)?;
            for flow in without {
                done.extend(self.bound(flow, host, source, current, wanted)?);
            }
            for flow in with {
                for (port, fresh, flow) in self.picked(flow, source, port, ports, base, random)? {
                    let mut wanted = wanted;
                    match source {
                        true => wanted.sport = port,
                        false => wanted.dport = port,
                    }
                    for mut flow in self.bound(flow, host, source, current, wanted)? {
                        flow.fresh = fresh.or(flow.fresh);
                        done.push(flow);
                    }
                }
            }
        }
        Ok(done)
    }

    /// Settles one end as wanted. What is as wanted already is not rewritten:
    /// the connection of those packets has no NAT.
    fn bound(
        &mut self,
        flow: Flow,
        host: &Host,
        source: bool,
        current: Ends,
        wanted: Ends,
    ) -> Result<Vec<Flow>, Error> {
        let v6 = flow.family(&self.sets.store) == Some(Family::Ipv6);
        let mut kept = flow.set;
        for (a, b) in [
            (current.src, wanted.src),
            (current.dst, wanted.dst),
            (current.sport, wanted.sport),
            (current.dport, wanted.dport),
        ] {
            let same = same(&mut self.sets.store, a, b, v6)?;
            kept = self.sets.store.guard(same, kept)?;
        }
        let changed = self.sets.store.without(flow.set, kept)?;
        let mut parts = Vec::new();
        for (set, rewritten) in [(kept, false), (changed, true)] {
            if set.is_none() {
                continue;
            }
            let mut part = flow.part(set);
            if let Some(connection) = part.connection_mut(&host.name) {
                let settled = if source { &mut connection.settled.0 } else { &mut connection.settled.1 };
                *settled = true;
                if rewritten {
                    connection.reply = wanted.inverted();
                    match source {
                        true => connection.rewritten.0 = true,
                        false => connection.rewritten.1 = true,
                    }
                }
            }
            parts.push(part);
        }
        Ok(parts)
    }

    /// The port when the present one cannot stay
    /// (`nf_nat_l4proto_unique_tuple`).
    fn picked(
        &mut self,
        flow: Flow,
        source: bool,
        port: Source,
        ports: Option<PortRange>,
        base: Option<u16>,
        random: bool,
    ) -> Result<Vec<(Source, Option<PortRange>, Flow)>, Error> {
        let field = if source { Field::Sport } else { Field::Dport };
        let fresh = |range: PortRange, flow: Flow| match range.low == range.high {
            true => (Source::constant(field, range.low.into()), None, flow),
            false if source => (Source::keep(Field::FreshPort), Some(range), flow),
            // One unknown port is kept apart at a time.
            false => {
                let why = "which destination port NAT picks".to_owned();
                (Source::constant(field, range.low.into()), None, flow.claimless(&[why]))
            }
        };
        let Some(range) = ports else {
            if !source {
                return Ok(vec![(port, None, flow)]);
            }
            // Ports keep their class: privileged stay privileged.
            let mut parts = Vec::new();
            if is_fresh(port) {
                return Ok(vec![fresh(PortRange { low: 1024, high: u16::MAX }, flow)]);
            }
            for (low, high, range) in
                [(0, 511, (1, 511)), (512, 1023, (600, 1023)), (1024, 65535, (1024, 65535))]
            {
                let set = self.sets.store.range(Field::Sport, low, high)?;
                let mut here = crate::space::Mapping::default();
                here.set(Field::Sport, port);
                let inside = self.sets.store.pull_back(flow.set, set, &here)?;
                if !inside.is_none() {
                    parts.push(fresh(PortRange { low: range.0, high: range.1 }, flow.part(inside)));
                }
            }
            return Ok(parts);
        };
        if range.low == range.high {
            return Ok(vec![fresh(range, flow)]);
        }
        match base.filter(|_| !is_fresh(port)) {
            Some(base) => {
                // Shifted port by port.
                let size = u32::from(range.high - range.low) + 1;
                let values = self.values(&flow, port)?;
                let Some(values) = values else {
                    let why = "a shifted port".to_owned();
                    return Ok(vec![fresh(range, flow.claimless(&[why]))]);
                };
                Ok(values
                    .into_iter()
                    .map(|(value, part)| {
                        let offset = u32::from(value.wrapping_sub(base)) % size;
                        let to = u128::from(range.low) + u128::from(offset);
                        (Source::constant(field, to), None, part)
                    })
                    .collect())
            }
            None if !source && !random => Ok(vec![(Source::constant(field, range.low.into()), None, flow)]),
            None => Ok(vec![fresh(range, flow)]),
        }
    }

    /// The values of a port, if there are few, each with its packets.
    fn values(&mut self, flow: &Flow, port: Source) -> Result<Option<Vec<(u16, Flow)>>, Error> {
        if is_known(port) {
            return Ok(Some(vec![(port.value as u16, flow.clone())]));
        }
        let field = port.field;
        let (start, end) = (field.bit(0), field.bit(0) + field.width());
        let store = &mut self.sets.store;
        let ports = store.forget(flow.set, &|p| p < start || p >= end, true)?;
        let Some(ranges) = store.intervals(ports, field, field.width()) else { return Ok(None) };
        if ranges.iter().map(|(a, b)| b - a + 1).sum::<u128>() > 512 {
            return Ok(None);
        }
        let mut parts = Vec::new();
        for value in ranges.into_iter().flat_map(|(a, b)| a..=b) {
            let is = store.value(field, value)?;
            let set = store.guard(flow.set, is)?;
            parts.push((value as u16, flow.part(set)));
        }
        Ok(Some(parts))
    }
}

const INVALID: u32 = 1;
const UNTRACKED: u32 = 2;
/// May open a connection.
const PLAIN: u32 = 3;
/// An ICMP query, which may.
const QUERY: u32 = 4;
/// Belongs to a connection or to none.
const ANSWER: u32 = 5;
/// TCP with these flags.
const TCP: u32 = 16;

/// What tracking makes of packets of which nothing is known: invalid, not
/// tracked, or fit to belong to a connection; of TCP by its flags.
fn tracking(store: &mut Store) -> Result<Ref, Error> {
    let mut tcp = Vec::new();
    for flags in 0..=u8::MAX {
        let leaf = if sane(flags) { TCP + u32::from(alike_to(flags)) } else { INVALID };
        let is = store.value(Field::TcpFlags, flags.into())?;
        tcp.push(store.guard(is, Ref::leaf(leaf))?);
    }
    let tcp = store.first_of(&tcp)?;
    let mut by_type = |protocol: u8| -> Result<Ref, Error> {
        let mut parts = Vec::new();
        for kind in 0..=u8::MAX {
            let leaf = match (protocol, kind) {
                (1, 8 | 13 | 15 | 17) | (58, 128 | 139) => QUERY,
                (1, 0 | 14 | 16 | 18) | (58, 129 | 140) => ANSWER,
                (58, 130..=137 | 143) => UNTRACKED,
                _ => INVALID,
            };
            let is = store.value(Field::IcmpType, kind.into())?;
            parts.push(store.guard(is, Ref::leaf(leaf))?);
        }
        store.first_of(&parts)
    };
    let (icmp, icmp6) = (by_type(1)?, by_type(58)?);
    let init = store.value(Field::SctpInit, 1)?;
    let sctp = store.choose(init, Ref::leaf(PLAIN), Ref::leaf(ANSWER))?;
    let mut result = Ref::leaf(PLAIN);
    for (protocol, diagram) in [(6, tcp), (1, icmp), (58, icmp6), (132, sctp)] {
        let is = store.value(Field::Protocol, protocol)?;
        result = store.choose(is, diagram, result)?;
    }
    Ok(result)
}

/// The flags that count, of those that a TCP packet has: connection tracking
/// looks at them in this order (`get_conntrack_index`).
fn alike_to(flags: u8) -> u8 {
    const ORDER: [u8; 5] =
        [TcpFlags::RST, TcpFlags::SYN | TcpFlags::ACK, TcpFlags::SYN, TcpFlags::FIN, TcpFlags::ACK];
    ORDER.into_iter().find(|wanted| flags & wanted == *wanted).unwrap_or(flags)
}

/// Why it is open what becomes of queries.
const IDENTIFIER: &str = "which identifier an ICMP query has";

/// Whether a port is one that a kernel picked.
fn is_fresh(port: Source) -> bool {
    port.field == Field::FreshPort && port.mask == 0
}

fn is_known(source: Source) -> bool {
    let bits = if source.field.width() >= 128 { u128::MAX << 96 } else { (1 << source.field.width()) - 1 };
    source.mask & bits == bits
}

/// Where two fields are the same now; none if that is not told.
fn same(store: &mut Store, a: Source, b: Source, v6: bool) -> Result<Ref, Error> {
    if a == b {
        return Ok(Ref::ALL);
    }
    let most = match a.field.width() {
        128 if !v6 => u128::MAX << 96,
        128 => u128::MAX,
        width => (1 << width) - 1,
    };
    let neither = !a.mask & !b.mask & most;
    if (a.value ^ b.value) & a.mask & b.mask & most != 0 || (neither != 0 && a.field != b.field) {
        return Ok(Ref::NONE);
    }
    // A port that a kernel picked is taken to be another.
    if is_fresh(a) || is_fresh(b) {
        return Ok(Ref::NONE);
    }
    let mut all = Ref::ALL;
    for (known, other) in [(a, b), (b, a)] {
        let mask = known.mask & !other.mask & most;
        let bits = store.bits(other.field, Bits { mask, value: known.value & mask })?;
        all = store.guard(bits, all)?;
    }
    Ok(all)
}

/// The subnets of a host, by which it chooses a source.
pub(super) fn own_nets(host: &Host) -> Vec<ipnet::IpNet> {
    let mut nets: Vec<ipnet::IpNet> = Vec::new();
    let v6 = host.interfaces.iter().flat_map(|i| &i.addresses);
    for address in v6 {
        match address.address {
            IpAddr::V4(_) => nets.extend(address.net()),
            // RFC 6724 counts the bits that a destination shares.
            IpAddr::V6(a) => nets.extend(
                (0..=address.prefix_len)
                    .chain([128])
                    .filter_map(|len| ipnet::Ipv6Net::new(a, len).ok())
                    .map(ipnet::IpNet::V6),
            ),
        }
    }
    // Scopes and labels (net/ipv6/addrlabel.c).
    let classes = [
        "::1/128",
        "::/96",
        "::ffff:0:0/96",
        "2001::/32",
        "2001:10::/28",
        "2002::/16",
        "3ffe::/16",
        "fc00::/7",
        "fe80::/10",
        "fec0::/10",
        "ff01::/16",
        "ff02::/16",
        "ff05::/16",
        "ff08::/16",
        "ff0e::/16",
        "ff00::/8",
    ];
    nets.extend(classes.iter().filter_map(|c| c.parse::<ipnet::IpNet>().ok()));
    nets
}

/// At most this many addresses of a NAT range are told apart.
const NAT_ADDRESSES: u128 = 8;

/// The addresses of a NAT range: the kernel picks by a hash of the connection.
fn addresses(flow: &Flow, host: &Host, low: IpAddr, high: IpAddr) -> Vec<(IpAddr, Flow)> {
    if low == high {
        return vec![(low, flow.clone())];
    }
    let bits = |a: IpAddr| match a {
        IpAddr::V4(a) => u128::from(a.to_bits()),
        IpAddr::V6(a) => a.to_bits(),
    };
    let count = bits(high).saturating_sub(bits(low)).saturating_add(1);
    if count > NAT_ADDRESSES {
        let why = format!("{}: which of {count} addresses NAT picks", host.name);
        return vec![(low, flow.clone().claimless(&[why]))];
    }
    let ways: Vec<IpAddr> = (0..count)
        .map(|i| match low {
            IpAddr::V4(a) => IpAddr::V4(std::net::Ipv4Addr::from_bits(a.to_bits() + i as u32)),
            IpAddr::V6(a) => IpAddr::V6(std::net::Ipv6Addr::from_bits(a.to_bits() + i)),
        })
        .collect();
    Symbolic::either(flow, ways, &format!("{}: which of {low}-{high} NAT picks", host.name))
}

fn is_settled(flow: &Flow, host: &Host, source: bool) -> bool {
    flow.connection(&host.name).is_some_and(|c| if source { c.settled.0 } else { c.settled.1 })
}

/// Rewrites one end of the packets of a connection (`nf_nat_packet`).
fn translate(host: &Host, flow: &mut Flow, source: bool) {
    let direction = flow.info.direction();
    let Some(connection) = flow.connection(&host.name) else { return };
    let end = (direction == Direction::Original) == source;
    let applies = if end { connection.rewritten.0 } else { connection.rewritten.1 };
    if !applies {
        return;
    }
    let target = match direction {
        Direction::Original => connection.reply.inverted(),
        Direction::Reply => connection.original.inverted(),
    };
    match source {
        true => {
            flow.now.ends.src = target.src;
            flow.now.ends.sport = target.sport;
        }
        false => {
            flow.now.ends.dst = target.dst;
            flow.now.ends.dport = target.dport;
        }
    }
}

/// Only the packets that opened a connection confirm it.
fn confirmed(host: &Host, mut flow: Flow) -> Flow {
    if flow.info.direction() != Direction::Original {
        return flow;
    }
    if let Tracked::New(connection) = &flow.tracked {
        let mut connection = connection.as_ref().clone();
        connection.confirmed = true;
        let known = flow.world.entry(host.name.clone()).or_default();
        known.push(connection);
        flow.tracked = Tracked::Known(known.len() - 1);
    }
    flow
}

/// Steps a connection that packets belong to.
fn follow(host: &Host, mut flow: Flow, index: usize, direction: Direction, flags: Option<u8>) -> Flow {
    let Some(connection) = flow.world.get_mut(&host.name).and_then(|all| all.get_mut(index)) else {
        return flow;
    };
    if let (Some(flags), Some(state)) = (flags, connection.tcp) {
        match tcp_step(state, flags, direction) {
            TcpStep::Invalid => {
                flow.info = Info::Invalid;
                return flow;
            }
            TcpStep::Ignore => {}
            TcpStep::To(state) => {
                connection.tcp = Some(state);
                connection.assured |= state == TcpState::Established && connection.seen_reply;
            }
        }
    }
    let info = match direction {
        Direction::Reply => {
            connection.seen_reply = true;
            Info::EstablishedReply
        }
        Direction::Original if connection.seen_reply => Info::Established,
        Direction::Original => Info::New,
    };
    flow.tracked = Tracked::Known(index);
    flow.info = info;
    flow
}
