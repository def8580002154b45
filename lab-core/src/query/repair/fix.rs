//! One change of one host: made, applied, and told as a command. The only file
//! here that knows how changes are kept.

use ipnet::IpNet;

use crate::addr::Family;
use crate::formats::{iptables, nft_text};
use crate::model::{
    Backend, BaseChain, Chain, ChainKind, Hook, Host, Lab, Origin, Owner, Policy, RouteKey, Rule, RuleRef,
    Table, TableFamily, TableId, Text,
};
use crate::query::what_if::{what_if, Change, HostChange};
use crate::query::Error;

/// A chain of a host's table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ChainRef {
    pub backend: Backend,
    pub family: TableFamily,
    pub table: String,
    /// Whether the table speaks iptables.
    pub xtables: bool,
    pub chain: String,
}

impl ChainRef {
    /// The table of a host.
    pub fn table<'h>(&self, host: &'h Host) -> Option<&'h Table> {
        host.ruleset.tables.iter().find(|t| self.is(t))
    }

    /// The chain itself.
    pub fn find<'h>(&self, host: &'h Host) -> Option<&'h Chain> {
        self.table(host)?.chain(&self.chain)
    }

    fn is(&self, table: &Table) -> bool {
        (table.backend, table.family, table.xtables) == (self.backend, self.family, self.xtables)
            && table.name == self.table
    }

    /// The chain of a table.
    pub fn of(table: &Table, chain: &str) -> Self {
        ChainRef {
            backend: table.backend,
            family: table.family,
            table: table.name.clone(),
            xtables: table.xtables,
            chain: chain.to_owned(),
        }
    }

    /// The chain that a rule is in.
    pub fn of_rule(host: &Host, rule: &RuleRef) -> Option<Self> {
        let is = |t: &&Table| (t.backend, t.family, &t.name) == (rule.backend, rule.family, &rule.table);
        host.ruleset.tables.iter().find(is).map(|t| ChainRef::of(t, &rule.chain))
    }
}

/// A change of one host.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Fix {
    pub host: String,
    pub edit: Edit,
}

/// What is changed.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Edit {
    /// A rule is put into a chain; none: at its end.
    Rule {
        chain: ChainRef,
        place: Option<usize>,
        /// Its words, as the tool reads and prints them.
        text: String,
        /// The nft handle of the rule that it comes before.
        handle: Option<u64>,
        rule: Box<Rule>,
    },
    /// A route is added.
    Route { words: String, v6: bool, net: IpNet, change: Change },
    /// A route to a prefix in the main table is taken out.
    NoRoute { net: IpNet },
    /// A kernel setting is set.
    Sysctl { key: String, value: String },
    /// An interface goes up.
    Up { device: String },
}

impl Fix {
    /// A rule before a place of a chain, counted from 1, or at its end; none if
    /// its text is no rule.
    pub fn rule(host: &Host, chain: &ChainRef, place: Option<usize>, text: &str) -> Option<Fix> {
        let before = place.and_then(|p| chain.find(host)?.rules.get(p - 1));
        let (rule, text) = parsed(chain, text)?;
        let edit = Edit::Rule {
            chain: chain.clone(),
            place,
            text,
            handle: before.and_then(|r| r.handle),
            rule: Box::new(rule),
        };
        Some(Fix { host: host.name.clone(), edit })
    }

    /// A route, as `ip route add` takes it.
    pub fn route(host: &str, net: IpNet, rest: &str) -> Option<Fix> {
        let v6 = net.addr().is_ipv6();
        let words = format!(
            "{} {rest}",
            if v6 || net.prefix_len() < 32 { net.to_string() } else { net.addr().to_string() }
        );
        // The host's name may hold anything; what is parsed is the command.
        let parsed: HostChange = format!("x: ip route add {words}").parse().ok()?;
        let edit = Edit::Route { words, v6, net, change: parsed.change };
        Some(Fix { host: host.to_owned(), edit })
    }

    /// The rule of the host that a new rule comes before.
    pub fn before(&self, host: &Host) -> Option<(Text, Origin)> {
        let Edit::Rule { chain, place: Some(place), .. } = &self.edit else { return None };
        let rule = chain.find(host)?.rules.get(place.checked_sub(1)?)?;
        Some((rule.text.clone(), rule.origin.clone()))
    }

    fn change(&self) -> Change {
        match &self.edit {
            Edit::Rule { chain, place, rule, .. } => Change::InsertRule {
                table: TableId {
                    backend: Some(chain.backend),
                    family: chain.family,
                    name: chain.table.clone(),
                    xtables: chain.xtables,
                },
                chain: chain.chain.clone(),
                place: *place,
                rule: rule.clone(),
            },
            Edit::Route { change, .. } => change.clone(),
            Edit::NoRoute { net } => Change::DeleteRoute(Box::new(RouteKey::to(*net))),
            Edit::Sysctl { key, value } => Change::Sysctl(key.clone(), value.clone()),
            Edit::Up { device } => Change::Link(device.clone(), true),
        }
    }

