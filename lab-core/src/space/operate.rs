//! Operations on two diagrams at once: first match, intersection, difference.

use super::store::{Cursor, Test, DEPTH};
use super::{Error, Ref, Store};

/// A binary operation: its code in the cache, and what it is where no bit is
/// left to look at, or already clear.
pub(super) trait Operation {
    /// Which operation it is, from 1; each has its own code.
    const CODE: u32;
    /// The result, where it is clear.
    fn end(a: Ref, b: Ref) -> Option<Ref>;
}

/// `a`, and `b` where `a` says nothing: first match wins; union of sets.
pub(super) struct OrElse;
/// `b` where `a` holds: intersection of sets.
pub(super) struct Guard;
/// `a` where `b` does not hold: difference of sets.
pub(super) struct Without;

impl Operation for OrElse {
    const CODE: u32 = 1;
    fn end(a: Ref, b: Ref) -> Option<Ref> {
        match () {
            () if a.is_none() => Some(b),
            () if a.value().is_some() || b.is_none() || a == b => Some(a),
            () => None,
        }
    }
}

impl Operation for Guard {
    const CODE: u32 = 2;
    fn end(a: Ref, b: Ref) -> Option<Ref> {
        match () {
            () if a.is_none() || b.is_none() => Some(Ref::NONE),
            () if a.value().is_some() => Some(b),
            () => None,
        }
    }
}

impl Operation for Without {
    const CODE: u32 = 3;
    fn end(a: Ref, b: Ref) -> Option<Ref> {
        match () {
            () if a.is_none() || a == b => Some(Ref::NONE),
            () if b.is_none() => Some(a),
            () if b.value().is_some() => Some(Ref::NONE),
            () => None,
        }
    }
}

/// The leaf for two that differ.
pub type Pair<'p> = &'p mut dyn FnMut(u32, u32) -> Ref;

type Memo = std::collections::HashMap<(Cursor, Cursor), Ref, rustc_hash::FxBuildHasher>;

/// How two diagrams are split.
pub(super) struct Step {
    pub position: u32,
    pub len: u32,
    pub pattern: u32,
    pub then: (Cursor, Cursor),
    pub els: (Cursor, Cursor),
}

impl Store {
    pub(super) fn apply<O: Operation>(&mut self, a: Ref, b: Ref) -> Result<Ref, Error> {
        self.apply_at::<O>(a.into(), b.into(), 0)
    }

    fn apply_at<O: Operation>(&mut self, a: Cursor, b: Cursor, depth: u32) -> Result<Ref, Error> {
        if a.passed == 0 && b.passed == 0 {
            if let Some(result) = O::end(a.at, b.at) {
                return Ok(result);
            }
        } else if a == b || a.at.value().is_some() || b.at.value().is_some() {
            // One side has nothing left to test. A leaf as result is right
            // whatever is passed; else the other side needs a node of its own.
            match O::end(a.at, b.at) {
                Some(result) if result.value().is_some() => return Ok(result),
                _ => {}
            }
            let (a, b) = (self.settle(a)?, self.settle(b)?);
            if let Some(result) = O::end(a, b) {
                return Ok(result);
            }
        }
        if depth > DEPTH {
            return Err(Error::Depth);
        }
        let what = O::CODE << 16 | a.passed << 8 | b.passed;
        if let Some(found) = self.recall(a, b, what) {
            return Ok(found);
        }
        let step = self.step(a, b);
        let then = self.apply_at::<O>(step.then.0, step.then.1, depth + 1)?;
        let els = self.apply_at::<O>(step.els.0, step.els.1, depth + 1)?;
        let result = self.run(step.position, step.len, step.pattern, then, els)?;
        self.remember(a, b, what, result);
        Ok(result)
    }

