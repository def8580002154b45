//! Who is on a segment, and who answers for an address there.

use std::net::IpAddr;

use crate::addr::Mac;
use crate::engine::stepper::tests::build::{udp, Build};
use crate::model::{
    Address, Bond, Interface, InterfaceKind, MacvlanMode, Neighbour, NeighbourState, Scope, Tunnel,
    TunnelKind, VlanTag,
};
use crate::semantics::segment::{behind, behind_tagged, beyond, hidden, owns_mac, resolve, Resolved};

/// Who gets what a host sends to everybody by a device.
fn reached(lab: &Build, host: &str, device: &str, tags: &[VlanTag]) -> Vec<String> {
    let from = &lab.lab.hosts[host];
    let segment = behind_tagged(&lab.lab, from, from.interface(device).unwrap(), tags);
    let mut all: Vec<String> =
        segment.receivers.iter().map(|r| format!("{}:{}", r.host.name, r.device.name)).collect();
    all.extend(segment.open.then(|| "outside".to_owned()));
    all.extend(segment.unmodelled.map(|_| "open".to_owned()));
    all.sort();
    all
}

/// Hosts a, b and c behind ports p1, p2 and p3 of a bridge.
fn switched() -> Build {
    let mut lab = Build::default();
    for (name, address) in [("a", "10.0.0.1/24"), ("b", "10.0.0.2/24"), ("c", "10.0.0.3/24")] {
        lab.host(name, false).nic(name, "eth0", &[address]);
    }
    lab.host("hv", false).bridge("hv", "br0", &["10.0.0.9/24"], &["p1", "p2", "p3"]);
    for (name, port) in [("a", "p1"), ("b", "p2"), ("c", "p3")] {
        lab.link(&[(name, "eth0"), ("hv", port)]);
    }
    lab
}

#[test]
fn a_frame_to_everybody_comes_to_all_ports_of_a_bridge_but_its_own() {
    let mut lab = switched();
    assert_eq!(reached(&lab, "a", "eth0", &[]), ["b:eth0", "c:eth0", "hv:br0"]);
    assert_eq!(reached(&lab, "hv", "br0", &[]), ["a:eth0", "b:eth0", "c:eth0"]);
    assert_eq!(reached(&lab, "a", "eth0", &[VlanTag::new(5)]), [""; 0], "nobody takes the tag off");
    assert_eq!(reached(&lab, "a", "eth0", &[VlanTag::new(0)]), ["b:eth0", "c:eth0", "hv:br0"]);
    lab.change("hv", "p1", |i| i.port.as_mut().unwrap().hairpin = true);
    assert_eq!(reached(&lab, "a", "eth0", &[]), ["a:eth0", "b:eth0", "c:eth0", "hv:br0"]);
    for port in ["p1", "p2"] {
        lab.change("hv", port, |i| i.port.as_mut().unwrap().isolated = true);
    }
    assert_eq!(reached(&lab, "a", "eth0", &[]), ["c:eth0", "hv:br0"]);
    assert_eq!(reached(&lab, "c", "eth0", &[]), ["a:eth0", "b:eth0", "hv:br0"]);
    lab.change("hv", "p1", |i| i.port.as_mut().unwrap().forwarding = false);
    assert_eq!(reached(&lab, "a", "eth0", &[]), [""; 0], "its port takes nothing in");
    assert_eq!(reached(&lab, "c", "eth0", &[]), ["b:eth0", "hv:br0"]);
    lab.change("hv", "br0", |i| i.up = false);
    assert_eq!(reached(&lab, "c", "eth0", &[]), ["b:eth0"]);
    lab.change("c", "eth0", |i| i.up = false);
    assert_eq!(reached(&lab, "c", "eth0", &[]), [""; 0]);
    let hv = &lab.lab.hosts["hv"];
    let there = beyond(&lab.lab, hv, hv.interface("p2").unwrap(), &[]);
    assert!(there.receivers.is_empty(), "the bridge is down, c too, and a's port is closed");
}

#[test]
fn tags_lead_to_vlan_devices_and_a_vlan_device_puts_its_own_on() {
    let mut lab = Build::default();
    for (name, address) in [("a", "10.0.0.1/24"), ("b", "10.0.0.2/24")] {
        lab.host(name, false).nic(name, "eth0", &[]).vlan(name, "eth0", 7, &[address]);
    }
    lab.vlan("a", "eth0", 8, &[]).link(&[("a", "eth0"), ("b", "eth0")]);
    assert_eq!(reached(&lab, "a", "eth0.7", &[]), ["b:eth0.7"]);
    assert_eq!(reached(&lab, "a", "eth0.8", &[]), [""; 0]);
    assert_eq!(reached(&lab, "a", "eth0", &[]), ["b:eth0"]);
    assert_eq!(reached(&lab, "a", "eth0", &[VlanTag::new(7)]), ["b:eth0.7"]);
    assert_eq!(reached(&lab, "a", "eth0", &[VlanTag::new(7), VlanTag::new(8)]), [""; 0]);
    lab.change("b", "eth0.7", |i| i.up = false);
    assert_eq!(reached(&lab, "a", "eth0.7", &[]), [""; 0]);
}

