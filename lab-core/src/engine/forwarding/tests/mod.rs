mod brute;
mod priorities;
mod random;

use super::*;

/// A ring of devices, each with a port `next` to the one after it, a port
/// `back` to the one before it, and a port `host`.
fn ring(devices: usize) -> Topology {
    let mut builder = TopologyBuilder::default();
    let names: Vec<DeviceId> = (0..devices).map(|n| builder.device(&format!("d{n}"))).collect();
    for (n, device) in names.iter().enumerate() {
        let after = names[(n + 1) % devices];
        let (out, into) = (builder.port(*device, "next"), builder.port(after, "back"));
        builder.link(out, into, &[]).unwrap();
        builder.link(into, out, &[]).unwrap();
        builder.port(*device, "host");
    }
    builder.build()
}

fn port(topology: &Topology, device: usize, name: &str) -> PortId {
    (0..topology.ports() as u32)
        .map(PortId)
        .find(|p| topology.device_of(*p).index() == device && topology.port_name(*p) == name)
        .unwrap()
}

fn prefix(text: &str) -> Prefix {
    text.parse::<ipnet::Ipv4Net>().unwrap().into()
}

fn route(topology: &Topology, device: usize, to: &str, name: &str) -> Route {
    let prefix = prefix(to);
    Route {
        device: DeviceId(device as u32),
        prefix,
        port: port(topology, device, name),
        priority: prefix.len().into(),
    }
}

#[test]
fn a_ring_loops_once_it_is_closed() {
    let topology = ring(4);
    let mut network = Network::new(topology.clone());
    for device in 0..3 {
        let report = network.insert(route(&topology, device, "10.0.0.0/8", "next")).unwrap();
        assert_eq!(report, Report { changed: 1, found: 0, loops: 0 });
    }
    let last = route(&topology, 3, "10.1.0.0/16", "next");
    assert_eq!(network.insert(last).unwrap(), Report { changed: 1, found: 1, loops: 1 });
    assert_eq!(network.loops().next().unwrap().range(), prefix("10.1.0.0/16").range());

    // A host route at one device takes its address out of the loop.
    let host = route(&topology, 1, "10.1.2.3/32", "host");
    let report = network.insert(host).unwrap();
    assert_eq!((report.changed, report.loops), (1, 2));
    assert!(network.loops().all(|l| !l.range().contains("10.1.2.3".parse().unwrap())));
    assert_eq!(network.remove(host).unwrap().loops, 1);
    assert_eq!(network.remove(last).unwrap().loops, 0);
    assert_eq!(network.ranges().count(), 3);
}

#[test]
fn what_came_in_is_not_sent_back_unless_told() {
    for hairpin in [false, true] {
        let mut builder = TopologyBuilder::default();
        let (a, b) = (builder.device("a"), builder.device("b"));
        let (at_a, at_b) = (builder.port(a, "p"), builder.port(b, "p"));
        builder.link(at_a, at_b, &[]).unwrap();
        builder.link(at_b, at_a, &[]).unwrap();
        builder.hairpin(hairpin);
        let mut network = Network::new(builder.build());
        let mut loops = 0;
        for (device, port) in [(a, at_a), (b, at_b)] {
            let prefix = prefix("0.0.0.0/0");
            loops = network.insert(Route { device, prefix, port, priority: 0 }).unwrap().loops;
        }
        assert_eq!(loops, usize::from(hairpin));
    }
}

#[test]
fn what_leaves_by_a_port_arrives_at_each_end_of_its_links() {
    let mut builder = TopologyBuilder::default();
    let devices = ["a", "b", "c"].map(|name| builder.device(name));
    let ports = devices.map(|device| builder.port(device, "p"));
    for from in ports {
        for to in ports.into_iter().filter(|to| *to != from) {
            builder.link(from, to, &[]).unwrap();
        }
    }
    builder.hairpin(true);
    let mut network = Network::new(builder.build());
    let mut found = Vec::new();
    for (device, port) in devices.into_iter().zip(ports) {
        let prefix = prefix("10.0.0.0/8");
        found.push(network.insert(Route { device, prefix, port, priority: 8 }).unwrap().loops);
    }
    // Each two, and all three in either order.
    assert_eq!(found, [0, 1, 5]);
}

