use super::build::{ping, tcp, udp, Build};
use super::{answer, seen, stage};
use crate::addr::Family;
use crate::engine::explore::{all, Choices};
use crate::engine::stepper::{walk, Entry, Sender, World};
use crate::model::{
    AnswerKind, Decision, InterfaceKind, Outcome, PolicyAction, PolicyRule, RouteTable, Stage, TcpFlags,
    Vxlan,
};

pub(crate) fn policy_rule(priority: u32, action: PolicyAction) -> PolicyRule {
    PolicyRule::new(Family::Ipv4, priority, action)
}

pub(crate) fn default_rules() -> Vec<PolicyRule> {
    PolicyRule::initial(Family::Ipv4)
}

#[test]
fn when_forwarding_is_off_nothing_is_sent_back() {
    let mut lab = Build::line();
    lab.sysctl("router", "net.ipv4.ip_forward", 0);
    for dst in ["10.0.2.2", "203.0.113.1"] {
        let journey = lab.send(&[("client", ping("10.0.1.2", dst))]);
        assert_eq!(*stage(&journey), Stage::NotForwarding);
        assert!(matches!(journey.outcome, Outcome::Dropped { .. }));
    }
}

#[test]
fn forwarding_is_the_setting_of_the_interface_of_arrival() {
    let mut lab = Build::line();
    lab.sysctl("router", "net.ipv4.conf.eth0.forwarding", 0);
    let journey = lab.send(&[("client", ping("10.0.1.2", "10.0.2.2"))]);
    assert_eq!(*stage(&journey), Stage::NotForwarding);
    seen(&lab.send(&[("server", ping("10.0.2.2", "10.0.1.2"))]));
}

#[test]
fn refusals_name_themselves_to_those_who_are_forwarded() {
    let mut lab = Build::line();
    lab.route("router", "prohibit 10.7.0.0/16").route("router", "unreachable 10.8.0.0/16");
    lab.route("router", "blackhole 10.9.0.0/16");
    for (dst, wanted, code) in [
        ("203.0.113.1", Stage::NoRoute, 0),
        ("10.7.0.1", Stage::Prohibit, 13),
        ("10.8.0.1", Stage::HostUnreachable, 1),
    ] {
        let journey = lab.send(&[("client", ping("10.0.1.2", dst))]);
        assert_eq!(*stage(&journey), wanted);
        assert_eq!(answer(&journey).kind, AnswerKind::Icmp(3, code));
    }
    let journey = lab.send(&[("client", ping("10.0.1.2", "10.9.0.1"))]);
    assert_eq!(*stage(&journey), Stage::Blackhole);
}

#[test]
fn for_local_senders_the_call_itself_fails() {
    let mut lab = Build::line();
    lab.route("router", "prohibit 10.7.0.0/16").route("router", "unreachable 10.8.0.0/16");
    lab.route("router", "blackhole 10.9.0.0/16");
    for (dst, errno) in [
        ("203.0.113.1", "ENETUNREACH"),
        ("10.7.0.1", "EACCES"),
        ("10.8.0.1", "EHOSTUNREACH"),
        ("10.9.0.1", "EINVAL"),
    ] {
        let journey = lab.send(&[("router", ping("0.0.0.0", dst))]);
        assert_eq!(*stage(&journey), Stage::Send(errno.into()));
        assert_eq!(journey.hops().count(), 0);
    }
}

#[test]
fn a_policy_rule_that_refuses_says_network_unreachable() {
    let mut lab = Build::line();
    let host = lab.get("router");
    host.rules = default_rules();
    host.rules.insert(1, policy_rule(100, PolicyAction::Unreachable));
    let journey = lab.send(&[("client", ping("10.0.1.2", "10.0.2.2"))]);
    assert_eq!(*stage(&journey), Stage::NoRoute);
}

