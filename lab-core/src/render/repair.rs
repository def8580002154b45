//! Repairs as text.

use std::fmt::Write as _;

use super::reach::decision;
use super::safe;
use crate::query::repair::{Blocker, Cause, Difference, Lasting, Plan, Repair, Stuck, Way};

fn put(out: &mut String, level: usize, text: &str) {
    // Writing to a String cannot fail.
    let _ = writeln!(out, "{:indent$}{}", "", safe(text), indent = 2 * level);
}

/// The answer to `lab repair`.
pub fn repair(repair: &Repair) -> String {
    let mut out = String::new();
    let (good, bad) = match repair.holds() {
        true => ("pass already, and their answers come back: nothing to repair", "do not pass as it is"),
        false => ("should pass", "should not pass"),
    };
    for flows in &repair.pass {
        put(&mut out, 0, &format!("{flows}: {good}"));
    }
    for flows in &repair.refuse {
        put(&mut out, 0, &format!("{flows}: {bad}"));
    }
    if repair.holds() {
        return out;
    }
    let several = repair.pass.len() + repair.refuse.len() > 1;
    let passes = |b: &&Blocker| matches!(b.cause, Cause::Arrives(_));
    let (passing, blocking): (Vec<_>, Vec<_>) = repair.blockers.iter().partition(passes);
    for (title, blockers) in [("in the way", blocking), ("what passes now", passing)] {
        if !blockers.is_empty() {
            put(&mut out, 0, title);
        }
        for one in blockers {
            blocker(&mut out, one, several);
        }
    }
    for (number, one) in repair.plans.iter().enumerate() {
        out.push('\n');
        put(&mut out, 0, &format!("repair {} of {}", number + 1, repair.plans.len()));
        plan(&mut out, one, repair);
    }
    match &repair.stuck {
        None => {}
        Some(Stuck::Apart(from, to)) => {
            out.push('\n');
            put(&mut out, 0, "no repair: no link joins the two");
            put(&mut out, 1, &format!("these hang together: {}", from.join(", ")));
            put(&mut out, 1, &format!("and these: {}", to.join(", ")));
        }
        Some(Stuck::Wall { cut }) => {
            out.push('\n');
            put(
                &mut out,
                0,
                "no repair: nothing that is known here to be changed helps against the last of them",
            );
            if *cut {
                put(&mut out, 1, "there was more to try than was tried");
            }
        }
    }
    out
}

fn blocker(out: &mut String, blocker: &Blocker, several: bool) {
    let way = match blocker.way {
        Way::There => "there",
        Way::Back => "back",
    };
    let what = match &blocker.cause {
        Cause::By(by) => decision(by),
        Cause::Astray(at) => format!("{}: goes astray, by {}", at.host, at.iface),
        Cause::Arrives(at) => format!("{}: arrives, by {}", at.host, at.iface),
        Cause::Unasked => format!("{}: comes from another address or port than was asked", blocker.host),
        Cause::Unknown(why) => format!("{}: not known, it depends on {}", blocker.host, why.join("; ")),
    };
    let looped = if blocker.looped { ", after going round in a loop" } else { "" };
    let turn =
        blocker.wrong_turn.as_ref().map(|h| format!(", after a wrong turn at {h}")).unwrap_or_default();
    put(out, 1, &format!("{way}, {what}{turn}{looped}"));
    if several {
        put(out, 2, &format!("of {}", blocker.flows));
    }
    for line in &blocker.packets.lines {
        put(out, 2, line);
    }
    if !blocker.packets.whole {
        put(out, 2, &format!("and more: {} headers in all", blocker.packets.count));
    }
}

fn plan(out: &mut String, plan: &Plan, repair: &Repair) {
    for step in &plan.steps {
        put(out, 1, &format!("{}: {}", step.host, step.command));
        if let Some((text, origin)) = &step.before {
            let at = origin.to_string();
            let at = if at.is_empty() { at } else { format!(" ({at})") };
            put(out, 2, &format!("before `{text}`{at}"));
        }
    }
    let met = match (repair.pass.is_empty(), repair.refuse.is_empty()) {
        (false, true) => "it passes both ways",
        (true, _) => "it stops that",
        (false, false) => "all is as asked",
    };
    let just = match plan.surplus.is_empty() && plan.lost.is_empty() {
        true => ", and changes nothing else that arrives or is answered",
        false => "",
    };
    put(out, 1, &format!("proved: {met}{just}"));
    differences(out, "lets through besides", &plan.surplus);
    differences(out, "cuts off besides", &plan.lost);
    keeping(out, plan);
}

/// How long it lasts, each advice once.
fn keeping(out: &mut String, plan: &Plan) {
    let mut told: Vec<(Lasting, String)> = Vec::new();
    for step in &plan.steps {
        let one = (step.keeping.lasting, format!("{}: {}", step.host, step.keeping.advice));
        if !told.contains(&one) {
            told.push(one);
        }
    }
    told.sort_by_key(|(lasting, _)| *lasting);
    let mut title = None;
    for (lasting, advice) in told {
        if title != Some(lasting) {
            let text = match lasting {
                Lasting::Volatile => "gone with the next restart; to keep it".to_owned(),
                Lasting::Rebuilt(owner) => {
                    format!("gone when {owner} rebuilds its chains; instead, or to keep it")
                }
            };
            put(out, 1, &text);
            title = Some(lasting);
        }
        put(out, 2, &advice);
    }
}

fn differences(out: &mut String, title: &str, all: &[Difference]) {
    if all.is_empty() {
        return;
    }
    put(out, 1, title);
    for one in all {
        let answers = if one.answers { ", the answers" } else { "" };
        let count = match one.packets.count.as_str() {
            "1" => "1 header".to_owned(),
            more => format!("{more} headers"),
        };
        put(out, 2, &format!("{} -> {}{answers}: {count}", one.from, one.at));
        for line in &one.packets.lines {
            put(out, 3, line);
        }
        if !one.packets.whole {
            put(out, 3, "and more");
        }
        if let Some(example) = one.packets.example.as_ref().filter(|_| one.packets.count != "1") {
            put(out, 3, &format!("such as {example}"));
        }
    }
}
