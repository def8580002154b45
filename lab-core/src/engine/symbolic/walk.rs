//! Where flows arrive, and what the network layer does with them.

use super::engine::{Flowed, Symbolic};
use super::flow::{Ending, Flow, HookEnds, Now, Passed, Way};
use super::way::{Asked, Routed};
use crate::addr::{Family, Mac};
use crate::model::{
    Hook, HopDirection, Host, Interface, InterfaceKind, MacvlanMode, PacketType, Place, RouteKind, Stage,
};
use crate::semantics::matches::packet_type;
use crate::semantics::segment::{hidden, macs_towards, uppers};
use crate::semantics::sets::{Arrival, Entry};
use crate::semantics::tunnel::accepted;
use crate::semantics::vlan;
use crate::space::{Error, Field, Ref, Source};

/// What comes next.
pub(super) enum Step<'a> {
    /// Frames arrive at an interface from a wire.
    Arrive(&'a Host, &'a Interface, (Mac, Mac), Flow),
    /// Packets arrive at a host's network layer by a device.
    Receive(&'a Host, &'a Interface, Flow),
}

/// The most steps a flow takes before it counts as going round for ever.
const STEPS: u32 = 6000;

/// How programs send.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sending {
    /// By sockets of their own, whose source the route chooses.
    Socket,
    /// By sockets bound to the source that the packets have.
    Bound,
    /// By raw sockets with headers of their own.
    Raw,
}

impl<'a> Symbolic<'a> {
    pub(super) fn push(&mut self, step: Step<'a>) {
        self.steps.push(step);
    }

    /// Follows every flow to its end.
    fn follow_all(&mut self) -> Result<Vec<Flowed>, Error> {
        while let Some(mut step) = self.steps.pop() {
            let (Step::Arrive(.., flow) | Step::Receive(.., flow)) = &mut step;
            flow.steps += 1;
            let forever = flow.steps > STEPS;
            match step {
                Step::Arrive(host, .., flow) | Step::Receive(host, .., flow) if forever => {
                    self.dropped(flow, &host.name, Stage::Ttl);
                }
                Step::Arrive(host, device, macs, flow) => self.arrive(host, device, macs, flow)?,
                Step::Receive(host, device, flow) => self.receive(host, device, flow)?,
            }
            if self.out.len() + self.steps.len() > self.limit {
                self.steps.clear();
                self.out.clear();
                return Err(Error::Parts { most: self.limit });
            }
        }
        let mut out = std::mem::take(&mut self.out);
        for flowed in &mut out {
            flowed.looped = goes_round(&flowed.flow);
        }
        Ok(out)
    }

    /// Packets put on the wire towards an interface.
    ///
    /// # Errors
    /// If the diagrams outgrow their budget.
    pub fn inject(
        &mut self,
        host: &'a Host,
        device: &'a Interface,
        flow: Flow,
    ) -> Result<Vec<Flowed>, Error> {
        let macs = macs_towards(self.lab, host, device);
        for family in [Family::Ipv4, Family::Ipv6] {
            let family = self.sets.store.family(family)?;
            let set = self.sets.store.guard(family, flow.set)?;
            if !set.is_none() {
                self.push(Step::Arrive(host, device, macs, flow.part(set)));
            }
        }
        self.follow_all()
    }

    /// Packets that processes of a host send.
    ///
    /// # Errors
    /// If the diagrams outgrow their budget.
    pub fn send(&mut self, host: &'a Host, flow: Flow, sending: Sending) -> Result<Vec<Flowed>, Error> {
        for family in [Family::Ipv4, Family::Ipv6] {
            let is = self.sets.store.family(family)?;
            let (inside, _) = self.divide(flow.clone(), is)?;
            for flow in inside {
                let flow = self.untold(flow, host, family);
                self.originate(host, flow, sending)?;
            }
        }
        self.follow_all()
    }

