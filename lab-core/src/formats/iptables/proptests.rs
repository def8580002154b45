use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use proptest::collection::{btree_set, vec};
use proptest::prelude::*;
use proptest::sample::select;

use super::*;
use crate::addr::{Mac, Masked, PortRange};
use crate::model::{
    AddressType, BaseChain, Chain, ChainKind, Comparison, ConntrackMatch, ConntrackState, ConntrackStatus,
    Direction, Hook, InterfacePattern, MarkOperation, Match, NatAddress, NatKind, NatRange, Not, NthMode,
    Origin, Owner, PacketType, PhysdevMatch, Policy, RejectWith, Rule, SetDirection, Statement, Statistic,
    TableFamily, Target, TcpFlagsMatch, Text, TtlOperation, Verdict,
};

fn not<T: std::fmt::Debug>(value: impl Strategy<Value = T>) -> impl Strategy<Value = Not<T>> {
    (any::<bool>(), value).prop_map(|(invert, value)| Not { invert, value })
}

fn maybe<T: std::fmt::Debug>(value: impl Strategy<Value = T>) -> impl Strategy<Value = Option<Not<T>>> {
    proptest::option::of(not(value))
}

fn address(family: Family) -> BoxedStrategy<IpAddr> {
    match family {
        Family::Ipv4 => any::<u32>().prop_map(|a| Ipv4Addr::from(a).into()).boxed(),
        Family::Ipv6 => any::<u128>().prop_map(|a| Ipv6Addr::from(a).into()).boxed(),
    }
}

fn net(family: Family) -> BoxedStrategy<IpNet> {
    let net = (address(family), 1..=family.bits()).prop_map(|(address, length)| match address {
        IpAddr::V4(a) => IpNet::V4(Ipv4Net::new_assert(a, length)),
        IpAddr::V6(a) => IpNet::V6(Ipv6Net::new_assert(a, length)),
    });
    net.prop_map(|n| n.trunc()).boxed()
}

fn masked(family: Family) -> BoxedStrategy<Masked> {
    let any_mask = (address(family), address(family)).prop_map(|(a, m)| Masked::new(a, m));
    let any_mask = any_mask.prop_filter("says nothing", |m| m.prefix_len() != Some(0));
    prop_oneof![3 => net(family).prop_map(Masked::from), 1 => any_mask].boxed()
}

fn range(family: Family) -> BoxedStrategy<(IpAddr, IpAddr)> {
    (address(family), address(family)).prop_map(|(a, b)| (a.min(b), a.max(b))).boxed()
}

fn ports() -> BoxedStrategy<PortRange> {
    prop_oneof![
        any::<u16>().prop_map(PortRange::from),
        (any::<u16>(), any::<u16>()).prop_map(|(a, b)| PortRange { low: a.min(b), high: a.max(b) }),
    ]
    .boxed()
}

fn interface() -> impl Strategy<Value = InterfacePattern> {
    ("[a-z][a-z0-9.@-]{0,12}", any::<bool>()).prop_map(|(name, prefix)| InterfacePattern { name, prefix })
}

fn icmp() -> impl Strategy<Value = (u8, u8, u8)> {
    prop_oneof![
        any::<u8>().prop_map(|kind| (kind, 0, 255)),
        (any::<u8>(), any::<u8>()).prop_map(|(kind, code)| (kind, code, code)),
    ]
}

fn conntrack(family: Family) -> BoxedStrategy<ConntrackMatch> {
    use ConntrackState::{Established, Invalid, New, Related, Untracked};
    use ConntrackStatus::{Assured, Confirmed, Dnat, Expected, SeenReply, Snat};
    let states = btree_set(select(vec![Invalid, New, Established, Related, Untracked]), 0..5);
    let pseudo = btree_set(select(vec![Snat, Dnat]), 0..3);
    let states = (states, pseudo).prop_filter("no state", |(a, b)| !a.is_empty() || !b.is_empty()).boxed();
    let status = btree_set(select(vec![Expected, SeenReply, Assured, Confirmed]), 0..4);
    let legacy = not(states.clone()).prop_map(|states| ConntrackMatch {
        legacy_state: true,
        states: Some(states),
        ..ConntrackMatch::default()
    });
    let addresses =
        (maybe(masked(family)), maybe(masked(family)), maybe(masked(family)), maybe(masked(family)));
    let all_ports = (maybe(ports()), maybe(ports()), maybe(ports()), maybe(ports()));
    let expire = (any::<u32>(), any::<u32>()).prop_map(|(a, b)| (a.min(b), a.max(b)));
    let direction = proptest::option::of(select(vec![Direction::Original, Direction::Reply]));
    let full =
        (maybe(states), maybe(status), maybe(any::<u8>()), addresses, all_ports, maybe(expire), direction)
            .prop_map(|(states, status, protocol, addresses, ports, expire, direction)| ConntrackMatch {
                legacy_state: false,
                states,
                status,
                protocol,
                original_source: addresses.0,
                original_destination: addresses.1,
                reply_source: addresses.2,
                reply_destination: addresses.3,
                original_sport: ports.0,
                original_dport: ports.1,
                reply_sport: ports.2,
                reply_dport: ports.3,
                expire,
                direction,
            });
    prop_oneof![legacy, full].boxed()
}

