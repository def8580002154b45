//! VRFs: tables of their own, and hooks that run twice.

use std::net::IpAddr;

use ipnet::IpNet;

use super::build::{ping, tcp, udp, Build};
use super::{rule, seen, stage};
use crate::addr::Family;
use crate::engine::explore::Choices;
use crate::engine::journey::Journey;
use crate::engine::stepper::{walk, Entry, Sender, World};
use crate::model::{InterfaceKind, Outcome, PolicyAction, PolicyRule, RouteTable, Stage, TcpFlags};
use crate::semantics::routing::{lookup, Flow, Lookup};
use crate::semantics::source::for_route;

/// A line whose router has these devices in a VRF.
pub(super) fn line(ports: &[&str]) -> Build {
    let mut lab = Build::line();
    lab.device("router", "red", InterfaceKind::Vrf(10), &[]);
    for port in ports {
        lab.change("router", port, |i| i.master = Some("red".into()));
        let router = lab.get("router");
        for route in &mut router.routes {
            if route.next_hops.iter().any(|h| h.interface.as_deref() == Some(port)) {
                route.table = RouteTable(10);
            }
        }
    }
    let router = lab.get("router");
    for family in [Family::Ipv4, Family::Ipv6] {
        router.rules.extend(PolicyRule::initial(family));
        router.rules.push(PolicyRule::new(family, 1000, PolicyAction::LookupVrf));
    }
    router.rules.sort_by_key(|r| r.priority);
    lab
}

fn bound(lab: &Build, dst: &str) -> Journey {
    let entry = Entry::SendBound("router".into(), Sender::Socket, "red".into());
    let packet = tcp(("0.0.0.0", 1), (dst, 22), TcpFlags::SYN);
    walk(&lab.lab, &mut World::default(), &mut Choices::default(), &entry, &packet)
}

#[test]
fn packets_of_a_vrf_are_routed_by_its_table() {
    let lab = line(&["eth0", "eth1"]);
    assert_eq!(seen(&lab.send(&[("client", ping("0.0.0.0", "10.0.2.2"))])).ttl, 63);
}

#[test]
fn a_vrf_whose_table_says_nothing_goes_on_to_the_main_table() {
    let mut lab = line(&["eth0"]);
    seen(&lab.send(&[("client", ping("0.0.0.0", "10.0.2.2"))]));
    lab.route("router", "unreachable default table 10");
    let journey = lab.send(&[("client", ping("0.0.0.0", "10.0.2.2"))]);
    assert_eq!(*stage(&journey), Stage::HostUnreachable);
}

#[test]
fn what_is_delivered_in_a_vrf_came_by_its_port() {
    let lab = line(&["eth0", "eth1"]);
    let journey = lab.send(&[("client", ping("0.0.0.0", "10.0.1.1"))]);
    assert!(matches!(&journey.outcome, Outcome::Delivered { at, .. } if at.to_string() == "router:eth0"));
}

#[test]
fn only_a_socket_that_is_bound_to_a_vrf_sends_in_it() {
    let lab = line(&["eth0", "eth1"]);
    let journey = lab.send(&[("router", ping("0.0.0.0", "10.0.2.2"))]);
    assert_eq!(*stage(&journey), Stage::Send("ENETUNREACH".into()));
    assert_eq!(seen(&bound(&lab, "10.0.2.2")).src.to_string(), "10.0.2.1");
}

#[test]
fn prerouting_sees_the_port_and_then_the_vrf() {
    for (device, number) in [("eth0", 1), ("red", 1)] {
        let mut lab = line(&["eth0", "eth1"]);
        lab.rules("router", &format!("*raw\n:PREROUTING ACCEPT [0:0]\n-A PREROUTING -i {device} -j DROP"));
        let journey = lab.send(&[("client", ping("0.0.0.0", "10.0.2.2"))]);
        assert_eq!(rule(&journey), ("raw", "PREROUTING", Some(number)), "{device}");
    }
}

