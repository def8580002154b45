//! Hosts that are treated alike, kept as one class.
//!
//! Two hosts are alike when the lab, with the two exchanged, is the same lab:
//! names, addresses and MAC addresses of the one put for those of the other,
//! and so for what hangs on them, in every route, rule and table of every
//! host. What then holds for one pair holds for every pair that such exchanges
//! lead to.
//!
//! An exchange is proved, not guessed: every item that mentions something
//! exchanged must be there again, on the same host or its counterpart. Where
//! something is said in a form that cannot be exchanged (address ranges, nft
//! numbers, IPv6 addresses but link-local ones), nobody is taken to be alike.

mod facts;
mod turn;

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::net::IpAddr;

use rustc_hash::{FxHashMap, FxHashSet};
use serde::Serialize;

use self::facts::{tell, Facts, Word};
use self::turn::Turn;
use super::matrix::{matrix_between, Answer, Service};
use super::Error;
use crate::addr::Family;
use crate::model::{Host, InterfaceKind, IpsetItem, Lab, Match, NatAddress, Statement, Target};

/// Hosts that are alike.
#[derive(Clone, Debug, Serialize)]
pub struct Class {
    /// The hosts, in order; the first stands for all.
    pub hosts: Vec<String>,
}

/// How two hosts of classes stand to each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Relation {
    /// They hang on one host, or the one hangs on the other.
    Together,
    /// They do not.
    Apart,
}

/// What holds between every two hosts of two classes in one relation.
#[derive(Clone, Debug, Serialize)]
pub struct ClassCell {
    /// The senders' class, by index.
    pub from: usize,
    /// The receivers' class, by index.
    pub to: usize,
    /// How the two stand to each other.
    pub relation: Relation,
    /// How many pairs there are.
    pub pairs: u64,
    /// Whether they reach each other.
    pub answer: Answer,
}

/// Classes by classes.
#[derive(Clone, Debug, Serialize)]
pub struct ClassMatrix {
    /// The form of this value: `lab.class-matrix/1`.
    pub schema: &'static str,
    /// The service.
    pub service: Service,
    /// The classes.
    pub classes: Vec<Class>,
    /// The cells.
    pub cells: Vec<ClassCell>,
}

/// The classes of a lab's hosts, and on whom each host hangs.
#[derive(Clone, Debug)]
pub struct Classes {
    /// The classes.
    pub classes: Vec<Class>,
    /// Each host's class, by index.
    pub class_of: BTreeMap<String, usize>,
    /// The group of each host: itself with what hangs on it, by the name of
    /// the one they hang on.
    pub group_of: BTreeMap<String, String>,
}

/// Finds classes of hosts that are alike.
///
/// Cost: for a lab whose hosts say m things in all (routes, rules, settings),
/// O(m) for each kind of host that there is.
pub fn classes(lab: &Lab) -> Classes {
    let groups = groups(lab);
    let mut group_of: BTreeMap<String, String> = BTreeMap::new();
    for (head, members) in &groups {
        for member in members {
            group_of.insert(member.clone(), head.clone());
        }
    }
    let mut parts: Vec<Vec<String>> = Vec::new();
    if exchangeable(lab) {
        let facts = Facts::of(lab);
        // Groups that look alike at first sight; then it is proved.
        let mut looks: BTreeMap<u64, Vec<&String>> = BTreeMap::new();
        for (head, members) in &groups {
            looks.entry(look(lab, members)).or_default().push(head);
        }
        for heads in looks.into_values() {
            let lists: Vec<&[String]> = heads.iter().map(|h| groups[*h].as_slice()).collect();
            if facts.all_alike(lab, &lists) {
                let first = lists[0];
                for kind in kinds(lab, &facts, first) {
                    parts.push(lists.iter().flat_map(|l| kind.iter().map(|i| l[*i].clone())).collect());
                }
            } else {
                for list in lists {
                    for kind in kinds(lab, &facts, list) {
                        parts.push(kind.into_iter().map(|i| list[i].clone()).collect());
                    }
                }
            }
        }
        parts.sort();
    } else {
        parts.extend(lab.hosts.keys().map(|name| vec![name.clone()]));
    }
    let mut class_of = BTreeMap::new();
    for (index, hosts) in parts.iter().enumerate() {
        for host in hosts {
            class_of.insert(host.clone(), index);
        }
    }
    Classes { classes: parts.into_iter().map(|hosts| Class { hosts }).collect(), class_of, group_of }
}

