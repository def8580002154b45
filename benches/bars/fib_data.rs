//! Networks of forwarding devices to measure on: readers of three public data
//! sets, and generators of the same shape.

use std::collections::{BTreeMap, HashMap};
use std::fs::read_to_string;
use std::net::Ipv4Addr;
use std::path::Path;

use lab_core::engine::forwarding::{
    AclId, AclRule, Addresses, Change, Headers, PortId, Prefix, Route, Topology, TopologyBuilder,
};

/// A network and what happens to it.
pub struct Data {
    pub name: &'static str,
    pub topology: Topology,
    /// In the order they come.
    pub changes: Vec<Change>,
    /// Changes that come together, after the others.
    pub batches: Vec<Vec<Change>>,
    /// Where traffic enters and leaves.
    pub edges: Vec<PortId>,
}

/// The undoing of a change.
pub fn undo(change: Change) -> Change {
    match change {
        Change::Insert(route) => Change::Remove(route),
        Change::Remove(route) => Change::Insert(route),
        Change::InsertAcl(acl, rule) => Change::RemoveAcl(acl, rule),
        Change::RemoveAcl(acl, rule) => Change::InsertAcl(acl, rule),
    }
}

/// Reads a file of the data folder, if there is one.
fn text(folder: &Path, name: &str) -> Option<String> {
    read_to_string(folder.join(name)).ok()
}

fn route(builder: &mut TopologyBuilder, words: &[&str], port: &str, priority: &str) -> Option<Route> {
    let device = builder.device(words[0]);
    let prefix = Prefix::new(Ipv4Addr::from_bits(words[1].parse().ok()?), words[2].parse().ok()?).ok()?;
    let port = builder.port(device, port);
    Some(Route { device, prefix, port, priority: priority.parse().ok()? })
}

/// The Stanford backbone: forwarding and access list updates in file order.
pub fn stanford(folder: &Path) -> Option<Data> {
    let folder = folder.join("stanford");
    let mut builder = TopologyBuilder::default();
    let is_list = |name: &str| name.ends_with("_in") || name.ends_with("_out");
    // What each port and each application of a list leads to.
    let mut next: HashMap<String, Vec<(String, String)>> = HashMap::new();
    let mut starts = Vec::new();
    for line in text(&folder, "topo.txt")?.lines() {
        let words: Vec<&str> = line.split_whitespace().collect();
        let [from, from_port, to, to_port] = words[..] else { continue };
        let key = if is_list(from) { from.to_owned() } else { format!("{from} {from_port}") };
        next.entry(key).or_default().push((to.to_owned(), to_port.to_owned()));
        if !is_list(from) {
            starts.push((from.to_owned(), from_port.to_owned(), to.to_owned(), to_port.to_owned()));
        }
    }
    for (from, from_port, to, to_port) in starts {
        let device = builder.device(&from);
        let leaves = builder.port(device, &from_port);
        let mut ways = vec![(to, to_port, Vec::new())];
        while let Some((at, port, mut acls)) = ways.pop() {
            if !is_list(&at) {
                let device = builder.device(&at);
                let arrives = builder.port(device, &port);
                builder.link(leaves, arrives, &acls).ok()?;
                continue;
            }
            // `coza_rtr_120_te2/3_in` applies the list `coza_rtr_120`.
            acls.push(builder.acl(&at.split('_').take(3).collect::<Vec<_>>().join("_")));
            for (to, port) in next.get(&at).into_iter().flatten() {
                ways.push((to.clone(), port.clone(), acls.clone()));
            }
        }
    }
    for line in text(&folder, "vlan.txt")?.lines() {
        let words: Vec<&str> = line.split_whitespace().collect();
        let [device, vlan, members @ ..] = &words[..] else { continue };
        let device = builder.device(device);
        let vlan = builder.port(device, vlan);
        let members: Vec<PortId> = members.iter().map(|m| builder.port(device, m)).collect();
        builder.group(vlan, &members).ok()?;
    }
    let mut changes = Vec::new();
    for line in text(&folder, "updates")?.lines() {
        let words: Vec<&str> = line.split_whitespace().collect();
        let insert = match words[1] {
            "fwd" => Change::Insert(route(&mut builder, &words[2..], words[5], words[6])?),
            _ => Change::InsertAcl(builder.acl(words[2]), acl_rule(&words[5..])?),
        };
        changes.push(if words[0] == "+" { insert } else { undo(insert) });
    }
    let topology = builder.build();
    Some(Data { name: "Stanford", topology, changes, batches: Vec::new(), edges: Vec::new() })
}

