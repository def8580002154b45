//! A lab with a change: "and if this rule were there?"

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use ipnet::IpNet;

use super::ends;
use super::Error;
use crate::addr::Family;
use crate::formats::iptables;
use crate::model::{
    Address, Host, Lab, NextHop, Origin, Route, RouteKind, RouteTable, Rule, Scope, TableFamily,
};

/// What is changed on a host.
#[derive(Clone, Debug, PartialEq)]
pub enum Change {
    /// A rule is put into a chain at a place, counted from 1; none: at its end.
    InsertRule {
        /// IPv4 or IPv6.
        family: Family,
        /// The table.
        table: String,
        /// The chain.
        chain: String,
        /// The place.
        place: Option<usize>,
        /// The rule.
        rule: Box<Rule>,
    },
    /// The rule at a place of a chain, counted from 1, is taken out.
    DeleteRule {
        /// IPv4 or IPv6.
        family: Family,
        /// The table.
        table: String,
        /// The chain.
        chain: String,
        /// The place.
        place: usize,
    },
    /// A route is added.
    AddRoute(Box<Route>),
    /// The route to a prefix in the main table is taken out; of several the
    /// one with the least metric.
    DeleteRoute(IpNet),
    /// An interface gets an address.
    AddAddress(String, IpNet),
    /// An interface loses an address.
    DeleteAddress(String, IpNet),
    /// A kernel setting is set.
    Sysctl(String, String),
    /// An interface goes up or down.
    Link(String, bool),
}

/// A change of one host, as a user would type it there:
/// `HOST: iptables -I FORWARD 1 -s 10.0.0.0/8 -j ACCEPT`,
/// `HOST: ip route add 10.0.0.0/8 via 192.168.0.1`,
/// `HOST: ip addr add 10.0.0.1/24 dev eth0`,
/// `HOST: ip link set eth0 down`, `HOST: sysctl -w net.ipv4.ip_forward=0`.
#[derive(Clone, Debug, PartialEq)]
pub struct HostChange {
    /// The host.
    pub host: String,
    /// What is changed.
    pub change: Change,
}

impl FromStr for HostChange {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let unfit = |why: &str| Error::Unfit(format!("`{text}`: {why}"));
        let (host, command) = text.split_once(": ").ok_or_else(|| unfit("write HOST: COMMAND"))?;
        let words: Vec<&str> = command.split_whitespace().collect();
        let change = match words.as_slice() {
            ["iptables", rest @ ..] => rule_change(Family::Ipv4, rest, command).map_err(|e| unfit(&e))?,
            ["ip6tables", rest @ ..] => rule_change(Family::Ipv6, rest, command).map_err(|e| unfit(&e))?,
            ["ip", rest @ ..] => {
                let v6 = rest.contains(&"-6");
                let rest: Vec<&str> = rest.iter().copied().filter(|w| !matches!(*w, "-4" | "-6")).collect();
                ip_change(&rest, v6).map_err(|e| unfit(&e))?
            }
            ["sysctl", rest @ ..] => {
                let setting = rest.iter().copied().filter(|w| *w != "-w").collect::<Vec<_>>().join(" ");
                let (key, value) = setting.split_once('=').ok_or_else(|| unfit("write KEY=VALUE"))?;
                Change::Sysctl(key.trim().to_owned(), value.trim().to_owned())
            }
            _ => return Err(unfit("only iptables, ip6tables, ip and sysctl commands are understood")),
        };
        Ok(HostChange { host: host.trim().to_owned(), change })
    }
}

