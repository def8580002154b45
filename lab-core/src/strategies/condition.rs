//! Matches of iptables rules.

use std::collections::BTreeSet;

use proptest::collection::{btree_set, vec};
use proptest::option;
use proptest::prelude::*;
use proptest::sample::select;

use super::address::{address_range, masked, port, ports};
use super::ipset::SETS;
use crate::addr::{Family, Mac};
use crate::model::{
    AddressType, Comparison, ConntrackMatch, ConntrackState, ConntrackStatus, Direction, InterfacePattern,
    Match, Not, NthMode, PacketType, PhysdevMatch, SetDirection, Statistic, TcpFlagsMatch,
};

pub(super) fn not<T: std::fmt::Debug>(value: impl Strategy<Value = T>) -> impl Strategy<Value = Not<T>> {
    (prop::bool::weighted(0.3), value).prop_map(|(invert, value)| Not { invert, value })
}

fn maybe<T: std::fmt::Debug>(value: impl Strategy<Value = T>) -> impl Strategy<Value = Option<Not<T>>> {
    option::of(not(value))
}

pub(super) fn interface() -> impl Strategy<Value = InterfacePattern> + Clone {
    let plain = |name: &str, prefix| InterfacePattern { name: name.into(), prefix };
    select(vec![
        plain("eth0", false),
        plain("eth1", false),
        plain("br0", false),
        plain("lo", false),
        plain("vx0", false),
        plain("eth", true),
        plain("p", true),
        plain("none0", false),
    ])
}

fn port_name() -> impl Strategy<Value = InterfacePattern> {
    let plain = |name: &str, prefix| InterfacePattern { name: name.into(), prefix };
    select(vec![plain("p1", false), plain("p2", false), plain("p", true), plain("eth0", false)])
}

pub(super) fn mark() -> impl Strategy<Value = (u32, u32)> + Clone {
    select(vec![
        (1, u32::MAX),
        (0, u32::MAX),
        (2, 3),
        (0, 1),
        (1, 1),
        (0x10, 0xf0),
        (0x8000_0000, 0x8000_0000),
    ])
}

fn icmp(family: Family) -> impl Strategy<Value = (u8, u8, u8)> {
    let kinds =
        if family == Family::Ipv4 { vec![8_u8, 0, 13, 255, 3] } else { vec![128, 129, 135, 136, 255] };
    (select(kinds), select(vec![(0_u8, 255_u8), (0, 0), (1, 1)])).prop_map(|(kind, (a, b))| (kind, a, b))
}

fn conntrack(family: Family) -> BoxedStrategy<Match> {
    use ConntrackState::{Established, Invalid, New, Related, Untracked};
    use ConntrackStatus::{Assured, Confirmed, Dnat, SeenReply, Snat};
    let states = btree_set(select(vec![New, Established, Related, Invalid, Untracked]), 1..4);
    let pseudo = btree_set(select(vec![Snat, Dnat]), 0..2);
    let status = btree_set(select(vec![SeenReply, Assured, Confirmed, Snat, Dnat]), 1..3);
    let only = ConntrackMatch::default;
    let state = not((states, pseudo)).prop_map(move |s| ConntrackMatch { states: Some(s), ..only() }).boxed();
    let way = select(vec![Direction::Original, Direction::Reply]);
    prop_oneof![
        5 => state.clone(),
        1 => state.prop_map(|mut c| {
            let empty = c.states.as_ref().is_some_and(|s| s.value.1.is_empty());
            c.legacy_state = empty;
            c
        }),
        1 => not(status).prop_map(move |s| ConntrackMatch { status: Some(s), ..only() }),
        1 => not(select(vec![6_u8, 17, 1, 58]))
            .prop_map(move |p| ConntrackMatch { protocol: Some(p), ..only() }),
        1 => way.prop_map(move |d| ConntrackMatch { direction: Some(d), ..only() }),
        1 => (maybe(masked(family)), maybe(masked(family))).prop_map(move |(a, b)| ConntrackMatch {
            original_source: a, original_destination: b, ..only()
        }),
        1 => (maybe(masked(family)), maybe(masked(family))).prop_map(move |(a, b)| ConntrackMatch {
            reply_source: a, reply_destination: b, ..only()
        }),
        1 => (maybe(ports()), maybe(ports())).prop_map(move |(a, b)| ConntrackMatch {
            original_sport: a, original_dport: b, ..only()
        }),
        1 => (maybe(ports()), maybe(ports())).prop_map(move |(a, b)| ConntrackMatch {
            reply_sport: a, reply_dport: b, ..only()
        }),
    ]
    .prop_filter("says nothing", move |c| *c != only())
    .prop_map(|c| Match::Conntrack(Box::new(c)))
    .boxed()
}

