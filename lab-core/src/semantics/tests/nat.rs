//! What NAT makes of a connection's ends (`nf_nat_core.c`, `nf_nat_redirect.c`).

use crate::addr::PortRange;
use crate::engine::stepper::tests::build::{ping, tcp, udp, Build};
use crate::model::{Direction, Host, Packet, Payload, PortValue, TcpFlags, Transport};
use crate::semantics::conntrack::{Connection, Connections, Found, Info};
use crate::semantics::header::in_range;
use crate::semantics::nat::{picks, redirect_nets, redirect_to, settle, translate, End, Mapping};
use crate::semantics::Tri;

fn opened(packet: &Packet) -> Connection {
    match Connections::default().track(&Host::default(), packet, (0, 0)) {
        Found::Opens(connection) => *connection,
        other => panic!("{other:?}"),
    }
}

const fn range(low: u16, high: u16) -> PortRange {
    PortRange { low, high }
}

/// A new packet of a connection after NAT, with the ends as they leave.
fn after(known: &Connections, packet: Packet, end: End, mapping: Mapping) -> Packet {
    let (mut connection, mut packet) = (opened(&packet), packet);
    settle(known, &mut connection, end, mapping);
    translate(&mut packet, &connection, Info::New, end);
    packet
}

fn mapped(ports: Option<(u16, u16)>) -> Mapping {
    let address = "192.0.2.1".parse().ok();
    Mapping { address, ports: ports.map(|(low, high)| range(low, high)), ..Mapping::default() }
}

#[test]
fn a_source_keeps_its_port_where_that_is_allowed_and_free() {
    let known = Connections::default();
    let is = |port| PortValue::Is(port);
    for (sport, mapping, left) in [
        (1000, mapped(None), is(1000)),
        (1000, mapped(Some((1000, 2000))), is(1000)),
        (2000, mapped(Some((1000, 2000))), is(2000)),
        (999, mapped(Some((1000, 2000))), PortValue::Fresh(range(1000, 2000))),
        (2001, mapped(Some((1000, 2000))), PortValue::Fresh(range(1000, 2000))),
        (999, mapped(Some((1000, 1000))), is(1000)),
        (5, Mapping { random: true, ..mapped(None) }, PortValue::Fresh(range(1, 511))),
        (511, Mapping { random: true, ..mapped(None) }, PortValue::Fresh(range(1, 511))),
        (512, Mapping { random: true, ..mapped(None) }, PortValue::Fresh(range(600, 1023))),
        (1023, Mapping { random: true, ..mapped(None) }, PortValue::Fresh(range(600, 1023))),
        (1024, Mapping { random: true, ..mapped(None) }, PortValue::Fresh(range(1024, 65535))),
        (1500, Mapping { random: true, ..mapped(Some((1000, 2000))) }, PortValue::Fresh(range(1000, 2000))),
    ] {
        for packet in [
            udp(("10.0.0.1", sport), ("10.0.0.2", 53)),
            tcp(("10.0.0.1", sport), ("10.0.0.2", 53), TcpFlags::SYN),
        ] {
            let left_as = after(&known, packet, End::Source, mapping);
            assert_eq!(left_as.src.to_string(), "192.0.2.1");
            assert_eq!(left_as.transport.ports(), Some((left, is(53))), "{sport} {mapping:?}");
        }
    }
}

