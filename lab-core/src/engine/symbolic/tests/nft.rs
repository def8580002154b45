//! Which packets a rule of nft meets, and what maps give.

use super::told::{become_of, decides, packet, told};
use crate::engine::stepper::tests::build::Build;

const FORWARD: &str = "filter hook forward priority 0; policy accept;";
const FIRST: &str = "filter hook prerouting priority -400; policy accept;";

/// Drops in a forward chain what meets a condition.
fn forward(condition: &str) -> Build {
    let mut lab = Build::line();
    lab.chain("router", "lab", FORWARD, &format!("{condition} drop"));
    lab
}

/// The same before routing, and before connection tracking.
fn first(condition: &str) -> Build {
    let mut lab = Build::line();
    lab.chain("router", "lab", FIRST, &format!("{condition} drop"));
    lab
}

#[test]
fn numbers_are_compared_at_their_bounds() {
    decides(
        &[
            ("tcp dport 80", "tcp dp=80", "tcp dp=79; tcp dp=81; udp dp=80; tcp sp=80"),
            ("tcp dport != 80", "tcp dp=79; tcp dp=81", "tcp dp=80; udp dp=79"),
            ("tcp dport < 80", "tcp dp=79; tcp dp=0", "tcp dp=80; udp dp=79"),
            ("tcp dport <= 80", "tcp dp=79; tcp dp=80", "tcp dp=81; udp dp=80"),
            ("tcp dport > 80", "tcp dp=81; tcp dp=65535", "tcp dp=80; udp dp=81"),
            ("tcp dport >= 80", "tcp dp=80; tcp dp=65535", "tcp dp=79; udp dp=80"),
            ("tcp dport > 65534", "tcp dp=65535", "tcp dp=65534"),
            ("tcp dport >= 65535", "tcp dp=65535", "tcp dp=65534"),
            ("tcp dport <= 0", "tcp dp=0", "tcp dp=1"),
            ("tcp dport < 1", "tcp dp=0", "tcp dp=1"),
            ("tcp dport 80-90", "tcp dp=80; tcp dp=90", "tcp dp=79; tcp dp=91"),
            ("tcp dport != 80-90", "tcp dp=79; tcp dp=91", "tcp dp=80; tcp dp=90"),
            ("tcp dport { 22, 80-90 }", "tcp dp=22; tcp dp=80; tcp dp=90", "tcp dp=23; tcp dp=91"),
            ("tcp dport != { 22, 80-90 }", "tcp dp=23; tcp dp=91", "tcp dp=22; tcp dp=90; udp dp=23"),
            ("udp sport 7", "udp sp=7", "udp dp=7; tcp sp=7"),
            ("th dport 7", "udp dp=7; tcp dp=7; sctp dp=7", "udp; tcp sp=7"),
            ("meta mark 0x10", "udp mark=0x10", "udp; udp mark=0x110"),
            ("meta mark >= 0x80000000", "udp mark=0x80000000; udp mark=0xffffffff", "udp mark=0x7fffffff"),
            ("meta mark > 0xfffffffe", "udp mark=0xffffffff", "udp mark=0xfffffffe; udp"),
            ("meta mark <= 0xfffffffe", "udp mark=0xfffffffe; udp", "udp mark=0xffffffff"),
            ("meta length 61-62", "udp len=61; udp len=62", "udp; udp len=63"),
            ("ip length > 60", "udp len=61", "udp; udp6 len=61"),
            ("ip ttl < 63", "udp ttl=63", "udp; udp ttl=65; udp6 ttl=63"),
            ("ip6 hoplimit 63", "udp6", "udp; udp6 ttl=63"),
            ("ip dscp 0x0a", "udp tos=0x28; udp tos=0x2b", "udp tos=0x2c; udp6 tos=0x28"),
            ("ip dscp != 0x0a", "udp tos=0x2c", "udp tos=0x28; udp6"),
            ("ip6 dscp 0x0a", "udp6 tos=0x28", "udp6; udp tos=0x28"),
        ],
        forward,
    );
}

