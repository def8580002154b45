//! Which source address a host gives a packet of its own.
//!
//! IPv4: the route's `src`, else the first primary address of the interface
//! that shares the gateway's subnet (`inet_select_addr`, `net/ipv4/devinet.c`).
//! IPv6: the rules of RFC 6724 as `ipv6_dev_get_saddr` (`net/ipv6/addrconf.c`)
//! applies them.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::addr::Family;
use crate::model::{Address, Host, Interface, NextHop, Route, Scope};

/// The source address for a route and the next hop taken. A route that leads out
/// of the VRF that is asked lends it no address, not even one that it names
/// (`fib_select_path`, `ip6_route_get_saddr`).
pub fn for_route(
    host: &Host,
    route: &Route,
    hop: Option<&NextHop>,
    dst: IpAddr,
    inside: Option<&Interface>,
) -> Option<IpAddr> {
    let device = hop.and_then(|h| h.interface.as_deref());
    let leaves = |vrf: &&Interface| device.is_none_or(|device| domain(host, device) != Some(&vrf.name));
    if let Some(vrf) = inside.filter(leaves) {
        return match dst {
            IpAddr::V4(_) => for_interface_v4(host, &vrf.name, None, Scope::Link).map(IpAddr::V4),
            IpAddr::V6(dst) => for_interface_v6(host, &vrf.name, dst).map(IpAddr::V6),
        };
    }
    if let Some(preferred) = route.prefsrc {
        return Some(preferred);
    }
    let device = device?;
    match dst {
        IpAddr::V4(_) => {
            let gateway = hop.and_then(|h| h.gateway);
            for_interface_v4(host, device, gateway, route.scope).map(IpAddr::V4)
        }
        IpAddr::V6(dst) => for_interface_v6(host, device, dst).map(IpAddr::V6),
    }
}

/// The source address for a route of type local: IPv4 says the address itself
/// (`ip_route_output_key_hash_rcu`), IPv6 chooses as for any other.
pub fn for_local(
    host: &Host,
    route: &Route,
    hop: Option<&NextHop>,
    dst: IpAddr,
    inside: Option<&Interface>,
) -> Option<IpAddr> {
    match dst {
        IpAddr::V4(_) => route.prefsrc.or(Some(dst)),
        IpAddr::V6(_) => for_route(host, route, hop.or(route.next_hops.first()), dst, inside),
    }
}

/// The VRF that a device is in, by name (`l3mdev_master_ifindex`).
fn domain<'h>(host: &'h Host, device: &str) -> Option<&'h str> {
    host.vrf_of(device).map(|vrf| vrf.name.as_str())
}

fn v4(address: &Address) -> Option<Ipv4Addr> {
    match address.address {
        IpAddr::V4(a) => Some(a),
        IpAddr::V6(_) => None,
    }
}

/// `inet_select_addr`: the first primary address of an interface that may be
/// used at this scope, one in the subnet of `near` before others; else one of
/// another interface of the same VRF, of which the VRF's own device comes first.
pub fn for_interface_v4(host: &Host, device: &str, near: Option<IpAddr>, scope: Scope) -> Option<Ipv4Addr> {
    let primary = |i: &Interface| -> Vec<Address> {
        i.addresses
            .iter()
            .filter(|a| a.family() == Family::Ipv4 && !a.secondary && a.scope <= scope)
            .cloned()
            .collect()
    };
    let own = host.interface(device).map(primary).unwrap_or_default();
    let same_net = |a: &&Address| near.is_some_and(|n| a.net().is_some_and(|net| net.contains(&n)));
    if let Some(address) = own.iter().find(same_net).or_else(|| own.first()) {
        return v4(address);
    }
    let vrf = domain(host, device);
    if let Some(address) = vrf.and_then(|vrf| host.interface(vrf)).and_then(|i| primary(i).into_iter().next())
    {
        return v4(&address);
    }
    let near = host.interfaces.iter().filter(|i| domain(host, &i.name) == vrf);
    near.flat_map(primary).find(|a| a.scope != Scope::Link).as_ref().and_then(v4)
}

