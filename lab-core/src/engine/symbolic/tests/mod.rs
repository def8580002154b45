//! Facts that sets of packets must know as the stepper does, one test each.

mod asked;
mod chains;
mod effects;
mod matches;
mod nat;
mod nft;
mod route;
pub mod told;
mod ways;

use super::{Ending, Flow, Flowed, Sending, Symbolic};
use crate::addr::Family;
use crate::engine::explore::{all, Choices};
use crate::engine::stepper::tests::build::{ping, tcp, udp, Build};
use crate::model::{
    Backend, ChainKind, Decision, Neighbour, NeighbourState, NextHop, Outcome, Packet, PolicyAction,
    PolicyRule, Stage, TcpFlags,
};
use crate::space::{header, Field, Source};

/// The flows of every packet that enters as this one does, of those the ones
/// that it is in.
fn flows(lab: &Build, from: &str, packet: &Packet) -> Vec<Flowed> {
    let mut engine = Symbolic::new(&lab.lab);
    let set = engine.headers().unwrap();
    let mut flow = Flow::new(set, packet.ttl, packet.length, packet.mark);
    flow.now.df = packet.df;
    let flows = match from.split_once(':') {
        None => engine.send(&lab.lab.hosts[from], flow, Sending::Bound),
        Some((host, device)) => {
            let host = &lab.lab.hosts[host];
            engine.inject(host, host.interface(device).unwrap(), flow)
        }
    }
    .unwrap();
    let sent = header(packet);
    flows.into_iter().filter(|f| engine.store().lookup(f.flow.set, &sent) != 0).collect()
}

/// The one flow of a packet, which must end as the stepper says.
fn flow(lab: &Build, from: &str, packet: &Packet) -> Flowed {
    let mut found = flows(lab, from, packet);
    assert_eq!(found.len(), 1, "{found:?}");
    let found = found.remove(0);
    let journey = lab.send(&[(from, packet.clone())]);
    let same = match (&found.ending, &journey.outcome) {
        (Ending::Delivered(at), Outcome::Delivered { at: there, .. }) => at.host == there.host,
        (Ending::ForwardedOut(at), Outcome::ForwardedOut { at: there, .. }) => at == there,
        (Ending::Rejected(by) | Ending::Dropped(by), outcome) => Some(by) == outcome.decision(),
        _ => false,
    };
    assert!(same, "{:?} but {:?}", found.ending, journey.outcome);
    found
}

fn number(flowed: &Flowed) -> Option<usize> {
    match &flowed.ending {
        Ending::Rejected(Decision::Rule(rule)) | Ending::Dropped(Decision::Rule(rule)) => rule.rule,
        other => panic!("no rule: {other:?}"),
    }
}

#[test]
fn bits_of_type_of_service_that_are_turned_round_are_known() {
    let mut lab = Build::line();
    lab.rules(
        "router",
        "*mangle\n:POSTROUTING ACCEPT\n-A POSTROUTING -j TOS --set-tos 0x04/0x00\n\
         -A POSTROUTING -j TOS --set-tos 0x01/0x03",
    );
    let packet = tcp(("10.0.1.2", 1), ("10.0.2.2", 22), TcpFlags::SYN);
    for (sent, arrived) in [(0, 5), (4, 1), (7, 1), (0xf8, 0xfd)] {
        let found = flow(&lab, "client", &Packet { tos: sent, ..packet.clone() });
        let Source { mask, value, .. } = found.flow.now.tos;
        assert_eq!(u128::from(sent) & !mask | value & mask & 0xff, arrived);
        assert!(found.flow.unknown.is_empty());
    }
}

#[test]
fn nat_to_what_a_packet_has_is_no_nat() {
    let mut lab = Build::line();
    lab.rules("router", "*nat\n:PREROUTING ACCEPT\n-A PREROUTING -p tcp -j DNAT --to-destination 10.0.2.2");
    lab.rules("router", "*filter\n:FORWARD ACCEPT\n-A FORWARD -m conntrack --ctstate DNAT -j DROP");
    let to = |address| tcp(("10.0.1.2", 1), (address, 22), TcpFlags::SYN);
    assert!(matches!(flow(&lab, "client", &to("10.0.2.2")).ending, Ending::Delivered(_)));
    assert_eq!(number(&flow(&lab, "client", &to("10.0.2.3"))), Some(1));
}

