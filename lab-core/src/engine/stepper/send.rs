//! What a host sends: routing, OUTPUT, the neighbour, the device.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::hook::{Ends, HookEnd, Reroute};
use super::receive::kept;
use super::skb::Skb;
use super::{Sender, Step, Walk};
use crate::addr::{Family, Mac};
use crate::engine::journey::Event;
use crate::model::{
    AnswerKind, Decision, Frame, Hook, HopDirection, Host, Interface, InterfaceKind, MacvlanMode, NextHop,
    Outcome, Packet, PacketType, Place, Route, RouteKind, Stage,
};
use crate::semantics::addrtype::may_send;
use crate::semantics::conntrack::Info;
use crate::semantics::routing::{
    dissects, lookup, past_gateways, stays_on_link, vrf, Flow, Lookup, DISSECTED,
};
use crate::semantics::segment::{self, beyond, bond_ports, hidden, is_bridged, resolve, uppers, Resolved};
use crate::semantics::source;

/// Bytes of an 802.1Q tag, which devices allow beyond their MTU.
pub(super) const VLAN_TAG: u32 = 4;

/// Whether what a socket bound to a device sends to nowhere comes to the host
/// itself: IPv4 asks nothing, IPv6 looks for its loopback address by that device.
fn reaches_itself(host: &Host, family: Family, device: &str) -> bool {
    let flow = Flow { oif: Some(device), ..Flow::to(IpAddr::V6(Ipv6Addr::LOCALHOST)) };
    let local = |route: &Route| route.kind == RouteKind::Local;
    family == Family::Ipv4 || matches!(lookup(host, &flow), Lookup::Found(route, _) if local(route))
}

/// Stands for the address of whoever answers outside the lab: nobody's inside.
const SOMEBODY_OUTSIDE: Mac = Mac([0x02, 0xff, 0xff, 0xff, 0xff, 0xff]);

/// The way a packet leaves a host.
#[derive(Clone, Copy, Debug)]
pub(super) struct Way<'a> {
    pub device: &'a Interface,
    pub next_hop: IpAddr,
    pub broadcast: bool,
    /// Whether the destination is the host's own address.
    pub local: bool,
    /// The MTU that the route sets, in bytes.
    pub mtu: Option<u32>,
}

impl Way<'_> {
    /// The MTU there, in bytes: the route's, which is never more than the
    /// device's.
    pub fn mtu(&self) -> u32 {
        self.mtu.unwrap_or(self.device.mtu).min(self.device.mtu)
    }
}

/// Why a look-up for a packet of the host's own failed.
pub(super) enum NoWay {
    /// The errno name that the sending call gets.
    Errno(&'static str),
    /// It depends on what is not modelled.
    Unknown(String),
}

impl<'a> Walk<'a, '_> {
    /// Picks one next hop of a route, by chance where there are several.
    pub(super) fn way(
        &mut self,
        host: &'a Host,
        route: &'a Route,
        hops: &[&'a NextHop],
        dst: IpAddr,
    ) -> Option<Way<'a>> {
        let why = format!("{}: which next hop the route {} takes", host.name, route.destination);
        let hop = hops.get(self.choices.pick(hops.len(), &why))?;
        let device = host.interface(hop.interface.as_deref()?)?;
        let via = hop.gateway.map(|g| format!(" via {g}")).unwrap_or_default();
        self.events.push(Event::Routed {
            host: host.name.clone(),
            route: format!("{}{via} dev {} table {}", route.destination, device.name, route.table),
        });
        let gateway = hop.gateway.filter(|_| !past_gateways(route, dst));
        let to_all = matches!(dst, IpAddr::V4(dst) if dst.is_broadcast());
        Some(Way {
            device,
            next_hop: gateway.unwrap_or(dst),
            broadcast: to_all || route.kind == RouteKind::Broadcast,
            local: false,
            mtu: route.mtu,
        })
    }

