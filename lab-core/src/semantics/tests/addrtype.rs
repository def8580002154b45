//! What addresses are to a host (`fib_frontend.c`, `xt_addrtype.c`, `nft_fib_ipv6.c`).

use crate::engine::stepper::tests::build::Build;
use crate::model::{AddressType, InterfaceKind, RouteKind};
use crate::semantics::addrtype::{address_type, of_device};

fn built() -> Build {
    let mut lab = Build::default();
    lab.host("h", true).nic("h", "eth0", &["10.0.0.1/24", "fd00::1/64"]).nic(
        "h",
        "eth1",
        &["10.1.0.1/24", "fd01::1/64"],
    );
    lab.route("h", "anycast fd00::/128 dev eth0 table 255");
    for (kind, net) in
        [("blackhole", "10.2.0.0/16"), ("prohibit", "10.3.0.0/16"), ("unreachable", "10.4.0.0/16")]
    {
        lab.route("h", &format!("{kind} {net} table 255"));
    }
    for (kind, net) in [
        ("blackhole", "2001:db8:2::/48"),
        ("prohibit", "2001:db8:3::/48"),
        ("unreachable", "2001:db8:4::/48"),
    ] {
        lab.route("h", &format!("{kind} {net}"));
    }
    lab
}

#[test]
fn an_address_is_what_its_route_leads_to() {
    let lab = built();
    let host = &lab.lab.hosts["h"];
    for (address, device, kind) in [
        ("10.0.0.1", None, AddressType::Local),
        ("10.0.0.1", Some("eth0"), AddressType::Local),
        ("10.0.0.1", Some("eth1"), AddressType::Unicast),
        ("10.0.0.255", None, AddressType::Broadcast),
        ("10.0.0.255", Some("eth1"), AddressType::Unicast),
        ("10.0.0.9", None, AddressType::Unicast),
        ("192.0.2.1", None, AddressType::Unicast),
        ("0.0.0.0", None, AddressType::Broadcast),
        ("255.255.255.255", Some("eth1"), AddressType::Broadcast),
        ("224.0.0.1", None, AddressType::Multicast),
        ("10.2.0.1", None, AddressType::Blackhole),
        ("10.3.0.1", None, AddressType::Prohibit),
        ("10.4.0.1", None, AddressType::Unreachable),
        ("fd00::1", None, AddressType::Local),
        ("fd00::1", Some("eth0"), AddressType::Local),
        ("fd00::1", Some("eth1"), AddressType::Unicast),
        ("fd00::9", Some("eth1"), AddressType::Unicast),
        ("fd00::", None, AddressType::Anycast),
        ("fd01::", None, AddressType::Anycast),
        ("2001:db8:2::1", None, AddressType::Blackhole),
        ("2001:db8:3::1", None, AddressType::Prohibit),
        ("2001:db8:4::1", None, AddressType::Unreachable),
        ("2001:db8:5::1", None, AddressType::Unreachable),
        ("::", None, AddressType::Unreachable),
        ("ff02::1", None, AddressType::Multicast),
    ] {
        assert_eq!(address_type(host, address.parse().unwrap(), device), Ok(kind), "{address} {device:?}");
    }
    // A blackhole in the main table is none to the local one, which is asked alone.
    let mut lab = built();
    lab.route("h", "blackhole 192.0.2.0/24");
    assert_eq!(
        address_type(&lab.lab.hosts["h"], "192.0.2.1".parse().unwrap(), None),
        Ok(AddressType::Unicast)
    );
    lab.route("h", "default via fd00::2 dev eth0");
    let host = &lab.lab.hosts["h"];
    assert_eq!(address_type(host, "::".parse().unwrap(), None), Ok(AddressType::Unspec));
    assert_eq!(address_type(host, "2001:db8:5::1".parse().unwrap(), None), Ok(AddressType::Unicast));
}

#[test]
fn of_a_device_only_its_own_addresses_are_local() {
    let lab = built();
    let host = &lab.lab.hosts["h"];
    for (address, device, kind) in [
        ("fd00::1", "eth0", AddressType::Local),
        ("fd01::1", "eth0", AddressType::Unreachable),
        ("fd00::9", "eth0", AddressType::Unicast),
        ("fd00::9", "eth1", AddressType::Unreachable),
        ("fd00::", "eth0", AddressType::Anycast),
        ("fd01::", "eth1", AddressType::Anycast),
        ("2001:db8:2::1", "eth0", AddressType::Unreachable),
    ] {
        assert_eq!(of_device(host, address.parse().unwrap(), device), Ok(kind), "{address} {device}");
    }
}

#[test]
fn a_device_in_a_vrf_asks_the_vrfs_table() {
    let mut lab = built();
    lab.device("h", "red", InterfaceKind::Vrf(100), &[])
        .change("h", "eth1", |i| i.master = Some("red".into()));
    lab.route("h", "local 10.7.0.1/32 dev eth1 table 100").route("h", "blackhole 10.8.0.0/16 table 100");
    let host = &lab.lab.hosts["h"];
    let of = |address: &str, device| address_type(host, address.parse().unwrap(), device).unwrap();
    assert_eq!(of("10.7.0.1", Some("eth1")), AddressType::Local);
    assert_eq!(of("10.7.0.1", None), AddressType::Unicast);
    assert_eq!(of("10.8.0.1", Some("eth1")), AddressType::Unicast, "what refuses there is no type");
    assert_eq!(of("10.2.0.1", Some("eth0")), AddressType::Blackhole);
    assert_eq!(host.routes.last().unwrap().kind, RouteKind::Blackhole);
}

/// `addrconf_join_anycast`: a link of two has no router's address (RFC 6164).
#[test]
fn the_first_address_of_a_link_of_ipv6_is_its_routers_unless_two_are_all() {
    for (length, kind) in
        [(64, AddressType::Anycast), (126, AddressType::Anycast), (127, AddressType::Unicast)]
    {
        let mut lab = built();
        lab.route("h", &format!("fd0a::/{length} dev eth0"));
        let host = &lab.lab.hosts["h"];
        assert_eq!(address_type(host, "fd0a::".parse().unwrap(), None), Ok(kind), "{length}");
        assert_eq!(
            address_type(host, "fd0a::1".parse().unwrap(), None),
            Ok(AddressType::Unicast),
            "{length}"
        );
    }
}
