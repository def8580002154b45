//! Addresses that are special, and those that are not any more.

use super::build::{ping, tcp, udp, Build};
use super::{answer, seen, stage};
use crate::engine::explore::Choices;
use crate::engine::stepper::{walk, Entry, Sender, World};
use crate::model::{AnswerKind, Decision, Outcome, RouteKind, Stage, TcpFlags};

#[test]
fn all_of_the_zero_net_but_its_first_address_is_forwarded_like_any_other() {
    let mut lab = Build::line();
    lab.route("router", "0.0.0.0/8 via 10.0.1.2 dev eth0");
    let from = |src| [("router:eth0", udp((src, 1), ("10.0.2.2", 53)))];
    assert_eq!(seen(&lab.send(&from("0.0.0.1"))).ttl, 63);
    assert_eq!(*stage(&lab.send(&from("0.0.0.0"))), Stage::MartianSource);
}

#[test]
fn what_a_raw_socket_sends_to_nowhere_comes_to_the_host_itself() {
    let mut lab = Build::line();
    // Routed again because of its mark, it still does.
    lab.rules("client", "*mangle\n:OUTPUT ACCEPT [0:0]\n-A OUTPUT -j MARK --set-mark 1");
    for (src, nowhere) in [("10.0.1.2", "0.0.0.0"), ("fd01::2", "::")] {
        let entry = Entry::Send("client".into(), Sender::Raw);
        let packet = tcp((src, 1), (nowhere, 80), TcpFlags::SYN);
        let journey = walk(&lab.lab, &mut World::default(), &mut Choices::default(), &entry, &packet);
        assert!(journey.unknown.is_empty());
        assert!(matches!(&journey.outcome, Outcome::Delivered { at, seen }
                if at.to_string() == "client:lo" && seen.dst == packet.dst));
    }
}

#[test]
fn what_a_raw_socket_sends_to_nowhere_of_ipv6_is_routed_again_as_any_other() {
    let sent = |rules: &str| {
        let mut lab = Build::line();
        lab.rules("client", &format!("# ip6tables\n*mangle\n:OUTPUT ACCEPT [0:0]\n-A OUTPUT {rules}"));
        let packet = tcp(("fd01::2", 1), ("::", 80), TcpFlags::SYN);
        let entry = Entry::Send("client".into(), Sender::Raw);
        let journey = walk(&lab.lab, &mut World::default(), &mut Choices::default(), &entry, &packet);
        let hop = journey.hops().next().map(|hop| hop.at.to_string());
        hop.unwrap()
    };
    assert_eq!(sent("-m mark --mark 1 -j MARK --set-mark 1"), "client:lo");
    for change in ["-j MARK --set-mark 1", "-j HL --hl-dec 1"] {
        assert_eq!(sent(change), "client:eth0", "{change}");
    }
}

#[test]
fn no_reset_answers_what_was_sent_to_nowhere_or_an_ipv4_address() {
    let mut lab = Build::line();
    let reject = "-p tcp -j REJECT --reject-with tcp-reset";
    lab.rules("router", &format!("# ip6tables\n*filter\n:FORWARD ACCEPT [0:0]\n-A FORWARD {reject}"));
    lab.route("router", "default via fd02::2 dev eth1");
    let to = |dst| lab.send(&[("router:eth0", tcp(("fd01::2", 1), (dst, 80), TcpFlags::SYN))]).outcome;
    assert!(matches!(to("fd03::1"), Outcome::Rejected { .. }));
    for dst in ["::", "::ffff:10.0.0.1"] {
        assert!(matches!(to(dst), Outcome::Dropped { .. }), "{dst}");
    }
}

#[test]
fn a_router_forwards_ipv6_to_nowhere_as_its_routes_say() {
    let mut lab = Build::line();
    let packet = || udp(("fd02::2", 1), ("::", 53));
    let journey = lab.send(&[("router:eth1", packet())]);
    assert_eq!(answer(&journey).kind, AnswerKind::Icmp6(1, 0));
    lab.route("router", "blackhole ::/0");
    assert_eq!(*stage(&lab.send(&[("router:eth1", packet())])), Stage::Blackhole);
}

#[test]
fn no_icmpv6_error_goes_to_the_first_address_of_a_prefix() {
    let lab = Build::line();
    let from = |src| [("router:eth0", ping(src, "2001:db8::1"))];
    assert_eq!(answer(&lab.send(&from("fd01::2"))).kind, AnswerKind::Icmp6(1, 0));
    assert!(matches!(lab.send(&from("fd01::")).outcome, Outcome::Dropped { .. }));
}

