//! Two versions of a table: which packets a base chain treats otherwise, and
//! by which rules.

use std::collections::{BTreeMap, HashMap};

use super::alike::{alone, cube_of, note, regions, same, Exact, REGIONS};
use super::chain::{ChainLeaves, End, Leaf, RuleId, TableChains};
use super::compile::{targets, Compiler};
use super::effects::Effects;
use crate::model::{Chain, Host, Table, Target, Verdict};
use crate::semantics::sets::Sets;
use crate::space::{is_oracle, Cube, Error, Mapping, Names, Ref, Store};

/// A version of a table, on its host.
#[derive(Clone, Copy, Debug)]
pub struct Version<'a> {
    /// The host, for what rules ask of it: its addresses, routes, sets.
    pub host: &'a Host,
    /// The table.
    pub table: &'a Table,
}

/// Packets that both versions of a base chain treat, but not alike.
#[derive(Clone, Debug)]
pub struct Differing {
    /// What the old version does.
    pub old: Leaf,
    /// What the new version does.
    pub new: Leaf,
    /// Packets that may be treated so by the one and so by the other, however
    /// that turns out what is not known.
    pub may: Ref,
    /// Those that are.
    pub must: Ref,
}

/// Two versions of a table, ready to be compared.
///
/// Cost: only rules that packets of changed rules may meet are compiled, if
/// there are few changed ones: one test for each rule of the chains on their
/// way. Else both versions are compiled and put side by side.
pub struct Comparison<'a> {
    old: Option<Version<'a>>,
    new: Option<Version<'a>>,
    sets: Sets,
    leaves: ChainLeaves,
    /// Why conditions are not known, of the last comparison.
    doubts: Vec<String>,
    /// What the rule does that was asked about last.
    own: Vec<Leaf>,
    /// Where rules of either version stand.
    chains: [TableChains; 2],
    /// Their chains, none compiled.
    bare: Option<[TableChains; 2]>,
    /// For chains that both versions have the cubes outside of which they do
    /// the same; none: not in few.
    apart: Option<Option<Vec<Apart>>>,
    /// On which ways packets come to the chains of either.
    ways: Option<[Ways<'a>; 2]>,
}

/// A chain of the old version by its index, the same of the new one, and cubes
/// outside of which the two do the same.
type Apart = (usize, usize, Vec<Cube>);

/// Packets by what either version does with them.
type Pairs = BTreeMap<(u32, u32), (Ref, Ref)>;

impl<'a> Comparison<'a> {
    /// Two versions; none: there is no such table, and packets pass.
    pub fn new(old: Option<Version<'a>>, new: Option<Version<'a>>) -> Self {
        Comparison {
            old,
            new,
            sets: Sets::default(),
            leaves: ChainLeaves::default(),
            doubts: Vec::new(),
            own: Vec::new(),
            chains: Default::default(),
            bare: None,
            apart: None,
            ways: None,
        }
    }

    /// The diagrams that the sets found are of.
    pub fn store(&mut self) -> &mut Store {
        &mut self.sets.store
    }

    /// The numbers of interface names in them.
    pub fn names(&self) -> &Names {
        &self.sets.names
    }

    /// The number of an interface's name in them.
    pub fn number(&mut self, name: &str) -> u32 {
        self.sets.names.number(name)
    }

    /// Why something was not known in the last comparison.
    pub fn doubts(&self) -> &[String] {
        &self.doubts
    }

    /// Where a rule of the old version stands: its chain's index, and its own
    /// number from 1; none for the policy.
    pub fn old_place(&self, id: RuleId) -> Option<(usize, Option<usize>)> {
        self.chains[0].place(id)
    }

    /// Where a rule of the new version stands.
    pub fn new_place(&self, id: RuleId) -> Option<(usize, Option<usize>)> {
        self.chains[1].place(id)
    }

    /// Compares a base chain of the old version with one of the new, each by
    /// its index; none: there is none, and packets pass.
    ///
    /// # Errors
    /// If the diagrams outgrow their budget.
    pub fn base(&mut self, old: Option<usize>, new: Option<usize>) -> Result<Vec<Differing>, Error> {
        let regions = self.regions(old, new);
        self.doubts.clear();
        let mut pairs = Pairs::new();
        for region in &regions {
            self.within(region, old, new, &mut pairs)?;
        }
        let leaf = |leaves: &ChainLeaves, number: u32| leaves.value(number).cloned();
        Ok(pairs
            .into_iter()
            .filter_map(|((a, b), (may, must))| {
                let (old, new) = (leaf(&self.leaves, a)?, leaf(&self.leaves, b)?);
                Some(Differing { old, new, may, must })
            })
            .collect())
    }

