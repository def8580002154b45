//! Predictions against what clients saw (`lab check --observed`).
//!
//! A listening socket is no part of a snapshot, so a reply, a refusal and an
//! ICMP error of the destination itself all mean: delivered, and the answer
//! comes home.

use std::net::IpAddr;

use serde::Serialize;

use super::trace::{round_trip, Reply, RoundTrip};
use super::{Error, WAYS};
use crate::engine::explore::all;
use crate::engine::journey::Journey;
use crate::engine::stepper::{Entry, Sender};
use crate::formats::observed::{Ending, Observed};
use crate::formats::probes::protocol_number;
use crate::model::{
    AnswerKind, Decision, InterfaceKind, Lab, Outcome, Packet, Payload, Place, PortValue, TcpFlags, Transport,
};
use crate::semantics::icmp;

/// Every observed probe of a lab beside its prediction.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Checked {
    /// The lab's name.
    pub lab: String,
    /// Its probes.
    pub probes: Vec<Comparison>,
}

/// One observed probe beside its prediction.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Comparison {
    /// The probe's number.
    pub id: u64,
    /// Who sent what to whom.
    pub question: String,
    /// Whether the prediction leaves only one way.
    pub certain: bool,
    /// What disagrees; of several possible ways, in the one that comes
    /// nearest. Empty: prediction and observation agree.
    pub disagreements: Vec<Disagreement>,
}

/// A field that disagrees.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Disagreement {
    /// The field of `observed.json`.
    pub field: &'static str,
    /// What was observed.
    pub observed: String,
    /// What is predicted.
    pub predicted: String,
}

/// What a client would see of one way.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Seen {
    delivered_to: Option<String>,
    /// Whether it was delivered to another address than it was sent to.
    rewritten: bool,
    answered: bool,
    ttl: Option<u8>,
    seen_src: Option<String>,
    error: Option<(u8, u8, String)>,
    error_ttl: Option<u8>,
    last_seen: Option<String>,
    /// Where the packet itself was seen last, whatever was answered.
    last_seen_there: Option<String>,
    rejected_by: Option<(String, String)>,
    unknown: bool,
    how: String,
}

fn last_hop<'a>(journeys: impl Iterator<Item = &'a Journey>) -> Option<Place> {
    let mut last = None;
    for journey in journeys {
        for event in journey.events.iter().chain(&journey.answer_events) {
            if let crate::engine::journey::Event::Hop(hop) = event {
                if hop.at.iface != "lo" {
                    last = Some(hop.at.clone());
                }
            }
        }
    }
    last
}

fn seen(sent: &Packet, trip: &RoundTrip) -> Seen {
    let mut seen = Seen {
        answered: trip.answered,
        unknown: !trip.there.unknown.is_empty() || trip.back.as_ref().is_some_and(|b| !b.unknown.is_empty()),
        last_seen: last_hop(std::iter::once(&trip.there).chain(&trip.back)).map(|p| p.to_string()),
        last_seen_there: last_hop(std::iter::once(&trip.there)).map(|p| p.to_string()),
        how: trip.there.outcome.name().to_owned(),
        ..Seen::default()
    };
    if let Some(Decision::Rule(rule)) = trip.there.outcome.decision() {
        seen.rejected_by = Some((rule.host.clone(), rule.chain.to_string()));
    }
    match &trip.there.outcome {
        Outcome::Delivered { at, seen: header } => {
            seen.delivered_to = Some(at.host.clone());
            seen.rewritten = header.dst != sent.dst;
            seen.seen_src = Some(header.src.to_string());
            seen.ttl = trip.reply_ttl;
            if let Some(Outcome::Delivered { seen: header, .. }) = trip.back.as_ref().map(|b| &b.outcome) {
                if let Some((kind, code)) =
                    header.transport.icmp().filter(|_| header.transport.is_icmp_error())
                {
                    seen.error = Some((kind, code, header.src.to_string()));
                    seen.error_ttl = Some(header.ttl);
                }
            }
        }
        Outcome::Rejected { answer, .. } => {
            if let (true, Some((_, header))) = (answer.came_back, &answer.received) {
                match answer.kind {
                    AnswerKind::Icmp(kind, code) | AnswerKind::Icmp6(kind, code) => {
                        seen.error = Some((kind, code, header.src.to_string()));
                        seen.error_ttl = Some(header.ttl);
                    }
                    AnswerKind::TcpReset => seen.ttl = Some(header.ttl),
                }
            }
        }
        Outcome::ForwardedOut { .. } | Outcome::Dropped { .. } => {}
    }
    seen
}

