//! What fits into tunnels, and which of them takes a packet.

use std::net::IpAddr;

use crate::addr::Family;
use crate::engine::stepper::tests::build::Build;
use crate::model::{AnswerKind, InterfaceKind, Tunnel, TunnelKind};
use crate::semantics::tunnel::{
    accepted, protocol, room, sends, taker, tells_of_no_route, too_big, vxlan_overhead, wireguard_length,
};

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

#[test]
fn the_outer_protocol_is_gre_or_that_of_what_is_inside() {
    for kind in TunnelKind::ALL {
        let of = |family| protocol(&Tunnel::new(kind), family);
        let expected = if kind.is_gre() { (47, 47) } else { (4, 41) };
        assert_eq!((of(Family::Ipv4), of(Family::Ipv6)), expected, "{kind:?}");
    }
}

#[test]
fn outer_headers_take_room() {
    assert_eq!((vxlan_overhead(Family::Ipv4), vxlan_overhead(Family::Ipv6)), (50, 70));
    let mut lab = Build::default();
    lab.host("h", false).nic("h", "wg0", &[]);
    let device = lab.change("h", "wg0", |i| i.mtu = 1420).get("h").interface("wg0").unwrap().clone();
    // Filled up to sixteen bytes, but not past the device's MTU.
    for (outer, inner, length) in [
        (Family::Ipv4, 60, 64 + 60),
        (Family::Ipv4, 64, 64 + 60),
        (Family::Ipv6, 64, 64 + 80),
        (Family::Ipv4, 65, 80 + 60),
        (Family::Ipv4, 1410, 1420 + 60),
        (Family::Ipv4, 1420, 1420 + 60),
        (Family::Ipv4, 1430, 1430 + 60),
    ] {
        assert_eq!(wireguard_length(outer, &device, inner), length, "{inner}");
    }
}

#[test]
fn what_may_not_be_fragmented_has_the_room_that_the_way_below_leaves() {
    let mut lab = Build::default();
    lab.host("h", false).nic("h", "tun", &[]);
    let device = lab.change("h", "tun", |i| i.mtu = 1400).get("h").interface("tun").unwrap().clone();
    let (v4, v6) = (Family::Ipv4, Family::Ipv6);
    let plain = |kind| Tunnel { df: false, ..Tunnel::new(kind) };
    let with_df = |kind| Tunnel { df: true, ..Tunnel::new(kind) };
    for (tunnel, mtu, inner, df, expected) in [
        (with_df(TunnelKind::Ipip), 1500, v4, false, (true, 1480)),
        (with_df(TunnelKind::Gre), 1500, v4, false, (true, 1476)),
        (with_df(TunnelKind::Gretap), 1500, v4, false, (true, 1462)),
        (plain(TunnelKind::Ipip), 1500, v4, true, (true, 1480)),
        (plain(TunnelKind::Ipip), 1500, v4, false, (false, 1400)),
        (Tunnel { ignore_df: true, ..plain(TunnelKind::Ipip) }, 1500, v4, true, (false, 1400)),
        (Tunnel { ignore_df: true, ..with_df(TunnelKind::Ipip) }, 1500, v4, true, (true, 1480)),
        (plain(TunnelKind::Sit), 1500, v6, true, (false, 1400)),
        (with_df(TunnelKind::Sit), 1500, v6, false, (true, 1480)),
        // The least that IPv6 gets: sit has the outer packet fragmented for it, GRE not.
        (with_df(TunnelKind::Sit), 1300, v6, false, (true, 1280)),
        (with_df(TunnelKind::Sit), 1299, v6, false, (false, 1280)),
        (with_df(TunnelKind::Gre), 1200, v6, false, (true, 1176)),
        (with_df(TunnelKind::Gretap), 1200, v6, false, (true, 1162)),
        (with_df(TunnelKind::Ipip), 1200, v4, false, (true, 1180)),
        (Tunnel { encap_limit: false, ..plain(TunnelKind::Ip6tnl) }, 1500, v4, false, (false, 1460)),
        (Tunnel { encap_limit: true, ..plain(TunnelKind::Ip6tnl) }, 1500, v4, false, (false, 1452)),
        (Tunnel { encap_limit: false, ..plain(TunnelKind::Ip6tnl) }, 1300, v6, false, (false, 1280)),
        (Tunnel { encap_limit: false, ..plain(TunnelKind::Ip6gre) }, 1500, v6, false, (false, 1456)),
    ] {
        let (kind, outer_df) = (tunnel.kind, tunnel.df);
        assert_eq!(
            room(&tunnel, &device, mtu, inner, df),
            expected,
            "{kind:?} {mtu} {inner} {df} {outer_df}"
        );
    }
}

#[test]
fn who_sends_what_does_not_fit_is_told_where_the_packet_may_not_be_cut() {
    let (v4, v6) = (Family::Ipv4, Family::Ipv6);
    let (needed, large) = (Some(AnswerKind::Icmp(3, 4)), Some(AnswerKind::Icmp6(2, 0)));
    for (kind, family, df, length, room, told) in [
        (TunnelKind::Ipip, v4, true, 1481, 1480, needed),
        (TunnelKind::Ipip, v4, true, 1480, 1480, None),
        (TunnelKind::Ipip, v4, false, 1481, 1480, None),
        (TunnelKind::Ip6tnl, v4, false, 1461, 1460, needed),
        (TunnelKind::Sit, v6, false, 1481, 1480, large),
        (TunnelKind::Sit, v6, false, 1480, 1480, None),
        (TunnelKind::Sit, v6, false, 1281, 1280, large),
        (TunnelKind::Gre, v6, false, 1281, 1279, None),
    ] {
        assert_eq!(too_big(&Tunnel::new(kind), family, df, length, room), told, "{kind:?} {length} {room}");
    }
    for kind in TunnelKind::ALL {
        let tells = kind == TunnelKind::Sit || kind.outer() == v6;
        assert_eq!(tells_of_no_route(&Tunnel::new(kind)), tells, "{kind:?}");
    }
}

