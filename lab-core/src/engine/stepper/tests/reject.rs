use super::build::{ping, tcp, udp, Build};
use super::{answer, rule};
use crate::model::{AnswerKind, Outcome, Packet, Payload, PortValue, Stage, TcpFlags, Transport};

fn rejecting(with: &str) -> Build {
    let mut lab = Build::line();
    lab.rules("router", &format!("*filter\n:FORWARD ACCEPT [0:0]\n-A FORWARD -s 10.0.1.2 -j REJECT{with}"));
    lab
}

#[test]
fn a_rejects_answer_needs_a_route_back() {
    let mut lab = rejecting("");
    let journey = lab.send(&[("client", ping("10.0.1.2", "10.0.2.2"))]);
    assert_eq!(answer(&journey).kind, AnswerKind::Icmp(3, 3));
    assert!(answer(&journey).came_back);
    lab.route("router", "blackhole 10.0.1.2/32");
    let journey = lab.send(&[("client", ping("10.0.1.2", "10.0.2.2"))]);
    assert!(matches!(journey.outcome, Outcome::Dropped { .. }));
    assert_eq!(rule(&journey), ("filter", "FORWARD", Some(1)));
}

#[test]
fn its_own_hosts_output_can_drop_the_answer_which_is_related() {
    let mut lab = rejecting("");
    lab.rules("router", "*mangle\n:OUTPUT ACCEPT [0:0]\n-A OUTPUT -m conntrack --ctstate RELATED -j DROP");
    let journey = lab.send(&[("client", ping("10.0.1.2", "10.0.2.2"))]);
    assert!(matches!(journey.outcome, Outcome::Dropped { .. }));
}

#[test]
fn reject_never_answers_an_icmp_error() {
    let lab = rejecting("");
    let quoted = udp(("10.0.2.2", 1), ("10.0.1.2", 2));
    let error = Packet {
        transport: Transport::Icmp { kind: 3, code: 3, id: PortValue::Is(0) },
        payload: Payload::Quoted(Box::new(quoted)),
        ..ping("10.0.1.2", "10.0.2.2")
    };
    let journey = lab.send(&[("client", error)]);
    assert!(matches!(journey.outcome, Outcome::Dropped { .. }));
}

#[test]
fn a_reset_comes_from_the_address_that_was_asked() {
    let lab = rejecting(" -p tcp --reject-with tcp-reset");
    let journey = lab.send(&[("client", tcp(("10.0.1.2", 4000), ("10.0.2.2", 80), TcpFlags::SYN))]);
    assert_eq!(answer(&journey).kind, AnswerKind::TcpReset);
    assert_eq!(answer(&journey).from_addr.to_string(), "10.0.2.2");
    let journey = lab.send(&[("client", tcp(("10.0.1.2", 4000), ("10.0.2.2", 80), TcpFlags::RST))]);
    assert!(matches!(journey.outcome, Outcome::Dropped { .. }));
}

#[test]
fn rejected_in_output_the_host_tells_itself() {
    let mut lab = Build::line();
    lab.rules("client", "*filter\n:OUTPUT ACCEPT [0:0]\n-A OUTPUT -p udp -j REJECT");
    let journey = lab.send(&[("client", udp(("0.0.0.0", 1), ("10.0.2.2", 53)))]);
    assert!(answer(&journey).came_back);
    assert_eq!(answer(&journey).hops[0].at.iface, "lo");
}

#[test]
fn nothing_is_sent_about_what_was_sent_to_everybody() {
    let mut lab = Build::line();
    lab.rules("router", "*filter\n:INPUT ACCEPT [0:0]\n-A INPUT -j REJECT");
    let journey = lab.send(&[("router:eth0", udp(("10.0.1.2", 1), ("10.0.1.255", 53)))]);
    assert!(matches!(journey.outcome, Outcome::Dropped { .. }));
    answer(&lab.send(&[("router:eth0", udp(("10.0.1.2", 1), ("10.0.1.1", 53)))]));
    // Nor a reset to a group (nf_send_reset).
    lab.get("router").ruleset.tables.clear();
    lab.rules("router", "*filter\n:INPUT ACCEPT [0:0]\n-A INPUT -p tcp -j REJECT --reject-with tcp-reset");
    for (dst, silent) in [("224.0.0.1", true), ("10.0.1.1", false)] {
        let journey = lab.send(&[("router:eth0", tcp(("10.0.1.2", 1), (dst, 22), TcpFlags::SYN))]);
        assert_eq!(matches!(journey.outcome, Outcome::Dropped { .. }), silent, "{dst}");
    }
}

