//! For one range of addresses, where packets from each edge port leave.

use std::collections::{HashMap, HashSet};

use super::super::cycles::port_of;
use super::super::ids::NONE;
use super::super::{AclId, Network, PortId};
use super::{FilterId, GAINED, LOST};

/// No edge port: what gets lost, is kept, or loops.
pub(super) const NOWHERE: u16 = u16::MAX;

/// Sets of access lists, numbered; 0 is the empty one.
#[derive(Clone, Debug, Default)]
struct Filters {
    sets: Vec<Vec<AclId>>,
    known: HashMap<Vec<AclId>, u32>,
}

impl Filters {
    fn new() -> Self {
        Filters { sets: vec![Vec::new()], known: HashMap::from([(Vec::new(), 0)]) }
    }

    fn with(&mut self, filter: u32, more: &[AclId]) -> u32 {
        if more.is_empty() {
            return filter;
        }
        let mut set = self.sets[filter as usize].clone();
        set.extend_from_slice(more);
        set.sort_unstable();
        set.dedup();
        let next = self.sets.len() as u32;
        *self.known.entry(set).or_insert_with_key(|set| {
            self.sets.push(set.clone());
            next
        })
    }
}

/// The rows of all ranges.
#[derive(Clone, Debug)]
pub(super) struct Rows {
    edges: usize,
    kind: Kind,
    scratch: Scratch,
}

#[derive(Clone, Debug)]
enum Kind {
    /// Packets have one way: for each range and edge port, where they leave.
    One(Vec<u16>),
    /// For each range, from, to and filter, sorted.
    Many(Vec<Vec<(u32, u16, u32)>>, Filters),
}

/// Room for one row's work.
#[derive(Clone, Debug, Default)]
struct Scratch {
    /// For each device, where its packets leave, once known.
    leaves: Vec<u32>,
    way: Vec<u32>,
}

/// Not known yet; and on the way now, which is a loop if met again.
const UNKNOWN: u32 = u32::MAX;
const ON_WAY: u32 = u32::MAX - 1;

impl Rows {
    pub fn new(plain: bool, edges: usize, devices: usize) -> Self {
        let kind = match plain {
            true => Kind::One(Vec::new()),
            false => Kind::Many(Vec::new(), Filters::new()),
        };
        let scratch = Scratch { leaves: vec![UNKNOWN; devices], way: Vec::new() };
        Rows { edges, kind, scratch }
    }

    /// None yet, of the same kind and with the same filters.
    pub fn empty(&mut self, ranges: usize) -> Self {
        let kind = match &mut self.kind {
            Kind::One(_) => Kind::One(Vec::with_capacity(ranges * self.edges)),
            Kind::Many(_, filters) => Kind::Many(Vec::with_capacity(ranges), filters.clone()),
        };
        Rows { edges: self.edges, kind, scratch: std::mem::take(&mut self.scratch) }
    }

    /// Adds a row of another one's.
    pub fn copy(&mut self, from: &Rows, row: usize) {
        match (&mut self.kind, &from.kind) {
            (Kind::One(to), Kind::One(old)) => {
                to.extend_from_slice(&old[row * self.edges..][..self.edges]);
            }
            (Kind::Many(to, _), Kind::Many(old, _)) => to.push(old[row].clone()),
            _ => {} // Both are of one topology, hence of one kind.
        }
    }

    /// Adds the row of an atom.
    pub fn push(&mut self, network: &Network, edges: &[PortId], edge_of: &[u16], atom: u32) {
        let row = network.row(atom);
        match &mut self.kind {
            Kind::One(rows) => one(network, row, edges, edge_of, &mut self.scratch, rows),
            Kind::Many(rows, filters) => rows.push(many(network, row, edges, edge_of, filters)),
        }
    }

    pub fn each(&self, row: usize, mut each: impl FnMut(usize, u16, FilterId)) {
        match &self.kind {
            Kind::One(rows) => {
                for (from, to) in rows[row * self.edges..][..self.edges].iter().enumerate() {
                    if *to != NOWHERE {
                        each(from, *to, FilterId::NONE);
                    }
                }
            }
            Kind::Many(rows, _) => {
                for (from, to, filter) in &rows[row] {
                    each(*from as usize, *to, FilterId(*filter));
                }
            }
        }
    }

    pub fn each_from(&self, row: usize, from: usize, mut each: impl FnMut(u16, FilterId)) {
        match &self.kind {
            Kind::One(rows) => each(rows[row * self.edges + from], FilterId::NONE),
            Kind::Many(rows, _) => {
                for (_, to, filter) in rows[row].iter().filter(|e| e.0 as usize == from) {
                    each(*to, FilterId(*filter));
                }
            }
        }
    }

