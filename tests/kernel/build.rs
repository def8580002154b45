//! A lab, built for real: a namespace for each host, and one for what lies
//! outside.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::net::IpAddr;

use lab_core::addr::Mac;
use lab_core::model::{
    Host, Interface, InterfaceKind, Lab, Neighbour, NeighbourState, Place, PolicyAction, PolicyRule, Route,
    RouteKind, Scope,
};
use lab_core::semantics::segment;

use crate::devices::{self, mac};
use crate::filter;
use crate::guard;
use crate::space::Space;
use crate::tally::Left;

/// A lab that runs.
pub struct Built {
    /// The hosts' namespaces.
    pub hosts: BTreeMap<String, Space>,
    /// What lies outside, and not in the snapshot.
    pub outside: Space,
    /// Of each interface that leads out, the name of the other end there.
    pub wires: BTreeMap<Place, String>,
}

/// Settings of every host before it has devices: quiet, and no limits to
/// errors.
const QUIET: [(&str, &str); 23] = [
    ("net.ipv4.conf.all.accept_redirects", "0"),
    ("net.ipv4.conf.default.accept_redirects", "0"),
    ("net.ipv4.conf.default.rp_filter", "0"),
    ("net.ipv4.conf.all.rp_filter", "0"),
    ("net.ipv4.icmp_ratemask", "0"),
    ("net.ipv4.icmp_msgs_per_sec", "1000000000"),
    ("net.ipv4.icmp_msgs_burst", "1000000000"),
    ("net.ipv4.icmp_echo_ignore_all", "1"),
    ("net.ipv4.ip_default_ttl", "64"),
    // What a packet finds out about the way is forgotten before the next.
    ("net.ipv4.route.mtu_expires", "0"),
    ("net.ipv6.route.mtu_expires", "0"),
    ("net.ipv6.icmp.ratelimit", "0"),
    ("net.ipv6.icmp.ratemask", ""),
    ("net.ipv6.icmp.echo_ignore_all", "1"),
    ("net.ipv6.conf.default.accept_dad", "0"),
    ("net.ipv6.conf.default.accept_ra", "0"),
    ("net.ipv6.conf.default.accept_redirects", "0"),
    ("net.ipv6.conf.all.accept_redirects", "0"),
    ("net.ipv6.conf.default.autoconf", "0"),
    ("net.ipv6.conf.default.router_solicitations", "0"),
    ("net.ipv6.conf.default.addr_gen_mode", "1"),
    ("net.ipv6.conf.all.disable_ipv6", "0"),
    ("net.ipv6.conf.default.disable_ipv6", "0"),
];

/// The MAC address of the other end of a wire that leads out, by its name.
pub fn far_end(name: &str) -> Mac {
    Mac([2, 0xff, 0, 0, 0, name.trim_start_matches('o').parse().unwrap_or(0)])
}

/// Builds a lab. What the tools or this kernel refuse is left out and counted.
pub fn build(lab: &Lab, left: &mut Left) -> Result<Built, String> {
    let failed = |e: std::io::Error| format!("a namespace: {e}");
    let outside = Space::new().map_err(failed)?;
    outside.set("net.ipv6.conf.default.disable_ipv6", "1");
    outside.set("net.ipv6.conf.all.disable_ipv6", "1");
    let mut hosts = BTreeMap::new();
    for name in lab.hosts.keys() {
        let space = Space::new().map_err(failed)?;
        for (key, value) in QUIET {
            space.set(key, value);
        }
        hosts.insert(name.clone(), space);
    }
    let mut built = Built { hosts, outside, wires: BTreeMap::new() };
    wire(lab, &mut built)?;
    sit(lab, &built)?;
    for host in lab.hosts.values() {
        plug(host, &built.hosts[&host.name])?;
    }
    if guard::any(lab) {
        guard::greet(lab, &built)?;
    }
    for host in lab.hosts.values() {
        let space = &built.hosts[&host.name];
        dress(lab, host, space, &built.wires, left);
        filter::load(host, space, left);
    }
    Ok(built)
}

