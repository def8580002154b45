//! Which source address a host picks: RFC 6724 and `inet_select_addr`.

use std::net::Ipv6Addr;

use crate::engine::stepper::tests::build::Build;
use crate::model::{Address, InterfaceKind, Scope};
use crate::semantics::source::{for_interface_v4, for_interface_v6};

fn with(addresses: &[&str]) -> Build {
    let mut lab = Build::default();
    lab.host("h", false).nic("h", "eth0", addresses).nic("h", "eth1", &[]);
    lab
}

fn chosen(lab: &Build, dst: &str) -> String {
    let found = for_interface_v6(&lab.lab.hosts["h"], "eth0", dst.parse().unwrap());
    found.map_or("none".to_owned(), |a: Ipv6Addr| a.to_string())
}

fn v4(lab: &Build, near: Option<&str>, scope: Scope) -> String {
    let near = near.map(|a| a.parse().unwrap());
    let found = for_interface_v4(&lab.lab.hosts["h"], "eth0", near, scope);
    found.map_or("none".to_owned(), |a| a.to_string())
}

#[test]
fn an_address_of_the_same_label_comes_before_a_closer_one() {
    for (dst, closer, same) in [
        // 2002::/16 is 6to4, 2001::/32 Teredo, 2001:10::/28 ORCHID, 3ffe::/16 the old 6bone.
        ("2003::1", "2002:9::1", "8000::1"),
        ("2001:1::1", "2001:0:9::1", "8000::1"),
        ("2001:db8::1", "2001:0:9::1", "3000::1"),
        ("2001:20::1", "2001:1f::1", "8000::1"),
        ("2001:f::1", "2001:10::1", "8000::1"),
        ("2001:1f::1", "2001:20::1", "2001:10::1"),
        ("3ffd::1", "3ffe:1::1", "8000::1"),
        ("3fff::1", "3ffe:1::1", "8000::1"),
        ("f800::1", "fd00::1", "8000::1"),
        ("fe00::1", "fd00::1", "8000::1"),
        ("::1:0:1", "::9", "8000::1"),
        ("::fffe:0:1", "::ffff:1.2.3.4", "8000::1"),
        ("::1:0:0:1", "::ffff:1.2.3.4", "8000::1"),
        ("fd00::1", "fc00::1", "fd80::1"),
        ("2002::1", "2003::1", "2002:8000::1"),
    ] {
        for addresses in [[closer, same], [same, closer]] {
            let lab = with(&addresses.map(|a| format!("{a}/128")).each_ref().map(String::as_str));
            assert_eq!(chosen(&lab, dst), same, "{dst} {addresses:?}");
        }
    }
}

#[test]
fn the_longer_common_prefix_decides_as_far_as_the_address_has_one() {
    for (dst, addresses, best) in [
        ("2001:db8::1", ["2001:db9::1/64", "2001:db8:1::1/64"], "2001:db8:1::1"),
        ("2001:db8::1", ["2001:db8:1::1/64", "2001:db9::1/64"], "2001:db8:1::1"),
        ("2001:db8::4", ["2001:db8::5/32", "2001:db8::6/128"], "2001:db8::6"),
        ("2001:db8::4", ["2001:db8::6/128", "2001:db8::5/32"], "2001:db8::6"),
        ("2001:db8::4", ["2001:db8::6/128", "2001:db8::5/128"], "2001:db8::5"),
        // Of equals the first.
        ("2001:db8::1", ["2001:db8:2::1/32", "2001:db8:3::1/32"], "2001:db8:2::1"),
    ] {
        assert_eq!(chosen(&with(&addresses), dst), best, "{dst} {addresses:?}");
    }
}

#[test]
fn the_smallest_scope_that_reaches_comes_first() {
    for (dst, addresses, best) in [
        ("fe80::9", ["2001:db8::1/64", "fe80::1/64"], "fe80::1"),
        ("febf::9", ["2001:db8::1/64", "fe80::1/64"], "fe80::1"),
        ("2001:db8::9", ["fe80::1/64", "2001:db8:1::1/64"], "2001:db8:1::1"),
        ("2001:db8::9", ["fec0::1/64", "2001:db8:1::1/64"], "2001:db8:1::1"),
        ("fec0::9", ["fe80::1/64", "2001:db8::1/64"], "2001:db8::1"),
        ("fec0::9", ["2001:db8::1/64", "fec0::1/64"], "fec0::1"),
        ("feff::9", ["2001:db8::1/64", "fec0::1/64"], "fec0::1"),
        ("2001:db8::9", ["fe80::1/64", "fec0::1/64"], "fec0::1"),
        ("ff02::1", ["2001:db8::1/64", "fe80::1/64"], "fe80::1"),
        ("ff0e::1", ["fe80::1/64", "2001:db8::1/64"], "2001:db8::1"),
        ("ff05::1", ["2001:db8::1/64", "fec0::1/64"], "fec0::1"),
        // The very address, whatever else holds of it.
        ("2001:db8::1", ["2001:db8::2/64", "2001:db8::1/64"], "2001:db8::1"),
    ] {
        assert_eq!(chosen(&with(&addresses), dst), best, "{dst} {addresses:?}");
    }
}

