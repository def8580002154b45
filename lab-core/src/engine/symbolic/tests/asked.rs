//! What rules ask of routes: types of addresses, and the way back.

use super::matches::raw;
use super::told::{become_of, decides, packet, talk};
use crate::engine::stepper::tests::build::Build;

#[test]
fn types_of_addresses_are_what_routes_say() {
    let with = |routes: &'static [&'static str]| {
        move |condition: &str| {
            let mut lab = raw(condition);
            for route in routes {
                lab.route("router", route);
            }
            lab
        }
    };
    decides(
        &[
            (
                "-m addrtype --dst-type LOCAL",
                "udp d=10.0.1.1; udp d=10.0.2.1; udp d=127.0.0.9",
                "udp; udp d=10.0.1.255",
            ),
            ("-m addrtype ! --dst-type LOCAL", "udp; udp d=10.0.1.255", "udp d=10.0.1.1"),
            (
                "-m addrtype --dst-type UNICAST",
                "udp; udp d=203.0.113.1",
                "udp d=10.0.1.1; udp d=10.0.1.255; udp d=224.0.0.1",
            ),
            (
                "-m addrtype --dst-type BROADCAST",
                "udp d=10.0.1.255; udp d=255.255.255.255; udp d=0.0.0.0",
                "udp; udp d=0.0.0.1",
            ),
            (
                "-m addrtype --dst-type MULTICAST",
                "udp d=224.0.0.1; udp d=239.255.255.255",
                "udp d=223.255.255.255; udp d=240.0.0.1",
            ),
            ("-m addrtype --dst-type LOCAL,BROADCAST", "udp d=10.0.1.1; udp d=10.0.1.255", "udp"),
            ("-m addrtype --src-type LOCAL", "udp s=10.0.2.1", "udp; udp d=10.0.2.1"),
            (
                "-m addrtype --src-type UNICAST --dst-type LOCAL",
                "udp d=10.0.1.1",
                "udp; udp s=10.0.2.1 d=10.0.1.1",
            ),
            ("-m addrtype --dst-type LOCAL --limit-iface-in", "udp d=10.0.1.1", "udp d=10.0.2.1; udp"),
            ("-m addrtype --dst-type ANYCAST", "udp d=10.8.0.1", "udp d=10.8.1.1"),
        ],
        with(&["anycast 10.8.0.0/24 dev eth0 table 255"]),
    );
    decides(
        &[
            ("-m addrtype --dst-type LOCAL", "udp6 d=fd01::1; udp6 d=fd02::1", "udp6; udp6 d=ff02::9"),
            ("-m addrtype ! --dst-type LOCAL", "udp6", "udp6 d=fd01::1"),
            ("-m addrtype --dst-type UNICAST", "udp6; udp6 d=fd01::1", "udp6 d=ff02::9; udp6 d=::"),
            ("-m addrtype --dst-type MULTICAST", "udp6 d=ff02::9; udp6 d=ff08::9", "udp6; udp6 d=fe80::9"),
            (
                "-m addrtype --dst-type UNREACHABLE",
                "udp6 d=2001:db8::1; udp6 d=fd07::1",
                "udp6; udp6 d=fd01::1",
            ),
            ("-m addrtype --dst-type UNSPEC", "udp6 d=::", "udp6"),
            ("-m addrtype --dst-type LOCAL --limit-iface-in", "udp6 d=fd01::1", "udp6 d=fd02::1"),
            ("-m addrtype --src-type LOCAL", "udp6 s=fd02::1", "udp6"),
            (
                "-m addrtype --dst-type ANYCAST",
                "udp6 d=fd08::9; udp6 d=fd01::",
                "udp6; udp6 d=fd01::1; udp6 d=fd02::9; udp6 d=fd09::9",
            ),
            (
                "-m addrtype --dst-type ANYCAST --limit-iface-in",
                "udp6 d=fd08::9; udp6 d=fd01::",
                "udp6; udp6 d=fd01::1; udp6 d=fd02::",
            ),
        ],
        |condition| {
            let mut lab = Build::line();
            let rule = format!("-A PREROUTING {condition} -j DROP");
            lab.rules("router", &format!("# ip6tables\n*raw\n:PREROUTING ACCEPT\n{rule}"));
            lab.route("router", "unreachable fd07::/64");
            lab.route("router", "anycast fd08::/64 dev eth0 table 255");
            lab
        },
    );
}

