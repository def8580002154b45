//! Following, renaming and fixing the fields of diagrams: how a condition on
//! a packet as it is now becomes one on the packet as it was sent, and how a
//! set is carried through a rewrite.

use std::collections::HashMap;

use super::operate::Step;
use super::store::{Cursor, Test};
use super::{is_oracle, Error, Field, Ref, Store, WORDS};

/// What a field of the present packet is, told by the fields of another (the
/// packet as it was sent).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Source {
    /// The field that gives the bits that are not known.
    pub field: Field,
    /// The bits that are known.
    pub mask: u128,
    /// What they are.
    pub value: u128,
}

impl Source {
    /// A field as it is.
    pub const fn keep(field: Field) -> Self {
        Source { field, mask: 0, value: 0 }
    }

    /// This value.
    pub const fn constant(field: Field, value: u128) -> Self {
        Source { field, mask: u128::MAX, value }
    }

    /// What the field is, where the one that gives the rest is `bits`.
    pub const fn of(self, bits: u128) -> u128 {
        (bits & !self.mask) | (self.value & self.mask)
    }
}

/// For each word: the bits known, what they are, and the word that gives the
/// rest.
#[derive(Clone, Copy, Debug)]
struct Words {
    known: [u32; WORDS],
    value: [u32; WORDS],
    from: [u16; WORDS],
}

/// What each field of the present packet is.
#[derive(Clone, Debug)]
pub struct Mapping {
    words: Box<Words>,
    /// Whether a field takes the place of another.
    moves: bool,
}

impl Default for Mapping {
    fn default() -> Self {
        let mut from = [0; WORDS];
        for (word, place) in from.iter_mut().enumerate() {
            *place = word as u16;
        }
        Mapping { words: Box::new(Words { known: [0; WORDS], value: [0; WORDS], from }), moves: false }
    }
}

impl From<&super::Cube> for Mapping {
    /// The bits of a cube are known, all others as they are.
    fn from(cube: &super::Cube) -> Self {
        let mut mapping = Mapping::default();
        for (word, mask, value) in cube.bits() {
            mapping.words.known[word] = mask;
            mapping.words.value[word] = value;
        }
        mapping
    }
}

impl Mapping {
    /// Sets what a field is.
    pub fn set(&mut self, field: Field, source: Source) {
        let Source { field: other, mask, value } = source;
        let words = field.words();
        for i in 0..words {
            let shift = 32 * (words - 1 - i) as u32;
            let word = field.word() + i;
            self.words.known[word] = (mask >> shift) as u32;
            self.words.value[word] = (value >> shift) as u32;
            self.words.from[word] = if i < other.words() { (other.word() + i) as u16 } else { word as u16 };
        }
        self.moves = self
            .words
            .from
            .iter()
            .enumerate()
            .any(|(w, f)| usize::from(*f) != w && self.words.known[w] != u32::MAX);
    }

    /// What the first bits of a test are, if they are known: how many, and
    /// whether they are as wanted.
    fn known(&self, test: &Test) -> Option<(u32, bool)> {
        let word = (test.position >> 5) as usize;
        let known = *self.words.known.get(word)?;
        if known == 0 {
            return None;
        }
        let offset = test.position & 31;
        let run = (known << offset).leading_ones().min(test.len);
        if run == 0 {
            return None;
        }
        let value = (self.words.value[word] << offset) >> (32 - run);
        Some((run, value == test.pattern >> (test.len - run)))
    }

    /// How many bits of a test may be passed on before the next known one.
    fn free(&self, test: &Test) -> u32 {
        let word = (test.position >> 5) as usize;
        let known = self.words.known.get(word).copied().unwrap_or(0);
        (known << (test.position & 31)).leading_zeros().min(test.len)
    }

    /// Where a bit comes from.
    fn place(&self, position: u32) -> u32 {
        match self.words.from.get((position >> 5) as usize) {
            Some(word) if !is_oracle(position) => u32::from(*word) * 32 + (position & 31),
            _ => position,
        }
    }
}

type Memo = HashMap<(Cursor, Cursor), Ref, rustc_hash::FxBuildHasher>;
type Single = HashMap<Cursor, Ref, rustc_hash::FxBuildHasher>;

impl Store {
    /// `diagram` of the present packet, told by the packet as sent, within
    /// `set` of those; nothing outside.
    ///
    /// Cost: that part of the diagram that the set admits; more if fields
    /// change places.
    ///
    /// # Errors
    /// As [`Store::or_else`].
    pub fn pull_back(&mut self, set: Ref, diagram: Ref, mapping: &Mapping) -> Result<Ref, Error> {
        if set.is_none() || diagram.is_none() {
            return Ok(Ref::NONE);
        }
        if mapping.moves {
            let moved = self.renamed(diagram.into(), mapping, &mut Single::default(), 0)?;
            return self.guard(set, moved);
        }
        let mut memo = Memo::default();
        self.within(set.into(), diagram.into(), mapping, &mut memo, 0)
    }

