//! The ends of a question: hosts, `host:interface`, addresses.

use std::net::IpAddr;

use ipnet::IpNet;

use super::Error;
use crate::addr::Family;
use crate::model::{Host, Interface, Lab, Place, Scope};

/// One end of a question.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum End {
    /// A host.
    Host(String),
    /// An interface of a host.
    Interface(Place),
    /// An address, of whomever.
    Address(IpAddr),
    /// Every address of a prefix.
    Prefix(IpNet),
    /// What lies beyond every interface that leads out of the lab: `@outside`.
    Outside,
}

impl std::fmt::Display for End {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            End::Host(name) => f.write_str(name),
            End::Interface(place) => write!(f, "{place}"),
            End::Address(address) => write!(f, "{address}"),
            End::Prefix(net) => write!(f, "{net}"),
            End::Outside => f.write_str("@outside"),
        }
    }
}

/// How alike two names must be to be offered, from 0 to 1.
const ALIKE: f64 = 0.6;

/// The names most like a wrong one, best first, three at most.
fn nearest<'a>(name: &str, known: impl Iterator<Item = &'a str>) -> Vec<String> {
    let mut scored: Vec<(f64, &str)> = known
        .map(|k| (strsim::jaro_winkler(&name.to_lowercase(), &k.to_lowercase()), k))
        .filter(|(score, _)| *score >= ALIKE)
        .collect();
    scored.sort_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(b.1)));
    scored.into_iter().take(3).map(|(_, k)| k.to_owned()).collect()
}

fn unknown<'a>(what: &'static str, name: &str, known: impl Iterator<Item = &'a str>) -> Error {
    Error::Unknown { what, name: name.to_owned(), nearest: nearest(name, known) }
}

/// Reads an end: a host's name, an address, a prefix, `HOST:IFACE`, or
/// `@outside`.
///
/// # Errors
/// [`Error::Unknown`] with the nearest right names.
pub fn parse(lab: &Lab, text: &str) -> Result<End, Error> {
    if lab.hosts.contains_key(text) {
        return Ok(End::Host(text.to_owned()));
    }
    if text == "@outside" {
        return Ok(End::Outside);
    }
    if let Ok(address) = text.parse() {
        return Ok(End::Address(address));
    }
    if let Ok(net) = text.parse::<IpNet>() {
        return Ok(End::Prefix(net.trunc()));
    }
    if let Some((host, iface)) = text.split_once(':') {
        if let Some(found) = lab.hosts.get(host) {
            return match found.interface(iface) {
                Some(_) => Ok(End::Interface(Place { host: host.to_owned(), iface: iface.to_owned() })),
                None => Err(unknown("interface", iface, found.interfaces.iter().map(|i| i.name.as_str()))),
            };
        }
        return Err(unknown("host", host, lab.hosts.keys().map(String::as_str)));
    }
    Err(unknown("host", text, lab.hosts.keys().map(String::as_str)))
}

/// The host of that name.
///
/// # Errors
/// [`Error::Unknown`] with the nearest right names.
pub fn host<'a>(lab: &'a Lab, name: &str) -> Result<&'a Host, Error> {
    lab.host(name).ok_or_else(|| unknown("host", name, lab.hosts.keys().map(String::as_str)))
}

/// Who has an address, loopback aside.
pub fn owner(lab: &Lab, address: IpAddr) -> Option<&Host> {
    lab.all_hosts().find(|h| h.interface_with(address).is_some())
}

/// The first address of an interface that others can be told.
pub fn address_of(interface: &Interface, family: Option<Family>) -> Option<IpAddr> {
    interface
        .addresses
        .iter()
        .filter(|a| a.scope == Scope::Global && family.is_none_or(|f| f == a.family()))
        .map(|a| a.address)
        .find(|a| !a.is_loopback())
}

/// The address to reach a host by, from another: one on a prefix that both
/// have, else its first; IPv4 before IPv6 unless a family is asked for.
pub fn address_from(from: &Host, to: &Host, family: Option<Family>) -> Option<IpAddr> {
    let candidates = |family: Family| -> Vec<IpAddr> {
        let plain = to.interfaces.iter().filter(|i| i.up).flat_map(|i| &i.addresses);
        plain
            .filter(|a| a.scope == Scope::Global && a.family() == family && !a.address.is_loopback())
            .map(|a| a.address)
            .collect()
    };
    let families = match family {
        Some(family) => vec![family],
        None => vec![Family::Ipv4, Family::Ipv6],
    };
    let shared = |address: &IpAddr| {
        from.interfaces
            .iter()
            .flat_map(|i| &i.addresses)
            .filter_map(|a| a.net())
            .any(|net| net.prefix_len() < net.max_prefix_len() && net.contains(address))
    };
    families.into_iter().find_map(|family| {
        let all = candidates(family);
        all.iter().copied().find(shared).or_else(|| all.first().copied())
    })
}