#[test]
fn addresses_and_protocols_are_of_their_family() {
    decides(
        &[
            ("ip saddr 10.0.1.2", "udp", "udp s=10.0.1.3; udp6"),
            ("ip saddr != 10.0.1.2", "udp s=10.0.1.3", "udp; udp6"),
            ("ip daddr 10.0.2.0/30", "udp; udp d=10.0.2.3", "udp d=10.0.2.4; udp6"),
            ("ip daddr > 10.0.2.2", "udp d=10.0.2.3; udp d=255.0.0.1", "udp; udp d=10.0.2.1"),
            ("ip daddr 10.0.2.2-10.0.2.3", "udp; udp d=10.0.2.3", "udp d=10.0.2.4; udp d=10.0.2.1"),
            ("ip saddr & 0.0.0.255 == 0.0.0.2", "udp; udp s=11.7.7.2", "udp s=10.0.1.3"),
            ("ip saddr & 0.0.0.3 != 0.0.0.2", "udp s=10.0.1.3", "udp; udp6"),
            ("ip saddr { 10.0.1.2, 10.0.3.0/24 }", "udp; udp s=10.0.3.255", "udp s=10.0.1.3; udp s=10.0.4.0"),
            ("ip6 saddr fd01::2", "udp6", "udp; udp6 s=fd01::3"),
            ("ip6 daddr fd02::/127", "udp6 d=fd02::0; udp6 d=fd02::1", "udp6"),
            ("ip6 daddr fd02::2/127", "udp6; udp6 d=fd02::3", "udp6 d=fd02::4"),
            ("ip protocol udp", "udp", "tcp; udp6"),
            ("ip6 nexthdr udp", "udp6", "tcp6; udp"),
            ("meta l4proto udp", "udp; udp6", "tcp; 47"),
            ("meta l4proto { tcp, udp }", "udp; tcp6", "icmp; sctp"),
            ("meta l4proto > 17", "47; sctp; icmp6", "udp; tcp; icmp"),
            ("meta nfproto ipv4", "udp", "udp6"),
            ("meta nfproto != ipv4", "udp6", "udp"),
            ("icmp type echo-request", "icmp", "icmp k=13; icmp6; udp"),
            ("icmp code 3", "icmp c=3", "icmp; udp"),
            ("icmpv6 type echo-request", "icmp6", "icmp; udp6"),
            ("icmpv6 code != 3", "icmp6", "icmp6 c=3; icmp"),
            ("sctp dport 9", "sctp dp=9", "sctp; udp dp=9"),
        ],
        first,
    );
}

#[test]
fn bits_are_masked_turned_round_and_shifted() {
    decides(
        &[
            ("meta mark & 0x30 == 0x10", "udp mark=0x10; udp mark=0xdf", "udp mark=0x30; udp"),
            ("meta mark & 0x30 != 0x10", "udp mark=0x30; udp", "udp mark=0x10; udp mark=0x1f"),
            ("meta mark & 0x30 > 0x10", "udp mark=0x20; udp mark=0x3f", "udp mark=0x10; udp mark=0x1f; udp"),
            ("meta mark | 0xf0 == 0xf3", "udp mark=3; udp mark=0x33", "udp mark=0x103; udp mark=2"),
            ("meta mark ^ 0x3 == 0x1", "udp mark=2", "udp mark=1; udp; udp mark=3"),
            ("meta mark ^ 0x3 != 0x1", "udp mark=1; udp", "udp mark=2"),
            ("meta mark << 4 == 0x30", "udp mark=3", "udp mark=0x30; udp mark=0x13"),
            ("meta mark >> 4 == 0x3", "udp mark=0x30; udp mark=0x3f", "udp mark=0x3; udp mark=0x130"),
            ("meta mark & 0xff ^ 0xf == 0xe", "udp mark=1; udp mark=0x101", "udp mark=0xe"),
            ("tcp flags syn", "tcp; tcp fl=18", "tcp fl=16; tcp fl=0; udp"),
            ("tcp flags != syn", "tcp fl=16; tcp fl=18", "tcp; udp"),
            ("tcp flags == syn", "tcp", "tcp fl=18; tcp fl=0"),
            ("tcp flags & (syn | ack) == syn", "tcp; tcp fl=10", "tcp fl=18; tcp fl=16"),
            ("tcp flags & (fin | rst) != 0", "tcp fl=1; tcp fl=20", "tcp; tcp fl=18"),
            ("tcp flags syn,ack", "tcp; tcp fl=16", "tcp fl=4; tcp fl=0"),
            ("tcp flags ! fin,rst", "tcp; tcp fl=18", "tcp fl=1; tcp fl=4; udp"),
        ],
        first,
    );
}

