//! Exchanging hosts: names and addresses put for others, all at once.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::hash::Hash;
use std::net::{IpAddr, Ipv4Addr};

use ipnet::{IpNet, Ipv4Net};
use rustc_hash::FxHashMap;

use super::facts::Word;
use crate::model::{Host, Lab};

/// Names and addresses put for others.
#[derive(Debug, Default)]
pub(super) struct Turn {
    /// Hosts and MAC addresses.
    pub words: FxHashMap<String, String>,
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
    pub(super) fn of(lab: &Lab, lists: &[&[String]]) -> Option<Self> {
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
    pub(super) fn word<'w>(&'w self, host: &str, word: &Word<'w>) -> Option<Word<'w>> {
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
