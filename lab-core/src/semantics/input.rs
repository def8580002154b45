//! What a host makes of a packet that came in: martian addresses, the route,
//! the reverse path test, and whether it forwards.
//!
//! IPv4 follows `ip_route_input_slow` (`net/ipv4/route.c`) and
//! `fib_validate_source` (`net/ipv4/fib_frontend.c`), in their order; IPv6
//! `ip6_route_input` and `ip6_rcv_core`.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr};

use super::routing::{lookup, Flow, Lookup};
use crate::addr::Family;
use crate::model::{
    Host, Interface, InterfaceKind, NextHop, Packet, PolicyAction, Route, RouteKind, RouteTable, Stage,
};

/// What becomes of a packet that came in.
#[derive(Clone, Debug, PartialEq)]
pub enum Input<'a> {
    /// It is for this host.
    Local,
    /// It is for everybody here.
    Broadcast,
    /// It is to be forwarded, by one of these.
    Forward(&'a Route, Vec<&'a NextHop>),
    /// The route (or its lack) refuses it, and says so: none means no route.
    Refused(Option<RouteKind>),
    /// It is dropped in silence.
    Dropped(Stage),
    /// It depends on what is not known.
    Unknown(String),
}

/// Where a packet ends that a route, or the lack of one, refuses and nobody is
/// told: an unreachable route is then no route.
pub fn unanswered(kind: Option<RouteKind>) -> Stage {
    match kind {
        Some(RouteKind::Blackhole) => Stage::Blackhole,
        Some(RouteKind::Prohibit) => Stage::Prohibit,
        _ => Stage::NoRoute,
    }
}

/// The greater of `conf.all` and the interface's own setting.
fn max_setting(host: &Host, device: &str, key: &str) -> Option<i64> {
    let own = host.sysctls.interface("ipv4", device, key);
    let all = host.sysctls.interface("ipv4", "all", key);
    own.max(all)
}

/// Whether `conf.all` or the interface's own setting is on; off if not told,
/// as a kernel starts.
fn either(host: &Host, device: &str, key: &str) -> bool {
    max_setting(host, device, key).is_some_and(|v| v != 0)
}

/// Whether a host forwards what comes in by an interface; none: not told.
pub fn forwards(host: &Host, device: &str, family: Family) -> Option<bool> {
    let setting = match family {
        Family::Ipv4 => host
            .sysctls
            .interface("ipv4", device, "forwarding")
            .or_else(|| host.sysctls.number("net.ipv4.ip_forward")),
        Family::Ipv6 => host
            .sysctls
            .interface("ipv6", "all", "forwarding")
            .map(|all| all.max(host.sysctls.interface("ipv6", device, "force_forwarding").unwrap_or(0))),
    };
    setting.map(|v| v != 0)
}

/// The flow that an incoming packet is looked up by.
pub fn flow<'a>(packet: &Packet, device: &'a str) -> Flow<'a> {
    Flow {
        dst: packet.dst,
        src: Some(packet.src),
        iif: device,
        oif: None,
        vrf: None,
        bound: false,
        mark: packet.mark,
        tos: packet.tos,
        protocol: Some(packet.transport.protocol()),
        ports: packet.transport.ports(),
    }
}

/// Decides on a frame that a bridge rewrote: IPv6 looks up its route before it
/// asks whether to forward (`ip6_route_input`).
pub fn decide_bridged<'a>(host: &'a Host, bridge: &Interface, packet: &Packet) -> Input<'a> {
    match packet.dst {
        IpAddr::V4(_) => decide(host, bridge, packet),
        IpAddr::V6(_) => decide_v6(host, host.vrf_of(&bridge.name).unwrap_or(bridge), packet, Some(true)),
    }
}

/// Decides on a packet that came in by `device`. In a VRF it is the port whose
/// settings and way back count for IPv4, and the VRF's for IPv6 (`ip_rcv_finish`
/// remembers the device before `l3mdev_ip_rcv` puts the VRF in its place;
/// `ip6_route_input` asks the packet).
pub fn decide<'a>(host: &'a Host, device: &Interface, packet: &Packet) -> Input<'a> {
    match (packet.src, packet.dst) {
        (IpAddr::V4(src), IpAddr::V4(dst)) => decide_v4(host, device, packet, src, dst),
        _ => {
            let device = host.vrf_of(&device.name).unwrap_or(device);
            decide_v6(host, device, packet, forwards(host, &device.name, Family::Ipv6))
        }
    }
}

