//! Hypervisors on one network, each with guests behind libvirt's NAT: labs of
//! any size, to measure on.

use std::fmt::Write as _;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use ipnet::{IpNet, Ipv4Net};
use lab_core::addr::{Family, Mac};
use lab_core::formats::iptables;
use lab_core::model::{
    Address, Bridge, BridgePort, Endpoint, Host, Interface, InterfaceKind, Lab, Link, NextHop, Origin, Route,
    RouteKind, RouteTable, Scope,
};

fn interface(name: &str, index: u32, kind: InterfaceKind, mac: Option<Mac>) -> Interface {
    Interface {
        index,
        name: name.into(),
        kind,
        mac,
        mtu: 1500,
        up: true,
        carrier: true,
        arp: true,
        master: None,
        link: None,
        port: None,
        vlans: Vec::new(),
        standby: false,
        addresses: Vec::new(),
    }
}

fn route(
    host: &mut Host,
    kind: RouteKind,
    net: Ipv4Net,
    table: RouteTable,
    via: Option<Ipv4Addr>,
    device: &str,
    source: Option<Ipv4Addr>,
) {
    let own = kind == RouteKind::Local;
    host.routes.push(Route {
        family: Family::Ipv4,
        destination: IpNet::V4(net),
        source: None,
        kind,
        table,
        metric: 0,
        tos: 0,
        scope: if own {
            Scope::Host
        } else if via.is_some() {
            Scope::Global
        } else {
            Scope::Link
        },
        prefsrc: source.map(IpAddr::V4),
        next_hops: vec![NextHop {
            gateway: via.map(IpAddr::V4),
            interface: Some(device.into()),
            weight: 1,
            onlink: false,
            dead: false,
            linkdown: false,
        }],
        mtu: None,
        protocol: if source.is_some() { "kernel" } else { "static" }.into(),
        origin: Origin::default(),
        unmodelled: String::new(),
    });
}

/// An address with the routes that a kernel adds for it.
fn address(host: &mut Host, device: &str, net: Ipv4Net) {
    let own = net.addr();
    if let Some(found) = host.interfaces.iter_mut().find(|i| i.name == device) {
        found.addresses.push(Address {
            address: own.into(),
            prefix_len: net.prefix_len(),
            peer: None,
            scope: if own.is_loopback() { Scope::Host } else { Scope::Global },
            secondary: false,
            deprecated: false,
            temporary: false,
            tentative: false,
        });
    }
    let whole = if own.is_loopback() { net.trunc() } else { Ipv4Net::from(own) };
    route(host, RouteKind::Local, whole, RouteTable::LOCAL, None, device, Some(own));
    if !own.is_loopback() {
        route(host, RouteKind::Broadcast, net.broadcast().into(), RouteTable::LOCAL, None, device, Some(own));
        route(host, RouteKind::Unicast, net.trunc(), RouteTable::MAIN, None, device, Some(own));
    }
}

fn host(name: &str, forwards: bool) -> Host {
    let mut host = Host { name: name.into(), ..Host::default() };
    let on = if forwards { "1" } else { "0" };
    for key in ["ip_forward", "conf.all.forwarding", "conf.default.forwarding", "conf.eth0.forwarding"] {
        host.sysctls.0.insert(format!("net.ipv4.{key}"), on.into());
    }
    host.sysctls.0.insert("net.ipv4.conf.all.rp_filter".into(), "0".into());
    host.interfaces.push(interface("lo", 1, InterfaceKind::Loopback, Some(Mac::ZERO)));
    address(&mut host, "lo", Ipv4Net::new_assert(Ipv4Addr::LOCALHOST, 8));
    host
}

/// The rules that libvirt writes for a NAT network, with a hole for what the
/// others send where they route to it.
fn rules(subnet: Ipv4Net, opened: bool) -> String {
    let mut text =
        String::from("*filter\n:INPUT ACCEPT [0:0]\n:FORWARD ACCEPT [0:0]\n:OUTPUT ACCEPT [0:0]\n");
    for chain in ["INP", "OUT", "FWO", "FWI", "FWX"] {
        let _ = writeln!(text, ":LIBVIRT_{chain} - [0:0]");
    }
    text += "-A INPUT -j LIBVIRT_INP\n-A FORWARD -j LIBVIRT_FWX\n-A FORWARD -j LIBVIRT_FWI\n\
             -A FORWARD -j LIBVIRT_FWO\n-A OUTPUT -j LIBVIRT_OUT\n\
             -A LIBVIRT_INP -i virbr0 -p udp -m udp --dport 53 -j ACCEPT\n\
             -A LIBVIRT_INP -i virbr0 -p udp -m udp --dport 67 -j ACCEPT\n\
             -A LIBVIRT_OUT -o virbr0 -p udp -m udp --dport 68 -j ACCEPT\n";
    let _ = writeln!(text, "-A LIBVIRT_FWO -s {subnet} -i virbr0 -j ACCEPT");
    text += "-A LIBVIRT_FWO -i virbr0 -j REJECT --reject-with icmp-port-unreachable\n";
    if opened {
        let _ = writeln!(text, "-A LIBVIRT_FWI -s 10.255.0.0/16 -d {subnet} -o virbr0 -j ACCEPT");
    }
    let _ = writeln!(
        text,
        "-A LIBVIRT_FWI -d {subnet} -o virbr0 -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT"
    );
    text += "-A LIBVIRT_FWI -o virbr0 -j REJECT --reject-with icmp-port-unreachable\n\
             -A LIBVIRT_FWX -i virbr0 -o virbr0 -j ACCEPT\nCOMMIT\n\
             *nat\n:PREROUTING ACCEPT [0:0]\n:INPUT ACCEPT [0:0]\n:OUTPUT ACCEPT [0:0]\n\
             :POSTROUTING ACCEPT [0:0]\n:LIBVIRT_PRT - [0:0]\n-A POSTROUTING -j LIBVIRT_PRT\n";
    let _ = writeln!(text, "-A LIBVIRT_PRT -s {subnet} -d 224.0.0.0/24 -j RETURN");
    let _ = writeln!(text, "-A LIBVIRT_PRT -s {subnet} -d 255.255.255.255/32 -j RETURN");
    for protocol in ["-p tcp ", "-p udp ", ""] {
        let ports = if protocol.is_empty() { "" } else { " --to-ports 1024-65535" };
        let _ = writeln!(text, "-A LIBVIRT_PRT -s {subnet} ! -d {subnet} {protocol}-j MASQUERADE{ports}");
    }
    text + "COMMIT\n"
}

