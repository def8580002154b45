//! Changes of addresses, and what the kernel does with routes for them:
//! `fib_add_ifaddr` and `fib_del_ifaddr` of `net/ipv4/fib_frontend.c`,
//! `net/ipv4/devinet.c`, `net/ipv6/addrconf.c`.

use std::net::{IpAddr, Ipv6Addr};

use ipnet::IpNet;

use super::network::{lose_routes, same_route};
use super::{missing, refused};
use crate::addr::Family;
use crate::model::{
    Address, Host, Interface, InterfaceKind, NextHop, Origin, Route, RouteKind, RouteTable, Scope,
};
use crate::query::Error;

/// The prefix that an address puts on its link: that of its peer, if it has
/// one.
fn prefix(address: &Address) -> Option<IpNet> {
    IpNet::new(address.peer.unwrap_or(address.address), address.prefix_len).ok().map(|net| net.trunc())
}

/// The routes that an address brings, on a device as it is now.
fn routes(device: &Interface, address: &Address) -> Vec<Route> {
    let family = address.family();
    let v4 = family == Family::Ipv4;
    let loopback = device.kind == InterfaceKind::Loopback;
    let route = |kind: RouteKind, destination: IpNet, metric: u32| {
        let local = kind != RouteKind::Unicast;
        let scope = match kind {
            _ if !v4 => Scope::Global,
            RouteKind::Local => Scope::Host,
            _ => Scope::Link,
        };
        let hop = NextHop {
            gateway: None,
            interface: Some(device.name.clone()),
            weight: 1,
            onlink: false,
            dead: false,
            linkdown: false,
        };
        Route {
            family,
            destination,
            source: None,
            kind,
            table: if local { RouteTable::LOCAL } else { RouteTable::MAIN },
            metric,
            tos: 0,
            scope,
            prefsrc: v4.then_some(address.address),
            next_hops: vec![hop],
            mtu: None,
            protocol: "kernel".into(),
            origin: Origin::default(),
            unmodelled: String::new(),
        }
    };
    let mut made = vec![route(RouteKind::Local, IpNet::from(address.address), 0)];
    let Some(net) = prefix(address).filter(|_| device.up) else { return made };
    if v4 {
        let alone = address.secondary || net == IpNet::from(address.address) || net.addr().is_unspecified();
        if !alone {
            let kind = if loopback { RouteKind::Local } else { RouteKind::Unicast };
            made.push(route(kind, net, 0));
            if net.prefix_len() < 31 && !loopback {
                made.push(route(RouteKind::Broadcast, IpNet::from(net.broadcast()), 0));
            }
        }
    } else if !loopback {
        made.push(route(RouteKind::Unicast, net, 256));
    }
    made
}

fn bring(host: &mut Host, device: &str, address: &Address) {
    let Some(found) = host.interface(device) else { return };
    for route in routes(found, address) {
        // Two IPv6 addresses of a prefix share its route.
        if !host.routes.iter().any(|r| same_route(r, &route)) {
            host.routes.push(route);
        }
    }
}

/// How wide IPv6 takes an address to be (`ipv6_addr_src_scope`).
fn width(address: IpAddr) -> u8 {
    match address {
        IpAddr::V6(address) if address.is_loopback() => 1,
        IpAddr::V6(address) if address.segments()[0] & 0xffc0 == 0xfe80 => 2,
        IpAddr::V6(address) if address.segments()[0] & 0xffc0 == 0xfec0 => 5,
        IpAddr::V4(_) | IpAddr::V6(_) => 14,
    }
}

/// Where a new address goes among those of its device: IPv4 as
/// `__inet_insert_ifa`, IPv6 as `ipv6_link_dev_addr`. `ip addr` lists IPv4
/// first.
fn place(addresses: &[Address], new: &Address) -> usize {
    let v4 = addresses.iter().rposition(|a| a.family() == Family::Ipv4).map_or(0, |at| at + 1);
    match new.family() {
        Family::Ipv4 if new.secondary => v4,
        Family::Ipv4 => {
            let before = |a: &Address| a.family() == Family::Ipv4 && !a.secondary && new.scope <= a.scope;
            addresses.iter().rposition(before).map_or(0, |at| at + 1)
        }
        Family::Ipv6 => {
            let behind = |a: &Address| a.family() == Family::Ipv6 && width(new.address) >= width(a.address);
            addresses.iter().position(behind).unwrap_or(addresses.len())
        }
    }
}

pub(super) fn add(host: &mut Host, device: &str, address: &Address) -> Result<(), Error> {
    let Some(found) = host.interface(device) else {
        return Err(missing(host, format_args!("interface {device}")));
    };
    let v4 = address.family() == Family::Ipv4;
    let same = |a: &Address| {
        a.address == address.address
            && (!v4 || (a.prefix_len, prefix(a)) == (address.prefix_len, prefix(address)))
    };
    if found.addresses.iter().any(same) {
        return Err(refused(host, format_args!("{device} has address {} already", address.address)));
    }
    let second = |a: &Address| a.prefix_len == address.prefix_len && prefix(a) == prefix(address);
    let secondary = v4 && found.addresses.iter().any(|a| !a.secondary && second(a));
    let new = Address { secondary, ..address.clone() };
    if let Some(found) = host.interfaces.iter_mut().find(|i| i.name == device) {
        found.addresses.insert(place(&found.addresses, &new), new.clone());
    }
    bring(host, device, &new);
    Ok(())
}

