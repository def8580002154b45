//! GRE, IPIP, SIT and ip6tnl: into the tunnel and out of it
//! (`net/ipv4/ip_tunnel.c`).

use std::net::IpAddr;

use super::send::{NoWay, Way};
use super::skb::Skb;
use super::{Step, Walk};
use crate::addr::{Family, Mac};
use crate::engine::journey::Event;
use crate::model::{
    AnswerKind, Decision, Frame, Host, Interface, Outcome, Packet, Payload, Stage, Transport, Tunnel,
};
use crate::semantics::routing::Flow;
use crate::semantics::tunnel::{protocol, room, sends, shunned, taker, tells_of_no_route, too_big};

/// Why a tunnel's outer packet has no way.
pub(super) enum NoOuter {
    /// There is no route.
    Route,
    /// Anything else.
    Other(Stage),
}

impl<'a> Walk<'a, '_> {
    /// The way and the source of a tunnel's outer packet, which must not lead
    /// into the tunnel again.
    pub(super) fn outer_way(
        &mut self,
        host: &'a Host,
        device: &'a Interface,
        flow: &Flow,
    ) -> Result<(Way<'a>, IpAddr), NoOuter> {
        if self.tunnels.contains(&(host.name.clone(), device.name.clone())) {
            return Err(NoOuter::Other(Stage::TunnelLoop));
        }
        match self.route_out(host, flow) {
            Ok((way, _)) if way.device.name == device.name => Err(NoOuter::Other(Stage::TunnelLoop)),
            Ok(found) => Ok(found),
            Err(NoWay::Errno(_)) => Err(NoOuter::Route),
            Err(NoWay::Unknown(why)) => Err(NoOuter::Other(Stage::Unmodelled(why))),
        }
    }

    /// Sends a tunnel's outer packet.
    pub(super) fn wrapped(
        &mut self,
        host: &'a Host,
        device: &'a Interface,
        way: Way<'a>,
        outer: Packet,
    ) -> Step<'a> {
        self.tunnels.push((host.name.clone(), device.name.clone()));
        self.events.push(Event::Encapsulated {
            host: host.name.clone(),
            device: device.name.clone(),
            outer: Box::new(outer.clone()),
        });
        self.local_out(host, way, Skb::new(outer))
    }

    /// A frame comes out of a tunnel, with a mark.
    pub(super) fn unwrapped(
        &mut self,
        host: &'a Host,
        device: &'a Interface,
        frame: Frame,
        mark: u32,
    ) -> Step<'a> {
        self.tunnels.pop();
        self.events.push(Event::Decapsulated { host: host.name.clone(), device: device.name.clone() });
        let skb = Skb::new(Packet { mark, ..frame.packet.clone() });
        Step::Arrive(host, device, frame, skb)
    }

    /// Wraps a packet, or a frame, and sends the outer packet, which is one of
    /// the host's own. The mark stays.
    pub(super) fn tunnel_out(
        &mut self,
        host: &'a Host,
        device: &'a Interface,
        tunnel: &'a Tunnel,
        frame: Frame,
        skb: Skb,
    ) -> Step<'a> {
        let inner = skb.packet.family();
        let foreign = tunnel.inside.is_some_and(|only| only != inner) && !tunnel.kind.is_ethernet();
        let never = foreign || shunned(tunnel) == Some(skb.packet.src);
        let mute = !sends(host, tunnel);
        if never || (mute && tunnel.kind.is_gre()) {
            return self.dropped(&host.name, Stage::Silent);
        }
        let Some(remote) = tunnel.remote else {
            let what = format!("where {} without a remote sends to", device.name);
            return self.dropped(&host.name, Stage::Unmodelled(what));
        };
        let number = protocol(tunnel, inner);
        let flow = Flow {
            dst: remote,
            src: tunnel.local,
            iif: "lo",
            oif: tunnel.link.as_deref(),
            vrf: None,
            bound: false,
            mark: 0,
            tos: 0,
            protocol: Some(number),
            ports: None,
        };
        let found = if mute { Err(NoOuter::Route) } else { self.outer_way(host, device, &flow) };
        let (way, src) = match found {
            Ok(found) => found,
            Err(NoOuter::Route) if tells_of_no_route(tunnel) && skb.leaves_by.is_some() => {
                let v4 = inner == Family::Ipv4;
                let kind = if v4 { AnswerKind::Icmp(3, 1) } else { AnswerKind::Icmp6(1, 3) };
                let by = Decision::Stage { host: host.name.clone(), stage: Stage::HostUnreachable };
                // Not as what is too big: to whom it seems to be from by now
                // (dst_link_failure).
                let about = skb.clone().nameless();
                return match self.answer(host, &about, kind, by.clone(), false) {
                    Step::Done(Outcome::Dropped { by: same }) if same == by => {
                        self.dropped(&host.name, Stage::NoRoute)
                    }
                    step => step,
                };
            }
            Err(NoOuter::Route) => return self.dropped(&host.name, Stage::NoRoute),
            Err(NoOuter::Other(stage)) => return self.dropped(&host.name, stage),
        };
        let (df, room) = room(tunnel, device, way.mtu(), inner, skb.packet.df);
        if let Some(kind) = too_big(tunnel, inner, skb.packet.df, skb.packet.on_wire(), room) {
            // A bridged frame has no route to answer by.
            if skb.leaves_by.is_none() {
                return self.dropped(&host.name, Stage::Mtu);
            }
            let by = Decision::Stage { host: host.name.clone(), stage: Stage::Mtu };
            let about = self.untranslated(host, &skb);
            return self.answer(host, &about, kind, by, false);
        }
        let outer = Packet {
            src,
            dst: remote,
            ttl: if tunnel.ttl == 0 { skb.packet.ttl } else { tunnel.ttl },
            tos: 0,
            length: skb.packet.on_wire() + tunnel.overhead(),
            df,
            fragment: None,
            mark: skb.packet.mark,
            transport: Transport::Other(number),
            payload: match tunnel.kind.is_ethernet() {
                true => Payload::Ethernet { key: tunnel.key_out, frame: Box::new(frame) },
                false => Payload::Tunnelled { key: tunnel.key_out, packet: Box::new(skb.packet) },
            },
        };
        self.wrapped(host, device, way, outer)
    }

    /// Takes the packet out again at the tunnel that has these ends.
    pub(super) fn unwrap(&mut self, host: &'a Host, skb: Skb) -> Step<'a> {
        let outer = &skb.packet;
        let (key, ethernet) = match &outer.payload {
            Payload::Tunnelled { key, .. } => (*key, false),
            Payload::Ethernet { key, .. } => (*key, true),
            _ => return self.dropped(&host.name, Stage::TunnelUnknown),
        };
        let found = taker(host, (outer.src, outer.dst), outer.transport.protocol(), key, ethernet);
        let Some(device) = found else {
            let v4 = outer.family() == Family::Ipv4;
            let kind = if v4 { AnswerKind::Icmp(3, 3) } else { AnswerKind::Icmp6(1, 4) };
            let by = Decision::Stage { host: host.name.clone(), stage: Stage::TunnelUnknown };
            return self.answer(host, &skb, kind, by, true);
        };
        let mark = skb.packet.mark;
        let frame = match skb.packet.payload {
            Payload::Ethernet { frame, .. } => *frame,
            Payload::Tunnelled { packet, .. } => {
                Frame { src: Mac::ZERO, dst: Mac::ZERO, tags: Vec::new(), packet: *packet }
            }
            _ => return self.dropped(&host.name, Stage::TunnelUnknown),
        };
        self.unwrapped(host, device, frame, mark)
    }
}
