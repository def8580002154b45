//! VLANs, bonds, macvlans, and bridges that tell VLANs apart.

use super::build::{ping, tcp, udp, Build};
use super::{seen, stage};
use crate::engine::explore::{all, Choices};
use crate::engine::journey::Journey;
use crate::engine::stepper::{walk, Entry, World};
use crate::model::{
    Bond, BridgeVlan, Endpoint, InterfaceKind, MacvlanMode, Outcome, Place, Stage, TcpFlags, VlanTag,
};

fn at(journey: &Journey) -> String {
    match &journey.outcome {
        Outcome::Delivered { at, .. } => at.to_string(),
        other => panic!("not delivered: {other:?}"),
    }
}

/// Two hosts whose wire carries VLAN 10.
fn tagged() -> Build {
    let mut lab = Build::default();
    lab.host("a", false).nic("a", "eth0", &["10.0.0.1/24"]).vlan("a", "eth0", 10, &["10.0.10.1/24"]);
    lab.host("b", false).nic("b", "eth0", &["10.0.0.2/24"]).vlan("b", "eth0", 10, &["10.0.10.2/24"]);
    lab.link(&[("a", "eth0"), ("b", "eth0")]);
    lab
}

fn inject(lab: &Build, place: (&str, &str), tag: u16, dst: &str) -> Journey {
    let place = Place { host: place.0.into(), iface: place.1.into() };
    let packet = tcp(("10.0.10.1", 1), (dst, 22), TcpFlags::SYN);
    let (mut world, mut choices) = (World::default(), Choices::default());
    walk(&lab.lab, &mut world, &mut choices, &Entry::ArriveTagged(place, tag), &packet)
}

#[test]
fn a_vlan_device_puts_its_tag_on_and_takes_it_off() {
    let lab = tagged();
    assert_eq!(at(&lab.send(&[("a", ping("0.0.0.0", "10.0.10.2"))])), "b:eth0.10");
    assert_eq!(at(&lab.send(&[("a", ping("0.0.0.0", "10.0.0.2"))])), "b:eth0");
}

#[test]
fn a_tag_that_no_device_takes_off_makes_a_frame_somebody_elses() {
    let lab = tagged();
    assert_eq!(at(&inject(&lab, ("b", "eth0"), 10, "10.0.10.2")), "b:eth0.10");
    assert_eq!(*stage(&inject(&lab, ("b", "eth0"), 11, "10.0.10.2")), Stage::NotMyMac);
    // VLAN 0 says only how urgent a frame is.
    assert_eq!(at(&inject(&lab, ("b", "eth0"), 0, "10.0.10.2")), "b:eth0");
}

#[test]
fn a_service_tag_is_not_one_of_802_1q() {
    let mut lab = tagged();
    let service = InterfaceKind::Vlan(VlanTag { id: 10, service: true });
    lab.change("b", "eth0.10", |i| i.kind = service);
    let journey = lab.send(&[("a", ping("0.0.0.0", "10.0.10.2"))]);
    assert!(!matches!(journey.outcome, Outcome::Delivered { .. }));
}

#[test]
fn a_vlan_on_a_device_that_is_down_sends_nothing() {
    let mut lab = tagged();
    lab.change("a", "eth0", |i| i.up = false);
    let journey = lab.send(&[("a", ping("0.0.0.0", "10.0.10.2"))]);
    assert!(!matches!(journey.outcome, Outcome::Delivered { .. }));
    assert_eq!(*stage(&inject(&lab, ("a", "eth0"), 10, "10.0.10.1")), Stage::LinkDown);
}

/// A bridge with a host at each of two ports, whose VLANs are given, and
/// itself in VLAN 1.
fn switch(first: &[BridgeVlan], second: &[BridgeVlan]) -> Build {
    let mut lab = Build::default();
    lab.host("a", false).nic("a", "eth0", &["10.0.0.1/24"]);
    lab.host("b", false).nic("b", "eth0", &["10.0.0.2/24"]);
    lab.host("sw", false).bridge("sw", "br0", &["10.0.0.9/24"], &["p1", "p2"]);
    lab.link(&[("a", "eth0"), ("sw", "p1")]).link(&[("b", "eth0"), ("sw", "p2")]);
    lab.change("sw", "br0", |i| {
        if let InterfaceKind::Bridge(bridge) = &mut i.kind {
            bridge.vlan_filtering = true;
        }
        i.vlans = vec![access(1)];
    });
    lab.change("sw", "p1", |i| i.vlans = first.to_vec());
    lab.change("sw", "p2", |i| i.vlans = second.to_vec());
    lab
}

