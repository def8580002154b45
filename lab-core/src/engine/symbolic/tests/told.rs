//! What becomes of a packet, in a few words: as sets of packets say, and as the
//! stepper does.

use std::collections::BTreeSet;

use super::super::engine::address;
use super::super::flow::is_fresh;
use super::super::{Ending, Flow, Flowed, Sending, Symbolic};
use crate::engine::explore::all;
use crate::engine::journey::Journey;
use crate::engine::stepper::tests::build::Build;
use crate::engine::stepper::{walk, Entry, Sender, World};
use crate::model::{Decision, Outcome, Packet, Payload, Place, PortValue, Stage, TcpFlags, Transport};
use crate::space::{header, Field, Header, Source};

/// What the model of sets leaves open where the stepper knows.
const GAPS: [&str; 2] = ["a shifted port", "which destination port NAT picks"];

/// What nothing is claimed of.
const OPEN: &str = "?";

/// Packets that headers tell: whole, and no answers to others.
fn is_plain(packet: &Packet) -> bool {
    packet.fragment.is_none()
        && packet.payload == Payload::Data
        && packet.src != packet.dst
        && !packet.transport.is_icmp_error()
}

fn ports(packet: &Packet) -> (String, String) {
    let text = |port: PortValue| match port {
        PortValue::Is(port) => format!(":{port}"),
        PortValue::Fresh(range) => format!(":{}-{}", range.low, range.high),
    };
    packet.transport.ports().map_or_else(Default::default, |(s, d)| (text(s), text(d)))
}

/// Where a packet came, and in what it differs from the one that was sent.
fn arrived(at: &Place, sent: &Packet, seen: &Packet) -> String {
    let mut told = if at.iface == "eth0" || at.iface == "lo" { at.host.clone() } else { at.to_string() };
    let ((s, d), (sport, dport)) = (ports(sent), ports(seen));
    if (seen.src, &sport) != (sent.src, &s) && !sent.src.is_unspecified() {
        told += &format!(" from {}{sport}", seen.src);
    }
    if (seen.dst, &dport) != (sent.dst, &d) {
        told += &format!(" to {}{dport}", seen.dst);
    }
    if seen.tos != sent.tos {
        told += &format!(" tos {:#x}", seen.tos);
    }
    if seen.mark != 0 {
        told += &format!(" mark {:#x}", seen.mark);
    }
    if !matches!(sent.ttl - seen.ttl.min(sent.ttl), 0 | 1) || seen.ttl > sent.ttl {
        told += &format!(" ttl {}", seen.ttl);
    }
    told
}

fn stopped(by: &Decision) -> String {
    match by {
        Decision::Rule(rule) => match rule.rule {
            Some(number) => format!("{} {} {number}", rule.host, rule.chain),
            None => format!("{} {} policy", rule.host, rule.chain),
        },
        // Sets do not tell why a host is not reached.
        Decision::Stage { host, stage: Stage::NeighbourFailed | Stage::WireguardNoPeer } => {
            format!("{host} {}", Stage::HostUnreachable)
        }
        Decision::Stage { host, stage } => format!("{host} {stage}"),
    }
}

fn by_stepper(journey: &Journey, sent: &Packet) -> String {
    if !journey.unknown.is_empty() {
        return OPEN.into();
    }
    let told = match &journey.outcome {
        Outcome::Delivered { at, seen } => arrived(at, sent, seen),
        Outcome::ForwardedOut { at, seen } => format!("out {}", arrived(at, sent, seen)),
        Outcome::Rejected { by, .. } | Outcome::Dropped { by } => stopped(by),
    };
    if journey.looped {
        format!("{told} looped")
    } else {
        told
    }
}

