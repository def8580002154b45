//! A plan as text, and as scripts that undo themselves.

use std::fmt::Write as _;

use super::edits::{self, Payload};
use super::{diff, safe};
use crate::formats::command;
use crate::query::plan::{Hurt, Plan, Refusal, Step};
use crate::query::policy::Judged;

fn hurt(out: &mut String, hurt: &Hurt) {
    let what = if hurt.cut { "cuts" } else { "lets through" };
    let _ = writeln!(out, "     {what}, until later steps: {} -> {}", safe(&hurt.from), safe(&hurt.at));
    diff::told(out, 4, &hurt.packets);
}

fn judged(out: &mut String, judged: &[Judged]) {
    for one in judged {
        let name = one.name.as_ref().map(|n| format!("{n}: ")).unwrap_or_default();
        let service = one.service.as_ref().map(|s| format!(" by {s}")).unwrap_or_default();
        let _ = writeln!(out, "  {}", safe(&format!("{name}{} -> {}{service}", one.from, one.to)));
        if let Some(packet) = &one.counterexample {
            let _ = writeln!(out, "    not {}", safe(&packet.to_string()));
        }
    }
}

/// A plan, step by step.
pub fn plan(plan: &Plan) -> String {
    let mut out = String::new();
    match &plan.refused {
        Some(Refusal::NotBefore(which)) => {
            let _ = writeln!(out, "no plan: what must be kept does not hold to begin with");
            judged(&mut out, which);
        }
        Some(Refusal::NotAfter(which)) => {
            let _ = writeln!(out, "no plan: what must be kept does not hold in the end");
            judged(&mut out, which);
        }
        Some(Refusal::CutOnTheWay) => {
            let _ = writeln!(
                out,
                "no plan: every order of steps cuts what must be kept ({} states looked at)",
                plan.states
            );
        }
        Some(Refusal::GivenUp(states)) => {
            let _ = writeln!(out, "no plan found in {states} states; there may be one");
        }
        None if plan.steps.is_empty() => {
            let _ = writeln!(out, "nothing to do");
        }
        None => {
            for (number, step) in plan.steps.iter().enumerate() {
                let _ = writeln!(out, "{:>3}  {}", number + 1, safe(&step.host));
                for command in &step.commands {
                    let _ = writeln!(out, "     {}", safe(command));
                }
                if step.at_once.is_some() {
                    let _ = writeln!(out, "     (at once, in one transaction)");
                }
                for one in &step.hurts {
                    hurt(&mut out, one);
                }
            }
            let _ = match plan.keeps {
                true => writeln!(
                    out,
                    "no state on the way lets through what passes neither before nor after, or cuts what \
                     passes in both"
                ),
                false => writeln!(
                    out,
                    "no order of these steps does without that ({} states looked at)",
                    plan.states
                ),
            };
        }
    }
    if plan.kept > 0 && plan.refused.is_none() {
        let _ = writeln!(out, "{} flows to be kept hold in every state", plan.kept);
    }
    for what in &plan.unsaid {
        let _ = writeln!(out, "not part of it: {}", safe(what));
    }
    out
}

/// A script for one host: some steps of a plan, in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Script {
    /// What to call it: `01-router.sh`.
    pub name: String,
    /// The host to run it on, as root.
    pub host: String,
    /// Its text.
    pub text: String,
}

/// The scripts of a plan, to be run one after the other, each on its host.
/// `seconds`: how long each waits to be confirmed before it undoes its steps, as
/// `iptables-apply(8)` does.
pub fn scripts(plan: &Plan, seconds: u32) -> Vec<Script> {
    let mut runs: Vec<Vec<&Step>> = Vec::new();
    for step in &plan.steps {
        match runs.last_mut() {
            Some(run) if run.last().is_some_and(|last| last.host == step.host) => run.push(step),
            _ => runs.push(vec![step]),
        }
    }
    let count = runs.len();
    runs.into_iter()
        .enumerate()
        .map(|(index, run)| {
            let host = run.first().map(|s| s.host.clone()).unwrap_or_default();
            // A host's name is a folder's: it is no path, but may hold anything else.
            let plain: String = host
                .chars()
                .map(|c| if c.is_ascii_alphanumeric() || "-_.".contains(c) { c } else { '_' })
                .collect();
            Script {
                name: format!("{:02}-{plain}.sh", index + 1),
                text: script(&run, index + 1, count, &plain, seconds),
                host,
            }
        })
        .collect()
}

/// What every script does around its steps.
const FRAME: &str = r#"
dir=${LAB_STATE:-/run/lab-plan}/@NAME@
self=$(readlink -f -- "$0")

