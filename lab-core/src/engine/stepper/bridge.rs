//! Bridges, and the IP hooks that br_netfilter runs on what they carry.
//! Follows `net/bridge/br_input.c`, `br_forward.c` and
//! `br_netfilter_hooks.c`.

use super::hook::{Ends, HookEnd};
use super::receive::kept;
use super::send::VLAN_TAG;
use super::skb::{Bridged, Skb};
use super::{Step, Walk};
use crate::addr::{Family, Mac};
use crate::model::{Frame, Hook, HopDirection, Host, Interface, PacketType, Stage};
use crate::semantics::br_netfilter::{filters, to_host};
use crate::semantics::bridge::towards;
use crate::semantics::input::{self, unanswered, Input};
use crate::semantics::segment::{owns_mac, ports, resolve, Resolved};
use crate::semantics::vlan;

impl<'a> Walk<'a, '_> {
    /// A frame comes in by a port (`br_handle_frame`).
    pub(super) fn bridge_input(
        &mut self,
        host: &'a Host,
        bridge: &'a Interface,
        port: &'a Interface,
        mut skb: Skb,
    ) -> Step<'a> {
        if !bridge.up || port.port.as_ref().is_some_and(|p| !p.forwarding) {
            return self.dropped(&host.name, Stage::LinkDown);
        }
        let filtered = match skb.tags.is_empty() {
            true => filters(host, bridge, skb.packet.family()).unwrap_or_else(|| {
                let what = "whether br_netfilter is loaded, which sysctl.txt does not tell";
                self.suppose(2, format!("{}: {what}", host.name)) == 1
            }),
            // What is tagged is no IP to br_netfilter, unless it is told so.
            false => {
                let key = "net.bridge.bridge-nf-filter-vlan-tagged";
                if host.sysctls.number(key).is_some_and(|on| on != 0) {
                    self.unknown.push(format!("{}: {key}", host.name));
                }
                false
            }
        };
        if filtered {
            skb.bridged = Some(Bridged { input: port.name.clone(), output: None, prerouted: true });
            let destination = skb.packet.dst;
            let ends = Ends { input: Some(&bridge.name), ..Ends::default() };
            match self.hook(host, Hook::Prerouting, ends, &mut skb, &mut kept) {
                HookEnd::Accept => {}
                end => return self.stopped(host, skb, end, false),
            }
            if skb.packet.dst != destination {
                return self.bridged_dnat(host, bridge, port, skb);
            }
        }
        self.bridge_in(host, bridge, port, skb)
    }

    /// To the host itself, or on to another port (`br_handle_frame_finish`).
    fn bridge_in(
        &mut self,
        host: &'a Host,
        bridge: &'a Interface,
        port: &'a Interface,
        mut skb: Skb,
    ) -> Step<'a> {
        match vlan::ingress(bridge, port, std::mem::take(&mut skb.tags)) {
            Some(tags) => skb.tags = tags,
            None => return self.dropped(&host.name, Stage::BridgeVlan),
        }
        let dst = skb.destination_mac.unwrap_or(Mac::ZERO);
        if dst.is_group() {
            let others = ports(host, &bridge.name).filter(|p| p.name != port.name).count();
            if others > 0 {
                // Only the host's own copy is followed.
                self.unknown.push(format!("{}: a frame to every port of {}", host.name, bridge.name));
            }
            return self.bridge_up(host, bridge, skb);
        }
        if owns_mac(host, bridge, dst) {
            return self.bridge_up(host, bridge, skb);
        }
        let frame = frame(&skb);
        self.bridge_out(host, bridge, Some(port), frame, skb)
    }

    fn bridge_up(&mut self, host: &'a Host, bridge: &'a Interface, mut skb: Skb) -> Step<'a> {
        match vlan::egress(bridge, bridge, std::mem::take(&mut skb.tags)) {
            Some(tags) => skb.tags = tags,
            None => return self.dropped(&host.name, Stage::BridgeVlan),
        }
        self.hop(&host.name, &bridge.name, HopDirection::In, &skb.packet);
        self.taken(host, bridge, skb)
    }

    /// A bridged frame whose destination PREROUTING rewrote
    /// (`br_nf_pre_routing_finish`, `br_nf_pre_routing_finish_ipv6`): it stays on
    /// the bridge if the new destination is there, else it goes to the host, as a
    /// frame that came in by its port. IPv6 asks for a route alone: not whether the
    /// host forwards, and nobody is told that there is none.
    fn bridged_dnat(
        &mut self,
        host: &'a Host,
        bridge: &'a Interface,
        port: &'a Interface,
        mut skb: Skb,
    ) -> Step<'a> {
        let v6 = skb.packet.family() == Family::Ipv6;
        let next = match input::decide_bridged(host, bridge, &skb.packet) {
            Input::Forward(_, hops) => hops
                .into_iter()
                .find(|h| h.interface.as_deref() == Some(&bridge.name))
                .map(|hop| hop.gateway.unwrap_or(skb.packet.dst)),
            // The route of a group of IPv6 is by the bridge itself.
            Input::Broadcast if v6 => Some(skb.packet.dst),
            // The frame goes up, and is dropped there.
            Input::Dropped(Stage::NotForwarding) => None,
            Input::Refused(kind) if v6 => return self.dropped(&host.name, unanswered(kind)),
            Input::Dropped(stage) => return self.dropped(&host.name, stage),
            Input::Unknown(why) => return self.dropped(&host.name, Stage::Unmodelled(why)),
            Input::Local | Input::Broadcast | Input::Refused(_) => None,
        };
        let Some(next) = next else {
            skb.destination_mac = bridge.mac;
            skb.packet_type = PacketType::Unicast;
            return self.bridge_in(host, bridge, port, skb);
        };
        match resolve(self.lab, host, bridge, next, false, &skb.packet) {
            Resolved::Mac(mac) => {
                skb.destination_mac = Some(mac);
                self.bridge_in(host, bridge, port, skb)
            }
            Resolved::Nobody if to_host(bridge, port, skb.destination_mac) => self.unresolved(host, &skb),
            Resolved::Nobody => self.dropped(&host.name, Stage::NeighbourFailed),
            Resolved::Outside | Resolved::Several(_) => {
                let what = format!("who answers for {next}");
                self.dropped(&host.name, Stage::Unmodelled(what))
            }
            Resolved::Unknown(why) => self.dropped(&host.name, Stage::Unmodelled(why)),
        }
    }

    /// Out by the port that leads to the frame's receiver (`br_forward`).
    /// `from` is the port it came in by; none: the host itself sent it.
    pub(super) fn bridge_out(
        &mut self,
        host: &'a Host,
        bridge: &'a Interface,
        from: Option<&'a Interface>,
        frame: Frame,
        mut skb: Skb,
    ) -> Step<'a> {
        if from.is_none() {
            match vlan::ingress(bridge, bridge, std::mem::take(&mut skb.tags)) {
                Some(tags) => skb.tags = tags,
                None => return self.dropped(&host.name, Stage::BridgeVlan),
            }
        }
        let ports = match towards(self.lab, host, bridge, from, frame.dst, &skb.tags) {
            Ok(ports) => ports,
            Err(stage) => return self.dropped(&host.name, stage),
        };
        let port = match ports.as_slice() {
            [only] => only,
            several => {
                let what =
                    format!("{}: which port of {} leads to {} outside", host.name, bridge.name, frame.dst);
                several[self.suppose(several.len(), what)]
            }
        };
        skb.tags = vlan::egress(bridge, port, std::mem::take(&mut skb.tags)).unwrap_or_default();
        if from.is_some() && skb.bridged.is_some() && skb.tags.is_empty() {
            if let Some(bridged) = &mut skb.bridged {
                bridged.output = Some(port.name.clone());
                bridged.prerouted = false;
            }
            let ends = Ends {
                input: Some(&bridge.name),
                output: Some(&bridge.name),
                next_hop: Some(skb.packet.dst),
            };
            match self.hook(host, Hook::Forward, ends, &mut skb, &mut kept) {
                HookEnd::Accept => {}
                end => return self.stopped(host, skb, end, false),
            }
            let ends = Ends { input: None, ..ends };
            match self.hook(host, Hook::Postrouting, ends, &mut skb, &mut kept) {
                HookEnd::Accept => {}
                end => return self.stopped(host, skb, end, false),
            }
        }
        // A tag is not counted (is_skb_forwardable).
        if skb.packet.on_wire() > port.mtu.saturating_add(VLAN_TAG) {
            return self.dropped(&host.name, Stage::Mtu);
        }
        let frame = Frame { packet: skb.packet.clone(), tags: skb.tags.clone(), ..frame };
        self.device_out(host, port, frame, skb)
    }
}

/// The frame of a packet as it came in.
pub(super) fn frame(skb: &Skb) -> Frame {
    Frame {
        src: skb.source_mac.unwrap_or(Mac::ZERO),
        dst: skb.destination_mac.unwrap_or(Mac::ZERO),
        tags: skb.tags.clone(),
        packet: skb.packet.clone(),
    }
}
