//! The snapshot of a lab that runs: what the tools print inside of it.

use std::fs;
use std::io;
use std::path::Path;
use std::time::{Duration, Instant};

use lab_core::formats::lab_toml::{self, LabToml};
use lab_core::model::{Address, Backend, Host, Interface, InterfaceKind, Lab, TableFamily};

use crate::build::Built;
use crate::space::Space;

/// Settings of interfaces, and of `all` and `default`, that decide about packets.
const OF_DEVICES: [&str; 12] = [
    "accept_local",
    "arp_filter",
    "arp_ignore",
    "drop_gratuitous_arp",
    "drop_unicast_in_l2_multicast",
    "forwarding",
    "ignore_routes_with_linkdown",
    "proxy_arp",
    "route_localnet",
    "rp_filter",
    "send_redirects",
    "src_valid_mark",
];

const OF_DEVICES_V6: [&str; 5] = [
    "disable_ipv6",
    "drop_unicast_in_l2_multicast",
    "forwarding",
    "ignore_routes_with_linkdown",
    "proxy_ndp",
];

const OF_HOSTS: [&str; 17] = [
    "net.ipv4.ip_forward",
    "net.ipv4.ip_default_ttl",
    "net.ipv4.ip_local_port_range",
    "net.ipv4.ip_nonlocal_bind",
    "net.ipv4.fib_multipath_hash_policy",
    "net.ipv4.fwmark_reflect",
    "net.ipv4.icmp_echo_ignore_all",
    "net.ipv4.icmp_errors_use_inbound_ifaddr",
    "net.ipv4.ip_early_demux",
    "net.ipv6.fwmark_reflect",
    "net.ipv6.fib_multipath_hash_policy",
    "net.ipv6.ip_nonlocal_bind",
    "net.bridge.bridge-nf-call-iptables",
    "net.bridge.bridge-nf-call-ip6tables",
    "net.bridge.bridge-nf-filter-vlan-tagged",
    "net.netfilter.nf_conntrack_tcp_loose",
    "net.netfilter.nf_conntrack_tcp_be_liberal",
];

/// How long links and routes may take to appear.
const SETTLING: Duration = Duration::from_millis(200);

fn settings(host: &Host, space: &Space) -> String {
    let mut keys: Vec<String> = OF_HOSTS.map(str::to_owned).to_vec();
    let own = host.interfaces.iter().map(|i| i.name.replace('.', "/"));
    let names = ["all", "default"].into_iter().map(str::to_owned).chain(own);
    for name in names {
        keys.extend(OF_DEVICES.iter().map(|leaf| format!("net.ipv4.conf.{name}.{leaf}")));
        keys.extend(OF_DEVICES_V6.iter().map(|leaf| format!("net.ipv6.conf.{name}.{leaf}")));
    }
    keys.iter().filter_map(|key| Some(format!("{key} = {}\n", space.get(key)?))).collect()
}

/// The arrays that several commands of one `ip -j -batch` print.
fn arrays<const N: usize>(text: &str) -> Result<[String; N], String> {
    let values: Result<Vec<serde_json::Value>, _> =
        serde_json::Deserializer::from_str(text).into_iter().collect();
    let values = values.map_err(|e| format!("ip printed no JSON: {e}: {text}"))?;
    let texts: Vec<String> = values.iter().map(|v| format!("{v}\n")).collect();
    texts.try_into().map_err(|_| format!("ip printed other than {N} arrays: {text}"))
}

/// Whether `ip -j link show` says of all wires, and bridges with ports, that
/// they carry.
fn carried(host: &Host, links: &str) -> bool {
    let carries = |interface: &Interface| match interface.kind {
        InterfaceKind::Veth => true,
        InterfaceKind::Bridge(_) => {
            host.interfaces.iter().any(|i| i.master.as_ref() == Some(&interface.name))
        }
        _ => false,
    };
    let links: Vec<serde_json::Value> = serde_json::from_str(links).unwrap_or_default();
    host.interfaces.iter().filter(|i| carries(i)).all(|interface| {
        links.iter().any(|l| l["ifname"] == interface.name.as_str() && l["operstate"] == "UP")
    })
}