    /// Who decides, in the old version, about the packets that a rule of the
    /// new one decides about, in the chains that a base chain runs: by the
    /// indices of the rule's chain and its own place. Empty: no packet comes to
    /// it; then it is told who decides about those that would.
    ///
    /// # Errors
    /// If the diagrams outgrow their budget.
    pub fn instead_of(
        &mut self,
        (old, new): (Option<usize>, usize),
        (chain, place): (usize, usize),
    ) -> Result<(Vec<Leaf>, bool), Error> {
        let whole = Cube::default();
        self.own.clear();
        let Some(version) = self.new else { return Ok((Vec::new(), false)) };
        let rule = version.table.chains.get(chain).and_then(|c| c.rules.get(place));
        let Some(rule) = rule else { return Ok((Vec::new(), false)) };
        let old_table = self.old.map_or(version.table, |v| v.table);
        let known = self.ways.get_or_insert_with(|| [Ways::new(old_table), Ways::new(version.table)]);
        let mut ways = known[1].to(&mut self.sets, chain, new);
        if let Some(own) = cube_of(&mut self.sets, &rule.statements) {
            for way in &mut ways {
                // A full cube says less, and is as right.
                let _ = way.and(&own);
            }
        }
        if ways.len() > REGIONS {
            ways = vec![whole];
        }
        let (mut deciding, mut shadowing) = (Vec::new(), Vec::new());
        for region in &ways {
            self.begin(region);
            let a = self.diagram(0, self.old, old)?;
            self.chains[1].oracles = self.chains[0].oracles.clone();
            self.sets.another_table();
            let b = self.diagram(1, self.new, Some(new))?;
            let id = self.chains[1].first_id(chain, place);
            let Comparison { sets, leaves, .. } = self;
            let store = &mut sets.store;
            let here = store.cube(region, false)?;
            let decided = store.where_leaf(b, &|leaf| leaves.value(leaf).and_then(|l| l.rule) == id)?;
            let decided = store.guard(here, decided)?;
            let by_it = store.guard(decided, b)?;
            for leaf in store.leaves(by_it) {
                let leaf = leaves.value(leaf).cloned();
                self.own.extend(leaf.filter(|leaf| !self.own.contains(leaf)));
            }
            let within = if decided.is_none() { here } else { decided };
            let told = store.guard(within, if decided.is_none() { b } else { a })?;
            let into = if decided.is_none() { &mut shadowing } else { &mut deciding };
            for leaf in store.leaves(told) {
                let leaf = leaves.value(leaf).cloned();
                into.extend(leaf.filter(|leaf| !into.contains(leaf)));
            }
        }
        Ok(if deciding.is_empty() { (shadowing, true) } else { (deciding, false) })
    }

    /// What the rule does that [`Comparison::instead_of`] was last asked about.
    pub fn own(&self) -> &[Leaf] {
        &self.own
    }

    /// Compares the packets of one region.
    fn within(
        &mut self,
        region: &Cube,
        old: Option<usize>,
        new: Option<usize>,
        pairs: &mut Pairs,
    ) -> Result<(), Error> {
        self.begin(region);
        let a = self.diagram(0, self.old, old)?;
        // What the one version does not know has a number for the other, too.
        self.chains[1].oracles = self.chains[0].oracles.clone();
        self.sets.another_table();
        let b = self.diagram(1, self.new, new)?;
        // Told apart by what they do, not by who does it, most parts are one.
        let (done_a, done_b) = (self.deeds(a)?, self.deeds(b)?);
        let store = &mut self.sets.store;
        let differs = store.differ(done_a, done_b, &mut |_, _| Ref::ALL)?;
        let region = store.cube(region, false)?;
        let differs = store.guard(region, differs)?;
        if differs.is_none() {
            return Ok(());
        }
        let (a, b) = (store.guard(differs, a)?, store.guard(differs, b)?);
        let mut known: Vec<(u32, u32)> = Vec::new();
        let mut numbers = BTreeMap::new();
        let told = store.differ(a, b, &mut |x, y| {
            let number = *numbers.entry((x, y)).or_insert_with(|| {
                known.push((x, y));
                known.len() as u32
            });
            Ref::leaf(number)
        })?;
        for number in store.oracles(told) {
            let why = self.chains[1].oracles.get(number as usize).map(ToString::to_string);
            self.doubts.extend(why.filter(|w| !self.doubts.contains(w)).into_iter().collect::<Vec<_>>());
        }
        for (number, pair) in known.into_iter().enumerate() {
            let number = number as u32 + 1;
            let set = store.where_leaf(told, &|leaf| leaf == number)?;
            // Deeds that are the same differ by who does them alone.
            let set = store.guard(differs, set)?;
            let may = store.forget(set, &is_oracle, true)?;
            let must = store.forget(set, &is_oracle, false)?;
            let known = pairs.entry(pair).or_insert((Ref::NONE, Ref::NONE));
            known.0 = store.or_else(known.0, may)?;
            known.1 = store.or_else(known.1, must)?;
        }
        Ok(())
    }

