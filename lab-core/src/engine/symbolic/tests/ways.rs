//! By which route, link and address packets go where several would do.

use super::route::ruled;
use super::told::{become_of, packet, talk, told};
use crate::addr::Family;
use crate::engine::stepper::tests::build::Build;
use crate::model::PolicyRule;

#[test]
fn what_ipv6_has_in_its_tables_is_nothing_to_ipv4() {
    let mut lab = Build::line();
    // The bits that 10.0.0.0/16 and 10.0.2.0/24 have, of another family.
    lab.route("router", "local a00::/16 dev lo table 255")
        .route("router", "a00:200::/24 via fd02::2 dev eth1");
    become_of(&lab, "client", &[("udp", "server"), ("udp d=10.0.2.1", "router")]);
}

#[test]
fn routes_of_ipv6_to_one_prefix_with_one_metric_are_one_route() {
    let source = |lab: &mut Build, net: &str| {
        lab.get("router").routes.last_mut().unwrap().source = net.parse().ok();
    };
    for (metrics, sources, wanted) in [
        ((1, 1), ("", ""), "router host-unreachable | server"),
        ((1, 2), ("", ""), "server"),
        ((2, 1), ("", ""), "router host-unreachable"),
        ((1, 1), ("fd01::/64", "fd01::/64"), "router host-unreachable | server"),
        ((1, 1), ("fd01::/64", ""), "server"),
        ((1, 1), ("", "fd01::/64"), "router host-unreachable"),
        ((1, 1), ("", "fd05::/64"), "server"),
    ] {
        let mut lab = Build::line();
        lab.device("server", "dummy0", crate::model::InterfaceKind::Dummy, &["fd07::1/128"]);
        lab.route("router", &format!("fd07::/64 via fd02::2 dev eth1 metric {}", metrics.0));
        source(&mut lab, sources.0);
        lab.route("router", &format!("fd07::/64 via fd02::9 dev eth1 metric {}", metrics.1));
        source(&mut lab, sources.1);
        let told = told(&lab, "client", &packet("udp6 d=fd07::1"));
        assert_eq!(told, wanted, "{metrics:?} {sources:?}");
    }
}

/// RFC 6724: of the addresses of the device, the one that has most in common with
/// the destination.
#[test]
fn a_socket_without_an_address_of_ipv6_sends_from_the_one_next_to_the_destination() {
    let mut lab = Build::line();
    lab.change("client", "eth0", |i| {
        let mut other = i.addresses[1].clone();
        other.address = "fd02:5::2".parse().unwrap();
        i.addresses.push(other);
    });
    lab.rules("client", "# ip6tables\n*filter\n:OUTPUT ACCEPT\n-A OUTPUT -s fd02:5::2/128 -j DROP");
    become_of(
        &lab,
        "client",
        &[
            ("udp6 s=:: d=fd02:5::9", "client OUTPUT 1"),
            ("udp6 s=:: d=fd02::2", "client OUTPUT 1"),
            ("udp6 s=:: d=fd01::1", "router"),
            ("udp6 s=:: d=fd01:5::2", "router no-route"),
        ],
    );
}

