//! What changes of rules do to packets, as told.

use crate::addr::Family;
use crate::engine::stepper::tests::build::Build;
use crate::formats::iptables;
use crate::model::{Host, Ruleset};
use crate::query::diff::edits::edits;
use crate::query::diff::effects::{effects, Effect};
use crate::query::diff::flows::{flows, Fate};
use crate::query::diff::packets::{self, packets, ChainPackets, Rules};
use crate::query::flows::Headers;
use crate::render;

fn read(table: &str, heads: &str, rules: &str) -> Ruleset {
    let text = format!("*{table}\n{heads}{rules}COMMIT\n");
    Ruleset { tables: iptables::parse("iptables.save", text, Family::Ipv4).unwrap() }
}

fn filter(rules: &str) -> Ruleset {
    read("filter", ":INPUT DROP [0:0]\n:FORWARD DROP [0:0]\n:OUTPUT ACCEPT [0:0]\n:WEB - [0:0]\n", rules)
}

fn diff(old: &Ruleset, new: &Ruleset) -> Vec<ChainPackets> {
    let host = Host::default();
    packets(Rules { host: &host, ruleset: old }, Rules { host: &host, ruleset: new }).unwrap()
}

fn shown(old: &Ruleset, new: &Ruleset) -> String {
    render::diff::packets(&diff(old, new))
}

#[test]
fn rules_that_change_places_without_effect_are_proved_alike() {
    let old = filter(
        "-A INPUT -s 10.0.0.0/8 -p tcp -m tcp --dport 22 -j ACCEPT\n\
         -A INPUT -p udp -m udp --dport 53 -j DROP\n\
         -A INPUT -s 192.0.2.0/24 -j ACCEPT\n",
    );
    let new = filter(
        "-A INPUT -p udp -m udp --dport 53 -j DROP\n\
         -A INPUT -s 192.0.2.128/25 -j ACCEPT\n\
         -A INPUT -s 192.0.2.0/25 -j ACCEPT\n\
         -A INPUT -s 10.0.0.0/8 -p tcp -m tcp --dport 22 -j ACCEPT\n",
    );
    insta::assert_snapshot!(shown(&old, &new), @"no packet is treated differently: proved for all packets that any chain may meet");
}

#[test]
fn an_exception_that_comes_too_late_is_told_with_the_rule_before_it() {
    let old = filter("-A INPUT -s 10.0.0.0/8 -j ACCEPT\n-A INPUT -s 10.1.0.0/16 -j DROP\n");
    let new = filter("-A INPUT -s 10.1.0.0/16 -j DROP\n-A INPUT -s 10.0.0.0/8 -j ACCEPT\n");
    insta::assert_snapshot!(shown(&old, &new));
}

#[test]
fn packets_are_told_by_interface_state_and_mark() {
    let old = filter("-A FORWARD -i eth0 -j WEB\n-A WEB -p tcp -m tcp --dport 80 -j ACCEPT\n");
    let new = filter(
        "-A FORWARD -i eth0 ! -o eth1 -m conntrack --ctstate ESTABLISHED,RELATED -j ACCEPT\n\
         -A FORWARD -i eth0 -j WEB\n\
         -A WEB -p tcp -m tcp --dport 80 -m mark --mark 0x1/0x3 -j ACCEPT\n",
    );
    insta::assert_snapshot!(shown(&old, &new));
}

#[test]
fn what_is_rewritten_otherwise_is_told() {
    let heads = ":PREROUTING ACCEPT [0:0]\n:POSTROUTING ACCEPT [0:0]\n";
    let old =
        read("nat", heads, "-A PREROUTING -p tcp -m tcp --dport 80 -j DNAT --to-destination 10.0.0.1\n");
    let new =
        read("nat", heads, "-A PREROUTING -p tcp -m tcp --dport 80 -j DNAT --to-destination 10.0.0.2:8080\n");
    insta::assert_snapshot!(shown(&old, &new));
}

#[test]
fn what_hangs_on_an_unmodelled_match_is_possible() {
    let old = filter("-A INPUT -m bpf --bytecode \"1,6 0 0 1\" -j ACCEPT\n");
    let new = filter("-A INPUT -p tcp -m bpf --bytecode \"1,6 0 0 1\" -j ACCEPT\n");
    let found = diff(&old, &new);
    let all: Vec<_> = found.iter().flat_map(|c| &c.treated).collect();
    assert!(!all.is_empty() && all.iter().all(|t| !t.certain), "{all:?}");
    assert!(!found[0].depends.is_empty());
    // The same rule knows the same in both versions.
    let moved = filter("-A INPUT -p udp -j DROP\n-A INPUT -m bpf --bytecode \"1,6 0 0 1\" -j ACCEPT\n");
    let found = diff(&old, &moved);
    let all: Vec<_> = found.iter().flat_map(|c| &c.treated).collect();
    assert!(
        all.iter().all(|t| t.packets.iter().all(|p| p.lines.iter().all(|l| l.starts_with("udp")))),
        "{all:?}"
    );
}

