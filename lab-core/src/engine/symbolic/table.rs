//! One table of a host as diagrams, kept up to date while its rules change.

use super::chain::{ChainLeaves, End, Leaf, RuleId, TableChains};
use super::compare::Differing;
use super::compile::Compiler;
use super::effects::Effects;
use crate::model::{Host, Rule, Table};
use crate::semantics::sets::Sets;
use crate::space::{is_oracle, Error, Header, Ref, Store};

/// The diagrams of one table, with everything they need: to look packets up
/// in, and to try changes of rules on.
///
/// | operation | cost |
/// |---|---|
/// | [`TableDiagrams::lookup`] | one step for each test on the packet's way |
/// | [`TableDiagrams::insert`], [`TableDiagrams::remove`] | O(log n) merges in the chain, and again in each chain that calls it |
/// | [`TableDiagrams::collect`] | the size of the diagrams; needed about once for as many new nodes as they have |
///
/// ```
/// use lab_core::addr::Family;
/// use lab_core::engine::symbolic::{End, TableDiagrams};
/// use lab_core::formats::iptables;
/// use lab_core::model::Host;
/// use lab_core::space::{Field, Header};
///
/// let text = "*filter\n:INPUT DROP [0:0]\n-A INPUT -p tcp --dport 22 -j ACCEPT\nCOMMIT\n";
/// let mut tables = iptables::parse("iptables.save", text, Family::Ipv4)?;
/// let (table, host) = (tables.remove(0), Host::default());
/// let mut diagrams = TableDiagrams::new(&host, &table)?;
///
/// let mut ssh = Header::default();
/// ssh.set(Field::Protocol, 6);
/// ssh.set(Field::Dport, 22);
/// assert_eq!(diagrams.lookup(0, &ssh).end, &End::Accept);
///
/// // What if the rule were gone?
/// diagrams.remove(0, 0)?;
/// let found = diagrams.lookup(0, &ssh);
/// assert_eq!(found.end, &End::Drop);
/// assert_eq!(found.rule.and_then(|id| diagrams.place(id)), Some((0, None)));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct TableDiagrams<'a> {
    host: &'a Host,
    table: &'a Table,
    sets: Sets,
    leaves: ChainLeaves,
    chains: TableChains,
    bases: Vec<Base>,
}

/// A base chain: by its index, what it comes to, and the leaf of its policy.
#[derive(Debug)]
struct Base {
    index: usize,
    whole: Ref,
    policy: Leaf,
}

/// What a base chain does to a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Decided<'t> {
    /// How it ends.
    pub end: &'t End,
    /// The rule that decides, or the policy.
    pub rule: Option<RuleId>,
    /// What was changed on the way.
    pub effects: &'t Effects,
}

impl<'a> TableDiagrams<'a> {
    /// Compiles every base chain of a table, and what they call.
    ///
    /// # Errors
    /// If the diagrams outgrow their budget.
    pub fn new(host: &'a Host, table: &'a Table) -> Result<Self, Error> {
        let mut diagrams = TableDiagrams {
            host,
            table,
            sets: Sets::default(),
            leaves: ChainLeaves::default(),
            chains: TableChains::default(),
            bases: Vec::new(),
        };
        for (index, _) in table.chains.iter().enumerate().filter(|(_, chain)| chain.base.is_some()) {
            let mut compiler = diagrams.compiler();
            let (whole, policy) = (compiler.undecided(index)?, compiler.policy(index));
            diagrams.bases.push(Base { index, whole, policy });
        }
        Ok(diagrams)
    }

    fn compiler(&mut self) -> Compiler<'a, '_> {
        Compiler {
            host: self.host,
            table: self.table,
            sets: &mut self.sets,
            leaves: &mut self.leaves,
            chains: &mut self.chains,
        }
    }

    fn refresh(&mut self) -> Result<(), Error> {
        for place in 0..self.bases.len() {
            let index = self.bases[place].index;
            self.bases[place].whole = self.compiler().undecided(index)?;
        }
        Ok(())
    }

