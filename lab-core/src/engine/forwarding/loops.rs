//! The loops there are, kept while rules change.

use std::collections::{BTreeMap, HashMap};
use std::net::Ipv4Addr;

use super::acl::{witness, Acl};
use super::{AclRule, AddressRange, Header, Headers, Topology};

/// A loop of one atom.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Cycle {
    /// Its links, from the least.
    pub links: Vec<u32>,
    /// The access lists it passes, sorted.
    pub acls: Vec<u32>,
    /// A header that takes it; none if its access lists permit none.
    pub witness: Option<Header>,
}

impl Cycle {
    /// Whether some header takes it.
    pub fn live(&self) -> bool {
        self.witness.is_some()
    }
}

/// The loops of one atom.
#[derive(Clone, Debug, Default)]
struct Entry {
    cycles: Vec<Cycle>,
    /// Whether there were more than are told apart.
    more: bool,
}

impl Entry {
    fn live(&self) -> usize {
        self.cycles.iter().filter(|c| c.live()).count()
    }
}

/// All loops, by atom.
#[derive(Clone, Debug, Default)]
pub(super) struct Loops {
    by_atom: BTreeMap<u32, Entry>,
    live: usize,
    /// For access lists that were passed together, a header that passed.
    hints: HashMap<Vec<u32>, Header>,
}

impl Loops {
    /// How many loops some header takes, counted for each atom.
    pub fn live(&self) -> usize {
        self.live
    }

    pub fn is_empty(&self) -> bool {
        self.by_atom.is_empty()
    }

    /// Whether an atom has loops.
    pub fn has(&self, atom: u32) -> bool {
        self.by_atom.contains_key(&atom)
    }

    /// Forgets the loops of an atom that pass a device.
    pub fn drop_through(&mut self, topology: &Topology, atom: u32, device: u32) {
        let Some(entry) = self.by_atom.get_mut(&atom) else { return };
        let live = &mut self.live;
        entry.cycles.retain(|cycle| {
            let passes = cycle.links.iter().any(|l| topology.origin(*l) == device);
            *live -= usize::from(passes && cycle.live());
            !passes
        });
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
        let before = entry.cycles.len();
        // Ways through the same access lists fare alike.
        let mut known: Vec<(Vec<u32>, Option<Header>)> = Vec::new();
        let mut taken = 0;
        for links in found.drain(..) {
            if entry.cycles[..before].iter().any(|c| c.links == links) {
                continue;
            }
            let mut acls: Vec<u32> = links.iter().flat_map(|l| topology.passes(*l)).map(|a| a.0).collect();
            acls.sort_unstable();
            acls.dedup();
            let witness = match known.iter().find(|k| k.0 == acls) {
                Some((_, witness)) => *witness,
                None => {
                    let witness = search(&mut self.hints, lists, &acls, range);
                    known.push((acls.clone(), witness));
                    witness
                }
            };
            taken += usize::from(witness.is_some());
            entry.cycles.push(Cycle { links, acls, witness });
        }
        self.live += taken;
        taken
    }

    /// A new atom is part of an old one, and has its loops. The ranges are
    /// those they have now.
    pub fn split(&mut self, lists: &[Acl], new: (u32, AddressRange), old: (u32, AddressRange)) {
        let Some(entry) = self.by_atom.get_mut(&old.0) else { return };
        let mut copy = entry.clone();
        self.live -= entry.live();
        for (part, range) in [(&mut *entry, old.1), (&mut copy, new.1)] {
            for cycle in &mut part.cycles {
                // What no header took, none takes in either part.
                if cycle.witness.is_some_and(|w| !range.contains(w.destination)) {
                    cycle.witness = search(&mut self.hints, lists, &cycle.acls, range);
                }
            }
            self.live += part.live();
        }
        self.by_atom.insert(new.0, copy);
    }

    /// An atom is gone, and is part of another one, whose range is now this.
    /// The loops of the one that is gone may not have been looked for yet.
    pub fn join(&mut self, lists: &[Acl], gone: u32, into: (u32, AddressRange)) {
        let entry = self.by_atom.remove(&gone).unwrap_or_default();
        self.live -= entry.live();
        let Some(other) = self.by_atom.get_mut(&into.0) else { return };
        for cycle in other.cycles.iter_mut().filter(|c| !c.live()) {
            cycle.witness = match entry.cycles.iter().find(|c| c.links == cycle.links) {
                Some(same) => same.witness,
                None => search(&mut self.hints, lists, &cycle.acls, into.1),
            };
            self.live += usize::from(cycle.live());
        }
    }

    /// A rule of an access list is new or gone, so that the list permits more
    /// of what the rule matches, or less. Tells how many loops are new.
    pub fn list_changed(
        &mut self,
        lists: &[Acl],
        acl: u32,
        rule: &AclRule,
        more: bool,
        range: impl Fn(u32) -> AddressRange,
    ) -> usize {
        let mut new = 0;
        for (atom, entry) in &mut self.by_atom {
            for cycle in entry.cycles.iter_mut().filter(|c| c.acls.binary_search(&acl).is_ok()) {
                match (cycle.witness, more) {
                    (None, true) => {
                        // Only what the rule matches can pass and did not.
                        cycle.witness = witness(lists, &cycle.acls, range(*atom), &rule.headers, None);
                        new += usize::from(cycle.live());
                    }
                    (Some(header), false) if rule.headers.contains(&header) => {
                        cycle.witness = search(&mut self.hints, lists, &cycle.acls, range(*atom));
                        self.live -= usize::from(!cycle.live());
                    }
                    _ => {}
                }
            }
        }
        self.live += new;
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

/// A header to a range that passes all the lists.
fn search(
    hints: &mut HashMap<Vec<u32>, Header>,
    lists: &[Acl],
    acls: &[u32],
    range: AddressRange,
) -> Option<Header> {
    if acls.is_empty() {
        let destination = Ipv4Addr::from_bits(range.first);
        return Some(Header { destination, ..ZERO });
    }
    let hint = hints.get(acls).copied();
    let found = witness(lists, acls, range, &Headers::ALL, hint);
    if let Some(found) = found {
        match hints.get_mut(acls) {
            Some(hint) => *hint = found,
            None => {
                hints.insert(acls.to_vec(), found);
            }
        }
    }
    found
}

const ZERO: Header = Header {
    protocol: 0,
    source: Ipv4Addr::UNSPECIFIED,
    source_port: 0,
    destination: Ipv4Addr::UNSPECIFIED,
    destination_port: 0,
};
