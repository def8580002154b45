//! What NAT makes of connections, and of what comes back.

use super::told::{become_of, packet, talk, told};
use super::{flow, flows};
use crate::engine::stepper::tests::build::{ping, udp, Build};
use crate::model::{Packet, PortValue, Transport};

fn nat(chain: &str, rule: &str) -> Build {
    let mut lab = Build::line();
    lab.rules("router", &format!("*nat\n:{chain} ACCEPT\n-A {chain} {rule}"));
    lab
}

#[test]
fn a_source_is_rewritten_and_back() {
    for (rule, text, there) in [
        ("-j SNAT --to-source 10.0.2.1", "udp", "server from 10.0.2.1:1"),
        ("-j SNAT --to-source 10.0.2.1", "icmp", "server from 10.0.2.1"),
        ("-j SNAT --to-source 10.0.2.1", "47", "server from 10.0.2.1"),
        ("-j MASQUERADE", "tcp", "server from 10.0.2.1:1"),
        ("-p udp -j MASQUERADE", "tcp", "server"),
        ("-j SNAT --to-source 10.0.1.2", "udp", "server"),
        ("-p udp -j SNAT --to-source 10.0.2.1:9", "udp", "server from 10.0.2.1:9"),
        ("-p udp -j SNAT --to-source 10.0.2.1:9", "udp sp=9", "server from 10.0.2.1:9"),
        ("-p udp -j SNAT --to-source :9", "udp", "server from 10.0.1.2:9"),
        ("-p udp -j SNAT --to-source 10.0.2.1:1024-2048", "udp", "server from 10.0.2.1:1024-2048"),
        ("-p udp -j SNAT --to-source 10.0.2.1:1024-2048", "udp sp=1023", "server from 10.0.2.1:1024-2048"),
        ("-p udp -j SNAT --to-source 10.0.2.1:1024-2048", "udp sp=1024", "server from 10.0.2.1:1024"),
        ("-p udp -j SNAT --to-source 10.0.2.1:1024-2048", "udp sp=2048", "server from 10.0.2.1:2048"),
        ("-p udp -j SNAT --to-source 10.0.2.1:1024-2048", "udp sp=2049", "server from 10.0.2.1:1024-2048"),
        ("-p udp -j MASQUERADE --to-ports 1024-2048", "udp sp=3", "server from 10.0.2.1:1024-2048"),
        ("-j SNAT --to-source 10.0.2.1 --random", "udp sp=511", "server from 10.0.2.1:1-511"),
        ("-j SNAT --to-source 10.0.2.1 --random", "udp sp=512", "server from 10.0.2.1:600-1023"),
        ("-j SNAT --to-source 10.0.2.1 --random", "udp sp=1023", "server from 10.0.2.1:600-1023"),
        ("-j SNAT --to-source 10.0.2.1 --random", "udp sp=1024", "server from 10.0.2.1:1024-65535"),
        ("-j SNAT --to-source 10.0.2.1 --random-fully", "tcp sp=65535", "server from 10.0.2.1:1024-65535"),
        ("-j MASQUERADE --random", "47", "server from 10.0.2.1"),
        ("-j SNAT --to-source 10.0.2.1-10.0.2.1", "udp", "server from 10.0.2.1:1"),
        ("-j SNAT --to-source 10.0.2.3-10.0.2.4", "udp", "server from 10.0.2.3:1 | server from 10.0.2.4:1"),
    ] {
        let lab = nat("POSTROUTING", rule);
        assert_eq!(told(&lab, "client", &packet(text)), there, "{rule} {text}");
        if there.contains('-') || there.contains('|') {
            continue;
        }
        // The answer comes home as if nothing had been done.
        assert_eq!(talk(&lab, "client", &packet(text), 2), "client", "{rule} {text}");
        assert_eq!(talk(&lab, "client", &packet(text), 3), there, "{rule} {text}");
    }
}