#[test]
fn an_acl_cuts_a_loop_for_what_it_denies() {
    let mut builder = TopologyBuilder::default();
    let (a, b) = (builder.device("a"), builder.device("b"));
    let (at_a, at_b) = (builder.port(a, "p"), builder.port(b, "p"));
    let acl = builder.acl("web");
    builder.link(at_a, at_b, &[acl]).unwrap();
    builder.link(at_b, at_a, &[]).unwrap();
    builder.hairpin(true);
    let mut network = Network::new(builder.build());
    for (device, port) in [(a, at_a), (b, at_b)] {
        network.insert(Route { device, prefix: prefix("10.0.0.0/8"), port, priority: 8 }).unwrap();
    }
    assert_eq!(network.loops().count(), 0);

    let elsewhere = Addresses::from(prefix("11.0.0.0/8"));
    let far =
        AclRule { priority: 9, permit: true, headers: Headers { destination: elsewhere, ..Headers::ALL } };
    assert_eq!(network.insert_acl(acl, far).unwrap().loops, 0);
    let web = Headers { protocol: (6, 6), destination_port: (80, 80), ..Headers::ALL };
    let permit = AclRule { priority: 5, permit: true, headers: web };
    assert_eq!(network.insert_acl(acl, permit).unwrap(), Report { changed: 0, found: 1, loops: 1 });
    let headers = network.loops().next().unwrap().headers();
    assert_eq!(headers, [Headers { destination: prefix("10.0.0.0/8").into(), ..web }]);

    let deny = AclRule { priority: 7, permit: false, headers: Headers { protocol: (0, 16), ..Headers::ALL } };
    assert_eq!(network.insert_acl(acl, deny).unwrap().loops, 0);
    assert_eq!(network.remove_acl(acl, &deny).unwrap().loops, 1);
    let changes = [Change::InsertAcl(acl, deny), Change::InsertAcl(acl, far)];
    assert_eq!(network.apply(&changes).unwrap(), Report { changed: 0, found: 0, loops: 0 });
    let changes = [Change::RemoveAcl(acl, far), Change::RemoveAcl(acl, deny)];
    assert_eq!(network.apply(&changes).unwrap(), Report { changed: 0, found: 1, loops: 1 });
    assert_eq!(network.remove_acl(acl, &deny), Err(Error::NoRule));
}

#[test]
fn nonsense_is_refused() {
    let topology = ring(3);
    let mut network = Network::new(topology.clone());
    let good = route(&topology, 0, "10.0.0.0/8", "next");
    assert_eq!(network.remove(good), Err(Error::NoRule));
    let strange = Route { device: DeviceId(9), ..good };
    assert_eq!(network.insert(strange), Err(Error::Device(DeviceId(9))));
    let foreign = Route { port: port(&topology, 1, "next"), ..good };
    assert_eq!(network.insert(foreign), Err(Error::Port(foreign.port)));
    assert!(Prefix::new("1.2.3.4".parse().unwrap(), 33).is_err());
    let error = network.apply(&[Change::Insert(good), Change::Insert(strange), Change::Insert(good)]);
    assert_eq!((error, network.rules()), (Err(Error::Device(DeviceId(9))), 1));
    let linked = port(&topology, 0, "next");
    assert_eq!(Reachability::new(&network, &[linked]).err(), Some(Error::Edge(linked)));
    let mut reach = Reachability::new(&network, &[port(&topology, 0, "host")]).unwrap();
    assert_eq!(reach.follow(&Network::new(ring(4))).err(), Some(Error::Topology));
    // As many devices and ports, and no links.
    let mut apart = TopologyBuilder::default();
    for device in ["d0", "d1", "d2"] {
        let device = apart.device(device);
        for port in ["next", "back", "host"] {
            apart.port(device, port);
        }
    }
    assert_eq!(reach.follow(&Network::new(apart.build())).err(), Some(Error::Topology));

    let mut builder = TopologyBuilder::default();
    let (a, b) = (builder.device("a"), builder.device("b"));
    let (vlan, member, other) = (builder.port(a, "vlan1"), builder.port(a, "p"), builder.port(b, "p"));
    assert_eq!(builder.group(vlan, &[other]), Err(Error::Port(other)));
    builder.group(vlan, &[member]).unwrap();
    assert_eq!(builder.link(vlan, other, &[]), Err(Error::Group(vlan)));
    assert_eq!(builder.group(member, &[vlan]), Err(Error::Group(vlan)));
    // A member has no members, nor has what is linked.
    let (inner, linked) = (builder.port(a, "q"), builder.port(a, "r"));
    assert_eq!(builder.group(member, &[inner]), Err(Error::Group(member)));
    builder.link(linked, other, &[]).unwrap();
    assert_eq!(builder.group(linked, &[inner]), Err(Error::Group(linked)));
    assert_eq!(builder.group(inner, &[linked]), Ok(()));
}

#[test]
fn ranges_fall_into_the_fewest_prefixes() {
    let whole = AddressRange { first: 0, last: u32::MAX };
    assert_eq!(whole.prefixes().collect::<Vec<_>>(), [prefix("0.0.0.0/0")]);
    let odd = AddressRange { first: 1, last: 4 };
    let parts: Vec<String> = odd.prefixes().map(|p| p.to_string()).collect();
    assert_eq!(parts, ["0.0.0.1/32", "0.0.0.2/31", "0.0.0.4/32"]);
    let top = AddressRange { first: u32::MAX, last: u32::MAX };
    assert_eq!(top.prefixes().count(), 1);
    let most = AddressRange { first: 1, last: u32::MAX - 1 };
    assert_eq!(most.prefixes().count(), 62);
}

