//! Tunnels for flows: VXLAN, GRE and its like, WireGuard.

use std::net::IpAddr;

use ipnet::IpNet;

use super::engine::{constant_address, Symbolic};
use super::flow::{Carried, Ends, Flow, Inside, Now, Way};
use super::walk::Step;
use super::way::{Asked, Routed};
use crate::addr::{Family, Mac};
use crate::model::{Host, Interface, InterfaceKind, PortValue, Stage, Tunnel, Vxlan, Wireguard};
use crate::semantics::icmp::default_ttl;
use crate::semantics::tunnel::{
    protocol, room, sends, shunned, taker, tells_of_no_route, too_big, vtep, vxlan_overhead, wireguard_length,
};
use crate::space::{Error, Field, Ref, Source};

/// An outer packet to be.
struct Outer<'s> {
    src: Option<IpAddr>,
    dst: IpAddr,
    protocol: u8,
    /// The source port, and the destination port.
    ports: Option<(PortValue, u16)>,
    ttl: u8,
    length: u32,
    df: bool,
    /// Its mark, and the one that routing is asked with.
    marks: (u32, u32),
    link: Option<&'s str>,
    /// Whether somebody is told where there is no route.
    told: bool,
}

impl<'a> Symbolic<'a> {
    /// Wraps packets and routes the outer ones, which are the host's own: each
    /// with the way.
    fn wrap(
        &mut self,
        host: &'a Host,
        device: &'a Interface,
        carried: Carried,
        outer: &Outer,
        flow: Flow,
    ) -> Result<Vec<(Way<'a>, Flow)>, Error> {
        let tunnel = (host.name.clone(), device.name.clone());
        if flow.inside.iter().any(|i| i.tunnel == tunnel) {
            self.dropped(flow, &host.name, Stage::TunnelLoop);
            return Ok(Vec::new());
        }
        let family = Family::of(outer.dst);
        let constant = Source::constant;
        let src = outer.src.filter(|a| Family::of(*a) == family).map(|a| constant_address(Field::Src, a));
        let mut wrapped = flow.clone().scrubbed();
        wrapped.inside.push(Inside {
            tunnel,
            carried,
            tags: std::mem::take(&mut wrapped.tags),
            now: flow.now.clone(),
            kind: flow.kind,
            fresh: flow.fresh,
        });
        let protocol = constant(Field::Protocol, outer.protocol.into());
        wrapped.kind = (constant(Field::Family, u128::from(family == Family::Ipv6)), protocol);
        let (sport, fresh) = match outer.ports {
            Some((PortValue::Fresh(range), _)) => (Source::keep(Field::FreshPort), Some(range)),
            Some((PortValue::Is(port), _)) => (constant(Field::Sport, port.into()), None),
            None => (constant(Field::Sport, 0), None),
        };
        wrapped.now = Now {
            ends: Ends {
                src: src.unwrap_or(constant(Field::Src, 0)),
                dst: constant_address(Field::Dst, outer.dst),
                sport,
                dport: constant(Field::Dport, outer.ports.map_or(0, |(_, dport)| dport).into()),
            },
            tos: constant(Field::Tos, 0),
            fixed: vec![
                (Field::IcmpType, 0),
                (Field::IcmpCode, 0),
                (Field::TcpFlags, 0),
                (Field::SctpInit, 0),
            ],
            ttl: outer.ttl,
            length: outer.length,
            df: outer.df,
            fragment: None,
            mark: outer.marks.1,
        };
        wrapped.fresh = fresh;
        let asked = Asked {
            src,
            oif: outer.link,
            vrf: None,
            tos: constant(Field::Tos, 0),
            protocol: Some(protocol),
            ports: outer.ports.is_some(),
        };
        let mut ways = Vec::new();
        for (routed, mut part) in self.route_out(host, &wrapped, asked)? {
            match routed {
                Routed::By(way, _) if way.device.name == device.name => {
                    self.dropped(part, &host.name, Stage::TunnelLoop);
                }
                Routed::By(way, chosen) => {
                    part.now.mark = outer.marks.0;
                    if let Some(chosen) = chosen {
                        part.now.ends.src = chosen;
                    }
                    ways.push((way, part));
                }
                Routed::Errno(_) if outer.told => self.refused_at(part, &host.name, Stage::HostUnreachable),
                Routed::Errno(_) => self.dropped(part, &host.name, Stage::NoRoute),
                Routed::Unknown(why) => self.dropped(part, &host.name, Stage::Unmodelled(why)),
            }
        }
        Ok(ways)
    }

