//! Repairs of small labs, as people read them. Each is asked of the stepper, too.

#![allow(clippy::unwrap_used, clippy::panic)]

use super::*;
use crate::engine::stepper::tests::build::Build;
use crate::model::Outcome;
use crate::query::flows::Headers;
use crate::query::trace::{of_packet, trace, Question, RoundTrip, Trace};
use crate::render;

fn headers(proto: &str, dport: Option<u16>) -> Headers {
    let protocol = Question::protocol(Some(proto), dport).unwrap();
    Headers { protocol: Some(protocol), dport: dport.map(Into::into), ..Headers::default() }
}

fn flow(lab: &Lab, from: &str, to: &str, headers: Headers) -> Flow {
    Flow { from: ends::parse(lab, from).unwrap(), to: ends::parse(lab, to).unwrap(), headers }
}

/// Whether a packet, sent once more, certainly arrives and is answered.
fn passes(lab: &Lab, from: &str, packet: &crate::model::Packet) -> bool {
    of_packet(lab, &ends::parse(lab, from).unwrap(), packet).unwrap().holds()
}

fn asked(lab: &Lab, flow: &Flow) -> Trace {
    let Headers { protocol, sport, dport, family, .. } = flow.headers;
    let low = |ports: crate::addr::PortRange| ports.low;
    let question = Question {
        protocol: protocol.unwrap_or(1),
        sport: sport.map(low),
        dport: dport.map(low),
        mark: 0,
        family,
    };
    trace(lab, &flow.from, &flow.to, &question).unwrap()
}

/// Whether it certainly comes to a host, or to whoever has an address, and is
/// answered.
fn arrives(trace: &Trace, to: &str) -> bool {
    let at = |way: &RoundTrip| match &way.there.outcome {
        Outcome::Delivered { at, .. } => to.parse::<std::net::IpAddr>().is_ok() || at.host == to,
        _ => false,
    };
    trace.holds() && trace.ways.iter().all(at)
}

/// The repair of flows that should pass, which the stepper agrees to: they do
/// not pass before and do after, and so does what is said to be let through
/// besides.
fn told(lab: &Lab, from: &str, to: &str, headers: Headers) -> String {
    let flow = flow(lab, from, to, headers);
    let answer = repair(lab, &Ask { pass: vec![flow.clone()], refuse: Vec::new() }).unwrap();
    assert!(!arrives(&asked(lab, &flow), to));
    for plan in &answer.plans {
        let after = asked(&plan.lab, &flow);
        assert!(arrives(&after, to), "{}", render::trace(&after, false));
        for more in &plan.surplus {
            let example = more.packets.example.as_ref().unwrap();
            assert!(!passes(lab, &more.from, example), "{example}");
            if more.answers {
                assert!(passes(&plan.lab, &more.from, example), "{example}");
            }
        }
    }
    render::repair(&answer)
}

fn refused(lab: &Lab, from: &str, to: &str, headers: Headers) -> String {
    let flow = flow(lab, from, to, headers);
    let answer = repair(lab, &Ask { pass: Vec::new(), refuse: vec![flow.clone()] }).unwrap();
    assert!(asked(lab, &flow).holds());
    for plan in &answer.plans {
        assert!(asked(&plan.lab, &flow).ways.iter().all(|w| w.back.is_none()));
    }
    render::repair(&answer)
}

fn ping() -> Headers {
    headers("icmp", None)
}

fn ssh() -> Headers {
    headers("tcp", Some(22))
}

#[test]
fn what_passes_needs_no_repair() {
    let lab = Build::line().lab;
    let answer = repair(&lab, &Ask { pass: vec![flow(&lab, "client", "server", ssh())], refuse: Vec::new() });
    let answer = answer.unwrap();
    assert!(answer.holds() && answer.plans.is_empty());
    insta::assert_snapshot!(render::repair(&answer), @"tcp dport 22 from client to server (10.0.2.2): pass already, and their answers come back: nothing to repair");
}

#[test]
fn a_policy_that_drops_wants_a_rule_each_way() {
    let mut lab = Build::line();
    lab.rules("router", "*filter\n:INPUT ACCEPT [0:0]\n:FORWARD DROP [0:0]\n:OUTPUT ACCEPT [0:0]");
    insta::assert_snapshot!(told(&lab.lab, "client", "server", ssh()));
}

#[test]
fn a_stateful_firewall_wants_a_rule_one_way() {
    let mut lab = Build::line();
    lab.rules(
        "router",
        "*filter\n:INPUT ACCEPT [0:0]\n:FORWARD DROP [0:0]\n:OUTPUT ACCEPT [0:0]\n\
         -A FORWARD -m conntrack --ctstate ESTABLISHED,RELATED -j ACCEPT\n\
         -A FORWARD -d 10.0.2.2/32 -p tcp -m tcp --dport 443 -j ACCEPT",
    );
    insta::assert_snapshot!(told(&lab.lab, "client", "server", ssh()));
}

