//! What VXLAN, GRE, IPIP, SIT, ip6tnl and WireGuard wrap packets in, what fits,
//! and where it goes
//! (`net/ipv4/ip_tunnel.c`, `ip_gre.c`, `ipip.c`, `net/ipv6/sit.c`,
//! `ip6_tunnel.c`, `ip6_gre.c`).

use std::net::IpAddr;

use super::segment::behind;
use crate::addr::{Family, Mac};
use crate::model::{AnswerKind, FdbEntry, Host, Interface, InterfaceKind, Lab, Tunnel, TunnelKind, Vxlan};

/// The least MTU of IPv6, in bytes.
const MTU_V6: u32 = 1280;

/// The protocol of a tunnel's outer packet around one of a family.
pub fn protocol(tunnel: &Tunnel, inner: Family) -> u8 {
    match inner {
        _ if tunnel.kind.is_gre() => 47,
        Family::Ipv4 => 4,
        Family::Ipv6 => 41,
    }
}

/// What the outer headers of VXLAN take, in bytes: IP, UDP, VXLAN, Ethernet.
pub fn vxlan_overhead(outer: Family) -> u32 {
    ip_header(outer) + 8 + 8 + 14
}

/// The length of WireGuard's outer packet, in bytes: the packet is filled up
/// to a multiple of sixteen that the device's MTU allows; IP, UDP, a header and
/// a tag come on top (`drivers/net/wireguard/send.c`).
pub fn wireguard_length(outer: Family, device: &Interface, inner: u32) -> u32 {
    let padded = inner.next_multiple_of(16).min(device.mtu.max(inner));
    padded + ip_header(outer) + 8 + 16 + 16
}

fn ip_header(family: Family) -> u32 {
    match family {
        Family::Ipv4 => 20,
        Family::Ipv6 => 40,
    }
}

/// Where a VXLAN device sends a frame: address, UDP port and network identifier.
pub type Vtep = (IpAddr, u16, u32);

/// Where frames to an address go: the table's entry, else the default
/// destinations; of several, the one behind which the receiver sits. The second
/// is whether no other gets it.
pub fn vtep(lab: &Lab, host: &Host, device: &Interface, vxlan: &Vxlan, mac: Mac) -> (Option<Vtep>, bool) {
    let of =
        |e: &FdbEntry| e.destination.map(|d| (d, e.port.unwrap_or(vxlan.port), e.vni.unwrap_or(vxlan.vni)));
    let entries = |wanted: Mac| {
        host.fdb.iter().filter(move |e| e.interface == device.name && e.mac == wanted).filter_map(of)
    };
    if !mac.is_group() {
        if let Some(found) = entries(mac).next() {
            return (Some(found), true);
        }
    }
    let mut defaults: Vec<Vtep> = entries(Mac::ZERO).collect();
    let own = vxlan.remote.map(|r| (r, vxlan.port, vxlan.vni));
    defaults.extend(own.filter(|own| !defaults.contains(own)));
    if defaults.len() <= 1 {
        return (defaults.first().copied(), true);
    }
    let owner = behind(lab, host, device).owner(mac);
    let found = owner
        .and_then(|receiver| defaults.iter().find(|(to, ..)| receiver.host.interface_with(*to).is_some()));
    (found.or(defaults.first()).copied(), found.is_some())
}

/// The ends and protocols of packets that a host's tunnels take: outer source
/// and destination, none for any.
pub fn accepted(host: &Host, family: Family) -> Vec<(Option<IpAddr>, Option<IpAddr>, u8)> {
    let of = |i: &Interface| match &i.kind {
        InterfaceKind::Tunnel(tunnel) if i.up && tunnel.kind.outer() == family => {
            let ends = |inner| (tunnel.remote, tunnel.local, protocol(tunnel, inner));
            [Family::Ipv4, Family::Ipv6].map(ends).to_vec()
        }
        _ => Vec::new(),
    };
    let mut found: Vec<_> = host.interfaces.iter().flat_map(of).collect();
    found.sort_unstable();
    found.dedup();
    found
}