/// The members of a group by who is like whom; the head is like none.
fn kinds(lab: &Lab, facts: &Facts, group: &[String]) -> Vec<Vec<usize>> {
    let rest: Vec<&[String]> = group.iter().skip(1).map(std::slice::from_ref).collect();
    if rest.len() > 1 && facts.all_alike(lab, &rest) {
        return vec![vec![0], (1..group.len()).collect()];
    }
    (0..group.len()).map(|i| vec![i]).collect()
}

/// What is the same of groups that are alike: the numbers of things.
fn look(lab: &Lab, members: &[String]) -> u64 {
    let mut hasher = DefaultHasher::new();
    for host in members.iter().filter_map(|m| lab.host(m)) {
        let rules: usize = host.ruleset.tables.iter().flat_map(|t| &t.chains).map(|c| c.rules.len()).sum();
        let names: Vec<&str> = host.interfaces.iter().map(|i| i.name.as_str()).collect();
        (names, host.routes.len(), host.sysctls.0.len(), host.ipsets.len(), rules).hash(&mut hasher);
    }
    hasher.finish()
}

/// Who reaches whom, class by class, for one service.
///
/// Cost: that of [`classes`], and a run of the engine for one host of each
/// class.
///
/// # Errors
/// Packet sets that outgrow their budget.
pub fn class_matrix(lab: &Lab, service: Service, family: Option<Family>) -> Result<ClassMatrix, Error> {
    let found = classes(lab);
    let mut cells = Vec::new();
    for (from, senders) in found.classes.iter().enumerate() {
        let sender = &senders.hosts[0];
        let group = &found.group_of[sender];
        // One receiver for each class and relation.
        let mut wanted: BTreeMap<(usize, Relation), (&String, u64)> = BTreeMap::new();
        for (to, receivers) in found.classes.iter().enumerate() {
            for receiver in receivers.hosts.iter().filter(|r| *r != sender) {
                let relation =
                    if found.group_of[receiver] == *group { Relation::Together } else { Relation::Apart };
                wanted.entry((to, relation)).or_insert((receiver, 0)).1 += 1;
            }
        }
        let receivers: BTreeSet<&String> = wanted.values().map(|(receiver, _)| *receiver).collect();
        let answers = matrix_between(lab, &[service], family, sender, &receivers)?;
        for ((to, relation), (receiver, count)) in wanted {
            let answer = answers.iter().find(|c| c.to == **receiver).map_or(Answer::NoAddress, |c| c.answer);
            let pairs = count * senders.hosts.len() as u64;
            cells.push(ClassCell { from, to, relation, pairs, answer });
        }
    }
    Ok(ClassMatrix { schema: "lab.class-matrix/1", service, classes: found.classes, cells })
}

