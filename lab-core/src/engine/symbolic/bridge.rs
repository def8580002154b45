//! Bridges for flows.

use super::engine::Symbolic;
use super::flow::{Bridged, Flow, HookEnds, Way};
use super::way::VLAN_TAG;
use crate::addr::{Family, Mac};
use crate::model::{Hook, HopDirection, Host, Interface, NextHop, PacketType, Stage};
use crate::semantics::br_netfilter::filters;
use crate::semantics::bridge::towards;
use crate::semantics::input::unanswered;
use crate::semantics::segment::{owns_mac, ports, Resolved};
use crate::semantics::sets::{Arrival, Entry, Route};
use crate::semantics::vlan;
use crate::space::{Error, Field, Source};

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
        let v6 = flow.family(&self.sets.store) == Some(Family::Ipv6);
        let here = |hops: &[(usize, usize)]| {
            let mut hops = hops.iter().map(|(r, h)| &host.routes[*r].next_hops[*h]);
            hops.find(|h| h.interface.as_deref() == Some(&bridge.name))
        };
        let arrivals = self.sets.arrivals(Entry { host, device: bridge })?;
        let mapping = flow.mapping();
        for (leaf, part) in self.split(&flow, arrivals, &mapping, &|_, _| Vec::new())? {
            let hop = match self.sets.arrival(leaf).cloned() {
                Some(Arrival::Forward(_, hops)) => here(&hops),
                // IPv6 does not ask whether the host forwards.
                Some(Arrival::Dropped(Stage::NotForwarding)) if v6 => {
                    let routing = self.sets.routing(host, Family::Ipv6, None, Some(&bridge.name))?;
                    let iif = self.sets.names.number(&bridge.name);
                    let mut mapping = part.mapping();
                    mapping.set(Field::Iif, Source::constant(Field::Iif, iif.into()));
                    mapping.set(Field::PortsTold, Source::constant(Field::PortsTold, 1));
                    for (leaf, part) in self.split(&part, routing, &mapping, &|_, _| Vec::new())? {
                        let hop = match self.sets.route(leaf) {
                            Some(Route::Found(_, hops)) => here(hops),
                            _ => None,
                        };
                        self.rewritten(host, (bridge, port), hop, part)?;
                    }
                    continue;
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
                _ => None,
            };
            self.rewritten(host, (bridge, port), hop, part)?;
        }
        Ok(())
    }

    /// They stay on the bridge if there is a next hop there, else they go to the
    /// host, as frames that came in by their port.
    fn rewritten(
        &mut self,
        host: &'a Host,
        (bridge, port): (&'a Interface, &'a Interface),
        hop: Option<&'a NextHop>,
        mut flow: Flow,
    ) -> Result<(), Error> {
        let Some(hop) = hop else {
            flow.destination_mac = bridge.mac;
            flow.packet_type = PacketType::Unicast;
            return self.bridge_in(host, bridge, port, flow);
        };
        let way = Way { device: bridge, gateway: hop.gateway, broadcast: false, mtu: None };
        for (found, mut part) in self.neighbours(host, way, flow)? {
            match found {
                Resolved::Mac(mac) => {
                    part.destination_mac = Some(mac);
                    self.bridge_in(host, bridge, port, part)?;
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