fn physdev() -> impl Strategy<Value = PhysdevMatch> {
    (maybe(interface()), maybe(interface()), maybe(Just(())), maybe(Just(())), maybe(Just(()))).prop_map(
        |(input, output, is_in, is_out, is_bridged)| PhysdevMatch {
            input,
            output,
            is_in,
            is_out,
            is_bridged,
        },
    )
}

fn address_types() -> impl Strategy<Value = BTreeSet<AddressType>> {
    let types = vec![AddressType::Unspec, AddressType::Local, AddressType::Broadcast, AddressType::Nat];
    btree_set(select(types), 1..4)
}

fn comparison() -> impl Strategy<Value = Comparison> {
    select(vec![Comparison::Equal, Comparison::NotEqual, Comparison::Less, Comparison::Greater])
}

fn transport_match() -> BoxedStrategy<Match> {
    let flags = (0..=0x3f_u8, 0..=0x3f_u8).prop_map(|(mask, set)| TcpFlagsMatch { mask, set });
    let sides = select(vec![None, Some(SetDirection::Src), Some(SetDirection::Dst)]);
    let chunks = select(vec!["any INIT,DATA:Be".to_owned(), "all ALL".to_owned()]);
    prop_oneof![
        (maybe(ports()), maybe(ports()), maybe(flags), maybe(any::<u8>()))
            .prop_map(|(sport, dport, flags, option)| Match::Tcp { sport, dport, flags, option }),
        (maybe(ports()), maybe(ports())).prop_map(|(sport, dport)| Match::Udp { sport, dport }),
        (maybe(ports()), maybe(ports()), maybe(chunks)).prop_map(|(sport, dport, chunks)| Match::Sctp {
            sport,
            dport,
            chunks
        }),
        not(icmp()).prop_map(Match::Icmp),
        not(icmp()).prop_map(Match::Icmp6),
        (sides, not(vec(ports(), 1..8))).prop_map(|(side, ports)| Match::Multiport { side, ports }),
    ]
    .boxed()
}

fn address_match(family: Family) -> BoxedStrategy<Match> {
    let side = select(vec![SetDirection::Src, SetDirection::Dst]);
    let counting = select(vec![String::new(), "! --update-counters".to_owned()]);
    prop_oneof![
        conntrack(family).prop_map(|c| Match::Conntrack(Box::new(c))),
        (maybe(address_types()), maybe(address_types()), any::<bool>(), any::<bool>()).prop_map(
            |(source, destination, limit_in, limit_out)| Match::AddressType {
                source,
                destination,
                limit_in,
                limit_out
            }
        ),
        (not("[a-z][a-z0-9_-]{0,9}"), vec(side, 1..4), counting)
            .prop_map(|(name, directions, options)| Match::Set { name, directions, options }),
        not(any::<[u8; 6]>().prop_map(Mac)).prop_map(Match::Mac),
        physdev().prop_map(|p| Match::Physdev(Box::new(p))),
        (maybe(range(family)), maybe(range(family)))
            .prop_map(|(source, destination)| Match::IpRange { source, destination }),
    ]
    .boxed()
}