#[test]
fn nothing_is_claimed_of_which_of_many_addresses_nat_picks() {
    let mut lab = Build::line();
    lab.rules("router", "*nat\n:POSTROUTING ACCEPT\n-A POSTROUTING -j SNAT --to-source 10.0.0.1-10.9.9.9");
    let packet = tcp(("10.0.1.2", 1), ("10.0.2.2", 2), TcpFlags::SYN);
    let wanted = "which of the many addresses 10.0.0.1-10.9.9.9 NAT picks";
    let journey = lab.run(&mut Choices::default(), &[("client", packet.clone())]);
    assert!(journey.unknown.iter().any(|why| why.contains(wanted)), "{:?}", journey.unknown);
    let found = flows(&lab, "client", &packet);
    assert!(found.iter().all(|f| f.flow.unknown.iter().any(|why| why.contains(wanted))));
}

#[test]
fn nothing_is_claimed_of_which_destination_port_nat_picks() {
    for (to, open) in [("10.0.2.2:80-90", true), ("10.0.2.2:80", false), ("10.0.2.2:2-3", false)] {
        let mut lab = Build::line();
        lab.rules(
            "router",
            &format!("*nat\n:PREROUTING ACCEPT\n-A PREROUTING -p tcp -j DNAT --to-destination {to}"),
        );
        let found = flows(&lab, "client", &tcp(("10.0.1.2", 1), ("10.0.2.9", 2), TcpFlags::SYN));
        let told = |f: &Flowed| f.flow.unknown.iter().any(|why| why.contains("which destination port"));
        assert_eq!((found.len(), found.iter().all(told)), (1, open), "{to}");
    }
}

#[test]
fn a_network_mapped_to_itself_is_no_nat() {
    let mut lab = Build::line();
    lab.rules("router", "*nat\n:PREROUTING ACCEPT\n-A PREROUTING -j NETMAP --to 10.0.0.0/22");
    lab.rules("router", "*filter\n:FORWARD ACCEPT\n-A FORWARD -m conntrack --ctstate DNAT -j DROP");
    let to = |address| tcp(("10.0.1.2", 1), (address, 22), TcpFlags::SYN);
    assert!(matches!(flow(&lab, "client", &to("10.0.2.2")).ending, Ending::Delivered(_)));
    assert_eq!(number(&flow(&lab, "client", &to("10.9.2.2"))), Some(1));
}

#[test]
fn the_destination_port_of_a_query_is_its_type_and_code() {
    let mut lab = Build::line();
    lab.rules(
        "router",
        "*filter\n:FORWARD ACCEPT\n-A FORWARD -m conntrack --ctorigdstport 0 -j DROP\n\
         -A FORWARD -m conntrack --ctorigdstport 2048 --ctrepldstport 0 -j DROP",
    );
    assert_eq!(number(&flow(&lab, "client", &ping("10.0.1.2", "10.0.2.2"))), Some(2));
}

#[test]
fn the_identifier_of_a_query_is_not_known() {
    let mut lab = Build::line();
    lab.rules("router", "*filter\n:FORWARD ACCEPT\n-A FORWARD -m conntrack --ctorigsrcport 7 -j DROP");
    let found = flows(&lab, "client", &ping("10.0.1.2", "10.0.2.2"));
    assert_eq!(found.len(), 2);
    assert!(found.iter().all(|f| f.flow.reasons.iter().any(|r| r.contains("identifier"))));
    assert_eq!(flow(&lab, "client", &udp(("10.0.1.2", 7), ("10.0.2.2", 7))).ending, found[0].ending);
    // Whatever it is, it is a number.
    let mut lab = Build::line();
    lab.rules("router", "*filter\n:FORWARD ACCEPT\n-A FORWARD -m conntrack --ctorigsrcport 0:65535 -j DROP");
    assert_eq!(number(&flow(&lab, "client", &ping("10.0.1.2", "10.0.2.2"))), Some(1));
}

