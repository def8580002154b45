//! Where packets go by routes, policy rules and what OUTPUT changes.

use super::super::{Flow, Passed};
use super::flows;
use super::told::{become_of, packet, talk, told};
use crate::addr::{Family, PortRange};
use crate::engine::stepper::tests::build::Build;
use crate::engine::stepper::tests::route::default_rules;
use crate::model::{PolicyAction, PolicyRule, RouteTable};

/// A router that has a rule to blackhole what it selects.
pub fn ruled(change: impl FnOnce(&mut PolicyRule)) -> Build {
    let mut lab = Build::line();
    let mut rule = PolicyRule::new(Family::Ipv4, 100, PolicyAction::Blackhole);
    change(&mut rule);
    lab.get("router").rules = default_rules();
    lab.get("router").rules.insert(1, rule);
    lab
}

#[test]
fn policy_rules_select_by_what_the_packet_has() {
    let range = |low, high| Some(PortRange { low, high });
    type Change = Box<dyn FnOnce(&mut PolicyRule)>;
    let rows: Vec<(Change, &str, &str)> = vec![
        (Box::new(|r| r.source = "10.0.1.2/31".parse().ok()), "udp; udp s=10.0.1.3", "udp s=10.0.1.4"),
        (Box::new(|r| r.destination = "10.0.2.0/30".parse().ok()), "udp d=10.0.2.3", "udp d=10.0.2.4"),
        (Box::new(|r| r.iif = Some("eth0".into())), "udp", ""),
        (Box::new(|r| r.iif = Some("eth1".into())), "", "udp"),
        (Box::new(|r| r.iif = Some("lo".into())), "", "udp"),
        (Box::new(|r| r.oif = Some("eth1".into())), "", "udp"),
        (Box::new(|r| r.fwmark = Some((0x10, 0x30))), "udp mark=0x10; udp mark=0x1f", "udp; udp mark=0x30"),
        (Box::new(|r| r.tos = 0x10), "udp tos=0x10; udp tos=0x13; udp tos=0xf0", "udp; udp tos=0x18"),
        (Box::new(|r| r.tos = 0x20), "", "udp; udp tos=0x20"),
        (Box::new(|r| r.protocol = Some(17)), "udp", "tcp; 47"),
        (
            Box::new(move |r| r.dport = range(80, 90)),
            "udp dp=80; tcp dp=90; sctp dp=85",
            "udp dp=79; udp dp=91; icmp; udp sp=80",
        ),
        (Box::new(move |r| r.sport = range(80, 80)), "udp sp=80", "udp dp=80; udp sp=81"),
        (
            Box::new(|r| (r.fwmark, r.invert) = (Some((0x10, 0x30)), true)),
            "udp; udp mark=0x30",
            "udp mark=0x10",
        ),
        (Box::new(|r| (r.iif, r.invert) = (Some("eth1".into()), true)), "udp", ""),
        (Box::new(|r| r.uid_range = Some((0, 9))), "udp", ""),
        (Box::new(|r| r.uid_range = Some((1, 9))), "", "udp"),
        (Box::new(|r| r.action = PolicyAction::Nop), "", "udp"),
    ];
    for (change, met, others) in rows {
        let lab = ruled(change);
        for (packets, wanted) in [(met, true), (others, false)] {
            for text in packets.split("; ").filter(|text| !text.is_empty()) {
                let told = told(&lab, "router:eth0", &packet(text));
                assert_eq!(
                    told == "router blackhole",
                    wanted,
                    "{text}: {told}: {:?}",
                    lab.lab.hosts["router"].rules[1]
                );
            }
        }
    }
}

