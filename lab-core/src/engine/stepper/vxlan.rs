//! VXLAN: into the tunnel and out of it (`drivers/net/vxlan/vxlan_core.c`).

use std::net::IpAddr;

use super::send::NoWay;
use super::skb::Skb;
use super::{Step, Walk};
use crate::addr::{Family, Mac};
use crate::engine::journey::Event;
use crate::model::{
    Decision, FdbEntry, Frame, Host, Interface, InterfaceKind, Packet, Payload, PortValue, Stage, Transport,
    Vxlan,
};
use crate::semantics::icmp::{self, default_ttl};
use crate::semantics::routing::Flow;
use crate::semantics::segment::behind;

/// Ethernet, VXLAN and UDP headers, in bytes.
const OVERHEAD: u32 = 14 + 8 + 8;

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
        let tunnel = (host.name.clone(), device.name.clone());
        if self.tunnels.contains(&tunnel) {
            return self.dropped(&host.name, Stage::TunnelLoop);
        }
        let Some((remote, port, vni)) = self.remote(host, device, vxlan, frame.dst) else {
            return self.dropped(&host.name, Stage::Silent);
        };
        let family = Family::of(remote);
        let transport = Transport::Udp { sport: PortValue::EPHEMERAL, dport: PortValue::Is(port) };
        let mark = skb.packet.mark;
        let flow = Flow {
            dst: remote,
            src: vxlan.local.filter(|a| Family::of(*a) == family),
            iif: "lo",
            oif: vxlan.link.as_deref(),
            vrf: None,
            mark,
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
        // A bridged frame that is too big is answered as if from its receiver
        // (skb_tunnel_check_pmtu, net/ipv4/ip_tunnel_core.c).
        let port = device.master.as_deref().and_then(|m| host.interface(m));
        let bridged = port.is_some_and(|m| matches!(m.kind, InterfaceKind::Bridge(_)));
        let room = way.mtu.unwrap_or(way.device.mtu).saturating_sub(OVERHEAD + header);
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
            length: frame.packet.on_wire() + OVERHEAD + header,
            df: false,
            fragment: None,
            mark,
            transport,
            payload: Payload::Vxlan { vni, frame: Box::new(frame) },
        };
        self.tunnels.push(tunnel);
        self.events.push(Event::Encapsulated {
            host: host.name.clone(),
            device: device.name.clone(),
            outer: Box::new(outer.clone()),
        });
        self.local_out(host, way, Skb::new(outer))
    }

    /// Where a frame goes: the table's entry for its address, else the
    /// default destinations; of several, the one behind which the receiver
    /// sits.
    fn remote(
        &mut self,
        host: &'a Host,
        device: &'a Interface,
        vxlan: &'a Vxlan,
        mac: Mac,
    ) -> Option<(IpAddr, u16, u32)> {
        let entries = |wanted: Mac| {
            host.fdb
                .iter()
                .filter(move |e| e.interface == device.name && e.mac == wanted && e.destination.is_some())
        };
        let of = |e: &FdbEntry| {
            e.destination.map(|d| (d, e.port.unwrap_or(vxlan.port), e.vni.unwrap_or(vxlan.vni)))
        };
        if !mac.is_group() {
            if let Some(found) = entries(mac).find_map(of) {
                return Some(found);
            }
        }
        let mut defaults: Vec<_> = entries(Mac::ZERO).filter_map(of).collect();
        let own = vxlan.remote.map(|r| (r, vxlan.port, vxlan.vni));
        defaults.extend(own.filter(|own| !defaults.contains(own)));
        if defaults.len() > 1 {
            let lab = self.lab;
            let owner = behind(lab, host, device).owner(mac);
            let found = owner.and_then(|receiver| {
                defaults.iter().find(|(remote, ..)| receiver.host.interface_with(*remote).is_some())
            });
            if found.is_none() {
                self.unknown.push(format!("{}: a frame to every peer of {}", host.name, device.name));
            }
            return found.or(defaults.first()).copied();
        }
        defaults.first().copied()
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
        self.tunnels.pop();
        self.events.push(Event::Decapsulated { host: host.name.clone(), device: device.name.clone() });
        let mut inner = Skb::new(frame.packet.clone());
        inner.packet.mark = skb.packet.mark;
        Step::Arrive(host, device, *frame, inner)
    }
}