#[test]
fn a_bond_sends_by_its_active_port_and_takes_nothing_by_a_standby_one() {
    let mut lab = Build::default();
    lab.host("a", false).device(
        "a",
        "bond0",
        InterfaceKind::Bond(Bond { mode: "active-backup".into(), active: Some("e0".into()) }),
        &[],
    );
    for port in ["e0", "e1"] {
        lab.nic("a", port, &[]).change("a", port, |i| i.master = Some("bond0".into()));
    }
    lab.host("b", false).nic("b", "eth0", &[]).host("c", false).nic("c", "eth0", &[]);
    lab.link(&[("a", "e0"), ("b", "eth0")]).link(&[("a", "e1"), ("c", "eth0")]);
    assert_eq!(reached(&lab, "a", "bond0", &[]), ["b:eth0"]);
    assert_eq!(reached(&lab, "b", "eth0", &[]), ["a:bond0"]);
    lab.change("a", "e1", |i| i.standby = true);
    assert_eq!(reached(&lab, "c", "eth0", &[]), [""; 0]);
    let breaks: [fn(&mut Interface); 4] =
        [|i| i.carrier = false, |i| i.up = false, |i| i.standby = true, |i| i.master = None];
    for broken in breaks {
        let mut lab = Build { lab: lab.lab.clone() };
        lab.change("a", "e0", broken);
        assert_eq!(reached(&lab, "a", "bond0", &[]), [""; 0]);
    }
}

#[test]
fn macvlans_that_are_bridged_reach_each_other_and_all_reach_the_wire() {
    let mut lab = Build::default();
    lab.host("a", false).nic("a", "eth0", &[]).host("b", false).nic("b", "eth0", &[]);
    for (name, mode) in
        [("m1", MacvlanMode::Bridge), ("m2", MacvlanMode::Bridge), ("m3", MacvlanMode::Private)]
    {
        lab.device("a", name, InterfaceKind::Macvlan(mode), &[])
            .change("a", name, |i| i.link = Some("eth0".into()));
    }
    lab.link(&[("a", "eth0"), ("b", "eth0")]);
    assert_eq!(reached(&lab, "a", "m1", &[]), ["a:m2", "b:eth0"]);
    assert_eq!(reached(&lab, "a", "m3", &[]), ["b:eth0"]);
    assert_eq!(reached(&lab, "b", "eth0", &[]), ["a:eth0", "a:m1", "a:m2", "a:m3"]);
    lab.change("a", "m1", |i| i.link = None);
    assert_eq!(reached(&lab, "a", "m1", &[]), ["open"], "nobody tells what it sits on");
}

#[test]
fn a_tunnel_reaches_its_kind_at_the_far_end() {
    let mut lab = Build::default();
    let ends = [("a", "10.0.0.1", "10.0.0.2"), ("b", "10.0.0.2", "10.0.0.1")];
    for (name, local, remote) in ends {
        lab.host(name, false).nic(name, "eth0", &[&format!("{local}/24")]);
        let of = |kind, key| Tunnel {
            local: local.parse().ok(),
            remote: remote.parse().ok(),
            key_in: key,
            key_out: key,
            ..Tunnel::new(kind)
        };
        lab.device(name, "tap", InterfaceKind::Tunnel(of(TunnelKind::Gretap, None)), &[]);
        lab.device(name, "keyed", InterfaceKind::Tunnel(of(TunnelKind::Gretap, Some(7))), &[]);
        lab.device(name, "gre", InterfaceKind::Tunnel(of(TunnelKind::Gre, None)), &[]);
    }
    for device in ["tap", "keyed", "gre"] {
        assert_eq!(reached(&lab, "a", device, &[]), [format!("b:{device}")]);
    }
    lab.change("a", "gre", |i| i.kind = InterfaceKind::Tunnel(Tunnel::new(TunnelKind::Gre)));
    assert_eq!(reached(&lab, "a", "gre", &[]), [""; 0], "no end is named");
}

