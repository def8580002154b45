use super::build::{ping, tcp, udp, Build};
use super::route::{default_rules, policy_rule};
use super::{answer, seen, stage};
use crate::addr::PortRange;
use crate::engine::explore::all;
use crate::model::{Outcome, PolicyAction, PolicyRule, PortValue, Stage, TcpFlags, Transport};

const SYN: u8 = TcpFlags::SYN;
const ACK: u8 = TcpFlags::ACK;

fn masquerading() -> Build {
    let mut lab = Build::line();
    lab.rules("router", "*nat\n:POSTROUTING ACCEPT [0:0]\n-A POSTROUTING -o eth1 -j MASQUERADE");
    lab
}

#[test]
fn nat_chains_see_only_packets_that_open_a_connection() {
    let lab = masquerading();
    let (client, server) = (("10.0.1.2", 4000), ("10.0.2.2", 80));
    for flags in [SYN | ACK, TcpFlags::RST, 0] {
        let journey = lab.send(&[("client", tcp(client, server, flags))]);
        assert_eq!(seen(&journey).src.to_string(), "10.0.1.2", "flags {flags}");
    }
    let journey = lab.send(&[("client", tcp(client, server, SYN))]);
    assert_eq!(seen(&journey).src.to_string(), "10.0.2.1");
}

#[test]
fn a_lone_ack_is_new_while_tcp_is_picked_up_loosely() {
    let mut lab = masquerading();
    let packet = tcp(("10.0.1.2", 4000), ("10.0.2.2", 80), ACK);
    assert_eq!(seen(&lab.send(&[("client", packet.clone())])).src.to_string(), "10.0.2.1");
    lab.sysctl("router", "net.netfilter.nf_conntrack_tcp_loose", 0);
    assert_eq!(seen(&lab.send(&[("client", packet)])).src.to_string(), "10.0.1.2");
}

#[test]
fn a_reply_is_translated_back() {
    let lab = masquerading();
    let first = tcp(("10.0.1.2", 4000), ("10.0.2.2", 80), SYN);
    let reply = tcp(("10.0.2.2", 80), ("10.0.2.1", 4000), SYN | ACK);
    let journey = lab.send(&[("client", first), ("server", reply)]);
    assert_eq!(seen(&journey).dst.to_string(), "10.0.1.2");
}

#[test]
fn only_init_opens_an_sctp_association() {
    let lab = masquerading();
    let sctp = |init| {
        let mut packet = udp(("10.0.1.2", 4000), ("10.0.2.2", 80));
        packet.transport =
            crate::model::Transport::Sctp { sport: PortValue::Is(4000), dport: PortValue::Is(80), init };
        packet
    };
    assert_eq!(seen(&lab.send(&[("client", sctp(false))])).src.to_string(), "10.0.1.2");
    assert_eq!(seen(&lab.send(&[("client", sctp(true))])).src.to_string(), "10.0.2.1");
}

#[test]
fn masquerade_keeps_a_free_source_port_and_picks_by_chance_below_its_range() {
    let mut lab = Build::line();
    lab.rules(
        "router",
        "*nat\n:POSTROUTING ACCEPT [0:0]\n-A POSTROUTING -p udp -j MASQUERADE --to-ports 1024-65535",
    );
    let sport = |from| {
        let journey = lab.send(&[("client", udp(("10.0.1.2", from), ("10.0.2.2", 53)))]);
        seen(&journey).transport.ports().unwrap().0
    };
    assert_eq!(sport(4000), PortValue::Is(4000));
    assert_eq!(sport(500), PortValue::Fresh(PortRange { low: 1024, high: 65535 }));
}

#[test]
fn dnat_to_a_range_of_ports_keeps_a_port_of_it_and_picks_one_for_others() {
    let mut lab = Build::line();
    let rule = "-A PREROUTING -p udp -j DNAT --to-destination 10.0.2.2:512-40000";
    lab.rules("router", &format!("*nat\n:PREROUTING ACCEPT [0:0]\n{rule}"));
    let dport = |to| {
        let journey = lab.send(&[("client", udp(("10.0.1.2", 4000), ("10.0.1.1", to)))]);
        seen(&journey).transport.ports().unwrap().1
    };
    assert_eq!(dport(8080), PortValue::Is(8080));
    assert_eq!(dport(53), PortValue::Fresh(PortRange { low: 512, high: 40000 }));
}