    /// Into a VXLAN.
    pub(super) fn encapsulate(
        &mut self,
        host: &'a Host,
        device: &'a Interface,
        vxlan: &'a Vxlan,
        macs: (Mac, Mac),
        flow: Flow,
    ) -> Result<(), Error> {
        let (found, sure) = vtep(self.lab, host, device, vxlan, macs.1);
        let Some((remote, port, vni)) = found else {
            self.dropped(flow, &host.name, Stage::Silent);
            return Ok(());
        };
        let flow = match sure {
            true => flow,
            false => flow.claimless(&[format!("{}: a frame to every peer of {}", host.name, device.name)]),
        };
        let family = Family::of(remote);
        let overhead = vxlan_overhead(family);
        let outer = Outer {
            src: vxlan.local,
            dst: remote,
            protocol: 17,
            ports: Some((PortValue::EPHEMERAL, port)),
            ttl: if vxlan.ttl == 0 { default_ttl(host, family) } else { vxlan.ttl },
            length: flow.now.on_wire() + overhead,
            df: false,
            marks: (flow.now.mark, flow.now.mark),
            link: vxlan.link.as_deref(),
            told: false,
        };
        let master = device.master.as_deref().and_then(|m| host.interface(m));
        let bridged = master.is_some_and(|m| matches!(m.kind, InterfaceKind::Bridge(_)));
        let answers = bridged && !flow.sent && flow.tags.is_empty();
        for (way, part) in self.wrap(host, device, Carried::Vxlan { vni, macs }, &outer, flow)? {
            let mut silent = vec![part];
            if answers && outer.length > way.mtu() {
                let room = way.mtu().saturating_sub(overhead);
                let (told, others) = self.told_too_big(silent.remove(0), room)?;
                silent = others;
                for part in told {
                    self.refused_at(part, &host.name, Stage::Mtu);
                }
            }
            for part in silent {
                self.local_out(host, way, part)?;
            }
        }
        Ok(())
    }

    /// Wrapped packets that are answered as if by their receiver, and the
    /// others ([`crate::semantics::icmp::too_big_for_tunnel`]).
    fn told_too_big(&mut self, flow: Flow, room: u32) -> Result<(Vec<Flow>, Vec<Flow>), Error> {
        let Some(inside) = flow.inside.last() else { return Ok((Vec::new(), vec![flow])) };
        let mut inner = flow.clone();
        (inner.now, inner.kind, inner.fresh) = (inside.now.clone(), inside.kind, inside.fresh);
        let v4 = inner.family(&self.sets.store) != Some(Family::Ipv6);
        let fits = if v4 { inside.now.df && room >= 576 } else { room >= 1280 };
        if !fits {
            return Ok((Vec::new(), vec![flow]));
        }
        let store = &mut self.sets.store;
        let mut untold = Ref::NONE;
        let strange: &[&str] = match v4 {
            true => &["224.0.0.0/4", "127.0.0.0/8", "0.0.0.0/32"],
            false => &["ff00::/8", "::1/128", "::/128"],
        };
        for net in strange.iter().filter_map(|net| net.parse().ok()) {
            for field in [Field::Src, Field::Dst] {
                let bad = store.in_prefix(field, net)?;
                untold = store.or_else(untold, bad)?;
            }
        }
        let protocol = store.value(Field::Protocol, if v4 { 1 } else { 58 })?;
        let kinds: &[(u128, u128)] = if v4 { &[(3, 5), (11, 12)] } else { &[(0, 127)] };
        for (low, high) in kinds {
            let errors = store.range(Field::IcmpType, *low, *high)?;
            let errors = store.guard(protocol, errors)?;
            untold = store.or_else(untold, errors)?;
        }
        let (untold, told) = self.divide(inner, untold)?;
        let outer = |parts: Vec<Flow>| parts.iter().map(|part| flow.part(part.set)).collect();
        Ok((outer(told), outer(untold)))
    }