/// The VLAN of a port that knows no tags.
fn access(id: u16) -> BridgeVlan {
    BridgeVlan { id, pvid: true, untagged: true }
}

#[test]
fn ports_of_one_vlan_reach_each_other_and_others_do_not() {
    let packet = || ping("0.0.0.0", "10.0.0.2");
    assert_eq!(at(&switch(&[access(10)], &[access(10)]).send(&[("a", packet())])), "b:eth0");
    let apart = switch(&[access(10)], &[access(20)]).send(&[("a", packet())]);
    assert_eq!(*stage(&apart), Stage::HostUnreachable);
}

#[test]
fn the_bridge_itself_is_a_port_of_its_own_vlans() {
    let packet = || ping("0.0.0.0", "10.0.0.9");
    assert_eq!(at(&switch(&[access(1)], &[]).send(&[("a", packet())])), "sw:br0");
    let lab = switch(&[access(10)], &[]);
    assert_eq!(*stage(&lab.send(&[("sw:p1", packet())])), Stage::BridgeVlan);
    assert_eq!(at(&switch(&[], &[access(1)]).send(&[("sw", ping("0.0.0.0", "10.0.0.2"))])), "b:eth0");
}

#[test]
fn a_port_without_pvid_drops_what_comes_in_and_still_sends() {
    let out = BridgeVlan { id: 10, pvid: false, untagged: true };
    let lab = switch(&[access(10)], &[out]);
    // Only replies die; so the question who has the address is not answered.
    assert_eq!(*stage(&lab.send(&[("sw:p2", ping("10.0.0.2", "10.0.0.9"))])), Stage::BridgeVlan);
    let mut lab = lab;
    let mac = lab.get("b").interface("eth0").unwrap().mac;
    lab.get("a").neighbours.push(crate::model::Neighbour {
        address: "10.0.0.2".parse().unwrap(),
        interface: "eth0".into(),
        mac,
        state: crate::model::NeighbourState::Permanent,
        proxy: false,
    });
    assert_eq!(at(&lab.send(&[("a", ping("0.0.0.0", "10.0.0.2"))])), "b:eth0");
}

#[test]
fn a_frame_of_a_vlan_that_its_port_is_not_in_is_refused() {
    let lab = switch(&[access(10)], &[access(10)]);
    assert_eq!(*stage(&inject(&lab, ("sw", "p1"), 20, "10.0.0.9")), Stage::BridgeVlan);
}

#[test]
fn tagged_frames_pass_br_netfilter_by() {
    let trunk = BridgeVlan { id: 10, pvid: false, untagged: false };
    let mut lab = switch(&[trunk], &[trunk]);
    for host in ["a", "b"] {
        let address = if host == "a" { "10.0.10.1/24" } else { "10.0.10.2/24" };
        lab.vlan(host, "eth0", 10, &[address]);
    }
    lab.sysctl("sw", "net.bridge.bridge-nf-call-iptables", 1);
    lab.rules("sw", "*filter\n:FORWARD DROP [0:0]");
    assert_eq!(at(&lab.send(&[("a", ping("0.0.0.0", "10.0.10.2"))])), "b:eth0.10");
    lab.sysctl("sw", "net.bridge.bridge-nf-filter-vlan-tagged", 1);
    let journey = lab.send(&[("a", ping("0.0.0.0", "10.0.10.2"))]);
    assert!(journey.unknown[0].contains("bridge-nf-filter-vlan-tagged"), "{:?}", journey.unknown);
}

