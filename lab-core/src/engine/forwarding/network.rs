use std::net::Ipv4Addr;

use super::acl::{self, Acl};
use super::atoms::{Atoms, Cut, Mend};
use super::cycles::{port_of, Walker};
use super::ids::NONE;
use super::loops::Loops;
use super::rules::{Rules, ABSENT};
use super::{
    AclId, AclRule, AddressRange, Change, DeviceId, Error, Header, Headers, LinkId, PortId, Report, Route,
    Topology,
};

/// A way that packets take for ever.
#[derive(Clone, Debug)]
pub struct Loop<'a> {
    network: &'a Network,
    cycle: &'a super::loops::Cycle,
    range: AddressRange,
}

impl Loop<'_> {
    /// The destinations it is for, whatever the other fields are if it passes
    /// no access list.
    pub fn range(&self) -> AddressRange {
        self.range
    }

    /// The links it takes, begun at the least of them. No port is left twice.
    pub fn links(&self) -> impl ExactSizeIterator<Item = LinkId> + '_ {
        self.cycle.links.iter().map(|l| LinkId(*l))
    }

    /// The access lists it passes, each once.
    pub fn acls(&self) -> impl ExactSizeIterator<Item = AclId> + '_ {
        self.cycle.acls.iter().map(|a| AclId(*a))
    }

    /// The headers that take it, in pieces that do not overlap.
    ///
    /// Costs time that grows with the rules of its access lists that concern
    /// the range, at worst with their product.
    pub fn headers(&self) -> Vec<Headers> {
        acl::headers(&self.network.lists, &self.cycle.acls, self.range)
    }
}

/// Forwarding devices and their rules, kept ready for questions while rules
/// come and go: after every change all loops there are are known.
///
/// The addresses are kept in ranges that no prefix divides. Space grows with
/// the prefixes times the devices: about 12 bytes for each device and range.
///
/// ```
/// use lab_core::engine::forwarding::{Network, Prefix, Route, TopologyBuilder};
/// let mut builder = TopologyBuilder::default();
/// let (a, b) = (builder.device("a"), builder.device("b"));
/// let (at_a, at_b) = (builder.port(a, "eth0"), builder.port(b, "eth0"));
/// builder.link(at_a, at_b, &[])?;
/// builder.link(at_b, at_a, &[])?;
/// builder.hairpin(true); // Routers do send back where a packet came from.
/// let mut network = Network::new(builder.build());
///
/// let prefix = Prefix::new("10.0.0.0".parse().unwrap(), 8)?;
/// let to_b = Route { device: a, prefix, port: at_a, priority: 8 };
/// let to_a = Route { device: b, prefix, port: at_b, priority: 8 };
/// assert_eq!(network.insert(to_b)?.loops, 0);
/// assert_eq!(network.insert(to_a)?.loops, 1);
/// let looping: Vec<String> = network.loops().map(|l| l.range().to_string()).collect();
/// assert_eq!(looping, ["10.0.0.0-10.255.255.255"]);
/// assert_eq!(network.remove(to_b)?.loops, 0);
/// # Ok::<(), lab_core::engine::forwarding::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct Network {
    topology: Topology,
    atoms: Atoms,
    rules: Rules,
    /// For each atom and device, the rule that decides and the port it sends
    /// to: both in one number, so that a walk reads one place.
    cells: Vec<u64>,
    /// For each atom, the version it last changed at.
    touched: Vec<u64>,
    version: u64,
    lists: Vec<Acl>,
    /// For each access list, the version it last changed at.
    list_touched: Vec<u64>,
    loops: Loops,
    walker: Walker,
    /// Atoms and devices whose loops are yet to be looked for.
    pending: Vec<(u32, u32)>,
    found: Vec<Vec<u32>>,
}

fn cell(rule: u32, port: u32) -> u64 {
    (u64::from(port) << 32) + u64::from(rule)
}

fn rule_of(cell: u64) -> u32 {
    cell as u32
}

impl Network {
    /// A network without rules: its devices forward nothing, and its access
    /// lists deny everything.
    pub fn new(topology: Topology) -> Self {
        let devices = topology.devices();
        Network {
            atoms: Atoms::new(),
            rules: Rules::new(devices),
            cells: vec![cell(ABSENT, NONE); devices],
            touched: vec![0],
            version: 0,
            lists: vec![Acl::default(); topology.acls()],
            list_touched: vec![0; topology.acls()],
            loops: Loops::default(),
            walker: Walker::new(topology.ports()),
            pending: Vec::new(),
            found: Vec::new(),
            topology,
        }
    }

