//! `lab trace` on the bundled lab: what people read, what programs read.

#![allow(clippy::unwrap_used, clippy::panic)]

use lab_workspace::{ask, stage, Run, Scratch};

fn trace(stage_name: &str, rest: &[&str]) -> Run {
    ask("trace", &stage(stage_name), rest)
}

/// Master's ping to controller, the question that the lab is about.
const PING: [&str; 2] = ["master", "192.168.100.101"];

#[test]
fn ping_is_rejected_while_only_routes_are_there() {
    let run = trace("02-routes-only", &PING);
    insta::assert_snapshot!("routes_only", run.out);
    let has = |text: &str| assert!(run.out.contains(text), "{text}");
    has("kubernetes-host: POSTROUTING: source 172.20.112.101 becomes 10.10.10.2");
    has("-j MASQUERADE` (hosts/kubernetes-host/iptables.save:");
    has("openstack-host: rejected in ip filter, LIBVIRT_FWI, rule 2 \
         `-A LIBVIRT_FWI -o virbr10 -j REJECT --reject-with icmp-port-unreachable`");
    has("ICMP 3/3 (port unreachable) from 10.10.10.1");
    assert_eq!((run.code, run.err.as_str()), (1, ""));
}

#[test]
fn ping_arrives_once_the_rules_are_inserted() {
    let run = trace("03-rules-inserted", &PING);
    insta::assert_snapshot!("rules_inserted", run.out);
    assert!(run.out.contains("controller: delivered, from 10.10.10.2 with TTL 62"));
    assert!(run.out.contains("master: received, from 192.168.100.101 with TTL 62"));
    assert_eq!((run.code, run.err.as_str()), (0, ""));
}

#[test]
fn the_rule_that_rejects_stands_in_the_line_that_is_named() {
    let run = trace("02-routes-only", &PING);
    let (_, rest) = run.out.split_once("(hosts/openstack-host/iptables.save:").unwrap();
    let line: usize = rest.split_once(')').unwrap().0.parse().unwrap();
    let saved = std::fs::read_to_string(stage("02-routes-only/hosts/openstack-host/iptables.save")).unwrap();
    let named = saved.lines().nth(line - 1).unwrap();
    assert!(
        named.ends_with("-A LIBVIRT_FWI -o virbr10 -j REJECT --reject-with icmp-port-unreachable"),
        "{named}"
    );
}

#[test]
fn full_shows_every_chain_rule_and_route() {
    let mut arguments = PING.to_vec();
    arguments.push("--full");
    let run = trace("02-routes-only", &arguments);
    insta::assert_snapshot!("routes_only_full", run.out);
    assert_eq!(run.code, 1);
}

#[test]
fn json_says_its_schema_and_what_the_text_says() {
    let run = trace("02-routes-only", &["--json", PING[0], PING[1]]);
    let value: serde_json::Value = serde_json::from_str(&run.out).unwrap();
    assert_eq!(value["schema"], "lab.trace/1");
    assert_eq!((&value["from"], &value["to_host"]), (&"master".into(), &"controller".into()));
    assert_eq!(value["certain"], true);
    assert_eq!(value["ways"].as_array().unwrap().len(), 1);
    assert_eq!(run.code, 1);
    let back: lab_core::query::trace::Trace = serde_json::from_str(&run.out).unwrap();
    assert_eq!(serde_json::to_value(&back).unwrap(), value);
}

#[test]
fn hosts_interfaces_and_addresses_name_the_same_ends() {
    let by_address = trace("03-rules-inserted", &PING);
    for (from, to) in [
        ("master", "controller"),
        ("master:enp1s0", "controller:br-ex"),
        ("172.20.112.101", "192.168.100.101"),
        ("172.20.112.101", "controller"),
    ] {
        assert_eq!(trace("03-rules-inserted", &[from, to]), by_address, "{from} {to}");
    }
}