    /// Makes ready to compile both versions for packets of a region.
    fn begin(&mut self, region: &Cube) {
        if self.bare.is_none() {
            let mut bare = <[TableChains; 2]>::default();
            for (chains, version) in bare.iter_mut().zip([self.old, self.new]) {
                let Some(Version { host, table }) = version else { continue };
                let Comparison { sets, leaves, .. } = self;
                // Room for diagrams of all rules is only made where all are asked about.
                chains.known = Some((Cube::default(), Mapping::default()));
                Compiler { host, table, sets, leaves, chains }.prepare();
            }
            self.bare = Some(bare);
        }
        if let Some([old, new]) = &self.bare {
            self.chains = [old.again(region), new.again(region)];
        }
        self.sets.share_unknowns();
    }

    /// A base chain of a version; every packet has a leaf.
    fn diagram(
        &mut self,
        side: usize,
        version: Option<Version<'a>>,
        base: Option<usize>,
    ) -> Result<Ref, Error> {
        self.sets.forget_hosts();
        match (version, base) {
            (Some(Version { host, table }), Some(index)) => {
                let Comparison { sets, leaves, chains, .. } = self;
                Compiler { host, table, sets, leaves, chains: &mut chains[side] }.base(index)
            }
            _ => Ok(self.leaves.leaf(Leaf { end: End::Accept, rule: None, effects: Effects::default() })),
        }
    }

    /// A diagram that says what is done, and not by whom.
    fn deeds(&mut self, whole: Ref) -> Result<Ref, Error> {
        let Comparison { sets, leaves, .. } = self;
        sets.store.map_leaves(whole, &mut |leaf| match leaves.value(leaf).cloned() {
            Some(found) => leaves.leaf(Leaf { rule: None, ..found }),
            None => Ref::leaf(leaf),
        })
    }

    /// Cubes outside of which both versions of a base chain treat every packet
    /// alike; one of everything where that cannot be told in few.
    fn regions(&mut self, old: Option<usize>, new: Option<usize>) -> Vec<Cube> {
        self.told_apart(old, new).unwrap_or_else(|| vec![Cube::default()])
    }

    fn told_apart(&mut self, old: Option<usize>, new: Option<usize>) -> Option<Vec<Cube>> {
        let (Some(before), Some(after), Some(old), Some(new)) = (self.old, self.new, old, new) else {
            // No chain is one of no rules.
            return None;
        };
        let policy = |v: Version, i: usize| v.table.chains.get(i).and_then(|c| c.base).map(|b| b.policy);
        if policy(before, old) != policy(after, new) {
            return None;
        }
        if self.apart.is_none() {
            self.apart = Some(self.chains_apart(before, after));
        }
        let apart = self.apart.clone().flatten()?;
        let mut found = Vec::new();
        let Comparison { sets, ways, .. } = self;
        for (place, other, cubes) in apart {
            let [ways_old, ways_new] =
                ways.get_or_insert_with(|| [Ways::new(before.table), Ways::new(after.table)]);
            let mut above = ways_old.to(sets, place, old);
            above.extend(ways_new.to(sets, other, new));
            for cube in &cubes {
                for way in above.iter().filter(|way| way.meets(cube)) {
                    let mut both = *cube;
                    // A full cube says less, and is as right.
                    let _ = both.and(way);
                    note(&mut found, both)?;
                }
            }
        }
        Some(found)
    }

