//! Reachability as text.

use std::fmt::Write as _;

use super::safe;
use crate::model::Decision;
use crate::query::reach::{Arrival, Astray, Reach, Refusal, Told};

/// A rule or stage in one line.
pub(super) fn decision(by: &Decision) -> String {
    match by {
        Decision::Stage { host, stage } => safe(&format!("{host}: {stage}")),
        Decision::Rule(rule) => {
            let place = match rule.rule {
                Some(number) => format!("{} rule {number}", rule.chain),
                None => format!("{} policy", rule.chain),
            };
            let text = if rule.text.is_empty() { String::new() } else { format!(": {}", rule.text) };
            safe(&format!("{}: {} {place}{text}", rule.host, rule.table))
        }
    }
}

fn lines(out: &mut String, told: &Told) {
    for line in &told.lines {
        let _ = writeln!(out, "    {line}");
    }
    if !told.whole {
        let _ = writeln!(out, "    and more: {} headers in all", told.count);
    }
}

fn arrival(out: &mut String, arrival: &Arrival, many: bool) {
    let from = if many { format!("{} -> ", arrival.from) } else { String::new() };
    let as_what = match arrival.changed.is_empty() {
        true => String::new(),
        false => format!(", as {}", arrival.changed.join(", ")),
    };
    for (told, word) in [(&arrival.certain, "arrives"), (&arrival.possible, "may arrive")] {
        if !told.lines.is_empty() {
            let _ = writeln!(out, "  {}", safe(&format!("{from}{} {word}{as_what}", arrival.at)));
            lines(out, told);
        }
    }
    for reason in &arrival.reasons {
        let _ = writeln!(out, "    depends on {}", safe(reason));
    }
}

fn refusal(out: &mut String, refusal: &Refusal, many: bool) {
    let from = if many { safe(&format!("{} ", refusal.from)) } else { String::new() };
    let word = if refusal.rejected { "rejected by" } else { "dropped by" };
    let back = if refusal.on_the_way_back { ", on the way back" } else { "" };
    let looped = if refusal.looped { ", after going round in a loop" } else { "" };
    let _ = writeln!(out, "  {from}{word} {}{back}{looped}", decision(&refusal.by));
    lines(out, &refusal.packets);
}

fn astray(out: &mut String, astray: &Astray, many: bool) {
    let from = if many { format!("{} ", astray.from) } else { String::new() };
    let what = if astray.on_the_way_back { "the answer goes to" } else { "goes to" };
    let _ = writeln!(out, "  {}", safe(&format!("{from}{what} {}", astray.at)));
    lines(out, &astray.packets);
}

/// The answer to `lab reach`.
pub fn reach(reach: &Reach) -> String {
    let mut out = String::new();
    let from = reach.from.as_deref().unwrap_or("anywhere");
    let to = reach.to.as_deref().unwrap_or("anywhere");
    let what = match (reach.new, reach.and_back) {
        (true, false) => "new connections",
        (true, true) => "new connections and their answers",
        (false, false) => "any packets",
        (false, true) => "any packets and their answers",
    };
    let many = reach.from.is_none();
    let _ = writeln!(out, "{}", safe(&format!("{what} from {from} to {to}")));
    if reach.arrivals.is_empty() {
        let _ = writeln!(out, "  none");
    }
    for item in &reach.arrivals {
        arrival(&mut out, item, many);
    }
    if !reach.refusals.is_empty() || !reach.astray.is_empty() {
        let _ = writeln!(out, "kept from it");
        for item in &reach.astray {
            astray(&mut out, item, many);
        }
        for item in &reach.refusals {
            refusal(&mut out, item, many);
        }
    }
    out
}
