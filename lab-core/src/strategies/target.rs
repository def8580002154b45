//! Targets of iptables rules.

use std::net::IpAddr;

use ipnet::IpNet;
use proptest::option;
use proptest::prelude::*;
use proptest::sample::select;

use super::address::{address, ports};
use crate::addr::{Family, PortRange};
use crate::model::{
    Direction, MarkOperation, NatAddress, NatKind, NatRange, RejectWith, Target, TtlOperation, Verdict,
};

/// Where an iptables rule stands, which says what targets it may have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Site {
    /// Table `raw`.
    Raw,
    /// Table `mangle`.
    Mangle,
    /// Table `nat`, where the destination is rewritten: PREROUTING, OUTPUT.
    Destination,
    /// Table `nat`, where the source is rewritten: INPUT.
    Source,
    /// Table `nat`, POSTROUTING.
    Leaving,
    /// Table `filter`.
    Filter,
}

fn addresses(family: Family) -> impl Strategy<Value = (IpAddr, IpAddr)> {
    let next = |a: IpAddr, by: u8| match a {
        IpAddr::V4(a) => IpAddr::V4((a.to_bits().saturating_add(by.into())).into()),
        IpAddr::V6(a) => IpAddr::V6((a.to_bits().saturating_add(by.into())).into()),
    };
    (address(family), prop_oneof![5 => Just(0_u8), 1 => Just(1)]).prop_map(move |(a, by)| (a, next(a, by)))
}

fn range(family: Family) -> BoxedStrategy<NatRange> {
    let full = (option::of(addresses(family)), option::of(ports()), prop::bool::weighted(0.1));
    full.prop_filter("rewrites nothing", |(a, p, _)| a.is_some() || p.is_some())
        .prop_map(|(address, ports, random)| NatRange {
            address: address.map(|(a, b)| NatAddress::Range(a, b)),
            ports,
            random,
            ..NatRange::default()
        })
        .boxed()
}

fn shifted(family: Family) -> BoxedStrategy<NatRange> {
    (addresses(family), select(vec![80_u16, 8000]))
        .prop_map(|((a, b), base)| NatRange {
            address: Some(NatAddress::Range(a, b)),
            ports: Some(PortRange { low: 8080, high: 8089 }),
            base_port: Some(base),
            ..NatRange::default()
        })
        .boxed()
}

fn netmap(family: Family) -> BoxedStrategy<Target> {
    let nets: Vec<IpNet> = match family {
        Family::Ipv4 => ["10.0.2.0/24", "10.0.1.0/24", "10.0.2.2/32", "10.0.0.0/22", "192.0.2.0/30"].to_vec(),
        Family::Ipv6 => ["fd02::/64", "fd01::/64", "fd02::2/128", "fd00::/10"].to_vec(),
    }
    .into_iter()
    .filter_map(|t| t.parse().ok())
    .collect();
    select(nets).prop_map(Target::Netmap).boxed()
}

fn here(kind: NatKind) -> BoxedStrategy<Target> {
    (option::weighted(0.4, ports()), prop::bool::weighted(0.1))
        .prop_map(move |(ports, random)| Target::Nat {
            kind,
            range: NatRange { ports, random, ..NatRange::default() },
        })
        .boxed()
}

fn of(kind: NatKind, range: BoxedStrategy<NatRange>) -> BoxedStrategy<Target> {
    range.prop_map(move |range| Target::Nat { kind, range }).boxed()
}

pub(super) fn reject(family: Family) -> BoxedStrategy<Target> {
    let with = match family {
        Family::Ipv4 => vec![
            RejectWith::Icmp(3),
            RejectWith::TcpReset,
            RejectWith::Icmp(0),
            RejectWith::Icmp(1),
            RejectWith::Icmp(2),
            RejectWith::Icmp(9),
            RejectWith::Icmp(10),
            RejectWith::Icmp(13),
        ],
        Family::Ipv6 => vec![
            RejectWith::Icmp6(4),
            RejectWith::TcpReset,
            RejectWith::Icmp6(0),
            RejectWith::Icmp6(1),
            RejectWith::Icmp6(3),
            RejectWith::Icmp6(5),
            RejectWith::Icmp6(6),
        ],
    };
    select(with).prop_map(Target::Reject).boxed()
}

fn marking() -> impl Strategy<Value = MarkOperation> {
    select(vec![(1_u32, u32::MAX), (2, 3), (0x10, 0xf0), (1, 0), (0, u32::MAX), (0x8000_0001, 0x8000_0001)])
        .prop_map(|(value, mask)| MarkOperation::SetXor { value, mask })
}