    /// What the rules of chains that both versions have can treat otherwise.
    fn chains_apart(&mut self, before: Version, after: Version) -> Option<Vec<Apart>> {
        let same_host = alike(before, after);
        let index: HashMap<&str, usize, foldhash::fast::RandomState> =
            after.table.chains.iter().enumerate().map(|(i, c)| (c.name.as_str(), i)).collect();
        let mut found = Vec::new();
        for (place, chain) in before.table.chains.iter().enumerate() {
            // A chain of one version alone is called by rules of it alone.
            let Some(other) = index.get(chain.name.as_str()).copied() else { continue };
            let Some(theirs) = after.table.chains.get(other) else { continue };
            let pairs = || chain.rules.iter().zip(&theirs.rules);
            if same_host && chain.rules.len() == theirs.rules.len() && pairs().all(|(a, b)| same(a, b)) {
                continue;
            }
            let a = alone(&mut self.sets, chain);
            let b = alone(&mut self.sets, theirs);
            let Comparison { sets, leaves, .. } = self;
            let Version { host, table } = before;
            let mut exact = Exact { host, table, sets, leaves, known: HashMap::default() };
            let cubes = regions(&a, &b, same_host, &mut exact)?;
            if !cubes.is_empty() {
                found.push((place, other, cubes));
            }
        }
        Some(found)
    }
}

/// Whether rules that ask their host, or sets of their table, are answered
/// alike.
fn alike(a: Version, b: Version) -> bool {
    let (x, y) = (a.host, b.host);
    let hosts = std::ptr::eq(x, y)
        || (x.interfaces == y.interfaces
            && x.routes == y.routes
            && x.rules == y.rules
            && x.sysctls == y.sysctls
            && x.ipsets == y.ipsets
            && x.unknown == y.unknown);
    hosts && a.table.sets == b.table.sets
}

/// On which ways packets come from a base chain to others.
struct Ways<'a> {
    table: &'a Table,
    /// For each chain the rules that lead there, by chain and place.
    callers: Vec<Vec<(usize, usize)>>,
}

impl<'a> Ways<'a> {
    fn new(table: &'a Table) -> Self {
        let index: HashMap<&str, usize, foldhash::fast::RandomState> =
            table.chains.iter().enumerate().map(|(i, c)| (c.name.as_str(), i)).collect();
        let mut callers = vec![Vec::new(); table.chains.len()];
        for (place_of_chain, chain) in table.chains.iter().enumerate() {
            for (place, rule) in chain.rules.iter().enumerate() {
                let mut note = |verdict: &Verdict| {
                    let (Verdict::Jump(name) | Verdict::Goto(name)) = verdict else { return };
                    let callee = index.get(name.as_str()).and_then(|i| callers.get_mut(*i));
                    if let Some(list) = callee {
                        let list: &mut Vec<(usize, usize)> = list;
                        list.push((place_of_chain, place));
                    }
                };
                for target in targets(rule) {
                    match target {
                        Target::Verdict(verdict) => note(verdict),
                        Target::VerdictMap { elements, name, .. } => {
                            elements.iter().for_each(|(_, verdict)| note(verdict));
                            let named = name.as_ref().and_then(|n| table.set(n));
                            named.into_iter().flat_map(|s| &s.verdicts).for_each(&mut note);
                        }
                        _ => {}
                    }
                }
            }
        }
        Ways { table, callers }
    }

    /// Cubes around the packets that come from a base chain to a chain.
    fn to(&mut self, sets: &mut Sets, chain: usize, base: usize) -> Vec<Cube> {
        let mut ways: Vec<(usize, Cube)> = vec![(chain, Cube::default())];
        let mut found: Vec<Cube> = Vec::new();
        let mut steps = 0;
        while let Some((at, cube)) = ways.pop() {
            steps += 1;
            if steps > REGIONS * 4 {
                return vec![Cube::default()];
            }
            if at == base {
                found.push(cube);
                continue;
            }
            for (caller, place) in self.callers.get(at).into_iter().flatten().copied() {
                let rule = self.table.chains.get(caller).and_then(|c: &Chain| c.rules.get(place));
                let Some(own) = rule.and_then(|r| cube_of(sets, &r.statements)) else { continue };
                if !cube.meets(&own) {
                    continue;
                }
                let mut both = cube;
                // A cube that is full says less, and is as right.
                let _ = both.and(&own);
                ways.push((caller, both));
            }
        }
        found
    }
}