/// `ip_route_me_harder` asks with the source that a reset has.
#[test]
fn a_reset_is_routed_from_the_address_that_it_speaks_for() {
    use super::route::{default_rules, policy_rule};
    use crate::model::{PolicyAction, PolicyRule};
    for (from, came_back) in [("10.0.2.2/32", false), ("10.0.1.1/32", true), ("10.0.2.3/32", true)] {
        let mut lab = Build::line();
        lab.rules(
            "router",
            "*filter\n:FORWARD ACCEPT [0:0]\n-A FORWARD -p tcp -j REJECT --reject-with tcp-reset",
        );
        let rule = PolicyRule { source: from.parse().ok(), ..policy_rule(100, PolicyAction::Blackhole) };
        lab.get("router").rules = default_rules();
        lab.get("router").rules.insert(1, rule);
        let journey = lab.send(&[("client", tcp(("10.0.1.2", 1), ("10.0.2.2", 22), TcpFlags::SYN))]);
        let answered = matches!(&journey.outcome, Outcome::Rejected { answer, .. } if answer.came_back);
        assert_eq!(answered, came_back, "{from}: {:?}", journey.outcome);
    }
}

/// `ip_error`, `ip6_pkt_drop`, `ip_forward`, `ip6_forward`.
#[test]
fn what_does_not_pass_a_router_is_told_why() {
    let mut lab = Build::line();
    lab.change("router", "eth1", |i| i.mtu = 1400);
    for (kind, v4, v6) in [
        ("blackhole", "10.7.1.0/24", "fd07:1::/64"),
        ("prohibit", "10.7.2.0/24", "fd07:2::/64"),
        ("unreachable", "10.7.3.0/24", "fd07:3::/64"),
    ] {
        lab.route("router", &format!("{kind} {v4}")).route("router", &format!("{kind} {v6}"));
    }
    let at = |ttl, length, (src, dst)| Packet { ttl, length, ..udp((src, 1), (dst, 53)) };
    let (v4, v6) = (|dst| ("10.0.1.2", dst), |dst| ("fd01::2", dst));
    for (packet, stage, told) in [
        (at(64, 60, v4("10.7.1.1")), Stage::Blackhole, None),
        (at(64, 60, v6("fd07:1::1")), Stage::Blackhole, None),
        (at(64, 60, v4("10.7.2.1")), Stage::Prohibit, Some(AnswerKind::Icmp(3, 13))),
        (at(64, 60, v6("fd07:2::1")), Stage::Prohibit, Some(AnswerKind::Icmp6(1, 1))),
        (at(64, 60, v4("10.7.3.1")), Stage::HostUnreachable, Some(AnswerKind::Icmp(3, 1))),
        (at(64, 60, v6("fd07:3::1")), Stage::NoRoute, Some(AnswerKind::Icmp6(1, 0))),
        (at(64, 60, v4("10.7.4.1")), Stage::NoRoute, Some(AnswerKind::Icmp(3, 0))),
        (at(64, 60, v6("fd07:4::1")), Stage::NoRoute, Some(AnswerKind::Icmp6(1, 0))),
        (at(1, 60, v4("10.0.2.2")), Stage::Ttl, Some(AnswerKind::Icmp(11, 0))),
        (at(1, 60, v6("fd02::2")), Stage::Ttl, Some(AnswerKind::Icmp6(3, 0))),
        (at(64, 1401, v4("10.0.2.2")), Stage::Mtu, Some(AnswerKind::Icmp(3, 4))),
        (at(64, 1401, v6("fd02::2")), Stage::Mtu, Some(AnswerKind::Icmp6(2, 0))),
    ] {
        let text = packet.to_string();
        let journey = lab.send(&[("client", packet)]);
        assert_eq!(*super::stage(&journey), stage, "{text}");
        match &journey.outcome {
            Outcome::Rejected { answer, .. } => assert_eq!(Some(answer.kind), told, "{text}"),
            _ => assert_eq!(told, None, "{text}"),
        }
    }
}
