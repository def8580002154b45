//! Bridges for flows.

use std::net::IpAddr;

use super::engine::Symbolic;
use super::flow::{Bridged, Flow, HookEnds, Way};
use super::way::VLAN_TAG;
use crate::addr::{Family, Mac};
use crate::model::{Hook, HopDirection, Host, Interface, PacketType, Stage};
use crate::semantics::br_netfilter::{filters, to_host};
use crate::semantics::bridge::towards;
use crate::semantics::input::unanswered;
use crate::semantics::segment::{owns_mac, ports, Resolved};
use crate::semantics::sets::{Arrival, Entry};
use crate::semantics::vlan;
use crate::space::Error;

impl<'a> Symbolic<'a> {
    /// Frames come in by a port (`br_handle_frame`).
    pub(super) fn bridge_input(
        &mut self,
        host: &'a Host,
        bridge: &'a Interface,
        port: &'a Interface,
        mut flow: Flow,
    ) -> Result<(), Error> {
        if !bridge.up || port.port.as_ref().is_some_and(|p| !p.forwarding) {
            self.dropped(flow, &host.name, Stage::LinkDown);
            return Ok(());
        }
        if !flow.tags.is_empty() {
            // What is tagged is no IP to br_netfilter, unless it is told so.
            let key = "net.bridge.bridge-nf-filter-vlan-tagged";
            if host.sysctls.number(key).is_some_and(|on| on != 0) {
                flow = flow.claimless(&[format!("{}: {key}", host.name)]);
            }
            return self.bridge_in(host, bridge, port, flow);
        }
        let family = flow.family(&self.sets.store).unwrap_or(Family::Ipv4);
        let ways = match filters(host, bridge, family) {
            Some(known) => vec![known],
            None => vec![true, false],
        };
        let why = format!("{}: whether br_netfilter is loaded, which sysctl.txt does not tell", host.name);
        for (filtered, mut flow) in Self::suppose(&flow, ways, &why) {
            if !filtered {
                self.bridge_in(host, bridge, port, flow)?;
                continue;
            }
            flow.bridged = Some(Bridged { input: port.name.clone(), output: None, prerouted: true });
            let before = flow.now.ends.dst;
            let ends = HookEnds { input: Some(&bridge.name), output: None };
            for (flow, _) in self.hook(host, Hook::Prerouting, ends, flow, None)? {
                let now = flow.now.ends.dst;
                let (kept, changed) = self.by_change(flow, before, now)?;
                if let Some(flow) = kept {
                    self.bridge_in(host, bridge, port, flow)?;
                }
                if let Some(flow) = changed {
                    self.bridged_dnat(host, bridge, port, flow)?;
                }
            }
        }
        Ok(())
    }

    /// To the host itself, or on to another port (`br_handle_frame_finish`).
    fn bridge_in(
        &mut self,
        host: &'a Host,
        bridge: &'a Interface,
        port: &'a Interface,
        mut flow: Flow,
    ) -> Result<(), Error> {
        match vlan::ingress(bridge, port, std::mem::take(&mut flow.tags)) {
            Some(tags) => flow.tags = tags,
            None => {
                self.dropped(flow, &host.name, Stage::BridgeVlan);
                return Ok(());
            }
        }
        let dst = flow.destination_mac.unwrap_or(Mac::ZERO);
        if dst.is_group() {
            let others = ports(host, &bridge.name).filter(|p| p.name != port.name).count();
            let flow = match others {
                0 => flow,
                _ => flow.claimless(&[format!("{}: a frame to every port of {}", host.name, bridge.name)]),
            };
            return self.bridge_up(host, bridge, flow);
        }
        if owns_mac(host, bridge, dst) {
            return self.bridge_up(host, bridge, flow);
        }
        let macs = (flow.source_mac.unwrap_or(Mac::ZERO), dst);
        self.bridge_out(host, bridge, Some(port), macs, flow)
    }

    fn bridge_up(&mut self, host: &'a Host, bridge: &'a Interface, mut flow: Flow) -> Result<(), Error> {
        match vlan::egress(bridge, bridge, std::mem::take(&mut flow.tags)) {
            Some(tags) => flow.tags = tags,
            None => {
                self.dropped(flow, &host.name, Stage::BridgeVlan);
                return Ok(());
            }
        }
        self.hop(&mut flow, host, bridge, HopDirection::In);
        self.taken(host, bridge, flow)
    }

