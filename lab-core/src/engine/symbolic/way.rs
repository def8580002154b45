//! Routing and neighbours for flows: how they leave a host.

use std::net::IpAddr;

use ipnet::IpNet;

use super::engine::{address, constant_address, Symbolic};
use super::flow::{Flow, HookEnds, Tracked, Way};
use super::hook::Passing;
use super::walk::Step;
use crate::addr::{Family, Mac};
use crate::model::{
    AddressType, Hook, HopDirection, Host, Interface, InterfaceKind, Lab, Packet, Payload, RouteKind, Stage,
    Transport,
};
use crate::semantics::addrtype::address_type;
use crate::semantics::conntrack::Info;
use crate::semantics::hooks::{alters_in_nat, TWICE};
use crate::semantics::segment::{behind, resolve, Resolved};
use crate::semantics::sets::Route;
use crate::semantics::source;
use crate::space::{Error, Field, Mapping, Ref, Source};

/// Bytes of an 802.1Q tag, which devices allow beyond their MTU.
pub(super) const VLAN_TAG: u32 = 4;

/// Stands for the address of whoever answers outside the lab: nobody's inside.
const SOMEBODY_OUTSIDE: Mac = Mac([0x02, 0xff, 0xff, 0xff, 0xff, 0xff]);

/// What a host asks its routing for packets of its own.
#[derive(Clone, Copy, Debug)]
pub(super) struct Asked<'s> {
    /// The source; none: not chosen yet.
    pub src: Option<Source>,
    /// The interface they must leave by.
    pub oif: Option<&'s str>,
    /// Type of service.
    pub tos: Source,
    /// The protocol, where the look-up knows it.
    pub protocol: Option<Source>,
    /// Whether the look-up knows the ports.
    pub ports: bool,
}