#[test]
fn rp_filter_is_the_greater_of_all_and_interface_and_applies_to_local_delivery() {
    let stray = || udp(("10.0.2.2", 1), ("10.0.1.1", 53));
    for (all, own, passes) in [(0, 0, true), (1, 0, false), (0, 1, false), (1, 2, true)] {
        let mut lab = Build::line();
        lab.sysctl("router", "net.ipv4.conf.all.rp_filter", all);
        lab.sysctl("router", "net.ipv4.conf.eth0.rp_filter", own);
        let journey = lab.send(&[("router:eth0", stray())]);
        assert_eq!(matches!(journey.outcome, Outcome::Delivered { .. }), passes, "all {all}, eth0 {own}");
        if !passes {
            assert_eq!(*stage(&journey), Stage::RpFilter);
        }
    }
}

#[test]
fn a_host_takes_packets_for_any_of_its_addresses_on_any_interface() {
    let lab = Build::line();
    let journey = lab.send(&[("client", ping("10.0.1.2", "10.0.2.1"))]);
    assert!(matches!(&journey.outcome, Outcome::Delivered { at, .. } if at.to_string() == "router:eth0"));
}

#[test]
fn arp_answers_for_addresses_of_other_interfaces_unless_told_to_ignore() {
    let mut lab = Build::line();
    lab.route("client", "10.0.2.1/32 dev eth0");
    seen(&lab.send(&[("client", ping("10.0.1.2", "10.0.2.1"))]));
    lab.sysctl("router", "net.ipv4.conf.all.arp_ignore", 1);
    let journey = lab.send(&[("client", ping("10.0.1.2", "10.0.2.1"))]);
    assert_eq!(*stage(&journey), Stage::HostUnreachable);
}

#[test]
fn ttl_runs_out_before_the_forward_chain_and_the_router_says_so() {
    let lab = Build::line();
    let mut packet = ping("10.0.1.2", "10.0.2.2");
    packet.ttl = 1;
    let journey = lab.send(&[("client", packet)]);
    assert_eq!(answer(&journey).kind, AnswerKind::Icmp(11, 0));
    assert_eq!(answer(&journey).from_addr.to_string(), "10.0.1.1");
}

#[test]
fn a_routing_loop_ends_at_ttl_and_is_flagged() {
    let mut lab = Build::line();
    lab.route("router", "10.5.0.0/16 via 10.0.2.2 dev eth1");
    lab.sysctl("server", "net.ipv4.ip_forward", 1);
    let journey = lab.send(&[("client", ping("10.0.1.2", "10.5.0.1"))]);
    assert_eq!(*stage(&journey), Stage::Ttl);
    assert!(journey.looped);
}

#[test]
fn a_mark_set_in_mangle_output_routes_again() {
    let mut lab = Build::line();
    lab.nic("client", "eth1", &["10.0.3.2/24"]);
    lab.route("client", "10.0.2.0/24 dev eth1 table 100");
    let host = lab.get("client");
    host.rules = default_rules();
    let marked =
        PolicyRule { fwmark: Some((1, u32::MAX)), ..policy_rule(100, PolicyAction::Lookup(RouteTable(100))) };
    host.rules.insert(1, marked);
    let out = |lab: &Build| {
        let mut choices = Default::default();
        let journey = lab.run(&mut choices, &[("client", udp(("0.0.0.0", 1), ("10.0.2.2", 53)))]);
        let first = journey.hops().next().unwrap().at.to_string();
        first
    };
    assert_eq!(out(&lab), "client:eth0");
    lab.rules("client", "*mangle\n:OUTPUT ACCEPT [0:0]\n-A OUTPUT -p udp -j MARK --set-mark 1");
    assert_eq!(out(&lab), "client:eth1");
}