/// Makes every pair of veth devices.
fn wire(lab: &Lab, built: &mut Built) -> Result<(), String> {
    let mut batch = String::new();
    for link in &lab.links {
        let [a, b] = link.endpoints.as_slice() else { return Err("a link of other than two ends".into()) };
        let end = |e: &lab_core::model::Endpoint| {
            let device = lab.hosts[&e.host].interface(&e.interface).map(mac).unwrap_or_default();
            (e.interface.clone(), device, built.hosts[&e.host].path())
        };
        let ((a, mac_a, space_a), (b, mac_b, space_b)) = (end(a), end(b));
        writeln!(
            batch,
            "link add name {a} {mac_a} netns {space_a} type veth peer name {b} {mac_b} netns {space_b}"
        )
        .expect("text grows");
    }
    let mut wires = BTreeMap::new();
    for host in lab.hosts.values() {
        for device in host.interfaces.iter().filter(|i| lab.leads_out(&host.name, i)) {
            let (name, space) = (format!("o{}", wires.len()), built.hosts[&host.name].path());
            let (own, far) = (mac(device), far_end(&name));
            writeln!(
                batch,
                "link add name {} {own} netns {space} type veth peer name {name} address {far} netns {}\n\
                 link set {name} up",
                device.name,
                built.outside.path()
            )
            .expect("text grows");
            wires.insert(Place { host: host.name.clone(), iface: device.name.clone() }, name);
        }
    }
    built.wires = wires;
    let printed = built.outside.run("ip", &["-batch", "-"], &batch);
    if printed.done {
        Ok(())
    } else {
        Err(format!("wires: {}", printed.err.trim()))
    }
}

/// Makes the macvlan devices that sit on a device of another host.
fn sit(lab: &Lab, built: &Built) -> Result<(), String> {
    for (below, upper) in &lab.macvlans {
        let device = lab.hosts[&upper.host].interface(&upper.interface).ok_or("a macvlan of no host")?;
        let InterfaceKind::Macvlan(mode) = device.kind else {
            return Err("a macvlan of another kind".into());
        };
        let (lower, name, own) = (&below.interface, &upper.interface, mac(device));
        let there = built.hosts[&upper.host].path();
        // Its own name may be another's where it is made.
        let make = format!("link add link {lower} name upper {own} netns {there} type macvlan mode {mode}\n");
        let rename = format!("link set upper name {name}\n");
        for (host, text) in [(&below.host, make), (&upper.host, rename)] {
            let printed = built.hosts[host].run("ip", &["-batch", "-"], &text);
            if !printed.done {
                return Err(format!("macvlans: {}", printed.err.trim()));
            }
        }
    }
    Ok(())
}

/// Devices and addresses of a host.
fn plug(host: &Host, space: &Space) -> Result<(), String> {
    let mut batch = String::from("link set lo up\n");
    for device in &host.interfaces {
        batch += &devices::made(device)?;
    }
    for device in &host.interfaces {
        batch += &devices::raised(host, device);
    }
    let printed = space.run("ip", &["-batch", "-"], &batch);
    if !printed.done {
        return Err(format!("devices of {}: {}", host.name, printed.err.trim()));
    }
    let vlans = devices::vlans(host);
    if !vlans.is_empty() {
        let printed = space.run("bridge", &["-batch", "-"], &vlans);
        if !printed.done {
            return Err(format!("VLANs of {}: {}", host.name, printed.err.trim()));
        }
    }
    Ok(())
}