    /// The test that two diagrams are to be split by, and where each is then.
    /// One of them at least must have a test left.
    pub(super) fn step(&self, a: Cursor, b: Cursor) -> Step {
        let (ta, tb) = (self.test(a), self.test(b));
        let far = |t: &Option<Test>| t.map_or(u32::MAX, |t| t.position);
        match (ta, tb) {
            (Some(ta), Some(tb)) if ta.position == tb.position => {
                let most = ta.len.min(tb.len);
                let differ = (ta.pattern >> (ta.len - most)) ^ (tb.pattern >> (tb.len - most));
                let same = if differ == 0 { most } else { most - (32 - differ.leading_zeros()) };
                if same == 0 {
                    return Step {
                        position: ta.position,
                        len: 1,
                        pattern: ta.pattern >> (ta.len - 1),
                        then: (self.pass(a, 1), tb.els.into()),
                        els: (ta.els.into(), self.pass(b, 1)),
                    };
                }
                Step {
                    position: ta.position,
                    len: same,
                    pattern: ta.pattern >> (ta.len - same),
                    then: (self.pass(a, same), self.pass(b, same)),
                    els: (ta.els.into(), tb.els.into()),
                }
            }
            (Some(ta), _) if ta.position < far(&tb) => {
                let len = ta.len.min(far(&tb) - ta.position);
                Step {
                    position: ta.position,
                    len,
                    pattern: ta.pattern >> (ta.len - len),
                    then: (self.pass(a, len), b),
                    els: (ta.els.into(), b),
                }
            }
            (_, Some(tb)) => {
                let len = tb.len.min(far(&ta) - tb.position);
                Step {
                    position: tb.position,
                    len,
                    pattern: tb.pattern >> (tb.len - len),
                    then: (a, self.pass(b, len)),
                    els: (a, tb.els.into()),
                }
            }
            // Callers end at two leaves; an empty test leads nowhere else.
            _ => Step { position: 0, len: 0, pattern: 0, then: (a, b), els: (a, b) },
        }
    }

    /// `a`, and `b` where `a` says nothing.
    ///
    /// # Errors
    /// If the store's budget is used up, or a diagram is too deep.
    pub fn or_else(&mut self, a: Ref, b: Ref) -> Result<Ref, Error> {
        self.apply::<OrElse>(a, b)
    }

    /// `b` where the set `a` holds, else nothing.
    ///
    /// # Errors
    /// As [`Store::or_else`].
    pub fn guard(&mut self, a: Ref, b: Ref) -> Result<Ref, Error> {
        self.apply::<Guard>(a, b)
    }

    /// `a` where `b` says nothing, else nothing.
    ///
    /// # Errors
    /// As [`Store::or_else`].
    pub fn without(&mut self, a: Ref, b: Ref) -> Result<Ref, Error> {
        self.apply::<Without>(a, b)
    }

    /// Where two diagrams differ: `pair` gives the leaf for two that do, and
    /// is not asked about leaves that are the same.
    ///
    /// Cost: those parts of the two that are not shared.
    ///
    /// # Errors
    /// As [`Store::or_else`].
    pub fn differ(&mut self, a: Ref, b: Ref, pair: Pair) -> Result<Ref, Error> {
        let mut memo = Memo::default();
        self.differ_at(a.into(), b.into(), pair, &mut memo, 0)
    }

    fn differ_at(
        &mut self,
        a: Cursor,
        b: Cursor,
        pair: Pair,
        memo: &mut Memo,
        depth: u32,
    ) -> Result<Ref, Error> {
        if a == b {
            return Ok(Ref::NONE);
        }
        if let (Some(x), Some(y)) = (a.at.value(), b.at.value()) {
            return Ok(if x == y { Ref::NONE } else { pair(x, y) });
        }
        if depth > DEPTH {
            return Err(Error::Depth);
        }
        if let Some(found) = memo.get(&(a, b)) {
            return Ok(*found);
        }
        let step = self.step(a, b);
        let then = self.differ_at(step.then.0, step.then.1, pair, memo, depth + 1)?;
        let els = self.differ_at(step.els.0, step.els.1, pair, memo, depth + 1)?;
        let result = self.run(step.position, step.len, step.pattern, then, els)?;
        memo.insert((a, b), result);
        Ok(result)
    }

    /// All but the set.
    ///
    /// # Errors
    /// As [`Store::or_else`].
    pub fn not(&mut self, a: Ref) -> Result<Ref, Error> {
        self.apply::<Without>(Ref::ALL, a)
    }

    /// `then` where the set holds, else `els`.
    ///
    /// # Errors
    /// As [`Store::or_else`].
    pub fn choose(&mut self, set: Ref, then: Ref, els: Ref) -> Result<Ref, Error> {
        let then = self.guard(set, then)?;
        let els = self.without(els, set)?;
        self.or_else(then, els)
    }
}