/// A packet of a flow as it is now.
fn now(flow: &Flow, header: &Header, sent: &Packet) -> Packet {
    let value = |source: Source| source.of(header.get(source.field));
    let ends = flow.now.ends;
    let port = |source: Source| match flow.fresh {
        Some(range) if is_fresh(source) => PortValue::Fresh(range),
        _ => PortValue::Is(value(source) as u16),
    };
    let (sport, dport) = (port(ends.sport), port(ends.dport));
    let v6 = sent.src.is_ipv6();
    Packet {
        src: address(value(ends.src), v6),
        dst: address(value(ends.dst), v6),
        tos: value(flow.now.tos) as u8,
        ttl: flow.now.ttl,
        mark: flow.now.mark,
        transport: match sent.transport {
            Transport::Tcp { flags, .. } => Transport::Tcp { sport, dport, flags },
            Transport::Udp { .. } => Transport::Udp { sport, dport },
            Transport::Sctp { init, .. } => Transport::Sctp { sport, dport, init },
            other => other,
        },
        ..sent.clone()
    }
}

fn by_sets(flowed: &Flowed, header: &Header, sent: &Packet) -> String {
    if !flowed.flow.unknown.is_empty() {
        return OPEN.into();
    }
    let seen = || now(&flowed.flow, header, sent);
    let told = match &flowed.ending {
        Ending::Delivered(at) => arrived(at, sent, &seen()),
        Ending::ForwardedOut(at) => format!("out {}", arrived(at, sent, &seen())),
        Ending::Rejected(by) | Ending::Dropped(by) => stopped(by),
    };
    if flowed.looped {
        format!("{told} looped")
    } else {
        told
    }
}

/// From where a packet enters: `raw HOST` by a raw socket, `HOST` by another,
/// `HOST:DEVICE` by a wire.
fn entry(from: &str, packet: &Packet) -> (Entry, Option<Sending>) {
    if let Some(host) = from.strip_prefix("raw ") {
        return (Entry::Send(host.into(), Sender::Raw), Some(Sending::Raw));
    }
    match from.split_once(':') {
        Some((host, iface)) => (Entry::Arrive(Place { host: host.into(), iface: iface.into() }), None),
        None => {
            let sending = if packet.src.is_unspecified() { Sending::Socket } else { Sending::Bound };
            (Entry::Send(from.into(), Sender::Socket), Some(sending))
        }
    }
}

/// The flows that a packet is in, with its header: with the source that was
/// chosen where it has none.
fn flows<'a>(engine: &mut Symbolic<'a>, from: &str, packet: &Packet) -> Vec<(Flowed, Header)> {
    let (entry, sending) = entry(from, packet);
    let headers = engine.headers().unwrap();
    let mut flow = Flow::new(headers, packet.ttl, packet.length, packet.mark);
    flow.now.df = packet.df;
    let lab = engine.lab;
    let found = match (entry, sending) {
        (Entry::Send(host, _), Some(sending)) => engine.send(&lab.hosts[&host], flow, sending),
        (Entry::Arrive(at), _) => {
            let host = &lab.hosts[&at.host];
            engine.inject(host, host.interface(&at.iface).unwrap(), flow)
        }
        _ => unreachable!(),
    };
    let (store, sent) = (engine.store(), header(packet));
    let mut whole = Vec::new();
    for field in [
        Field::Family,
        Field::Src,
        Field::Dst,
        Field::Protocol,
        Field::Sport,
        Field::Dport,
        Field::IcmpType,
        Field::IcmpCode,
        Field::TcpFlags,
        Field::SctpInit,
        Field::Tos,
    ] {
        if field != Field::Src || sending != Some(Sending::Socket) {
            whole.push(store.value(field, sent.get(field)).unwrap());
        }
    }
    let whole = store.all_of(&whole).unwrap();
    let found = found.unwrap().into_iter().filter_map(|flowed| {
        let here = store.guard(whole, flowed.flow.set).unwrap();
        store.example(here).map(|header| (flowed, header))
    });
    found.filter(|(_, h)| h.get(Field::Src) != h.get(Field::Dst)).collect()
}

fn joined(ways: BTreeSet<String>) -> String {
    if ways.contains(OPEN) {
        return OPEN.into();
    }
    ways.into_iter().collect::<Vec<_>>().join(" | ")
}

/// What becomes of a packet, every way of it; both engines say the same.
pub fn told(lab: &Build, from: &str, packet: &Packet) -> String {
    talk(lab, from, packet, 1)
}

