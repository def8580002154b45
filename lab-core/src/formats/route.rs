//! `ip -j -d route show table all`: the routes of one family.

use std::net::IpAddr;

use ipnet::IpNet;
use serde_json::{json, Value};

use super::json::{self, Fields, Object};
use super::{names, Error};
use crate::addr::Family;
use crate::model::{NextHop, Origin, Route, RouteKind, RouteTable, Scope};

pub(super) const KINDS: [(&str, RouteKind); 10] = [
    ("unicast", RouteKind::Unicast),
    ("local", RouteKind::Local),
    ("broadcast", RouteKind::Broadcast),
    ("multicast", RouteKind::Multicast),
    ("anycast", RouteKind::Anycast),
    ("unreachable", RouteKind::Unreachable),
    ("blackhole", RouteKind::Blackhole),
    ("prohibit", RouteKind::Prohibit),
    ("throw", RouteKind::Throw),
    ("nat", RouteKind::Nat),
];

/// Flags that say nothing about where packets go: hardware offload.
const HARMLESS_FLAGS: [&str; 7] =
    ["offload", "trap", "rt_offload", "rt_trap", "offload_failed", "notify", "rt_offload_failed"];

/// Fields that say nothing about where packets go.
const HARMLESS: [&str; 8] = ["pref", "expires", "error", "users", "age", "used", "cache", "nhid"];

/// Metrics that tune TCP only.
const HARMLESS_METRICS: [&str; 13] = [
    "window",
    "rtt",
    "rttvar",
    "ssthresh",
    "cwnd",
    "advmss",
    "reordering",
    "initcwnd",
    "rto_min",
    "initrwnd",
    "quickack",
    "congctl",
    "fastopen_no_cookie",
];

pub(super) fn any(family: Family) -> IpNet {
    match family {
        Family::Ipv4 => IpNet::V4(ipnet::Ipv4Net::default()),
        Family::Ipv6 => IpNet::V6(ipnet::Ipv6Net::default()),
    }
}

fn prefix(fields: &mut Fields<'_>, key: &str) -> Result<Option<IpNet>, Error> {
    match fields.string(key)? {
        None => Ok(None),
        Some(word) => match names::net(&word) {
            Some(net) => Ok(Some(net)),
            None => Err(fields.wrong(key, &Value::from(word), "an address or prefix")),
        },
    }
}

/// Takes `flags` into a next hop; gives back whether all were understood.
fn flags(fields: &mut Fields<'_>, hop: &mut NextHop) -> Result<bool, Error> {
    let mut understood = true;
    for flag in fields.strings("flags")? {
        match flag.as_str() {
            "onlink" => hop.onlink = true,
            "dead" => hop.dead = true,
            "linkdown" => hop.linkdown = true,
            other => understood &= HARMLESS_FLAGS.contains(&other),
        }
    }
    Ok(understood)
}

/// Takes the gateway, given plainly or with its family; gives back whether
/// it is of the route's family.
fn gateway(fields: &mut Fields<'_>, family: Family, hop: &mut NextHop) -> Result<bool, Error> {
    hop.gateway = fields.parsed("gateway", "an address")?;
    if let Some(mut via) = fields.object("via")? {
        hop.gateway = via.parsed("host", "an address")?.or(hop.gateway);
    }
    let same = hop.gateway.is_none_or(|g| Family::of(g) == family);
    if !same {
        hop.gateway = None;
    }
    Ok(same)
}

fn empty_hop() -> NextHop {
    NextHop { gateway: None, interface: None, weight: 1, onlink: false, dead: false, linkdown: false }
}

