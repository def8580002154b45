//! iptables rule sets.

use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use proptest::sample::select;

use super::condition::condition;
use super::target::{target, Site};
use crate::addr::Family;
use crate::formats::iptables::{parse, print};
use crate::model::{
    Backend, BaseChain, Chain, ChainKind, Hook, Origin, Owner, Policy, Rule, Statement, Table, TableFamily,
    Text,
};

/// The most rules of a chain.
const RULES: usize = 4;

pub(super) fn rule_of(statements: Vec<Statement>) -> Rule {
    Rule {
        statements,
        text: Text::default(),
        comment: None,
        counters: None,
        handle: None,
        origin: Origin::default(),
        owner: Owner::User,
    }
}

/// A rule for a chain that stands there and may jump to these chains.
///
/// ```
/// # use proptest::{prelude::*, strategy::ValueTree, test_runner::TestRunner};
/// use lab_core::addr::Family;
/// use lab_core::strategies::{chain_rule, Site};
/// let rule = chain_rule(Family::Ipv4, Site::Filter, &[]);
/// println!("{:?}", rule.new_tree(&mut TestRunner::deterministic())?.current());
/// # Ok::<(), proptest::test_runner::Reason>(())
/// ```
pub fn chain_rule(family: Family, site: Site, chains: &[&'static str]) -> BoxedStrategy<Rule> {
    let conditions = prop_oneof![1 => vec(condition(family), 0..1), 5 => vec(condition(family), 1..2), 2 => vec(condition(family), 2..3)];
    (conditions, option::weighted(0.97, target(family, site, chains)))
        .prop_map(|(conditions, target)| {
            let conditions = conditions.into_iter().map(Statement::Match);
            rule_of(conditions.chain(target.map(Statement::Target)).collect())
        })
        .boxed()
}

pub(super) fn chain(name: &str, base: Option<BaseChain>, rules: Vec<Rule>) -> Chain {
    Chain { name: name.into(), base, rules, counters: None, handle: None, origin: Origin::default() }
}

/// The base chains of a table: name, hook, priority, and what rules there may
/// do.
fn bases(name: &str) -> Vec<(&'static str, Hook, i32, Site)> {
    use Hook::{Forward, Input, Output, Postrouting, Prerouting};
    let of = |priority: i32, site: Site, hooks: &[(&'static str, Hook)]| {
        hooks.iter().map(|(name, hook)| (*name, *hook, priority, site)).collect::<Vec<_>>()
    };
    match name {
        "raw" => of(-300, Site::Raw, &[("PREROUTING", Prerouting), ("OUTPUT", Output)]),
        "mangle" => of(
            -150,
            Site::Mangle,
            &[
                ("PREROUTING", Prerouting),
                ("INPUT", Input),
                ("FORWARD", Forward),
                ("OUTPUT", Output),
                ("POSTROUTING", Postrouting),
            ],
        ),
        "nat" => vec![
            ("PREROUTING", Prerouting, -100, Site::Destination),
            ("INPUT", Input, 100, Site::Source),
            ("OUTPUT", Output, -100, Site::Destination),
            ("POSTROUTING", Postrouting, 100, Site::Leaving),
        ],
        _ => of(0, Site::Filter, &[("INPUT", Input), ("FORWARD", Forward), ("OUTPUT", Output)]),
    }
}

/// The chain of that table that rules of others may jump to, and one below.
fn chains(site: Site) -> (&'static str, &'static str) {
    match site {
        Site::Destination => ("to", "to-more"),
        Site::Leaving | Site::Source => ("from", "from-more"),
        _ => ("web", "more"),
    }
}

/// The table as the tool prints and reads it, with texts and origins.
fn read(table: Table, family: Family) -> Table {
    let text = print(std::slice::from_ref(&table), false);
    match parse("iptables.save", text, family).map(|tables| tables.into_iter().next()) {
        Ok(Some(read)) => Table { backend: table.backend, ..read },
        // What cannot be read back goes as it is.
        _ => table,
    }
}

/// One of iptables' tables (`raw`, `mangle`, `nat`, `filter`), with chains of
/// its own that rules jump to.
///
/// ```
/// # use proptest::{prelude::*, strategy::ValueTree, test_runner::TestRunner};
/// use lab_core::addr::Family;
/// use lab_core::strategies::table;
/// let nat = table(Family::Ipv4, "nat").new_tree(&mut TestRunner::deterministic())?.current();
/// assert!(nat.chain("POSTROUTING").is_some());
/// # Ok::<(), proptest::test_runner::Reason>(())
/// ```
pub fn table(family: Family, name: &'static str) -> BoxedStrategy<Table> {
    let bases = bases(name);
    let mut own: Vec<(&'static str, &'static str, Site)> = Vec::new();
    for (_, _, _, site) in &bases {
        let (upper, lower) = chains(*site);
        if !own.iter().any(|(u, ..)| *u == upper) {
            // What is jumped to from INPUT must not masquerade.
            own.push((upper, lower, if *site == Site::Leaving { Site::Source } else { *site }));
        }
    }
    let mut filled: Vec<BoxedStrategy<Chain>> = Vec::new();
    for (title, hook, priority, site) in bases {
        let (upper, lower) = chains(site);
        let kind = if name == "nat" { ChainKind::Nat } else { ChainKind::Filter };
        let kind = if name == "mangle" && hook == Hook::Output { ChainKind::Route } else { kind };
        let policy = match name {
            "filter" => prop_oneof![3 => Just(Policy::Accept), 1 => Just(Policy::Drop)].boxed(),
            _ => Just(Policy::Accept).boxed(),
        };
        let rules = vec(chain_rule(family, site, &[upper, lower]), 0..RULES);
        filled.push(
            (rules, policy)
                .prop_map(move |(rules, policy)| {
                    chain(title, Some(BaseChain { kind, hook, priority, policy }), rules)
                })
                .boxed(),
        );
    }
    for (upper, lower, site) in own {
        let rules = vec(chain_rule(family, site, &[lower]), 0..RULES);
        filled.push(rules.prop_map(move |rules| chain(upper, None, rules)).boxed());
        let rules = vec(chain_rule(family, site, &[]), 0..3);
        filled.push(rules.prop_map(move |rules| chain(lower, None, rules)).boxed());
    }
    (filled, select(vec![Backend::Nft, Backend::Legacy]))
        .prop_map(move |(chains, backend)| {
            let table = Table {
                backend,
                family: if family == Family::Ipv4 { TableFamily::Ip } else { TableFamily::Ip6 },
                name: name.into(),
                xtables: true,
                chains,
                sets: Vec::new(),
                unmodelled: Vec::new(),
                origin: Origin::default(),
            };
            read(table, family)
        })
        .boxed()
}

/// Some of iptables' tables of a family, as `iptables-save` would list them.
///
/// ```
/// # use proptest::{prelude::*, strategy::ValueTree, test_runner::TestRunner};
/// use lab_core::addr::Family;
/// use lab_core::strategies::ruleset;
/// let tables = ruleset(Family::Ipv6).new_tree(&mut TestRunner::deterministic())?.current();
/// assert!(tables.len() <= 4);
/// # Ok::<(), proptest::test_runner::Reason>(())
/// ```
pub fn ruleset(family: Family) -> BoxedStrategy<Vec<Table>> {
    let some = |odds, name| option::weighted(odds, table(family, name));
    (some(0.3, "raw"), some(0.5, "mangle"), some(0.6, "nat"), some(0.6, "filter"))
        .prop_map(|(raw, mangle, nat, filter)| {
            let mut tables: Vec<Table> = [raw, mangle, nat, filter].into_iter().flatten().collect();
            // One save file has one machinery behind it.
            if let Some(backend) = tables.first().map(|t| t.backend) {
                tables.iter_mut().for_each(|t| t.backend = backend);
            }
            tables
        })
        .boxed()
}
