//! Hosts that are alike: found, proved, and the same answers for all of them.

#![allow(clippy::unwrap_used, clippy::panic)]

use lab_core::query::classes::{class_matrix, classes, Relation};
use lab_core::query::matrix::{matrix, Service};
use lab_core::query::what_if::{what_if, HostChange};
use lab_workspace::hypervisors;

/// Every cell of the whole matrix is that of its classes.
fn agrees(lab: &lab_core::Lab, service: Service) {
    let found = classes(lab);
    let small = class_matrix(lab, service, None).unwrap();
    let whole = matrix(lab, &[service], None).unwrap();
    for cell in &whole.cells {
        let together = found.group_of[&cell.from] == found.group_of[&cell.to];
        let relation = if together { Relation::Together } else { Relation::Apart };
        let (from, to) = (found.class_of[&cell.from], found.class_of[&cell.to]);
        let of_class =
            small.cells.iter().find(|c| (c.from, c.to, c.relation) == (from, to, relation)).unwrap();
        assert_eq!(cell.answer, of_class.answer, "{} to {}", cell.from, cell.to);
    }
    assert_eq!(small.cells.iter().map(|c| c.pairs).sum::<u64>(), whole.cells.len() as u64);
}

#[test]
fn hypervisors_and_their_guests_are_two_classes() {
    for routed in [false, true] {
        let lab = hypervisors(5, 3, routed);
        let sizes: Vec<usize> = classes(&lab).classes.iter().map(|c| c.hosts.len()).collect();
        assert_eq!(sizes, [5, 15]);
        agrees(&lab, "tcp/22".parse().unwrap());
        agrees(&lab, Service::PING);
    }
}

#[test]
fn one_rule_on_one_host_takes_it_and_its_guests_out_of_their_classes() {
    let lab = hypervisors(4, 2, true);
    for change in [
        "hv0002: iptables -I LIBVIRT_FWI 1 -d 10.64.2.10 -o virbr0 -p tcp --dport 22 -j ACCEPT",
        "hv0001: iptables -I FORWARD 1 -s 10.255.0.3 -j DROP",
        "hv0003: sysctl -w net.ipv4.conf.virbr0.forwarding=0",
        "hv0000: ip route add 10.64.3.11 via 10.255.0.2",
        "hv0000-vm01: ip route add blackhole 10.255.0.2",
        "hv0003: ip link set vnet1 down",
    ] {
        let changed = what_if(&lab, &[change.parse::<HostChange>().unwrap()]).unwrap();
        let sizes: Vec<usize> = classes(&changed).classes.iter().map(|c| c.hosts.len()).collect();
        assert!(sizes.len() > 2, "{change}: {sizes:?}");
        agrees(&changed, "tcp/22".parse().unwrap());
    }
}