#[test]
fn a_destination_is_rewritten_and_back() {
    for (rule, text, there) in [
        ("-d 10.9.9.9 -j DNAT --to-destination 10.0.2.2", "udp d=10.9.9.9", "server to 10.0.2.2:2"),
        ("-d 10.9.9.9 -j DNAT --to-destination 10.0.2.2", "icmp d=10.9.9.9", "server to 10.0.2.2"),
        ("-d 10.9.9.9 -j DNAT --to-destination 10.0.2.2", "udp d=10.9.9.8", "router no-route"),
        ("-p tcp -j DNAT --to-destination 10.0.2.2:80", "tcp d=10.9.9.9", "server to 10.0.2.2:80"),
        ("-p tcp -j DNAT --to-destination :80", "tcp", "server to 10.0.2.2:80"),
        ("-p tcp -j DNAT --to-destination 10.0.2.2:80-90", "tcp dp=80", "server"),
        ("-p tcp -j DNAT --to-destination 10.0.2.2:80-90", "tcp dp=90 d=10.9.9.9", "server to 10.0.2.2:90"),
        (
            "-p tcp -m tcp --dport 5000:5010 -j DNAT --to-destination 10.0.2.2:80-90/5000",
            "tcp dp=5000",
            "server to 10.0.2.2:80",
        ),
        (
            "-p tcp -m tcp --dport 5000:5010 -j DNAT --to-destination 10.0.2.2:80-90/5000",
            "tcp dp=5007",
            "server to 10.0.2.2:87",
        ),
        (
            "-p tcp -m tcp --dport 5000:5010 -j DNAT --to-destination 10.0.2.2:80-90/5000",
            "tcp dp=5010",
            "server to 10.0.2.2:90",
        ),
        (
            "-p tcp -m tcp --dport 5000:5030 -j DNAT --to-destination 10.0.2.2:80-90/5000",
            "tcp dp=5012",
            "server to 10.0.2.2:81",
        ),
        (
            "-p tcp -m tcp --dport 4990:5030 -j DNAT --to-destination 10.0.2.2:80-90/5000",
            "tcp dp=4999",
            "server to 10.0.2.2:88",
        ),
        (
            "-p tcp -m tcp --dport 5000:5300 -j DNAT --to-destination 10.0.2.2:80-380/5000",
            "tcp dp=5200",
            "server to 10.0.2.2:280",
        ),
        (
            "-p tcp -m tcp --dport 5000:5511 -j DNAT --to-destination 10.0.2.2:80-591/5000",
            "tcp dp=5511",
            "server to 10.0.2.2:591",
        ),
        ("-p tcp -j DNAT --to-destination 10.0.1.1", "tcp dp=7", "router to 10.0.1.1:7"),
        ("-p tcp -j REDIRECT", "tcp dp=7", "router to 10.0.1.1:7"),
        ("-p tcp -j REDIRECT --to-ports 80", "tcp dp=7", "router to 10.0.1.1:80"),
        ("-d 10.7.0.0/24 -j NETMAP --to 10.0.2.0/24", "udp d=10.7.0.2", "server to 10.0.2.2:2"),
        ("-j NETMAP --to 10.0.2.2/31", "udp d=10.7.0.4", "server to 10.0.2.2:2"),
        ("-j NETMAP --to 10.0.2.0/30", "udp d=10.7.0.6", "server to 10.0.2.2:2"),
        ("-j NETMAP --to 10.0.2.0/30", "udp", "server"),
        ("-j NETMAP --to 10.0.2.2/32", "icmp d=10.7.0.4", "server to 10.0.2.2"),
    ] {
        let lab = nat("PREROUTING", rule);
        assert_eq!(told(&lab, "client", &packet(text)), there, "{rule} {text}");
        if there.starts_with("router no") {
            continue;
        }
        assert_eq!(talk(&lab, "client", &packet(text), 2), "client", "{rule} {text}");
        assert_eq!(talk(&lab, "client", &packet(text), 3), there, "{rule} {text}");
    }
}

#[test]
fn addresses_of_ipv6_are_rewritten_bit_by_bit() {
    for (chain, rule, text, there) in [
        ("PREROUTING", "-j NETMAP --to fd02::/64", "udp6 d=fd07::2", "server to fd02::2:2"),
        ("PREROUTING", "-j NETMAP --to fd02::/127", "udp6 d=fd07::3", "router to fd02::1:2"),
        ("PREROUTING", "-j NETMAP --to fd02::2/127", "udp6 d=fd07::6", "server to fd02::2:2"),
        ("POSTROUTING", "-j NETMAP --to fd07::/64", "udp6", "server from fd07::2:1"),
        ("POSTROUTING", "-j MASQUERADE", "icmp6", "server from fd02::1"),
        ("POSTROUTING", "-j SNAT --to-source fd02::1", "tcp6", "server from fd02::1:1"),
        ("PREROUTING", "-j REDIRECT", "tcp6", "router to fd01::1:2"),
        (
            "PREROUTING",
            "-p udp -j DNAT --to-destination [fd02::2]:80",
            "udp6 d=fd07::3",
            "server to fd02::2:80",
        ),
    ] {
        let mut lab = Build::line();
        lab.rules("router", &format!("# ip6tables\n*nat\n:{chain} ACCEPT\n-A {chain} {rule}"));
        assert_eq!(told(&lab, "client", &packet(text)), there, "{rule} {text}");
    }
    let mut lab = Build::line();
    lab.rules("router", "*nat\n:POSTROUTING ACCEPT\n-A POSTROUTING -j NETMAP --to 10.0.2.128/25");
    assert_eq!(told(&lab, "client", &packet("udp")), "server from 10.0.2.130:1");
}

