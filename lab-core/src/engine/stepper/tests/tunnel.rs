//! GRE, IPIP, SIT, ip6tnl, and packets that are too big for them.

use super::build::{ping, tcp, udp, Build};
use super::{answer, rule, seen, stage};
use crate::engine::journey::{Event, Journey};
use crate::model::{
    AnswerKind, InterfaceKind, Outcome, Packet, Stage, TcpFlags, Tunnel, TunnelKind, Wireguard,
};

/// The outer packets of a journey.
pub(super) fn outer(journey: &Journey) -> Vec<&Packet> {
    let outer = journey.events.iter().filter_map(|e| match e {
        Event::Encapsulated { outer, .. } => Some(outer.as_ref()),
        _ => None,
    });
    outer.collect()
}

/// A line whose ends have a tunnel between them.
fn line(change: impl Fn(&mut Tunnel)) -> Build {
    let mut lab = Build::line();
    tunnel(&mut lab, TunnelKind::Gre, &change);
    lab
}

fn tunnel(lab: &mut Build, kind: TunnelKind, change: &impl Fn(&mut Tunnel)) {
    let ends = match kind.outer() {
        crate::addr::Family::Ipv4 => ["10.0.1.2", "10.0.2.2"],
        crate::addr::Family::Ipv6 => ["fd01::2", "fd02::2"],
    };
    for (host, own, far, number) in [("client", 0, 1, 1), ("server", 1, 0, 2)] {
        let mut made =
            Tunnel { local: ends[own].parse().ok(), remote: ends[far].parse().ok(), ..Tunnel::new(kind) };
        if host == "client" {
            change(&mut made);
        }
        let mtu = 1500 - made.overhead();
        let addresses = [format!("10.9.0.{number}/24"), format!("fd09::{number}/64")];
        let addresses = [addresses[0].as_str(), addresses[1].as_str()];
        lab.device(host, "tun0", InterfaceKind::Tunnel(made), &addresses);
        lab.change(host, "tun0", |i| i.mtu = mtu);
    }
}

fn long(length: u32, df: bool) -> Packet {
    Packet { length, df, ..tcp(("10.9.0.1", 1), ("10.9.0.2", 22), TcpFlags::SYN) }
}

#[test]
fn every_kind_of_tunnel_carries_what_it_can() {
    for kind in TunnelKind::ALL {
        for (dst, v6) in [("10.9.0.2", false), ("fd09::2", true)] {
            let mut lab = Build::line();
            tunnel(&mut lab, kind, &|_| {});
            let source = if v6 { "::" } else { "0.0.0.0" };
            let journey = lab.send(&[("client", udp((source, 1), (dst, 53)))]);
            let carries = match kind {
                TunnelKind::Ipip => !v6,
                TunnelKind::Sit => v6,
                _ => true,
            };
            let number = match (kind.is_gre(), v6) {
                (true, _) => 47,
                (false, false) => 4,
                (false, true) => 41,
            };
            if carries {
                assert!(
                    matches!(&journey.outcome, Outcome::Delivered { at, .. } if at.to_string() == "server:tun0"),
                    "{kind:?} {dst}: {:?}",
                    journey.outcome
                );
                assert_eq!(outer(&journey)[0].transport.protocol(), number, "{kind:?}");
            } else {
                assert_eq!(*stage(&journey), Stage::Silent, "{kind:?}");
            }
        }
    }
}

#[test]
fn the_outer_packet_is_one_of_the_hosts_own() {
    let mut lab = line(|_| {});
    lab.rules("client", "*filter\n:OUTPUT ACCEPT [0:0]\n-A OUTPUT -p gre -j DROP");
    assert_eq!(rule(&lab.send(&[("client", long(100, true))])), ("filter", "OUTPUT", Some(1)));
    let mut lab = line(|_| {});
    lab.rules("server", "*filter\n:INPUT ACCEPT [0:0]\n-A INPUT -i tun0 -s 10.9.0.1/32 -j DROP");
    assert_eq!(rule(&lab.send(&[("client", long(100, true))])), ("filter", "INPUT", Some(1)));
}

