use std::fmt;

use serde::{Deserialize, Serialize};

use super::Text;

/// Where a value was read.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Origin {
    /// The file, relative to the snapshot folder.
    pub file: Text,
    /// The line, counted from 1; 0 where the value has no line of its own.
    pub line: u32,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.line == 0 {
            f.write_str(&self.file)
        } else {
            write!(f, "{}:{}", self.file, self.line)
        }
    }
}

/// Which program writes, and rewrites, a chain.
///
/// Told from chain and table names, which these programs never vary.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Owner {
    /// libvirt's network driver: `LIBVIRT_*`, `libvirt_network`.
    Libvirt,
    /// Docker: `DOCKER*`.
    Docker,
    /// kube-proxy and the kubelet: `KUBE-*`.
    KubeProxy,
    /// Flannel: `FLANNEL-*`.
    Flannel,
    /// OpenStack neutron's agents: `neutron-*`.
    Neutron,
    /// firewalld: its table, or chains such as `IN_public`.
    Firewalld,
    /// ufw: `ufw-*`, `ufw6-*`.
    Ufw,
    /// None of them: a person, or a program we do not know.
    User,
}

impl Owner {
    /// The owner of a chain, by the names of its table and itself.
    ///
    /// ```
    /// use lab_core::model::Owner;
    /// assert_eq!(Owner::of_chain("filter", "LIBVIRT_FWI"), Owner::Libvirt);
    /// assert_eq!(Owner::of_chain("filter", "FORWARD"), Owner::User);
    /// ```
    pub fn of_chain(table: &str, chain: &str) -> Self {
        const FIREWALLD: [&str; 8] =
            ["IN_", "FWD_", "FWDI_", "FWDO_", "PRE_", "POST_", "INPUT_ZONES", "FORWARD_IN_ZONES"];
        if chain.starts_with("LIBVIRT_") || table == "libvirt_network" {
            Owner::Libvirt
        } else if chain == "DOCKER-USER" {
            Owner::User
        } else if chain.starts_with("DOCKER") || table == "docker-bridges" {
            Owner::Docker
        } else if chain.starts_with("KUBE-") || table == "kube-proxy" {
            Owner::KubeProxy
        } else if chain.starts_with("FLANNEL-") {
            Owner::Flannel
        } else if chain.starts_with("neutron-") {
            Owner::Neutron
        } else if chain.starts_with("ufw-") || chain.starts_with("ufw6-") {
            Owner::Ufw
        } else if table == "firewalld" || FIREWALLD.iter().any(|p| chain.starts_with(p)) {
            Owner::Firewalld
        } else {
            Owner::User
        }
    }
}

impl fmt::Display for Owner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Owner::Libvirt => "libvirt",
            Owner::Docker => "docker",
            Owner::KubeProxy => "kube-proxy",
            Owner::Flannel => "flannel",
            Owner::Neutron => "neutron",
            Owner::Firewalld => "firewalld",
            Owner::Ufw => "ufw",
            Owner::User => "user",
        })
    }
}
