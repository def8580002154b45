//! What rules change of a packet on the way to their verdict, as values that
//! can be put one after the other.

use crate::model::{MarkOperation, TtlOperation};
use crate::space::{tracking, Error, Field, Ref, Store};

/// A mark after some rules: `(own & keep) ^ (other & from) ^ flip`, where the
/// other is the connection's mark for the packet's, and the packet's for the
/// connection's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Marking {
    /// Bits of its own that stay.
    pub keep: u32,
    /// Bits of the other mark that are flipped in.
    pub from: u32,
    /// Bits flipped at last.
    pub flip: u32,
}

impl Marking {
    pub(super) const KEPT: Marking = Marking { keep: u32::MAX, from: 0, flip: 0 };

    fn apply(self, own: u32, other: u32) -> u32 {
        (own & self.keep) ^ (other & self.from) ^ self.flip
    }

    /// This after `own` and `other` were changed before.
    fn after(self, own: Marking, other: Marking) -> Marking {
        Marking {
            keep: (own.keep & self.keep) ^ (other.from & self.from),
            from: (own.from & self.keep) ^ (other.keep & self.from),
            flip: (own.flip & self.keep) ^ (other.flip & self.from) ^ self.flip,
        }
    }
}

/// How packets are to be tracked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Tracking {
    /// As was said before.
    Kept,
    /// Not at all.
    Untracked,
    /// In these zones, of the original and the reply direction.
    Zones(u16, u16),
}

impl Tracking {
    /// This, and then what rules say of packets as they were, and of packets
    /// that are not to be tracked. Zones once given stay.
    fn then(self, next: Tracking, untracked: Tracking) -> Tracking {
        match self {
            Tracking::Kept => next,
            Tracking::Untracked if untracked != Tracking::Kept => untracked,
            stays => stays,
        }
    }

    fn number(self, before: u32) -> u32 {
        match self {
            Tracking::Kept => before,
            Tracking::Untracked => tracking::UNTRACKED,
            Tracking::Zones(..) => tracking::TEMPLATE,
        }
    }
}

/// Everything that rules change but NAT.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Effects {
    /// The packet's mark.
    pub mark: Marking,
    /// The connection's mark.
    pub connection_mark: Marking,
    /// Type of service: bits that stay, bits flipped after.
    pub tos: (u8, u8),
    /// TTL, step by step.
    pub ttl: Vec<TtlOperation>,
    /// How it is to be tracked, if nothing was said before.
    pub fresh: Tracking,
    /// How it is to be tracked, if it was not to be.
    pub untracked: Tracking,
    /// What is not modelled, and may have changed something.
    pub unclear: Vec<String>,
}

impl Default for Effects {
    fn default() -> Self {
        Effects::UNCHANGED
    }
}

fn step(ttl: u8, operation: TtlOperation) -> u8 {
    match operation {
        TtlOperation::Set(value) => value,
        TtlOperation::Increment(by) => ttl.saturating_add(by),
        TtlOperation::Decrement(by) => ttl.saturating_sub(by),
    }
}

impl Effects {
    const UNCHANGED: Effects = Effects {
        mark: Marking::KEPT,
        connection_mark: Marking::KEPT,
        tos: (u8::MAX, 0),
        ttl: Vec::new(),
        fresh: Tracking::Kept,
        untracked: Tracking::Kept,
        unclear: Vec::new(),
    };

    /// Nothing changed.
    pub const NONE: &'static Effects = &Effects::UNCHANGED;

    /// Whether nothing changes.
    pub fn is_none(&self) -> bool {
        *self == Effects::default()
    }

    /// A change of the packet's mark.
    pub fn marking(operation: MarkOperation) -> Self {
        let mut effects = Effects::default();
        match operation {
            MarkOperation::SetXor { value, mask } => {
                effects.mark = Marking { keep: !mask, from: 0, flip: value };
            }
            MarkOperation::Save { nfmask, ctmask } => {
                effects.connection_mark = Marking { keep: !ctmask, from: nfmask, flip: 0 };
            }
            MarkOperation::Restore { nfmask, ctmask } => {
                effects.mark = Marking { keep: !nfmask, from: ctmask, flip: 0 };
            }
        }
        effects
    }

