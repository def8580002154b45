//! ICMP errors and resets: whether they are sent, and what they look like.

use crate::addr::Family;
use crate::engine::stepper::tests::build::{ping, tcp, udp};
use crate::model::{AnswerKind, Host, Packet, Payload, PortValue, TcpFlags, Transport};
use crate::semantics::icmp::{default_ttl, error, may_answer, may_reset, reset, too_big_for_tunnel};

fn icmp(packet: &Packet, kind: u8) -> Packet {
    let id = PortValue::Is(0);
    let transport = match packet.family() {
        Family::Ipv4 => Transport::Icmp { kind, code: 0, id },
        Family::Ipv6 => Transport::Icmp6 { kind, code: 0, id },
    };
    Packet { transport, ..packet.clone() }
}

#[test]
fn errors_answer_no_errors_no_groups_and_nobody_without_an_address() {
    let (v4, v6) = (ping("10.0.0.1", "10.0.0.2"), ping("fd00::1", "fd00::2"));
    for (kind, answered) in [
        (8, true),
        (0, true),
        (13, true),
        (18, true),
        (3, false),
        (11, false),
        (12, false),
        (19, false),
        (255, false),
    ] {
        assert_eq!(may_answer(&icmp(&v4, kind)), answered, "type {kind}");
    }
    for (kind, answered) in [(128, true), (135, true), (1, false), (4, false)] {
        assert_eq!(may_answer(&icmp(&v6, kind)), answered, "type {kind} of IPv6");
    }
    for (src, dst, answered) in [
        ("10.0.0.1", "10.0.0.2", true),
        ("10.0.0.1", "255.255.255.255", false),
        ("10.0.0.1", "224.0.0.1", false),
        ("0.0.0.0", "10.0.0.2", false),
        // An error to a group or to everybody is routed as any other packet.
        ("224.0.0.1", "10.0.0.2", true),
        ("255.255.255.255", "10.0.0.2", true),
        ("fd00::1", "fd00::2", true),
        ("fd00::1", "ff02::1", false),
        ("ff02::1", "fd00::2", false),
        ("::", "fd00::2", false),
    ] {
        assert_eq!(may_answer(&udp((src, 1), (dst, 2))), answered, "{src} {dst}");
    }
}

#[test]
fn resets_of_ipv6_go_between_unicast_addresses() {
    for (src, dst, sent) in [
        ("10.0.0.1", "224.0.0.1", true),
        ("fd00::1", "fd00::2", true),
        ("fd00::1", "ff02::1", false),
        ("ff02::1", "fd00::1", false),
        ("::", "fd00::1", false),
        ("fd00::1", "::", false),
        ("::ffff:10.0.0.1", "fd00::1", false),
    ] {
        assert_eq!(may_reset(&tcp((src, 1), (dst, 2), TcpFlags::SYN)), sent, "{src} {dst}");
    }
}

#[test]
fn an_error_quotes_the_packet_up_to_a_size_and_has_its_hosts_ttl() {
    let mut host = Host::default();
    for (length, kind, quoted) in [
        (100, AnswerKind::Icmp(3, 3), 128),
        (548, AnswerKind::Icmp(3, 3), 576),
        (549, AnswerKind::Icmp(3, 3), 576),
        (1500, AnswerKind::Icmp(3, 3), 576),
        (100, AnswerKind::Icmp6(1, 4), 148),
        (1232, AnswerKind::Icmp6(1, 4), 1280),
        (1500, AnswerKind::Icmp6(1, 4), 1280),
    ] {
        let v4 = matches!(kind, AnswerKind::Icmp(..));
        let (src, dst) = if v4 { ("10.0.0.1", "10.0.0.2") } else { ("fd00::1", "fd00::2") };
        let about = Packet { length, tos: 0xff, mark: 7, ..udp((src, 1), (dst, 2)) };
        let told = error(&host, &about, kind, about.dst);
        assert_eq!((told.length, told.ttl, told.mark, told.df), (quoted, 64, 0, false), "{kind:?} {length}");
        assert_eq!(told.tos, if v4 { 0xde } else { 0 });
        assert_eq!((told.src, told.dst), (about.dst, about.src));
        let Payload::Quoted(inner) = &told.payload else { panic!("nothing is quoted") };
        assert_eq!((inner.mark, inner.length), (0, length));
    }
    for (key, value) in [("net.ipv4.ip_default_ttl", "100"), ("net.ipv6.conf.all.hop_limit", "50")] {
        host.sysctls.0.insert(key.into(), value.into());
    }
    assert_eq!((default_ttl(&host, Family::Ipv4), default_ttl(&host, Family::Ipv6)), (100, 50));
    host.sysctls.0.insert("net.ipv4.ip_default_ttl".into(), "0".into());
    assert_eq!(default_ttl(&host, Family::Ipv4), 64);
}

#[test]
fn a_reset_turns_the_ports_round_and_acknowledges_what_did_not() {
    let host = Host::default();
    for (flags, answered) in [
        (TcpFlags::SYN, TcpFlags::RST | TcpFlags::ACK),
        (TcpFlags::ACK, TcpFlags::RST),
        (TcpFlags::SYN | TcpFlags::ACK, TcpFlags::RST),
    ] {
        for (src, dst, length, df) in [("10.0.0.1", "10.0.0.2", 40, true), ("fd00::1", "fd00::2", 60, false)]
        {
            let told = reset(&host, &tcp((src, 1), (dst, 2), flags));
            let (sport, dport) = (PortValue::Is(2), PortValue::Is(1));
            assert_eq!(told.transport, Transport::Tcp { sport, dport, flags: TcpFlags(answered) });
            assert_eq!((told.length, told.df, told.ttl, told.tos), (length, df, 64, 0));
            assert_eq!((told.src.to_string().as_str(), told.dst.to_string().as_str()), (dst, src));
        }
    }
}

#[test]
fn a_bridged_packet_too_big_for_a_tunnel_is_answered_between_plain_addresses() {
    let (needed, large) = (Some(AnswerKind::Icmp(3, 4)), Some(AnswerKind::Icmp6(2, 0)));
    for (src, dst, df, room, told) in [
        ("10.0.0.1", "10.0.0.2", true, 576, needed),
        ("10.0.0.1", "10.0.0.2", true, 575, None),
        ("10.0.0.1", "10.0.0.2", false, 1400, None),
        ("10.0.0.1", "224.0.0.1", true, 1400, None),
        ("127.0.0.1", "10.0.0.2", true, 1400, None),
        ("0.0.0.0", "10.0.0.2", true, 1400, None),
        ("fd00::1", "fd00::2", false, 1280, large),
        ("fd00::1", "fd00::2", true, 1279, None),
        ("fd00::1", "ff02::1", false, 1400, None),
        ("fd00::1", "::1", false, 1400, None),
    ] {
        let packet = Packet { df, ..udp((src, 1), (dst, 2)) };
        assert_eq!(too_big_for_tunnel(&packet, room), told, "{src} {dst} {room}");
    }
    assert_eq!(too_big_for_tunnel(&icmp(&ping("10.0.0.1", "10.0.0.2"), 3), 1400), None);
}