#[test]
fn the_way_back_is_looked_up_as_the_rule_says() {
    let routed = |condition: &str| {
        let mut lab = raw(condition);
        lab.route("router", "10.0.5.0/24 via 10.0.1.2 dev eth0")
            .route("router", "10.0.6.0/24 via 10.0.2.2 dev eth1");
        lab.route("router", "blackhole 10.0.7.0/24");
        lab
    };
    decides(
        &[
            (
                "-m rpfilter",
                "udp; udp s=10.0.5.1",
                "udp s=10.0.6.1; udp s=10.0.7.1; udp s=10.0.8.1; udp s=10.0.2.1",
            ),
            ("-m rpfilter --invert", "udp s=10.0.6.1; udp s=10.0.7.1; udp s=10.0.8.1", "udp; udp s=10.0.5.1"),
            ("-m rpfilter --loose", "udp; udp s=10.0.6.1", "udp s=10.0.7.1; udp s=10.0.8.1; udp s=10.0.2.1"),
            ("-m rpfilter --accept-local", "udp; udp s=10.0.1.1", "udp s=10.0.6.1"),
            ("-m rpfilter --accept-local --loose", "udp s=10.0.2.1", "udp s=10.0.7.1"),
            (
                "-m rpfilter",
                "udp s=0.0.0.0 d=224.0.0.9; udp s=0.0.0.0 d=255.255.255.255",
                "udp s=0.0.0.0 d=224.0.1.9; udp s=0.0.0.0",
            ),
        ],
        routed,
    );
    // An address of a class that nobody has is like any other.
    decides(&[("-m rpfilter --loose", "udp s=254.128.0.1; udp s=9.9.9.9", "")], |condition| {
        let mut lab = routed(condition);
        lab.route("router", "default via 10.0.2.2 dev eth1");
        lab
    });
    // What comes from the host itself is not asked about.
    become_of(&routed("-m rpfilter --invert"), "router", &[("udp s=10.0.1.1 d=10.0.2.1", "router")]);
    decides(
        &[
            (
                "-m rpfilter",
                "udp6; udp6 s=fd05::1; udp6 s=::; udp6 s=fe80::7",
                "udp6 s=fd06::1; udp6 s=fd08::1; udp6 s=fd02::1",
            ),
            ("-m rpfilter --invert", "udp6 s=fd06::1; udp6 s=fd08::1", "udp6; udp6 s=fd05::1"),
            ("-m rpfilter --loose", "udp6; udp6 s=fd06::1", "udp6 s=fd08::1; udp6 s=fd02::1"),
            ("-m rpfilter --accept-local", "udp6 s=fd01::1", "udp6 s=fd06::1"),
        ],
        |condition| {
            let mut lab = Build::line();
            let rule = format!("-A PREROUTING {condition} -j DROP");
            lab.rules("router", &format!("# ip6tables\n*raw\n:PREROUTING ACCEPT\n{rule}"));
            lab.route("router", "fd05::/64 via fd01::2 dev eth0")
                .route("router", "fd06::/64 via fd02::2 dev eth1");
            // Each link has its own.
            lab.route("router", "fe80::/64 dev eth1").route("router", "fe80::/64 dev eth0");
            lab
        },
    );
    decides(
        &[("-m rpfilter", "", "udp6 s=fe80::7"), ("-m rpfilter --loose", "", "udp6 s=fe80::7")],
        |condition| {
            let mut lab = Build::line();
            let rule = format!("-A PREROUTING {condition} -j DROP");
            lab.rules("router", &format!("# ip6tables\n*raw\n:PREROUTING ACCEPT\n{rule}"));
            lab.route("router", "fe80::/64 dev eth1");
            lab
        },
    );
}

#[test]
fn the_way_back_is_looked_up_with_the_mark_where_the_rule_says_so() {
    use crate::engine::stepper::tests::route::{default_rules, policy_rule};
    use crate::model::{PolicyAction, PolicyRule};
    for (valid, marked) in [("", "server"), (" --validmark", "router PREROUTING 1")] {
        let mut lab = raw(&format!("-m rpfilter{valid} --invert"));
        let away = policy_rule(100, PolicyAction::Unreachable);
        lab.get("router").rules = default_rules();
        // Only the way back to the client is meant.
        let to = "10.0.1.2/32".parse().ok();
        lab.get("router").rules.insert(1, PolicyRule { fwmark: Some((3, 3)), destination: to, ..away });
        become_of(
            &lab,
            "router:eth0",
            &[("udp", "server"), ("udp mark=3", marked), ("udp mark=2", "server")],
        );
    }
}

