//! Network address translation: what a new connection's tuple becomes, and
//! how packets are rewritten by it. Follows `net/netfilter/nf_nat_core.c`,
//! `nf_nat_masquerade.c`, `nf_nat_redirect.c`.

use std::net::{IpAddr, Ipv6Addr};

use ipnet::IpNet;

use super::conntrack::{Connection, Connections, Info, Tuple};
use crate::addr::PortRange;
use crate::model::{Address, Direction, Interface, Packet, Payload, PortValue, Transport};

/// Which end of a packet is rewritten at a hook (`HOOK2MANIP`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// The source: POSTROUTING and INPUT.
    Source,
    /// The destination: PREROUTING and OUTPUT.
    Destination,
}

impl End {
    fn other(self) -> Self {
        match self {
            End::Source => End::Destination,
            End::Destination => End::Source,
        }
    }
}

/// What a connection's end is mapped to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Mapping {
    /// The new address; none: kept.
    pub address: Option<IpAddr>,
    /// The ports allowed; none: any, kept if free.
    pub ports: Option<PortRange>,
    /// The first port of the original range, where ports are shifted.
    pub base_port: Option<u16>,
    /// Whether the port is picked by chance even if it could be kept.
    pub random: bool,
}

/// How many addresses of a NAT range are told apart.
const ADDRESSES: u32 = 8;

/// The addresses that NAT may pick of a range by a hash of the connection
/// (`find_best_ips_proto`); none: too many to tell apart. It picks 32 bits at a
/// time, and any once those before are not the last of the range, so that what
/// it picks of IPv6 may lie outside.
pub(crate) fn picks(low: IpAddr, high: IpAddr) -> Option<Vec<IpAddr>> {
    let last = |a: IpAddr| match a {
        IpAddr::V4(a) => (0, a.to_bits()),
        IpAddr::V6(a) => (a.to_bits() >> 32, a.to_bits() as u32),
    };
    let ((before, first), (same, last)) = (last(low), last(high));
    if before != same || last.checked_sub(first).is_none_or(|more| more >= ADDRESSES) {
        return None;
    }
    let address = |last: u32| match low {
        IpAddr::V4(_) => IpAddr::V4(last.into()),
        IpAddr::V6(_) => IpAddr::V6(((before << 32) + u128::from(last)).into()),
    };
    Some((first..=last).map(address).collect())
}

/// Why it is not known which one it is.
pub(crate) fn too_many(low: IpAddr, high: IpAddr) -> String {
    format!("which of the many addresses {low}-{high} NAT picks")
}

/// Settles one end of a connection (`nf_nat_setup_info`,
/// `get_unique_tuple`).
pub fn settle(known: &Connections, connection: &mut Connection, end: End, mapping: Mapping) {
    let current = connection.reply.inverted();
    let mut wanted = current;
    match end {
        End::Source => wanted.src = mapping.address.unwrap_or(wanted.src),
        End::Destination => wanted.dst = mapping.address.unwrap_or(wanted.dst),
    }
    let free = |tuple: &Tuple| !known.taken(&tuple.inverted(), connection);
    let has_ports = matches!(current.protocol, 6 | 17 | 132 | 33 | 136);
    let query = matches!(current.protocol, 1 | 58);
    // Of a query it is the identifier, which counts as its source port.
    let port = match end {
        End::Destination if !query => wanted.dport,
        _ => wanted.sport,
    };
    let keep = match (mapping.ports, mapping.base_port, port) {
        _ if mapping.random => false,
        (None, _, _) => free(&wanted),
        (Some(_), Some(_), _) => false,
        (Some(range), None, PortValue::Is(port)) => {
            range.contains(port) && (range.low == range.high || free(&wanted))
        }
        (Some(range), None, PortValue::Fresh(from)) => range.low <= from.low && from.high <= range.high,
    };
    if !keep && (has_ports || query) {
        if let Some(port) = pick(port, end, &mapping, query) {
            match end {
                End::Destination if !query => wanted.dport = port,
                _ => wanted.sport = port,
            }
        }
    }
    if wanted != current {
        connection.reply = wanted.inverted();
        match end {
            End::Source => connection.snat = true,
            End::Destination => connection.dnat = true,
        }
    }
    match end {
        End::Source => connection.source_done = true,
        End::Destination => connection.destination_done = true,
    }
}

/// `nf_nat_l4proto_unique_tuple`: the port when the present one cannot stay.
/// It is picked by chance within its range; newer kernels give destinations the
/// first, and no snapshot tells.
fn pick(port: PortValue, end: End, mapping: &Mapping, query: bool) -> Option<PortValue> {
    let range = match (mapping.ports, end) {
        (Some(range), _) => range,
        (None, _) if query => PortRange::ANY,
        (None, End::Destination) => return None,
        // Ports keep their class: privileged stay privileged.
        (None, End::Source) => match port {
            PortValue::Is(p) if p < 512 => PortRange { low: 1, high: 511 },
            PortValue::Is(p) if p < 1024 => PortRange { low: 600, high: 1023 },
            _ => PortRange { low: 1024, high: 65535 },
        },
    };
    if range.low == range.high {
        return Some(PortValue::Is(range.low));
    }
    match (mapping.base_port, port) {
        (Some(base), PortValue::Is(port)) => {
            let size = u32::from(range.high - range.low) + 1;
            let offset = u32::from(port.wrapping_sub(base)) % size;
            Some(PortValue::Is(range.low + offset as u16))
        }
        _ => Some(PortValue::Fresh(range)),
    }
}