fn hops(route: &mut Fields<'_>, family: Family) -> Result<Vec<NextHop>, Error> {
    let before = route.map.clone();
    let mut single = empty_hop();
    // What is not understood goes back, to end up in `unmodelled`.
    let restore = |route: &mut Fields<'_>, key: &str| {
        if let Some(value) = before.get(key) {
            route.map.insert(key.to_owned(), value.clone());
        }
    };
    single.interface = route.string("dev")?;
    if !gateway(route, family, &mut single)? {
        restore(route, "gateway");
        restore(route, "via");
    }
    if !flags(route, &mut single)? {
        restore(route, "flags");
    }
    let Some(several) = route.objects("nexthops")? else {
        let named = single.interface.is_some() || single.gateway.is_some();
        return Ok(if named { vec![single] } else { Vec::new() });
    };
    let mut hops = Vec::new();
    let mut understood = true;
    for mut fields in several {
        let mut hop = empty_hop();
        hop.interface = fields.string("dev")?;
        understood &= gateway(&mut fields, family, &mut hop)?;
        understood &= flags(&mut fields, &mut hop)?;
        hop.weight = fields.number("weight")?.unwrap_or(1);
        understood &= fields.map.is_empty();
        hops.push(hop);
    }
    if !understood {
        restore(route, "nexthops");
    }
    Ok(hops)
}

/// Takes the MTU; other metrics that matter stay, with it.
fn mtu(route: &mut Fields<'_>) -> Result<Option<u32>, Error> {
    let before = route.map.get("metrics").cloned();
    let mut mtu = None;
    let mut understood = true;
    for mut metrics in route.objects("metrics")?.unwrap_or_default() {
        mtu = metrics.number("mtu")?.or(mtu);
        metrics.map.retain(|key, _| !HARMLESS_METRICS.contains(&key.as_str()));
        understood &= metrics.map.is_empty();
    }
    if let (false, Some(before)) = (understood, before) {
        route.map.insert("metrics".to_owned(), before);
    }
    Ok(mtu)
}

/// The family of a route, from whatever field gives it away: only IPv6 routes
/// have a `pref`.
fn family_of(route: &Fields<'_>, destination: Option<IpNet>, asked: Family) -> Family {
    let address = |key: &str| route.map.get(key)?.as_str()?.parse::<IpAddr>().ok();
    match (destination, address("gateway").or(address("prefsrc"))) {
        (Some(net), _) => names::family(&net),
        (None, _) if route.map.contains_key("pref") => Family::Ipv6,
        (None, Some(address)) => Family::of(address),
        (None, None) => asked,
    }
}

fn route(mut fields: Fields<'_>, asked: Family) -> Result<Option<Route>, Error> {
    let destination = match fields.map.get("dst").and_then(Value::as_str) {
        Some("default") => {
            fields.take("dst");
            None
        }
        Some(_) => prefix(&mut fields, "dst")?,
        None => return Err(fields.missing("dst")),
    };
    let family = family_of(&fields, destination, asked);
    if family != asked {
        return Ok(None);
    }
    let origin = Origin { file: fields.file.into(), line: fields.line };
    let kind = match fields.string("type")? {
        None => RouteKind::Unicast,
        Some(word) => match KINDS.iter().find(|(name, _)| *name == word) {
            Some((_, kind)) => *kind,
            None => return Err(fields.wrong("type", &Value::from(word), "a route type")),
        },
    };
    let table = table(&mut fields)?.unwrap_or(RouteTable::MAIN);
    let mut scope = Scope::Global;
    if let Some(value) = fields.take("scope") {
        let word = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        match names::scope(&word) {
            Some(known) => scope = known,
            None => drop(fields.map.insert("scope".to_owned(), value)),
        }
    }
    let tos = match fields.word("tos")? {
        None => 0,
        Some(word) => match names::tos(&word) {
            Some(tos) => tos,
            None => return Err(fields.wrong("tos", &Value::from(word), "a type of service")),
        },
    };
    let source = match fields.map.get("from").and_then(Value::as_str) {
        Some("default" | "all") => {
            fields.take("from");
            None
        }
        _ => prefix(&mut fields, "from")?,
    };
    let next_hops = hops(&mut fields, family)?;
    let mut route = Route {
        family,
        destination: destination.unwrap_or(any(family)),
        source,
        kind,
        table,
        metric: fields.number("metric")?.unwrap_or(0),
        tos,
        scope,
        prefsrc: fields.parsed("prefsrc", "an address")?,
        next_hops,
        mtu: mtu(&mut fields)?,
        protocol: fields.word("protocol")?.unwrap_or_default(),
        origin,
        unmodelled: String::new(),
    };
    let leads = !route.next_hops.is_empty() || kind != RouteKind::Unicast;
    fields.map.retain(|key, _| !HARMLESS.contains(&key.as_str()) || (key == "nhid" && !leads));
    route.unmodelled = fields.rest();
    Ok(Some(route))
}