/// Routes that are not understood: of the main table, or of the host's own addresses.
#[test]
fn what_rules_ask_of_routes_is_open_where_those_are_not_understood() {
    let (open, met) = ("router PREROUTING 1 | server", "router PREROUTING 1");
    for (condition, packets) in [
        ("-m rpfilter", [("udp s=10.0.5.1", open), ("udp", met), ("udp s=10.0.6.1", "server")]),
        ("-m rpfilter --loose", [("udp s=10.0.5.1", open), ("udp", met), ("udp s=10.0.6.1", "server")]),
        (
            "-m addrtype --src-type LOCAL",
            [("udp s=10.0.7.1", open), ("udp", "server"), ("udp s=10.0.2.1", met)],
        ),
        (
            "-m addrtype ! --src-type LOCAL",
            [("udp s=10.0.7.1", open), ("udp", met), ("udp s=10.0.2.1", "server")],
        ),
    ] {
        let mut lab = raw(condition);
        lab.route("router", "10.0.5.0/24 via 10.0.1.2 dev eth0");
        lab.get("router").routes.last_mut().unwrap().unmodelled = "nexthop object 7".into();
        lab.route("router", "local 10.0.7.0/24 dev eth0 table 255");
        lab.get("router").routes.last_mut().unwrap().unmodelled = "nexthop object 7".into();
        // The way goes on, whatever the source; what may not come in is not asked here.
        lab.sysctl("router", "net.ipv4.conf.all.accept_local", 1);
        become_of(&lab, "router:eth0", &packets);
    }
}

#[test]
fn what_refuses_in_a_vrf_is_no_type_of_an_address() {
    use crate::model::InterfaceKind;
    decides(
        &[
            (
                "-m addrtype --dst-type LOCAL --limit-iface-in",
                "udp d=10.7.0.1",
                "udp d=10.8.0.1; udp d=10.9.0.1",
            ),
            ("-m addrtype --dst-type BLACKHOLE --limit-iface-in", "", "udp d=10.8.0.1; udp d=10.9.0.1"),
            (
                "-i eth0 -m addrtype --dst-type UNICAST --limit-iface-in",
                "udp d=10.8.0.1; udp d=10.9.0.1",
                "udp d=10.7.0.1",
            ),
        ],
        |condition| {
            let mut lab = raw(condition);
            lab.device("router", "red", InterfaceKind::Vrf(100), &[])
                .change("router", "eth0", |i| i.master = Some("red".into()));
            lab.route("router", "local 10.7.0.1/32 dev eth0 table 100");
            lab.route("router", "blackhole 10.8.0.0/16 table 100");
            lab.route("router", "blackhole 10.9.0.0/16 table 255");
            lab
        },
    );
}

#[test]
fn an_address_is_local_to_the_device_that_a_packet_leaves_by() {
    for (condition, rows) in [
        (
            "--src-type LOCAL --limit-iface-out",
            [("udp s=10.0.2.1", "router OUTPUT 1"), ("udp s=10.0.1.1", "server")],
        ),
        (
            "--src-type UNICAST --limit-iface-out",
            [("udp s=10.0.2.1", "server"), ("udp s=10.0.1.1", "router OUTPUT 1")],
        ),
        ("--src-type LOCAL", [("udp s=10.0.2.1", "router OUTPUT 1"), ("udp s=10.0.1.1", "router OUTPUT 1")]),
    ] {
        let mut lab = Build::line();
        let rule = format!("-A OUTPUT -m addrtype {condition} -j DROP");
        lab.rules("router", &format!("*filter\n:OUTPUT ACCEPT\n{rule}"));
        become_of(&lab, "router", &rows);
    }
}

#[test]
fn whether_a_flow_of_udp_is_assured_depends_on_its_age() {
    let open = "router FORWARD 1 | server";
    for (condition, text, turns, wanted) in [
        ("--ctstatus ASSURED", "udp", 1, "server"),
        ("--ctstatus ASSURED", "udp", 3, open),
        ("! --ctstatus ASSURED", "udp", 1, "router FORWARD 1"),
        ("--ctstatus ASSURED", "icmp", 3, "server"),
        ("--ctstatus SEEN_REPLY", "udp", 3, "router FORWARD 1"),
        ("--ctstatus ASSURED,SEEN_REPLY", "udp", 3, "router FORWARD 1"),
    ] {
        let mut lab = Build::line();
        let rule = format!("-A FORWARD -i eth0 -m conntrack {condition} -j DROP");
        lab.rules("router", &format!("*filter\n:FORWARD ACCEPT\n{rule}"));
        assert_eq!(talk(&lab, "client", &packet(text), turns), wanted, "{condition} {text} {turns}");
    }
}