fn decide_v4<'a>(
    host: &'a Host,
    device: &Interface,
    packet: &Packet,
    src: Ipv4Addr,
    dst: Ipv4Addr,
) -> Input<'a> {
    // The rest of 0.0.0.0/8 is like any other since 5.3 (ipv4_is_zeronet).
    let nowhere = |a: Ipv4Addr| a.is_unspecified();
    if src.is_multicast() || src.is_broadcast() {
        return Input::Dropped(Stage::MartianSource);
    }
    let broadcast = || match nowhere(src) {
        true => Input::Broadcast,
        // The way back is looked up without a source of its own.
        false => match validate_source(host, device, packet, None, None) {
            Source::Fine => Input::Broadcast,
            Source::Bad(stage) => Input::Dropped(stage),
            Source::Unknown(why) => Input::Unknown(why),
        },
    };
    if dst.is_broadcast() || (src.is_unspecified() && dst.is_unspecified()) {
        return broadcast();
    }
    if nowhere(src) {
        return Input::Dropped(Stage::MartianSource);
    }
    if nowhere(dst) {
        return Input::Dropped(Stage::MartianDest);
    }
    if (dst.is_loopback() || src.is_loopback()) && !either(host, &device.name, "route_localnet") {
        return Input::Dropped(Stage::MartianLocalnet);
    }
    if dst.is_multicast() {
        // Delivered to members of the group, of whom a snapshot tells nothing.
        return Input::Unknown("multicast membership".into());
    }
    let found = lookup(host, &flow(packet, &device.name));
    let forwards = forwards(host, &device.name, Family::Ipv4);
    let not_told = || Input::Unknown(format!("net.ipv4.conf.{}.forwarding is not told", device.name));
    let (route, hops) = match found {
        Lookup::Unknown(why) => return Input::Unknown(why),
        Lookup::Refused(kind) => {
            return match forwards {
                Some(true) => Input::Refused(Some(kind)),
                Some(false) => Input::Dropped(Stage::NotForwarding),
                None => not_told(),
            }
        }
        Lookup::NoRoute => {
            return match forwards {
                Some(true) => Input::Refused(None),
                Some(false) => Input::Dropped(Stage::NotForwarding),
                None => not_told(),
            }
        }
        Lookup::Found(route, hops) => (route, hops),
    };
    match route.kind {
        RouteKind::Broadcast => broadcast(),
        RouteKind::Local | RouteKind::Anycast => {
            match validate_source(host, device, packet, Some(packet.dst), None) {
                Source::Fine => Input::Local,
                Source::Bad(stage) => Input::Dropped(stage),
                Source::Unknown(why) => Input::Unknown(why),
            }
        }
        RouteKind::Unicast => match forwards {
            None => not_told(),
            Some(false) => Input::Dropped(Stage::NotForwarding),
            Some(true) => {
                // The next hop is picked first, and where it turns back, the source is
                // looked at more closely (ip_mkroute_input).
                let outs: BTreeSet<_> = hops.iter().map(|h| h.interface.as_deref()).collect();
                let by = |out: &Option<&str>| validate_source(host, device, packet, Some(packet.dst), *out);
                let judged: Vec<Source> = outs.iter().map(by).collect();
                match judged.first() {
                    first if judged.iter().any(|other| Some(other) != first) => Input::Unknown(BY_HOP.into()),
                    Some(Source::Bad(stage)) => Input::Dropped(stage.clone()),
                    Some(Source::Unknown(why)) => Input::Unknown(why.clone()),
                    Some(Source::Fine) | None => Input::Forward(route, hops),
                }
            }
        },
        _ => Input::Dropped(Stage::MartianDest),
    }
}

/// Why it is open whether a source may come in where routes are picked by hash.
pub(super) const BY_HOP: &str = "which next hop is picked, by which the source is judged";

#[derive(PartialEq)]
enum Source {
    Fine,
    Bad(Stage),
    Unknown(String),
}

/// Whether a next hop is on a device, or on one of a VRF's
/// (`fib_info_nh_uses_dev`).
pub(super) fn uses<'h>(host: &Host, hops: impl IntoIterator<Item = &'h NextHop>, device: &str) -> bool {
    let mut names = hops.into_iter().filter_map(|h| h.interface.as_deref());
    names.any(|name| name == device || host.vrf_of(name).is_some_and(|vrf| vrf.name == device))
}

/// `fib_validate_source`: whether a source may come in here. `towards` is
/// where the packet goes, the source of the way back.
fn validate_source(
    host: &Host,
    device: &Interface,
    packet: &Packet,
    towards: Option<IpAddr>,
    out: Option<&str>,
) -> Source {
    let name = device.name.as_str();
    let accept_local = either(host, name, "accept_local");
    let Some(rp_filter) = max_setting(host, name, "rp_filter") else {
        // Not told: it matters only where the test would fail.
        return match reverse_path(host, device, packet, (towards, out), 1, accept_local) {
            Source::Bad(Stage::RpFilter) => {
                Source::Unknown(format!("net.ipv4.conf.{name}.rp_filter is not told"))
            }
            other => other,
        };
    };
    // On unless told otherwise.
    let redirects = max_setting(host, name, "send_redirects").is_none_or(|v| v != 0);
    if rp_filter == 0 && (out != Some(name) || !redirects) {
        if accept_local {
            return Source::Fine;
        }
        if !has_custom_rules(host) && !has_custom_local_routes(host) {
            return if host.interface_with(packet.src).is_some() {
                Source::Bad(Stage::MartianSource)
            } else {
                Source::Fine
            };
        }
    }
    reverse_path(host, device, packet, (towards, out), rp_filter, accept_local)
}