/// What routing says to packets of a host's own.
#[derive(Clone, Debug)]
pub(super) enum Routed<'a> {
    /// The way, and the source if it was to be chosen.
    By(Way<'a>, Option<Source>),
    /// The sending call fails with this errno name.
    Errno(&'static str),
    /// It depends on what is not modelled.
    Unknown(String),
}

impl<'a> Symbolic<'a> {
    /// Routes packets of the host's own (`ip_route_output_key`).
    pub(super) fn route_out(
        &mut self,
        host: &'a Host,
        flow: &Flow,
        asked: Asked,
    ) -> Result<Vec<(Routed<'a>, Flow)>, Error> {
        let Some(family) = flow.family(&self.sets.store) else { return Ok(Vec::new()) };
        let mut done = Vec::new();
        let mut flows = vec![flow.clone()];
        if family == Family::Ipv4 {
            if let Some(src) = asked.src {
                // Groups and everybody: by the device that has the source.
                let group = self.sets.store.in_prefix(Field::Dst, groups())?;
                let all =
                    self.sets.store.is_address(Field::Dst, IpAddr::V4(std::net::Ipv4Addr::BROADCAST))?;
                let either = self.sets.store.or_else(group, all)?;
                let mut inside = Vec::new();
                for flow in std::mem::take(&mut flows) {
                    let (these, others) = self.divide(flow, either)?;
                    inside.extend(these);
                    flows.extend(others);
                }
                for flow in inside {
                    let own: Vec<IpNet> = host
                        .interfaces
                        .iter()
                        .flat_map(|i| &i.addresses)
                        .map(|a| IpNet::from(a.address))
                        .collect();
                    let told =
                        self.by_address(&flow, src, || own, |a| host.interface_with(a).map(|i| &i.name))?;
                    for (device, part) in told {
                        let device = device.and_then(|name| host.interface(name));
                        let (to_all, to_group) = self.divide(part, all)?;
                        for (parts, broadcast) in [(to_all, true), (to_group, false)] {
                            for part in parts {
                                done.push(match device {
                                    Some(d) if !broadcast && d.kind == InterfaceKind::Loopback => {
                                        (Routed::Unknown("multicast membership".into()), part)
                                    }
                                    Some(device) => {
                                        let way = Way { device, gateway: None, broadcast, mtu: None };
                                        (Routed::By(way, None), part)
                                    }
                                    None => (Routed::Errno("ENETUNREACH"), part),
                                });
                            }
                        }
                    }
                }
            }
        }
        let routing = self.sets.routing(host, family, asked.oif, None)?;
        for flow in flows {
            let mapping = self.asking(&flow, &asked);
            for (leaf, part) in self.split(&flow, routing, &mapping, &|_, _| Vec::new())? {
                let Some(route) = self.sets.route(leaf).cloned() else { continue };
                self.routed(host, &asked, route, part, &mut done)?;
            }
        }
        Ok(done)
    }

    /// What a program of the host sends to nowhere goes to the host itself; and
    /// the rest of the flow.
    #[allow(clippy::type_complexity)]
    pub(super) fn nowhere_bound(
        &mut self,
        host: &'a Host,
        flow: Flow,
        raw: bool,
    ) -> Result<(Vec<(Routed<'a>, Flow)>, Vec<Flow>), Error> {
        let store = &mut self.sets.store;
        let mut nowhere = Ref::NONE;
        for address in
            [IpAddr::V4(std::net::Ipv4Addr::UNSPECIFIED), IpAddr::V6(std::net::Ipv6Addr::UNSPECIFIED)]
        {
            let family = store.family(Family::of(address))?;
            let to = store.is_address(Field::Dst, address)?;
            let to = store.guard(family, to)?;
            nowhere = store.or_else(nowhere, to)?;
        }
        let (inside, outside) = self.divide(flow, nowhere)?;
        let loopback = host.interfaces.iter().find(|i| i.kind == InterfaceKind::Loopback);
        let done = inside.into_iter().map(|part| match loopback {
            Some(device) if raw => {
                (Routed::By(Way { device, gateway: None, broadcast: false, mtu: None }, None), part)
            }
            _ => (Routed::Unknown("a socket sends to no address".into()), part),
        });
        Ok((done.collect(), outside))
    }

    fn asking(&mut self, flow: &Flow, asked: &Asked) -> Mapping {
        let mut mapping = flow.mapping();
        let lo = self.sets.names.number("lo");
        mapping.set(Field::Iif, Source::constant(Field::Iif, lo.into()));
        mapping.set(Field::Src, asked.src.unwrap_or(Source::constant(Field::Src, 0)));
        mapping.set(Field::Tos, asked.tos);
        mapping.set(Field::Protocol, asked.protocol.unwrap_or(Source::constant(Field::Protocol, 0)));
        mapping.set(Field::PortsTold, Source::constant(Field::PortsTold, asked.ports.into()));
        mapping
    }

    fn routed(
        &mut self,
        host: &'a Host,
        asked: &Asked,
        route: Route,
        flow: Flow,
        done: &mut Vec<(Routed<'a>, Flow)>,
    ) -> Result<(), Error> {
        let (index, hops) = match route {
            Route::Unknown(why) => {
                done.push((Routed::Unknown(why), flow));
                return Ok(());
            }
            Route::NoRoute => {
                done.push((Routed::Errno("ENETUNREACH"), flow));
                return Ok(());
            }
            Route::Refused(kind) => {
                let errno = match kind {
                    RouteKind::Prohibit => "EACCES",
                    RouteKind::Blackhole => "EINVAL",
                    _ => "EHOSTUNREACH",
                };
                done.push((Routed::Errno(errno), flow));
                return Ok(());
            }
            Route::Found(index, hops) => (index, hops),
        };
        let route = &host.routes[index];
        match route.kind {
            RouteKind::Local | RouteKind::Anycast => {
                // Inside a VRF, its device is the loopback.
                let there =
                    hops.first().and_then(|(r, h)| host.routes[*r].next_hops[*h].interface.as_deref());
                let vrf = there.and_then(|device| host.vrf_of(device));
                let loopback = || host.interfaces.iter().find(|i| i.kind == InterfaceKind::Loopback);
                let Some(device) = vrf.or_else(loopback) else {
                    done.push((Routed::Errno("ENETUNREACH"), flow));
                    return Ok(());
                };
                let way = Way { device, gateway: None, broadcast: false, mtu: None };
                match (asked.src, route.prefsrc) {
                    (Some(_), _) => done.push((Routed::By(way, None), flow)),
                    (None, Some(own)) => {
                        done.push((Routed::By(way, Some(constant_address(Field::Src, own))), flow));
                    }
                    (None, None) => {
                        let own = host.interfaces.iter().flat_map(|i| &i.addresses).map(|a| a.address);
                        let own: Vec<IpAddr> = own.collect();
                        let nets = || own.iter().map(|a| IpNet::from(*a)).collect();
                        let dst = flow.now.ends.dst;
                        for (src, part) in
                            self.by_address(&flow, dst, nets, |a| own.contains(&a).then_some(a))?
                        {
                            done.push(match src {
                                Some(a) => (Routed::By(way, Some(constant_address(Field::Src, a))), part),
                                None => (Routed::Unknown("a local address as its own source".into()), part),
                            });
                        }
                    }
                }
            }
            RouteKind::Multicast => done.push((Routed::Unknown("multicast".into()), flow)),
            _ => {
                for (way, flow) in self.ways(host, index, &hops, flow) {
                    let Some(way) = way else {
                        done.push((Routed::Errno("ENETUNREACH"), flow));
                        continue;
                    };
                    self.with_source(host, asked, index, &hops, way, flow, done)?;
                }
            }
        }
        Ok(())
    }

    /// The source of packets that go some way, where none is given.
    #[allow(clippy::too_many_arguments)]
    fn with_source(
        &mut self,
        host: &'a Host,
        asked: &Asked,
        index: usize,
        hops: &[(usize, usize)],
        way: Way<'a>,
        flow: Flow,
        done: &mut Vec<(Routed<'a>, Flow)>,
    ) -> Result<(), Error> {
        let route = &host.routes[index];
        let taken = hops
            .iter()
            .map(|(r, h)| &host.routes[*r].next_hops[*h])
            .find(|h| h.interface.as_deref() == Some(&way.device.name));
        let setting = |name: &str| host.sysctls.interface("ipv4", name, "route_localnet");
        let localnet = setting("all").max(setting(&way.device.name)).is_some_and(|v| v != 0);
        if let Some(src) = asked.src {
            // A loopback source stays inside (__mkroute_output).
            let mut here = Mapping::default();
            here.set(Field::Src, src);
            here.set(Field::Family, flow.kind.0);
            let loopback = match "127.0.0.0/8".parse::<IpNet>() {
                Ok(net) if !localnet => self.sets.store.in_prefix(Field::Src, net)?,
                _ => Ref::NONE,
            };
            let v4 = self.sets.store.family(Family::Ipv4)?;
            let loopback = self.sets.store.guard(v4, loopback)?;
            let bad = self.sets.store.pull_back(flow.set, loopback, &here)?;
            let good = self.sets.store.without(flow.set, bad)?;
            if !bad.is_none() {
                done.push((Routed::Errno("EINVAL"), flow.part(bad)));
            }
            if !good.is_none() {
                done.push((Routed::By(way, None), flow.part(good)));
            }
            return Ok(());
        }
        let dst = flow.now.ends.dst;
        let v6 = flow.family(&self.sets.store) == Some(Family::Ipv6);
        // Only IPv6 chooses by destination.
        let nets = if v6 { own_nets(host) } else { Vec::new() };
        for (src, part) in
            self.by_address(&flow, dst, || nets, |a| source::for_route(host, route, taken, a))?
        {
            done.push(match src {
                Some(IpAddr::V4(a)) if a.is_loopback() && !localnet => (Routed::Errno("EINVAL"), part),
                Some(a) => (Routed::By(way, Some(constant_address(Field::Src, a))), part),
                None => (Routed::Errno("EADDRNOTAVAIL"), part),
            });
        }
        Ok(())
    }

    /// One flow for each next hop of a route.
    pub(super) fn ways(
        &mut self,
        host: &'a Host,
        index: usize,
        hops: &[(usize, usize)],
        flow: Flow,
    ) -> Vec<(Option<Way<'a>>, Flow)> {
        let route = &host.routes[index];
        if hops.is_empty() {
            return vec![(None, flow)];
        }
        let why = format!("{}: which next hop the route {} takes", host.name, route.destination);
        Self::either(&flow, hops.to_vec(), &why)
            .into_iter()
            .map(|((r, h), flow)| {
                let hop = &host.routes[r].next_hops[h];
                let device = hop.interface.as_deref().and_then(|name| host.interface(name));
                let way = device.map(|device| Way {
                    device,
                    gateway: hop.gateway,
                    broadcast: route.kind == RouteKind::Broadcast,

                    mtu: route.mtu,
                });
                (way, flow)
            })
            .collect()
    }

    /// `ip_route_me_harder`: what routing looks at was changed in OUTPUT.
    pub(super) fn reroute(
        &mut self,
        host: &'a Host,
        flow: Flow,
        way: Option<Way<'a>>,
        next: &mut Vec<Passing<'a>>,
    ) -> Result<(), Error> {
        let src = flow.now.ends.src;
        // Nowhere is the host itself (ip_route_output_key_hash_rcu).
        let zero = || vec![IpNet::from(IpAddr::V4(std::net::Ipv4Addr::UNSPECIFIED))];
        let loopback = host.interfaces.iter().find(|i| i.kind == InterfaceKind::Loopback);
        let dst = flow.now.ends.dst;
        for (nowhere, part) in self.by_address(&flow, dst, zero, |a| a.is_ipv4() && a.is_unspecified())? {
            match loopback {
                _ if !nowhere => self.route_again(host, part, way, src, next)?,
                Some(device) => {
                    let way = Way { device, gateway: None, broadcast: false, mtu: None };
                    next.push((part, Some(way)));
                }
                None => self.dropped(part, &host.name, Stage::Send("ENETUNREACH".into())),
            }
        }
        Ok(())
    }

    fn route_again(
        &mut self,
        host: &'a Host,
        flow: Flow,
        way: Option<Way<'a>>,
        src: Source,
        next: &mut Vec<Passing<'a>>,
    ) -> Result<(), Error> {
        // What no route says: addresses that are nobody's by themselves.
        let special = ["0.0.0.0/32", "224.0.0.0/4", "255.255.255.255/32"].into_iter();
        let special = special.filter_map(|net| net.parse::<IpNet>().ok());
        let nets = || host.routes.iter().map(|r| r.destination).chain(special).collect();
        let parts = self.by_address(&flow, src, nets, |a| {
            a.is_ipv6() || matches!(address_type(host, a, None), AddressType::Local | AddressType::Unicast)
        })?;
        for (keep, part) in parts {
            let asked = Asked {
                src: keep.then_some(src),
                oif: None,
                tos: part.now.tos,
                protocol: None,
                ports: false,
            };
            for (routed, part) in self.route_out(host, &part, asked)? {
                match routed {
                    Routed::By(way, _) => next.push((part, Some(way))),
                    Routed::Errno(errno) => self.dropped(part, &host.name, Stage::Send(errno.into())),
                    Routed::Unknown(why) => {
                        next.push((part.claimless(&[format!("{}: {why}", host.name)]), way));
                    }
                }
            }
        }
        Ok(())
    }

    /// OUTPUT and what follows (`__ip_local_out`).
    pub(super) fn local_out(&mut self, host: &'a Host, way: Way<'a>, flow: Flow) -> Result<(), Error> {
        let vrf = host.vrf_of(&way.device.name).filter(|vrf| vrf.name != way.device.name);
        let flows = match vrf {
            Some(vrf) => self.vrf_out(host, vrf, way, flow)?,
            None => vec![flow],
        };
        let ends = HookEnds { input: None, output: Some(&way.device.name) };
        for flow in flows {
            for (flow, now) in self.hook(host, Hook::Output, ends, flow, Some(way))? {
                self.postrouting(host, None, now.unwrap_or(way), flow)?;
            }
        }
        Ok(())
    }

    /// A VRF's hooks see what the host sends first, as leaving by its device
    /// and untracked (`vrf_ip_out`, `vrf_nf_set_untracked`).
    fn vrf_out(
        &mut self,
        host: &'a Host,
        vrf: &'a Interface,
        way: Way<'a>,
        mut flow: Flow,
    ) -> Result<Vec<Flow>, Error> {
        let fresh = flow.tracked == Tracked::None && flow.info != Info::Untracked;
        if fresh {
            flow.info = Info::Untracked;
        }
        let ends = HookEnds { input: None, output: Some(&vrf.name) };
        let way = Way { device: vrf, ..way };
        let mut passed = Vec::new();
        for (flow, _) in self.hook(host, Hook::Output, ends, flow, None)? {
            for (mut flow, _) in self.hook(host, Hook::Postrouting, ends, flow, Some(way))? {
                if fresh {
                    flow.info = Info::Invalid;
                }
                passed.push(flow);
            }
        }
        Ok(passed)
    }

    /// What leaves a host (`ip_output`).
    pub(super) fn postrouting(
        &mut self,
        host: &'a Host,
        input: Option<&str>,
        way: Way<'a>,
        flow: Flow,
    ) -> Result<(), Error> {
        let ends = HookEnds { input, output: Some(&way.device.name) };
        for (mut flow, _) in self.hook(host, Hook::Postrouting, ends, flow, Some(way))? {
            if input.is_none() && way.broadcast && flow.family(&self.sets.store) == Some(Family::Ipv4) {
                let rewritten = flow.connection(&host.name).is_some_and(|c| c.rewritten.0);
                if rewritten || alters_in_nat(host) {
                    flow = flow.claimless(&[format!("{}: {TWICE}", host.name)]);
                }
            }
            self.transmit(host, way, flow)?;
        }
        Ok(())
    }

    /// The neighbour, then the device (`ip_finish_output2`).
    fn transmit(&mut self, host: &'a Host, way: Way<'a>, mut flow: Flow) -> Result<(), Error> {
        let device = way.device;
        if !device.up {
            self.dropped(flow, &host.name, Stage::LinkDown);
            return Ok(());
        }
        flow.sent = true;
        if matches!(device.kind, InterfaceKind::Loopback | InterfaceKind::Vrf(_)) {
            self.hop(&mut flow, host, device, HopDirection::Out);
            self.hop(&mut flow, host, device, HopDirection::In);
            flow.looped_back = true;
            flow.packet_type = crate::model::PacketType::Unicast;
            flow.bridged = None;
            self.push(Step::Receive(host, device, flow));
            return Ok(());
        }
        if flow.now.on_wire() > device.mtu {
            if flow.now.df || flow.family(&self.sets.store) == Some(Family::Ipv6) {
                // Only what did not ask before comes here: a tunnel's own packets.
                self.refused_at(flow, &host.name, Stage::Mtu);
                return Ok(());
            }
            flow.now.fragment = Some(device.mtu);
        }
        for (found, mut flow) in self.neighbours(host, way, flow)? {
            flow.tags.clear();
            let (mac, flow) = match found {
                Resolved::Mac(mac) => (mac, flow),
                Resolved::Unknown(why) => {
                    self.dropped(flow, &host.name, Stage::Unmodelled(why));
                    continue;
                }
                Resolved::Several(macs) => {
                    let why = format!("{}: who answers first", host.name);
                    for (mac, flow) in Self::either(&flow, macs, &why) {
                        self.device_out(host, device, (device.mac.unwrap_or(Mac::ZERO), mac), flow)?;
                    }
                    continue;
                }
                Resolved::Outside => {
                    let why = format!("{}: whether somebody answers outside the lab", host.name);
                    let flow = flow.possibly(&[why]);
                    self.refused_at(flow.clone(), &host.name, Stage::HostUnreachable);
                    (SOMEBODY_OUTSIDE, flow)
                }
                Resolved::Nobody => {
                    self.refused_at(flow, &host.name, Stage::HostUnreachable);
                    continue;
                }
            };
            self.device_out(host, device, (device.mac.unwrap_or(Mac::ZERO), mac), flow)?;
        }
        Ok(())
    }

    /// Whose address the next hop of packets is, for each part of them.
    pub(super) fn neighbours(
        &mut self,
        host: &'a Host,
        way: Way<'a>,
        flow: Flow,
    ) -> Result<Vec<(Resolved, Flow)>, Error> {
        let (lab, device) = (self.lab, way.device);
        let v6 = flow.family(&self.sets.store) == Some(Family::Ipv6);
        // ARP asks with the packet's source if that is the host's own.
        let own: Vec<IpAddr> = host.interfaces.iter().flat_map(|i| &i.addresses).map(|a| a.address).collect();
        let src = flow.now.ends.src;
        let asking = self.by_address(
            &flow,
            src,
            || own.iter().map(|a| IpNet::from(*a)).collect(),
            |a| own.contains(&a).then_some(a),
        )?;
        let unspecified = address(0, v6);
        let mut parts = Vec::new();
        for (asker, flow) in asking {
            let packet = |dst: IpAddr| Packet {
                // An address that is nobody's own stands for all others.
                src: asker.unwrap_or(unspecified),
                dst,
                ttl: 64,
                tos: 0,
                length: 28,
                df: false,
                fragment: None,
                mark: 0,
                transport: Transport::Other(0),
                payload: Payload::Data,
            };
            match way.gateway {
                Some(gateway) => {
                    let found = resolve(lab, host, device, gateway, way.broadcast, &packet(gateway));
                    parts.push((found, flow));
                }
                None => {
                    let dst = flow.now.ends.dst;
                    let told = self.by_address(
                        &flow,
                        dst,
                        || near(lab, host, device),
                        |a| resolve(lab, host, device, a, way.broadcast, &packet(a)),
                    )?;
                    parts.extend(told);
                }
            }
        }
        Ok(parts)
    }
}

fn groups() -> IpNet {
    // 224.0.0.0/4 is well formed.
    IpNet::V4(ipnet::Ipv4Net::new_assert(std::net::Ipv4Addr::new(224, 0, 0, 0), 4))
}

/// Where the answer to "who has this address" may change, on a segment.
fn near(lab: &Lab, host: &Host, device: &Interface) -> Vec<IpNet> {
    let mut nets: Vec<IpNet> = Vec::new();
    let mut of = |other: &Host| {
        nets.extend(other.interfaces.iter().flat_map(|i| &i.addresses).map(|a| IpNet::from(a.address)));
        nets.extend(other.routes.iter().map(|r| r.destination));
        nets.extend(other.rules.iter().filter_map(|r| r.destination));
        nets.extend(other.neighbours.iter().map(|n| IpNet::from(n.address)));
    };
    of(host);
    for receiver in behind(lab, host, device).receivers {
        of(receiver.host);
    }
    for special in ["0.0.0.0/32", "127.0.0.0/8", "224.0.0.0/4", "255.255.255.255/32", "ff00::/8"] {
        nets.extend(special.parse::<IpNet>());
    }
    // A group has a link-layer address of its own.
    nets
}

/// The subnets of a host, by which it chooses a source.
pub(super) fn own_nets(host: &Host) -> Vec<IpNet> {
    let mut nets: Vec<IpNet> = Vec::new();
    let v6 = host.interfaces.iter().flat_map(|i| &i.addresses);
    for address in v6 {
        match address.address {
            IpAddr::V4(_) => nets.extend(address.net()),
            // RFC 6724 counts the bits that a destination shares.
            IpAddr::V6(a) => nets.extend(
                (0..=address.prefix_len)
                    .chain([128])
                    .filter_map(|len| ipnet::Ipv6Net::new(a, len).ok())
                    .map(IpNet::V6),
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
    nets.extend(classes.iter().filter_map(|c| c.parse::<IpNet>().ok()));
    nets
}