fn other_match() -> BoxedStrategy<Match> {
    let pair = || (any::<u32>(), select(vec![u32::MAX, 0xff, 0, 0x4000]));
    let rate =
        (1..10_000_u32, select(vec!["sec", "min", "hour", "day"])).prop_map(|(n, u)| format!("{n}/{u}"));
    let burst = proptest::option::of((0..10_000_u32).prop_filter("not printed", |b| *b != 5));
    let probability = (0..=1_u32 << 31).prop_map(|n| format!("{:.11}", f64::from(n) / 2_147_483_648.0));
    let nth = (1..100_u32, any::<u32>()).prop_map(|(every, n)| NthMode { every, packet: n % every });
    let length = (any::<u16>(), any::<u16>()).prop_map(|(a, b)| (u32::from(a.min(b)), u32::from(a.max(b))));
    let types =
        vec![PacketType::Unicast, PacketType::Broadcast, PacketType::Multicast, PacketType::Otherhost];
    let four = || (any::<bool>(), any::<bool>(), any::<bool>(), any::<bool>());
    prop_oneof![
        not(pair()).prop_map(Match::Mark),
        not(pair()).prop_map(Match::Connmark),
        "\\PC{0,20}".prop_map(|c| Match::Comment(c.into())),
        (rate, burst).prop_map(|(rate, burst)| Match::Limit { rate, burst }),
        any::<bool>().prop_map(|above| Match::Hashlimit {
            above,
            options: format!(
                "--hashlimit-{} 5/sec --hashlimit-name \"a b\"",
                if above { "above" } else { "upto" }
            ),
        }),
        not(prop_oneof![probability.prop_map(|p| Statistic::Random(p.into())), nth.prop_map(Statistic::Nth)])
            .prop_map(Match::Statistic),
        not(0..64_u8).prop_map(Match::Dscp),
        not(any::<(u8, u8)>()).prop_map(Match::Tos),
        not(length).prop_map(Match::Length),
        (comparison(), any::<u8>()).prop_map(|(comparison, value)| Match::Ttl { comparison, value }),
        (comparison(), any::<u8>()).prop_map(|(comparison, value)| Match::HopLimit { comparison, value }),
        not(select(types)).prop_map(Match::PacketType),
        "[a-z_]{1,9}".prop_map(Match::Nfacct),
        four().prop_map(|(invert, loose, valid_mark, accept_local)| Match::RpFilter {
            invert,
            loose,
            valid_mark,
            accept_local
        }),
        Just(Match::Unmodelled { name: "recent".into(), text: "-m recent ! --rcheck --name \"-j\"".into() }),
    ]
    .boxed()
}

fn nat(family: Family) -> BoxedStrategy<Target> {
    let address = proptest::option::of(range(family).prop_map(|(a, b)| NatAddress::Range(a, b)));
    let full = (address, proptest::option::of(ports()), any::<bool>(), any::<bool>());
    let full = full.prop_filter("rewrites nothing", |(a, p, ..)| a.is_some() || p.is_some()).boxed();
    let snat = full.clone().prop_map(|(address, ports, random, more)| Target::Nat {
        kind: NatKind::Snat,
        range: NatRange { address, ports, random, random_fully: more, persistent: more, base_port: None },
    });
    let dnat = (full, any::<u16>()).prop_map(|((address, ports, random, persistent), base)| Target::Nat {
        kind: NatKind::Dnat,
        range: NatRange {
            address,
            ports,
            random,
            persistent,
            random_fully: false,
            base_port: ports.filter(|p| p.low != p.high).map(|_| base),
        },
    });
    let here =
        (select(vec![NatKind::Masquerade, NatKind::Redirect]), proptest::option::of(ports()), any::<bool>())
            .prop_map(|(kind, ports, random)| Target::Nat {
                kind,
                range: NatRange { ports, random, ..NatRange::default() },
            });
    prop_oneof![snat, dnat, here].boxed()
}

fn mark_operation() -> impl Strategy<Value = MarkOperation> {
    any::<(u32, u32)>().prop_map(|(value, mask)| MarkOperation::SetXor { value, mask })
}

