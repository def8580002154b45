//! What addresses are to a host, for sets (`inet_addr_type`, `xt_addrtype.c`).

use std::collections::BTreeSet;

use super::routes::Route;
use super::{Set, Sets};
use crate::addr::Family;
use crate::model::{AddressType, Host, InterfaceKind, RouteKind, RouteTable};
use crate::semantics::addrtype::{first, of_kind};
use crate::space::{Field, Mapping, Ref, Source};

/// Address types, in the order of the leaves of [`Sets::address_types`].
pub(super) const ADDRESS_TYPES: [AddressType; 12] = [
    AddressType::Unspec,
    AddressType::Unicast,
    AddressType::Local,
    AddressType::Broadcast,
    AddressType::Anycast,
    AddressType::Multicast,
    AddressType::Blackhole,
    AddressType::Unreachable,
    AddressType::Prohibit,
    AddressType::Throw,
    AddressType::Nat,
    AddressType::Xresolve,
];

/// The leaf of addresses whose type routes decide that are not modelled.
pub(super) const OPEN: Ref = Ref::leaf(ADDRESS_TYPES.len() as u32 + 1);

/// Why a type is open.
pub(super) const OPEN_TYPE: &str = "an address's type, which routes decide that are not modelled";

fn type_leaf(kind: AddressType) -> Ref {
    let index = ADDRESS_TYPES.iter().position(|t| *t == kind).unwrap_or_default();
    Ref::leaf(index as u32 + 1)
}

/// A look-up that knows nothing but where to.
fn blank() -> Mapping {
    let mut mapping = Mapping::default();
    for field in [Field::Src, Field::Tos, Field::Mark, Field::Protocol, Field::PortsTold] {
        mapping.set(field, Source::constant(field, 0));
    }
    mapping
}

impl Sets {
    /// What an address field is to a host: leaves count [`ADDRESS_TYPES`] from
    /// 1. `device` limits the look-up to one interface.
    pub(super) fn address_types(
        &mut self,
        host: &Host,
        field: Field,
        family: Family,
        device: Option<&str>,
    ) -> Set {
        let mut mapping = blank();
        let there = |route: &Route| match (route, device) {
            (Route::Found(_, hops), Some(device)) => {
                hops.iter().any(|(r, h)| host.routes[*r].next_hops[*h].interface.as_deref() == Some(device))
            }
            _ => true,
        };
        let unicast = type_leaf(AddressType::Unicast);
        if family == Family::Ipv4 {
            // A device in a VRF asks the VRF's table.
            let vrf = device.and_then(|device| host.vrf_of(device)).map(|vrf| &vrf.kind);
            let table = match vrf {
                Some(InterfaceKind::Vrf(table)) => RouteTable(*table),
                _ => RouteTable::LOCAL,
            };
            let local = self.table(host, family, table, (None, false))?;
            mapping.set(Field::Dst, Source::keep(field));
            let found = self.store.pull_back(Ref::ALL, local, &mapping)?;
            let Sets { store, routes, .. } = self;
            let typed = store.map_leaves(found, &mut |leaf| match routes.leaves.value(leaf) {
                Some(r @ Route::Found(route, _)) if there(r) => type_leaf(of_kind(host.routes[*route].kind)),
                Some(Route::Refused(kind)) if table == RouteTable::LOCAL => type_leaf(of_kind(*kind)),
                Some(Route::Unknown(_)) => OPEN,
                _ => unicast,
            })?;
            let zero = self.prefix(field, "0.0.0.0/32")?;
            let all = self.prefix(field, "255.255.255.255/32")?;
            let special = self.store.or_else(zero, all)?;
            let groups = self.prefix(field, "224.0.0.0/4")?;
            let typed = self.store.choose(groups, type_leaf(AddressType::Multicast), typed)?;
            return self.store.choose(special, type_leaf(AddressType::Broadcast), typed);
        }
        let found = self.asked(host, family, &mut mapping, field, "lo", (None, device))?;
        let Sets { store, routes, .. } = self;
        let typed = store.map_leaves(found, &mut |leaf| match routes.leaves.value(leaf) {
            Some(r @ Route::Found(route, _)) => {
                let kind = host.routes[*route].kind;
                if there(r) || kind == RouteKind::Unicast {
                    type_leaf(of_kind(kind))
                } else {
                    unicast
                }
            }
            Some(Route::Refused(RouteKind::Prohibit)) => type_leaf(AddressType::Prohibit),
            Some(Route::Refused(RouteKind::Blackhole)) => type_leaf(AddressType::Blackhole),
            Some(Route::Refused(_) | Route::NoRoute) => type_leaf(AddressType::Unreachable),
            Some(Route::Unknown(_)) => OPEN,
            None => unicast,
        })?;
        let typed = self.with_anycast(host, field, found, typed)?;
        let groups = self.prefix(field, "ff00::/8")?;
        let none = self.prefix(field, "::/128")?;
        let led = self.store.where_leaf(typed, &|leaf| {
            let kinds = [AddressType::Unicast, AddressType::Local].map(type_leaf);
            kinds.contains(&Ref::leaf(leaf))
        })?;
        let none = self.store.guard(none, led)?;
        let typed = self.store.choose(none, type_leaf(AddressType::Unspec), typed)?;
        self.store.choose(groups, type_leaf(AddressType::Multicast), typed)
    }