/// So many hypervisors on one network, with so many guests each. `routed`:
/// each has a route to the guests of every other, and lets the others' masked
/// guests in; else each guest reaches out by NAT alone.
pub fn hypervisors(count: u32, guests: u32, routed: bool) -> Lab {
    let outer = |n: u32| Ipv4Addr::from((10 << 24) + (255 << 16) + 1 + n);
    let subnet = |n: u32| Ipv4Net::new_assert(Ipv4Addr::from((10 << 24) + (64 << 16) + (n << 8)), 24);
    let mac = |kind: u8, n: u32, g: u8| {
        let [_, a, b, c] = n.to_be_bytes();
        Mac([0x52, kind, a, b, c, g])
    };
    let mut lab = Lab { name: format!("{count} hypervisors"), ..Lab::default() };
    let mut hub = Link { name: Some("hub".into()), kind: Some("switch".into()), endpoints: Vec::new() };
    for n in 0..count {
        let name = format!("hv{n:04}");
        let mut hypervisor = host(&name, true);
        hypervisor.interfaces.push(interface("eth0", 2, InterfaceKind::Physical, Some(mac(0, n, 0))));
        let bridge = InterfaceKind::Bridge(Bridge::default());
        hypervisor.interfaces.push(interface("virbr0", 3, bridge, Some(mac(1, n, 255))));
        hypervisor.sysctls.0.insert("net.ipv4.conf.virbr0.forwarding".into(), "1".into());
        address(&mut hypervisor, "eth0", Ipv4Net::new_assert(outer(n), 16));
        let net = subnet(n);
        address(&mut hypervisor, "virbr0", Ipv4Net::new_assert(Ipv4Addr::from(net.addr().to_bits() + 1), 24));
        if routed {
            for other in (0..count).filter(|o| *o != n) {
                let via = Some(outer(other));
                route(
                    &mut hypervisor,
                    RouteKind::Unicast,
                    subnet(other),
                    RouteTable::MAIN,
                    via,
                    "eth0",
                    None,
                );
            }
        }
        let parsed = iptables::parse("iptables.save", rules(net, routed), Family::Ipv4);
        hypervisor.ruleset.tables = parsed.unwrap_or_default();
        for g in 0..guests {
            let tap = format!("vnet{g}");
            let mut port = interface(&tap, 4 + g, InterfaceKind::Tun, Some(mac(2, n, g as u8)));
            port.master = Some("virbr0".into());
            port.port = Some(BridgePort::default());
            hypervisor.interfaces.push(port);
            let guest_name = format!("{name}-vm{g:02}");
            let mut guest = host(&guest_name, false);
            guest.interfaces.push(interface("eth0", 2, InterfaceKind::Physical, Some(mac(3, n, g as u8))));
            let own = Ipv4Addr::from(net.addr().to_bits() + 10 + g);
            address(&mut guest, "eth0", Ipv4Net::new_assert(own, 24));
            let gateway = Some(Ipv4Addr::from(net.addr().to_bits() + 1));
            route(
                &mut guest,
                RouteKind::Unicast,
                Ipv4Net::default(),
                RouteTable::MAIN,
                gateway,
                "eth0",
                None,
            );
            let end =
                |host: &str, interface: &str| Endpoint { host: host.into(), interface: interface.into() };
            lab.links.push(Link {
                name: None,
                kind: Some("tap".into()),
                endpoints: vec![end(&guest_name, "eth0"), end(&name, &tap)],
            });
            lab.hosts.insert(guest_name, Arc::new(guest));
        }
        hub.endpoints.push(Endpoint { host: name.clone(), interface: "eth0".into() });
        lab.hosts.insert(name, Arc::new(hypervisor));
    }
    lab.links.push(hub);
    lab
}