#[test]
fn values_side_by_side_are_compared_each_with_its_own() {
    decides(
        &[
            (
                "ip saddr . tcp dport { 10.0.1.2 . 80-90 }",
                "tcp dp=80; tcp dp=90",
                "tcp dp=91; tcp dp=80 s=10.0.1.3; udp dp=80",
            ),
            (
                "ip saddr . tcp dport != { 10.0.1.2 . 80 }",
                "tcp dp=81; tcp dp=80 s=10.0.1.3",
                "tcp dp=80; udp",
            ),
            ("iifname . ip daddr { \"eth0\" . 10.0.2.2, \"eth1\" . 10.0.2.3 }", "udp", "udp d=10.0.2.3"),
            ("iifname . oifname { \"eth0\" . \"eth1\" }", "udp", ""),
            ("iifname . oifname { \"eth1\" . \"eth0\" }", "", "udp"),
            (
                "meta l4proto . th dport { tcp . 80, udp . 53 }",
                "tcp dp=80; udp dp=53",
                "tcp dp=53; udp dp=80",
            ),
        ],
        forward,
    );
}

#[test]
fn devices_are_compared_by_name_or_how_it_begins() {
    for (condition, met) in [
        ("iifname \"eth0\"", true),
        ("iifname \"eth1\"", false),
        ("iifname != \"eth1\"", true),
        ("iifname \"eth*\"", true),
        ("iifname != \"eth*\"", false),
        ("iifname \"lo*\"", false),
        ("oifname \"eth1\"", true),
        ("oifname \"eth0\"", false),
        ("oifname { \"eth0\", \"eth1\" }", true),
        ("iif \"eth0\" oif \"eth1\"", true),
        ("meta pkttype unicast", true),
        ("meta pkttype != unicast", false),
        ("meta pkttype broadcast", false),
        ("ether saddr 02:00:00:00:00:02", true),
        ("ether saddr 02:00:00:00:00:03", false),
        ("ether daddr != 02:00:00:00:01:02", false),
        ("ether daddr 02:00:00:00:01:02", true),
    ] {
        let wanted = if met { "router fwd 1" } else { "server" };
        assert_eq!(told(&forward(condition), "client", &packet("udp")), wanted, "{condition}");
    }
    // Before a frame comes, there is none.
    let mut lab = Build::line();
    lab.chain("router", "lab", "filter hook output priority 0;", "ether saddr != 02:00:00:00:00:02 drop");
    become_of(&lab, "router", &[("udp s=10.0.2.1", "server")]);
}