    fn within(
        &mut self,
        set: Cursor,
        at: Cursor,
        mapping: &Mapping,
        memo: &mut Memo,
        depth: u32,
    ) -> Result<Ref, Error> {
        // Follow what is known.
        let mut at = at;
        while let Some(test) = self.test(at) {
            match mapping.known(&test) {
                None => break,
                Some((run, true)) => at = self.pass(at, run),
                Some((_, false)) => at = test.els.into(),
            }
        }
        if set.at.is_none() || at.at.is_none() {
            return Ok(Ref::NONE);
        }
        if at.at.value().is_some() {
            let set = self.settle(set)?;
            return self.guard(set, at.at);
        }
        if depth > 4000 {
            return Err(Error::Depth);
        }
        if let Some(found) = memo.get(&(set, at)) {
            return Ok(*found);
        }
        let mut step = self.step(set, at);
        // Do not run past a bit that is known.
        if let Some(test) = self.test(at).filter(|t| t.position == step.position) {
            let free = mapping.free(&test);
            if free < step.len && step.len > 1 {
                let cut = free.max(1);
                step = self.cut(set, at, step.position, cut, step.pattern >> (step.len - cut));
            }
        }
        let then = self.within(step.then.0, step.then.1, mapping, memo, depth + 1)?;
        let els = self.within(step.els.0, step.els.1, mapping, memo, depth + 1)?;
        let result = self.run(step.position, step.len, step.pattern, then, els)?;
        memo.insert((set, at), result);
        Ok(result)
    }

    /// A step of fewer bits than both sides agree on.
    fn cut(&self, a: Cursor, b: Cursor, position: u32, len: u32, pattern: u32) -> Step {
        let side = |c: Cursor| match self.test(c) {
            Some(test) if test.position == position => (self.pass(c, len), test.els.into()),
            _ => (c, c),
        };
        let ((a_then, a_els), (b_then, b_els)) = (side(a), side(b));
        Step { position, len, pattern, then: (a_then, b_then), els: (a_els, b_els) }
    }

    /// A diagram with fields fixed and in other places.
    fn renamed(
        &mut self,
        at: Cursor,
        mapping: &Mapping,
        memo: &mut Single,
        depth: u32,
    ) -> Result<Ref, Error> {
        let mut at = at;
        let test = loop {
            let Some(test) = self.test(at) else { return Ok(at.at) };
            match mapping.known(&test) {
                None => break test,
                Some((run, true)) => at = self.pass(at, run),
                Some((_, false)) => at = test.els.into(),
            }
        };
        if depth > 4000 {
            return Err(Error::Depth);
        }
        if let Some(found) = memo.get(&at) {
            return Ok(*found);
        }
        let len = mapping.free(&test).max(1);
        let then = self.pass(at, len);
        let then = self.renamed(then, mapping, memo, depth + 1)?;
        let els = self.renamed(test.els.into(), mapping, memo, depth + 1)?;
        let place = mapping.place(test.position);
        let condition = self.run(place, len, test.pattern >> (test.len - len), Ref::ALL, Ref::NONE)?;
        let result = self.choose(condition, then, els)?;
        memo.insert(at, result);
        Ok(result)
    }

    /// A diagram with each leaf replaced by another diagram's leaf.
    ///
    /// # Errors
    /// As [`Store::or_else`].
    pub fn map_leaves(&mut self, diagram: Ref, leaf: &mut dyn FnMut(u32) -> Ref) -> Result<Ref, Error> {
        let mut memo: HashMap<Ref, Ref, rustc_hash::FxBuildHasher> = HashMap::default();
        self.map_at(diagram, leaf, &mut memo, 0)
    }

    fn map_at(
        &mut self,
        at: Ref,
        leaf: &mut dyn FnMut(u32) -> Ref,
        memo: &mut HashMap<Ref, Ref, rustc_hash::FxBuildHasher>,
        depth: u32,
    ) -> Result<Ref, Error> {
        if let Some(found) = memo.get(&at) {
            return Ok(*found);
        }
        if depth > 4000 {
            return Err(Error::Depth);
        }
        let result = match (at.value(), self.node(at)) {
            (Some(value), _) => leaf(value),
            (None, Some(node)) => {
                let then = self.map_at(node.then, leaf, memo, depth + 1)?;
                let els = self.map_at(node.els, leaf, memo, depth + 1)?;
                self.run(node.position, node.len, node.pattern, then, els)?
            }
            (None, None) => at,
        };
        memo.insert(at, result);
        Ok(result)
    }

    /// The set where a diagram has one of these leaves.
    ///
    /// # Errors
    /// As [`Store::or_else`].
    pub fn where_leaf(&mut self, diagram: Ref, wanted: &dyn Fn(u32) -> bool) -> Result<Ref, Error> {
        self.map_leaves(diagram, &mut |value| if wanted(value) { Ref::ALL } else { Ref::NONE })
    }

