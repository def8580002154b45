//! The folder of one host.

use crate::addr::Family;
use crate::formats::{
    address, bridge_vlan, fdb, ipset, iptables, link, neighbour, nft_json, nft_text, route, rule, sysctl,
    wireguard, ErrorKind,
};
use crate::model::{
    Backend, Chain, Hook, Host, Interface, InterfaceKind, Origin, Part, Policy, Table, TableFamily,
    Unmodelled,
};

use super::folder::Folder;
use super::Error;

/// Files that other rooms than this one read, or that say nothing about what
/// is running: declarations, which are compared with it elsewhere.
const DECLARED: [&str; 4] = ["libvirt", "NetworkManager", "sysconfig", "flannel"];

/// Files read here.
const STATE: [&str; 18] = [
    "link.json",
    "addr.json",
    "route.json",
    "route6.json",
    "rule.json",
    "rule6.json",
    "neigh.json",
    "fdb.json",
    "bridge-vlan.json",
    "wireguard.dump",
    "sysctl.txt",
    "iptables.save",
    "ip6tables.save",
    "iptables-legacy.save",
    "ip6tables-legacy.save",
    "nft.json",
    "nft.txt",
    "ipset.save",
];

/// Reads one host.
pub(super) fn read(folder: &Folder, name: &str) -> Result<Host, Error> {
    let mut host = Host { name: name.to_owned(), ..Host::default() };
    devices(folder, &mut host)?;
    routing(folder, &mut host)?;
    if let Some(text) = folder.read("sysctl.txt")? {
        host.sysctls = sysctl::parse(&folder.shown("sysctl.txt"), &text)?;
    }
    firewall(folder, &mut host)?;
    connections(folder, &mut host)?;
    leftovers(folder, &mut host)?;
    Ok(host)
}

fn devices(folder: &Folder, host: &mut Host) -> Result<(), Error> {
    match folder.read("link.json")? {
        None => {
            host.unknown.insert(Part::Links);
        }
        Some(text) => {
            let (interfaces, unmodelled) = link::parse(&folder.shown("link.json"), &text)?;
            host.interfaces = interfaces;
            host.unmodelled.extend(unmodelled);
        }
    }
    match folder.read("addr.json")? {
        None => {
            host.unknown.insert(Part::Addresses);
        }
        Some(text) => {
            let file = folder.shown("addr.json");
            for (name, addresses) in address::parse(&file, &text)? {
                if addresses.is_empty() && host.interface(&name).is_none() {
                    continue;
                }
                if let Some(device) = device_named(host, &file, &text, &name)? {
                    device.addresses = addresses;
                }
            }
        }
    }
    if let Some(text) = folder.read("neigh.json")? {
        host.neighbours = neighbour::parse(&folder.shown("neigh.json"), &text)?;
    }
    if let Some(text) = folder.read("fdb.json")? {
        let (entries, unmodelled) = fdb::parse(&folder.shown("fdb.json"), &text)?;
        host.fdb = entries;
        host.unmodelled.extend(unmodelled);
    }
    if let Some(text) = folder.read("bridge-vlan.json")? {
        let file = folder.shown("bridge-vlan.json");
        let (devices, unmodelled) = bridge_vlan::parse(&file, &text)?;
        host.unmodelled.extend(unmodelled);
        for (name, vlans) in devices {
            if let Some(device) = device_named(host, &file, &text, &name)? {
                device.vlans = vlans;
            }
        }
    } else {
        let filters = |i: &&Interface| matches!(&i.kind, InterfaceKind::Bridge(b) if b.vlan_filtering);
        if let Some(bridge) = host.interfaces.iter().find(filters) {
            let origin = Origin { file: folder.shown("bridge-vlan.json").into(), line: 0 };
            let what = "VLANs of a bridge that filters them, of which `bridge -j vlan show` is missing";
            let text = bridge.name.clone();
            host.unmodelled.push(Unmodelled { origin, what: what.into(), text });
        }
    }
    wireguard(folder, host)?;
    Ok(())
}

