use proptest::prelude::*;

use super::store::Ref as R;
use super::*;

/// A set as a diagram and as a truth table over twelve bits that lie in two
/// words, seven in one and five in the next.
const BITS: u32 = 12;

fn place(bit: u32) -> u32 {
    if bit < 7 {
        Field::Tos.bit(1) + bit
    } else {
        Field::Ttl.bit(0) + bit - 7
    }
}

fn assignment(n: u32) -> Header {
    let mut header = Header::default();
    for bit in 0..BITS {
        if n >> bit & 1 == 1 {
            let at = place(bit);
            header.0[(at >> 5) as usize] |= 1 << (31 - (at & 31));
        }
    }
    header
}

#[derive(Clone, Debug)]
enum Term {
    Cube(u32, u32),
    Or(Box<Term>, Box<Term>),
    And(Box<Term>, Box<Term>),
    Less(Box<Term>, Box<Term>),
    Not(Box<Term>),
}

fn term() -> impl Strategy<Value = Term> {
    let cube = (0..1_u32 << BITS, 0..1_u32 << BITS).prop_map(|(m, v)| Term::Cube(m, v));
    cube.prop_recursive(5, 40, 2, |inner| {
        let pair = (inner.clone(), inner.clone());
        prop_oneof![
            pair.clone().prop_map(|(a, b)| Term::Or(a.into(), b.into())),
            pair.clone().prop_map(|(a, b)| Term::And(a.into(), b.into())),
            pair.prop_map(|(a, b)| Term::Less(a.into(), b.into())),
            inner.prop_map(|a| Term::Not(a.into())),
        ]
    })
}

fn holds(term: &Term, n: u32) -> bool {
    match term {
        Term::Cube(mask, value) => n & mask == value & mask,
        Term::Or(a, b) => holds(a, n) || holds(b, n),
        Term::And(a, b) => holds(a, n) && holds(b, n),
        Term::Less(a, b) => holds(a, n) && !holds(b, n),
        Term::Not(a) => !holds(a, n),
    }
}

fn diagram(store: &mut Store, term: &Term) -> Result<R, Error> {
    Ok(match term {
        Term::Cube(mask, value) => {
            let mut parts = Vec::new();
            for bit in (0..BITS).filter(|b| mask >> b & 1 == 1) {
                let one = store.bit(place(bit))?;
                parts.push(store.invert_if(one, value >> bit & 1 == 0)?);
            }
            // Any order of merging must give the same diagram.
            if value & 1 == 0 {
                parts.reverse();
            }
            store.all_of(&parts)?
        }
        Term::Or(a, b) => {
            let (a, b) = (diagram(store, a)?, diagram(store, b)?);
            store.or_else(a, b)?
        }
        Term::And(a, b) => {
            let (a, b) = (diagram(store, a)?, diagram(store, b)?);
            store.guard(a, b)?
        }
        Term::Less(a, b) => {
            let (a, b) = (diagram(store, a)?, diagram(store, b)?);
            store.without(a, b)?
        }
        Term::Not(a) => {
            let a = diagram(store, a)?;
            store.not(a)?
        }
    })
}

