//! What a change changes, as text.

use std::fmt::Write as _;

use serde_json::Value;

use super::reach::decision;
use super::{edits, safe};
use crate::model::{Change, Host, Lab, Owner, Ruleset};
use crate::query::diff::effects::{Effect, RuleEffect, Turn};
use crate::query::diff::flows::{self, Answered, Fate, FlowChange, FlowDiff};
use crate::query::diff::packets::{self, ChainPackets, Deed, MetPackets, Treated};
use crate::query::diff::whole::{LabDiff, RulesDiff};
use crate::query::reach::Told;

pub(super) fn told(out: &mut String, level: usize, told: &Told) {
    let indent = 2 * level;
    for line in &told.lines {
        let _ = writeln!(out, "{:indent$}{line}", "");
    }
    if !told.whole {
        let _ = writeln!(out, "{:indent$}and more: {} headers in all", "", told.count);
    }
}

/// What becomes of packets, in words.
fn fate(fate: &Fate) -> String {
    match fate {
        Fate::Arrives { at, changed, answered } => {
            let as_what = match changed.is_empty() {
                true => String::new(),
                false => format!(", with {}", changed.join(", ")),
            };
            let lost = match answered {
                Answered::Yes => String::new(),
                Answered::Unknown => String::new(),
                Answered::No(Some(by)) => format!("; the answer is stopped by {}", decision(by)),
                Answered::No(None) => "; the answer goes elsewhere".to_owned(),
            };
            safe(&format!("{at}{as_what}{lost}"))
        }
        Fate::Rejected(by) => format!("rejected by {}", decision(by)),
        Fate::Dropped(by) => format!("dropped by {}", decision(by)),
        Fate::NotSent => "not sent".to_owned(),
        Fate::Unknown(why) => safe(&format!("not known: {}", why.join("; "))),
    }
}

/// The heading of changes that belong together: what they are, and by whom.
fn heading(change: &FlowChange) -> String {
    let whose = match (change.hosts.as_slice(), change.each_alone) {
        ([], _) => String::new(),
        ([one], true) => format!(" by {one}"),
        (several, true) => format!(" by any of {}", several.join(", ")),
        (several, false) => format!(" by {} together", several.join(", ")),
    };
    let what = match (change.effect, change.certain) {
        (flows::Effect::Gained, true) => "opened",
        (flows::Effect::Gained, false) => "may be opened",
        (flows::Effect::Lost, true) => "cut",
        (flows::Effect::Lost, false) => "may be cut",
        (flows::Effect::Changed, true) => "treated otherwise",
        (flows::Effect::Changed, false) => "may be treated otherwise",
        (flows::Effect::Unknown, _) => "not known",
    };
    let before = match (&change.old, &change.new) {
        (Fate::Rejected(_) | Fate::Dropped(_) | Fate::NotSent, Fate::Arrives { .. }) => {
            format!(": {} before", fate(&change.old))
        }
        (Fate::Arrives { .. }, Fate::Rejected(_) | Fate::Dropped(_) | Fate::NotSent) => {
            format!(": {}", fate(&change.new))
        }
        (old, new) if !matches!((old, new), (Fate::Arrives { .. }, Fate::Arrives { .. })) => {
            format!(": {}, {} before", fate(new), fate(old))
        }
        _ => String::new(),
    };
    safe(&format!("{what}{whose}{before}"))
}

/// What is done to flows, those alike under one heading.
fn changed(out: &mut String, changes: &[FlowChange], level: usize) {
    let indent = 2 * level;
    let mut last = String::new();
    for change in changes {
        let heading = heading(change);
        if heading != last {
            let _ = writeln!(out, "{:indent$}{heading}", "");
            last = heading;
        }
        let line = match (&change.old, &change.new) {
            (Fate::Arrives { .. }, Fate::Arrives { .. }) => {
                format!("{} -> {}\n  before: {}", change.from, fate(&change.new), fate(&change.old))
            }
            (Fate::Arrives { .. }, _) => format!("{} -> {}", change.from, fate(&change.old)),
            (_, Fate::Arrives { .. }) => format!("{} -> {}", change.from, fate(&change.new)),
            _ => change.from.clone(),
        };
        for part in line.split('\n') {
            let _ = writeln!(out, "{:indent$}  {}", "", safe(part));
        }
        told(out, level + 2, &change.packets);
    }
}

/// What a change does to flows between hosts.
pub fn flows(diff: &FlowDiff) -> String {
    let mut out = String::new();
    let kind = if diff.new { "new connection" } else { "packet" };
    if diff.is_empty() {
        let _ =
            writeln!(out, "no {kind} from any host, or from outside, is treated differently: proved for all");
        return out;
    }
    changed(&mut out, &diff.changes, 0);
    out
}

