//! The address space, cut where prefixes begin and end.
//!
//! An atom is a range of addresses that no prefix in use divides: every device
//! treats its addresses alike. A cut stays as long as some prefix needs it.

use std::collections::{BTreeMap, HashMap};
use std::hash::{BuildHasherDefault, Hasher};

use super::ids::NONE;
use super::{AddressRange, Prefix};

/// A hasher for prefix keys: one multiplication.
#[derive(Clone, Debug, Default)]
pub(super) struct KeyHasher(u64);

impl Hasher for KeyHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.write_u64(u64::from(*byte));
        }
    }

    fn write_u64(&mut self, n: u64) {
        let x = (self.0 ^ n).wrapping_mul(0x9E37_79B9_7F4A_7C15);
        self.0 = x ^ (x >> 32);
    }
}

/// A prefix in use, and the atoms it is made of.
#[derive(Clone, Copy, Debug)]
pub(super) struct Extent {
    pub prefix: Prefix,
    /// The atom it begins with.
    pub first: u32,
    /// The atom that follows it; [`NONE`] at the end of the address space.
    pub stop: u32,
    /// How many rules of all devices have it.
    pub rules: u32,
}

/// What a cut did: this atom is new, and was part of that one.
pub(super) type Cut = Option<(u32, u32)>;
/// What removing a cut did: this atom is gone, and is part of that one.
pub(super) type Mend = Option<(u32, u32)>;

#[derive(Clone, Debug)]
pub(super) struct Atoms {
    start: Vec<u32>,
    next: Vec<u32>,
    prev: Vec<u32>,
    /// How many prefixes begin or end where the atom begins.
    uses: Vec<u32>,
    by_start: BTreeMap<u32, u32>,
    free: Vec<u32>,
    extents: Vec<Extent>,
    free_extents: Vec<u32>,
    known: HashMap<u64, u32, BuildHasherDefault<KeyHasher>>,
}

impl Atoms {
    pub fn new() -> Self {
        Atoms {
            start: vec![0],
            next: vec![NONE],
            prev: vec![NONE],
            uses: vec![1], // The address space begins there, whatever the prefixes.
            by_start: BTreeMap::from([(0, 0)]),
            free: Vec::new(),
            extents: Vec::new(),
            free_extents: Vec::new(),
            known: HashMap::default(),
        }
    }

    /// How many atoms there are room for: atoms are numbered below it.
    pub fn slots(&self) -> usize {
        self.start.len()
    }

    /// Whether there is an atom of that number.
    pub fn alive(&self, atom: u32) -> bool {
        self.uses[atom as usize] > 0
    }

    /// How many atoms there are.
    pub fn len(&self) -> usize {
        self.by_start.len()
    }

    pub fn next(&self, atom: u32) -> u32 {
        self.next[atom as usize]
    }

    pub fn range(&self, atom: u32) -> AddressRange {
        let next = self.next[atom as usize];
        let last = if next == NONE { u32::MAX } else { self.start[next as usize] - 1 };
        AddressRange { first: self.start[atom as usize], last }
    }

    /// The atom that an address is in.
    pub fn at(&self, address: u32) -> u32 {
        self.by_start.range(..=address).next_back().map_or(0, |(_, atom)| *atom)
    }

    /// The atoms in the order of their addresses.
    pub fn iter(&self) -> impl Iterator<Item = u32> + '_ {
        let mut at = 0; // The atom at address 0 is never given up.
        std::iter::from_fn(move || {
            let atom = (at != NONE).then_some(at)?;
            at = self.next[atom as usize];
            Some(atom)
        })
    }

    pub fn find(&self, prefix: Prefix) -> Option<u32> {
        self.known.get(&prefix.key()).copied()
    }

    pub fn extent(&self, id: u32) -> &Extent {
        &self.extents[id as usize]
    }

    /// Counts a rule more for a prefix, cutting where it is new.
    pub fn acquire(&mut self, prefix: Prefix) -> (u32, [Cut; 2]) {
        if let Some(id) = self.find(prefix) {
            self.extents[id as usize].rules += 1;
            return (id, [None, None]);
        }
        let range = prefix.range();
        let (first, cut) = self.cut(range.first);
        let (stop, second) = match range.last.checked_add(1) {
            Some(end) => self.cut(end),
            None => (NONE, None),
        };
        let extent = Extent { prefix, first, stop, rules: 1 };
        let id = match self.free_extents.pop() {
            Some(id) => {
                self.extents[id as usize] = extent;
                id
            }
            None => {
                self.extents.push(extent);
                (self.extents.len() - 1) as u32
            }
        };
        self.known.insert(prefix.key(), id);
        (id, [cut, second])
    }

    /// Counts a rule less for a prefix, mending the cuts that none needs.
    pub fn release(&mut self, id: u32) -> [Mend; 2] {
        let extent = &mut self.extents[id as usize];
        extent.rules -= 1;
        if extent.rules > 0 {
            return [None, None];
        }
        let Extent { prefix, first, stop, .. } = *extent;
        self.known.remove(&prefix.key());
        self.free_extents.push(id);
        let mended = self.mend(first);
        [mended, if stop == NONE { None } else { self.mend(stop) }]
    }

    /// The atom that begins at an address, once one prefix more needs it to.
    fn cut(&mut self, at: u32) -> (u32, Cut) {
        let atom = self.at(at);
        if self.start[atom as usize] == at {
            self.uses[atom as usize] += 1;
            return (atom, None);
        }
        let next = self.next[atom as usize];
        let new = match self.free.pop() {
            Some(new) => {
                let slot = new as usize;
                (self.start[slot], self.next[slot], self.prev[slot], self.uses[slot]) = (at, next, atom, 1);
                new
            }
            None => {
                self.start.push(at);
                self.next.push(next);
                self.prev.push(atom);
                self.uses.push(1);
                (self.start.len() - 1) as u32
            }
        };
        self.next[atom as usize] = new;
        if next != NONE {
            self.prev[next as usize] = new;
        }
        self.by_start.insert(at, new);
        (new, Some((new, atom)))
    }

    /// Joins an atom to the one before it once no prefix needs the cut.
    fn mend(&mut self, atom: u32) -> Mend {
        let slot = atom as usize;
        self.uses[slot] -= 1;
        if self.uses[slot] > 0 {
            return None;
        }
        let (before, next) = (self.prev[slot], self.next[slot]);
        self.next[before as usize] = next;
        if next != NONE {
            self.prev[next as usize] = before;
        }
        self.by_start.remove(&self.start[slot]);
        self.free.push(atom);
        Some((atom, before))
    }
}