    fn originate(&mut self, host: &'a Host, flow: Flow, sending: Sending) -> Result<(), Error> {
        let raw = sending == Sending::Raw;
        let asked = Asked {
            src: (sending != Sending::Socket).then_some(flow.now.ends.src),
            oif: None,
            vrf: None,
            tos: if raw { Source::constant(Field::Tos, 0) } else { flow.now.tos },
            protocol: Some(if raw { Source::constant(Field::Protocol, 255) } else { flow.kind.1 }),
            ports: !raw,
        };
        let (mut routed, others) = self.nowhere_bound(host, flow, raw)?;
        for flow in others {
            routed.extend(self.route_out(host, &flow, Asked { ..asked })?);
        }
        for (routed, part) in routed {
            let (way, src) = match routed {
                Routed::By(way, src) => (way, src),
                Routed::Errno(errno) => {
                    self.dropped(part, &host.name, Stage::Send(errno.into()));
                    continue;
                }
                Routed::Unknown(why) => {
                    self.dropped(part, &host.name, Stage::Unmodelled(why));
                    continue;
                }
            };
            let Some(src) = src else {
                if raw && part.now.length > way.device.mtu {
                    self.dropped(part, &host.name, Stage::Send("EMSGSIZE".into()));
                    continue;
                }
                self.local_out(host, way, part)?;
                continue;
            };
            // What was sent has the source that was chosen.
            let is =
                self.sets.store.bits(src.field, crate::space::Bits { mask: src.mask, value: src.value })?;
            let set = self.sets.store.guard(part.set, is)?;
            let part = part.part(set);
            if !set.is_none() {
                self.connected(host, part, &asked, way, src)?;
            }
        }
        Ok(())
    }

    /// `connect()` of IPv4 looks the route up again once it has chosen the
    /// source; TCP always connects, a UDP program may or may not.
    fn connected(
        &mut self,
        host: &'a Host,
        flow: Flow,
        asked: &Asked,
        way: Way<'a>,
        src: Source,
    ) -> Result<(), Error> {
        let v4 = flow.family(&self.sets.store) == Some(Family::Ipv4);
        let with_ports = self.sets.store.with_ports()?;
        let (connects, plain) = if v4 { self.divide(flow, with_ports)? } else { (Vec::new(), vec![flow]) };
        for flow in plain {
            self.local_out(host, way, flow)?;
        }
        for flow in connects {
            for (routed, part) in self.route_out(host, &flow, Asked { src: Some(src), ..*asked })? {
                let again = match routed {
                    Routed::By(again, _) => again,
                    Routed::Errno(errno) => {
                        self.dropped(part, &host.name, Stage::Send(errno.into()));
                        continue;
                    }
                    Routed::Unknown(why) => {
                        self.dropped(part, &host.name, Stage::Unmodelled(why));
                        continue;
                    }
                };
                if (&again.device.name, again.gateway) == (&way.device.name, way.gateway) {
                    self.local_out(host, way, part)?;
                    continue;
                }
                let udp = self.sets.store.value(Field::Protocol, 17)?;
                let (udp, rest) = self.divide(part, udp)?;
                for part in rest {
                    self.local_out(host, again, part)?;
                }
                let why = format!("{}: whether the program connects before it sends", host.name);
                for part in udp {
                    for (way, part) in Self::either(&part, vec![again, way], &why) {
                        self.local_out(host, way, part)?;
                    }
                }
            }
        }
        Ok(())
    }

    /// Frames arrive at an interface (`__netif_receive_skb_core`).
    fn arrive(
        &mut self,
        host: &'a Host,
        device: &'a Interface,
        macs: (Mac, Mac),
        mut flow: Flow,
    ) -> Result<(), Error> {
        self.hop(&mut flow, host, device, HopDirection::In);
        let Some(family) = flow.family(&self.sets.store) else { return Ok(()) };
        flow = self.untold(flow, host, family);
        if !device.up {
            self.dropped(flow, &host.name, Stage::LinkDown);
            return Ok(());
        }
        flow.source_mac = (macs.0 != Mac::ZERO).then_some(macs.0);
        flow.destination_mac = (macs.1 != Mac::ZERO).then_some(macs.1);
        flow.packet_type = packet_type(flow.destination_mac);
        self.taken(host, device, flow)
    }