#[test]
fn untagged_frames_meet_br_netfilter_though_their_vlan_is_inside() {
    let mut lab = switch(&[access(10)], &[access(10)]);
    lab.sysctl("sw", "net.bridge.bridge-nf-call-iptables", 1);
    lab.rules("sw", "*filter\n:FORWARD DROP [0:0]");
    let journey = lab.send(&[("a", ping("0.0.0.0", "10.0.0.2"))]);
    assert_eq!(super::rule(&journey), ("filter", "FORWARD", None));
}

#[test]
fn a_frame_that_dnat_turns_to_the_bridge_itself_is_of_its_ports_vlan() {
    for (vlan, up) in [(1, true), (10, false)] {
        let mut lab = switch(&[access(vlan)], &[access(vlan)]);
        lab.sysctl("sw", "net.bridge.bridge-nf-call-iptables", 1);
        let dnat = "-A PREROUTING -d 10.0.0.2 -j DNAT --to-destination 10.0.0.9";
        lab.rules("sw", &format!("*nat\n:PREROUTING ACCEPT [0:0]\n{dnat}"));
        let journey = lab.send(&[("a", ping("0.0.0.0", "10.0.0.2"))]);
        match up {
            true => assert_eq!(at(&journey), "sw:br0"),
            false => assert_eq!(*stage(&journey), Stage::BridgeVlan),
        }
    }
}

/// A bond of two ports, both wired to a router's bridge.
fn bonded(mode: &str, active: Option<&str>) -> Build {
    let mut lab = Build::default();
    let bond = Bond { mode: mode.into(), active: active.map(str::to_owned) };
    lab.host("a", false).device("a", "bond0", InterfaceKind::Bond(bond), &["10.0.0.1/24"]);
    let mac = lab.get("a").interface("bond0").unwrap().mac;
    for port in ["eth0", "eth1"] {
        lab.nic("a", port, &[]);
        lab.change("a", port, |i| {
            (i.mac, i.master) = (mac, Some("bond0".into()));
            i.standby = active.is_some_and(|active| active != i.name);
        });
    }
    lab.host("b", false).bridge("b", "br0", &["10.0.0.2/24"], &["p0", "p1"]);
    lab.link(&[("a", "eth0"), ("b", "p0")]).link(&[("a", "eth1"), ("b", "p1")]);
    lab
}

#[test]
fn a_bond_uses_its_active_port_and_drops_what_comes_by_the_other() {
    let lab = bonded("active-backup", Some("eth1"));
    let journey = lab.send(&[("a", ping("0.0.0.0", "10.0.0.2"))]);
    assert!(journey.hops().any(|h| h.at.to_string() == "b:p1"));
    assert_eq!(at(&lab.send(&[("a:eth1", ping("10.0.0.2", "10.0.0.1"))])), "a:bond0");
    assert_eq!(*stage(&lab.send(&[("a:eth0", ping("10.0.0.2", "10.0.0.1"))])), Stage::BondInactive);
    assert_eq!(at(&lab.send(&[("b", ping("0.0.0.0", "10.0.0.1"))])), "a:bond0");
}

#[test]
fn which_port_another_bond_uses_is_open() {
    let lab = bonded("802.3ad", None);
    let ways = all(8, |choices| lab.run(choices, &[("a", ping("0.0.0.0", "10.0.0.2"))]));
    assert_eq!(ways.results.len(), 2);
    assert!(ways.reasons[0].contains("which port of bond0"));
}

#[test]
fn a_bond_without_a_port_sends_nothing() {
    let mut lab = bonded("active-backup", Some("eth0"));
    lab.change("a", "eth0", |i| i.carrier = false);
    let journey = lab.send(&[("a", ping("0.0.0.0", "10.0.0.255"))]);
    assert!(!matches!(journey.outcome, Outcome::Delivered { .. }));
}

