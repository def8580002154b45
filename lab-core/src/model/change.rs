use std::fmt;
use std::net::IpAddr;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use super::{
    Address, Backend, BaseChain, Ipset, NextHop, NftSet, Policy, PolicyRule, Route, RouteKind, RouteTable,
    Rule, Scope, Table, TableFamily, Text,
};
use crate::addr::Family;

/// What tells a table of a host from its others.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct TableId {
    /// The machinery that runs it; none: whichever the host has.
    pub backend: Option<Backend>,
    /// Its family.
    pub family: TableFamily,
    /// Its name.
    pub name: String,
    /// Whether its rules speak iptables.
    pub xtables: bool,
}

impl TableId {
    /// A table of iptables or ip6tables, of whichever machinery the host has.
    ///
    /// ```
    /// use lab_core::{addr::Family, model::TableId};
    /// assert_eq!(TableId::iptables(Family::Ipv6, "nat").to_string(), "ip6 nat");
    /// ```
    pub fn iptables(family: Family, name: &str) -> Self {
        let family = if family == Family::Ipv4 { TableFamily::Ip } else { TableFamily::Ip6 };
        TableId { backend: None, family, name: name.to_owned(), xtables: true }
    }

    /// A table of nft's own.
    pub fn nft(family: TableFamily, name: &str) -> Self {
        TableId { backend: Some(Backend::Nft), family, name: name.to_owned(), xtables: false }
    }

    /// The table itself, its machinery named.
    pub fn of(table: &Table) -> Self {
        TableId {
            backend: Some(table.backend),
            family: table.family,
            name: table.name.clone(),
            xtables: table.xtables,
        }
    }

    /// Whether a table is meant.
    pub fn means(&self, table: &Table) -> bool {
        self.backend.is_none_or(|backend| backend == table.backend)
            && (self.family, self.xtables) == (table.family, table.xtables)
            && self.name == table.name
    }
}

impl fmt::Display for TableId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.family, self.name)?;
        match self.backend {
            Some(Backend::Legacy) => f.write_str(" (legacy)"),
            Some(Backend::Nft) | None => Ok(()),
        }
    }
}

/// What tells the route to delete, as a kernel asks for it
/// (`fib_table_delete`, `ip6_route_del`): what is not given may be anything.
/// Of several that fit, the one with the least metric is meant.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RouteKey {
    /// The destinations it covers, exactly.
    pub destination: IpNet,
    /// The sources it covers (IPv6 subtrees), exactly; none: all.
    pub source: Option<IpNet>,
    /// The table it is in.
    pub table: RouteTable,
    /// The type-of-service it is for, exactly; 0: any.
    pub tos: u8,
    /// What it does.
    pub kind: Option<RouteKind>,
    /// Its metric.
    pub metric: Option<u32>,
    /// How far its destinations are.
    pub scope: Option<Scope>,
    /// The source address it suggests.
    pub prefsrc: Option<IpAddr>,
    /// Who added it.
    pub protocol: Option<String>,
    /// Where it leads; empty: anywhere.
    pub next_hops: Vec<NextHop>,
}

impl RouteKey {
    /// Any route to a prefix in the main table.
    ///
    /// ```
    /// use lab_core::model::{RouteKey, RouteTable};
    /// let key = RouteKey::to("10.0.0.0/8".parse()?);
    /// assert_eq!((key.table, key.metric), (RouteTable::MAIN, None));
    /// # Ok::<(), ipnet::AddrParseError>(())
    /// ```
    pub fn to(destination: IpNet) -> Self {
        RouteKey {
            destination,
            source: None,
            table: RouteTable::MAIN,
            tos: 0,
            kind: None,
            metric: None,
            scope: None,
            prefsrc: None,
            protocol: None,
            next_hops: Vec::new(),
        }
    }

    /// This route and, as far as can be told apart, no other.
    pub fn of(route: &Route) -> Self {
        RouteKey {
            destination: route.destination,
            source: route.source,
            table: route.table,
            tos: route.tos,
            kind: Some(route.kind),
            // A metric of 0 asks for any.
            metric: Some(route.metric).filter(|metric| *metric != 0),
            scope: Some(route.scope).filter(|_| route.family == Family::Ipv4),
            prefsrc: route.prefsrc,
            protocol: Some(route.protocol.clone()).filter(|p| !p.is_empty()),
            next_hops: route
                .next_hops
                .iter()
                .map(|hop| NextHop { dead: false, linkdown: false, ..hop.clone() })
                .collect(),
        }
    }