    /// What a device's frames are for: a VLAN device on it comes first, then
    /// macvlan devices, then whatever it is a port of, then the host itself.
    pub(super) fn taken(
        &mut self,
        host: &'a Host,
        device: &'a Interface,
        mut flow: Flow,
    ) -> Result<(), Error> {
        let macs = (flow.source_mac.unwrap_or(Mac::ZERO), flow.destination_mac.unwrap_or(Mac::ZERO));
        if let Some(upper) = vlan::device(host, device, &flow.tags) {
            flow.tags.remove(0);
            self.push(Step::Arrive(host, upper, macs, flow));
            return Ok(());
        }
        let above: Vec<_> = uppers(self.lab, host, device).collect();
        if macs.1.is_group() && !above.is_empty() {
            flow = flow.claimless(&[format!("{}: a frame to every macvlan on {}", host.name, device.name)]);
        }
        let takes = |upper: &Interface| {
            upper.kind == InterfaceKind::Macvlan(MacvlanMode::Passthru) || upper.mac == Some(macs.1)
        };
        if let Some((other, upper)) = above.into_iter().find(|(_, upper)| takes(upper)) {
            self.push(Step::Arrive(other, upper, macs, flow.scrubbed()));
            return Ok(());
        }
        if let Some(master) = device.master.as_deref().and_then(|m| host.interface(m)) {
            return match &master.kind {
                InterfaceKind::Bridge(_) => self.bridge_input(host, master, device, flow),
                InterfaceKind::Bond(_) if device.standby => {
                    self.dropped(flow, &host.name, Stage::BondInactive);
                    Ok(())
                }
                InterfaceKind::Bond(_) => {
                    self.push(Step::Arrive(host, master, macs, flow));
                    Ok(())
                }
                InterfaceKind::Vrf(_) => {
                    self.for_host(host, device, macs.1, flow);
                    Ok(())
                }
                other => {
                    let what = format!("device {other} over {}", device.name);
                    self.dropped(flow, &host.name, Stage::Unmodelled(what));
                    Ok(())
                }
            };
        }
        self.for_host(host, device, macs.1, flow);
        Ok(())
    }

    /// Frames that are no other device's.
    fn for_host(&mut self, host: &'a Host, device: &'a Interface, dst: Mac, mut flow: Flow) {
        if let InterfaceKind::Other(kind) = &device.kind {
            let what = format!("device {} ({kind})", device.name);
            return self.dropped(flow, &host.name, Stage::Unmodelled(what));
        }
        let bridge = matches!(device.kind, InterfaceKind::Bridge(_));
        let mine = bridge || dst == Mac::ZERO || dst.is_group() || device.mac == Some(dst);
        // A tag that no device takes off makes it somebody else's.
        let tagged = flow.tags.iter().any(|tag| tag.id != 0);
        flow.tags.clear();
        if !mine || tagged {
            let stage = hidden(self.lab, host).map_or(Stage::NotMyMac, Stage::Unmodelled);
            return self.dropped(flow, &host.name, stage);
        }
        self.push(Step::Receive(host, device, flow));
    }

    /// Connection tracking puts fragments together; without it, rules see each
    /// by itself.
    fn reassembled(&mut self, host: &Host, mut flow: Flow) -> Flow {
        if flow.now.fragment.is_none() || host.ruleset.tables.is_empty() {
            return flow;
        }
        let family = flow.family(&self.sets.store);
        if family.is_none_or(|family| !self.tracks(host, family)) {
            return flow.claimless(&[format!("{}: rules that see fragments", host.name)]);
        }
        flow.now.fragment = None;
        flow
    }

