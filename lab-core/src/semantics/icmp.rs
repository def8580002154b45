//! ICMP errors: whether one is sent, and what it looks like. Follows
//! `__icmp_send` (`net/ipv4/icmp.c`) and `icmp6_send` (`net/ipv6/icmp.c`).

use std::net::IpAddr;

use crate::addr::Family;
use crate::model::{AnswerKind, Host, Packet, Payload, PortValue, TcpFlags, Transport};

/// Whether a packet may be answered by an ICMP error at all: errors never
/// answer errors, nor what was sent to a group; of IPv6 nor what a group sent.
/// (An error to everybody or a group of IPv4 is routed as any other packet.)
pub fn may_answer(packet: &Packet) -> bool {
    if packet.transport.is_icmp_error() {
        return false;
    }
    // Unknown ICMP types count as errors (NR_ICMP_TYPES is 18).
    if matches!(packet.transport, Transport::Icmp { kind, .. } if kind > 18) {
        return false;
    }
    let asked = match (packet.src, packet.dst) {
        (IpAddr::V4(_), dst) => !matches!(dst, IpAddr::V4(a) if a.is_multicast() || a.is_broadcast()),
        (src, dst) => !src.is_multicast() && !dst.is_multicast(),
    };
    asked && !packet.src.is_unspecified()
}

/// Whether a reset may answer a packet: of IPv6 only where both ends are unicast
/// addresses, which those of IPv4 written as IPv6 are not
/// (`nf_send_reset6`, `__ipv6_addr_type`).
pub fn may_reset(packet: &Packet) -> bool {
    let unicast = |a: IpAddr| match a {
        IpAddr::V4(_) => true,
        IpAddr::V6(a) => !a.is_multicast() && !a.is_unspecified() && a.to_ipv4_mapped().is_none(),
    };
    unicast(packet.src) && unicast(packet.dst)
}

/// The default TTL or hop limit of a host.
pub fn default_ttl(host: &Host, family: Family) -> u8 {
    let setting = match family {
        Family::Ipv4 => host.sysctls.number("net.ipv4.ip_default_ttl"),
        Family::Ipv6 => host.sysctls.interface("ipv6", "all", "hop_limit"),
    };
    setting.and_then(|v| u8::try_from(v).ok()).filter(|v| *v > 0).unwrap_or(64)
}

/// An ICMP error about a packet. IPv4 quotes up to 576 bytes in all, IPv6 up
/// to 1280; the type of service is that of the packet with precedence 6
/// (IPv4), or 0.
pub fn error(host: &Host, about: &Packet, kind: AnswerKind, src: IpAddr) -> Packet {
    let (transport, limit, header, tos) = match kind {
        AnswerKind::Icmp6(kind, code) => (Transport::Icmp6 { kind, code, id: PortValue::Is(0) }, 1280, 48, 0),
        AnswerKind::Icmp(kind, code) => {
            (Transport::Icmp { kind, code, id: PortValue::Is(0) }, 576, 28, (about.tos & 0x1e) | 0xc0)
        }
        AnswerKind::TcpReset => return reset(host, about),
    };
    let mut quoted = about.clone();
    quoted.mark = 0;
    Packet {
        src,
        dst: about.src,
        ttl: default_ttl(host, about.family()),
        tos,
        length: (about.length + header).min(limit),
        df: false,
        fragment: None,
        mark: 0,
        transport,
        payload: Payload::Quoted(Box::new(quoted)),
    }
}

/// The answer to a bridged packet for which a tunnel has too little room, if
/// it gets one (`iptunnel_pmtud_check_icmp`, `iptunnel_pmtud_check_icmpv6`).
pub fn too_big_for_tunnel(packet: &Packet, room: u32) -> Option<AnswerKind> {
    let plain = |a: IpAddr| !a.is_multicast() && !a.is_unspecified() && !a.is_loopback();
    let told = plain(packet.src) && plain(packet.dst) && !packet.transport.is_icmp_error();
    match packet.family() {
        Family::Ipv4 => (told && packet.df && room >= 576).then_some(AnswerKind::Icmp(3, 4)),
        Family::Ipv6 => (told && room >= 1280).then_some(AnswerKind::Icmp6(2, 0)),
    }
}

/// The TCP reset that answers a packet (`nf_send_reset`,
/// `net/ipv4/netfilter/nf_reject_ipv4.c`).
pub fn reset(host: &Host, about: &Packet) -> Packet {
    let (sport, dport, flags) = match about.transport {
        Transport::Tcp { sport, dport, flags } => (dport, sport, flags),
        _ => (PortValue::Is(0), PortValue::Is(0), TcpFlags(0)),
    };
    let flags = if flags.has(TcpFlags::ACK) {
        TcpFlags(TcpFlags::RST)
    } else {
        TcpFlags(TcpFlags::RST + TcpFlags::ACK)
    };
    Packet {
        src: about.dst,
        dst: about.src,
        ttl: default_ttl(host, about.family()),
        tos: 0,
        length: if about.family() == Family::Ipv4 { 40 } else { 60 },
        df: about.family() == Family::Ipv4,
        fragment: None,
        mark: 0,
        transport: Transport::Tcp { sport, dport, flags },
        payload: Payload::Data,
    }
}
