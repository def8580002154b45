//! Conjunctions of bits, as most rules are: made into diagrams without any
//! merging.

use super::{Bits, Error, Field, Ref, Store};

/// Some bits of the words of a header, and what they should be.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Word {
    place: u16,
    mask: u32,
    value: u32,
}

/// Headers with certain bits: a conjunction of conditions on whole fields,
/// prefixes, or masks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Cube {
    words: [Word; Cube::WORDS],
    len: usize,
}

/// Why a condition was not added to a cube.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotAdded {
    /// It contradicts what is there.
    Never,
    /// The cube is full.
    Full,
}

impl Cube {
    /// Two IPv6 addresses, and eight fields of one word.
    const WORDS: usize = 16;

    fn words(&self) -> &[Word] {
        self.words.get(..self.len).unwrap_or_default()
    }

    /// Its words: place, mask and value.
    pub(super) fn bits(&self) -> impl Iterator<Item = (usize, u32, u32)> + '_ {
        self.words().iter().map(|w| (usize::from(w.place), w.mask, w.value))
    }

    /// Whether nothing is asked.
    pub fn is_everything(&self) -> bool {
        self.len == 0
    }

    /// Asks for more.
    ///
    /// # Errors
    /// Whatever keeps it from being added; some of its bits may have been.
    pub fn add(&mut self, field: Field, bits: Bits) -> Result<(), NotAdded> {
        let words = field.words();
        for i in 0..words {
            let shift = 32 * (words - 1 - i) as u32;
            let (mask, value) = ((bits.mask >> shift) as u32, (bits.value >> shift) as u32);
            if mask != 0 {
                self.add_word(Word { place: (field.word() + i) as u16, mask, value: value & mask })?;
            }
        }
        Ok(())
    }

    fn add_word(&mut self, new: Word) -> Result<(), NotAdded> {
        let at = self.words().iter().position(|w| w.place >= new.place).unwrap_or(self.len);
        match self.words.get_mut(at) {
            Some(word) if at < self.len && word.place == new.place => {
                if (word.value ^ new.value) & word.mask & new.mask != 0 {
                    return Err(NotAdded::Never);
                }
                word.mask |= new.mask;
                word.value |= new.value;
                Ok(())
            }
            _ if self.len == Self::WORDS => Err(NotAdded::Full),
            _ => {
                self.words.copy_within(at..self.len, at + 1);
                self.words[at] = new;
                self.len += 1;
                Ok(())
            }
        }
    }

    /// Asks for all that another does.
    ///
    /// # Errors
    /// As [`Cube::add`].
    pub fn and(&mut self, other: &Cube) -> Result<(), NotAdded> {
        other.words().iter().try_for_each(|word| self.add_word(*word))
    }

    /// Whether every header of it is one of the other's, too.
    pub fn implies(&self, other: &Cube) -> bool {
        other.words().iter().all(|theirs| {
            let mine = self.words().iter().find(|w| w.place == theirs.place);
            mine.is_some_and(|w| theirs.mask & !w.mask == 0 && (w.value ^ theirs.value) & theirs.mask == 0)
        })
    }

    /// Whether some header is in both.
    pub fn meets(&self, other: &Cube) -> bool {
        // Both are in the order of places.
        let (mut mine, mut theirs) = (self.words().iter(), other.words().iter());
        let (mut a, mut b) = (mine.next(), theirs.next());
        while let (Some(x), Some(y)) = (a, b) {
            match x.place.cmp(&y.place) {
                std::cmp::Ordering::Less => a = mine.next(),
                std::cmp::Ordering::Greater => b = theirs.next(),
                std::cmp::Ordering::Equal => {
                    if (x.value ^ y.value) & x.mask & y.mask != 0 {
                        return false;
                    }
                    (a, b) = (mine.next(), theirs.next());
                }
            }
        }
        true
    }

    /// What is left to ask of headers of another cube; none: they never meet
    /// it.
    #[must_use]
    pub fn within(&self, known: &Cube) -> Option<Cube> {
        let mut left = Cube::default();
        for word in self.words() {
            let mut mask = word.mask;
            if let Some(told) = known.words().iter().find(|w| w.place == word.place) {
                if (told.value ^ word.value) & told.mask & mask != 0 {
                    return None;
                }
                mask &= !told.mask;
            }
            if mask != 0 {
                left.words[left.len] = Word { mask, value: word.value & mask, ..*word };
                left.len += 1;
            }
        }
        Some(left)
    }
}

impl Store {
    fn words_to(&mut self, words: &[Word], then: Ref, els: Ref) -> Result<Ref, Error> {
        words
            .iter()
            .rev()
            .try_fold(then, |then, w| self.word_to(w.place.into(), (w.mask, w.value), then, els))
    }

    /// The headers of a cube, or what it leaves out.
    ///
    /// # Errors
    /// As [`Store::or_else`].
    pub fn cube(&mut self, cube: &Cube, invert: bool) -> Result<Ref, Error> {
        let (then, els) = if invert { (Ref::NONE, Ref::ALL) } else { (Ref::ALL, Ref::NONE) };
        self.words_to(cube.words(), then, els)
    }

    /// A diagram outside of a cube; nothing within.
    ///
    /// # Errors
    /// As [`Store::or_else`].
    pub fn outside_cube(&mut self, cube: &Cube, diagram: Ref) -> Result<Ref, Error> {
        let top = self.node(diagram).map_or(u32::MAX, |n| n.position >> 5);
        if cube.words().iter().all(|w| u32::from(w.place) < top) {
            return self.words_to(cube.words(), Ref::NONE, diagram);
        }
        let outside = self.cube(cube, true)?;
        self.guard(outside, diagram)
    }

    /// A diagram within a cube; nothing outside.
    ///
    /// # Errors
    /// As [`Store::or_else`].
    pub fn within_cube(&mut self, cube: &Cube, diagram: Ref) -> Result<Ref, Error> {
        if diagram.is_none() {
            return Ok(Ref::NONE);
        }
        // What comes before all of the diagram's tests is put on top of it.
        let top = self.node(diagram).map_or(u32::MAX, |n| n.position >> 5);
        let words = cube.words();
        let above = words.partition_point(|w| u32::from(w.place) < top);
        let (above, below) = words.split_at(above);
        let mut result = diagram;
        if !below.is_empty() {
            let below = self.words_to(below, Ref::ALL, Ref::NONE)?;
            result = self.guard(below, result)?;
        }
        self.words_to(above, result, Ref::NONE)
    }
}
