//! How long a change lasts, and how to make it last.

use serde::Serialize;

use super::fix::chain_of;
use crate::addr::Family;
use crate::formats::command;
use crate::model::{Change, Host, Owner, Rule, Statement, TableFamily, TableId, Target, Verdict};

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
pub(super) fn keeping(host: &Host, change: &Change) -> Keeping {
    let volatile = |advice: String| Keeping { lasting: Lasting::Volatile, advice };
    match change {
        Change::InsertRule { table, chain, rule, .. } => of_rule(host, table, chain, rule),
        Change::AddRoute(route) => {
            let routes = if route.family == Family::Ipv6 { "+ipv6.routes" } else { "+ipv4.routes" };
            let hop = route.next_hops.first();
            let by = hop.and_then(|h| h.gateway).map(|g| format!(" {g}")).unwrap_or_default();
            let device = hop.and_then(|h| h.interface.as_deref()).unwrap_or_default();
            let value = format!("{}{by}", route.destination);
            volatile(
                network_manager(host, device, &[routes, &value])
                    .unwrap_or_else(|| format!("add it to the configuration of {device}")),
            )
        }
        Change::DeleteRoute(key) => {
            volatile(format!("take the route to {} out of the file that it comes from", key.destination))
        }
        Change::Sysctl(key, value) => volatile(format!("write `{key} = {value}` to a file in /etc/sysctl.d")),
        Change::Link(device, _) => volatile(
            network_manager(host, device, &["connection.autoconnect", "yes"])
                .unwrap_or_else(|| format!("let the configuration of {device} start it")),
        ),
        _ => volatile("make it a part of the host's configuration".to_owned()),
    }
}

/// The command that changes the connection of a device, if NetworkManager has
/// one.
fn network_manager(host: &Host, device: &str, setting: &[&str]) -> Option<String> {
    let start = ["nmcli", "connection", "modify", host.connections.get(device)?.as_str()];
    let command = command::quoted(start.into_iter().chain(setting.iter().copied())).ok()?;
    Some(format!("`{command}`"))
}

fn of_rule(host: &Host, table: &TableId, chain: &str, rule: &Rule) -> Keeping {
    let owner = Owner::of_chain(&table.name, chain);
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
        Owner::Firewalld => match words(host, table, rule) {
            Some(words) => format!(
                "give firewalld a policy, or \
                 `firewall-cmd --permanent --direct --add-rule {} filter FORWARD 0 {words}`",
                if table.family == TableFamily::Ip6 { "ipv6" } else { "ipv4" }
            ),
            None => "give firewalld a policy".into(),
        },
        Owner::Ufw => "`ufw route allow`, or `ufw allow` for what is sent to the host itself".into(),
        Owner::User => saved(host, table, chain),
    };
    Keeping { lasting, advice }
}

/// A rule of iptables as a shell takes it behind a chain.
fn words(host: &Host, table: &TableId, rule: &Rule) -> Option<String> {
    let (table, rule) = (table.clone(), Box::new(rule.clone()));
    let added = Change::InsertRule { table, chain: "FORWARD".into(), place: None, rule };
    let command = command::print(host, &added).ok()?;
    command.split_once(" -A FORWARD ").map(|(_, words)| words.to_owned())
}

/// How to save a rule of a person's.
fn saved(host: &Host, table: &TableId, chain: &str) -> String {
    let mut advice = if !table.xtables {
        "add it to /etc/nftables.conf".to_owned()
    } else if chain == "DOCKER-USER" {
        "docker keeps DOCKER-USER while it runs; save it with iptables-save".into()
    } else {
        let (program, file) = match table.family {
            TableFamily::Ip6 => ("ip6tables-save", "/etc/iptables/rules.v6, or /etc/sysconfig/ip6tables"),
            _ => ("iptables-save", "/etc/iptables/rules.v4, or /etc/sysconfig/iptables"),
        };
        format!("save it by {program} to {file}")
    };
    // These programs put their own rules on top of the base chain when they
    // start, above what was restored.
    let jumps = |s: &Statement| match s {
        Statement::Target(Target::Verdict(Verdict::Jump(name) | Verdict::Goto(name))) => {
            Some(Owner::of_chain(&table.name, name))
        }
        _ => None,
    };
    let rules = chain_of(host, table, chain).map(|c| c.rules.as_slice()).unwrap_or_default();
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