#[test]
fn what_tracking_knows_is_compared() {
    let mut dnat = forward("");
    dnat.rules(
        "router",
        "*nat\n:PREROUTING ACCEPT\n-A PREROUTING -d 10.0.9.9 -j DNAT --to-destination 10.0.2.2:80",
    );
    let mark = "-A PREROUTING -j CONNMARK --set-mark 0x13";
    dnat.rules("router", &format!("*mangle\n:PREROUTING ACCEPT\n{mark}"));
    let with = |condition: &str| {
        let mut lab = Build { lab: dnat.lab.clone() };
        lab.get("router").ruleset.tables.remove(0);
        lab.chain("router", "lab", FORWARD, &format!("{condition} drop"));
        lab
    };
    decides(
        &[
            ("ct state new", "udp; tcp; tcp fl=16; icmp", "tcp fl=18; tcp fl=0; icmp k=0"),
            ("ct state invalid", "tcp fl=18; tcp fl=0; tcp fl=4; icmp k=0", "udp; tcp; icmp"),
            ("ct state != new", "tcp fl=18; icmp k=0", "udp"),
            ("ct state established,related", "", "udp; tcp fl=18"),
            ("ct state new,invalid", "udp; tcp fl=18", ""),
            ("ct state { new, invalid }", "udp; tcp fl=18", ""),
            ("ct state & (new | untracked) != 0", "udp", "tcp fl=18"),
            ("ct state untracked", "", "udp; tcp fl=18"),
            ("ct direction original", "udp", "tcp fl=18"),
            ("ct direction reply", "", "udp; tcp fl=18"),
            ("ct status dnat", "udp d=10.0.9.9", "udp; tcp fl=18 d=10.0.9.9"),
            ("ct status snat", "", "udp d=10.0.9.9; udp"),
            ("ct status & dnat == 0", "udp", "udp d=10.0.9.9"),
            ("ct status confirmed", "", "udp"),
            ("ct mark 0x13", "udp", "tcp fl=18"),
            ("ct mark & 0xf == 0x3", "udp", "tcp fl=18"),
            ("ct mark 0x12", "", "udp"),
            ("ct mark != 0x12", "udp", "tcp fl=18"),
            ("ct original ip daddr 10.0.9.9", "udp d=10.0.9.9", "udp; tcp fl=18"),
            ("ct original ip saddr 10.0.1.2", "udp", "udp s=10.0.1.3"),
            ("ct reply ip saddr 10.0.2.2", "udp d=10.0.9.9; udp", "udp d=10.0.2.3"),
            ("ct reply ip daddr 10.0.1.2", "udp", "udp s=10.0.1.3"),
            ("ct original proto-dst 7", "udp dp=7; udp d=10.0.9.9 dp=7", "udp; tcp fl=18 dp=7"),
            ("ct original proto-src 7", "udp sp=7", "udp dp=7"),
            ("ct reply proto-src 80", "udp dp=80; tcp dp=7 d=10.0.9.9", "udp; tcp"),
            ("ct reply proto-dst 7", "udp sp=7", "udp dp=7"),
            ("ct original proto-dst 2048", "icmp; udp dp=2048", "udp; icmp c=1"),
            ("ct original proto-dst 2049", "icmp c=1", "icmp"),
        ],
        with,
    );
}

#[test]
fn what_routes_say_of_an_address_is_compared() {
    let routed = |condition: &str| {
        let mut lab = first(condition);
        lab.route("router", "10.0.5.0/24 via 10.0.1.2 dev eth0")
            .route("router", "10.0.6.0/24 via 10.0.2.2 dev eth1");
        lab.route("router", "blackhole 10.0.7.0/24").route("router", "prohibit 10.0.8.0/24 table 255");
        lab
    };
    decides(
        &[
            (
                "fib daddr type local",
                "udp d=10.0.1.1; udp d=127.0.0.1; udp6 d=fd02::1",
                "udp; udp d=10.0.1.255; udp6",
            ),
            ("fib daddr type != local", "udp; udp6; udp d=10.0.1.255", "udp d=10.0.2.1"),
            (
                "fib daddr type unicast",
                "udp; udp d=203.0.113.1; udp6",
                "udp d=10.0.1.1; udp6 d=fd01::1; udp6 d=2001:db8::1",
            ),
            ("fib daddr type broadcast", "udp d=10.0.1.255; udp d=255.255.255.255; udp d=0.0.0.0", "udp"),
            ("fib daddr type multicast", "udp d=224.0.0.1; udp6 d=ff02::7", "udp; udp6"),
            ("fib daddr type prohibit", "udp d=10.0.8.1", "udp d=10.0.7.1; udp"),
            ("fib daddr type { local, broadcast }", "udp d=10.0.1.1; udp d=10.0.1.255", "udp"),
            ("fib daddr type unreachable", "udp6 d=2001:db8::1", "udp6; udp d=10.0.9.9"),
            ("fib saddr type local", "udp s=10.0.2.1", "udp; udp d=10.0.2.1"),
            (
                "fib daddr . iif type local",
                "udp d=10.0.1.1; udp6 d=fd01::1",
                "udp d=10.0.2.1; udp6 d=fd02::1; udp",
            ),
            (
                "fib saddr oif eth0",
                "udp; udp s=10.0.5.1; udp6",
                "udp s=10.0.6.1; udp s=10.0.7.1; udp6 s=fd02::7",
            ),
            ("fib saddr oifname \"eth1\"", "udp s=10.0.6.1; udp6 s=fd02::7", "udp; udp s=10.0.7.1"),
            (
                "fib saddr . iif oif 0",
                "udp s=10.0.6.1; udp s=10.0.7.1; udp s=10.0.9.1; udp6 s=fd02::7",
                "udp; udp s=10.0.5.1; udp6",
            ),
            ("fib saddr . iif oif exists", "udp; udp6", "udp s=10.0.6.1; udp6 s=fd02::7"),
            ("fib saddr . iif oif missing", "udp s=10.0.6.1; udp6 s=fd02::7", "udp; udp6"),
            ("fib daddr oif eth1", "udp; udp6", "udp d=10.0.5.1; udp d=10.0.2.1"),
            ("fib daddr oifname \"\"", "udp d=10.0.9.9", "udp; udp d=10.0.2.255"),
        ],
        routed,
    );
}