#[test]
fn forward_and_input_see_the_vrf_come_in_and_the_port_go_out() {
    let rules = "*filter\n:FORWARD DROP [0:0]\n:INPUT DROP [0:0]\n\
        -A FORWARD -i red -o eth1 -j ACCEPT\n-A INPUT -i red -j ACCEPT";
    let mut lab = line(&["eth0", "eth1"]);
    lab.rules("router", rules);
    seen(&lab.send(&[("client", ping("0.0.0.0", "10.0.2.2"))]));
    seen(&lab.send(&[("client", ping("0.0.0.0", "10.0.1.1"))]));
}

#[test]
fn output_sees_what_a_vrf_sends_untracked_first_and_then_by_its_port() {
    for (condition, stops) in [
        ("-o red -m conntrack --ctstate UNTRACKED", true),
        ("-o red -m conntrack --ctstate NEW", false),
        ("-o eth1 -m conntrack --ctstate NEW", true),
        ("-o eth1 -m conntrack --ctstate UNTRACKED", false),
    ] {
        let mut lab = line(&["eth0", "eth1"]);
        lab.rules("router", &format!("*filter\n:OUTPUT ACCEPT [0:0]\n-A OUTPUT {condition} -j DROP"));
        let dropped = matches!(bound(&lab, "10.0.2.2").outcome, Outcome::Dropped { .. });
        assert_eq!(dropped, stops, "{condition}");
    }
}

#[test]
fn nat_of_what_a_vrf_sends_happens_at_its_port() {
    let mut lab = line(&["eth0", "eth1"]);
    lab.rules(
        "router",
        "*nat\n:POSTROUTING ACCEPT [0:0]\n-A POSTROUTING -o red -j SNAT --to-source 10.0.2.7",
    );
    assert_eq!(seen(&bound(&lab, "10.0.2.2")).src.to_string(), "10.0.2.1");
    let mut lab = line(&["eth0", "eth1"]);
    lab.rules(
        "router",
        "*nat\n:POSTROUTING ACCEPT [0:0]\n-A POSTROUTING -o eth1 -j SNAT --to-source 10.0.2.7",
    );
    assert_eq!(seen(&bound(&lab, "10.0.2.2")).src.to_string(), "10.0.2.7");
}

#[test]
fn what_a_vrf_sends_to_itself_is_translated_where_it_comes_in() {
    let mut lab = line(&["eth0", "eth1"]);
    lab.rules(
        "router",
        "*nat\n:INPUT ACCEPT [0:0]\n:POSTROUTING ACCEPT [0:0]\n\
         -A INPUT -j SNAT --to-source 10.0.1.8\n-A POSTROUTING -o red -j SNAT --to-source 10.0.1.7",
    );
    assert_eq!(seen(&bound(&lab, "10.0.1.1")).src.to_string(), "10.0.1.8");
}

#[test]
fn a_vrf_reaches_its_own_addresses_by_its_device() {
    let lab = line(&["eth0", "eth1"]);
    let journey = bound(&lab, "10.0.1.1");
    assert!(matches!(&journey.outcome, Outcome::Delivered { at, .. } if at.to_string() == "router:red"));
}

#[test]
fn the_reverse_path_in_a_vrf_is_that_of_the_port_by_its_own_setting() {
    // From nowhere known, and from the net of another port.
    for src in ["10.0.9.1", "10.0.2.9"] {
        for (setting, drops) in [("all", true), ("eth0", true), ("red", false), ("eth1", false)] {
            let mut lab = line(&["eth0", "eth1"]);
            for device in ["all", "eth0", "eth1", "red"] {
                let on = u8::from(device == setting);
                lab.sysctl("router", &format!("net.ipv4.conf.{device}.rp_filter"), on);
            }
            for dst in ["10.0.2.2", "10.0.1.1"] {
                let journey = lab.send(&[("router:eth0", udp((src, 1), (dst, 53)))]);
                let dropped = matches!(journey.outcome, Outcome::Dropped { .. });
                assert_eq!(dropped, drops, "{src} to {dst}, {setting}");
                assert!(!drops || *stage(&journey) == Stage::RpFilter);
            }
        }
    }
}