/// The same set, built bit by bit from its truth table.
fn from_table(store: &mut Store, table: &dyn Fn(u32) -> bool) -> Result<R, Error> {
    fn build(store: &mut Store, bit: u32, n: u32, table: &dyn Fn(u32) -> bool) -> Result<R, Error> {
        if bit == BITS {
            return Ok(if table(n) { R::ALL } else { R::NONE });
        }
        let then = build(store, bit + 1, n | 1 << bit, table)?;
        let els = build(store, bit + 1, n, table)?;
        store.run(place(bit), 1, 1, then, els)
    }
    build(store, 0, 0, table)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn operations_agree_with_truth_tables_and_equal_sets_are_one_diagram(term in term()) {
        let mut store = Store::default();
        let set = diagram(&mut store, &term).unwrap();
        for n in 0..1 << BITS {
            prop_assert_eq!(store.lookup(set, &assignment(n)) == 1, holds(&term, n), "{:b}", n);
        }
        let again = from_table(&mut store, &|n| holds(&term, n)).unwrap();
        prop_assert_eq!(set, again);
    }

    #[test]
    fn forgetting_and_pulling_back_agree_with_truth_tables(
        term in term(),
        mask in 0..1_u32 << BITS,
        value in 0..1_u32 << BITS,
        inside in term(),
    ) {
        let mut store = Store::default();
        let set = diagram(&mut store, &term).unwrap();
        let inside_set = diagram(&mut store, &inside).unwrap();
        let hit = |p: u32| (0..BITS).any(|b| mask >> b & 1 == 1 && place(b) == p);
        let some = store.forget(set, &hit, true).unwrap();
        let every = store.forget(set, &hit, false).unwrap();
        let mut mapping = Mapping::default();
        let bits = |field: Field, of: u32| {
            let width = field.width();
            (0..BITS).filter(|b| of >> b & 1 == 1).fold(0_u128, |n, b| {
                let at = place(b);
                let base = field.bit(0);
                if at >= base && at < base + width { n | 1 << (base + width - 1 - at) } else { n }
            })
        };
        for field in [Field::Tos, Field::Ttl] {
            mapping.set(field, Source { field, mask: bits(field, mask), value: bits(field, value & mask) });
        }
        let pulled = store.pull_back(inside_set, set, &mapping).unwrap();
        let image = store.overwrite(set, Field::Tos, bits(Field::Tos, mask), bits(Field::Tos, value)).unwrap();
        let tos = mask & 0x7f;
        for n in 0..1_u32 << BITS {
            let at = assignment(n);
            // Every value of the forgotten bits.
            let mut sub = mask;
            let mut values = vec![holds(&term, n & !mask)];
            while sub != 0 {
                values.push(holds(&term, n & !mask | sub));
                sub = (sub - 1) & mask;
            }
            prop_assert_eq!(store.lookup(some, &at) == 1, values.contains(&true));
            prop_assert_eq!(store.lookup(every, &at) == 1, !values.contains(&false));
            let before = holds(&inside, n) && holds(&term, n & !mask | value & mask);
            prop_assert_eq!(store.lookup(pulled, &at) == 1, before);
            let mut sub = tos;
            let mut origins = vec![holds(&term, n & !tos)];
            while sub != 0 {
                origins.push(holds(&term, n & !tos | sub));
                sub = (sub - 1) & tos;
            }
            prop_assert_eq!(store.lookup(image, &at) == 1, n & tos == value & tos && origins.contains(&true));
        }
    }

    #[test]
    fn edits_of_a_list_give_what_building_anew_gives(
        start in prop::collection::vec(term(), 0..12),
        edits in prop::collection::vec((any::<prop::sample::Index>(), prop::option::of(term())), 1..30),
    ) {
        let mut store = Store::default();
        let mut list: Vec<R> = Vec::new();
        for (leaf, term) in start.iter().enumerate() {
            let set = diagram(&mut store, term).unwrap();
            list.push(store.guard(set, R::leaf(leaf as u32 + 1)).unwrap());
        }
        let merge: editor::Merge = &mut |s: &mut Store, a, b| s.or_else(a, b);
        let mut segments = Segments::build(&mut store, &list, merge).unwrap();
        for (number, (index, edit)) in edits.iter().enumerate() {
            let index = index.index(list.len() + 1);
            match edit {
                Some(term) => {
                    let set = diagram(&mut store, term).unwrap();
                    let item = store.guard(set, R::leaf(100 + number as u32)).unwrap();
                    list.insert(index, item);
                    segments.insert(&mut store, index, item, merge).unwrap();
                }
                None if index < list.len() => {
                    list.remove(index);
                    segments.remove(&mut store, index, merge).unwrap();
                }
                None => {}
            }
            prop_assert_eq!(segments.len(), list.len());
            let anew = store.first_of(&list).unwrap();
            prop_assert_eq!(segments.value(), anew);
            if number % 7 == 3 {
                store.collect(list.iter_mut().chain(segments.roots()));
            }
        }
    }

    #[test]
    fn counts_examples_and_covers_agree(
        boxes in prop::collection::vec((0_u8..4, 0_u8..4, 0_u8..3, 0_u16..4, any::<bool>()), 1..6)
    ) {
        let space = Space::default();
        let mut set = space.none().unwrap();
        for (src, dst, protocol, port, out) in boxes {
            let net = |n: u8| format!("10.0.0.{}/{}", n * 64, 24 + n).parse().unwrap();
            let mut part = space.src(net(src)).unwrap().intersection(&space.dst(net(dst)).unwrap()).unwrap();
            if protocol > 0 {
                let number = [0, 6, 17][usize::from(protocol)];
                part = part.intersection(&space.protocol(number).unwrap()).unwrap();
                part = part.intersection(&space.dport(port * 10, port * 20).unwrap()).unwrap();
            }
            set = if out { set.difference(&part).unwrap() } else { set.union(&part).unwrap() };
        }
        let (lines, whole) = set.cover(500).unwrap();
        prop_assert!(whole);
        let mut again = space.none().unwrap();
        for line in &lines {
            again = again.union(&line.to_set(&space).unwrap()).unwrap();
        }
        prop_assert!(again.equals(&set).unwrap());
        match set.example() {
            Some(packet) => prop_assert!(set.contains(&packet)),
            None => prop_assert!(set.is_empty()),
        }
        let rest = set.complement().unwrap();
        prop_assert_eq!(rest.count() + set.count(), space.all().unwrap().count());
        let text = serde_json::to_string(&set).unwrap();
        let back: PacketSet = serde_json::from_str(&text).unwrap();
        prop_assert!(set.equals(&back).unwrap());
    }
}

#[test]
fn a_test_of_an_address_is_one_node() {
    let mut store = Store::default();
    store.is_address(Field::Dst, "10.1.2.3".parse().unwrap()).unwrap();
    // 32 bits that are in, and the 96 that IPv4 does not have.
    assert!(store.len() <= 4, "{}", store.len());
}

#[test]
fn a_budget_that_is_used_up_is_an_error() {
    let mut store = Store::new(10);
    let wide = store.range(Field::Dport, 1, 60_001);
    assert_eq!(wide, Err(Error::Budget { nodes: 10 }));
}

#[test]
fn what_is_no_packet_set_is_refused() {
    for text in [
        r#"{"nodes":[[0,33,0,0,2]],"root":1}"#,
        r#"{"nodes":[[0,1,1,1,2]],"root":1}"#,
        r#"{"nodes":[[64,1,1,0,2],[64,1,1,1,2]],"root":3}"#,
        r#"{"nodes":[],"root":4}"#,
        r#"{"nodes":[[4294967295,32,0,0,2]],"root":1}"#,
    ] {
        assert!(serde_json::from_str::<PacketSet>(text).is_err(), "{text}");
    }
}