fn target(family: Family) -> BoxedStrategy<Target> {
    let verdict = select(vec![
        Verdict::Accept,
        Verdict::Drop,
        Verdict::Return,
        Verdict::Jump("web".into()),
        Verdict::Goto("web".into()),
    ]);
    let reject = match family {
        Family::Ipv4 => select(vec![RejectWith::Icmp(0), RejectWith::Icmp(13), RejectWith::TcpReset]),
        Family::Ipv6 => select(vec![RejectWith::Icmp6(0), RejectWith::Icmp6(6), RejectWith::TcpReset]),
    };
    let hops = || {
        (0..3_u8, any::<u8>()).prop_map(|(how, n)| match how {
            0 => TtlOperation::Set(n),
            1 => TtlOperation::Increment(n),
            _ => TtlOperation::Decrement(n),
        })
    };
    let moved = any::<(bool, u32, u32)>().prop_map(|(save, nfmask, ctmask)| {
        if save {
            MarkOperation::Save { nfmask, ctmask }
        } else {
            MarkOperation::Restore { nfmask, ctmask }
        }
    });
    let direction = select(vec![None, Some(Direction::Original), Some(Direction::Reply)]);
    prop_oneof![
        3 => verdict.prop_map(Target::Verdict),
        1 => reject.prop_map(Target::Reject),
        3 => nat(family),
        1 => net(family).prop_map(Target::Netmap),
        1 => mark_operation().prop_map(Target::Mark),
        1 => prop_oneof![mark_operation().boxed(), moved.boxed()].prop_map(Target::Connmark),
        1 => any::<bool>().prop_map(|legacy| Target::Notrack { legacy }),
        1 => (any::<u16>(), direction).prop_map(|(zone, direction)| Target::CtZone { zone, direction }),
        1 => hops().prop_map(Target::Ttl),
        1 => hops().prop_map(Target::HopLimit),
        1 => (0..64_u8).prop_map(Target::Dscp),
        1 => any::<(u8, u8)>().prop_map(|(value, mask)| Target::Tos { value, mask }),
        1 => Just(Target::NoEffect { name: "LOG".into(), options: "--log-prefix \"-j \\\" \"".into() }),
        1 => Just(Target::Unmodelled { name: "TPROXY".into(), text: "TPROXY --on-port 80".into() }),
    ]
    .boxed()
}

fn rule(family: Family, chain: &'static str) -> BoxedStrategy<Rule> {
    let own = (
        maybe(masked(family)),
        maybe(masked(family)),
        maybe(interface()),
        maybe(interface()),
        maybe(1..=255_u8),
        maybe(Just(())),
    );
    let more = prop_oneof![transport_match(), address_match(family), other_match()];
    (own, vec(more, 0..4), proptest::option::of(target(family)), any::<(u64, u64)>())
        .prop_map(move |((s, d, i, o, p, f), more, target, counters)| {
            let own = [
                s.map(Match::Source),
                d.map(Match::Destination),
                i.map(Match::InInterface),
                o.map(Match::OutInterface),
                p.map(Match::Protocol),
                f.map(Match::Fragment),
            ];
            let matches: Vec<Match> = own.into_iter().flatten().chain(more).collect();
            let comment = matches.iter().find_map(|m| match m {
                Match::Comment(comment) => Some(comment.clone()),
                _ => None,
            });
            let matches = matches.into_iter().map(Statement::Match);
            Rule {
                statements: matches.chain(target.map(Statement::Target)).collect(),
                text: Text::default(),
                comment,
                counters: Some(counters),
                handle: None,
                origin: Origin::default(),
                owner: Owner::of_chain("filter", chain),
            }
        })
        .boxed()
}

fn table() -> impl Strategy<Value = Table> {
    let family = select(vec![Family::Ipv4, Family::Ipv6]);
    let rules = |family| (vec(rule(family, "INPUT"), 0..6), vec(rule(family, "KUBE-A"), 0..3));
    let policies = select(vec![Policy::Accept, Policy::Drop]);
    let backends = select(vec![Backend::Legacy, Backend::Nft]);
    let family = family.prop_flat_map(move |f| (Just(f), rules(f)));
    (family, policies, backends).prop_map(|((family, (input, kube)), policy, backend)| {
        let base = BaseChain { kind: ChainKind::Filter, hook: Hook::Input, priority: 0, policy };
        let chain = |name: &str, base, rules| Chain {
            name: name.into(),
            base,
            rules,
            counters: Some((1, 2)),
            handle: None,
            origin: Origin::default(),
        };
        Table {
            backend,
            family: if family == Family::Ipv4 { TableFamily::Ip } else { TableFamily::Ip6 },
            name: "filter".into(),
            xtables: true,
            chains: vec![
                chain("INPUT", Some(base), input),
                chain("KUBE-A", None, kube),
                chain("web", None, Vec::new()),
            ],
            sets: Vec::new(),
            unmodelled: Vec::new(),
            origin: Origin::default(),
        }
    })
}