#[test]
fn a_port_that_a_kernel_picked_is_kept_by_a_range_that_covers_it() {
    use crate::model::{InterfaceKind, Vxlan};
    let mut lab = Build::line();
    let vxlan = |remote: &str| {
        InterfaceKind::Vxlan(Vxlan {
            vni: 7,
            local: None,
            remote: Some(remote.parse().unwrap()),
            link: None,
            port: 4789,
            ttl: 0,
            learning: true,
        })
    };
    lab.device("client", "vx0", vxlan("10.0.1.1"), &["10.9.0.2/24"]);
    lab.device("router", "vx0", vxlan("10.0.1.2"), &["10.9.0.1/24"]);
    lab.rules("router", "*nat\n:INPUT ACCEPT\n-A INPUT -p udp -j SNAT --to-source :80-60999");
    let found = flow(&lab, "client", &tcp(("10.9.0.2", 1), ("10.9.0.1", 22), TcpFlags::SYN));
    assert!(matches!(found.ending, Ending::Delivered(_)));
    assert_eq!(found.flow.now.ends.sport, Source::keep(Field::Sport));
}

/// A VXLAN's outer packets come from any port that its host may pick: 32768-60999.
#[test]
fn a_port_that_a_kernel_picked_is_in_an_order_that_all_of_them_are_in() {
    let open = "router fwd 1 | router:vx0";
    for (condition, wanted) in [
        ("udp sport < 32768", "router:vx0"),
        ("udp sport < 32769", open),
        ("udp sport < 60999", open),
        ("udp sport < 61000", "router fwd 1"),
        ("udp sport <= 32767", "router:vx0"),
        ("udp sport <= 32768", open),
        ("udp sport <= 60999", "router fwd 1"),
        ("udp sport > 60999", "router:vx0"),
        ("udp sport > 60998", open),
        ("udp sport > 32768", open),
        ("udp sport > 32767", "router fwd 1"),
        ("udp sport >= 61000", "router:vx0"),
        ("udp sport >= 60999", open),
        ("udp sport >= 32768", "router fwd 1"),
        ("udp sport > 65535", "router:vx0"),
        ("udp sport < 0", "router:vx0"),
        ("udp sport >= 0", "router fwd 1"),
        ("udp sport & 0x1 == 0x0", open),
    ] {
        let mut lab = Build::line();
        lab.vxlan([("client", "10.0.1.1", "10.9.0.2/24"), ("router", "10.0.1.2", "10.9.0.1/24")]);
        lab.chain(
            "router",
            "lab",
            "filter hook input priority 0; policy accept;",
            &format!("udp dport 4789 {condition} drop"),
        );
        let packet = told::packet("tcp s=10.9.0.2 d=10.9.0.1");
        assert_eq!(told::told(&lab, "client", &packet), wanted, "{condition}");
    }
}

#[test]
fn a_source_that_is_none_is_left_out_when_output_routes_again() {
    let mut lab = Build::line();
    lab.rules("client", "*nat\n:OUTPUT ACCEPT\n-A OUTPUT -j DNAT --to-destination 10.0.2.2");
    let found = flow(&lab, "client", &udp(("255.255.255.255", 1), ("10.0.2.9", 2)));
    assert_eq!(found.flow.now.ends.dst.value >> 96, 0x0a00_0202);
}

#[test]
fn a_chain_that_calls_itself_is_an_error() {
    let mut lab = Build::line();
    lab.rules("router", "*filter\n:FORWARD ACCEPT\n:web -\n-A FORWARD -j web\n-A web -j DROP");
    let table = &mut lab.get("router").ruleset.tables[0];
    let (own, other) = (table.chains[0].rules[0].clone(), &mut table.chains[1].rules);
    other[0] = own;
    let mut engine = Symbolic::new(&lab.lab);
    let all_headers = engine.headers().unwrap();
    let client = &lab.lab.hosts["client"];
    let sent = engine.send(client, Flow::new(all_headers, 64, 60, 0), Sending::Bound);
    assert_eq!(sent.unwrap_err(), crate::space::Error::Depth);
}

