//! Bridges and tunnels for flows.

use std::net::IpAddr;

use super::engine::{constant_address, Symbolic};
use super::flow::{Bridged, Ends, Flow, HookEnds, Inside, Now, Way};
use super::walk::Step;
use super::way::{Asked, Routed, VLAN_TAG};
use crate::addr::{Family, Mac, PortRange};
use crate::model::{FdbEntry, Hook, HopDirection, Host, Interface, InterfaceKind, PortValue, Stage, Vxlan};
use crate::semantics::br_netfilter::filters;
use crate::semantics::icmp::default_ttl;
use crate::semantics::segment::{behind, owns_mac, ports, Resolved};
use crate::semantics::sets::{Arrival, Entry};
use crate::space::{Error, Field, Source};

/// Ethernet, VXLAN and UDP headers, in bytes.
const OVERHEAD: u32 = 14 + 8 + 8;

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
        if let InterfaceKind::Bridge(settings) = &bridge.kind {
            if settings.vlan_filtering {
                flow = flow.claimless(&[format!("{}: VLAN filtering of {}", host.name, bridge.name)]);
            }
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
        flow: Flow,
    ) -> Result<(), Error> {
        let dst = flow.destination_mac.unwrap_or(Mac::ZERO);
        if dst.is_group() {
            let others = ports(host, &bridge.name).filter(|p| p.name != port.name).count();
            let flow = match others {
                0 => flow,
                _ => flow.claimless(&[format!("{}: a frame to every port of {}", host.name, bridge.name)]),
            };
            self.bridge_up(host, bridge, flow);
            return Ok(());
        }
        if owns_mac(host, bridge, dst) {
            self.bridge_up(host, bridge, flow);
            return Ok(());
        }
        let macs = (flow.source_mac.unwrap_or(Mac::ZERO), dst);
        self.bridge_out(host, bridge, Some(port), macs, flow)
    }

    fn bridge_up(&mut self, host: &'a Host, bridge: &'a Interface, mut flow: Flow) {
        self.hop(&mut flow, host, bridge, HopDirection::In);
        self.push(Step::Receive(host, bridge, flow));
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
        let arrivals = self.sets.arrivals(Entry { host, device: bridge })?;
        let mapping = flow.mapping();
        for (leaf, mut part) in self.split(&flow, arrivals, &mapping, &|_, _| Vec::new())? {
            let hop = match self.sets.arrival(leaf).cloned() {
                Some(Arrival::Forward(_, hops)) => hops
                    .iter()
                    .map(|(r, h)| &host.routes[*r].next_hops[*h])
                    .find(|h| h.interface.as_deref() == Some(&bridge.name)),
                // The frame goes up, and is dropped there.
                Some(Arrival::Dropped(Stage::NotForwarding)) => None,
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
            let Some(hop) = hop else {
                part.destination_mac = bridge.mac;
                self.bridge_up(host, bridge, part);
                continue;
            };
            let way = Way { device: bridge, gateway: hop.gateway, broadcast: false, mtu: None };
            for (found, mut part) in self.neighbours(host, way, part)? {
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
        flow: Flow,
    ) -> Result<(), Error> {
        let filters_vlans = matches!(&bridge.kind, InterfaceKind::Bridge(b) if b.vlan_filtering);
        let flow = match from {
            None if filters_vlans => {
                flow.claimless(&[format!("{}: VLAN filtering of {}", host.name, bridge.name)])
            }
            _ => flow,
        };
        let towards = match self.ports_towards(host, bridge, from, macs.1) {
            Ok(ports) => ports,
            Err(stage) => {
                self.dropped(flow, &host.name, stage);
                return Ok(());
            }
        };
        let why = format!("{}: which port of {} leads to {} outside", host.name, bridge.name, macs.1);
        for (port, mut flow) in Self::suppose(&flow, towards, &why) {
            let mut flows = Vec::new();
            if from.is_some() && flow.bridged.is_some() {
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
                if flow.now.length > port.mtu.saturating_add(VLAN_TAG) {
                    self.dropped(flow, &host.name, Stage::Mtu);
                    continue;
                }
                self.device_out(host, port, macs, flow)?;
            }
        }
        Ok(())
    }

    fn ports_towards(
        &self,
        host: &'a Host,
        bridge: &'a Interface,
        from: Option<&'a Interface>,
        mac: Mac,
    ) -> Result<Vec<&'a Interface>, Stage> {
        let lab = self.lab;
        let setting =
            |p: &Interface, is: fn(&crate::model::BridgePort) -> bool| p.port.as_ref().is_some_and(is);
        let may = |p: &&'a Interface| match from {
            None => true,
            Some(from) if from.name == p.name => setting(p, |s| s.hairpin),
            Some(from) => !(setting(from, |s| s.isolated) && setting(p, |s| s.isolated)),
        };
        let own: Vec<&'a Interface> =
            host.interfaces.iter().filter(|i| ports(host, &bridge.name).any(|p| p.name == i.name)).collect();
        let allowed: Vec<&'a Interface> = own.iter().copied().filter(may).collect();
        let listed = |fixed: bool| {
            host.fdb.iter().find(|e| {
                e.mac == mac && e.master.as_deref() == Some(&bridge.name) && e.fixed == fixed && !e.local
            })
        };
        if mac.is_group() {
            return match allowed.as_slice() {
                [] => Err(Stage::BridgeNoPort),
                [only] => Ok(vec![only]),
                _ => Err(Stage::Unmodelled(format!("a frame to every port of {}", bridge.name))),
            };
        }
        if let Some(entry) = listed(true) {
            let port = allowed.iter().copied().find(|p| p.name == entry.interface);
            return port.map(|p| vec![p]).ok_or(Stage::BridgeNoPort);
        }
        let leads = |p: &&'a Interface| behind(lab, host, p).owner(mac).is_some();
        if let Some(port) = allowed.iter().copied().find(|p| leads(p)) {
            let settings = port.port.clone().unwrap_or_default();
            let known = listed(false).is_some_and(|e| e.interface == port.name);
            return match (settings.flood || known, settings.learning) {
                (true, _) => Ok(vec![port]),
                (false, false) => Err(Stage::BridgeNoPort),
                (false, true) => Err(Stage::Unmodelled(format!(
                    "whether {} knows {mac} behind {}",
                    bridge.name, port.name
                ))),
            };
        }
        if own.iter().any(leads) {
            return Err(Stage::BridgeNoPort);
        }
        if let Some(entry) = listed(false) {
            if let Some(port) = allowed.iter().copied().find(|p| p.name == entry.interface) {
                return Ok(vec![port]);
            }
        }
        let out: Vec<&'a Interface> = allowed.iter().copied().filter(|p| behind(lab, host, p).open).collect();
        match (out.is_empty(), allowed.is_empty()) {
            (false, _) => Ok(out),
            (true, true) => Err(Stage::BridgeNoPort),
            (true, false) => Err(Stage::NotMyMac),
        }
    }

    /// Wraps frames and sends the outer packets, which are the host's own.
    pub(super) fn encapsulate(
        &mut self,
        host: &'a Host,
        device: &'a Interface,
        vxlan: &'a Vxlan,
        macs: (Mac, Mac),
        flow: Flow,
    ) -> Result<(), Error> {
        let tunnel = (host.name.clone(), device.name.clone());
        if flow.inside.iter().any(|i| i.tunnel == tunnel) {
            self.dropped(flow, &host.name, Stage::TunnelLoop);
            return Ok(());
        }
        let (found, flow) = self.remote(host, device, vxlan, macs.1, flow);
        let Some((remote, port, vni)) = found else {
            self.dropped(flow, &host.name, Stage::Silent);
            return Ok(());
        };
        let family = Family::of(remote);
        let header = if family == Family::Ipv4 { 20 } else { 40 };
        let mut outer = flow.clone().scrubbed();
        outer.inside.push(Inside {
            tunnel,
            vni,
            macs,
            now: flow.now.clone(),
            kind: flow.kind,
            fresh: flow.fresh,
        });
        let constant = Source::constant;
        let local = vxlan.local.filter(|a| Family::of(*a) == family);
        let src = local.map(|a| constant_address(Field::Src, a));
        outer.kind =
            (constant(Field::Family, u128::from(family == Family::Ipv6)), constant(Field::Protocol, 17));
        outer.now = Now {
            ends: Ends {
                src: src.unwrap_or(constant(Field::Src, 0)),
                dst: constant_address(Field::Dst, remote),
                sport: Source::keep(Field::FreshPort),
                dport: constant(Field::Dport, port.into()),
            },
            tos: constant(Field::Tos, 0),
            fixed: vec![
                (Field::IcmpType, 0),
                (Field::IcmpCode, 0),
                (Field::TcpFlags, 0),
                (Field::SctpInit, 0),
            ],
            ttl: if vxlan.ttl == 0 { default_ttl(host, family) } else { vxlan.ttl },
            length: flow.now.length + OVERHEAD + header,
            df: false,
            mark: flow.now.mark,
        };
        outer.fresh = match PortValue::EPHEMERAL {
            PortValue::Fresh(range) => Some(range),
            PortValue::Is(port) => Some(PortRange { low: port, high: port }),
        };
        let asked = Asked {
            src,
            oif: vxlan.link.as_deref(),
            tos: constant(Field::Tos, 0),
            protocol: Some(constant(Field::Protocol, 17)),
            ports: true,
        };
        for (routed, mut part) in self.route_out(host, &outer, asked)? {
            match routed {
                Routed::By(way, chosen) => {
                    if way.device.name == device.name {
                        self.dropped(part, &host.name, Stage::TunnelLoop);
                        continue;
                    }
                    if let Some(chosen) = chosen {
                        part.now.ends.src = chosen;
                    }
                    self.local_out(host, way, part)?;
                }
                Routed::Errno(_) => self.dropped(part, &host.name, Stage::NoRoute),
                Routed::Unknown(why) => self.dropped(part, &host.name, Stage::Unmodelled(why)),
            }
        }
        Ok(())
    }

    /// Where frames to an address go: the table's entry, else the default
    /// destinations; of several, the one behind which the receiver sits.
    fn remote(
        &self,
        host: &'a Host,
        device: &'a Interface,
        vxlan: &Vxlan,
        mac: Mac,
        flow: Flow,
    ) -> (Option<(IpAddr, u16, u32)>, Flow) {
        let of = |e: &FdbEntry| {
            e.destination.map(|d| (d, e.port.unwrap_or(vxlan.port), e.vni.unwrap_or(vxlan.vni)))
        };
        let entries = |wanted: Mac| {
            host.fdb.iter().filter(move |e| e.interface == device.name && e.mac == wanted).filter_map(of)
        };
        if !mac.is_group() {
            if let Some(found) = entries(mac).next() {
                return (Some(found), flow);
            }
        }
        let mut defaults: Vec<_> = entries(Mac::ZERO).collect();
        defaults.extend(vxlan.remote.map(|r| (r, vxlan.port, vxlan.vni)));
        if defaults.len() <= 1 {
            return (defaults.first().copied(), flow);
        }
        let owner = behind(self.lab, host, device).owner(mac);
        let found = owner.and_then(|receiver| {
            defaults.iter().find(|(remote, ..)| receiver.host.interface_with(*remote).is_some()).copied()
        });
        match found {
            Some(found) => (Some(found), flow),
            None => {
                let why = format!("{}: a frame to every peer of {}", host.name, device.name);
                (defaults.first().copied(), flow.claimless(&[why]))
            }
        }
    }

    /// Takes the frames out again at the device with their network identifier.
    pub(super) fn decapsulate(&mut self, host: &'a Host, mut flow: Flow) {
        let Some(inside) = flow.inside.pop() else { return };
        let dport = flow.now.ends.dport.value as u16;
        let device = host.interfaces.iter().find(|i| {
            i.up && matches!(&i.kind, InterfaceKind::Vxlan(v) if v.vni == inside.vni && v.port == dport)
        });
        let Some(device) = device else {
            return self.dropped(flow, &host.name, Stage::TunnelUnknown);
        };
        let mark = flow.now.mark;
        let mut inner = flow.scrubbed();
        inner.now = Now { mark, ..inside.now };
        inner.kind = inside.kind;
        inner.fresh = inside.fresh;
        self.push(Step::Arrive(host, device, inside.macs, inner));
    }
}
