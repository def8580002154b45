//! `lab repair` on the bundled lab, and on random labs: whatever it calls
//! proved, the stepper agrees to.

#![allow(clippy::unwrap_used, clippy::panic)]

use lab_core::model::Packet;
use lab_core::query::ends::{self, End};
use lab_core::query::flows::Headers;
use lab_core::query::repair::{repair, Ask, Flow, Repair};
use lab_core::query::trace::{of_packet, trace, Question};
use lab_core::query::what_if::{what_if, HostChange};
use lab_core::render;
use lab_core::strategies::lab;
use lab_core::Lab;
use lab_workspace::{ask, stage};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};

fn text(stage_name: &str, rest: &[&str]) -> String {
    let run = ask("repair", &stage(stage_name), rest);
    assert!(run.err.is_empty(), "{}", run.err);
    format!("exit {}\n{}", run.code, run.out)
}

#[test]
fn the_ping_that_libvirt_rejects() {
    insta::assert_snapshot!(text("02-routes-only", &["master", "controller", "--proto", "icmp"]));
}

#[test]
fn routes_that_nobody_has_added_yet() {
    insta::assert_snapshot!(text("01-before-routes", &["master", "controller", "--proto", "icmp"]));
}

#[test]
fn the_kubelet_that_a_security_group_hides() {
    insta::assert_snapshot!(text("05-kubernetes", &["master", "k8s-worker-1", "--dport", "10250"]));
}

#[test]
fn a_ping_that_should_not_pass() {
    insta::assert_snapshot!(text(
        "03-rules-inserted",
        &["master", "controller", "--proto", "icmp", "--refuse"]
    ));
}

#[test]
fn exit_codes_say_what_is_to_be_done() {
    assert!(text("03-rules-inserted", &["master", "controller", "--proto", "icmp"]).starts_with("exit 0\n"));
    let run = ask("repair", &stage("03-rules-inserted"), &["master", "contorller"]);
    assert_eq!(
        (run.code, run.err.as_str()),
        (2, "lab: no host named `contorller`; did you mean controller?\n")
    );
    let run = ask("repair", &stage("02-routes-only"), &["master", "controller", "--proto", "icmp", "--json"]);
    let json: serde_json::Value = serde_json::from_str(&run.out).unwrap();
    assert_eq!((run.code, json["schema"].as_str()), (1, Some("lab.repair/1")));
    assert_eq!(json["plans"][0]["steps"][0]["host"], json["plans"][0]["steps"][0]["host"]);
}

/// The commands that are printed are what `--what-if` takes, and do what is
/// said: the ping passes, and of the rest only what the repair names.
#[test]
fn the_printed_commands_make_the_ping_pass() {
    let lab = Lab::open(stage("02-routes-only")).unwrap();
    let end = |name: &str| ends::parse(&lab, name).unwrap();
    let headers = Headers { protocol: Some(1), ..Headers::default() };
    let flow = Flow { from: end("master"), to: end("controller"), headers };
    let answer = repair(&lab, &Ask { pass: vec![flow], refuse: Vec::new() }).unwrap();
    let mut besides = Vec::new();
    for plan in &answer.plans {
        let commands = plan.steps.iter().map(|s| format!("{}: {}", s.host, s.command));
        let changes: Vec<HostChange> = commands.map(|c| c.parse().unwrap()).collect();
        let after = what_if(&lab, &changes).unwrap();
        assert!(trace(&after, &end("master"), &end("controller"), &Question::default()).unwrap().holds());
        assert!(plan.lost.is_empty());
        for more in &plan.surplus {
            assert_eq!((more.from.as_str(), more.at.as_str()), ("kubernetes-host", "controller"));
            assert_eq!(more.packets.lines, ["icmp 10.10.10.2 -> 192.168.100.101"]);
            let ping = more.packets.example.as_ref().unwrap();
            assert!(passes(&after, "kubernetes-host", ping) && !passes(&lab, "kubernetes-host", ping));
        }
        besides.push(plan.surplus.len());
    }
    // Masquerading makes the two alike; where it is left out they differ.
    assert!(besides.contains(&0) && besides.contains(&1), "{besides:?}");
}

