//! Running a hook: everything that is registered there, in order.

use super::chain::ChainEnd;
use super::skb::{Skb, Tracked};
use super::Walk;
use crate::engine::journey::Event;
use crate::model::{Hook, Host, Packet, RejectWith, RuleRef};
use crate::semantics::conntrack::{may_clash, Found, Info, CLASH};
use crate::semantics::hooks::{ambiguous, order, tied, tracks, Item};
use crate::semantics::nat::{self, End};

/// The interfaces a hook knows.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Ends<'s> {
    pub input: Option<&'s str>,
    pub output: Option<&'s str>,
    /// The next hop, for masquerading.
    pub next_hop: Option<std::net::IpAddr>,
}

/// How a hook ended.
#[derive(Clone, Debug)]
pub(super) enum HookEnd {
    /// The packet goes on.
    Accept,
    /// A rule dropped it.
    Drop(Box<RuleRef>),
    /// A rule rejected it.
    Reject(Box<RuleRef>, RejectWith),
    /// The route, asked again in OUTPUT, failed.
    Unroutable(String),
}

/// What OUTPUT does when something that routing looks at was changed.
pub(super) enum Reroute {
    /// The route is still good.
    Kept,
    /// There is a new one, and the packet goes by it.
    Asked,
    /// There is none: the sending call fails with this errno name.
    Failed(String),
}