/// Whether a kernel socket takes the packet and never answers: that of a
/// VXLAN device.
fn swallowed(lab: &Lab, host: &str, probe: &Observed) -> bool {
    probe.proto == "udp"
        && lab.hosts.get(host).is_some_and(|h| {
            h.interfaces
                .iter()
                .any(|i| matches!(&i.kind, InterfaceKind::Vxlan(v) if Some(v.port) == probe.dport))
        })
}

/// The hosts that have an address, in the order of their names.
fn owners(lab: &Lab, address: IpAddr) -> Vec<&str> {
    let has = lab.hosts.values().filter(|h| h.interface_with(address).is_some());
    has.map(|h| h.name.as_str()).collect()
}

struct Differences(Vec<Disagreement>);

impl Differences {
    fn expect(&mut self, field: &'static str, observed: impl ToString, predicted: impl ToString) {
        let (observed, predicted) = (observed.to_string(), predicted.to_string());
        if observed != predicted {
            self.0.push(Disagreement { field, observed, predicted });
        }
    }
}

fn show<T: ToString>(value: &Option<T>) -> String {
    value.as_ref().map_or_else(|| "none".to_owned(), T::to_string)
}

/// `to_host` is who has the address that was sent to, whoever it is rewritten
/// to on the way; a service's address is nobody's.
fn to_host(d: &mut Differences, lab: &Lab, probe: &Observed, way: &Seen, service: bool) {
    let owners = owners(lab, probe.to);
    let predicted = match (&way.delivered_to, owners.as_slice()) {
        (_, [one]) => (*one).to_owned(),
        (_, []) if service => return,
        (Some(_), []) if way.rewritten => "a service".to_owned(),
        (Some(to), _) if !service => to.clone(),
        (_, []) => "none".to_owned(),
        (_, several) => {
            let named = probe.to_host.as_deref().filter(|host| several.contains(host));
            named.unwrap_or(several[0]).to_owned()
        }
    };
    d.expect("to_host", show(&probe.to_host), predicted);
}

/// How often libvirt's REJECT rules were hit: once in each attempt, which is
/// only sure where an error ended it.
fn hits(d: &mut Differences, probe: &Observed, way: &Seen) {
    let times = probe.attempts.filter(|_| probe.outcome == Ending::IcmpUnreachable);
    let count = |n: u64| times.map_or_else(String::new, |_| format!(" {n}"));
    let observed = probe.libvirt_fwi_reject_hits.iter().flatten().filter(|(_, n)| **n > 0);
    let observed: Vec<String> = observed.map(|(host, n)| format!("{host}{}", count(*n))).collect();
    let rule = way.rejected_by.iter().filter(|(_, chain)| chain == "LIBVIRT_FWI");
    let predicted: Vec<String> =
        rule.map(|(host, _)| format!("{host}{}", count(times.unwrap_or(1)))).collect();
    d.expect("libvirt_fwi_reject_hits", observed.join(","), predicted.join(","));
}

/// What disagrees between an observation and one way.
fn compare(lab: &Lab, probe: &Observed, way: &Seen) -> Vec<Disagreement> {
    let mut d = Differences(Vec::new());
    let service = probe.to_host.as_ref().is_some_and(|h| h.starts_with("service:"));
    let replied = matches!(probe.outcome, Ending::Reply | Ending::Refused);
    d.expect("seen_src", show(&probe.seen_src), show(&way.seen_src));
    to_host(&mut d, lab, probe, way, service);
    hits(&mut d, probe, way);
    match probe.outcome {
        Ending::Reply | Ending::Refused => {
            let predicted = if way.delivered_to.is_some() && way.answered {
                "delivered and answered"
            } else {
                way.how.as_str()
            };
            d.expect("outcome", "delivered and answered", predicted);
            d.expect("ttl", show(&probe.ttl), show(&way.ttl));
            let served = probe.outcome == Ending::Reply && probe.proto != "icmp";
            match (&probe.served_by, served) {
                (Some(by), true) => d.expect("served_by", by, show(&way.delivered_to)),
                (None, true) => d.expect("outcome", "a reply of nobody", "somebody serves it"),
                (Some(by), false) => d.expect("served_by", by, "nobody"),
                (None, false) => {}
            }
            if probe.outcome == Ending::Refused && probe.proto != "tcp" {
                d.expect("outcome", format!("{} refused", probe.proto), "only TCP is refused");
            }
        }
        Ending::IcmpUnreachable => {
            d.expect(
                "outcome",
                "an ICMP error came",
                match &way.error {
                    Some(_) => "an ICMP error came",
                    None => way.how.as_str(),
                },
            );
            let icmp = probe.icmp.map(|i| (i.kind, i.code, i.from.to_string()));
            let part = |e: &Option<(u8, u8, String)>, pick: fn(&(u8, u8, String)) -> String| {
                e.as_ref().map_or_else(|| "none".to_owned(), pick)
            };
            d.expect("icmp.type", part(&icmp, |e| e.0.to_string()), part(&way.error, |e| e.0.to_string()));
            d.expect("icmp.code", part(&icmp, |e| e.1.to_string()), part(&way.error, |e| e.1.to_string()));
            d.expect("icmp.from", part(&icmp, |e| e.2.clone()), part(&way.error, |e| e.2.clone()));
            d.expect("icmp_ttl", show(&probe.icmp_ttl), show(&way.error_ttl));
        }
        Ending::Timeout => {
            let quiet = way.delivered_to.as_ref().is_some_and(|host| swallowed(lab, host, probe));
            let silent = quiet || !way.answered;
            d.expect("outcome", "nothing came", if silent { "nothing came" } else { "answered" });
            let last = if quiet { &way.last_seen_there } else { &way.last_seen };
            d.expect("last_seen", show(&probe.last_seen), show(last));
        }
    }
    if !replied {
        d.expect("ttl", show(&probe.ttl), "none");
        d.expect("served_by", show(&probe.served_by), "none");
    }
    if probe.outcome != Ending::IcmpUnreachable {
        d.expect("icmp", probe.icmp.map_or("none", |_| "an error"), "none");
        d.expect("icmp_ttl", show(&probe.icmp_ttl), "none");
    }
    if probe.outcome != Ending::Timeout {
        d.expect("last_seen", show(&probe.last_seen), "none");
    }
    d.0
}