    /// What a row has that one of other rows has not, and the other way round.
    pub fn differ(
        &self,
        row: usize,
        old: &Rows,
        was: usize,
        mut each: impl FnMut(usize, u16, FilterId, usize),
    ) {
        match (&self.kind, &old.kind) {
            (Kind::One(new), Kind::One(old)) => {
                let new = &new[row * self.edges..][..self.edges];
                let old = &old[was * self.edges..][..self.edges];
                for (from, (now, before)) in new.iter().zip(old).enumerate() {
                    if now != before {
                        if *before != NOWHERE {
                            each(from, *before, FilterId::NONE, LOST);
                        }
                        if *now != NOWHERE {
                            each(from, *now, FilterId::NONE, GAINED);
                        }
                    }
                }
            }
            (Kind::Many(new, _), Kind::Many(old, _)) => {
                let (new, old) = (&new[row], &old[was]);
                for (from, to, filter) in old.iter().filter(|e| new.binary_search(e).is_err()) {
                    each(*from as usize, *to, FilterId(*filter), LOST);
                }
                for (from, to, filter) in new.iter().filter(|e| old.binary_search(e).is_err()) {
                    each(*from as usize, *to, FilterId(*filter), GAINED);
                }
            }
            _ => {} // Both are of one topology, hence of one kind.
        }
    }

    pub fn filter(&self, filter: FilterId) -> &[AclId] {
        match &self.kind {
            Kind::One(_) => &[],
            Kind::Many(_, filters) => filters.sets.get(filter.0 as usize).map_or(&[], Vec::as_slice),
        }
    }

    /// For each filter, whether one of its access lists is such.
    pub fn filters_where(&self, such: impl Fn(&AclId) -> bool) -> Vec<bool> {
        match &self.kind {
            Kind::One(_) => Vec::new(),
            Kind::Many(_, filters) => filters.sets.iter().map(|set| set.iter().any(&such)).collect(),
        }
    }
}

/// A row where packets have one way.
fn one(
    network: &Network,
    row: &[u64],
    edges: &[PortId],
    edge_of: &[u16],
    scratch: &mut Scratch,
    into: &mut Vec<u16>,
) {
    let topology = network.topology();
    let hairpin = topology.hairpin();
    let Scratch { leaves, way } = scratch;
    leaves.fill(UNKNOWN);
    for edge in edges {
        let mut at = topology.device_of(*edge).0;
        if port_of(row[at as usize]) == edge.0 && !hairpin {
            into.push(NOWHERE);
            continue;
        }
        way.clear();
        let end = loop {
            match leaves[at as usize] {
                UNKNOWN => {}
                ON_WAY => break u32::from(NOWHERE),
                known => break known,
            }
            leaves[at as usize] = ON_WAY;
            way.push(at);
            let port = port_of(row[at as usize]);
            if port == NONE {
                break u32::from(NOWHERE);
            }
            let Some(link) = topology.out(port).first() else {
                break u32::from(edge_of[port as usize]);
            };
            let (next, came_by) = topology.arrive(*link);
            if port_of(row[next as usize]) == came_by && !hairpin {
                break u32::from(NOWHERE);
            }
            at = next;
        };
        for device in way.drain(..) {
            leaves[device as usize] = end;
        }
        into.push(end as u16);
    }
}

/// A row where packets may have several ways, or access lists on them.
fn many(
    network: &Network,
    row: &[u64],
    edges: &[PortId],
    edge_of: &[u16],
    filters: &mut Filters,
) -> Vec<(u32, u16, u32)> {
    let topology = network.topology();
    let mut found = Vec::new();
    let mut seen = HashSet::new();
    let mut queue: Vec<(u32, u32)> = Vec::new();
    for (from, edge) in edges.iter().enumerate() {
        seen.clear();
        let mut arrive = |device: u32, came_by: u32, filter: u32, queue: &mut Vec<(u32, u32)>| {
            let port = port_of(row[device as usize]);
            if port == NONE {
                return;
            }
            for leave in topology.departs(port) {
                if (*leave != came_by || topology.hairpin()) && seen.insert((*leave, filter)) {
                    queue.push((*leave, filter));
                }
            }
        };
        arrive(topology.device_of(*edge).0, edge.0, 0, &mut queue);
        while let Some((port, filter)) = queue.pop() {
            let to = edge_of[port as usize];
            if to != NOWHERE {
                found.push((from as u32, to, filter));
            }
            for link in topology.out(port) {
                let (device, came_by) = topology.arrive(*link);
                let filter = filters.with(filter, topology.passes(*link));
                arrive(device, came_by, filter, &mut queue);
            }
        }
    }
    found.sort_unstable();
    found.dedup();
    // What gets there unfiltered on one way needs no other.
    let mut open = None;
    found.retain(|(from, to, filter)| {
        if *filter == 0 {
            open = Some((*from, *to));
        }
        *filter == 0 || open != Some((*from, *to))
    });
    found
}
