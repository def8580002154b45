//! What a host makes of packets that came in, for sets: martian addresses, the
//! route, the reverse path test, and whether it forwards.
//!
//! Written from `ip_route_input_slow`, `fib_validate_source` and
//! `ip6_route_input`, beside [`crate::semantics::input`].

use std::collections::{BTreeSet, HashMap};

use super::routes::Route;
use super::{Leaves, Set, Sets};
use crate::addr::Family;
use crate::model::{Host, Interface, InterfaceKind, PolicyAction, RouteKind, RouteTable, Stage};
use crate::semantics::input::{forwards, uses, BY_HOP};
use crate::space::{Field, Mapping, Ref, Source};

/// What becomes of packets that came in.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Arrival {
    /// They are for this host.
    Local,
    /// They are for everybody here.
    Broadcast,
    /// They are to be forwarded: a route, and its usable next hops.
    Forward(usize, Vec<(usize, usize)>),
    /// The route (or its lack) refuses them, and says so: none means no route.
    Refused(Option<RouteKind>),
    /// They are dropped in silence.
    Dropped(Stage),
    /// It depends on what is not known.
    Unknown(String),
}

/// An interface by which packets come in.
#[derive(Clone, Copy, Debug)]
pub struct Entry<'a> {
    /// The host.
    pub host: &'a Host,
    /// The interface.
    pub device: &'a Interface,
}

#[derive(Debug, Default)]
pub(super) struct Cache {
    leaves: Leaves<Arrival>,
    known: HashMap<(String, String, bool), Ref>,
}

impl Cache {
    pub(super) fn forget(&mut self) {
        self.known.clear();
    }
}

/// The greater of `conf.all` and the interface's own setting.
fn greatest(at: Entry, key: &str) -> Option<i64> {
    let settings = &at.host.sysctls;
    settings.interface("ipv4", &at.device.name, key).max(settings.interface("ipv4", "all", key))
}

fn is_on(at: Entry, key: &str) -> bool {
    greatest(at, key).is_some_and(|v| v != 0)
}

/// Whether somebody added a policy rule or a route of type local.
fn is_customised(host: &Host) -> bool {
    let rule = host.rules.iter().filter(|r| r.family == Family::Ipv4).any(|r| {
        !matches!(
            (r.priority, &r.action),
            (0, PolicyAction::Lookup(RouteTable::LOCAL))
                | (32766, PolicyAction::Lookup(RouteTable::MAIN))
                | (32767, PolicyAction::Lookup(RouteTable::DEFAULT))
        )
    });
    let local = |r: &crate::model::Route| {
        r.family == Family::Ipv4 && r.kind == RouteKind::Local && r.protocol != "kernel"
    };
    rule || host.routes.iter().any(local)
}

impl Sets {
    /// What a leaf of [`Sets::arrivals`] stands for.
    pub fn arrival(&self, leaf: u32) -> Option<&Arrival> {
        self.input.leaves.value(leaf)
    }

    fn outcome(&mut self, arrival: Arrival) -> Ref {
        self.input.leaves.leaf(arrival)
    }

    fn dropped(&mut self, stage: Stage) -> Ref {
        self.outcome(Arrival::Dropped(stage))
    }

    /// What a host makes of packets that come in by an interface: leaves are
    /// [`Arrival`]s, over both families.
    ///
    /// # Errors
    /// If the store's budget is used up.
    pub fn arrivals(&mut self, at: Entry) -> Set {
        self.arriving(at, false)
    }

    /// The same, for what a bridge asks about frames that it rewrote: routes of
    /// IPv6 are looked up before forwarding is asked for (`ip6_route_input`).
    ///
    /// # Errors
    /// If the store's budget is used up.
    pub fn arrivals_bridged(&mut self, at: Entry) -> Set {
        self.arriving(at, true)
    }

    fn arriving(&mut self, at: Entry, bridged: bool) -> Set {
        let key = (at.host.name.clone(), at.device.name.clone(), bridged);
        if let Some(known) = self.input.known.get(&key) {
            return Ok(*known);
        }
        // In a VRF, IPv6 arrives as the VRF's (ip6_route_input).
        let inside = Entry { device: at.host.vrf_of(&at.device.name).unwrap_or(at.device), ..at };
        let forwarding = match bridged {
            true => Some(true),
            false => forwards(at.host, &inside.device.name, Family::Ipv6),
        };
        let (v4, v6) = (self.arrivals_v4(at)?, self.arrivals_v6(inside, forwarding)?);
        let family = self.store.family(Family::Ipv4)?;
        let both = self.store.choose(family, v4, v6)?;
        self.input.known.insert(key, both);
        Ok(both)
    }

