//! Which packets a rule of iptables meets.

use super::told::{become_of, decides, packet, told};
use crate::addr::Mac;
use crate::engine::stepper::tests::build::Build;
use crate::model::{Comparison, Match, Not, Statement};

/// Drops in FORWARD what meets a condition.
pub fn forward(condition: &str) -> Build {
    let mut lab = Build::line();
    lab.rules("router", &format!("*filter\n:FORWARD ACCEPT\n-A FORWARD {condition} -j DROP"));
    lab
}

/// The same before routing, and before connection tracking.
pub fn raw(condition: &str) -> Build {
    let mut lab = Build::line();
    lab.rules("router", &format!("*raw\n:PREROUTING ACCEPT\n-A PREROUTING {condition} -j DROP"));
    lab
}

fn of_v6(make: impl Fn(&str) -> Build) -> impl Fn(&str) -> Build {
    move |condition| {
        let mut lab = make(condition);
        for table in &mut lab.get("router").ruleset.tables {
            table.family = crate::model::TableFamily::Ip6;
        }
        lab
    }
}

#[test]
fn ports_are_compared_as_numbers_of_their_protocol() {
    decides(
        &[
            (
                "-p tcp -m tcp --dport 80:90",
                "tcp dp=80; tcp dp=90",
                "tcp dp=79; tcp dp=91; udp dp=80; tcp sp=80",
            ),
            ("-p tcp -m tcp ! --dport 80:90", "tcp dp=79; tcp dp=91", "tcp dp=80; tcp dp=90; udp dp=79"),
            ("-p tcp -m tcp --dport 80", "tcp dp=80", "tcp dp=81; udp dp=80"),
            ("-p udp -m udp --sport 7", "udp sp=7", "udp sp=6; udp dp=7; tcp sp=7"),
            ("-p udp -m udp --dport 7", "udp dp=7", "udp dp=6; udp sp=7; tcp dp=7; sctp dp=7"),
            ("-p udp -m udp ! --sport 7", "udp sp=6", "udp sp=7; tcp sp=6"),
            ("-p udp -m udp --sport 7 --dport 8", "udp sp=7 dp=8", "udp sp=8 dp=7; udp sp=7; udp dp=8"),
            ("-p sctp -m sctp --dport 9", "sctp dp=9", "sctp sp=9; udp dp=9; sctp dp=8"),
            ("-p udp -m udp --sport 0:0", "udp sp=0", "udp sp=1"),
            ("-p udp -m udp --sport 65535", "udp sp=65535", "udp sp=65534"),
            (
                "-p tcp -m multiport --dports 1,5:7",
                "tcp dp=1; tcp dp=5; tcp dp=7",
                "tcp dp=4; tcp dp=8; tcp sp=5",
            ),
            ("-p tcp -m multiport --sports 5:7", "tcp sp=5; tcp sp=7", "tcp sp=8 dp=5; udp sp=5"),
            ("-p tcp -m multiport --ports 5:7", "tcp sp=5; tcp dp=7", "tcp sp=8 dp=4"),
            ("-p tcp -m multiport ! --dports 5:7", "tcp dp=4; tcp dp=8", "tcp dp=5; tcp dp=7; udp dp=4"),
            ("-p tcp", "tcp; tcp fl=0", "udp; icmp; sctp; 47"),
            ("! -p tcp", "udp; icmp; 47", "tcp"),
            ("-p icmp", "icmp; icmp k=0", "udp; 47"),
            ("-p 47", "47", "46; 48; tcp"),
            ("! -p udp -d 10.0.2.2", "tcp; 47", "udp; tcp d=10.0.2.3"),
        ],
        forward,
    );
}