#[test]
fn a_tunnel_without_a_ttl_takes_that_of_the_packet_inside() {
    let packet = || Packet { ttl: 9, ..long(100, true) };
    assert_eq!(outer(&line(|t| t.ttl = 0).send(&[("client", packet())]))[0].ttl, 9);
    assert_eq!(outer(&line(|t| t.ttl = 5).send(&[("client", packet())]))[0].ttl, 5);
    // It runs out on the way, and the sender learns nothing.
    let journey = line(|t| t.ttl = 1).send(&[("client", packet())]);
    assert!(matches!(journey.outcome, Outcome::Dropped { .. }));
    assert_eq!(*stage(&journey), Stage::Ttl);
}

#[test]
fn a_tunnel_with_another_key_or_remote_takes_nothing() {
    let key = line(|t| t.key_out = Some(7)).send(&[("client", long(100, true))]);
    assert_eq!(*stage(&key), Stage::TunnelUnknown);
    let mut lab = line(|_| {});
    let far = "10.0.1.3".parse().ok();
    lab.change("server", "tun0", |i| {
        if let InterfaceKind::Tunnel(tunnel) = &mut i.kind {
            tunnel.remote = far;
        }
    });
    assert_eq!(*stage(&lab.send(&[("client", long(100, true))])), Stage::TunnelUnknown);
    lab.change("server", "tun0", |i| {
        if let InterfaceKind::Tunnel(tunnel) = &mut i.kind {
            tunnel.remote = None;
        }
    });
    seen(&lab.send(&[("client", long(100, true))]));
}

#[test]
fn a_tunnel_routed_into_itself_goes_nowhere() {
    let mut lab = line(|_| {});
    lab.route("client", "10.0.2.2/32 dev tun0");
    assert_eq!(*stage(&lab.send(&[("client", long(100, true))])), Stage::TunnelLoop);
    let mut lab = line(|_| {});
    lab.get("client").routes.retain(|r| r.next_hops.iter().all(|h| h.gateway.is_none()));
    assert_eq!(*stage(&lab.send(&[("client", long(100, true))])), Stage::NoRoute);
}

/// Packets from the client by a router's tunnel to the server.
fn routed(change: impl Fn(&mut Tunnel)) -> Build {
    let mut lab = Build::line();
    let end = |local: &str, remote: &str| {
        let ends = (local.parse().ok(), remote.parse().ok());
        Tunnel { local: ends.0, remote: ends.1, ..Tunnel::new(TunnelKind::Gre) }
    };
    let mut own = end("10.0.2.1", "10.0.2.2");
    change(&mut own);
    lab.device("router", "tun0", InterfaceKind::Tunnel(own), &["10.9.0.1/24"]);
    lab.device("server", "tun0", InterfaceKind::Tunnel(end("10.0.2.2", "10.0.2.1")), &["10.9.0.2/24"]);
    for host in ["router", "server"] {
        lab.change(host, "tun0", |i| i.mtu = 1476);
    }
    lab
}

#[test]
fn a_packet_that_must_not_be_fragmented_and_does_not_fit_is_answered() {
    let journey = routed(|_| {})
        .send(&[("router:eth0", Packet { src: "10.0.1.2".parse().unwrap(), ..long(1477, true) })]);
    assert_eq!(answer(&journey).kind, AnswerKind::Icmp(3, 4));
    assert_eq!(*stage(&journey), Stage::Mtu);
    let fits = routed(|_| {})
        .send(&[("router:eth0", Packet { src: "10.0.1.2".parse().unwrap(), ..long(1476, true) })]);
    assert_eq!(seen(&fits).length, 1476);
}

#[test]
fn a_packet_that_may_be_fragmented_goes_through_in_pieces() {
    let packet = Packet { src: "10.0.1.2".parse().unwrap(), ..long(1500, false) };
    let journey = routed(|_| {}).send(&[("router:eth0", packet)]);
    let arrived = seen(&journey);
    assert_eq!((arrived.length, arrived.fragment), (1500, None));
    assert_eq!(outer(&journey)[0].length, 1500);
}

