//! Hosts: interfaces with addresses, settings, and what they do with packets.

use std::collections::BTreeMap;

use ipnet::IpNet;
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use proptest::sample::select;

use super::ipset::ipsets;
use super::iptables::ruleset;
use super::nft::nft_table;
use super::route::{hop, policy_rules, route, routes};
use crate::addr::{Family, Mac};
use crate::model::{
    Address, Host, Interface, InterfaceKind, PolicyRule, RouteKind, RouteTable, Ruleset, Scope, Sysctls,
};

/// How much a host is to do with packets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rules {
    /// Nothing but what its addresses bring.
    None,
    /// Every so often something.
    Few,
    /// Rules, routes and policy.
    Many,
}

/// An address of an interface: `10.0.1.2/24`. None if the text is none.
///
/// ```
/// use lab_core::strategies::address_of;
/// assert_eq!(address_of("10.0.1.2/24").unwrap().prefix_len, 24);
/// ```
pub fn address_of(text: &str) -> Option<Address> {
    let net: IpNet = text.parse().ok()?;
    let link = matches!(net.addr(), std::net::IpAddr::V6(a) if a.segments()[0] == 0xfe80);
    Some(Address {
        address: net.addr(),
        prefix_len: net.prefix_len(),
        peer: None,
        scope: match (net.addr().is_loopback(), link) {
            (true, _) => Scope::Host,
            (_, true) => Scope::Link,
            _ => Scope::Global,
        },
        secondary: false,
        deprecated: false,
        temporary: false,
        tentative: false,
    })
}

/// Gives a host, whose number in the lab tells its MAC addresses, a device with
/// addresses, and the routes that the kernel adds for them.
///
/// ```
/// use lab_core::model::{Host, InterfaceKind};
/// use lab_core::strategies::nic;
/// let mut host = Host::default();
/// nic(&mut host, 0, "eth0", InterfaceKind::Veth, &["10.0.1.2/24"]);
/// assert_eq!(host.routes.len(), 3);
/// ```
pub fn nic(host: &mut Host, number: u8, name: &str, kind: InterfaceKind, addresses: &[&str]) {
    let index = host.interfaces.len() as u32 + 1;
    let loopback = kind == InterfaceKind::Loopback;
    let ethernet = match &kind {
        InterfaceKind::Loopback | InterfaceKind::Wireguard(_) => false,
        InterfaceKind::Tunnel(tunnel) => tunnel.kind.is_ethernet(),
        _ => true,
    };
    let mut own: Vec<Address> = Vec::new();
    for mut address in addresses.iter().filter_map(|text| address_of(text)) {
        // Of an IPv4 subnet, the kernel takes the first address as the one.
        let subnet = |a: &Address| a.net().map(|net| net.trunc());
        address.secondary = address.address.is_ipv4() && own.iter().any(|a| subnet(a) == subnet(&address));
        own.push(address);
    }
    for address in &own {
        let (a, Some(net)) = (address.address, address.net()) else { continue };
        let mut add = |kind, destination: IpNet, table| {
            let link = matches!(kind, RouteKind::Unicast | RouteKind::Broadcast);
            let mut made = route(kind, destination, table);
            made.scope = match (a.is_ipv6(), link) {
                (true, _) => Scope::Global,
                (false, true) => Scope::Link,
                (false, false) => Scope::Host,
            };
            made.prefsrc = a.is_ipv4().then_some(a);
            made.protocol = "kernel".into();
            made.metric = if a.is_ipv6() && kind == RouteKind::Unicast { 256 } else { 0 };
            made.next_hops = vec![hop(None, name)];
            host.routes.push(made);
        };
        add(RouteKind::Local, IpNet::from(a), RouteTable::LOCAL);
        if address.secondary {
            continue;
        }
        if loopback {
            if a.is_ipv4() {
                add(RouteKind::Local, net.trunc(), RouteTable::LOCAL);
            }
            continue;
        }
        add(RouteKind::Unicast, net.trunc(), RouteTable::MAIN);
        if a.is_ipv4() {
            add(RouteKind::Broadcast, IpNet::from(net.broadcast()), RouteTable::LOCAL);
        }
    }
    host.interfaces.push(Interface {
        index,
        name: name.into(),
        mac: ethernet.then_some(Mac([2, 0, 0, 0, number, index as u8])),
        mtu: if loopback { 65536 } else { 1500 },
        up: true,
        carrier: true,
        arp: ethernet && !matches!(kind, InterfaceKind::Vrf(_)),
        kind,
        master: None,
        link: None,
        port: None,
        vlans: Vec::new(),
        standby: false,
        addresses: own,
    });
}