    /// The leaves of a diagram but 0, each once, sorted.
    pub fn leaves(&self, diagram: Ref) -> Vec<u32> {
        let mut seen = std::collections::HashSet::<Ref, rustc_hash::FxBuildHasher>::default();
        let mut found = std::collections::BTreeSet::new();
        let mut stack = vec![diagram];
        while let Some(at) = stack.pop() {
            if !seen.insert(at) {
                continue;
            }
            match (at.value(), self.node(at)) {
                (Some(0), _) | (None, None) => {}
                (Some(value), _) => {
                    found.insert(value);
                }
                (None, Some(node)) => stack.extend([node.then, node.els]),
            }
        }
        found.into_iter().collect()
    }

    /// Splits a diagram by its leaves but 0: for each the set where it *may*
    /// be the leaf, however unknowable conditions turn out, and the set where
    /// it *must* be.
    ///
    /// # Errors
    /// As [`Store::or_else`].
    pub fn split(&mut self, diagram: Ref) -> Result<Vec<(u32, Ref, Ref)>, Error> {
        let mut parts = Vec::new();
        for leaf in self.leaves(diagram) {
            let set = self.where_leaf(diagram, &|value| value == leaf)?;
            let may = self.forget(set, &is_oracle, true)?;
            let must = self.forget(set, &is_oracle, false)?;
            parts.push((leaf, may, must));
        }
        Ok(parts)
    }

    /// A set without all bits but a field's: the values that the field has.
    ///
    /// # Errors
    /// As [`Store::or_else`].
    pub fn values_of(&mut self, set: Ref, field: Field) -> Result<Ref, Error> {
        let bits = field.bit(0)..field.bit(0) + field.width();
        self.forget(set, &|p| !bits.contains(&p), true)
    }

    /// A set without some of its bits: where it holds for some value of them
    /// (`some`), or for every one.
    ///
    /// # Errors
    /// As [`Store::or_else`].
    pub fn forget(&mut self, set: Ref, which: &dyn Fn(u32) -> bool, some: bool) -> Result<Ref, Error> {
        let mut memo: HashMap<Ref, Ref, rustc_hash::FxBuildHasher> = HashMap::default();
        self.forget_at(set, which, some, &mut memo, 0)
    }

    fn forget_at(
        &mut self,
        at: Ref,
        which: &dyn Fn(u32) -> bool,
        some: bool,
        memo: &mut HashMap<Ref, Ref, rustc_hash::FxBuildHasher>,
        depth: u32,
    ) -> Result<Ref, Error> {
        let Some(node) = self.node(at).filter(|_| at.value().is_none()) else { return Ok(at) };
        if let Some(found) = memo.get(&at) {
            return Ok(*found);
        }
        if depth > 4000 {
            return Err(Error::Depth);
        }
        let then = self.forget_at(node.then, which, some, memo, depth + 1)?;
        let els = self.forget_at(node.els, which, some, memo, depth + 1)?;
        let mut result = then;
        // From the last tested bit up: those that stay all at once.
        let mut done = 0;
        while done < node.len {
            let last = node.position + node.len - 1 - done;
            let stay = (0..node.len - done).take_while(|back| !which(last - back)).count() as u32;
            result = match (stay, some) {
                (0, true) => self.or_else(result, els)?,
                (0, false) => self.guard(result, els)?,
                _ if stay == node.len && (then, els) == (node.then, node.els) => at,
                _ => {
                    let pattern = node.pattern >> done & (u32::MAX >> (32 - stay));
                    self.run(last + 1 - stay, stay, pattern, result, els)?
                }
            };
            done += stay.max(1);
        }
        memo.insert(at, result);
        Ok(result)
    }

    /// The image of a set when a field is overwritten: some bits of it become
    /// known.
    ///
    /// # Errors
    /// As [`Store::or_else`].
    pub fn overwrite(&mut self, set: Ref, field: Field, mask: u128, value: u128) -> Result<Ref, Error> {
        let base = field.bit(0);
        let width = field.width();
        let hit = |position: u32| {
            let end = base + width;
            position >= base && position < end && mask >> (end - 1 - position) & 1 == 1
        };
        let left = self.forget(set, &hit, true)?;
        let now = self.bits(field, super::Bits { mask, value })?;
        self.guard(now, left)
    }
}

impl Store {
    /// The oracles that a diagram depends on, by number, sorted.
    pub fn oracles(&self, diagram: Ref) -> Vec<u32> {
        let mut seen = std::collections::HashSet::<Ref, rustc_hash::FxBuildHasher>::default();
        let mut found = std::collections::BTreeSet::new();
        let mut stack = vec![diagram];
        while let Some(at) = stack.pop() {
            if at.value().is_some() || !seen.insert(at) {
                continue;
            }
            let Some(node) = self.node(at) else { continue };
            if is_oracle(node.position) {
                found.extend(node.position - super::oracle(0)..node.position + node.len - super::oracle(0));
            }
            stack.extend([node.then, node.els]);
        }
        found.into_iter().collect()
    }
}
