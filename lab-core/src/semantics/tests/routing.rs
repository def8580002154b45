//! Route look-up: policy rules, tables, longest prefix, metric, type.

use std::net::IpAddr;

use crate::addr::{Family, PortRange};
use crate::engine::stepper::tests::build::Build;
use crate::model::{InterfaceKind, PolicyAction, PolicyRule, PortValue, RouteKind, RouteTable};
use crate::semantics::routing::{
    by_link_alone, link_local, lookup, past_gateways, stays_on_link, Flow, Lookup,
};

fn to(dst: &str) -> Flow<'static> {
    Flow::to(dst.parse().unwrap())
}

/// The gateway or device that a look-up takes, or what it says instead.
fn way(lab: &Build, flow: &Flow) -> String {
    match lookup(&lab.lab.hosts["h"], flow) {
        Lookup::Found(_, hops) => hops
            .iter()
            .map(|h| h.gateway.map_or_else(|| h.interface.clone().unwrap_or_default(), |g| g.to_string()))
            .collect::<Vec<_>>()
            .join(" or "),
        Lookup::Refused(kind) => format!("{kind:?}"),
        Lookup::NoRoute => "none".into(),
        Lookup::Unknown(why) => format!("open: {why}"),
    }
}

/// A host with a default route, and another in table 100.
fn host() -> Build {
    let mut lab = Build::default();
    lab.host("h", true).nic("h", "eth0", &["10.0.0.1/24", "fd00::1/64"]).nic(
        "h",
        "eth1",
        &["10.1.0.1/24", "fd01::1/64"],
    );
    for (main, other) in [("10.0.0.2", "10.1.0.2"), ("fd00::2", "fd01::2")] {
        lab.route("h", &format!("default via {main} dev eth0"));
        lab.route("h", &format!("default via {other} dev eth1 table 100"));
    }
    lab
}

/// Whether a packet takes table 100 where a rule sends it there.
fn sent(family: Family, rule: impl FnOnce(&mut PolicyRule), flow: &Flow) -> bool {
    let mut lab = host();
    let mut asked = PolicyRule::new(family, 100, PolicyAction::Lookup(RouteTable(100)));
    rule(&mut asked);
    let mut rules = PolicyRule::initial(family);
    rules.insert(1, asked);
    lab.get("h").rules = rules;
    way(&lab, flow).starts_with(if family == Family::Ipv4 { "10.1." } else { "fd01:" })
}

