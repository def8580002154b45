use super::build::{ping, tcp, udp, Build};
use super::{rule, seen};
use crate::engine::explore::{all, Choices};
use crate::engine::journey::Event;
use crate::engine::stepper::{walk, Entry, Sender, World};
use crate::model::{ConntrackState, Decision, Outcome, Packet, Payload, PortValue, TcpFlags, Transport};

const FORWARD: &str = "filter hook forward priority 0; policy accept;";
const PREROUTING: &str = "filter hook prerouting priority 0; policy accept;";

#[test]
fn accept_ends_one_base_chain_and_drop_ends_all() {
    let mut lab = Build::line();
    lab.rules("router", "*filter\n:FORWARD DROP [0:0]\n-A FORWARD -j ACCEPT");
    lab.chain("router", "late", "filter hook forward priority 10; policy drop;", "");
    let journey = lab.send(&[("client", ping("10.0.1.2", "10.0.2.2"))]);
    assert_eq!(rule(&journey), ("late", "fwd", None));
}

#[test]
fn return_from_a_base_chain_applies_its_policy() {
    let mut lab = Build::line();
    lab.rules("router", "*filter\n:FORWARD DROP [0:0]\n-A FORWARD -j RETURN\n-A FORWARD -j ACCEPT");
    let journey = lab.send(&[("client", ping("10.0.1.2", "10.0.2.2"))]);
    assert_eq!(rule(&journey), ("filter", "FORWARD", None));
}

#[test]
fn goto_does_not_come_back_to_where_it_was() {
    let mut lab = Build::line();
    lab.rules(
        "router",
        "*filter\n:FORWARD DROP [0:0]\n:A - [0:0]\n:B - [0:0]\n-A FORWARD -j A\n-A FORWARD -p icmp -j ACCEPT\n\
         -A A -g B\n-A A -j DROP\n-A B -p udp -j ACCEPT",
    );
    // B's end goes back to FORWARD, past the rest of A.
    seen(&lab.send(&[("client", ping("10.0.1.2", "10.0.2.2"))]));
}

#[test]
fn of_equal_priorities_the_chain_registered_later_runs_first() {
    let mut lab = Build::line();
    for table in ["first", "second"] {
        lab.chain("router", table, "filter hook forward priority 0; policy drop;", "");
    }
    let journey = lab.send(&[("client", ping("10.0.1.2", "10.0.2.2"))]);
    assert_eq!(rule(&journey), ("second", "fwd", None));
}

#[test]
fn an_nft_reject_passes_over_what_it_cannot_answer() {
    let mut lab = Build::line();
    lab.chain("router", "fw", FORWARD, "reject with tcp reset");
    seen(&lab.send(&[("client", udp(("10.0.1.2", 1), ("10.0.2.2", 2)))]));
    let journey = lab.send(&[("client", tcp(("10.0.1.2", 1), ("10.0.2.2", 2), TcpFlags::SYN))]);
    assert_eq!(rule(&journey), ("fw", "fwd", Some(1)));
}

#[test]
fn only_what_lies_behind_all_of_a_prefix_is_greater_than_it() {
    for (op, dst, drops) in [
        (">", "10.0.2.2", false),
        ("<=", "10.0.2.2", true),
        (">=", "10.0.2.2", true),
        ("<", "10.0.2.2", false),
    ] {
        let mut lab = Build::line();
        lab.chain("router", "fw", FORWARD, &format!("ip daddr {op} 10.0.2.0/24 drop"));
        let journey = lab.send(&[("client", ping("10.0.1.2", dst))]);
        assert_eq!(matches!(journey.outcome, Outcome::Dropped { .. }), drops, "{op}");
    }
}

#[test]
fn a_hook_without_an_interface_compares_with_the_empty_name() {
    let mut lab = Build::line();
    lab.rules("client", "*filter\n:OUTPUT ACCEPT [0:0]\n-A OUTPUT ! -i eth0 -j DROP");
    let journey = lab.send(&[("client", ping("10.0.1.2", "10.0.2.2"))]);
    assert_eq!(rule(&journey), ("filter", "OUTPUT", Some(1)));
}

