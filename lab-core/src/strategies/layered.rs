//! Labs with devices on top of others: VLANs, bonds, macvlans, VRFs, tunnels.

use proptest::prelude::*;
use proptest::sample::select;

use super::host::{dressed, nic, Rules};
use super::lab::{behind_bridge, bridge, host, toward, wired, CLIENT, ROUTER, SERVER};
use crate::addr::Family;
use crate::model::{
    Bond, BridgeVlan, Endpoint, Host, Interface, InterfaceKind, Lab, MacvlanMode, PolicyAction, PolicyRule,
    RouteTable, Tunnel, TunnelKind, VlanTag, Wireguard, WireguardPeer,
};

fn device<'h>(host: &'h mut Host, name: &str) -> Option<&'h mut Interface> {
    host.interfaces.iter_mut().find(|i| i.name == name)
}

/// A host with a router of its own, whose `eth0` has no address, and something
/// on it has.
fn on_top(name: &str, number: u8, upper: &str, kind: &InterfaceKind, router: bool) -> Host {
    let mut made = host(name, number, &[("eth0", &[])], &[]);
    let (mac, addresses) = (made.interfaces[1].mac, if router { ROUTER[0].1 } else { CLIENT[0].1 });
    nic(&mut made, number, upper, kind.clone(), addresses);
    if let Some(made) = device(&mut made, upper) {
        made.mac = mac;
        made.link = matches!(kind, InterfaceKind::Vlan(_)).then(|| "eth0".into());
    }
    if !router {
        toward(&mut made, "0.0.0.0/0", "10.0.1.1", upper);
        toward(&mut made, "::/0", "fd01::1", upper);
    }
    made
}

fn pair(client: Host, router: Host) -> BoxedStrategy<Lab> {
    (dressed(client, false, Rules::Few), dressed(router, true, Rules::Many))
        .prop_map(|(client, router)| {
            wired(vec![client, router], &[&[("client", "eth0"), ("router", "eth0")]])
        })
        .boxed()
}

/// A VLAN of both hosts' wires; the client's may be another one.
fn vlans() -> BoxedStrategy<Lab> {
    let tag = |id, service| InterfaceKind::Vlan(VlanTag { id, service });
    (any::<bool>(), prop_oneof![5 => Just(10_u16), 1 => Just(20)])
        .prop_flat_map(move |(service, id)| {
            let client = on_top("client", 0, "eth0.10", &tag(id, service), false);
            let mut router = on_top("router", 1, "eth0.10", &tag(10, service), true);
            nic(&mut router, 1, "eth1", InterfaceKind::Veth, ROUTER[1].1);
            pair(client, router)
        })
        .boxed()
}

/// A bond of two wires, of which one leads somewhere.
fn bonds() -> BoxedStrategy<Lab> {
    (any::<bool>(), select(vec!["active-backup", "balance-rr", "balance-xor"]))
        .prop_flat_map(|(first, mode)| {
            let active = if first { "eth0" } else { "eth2" };
            let backup = mode == "active-backup";
            let bond = Bond { mode: mode.into(), active: backup.then(|| active.into()) };
            let client = on_top("client", 0, "bond0", &InterfaceKind::Bond(bond), false);
            let mut client = client;
            nic(&mut client, 0, "eth2", InterfaceKind::Veth, &[]);
            for port in ["eth0", "eth2"] {
                if let Some(port) = device(&mut client, port) {
                    port.standby = backup && port.name != active;
                    port.master = Some("bond0".into());
                }
            }
            pair(client, host("router", 1, ROUTER, &[]))
        })
        .boxed()
}