    /// The command that does it, to be typed on its host.
    pub fn command(&self) -> String {
        match &self.edit {
            Edit::Rule { chain, place, text, .. } if chain.xtables => {
                let mut words = vec![program(chain).to_owned()];
                if chain.table != "filter" {
                    words.extend(["-t".to_owned(), quoted(&chain.table)]);
                }
                match place {
                    Some(1) => words.extend(["-I".to_owned(), quoted(&chain.chain)]),
                    Some(place) => words.extend(["-I".to_owned(), quoted(&chain.chain), place.to_string()]),
                    None => words.extend(["-A".to_owned(), quoted(&chain.chain)]),
                }
                words.push(text.clone());
                words.join(" ")
            }
            Edit::Rule { chain, place, text, handle, .. } => {
                let table = format!("{} {} {}", chain.family, quoted(&chain.table), quoted(&chain.chain));
                match (place, handle) {
                    (Some(1), _) => format!("nft insert rule {table} {}", quoted_all(text)),
                    (Some(_), Some(handle)) => {
                        format!("nft insert rule {table} position {handle} {}", quoted_all(text))
                    }
                    (Some(place), None) => {
                        format!("nft insert rule {table} index {} {}", place - 1, quoted_all(text))
                    }
                    (None, _) => format!("nft add rule {table} {}", quoted_all(text)),
                }
            }
            Edit::Route { words, v6, .. } => format!("ip {}route add {words}", if *v6 { "-6 " } else { "" }),
            Edit::NoRoute { net } => {
                format!("ip {}route del {net}", if net.addr().is_ipv6() { "-6 " } else { "" })
            }
            Edit::Sysctl { key, value } => format!("sysctl -w {}", quoted(&format!("{key}={value}"))),
            Edit::Up { device } => format!("ip link set {} up", quoted(device)),
        }
    }
}

/// The lab with changes, in order.
pub(super) fn apply(lab: &Lab, fixes: &[Fix]) -> Result<Lab, Error> {
    let mut changed = lab.clone();
    for fix in fixes {
        if let Edit::Rule { chain, .. } = &fix.edit {
            if let Some(host) = changed.host_mut(&fix.host) {
                built_in(host, chain);
            }
        }
        let change = fix.change();
        changed = what_if(&changed, &[HostChange { host: fix.host.clone(), change }])?;
    }
    Ok(changed)
}

/// The built-in chains of iptables' tables that rules are put into here:
/// iptables makes them with the first rule.
fn built_in(host: &mut Host, chain: &ChainRef) {
    if chain.find(host).is_none() {
        if let Some(table) = new_table(chain) {
            host.ruleset.tables.push(table);
        }
    }
}

/// iptables' table as it is before its first rule.
pub(super) fn new_table(chain: &ChainRef) -> Option<Table> {
    let hooks: &[(&str, Hook)] = match (chain.xtables, chain.table.as_str()) {
        (true, "filter") => &[("INPUT", Hook::Input), ("FORWARD", Hook::Forward), ("OUTPUT", Hook::Output)],
        _ => return None,
    };
    let made = |(name, hook): &(&str, Hook)| Chain {
        name: (*name).into(),
        base: Some(BaseChain { kind: ChainKind::Filter, hook: *hook, priority: 0, policy: Policy::Accept }),
        rules: Vec::new(),
        counters: None,
        handle: None,
        origin: Default::default(),
    };
    Some(Table {
        backend: chain.backend,
        family: chain.family,
        name: chain.table.clone(),
        xtables: true,
        chains: hooks.iter().map(made).collect(),
        sets: Vec::new(),
        unmodelled: Vec::new(),
        origin: Default::default(),
    })
}

fn program(chain: &ChainRef) -> &'static str {
    match (chain.family, chain.backend) {
        (TableFamily::Ip6, Backend::Legacy) => "ip6tables-legacy",
        (TableFamily::Ip6, Backend::Nft) => "ip6tables",
        (_, Backend::Legacy) => "iptables-legacy",
        (_, Backend::Nft) => "iptables",
    }
}

/// A rule of a text, as it would stand in its chain, and its text as its tool
/// prints it.
fn parsed(chain: &ChainRef, text: &str) -> Option<(Rule, String)> {
    let tables = if chain.xtables {
        let family = if chain.family == TableFamily::Ip6 { Family::Ipv6 } else { Family::Ipv4 };
        // Its chain's name means nothing to a rule.
        let document = format!("*{}\n:{NEW} - [0:0]\n-A {NEW} {text}\nCOMMIT\n", chain.table);
        iptables::parse("repair", document, family).ok()?
    } else {
        let document = format!("table {} t {{\n chain c {{\n  {text}\n }}\n}}\n", chain.family);
        nft_text::parse("repair", &document).ok()?
    };
    let text = match chain.xtables {
        true => {
            let printed = iptables::print(&tables, false);
            let line = printed.lines().find_map(|l| l.strip_prefix("-A ")?.strip_prefix(NEW));
            line?.trim_start().to_owned()
        }
        false => text.to_owned(),
    };
    let mut rule = tables.into_iter().flat_map(|t| t.chains).flat_map(|c| c.rules).next()?;
    rule.origin = Default::default();
    rule.owner = Owner::of_chain(&chain.table, &chain.chain);
    if chain.xtables {
        rule.text = format!("-A {} {text}", chain.chain).into();
    }
    Some((rule, text))
}

/// The chain that a rule is read in before its own is known.
const NEW: &str = "NEW";

/// A word as a shell takes it.
pub(super) fn quoted(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "_-./:@%+=,".contains(c);
    match !word.is_empty() && word.chars().all(plain) {
        true => word.to_owned(),
        false => format!("'{}'", word.replace('\'', "'\\''")),
    }
}

/// A rule of nft as a shell takes it: one word, if it has quotes in it.
fn quoted_all(text: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "_-./:@%+=, ".contains(c);
    match text.chars().all(plain) {
        true => text.to_owned(),
        false => format!("'{}'", text.replace('\'', "'\\''")),
    }
}
