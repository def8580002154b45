//! Predictions in the form of `truth.json`.

use serde_json::{json, Map, Value};

use crate::engine::journey::Journey;
use crate::model::{
    Answer, AnswerKind, Backend, Decision, Hop, HopDirection, Outcome, Packet, PortValue, Stage, Transport,
};
use crate::query::predict::Prediction;

fn protocol(packet: &Packet) -> Value {
    match packet.transport.protocol() {
        1 => "icmp".into(),
        6 => "tcp".into(),
        17 => "udp".into(),
        47 => "gre".into(),
        58 => "icmpv6".into(),
        132 => "sctp".into(),
        other => other.into(),
    }
}

/// A header. A port that nobody knows beforehand is left out.
pub fn header(packet: &Packet) -> Value {
    let mut h = Map::new();
    h.insert("family".into(), packet.family().to_string().into());
    h.insert("src".into(), packet.src.to_string().into());
    h.insert("dst".into(), packet.dst.to_string().into());
    h.insert("ttl".into(), packet.ttl.into());
    h.insert("tos".into(), packet.tos.into());
    h.insert("len".into(), packet.length.into());
    h.insert("proto".into(), protocol(packet));
    let mut port = |name: &str, port: PortValue| {
        if let PortValue::Is(number) = port {
            h.insert(name.into(), number.into());
        }
    };
    if let Some((sport, dport)) = packet.transport.ports() {
        port("sport", sport);
        port("dport", dport);
    }
    match packet.transport {
        Transport::Tcp { flags, .. } => {
            h.insert("tcp_flags".into(), flags.to_string().into());
        }
        Transport::Icmp { kind, code, .. } | Transport::Icmp6 { kind, code, .. } => {
            h.insert("icmp_type".into(), kind.into());
            h.insert("icmp_code".into(), code.into());
        }
        _ => {}
    }
    if let Some(inner) = packet.quoted() {
        h.insert("quoted".into(), header(inner));
    }
    Value::Object(h)
}

fn hop(hop: &Hop) -> Value {
    json!({
        "host": hop.at.host,
        "iface": hop.at.iface,
        "dir": if hop.direction == HopDirection::In { "in" } else { "out" },
        "hdr": header(&hop.packet),
    })
}

/// The rule or stage that decided.
pub fn decision(by: &Decision) -> Value {
    match by {
        Decision::Rule(rule) => json!({
            "host": rule.host,
            "engine": if rule.backend == Backend::Legacy { "legacy" } else { "nft" },
            "family": rule.family.to_string(),
            "table": rule.table,
            "base": rule.base,
            "chain": rule.chain,
            "rule": rule.rule.map_or_else(|| Value::from("policy"), Value::from),
            "text": rule.text,
            "file": rule.origin.file,
            "line": rule.origin.line,
        }),
        Decision::Stage { host, stage } => json!({ "host": host, "stage": stage_name(stage) }),
    }
}

fn stage_name(stage: &Stage) -> String {
    match stage {
        Stage::Unmodelled(what) => format!("unmodelled: {what}"),
        other => other.to_string(),
    }
}

fn answer(answer: &Answer) -> Value {
    let (kind, code) = match answer.kind {
        AnswerKind::Icmp(kind, code) => ("icmp", Some((kind, code))),
        AnswerKind::Icmp6(kind, code) => ("icmpv6", Some((kind, code))),
        AnswerKind::TcpReset => ("tcp-rst", None),
    };
    let mut a = Map::new();
    a.insert("kind".into(), kind.into());
    if let Some((kind, code)) = code {
        a.insert("type".into(), kind.into());
        a.insert("code".into(), code.into());
    }
    a.insert("from_host".into(), answer.from_host.clone().into());
    a.insert("from_addr".into(), answer.from_addr.to_string().into());
    a.insert("to_addr".into(), answer.to_addr.to_string().into());
    a.insert("came_back".into(), answer.came_back.into());
    if let Some((at, packet)) = &answer.received {
        a.insert("received_at".into(), at.host.clone().into());
        a.insert("received_from".into(), packet.src.to_string().into());
        a.insert("received_to".into(), packet.dst.to_string().into());
    }
    if let Some(by) = &answer.lost {
        a.insert("lost_by".into(), decision(by));
    }
    a.insert("hops".into(), answer.hops.iter().map(hop).collect());
    Value::Object(a)
}