#[test]
fn a_chain_of_nft_gets_a_rule_of_nft() {
    let mut lab = Build::line();
    lab.nft(
        "router",
        "table inet fw {\n chain forward {\n  type filter hook forward priority 0; policy drop;\n  \
         ct state established,related accept\n  tcp dport 443 accept\n  counter reject\n }\n}\n",
    );
    insta::assert_snapshot!(told(&lab.lab, "client", "server", ssh()));
}

/// client 10.0.1.2 - edge - router - server 10.0.2.2; the router's way back to the
/// client is another link to the edge than the one the client's packets come by.
#[test]
fn strict_reverse_path_filtering_is_loosened_where_it_bites() {
    let mut lab = Build::default();
    lab.host("client", false).nic("client", "eth0", &["10.0.1.2/24"]);
    lab.host("edge", true).nic("edge", "eth0", &["10.0.1.1/24"]);
    lab.nic("edge", "eth1", &["10.0.4.1/24"]).nic("edge", "eth2", &["10.0.5.1/24"]);
    lab.host("router", true).nic("router", "eth0", &["10.0.4.2/24"]);
    lab.nic("router", "eth1", &["10.0.2.1/24"]).nic("router", "eth2", &["10.0.5.2/24"]);
    lab.host("server", false).nic("server", "eth0", &["10.0.2.2/24"]);
    lab.link(&[("client", "eth0"), ("edge", "eth0")]).link(&[("edge", "eth1"), ("router", "eth0")]);
    lab.link(&[("edge", "eth2"), ("router", "eth2")]).link(&[("router", "eth1"), ("server", "eth0")]);
    lab.route("client", "default via 10.0.1.1 dev eth0").route("server", "default via 10.0.2.1 dev eth0");
    lab.route("edge", "10.0.2.0/24 via 10.0.4.2 dev eth1");
    lab.route("router", "10.0.1.0/24 via 10.0.5.1 dev eth2");
    lab.sysctl("router", "net.ipv4.conf.eth0.rp_filter", 1);
    insta::assert_snapshot!(told(&lab.lab, "client", "server", ping()));
}

/// The router does not even answer who it is: the question's source is one that
/// it would reach by another link.
#[test]
fn strict_reverse_path_filtering_silences_a_neighbour() {
    let mut lab = Build::line();
    lab.nic("client", "eth1", &["10.0.3.2/24"]).nic("router", "eth2", &["10.0.3.1/24"]);
    lab.link(&[("client", "eth1"), ("router", "eth2")]);
    lab.sysctl("router", "net.ipv4.conf.eth0.rp_filter", 1);
    insta::assert_snapshot!(told(&lab.lab, "10.0.3.2", "server", ping()));
}

/// client 10.0.1.2 - router - server 10.0.2.2, where nobody but the router knows
/// the other's prefix.
fn no_routes(forwards: bool) -> Build {
    let mut lab = Build::default();
    lab.host("client", false).nic("client", "eth0", &["10.0.1.2/24"]);
    lab.host("router", forwards).nic("router", "eth0", &["10.0.1.1/24"]);
    lab.nic("router", "eth1", &["10.0.2.1/24"]);
    lab.host("server", false).nic("server", "eth0", &["10.0.2.2/24"]);
    lab.link(&[("client", "eth0"), ("router", "eth0")]);
    lab.link(&[("router", "eth1"), ("server", "eth0")]);
    lab
}

#[test]
fn routes_are_missing_both_ways() {
    insta::assert_snapshot!(told(&no_routes(true).lab, "client", "server", ping()));
}

#[test]
fn a_router_does_not_forward_and_the_way_back_is_unknown() {
    let mut lab = no_routes(false);
    lab.route("client", "10.0.2.0/24 via 10.0.1.1 dev eth0");
    insta::assert_snapshot!(told(&lab.lab, "client", "server", ping()));
}

#[test]
fn two_rules_in_one_path_are_both_found() {
    let mut lab = Build::line();
    lab.rules(
        "router",
        "*filter\n:INPUT ACCEPT [0:0]\n:FORWARD ACCEPT [0:0]\n:OUTPUT ACCEPT [0:0]\n\
         -A FORWARD -p tcp -j REJECT --reject-with icmp-port-unreachable",
    );
    lab.rules(
        "server",
        "*raw\n:PREROUTING ACCEPT [0:0]\n:OUTPUT ACCEPT [0:0]\n-A PREROUTING -s 10.0.1.0/24 -j DROP",
    );
    insta::assert_snapshot!(told(&lab.lab, "client", "server", ssh()));
}

#[test]
fn only_the_answer_is_stopped() {
    let mut lab = Build::line();
    lab.rules(
        "router",
        "*filter\n:INPUT ACCEPT [0:0]\n:FORWARD ACCEPT [0:0]\n:OUTPUT ACCEPT [0:0]\n\
         -A FORWARD -i eth1 -o eth0 -j DROP",
    );
    insta::assert_snapshot!(told(&lab.lab, "client", "server", ssh()));
}