/// Takes the table of a route or rule.
pub(super) fn table(fields: &mut Fields<'_>) -> Result<Option<RouteTable>, Error> {
    match fields.word("table")? {
        None => Ok(None),
        Some(word) => match names::table(&word) {
            Some(table) => Ok(Some(table)),
            // Other names stand in a file of the host that is not at hand.
            None => Err(fields.wrong("table", &Value::from(word), "main, local, default or a number")),
        },
    }
}

/// Reads the routes of a family. With `table all`, iproute2 prints some IPv6
/// routes among the IPv4 ones; routes of the other family are passed over,
/// since the file of that family holds them.
///
/// # Errors
///
/// JSON that is broken, or a field that is missing or of the wrong sort.
pub fn parse(file: &str, text: &str, family: Family) -> Result<Vec<Route>, Error> {
    let mut routes = Vec::new();
    for fields in json::objects(file, text)? {
        routes.extend(route(fields, family)?);
    }
    Ok(routes)
}

fn show_hop(hop: &NextHop, object: &mut Object) {
    object.show("gateway", hop.gateway);
    object.show("dev", hop.interface.as_ref());
}

fn hop_flags(hop: &NextHop) -> Vec<&'static str> {
    let flags = [("onlink", hop.onlink), ("dead", hop.dead), ("linkdown", hop.linkdown)];
    flags.iter().filter(|(_, on)| *on).map(|(flag, _)| *flag).collect()
}

fn show(route: &Route) -> Value {
    let mut object = Object::default();
    object.show("type", KINDS.iter().find(|(_, kind)| *kind == route.kind).map(|(name, _)| *name));
    let all = route.destination.prefix_len() == 0;
    object.set("dst", if all { "default".to_owned() } else { names::show(&route.destination) });
    object.show("from", route.source.map(|s| names::show(&s)));
    if route.tos != 0 {
        object.set("tos", format!("{:#x}", route.tos));
    }
    if let [hop] = route.next_hops.as_slice() {
        show_hop(hop, &mut object);
    }
    object.set("table", route.table.to_string());
    if !route.protocol.is_empty() {
        object.set("protocol", route.protocol.clone());
    }
    object.set("scope", names::scope_name(route.scope));
    object.show("prefsrc", route.prefsrc);
    if route.metric != 0 {
        object.set("metric", route.metric);
    }
    if let Some(mtu) = route.mtu {
        object.set("metrics", json!([{ "mtu": mtu }]));
    }
    object.set(
        "flags",
        match route.next_hops.as_slice() {
            [hop] => hop_flags(hop),
            _ => Vec::new(),
        },
    );
    if route.next_hops.len() > 1 {
        let hops = route.next_hops.iter().map(|hop| {
            let mut object = Object::default();
            show_hop(hop, &mut object);
            object.set("weight", hop.weight);
            object.set("flags", hop_flags(hop));
            Value::Object(object.0)
        });
        object.set("nexthops", hops.collect::<Vec<_>>());
    }
    if route.family == Family::Ipv6 {
        object.set("pref", "medium");
    }
    object.0.extend(json::kept(&route.unmodelled));
    Value::Object(object.0)
}

