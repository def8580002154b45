//! A diagram as a list of spans of one field's values.

use super::store::Cursor;
use super::{Error, Field, Ref, Store};

/// The most spans that a field's values may fall into.
const MOST: usize = 1 << 20;

impl Store {
    /// What is left of a diagram for each value of a field's first `bits`
    /// bits: spans in order, by their first value; each ends where the next
    /// begins. The field's other bits are taken to be 0. Of fields before
    /// this one the diagram must know nothing.
    ///
    /// # Errors
    /// [`Error::Parts`] if there are too many, [`Error::Depth`] if the diagram
    /// depends on fields before this one, and as [`Store::or_else`].
    pub fn spans(&mut self, diagram: Ref, field: Field, bits: u32) -> Result<Vec<(u128, Ref)>, Error> {
        let mut spans = Vec::new();
        if self.node(diagram).is_some_and(|n| n.position < field.bit(0)) {
            return Err(Error::Depth);
        }
        self.span(diagram.into(), (field, bits), 0, 0, &mut spans)?;
        Ok(spans)
    }

    fn span(
        &mut self,
        at: Cursor,
        asked: (Field, u32),
        bit: u32,
        base: u128,
        spans: &mut Vec<(u128, Ref)>,
    ) -> Result<(), Error> {
        let (field, bits) = asked;
        let end = field.bit(0) + field.width();
        let mut at = at;
        while let Some(test) = self.test(at).filter(|t| t.position < end) {
            if test.position < field.bit(0) + bits {
                let done = self.test(test.els.into()).is_none_or(|t| t.position >= end);
                if test.position == field.bit(bit) && done {
                    // One stretch of values, and all others are alike.
                    let size = 1_u128 << (bits - bit - test.len);
                    let low = base | (u128::from(test.pattern) * size);
                    if low > base {
                        self.push_span(base, test.els, spans)?;
                    }
                    let then = self.pass(at, test.len);
                    self.span(then, asked, bit + test.len, low, spans)?;
                    let all = (u128::MAX >> (128 - bits)) >> bit;
                    if low - base + (size - 1) < all {
                        self.push_span(low + size, test.els, spans)?;
                    }
                    return Ok(());
                }
                let (zero, one) = if test.position > field.bit(bit) {
                    (at, at)
                } else {
                    let (same, other) = (self.pass(at, 1), test.els.into());
                    if test.pattern >> (test.len - 1) & 1 == 1 {
                        (other, same)
                    } else {
                        (same, other)
                    }
                };
                self.span(zero, asked, bit + 1, base, spans)?;
                return self.span(one, asked, bit + 1, base | (1 << (bits - 1 - bit)), spans);
            }
            // Past what is asked: zeros.
            let zero = test.pattern >> (test.len - 1) & 1 == 0;
            at = if zero { self.pass(at, 1) } else { test.els.into() };
        }
        let left = self.settle(at)?;
        self.push_span(base, left, spans)
    }

    fn push_span(&self, first: u128, left: Ref, spans: &mut Vec<(u128, Ref)>) -> Result<(), Error> {
        if spans.last().is_none_or(|(_, last)| *last != left) {
            if spans.len() >= MOST {
                return Err(Error::Parts { most: MOST });
            }
            spans.push((first, left));
        }
        Ok(())
    }
}