/// `-I CHAIN [PLACE] RULE`, `-A CHAIN RULE`, `-D CHAIN PLACE`, with `-t TABLE`.
fn rule_change(family: Family, words: &[&str], command: &str) -> Result<Change, String> {
    let mut table = "filter".to_owned();
    let mut rest: Vec<&str> = Vec::new();
    let mut words = words.iter();
    while let Some(word) = words.next() {
        match *word {
            "-t" | "--table" => table = (*words.next().ok_or("-t without a table")?).to_owned(),
            "-w" | "--wait" => {}
            other => rest.push(other),
        }
    }
    let (verb, chain) = match rest.as_slice() {
        [verb, chain, ..] => (*verb, (*chain).to_owned()),
        _ => return Err("write -I CHAIN …, -A CHAIN … or -D CHAIN PLACE".into()),
    };
    let number = rest.get(2).and_then(|w| w.parse::<usize>().ok());
    if matches!(verb, "-D" | "--delete") {
        let place = number.ok_or("write -D CHAIN PLACE, the rule's number from 1")?;
        return Ok(Change::DeleteRule { family, table, chain, place });
    }
    let place = match verb {
        "-A" | "--append" => None,
        "-I" | "--insert" => Some(number.unwrap_or(1)),
        other => return Err(format!("{other} is not understood here")),
    };
    // The rule's own words, quotes kept: what follows the chain and place.
    let skip = 2 + usize::from(place.is_some() && number.is_some());
    let spec = after_words(command, &chain, skip - 2);
    let document = format!("*{table}\n:{chain} - [0:0]\n-A {chain} {spec}\nCOMMIT\n");
    let tables = iptables::parse("command", document, family).map_err(|e| e.to_string())?;
    let rule = tables
        .into_iter()
        .flat_map(|t| t.chains)
        .find(|c| c.name == *chain)
        .and_then(|c| c.rules.into_iter().next())
        .ok_or("no rule in it")?;
    Ok(Change::InsertRule { family, table, chain, place, rule: Box::new(rule) })
}

/// What follows a word and so many more.
fn after_words<'t>(text: &'t str, word: &str, more: usize) -> &'t str {
    let mut rest = match text.split_once(word) {
        Some((_, rest)) => rest.trim_start(),
        None => text,
    };
    for _ in 0..more {
        rest = rest.split_once(char::is_whitespace).map_or("", |(_, rest)| rest.trim_start());
    }
    // `-t TABLE` may stand behind.
    rest
}

fn ip_change(words: &[&str], v6: bool) -> Result<Change, String> {
    let net = |text: &str| -> Result<IpNet, String> {
        if text == "default" {
            // A gateway tells the family as well as -6 does.
            let v6 = v6 || words.iter().any(|w| w.parse::<std::net::Ipv6Addr>().is_ok());
            return Ok(match v6 {
                true => IpNet::V6(ipnet::Ipv6Net::default()),
                false => IpNet::V4(ipnet::Ipv4Net::default()),
            });
        }
        let parsed = text.parse::<IpNet>().ok();
        parsed
            .or_else(|| text.parse::<IpAddr>().ok().map(IpNet::from))
            .ok_or(format!("`{text}` is no prefix"))
    };
    match words {
        ["route" | "r", "del" | "delete", prefix] => Ok(Change::DeleteRoute(net(prefix)?.trunc())),
        ["route" | "r", "del" | "delete", ..] => Err("write ip route del PREFIX, and nothing more".into()),
        ["route" | "r", "add" | "replace", rest @ ..] => {
            let (kind, rest) = match rest {
                ["blackhole", rest @ ..] => (RouteKind::Blackhole, rest),
                ["unreachable", rest @ ..] => (RouteKind::Unreachable, rest),
                ["prohibit", rest @ ..] => (RouteKind::Prohibit, rest),
                rest => (RouteKind::Unicast, rest),
            };
            let [prefix, rest @ ..] = rest else { return Err("write ip route add PREFIX …".into()) };
            route(kind, net(prefix)?.trunc(), rest).map(|r| Change::AddRoute(Box::new(r)))
        }
        ["addr" | "address" | "a", "add", prefix, "dev", device] => {
            Ok(Change::AddAddress((*device).to_owned(), net(prefix)?))
        }
        ["addr" | "address" | "a", "del" | "delete", prefix, "dev", device] => {
            Ok(Change::DeleteAddress((*device).to_owned(), net(prefix)?))
        }
        ["link" | "l", "set", rest @ ..] => {
            let rest: Vec<&str> = rest.iter().copied().filter(|w| *w != "dev").collect();
            match rest.as_slice() {
                [device, "up"] => Ok(Change::Link((*device).to_owned(), true)),
                [device, "down"] => Ok(Change::Link((*device).to_owned(), false)),
                _ => Err("write ip link set DEVICE up|down".into()),
            }
        }
        _ => Err("only ip route, addr and link commands are understood".into()),
    }
}