/// Fills in what `ip link` does not tell of WireGuard devices.
fn wireguard(folder: &Folder, host: &mut Host) -> Result<(), Error> {
    let file = folder.shown("wireguard.dump");
    if let Some(text) = folder.read("wireguard.dump")? {
        for (name, settings) in wireguard::parse(&file, &text)? {
            if let Some(device) = device_named(host, &file, &text, &name)? {
                device.kind = InterfaceKind::Wireguard(settings);
            }
        }
    }
    for interface in &mut host.interfaces {
        if matches!(&interface.kind, InterfaceKind::Wireguard(w) if w.public_key.is_empty()) {
            let what = "device wireguard of which `wg show all dump` is missing".to_owned();
            let origin = Origin { file: file.clone().into(), line: 0 };
            host.unmodelled.push(Unmodelled { origin, what, text: interface.name.clone() });
            interface.kind = InterfaceKind::Other("wireguard".into());
        }
    }
    Ok(())
}

/// The device that a file names, which link.json must list; none where that
/// is missing.
fn device_named<'h>(
    host: &'h mut Host,
    file: &str,
    text: &str,
    name: &str,
) -> Result<Option<&'h mut Interface>, Error> {
    let told = !host.unknown.contains(&Part::Links);
    let found = host.interfaces.iter_mut().find(|i| i.name == name);
    if found.is_none() && told {
        let kind = ErrorKind::Dangling { what: "interface in link.json".into(), name: name.to_owned() };
        // A word of its own, in JSON or between tabs.
        let word = |line: &str| line.split(['"', '\t']).any(|word| word == name);
        let line = text.lines().position(word).map_or(1, |n| n as u32 + 1);
        return Err(crate::formats::Error::new(file, line, name, kind).into());
    }
    Ok(found)
}

fn routing(folder: &Folder, host: &mut Host) -> Result<(), Error> {
    for (name, family) in [("route.json", Family::Ipv4), ("route6.json", Family::Ipv6)] {
        match folder.read(name)? {
            Some(text) => host.routes.extend(route::parse(&folder.shown(name), &text, family)?),
            None if family == Family::Ipv4 => {
                host.unknown.insert(Part::Routes4);
            }
            None => {
                let own = |i: &crate::model::Interface| i.addresses.iter().any(|a| a.family() == family);
                if host.interfaces.iter().any(own) {
                    host.unknown.insert(Part::Routes6);
                }
            }
        }
    }
    for (name, family) in [("rule.json", Family::Ipv4), ("rule6.json", Family::Ipv6)] {
        if let Some(text) = folder.read(name)? {
            host.rules.extend(rule::parse(&folder.shown(name), &text, family)?);
        }
    }
    host.rules.sort_by_key(|r| r.priority);
    Ok(())
}

/// The keyfiles that NetworkManager saves: which connection is for which
/// interface (`man nm-settings-keyfile`).
fn connections(folder: &Folder, host: &mut Host) -> Result<(), Error> {
    let Some(saved) = folder.folder("NetworkManager")? else { return Ok(()) };
    for name in saved.names()?.iter().filter(|n| n.ends_with(".nmconnection")) {
        let text = saved.read(name)?.unwrap_or_default();
        let section = text.lines().skip_while(|l| l.trim() != "[connection]").skip(1);
        let section: Vec<&str> = section.take_while(|l| !l.starts_with('[')).collect();
        let value = |key: &str| {
            let given = section.iter().filter_map(|l| l.split_once('='));
            given.filter(|(k, _)| k.trim() == key).map(|(_, v)| v.trim().to_owned()).next()
        };
        if let (Some(id), Some(interface)) = (value("id"), value("interface-name")) {
            host.connections.insert(interface, id);
        }
    }
    Ok(())
}