/// Settings of a host that forwards or not: forwarding, the reverse path test,
/// loopback and own addresses on the wire, ARP, bridges, connection tracking.
///
/// ```
/// # use proptest::{prelude::*, strategy::ValueTree, test_runner::TestRunner};
/// use lab_core::strategies::settings;
/// let map = settings(true).new_tree(&mut TestRunner::deterministic())?.current();
/// assert!(map.contains_key("net.ipv4.ip_forward"));
/// # Ok::<(), proptest::test_runner::Reason>(())
/// ```
pub fn settings(forwards: bool) -> BoxedStrategy<BTreeMap<String, String>> {
    let forwards = prop_oneof![9 => Just(forwards), 1 => Just(!forwards)];
    let odd = vec![
        ("net.ipv4.conf.all.rp_filter", "1"),
        ("net.ipv4.conf.all.rp_filter", "2"),
        ("net.ipv4.conf.eth0.rp_filter", "1"),
        ("net.ipv4.conf.all.accept_local", "1"),
        ("net.ipv4.conf.all.route_localnet", "1"),
        ("net.ipv4.conf.all.src_valid_mark", "1"),
        ("net.ipv4.conf.all.arp_ignore", "1"),
        ("net.ipv4.conf.all.arp_ignore", "2"),
        ("net.ipv4.conf.all.arp_filter", "1"),
        ("net.ipv4.conf.eth0.proxy_arp", "1"),
        ("net.ipv4.conf.eth0.forwarding", "0"),
        ("net.ipv6.conf.all.forwarding", "0"),
        ("net.ipv4.conf.all.send_redirects", "0"),
        ("net.netfilter.nf_conntrack_tcp_loose", "0"),
    ];
    (forwards, vec(select(odd), 0..3), any::<bool>())
        .prop_map(|(forwards, odd, filters)| {
            let mut map = BTreeMap::new();
            let digit = if forwards { "1" } else { "0" };
            for key in ["net.ipv4.ip_forward", "net.ipv4.conf.all.forwarding", "net.ipv6.conf.all.forwarding"]
            {
                map.insert(key.to_owned(), digit.to_owned());
            }
            map.insert("net.ipv4.conf.all.rp_filter".into(), "0".into());
            for key in ["net.bridge.bridge-nf-call-iptables", "net.bridge.bridge-nf-call-ip6tables"] {
                map.insert(key.to_owned(), u8::from(filters).to_string());
            }
            map.extend(odd.into_iter().map(|(k, v)| (k.to_owned(), v.to_owned())));
            map
        })
        .boxed()
}

/// What a host with these devices does with packets beside what its addresses
/// bring: settings, routes, policy, rules and sets, put over `host`.
pub(super) fn dressed(host: Host, forwards: bool, rules: Rules) -> BoxedStrategy<Host> {
    let odds = match rules {
        Rules::None => {
            return settings(forwards).prop_map(move |s| Host { sysctls: Sysctls(s), ..host.clone() }).boxed()
        }
        Rules::Few => 0.15,
        Rules::Many => 0.75,
    };
    let devices: Vec<String> = host
        .interfaces
        .iter()
        .filter(|i| i.master.is_none() && i.kind != InterfaceKind::Loopback)
        .map(|i| i.name.clone())
        .collect();
    let initial =
        || [Family::Ipv4, Family::Ipv6].into_iter().flat_map(PolicyRule::initial).collect::<Vec<_>>();
    (
        settings(forwards),
        option::weighted(odds * 0.6, routes(devices)),
        option::weighted(odds * 0.5, policy_rules()),
        option::weighted(odds * 0.9, ruleset(Family::Ipv4)),
        option::weighted(odds * 0.6, ruleset(Family::Ipv6)),
        option::weighted(odds * 0.7, nft_table()),
        ipsets(),
    )
        .prop_map(move |(settings, routes, policy, v4, v6, nft, sets)| {
            let mut host = host.clone();
            host.sysctls.0 = settings;
            for route in routes.unwrap_or_default() {
                let key = |r: &crate::model::Route| (r.destination, r.table, r.tos, r.metric);
                if !host.routes.iter().any(|r| key(r) == key(&route)) {
                    host.routes.push(route);
                }
            }
            host.rules = policy.unwrap_or_else(initial);
            let mut tables = v4.unwrap_or_default();
            // One machinery for both families, as distributions have it.
            let backend = tables.first().map(|t| t.backend);
            for mut table in v6.unwrap_or_default() {
                table.backend = backend.unwrap_or(table.backend);
                tables.push(table);
            }
            tables.extend(nft);
            host.ruleset = Ruleset { tables };
            host.ipsets = sets;
            host
        })
        .boxed()
}
