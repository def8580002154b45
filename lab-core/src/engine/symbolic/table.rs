//! One table of a host as diagrams, kept up to date while its rules change.

use super::chain::{ChainLeaves, End, Leaf, RuleId, TableChains};
use super::compile::Compiler;
use super::effects::Effects;
use crate::model::{Host, Rule, Table};
use crate::semantics::sets::Sets;
use crate::space::{Error, Header, Ref};

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
        // What was learned of routes is not kept by name.
        self.sets.forget_routes(&self.host.name);
        self.sets.forget_arrivals(&self.host.name);
        let bases = self.bases.iter_mut().map(|base| &mut base.whole);
        self.sets.store.collect(bases.chain(self.chains.roots()));
    }
}

#[cfg(test)]
mod tests {
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
    fn a_rule_that_closes_a_loop_is_refused() {
        let (host, table) = (Host::default(), read(RULES));
        let mut diagrams = TableDiagrams::new(&host, &table).unwrap();
        let before = endings(&diagrams);
        let rule = read("-A B -j A\n").chains[2].rules[0].clone();
        assert_eq!(diagrams.insert(2, 0, &rule), Err(Error::Loop));
        assert_eq!(endings(&diagrams), before);
    }
}