#[test]
fn nat_that_turns_packets_elsewhere_is_kept_from_them() {
    let mut lab = Build::line();
    lab.rules(
        "router",
        "*nat\n:PREROUTING ACCEPT [0:0]\n:INPUT ACCEPT [0:0]\n:OUTPUT ACCEPT [0:0]\n\
         :POSTROUTING ACCEPT [0:0]\n-A PREROUTING -p tcp -m tcp --dport 22 -j REDIRECT --to-ports 2222",
    );
    insta::assert_snapshot!(told(&lab.lab, "client", "server", ssh()));
}

#[test]
fn an_interface_is_down() {
    let mut lab = Build::line();
    lab.change("server", "eth0", |i| i.up = false);
    insta::assert_snapshot!(told(&lab.lab, "client", "10.0.2.2", ping()));
}

#[test]
fn a_gateway_that_nobody_is_gets_passed_by() {
    let mut lab = no_routes(true);
    lab.route("client", "default via 10.0.1.9 dev eth0").route("server", "default via 10.0.2.1 dev eth0");
    insta::assert_snapshot!(told(&lab.lab, "client", "server", ping()));
}

#[test]
fn hosts_that_no_link_joins_cannot_be_repaired() {
    let mut lab = Build::line();
    lab.host("island", false).nic("island", "eth0", &["10.0.9.2/24"]);
    lab.host("boat", false).nic("boat", "eth0", &["10.0.9.3/24"]);
    lab.link(&[("island", "eth0"), ("boat", "eth0")]);
    insta::assert_snapshot!(told(&lab.lab, "client", "island", ping()));
}

#[test]
fn a_wall_is_named() {
    let mut lab = Build::line();
    lab.route("server", "blackhole 10.0.1.0/24 table 7");
    let mut rule =
        crate::model::PolicyRule::new(crate::addr::Family::Ipv4, 5, crate::model::PolicyAction::Blackhole);
    rule.destination = Some("10.0.2.0/24".parse().unwrap());
    lab.get("client").rules.insert(0, rule);
    for rule in crate::model::PolicyRule::initial(crate::addr::Family::Ipv4) {
        lab.get("client").rules.push(rule);
    }
    insta::assert_snapshot!(told(&lab.lab, "client", "server", ping()));
}

#[test]
fn packets_asked_both_to_pass_and_not_to_are_named() {
    let lab = Build::line().lab;
    let wide = Headers { dport: Some(crate::addr::PortRange { low: 20, high: 30 }), ..ssh() };
    let ask = Ask {
        pass: vec![flow(&lab, "client", "server", ssh())],
        refuse: vec![flow(&lab, "10.0.1.0/24", "server", wide)],
    };
    let error = repair(&lab, &ask).unwrap_err();
    assert_eq!(
        error.to_string(),
        "`tcp dport 22 from client to server (10.0.2.2)` should pass and `tcp dport 20-30 from \
         10.0.1.0/24 to server` should not, and these are both: tcp 10.0.1.2 -> 10.0.2.2 dport 22"
    );
    let apart = Ask {
        pass: vec![flow(&lab, "client", "server", ssh())],
        refuse: vec![flow(&lab, "router", "server", ssh()), flow(&lab, "client", "router", ssh())],
    };
    assert!(repair(&lab, &apart).is_ok());
}

#[test]
fn some_pass_and_some_are_refused_by_one_repair() {
    let mut lab = Build::line();
    lab.rules(
        "server",
        "*filter\n:INPUT DROP [0:0]\n:FORWARD ACCEPT [0:0]\n:OUTPUT ACCEPT [0:0]\n-A INPUT -p tcp -m tcp --dport 80 -j ACCEPT",
    );
    let lab = lab.lab;
    let (good, bad) =
        (flow(&lab, "client", "server", ssh()), flow(&lab, "router", "server", headers("tcp", Some(80))));
    let answer = repair(&lab, &Ask { pass: vec![good.clone()], refuse: vec![bad.clone()] }).unwrap();
    assert!(!answer.plans.is_empty());
    for plan in &answer.plans {
        assert!(asked(&plan.lab, &good).holds());
        assert!(!asked(&plan.lab, &bad).holds());
    }
    insta::assert_snapshot!(render::repair(&answer));
}

#[test]
fn what_should_not_pass_is_stopped_and_nothing_else() {
    let lab = Build::line().lab;
    insta::assert_snapshot!(refused(&lab, "client", "server", ssh()));
}

#[test]
fn names_from_a_snapshot_are_quoted_for_the_shell() {
    let mut lab = Build::line();
    lab.rules(
        "router",
        "*filter\n:INPUT ACCEPT [0:0]\n:FORWARD ACCEPT [0:0]\n:OUTPUT ACCEPT [0:0]\n:a;reboot - [0:0]\n\
         -A FORWARD -j a;reboot\n-A a;reboot -p icmp -j DROP",
    );
    let flow = flow(&lab.lab, "client", "server", ping());
    let answer = repair(&lab.lab, &Ask { pass: vec![flow], refuse: Vec::new() }).unwrap();
    let commands: Vec<&str> =
        answer.plans.iter().flat_map(|p| &p.steps).map(|s| s.command.as_str()).collect();
    assert!(commands.iter().any(|c| c.contains("'a;reboot'")), "{commands:?}");
    assert!(!commands.iter().any(|c| c.contains(" a;reboot")), "{commands:?}");
}
