//! Devices for flows: what each does with frames that leave by it.

use super::engine::Symbolic;
use super::flow::{Ending, Flow};
use super::walk::Step;
use super::way::VLAN_TAG;
use crate::addr::Mac;
use crate::model::{HopDirection, Host, Interface, InterfaceKind, MacvlanMode, Part, Place, Stage};
use crate::semantics::segment::{self, beyond, bond_ports, hidden, is_bridged, uppers};
use crate::space::Error;

impl<'a> Symbolic<'a> {
    /// Frames leave by a device (`dev_queue_xmit`).
    pub(super) fn device_out(
        &mut self,
        host: &'a Host,
        device: &'a Interface,
        macs: (Mac, Mac),
        mut flow: Flow,
    ) -> Result<(), Error> {
        self.hop(&mut flow, host, device, HopDirection::Out);
        match &device.kind {
            InterfaceKind::Physical | InterfaceKind::Veth | InterfaceKind::Tun => {
                self.wire(host, device, macs, flow);
            }
            InterfaceKind::Bridge(_) => self.bridge_out(host, device, None, macs, flow)?,
            InterfaceKind::Vxlan(vxlan) => self.encapsulate(host, device, vxlan, macs, flow)?,
            InterfaceKind::Dummy | InterfaceKind::Loopback => self.dropped(flow, &host.name, Stage::Silent),
            InterfaceKind::Vlan(tag) => match device.link.as_deref().and_then(|l| host.interface(l)) {
                None => {
                    let what = format!("the device below {}", device.name);
                    self.dropped(flow, &host.name, Stage::Unmodelled(what));
                }
                Some(lower) if !lower.up => self.dropped(flow, &host.name, Stage::LinkDown),
                Some(lower) => {
                    flow.tags.insert(0, *tag);
                    self.device_out(host, lower, macs, flow)?;
                }
            },
            InterfaceKind::Bond(bond) => {
                let ports: Vec<_> = bond_ports(host, device, bond).collect();
                if ports.is_empty() {
                    self.dropped(flow, &host.name, Stage::LinkDown);
                    return Ok(());
                }
                let why = format!("{}: which port of {} it leaves by", host.name, device.name);
                for (port, flow) in Self::either(&flow, ports, &why) {
                    self.device_out(host, port, macs, flow)?;
                }
            }
            InterfaceKind::Macvlan(mode) => self.macvlan_out(host, device, *mode, macs, flow)?,
            InterfaceKind::Tunnel(tunnel) => self.tunnel_out(host, device, tunnel, macs, flow)?,
            InterfaceKind::Wireguard(settings) => self.encrypt(host, device, settings, flow)?,
            InterfaceKind::Vrf(_) => self.dropped(flow, &host.name, Stage::Silent),
            InterfaceKind::Other(kind) => {
                let what = format!("device {} ({kind})", device.name);
                self.dropped(flow, &host.name, Stage::Unmodelled(what));
            }
        }
        Ok(())
    }

    /// To a sibling, or out of the device below (`macvlan_queue_xmit`).
    fn macvlan_out(
        &mut self,
        host: &'a Host,
        device: &'a Interface,
        mode: MacvlanMode,
        macs: (Mac, Mac),
        flow: Flow,
    ) -> Result<(), Error> {
        let Some((below, lower)) = segment::lower(self.lab, host, device) else {
            let what = format!("the device below {}", device.name);
            self.dropped(flow, &host.name, Stage::Unmodelled(what));
            return Ok(());
        };
        let mut next = flow.clone().scrubbed();
        if mode == MacvlanMode::Bridge && flow.tags.is_empty() {
            let sibling =
                uppers(self.lab, below, lower).find(|(_, u)| u.mac == Some(macs.1) && is_bridged(u));
            if let Some((other, upper)) = sibling {
                self.hop(&mut next, below, lower, HopDirection::In);
                self.push(Step::Arrive(other, upper, macs, next));
                return Ok(());
            }
        }
        if !lower.up {
            self.dropped(flow, &below.name, Stage::LinkDown);
            return Ok(());
        }
        if lower.mac == Some(macs.1) {
            self.hop(&mut next, below, lower, HopDirection::Out);
            self.dropped(next, &below.name, Stage::Macvlan);
            return Ok(());
        }
        self.device_out(below, lower, macs, next)
    }

    /// Along the link to the endpoint that leads to the frame's receiver.
    fn wire(&mut self, host: &'a Host, device: &'a Interface, macs: (Mac, Mac), flow: Flow) {
        let lab = self.lab;
        if lab.leads_out(&host.name, device) {
            let at = Place { host: host.name.clone(), iface: device.name.clone() };
            return self.end(flow, Ending::ForwardedOut(at));
        }
        let peers: Vec<(&'a Host, &'a Interface)> = lab
            .link_of(&host.name, &device.name)
            .into_iter()
            .flat_map(|l| l.endpoints.iter())
            .filter(|e| e.host != host.name || e.interface != device.name)
            .filter_map(|e| lab.host(&e.host).and_then(|h| h.interface(&e.interface).map(|i| (h, i))))
            .collect();
        if uppers(lab, host, device).any(|(_, upper)| upper.mac == Some(macs.1)) {
            return self.dropped(flow, &host.name, Stage::Macvlan);
        }
        let mut found: Vec<(&'a Host, &'a Interface)> = Vec::new();
        let mut why = String::new();
        if peers.len() <= 1 {
            found = peers;
        } else if macs.1.is_group() {
            let what = format!("a frame from {}:{} to everybody", host.name, device.name);
            return self.dropped(flow, &host.name, Stage::Unmodelled(what));
        } else {
            let ends: Vec<_> =
                peers.iter().map(|(peer, end)| (*peer, *end, beyond(lab, peer, end, &flow.tags))).collect();
            match ends.iter().find(|(_, _, segment)| segment.owner(macs.1).is_some()) {
                Some((peer, end, _)) => found.push((peer, end)),
                None => {
                    why = format!("{}:{}: which end leads to {} outside", host.name, device.name, macs.1);
                    found.extend(ends.iter().filter(|(_, _, s)| s.open).map(|(peer, end, _)| (*peer, *end)));
                }
            }
        }
        if found.is_empty() {
            let there: Vec<&Host> =
                lab.peers(&host.name, &device.name).filter_map(|e| lab.host(&e.host)).collect();
            if let Some(host) = there.iter().find(|h| h.unknown.contains(&Part::Links)) {
                let what = "the links are not in the snapshot".to_owned();
                return self.dropped(flow, &host.name, Stage::Unmodelled(what));
            }
            let stage = there.iter().find_map(|h| hidden(lab, h)).map_or(Stage::NotMyMac, Stage::Unmodelled);
            return self.dropped(flow, &host.name, stage);
        }
        for ((peer, end), flow) in Self::suppose(&flow, found, &why) {
            // is_skb_forwardable: a veth takes no more than its own MTU and a tag.
            if end.kind == InterfaceKind::Veth && flow.now.on_wire() > end.mtu.saturating_add(VLAN_TAG) {
                self.dropped(flow, &peer.name, Stage::Mtu);
                continue;
            }
            let mut next = flow.scrubbed();
            if peer.name != host.name {
                next.now.mark = 0;
            }
            self.push(Step::Arrive(peer, end, macs, next));
        }
    }
}
