//! What a lab says, as sets of hashed words: a lab with some hosts exchanged is
//! the same lab if it says the same.

use std::borrow::Cow;
use std::hash::BuildHasher;
use std::net::{IpAddr, Ipv4Addr};

use foldhash::quality::FixedState;
use ipnet::{IpNet, Ipv4Net};
use rustc_hash::{FxHashMap, FxHashSet};
use serde::Serialize;
use serde_json::Value;

use crate::model::{Lab, Route};

/// What hosts and links say, one route, rule or setting at a time, by hash.
pub(super) struct Facts {
    items: FxHashMap<String, FxHashSet<u64>>,
}

/// A word of what is said.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum Word<'a> {
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
fn route<'a>(route: &'a Route, all: &mut Vec<Word<'a>>) {
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
pub(super) fn tell<'a>(lab: &'a Lab, mut each: impl FnMut(&'a str, &[Word<'a>]) -> bool) -> bool {
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
    pub(super) fn of(lab: &Lab) -> Self {
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

    /// Whether a host says something.
    pub(super) fn holds(&self, host: &str, words: &[Word]) -> bool {
        self.items.get(host).is_some_and(|items| items.contains(&hash(words)))
    }
}
