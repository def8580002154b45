//! What GRE, IPIP, SIT and ip6tnl wrap packets in, and what fits
//! (`net/ipv4/ip_tunnel.c`, `ip_gre.c`, `ipip.c`, `net/ipv6/sit.c`,
//! `ip6_tunnel.c`, `ip6_gre.c`).

use std::net::IpAddr;

use crate::addr::Family;
use crate::model::{AnswerKind, Host, Interface, InterfaceKind, Packet, Tunnel, TunnelKind};

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

/// The answer to a packet that does not fit into the `room` that a tunnel has,
/// if it gets one (`tnl_update_pmtu`, `ip6_tnl_xmit`, `ipip6_tunnel_xmit`).
pub fn too_big(tunnel: &Tunnel, packet: &Packet, room: u32) -> Option<AnswerKind> {
    match packet.family() {
        Family::Ipv4 => {
            let asks = packet.df || tunnel.kind == TunnelKind::Ip6tnl;
            (asks && packet.on_wire() > room).then_some(AnswerKind::Icmp(3, 4))
        }
        Family::Ipv6 => {
            let room = match tunnel.kind {
                TunnelKind::Sit | TunnelKind::Ip6tnl => room.max(MTU_V6),
                _ => room,
            };
            (room >= MTU_V6 && packet.length > room).then_some(AnswerKind::Icmp6(2, 0))
        }
    }
}