fn route(kind: RouteKind, destination: IpNet, words: &[&str]) -> Result<Route, String> {
    let mut route = Route {
        family: Family::of(destination.addr()),
        destination,
        source: None,
        kind,
        table: RouteTable::MAIN,
        metric: 0,
        tos: 0,
        scope: if kind == RouteKind::Unicast { Scope::Link } else { Scope::Global },
        prefsrc: None,
        next_hops: Vec::new(),
        mtu: None,
        protocol: "boot".into(),
        origin: Origin::default(),
        unmodelled: String::new(),
    };
    let mut hop =
        NextHop { gateway: None, interface: None, weight: 1, onlink: false, dead: false, linkdown: false };
    let mut words = words.iter();
    while let Some(word) = words.next() {
        if *word == "onlink" {
            hop.onlink = true;
            continue;
        }
        let value = *words.next().ok_or_else(|| format!("{word} without a value"))?;
        let number = || value.parse::<u32>().map_err(|_| format!("`{value}` is no number"));
        let address = || value.parse::<IpAddr>().map_err(|_| format!("`{value}` is no address"));
        match *word {
            "via" => {
                let gateway = address()?;
                if Family::of(gateway) != route.family {
                    return Err(format!("{value} is no gateway to {destination}"));
                }
                hop.gateway = Some(gateway);
                route.scope = Scope::Global;
            }
            "dev" => hop.interface = Some(value.to_owned()),
            "src" => route.prefsrc = Some(address()?),
            "metric" | "preference" => route.metric = number()?,
            "mtu" => route.mtu = Some(number()?),
            "table" => {
                route.table = match value {
                    "main" => RouteTable::MAIN,
                    "local" => RouteTable::LOCAL,
                    "default" => RouteTable::DEFAULT,
                    _ => RouteTable(number()?),
                }
            }
            "proto" => route.protocol = value.to_owned(),
            other => return Err(format!("`{other}` is not understood here")),
        }
    }
    if kind == RouteKind::Unicast {
        route.next_hops.push(hop);
    }
    Ok(route)
}

impl fmt::Display for HostChange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: ", self.host)?;
        match &self.change {
            Change::InsertRule { table, chain, rule, place, .. } => match place {
                Some(place) => write!(f, "{table} {chain} gets rule {place}: {}", rule.text),
                None => write!(f, "{table} {chain} gets a last rule: {}", rule.text),
            },
            Change::DeleteRule { table, chain, place, .. } => write!(f, "{table} {chain} loses rule {place}"),
            Change::AddRoute(route) => write!(f, "route to {} added", route.destination),
            Change::DeleteRoute(net) => write!(f, "route to {net} deleted"),
            Change::AddAddress(device, net) => write!(f, "{device} gets {net}"),
            Change::DeleteAddress(device, net) => write!(f, "{device} loses {net}"),
            Change::Sysctl(key, value) => write!(f, "{key} = {value}"),
            Change::Link(device, up) => write!(f, "{device} goes {}", if *up { "up" } else { "down" }),
        }
    }
}

/// The lab with changes. Hosts that are not changed are shared with the lab
/// given, which stays as it is.
///
/// What a kernel does by itself with a change is done here, too: an address
/// brings its local and connected routes and takes them away; a link that goes
/// down loses its routes.
///
/// ```
/// use lab_core::query::what_if::{what_if, HostChange};
/// use lab_core::Lab;
/// let lab = Lab::default();
/// let change: HostChange = "router: ip link set eth0 down".parse()?;
/// assert!(what_if(&lab, &[change]).is_err(), "there is no such host");
/// # Ok::<(), lab_core::query::Error>(())
/// ```
///
/// # Errors
/// A host, table, chain, rule, route or interface that does not exist.
pub fn what_if(lab: &Lab, changes: &[HostChange]) -> Result<Lab, Error> {
    let mut changed = lab.clone();
    for one in changes {
        ends::host(lab, &one.host)?;
        if let Some(host) = changed.host_mut(&one.host) {
            apply(host, &one.change)?;
        }
    }
    Ok(changed)
}

