//! Which port a bridge sends a frame to (`br_handle_frame_finish`).

use crate::addr::{Family, Mac};
use crate::engine::stepper::tests::build::Build;
use crate::model::{BridgePort, BridgeVlan, FdbEntry, InterfaceKind, Stage, VlanTag};
use crate::semantics::br_netfilter::filters;
use crate::semantics::bridge::towards;

/// Hosts a, b and c behind ports p1, p2 and p3 of a bridge.
fn switched() -> Build {
    let mut lab = Build::default();
    for name in ["a", "b", "c"] {
        lab.host(name, false).nic(name, "eth0", &[]);
    }
    lab.host("hv", false).bridge("hv", "br0", &[], &["p1", "p2", "p3"]);
    for (name, port) in [("a", "p1"), ("b", "p2"), ("c", "p3")] {
        lab.link(&[(name, "eth0"), ("hv", port)]);
    }
    lab
}

fn mac_of(lab: &Build, host: &str) -> Mac {
    lab.lab.hosts[host].interface("eth0").unwrap().mac.unwrap()
}

fn sent(lab: &Build, from: Option<&str>, mac: Mac, tags: &[VlanTag]) -> String {
    let host = &lab.lab.hosts["hv"];
    let from = from.map(|p| host.interface(p).unwrap());
    match towards(&lab.lab, host, host.interface("br0").unwrap(), from, mac, tags) {
        Ok(ports) => ports.iter().map(|p| p.name.to_string()).collect::<Vec<_>>().join(" "),
        Err(Stage::Unmodelled(_)) => "open".into(),
        Err(stage) => stage.to_string(),
    }
}

fn entry(mac: Mac, port: &str, fixed: bool) -> FdbEntry {
    FdbEntry {
        mac,
        interface: port.into(),
        master: Some("br0".into()),
        destination: None,
        port: None,
        vni: None,
        vlan: None,
        fixed,
        local: false,
    }
}

const STRANGER: Mac = Mac([2, 9, 9, 9, 9, 9]);

#[test]
fn a_frame_leaves_by_the_port_that_leads_to_its_receiver() {
    let mut lab = switched();
    let (a, b) = (mac_of(&lab, "a"), mac_of(&lab, "b"));
    assert_eq!(sent(&lab, Some("p1"), b, &[]), "p2");
    assert_eq!(sent(&lab, None, b, &[]), "p2");
    assert_eq!(sent(&lab, Some("p1"), a, &[]), "bridge-no-port", "back where it came from");
    assert_eq!(sent(&lab, Some("p1"), STRANGER, &[]), "not-my-mac", "flooded, and nobody's");
    let port = |lab: &mut Build, name: &str, set: fn(&mut BridgePort)| {
        lab.change("hv", name, |i| set(i.port.as_mut().unwrap()));
    };
    port(&mut lab, "p1", |p| p.hairpin = true);
    assert_eq!(sent(&lab, Some("p1"), a, &[]), "p1");
    port(&mut lab, "p1", |p| p.isolated = true);
    assert_eq!(sent(&lab, Some("p1"), b, &[]), "p2");
    port(&mut lab, "p2", |p| p.isolated = true);
    assert_eq!(sent(&lab, Some("p1"), b, &[]), "bridge-no-port");
    assert_eq!(sent(&lab, Some("p3"), b, &[]), "p2");
    assert_eq!(sent(&lab, None, b, &[]), "p2");
    port(&mut lab, "p2", |p| p.forwarding = false);
    assert_eq!(sent(&lab, Some("p3"), b, &[]), "not-my-mac");
}

#[test]
fn a_port_that_is_not_flooded_gets_what_is_known_to_be_behind_it() {
    let mut lab = switched();
    let b = mac_of(&lab, "b");
    lab.change("hv", "p2", |i| i.port.as_mut().unwrap().flood = false);
    assert_eq!(sent(&lab, Some("p1"), b, &[]), "open", "it may have learned");
    lab.change("hv", "p2", |i| i.port.as_mut().unwrap().learning = false);
    assert_eq!(sent(&lab, Some("p1"), b, &[]), "bridge-no-port");
    lab.get("hv").fdb.push(entry(b, "p3", false));
    assert_eq!(sent(&lab, Some("p1"), b, &[]), "bridge-no-port", "known elsewhere");
    lab.get("hv").fdb[0].interface = "p2".into();
    assert_eq!(sent(&lab, Some("p1"), b, &[]), "p2");
}