#[test]
fn a_tunnel_keeps_its_mtu_over_smaller_links_and_loses_what_is_too_big() {
    let mut lab = routed(|_| {});
    lab.change("router", "eth1", |i| i.mtu = 1280);
    let from = |df| Packet { src: "10.0.1.2".parse().unwrap(), ..long(1400, df) };
    let told = lab.send(&[("router:eth0", from(true))]);
    assert_eq!(answer(&told).kind, AnswerKind::Icmp(3, 4));
    // The outer packet must not be fragmented either, and nobody is told.
    let lost = lab.send(&[("router:eth0", from(false))]);
    assert!(matches!(lost.outcome, Outcome::Dropped { .. }));
    assert_eq!(*stage(&lost), Stage::Mtu);
    // Without path MTU discovery, the outer packet is fragmented.
    let mut lab = routed(|t| t.df = false);
    lab.change("router", "eth1", |i| i.mtu = 1280);
    seen(&lab.send(&[("router:eth0", from(false))]));
}

#[test]
fn rules_see_fragments_whole_only_where_connections_are_tracked() {
    let packet = || Packet { length: 1500, df: false, ..udp(("10.0.1.2", 1), ("10.0.2.2", 53)) };
    let mut lab = Build::line();
    lab.change("client", "eth0", |i| i.mtu = 1000);
    lab.rules("router", "*filter\n:FORWARD ACCEPT [0:0]\n-A FORWARD -p udp --dport 53 -j ACCEPT");
    let journey = lab.send(&[("client", packet())]);
    assert!(journey.unknown.iter().any(|u| u.contains("fragments")), "{:?}", journey.unknown);
    lab.rules("router", "*nat\n:POSTROUTING ACCEPT [0:0]\n-A POSTROUTING -d 10.9.0.0/16 -j MASQUERADE");
    let journey = lab.send(&[("client", packet())]);
    assert!(journey.unknown.is_empty(), "{:?}", journey.unknown);
    assert_eq!(seen(&journey).length, 1500);
}

#[test]
fn an_icmpv6_error_of_a_tunnel_comes_from_where_it_leaves() {
    let mut lab = Build::line();
    lab.device("router", "wg0", InterfaceKind::Wireguard(Wireguard::default()), &["fd09::1/64"]);
    // What came by eth0 claims to be from beyond eth1, and so goes the error.
    let journey = lab.send(&[("router:eth0", udp(("fd02::2", 1), ("fd09::2", 53)))]);
    assert_eq!(answer(&journey).from_addr.to_string(), "fd02::1");
}

#[test]
fn a_comment_that_speaks_of_connections_tracks_none() {
    let mut lab = Build::line();
    lab.change("client", "eth0", |i| i.mtu = 1000);
    lab.rules(
        "router",
        "*filter\n:FORWARD ACCEPT [0:0]\n-A FORWARD -m comment --comment \"conntrack state\"",
    );
    let packet = Packet { length: 1500, df: false, ..udp(("10.0.1.2", 1), ("10.0.2.2", 53)) };
    let journey = lab.send(&[("client", packet)]);
    assert!(journey.unknown.iter().any(|u| u.contains("fragments")), "{:?}", journey.unknown);
}

#[test]
fn sit_tells_what_is_too_big_but_never_asks_for_less_than_ipv6_may() {
    let mut lab = Build::line();
    tunnel(&mut lab, TunnelKind::Sit, &|_| {});
    let packet = |length| Packet { length, ..udp(("fd09::1", 1), ("fd09::2", 53)) };
    lab.change("client", "eth0", |i| i.mtu = 1400);
    let told = lab.send(&[("client", packet(1381))]);
    assert_eq!((answer(&told).kind, stage(&told)), (AnswerKind::Icmp6(2, 0), &Stage::Mtu));
    // Below that, the outer packet may be fragmented.
    lab.change("client", "eth0", |i| i.mtu = 1200);
    let journey = lab.send(&[("client", packet(1280))]);
    assert!(!outer(&journey)[0].df);
    assert_eq!(seen(&journey).length, 1280);
}

