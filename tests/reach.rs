//! Every packet at once on the bundled lab: `lab reach`, `lab matrix`,
//! `lab check POLICY.toml` and what-if, against what was observed and against
//! the stepper, pair by pair.

#![allow(clippy::unwrap_used, clippy::panic)]

use lab_core::query::ends::{self, End};
use lab_core::query::matrix::{matrix, Answer, Service};
use lab_core::query::paths::odd;
use lab_core::query::policy::{check, Policy};
use lab_core::query::rules::{idle, Idle};
use lab_core::query::trace::{self, trace};
use lab_core::query::what_if::{what_if, HostChange};
use lab_core::{snapshot, Lab};
use lab_workspace::{ask, stage, Scratch};

const SERVICES: [&str; 3] = ["tcp/6443", "tcp/10250", "udp/8472"];

fn lab(name: &str) -> Lab {
    Lab::open(stage(name)).unwrap()
}

fn text(verb: &str, stage_name: &str, rest: &[&str]) -> String {
    let run = ask(verb, &stage(stage_name), rest);
    assert!(run.err.is_empty(), "{}", run.err);
    format!("exit {}\n{}", run.code, run.out)
}

#[test]
fn routes_alone_let_no_new_connection_through_and_the_refusing_rule_is_named() {
    insta::assert_snapshot!(text("reach", "02-routes-only", &["--from", "master", "--to", "controller"]));
}

#[test]
fn with_the_rules_the_exact_set_is_readable() {
    let answer = text("reach", "03-rules-inserted", &["--from", "master", "--to", "controller"]);
    assert!(answer.lines().count() <= 11, "{answer}");
    insta::assert_snapshot!(answer);
}

#[test]
fn the_readme_shows_what_is_printed() {
    let readme = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/README.md")).unwrap();
    let arguments = ["--from", "master", "--to", "controller", "-4"];
    let run = ask("reach", &stage("03-rules-inserted"), &arguments);
    assert!(readme.contains(&run.out), "{}", run.out);
}

#[test]
fn from_the_internet_only_the_router_answers_to_a_ping() {
    insta::assert_snapshot!(text("reach", "05-kubernetes", &["--from", "internet", "-4"]));
}

#[test]
fn the_matrix_of_the_kubernetes_stage() {
    let arguments: Vec<&str> = SERVICES.iter().flat_map(|s| ["--service", s]).collect();
    insta::assert_snapshot!(text("matrix", "05-kubernetes", &arguments));
}

/// Each observed probe of a service, and of the internet, is what matrix and
/// reach say.
#[test]
fn matrix_and_reach_say_what_was_observed() {
    let path = stage("05-kubernetes");
    let lab = Lab::open(&path).unwrap();
    let services: Vec<Service> = SERVICES.iter().map(|s| s.parse().unwrap()).chain([Service::PING]).collect();
    let matrix = matrix(&lab, &services, None).unwrap();
    let mut compared = 0;
    for probe in snapshot::read_observed(&path).unwrap() {
        let Some(to) = &probe.to_host else { continue };
        let service = match (probe.proto.as_str(), probe.dport) {
            ("icmp", _) => Service::PING,
            (proto, Some(port)) => match format!("{proto}/{port}").parse::<Service>() {
                Ok(service) if services.contains(&service) => service,
                _ => continue,
            },
            _ => continue,
        };
        let Some(cell) = matrix.cell(service, &probe.from, to) else { continue };
        if cell.address.map(|a| a.to_string()).as_deref() != Some(probe.to.to_string().as_str()) {
            continue;
        }
        let replied = format!("{:?}", probe.outcome).to_lowercase().contains("reply");
        assert_eq!(cell.answer, if replied { Answer::Yes } else { Answer::No }, "probe {}", probe.id);
        compared += 1;
    }
    assert!(compared >= 60, "{compared}");
}

/// The matrix agrees with a trace for every pair of every stage.
#[test]
fn every_cell_is_what_a_trace_says() {
    for name in ["01-before-routes", "03-rules-inserted", "05-kubernetes", "x2-secgroup-opened"] {
        let lab = lab(name);
        let services: Vec<Service> = ["tcp/22", "icmp"].iter().map(|s| s.parse().unwrap()).collect();
        let matrix = matrix(&lab, &services, None).unwrap();
        for cell in &matrix.cells {
            let Some(address) = cell.address else { continue };
            let question = trace::Question {
                protocol: cell.service.protocol,
                dport: cell.service.ports.map(|p| p.low),
                ..trace::Question::default()
            };
            let from = ends::parse(&lab, &cell.from).unwrap();
            let traced = trace(&lab, &from, &End::Address(address), &question).unwrap();
            let certain_no = traced.certain && traced.ways.iter().all(|w| w.back.is_none() || !w.answered);
            let expected = match (traced.holds(), certain_no) {
                (true, _) => Answer::Yes,
                (_, true) => Answer::No,
                _ => Answer::Possible,
            };
            assert_eq!(cell.answer, expected, "{name}: {} to {} by {}", cell.from, cell.to, cell.service);
        }
    }
}

