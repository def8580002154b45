//! What GRE, IPIP, SIT and ip6tnl wrap packets in, and what fits
//! (`net/ipv4/ip_tunnel.c`, `ip_gre.c`, `ipip.c`, `net/ipv6/sit.c`,
//! `ip6_tunnel.c`, `ip6_gre.c`).

use std::net::IpAddr;

use crate::addr::Family;
use crate::model::{AnswerKind, Host, Interface, InterfaceKind, Tunnel, TunnelKind};

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

/// The ends and protocols of packets that a host's tunnels take: outer source
/// and destination, none for any.
pub fn taken(host: &Host, family: Family) -> Vec<(Option<IpAddr>, Option<IpAddr>, u8)> {
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
    match outer || !v4 {
        true => (outer, mtu.saturating_sub(tunnel.overhead())),
        false => (outer, device.mtu),
    }
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

/// The answer to a packet that does not fit into the `room` that a tunnel has,
/// if it gets one (`tnl_update_pmtu`, `ip6_tnl_xmit`, `ipip6_tunnel_xmit`).
/// `df` and `length` are those of the packet, or of its longest fragment.
pub fn too_big(tunnel: &Tunnel, family: Family, df: bool, length: u32, room: u32) -> Option<AnswerKind> {
    match family {
        Family::Ipv4 => {
            let asks = df || tunnel.kind == TunnelKind::Ip6tnl;
            (asks && length > room).then_some(AnswerKind::Icmp(3, 4))
        }
        Family::Ipv6 => {
            let room = match tunnel.kind {
                TunnelKind::Sit | TunnelKind::Ip6tnl => room.max(MTU_V6),
                _ => room,
            };
            (room >= MTU_V6 && length > room).then_some(AnswerKind::Icmp6(2, 0))
        }
    }
}
