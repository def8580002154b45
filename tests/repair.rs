//! `lab repair` on the bundled lab, and on random labs: whatever it calls
//! proved, the stepper agrees to.

#![allow(clippy::unwrap_used, clippy::panic)]

use std::net::{Ipv4Addr, Ipv6Addr};

use lab_core::addr::PortRange;
use lab_core::engine::journey::Journey;
use lab_core::model::{Outcome, Packet, Payload, PortValue, TcpFlags, Transport};
use lab_core::query::ends::{self, End};
use lab_core::query::flows::Headers;
use lab_core::query::matrix::Service;
use lab_core::query::repair::{repair, Ask, Flow, Repair};
use lab_core::query::trace::{of_packet, trace, Question, RoundTrip, Trace};
use lab_core::query::what_if::{what_if, HostChange};
use lab_core::render;
use lab_core::strategies::lab;
use lab_core::Lab;
use lab_workspace::{ask, stage, Scratch};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestError, TestRunner};

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
        (2, "lab: no host named `contorller`; did you mean controller or compute or internet?\n")
    );
    let run = ask("repair", &stage("02-routes-only"), &["master", "controller", "--proto", "icmp", "--json"]);
    let json: serde_json::Value = serde_json::from_str(&run.out).unwrap();
    assert_eq!((run.code, json["schema"].as_str()), (1, Some("lab.repair/1")));
    assert_eq!(json["plans"][0]["steps"][0]["host"], json["plans"][0]["steps"][0]["host"]);
}

#[test]
fn bad_input_is_told_and_nothing_is_guessed() {
    for (rest, said) in [
        (["mastr", "controller"].as_slice(), "no host named `mastr`; did you mean master"),
        (&["master:enp1s9", "controller"], "no interface named `enp1s9`; did you mean enp1s0"),
        (&["master", "10.0.0.0/33"], "no host named `10.0.0.0/33`"),
        (&["master", "controller", "--dport", "99999"], "`99999` is no port"),
        (&["master", "controller", "--dport", "90-80"], "90 is above 80"),
        (&["master", "controller", "--sport", "-1"], "unexpected argument '-1'"),
        (&["master", "controller", "--proto", "icmp", "--dport", "22"], "pings have no ports"),
        (&["master", "controller", "--proto", "300"], "unknown protocol `300`"),
        (&["master", "127.0.0.1", "--proto", "icmp"], "master cannot send any of: pings"),
        (&["master"], "<TO>"),
    ] {
        let run = ask("repair", &stage("02-routes-only"), rest);
        assert_eq!((run.code, run.out.as_str()), (2, ""), "{rest:?}: {}", run.err);
        assert!(run.err.contains(said), "{rest:?}: {}", run.err);
    }
}

/// What a host sends to itself passes by its loopback device, and may be
/// refused there as anywhere.
#[test]
fn a_host_may_be_asked_about_itself() {
    let run = ask("repair", &stage("02-routes-only"), &["master", "master", "--proto", "icmp"]);
    assert_eq!((run.code, run.err.as_str()), (0, ""));
    assert!(run.out.contains("pass already"), "{}", run.out);
    let scratch = Scratch::pair();
    let run = ask("repair", &scratch.path(), &["a", "a", "--dport", "22", "--refuse"]);
    assert_eq!((run.code, run.err.as_str()), (1, ""));
    assert!(run.out.contains("-i lo ") && run.out.contains("proved: it stops that"), "{}", run.out);
}