    /// The devices and links it is on.
    pub fn topology(&self) -> &Topology {
        &self.topology
    }

    /// How many forwarding rules there are.
    pub fn rules(&self) -> usize {
        self.rules.len()
    }

    /// Adds a forwarding rule.
    ///
    /// Costs time in proportion to the ranges in its prefix; and, for each
    /// range that the device now sends elsewhere, to the devices on the way of
    /// its packets. A prefix that no device had costs a copy of two ranges: as
    /// many numbers as there are devices.
    ///
    /// # Errors
    /// [`Error::Device`] or [`Error::Port`] for what is not of the topology;
    /// [`Error::Full`]. Nothing has changed then.
    pub fn insert(&mut self, route: Route) -> Result<Report, Error> {
        let changed = self.add(route)?;
        Ok(self.settle(changed))
    }

    /// Removes a forwarding rule, of equal ones the newest. What it hid
    /// decides again.
    ///
    /// Costs as [`Network::insert`]. At a device that has rules whose priority
    /// is not their prefix's length, each range it decided costs a look-up of
    /// each prefix length.
    ///
    /// # Errors
    /// [`Error::NoRule`] if there is no such rule; [`Error::Device`] or
    /// [`Error::Port`] for what is not of the topology.
    pub fn remove(&mut self, route: Route) -> Result<Report, Error> {
        let changed = self.take(route)?;
        Ok(self.settle(changed))
    }

    /// Adds a rule to an access list.
    ///
    /// Costs time in proportion to the list; if there are loops that pass it,
    /// also to the search of a header that takes each.
    ///
    /// # Errors
    /// [`Error::Acl`] if the list is not of the topology.
    pub fn insert_acl(&mut self, acl: AclId, rule: AclRule) -> Result<Report, Error> {
        self.lists.get_mut(acl.index()).ok_or(Error::Acl(acl))?.insert(rule);
        Ok(self.list_changed(acl, &rule, rule.permit))
    }

    /// Removes a rule of an access list, of equal ones the newest. Costs as
    /// [`Network::insert_acl`].
    ///
    /// # Errors
    /// [`Error::Acl`] if the list is not of the topology, [`Error::NoRule`] if
    /// it has no such rule.
    pub fn remove_acl(&mut self, acl: AclId, rule: &AclRule) -> Result<Report, Error> {
        if !self.lists.get_mut(acl.index()).ok_or(Error::Acl(acl))?.remove(rule) {
            return Err(Error::NoRule);
        }
        Ok(self.list_changed(acl, rule, !rule.permit))
    }

    /// Makes changes together: loops that would be there between them are not
    /// looked for. Costs the sum of the changes.
    ///
    /// # Errors
    /// Of the first change that has one. The changes before it are made then,
    /// the ones after it are not.
    pub fn apply(&mut self, changes: &[Change]) -> Result<Report, Error> {
        let (mut changed, mut found) = (0, 0);
        let mut outcome = Ok(());
        // All cuts come first, so that no atom is divided that waits for its
        // loops to be looked for.
        let mut held = Vec::new();
        for change in changes {
            if let Change::Insert(route) = change {
                let (extent, cuts) = self.atoms.acquire(route.prefix);
                self.cut(cuts);
                held.push(extent);
            }
        }
        for change in changes {
            let did = match *change {
                Change::Insert(route) => self.add(route),
                Change::Remove(route) => self.take(route),
                Change::InsertAcl(acl, rule) => self.insert_acl(acl, rule).map(|report| {
                    found += report.found;
                    0
                }),
                Change::RemoveAcl(acl, rule) => self.remove_acl(acl, &rule).map(|report| {
                    found += report.found;
                    0
                }),
            };
            match did {
                Ok(more) => changed += more,
                Err(error) => {
                    outcome = Err(error);
                    break;
                }
            }
        }
        let mut report = self.settle_many(changed);
        for extent in held {
            self.drop_prefix(extent);
        }
        report.found += found;
        report.loops = self.loops.live();
        outcome.map(|()| report)
    }

