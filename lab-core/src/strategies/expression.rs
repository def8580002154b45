//! nft expressions.

use std::net::IpAddr;

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;

use super::address::{address, address_range, ports, prefix};
use crate::addr::Family;
use crate::model::{
    Atom, Comparison, Direction, Expression, FibResult, NftElement, NftMap, NftMatch, NftSetRef,
};

pub(super) fn bits(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(a) => a.to_bits().into(),
        IpAddr::V6(a) => a.to_bits(),
    }
}

/// What sort of values an expression has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Sort {
    Name,
    Address(Family),
    Port,
    Number(&'static [u128]),
}

const PROTOCOLS: &[u128] = &[6, 17, 1, 58, 132, 47];
const MARKS: &[u128] = &[0, 1, 2, 3, 0x10, 0x8000_0000];
const LENGTHS: &[u128] = &[100, 20, 1400, 1500];
const TTLS: &[u128] = &[64, 63, 62, 1, 255];
const DSCPS: &[u128] = &[0, 1, 2, 46, 63];
const FLAGS: &[u128] = &[2, 0x10, 0x12, 4, 0x14, 0, 1];
const STATES: &[u128] = &[8, 2, 1, 64, 4];
const STATUS: &[u128] = &[16, 32, 8, 2, 4];
const ICMP: &[u128] = &[8, 0, 13, 14, 255];
const ICMP6: &[u128] = &[128, 129, 135, 136, 133];
const CODES: &[u128] = &[0, 1, 255];
const MACS: &[u128] = &[0x0200_0000_0002, 0x0200_0000_0102, 0x0200_0000_0103];
const TYPES: &[u128] = &[2, 1, 3, 5, 6, 7, 8];

fn fields() -> Vec<(Expression, Sort)> {
    use Expression as E;
    let number = Sort::Number;
    let (v4, v6) = (Sort::Address(Family::Ipv4), Sort::Address(Family::Ipv6));
    vec![
        (E::IpDestination, v4),
        (E::IpSource, v4),
        (E::Ip6Destination, v6),
        (E::Ip6Source, v6),
        (E::DestinationPort(Some(6)), Sort::Port),
        (E::SourcePort(Some(17)), Sort::Port),
        (E::DestinationPort(Some(17)), Sort::Port),
        (E::SourcePort(Some(6)), Sort::Port),
        (E::DestinationPort(None), Sort::Port),
        (E::SourcePort(None), Sort::Port),
        (E::Iifname, Sort::Name),
        (E::Oifname, Sort::Name),
        (E::L4proto, number(PROTOCOLS)),
        (E::Nfproto, number(&[2, 10])),
        (E::Mark, number(MARKS)),
        (E::Length, number(LENGTHS)),
        (E::Pkttype, number(&[0, 1, 2, 3])),
        (E::IpProtocol, number(PROTOCOLS)),
        (E::IpTtl, number(TTLS)),
        (E::IpDscp, number(DSCPS)),
        (E::IpLength, number(LENGTHS)),
        (E::Ip6NextHeader, number(PROTOCOLS)),
        (E::Ip6HopLimit, number(TTLS)),
        (E::Ip6Dscp, number(DSCPS)),
        (E::TcpFlags, number(FLAGS)),
        (E::IcmpType, number(ICMP)),
        (E::IcmpCode, number(CODES)),
        (E::Icmp6Type, number(ICMP6)),
        (E::Icmp6Code, number(CODES)),
        (E::EtherSource, number(MACS)),
        (E::EtherDestination, number(MACS)),
        (E::CtState, number(STATES)),
        (E::CtStatus, number(STATUS)),
        (E::CtDirection, number(&[0, 1])),
        (E::CtMark, number(MARKS)),
        (E::CtAddress(Direction::Original, false), v4),
        (E::CtAddress(Direction::Original, true), v6),
        (E::CtAddress(Direction::Reply, false), v4),
        (E::CtAddress(Direction::Reply, true), v4),
        (E::CtPort(Direction::Original, true), Sort::Port),
        (E::CtPort(Direction::Reply, false), Sort::Port),
        (E::CtPort(Direction::Reply, true), Sort::Port),
    ]
}

fn lookups() -> Vec<(Expression, Sort)> {
    let words = |list: &[&str]| list.iter().map(|w| (*w).to_owned()).collect::<Vec<_>>();
    let mut all = Vec::new();
    for list in [
        &["daddr"][..],
        &["saddr"],
        &["daddr", "iif"],
        &["saddr", "oif"],
        &["saddr", "iif"],
        &["saddr", "mark", "iif"],
    ] {
        all.push((Expression::Fib(FibResult::Type, words(list)), Sort::Number(TYPES)));
        all.push((Expression::Fib(FibResult::Oif, words(list)), Sort::Number(&[0, 1, 2, 3])));
        all.push((Expression::Fib(FibResult::Oifname, words(list)), Sort::Name));
    }
    all
}

