//! What of a lab was understood, and what was not.

use serde::Serialize;

use super::{ends, Error};
use crate::model::{BridgeVlan, Host, Interface, InterfaceKind, Lab, Match, Statement, Target, Unmodelled};
use crate::semantics::segment;

/// One host in short.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct HostSummary {
    /// Its name.
    pub name: String,
    /// What sort of thing it is.
    pub kind: Option<String>,
    /// The host it runs on.
    pub parent: Option<String>,
    /// Its interfaces: name, kind, addresses with prefix, master.
    pub interfaces: Vec<InterfaceSummary>,
    /// How many routes it has.
    pub routes: usize,
    /// How many policy rules it has.
    pub policy_rules: usize,
    /// Its tables: back end, family, name, chains and rules.
    pub tables: Vec<TableSummary>,
    /// How many IP sets it has.
    pub ipsets: usize,
    /// What its snapshot does not tell.
    pub unknown: Vec<String>,
    /// What was read and kept, but is not understood.
    pub unmodelled: Vec<Unmodelled>,
}

/// One interface in short.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct InterfaceSummary {
    /// Its name.
    pub name: String,
    /// What sort of device it is.
    pub kind: String,
    /// What sets it apart from others of its kind: its VLANs, its ends, ….
    pub details: Vec<String>,
    /// Whether it is up.
    pub up: bool,
    /// The device it belongs to.
    pub master: Option<String>,
    /// Its addresses with prefix lengths.
    pub addresses: Vec<String>,
    /// Where it leads: peers, or `outside`.
    pub leads_to: Vec<String>,
}

/// One table in short.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct TableSummary {
    /// `legacy` or `nft`.
    pub backend: crate::model::Backend,
    /// Its family.
    pub family: crate::model::TableFamily,
    /// Its name.
    pub name: String,
    /// How many chains it has.
    pub chains: usize,
    /// How many rules it has.
    pub rules: usize,
}

/// A lab in short.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Summary {
    /// The form of this value: `lab.show/1`.
    pub schema: String,
    /// The lab's name.
    pub name: String,
    /// A sentence about it.
    pub description: Option<String>,
    /// How many links it has.
    pub links: usize,
    /// What its description says that is not understood.
    pub unmodelled: Vec<Unmodelled>,
    /// Its hosts.
    pub hosts: Vec<HostSummary>,
}

/// Sums a lab up, or one host of it.
///
/// # Errors
/// No host of that name.
pub fn show(lab: &Lab, host: Option<&str>) -> Result<Summary, Error> {
    let hosts = match host {
        Some(name) => vec![summary(lab, ends::host(lab, name)?)],
        None => lab.hosts.values().map(|h| summary(lab, h)).collect(),
    };
    Ok(Summary {
        schema: "lab.show/1".into(),
        name: lab.name.clone(),
        description: lab.description.clone(),
        links: lab.links.len(),
        unmodelled: lab.unmodelled.clone(),
        hosts,
    })
}

/// What is told of a device on top of its kind.
fn details(lab: &Lab, host: &Host, device: &Interface) -> Vec<String> {
    let mut told = Vec::new();
    let end = |a: Option<std::net::IpAddr>| a.map_or("any".to_owned(), |a| a.to_string());
    match &device.kind {
        InterfaceKind::Vlan(tag) => {
            let service = if tag.service { " of 802.1ad" } else { "" };
            told.push(format!("number {}{service} on {}", tag.id, device.link.as_deref().unwrap_or("?")));
        }
        InterfaceKind::Bond(bond) => {
            told.push(bond.mode.clone());
            told.extend(bond.active.as_ref().map(|active| format!("{active} in use")));
        }
        InterfaceKind::Macvlan(mode) => {
            let on = segment::lower(lab, host, device);
            let on = on.map_or("?".to_owned(), |(below, lower)| format!("{}:{}", below.name, lower.name));
            told.push(format!("{mode} on {on}"));
        }
        InterfaceKind::Vrf(table) => told.push(format!("table {table}")),
        InterfaceKind::Vxlan(vxlan) => told.push(format!("network {}", vxlan.vni)),
        InterfaceKind::Tunnel(tunnel) => {
            told.push(format!("{} to {}", end(tunnel.local), end(tunnel.remote)));
        }
        InterfaceKind::Wireguard(settings) => {
            told.push(format!("port {}, {} peers", settings.port, settings.peers.len()));
        }
        InterfaceKind::Bridge(bridge) if bridge.vlan_filtering => told.push("filters VLANs".into()),
        InterfaceKind::Bridge(_)
        | InterfaceKind::Loopback
        | InterfaceKind::Physical
        | InterfaceKind::Veth
        | InterfaceKind::Tun
        | InterfaceKind::Dummy
        | InterfaceKind::Other(_) => {}
    }
    if device.standby {
        told.push("stands by".into());
    }
    // A bridge that does not filter VLANs lists its default one all the same.
    let filters = |i: &Interface| matches!(&i.kind, InterfaceKind::Bridge(b) if b.vlan_filtering);
    let master = device.master.as_deref().and_then(|m| host.interface(m));
    if filters(device) || master.is_some_and(filters) {
        let vlan = |v: &BridgeVlan| {
            let words = [(v.pvid, "pvid"), (v.untagged, "untagged")];
            let set: Vec<&str> = words.iter().filter(|(on, _)| *on).map(|(_, word)| *word).collect();
            let set = if set.is_empty() { String::new() } else { format!(" {}", set.join(" ")) };
            format!("VLAN {}{set}", v.id)
        };
        told.extend(device.vlans.iter().map(vlan));
    }
    told
}