fn v6_scope(address: Ipv6Addr) -> u8 {
    if address.is_loopback() || (address.segments()[0] & 0xffc0) == 0xfe80 {
        2
    } else if (address.segments()[0] & 0xffc0) == 0xfec0 {
        5
    } else if address.is_multicast() {
        (address.segments()[0] & 0xf) as u8
    } else {
        14
    }
}

/// The label of RFC 6724, section 2.1, with the kernel's table
/// (`net/ipv6/addrlabel.c`).
fn v6_label(address: Ipv6Addr) -> u8 {
    let s = address.segments();
    if address.is_loopback() {
        0
    } else if address.to_bits() >> 32 == 0xffff {
        4
    } else if address.to_bits() >> 32 == 0 {
        3
    } else if s[0] == 0x2002 {
        2
    } else if s[0] == 0x2001 && s[1] == 0 {
        6
    } else if s[0] & 0xfe00 == 0xfc00 {
        5
    } else if s[0] & 0xffc0 == 0xfec0 {
        11
    } else if s[0] == 0x3ffe {
        12
    } else if s[0] == 0x2001 && s[1] & 0xfff0 == 0x10 {
        7
    } else {
        1
    }
}

/// `ipv6_dev_get_saddr`: the best address for a destination left by `device`.
pub fn for_interface_v6(host: &Host, device: &str, dst: Ipv6Addr) -> Option<Ipv6Addr> {
    let wanted = v6_scope(dst);
    // Link-local and multicast destinations confine the choice to the device,
    // and so does nowhere, which has no scope (ipv6_dev_get_saddr).
    let confined = wanted <= 2 || dst.is_multicast() || dst.is_unspecified();
    let vrf = domain(host, device);
    if let (false, Some(vrf)) = (confined, vrf) {
        // In a VRF the device and the VRF's own come first, but only where they
        // have one address: to compare two is to look further.
        let own = host.interfaces.iter().filter(|i| i.up && (i.name == device || i.name == vrf));
        let mut usable =
            own.flat_map(|i| &i.addresses).filter(|a| !a.tentative).filter_map(|a| match a.address {
                IpAddr::V6(a) => Some(a),
                IpAddr::V4(_) => None,
            });
        if let (Some(only), None) = (usable.next(), usable.next()) {
            return Some(only);
        }
    }
    let mut best: Option<(Rank, Ipv6Addr)> = None;
    let same = |i: &&Interface| i.up && domain(host, &i.name) == vrf;
    for interface in host.interfaces.iter().filter(same).filter(|i| !confined || i.name == device) {
        for address in &interface.addresses {
            let IpAddr::V6(candidate) = address.address else { continue };
            if address.tentative {
                continue;
            }
            let here = interface.name == device;
            let setting = |name: &str| host.sysctls.interface("ipv6", name, "use_tempaddr");
            let private = setting(&interface.name).or_else(|| setting("all")).is_some_and(|v| v >= 2);
            // Rule 7: public addresses, unless temporary ones are wanted.
            let public = address.temporary == private;
            let rank = rank(candidate, address, (here, public), dst, wanted);
            if best.as_ref().is_none_or(|(other, _)| rank > *other) {
                best = Some((rank, candidate));
            }
        }
    }
    best.map(|(_, address)| address)
}

/// Preferences in RFC 6724's order; greater is better.
type Rank = (bool, i16, bool, bool, bool, bool, u32);

fn rank(
    candidate: Ipv6Addr,
    address: &Address,
    (here, public): (bool, bool),
    dst: Ipv6Addr,
    wanted: u8,
) -> Rank {
    let scope = v6_scope(candidate);
    // Rule 2: the smallest scope that is not too small; else the largest.
    let fit = if scope >= wanted { -i16::from(scope) } else { i16::from(scope) - 128 };
    let common = (candidate.to_bits() ^ dst.to_bits()).leading_zeros().min(u32::from(address.prefix_len));
    (candidate == dst, fit, !address.deprecated, here, v6_label(candidate) == v6_label(dst), public, common)
}