#[test]
fn over_ipv6_both_ends_must_be_named_and_only_the_local_one_be_ones_own() {
    let mut lab = Build::default();
    lab.host("h", false).nic("h", "eth0", &["fd01::1/64", "10.0.0.1/24"]);
    let sends = |kind, local: Option<&str>, remote: Option<&str>| {
        sends(
            &lab.lab.hosts["h"],
            &Tunnel { local: local.map(ip), remote: remote.map(ip), ..Tunnel::new(kind) },
        )
    };
    let (own, far) = (Some("fd01::1"), Some("fd02::1"));
    assert!(sends(TunnelKind::Ip6tnl, own, far));
    for (local, remote) in [(None, far), (own, None), (far, far), (own, own), (far, own), (None, None)] {
        assert!(!sends(TunnelKind::Ip6tnl, local, remote), "{local:?} {remote:?}");
    }
    assert!(sends(TunnelKind::Ipip, None, None));
}

fn with_tunnels(tunnels: &[(&str, Tunnel)]) -> Build {
    let mut lab = Build::default();
    lab.host("h", false);
    for (name, tunnel) in tunnels {
        lab.device("h", name, InterfaceKind::Tunnel(tunnel.clone()), &[]);
    }
    lab
}

#[test]
fn of_several_tunnels_the_one_with_both_ends_takes_a_packet_then_with_the_remote_one() {
    let kind = TunnelKind::Gre;
    let lab = with_tunnels(&[
        ("any", Tunnel::new(kind)),
        ("local", Tunnel { local: Some(ip("10.0.0.1")), ..Tunnel::new(kind) }),
        ("remote", Tunnel { remote: Some(ip("10.0.0.2")), ..Tunnel::new(kind) }),
        ("both", Tunnel { local: Some(ip("10.0.0.1")), remote: Some(ip("10.0.0.2")), ..Tunnel::new(kind) }),
        ("keyed", Tunnel { key_in: Some(7), ..Tunnel::new(kind) }),
        ("tap", Tunnel::new(TunnelKind::Gretap)),
        ("four", Tunnel::new(TunnelKind::Ipip)),
        ("six", Tunnel::new(TunnelKind::Sit)),
        ("over6", Tunnel::new(TunnelKind::Ip6tnl)),
        ("gre6", Tunnel::new(TunnelKind::Ip6gre)),
    ]);
    let takes = |src: &str, dst: &str, number, key, ethernet| {
        let found = taker(&lab.lab.hosts["h"], (ip(src), ip(dst)), number, key, ethernet);
        found.map_or("none".to_owned(), |i| i.name.to_string())
    };
    for (src, dst, name) in [
        ("10.0.0.2", "10.0.0.1", "both"),
        ("10.0.0.2", "10.0.0.9", "remote"),
        ("10.0.0.9", "10.0.0.1", "local"),
        ("10.0.0.9", "10.0.0.9", "any"),
    ] {
        assert_eq!(takes(src, dst, 47, None, false), name, "{src} {dst}");
    }
    assert_eq!(takes("10.0.0.2", "10.0.0.1", 47, Some(7), false), "keyed");
    assert_eq!(takes("10.0.0.2", "10.0.0.1", 47, Some(8), false), "none");
    assert_eq!(takes("10.0.0.2", "10.0.0.1", 47, None, true), "tap");
    assert_eq!(takes("10.0.0.2", "10.0.0.1", 4, None, false), "four");
    assert_eq!(takes("10.0.0.2", "10.0.0.1", 41, None, false), "six");
    assert_eq!(takes("fd00::2", "fd00::1", 4, None, false), "over6");
    assert_eq!(takes("fd00::2", "fd00::1", 41, None, false), "over6");
    assert_eq!(takes("fd00::2", "fd00::1", 47, None, false), "gre6");
}

#[test]
fn a_tunnel_that_is_down_takes_nothing() {
    let mut lab =
        with_tunnels(&[("tun", Tunnel { remote: Some(ip("10.0.0.2")), ..Tunnel::new(TunnelKind::Ipip) })]);
    let all = |lab: &Build, family| accepted(&lab.lab.hosts["h"], family);
    let remote = Some(ip("10.0.0.2"));
    assert_eq!(all(&lab, Family::Ipv4), [(remote, None, 4), (remote, None, 41)]);
    assert_eq!(all(&lab, Family::Ipv6), []);
    let ends = (ip("10.0.0.2"), ip("10.0.0.1"));
    assert!(taker(&lab.lab.hosts["h"], ends, 4, None, false).is_some());
    lab.change("h", "tun", |i| i.up = false);
    assert_eq!(all(&lab, Family::Ipv4), []);
    assert!(taker(&lab.lab.hosts["h"], ends, 4, None, false).is_none());
}