fn chosen(list: Vec<(Expression, Sort)>) -> impl Strategy<Value = (Expression, Sort)> + Clone {
    select(list)
}

fn one() -> BoxedStrategy<(Expression, Sort)> {
    let numgen = (1..4_u32, 0..2_u32, any::<bool>()).prop_map(|(modulus, offset, incremental)| {
        (Expression::Numgen { modulus, offset, incremental }, Sort::Number(&[0, 1, 2, 3]))
    });
    prop_oneof![30 => chosen(fields()), 5 => chosen(lookups()), 1 => numgen].boxed()
}

/// An expression made of others by bits and shifts.
fn computed() -> BoxedStrategy<(Expression, Sort)> {
    use Expression as E;
    let numbers: Vec<_> =
        fields().into_iter().filter(|(_, s)| matches!(s, Sort::Number(_) | Sort::Port)).collect();
    let addresses: Vec<_> = fields().into_iter().filter(|(_, s)| matches!(s, Sort::Address(_))).collect();
    let constant = |n: u128| Box::new(E::Constant(n));
    let masks = select(vec![1_u128, 3, 0xf, 0xff, 0xff00, 0xffff_ff00, u128::MAX]);
    prop_oneof![
        3 => (chosen(addresses), masks.clone())
            .prop_map(move |((e, s), mask)| (E::And(Box::new(e), constant(mask)), s)),
        3 => (chosen(numbers.clone()), masks.clone(), 0..3_u8).prop_map(move |((e, s), mask, how)| {
            let e = Box::new(e);
            (match how {
                0 => E::And(e, constant(mask)),
                1 => E::Or(e, constant(mask & 0xff)),
                _ => E::Xor(e, constant(mask & 0xff)),
            }, s)
        }),
        1 => (chosen(numbers.clone()), select(vec![0_u8, 1, 4, 8, 16]), any::<bool>()).prop_map(
            |((e, s), by, left)| {
                let e = Box::new(e);
                (if left { E::ShiftLeft(e, by) } else { E::ShiftRight(e, by) }, s)
            }
        ),
        1 => (chosen(numbers), (element_of(Sort::Port), element_of(Sort::Port)), any::<bool>()).prop_map(
            |((e, _), (a, b), named)| {
                let pairs = vec![
                    (a, vec![Atom::Range(1, 1)]),
                    (b, vec![Atom::Range(2, 2)]),
                    (vec![Atom::Range(6, 40)], vec![Atom::Range(0x10, 0x10)]),
                ];
                let map = if named { NftMap::Named("ports".into()) } else { NftMap::Elements(pairs) };
                (E::Map(Box::new(e), Box::new(map)), Sort::Number(MARKS))
            }
        ),
    ]
    .boxed()
}

fn atom(sort: Sort) -> BoxedStrategy<Atom> {
    match sort {
        Sort::Name => select(vec![
            ("eth0", false),
            ("eth1", false),
            ("br0", false),
            ("lo", false),
            ("eth", true),
            ("", false),
        ])
        .prop_map(|(name, prefix)| Atom::Name(name.into(), prefix))
        .boxed(),
        Sort::Address(family) => prop_oneof![
            3 => address(family).prop_map(|a| Atom::Range(bits(a), bits(a))),
            3 => prefix(family).prop_map(|n| Atom::Range(bits(n.network()), bits(n.broadcast()))),
            1 => address_range(family).prop_map(|(a, b)| Atom::Range(bits(a), bits(b))),
        ]
        .boxed(),
        Sort::Port => ports().prop_map(|r| Atom::Range(r.low.into(), r.high.into())).boxed(),
        Sort::Number(list) => prop_oneof![
            5 => select(list).prop_map(|n| Atom::Range(n, n)),
            1 => (select(list), select(list)).prop_map(|(a, b)| Atom::Range(a.min(b), a.max(b))),
        ]
        .boxed(),
    }
}

fn element_of(sort: Sort) -> BoxedStrategy<NftElement> {
    atom(sort).prop_map(|a| vec![a]).boxed()
}

fn concatenation() -> BoxedStrategy<(Expression, Vec<Sort>)> {
    vec(one(), 2..4)
        .prop_map(|parts| {
            let (expressions, sorts) = parts.into_iter().unzip();
            (Expression::Concat(expressions), sorts)
        })
        .boxed()
}

/// An expression: a field of the packet, of its frame or connection, a
/// question to the routes, or something computed of them.
///
/// ```
/// # use proptest::{prelude::*, strategy::ValueTree, test_runner::TestRunner};
/// use lab_core::strategies::expression;
/// println!("{:?}", expression().new_tree(&mut TestRunner::deterministic())?.current());
/// # Ok::<(), proptest::test_runner::Reason>(())
/// ```
pub fn expression() -> impl Strategy<Value = Expression> {
    prop_oneof![4 => one(), 1 => computed()].prop_map(|(expression, _)| expression)
}