    fn arrivals_v4(&mut self, at: Entry) -> Set {
        let iif = self.names.number(&at.device.name);
        let mut mapping = Mapping::default();
        mapping.set(Field::Iif, Source::constant(Field::Iif, iif.into()));
        mapping.set(Field::PortsTold, Source::constant(Field::PortsTold, 1));
        let routing = self.routing(at.host, Family::Ipv4, None, Some(&at.device.name))?;
        let found = self.store.pull_back(Ref::ALL, routing, &mapping)?;
        let forwarding = forwards(at.host, &at.device.name, Family::Ipv4);
        let not_told = format!("net.ipv4.conf.{}.forwarding is not told", at.device.name);
        let forwarding_leaf = |sets: &mut Sets, yes: Arrival| match forwarding {
            Some(true) => sets.outcome(yes),
            Some(false) => sets.dropped(Stage::NotForwarding),
            None => sets.outcome(Arrival::Unknown(not_told.clone())),
        };
        // Sources are judged by the way out, so leaf by leaf.
        let broadcast = self.broadcast(at)?;
        let to_self = self.validated(at, None, Arrival::Local)?;
        let mut result = Ref::NONE;
        for leaf in self.store.leaves(found) {
            let here = self.store.where_leaf(found, &|l| l == leaf)?;
            let Some(route) = self.routes.leaves.value(leaf).cloned() else { continue };
            let outcome = match route {
                Route::Unknown(why) => self.outcome(Arrival::Unknown(why)),
                Route::Refused(kind) => forwarding_leaf(self, Arrival::Refused(Some(kind))),
                Route::NoRoute => forwarding_leaf(self, Arrival::Refused(None)),
                Route::Found(index, hops) => match at.host.routes[index].kind {
                    RouteKind::Broadcast => broadcast,
                    RouteKind::Local | RouteKind::Anycast => to_self,
                    RouteKind::Unicast => match forwarding {
                        Some(true) => {
                            let device = |(r, h): &(usize, usize)| {
                                at.host.routes[*r].next_hops[*h].interface.as_deref()
                            };
                            let outs: BTreeSet<_> = hops.iter().map(device).collect();
                            let fine = Arrival::Forward(index, hops.clone());
                            self.by_hop(at, &outs, &fine)?
                        }
                        _ => forwarding_leaf(self, Arrival::Local),
                    },
                    _ => self.dropped(Stage::MartianDest),
                },
            };
            let outcome = self.store.guard(here, outcome)?;
            result = self.store.or_else(result, outcome)?;
        }
        let group = self.outcome(Arrival::Unknown("multicast membership".into()));
        let groups = self.prefix(Field::Dst, "224.0.0.0/4")?;
        result = self.store.choose(groups, group, result)?;
        if !is_on(at, "route_localnet") {
            let (to, from) =
                (self.prefix(Field::Dst, "127.0.0.0/8")?, self.prefix(Field::Src, "127.0.0.0/8")?);
            let loopback = self.store.or_else(to, from)?;
            let stage = self.dropped(Stage::MartianLocalnet);
            result = self.store.choose(loopback, stage, result)?;
        }
        for (field, stage) in [(Field::Dst, Stage::MartianDest), (Field::Src, Stage::MartianSource)] {
            let zero = self.prefix(field, "0.0.0.0/32")?;
            let stage = self.dropped(stage);
            result = self.store.choose(zero, stage, result)?;
        }
        let all = self.prefix(Field::Dst, "255.255.255.255/32")?;
        let nowhere = [self.prefix(Field::Dst, "0.0.0.0/32")?, self.prefix(Field::Src, "0.0.0.0/32")?];
        let nowhere = self.store.all_of(&nowhere)?;
        let to_all = self.store.or_else(all, nowhere)?;
        result = self.store.choose(to_all, broadcast, result)?;
        let bad = [self.prefix(Field::Src, "224.0.0.0/4")?, self.prefix(Field::Src, "255.255.255.255/32")?];
        let bad = self.store.first_of(&bad)?;
        let stage = self.dropped(Stage::MartianSource);
        self.store.choose(bad, stage, result)
    }

