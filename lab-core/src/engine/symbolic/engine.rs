//! The symbolic engine's state, and what every stage needs: splitting flows by
//! diagrams, and ending them.

use std::collections::{BTreeSet, HashMap};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;

use super::chain::{ChainLeaves, Leaf, RuleId, TableChains};
use super::compile::Compiler;
use super::flow::{Ending, Flow, Passed};
use crate::addr::Family;
use crate::model::{
    Chain, Decision, HopDirection, Host, Interface, Lab, Part, Place, Rule, RuleRef, Stage, Statement,
    Target, Verdict,
};
use crate::semantics::sets::Sets;
use crate::space::{Error, Field, Mapping, Names, Ref, Source, Store};

/// Every packet at once, in one lab.
///
/// Diagrams of chains and routes are made when first needed and kept.
pub struct Symbolic<'a> {
    /// The lab.
    pub lab: &'a Lab,
    /// Diagrams of matches and routes.
    pub sets: Sets,
    pub(super) leaves: ChainLeaves,
    tables: HashMap<(String, usize), TableChains>,
    bases: HashMap<(String, usize, usize), Base>,
    /// Which hosts track connections, by family.
    pub(super) tracked: HashMap<(String, Family), bool>,
    /// What connection tracking makes of packets of which it knows nothing.
    pub(super) tracking: Option<Ref>,
    pub(super) out: Vec<Flowed>,
    /// How many parts flows may come to, in all.
    pub limit: usize,
    pub(super) steps: Vec<super::walk::Step<'a>>,
    /// The rules that decided about some packet, where that is watched.
    watched: Option<BTreeSet<RuleRef>>,
}

/// A base chain, ready to be asked.
#[derive(Clone, Copy, Debug)]
pub(super) struct Base {
    /// By the rule that decides.
    pub whole: Ref,
    /// The same, but who accepts is not told.
    pub verdicts: Ref,
}

/// Packets whose way has ended.
#[derive(Clone, Debug)]
pub struct Flowed {
    /// The packets, and what became of them.
    pub flow: Flow,
    /// How it ended.
    pub ending: Ending,
    /// Whether they went round until their TTL ran out.
    pub looped: bool,
}

/// So many addresses are asked about one by one.
const FEW: usize = 64;

/// The most parts that the flows of a question come to.
const LIMIT: usize = 200_000;

impl<'a> Symbolic<'a> {
    /// An engine for a lab.
    pub fn new(lab: &'a Lab) -> Self {
        Symbolic {
            lab,
            sets: Sets::default(),
            leaves: ChainLeaves::default(),
            tables: HashMap::new(),
            bases: HashMap::new(),
            tracked: HashMap::new(),
            tracking: None,
            out: Vec::new(),
            limit: LIMIT,
            steps: Vec::new(),
            watched: None,
        }
    }

    /// The diagrams.
    pub fn store(&mut self) -> &mut Store {
        &mut self.sets.store
    }

    /// The numbers that interface names have in the diagrams.
    pub fn names(&mut self) -> &mut Names {
        &mut self.sets.names
    }

    /// A table of a host and its compiled chains.
    fn with_table<T>(
        &mut self,
        host: &'a Host,
        table: usize,
        then: impl FnOnce(&mut Compiler) -> Result<T, Error>,
    ) -> Result<T, Error> {
        let key = (host.name.clone(), table);
        let mut chains = self.tables.remove(&key).unwrap_or_default();
        let Some(model) = host.ruleset.tables.get(table) else { return Err(Error::Foreign) };
        let mut compiler = Compiler {
            host,
            table: model,
            sets: &mut self.sets,
            leaves: &mut self.leaves,
            chains: &mut chains,
        };
        let result = then(&mut compiler);
        self.tables.insert(key, chains);
        result
    }

    /// A base chain as diagrams.
    pub(super) fn base(&mut self, host: &'a Host, table: usize, chain: usize) -> Result<Base, Error> {
        let key = (host.name.clone(), table, chain);
        if let Some(known) = self.bases.get(&key) {
            return Ok(*known);
        }
        let (whole, verdicts) = self.with_table(host, table, |compiler| {
            let whole = compiler.base(chain)?;
            let verdicts = compiler.verdicts(whole)?;
            Ok((whole, verdicts))
        })?;
        let base = Base { whole, verdicts };
        self.bases.insert(key, base);
        Ok(base)
    }