fn transports(family: Family) -> BoxedStrategy<Match> {
    let flags =
        (select(vec![0x17_u8, 0x3f, 0x02, 0x12, 0x01, 0]), select(vec![0x02_u8, 0, 0x12, 0x10, 0x3f, 1]))
            .prop_map(|(mask, set)| TcpFlagsMatch { mask, set });
    let sides = select(vec![None, Some(SetDirection::Src), Some(SetDirection::Dst)]);
    let option = option::weighted(0.1, not(select(vec![2_u8, 8])));
    let chunks = option::weighted(0.2, not(Just("any INIT,DATA:Be".to_owned())));
    let icmp = match family {
        Family::Ipv4 => not(icmp(family)).prop_map(Match::Icmp).boxed(),
        Family::Ipv6 => not(icmp(family)).prop_map(Match::Icmp6).boxed(),
    };
    prop_oneof![
        (maybe(ports()), maybe(ports()), maybe(flags), option)
            .prop_map(|(sport, dport, flags, option)| Match::Tcp { sport, dport, flags, option }),
        (maybe(ports()), maybe(ports())).prop_map(|(sport, dport)| Match::Udp { sport, dport }),
        (maybe(ports()), maybe(ports()), chunks).prop_map(|(sport, dport, chunks)| Match::Sctp {
            sport,
            dport,
            chunks
        }),
        icmp,
        (sides, not(vec(ports(), 1..4))).prop_map(|(side, ports)| Match::Multiport { side, ports }),
    ]
    .boxed()
}

fn address_types() -> impl Strategy<Value = BTreeSet<AddressType>> {
    use AddressType::{
        Anycast, Blackhole, Broadcast, Local, Multicast, Prohibit, Unicast, Unreachable, Unspec,
    };
    let types = vec![Local, Unicast, Broadcast, Multicast, Unspec, Anycast, Blackhole, Unreachable, Prohibit];
    btree_set(select(types), 1..3)
}

fn of_addresses(family: Family) -> BoxedStrategy<Match> {
    let side = select(vec![SetDirection::Src, SetDirection::Dst]);
    let limits = select(vec![(false, false), (false, false), (true, false), (false, true)]);
    let types = (maybe(address_types()), maybe(address_types()), limits)
        .prop_filter("no type", |(a, b, _)| a.is_some() || b.is_some())
        .prop_map(|(source, destination, (limit_in, limit_out))| Match::AddressType {
            source,
            destination,
            limit_in,
            limit_out,
        });
    let options = prop_oneof![12 => Just(String::new()), 1 => Just("! --update-counters".to_owned())];
    prop_oneof![
        3 => types,
        3 => (not(select(SETS.map(str::to_owned).to_vec())), vec(side, 3..4), options)
            .prop_map(|(name, directions, options)| Match::Set { name, directions, options }),
        2 => (maybe(address_range(family)), maybe(address_range(family)))
            .prop_filter("no range", |(a, b)| a.is_some() || b.is_some())
            .prop_map(|(source, destination)| Match::IpRange { source, destination }),
    ]
    .boxed()
}

fn of_frames() -> BoxedStrategy<Match> {
    let types =
        vec![PacketType::Unicast, PacketType::Broadcast, PacketType::Multicast, PacketType::Otherhost];
    let physdev = (maybe(port_name()), maybe(port_name()), maybe(Just(())), maybe(Just(())), maybe(Just(())));
    prop_oneof![
        2 => not(select(vec![Mac([2, 0, 0, 0, 0, 2]), Mac([2, 0, 0, 0, 1, 2]), Mac([2, 0, 0, 0, 1, 3])]))
            .prop_map(Match::Mac),
        2 => physdev.prop_filter("says nothing", |(a, b, c, d, e)| {
                a.is_some() || b.is_some() || c.is_some() || d.is_some() || e.is_some()
            }).prop_map(|(input, output, is_in, is_out, is_bridged)| {
                Match::Physdev(Box::new(PhysdevMatch { input, output, is_in, is_out, is_bridged }))
            }),
        1 => not(select(types)).prop_map(Match::PacketType),
    ]
    .boxed()
}

