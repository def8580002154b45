use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use super::{
    FdbEntry, Interface, InterfaceKind, Ipset, Neighbour, Origin, PolicyRule, Route, Ruleset, Sysctls,
};

/// What sort of thing a host is; for people and drawings only.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum HostKind {
    /// A machine.
    Physical,
    /// A virtual machine.
    Vm,
    /// A pod or container.
    Pod,
    /// A router.
    Router,
    /// A stand-in for what lies outside.
    External,
    /// Any other word that `lab.toml` gives.
    #[serde(untagged)]
    Other(String),
}

impl fmt::Display for HostKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            HostKind::Physical => "physical",
            HostKind::Vm => "vm",
            HostKind::Pod => "pod",
            HostKind::Router => "router",
            HostKind::External => "external",
            HostKind::Other(word) => word,
        })
    }
}

/// A part of a host's state that a snapshot may leave out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Part {
    /// `link.json`.
    Links,
    /// `addr.json`.
    Addresses,
    /// `route.json`.
    Routes4,
    /// `route6.json`, where the host has IPv6 addresses.
    Routes6,
    /// Neither an IPv4 rule set nor an nft one.
    Firewall4,
    /// Neither an IPv6 rule set nor an nft one.
    Firewall6,
}

impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Part::Links => "links",
            Part::Addresses => "addresses",
            Part::Routes4 => "IPv4 routes",
            Part::Routes6 => "IPv6 routes",
            Part::Firewall4 => "IPv4 firewall",
            Part::Firewall6 => "IPv6 firewall",
        })
    }
}

/// Something that was read and kept, but that no engine understands.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Unmodelled {
    /// Where it stands.
    pub origin: Origin,
    /// What is not understood: `match recent`, `device wireguard`, `sysctl …`.
    pub what: String,
    /// The text, as read.
    pub text: String,
}

impl Unmodelled {
    /// What a file is called that lies in a host's folder and is not read.
    pub const UNREAD: &'static str = "file that is not read";

    /// Whether only packets that meet the thing itself depend on it: a device,
    /// which says so when a packet comes by, or a file that is not
    /// read. Everything else may decide about any packet of the host.
    pub fn stands_apart(&self) -> bool {
        self.what.starts_with("device ") || self.what == Self::UNREAD
    }
}

/// One network stack: a machine, a VM, a pod, a network namespace.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Host {
    /// Its name, unique in the lab.
    pub name: String,
    /// What sort of thing it is.
    pub kind: Option<HostKind>,
    /// The host it runs on.
    pub parent: Option<String>,
    /// Its interfaces, by index as `ip link` lists them.
    pub interfaces: Vec<Interface>,
    /// Routes of both families and all tables.
    pub routes: Vec<Route>,
    /// Policy rules of both families, by priority.
    pub rules: Vec<PolicyRule>,
    /// ARP and ND tables.
    pub neighbours: Vec<Neighbour>,
    /// Forwarding tables of bridges and VXLAN devices.
    pub fdb: Vec<FdbEntry>,
    /// Kernel settings.
    pub sysctls: Sysctls,
    /// The packet filter: every table of every back end.
    pub ruleset: Ruleset,
    /// IP sets by name.
    pub ipsets: BTreeMap<String, Ipset>,
    /// The saved NetworkManager connections that set up interfaces, by
    /// interface. Nothing that is running depends on them.
    pub connections: BTreeMap<String, String>,
    /// What the snapshot does not tell.
    pub unknown: BTreeSet<Part>,
    /// What was read but is not understood, rules apart (they keep theirs).
    pub unmodelled: Vec<Unmodelled>,
}

impl Host {
    /// The interface of that name.
    pub fn interface(&self, name: &str) -> Option<&Interface> {
        self.interfaces.iter().find(|i| i.name == name)
    }

    /// The VRF that a device belongs to, or is.
    pub fn vrf_of(&self, device: &str) -> Option<&Interface> {
        let device = self.interface(device)?;
        match &device.kind {
            InterfaceKind::Vrf(_) => Some(device),
            _ => {
                let master = self.interface(device.master.as_deref()?)?;
                matches!(master.kind, InterfaceKind::Vrf(_)).then_some(master)
            }
        }
    }

    /// The interface that carries this address.
    pub fn interface_with(&self, address: IpAddr) -> Option<&Interface> {
        self.interfaces.iter().find(|i| i.addresses.iter().any(|a| a.address == address))
    }

    /// Every address of the host that is not on loopback, in interface order.
    pub fn addresses(&self) -> impl Iterator<Item = IpAddr> + '_ {
        self.interfaces
            .iter()
            .flat_map(|i| i.addresses.iter())
            .map(|a| a.address)
            .filter(|a| !a.is_loopback())
    }
}