    /// A base chain's diagram: each leaf names the rule that decides
    /// ([`Symbolic::leaf`]).
    ///
    /// # Errors
    /// If the diagrams outgrow their budget.
    pub fn chain_diagram(&mut self, host: &'a Host, table: usize, chain: usize) -> Result<Ref, Error> {
        self.base(host, table, chain).map(|b| b.whole)
    }

    /// Watches from now on which rules decide about the packets asked about.
    pub fn watch_rules(&mut self) {
        self.watched.get_or_insert_with(BTreeSet::new);
    }

    /// Notes the rules of a base chain that decide about packets of a flow.
    pub(super) fn watch(
        &mut self,
        host: &Host,
        (table, chain): (usize, usize),
        flow: &Flow,
        mapping: &Mapping,
        whole: Ref,
    ) -> Result<(), Error> {
        if self.watched.is_none() {
            return Ok(());
        }
        let told = self.sets.store.pull_back(flow.set, whole, mapping)?;
        let Some(base) = host.ruleset.tables.get(table).and_then(|t| t.chains.get(chain)) else {
            return Ok(());
        };
        let ids: Vec<RuleId> =
            self.sets.store.leaves(told).into_iter().filter_map(|l| self.leaves.value(l)?.rule).collect();
        for id in ids {
            let rule = self.rule_ref(host, table, base, id);
            if let (Some(watched), Some(rule)) = (&mut self.watched, rule) {
                watched.insert(RuleRef { base: Default::default(), ..rule });
            }
        }
        Ok(())
    }

    /// The rules that decided about some packet since they are watched, and
    /// those rules of the lab with a verdict of their own that decided about
    /// none.
    pub fn watched_rules(&self) -> (BTreeSet<RuleRef>, Vec<RuleRef>) {
        let covered = self.watched.clone().unwrap_or_default();
        let mut uncovered = Vec::new();
        for host in self.lab.all_hosts() {
            for table in &host.ruleset.tables {
                for chain in &table.chains {
                    for (place, _) in chain.rules.iter().enumerate().filter(|(_, r)| decides(r)) {
                        let mut named = RuleRef::of(host, table, chain, chain, Some(place + 1));
                        named.base = Default::default();
                        if !covered.contains(&named) {
                            uncovered.push(named);
                        }
                    }
                }
            }
        }
        (covered, uncovered)
    }

    /// The diagrams of a chain's rules, in order, where each rule alone decides.
    ///
    /// # Errors
    /// If the diagrams outgrow their budget.
    pub fn rule_diagrams(&mut self, host: &'a Host, table: usize, chain: usize) -> Result<Vec<Ref>, Error> {
        self.with_table(host, table, |compiler| compiler.parts(chain))
    }

    /// What a leaf of a chain's diagram stands for.
    pub fn leaf(&self, leaf: u32) -> Option<&Leaf> {
        self.leaves.value(leaf)
    }

    /// A rule by its id.
    pub fn rule_ref(&self, host: &Host, table: usize, base: &Chain, id: RuleId) -> Option<RuleRef> {
        let model = host.ruleset.tables.get(table)?;
        let (chain, number) = self.tables.get(&(host.name.clone(), table))?.place(id)?;
        Some(RuleRef::of(host, model, base, model.chains.get(chain)?, number))
    }

    /// Why oracles of a table's diagrams are unknown: those that a diagram
    /// depends on.
    pub(super) fn doubts(&self, host: &Host, table: usize, diagram: Ref) -> Vec<String> {
        let Some(chains) = self.tables.get(&(host.name.clone(), table)) else { return Vec::new() };
        let name = host.ruleset.tables.get(table).map_or("", |t| t.name.as_str());
        self.sets
            .store
            .oracles(diagram)
            .into_iter()
            .filter_map(|n| chains.oracles.get(n as usize))
            .map(|why| format!("{}, {name} {why}", host.name))
            .collect()
    }

    /// Splits a flow by a diagram of the packets as they are now: for each
    /// leaf but 0 the packets that may come to it, whatever is not known.
    pub(super) fn split(
        &mut self,
        flow: &Flow,
        diagram: Ref,
        mapping: &Mapping,
        doubts: &dyn Fn(&Self, Ref) -> Vec<String>,
    ) -> Result<Vec<(u32, Flow)>, Error> {
        let told = self.sets.store.pull_back(flow.set, diagram, mapping)?;
        let plain = flow.fresh.is_none() && self.sets.store.oracles(told).is_empty();
        let mut parts = Vec::new();
        let mut why = Vec::new();
        for leaf in self.sets.store.leaves(told) {
            let set = self.sets.store.where_leaf(told, &|l| l == leaf)?;
            if plain {
                parts.push((leaf, flow.part(set)));
                continue;
            }
            if why.is_empty() {
                why = doubts(self, told);
            }
            let may = self.may(flow, set)?;
            parts.push((leaf, flow.part(may).possibly(&why)));
        }
        if parts.len() + self.out.len() > self.limit {
            return Err(Error::Parts { most: self.limit });
        }
        Ok(parts)
    }