#[test]
fn ip6tnl_takes_eight_bytes_more_for_its_limit_and_answers_without_df() {
    for (limit, overhead) in [(true, 48), (false, 40)] {
        let mut lab = Build::line();
        tunnel(&mut lab, TunnelKind::Ip6tnl, &|t| t.encap_limit = limit);
        let journey = lab.send(&[("client", long(100, false))]);
        assert_eq!(outer(&journey)[0].length, 100 + overhead);
    }
    let mut lab = Build::line();
    tunnel(&mut lab, TunnelKind::Ip6tnl, &|_| {});
    lab.change("client", "eth0", |i| i.mtu = 1400);
    let journey = lab.send(&[("client", long(1353, false))]);
    assert_eq!(answer(&journey).kind, AnswerKind::Icmp(3, 4));
}

#[test]
fn sit_and_ip6tnl_tell_that_the_far_end_has_no_route_and_gre_does_not() {
    for (kind, dst, told) in [
        (TunnelKind::Sit, "fd09::2", Some(AnswerKind::Icmp6(1, 3))),
        (TunnelKind::Ip6tnl, "10.9.0.2", Some(AnswerKind::Icmp(3, 1))),
        (TunnelKind::Gre, "10.9.0.2", None),
    ] {
        let mut lab = Build::line();
        tunnel(&mut lab, kind, &|_| {});
        lab.get("client").routes.retain(|r| r.next_hops.iter().all(|h| h.gateway.is_none()));
        let source = if dst.contains(':') { "fd09::1" } else { "10.9.0.1" };
        let journey = lab.send(&[("client", udp((source, 1), (dst, 53)))]);
        match told {
            Some(kind) => assert_eq!(answer(&journey).kind, kind),
            None => assert_eq!(*stage(&journey), Stage::NoRoute),
        }
    }
}

#[test]
fn ip6tnl_alone_tells_the_sender_inside_what_it_is_told_itself() {
    for (kind, tells) in [(TunnelKind::Ip6tnl, true), (TunnelKind::Ip6gre, false), (TunnelKind::Sit, false)] {
        for (dst, error) in [("10.9.0.2", AnswerKind::Icmp(3, 1)), ("fd09::2", AnswerKind::Icmp6(1, 3))] {
            let mut lab = Build::line();
            tunnel(&mut lab, kind, &|_| {});
            lab.get("server").interfaces.retain(|i| i.name != "tun0");
            let source = if dst.contains(':') { "fd09::1" } else { "10.9.0.1" };
            let packet = || udp((source, 1), (dst, 53));
            let journey = lab.send(&[("client", packet())]);
            if !tells {
                assert!(matches!(journey.outcome, Outcome::Dropped { .. }), "{kind:?} {dst}");
                continue;
            }
            assert_eq!(*stage(&journey), Stage::TunnelUnknown);
            assert_eq!(
                (answer(&journey).kind, answer(&journey).from_addr.to_string()),
                (error, source.into())
            );
            // What it never hears of, it does not tell.
            lab.rules(
                "router",
                "*filter\n:FORWARD ACCEPT [0:0]\n-A FORWARD -p icmpv6 -m icmp6 --icmpv6-type 1 -j DROP",
            );
            assert!(matches!(lab.send(&[("client", packet())]).outcome, Outcome::Dropped { .. }));
        }
    }
    // So it does of what was too big on the way.
    for (dst, error) in [("10.9.0.2", AnswerKind::Icmp(3, 4)), ("fd09::2", AnswerKind::Icmp6(2, 0))] {
        let mut lab = Build::line();
        tunnel(&mut lab, TunnelKind::Ip6tnl, &|_| {});
        lab.change("router", "eth1", |i| i.mtu = 1400);
        let source = if dst.contains(':') { "fd09::1" } else { "10.9.0.1" };
        let packet = |length| Packet { length, ..udp((source, 1), (dst, 53)) };
        let journey = lab.send(&[("client", packet(1400))]);
        assert_eq!((answer(&journey).kind, *stage(&journey) == Stage::Mtu), (error, true), "{dst}");
        seen(&lab.send(&[("client", packet(1300))]));
    }
    // Nobody is told of what was sent to everybody, or seems to be from everybody.
    let mut lab = Build::line();
    tunnel(&mut lab, TunnelKind::Ip6tnl, &|_| {});
    lab.get("server").interfaces.retain(|i| i.name != "tun0");
    lab.sysctl("client", "net.ipv4.ip_forward", 1);
    lab.route("client", "broadcast 10.9.0.255/32 dev tun0 table 255");
    lab.route("client", "broadcast 10.0.1.255/32 dev eth0 table 255");
    for (from, src, dst) in [("client", "10.9.0.1", "10.9.0.255"), ("client:eth0", "10.0.1.255", "10.9.0.2")]
    {
        let journey = lab.send(&[(from, udp((src, 1), (dst, 53)))]);
        assert!(matches!(journey.outcome, Outcome::Dropped { .. }), "{:?}", journey.outcome);
    }
}

