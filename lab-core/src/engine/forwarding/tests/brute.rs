//! The same answers by trying everything: each address and header by itself,
//! each rule in turn. As simple as it can be, and nothing shared with the
//! engine.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;

use super::super::*;

/// Rules as they came.
#[derive(Clone, Debug, Default)]
pub struct Plain {
    pub routes: Vec<Route>,
    pub lists: Vec<(AclId, AclRule)>,
}

impl Plain {
    /// Makes a change; false if there is no such rule.
    pub fn change(&mut self, change: &Change) -> bool {
        match *change {
            Change::Insert(route) => self.routes.push(route),
            Change::InsertAcl(acl, rule) => self.lists.push((acl, rule)),
            Change::Remove(route) => {
                let Some(at) = self.routes.iter().rposition(|r| *r == route) else { return false };
                self.routes.remove(at);
            }
            Change::RemoveAcl(acl, rule) => {
                let Some(at) = self.lists.iter().rposition(|r| *r == (acl, rule)) else { return false };
                self.lists.remove(at);
            }
        }
        true
    }

    pub fn lookup(&self, device: DeviceId, address: Ipv4Addr) -> Option<PortId> {
        let matches = self.routes.iter().filter(|r| r.device == device && r.prefix.range().contains(address));
        // The last of equals is the newest.
        matches.max_by_key(|r| (r.priority, r.prefix.len())).map(|r| r.port)
    }

    pub fn permits(&self, acl: AclId, header: &Header) -> bool {
        let rules = self.lists.iter().filter(|(a, r)| *a == acl && r.headers.contains(header));
        rules.map(|(_, r)| r).max_by_key(|r| r.priority).is_some_and(|r| r.permit)
    }

    /// Where a packet that left by a port may leave next, and by which link.
    fn next(&self, topology: &Topology, left: PortId, header: &Header) -> Vec<(LinkId, PortId)> {
        let mut next = Vec::new();
        for link in topology.out(left.0) {
            let it = topology.link(LinkId(*link)).unwrap();
            if !it.acls.iter().all(|a| self.permits(*a, header)) {
                continue;
            }
            for port in self.leaves(topology, it.to, header) {
                next.push((LinkId(*link), port));
            }
        }
        next
    }

    /// Where a packet leaves that came in by a port.
    fn leaves(&self, topology: &Topology, came_by: PortId, header: &Header) -> Vec<PortId> {
        let Some(port) = self.lookup(topology.device_of(came_by), header.destination) else {
            return Vec::new();
        };
        let members = topology.departs(port.0).iter().map(|m| PortId(*m));
        members.filter(|m| *m != came_by || topology.hairpin()).collect()
    }

    /// Every loop a packet may take, begun at its least link.
    pub fn loops(&self, topology: &Topology, header: &Header) -> BTreeSet<Vec<LinkId>> {
        let mut found = BTreeSet::new();
        for device in 0..topology.devices() as u32 {
            let Some(port) = self.lookup(DeviceId(device), header.destination) else { continue };
            for start in topology.departs(port.0) {
                let mut way = (vec![PortId(*start)], Vec::new());
                self.ways(topology, header, &mut way, &mut found);
            }
        }
        found
    }

    fn ways(
        &self,
        topology: &Topology,
        header: &Header,
        way: &mut (Vec<PortId>, Vec<LinkId>),
        found: &mut BTreeSet<Vec<LinkId>>,
    ) {
        for (link, port) in self.next(topology, way.0[way.0.len() - 1], header) {
            way.1.push(link);
            if port == way.0[0] {
                let least = way.1.iter().enumerate().min_by_key(|l| l.1).unwrap().0;
                let mut cycle = way.1.clone();
                cycle.rotate_left(least);
                found.insert(cycle);
            } else if !way.0.contains(&port) {
                way.0.push(port);
                self.ways(topology, header, way, found);
                way.0.pop();
            }
            way.1.pop();
        }
    }

    /// Where a packet that enters by a port leaves the network.
    pub fn reaches(&self, topology: &Topology, from: PortId, header: &Header) -> BTreeSet<PortId> {
        let mut seen: BTreeSet<PortId> = self.leaves(topology, from, header).into_iter().collect();
        let mut queue: Vec<PortId> = seen.iter().copied().collect();
        while let Some(port) = queue.pop() {
            for (_, next) in self.next(topology, port, header) {
                if seen.insert(next) {
                    queue.push(next);
                }
            }
        }
        seen
    }
}
