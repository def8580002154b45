//! WireGuard: encrypting and decrypting (`drivers/net/wireguard`). Peers that
//! have shaken hands before are taken to do so again.

use super::skb::Skb;
use super::tunnel::NoOuter;
use super::{Step, Walk};
use crate::addr::{Family, Mac};
use crate::model::{
    AnswerKind, Decision, Frame, Host, Interface, InterfaceKind, Outcome, Packet, Payload, PortValue, Stage,
    Transport, Wireguard,
};
use crate::semantics::icmp::default_ttl;
use crate::semantics::routing::Flow;
use crate::semantics::tunnel::wireguard_length;

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
        if !peer.heard {
            // The first packet asks for a handshake, which must get there and back.
            self.unknown.push(format!("{}: whether {} shakes hands with its peer", host.name, device.name));
        }
        let (remote, family) = (endpoint.ip(), Family::of(endpoint.ip()));
        let transport =
            Transport::Udp { sport: PortValue::Is(settings.port), dport: PortValue::Is(endpoint.port()) };
        let flow = Flow {
            dst: remote,
            src: None,
            iif: "lo",
            oif: None,
            vrf: None,
            bound: false,
            mark: settings.mark,
            tos: 0,
            protocol: Some(17),
            ports: transport.ports(),
        };
        let (way, src) = match self.outer_way(host, device, &flow) {
            Ok(found) => found,
            Err(NoOuter::Route) => return self.dropped(&host.name, Stage::NoRoute),
            Err(NoOuter::Other(stage)) => return self.dropped(&host.name, stage),
        };
        let outer = Packet {
            src,
            dst: remote,
            ttl: default_ttl(host, family),
            tos: 0,
            length: wireguard_length(family, device, skb.packet.on_wire()),
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
        self.wrapped(host, device, way, outer)
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
        let frame = Frame { src: Mac::ZERO, dst: Mac::ZERO, tags: Vec::new(), packet: *packet };
        self.unwrapped(host, device, frame, 0)
    }
}