/// The same, of packets of one talk: the first, the answer to it, the first
/// once more with ACK, …; the last of them counts.
pub fn talk(lab: &Build, from: &str, packet: &Packet, turns: usize) -> String {
    let mut engine = Symbolic::new(&lab.lab);
    let mut known = flows(&mut engine, from, packet);
    let mut sent = packet.clone();
    for turn in 1..turns {
        let mut next = Vec::new();
        sent = turned(&sent);
        for (flowed, header) in known {
            let Ending::Delivered(at) = &flowed.ending else { continue };
            let mut flow = flowed.flow.clone().scrubbed();
            flow.now.ends = flow.now.ends.inverted();
            (flow.now.ttl, flow.now.mark, flow.now.tos) = (64, 0, Source::constant(Field::Tos, 0));
            let flags = if turn == 1 { TcpFlags::SYN | TcpFlags::ACK } else { TcpFlags::ACK };
            let kind = sent.transport.icmp().map_or(0, |(kind, _)| kind);
            flow.now.fixed =
                vec![(Field::TcpFlags, flags.into()), (Field::IcmpType, kind.into()), (Field::SctpInit, 0)];
            let host = &engine.lab.hosts[&at.host];
            let found = engine.send(host, flow, Sending::Bound).unwrap();
            let store = engine.store();
            next.extend(
                found.into_iter().filter(|f| store.lookup(f.flow.set, &header) != 0).map(|f| (f, header)),
            );
        }
        known = next;
    }
    let sets: BTreeSet<String> = known.iter().map(|(f, header)| by_sets(f, header, &sent)).collect();
    let steps = all(64, |choices| {
        let mut world = World::default();
        let (mut entry, mut packet) = (entry(from, packet).0, packet.clone());
        for turn in 1.. {
            let journey = walk(&lab.lab, &mut world, choices, &entry, &packet);
            if turn == turns {
                return Some(by_stepper(&journey, &sent));
            }
            let Outcome::Delivered { at, seen } = journey.outcome else { return None };
            entry = Entry::Send(at.host, Sender::Socket);
            packet = turned(&seen);
        }
        None
    });
    let steps: BTreeSet<String> = steps.results.into_iter().flatten().collect();
    let (sets, steps) = (joined(sets), joined(steps));
    assert_eq!(sets, steps, "sets, then the stepper: {from} {packet} ({turns})");
    sets
}

/// What is answered to a packet, or sent after such an answer.
fn turned(packet: &Packet) -> Packet {
    let transport = match packet.transport {
        Transport::Tcp { sport, dport, flags } => {
            let first = flags.0 == TcpFlags::SYN;
            let flags = TcpFlags(if first { TcpFlags::SYN | TcpFlags::ACK } else { TcpFlags::ACK });
            Transport::Tcp { sport: dport, dport: sport, flags }
        }
        Transport::Udp { sport, dport } => Transport::Udp { sport: dport, dport: sport },
        Transport::Icmp { kind: 8, code, id } => Transport::Icmp { kind: 0, code, id },
        Transport::Icmp { code, id, .. } => Transport::Icmp { kind: 8, code, id },
        Transport::Icmp6 { kind: 128, code, id } => Transport::Icmp6 { kind: 129, code, id },
        Transport::Icmp6 { code, id, .. } => Transport::Icmp6 { kind: 128, code, id },
        other => other,
    };
    Packet { src: packet.dst, dst: packet.src, ttl: 64, mark: 0, tos: 0, transport, ..packet.clone() }
}