#[test]
fn a_rule_is_for_what_all_its_selectors_meet() {
    let from = |src: &str, dst: &str| Flow { src: src.parse().ok(), ..to(dst) };
    let with = |change: fn(&mut Flow<'static>)| {
        let mut flow = from("10.2.0.1", "192.0.2.1");
        change(&mut flow);
        flow
    };
    let ports = |s, d| Some((PortValue::Is(s), PortValue::Is(d)));
    type Case = (&'static str, fn(&mut PolicyRule), Flow<'static>, bool);
    let cases: Vec<Case> = vec![
        ("all", |_| (), with(|_| ()), true),
        ("not all", |r| r.invert = true, with(|_| ()), false),
        ("from", |r| r.source = "10.2.0.0/16".parse().ok(), with(|_| ()), true),
        ("from others", |r| r.source = "10.3.0.0/16".parse().ok(), with(|_| ()), false),
        (
            "not from others",
            |r| (r.source, r.invert) = ("10.3.0.0/16".parse().ok(), true),
            with(|_| ()),
            true,
        ),
        ("from none", |r| r.source = "10.2.0.0/16".parse().ok(), to("192.0.2.1"), false),
        ("from none, as nowhere", |r| r.source = "0.0.0.0/8".parse().ok(), to("192.0.2.1"), true),
        ("to", |r| r.destination = "192.0.2.0/24".parse().ok(), with(|_| ()), true),
        ("to others", |r| r.destination = "192.0.3.0/24".parse().ok(), with(|_| ()), false),
        ("mark", |r| r.fwmark = Some((5, 0xf)), with(|f| f.mark = 0x35), true),
        ("another mark", |r| r.fwmark = Some((5, 0xf)), with(|f| f.mark = 4), false),
        ("mark past its mask", |r| r.fwmark = Some((5, 0xf)), with(|f| f.mark = 0xf0), false),
        ("tos", |r| r.tos = 0x10, with(|f| f.tos = 0x10), true),
        ("tos, the upper bits left out", |r| r.tos = 0x10, with(|f| f.tos = 0xf3), true),
        ("another tos", |r| r.tos = 0x10, with(|f| f.tos = 0x08), false),
        ("protocol", |r| r.protocol = Some(17), with(|f| f.protocol = Some(17)), true),
        ("another protocol", |r| r.protocol = Some(17), with(|f| f.protocol = Some(6)), false),
        ("a protocol that is not told", |r| r.protocol = Some(17), with(|_| ()), false),
        ("iif", |r| r.iif = Some("eth1".into()), with(|f| f.iif = "eth1"), true),
        ("another iif", |r| r.iif = Some("eth1".into()), with(|f| f.iif = "eth0"), false),
        ("one's own", |r| r.iif = Some("lo".into()), with(|_| ()), true),
        ("oif", |r| r.oif = Some("eth1".into()), with(|f| f.oif = Some("eth1")), true),
        ("no oif", |r| r.oif = Some("eth1".into()), with(|_| ()), false),
        ("uid of what is forwarded", |r| r.uid_range = Some((0, 5)), with(|f| f.iif = "eth0"), true),
        ("another uid", |r| r.uid_range = Some((1, 5)), with(|f| f.iif = "eth0"), false),
    ];
    for (name, rule, flow, meets) in cases {
        assert_eq!(sent(Family::Ipv4, rule, &flow), meets, "{name}");
    }
    let range = |low, high| Some(PortRange { low, high });
    for (sport, dport, told, meets) in [
        (range(5, 9), None, ports(5, 1), true),
        (range(5, 9), None, ports(9, 1), true),
        (range(5, 9), None, ports(10, 7), false),
        (None, range(5, 9), ports(1, 5), true),
        (None, range(5, 9), ports(7, 4), false),
        (range(5, 9), range(1, 1), ports(5, 1), true),
        (range(5, 9), range(1, 1), ports(5, 2), false),
        (range(5, 9), None, None, false),
        (None, range(5, 9), None, false),
    ] {
        let flow = Flow { ports: told, ..with(|_| ()) };
        let rule = |r: &mut PolicyRule| (r.sport, r.dport) = (sport, dport);
        assert_eq!(sent(Family::Ipv4, rule, &flow), meets, "{sport:?} {dport:?} {told:?}");
    }
    // IPv6 compares all of the code point.
    for (tos, meets) in [(0xb8, true), (0xbb, true), (0x18, false)] {
        let flow = Flow { tos, ..to("2001:db8::1") };
        assert_eq!(sent(Family::Ipv6, |r| r.tos = 0xb8, &flow), meets, "{tos:#x}");
    }
    let mut lab = host();
    let rule =
        PolicyRule { uid_range: Some((1, 5)), ..PolicyRule::new(Family::Ipv4, 100, PolicyAction::Blackhole) };
    lab.get("h").rules = PolicyRule::initial(Family::Ipv4);
    lab.get("h").rules.insert(1, rule);
    assert!(way(&lab, &to("192.0.2.1")).starts_with("open"), "who owns the socket");
}

#[test]
fn rules_are_asked_in_turn_until_one_decides() {
    let ends = |rules: &[(u32, PolicyAction)], dst: &str| {
        let mut lab = host();
        lab.route("h", "throw 192.0.2.0/24 table 7").route("h", "blackhole 192.0.2.0/25 table 8");
        let mut all = PolicyRule::initial(Family::Ipv4);
        all.extend(
            rules.iter().map(|(priority, action)| PolicyRule::new(Family::Ipv4, *priority, action.clone())),
        );
        all.sort_by_key(|r| r.priority);
        lab.get("h").rules = all;
        way(&lab, &to(dst))
    };
    let table = |number| PolicyAction::Lookup(RouteTable(number));
    assert_eq!(ends(&[], "192.0.2.1"), "10.0.0.2");
    assert_eq!(ends(&[(9, table(100))], "192.0.2.1"), "10.1.0.2");
    assert_eq!(ends(&[(40_000, table(100))], "192.0.2.1"), "10.0.0.2");
    assert_eq!(ends(&[(9, table(55))], "192.0.2.1"), "10.0.0.2", "a table without routes");
    assert_eq!(ends(&[(9, table(7))], "192.0.2.1"), "10.0.0.2", "throw asks the next rule");
    assert_eq!(ends(&[(9, table(8))], "192.0.2.1"), "Blackhole");
    assert_eq!(ends(&[(9, table(8))], "192.0.2.200"), "10.0.0.2");
    assert_eq!(ends(&[(9, PolicyAction::Blackhole)], "192.0.2.1"), "Blackhole");
    assert_eq!(ends(&[(9, PolicyAction::Prohibit)], "192.0.2.1"), "Prohibit");
    assert_eq!(ends(&[(9, PolicyAction::Unreachable)], "192.0.2.1"), "none");
    assert_eq!(ends(&[(9, PolicyAction::Nop)], "192.0.2.1"), "10.0.0.2");
    let jump = [(9, PolicyAction::Goto(20)), (10, PolicyAction::Blackhole), (20, table(100))];
    assert_eq!(ends(&jump, "192.0.2.1"), "10.1.0.2");
    assert_eq!(ends(&[(9, PolicyAction::Goto(10)), (10, PolicyAction::Blackhole)], "192.0.2.1"), "Blackhole");
}

