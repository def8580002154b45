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

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::hash::{BuildHasher, DefaultHasher, Hash, Hasher};
use std::net::{IpAddr, Ipv4Addr};

use foldhash::quality::FixedState;
use ipnet::{IpNet, Ipv4Net};
use rustc_hash::{FxHashMap, FxHashSet};
use serde::Serialize;
use serde_json::Value;

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

/// What hosts and links say, one route, rule or setting at a time, by hash.
struct Facts {
    items: FxHashMap<String, FxHashSet<u64>>,
}

/// A word of what is said.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Word<'a> {
    Text(Cow<'a, str>),
    Number(u64),
    Address(Ipv4Addr),
    Net(Ipv4Net),
    /// An interface of a host.
    End(&'a str, &'a str),
}

fn hash(words: &[Word]) -> u64 {
    // Good in every bit, for a proof rests on it: 2^-64 for a pair of items.
    FixedState::with_seed(0x6c61_622d_636f_7265).hash_one(words)
}

fn word(text: &str) -> Word<'static> {
    if let Ok(address) = text.parse::<Ipv4Addr>() {
        return Word::Address(address);
    }
    match text.parse::<IpNet>() {
        Ok(IpNet::V4(net)) => Word::Net(net),
        Ok(IpNet::V6(net)) if net.prefix_len() == 128 => Word::Text(net.addr().to_string().into()),
        _ => Word::Text(text.to_owned().into()),
    }
}

fn address(address: IpAddr) -> Word<'static> {
    match address {
        IpAddr::V4(a) => Word::Address(a),
        IpAddr::V6(a) => Word::Text(a.to_string().into()),
    }
}

/// What says nothing about what a host does.
const SILENT: [&str; 7] = ["origin", "text", "comment", "counters", "handle", "owner", "index"];

/// The words of a value, in order. An address with a mask is a prefix.
fn words(value: &Value, into: &mut Vec<Word<'static>>) {
    match value {
        Value::Object(map) => {
            if let (2, Some(Value::String(address)), Some(Value::String(mask))) =
                (map.len(), map.get("address"), map.get("mask"))
            {
                if let (Ok(address), Ok(mask)) = (address.parse::<Ipv4Addr>(), mask.parse::<Ipv4Addr>()) {
                    if let Ok(net) = Ipv4Net::with_netmask(address, mask) {
                        into.push(Word::Net(net));
                        return;
                    }
                }
            }
            for (key, inner) in map.iter().filter(|(k, _)| !SILENT.contains(&k.as_str())) {
                into.push(Word::Text(key.clone().into()));
                words(inner, into);
            }
        }
        Value::Array(list) => {
            into.push(Word::Number(list.len() as u64));
            list.iter().for_each(|inner| words(inner, into));
        }
        Value::String(text) => into.push(word(text)),
        other => into.push(Word::Text(other.to_string().into())),
    }
}

fn said<'a>(kind: &'static str, place: usize, value: &impl Serialize) -> Vec<Word<'a>> {
    let mut all = vec![Word::Text(kind.into()), Word::Number(place as u64)];
    // Plain values always are JSON; what is not, is like nothing else.
    words(&serde_json::to_value(value).unwrap_or(Value::Null), &mut all);
    all
}

/// Routes are many: told without a detour.
fn route<'a>(route: &'a crate::model::Route, all: &mut Vec<Word<'a>>) {
    let text = |t: &'a str| Word::Text(Cow::Borrowed(t));
    let number = |n: u32| Word::Number(n.into());
    let net = |net: IpNet| match net {
        IpNet::V4(net) => Word::Net(net),
        IpNet::V6(net) if net.prefix_len() == 128 => Word::Text(net.addr().to_string().into()),
        IpNet::V6(net) => Word::Text(net.to_string().into()),
    };
    all.extend([text("route"), net(route.destination), number(route.kind as u32), number(route.table.0)]);
    all.extend([number(route.metric), number(route.tos.into()), number(route.scope as u32)]);
    all.extend([number(route.mtu.map_or(0, |m| m + 1)), text(&route.protocol), text(&route.unmodelled)]);
    all.extend(route.source.map(net));
    all.extend(route.prefsrc.map(address));
    for hop in &route.next_hops {
        all.push(text("via"));
        all.extend(hop.gateway.map(address));
        all.extend(hop.interface.as_deref().map(text));
        let flags = u32::from(hop.onlink) | u32::from(hop.dead) << 1 | u32::from(hop.linkdown) << 2;
        all.extend([number(hop.weight), number(flags)]);
    }
}