#[test]
fn a_policy_names_what_fails_with_a_packet_and_its_trace() {
    let path = stage("02-routes-only");
    let scratch = Scratch::pair();
    let file = scratch.path().join("policy.toml");
    std::fs::write(
        &file,
        "[[must]]\nname = \"ssh to the controller\"\nfrom = \"master\"\nto = \"controller\"\n\
         services = \"tcp/22\"\n\n[[must_not]]\nfrom = \"internet\"\nto = [\"master\", \"controller\"]\n\n\
         [[only]]\nfrom = [\"kubernetes-host\"]\nto = \"openstack-host\"\nservices = \"udp/53\"\n",
    )
    .unwrap();
    let file = file.to_str().unwrap();
    insta::assert_snapshot!(text("check", "02-routes-only", &[file]));
    let opened = "openstack-host: iptables -I LIBVIRT_FWI 1 -s 10.10.10.2 -d 192.168.100.0/24 -j ACCEPT";
    let back = "openstack-host: iptables -I LIBVIRT_FWO 1 -s 192.168.100.0/24 -d 10.10.10.2 -j ACCEPT";
    let out = ask("check", &path, &[file, "--what-if", opened, "--what-if", back]).out;
    assert!(out.starts_with("holds     master must reach controller by tcp/22"), "{out}");
}

#[test]
fn a_policy_may_ask_for_ranges_of_ports_and_for_what_plans_must_keep() {
    let lab = lab("05-kubernetes");
    let policy = "[[keep]]\nfrom = \"controller\"\nto = [\"compute\"]\nservices = [\"tcp/22-23\", \"udp\", \"icmp\"]\n";
    let checked = check(&lab, &Policy::parse(policy).unwrap()).unwrap();
    assert!(checked.holds(), "{checked:?}");
    let services: Vec<String> =
        checked.demands.iter().map(|d| d.service.map(|s| s.to_string()).unwrap_or_default()).collect();
    assert_eq!(services, ["tcp/22-23", "udp", "icmp"]);
}

#[test]
fn bad_policies_and_changes_are_refused_with_their_place() {
    let path = stage("02-routes-only");
    let scratch = Scratch::pair();
    let file = scratch.path().join("policy.toml");
    for (policy, said) in [
        ("[[must]]\nfrom = \"master\"\n", "missing field `to`"),
        ("[[mast]]\n", "unknown field `mast`"),
        ("[[must]]\nfrom = \"mastr\"\nto = \"controller\"\n", "did you mean master"),
        (
            "[[must]]\nfrom = \"master\"\nto = \"controller\"\nservices = \"tcp/90-80\"\n",
            "`tcp/90-80` is no service",
        ),
    ] {
        std::fs::write(&file, policy).unwrap();
        let run = ask("check", &path, &[file.to_str().unwrap()]);
        assert_eq!(run.code, 2, "{policy}");
        assert!(run.err.contains(said), "{}", run.err);
    }
    for (change, said) in [
        ("master", "write HOST: COMMAND"),
        ("nobody: ip link set eth0 down", "no host named `nobody`"),
        ("master: iptables -I NOWHERE 1 -j ACCEPT", "has no chain NOWHERE"),
        ("openstack-host: iptables -D FORWARD 999", "has no rule 999"),
        ("master: ip route add 10.0.0.0/33 via 1.2.3.4", "is no prefix"),
        ("master: ip route del 203.0.113.0/24", "has no route"),
        ("master: rm -rf /", "only iptables, ip6tables, ip and sysctl"),
    ] {
        let run = ask("reach", &path, &["--what-if", change]);
        assert_eq!(run.code, 2, "{change}");
        assert!(run.err.contains(said), "{}", run.err);
    }
}

#[test]
fn a_lab_with_a_change_shares_the_other_hosts() {
    let lab = lab("02-routes-only");
    let change: HostChange = "openstack-host: sysctl -w net.ipv4.ip_forward=0".parse().unwrap();
    let changed = what_if(&lab, &[change]).unwrap();
    for (name, host) in &lab.hosts {
        let shared = std::sync::Arc::ptr_eq(host, &changed.hosts[name]);
        assert_eq!(shared, name != "openstack-host", "{name}");
    }
    let services = [Service::PING];
    let before = matrix(&lab, &services, None).unwrap();
    let after = matrix(&changed, &services, None).unwrap();
    let cell = |m: &lab_core::query::matrix::Matrix| {
        m.cell(Service::PING, "controller", "kubernetes-host").unwrap().answer
    };
    assert_eq!((cell(&before), cell(&after)), (Answer::Yes, Answer::No));
}

#[test]
fn rules_that_a_reject_stands_before_are_found_shadowed() {
    let found = idle(&lab("x1-saved-rules-shadowed")).unwrap();
    let shadowed: Vec<String> = found
        .iter()
        .filter(|r| r.why == Idle::Shadowed && r.host == "openstack-host" && r.chain == "LIBVIRT_FWI")
        .map(|r| format!("{} by {:?}: {}", r.rule, r.shadowed_by, r.text))
        .collect();
    insta::assert_snapshot!(shadowed.join("\n"));
}

#[test]
fn the_bundled_lab_has_no_loop_and_its_black_holes_are_named() {
    let odd = odd(&lab("05-kubernetes")).unwrap();
    assert!(odd.loops.is_empty());
    let holes: Vec<String> =
        odd.black_holes.iter().map(|h| format!("{} -> {}: {}", h.from, h.host, h.stage)).collect();
    insta::assert_snapshot!(holes.join("\n"));
}