#[test]
fn an_entry_set_by_hand_comes_before_whoever_is_there() {
    let mut lab = switched();
    let b = mac_of(&lab, "b");
    lab.get("hv").fdb.push(entry(b, "p3", true));
    assert_eq!(sent(&lab, Some("p1"), b, &[]), "p3");
    assert_eq!(sent(&lab, Some("p3"), b, &[]), "bridge-no-port");
    let with = |change: fn(&mut FdbEntry)| {
        let mut lab = switched();
        lab.get("hv").fdb.push(entry(b, "p3", true));
        change(&mut lab.get("hv").fdb[0]);
        sent(&lab, Some("p1"), b, &[])
    };
    assert_eq!(with(|e| e.local = true), "p2");
    assert_eq!(with(|e| e.master = Some("br1".into())), "p2");
    assert_eq!(with(|e| e.mac = STRANGER), "p2");
    assert_eq!(with(|e| e.vlan = Some(7)), "p3", "the frame has no VLAN inside");
    assert_eq!(with(|e| e.fixed = false), "p2", "learned, and wrong");
    let mut lab = switched();
    lab.get("hv").fdb.push(entry(STRANGER, "p3", false));
    assert_eq!(sent(&lab, Some("p1"), STRANGER, &[]), "p3");
    assert_eq!(sent(&lab, Some("p3"), STRANGER, &[]), "not-my-mac");
}

#[test]
fn an_entry_of_a_vlan_is_for_frames_of_it() {
    let mut lab = switched();
    let b = mac_of(&lab, "b");
    lab.change("hv", "br0", |i| {
        if let InterfaceKind::Bridge(settings) = &mut i.kind {
            settings.vlan_filtering = true;
        }
    });
    for port in ["p1", "p2", "p3"] {
        let vlan = |id| BridgeVlan { id, pvid: id == 1, untagged: true };
        lab.change("hv", port, |i| i.vlans = vec![vlan(1), vlan(7)]);
    }
    lab.get("hv").fdb.push(FdbEntry { vlan: Some(7), ..entry(b, "p3", true) });
    assert_eq!(sent(&lab, Some("p1"), b, &[VlanTag::new(1)]), "p2");
    assert_eq!(sent(&lab, Some("p1"), b, &[VlanTag::new(7)]), "p3");
    assert_eq!(sent(&lab, Some("p1"), b, &[VlanTag::new(8)]), "bridge-no-port", "no port is in it");
}

#[test]
fn a_frame_to_many_goes_to_the_one_port_there_is() {
    let group = Mac([1, 0, 0x5e, 0, 0, 1]);
    let mut lab = switched();
    assert_eq!(sent(&lab, Some("p1"), group, &[]), "open");
    lab.change("hv", "p3", |i| i.up = false);
    assert_eq!(sent(&lab, Some("p1"), group, &[]), "p2");
    assert_eq!(sent(&lab, None, group, &[]), "open");
    lab.change("hv", "p2", |i| i.up = false);
    assert_eq!(sent(&lab, Some("p1"), group, &[]), "bridge-no-port");
    assert_eq!(sent(&lab, None, group, &[]), "p1");
}

#[test]
fn br_netfilter_is_on_if_a_setting_says_so_and_off_if_all_settings_are_told_without() {
    let told = |settings: &[(&str, &str)], own: bool, rules: bool, family| {
        let mut lab = switched();
        for (key, value) in settings {
            lab.get("hv").sysctls.0.insert((*key).into(), (*value).into());
        }
        lab.change("hv", "br0", |i| {
            if let InterfaceKind::Bridge(settings) = &mut i.kind {
                settings.nf_call_iptables = own;
            }
        });
        if rules {
            lab.rules("hv", "*filter\n:FORWARD ACCEPT");
        }
        let host = &lab.lab.hosts["hv"];
        filters(host, host.interface("br0").unwrap(), family)
    };
    let (v4, v6) = (Family::Ipv4, Family::Ipv6);
    let key = "net.bridge.bridge-nf-call-iptables";
    assert_eq!(told(&[(key, "1")], false, true, v4), Some(true));
    assert_eq!(told(&[(key, "0")], false, true, v4), Some(false));
    assert_eq!(told(&[(key, "0")], true, true, v4), Some(true));
    assert_eq!(told(&[(key, "1")], true, true, v6), Some(false), "the other family's is missing");
    assert_eq!(told(&[("net.bridge.bridge-nf-call-ip6tables", "1")], false, true, v6), Some(true));
    assert_eq!(told(&[], false, true, v4), None, "nobody has told");
    assert_eq!(told(&[], false, false, v4), Some(false), "nothing would see it");
    assert_eq!(told(&[("kernel.ostype", "Linux")], false, true, v4), Some(false), "all settings are told");
    let lab = switched();
    let host = &lab.lab.hosts["hv"];
    assert_eq!(filters(host, host.interface("p1").unwrap(), v4), Some(false));
}