    /// The same, as `xt_addrtype` of IPv6 asks about a device (`match_lookup_rt6`).
    fn of_device(&mut self, host: &Host, field: Field, device: &str) -> Set {
        let mut mapping = blank();
        let lo = self.names.number("lo");
        mapping.set(Field::Iif, Source::constant(Field::Iif, lo.into()));
        mapping.set(Field::Dst, Source::keep(field));
        let routing = self.routing_bound(host, device)?;
        let found = self.store.pull_back(Ref::ALL, routing, &mapping)?;
        let mut own = Vec::new();
        for address in host.interface(device).into_iter().flat_map(|i| &i.addresses) {
            if address.address.is_ipv6() {
                own.push(self.store.is_address(field, address.address)?);
            }
        }
        let own = self.store.first_of(&own)?;
        let (unicast, local) = (type_leaf(AddressType::Unicast), type_leaf(AddressType::Local));
        let there = self.store.choose(own, local, unicast)?;
        const THERE: Ref = Ref::leaf((1 << 31) - 4);
        let Sets { store, routes, .. } = self;
        let typed = store.map_leaves(found, &mut |leaf| match routes.leaves.value(leaf) {
            Some(Route::Found(..)) => THERE,
            Some(Route::Unknown(_)) => OPEN,
            None => unicast,
            Some(Route::Refused(_) | Route::NoRoute) => type_leaf(AddressType::Unreachable),
        })?;
        let own = store.where_leaf(typed, &|leaf| Ref::leaf(leaf) == THERE)?;
        let typed = store.choose(own, there, typed)?;
        self.with_anycast(host, field, found, typed)
    }

    /// Types of addresses, where anybody's are told
    /// ([`anycast`](crate::semantics::addrtype::anycast)).
    fn with_anycast(&mut self, host: &Host, field: Field, found: Ref, typed: Ref) -> Set {
        let mut result = typed;
        for (index, route) in host.routes.iter().enumerate().filter(|(_, r)| r.family == Family::Ipv6) {
            let is = match (route.kind, first(route)) {
                (RouteKind::Anycast, _) => Ref::ALL,
                (RouteKind::Unicast, Some(address)) => self.store.is_address(field, address)?,
                _ => continue,
            };
            let here = self.led_by(host, found, index)?;
            let both = self.store.guard(is, here)?;
            result = self.store.choose(both, type_leaf(AddressType::Anycast), result)?;
        }
        Ok(result)
    }

    /// Where a route leads, without a gateway.
    fn led_by(&mut self, host: &Host, found: Ref, index: usize) -> Set {
        let Sets { store, routes, .. } = self;
        store.where_leaf(found, &|leaf| match routes.leaves.value(leaf) {
            Some(Route::Found(route, hops)) => {
                *route == index && hops.iter().all(|(r, h)| host.routes[*r].next_hops[*h].gateway.is_none())
            }
            _ => false,
        })
    }

    /// Where a type is one that is asked for, or may be where it is open.
    pub(super) fn or_open_type(&mut self, typed: Ref, is: Ref) -> Set {
        let open = self.store.where_leaf(typed, &|leaf| Ref::leaf(leaf) == OPEN)?;
        if open.is_none() {
            return Ok(is);
        }
        let unknown = self.unknown(OPEN_TYPE)?;
        self.store.choose(open, unknown, is)
    }

    /// `xt_addrtype` of IPv6 asks in turn and wants all that it is asked.
    pub(super) fn xt_address_type_v6(
        &mut self,
        host: &Host,
        field: Field,
        wanted: &BTreeSet<AddressType>,
        device: Option<&str>,
    ) -> Set {
        let mut parts = Vec::new();
        let unspecified = self.prefix(field, "::/128")?;
        let group = self.prefix(field, "ff00::/8")?;
        if wanted.contains(&AddressType::Unspec) {
            parts.push(unspecified);
        }
        if wanted.contains(&AddressType::Unicast) {
            let either = self.store.or_else(unspecified, group)?;
            parts.push(self.store.not(either)?);
        }
        if wanted.contains(&AddressType::Multicast) {
            parts.push(group);
        }
        let by_route =
            [AddressType::Local, AddressType::Anycast, AddressType::Prohibit, AddressType::Unreachable];
        if by_route.iter().any(|t| wanted.contains(t)) {
            let typed = match device {
                Some(device) => self.of_device(host, field, device)?,
                None => self.address_types(host, field, Family::Ipv6, None)?,
            };
            let is = self.store.where_leaf(typed, &|leaf| {
                let kind = ADDRESS_TYPES.get(leaf as usize - 1).copied();
                let kind = match kind {
                    Some(AddressType::Prohibit | AddressType::Blackhole) => Some(AddressType::Unreachable),
                    other => other,
                };
                kind.is_some_and(|k| wanted.contains(&k) && by_route.contains(&k))
            })?;
            parts.push(self.or_open_type(typed, is)?);
        }
        self.store.all_of(&parts)
    }
}