    /// Where a set holds for some value of what is not known.
    fn may(&mut self, flow: &Flow, set: Ref) -> Result<Ref, Error> {
        let fresh = |p: u32| p >> 5 == Field::FreshPort.word() as u32;
        let store = &mut self.sets.store;
        let inside = match flow.fresh {
            None => set,
            Some(range) => {
                let ports = store.range(Field::FreshPort, range.low.into(), range.high.into())?;
                store.guard(set, ports)?
            }
        };
        store.forget(inside, &|p| crate::space::is_oracle(p) || fresh(p), true)
    }

    /// Splits a flow by a set of the packets as they are now: those in it,
    /// and those not.
    pub(super) fn divide(&mut self, flow: Flow, set: Ref) -> Result<(Vec<Flow>, Vec<Flow>), Error> {
        if set.is_none() {
            return Ok((Vec::new(), vec![flow]));
        }
        let both = self.sets.store.choose(set, Ref::leaf(1), Ref::leaf(2))?;
        let mapping = flow.mapping();
        let (mut inside, mut outside) = (Vec::new(), Vec::new());
        for (leaf, part) in self.split(&flow, both, &mapping, &|_, _| Vec::new())? {
            if leaf == 1 {
                inside.push(part);
            } else {
                outside.push(part);
            }
        }
        Ok((inside, outside))
    }

    /// Splits a flow by what a function says about an address as it is now,
    /// which may change only where one of these prefixes begins or ends.
    pub(super) fn by_address<T: PartialEq + Clone>(
        &mut self,
        flow: &Flow,
        source: Source,
        prefixes: impl FnOnce() -> Vec<IpNet>,
        mut tell: impl FnMut(IpAddr) -> T,
    ) -> Result<Vec<(T, Flow)>, Error> {
        let v6 = flow.family(&self.sets.store) == Some(Family::Ipv6);
        let whole = address(source.value, v6);
        if source.mask == u128::MAX {
            return Ok(vec![(tell(whole), flow.clone())]);
        }
        let family = if v6 { Family::Ipv6 } else { Family::Ipv4 };
        // Which values there are at all.
        let field = source.field;
        let store = &mut self.sets.store;
        let values = store.values_of(flow.set, field)?;
        let mut short = Mapping::default();
        if !v6 {
            // An IPv4 address has no low bits.
            short.set(field, Source { field, mask: u128::MAX >> 32, value: 0 });
        }
        let told = store.pull_back(Ref::ALL, values, &short)?;
        // A few addresses are asked about one by one.
        let few = store.intervals(told, field, if v6 { 128 } else { 32 }).and_then(|ranges| {
            let unit = if v6 { 1 } else { 1 << 96 };
            let mut all: Vec<IpNet> = Vec::new();
            for (low, high) in ranges {
                for step in 0..=(high - low) / unit {
                    if all.len() == FEW {
                        return None;
                    }
                    all.push(IpNet::from(address(source.of(low + step * unit), v6)));
                }
            }
            Some(all)
        });
        let mut prefixes: Vec<IpNet> = few
            .unwrap_or_else(prefixes)
            .into_iter()
            .filter(|net| Family::of(net.addr()) == family)
            .map(|net| net.trunc())
            .collect();
        prefixes.sort_by_key(|net| (std::cmp::Reverse(net.prefix_len()), net.addr()));
        prefixes.dedup();
        let mut left = values;
        let mut groups: Vec<(T, Vec<Ref>)> = Vec::new();
        for net in prefixes.into_iter().map(Some).chain([None]) {
            let atom = match net {
                Some(net) => {
                    let mut is = Mapping::default();
                    is.set(Field::Dst, source);
                    let prefix = store.in_prefix(Field::Dst, net)?;
                    store.pull_back(left, prefix, &is)?
                }
                None => left,
            };
            let Some(example) = store.example(atom) else { continue };
            left = store.without(left, atom)?;
            let told = tell(address(source.of(example.get(field)), v6));
            match groups.iter_mut().find(|(known, _)| *known == told) {
                Some((_, atoms)) => atoms.push(atom),
                None => groups.push((told, vec![atom])),
            }
        }
        let mut parts = Vec::new();
        for (told, atoms) in groups {
            let atoms = store.first_of(&atoms)?;
            let set = store.guard(flow.set, atoms)?;
            if !set.is_none() {
                parts.push((told, flow.part(set)));
            }
        }
        Ok(parts)
    }