/// Prints the routes, one a line.
pub fn print(routes: &[Route]) -> String {
    json::array(routes.iter().map(show))
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = r#"[{"type":"unicast","dst":"default","gateway":"172.24.17.2","dev":"eth1","table":"main","protocol":"boot","scope":"global","metric":100,"metrics":[{"mtu":1400}],"flags":["onlink"]},
{"type":"unicast","dst":"10.2.7.0/24","dev":"eth0","table":"main","protocol":"kernel","scope":"link","prefsrc":"10.2.7.1","flags":["linkdown"]},
{"type":"local","dst":"10.2.7.1","dev":"eth0","table":"local","protocol":"kernel","scope":"host","prefsrc":"10.2.7.1","flags":[]},
{"type":"blackhole","dst":"10.9.0.0/16","table":"100","protocol":"static","scope":"global","flags":[]},
{"type":"unicast","dst":"10.8.0.0/16","tos":"0x10","table":"main","protocol":"static","scope":"global","flags":[],"nexthops":[{"gateway":"10.2.7.2","dev":"eth0","weight":1,"flags":[]},{"gateway":"172.24.17.9","dev":"eth1","weight":3,"flags":["dead"]}]},
{"type":"unicast","dst":"10.7.0.0/16","dev":"eth0","table":"main","protocol":"static","scope":"global","flags":["pervasive"],"encap":"mpls"}]
"#;

    #[test]
    fn reads_and_prints() {
        let routes = parse("route.json", TEXT, Family::Ipv4).unwrap();
        assert_eq!(routes[0].destination, "0.0.0.0/0".parse().unwrap());
        assert_eq!((routes[0].metric, routes[0].mtu), (100, Some(1400)));
        assert!(routes[0].next_hops[0].onlink && routes[1].next_hops[0].linkdown);
        assert_eq!(
            (routes[2].kind, routes[2].table, routes[2].scope),
            (RouteKind::Local, RouteTable::LOCAL, Scope::Host)
        );
        assert_eq!(routes[3].next_hops, []);
        assert_eq!(
            (routes[4].next_hops[1].weight, routes[4].next_hops[1].dead, routes[4].tos),
            (3, true, 0x10)
        );
        assert_eq!(routes[5].unmodelled, "\"encap\":\"mpls\",\"flags\":[\"pervasive\"]");
        assert!(routes[..5].iter().all(|r| r.unmodelled.is_empty()));
        assert_eq!(print(&routes), TEXT);
    }

    #[test]
    fn routes_of_the_other_family_belong_to_the_other_file() {
        let text = r#"[{"type":"anycast","dst":"fd00::","dev":"eth0","table":"local","pref":"medium"},
            {"dst":"default","dev":"eth0","pref":"medium"},{"dst":"default","dev":"eth0"},
            {"dst":"10.0.0.0/8","via":{"family":"inet6","host":"fe80::1"},"dev":"eth0"}]"#;
        let v4 = parse("route.json", text, Family::Ipv4).unwrap();
        assert_eq!(v4.len(), 2);
        assert_eq!(v4[1].unmodelled, r#""via":{"family":"inet6","host":"fe80::1"}"#);
        let v6 = parse("route6.json", text, Family::Ipv6).unwrap();
        assert_eq!((v6.len(), v6[0].kind), (3, RouteKind::Anycast));
        assert_eq!(parse("route6.json", &print(&v6), Family::Ipv6).unwrap().len(), 3);
    }

    #[test]
    fn damage_is_named() {
        let message = |from: &str, to: &str| {
            parse("route.json", &TEXT.replace(from, to), Family::Ipv4).unwrap_err().to_string()
        };
        assert_eq!(
            message("10.2.7.0/24", "10.2.7.0/42"),
            "route.json:2: bad value: `dst` is not an address or prefix: `\"dst\":\"10.2.7.0/42\"`"
        );
        assert_eq!(
            message("\"table\":\"100\"", "\"table\":\"isp\""),
            "route.json:4: bad value: `table` is not main, local, default or a number: `\"table\":\"isp\"`"
        );
        assert_eq!(
            message("\"weight\":3", "\"weight\":-3"),
            "route.json:5: bad value: `weight` is not a number in range: `\"weight\":-3`"
        );
    }
}
