//! Reading and printing agree on everything that the bundled lab's tools
//! printed.

#![allow(clippy::unwrap_used, clippy::panic)]

use std::fs;
use std::path::PathBuf;

use lab_core::addr::Family;
use lab_core::formats::{
    address, bridge_vlan, fdb, ipset, iptables, lab_toml, link, neighbour, nft_json, route, rule, sysctl,
    wireguard,
};
use lab_workspace::{hosts, networks, stage, STAGES};

/// The hosts of the recorded networks.
fn recorded() -> Vec<PathBuf> {
    let inside = |path: PathBuf| fs::read_dir(path).unwrap().map(|e| e.unwrap().path());
    networks().iter().map(|n| n.join("hosts")).flat_map(inside).collect()
}

/// Every file of that name in the bundled lab and the recorded networks: where
/// it is, and its text.
fn files(name: &str) -> Vec<(String, String)> {
    let all = STAGES.iter().flat_map(|s| hosts(s)).chain(recorded());
    let folders = all.map(|host| host.join(name)).filter(|path| path.exists());
    let read = folders.map(|path| (path.display().to_string(), fs::read_to_string(&path).unwrap()));
    let read: Vec<(String, String)> = read.collect();
    assert!(!read.is_empty(), "{name}");
    read
}

/// A save file without comments, and with every counter at zero.
fn uncounted(text: &str) -> String {
    let line = |line: &str| match line.strip_prefix('[') {
        Some(rest) => rest.split_once("] ").map_or(rest, |(_, rule)| rule).to_owned(),
        None if line.starts_with(':') => line.rsplit_once(" [").map_or(line, |(chain, _)| chain).to_owned(),
        None => line.to_owned(),
    };
    text.lines().filter(|l| !l.starts_with('#')).map(|l| line(l) + "\n").collect()
}

#[test]
fn rule_sets_print_as_they_were_saved() {
    let mut rules = 0;
    for (name, family) in [("iptables.save", Family::Ipv4), ("ip6tables.save", Family::Ipv6)] {
        for (path, text) in files(name) {
            let tables = iptables::parse(name, &text, family).unwrap();
            rules += tables.iter().flat_map(|t| &t.chains).map(|c| c.rules.len()).sum::<usize>();
            assert_eq!(uncounted(&iptables::print(&tables, true)), uncounted(&text), "{path}");
            let plain = iptables::print(&tables, false);
            assert_eq!(uncounted(&plain), uncounted(&text), "{path}");
            let again = iptables::parse(name, &plain, family).unwrap();
            assert_eq!(iptables::print(&again, false), plain, "{path}");
        }
    }
    assert!(rules > 1000, "{rules}");
}

#[test]
fn counters_come_back_as_they_were_saved() {
    let counted = |text: &str| -> Vec<String> {
        text.lines().filter(|l| l.starts_with('[')).map(str::to_owned).collect()
    };
    for (path, text) in files("iptables.save") {
        let tables = iptables::parse("iptables.save", &text, Family::Ipv4).unwrap();
        assert_eq!(counted(&iptables::print(&tables, true)), counted(&text), "{path}");
    }
}

#[test]
fn ip_sets_print_as_they_were_saved() {
    let mut read = 0;
    for (path, text) in files("ipset.save") {
        let sets = ipset::parse("ipset.save", &text).unwrap();
        read += sets.len();
        assert_eq!(ipset::print(&sets), text, "{path}");
    }
    assert!(read > 20, "{read}");
}

#[test]
fn native_rule_sets_print_the_objects_that_were_listed() {
    let objects = |text: &str| -> Vec<serde_json::Value> {
        let document: serde_json::Value = serde_json::from_str(text).unwrap();
        let mut all = document["nftables"].as_array().unwrap().clone();
        // The kernel's number of a table, which nothing refers to.
        for table in all.iter_mut().filter_map(|o| o.get_mut("table")) {
            table.as_object_mut().unwrap().shift_remove("handle");
        }
        all.into_iter().filter(|o| o.get("metainfo").is_none()).collect()
    };
    for (path, text) in files("nft.json") {
        let tables = nft_json::parse("nft.json", &text).unwrap();
        let (printed, mut listed) = (objects(&nft_json::print(&tables)), objects(&text));
        assert_eq!(printed.len(), listed.len(), "{path}");
        for object in printed {
            let at = listed.iter().position(|o| *o == object).unwrap_or_else(|| panic!("{path}: {object}"));
            listed.remove(at);
        }
    }
}

/// Asserts that printing loses nothing of what was read.
fn law<T: PartialEq + std::fmt::Debug>(name: &str, parse: impl Fn(&str) -> T, print: impl Fn(&T) -> String) {
    for (path, text) in files(name) {
        let read = parse(&text);
        let printed = print(&read);
        let again = parse(&printed);
        // A printed object may stand in another line; nothing else may differ.
        assert_eq!(print(&again), printed, "{path}");
        assert_eq!(unplaced(&again), unplaced(&read), "{path}");
    }
}

/// A value's text without the lines that its parts were read from.
fn unplaced(value: &impl std::fmt::Debug) -> String {
    let text = format!("{value:?}");
    let mut parts = text.split("line: ");
    let first = parts.next().unwrap_or_default().to_owned();
    parts.fold(first, |all, part| all + "line: " + part.trim_start_matches(|c: char| c.is_ascii_digit()))
}

#[test]
fn links_survive_printing() {
    law("link.json", |t| link::parse("f", t).unwrap().0, |v| link::print(v));
}

#[test]
fn addresses_survive_printing() {
    law("addr.json", |t| address::parse("f", t).unwrap(), |v| address::print(v));
}

#[test]
fn routes_survive_printing() {
    law("route.json", |t| route::parse("f", t, Family::Ipv4).unwrap(), |v| route::print(v));
    law("route6.json", |t| route::parse("f", t, Family::Ipv6).unwrap(), |v| route::print(v));
}

#[test]
fn policy_rules_survive_printing() {
    law("rule.json", |t| rule::parse("f", t, Family::Ipv4).unwrap(), |v| rule::print(v));
    law("rule6.json", |t| rule::parse("f", t, Family::Ipv6).unwrap(), |v| rule::print(v));
}

#[test]
fn neighbours_and_forwarding_entries_survive_printing() {
    law("neigh.json", |t| neighbour::parse("f", t).unwrap(), |v| neighbour::print(v));
    law("fdb.json", |t| fdb::parse("f", t).unwrap().0, |v| fdb::print(v));
}

#[test]
fn vlans_and_wireguard_devices_survive_printing() {
    law(
        "bridge-vlan.json",
        |t| bridge_vlan::parse("f", t).unwrap().0,
        |v| bridge_vlan::print(v.iter().map(|(name, vlans)| (name.as_str(), vlans.as_slice()))),
    );
    law(
        "wireguard.dump",
        |t| wireguard::parse("f", t).unwrap(),
        |v| wireguard::print(v.iter().map(|(name, device)| (name.as_str(), device))),
    );
}

#[test]
fn sysctls_survive_printing() {
    law("sysctl.txt", |t| sysctl::parse("f", t).unwrap(), sysctl::print);
}

#[test]
fn lab_descriptions_survive_printing() {
    for name in STAGES {
        let text = fs::read_to_string(stage(name).join("lab.toml")).unwrap();
        let read = lab_toml::parse("lab.toml", &text).unwrap();
        let again = lab_toml::parse("lab.toml", &lab_toml::print(&read)).unwrap();
        assert_eq!(unplaced(&again), unplaced(&read), "{name}");
    }
}