fn firewall(folder: &Folder, host: &mut Host) -> Result<(), Error> {
    let mut tables: Vec<Table> = Vec::new();
    // ip6tables alone says nothing about IPv4; the other way round IPv6 has none.
    let (mut told, mut told6) = (false, false);
    for (name, family) in [
        ("iptables.save", Family::Ipv4),
        ("iptables-legacy.save", Family::Ipv4),
        ("ip6tables.save", Family::Ipv6),
        ("ip6tables-legacy.save", Family::Ipv6),
    ] {
        if let Some(text) = folder.read(name)? {
            told |= family == Family::Ipv4;
            told6 = true;
            let read = iptables::parse(&folder.shown(name), text, family)?;
            let again = |t: &Table| tables.iter().any(|o| same(o, t));
            if let Some(twice) = read.iter().find(|t| again(t)) {
                let kind = ErrorKind::Duplicate {
                    what: "table".into(),
                    name: format!("{} {} ({:?})", twice.family, twice.name, twice.backend),
                };
                let line = twice.origin.line;
                return Err(crate::formats::Error::new(&folder.shown(name), line, "", kind).into());
            }
            tables.extend(read);
        }
    }
    let native = match (folder.read("nft.json")?, folder.read("nft.txt")?) {
        (Some(text), _) => Some(nft_json::parse(&folder.shown("nft.json"), &text)?),
        (None, Some(text)) => Some(nft_text::parse(&folder.shown("nft.txt"), &text)?),
        (None, None) => None,
    };
    if let Some(read) = native {
        told = true;
        // What iptables-nft wrote stands in both files: it is one rule set,
        // and iptables-save says more about it. Its order is that of
        // registration, which decides between equal priorities.
        let mut merged: Vec<Table> = Vec::new();
        for table in read {
            match tables.iter().position(|o| same(o, &table)) {
                Some(known) => merged.push(tables.remove(known)),
                None => merged.push(table),
            }
        }
        tables.extend(merged);
    }
    if !told {
        host.unknown.insert(Part::Firewall4);
    }
    if !told && !told6 {
        host.unknown.insert(Part::Firewall6);
    }
    host.unmodelled.extend(tables.iter().flat_map(passed_over));
    host.ruleset.tables = tables;
    if let Some(text) = folder.read("ipset.save")? {
        for set in ipset::parse(&folder.shown("ipset.save"), &text)? {
            host.ipsets.insert(set.name.clone(), set);
        }
    }
    Ok(())
}

/// What of a table may act on packets where no engine looks: other families,
/// chains at a device, and a table that may sleep.
fn passed_over(table: &Table) -> Vec<Unmodelled> {
    let acts = |c: &&Chain| c.base.is_some_and(|b| b.policy == Policy::Drop) || !c.rules.is_empty();
    let note = |origin: &Origin, what: String, text: &str| Unmodelled {
        origin: origin.clone(),
        what,
        text: text.to_owned(),
    };
    match table.family {
        TableFamily::Arp | TableFamily::Bridge | TableFamily::Netdev => {
            let found = table.chains.iter().find(acts);
            let what = || format!("table of family {}", table.family);
            found.map(|_| note(&table.origin, what(), &table.name)).into_iter().collect()
        }
        TableFamily::Ip | TableFamily::Ip6 | TableFamily::Inet => {
            let ingress = |c: &&Chain| c.base.is_some_and(|b| b.hook == Hook::Ingress) && acts(c);
            let chains = table.chains.iter().filter(ingress);
            let chains = chains.map(|c| note(&c.origin, "chain at ingress".into(), &c.name));
            let acts =
                |u: &&Unmodelled| u.what.starts_with("table flags") || u.what.starts_with("chain hook");
            chains.chain(table.unmodelled.iter().filter(acts).cloned()).collect()
        }
    }
}

fn same(a: &Table, b: &Table) -> bool {
    a.backend == b.backend && a.backend == Backend::Nft && a.family == b.family && a.name == b.name
        || a.backend == b.backend && a.xtables && b.xtables && a.family == b.family && a.name == b.name
}

/// What lies in the folder and is not read is named, never passed over.
fn leftovers(folder: &Folder, host: &mut Host) -> Result<(), Error> {
    for name in folder.names()? {
        if STATE.contains(&name.as_str()) || DECLARED.contains(&name.as_str()) {
            continue;
        }
        let origin = Origin { file: folder.shown(&name).into(), line: 0 };
        if name == "ebtables.save" {
            let text = folder.read(&name)?.unwrap_or_default();
            let drops = |l: &str| l.starts_with("-A") || (l.starts_with(':') && l.contains("DROP"));
            if let Some(line) = text.lines().find(|l| drops(l)) {
                host.unmodelled.push(Unmodelled { origin, what: "ebtables rules".into(), text: line.into() });
            }
            continue;
        }
        let text = folder.shown(&name);
        host.unmodelled.push(Unmodelled { origin, what: Unmodelled::UNREAD.into(), text });
    }
    Ok(())
}