    /// The network layer receives packets (`ip_rcv`, `ipv6_rcv`).
    fn receive(&mut self, host: &'a Host, device: &'a Interface, flow: Flow) -> Result<(), Error> {
        let martians = self.sets.martians_v6(device)?;
        let (martians, flows) = self.divide(flow, martians)?;
        for flow in martians {
            self.dropped(flow, &host.name, Stage::Martian);
        }
        let vrf = host.vrf_of(&device.name).filter(|vrf| vrf.name != device.name);
        for mut flow in flows {
            flow.came_by = Some(device.name.clone());
            flow = self.reassembled(host, flow);
            let passed = if flow.bridged.as_ref().is_some_and(|b| b.prerouted) {
                vec![(flow, None)]
            } else {
                let ends = HookEnds { input: Some(&device.name), output: None };
                self.hook(host, Hook::Prerouting, ends, flow, None)?
            };
            for (mut flow, _) in passed {
                if let Some(bridged) = &mut flow.bridged {
                    bridged.prerouted = false;
                }
                // A VRF's hooks see them once more, as its own.
                let again = match vrf {
                    None => vec![(flow, None)],
                    Some(vrf) => {
                        let ends = HookEnds { input: Some(&vrf.name), output: None };
                        self.hook(host, Hook::Prerouting, ends, flow, None)?
                    }
                };
                let seen = vrf.unwrap_or(device);
                for (flow, _) in again {
                    if flow.looped_back {
                        self.deliver(host, seen, flow)?;
                    } else {
                        self.decide(host, (device, seen), flow)?;
                    }
                }
            }
        }
        Ok(())
    }

    /// Packets that came by a port, and are seen by hooks as another device's: a
    /// VRF's.
    fn decide(
        &mut self,
        host: &'a Host,
        (port, device): (&'a Interface, &'a Interface),
        flow: Flow,
    ) -> Result<(), Error> {
        let arrivals = self.sets.arrivals(Entry { host, device: port })?;
        let mapping = flow.mapping();
        for (leaf, mut part) in self.split(&flow, arrivals, &mapping, &|_, _| Vec::new())? {
            let Some(arrival) = self.sets.arrival(leaf).cloned() else { continue };
            match arrival {
                Arrival::Local => self.deliver(host, device, part)?,
                Arrival::Broadcast => {
                    part.to_all = true;
                    self.deliver(host, device, part)?;
                }
                Arrival::Forward(route, hops) => self.forward(host, device, route, &hops, part)?,
                Arrival::Refused(kind) => self.refused(host, kind, part),
                Arrival::Dropped(stage) => self.dropped(part, &host.name, stage),
                Arrival::Unknown(why) => self.dropped(part, &host.name, Stage::Unmodelled(why)),
            }
        }
        Ok(())
    }

    /// A route, or the lack of one, refuses packets that came in.
    fn refused(&mut self, host: &Host, kind: Option<RouteKind>, flow: Flow) {
        let v4 = flow.family(&self.sets.store) != Some(Family::Ipv6);
        match (kind, v4) {
            (Some(RouteKind::Blackhole), _) => self.dropped(flow, &host.name, Stage::Blackhole),
            (Some(RouteKind::Prohibit), _) => self.refused_at(flow, &host.name, Stage::Prohibit),
            (Some(RouteKind::Unreachable), true) => self.refused_at(flow, &host.name, Stage::HostUnreachable),
            _ => self.refused_at(flow, &host.name, Stage::NoRoute),
        }
    }

