use std::net::IpAddr;

use ipnet::IpNet;

use super::{joined, syntax, unsayable, Error, Words};
use crate::formats::names;
use crate::model::{Address, Change, Scope};

/// The scope of an address that none is given for: `default_scope` of
/// iproute2; for IPv6 the kernel tells it by the address alone.
pub(in crate::formats) fn usual_scope(address: IpAddr) -> Scope {
    match address {
        IpAddr::V4(address) if address.is_loopback() => Scope::Host,
        IpAddr::V6(address) if address.is_loopback() => Scope::Host,
        IpAddr::V6(address) if address.segments()[0] & 0xffc0 == 0xfe80 => Scope::Link,
        IpAddr::V6(address) if address.segments()[0] & 0xffc0 == 0xfec0 => Scope::Site,
        IpAddr::V4(_) | IpAddr::V6(_) => Scope::Global,
    }
}

fn ends(words: &mut Vec<String>, address: IpAddr, length: u8, peer: Option<IpAddr>) {
    match peer {
        None => words.push(format!("{address}/{length}")),
        Some(peer) => words.extend([address.to_string(), "peer".into(), format!("{peer}/{length}")]),
    }
}

pub(super) fn print_add(interface: &str, address: &Address) -> Result<String, Error> {
    if address.temporary {
        return unsayable(format!("{} is a temporary address", address.address));
    }
    let mut words: Vec<String> = ["ip", "addr", "add"].map(str::to_owned).into();
    ends(&mut words, address.address, address.prefix_len, address.peer);
    words.extend(["dev".into(), interface.into()]);
    if address.scope != usual_scope(address.address) {
        if address.address.is_ipv6() {
            return unsayable(format!("{} has a scope that is not its own", address.address));
        }
        words.extend(["scope".into(), names::scope_name(address.scope).into()]);
    }
    if address.deprecated {
        words.extend(["preferred_lft".into(), "0".into()]);
    }
    joined(&words)
}

pub(super) fn print_delete(interface: &str, address: IpNet, peer: Option<IpAddr>) -> Result<String, Error> {
    let mut words: Vec<String> = ["ip", "addr", "del"].map(str::to_owned).into();
    ends(&mut words, address.addr(), address.prefix_len(), peer);
    words.extend(["dev".into(), interface.into()]);
    joined(&words)
}

fn net(word: &str) -> Result<IpNet, Error> {
    names::net(word).ok_or_else(|| Error::Syntax(format!("`{word}` is no address")))
}

struct Told<'a> {
    local: IpNet,
    peer: Option<IpAddr>,
    interface: &'a str,
    scope: Option<Scope>,
    deprecated: bool,
}

fn parse<'a>(words: &'a [&'a str]) -> Result<Told<'a>, Error> {
    let mut words = Words::of(words);
    let mut local = net(words.value("ip addr")?)?;
    let (mut peer, mut interface, mut scope, mut deprecated) = (None, None, None, false);
    while let Some(word) = words.next() {
        match word {
            "dev" => interface = Some(words.value(word)?),
            "peer" => {
                // The length is that of the prefix that the peer is in.
                let other = net(words.value(word)?)?;
                if other.addr().is_ipv4() != local.addr().is_ipv4() {
                    return syntax("the peer is of another family");
                }
                peer = Some(other.addr());
                local = IpNet::new(local.addr(), other.prefix_len()).unwrap_or(local);
            }
            "scope" => scope = Some(words.named(word, "scope", names::scope)?),
            "preferred_lft" => {
                deprecated = match words.value(word)? {
                    "0" => true,
                    "forever" => false,
                    other => return syntax(format!("a lifetime of {other} is not understood here")),
                }
            }
            other => return syntax(format!("`{other}` is not understood here")),
        }
    }
    let Some(interface) = interface else { return syntax("write ip addr add|del ADDRESS dev DEVICE") };
    Ok(Told { local, peer, interface, scope, deprecated })
}

pub(super) fn parse_add(words: &[&str]) -> Result<Change, Error> {
    let told = parse(words)?;
    let address = told.local.addr();
    Ok(Change::AddAddress {
        interface: told.interface.to_owned(),
        address: Address {
            address,
            prefix_len: told.local.prefix_len(),
            peer: told.peer,
            scope: told.scope.filter(|_| address.is_ipv4()).unwrap_or(usual_scope(address)),
            secondary: false,
            deprecated: told.deprecated,
            temporary: false,
            tentative: false,
        },
    })
}

pub(super) fn parse_delete(words: &[&str]) -> Result<Change, Error> {
    let told = parse(words)?;
    Ok(Change::DeleteAddress { interface: told.interface.to_owned(), address: told.local, peer: told.peer })
}
