//! How the tables of a host differ.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use super::edits::{ChainEdits, Fate};
use super::script::{same_rule, script};
use super::sets::{self, SetChanges};
use crate::model::{Backend, BaseChain, Chain, Change, Policy, Rule, Table, TableId};
use crate::query::what_if::{leads, names_ipset, names_set, new_table};
use crate::query::Error;

/// What turns some tables into others.
#[derive(Default)]
pub(super) struct TableChanges {
    pub chains: Vec<ChainEdits>,
    /// New sets, and rules that are in the way.
    pub first: Vec<Change>,
    /// The rest.
    pub then: Vec<Change>,
    pub unsaid: Vec<String>,
}

fn same_chain(a: &Chain, b: &Chain) -> bool {
    a.base == b.base && a.rules.len() == b.rules.len() && same_rules(&a.rules, &b.rules)
}

fn same_rules(a: &[Rule], b: &[Rule]) -> bool {
    // The same list, as hosts share theirs.
    std::ptr::eq(a, b) || a.iter().zip(b).all(|(a, b)| same_rule(a, b))
}

/// The chains of a table by name, made when it is first needed: mostly, chains
/// stand at the same places.
struct Names<'t> {
    table: &'t Table,
    index: Option<HashMap<&'t str, usize>>,
}

impl<'t> Names<'t> {
    fn of(table: &'t Table) -> Self {
        Names { table, index: None }
    }

    fn find(&mut self, name: &str, hint: usize) -> Option<&'t Chain> {
        let table = self.table;
        if let Some(chain) = table.chains.get(hint).filter(|c| c.name == *name) {
            return Some(chain);
        }
        let index = self.index.get_or_insert_with(|| {
            table.chains.iter().enumerate().map(|(at, c)| (c.name.as_str(), at)).collect()
        });
        index.get(name).and_then(|at| table.chains.get(*at))
    }
}

/// Two tables of one name.
struct Pair<'t> {
    id: TableId,
    a: &'t Table,
    b: &'t Table,
    /// IP sets that become others.
    ipsets: &'t BTreeSet<String>,
    changed: Vec<(Option<&'t Chain>, Option<&'t Chain>)>,
    sets: SetChanges,
}

/// Whether the chain must be made anew: a base chain cannot be moved.
fn is_rebased(a: Option<BaseChain>, b: Option<BaseChain>) -> bool {
    match (a, b) {
        (None, None) => false,
        (Some(a), Some(b)) => (a.kind, a.hook, a.priority) != (b.kind, b.hook, b.priority),
        _ => true,
    }
}

impl<'t> Pair<'t> {
    fn new(id: TableId, a: &'t Table, b: &'t Table, ipsets: &'t BTreeSet<String>) -> Self {
        let mut changed = Vec::new();
        let (mut in_a, mut in_b) = (Names::of(a), Names::of(b));
        for (hint, chain) in b.chains.iter().enumerate() {
            match in_a.find(&chain.name, hint) {
                Some(old) if same_chain(old, chain) && !ipsets_matter(old, ipsets) => {}
                old => changed.push((old, Some(chain))),
            }
        }
        for (hint, chain) in a.chains.iter().enumerate() {
            if in_b.find(&chain.name, hint).is_none() {
                changed.push((Some(chain), None));
            }
        }
        let mut sets = sets::of_tables(&id, a, b);
        // A chain may be equal and yet hold a rule that must go for a while.
        if !sets.redefined.is_empty() {
            for (hint, chain) in b.chains.iter().enumerate() {
                let Some(old) = in_a.find(&chain.name, hint) else { continue };
                let asks = |rule: &Rule| sets.redefined.iter().any(|name| names_set(rule, name));
                let known = !same_chain(old, chain) || ipsets_matter(old, ipsets);
                if !known && old.rules.iter().any(asks) {
                    changed.push((Some(old), Some(chain)));
                }
            }
        }
        sets.unsaid.extend(unmodelled(&id, a, b));
        Pair { id, a, b, ipsets, changed, sets }
    }