    /// Broadcasts: whoever has no address yet may send them.
    fn broadcast(&mut self, at: Entry) -> Set {
        let fine = self.outcome(Arrival::Broadcast);
        let judged = self.judged(at, None, false, Arrival::Broadcast)?;
        let zero = self.prefix(Field::Src, "0.0.0.0/32")?;
        self.store.choose(zero, fine, judged)
    }

    /// `fine` where the source may come in, whichever way packets go on; open where
    /// that depends on the way ([`BY_HOP`]).
    fn by_hop(&mut self, at: Entry, outs: &BTreeSet<Option<&str>>, fine: &Arrival) -> Set {
        let mut outs = outs.iter().copied();
        let mut result = self.validated(at, outs.next().flatten(), fine.clone())?;
        for out in outs {
            let judged = self.validated(at, out, fine.clone())?;
            let mut same = Vec::new();
            for leaf in self.store.leaves(result) {
                let one = self.store.where_leaf(result, &|l| l == leaf)?;
                let other = self.store.where_leaf(judged, &|l| l == leaf)?;
                same.push(self.store.guard(one, other)?);
            }
            let same = self.store.first_of(&same)?;
            let open = self.outcome(Arrival::Unknown(BY_HOP.into()));
            result = self.store.choose(same, judged, open)?;
        }
        Ok(result)
    }

    fn validated(&mut self, at: Entry, out: Option<&str>, fine: Arrival) -> Set {
        self.judged(at, out, true, fine)
    }

    /// `fib_validate_source`: `fine` where a source may come in here. `out` is
    /// where the packet goes; `towards`: the way back is looked up from its
    /// destination.
    fn judged(&mut self, at: Entry, out: Option<&str>, towards: bool, fine: Arrival) -> Set {
        let fine = self.outcome(fine);
        let name = at.device.name.as_str();
        let accept_local = is_on(at, "accept_local");
        let Some(rp_filter) = greatest(at, "rp_filter") else {
            // Not told: it matters only where the test would fail.
            let judged = self.reverse_path(at, out, towards, 1, accept_local, fine)?;
            let failed = self.dropped(Stage::RpFilter);
            let open = self.outcome(Arrival::Unknown(format!("net.ipv4.conf.{name}.rp_filter is not told")));
            return self.store.map_leaves(judged, &mut |leaf| {
                if Ref::leaf(leaf) == failed {
                    open
                } else {
                    Ref::leaf(leaf)
                }
            });
        };
        // On unless told otherwise.
        let redirects = greatest(at, "send_redirects").is_none_or(|v| v != 0);
        if rp_filter == 0 && (out != Some(name) || !redirects) {
            if accept_local {
                return Ok(fine);
            }
            if !is_customised(at.host) {
                let mut own = Vec::new();
                for address in at.host.interfaces.iter().flat_map(|i| &i.addresses) {
                    if address.family() == Family::Ipv4 {
                        own.push(self.store.is_address(Field::Src, address.address)?);
                    }
                }
                let own = self.store.first_of(&own)?;
                let bad = self.dropped(Stage::MartianSource);
                return self.store.choose(own, bad, fine);
            }
        }
        self.reverse_path(at, out, towards, rp_filter, accept_local, fine)
    }