#[test]
fn what_is_masqueraded_has_the_address_next_to_where_it_goes() {
    let mut lab = nat("POSTROUTING", "-j MASQUERADE");
    let nets = ["10.0.2.1/24", "fd02::1/64", "10.0.3.1/24"];
    lab = {
        let mut other = Build::line();
        other.get("router").ruleset = lab.get("router").ruleset.clone();
        other.nic("router", "eth2", &nets[2..]);
        other.nic("server", "eth1", &["10.0.3.2/24", "10.0.4.2/24"]);
        other.link(&[("router", "eth2"), ("server", "eth1")]);
        other
            .route("router", "10.0.4.0/24 via 10.0.3.2 dev eth2")
            .route("router", "10.0.5.0/24 via 10.0.2.2 dev eth1");
        other.device("server", "dummy0", crate::model::InterfaceKind::Dummy, &["10.0.5.2/24"]);
        other
    };
    become_of(
        &lab,
        "client",
        &[
            ("udp d=10.0.3.2", "server:eth1 from 10.0.3.1:1"),
            ("udp d=10.0.4.2", "server:eth1 from 10.0.3.1:1"),
            ("udp", "server from 10.0.2.1:1"),
            ("udp d=10.0.5.2", "server from 10.0.2.1:1"),
        ],
    );
}

#[test]
fn only_what_was_rewritten_counts_as_translated() {
    let translated = |chain: &str, rule: &str, status: &str| {
        let mut lab = nat(chain, rule);
        lab.rules(
            "router",
            &format!("*filter\n:FORWARD ACCEPT\n-A FORWARD -m conntrack --ctstate {status} -j DROP"),
        );
        lab
    };
    let lab = translated("PREROUTING", "-p tcp -j DNAT --to-destination 10.0.2.2:80", "DNAT");
    become_of(
        &lab,
        "client",
        &[("tcp dp=80", "server"), ("tcp", "router FORWARD 1"), ("udp", "server"), ("tcp fl=18", "server")],
    );
    let lab = translated("PREROUTING", "-p tcp -j DNAT --to-destination 10.0.2.2:80", "SNAT");
    become_of(&lab, "client", &[("tcp", "server to 10.0.2.2:80")]);
    // Of an answer, FORWARD knows what was done to its question.
    let lab = translated("POSTROUTING", "-p tcp -j SNAT --to-source 10.0.2.1", "SNAT");
    become_of(&lab, "client", &[("tcp", "server from 10.0.2.1:1"), ("udp", "server")]);
    assert_eq!(talk(&lab, "client", &packet("tcp"), 2), "router FORWARD 1");
    assert_eq!(talk(&lab, "client", &packet("udp"), 2), "client");
    for (rule, met) in [
        ("--ctorigdst 10.9.9.9", true),
        ("--ctorigdst 10.0.2.2", false),
        ("--ctreplsrc 10.0.2.2", true),
        ("! --ctreplsrc 10.0.2.2", false),
        ("--ctorigsrc 10.0.1.0/24", true),
        ("--ctorigsrc 10.0.1.3", false),
        ("--ctrepldst 10.0.1.2", true),
        ("--ctorigdstport 2", true),
        ("--ctorigdstport 3:9", false),
        ("--ctreplsrcport 80", true),
        ("--ctreplsrcport 79", false),
        ("--ctreplsrcport 81", false),
        ("! --ctreplsrcport 80", false),
        ("--ctorigsrcport 1", true),
        ("--ctrepldstport 0:1", true),
        ("--ctrepldstport 2", false),
        ("--ctproto 6", true),
        ("--ctproto 17", false),
        ("! --ctproto 17", true),
        ("--ctdir ORIGINAL", true),
        ("--ctdir REPLY", false),
        ("--ctstatus NONE", false),
        ("--ctstatus CONFIRMED", false),
        ("--ctstatus SEEN_REPLY", false),
        ("! --ctstatus SEEN_REPLY", true),
        ("--ctstate NEW --ctorigdst 10.9.9.9", true),
        ("--ctstate INVALID --ctorigdst 10.9.9.9", false),
        ("--ctstate NEW,DNAT", true),
        ("! --ctstate DNAT", false),
    ] {
        let mut lab = nat("PREROUTING", "-p tcp -d 10.9.9.9 -j DNAT --to-destination 10.0.2.2:80");
        lab.rules("router", &format!("*filter\n:FORWARD ACCEPT\n-A FORWARD -m conntrack {rule} -j DROP"));
        let told = told(&lab, "client", &packet("tcp d=10.9.9.9"));
        assert_eq!(told == "router FORWARD 1", met, "{rule}: {told}");
    }
}

