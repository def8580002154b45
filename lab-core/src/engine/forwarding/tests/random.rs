//! Random small networks: after every change the engine says what trying
//! everything says.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;

use proptest::prelude::*;

use super::super::*;
use super::brute::Plain;

const PORTS: usize = 4;
const ACLS: usize = 2;

/// A topology by dice: links between ports, some through access lists, and a
/// group at each device if `groups`.
fn topology(devices: usize, dice: &[u8], groups: bool, lists: bool, hairpin: bool) -> Topology {
    let mut builder = TopologyBuilder::default();
    builder.hairpin(hairpin);
    let acls: Vec<AclId> = (0..ACLS).map(|n| builder.acl(&format!("acl{n}"))).collect();
    let mut ports = Vec::new();
    for n in 0..devices {
        let device = builder.device(&format!("d{n}"));
        ports.push((0..PORTS).map(|p| builder.port(device, &format!("p{p}"))).collect::<Vec<_>>());
        builder.port(device, "edge");
        let vlan = builder.port(device, "vlan");
        if groups {
            builder.group(vlan, &ports[n][..3]).unwrap();
        }
    }
    let mut used = BTreeSet::new();
    for dice in dice.chunks_exact(4) {
        let [a, b, which, acl] = [dice[0], dice[1], dice[2], dice[3]].map(usize::from);
        let (from, to) = (ports[a % devices][which % PORTS], ports[b % devices][which / 16 % PORTS]);
        // Without groups and lists the network is to be plain: one link a port.
        if !used.insert(from) && !groups {
            continue;
        }
        let passes: &[AclId] = match acl % 4 {
            0 if lists => &acls[..1],
            1 if lists => &acls[1..],
            2 if lists => &acls[..],
            _ => &[],
        };
        builder.link(from, to, passes).unwrap();
        if which % 3 == 0 && (groups || used.insert(to)) {
            builder.link(to, from, &[]).unwrap();
        }
    }
    builder.build()
}

fn edge(topology: &Topology, device: usize) -> PortId {
    super::port(topology, device, "edge")
}

fn change(topology: &Topology, dice: &[u8], lists: bool) -> Change {
    let [kind, device, place, port, priority, more] =
        [dice[0], dice[1], dice[2], dice[3], dice[4], dice[5]].map(usize::from);
    if lists && kind % 4 == 0 {
        let range = |n: usize| [(0, 0), (0, u16::MAX), (0, 9), (10, u16::MAX)][n % 4];
        let some = |n: usize| {
            let mask = [0u32, 1, 0x2000_0000, 0x2000_0001][n % 4];
            Addresses::masked(
                Ipv4Addr::from_bits((place as u32).wrapping_mul(0x2000_0001)),
                Ipv4Addr::from_bits(mask),
            )
        };
        let headers = Headers {
            protocol: [(6, 6), (0, 16), (0, u8::MAX)][port % 3],
            source: some(more),
            source_port: range(priority),
            destination: some(more / 4),
            destination_port: range(port / 4),
        };
        let rule = AclRule { priority: priority as u32 % 3, permit: more % 3 != 0, headers };
        return Change::InsertAcl(AclId((device % ACLS) as u32), rule);
    }
    let device = device % topology.devices();
    let len = (place % 4) as u8;
    let ports = ["p0", "p1", "p2", "p3", "edge", "vlan"];
    let prefix = Prefix::covering((place as u32 / 4) << 29, len);
    let priority = if priority % 3 == 0 { priority as u32 % 5 } else { len.into() };
    let port = super::port(topology, device, ports[port % ports.len()]);
    Change::Insert(Route { device: DeviceId(device as u32), prefix, port, priority })
}

fn undo(change: Change) -> Change {
    match change {
        Change::Insert(route) => Change::Remove(route),
        Change::InsertAcl(acl, rule) => Change::RemoveAcl(acl, rule),
        other => other,
    }
}

/// A header of each sort that the rules of `change` can tell apart.
fn headers() -> Vec<Header> {
    let mut headers = Vec::new();
    let addresses: Vec<Ipv4Addr> = (0..16u32).map(|n| Ipv4Addr::from_bits((n / 2) << 29 | (n & 1))).collect();
    for destination in &addresses {
        for source in [0, 1, 2, 3].map(|n| addresses[n]) {
            for protocol in [0, 6, 17] {
                for (source_port, destination_port) in [(0, 0), (9, 10), (10, 9), (0, 10), (10, 0)] {
                    headers.push(Header {
                        protocol,
                        source,
                        source_port,
                        destination: *destination,
                        destination_port,
                    });
                }
            }
        }
    }
    headers
}

fn compare(network: &Network, plain: &Plain, headers: &[Header]) {
    let topology = network.topology();
    let loops: Vec<(Vec<LinkId>, AddressRange, Vec<Headers>)> =
        network.loops().map(|l| (l.links().collect(), l.range(), l.headers())).collect();
    assert!(network.all_loops_told());
    for header in headers {
        let mut told = BTreeSet::new();
        for (links, range, headers) in &loops {
            assert!(!headers.is_empty());
            let in_it = headers.iter().filter(|h| h.contains(header)).count();
            assert!(in_it <= 1);
            if in_it == 1 {
                assert!(range.contains(header.destination));
                assert!(told.insert(links.clone()));
            }
        }
        assert_eq!(told, plain.loops(topology, header), "{header:?}");
    }
}

