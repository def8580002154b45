//! NAT of flows: which end is rewritten, and to what.

use std::net::IpAddr;

use super::chain::{End, NatAction};
use super::engine::{constant_address, Symbolic};
use super::flow::{is_fresh, Connection, Ends, Flow, HookEnds, Passed, Way};
use super::hook::Passing;
use super::track::{alike, same};
use super::way::own_nets;
use crate::addr::{Family, PortRange};
use crate::model::{Direction, Hook, Host, NatKind, RuleRef};
use crate::semantics::conntrack::Info;
use crate::semantics::nat::{picks, redirect_nets, redirect_to, too_many};
use crate::semantics::source;
use crate::space::{Error, Field, Ref, Source};

/// Why it is open what becomes of queries.
const IDENTIFIER: &str = "which identifier an ICMP query has";

impl<'a> Symbolic<'a> {
    /// NAT at a hook: chains are asked only about the first packet of a
    /// connection; every packet is then rewritten as settled.
    pub(super) fn nat(
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
            let value = (old.value & old.mask & !bits.1) + bits.0;
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
                    let by = flow.now.ends.dst;
                    let to = |dst| device.and_then(|d| redirect_to(d, dst));
                    for (own, part) in self.by_address(&flow, by, redirect_nets, to)? {
                        match own {
                            Some(own) => parts.push((Some(constant_address(field, own)), part)),
                            None => none.push(part),
                        }
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
        let taken = self.used(host, &flow, &connection, wanted.inverted())?;
        let (there, free) =
            (self.sets.store.guard(flow.set, taken)?, self.sets.store.without(flow.set, taken)?);
        let mut done = Vec::new();
        for (set, taken) in [(there, true), (free, false)] {
            if !set.is_none() {
                done.extend(self.bind_to(flow.part(set), host, source, (current, wanted), taken, action)?);
            }
        }
        Ok(done)
    }

    /// Where another connection already has what is to be the reply tuple of one
    /// (`nf_nat_used_tuple`).
    fn used(&mut self, host: &Host, flow: &Flow, own: &Connection, reply: Ends) -> Result<Ref, Error> {
        let v6 = flow.family(&self.sets.store) == Some(Family::Ipv6);
        let mut taken = Ref::NONE;
        for other in flow.world.get(&host.name).into_iter().flatten().filter(|c| c.confirmed) {
            let mut sides = Vec::new();
            if other.zones.1 == own.zones.1 {
                sides.push(other.reply);
            }
            if other.zones.0 == own.zones.0 && other.zones.0 == own.zones.1 {
                sides.push(other.original);
            }
            let store = &mut self.sets.store;
            let itself = alike(store, other.original, own.original, v6)?;
            let protocol = same(store, other.protocol, own.protocol, v6)?;
            for side in sides {
                let there = alike(store, side, reply, v6)?;
                let there = store.guard(protocol, there)?;
                let there = store.without(there, itself)?;
                taken = store.or_else(taken, there)?;
            }
        }
        Ok(taken)
    }

    /// The same, of packets whose wanted tuple is taken or not.
    fn bind_to(
        &mut self,
        flow: Flow,
        host: &Host,
        source: bool,
        (current, wanted): (Ends, Ends),
        taken: bool,
        action: Option<&NatAction>,
    ) -> Result<Vec<Flow>, Error> {
        let ports = action.and_then(|a| a.ports);
        let random = action.is_some_and(|a| a.random);
        let base = action.and_then(|a| a.base_port);
        let port = if source { wanted.sport } else { wanted.dport };
        // A query's identifier counts as its source port, and no header here has
        // it; it is kept where it may be.
        let mut done = Vec::new();
        let mut flow = flow;
        if random || taken || ports.is_some() {
            let icmp = self.sets.store.value(Field::Protocol, 1)?;
            let icmp6 = self.sets.store.value(Field::Protocol, 58)?;
            let queries = self.sets.store.or_else(icmp, icmp6)?;
            let (queries, rest) = self.divide(flow, queries)?;
            let other = Ends { sport: Source::keep(Field::FreshPort), ..wanted };
            for query in queries {
                let whole = ports.is_none_or(|r| r.low == 0 && r.high == u16::MAX);
                let ends = match (random || taken || base.is_some(), whole) {
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
                for (port, fresh, flow) in self.picked(flow, source, port, ports, base)? {
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
        let as_wanted = alike(&mut self.sets.store, current, wanted, v6)?;
        let kept = self.sets.store.guard(as_wanted, flow.set)?;
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
            None => Ok(vec![fresh(range, flow)]),
        }
    }

    /// The values of a port, if there are few, each with its packets.
    fn values(&mut self, flow: &Flow, port: Source) -> Result<Option<Vec<(u16, Flow)>>, Error> {
        if port.mask == u128::MAX {
            return Ok(Some(vec![(port.value as u16, flow.clone())]));
        }
        let field = port.field;
        let store = &mut self.sets.store;
        let ports = store.values_of(flow.set, field)?;
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

/// The addresses of a NAT range: the kernel picks by a hash of the connection.
fn addresses(flow: &Flow, host: &Host, low: IpAddr, high: IpAddr) -> Vec<(IpAddr, Flow)> {
    if low == high {
        return vec![(low, flow.clone())];
    }
    let Some(ways) = picks(low, high) else {
        let why = format!("{}: {}", host.name, too_many(low, high));
        return vec![(low, flow.clone().claimless(&[why]))];
    };
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
