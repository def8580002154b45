//! VXLAN: into the tunnel and out of it (`drivers/net/vxlan/vxlan_core.c`).

use super::skb::Skb;
use super::tunnel::NoOuter;
use super::{Step, Walk};
use crate::addr::Family;
use crate::model::{
    Decision, Frame, Host, Interface, InterfaceKind, Packet, Payload, PortValue, Stage, Transport, Vxlan,
};
use crate::semantics::icmp::{self, default_ttl};
use crate::semantics::routing::Flow;
use crate::semantics::tunnel::{vtep, vxlan_overhead};

impl<'a> Walk<'a, '_> {
    /// Wraps a frame and sends the outer packet, which is one of the host's
    /// own: OUTPUT, POSTROUTING, wire. The mark stays.
    pub(super) fn encapsulate(
        &mut self,
        host: &'a Host,
        device: &'a Interface,
        vxlan: &'a Vxlan,
        frame: Frame,
        skb: Skb,
    ) -> Step<'a> {
        let (found, sure) = vtep(self.lab, host, device, vxlan, frame.dst);
        let Some((remote, port, vni)) = found else { return self.dropped(&host.name, Stage::Silent) };
        if !sure {
            self.unknown.push(format!("{}: a frame to every peer of {}", host.name, device.name));
        }
        let family = Family::of(remote);
        let transport = Transport::Udp { sport: PortValue::EPHEMERAL, dport: PortValue::Is(port) };
        let mark = skb.packet.mark;
        let flow = Flow {
            dst: remote,
            src: vxlan.local.filter(|a| Family::of(*a) == family),
            iif: "lo",
            oif: vxlan.link.as_deref(),
            vrf: None,
            bound: false,
            mark,
            tos: 0,
            protocol: Some(17),
            ports: transport.ports(),
        };
        let (way, src) = match self.outer_way(host, device, &flow) {
            Ok(found) => found,
            Err(NoOuter::Route) => return self.dropped(&host.name, Stage::NoRoute),
            Err(NoOuter::Other(stage)) => return self.dropped(&host.name, stage),
        };
        let overhead = vxlan_overhead(family);
        // A bridged frame that is too big is answered as if from its receiver
        // (skb_tunnel_check_pmtu, net/ipv4/ip_tunnel_core.c).
        let port = device.master.as_deref().and_then(|m| host.interface(m));
        let bridged = port.is_some_and(|m| matches!(m.kind, InterfaceKind::Bridge(_)));
        let room = way.mtu().saturating_sub(overhead);
        if bridged && skb.leaves_by.is_none() && frame.tags.is_empty() && skb.packet.on_wire() > room {
            if let Some(kind) = icmp::too_big_for_tunnel(&skb.packet, room) {
                let by = Decision::Stage { host: host.name.clone(), stage: Stage::Mtu };
                return self.answer_back(host, device, &frame, kind, by);
            }
        }
        let outer = Packet {
            src,
            dst: remote,
            ttl: if vxlan.ttl == 0 { default_ttl(host, family) } else { vxlan.ttl },
            tos: 0,
            length: frame.packet.on_wire() + overhead,
            df: false,
            fragment: None,
            mark,
            transport,
            payload: Payload::Vxlan { vni, frame: Box::new(frame) },
        };
        self.wrapped(host, device, way, outer)
    }

    /// Takes the frame out again at the device with its network identifier,
    /// which receives it as if from a wire.
    pub(super) fn decapsulate(&mut self, host: &'a Host, skb: Skb) -> Step<'a> {
        let Payload::Vxlan { vni, frame } = skb.packet.payload else {
            return self.dropped(&host.name, Stage::TunnelUnknown);
        };
        let dport = skb.packet.transport.ports().and_then(|(_, d)| d.known());
        let device = host.interfaces.iter().find(|i| {
            i.up && matches!(&i.kind, InterfaceKind::Vxlan(v) if v.vni == vni && Some(v.port) == dport)
        });
        let Some(device) = device else { return self.dropped(&host.name, Stage::TunnelUnknown) };
        self.unwrapped(host, device, *frame, skb.packet.mark)
    }
}
