//! What leaves a host: OUTPUT, POSTROUTING, neighbours, devices.

use std::net::IpAddr;

use ipnet::IpNet;

use super::engine::{address, Symbolic};
use super::flow::{Flow, HookEnds, Tracked, Way};
use super::walk::Step;
use crate::addr::{Family, Mac};
use crate::model::{Hook, HopDirection, Host, Interface, InterfaceKind, Lab, Stage};
use crate::semantics::conntrack::Info;
use crate::semantics::hooks::{twice_differs, TWICE};
use crate::semantics::segment::{behind, question, resolve, Resolved};
use crate::space::Error;

/// Stands for the address of whoever answers outside the lab: nobody's inside.
const SOMEBODY_OUTSIDE: Mac = Mac([0x02, 0xff, 0xff, 0xff, 0xff, 0xff]);

impl<'a> Symbolic<'a> {
    /// OUTPUT and what follows (`__ip_local_out`).
    pub(super) fn local_out(&mut self, host: &'a Host, way: Way<'a>, flow: Flow) -> Result<(), Error> {
        let vrf = host.vrf_of(&way.device.name).filter(|vrf| vrf.name != way.device.name);
        let flows = match vrf {
            Some(vrf) => self.vrf_out(host, vrf, way, flow)?,
            None => vec![flow],
        };
        let ends = HookEnds { input: None, output: Some(&way.device.name) };
        for flow in flows {
            for (flow, now) in self.hook(host, Hook::Output, ends, flow, Some(way))? {
                self.postrouting(host, None, now.unwrap_or(way), flow)?;
            }
        }
        Ok(())
    }

    /// A VRF's hooks see what the host sends first, as leaving by its device
    /// and untracked (`vrf_ip_out`, `vrf_nf_set_untracked`).
    fn vrf_out(
        &mut self,
        host: &'a Host,
        vrf: &'a Interface,
        way: Way<'a>,
        mut flow: Flow,
    ) -> Result<Vec<Flow>, Error> {
        let fresh = flow.tracked == Tracked::None && flow.info != Info::Untracked;
        if fresh {
            flow.info = Info::Untracked;
        }
        let ends = HookEnds { input: None, output: Some(&vrf.name) };
        let way = Way { device: vrf, ..way };
        let mut passed = Vec::new();
        for (flow, _) in self.hook(host, Hook::Output, ends, flow, None)? {
            for (mut flow, _) in self.hook(host, Hook::Postrouting, ends, flow, Some(way))? {
                if fresh {
                    flow.info = Info::Invalid;
                }
                passed.push(flow);
            }
        }
        Ok(passed)
    }

    /// What leaves a host (`ip_output`).
    pub(super) fn postrouting(
        &mut self,
        host: &'a Host,
        input: Option<&str>,
        way: Way<'a>,
        flow: Flow,
    ) -> Result<(), Error> {
        let ends = HookEnds { input, output: Some(&way.device.name) };
        for (mut flow, _) in self.hook(host, Hook::Postrouting, ends, flow, Some(way))? {
            if input.is_none() && way.broadcast {
                let rewritten = flow.connection(&host.name).is_some_and(|c| c.rewritten.0);
                if rewritten || twice_differs(host) {
                    flow = flow.claimless(&[format!("{}: {TWICE}", host.name)]);
                }
            }
            self.transmit(host, way, flow)?;
        }
        Ok(())
    }

