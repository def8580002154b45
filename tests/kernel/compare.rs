//! Holds what was seen to what was predicted.

use std::net::{IpAddr, Ipv4Addr};

use lab_core::engine::journey::Journey;
use lab_core::model::{InterfaceKind, Lab, Outcome, Packet, PortValue, Transport};
use lab_core::query::predict::Prediction;
use lab_workspace::told;

use crate::watch::Observed;

fn same_port(seen: PortValue, told: PortValue) -> bool {
    match (seen, told) {
        (PortValue::Is(seen), PortValue::Fresh(range)) => (range.low..=range.high).contains(&seen),
        _ => seen == told,
    }
}

fn same_transport(seen: &Transport, told: &Transport) -> bool {
    match (*seen, *told) {
        (
            Transport::Icmp { kind, code, id } | Transport::Icmp6 { kind, code, id },
            Transport::Icmp { kind: kind2, code: code2, id: id2 }
            | Transport::Icmp6 { kind: kind2, code: code2, id: id2 },
        ) => (kind, code) == (kind2, code2) && same_port(id, id2),
        _ => {
            let ports = match (seen.ports(), told.ports()) {
                (Some(a), Some(b)) => same_port(a.0, b.0) && same_port(a.1, b.1),
                (a, b) => a == b,
            };
            seen.protocol() == told.protocol() && ports
        }
    }
}

/// Whether a header is the one that was predicted.
fn same(seen: &Packet, told: &Packet) -> bool {
    (seen.src, seen.dst, seen.ttl, seen.tos) == (told.src, told.dst, told.ttl, told.tos)
        && same_transport(&seen.transport, &told.transport)
}

/// Whether a packet is for many: each gets a copy, and so does its sender.
fn for_many(lab: &Lab, packet: &Packet) -> bool {
    let broadcast = |dst: Ipv4Addr| {
        let nets = lab.all_hosts().flat_map(|h| &h.interfaces).flat_map(|i| &i.addresses);
        dst.is_broadcast() || nets.filter_map(|a| a.net()).any(|n| n.broadcast() == IpAddr::V4(dst))
    };
    packet.dst.is_multicast() || matches!(packet.dst, IpAddr::V4(dst) if broadcast(dst))
}

/// Whether it went one of the predicted ways. Of a packet for many, the
/// prediction follows the copy on the wire.
fn went(lab: &Lab, observed: &Observed, way: &Journey) -> bool {
    let alone = !observed.delivered.iter().any(|(_, p)| !for_many(lab, p));
    match &way.outcome {
        Outcome::Delivered { at, seen } => observed.delivered.iter().any(|(place, packet)| {
            // What stays in a VRF is told as of the port it was meant to leave by.
            let host = lab.host(&at.host);
            let vrf = |name: &str| host.and_then(|h| h.vrf_of(name)).map(|vrf| &vrf.name);
            let iface = place.iface == at.iface || place.iface == "lo" || at.iface == "lo";
            let iface = iface || vrf(&at.iface).is_some_and(|of| vrf(&place.iface) == Some(of));
            // What a bridge routed before it came up, a socket of IPv6 is told of as
            // of the device that has the address (`ipv6_rcv`).
            let routed = || {
                let owner = host.and_then(|h| h.interface_with(seen.dst));
                let bridge = host.and_then(|h| h.interface(&at.iface));
                seen.dst.is_ipv6()
                    && bridge.is_some_and(|i| matches!(i.kind, InterfaceKind::Bridge(_)))
                    && owner.is_some_and(|owner| owner.name == place.iface)
            };
            let iface = iface || routed();
            place.host == at.host && iface && same(packet, seen)
        }),
        Outcome::ForwardedOut { at, seen } => {
            alone && observed.out.iter().any(|(p, packet)| p == at && same(packet, seen))
        }
        Outcome::Rejected { answer, .. } => {
            let of = |a: &crate::watch::Answered| {
                a.kind == answer.kind && a.from == answer.from_addr && a.at.host == answer.from_host
            };
            alone && observed.out.is_empty() && observed.answers.iter().any(of)
        }
        Outcome::Dropped { .. } => alone && observed.out.is_empty() && observed.answers.is_empty(),
    }
}

/// Whether a prediction says what happens. What holds for a lone packet, within
/// the rate that a rule asks for, is not said of one of many.
pub fn claims(prediction: &Prediction) -> bool {
    !prediction.cut && prediction.ways.iter().all(|w| w.unknown.is_empty() && w.assumptions.is_empty())
}

/// What was seen, in a line.
pub fn shown(observed: &Observed) -> String {
    let place = |p: &Packet| format!("{p} ttl {} tos {:#x}", p.ttl, p.tos);
    let delivered = observed.delivered.iter().map(|(at, p)| format!("delivered {at} {}", place(p)));
    let out = observed.out.iter().map(|(at, p)| format!("forwarded-out {at} {}", place(p)));
    let answers = observed.answers.iter().map(|a| {
        format!("{} from {} {} {}", a.kind, a.from, if a.outgoing { "leaving" } else { "at" }, a.at)
    });
    let hops: Vec<String> =
        observed.hops.iter().map(|h| format!("{}{}", if h.outgoing { ">" } else { "<" }, h.at)).collect();
    let all: Vec<String> = delivered.chain(out).chain(answers).collect();
    let refused = observed.refused.as_ref().map_or(String::new(), |e| format!(", not sent: {e}"));
    let all = if all.is_empty() { "dropped".to_owned() } else { all.join("; ") };
    format!("{all} [{}]{refused}", hops.join(" "))
}

/// Holds an observation to a prediction.
///
/// # Errors
/// How they differ.
pub fn hold(lab: &Lab, observed: &Observed, prediction: &Prediction) -> Result<(), String> {
    if !claims(prediction) || prediction.ways.iter().any(|w| went(lab, observed, w)) {
        return Ok(());
    }
    let ways: Vec<String> = prediction
        .ways
        .iter()
        .map(|w| match &w.outcome {
            Outcome::Rejected { answer, .. } => {
                format!(
                    "{}: {} from {} {}",
                    told(&w.outcome),
                    answer.kind,
                    answer.from_host,
                    answer.from_addr
                )
            }
            outcome => told(outcome),
        })
        .collect();
    Err(format!("predicted {}\n    kernel    {}", ways.join("\n           or "), shown(observed)))
}
