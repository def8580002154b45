//! What matches are as sets, and the leaves that sets have.

use std::hash::{Hash, Hasher};

use crate::addr::Family;
use crate::engine::stepper::tests::build::Build;
use crate::formats::iptables;
use crate::model::{Match, Statement};
use crate::semantics::sets::{Leaves, Plain, Sets, Site};

fn condition(text: &str) -> Match {
    let family = if text.contains(':') { Family::Ipv6 } else { Family::Ipv4 };
    let rules = format!("*filter\n:FORWARD ACCEPT [0:0]\n-A FORWARD {text} -j DROP\nCOMMIT\n");
    let tables = iptables::parse("iptables.save", rules, family).unwrap();
    let statements = tables[0].chains[0].rules[0].statements.iter();
    let mut conditions = statements.filter_map(|s| match s {
        Statement::Match(condition) => Some(condition.clone()),
        Statement::Target(_) => None,
    });
    conditions.next_back().unwrap()
}

/// Rules by the thousand are put together from conjunctions.
#[test]
fn what_most_rules_ask_is_one_conjunction() {
    let mut lab = Build::line();
    lab.rules("router", "*filter\n:FORWARD ACCEPT [0:0]");
    let host = &lab.lab.hosts["router"];
    let at = Site { host, table: &host.ruleset.tables[0], raw: false };
    for (text, plain) in [
        ("-s 10.0.1.0/24", Some(true)),
        ("-s 10.0.0.2/255.0.0.255", Some(true)),
        ("! -d 10.0.2.2", Some(false)),
        ("-s fd01::/64", Some(true)),
        ("! -d fd02::2", Some(false)),
        ("-i eth0", Some(true)),
        ("! -o eth1", Some(false)),
        ("-p tcp", Some(true)),
        ("! -p udp", Some(false)),
        ("-p tcp -m tcp --dport 80", Some(true)),
        ("-p tcp -m tcp --sport 9 --dport 80", Some(true)),
        ("-p udp -m udp --sport 53", Some(true)),
        ("-p sctp -m sctp --dport 9", Some(true)),
        ("-m comment --comment x", Some(true)),
        ("-i eth+", None),
        ("-p tcp -m tcp --dport 80:81", None),
        ("-p udp -m udp ! --dport 80", None),
        ("-p tcp -m tcp --tcp-flags SYN SYN", None),
        ("-m mark --mark 1", None),
    ] {
        let mut sets = Sets::default();
        let (condition, found) = (condition(text), sets.plain(&condition(text)));
        let holds = sets.condition(&condition, at).unwrap();
        let told = match found {
            Some(Plain::Is(cube)) => Some((true, sets.store.cube(&cube, false).unwrap())),
            Some(Plain::IsNot(cube)) => Some((false, sets.store.cube(&cube, true).unwrap())),
            None => None,
        };
        assert_eq!(told, plain.map(|is| (is, holds)), "{text}");
    }
}

/// A value whose hash says nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Alike(u32);

impl Hash for Alike {
    fn hash<H: Hasher>(&self, state: &mut H) {
        (self.0 % 3).hash(state);
    }
}

#[test]
fn each_value_has_one_leaf_whatever_its_hash() {
    let mut leaves = Leaves::default();
    let first: Vec<_> = (0..300).map(|n| leaves.leaf(Alike(n))).collect();
    let again: Vec<_> = (0..300).map(|n| leaves.leaf(Alike(n))).collect();
    assert_eq!(first, again);
    for (n, leaf) in (0..300).zip(first) {
        assert_eq!(leaf.value().and_then(|leaf| leaves.value(leaf)), Some(&Alike(n)));
    }
    assert_eq!((leaves.value(0), leaves.value(301)), (None, None));
}