#[test]
fn whether_a_packet_in_a_vrf_is_forwarded_its_port_says_for_ipv4() {
    for (device, forwarded) in [("eth0", false), ("red", true)] {
        let mut lab = line(&["eth0", "eth1"]);
        lab.sysctl("router", &format!("net.ipv4.conf.{device}.forwarding"), 0);
        let journey = lab.send(&[("client", ping("0.0.0.0", "10.0.2.2"))]);
        assert_eq!(matches!(journey.outcome, Outcome::Delivered { .. }), forwarded, "{device}");
    }
}

#[test]
fn a_policy_rule_sees_the_port_for_ipv4_and_the_vrf_for_ipv6() {
    let journey = |family, dst: &str, iif: &str| {
        let mut lab = line(&["eth0", "eth1"]);
        let rule = PolicyRule {
            iif: Some(iif.into()),
            destination: dst.parse::<IpAddr>().ok().map(IpNet::from),
            ..PolicyRule::new(family, 50, PolicyAction::Blackhole)
        };
        lab.get("router").rules.insert(1, rule);
        let src = if family == Family::Ipv4 { "0.0.0.0" } else { "::" };
        lab.send(&[("client", ping(src, dst))])
    };
    assert_eq!(*stage(&journey(Family::Ipv4, "10.0.2.2", "eth0")), Stage::Blackhole);
    seen(&journey(Family::Ipv6, "fd02::2", "eth0"));
    assert_eq!(*stage(&journey(Family::Ipv6, "fd02::2", "red")), Stage::Blackhole);
    // Kernels differ in whether it means the VRF's ports, too.
    assert!(matches!(stage(&journey(Family::Ipv4, "10.0.2.2", "red")), Stage::Unmodelled(_)));
}

#[test]
fn an_error_is_routed_in_the_vrf_of_the_device_that_has_the_packet() {
    // Rejected at FORWARD: in the VRF it came in by.
    let mut lab = line(&["eth0", "eth1"]);
    lab.rules("router", "*filter\n:FORWARD ACCEPT [0:0]\n-A FORWARD -j REJECT");
    let journey = lab.send(&[("client", ping("0.0.0.0", "10.0.2.2"))]);
    assert!(matches!(&journey.outcome, Outcome::Rejected { answer, .. } if answer.came_back));
    // Nobody answers on a device outside the VRF: there the way back is unknown.
    let mut lab = line(&["eth0"]);
    lab.route("router", "10.0.2.0/24 dev eth1 table 10");
    let journey = lab.send(&[("client", ping("0.0.0.0", "10.0.2.77"))]);
    assert_eq!(*stage(&journey), Stage::NeighbourFailed);
}

#[test]
fn what_a_vrf_sends_to_nowhere_comes_to_the_host_itself() {
    let lab = line(&["eth0", "eth1"]);
    for (src, nowhere) in [("10.0.1.1", "0.0.0.0"), ("fd01::1", "::")] {
        let entry = Entry::SendBound("router".into(), Sender::Raw, "red".into());
        let packet = tcp((src, 1), (nowhere, 80), TcpFlags::SYN);
        let journey = walk(&lab.lab, &mut World::default(), &mut Choices::default(), &entry, &packet);
        assert!(matches!(&journey.outcome, Outcome::Delivered { at, .. } if at.to_string() == "router:lo"));
    }
}

#[test]
fn an_icmpv6_error_in_a_vrf_prefers_the_one_address_of_the_device_to_that_of_its_sender() {
    let mut lab = line(&["eth0", "eth1"]);
    lab.route("router", "unreachable 2001:db8::/32 table 10");
    // The sender claims an address of the router's other side.
    let packet = || udp(("fd01::1", 1), ("2001:db8::1", 53));
    let from = |lab: &Build| match lab.send(&[("router:eth1", packet())]).outcome {
        Outcome::Rejected { answer, .. } => answer.from_addr.to_string(),
        other => panic!("{other:?}"),
    };
    assert_eq!(from(&lab), "fd02::1");
    // Where there are two to choose from, it looks further.
    let mut second = lab.get("router").interface("eth0").unwrap().addresses.clone();
    second.retain(|a| a.address.is_ipv6());
    second[0].address = "fd07::1".parse().unwrap();
    lab.change("router", "red", |i| i.addresses = second.clone());
    assert_eq!(from(&lab), "fd01::1");
}