    /// Into GRE, IPIP, SIT or ip6tnl.
    pub(super) fn tunnel_out(
        &mut self,
        host: &'a Host,
        device: &'a Interface,
        tunnel: &'a Tunnel,
        macs: (Mac, Mac),
        flow: Flow,
    ) -> Result<(), Error> {
        let Some(inner) = flow.family(&self.sets.store) else { return Ok(()) };
        let foreign = tunnel.inside.is_some_and(|only| only != inner) && !tunnel.kind.is_ethernet();
        if foreign || (tunnel.kind.is_gre() && !sends(host, tunnel)) {
            self.dropped(flow, &host.name, Stage::Silent);
            return Ok(());
        }
        let (src, shunned) = (flow.now.ends.src, shunned(tunnel));
        let nets = || shunned.map(IpNet::from).into_iter().collect();
        for (never, flow) in self.by_address(&flow, src, nets, |a| Some(a) == shunned)? {
            match never {
                true => self.dropped(flow, &host.name, Stage::Silent),
                false => self.tunnelled(host, device, (tunnel, inner), macs, flow)?,
            }
        }
        Ok(())
    }

    /// The outer packets of what a tunnel wraps.
    fn tunnelled(
        &mut self,
        host: &'a Host,
        device: &'a Interface,
        (tunnel, inner): (&'a Tunnel, Family),
        macs: (Mac, Mac),
        flow: Flow,
    ) -> Result<(), Error> {
        let Some(remote) = tunnel.remote else {
            let what = format!("where {} without a remote sends to", device.name);
            self.dropped(flow, &host.name, Stage::Unmodelled(what));
            return Ok(());
        };
        if !sends(host, tunnel) {
            match flow.sent {
                true => self.refused_at(flow, &host.name, Stage::HostUnreachable),
                false => self.dropped(flow, &host.name, Stage::NoRoute),
            }
            return Ok(());
        }
        let number = protocol(tunnel, inner);
        let carried = match tunnel.kind.is_ethernet() {
            true => Carried::Frame { key: tunnel.key_out, macs },
            false => Carried::Packet { protocol: number, key: tunnel.key_out },
        };
        let outer = Outer {
            src: tunnel.local,
            dst: remote,
            protocol: number,
            ports: None,
            ttl: if tunnel.ttl == 0 { flow.now.ttl } else { tunnel.ttl },
            length: flow.now.on_wire() + tunnel.overhead(),
            df: false,
            marks: (flow.now.mark, 0),
            link: tunnel.link.as_deref(),
            told: tells_of_no_route(tunnel) && flow.sent,
        };
        let (df, length, sent) = (flow.now.df, flow.now.on_wire(), flow.sent);
        for (way, mut part) in self.wrap(host, device, carried, &outer, flow)? {
            let (outer_df, room) = room(tunnel, device, way.mtu(), inner, df);
            part.now.df = outer_df;
            match too_big(tunnel, inner, df, length, room) {
                Some(_) if sent => self.refused_at(part, &host.name, Stage::Mtu),
                // A bridged frame has no route to answer by.
                Some(_) => self.dropped(part, &host.name, Stage::Mtu),
                None => self.local_out(host, way, part)?,
            }
        }
        Ok(())
    }

    /// Into WireGuard: to the peer that the destination belongs to.
    pub(super) fn encrypt(
        &mut self,
        host: &'a Host,
        device: &'a Interface,
        settings: &'a Wireguard,
        flow: Flow,
    ) -> Result<(), Error> {
        let dst = flow.now.ends.dst;
        let nets = || settings.peers.iter().flat_map(|p| p.allowed.clone()).collect();
        let peers = self.by_address(&flow, dst, nets, |a| settings.peer(a).map(|p| &p.public_key))?;
        for (peer, flow) in peers {
            let peer = settings.peers.iter().find(|p| Some(&p.public_key) == peer);
            let Some((peer, endpoint)) = peer.and_then(|p| p.endpoint.map(|e| (p, e))) else {
                self.refused_at(flow, &host.name, Stage::HostUnreachable);
                continue;
            };
            let flow = match peer.heard {
                true => flow,
                false => {
                    let why = format!("{}: whether {} shakes hands with its peer", host.name, device.name);
                    flow.claimless(&[why])
                }
            };
            let family = Family::of(endpoint.ip());
            let outer = Outer {
                src: None,
                dst: endpoint.ip(),
                protocol: 17,
                ports: Some((PortValue::Is(settings.port), endpoint.port())),
                ttl: default_ttl(host, family),
                length: wireguard_length(family, device, flow.now.on_wire()),
                df: false,
                marks: (settings.mark, settings.mark),
                link: None,
                told: false,
            };
            let carried =
                Carried::Encrypted { from: settings.public_key.clone(), to: peer.public_key.clone() };
            for (way, part) in self.wrap(host, device, carried, &outer, flow)? {
                self.local_out(host, way, part)?;
            }
        }
        Ok(())
    }

    /// Takes packets out of a tunnel again, at the device that is its end.
    pub(super) fn decapsulate(&mut self, host: &'a Host, flow: Flow) -> Result<(), Error> {
        let Some(inside) = flow.inside.last().cloned() else { return Ok(()) };
        let dport = flow.now.ends.dport.value as u16;
        let wireguard =
            |i: &&Interface| matches!(&i.kind, InterfaceKind::Wireguard(w) if i.up && w.port == dport);
        match &inside.carried {
            Carried::Vxlan { vni, macs } => {
                let is = |i: &&Interface| {
                    i.up && matches!(&i.kind, InterfaceKind::Vxlan(v) if v.vni == *vni && v.port == dport)
                };
                match host.interfaces.iter().find(is) {
                    Some(device) => self.unwrapped(host, device, *macs, flow, None),
                    None => self.dropped(flow, &host.name, Stage::TunnelUnknown),
                }
            }
            Carried::Packet { protocol, key } => self.taken_out(host, flow, *protocol, *key, None)?,
            Carried::Frame { key, macs } => self.taken_out(host, flow, 47, *key, Some(*macs))?,
            Carried::Encrypted { from, to } => {
                let found = host.interfaces.iter().find(wireguard).and_then(|i| match &i.kind {
                    InterfaceKind::Wireguard(w) if w.public_key == *to => Some((i, w)),
                    _ => None,
                });
                let Some((device, settings)) =
                    found.filter(|(_, w)| w.peers.iter().any(|p| p.public_key == *from))
                else {
                    self.dropped(flow, &host.name, Stage::TunnelUnknown);
                    return Ok(());
                };
                let nets = || settings.peers.iter().flat_map(|p| p.allowed.clone()).collect();
                let mut inner = flow.clone();
                inner.kind = inside.kind;
                let src = inside.now.ends.src;
                let sources =
                    self.by_address(&inner, src, nets, |a| settings.peer(a).map(|p| &p.public_key))?;
                for (peer, part) in sources {
                    let part = Flow { set: part.set, ..flow.clone() };
                    match peer {
                        Some(peer) if peer == from => {
                            self.unwrapped(host, device, (Mac::ZERO, Mac::ZERO), part, Some(0));
                        }
                        _ => self.dropped(part, &host.name, Stage::WireguardAllowedIps),
                    }
                }
            }
        }
        Ok(())
    }

    /// Out of GRE and the like: by the tunnel whose ends these are, for each
    /// source that they may have.
    fn taken_out(
        &mut self,
        host: &'a Host,
        flow: Flow,
        number: u8,
        key: Option<u32>,
        macs: Option<(Mac, Mac)>,
    ) -> Result<(), Error> {
        let ends: Vec<IpAddr> = host
            .interfaces
            .iter()
            .filter_map(|i| match &i.kind {
                InterfaceKind::Tunnel(tunnel) => Some([tunnel.remote, tunnel.local]),
                _ => None,
            })
            .flatten()
            .flatten()
            .collect();
        let nets = || ends.iter().map(|a| ipnet::IpNet::from(*a)).collect();
        let src = flow.now.ends.src;
        for (from, part) in self.by_address(&flow, src, nets, |a| a)? {
            let dst = part.now.ends.dst;
            let nets = || ends.iter().map(|a| ipnet::IpNet::from(*a)).collect();
            for (device, part) in self.by_address(&part, dst, nets, |to| {
                taker(host, (from, to), number, key, macs.is_some()).map(|i| &i.name)
            })? {
                match device.and_then(|name| host.interface(name)) {
                    Some(device) => {
                        let macs = macs.unwrap_or((Mac::ZERO, Mac::ZERO));
                        self.unwrapped(host, device, macs, part, None);
                    }
                    None => self.refused_at(part, &host.name, Stage::TunnelUnknown),
                }
            }
        }
        Ok(())
    }

    /// Goes on with what was inside, at a device; with a mark of its own, or
    /// the outer packet's.
    fn unwrapped(
        &mut self,
        host: &'a Host,
        device: &'a Interface,
        macs: (Mac, Mac),
        mut flow: Flow,
        mark: Option<u32>,
    ) {
        let Some(inside) = flow.inside.pop() else { return };
        let mark = mark.unwrap_or(flow.now.mark);
        let mut inner = flow.scrubbed();
        inner.now = Now { mark, ..inside.now };
        inner.kind = inside.kind;
        inner.fresh = inside.fresh;
        inner.tags = inside.tags;
        self.push(Step::Arrive(host, device, macs, inner));
    }
}