#[test]
fn a_policy_rule_does_what_it_says() {
    for (action, wanted, sent) in [
        (PolicyAction::Blackhole, "router blackhole", "router send:EINVAL"),
        (PolicyAction::Prohibit, "router prohibit", "router send:EACCES"),
        (PolicyAction::Unreachable, "router no-route", "router send:ENETUNREACH"),
        (PolicyAction::Nop, "server", "server"),
        (PolicyAction::Lookup(RouteTable(7)), "router host-unreachable", "router host-unreachable"),
        (PolicyAction::Lookup(RouteTable(8)), "server", "server"),
        (PolicyAction::Goto(200), "server", "server"),
        // One never goes back.
        (PolicyAction::Goto(50), "server", "server"),
        (PolicyAction::Goto(32767), "router no-route", "router send:ENETUNREACH"),
        (PolicyAction::LookupVrf, "server", "server"),
    ] {
        let mut lab = ruled(|r| r.action = action.clone());
        lab.route("router", "10.0.2.0/24 via 10.0.1.9 dev eth0 table 7");
        become_of(&lab, "client", &[("udp", wanted)]);
        become_of(&lab, "router", &[("udp s=10.0.2.1", sent)]);
    }
    // A route that throws leads to the next rule; one that is too short is passed over.
    for (prefix, limit, wanted) in [
        ("10.0.0.0/16", 16, "server"),
        ("10.0.0.0/16", 15, "router host-unreachable"),
        ("10.0.2.0/24", 16, "router host-unreachable"),
    ] {
        let mut lab =
            ruled(|r| (r.action, r.suppress_prefix_len) = (PolicyAction::Lookup(RouteTable(7)), Some(limit)));
        lab.route("router", &format!("{prefix} via 10.0.1.9 dev eth0 table 7"));
        become_of(&lab, "client", &[("udp", wanted)]);
    }
}

#[test]
fn the_owner_of_a_socket_is_not_known() {
    let lab = ruled(|r| r.uid_range = Some((1000, 2000)));
    become_of(&lab, "router", &[("udp s=10.0.2.1", "?")]);
    become_of(&lab, "router:eth0", &[("udp", "server")]);
}

#[test]
fn a_socket_asks_with_what_it_has_and_a_raw_one_without() {
    let range = Some(PortRange { low: 80, high: 80 });
    let by_port = ruled(|r| r.dport = range);
    let by_protocol = ruled(|r| r.protocol = Some(17));
    let by_tos = ruled(|r| r.tos = 0x10);
    let by_device = ruled(|r| r.iif = Some("lo".into()));
    for (lab, text, socket, raw) in [
        (&by_port, "udp s=10.0.2.1 dp=80", "router send:EINVAL", "server"),
        (&by_port, "udp s=10.0.2.1 dp=81", "server", "server"),
        (&by_protocol, "udp s=10.0.2.1", "router send:EINVAL", "server"),
        (&by_protocol, "tcp s=10.0.2.1", "server", "server"),
        (&by_tos, "udp s=10.0.2.1 tos=0x10", "router send:EINVAL", "server"),
        (&by_device, "udp s=10.0.2.1", "router send:EINVAL", "router send:EINVAL"),
    ] {
        become_of(lab, "router", &[(text, socket)]);
        become_of(lab, "raw router", &[(text, raw)]);
    }
    let by_raw = ruled(|r| r.protocol = Some(255));
    become_of(&by_raw, "raw router", &[("udp s=10.0.2.1", "router send:EINVAL")]);
    become_of(&by_raw, "router", &[("udp s=10.0.2.1", "server")]);
    // A raw socket sends no more than its device takes, and any source.
    let plain = Build::line();
    become_of(
        &plain,
        "raw client",
        &[
            ("udp len=1500", "server"),
            ("udp len=1501", "client send:EMSGSIZE"),
            ("udp s=10.9.9.9", "server"),
            ("udp s=127.0.0.1", "client send:EINVAL"),
        ],
    );
    become_of(&plain, "client", &[("udp s=0.0.0.0", "server"), ("icmp6 s=::", "server")]);
}