#[test]
fn what_is_asked_about_is_told_by_its_name() {
    let mut builder = TopologyBuilder::default();
    let (a, b) = (builder.device("a"), builder.device("b"));
    let acls = [builder.acl("web"), builder.acl("mail")];
    let topology = builder.build();
    assert_eq!([a, b].map(|device| topology.device_name(device)), ["a", "b"]);
    assert_eq!(acls.map(|acl| topology.acl_name(acl)), ["web", "mail"]);
    assert_eq!((topology.device_name(DeviceId(9)), topology.acl_name(AclId(9))), ("", ""));
    assert_eq!(prefix("10.1.0.0/16").range().to_string(), "10.1.0.0-10.1.255.255");
}

#[test]
fn an_access_list_permits_what_its_first_rule_does() {
    let mut builder = TopologyBuilder::default();
    let (web, all) = (builder.acl("web"), builder.acl("all"));
    let mut network = Network::new(builder.build());
    let rule = |priority, permit, low, high| {
        let headers = Headers { destination_port: (low, high), ..Headers::ALL };
        AclRule { priority, permit, headers }
    };
    network.insert_acl(web, rule(5, true, 80, 90)).unwrap();
    network.insert_acl(web, rule(6, false, 85, 85)).unwrap();
    network.insert_acl(all, rule(5, true, 0, 65535)).unwrap();
    let to = |destination_port| Header {
        protocol: 6,
        source: "10.0.0.1".parse().unwrap(),
        source_port: 1,
        destination: "10.0.0.2".parse().unwrap(),
        destination_port,
    };
    for (port, permitted) in [(79, false), (80, true), (85, false), (90, true)] {
        assert_eq!(network.permits(web, &to(port)), Some(permitted), "{port}");
        assert_eq!(network.permits(all, &to(port)), Some(true), "{port}");
    }
    assert_eq!(network.permits(AclId(2), &to(80)), None, "of another topology");
    let range = prefix("10.0.0.0/8").range();
    let ports = |acls: &[AclId]| -> Vec<(u16, u16)> {
        let mut ports: Vec<_> =
            network.headers(range, acls).iter().map(|headers| headers.destination_port).collect();
        ports.sort_unstable();
        ports
    };
    assert_eq!(ports(&[web, all]), [(80, 84), (86, 90)]);
    assert_eq!(ports(&[all]), [(0, 65535)]);
    assert_eq!(ports(&[web, AclId(2)]), [(80, 84), (86, 90)]);
}

#[test]
fn what_changed_between_edges_is_counted_by_pairs() {
    let topology = ring(3);
    let mut network = Network::new(topology.clone());
    let hosts: Vec<PortId> = (0..3).map(|device| port(&topology, device, "host")).collect();
    let mut reach = Reachability::new(&network, &hosts).unwrap();
    let nothing = reach.follow(&network).unwrap();
    assert!(nothing.is_empty());
    assert_eq!((nothing.len(), reach.all().ranges()), (0, 0));
    network.insert(route(&topology, 0, "10.0.0.0/8", "host")).unwrap();
    network.insert(route(&topology, 1, "10.0.0.0/8", "back")).unwrap();
    let changes = reach.follow(&network).unwrap();
    assert!(!changes.is_empty());
    assert_eq!(changes.len(), changes.iter().count());
    assert_eq!((changes.len(), reach.all().ranges()), (1, 1));
    network.insert(route(&topology, 2, "10.0.0.0/9", "next")).unwrap();
    assert_eq!((reach.follow(&network).unwrap().len(), reach.all().ranges()), (1, 2));
}

#[test]
fn bytes_of_a_key_count_each() {
    use std::hash::Hasher;
    let hash = |bytes: &[u8]| {
        let mut hasher = atoms::KeyHasher::default();
        hasher.write(bytes);
        hasher.finish()
    };
    let mut hashes: Vec<u64> = [&[][..], &[1], &[2], &[1, 2], &[2, 1]].map(hash).to_vec();
    hashes.sort_unstable();
    hashes.dedup();
    assert_eq!(hashes.len(), 5);
}

#[test]
fn what_gets_through_an_access_list_has_changed_with_each_of_its_rules() {
    let mut builder = TopologyBuilder::default();
    let (a, b) = (builder.device("a"), builder.device("b"));
    let (at_a, at_b) = (builder.port(a, "p"), builder.port(b, "p"));
    let hosts = [builder.port(a, "host"), builder.port(b, "host")];
    let acl = builder.acl("web");
    builder.link(at_a, at_b, &[acl]).unwrap();
    let mut network = Network::new(builder.build());
    for (device, port) in [(a, at_a), (b, hosts[1])] {
        network.insert(Route { device, prefix: prefix("10.0.0.0/8"), port, priority: 8 }).unwrap();
    }
    let mut reach = Reachability::new(&network, &hosts).unwrap();
    for port in 80..85 {
        let headers = Headers { destination_port: (port, port), ..Headers::ALL };
        network.insert_acl(acl, AclRule { priority: port.into(), permit: true, headers }).unwrap();
        let changes = reach.follow(&network).unwrap();
        let told: Vec<_> = changes.iter().map(|c| (c.from, c.to, c.refiltered.len())).collect();
        assert_eq!(told, [(hosts[0], hosts[1], 1)], "{port}");
        assert!(reach.follow(&network).unwrap().is_empty(), "{port}");
    }
}