/// Says everything that a lab says, host by host; links under the empty name.
fn tell<'a>(lab: &'a Lab, mut each: impl FnMut(&'a str, &[Word<'a>]) -> bool) -> bool {
    let mut buffer: Vec<Word<'a>> = Vec::new();
    for host in lab.all_hosts() {
        let name = host.name.as_str();
        for r in &host.routes {
            buffer.clear();
            route(r, &mut buffer);
            if !each(name, &buffer) {
                return false;
            }
        }
        let mut rest: Vec<Vec<Word<'a>>> = Vec::new();
        for (place, interface) in host.interfaces.iter().enumerate() {
            // Only where addresses are is an interface's place asked about.
            let place = if interface.addresses.is_empty() { 0 } else { place + 1 };
            rest.push(said("interface", place, interface));
        }
        rest.extend(host.rules.iter().enumerate().map(|(i, r)| said("policy", i, r)));
        rest.extend(host.neighbours.iter().map(|n| said("neighbour", 0, n)));
        rest.extend(host.fdb.iter().map(|e| said("fdb", 0, e)));
        for (key, value) in &host.sysctls.0 {
            // The name of an interface may be a part of it.
            let mut all = vec![Word::Text("sysctl".into())];
            all.extend(key.split('.').map(|part| Word::Text(part.into())));
            all.push(Word::Text(value.as_str().into()));
            rest.push(all);
        }
        rest.extend(host.ipsets.iter().map(|s| said("set", 0, &s)));
        for (t, table) in host.ruleset.tables.iter().enumerate() {
            for chain in &table.chains {
                let head = (table.backend, table.family, &table.name, &chain.name, chain.base);
                rest.push(said("chain", t, &head));
                for (place, rule) in chain.rules.iter().enumerate() {
                    let about = (&table.name, table.family, &chain.name, &rule.statements);
                    rest.push(said("rule", place, &about));
                }
            }
        }
        if !rest.iter().all(|item| each(name, item)) {
            return false;
        }
    }
    for (number, link) in lab.links.iter().enumerate() {
        let mut ends: Vec<Word<'a>> =
            link.endpoints.iter().map(|e| Word::End(&e.host, &e.interface)).collect();
        if ends.len() == 2 {
            // Either end may come first.
            let turned = [ends[1].clone(), ends[0].clone()];
            if !each("", &ends) || !each("", &turned) {
                return false;
            }
            continue;
        }
        // A link of many is told end by end.
        for end in ends.drain(..) {
            if !each("", &[Word::Number(number as u64), end]) {
                return false;
            }
        }
    }
    true
}

impl Facts {
    fn of(lab: &Lab) -> Self {
        let mut items: FxHashMap<String, FxHashSet<u64>> = FxHashMap::default();
        tell(lab, |host, words| {
            match items.get_mut(host) {
                Some(known) => {
                    known.insert(hash(words));
                }
                None => {
                    items.insert(host.to_owned(), [hash(words)].into_iter().collect());
                }
            }
            true
        });
        Facts { items }
    }

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
            self.items.get(there).is_some_and(|items| items.contains(&hash(&turned)))
        })
    }
}

/// Names and addresses put for others.
#[derive(Debug, Default)]
struct Turn {
    /// Hosts and MAC addresses.
    words: FxHashMap<String, String>,
    /// Interfaces of a host that lead to hosts that are put for others.
    ends: FxHashMap<String, FxHashMap<String, String>>,
    /// Single addresses.
    addresses: FxHashMap<Ipv4Addr, Ipv4Addr>,
    /// Subnets, all of one size that does not overlap.
    nets: BTreeMap<Ipv4Net, Ipv4Net>,
}

/// Puts one thing for another, and nothing else for the same.
fn put<K: Eq + Hash>(map: &mut FxHashMap<K, K>, from: K, to: K) -> Option<()> {
    if from == to {
        return Some(());
    }
    match map.get(&from) {
        Some(known) if *known != to => None,
        Some(_) => Some(()),
        None => {
            map.insert(from, to);
            Some(())
        }
    }
}

impl Turn {
    fn of(lab: &Lab, lists: &[&[String]]) -> Option<Self> {
        let mut turn = Turn::default();
        for (index, ours) in lists.iter().enumerate() {
            let theirs = lists[(index + 1) % lists.len()];
            if ours.len() != theirs.len() {
                return None;
            }
            for (a, b) in ours.iter().zip(theirs) {
                put(&mut turn.words, a.clone(), b.clone())?;
                turn.devices(lab.host(a)?, lab.host(b)?)?;
                // What leads to a host that hangs on another goes with it.
                if ours.len() == 1 {
                    turn.leading(lab, lab.host(a)?, lab.host(b)?)?;
                }
            }
        }
        // A bijection: what something is put for is put for something.
        let whole = turn.words.values().all(|v| turn.words.contains_key(v))
            && turn.addresses.values().all(|v| turn.addresses.contains_key(v))
            && turn.nets.values().all(|v| turn.nets.contains_key(v));
        whole.then_some(turn)
    }