#[test]
fn what_output_changes_is_routed_again() {
    let marked = |rule: &str| {
        let mut lab = ruled(|r| (r.fwmark, r.destination) = (Some((1, 1)), "10.0.2.0/24".parse().ok()));
        lab.rules("router", &format!("*mangle\n:OUTPUT ACCEPT\n-A OUTPUT {rule}"));
        lab
    };
    for (rule, wanted) in [
        ("-j MARK --set-xmark 0x1/0xffffffff", "router send:EINVAL"),
        ("-j MARK --set-xmark 0x2/0xffffffff", "server"),
        ("-p tcp -j MARK --set-xmark 0x1/0xffffffff", "server"),
        ("-j TTL --ttl-set 9", "server ttl 9"),
    ] {
        become_of(&marked(rule), "router", &[("udp s=10.0.2.1", wanted)]);
    }
    for (tos, wanted) in [
        ("0x10/0xff", "router send:EINVAL"),
        ("0x08/0xff", "server tos 0x8"),
        ("0x10/0x10", "router send:EINVAL"),
    ] {
        let mut lab = ruled(|r| r.tos = 0x10);
        lab.rules("router", &format!("*mangle\n:OUTPUT ACCEPT\n-A OUTPUT -j TOS --set-tos {tos}"));
        become_of(&lab, "router", &[("udp s=10.0.2.1", wanted)]);
    }
    // Nothing is changed: nothing is asked again.
    let mut lab = ruled(|r| (r.protocol, r.tos) = (Some(17), 0x10));
    lab.rules("router", "*mangle\n:OUTPUT ACCEPT\n-A OUTPUT -j TOS --set-tos 0x10/0xff");
    become_of(&lab, "raw router", &[("udp s=10.0.2.1 tos=0x10", "server")]);
    // What another kind of chain changes is not routed again.
    for (kind, wanted) in [("route", "router send:EINVAL"), ("filter", "server")] {
        let mut lab = ruled(|r| r.fwmark = Some((1, 1)));
        lab.chain(
            "router",
            "lab",
            &format!("{kind} hook output priority -150; policy accept;"),
            "meta mark set 0x1",
        );
        become_of(&lab, "router", &[("udp s=10.0.2.1", wanted)]);
    }
    // The hop limit of IPv6 counts, the TTL does not.
    for (family, rules, six, wanted) in [
        (Family::Ipv4, "-j TTL --ttl-set 9", "", "server ttl 9"),
        (Family::Ipv6, "-j HL --hl-set 9", "6", "router send:EINVAL | server ttl 9"),
        (Family::Ipv6, "-j HL --hl-set 64", "6", "server"),
    ] {
        let mut lab = Build::line();
        let away = PolicyRule::new(family, 100, PolicyAction::Blackhole);
        let range = Some(PortRange { low: 9, high: 9 });
        lab.get("router").rules = PolicyRule::initial(family);
        lab.get("router").rules.insert(1, PolicyRule { dport: range, ..away });
        let table = if six.is_empty() { "" } else { "# ip6tables\n" };
        lab.rules("router", &format!("{table}*mangle\n:OUTPUT ACCEPT\n-A OUTPUT {rules}"));
        let src = if six.is_empty() { "10.0.2.1" } else { "fd02::1" };
        become_of(&lab, "raw router", &[(&format!("udp{six} s={src} dp=9"), wanted)]);
    }
    let mut lab = Build::line();
    let away = PolicyRule::new(Family::Ipv6, 100, PolicyAction::Prohibit);
    lab.get("router").rules = PolicyRule::initial(Family::Ipv6);
    let range = Some(PortRange { low: 9, high: 9 });
    lab.get("router").rules.insert(1, PolicyRule { dport: range, ..away });
    become_of(&lab, "router", &[("udp6 s=fd02::1 dp=9", "router send:EACCES"), ("udp6 s=fd02::1", "server")]);
    lab.route("router", "fd07::/64 via fd02::2 dev eth1");
    lab.rules(
        "router",
        "# ip6tables\n*nat\n:OUTPUT ACCEPT\n-A OUTPUT -d fd07::7 -j DNAT --to-destination fd02::2",
    );
    become_of(&lab, "router", &[("udp6 s=fd02::1 d=fd07::7", "server to fd02::2:2")]);
}

#[test]
fn nat_of_output_goes_where_the_new_destination_is() {
    let mut lab = Build::line();
    lab.rules(
        "router",
        "*nat\n:OUTPUT ACCEPT\n-A OUTPUT -d 10.0.1.9 -j DNAT --to-destination 10.0.2.2\n\
         -A OUTPUT -d 10.0.1.8 -j REDIRECT\n-A OUTPUT -d 10.0.1.7 -j DNAT --to-destination 10.7.7.7\n\
         -A OUTPUT -d 10.0.1.6 -j NETMAP --to 10.0.2.2/32",
    );
    become_of(
        &lab,
        "router",
        &[
            ("udp s=10.0.1.1 d=10.0.1.9", "server to 10.0.2.2:2"),
            ("udp s=10.0.1.1 d=10.0.1.8", "router to 127.0.0.1:2"),
            ("udp s=10.0.1.1 d=10.0.1.7", "router send:ENETUNREACH"),
            ("udp s=10.0.1.1 d=10.0.1.6", "server to 10.0.2.2:2"),
            ("udp s=10.0.1.1 d=10.0.1.2", "client"),
        ],
    );
    assert_eq!(talk(&lab, "router", &packet("udp s=10.0.1.1 d=10.0.1.9"), 2), "router:eth1");
}