#[test]
fn dnat_back_to_the_client_without_snat_is_martian_at_the_client() {
    let mut lab = Build::line();
    lab.rules(
        "router",
        "*nat\n:PREROUTING ACCEPT [0:0]\n-A PREROUTING -d 10.0.1.1 -j DNAT --to-destination 10.0.1.2",
    );
    let journey = lab.send(&[("client", tcp(("10.0.1.2", 4000), ("10.0.1.1", 80), SYN))]);
    assert_eq!(*stage(&journey), Stage::MartianSource);
    assert_eq!(journey.outcome.decision().unwrap().host(), "client");
}

#[test]
fn the_reverse_path_test_looks_towards_the_translated_destination() {
    let mut lab = Build::line();
    lab.rules(
        "router",
        "*nat\n:PREROUTING ACCEPT [0:0]\n-A PREROUTING -d 10.9.9.9 -j DNAT --to-destination 10.0.2.2",
    );
    lab.sysctl("router", "net.ipv4.conf.all.rp_filter", 1);
    // The way back is looked up for a packet from the destination: seen from
    // the one before translation there is none.
    let refused =
        PolicyRule { source: "10.9.9.9/32".parse().ok(), ..policy_rule(100, PolicyAction::Blackhole) };
    lab.get("router").rules = default_rules();
    lab.get("router").rules.insert(1, refused);
    let journey = lab.send(&[("client", udp(("10.0.1.2", 1), ("10.9.9.9", 53)))]);
    assert_eq!(seen(&journey).dst.to_string(), "10.0.2.2");
}

#[test]
fn dnat_in_output_routes_again_and_filter_output_keeps_the_first_device() {
    let mut lab = Build::line();
    lab.rules(
        "router",
        "*nat\n:OUTPUT ACCEPT [0:0]\n-A OUTPUT -d 10.0.1.77 -j DNAT --to-destination 10.0.2.2",
    );
    let journey = lab.send(&[("router", udp(("0.0.0.0", 1), ("10.0.1.77", 53)))]);
    assert_eq!(seen(&journey).dst.to_string(), "10.0.2.2");
    lab.rules("router", "*filter\n:OUTPUT ACCEPT [0:0]\n-A OUTPUT -o eth0 -j DROP");
    let journey = lab.send(&[("router", udp(("0.0.0.0", 1), ("10.0.1.77", 53)))]);
    assert!(matches!(journey.outcome, Outcome::Dropped { .. }));
}

#[test]
fn an_unresolved_neighbour_is_told_to_the_translated_source_and_the_quoted_packet_is_changed_back() {
    let lab = masquerading();
    let journey = lab.send(&[("client", ping("10.0.1.2", "10.0.2.99"))]);
    assert_eq!(*stage(&journey), Stage::HostUnreachable);
    let told = answer(&journey);
    assert_eq!(told.from_addr.to_string(), "10.0.2.1");
    assert!(told.came_back);
    let (_, received) = told.received.as_ref().unwrap();
    assert_eq!(received.quoted().unwrap().src.to_string(), "10.0.1.2");
}

#[test]
fn netmap_keeps_host_bits() {
    let mut lab = Build::line();
    lab.rules(
        "router",
        "*nat\n:PREROUTING ACCEPT [0:0]\n-A PREROUTING -d 10.77.0.0/24 -j NETMAP --to 10.0.2.0/24",
    );
    let journey = lab.send(&[("client", ping("10.0.1.2", "10.77.0.2"))]);
    assert_eq!(seen(&journey).dst.to_string(), "10.0.2.2");
}

#[test]
fn redirect_goes_to_the_address_of_the_interface_of_arrival() {
    let mut lab = Build::line();
    lab.rules(
        "router",
        "*nat\n:PREROUTING ACCEPT [0:0]\n-A PREROUTING -p tcp --dport 80 -j REDIRECT --to-ports 8080",
    );
    let journey = lab.send(&[("client", tcp(("10.0.1.2", 4000), ("10.0.2.2", 80), SYN))]);
    assert_eq!(seen(&journey).to_string(), "tcp 10.0.1.2:4000 -> 10.0.1.1:8080 SYN");
}

/// `nf_nat_redirect_ipv6_usable`.
#[test]
fn what_is_redirected_keeps_the_scope_of_its_destination() {
    let mut lab = Build::default();
    lab.host("client", false).nic("client", "eth0", &["fd01::2/64"]);
    lab.host("router", false).nic("router", "eth0", &["fd01::1/64", "fe80::1/64"]);
    lab.link(&[("client", "eth0"), ("router", "eth0")]).route("client", "ff00::/8 dev eth0");
    lab.route("client", "fe80::/64 dev eth0");
    lab.rules("router", "# ip6tables\n*nat\n:PREROUTING ACCEPT [0:0]\n-A PREROUTING -j REDIRECT");
    let to = |dst: &str| seen(&lab.send(&[("client", udp(("fd01::2", 5), (dst, 53)))])).dst.to_string();
    assert_eq!(to("fd01::1"), "fd01::1");
    assert_eq!(to("ff02::1"), "fe80::1");
}

