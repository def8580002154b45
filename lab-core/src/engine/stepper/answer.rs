//! Answers to rejected packets, and their own way home.

use std::net::IpAddr;

use super::send::Way;
use super::skb::{Skb, Tracked};
use super::{Origin, Step, Walk};
use crate::addr::{Family, Mac};
use crate::engine::journey::Event;
use crate::model::{
    Answer, AnswerKind, Decision, Frame, Hop, HopDirection, Host, Interface, Outcome, Packet, PacketType,
    Route, RouteKind, Scope, Stage,
};
use crate::semantics::addrtype::{anycast, may_send};
use crate::semantics::icmp;
use crate::semantics::routing::{link_local, lookup, Flow, Lookup};
use crate::semantics::source;

/// Whether the route to an address says which source to use: asked for before
/// anything else is known of the error, even its VRF (`icmpv6_rt_has_prefsrc`).
fn named_source(host: &Host, dst: IpAddr) -> bool {
    let flow = Flow { protocol: Some(58), ..Flow::to(dst) };
    matches!(lookup(host, &flow), Lookup::Found(route, _) if route.prefsrc.is_some())
}

impl<'a> Walk<'a, '_> {
    /// Answers a packet that `by` ended. Nothing is sent about ICMP errors,
    /// to groups, or where the way back cannot be routed: then it is dropped.
    /// `local`: the packet is for this host itself.
    pub(super) fn answer(
        &mut self,
        host: &'a Host,
        about: &Skb,
        kind: AnswerKind,
        by: Decision,
        local: bool,
    ) -> Step<'a> {
        let silent = Step::Done(Outcome::Dropped { by: by.clone() });
        let is_reset = kind == AnswerKind::TcpReset;
        // An error about a tunnel's outer packet goes to the tunnel's end.
        if !self.tunnels.is_empty() {
            return self.relayed(host, about, kind, by, local);
        }
        // Nor is anything sent about what was sent to everybody, or to a group.
        let to_all = about.to_all
            || about.packet.dst.is_multicast()
            || (!is_reset && about.packet_type != PacketType::Unicast);
        let may = match is_reset {
            true => icmp::may_reset(&about.packet),
            false => icmp::may_answer(&about.packet),
        };
        if self.is_answer || to_all || !may {
            return silent;
        }
        let Some((way, packet)) = self.answer_way(host, about, kind, local) else { return silent };
        let mut skb = Skb::new(packet);
        if about.tracked != Tracked::None {
            skb.tracked = about.tracked.clone();
            skb.info = about.info.of_answer();
        }
        let mut walk = Walk::new(self.lab, self.world, self.choices, self.origin.clone(), true);
        // A reset about a frame that came by a bridge port goes straight back
        // out of that port, past every hook (nf_send_reset).
        let port = about.bridged.as_ref().and_then(|b| host.interface(&b.input));
        let outcome = match (is_reset, port) {
            (true, Some(port)) => {
                let step = walk.straight_back(host, port, about, skb);
                walk.finish(step)
            }
            _ => {
                let step = walk.local_out(host, way, skb);
                walk.finish(step)
            }
        };
        let Walk { events, assumptions, unknown, .. } = walk;
        self.told(host, kind, by, outcome, (events, assumptions, unknown))
    }

    /// Answers a frame as if its receiver did, at the device that it would have
    /// left by.
    pub(super) fn answer_back(
        &mut self,
        host: &'a Host,
        device: &'a Interface,
        about: &Frame,
        kind: AnswerKind,
        by: Decision,
    ) -> Step<'a> {
        if self.is_answer {
            return Step::Done(Outcome::Dropped { by });
        }
        let packet = Packet {
            tos: 0,
            ttl: about.packet.ttl,
            ..icmp::error(host, &about.packet, kind, about.packet.dst)
        };
        let frame = Frame { src: about.dst, dst: about.src, tags: Vec::new(), packet };
        let mut walk = Walk::new(self.lab, self.world, self.choices, self.origin.clone(), true);
        let skb = Skb::new(frame.packet.clone());
        let outcome = walk.finish(Step::Arrive(host, device, frame, skb));
        let Walk { events, assumptions, unknown, .. } = walk;
        self.told(host, kind, by, outcome, (events, assumptions, unknown))
    }

    /// The packet with the source that it had before this host's NAT: what a
    /// tunnel has to say goes to whoever sent it (`icmp_ndo_send`,
    /// `net/ipv4/icmp.c`; `icmpv6_ndo_send`, `net/ipv6/ip6_icmp.c`).
    pub(super) fn untranslated(&mut self, host: &Host, skb: &Skb) -> Skb {
        let mut about = skb.clone().nameless();
        if let Some(connection) = self.connection(host, skb).filter(|c| c.snat) {
            about.packet.src = connection.original.src;
        }
        about
    }

    /// What an answer's own walk leaves behind.
    fn told(
        &mut self,
        host: &Host,
        kind: AnswerKind,
        by: Decision,
        outcome: Outcome,
        (events, assumptions, unknown): (Vec<Event>, Vec<String>, Vec<String>),
    ) -> Step<'a> {
        let outcome = self.answered(host, kind, by, outcome, &events);
        self.answer_events = events;
        self.assumptions.extend(assumptions);
        self.unknown.extend(unknown);
        Step::Done(outcome)
    }

    fn straight_back(&mut self, host: &'a Host, port: &'a Interface, about: &Skb, skb: Skb) -> Step<'a> {
        let frame = Frame {
            src: about.destination_mac.unwrap_or(Mac::ZERO),
            dst: about.source_mac.unwrap_or(Mac::ZERO),
            tags: Vec::new(),
            packet: skb.packet.clone(),
        };
        self.device_out(host, port, frame, skb)
    }

    /// The way of an answer, and the answer with its source address.
    fn answer_way(
        &mut self,
        host: &'a Host,
        about: &Skb,
        kind: AnswerKind,
        local: bool,
    ) -> Option<(Way<'a>, Packet)> {
        let packet = &about.packet;
        let v4 = packet.family() == Family::Ipv4;
        let (src, protocol, ports) = match kind {
            AnswerKind::TcpReset => {
                let foreign = !self.known(host, may_send(host, packet.dst));
                let ports = packet.transport.ports().map(|(s, d)| (d, s));
                ((!foreign).then_some(packet.dst), (!v4).then_some(6), if v4 { None } else { ports })
            }
            AnswerKind::Icmp(..) => (local.then_some(packet.dst), Some(1), None),
            AnswerKind::Icmp6(..) => {
                // A router's anycast addresses count (ipv6_chk_acast_addr_src).
                let shared = |r: &Route| r.kind == RouteKind::Anycast && r.destination.addr() == packet.dst;
                // The device's VRF has addresses of its own (ipv6_chk_addr).
                let vrf = |device: &str| host.vrf_of(device).map(|vrf| vrf.name.as_str());
                let here = about.device.as_deref().or(about.leaves_by.as_deref()).and_then(vrf);
                let has = |i: &Interface| i.addresses.iter().any(|a| a.address == packet.dst);
                let own = host.interfaces.iter().any(|i| has(i) && vrf(&i.name) == here)
                    || host.routes.iter().any(shared);
                // ICMPv6 speaks as the device that the packet came in by, not as
                // the one that the error leaves by, unless the route names a source.
                let met = || match (packet.src, &about.device) {
                    (IpAddr::V6(back), Some(device)) if !named_source(host, packet.src) => {
                        source::for_interface_v6(host, device, back).map(IpAddr::V6)
                    }
                    _ => None,
                };
                (own.then_some(packet.dst).or_else(met), Some(58), None)
            }
        };
        let setting = |key: &str| host.sysctls.number(&format!("net.ipv4.{key}")).is_some_and(|v| v != 0);
        let src = match (kind, src, &about.device) {
            (AnswerKind::Icmp(..), None, Some(device)) if setting("icmp_errors_use_inbound_ifaddr") => {
                source::for_interface_v4(host, device, Some(packet.src), Scope::Link).map(IpAddr::V4)
            }
            _ => src,
        };
        let reflect = match v4 {
            true => setting("fwmark_reflect"),
            false => host.sysctls.number("net.ipv6.fwmark_reflect").is_some_and(|v| v != 0),
        };
        let unspecified = |a: &IpAddr| !a.is_unspecified();
        let name = |vrf: &'a Interface| vrf.name.as_str();
        let draft = icmp::error(host, packet, kind, src.unwrap_or(packet.dst));
        // A link-local address is one of the link that has the packet now.
        let held = about.leaves_by.as_deref().or(about.device.as_deref()).filter(|d| *d != "lo");
        let scoped = matches!(kind, AnswerKind::Icmp6(..)) && link_local(packet.src);
        let flow = Flow {
            dst: packet.src,
            src: src.filter(unspecified),
            iif: "lo",
            oif: held.filter(|_| scoped),
            // In the VRF of the device that has the packet (icmp_route_lookup).
            vrf: about.leaves_by.as_ref().or(about.device.as_ref()).and_then(|d| host.vrf_of(d)).map(name),
            bound: false,
            mark: if reflect { packet.mark } else { 0 },
            tos: draft.tos,
            protocol,
            ports,
        };
        let (way, chosen) = self.route_out(host, &flow).ok()?;
        let shared =
            matches!(lookup(host, &flow), Lookup::Found(route, hops) if anycast(route, &hops, flow.dst));
        if shared && matches!(kind, AnswerKind::Icmp6(..)) {
            return None;
        }
        let src = if kind == AnswerKind::TcpReset { packet.dst } else { chosen };
        Some((way, Packet { src, ..draft }))
    }

    /// What became of the rejected packet, by what became of its answer: it
    /// counts as rejected if the answer was seen on any interface.
    fn answered(
        &self,
        host: &Host,
        kind: AnswerKind,
        by: Decision,
        outcome: Outcome,
        events: &[Event],
    ) -> Outcome {
        let hops: Vec<Hop> = events
            .iter()
            .filter_map(|e| match e {
                Event::Hop(hop) => Some(hop.clone()),
                _ => None,
            })
            .collect();
        let Some(first) = hops.first() else {
            let unreachable = matches!(&by, Decision::Stage { stage: Stage::HostUnreachable, .. });
            let by_rule = matches!(&outcome, Outcome::Dropped { by: Decision::Rule(_) });
            // The recorded answers tell the two apart by the ARP question seen.
            if unreachable && by_rule && matches!(kind, AnswerKind::Icmp6(..)) {
                let stage = Stage::AnswerLost;
                return Outcome::Dropped { by: Decision::Stage { host: host.name.clone(), stage } };
            }
            return Outcome::Dropped { by };
        };
        let came_back = match &self.origin {
            Origin::Host(sender) => matches!(&outcome, Outcome::Delivered { at, .. } if at.host == *sender),
            Origin::Place(place) => hops.iter().any(|h| h.direction == HopDirection::Out && h.at == *place),
        };
        let (received, lost) = match &outcome {
            Outcome::Delivered { at, seen } => (Some((at.clone(), seen.clone())), None),
            Outcome::ForwardedOut { .. } => (None, None),
            Outcome::Rejected { by, .. } | Outcome::Dropped { by } => (None, Some(by.clone())),
        };
        let answer = Answer {
            kind,
            from_host: host.name.clone(),
            from_addr: first.packet.src,
            to_addr: first.packet.dst,
            came_back,
            received,
            lost,
            hops,
        };
        Outcome::Rejected { by, answer: Box::new(answer) }
    }
}