    /// The loops there are, in the order of their addresses: each for a range
    /// of destinations and one way round.
    ///
    /// A loop is a way from a port back to it that leaves by no other port
    /// twice, for headers that every access list on it permits.
    ///
    /// Costs time in proportion to the loops.
    pub fn loops(&self) -> impl Iterator<Item = Loop<'_>> {
        let mut loops: Vec<Loop<'_>> = self
            .loops
            .iter()
            .filter(|(_, cycle)| cycle.live())
            .map(|(atom, cycle)| Loop { network: self, cycle, range: self.atoms.range(atom) })
            .collect();
        loops.sort_by(|a, b| (a.range, &a.cycle.links).cmp(&(b.range, &b.cycle.links)));
        loops.into_iter()
    }

    /// Whether [`Network::loops`] gives every loop. It does not where floods
    /// make more than a thousand for one range and device.
    pub fn all_loops_told(&self) -> bool {
        !self.loops.more()
    }

    /// Where a device sends packets to an address: a port or a group; none if
    /// no rule matches. Costs a search in the ranges.
    pub fn lookup(&self, device: DeviceId, address: Ipv4Addr) -> Option<PortId> {
        let atom = self.atoms.at(address.to_bits());
        let row = self.row(atom);
        row.get(device.index()).map(|c| port_of(*c)).filter(|p| *p != NONE).map(PortId)
    }

    /// Whether an access list permits a packet; none if it is not of the
    /// topology. Costs time in proportion to the list.
    pub fn permits(&self, acl: AclId, header: &Header) -> Option<bool> {
        self.lists.get(acl.index()).map(|list| list.permits(header))
    }

    /// The headers to a range that all the lists permit, in pieces that do not
    /// overlap. Costs as [`Loop::headers`].
    pub fn headers(&self, range: AddressRange, acls: &[AclId]) -> Vec<Headers> {
        let acls: Vec<u32> = acls.iter().filter(|a| a.index() < self.lists.len()).map(|a| a.0).collect();
        acl::headers(&self.lists, &acls, range)
    }

    /// The ranges of addresses that every device treats alike, in order.
    pub fn ranges(&self) -> impl Iterator<Item = AddressRange> + '_ {
        self.atoms.iter().map(|atom| self.atoms.range(atom))
    }

    pub(super) fn atoms(&self) -> &Atoms {
        &self.atoms
    }

    /// What each device does with an atom.
    pub(super) fn row(&self, atom: u32) -> &[u64] {
        let devices = self.topology.devices();
        &self.cells[atom as usize * devices..][..devices]
    }

    pub(super) fn version(&self) -> u64 {
        self.version
    }

    pub(super) fn touched(&self, atom: u32) -> u64 {
        self.touched[atom as usize]
    }

    pub(super) fn list_touched(&self, acl: u32) -> u64 {
        self.list_touched[acl as usize]
    }

    fn check(&self, route: &Route) -> Result<(), Error> {
        self.topology.check_device(route.device)?;
        self.topology.check_port(route.device, route.port)
    }

    fn add(&mut self, route: Route) -> Result<usize, Error> {
        self.check(&route)?;
        self.version += 1;
        let Route { device: DeviceId(device), prefix, port: PortId(port), priority } = route;
        let (extent, cuts) = self.atoms.acquire(prefix);
        self.cut(cuts);
        let rule = match self.rules.add(extent, device, prefix.len(), priority, port) {
            Ok(rule) => rule,
            Err(error) => {
                self.drop_prefix(extent);
                return Err(error);
            }
        };
        if self.rules.head(extent, device) != rule {
            return Ok(0);
        }
        let rank = self.rules.rank(rule);
        let new = cell(rule, port);
        let (mut atom, stop) = (self.atoms.extent(extent).first, self.atoms.extent(extent).stop);
        let devices = self.topology.devices();
        let mut changed = 0;
        while atom != stop {
            let slot = &mut self.cells[atom as usize * devices + device as usize];
            // An equal rank is the same prefix's: the newest decides.
            if rank >= self.rules.rank(rule_of(*slot)) {
                if port_of(*slot) != port {
                    changed += 1;
                    self.touched[atom as usize] = self.version;
                    self.pending.push((atom, device));
                }
                *slot = new;
            }
            atom = self.atoms.next(atom);
        }
        Ok(changed)
    }

    fn take(&mut self, route: Route) -> Result<usize, Error> {
        self.check(&route)?;
        let Route { device: DeviceId(device), prefix, port: PortId(port), priority } = route;
        let extent = self.atoms.find(prefix).ok_or(Error::NoRule)?;
        let len = prefix.len();
        let rule = self.rules.take(extent, device, len, priority, port).ok_or(Error::NoRule)?;
        self.version += 1;
        let odd = self.rules.odd(device) || priority != u32::from(len);
        let (mut atom, stop) = (self.atoms.extent(extent).first, self.atoms.extent(extent).stop);
        let devices = self.topology.devices();
        // Without odd priorities one rule follows everywhere.
        let mut next = None;
        let mut changed = 0;
        while atom != stop {
            let slot = &mut self.cells[atom as usize * devices + device as usize];
            if rule_of(*slot) == rule {
                let heir = match next {
                    Some(heir) if !odd => heir,
                    _ => {
                        let most = if odd { 32 } else { len };
                        let address = self.atoms.range(atom).first;
                        self.rules.best(&self.atoms, device, address, most)
                    }
                };
                next = Some(heir);
                let to = self.rules.port(heir);
                if to != port {
                    changed += 1;
                    self.touched[atom as usize] = self.version;
                    self.pending.push((atom, device));
                }
                *slot = cell(heir, to);
            }
            atom = self.atoms.next(atom);
        }
        self.rules.give_up(rule);
        self.drop_prefix(extent);
        Ok(changed)
    }

    /// Makes room for new atoms that were part of old ones.
    fn cut(&mut self, cuts: [Cut; 2]) {
        let devices = self.topology.devices();
        for (new, old) in cuts.into_iter().flatten() {
            let slots = self.atoms.slots();
            if self.touched.len() < slots {
                self.touched.resize(slots, 0);
                self.cells.resize(slots * devices, 0);
            }
            let from = old as usize * devices;
            self.cells.copy_within(from..from + devices, new as usize * devices);
            self.touched[new as usize] = self.touched[old as usize];
            if !self.loops.is_empty() {
                let mut range = self.atoms.range(new);
                // Both cuts are made: what the second took was part of the first.
                if let [_, Some((second, from))] = cuts {
                    if from == new {
                        range.last = self.atoms.range(second).last;
                    }
                }
                self.loops.split(&self.lists, (new, range), (old, self.atoms.range(old)));
            }
        }
    }

    fn drop_prefix(&mut self, extent: u32) {
        let mends: [Mend; 2] = self.atoms.release(extent);
        for (gone, into) in mends.into_iter().flatten() {
            let last = self.touched[gone as usize];
            let touched = &mut self.touched[into as usize];
            *touched = last.max(*touched);
            if !self.loops.is_empty() {
                let range = self.atoms.range(into);
                self.loops.join(&self.lists, gone, (into, range));
            }
        }
    }

    /// Looks for loops where changes wait for it.
    fn settle(&mut self, changed: usize) -> Report {
        let mut found = 0;
        let mut pending = std::mem::take(&mut self.pending);
        for (atom, device) in pending.drain(..) {
            found += self.look(atom, device);
        }
        self.pending = pending;
        Report { changed, found, loops: self.loops.live() }
    }

    /// The same for changes of many devices: where an atom has no loop at all,
    /// one walk tells it for all of them.
    fn settle_many(&mut self, changed: usize) -> Report {
        let mut found = 0;
        let mut pending = std::mem::take(&mut self.pending);
        pending.sort_unstable();
        pending.dedup();
        let devices = self.topology.devices();
        for group in pending.chunk_by(|a, b| a.0 == b.0) {
            let atom = group[0].0;
            let row = &self.cells[atom as usize * devices..][..devices];
            let walked = group.iter().map(|(_, device)| *device);
            if self.loops.has(atom) || self.walker.any(&self.topology, row, walked) {
                found += group.iter().map(|(_, device)| self.look(atom, *device)).sum::<usize>();
            }
        }
        pending.clear();
        self.pending = pending;
        Report { changed, found, loops: self.loops.live() }
    }

    /// Looks for the loops of an atom through a device that has changed, and
    /// tells how many there are.
    fn look(&mut self, atom: u32, device: u32) -> usize {
        // An atom that is gone had come to be as the one it went into was.
        if !self.atoms.alive(atom) {
            return 0;
        }
        if !self.loops.is_empty() {
            self.loops.drop_through(&self.topology, atom, device);
        }
        let devices = self.topology.devices();
        let row = &self.cells[atom as usize * devices..][..devices];
        if !self.walker.returns(&self.topology, row, device) {
            return 0;
        }
        let complete = self.walker.cycles(&self.topology, row, device, &mut self.found);
        let range = self.atoms.range(atom);
        self.loops.add(&self.topology, &self.lists, atom, range, &mut self.found, complete)
    }

    fn list_changed(&mut self, acl: AclId, rule: &AclRule, more: bool) -> Report {
        self.version += 1;
        self.list_touched[acl.index()] = self.version;
        let atoms = &self.atoms;
        let found = self.loops.list_changed(&self.lists, acl.0, rule, more, |atom| atoms.range(atom));
        Report { changed: 0, found, loops: self.loops.live() }
    }
}