/// A line whose router wraps for a far end that takes nothing.
fn wrapping() -> Build {
    let mut lab = Build::line();
    let own = Tunnel {
        local: "fd02::1".parse().ok(),
        remote: "fd02::2".parse().ok(),
        ..Tunnel::new(TunnelKind::Ip6tnl)
    };
    lab.device("router", "tun0", InterfaceKind::Tunnel(own), &["10.9.0.1/24"]);
    lab.change("router", "tun0", |i| i.mtu = 1452);
    lab
}

/// `ip4ip6_err` asks for a route anew, of a packet without its mark.
#[test]
fn ip6tnl_tells_whoever_it_still_sends_for_whatever_mark_they_had() {
    use crate::model::{PolicyAction, PolicyRule};
    for (rule, tells) in [("", true), ("-A FORWARD -j MARK --set-xmark 0x1/0xffffffff", true)] {
        let mut lab = wrapping();
        lab.rules("router", &format!("*mangle\n:FORWARD ACCEPT [0:0]\n{rule}"));
        let away = super::route::policy_rule(100, PolicyAction::Blackhole);
        lab.get("router").rules = super::route::default_rules();
        lab.get("router").rules.insert(1, PolicyRule { fwmark: Some((1, 1)), ..away });
        let journey = lab.send(&[("client", udp(("10.0.1.2", 1), ("10.9.0.2", 53)))]);
        assert_eq!(
            matches!(journey.outcome, Outcome::Rejected { .. }),
            tells,
            "{rule}: {:?}",
            journey.outcome
        );
    }
}

/// `ip4ip6_err` asks for the way back as of a packet of protocol 4.
#[test]
fn ip6tnl_tells_nobody_to_whom_what_it_wraps_has_no_way_back() {
    use crate::model::{PolicyAction, PolicyRule};
    for (protocol, tells) in [(4, false), (6, true)] {
        let mut lab = wrapping();
        let away = PolicyRule {
            protocol: Some(protocol),
            destination: "10.0.1.2/32".parse().ok(),
            ..super::route::policy_rule(100, PolicyAction::Blackhole)
        };
        lab.get("router").rules = super::route::default_rules();
        lab.get("router").rules.insert(1, away);
        let journey = lab.send(&[("client", udp(("10.0.1.2", 1), ("10.9.0.2", 53)))]);
        let told = matches!(journey.outcome, Outcome::Rejected { .. });
        assert_eq!(told, tells, "{protocol}: {:?}", journey.outcome);
    }
}

/// What it sends for itself it asks for with the source that it has.
#[test]
fn ip6tnl_tells_its_own_host_if_the_source_still_leads_into_the_tunnel() {
    use crate::model::{PolicyAction, PolicyRule, RouteTable};
    for (from, tells) in [("10.9.0.1/32", true), ("", false)] {
        let mut lab = Build::line();
        tunnel(&mut lab, TunnelKind::Ip6tnl, &|_| {});
        lab.get("server").interfaces.retain(|i| i.name != "tun0");
        lab.route("client", "10.8.0.0/24 dev tun0 table 7");
        let lookup = super::route::policy_rule(100, PolicyAction::Lookup(RouteTable(7)));
        let ports = Some(crate::addr::PortRange { low: 53, high: 53 });
        lab.get("client").rules = super::route::default_rules();
        // Ports are no longer known of a packet that is asked about again.
        let rule = match from {
            "" => PolicyRule { dport: ports, ..lookup },
            from => PolicyRule { source: from.parse().ok(), ..lookup },
        };
        lab.get("client").rules.insert(1, rule);
        let journey = lab.send(&[("client", udp(("10.9.0.1", 1), ("10.8.0.2", 53)))]);
        assert_eq!(
            matches!(journey.outcome, Outcome::Rejected { .. }),
            tells,
            "{from}: {:?}",
            journey.outcome
        );
    }
}