/// An element of sets with addresses, the key that `nets` and `ends` of
/// [`super::nft_table`] are asked by: `true` for address and port.
///
/// ```
/// # use proptest::{prelude::*, strategy::ValueTree, test_runner::TestRunner};
/// use lab_core::strategies::element;
/// let pair = element(true).new_tree(&mut TestRunner::deterministic())?.current();
/// assert_eq!(pair.len(), 2);
/// # Ok::<(), proptest::test_runner::Reason>(())
/// ```
pub fn element(with_port: bool) -> BoxedStrategy<NftElement> {
    let net = atom(Sort::Address(Family::Ipv4));
    match with_port {
        false => net.prop_map(|a| vec![a]).boxed(),
        true => (net, atom(Sort::Port)).prop_map(|(a, p)| vec![a, p]).boxed(),
    }
}

/// An nft condition: an expression compared with values, ranges, sets in place
/// and by name.
///
/// ```
/// # use proptest::{prelude::*, strategy::ValueTree, test_runner::TestRunner};
/// use lab_core::strategies::nft_match;
/// println!("{:?}", nft_match().new_tree(&mut TestRunner::deterministic())?.current());
/// # Ok::<(), proptest::test_runner::Reason>(())
/// ```
pub fn nft_match() -> BoxedStrategy<NftMatch> {
    let equal = || prop_oneof![3 => Just(Comparison::Equal), 1 => Just(Comparison::NotEqual)];
    let plain = prop_oneof![8 => one(), 3 => computed()].boxed();
    let single = plain.prop_flat_map(move |(left, sort)| {
        let ordered = match sort {
            Sort::Name => equal().boxed(),
            _ => prop_oneof![
                6 => equal(),
                2 => select(vec![
                    Comparison::Less, Comparison::LessOrEqual, Comparison::Greater,
                    Comparison::GreaterOrEqual, Comparison::AnyBit, Comparison::NoBit,
                ]),
            ]
            .boxed(),
        };
        (Just(left), ordered, vec(element_of(sort), 1..4)).prop_map(|(left, comparison, mut elements)| {
            if !matches!(comparison, Comparison::Equal | Comparison::NotEqual) {
                elements.truncate(1);
                if let [Atom::Range(low, high)] = elements[0].as_mut_slice() {
                    *high = *low;
                }
            }
            NftMatch { left, comparison, right: NftSetRef::Elements(elements) }
        })
    });
    let several = concatenation().prop_flat_map(move |(left, sorts)| {
        let parts: Vec<_> = sorts.into_iter().map(atom).collect();
        (Just(left), equal(), vec(parts, 1..4)).prop_map(|(left, comparison, elements)| NftMatch {
            left,
            comparison,
            right: NftSetRef::Elements(elements),
        })
    });
    let pairs = vec![
        (Expression::IpSource, "nets"),
        (Expression::IpDestination, "nets"),
        (Expression::Concat(vec![Expression::IpDestination, Expression::DestinationPort(None)]), "ends"),
        (Expression::Concat(vec![Expression::IpSource, Expression::DestinationPort(Some(6))]), "ends"),
        (Expression::IpSource, "changing"),
    ];
    let named = (select(pairs), equal()).prop_map(|((left, name), comparison)| NftMatch {
        left,
        comparison,
        right: NftSetRef::Named(name.into()),
    });
    prop_oneof![8 => single, 2 => several, 2 => named].boxed()
}

/// A key for verdicts, and elements for it.
pub(super) fn keyed() -> BoxedStrategy<(Expression, Vec<NftElement>)> {
    let single = one().prop_flat_map(|(key, sort)| (Just(key), vec(element_of(sort), 1..4)));
    let several = concatenation().prop_flat_map(|(key, sorts)| {
        let parts: Vec<_> = sorts.into_iter().map(atom).collect();
        (Just(key), vec(parts, 1..4))
    });
    prop_oneof![4 => single, 1 => several].boxed()
}

/// Whether elements lie apart, as those of a map must.
pub(super) fn apart(elements: &[NftElement]) -> bool {
    let meet = |a: &Atom, b: &Atom| match (a, b) {
        (Atom::Range(a, b), Atom::Range(c, d)) => a <= d && c <= b,
        (Atom::Name(a, true), Atom::Name(b, _)) | (Atom::Name(b, _), Atom::Name(a, true)) => b.starts_with(a),
        (a, b) => a == b,
    };
    elements
        .iter()
        .enumerate()
        .all(|(i, one)| elements[..i].iter().all(|other| !one.iter().zip(other).all(|(a, b)| meet(a, b))))
}