#[test]
fn icmpv6_errors_speak_as_the_device_the_packet_came_in_by() {
    let mut lab = Build::line();
    // A packet of the server's prefix comes in by the client's side.
    lab.rules(
        "router",
        "*filter\n:FORWARD ACCEPT [0:0]\n-A FORWARD -j REJECT --reject-with icmp6-adm-prohibited",
    );
    let journey = lab.send(&[("router:eth0", tcp(("fd02::2", 1), ("fd02::77", 2), TcpFlags::SYN))]);
    assert_eq!(answer(&journey).from_addr.to_string(), "fd01::1");
}

#[test]
fn a_vxlan_packet_is_a_new_one_of_the_host_and_the_inner_one_arrives_at_the_tunnel() {
    let mut lab = Build::line();
    let vxlan = |local: &str, remote: &str| {
        InterfaceKind::Vxlan(Vxlan {
            vni: 7,
            local: local.parse().ok(),
            remote: remote.parse().ok(),
            link: None,
            port: 8472,
            ttl: 0,
            learning: false,
        })
    };
    lab.device("client", "vx0", vxlan("10.0.1.2", "10.0.2.2"), &["10.7.0.1/24"]);
    lab.device("server", "vx0", vxlan("10.0.2.2", "10.0.1.2"), &["10.7.0.2/24"]);
    let journey = lab.send(&[("client", ping("0.0.0.0", "10.7.0.2"))]);
    assert!(matches!(&journey.outcome, Outcome::Delivered { at, .. } if at.to_string() == "server:vx0"));
    assert_eq!(seen(&journey).ttl, 64);
    lab.rules("client", "*filter\n:OUTPUT ACCEPT [0:0]\n-A OUTPUT -p udp --dport 8472 -j DROP");
    let journey = lab.send(&[("client", ping("0.0.0.0", "10.7.0.2"))]);
    assert_eq!(super::rule(&journey), ("filter", "OUTPUT", Some(1)));
}

#[test]
fn an_error_about_a_tunnels_outer_packet_tells_the_sender_nothing() {
    let mut lab = Build::line();
    let remote = "10.0.2.2".parse().ok();
    let vxlan = Vxlan { vni: 7, local: None, remote, link: None, port: 8472, ttl: 0, learning: false };
    lab.device("client", "vx0", InterfaceKind::Vxlan(vxlan), &["10.7.0.1/24"]);
    lab.rules("router", "*filter\n:FORWARD ACCEPT [0:0]\n-A FORWARD -p udp -j REJECT");
    let host = lab.get("client");
    host.neighbours.push(crate::model::Neighbour {
        address: "10.7.0.2".parse().unwrap(),
        interface: "vx0".into(),
        mac: Some(crate::addr::Mac([2, 9, 9, 9, 9, 9])),
        state: crate::model::NeighbourState::Permanent,
        proxy: false,
    });
    let journey = lab.send(&[("client", ping("0.0.0.0", "10.7.0.2"))]);
    assert!(matches!(journey.outcome, Outcome::Dropped { .. }));
    assert_eq!(super::rule(&journey), ("filter", "FORWARD", Some(1)));
}

#[test]
fn tcp_looks_the_route_up_again_with_its_source_and_udp_may() {
    let mut lab = Build::line();
    lab.nic("client", "eth1", &["10.0.3.2/24"]);
    lab.route("client", "default via 10.0.3.1 dev eth1 table 100");
    let host = lab.get("client");
    host.rules = default_rules();
    let by_source = PolicyRule {
        source: "10.0.1.2/32".parse().ok(),
        ..policy_rule(100, PolicyAction::Lookup(RouteTable(100)))
    };
    host.rules.insert(1, by_source);
    // Nobody is behind eth1: what goes there is not delivered.
    let outcomes = |packet: crate::model::Packet| {
        let way = |choices: &mut _| lab.run(choices, &[("client", packet.clone())]).outcome.name();
        all(8, way).results
    };
    let connected = outcomes(tcp(("0.0.0.0", 1), ("10.0.2.2", 80), TcpFlags::SYN));
    assert!(!connected.contains(&"delivered"));
    // A program that connects is told of first.
    let either = [&connected[..], &["delivered"]].concat();
    assert_eq!(outcomes(udp(("0.0.0.0", 1), ("10.0.2.2", 53))), either);
    assert_eq!(outcomes(ping("0.0.0.0", "10.0.2.2")), ["delivered"]);
}

