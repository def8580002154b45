//! Walks along the ports that packets of one atom leave by.
//!
//! A packet that leaves by one port twice leaves by it for ever: a loop is a
//! way from a port back to it that passes no port twice.

use super::ids::NONE;
use super::Topology;

/// A loop of one atom has at most this many ways; the rest are not told apart.
const MOST: usize = 1024;
/// Nor are they looked for longer than this many steps.
const STEPS: usize = 1 << 18;

/// The port that a device sends an atom to, as `Network` keeps it.
pub(super) fn port_of(cell: u64) -> u32 {
    (cell >> 32) as u32
}

/// Room for walks, kept between them.
#[derive(Clone, Debug, Default)]
pub(super) struct Walker {
    stamp: u32,
    /// For each port, the last walk that left by it.
    left: Vec<u32>,
    /// For each port, the last walk on whose current way it is. A walk that ends
    /// early leaves its number there, which no later one has.
    on_way: Vec<u32>,
    queue: Vec<u32>,
    edges: Vec<(u32, u32)>,
    choices: Vec<(u32, u32)>,
    frames: Vec<(u32, usize)>,
}

impl Walker {
    pub fn new(ports: usize) -> Self {
        Walker { left: vec![0; ports], on_way: vec![0; ports], ..Walker::default() }
    }

    fn renew(&mut self) {
        self.stamp = self.stamp.wrapping_add(1);
        if self.stamp == 0 {
            self.left.fill(0);
            self.on_way.fill(0);
            self.stamp = 1;
        }
        self.queue.clear();
    }

    /// Whether anything that a device sends comes back to it. `row` tells the
    /// port that each device sends to.
    pub fn returns(&mut self, topology: &Topology, row: &[u64], device: u32) -> bool {
        let port = port_of(row[device as usize]);
        if !topology.leads(port) {
            return false;
        }
        self.renew();
        let stamp = self.stamp;
        self.queue.extend_from_slice(topology.departs(port));
        while let Some(port) = self.queue.pop() {
            for link in topology.out(port) {
                let (at, came_by) = topology.arrive(*link);
                if at == device {
                    return true;
                }
                let next = port_of(row[at as usize]);
                if !topology.leads(next) {
                    continue;
                }
                for leave in topology.departs(next) {
                    let turns = *leave == came_by && !topology.hairpin();
                    if !turns && self.left[*leave as usize] != stamp {
                        self.left[*leave as usize] = stamp;
                        self.queue.push(*leave);
                    }
                }
            }
        }
        false
    }

    /// Whether anything that some devices send loops. One walk for all of them.
    pub fn any(&mut self, topology: &Topology, row: &[u64], devices: impl Iterator<Item = u32>) -> bool {
        self.renew();
        let stamp = self.stamp;
        self.frames.clear();
        self.choices.clear();
        for device in devices {
            let port = port_of(row[device as usize]);
            if !topology.leads(port) {
                continue;
            }
            for start in topology.departs(port) {
                if self.left[*start as usize] == stamp {
                    continue;
                }
                self.enter(topology, row, *start);
                while let Some((port, first)) = self.frames.last().copied() {
                    if self.choices.len() == first {
                        self.frames.pop();
                        self.on_way[port as usize] = 0;
                        continue;
                    }
                    let Some((_, next)) = self.choices.pop() else { break };
                    if self.on_way[next as usize] == stamp {
                        return true;
                    }
                    if self.left[next as usize] != stamp {
                        self.enter(topology, row, next);
                    }
                }
            }
        }
        false
    }

    /// Leaves by a port, with its ways on to be tried.
    fn enter(&mut self, topology: &Topology, row: &[u64], port: u32) {
        self.left[port as usize] = self.stamp;
        self.on_way[port as usize] = self.stamp;
        self.frames.push((port, self.choices.len()));
        successors(topology, row, port, &mut self.choices);
    }

