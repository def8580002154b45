//! The shortest way from one chain's rules to another's.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::hash::{BuildHasher, Hasher};

use serde::{Deserialize, Serialize};
use similar::{capture_diff_slices, Algorithm, DiffOp};

use crate::model::{Change, Rule, Statement, TableId, Target};

/// One edit of a chain. Rules are named by their numbers, from 1, in the old
/// and in the new chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase", tag = "edit")]
pub enum RuleEdit {
    /// A rule is new.
    Insert {
        /// Its number in the new chain.
        new: usize,
    },
    /// A rule is gone.
    Delete {
        /// Its number in the old chain.
        old: usize,
    },
    /// A rule stands where another stood.
    Replace {
        /// The number of the one that stood there.
        old: usize,
        /// The number of the one that stands there.
        new: usize,
    },
    /// A rule stands elsewhere: taken out here, put in there.
    Move {
        /// Its number in the old chain.
        old: usize,
        /// Its number in the new chain.
        new: usize,
    },
}

/// Whether a rule says more than its statements keep.
fn says_more(rule: &Rule) -> bool {
    // The rate of a limit of nft stands in its text alone.
    rule.statements.iter().any(|s| matches!(s, Statement::Target(Target::Limit { .. })))
}

/// Whether two rules mean the same, whatever their counters, handles and
/// origins, and however they were spelt.
pub(crate) fn same_rule(a: &Rule, b: &Rule) -> bool {
    a.statements == b.statements && a.comment == b.comment && (!says_more(a) || a.text == b.text)
}

/// Feeds a hasher what is written.
struct Hashed<H>(H);

impl<H: Hasher> std::fmt::Write for Hashed<H> {
    fn write_str(&mut self, text: &str) -> std::fmt::Result {
        self.0.write(text.as_bytes());
        Ok(())
    }
}

/// Numbers for rules: equal rules have equal numbers.
#[derive(Default)]
struct Numbers<'r> {
    state: foldhash::fast::RandomState,
    buckets: HashMap<u64, Vec<(&'r Rule, u32)>>,
    next: u32,
}

impl<'r> Numbers<'r> {
    fn of(&mut self, rule: &'r Rule) -> u32 {
        // Rules that are equal are shown alike; there is no hash of them.
        let mut hashed = Hashed(self.state.build_hasher());
        let _ = write!(hashed, "{:?} {:?}", rule.statements, rule.comment);
        let bucket = self.buckets.entry(hashed.0.finish()).or_default();
        if let Some((_, number)) = bucket.iter().find(|(other, _)| same_rule(other, rule)) {
            return *number;
        }
        let number = self.next;
        self.next += 1;
        bucket.push((rule, number));
        number
    }
}