#[test]
fn a_vrf_takes_packets_from_the_loopback_address() {
    let lab = line(&["eth0", "eth1"]);
    let entry = Entry::SendBound("router".into(), Sender::Raw, "red".into());
    let packet = tcp(("::1", 1), ("fd01::1", 80), TcpFlags::SYN);
    let journey = walk(&lab.lab, &mut World::default(), &mut Choices::default(), &entry, &packet);
    assert!(matches!(&journey.outcome, Outcome::Delivered { at, .. } if at.to_string() == "router:red"));
}

#[test]
fn nothing_is_claimed_of_what_a_vrf_sends_to_all() {
    let lab = line(&["eth0", "eth1"]);
    let entry = Entry::SendBound("router".into(), Sender::Raw, "red".into());
    let packet = udp(("10.0.1.1", 1), ("255.255.255.255", 67));
    let journey = walk(&lab.lab, &mut World::default(), &mut Choices::default(), &entry, &packet);
    assert!(matches!(stage(&journey), Stage::Unmodelled(_)));
}

/// A line with one port in a VRF, whose table leads out by the other.
fn leaking() -> Build {
    let mut lab = line(&["eth0"]);
    for route in [
        "10.0.2.0/24 dev eth1 table 10",
        "10.0.3.0/24 dev eth1 src 10.0.2.1 table 10",
        "fd02::/64 dev eth1 table 10",
        "fd03::/64 dev eth1 src fd02::1 table 10",
    ] {
        lab.route("router", route);
    }
    lab
}

#[test]
fn a_route_out_of_a_vrf_lends_it_no_source() {
    let lab = leaking();
    for (dst, src) in [("10.0.2.2", "10.0.1.1"), ("fd02::2", "fd01::1")] {
        let entry = Entry::SendBound("router".into(), Sender::Socket, "red".into());
        let nobody = if src.contains(':') { "::" } else { "0.0.0.0" };
        let packet = tcp((nobody, 1), (dst, 22), TcpFlags::SYN);
        let journey = walk(&lab.lab, &mut World::default(), &mut Choices::default(), &entry, &packet);
        assert_eq!(seen(&journey).src.to_string(), src);
    }
    // Nor does one that names a source.
    for (dst, src) in [("10.0.3.2", "10.0.1.1"), ("fd03::2", "fd01::1")] {
        let router = lab.lab.host("router").unwrap();
        let flow = Flow { oif: Some("red"), ..Flow::to(dst.parse().unwrap()) };
        let Lookup::Found(route, hops) = lookup(router, &flow) else { panic!("{dst}") };
        let found = for_route(router, route, hops.first().copied(), flow.dst, router.interface("red"));
        assert_eq!(found.map(|a| a.to_string()).as_deref(), Some(src));
    }
}

#[test]
fn an_icmpv6_error_to_another_vrfs_address_comes_from_its_own() {
    let lab = leaking();
    let journey = |src: &str| {
        let entry = Entry::SendBound("router".into(), Sender::Raw, "red".into());
        let packet = tcp((src, 1), ("fd01::77", 80), TcpFlags::SYN);
        walk(&lab.lab, &mut World::default(), &mut Choices::default(), &entry, &packet)
    };
    match journey("fd02::1").outcome {
        Outcome::Rejected { answer, .. } => assert_eq!(answer.from_addr.to_string(), "fd01::1"),
        other => panic!("{other:?}"),
    }
    // To the loopback's, only the VRF's device could speak, which has none.
    assert_eq!(*stage(&journey("::1")), Stage::NeighbourFailed);
}

#[test]
fn a_socket_of_another_device_finds_no_loopback_there_for_ipv6() {
    let lab = Build::line();
    for (src, nowhere, itself) in [("10.0.1.1", "0.0.0.0", true), ("fd01::1", "::", false)] {
        let entry = Entry::SendBound("router".into(), Sender::Raw, "eth0".into());
        let packet = tcp((src, 1), (nowhere, 80), TcpFlags::SYN);
        let journey = walk(&lab.lab, &mut World::default(), &mut Choices::default(), &entry, &packet);
        let came = matches!(&journey.outcome, Outcome::Delivered { at, .. } if at.host == "router");
        assert_eq!(came, itself, "{nowhere}: {:?}", journey.outcome);
    }
}