/// Neighbours, routes, policy and settings of a host.
fn dress(lab: &Lab, host: &Host, space: &Space, wires: &BTreeMap<Place, String>, left: &mut Left) {
    let mut batch = String::new();
    for neighbour in neighbours(lab, host, wires) {
        let mac = neighbour.mac.expect("permanent entries have one");
        let (address, device) = (neighbour.address, neighbour.interface);
        batch += &format!("neigh replace {address} lladdr {mac} dev {device} nud permanent\n");
    }
    for route in host.routes.iter().filter(|r| r.protocol != "kernel") {
        batch += &route_text(host, route);
    }
    // The kernel adds what its first VRF asks for.
    let own =
        |r: &&PolicyRule| !PolicyRule::initial(r.family).contains(r) && r.action != PolicyAction::LookupVrf;
    for rule in host.rules.iter().filter(own) {
        batch += &rule_text(rule);
    }
    let printed = space.run("ip", &["-force", "-batch", "-"], &batch);
    for line in printed.err.lines().filter(|l| l.starts_with("Command failed")) {
        let number = line.rsplit(':').next().and_then(|n| n.trim().parse::<usize>().ok());
        let text = number.and_then(|n| batch.lines().nth(n.saturating_sub(1))).unwrap_or(line);
        left.count("ip", text);
    }
    for (key, value) in &host.sysctls.0 {
        if !space.set(key, value) {
            left.count("sysctl", key);
        }
    }
    for device in host.interfaces.iter().filter(|i| i.arp) {
        for family in ["ipv4", "ipv6"] {
            let key = format!("net.{family}.neigh.{}", device.name.replace('.', "/"));
            space.set(&format!("{key}.mcast_solicit"), "1");
            space.set(&format!("{key}.retrans_time_ms"), "10");
        }
    }
}

/// Who is on the links of a host, and some that answer outside.
fn neighbours(lab: &Lab, host: &Host, wires: &BTreeMap<Place, String>) -> Vec<Neighbour> {
    let mut all = Vec::new();
    let alone = |i: &&Interface| i.master.is_none() || host.vrf_of(&i.name).is_some();
    for device in host.interfaces.iter().filter(|i| i.arp && i.mac.is_some()).filter(alone) {
        let mut add = |address: IpAddr, mac: Mac| {
            let interface = device.name.clone();
            let state = NeighbourState::Permanent;
            all.push(Neighbour { address, interface, mac: Some(mac), state, proxy: false });
        };
        for receiver in segment::behind(lab, host, device).receivers {
            let Some(mac) = receiver.device.mac else { continue };
            receiver.device.addresses.iter().for_each(|a| add(a.address, mac));
        }
        let place = Place { host: host.name.clone(), iface: device.name.clone() };
        let Some(wire) = wires.get(&place) else { continue };
        let mac = far_end(wire);
        for own in &device.addresses {
            for near in 1..=4_u8 {
                let address = match own.address {
                    IpAddr::V4(a) => {
                        let [x, y, z, _] = a.octets();
                        IpAddr::from([x, y, z, near])
                    }
                    IpAddr::V6(a) => IpAddr::V6((a.to_bits() >> 8 << 8 | u128::from(near)).into()),
                };
                if host.interface_with(address).is_none() {
                    add(address, mac);
                }
            }
        }
    }
    all
}

fn route_text(host: &Host, route: &Route) -> String {
    let kind = match route.kind {
        RouteKind::Unicast => "unicast",
        RouteKind::Local => "local",
        RouteKind::Broadcast => "broadcast",
        RouteKind::Multicast => "multicast",
        RouteKind::Anycast => "anycast",
        RouteKind::Unreachable => "unreachable",
        RouteKind::Blackhole => "blackhole",
        RouteKind::Prohibit => "prohibit",
        RouteKind::Throw => "throw",
        RouteKind::Nat => return String::new(),
    };
    let hop = |hop: &lab_core::model::NextHop| {
        let near = |gateway: &IpAddr| {
            let device = hop.interface.as_deref().and_then(|d| host.interface(d));
            device.is_some_and(|d| d.addresses.iter().any(|a| a.net().is_some_and(|n| n.contains(gateway))))
        };
        let via = hop.gateway.map_or(String::new(), |g| {
            let family = if g.is_ipv6() && route.destination.addr().is_ipv4() { "inet6 " } else { "" };
            format!("via {family}{g} ")
        });
        let onlink = if hop.gateway.is_some_and(|g| !near(&g)) { " onlink" } else { "" };
        format!("{via}dev {}{onlink}", hop.interface.as_deref().unwrap_or("lo"))
    };
    let hops = match route.next_hops.as_slice() {
        [] => String::new(),
        [one] => hop(one),
        several => several.iter().map(|h| format!("nexthop {} weight {} ", hop(h), h.weight)).collect(),
    };
    let metric = if route.metric == 0 { String::new() } else { format!(" metric {}", route.metric) };
    let tos = if route.tos == 0 { String::new() } else { format!(" tos {:#x}", route.tos) };
    let mtu = route.mtu.map_or(String::new(), |m| format!(" mtu {m}"));
    let scope = match (route.scope, route.destination.addr()) {
        (Scope::Link, IpAddr::V4(_)) => " scope link",
        _ => "",
    };
    format!(
        "route add {kind} {} table {}{tos}{metric}{mtu}{scope} {hops}\n",
        route.destination, route.table.0
    )
}

