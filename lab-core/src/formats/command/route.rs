use std::net::IpAddr;

use ipnet::IpNet;

use super::{joined, syntax, unsayable, Error, Words};
use crate::addr::Family;
use crate::formats::names;
use crate::formats::route::{any, KINDS};
use crate::model::{Change, Host, NextHop, Origin, Route, RouteKey, RouteKind, RouteTable, Scope};

/// The metric of an IPv6 route that none is given for (`IP6_RT_PRIO_USER`).
const USUAL_METRIC6: u32 = 1024;

fn usual_table(kind: Option<RouteKind>) -> RouteTable {
    match kind {
        Some(RouteKind::Local | RouteKind::Broadcast | RouteKind::Nat | RouteKind::Anycast) => {
            RouteTable::LOCAL
        }
        _ => RouteTable::MAIN,
    }
}

/// The scope of a route that none is given for (`iproute_modify`).
fn usual_scope(kind: RouteKind, family: Family, gateway: bool) -> Scope {
    match kind {
        _ if family == Family::Ipv6 => Scope::Global,
        RouteKind::Local | RouteKind::Nat => Scope::Host,
        RouteKind::Broadcast | RouteKind::Multicast | RouteKind::Anycast => Scope::Link,
        RouteKind::Unicast if !gateway => Scope::Link,
        _ => Scope::Global,
    }
}

fn start(verb: &str, family: Family, kind: Option<RouteKind>, to: &IpNet) -> Vec<String> {
    let mut words = vec!["ip".to_owned()];
    if family == Family::Ipv6 {
        words.push("-6".into());
    }
    words.extend(["route".into(), verb.into()]);
    // What is added is unicast unless it is said; what is deleted may be any.
    let usual = |kind: RouteKind| verb != "del" && kind == RouteKind::Unicast;
    let name = KINDS.iter().find(|(_, k)| Some(*k) == kind && !usual(*k));
    words.extend(name.map(|(name, _)| (*name).to_owned()));
    words.push(if to.prefix_len() == 0 { "default".into() } else { names::show(to) });
    words
}

fn option(words: &mut Vec<String>, name: &str, value: Option<String>) {
    if let Some(value) = value {
        words.extend([name.to_owned(), value]);
    }
}

fn hops(words: &mut Vec<String>, hops: &[NextHop]) {
    for hop in hops {
        if hops.len() > 1 {
            words.push("nexthop".into());
        }
        option(words, "via", hop.gateway.map(|g| g.to_string()));
        option(words, "dev", hop.interface.clone());
        if hops.len() > 1 {
            option(words, "weight", Some(hop.weight.to_string()));
        }
        if hop.onlink {
            words.push("onlink".into());
        }
    }
}

pub(super) fn print_add(host: &Host, route: &Route) -> Result<String, Error> {
    let leads = matches!(
        route.kind,
        RouteKind::Unicast
            | RouteKind::Local
            | RouteKind::Broadcast
            | RouteKind::Multicast
            | RouteKind::Anycast
    );
    if !route.unmodelled.is_empty() || route.kind == RouteKind::Nat || (leads && route.next_hops.is_empty()) {
        return unsayable(format!("the route to {} holds what is not modelled", route.destination));
    }
    if route.family == Family::Ipv6 && route.metric == 0 {
        return unsayable(format!(
            "the route to {} has metric 0, which the kernel keeps for its own",
            route.destination
        ));
    }
    // Of an IPv4 prefix, the kernel takes a second route of one metric only behind the first.
    let twin = |r: &Route| {
        (r.destination, r.table, r.tos, r.metric) == (route.destination, route.table, route.tos, route.metric)
    };
    let verb = if host.routes.iter().any(twin) { "append" } else { "add" };
    let mut words = start(verb, route.family, Some(route.kind), &route.destination);
    option(&mut words, "from", route.source.map(|s| names::show(&s)));
    option(&mut words, "tos", Some(format!("{:#04x}", route.tos)).filter(|_| route.tos != 0));
    let table = Some(route.table).filter(|t| *t != usual_table(Some(route.kind)));
    option(&mut words, "table", table.map(|t| t.to_string()));
    let protocol = Some(route.protocol.clone()).filter(|p| p != "boot" && !p.is_empty());
    option(&mut words, "proto", protocol);
    let gateway = route.next_hops.len() > 1 || route.next_hops.iter().any(|h| h.gateway.is_some());
    if route.scope != usual_scope(route.kind, route.family, gateway) {
        option(&mut words, "scope", Some(names::scope_name(route.scope).to_owned()));
    }
    option(&mut words, "src", route.prefsrc.map(|a| a.to_string()));
    let usual = if route.family == Family::Ipv6 { USUAL_METRIC6 } else { 0 };
    option(&mut words, "metric", Some(route.metric.to_string()).filter(|_| route.metric != usual));
    option(&mut words, "mtu", route.mtu.map(|m| m.to_string()));
    hops(&mut words, &route.next_hops);
    joined(&words)
}

pub(super) fn print_delete(key: &RouteKey) -> Result<String, Error> {
    let family = Family::of(key.destination.addr());
    let mut words = start("del", family, key.kind, &key.destination);
    option(&mut words, "from", key.source.map(|s| names::show(&s)));
    option(&mut words, "tos", Some(format!("{:#04x}", key.tos)).filter(|_| key.tos != 0));
    option(
        &mut words,
        "table",
        Some(key.table).filter(|t| *t != usual_table(key.kind)).map(|t| t.to_string()),
    );
    option(&mut words, "proto", key.protocol.clone());
    option(&mut words, "scope", key.scope.map(|s| names::scope_name(s).to_owned()));
    option(&mut words, "src", key.prefsrc.map(|a| a.to_string()));
    option(&mut words, "metric", key.metric.map(|m| m.to_string()));
    hops(&mut words, &key.next_hops);
    joined(&words)
}