#[test]
fn fib_asks_about_the_device_that_a_packet_leaves_by() {
    decides(
        &[
            ("fib daddr . oif oif eth1", "udp; udp6", ""),
            ("fib daddr . oif oif exists", "udp; udp6", ""),
            ("fib saddr . oif oif missing", "udp; udp6", ""),
            ("fib saddr oif missing", "", "udp; udp6"),
            ("fib saddr . oif type local", "", "udp s=10.0.1.1; udp"),
        ],
        forward,
    );
}

#[test]
fn what_is_in_a_set_is_open_where_the_set_is_not_understood() {
    let lab = |unmodelled: &str, dynamic: bool| {
        let mut lab = Build::line();
        lab.nft(
            "router",
            "table inet lab {
                set ports { type inet_service; elements = { 80 } }
                chain fwd { type filter hook forward priority 0; policy accept; tcp dport @ports drop; }
            }",
        );
        let set = &mut lab.get("router").ruleset.tables[0].sets[0];
        (set.unmodelled, set.dynamic) = (unmodelled.into(), dynamic);
        lab
    };
    let open = "router fwd 1 | server";
    become_of(&lab("", false), "client", &[("tcp dp=80", "router fwd 1"), ("tcp dp=81", "server")]);
    for lab in [lab("typeof ip option", false), lab("", true)] {
        become_of(&lab, "client", &[("tcp dp=80", open), ("tcp dp=81", open), ("udp dp=80", "server")]);
    }
}

#[test]
fn fib_asks_with_the_mark_where_it_is_told_to() {
    use crate::engine::stepper::tests::route::{default_rules, policy_rule};
    use crate::model::{PolicyAction, PolicyRule};
    let lab = |condition: &str| {
        let mut lab = first(condition);
        lab.get("router").rules = default_rules();
        let to = "10.0.1.2/32".parse().ok();
        let away = policy_rule(100, PolicyAction::Unreachable);
        lab.get("router").rules.insert(1, PolicyRule { fwmark: Some((3, 3)), destination: to, ..away });
        lab
    };
    decides(
        &[
            ("fib saddr . mark oif 0", "udp mark=3; udp mark=7", "udp; udp mark=2"),
            ("fib saddr oif 0", "", "udp mark=3; udp"),
        ],
        lab,
    );
}

#[test]
fn what_a_lone_packet_meets_by_chance_is_met_and_not() {
    let both = "router fwd 1 | server";
    for (condition, wanted) in [
        ("numgen random mod 2 == 0", both),
        ("numgen inc mod 2 == 0", both),
        ("numgen random mod 1 == 0", "router fwd 1"),
        ("numgen random mod 1 offset 3 == 0", "server"),
        ("limit rate 5/second", "router fwd 1"),
        ("limit rate over 5/second", "server"),
        ("counter", "router fwd 1"),
    ] {
        assert_eq!(told(&forward(condition), "client", &packet("udp")), wanted, "{condition}");
    }
    // Bytes where others have their ports.
    become_of(&forward("th dport 7"), "client", &[("icmp", both), ("47", both), ("udp", "server")]);
}

