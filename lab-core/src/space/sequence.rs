//! One diagram, then another, where the first may change the packet between.

use super::store::{Cursor, Test, DEPTH};
use super::{Error, Field, Ref, Store};

/// Set in the leaves after which [`Store::sequence`] goes on.
pub const OPEN: u32 = 1 << 30;

/// What comes of a diagram after an open leaf.
pub type Then<'t> = &'t mut dyn FnMut(&mut Store, u32, Ref) -> Result<Ref, Error>;

/// Where a run of bits (place, length, pattern) is as wanted after a change;
/// none: it is as before.
pub type Changes<'c> = &'c mut dyn FnMut(&mut Store, u32, u32, u32) -> Result<Option<Ref>, Error>;

type Changed = std::collections::HashMap<Ref, Ref, rustc_hash::FxBuildHasher>;

impl Store {
    /// Does `a`, then `b` where `a` decides nothing: where it says nothing, or
    /// where its leaf is [`OPEN`]; `then` says what `b` comes to after such a
    /// leaf. Leaves that are open must mean the same in every call.
    ///
    /// What open leaves change are mutable fields, so those of `b` are left as
    /// they are until it is known what `a` made of them.
    ///
    /// # Errors
    /// As [`Store::or_else`].
    pub fn sequence(&mut self, a: Ref, b: Ref, then: Then) -> Result<Ref, Error> {
        self.sequence_at(a.into(), b.into(), then, 0)
    }

    fn sequence_at(&mut self, a: Cursor, b: Cursor, then: Then, depth: u32) -> Result<Ref, Error> {
        const MUTABLE: u32 = Field::Tos.word() as u32 * 32;
        const CODE: u32 = 4;
        match a.at.value() {
            Some(0) => return self.settle(b),
            Some(leaf) if leaf & OPEN == 0 => return Ok(a.at),
            Some(leaf) => {
                let b = self.settle(b)?;
                return then(self, leaf, b);
            }
            None if b.at.is_none() => return self.settle(a),
            None => {}
        }
        if depth > DEPTH {
            return Err(Error::Depth);
        }
        let what = CODE << 16 | a.passed << 8 | b.passed;
        if let Some(found) = self.recall(a, b, what) {
            return Ok(found);
        }
        let late = |test: Option<Test>| test.is_none_or(|t| t.position >= MUTABLE);
        let result = match self.test(a) {
            Some(test) if late(Some(test)) && late(self.test(b)) => {
                let yes = self.sequence_at(self.pass(a, test.len), b, then, depth + 1)?;
                let no = self.sequence_at(test.els.into(), b, then, depth + 1)?;
                let condition = self.run(test.position, test.len, test.pattern, Ref::ALL, Ref::NONE)?;
                self.choose(condition, yes, no)?
            }
            _ => {
                let step = self.step(a, b);
                let yes = self.sequence_at(step.then.0, step.then.1, then, depth + 1)?;
                let no = self.sequence_at(step.els.0, step.els.1, then, depth + 1)?;
                self.run(step.position, step.len, step.pattern, yes, no)?
            }
        };
        self.remember(a, b, what, result);
        Ok(result)
    }

    /// A diagram of the packet after some mutable fields were changed, told by
    /// the packet before, with its leaves replaced: `bits` says where a run of
    /// bits (place, length, pattern) is as wanted afterwards; none: they are
    /// as before.
    ///
    /// # Errors
    /// As [`Store::or_else`].
    pub fn after_change(
        &mut self,
        diagram: Ref,
        bits: Changes,
        leaf: &mut dyn FnMut(u32) -> Ref,
    ) -> Result<Ref, Error> {
        let mut memo = Changed::default();
        self.changed_at(diagram, bits, leaf, &mut memo, 0)
    }

    fn changed_at(
        &mut self,
        at: Ref,
        bits: Changes,
        leaf: &mut dyn FnMut(u32) -> Ref,
        memo: &mut Changed,
        depth: u32,
    ) -> Result<Ref, Error> {
        if let Some(found) = memo.get(&at) {
            return Ok(*found);
        }
        if depth > DEPTH {
            return Err(Error::Depth);
        }
        let result = match (at.value(), self.node(at)) {
            (Some(value), _) => leaf(value),
            (None, None) => at,
            (None, Some(node)) => {
                let then = self.changed_at(node.then, bits, leaf, memo, depth + 1)?;
                let els = self.changed_at(node.els, bits, leaf, memo, depth + 1)?;
                match bits(self, node.position, node.len, node.pattern)? {
                    None => self.run(node.position, node.len, node.pattern, then, els)?,
                    Some(condition) => self.choose(condition, then, els)?,
                }
            }
        };
        memo.insert(at, result);
        Ok(result)
    }
}