undo() {
    n=$(cat "$dir/done" 2>/dev/null || echo 0)
    while [ "$n" -gt 0 ]; do
        "undo_$n" || echo "undoing step $n failed" >&2
        n=$((n - 1))
        echo "$n" >"$dir/done"
    done
    rm -f "$dir/waiting"
}

case "${1:-}" in
apply)
    umask 077
    mkdir -p "$dir"
    if [ -e "$dir/waiting" ]; then
        echo "already applied: confirm or undo it" >&2
        exit 2
    fi
    cp -- "$self" "$dir/script"
    : >"$dir/waiting"
    echo 0 >"$dir/done"
    # Lives on when this shell and its connection are gone.
    setsid sh "$dir/script" watch </dev/null >/dev/null 2>&1 &
    # A lost connection must not stop it half way through a step.
    trap '' HUP
    n=1
    while [ "$n" -le "$steps" ]; do
        if ! "step_$n"; then
            # What was not done is not undone: places in chains would be wrong.
            echo "step $n failed: undoing those before it" >&2
            case " $halves " in *" $n "*) echo "step $n may be half done: look at it" >&2 ;; esac
            undo
            exit 1
        fi
        echo "$n" >"$dir/done"
        n=$((n + 1))
    done
    echo "applied; undone in $seconds seconds unless: sh $0 confirm"
    ;;
confirm)
    if [ -e "$dir/waiting" ]; then
        rm -f "$dir/waiting"
        echo "kept"
    else
        echo "nothing waits: not applied, or undone already" >&2
        exit 1
    fi
    ;;
undo)
    undo
    ;;
watch)
    sleep "$seconds"
    if [ -e "$dir/waiting" ]; then
        undo
    fi
    ;;
*)
    echo "usage: sh $0 apply|confirm|undo" >&2
    exit 2
    ;;
esac
"#;

/// A file given to the tool that reads it, whatever it holds.
fn here(out: &mut String, payload: &Payload, or: &str) {
    let words = payload.command.iter().map(String::as_str);
    // A tool's own name and options hold no NUL.
    let command = command::quoted(words).unwrap_or_default();
    let mut end = "END_OF_RULES".to_owned();
    while payload.text.lines().any(|line| line == end) {
        end.push('_');
    }
    let _ = writeln!(out, "    {command} <<'{end}'{or}");
    out.push_str(&payload.text);
    if !payload.text.ends_with('\n') {
        out.push('\n');
    }
    let _ = writeln!(out, "{end}");
}

fn script(run: &[&Step], number: usize, count: usize, plain: &str, seconds: u32) -> String {
    let mut out = String::new();
    let _ = writeln!(out, "#!/bin/sh");
    let _ = writeln!(out, "# Part {number} of {count} of a plan, for {plain}. Run as root:");
    let _ = writeln!(out, "#   sh THIS apply      do it, and undo it in {seconds} seconds unless confirmed");
    let _ = writeln!(out, "#   sh THIS confirm    keep it");
    let _ = writeln!(out, "#   sh THIS undo       take it back now");
    let _ = writeln!(out, "set -u\nseconds={seconds}\nsteps={}", run.len());
    let mut halves: Vec<String> = Vec::new();
    for (index, step) in run.iter().enumerate() {
        for (verb, side) in [("step", 0), ("undo", 1)] {
            let _ = writeln!(out, "\n{verb}_{}() {{", index + 1);
            // What undoes goes on where a part of it fails.
            let or = if verb == "step" { " || return 1" } else { " || :" };
            let payloads = step.at_once.as_ref().and_then(|both| {
                let (host, edits) = &both[side];
                let (payloads, unsaid) = edits::payloads(host, edits);
                (unsaid.is_empty() && !payloads.is_empty()).then_some(payloads)
            });
            let parts = match &payloads {
                Some(payloads) => {
                    payloads.iter().for_each(|p| here(&mut out, p, or));
                    payloads.len()
                }
                None => {
                    let commands = if side == 0 { &step.commands } else { &step.undo };
                    for command in commands {
                        let _ = writeln!(out, "    {command}{or}");
                    }
                    commands.len()
                }
            };
            if side == 0 && parts > 1 {
                halves.push((index + 1).to_string());
            }
            // A function must hold something.
            let _ = writeln!(out, "    :\n}}");
        }
    }
    let _ = writeln!(out, "\n# Steps of several commands.\nhalves='{}'", halves.join(" "));
    out.push_str(&FRAME.replace("@NAME@", &format!("{number:02}-{plain}")));
    out
}