pub(super) fn comparison() -> impl Strategy<Value = Comparison> {
    select(vec![Comparison::Equal, Comparison::NotEqual, Comparison::Less, Comparison::Greater])
}

fn of_headers(family: Family) -> BoxedStrategy<Match> {
    let four = || (any::<bool>(), any::<bool>(), any::<bool>(), any::<bool>());
    let ttl = (comparison(), select(vec![64_u8, 63, 62, 1, 0, 255])).boxed();
    let hops = match family {
        Family::Ipv4 => ttl.prop_map(|(comparison, value)| Match::Ttl { comparison, value }).boxed(),
        Family::Ipv6 => ttl.prop_map(|(comparison, value)| Match::HopLimit { comparison, value }).boxed(),
    };
    prop_oneof![
        2 => not(mark()).prop_map(Match::Mark),
        2 => not(mark()).prop_map(Match::Connmark),
        1 => not(select(vec![0_u8, 1, 2, 46, 63])).prop_map(Match::Dscp),
        1 => not(select(vec![(0_u8, 0xff_u8), (8, 0x3f), (4, 4), (0x10, 0xff), (0, 3)])).prop_map(Match::Tos),
        1 => not(select(vec![(0_u32, 100_u32), (100, 100), (101, 1500), (0, 65535), (1400, 1500)]))
            .prop_map(Match::Length),
        2 => hops,
        2 => four().prop_map(|(invert, loose, valid_mark, accept_local)| Match::RpFilter {
            invert, loose, valid_mark, accept_local
        }),
        1 => not(Just(())).prop_map(Match::Fragment),
    ]
    .boxed()
}

fn of_chance() -> BoxedStrategy<Match> {
    let odds = select(vec!["0.50000000000", "1.00000000000", "0.00000000000"]);
    let nth = select(vec![(2_u32, 0_u32), (1, 0), (3, 2)]);
    let nth = nth.prop_map(|(every, packet)| Statistic::Nth(NthMode { every, packet }));
    let burst = option::of(Just(7_u32));
    prop_oneof![
        1 => burst.prop_map(|burst| Match::Limit { rate: "3/hour".into(), burst }),
        1 => any::<bool>().prop_map(|above| Match::Hashlimit {
            above,
            options: format!(
                "--hashlimit-{} 5/sec --hashlimit-name a", if above { "above" } else { "upto" }
            ),
        }),
        2 => not(prop_oneof![odds.prop_map(|p| Statistic::Random(p.into())), nth]).prop_map(Match::Statistic),
        1 => Just(Match::Comment("because".into())),
        1 => Just(Match::Nfacct("all".into())),
        1 => Just(Match::Unmodelled { name: "recent".into(), text: "-m recent --rcheck --name A".into() }),
    ]
    .boxed()
}

/// A match of an iptables rule of a family: of any kind there is.
///
/// ```
/// # use proptest::{prelude::*, strategy::ValueTree, test_runner::TestRunner};
/// use lab_core::addr::Family;
/// use lab_core::strategies::condition;
/// let one = condition(Family::Ipv4).new_tree(&mut TestRunner::deterministic())?.current();
/// println!("{one:?}");
/// # Ok::<(), proptest::test_runner::Reason>(())
/// ```
pub fn condition(family: Family) -> BoxedStrategy<Match> {
    let icmp = if family == Family::Ipv4 { 1 } else { 58 };
    let built_in = prop_oneof![
        2 => not(masked(family)).prop_map(Match::Source),
        2 => not(masked(family)).prop_map(Match::Destination),
        1 => not(interface()).prop_map(Match::InInterface),
        1 => not(interface()).prop_map(Match::OutInterface),
        2 => not(select(vec![6_u8, 17, icmp, 132, 47])).prop_map(Match::Protocol),
        1 => (port(), select(vec![6_u8, 17])).prop_map(|(port, protocol)| {
            let dport = Some(Not::plain(port.into()));
            match protocol {
                6 => Match::Tcp { sport: None, dport, flags: None, option: None },
                _ => Match::Udp { sport: None, dport },
            }
        }),
    ];
    prop_oneof![
        5 => built_in,
        3 => transports(family),
        2 => conntrack(family),
        2 => of_addresses(family),
        1 => of_frames(),
        3 => of_headers(family),
        1 => of_chance(),
    ]
    .boxed()
}