/// The table without what tells where and how it was written.
fn bare(mut table: Table) -> Table {
    table.origin = Origin::default();
    for chain in &mut table.chains {
        chain.origin = Origin::default();
        for rule in &mut chain.rules {
            rule.origin = Origin::default();
            rule.text = Text::default();
        }
    }
    table
}

fn family(table: &Table) -> Family {
    if table.family == TableFamily::Ip6 {
        Family::Ipv6
    } else {
        Family::Ipv4
    }
}

proptest! {
    #[test]
    fn what_is_printed_reads_back_the_same(table in table()) {
        let text = print(std::slice::from_ref(&table), true);
        let again = parse("f", &text, family(&table)).map_err(|e| TestCaseError::fail(e.to_string()))?;
        prop_assert_eq!(again.into_iter().map(bare).collect::<Vec<_>>(), vec![table]);
    }

    #[test]
    fn no_line_makes_it_panic_and_what_it_takes_it_can_print(
        words in vec(
            select(vec![
                "-A INPUT", "-I INPUT", "!", "-s", "-d", "10.0.0.0/8", "1.1.1.1,2.2.2.2", "-p", "tcp", "esp",
                "-m", "multiport", "--dport", "--dports", "22", "80:90", "-j", "DROP", "LOG", "MARK", "DNAT",
                "--set-mark", "--to", "1.2.3.4:80", "recent", "--rcheck", "comment", "--comment", "\"a b\"",
                "\"", "-g", "web", "-c", "1", "conntrack", "--ctstate", "NEW", "--x=y", "é", "-", "--", "[1:2]",
                "hashlimit", "--hashlimit-upto", "--bogus", "TPROXY", "-iéé", "-f", "REJECT", "set", "src",
            ]),
            0..9,
        )
    ) {
        let line = words.join(" ");
        let text = format!("*filter\n:INPUT ACCEPT [0:0]\n:web - [0:0]\n-A INPUT {line}\n{line}\nCOMMIT\n");
        let line_alone = format!("*filter\n:INPUT ACCEPT [0:0]\n:web - [0:0]\n-A INPUT {line}\nCOMMIT\n");
        for text in [text, line_alone] {
            if let Ok(tables) = parse("f", &text, Family::Ipv4) {
                let once = print(&tables, true);
                let again = parse("f", &once, Family::Ipv4).map_err(|e| TestCaseError::fail(e.to_string()))?;
                prop_assert_eq!(print(&again, true), once);
            }
        }
    }

    #[test]
    fn a_word_ends_at_the_next_blank_or_quote(text in "[!-z \"\t\\r\u{c}é\u{1}]{0,40}") {
        let end = text.bytes().position(|b| b == b'"' || b.is_ascii_whitespace());
        prop_assert_eq!(lexer::end(text.as_bytes()), end.unwrap_or(text.len()));
    }

    #[test]
    fn a_probability_is_printed_as_so_many_of_2_to_the_31(parts in 0..=1_u32 << 31, text in "0\\.[0-9]{9,13}") {
        let printed = format!("{:.11}", f64::from(parts) / f64::from(1_u32 << 31));
        for text in [text, printed] {
            let rule = format!("-A INPUT -m statistic --mode random --probability {text}");
            let tables = parse("f", format!("*filter\n:INPUT ACCEPT\n{rule}\nCOMMIT"), Family::Ipv4);
            let whole = f64::from(1_u32 << 31);
            let held = format!("{:.11}", (text.parse::<f64>().unwrap() * whole).round() / whole);
            let again = print(&tables.unwrap(), false);
            let end = format!("--probability {held}\nCOMMIT\n");
            prop_assert!(again.ends_with(&end), "{text}: {again}");
        }
    }

    #[test]
    fn no_text_makes_it_panic(text in "\\PC{0,60}", rule in "[-a-z!:/.0-9 \"\\\\]{0,60}") {
        let _ = parse("f", &text, Family::Ipv4);
        let _ = parse("f", format!("*filter\n:INPUT ACCEPT\n-A INPUT {rule}\nCOMMIT"), Family::Ipv6);
        let _ = crate::formats::ipset::parse("f", &text);
        let _ = crate::formats::ipset::parse("f", &format!("create a hash:net,port\nadd a {rule}\n"));
    }
}
