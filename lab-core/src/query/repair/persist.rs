//! How long a change lasts, and how to make it last.

use serde::Serialize;

use super::fix::{ChainRef, Edit, Fix};
use crate::model::{Host, Owner, Statement, Target, Verdict};

/// How long a change lasts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Lasting {
    /// Until the host restarts: it is not saved.
    Volatile,
    /// Until its owner writes the chain anew, which each of its restarts does.
    Rebuilt(Owner),
}

/// How long a change lasts, and what to do for it to last.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Keeping {
    /// How long as it is.
    pub lasting: Lasting,
    /// What to do instead, or besides.
    pub advice: String,
}

/// What to do for a change to last.
pub(super) fn keeping(host: &Host, fix: &Fix) -> Keeping {
    let volatile = |advice: String| Keeping { lasting: Lasting::Volatile, advice };
    match &fix.edit {
        Edit::Rule { chain, text, .. } => rule(host, chain, text),
        Edit::Route { words, v6, .. } => {
            let family = if *v6 { "ipv6" } else { "ipv4" };
            let mut words = words.split(' ');
            let net = words.next().unwrap_or_default();
            let rest: Vec<&str> = words.collect();
            let after = |key: &str| rest.iter().position(|w| *w == key).and_then(|i| rest.get(i + 1));
            let by = after("via").map(|gateway| format!(" {gateway}")).unwrap_or_default();
            let device = after("dev").copied().unwrap_or_default();
            volatile(format!(
                "with NetworkManager `nmcli connection modify CONNECTION +{family}.routes '{net}{by}'`, \
                 CONNECTION being that of {device}; else the file of whatever sets up {device}"
            ))
        }
        Edit::NoRoute { net } => {
            volatile(format!("take the route to {net} out of the file that it comes from"))
        }
        Edit::Sysctl { key, value } => {
            volatile(format!("write `{key} = {value}` to /etc/sysctl.d/90-lab.conf"))
        }
        Edit::Up { device } => {
            volatile(format!("with NetworkManager let its connection for {device} autoconnect"))
        }
    }
}

fn rule(host: &Host, chain: &ChainRef, text: &str) -> Keeping {
    let owner = Owner::of_chain(&chain.table, &chain.chain);
    let lasting = if owner == Owner::User { Lasting::Volatile } else { Lasting::Rebuilt(owner) };
    let advice = match owner {
        Owner::Libvirt => "libvirt writes this chain anew when it or one of its networks starts: let \
             /etc/libvirt/hooks/network do it then, or make the network a routed one, \
             `<forward mode='route'/>`, or leave its filter to yourself, mode='open'"
            .to_owned(),
        Owner::Docker => "docker writes this chain anew when it starts: use DOCKER-USER".into(),
        Owner::KubeProxy => "kube-proxy writes this chain anew all the time: change the Service or \
             NetworkPolicy that it is made of"
            .into(),
        Owner::Flannel => "flanneld writes this chain anew: put the rule into FORWARD before it".into(),
        Owner::Neutron => "neutron's agent writes this chain anew: change the port's security group, \
             `openstack security group rule create`"
            .into(),
        Owner::Firewalld => format!(
            "firewalld writes this chain anew when it reloads: give it a policy, or \
             `firewall-cmd --permanent --direct --add-rule {} filter FORWARD 0 {text}`",
            if text.contains(':') { "ipv6" } else { "ipv4" }
        ),
        Owner::Ufw => "ufw writes this chain anew when it reloads: `ufw route allow`, or `ufw allow` for \
             what is sent to the host itself"
            .into(),
        Owner::User => saved(host, chain),
    };
    Keeping { lasting, advice }
}

/// How to save a rule of a person's.
fn saved(host: &Host, chain: &ChainRef) -> String {
    let mut advice = if !chain.xtables {
        "add it to /etc/nftables.conf".to_owned()
    } else if chain.chain == "DOCKER-USER" {
        "docker keeps DOCKER-USER while it runs; save it with iptables-save".into()
    } else {
        "save it with iptables-save, to /etc/iptables/rules.v4 (rules.v6) or /etc/sysconfig/iptables".into()
    };
    // These programs put their own rules on top of the base chain when they
    // start, above what was restored.
    let jumps = |s: &Statement| match s {
        Statement::Target(Target::Verdict(Verdict::Jump(name) | Verdict::Goto(name))) => {
            Some(Owner::of_chain(&chain.table, name))
        }
        _ => None,
    };
    let rules = chain.find(host).map(|c| c.rules.as_slice()).unwrap_or_default();
    let mut owners: Vec<Owner> = rules.iter().flat_map(|r| &r.statements).filter_map(jumps).collect();
    owners.retain(|o| matches!(o, Owner::Libvirt | Owner::Docker | Owner::KubeProxy | Owner::Flannel));
    owners.sort_unstable();
    owners.dedup();
    for owner in owners {
        advice.push_str(&match owner {
            Owner::Libvirt => "; libvirt puts its rules above it when it starts: let \
                               /etc/libvirt/hooks/network put it back on top"
                .to_owned(),
            other => format!("; {other} puts its rules above it when it starts"),
        });
    }
    advice
}
