//! A lab folder on disk: the only file I/O of the library.
//!
//! A snapshot may come from a stranger: symbolic links are never followed,
//! names are never taken as paths, and sizes and counts have caps.

mod error;
mod folder;
mod host;
mod rules;

pub use error::Error;
pub use rules::read_rules;

use std::collections::BTreeMap;
use std::path::Path;

use crate::formats::observed::Observed;
use crate::formats::{lab_toml, observed, probes};
use crate::model::{Endpoint, Host, Interface, InterfaceKind, Lab, Origin, Part, Probe, Unmodelled};

use folder::Folder;

/// The most hosts a snapshot may have.
pub const HOSTS: usize = 20_000;

/// Reads the lab in a snapshot folder.
///
/// # Errors
/// [`Error::Io`] for a folder or file that cannot be read, [`Error::Refused`]
/// for what leads out of the folder or is too large, [`Error::Format`] with
/// file, line and text for what does not follow its format,
/// [`Error::Inconsistent`] for a link to a host or interface that is not there.
pub fn open(path: &Path) -> Result<Lab, Error> {
    let root = Folder::root(path)?;
    let text = root
        .read("lab.toml")?
        .ok_or_else(|| Error::Missing { what: "lab.toml".into(), folder: path.display().to_string() })?;
    let declared = lab_toml::parse("lab.toml", &text)?;
    let mut hosts = BTreeMap::new();
    if let Some(folder) = root.folder("hosts")? {
        let names = folder.folders()?;
        if names.len() > HOSTS {
            return Err(Error::Refused {
                path: "hosts".into(),
                why: format!("{} hosts, at most {HOSTS} are read", names.len()),
            });
        }
        for name in names {
            if let Some(folder) = folder.folder(&name)? {
                hosts.insert(name.clone(), host::read(&folder, &name)?);
            }
        }
    }
    for (name, (kind, parent)) in declared.hosts {
        // A host that is only named: nothing is known of it.
        let host = hosts.entry(name.clone()).or_insert_with(|| Host {
            name,
            unknown: [
                Part::Links,
                Part::Addresses,
                Part::Routes4,
                Part::Routes6,
                Part::Firewall4,
                Part::Firewall6,
            ]
            .into(),
            ..Host::default()
        });
        host.kind = kind;
        host.parent = parent;
    }
    let mut unmodelled = declared.unmodelled;
    for host in hosts.values() {
        unmodelled.extend(host.interfaces.iter().filter_map(|i| unplaced(host, i, &declared.macvlans)));
    }
    let lab = Lab {
        name: declared.name.unwrap_or_else(|| root.name()),
        description: declared.description,
        hosts: hosts.into_iter().map(|(name, host)| (name, host.into())).collect(),
        links: declared.links,
        macvlans: declared.macvlans,
        unmodelled,
    };
    let macvlans = lab.macvlans.iter().flat_map(|(lower, upper)| [lower, upper]);
    check_ends(&lab, &text, lab.links.iter().flat_map(|l| &l.endpoints).chain(macvlans))?;
    Ok(lab)
}

/// A device that sits on one of another host, which nothing names: frames
/// there may be for it.
fn unplaced(host: &Host, device: &Interface, macvlans: &[(Endpoint, Endpoint)]) -> Option<Unmodelled> {
    let sits = matches!(device.kind, InterfaceKind::Vlan(_) | InterfaceKind::Macvlan(_));
    let named = |(_, upper): &(Endpoint, Endpoint)| upper.host == host.name && upper.interface == device.name;
    if !sits || device.link.is_some() || macvlans.iter().any(named) {
        return None;
    }
    let origin = Origin { file: format!("hosts/{}/link.json", host.name).into(), line: 0 };
    let what = format!("the device below {}:{}", host.name, device.name);
    Some(Unmodelled { origin, what, text: device.kind.to_string() })
}

/// Reads a snapshot's `probes.json`.
///
/// # Errors
/// As [`open`]; also where there is none.
pub fn read_probes(path: &Path) -> Result<Vec<Probe>, Error> {
    Ok(probes::parse("probes.json", &required(path, "probes.json")?)?)
}

/// Reads a snapshot's `observed.json`.
///
/// # Errors
/// As [`open`]; also where there is none.
pub fn read_observed(path: &Path) -> Result<Vec<Observed>, Error> {
    Ok(observed::parse("observed.json", &required(path, "observed.json")?)?)
}

fn required(path: &Path, name: &str) -> Result<String, Error> {
    let folder = path.display().to_string();
    Folder::root(path)?.read(name)?.ok_or(Error::Missing { what: name.to_owned(), folder })
}

/// Every endpoint is an interface of a host; the line is that of its text.
fn check_ends<'e>(lab: &Lab, text: &str, ends: impl Iterator<Item = &'e Endpoint>) -> Result<(), Error> {
    for end in ends {
        let quoted = format!("\"{end}\"");
        let line = text.lines().position(|l| l.contains(&quoted)).map_or(1, |n| n as u32 + 1);
        let wrong = |what: String| Error::Inconsistent { file: "lab.toml".into(), line, what };
        let Some(host) = lab.hosts.get(&end.host) else {
            return Err(wrong(format!("link endpoint `{end}`: no host named {}", end.host)));
        };
        if !host.unknown.contains(&Part::Links) && host.interface(&end.interface).is_none() {
            return Err(wrong(format!("link endpoint `{end}`: no interface of that name")));
        }
    }
    Ok(())
}