    /// The chains that are not what they were, by name.
    fn names(&self) -> HashSet<&'t str> {
        self.changed.iter().filter_map(|(a, b)| a.or(*b)).map(|c| c.name.as_str()).collect()
    }

    /// Jumps that are only in the old table, to chains that stay and change (or
    /// have such below): they go first. While a chain is half changed, only
    /// what led there before and still will may lead there: a kernel refuses
    /// circles, and targets where a packet may come from a hook that they are
    /// not for.
    fn jumps_in_the_way(&self) -> HashSet<(&'t str, &'t str)> {
        let mut edges: HashMap<&str, Vec<&str>> = HashMap::new();
        let mut new: HashSet<(&str, &str)> = HashSet::new();
        for (table, is_new) in [(self.a, false), (self.b, true)] {
            for chain in &table.chains {
                for to in chain.rules.iter().flat_map(|rule| leads(table, rule)) {
                    edges.entry(&chain.name).or_default().push(to);
                    if is_new {
                        new.insert((&chain.name, to));
                    }
                }
            }
        }
        let changed = self.names();
        let changes = |from: &'t str| {
            let (mut seen, mut open) = (HashSet::new(), vec![from]);
            while let Some(name) = open.pop() {
                if changed.contains(name) {
                    return true;
                }
                if seen.insert(name) {
                    open.extend(edges.get(name).into_iter().flatten());
                }
            }
            false
        };
        let mut found = HashSet::new();
        for chain in self.changed.iter().filter_map(|(old, _)| *old) {
            for to in chain.rules.iter().flat_map(|rule| leads(self.a, rule)) {
                let edge = (chain.name.as_str(), to);
                if !new.contains(&edge) && self.b.chain(to).is_some() && changes(to) {
                    found.insert(edge);
                }
            }
        }
        found
    }

    /// The changed chains of the new table, those first that others lead to.
    fn order(&self) -> Vec<(Option<&'t Chain>, &'t Chain)> {
        let changed: HashMap<&str, (Option<&'t Chain>, &'t Chain)> =
            self.changed.iter().filter_map(|(a, b)| b.map(|b| (b.name.as_str(), (*a, b)))).collect();
        let mut names = Names::of(self.b);
        let (mut seen, mut order) = (HashSet::new(), Vec::new());
        for start in self.changed.iter().filter_map(|(_, b)| *b) {
            // A chain is told when all below it are.
            let mut open = vec![(start, false)];
            while let Some((chain, done)) = open.pop() {
                let name = chain.name.as_str();
                if done {
                    order.extend(changed.get(name).copied());
                } else if seen.insert(name) {
                    open.push((chain, true));
                    let below = chain.rules.iter().flat_map(|rule| leads(self.b, rule));
                    open.extend(below.filter_map(|to| names.find(to, 0)).map(|c| (c, false)));
                }
            }
        }
        order
    }

    fn changes(mut self, made: bool) -> TableChanges {
        let mut out = TableChanges::default();
        out.unsaid.append(&mut self.sets.unsaid);
        out.first.append(&mut self.sets.early);
        if self.changed.is_empty() && self.sets.middle.is_empty() && self.sets.late.is_empty() {
            if made {
                out.first.insert(0, Change::AddTable(self.id));
            }
            return out;
        }
        let jumps = self.jumps_in_the_way();
        let forced_in = |table: &Table, chain: &Chain, at: usize| {
            chain.rules.get(at).is_some_and(|rule| {
                self.sets.redefined.iter().any(|name| names_set(rule, name))
                    || self.ipsets.iter().any(|name| names_ipset(rule, name))
                    || leads(table, rule).any(|to| jumps.contains(&(chain.name.as_str(), to)))
            })
        };
        let id = || self.id.clone();
        let mut chains_first = Vec::new();
        let mut rules = Vec::new();
        let mut tighten = Vec::new();
        for (old, new) in self.order() {
            let name = new.name.to_string();
            let (old_base, rebased) = match old {
                Some(old) => (old.base, is_rebased(old.base, new.base)),
                None => (new.base, false),
            };
            let old_rules = old.map(|c| c.rules.as_slice()).unwrap_or_default();
            let forced = |at: usize| rebased || old.is_some_and(|chain| forced_in(self.a, chain, at));
            let made = script(&self.id, &name, old_rules, &new.rules, &forced);
            out.first.extend(made.first);
            if rebased {
                chains_first.push(Change::DeleteChain { table: id(), chain: name.clone() });
            }
            if old.is_none() || rebased {
                chains_first.push(Change::AddChain { table: id(), chain: name.clone(), base: new.base });
            } else if let (Some(before), Some(after)) = (old_base, new.base) {
                let policy = after.policy;
                if before.policy != policy {
                    let change = Change::SetPolicy { table: id(), chain: name.clone(), policy };
                    // To accept comes before the rules change, to drop after.
                    match policy {
                        Policy::Accept => chains_first.push(change),
                        Policy::Drop => tighten.push(change),
                    }
                }
            }
            rules.extend(made.then);
            let fate = if old.is_none() { Fate::Added } else { Fate::Changed };
            out.chains.push(self.told(fate, old, Some(new), made.edits));
        }
        let gone: Vec<&Chain> =
            self.changed.iter().filter(|(_, b)| b.is_none()).filter_map(|(a, _)| *a).collect();
        let mut after = Vec::new();
        for chain in &gone {
            let name = chain.name.to_string();
            let emptied = script(&self.id, &name, &chain.rules, &[], &|at| forced_in(self.a, chain, at));
            out.first.extend(emptied.first);
            after.extend(emptied.then);
            out.chains.push(self.told(Fate::Deleted, Some(chain), None, emptied.edits));
        }
        let end = gone.iter().map(|c| Change::DeleteChain { table: id(), chain: c.name.to_string() });
        after.extend(end);
        // New chains may be what the verdicts of a new map lead to.
        let (sets_early, mut first): (Vec<Change>, Vec<Change>) = out.first.drain(..).partition(is_of_set);
        if made {
            first.insert(0, Change::AddTable(id()));
        }
        out.first = first;
        out.then = chains_first;
        out.then.extend(sets_early);
        out.then.append(&mut self.sets.middle);
        out.then.extend(rules);
        out.then.extend(after);
        out.then.append(&mut self.sets.late);
        out.then.extend(tighten);
        let places: HashMap<&str, usize> =
            self.b.chains.iter().enumerate().map(|(at, c)| (c.name.as_str(), at)).collect();
        out.chains.sort_by_key(|c| places.get(c.chain.as_str()).copied().unwrap_or(usize::MAX));
        out
    }

    fn told(
        &self,
        fate: Fate,
        old: Option<&Chain>,
        new: Option<&Chain>,
        edits: Vec<super::edits::RuleEdit>,
    ) -> ChainEdits {
        ChainEdits {
            table: self.id.clone(),
            chain: old.or(new).map(|c| c.name.to_string()).unwrap_or_default(),
            fate,
            old_base: old.and_then(|c| c.base),
            new_base: new.and_then(|c| c.base),
            old: old.map(|c| c.rules.clone()).unwrap_or_default(),
            new: new.map(|c| c.rules.clone()).unwrap_or_default(),
            edits,
        }
    }
}

