//! What an address is to a host: `-m addrtype` and nft's `fib … type`.
//!
//! IPv4 asks the local table alone (`inet_addr_type`, `net/ipv4/fib_frontend.c`),
//! so that a blackhole route in the main table does not make an address
//! `BLACKHOLE`. IPv6 asks by a full look-up (`xt_addrtype.c`,
//! `nft_fib_ipv6.c`).

use std::net::IpAddr;

use super::routing::{lookup, lookup_table, Flow, Lookup};
use crate::model::{AddressType, Host, InterfaceKind, NextHop, Route, RouteKind, RouteTable};

/// The type of what a route of some kind leads to.
pub(super) fn of_kind(kind: RouteKind) -> AddressType {
    match kind {
        RouteKind::Unicast => AddressType::Unicast,
        RouteKind::Local => AddressType::Local,
        RouteKind::Broadcast => AddressType::Broadcast,
        RouteKind::Multicast => AddressType::Multicast,
        RouteKind::Anycast => AddressType::Anycast,
        RouteKind::Unreachable => AddressType::Unreachable,
        RouteKind::Blackhole => AddressType::Blackhole,
        RouteKind::Prohibit => AddressType::Prohibit,
        RouteKind::Throw => AddressType::Throw,
        RouteKind::Nat => AddressType::Nat,
    }
}

/// Whether an address of IPv6 is known to be anybody's: the first of a prefix on a
/// link is that of all its routers (`ipv6_anycast_destination`).
pub(crate) fn anycast(route: &Route, hops: &[&NextHop], address: IpAddr) -> bool {
    let on_link = route.kind == RouteKind::Unicast && hops.iter().all(|h| h.gateway.is_none());
    route.kind == RouteKind::Anycast || (on_link && first(route) == Some(address))
}

/// The address of all routers on a link, if a route is of such a prefix.
pub(super) fn first(route: &Route) -> Option<IpAddr> {
    (route.destination.prefix_len() < 127).then(|| route.destination.network())
}

/// What `xt_addrtype` takes an IPv6 address for that it asks a device about: only
/// routes by that device count, and only addresses of it are local
/// (`match_lookup_rt6`).
///
/// # Errors
/// Why it is open, where routes that are not modelled decide.
pub(crate) fn of_device(host: &Host, address: IpAddr, device: &str) -> Result<AddressType, String> {
    let flow = Flow { oif: Some(device), bound: true, ..Flow::to(address) };
    let own = || host.interface(device).is_some_and(|i| i.addresses.iter().any(|a| a.address == address));
    Ok(match lookup(host, &flow) {
        Lookup::Found(route, hops) if anycast(route, &hops, address) => AddressType::Anycast,
        Lookup::Found(..) if own() => AddressType::Local,
        Lookup::Found(..) => AddressType::Unicast,
        Lookup::Refused(_) | Lookup::NoRoute => AddressType::Unreachable,
        Lookup::Unknown(why) => return Err(why),
    })
}

/// Whether an address may be the source of what a host sends on its own account:
/// of IPv4 its own, or one that no route makes special.
///
/// # Errors
/// Why it is open.
pub(crate) fn may_send(host: &Host, address: IpAddr) -> Result<bool, String> {
    let usual = |kind| matches!(kind, AddressType::Local | AddressType::Unicast);
    if address.is_ipv6() {
        return Ok(true);
    }
    address_type(host, address, None).map(usual)
}

/// The type of an address. `device` limits the look-up to one interface.
///
/// # Errors
/// Why it is open, where routes or policy rules that are not modelled decide.
pub fn address_type(host: &Host, address: IpAddr, device: Option<&str>) -> Result<AddressType, String> {
    let flow = Flow::to(address);
    Ok(match address {
        IpAddr::V4(v4) => {
            if v4.is_unspecified() || v4.is_broadcast() {
                return Ok(AddressType::Broadcast);
            }
            if v4.is_multicast() {
                return Ok(AddressType::Multicast);
            }
            // A device in a VRF asks the VRF's table (l3mdev_fib_table).
            let vrf = device.and_then(|device| host.vrf_of(device)).map(|vrf| &vrf.kind);
            let table = match vrf {
                Some(InterfaceKind::Vrf(table)) => RouteTable(*table),
                _ => RouteTable::LOCAL,
            };
            match lookup_table(host, table, &flow) {
                Lookup::Found(route, hops) => {
                    let there = device.is_none_or(|d| hops.iter().any(|h| h.interface.as_deref() == Some(d)));
                    if there {
                        of_kind(route.kind)
                    } else {
                        AddressType::Unicast
                    }
                }
                Lookup::Refused(_) if table != RouteTable::LOCAL => AddressType::Unicast,
                Lookup::Refused(kind) => of_kind(kind),
                Lookup::NoRoute => AddressType::Unicast,
                Lookup::Unknown(why) => return Err(why),
            }
        }
        IpAddr::V6(v6) => {
            if v6.is_multicast() {
                return Ok(AddressType::Multicast);
            }
            match lookup(host, &Flow { vrf: device, ..flow }) {
                Lookup::Found(route, hops) if anycast(route, &hops, address) => AddressType::Anycast,
                // Told only where a route leads there (__nft_fib6_eval_type).
                Lookup::Found(..) if v6.is_unspecified() => AddressType::Unspec,
                Lookup::Found(route, hops) => {
                    let there = device.is_none_or(|d| hops.iter().any(|h| h.interface.as_deref() == Some(d)));
                    if there || route.kind == RouteKind::Unicast {
                        of_kind(route.kind)
                    } else {
                        AddressType::Unicast
                    }
                }
                Lookup::Refused(RouteKind::Prohibit) => AddressType::Prohibit,
                Lookup::Refused(RouteKind::Blackhole) => AddressType::Blackhole,
                Lookup::Refused(_) | Lookup::NoRoute => AddressType::Unreachable,
                Lookup::Unknown(why) => return Err(why),
            }
        }
    })
}