fn outcome(journey: &Journey, iface: bool) -> Map<String, Value> {
    let mut o = Map::new();
    o.insert("outcome".into(), journey.outcome.name().into());
    match &journey.outcome {
        Outcome::Delivered { at, seen } | Outcome::ForwardedOut { at, seen } => {
            let mut place = Map::new();
            place.insert("host".into(), at.host.clone().into());
            if iface {
                place.insert("iface".into(), at.iface.clone().into());
            }
            o.insert("at".into(), Value::Object(place));
            o.insert("seen".into(), header(seen));
        }
        Outcome::Rejected { by, answer: sent } => {
            o.insert("answer".into(), answer(sent));
            o.insert("decided_by".into(), decision(by));
        }
        Outcome::Dropped { by } => {
            o.insert("decided_by".into(), decision(by));
        }
    }
    o
}

/// What can become of a packet when something unmodelled decides: anything.
const ANYTHING: [&str; 4] = ["delivered", "forwarded-out", "rejected", "dropped"];

fn prediction(p: &Prediction) -> Value {
    let mut v = Map::new();
    v.insert("id".into(), p.id.clone().into());
    let certain = p.certain();
    if certain {
        if let Some(way) = p.ways.first() {
            v.extend(outcome(way, p.iface().is_some()));
            v.insert("hops".into(), way.hops().map(hop).collect());
        }
    }
    v.insert("certain".into(), certain.into());
    if !certain {
        // Nothing but the list is claimed.
        v.insert("outcome".into(), Value::Null);
        let open = p.cut || p.ways.iter().any(|w| !w.unknown.is_empty());
        let mut possible: Vec<Value> =
            p.ways.iter().filter(|w| w.unknown.is_empty()).map(|w| Value::Object(outcome(w, true))).collect();
        if open {
            let named: Vec<&str> = possible.iter().filter_map(|o| o["outcome"].as_str()).collect();
            let others: Vec<Value> =
                ANYTHING.iter().filter(|o| !named.contains(o)).map(|o| json!({ "outcome": o })).collect();
            possible.extend(others);
        }
        v.insert("possible".into(), possible.into());
    }
    let mut reasons = p.reasons.clone();
    reasons.extend(p.ways.iter().flat_map(|w| w.unknown.iter().cloned()));
    reasons.dedup();
    if !reasons.is_empty() && !certain {
        v.insert("because".into(), reasons.into());
    }
    let mut assumptions: Vec<String> = p.ways.iter().flat_map(|w| w.assumptions.iter().cloned()).collect();
    assumptions.dedup();
    if !assumptions.is_empty() {
        v.insert("assuming".into(), assumptions.into());
    }
    if p.ways.iter().any(|w| w.looped) {
        v.insert("loop".into(), true.into());
    }
    Value::Object(v)
}

/// The document that `lab predict` prints.
pub fn document(lab: &str, predictions: &[Prediction]) -> Value {
    json!({
        "schema": "lab.predict/1",
        "case": lab,
        "probes": predictions.iter().map(prediction).collect::<Vec<_>>(),
    })
}

/// The ICMP error's words, as people know them.
pub fn error_name(kind: AnswerKind) -> &'static str {
    match kind {
        AnswerKind::Icmp(3, 0) => "network unreachable",
        AnswerKind::Icmp(3, 1) => "host unreachable",
        AnswerKind::Icmp(3, 2) => "protocol unreachable",
        AnswerKind::Icmp(3, 3) => "port unreachable",
        AnswerKind::Icmp(3, 4) => "fragmentation needed",
        AnswerKind::Icmp(3, 9) => "network prohibited",
        AnswerKind::Icmp(3, 10) => "host prohibited",
        AnswerKind::Icmp(3, 13) => "administratively prohibited",
        AnswerKind::Icmp(11, _) => "TTL exceeded",
        AnswerKind::Icmp6(1, 0) => "no route",
        AnswerKind::Icmp6(1, 1) => "administratively prohibited",
        AnswerKind::Icmp6(1, 3) => "address unreachable",
        AnswerKind::Icmp6(1, 4) => "port unreachable",
        AnswerKind::Icmp6(1, 5) => "source address failed policy",
        AnswerKind::Icmp6(1, 6) => "reject route",
        AnswerKind::Icmp6(2, _) => "packet too big",
        AnswerKind::Icmp6(3, _) => "hop limit exceeded",
        AnswerKind::Icmp(..) | AnswerKind::Icmp6(..) => "error",
        AnswerKind::TcpReset => "connection refused",
    }
}
