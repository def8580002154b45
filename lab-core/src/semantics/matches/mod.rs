//! What each match means for one packet.
//!
//! [`holds`] is an exhaustive `match`: a match without a meaning does not
//! compile. The extensions follow `net/netfilter/xt_*.c` of the same name
//! and `man iptables-extensions`.

mod bridge;
mod chance;
mod conntrack;
pub(super) mod ports;
mod reverse;
mod set;

use std::collections::BTreeSet;
use std::net::IpAddr;

use super::addrtype::{address_type, of_device};
use super::nftexpr;
use super::{Context, Tri};
use crate::addr::{Family, Masked};
use crate::model::{AddressType, Comparison, InterfacePattern, Match, Not, PacketType, Transport};

/// Whether a match holds for a packet at a hook.
pub fn holds(condition: &Match, at: &Context) -> Tri {
    let packet = at.packet;
    match condition {
        Match::Source(net) => address(net, packet.src),
        Match::Destination(net) => address(net, packet.dst),
        Match::InInterface(pattern) => interface(pattern, at.input),
        Match::OutInterface(pattern) => interface(pattern, at.output),
        Match::Protocol(number) => {
            not(number, number.value == 0 || number.value == packet.transport.protocol())
        }
        // The packets we speak of are unfragmented.
        Match::Fragment(later) => not(later, false),
        Match::Tcp { sport, dport, flags, option } => {
            ports::tcp(at, *sport, *dport, *flags, option.is_some())
        }
        Match::Udp { sport, dport } => ports::plain(at, 17, *sport, *dport),
        Match::Sctp { sport, dport, chunks } => {
            let ports = ports::plain(at, 132, *sport, *dport);
            match chunks {
                None => ports,
                Some(_) => ports.and(|| Tri::Unknown("SCTP chunk types".into())),
            }
        }
        Match::Icmp(kind) => icmp(kind, at, 1),
        Match::Icmp6(kind) => icmp(kind, at, 58),
        Match::Multiport { side, ports } => ports::multiport(at, *side, ports),
        Match::Conntrack(condition) => conntrack::holds(condition, at),
        Match::Mark(mark) => not(mark, packet.mark & mark.value.1 == mark.value.0),
        Match::Connmark(mark) => match at.connection_mark() {
            // xt_connmark: no connection, no match, inverted or not.
            None => Tri::No,
            Some(number) => not(mark, number & mark.value.1 == mark.value.0),
        },
        Match::AddressType { source, destination, limit_in, limit_out } => {
            addrtype(at, source.as_ref(), destination.as_ref(), *limit_in, *limit_out)
        }
        Match::Set { name, directions, options } => {
            let truth = set::holds(at, &name.value, directions);
            if options.is_empty() || truth == Tri::No {
                truth.inverted(name.invert)
            } else {
                Tri::Unknown(format!("set {} with {options}", name.value))
            }
        }
        Match::Mac(mac) => match at.source_mac {
            // xt_mac: a packet without a link-layer header never matches.
            None => Tri::No,
            Some(from) => not(mac, from == mac.value),
        },
        Match::Physdev(condition) => bridge::holds(condition, at),
        Match::Comment(_) | Match::Nfacct(_) | Match::Limit { .. } => Tri::Yes,
        Match::Hashlimit { above, .. } => Tri::from(!above),
        Match::Statistic(statistic) => chance::statistic(&statistic.value).inverted(statistic.invert),
        Match::Dscp(dscp) => not(dscp, packet.tos >> 2 == dscp.value),
        Match::Tos(tos) => not(tos, packet.tos & tos.value.1 == tos.value.0),
        Match::IpRange { source, destination } => {
            let one = |range: &Option<Not<(IpAddr, IpAddr)>>, address: IpAddr| match range {
                None => Tri::Yes,
                Some(range) => not(
                    range,
                    Family::of(range.value.0) == Family::of(address)
                        && range.value.0 <= address
                        && address <= range.value.1,
                ),
            };
            one(source, packet.src).and(|| one(destination, packet.dst))
        }
        Match::Length(length) => {
            not(length, length.value.0 <= packet.length && packet.length <= length.value.1)
        }
        Match::Ttl { comparison, value } | Match::HopLimit { comparison, value } => {
            compare(*comparison, packet.ttl.into(), (*value).into()).into()
        }
        Match::PacketType(kind) => not(kind, at.packet_type == kind.value),
        Match::RpFilter { invert, loose, valid_mark, accept_local } => {
            reverse::holds(at, *loose, *valid_mark, *accept_local).inverted(*invert)
        }
        Match::Nft(condition) => nftexpr::holds(condition, at),
        Match::Unmodelled { name, .. } => Tri::Unknown(format!("match {name}")),
    }
}

