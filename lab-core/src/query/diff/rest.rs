//! What differs and that no command of ours says.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Debug;

use super::network::Routes;
use crate::model::{FdbEntry, Host, Interface, Lab, Neighbour, NeighbourState, Route, Unmodelled};

/// What is in one list more often than in another, by what is shown of it.
fn listed<T>(a: &[T], b: &[T], text: impl Fn(&T) -> String) -> Vec<String> {
    let count = |list: &[T]| {
        let mut counts: BTreeMap<String, i64> = BTreeMap::new();
        for item in list {
            *counts.entry(text(item)).or_default() += 1;
        }
        counts
    };
    let (a, b) = (count(a), count(b));
    let keys: BTreeSet<&String> = a.keys().chain(b.keys()).collect();
    let of = |counts: &BTreeMap<String, i64>, key: &str| counts.get(key).copied().unwrap_or(0);
    keys.into_iter()
        .filter_map(|key| match of(&b, key) - of(&a, key) {
            0 => None,
            more if more > 0 => Some(format!("{key} is new")),
            _ => Some(format!("{key} is gone")),
        })
        .collect()
}

fn link(link: &crate::model::Link) -> String {
    let ends: Vec<String> = link.endpoints.iter().map(ToString::to_string).collect();
    let name = link.name.as_deref().map(|name| format!(" {name}")).unwrap_or_default();
    format!("link{name} between {}", ends.join(", "))
}

fn kept(one: &Unmodelled) -> String {
    format!("{} ({})", one.what, one.origin.file)
}

/// What differs of the labs as a whole.
pub(super) fn of_labs(a: &Lab, b: &Lab) -> Vec<String> {
    let name = |name: &String| format!("host {name}");
    let names = |lab: &Lab| lab.hosts.keys().cloned().collect::<Vec<_>>();
    let mut found = listed(&names(a), &names(b), name);
    found.extend(listed(&a.links, &b.links, link));
    found.extend(listed(&a.macvlans, &b.macvlans, |(on, is)| format!("macvlan {is} on {on}")));
    found.extend(listed(&a.unmodelled, &b.unmodelled, kept));
    found
}

fn differs<T: PartialEq + Debug>(found: &mut Vec<String>, what: &str, a: &T, b: &T) {
    if a != b {
        found.push(format!("{what} was {a:?}, is {b:?}"));
    }
}

fn interface(found: &mut Vec<String>, a: &Interface, b: &Interface) {
    let name = &b.name;
    differs(found, &format!("kind of {name}"), &a.kind, &b.kind);
    differs(found, &format!("MAC address of {name}"), &a.mac, &b.mac);
    differs(found, &format!("MTU of {name}"), &a.mtu, &b.mtu);
    differs(found, &format!("state of {name}"), &a.up, &b.up);
    differs(found, &format!("carrier of {name}"), &a.carrier, &b.carrier);
    differs(found, &format!("ARP of {name}"), &a.arp, &b.arp);
    differs(found, &format!("device under {name}"), &a.link, &b.link);
    differs(found, &format!("master of {name}"), &a.master, &b.master);
    differs(found, &format!("bridge port {name}"), &a.port, &b.port);
    differs(found, &format!("VLANs of {name}"), &a.vlans, &b.vlans);
    differs(found, &format!("standby of {name}"), &a.standby, &b.standby);
}

fn neighbour(entry: &Neighbour) -> String {
    let proxy = if entry.proxy { "proxy " } else { "" };
    let mac = entry.mac.map(|mac| format!(" at {mac}")).unwrap_or_default();
    format!("{proxy}neighbour {} on {}{mac}", entry.address, entry.interface)
}

fn fdb(entry: &FdbEntry) -> String {
    let to = entry.destination.map(|to| format!(" to {to}")).unwrap_or_default();
    let vlan = entry.vlan.map(|vlan| format!(" in VLAN {vlan}")).unwrap_or_default();
    format!("forwarding entry {} by {}{to}{vlan}", entry.mac, entry.interface)
}

/// What is left of the differences when all changes are made.
pub(super) fn of_hosts(state: &Host, b: &Host) -> Vec<String> {
    let mut found = Vec::new();
    differs(&mut found, "sort of host", &state.kind, &b.kind);
    differs(&mut found, "host below", &state.parent, &b.parent);
    differs(&mut found, "what is not told", &state.unknown, &b.unknown);
    let name = |i: &Interface| format!("interface {}", i.name);
    found.extend(listed(&state.interfaces, &b.interfaces, name));
    for new in &b.interfaces {
        if let Some(old) = state.interface(&new.name) {
            interface(&mut found, old, new);
        }
    }
    let by_hand = |host: &Host| -> Vec<Neighbour> {
        let fixed = |n: &&Neighbour| n.proxy || n.state == NeighbourState::Permanent;
        host.neighbours.iter().filter(fixed).cloned().collect()
    };
    found.extend(listed(&by_hand(state), &by_hand(b), neighbour));
    let fixed =
        |host: &Host| -> Vec<FdbEntry> { host.fdb.iter().filter(|e| e.fixed || e.local).cloned().collect() };
    found.extend(listed(&fixed(state), &fixed(b), fdb));
    found.extend(listed(&state.unmodelled, &b.unmodelled, kept));
    let dead = |a: &Route, b: &Route| {
        a.next_hops.iter().zip(&b.next_hops).any(|(a, b)| (a.dead, a.linkdown) != (b.dead, b.linkdown))
    };
    let routes = Routes::of(&state.routes);
    for route in &b.routes {
        if routes.find(route).is_some_and(|r| dead(r, route)) {
            found.push(format!("whether a way of the route to {} is dead", route.destination));
        }
    }
    found
}