#[test]
fn broadcasts_meet_the_reverse_path_test_and_own_sources_are_martian() {
    let mut lab = Build::line();
    lab.sysctl("router", "net.ipv4.conf.all.rp_filter", 1);
    for dst in ["10.0.1.255", "255.255.255.255"] {
        let journey = lab.send(&[("router:eth0", udp(("11.0.0.1", 1), (dst, 53)))]);
        assert_eq!(*stage(&journey), Stage::RpFilter, "{dst}");
        seen(&lab.send(&[("router:eth0", udp(("10.0.1.2", 1), (dst, 53)))]));
    }
    let journey = lab.send(&[("router:eth0", udp(("10.0.1.1", 1), ("10.0.1.255", 53)))]);
    assert_eq!(*stage(&journey), Stage::MartianSource);
}

#[test]
fn arp_filter_answers_only_where_the_way_back_leaves() {
    let mut lab = Build::line();
    lab.route("client", "10.0.2.1/32 dev eth0");
    lab.sysctl("router", "net.ipv4.conf.all.arp_filter", 1);
    seen(&lab.send(&[("client", ping("10.0.1.2", "10.0.2.1"))]));
    lab.route("router", "10.0.1.2/32 via 10.0.2.2 dev eth1");
    let journey = lab.send(&[("client", ping("10.0.1.2", "10.0.2.1"))]);
    assert_eq!(*stage(&journey), Stage::HostUnreachable);
}

#[test]
fn who_answers_first_for_an_address_that_two_have_is_possible() {
    let mut lab = Build::default();
    for (host, address) in [("a", "10.0.0.1/24"), ("b", "10.0.0.2/24"), ("c", "10.0.0.2/24")] {
        lab.host(host, false).nic(host, "eth0", &[address]);
    }
    lab.link(&[("a", "eth0"), ("b", "eth0"), ("c", "eth0")]);
    let places = all(8, |choices| match lab.run(choices, &[("a", ping("0.0.0.0", "10.0.0.2"))]).outcome {
        Outcome::Delivered { at, .. } => at.host,
        other => other.name().into(),
    });
    assert_eq!(places.results, ["b", "c"]);
}

#[test]
fn a_longer_route_in_main_than_a_local_prefix_depends_on_history() {
    let mut lab = Build::line();
    lab.route("router", "20.1.0.0/16 via 10.0.2.2 dev eth1");
    lab.route("router", "20.0.0.0/8 dev lo table 255");
    let own = lab.get("router").routes.last_mut().unwrap();
    own.kind = crate::model::RouteKind::Local;
    let journey = lab.send(&[("client", ping("10.0.1.2", "20.1.0.5"))]);
    assert!(!journey.unknown.is_empty());
    seen(&lab.send(&[("client", ping("10.0.1.2", "20.2.0.5"))]));
}

#[test]
fn an_icmpv6_error_uses_the_source_that_its_route_names() {
    let mut lab = Build::line();
    lab.rules(
        "router",
        "*filter\n:FORWARD ACCEPT [0:0]\n-A FORWARD -j REJECT --reject-with icmp6-adm-prohibited",
    );
    lab.route("router", "fd01::2/128 dev eth0");
    lab.get("router").routes.last_mut().unwrap().prefsrc = "fd02::1".parse().ok();
    let journey = lab.send(&[("client", ping("fd01::2", "fd02::2"))]);
    assert_eq!(answer(&journey).from_addr.to_string(), "fd02::1");
}