/// What a rule that comes or goes does by itself.
fn rule_effect(out: &mut String, one: &RuleEffect) {
    let name = format!("{} {}", one.chain, one.rule);
    let deeds = |out: &mut String, deeds: &[Deed]| {
        for one in deeds {
            let _ = writeln!(out, "    {}", deed(one));
        }
    };
    let (without, does) = match one.gone {
        false => ("without it", "does"),
        true => ("with it", "did"),
    };
    let _ = match &one.effect {
        Effect::Shadowed(by) if by.is_empty() => {
            writeln!(out, "  {} {does} nothing: no packet comes to it", safe(&name))
        }
        Effect::Shadowed(_) => {
            writeln!(out, "  {} {does} nothing: no packet comes to it, as first", safe(&name))
        }
        Effect::Redundant(by) if by.is_empty() => {
            writeln!(out, "  {} {does} nothing: every packet fares alike without it", safe(&name))
        }
        Effect::Redundant(_) => {
            writeln!(out, "  {} {does} nothing: the same is done anyway by", safe(&name))
        }
        Effect::Unsent { .. } => {
            writeln!(
                out,
                "  {} opens and cuts nothing: new connections that come to it fare alike by",
                safe(&name)
            )
        }
        Effect::Flows(_) => writeln!(out, "  {}, against the same lab {without}:", safe(&name)),
        Effect::Packets(_) => writeln!(out, "  {} treats packets otherwise", safe(&name)),
    };
    match &one.effect {
        Effect::Shadowed(by) | Effect::Redundant(by) => deeds(out, by),
        Effect::Unsent { instead, packets } => {
            // Numbers differ without the rule, texts do not.
            let rule = |deed: &Deed| deed.by.as_ref().map(|by| (by.chain.clone(), by.text.clone()));
            let treated = || packets.iter().flat_map(|c| &c.treated);
            let same = |deed: &&Deed| !treated().any(|t| rule(&t.old) == rule(deed));
            let alike: Vec<Deed> = instead.iter().filter(same).cloned().collect();
            deeds(out, &alike);
            let _ = writeln!(
                out,
                "    what it treats otherwise opens no connection between hosts, and answers none first:"
            );
            for treated in packets.iter().flat_map(|c| &c.treated) {
                for place in &treated.packets {
                    let when =
                        if place.when.is_empty() { "anywhere".into() } else { place.when.join("; or ") };
                    for line in &place.lines {
                        let _ = writeln!(out, "      {line} ({})", safe(&when));
                    }
                }
            }
        }
        Effect::Flows(changes) => changed(out, changes, 2),
        Effect::Packets(_) => {}
    }
}

fn turn(out: &mut String, one: &Turn) {
    let moved = if one.old == one.new { String::new() } else { format!(" (was {})", one.old) };
    let text = match one.comes {
        true => format!("{} {}{moved} decides now where before", one.chain, one.new),
        false => format!("{} {}{moved} decides no longer where now", one.chain, one.new),
    };
    let _ = writeln!(out, "  {}", safe(&text));
    for one in &one.by {
        let _ = writeln!(out, "    {}", deed(one));
    }
}

/// A difference of two labs: what is written otherwise host by host, what
/// each edited rule does, and what becomes of flows.
pub fn labs(diff: &LabDiff) -> String {
    let mut out = String::new();
    for host in &diff.edits.hosts {
        let _ = writeln!(out, "{}", safe(&host.host));
        for chain in &host.chains {
            for line in edits::unified(chain).lines() {
                let _ = writeln!(out, "  {line}");
            }
        }
        for change in host.changes.iter().filter(|c| !is_shown(c)) {
            let _ = writeln!(out, "  {}", safe(&change.to_string()));
        }
        for what in &host.unsaid {
            let _ = writeln!(out, "  {}", safe(what));
        }
        diff.effects.turns.iter().filter(|t| t.host == host.host).for_each(|t| turn(&mut out, t));
        diff.effects.rules.iter().filter(|r| r.host == host.host).for_each(|r| rule_effect(&mut out, r));
        out.push('\n');
    }
    if diff.effects.more > 0 {
        let _ = writeln!(out, "{} edited rules more were not looked at one by one\n", diff.effects.more);
    }
    for what in &diff.edits.unsaid {
        let _ = writeln!(out, "{}", safe(what));
    }
    out + &flows(&diff.flows)
}