fn host(host: &Host, space: &Space, folder: &Path) -> Result<(), String> {
    let write = |name: &str, text: &str| {
        fs::write(folder.join(name), text).map_err(|e: io::Error| format!("{name}: {e}"))
    };
    let ip =
        |arguments: &[&str], input: &str| space.run("ip", &[arguments, &["-batch", "-"]].concat(), input).out;
    let start = Instant::now();
    let [link, addr, neigh] = loop {
        let shown = arrays(&ip(&["-d", "-j"], "link show\naddr show\nneigh show\n"))?;
        // A link comes up a moment after both its ends.
        if carried(host, &shown[0]) || start.elapsed() > SETTLING {
            break shown;
        }
        std::thread::sleep(Duration::from_millis(1));
    };
    let [route, rule] = arrays(&ip(&["-4", "-d", "-j"], "route show table all\nrule show\n"))?;
    let [route6, rule6] = loop {
        let [routes, rules] = arrays(&ip(&["-6", "-d", "-j"], "route show table all\nrule show\n"))?;
        // The kernel adds the routes of new addresses a moment later.
        let own = host.interfaces.iter().flat_map(|i| &i.addresses).filter(|a| a.address.is_ipv6());
        let there = |a: &Address| routes.contains(&format!("\"type\":\"local\",\"dst\":\"{}\"", a.address));
        if own.clone().all(there) || start.elapsed() > SETTLING {
            break [routes, rules];
        }
        std::thread::sleep(Duration::from_millis(1));
    };
    write("link.json", &link)?;
    write("addr.json", &addr)?;
    write("neigh.json", &neigh)?;
    write("route.json", &route)?;
    write("route6.json", &route6)?;
    write("rule.json", &rule)?;
    write("rule6.json", &rule6)?;
    let bridges = |k: &InterfaceKind| matches!(k, InterfaceKind::Bridge(_) | InterfaceKind::Vxlan(_));
    if host.interfaces.iter().any(|i| bridges(&i.kind)) {
        write("fdb.json", &space.run("bridge", &["-j", "fdb", "show"], "").out)?;
        write("bridge-vlan.json", &space.run("bridge", &["-j", "vlan", "show"], "").out)?;
    }
    if host.interfaces.iter().any(|i| matches!(i.kind, InterfaceKind::Wireguard(_))) {
        write("wireguard.dump", &space.run("wg", &["show", "all", "dump"], "").out)?;
    }
    write("sysctl.txt", &settings(host, space))?;
    let tables = &host.ruleset.tables;
    let has =
        |backend, family| tables.iter().any(|t| t.xtables && t.backend == backend && t.family == family);
    // A tool prints nothing of what nobody has set.
    for (file, tool, backend, family) in [
        ("iptables.save", "iptables-nft-save", Backend::Nft, TableFamily::Ip),
        ("ip6tables.save", "ip6tables-nft-save", Backend::Nft, TableFamily::Ip6),
        ("iptables-legacy.save", "iptables-legacy-save", Backend::Legacy, TableFamily::Ip),
        ("ip6tables-legacy.save", "ip6tables-legacy-save", Backend::Legacy, TableFamily::Ip6),
    ] {
        let mut text = String::new();
        if has(backend, family) {
            let printed = space.run(tool, &["-c"], "");
            if !printed.done {
                return Err(format!("{tool} does not print its own rules"));
            }
            text = printed.out;
        }
        write(file, &text)?;
    }
    if tables.iter().any(|t| t.backend == Backend::Nft) {
        let printed = space.run("nft", &["-j", "list", "ruleset"], "");
        if !printed.done {
            return Err("nft does not list its own rules as JSON".into());
        }
        write("nft.json", &printed.out)?;
    } else {
        write("nft.json", "{\"nftables\": []}\n")?;
    }
    if !tables.is_empty() {
        write("ipset.save", &space.run("ipset", &["save"], "").out)?;
    }
    Ok(())
}

/// Writes the snapshot of a lab.
pub fn capture(lab: &Lab, built: &Built, folder: &Path) -> Result<(), String> {
    let toml = LabToml {
        name: Some(lab.name.clone()),
        links: lab.links.clone(),
        macvlans: lab.macvlans.clone(),
        ..LabToml::default()
    };
    fs::create_dir_all(folder).map_err(|e| e.to_string())?;
    fs::write(folder.join("lab.toml"), lab_toml::print(&toml)).map_err(|e| e.to_string())?;
    for (name, space) in &built.hosts {
        let inside = folder.join("hosts").join(name);
        fs::create_dir_all(&inside).map_err(|e| e.to_string())?;
        host(&lab.hosts[name], space, &inside)?;
    }
    Ok(())
}