fn rule_text(rule: &PolicyRule) -> String {
    let mut text = String::from("rule add");
    let any = if rule.source.or(rule.destination).is_some() {
        String::new()
    } else if rule.family == lab_core::addr::Family::Ipv4 {
        " from 0.0.0.0/0".into()
    } else {
        " from ::/0".into()
    };
    if rule.invert {
        text += " not";
    }
    text += &any;
    let mut say = |word: &str, value: Option<String>| {
        if let Some(value) = value {
            text += &format!(" {word} {value}");
        }
    };
    say("from", rule.source.map(|n| n.to_string()));
    say("to", rule.destination.map(|n| n.to_string()));
    say("iif", rule.iif.clone());
    say("oif", rule.oif.clone());
    say("fwmark", rule.fwmark.map(|(value, mask)| format!("{value:#x}/{mask:#x}")));
    say("tos", (rule.tos != 0).then(|| format!("{:#x}", rule.tos)));
    say("ipproto", rule.protocol.map(|p| p.to_string()));
    say("sport", rule.sport.map(|r| format!("{}-{}", r.low, r.high)));
    say("dport", rule.dport.map(|r| format!("{}-{}", r.low, r.high)));
    say("priority", Some(rule.priority.to_string()));
    say("suppress_prefixlength", rule.suppress_prefix_len.map(|n| n.to_string()));
    let action = match rule.action {
        PolicyAction::Lookup(table) => format!("lookup {}", table.0),
        PolicyAction::LookupVrf => "l3mdev".into(),
        PolicyAction::Goto(priority) => format!("goto {priority}"),
        PolicyAction::Nop => "nop".into(),
        PolicyAction::Unreachable => "unreachable".into(),
        PolicyAction::Blackhole => "blackhole".into(),
        PolicyAction::Prohibit => "prohibit".into(),
    };
    format!("{text} {action}\n")
}

/// Makes tunnels forget what they learned from frames, also from those that
/// hosts send of their own accord: rules may have rewritten where they came
/// from. How much that was.
pub fn unlearn(lab: &Lab, built: &Built) -> usize {
    let mut learned = 0;
    for (name, space) in &built.hosts {
        let devices = lab.host(name).into_iter().flat_map(|host| &host.interfaces);
        let learning = |i: &&Interface| matches!(&i.kind, InterfaceKind::Vxlan(vxlan) if vxlan.learning);
        for device in devices.filter(learning) {
            let listed = space.run("bridge", &["-j", "fdb", "show", "dev", &device.name], "").out;
            let known: Vec<serde_json::Value> = serde_json::from_str(&listed).unwrap_or_default();
            for entry in known.iter().filter(|entry| entry["state"] == "") {
                if let (Some(mac), Some(to)) = (entry["mac"].as_str(), entry["dst"].as_str()) {
                    space.run("bridge", &["fdb", "del", mac, "dev", &device.name, "dst", to], "");
                    learned += 1;
                }
            }
        }
    }
    learned
}