#[test]
fn addresses_that_are_old_temporary_or_not_yet_ones_own_come_later() {
    let change = |change: fn(&mut Address), temporary_wanted: &str| {
        let mut lab = with(&["2001:db8::1/64", "2001:db8::2/64"]);
        lab.get("h").sysctls.0.insert("net.ipv6.conf.eth0.use_tempaddr".into(), temporary_wanted.into());
        lab.change("h", "eth0", |i| change(&mut i.addresses[0]));
        chosen(&lab, "2001:db9::9")
    };
    assert_eq!(change(|_| (), "0"), "2001:db8::1");
    assert_eq!(change(|a| a.deprecated = true, "0"), "2001:db8::2");
    assert_eq!(change(|a| a.tentative = true, "0"), "2001:db8::2");
    assert_eq!(change(|a| a.temporary = true, "0"), "2001:db8::2");
    assert_eq!(change(|a| a.temporary = true, "1"), "2001:db8::2");
    assert_eq!(change(|a| a.temporary = true, "2"), "2001:db8::1");
    // Nothing is said of the device: all of them.
    let mut lab = with(&["2001:db8::2/64", "2001:db8::1/64"]);
    lab.get("h").sysctls.0.insert("net.ipv6.conf.all.use_tempaddr".into(), "2".into());
    lab.change("h", "eth0", |i| i.addresses[1].temporary = true);
    assert_eq!(chosen(&lab, "2001:db9::9"), "2001:db8::1");
}

#[test]
fn a_closer_address_of_another_device_comes_later_and_of_one_that_is_down_never() {
    let mut lab = Build::default();
    lab.host("h", false).nic("h", "eth0", &["2001:db8::1/64"]).nic(
        "h",
        "eth1",
        &["2001:db9::1/64", "fe80::7/64"],
    );
    assert_eq!(chosen(&lab, "2001:db9::9"), "2001:db8::1");
    lab.change("h", "eth0", |i| i.addresses.clear());
    assert_eq!(chosen(&lab, "2001:db9::9"), "2001:db9::1");
    for confined in ["fe80::9", "ff02::1", "ff0e::1", "::1", "::"] {
        assert_eq!(chosen(&lab, confined), "none", "{confined}");
    }
    lab.change("h", "eth1", |i| i.up = false);
    assert_ne!(chosen(&lab, "2001:db9::9"), "2001:db9::1");
}

#[test]
fn a_vrf_lends_its_ports_only_addresses_of_its_own() {
    let mut lab = Build::default();
    lab.host("h", false).device("h", "red", InterfaceKind::Vrf(10), &["10.8.0.1/32", "2001:db8:8::1/128"]);
    lab.nic("h", "eth0", &[]).nic("h", "eth1", &["10.7.0.1/24", "2001:db8:7::1/64"]);
    lab.nic("h", "eth2", &["10.6.0.1/24", "2001:db8:6::1/64"]);
    lab.change("h", "eth0", |i| i.master = Some("red".into()));
    assert_eq!(v4(&lab, None, Scope::Link), "10.8.0.1");
    assert_eq!(chosen(&lab, "2001:db8:7::9"), "2001:db8:8::1");
    lab.change("h", "red", |i| i.addresses.clear());
    assert_eq!((v4(&lab, None, Scope::Link), chosen(&lab, "2001:db8:7::9")), ("none".into(), "none".into()));
    lab.change("h", "eth2", |i| i.master = Some("red".into()));
    assert_eq!(v4(&lab, None, Scope::Link), "10.6.0.1");
    assert_eq!(chosen(&lab, "2001:db8:7::9"), "2001:db8:6::1");
}

#[test]
fn of_ipv4_the_first_primary_address_in_the_gateways_subnet_is_taken() {
    let mut lab = with(&["10.0.1.1/24", "10.0.2.1/24", "10.0.2.2/24"]);
    assert_eq!(v4(&lab, None, Scope::Global), "10.0.1.1");
    assert_eq!(v4(&lab, Some("10.0.2.9"), Scope::Global), "10.0.2.1");
    assert_eq!(v4(&lab, Some("10.0.3.9"), Scope::Global), "10.0.1.1");
    lab.change("h", "eth0", |i| i.addresses[1].secondary = true);
    assert_eq!(v4(&lab, Some("10.0.2.9"), Scope::Global), "10.0.2.2");
    lab.change("h", "eth0", |i| i.addresses[0].scope = Scope::Link);
    assert_eq!(v4(&lab, None, Scope::Global), "10.0.2.2");
    assert_eq!(v4(&lab, None, Scope::Link), "10.0.1.1");
    lab.change("h", "eth0", |i| i.addresses.clear());
    assert_eq!(v4(&lab, None, Scope::Link), "none");
    // Another device's, if it reaches further than its link.
    lab.nic("h", "eth2", &["10.6.0.1/24", "10.6.0.2/24"]);
    lab.change("h", "eth2", |i| i.addresses[0].scope = Scope::Link);
    assert_eq!(v4(&lab, None, Scope::Link), "10.6.0.2");
}