#[test]
fn a_map_whose_key_is_partly_by_chance_leaves_others_alone() {
    use crate::model::{Atom, Expression, Statement, Target, Verdict};
    let mut lab = Build::line();
    lab.rules("router", "*filter\n:FORWARD ACCEPT\n-A FORWARD -j DROP");
    let key = Expression::Concat(vec![
        Expression::DestinationPort(Some(6)),
        Expression::Numgen { modulus: 2, offset: 0, incremental: false },
    ]);
    let element = vec![Atom::Range(80, 80), Atom::Range(0, 0)];
    let elements = vec![(element, Verdict::Drop)];
    let rule = &mut lab.get("router").ruleset.tables[0].chains[0].rules[0];
    rule.statements = vec![Statement::Target(Target::VerdictMap { key, elements, name: None })];
    let to = |port| tcp(("10.0.1.2", 1), ("10.0.2.2", port), TcpFlags::SYN);
    assert!(matches!(flow(&lab, "client", &to(22)).ending, Ending::Delivered(_)));
    let found = flows(&lab, "client", &to(80));
    let ways = all(4, |choices| lab.run(choices, &[("client", to(80))]));
    assert_eq!((found.len(), ways.results.len()), (2, 2));
}

/// Sets tell a bit where it is one bit of the packet.
#[test]
fn what_two_fields_are_together_is_open() {
    use crate::model::{Atom, Comparison, Expression, Match, NftMatch, NftSetRef, Statement};
    let (mark, other) = (|| Box::new(Expression::Mark), || Box::new(Expression::CtMark));
    for (left, ways) in [
        (Expression::Xor(mark(), other()), 2),
        (Expression::And(mark(), other()), 2),
        (Expression::Or(mark(), other()), 2),
        (Expression::Xor(mark(), mark()), 1),
    ] {
        let mut lab = Build::line();
        lab.chain("router", "lab", "filter hook forward priority 0; policy accept;", "ct mark 0x5 drop");
        let rule = &mut lab.get("router").ruleset.tables[0].chains[0].rules[0];
        rule.statements[0] = Statement::Match(Match::Nft(Box::new(NftMatch {
            left: left.clone(),
            comparison: Comparison::Equal,
            right: NftSetRef::Elements(vec![vec![Atom::Range(5, 5)]]),
        })));
        assert_eq!(flows(&lab, "client", &udp(("10.0.1.2", 1), ("10.0.2.2", 2))).len(), ways, "{left:?}");
    }
}

#[test]
fn values_side_by_side_are_no_element_that_has_fewer_or_more() {
    use crate::model::{Atom, Comparison, Expression, Match, NftMatch, NftSetRef, Statement};
    let port = |port| Atom::Range(port, port);
    for (element, wanted) in [
        (vec![port(2), port(1)], "router fwd 1"),
        (vec![port(2)], "server"),
        (vec![port(2), port(1), port(1)], "server"),
        (vec![], "server"),
    ] {
        let mut lab = Build::line();
        lab.chain("router", "lab", "filter hook forward priority 0; policy accept;", "ct mark 0x5 drop");
        let rule = &mut lab.get("router").ruleset.tables[0].chains[0].rules[0];
        let ports = vec![Expression::DestinationPort(Some(17)), Expression::SourcePort(Some(17))];
        rule.statements[0] = Statement::Match(Match::Nft(Box::new(NftMatch {
            left: Expression::Concat(ports),
            comparison: Comparison::Equal,
            right: NftSetRef::Elements(vec![element.clone()]),
        })));
        assert_eq!(told::told(&lab, "client", &told::packet("udp")), wanted, "{element:?}");
    }
}

#[test]
fn a_bridged_frame_whose_address_stays_goes_on_though_its_port_is_rewritten() {
    let mut lab = Build::default();
    lab.host("a", false).nic("a", "eth0", &["10.0.0.2/24"]);
    lab.host("hv", true).bridge("hv", "br0", &["10.0.0.1/24"], &["vnet0"]);
    lab.link(&[("a", "eth0"), ("hv", "vnet0")]);
    lab.sysctl("hv", "net.bridge.bridge-nf-call-iptables", 1);
    lab.rules("hv", "*nat\n:PREROUTING ACCEPT\n-A PREROUTING -p tcp -j DNAT --to-destination 10.0.0.9:22");
    let packet = tcp(("10.0.0.2", 1), ("10.0.0.9", 23), TcpFlags::SYN);
    let found = flow(&lab, "hv:vnet0", &Packet { ttl: 1, ..packet });
    assert!(matches!(found.ending, Ending::Rejected(Decision::Stage { stage: Stage::Ttl, .. })));
}