#[test]
fn sources_that_may_not_come_in_by_a_device_do_not() {
    let strict = |value: u8| {
        let mut lab = Build::line();
        lab.sysctl("router", "net.ipv4.conf.all.rp_filter", value);
        lab.route("router", "10.0.5.0/24 via 10.0.1.2 dev eth0")
            .route("router", "10.0.6.0/24 via 10.0.2.2 dev eth1");
        lab.route("router", "blackhole 10.0.7.0/24");
        lab
    };
    for (value, source, wanted) in [
        (0, "10.0.6.1", "server"),
        (1, "10.0.6.1", "router rp_filter"),
        (2, "10.0.6.1", "server"),
        (1, "10.0.5.1", "server"),
        (1, "10.0.9.1", "router rp_filter"),
        (2, "10.0.9.1", "router rp_filter"),
        (0, "10.0.9.1", "server"),
        (2, "10.0.7.1", "router rp_filter"),
        (0, "10.0.2.1", "router martian-source"),
        (1, "10.0.2.1", "router martian-source"),
        (0, "10.0.1.255", "router martian-source"),
        (1, "10.0.1.255", "router martian-source"),
        (0, "0.0.0.0", "router martian-source"),
        (0, "127.0.0.1", "router martian-localnet"),
        (0, "224.0.0.1", "router martian-source"),
        (0, "255.255.255.255", "router martian-source"),
    ] {
        let told = told(&strict(value), "router:eth0", &packet(&format!("udp s={source}")));
        if source == "10.0.1.255" && value == 0 {
            // Without the test, only its own addresses are looked at.
            assert_eq!(told, "server");
            continue;
        }
        assert_eq!(told, wanted, "{value} {source}");
    }
    let mut lab = strict(1);
    lab.sysctl("router", "net.ipv4.conf.all.accept_local", 1);
    become_of(&lab, "router:eth0", &[("udp s=10.0.1.1", "server"), ("udp s=10.0.2.1", "router rp_filter")]);
    // Not told, it matters where the test fails.
    let mut lab = strict(0);
    lab.get("router").sysctls.0.retain(|key, _| !key.ends_with("rp_filter"));
    become_of(
        &lab,
        "router:eth0",
        &[("udp s=10.0.6.1", "?"), ("udp", "server"), ("udp s=10.0.2.1", "router martian-source")],
    );
    // Who has rules of his own, or addresses by hand, has every way back looked up.
    type Change = fn(&mut Build);
    let rows: [(Change, &str); 5] = [
        (
            |lab| {
                lab.route("router", "local 10.8.0.1/32 dev lo table 255");
            },
            "router martian-source",
        ),
        (
            |lab| {
                lab.route("router", "local fd08::1/128 dev lo table 255");
            },
            "server",
        ),
        (|lab| lab.get("router").rules = default_rules(), "server"),
        (
            |lab| {
                lab.get("router").rules = default_rules();
                lab.get("router").rules.insert(1, PolicyRule::new(Family::Ipv4, 100, PolicyAction::Nop));
            },
            "router martian-source",
        ),
        (
            |lab| {
                lab.get("router").rules = PolicyRule::initial(Family::Ipv6);
                lab.get("router").rules.push(PolicyRule::new(Family::Ipv6, 100, PolicyAction::Nop));
            },
            "server",
        ),
    ];
    for (change, wanted) in rows {
        let mut lab = strict(0);
        change(&mut lab);
        become_of(&lab, "router:eth0", &[("udp s=10.0.1.255", wanted)]);
    }
    // A device without an address takes only what has a way back by it.
    for (value, wanted) in [(0, "server"), (1, "router rp_filter"), (2, "router rp_filter")] {
        let mut lab = strict(value);
        lab.change("router", "eth0", |i| i.addresses.retain(|a| a.address.is_ipv6()));
        become_of(&lab, "router:eth0", &[("udp s=10.0.6.1", wanted), ("udp", "server")]);
    }
    let mut lab = strict(0);
    lab.sysctl("router", "net.ipv4.conf.eth0.rp_filter", 1);
    become_of(&lab, "router:eth0", &[("udp s=10.0.6.1", "router rp_filter")]);
    let mut lab = strict(0);
    lab.sysctl("router", "net.ipv4.conf.all.route_localnet", 1);
    become_of(
        &lab,
        "router:eth0",
        &[("udp d=127.0.0.1", "router"), ("udp d=127.0.0.1 s=10.0.1.1", "router martian-source")],
    );
    become_of(
        &strict(0),
        "router:eth0",
        &[("udp d=127.0.0.1", "router martian-localnet"), ("udp d=0.0.0.0", "router martian-dest")],
    );
}