/// What a command says of a route.
#[derive(Default)]
struct Told {
    kind: Option<RouteKind>,
    destination: Option<IpNet>,
    source: Option<IpNet>,
    table: Option<RouteTable>,
    metric: Option<u32>,
    tos: u8,
    scope: Option<Scope>,
    prefsrc: Option<IpAddr>,
    protocol: Option<String>,
    mtu: Option<u32>,
    hops: Vec<NextHop>,
}

fn hop() -> NextHop {
    NextHop { gateway: None, interface: None, weight: 1, onlink: false, dead: false, linkdown: false }
}

fn prefix(word: &str, v6: bool) -> Result<IpNet, Error> {
    if matches!(word, "default" | "all" | "any") {
        return Ok(any(if v6 { Family::Ipv6 } else { Family::Ipv4 }));
    }
    names::net(word).map(|net| net.trunc()).ok_or_else(|| Error::Syntax(format!("`{word}` is no prefix")))
}

fn told(words: &[&str], v6: bool) -> Result<(Told, IpNet), Error> {
    // A gateway tells the family of `default` as well as -6 does.
    let v6 = v6 || words.iter().any(|w| w.parse::<std::net::Ipv6Addr>().is_ok());
    let mut words = Words::of(words);
    let mut told = Told::default();
    let mut several = false;
    while let Some(word) = words.next() {
        match word {
            "onlink" => last(&mut told.hops).onlink = true,
            "nexthop" => {
                told.hops.push(hop());
                several = true;
            }
            "via" => {
                let gateway: IpAddr = match words.value(word)? {
                    "inet" | "inet6" => words.parsed(word, "address")?,
                    value => value.parse().map_err(|_| Error::Syntax(format!("`{value}` is no address")))?,
                };
                last(&mut told.hops).gateway = Some(gateway);
            }
            "dev" => last(&mut told.hops).interface = Some(words.value(word)?.to_owned()),
            "weight" if several => last(&mut told.hops).weight = words.parsed(word, "number")?,
            "src" => told.prefsrc = Some(words.parsed(word, "address")?),
            "from" => told.source = Some(prefix(words.value(word)?, v6)?).filter(|s| s.prefix_len() > 0),
            "metric" | "preference" => told.metric = Some(words.parsed(word, "number")?),
            "mtu" => told.mtu = Some(words.parsed(word, "number")?),
            "tos" | "dsfield" => told.tos = words.named(word, "type of service", names::tos)?,
            "scope" => told.scope = Some(words.named(word, "scope", names::scope)?),
            "table" => told.table = Some(words.named(word, "table that every system has", names::table)?),
            "proto" | "protocol" => told.protocol = Some(words.value(word)?.to_owned()),
            word if told.destination.is_none() => {
                match KINDS.iter().find(|(name, _)| *name == word && told.kind.is_none()) {
                    Some((_, kind)) => told.kind = Some(*kind),
                    None => told.destination = Some(prefix(word, v6)?),
                }
            }
            other => return syntax(format!("`{other}` is not understood here")),
        }
    }
    let Some(destination) = told.destination else { return syntax("write ip route add|del PREFIX …") };
    let family = Family::of(destination.addr());
    for gateway in told.hops.iter().filter_map(|h| h.gateway) {
        if Family::of(gateway) != family {
            return syntax(format!("{gateway} is no gateway to {destination}"));
        }
    }
    Ok((told, destination))
}

fn last(hops: &mut Vec<NextHop>) -> &mut NextHop {
    if hops.is_empty() {
        hops.push(hop());
    }
    let place = hops.len() - 1;
    &mut hops[place]
}

pub(super) fn parse_delete(words: &[&str], v6: bool) -> Result<Change, Error> {
    let (told, destination) = told(words, v6)?;
    if told.mtu.is_some() {
        return syntax("`mtu` is not understood here");
    }
    Ok(Change::DeleteRoute(Box::new(RouteKey {
        destination,
        source: told.source,
        table: told.table.unwrap_or(usual_table(told.kind)),
        tos: told.tos,
        kind: told.kind,
        metric: told.metric,
        scope: told.scope,
        prefsrc: told.prefsrc,
        protocol: told.protocol,
        next_hops: told.hops,
    })))
}

pub(super) fn parse_add(words: &[&str], v6: bool) -> Result<Change, Error> {
    let (told, destination) = told(words, v6)?;
    let family = Family::of(destination.addr());
    let kind = told.kind.unwrap_or(RouteKind::Unicast);
    if kind == RouteKind::Unicast && told.hops.is_empty() {
        return syntax("the route leads nowhere: write via GATEWAY or dev DEVICE");
    }
    let gateway = told.hops.len() > 1 || told.hops.iter().any(|h| h.gateway.is_some());
    Ok(Change::AddRoute(Box::new(Route {
        family,
        destination,
        source: told.source,
        kind,
        table: told.table.unwrap_or(usual_table(Some(kind))),
        metric: told.metric.unwrap_or(if family == Family::Ipv6 { USUAL_METRIC6 } else { 0 }),
        tos: told.tos,
        scope: told.scope.unwrap_or(usual_scope(kind, family, gateway)),
        prefsrc: told.prefsrc,
        next_hops: told.hops,
        mtu: told.mtu,
        protocol: told.protocol.unwrap_or_else(|| "boot".to_owned()),
        origin: Origin::default(),
        unmodelled: String::new(),
    })))
}