#[test]
fn the_first_element_of_a_map_that_holds_decides() {
    let mut lab = Build::line();
    lab.nft(
        "router",
        "table inet lab {
            map named { type inet_service : verdict; elements = { 5 : drop, 6 : goto deep } }
            chain deep { udp sport 9 accept; drop; }
            chain calm { udp sport 9 drop; }
            chain back { return; }
            chain fwd {
                type filter hook forward priority 0; policy accept;
                udp dport vmap { 1 : drop, 2 : accept, 3 : jump calm, 4 : goto deep, 10-12 : continue, 13 : jump back }
                udp dport vmap @named
                udp dport 2-14 drop
            }
        }",
    );
    become_of(
        &lab,
        "client",
        &[
            ("udp dp=1", "router fwd 1"),
            ("udp dp=2", "server"),
            ("udp dp=3", "router fwd 3"),
            ("udp dp=3 sp=9", "router calm 1"),
            ("udp dp=4", "router deep 2"),
            ("udp dp=4 sp=9", "server"),
            ("udp dp=5", "router fwd 2"),
            ("udp dp=6", "router deep 2"),
            ("udp dp=6 sp=9", "server"),
            ("udp dp=9", "router fwd 3"),
            ("udp dp=10", "router fwd 3"),
            ("udp dp=13", "router fwd 3"),
            ("udp dp=15", "server"),
            ("tcp dp=1", "server"),
        ],
    );
}

#[test]
fn a_map_gives_marks_and_addresses() {
    let mut lab = Build::line();
    lab.nft(
        "router",
        "table inet lab {
            map marks { type inet_service : mark; elements = { 70 : 7 } }
            chain pre {
                type filter hook prerouting priority -199; policy accept;
                meta mark set udp dport map { 53 : 3, 80-90 : 4 }
                meta mark set udp dport map @marks
                meta mark set ip saddr . udp dport map { 10.0.1.2 . 60 : 9 }
            }
            chain dst {
                type nat hook prerouting priority -100; policy accept;
                dnat ip to udp dport map { 100 : 10.0.2.2, 101-102 : 10.0.1.1 }
                dnat ip6 to udp dport map { 100 : fd02::2 }
            }
        }",
    );
    become_of(
        &lab,
        "router:eth0",
        &[
            ("udp d=10.0.1.1 dp=53", "router mark 0x3"),
            ("udp d=10.0.1.1 dp=80", "router mark 0x4"),
            ("udp d=10.0.1.1 dp=90 mark=5", "router mark 0x4"),
            ("udp d=10.0.1.1 dp=91", "router"),
            ("udp d=10.0.1.1 dp=70", "router mark 0x7"),
            ("udp d=10.0.1.1 dp=60", "router mark 0x9"),
            ("udp d=10.0.1.1 dp=60 s=10.0.1.3", "router"),
            ("udp d=10.0.1.1 dp=91 mark=5", "router mark 0x5"),
            ("tcp d=10.0.1.1 dp=53", "router"),
            ("udp d=10.9.9.9 dp=100", "server to 10.0.2.2:100"),
            ("udp d=10.9.9.9 dp=102", "router to 10.0.1.1:102"),
            ("udp d=10.9.9.9 dp=103", "router no-route"),
            ("udp6 d=fd09::9 dp=100", "server to fd02::2:100"),
        ],
    );
}