/// What is kept of two chains: pairs of places from 0, rising on both sides.
/// What `forced` names of the old chain is never kept.
fn kept(old: &[Rule], new: &[Rule], forced: &dyn Fn(usize) -> bool) -> Vec<(usize, usize)> {
    let same = |(at, (a, b)): (usize, (&Rule, &Rule))| !forced(at) && same_rule(a, b);
    let start = old.iter().zip(new).enumerate().take_while(|pair| same(*pair)).count();
    let rest = old.len().min(new.len()) - start;
    let ends = old.iter().rev().zip(new.iter().rev()).take(rest).enumerate();
    let end = ends.take_while(|(back, pair)| same((old.len() - 1 - back, *pair))).count();
    let mut pairs: Vec<(usize, usize)> = (0..start).map(|at| (at, at)).collect();

    let mut numbers = Numbers::default();
    let middle = |length: usize| start..length - end;
    let a: Vec<(usize, u32)> = middle(old.len())
        .filter(|at| !forced(*at))
        .filter_map(|at| Some((at, numbers.of(old.get(at)?))))
        .collect();
    let b: Vec<(usize, u32)> =
        middle(new.len()).filter_map(|at| Some((at, numbers.of(new.get(at)?)))).collect();
    // What only one side has cannot be kept, and would only make it slow.
    let count = |list: &[(usize, u32)]| {
        let mut counts = vec![0_u32; numbers.next as usize];
        for (_, number) in list {
            if let Some(count) = counts.get_mut(*number as usize) {
                *count += 1;
            }
        }
        counts
    };
    let (of_a, of_b) = (count(&a), count(&b));
    let both = |number: u32| {
        let in_both = |counts: &[u32]| counts.get(number as usize).is_some_and(|c| *c > 0);
        in_both(&of_a) && in_both(&of_b)
    };
    let a: Vec<(usize, u32)> = a.into_iter().filter(|(_, n)| both(*n)).collect();
    let b: Vec<(usize, u32)> = b.into_iter().filter(|(_, n)| both(*n)).collect();
    if of_a.iter().chain(&of_b).all(|count| *count <= 1) {
        pairs.extend(rising(&a, &b, numbers.next as usize));
    } else {
        let ids = |list: &[(usize, u32)]| list.iter().map(|(_, n)| *n).collect::<Vec<u32>>();
        for op in capture_diff_slices(Algorithm::Myers, &ids(&a), &ids(&b)) {
            if let DiffOp::Equal { old_index, new_index, len } = op {
                let equal = (0..len).filter_map(|i| Some((a.get(old_index + i)?.0, b.get(new_index + i)?.0)));
                pairs.extend(equal);
            }
        }
    }
    pairs.extend((0..end).rev().map(|back| (old.len() - 1 - back, new.len() - 1 - back)));
    pairs
}

/// The longest common subsequence where every rule stands once on each side:
/// the longest run of rising places. Myers' way takes long for chains in
/// another order, this does not.
fn rising(a: &[(usize, u32)], b: &[(usize, u32)], numbers: usize) -> Vec<(usize, usize)> {
    let mut where_b = vec![None; numbers];
    for (at, number) in b {
        if let Some(slot) = where_b.get_mut(*number as usize) {
            *slot = Some(*at);
        }
    }
    let places = a.iter().filter_map(|(at, number)| Some((*at, (*where_b.get(*number as usize)?)?)));
    let places: Vec<(usize, usize)> = places.collect();
    // For each length the run that ends lowest, and for each place the one before.
    let mut ends: Vec<usize> = Vec::new();
    let mut before: Vec<Option<usize>> = vec![None; places.len()];
    for (index, (_, place)) in places.iter().enumerate() {
        let length = ends.partition_point(|end| places.get(*end).is_some_and(|(_, p)| p < place));
        if let Some(slot) = before.get_mut(index) {
            *slot = length.checked_sub(1).and_then(|l| ends.get(l).copied());
        }
        match ends.get_mut(length) {
            Some(end) => *end = index,
            None => ends.push(index),
        }
    }
    let mut run = Vec::with_capacity(ends.len());
    let mut at = ends.last().copied();
    while let Some(index) = at {
        run.extend(places.get(index).copied());
        at = before.get(index).copied().flatten();
    }
    run.reverse();
    run
}

/// A place between kept rules: what goes and what comes there.
struct Gap {
    old: std::ops::Range<usize>,
    new: std::ops::Range<usize>,
}

fn gaps(old: usize, new: usize, kept: &[(usize, usize)]) -> Vec<Gap> {
    let mut gaps = Vec::new();
    let (mut from_old, mut from_new) = (0, 0);
    for (a, b) in kept.iter().copied().chain([(old, new)]) {
        if from_old < a || from_new < b {
            gaps.push(Gap { old: from_old..a, new: from_new..b });
        }
        (from_old, from_new) = (a + 1, b + 1);
    }
    gaps
}

/// How one chain becomes another.
pub(super) struct Script {
    /// The edits, in the order of the chains.
    pub edits: Vec<RuleEdit>,
    /// The changes that must come before others: rules that are in the way.
    pub first: Vec<Change>,
    /// The other changes, each with the place it has when those before are made.
    pub then: Vec<Change>,
}