fn summary(lab: &Lab, host: &Host) -> HostSummary {
    let interfaces = host
        .interfaces
        .iter()
        .map(|i| InterfaceSummary {
            name: i.name.clone(),
            kind: i.kind.to_string(),
            details: details(lab, host, i),
            up: i.up,
            master: i.master.clone(),
            addresses: i.addresses.iter().map(|a| format!("{}/{}", a.address, a.prefix_len)).collect(),
            leads_to: if lab.leads_out(&host.name, i) {
                vec!["outside".into()]
            } else {
                lab.peers(&host.name, &i.name).map(ToString::to_string).collect()
            },
        })
        .collect();
    let tables = host
        .ruleset
        .tables
        .iter()
        .map(|t| TableSummary {
            backend: t.backend,
            family: t.family,
            name: t.name.clone(),
            chains: t.chains.len(),
            rules: t.chains.iter().map(|c| c.rules.len()).sum(),
        })
        .collect();
    HostSummary {
        name: host.name.clone(),
        kind: host.kind.as_ref().map(ToString::to_string),
        parent: host.parent.clone(),
        interfaces,
        routes: host.routes.len(),
        policy_rules: host.rules.len(),
        tables,
        ipsets: host.ipsets.len(),
        unknown: host.unknown.iter().map(ToString::to_string).collect(),
        unmodelled: unmodelled(host),
    }
}

/// Everything of a host that is kept but not understood, in reading order.
pub fn unmodelled(host: &Host) -> Vec<Unmodelled> {
    let mut all = host.unmodelled.clone();
    for table in &host.ruleset.tables {
        all.extend(table.unmodelled.iter().cloned());
        for set in table.sets.iter().filter(|s| !s.unmodelled.is_empty()) {
            all.push(Unmodelled {
                origin: table.origin.clone(),
                what: format!("set {}: {}", set.name, set.unmodelled),
                text: set.text.clone(),
            });
        }
        for rule in table.chains.iter().flat_map(|c| &c.rules) {
            for statement in &rule.statements {
                let what = match statement {
                    Statement::Match(Match::Set { name, .. }) if !host.ipsets.contains_key(&name.value) => {
                        format!("set {}, which is not in the snapshot", name.value)
                    }
                    Statement::Match(Match::Unmodelled { name, .. }) => format!("match {name}"),
                    Statement::Target(Target::Unmodelled { name, .. }) => format!("target {name}"),
                    Statement::Match(_) | Statement::Target(_) => continue,
                };
                all.push(Unmodelled { origin: rule.origin.clone(), what, text: rule.text.to_string() });
            }
        }
    }
    let routes = host.routes.iter().filter(|r| !r.unmodelled.is_empty());
    all.extend(routes.map(|r| Unmodelled {
        origin: r.origin.clone(),
        what: "route".into(),
        text: format!("{} {}", r.destination, r.unmodelled),
    }));
    let rules = host.rules.iter().filter(|r| !r.unmodelled.is_empty());
    all.extend(rules.map(|r| Unmodelled {
        origin: r.origin.clone(),
        what: "policy rule".into(),
        text: format!("priority {} {}", r.priority, r.unmodelled),
    }));
    let sets = host.ipsets.values().filter(|s| !s.unmodelled.is_empty());
    all.extend(sets.map(|s| Unmodelled {
        origin: s.origin.clone(),
        what: "ipset".into(),
        text: format!("{} {}", s.name, s.unmodelled),
    }));
    all
}