    /// Whether a route fits.
    pub fn means(&self, route: &Route) -> bool {
        fn fits<T: PartialEq>(asked: &Option<T>, is: &T) -> bool {
            asked.as_ref().is_none_or(|asked| asked == is)
        }
        let hop = |asked: &NextHop, is: &NextHop| {
            (asked.gateway, &asked.interface, asked.weight) == (is.gateway, &is.interface, is.weight)
        };
        let hops = self.next_hops.is_empty()
            || (self.next_hops.len() == route.next_hops.len()
                && self.next_hops.iter().zip(&route.next_hops).all(|(asked, is)| hop(asked, is)));
        (self.destination, self.source, self.table, self.tos)
            == (route.destination, route.source, route.table, route.tos)
            && fits(&self.kind, &route.kind)
            && fits(&self.metric, &route.metric)
            && fits(&self.scope, &route.scope)
            && fits(&self.protocol, &route.protocol)
            && (self.prefsrc.is_none() || self.prefsrc == route.prefsrc)
            && hops
    }
}

/// What is changed on a host: one command of a person there.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Change {
    /// A table is made. Those of iptables have their built-in chains at once.
    AddTable(TableId),
    /// A table is deleted with all that is in it.
    DeleteTable(TableId),
    /// A chain is made, without rules.
    AddChain {
        /// The table.
        table: TableId,
        /// The chain's name.
        chain: String,
        /// Where it is hooked in; none for a chain that others jump to.
        base: Option<BaseChain>,
    },
    /// A chain is deleted that has no rules and that no rule jumps to.
    DeleteChain {
        /// The table.
        table: TableId,
        /// The chain's name.
        chain: String,
    },
    /// A base chain gets a policy.
    SetPolicy {
        /// The table.
        table: TableId,
        /// The chain's name.
        chain: String,
        /// What happens at its end from now on.
        policy: Policy,
    },
    /// A rule is put into a chain at a place, counted from 1; none: at its end.
    InsertRule {
        /// The table.
        table: TableId,
        /// The chain's name.
        chain: String,
        /// The place.
        place: Option<usize>,
        /// The rule.
        rule: Box<Rule>,
    },
    /// The rule at a place of a chain, counted from 1, is taken out.
    DeleteRule {
        /// The table.
        table: TableId,
        /// The chain's name.
        chain: String,
        /// The place.
        place: usize,
    },
    /// The rule at a place of a chain, counted from 1, becomes another.
    ReplaceRule {
        /// The table.
        table: TableId,
        /// The chain's name.
        chain: String,
        /// The place.
        place: usize,
        /// The new rule.
        rule: Box<Rule>,
    },
    /// A named set or map of an nft table is made, with its elements.
    AddSet {
        /// The table.
        table: TableId,
        /// The set.
        set: Box<NftSet>,
    },
    /// A named set or map that no rule refers to is deleted.
    DeleteSet {
        /// The table.
        table: TableId,
        /// The set's name.
        set: String,
    },
    /// A named set or map gets the elements of this one.
    AddElements {
        /// The table.
        table: TableId,
        /// The set's name and types, and the elements that it gets.
        set: Box<NftSet>,
    },
    /// A named set or map loses the elements of this one.
    DeleteElements {
        /// The table.
        table: TableId,
        /// The set's name and types, and the elements that it loses.
        set: Box<NftSet>,
    },
    /// An IP set is made, with its elements.
    CreateIpset(Box<Ipset>),
    /// An IP set that no rule refers to is deleted.
    DestroyIpset(String),
    /// An IP set gets the elements (or members) of this one.
    AddIpsetElements(Box<Ipset>),
    /// An IP set loses the elements (or members) of this one.
    DeleteIpsetElements(Box<Ipset>),
    /// A route is added.
    AddRoute(Box<Route>),
    /// A route is taken out.
    DeleteRoute(Box<RouteKey>),
    /// A rule joins the routing policy, after those of its priority.
    AddPolicyRule(Box<PolicyRule>),
    /// A rule leaves the routing policy.
    DeletePolicyRule(Box<PolicyRule>),
    /// An interface gets an address. Whether it is a secondary one is for the
    /// kernel to say.
    AddAddress {
        /// The interface's name.
        interface: String,
        /// The address.
        address: Address,
    },
    /// An interface loses an address.
    DeleteAddress {
        /// The interface's name.
        interface: String,
        /// The address, with its prefix length.
        address: IpNet,
        /// The other end, of a point-to-point link.
        peer: Option<IpAddr>,
    },
    /// A kernel setting is set: its name, its value.
    Sysctl(String, String),
    /// An interface goes up (`true`) or down.
    Link(String, bool),
}

