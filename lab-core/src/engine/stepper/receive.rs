//! A frame arrives; the network layer receives, routes and forwards.

use super::bridge::frame;
use super::hook::{Ends, HookEnd, Reroute};
use super::send::Way;
use super::skb::Skb;
use super::{Step, Walk};
use crate::addr::{Family, Mac};
use crate::model::{
    AnswerKind, Decision, Frame, Hook, HopDirection, Host, Interface, InterfaceKind, MacvlanMode, NextHop,
    Outcome, Packet, PacketType, Route, RouteKind, RuleRef, Stage, Transport, VlanTag,
};
use crate::semantics::hooks::{tracks, twice_differs, TWICE};
use crate::semantics::input::{self, Input};
use crate::semantics::matches::packet_type;
use crate::semantics::segment::{hidden, macs_towards, uppers};
use crate::semantics::vlan;

impl<'a> Walk<'a, '_> {
    /// A frame put on the wire towards an interface: to the bridge if it is a
    /// port of one, from the link's other end.
    pub(super) fn inject(
        &mut self,
        host: &'a Host,
        device: &'a Interface,
        tag: Option<u16>,
        packet: Packet,
    ) -> Step<'a> {
        let (src, dst) = macs_towards(self.lab, host, device);
        let frame = Frame { src, dst, tags: tag.map(VlanTag::new).into_iter().collect(), packet };
        let skb = Skb::new(frame.packet.clone());
        Step::Arrive(host, device, frame, skb)
    }

    /// A frame arrives at an interface (`__netif_receive_skb_core`).
    pub(super) fn arrive(
        &mut self,
        host: &'a Host,
        device: &'a Interface,
        frame: Frame,
        mut skb: Skb,
    ) -> Step<'a> {
        self.hop(&host.name, &device.name, HopDirection::In, &skb.packet);
        self.note_untold(host, skb.packet.family());
        if !device.up {
            return self.dropped(&host.name, Stage::LinkDown);
        }
        skb.source_mac = (frame.src != Mac::ZERO).then_some(frame.src);
        skb.destination_mac = (frame.dst != Mac::ZERO).then_some(frame.dst);
        skb.packet_type = packet_type(skb.destination_mac);
        skb.tags = frame.tags;
        self.taken(host, device, skb)
    }

    /// What a device's frames are for: a VLAN device on it comes first, then
    /// macvlan devices, then whatever it is a port of, then the host itself.
    pub(super) fn taken(&mut self, host: &'a Host, device: &'a Interface, mut skb: Skb) -> Step<'a> {
        let destination = skb.destination_mac.unwrap_or(Mac::ZERO);
        if let Some(upper) = vlan::device(host, device, &skb.tags) {
            skb.tags.remove(0);
            return Step::Arrive(host, upper, frame(&skb), skb);
        }
        let above: Vec<_> = uppers(self.lab, host, device).collect();
        let takes = |upper: &Interface| {
            upper.kind == InterfaceKind::Macvlan(MacvlanMode::Passthru) || upper.mac == Some(destination)
        };
        if destination.is_group() && !above.is_empty() {
            self.unknown.push(format!("{}: a frame to every macvlan on {}", host.name, device.name));
        }
        if let Some((other, upper)) = above.into_iter().find(|(_, upper)| takes(upper)) {
            return Step::Arrive(other, upper, frame(&skb), skb.scrubbed());
        }
        if let Some(master) = device.master.as_deref().and_then(|m| host.interface(m)) {
            return match &master.kind {
                InterfaceKind::Bridge(_) => self.bridge_input(host, master, device, skb),
                InterfaceKind::Bond(_) if device.standby => self.dropped(&host.name, Stage::BondInactive),
                InterfaceKind::Bond(_) => Step::Arrive(host, master, frame(&skb), skb),
                InterfaceKind::Vrf(_) => self.for_host(host, device, skb),
                other => self
                    .dropped(&host.name, Stage::Unmodelled(format!("device {other} over {}", device.name))),
            };
        }
        self.for_host(host, device, skb)
    }

    /// A frame that is no other device's.
    fn for_host(&mut self, host: &'a Host, device: &'a Interface, mut skb: Skb) -> Step<'a> {
        if let InterfaceKind::Other(kind) = &device.kind {
            return self.dropped(&host.name, Stage::Unmodelled(format!("device {} ({kind})", device.name)));
        }
        let dst = skb.destination_mac.unwrap_or(Mac::ZERO);
        let bridge = matches!(device.kind, InterfaceKind::Bridge(_));
        let mine = bridge || dst == Mac::ZERO || dst.is_group() || device.mac == Some(dst);
        // A tag that no device takes off makes it somebody else's.
        let tagged = skb.tags.iter().any(|tag| tag.id != 0);
        skb.tags.clear();
        if !mine || tagged {
            let stage = hidden(self.lab, host).map_or(Stage::NotMyMac, Stage::Unmodelled);
            return self.dropped(&host.name, stage);
        }
        Step::Receive(host, device, skb)
    }

    /// The network layer receives a packet (`ip_rcv`, `ipv6_rcv`).
    pub(super) fn receive(&mut self, host: &'a Host, device: &'a Interface, mut skb: Skb) -> Step<'a> {
        if input::martian_v6(device, &skb.packet) {
            return self.dropped(&host.name, Stage::Martian);
        }
        skb.device = Some(device.name.clone());
        self.reassemble(host, &mut skb);
        let sabotaged = skb.bridged.as_ref().is_some_and(|b| b.prerouted);
        if !sabotaged {
            let ends = Ends { input: Some(&device.name), ..Ends::default() };
            match self.hook(host, Hook::Prerouting, ends, &mut skb, &mut kept) {
                HookEnd::Accept => {}
                end => return self.stopped(host, skb, end, false),
            }
        }
        if let Some(bridged) = &mut skb.bridged {
            bridged.prerouted = false;
        }
        // A VRF's hooks see the packet once more, as its own (vrf_ip_rcv,
        // drivers/net/vrf.c).
        let (port, mut device) = (device, device);
        if let Some(vrf) = host.vrf_of(&device.name).filter(|vrf| vrf.name != device.name) {
            let ends = Ends { input: Some(&vrf.name), ..Ends::default() };
            match self.hook(host, Hook::Prerouting, ends, &mut skb, &mut kept) {
                HookEnd::Accept => {}
                end => return self.stopped(host, skb, end, false),
            }
            device = vrf;
        }
        if skb.looped_back {
            return self.deliver(host, device, skb);
        }
        match input::decide(host, port, &skb.packet) {
            Input::Local => self.deliver(host, device, skb),
            Input::Broadcast => {
                skb.to_all = true;
                self.deliver(host, device, skb)
            }
            Input::Forward(route, hops) => self.forward(host, device, route, &hops, skb),
            Input::Refused(kind) => self.refused(host, kind, skb),
            Input::Dropped(stage) => self.dropped(&host.name, stage),
            Input::Unknown(why) => self.dropped(&host.name, Stage::Unmodelled(why)),
        }
    }

    /// Connection tracking puts fragments together before anything looks at
    /// them (`nf_defrag_ipv4`). Without it, rules see each by itself.
    fn reassemble(&mut self, host: &Host, skb: &mut Skb) {
        if skb.packet.fragment.is_none() || host.ruleset.tables.is_empty() {
            return;
        }
        if tracks(host, skb.packet.family()) {
            skb.packet.fragment = None;
        } else {
            self.unknown.push(format!("{}: rules that see fragments", host.name));
        }
    }

    /// A route, or the lack of one, refuses a packet that came in (`ip_error`,
    /// `ip6_pkt_drop`).
    fn refused(&mut self, host: &'a Host, kind: Option<RouteKind>, skb: Skb) -> Step<'a> {
        let v4 = skb.packet.family() == Family::Ipv4;
        let (stage, answer) = match (kind, v4) {
            (Some(RouteKind::Blackhole), _) => return self.dropped(&host.name, Stage::Blackhole),
            (Some(RouteKind::Prohibit), true) => (Stage::Prohibit, AnswerKind::Icmp(3, 13)),
            (Some(RouteKind::Prohibit), false) => (Stage::Prohibit, AnswerKind::Icmp6(1, 1)),
            (Some(RouteKind::Unreachable), true) => (Stage::HostUnreachable, AnswerKind::Icmp(3, 1)),
            (_, true) => (Stage::NoRoute, AnswerKind::Icmp(3, 0)),
            (_, false) => (Stage::NoRoute, AnswerKind::Icmp6(1, 0)),
        };
        let by = |stage| Decision::Stage { host: host.name.clone(), stage };
        match self.answer(host, &skb, answer, by(stage), false) {
            // Where nobody is told, an unreachable route is no route.
            Step::Done(Outcome::Dropped { by: same }) if same == by(Stage::HostUnreachable) => {
                self.dropped(&host.name, Stage::NoRoute)
            }
            step => step,
        }
    }

    /// Forwards a packet (`ip_forward`, `ip6_forward`): TTL, size, then the
    /// FORWARD hook, which sees the TTL already lowered.
    fn forward(
        &mut self,
        host: &'a Host,
        device: &'a Interface,
        route: &'a Route,
        hops: &[&'a NextHop],
        mut skb: Skb,
    ) -> Step<'a> {
        let v4 = skb.packet.family() == Family::Ipv4;
        if skb.packet_type != PacketType::Unicast {
            return self.dropped(&host.name, Stage::NotMyMac);
        }
        let by = |stage| Decision::Stage { host: host.name.clone(), stage };
        if skb.packet.ttl <= 1 {
            self.note_loop();
            let kind = if v4 { AnswerKind::Icmp(11, 0) } else { AnswerKind::Icmp6(3, 0) };
            return self.answer(host, &skb, kind, by(Stage::Ttl), false);
        }
        let Some(way) = self.way(host, route, hops, skb.packet.dst) else {
            return self.dropped(&host.name, Stage::NoRoute);
        };
        let turns_back = way.device.name == device.name;
        if !v4 && !turns_back && skb.packet.src.is_unspecified() {
            return self.dropped(&host.name, Stage::MartianSource);
        }
        if !v4 && !turns_back && link_local(skb.packet.src) {
            return self.answer(host, &skb, AnswerKind::Icmp6(1, 2), by(Stage::MartianSource), false);
        }
        let mtu = way.mtu();
        if skb.packet.on_wire() > mtu && (skb.packet.df || !v4) {
            let kind = if v4 { AnswerKind::Icmp(3, 4) } else { AnswerKind::Icmp6(2, 0) };
            return self.answer(host, &skb, kind, by(Stage::Mtu), false);
        }
        skb.packet.ttl -= 1;
        let ends = Ends { input: Some(&device.name), output: Some(&way.device.name), ..Ends::default() };
        match self.hook(host, Hook::Forward, ends, &mut skb, &mut kept) {
            HookEnd::Accept => self.postrouting(host, Some(device), way, skb),
            end => self.stopped(host, skb, end, false),
        }
    }

    /// What leaves a host (`ip_output`): POSTROUTING, then the device.
    pub(super) fn postrouting(
        &mut self,
        host: &'a Host,
        input: Option<&Interface>,
        way: Way<'a>,
        mut skb: Skb,
    ) -> Step<'a> {
        let ends = Ends {
            input: input.map(|i| i.name.as_str()),
            output: Some(&way.device.name),
            next_hop: Some(way.next_hop),
        };
        match self.hook(host, Hook::Postrouting, ends, &mut skb, &mut kept) {
            HookEnd::Accept => {
                if input.is_none() && way.broadcast {
                    let rewritten = self.connection(host, &skb).is_some_and(|c| c.snat);
                    if rewritten || twice_differs(host) {
                        self.unknown.push(format!("{}: {TWICE}", host.name));
                    }
                }
                self.transmit(host, way, skb)
            }
            end => self.stopped(host, skb, end, false),
        }
    }

    /// A hook did not let a packet pass. `local`: it is for this host itself.
    pub(super) fn stopped(&mut self, host: &'a Host, skb: Skb, end: HookEnd, local: bool) -> Step<'a> {
        match end {
            HookEnd::Accept => self.dropped(&host.name, Stage::Silent),
            HookEnd::Drop(rule) => Step::Done(Outcome::Dropped { by: Decision::Rule(*rule) }),
            HookEnd::Unroutable(errno) => self.dropped(&host.name, Stage::Send(errno)),
            HookEnd::Reject(rule, with) => self.reject(host, &skb, *rule, with, local),
        }
    }

    fn reject(
        &mut self,
        host: &'a Host,
        skb: &Skb,
        rule: RuleRef,
        with: crate::model::RejectWith,
        local: bool,
    ) -> Step<'a> {
        let by = Decision::Rule(rule);
        match crate::semantics::reject::answer(with, &skb.packet) {
            Some(kind) => {
                let why = format!("{}: whether a packet's checksum is right", host.name);
                if kind != AnswerKind::TcpReset && checked(&skb.packet) && self.choices.pick(2, &why) == 1 {
                    return Step::Done(Outcome::Dropped { by });
                }
                self.answer(host, skb, kind, by, local)
            }
            None => Step::Done(Outcome::Dropped { by }),
        }
    }
}

/// Whether an ICMP error of REJECT waits for a checksum that is not modelled:
/// that of the whole packet, which protocols unknown here may not even have
/// (`nf_reject_verify_csum`, `nf_ip_checksum`).
fn checked(packet: &Packet) -> bool {
    matches!(packet.transport, Transport::Other(protocol) if ![33, 47, 50, 51, 136].contains(&protocol))
}

/// For hooks that never route again.
pub(super) fn kept(_: &mut Walk, _: &Skb) -> Reroute {
    Reroute::Kept
}

fn link_local(address: std::net::IpAddr) -> bool {
    match address {
        std::net::IpAddr::V4(_) => false,
        std::net::IpAddr::V6(a) => a.segments()[0] & 0xffc0 == 0xfe80,
    }
}
