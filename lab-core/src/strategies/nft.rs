//! nft tables.

use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use proptest::sample::select;

use super::address::{address, port};
use super::condition::mark;
use super::expression::{apart, bits, element, expression, keyed, nft_match};
use super::iptables::{chain, rule_of};
use crate::addr::{Family, PortRange};
use crate::model::{
    Atom, Backend, BaseChain, Chain, ChainKind, Direction, Expression, Hook, Mangle, Match, NatAddress,
    NatKind, NatRange, NftMap, NftSet, NftType, Origin, Policy, RejectWith, Rule, Statement, Table,
    TableFamily, Target, Verdict,
};

/// The most rules of a chain.
const RULES: usize = 4;

fn verdict(chains: &[&'static str]) -> BoxedStrategy<Verdict> {
    let mut verdicts =
        vec![Verdict::Accept, Verdict::Accept, Verdict::Drop, Verdict::Return, Verdict::Continue];
    for chain in chains {
        verdicts.extend([Verdict::Jump((*chain).into()), Verdict::Goto((*chain).into())]);
    }
    select(verdicts).boxed()
}

fn verdict_map(chains: &[&'static str]) -> BoxedStrategy<Target> {
    // The last chain must not come back to itself by the map of that name.
    let name = if chains.is_empty() { "ends-here" } else { "verdicts" };
    let verdicts = verdict(chains);
    let placed = (keyed(), vec(verdicts, 3..4))
        .prop_filter("elements of a map lie apart", |((_, elements), _)| apart(elements))
        .prop_map(|((key, elements), verdicts)| Target::VerdictMap {
            key,
            elements: elements.into_iter().zip(verdicts).collect(),
            name: None,
        });
    let port = select(vec![Expression::DestinationPort(Some(6)), Expression::DestinationPort(None)]);
    let named =
        port.prop_map(|key| Target::VerdictMap { key, elements: Vec::new(), name: Some(name.into()) });
    prop_oneof![3 => placed, 1 => named].boxed()
}

fn mangle() -> BoxedStrategy<Target> {
    use Expression as E;
    let number = |list: &'static [u128]| select(list).prop_map(E::Constant).boxed();
    let changed = |own: Expression, other: Expression| {
        mark().prop_flat_map(move |(value, mask)| {
            let (own, other) = (own.clone(), other.clone());
            let kept = E::And(Box::new(own.clone()), Box::new(E::Constant((!mask).into())));
            select(vec![
                E::Or(Box::new(kept), Box::new(E::Constant(value.into()))),
                other.clone(),
                E::Xor(Box::new(own), Box::new(E::Constant(value.into()))),
                E::Constant(value.into()),
                E::Map(Box::new(E::DestinationPort(Some(6))), Box::new(NftMap::Named("ports".into()))),
            ])
        })
    };
    prop_oneof![
        3 => changed(E::Mark, E::CtMark).prop_map(|e| Target::Mangle(Mangle::Mark, e)),
        2 => changed(E::CtMark, E::Mark).prop_map(|e| Target::Mangle(Mangle::CtMark, e)),
        1 => number(&[64, 1, 0, 255]).prop_map(|e| Target::Mangle(Mangle::IpTtl, e)),
        1 => number(&[64, 1, 0, 255]).prop_map(|e| Target::Mangle(Mangle::Ip6HopLimit, e)),
        1 => number(&[0, 1, 46, 63]).prop_map(|e| Target::Mangle(Mangle::IpDscp, e)),
        1 => number(&[0, 1, 46, 63]).prop_map(|e| Target::Mangle(Mangle::Ip6Dscp, e)),
    ]
    .boxed()
}

fn nat(kind: NatKind) -> BoxedStrategy<Target> {
    use NatKind::{Masquerade, Redirect};
    let ports = option::of(port()).prop_map(|p| p.map(PortRange::from)).boxed();
    let plain = (super::family().prop_flat_map(address), ports.clone()).prop_map(|(address, ports)| {
        NatRange { address: Some(NatAddress::Range(address, address)), ports, ..NatRange::default() }
    });
    let mapped = ports.clone().prop_map(|ports| NatRange {
        address: Some(NatAddress::Computed(Expression::Map(
            Box::new(Expression::DestinationPort(Some(6))),
            Box::new(NftMap::Named("servers".into())),
        ))),
        ports,
        ..NatRange::default()
    });
    let range = match kind {
        Masquerade | Redirect => ports.prop_map(|ports| NatRange { ports, ..NatRange::default() }).boxed(),
        _ => prop_oneof![3 => plain, 1 => mapped].boxed(),
    };
    range.prop_map(move |range| Target::Nat { kind, range }).boxed()
}

fn reject() -> BoxedStrategy<Target> {
    select(vec![
        RejectWith::Icmpx(1),
        RejectWith::TcpReset,
        RejectWith::Icmpx(0),
        RejectWith::Icmpx(2),
        RejectWith::Icmpx(3),
        RejectWith::Icmp(3),
        RejectWith::Icmp6(4),
    ])
    .prop_map(Target::Reject)
    .boxed()
}

fn target(
    kind: ChainKind,
    hook: Option<Hook>,
    early: bool,
    chains: &[&'static str],
) -> BoxedStrategy<Target> {
    let general = prop_oneof![
        6 => verdict(chains).prop_map(Target::Verdict),
        3 => verdict_map(chains),
        1 => any::<bool>().prop_map(|over| Target::Limit { over }),
        1 => Just(Target::NoEffect { name: "counter".into(), options: String::new() }),
    ]
    .boxed();
    let to = nat(NatKind::Dnat);
    match (kind, hook) {
        (ChainKind::Nat, Some(Hook::Prerouting | Hook::Output)) => {
            prop_oneof![2 => general, 3 => to, 1 => nat(NatKind::Redirect)].boxed()
        }
        (ChainKind::Nat, Some(Hook::Postrouting)) => {
            prop_oneof![2 => general, 2 => nat(NatKind::Snat), 2 => nat(NatKind::Masquerade)].boxed()
        }
        (ChainKind::Nat, Some(_)) => prop_oneof![2 => general, 1 => nat(NatKind::Snat)].boxed(),
        (_, Some(Hook::Input | Hook::Forward | Hook::Output)) => {
            prop_oneof![6 => general, 2 => reject(), 3 => mangle()].boxed()
        }
        _ if early => {
            let zone = select(vec![None, Some(Direction::Original), Some(Direction::Reply)]);
            prop_oneof![
                4 => general,
                1 => Just(Target::Notrack { legacy: false }),
                1 => (0..3_u16, zone).prop_map(|(zone, direction)| Target::CtZone { zone, direction }),
                1 => mangle(),
                1 => Just(Target::Unmodelled { name: "queue".into(), text: "queue".into() }),
            ]
            .boxed()
        }
        _ => prop_oneof![6 => general, 3 => mangle()].boxed(),
    }
}

fn rule(kind: ChainKind, hook: Option<Hook>, early: bool, chains: &[&'static str]) -> BoxedStrategy<Rule> {
    let condition = prop_oneof![
        15 => nft_match().prop_map(|m| Match::Nft(Box::new(m))),
        1 => Just(Match::Unmodelled { name: "osf".into(), text: "osf name linux".into() }),
    ];
    // What is changed first is seen by the conditions after it.
    let before = option::weighted(0.15, mangle());
    (before, vec(condition, 0..3), target(kind, hook, early, chains))
        .prop_map(|(before, conditions, target)| {
            let conditions = conditions.into_iter().map(Statement::Match);
            let before = before.map(Statement::Target).into_iter();
            rule_of(before.chain(conditions).chain([Statement::Target(target)]).collect())
        })
        .boxed()
}

fn base(
    name: &'static str,
    kind: ChainKind,
    hook: Hook,
    priorities: Vec<i32>,
    chains: &'static [&'static str],
) -> BoxedStrategy<Chain> {
    let policy = match kind {
        ChainKind::Filter => prop_oneof![4 => Just(Policy::Accept), 1 => Just(Policy::Drop)].boxed(),
        _ => Just(Policy::Accept).boxed(),
    };
    (select(priorities), policy)
        .prop_flat_map(move |(priority, policy)| {
            let early = priority < -200;
            vec(rule(kind, Some(hook), early, chains), 0..RULES)
                .prop_map(move |rules| chain(name, Some(BaseChain { kind, hook, priority, policy }), rules))
        })
        .boxed()
}

fn set(name: &str, types: Vec<NftType>) -> NftSet {
    NftSet {
        name: name.into(),
        types,
        elements: Vec::new(),
        values: Vec::new(),
        verdicts: Vec::new(),
        dynamic: false,
        text: String::new(),
        unmodelled: String::new(),
    }
}

fn sets() -> BoxedStrategy<Vec<NftSet>> {
    let port = |n: u128| vec![Atom::Range(n, n)];
    let servers = vec(address(Family::Ipv4), 2..3);
    let verdicts = |chains| vec(verdict(chains), 3..4);
    (vec(element(false), 0..5), vec(element(true), 0..5), servers, verdicts(&["late"]), verdicts(&[]))
        .prop_map(move |(nets, ends, servers, verdicts, plain)| {
            let keys = vec![port(80), vec![Atom::Range(1000, 2000)], port(22)];
            vec![
                NftSet { elements: nets, ..set("nets", vec![NftType::Ipv4]) },
                NftSet { elements: ends, ..set("ends", vec![NftType::Ipv4, NftType::Port]) },
                NftSet { dynamic: true, ..set("changing", vec![NftType::Ipv4]) },
                NftSet {
                    elements: vec![port(80), vec![Atom::Range(1000, 2000)], port(22)],
                    values: vec![port(1), port(2), port(3)],
                    ..set("ports", vec![NftType::Port])
                },
                NftSet {
                    elements: vec![port(80), port(22)],
                    values: servers.iter().map(|a| port(bits(*a))).collect(),
                    ..set("servers", vec![NftType::Port])
                },
                NftSet { elements: keys.clone(), verdicts, ..set("verdicts", vec![NftType::Port]) },
                NftSet { elements: keys, verdicts: plain, ..set("ends-here", vec![NftType::Port]) },
            ]
        })
        .boxed()
}

/// A table of nft's own, of family `inet`, with chains at some hooks, named
/// sets, maps and verdict maps, and chains that rules go to.
///
/// ```
/// # use proptest::{prelude::*, strategy::ValueTree, test_runner::TestRunner};
/// use lab_core::strategies::nft_table;
/// let table = nft_table().new_tree(&mut TestRunner::deterministic())?.current();
/// assert!(table.set("nets").is_some());
/// # Ok::<(), proptest::test_runner::Reason>(())
/// ```
pub fn nft_table() -> BoxedStrategy<Table> {
    use ChainKind::{Filter, Nat, Route};
    const ALL: &[&str] = &["early", "late"];
    let plain = (expression(), any::<bool>());
    let below = plain.prop_flat_map(|(left, _)| {
        let rules = vec(rule(Filter, None, false, &["late"]), 0..3);
        (Just(left), rules).prop_map(|(left, mut rules)| {
            // An expression is asked once, whatever its kind.
            let any = crate::model::NftMatch {
                left,
                comparison: crate::model::Comparison::NotEqual,
                right: crate::model::NftSetRef::Elements(vec![vec![Atom::Range(1, 1)]]),
            };
            let go = Statement::Target(Target::Verdict(Verdict::Continue));
            rules.push(rule_of(vec![Statement::Match(Match::Nft(Box::new(any))), go]));
            chain("early", None, rules)
        })
    });
    let last = vec(rule(Filter, None, false, &[]), 0..3).prop_map(|rules| chain("late", None, rules));
    let maybe = |odds, chain| option::weighted(odds, chain);
    let bases = (
        maybe(0.6, base("pre", Filter, Hook::Prerouting, vec![-300, -150, 0], ALL)),
        maybe(0.5, base("in", Filter, Hook::Input, vec![0, -10, 200], ALL)),
        maybe(0.6, base("forward", Filter, Hook::Forward, vec![0, -150], ALL)),
        maybe(0.3, base("out", Filter, Hook::Output, vec![0, -300], ALL)),
        maybe(0.3, base("post", Filter, Hook::Postrouting, vec![0, 150], ALL)),
        maybe(0.4, base("dstnat", Nat, Hook::Prerouting, vec![-100, -90], &["late"])),
        maybe(0.4, base("srcnat", Nat, Hook::Postrouting, vec![100, 110], &["late"])),
        maybe(0.2, base("outnat", Nat, Hook::Output, vec![-100], &["late"])),
        maybe(0.1, base("innat", Nat, Hook::Input, vec![100], &["late"])),
        maybe(0.3, base("route", Route, Hook::Output, vec![-150], ALL)),
    );
    (bases, below, last, sets())
        .prop_map(|((a, b, c, d, e, f, g, h, i, j), below, last, sets)| {
            let bases = [a, b, c, d, e, f, g, h, i, j].into_iter().flatten();
            Table {
                backend: Backend::Nft,
                family: TableFamily::Inet,
                name: "lab".into(),
                xtables: false,
                chains: bases.chain([below, last]).collect(),
                sets,
                unmodelled: Vec::new(),
                origin: Origin::default(),
            }
        })
        .boxed()
}
