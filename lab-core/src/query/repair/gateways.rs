//! By whom a host could reach a destination: the hosts on its links, and how
//! far each is from it.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::IpAddr;

use ipnet::IpNet;

use super::fix;
use crate::addr::Family;
use crate::model::{Change, Host, InterfaceKind, Lab, PolicyAction, RouteKey, RouteKind, RouteTable};
use crate::query::ends;
use crate::query::what_if::HostChange;
use crate::semantics::input::forwards;
use crate::semantics::segment;

/// The most routes that are tried at a host.
const FEW: usize = 3;

/// A way from a host to another on one of its links.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Step {
    device: String,
    /// An address of the other that the host has on its link.
    gateway: IpAddr,
    to: String,
}

/// The hosts of a lab by their links, for one destination.
#[derive(Debug)]
pub(super) struct Gateways<'a> {
    lab: &'a Lab,
    destination: IpAddr,
    steps: BTreeMap<&'a str, Vec<Step>>,
    /// How many links each host is from the destination.
    distances: BTreeMap<String, usize>,
}

impl<'a> Gateways<'a> {
    /// Looks at who is on whose links.
    pub fn new(lab: &'a Lab, destination: IpAddr) -> Self {
        let mut steps = BTreeMap::new();
        for host in lab.all_hosts() {
            steps.insert(host.name.as_str(), steps_of(lab, host, destination));
        }
        let mut distances: BTreeMap<String, usize> = BTreeMap::new();
        let mut queue: VecDeque<String> = VecDeque::new();
        for host in goals(lab, destination) {
            distances.insert(host.clone(), 0);
            queue.push_back(host);
        }
        while let Some(at) = queue.pop_front() {
            let next = distances[&at] + 1;
            for (from, steps) in &steps {
                if steps.iter().any(|s| s.to == at) && !distances.contains_key(*from) {
                    distances.insert((*from).to_owned(), next);
                    queue.push_back((*from).to_owned());
                }
            }
        }
        Gateways { lab, destination, steps, distances }
    }

    /// Routes at a host that lead nearer to the destination, the nearest and
    /// those by hosts that forward first: each some changes to be made at once.
    pub fn routes(&self, name: &str) -> Vec<Vec<HostChange>> {
        let (Some(host), Some(own)) = (self.lab.host(name), self.distances.get(name)) else {
            return Vec::new();
        };
        let mut nearer: Vec<(usize, bool, &Step)> = Vec::new();
        for step in self.steps.get(name).into_iter().flatten() {
            let Some(distance) = self.distances.get(&step.to).filter(|d| *d < own) else { continue };
            let lazy = *distance > 0 && !self.forwards(step);
            // One address of a neighbour on a link is as good as another.
            let known = |n: &(usize, bool, &Step)| (&n.2.to, &n.2.device) == (&step.to, &step.device);
            if step.gateway == self.destination || !nearer.iter().any(known) {
                nearer.push((*distance, lazy, step));
            }
        }
        nearer.sort_by(|a, b| (a.0, a.1, &a.2.to, a.2.gateway).cmp(&(b.0, b.1, &b.2.to, b.2.gateway)));
        let mut found: Vec<Vec<HostChange>> = Vec::new();
        for (_, _, step) in nearer.into_iter().take(FEW) {
            for net in self.prefixes() {
                found.extend(self.route(host, net, step));
            }
        }
        found
    }

    /// Loose reverse path filtering for hosts on the links of one: a strict one
    /// drops even what asks for its address (`arp_process`).
    pub fn loosened(&self, name: &str) -> Vec<Vec<HostChange>> {
        let mut found: Vec<Vec<HostChange>> = Vec::new();
        for step in self.steps.get(name).into_iter().flatten() {
            let Some(host) = self.lab.host(&step.to) else { continue };
            let Some(device) = host.interface_with(step.gateway) else { continue };
            let setting = |name: &str| host.sysctls.interface("ipv4", name, "rp_filter");
            if setting("all").max(setting(&device.name)) == Some(1) {
                let key = format!("net.ipv4.conf.{}.rp_filter", device.name.replace('.', "/"));
                let fixes = vec![fix::sysctl(&host.name, key, "2")];
                if !found.contains(&fixes) {
                    found.push(fixes);
                }
            }
        }
        found
    }

    /// The subnet that the destination is in, if the lab has it, and the
    /// destination alone.
    fn prefixes(&self) -> Vec<IpNet> {
        let owner = ends::owner(self.lab, self.destination);
        let address = owner
            .and_then(|h| h.interface_with(self.destination))
            .and_then(|i| i.addresses.iter().find(|a| a.address == self.destination));
        let alone = IpNet::from(self.destination);
        match address.and_then(|a| a.net()).map(|n| n.trunc()) {
            Some(net) if net != alone => vec![net, alone],
            _ => vec![alone],
        }
    }