#[test]
fn what_is_known_of_a_connection_grows_with_what_passes() {
    let rule = |condition: &str| {
        let mut lab = Build::line();
        lab.rules(
            "router",
            &format!("*filter\n:FORWARD ACCEPT\n-A FORWARD -m conntrack {condition} -j DROP"),
        );
        lab
    };
    for (condition, text, dropped) in [
        ("--ctstate NEW", "udp", [true, false, false]),
        ("--ctstate ESTABLISHED", "udp", [false, true, true]),
        ("--ctstate ESTABLISHED", "tcp", [false, true, true]),
        ("--ctstate ESTABLISHED", "icmp", [false, true, true]),
        ("--ctstate ESTABLISHED", "icmp6", [false, false, false]),
        ("--ctdir REPLY", "udp", [false, true, false]),
        ("--ctdir ORIGINAL", "udp", [true, false, true]),
        ("--ctstatus SEEN_REPLY", "udp", [false, true, true]),
        ("--ctstatus CONFIRMED", "udp", [false, true, true]),
        ("--ctstatus ASSURED", "tcp", [false, false, true]),
        ("--ctorigdstport 2", "udp", [true, true, true]),
        ("--ctreplsrcport 2", "udp", [true, true, true]),
        ("--ctreplsrcport 1", "udp", [false, false, false]),
    ] {
        for (turn, wanted) in (1..).zip(dropped) {
            // What is stopped at first is never answered.
            if turn > 1 && dropped[..turn - 1].contains(&true) {
                break;
            }
            let told = talk(&rule(condition), "client", &packet(text), turn);
            assert_eq!(told == "router FORWARD 1", wanted, "{condition} {text} {turn}: {told}");
        }
    }
}

#[test]
fn zones_keep_connections_apart() {
    for (rules, state) in [
        ("", "ESTABLISHED"),
        ("-A PREROUTING -j CT --zone 2", "ESTABLISHED"),
        ("-A PREROUTING -i eth0 -j CT --zone 2", "NEW"),
        ("-A PREROUTING -i eth1 -j CT --zone 2", "NEW"),
        ("-A PREROUTING -i eth0 -j CT --zone-orig 2", "ESTABLISHED"),
        ("-A PREROUTING -i eth0 -j CT --zone-reply 2", "NEW"),
        ("-A PREROUTING -i eth1 -j CT --zone-reply 2", "NEW"),
        ("-A PREROUTING -i eth1 -j CT --zone-orig 2", "ESTABLISHED"),
    ] {
        let mut lab = Build::line();
        lab.rules("router", &format!("*raw\n:PREROUTING ACCEPT\n{rules}"));
        lab.rules(
            "router",
            &format!("*filter\n:FORWARD ACCEPT\n-A FORWARD -i eth1 -m conntrack --ctstate {state} -j DROP"),
        );
        let told = talk(&lab, "client", &packet("udp"), 2);
        assert_eq!(told, "router FORWARD 1", "{rules}");
    }
}

