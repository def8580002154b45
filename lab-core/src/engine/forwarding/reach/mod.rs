//! Which addresses get from which edge port to which.

mod rows;
mod sets;

use super::{AclId, AddressRange, Error, Network, PortId};
use rows::Rows;
use sets::{Grouped, GAINED, KINDS, LOST, REFILTERED};
pub use sets::{PairChange, PairChanges, PairSets};

/// Addresses that get from one edge port to another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Reached {
    /// The destinations.
    pub range: AddressRange,
    /// The access lists on the way, for [`Reachability::filter`]: of these
    /// destinations, the headers that all of them permit.
    pub filter: FilterId,
}

/// Some access lists, all of which have to permit a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FilterId(pub(super) u32);

impl FilterId {
    /// No access list at all: everything passes.
    pub const NONE: FilterId = FilterId(0);
}

/// For every two edge ports, the addresses that get from the one to the other:
/// packets that enter the network at the first and leave it at the second.
///
/// It is as the network was when it was made, or last
/// [followed](Reachability::follow). Space grows with the ranges of the
/// network times the edge ports: two bytes for each, if packets have one way
/// (no groups, no access lists, one link a port).
///
/// ```
/// use lab_core::engine::forwarding::{Network, Prefix, Reachability, Route, TopologyBuilder};
/// let mut builder = TopologyBuilder::default();
/// let (a, b) = (builder.device("a"), builder.device("b"));
/// let (host_a, host_b) = (builder.port(a, "host"), builder.port(b, "host"));
/// let (out, into) = (builder.port(a, "up"), builder.port(b, "up"));
/// builder.link(out, into, &[])?;
/// let mut network = Network::new(builder.build());
/// let prefix = Prefix::new("10.0.0.0".parse().unwrap(), 8)?;
/// network.insert(Route { device: b, prefix, port: host_b, priority: 8 })?;
///
/// let mut reach = Reachability::new(&network, &[host_a, host_b])?;
/// assert!(reach.set(host_a, host_b).is_empty());
///
/// network.insert(Route { device: a, prefix, port: out, priority: 8 })?;
/// let changes = reach.follow(&network)?;
/// let change = changes.iter().next().unwrap();
/// assert_eq!((change.from, change.to), (host_a, host_b));
/// assert_eq!(change.gained[0].range.to_string(), "10.0.0.0-10.255.255.255");
/// assert_eq!(reach.set(host_a, host_b).len(), 1);
/// # Ok::<(), lab_core::engine::forwarding::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct Reachability {
    edges: Vec<PortId>,
    /// For each port, which edge it is; [`rows::NOWHERE`] if none.
    edge_of: Vec<u16>,
    version: u64,
    /// Ports, devices and links of the topology.
    shape: (usize, usize, usize),
    /// Where each range begins.
    firsts: Vec<u32>,
    rows: Rows,
}

impl Reachability {
    /// What gets from where to where among some edge ports.
    ///
    /// Costs time in proportion to the ranges times the devices, if packets
    /// have one way; else to the ranges times the edge ports times the ports
    /// and sets of access lists that packets of each come by.
    ///
    /// # Errors
    /// [`Error::Edge`] for a port that a link leaves, or that is named twice,
    /// [`Error::Edges`] for more than 65,534 of them, [`Error::Port`] for one
    /// of another topology.
    pub fn new(network: &Network, edges: &[PortId]) -> Result<Self, Error> {
        let topology = network.topology();
        if edges.len() > usize::from(rows::NOWHERE) - 1 {
            return Err(Error::Edges(edges.len()));
        }
        let mut edge_of = vec![rows::NOWHERE; topology.ports()];
        for (nth, edge) in edges.iter().enumerate() {
            let slot = edge_of.get_mut(edge.index()).ok_or(Error::Port(*edge))?;
            if *slot != rows::NOWHERE || topology.leads(edge.0) {
                return Err(Error::Edge(*edge));
            }
            *slot = nth as u16;
        }
        let mut rows = Rows::new(topology.plain(), edges.len(), topology.devices());
        let mut firsts = Vec::with_capacity(network.atoms().len());
        for atom in network.atoms().iter() {
            firsts.push(network.atoms().range(atom).first);
            rows.push(network, edges, &edge_of, atom);
        }
        let shape = (topology.ports(), topology.devices(), topology.links());
        let version = network.version();
        Ok(Reachability { edges: edges.to_vec(), edge_of, version, shape, firsts, rows })
    }