impl Change {
    /// The table that it is of, if it is of one's rules or sets.
    pub fn table(&self) -> Option<&TableId> {
        match self {
            Change::AddTable(table) | Change::DeleteTable(table) => Some(table),
            Change::AddChain { table, .. }
            | Change::DeleteChain { table, .. }
            | Change::SetPolicy { table, .. }
            | Change::InsertRule { table, .. }
            | Change::DeleteRule { table, .. }
            | Change::ReplaceRule { table, .. }
            | Change::AddSet { table, .. }
            | Change::DeleteSet { table, .. }
            | Change::AddElements { table, .. }
            | Change::DeleteElements { table, .. } => Some(table),
            _ => None,
        }
    }

    /// The chain that it is of, if it is of one.
    pub fn chain(&self) -> Option<&str> {
        match self {
            Change::AddChain { chain, .. }
            | Change::DeleteChain { chain, .. }
            | Change::SetPolicy { chain, .. }
            | Change::InsertRule { chain, .. }
            | Change::DeleteRule { chain, .. }
            | Change::ReplaceRule { chain, .. } => Some(chain),
            _ => None,
        }
    }
}

/// A change of one host, as a user would type it there:
/// `HOST: iptables -I FORWARD 1 -s 10.0.0.0/8 -j ACCEPT`,
/// `HOST: ip route add 10.0.0.0/8 via 192.168.0.1`,
/// `HOST: ip addr add 10.0.0.1/24 dev eth0`,
/// `HOST: ip link set eth0 down`, `HOST: sysctl -w net.ipv4.ip_forward=0`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct HostChange {
    /// The host.
    pub host: String,
    /// What is changed.
    pub change: Change,
}

fn elements(set: &NftSet) -> usize {
    set.elements.len()
}

fn members(set: &Ipset) -> usize {
    set.elements.len() + set.members.len()
}

fn many(count: usize) -> String {
    if count == 1 {
        "1 element".to_owned()
    } else {
        format!("{count} elements")
    }
}

fn rule(text: &Text) -> &str {
    if text.is_empty() {
        "(made by a program)"
    } else {
        text
    }
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Change::AddTable(table) => write!(f, "table {table} is made"),
            Change::DeleteTable(table) => write!(f, "table {table} is deleted"),
            Change::AddChain { table, chain, .. } => write!(f, "{} {chain} is made", table.name),
            Change::DeleteChain { table, chain } => write!(f, "{} {chain} is deleted", table.name),
            Change::SetPolicy { table, chain, policy } => {
                let policy = if *policy == Policy::Drop { "DROP" } else { "ACCEPT" };
                write!(f, "{} {chain} gets policy {policy}", table.name)
            }
            Change::InsertRule { table, chain, rule: r, place } => match place {
                Some(place) => write!(f, "{} {chain} gets rule {place}: {}", table.name, rule(&r.text)),
                None => write!(f, "{} {chain} gets a last rule: {}", table.name, rule(&r.text)),
            },
            Change::DeleteRule { table, chain, place } => {
                write!(f, "{} {chain} loses rule {place}", table.name)
            }
            Change::ReplaceRule { table, chain, place, rule: r } => {
                write!(f, "{} {chain}: rule {place} becomes: {}", table.name, rule(&r.text))
            }
            Change::AddSet { table, set } => write!(f, "{} {} is made", table.name, set.name),
            Change::DeleteSet { table, set } => write!(f, "{} {set} is deleted", table.name),
            Change::AddElements { table, set } => {
                write!(f, "{} {} gets {}", table.name, set.name, many(elements(set)))
            }
            Change::DeleteElements { table, set } => {
                write!(f, "{} {} loses {}", table.name, set.name, many(elements(set)))
            }
            Change::CreateIpset(set) => write!(f, "set {} is made", set.name),
            Change::DestroyIpset(name) => write!(f, "set {name} is deleted"),
            Change::AddIpsetElements(set) => write!(f, "set {} gets {}", set.name, many(members(set))),
            Change::DeleteIpsetElements(set) => write!(f, "set {} loses {}", set.name, many(members(set))),
            Change::AddRoute(route) => write!(f, "route to {} added", route.destination),
            Change::DeleteRoute(key) => write!(f, "route to {} deleted", key.destination),
            Change::AddPolicyRule(rule) => write!(f, "policy rule {} added", rule.priority),
            Change::DeletePolicyRule(rule) => write!(f, "policy rule {} deleted", rule.priority),
            Change::AddAddress { interface, address } => {
                write!(f, "{interface} gets {}/{}", address.address, address.prefix_len)
            }
            Change::DeleteAddress { interface, address, .. } => write!(f, "{interface} loses {address}"),
            Change::Sysctl(key, value) => write!(f, "{key} = {value}"),
            Change::Link(device, up) => write!(f, "{device} goes {}", if *up { "up" } else { "down" }),
        }
    }
}

impl fmt::Display for HostChange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.host, self.change)
    }
}