#[test]
fn a_range_of_identifiers_may_change_that_of_a_query() {
    for (rule, ways) in [
        ("-j DNAT --to-destination 10.0.2.2:443-60999", 2),
        ("-j DNAT --to-destination 10.0.2.2:0-65535", 1),
        ("-j DNAT --to-destination 10.0.2.2", 1),
        ("-p tcp -j DNAT --to-destination 10.0.2.2:443-60999", 1),
    ] {
        let mut lab = nat("PREROUTING", rule);
        lab.rules("router", "*filter\n:FORWARD ACCEPT\n-A FORWARD -m conntrack --ctstate DNAT -j DROP");
        let found = flows(&lab, "client", &ping("10.0.1.2", "10.0.2.2"));
        assert_eq!(found.len(), ways, "{rule}: {found:?}");
        for id in [7, 443, 500] {
            let transport = Transport::Icmp { kind: 8, code: 0, id: PortValue::Is(id) };
            let journey = lab.send(&[("client", Packet { transport, ..ping("10.0.1.2", "10.0.2.2") })]);
            assert_eq!(journey.outcome.name() == "dropped", ways == 2 && id < 443, "{rule} {id}");
        }
        // What is no query has its port.
        flow(&lab, "client", &udp(("10.0.1.2", 500), ("10.0.2.2", 500)));
    }
    // A range that is shifted keeps none.
    let mut lab = nat("PREROUTING", "-p icmp -j DNAT --to-destination 10.0.2.2:80-90/5000");
    lab.rules("router", "*filter\n:FORWARD ACCEPT\n-A FORWARD -m conntrack --ctstate DNAT -j DROP");
    become_of(&lab, "client", &[("icmp", "router FORWARD 1"), ("udp", "server")]);
}

#[test]
fn of_two_rules_for_one_end_the_first_that_fits_decides() {
    let mut lab = Build::line();
    lab.rules(
        "router",
        "*nat\n:PREROUTING ACCEPT\n:POSTROUTING ACCEPT\n\
         -A PREROUTING -p udp -j DNAT --to-destination 10.0.2.2:7\n-A PREROUTING -j DNAT --to-destination 10.0.1.1\n\
         -A POSTROUTING -p udp -j SNAT --to-source 10.0.2.1\n-A POSTROUTING -j MASQUERADE",
    );
    become_of(
        &lab,
        "client",
        &[
            ("udp d=10.9.9.9", "server from 10.0.2.1:1 to 10.0.2.2:7"),
            ("tcp d=10.9.9.9", "router to 10.0.1.1:2"),
        ],
    );
    assert_eq!(talk(&lab, "client", &packet("udp d=10.9.9.9"), 2), "client");
    // An address of the other family is passed over, and the next rule asked.
    let mut lab = Build::line();
    lab.nft(
        "router",
        "table inet lab { chain pre { type nat hook prerouting priority -100;
            meta nfproto ipv4 dnat ip to 10.0.2.2:7
            meta nfproto ipv6 dnat ip6 to [fd02::2]:8
        } }",
    );
    become_of(
        &lab,
        "client",
        &[("udp d=10.9.9.9", "server to 10.0.2.2:7"), ("udp6 d=fd09::9", "server to fd02::2:8")],
    );
}

#[test]
fn a_port_that_another_host_chose_is_shifted_from_there() {
    let rule = "-p udp -j DNAT --to-destination 10.0.2.2:80-90/5000";
    for (first, wanted) in [(5000, 80), (5003, 83), (5011, 80)] {
        let mut lab = nat("PREROUTING", rule);
        let chosen = format!("-A OUTPUT -p udp -j DNAT --to-destination 10.0.2.2:{first}");
        lab.rules("client", &format!("*nat\n:OUTPUT ACCEPT\n{chosen}"));
        become_of(&lab, "client", &[("udp", &format!("server to 10.0.2.2:{wanted}"))]);
    }
}

#[test]
fn a_query_whose_identifier_is_picked_by_chance_is_translated() {
    for (rule, text, told) in [
        ("--random", "icmp", "router FORWARD 1"),
        ("", "icmp", "client"),
        ("--random", "udp", "router FORWARD 1"),
        ("", "udp", "client"),
        ("--random", "47", "client"),
    ] {
        let mut lab = nat("POSTROUTING", &format!("-j SNAT --to-source 10.0.1.2 {rule}"));
        lab.rules(
            "router",
            "*filter\n:FORWARD ACCEPT\n-A FORWARD -i eth1 -m conntrack --ctstate SNAT -j DROP",
        );
        assert_eq!(talk(&lab, "client", &packet(text), 2), told, "{rule} {text}");
    }
}

#[test]
fn what_chance_decides_is_told_where_there_are_several_ways() {
    for (range, ways) in [("10.0.2.3-10.0.2.4", 2), ("10.0.2.3", 1)] {
        let lab = nat("POSTROUTING", &format!("-j SNAT --to-source {range}"));
        let found = flows(&lab, "client", &udp(("10.0.1.2", 1), ("10.0.2.2", 2)));
        assert_eq!(found.len(), ways);
        assert!(found.iter().all(|f| f.flow.reasons.is_empty() == (ways == 1)), "{found:?}");
    }
}