#[test]
fn an_icmpv6_error_about_a_packet_to_a_routers_anycast_address_comes_from_there() {
    let mut lab = Build::line();
    lab.route("router", "fd02::/128 dev eth1 table 255");
    lab.get("router").routes.last_mut().unwrap().kind = RouteKind::Anycast;
    let with = "--reject-with icmp6-adm-prohibited";
    lab.rules("router", &format!("*filter\n:INPUT ACCEPT [0:0]\n-A INPUT -j REJECT {with}"));
    let journey = lab.send(&[("router:eth0", udp(("fd01::2", 1), ("fd02::", 53)))]);
    assert_eq!(answer(&journey).from_addr.to_string(), "fd02::");
}

/// `icmp6_send`: such an address is one of the link that has the packet.
#[test]
fn an_icmpv6_error_to_a_link_local_address_leaves_by_the_link_that_has_the_packet() {
    let mut lab = Build::line();
    lab.rules(
        "router",
        "# ip6tables\n*nat\n:POSTROUTING ACCEPT [0:0]\n-A POSTROUTING -j SNAT --to-source fe80::1",
    );
    lab.route("router", "default via fd01::2 dev eth0");
    let unknown = udp(("fd01::2", 22), ("fd02::9", 53));
    assert_eq!(lab.send(&[("client", unknown.clone())]).outcome.name(), "dropped");
    lab.route("router", "default via fd02::2 dev eth1");
    let journey = lab.send(&[("client", unknown)]);
    assert_eq!((answer(&journey).kind, answer(&journey).came_back), (AnswerKind::Icmp6(1, 3), true));
}

/// `rt6_need_strict`: what comes in by a wire finds no way to the loopback's
/// address, which no route by that wire has.
#[test]
fn what_is_sent_on_to_the_loopback_address_of_ipv6_has_no_route() {
    let mut lab = Build::line();
    lab.rules("router", "# ip6tables\n*nat\n:PREROUTING ACCEPT [0:0]\n-A PREROUTING -j DNAT --to ::1");
    let journey = lab.send(&[("client", udp(("fd01::2", 5), ("fd02::2", 53)))]);
    assert_eq!(*stage(&journey), Stage::NoRoute);
}

/// `nf_send_reset`: the route is one to everybody.
#[test]
fn a_broadcast_to_the_host_itself_is_not_reset() {
    let mut lab = Build::line();
    lab.route("client", "broadcast 127.255.255.255/32 dev lo table 255");
    lab.rules("client", "*filter\n:INPUT ACCEPT [0:0]\n-A INPUT -p tcp -j REJECT --reject-with tcp-reset");
    let journey = lab.send(&[("client", tcp(("127.0.0.1", 5), ("127.255.255.255", 80), TcpFlags::SYN))]);
    assert_eq!(journey.outcome.name(), "dropped");
}

#[test]
fn asked_of_another_device_a_router_s_anycast_address_of_ipv6_is_unreachable() {
    let mut lab = Build::line();
    lab.route("router", "fd02::/128 dev eth1 table 255");
    lab.get("router").routes.last_mut().unwrap().kind = RouteKind::Anycast;
    let types = "-m addrtype --src-type UNREACHABLE --limit-iface-in";
    lab.rules("router", &format!("# ip6tables\n*filter\n:FORWARD ACCEPT [0:0]\n-A FORWARD {types} -j DROP"));
    let by = |device: &str, dst| lab.send(&[(device, udp(("fd02::", 1), (dst, 53)))]).outcome;
    assert!(matches!(by("router:eth0", "fd02::2"), Outcome::Dropped { by: Decision::Rule(_) }));
    assert!(!matches!(by("router:eth1", "fd01::2"), Outcome::Dropped { by: Decision::Rule(_) }));
}

#[test]
fn the_reverse_path_test_of_a_rule_asks_nothing_about_packets_from_nowhere() {
    let dropped = |src, dst| {
        let mut lab = Build::line();
        for text in ["", "# ip6tables\n"] {
            let chain = "*raw\n:PREROUTING ACCEPT [0:0]\n-A PREROUTING -m rpfilter --invert -j DROP";
            lab.rules("router", &format!("{text}{chain}"));
        }
        let journey = lab.run(&mut Choices::default(), &[("router:eth0", udp((src, 1), (dst, 53)))]);
        matches!(journey.outcome, Outcome::Dropped { by: Decision::Rule(_) })
    };
    assert!(!dropped("::", "fd01::1"));
    assert!(!dropped("0.0.0.0", "255.255.255.255"));
    assert!(dropped("0.0.0.0", "239.0.0.1"));
    assert!(dropped("0.0.0.0", "10.0.1.1"));
}