/// What the stepper says of a packet is one of the ways that sets of packets
/// know of; where it is `certain`, the only one.
pub fn agree(lab: &Build, from: &str, packet: &Packet, journey: &Journey, certain: bool) {
    if !is_plain(packet) {
        return;
    }
    let mut engine = Symbolic::new(&lab.lab);
    let found = flows(&mut engine, from, packet);
    let gap = |(flowed, _): &(Flowed, Header)| {
        flowed.flow.unknown.iter().any(|why| GAPS.iter().any(|gap| why.contains(gap)))
    };
    if found.is_empty() && packet.src.is_unspecified() || found.iter().any(gap) {
        return;
    }
    let ways: BTreeSet<String> = found.iter().map(|(f, header)| by_sets(f, header, packet)).collect();
    let queries = found.iter().any(|(f, _)| f.flow.reasons.iter().any(|why| why.contains("identifier")));
    let told = by_stepper(journey, packet);
    // What happens to answers is not asked of sets.
    if told == OPEN && !journey.answer_events.is_empty() {
        return;
    }
    let fits = ways.contains(&told) && (!certain || queries || ways.len() == 1);
    assert!(fits, "{from} {packet}: {ways:?}, but {told} to the stepper");
}

/// A packet in words: its protocol (of IPv6: `tcp6`, …, or a number and `p6`),
/// then what is not as of `10.0.1.2:1 > 10.0.2.2:2`, SYN, ping, TTL 64, 60 bytes.
pub fn packet(text: &str) -> Packet {
    let mut words = text.split_whitespace();
    let first = words.next().unwrap();
    let given: Vec<(&str, &str)> = words.map(|word| word.split_once('=').unwrap()).collect();
    let of = |key: &str| given.iter().find(|(k, _)| *k == key).map(|(_, value)| *value);
    let number = |key: &str, default: u32| match of(key) {
        None => default,
        Some(value) => match value.strip_prefix("0x") {
            Some(hex) => u32::from_str_radix(hex, 16).unwrap(),
            None => value.parse().unwrap(),
        },
    };
    let v6 = first.ends_with('6') || of("d").is_some_and(|d| d.contains(':'));
    let (src, dst) = if v6 { ("fd01::2", "fd02::2") } else { ("10.0.1.2", "10.0.2.2") };
    let port = |key, default| PortValue::Is(number(key, default) as u16);
    let (sport, dport) = (port("sp", 1), port("dp", 2));
    let (kind, code, id) = (number("k", if v6 { 128 } else { 8 }) as u8, number("c", 0) as u8, port("id", 7));
    let transport = match first.trim_end_matches('6') {
        "tcp" => {
            let flags = TcpFlags(number("fl", TcpFlags::SYN.into()) as u8);
            Transport::Tcp { sport, dport, flags }
        }
        "udp" => Transport::Udp { sport, dport },
        "sctp" => Transport::Sctp { sport, dport, init: number("init", 1) == 1 },
        "icmp" if v6 => Transport::Icmp6 { kind, code, id },
        "icmp" => Transport::Icmp { kind, code, id },
        other => Transport::Other(other.trim_end_matches('p').parse().unwrap()),
    };
    Packet {
        src: of("s").unwrap_or(src).parse().unwrap(),
        dst: of("d").unwrap_or(dst).parse().unwrap(),
        ttl: number("ttl", 64) as u8,
        tos: number("tos", 0) as u8,
        length: number("len", 60),
        df: number("df", 1) == 1,
        fragment: None,
        mark: number("mark", 0),
        transport,
        payload: Payload::Data,
    }
}

/// What one rule decides of packets that come to a router: those that it
/// meets, and those that it does not.
pub type Row<'t> = (&'t str, &'t str, &'t str);

/// Asks about every packet of some rows in labs with their rules.
pub fn decides(rows: &[Row], lab: impl Fn(&str) -> Build) {
    for (rule, met, others) in rows {
        let lab = lab(rule);
        for (packets, wanted) in [(met, true), (others, false)] {
            for text in packets.split(';').map(str::trim).filter(|text| !text.is_empty()) {
                let told = told(&lab, "router:eth0", &packet(text));
                let mut number = told.strip_prefix("router ").unwrap_or_default().split(' ').skip(1);
                assert_eq!(number.next() == Some("1"), wanted, "{rule}: {text}: {told}");
            }
        }
    }
}

/// What becomes of packets that come to a router, or are sent by a host.
pub fn become_of(lab: &Build, from: &str, packets: &[(&str, &str)]) {
    for (text, wanted) in packets {
        assert_eq!(told(lab, from, &packet(text)), *wanted, "{from} {text}");
    }
}