fn has_custom_rules(host: &Host) -> bool {
    host.rules.iter().filter(|r| r.family == Family::Ipv4).any(|r| {
        !matches!(
            (r.priority, &r.action),
            (0, PolicyAction::Lookup(RouteTable::LOCAL))
                | (32766, PolicyAction::Lookup(RouteTable::MAIN))
                | (32767, PolicyAction::Lookup(RouteTable::DEFAULT))
        )
    })
}

/// Whether somebody added a route of type local.
fn has_custom_local_routes(host: &Host) -> bool {
    host.routes
        .iter()
        .any(|r| r.family == Family::Ipv4 && r.kind == RouteKind::Local && r.protocol != "kernel")
}

/// `__fib_validate_source`: looks up the way back.
fn reverse_path(
    host: &Host,
    device: &Interface,
    packet: &Packet,
    (towards, out): (Option<IpAddr>, Option<&str>),
    rp_filter: i64,
    accept_local: bool,
) -> Source {
    let name = device.name.as_str();
    let valid_mark = either(host, name, "src_valid_mark");
    let flow = Flow {
        dst: packet.src,
        src: towards,
        iif: out.unwrap_or("lo"),
        oif: None,
        vrf: host.vrf_of(name).map(|vrf| vrf.name.as_str()),
        bound: false,
        mark: if valid_mark { packet.mark } else { 0 },
        tos: packet.tos,
        protocol: Some(packet.transport.protocol()),
        ports: packet.transport.ports().map(|(s, d)| (d, s)),
    };
    let last_resort = || if rp_filter == 0 { Source::Fine } else { Source::Bad(Stage::RpFilter) };
    let route = match lookup(host, &flow) {
        Lookup::Unknown(why) => return Source::Unknown(why),
        Lookup::NoRoute | Lookup::Refused(_) => return last_resort(),
        Lookup::Found(route, _) => route,
    };
    if route.kind != RouteKind::Unicast && (route.kind != RouteKind::Local || !accept_local) {
        return Source::Bad(Stage::MartianSource);
    }
    let loopback = device.kind == InterfaceKind::Loopback;
    if uses(host, &route.next_hops, name) || (route.kind == RouteKind::Local && loopback) {
        return Source::Fine;
    }
    if !device.addresses.iter().any(|a| a.family() == Family::Ipv4) {
        return last_resort();
    }
    if rp_filter == 1 {
        return Source::Bad(Stage::RpFilter);
    }
    Source::Fine
}

fn decide_v6<'a>(host: &'a Host, device: &Interface, packet: &Packet, forwarding: Option<bool>) -> Input<'a> {
    if packet.dst.is_multicast() {
        let IpAddr::V6(dst) = packet.dst else { return Input::Dropped(Stage::Martian) };
        // Every host is a member of the all-nodes groups.
        return if matches!(dst.segments(), [0xff02, 0, 0, 0, 0, 0, 0, 1]) {
            Input::Broadcast
        } else {
            Input::Unknown("multicast membership".into())
        };
    }
    match lookup(host, &flow(packet, &device.name)) {
        Lookup::Unknown(why) => Input::Unknown(why),
        Lookup::NoRoute => Input::Refused(None),
        Lookup::Refused(kind) => Input::Refused(Some(kind)),
        Lookup::Found(route, hops) => match route.kind {
            RouteKind::Local | RouteKind::Anycast => Input::Local,
            RouteKind::Unicast => match forwarding {
                Some(true) => Input::Forward(route, hops),
                Some(false) => Input::Dropped(Stage::NotForwarding),
                None => Input::Unknown("net.ipv6.conf.all.forwarding is not told".into()),
            },
            _ => Input::Dropped(Stage::MartianDest),
        },
    }
}

/// Addresses that `ip6_rcv_core` refuses before any hook. A VRF's device is the
/// loopback of those in it.
pub fn martian_v6(device: &Interface, packet: &Packet) -> bool {
    let (IpAddr::V6(src), IpAddr::V6(dst)) = (packet.src, packet.dst) else { return false };
    let loopback = device.kind == InterfaceKind::Loopback;
    // Groups of interface scope never come from a wire.
    let own_scope = dst.is_multicast() && dst.segments()[0] & 0xf <= 1;
    if own_scope && !loopback {
        return true;
    }
    let inside = loopback || matches!(device.kind, InterfaceKind::Vrf(_));
    ((src.is_loopback() || dst.is_loopback()) && !inside) || src.is_multicast()
}