/// Tunnels that have a link ask for a route by it.
#[test]
fn policy_rules_see_the_device_that_a_packet_must_leave_by() {
    use crate::model::{InterfaceKind, Tunnel, TunnelKind};
    let tunnel = |lab: &mut Build, host: &str, ends: (&str, &str), link: &str| {
        let tunnel = Tunnel {
            local: ends.0.parse().ok(),
            remote: ends.1.parse().ok(),
            link: (!link.is_empty()).then(|| link.into()),
            ..Tunnel::new(TunnelKind::Gre)
        };
        let address = if host == "router" { "10.9.0.1/24" } else { "10.9.0.2/24" };
        lab.device(host, "tun0", InterfaceKind::Tunnel(tunnel), &[address]);
        lab.change(host, "tun0", |i| i.mtu = 1476);
    };
    for (link, rule, arrives) in
        [("", "eth1", true), ("eth1", "eth1", false), ("eth1", "eth0", true), ("", "eth0", true)]
    {
        let mut lab = ruled(|r| r.oif = Some(rule.into()));
        tunnel(&mut lab, "router", ("10.0.2.1", "10.0.2.2"), link);
        tunnel(&mut lab, "server", ("10.0.2.2", "10.0.2.1"), "");
        let told = told(&lab, "router", &packet("udp s=10.9.0.1 d=10.9.0.2"));
        assert_eq!(told == "server:tun0", arrives, "{link} {rule}: {told}");
    }
    // A port of a VRF is a link in its table; the VRF itself is none.
    for (link, rule, wanted) in
        [("eth1", "eth1", false), ("eth1", "eth0", true), ("red", "eth1", true), ("red", "eth0", true)]
    {
        let mut lab = ruled(|r| r.oif = Some(rule.into()));
        lab.device("router", "red", InterfaceKind::Vrf(254), &[])
            .change("router", "eth1", |i| i.master = Some("red".into()));
        tunnel(&mut lab, "router", ("10.0.2.1", "10.0.2.2"), link);
        tunnel(&mut lab, "server", ("10.0.2.2", "10.0.2.1"), "");
        let told = told(&lab, "router", &packet("udp s=10.9.0.1 d=10.9.0.2"));
        assert_eq!(told == "server:tun0", wanted, "{link} {rule}: {told}");
    }
    // Of equal routes of IPv6, the one by the link is taken.
    for (link, wanted) in [
        ("", "router host-unreachable | server:tun0"),
        ("eth1", "server:tun0"),
        ("eth0", "router host-unreachable"),
    ] {
        let mut lab = Build::line();
        lab.device("server", "dummy0", InterfaceKind::Dummy, &["fd07::1/128"]);
        lab.route("router", "fd07::/64 via fd01::9 dev eth0")
            .route("router", "fd07::/64 via fd02::2 dev eth1");
        for (host, ends, link, address) in [
            ("router", ("fd02::1", "fd07::1"), link, "10.9.0.1/24"),
            ("server", ("fd07::1", "fd02::1"), "", "10.9.0.2/24"),
        ] {
            let tunnel = Tunnel {
                local: ends.0.parse().ok(),
                remote: ends.1.parse().ok(),
                link: (!link.is_empty()).then(|| link.into()),
                ..Tunnel::new(TunnelKind::Ip6tnl)
            };
            lab.device(host, "tun0", InterfaceKind::Tunnel(tunnel), &[address]);
            lab.change(host, "tun0", |i| i.mtu = 1440);
        }
        become_of(&lab, "router", &[("udp s=10.9.0.1 d=10.9.0.2", wanted)]);
    }
}

#[test]
fn whether_a_policy_rule_means_a_vrf_by_its_name_is_open() {
    use crate::model::InterfaceKind;
    for (change, wanted) in [
        ((|r| r.oif = Some("red".into())) as fn(&mut PolicyRule), "?"),
        (|r| r.oif = Some("eth1".into()), "server"),
        (|r| (r.oif, r.source) = (Some("red".into()), "10.0.3.0/24".parse().ok()), "server"),
    ] {
        let mut lab = ruled(change);
        lab.device("router", "red", InterfaceKind::Vrf(254), &[])
            .change("router", "eth0", |i| i.master = Some("red".into()));
        become_of(&lab, "router:eth0", &[("udp", wanted)]);
    }
}

#[test]
fn a_link_local_destination_is_looked_up_on_the_link_that_the_packet_came_by() {
    for (device, unmodelled, wanted) in [
        ("eth0", "", "router host-unreachable"),
        ("eth1", "", "router no-route"),
        ("eth0", "nexthop object 7", "?"),
        ("eth1", "nexthop object 7", "?"),
    ] {
        let mut lab = Build::line();
        lab.route("router", &format!("fe80::/64 dev {device}"));
        lab.get("router").routes.last_mut().unwrap().unmodelled = unmodelled.into();
        become_of(&lab, "router:eth0", &[("udp6 s=fe80::7 d=fe80::9", wanted)]);
    }
}