#[test]
fn hosts_that_no_link_joins_are_told_apart() {
    let scratch = Scratch::pair();
    scratch.write("lab.toml", "name = \"apart\"\n\n[hosts.a]\nkind = \"vm\"\n");
    let run = ask("repair", &scratch.path(), &["a", "b", "--proto", "icmp"]);
    assert_eq!((run.code, run.err.as_str()), (1, ""));
    insta::assert_snapshot!(run.out);
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
            assert_eq!(more.packets.lines, ["icmp 10.10.10.2,172.20.112.1,192.168.122.1 -> 192.168.100.101"]);
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

/// A packet as the sets have it: small, and not forbidden to be fragmented.
fn small(packet: &Packet) -> Packet {
    Packet { length: 60, df: false, ..packet.clone() }
}

fn walked(lab: &Lab, from: &str, packet: &Packet) -> Result<Trace, TestCaseError> {
    of_packet(lab, &End::Host(from.into()), &small(packet)).map_err(|e| TestCaseError::fail(e.to_string()))
}

/// What a repair claims of a packet, asked of the stepper; and of each of its
/// examples.
fn holds(
    lab: &Lab,
    (from, to): (&str, &str),
    packet: &Packet,
    answer: &Repair,
) -> Result<usize, TestCaseError> {
    let arrives = |t: &Trace, at: &str| {
        t.ways.iter().any(|w| match &w.there.outcome {
            Outcome::Delivered { at: place, .. } => place.host == at,
            Outcome::ForwardedOut { at: place, .. } => place.to_string() == at,
            _ => false,
        })
    };
    let answered = |t: &Trace| t.ways.iter().any(|w| w.answered && w.back.is_some());
    // Whichever way chance has it, it passes.
    let passes = |t: &Trace| {
        let known = |j: &Journey| j.unknown.is_empty();
        let way = |w: &RoundTrip| w.answered && known(&w.there) && w.back.as_ref().is_some_and(known);
        !t.cut && t.ways.iter().all(way) && arrives(t, to)
    };
    let before = walked(lab, from, packet)?;
    if answer.holds() {
        prop_assert!(passes(&before), "{}", render::trace(&before, true));
    }
    for plan in &answer.plans {
        let after = walked(&plan.lab, from, packet)?;
        let shown = || format!("{}\n{}", render::repair(answer), render::trace(&after, true));
        prop_assert!(passes(&after), "{}", shown());
        let gained = plan.surplus.iter().map(|more| (more, &plan.lab, lab));
        let lost = plan.lost.iter().map(|less| (less, lab, &plan.lab));
        for (one, with, without) in gained.chain(lost) {
            // The stepper cannot be asked for a door, nor for what nobody knows.
            let Some(example) = one.packets.example.as_ref().filter(|_| lab.hosts.contains_key(&one.from))
            else {
                continue;
            };
            let (with, without) = (walked(with, &one.from, example)?, walked(without, &one.from, example)?);
            let shown =
                |t: &Trace| format!("{}\n{example}\n{}", render::repair(answer), render::trace(t, true));
            if one.answers {
                prop_assert!(answered(&with), "{}", shown(&with));
                prop_assert!(!answered(&without), "{}", shown(&without));
            } else if one.at != "not known" {
                prop_assert!(arrives(&with, &one.at), "{}", shown(&with));
                prop_assert!(!arrives(&without, &one.at), "{}", shown(&without));
            }
        }
    }
    Ok(answer.plans.len())
}

/// The first packet of a connection.
fn opening(lab: &Lab, from: &str, to: &str, service: Service) -> Option<Packet> {
    let dst = ends::address_from(lab.host(from)?, lab.host(to)?, None)?;
    let (sport, v4) = (PortValue::Is(40_000), dst.is_ipv4());
    let port = |p: PortRange| PortValue::Is(p.low);
    let transport = match (service.protocol, service.ports) {
        (6, Some(p)) => Transport::Tcp { sport, dport: port(p), flags: TcpFlags(TcpFlags::SYN) },
        (17, Some(p)) => Transport::Udp { sport, dport: port(p) },
        _ if v4 => Transport::Icmp { kind: 8, code: 0, id: PortValue::Is(1) },
        _ => Transport::Icmp6 { kind: 128, code: 0, id: PortValue::Is(1) },
    };
    let src = if v4 { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    let (ttl, length, payload) = (64, 60, Payload::Data);
    Some(Packet { src, dst, ttl, tos: 0, length, df: false, fragment: None, mark: 0, transport, payload })
}

#[test]
fn whatever_is_called_proved_the_stepper_agrees_to() {
    let cases = std::env::var("LAB_REPAIR_CASES").ok().and_then(|n| n.parse().ok()).unwrap_or(48);
    let mut runner = TestRunner::new(Config { cases, failure_persistence: None, ..Config::default() });
    let services = ["icmp", "tcp/22", "udp/53"].map(|s| s.parse::<Service>().unwrap());
    let asked = (lab(), prop::sample::select(services.to_vec()), any::<bool>());
    let counted = std::cell::Cell::new((0, 0, 0));
    runner
        .run(&asked, |(lab, service, forth)| {
            let names: Vec<&str> = lab.hosts.keys().map(String::as_str).collect();
            let [first, .., last] = names.as_slice() else { return Ok(()) };
            let (from, to) = if forth { (*first, *last) } else { (*last, *first) };
            let Some(packet) = opening(&lab, from, to, service) else { return Ok(()) };
            let headers =
                Headers { protocol: Some(service.protocol), dport: service.ports, ..Headers::default() };
            let flow = Flow { from: End::Host(from.into()), to: End::Host(to.into()), headers };
            let answer = repair(&lab, &Ask { pass: vec![flow], refuse: Vec::new() })
                .map_err(|e| TestCaseError::fail(e.to_string()))?;
            let found = holds(&lab, (from, to), &packet, &answer)?;
            let (plans, stuck, fine) = counted.get();
            let more = (
                plans + found,
                stuck + usize::from(answer.stuck.is_some()),
                fine + usize::from(answer.holds()),
            );
            counted.set(more);
            Ok(())
        })
        .unwrap_or_else(|e| match e {
            TestError::Fail(why, _) => panic!("{}", why.message()),
            other => panic!("{other}"),
        });
    let (plans, stuck, fine) = counted.get();
    eprintln!("{plans} repairs proved, {stuck} labs without one, {fine} in need of none");
    assert!(plans > 0);
}
