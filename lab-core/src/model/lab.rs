use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::{Host, Interface, Unmodelled};

/// One interface of one host, written `host:interface`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Endpoint {
    /// The host's name.
    pub host: String,
    /// The interface's name on that host.
    pub interface: String,
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.host, self.interface)
    }
}

/// An L2 segment: a frame sent into one endpoint arrives at all others.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Link {
    /// Its name, if it has one.
    pub name: Option<String>,
    /// `switch`, `veth`, `tap`, or any other word; for people only.
    pub kind: Option<String>,
    /// The interfaces that are wired together.
    pub endpoints: Vec<Endpoint>,
}

/// A whole lab: hosts and the wires between them.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Lab {
    /// The lab's name.
    pub name: String,
    /// A sentence about it.
    pub description: Option<String>,
    /// The hosts by name. A lab with a change shares the others.
    pub hosts: BTreeMap<String, Arc<Host>>,
    /// The L2 segments. No endpoint is in two of them.
    pub links: Vec<Link>,
    /// Macvlan devices that sit on a device of another host: it, and them.
    pub macvlans: Vec<(Endpoint, Endpoint)>,
    /// What the lab's description says that is not understood.
    pub unmodelled: Vec<Unmodelled>,
}

impl Lab {
    /// The host of that name.
    pub fn host(&self, name: &str) -> Option<&Host> {
        self.hosts.get(name).map(Arc::as_ref)
    }

    /// The host of that name, to be changed: other labs that share it keep it
    /// as it is.
    pub fn host_mut(&mut self, name: &str) -> Option<&mut Host> {
        self.hosts.get_mut(name).map(Arc::make_mut)
    }

    /// Every host, by name.
    pub fn all_hosts(&self) -> impl Iterator<Item = &Host> {
        self.hosts.values().map(Arc::as_ref)
    }

    /// The link that an interface is wired to.
    pub fn link_of(&self, host: &str, interface: &str) -> Option<&Link> {
        self.links.iter().find(|l| l.endpoints.iter().any(|e| e.host == host && e.interface == interface))
    }

    /// The other endpoints of the link that an interface is wired to.
    pub fn peers<'a>(&'a self, host: &'a str, interface: &'a str) -> impl Iterator<Item = &'a Endpoint> {
        self.link_of(host, interface)
            .into_iter()
            .flat_map(|l| l.endpoints.iter())
            .filter(move |e| e.host != host || e.interface != interface)
    }

    /// Whether what leaves by this interface leaves the lab: it is up, of a
    /// kind that has a wire (NIC, veth, tap, tun), and in no link.
    pub fn leads_out(&self, host: &str, interface: &Interface) -> bool {
        interface.up && interface.kind.has_wire() && self.link_of(host, &interface.name).is_none()
    }
}