fn apply(host: &mut Host, change: &Change) -> Result<(), Error> {
    let name = host.name.clone();
    let missing = |what: String| Error::Unfit(format!("{name} has no {what}"));
    match change {
        Change::InsertRule { family, table, chain, place, rule } => {
            let found =
                chain_of(host, *family, table, chain).ok_or_else(|| missing(format!("chain {chain}")))?;
            let place = place.map_or(found.rules.len(), |p| p.saturating_sub(1));
            if place > found.rules.len() {
                return Err(missing(format!("place {} in {chain}", place + 1)));
            }
            found.rules.insert(place, rule.as_ref().clone());
        }
        Change::DeleteRule { family, table, chain, place } => {
            let found =
                chain_of(host, *family, table, chain).ok_or_else(|| missing(format!("chain {chain}")))?;
            if *place == 0 || *place > found.rules.len() {
                return Err(missing(format!("rule {place} in {chain}")));
            }
            found.rules.remove(place - 1);
        }
        Change::AddRoute(route) => {
            let mut route = route.as_ref().clone();
            for hop in &mut route.next_hops {
                // The gateway's device is looked up as `ip route` does.
                if let (None, Some(gateway)) = (&hop.interface, hop.gateway) {
                    let on = |i: &&crate::model::Interface| {
                        i.up && i.addresses.iter().any(|a| a.net().is_some_and(|n| n.contains(&gateway)))
                    };
                    hop.interface = host.interfaces.iter().find(on).map(|i| i.name.clone());
                }
                match &hop.interface {
                    Some(device) if host.interface(device).is_some() => {}
                    Some(device) => return Err(missing(format!("interface {device}"))),
                    None => return Err(missing("interface on which the gateway is".into())),
                }
            }
            host.routes.push(route);
        }
        Change::DeleteRoute(net) => {
            let there = |r: &Route| r.table == RouteTable::MAIN && r.destination == *net;
            let found = (0..host.routes.len()).filter(|i| there(&host.routes[*i]));
            match found.min_by_key(|i| host.routes[*i].metric) {
                Some(place) => host.routes.remove(place),
                None => return Err(missing(format!("route to {net}"))),
            };
        }
        Change::AddAddress(device, net) => add_address(host, device, *net)?,
        Change::DeleteAddress(device, net) => delete_address(host, device, *net)?,
        Change::Sysctl(key, value) => set(host, key, value),
        Change::Link(device, up) => {
            let found = host.interfaces.iter_mut().find(|i| i.name == *device);
            let found = found.ok_or_else(|| missing(format!("interface {device}")))?;
            found.up = *up;
            found.carrier = *up;
            let addresses: Vec<IpNet> = found.addresses.iter().filter_map(Address::net).collect();
            if *up {
                for net in addresses {
                    delete_address(host, device, net)?;
                    add_address(host, device, net)?;
                }
            } else {
                // IPv6 addresses go with it (addrconf_ifdown).
                found.addresses.retain(|a| a.family() == Family::Ipv4);
                host.routes.retain(|r| {
                    let on = r.next_hops.iter().any(|h| h.interface.as_deref() == Some(device));
                    r.family == Family::Ipv4 || !on
                });
                // A device that goes down loses its routes (fib_sync_down_dev),
                // but for those to its own addresses.
                for route in &mut host.routes {
                    if route.kind != RouteKind::Local {
                        route.next_hops.retain(|h| h.interface.as_deref() != Some(device));
                    }
                }
                let lost = |r: &Route| r.next_hops.is_empty();
                host.routes
                    .retain(|r| !lost(r) || !matches!(r.kind, RouteKind::Unicast | RouteKind::Broadcast));
            }
        }
    }
    Ok(())
}

fn chain_of<'h>(
    host: &'h mut Host,
    family: Family,
    table: &str,
    chain: &str,
) -> Option<&'h mut crate::model::Chain> {
    let wanted = if family == Family::Ipv4 { TableFamily::Ip } else { TableFamily::Ip6 };
    let mut tables = host.ruleset.tables.iter_mut();
    let table = tables.find(|t| t.xtables && t.family == wanted && t.name == table)?;
    table.chains.iter_mut().find(|c| c.name == *chain)
}