fn is_of_set(change: &Change) -> bool {
    matches!(change, Change::AddSet { .. } | Change::AddElements { .. } | Change::DeleteElements { .. })
}

fn ipsets_matter(chain: &Chain, ipsets: &BTreeSet<String>) -> bool {
    !ipsets.is_empty() && chain.rules.iter().any(|rule| ipsets.iter().any(|name| names_ipset(rule, name)))
}

fn unmodelled(id: &TableId, a: &Table, b: &Table) -> Vec<String> {
    let count = |table: &Table| {
        let mut counts: BTreeMap<(String, String), i32> = BTreeMap::new();
        for one in &table.unmodelled {
            *counts.entry((one.what.clone(), one.text.clone())).or_default() += 1;
        }
        counts
    };
    let (a, b) = (count(a), count(b));
    let one = |(key, _): &(&(String, String), &i32), there: &str| format!("table {id}: {} is {there}", key.0);
    let gone = a.iter().filter(|(key, n)| b.get(*key) != Some(n)).map(|pair| one(&pair, "gone or another"));
    let come = b.iter().filter(|(key, n)| a.get(*key) != Some(n)).map(|pair| one(&pair, "new or another"));
    gone.chain(come).collect()
}

type Key<'t> = (Backend, crate::model::TableFamily, &'t str, bool);

