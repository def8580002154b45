//! Whole labs.

use proptest::prelude::*;

use super::host::{dressed, nic, Rules};
use super::route::{hop, route};
use crate::model::{
    Bridge, BridgePort, Endpoint, Host, InterfaceKind, Lab, Link, RouteKind, RouteTable, Vxlan,
};

/// A host with loopback and these devices, and default routes by a router's
/// addresses.
pub(super) fn host(name: &str, number: u8, devices: &[(&str, &[&str])], by: &[&str]) -> Host {
    let mut host = Host { name: name.into(), ..Host::default() };
    nic(&mut host, number, "lo", InterfaceKind::Loopback, &["127.0.0.1/8", "::1/128"]);
    for (device, addresses) in devices {
        nic(&mut host, number, device, InterfaceKind::Veth, addresses);
    }
    for router in by {
        let to = if router.contains(':') { "::/0" } else { "0.0.0.0/0" };
        toward(&mut host, to, router, "eth0");
    }
    host
}

pub(super) fn toward(host: &mut Host, net: &str, router: &str, device: &str) {
    let (Ok(net), Ok(router)) = (net.parse(), router.parse()) else { return };
    let mut made = route(RouteKind::Unicast, net, RouteTable::MAIN);
    made.next_hops = vec![hop(Some(router), device)];
    host.routes.push(made);
}

/// Puts a bridge with addresses and ports into a host.
pub(super) fn bridge(host: &mut Host, number: u8, addresses: &[&str], ports: &[&str]) {
    nic(host, number, "br0", InterfaceKind::Bridge(Bridge::default()), addresses);
    for port in ports {
        nic(host, number, port, InterfaceKind::Veth, &[]);
        if let Some(made) = host.interfaces.last_mut() {
            made.master = Some("br0".into());
            made.port = Some(BridgePort::default());
        }
    }
}

pub(super) fn wired(hosts: Vec<Host>, links: &[&[(&str, &str)]]) -> Lab {
    let links = links
        .iter()
        .map(|ends| Link {
            name: None,
            kind: None,
            endpoints: ends
                .iter()
                .map(|(host, interface)| Endpoint { host: (*host).into(), interface: (*interface).into() })
                .collect(),
        })
        .collect();
    let hosts = hosts.into_iter().map(|h| (h.name.clone(), h.into())).collect();
    Lab {
        name: "random".into(),
        description: None,
        hosts,
        links,
        macvlans: Vec::new(),
        unmodelled: Vec::new(),
    }
}

pub(super) const CLIENT: &[(&str, &[&str])] = &[("eth0", &["10.0.1.2/24", "fd01::2/64"])];
pub(super) const ROUTER: &[(&str, &[&str])] =
    &[("eth0", &["10.0.1.1/24", "fd01::1/64"]), ("eth1", &["10.0.2.1/24", "10.0.2.3/24", "fd02::1/64"])];
pub(super) const SERVER: &[(&str, &[&str])] = &[("eth0", &["10.0.2.2/24", "fd02::2/64"])];

/// A lone host, whose devices lead out.
fn alone() -> BoxedStrategy<Lab> {
    let client = host("client", 0, ROUTER, &["10.0.1.3", "fd01::3"]);
    dressed(client, true, Rules::Many).prop_map(|client| wired(vec![client], &[])).boxed()
}

/// Two hosts on one wire.
fn pair() -> BoxedStrategy<Lab> {
    let client = host("client", 0, CLIENT, &["10.0.1.1", "fd01::1"]);
    let router = host("router", 1, ROUTER, &[]);
    (dressed(client, false, Rules::Few), dressed(router, true, Rules::Many))
        .prop_map(|(client, router)| {
            wired(vec![client, router], &[&[("client", "eth0"), ("router", "eth0")]])
        })
        .boxed()
}

/// A client, a router and a server.
fn line() -> BoxedStrategy<Lab> {
    let client = host("client", 0, CLIENT, &["10.0.1.1", "fd01::1"]);
    let router = host("router", 1, ROUTER, &[]);
    let server = host("server", 2, SERVER, &["10.0.2.1", "fd02::1"]);
    (
        dressed(client, false, Rules::Few),
        dressed(router, true, Rules::Many),
        dressed(server, false, Rules::Few),
    )
        .prop_map(|(client, router, server)| {
            wired(
                vec![client, router, server],
                &[&[("client", "eth0"), ("router", "eth0")], &[("router", "eth1"), ("server", "eth0")]],
            )
        })
        .boxed()
}