    fn route(&self, host: &Host, net: IpNet, step: &Step) -> Option<Vec<HostChange>> {
        let table = deciding_table(host, self.destination);
        let there = |r: &&crate::model::Route| {
            r.destination == net && r.table == table && r.kind != RouteKind::Local && r.metric == 0
        };
        let mut fixes = Vec::new();
        if host.routes.iter().any(|r| there(&r)) {
            // The kernel has one route of a prefix and metric; only one for the
            // destination alone is taken to be for nothing else.
            if net.prefix_len() < net.max_prefix_len() || table != RouteTable::MAIN {
                return None;
            }
            let change = Change::DeleteRoute(Box::new(RouteKey::to(net)));
            fixes.push(HostChange { host: host.name.clone(), change });
        }
        let (gateway, number) = (step.gateway.to_string(), table.to_string());
        let mut words: Vec<&str> = Vec::new();
        if step.gateway != self.destination {
            words.extend(["via", &gateway]);
        }
        words.extend(["dev", &step.device]);
        if table != RouteTable::MAIN {
            words.extend(["table", &number]);
        }
        fixes.push(fix::route(host, net, &words)?);
        Some(fixes)
    }

    fn forwards(&self, step: &Step) -> bool {
        let Some(host) = self.lab.host(&step.to) else { return false };
        let device = host.interface_with(step.gateway).map_or("all", |i| i.name.as_str());
        forwards(host, device, Family::of(self.destination)) == Some(true)
    }

    /// Of hosts that packets were routed by, in order, those that sent them no
    /// nearer to the destination.
    pub fn wrong_turns<'h>(&self, hosts: &'h [String]) -> Vec<&'h str> {
        let no_nearer = |pair: &&[String]| match (self.distances.get(&pair[0]), self.distances.get(&pair[1]))
        {
            (Some(own), Some(next)) => next >= own,
            (own, _) => own.is_some(),
        };
        hosts.windows(2).filter(no_nearer).map(|pair| pair[0].as_str()).collect()
    }
}

/// The hosts that have a destination, or else lead to it: by a link of its
/// prefix, or out of the lab.
fn goals(lab: &Lab, destination: IpAddr) -> Vec<String> {
    if let Some(owner) = ends::owner(lab, destination) {
        return vec![owner.name.clone()];
    }
    let on_link = |h: &Host| {
        let nets = h.interfaces.iter().flat_map(|i| &i.addresses).filter_map(|a| a.net());
        nets.filter(|n| !n.addr().is_loopback()).any(|n| n.contains(&destination))
    };
    let near: Vec<String> = lab.all_hosts().filter(|h| on_link(h)).map(|h| h.name.clone()).collect();
    if !near.is_empty() {
        return near;
    }
    let leads_out = |h: &Host| h.interfaces.iter().any(|i| lab.leads_out(&h.name, i));
    lab.all_hosts().filter(|h| leads_out(h)).map(|h| h.name.clone()).collect()
}

fn steps_of(lab: &Lab, host: &Host, destination: IpAddr) -> Vec<Step> {
    let family = Family::of(destination);
    let mut steps = Vec::new();
    for device in &host.interfaces {
        let nets: Vec<IpNet> =
            device.addresses.iter().filter(|a| a.family() == family).filter_map(|a| a.net()).collect();
        if nets.is_empty() || !device.up || device.kind == InterfaceKind::Loopback {
            continue;
        }
        for receiver in segment::behind(lab, host, device).receivers {
            for address in &receiver.device.addresses {
                let on_link = nets.iter().any(|n| n.contains(&address.address));
                // The destination itself answers on its link, whatever its
                // prefix.
                if receiver.host.name != host.name && (on_link || address.address == destination) {
                    steps.push(Step {
                        device: device.name.clone(),
                        gateway: address.address,
                        to: receiver.host.name.clone(),
                    });
                }
            }
        }
    }
    steps
}

/// The table where a route to a destination would be found: that of a rule
/// before the main table's which has something to say about it, or main.
fn deciding_table(host: &Host, destination: IpAddr) -> RouteTable {
    let family = Family::of(destination);
    let covers = |table: RouteTable| {
        host.routes.iter().any(|r| r.table == table && r.destination.contains(&destination))
    };
    host.rules
        .iter()
        .filter(|r| r.family == family && r.destination.is_none_or(|n| n.contains(&destination)))
        .filter_map(|r| match r.action {
            PolicyAction::Lookup(table) if table != RouteTable::LOCAL => Some(table),
            _ => None,
        })
        .take_while(|t| *t != RouteTable::MAIN)
        .find(|t| covers(*t))
        .unwrap_or(RouteTable::MAIN)
}

/// The hosts that hang together with one by links and tunnels, whatever their
/// addresses say.
pub(super) fn joined(lab: &Lab, from: &str) -> BTreeSet<String> {
    let mut seen = BTreeSet::from([from.to_owned()]);
    let mut queue = VecDeque::from([from.to_owned()]);
    while let Some(at) = queue.pop_front() {
        let Some(host) = lab.host(&at) else { continue };
        for device in &host.interfaces {
            let wired = lab.peers(&at, &device.name).map(|e| e.host.clone());
            let behind = segment::behind(lab, host, device);
            let heard = behind.receivers.iter().map(|r| r.host.name.clone());
            let upon = lab.macvlans.iter().filter_map(|(a, b)| match (a.host == at, b.host == at) {
                (true, _) => Some(b.host.clone()),
                (_, true) => Some(a.host.clone()),
                _ => None,
            });
            let all: Vec<String> = wired.chain(heard).chain(upon).collect();
            for next in all {
                if seen.insert(next.clone()) {
                    queue.push_back(next);
                }
            }
        }
    }
    seen
}
