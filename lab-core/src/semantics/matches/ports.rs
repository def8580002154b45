//! tcp, udp, sctp, multiport (`xt_tcpudp.c`, `xt_sctp.c`, `xt_multiport.c`).

use super::is;
use crate::addr::PortRange;
use crate::model::{Not, PortValue, SetDirection, TcpFlagsMatch, Transport};
use crate::semantics::header::in_range;
use crate::semantics::{Context, Tri};

fn one(range: Option<Not<PortRange>>, port: PortValue) -> Tri {
    match range {
        None => Tri::Yes,
        Some(range) => in_range(port, range.value).inverted(range.invert),
    }
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
    one(sport, src).and(|| one(dport, dst))
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
