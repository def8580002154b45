//! The loops there are, kept while rules change.

use std::collections::BTreeMap;

use super::acl::{witness, Acl};
use super::{AddressRange, Topology};

/// A loop of one atom.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Cycle {
    /// Its links, from the least.
    pub links: Vec<u32>,
    /// The access lists it passes, sorted.
    pub acls: Vec<u32>,
    /// Whether some header passes them all.
    pub live: bool,
}

/// The loops of one atom.
#[derive(Clone, Debug, Default)]
pub(super) struct Entry {
    pub cycles: Vec<Cycle>,
    /// For how many devices more were there than are told apart.
    pub more: bool,
}

/// All loops, by atom.
#[derive(Clone, Debug, Default)]
pub(super) struct Loops {
    by_atom: BTreeMap<u32, Entry>,
    live: usize,
}

impl Loops {
    /// How many loops some header takes, counted for each atom.
    pub fn live(&self) -> usize {
        self.live
    }

    pub fn is_empty(&self) -> bool {
        self.by_atom.is_empty()
    }

    /// Forgets the loops of an atom that pass a device.
    pub fn drop_through(&mut self, topology: &Topology, atom: u32, device: u32) {
        let Some(entry) = self.by_atom.get_mut(&atom) else { return };
        let live = &mut self.live;
        entry.cycles.retain(|cycle| {
            let passes = cycle.links.iter().any(|l| topology.origin(*l) == device);
            *live -= usize::from(passes && cycle.live);
            !passes
        });
        entry.more = entry.more && !entry.cycles.is_empty();
        if entry.cycles.is_empty() {
            self.by_atom.remove(&atom);
        }
    }

    /// Adds loops of an atom and tells how many of them some header takes.
    pub fn add(
        &mut self,
        topology: &Topology,
        lists: &[Acl],
        atom: u32,
        range: AddressRange,
        found: &mut Vec<Vec<u32>>,
        complete: bool,
    ) -> usize {
        if found.is_empty() {
            return 0;
        }
        let entry = self.by_atom.entry(atom).or_default();
        entry.more |= !complete;
        let mut taken = 0;
        for links in found.drain(..) {
            if entry.cycles.iter().any(|c| c.links == links) {
                continue;
            }
            let mut acls: Vec<u32> =
                links.iter().flat_map(|l| &topology.link(super::LinkId(*l)).acls).map(|a| a.0).collect();
            acls.sort_unstable();
            acls.dedup();
            let live = passes(lists, &acls, range);
            taken += usize::from(live);
            entry.cycles.push(Cycle { links, acls, live });
        }
        self.live += taken;
        taken
    }

    /// A new atom is part of an old one, and has its loops.
    pub fn split(&mut self, lists: &[Acl], new: (u32, AddressRange), old: (u32, AddressRange)) {
        let Some(entry) = self.by_atom.get(&old.0) else { return };
        let copy = entry.clone();
        self.live += copy.cycles.iter().filter(|c| c.live).count();
        self.by_atom.insert(new.0, copy);
        self.recheck(lists, new.0, new.1);
        self.recheck(lists, old.0, old.1);
    }

    /// An atom is gone, and is part of another one that had the same loops.
    pub fn join(&mut self, lists: &[Acl], gone: u32, into: (u32, AddressRange)) {
        if let Some(entry) = self.by_atom.remove(&gone) {
            self.live -= entry.cycles.iter().filter(|c| c.live).count();
            self.recheck(lists, into.0, into.1);
        }
    }

    fn recheck(&mut self, lists: &[Acl], atom: u32, range: AddressRange) {
        let Some(entry) = self.by_atom.get_mut(&atom) else { return };
        for cycle in entry.cycles.iter_mut().filter(|c| !c.acls.is_empty()) {
            let live = passes(lists, &cycle.acls, range);
            self.live = self.live + usize::from(live) - usize::from(cycle.live);
            cycle.live = live;
        }
    }

    /// An access list has changed, for better (`permits` more) or worse.
    /// Tells how many loops are new.
    pub fn list_changed(
        &mut self,
        lists: &[Acl],
        acl: u32,
        permits: bool,
        range: impl Fn(u32) -> AddressRange,
    ) -> usize {
        let mut new = 0;
        for (atom, entry) in &mut self.by_atom {
            for cycle in &mut entry.cycles {
                if cycle.live == permits || cycle.acls.binary_search(&acl).is_err() {
                    continue;
                }
                if passes(lists, &cycle.acls, range(*atom)) != cycle.live {
                    cycle.live = permits;
                    if permits {
                        new += 1;
                        self.live += 1;
                    } else {
                        self.live -= 1;
                    }
                }
            }
        }
        new
    }

    /// Every loop, in no order.
    pub fn iter(&self) -> impl Iterator<Item = (u32, &Cycle)> {
        self.by_atom.iter().flat_map(|(atom, entry)| entry.cycles.iter().map(move |c| (*atom, c)))
    }

    /// Whether there are loops that are not told apart.
    pub fn more(&self) -> bool {
        self.by_atom.values().any(|e| e.more)
    }
}

fn passes(lists: &[Acl], acls: &[u32], range: AddressRange) -> bool {
    acls.is_empty() || witness(lists, acls, range).is_some()
}