/// A router whose bridge filters VLANs.
fn filtering() -> BoxedStrategy<Lab> {
    let vlan = (select(vec![1_u16, 10, 20]), any::<bool>(), any::<bool>())
        .prop_map(|(id, pvid, untagged)| BridgeVlan { id, pvid, untagged });
    let one = prop_oneof![
        3 => Just(vec![BridgeVlan { id: 10, pvid: true, untagged: true }]),
        1 => proptest::collection::vec(vlan, 0..3).prop_map(|mut vlans: Vec<BridgeVlan>| {
            vlans.sort_by_key(|v| v.id);
            vlans.dedup_by_key(|v| v.id);
            // A port has one default VLAN at most.
            let first = vlans.iter().position(|v| v.pvid);
            vlans.iter_mut().enumerate().for_each(|(i, v)| v.pvid = Some(i) == first);
            vlans
        }),
    ];
    let odd = || (prop::bool::weighted(0.2), prop::bool::weighted(0.2));
    (one.clone(), one.clone(), one, (odd(), odd()))
        .prop_flat_map(|(own, first, second, odd)| {
            let client = host("client", 0, CLIENT, &["10.0.1.1", "fd01::1"]);
            let mut router = host("router", 1, &ROUTER[..1], &[]);
            bridge(&mut router, 1, &["10.0.2.1/24", "fd02::1/64"], &["p1", "p2"]);
            for (name, (hairpin, isolated)) in [("p1", odd.0), ("p2", odd.1)] {
                let port = device(&mut router, name).and_then(|i| i.port.as_mut());
                if let Some(port) = port {
                    (port.hairpin, port.isolated) = (hairpin, isolated);
                }
            }
            for (name, vlans) in [("br0", own), ("p1", first), ("p2", second)] {
                if let Some(port) = device(&mut router, name) {
                    port.vlans = vlans;
                    if let InterfaceKind::Bridge(settings) = &mut port.kind {
                        settings.vlan_filtering = true;
                    }
                }
            }
            let server = host("server", 2, SERVER, &["10.0.2.1", "fd02::1"]);
            let other = [("eth0", &["10.0.2.4/24", "fd02::4/64"][..])];
            let other = host("other", 3, &other, &["10.0.2.1", "fd02::1"]);
            (
                dressed(client, false, Rules::None),
                dressed(router, true, Rules::Many),
                dressed(server, false, Rules::None),
                dressed(other, false, Rules::Few),
            )
        })
        .prop_map(behind_bridge)
        .boxed()
}

/// A router whose devices, or some of them, are in a VRF.
fn vrfs() -> BoxedStrategy<Lab> {
    const TABLE: RouteTable = RouteTable(10);
    let router = host("router", 1, ROUTER, &[]);
    (
        dressed(router, true, Rules::Many),
        dressed(host("client", 0, CLIENT, &["10.0.1.1"]), false, Rules::Few),
        any::<bool>(),
    )
        .prop_map(|(mut router, client, both)| {
            nic(&mut router, 1, "red", InterfaceKind::Vrf(TABLE.0), &[]);
            for port in if both { &["eth0", "eth1"][..] } else { &["eth0"][..] } {
                if let Some(port) = device(&mut router, port) {
                    port.master = Some("red".into());
                }
                let by = |hop: &crate::model::NextHop| hop.interface.as_deref() == Some(*port);
                for route in router.routes.iter_mut().filter(|r| r.next_hops.iter().any(by)) {
                    route.table = TABLE;
                }
            }
            for family in [Family::Ipv4, Family::Ipv6] {
                router.rules.push(PolicyRule::new(family, 1000, PolicyAction::LookupVrf));
            }
            router.rules.sort_by_key(|r| r.priority);
            wired(vec![client, router], &[&[("client", "eth0"), ("router", "eth0")]])
        })
        .boxed()
}

/// A client that sits on the router's wire, with or without a sibling.
fn macvlans() -> BoxedStrategy<Lab> {
    let modes = vec![MacvlanMode::Private, MacvlanMode::Vepa, MacvlanMode::Bridge];
    (select(modes.clone()), select(modes))
        .prop_flat_map(|(mode, other)| {
            let router = host("router", 1, ROUTER, &[]);
            let below = host("below", 2, &[("eth0", &["10.0.1.4/24", "fd01::4/64"])], &["10.0.1.1"]);
            let upper = |name: &str, number, mode, address: &[&str]| {
                let mut made = host(name, number, &[("eth0", address)], &["10.0.1.1", "fd01::1"]);
                made.interfaces[1].kind = InterfaceKind::Macvlan(mode);
                made
            };
            let client = upper("client", 0, mode, CLIENT[0].1);
            let server = upper("server", 3, other, &["10.0.1.5/24", "fd01::5/64"]);
            (
                dressed(client, false, Rules::Few),
                dressed(router, true, Rules::Many),
                dressed(below, false, Rules::None),
                dressed(server, false, Rules::None),
            )
        })
        .prop_map(|(client, router, below, server)| {
            let hosts = vec![client, router, below, server];
            let mut lab = wired(hosts, &[&[("below", "eth0"), ("router", "eth0")]]);
            let end = |host: &str| Endpoint { host: host.into(), interface: "eth0".into() };
            lab.macvlans = vec![(end("below"), end("client")), (end("below"), end("server"))];
            lab
        })
        .boxed()
}

/// The ends of tunnels, of either family.
const CLIENT_END: [&str; 2] = ["10.0.1.2", "fd01::2"];
const ROUTER_END: [&str; 2] = ["10.0.1.1", "fd01::1"];