#[test]
fn a_protocol_that_is_none_is_never_met() {
    let mut lab = forward("-p tcp");
    let rule = &mut lab.get("router").ruleset.tables[0].chains[0].rules[0];
    rule.statements[0] = Statement::Match(Match::Protocol(Not { value: 0, invert: true }));
    become_of(&lab, "router:eth0", &[("tcp", "server"), ("47", "server")]);
    let rule = &mut lab.get("router").ruleset.tables[0].chains[0].rules[0];
    rule.statements[0] = Statement::Match(Match::Protocol(Not { value: 0, invert: false }));
    become_of(&lab, "router:eth0", &[("tcp", "router FORWARD 1"), ("47", "router FORWARD 1")]);
}

#[test]
fn addresses_are_compared_under_their_masks() {
    decides(
        &[
            ("-s 10.0.1.4/31", "udp s=10.0.1.4; udp s=10.0.1.5", "udp s=10.0.1.3; udp s=10.0.1.6"),
            ("! -s 10.0.1.4/31", "udp s=10.0.1.3; udp s=10.0.1.6", "udp s=10.0.1.4; udp s=10.0.1.5"),
            ("-d 10.0.2.0/30", "udp; udp d=10.0.2.3", "udp d=10.0.2.4; udp6"),
            ("! -d 10.0.2.2", "udp d=10.0.2.3", "udp"),
            ("-s 10.0.0.2/255.0.0.255", "udp; udp s=10.9.9.2", "udp s=10.0.1.3; udp s=11.0.1.2"),
            ("-s 10.0.1.2 -d 10.0.2.2 -p udp", "udp", "tcp; udp s=10.0.1.3; udp d=10.0.2.3"),
            ("! -s 10.0.1.0/24 ! -d 10.0.2.8/29", "udp s=10.0.3.1", "udp; udp s=10.0.3.1 d=10.0.2.9"),
            (
                "-m iprange --src-range 10.0.1.3-10.0.1.5",
                "udp s=10.0.1.3; udp s=10.0.1.5",
                "udp; udp s=10.0.1.6",
            ),
            ("-m iprange ! --src-range 10.0.1.3-10.0.1.5", "udp; udp s=10.0.1.6", "udp s=10.0.1.3"),
            ("-m iprange --dst-range 10.0.2.2-10.0.2.2", "udp", "udp d=10.0.2.1; udp d=10.0.2.3"),
        ],
        forward,
    );
    decides(
        &[
            ("-s fd01::4/127", "udp6 s=fd01::4; udp6 s=fd01::5", "udp6; udp6 s=fd01::6"),
            ("! -d fd02::2", "udp6 d=fd02::3", "udp6"),
            (
                "-m iprange --src-range fd01::2-fd01::3",
                "udp6; udp6 s=fd01::3",
                "udp6 s=fd01::4; udp6 s=fd01::9",
            ),
        ],
        |condition| {
            let mut lab = Build::line();
            lab.rules(
                "router",
                &format!("# ip6tables\n*filter\n:FORWARD ACCEPT\n-A FORWARD {condition} -j DROP"),
            );
            lab
        },
    );
}

#[test]
fn devices_are_compared_by_name_or_how_it_begins() {
    decides(
        &[
            ("-i eth0", "udp", ""),
            ("-i eth1", "", "udp"),
            ("! -i eth1", "udp", ""),
            ("! -i eth0", "", "udp"),
            ("-i eth+", "udp", ""),
            ("-i et+ -o eth1", "udp", ""),
            ("! -i et+", "", "udp"),
            ("-i lo+", "", "udp"),
            ("-i + -o +", "udp", ""),
            ("-o eth1", "udp", ""),
            ("-o eth0", "", "udp"),
            ("! -o eth0", "udp", ""),
            ("-i eth0 -o eth0", "", "udp"),
        ],
        forward,
    );
    // There is no way out yet.
    decides(&[("! -o eth1", "udp", ""), ("-i eth0", "udp", ""), ("-o eth1", "", "udp")], raw);
}