fn key(table: &Table) -> Key<'_> {
    (table.backend, table.family, &table.name, table.xtables)
}

fn by_key(tables: &[Table]) -> Result<HashMap<Key<'_>, &Table>, Error> {
    let mut map = HashMap::new();
    for table in tables {
        if map.insert(key(table), table).is_some() {
            return Err(Error::Unfit(format!("table {} is given twice", TableId::of(table))));
        }
    }
    Ok(map)
}

fn twice(table: &Table) -> Result<(), Error> {
    let mut seen = HashSet::with_capacity(table.chains.len());
    match table.chains.iter().find(|chain| !seen.insert(chain.name.as_str())) {
        Some(chain) => {
            Err(Error::Unfit(format!("chain {} of {} is given twice", chain.name, TableId::of(table))))
        }
        None => Ok(()),
    }
}

/// The name that commands have for a table of a host with these tables.
pub(in crate::query) fn named(tables: &[Table], table: &Table) -> TableId {
    by_name(table, usual(tables, &[]))
}

/// The machinery that `iptables` means: known where one is in use, and no
/// other.
fn usual(a: &[Table], b: &[Table]) -> Option<Backend> {
    let found = a.iter().find(|t| t.xtables).map(|t| t.backend);
    found.filter(|usual| a.iter().chain(b).all(|t| !t.xtables || t.backend == *usual))
}

/// The name that changes of a table are said by: `usual` is the machinery of
/// iptables that needs no name.
fn by_name(table: &Table, usual: Option<Backend>) -> TableId {
    let id = TableId::of(table);
    match table.xtables && usual == Some(table.backend) {
        true => TableId { backend: None, ..id },
        false => id,
    }
}

/// What turns the tables of one host into those of another.
pub(super) fn of_hosts(a: &[Table], b: &[Table], ipsets: &BTreeSet<String>) -> Result<TableChanges, Error> {
    let usual = usual(a, b);
    let (in_a, in_b) = (by_key(a)?, by_key(b)?);
    let mut out = TableChanges::default();
    let mut put = |changes: TableChanges| {
        out.chains.extend(changes.chains);
        out.first.extend(changes.first);
        out.then.extend(changes.then);
        out.unsaid.extend(changes.unsaid);
    };
    for table in b {
        let id = by_name(table, usual);
        let old = in_a.get(&key(table));
        if old.is_some_and(|old| std::ptr::eq(*old, table)) {
            continue;
        }
        let fresh;
        let (old, made) = match old {
            Some(old) => (*old, false),
            None => {
                fresh = new_table(&id, table.backend);
                (&fresh, true)
            }
        };
        let pair = Pair::new(id, old, table, ipsets);
        if !pair.changed.is_empty() {
            twice(old)?;
            twice(table)?;
        }
        put(pair.changes(made));
    }
    let mut end = Vec::new();
    for table in a.iter().filter(|t| !in_b.contains_key(&key(t))) {
        let id = by_name(table, usual);
        let empty = Table { chains: Vec::new(), ..new_table(&id, table.backend) };
        let told = Pair::new(id.clone(), table, &empty, ipsets).changes(false);
        put(TableChanges { chains: told.chains, ..TableChanges::default() });
        end.push(Change::DeleteTable(id));
    }
    out.then.extend(end);
    Ok(out)
}