    /// What a base chain, by its index in the table, does to a packet.
    /// Conditions that cannot be known count as false; a chain that is no
    /// base chain accepts.
    pub fn lookup(&self, base: usize, header: &Header) -> Decided<'_> {
        const ACCEPT: Decided = Decided { end: &End::Accept, rule: None, effects: Effects::NONE };
        let Some(Base { whole, policy, .. }) = self.bases.iter().find(|b| b.index == base) else {
            return ACCEPT;
        };
        let found = self.leaves.value(self.sets.store.lookup(*whole, header));
        let decides = found.filter(|leaf| leaf.end != End::Fall).unwrap_or(policy);
        let effects = found.map_or(Effects::NONE, |leaf| &leaf.effects);
        Decided { end: &decides.end, rule: decides.rule, effects }
    }

    /// What a base chain, by its index in the table, comes to now: to ask later
    /// what [`TableDiagrams::differing`] since; [`TableDiagrams::collect`] ends that.
    pub fn mark(&self, base: usize) -> Option<Ref> {
        self.bases.iter().find(|b| b.index == base).map(|b| b.whole)
    }

    /// The packets that a base chain treats otherwise since it was marked, by
    /// the rules that decided and decide.
    ///
    /// Cost: those parts of its diagram that edits have made anew.
    ///
    /// # Errors
    /// If the diagrams outgrow their budget.
    pub fn differing(&mut self, base: usize, mark: Ref) -> Result<Vec<Differing>, Error> {
        let Some(Base { whole, policy, .. }) = self.bases.iter().find(|b| b.index == base) else {
            return Ok(Vec::new());
        };
        let leaves = &self.leaves;
        let decided = |leaf: u32| match leaves.value(leaf) {
            None => policy.clone(),
            Some(found) if matches!(found.end, End::Fall | End::Return) => {
                Leaf { effects: found.effects.clone(), ..policy.clone() }
            }
            Some(found) => found.clone(),
        };
        let mut pairs: Vec<(Leaf, Leaf)> = Vec::new();
        let mut numbers = std::collections::HashMap::<(u32, u32), Ref>::new();
        let store = &mut self.sets.store;
        let told = store.differ(mark, *whole, &mut |a, b| {
            *numbers.entry((a, b)).or_insert_with(|| {
                let (old, new) = (decided(a), decided(b));
                if (&old.end, &old.effects) == (&new.end, &new.effects) {
                    return Ref::NONE;
                }
                pairs.push((old, new));
                Ref::leaf(pairs.len() as u32)
            })
        })?;
        let mut found = Vec::new();
        for (number, (old, new)) in pairs.into_iter().enumerate() {
            let set = store.where_leaf(told, &|leaf| leaf == number as u32 + 1)?;
            let may = store.forget(set, &is_oracle, true)?;
            let must = store.forget(set, &is_oracle, false)?;
            if !may.is_none() {
                found.push(Differing { old, new, may, must });
            }
        }
        Ok(found)
    }

    /// The diagrams that the sets found are of.
    pub fn store(&mut self) -> &mut Store {
        &mut self.sets.store
    }

    /// Puts a rule into a chain, by its index, before the rule at `place`
    /// (from 0) or at the end.
    ///
    /// # Errors
    /// [`Error::Loop`] if the chain would call itself; nothing is changed then.
    /// If the diagrams outgrow their budget; they must then be made anew.
    pub fn insert(&mut self, chain: usize, place: usize, rule: &Rule) -> Result<RuleId, Error> {
        let id = self.compiler().insert(chain, place, rule)?;
        self.refresh()?;
        Ok(id)
    }

    /// Takes the rule at `place` (from 0) out of a chain.
    ///
    /// # Errors
    /// If the diagrams outgrow their budget; they must then be made anew.
    pub fn remove(&mut self, chain: usize, place: usize) -> Result<(), Error> {
        self.compiler().remove(chain, place)?;
        self.refresh()
    }

    /// Where a rule stands now: its chain, and its number from 1; none for
    /// the policy.
    pub fn place(&self, id: RuleId) -> Option<(usize, Option<usize>)> {
        self.chains.place(id)
    }

    /// How many nodes the diagrams use, dead ones included.
    pub fn nodes(&self) -> usize {
        self.sets.store.len()
    }

    /// Whether it is time to [`TableDiagrams::collect`].
    pub fn is_full_of_dead(&self) -> bool {
        self.sets.store.is_full_of_dead()
    }

    /// Drops the diagrams that edits left behind.
    pub fn collect(&mut self) {
        self.sets.forget_routes();
        let bases = self.bases.iter_mut().map(|base| &mut base.whole);
        self.sets.store.collect(bases.chain(self.chains.roots()));
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;
    use crate::addr::Family;
    use crate::formats::iptables;
    use crate::space::Field;

    const HEAD: &str = "*filter\n:FORWARD DROP [0:0]\n:A - [0:0]\n:B - [0:0]\n";
    const RULES: &str = "-A FORWARD -d 10.0.0.1/32 -p tcp -m tcp --dport 80 -j A\n\
        -A FORWARD -s 10.0.0.2/32 -j RETURN\n\
        -A A -d 10.0.0.1/32 -p tcp -j B\n\
        -A A ! -d 10.0.0.1/32 -j DROP\n\
        -A A -p udp -j ACCEPT\n\
        -A B -s 10.0.0.3/32 -j ACCEPT\n";

    fn read(rules: &str) -> Table {
        let text = format!("{HEAD}{rules}COMMIT\n");
        iptables::parse("iptables.save", &text, Family::Ipv4).unwrap().remove(0)
    }

    fn endings(diagrams: &TableDiagrams) -> Vec<End> {
        let mut found = Vec::new();
        for (src, dst) in (0..5_u128).flat_map(|src| (0..5).map(move |dst| (src, dst))) {
            for (protocol, dport) in [(6, 80), (6, 22), (17, 80)] {
                let mut header = Header::default();
                header.set(Field::Src, (0x0a00_0000 + src) << 96);
                header.set(Field::Dst, (0x0a00_0000 + dst) << 96);
                header.set(Field::Protocol, protocol);
                header.set(Field::Dport, dport);
                found.push(diagrams.lookup(0, &header).end.clone());
            }
        }
        found
    }

    /// Rules that call chains from elsewhere than before: what was known of
    /// the packets there no longer is.
    #[test]
    fn edited_chains_do_what_the_same_chains_read_anew_do() {
        let host = Host::default();
        let before = read(RULES);
        for (chain, place, line) in [
            (0, 0, "-A FORWARD -p udp -j A\n"),
            (0, 1, "-A FORWARD -d 10.0.0.4/32 -j A\n"),
            (0, 2, "-A FORWARD -j B\n"),
            (0, 1, "-A FORWARD -s 10.0.0.0/31 -g B\n"),
            (1, 0, "-A A -s 10.0.0.4/32 -j B\n"),
            (2, 1, "-A B -p tcp -m tcp --dport 80 -j DROP\n"),
            (2, 0, "-A B -p udp -j ACCEPT\n"),
        ] {
            let rule = read(line).chains[chain].rules[0].clone();
            let mut after = before.clone();
            after.chains[chain].rules.insert(place, rule.clone());
            let mut edited = TableDiagrams::new(&host, &before).unwrap();
            let first = endings(&edited);
            let id = edited.insert(chain, place, &rule).unwrap();
            assert_eq!(edited.place(id), Some((chain, Some(place + 1))));
            edited.collect();
            assert_eq!(endings(&edited), endings(&TableDiagrams::new(&host, &after).unwrap()), "{line}");
            // An edit below the new rule reaches it, too.
            let accept = read("-A B -s 10.0.0.1/32 -j ACCEPT\n").chains[2].rules[0].clone();
            after.chains[2].rules.insert(0, accept.clone());
            edited.insert(2, 0, &accept).unwrap();
            assert_eq!(endings(&edited), endings(&TableDiagrams::new(&host, &after).unwrap()), "{line}");
            edited.remove(2, 0).unwrap();
            edited.remove(chain, place).unwrap();
            assert_eq!(endings(&edited), first, "{line}");
        }
    }

    #[test]
    fn an_edit_is_told_by_the_packets_it_treats_otherwise() {
        let (host, table) = (Host::default(), read(RULES));
        let mut diagrams = TableDiagrams::new(&host, &table).unwrap();
        let mark = diagrams.mark(0).unwrap();
        assert!(diagrams.differing(0, mark).unwrap().is_empty());
        // What was dropped by the policy, and by A, is accepted by B now.
        let accept = rule("-A B -s 10.0.0.4/31 -j ACCEPT\n", 2);
        let id = diagrams.insert(2, 0, &accept).unwrap();
        let found = diagrams.differing(0, mark).unwrap();
        assert_eq!(found.len(), 1);
        let one = &found[0];
        assert_eq!((&one.old.end, &one.new.end, one.new.rule), (&End::Drop, &End::Accept, Some(id)));
        assert_eq!(one.old.rule.and_then(|id| diagrams.place(id)), Some((0, None)));
        let example = diagrams.store().example(one.must).unwrap();
        assert_eq!(diagrams.lookup(0, &example).rule, Some(id));
        // A rule that does what would be done anyway is no difference.
        diagrams.remove(2, 0).unwrap();
        diagrams.insert(0, 3.min(table.chains[0].rules.len()), &rule("-A FORWARD -j DROP\n", 0)).unwrap();
        assert!(diagrams.differing(0, mark).unwrap().is_empty());
    }

    #[test]
    fn a_rule_that_closes_a_loop_is_refused() {
        let (host, table) = (Host::default(), read(RULES));
        let mut diagrams = TableDiagrams::new(&host, &table).unwrap();
        let before = endings(&diagrams);
        let rule = read("-A B -j A\n").chains[2].rules[0].clone();
        assert_eq!(diagrams.insert(2, 0, &rule), Err(Error::Loop));
        assert_eq!(endings(&diagrams), before);
    }

    fn rule(line: &str, chain: usize) -> Rule {
        read(line).chains[chain].rules[0].clone()
    }

    #[test]
    fn what_a_rule_called_that_is_gone_may_call_its_chain() {
        let host = Host::default();
        // A calls B, then B calls A.
        let mut before = read(RULES);
        let mut after = before.clone();
        after.chains[1].rules.remove(0);
        after.chains[2].rules.insert(0, rule("-A B -s 10.0.0.1/32 -j A\n", 2));
        let wanted = endings(&TableDiagrams::new(&host, &after).unwrap());
        let turn = |diagrams: &mut TableDiagrams| {
            diagrams.remove(1, 0)?;
            diagrams.insert(2, 0, &after.chains[2].rules[0])
        };
        let mut diagrams = TableDiagrams::new(&host, &before).unwrap();
        turn(&mut diagrams).unwrap();
        assert_eq!(endings(&diagrams), wanted, "a rule that was read");
        let called = before.chains[1].rules.remove(0);
        let mut diagrams = TableDiagrams::new(&host, &before).unwrap();
        diagrams.insert(1, 0, &called).unwrap();
        turn(&mut diagrams).unwrap();
        assert_eq!(endings(&diagrams), wanted, "a rule that was put in");
    }

    fn mapped() -> Table {
        let text = "table ip filter {\n\
              chain FORWARD { type filter hook forward priority 0; policy drop;\n\
                ip daddr vmap { 10.0.0.1 : jump A, 10.0.0.2 : accept }\n\
                ip saddr vmap { 10.0.0.3 : goto B } }\n\
              chain A { ip protocol udp accept }\n\
              chain B { ip daddr 10.0.0.3 accept }\n\
            }\n";
        crate::formats::nft_text::parse("nft.txt", text).unwrap().remove(0)
    }

    /// A chain that a map of verdicts leads to is edited like one that a rule calls.
    #[test]
    fn edits_reach_through_maps_of_verdicts() {
        let (host, before) = (Host::default(), mapped());
        let map = before.chains[0].rules[0].clone();
        let drop = rule("-A A -s 10.0.0.1/32 -j DROP\n", 1);
        let anew = |after: &Table| endings(&TableDiagrams::new(&host, after).unwrap());
        let mut edited = TableDiagrams::new(&host, &before).unwrap();
        let first = endings(&edited);
        let mut after = before.clone();
        for (chain, rule) in [(1, &drop), (0, &map), (2, &drop)] {
            edited.insert(chain, 0, rule).unwrap();
            after.chains[chain].rules.insert(0, rule.clone());
            assert_eq!(endings(&edited), anew(&after), "{chain}");
        }
        // Of two maps one is gone: the other still leads there.
        for chain in [0, 1, 2] {
            edited.remove(chain, 0).unwrap();
            after.chains[chain].rules.remove(0);
            assert_eq!(endings(&edited), anew(&after), "{chain} again");
        }
        assert_eq!(endings(&edited), first);
    }

    #[test]
    fn a_map_of_verdicts_that_is_gone_calls_nothing() {
        let (host, mut table) = (Host::default(), mapped());
        let map = table.chains[0].rules.remove(0);
        table.chains[0].rules.remove(0);
        let jump = rule("-A A -j B\n", 1);
        let mut diagrams = TableDiagrams::new(&host, &table).unwrap();
        // What leads anywhere may lead back.
        diagrams.insert(2, 0, &map).unwrap();
        assert_eq!(diagrams.insert(1, 0, &jump), Err(Error::Loop));
        diagrams.remove(2, 0).unwrap();
        diagrams.insert(1, 0, &jump).unwrap();
    }

    /// What rules know of routes is made anew after diagrams were dropped.
    #[test]
    fn dead_diagrams_are_dropped_with_what_was_known_of_routes() {
        let lab = crate::engine::stepper::tests::build::Build::line();
        let host = &lab.lab.hosts["router"];
        let before = read("-A FORWARD -s 10.0.0.0/8 -j ACCEPT\n");
        let local = rule("-A FORWARD -m addrtype --dst-type LOCAL -j ACCEPT\n", 0);
        let mut after = before.clone();
        after.chains[0].rules.insert(0, local.clone());
        let ends = |diagrams: &TableDiagrams| {
            let to = |last: u128| {
                let mut header = Header::default();
                header.set(Field::Src, 0x0b00_0001 << 96);
                header.set(Field::Dst, (0x0a00_0100 + last) << 96);
                diagrams.lookup(0, &header).end.clone()
            };
            [0, 1, 2, 0x101, 0x102].map(to)
        };
        let wanted = ends(&TableDiagrams::new(host, &after).unwrap());
        assert_eq!(wanted, [End::Drop, End::Accept, End::Drop, End::Accept, End::Drop]);
        let mut edited = TableDiagrams::new(host, &before).unwrap();
        let small = edited.nodes();
        edited.insert(0, 0, &local).unwrap();
        edited.remove(0, 0).unwrap();
        assert!(edited.nodes() > small && !edited.is_full_of_dead());
        edited.collect();
        assert_eq!(edited.nodes(), small);
        // Other diagrams take the places of those that are gone.
        for n in 1..200 {
            edited.insert(0, 0, &rule(&format!("-A FORWARD -s 11.0.0.{n} -d 12.0.0.{n} -j A\n"), 0)).unwrap();
        }
        for _ in 1..200 {
            edited.remove(0, 0).unwrap();
        }
        edited.insert(0, 0, &local).unwrap();
        assert_eq!(ends(&edited), wanted);
    }

    #[test]
    fn it_is_time_to_collect_when_most_diagrams_are_dead() {
        let (host, table) = (Host::default(), read(RULES));
        let mut edited = TableDiagrams::new(&host, &table).unwrap();
        let first = endings(&edited);
        let mut edits = 0_u32;
        while !edited.is_full_of_dead() && edits < 100_000 {
            let address = Ipv4Addr::from_bits(0x0b00_0000 + edits);
            edited.insert(0, 0, &rule(&format!("-A FORWARD -s {address} -d {address} -j A\n"), 0)).unwrap();
            edited.remove(0, 0).unwrap();
            edits += 1;
        }
        assert!(edits > 100 && edited.is_full_of_dead(), "{edits}");
        edited.collect();
        assert!(!edited.is_full_of_dead() && edited.nodes() < 1000);
        assert_eq!(endings(&edited), first);
    }
}