/// `permit PROTO PROTO SRC WILDCARD SPORT SPORT DST WILDCARD DPORT DPORT PRIO`.
fn acl_rule(words: &[&str]) -> Option<AclRule> {
    let addresses = |address: &str, wildcard: &str| {
        if address == "any" {
            return Some(Addresses::ANY);
        }
        let free = if wildcard == "null" { 0 } else { wildcard.parse::<Ipv4Addr>().ok()?.to_bits() };
        Some(Addresses::masked(address.parse().ok()?, Ipv4Addr::from_bits(!free)))
    };
    let ports = |low: &str, high: &str| match low {
        "null" => Some((0, u16::MAX)),
        _ => Some((low.parse().ok()?, high.parse().unwrap_or(u16::MAX))),
    };
    let headers = Headers {
        protocol: (words[1].parse().ok()?, words[2].parse().ok()?),
        source: addresses(words[3], words[4])?,
        source_port: ports(words[5], words[6])?,
        destination: addresses(words[7], words[8])?,
        destination_port: ports(words[9], words[10])?,
    };
    Some(AclRule { priority: words[11].parse().ok()?, permit: words[0] == "permit", headers })
}

/// Internet2: every rule, then every rule gone, in file order. Sub-interfaces
/// count as their interface.
pub fn internet2(folder: &Path) -> Option<Data> {
    let folder = folder.join("internet2");
    let mut builder = TopologyBuilder::default();
    for line in text(&folder, "topology")?.lines() {
        let words: Vec<&str> = line.split_whitespace().collect();
        let [a, a_port, b, b_port] = words[..] else { continue };
        let (a, b) = (builder.device(a), builder.device(b));
        let (a, b) = (builder.port(a, a_port), builder.port(b, b_port));
        builder.link(a, b, &[]).ok()?;
        builder.link(b, a, &[]).ok()?;
    }
    let mut devices: Vec<_> = std::fs::read_dir(folder.join("rule")).ok()?.flatten().collect();
    devices.sort_by_key(|d| d.file_name());
    let mut changes = Vec::new();
    for device in devices {
        let name = device.file_name().into_string().ok()?;
        for line in read_to_string(device.path()).ok()?.lines() {
            let words: Vec<&str> = line.split_whitespace().collect();
            let [_, address, len, port] = words[..] else { continue };
            let port = port.split('.').next()?;
            changes.push(Change::Insert(route(&mut builder, &[&name, address, len], port, len)?));
        }
    }
    changes.extend(changes.clone().into_iter().map(undo));
    let topology = builder.build();
    Some(Data { name: "Internet2", topology, changes, batches: Vec::new(), edges: Vec::new() })
}

/// uscarrier: rules, link failures, and the ports at the edge.
pub fn uscarrier(folder: &Path) -> Option<Data> {
    let folder = folder.join("uscarrier");
    let mut builder = TopologyBuilder::default();
    for line in text(&folder, "layer1Topology")?.lines() {
        let words: Vec<&str> = line.split_whitespace().collect();
        let [a, a_port, b, b_port] = words[..] else { continue };
        let (a, b) = (builder.device(a), builder.device(b));
        let (a, b) = (builder.port(a, a_port), builder.port(b, b_port));
        builder.link(a, b, &[]).ok()?;
    }
    let mut edges = Vec::new();
    for line in text(&folder, "edgePorts")?.lines() {
        let (device, port) = line.split_once(' ')?;
        let device = builder.device(device);
        edges.push(builder.port(device, port));
    }
    let mut read = |name: &str| -> Option<Vec<Change>> {
        let text = text(&folder, name)?;
        let lines = text.lines().map(|line| {
            let words: Vec<&str> = line.split_whitespace().collect();
            let insert = Change::Insert(route(&mut builder, &words[2..], words[5], words[6])?);
            Some(if words[0] == "+" { insert } else { undo(insert) })
        });
        lines.collect()
    };
    let changes = read("change_base")?;
    let batches =
        (1..=20).map(|n| read(&format!("link-failures/change_update_{n}"))).collect::<Option<_>>()?;
    Some(Data { name: "uscarrier", topology: builder.build(), changes, batches, edges })
}