#[test]
fn which_back_end_was_registered_first_is_the_same_at_every_hook() {
    let mut lab = Build::line();
    let marking = "*filter\n:OUTPUT ACCEPT\n:INPUT ACCEPT\n\
        -A OUTPUT -m mark ! --mark 2 -j MARK --set-mark 1\n-A INPUT -m mark ! --mark 2 -j DROP";
    lab.rules("client", marking);
    lab.rules(
        "client",
        "*mangle\n:OUTPUT ACCEPT\n:INPUT ACCEPT\n\
        -A OUTPUT -m mark --mark 1 -j DROP\n-A INPUT -j MARK --set-mark 2",
    );
    // Both tables at one priority, one of either back end.
    let host = lab.get("client");
    host.ruleset.tables[0].backend = Backend::Legacy;
    host.ruleset.tables[1].backend = Backend::Nft;
    for chain in host.ruleset.tables.iter_mut().flat_map(|t| &mut t.chains) {
        let Some(base) = &mut chain.base else { continue };
        (base.priority, base.kind) = (0, ChainKind::Filter);
    }
    let packet = tcp(("127.0.0.1", 1), ("10.0.1.2", 22), TcpFlags::SYN);
    let ways = all(8, |choices| lab.run(choices, &[("client", packet.clone())]));
    let found = flows(&lab, "client", &packet);
    assert_eq!((ways.results.len(), found.len()), (2, 2), "{found:?}");
}

/// `nft_fib_is_loopback`: before routing, what loops back has come by the loopback.
#[test]
fn a_called_chain_knows_the_hook_that_it_is_called_from() {
    let mut lab = Build::line();
    let tables = crate::formats::nft_text::parse(
        "nft.txt",
        "table inet lab {\n\
           chain own { fib daddr oif 0 drop }\n\
           chain pre { type filter hook prerouting priority 0; iifname lo jump own }\n\
         }\n",
    );
    lab.get("client").ruleset.tables.extend(tables.unwrap());
    let packet = tcp(("10.0.1.2", 1), ("127.0.0.1", 22), TcpFlags::SYN);
    assert!(matches!(flow(&lab, "client", &packet).ending, Ending::Delivered(_)));
}

#[test]
fn what_output_sends_to_a_link_local_address_stays_on_its_link() {
    let mut lab = Build::line();
    lab.route("router", "fe80::/64 dev eth0");
    lab.rules("router", "# ip6tables\n*nat\n:OUTPUT ACCEPT\n-A OUTPUT -j DNAT --to-destination fe80::2");
    let stopped = |device: u8| {
        let ends = ((&*format!("fd0{device}::1"), 1), (&*format!("fd0{device}::9"), 53));
        match flow(&lab, "router", &udp(ends.0, ends.1)).ending {
            Ending::Dropped(Decision::Stage { stage, .. })
            | Ending::Rejected(Decision::Stage { stage, .. }) => stage,
            other => unreachable!("{other:?}"),
        }
    };
    assert_eq!(stopped(1), Stage::HostUnreachable);
    assert_eq!(stopped(2), Stage::Send("ENETUNREACH".into()));
}

#[test]
fn a_type_that_a_policy_rule_leaves_open_is_open() {
    for asks in ["-m addrtype --dst-type LOCAL", "-m addrtype --dst-type LOCAL --limit-iface-in"] {
        let mut lab = Build::line();
        let owned = PolicyRule::new(Family::Ipv6, 100, PolicyAction::Blackhole);
        lab.get("router").rules = PolicyRule::initial(Family::Ipv6);
        lab.get("router").rules.push(PolicyRule { uid_range: Some((1000, 2000)), ..owned });
        lab.get("router").rules.sort_by_key(|r| r.priority);
        lab.rules("router", &format!("# ip6tables\n*filter\n:FORWARD ACCEPT\n-A FORWARD {asks} -j DROP"));
        let packet = udp(("fd01::2", 1), ("fd02::2", 53));
        assert_eq!(flows(&lab, "client", &packet).len(), 2, "{asks}");
        assert_eq!(
            all(4, |choices| lab.run(choices, &[("client", packet.clone())])).results.len(),
            2,
            "{asks}"
        );
    }
}