/// Whether the kernel makes the next address of a subnet its first one when
/// that is deleted, and does not delete all.
fn promotes(host: &Host, device: &str) -> bool {
    ["all", device].iter().any(|name| host.sysctls.interface("ipv4", name, "promote_secondaries") == Some(1))
}

pub(super) fn delete(host: &mut Host, device: &str, net: IpNet, peer: Option<IpAddr>) -> Result<(), Error> {
    let Some(at) = host.interfaces.iter().position(|i| i.name == device) else {
        return Err(missing(host, format_args!("interface {device}")));
    };
    let whole = net.prefix_len() == net.max_prefix_len();
    // Of a bare address, `ip` asks for any prefix.
    let meant = |a: &Address| {
        a.address == net.addr()
            && (a.prefix_len == net.prefix_len() || whole)
            && (peer.is_none() || a.peer == peer)
    };
    let addresses = &mut host.interfaces[at].addresses;
    let Some(place) = addresses.iter().position(meant) else {
        return Err(Error::Unfit(format!("{}:{device} has no address {}", host.name, net.addr())));
    };
    let gone = addresses.remove(place);
    let mut lost = vec![gone.clone()];
    let mut promoted = None;
    if gone.family() == Family::Ipv4 && !gone.secondary {
        let follows =
            |a: &Address| a.secondary && a.prefix_len == gone.prefix_len && prefix(a) == prefix(&gone);
        if promotes(host, device) {
            let addresses = &mut host.interfaces[at].addresses;
            if let Some(next) = addresses.iter().position(follows) {
                let first = Address { secondary: false, ..addresses.remove(next) };
                let place = self::place(addresses, &first);
                addresses.insert(place, first.clone());
                promoted = Some(first);
            }
        } else {
            let addresses = &mut host.interfaces[at].addresses;
            lost.extend(addresses.iter().filter(|a| follows(a)).cloned());
            addresses.retain(|a| !follows(a));
        }
    }
    for address in &lost {
        take(host, device, address);
    }
    if let Some(address) = promoted {
        bring(host, device, &address);
    }
    let left = host.interfaces[at].addresses.iter().any(|a| a.family() == Family::Ipv4);
    if !left && gone.family() == Family::Ipv4 {
        lose_routes(host, device, Some(Family::Ipv4));
    }
    Ok(())
}

/// Takes away the routes that an address has brought, and those that are only
/// good with it.
fn take(host: &mut Host, device: &str, gone: &Address) {
    let left = host.interface(device).map(|i| i.addresses.clone()).unwrap_or_default();
    let still = left.iter().any(|a| !a.secondary && prefix(a) == prefix(gone));
    let elsewhere = host.interface_with(gone.address).is_some();
    let v4 = gone.family() == Family::Ipv4;
    let own = IpNet::from(gone.address);
    let net = prefix(gone);
    host.routes.retain(|route| {
        let by = route.next_hops.iter().any(|h| h.interface.as_deref() == Some(device));
        let brought = by && route.protocol == "kernel";
        let local = route.destination == own && route.kind == RouteKind::Local;
        let of_net = Some(route.destination) == net
            || (v4 && net.is_some_and(|net| route.destination == IpNet::from(net.broadcast())));
        let named = v4 && !elsewhere && route.prefsrc == Some(gone.address);
        !(brought && (local || (of_net && !still))) && !named
    });
}

/// What comes back when a device comes up: routes for its IPv4 addresses, ways
/// that were dead, and, where the host says so, its link-local address.
pub(super) fn revive(host: &mut Host, device: &str) {
    let Some(found) = host.interface(device).cloned() else { return };
    for address in found.addresses.iter().filter(|a| a.family() == Family::Ipv4) {
        bring(host, device, address);
    }
    for route in &mut host.routes {
        for hop in route.next_hops.iter_mut().filter(|h| h.interface.as_deref() == Some(device)) {
            hop.dead = false;
        }
    }
    let told = |key| host.sysctls.interface("ipv6", device, key);
    let Some(mac) = found.mac else { return };
    if told("disable_ipv6") != Some(0) || told("addr_gen_mode") != Some(0) {
        return;
    }
    let [a, b, c, d, e, f] = mac.0;
    let bytes = [0xfe, 0x80, 0, 0, 0, 0, 0, 0, a ^ 2, b, c, 0xff, 0xfe, d, e, f];
    let own = Address {
        address: IpAddr::V6(Ipv6Addr::from(bytes)),
        prefix_len: 64,
        peer: None,
        scope: Scope::Link,
        secondary: false,
        deprecated: false,
        temporary: false,
        tentative: false,
    };
    // It may be there already, given by hand.
    let _ = add(host, device, &own);
}
