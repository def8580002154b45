//! What rules that ask routing themselves see in a VRF.

use super::build::{udp, Build};
use super::vrf;
use crate::engine::explore::all;
use crate::engine::journey::Journey;
use crate::formats::nft_text;
use crate::model::{Decision, Outcome};

/// A VRF's router with a rule.
fn ruled(condition: &str) -> Build {
    let mut lab: Build = vrf::line(&["eth0", "eth1"]);
    if condition.contains("fib") {
        let text = format!(
            "table inet t {{\n chain p {{\n  type filter hook prerouting priority 0; policy accept;\n  \
             {condition} drop\n }}\n}}\n"
        );
        lab.get("router").ruleset.tables.extend(nft_text::parse("nft.txt", &text).unwrap());
    } else {
        for family in ["", "# ip6tables\n"] {
            let rule = format!("-A PREROUTING {condition} -j DROP");
            lab.rules("router", &format!("{family}*raw\n:PREROUTING ACCEPT [0:0]\n{rule}"));
        }
    }
    lab
}

/// What becomes of a packet that comes by `eth0`.
fn asked(condition: &str, src: &str, dst: &str) -> Journey {
    ruled(condition).send(&[("router:eth0", udp((src, 1), (dst, 53)))])
}

fn held(journey: &Journey) -> bool {
    matches!(&journey.outcome, Outcome::Dropped { by: Decision::Rule(_) })
}

/// From the client, from the net of another port, and from nowhere known.
const SOURCES: [[&str; 3]; 2] = [["10.0.1.2", "10.0.2.9", "10.0.9.1"], ["fd01::2", "fd02::9", "fd09::1"]];

#[test]
fn a_reverse_path_test_asks_the_vrf_whose_device_stands_for_every_port() {
    for (condition, holds) in [
        ("-i eth0 -m rpfilter", [true, false, false]),
        ("-i red -m rpfilter", [true, true, false]),
        ("-i eth0 -m rpfilter --loose", [true, true, false]),
        ("-i red -m rpfilter --loose", [true, true, false]),
        ("iifname eth0 fib saddr . iif oif 0", [false, true, true]),
        ("iifname red fib saddr . iif oif 0", [false, false, true]),
        ("iifname eth0 fib saddr . iif oifname eth0", [true, false, false]),
        ("iifname red fib saddr . iif oifname red", [true, true, false]),
        ("iifname eth0 fib saddr oifname eth1", [false, true, false]),
        ("iifname red fib saddr oifname eth0", [true, false, false]),
    ] {
        for (sources, dst) in SOURCES.iter().zip(["10.0.2.2", "fd02::2"]) {
            let found = sources.map(|src| held(&asked(condition, src, dst)));
            assert_eq!(found, holds, "{condition}, to {dst}");
        }
    }
}

#[test]
fn an_address_in_a_vrf_is_local_to_the_port_that_has_it_alone() {
    for (condition, holds) in [
        ("-i eth0 -m addrtype --dst-type LOCAL --limit-iface-in", true),
        ("-i red -m addrtype --dst-type LOCAL --limit-iface-in", false),
        ("-i red -m addrtype --dst-type LOCAL", false),
        ("-i red -m addrtype --dst-type UNICAST", true),
        ("iifname eth0 fib daddr . iif type local", true),
        ("iifname red fib daddr . iif type local", false),
        ("iifname red fib daddr . iif type unicast", true),
    ] {
        for (src, dst) in [("10.0.1.2", "10.0.1.1"), ("fd01::2", "fd01::1")] {
            assert_eq!(held(&asked(condition, src, dst)), holds, "{condition}, {dst}");
        }
    }
}

#[test]
fn what_an_address_is_that_no_device_is_asked_about_kernels_tell_differently_in_a_vrf() {
    let lab = ruled("fib daddr type local");
    let packet = || udp(("10.0.1.2", 1), ("10.0.1.1", 53));
    let ways = all(8, |choices| lab.run(choices, &[("router:eth0", packet())]));
    assert!(ways.results.len() > 1);
    assert!(ways.reasons[0].contains("asks the VRF"), "{:?}", ways.reasons);
}
