//! Of two versions of a table just those packets are told that they treat
//! otherwise, with the rules that decide in either.

use lab_core::addr::Family;
use lab_core::engine::symbolic::{ChainLeaves, Comparison, Compiler, Leaf, TableChains, Version};
use lab_core::model::{Host, Policy, Rule, Table};
use lab_core::semantics::sets::Sets;
use lab_core::space::{header, Field, Header, Names};
use lab_core::strategies::{chain_rule, packet_of, table, Site};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::Index;

use crate::chains::host;
use crate::runner;

/// A change of a table.
#[derive(Clone, Debug)]
enum Step {
    Insert(Index, Index, Box<(Rule, Rule)>),
    Delete(Index, Index),
    Move(Index, Index, Index),
    Policy(Index),
}

fn steps(site: Site) -> impl Strategy<Value = Vec<Step>> {
    let rules = (chain_rule(Family::Ipv4, site, &["web"]), chain_rule(Family::Ipv4, site, &[]));
    let place = any::<Index>;
    vec(
        prop_oneof![
            3 => (place(), place(), rules).prop_map(|(c, p, rules)| Step::Insert(c, p, rules.into())),
            2 => (place(), place()).prop_map(|(c, p)| Step::Delete(c, p)),
            3 => (place(), place(), place()).prop_map(|(c, p, q)| Step::Move(c, p, q)),
            1 => place().prop_map(Step::Policy),
        ],
        0..5,
    )
}

fn changed(before: &Table, steps: Vec<Step>) -> Table {
    let mut table = before.clone();
    for step in steps {
        let chains = table.chains.len();
        match step {
            Step::Insert(chain, place, rules) => {
                let (calling, plain) = *rules;
                let chain = &mut table.chains[chain.index(chains)];
                let rule = if chain.base.is_some() { calling } else { plain };
                chain.rules.insert(place.index(chain.rules.len() + 1), rule);
            }
            Step::Delete(chain, place) => {
                let rules = &mut table.chains[chain.index(chains)].rules;
                if !rules.is_empty() {
                    rules.remove(place.index(rules.len()));
                }
            }
            Step::Move(chain, from, to) => {
                let rules = &mut table.chains[chain.index(chains)].rules;
                if !rules.is_empty() {
                    let rule = rules.remove(from.index(rules.len()));
                    rules.insert(to.index(rules.len() + 1), rule);
                }
            }
            Step::Policy(chain) => {
                if let Some(base) = &mut table.chains[chain.index(chains)].base {
                    base.policy = if base.policy == Policy::Accept { Policy::Drop } else { Policy::Accept };
                }
            }
        }
    }
    table
}

/// A version compiled whole.
struct Whole<'a> {
    version: Version<'a>,
    sets: Sets,
    leaves: ChainLeaves,
    chains: TableChains,
}

impl<'a> Whole<'a> {
    fn new(version: Version<'a>) -> Self {
        let (sets, leaves, chains) = Default::default();
        Whole { version, sets, leaves, chains }
    }

    /// What it does with a packet, and the place of the rule that decides.
    fn lookup(&mut self, base: usize, header: &Header) -> (String, Option<(usize, Option<usize>)>) {
        let Whole { version: Version { host, table }, sets, leaves, chains } = self;
        let whole = Compiler { host, table, sets, leaves, chains }.base(base).unwrap();
        let leaf = self.leaves.value(self.sets.store.lookup(whole, header)).unwrap();
        (deed(leaf), leaf.rule.and_then(|id| self.chains.place(id)))
    }

    /// A header whose interfaces have the numbers of these diagrams.
    fn renamed(&mut self, header: &Header, names: &Names) -> Header {
        let mut header = *header;
        for field in [Field::Iif, Field::Oif, Field::PhysIn, Field::PhysOut] {
            // A number without a name is an interface that no rule names.
            if let Some(name) = names.name(header.get(field) as u32) {
                header.set(field, self.sets.names.number(name).into());
            } else if header.get(field) != 0 {
                header.set(field, u32::MAX.into());
            }
        }
        header
    }
}

fn deed(leaf: &Leaf) -> String {
    format!("{:?} {:?}", leaf.end, leaf.effects)
}

fn law(name: &'static str, site: Site, shard: u64) {
    let (told, alike, parts) = (std::cell::Cell::new(0), std::cell::Cell::new(0), std::cell::Cell::new(0));
    let packets = vec((packet_of(Family::Ipv4), 0..3_u8), 30..31);
    let law = |(host, before, steps, packets): (Host, Table, Vec<Step>, Vec<_>)| {
        let after = changed(&before, steps);
        let mut comparison = Comparison::new(
            Some(Version { host: &host, table: &before }),
            Some(Version { host: &host, table: &after }),
        );
        let mut old = Whole::new(Version { host: &host, table: &before });
        let mut new = Whole::new(Version { host: &host, table: &after });
        let bases = (0..before.chains.len()).filter(|i| before.chains[*i].base.is_some());
        for base in bases {
            let differing = comparison.base(Some(base), Some(base)).unwrap();
            // Conditions that are not known count as false when looked up.
            if !comparison.doubts().is_empty() {
                continue;
            }
            let mut headers: Vec<Header> = Vec::new();
            for found in &differing {
                headers.extend(comparison.store().example(found.must));
                parts.set(parts.get() + 1);
            }
            headers.extend(packets.iter().map(|(packet, iface)| {
                let mut header = header(packet);
                header.set(Field::Iif, comparison.number(["eth0", "eth1", "lo"][usize::from(*iface)]).into());
                header.set(Field::PortsTold, 1);
                header.set(Field::Ttl, packet.ttl.into());
                header.set(Field::Length, packet.length.into());
                header
            }));
            for header in headers {
                let holding: Vec<_> =
                    differing.iter().filter(|d| comparison.store().lookup(d.may, &header) != 0).collect();
                let asked = old.renamed(&header, comparison.names());
                let (a, by_a) = old.lookup(base, &asked);
                let asked = new.renamed(&header, comparison.names());
                let (b, by_b) = new.lookup(base, &asked);
                let open = !old.chains.oracles.is_empty() || !new.chains.oracles.is_empty();
                match holding.as_slice() {
                    [one] => {
                        prop_assert_eq!((deed(&one.old), deed(&one.new)), (a, b));
                        prop_assert_eq!(one.old.rule.and_then(|id| comparison.old_place(id)), by_a);
                        prop_assert_eq!(one.new.rule.and_then(|id| comparison.new_place(id)), by_b);
                        told.set(told.get() + 1);
                    }
                    [] if open => {}
                    [] => {
                        prop_assert_eq!(a, b, "by {:?} and {:?}", by_a, by_b);
                        alike.set(alike.get() + 1);
                    }
                    several => prop_assert!(false, "{} ways at once", several.len()),
                }
            }
        }
        Ok(())
    };
    runner(shard).run(&(host(), table(Family::Ipv4, name), steps(site), packets), law).unwrap();
    assert!(told.get() > 300 && alike.get() > 3000 && parts.get() > 100, "{told:?} {alike:?} {parts:?}");
}

#[test]
fn packets_that_a_filter_table_treats_otherwise_are_told() {
    law("filter", Site::Filter, 4000);
}

#[test]
fn packets_that_a_mangle_table_treats_otherwise_are_told() {
    law("mangle", Site::Mangle, 4001);
}

#[test]
fn packets_that_a_raw_table_treats_otherwise_are_told() {
    law("raw", Site::Raw, 4002);
}