#[test]
fn a_policy_and_a_table_that_is_gone_are_told() {
    let old = filter("");
    let dropped = read("filter", ":INPUT ACCEPT [0:0]\n:FORWARD DROP [0:0]\n:OUTPUT ACCEPT [0:0]\n", "");
    let found = diff(&old, &dropped);
    assert_eq!((found.len(), found[0].treated.len()), (1, 1));
    assert_eq!(found[0].treated[0].effect, packets::Effect::Admitted);
    let gone = diff(&old, &Ruleset::default());
    assert_eq!(gone.len(), 2, "INPUT and FORWARD dropped");
    assert!(gone.iter().all(|c| c.treated[0].new.by.is_none()));
}

#[test]
fn what_comes_by_one_interface_is_not_made_up_for_by_another() {
    // Both interfaces lead out of the lab.
    let router = |rules: &str| {
        let mut build = Build::default();
        build.host("router", true).nic("router", "eth0", &["10.0.0.1/24"]);
        build.nic("router", "eth1", &["10.0.1.1/24"]);
        build.get("router").ruleset = filter(rules);
        build.lab
    };
    let old = router("-A FORWARD -i eth0 -j DROP\n-A FORWARD -j ACCEPT\n");
    let new = router("-A FORWARD -i eth1 -j DROP\n-A FORWARD -j ACCEPT\n");
    let diff = flows(&old, &new, &Headers::default()).unwrap();
    let senders: Vec<&str> = diff.changes.iter().map(|c| c.from.as_str()).collect();
    assert!(senders.contains(&"@outside by router:eth0"), "{senders:?}");
    assert!(senders.contains(&"@outside by router:eth1"), "{senders:?}");
}

/// A host whose route to a prefix goes by one of two devices.
fn two_ways(device: &str) -> Build {
    let mut build = Build::default();
    build.host("client", false).nic("client", "eth0", &["10.0.0.1/24"]);
    build.nic("client", "eth1", &["10.0.1.1/24"]).route("client", &format!("10.9.0.0/16 dev {device}"));
    build
}

#[test]
fn who_sends_as_somebody_else_is_told() {
    let diff = flows(&two_ways("eth0").lab, &two_ways("eth1").lab, &Headers::default()).unwrap();
    let not_sent = |fate: &Fate| *fate == Fate::NotSent;
    assert!(diff.changes.iter().any(|c| c.from == "client" && not_sent(&c.new)), "{:?}", diff.changes);
    assert!(diff.changes.iter().any(|c| c.from == "client" && not_sent(&c.old)), "{:?}", diff.changes);
    let mut gone = two_ways("eth0").lab;
    gone.hosts.clear();
    let diff = flows(&two_ways("eth0").lab, &gone, &Headers::default()).unwrap();
    assert!(!diff.is_empty(), "a host that is gone sends no more");
}

#[test]
fn a_rule_that_jumps_is_not_taken_for_shadowed() {
    let lab = |rules: &str| {
        let mut build = two_ways("eth0");
        build.get("client").ruleset = filter(rules);
        build.lab
    };
    let effect_of = |old: &str, new: &str| {
        let (old, new) = (lab(old), lab(new));
        effects(&old, &new, &edits(&old, &new).unwrap()).unwrap().rules.remove(0).effect
    };
    let web = "-A WEB -d 10.9.0.0/16 -j DROP\n";
    assert!(matches!(effect_of(web, &format!("-A OUTPUT -j WEB\n{web}")), Effect::Flows(_)));
    let back = "-A WEB -d 10.9.0.0/16 -j RETURN\n";
    assert!(matches!(effect_of(back, &format!("-A OUTPUT -j WEB\n{back}")), Effect::Redundant(_)));
    let twice = "-A OUTPUT -p udp -j DROP\n-A OUTPUT -p udp -m udp --dport 53 -j ACCEPT\n";
    assert!(matches!(effect_of("-A OUTPUT -p udp -j DROP\n", twice), Effect::Shadowed(_)));
}
