//! A trace as text: short by default, decisive rules only.

use std::fmt::Write as _;

use super::predictions::error_name;
use super::safe;
use crate::engine::journey::{ChainRun, Event, Journey};
use crate::model::{AnswerKind, Backend, Decision, HopDirection, Outcome, Packet, RuleRef};
use crate::query::trace::{RoundTrip, Trace};

/// Renders a trace. `full` shows every chain run, route and rule.
pub fn trace(trace: &Trace, full: bool) -> String {
    let mut out = String::new();
    let what = trace.ways.first().map_or_else(String::new, |w| w.sent.to_string());
    let owner = trace.to_host.as_deref().map(|h| format!(" ({h})")).unwrap_or_default();
    line(&mut out, 0, &format!("{} -> {}{owner}: {what}", trace.from, trace.to));
    let several = trace.ways.len() > 1;
    for (number, way) in trace.ways.iter().enumerate() {
        if several {
            line(&mut out, 0, &format!("\npossibility {} of {}", number + 1, trace.ways.len()));
        }
        round_trip(&mut out, way, full);
    }
    line(&mut out, 0, "");
    if trace.certain {
        line(&mut out, 0, "certain");
    } else {
        line(&mut out, 0, "possible, not certain; it depends on:");
        let unknown = |j: &Journey| j.unknown.clone();
        let mut reasons = trace.reasons.clone();
        for way in &trace.ways {
            reasons.extend(unknown(&way.there));
            reasons.extend(way.back.iter().flat_map(unknown));
        }
        reasons.sort();
        reasons.dedup();
        for reason in reasons {
            line(&mut out, 1, &reason);
        }
        if trace.cut {
            line(&mut out, 1, "more ways than were followed");
        }
    }
    let mut assumptions: Vec<&String> = trace
        .ways
        .iter()
        .flat_map(|w| w.there.assumptions.iter().chain(w.back.iter().flat_map(|b| &b.assumptions)))
        .collect();
    assumptions.sort();
    assumptions.dedup();
    for assumption in assumptions {
        line(&mut out, 0, &format!("assuming {assumption}"));
    }
    out
}

/// Two spaces a level; what comes from a snapshot is made harmless.
fn line(out: &mut String, level: usize, text: &str) {
    for part in text.split('\n') {
        let shown = safe(part);
        // Writing to a String cannot fail.
        let indent = if shown.is_empty() { 0 } else { 2 * level };
        let _ = writeln!(out, "{:indent$}{shown}", "");
    }
}

fn round_trip(out: &mut String, trip: &RoundTrip, full: bool) {
    events(out, &trip.there.events, full);
    match &trip.there.outcome {
        Outcome::Delivered { at, seen } => {
            line(out, 1, &format!("{}: delivered, from {} with TTL {}", at.host, seen.src, seen.ttl));
        }
        Outcome::ForwardedOut { at, seen } => {
            line(out, 1, &format!("{}: leaves the lab by {}: {seen} TTL {}", at.host, at.iface, seen.ttl));
        }
        Outcome::Rejected { by, .. } => line(out, 1, &format!("{}: rejected {}", by.host(), cause(by))),
        Outcome::Dropped { by } => line(out, 1, &format!("{}: dropped {}", by.host(), cause(by))),
    }
    if trip.there.looped {
        line(out, 1, "it goes round in a loop");
    }
    if let Outcome::Rejected { answer, .. } = &trip.there.outcome {
        let name = match answer.kind {
            AnswerKind::TcpReset => "TCP reset".to_owned(),
            kind => format!("{kind} ({})", error_name(kind)),
        };
        line(out, 0, &format!("answer: {name} from {} to {}", answer.from_addr, answer.to_addr));
        events(out, &trip.there.answer_events, full);
        match (&answer.received, &answer.lost) {
            (Some((at, seen)), _) => {
                line(out, 1, &format!("{}: received, from {} with TTL {}", at.host, seen.src, seen.ttl));
            }
            (None, Some(by)) => line(out, 1, &format!("{}: lost {}", by.host(), cause(by))),
            (None, None) => line(out, 1, "leaves the lab"),
        }
    }
    if let Some(back) = &trip.back {
        line(out, 0, "reply:");
        events(out, &back.events, full);
        match &back.outcome {
            Outcome::Delivered { at, seen } if trip.answered => {
                line(out, 1, &format!("{}: received, from {} with TTL {}", at.host, seen.src, seen.ttl));
            }
            Outcome::Delivered { at, .. } => {
                line(out, 1, &format!("{}: delivered, which is not who asked", at.host));
            }
            Outcome::ForwardedOut { at, .. } => {
                line(out, 1, &format!("{}: leaves the lab by {}", at.host, at.iface));
            }
            Outcome::Rejected { by, .. } | Outcome::Dropped { by } => {
                line(out, 1, &format!("{}: lost {}", by.host(), cause(by)));
            }
        }
    }
}

