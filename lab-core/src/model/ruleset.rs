use std::fmt;

use serde::{Deserialize, Serialize};

use super::{Match, NftSet, Origin, Owner, Target, Text};
use crate::addr::Family;

/// Which machinery runs a table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Backend {
    /// `iptables-legacy` (x_tables).
    Legacy,
    /// nf_tables, be it `nft` or `iptables-nft`.
    Nft,
}

/// The family of a table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TableFamily {
    /// IPv4.
    Ip,
    /// IPv6.
    Ip6,
    /// Both.
    Inet,
    /// ARP.
    Arp,
    /// Frames on a bridge.
    Bridge,
    /// Frames at a device, before all else.
    Netdev,
}

impl TableFamily {
    /// Whether the table sees packets of an IP version.
    pub fn sees(self, family: Family) -> bool {
        match self {
            TableFamily::Ip => family == Family::Ipv4,
            TableFamily::Ip6 => family == Family::Ipv6,
            TableFamily::Inet => true,
            TableFamily::Arp | TableFamily::Bridge | TableFamily::Netdev => false,
        }
    }
}

impl fmt::Display for TableFamily {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            TableFamily::Ip => "ip",
            TableFamily::Ip6 => "ip6",
            TableFamily::Inet => "inet",
            TableFamily::Arp => "arp",
            TableFamily::Bridge => "bridge",
            TableFamily::Netdev => "netdev",
        })
    }
}

/// A point on a packet's way where base chains are run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Hook {
    /// At a device, before the network layer (nft netdev and inet ingress).
    Ingress,
    /// On arrival, before routing.
    Prerouting,
    /// Before delivery to this host.
    Input,
    /// Between two interfaces.
    Forward,
    /// Sent by this host.
    Output,
    /// On leaving.
    Postrouting,
}

impl fmt::Display for Hook {
    /// As iptables names its chains: `PREROUTING`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Hook::Ingress => "INGRESS",
            Hook::Prerouting => "PREROUTING",
            Hook::Input => "INPUT",
            Hook::Forward => "FORWARD",
            Hook::Output => "OUTPUT",
            Hook::Postrouting => "POSTROUTING",
        })
    }
}

/// What a base chain is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ChainKind {
    /// Accept or drop.
    Filter,
    /// Rewrite the first packet of a connection.
    Nat,
    /// Accept or drop, and route again what was changed (OUTPUT only).
    Route,
}

/// What happens at the end of a base chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Policy {
    /// Go on.
    Accept,
    /// Drop.
    Drop,
}

/// Where a chain is hooked in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BaseChain {
    /// What it is for.
    pub kind: ChainKind,
    /// The hook.
    pub hook: Hook,
    /// Lower runs first; iptables' tables are at -300 (raw), -150 (mangle),
    /// -100 (nat, destination), 0 (filter), 50 (security), 100 (nat, source).
    pub priority: i32,
    /// What happens at its end.
    pub policy: Policy,
}

/// One part of a rule, in the order the kernel runs them. An iptables rule is
/// some matches and at most one target; an nft rule may mix them.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Statement {
    /// A condition: the rule ends here for packets that do not meet it.
    Match(Match),
    /// An action.
    Target(Target),
}

/// A rule of a chain.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Rule {
    /// Its parts.
    pub statements: Vec<Statement>,
    /// Its text as read, without counters: `-A INPUT -i lo -j ACCEPT`, an
    /// nft rule's line, or the JSON of its expressions.
    pub text: Text,
    /// Its comment.
    pub comment: Option<Text>,
    /// Packets and bytes counted, if told.
    pub counters: Option<(u64, u64)>,
    /// Its nft handle, if told.
    pub handle: Option<u64>,
    /// Where it was read.
    pub origin: Origin,
    /// Who wrote it.
    pub owner: Owner,
}

/// A chain of rules.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Chain {
    /// Its name.
    pub name: Text,
    /// Where it is hooked in; none for a chain that others jump to.
    pub base: Option<BaseChain>,
    /// Its rules, in order. Rule numbers count from 1.
    pub rules: Vec<Rule>,
    /// Packets and bytes that its policy met, if told.
    pub counters: Option<(u64, u64)>,
    /// Its nft handle, if told.
    pub handle: Option<u64>,
    /// Where it was read.
    pub origin: Origin,
}

/// A table: chains that may jump to each other.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Table {
    /// The machinery that runs it.
    pub backend: Backend,
    /// Its family.
    pub family: TableFamily,
    /// Its name.
    pub name: String,
    /// Whether its rules speak iptables (an `iptables-save` file) and not nft.
    pub xtables: bool,
    /// Its chains, in the order read.
    pub chains: Vec<Chain>,
    /// Its named sets and maps (nft).
    pub sets: Vec<NftSet>,
    /// Objects of it that are not modelled (counters, flowtables, …), as read.
    pub unmodelled: Vec<super::Unmodelled>,
    /// Where it was read.
    pub origin: Origin,
}

impl Table {
    /// The chain of that name.
    pub fn chain(&self, name: &str) -> Option<&Chain> {
        self.chains.iter().find(|c| c.name == name)
    }

    /// The named set of that name.
    pub fn set(&self, name: &str) -> Option<&NftSet> {
        self.sets.iter().find(|s| s.name == name)
    }
}

/// Every table of a host.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Ruleset {
    /// The tables, in the order read.
    pub tables: Vec<Table>,
}
