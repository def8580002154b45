//! rpfilter (`ipt_rpfilter.c`, `ip6t_rpfilter.c`).

use std::net::IpAddr;

use crate::model::{InterfaceKind, RouteKind};
use crate::semantics::input::uses;
use crate::semantics::routing::{link_local, lookup, Flow, Lookup};
use crate::semantics::{Context, Tri};

/// What is said of packets from nowhere without asking for a route.
fn unasked(src: IpAddr, dst: IpAddr) -> Option<bool> {
    match (src, dst) {
        (IpAddr::V6(src), _) => src.is_unspecified().then_some(true),
        (IpAddr::V4(src), IpAddr::V4(dst)) if src.octets()[0] == 0 => {
            let near = dst.is_broadcast() || matches!(dst.octets(), [224, 0, 0, _]);
            (near || dst.is_multicast()).then_some(near)
        }
        _ => None,
    }
}

/// Whether a packet passes the reverse path test. In a VRF, its table is asked; the
/// VRF's own device stands for every port of it.
pub fn holds(at: &Context, loose: bool, valid_mark: bool, accept_local: bool) -> Tri {
    let Some(input) = at.input else { return Tri::Yes };
    if at.host.interface(input).is_some_and(|i| i.kind == InterfaceKind::Loopback) {
        return Tri::Yes;
    }
    let packet = at.packet;
    if let Some(passes) = unasked(packet.src, packet.dst) {
        return passes.into();
    }
    let flow = Flow {
        dst: packet.src,
        src: Some(packet.dst),
        iif: "lo",
        // On a link alone, even a loose test asks by that link.
        oif: if packet.src.is_ipv4() || loose && !link_local(packet.src) { None } else { Some(input) },
        vrf: Some(input),
        bound: false,
        mark: if valid_mark { packet.mark } else { 0 },
        tos: packet.tos,
        protocol: Some(packet.transport.protocol()),
        ports: None,
    };
    match lookup(at.host, &flow) {
        Lookup::Unknown(why) => Tri::Unknown(why),
        Lookup::NoRoute | Lookup::Refused(_) => Tri::No,
        Lookup::Found(route, hops) => {
            let here = loose || uses(at.host, hops, input);
            match route.kind {
                RouteKind::Unicast => here,
                // Whose own address it is, IPv6 does not ask.
                RouteKind::Local => accept_local && (here || packet.src.is_ipv6()),
                _ => false,
            }
            .into()
        }
    }
}