#[test]
fn the_way_back_has_the_mark_only_where_it_counts() {
    for (valid, wanted) in [(0, "server"), (1, "router rp_filter")] {
        let mut lab = ruled(|r| (r.fwmark, r.destination) = (Some((3, 3)), "10.0.1.2/32".parse().ok()));
        lab.sysctl("router", "net.ipv4.conf.all.rp_filter", 1);
        lab.sysctl("router", "net.ipv4.conf.all.src_valid_mark", valid);
        become_of(
            &lab,
            "router:eth0",
            &[("udp mark=3", wanted), ("udp", "server"), ("udp mark=1", "server")],
        );
        // By its own setting, too.
        lab.sysctl("router", "net.ipv4.conf.all.src_valid_mark", 0);
        lab.sysctl("router", "net.ipv4.conf.eth0.src_valid_mark", valid);
        become_of(&lab, "router:eth0", &[("udp mark=3", wanted)]);
    }
    // It is looked up with ports turned round.
    let range = Some(PortRange { low: 9, high: 9 });
    let mut lab = ruled(|r| (r.sport, r.destination) = (range, "10.0.1.2/32".parse().ok()));
    lab.sysctl("router", "net.ipv4.conf.all.rp_filter", 1);
    become_of(
        &lab,
        "router:eth0",
        &[("udp dp=9", "router rp_filter"), ("udp sp=9", "server"), ("udp", "server")],
    );
}

#[test]
fn the_best_route_is_the_longest_then_by_service_then_by_metric() {
    let mut lab = Build::line();
    lab.route("router", "blackhole 10.7.0.0/16")
        .route("router", "10.7.7.0/24 via 10.0.2.2 dev eth1 metric 5");
    lab.route("router", "prohibit 10.7.7.0/24 metric 9").route("router", "unreachable 10.7.7.7/32");
    lab.device("server", "dummy0", crate::model::InterfaceKind::Dummy, &["10.7.7.1/32", "10.7.8.1/32"]);
    become_of(
        &lab,
        "client",
        &[
            ("udp d=10.7.7.1", "server:dummy0"),
            ("udp d=10.7.7.7", "router host-unreachable"),
            ("udp d=10.7.8.1", "router blackhole"),
            ("udp d=10.8.8.1", "router no-route"),
        ]
        .map(|(text, wanted)| (text, if wanted == "server:dummy0" { "server" } else { wanted })),
    );
    // One of a type of service is for that service alone.
    lab.route("router", "prohibit 10.7.7.0/24 metric 1");
    lab.get("router").routes.last_mut().unwrap().tos = 0x10;
    become_of(
        &lab,
        "router:eth0",
        &[
            ("udp d=10.7.7.1", "server"),
            ("udp d=10.7.7.1 tos=0x10", "router prohibit"),
            ("udp d=10.7.7.1 tos=0x11", "router prohibit"),
            ("udp d=10.7.7.1 tos=0x14", "server"),
        ],
    );
}

#[test]
fn what_goes_round_loops_until_its_ttl_runs_out() {
    let mut lab = Build::line();
    lab.route("router", "10.7.0.0/16 via 10.0.2.2 dev eth1").sysctl("server", "net.ipv4.ip_forward", 1);
    lab.sysctl("server", "net.ipv4.conf.all.forwarding", 1);
    for ttl in [2, 3, 4, 9, 64] {
        let told = told(&lab, "client", &packet(&format!("udp d=10.7.7.7 ttl={ttl}")));
        let (at, looped) =
            (if ttl % 2 == 0 { "server" } else { "router" }, if ttl > 3 { " looped" } else { "" });
        assert_eq!(told, format!("{at} ttl{looped}"), "{ttl}");
    }
    // One that comes by only once, and runs out, does not.
    become_of(&lab, "client", &[("udp ttl=1", "router ttl"), ("udp ttl=2", "server")]);
}