fn rewrite(packet: &mut Packet, target: &Tuple, end: End) {
    let port = match end {
        End::Source => {
            packet.src = target.src;
            target.sport
        }
        End::Destination => {
            packet.dst = target.dst;
            target.dport
        }
    };
    match (&mut packet.transport, end) {
        (
            Transport::Tcp { sport, .. } | Transport::Udp { sport, .. } | Transport::Sctp { sport, .. },
            End::Source,
        ) => *sport = port,
        (
            Transport::Tcp { dport, .. } | Transport::Udp { dport, .. } | Transport::Sctp { dport, .. },
            End::Destination,
        ) => *dport = port,
        // The identifier of a query is its source port in either direction.
        (Transport::Icmp { kind: 0 | 8 | 13..=18, id, .. }, _) => *id = target.sport,
        (Transport::Icmp6 { kind: 128 | 129, id, .. }, _) => *id = target.sport,
        _ => {}
    }
}

fn applies(connection: &Connection, end: End, direction: Direction) -> bool {
    let end = if direction == Direction::Reply { end.other() } else { end };
    match end {
        End::Source => connection.snat,
        End::Destination => connection.dnat,
    }
}

/// Rewrites one end of a packet of a connection (`nf_nat_packet`); of an ICMP
/// error also the packet it quotes (`nf_nat_icmp_reply_translation`).
/// Returns whether anything was to be done.
pub fn translate(packet: &mut Packet, connection: &Connection, info: Info, end: End) -> bool {
    let direction = info.direction();
    if !applies(connection, end, direction) {
        return false;
    }
    let opposite = match direction {
        Direction::Original => connection.reply,
        Direction::Reply => connection.original,
    };
    if packet.transport.is_icmp_error() {
        if let Payload::Quoted(inner) = &mut packet.payload {
            rewrite(inner, &opposite, end.other());
        }
    }
    rewrite(packet, &opposite.inverted(), end);
    true
}

/// The address that REDIRECT sends what came in by a device to: its first of
/// IPv4, and of IPv6 the first whose scope the old destination has
/// (`nf_nat_redirect.c`). None: the packet is dropped.
pub fn redirect_to(device: &Interface, destination: IpAddr) -> Option<IpAddr> {
    let IpAddr::V6(destination) = destination else {
        return device.addresses.iter().map(|a| a.address).find(IpAddr::is_ipv4);
    };
    let wanted = scope(destination);
    let usable = |own: &&Address| match own.address {
        IpAddr::V6(a) if a.to_ipv4_mapped().is_some() => false,
        IpAddr::V6(a) => !own.tentative && (wanted == 0 || scope(a) & wanted != 0),
        IpAddr::V4(_) => false,
    };
    device.addresses.iter().find(usable).map(|own| own.address)
}

/// The prefixes that [`redirect_to`] tells apart.
pub fn redirect_nets() -> Vec<IpNet> {
    let groups = (0..=15_u16)
        .flat_map(|flags| {
            [1, 2, 5].map(|scope| Ipv6Addr::new(0xff00 + (flags << 4) + scope, 0, 0, 0, 0, 0, 0, 0))
        })
        .map(|a| (a, 16));
    let plain = [
        (Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 0), 10),
        (Ipv6Addr::new(0xfec0, 0, 0, 0, 0, 0, 0, 0), 10),
        (Ipv6Addr::UNSPECIFIED, 96),
        (Ipv6Addr::UNSPECIFIED, 128),
        (Ipv6Addr::LOCALHOST, 128),
    ];
    groups.chain(plain).filter_map(|(a, len)| IpNet::new(IpAddr::V6(a), len).ok()).collect()
}

/// `ipv6_addr_scope`: the bits of an address's type by which kernels tell how
/// far it reaches; 0: everywhere.
fn scope(address: Ipv6Addr) -> u8 {
    const LOOPBACK: u8 = 0x10;
    const LINK: u8 = 0x20;
    const SITE: u8 = 0x40;
    const COMPATIBLE: u8 = 0x80;
    let [first, ..] = address.segments();
    match first {
        0xff00..=0xffff => match first & 0xf {
            1 => LOOPBACK,
            2 => LINK,
            5 => SITE,
            _ => 0,
        },
        0xfe80..=0xfebf => LINK,
        0xfec0..=0xfeff => SITE,
        _ if address.is_unspecified() => 0,
        _ if address.is_loopback() => LOOPBACK,
        _ if address.to_bits() >> 32 == 0 => COMPATIBLE,
        _ => 0,
    }
}
