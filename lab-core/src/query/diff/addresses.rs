//! How the addresses of an interface differ.

use super::network::Steps;
use crate::addr::Family;
use crate::model::{Address, Change, Interface};
use crate::query::what_if::apply;

/// Whether two addresses are one, whatever time has made of them: checks of
/// duplicates pass by themselves.
fn same(a: &Address, b: &Address) -> bool {
    Address { tentative: false, ..a.clone() } == Address { tentative: false, ..b.clone() }
}

fn of_family(list: &[Address], family: Family) -> Vec<Address> {
    list.iter().filter(|a| a.family() == family).cloned().collect()
}

fn add(interface: &Interface, address: &Address) -> Change {
    let address = Address { secondary: false, tentative: false, ..address.clone() };
    Change::AddAddress { interface: interface.name.clone(), address }
}

fn delete(interface: &Interface, address: &Address) -> Option<Change> {
    let net = address.net()?;
    Some(Change::DeleteAddress { interface: interface.name.clone(), address: net, peer: address.peer })
}

/// The changes that keep what they can, and those that keep nothing: only
/// these bring the addresses into any order.
fn ways(interface: &Interface, old: &[Address], new: &[Address], family: Family) -> [Vec<Change>; 2] {
    // Whether it is a secondary address follows from the others.
    let kin = |a: &Address, b: &Address| {
        same(&Address { secondary: false, ..a.clone() }, &Address { secondary: false, ..b.clone() })
    };
    let gone = old.iter().filter(|a| !new.iter().any(|b| kin(a, b)));
    let come: Vec<&Address> = new.iter().filter(|b| !old.iter().any(|a| kin(a, b))).collect();
    let adding = |come: Vec<&Address>| -> Vec<Change> {
        // The latest IPv6 address stands first.
        let mut changes: Vec<Change> = come.into_iter().map(|a| add(interface, a)).collect();
        if family == Family::Ipv6 {
            changes.reverse();
        }
        changes
    };
    let mut few: Vec<Change> = gone.filter_map(|a| delete(interface, a)).collect();
    few.extend(adding(come));
    let mut all: Vec<Change> = old.iter().rev().filter_map(|a| delete(interface, a)).collect();
    all.extend(adding(new.iter().collect()));
    [few, all]
}

/// Adds the changes that bring an interface its addresses.
pub(super) fn of_interface(steps: &mut Steps, wanted: &Interface, unsaid: &mut Vec<String>) {
    for family in [Family::Ipv4, Family::Ipv6] {
        let Some(is) = steps.state.interface(&wanted.name) else { return };
        let (old, new) = (of_family(&is.addresses, family), of_family(&wanted.addresses, family));
        let equal =
            |a: &[Address], b: &[Address]| a.len() == b.len() && a.iter().zip(b).all(|(a, b)| same(a, b));
        if equal(&old, &new) {
            continue;
        }
        let ways = ways(wanted, &old, &new, family);
        let reached = ways.iter().find(|way| {
            let mut state = steps.state.clone();
            let made = way.iter().all(|change| apply(&mut state, change).is_ok());
            let now = state.interface(&wanted.name).map(|i| of_family(&i.addresses, family));
            made && now.is_some_and(|now| equal(&now, &new))
        });
        let known = reached.is_some();
        let [few, _] = &ways;
        for change in reached.unwrap_or(few) {
            // What goes with another is gone already.
            let _ = steps.make(change.clone());
        }
        if !known {
            unsaid.push(format!("addresses of {} are in another order, or of another sort", wanted.name));
        }
    }
}