#[test]
fn ttl_is_lowered_before_the_forward_chain() {
    let mut lab = Build::line();
    lab.rules("router", "*filter\n:FORWARD ACCEPT [0:0]\n-A FORWARD -m ttl --ttl-eq 63 -j DROP");
    let journey = lab.send(&[("client", ping("10.0.1.2", "10.0.2.2"))]);
    assert_eq!(rule(&journey), ("filter", "FORWARD", Some(1)));
}

#[test]
fn an_unmodelled_match_takes_both_branches_and_an_unmodelled_target_three() {
    let mut lab = Build::line();
    lab.rules("router", "*filter\n:FORWARD ACCEPT [0:0]\n-A FORWARD -m recent --rcheck --name x -j DROP");
    let outcomes = |lab: &Build| {
        let packet = ping("10.0.1.2", "10.0.2.2");
        let explored =
            all(9, |choices| lab.run(choices, &[("client", packet.clone())]).outcome.name().to_owned());
        explored.results
    };
    assert_eq!(outcomes(&lab), ["dropped", "delivered"]);
    let mut lab = Build::line();
    lab.rules("router", "*filter\n:FORWARD DROP [0:0]\n-A FORWARD -j NFQUEUE --queue-num 0");
    assert_eq!(outcomes(&lab), ["delivered", "dropped", "dropped"]);
}

#[test]
fn an_untracked_packet_is_neither_new_nor_invalid() {
    let mut lab = Build::line();
    lab.rules("router", "*raw\n:PREROUTING ACCEPT [0:0]\n-A PREROUTING -j CT --notrack");
    lab.rules(
        "router",
        "*filter\n:FORWARD ACCEPT [0:0]\n-A FORWARD -m conntrack --ctstate NEW,INVALID,ESTABLISHED -j DROP\n\
         -A FORWARD -m conntrack --ctstate UNTRACKED -j ACCEPT\n-A FORWARD -j DROP",
    );
    seen(&lab.send(&[("client", ping("10.0.1.2", "10.0.2.2"))]));
}

/// xt_CT.c: `if (skb->_nfct != 0) return XT_CONTINUE`.
#[test]
fn of_two_rules_that_say_how_to_track_the_first_counts() {
    let told = |rules: &str, state: &str| {
        let mut lab = Build::line();
        lab.rules("router", &format!("*raw\n:PREROUTING ACCEPT [0:0]\n{rules}"));
        lab.rules(
            "router",
            &format!("*filter\n:FORWARD DROP [0:0]\n-A FORWARD -m conntrack --ctstate {state} -j ACCEPT"),
        );
        seen(&lab.send(&[("client", ping("10.0.1.2", "10.0.2.2"))]));
    };
    told("-A PREROUTING -j CT --zone 2\n-A PREROUTING -j NOTRACK", "NEW");
    told("-A PREROUTING -j CT --notrack\n-A PREROUTING -j CT --zone 2", "UNTRACKED");
}

/// A template is a connection to those who ask (`xt_conntrack.c`).
#[test]
fn before_tracking_what_was_given_a_zone_is_new() {
    let mut lab = Build::line();
    lab.rules(
        "router",
        "*raw\n:PREROUTING ACCEPT [0:0]\n-A PREROUTING -j CT --zone 2\n\
         -A PREROUTING -m conntrack --ctstate INVALID,UNTRACKED -j DROP\n\
         -A PREROUTING -m conntrack --ctstate NEW -m connmark --mark 0 -j ACCEPT\n-A PREROUTING -j DROP",
    );
    seen(&lab.send(&[("client", ping("10.0.1.2", "10.0.2.2"))]));
}

#[test]
fn marks_do_not_leave_the_host() {
    let mut lab = Build::line();
    lab.rules("client", "*mangle\n:OUTPUT ACCEPT [0:0]\n-A OUTPUT -j MARK --set-mark 5");
    lab.rules("router", "*filter\n:FORWARD DROP [0:0]\n-A FORWARD -m mark --mark 0 -j ACCEPT");
    let journey = lab.send(&[("client", ping("10.0.1.2", "10.0.2.2"))]);
    assert!(matches!(journey.outcome, Outcome::Delivered { .. }));
}