#[test]
fn what_rules_write_is_what_later_rules_read() {
    let written = |rules: &str| {
        let mut lab = Build::line();
        lab.chain("router", "lab", "filter hook prerouting priority -100; policy accept;", rules);
        lab
    };
    for (rules, sent, wanted) in [
        ("meta mark set 0x7", "", "router mark 0x7"),
        ("meta mark set meta mark | 0x10", "mark=3", "router mark 0x13"),
        ("meta mark set meta mark & 0xf0", "mark=0x33", "router mark 0x30"),
        ("meta mark set meta mark ^ 0xf0", "mark=0x33", "router mark 0xc3"),
        ("meta mark set meta mark ^ 0xf0; meta mark 0xc3 drop", "mark=0x33", "router fwd 2"),
        ("meta mark set meta mark ^ 0xf0; meta mark 0xc3 drop", "mark=0x32", "router mark 0xc2"),
        (
            "meta mark set 0x5; ct mark set meta mark | 0x20; meta mark set ct mark & 0x21",
            "",
            "router mark 0x21",
        ),
        ("ct mark set 0x6; meta mark set ct mark ^ 0x3; meta mark 0x5 drop", "", "router fwd 3"),
        ("ct mark set meta mark; meta mark set 0x0; ct mark 0x9 drop", "mark=9", "router fwd 3"),
        ("ct mark set meta mark; meta mark set 0x0; ct mark 0x9 drop", "mark=8", "router"),
        ("ct mark set 0x6; ct mark set ct mark & 0x3; ct mark 0x2 drop", "", "router fwd 3"),
        ("ip ttl set 9; ip ttl 9 drop", "", "router fwd 2"),
        ("ip ttl set 9; ip ttl 8 drop", "", "router ttl 9"),
        ("ip dscp set 0x0a; ip dscp 0x0a drop", "", "router fwd 2"),
        ("ip dscp set 0x0a", "tos=3", "router tos 0x2b"),
        ("ip dscp set 0x0a; ip dscp 0x0b drop", "tos=3", "router tos 0x2b"),
        ("meta mark set 0x7 accept; drop", "", "router mark 0x7"),
        ("udp dport 3 meta mark set 0x7", "", "router"),
        ("notrack", "", "router"),
    ] {
        let packet = packet(&format!("udp d=10.0.1.1 {sent}"));
        assert_eq!(told(&written(rules), "router:eth0", &packet), wanted, "{rules} {sent}");
    }
    let packet = packet("udp6 d=fd01::1");
    for (rules, wanted) in [
        ("ip6 hoplimit set 9; ip6 hoplimit 9 drop", "router fwd 2"),
        ("ip6 dscp set 0x0a", "router tos 0x28"),
        ("ip dscp set 0x0a", "router"),
        ("ip ttl set 9", "router"),
    ] {
        assert_eq!(told(&written(rules), "router:eth0", &packet), wanted, "{rules}");
    }
}

#[test]
fn before_tracking_rules_see_what_was_said_of_it() {
    for (rules, wanted) in [
        ("ct state untracked drop", "server"),
        ("ct state invalid drop", "router fwd 1"),
        ("notrack; ct state untracked drop", "router fwd 2"),
        ("notrack; ct state invalid drop", "server"),
        ("notrack; notrack; ct state untracked drop", "router fwd 3"),
        ("udp dport 3 notrack; ct state untracked drop", "server"),
    ] {
        let mut lab = Build::line();
        lab.chain("router", "lab", FIRST, rules);
        lab.chain("router", "late", FORWARD, "ct state established drop");
        assert_eq!(told(&lab, "client", &packet("udp")), wanted, "{rules}");
    }
}

#[test]
fn reject_meets_what_it_can_answer() {
    decides(
        &[
            ("reject", "udp; udp6; tcp", ""),
            ("reject with tcp reset", "tcp; tcp6", "udp; udp6; icmp"),
            ("reject with icmp port-unreachable", "udp; tcp", "udp6"),
            ("reject with icmpv6 port-unreachable", "udp6", "udp"),
            ("reject with icmpx admin-prohibited", "udp; udp6", ""),
        ],
        |rule| {
            let mut lab = Build::line();
            lab.chain("router", "lab", FORWARD, rule);
            lab
        },
    );
}