/// Pseudo-random numbers that are the same in every run.
pub struct Dice(pub u64);

impl Dice {
    /// A number below `below`, which is not 0.
    pub fn roll(&mut self, below: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as usize % below
    }
}

/// A backbone: a ring of routers with chords, each with prefixes of its own at
/// its edge, and at every router the way of fewest links to each. Of every 64
/// rules one goes astray, mostly back where it came from. `lists` puts an access list on every chord.
pub fn backbone(routers: usize, prefixes: usize, lists: bool) -> Data {
    let mut builder = TopologyBuilder::default();
    builder.hairpin(true);
    let mut dice = Dice(routers as u64);
    let mut ways: Vec<Vec<(usize, PortId)>> = vec![Vec::new(); routers];
    let mut changes = Vec::new();
    for n in 0..routers * 3 / 2 {
        let (a, b) = match n < routers {
            true => (n, (n + 1) % routers),
            false => (dice.roll(routers), dice.roll(routers)),
        };
        if a == b || ways[a].iter().any(|w| w.0 == b) {
            continue;
        }
        let acls: Vec<AclId> = match lists && n >= routers {
            true => vec![builder.acl(&format!("acl{n}"))],
            false => Vec::new(),
        };
        for acl in &acls {
            for port in 0..8 {
                let headers = Headers { destination_port: (port, port + 1), ..Headers::ALL };
                let rule = AclRule { priority: u32::from(port), permit: port % 2 == 0, headers };
                changes.push(Change::InsertAcl(*acl, rule));
            }
        }
        for (from, to) in [(a, b), (b, a)] {
            let (device, other) = (builder.device(&format!("r{from}")), builder.device(&format!("r{to}")));
            let port = builder.port(device, &format!("to{to}"));
            let arrives = builder.port(other, &format!("to{from}"));
            // Both ends have a link of their own, so none fails here.
            let _ = builder.link(port, arrives, &acls);
            ways[from].push((to, port));
        }
    }
    let edges: Vec<PortId> = (0..routers)
        .map(|n| {
            let device = builder.device(&format!("r{n}"));
            builder.port(device, "edge")
        })
        .collect();
    let mut batches = vec![Vec::new(); 8];
    for n in 0..prefixes {
        let owner = n % routers;
        let len = 16 + (n % 9) as u8;
        let address = Ipv4Addr::from_bits((n as u32).wrapping_mul(0x9E37_79B1));
        let Ok(prefix) = Prefix::new(address, len) else { continue };
        let mut hops: BTreeMap<usize, PortId> = BTreeMap::from([(owner, edges[owner])]);
        let mut queue = std::collections::VecDeque::from([owner]);
        while let Some(at) = queue.pop_front() {
            for (next, _) in &ways[at] {
                if !hops.contains_key(next) {
                    let back = ways[*next].iter().find(|w| w.0 == at).map_or(edges[*next], |w| w.1);
                    hops.insert(*next, back);
                    queue.push_back(*next);
                }
            }
        }
        for (router, port) in hops {
            let astray = dice.roll(64) == 0;
            let port = if astray { ways[router][dice.roll(ways[router].len())].1 } else { port };
            let device = builder.device(&format!("r{router}"));
            let route = Route { device, prefix, port, priority: u32::from(len) };
            changes.push(Change::Insert(route));
            if dice.roll(16) == 0 {
                let other = ways[router][dice.roll(ways[router].len())].1;
                let moved = [Change::Remove(route), Change::Insert(Route { port: other, ..route })];
                let nth = dice.roll(8);
                // A rule is moved once, so that every batch finds it in place.
                batches[nth].extend(moved);
            }
        }
    }
    Data { name: "backbone", topology: builder.build(), changes, batches, edges }
}
