//! GRE, IPIP, SIT and ip6tnl: into the tunnel and out of it
//! (`net/ipv4/ip_tunnel.c`).

use super::send::NoWay;
use super::skb::Skb;
use super::{Step, Walk};
use crate::addr::{Family, Mac};
use crate::engine::journey::Event;
use crate::model::{
    AnswerKind, Decision, Frame, Host, Interface, Outcome, Packet, Payload, Stage, Transport, Tunnel,
};
use crate::semantics::routing::Flow;
use crate::semantics::tunnel::{protocol, room, taker, tells_of_no_route, too_big};

impl<'a> Walk<'a, '_> {
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
        let name = (host.name.clone(), device.name.clone());
        if self.tunnels.contains(&name) {
            return self.dropped(&host.name, Stage::TunnelLoop);
        }
        let inner = skb.packet.family();
        if tunnel.inside.is_some_and(|only| only != inner) && !tunnel.kind.is_ethernet() {
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
            mark: 0,
            tos: 0,
            protocol: Some(number),
            ports: None,
        };
        let (way, src) = match self.route_out(host, &flow) {
            Ok(found) => found,
            Err(NoWay::Errno(_)) if tells_of_no_route(tunnel) && skb.leaves_by.is_some() => {
                let v4 = inner == Family::Ipv4;
                let kind = if v4 { AnswerKind::Icmp(3, 1) } else { AnswerKind::Icmp6(1, 3) };
                let by = Decision::Stage { host: host.name.clone(), stage: Stage::HostUnreachable };
                let about = self.untranslated(host, &skb);
                return match self.answer(host, &about, kind, by.clone(), false) {
                    Step::Done(Outcome::Dropped { by: same }) if same == by => {
                        self.dropped(&host.name, Stage::NoRoute)
                    }
                    step => step,
                };
            }
            Err(NoWay::Errno(_)) => return self.dropped(&host.name, Stage::NoRoute),
            Err(NoWay::Unknown(why)) => return self.dropped(&host.name, Stage::Unmodelled(why)),
        };
        if way.device.name == device.name {
            return self.dropped(&host.name, Stage::TunnelLoop);
        }
        let below = way.mtu.unwrap_or(way.device.mtu).min(way.device.mtu);
        let (df, room) = room(tunnel, device, below, inner, skb.packet.df);
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
        self.tunnels.push(name);
        self.events.push(Event::Encapsulated {
            host: host.name.clone(),
            device: device.name.clone(),
            outer: Box::new(outer.clone()),
        });
        self.local_out(host, way, Skb::new(outer))
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
        self.tunnels.pop();
        self.events.push(Event::Decapsulated { host: host.name.clone(), device: device.name.clone() });
        let mark = skb.packet.mark;
        let mut frame = match skb.packet.payload {
            Payload::Ethernet { frame, .. } => *frame,
            Payload::Tunnelled { packet, .. } => {
                Frame { src: Mac::ZERO, dst: Mac::ZERO, tags: Vec::new(), packet: *packet }
            }
            _ => return self.dropped(&host.name, Stage::TunnelUnknown),
        };
        frame.packet.mark = mark;
        let skb = Skb::new(frame.packet.clone());
        Step::Arrive(host, device, frame, skb)
    }
}