    /// Bridged frames whose destination PREROUTING rewrote
    /// (`br_nf_pre_routing_finish`).
    fn bridged_dnat(
        &mut self,
        host: &'a Host,
        bridge: &'a Interface,
        port: &'a Interface,
        flow: Flow,
    ) -> Result<(), Error> {
        let arrivals = self.sets.arrivals_bridged(Entry { host, device: bridge })?;
        let mapping = flow.mapping();
        for (leaf, part) in self.split(&flow, arrivals, &mapping, &|_, _| Vec::new())? {
            let v6 = part.family(&self.sets.store) == Some(Family::Ipv6);
            let gateway = match self.sets.arrival(leaf).cloned() {
                Some(Arrival::Forward(_, hops)) => {
                    let hop = hops
                        .iter()
                        .map(|(r, h)| &host.routes[*r].next_hops[*h])
                        .find(|h| h.interface.as_deref() == Some(&bridge.name));
                    hop.map(|hop| hop.gateway)
                }
                // The frame goes up, and is dropped there.
                Some(Arrival::Dropped(Stage::NotForwarding)) => None,
                Some(Arrival::Refused(kind)) if v6 => {
                    self.dropped(part, &host.name, unanswered(kind));
                    continue;
                }
                Some(Arrival::Dropped(stage)) => {
                    self.dropped(part, &host.name, stage);
                    continue;
                }
                Some(Arrival::Unknown(why)) => {
                    self.dropped(part, &host.name, Stage::Unmodelled(why));
                    continue;
                }
                // The route of a group of IPv6 is by the bridge itself.
                Some(Arrival::Broadcast) if v6 => Some(None),
                _ => None,
            };
            self.bridged_on(host, bridge, port, gateway, part)?;
        }
        Ok(())
    }

    /// They go on over the bridge to a gateway or the destination itself, or else to
    /// the host, as frames that came in by their port.
    fn bridged_on(
        &mut self,
        host: &'a Host,
        bridge: &'a Interface,
        port: &'a Interface,
        gateway: Option<Option<IpAddr>>,
        mut part: Flow,
    ) -> Result<(), Error> {
        let Some(gateway) = gateway else {
            part.destination_mac = bridge.mac;
            part.packet_type = PacketType::Unicast;
            return self.bridge_in(host, bridge, port, part);
        };
        let way = Way { device: bridge, gateway, broadcast: false, mtu: None };
        for (found, mut part) in self.neighbours(host, way, part)? {
            match found {
                Resolved::Mac(mac) => {
                    part.destination_mac = Some(mac);
                    self.bridge_in(host, bridge, port, part)?;
                }
                Resolved::Nobody if to_host(bridge, port, part.destination_mac) => {
                    self.refused_at(part, &host.name, Stage::HostUnreachable);
                }
                Resolved::Nobody => self.dropped(part, &host.name, Stage::NeighbourFailed),
                Resolved::Outside | Resolved::Several(_) => {
                    self.dropped(part, &host.name, Stage::Unmodelled("who answers".into()));
                }
                Resolved::Unknown(why) => self.dropped(part, &host.name, Stage::Unmodelled(why)),
            }
        }
        Ok(())
    }

    /// Out by the port that leads to the frame's receiver (`br_forward`).
    pub(super) fn bridge_out(
        &mut self,
        host: &'a Host,
        bridge: &'a Interface,
        from: Option<&'a Interface>,
        macs: (Mac, Mac),
        mut flow: Flow,
    ) -> Result<(), Error> {
        if from.is_none() {
            match vlan::ingress(bridge, bridge, std::mem::take(&mut flow.tags)) {
                Some(tags) => flow.tags = tags,
                None => {
                    self.dropped(flow, &host.name, Stage::BridgeVlan);
                    return Ok(());
                }
            }
        }
        let ports = match towards(self.lab, host, bridge, from, macs.1, &flow.tags) {
            Ok(ports) => ports,
            Err(stage) => {
                self.dropped(flow, &host.name, stage);
                return Ok(());
            }
        };
        let why = format!("{}: which port of {} leads to {} outside", host.name, bridge.name, macs.1);
        for (port, mut flow) in Self::suppose(&flow, ports, &why) {
            let mut flows = Vec::new();
            flow.tags = vlan::egress(bridge, port, std::mem::take(&mut flow.tags)).unwrap_or_default();
            if from.is_some() && flow.bridged.is_some() && flow.tags.is_empty() {
                if let Some(bridged) = &mut flow.bridged {
                    bridged.output = Some(port.name.clone());
                    bridged.prerouted = false;
                }
                let way = Way { device: bridge, gateway: None, broadcast: false, mtu: None };
                let ends = HookEnds { input: Some(&bridge.name), output: Some(&bridge.name) };
                for (flow, _) in self.hook(host, Hook::Forward, ends, flow, Some(way))? {
                    let ends = HookEnds { input: None, ..ends };
                    flows.extend(self.hook(host, Hook::Postrouting, ends, flow, Some(way))?);
                }
            } else {
                flows.push((flow, None));
            }
            for (flow, _) in flows {
                if flow.now.on_wire() > port.mtu.saturating_add(VLAN_TAG) {
                    self.dropped(flow, &host.name, Stage::Mtu);
                    continue;
                }
                self.device_out(host, port, macs, flow)?;
            }
        }
        Ok(())
    }
}