/// A difference of two rule sets.
pub fn rules(diff: &RulesDiff) -> String {
    let mut out = String::new();
    for chain in &diff.edits.chains {
        out += &edits::unified(chain);
    }
    for change in diff.edits.changes.iter().filter(|c| c.chain().is_none()) {
        let _ = writeln!(out, "{}", safe(&change.to_string()));
    }
    for what in &diff.edits.unsaid {
        let _ = writeln!(out, "{}", safe(what));
    }
    if !out.is_empty() {
        out.push('\n');
    }
    match diff.packets.is_empty() && !diff.edits.unsaid.is_empty() {
        // What is not modelled may do anything.
        true => out + "no rule that is modelled treats a packet differently; what else differs may\n",
        false => out + &packets(&diff.packets),
    }
}

/// Whether the diffs of chains show a change.
fn is_shown(change: &Change) -> bool {
    change.chain().is_some() || matches!(change, Change::AddTable(_) | Change::DeleteTable(_))
}

/// What a rule does, and who wrote it.
fn deed(deed: &Deed) -> String {
    let Some(rule) = &deed.by else { return format!("{}, there being no such chain", deed.does) };
    let place = match rule.rule {
        Some(number) => format!("{} rule {number}", rule.chain),
        None => format!("{} policy", rule.chain),
    };
    let owner = match rule.owner {
        Owner::User => String::new(),
        owner => format!(" ({owner}'s)"),
    };
    let text = if rule.text.is_empty() { String::new() } else { format!(": {}", rule.text) };
    safe(&format!("{place}{owner} {}{text}", deed.does))
}

fn met(out: &mut String, met: &MetPackets) {
    let _ = match met.when.as_slice() {
        [] => writeln!(out, "    wherever met"),
        several => writeln!(out, "    {}", safe(&several.join("; or "))),
    };
    for line in &met.lines {
        let _ = writeln!(out, "      {line}");
    }
    if !met.whole {
        let _ = writeln!(out, "      and more: {} headers in all", met.count);
    }
}

fn treated(out: &mut String, treated: &Treated) {
    let word = match (treated.effect, treated.certain) {
        (packets::Effect::Admitted, true) => "admitted",
        (packets::Effect::Admitted, false) => "perhaps admitted",
        (packets::Effect::Refused, true) => "refused",
        (packets::Effect::Refused, false) => "perhaps refused",
        (packets::Effect::Otherwise, true) => "treated otherwise",
        (packets::Effect::Otherwise, false) => "perhaps treated otherwise",
    };
    let _ = writeln!(out, "  {word}: {} headers", treated.count);
    for one in &treated.packets {
        met(out, one);
    }
    if !treated.whole {
        let _ = writeln!(out, "    and in more places");
    }
    let _ = writeln!(out, "    before: {}", deed(&treated.old));
    let _ = writeln!(out, "    now:    {}", deed(&treated.new));
    if let Some(example) = &treated.example {
        let _ = writeln!(out, "    such as {} ({})", safe(&example.packet.to_string()), safe(&example.when));
        for (word, steps) in [("before", &example.old), ("now", &example.new)] {
            if steps.len() > 1 {
                let way: Vec<String> = steps
                    .iter()
                    .map(|s| match s.rule {
                        Some(number) => format!("{} {number} {}", s.chain, s.effect),
                        None => format!("{} policy {}", s.chain, s.effect),
                    })
                    .collect();
                let _ = writeln!(out, "      {word}: {}", safe(&way.join(" -> ")));
            }
        }
    }
}

/// What a change of rules does to packets, chain by chain.
pub fn packets(diff: &[ChainPackets]) -> String {
    let mut out = String::new();
    if diff.is_empty() {
        return "no packet is treated differently: proved for all packets that any chain may meet\n"
            .to_owned();
    }
    for chain in diff {
        let host = if chain.host.is_empty() { String::new() } else { format!("{}: ", chain.host) };
        let _ = writeln!(out, "{}", safe(&format!("{host}{} {} {}", chain.family, chain.table, chain.chain)));
        for one in &chain.treated {
            treated(&mut out, one);
        }
        for why in &chain.depends {
            let _ = writeln!(out, "    depends on {}", safe(why));
        }
    }
    out
}

/// A difference of two labs as JSON, of schema `lab.diff/1`; `old` is the lab
/// that it begins with.
///
/// # Errors
/// None in practice: every value has a JSON form.
pub fn labs_json(old: &Lab, diff: &LabDiff) -> serde_json::Result<Value> {
    let mut value = serde_json::to_value(diff)?;
    value["edits"] = edits::json(old, &diff.edits);
    Ok(value)
}

/// A difference of two rule sets as JSON, of schema `lab.diff-rules/1`; `old`
/// is the one that it begins with.
///
/// # Errors
/// As [`labs_json`].
pub fn rules_json(old: &Ruleset, diff: &RulesDiff) -> serde_json::Result<Value> {
    let host = Host { ruleset: old.clone(), ..Host::default() };
    let mut value = serde_json::to_value(diff)?;
    value["edits"] = edits::host_json(Some(&host), &diff.edits);
    Ok(value)
}