#[test]
fn which_backend_chance_picks_is_possible_not_certain() {
    let mut lab = Build::line();
    lab.rules(
        "router",
        "*nat\n:PREROUTING ACCEPT [0:0]\n\
         -A PREROUTING -d 10.9.9.9 -m statistic --mode random --probability 0.5 -j DNAT --to-destination 10.0.2.2\n\
         -A PREROUTING -d 10.9.9.9 -j DNAT --to-destination 10.0.1.1",
    );
    let packet = udp(("10.0.1.2", 1), ("10.9.9.9", 53));
    let explored = all(8, |choices| seen(&lab.run(choices, &[("client", packet.clone())])).dst.to_string());
    assert_eq!(explored.results, ["10.0.2.2", "10.0.1.1"]);
}

#[test]
fn between_two_nat_back_ends_of_one_priority_either_may_have_come_first() {
    let mut lab = Build::line();
    for (header, port) in [("", 81), ("# Generated by iptables-save v1.8.9 (nf_tables)\n", 82)] {
        let table = "*nat\n:PREROUTING ACCEPT [0:0]\n-A PREROUTING -p udp -j REDIRECT --to-ports";
        lab.rules("router", &format!("{header}{table} {port}"));
    }
    let packet = udp(("10.0.1.2", 1), ("10.0.2.2", 53));
    let ports = all(8, |choices| {
        let journey = lab.run(choices, &[("client", packet.clone())]);
        seen(&journey).transport.ports().unwrap().1
    });
    assert_eq!(ports.results, [PortValue::Is(81), PortValue::Is(82)]);
}

/// `nf_ct_zone_equal`: a reply is compared with the zone of replies.
#[test]
fn a_zone_for_one_direction_is_asked_for_in_that_direction_only() {
    let state_of_reply = |option: &str| {
        let mut lab = Build::line();
        lab.rules(
            "router",
            &format!("*raw\n:PREROUTING ACCEPT [0:0]\n-A PREROUTING -s 10.0.2.2 -j CT {option} 2"),
        );
        lab.rules(
            "router",
            "*filter\n:FORWARD ACCEPT [0:0]\n-A FORWARD -s 10.0.2.2 -m conntrack --ctstate ESTABLISHED -j DROP",
        );
        let journey = lab.send(&[
            ("client", udp(("10.0.1.2", 4000), ("10.0.2.2", 53))),
            ("server", udp(("10.0.2.2", 53), ("10.0.1.2", 4000))),
        ]);
        journey.outcome.name().to_owned()
    };
    assert_eq!(state_of_reply("--zone-orig"), "dropped");
    assert_eq!(state_of_reply("--zone"), "delivered");
}

/// `nft_nat_init`, `xt_nat_checkentry`: what rewrites asks for connections, a
/// chain does not.
#[test]
fn a_nat_chain_that_rewrites_nothing_is_not_run_where_nothing_else_asks_for_connections() {
    let dropped = |filter: &str| {
        let mut lab = Build::line();
        lab.rules("router", "*nat\n:PREROUTING ACCEPT [0:0]\n-A PREROUTING -d 10.0.2.2 -j DROP");
        lab.rules("router", &format!("*filter\n:FORWARD ACCEPT [0:0]\n{filter}"));
        let journey = lab.send(&[("client", udp(("10.0.1.2", 1), ("10.0.2.2", 53)))]);
        journey.outcome.name() == "dropped"
    };
    assert!(!dropped("-A FORWARD -p tcp -j ACCEPT"));
    assert!(dropped("-A FORWARD -m conntrack --ctstate ESTABLISHED -j ACCEPT"));
}

#[test]
fn nat_of_a_kind_that_is_not_modelled_makes_answers_open() {
    let mut lab = Build::line();
    lab.rules("router", "*nat\n:PREROUTING ACCEPT [0:0]\n-A PREROUTING -j DNAT --to-somewhere 10.0.2.2");
    let packet = udp(("10.0.1.2", 1), ("10.0.2.2", 53));
    let explored = all(8, |choices| lab.run(choices, &[("client", packet.clone())]).unknown);
    assert!(explored.results.iter().any(|unknown| unknown.iter().any(|u| u.contains("target DNAT"))));
}

