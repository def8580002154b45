//! What a host sends: routing, OUTPUT, the neighbour, the device.

use std::net::IpAddr;

use super::hook::{Ends, HookEnd, Reroute};
use super::skb::Skb;
use super::{Sender, Step, Walk};
use crate::addr::{Family, Mac};
use crate::engine::journey::Event;
use crate::model::{
    AddressType, AnswerKind, Decision, Frame, Hook, HopDirection, Host, Interface, InterfaceKind, NextHop,
    Outcome, Packet, PacketType, Place, Route, RouteKind, Stage,
};
use crate::semantics::addrtype::address_type;
use crate::semantics::routing::{lookup, Flow, Lookup};
use crate::semantics::segment::{beyond, hidden, resolve, Resolved};
use crate::semantics::source;

/// Bytes of an 802.1Q tag, which devices allow beyond their MTU.
pub(super) const VLAN_TAG: u32 = 4;

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
        Some(Way {
            device,
            next_hop: hop.gateway.unwrap_or(dst),
            broadcast: route.kind == RouteKind::Broadcast,
            local: false,
        })
    }

    /// Routes a packet of the host's own (`ip_route_output_key`). Gives the
    /// way, and the source address to use if none is given.
    pub(super) fn route_out(&mut self, host: &'a Host, flow: &Flow) -> Result<(Way<'a>, IpAddr), NoWay> {
        if let (IpAddr::V4(dst), Some(src)) = (flow.dst, flow.src) {
            if dst.is_multicast() || dst.is_broadcast() {
                let device = host.interface_with(src);
                let Some(device) = device else { return Err(NoWay::Errno("ENETUNREACH")) };
                return Ok((
                    Way { device, next_hop: flow.dst, broadcast: dst.is_broadcast(), local: false },
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
                    let loopback = host.interfaces.iter().find(|i| i.kind == InterfaceKind::Loopback);
                    let Some(device) = loopback else { return Err(NoWay::Errno("ENETUNREACH")) };
                    let src = flow.src.or(route.prefsrc).unwrap_or(flow.dst);
                    Ok((Way { device, next_hop: flow.dst, broadcast: false, local: true }, src))
                }
                RouteKind::Multicast => Err(NoWay::Unknown("multicast".into())),
                _ => {
                    let Some(way) = self.way(host, route, &hops, flow.dst) else {
                        return Err(NoWay::Errno("ENETUNREACH"));
                    };
                    let taken =
                        hops.iter().copied().find(|h| h.interface.as_deref() == Some(&way.device.name));
                    let src = flow.src.or_else(|| source::for_route(host, route, taken, flow.dst));
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
    pub(super) fn originate(&mut self, host: &'a Host, packet: Packet, sender: Sender) -> Step<'a> {
        self.note_untold(host, packet.family());
        let socket = sender == Sender::Socket;
        let flow = Flow {
            dst: packet.dst,
            src: (!packet.src.is_unspecified()).then_some(packet.src),
            iif: "lo",
            oif: None,
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
        let ends = Ends { output: Some(&way.device.name), ..Ends::default() };
        let mut now = way;
        let mut reroute = |walk: &mut Self, skb: &Skb| match walk.route_again(host, &skb.packet) {
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
            HookEnd::Accept => self.postrouting(host, None, now, skb),
            end => self.stopped(host, skb, end, now.local),
        }
    }

    /// `ip_route_me_harder`: the look-up knows addresses, mark and service.
    fn route_again(&mut self, host: &'a Host, packet: &Packet) -> Result<Way<'a>, NoWay> {
        let kind = address_type(host, packet.src, None);
        let keep =
            packet.family() == Family::Ipv6 || matches!(kind, AddressType::Local | AddressType::Unicast);
        let flow = Flow {
            dst: packet.dst,
            src: keep.then_some(packet.src),
            iif: "lo",
            oif: None,
            mark: packet.mark,
            tos: packet.tos,
            protocol: None,
            ports: None,
        };
        self.route_out(host, &flow).map(|(way, _)| way)
    }

    /// The neighbour, then the device (`ip_finish_output2`).
    pub(super) fn transmit(&mut self, host: &'a Host, way: Way<'a>, mut skb: Skb) -> Step<'a> {
        let device = way.device;
        if !device.up {
            return self.dropped(&host.name, Stage::LinkDown);
        }
        if device.kind == InterfaceKind::Loopback {
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
        if skb.packet.length > device.mtu {
            // Whoever must not fragment was told so before.
            self.unknown
                .push(format!("{}: fragments, {} bytes by {}", host.name, skb.packet.length, device.name));
        }
        match found {
            Resolved::Mac(mac) => {
                let frame =
                    Frame { src: device.mac.unwrap_or(Mac::ZERO), dst: mac, packet: skb.packet.clone() };
                self.device_out(host, device, frame, skb)
            }
            Resolved::Unknown(why) => self.dropped(&host.name, Stage::Unmodelled(why)),
            Resolved::Nobody | Resolved::Outside | Resolved::Several(_) => {
                let v4 = skb.packet.family() == Family::Ipv4;
                let kind = if v4 { AnswerKind::Icmp(3, 1) } else { AnswerKind::Icmp6(1, 3) };
                let by = Decision::Stage { host: host.name.clone(), stage: Stage::HostUnreachable };
                match self.answer(host, &skb, kind, by, false) {
                    // Without an answer, the unanswered question is all there is.
                    Step::Done(Outcome::Dropped {
                        by: Decision::Stage { stage: Stage::HostUnreachable, .. },
                    }) => self.dropped(&host.name, Stage::NeighbourFailed),
                    step => step,
                }
            }
        }
    }

    /// A frame leaves by a device (`dev_queue_xmit`).
    pub(super) fn device_out(
        &mut self,
        host: &'a Host,
        device: &'a Interface,
        frame: Frame,
        skb: Skb,
    ) -> Step<'a> {
        self.hop(&host.name, &device.name, HopDirection::Out, &skb.packet);
        match &device.kind {
            InterfaceKind::Physical | InterfaceKind::Veth | InterfaceKind::Tun => {
                self.wire(host, device, frame, skb)
            }
            InterfaceKind::Bridge(_) => self.bridge_out(host, device, None, frame, skb),
            InterfaceKind::Vxlan(vxlan) => self.encapsulate(host, device, vxlan, frame, skb),
            InterfaceKind::Dummy | InterfaceKind::Loopback => self.dropped(&host.name, Stage::Silent),
            InterfaceKind::Other(kind) => {
                self.dropped(&host.name, Stage::Unmodelled(format!("device {} ({kind})", device.name)))
            }
        }
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
        let found = if peers.len() <= 1 {
            peers.first().copied()
        } else if frame.dst.is_group() {
            let what = format!("a frame from {}:{} to everybody", host.name, device.name);
            return self.dropped(&host.name, Stage::Unmodelled(what));
        } else {
            let ends: Vec<_> = peers.iter().map(|(peer, end)| (peer, end, beyond(lab, peer, end))).collect();
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
        if end.kind == InterfaceKind::Veth && skb.packet.length > whole {
            return self.dropped(&peer.name, Stage::Mtu);
        }
        let mut next = skb.scrubbed();
        if peer.name != host.name {
            next.packet.mark = 0;
        }
        Step::Arrive(peer, end, frame, next)
    }
}