/// `add_nft_tcpudp` of iptables-nft 1.8.9: one comparison of both.
#[test]
fn two_ports_that_are_not_to_be_may_be_one_number_to_iptables_nft() {
    let mut lab = Build::line();
    lab.rules("router", "*filter\n:FORWARD ACCEPT\n-A FORWARD -p udp -m udp ! --sport 1 ! --dport 2 -j DROP");
    for (backend, ways) in [(Backend::Legacy, [1, 1, 1]), (Backend::Nft, [1, 2, 1])] {
        lab.get("router").ruleset.tables[0].backend = backend;
        for (ports, ways) in [(1, 2), (1, 9), (8, 9)].into_iter().zip(ways) {
            let packet = udp(("10.0.1.2", ports.0), ("10.0.2.2", ports.1));
            assert_eq!(flows(&lab, "client", &packet).len(), ways, "{backend:?} {ports:?}");
            let found = all(4, |choices| lab.run(choices, &[("client", packet.clone())]));
            assert_eq!(found.results.len(), ways, "{backend:?} {ports:?}");
        }
        flow(&lab, "client", &udp(("10.0.1.2", 1), ("10.0.2.2", 2)));
        flow(&lab, "client", &udp(("10.0.1.2", 8), ("10.0.2.2", 9)));
    }
}

/// `rt6_check_neigh`: hosts that do not forward pass gateways over that are silent.
#[test]
fn which_of_two_gateways_of_ipv6_is_taken_is_open_where_one_is_silent() {
    let mut lab = Build::line();
    for host in ["client", "router"] {
        lab.route(host, "2001:db8::/64 via fd01::9 dev eth0");
        let silent = Neighbour {
            address: "fd01::9".parse().unwrap(),
            interface: "eth0".into(),
            mac: None,
            state: NeighbourState::Failed,
            proxy: false,
        };
        lab.get(host).neighbours.push(silent);
    }
    let ways = |lab: &Build, host: &str, src| {
        let packet = udp((src, 1), ("2001:db8::1", 2));
        let found = flows(lab, host, &packet);
        let walked = lab.send(&[(host, packet)]);
        let known = found.iter().all(|f| f.flow.unknown.is_empty());
        assert_eq!(known, walked.unknown.is_empty());
        known
    };
    assert!(ways(&lab, "router", "fd01::1"), "a router does not care");
    assert!(!ways(&lab, "client", "fd01::2"), "the client has a default route too");
    lab.get("client").routes.retain(|r| r.destination.prefix_len() != 0);
    assert!(ways(&lab, "client", "fd01::2"), "there is no other");
    lab.route("client", "unreachable 2001::/16");
    assert!(!ways(&lab, "client", "fd01::2"), "another refuses");
    lab.get("client").routes.pop();
    lab.route("client", "2001:db8::/32 via fd01::1 dev eth0");
    lab.get("client").routes.last_mut().unwrap().next_hops[0].dead = true;
    assert!(ways(&lab, "client", "fd01::2"), "the other is dead");
    lab.route("client", "2001:db8::/64 via fd01::1 dev eth0");
    assert!(!ways(&lab, "client", "fd01::2"), "one of two to the same prefix");
}

/// `ip_mkroute_input`: only a packet that turns back has its source looked up.
#[test]
fn whether_a_broadcasts_address_may_send_depends_on_the_next_hop_that_is_picked() {
    let mut lab = Build::line();
    lab.route("router", "10.9.9.9/32 via 10.0.2.2 dev eth1");
    let packet = udp(("10.0.2.255", 1), ("10.9.9.9", 53));
    let seen = |lab: &Build| lab.run(&mut Choices::default(), &[("router:eth0", packet.clone())]);
    assert!(seen(&lab).unknown.is_empty(), "it goes on by another device");
    let other = lab.lab.hosts["router"].routes.last().unwrap().next_hops[0].clone();
    let back = NextHop { interface: Some("eth0".into()), gateway: "10.0.1.2".parse().ok(), ..other };
    let routes = &mut lab.get("router").routes;
    routes.last_mut().unwrap().next_hops.push(back);
    assert!(!seen(&lab).unknown.is_empty());
    let flows = flows(&lab, "router:eth0", &packet);
    assert!(flows.iter().all(|f| !f.flow.unknown.is_empty()));
    lab.get("router").routes.last_mut().unwrap().next_hops.remove(0);
    assert_eq!(seen(&lab).outcome.decision(), Some(&at_stage("router", Stage::MartianSource)));
    flow(&lab, "router:eth0", &packet);
}

fn at_stage(host: &str, stage: Stage) -> Decision {
    Decision::Stage { host: host.into(), stage }
}
