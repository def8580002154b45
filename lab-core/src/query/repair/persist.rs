//! How long a change lasts, and how to make it last.

use serde::Serialize;

use super::fix::{quoted, ChainRef, Edit, Fix};
use crate::model::{Host, Owner, Statement, TableFamily, Target, Verdict};

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
            volatile(match host.connections.get(device) {
                Some(connection) => {
                    format!("`nmcli connection modify {} +{family}.routes '{net}{by}'`", quoted(connection))
                }
                None => format!("add it to the configuration of {device}"),
            })
        }
        Edit::NoRoute { net } => {
            volatile(format!("take the route to {net} out of the file that it comes from"))
        }
        Edit::Sysctl { key, value } => {
            volatile(format!("write `{key} = {value}` to a file in /etc/sysctl.d"))
        }
        Edit::Up { device } => volatile(match host.connections.get(device) {
            Some(connection) => {
                let connection = quoted(connection);
                format!("`nmcli connection modify {connection} connection.autoconnect yes`")
            }
            None => format!("let the configuration of {device} start it"),
        }),
    }
}

fn rule(host: &Host, chain: &ChainRef, text: &str) -> Keeping {
    let owner = Owner::of_chain(&chain.table, &chain.chain);
    let lasting = if owner == Owner::User { Lasting::Volatile } else { Lasting::Rebuilt(owner) };
    let advice = match owner {
        Owner::Libvirt => {
            "libvirt does so whenever it or a network of its starts: let /etc/libvirt/hooks/network put the \
             rule in then, or make the network a routed one, `<forward mode='route'/>`, or one that \
             libvirt does not filter, mode='open'"
                .to_owned()
        }
        Owner::Docker => "put the rule into DOCKER-USER, which docker leaves alone".into(),
        Owner::KubeProxy => {
            "kube-proxy does so all the time: change the Service or NetworkPolicy that the chain is made of"
                .into()
        }
        Owner::Flannel => "put the rule into FORWARD, before flanneld's".into(),
        Owner::Neutron => "change the port's security group, `openstack security group rule create`".into(),
        Owner::Firewalld => format!(
            "give firewalld a policy, or \
             `firewall-cmd --permanent --direct --add-rule {} filter FORWARD 0 {text}`",
            if text.contains(':') { "ipv6" } else { "ipv4" }
        ),
        Owner::Ufw => "`ufw route allow`, or `ufw allow` for what is sent to the host itself".into(),
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
        let (program, file) = match chain.family {
            TableFamily::Ip6 => ("ip6tables-save", "/etc/iptables/rules.v6, or /etc/sysconfig/ip6tables"),
            _ => ("iptables-save", "/etc/iptables/rules.v4, or /etc/sysconfig/iptables"),
        };
        format!("save it by {program} to {file}")
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