/// `nf_nat_used_tuple`: a tuple is also taken as what another connection began with.
#[test]
fn a_packet_that_comes_round_does_not_take_the_tuple_that_it_first_had() {
    for (to, wanted) in [
        ("10.0.9.9", "client from 10.0.9.9:1-511 to 10.0.1.2:1 ttl 61"),
        ("10.0.9.8", "client from 10.0.9.8:2 to 10.0.1.2:1 ttl 61"),
    ] {
        let mut lab = Build::line();
        lab.route("router", "10.0.9.0/24 via 10.0.2.2 dev eth1");
        lab.sysctl("server", "net.ipv4.ip_forward", 1).sysctl("server", "net.ipv4.conf.all.forwarding", 1);
        lab.rules(
            "server",
            "*nat\n:PREROUTING ACCEPT\n:POSTROUTING ACCEPT\n\
             -A PREROUTING -p udp -d 10.0.9.9 -j DNAT --to-destination 10.0.1.2:1\n\
             -A POSTROUTING -p udp -j SNAT --to-source 10.0.2.2:2",
        );
        lab.rules(
            "router",
            &format!("*nat\n:POSTROUTING ACCEPT\n-A POSTROUTING -s 10.0.2.2 -j SNAT --to-source {to}"),
        );
        assert_eq!(told(&lab, "client", &packet("udp d=10.0.9.9")), wanted, "{to}");
    }
}

/// The address that RFC 6724 takes for the destination, not for the gateway.
#[test]
fn what_is_masqueraded_over_a_gateway_of_ipv6_has_the_address_next_to_its_destination() {
    let mut lab = Build::line();
    lab.rules("router", "# ip6tables\n*nat\n:POSTROUTING ACCEPT\n-A POSTROUTING -j MASQUERADE");
    lab.change("router", "eth1", |i| {
        let mut other = i.addresses[1].clone();
        other.address = "fd09::1".parse().unwrap();
        i.addresses.push(other);
    });
    lab.device("server", "dummy0", crate::model::InterfaceKind::Dummy, &["fd09:1::9/128", "fd02:1::9/128"]);
    lab.route("router", "fd09:1::/64 via fd02::2 dev eth1")
        .route("router", "fd02:1::/64 via fd02::2 dev eth1");
    become_of(
        &lab,
        "client",
        &[
            ("udp6 d=fd09:1::9", "server from fd09::1:1"),
            ("udp6 d=fd02:1::9", "server from fd02::1:1"),
            ("udp6", "server from fd02::1:1"),
        ],
    );
}

/// A VXLAN's outer packets come from any of 32768-60999.
#[test]
fn a_port_that_another_host_picked_is_picked_anew_where_the_range_does_not_hold_all() {
    let open = "server INPUT 1 | server:vx0";
    for (range, below, wanted) in [
        ("1-65535", 32768, "server:vx0"),
        ("1-65535", 61000, "server INPUT 1"),
        ("1-60998", 32768, open),
        ("32769-65535", 61000, open),
        ("40000-50000", 40000, "server:vx0"),
        ("40000-50000", 50001, "server INPUT 1"),
    ] {
        let mut lab = nat("POSTROUTING", &format!("-p udp -j SNAT --to-source 10.0.2.1:{range}"));
        lab.vxlan([("client", "10.0.2.2", "10.9.0.2/24"), ("server", "10.0.2.1", "10.9.0.1/24")]);
        let below = below - 1;
        lab.rules(
            "server",
            &format!("*filter\n:INPUT ACCEPT\n-A INPUT -p udp -m udp --sport 0:{below} --dport 4789 -j DROP"),
        );
        let mac = lab.get("server").interface("vx0").unwrap().mac;
        lab.get("client").neighbours.push(crate::model::Neighbour {
            address: "10.9.0.1".parse().unwrap(),
            interface: "vx0".into(),
            mac,
            state: crate::model::NeighbourState::Permanent,
            proxy: false,
        });
        assert_eq!(told(&lab, "client", &packet("tcp s=10.9.0.2 d=10.9.0.1")), wanted, "{range} {below}");
    }
}

#[test]
fn nothing_is_claimed_of_an_address_that_a_map_gives_by_chance() {
    let mut lab = Build::line();
    lab.nft(
        "router",
        "table inet lab { chain pre { type nat hook prerouting priority -100;
            dnat ip to numgen random mod 2 map { 0 : 10.0.2.2, 1 : 10.0.2.3 }
        } }",
    );
    become_of(&lab, "client", &[("udp d=10.9.9.9", "?"), ("udp6", "server")]);
}