#[test]
fn what_fib_says_is_open_where_routes_are_not_understood() {
    let both = "router fwd 1 | server";
    for (condition, packets) in [
        ("fib saddr type local", [("udp s=10.0.7.1", both), ("udp", "server")]),
        ("fib saddr type != local", [("udp s=10.0.7.1", both), ("udp", "router fwd 1")]),
        ("fib saddr oif eth0", [("udp s=10.0.5.1", both), ("udp", "router fwd 1")]),
        ("fib saddr oifname \"eth1\"", [("udp s=10.0.5.1", both), ("udp", "server")]),
        ("fib saddr . iif oif missing", [("udp s=10.0.5.1", both), ("udp", "server")]),
    ] {
        let mut lab = first(condition);
        lab.route("router", "10.0.5.0/24 via 10.0.1.2 dev eth0");
        lab.get("router").routes.last_mut().unwrap().unmodelled = "nexthop object 7".into();
        lab.route("router", "local 10.0.7.0/24 dev eth0 table 255");
        lab.get("router").routes.last_mut().unwrap().unmodelled = "nexthop object 7".into();
        lab.sysctl("router", "net.ipv4.conf.all.accept_local", 1);
        become_of(&lab, "router:eth0", &packets);
    }
}

/// Two values of the packet at once: each bit is told where it is the same bit twice.
#[test]
fn a_value_is_known_of_itself_and_not_of_another() {
    use crate::model::{Atom, Comparison, Expression, Match, NftMatch, NftSetRef, Statement};
    let meets = |left: Expression, right: u128| {
        let mut lab = first("meta mark 0x0");
        let rule = &mut lab.get("router").ruleset.tables[0].chains[0].rules[0];
        rule.statements[0] = Statement::Match(Match::Nft(Box::new(NftMatch {
            left,
            comparison: Comparison::Equal,
            right: NftSetRef::Elements(vec![vec![Atom::Range(right, right)]]),
        })));
        lab
    };
    let (mark, own) = (|| Box::new(Expression::Mark), || Box::new(Expression::Mark));
    let (both, one) = ("router fwd 1 | server", || Box::new(Expression::Constant(1)));
    let chance = || Box::new(Expression::Numgen { modulus: 4, offset: 0, incremental: false });
    for (left, right, packet, wanted) in [
        (Expression::And(mark(), own()), 5, "udp mark=5", "router fwd 1"),
        (Expression::And(mark(), own()), 5, "udp mark=4", "server"),
        (Expression::Or(mark(), own()), 5, "udp mark=5", "router fwd 1"),
        (Expression::Or(mark(), own()), 5, "udp mark=7", "server"),
        (Expression::Xor(mark(), own()), 0, "udp mark=5", "router fwd 1"),
        (Expression::Xor(mark(), own()), 5, "udp mark=5", "server"),
        (Expression::And(chance(), one()), 1, "udp", both),
        (Expression::Or(one(), chance()), 1, "udp", both),
        (Expression::ShiftRight(chance(), 1), 1, "udp", both),
    ] {
        let told = told(&meets(left.clone(), right), "router:eth0", &self::packet(packet));
        assert_eq!(told, wanted, "{left:?} {right} {packet}");
    }
}

#[test]
fn a_chain_runs_before_tracking_or_after_it_by_its_priority() {
    for (priority, wanted) in [(-201, "server"), (-200, "?"), (-199, "router fwd 1")] {
        let mut lab = Build::line();
        let base = format!("filter hook prerouting priority {priority}; policy accept;");
        lab.chain("router", "lab", &base, "ct state new drop");
        assert_eq!(told(&lab, "client", &packet("udp")), wanted, "{priority}");
    }
}

#[test]
fn a_zone_of_nft_counts_after_another_chain_said_not_to_track() {
    let state = |chains: &[&str], asked: &str| {
        let mut lab = Build::line();
        for (index, rule) in chains.iter().chain([&format!("ct state {asked} drop").as_str()]).enumerate() {
            let base = format!("filter hook prerouting priority {}; policy accept;", index as i32 - 400);
            lab.chain("router", &format!("lab{index}"), &base, rule);
        }
        told(&lab, "client", &packet("udp")) == "router fwd 1"
    };
    assert!(state(&["notrack"], "untracked"));
    assert!(!state(&["notrack", "ct zone set 5"], "untracked"));
    assert!(state(&["notrack", "ct zone set 5"], "new"));
    assert!(state(&["ct zone set 5", "notrack"], "new"));
    assert!(!state(&["ct zone set 5", "notrack"], "untracked"));
}