#[test]
fn a_wrong_name_gets_the_nearest_right_ones() {
    for (ends, expected) in [
        (["mastr", "controller"], "lab: no host named `mastr`; did you mean master?\n"),
        (
            ["master", "k8s-worker"],
            "lab: no host named `k8s-worker`; did you mean k8s-worker-1 or k8s-worker-2 or",
        ),
        (["mastr:enp1s0", "controller"], "lab: no host named `mastr`; did you mean master?\n"),
        (["master:enp1s1", "controller"], "lab: no interface named `enp1s1`; did you mean enp1s0?\n"),
    ] {
        let run = trace("02-routes-only", &ends);
        assert!(run.err.starts_with(expected), "{}", run.err);
        assert_eq!((run.code, run.out.as_str()), (2, ""));
    }
}

#[test]
fn ends_that_cannot_serve_are_refused() {
    for (rest, expected) in [
        (&["master:lo", "controller"][..], "lab: master:lo has no address to send from\n"),
        (
            &["198.51.100.9", "master"],
            "lab: no host of the lab has the address 198.51.100.9, and no interface leads out of the lab\n",
        ),
        (
            &["master", "controller", "--proto", "udp"],
            "lab: this protocol needs a destination port (--dport)\n",
        ),
        (&["master", "controller", "--proto", "tpc"], "lab: unknown protocol `tpc`\n"),
        (&["172.20.112.101", "fe80::1"], "lab: the two ends are of different families\n"),
    ] {
        let run = trace("02-routes-only", rest);
        assert_eq!((run.code, run.out.as_str(), run.err.as_str()), (2, "", expected), "{rest:?}");
    }
}

#[test]
fn a_service_address_leads_to_the_api_server() {
    let run = trace("05-kubernetes", &["k8s-worker-1", "10.96.0.1", "--dport", "443"]);
    let rewritten = "k8s-worker-1: OUTPUT: destination 10.96.0.1 becomes 172.20.112.101, \
                     destination port 443 becomes 6443 by ip nat, KUBE-SEP-";
    assert!(run.out.contains(rewritten), "{}", run.out);
    assert!(run.out.contains("openstack-host: POSTROUTING: source 192.168.100.44 becomes 10.10.10.1"));
    assert!(run.out.contains("master: delivered, from 10.10.10.1 with TTL 62"));
    assert!(run.out.contains("k8s-worker-1: received, from 10.96.0.1 with TTL 62"));
    assert!(run.out.ends_with("\ncertain\n"));
    assert_eq!(run.code, 0);
}

#[test]
fn chance_between_two_pods_is_possible_and_not_certain() {
    let run = trace("05-kubernetes", &["master", "10.96.0.10", "--proto", "udp", "--dport", "53"]);
    assert!(run.out.contains("\npossibility 1 of 2\n"), "{}", run.out);
    assert!(run.out.contains("possible, not certain; it depends on:"));
    assert_eq!(run.code, 1);
}

#[test]
fn an_address_of_nobody_ends_where_the_neighbour_does_not_answer() {
    let run = trace("03-rules-inserted", &["master", "192.168.100.250"]);
    assert!(run.out.contains("answer: ICMP 3/1 (host unreachable) from 10.10.10.1"), "{}", run.out);
    assert_eq!(run.code, 1);
}

#[test]
fn two_hosts_without_rules_reach_each_other() {
    let pair = Scratch::pair();
    let run = pair.ask("trace", &["a", "b"]);
    insta::assert_snapshot!("pair", run.out);
    assert_eq!(run.code, 0);
}

#[test]
fn a_mistyped_command_is_a_usage_error() {
    for arguments in [&["trase"][..], &["trace"], &["check"], &["trace", ".", "a", "b", "--mark", "0xzz"]] {
        let run = lab_workspace::lab(arguments);
        assert_eq!((run.code, run.out.as_str()), (2, ""), "{arguments:?}");
        assert!(run.err.starts_with("error: "), "{}", run.err);
    }
    let help = lab_workspace::lab(&["--help"]);
    assert_eq!((help.code, help.err.as_str()), (0, ""));
}

/// What the README shows is what the command prints.
#[test]
fn the_readme_shows_a_true_trace() {
    let readme = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/README.md")).unwrap();
    let run = trace("02-routes-only", &PING);
    assert!(readme.contains(run.out.trim_end()), "{}", run.out);
}