fn packet(probe: &Observed) -> Result<Packet, Error> {
    let dport = PortValue::Is(probe.dport.unwrap_or(0));
    let sport = PortValue::EPHEMERAL;
    let v4 = probe.to.is_ipv4();
    let transport = match protocol_number(&probe.proto) {
        Some(1) if v4 => Transport::Icmp { kind: 8, code: 0, id: PortValue::Is(1) },
        Some(1 | 58) => Transport::Icmp6 { kind: 128, code: 0, id: PortValue::Is(1) },
        Some(6) => Transport::Tcp { sport, dport, flags: TcpFlags(TcpFlags::SYN) },
        Some(17) => Transport::Udp { sport, dport },
        _ => return Err(Error::Unfit(format!("probe {}: protocol `{}`", probe.id, probe.proto))),
    };
    let unset: IpAddr =
        if v4 { std::net::Ipv4Addr::UNSPECIFIED.into() } else { std::net::Ipv6Addr::UNSPECIFIED.into() };
    Ok(Packet {
        src: unset,
        dst: probe.to,
        ttl: 64,
        tos: 0,
        length: 84,
        df: true,
        fragment: None,
        mark: 0,
        transport,
        payload: Payload::Data,
    })
}

/// Compares every observed probe with its prediction.
///
/// # Errors
/// A probe from a host that the lab does not have, or of another protocol.
pub fn check(lab: &Lab, observed: &[Observed]) -> Result<Vec<Comparison>, Error> {
    observed.iter().map(|probe| check_one(lab, probe)).collect()
}

fn check_one(lab: &Lab, probe: &Observed) -> Result<Comparison, Error> {
    let host = super::ends::host(lab, &probe.from)?;
    let mut sent = packet(probe)?;
    sent.ttl = icmp::default_ttl(host, sent.family());
    // An error of the destination itself answers what no program listens to:
    // always port unreachable, so that another error is a disagreement.
    let reply = match (probe.icmp, probe.seen_src, sent.transport.protocol()) {
        (Some(_), Some(_), 17) if probe.to.is_ipv4() => Reply::Error(3, 3),
        (Some(_), Some(_), 17) => Reply::Error(1, 4),
        _ => Reply::Service,
    };
    let entry = Entry::Send(host.name.clone(), Sender::Socket);
    let explored = all(WAYS, |choices| seen(&sent, &round_trip(lab, choices, &entry, &sent, reply)));
    let mut ways: Vec<Seen> = Vec::new();
    for way in explored.results {
        if !ways.contains(&way) {
            ways.push(way);
        }
    }
    let certain = !explored.cut && ways.len() == 1 && ways.iter().all(|w| !w.unknown);
    let disagreements =
        ways.iter().map(|way| compare(lab, probe, way)).min_by_key(Vec::len).unwrap_or_default();
    let port = probe.dport.map(|p| format!("/{p}")).unwrap_or_default();
    let question = format!("{} -> {} {}{port}", probe.from, probe.to, probe.proto);
    Ok(Comparison { id: probe.id, question, certain, disagreements })
}