#[test]
fn numbers_of_the_header_are_compared_at_their_bounds() {
    decides(
        &[
            ("-m length --length 61:62", "udp len=61; udp len=62", "udp; udp len=63"),
            ("-m length ! --length 61:62", "udp; udp len=63", "udp len=61; udp len=62"),
            ("-m length --length 60", "udp", "udp len=59; udp len=61"),
            // FORWARD sees what is left.
            ("-m ttl --ttl-eq 63", "udp", "udp ttl=63; udp ttl=65"),
            ("-m ttl ! --ttl-eq 63", "udp ttl=63", "udp"),
            ("-m ttl --ttl-lt 63", "udp ttl=63; udp ttl=2", "udp; udp ttl=65"),
            ("-m ttl --ttl-gt 63", "udp ttl=65; udp ttl=255", "udp; udp ttl=2"),
            ("-m ttl --ttl-lt 0", "", "udp ttl=2"),
            ("-m ttl --ttl-gt 255", "", "udp ttl=255"),
            ("-m ttl --ttl-gt 254", "", "udp ttl=255"),
            ("-m tos --tos 0x10/0x30", "udp tos=0x10; udp tos=0x1f", "udp tos=0x30; udp"),
            ("-m tos ! --tos 0x10/0x30", "udp tos=0x30; udp", "udp tos=0x10; udp tos=0xdf"),
            ("-m tos --tos 0x11/0x10", "", "udp tos=0x11; udp tos=0x10"),
            ("-m dscp --dscp 0x0a", "udp tos=0x28; udp tos=0x2b", "udp tos=0x2c; udp"),
            ("-m dscp ! --dscp 0x0a", "udp tos=0x2c", "udp tos=0x28; udp tos=0x2b"),
        ],
        forward,
    );
    decides(
        &[
            ("-m ttl --ttl-lt 1", "udp ttl=0", "udp ttl=1; udp ttl=255"),
            ("-m ttl --ttl-gt 254", "udp ttl=255", "udp ttl=254"),
        ],
        raw,
    );
    decides(
        &[
            ("0x3 AnyBit", "udp ttl=1; udp ttl=254", "udp ttl=64; udp ttl=0"),
            ("0x3 NoBit", "udp ttl=64; udp ttl=0", "udp ttl=1; udp ttl=254"),
            ("63 LessOrEqual", "udp ttl=63; udp ttl=0", "udp ttl=64"),
            ("63 GreaterOrEqual", "udp ttl=63; udp ttl=255", "udp ttl=62"),
        ],
        |row| {
            let mut lab = raw("-m ttl --ttl-eq 63");
            let rule = &mut lab.get("router").ruleset.tables[0].chains[0].rules[0];
            let Statement::Match(Match::Ttl { comparison, value }) = &mut rule.statements[0] else {
                unreachable!("{rule:?}")
            };
            let (number, how) = row.split_once(' ').unwrap();
            *value = number.trim_start_matches("0x").parse().unwrap();
            *comparison = match how {
                "AnyBit" => Comparison::AnyBit,
                "NoBit" => Comparison::NoBit,
                "LessOrEqual" => Comparison::LessOrEqual,
                _ => Comparison::GreaterOrEqual,
            };
            lab
        },
    );
    decides(
        &[
            ("-m hl --hl-eq 63", "udp6", "udp6 ttl=63"),
            ("-m hl ! --hl-eq 63", "udp6 ttl=63", "udp6"),
            ("-m hl --hl-lt 63", "udp6 ttl=63", "udp6"),
            ("-m hl --hl-gt 63", "udp6 ttl=65", "udp6"),
        ],
        of_v6(forward),
    );
}

#[test]
fn marks_are_compared_under_their_masks() {
    decides(
        &[
            (
                "-m mark --mark 0x10/0x30",
                "udp mark=0x10; udp mark=0xffffffdf",
                "udp; udp mark=0x30; udp mark=0x20",
            ),
            ("-m mark ! --mark 0x10/0x30", "udp; udp mark=0x30", "udp mark=0x10"),
            ("-m mark --mark 0x11/0x10", "", "udp mark=0x11; udp mark=0x10"),
            ("-m mark ! --mark 0x11/0x10", "udp mark=0x11; udp mark=0x10", ""),
            ("-m mark --mark 0x80000000", "udp mark=0x80000000", "udp; udp mark=0x80000001"),
        ],
        forward,
    );
}