#[test]
fn a_rule_passes_over_routes_that_are_too_short() {
    let taken = |limit, dst: &str| {
        let mut lab = host();
        lab.route("h", "192.0.2.0/24 via 10.1.0.9 dev eth1 table 100");
        let rule = PolicyRule::new(Family::Ipv4, 9, PolicyAction::Lookup(RouteTable(100)));
        lab.get("h").rules = PolicyRule::initial(Family::Ipv4);
        lab.get("h").rules.insert(1, PolicyRule { suppress_prefix_len: Some(limit), ..rule });
        way(&lab, &to(dst))
    };
    assert_eq!(taken(0, "192.0.2.1"), "10.1.0.9");
    assert_eq!(taken(0, "198.51.100.1"), "10.0.0.2");
    assert_eq!(taken(23, "192.0.2.1"), "10.1.0.9");
    assert_eq!(taken(24, "192.0.2.1"), "10.0.0.2");
}

#[test]
fn the_longest_prefix_then_the_service_then_the_least_metric() {
    let mut lab = host();
    for (route, tos) in [
        ("192.0.2.0/24 via 10.0.0.3 dev eth0 metric 5", 0),
        ("192.0.2.0/24 via 10.0.0.4 dev eth0 metric 3", 0),
        ("192.0.2.0/24 via 10.0.0.5 dev eth0 metric 9", 0x10),
        ("192.0.2.128/25 via 10.0.0.6 dev eth0 metric 99", 0),
    ] {
        lab.route("h", route);
        lab.get("h").routes.last_mut().unwrap().tos = tos;
    }
    for (dst, tos, gateway) in [
        ("192.0.2.1", 0, "10.0.0.4"),
        ("192.0.2.1", 0x10, "10.0.0.5"),
        ("192.0.2.1", 0xf3, "10.0.0.5"),
        ("192.0.2.1", 0x08, "10.0.0.4"),
        ("192.0.2.200", 0x10, "10.0.0.6"),
        ("192.0.3.1", 0x10, "10.0.0.2"),
    ] {
        assert_eq!(way(&lab, &Flow { tos, ..to(dst) }), gateway, "{dst} {tos:#x}");
    }
    // Of IPv6 the longer source comes before the metric, and no service counts.
    let mut lab = host();
    for (route, source) in [
        ("2001:db8::/32 via fd00::3 dev eth0 metric 1", None),
        ("2001:db8::/32 via fd00::4 dev eth0 metric 9", Some("fd07::/16")),
        ("2001:db8::/32 via fd00::5 dev eth0 metric 9", Some("fd07:1::/32")),
    ] {
        lab.route("h", route);
        lab.get("h").routes.last_mut().unwrap().source = source.map(|s| s.parse().unwrap());
    }
    for (src, gateway) in [
        (None, "fd00::3"),
        (Some("fd07::1"), "fd00::4"),
        (Some("fd07:1::1"), "fd00::5"),
        (Some("fd08::1"), "fd00::3"),
    ] {
        let src = src.map(|s: &str| s.parse::<IpAddr>().unwrap());
        assert_eq!(way(&lab, &Flow { src, ..to("2001:db8::1") }), gateway, "{src:?}");
    }
}

#[test]
fn routes_by_a_dead_hop_or_another_device_are_not_taken() {
    let mut lab = host();
    lab.route("h", "192.0.2.0/24 via 10.0.0.9 dev eth0");
    assert_eq!(way(&lab, &to("192.0.2.1")), "10.0.0.9");
    let by = |oif| Flow { oif: Some(oif), ..to("192.0.2.1") };
    assert_eq!(way(&lab, &by("eth0")), "10.0.0.9");
    assert_eq!(way(&lab, &by("eth1")), "none");
    lab.get("h").routes.last_mut().unwrap().next_hops[0].dead = true;
    assert_eq!(way(&lab, &to("192.0.2.1")), "10.0.0.2");
    lab.route("h", "192.0.2.0/24 via 10.0.0.9 dev eth0");
    lab.get("h").routes.last_mut().unwrap().unmodelled = "encap mpls".into();
    assert!(way(&lab, &to("192.0.2.1")).starts_with("open"));
}

