//! The changes that repairs are made of: rules and routes of one host, made as
//! a person there would type them.

use ipnet::IpNet;

use crate::addr::Family;
use crate::formats::command::{parse, print, quoted};
use crate::formats::nft_text;
use crate::model::{
    Chain, Change, Host, Lab, Origin, Owner, Rule, RuleRef, Table, TableFamily, TableId, Text,
};
use crate::query::diff::tables::named;
use crate::query::what_if::{what_if, HostChange};

/// Where a rule can be put.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Spot {
    pub table: TableId,
    pub chain: String,
    /// Before the rule there, counted from 1; none: at the chain's end.
    pub place: Option<usize>,
}

impl Spot {
    /// A place in a chain of a table that a host has.
    pub fn of(host: &Host, table: &Table, chain: &str, place: Option<usize>) -> Self {
        Spot { table: named(&host.ruleset.tables, table), chain: chain.to_owned(), place }
    }

    /// The rule that `iptables` reads from words, put there; none if they are
    /// no rule.
    pub fn iptables(&self, host: &Host, words: &[String]) -> Option<HostChange> {
        let program = if self.table.family == TableFamily::Ip6 { "ip6tables" } else { "iptables" };
        let start = [program, "-t", &self.table.name, "-A", &self.chain];
        let command = quoted(start.into_iter().chain(words.iter().map(String::as_str))).ok()?;
        match parse(&command).ok()? {
            Change::InsertRule { rule, .. } => Some(self.put(host, *rule)),
            _ => None,
        }
    }

    /// The rule that `nft` reads from a text, put there; none if it is no rule.
    pub fn nft(&self, host: &Host, text: &str) -> Option<HostChange> {
        let document = format!("table {} t {{\n chain c {{\n  {text}\n }}\n}}\n", self.table.family);
        let tables = nft_text::parse("repair", &document).ok()?;
        let rule = tables.into_iter().flat_map(|t| t.chains).flat_map(|c| c.rules).next()?;
        Some(self.put(host, rule))
    }

    fn put(&self, host: &Host, rule: Rule) -> HostChange {
        // It stands in no file.
        let owner = Owner::of_chain(&self.table.name, &self.chain);
        let rule = Rule { origin: Origin::default(), owner, ..rule };
        let change = Change::InsertRule {
            table: self.table.clone(),
            chain: self.chain.clone(),
            place: self.place,
            rule: Box::new(rule),
        };
        HostChange { host: host.name.clone(), change }
    }
}

/// The table that a rule is in.
pub(super) fn table_of<'h>(host: &'h Host, rule: &RuleRef) -> Option<&'h Table> {
    let is = |t: &&Table| (t.backend, t.family, &t.name) == (rule.backend, rule.family, &rule.table);
    host.ruleset.tables.iter().find(is)
}

/// A chain by its names.
pub(super) fn chain_of<'h>(host: &'h Host, table: &TableId, chain: &str) -> Option<&'h Chain> {
    host.ruleset.tables.iter().find(|t| table.means(t))?.chain(chain)
}

/// A route as `ip route add` takes it: a prefix, and the words behind it.
pub(super) fn route(host: &Host, net: IpNet, rest: &[&str]) -> Option<HostChange> {
    let family: &[&str] = if Family::of(net.addr()) == Family::Ipv6 { &["-6"] } else { &[] };
    let net = net.to_string();
    let words = [&["ip"], family, &["route", "add", &net], rest].concat();
    Some(HostChange { host: host.name.clone(), change: parse(&quoted(words).ok()?).ok()? })
}

/// A kernel setting.
pub(super) fn sysctl(host: &str, key: impl Into<String>, value: &str) -> HostChange {
    HostChange { host: host.to_owned(), change: Change::Sysctl(key.into(), value.to_owned()) }
}

/// The rule that a new rule comes before, and where that stands.
pub(super) fn before(host: &Host, change: &Change) -> Option<(Text, Origin)> {
    let Change::InsertRule { table, chain, place: Some(place), .. } = change else { return None };
    let rule = chain_of(host, table, chain)?.rules.get(place.checked_sub(1)?)?;
    Some((rule.text.clone(), rule.origin.clone()))
}

/// The lab with changes, in order; none if a kernel would refuse one of them,
/// or if no command makes it.
pub(super) fn apply(lab: &Lab, changes: &[HostChange]) -> Option<Lab> {
    let mut now = lab.clone();
    for change in changes {
        print(now.host(&change.host)?, &change.change).ok()?;
        now = what_if(&now, std::slice::from_ref(change)).ok()?;
    }
    Some(now)
}
