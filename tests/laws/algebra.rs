//! What must be true of sets whatever they are.

use lab_core::space::{Field, PacketSet, Space};
use lab_core::strategies::{family, ports, prefix};
use proptest::prelude::*;

use crate::runner;

#[derive(Clone, Debug)]
enum Term {
    Dst(ipnet::IpNet),
    Src(ipnet::IpNet),
    Ports(u16, u16, bool),
    Protocol(u8),
    Either(Box<Term>, Box<Term>),
    Both(Box<Term>, Box<Term>),
    Without(Box<Term>, Box<Term>),
}

fn term() -> impl Strategy<Value = Term> {
    let net = || family().prop_flat_map(prefix);
    let plain = prop_oneof![
        net().prop_map(Term::Dst),
        net().prop_map(Term::Src),
        (ports(), any::<bool>()).prop_map(|(r, dst)| Term::Ports(r.low, r.high, dst)),
        proptest::sample::select(vec![6_u8, 17, 1, 58, 132]).prop_map(Term::Protocol),
    ];
    plain.prop_recursive(4, 16, 2, |inner| {
        let pair = (inner.clone(), inner);
        prop_oneof![
            pair.clone().prop_map(|(a, b)| Term::Either(a.into(), b.into())),
            pair.clone().prop_map(|(a, b)| Term::Both(a.into(), b.into())),
            pair.prop_map(|(a, b)| Term::Without(a.into(), b.into())),
        ]
    })
}

fn made(term: &Term, space: &Space) -> PacketSet {
    match term {
        Term::Dst(net) => space.dst(*net),
        Term::Src(net) => space.src(*net),
        Term::Ports(low, high, true) => space.dport(*low, *high),
        Term::Ports(low, high, false) => space.sport(*low, *high),
        Term::Protocol(number) => space.protocol(*number),
        Term::Either(a, b) => made(a, space).union(&made(b, space)),
        Term::Both(a, b) => made(a, space).intersection(&made(b, space)),
        Term::Without(a, b) => made(a, space).difference(&made(b, space)),
    }
    .unwrap()
}

fn same(a: &PacketSet, b: &PacketSet) -> Result<(), TestCaseError> {
    prop_assert!(a.equals(b).unwrap(), "{a}\nis not\n{b}");
    prop_assert_eq!(a.count(), b.count());
    Ok(())
}

#[test]
fn union_intersection_and_difference_obey_their_algebra() {
    let laws = |(a, b, c): (Term, Term, Term)| {
        let space = Space::default();
        let (a, b, c) = (made(&a, &space), made(&b, &space), made(&c, &space));
        let or = |a: &PacketSet, b: &PacketSet| a.union(b).unwrap();
        let and = |a: &PacketSet, b: &PacketSet| a.intersection(b).unwrap();
        let not = |a: &PacketSet| a.complement().unwrap();
        same(&or(&or(&a, &b), &c), &or(&a, &or(&b, &c)))?;
        same(&and(&and(&a, &b), &c), &and(&a, &and(&b, &c)))?;
        same(&and(&a, &or(&b, &c)), &or(&and(&a, &b), &and(&a, &c)))?;
        same(&or(&a, &and(&b, &c)), &and(&or(&a, &b), &or(&a, &c)))?;
        same(&not(&or(&a, &b)), &and(&not(&a), &not(&b)))?;
        same(&not(&and(&a, &b)), &or(&not(&a), &not(&b)))?;
        same(&a.difference(&b).unwrap(), &and(&a, &not(&b)))?;
        same(&not(&not(&a)), &a)?;
        same(&or(&a, &and(&a, &b)), &a)?;
        prop_assert_eq!(or(&a, &b).count() + and(&a, &b).count(), a.count() + b.count());
        prop_assert_eq!(a.is_empty(), a.example().is_none());
        if let Some(example) = a.example() {
            prop_assert!(a.contains(&example));
        }
        Ok(())
    };
    runner(1000).run(&(term(), term(), term()), laws).unwrap();
}

#[test]
fn lines_describe_a_set_exactly() {
    let law = |term: Term| {
        let space = Space::default();
        let set = made(&term, &space);
        let (lines, whole) = set.cover(200).unwrap();
        let mut union = space.none().unwrap();
        for line in lines {
            union = union.union(&line.to_set(&space).unwrap()).unwrap();
        }
        prop_assert!(union.is_subset(&set).unwrap());
        prop_assert!(!whole || set.is_subset(&union).unwrap());
        Ok(())
    };
    runner(1001).run(&term(), law).unwrap();
}

/// Rewriting forward and backward fit: what becomes of `a` lies in `b` exactly
/// if `a` lies in what becomes one of `b`.
#[test]
fn rewriting_forward_and_backward_fit() {
    let fields = proptest::sample::select(vec![
        (Field::Dport, 0xffff, 80),
        (Field::Sport, 0xffff, 65535),
        (Field::Tos, 0xfc, 0xb8),
        (Field::Tos, 0xff, 0),
        (Field::Dst, u128::MAX << 96, 0x0a00_0202_u128 << 96),
        (Field::Dst, 0xffff_ff00_u128 << 96, 0x0a00_0200_u128 << 96),
        (Field::Src, u128::MAX << 96, 0x0a00_0101_u128 << 96),
    ]);
    let law = |(a, b, (field, mask, value)): (Term, Term, (Field, u128, u128))| {
        let space = Space::default();
        // Of one family and protocol, whose headers have every field.
        let v4 = space.family(lab_core::addr::Family::Ipv4).unwrap();
        let tcp = space.protocol(6).unwrap().intersection(&v4).unwrap();
        let a = made(&a, &space).intersection(&tcp).unwrap();
        let b = made(&b, &space).intersection(&tcp).unwrap();
        let forward = a.rewritten(field, mask, value).unwrap();
        let back = b.before_rewrite(field, mask, value).unwrap();
        prop_assert_eq!(forward.is_subset(&b).unwrap(), a.is_subset(&back).unwrap());
        // There is somebody in both exactly if there is somebody in both.
        let meets = !forward.intersection(&b).unwrap().is_empty();
        prop_assert_eq!(meets, !a.intersection(&back).unwrap().is_empty());
        // Twice is once.
        same(&forward.rewritten(field, mask, value).unwrap(), &forward)
    };
    runner(1002).run(&(term(), term(), fields), law).unwrap();
}