impl<'a> Walk<'a, '_> {
    /// Runs a hook. `reroute` is asked when OUTPUT changed what routing looks
    /// at (`ip_route_me_harder`).
    pub(super) fn hook(
        &mut self,
        host: &'a Host,
        hook: Hook,
        ends: Ends,
        skb: &mut Skb,
        reroute: &mut dyn FnMut(&mut Self, &Skb) -> Reroute,
    ) -> HookEnd {
        let family = skb.packet.family();
        let unknown = match family {
            crate::addr::Family::Ipv4 => crate::model::Part::Firewall4,
            crate::addr::Family::Ipv6 => crate::model::Part::Firewall6,
        };
        if host.unknown.contains(&unknown) {
            self.untold(format!("{}: the {unknown} is not in the snapshot", host.name));
        }
        if let Some(either) = tied(host, hook, family) {
            self.untold(format!("{}: which runs first, {either}", host.name));
        }
        let legacy_first = self.legacy_first(host, hook, family);
        for item in order(host, hook, family, ends.output, legacy_first) {
            match item {
                Item::Track if tracks(host, skb.packet.family()) => self.track(host, skb),
                Item::Track => {}
                Item::Confirm => self.confirm(host, skb),
                Item::Nat(chains) => {
                    let before = skb.packet.dst;
                    if let Some(end) = self.nat(host, hook, ends, skb, &chains) {
                        return end;
                    }
                    if hook == Hook::Output && skb.packet.dst != before {
                        if let Reroute::Failed(errno) = reroute(self, skb) {
                            return HookEnd::Unroutable(errno);
                        }
                    }
                }
                Item::Chain(table, chain) => {
                    let routes = hook == Hook::Output
                        && chain.base.is_some_and(|b| b.kind == crate::model::ChainKind::Route);
                    // Only IPv6 counts its hop limit (ip6t_mangle_out, nf_route_table_hook6).
                    let hops = |p: &Packet| p.dst.is_ipv6().then_some(p.ttl);
                    let key = |s: &Skb| {
                        let packet = &s.packet;
                        (packet.mark, packet.src, packet.dst, packet.tos, hops(packet))
                    };
                    let before = key(skb);
                    match self.chain(host, hook, ends, skb, table, chain) {
                        ChainEnd::Accept => {}
                        ChainEnd::Drop(rule) => return HookEnd::Drop(rule),
                        ChainEnd::Reject(rule, with) => return HookEnd::Reject(rule, with),
                    }
                    if routes && key(skb) != before {
                        if let Reroute::Failed(errno) = reroute(self, skb) {
                            return HookEnd::Unroutable(errno);
                        }
                    }
                }
            }
        }
        HookEnd::Accept
    }

    fn untold(&mut self, what: String) {
        if !self.unknown.contains(&what) {
            self.unknown.push(what);
        }
    }

    /// Which back end's chains run first where priorities are equal.
    fn legacy_first(&mut self, host: &Host, hook: Hook, family: crate::addr::Family) -> bool {
        if !ambiguous(host, hook, family) {
            return true;
        }
        self.suppose(2, format!("{}: whether iptables-legacy or nft was registered first", host.name)) == 0
    }

    fn track(&mut self, host: &Host, skb: &mut Skb) {
        // Seen before: loopback, an answer attached to a connection, or
        // NOTRACK (nf_conntrack_in).
        if skb.is_tracked() {
            return;
        }
        let zones = std::mem::take(&mut skb.zones);
        for (index, tuple) in self.world.connections(&host.name).by_chance(&skb.packet, zones) {
            let why = format!("{}: whether {} has a port that was picked by chance", host.name, skb.packet);
            if self.suppose(2, why) == 0 {
                self.world.connections(&host.name).picked(index, &tuple);
                break;
            }
        }
        let found = self.world.connections(&host.name).track(host, &skb.packet, zones);
        match found {
            Found::Existing(index, info) => {
                skb.tracked = Tracked::Known(index);
                skb.info = info;
            }
            Found::Opens(connection) => {
                skb.tracked = Tracked::New(connection);
                skb.info = Info::New;
            }
            Found::None(info) => skb.info = info,
        }
        self.events.push(Event::Tracked { host: host.name.clone(), state: skb.info.state() });
    }

    /// `nf_confirm`: only the packet that opened a connection confirms it, not
    /// an answer to it.
    fn confirm(&mut self, host: &Host, skb: &mut Skb) {
        if skb.info.direction() != crate::model::Direction::Original {
            return;
        }
        if let Tracked::New(connection) = &skb.tracked {
            let known = self.world.connections(&host.name);
            let mut connection = connection.as_ref().clone();
            connection.confirmed = true;
            let zones = (connection.original_zone, connection.reply_zone);
            let others = known.0.iter().map(|c| (c.original_zone, c.reply_zone));
            if may_clash(zones, others) {
                self.unknown.push(format!("{}: {CLASH}", host.name));
            }
            let known = self.world.connections(&host.name);
            known.0.push(connection);
            skb.tracked = Tracked::Known(known.0.len() - 1);
        }
    }

    /// NAT at a hook (`nf_nat_inet_fn`): chains are asked only about the first
    /// packet of a connection; every packet is then rewritten as settled.
    fn nat(
        &mut self,
        host: &'a Host,
        hook: Hook,
        ends: Ends,
        skb: &mut Skb,
        chains: &[(&'a crate::model::Table, &'a crate::model::Chain)],
    ) -> Option<HookEnd> {
        let end = match hook {
            Hook::Prerouting | Hook::Output => End::Destination,
            _ => End::Source,
        };
        let connection = self.connection(host, skb)?.clone();
        let error =
            matches!(skb.info, Info::Related | Info::RelatedReply) && skb.packet.transport.icmp().is_some();
        let settled = match end {
            End::Source => connection.source_done,
            End::Destination => connection.destination_done,
        };
        if error && matches!(skb.packet.transport, crate::model::Transport::Icmp { kind: 5, .. }) {
            // Redirects about translated connections are dropped.
            if connection.snat || connection.dnat {
                self.unknown.push(format!("{}: an ICMP redirect about a translated connection", host.name));
            }
            return None;
        }
        let opens = matches!(skb.info, Info::New | Info::Related | Info::RelatedReply);
        let mut by = None;
        if opens && !error && !settled {
            for (table, chain) in chains {
                match self.chain(host, hook, ends, skb, table, chain) {
                    ChainEnd::Accept => {}
                    ChainEnd::Drop(rule) => return Some(HookEnd::Drop(rule)),
                    ChainEnd::Reject(rule, with) => return Some(HookEnd::Reject(rule, with)),
                }
                let done = self.connection(host, skb).is_some_and(|c| match end {
                    End::Source => c.source_done,
                    End::Destination => c.destination_done,
                });
                if done {
                    by = self.last_rule(host, table, chain);
                    break;
                }
            }
            // nf_nat_alloc_null_binding: the end stays, unless its port is taken.
            self.settle(host, skb, end, nat::Mapping::default());
        }
        let connection = self.connection(host, skb)?.clone();
        let before = skb.packet.clone();
        if nat::translate(&mut skb.packet, &connection, skb.info, end) && skb.packet != before {
            self.events.push(Event::Rewritten {
                host: host.name.clone(),
                hook,
                by: by.map(Box::new),
                before: Box::new(before),
                after: Box::new(skb.packet.clone()),
            });
        }
        None
    }

    /// Settles one end of a packet's connection, if that is still open.
    pub(super) fn settle(&mut self, host: &Host, skb: &mut Skb, end: End, mapping: nat::Mapping) {
        let Some(mut connection) = self.connection(host, skb).cloned() else { return };
        let done = match end {
            End::Source => connection.source_done,
            End::Destination => connection.destination_done,
        };
        if done {
            return;
        }
        nat::settle(self.world.connections(&host.name), &mut connection, end, mapping);
        match &mut skb.tracked {
            Tracked::New(own) => **own = connection,
            Tracked::Known(index) => {
                if let Some(known) = self.world.connections(&host.name).0.get_mut(*index) {
                    *known = connection;
                }
            }
            Tracked::None => {}
        }
    }

    /// The connection of a packet.
    pub(super) fn connection<'s>(
        &'s mut self,
        host: &Host,
        skb: &'s Skb,
    ) -> Option<&'s crate::semantics::conntrack::Connection> {
        match &skb.tracked {
            Tracked::None => None,
            Tracked::New(connection) => Some(connection),
            Tracked::Known(index) => self.world.connections(&host.name).0.get(*index),
        }
    }

    /// Changes the mark of a packet's connection.
    pub(super) fn set_connection_mark(&mut self, host: &Host, skb: &mut Skb, mark: u32) {
        match &mut skb.tracked {
            Tracked::None => {}
            Tracked::New(connection) => connection.mark = mark,
            Tracked::Known(index) => {
                if let Some(connection) = self.world.connections(&host.name).0.get_mut(*index) {
                    connection.mark = mark;
                }
            }
        }
    }
}
