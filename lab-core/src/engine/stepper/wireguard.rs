//! WireGuard: encrypting and decrypting (`drivers/net/wireguard`). Both ends
//! are taken to have shaken hands.

use super::send::NoWay;
use super::skb::Skb;
use super::{Step, Walk};
use crate::addr::{Family, Mac};
use crate::engine::journey::Event;
use crate::model::{
    AnswerKind, Decision, Frame, Host, Interface, InterfaceKind, Outcome, Packet, Payload, PortValue, Stage,
    Transport, Wireguard,
};
use crate::semantics::icmp::default_ttl;
use crate::semantics::routing::Flow;

/// UDP's header, WireGuard's, and the tag that authenticates, in bytes.
const OVERHEAD: u32 = 8 + 16 + 16;

/// Packets are filled up to a multiple of this many bytes.
const PADDING: u32 = 16;

impl<'a> Walk<'a, '_> {
    /// Encrypts a packet for the peer that its destination belongs to
    /// (`wg_xmit`), and sends the outer one.
    pub(super) fn encrypt(
        &mut self,
        host: &'a Host,
        device: &'a Interface,
        settings: &'a Wireguard,
        skb: Skb,
    ) -> Step<'a> {
        let name = (host.name.clone(), device.name.clone());
        if self.tunnels.contains(&name) {
            return self.dropped(&host.name, Stage::TunnelLoop);
        }
        let peer = settings.peer(skb.packet.dst);
        let Some((peer, endpoint)) = peer.and_then(|p| p.endpoint.map(|e| (p, e))) else {
            let v4 = skb.packet.family() == Family::Ipv4;
            let kind = if v4 { AnswerKind::Icmp(3, 1) } else { AnswerKind::Icmp6(1, 3) };
            let stage = |stage| Decision::Stage { host: host.name.clone(), stage };
            let by = stage(Stage::HostUnreachable);
            let about = self.untranslated(host, &skb);
            return match self.answer(host, &about, kind, by.clone(), false) {
                Step::Done(Outcome::Dropped { by: same }) if same == by => {
                    Step::Done(Outcome::Dropped { by: stage(Stage::WireguardNoPeer) })
                }
                step => step,
            };
        };
        let (remote, family) = (endpoint.ip(), Family::of(endpoint.ip()));
        let transport =
            Transport::Udp { sport: PortValue::Is(settings.port), dport: PortValue::Is(endpoint.port()) };
        let flow = Flow {
            dst: remote,
            src: None,
            iif: "lo",
            oif: None,
            vrf: None,
            mark: settings.mark,
            tos: 0,
            protocol: Some(17),
            ports: transport.ports(),
        };
        let (way, src) = match self.route_out(host, &flow) {
            Ok(found) => found,
            Err(NoWay::Errno(_)) => return self.dropped(&host.name, Stage::NoRoute),
            Err(NoWay::Unknown(why)) => return self.dropped(&host.name, Stage::Unmodelled(why)),
        };
        if way.device.name == device.name {
            return self.dropped(&host.name, Stage::TunnelLoop);
        }
        let header = if family == Family::Ipv4 { 20 } else { 40 };
        let padded = skb.packet.on_wire().next_multiple_of(PADDING).min(device.mtu.max(skb.packet.on_wire()));
        let outer = Packet {
            src,
            dst: remote,
            ttl: default_ttl(host, family),
            tos: 0,
            length: padded + OVERHEAD + header,
            df: false,
            fragment: None,
            mark: settings.mark,
            transport,
            payload: Payload::Wireguard {
                from: settings.public_key.clone(),
                to: peer.public_key.clone(),
                packet: Box::new(skb.packet),
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

    /// Decrypts a packet at the device that it is for; the peer that sent it
    /// must be allowed its source (`wg_packet_consume_data_done`).
    pub(super) fn decrypt(&mut self, host: &'a Host, skb: Skb) -> Step<'a> {
        let dport = skb.packet.transport.ports().and_then(|(_, d)| d.known());
        let Payload::Wireguard { from, to, packet } = skb.packet.payload else {
            return self.dropped(&host.name, Stage::TunnelUnknown);
        };
        let found = host.interfaces.iter().find_map(|i| match &i.kind {
            InterfaceKind::Wireguard(w) if i.up && Some(w.port) == dport => Some((i, w)),
            _ => None,
        });
        let Some((device, settings)) = found.filter(|(_, w)| w.public_key == to) else {
            return self.dropped(&host.name, Stage::TunnelUnknown);
        };
        if !settings.peers.iter().any(|p| p.public_key == from) {
            return self.dropped(&host.name, Stage::TunnelUnknown);
        }
        if settings.peer(packet.src).is_none_or(|peer| peer.public_key != from) {
            return self.dropped(&host.name, Stage::WireguardAllowedIps);
        }
        self.tunnels.pop();
        self.events.push(Event::Decapsulated { host: host.name.clone(), device: device.name.clone() });
        let packet = Packet { mark: 0, ..*packet };
        let skb = Skb::new(packet.clone());
        let frame = Frame { src: Mac::ZERO, dst: Mac::ZERO, tags: Vec::new(), packet };
        Step::Arrive(host, device, frame, skb)
    }
}