/// The rule of FORWARD that a third packet of a connection meets.
fn third(first: Packet, second: Packet) -> Option<usize> {
    let mut lab = Build::line();
    lab.rules(
        "router",
        "*filter\n:FORWARD ACCEPT [0:0]\n-A FORWARD -s 10.0.1.2 -m mark --mark 7 -m conntrack --ctstate NEW -j DROP\n\
         -A FORWARD -s 10.0.1.2 -m mark --mark 7 -m conntrack --ctstate ESTABLISHED -j DROP",
    );
    lab.rules(
        "router",
        "*mangle\n:PREROUTING ACCEPT [0:0]\n-A PREROUTING -m ttl --ttl-eq 60 -j MARK --set-mark 7",
    );
    let again = Packet { ttl: 60, ..first.clone() };
    rule(&lab.send(&[("client", first), ("server", second), ("client", again)])).2
}

#[test]
fn a_syn_after_a_reset_that_was_the_first_reply_is_new() {
    let (client, server) = (("10.0.1.2", 4000), ("10.0.2.2", 80));
    let syn = tcp(client, server, TcpFlags::SYN);
    assert_eq!(third(syn.clone(), tcp(server, client, TcpFlags::RST | TcpFlags::ACK)), Some(1));
    assert_eq!(third(syn, tcp(server, client, TcpFlags::SYN | TcpFlags::ACK)), Some(2));
}

#[test]
fn an_icmp_redirect_about_a_connection_is_related() {
    let mut lab = Build::line();
    lab.rules("router", "*filter\n:FORWARD ACCEPT [0:0]\n-A FORWARD -m conntrack --ctstate RELATED -j DROP");
    let first = udp(("10.0.1.2", 1), ("10.0.2.2", 2));
    let redirect = Packet {
        transport: Transport::Icmp { kind: 5, code: 1, id: PortValue::Is(0) },
        payload: Payload::Quoted(Box::new(first.clone())),
        ..ping("10.0.2.2", "10.0.1.2")
    };
    let journey = lab.send(&[("client", first), ("server", redirect)]);
    assert_eq!(rule(&journey), ("filter", "FORWARD", Some(1)));
}

/// `nf_nat_icmp_reply_translation`.
#[test]
fn of_a_redirect_about_a_translated_connection_nothing_is_known() {
    let of = |rule: &str| {
        let mut lab = Build::line();
        lab.rules("router", &format!("*nat\n:PREROUTING ACCEPT\n:POSTROUTING ACCEPT\n{rule}"));
        let first = udp(("10.0.1.2", 1), ("10.0.2.2", 2));
        let sent = lab.send(&[("client", first.clone())]);
        let redirect = Packet {
            transport: Transport::Icmp { kind: 5, code: 1, id: PortValue::Is(0) },
            payload: Payload::Quoted(Box::new(seen(&sent).clone())),
            ..ping("10.0.2.2", &seen(&sent).src.to_string())
        };
        lab.send(&[("client", first), ("server", redirect)]).unknown
    };
    assert_eq!(of(""), [""; 0]);
    for rule in ["-A POSTROUTING -j MASQUERADE", "-A PREROUTING -p udp -j DNAT --to-destination 10.0.2.2:9"] {
        let unknown = of(rule);
        assert!(unknown.iter().any(|why| why.contains("redirect")), "{rule}: {unknown:?}");
    }
}

/// `match_lookup_rt6`: a look-up without a source that names a device takes no
/// route but by that device.
#[test]
fn what_another_device_reaches_is_unreachable_to_an_address_type_of_ipv6_with_a_device() {
    let outcome = |limit: &str| {
        let mut lab = Build::line();
        lab.rules(
            "router",
            &format!(
                "# ip6tables\n*filter\n:FORWARD ACCEPT [0:0]\n\
                 -A FORWARD -m addrtype --dst-type UNREACHABLE {limit} -j DROP"
            ),
        );
        lab.send(&[("client", udp(("fd01::2", 1), ("fd02::2", 53)))]).outcome.name().to_owned()
    };
    assert_eq!(outcome(""), "delivered");
    assert_eq!(outcome("--limit-iface-in"), "dropped");
    assert_eq!(outcome("--limit-iface-out"), "delivered");
}