#[test]
fn a_host_sends_to_everybody_by_the_device_of_its_source() {
    let lab = Build::line();
    become_of(
        &lab,
        "router",
        &[
            ("udp s=10.0.1.1 d=255.255.255.255", "client"),
            ("udp s=10.0.2.1 d=255.255.255.255", "server"),
            ("udp s=10.0.1.1 d=10.0.2.255", "server"),
            ("udp s=10.0.1.1 d=10.0.2.1", "router"),
            ("udp s=10.9.9.9 d=255.255.255.255", "router send:ENETUNREACH"),
        ],
    );
}

#[test]
fn packets_that_are_too_long_are_refused_or_sent_in_parts() {
    let mut lab = Build::line();
    lab.change("router", "eth1", |i| i.mtu = 1000);
    become_of(
        &lab,
        "client",
        &[
            ("udp len=1000", "server"),
            ("udp len=1001", "router mtu"),
            ("udp len=1001 df=0", "server"),
            ("udp6 len=1001", "router mtu"),
            ("udp6 len=1000", "server"),
            ("udp6 len=1001 df=0", "router mtu"),
        ],
    );
}

#[test]
fn link_local_and_unspecified_sources_do_not_pass_on() {
    let mut lab = Build::line();
    lab.route("router", "fe80::/64 dev eth0");
    become_of(
        &lab,
        "router:eth0",
        &[
            ("udp6 s=fe80::7", "router martian-source"),
            ("udp6 s=fe80::7 d=fd01::1", "router"),
            ("udp6 s=::", "router martian-source"),
            ("udp6 s=fec0::7", "server"),
            ("udp6 s=ff02::7", "router martian"),
            ("udp6 s=::1", "router martian"),
            ("udp6 d=::1", "router martian"),
            ("udp6 d=ff01::7", "router martian"),
            ("udp6 d=ff10::7", "router martian"),
        ],
    );
}

/// `fib_trie_unmerge`: one trie of both tables, until somebody adds a rule.
#[test]
fn what_a_longer_route_inside_a_local_prefix_does_depends_on_the_past() {
    let mut lab = Build::line();
    lab.route("router", "local 10.8.0.0/16 dev lo table 255")
        .route("router", "10.8.1.0/24 via 10.0.2.2 dev eth1");
    lab.route("router", "10.7.0.0/16 via 10.0.2.9 dev eth1").route("router", "blackhole 10.7.1.0/24");
    become_of(
        &lab,
        "client",
        &[
            ("udp d=10.8.1.1", "?"),
            ("udp d=10.8.2.1", "router"),
            ("udp d=10.7.1.1", "router blackhole"),
            ("udp d=10.7.2.1", "router host-unreachable"),
        ],
    );
    lab.route("router", "local 10.8.1.0/24 dev lo table 255");
    become_of(&lab, "client", &[("udp d=10.8.1.1", "router")]);
    // A rule parts them.
    lab.get("router").routes.pop();
    lab.get("router").rules = default_rules();
    lab.get("router").rules.insert(1, PolicyRule::new(Family::Ipv4, 100, PolicyAction::Nop));
    become_of(&lab, "client", &[("udp d=10.8.1.1", "router")]);
}

/// Whoever sets the TTL anew on every round would send for ever.
#[test]
fn what_never_runs_out_of_its_ttl_loops_for_so_many_steps() {
    let mut lab = Build::line();
    lab.route("router", "10.7.0.0/16 via 10.0.2.2 dev eth1").sysctl("server", "net.ipv4.ip_forward", 1);
    lab.sysctl("server", "net.ipv4.conf.all.forwarding", 1);
    lab.rules("router", "*mangle\n:PREROUTING ACCEPT\n-A PREROUTING -j TTL --ttl-set 64");
    let text = packet("udp d=10.7.7.7");
    assert_eq!(told(&lab, "client", &text), "router ttl looped");
    // Each hop is a frame that arrives and a packet that is received.
    let found = flows(&lab, "client", &text);
    let hops = |flow: &Flow| flow.passed().into_iter().filter(|p| matches!(p, Passed::Hop(..))).count();
    assert_eq!(found.iter().map(|f| hops(&f.flow)).collect::<Vec<_>>(), [6001]);
}