#[test]
fn flags_of_tcp_are_compared_under_their_mask() {
    decides(
        &[
            (
                "-p tcp -m tcp --tcp-flags SYN,RST,ACK SYN",
                "tcp; tcp fl=10",
                "tcp fl=18; tcp fl=0; tcp fl=6; udp",
            ),
            ("-p tcp -m tcp ! --tcp-flags SYN,RST,ACK SYN", "tcp fl=18; tcp fl=0", "tcp; udp"),
            ("-p tcp -m tcp --tcp-flags ALL NONE", "tcp fl=0", "tcp; tcp fl=32"),
            ("-p tcp -m tcp --tcp-flags FIN FIN --dport 80", "tcp fl=17 dp=80", "tcp fl=17; tcp dp=80"),
            ("-p tcp -m tcp --tcp-flags SYN SYN,ACK", "", "tcp; tcp fl=18"),
        ],
        forward,
    );
}

#[test]
fn types_of_icmp_are_compared_with_their_codes() {
    decides(
        &[
            ("-p icmp -m icmp --icmp-type 8", "icmp; icmp c=9", "icmp k=13; udp"),
            ("-p icmp -m icmp --icmp-type 8/1", "icmp c=1", "icmp; icmp c=2"),
            ("-p icmp -m icmp ! --icmp-type 8/1", "icmp; icmp k=13 c=1", "icmp c=1; udp"),
            ("-p icmp -m icmp --icmp-type any", "icmp; icmp k=13", "udp"),
            ("-p icmp -m icmp ! --icmp-type any", "", "icmp; udp"),
        ],
        forward,
    );
    let v6 = |condition: &str| {
        let mut lab = Build::line();
        lab.rules(
            "router",
            &format!("# ip6tables\n*raw\n:PREROUTING ACCEPT\n-A PREROUTING {condition} -j DROP"),
        );
        lab
    };
    decides(
        &[
            ("-p ipv6-icmp -m icmp6 --icmpv6-type 128", "icmp6; icmp6 c=3", "icmp6 k=129; udp6"),
            ("-p ipv6-icmp -m icmp6 --icmpv6-type 255", "icmp6 k=255", "icmp6"),
            ("-p ipv6-icmp -m icmp6 ! --icmpv6-type 128/0", "icmp6 c=1; icmp6 k=133", "icmp6"),
        ],
        v6,
    );
}

#[test]
fn what_a_lone_packet_meets_by_chance_is_met_and_not() {
    let told_by = |condition: &str| told(&forward(condition), "client", &packet("udp"));
    let both = "router FORWARD 1 | server";
    for (condition, wanted) in [
        ("-m statistic --mode random --probability 0.5", both),
        ("-m statistic --mode random ! --probability 0.5", both),
        ("-m statistic --mode random --probability 0.0", "server"),
        ("-m statistic --mode random --probability 1.0", "router FORWARD 1"),
        ("-m statistic --mode random ! --probability 1.0", "server"),
        ("-m statistic --mode nth --every 2 --packet 0", both),
        ("-m statistic --mode nth --every 1 --packet 0", "router FORWARD 1"),
        ("-m recent --rcheck --name x", both),
        ("-m limit --limit 1/sec", "router FORWARD 1"),
        ("-m hashlimit --hashlimit-upto 1/sec --hashlimit-name x", "router FORWARD 1"),
        ("-m hashlimit --hashlimit-above 1/sec --hashlimit-name x", "server"),
        ("-m comment --comment x", "router FORWARD 1"),
        ("-p udp -m comment --comment x", "router FORWARD 1"),
        ("-p tcp -m comment --comment x", "server"),
        ("-p tcp -m tcp --tcp-option 5", "server"),
        ("-f", "server"),
        ("! -f", "router FORWARD 1"),
    ] {
        assert_eq!(told_by(condition), wanted, "{condition}");
    }
    let told = told(&forward("-p tcp -m tcp --tcp-option 5"), "client", &packet("tcp"));
    assert_eq!(told, both);
}