/// Two servers behind a router's bridge, whose frames its rules may see.
fn bridged() -> BoxedStrategy<Lab> {
    let client = host("client", 0, CLIENT, &["10.0.1.1", "fd01::1"]);
    let mut router = host("router", 1, &ROUTER[..1], &[]);
    bridge(&mut router, 1, &["10.0.2.1/24", "fd02::1/64"], &["p1", "p2"]);
    let server = host("server", 2, SERVER, &["10.0.2.1", "fd02::1"]);
    let other = host("other", 3, &[("eth0", &["10.0.2.4/24", "fd02::4/64"])], &["10.0.2.1", "fd02::1"]);
    (
        dressed(client, false, Rules::None),
        dressed(router, true, Rules::Many),
        dressed(server, false, Rules::Few),
        dressed(other, false, Rules::None),
    )
        .prop_map(behind_bridge)
        .boxed()
}

/// Wires a client to a router, and two hosts to the ports of its bridge.
pub(super) fn behind_bridge((client, router, server, other): (Host, Host, Host, Host)) -> Lab {
    wired(
        vec![client, router, server, other],
        &[
            &[("client", "eth0"), ("router", "eth0")],
            &[("router", "p1"), ("server", "eth0")],
            &[("router", "p2"), ("other", "eth0")],
        ],
    )
}

/// Two routers in a row, and what lies outside behind the second.
fn routers() -> BoxedStrategy<Lab> {
    let client = host("client", 0, CLIENT, &["10.0.1.1", "fd01::1"]);
    let mut router = host("router", 1, ROUTER, &[]);
    toward(&mut router, "0.0.0.0/0", "10.0.2.2", "eth1");
    toward(&mut router, "::/0", "fd02::2", "eth1");
    let mut edge = host(
        "server",
        2,
        &[("eth0", &["10.0.2.2/24", "fd02::2/64"]), ("eth1", &["10.0.3.1/24", "fd03::1/64"])],
        &[],
    );
    toward(&mut edge, "10.0.1.0/24", "10.0.2.1", "eth0");
    toward(&mut edge, "fd01::/64", "fd02::1", "eth0");
    toward(&mut edge, "0.0.0.0/0", "10.0.3.3", "eth1");
    (dressed(client, false, Rules::Few), dressed(router, true, Rules::Many), dressed(edge, true, Rules::Few))
        .prop_map(|(client, router, edge)| {
            wired(
                vec![client, router, edge],
                &[&[("client", "eth0"), ("router", "eth0")], &[("router", "eth1"), ("server", "eth0")]],
            )
        })
        .boxed()
}

/// Two hosts with a tunnel between them.
fn tunnel() -> BoxedStrategy<Lab> {
    let vxlan = |remote: &str| {
        InterfaceKind::Vxlan(Vxlan {
            vni: 7,
            local: None,
            remote: remote.parse().ok(),
            link: None,
            port: 4789,
            ttl: 0,
            learning: true,
        })
    };
    let mut client = host("client", 0, CLIENT, &["10.0.1.1", "fd01::1"]);
    nic(&mut client, 0, "vx0", vxlan("10.0.1.1"), &["10.0.9.2/24", "fd09::2/64"]);
    let mut router = host("router", 1, ROUTER, &[]);
    nic(&mut router, 1, "vx0", vxlan("10.0.1.2"), &["10.0.9.1/24", "fd09::1/64"]);
    toward(&mut client, "10.0.2.0/24", "10.0.9.1", "vx0");
    (dressed(client, false, Rules::Few), dressed(router, true, Rules::Many))
        .prop_map(|(client, router)| {
            wired(vec![client, router], &[&[("client", "eth0"), ("router", "eth0")]])
        })
        .boxed()
}

/// A lab of one to four hosts, wired consistently: a host alone, a client and
/// a router, with a server, with servers behind a bridge, with a second router,
/// or with a tunnel. There is always a host `client` with an `eth0`.
///
/// ```
/// # use proptest::{prelude::*, strategy::ValueTree, test_runner::TestRunner};
/// use lab_core::strategies::lab;
/// let lab = lab().new_tree(&mut TestRunner::deterministic())?.current();
/// assert!(lab.hosts.contains_key("client") && lab.hosts.len() <= 4);
/// # Ok::<(), proptest::test_runner::Reason>(())
/// ```
pub fn lab() -> BoxedStrategy<Lab> {
    prop_oneof![4 => alone(), 3 => pair(), 5 => line(), 4 => bridged(), 3 => routers(), 2 => tunnel()].boxed()
}