#[test]
fn a_destination_keeps_its_port_unless_told_others() {
    let known = Connections::default();
    let is = |port| PortValue::Is(port);
    for (dport, mapping, left) in [
        (80, mapped(None), is(80)),
        (80, Mapping { random: true, ..mapped(None) }, is(80)),
        (80, mapped(Some((8080, 8080))), is(8080)),
        (80, mapped(Some((80, 90))), is(80)),
        (91, mapped(Some((80, 90))), PortValue::Fresh(range(80, 90))),
        // Shifted by as much as the base says, and around.
        (105, Mapping { base_port: Some(100), ..mapped(Some((8000, 8099))) }, is(8005)),
        (100, Mapping { base_port: Some(100), ..mapped(Some((8000, 8099))) }, is(8000)),
        (199, Mapping { base_port: Some(100), ..mapped(Some((8000, 8099))) }, is(8099)),
        (200, Mapping { base_port: Some(100), ..mapped(Some((8000, 8099))) }, is(8000)),
        (99, Mapping { base_port: Some(100), ..mapped(Some((8000, 8099))) }, is(8035)),
        (8050, Mapping { base_port: Some(8000), ..mapped(Some((8000, 8099))) }, is(8050)),
    ] {
        let seen = after(&known, udp(("10.0.0.1", 5), ("10.0.0.2", dport)), End::Destination, mapping);
        assert_eq!(seen.dst.to_string(), "192.0.2.1");
        assert_eq!(seen.transport.ports(), Some((is(5), left)), "{dport} {mapping:?}");
    }
}

#[test]
fn a_port_that_another_connection_has_is_not_kept() {
    let mut other = opened(&udp(("10.0.0.9", 1000), ("10.0.0.2", 53)));
    settle(&Connections::default(), &mut other, End::Source, mapped(None));
    let left = |change: fn(&mut Connection)| {
        let mut other = other.clone();
        other.confirmed = true;
        change(&mut other);
        let known = Connections(vec![other]);
        let packet = after(&known, udp(("10.0.0.1", 1000), ("10.0.0.2", 53)), End::Source, mapped(None));
        packet.transport.ports().unwrap().0
    };
    let taken = PortValue::Fresh(range(600, 1023));
    assert_eq!(left(|_| ()), taken);
    assert_eq!(left(|c| c.confirmed = false), PortValue::Is(1000));
    assert_eq!(left(|c| c.dead = true), PortValue::Is(1000));
    assert_eq!(left(|c| c.reply_zone = 1), PortValue::Is(1000));
    assert_eq!(left(|c| c.original_zone = 1), taken);
    // Another one's original direction may be in the way, too.
    let towards = |c: &mut Connection| {
        *c = Connection { confirmed: true, ..opened(&udp(("10.0.0.2", 53), ("192.0.2.1", 1000))) }
    };
    assert_eq!(left(towards), taken);
    assert_eq!(
        left(|c| {
            *c = Connection {
                confirmed: true,
                original_zone: 1,
                ..opened(&udp(("10.0.0.2", 53), ("192.0.2.1", 1000)))
            }
        }),
        PortValue::Is(1000)
    );
}

#[test]
fn the_identifier_of_a_query_stands_for_its_source_port() {
    let known = Connections::default();
    let id = |packet: &Packet| match packet.transport {
        Transport::Icmp { id, .. } | Transport::Icmp6 { id, .. } => id,
        _ => panic!("no query"),
    };
    for (packet, address) in
        [(ping("10.0.0.1", "10.0.0.2"), "192.0.2.1"), (ping("fd00::1", "fd00::2"), "fd09::1")]
    {
        let mapping = Mapping { address: address.parse().ok(), ..Mapping::default() };
        let kept = after(&known, packet.clone(), End::Source, mapping);
        assert_eq!((kept.src.to_string().as_str(), id(&kept)), (address, PortValue::Is(7)));
        let picked = after(&known, packet.clone(), End::Source, Mapping { random: true, ..mapping });
        assert_eq!(id(&picked), PortValue::Fresh(PortRange::ANY));
        let only = Mapping { ports: Some(range(9, 9)), ..mapping };
        assert_eq!(id(&after(&known, packet.clone(), End::Source, only)), PortValue::Is(9));
        assert_eq!(id(&after(&known, packet, End::Destination, only)), PortValue::Is(9));
    }
}