    /// Routes a packet of the host's own (`ip_route_output_key`). Gives the
    /// way, and the source address to use if none is given.
    pub(super) fn route_out(&mut self, host: &'a Host, flow: &Flow) -> Result<(Way<'a>, IpAddr), NoWay> {
        if flow.dst == IpAddr::V4(Ipv4Addr::UNSPECIFIED) && flow.oif.is_none() {
            let loopback = host.interfaces.iter().find(|i| i.kind == InterfaceKind::Loopback);
            let Some(device) = loopback else { return Err(NoWay::Errno("ENETUNREACH")) };
            let way = Way { device, next_hop: flow.dst, broadcast: false, local: true, mtu: None };
            return Ok((way, flow.src.unwrap_or(IpAddr::V4(Ipv4Addr::LOCALHOST))));
        }
        if let (IpAddr::V4(dst), Some(src)) = (flow.dst, flow.src) {
            if dst.is_multicast() || dst.is_broadcast() {
                let device = match flow.oif {
                    Some(bound) => host.interface(bound),
                    None => host.interface_with(src),
                };
                if device.is_some_and(|d| matches!(d.kind, InterfaceKind::Vrf(_))) {
                    return Err(NoWay::Unknown("who hears what a VRF's device sends to all".into()));
                }
                let Some(device) = device else { return Err(NoWay::Errno("ENETUNREACH")) };
                // Delivered to members only, as from any other wire.
                if dst.is_multicast() && device.kind == InterfaceKind::Loopback {
                    return Err(NoWay::Unknown("multicast membership".into()));
                }
                return Ok((
                    Way {
                        device,
                        next_hop: flow.dst,
                        broadcast: dst.is_broadcast(),
                        local: false,
                        mtu: None,
                    },
                    src,
                ));
            }
        }
        match lookup(host, flow) {
            Lookup::Unknown(why) => Err(NoWay::Unknown(why)),
            Lookup::NoRoute => Err(NoWay::Errno("ENETUNREACH")),
            Lookup::Refused(RouteKind::Prohibit) => Err(NoWay::Errno("EACCES")),
            Lookup::Refused(RouteKind::Blackhole) => Err(NoWay::Errno("EINVAL")),
            Lookup::Refused(_) => Err(NoWay::Errno("EHOSTUNREACH")),
            Lookup::Found(route, hops) => match route.kind {
                RouteKind::Local | RouteKind::Anycast => {
                    // Inside a VRF, its device is the loopback.
                    let there = hops.first().and_then(|h| h.interface.as_deref());
                    let master = there.and_then(|device| host.vrf_of(device));
                    let loopback = || host.interfaces.iter().find(|i| i.kind == InterfaceKind::Loopback);
                    let Some(device) = master.or_else(loopback) else {
                        return Err(NoWay::Errno("ENETUNREACH"));
                    };
                    let chosen =
                        || source::for_local(host, route, hops.first().copied(), flow.dst, vrf(host, flow));
                    let Some(src) = flow.src.or_else(chosen) else {
                        return Err(NoWay::Errno("EADDRNOTAVAIL"));
                    };
                    Ok((Way { device, next_hop: flow.dst, broadcast: false, local: true, mtu: None }, src))
                }
                RouteKind::Multicast => Err(NoWay::Unknown("multicast".into())),
                _ => {
                    let Some(way) = self.way(host, route, &hops, flow.dst) else {
                        return Err(NoWay::Errno("ENETUNREACH"));
                    };
                    let taken =
                        hops.iter().copied().find(|h| h.interface.as_deref() == Some(&way.device.name));
                    let inside = vrf(host, flow);
                    let src = flow.src.or_else(|| source::for_route(host, route, taken, flow.dst, inside));
                    // A loopback source stays inside (__mkroute_output).
                    let setting = |name: &str| host.sysctls.interface("ipv4", name, "route_localnet");
                    let localnet = setting("all").max(setting(&way.device.name)).is_some_and(|v| v != 0);
                    match src {
                        Some(IpAddr::V4(a)) if a.is_loopback() && !localnet => Err(NoWay::Errno("EINVAL")),
                        Some(src) => Ok((way, src)),
                        None => Err(NoWay::Errno("EADDRNOTAVAIL")),
                    }
                }
            },
        }
    }

