//! What a chain's diagram says is what its rules do, and stays so by edits.

use std::collections::BTreeMap;

use lab_core::addr::Family;
use lab_core::engine::explore;
use lab_core::engine::journey::Event;
use lab_core::engine::stepper::{walk, Entry, World};
use lab_core::engine::symbolic::{ChainLeaves, Compiler, Symbolic, TableChains};
use lab_core::model::{Hook, Host, InterfaceKind, Lab, Place, Rule, Ruleset, Table};
use lab_core::semantics::sets::Sets;
use lab_core::space::{header, Field, Ref};
use lab_core::strategies::{chain_rule, ipsets, nic, packet_of, settings, table, Site};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::Index;

use crate::runner;

pub fn host() -> impl Strategy<Value = Host> {
    (settings(true), ipsets()).prop_map(|(settings, ipsets)| {
        let mut host = Host { name: "client".into(), ipsets, ..Host::default() };
        nic(&mut host, 0, "lo", InterfaceKind::Loopback, &["127.0.0.1/8"]);
        nic(&mut host, 0, "eth0", InterfaceKind::Veth, &["10.0.1.1/24"]);
        nic(&mut host, 0, "eth1", InterfaceKind::Veth, &["10.0.2.1/24"]);
        host.sysctls.0 = settings;
        host
    })
}

/// Before connection tracking all that a chain is told is known here.
#[test]
fn a_packet_comes_to_the_leaf_of_the_rule_that_stopped_it() {
    let certain = std::cell::Cell::new(0);
    let packets = vec(packet_of(Family::Ipv4), 20..21);
    let law = |(mut host, table, packets): (Host, Table, Vec<_>)| {
        host.ruleset = Ruleset { tables: vec![table] };
        let mut lab = Lab::default();
        lab.hosts.insert("client".into(), host.into());
        let host = &lab.hosts["client"];
        let base = host.ruleset.tables[0].chain("PREROUTING").unwrap();
        let number = host.ruleset.tables[0].chains.iter().position(|c| c.name == base.name).unwrap();
        let mut engine = Symbolic::new(&lab);
        let diagram = engine.chain_diagram(host, 0, number).unwrap();
        // Every packet comes to some leaf, and every leaf is of a rule.
        let everything = engine.store().where_leaf(diagram, &|leaf| leaf != 0).unwrap();
        prop_assert_eq!(everything, Ref::ALL);
        for leaf in engine.store().leaves(diagram) {
            let rule = engine.leaf(leaf).and_then(|l| l.rule);
            prop_assert!(rule.and_then(|id| engine.rule_ref(host, 0, base, id)).is_some());
        }
        let place = Place { host: "client".into(), iface: "eth0".into() };
        for packet in packets {
            let entry = Entry::Arrive(place.clone());
            let ways =
                explore::all(64, |choices| walk(&lab, &mut World::default(), choices, &entry, &packet));
            let runs = ways.results[0].events.iter().find_map(|e| match e {
                Event::Chain(run) if run.hook == Hook::Prerouting => Some(run),
                _ => None,
            });
            let Some(run) = runs.filter(|_| ways.results.len() == 1) else { continue };
            let mut known = header(&packet);
            known.set(Field::Iif, engine.sets.names.number("eth0").into());
            let mac = host.interface("eth0").unwrap().mac.unwrap();
            known.set(Field::DstMac, mac.0.iter().fold(1, |n, o| n << 8 | u128::from(*o)));
            known.set(Field::PortsTold, 1);
            known.set(Field::Ttl, packet.ttl.into());
            known.set(Field::Length, packet.length.into());
            let leaf = engine.store().lookup(diagram, &known);
            let id = engine.leaf(leaf).and_then(|l| l.rule).unwrap();
            let rule = engine.rule_ref(host, 0, base, id).unwrap();
            let step = run.steps.last().unwrap();
            prop_assert_eq!((&rule.chain, rule.rule), (&step.chain, step.rule), "{} {}", packet, &step.text);
            certain.set(certain.get() + 1);
        }
        Ok(())
    };
    runner(2000).run(&(host(), table(Family::Ipv4, "raw"), packets), law).unwrap();
    assert!(certain.get() > 2000, "{} certain", certain.get());
}