#[test]
fn a_veth_takes_no_more_than_its_own_mtu_and_a_raw_sender_no_more_than_its_devices() {
    let mut lab = Build::line();
    let big = || crate::model::Packet { length: 1400, ..ping("10.0.1.2", "10.0.2.2") };
    seen(&lab.send(&[("client", big())]));
    lab.get("server").interfaces[1].mtu = 1280;
    assert_eq!(*stage(&lab.send(&[("client", big())])), Stage::Mtu);
}

#[test]
fn interface_scope_groups_never_come_from_a_wire() {
    let lab = Build::line();
    let packet = |dst| udp(("fd01::2", 1), (dst, 53));
    assert_eq!(*stage(&lab.send(&[("router:eth0", packet("ff01::1"))])), Stage::Martian);
    seen(&lab.send(&[("router:eth0", packet("ff02::1"))]));
}

#[test]
fn what_a_host_has_that_is_not_modelled_makes_its_answers_open() {
    let mut lab = Build::line();
    let what = "table of family bridge".to_owned();
    let item = crate::model::Unmodelled { origin: Default::default(), what, text: String::new() };
    lab.get("router").unmodelled.push(item);
    assert!(!lab.send(&[("client", ping("10.0.1.2", "10.0.2.2"))]).unknown.is_empty());
    assert!(lab.send(&[("client", ping("0.0.0.0", "10.0.1.2"))]).unknown.is_empty());
}

#[test]
fn what_a_host_sends_by_a_route_with_a_smaller_mtu_is_too_big_for_itself() {
    let mut lab = Build::line();
    lab.route("client", "fd02::/64 via fd01::1 dev eth0");
    lab.get("client").routes.last_mut().unwrap().mtu = Some(1400);
    let sent = |length| {
        let mut packet = udp(("fd01::2", 1), ("fd02::2", 53));
        packet.length = length;
        let entry = Entry::Send("client".into(), Sender::Raw);
        walk(&lab.lab, &mut World::default(), &mut Choices::default(), &entry, &packet)
    };
    assert_eq!(answer(&sent(1401)).kind, AnswerKind::Icmp6(2, 0));
    assert_eq!(seen(&sent(1400)).length, 1400);
}

#[test]
fn a_policy_rule_for_main_shows_that_rules_were_added() {
    let mut lab = Build::line();
    lab.route("router", "local 10.0.0.0/8 dev lo table 255");
    let known =
        |lab: &Build| lab.send(&[("client", udp(("10.0.1.2", 1), ("10.0.2.2", 53)))]).unknown.is_empty();
    lab.get("router").rules = default_rules();
    assert!(!known(&lab), "main holds a longer route");
    lab.get("router").rules.push(policy_rule(40_000, PolicyAction::Lookup(RouteTable::MAIN)));
    assert!(known(&lab));
}

/// `ip_route_me_harder` asks with the source only if it is local or unicast.
#[test]
fn policy_rules_see_no_source_that_may_not_send_when_output_routes_again() {
    // The router does not take it either, but gets it.
    for (source, by) in [("10.0.1.2", "client"), ("255.255.255.255", "router")] {
        let mut lab = Build::line();
        lab.rules(
            "client",
            "*nat\n:OUTPUT ACCEPT\n-A OUTPUT -d 10.0.2.9/32 -j DNAT --to-destination 10.0.2.2",
        );
        let host = lab.get("client");
        host.rules = default_rules();
        let by_source = PolicyRule {
            source: format!("{source}/32").parse().ok(),
            destination: "10.0.2.2/32".parse().ok(),
            ..policy_rule(100, PolicyAction::Blackhole)
        };
        host.rules.insert(1, by_source);
        let journey = lab.send(&[("client", udp((source, 1), ("10.0.2.9", 53)))]);
        match journey.outcome.decision() {
            Some(Decision::Stage { host, .. }) => assert_eq!(host, by, "{source}"),
            other => panic!("{source}: {other:?}"),
        }
    }
}