/// Two containers on the device of a machine, that is wired to another.
fn containers(first: MacvlanMode, second: MacvlanMode) -> Build {
    let mut lab = Build::default();
    lab.host("c1", false).device("c1", "eth0", InterfaceKind::Macvlan(first), &["10.0.0.1/24"]);
    lab.host("c2", false).device("c2", "eth0", InterfaceKind::Macvlan(second), &["10.0.0.2/24"]);
    lab.host("dock", false).nic("dock", "eth0", &["10.0.0.3/24"]);
    lab.host("far", false).nic("far", "eth0", &["10.0.0.4/24"]);
    lab.link(&[("dock", "eth0"), ("far", "eth0")]);
    let end = |host: &str| Endpoint { host: host.into(), interface: "eth0".into() };
    lab.lab.macvlans = vec![(end("dock"), end("c1")), (end("dock"), end("c2"))];
    lab
}

#[test]
fn a_macvlan_reaches_the_wire_and_is_reached_from_it() {
    let lab = containers(MacvlanMode::Private, MacvlanMode::Private);
    assert_eq!(at(&lab.send(&[("c1", ping("0.0.0.0", "10.0.0.4"))])), "far:eth0");
    assert_eq!(at(&lab.send(&[("far", ping("0.0.0.0", "10.0.0.2"))])), "c2:eth0");
    assert_eq!(at(&lab.send(&[("far", ping("0.0.0.0", "10.0.0.3"))])), "dock:eth0");
}

#[test]
fn macvlan_siblings_reach_each_other_where_both_are_bridged() {
    let packet = || ping("0.0.0.0", "10.0.0.2");
    let bridged = containers(MacvlanMode::Bridge, MacvlanMode::Bridge);
    assert_eq!(at(&bridged.send(&[("c1", packet())])), "c2:eth0");
    for (first, second) in [
        (MacvlanMode::Private, MacvlanMode::Bridge),
        (MacvlanMode::Bridge, MacvlanMode::Vepa),
        (MacvlanMode::Vepa, MacvlanMode::Vepa),
    ] {
        let journey = containers(first, second).send(&[("c1", packet())]);
        assert_eq!(*stage(&journey), Stage::HostUnreachable, "{first} {second}");
    }
}

#[test]
fn a_macvlan_and_the_device_it_sits_on_do_not_reach_each_other() {
    let mut lab = containers(MacvlanMode::Bridge, MacvlanMode::Bridge);
    for (host, other, address) in [("c1", "dock", "10.0.0.3"), ("dock", "c1", "10.0.0.1")] {
        let mac = lab.get(other).interface("eth0").unwrap().mac;
        lab.get(host).neighbours.push(crate::model::Neighbour {
            address: address.parse().unwrap(),
            interface: "eth0".into(),
            mac,
            state: crate::model::NeighbourState::Permanent,
            proxy: false,
        });
        let journey = lab.send(&[(host, ping("0.0.0.0", address))]);
        assert_eq!(*stage(&journey), Stage::Macvlan, "{host}");
    }
}

#[test]
fn a_macvlan_of_the_same_host_is_on_its_link() {
    let mut lab = Build::line();
    lab.device("router", "mv0", InterfaceKind::Macvlan(MacvlanMode::Private), &["10.0.1.9/24"]);
    lab.change("router", "mv0", |i| i.link = Some("eth0".into()));
    let mac = lab.get("router").interface("mv0").unwrap().mac;
    lab.get("client").neighbours.push(crate::model::Neighbour {
        address: "10.0.1.9".parse().unwrap(),
        interface: "eth0".into(),
        mac,
        state: crate::model::NeighbourState::Permanent,
        proxy: false,
    });
    let journey = lab.send(&[("client", ping("0.0.0.0", "10.0.1.9"))]);
    assert_eq!(at(&journey), "router:mv0");
    assert_eq!(seen(&journey).ttl, 64);
}

/// `arp_constructor`, `ndisc_constructor`: such a device's own address stands for all.
#[test]
fn a_device_without_arp_sends_to_its_own_address_which_nobody_else_has() {
    let mut lab = Build::line();
    let nic = lab.get("client").interfaces.iter_mut().find(|i| i.name == "eth0").unwrap();
    nic.arp = false;
    for (src, dst) in [("10.0.1.2", "10.0.1.1"), ("fd01::2", "fd01::1")] {
        let journey = lab.send(&[("client", udp((src, 1), (dst, 53)))]);
        assert_eq!(*stage(&journey), Stage::NotMyMac, "{dst}");
    }
}