#[test]
fn nat_of_one_family_tracks_that_family_alone() {
    let map = "tcp dport map { 22 : 10.0.2.9 }";
    for (before, address) in [("", "10.0.2.9"), ("", map), ("meta nfproto != ipv6", map)] {
        let mut lab = Build::line();
        lab.nft(
            "router",
            &format!(
                "table inet lab {{
                    chain prerouting {{ type nat hook prerouting priority 0; policy accept; drop; }}
                    chain postrouting {{
                        type nat hook postrouting priority 0; policy accept; {before} snat ip to {address};
                    }}
                }}"
            ),
        );
        let dropped = |src, dst| {
            matches!(lab.send(&[("client", udp((src, 1), (dst, 53)))]).outcome, Outcome::Dropped { .. })
        };
        assert!(dropped("10.0.1.2", "10.0.2.2"));
        assert!(!dropped("fd01::2", "fd02::2"));
    }
}

#[test]
fn that_nat_has_settled_an_end_counts_in_the_status_of_a_connection() {
    for (settled, drops) in [(384, false), (256, true)] {
        let mut lab = Build::line();
        lab.rules(
            "router",
            "*nat\n:PREROUTING ACCEPT [0:0]\n-A PREROUTING -d 10.9.9.9 -j DNAT --to 10.0.2.2",
        );
        lab.chain("router", "lab", FORWARD, &format!("ct status <= {settled} ct status >= {settled} drop"));
        let journey = lab.send(&[("client", udp(("10.0.1.2", 1), ("10.0.2.2", 53)))]);
        assert_eq!(matches!(journey.outcome, Outcome::Dropped { .. }), drops, "{settled}");
    }
}

#[test]
fn a_syn_opens_anew_what_its_own_side_reset_and_not_what_the_other_did() {
    let (client, server) = (("10.0.1.2", 4000), ("10.0.2.2", 80));
    let there = |flags| ("client", tcp(client, server, flags));
    let back = |flags| ("server", tcp(server, client, flags));
    let (syn, ack, reset) = (TcpFlags::SYN, TcpFlags::ACK, TcpFlags::RST);
    let state = |last: (&str, Packet)| {
        let mut lab = Build::line();
        lab.rules("router", "*filter\n:FORWARD ACCEPT [0:0]\n-A FORWARD -m state --state NEW -j ACCEPT");
        let opening = [there(syn), back(syn | ack), there(ack), last];
        lab.send(&opening);
        let all: Vec<_> = opening.into_iter().chain([there(syn)]).collect();
        let journey = lab.send(&all);
        journey.events.iter().find_map(|event| match event {
            Event::Tracked { host, state } if host == "router" => Some(*state),
            _ => None,
        })
    };
    assert_eq!(state(there(reset | ack)), Some(ConntrackState::New));
    assert_ne!(state(back(reset | ack)), Some(ConntrackState::New));
}

#[test]
fn a_flag_of_a_status_is_asked_for_alone() {
    for (flag, drops) in [("dnat", true), ("snat", false)] {
        let mut lab = Build::line();
        lab.rules("router", "*nat\n:PREROUTING ACCEPT [0:0]\n-A PREROUTING -j DNAT --to 10.0.2.2");
        lab.chain("router", "lab", FORWARD, &format!("ct status {flag} drop"));
        let journey = lab.send(&[("client", udp(("10.0.1.2", 1), ("10.0.9.9", 53)))]);
        assert_eq!(matches!(journey.outcome, Outcome::Dropped { .. }), drops, "{flag}");
    }
}

#[test]
fn a_code_point_is_the_upper_six_bits_of_the_service_field() {
    for (family, ends) in [("ip", ("10.0.1.2", "10.0.2.2")), ("ip6", ("fd01::2", "fd02::2"))] {
        for (tos, drops) in [(0x20, true), (0x23, true), (0x24, false)] {
            let mut lab = Build::line();
            lab.chain("router", "lab", FORWARD, &format!("{family} dscp cs1 drop"));
            let packet = Packet { tos, ..udp((ends.0, 1), (ends.1, 53)) };
            let journey = lab.send(&[("client", packet)]);
            assert_eq!(matches!(journey.outcome, Outcome::Dropped { .. }), drops, "{family} {tos:#x}");
        }
    }
}

