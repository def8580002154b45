//! Bridges that filter by VLAN.

use crate::engine::stepper::tests::build::Build;
use crate::model::{BridgeVlan, InterfaceKind, VlanTag};
use crate::semantics::vlan::{device, egress, ingress};

fn service(id: u16) -> VlanTag {
    VlanTag { service: true, ..VlanTag::new(id) }
}

fn lab(filters: bool) -> Build {
    let mut lab = Build::default();
    lab.host("h", false).bridge("h", "br0", &[], &["p1"]);
    lab.change("h", "br0", |i| {
        if let InterfaceKind::Bridge(settings) = &mut i.kind {
            settings.vlan_filtering = filters;
        }
    });
    let vlan = |id, pvid, untagged| BridgeVlan { id, pvid, untagged };
    lab.change("h", "p1", |i| i.vlans = vec![vlan(10, true, true), vlan(20, false, false)]);
    lab
}

#[test]
fn what_enters_a_bridge_gets_its_ports_vlan_or_keeps_one_that_the_port_is_in() {
    let lab = lab(true);
    let host = &lab.lab.hosts["h"];
    let (bridge, port) = (host.interface("br0").unwrap(), host.interface("p1").unwrap());
    let (ten, twenty) = (VlanTag::new(10), VlanTag::new(20));
    for (tags, inside) in [
        (vec![], Some(vec![ten])),
        (vec![ten], Some(vec![ten])),
        (vec![twenty], Some(vec![twenty])),
        (vec![VlanTag::new(30)], None),
        // A priority tag gives way; one of another protocol stays inside.
        (vec![VlanTag::new(0)], Some(vec![ten])),
        (vec![VlanTag::new(0), twenty], Some(vec![ten, twenty])),
        (vec![service(20)], Some(vec![ten, service(20)])),
        (vec![service(0)], Some(vec![ten, service(0)])),
    ] {
        assert_eq!(ingress(bridge, port, tags.clone()), inside, "{tags:?}");
    }
    for (tags, outside) in [
        (vec![ten], Some(vec![])),
        (vec![ten, twenty], Some(vec![twenty])),
        (vec![twenty], Some(vec![twenty])),
        (vec![VlanTag::new(30)], None),
        (vec![], None),
    ] {
        assert_eq!(egress(bridge, port, tags.clone()), outside, "{tags:?}");
    }
}

#[test]
fn without_a_vlan_of_its_own_a_port_refuses_what_has_no_tag() {
    let mut lab = lab(true);
    lab.change("h", "p1", |i| i.vlans.retain(|v| !v.pvid));
    let host = &lab.lab.hosts["h"];
    let (bridge, port) = (host.interface("br0").unwrap(), host.interface("p1").unwrap());
    assert_eq!(ingress(bridge, port, vec![]), None);
    assert_eq!(ingress(bridge, port, vec![service(20)]), None);
    assert_eq!(ingress(bridge, port, vec![VlanTag::new(20)]), Some(vec![VlanTag::new(20)]));
}

#[test]
fn a_bridge_that_does_not_filter_leaves_tags_alone() {
    let lab = lab(false);
    let host = &lab.lab.hosts["h"];
    let (bridge, port) = (host.interface("br0").unwrap(), host.interface("p1").unwrap());
    for tags in [vec![], vec![VlanTag::new(30)], vec![service(7)]] {
        assert_eq!(ingress(bridge, port, tags.clone()), Some(tags.clone()));
        assert_eq!(egress(bridge, port, tags.clone()), Some(tags));
    }
}

#[test]
fn a_vlan_device_takes_its_own_tag_from_the_device_below_it() {
    let mut lab = Build::default();
    lab.host("h", false).nic("h", "eth0", &[]).nic("h", "eth1", &[]).vlan("h", "eth0", 10, &[]);
    let host = &lab.lab.hosts["h"];
    let taken = |below: &str, tags: &[VlanTag]| {
        device(host, host.interface(below).unwrap(), tags).map(|i| i.name.to_string())
    };
    assert_eq!(taken("eth0", &[VlanTag::new(10)]).as_deref(), Some("eth0.10"));
    assert_eq!(taken("eth1", &[VlanTag::new(10)]), None);
    assert_eq!(taken("eth0", &[VlanTag::new(11)]), None);
    assert_eq!(taken("eth0", &[service(10)]), None);
    assert_eq!(taken("eth0", &[]), None);
}