#[test]
fn nothing_is_known_of_what_passes_where_it_is_not_told_whether_a_host_forwards() {
    for (family, others, own) in [("ipv4", "udp", "udp d=10.0.2.1"), ("ipv6", "udp6", "udp6 d=fd02::1")] {
        for (value, passes) in [(None, "?"), (Some("0"), "router not-forwarding"), (Some("1"), "server")] {
            let mut lab = Build::line();
            let told = &mut lab.get("router").sysctls.0;
            told.retain(|key, _| !key.starts_with(&format!("net.{family}")) || key.ends_with("rp_filter"));
            if let Some(value) = value {
                told.insert(format!("net.{family}.conf.all.forwarding"), value.into());
                told.insert(format!("net.{family}.conf.eth0.forwarding"), value.into());
            }
            become_of(
                &lab,
                "router:eth0",
                &[(others, passes), (own, "router:eth1")]
                    .map(|(text, wanted)| (text, if wanted == "router:eth1" { "router" } else { wanted })),
            );
        }
    }
}

#[test]
fn an_answer_to_what_came_in_pieces_is_whole_again() {
    let mut lab = Build::line();
    lab.change("router", "eth1", |i| i.mtu = 1000);
    for (length, there, back) in [(1500, "server", "router mtu"), (900, "server", "client")] {
        let packet = packet(&format!("udp df=0 len={length}"));
        assert_eq!(talk(&lab, "client", &packet, 1), there);
        assert_eq!(talk(&lab, "client", &packet, 2), back);
    }
}

/// `is_skb_forwardable`: a veth takes its own MTU and a tag, 4 bytes.
#[test]
fn a_frame_may_be_longer_than_the_far_end_takes_by_a_tag() {
    for (mtu, wanted) in [(1500, "server"), (1496, "server"), (1495, "server mtu")] {
        let mut lab = Build::line();
        lab.change("server", "eth0", |i| i.mtu = mtu);
        become_of(&lab, "client", &[("udp len=1500", wanted), ("udp len=1400", "server")]);
    }
}

/// `vxlan_xmit` lets its outer packets be cut.
#[test]
fn what_a_host_sends_into_a_vxlan_arrives_though_its_outer_packet_is_too_long() {
    let mut lab = Build::line();
    lab.vxlan([("client", "10.0.1.1", "10.9.0.2/24"), ("router", "10.0.1.2", "10.9.0.1/24")]);
    for length in [1450, 1451, 1500] {
        let packet = packet(&format!("tcp s=10.9.0.2 d=10.9.0.1 len={length}"));
        assert_eq!(told(&lab, "client", &packet), "router:vx0", "{length}");
    }
}

/// What is wrapped has the addresses of its wrapping, and no ports either.
#[test]
fn between_the_same_ends_each_protocol_has_a_connection_of_its_own() {
    use crate::model::{InterfaceKind, PolicyAction, RouteTable, Tunnel, TunnelKind};
    for (condition, wanted) in [
        ("-p 4 -m conntrack --ctproto 4", "client OUTPUT 1"),
        ("-p 50 -m conntrack --ctproto 50", "client OUTPUT 1"),
        ("-p 4 -m conntrack --ctproto 50", "server tunnel-unknown"),
    ] {
        let mut lab = Build::line();
        let tunnel = Tunnel {
            local: "10.0.1.2".parse().ok(),
            remote: "10.0.2.2".parse().ok(),
            ..Tunnel::new(TunnelKind::Ipip)
        };
        lab.device("client", "tun0", InterfaceKind::Tunnel(tunnel), &[]);
        lab.route("client", "default dev tun0 table 7");
        let inside = PolicyRule::new(Family::Ipv4, 100, PolicyAction::Lookup(RouteTable(7)));
        lab.get("client").rules = PolicyRule::initial(Family::Ipv4);
        lab.get("client").rules.insert(1, PolicyRule { fwmark: Some((1, 1)), ..inside });
        lab.rules("client", &format!("*filter\n:OUTPUT ACCEPT\n-A OUTPUT {condition} -j DROP"));
        assert_eq!(told(&lab, "client", &packet("50 mark=1")), wanted, "{condition}");
    }
}
