//! Changes of routes, policy, settings and links.

use super::{address, missing, refused};
use crate::addr::Family;
use crate::model::{Host, Interface, Origin, PolicyRule, Route, RouteKey, RouteKind};
use crate::query::Error;

pub(super) fn add_route(host: &mut Host, route: &Route) -> Result<(), Error> {
    let mut route = route.clone();
    for hop in &mut route.next_hops {
        // The gateway's device is looked up as `ip route` does.
        if let (None, Some(gateway)) = (&hop.interface, hop.gateway) {
            let on = |i: &&Interface| {
                i.up && i.addresses.iter().any(|a| a.net().is_some_and(|n| n.contains(&gateway)))
            };
            hop.interface = host.interfaces.iter().find(on).map(|i| i.name.clone());
        }
        match &hop.interface {
            Some(device) if host.interface(device).is_some() => {}
            Some(device) => return Err(missing(host, format_args!("interface {device}"))),
            None => return Err(missing(host, "interface on which the gateway is")),
        }
    }
    if host.routes.iter().any(|r| same_route(r, &route)) {
        return Err(refused(host, format_args!("the route to {} is there already", route.destination)));
    }
    host.routes.push(route);
    Ok(())
}

/// Whether two routes are one, wherever they were read and whether or not
/// their links are up.
pub(in crate::query) fn same_route(a: &Route, b: &Route) -> bool {
    let hops = |a: &Route, b: &Route| {
        a.next_hops.len() == b.next_hops.len()
            && a.next_hops.iter().zip(&b.next_hops).all(|(a, b)| {
                (a.gateway, &a.interface, a.weight, a.onlink) == (b.gateway, &b.interface, b.weight, b.onlink)
            })
    };
    (a.destination, a.source, a.kind, a.table, a.metric, a.tos, a.scope, a.prefsrc, a.mtu)
        == (b.destination, b.source, b.kind, b.table, b.metric, b.tos, b.scope, b.prefsrc, b.mtu)
        && (&a.protocol, &a.unmodelled) == (&b.protocol, &b.unmodelled)
        && hops(a, b)
}

pub(super) fn delete_route(host: &mut Host, key: &RouteKey) -> Result<(), Error> {
    let found = (0..host.routes.len()).filter(|at| key.means(&host.routes[*at]));
    match found.min_by_key(|at| host.routes[*at].metric) {
        Some(place) => {
            host.routes.remove(place);
            Ok(())
        }
        None => Err(missing(host, format_args!("route to {}", key.destination))),
    }
}

/// Whether two policy rules are one, wherever they were read.
pub(in crate::query) fn same_policy(a: &PolicyRule, b: &PolicyRule) -> bool {
    let bare = |rule: &PolicyRule| PolicyRule { origin: Origin::default(), ..rule.clone() };
    (a.family, a.priority) == (b.family, b.priority) && bare(a) == bare(b)
}

pub(super) fn add_policy(host: &mut Host, rule: &PolicyRule) -> Result<(), Error> {
    if host.rules.iter().any(|r| same_policy(r, rule)) {
        return Err(refused(host, format_args!("policy rule {} is there already", rule.priority)));
    }
    let later = |r: &PolicyRule| r.family == rule.family && r.priority > rule.priority;
    let last = host.rules.iter().rposition(|r| r.family == rule.family).map_or(host.rules.len(), |at| at + 1);
    let place = host.rules.iter().position(later).unwrap_or(last);
    host.rules.insert(place, rule.clone());
    Ok(())
}

pub(super) fn delete_policy(host: &mut Host, rule: &PolicyRule) -> Result<(), Error> {
    match host.rules.iter().position(|r| same_policy(r, rule)) {
        Some(place) => {
            host.rules.remove(place);
            Ok(())
        }
        None => Err(missing(host, format_args!("such policy rule {}", rule.priority))),
    }
}

/// Sets a setting. Some are switches for every interface at once:
/// `net.ipv4.ip_forward`, which is `conf.all.forwarding`
/// (`inet_forward_change`), and its IPv6 kin (`addrconf_fixup_forwarding`).
pub(super) fn set(host: &mut Host, key: &str, value: &str) {
    let (family, own) = match key {
        "net.ipv4.ip_forward" | "net.ipv4.conf.all.forwarding" => ("ipv4", Some("net.ipv4.ip_forward")),
        "net.ipv6.conf.all.forwarding" => ("ipv6", None),
        key => {
            host.sysctls.0.insert(key.to_owned(), value.to_owned());
            return;
        }
    };
    let names = host.interfaces.iter().map(|i| i.name.replace('.', "/"));
    let keys: Vec<String> = names
        .chain(["all".to_owned(), "default".to_owned()])
        .map(|n| format!("net.{family}.conf.{n}.forwarding"))
        .chain(own.map(str::to_owned))
        .collect();
    host.sysctls.0.extend(keys.into_iter().map(|key| (key, value.to_owned())));
}

pub(super) fn link(host: &mut Host, device: &str, up: bool) -> Result<(), Error> {
    let Some(found) = host.interfaces.iter_mut().find(|i| i.name == device) else {
        return Err(missing(host, format_args!("interface {device}")));
    };
    // To set what is so already does nothing.
    if found.up == up {
        return Ok(());
    }
    (found.up, found.carrier) = (up, up);
    if up {
        address::revive(host, device);
        return Ok(());
    }
    // IPv6 addresses go with it (addrconf_ifdown).
    found.addresses.retain(|a| a.family() == Family::Ipv4);
    lose_routes(host, device, None);
    Ok(())
}

/// What a device takes away that goes down: routes by it, but for those to the
/// host's own IPv4 addresses; of a route with several ways, its way is dead
/// (`fib_sync_down_dev`, `fib6_ifdown`). Of a device that has lost its last
/// IPv4 address, these too.
pub(super) fn lose_routes(host: &mut Host, device: &str, lost: Option<Family>) {
    for route in &mut host.routes {
        let stays = route.family == Family::Ipv4 && route.kind == RouteKind::Local && lost.is_none();
        if stays || lost.is_some_and(|family| family != route.family) {
            continue;
        }
        for hop in route.next_hops.iter_mut().filter(|h| h.interface.as_deref() == Some(device)) {
            hop.dead = true;
        }
    }
    host.routes.retain(|route| {
        let by = route.next_hops.iter().any(|h| h.interface.as_deref() == Some(device));
        !by || route.next_hops.iter().any(|h| !h.dead)
    });
}