#[test]
fn frames_are_known_by_who_sent_them_and_to_whom() {
    let mut plain = Build::line();
    let mac = plain.get("client").interface("eth0").unwrap().mac.unwrap();
    let other = Mac([2, 0, 0, 0, 9, 9]);
    let rows = [
        (format!("-m mac --mac-source {mac}"), true),
        (format!("-m mac ! --mac-source {mac}"), false),
        (format!("-m mac --mac-source {other}"), false),
        (format!("-m mac ! --mac-source {other}"), true),
        ("-m pkttype --pkt-type unicast".into(), true),
        ("-m pkttype ! --pkt-type unicast".into(), false),
        ("-m pkttype --pkt-type broadcast".into(), false),
        ("-m pkttype --pkt-type multicast".into(), false),
    ];
    for (condition, met) in rows {
        let wanted = if met { "router PREROUTING 1" } else { "server" };
        assert_eq!(told(&raw(&condition), "client", &packet("udp")), wanted, "{condition}");
    }
    // What a host itself sends comes from nobody.
    for condition in [format!("-m mac --mac-source {mac}"), format!("-m mac ! --mac-source {mac}")] {
        let mut lab = Build::line();
        lab.rules("router", &format!("*raw\n:PREROUTING ACCEPT\n-A PREROUTING -i lo {condition} -j DROP"));
        become_of(&lab, "router", &[("udp s=10.0.1.1 d=10.0.2.1", "router")]);
    }
    for (kind, met) in [("broadcast", true), ("unicast", false), ("multicast", false)] {
        let lab = raw(&format!("-m pkttype --pkt-type {kind}"));
        let told = told(&lab, "client", &packet("udp d=10.0.1.255"));
        assert_eq!(told == "router PREROUTING 1", met, "{kind}: {told}");
    }
}