/// `net.ipv4.ip_forward` and `conf.all.forwarding` are one switch, which sets
/// every interface's own (`inet_forward_change`).
fn set(host: &mut Host, key: &str, value: &str) {
    host.sysctls.0.insert(key.to_owned(), value.to_owned());
    if matches!(key, "net.ipv4.ip_forward" | "net.ipv4.conf.all.forwarding") {
        let names = host.interfaces.iter().map(|i| i.name.replace('.', "/"));
        let keys: Vec<String> = names
            .chain(["all".to_owned(), "default".to_owned()])
            .map(|n| format!("net.ipv4.conf.{n}.forwarding"))
            .chain(["net.ipv4.ip_forward".to_owned()])
            .collect();
        for key in keys {
            host.sysctls.0.insert(key, value.to_owned());
        }
    }
}

fn add_address(host: &mut Host, device: &str, net: IpNet) -> Result<(), Error> {
    let missing = Error::Unfit(format!("{} has no interface {device}", host.name));
    let interface = host.interfaces.iter_mut().find(|i| i.name == device).ok_or(missing)?;
    let family = Family::of(net.addr());
    let secondary = family == Family::Ipv4
        && interface.addresses.iter().any(|a| a.net().is_some_and(|n| n.trunc() == net.trunc()));
    interface.addresses.push(Address {
        address: net.addr(),
        prefix_len: net.prefix_len(),
        peer: None,
        scope: Scope::Global,
        secondary,
        deprecated: false,
        temporary: false,
        tentative: false,
    });
    let up = interface.up;
    let v4 = family == Family::Ipv4;
    let source = v4.then(|| net.addr());
    let mut add = |kind: RouteKind, destination: IpNet, table: RouteTable, scope: Scope| {
        let hop = NextHop {
            gateway: None,
            interface: Some(device.to_owned()),
            weight: 1,
            onlink: false,
            dead: false,
            linkdown: false,
        };
        host.routes.push(Route {
            family,
            destination,
            source: None,
            kind,
            table,
            metric: 0,
            tos: 0,
            scope,
            prefsrc: source,
            next_hops: vec![hop],
            mtu: None,
            protocol: "kernel".into(),
            origin: Origin::default(),
            unmodelled: String::new(),
        });
    };
    add(RouteKind::Local, IpNet::from(net.addr()), RouteTable::LOCAL, Scope::Host);
    let whole = net.prefix_len() == net.max_prefix_len();
    if up && !whole {
        if !secondary {
            add(RouteKind::Unicast, net.trunc(), RouteTable::MAIN, Scope::Link);
        }
        if v4 && net.prefix_len() < 31 && !secondary {
            add(RouteKind::Broadcast, IpNet::from(net.broadcast()), RouteTable::LOCAL, Scope::Link);
        }
    }
    Ok(())
}

fn delete_address(host: &mut Host, device: &str, net: IpNet) -> Result<(), Error> {
    let missing = |what: String| Error::Unfit(format!("{} has no {what}", host.name));
    let Some(interface) = host.interfaces.iter().position(|i| i.name == device) else {
        return Err(missing(format!("interface {device}")));
    };
    let addresses = &mut host.interfaces[interface].addresses;
    let Some(place) = addresses.iter().position(|a| a.address == net.addr()) else {
        return Err(Error::Unfit(format!("{}:{device} has no address {}", host.name, net.addr())));
    };
    addresses.remove(place);
    let still = addresses.iter().any(|a| a.net().is_some_and(|n| n.trunc() == net.trunc()));
    let v4 = net.addr().is_ipv4();
    host.routes.retain(|r| {
        let here =
            r.protocol == "kernel" && r.next_hops.iter().any(|h| h.interface.as_deref() == Some(device));
        let own = r.destination == IpNet::from(net.addr()) && r.kind == RouteKind::Local;
        let connected =
            !still && (r.destination == net.trunc() || (v4 && r.destination == IpNet::from(net.broadcast())));
        !(here && (own || connected)) && (r.prefsrc != Some(net.addr()) || own)
    });
    Ok(())
}