    fn devices(&mut self, a: &Host, b: &Host) -> Option<()> {
        if a.interfaces.len() != b.interfaces.len() {
            return None;
        }
        for (x, y) in a.interfaces.iter().zip(&b.interfaces) {
            if let (Some(m), Some(n)) = (x.mac, y.mac) {
                put(&mut self.words, m.to_string(), n.to_string())?;
            }
            if x.addresses.len() != y.addresses.len() {
                return None;
            }
            for (p, q) in x.addresses.iter().zip(&y.addresses) {
                let (IpAddr::V4(m), IpAddr::V4(n)) = (p.address, q.address) else {
                    put(&mut self.words, p.address.to_string(), q.address.to_string())?;
                    continue;
                };
                let (Some(IpNet::V4(own)), Some(IpNet::V4(other))) = (p.net(), q.net()) else { return None };
                let (own, other) = (own.trunc(), other.trunc());
                if own == other {
                    put(&mut self.addresses, m, n)?;
                } else {
                    // One size, so that none lies in another.
                    let size = self.nets.keys().next().map(|net| net.prefix_len());
                    if own.prefix_len() != other.prefix_len() || size.is_some_and(|s| s != own.prefix_len()) {
                        return None;
                    }
                    if self.nets.insert(own, other).is_some_and(|known| known != other) {
                        return None;
                    }
                }
            }
        }
        Some(())
    }

    fn leading(&mut self, lab: &Lab, a: &Host, b: &Host) -> Option<()> {
        let far =
            |host: &Host| host.interfaces.iter().find_map(|i| lab.peers(&host.name, &i.name).next().cloned());
        let (Some(x), Some(y)) = (far(a), far(b)) else { return Some(()) };
        if x.host != y.host {
            return None;
        }
        let on = lab.host(&x.host)?;
        let (p, q) = (on.interface(&x.interface)?, on.interface(&y.interface)?);
        put(self.ends.entry(x.host).or_default(), x.interface, y.interface)?;
        if let (Some(m), Some(n)) = (p.mac, q.mac) {
            put(&mut self.words, m.to_string(), n.to_string())?;
        }
        Some(())
    }

    /// The subnet that is put for another and holds an address.
    fn net_of(&self, address: Ipv4Addr) -> Option<(&Ipv4Net, &Ipv4Net)> {
        let size = self.nets.keys().next()?.prefix_len();
        let net = Ipv4Net::new(address, size).ok()?.trunc();
        self.nets.get_key_value(&net)
    }

    fn address(&self, address: Ipv4Addr) -> Ipv4Addr {
        if let Some(other) = self.addresses.get(&address) {
            return *other;
        }
        match self.net_of(address) {
            Some((from, to)) => {
                let inside = address.to_bits() & !from.netmask().to_bits();
                Ipv4Addr::from_bits(to.network().to_bits() | inside)
            }
            None => address,
        }
    }

    /// A word as it is then; none if it holds some of what is put for each
    /// other, and not all.
    fn word<'w>(&'w self, host: &str, word: &Word<'w>) -> Option<Word<'w>> {
        Some(match word {
            Word::Text(text) => {
                let here = self.ends.get(host).and_then(|ends| ends.get(text.as_ref()));
                match here.or_else(|| self.words.get(text.as_ref())) {
                    Some(other) => Word::Text(Cow::Borrowed(other)),
                    None => word.clone(),
                }
            }
            Word::Number(_) => word.clone(),
            Word::End(of, interface) => {
                let device = self.ends.get(*of).and_then(|ends| ends.get(*interface));
                let there = self.words.get(*of).map_or(*of, String::as_str);
                Word::End(there, device.map_or(*interface, String::as_str))
            }
            Word::Address(address) => Word::Address(self.address(*address)),
            Word::Net(net) => {
                let size = self.nets.keys().next().map_or(33, |n| n.prefix_len());
                let inside = net.prefix_len() >= size && self.net_of(net.addr()).is_some();
                if net.prefix_len() == 32 || inside {
                    return Some(Word::Net(Ipv4Net::new(self.address(net.addr()), net.prefix_len()).ok()?));
                }
                // A subnet that is not put for another must hold all or none
                // of what is.
                let all = |mut held: Box<dyn Iterator<Item = bool> + '_>| match held.next() {
                    Some(first) => held.all(|h| h == first),
                    None => true,
                };
                let addresses = all(Box::new(self.addresses.keys().map(|a| net.contains(a))));
                let nets = all(Box::new(self.nets.keys().map(|n| net.contains(n))));
                (addresses && nets).then(|| word.clone())?
            }
        })
    }
}