    /// `__fib_validate_source`: looks up the way back.
    fn reverse_path(
        &mut self,
        at: Entry,
        out: Option<&str>,
        towards: bool,
        rp_filter: i64,
        accept_local: bool,
        fine: Ref,
    ) -> Set {
        let host = at.host;
        let mut back = Mapping::default();
        back.set(
            Field::Src,
            if towards { Source::keep(Field::Dst) } else { Source::constant(Field::Src, 0) },
        );
        back.set(Field::Sport, Source::keep(Field::Dport));
        back.set(Field::Dport, Source::keep(Field::Sport));
        back.set(Field::PortsTold, Source::constant(Field::PortsTold, 1));
        if !is_on(at, "src_valid_mark") {
            back.set(Field::Mark, Source::constant(Field::Mark, 0));
        }
        let found = self.asked(
            host,
            Family::Ipv4,
            &mut back,
            Field::Src,
            out.unwrap_or("lo"),
            (None, Some(&at.device.name)),
        )?;
        let bad = self.dropped(Stage::RpFilter);
        let martian = self.dropped(Stage::MartianSource);
        let last_resort = if rp_filter == 0 { fine } else { bad };
        let loopback = at.device.kind == InterfaceKind::Loopback;
        let addressed = at.device.addresses.iter().any(|a| a.family() == Family::Ipv4);
        let Sets { store, routes, input, .. } = self;
        store.map_leaves(found, &mut |leaf| match routes.leaves.value(leaf) {
            Some(Route::Unknown(why)) => input.leaves.leaf(Arrival::Unknown(why.clone())),
            Some(Route::NoRoute | Route::Refused(_)) | None => last_resort,
            Some(Route::Found(index, _)) => {
                let route = &host.routes[*index];
                let local = route.kind == RouteKind::Local;
                if route.kind != RouteKind::Unicast && !(local && accept_local) {
                    return martian;
                }
                let here = uses(host, &route.next_hops, &at.device.name);
                match () {
                    () if here || (local && loopback) => fine,
                    () if !addressed => last_resort,
                    () if rp_filter == 1 => bad,
                    () => fine,
                }
            }
        })
    }

    fn arrivals_v6(&mut self, at: Entry, forwarding: Option<bool>) -> Set {
        let iif = self.names.number(&at.device.name);
        let mut mapping = Mapping::default();
        mapping.set(Field::Iif, Source::constant(Field::Iif, iif.into()));
        mapping.set(Field::PortsTold, Source::constant(Field::PortsTold, 1));
        let routing = self.routing(at.host, Family::Ipv6, None, Some(&at.device.name))?;
        let found = self.store.pull_back(Ref::ALL, routing, &mapping)?;
        let Sets { store, routes, input, .. } = self;
        let result = store.map_leaves(found, &mut |leaf| {
            let arrival = match routes.leaves.value(leaf) {
                Some(Route::Unknown(why)) => Arrival::Unknown(why.clone()),
                Some(Route::NoRoute) | None => Arrival::Refused(None),
                Some(Route::Refused(kind)) => Arrival::Refused(Some(*kind)),
                Some(Route::Found(index, hops)) => match (at.host.routes[*index].kind, forwarding) {
                    (RouteKind::Local | RouteKind::Anycast, _) => Arrival::Local,
                    (RouteKind::Unicast, Some(true)) => Arrival::Forward(*index, hops.clone()),
                    (RouteKind::Unicast, Some(false)) => Arrival::Dropped(Stage::NotForwarding),
                    (RouteKind::Unicast, None) => {
                        Arrival::Unknown("net.ipv6.conf.all.forwarding is not told".into())
                    }
                    _ => Arrival::Dropped(Stage::MartianDest),
                },
            };
            input.leaves.leaf(arrival)
        })?;
        let groups = self.prefix(Field::Dst, "ff00::/8")?;
        let nodes = self.prefix(Field::Dst, "ff02::1/128")?;
        let member = self.outcome(Arrival::Unknown("multicast membership".into()));
        let everybody = self.outcome(Arrival::Broadcast);
        let result = self.store.choose(groups, member, result)?;
        self.store.choose(nodes, everybody, result)
    }

    /// Addresses that `ip6_rcv_core` refuses before any hook.
    ///
    /// # Errors
    /// If the store's budget is used up.
    pub fn martians_v6(&mut self, device: &Interface) -> Set {
        let mut parts = vec![self.prefix(Field::Src, "ff00::/8")?];
        let loopback = device.kind == InterfaceKind::Loopback;
        if !loopback && !matches!(device.kind, InterfaceKind::Vrf(_)) {
            parts.push(self.prefix(Field::Src, "::1/128")?);
            parts.push(self.prefix(Field::Dst, "::1/128")?);
        }
        if !loopback {
            // Groups of interface scope never come from a wire.
            for scope in 0..=1_u128 {
                let bits = crate::space::Bits { mask: 0xff0f << 112, value: (0xff00 + scope) << 112 };
                parts.push(self.store.bits(Field::Dst, bits)?);
            }
        }
        let any = self.store.first_of(&parts)?;
        let family = self.store.family(Family::Ipv6)?;
        self.store.guard(family, any)
    }
}