#[test]
fn the_first_address_of_a_prefix_on_a_link_is_of_type_anycast_for_rules_of_ipv6() {
    let dropped = |dst, device: &str| {
        let mut lab = Build::line();
        let rule = format!("-A FORWARD -m addrtype --dst-type ANYCAST {device} -j DROP");
        lab.rules("router", &format!("# ip6tables\n*filter\n:FORWARD ACCEPT [0:0]\n{rule}"));
        let journey = lab.run(&mut Choices::default(), &[("router:eth0", udp(("fd01::2", 1), (dst, 53)))]);
        matches!(journey.outcome, Outcome::Dropped { by: Decision::Rule(_) })
    };
    assert!(dropped("fd02::", ""));
    assert!(dropped("fd02::", "--limit-iface-out"));
    assert!(!dropped("fd02::", "--limit-iface-in"));
    assert!(!dropped("fd02::2", ""));
}

#[test]
fn the_loopback_address_of_ipv6_neither_comes_nor_goes_by_a_wire() {
    let lab = Build::line();
    for (src, dst) in [("::1", "fd01::1"), ("fd01::2", "::1"), ("::1", "::1")] {
        assert_eq!(*stage(&lab.send(&[("router:eth0", udp((src, 1), (dst, 53)))])), Stage::Martian, "{src}");
    }
}

#[test]
fn of_a_broadcast_that_passes_nat_twice_nothing_is_known_if_a_chain_for_nat_marks_it() {
    let open = |rules: &str| {
        let mut lab = Build::line();
        lab.rules("client", rules);
        let journey =
            lab.run(&mut Choices::default(), &[("client", udp(("10.0.1.2", 1), ("10.0.1.255", 53)))]);
        !journey.unknown.is_empty()
    };
    let chain = ":POSTROUTING ACCEPT [0:0]\n-A POSTROUTING -j MARK --set-mark 1";
    let before = "*nat\n:PREROUTING ACCEPT [0:0]\n-A PREROUTING -j MARK --set-mark 1";
    assert!(!open(&format!("*mangle\n{chain}\nCOMMIT\n{before}")));
    assert!(open(&format!("*nat\n{chain}")));
}

/// The first copy confirms the connection before the second passes.
#[test]
fn of_a_broadcast_nothing_is_known_where_rules_ask_what_its_first_copy_left() {
    let open = |rules: &str| {
        let mut lab = Build::line();
        lab.chain("client", "lab", "filter hook postrouting priority 0; policy accept;", rules);
        let sent = [("client", udp(("10.0.1.2", 1), ("10.0.1.255", 53)))];
        !lab.run(&mut Choices::default(), &sent).unknown.is_empty()
    };
    assert!(open("ct status confirmed drop"));
    assert!(open("ct mark 1 drop\nct mark set 1"));
    for same in ["ct state new counter", "ct mark 1 drop", "ct mark set 1"] {
        assert!(!open(same), "{same}");
    }
}

#[test]
fn a_rule_that_accepts_local_sources_asks_ipv6_not_whose_address_it_is() {
    let passes = |family: &str, src, dst| {
        let mut lab = Build::line();
        let rule = "-A PREROUTING -m rpfilter --accept-local --invert -j DROP";
        lab.rules("router", &format!("{family}*raw\n:PREROUTING ACCEPT [0:0]\n{rule}"));
        let journey = lab.run(&mut Choices::default(), &[("router:eth0", udp((src, 1), (dst, 53)))]);
        !matches!(journey.outcome, Outcome::Dropped { by: Decision::Rule(_) })
    };
    assert!(passes("# ip6tables\n", "fd02::1", "fd01::1"));
    assert!(!passes("", "10.0.2.1", "10.0.1.1"));
    assert!(passes("", "10.0.1.1", "10.0.1.1"));
}

#[test]
fn to_a_local_prefix_of_ipv6_a_host_sends_from_an_address_of_its_own() {
    let mut lab = Build::line();
    lab.route("client", "local 2001:db8:5::/64 dev lo table 255");
    let journey = lab.send(&[("client", udp(("::", 1), ("2001:db8:5::1", 53)))]);
    assert_eq!(seen(&journey).src.to_string(), "fd01::2");
}