    /// Notes an interface passed.
    pub(super) fn hop(&mut self, flow: &mut Flow, host: &Host, device: &Interface, direction: HopDirection) {
        let at = Place { host: host.name.clone(), iface: device.name.clone() };
        flow.note(Passed::Hop(at, direction));
    }

    /// The way of a flow ends.
    pub(super) fn end(&mut self, flow: Flow, ending: Ending) {
        self.out.push(Flowed { flow, ending, looped: false });
    }

    /// It is dropped at a stage.
    pub(super) fn dropped(&mut self, flow: Flow, host: &str, stage: Stage) {
        let flow = match &stage {
            Stage::Unmodelled(what) => flow.claimless(&[format!("{host}: {what}")]),
            _ => flow,
        };
        self.end(flow, Ending::Dropped(Decision::Stage { host: host.to_owned(), stage }));
    }

    /// It is refused at a stage, and whoever sent it may be told.
    pub(super) fn refused_at(&mut self, flow: Flow, host: &str, stage: Stage) {
        self.end(flow, Ending::Rejected(Decision::Stage { host: host.to_owned(), stage }));
    }

    /// What of a host the snapshot leaves out and packets of this family need.
    pub(super) fn untold(&self, flow: Flow, host: &Host, family: Family) -> Flow {
        let routes = match family {
            Family::Ipv4 => Part::Routes4,
            Family::Ipv6 => Part::Routes6,
        };
        let things = host.unmodelled.iter().filter(|u| !u.stands_apart());
        let mut why: Vec<String> =
            things.map(|item| format!("{}: {} ({})", host.name, item.what, item.origin)).collect();
        for part in [Part::Links, Part::Addresses, routes] {
            if host.unknown.contains(&part) {
                why.push(format!("{}: the {part} are not in the snapshot", host.name));
            }
        }
        flow.claimless(&why)
    }

    /// One flow for each of several things that may be true of the lab, though
    /// the snapshot does not tell; but what a flow supposed before holds for
    /// all of its way.
    pub(super) fn suppose<T>(flow: &Flow, ways: Vec<T>, what: &str) -> Vec<(T, Flow)> {
        if ways.len() < 2 {
            return Self::either(flow, ways, what);
        }
        let known = flow.supposed.iter().find(|(known, _)| known == what).map(|(_, way)| *way);
        let parted = Self::either(flow, ways, what).into_iter().enumerate();
        parted
            .filter(|(way, _)| known.is_none_or(|known| known == *way))
            .map(|(way, (value, mut flow))| {
                if known.is_none() {
                    flow.supposed.push((what.to_owned(), way));
                }
                (value, flow)
            })
            .collect()
    }

    /// One flow for each of several ways, by chance or by what is not told.
    pub(super) fn either<T>(flow: &Flow, ways: Vec<T>, why: &str) -> Vec<(T, Flow)> {
        let one = ways.len() == 1;
        ways.into_iter()
            .map(|way| {
                let flow = flow.clone();
                (way, if one { flow } else { flow.possibly(&[why.to_owned()]) })
            })
            .collect()
    }
}

/// Whether a rule has a verdict of its own, and not only a jump or a mark.
pub fn decides(rule: &Rule) -> bool {
    rule.statements.iter().any(|s| {
        matches!(
            s,
            Statement::Target(
                Target::Verdict(Verdict::Accept | Verdict::Drop)
                    | Target::Reject(_)
                    | Target::Nat { .. }
                    | Target::Netmap(_)
            )
        )
    })
}

/// An address from the bits of an address field.
pub(super) fn address(bits: u128, v6: bool) -> IpAddr {
    match v6 {
        true => IpAddr::V6(Ipv6Addr::from_bits(bits)),
        false => IpAddr::V4(Ipv4Addr::from_bits((bits >> 96) as u32)),
    }
}

/// An address as a constant.
pub(super) fn constant_address(field: Field, address: IpAddr) -> Source {
    let bits = match address {
        IpAddr::V4(a) => u128::from(a.to_bits()) << 96,
        IpAddr::V6(a) => a.to_bits(),
    };
    Source::constant(field, bits)
}