#[test]
fn a_packet_is_rewritten_at_the_end_that_its_direction_has_there() {
    let mut connection = opened(&udp(("10.0.0.1", 5), ("10.0.0.2", 53)));
    let sources = mapped(Some((9, 9)));
    settle(&Connections::default(), &mut connection, End::Source, sources);
    assert!(connection.snat && connection.source_done && !connection.dnat && !connection.destination_done);
    let there = udp(("10.0.0.1", 5), ("10.0.0.2", 53));
    let back = udp(("10.0.0.2", 53), ("192.0.2.1", 9));
    for (packet, info, end, becomes) in [
        (&there, Info::New, End::Source, "udp 192.0.2.1:9 -> 10.0.0.2:53"),
        (&there, Info::Established, End::Source, "udp 192.0.2.1:9 -> 10.0.0.2:53"),
        (&there, Info::New, End::Destination, "udp 10.0.0.1:5 -> 10.0.0.2:53"),
        (&back, Info::EstablishedReply, End::Destination, "udp 10.0.0.2:53 -> 10.0.0.1:5"),
        (&back, Info::EstablishedReply, End::Source, "udp 10.0.0.2:53 -> 192.0.2.1:9"),
    ] {
        let mut packet = packet.clone();
        let before = packet.to_string();
        let done = translate(&mut packet, &connection, info, end);
        assert_eq!(packet.to_string(), becomes, "{info:?} {end:?}");
        assert_eq!(done, before != becomes);
    }
    // An error about the packet that left quotes what its sender knows.
    let mut error = Packet {
        transport: Transport::Icmp { kind: 3, code: 3, id: PortValue::Is(0) },
        payload: Payload::Quoted(Box::new(udp(("192.0.2.1", 9), ("10.0.0.2", 53)))),
        ..ping("10.0.0.2", "192.0.2.1")
    };
    assert!(translate(&mut error, &connection, Info::RelatedReply, End::Destination));
    assert_eq!(error.dst.to_string(), "10.0.0.1");
    assert_eq!(error.quoted().unwrap().to_string(), "udp 10.0.0.1:5 -> 10.0.0.2:53");
    assert_eq!(Info::RelatedReply.direction(), Direction::Reply);
}

#[test]
fn a_few_addresses_of_a_range_are_told_apart_and_of_ipv6_only_in_the_last_bits() {
    let count =
        |low: &str, high: &str| picks(low.parse().unwrap(), high.parse().unwrap()).map(|all| all.len());
    assert_eq!(count("10.0.0.1", "10.0.0.1"), Some(1));
    assert_eq!(count("10.0.0.1", "10.0.0.8"), Some(8));
    assert_eq!(count("10.0.0.1", "10.0.0.9"), None);
    assert_eq!(count("10.0.0.255", "10.0.1.0"), Some(2));
    assert_eq!(count("10.0.0.2", "10.0.0.1"), None);
    assert_eq!(count("fd00::1", "fd00::3"), Some(3));
    assert_eq!(count("fd00::1", "fd00::1:0:1"), None);
    assert_eq!(count("fd00::ffff:ffff", "fd00::1:0:0"), None);
    let all = picks("fd00::1:0:1".parse().unwrap(), "fd00::1:0:2".parse().unwrap()).unwrap();
    assert_eq!(all.iter().map(ToString::to_string).collect::<Vec<_>>(), ["fd00::1:0:1", "fd00::1:0:2"]);
}