fn compare_reach(reach: &Reachability, network: &Network, plain: &Plain, headers: &[Header]) {
    let topology = network.topology();
    let sets = reach.all();
    for from in reach.edges() {
        for header in headers {
            let reached = plain.reaches(topology, *from, header);
            for to in reach.edges() {
                let within = |reached: &&Reached| {
                    reached.range.contains(header.destination)
                        && reach.filter(reached.filter).iter().all(|a| plain.permits(*a, header))
                };
                let told = reach.set(*from, *to).iter().any(|r| within(&r));
                let all = sets.iter().find(|s| (s.0, s.1) == (*from, *to));
                assert_eq!(told, all.is_some_and(|s| s.2.iter().any(|r| within(&r))));
                assert_eq!(told, reached.contains(to), "{from} {to} {header:?}");
            }
        }
    }
}

/// What the changes make of the old sets is the new sets.
fn compare_changes(before: &Reachability, after: &Reachability, changes: &PairChanges) {
    let points = |set: &[Reached]| -> BTreeSet<(u32, Vec<AclId>)> {
        set.iter()
            .flat_map(|r| {
                let filter = after.filter(r.filter).to_vec();
                (0..16u32)
                    .map(|n| n << 28)
                    .filter(|a| r.range.contains(Ipv4Addr::from_bits(*a)))
                    .map(move |a| (a, filter.clone()))
            })
            .collect()
    };
    for from in before.edges() {
        for to in before.edges() {
            let (old, new) = (points(&before.set(*from, *to)), points(&after.set(*from, *to)));
            let change = changes.iter().find(|c| (c.from, c.to) == (*from, *to));
            let (gained, lost) = change.map(|c| (points(c.gained), points(c.lost))).unwrap_or_default();
            assert_eq!(gained, new.difference(&old).cloned().collect());
            assert_eq!(lost, old.difference(&new).cloned().collect());
        }
    }
}

fn run(topology: Topology, dice: &[u8], lists: bool, batch: usize) {
    let (mut network, mut plain) = (Network::new(topology.clone()), Plain::default());
    let edges: Vec<PortId> = (0..topology.devices()).map(|d| edge(&topology, d)).collect();
    let mut reach = Reachability::new(&network, &edges).unwrap();
    let headers = match lists {
        true => headers(),
        false => headers().into_iter().filter(|h| h.source_port == 0 && h.protocol == 0).collect(),
    };
    let mut there: Vec<Change> = Vec::new();
    let mut made = Vec::new();
    for dice in dice.chunks_exact(7) {
        let next = if dice[6] % 3 == 0 && !there.is_empty() {
            undo(there.swap_remove(usize::from(dice[5]) % there.len()))
        } else {
            let next = change(&topology, dice, lists);
            there.push(next);
            next
        };
        assert!(plain.change(&next));
        made.push(next);
        if made.len() >= batch {
            let report = match (batch, next) {
                (1, Change::Insert(route)) => network.insert(route),
                (1, Change::Remove(route)) => network.remove(route),
                _ => network.apply(&made),
            };
            made.clear();
            assert_eq!(report.unwrap().loops, network.loops().count());
            compare(&network, &plain, &headers);
            let before = reach.clone();
            let changes = reach.follow(&network).unwrap();
            compare_changes(&before, &reach, &changes);
        }
    }
    network.apply(&made).unwrap();
    reach.follow(&network).unwrap();
    compare_reach(&reach, &network, &plain, &headers);
    let fresh = Reachability::new(&network, &edges).unwrap();
    compare_reach(&fresh, &network, &plain, &headers);
    for device in 0..topology.devices() as u32 {
        for header in &headers {
            let to = network.lookup(DeviceId(device), header.destination);
            assert_eq!(to, plain.lookup(DeviceId(device), header.destination));
        }
    }
    let all: Vec<Change> = there.into_iter().map(undo).collect();
    assert_eq!(network.apply(&all).unwrap().loops, 0);
    assert_eq!((network.rules(), network.ranges().count()), (0, 1));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn plain_networks(
        devices in 2usize..6,
        links in prop::collection::vec(any::<u8>(), 8..48),
        dice in prop::collection::vec(any::<u8>(), 70..350),
        hairpin: bool,
        batch in 1usize..6,
    ) {
        run(topology(devices, &links, false, false, hairpin), &dice, false, batch);
    }

    #[test]
    fn networks_with_groups(
        devices in 2usize..4,
        links in prop::collection::vec(any::<u8>(), 8..28),
        dice in prop::collection::vec(any::<u8>(), 70..200),
        hairpin: bool,
        batch in 1usize..6,
    ) {
        run(topology(devices, &links, true, false, hairpin), &dice, false, batch);
    }

    #[test]
    fn networks_with_access_lists(
        devices in 2usize..4,
        links in prop::collection::vec(any::<u8>(), 8..28),
        dice in prop::collection::vec(any::<u8>(), 70..140),
        groups: bool,
        hairpin: bool,
        batch in 1usize..4,
    ) {
        run(topology(devices, &links, groups, true, hairpin), &dice, true, batch);
    }
}