#[test]
fn sets_are_asked_by_what_they_hold() {
    let set = |kind: &str, elements: &[&str], directions: &str| {
        let mut text = format!("create s {kind}\n");
        for element in elements {
            text += &format!("add s {element}\n");
        }
        let mut lab = forward(&format!("-m set --match-set s {directions}"));
        for set in crate::formats::ipset::parse("ipset.save", &text).unwrap() {
            lab.get("router").ipsets.insert(set.name.clone(), set);
        }
        lab
    };
    #[rustfmt::skip]
    let rows: &[(&str, &[&str], &str, &str, &str)] = &[
        ("hash:ip family inet", &["10.0.2.2"], "dst", "udp", "udp s=10.0.2.2 d=10.0.2.3; udp d=10.0.2.3"),
        ("hash:ip family inet", &["10.0.1.2"], "src", "udp", "udp s=10.0.1.3"),
        ("bitmap:ip range 10.0.1.0-10.0.1.9", &["10.0.1.2-10.0.1.3"], "src", "udp; udp s=10.0.1.3", "udp s=10.0.1.4; udp s=10.0.1.1"),
        ("hash:net family inet", &["10.0.1.0/24", "10.0.1.4/30 nomatch", "10.0.1.5"], "src", "udp; udp s=10.0.1.5; udp s=10.0.1.8", "udp s=10.0.1.4; udp s=10.0.1.7; udp s=10.0.2.9"),
        ("hash:net,net family inet", &["10.0.1.0/24,10.0.2.8/31", "10.0.1.2,10.0.2.2"], "src,dst", "udp; udp s=10.0.1.9 d=10.0.2.9", "udp s=10.0.1.9; udp d=10.0.2.3"),
        ("hash:ip,port family inet", &["10.0.2.2,tcp:80", "10.0.2.2,udp:53", "10.0.2.2,icmp:8/0", "10.0.2.2,47:0"], "dst,dst", "tcp dp=80; udp dp=53; icmp; 47", "tcp dp=53; udp dp=80; icmp c=1; tcp sp=80; 46; icmp k=13"),
        ("hash:ip,port family inet", &["10.0.2.2,icmp:8/3"], "dst,dst", "icmp c=3", "icmp; icmp c=4; icmp k=13 c=3; udp dp=2051"),
        ("hash:ip,port family inet", &["10.0.1.2,tcp:1"], "src,src", "tcp", "tcp sp=2; tcp dp=1 sp=3"),
        ("hash:ip,port,ip family inet", &["10.0.1.2,udp:2,10.0.2.2"], "src,dst,dst", "udp", "udp dp=1; udp d=10.0.2.3; udp s=10.0.1.3"),
        ("hash:net,port family inet", &["10.0.2.0/24,tcp:80-81"], "dst,dst", "tcp dp=80; tcp dp=81", "tcp dp=82; udp dp=80; tcp dp=79"),
        ("bitmap:port range 0-1024", &["80-81"], "dst", "tcp dp=80; udp dp=81", "tcp dp=82; tcp dp=79; sctp dp=80; icmp; 47"),
        ("bitmap:port range 0-1024", &["0"], "dst", "tcp dp=0", "47; icmp; tcp"),
        ("hash:ip,mark family inet", &["10.0.1.2,0x3"], "src,src", "udp mark=3", "udp; udp mark=2; udp mark=0x103"),
        ("hash:net,iface family inet", &["10.0.1.0/24,eth0"], "src,src", "udp", "udp s=10.0.3.1"),
        ("hash:net,iface family inet", &["10.0.1.0/24,eth1"], "src,dst", "udp", "udp s=10.0.3.1"),
        ("hash:net,iface family inet", &["10.0.1.0/24,eth1"], "src,src", "", "udp"),
        ("hash:ip,port family inet", &["10.0.2.2,tcp:80"], "dst", "", "tcp dp=80"),
        ("hash:ip family inet6", &["fd02::2"], "dst", "", "udp; udp d=10.0.2.3"),
    ];
    for (kind, elements, directions, met, others) in rows {
        decides(&[(kind, met, others)], |_| set(kind, elements, directions));
    }
    let mac = Build::line().get("client").interface("eth0").unwrap().mac.unwrap();
    let text = mac.to_string();
    let lab = set("hash:mac", &[&text], "src");
    become_of(&lab, "client", &[("udp", "router FORWARD 1")]);
    let text = format!("10.0.1.2,{mac}");
    let lab = set("hash:ip,mac family inet", &[&text], "src,src");
    become_of(&lab, "client", &[("udp", "router FORWARD 1"), ("udp s=10.0.1.3", "server")]);
    // Members are asked in turn.
    let text = "create a hash:ip family inet\nadd a 10.0.1.2\ncreate b hash:ip family inet\nadd b 10.0.1.3\n\
        create s list:set\nadd s a\nadd s b\n";
    for (not, met) in [("", true), ("! ", false)] {
        let mut lab = forward(&format!("-m set {not}--match-set s src"));
        for set in crate::formats::ipset::parse("ipset.save", text).unwrap() {
            lab.get("router").ipsets.insert(set.name.clone(), set);
        }
        for (src, inside) in [("10.0.1.2", true), ("10.0.1.3", true), ("10.0.1.4", false)] {
            let told = told(&lab, "router:eth0", &packet(&format!("udp s={src}")));
            assert_eq!(told == "router FORWARD 1", inside == met, "{not}{src}");
        }
    }
    // One that is in itself ends nowhere.
    let mut lab = forward("-m set --match-set s src");
    let text = "create s list:set\nadd s s\n";
    for set in crate::formats::ipset::parse("ipset.save", text).unwrap() {
        lab.get("router").ipsets.insert(set.name.clone(), set);
    }
    become_of(&lab, "client", &[("udp", "router FORWARD 1 | server")]);
    let lab = forward("-m set --match-set nowhere src");
    become_of(&lab, "client", &[("udp", "router FORWARD 1 | server")]);
}