#[test]
fn redirect_takes_an_address_that_reaches_as_far_as_the_destination() {
    let to = |addresses: &[&str], tentative: usize, destination: &str| {
        let mut lab = Build::default();
        lab.host("h", false).nic("h", "eth0", addresses);
        lab.change("h", "eth0", |i| {
            i.addresses.iter_mut().take(tentative).for_each(|a| a.tentative = true);
        });
        let device = lab.lab.hosts["h"].interface("eth0").unwrap();
        redirect_to(device, destination.parse().unwrap()).map_or("none".into(), |a| a.to_string())
    };
    let all = ["fd01::1/64", "fe80::1/64", "fec0::1/64", "::9/128", "10.0.0.1/24"];
    for (destination, address) in [
        ("10.9.9.9", "10.0.0.1"),
        ("2001:db8::1", "fd01::1"),
        ("fe80::9", "fe80::1"),
        ("febf::9", "fe80::1"),
        ("fec0::9", "fec0::1"),
        ("feff::9", "fec0::1"),
        ("ff02::1", "fe80::1"),
        ("ff05::1", "fec0::1"),
        ("ff01::1", "none"),
        ("ff0e::1", "fd01::1"),
        ("::1", "none"),
        ("::2", "::9"),
        ("::", "fd01::1"),
    ] {
        assert_eq!(to(&all, 0, destination), address, "{destination}");
    }
    assert_eq!(to(&all, 1, "2001:db8::1"), "fe80::1");
    assert_eq!(to(&["::ffff:10.0.0.1/128", "fd01::1/64"], 0, "2001:db8::1"), "fd01::1");
    assert_eq!(to(&["fd01::1/64"], 0, "10.9.9.9"), "none");
    // Every destination of one of these nets is sent to the same address.
    let nets = redirect_nets();
    for inside in [
        "fe80::9", "febf::9", "fec0::9", "feff::9", "ff02::1", "ff12::1", "ff05::1", "fff5::1", "ff01::1",
        "::1", "::2", "::",
    ] {
        assert!(
            nets.iter().any(|net| net.contains(&inside.parse::<std::net::IpAddr>().unwrap())),
            "{inside}"
        );
    }
}

#[test]
fn a_port_that_a_kernel_picks_is_certainly_in_a_range_around_and_not_in_one_beside() {
    let picked = |low, high| in_range(PortValue::Fresh(range(100, 200)), range(low, high));
    let open = |tri: Tri| matches!(tri, Tri::Unknown(_));
    for (low, high) in [(100, 200), (99, 200), (100, 201), (0, 65535)] {
        assert_eq!(picked(low, high), Tri::Yes, "{low}-{high}");
    }
    for (low, high) in [(0, 99), (50, 60), (201, 65535), (300, 400)] {
        assert_eq!(picked(low, high), Tri::No, "{low}-{high}");
    }
    for (low, high) in [(0, 100), (200, 300), (101, 200), (100, 199), (150, 160), (50, 150), (150, 250)] {
        assert!(open(picked(low, high)), "{low}-{high}");
    }
    assert_eq!(in_range(PortValue::Is(100), range(100, 200)), Tri::Yes);
    assert_eq!(in_range(PortValue::Is(99), range(100, 200)), Tri::No);
}

#[test]
fn a_source_port_that_a_kernel_picked_is_kept_where_all_of_them_are_allowed() {
    let own = range(32768, 60999);
    for (allowed, left) in [
        ((32768, 60999), own),
        ((1, 65535), own),
        ((32769, 65535), range(32769, 65535)),
        ((1, 60998), range(1, 60998)),
        ((40000, 50000), range(40000, 50000)),
    ] {
        let transport = Transport::Udp { sport: PortValue::Fresh(own), dport: PortValue::Is(53) };
        let packet = Packet { transport, ..udp(("10.0.0.1", 1), ("10.0.0.2", 53)) };
        let packet = after(&Connections::default(), packet, End::Source, mapped(Some(allowed)));
        assert_eq!(
            packet.transport.ports(),
            Some((PortValue::Fresh(left), PortValue::Is(53))),
            "{allowed:?}"
        );
    }
}

#[test]
fn the_one_port_of_a_range_is_given_though_another_has_it() {
    let mut known = Connections::default();
    let mut first = opened(&udp(("10.0.0.9", 1000), ("10.0.0.2", 53)));
    settle(&known, &mut first, End::Source, mapped(None));
    known.0.push(Connection { confirmed: true, ..first });
    for (ports, left) in [
        (Some((1000, 1000)), PortValue::Is(1000)),
        (Some((1000, 2000)), PortValue::Fresh(range(1000, 2000))),
        (None, PortValue::Fresh(range(600, 1023))),
    ] {
        let packet = after(&known, udp(("10.0.0.1", 1000), ("10.0.0.2", 53)), End::Source, mapped(ports));
        assert_eq!(packet.transport.ports(), Some((left, PortValue::Is(53))), "{ports:?}");
    }
}