fn moved() -> impl Strategy<Value = MarkOperation> {
    let masks = select(vec![(u32::MAX, u32::MAX), (0xff, 0xff), (1, 3), (0xf0, 0xff)]);
    (any::<bool>(), masks).prop_map(|(save, (nfmask, ctmask))| match save {
        true => MarkOperation::Save { nfmask, ctmask },
        false => MarkOperation::Restore { nfmask, ctmask },
    })
}

fn hops() -> impl Strategy<Value = TtlOperation> {
    select(vec![
        TtlOperation::Set(64),
        TtlOperation::Set(1),
        TtlOperation::Set(0),
        TtlOperation::Increment(1),
        TtlOperation::Increment(200),
        TtlOperation::Decrement(1),
        TtlOperation::Decrement(63),
        TtlOperation::Decrement(200),
    ])
}

fn anywhere(chains: &[&'static str]) -> BoxedStrategy<Target> {
    let mut verdicts = vec![Verdict::Accept, Verdict::Drop, Verdict::Return, Verdict::Accept];
    for chain in chains {
        verdicts.extend([
            Verdict::Jump((*chain).into()),
            Verdict::Jump((*chain).into()),
            Verdict::Goto((*chain).into()),
        ]);
    }
    prop_oneof![
        14 => select(verdicts).prop_map(Target::Verdict),
        1 => Just(Target::NoEffect { name: "LOG".into(), options: "--log-prefix x".into() }),
    ]
    .boxed()
}

/// A target for a rule of a family at a place, which may jump to these
/// chains.
///
/// ```
/// # use proptest::{prelude::*, strategy::ValueTree, test_runner::TestRunner};
/// use lab_core::addr::Family;
/// use lab_core::strategies::{target, Site};
/// let one = target(Family::Ipv4, Site::Filter, &["web"]);
/// println!("{:?}", one.new_tree(&mut TestRunner::deterministic())?.current());
/// # Ok::<(), proptest::test_runner::Reason>(())
/// ```
pub fn target(family: Family, site: Site, chains: &[&'static str]) -> BoxedStrategy<Target> {
    let general = anywhere(chains);
    let zone = select(vec![None, Some(Direction::Original), Some(Direction::Reply)]);
    let changed = match family {
        Family::Ipv4 => hops().prop_map(Target::Ttl).boxed(),
        Family::Ipv6 => hops().prop_map(Target::HopLimit).boxed(),
    };
    match site {
        Site::Raw => prop_oneof![
            3 => general,
            2 => any::<bool>().prop_map(|legacy| Target::Notrack { legacy }),
            2 => (0..3_u16, zone).prop_map(|(zone, direction)| Target::CtZone { zone, direction }),
            1 => marking().prop_map(Target::Mark),
        ]
        .boxed(),
        Site::Mangle => prop_oneof![
            3 => general,
            3 => marking().prop_map(Target::Mark),
            1 => marking().prop_map(Target::Connmark),
            2 => moved().prop_map(Target::Connmark),
            2 => changed,
            1 => select(vec![0_u8, 1, 46, 63]).prop_map(Target::Dscp),
            2 => select(vec![(0_u8, 0xff_u8), (8, 0x3f), (4, 0), (0x10, 0xff), (1, 3)])
                .prop_map(|(value, mask)| Target::Tos { value, mask }),
            1 => Just(Target::Unmodelled { name: "TPROXY".into(), text: "TPROXY --on-port 80".into() }),
        ]
        .boxed(),
        Site::Destination => prop_oneof![
            2 => general,
            4 => of(NatKind::Dnat, range(family)),
            1 => of(NatKind::Dnat, shifted(family)),
            2 => here(NatKind::Redirect),
            1 => netmap(family),
        ]
        .boxed(),
        Site::Source => prop_oneof![
            2 => general,
            2 => of(NatKind::Snat, range(family)),
            1 => netmap(family),
        ]
        .boxed(),
        Site::Leaving => prop_oneof![
            2 => general,
            3 => of(NatKind::Snat, range(family)),
            3 => here(NatKind::Masquerade),
            1 => netmap(family),
        ]
        .boxed(),
        Site::Filter => prop_oneof![
            8 => general,
            3 => reject(family),
            1 => marking().prop_map(Target::Connmark),
        ]
        .boxed(),
    }
}
