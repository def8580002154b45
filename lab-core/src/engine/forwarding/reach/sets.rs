use super::super::PortId;
use super::Reached;

/// What a change of a pair may be: addresses gained, lost, or still there
/// through access lists that have changed.
pub(super) const KINDS: usize = 3;
pub(super) const GAINED: usize = 0;
pub(super) const LOST: usize = 1;
pub(super) const REFILTERED: usize = 2;

/// Entries that belong to groups, as they come in: in each group in the order
/// of addresses, neighbours joined.
pub(super) struct Grouped {
    entries: Vec<(u32, Reached)>,
    /// For each group, how many entries it has, and its last one.
    groups: Vec<(u32, u32)>,
}

/// Entries in the order of their groups.
#[derive(Clone, Debug, Default)]
pub(super) struct InGroups {
    /// Where each group begins; one more than there are groups.
    begins: Vec<u32>,
    entries: Vec<Reached>,
}

impl Grouped {
    pub fn new(groups: usize) -> Self {
        Grouped { entries: Vec::new(), groups: vec![(0, 0); groups] }
    }

    pub fn push(&mut self, group: usize, reached: Reached) {
        let (count, last) = &mut self.groups[group];
        if *count > 0 {
            let before = &mut self.entries[*last as usize].1;
            let adjoins = before.range.last.wrapping_add(1) == reached.range.first;
            if adjoins && before.filter == reached.filter {
                before.range.last = reached.range.last;
                return;
            }
        }
        *count += 1;
        *last = self.entries.len() as u32;
        self.entries.push((group as u32, reached));
    }

    /// The entries in the order they came in.
    pub fn into_entries(self) -> Vec<Reached> {
        self.entries.into_iter().map(|e| e.1).collect()
    }

    pub fn group(self) -> InGroups {
        let mut begins = Vec::with_capacity(self.groups.len() + 1);
        let mut at = 0;
        for (count, _) in &self.groups {
            begins.push(at);
            at += count;
        }
        begins.push(at);
        let Some((_, filler)) = self.entries.first().copied() else {
            return InGroups { begins, entries: Vec::new() };
        };
        let mut next = begins.clone();
        let mut entries = vec![filler; self.entries.len()];
        for (group, reached) in self.entries {
            let slot = &mut next[group as usize];
            entries[*slot as usize] = reached;
            *slot += 1;
        }
        InGroups { begins, entries }
    }
}

impl InGroups {
    fn get(&self, group: usize) -> &[Reached] {
        &self.entries[self.begins[group] as usize..self.begins[group + 1] as usize]
    }
}

/// For every two edge ports, what gets from the one to the other.
#[derive(Clone, Debug)]
pub struct PairSets {
    edges: Vec<PortId>,
    sets: InGroups,
}

impl PairSets {
    pub(super) fn new(edges: Vec<PortId>, sets: InGroups) -> Self {
        PairSets { edges, sets }
    }

    /// Every ordered pair of edge ports between which anything gets, and what
    /// does, in the order of addresses.
    pub fn iter(&self) -> impl Iterator<Item = (PortId, PortId, &[Reached])> {
        let edges = self.edges.len();
        (0..edges * edges).filter_map(move |pair| {
            let set = self.sets.get(pair);
            (!set.is_empty()).then(|| (self.edges[pair / edges], self.edges[pair % edges], set))
        })
    }

    /// How many ranges there are in all sets together.
    pub fn ranges(&self) -> usize {
        self.sets.entries.len()
    }
}

/// What has changed between two edge ports.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PairChange<'a> {
    /// Where packets enter the network.
    pub from: PortId,
    /// Where they leave it.
    pub to: PortId,
    /// What gets there now and did not, in the order of addresses.
    pub gained: &'a [Reached],
    /// What got there and does not now, in the order of addresses.
    pub lost: &'a [Reached],
    /// What gets there through access lists whose rules have changed.
    pub refiltered: &'a [Reached],
}

/// What has changed between edge ports: one entry for each pair that has
/// changed.
#[derive(Clone, Debug)]
pub struct PairChanges {
    edges: Vec<PortId>,
    changes: InGroups,
}

impl PairChanges {
    pub(super) fn new(edges: Vec<PortId>, changes: InGroups) -> Self {
        PairChanges { edges, changes }
    }

    /// The changed pairs, in the order of the edge ports.
    pub fn iter(&self) -> impl Iterator<Item = PairChange<'_>> {
        let edges = self.edges.len();
        (0..edges * edges).filter_map(move |pair| {
            let at = pair * KINDS;
            if self.changes.begins[at] == self.changes.begins[at + KINDS] {
                return None;
            }
            let [gained, lost, refiltered] =
                [GAINED, LOST, REFILTERED].map(|kind| self.changes.get(at + kind));
            let (from, to) = (self.edges[pair / edges], self.edges[pair % edges]);
            Some(PairChange { from, to, gained, lost, refiltered })
        })
    }

    /// How many pairs have changed.
    pub fn len(&self) -> usize {
        self.iter().count()
    }

    /// Whether none has.
    pub fn is_empty(&self) -> bool {
        self.changes.entries.is_empty()
    }
}
