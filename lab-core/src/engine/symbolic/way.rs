//! Routing and neighbours for flows: how they leave a host.

use std::net::IpAddr;

use ipnet::IpNet;

use super::engine::{constant_address, Symbolic};
use super::flow::{Flow, Way};
use super::hook::Passing;
use crate::addr::Family;
use crate::model::{Host, InterfaceKind, RouteKind, Stage};
use crate::semantics::addrtype::may_send;
use crate::semantics::routing::{dissects, past_gateways, stays_on_link, DISSECTED};
use crate::semantics::sets::Route;
use crate::semantics::source;
use crate::space::{Error, Field, Mapping, Ref, Source};

/// Bytes of an 802.1Q tag, which devices allow beyond their MTU.
pub(super) const VLAN_TAG: u32 = 4;

/// What a host asks its routing for packets of its own.
#[derive(Clone, Copy, Debug)]
pub(super) struct Asked<'s> {
    /// The source; none: not chosen yet.
    pub src: Option<Source>,
    /// The interface they must leave by.
    pub oif: Option<&'s str>,
    /// The VRF whose table is asked; none: that of the interface.
    pub vrf: Option<&'s str>,
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
        let routing = self.sets.routing(host, family, asked.oif, asked.vrf)?;
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
                let v6 = flow.family(&self.sets.store) == Some(Family::Ipv6);
                match (asked.src, route.prefsrc) {
                    (Some(_), _) => done.push((Routed::By(way, None), flow)),
                    (None, _) if v6 => {
                        let inside = asked.oif.and_then(|oif| host.vrf_of(oif));
                        let hop = hops.first().map(|(r, h)| &host.routes[*r].next_hops[*h]);
                        let dst = flow.now.ends.dst;
                        for (src, part) in self.by_address(
                            &flow,
                            dst,
                            || own_nets(host),
                            |a| source::for_local(host, route, hop, a, inside),
                        )? {
                            done.push(match src {
                                Some(a) => (Routed::By(way, Some(constant_address(Field::Src, a))), part),
                                None => (Routed::Errno("EADDRNOTAVAIL"), part),
                            });
                        }
                    }
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
                let dst = flow.now.ends.dst;
                let many = || ["224.0.0.0/4", "255.255.255.255/32"].iter().filter_map(|n| n.parse().ok());
                let to =
                    |a: IpAddr| (past_gateways(route, a), matches!(a, IpAddr::V4(a) if a.is_broadcast()));
                for ((past, all), part) in self.by_address(&flow, dst, || many().collect(), to)? {
                    for (way, flow) in self.ways(host, index, &hops, part) {
                        let Some(way) = way else {
                            done.push((Routed::Errno("ENETUNREACH"), flow));
                            continue;
                        };
                        let gateway = way.gateway.filter(|_| !past);
                        let way = Way { gateway, broadcast: all || way.broadcast, ..way };
                        self.with_source(host, asked, index, &hops, way, flow, done)?;
                    }
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
        let inside = asked.oif.and_then(|oif| host.vrf_of(oif));
        // Only IPv6 chooses by destination.
        let nets = if v6 { own_nets(host) } else { Vec::new() };
        for (src, part) in
            self.by_address(&flow, dst, || nets, |a| source::for_route(host, route, taken, a, inside))?
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
        let parts = self.by_address(&flow, src, nets, |a| may_send(host, a))?;
        let family = flow.family(&self.sets.store).unwrap_or(Family::Ipv4);
        let before = way.map(|way| way.device.name.as_str());
        let vrf = before.and_then(|device| host.vrf_of(device)).map(|vrf| vrf.name.as_str());
        for (keep, part) in parts {
            let (keep, part) = match keep {
                Ok(keep) => (keep, part),
                Err(why) => (true, part.claimless(&[format!("{}: {why}", host.name)])),
            };
            let linked = ["fe80::/10", "ff00::/8"].into_iter().filter_map(|net| net.parse().ok());
            let dst = part.now.ends.dst;
            for (linked, part) in self.by_address(&part, dst, || linked.collect(), stays_on_link)? {
                let told = match dissects(host, family) {
                    true => vec![false, true],
                    false => vec![false],
                };
                let why = format!("{}: {DISSECTED}", host.name);
                for (told, part) in Self::either(&part, told, &why) {
                    let asked = Asked {
                        src: keep.then_some(src),
                        oif: before.filter(|_| linked),
                        vrf,
                        tos: part.now.tos,
                        protocol: told.then_some(part.kind.1),
                        ports: told,
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
            }
        }
        Ok(())
    }
}

fn groups() -> IpNet {
    // 224.0.0.0/4 is well formed.
    IpNet::V4(ipnet::Ipv4Net::new_assert(std::net::Ipv4Addr::new(224, 0, 0, 0), 4))
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