/// Two hosts with a tunnel between them, that may lack a key, or speak
/// another language at its far end.
fn tunnels() -> BoxedStrategy<Lab> {
    let kind = || {
        let likely = select(vec![TunnelKind::Gre, TunnelKind::Ipip, TunnelKind::Sit, TunnelKind::Gretap]);
        let rare = select(vec![TunnelKind::Ip6gre, TunnelKind::Ip6tnl]);
        prop_oneof![3 => likely, 1 => rare]
    };
    let key = || prop_oneof![4 => Just(None), 1 => Just(Some(7_u32))];
    let odd = (prop::bool::weighted(0.9), prop::bool::weighted(0.7));
    (kind(), kind(), odd, (key(), key()), prop_oneof![Just(0_u8), Just(64)])
        .prop_flat_map(|(kind, other, (same, named), keys, ttl)| {
            let end = |kind: TunnelKind, [remote, local]: [[&str; 2]; 2], (key_in, key_out)| {
                let of = |ends: [&str; 2]| ends[usize::from(kind.outer() == Family::Ipv6)].parse().ok();
                let local = if named { of(local) } else { None };
                let tunnel = Tunnel { local, remote: of(remote), key_in, key_out, ttl, ..Tunnel::new(kind) };
                let mtu = 1500 - tunnel.overhead();
                (InterfaceKind::Tunnel(tunnel), mtu)
            };
            let (own, mtu) = end(kind, [ROUTER_END, CLIENT_END], keys);
            let far = if same { kind } else { other };
            let (far, far_mtu) = end(far, [CLIENT_END, ROUTER_END], (keys.1, keys.0));
            let mut client = host("client", 0, CLIENT, &["10.0.1.1", "fd01::1"]);
            nic(&mut client, 0, "tun0", own, &["10.0.9.2/24", "fd09::2/64"]);
            toward(&mut client, "10.0.2.0/24", "10.0.9.1", "tun0");
            let mut router = host("router", 1, ROUTER, &[]);
            nic(&mut router, 1, "tun0", far, &["10.0.9.1/24", "fd09::1/64"]);
            for (host, mtu) in [(&mut client, mtu), (&mut router, far_mtu)] {
                if let Some(tunnel) = device(host, "tun0") {
                    tunnel.mtu = mtu;
                }
            }
            pair(client, router)
        })
        .boxed()
}

/// Two hosts that trust each other, for some addresses.
fn wireguard() -> BoxedStrategy<Lab> {
    let allowed = || select(vec!["10.0.9.0/24", "10.0.9.2/32", "0.0.0.0/0", "10.0.2.0/24"]);
    (allowed(), allowed(), any::<bool>())
        .prop_flat_map(|(to, from, marked)| {
            let end = |own: &str, peer: &str, endpoint: &str, allowed: &str| {
                InterfaceKind::Wireguard(Wireguard {
                    public_key: own.into(),
                    port: 51820,
                    mark: u32::from(marked),
                    peers: vec![WireguardPeer {
                        public_key: peer.into(),
                        preshared: false,
                        heard: true,
                        endpoint: endpoint.parse().ok(),
                        allowed: [allowed, "fd09::/64"].iter().filter_map(|n| n.parse().ok()).collect(),
                        keepalive: None,
                    }],
                })
            };
            let mut client = host("client", 0, CLIENT, &["10.0.1.1", "fd01::1"]);
            nic(&mut client, 0, "wg0", end("c", "r", "10.0.1.1:51820", to), &["10.0.9.2/24", "fd09::2/64"]);
            toward(&mut client, "10.0.2.0/24", "10.0.9.1", "wg0");
            let mut router = host("router", 1, ROUTER, &[]);
            nic(&mut router, 1, "wg0", end("r", "c", "10.0.1.2:51820", from), &["10.0.9.1/24", "fd09::1/64"]);
            pair(client, router)
        })
        .boxed()
}

/// A lab in which packets pass devices that sit on others: VLANs, bonds, bridges
/// that filter VLANs, VRFs, macvlans, tunnels or WireGuard. There is always a
/// host `client` with an `eth0`.
///
/// ```
/// # use proptest::{prelude::*, strategy::ValueTree, test_runner::TestRunner};
/// use lab_core::strategies::layered;
/// let lab = layered().new_tree(&mut TestRunner::deterministic())?.current();
/// assert!(lab.hosts["client"].interface("eth0").is_some());
/// # Ok::<(), proptest::test_runner::Reason>(())
/// ```
pub fn layered() -> BoxedStrategy<Lab> {
    prop_oneof![
        1 => vlans(),
        1 => bonds(),
        1 => filtering(),
        1 => vrfs(),
        1 => macvlans(),
        2 => tunnels(),
        1 => wireguard(),
    ]
    .boxed()
}