fn not<T>(condition: &Not<T>, truth: bool) -> Tri {
    (truth != condition.invert).into()
}

fn address(net: &Not<Masked>, address: IpAddr) -> Tri {
    not(net, net.value.contains(address))
}

/// A hook that knows no such interface compares with the empty name.
fn interface(pattern: &Not<InterfacePattern>, name: Option<&str>) -> Tri {
    not(pattern, pattern.value.holds(name.unwrap_or("")))
}

/// Compares two numbers.
pub(super) fn compare(comparison: Comparison, left: u128, right: u128) -> bool {
    match comparison {
        Comparison::Equal => left == right,
        Comparison::NotEqual => left != right,
        Comparison::Less => left < right,
        Comparison::LessOrEqual => left <= right,
        Comparison::Greater => left > right,
        Comparison::GreaterOrEqual => left >= right,
        Comparison::AnyBit => left & right != 0,
        Comparison::NoBit => left & right == 0,
    }
}

fn icmp(condition: &Not<(u8, u8, u8)>, at: &Context, protocol: u8) -> Tri {
    if at.packet.transport.protocol() != protocol {
        return Tri::No;
    }
    let Some((kind, code)) = at.packet.transport.icmp() else { return Tri::No };
    let (wanted, low, high) = condition.value;
    // Type 255 of IPv4 is `any`; ICMPv6 has no such word.
    let any = protocol == 1 && wanted == 255;
    not(condition, any || (kind == wanted && low <= code && code <= high))
}

fn addrtype(
    at: &Context,
    source: Option<&Not<BTreeSet<AddressType>>>,
    destination: Option<&Not<BTreeSet<AddressType>>>,
    limit_in: bool,
    limit_out: bool,
) -> Tri {
    let device = if limit_in {
        at.input
    } else if limit_out {
        at.output
    } else {
        None
    };
    let one = |wanted: Option<&Not<BTreeSet<AddressType>>>, address: IpAddr| match wanted {
        None => Tri::Yes,
        Some(wanted) => {
            let kind = || match (address, device) {
                (IpAddr::V6(_), Some(device)) => of_device(at.host, address, device),
                _ => address_type(at.host, address, device),
            };
            let truth = match address {
                IpAddr::V4(_) => kind().map(|kind| wanted.value.contains(&kind)),
                IpAddr::V6(a) => addrtype_v6(&wanted.value, kind, a),
            };
            truth.map_or_else(Tri::Unknown, |truth| not(wanted, truth))
        }
    };
    one(source, at.packet.src).and(|| one(destination, at.packet.dst))
}

/// `xt_addrtype` of IPv6 asks in turn and wants all that it is asked.
fn addrtype_v6(
    wanted: &BTreeSet<AddressType>,
    kind: impl FnOnce() -> Result<AddressType, String>,
    address: std::net::Ipv6Addr,
) -> Result<bool, String> {
    if wanted.contains(&AddressType::Unspec) && !address.is_unspecified() {
        return Ok(false);
    }
    if wanted.contains(&AddressType::Unicast) && (address.is_multicast() || address.is_unspecified()) {
        return Ok(false);
    }
    if wanted.contains(&AddressType::Multicast) && !address.is_multicast() {
        return Ok(false);
    }
    let by_route =
        [AddressType::Local, AddressType::Anycast, AddressType::Prohibit, AddressType::Unreachable];
    if by_route.iter().any(|t| wanted.contains(t)) {
        // The look-up tells local and anycast; any refusal is unreachable.
        let kind = match kind()? {
            AddressType::Prohibit | AddressType::Blackhole => AddressType::Unreachable,
            other => other,
        };
        return Ok(wanted.contains(&kind) && by_route.contains(&kind));
    }
    Ok(true)
}

/// The destination-address kind of a frame, told from its MAC address.
pub fn packet_type(destination: Option<crate::addr::Mac>) -> PacketType {
    match destination {
        Some(crate::addr::Mac::BROADCAST) => PacketType::Broadcast,
        Some(mac) if mac.is_group() => PacketType::Multicast,
        _ => PacketType::Unicast,
    }
}

/// Whether this is a transport with the given number whose header matches can
/// read.
pub(super) fn is(transport: &Transport, protocol: u8) -> bool {
    transport.protocol() == protocol
}