    /// Forwards packets (`ip_forward`, `ip6_forward`).
    fn forward(
        &mut self,
        host: &'a Host,
        device: &'a Interface,
        route: usize,
        hops: &[(usize, usize)],
        flow: Flow,
    ) -> Result<(), Error> {
        let v4 = flow.family(&self.sets.store) != Some(Family::Ipv6);
        if flow.packet_type != PacketType::Unicast {
            self.dropped(flow, &host.name, Stage::NotMyMac);
            return Ok(());
        }
        if flow.now.ttl <= 1 {
            self.refused_at(flow, &host.name, Stage::Ttl);
            return Ok(());
        }
        for (way, flow) in self.ways(host, route, hops, flow) {
            let Some(way) = way else {
                self.dropped(flow, &host.name, Stage::NoRoute);
                continue;
            };
            let mut flows = vec![flow];
            if !v4 && way.device.name != device.name {
                let nobody = self.sets.store.is_address(Field::Src, "::".parse().unwrap_or(UNSPECIFIED))?;
                let mut left = Vec::new();
                for flow in flows {
                    let (bad, good) = self.divide(flow, nobody)?;
                    for flow in bad {
                        self.dropped(flow, &host.name, Stage::MartianSource);
                    }
                    left.extend(good);
                }
                let bits = crate::space::Bits { mask: 0xffc0 << 112, value: 0xfe80 << 112 };
                let local = self.sets.store.bits(Field::Src, bits)?;
                flows = Vec::new();
                for flow in left {
                    let (bad, good) = self.divide(flow, local)?;
                    for flow in bad {
                        self.refused_at(flow, &host.name, Stage::MartianSource);
                    }
                    flows.extend(good);
                }
            }
            for mut flow in flows {
                let mtu = way.mtu();
                if flow.now.on_wire() > mtu && (flow.now.df || !v4) {
                    self.refused_at(flow, &host.name, Stage::Mtu);
                    continue;
                }
                flow.now.ttl -= 1;
                let ends = HookEnds { input: Some(&device.name), output: Some(&way.device.name) };
                for (flow, _) in self.hook(host, Hook::Forward, ends, flow, Some(way))? {
                    self.postrouting(host, Some(&device.name), way, flow)?;
                }
            }
        }
        Ok(())
    }

    /// INPUT, then the socket (`ip_local_deliver`).
    fn deliver(&mut self, host: &'a Host, device: &'a Interface, flow: Flow) -> Result<(), Error> {
        let ends = HookEnds { input: Some(&device.name), output: None };
        let flow = Flow { now: Now { fragment: None, ..flow.now.clone() }, ..flow };
        for (flow, _) in self.hook(host, Hook::Input, ends, flow, None)? {
            if flow.inside.is_empty() {
                // In a VRF, the port that they came in by.
                let inside = |port: &&String| host.vrf_of(port).is_some_and(|vrf| vrf.name == device.name);
                let iface = flow.came_by.as_ref().filter(inside).unwrap_or(&device.name).clone();
                let at = Place { host: host.name.clone(), iface };
                let (for_tunnels, others) = self.for_tunnels(host, flow)?;
                for flow in for_tunnels {
                    let what = format!("{}: a packet for a tunnel that none sent", host.name);
                    self.end(flow.claimless(&[what]), Ending::Delivered(at.clone()));
                }
                for flow in others {
                    self.end(flow, Ending::Delivered(at.clone()));
                }
            } else {
                self.decapsulate(host, flow)?;
            }
        }
        Ok(())
    }

    /// Packets that a host's tunnels take, and the others.
    fn for_tunnels(&mut self, host: &Host, flow: Flow) -> Result<(Vec<Flow>, Vec<Flow>), Error> {
        let Some(family) = flow.family(&self.sets.store) else { return Ok((Vec::new(), vec![flow])) };
        let mut set = Ref::NONE;
        for (from, to, number) in accepted(host, family) {
            let store = &mut self.sets.store;
            let mut one = store.value(Field::Protocol, number.into())?;
            for (field, address) in [(Field::Dst, to), (Field::Src, from)] {
                if let Some(address) = address {
                    let end = store.is_address(field, address)?;
                    one = store.guard(end, one)?;
                }
            }
            set = store.or_else(set, one)?;
        }
        self.divide(flow, set)
    }

    /// The set of every packet header.
    ///
    /// # Errors
    /// If the diagrams outgrow their budget.
    pub fn headers(&mut self) -> Result<Ref, Error> {
        self.sets.store.headers()
    }
}

const UNSPECIFIED: std::net::IpAddr = std::net::IpAddr::V6(std::net::Ipv6Addr::UNSPECIFIED);

/// Whether packets came by one place more than once the same way, until their
/// TTL ran out or for ever.
fn goes_round(flow: &Flow) -> bool {
    if flow.steps > STEPS {
        return true;
    }
    let hops: Vec<Passed> = flow.passed().into_iter().filter(|p| matches!(p, Passed::Hop(..))).collect();
    if flow.now.ttl > 1 {
        return false;
    }
    hops.iter().enumerate().any(|(i, hop)| hops[..i].contains(hop))
}