#[test]
fn frames_are_ones_own_by_ones_address_or_that_of_a_port() {
    let lab = switched();
    let hv = &lab.lab.hosts["hv"];
    let (bridge, port) = (hv.interface("br0").unwrap(), hv.interface("p1").unwrap());
    let stranger = Mac([2, 9, 9, 9, 9, 9]);
    assert!(owns_mac(hv, bridge, bridge.mac.unwrap()) && owns_mac(hv, bridge, port.mac.unwrap()));
    assert!(!owns_mac(hv, port, bridge.mac.unwrap()) && owns_mac(hv, port, port.mac.unwrap()));
    assert!(!owns_mac(hv, bridge, stranger) && owns_mac(hv, port, Mac::ZERO));
}

fn found(lab: &Build, next_hop: &str, broadcast: bool) -> Resolved {
    let host = &lab.lab.hosts["a"];
    let to: IpAddr = next_hop.parse().unwrap();
    let packet = udp((if to.is_ipv4() { "10.0.0.1" } else { "fd00::1" }, 1), (next_hop, 2));
    resolve(&lab.lab, host, host.interface("eth0").unwrap(), to, broadcast, &packet)
}

#[test]
fn a_next_hop_is_found_by_its_group_its_entry_or_who_answers() {
    let mut lab = switched();
    let mac =
        |lab: &Build, host: &str| Resolved::Mac(lab.lab.hosts[host].interface("eth0").unwrap().mac.unwrap());
    assert_eq!(found(&lab, "10.0.0.2", false), mac(&lab, "b"));
    assert_eq!(found(&lab, "10.0.0.7", false), Resolved::Nobody);
    assert_eq!(found(&lab, "10.0.0.255", true), Resolved::Mac(Mac::BROADCAST));
    for (group, octets) in [
        ("224.0.0.5", [0x01, 0, 0x5e, 0, 0, 5]),
        ("239.129.2.3", [0x01, 0, 0x5e, 1, 2, 3]),
        ("ff02::1:ff00:9", [0x33, 0x33, 0xff, 0, 0, 9]),
    ] {
        assert_eq!(found(&lab, group, false), Resolved::Mac(Mac(octets)), "{group}");
    }
    let set = Mac([2, 7, 7, 7, 7, 7]);
    for (state, taken) in [
        (NeighbourState::Permanent, true),
        (NeighbourState::Noarp, true),
        (NeighbourState::Stale, false),
        (NeighbourState::Failed, false),
    ] {
        let entry = |mac, interface: &str, proxy| Neighbour {
            address: "10.0.0.2".parse().unwrap(),
            interface: interface.into(),
            mac,
            state,
            proxy,
        };
        lab.get("a").neighbours = vec![entry(Some(set), "eth0", false)];
        let expected = if taken { Resolved::Mac(set) } else { mac(&lab, "b") };
        assert_eq!(found(&lab, "10.0.0.2", false), expected, "{state:?}");
        for other in
            [entry(None, "eth0", false), entry(Some(set), "eth9", false), entry(Some(set), "eth0", true)]
        {
            lab.get("a").neighbours = vec![other];
            assert_eq!(found(&lab, "10.0.0.2", false), mac(&lab, "b"), "{state:?}");
        }
    }
    lab.get("a").neighbours.clear();
    lab.nic("c", "eth1", &["10.0.0.2/24"]);
    let Resolved::Several(both) = found(&lab, "10.0.0.2", false) else { panic!("two have it") };
    assert_eq!(both.len(), 2);
}

#[test]
fn arp_is_answered_as_arp_ignore_says() {
    // 10.0.0.2 is of the device asked, 10.5.0.1 of another, 10.0.0.20 of the host itself.
    for (mode, own, other, inner, far) in [
        ("0", true, true, true, true),
        ("1", true, false, true, true),
        ("2", true, false, true, false),
        ("3", true, true, false, true),
        ("8", false, false, false, false),
    ] {
        let mut lab = switched();
        lab.nic("b", "eth1", &["10.5.0.1/24"])
            .get("b")
            .sysctls
            .0
            .insert("net.ipv4.conf.eth0.arp_ignore".into(), mode.into());
        lab.get("b").interfaces.retain(|i| i.name != "lo");
        let answers = |lab: &Build, address: &str| matches!(found(lab, address, false), Resolved::Mac(_));
        assert_eq!(answers(&lab, "10.0.0.2"), own, "{mode}");
        assert_eq!(answers(&lab, "10.5.0.1"), other, "{mode}");
        lab.change("b", "eth0", |i| {
            let more = Address {
                address: "10.0.0.20".parse().unwrap(),
                scope: Scope::Host,
                ..i.addresses[0].clone()
            };
            i.addresses.push(more);
        });
        lab.route("b", "local 10.0.0.20/32 dev eth0 table 255");
        assert_eq!(answers(&lab, "10.0.0.20"), inner, "{mode}");
        // Somebody from another net asks.
        lab.change("a", "eth0", |i| i.addresses[0].address = "10.9.0.1".parse().unwrap());
        assert_eq!(answers(&lab, "10.0.0.2"), far, "{mode}, asked from afar");
    }
}

