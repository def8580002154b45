//! What a change changes, as text.

use std::fmt::Write as _;

use super::reach::decision;
use super::safe;
use crate::model::Owner;
use crate::query::diff::flows::{Answered, Effect, Fate, FlowChange, FlowDiff};
use crate::query::diff::packets::{self, ChainPackets, Deed, MetPackets, Treated};
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
        (Effect::Gained, true) => "opened",
        (Effect::Gained, false) => "may be opened",
        (Effect::Lost, true) => "cut",
        (Effect::Lost, false) => "may be cut",
        (Effect::Changed, true) => "treated otherwise",
        (Effect::Changed, false) => "may be treated otherwise",
        (Effect::Unknown, _) => "not known",
    };
    let before = match (&change.old, &change.new) {
        (Fate::Rejected(_) | Fate::Dropped(_), Fate::Arrives { .. }) => {
            format!(": {} before", fate(&change.old))
        }
        (Fate::Arrives { .. }, Fate::Rejected(_) | Fate::Dropped(_)) => format!(": {}", fate(&change.new)),
        (old, new) if !matches!((old, new), (Fate::Arrives { .. }, Fate::Arrives { .. })) => {
            format!(": {}, {} before", fate(new), fate(old))
        }
        _ => String::new(),
    };
    safe(&format!("{what}{whose}{before}"))
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
    let mut last = String::new();
    for change in &diff.changes {
        let heading = heading(change);
        if heading != last {
            let _ = writeln!(out, "{heading}");
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
            let _ = writeln!(out, "  {}", safe(part));
        }
        told(&mut out, 2, &change.packets);
    }
    out
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
