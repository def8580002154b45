use super::*;

fn rule(topology: &Topology, to: &str, name: &str, priority: u32) -> Route {
    Route { priority, ..route(topology, 0, to, name) }
}

fn to(network: &Network, address: &str) -> String {
    let port = network.lookup(DeviceId(0), address.parse().unwrap());
    port.map_or("none", |p| network.topology().port_name(p)).to_owned()
}

#[test]
fn the_longest_prefix_decides_where_priority_is_length() {
    let topology = ring(3);
    let mut network = Network::new(topology.clone());
    let rules = [("10.1.1.0/24", "host"), ("0.0.0.0/0", "next"), ("10.1.0.0/16", "back")];
    for (prefix, name) in rules {
        network.insert(route(&topology, 0, prefix, name)).unwrap();
    }
    assert_eq!(to(&network, "10.1.1.1"), "host");
    assert_eq!(to(&network, "10.1.2.1"), "back");
    assert_eq!(to(&network, "11.1.2.1"), "next");
    network.remove(route(&topology, 0, "10.1.0.0/16", "back")).unwrap();
    assert_eq!(to(&network, "10.1.1.1"), "host");
    assert_eq!(to(&network, "10.1.2.1"), "next");
    network.remove(route(&topology, 0, "10.1.1.0/24", "host")).unwrap();
    assert_eq!(to(&network, "10.1.1.1"), "next");
}

#[test]
fn what_a_rule_hid_decides_again() {
    let topology = ring(3);
    let mut network = Network::new(topology.clone());
    let low = rule(&topology, "10.0.0.0/8", "host", 5);
    let high = rule(&topology, "10.0.0.0/8", "next", 9);
    let hidden = rule(&topology, "10.0.0.0/8", "back", 1);
    for rule in [low, high, hidden] {
        network.insert(rule).unwrap();
    }
    assert_eq!(to(&network, "10.0.0.1"), "next");
    assert_eq!(network.remove(hidden).unwrap().changed, 0);
    network.remove(high).unwrap();
    assert_eq!(to(&network, "10.0.0.1"), "host");
    network.remove(low).unwrap();
    assert_eq!(to(&network, "10.0.0.1"), "none");
    assert_eq!(network.rules(), 0);
}

#[test]
fn of_equals_the_newest_decides() {
    let topology = ring(3);
    let mut network = Network::new(topology.clone());
    let (old, new) = (rule(&topology, "10.0.0.0/8", "host", 8), rule(&topology, "10.0.0.0/8", "next", 8));
    network.insert(old).unwrap();
    network.insert(new).unwrap();
    assert_eq!(to(&network, "10.0.0.1"), "next");
    network.remove(new).unwrap();
    assert_eq!(to(&network, "10.0.0.1"), "host");
    network.insert(new).unwrap();
    network.remove(old).unwrap();
    assert_eq!(to(&network, "10.0.0.1"), "next");
}

#[test]
fn a_short_prefix_of_high_priority_hides_longer_ones() {
    let topology = ring(3);
    let mut network = Network::new(topology.clone());
    let wide = rule(&topology, "10.0.0.0/8", "back", 100);
    let narrow = rule(&topology, "10.1.0.0/16", "host", 16);
    let narrower = rule(&topology, "10.1.1.0/24", "next", 24);
    for rule in [narrow, wide, narrower] {
        network.insert(rule).unwrap();
    }
    assert_eq!(to(&network, "10.1.1.1"), "back");
    network.remove(wide).unwrap();
    assert_eq!(to(&network, "10.1.1.1"), "next");
    assert_eq!(to(&network, "10.1.2.1"), "host");
    assert_eq!(to(&network, "10.2.2.1"), "none");
}

#[test]
fn a_length_is_looked_for_while_a_prefix_of_it_has_rules() {
    let mut rules = rules::Rules::new(2);
    let own = [(0, 8, 8), (0, 8, 9), (1, 8, 8), (2, 0, 0), (3, 32, 32)];
    for (extent, len, priority) in own {
        rules.add(extent, 1, len, priority, 7).unwrap();
    }
    let lengths = |rules: &rules::Rules, device| -> Vec<u32> {
        (0..64).filter(|len| rules.lengths(device) >> len & 1 == 1).collect()
    };
    assert_eq!(lengths(&rules, 1), [0, 8, 32]);
    // Each with those that are left without it.
    let left = [&[0, 8, 32][..], &[0, 8, 32], &[0, 32], &[32], &[]];
    for ((extent, len, priority), left) in own.into_iter().zip(left) {
        assert!(rules.take(extent, 1, len, priority, 7).is_some());
        assert_eq!((lengths(&rules, 1), lengths(&rules, 0)), (left.to_vec(), vec![]), "{extent} {priority}");
    }
}