    /// Every loop through a device, as its links; false if there are more than
    /// are told apart.
    ///
    /// Costs time in proportion to the ports that lead back to the device, and
    /// to the ways among them.
    pub fn cycles(
        &mut self,
        topology: &Topology,
        row: &[u64],
        device: u32,
        found: &mut Vec<Vec<u32>>,
    ) -> bool {
        let port = port_of(row[device as usize]);
        if !topology.leads(port) {
            return true;
        }
        let starts = topology.departs(port);
        self.mark_leading_back(topology, row, starts);
        let mut steps = 0;
        for (nth, start) in starts.iter().enumerate() {
            // Loops through an earlier start have been found from it.
            let banned = &starts[..nth];
            if !self.from(topology, row, *start, banned, &mut steps, found) {
                return false;
            }
        }
        true
    }

    /// Stamps `left` of the ports that are reached from the starts and lead to
    /// one of them.
    fn mark_leading_back(&mut self, topology: &Topology, row: &[u64], starts: &[u32]) {
        self.renew();
        let reached = self.stamp;
        self.edges.clear();
        for start in starts {
            self.left[*start as usize] = reached;
            self.queue.push(*start);
        }
        let mut at = 0;
        while let Some(port) = self.queue.get(at).copied() {
            at += 1;
            self.choices.clear();
            successors(topology, row, port, &mut self.choices);
            for (_, next) in &self.choices {
                self.edges.push((port, *next));
                if self.left[*next as usize] != reached {
                    self.left[*next as usize] = reached;
                    self.queue.push(*next);
                }
            }
        }
        self.choices.clear();
        self.renew();
        let leads = self.stamp;
        for start in starts {
            self.left[*start as usize] = leads;
        }
        // Edges were met in the order of their distance: backwards, one pass
        // does most of them.
        let mut more = true;
        while more {
            more = false;
            for (from, to) in self.edges.iter().rev() {
                if self.left[*to as usize] == leads && self.left[*from as usize] != leads {
                    self.left[*from as usize] = leads;
                    more = true;
                }
            }
        }
    }

    /// The loops through one port and none of the banned ones.
    fn from(
        &mut self,
        topology: &Topology,
        row: &[u64],
        start: u32,
        banned: &[u32],
        steps: &mut usize,
        found: &mut Vec<Vec<u32>>,
    ) -> bool {
        let leads = self.stamp;
        self.choices.clear();
        self.frames.clear();
        let mut way: Vec<u32> = Vec::new();
        successors(topology, row, start, &mut self.choices);
        self.frames.push((start, 0));
        while let Some((port, first)) = self.frames.last().copied() {
            *steps += 1;
            if *steps > STEPS {
                return false;
            }
            if self.choices.len() == first {
                self.frames.pop();
                self.on_way[port as usize] = 0;
                way.pop();
                continue;
            }
            let Some((link, next)) = self.choices.pop() else { break };
            if next == start {
                if found.len() == MOST {
                    return false;
                }
                let mut cycle = way.clone();
                cycle.push(link);
                found.push(canonical(cycle));
            } else if self.left[next as usize] == leads
                && self.on_way[next as usize] != leads
                && !banned.contains(&next)
            {
                self.on_way[next as usize] = leads;
                way.push(link);
                self.frames.push((next, self.choices.len()));
                successors(topology, row, next, &mut self.choices);
            }
        }
        true
    }
}

/// The ports a packet may leave by after it has left by `port`, and the links
/// it takes to get there.
pub(super) fn successors(topology: &Topology, row: &[u64], port: u32, into: &mut Vec<(u32, u32)>) {
    for link in topology.out(port) {
        let (at, came_by) = topology.arrive(*link);
        let next = port_of(row[at as usize]);
        if next == NONE {
            continue;
        }
        for leave in topology.departs(next) {
            if *leave != came_by || topology.hairpin() {
                into.push((*link, *leave));
            }
        }
    }
}

/// The same loop begun at its least link.
fn canonical(mut cycle: Vec<u32>) -> Vec<u32> {
    let least = cycle.iter().enumerate().min_by_key(|(_, link)| **link).map_or(0, |(at, _)| at);
    cycle.rotate_left(least);
    cycle
}
