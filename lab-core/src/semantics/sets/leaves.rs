use std::hash::BuildHasher;

use crate::space::Ref;

/// Leaves by value: each distinct value has a number from 1.
#[derive(Clone, Debug)]
pub struct Leaves<T> {
    /// Open addressing: the hash of a value, and its number; 0: empty.
    table: Vec<(u32, u32)>,
    values: Vec<T>,
    hasher: foldhash::fast::RandomState,
}

impl<T> Default for Leaves<T> {
    fn default() -> Self {
        Leaves { table: vec![(0, 0); 64], values: Vec::new(), hasher: foldhash::fast::RandomState::default() }
    }
}

impl<T: Eq + std::hash::Hash> Leaves<T> {
    /// The leaf of a value.
    pub fn leaf(&mut self, value: T) -> Ref {
        let hash = self.hasher.hash_one(&value) as u32;
        let mask = self.table.len() - 1;
        let mut slot = hash as usize & mask;
        loop {
            match self.table[slot] {
                (_, 0) => break,
                (known, number) if known == hash && self.values[number as usize - 1] == value => {
                    return Ref::leaf(number);
                }
                _ => slot = (slot + 1) & mask,
            }
        }
        self.values.push(value);
        let number = self.values.len() as u32;
        self.table[slot] = (hash, number);
        if self.values.len() == self.table.len() / 2 {
            self.grow();
        }
        Ref::leaf(number)
    }

    fn grow(&mut self) {
        let wanted = self.table.len() * 4;
        let old = std::mem::replace(&mut self.table, vec![(0, 0); wanted]);
        for entry in old.into_iter().filter(|(_, number)| *number != 0) {
            let mut slot = entry.0 as usize & (wanted - 1);
            while self.table[slot].1 != 0 {
                slot = (slot + 1) & (wanted - 1);
            }
            self.table[slot] = entry;
        }
    }

    /// The value of a leaf.
    pub fn value(&self, leaf: u32) -> Option<&T> {
        self.values.get((leaf as usize).checked_sub(1)?)
    }
}