#[test]
fn a_vxlan_with_an_address_of_its_own_sends_from_that() {
    for (local, wanted) in [(None, "10.0.1.2"), (Some("10.0.7.7"), "10.0.7.7")] {
        let mut lab = Build::line();
        lab.device("client", "dummy0", InterfaceKind::Dummy, &["10.0.7.7/32"]);
        let vxlan = crate::model::Vxlan {
            vni: 7,
            local: local.and_then(|local| local.parse().ok()),
            remote: "10.0.2.2".parse().ok(),
            link: None,
            port: 4789,
            ttl: 0,
            learning: true,
        };
        lab.device("client", "vx0", InterfaceKind::Vxlan(vxlan), &["10.9.0.1/24"]);
        lab.get("client").neighbours.push(crate::model::Neighbour {
            address: "10.9.0.2".parse().unwrap(),
            interface: "vx0".into(),
            mac: Some(crate::addr::Mac([2, 9, 9, 9, 9, 9])),
            state: crate::model::NeighbourState::Permanent,
            proxy: false,
        });
        let journey = lab.send(&[("client", udp(("10.9.0.1", 1), ("10.9.0.2", 53)))]);
        assert_eq!(outer(&journey)[0].src.to_string(), wanted);
    }
}

#[test]
fn what_a_tunnel_has_to_say_goes_to_the_source_before_nat() {
    let mut lab = routed(|_| {});
    lab.rules("router", "*nat\n:POSTROUTING ACCEPT [0:0]\n-A POSTROUTING -o tun0 -j MASQUERADE");
    lab.change("router", "tun0", |i| i.mtu = 1500);
    let packet = Packet { src: "10.0.1.2".parse().unwrap(), ..long(1490, true) };
    let journey = lab.send(&[("router:eth0", packet)]);
    assert_eq!(answer(&journey).to_addr.to_string(), "10.0.1.2");
    assert!(answer(&journey).came_back);
}

#[test]
fn that_a_tunnel_has_no_route_is_told_to_the_source_after_nat_and_nat_brings_it_home() {
    let mut lab = Build::line();
    let own = Tunnel {
        local: "fd01::1".parse().ok(),
        remote: "fd05::77".parse().ok(),
        ..Tunnel::new(TunnelKind::Ip6tnl)
    };
    lab.device("router", "tun0", InterfaceKind::Tunnel(own), &["10.9.0.1/24", "fd09::1/64"]);
    for (table, packet) in [
        ("", udp(("10.0.1.2", 1), ("10.9.0.2", 53))),
        ("# ip6tables\n", udp(("fd01::2", 1), ("fd09::2", 53))),
    ] {
        let rule = "-A POSTROUTING -o tun0 -j MASQUERADE";
        lab.rules("router", &format!("{table}*nat\n:POSTROUTING ACCEPT [0:0]\n{rule}"));
        let src = packet.src;
        let journey = lab.send(&[("client", packet)]);
        let own = if src.is_ipv4() { "10.9.0.1" } else { "fd09::1" };
        assert_eq!((answer(&journey).to_addr, answer(&journey).from_addr.to_string()), (src, own.into()));
        let kind = if src.is_ipv4() { AnswerKind::Icmp(3, 1) } else { AnswerKind::Icmp6(1, 3) };
        assert!(answer(&journey).came_back && answer(&journey).kind == kind);
    }
    // Of an error nobody is told anything.
    let transport = crate::model::Transport::Icmp { kind: 3, code: 1, id: crate::model::PortValue::Is(0) };
    let error = Packet { transport, ..ping("10.0.1.2", "10.9.0.2") };
    assert_eq!(*stage(&lab.send(&[("client", error)])), Stage::NoRoute);
}

