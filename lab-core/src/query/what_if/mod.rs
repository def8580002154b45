//! A lab with a change: "and if this rule were there?"

mod address;
mod network;
mod rules;
mod sets;

use std::str::FromStr;

use super::diff::edits::of_hosts;
use super::{ends, Error};
use crate::formats::command;
use crate::model::{Host, Lab};

pub use crate::model::{Change, HostChange};

pub(in crate::query) use network::{same_policy, same_route};
pub(in crate::query) use rules::{leads, new_table};
pub(in crate::query) use sets::{names_ipset, names_set};

impl FromStr for HostChange {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let unfit = |why: &str| Error::Unfit(format!("`{text}`: {why}"));
        let (host, command) = text.split_once(": ").ok_or_else(|| unfit("write HOST: COMMAND"))?;
        let change = command::parse(command).map_err(|why| unfit(&why.to_string()))?;
        Ok(HostChange { host: host.trim().to_owned(), change })
    }
}

/// The lab with changes. Hosts that are not changed are shared with the lab
/// given, which stays as it is.
///
/// What a kernel does by itself with a change is done here, too: an address
/// brings its local and connected routes and takes them away; a link that goes
/// down loses its routes. What a kernel refuses is refused: to delete a chain
/// that has rules, to jump in a circle.
///
/// ```
/// use lab_core::query::what_if::{what_if, HostChange};
/// use lab_core::Lab;
/// let lab = Lab::default();
/// let change: HostChange = "router: ip link set eth0 down".parse()?;
/// assert!(what_if(&lab, &[change]).is_err(), "there is no such host");
/// # Ok::<(), lab_core::query::Error>(())
/// ```
///
/// # Errors
/// A host, table, chain, rule, route or interface that does not exist, or a
/// change that a kernel would refuse.
pub fn what_if(lab: &Lab, changes: &[HostChange]) -> Result<Lab, Error> {
    let mut changed = lab.clone();
    for one in changes {
        ends::host(lab, &one.host)?;
        if let Some(host) = changed.host_mut(&one.host) {
            apply(host, &one.change)?;
        }
    }
    Ok(changed)
}

/// The changes that take a change of a lab back: made after it, they bring the
/// host back as it is in the lab given, rule for rule and route for route. What
/// a kernel does by itself with the change is taken back, too: the routes and
/// IPv6 addresses that a link has lost. Handles and counters are not: a kernel
/// gives new ones.
///
/// ```
/// use lab_core::model::{Host, Lab};
/// use lab_core::query::what_if::{undo, what_if, HostChange};
/// let mut lab = Lab::default();
/// lab.hosts.insert("router".into(), Host { name: "router".into(), ..Host::default() }.into());
/// let change: HostChange = "router: iptables -t nat -N MINE".parse()?;
/// let back = undo(&lab, &change)?;
/// assert_eq!(what_if(&what_if(&lab, &[change])?, &back)?, lab);
/// # Ok::<(), lab_core::query::Error>(())
/// ```
///
/// # Errors
/// The change does not fit, or what was before is not told: a setting that the
/// snapshot lacks, a part of what is deleted that no command makes.
pub fn undo(lab: &Lab, change: &HostChange) -> Result<Vec<HostChange>, Error> {
    let before = ends::host(lab, &change.host)?;
    let mut after = before.clone();
    apply(&mut after, &change.change)?;
    let changes = match rules::undo(before, &change.change) {
        Some(change) => vec![change],
        None => {
            if let Change::Sysctl(key, _) = &change.change {
                if !before.sysctls.0.contains_key(key) {
                    return Err(refused(before, format_args!("what {key} is now is not told")));
                }
                // What it sets beside others was not told, and still need not be.
                after.sysctls.0.retain(|key, _| before.sysctls.0.contains_key(key));
            }
            let edits = of_hosts(&after, before)?;
            if let Some(what) = edits.unsaid.first() {
                return Err(refused(before, format_args!("it cannot be taken back: {what}")));
            }
            edits.changes
        }
    };
    Ok(changes.into_iter().map(|one| HostChange { host: change.host.clone(), change: one }).collect())
}

/// Why a change does not fit: the host has no such thing.
fn missing(host: &Host, what: impl std::fmt::Display) -> Error {
    Error::Unfit(format!("{} has no {what}", host.name))
}

/// Why a change does not fit: the kernel would refuse it.
fn refused(host: &Host, why: impl std::fmt::Display) -> Error {
    Error::Unfit(format!("{}: {why}", host.name))
}

/// Makes one change. After an error the host is as it was.
pub(crate) fn apply(host: &mut Host, change: &Change) -> Result<(), Error> {
    match change {
        Change::AddTable(table) => rules::add_table(host, table),
        Change::DeleteTable(table) => rules::delete_table(host, table),
        Change::AddChain { table, chain, base } => rules::add_chain(host, table, chain, *base),
        Change::DeleteChain { table, chain } => rules::delete_chain(host, table, chain),
        Change::SetPolicy { table, chain, policy } => rules::set_policy(host, table, chain, *policy),
        Change::InsertRule { table, chain, place, rule } => rules::insert(host, table, chain, *place, rule),
        Change::DeleteRule { table, chain, place } => rules::delete(host, table, chain, *place),
        Change::ReplaceRule { table, chain, place, rule } => rules::replace(host, table, chain, *place, rule),
        Change::AddSet { table, set } => sets::add_set(host, table, set),
        Change::DeleteSet { table, set } => sets::delete_set(host, table, set),
        Change::AddElements { table, set } => sets::add_elements(host, table, set),
        Change::DeleteElements { table, set } => sets::delete_elements(host, table, set),
        Change::CreateIpset(set) => sets::create(host, set),
        Change::DestroyIpset(name) => sets::destroy(host, name),
        Change::AddIpsetElements(set) => sets::add_members(host, set),
        Change::DeleteIpsetElements(set) => sets::delete_members(host, set),
        Change::AddRoute(route) => network::add_route(host, route),
        Change::DeleteRoute(key) => network::delete_route(host, key),
        Change::AddPolicyRule(rule) => network::add_policy(host, rule),
        Change::DeletePolicyRule(rule) => network::delete_policy(host, rule),
        Change::AddAddress { interface, address } => address::add(host, interface, address),
        Change::DeleteAddress { interface, address, peer } => {
            address::delete(host, interface, *address, *peer)
        }
        Change::Sysctl(key, value) => {
            network::set(host, key, value);
            Ok(())
        }
        Change::Link(device, up) => network::link(host, device, *up),
    }
}