fn rule_name(rule: &RuleRef) -> String {
    let number = rule.rule.map_or_else(|| "policy".to_owned(), |n| format!("rule {n}"));
    let backend = if rule.backend == Backend::Legacy { ", iptables-legacy" } else { "" };
    let text = if rule.text.is_empty() { String::new() } else { format!(" `{}`", rule.text) };
    format!("{} {}, {}, {number}{text} ({}{backend})", rule.family, rule.table, rule.chain, rule.origin)
}

fn cause(by: &Decision) -> String {
    match by {
        Decision::Rule(rule) => format!("in {}", rule_name(rule)),
        Decision::Stage { stage, .. } => format!("at {stage}"),
    }
}

fn events(out: &mut String, events: &[Event], full: bool) {
    for event in events {
        match event {
            Event::Hop(hop) => {
                let way = if hop.direction == HopDirection::In { "in " } else { "out" };
                let text = format!("{}: {way} {}", hop.at.host, hop.at.iface);
                if full {
                    line(out, 1, &format!("{text}: {} TTL {}", hop.packet, hop.packet.ttl));
                } else {
                    line(out, 1, &text);
                }
            }
            Event::Rewritten { host, hook, by, before, after } => {
                let by = by.as_ref().map_or_else(|| "its connection".to_owned(), |r| rule_name(r));
                line(out, 1, &format!("{host}: {hook}: {} by {by}", change(before, after)));
            }
            Event::Encapsulated { host, device, outer } => {
                line(out, 1, &format!("{host}: into {device}: {outer}"));
            }
            Event::Decapsulated { host, device } => line(out, 1, &format!("{host}: out of {device}")),
            Event::Tracked { host, state } if full => {
                line(out, 1, &format!("{host}: connection state {}", format!("{state:?}").to_uppercase()));
            }
            Event::Routed { host, route } if full => line(out, 1, &format!("{host}: route {route}")),
            Event::Chain(run) if full => chain(out, run),
            Event::Tracked { .. } | Event::Routed { .. } | Event::Chain(_) => {}
        }
    }
}

fn chain(out: &mut String, run: &ChainRun) {
    let outer = if run.outer { ", outer packet" } else { "" };
    line(
        out,
        1,
        &format!("{}: {}: {} {}, chain {}{outer}", run.host, run.hook, run.family, run.table, run.base),
    );
    for step in &run.steps {
        let number = step.rule.map_or_else(|| "policy".to_owned(), |n| n.to_string());
        line(out, 2, &format!("{} {number}: {} -> {}", step.chain, step.text, step.effect));
    }
}

fn change(before: &Packet, after: &Packet) -> String {
    let mut parts = Vec::new();
    if before.src != after.src {
        parts.push(format!("source {} becomes {}", before.src, after.src));
    }
    if before.dst != after.dst {
        parts.push(format!("destination {} becomes {}", before.dst, after.dst));
    }
    if let (Some((sport, dport)), Some((new_sport, new_dport))) =
        (before.transport.ports(), after.transport.ports())
    {
        if sport != new_sport {
            parts.push(format!("source port {sport} becomes {new_sport}"));
        }
        if dport != new_dport {
            parts.push(format!("destination port {dport} becomes {new_dport}"));
        }
    }
    if parts.is_empty() {
        parts.push("the quoted packet is changed back".into());
    }
    parts.join(", ")
}