#[test]
fn who_is_asked_for_an_address_of_ipv6_answers_for_the_device_asked() {
    let mut lab = switched();
    lab.nic("b", "eth1", &["fd05::1/64"]);
    for (host, address) in [("a", "fd00::1"), ("b", "fd00::2")] {
        lab.change(host, "eth0", |i| {
            let more =
                Address { address: address.parse().unwrap(), prefix_len: 64, ..i.addresses[0].clone() };
            i.addresses.push(more);
        });
    }
    assert!(matches!(found(&lab, "fd00::2", false), Resolved::Mac(_)));
    assert_eq!(found(&lab, "fd05::1", false), Resolved::Nobody);
    // Proxies answer if the host is set to, and others may be such.
    let proxy = Neighbour {
        address: "fd00::77".parse().unwrap(),
        interface: "eth0".into(),
        mac: None,
        state: NeighbourState::None,
        proxy: true,
    };
    lab.get("b").neighbours.push(proxy);
    assert_eq!(found(&lab, "fd00::77", false), Resolved::Nobody);
    lab.get("b").sysctls.0.insert("net.ipv6.conf.eth0.proxy_ndp".into(), "1".into());
    assert!(matches!(found(&lab, "fd00::77", false), Resolved::Mac(_)));
    assert!(matches!(found(&lab, "fd00::78", false), Resolved::Unknown(_)), "what is set is not all shown");
    lab.change("b", "eth0", |i| i.arp = false);
    assert!(!matches!(found(&lab, "fd00::2", false), Resolved::Mac(_)));
}

#[test]
fn a_router_that_proxies_answers_for_what_it_forwards_elsewhere() {
    let proxied = |set: &str, elsewhere: bool| {
        let mut lab = Build::line();
        lab.get("router").sysctls.0.insert("net.ipv4.conf.eth0.proxy_arp".into(), set.into());
        let device = if elsewhere { "eth1" } else { "eth0" };
        lab.route("router", &format!("10.0.1.64/26 dev {device}"));
        let client = &lab.lab.hosts["client"];
        let packet = udp(("10.0.1.2", 1), ("10.0.1.70", 2));
        resolve(&lab.lab, client, client.interface("eth0").unwrap(), packet.dst, false, &packet)
    };
    assert!(matches!(proxied("1", true), Resolved::Mac(_)));
    assert_eq!(proxied("1", false), Resolved::Nobody);
    assert_eq!(proxied("0", true), Resolved::Nobody);
    let lab = Build::line();
    let router = &lab.lab.hosts["router"];
    assert_eq!(behind(&lab.lab, router, router.interface("eth1").unwrap()).receivers.len(), 1);
}

#[test]
fn a_device_of_an_unknown_kind_may_hide_a_receiver_unless_it_is_a_tunnel() {
    for (kind, hides) in [("macvtap", true), ("ipvlan", true), ("vti", false), ("xfrm", false)] {
        let mut lab = switched();
        lab.device("a", "other0", InterfaceKind::Other(kind.into()), &[]);
        let told = hidden(&lab.lab, &lab.lab.hosts["a"]);
        assert_eq!(told.is_some_and(|why| why.contains("other0")), hides, "{kind}");
    }
}

#[test]
fn whether_a_filter_of_arp_lets_an_answer_out_is_open_where_the_way_back_is() {
    for (own, resolved) in [("", "10.0.0.2"), ("nexthop object 7", "?")] {
        let mut lab = switched();
        lab.sysctl("b", "net.ipv4.conf.all.arp_filter", 1);
        for route in &mut lab.get("b").routes {
            route.unmodelled = own.into();
        }
        let found = found(&lab, "10.0.0.2", false);
        assert_eq!(matches!(found, Resolved::Mac(_)), resolved != "?", "{found:?}");
        assert_eq!(matches!(found, Resolved::Unknown(_)), resolved == "?", "{found:?}");
    }
}

#[test]
fn a_frame_is_for_one_for_some_or_for_all_by_its_address() {
    use crate::model::PacketType;
    use crate::semantics::matches::packet_type;
    for (destination, kind) in [
        (None, PacketType::Unicast),
        (Some([2, 0, 0, 0, 0, 1]), PacketType::Unicast),
        (Some([0xff; 6]), PacketType::Broadcast),
        (Some([0x33, 0x33, 0, 0, 0, 1]), PacketType::Multicast),
        (Some([1, 0, 0x5e, 0, 0, 1]), PacketType::Multicast),
    ] {
        assert_eq!(packet_type(destination.map(Mac)), kind, "{destination:?}");
    }
}