    /// The neighbour, then the device (`ip_finish_output2`).
    fn transmit(&mut self, host: &'a Host, way: Way<'a>, mut flow: Flow) -> Result<(), Error> {
        let device = way.device;
        if !device.up {
            self.dropped(flow, &host.name, Stage::LinkDown);
            return Ok(());
        }
        flow.sent = true;
        if matches!(device.kind, InterfaceKind::Loopback | InterfaceKind::Vrf(_)) {
            self.hop(&mut flow, host, device, HopDirection::Out);
            self.hop(&mut flow, host, device, HopDirection::In);
            flow.looped_back = true;
            flow.packet_type = crate::model::PacketType::Unicast;
            flow.bridged = None;
            self.push(Step::Receive(host, device, flow));
            return Ok(());
        }
        let mtu = way.mtu();
        if flow.now.on_wire() > mtu {
            if flow.now.df || flow.family(&self.sets.store) == Some(Family::Ipv6) {
                // Only what did not ask before comes here: a tunnel's own packets,
                // and what the host itself sends.
                self.refused_at(flow, &host.name, Stage::Mtu);
                return Ok(());
            }
            flow.now.fragment = Some(mtu);
        }
        for (found, mut flow) in self.neighbours(host, way, flow)? {
            flow.tags.clear();
            let (mac, flow) = match found {
                Resolved::Mac(mac) => (mac, flow),
                Resolved::Unknown(why) => {
                    self.dropped(flow, &host.name, Stage::Unmodelled(why));
                    continue;
                }
                Resolved::Several(macs) => {
                    let why = format!("{}: who answers first", host.name);
                    for (mac, flow) in Self::either(&flow, macs, &why) {
                        self.device_out(host, device, (device.mac.unwrap_or(Mac::ZERO), mac), flow)?;
                    }
                    continue;
                }
                Resolved::Outside => {
                    let why = format!("{}: whether somebody answers outside the lab", host.name);
                    let flow = flow.possibly(&[why]);
                    self.refused_at(flow.clone(), &host.name, Stage::HostUnreachable);
                    (SOMEBODY_OUTSIDE, flow)
                }
                Resolved::Nobody => {
                    self.refused_at(flow, &host.name, Stage::HostUnreachable);
                    continue;
                }
            };
            self.device_out(host, device, (device.mac.unwrap_or(Mac::ZERO), mac), flow)?;
        }
        Ok(())
    }

    /// Whose address the next hop of packets is, for each part of them.
    pub(super) fn neighbours(
        &mut self,
        host: &'a Host,
        way: Way<'a>,
        flow: Flow,
    ) -> Result<Vec<(Resolved, Flow)>, Error> {
        let (lab, device) = (self.lab, way.device);
        let v6 = flow.family(&self.sets.store) == Some(Family::Ipv6);
        // ARP asks with the packet's source if that is the host's own.
        let own: Vec<IpAddr> = host.interfaces.iter().flat_map(|i| &i.addresses).map(|a| a.address).collect();
        let src = flow.now.ends.src;
        let asking = self.by_address(
            &flow,
            src,
            || own.iter().map(|a| IpNet::from(*a)).collect(),
            |a| own.contains(&a).then_some(a),
        )?;
        let unspecified = address(0, v6);
        let mut parts = Vec::new();
        for (asker, flow) in asking {
            // An address that is nobody's own stands for all others.
            let packet = |dst: IpAddr| question(asker.unwrap_or(unspecified), dst);
            match way.gateway {
                Some(gateway) => {
                    let found = resolve(lab, host, device, gateway, way.broadcast, &packet(gateway));
                    parts.push((found, flow));
                }
                None => {
                    let dst = flow.now.ends.dst;
                    let told = self.by_address(
                        &flow,
                        dst,
                        || near(lab, host, device),
                        |a| resolve(lab, host, device, a, way.broadcast, &packet(a)),
                    )?;
                    parts.extend(told);
                }
            }
        }
        Ok(parts)
    }
}

/// Where the answer to "who has this address" may change, on a segment.
fn near(lab: &Lab, host: &Host, device: &Interface) -> Vec<IpNet> {
    let mut nets: Vec<IpNet> = Vec::new();
    let mut of = |other: &Host| {
        nets.extend(other.interfaces.iter().flat_map(|i| &i.addresses).map(|a| IpNet::from(a.address)));
        nets.extend(other.routes.iter().map(|r| r.destination));
        nets.extend(other.rules.iter().filter_map(|r| r.destination));
        nets.extend(other.neighbours.iter().map(|n| IpNet::from(n.address)));
    };
    of(host);
    for receiver in behind(lab, host, device).receivers {
        of(receiver.host);
    }
    for special in ["0.0.0.0/32", "127.0.0.0/8", "224.0.0.0/4", "255.255.255.255/32", "ff00::/8"] {
        nets.extend(special.parse::<IpNet>());
    }
    // A group has a link-layer address of its own.
    nets
}