fn passes(lab: &Lab, from: &str, packet: &Packet) -> bool {
    of_packet(lab, &ends::parse(lab, from).unwrap(), packet).unwrap().holds()
}

/// What a repair claims, asked of the stepper packet by packet.
fn holds(lab: &Lab, flow: &Flow, question: &Question, answer: &Repair) -> Result<usize, TestCaseError> {
    let before = trace(lab, &flow.from, &flow.to, question);
    if answer.holds() {
        prop_assert!(before.is_ok_and(|t| t.holds()), "it does not pass as it is");
        return Ok(0);
    }
    for plan in &answer.plans {
        let after = trace(&plan.lab, &flow.from, &flow.to, question);
        let after = after.map_err(|e| TestCaseError::fail(e.to_string()))?;
        prop_assert!(after.holds(), "{}\n{}", render::repair(answer), render::trace(&after, true));
        for (more, gained) in
            plan.surplus.iter().map(|m| (m, true)).chain(plan.lost.iter().map(|m| (m, false)))
        {
            let Some(example) = &more.packets.example else { continue };
            let (with, without) = if gained { (&plan.lab, lab) } else { (lab, &plan.lab) };
            if more.from == "@outside" {
                continue;
            }
            let from = End::Host(more.from.clone());
            let trace =
                |lab: &Lab| of_packet(lab, &from, example).map_err(|e| TestCaseError::fail(e.to_string()));
            let (with, without) = (trace(with)?, trace(without)?);
            let arrives = |t: &lab_core::query::trace::Trace| {
                t.ways.iter().any(|w| match &w.there.outcome {
                    lab_core::model::Outcome::Delivered { at, .. } => at.host == more.at,
                    lab_core::model::Outcome::ForwardedOut { at, .. } => at.to_string() == more.at,
                    _ => false,
                })
            };
            let answered =
                |t: &lab_core::query::trace::Trace| t.ways.iter().any(|w| w.answered && w.back.is_some());
            let shown = || format!("{}\n{}", render::repair(answer), render::trace(&without, true));
            match more.answers {
                false => {
                    prop_assert!(arrives(&with) || more.at == "not known", "{}", render::trace(&with, true));
                    prop_assert!(!arrives(&without), "{}", shown());
                }
                true => prop_assert!(answered(&with) && !answered(&without), "{}", shown()),
            }
        }
    }
    Ok(answer.plans.len())
}

#[test]
fn whatever_is_called_proved_the_stepper_agrees_to() {
    let cases = std::env::var("LAB_REPAIR_CASES").ok().and_then(|n| n.parse().ok()).unwrap_or(48);
    let mut runner = TestRunner::new(Config { cases, failure_persistence: None, ..Config::default() });
    let asked =
        (lab(), prop_oneof![Just((1, None)), Just((6, Some(22))), Just((17, Some(53)))], any::<bool>());
    let (mut plans, mut stuck) = (0, 0);
    let counted = (&mut plans, &mut stuck);
    let counted = std::cell::RefCell::new(counted);
    runner
        .run(&asked, |(lab, (protocol, dport), from_first)| {
            let names: Vec<String> = lab.hosts.keys().cloned().collect();
            let [first, .., last] = names.as_slice() else { return Ok(()) };
            let (from, to) = if from_first { (first, last) } else { (last, first) };
            let headers =
                Headers { protocol: Some(protocol), dport: dport.map(Into::into), ..Headers::default() };
            let flow = Flow { from: End::Host(from.clone()), to: End::Host(to.clone()), headers };
            let question = Question { protocol, dport, ..Question::default() };
            let Ok(answer) = repair(&lab, &Ask { pass: vec![flow.clone()], refuse: Vec::new() }) else {
                return Ok(());
            };
            let found = holds(&lab, &flow, &question, &answer)?;
            let mut counted = counted.borrow_mut();
            *counted.0 += found;
            *counted.1 += usize::from(answer.stuck.is_some());
            Ok(())
        })
        .unwrap();
    eprintln!("{plans} repairs, {stuck} without one");
    assert!(plans > 0);
}