#[test]
fn fib_tells_the_device_of_a_broadcast_and_none_of_what_is_local() {
    for (dst, drops) in [("10.0.2.255", true), ("10.0.2.2", true), ("10.0.2.1", false)] {
        let mut lab = Build::line();
        lab.chain("router", "lab", PREROUTING, "fib daddr oif eth1 drop");
        let journey = lab.run(&mut Choices::default(), &[("client", udp(("10.0.1.2", 1), (dst, 53)))]);
        let by_rule = matches!(journey.outcome, Outcome::Dropped { by: Decision::Rule(_) });
        assert_eq!(by_rule, drops, "{dst}");
    }
}

#[test]
fn the_type_of_nowhere_is_that_of_its_route_where_none_leads_there() {
    for (route, drops) in [("default via fd02::2 dev eth1", false), ("blackhole 10.9.9.9/32", true)] {
        let mut lab = Build::line();
        lab.route("router", route);
        lab.chain("router", "lab", PREROUTING, "fib saddr type unreachable drop");
        let journey = lab.run(&mut Choices::default(), &[("router:eth0", udp(("::", 1), ("fd01::1", 53)))]);
        let by_rule = matches!(journey.outcome, Outcome::Dropped { by: Decision::Rule(_) });
        assert_eq!(by_rule, drops, "{route}");
    }
}

#[test]
fn a_map_gives_the_mark_of_the_port() {
    let mut lab = Build::line();
    let rules = "meta mark set udp dport map { 53 : 3, 80-90 : 4 }\nmeta mark 3 drop";
    lab.chain("router", "lab", FORWARD, rules);
    let dropped = |port| {
        let journey = lab.send(&[("client", udp(("10.0.1.2", 1), ("10.0.2.2", port)))]);
        matches!(journey.outcome, Outcome::Dropped { .. })
    };
    assert_eq!((dropped(53), dropped(80), dropped(99)), (true, false, false));
}

#[test]
fn nothing_is_asked_of_a_rule_that_does_nothing() {
    for (target, reasons) in [("", false), (" -j MARK --set-xmark 0x1/0xffffffff", true)] {
        let mut lab = Build::line();
        let rule = format!("-A FORWARD -m recent --rcheck --name x{target}");
        lab.rules("router", &format!("*mangle\n:FORWARD ACCEPT [0:0]\n{rule}"));
        let packet = udp(("10.0.1.2", 1), ("10.0.2.2", 2));
        let explored = all(4, |choices| lab.run(choices, &[("client", packet.clone())]));
        assert_eq!(!explored.reasons.is_empty(), reasons, "{rule}");
    }
}

#[test]
fn what_a_rate_decides_is_decided_for_a_lone_packet() {
    for (condition, assumed) in [
        ("-m limit --limit 1/sec", true),
        ("-m hashlimit --hashlimit-upto 1/sec --hashlimit-name x", true),
        ("-m hashlimit --hashlimit-above 1/sec --hashlimit-name x", true),
        ("-m comment --comment x", false),
        ("-p udp", false),
    ] {
        let mut lab = Build::line();
        lab.rules("router", &format!("*filter\n:FORWARD ACCEPT\n-A FORWARD {condition} -j DROP"));
        let journey = lab.send(&[("client", udp(("10.0.1.2", 1), ("10.0.2.2", 2)))]);
        let told = journey.assumptions.iter().any(|what| what.ends_with("within its rate, a lone packet"));
        assert_eq!(told, assumed, "{condition}");
    }
}

/// Chains may fan out, where each of some chains jumps many times to the next.
#[test]
fn so_many_jumps_are_followed_and_no_more() {
    // 10 + 10 * 99 + 10 * 99 * 100, and those more.
    for (more, known) in [(0, true), (1, false)] {
        let mut lab = Build::line();
        let times = |n: usize, rule: &str| vec![rule; n].join("\n");
        lab.rules(
            "router",
            &format!(
                "*filter\n:FORWARD ACCEPT\n:first -\n:second -\n:last -\n{}\n{}\n{}\n{}",
                times(10, "-A FORWARD -j first"),
                times(more, "-A FORWARD -j last"),
                times(99, "-A first -j second"),
                times(100, "-A second -j last"),
            ),
        );
        let entry = Entry::Send("client".into(), Sender::Socket);
        let packet = udp(("10.0.1.2", 1), ("10.0.2.2", 2));
        let journey = walk(&lab.lab, &mut World::default(), &mut Choices::default(), &entry, &packet);
        assert_eq!(journey.unknown.is_empty(), known, "{more}: {:?}", journey.unknown);
    }
}