    /// A process of the host sends a packet.
    pub(super) fn originate(
        &mut self,
        host: &'a Host,
        packet: Packet,
        sender: Sender,
        device: Option<&str>,
    ) -> Step<'a> {
        self.note_untold(host, packet.family());
        let socket = sender == Sender::Socket;
        // To nowhere is to the host itself (ip_route_output_key_hash_rcu,
        // rawv6_sendmsg). A socket's packet then says so, a raw one does not.
        if packet.dst.is_unspecified() && device.is_none_or(|d| reaches_itself(host, packet.family(), d)) {
            let loopback = host.interfaces.iter().find(|i| i.kind == InterfaceKind::Loopback);
            return match loopback {
                Some(device) if !socket && !packet.src.is_unspecified() => {
                    let next_hop = packet.dst;
                    let way = Way { device, next_hop, broadcast: false, local: true, mtu: None };
                    self.local_out(host, way, Skb::new(packet))
                }
                _ => self.dropped(&host.name, Stage::Unmodelled("a socket sends to no address".into())),
            };
        }
        let flow = Flow {
            dst: packet.dst,
            src: (!packet.src.is_unspecified()).then_some(packet.src),
            iif: "lo",
            oif: device,
            vrf: None,
            bound: false,
            mark: packet.mark,
            tos: if socket { packet.tos } else { 0 },
            protocol: Some(if socket { packet.transport.protocol() } else { 255 }),
            ports: if socket { packet.transport.ports() } else { None },
        };
        match self.route_out(host, &flow) {
            Err(NoWay::Errno(errno)) => self.dropped(&host.name, Stage::Send(errno.into())),
            Err(NoWay::Unknown(why)) => self.dropped(&host.name, Stage::Unmodelled(why)),
            Ok((way, src)) => {
                let way = match self.connected(host, &flow, way, src) {
                    Ok(way) => way,
                    Err(NoWay::Errno(errno)) => return self.dropped(&host.name, Stage::Send(errno.into())),
                    Err(NoWay::Unknown(why)) => return self.dropped(&host.name, Stage::Unmodelled(why)),
                };
                // A raw socket does not fragment.
                if !socket && packet.length > way.device.mtu {
                    return self.dropped(&host.name, Stage::Send("EMSGSIZE".into()));
                }
                let mut skb = Skb::new(packet);
                skb.packet.src = src;
                self.local_out(host, way, skb)
            }
        }
    }

    /// `connect()` of IPv4 looks the route up again once it has chosen the
    /// source (`ip_route_connect`), so that rules by source decide. TCP always
    /// connects; a UDP program may or may not.
    fn connected(
        &mut self,
        host: &'a Host,
        flow: &Flow,
        way: Way<'a>,
        src: IpAddr,
    ) -> Result<Way<'a>, NoWay> {
        let connects = matches!(flow.protocol, Some(6 | 17 | 132));
        if flow.src.is_some() || !connects || src.is_ipv6() {
            return Ok(way);
        }
        let looked = self.events.len();
        let (again, _) = self.route_out(host, &Flow { src: Some(src), ..*flow })?;
        if (&again.device.name, again.next_hop) == (&way.device.name, way.next_hop) {
            self.events.truncate(looked);
            return Ok(way);
        }
        let why = format!("{}: whether the program connects before it sends", host.name);
        if flow.protocol == Some(17) && self.choices.pick(2, &why) == 1 {
            return Ok(way);
        }
        Ok(again)
    }

    /// OUTPUT and what follows (`__ip_local_out`). The hook keeps the device
    /// of the first look-up even where a rule makes the packet go elsewhere.
    pub(super) fn local_out(&mut self, host: &'a Host, way: Way<'a>, mut skb: Skb) -> Step<'a> {
        if let Some(vrf) = host.vrf_of(&way.device.name).filter(|vrf| vrf.name != way.device.name) {
            if let Err(end) = self.vrf_out(host, vrf, way, &mut skb) {
                return self.stopped(host, skb, end, way.local);
            }
        }
        skb.to_all = way.broadcast;
        let ends = Ends { output: Some(&way.device.name), ..Ends::default() };
        let mut now = way;
        let mut reroute = |walk: &mut Self, skb: &Skb| match walk.route_again(host, now.device, &skb.packet) {
            Ok(way) => {
                now = way;
                Reroute::Asked
            }
            Err(NoWay::Errno(errno)) => Reroute::Failed(errno.into()),
            Err(NoWay::Unknown(why)) => {
                walk.unknown.push(format!("{}: {why}", host.name));
                Reroute::Kept
            }
        };
        match self.hook(host, Hook::Output, ends, &mut skb, &mut reroute) {
            HookEnd::Accept => {
                skb.to_all = now.broadcast;
                self.postrouting(host, None, now, skb)
            }
            end => self.stopped(host, skb, end, now.local),
        }
    }

    /// A VRF's hooks see what the host sends first, as leaving by its device
    /// and untracked (`vrf_ip_out`, `vrf_nf_set_untracked`).
    fn vrf_out(
        &mut self,
        host: &'a Host,
        vrf: &'a Interface,
        way: Way<'a>,
        skb: &mut Skb,
    ) -> Result<(), HookEnd> {
        let fresh = !skb.is_tracked();
        if fresh {
            skb.info = Info::Untracked;
        }
        let ends = Ends { output: Some(&vrf.name), next_hop: Some(way.next_hop), ..Ends::default() };
        for hook in [Hook::Output, Hook::Postrouting] {
            match self.hook(host, hook, ends, skb, &mut kept) {
                HookEnd::Accept => {}
                end => return Err(end),
            }
        }
        if fresh {
            skb.info = Info::Invalid;
        }
        Ok(())
    }

    /// What is known, or else yes, of which nothing is claimed.
    pub(super) fn known(&mut self, host: &Host, truth: Result<bool, String>) -> bool {
        truth.unwrap_or_else(|why| {
            self.unknown.push(format!("{}: {why}", host.name));
            true
        })
    }

    /// `ip_route_me_harder`: the look-up knows addresses, mark and service, and
    /// the device of the way before: that one's VRF is asked, and what means
    /// something on one link only stays on its link (`ip6_route_me_harder`).
    fn route_again(&mut self, host: &'a Host, before: &Interface, packet: &Packet) -> Result<Way<'a>, NoWay> {
        let keep = self.known(host, may_send(host, packet.src));
        let told =
            dissects(host, packet.family()) && self.suppose(2, format!("{}: {DISSECTED}", host.name)) == 1;
        let flow = Flow {
            dst: packet.dst,
            src: keep.then_some(packet.src),
            iif: "lo",
            oif: stays_on_link(packet.dst).then_some(before.name.as_str()),
            vrf: host.vrf_of(&before.name).map(|vrf| vrf.name.as_str()),
            bound: false,
            mark: packet.mark,
            tos: packet.tos,
            protocol: told.then(|| packet.transport.protocol()),
            ports: packet.transport.ports().filter(|_| told),
        };
        self.route_out(host, &flow).map(|(way, _)| way)
    }

    /// The neighbour, then the device (`ip_finish_output2`).
    pub(super) fn transmit(&mut self, host: &'a Host, way: Way<'a>, mut skb: Skb) -> Step<'a> {
        let device = way.device;
        if !device.up {
            return self.dropped(&host.name, Stage::LinkDown);
        }
        skb.leaves_by = Some(device.name.clone());
        if matches!(device.kind, InterfaceKind::Loopback | InterfaceKind::Vrf(_)) {
            self.hop(&host.name, &device.name, HopDirection::Out, &skb.packet);
            self.hop(&host.name, &device.name, HopDirection::In, &skb.packet);
            skb.looped_back = true;
            skb.packet_type = PacketType::Unicast;
            skb.bridged = None;
            return Step::Receive(host, device, skb);
        }
        let mut found = resolve(self.lab, host, device, way.next_hop, way.broadcast, &skb.packet);
        if found == Resolved::Outside {
            let why = format!("{}: whether {} answers outside the lab", host.name, way.next_hop);
            found = match self.suppose(2, why) {
                0 => Resolved::Mac(SOMEBODY_OUTSIDE),
                _ => Resolved::Nobody,
            };
        }
        if let Resolved::Several(macs) = &found {
            let why = format!("{}: who answers first for {}", host.name, way.next_hop);
            found = Resolved::Mac(macs[self.suppose(macs.len(), why)]);
        }
        let mtu = way.mtu();
        if skb.packet.on_wire() > mtu {
            let v4 = skb.packet.family() == Family::Ipv4;
            if skb.packet.df || !v4 {
                // Only what did not ask before comes here: a tunnel's own packets,
                // and what the host itself sends.
                let kind = if v4 { AnswerKind::Icmp(3, 4) } else { AnswerKind::Icmp6(2, 0) };
                let by = Decision::Stage { host: host.name.clone(), stage: Stage::Mtu };
                return self.answer(host, &skb, kind, by, false);
            }
            skb.packet.fragment = Some(mtu);
        }
        match found {
            Resolved::Mac(mac) => {
                let src = device.mac.unwrap_or(Mac::ZERO);
                let frame = Frame { src, dst: mac, tags: Vec::new(), packet: skb.packet.clone() };
                skb.tags.clear();
                self.device_out(host, device, frame, skb)
            }
            Resolved::Unknown(why) => self.dropped(&host.name, Stage::Unmodelled(why)),
            Resolved::Nobody | Resolved::Outside | Resolved::Several(_) => self.unresolved(host, &skb),
        }
    }

    /// Nobody answers for a packet's next hop (`ipv4_link_failure`,
    /// `ip6_link_failure`): its sender is told. Where nobody can be, the
    /// unanswered question is all there is.
    pub(super) fn unresolved(&mut self, host: &'a Host, skb: &Skb) -> Step<'a> {
        let v4 = skb.packet.family() == Family::Ipv4;
        let kind = if v4 { AnswerKind::Icmp(3, 1) } else { AnswerKind::Icmp6(1, 3) };
        let by = Decision::Stage { host: host.name.clone(), stage: Stage::HostUnreachable };
        match self.answer(host, skb, kind, by, false) {
            Step::Done(Outcome::Dropped { by: Decision::Stage { stage: Stage::HostUnreachable, .. } }) => {
                self.dropped(&host.name, Stage::NeighbourFailed)
            }
            step => step,
        }
    }

    /// A frame leaves by a device (`dev_queue_xmit`).
    pub(super) fn device_out(
        &mut self,
        host: &'a Host,
        device: &'a Interface,
        mut frame: Frame,
        mut skb: Skb,
    ) -> Step<'a> {
        self.hop(&host.name, &device.name, HopDirection::Out, &skb.packet);
        match &device.kind {
            InterfaceKind::Physical | InterfaceKind::Veth | InterfaceKind::Tun => {
                self.wire(host, device, frame, skb)
            }
            InterfaceKind::Bridge(_) => {
                skb.tags = frame.tags.clone();
                self.bridge_out(host, device, None, frame, skb)
            }
            InterfaceKind::Vlan(tag) => {
                let Some(lower) = device.link.as_deref().and_then(|l| host.interface(l)) else {
                    let what = format!("the device below {}", device.name);
                    return self.dropped(&host.name, Stage::Unmodelled(what));
                };
                if !lower.up {
                    return self.dropped(&host.name, Stage::LinkDown);
                }
                frame.tags.insert(0, *tag);
                self.device_out(host, lower, frame, skb)
            }
            InterfaceKind::Bond(bond) => {
                let ports: Vec<_> = bond_ports(host, device, bond).collect();
                let why = format!("{}: which port of {} it leaves by", host.name, device.name);
                match ports.get(self.choices.pick(ports.len(), &why)) {
                    Some(port) => self.device_out(host, port, frame, skb),
                    None => self.dropped(&host.name, Stage::LinkDown),
                }
            }
            InterfaceKind::Macvlan(mode) => self.macvlan_out(host, device, *mode, frame, skb),
            InterfaceKind::Tunnel(tunnel) => self.tunnel_out(host, device, tunnel, frame, skb),
            InterfaceKind::Wireguard(settings) => self.encrypt(host, device, settings, skb),
            InterfaceKind::Vrf(_) => self.dropped(&host.name, Stage::Silent),
            InterfaceKind::Vxlan(vxlan) => self.encapsulate(host, device, vxlan, frame, skb),
            InterfaceKind::Dummy | InterfaceKind::Loopback => self.dropped(&host.name, Stage::Silent),
            InterfaceKind::Other(kind) => {
                self.dropped(&host.name, Stage::Unmodelled(format!("device {} ({kind})", device.name)))
            }
        }
    }

    /// To a sibling, or out of the device below (`macvlan_queue_xmit`,
    /// `drivers/net/macvlan.c`).
    fn macvlan_out(
        &mut self,
        host: &'a Host,
        device: &'a Interface,
        mode: MacvlanMode,
        frame: Frame,
        skb: Skb,
    ) -> Step<'a> {
        let Some((below, lower)) = segment::lower(self.lab, host, device) else {
            let what = format!("the device below {}", device.name);
            return self.dropped(&host.name, Stage::Unmodelled(what));
        };
        if mode == MacvlanMode::Bridge && frame.tags.is_empty() {
            let sibling = uppers(self.lab, below, lower)
                .find(|(_, upper)| upper.mac == Some(frame.dst) && is_bridged(upper));
            if let Some((other, upper)) = sibling {
                self.hop(&below.name, &lower.name, HopDirection::In, &skb.packet);
                return Step::Arrive(other, upper, frame, skb.scrubbed());
            }
        }
        if !lower.up {
            return self.dropped(&below.name, Stage::LinkDown);
        }
        if lower.mac == Some(frame.dst) {
            self.hop(&below.name, &lower.name, HopDirection::Out, &skb.packet);
            return self.dropped(&below.name, Stage::Macvlan);
        }
        self.device_out(below, lower, frame, skb.scrubbed())
    }

    /// Along the link to the endpoint that leads to the frame's receiver.
    fn wire(&mut self, host: &'a Host, device: &'a Interface, frame: Frame, skb: Skb) -> Step<'a> {
        if self.lab.leads_out(&host.name, device) {
            let at = Place { host: host.name.clone(), iface: device.name.clone() };
            return Step::Done(Outcome::ForwardedOut { at, seen: skb.packet });
        }
        let lab = self.lab;
        let peers: Vec<(&'a Host, &'a Interface)> = lab
            .link_of(&host.name, &device.name)
            .into_iter()
            .flat_map(|l| l.endpoints.iter())
            .filter(|e| e.host != host.name || e.interface != device.name)
            .filter_map(|e| lab.host(&e.host).and_then(|h| h.interface(&e.interface).map(|i| (h, i))))
            .collect();
        if uppers(lab, host, device).any(|(_, upper)| upper.mac == Some(frame.dst)) {
            return self.dropped(&host.name, Stage::Macvlan);
        }
        let found = if peers.len() <= 1 {
            peers.first().copied()
        } else if frame.dst.is_group() {
            let what = format!("a frame from {}:{} to everybody", host.name, device.name);
            return self.dropped(&host.name, Stage::Unmodelled(what));
        } else {
            let ends: Vec<_> =
                peers.iter().map(|(peer, end)| (peer, end, beyond(lab, peer, end, &frame.tags))).collect();
            let owner = ends.iter().find(|(_, _, segment)| segment.owner(frame.dst).is_some());
            // Nobody's in the lab: to where the lab ends.
            let open: Vec<_> = ends.iter().filter(|(_, _, segment)| segment.open).collect();
            let what = format!("{}:{}: which end leads to {} outside", host.name, device.name, frame.dst);
            let outside = match (owner, open.is_empty()) {
                (None, false) => Some(open[self.suppose(open.len(), what)]),
                _ => None,
            };
            owner.or(outside).map(|(peer, end, _)| (**peer, **end))
        };
        let Some((peer, end)) = found else {
            let there: Vec<&Host> =
                lab.peers(&host.name, &device.name).filter_map(|e| lab.host(&e.host)).collect();
            if let Some(host) = there.iter().find(|h| h.unknown.contains(&crate::model::Part::Links)) {
                let what = "the links are not in the snapshot".to_owned();
                return self.dropped(&host.name, Stage::Unmodelled(what));
            }
            let stage = there.iter().find_map(|h| hidden(lab, h)).map_or(Stage::NotMyMac, Stage::Unmodelled);
            return self.dropped(&host.name, stage);
        };
        // is_skb_forwardable: a veth takes no more than its own MTU and a tag.
        let whole = end.mtu.saturating_add(VLAN_TAG);
        if end.kind == InterfaceKind::Veth && skb.packet.on_wire() > whole {
            return self.dropped(&peer.name, Stage::Mtu);
        }
        let mut next = skb.scrubbed();
        if peer.name != host.name {
            next.packet.mark = 0;
        }
        Step::Arrive(peer, end, frame, next)
    }
}