/// Whether the outer packet must not be fragmented, and how much of one inside
/// fits; `mtu` is that of the way below.
pub fn room(tunnel: &Tunnel, device: &Interface, mtu: u32, inner: Family, df: bool) -> (bool, u32) {
    let v4 = tunnel.kind.outer() == Family::Ipv4;
    let outer = v4 && (tunnel.df || (inner == Family::Ipv4 && df && !tunnel.ignore_df));
    let room = match outer || !v4 {
        true => mtu.saturating_sub(tunnel.overhead()),
        false => device.mtu,
    };
    // IPv6 never gets less than its least MTU; sit has the outer packet
    // fragmented for that.
    let least = inner == Family::Ipv6 && tunnel.kind != TunnelKind::Gre && tunnel.kind != TunnelKind::Gretap;
    match least && room < MTU_V6 {
        true => (false, MTU_V6),
        false => (outer, room),
    }
}

/// Whether a tunnel sends at all: over IPv6 only with both ends named, its own an
/// address of the host and the other not (`ip6_tnl_xmit_ctl`).
pub fn sends(host: &Host, tunnel: &Tunnel) -> bool {
    let own = |end: Option<IpAddr>| end.map(|address| host.interface_with(address).is_some());
    let ends = (own(tunnel.local), own(tunnel.remote));
    tunnel.kind.outer() == Family::Ipv4 || ends == (Some(true), Some(false))
}

/// The source of packets that a tunnel never wraps: over IPv6 the other end's, as
/// these are the tunnel's own (`ip6_tnl_addr_conflict`, `ip6gre_xmit_ipv6`).
pub fn shunned(tunnel: &Tunnel) -> Option<IpAddr> {
    tunnel.remote.filter(|remote| remote.is_ipv6() && !tunnel.kind.is_ethernet())
}

/// The tunnel of a host that takes a packet with these outer ends: both ends
/// given come first, then the remote one, then the local
/// (`ip_tunnel_lookup`).
pub fn taker(
    host: &Host,
    (src, dst): (IpAddr, IpAddr),
    number: u8,
    key: Option<u32>,
    ethernet: bool,
) -> Option<&Interface> {
    let inner = if number == 4 { Some(Family::Ipv4) } else { (number == 41).then_some(Family::Ipv6) };
    let takes = |t: &Tunnel| {
        t.kind.outer() == Family::of(dst)
            && t.kind.is_ethernet() == ethernet
            && t.kind.is_gre() == (number == 47)
            && t.key_in == key
            && inner.is_none_or(|family| t.inside.is_none_or(|only| only == family))
            && t.local.is_none_or(|local| local == dst)
            && t.remote.is_none_or(|remote| remote == src)
    };
    let own = host.interfaces.iter().filter_map(|i| match &i.kind {
        InterfaceKind::Tunnel(tunnel) if i.up && takes(tunnel) => Some((i, tunnel)),
        _ => None,
    });
    own.max_by_key(|(_, t)| (t.remote.is_some(), t.local.is_some())).map(|(device, _)| device)
}

/// Whether whoever sent a packet is told that the way to the tunnel's other end
/// is not known (`ipip6_tunnel_xmit`, `ip6_tnl_xmit`); `ip_tunnel_xmit` drops
/// it in silence.
pub fn tells_of_no_route(tunnel: &Tunnel) -> bool {
    tunnel.kind == TunnelKind::Sit || tunnel.kind.outer() == Family::Ipv6
}

/// The answer to a packet that does not fit into the `room` that a tunnel has,
/// if it gets one (`tnl_update_pmtu`, `ip6_tnl_xmit`, `ipip6_tunnel_xmit`).
/// `df` and `length` are those of the packet, or of its longest fragment.
pub fn too_big(tunnel: &Tunnel, family: Family, df: bool, length: u32, room: u32) -> Option<AnswerKind> {
    match family {
        Family::Ipv4 => {
            let asks = df || tunnel.kind.outer() == Family::Ipv6;
            (asks && length > room).then_some(AnswerKind::Icmp(3, 4))
        }
        Family::Ipv6 => (room >= MTU_V6 && length > room).then_some(AnswerKind::Icmp6(2, 0)),
    }
}
