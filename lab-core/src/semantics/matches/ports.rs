//! tcp, udp, sctp, multiport (`xt_tcpudp.c`, `xt_sctp.c`, `xt_multiport.c`).

use super::is;
use crate::addr::PortRange;
use crate::model::{Backend, Not, PortValue, SetDirection, Table, TcpFlagsMatch, Transport};
use crate::semantics::header::in_range;
use crate::semantics::{Context, Tri};

fn one(range: Option<Not<PortRange>>, port: PortValue) -> Tri {
    match range {
        None => Tri::Yes,
        Some(range) => in_range(port, range.value).inverted(range.invert),
    }
}

/// Why it is open what two ports mean together ([`as_one`]).
pub(in crate::semantics) const AS_ONE: &str =
    "whether iptables-nft compares two ports that are not to be as one number";

/// Whether iptables-nft may hand the kernel two ports that are not to be as one
/// number, so that packets with either of them match (1.8.9 does:
/// `add_nft_tcpudp`, `iptables/nft-shared.c`).
pub(in crate::semantics) fn as_one(
    table: &Table,
    protocol: u8,
    sport: Option<Not<PortRange>>,
    dport: Option<Not<PortRange>>,
) -> bool {
    let not_one =
        |port: Option<Not<PortRange>>| port.is_some_and(|p| p.invert && p.value.low == p.value.high);
    table.backend == Backend::Nft && protocol != 132 && not_one(sport) && not_one(dport)
}

/// Source and destination port of a protocol.
pub fn plain(
    at: &Context,
    protocol: u8,
    sport: Option<Not<PortRange>>,
    dport: Option<Not<PortRange>>,
) -> Tri {
    if !is(&at.packet.transport, protocol) {
        return Tri::No;
    }
    let Some((src, dst)) = at.packet.transport.ports() else { return Tri::No };
    let neither = one(sport, src).and(|| one(dport, dst));
    if neither != Tri::No || !as_one(at.table, protocol, sport, dport) {
        return neither;
    }
    let is = |port: Option<Not<PortRange>>, value| port.map_or(Tri::No, |p| in_range(value, p.value));
    match is(sport, src).and(|| is(dport, dst)) {
        Tri::Yes => Tri::No,
        _ => Tri::Unknown(AS_ONE.into()),
    }
}

/// `-m tcp`.
pub fn tcp(
    at: &Context,
    sport: Option<Not<PortRange>>,
    dport: Option<Not<PortRange>>,
    flags: Option<Not<TcpFlagsMatch>>,
    option: bool,
) -> Tri {
    let Transport::Tcp { flags: actual, .. } = at.packet.transport else { return Tri::No };
    plain(at, 6, sport, dport)
        .and(|| match flags {
            None => Tri::Yes,
            Some(flags) => Tri::from(actual.0 & flags.value.mask == flags.value.set).inverted(flags.invert),
        })
        .and(|| if option { Tri::Unknown("TCP options".into()) } else { Tri::Yes })
}

/// `-m multiport`.
pub fn multiport(at: &Context, side: Option<SetDirection>, ports: &Not<Vec<PortRange>>) -> Tri {
    let Some((src, dst)) = at.packet.transport.ports() else { return Tri::No };
    let any = |port: PortValue| {
        ports.value.iter().fold(Tri::No, |truth, range| truth.or(|| in_range(port, *range)))
    };
    let truth = match side {
        Some(SetDirection::Src) => any(src),
        Some(SetDirection::Dst) => any(dst),
        None => any(src).or(|| any(dst)),
    };
    truth.inverted(ports.invert)
}