#[test]
fn of_ipv6_equal_routes_by_gateways_are_one_and_that_of_the_device_asked_for_is_preferred() {
    let mut lab = host();
    lab.route("h", "2001:db8::/32 via fd00::3 dev eth0 metric 5")
        .route("h", "2001:db8::/32 via fd01::3 dev eth1 metric 5");
    lab.route("h", "2001:db8::/32 via fd01::4 dev eth1 metric 6");
    assert_eq!(way(&lab, &to("2001:db8::1")), "fd00::3 or fd01::3");
    let by = |oif, bound| Flow { oif: Some(oif), bound, ..to("2001:db8::1") };
    assert_eq!(way(&lab, &by("eth1", false)), "fd01::3");
    assert_eq!(way(&lab, &by("eth0", false)), "fd00::3");
    assert_eq!(way(&lab, &by("eth9", false)), "fd00::3 or fd01::3");
    assert_eq!(way(&lab, &by("eth9", true)), "none");
    // Refusing routes are the loopback's: what is bound elsewhere passes them.
    lab.route("h", "unreachable 2001:db8:1::/48");
    assert_eq!(way(&lab, &to("2001:db8:1::1")), "Unreachable");
    assert_eq!(way(&lab, &Flow { oif: Some("eth1"), bound: true, ..to("2001:db8:1::1") }), "fd01::3");
}

#[test]
fn a_vrf_asks_its_own_table() {
    let mut lab = host();
    lab.device("h", "red", InterfaceKind::Vrf(100), &[])
        .change("h", "eth1", |i| i.master = Some("red".into()));
    let mut rules = PolicyRule::initial(Family::Ipv4);
    rules.insert(1, PolicyRule::new(Family::Ipv4, 1000, PolicyAction::LookupVrf));
    lab.get("h").rules = rules;
    for (flow, gateway) in [
        (to("192.0.2.1"), "10.0.0.2"),
        (Flow { vrf: Some("red"), ..to("192.0.2.1") }, "10.1.0.2"),
        (Flow { oif: Some("red"), ..to("192.0.2.1") }, "10.1.0.2"),
        (Flow { oif: Some("eth1"), ..to("192.0.2.1") }, "10.1.0.2"),
        (Flow { iif: "eth1", ..to("192.0.2.1") }, "10.1.0.2"),
        (Flow { iif: "eth0", ..to("192.0.2.1") }, "10.0.0.2"),
    ] {
        assert_eq!(way(&lab, &flow), gateway, "{flow:?}");
    }
}

#[test]
fn destinations_that_mean_one_link_only() {
    for (dst, alone, stays, local) in [
        ("10.0.0.1", false, false, false),
        ("224.0.0.1", false, false, false),
        ("fd00::1", false, false, false),
        ("fe80::1", true, true, true),
        ("febf::1", true, true, true),
        ("fec0::1", false, false, false),
        ("ff02::1", true, true, true),
        ("ff12::1", true, true, true),
        ("ff05::1", true, true, false),
        ("ff0e::1", true, true, false),
        ("::1", true, false, false),
        ("::2", false, false, false),
    ] {
        let dst = dst.parse().unwrap();
        assert_eq!((by_link_alone(dst), stays_on_link(dst), link_local(dst)), (alone, stays, local), "{dst}");
    }
    let lab = host();
    for (flow, way_out) in [
        (Flow { oif: Some("eth1"), ..to("ff02::1") }, "none"),
        (Flow { iif: "eth1", ..to("fe80::9") }, "none"),
        (Flow { iif: "eth0", ..to("fe80::9") }, "fd00::2"),
    ] {
        assert_eq!(way(&lab, &flow), way_out, "{flow:?}");
    }
    let mut lab = host();
    for device in ["eth0", "eth1"] {
        lab.route("h", &format!("fe80::/64 dev {device} metric 256"));
    }
    for (flow, device) in [
        (Flow { oif: Some("eth1"), ..to("fe80::9") }, "eth1"),
        (Flow { iif: "eth1", ..to("fe80::9") }, "eth1"),
        (Flow { iif: "eth0", ..to("fe80::9") }, "eth0"),
        (Flow { iif: "eth0", oif: Some("eth1"), ..to("fe80::9") }, "eth1"),
    ] {
        assert_eq!(way(&lab, &flow), device, "{flow:?}");
    }
}

#[test]
fn what_is_for_all_on_a_link_goes_past_gateways() {
    let mut lab = host();
    let past = |lab: &Build, dst: &str| {
        past_gateways(lab.lab.hosts["h"].routes.last().unwrap(), dst.parse().unwrap())
    };
    lab.route("h", "224.0.0.0/3 via 10.0.0.2 dev eth0");
    assert!(past(&lab, "255.255.255.255") && past(&lab, "224.0.0.1") && !past(&lab, "10.9.9.9"));
    lab.route("h", "224.0.0.0/4 via 10.0.0.2 dev eth0");
    assert!(past(&lab, "255.255.255.255") && !past(&lab, "224.0.0.1"));
    assert!(!past(&lab, "ff02::1"));
    assert_eq!(lab.lab.hosts["h"].routes.last().unwrap().kind, RouteKind::Unicast);
}