#[test]
fn a_bridged_frame_too_big_for_gretap_is_lost_and_for_vxlan_answered() {
    let (v4, v6) = (("10.5.0.1", "10.5.0.2"), ("fd05::1", "fd05::2"));
    // Nobody is told to send less than everybody must take.
    for (vxlan, (src, dst), mtu, told) in [
        (false, v4, 1500, false),
        (false, v6, 1500, false),
        (true, v4, 1500, true),
        (true, v6, 1500, true),
        (true, v6, 1330, true),
        (true, v6, 1329, false),
        (true, v4, 626, true),
        (true, v4, 625, false),
    ] {
        let mut lab = Build::line();
        let remote = "10.0.2.2".parse().ok();
        let kind = match vxlan {
            true => InterfaceKind::Vxlan(crate::model::Vxlan {
                vni: 7,
                local: None,
                remote,
                link: None,
                port: 4789,
                ttl: 0,
                learning: true,
            }),
            false => InterfaceKind::Tunnel(Tunnel { remote, ..Tunnel::new(TunnelKind::Gretap) }),
        };
        lab.bridge("router", "br0", &[], &["p1"]);
        lab.device("router", "far0", kind, &[]);
        lab.change("router", "far0", |i| {
            (i.master, i.port) = (Some("br0".into()), Some(Default::default()));
        });
        lab.host("guest", false).nic("guest", "eth0", &["10.5.0.1/24", "fd05::1/64"]);
        lab.link(&[("guest", "eth0"), ("router", "p1")]);
        lab.change("router", "eth1", |i| i.mtu = mtu);
        let far = crate::addr::Mac([2, 9, 9, 9, 9, 9]);
        lab.get("guest").neighbours.push(crate::model::Neighbour {
            address: dst.parse().unwrap(),
            interface: "eth0".into(),
            mac: Some(far),
            state: crate::model::NeighbourState::Permanent,
            proxy: false,
        });
        lab.get("router").fdb.push(crate::model::FdbEntry {
            mac: far,
            interface: "far0".into(),
            master: Some("br0".into()),
            destination: None,
            port: None,
            vni: None,
            vlan: None,
            local: false,
            fixed: false,
        });
        let packet = Packet { length: 1490, ..tcp((src, 1), (dst, 22), TcpFlags::SYN) };
        let journey = lab.send(&[("guest", packet)]);
        // What is not told goes through in pieces, to a server without VXLAN.
        let by = if vxlan && !told { Stage::TunnelUnknown } else { Stage::Mtu };
        assert_eq!(*stage(&journey), by, "{vxlan} {dst} {mtu}");
        match &journey.outcome {
            Outcome::Rejected { answer, .. } => {
                assert!(told && answer.came_back, "{dst} {mtu}");
                assert_eq!(answer.from_addr.to_string(), dst);
            }
            other => assert!(!told && matches!(other, Outcome::Dropped { .. }), "{vxlan} {dst} {mtu}"),
        }
    }
}

#[test]
fn tunnels_over_ipv6_send_only_if_both_ends_are_named_and_ip6gre_does_not_tell() {
    for (kind, told) in [(TunnelKind::Ip6tnl, true), (TunnelKind::Ip6gre, false), (TunnelKind::Gre, false)] {
        let mut lab = Build::line();
        tunnel(&mut lab, kind, &|t| t.local = None);
        let journey = lab.send(&[("client", udp(("10.9.0.1", 1), ("10.9.0.2", 53)))]);
        match (kind, told) {
            (_, true) => assert_eq!(answer(&journey).kind, AnswerKind::Icmp(3, 1)),
            (TunnelKind::Gre, _) => drop(seen(&journey)),
            _ => assert_eq!(*stage(&journey), Stage::Silent),
        }
    }
}

#[test]
fn over_ipv6_no_packet_is_wrapped_that_comes_from_the_other_end_itself() {
    for (kind, src, wraps) in [
        (TunnelKind::Ip6tnl, "fd02::2", false),
        (TunnelKind::Ip6gre, "fd02::2", false),
        (TunnelKind::Ip6tnl, "fd02::3", true),
        (TunnelKind::Gre, "fd02::2", true),
    ] {
        let mut lab = Build::line();
        tunnel(&mut lab, kind, &|_| {});
        lab.sysctl("client", "net.ipv6.conf.all.forwarding", 1);
        let journey = lab.send(&[("client:eth0", udp((src, 1), ("fd09::2", 53)))]);
        match wraps {
            true => drop(seen(&journey)),
            false => assert_eq!(*stage(&journey), Stage::Silent),
        }
    }
}