/// An edit: a rule put before a place of a chain, or taken out.
#[derive(Clone, Debug)]
struct Edit {
    chain: Index,
    place: Index,
    /// For a base chain, and for one that is called; none: a rule is taken out.
    rules: Option<(Rule, Rule)>,
}

fn edits(site: Site, chains: &[&'static str]) -> impl Strategy<Value = Vec<Edit>> {
    let family = Family::Ipv4;
    let rules = (chain_rule(family, site, chains), chain_rule(family, site, &[]));
    let edit = (any::<Index>(), any::<Index>(), proptest::option::weighted(0.7, rules));
    vec(edit.prop_map(|(chain, place, rules)| Edit { chain, place, rules }), 1..5)
}

fn bases(table: &Table) -> Vec<usize> {
    (0..table.chains.len()).filter(|i| table.chains[*i].base.is_some()).collect()
}

/// Diagrams whose leaves are numbers of what they mean: how the chain ends, by
/// which rule at which place, and what was changed.
fn meaning(
    diagrams: &[Ref],
    sets: &mut Sets,
    leaves: &ChainLeaves,
    chains: &TableChains,
    known: &mut BTreeMap<String, u32>,
) -> Vec<Ref> {
    let mut told = Vec::new();
    for diagram in diagrams {
        let one = sets.store.map_leaves(*diagram, &mut |leaf| {
            let meant =
                leaves.value(leaf).map(|l| (&l.end, l.rule.and_then(|id| chains.place(id)), &l.effects));
            let next = known.len() as u32 + 1;
            Ref::leaf(*known.entry(format!("{meant:?}")).or_insert(next))
        });
        told.push(one.unwrap());
    }
    told
}

fn edited_is_new(name: &'static str, site: Site, callee: &'static str, shard: u64) {
    let compared = std::cell::Cell::new(0);
    let law = |(host, table, edits): (Host, Table, Vec<Edit>)| {
        let (mut sets, mut leaves, mut chains) =
            (Sets::default(), ChainLeaves::default(), TableChains::default());
        let mut after = table.clone();
        let mut compiler = Compiler {
            host: &host,
            table: &table,
            sets: &mut sets,
            leaves: &mut leaves,
            chains: &mut chains,
        };
        for base in bases(&table) {
            compiler.base(base).unwrap();
        }
        for edit in edits {
            let chain = edit.chain.index(after.chains.len());
            let rules = &mut after.chains[chain].rules;
            match edit.rules {
                Some((calling, plain)) => {
                    let place = edit.place.index(rules.len() + 1);
                    let rule = if table.chains[chain].base.is_some() { calling } else { plain };
                    compiler.insert(chain, place, &rule).unwrap();
                    rules.insert(place, rule);
                }
                None if rules.is_empty() => {}
                None => {
                    let place = edit.place.index(rules.len());
                    compiler.remove(chain, place).unwrap();
                    rules.remove(place);
                }
            }
        }
        let edited: Vec<Ref> = bases(&table).iter().map(|b| compiler.base(*b).unwrap()).collect();
        let mut anew = TableChains::default();
        let mut compiler =
            Compiler { host: &host, table: &after, sets: &mut sets, leaves: &mut leaves, chains: &mut anew };
        let new: Vec<Ref> = bases(&after).iter().map(|b| compiler.base(*b).unwrap()).collect();
        // What cannot be known has other numbers in the two.
        if !chains.oracles.is_empty() || !anew.oracles.is_empty() {
            return Ok(());
        }
        compared.set(compared.get() + 1);
        let mut known = BTreeMap::new();
        let edited = meaning(&edited, &mut sets, &leaves, &chains, &mut known);
        let new = meaning(&new, &mut sets, &leaves, &anew, &mut known);
        prop_assert!(edited == new, "other leaves after edits");
        Ok(())
    };
    runner(shard).run(&(host(), table(Family::Ipv4, name), edits(site, &[callee])), law).unwrap();
    assert!(compared.get() > 40, "{} compared", compared.get());
}

#[test]
fn a_filter_table_that_was_edited_is_the_table_compiled_anew() {
    edited_is_new("filter", Site::Filter, "web", 3000);
}

#[test]
fn a_mangle_table_that_was_edited_is_the_table_compiled_anew() {
    edited_is_new("mangle", Site::Mangle, "web", 3001);
}

#[test]
fn a_raw_table_that_was_edited_is_the_table_compiled_anew() {
    edited_is_new("raw", Site::Raw, "web", 3002);
}