    /// The edge ports.
    pub fn edges(&self) -> &[PortId] {
        &self.edges
    }

    /// The access lists of a filter, sorted.
    pub fn filter(&self, filter: FilterId) -> &[AclId] {
        self.rows.filter(filter)
    }

    /// What gets from one edge port to another, in the order of addresses;
    /// nothing if one of them is no edge port. Neighbouring ranges are joined.
    /// Costs a look at every range.
    pub fn set(&self, from: PortId, to: PortId) -> Vec<Reached> {
        let nth = |port: PortId| self.edges.iter().position(|e| *e == port);
        let (Some(from), Some(to)) = (nth(from), nth(to)) else { return Vec::new() };
        let mut set = Grouped::new(1);
        for segment in 0..self.firsts.len() {
            let range = self.range(segment);
            self.rows.each_from(segment, from, |edge, filter| {
                if usize::from(edge) == to {
                    set.push(0, Reached { range, filter });
                }
            });
        }
        set.into_entries()
    }

    /// What gets from where to where, for all pairs of edge ports.
    ///
    /// Costs time and space in proportion to the ranges times the edge ports,
    /// and to the pairs.
    pub fn all(&self) -> PairSets {
        let edges = self.edges.len();
        let mut sets = Grouped::new(edges * edges);
        for segment in 0..self.firsts.len() {
            let range = self.range(segment);
            self.rows.each(segment, |from, to, filter| {
                sets.push(from * edges + usize::from(to), Reached { range, filter });
            });
        }
        PairSets::new(self.edges.clone(), sets.group())
    }

    /// Follows the changes of the network since it was made or last followed,
    /// and tells exactly what each pair of edge ports has gained and lost.
    ///
    /// Costs time in proportion to the pairs and ranges there are, a little
    /// each, and for each range that some device sends elsewhere, what
    /// [`Reachability::new`] costs for a range.
    ///
    /// # Errors
    /// [`Error::Topology`] if the network is plainly not the one it was made
    /// of. One of the same shape is not noticed, and gives a wrong answer.
    pub fn follow(&mut self, network: &Network) -> Result<PairChanges, Error> {
        let topology = network.topology();
        let shape = (topology.ports(), topology.devices(), topology.links());
        if shape != self.shape {
            return Err(Error::Topology);
        }
        let edges = self.edges.len();
        let atoms = network.atoms();
        let mut changes = Grouped::new(edges * edges * KINDS);
        let mut rows = self.rows.empty(atoms.len());
        let mut firsts = Vec::with_capacity(atoms.len());
        let mut old = 0;
        for (new, atom) in atoms.iter().enumerate() {
            let range = atoms.range(atom);
            while old + 1 < self.firsts.len() && self.firsts[old + 1] <= range.first {
                old += 1;
            }
            firsts.push(range.first);
            if network.touched(atom) <= self.version {
                rows.copy(&self.rows, old);
                continue;
            }
            rows.push(network, &self.edges, &self.edge_of, atom);
            let mut was = old;
            while was < self.firsts.len() && self.firsts[was] <= range.last {
                let before = self.range(was);
                let part =
                    AddressRange { first: before.first.max(range.first), last: before.last.min(range.last) };
                rows.differ(new, &self.rows, was, |from, to, filter, kind| {
                    let pair = from * edges + usize::from(to);
                    changes.push(pair * KINDS + kind, Reached { range: part, filter });
                });
                was += 1;
            }
        }
        self.firsts = firsts;
        self.rows = rows;
        let version = self.version;
        let stale = self.rows.filters_where(|acl| network.list_touched(acl.0) > version);
        if stale.iter().any(|s| *s) {
            for segment in 0..self.firsts.len() {
                let range = self.range(segment);
                self.rows.each(segment, |from, to, filter| {
                    if stale[filter.0 as usize] {
                        let pair = from * edges + usize::from(to);
                        changes.push(pair * KINDS + REFILTERED, Reached { range, filter });
                    }
                });
            }
        }
        self.version = network.version();
        Ok(PairChanges::new(self.edges.clone(), changes.group()))
    }

    fn range(&self, segment: usize) -> AddressRange {
        let last = self.firsts.get(segment + 1).map_or(u32::MAX, |next| next - 1);
        AddressRange { first: self.firsts[segment], last }
    }
}