/// The shortest script. What `forced` names of the old chain goes first.
pub(super) fn script(
    table: &TableId,
    chain: &str,
    old: &[Rule],
    new: &[Rule],
    forced: &dyn Fn(usize) -> bool,
) -> Script {
    let kept = kept(old, new, forced);
    let gaps = gaps(old.len(), new.len(), &kept);
    let moved = moves(old, new, &gaps);
    let mut script = Script { edits: Vec::new(), first: Vec::new(), then: Vec::new() };
    let (id, name) = (|| table.clone(), || chain.to_owned());
    let early = (0..old.len()).rev().filter(|at| forced(*at));
    script.first.extend(early.map(|at| Change::DeleteRule { table: id(), chain: name(), place: at + 1 }));

    let fresh = |at: usize| {
        let rule = new.get(at).cloned();
        rule.map(|rule| Box::new(Rule { handle: None, ..rule }))
    };
    // How long the chain is now; the place where the next change is made is
    // that of the next new rule.
    let mut length = old.len() - script.first.len();
    for gap in &gaps {
        let lone_old: Vec<usize> =
            gap.old.clone().filter(|at| !forced(*at) && !moved.from.contains_key(at)).collect();
        let lone_new: Vec<usize> = gap.new.clone().filter(|at| !moved.to.contains_key(at)).collect();
        let (mut olds, mut news) = (gap.old.clone(), gap.new.clone());
        let pairs = lone_old.iter().copied().zip(lone_new.iter().copied());
        for (old_end, new_end) in pairs.map(|(a, b)| (Some(a), Some(b))).chain([(None, None)]) {
            for at in olds.by_ref().take_while(|at| Some(*at) != old_end) {
                match moved.from.get(&at) {
                    // Said where it was; made in two steps.
                    Some(to) => script.edits.push(RuleEdit::Move { old: at + 1, new: to + 1 }),
                    None => script.edits.push(RuleEdit::Delete { old: at + 1 }),
                }
                if !forced(at) {
                    let place = news.start + 1;
                    script.then.push(Change::DeleteRule { table: id(), chain: name(), place });
                    length -= 1;
                }
            }
            // `take_while` has taken the old one that is replaced; the new one is still there.
            while news.start < new_end.unwrap_or(gap.new.end) {
                let at = news.start;
                news.start += 1;
                if !moved.to.contains_key(&at) {
                    script.edits.push(RuleEdit::Insert { new: at + 1 });
                }
                let Some(rule) = fresh(at) else { continue };
                let place = Some(at + 1).filter(|_| at < length);
                script.then.push(Change::InsertRule { table: id(), chain: name(), place, rule });
                length += 1;
            }
            if let (Some(old_at), Some(at)) = (old_end, new_end) {
                news.start = at + 1;
                script.edits.push(RuleEdit::Replace { old: old_at + 1, new: at + 1 });
                let Some(rule) = fresh(at) else { continue };
                script.then.push(Change::ReplaceRule { table: id(), chain: name(), place: at + 1, rule });
            }
        }
    }
    script
}

/// Rules that go at one place and come at another.
#[derive(Default)]
struct Moves {
    from: HashMap<usize, usize>,
    to: HashMap<usize, usize>,
}

fn moves(old: &[Rule], new: &[Rule], gaps: &[Gap]) -> Moves {
    let mut moves = Moves::default();
    if !gaps.iter().any(|gap| !gap.new.is_empty()) || gaps.iter().all(|gap| gap.old.is_empty()) {
        return moves;
    }
    let mut numbers = Numbers::default();
    let mut gone: HashMap<u32, Vec<usize>> = HashMap::new();
    for at in gaps.iter().rev().flat_map(|gap| gap.old.clone().rev()) {
        if let Some(rule) = old.get(at) {
            gone.entry(numbers.of(rule)).or_default().push(at);
        }
    }
    for at in gaps.iter().flat_map(|gap| gap.new.clone()) {
        let Some(rule) = new.get(at) else { continue };
        if let Some(from) = gone.get_mut(&numbers.of(rule)).and_then(Vec::pop) {
            moves.from.insert(from, at);
            moves.to.insert(at, from);
        }
    }
    moves
}
