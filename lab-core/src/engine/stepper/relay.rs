//! What a tunnel's own host does with an ICMP error about an outer packet.
//!
//! ip6tnl tells the sender of the packet inside (`ip6_tnl_err`, `ip4ip6_err` and
//! `ip6ip6_err`, `net/ipv6/ip6_tunnel.c`). The others only remember it for what they
//! send next: sit tries to tell, but from an address that IPv6 never sends from
//! (`ip6_err_gen_icmpv6_unreach`, `ip6_dst_lookup_tail`).

use super::skb::Skb;
use super::{Step, Walk};
use crate::addr::Family;
use crate::model::{
    AnswerKind, Decision, Host, Interface, InterfaceKind, Outcome, Packet, Payload, Place, RouteKind, Tunnel,
    TunnelKind,
};
use crate::semantics::input::{self, Input};
use crate::semantics::routing::{lookup, Flow, Lookup};

/// What the sender of the inner packet is told, if anything.
fn retold(kind: AnswerKind, inner: Family) -> Option<AnswerKind> {
    match (kind, inner) {
        (AnswerKind::Icmp6(1, _) | AnswerKind::Icmp6(3, 0), Family::Ipv6) => Some(AnswerKind::Icmp6(1, 3)),
        (AnswerKind::Icmp6(1, _) | AnswerKind::Icmp6(3, 0), Family::Ipv4) => Some(AnswerKind::Icmp(3, 1)),
        (AnswerKind::Icmp6(2, 0), Family::Ipv6) => Some(AnswerKind::Icmp6(2, 0)),
        (AnswerKind::Icmp6(2, 0), Family::Ipv4) => Some(AnswerKind::Icmp(3, 4)),
        _ => None,
    }
}

fn ip6tnl(device: &Interface) -> Option<&Tunnel> {
    match &device.kind {
        InterfaceKind::Tunnel(tunnel) if tunnel.kind == TunnelKind::Ip6tnl => Some(tunnel),
        _ => None,
    }
}

/// The device that the kernel guesses an inner packet came in by: by the way back.
fn guessed<'a>(host: &'a Host, inner: &Packet) -> Option<(&'a Interface, bool)> {
    let v4 = inner.family() == Family::Ipv4;
    let protocol = v4.then_some(4);
    let flow = Flow { protocol, tos: if v4 { inner.tos } else { 0 }, ..Flow::to(inner.src) };
    let Lookup::Found(route, hops) = lookup(host, &flow) else { return None };
    // Everybody is nobody's own, and the host sends nothing from there.
    if matches!(route.kind, RouteKind::Broadcast | RouteKind::Multicast) {
        return None;
    }
    let local = matches!(route.kind, RouteKind::Local | RouteKind::Anycast);
    let loopback = || host.interfaces.iter().find(|i| i.kind == InterfaceKind::Loopback);
    let there = hops.first().and_then(|h| h.interface.as_deref());
    let device = match local {
        true => there.and_then(|device| host.vrf_of(device)).or_else(loopback),
        false => there.and_then(|device| host.interface(device)),
    };
    device.map(|device| (device, local))
}

/// Whether an IPv4 packet would be sent into a tunnel over IPv6 once more, which
/// `ip4ip6_err` wants to see; and not to everybody, of which nobody is told.
fn sent_again(host: &Host, inner: &Packet, (device, local): (&Interface, bool)) -> bool {
    let tunnelled = |hops: &[&crate::model::NextHop]| {
        let first = hops.first().and_then(|h| host.interface(h.interface.as_deref()?));
        first.is_some_and(|device| ip6tnl(device).is_some())
    };
    if local {
        let flow = Flow { src: Some(inner.src), protocol: Some(4), tos: inner.tos, ..Flow::to(inner.dst) };
        return match lookup(host, &flow) {
            Lookup::Found(route, hops) => route.kind == RouteKind::Unicast && tunnelled(&hops),
            _ => false,
        };
    }
    let packet = Packet { mark: 0, ..inner.clone() };
    matches!(input::decide(host, device, &packet), Input::Forward(_, hops) if tunnelled(&hops))
}

impl<'a> Walk<'a, '_> {
    /// Answers an outer packet: the error must get home to the tunnel's end, which
    /// may have something to tell the sender of the packet inside.
    pub(super) fn relayed(
        &mut self,
        host: &'a Host,
        about: &Skb,
        kind: AnswerKind,
        by: Decision,
        local: bool,
    ) -> Step<'a> {
        let silent = Step::Done(Outcome::Dropped { by: by.clone() });
        let Some((end, device)) = self.tunnels.last().cloned() else { return silent };
        let Some(end) = self.lab.host(&end) else { return silent };
        let Some(tunnel) = end.interface(&device).and_then(ip6tnl) else { return silent };
        let Payload::Tunnelled { packet: inner, .. } = &about.packet.payload else { return silent };
        let Some(told) = retold(kind, inner.family()) else { return silent };
        let mut tunnels = std::mem::take(&mut self.tunnels);
        let first = self.answer(host, about, kind, by.clone(), local);
        self.answer_events.clear();
        tunnels.pop();
        self.tunnels = tunnels;
        let Step::Done(Outcome::Rejected { answer, .. }) = first else { return silent };
        let Some((Place { host: home, iface }, error)) = answer.received else { return silent };
        let Payload::Quoted(outer) = error.payload else { return silent };
        let known = tunnel.local == Some(outer.src) && tunnel.remote == Some(outer.dst);
        if home != end.name || !known {
            return silent;
        }
        let mut about = Skb::new((**inner).clone());
        let guess = guessed(end, &about.packet);
        // What loops back came in by the device that has the address
        // (IP6CB(skb)->iif of its route).
        let looped = end
            .interface(&iface)
            .is_some_and(|i| matches!(i.kind, InterfaceKind::Loopback | InterfaceKind::Vrf(_)));
        let owner = end.interface_with(error.dst).filter(|_| looped);
        about.device = owner.map(|owner| owner.name.clone()).or(Some(iface));
        if about.packet.family() == Family::Ipv4 {
            if !guess.is_some_and(|guess| sent_again(end, &about.packet, guess)) {
                return silent;
            }
            about.leaves_by = Some(device);
        } else {
            about.leaves_by = guess.map(|(device, _)| device.name.clone());
        }
        self.answer(end, &about, told, by, false)
    }
}