#[test]
fn what_output_sends_to_a_link_local_address_stays_on_the_link_it_was_to_leave_by() {
    let mut lab = Build::line();
    let to = |device: &str| format!("fe80::/64 dev {device}");
    lab.route("router", &to("eth0"));
    lab.rules(
        "router",
        "# ip6tables\n*nat\n:OUTPUT ACCEPT\n-A OUTPUT -p udp -j DNAT --to-destination fe80::2",
    );
    let packet = udp(("fd02::1", 1), ("fd02::9", 53));
    let journey = lab.send(&[("router", packet.clone())]);
    assert_eq!(*stage(&journey), Stage::Send("ENETUNREACH".into()));
    lab.route("router", &to("eth1"));
    let journey = lab.send(&[("router", packet)]);
    assert_ne!(*stage(&journey), Stage::Send("ENETUNREACH".into()));
}

#[test]
fn a_range_of_ports_gives_a_redirected_query_another_identifier() {
    let mut lab = Build::line();
    lab.rules("router", "*nat\n:PREROUTING ACCEPT\n-A PREROUTING -j REDIRECT --to-ports 443-60999");
    let identifier = |id| {
        let mut packet = ping("10.0.1.2", "10.0.2.2");
        packet.transport = Transport::Icmp { kind: 8, code: 0, id: PortValue::Is(id) };
        match seen(&lab.send(&[("client", packet)])).transport {
            Transport::Icmp { id, .. } => id,
            _ => unreachable!(),
        }
    };
    assert_eq!(identifier(7), PortValue::Fresh(PortRange { low: 443, high: 60999 }));
    assert_eq!(identifier(500), PortValue::Is(500));
}

#[test]
fn whether_a_packet_answers_a_connection_with_a_port_picked_by_chance_is_open() {
    let mut lab = Build::line();
    lab.rules(
        "router",
        "*nat\n:PREROUTING ACCEPT\n-A PREROUTING -p udp -d 10.0.9.9 -j DNAT --to 10.0.2.2:40000-40009",
    );
    let first = udp(("10.0.1.2", 1024), ("10.0.9.9", 53));
    let sources = |port| {
        let reply = udp(("10.0.2.2", port), ("10.0.1.2", 1024));
        let ways =
            all(4, |choices| lab.run(choices, &[("client", first.clone()), ("server", reply.clone())]));
        ways.results.iter().map(|way| seen(way).to_string()).collect::<Vec<_>>()
    };
    let (translated, own) =
        ("udp 10.0.9.9:53 -> 10.0.1.2:1024", |p| format!("udp 10.0.2.2:{p} -> 10.0.1.2:1024"));
    assert_eq!(sources(40003), [translated.to_owned(), own(40003)]);
    assert_eq!(sources(40010), [own(40010)]);
}

#[test]
fn of_a_range_of_ipv6_nat_may_pick_what_lies_outside() {
    let open = |range: &str| {
        let mut lab = Build::line();
        let rule = format!("-A POSTROUTING -j SNAT --to-source {range}");
        lab.rules("router", &format!("# ip6tables\n*nat\n:POSTROUTING ACCEPT [0:0]\n{rule}"));
        let ways = all(8, |choices| lab.run(choices, &[("client", udp(("fd01::2", 1), ("fd02::2", 53)))]));
        ways.results.iter().any(|way| !way.unknown.is_empty())
    };
    assert!(!open("fd09::4-fd09::5"));
    assert!(open("fd09::ffff:ffff-fd09::1:0:0"));
}

#[test]
fn whether_policy_rules_see_the_protocol_of_what_is_routed_again_depends_on_the_kernel() {
    let mut lab = Build::line();
    lab.rules(
        "client",
        "*nat\n:OUTPUT ACCEPT [0:0]\n-A OUTPUT -d 10.0.9.9 -j DNAT --to-destination 10.0.2.2",
    );
    let outcomes = |lab: &Build| {
        let sent = [("client", udp(("0.0.0.0", 1), ("10.0.9.9", 53)))];
        let ways = all(8, |choices| lab.run(choices, &sent));
        ways.results.iter().map(|w| matches!(w.outcome, Outcome::Delivered { .. })).collect::<Vec<_>>()
    };
    assert_eq!(outcomes(&lab), [true]);
    lab.get("client").rules = default_rules();
    let to = "10.0.2.2/32".parse().ok();
    let rule =
        PolicyRule { destination: to, protocol: Some(17), ..policy_rule(100, PolicyAction::Blackhole) };
    lab.get("client").rules.insert(1, rule);
    assert_eq!(outcomes(&lab), [true, false]);
}