    /// These, then others.
    #[must_use]
    pub fn then(&self, next: &Effects) -> Effects {
        let mut unclear = self.unclear.clone();
        unclear.extend(next.unclear.iter().filter(|u| !self.unclear.contains(u)).cloned());
        Effects {
            mark: next.mark.after(self.mark, self.connection_mark),
            connection_mark: next.connection_mark.after(self.connection_mark, self.mark),
            tos: (self.tos.0 & next.tos.0, (self.tos.1 & next.tos.0) ^ next.tos.1),
            ttl: self.ttl.iter().chain(&next.ttl).copied().collect(),
            fresh: self.fresh.then(next.fresh, next.untracked),
            untracked: self.untracked.then(next.untracked, next.untracked),
            unclear,
        }
    }

    /// Both marks after them.
    pub fn marks(&self, mark: u32, connection: u32) -> (u32, u32) {
        (self.mark.apply(mark, connection), self.connection_mark.apply(connection, mark))
    }

    /// The TTL after them.
    pub fn ttl(&self, ttl: u8) -> u8 {
        self.ttl.iter().fold(ttl, |ttl, operation| step(ttl, *operation))
    }

    /// Where bits of a mutable field are as wanted after these effects, told
    /// by the packet before; none if they touch nothing of it.
    pub(super) fn bits(
        &self,
        store: &mut Store,
        position: u32,
        len: u32,
        pattern: u32,
    ) -> Result<Option<Ref>, Error> {
        let word = (position >> 5) as usize;
        match Field::of_word(word) {
            Some(Field::Mark) if self.mark != Marking::KEPT => {
                self.mixed(store, self.mark, Field::Mark, Field::CtMark, (position, len, pattern)).map(Some)
            }
            Some(Field::CtMark) if self.connection_mark != Marking::KEPT => {
                let marking = self.connection_mark;
                self.mixed(store, marking, Field::CtMark, Field::Mark, (position, len, pattern)).map(Some)
            }
            Some(Field::Tos) if self.tos != (u8::MAX, 0) => {
                let marking = Marking { keep: self.tos.0.into(), from: 0, flip: self.tos.1.into() };
                self.mixed(store, marking, Field::Tos, Field::Tos, (position, len, pattern)).map(Some)
            }
            Some(Field::Tracking) if self.fresh != Tracking::Kept || self.untracked != Tracking::Kept => {
                let low = 32 - (position & 31) - len;
                let mut any = Vec::new();
                for before in [tracking::FRESH, tracking::UNTRACKED, tracking::TEMPLATE, tracking::SEEN] {
                    let after = match before {
                        tracking::FRESH => self.fresh.number(before),
                        tracking::UNTRACKED => self.untracked.number(before),
                        other => other,
                    };
                    if after >> low & (u32::MAX >> (32 - len)) == pattern {
                        any.push(store.value(Field::Tracking, before.into())?);
                    }
                }
                store.first_of(&any).map(Some)
            }
            Some(Field::Ttl) if !self.ttl.is_empty() => {
                let low = 32 - (position & 31) - len;
                let mut any = Vec::new();
                for before in 0..=u8::MAX {
                    let after = u32::from(self.ttl(before));
                    if after >> low & (u32::MAX >> (32 - len)) == pattern {
                        any.push(store.value(Field::Ttl, before.into())?);
                    }
                }
                store.first_of(&any).map(Some)
            }
            _ => Ok(None),
        }
    }

    /// Where bits made by a [`Marking`] are as wanted.
    fn mixed(
        &self,
        store: &mut Store,
        marking: Marking,
        own: Field,
        other: Field,
        (position, len, pattern): (u32, u32, u32),
    ) -> Result<Ref, Error> {
        let mut all = Ref::ALL;
        for i in 0..len {
            // The bit's value as a number's: its place from the low end.
            let low = 31 - ((position + len - 1 - i) & 31);
            let is = |mask: u32| mask >> low & 1 == 1;
            let place = |field: Field| field.word() as u32 * 32 + 31 - low;
            let mut set = if is(marking.flip) { Ref::ALL } else { Ref::NONE };
            for (field, mask) in [(own, marking.keep), (other, marking.from)] {
                if is(mask) {
                    let bit = store.bit(place(field))?;
                    let turned = store.not(set)?;
                    set = store.choose(bit, turned, set)?;
                }
            }
            let set = store.invert_if(set, pattern >> i & 1 == 0)?;
            all = store.guard(set, all)?;
        }
        Ok(all)
    }
}