/// Every host with those that hang on it: hosts with one wired interface,
/// whose wire leads to it alone. A host that hangs on none is a head.
fn groups(lab: &Lab) -> BTreeMap<String, Vec<String>> {
    let mut wires: FxHashMap<(&str, &str), (&str, &str)> = FxHashMap::default();
    let mut shared: FxHashSet<&str> = FxHashSet::default();
    let mut count: FxHashMap<&str, usize> = FxHashMap::default();
    for link in &lab.links {
        for end in &link.endpoints {
            *count.entry(&end.host).or_default() += 1;
            if link.endpoints.len() != 2 {
                shared.insert(&end.host);
            }
        }
        if let [a, b] = link.endpoints.as_slice() {
            wires.insert((&a.host, &a.interface), (&b.host, &b.interface));
            wires.insert((&b.host, &b.interface), (&a.host, &a.interface));
        }
    }
    let hangs = |host: &str| count.get(host) == Some(&1) && !shared.contains(host);
    let mut groups: BTreeMap<String, Vec<String>> = BTreeMap::new();
    let mut members: HashSet<&str> = HashSet::new();
    for host in lab.all_hosts().filter(|h| !hangs(&h.name)) {
        let group = groups.entry(host.name.clone()).or_default();
        group.push(host.name.clone());
        for interface in &host.interfaces {
            if let Some((peer, _)) = wires.get(&(host.name.as_str(), interface.name.as_str())) {
                if hangs(peer) && members.insert(peer) {
                    group.push((*peer).to_owned());
                }
            }
        }
    }
    for host in lab.all_hosts().filter(|h| hangs(&h.name) && !members.contains(h.name.as_str())) {
        groups.insert(host.name.clone(), vec![host.name.clone()]);
    }
    groups
}

/// Whether everything a lab says is said in a form that can be exchanged.
fn exchangeable(lab: &Lab) -> bool {
    let range = |a: &IpAddr, b: &IpAddr| a != b;
    let rule = |s: &Statement| match s {
        Statement::Match(Match::Nft(_) | Match::IpRange { .. } | Match::Unmodelled { .. }) => false,
        Statement::Target(Target::VerdictMap { .. } | Target::Mangle(..) | Target::Unmodelled { .. }) => {
            false
        }
        Statement::Target(Target::Nat { range: nat, .. }) => match &nat.address {
            Some(NatAddress::Range(a, b)) => !range(a, b),
            Some(NatAddress::Computed(_)) => false,
            None => true,
        },
        _ => true,
    };
    let plain = |host: &Host| {
        let local = |a: &IpAddr| match a {
            IpAddr::V4(_) => true,
            IpAddr::V6(a) => a.is_loopback() || a.segments()[0] & 0xffc0 == 0xfe80,
        };
        host.unmodelled.is_empty()
            && host.unknown.is_empty()
            && host.interfaces.iter().flat_map(|i| &i.addresses).all(|a| local(&a.address))
            && host.interfaces.iter().all(|i| !matches!(i.kind, InterfaceKind::Other(_)))
            && host
                .ipsets
                .values()
                .flat_map(|s| &s.elements)
                .flat_map(|e| &e.items)
                .all(|item| !matches!(item, IpsetItem::Range(a, b) if range(a, b)))
            && host
                .ruleset
                .tables
                .iter()
                .flat_map(|t| &t.chains)
                .flat_map(|c| &c.rules)
                .flat_map(|r| &r.statements)
                .all(rule)
    };
    lab.unmodelled.is_empty() && lab.all_hosts().all(plain)
}

impl Facts {
    /// Whether a lab is the same whichever of these lists of hosts are
    /// exchanged, one for one: it is if it is with the first two exchanged,
    /// and with each put for the one before it, for these two lead to every
    /// order.
    fn all_alike(&self, lab: &Lab, lists: &[&[String]]) -> bool {
        match lists {
            [] | [_] => true,
            [a, b] => self.stays(lab, &[a, b]),
            [a, b, ..] => self.stays(lab, &[a, b]) && self.stays(lab, lists),
        }
    }

    /// Whether a lab is the same with each of these lists put for the one
    /// before it, and the first for the last.
    fn stays(&self, lab: &Lab, lists: &[&[String]]) -> bool {
        let Some(turn) = Turn::of(lab, lists) else { return false };
        let mut turned: Vec<Word> = Vec::new();
        tell(lab, |host, words| {
            turned.clear();
            for word in words {
                match turn.word(host, word) {
                    Some(word) => turned.push(word),
                    None => return false,
                }
            }
            let there = turn.words.get(host).map_or(host, String::as_str);
            self.holds(there, &turned)
        })
    }
}
