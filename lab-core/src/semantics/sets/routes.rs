//! Route look-up for sets: each host's routing as one diagram over
//! destination, source, interface, mark, service, protocol and ports.
//!
//! Written from `fib_rules.c`, `fib_trie.c`, `fib6_rules.c` and `ip6_fib.c`,
//! beside [`crate::semantics::routing`], which does the same for one packet.

use std::collections::{BTreeSet, HashMap};

use ipnet::IpNet;

use super::{Leaves, Set, Sets};
use crate::addr::Family;
use crate::model::{Host, InterfaceKind, PolicyAction, PolicyRule, RouteKind, RouteTable};
use crate::semantics::input::uses;
use crate::semantics::routing::{passed_over, still_silent, BY_VRF};
use crate::space::{Bits, Field, Mapping, Ref, Source};

/// What a look-up finds.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Route {
    /// A route by its index among the host's, and its usable next hops: each
    /// by the index of a route and its place there.
    Found(usize, Vec<(usize, usize)>),
    /// An unreachable, prohibit or blackhole route or rule.
    Refused(RouteKind),
    /// Nothing.
    NoRoute,
    /// It depends on what is not modelled.
    Unknown(String),
}

/// The device that packets leave by, and whether only routes by it count.
type By = (Option<String>, bool);

/// Where selectors hold, and where that is not known, and why.
type Selected = (Ref, Vec<(Ref, &'static str)>);

#[derive(Debug, Default)]
pub(super) struct Cache {
    pub leaves: Leaves<Route>,
    whole: HashMap<(String, Family, By, Option<String>), Ref>,
    tables: HashMap<(String, Family, u32, By), Ref>,
}

/// Prefixes of [`by_link_alone`](crate::semantics::routing::by_link_alone).
const LINK_ALONE: [&str; 3] = ["ff00::/8", "fe80::/10", "::1/128"];

/// Ends a table: the next policy rule is asked.
const THROW: Ref = Ref::leaf((1 << 31) - 1);

impl Sets {
    /// What a leaf of [`Sets::routing`] stands for.
    pub fn route(&self, leaf: u32) -> Option<&Route> {
        self.routes.leaves.value(leaf)
    }

    /// Forgets what is known of routes, where diagrams of it are not kept.
    pub fn forget_routes(&mut self) {
        self.routes.whole.clear();
        self.routes.tables.clear();
    }

    /// A host's routing: leaves are [`Route`]s. `oif`: the interface that the
    /// packet must leave by; `vrf`: the VRF that it is in, if that is not the
    /// other's.
    ///
    /// # Errors
    /// If the store's budget is used up.
    pub fn routing(&mut self, host: &Host, family: Family, oif: Option<&str>, vrf: Option<&str>) -> Set {
        self.ruled(host, family, (oif, false), vrf)
    }

    /// The same, for packets of IPv6 that take no route but by a device.
    pub(super) fn routing_bound(&mut self, host: &Host, device: &str) -> Set {
        self.ruled(host, Family::Ipv6, (Some(device), true), None)
    }

    fn ruled(
        &mut self,
        host: &Host,
        family: Family,
        (oif, bound): (Option<&str>, bool),
        vrf: Option<&str>,
    ) -> Set {
        // A VRF as the way out says which table, not which device.
        let inside = vrf.or(oif).and_then(|device| host.vrf_of(device));
        let oif = oif.filter(|oif| inside.is_none_or(|vrf| vrf.name != *oif));
        let by = (oif.map(str::to_owned), bound);
        let key = (host.name.clone(), family, by, inside.map(|vrf| vrf.name.clone()));
        if let Some(known) = self.routes.whole.get(&key) {
            return Ok(*known);
        }
        let own: Vec<PolicyRule> = host.rules.iter().filter(|r| r.family == family).cloned().collect();
        let rules = if own.is_empty() { PolicyRule::initial(family) } else { own };
        let mut after: Vec<Ref> = vec![Ref::NONE; rules.len() + 1];
        for (index, rule) in rules.iter().enumerate().rev() {
            let next = after[index + 1];
            if !rule.unmodelled.is_empty() {
                let why = format!("policy rule {}: {}", rule.priority, rule.unmodelled);
                after[index] = self.routes.leaves.leaf(Route::Unknown(why));
                continue;
            }
            let action = match &rule.action {
                PolicyAction::Nop => next,
                PolicyAction::Goto(target) => {
                    let found = (index + 1..rules.len()).find(|i| rules[*i].priority >= *target);
                    found.map_or(Ref::NONE, |i| after[i])
                }
                // A rule says network unreachable where a route says host
                // unreachable (fib4_rule_action, fib6_rule_action).
                PolicyAction::Unreachable => self.routes.leaves.leaf(Route::NoRoute),
                PolicyAction::Blackhole => self.routes.leaves.leaf(Route::Refused(RouteKind::Blackhole)),
                PolicyAction::Prohibit => self.routes.leaves.leaf(Route::Refused(RouteKind::Prohibit)),
                PolicyAction::Lookup(_) | PolicyAction::LookupVrf => {
                    let table = match (&rule.action, inside.map(|vrf| &vrf.kind)) {
                        (PolicyAction::Lookup(table), _) => *table,
                        (_, Some(InterfaceKind::Vrf(table))) => RouteTable(*table),
                        _ => {
                            after[index] = next;
                            continue;
                        }
                    };
                    let mut found = self.table(host, family, table, (oif, bound))?;
                    if let Some(limit) = rule.suppress_prefix_len {
                        let Sets { store, routes, .. } = self;
                        let short = |leaf: u32| match routes.leaves.value(leaf) {
                            Some(Route::Found(route, _)) => {
                                host.routes[*route].destination.prefix_len() <= limit
                            }
                            _ => false,
                        };
                        found = store.map_leaves(found, &mut |leaf| {
                            if short(leaf) {
                                Ref::NONE
                            } else {
                                Ref::leaf(leaf)
                            }
                        })?;
                    }
                    self.store.or_else(found, next)?
                }
            };
            let (holds, unknown) = self.selector(rule, oif, inside.map(|vrf| vrf.name.as_str()))?;
            after[index] = self.store.choose(holds, action, next)?;
            for (unknown, why) in unknown {
                let leaf = self.routes.leaves.leaf(Route::Unknown(why.into()));
                after[index] = self.store.choose(unknown, leaf, after[index])?;
            }
        }
        let mut whole = after[0];
        if let Some(unclear) = self.one_trie(host, &rules, family)? {
            let why = format!(
                "whether a policy rule was ever added on {}: a local prefix holds a longer route",
                host.name
            );
            let leaf = self.routes.leaves.leaf(Route::Unknown(why));
            whole = self.store.choose(unclear, leaf, whole)?;
        }
        let nothing = self.routes.leaves.leaf(Route::NoRoute);
        whole = self.store.or_else(whole, nothing)?;
        self.routes.whole.insert(key, whole);
        Ok(whole)
    }

    /// Where a policy rule's selectors hold.
    fn selector(
        &mut self,
        rule: &PolicyRule,
        oif: Option<&str>,
        inside: Option<&str>,
    ) -> Result<Selected, crate::space::Error> {
        let (mut parts, mut by_vrf) = (Vec::new(), Ref::NONE);
        for (field, net) in [(Field::Src, &rule.source), (Field::Dst, &rule.destination)] {
            if let Some(net) = net {
                parts.push(self.store.in_prefix(field, *net)?);
            }
        }
        if let Some(iif) = &rule.iif {
            let number = self.names.number(iif);
            let here = self.store.value(Field::Iif, number.into())?;
            if inside == Some(iif) {
                by_vrf = self.store.not(here)?;
            } else {
                parts.push(here);
            }
        }
        match rule.oif.as_deref() {
            None => {}
            wanted if wanted == oif => {}
            wanted if wanted == inside => by_vrf = Ref::ALL,
            _ => parts.push(Ref::NONE),
        }
        if let Some((value, mask)) = rule.fwmark {
            let bits = Bits { mask: mask.into(), value: (value & mask).into() };
            parts.push(self.store.bits(Field::Mark, bits)?);
        }
        if rule.tos != 0 {
            // Compared under IPTOS_RT_MASK (fib4_rule_match).
            let mask: u8 = if rule.family == Family::Ipv4 { 0x1c } else { 0xfc };
            parts.push(match rule.tos & !mask {
                0 => self.store.bits(Field::Tos, Bits { mask: mask.into(), value: rule.tos.into() })?,
                _ => Ref::NONE,
            });
        }
        if let Some(protocol) = rule.protocol {
            parts.push(self.store.value(Field::Protocol, protocol.into())?);
        }
        for (field, range) in [(Field::Sport, rule.sport), (Field::Dport, rule.dport)] {
            if let Some(range) = range {
                let told = self.store.value(Field::PortsTold, 1)?;
                let with_ports = self.store.with_ports()?;
                let range = self.port_range(field, range)?;
                parts.push(self.store.all_of(&[with_ports, range, told])?);
            }
        }
        let selected = self.store.all_of(&parts)?;
        let by_vrf = self.store.guard(selected, by_vrf)?;
        let plain = self.store.without(selected, by_vrf)?;
        let (mut holds, mut unknown) = (plain, Ref::NONE);
        if let Some((low, _)) = rule.uid_range {
            let number = self.names.number("lo");
            let own = self.store.value(Field::Iif, number.into())?;
            unknown = self.store.guard(plain, own)?;
            // What is forwarded is root's.
            holds = if low == 0 { self.store.without(plain, own)? } else { Ref::NONE };
        }
        if rule.invert {
            let either = self.store.first_of(&[holds, unknown, by_vrf])?;
            holds = self.store.not(either)?;
        }
        Ok((holds, vec![(unknown, "who owns the socket"), (by_vrf, BY_VRF)]))
    }

    /// One table: nothing where it has no route.
    pub(super) fn table(
        &mut self,
        host: &Host,
        family: Family,
        table: RouteTable,
        (oif, bound): (Option<&str>, bool),
    ) -> Set {
        let key = (host.name.clone(), family, table.0, (oif.map(str::to_owned), bound));
        if let Some(known) = self.routes.tables.get(&key) {
            return Ok(*known);
        }
        let v4 = family == Family::Ipv4;
        let mut routes: Vec<usize> = (0..host.routes.len())
            .filter(|i| host.routes[*i].family == family && host.routes[*i].table == table)
            .collect();
        // Stable: of equals the one listed first.
        routes.sort_by_key(|i| {
            let route = &host.routes[*i];
            let source = route.source.map_or(0, |net| net.prefix_len());
            (
                std::cmp::Reverse(route.destination.prefix_len()),
                route.destination,
                std::cmp::Reverse(source),
                std::cmp::Reverse(route.tos),
                route.metric,
            )
        });
        let found = if v4 || bound {
            self.by_link(host, &routes, oif, None)?
        } else {
            let plain = self.by_link(host, &routes, None, oif)?;
            let alone = self.link_alone(host, &routes, oif, plain)?;
            let mut bound = Vec::new();
            for net in LINK_ALONE {
                bound.push(self.prefix(Field::Dst, net)?);
            }
            let bound = self.store.first_of(&bound)?;
            self.store.choose(bound, alone, plain)?
        };
        self.routes.tables.insert(key, found);
        Ok(found)
    }

    /// What a table of IPv6 has for destinations that mean something on one
    /// link only (`rt6_need_strict`): routes by the link that the packet leaves
    /// by, or else came in by.
    fn link_alone(&mut self, host: &Host, routes: &[usize], oif: Option<&str>, own: Ref) -> Set {
        let alone: Vec<IpNet> = LINK_ALONE.iter().filter_map(|net| net.parse().ok()).collect();
        let reaches = |index: &usize| {
            let to = host.routes[*index].destination;
            alone.iter().any(|net| net.contains(&to) || to.contains(net))
        };
        let near: Vec<usize> = routes.iter().copied().filter(reaches).collect();
        if oif.is_some() {
            return self.by_link(host, &near, oif, None);
        }
        let mut result = own;
        for device in host.interfaces.iter().filter(|i| i.kind != InterfaceKind::Loopback) {
            let by = |index: &usize| {
                let route = &host.routes[*index];
                let hops = &route.next_hops;
                !route.unmodelled.is_empty()
                    || hops.is_empty()
                    || hops.iter().any(|h| h.interface.as_deref() == Some(&device.name))
            };
            let own: Vec<usize> = near.iter().copied().filter(by).collect();
            let found = self.by_link(host, &own, Some(&device.name), None)?;
            let number = self.names.number(&device.name);
            let is = self.store.value(Field::Iif, number.into())?;
            result = self.store.choose(is, found, result)?;
        }
        Ok(result)
    }

    /// What routes of one table, the best first, have, by one link alone or by
    /// any: then rather by one that the packet `likes`.
    fn by_link(&mut self, host: &Host, routes: &[usize], link: Option<&str>, likes: Option<&str>) -> Set {
        let v4 = routes.first().is_some_and(|i| host.routes[*i].family == Family::Ipv4);
        let usable = |index: usize| -> Vec<(usize, usize)> {
            let hops = host.routes[index].next_hops.iter().enumerate();
            hops.filter(|(_, hop)| !hop.dead)
                .filter(|(_, hop)| link.is_none() || hop.interface.as_deref() == link)
                .map(|(place, _)| (index, place))
                .collect()
        };
        let hop = |(route, place): (usize, usize)| &host.routes[route].next_hops[place];
        let mut parts = Vec::new();
        for (position, index) in routes.iter().enumerate() {
            let route = &host.routes[*index];
            let leaf = if !route.unmodelled.is_empty() {
                let why = format!("route {}: {}", route.destination, route.unmodelled);
                self.routes.leaves.leaf(Route::Unknown(why))
            } else {
                match route.kind {
                    // Such routes of IPv6 are the loopback's.
                    RouteKind::Throw
                    | RouteKind::Unreachable
                    | RouteKind::Blackhole
                    | RouteKind::Prohibit
                        if !v4 && link.is_some_and(|link| link != "lo") =>
                    {
                        continue
                    }
                    RouteKind::Throw => THROW,
                    RouteKind::Unreachable | RouteKind::Blackhole | RouteKind::Prohibit => {
                        self.routes.leaves.leaf(Route::Refused(route.kind))
                    }
                    RouteKind::Nat => {
                        let why = format!("nat route {}", route.destination);
                        self.routes.leaves.leaf(Route::Unknown(why))
                    }
                    RouteKind::Local | RouteKind::Broadcast | RouteKind::Multicast | RouteKind::Anycast => {
                        let hops = usable(*index);
                        if (v4 || link.is_some()) && hops.is_empty() && !route.next_hops.is_empty() {
                            continue;
                        }
                        self.routes.leaves.leaf(Route::Found(*index, hops))
                    }
                    RouteKind::Unicast => {
                        let mut hops = usable(*index);
                        if !v4 {
                            // The next hops of a multipath route of IPv6 are
                            // routes of equal prefix and metric.
                            let by_gateway = |h: &(usize, usize)| hop(*h).gateway.is_some();
                            if hops.iter().all(by_gateway) {
                                for twin in &routes[position + 1..] {
                                    let other = &host.routes[*twin];
                                    let same = other.destination == route.destination
                                        && other.source == route.source
                                        && other.metric == route.metric
                                        && other.kind == RouteKind::Unicast;
                                    if !same {
                                        break;
                                    }
                                    hops.extend(usable(*twin).into_iter().filter(by_gateway));
                                }
                            }
                            let preferred: Vec<_> = hops
                                .iter()
                                .copied()
                                .filter(|h| likes.is_some() && hop(*h).interface.as_deref() == likes)
                                .collect();
                            if !preferred.is_empty() {
                                hops = preferred;
                            }
                        }
                        if hops.is_empty() {
                            continue;
                        }
                        let leads = |r: &usize| {
                            let other = &host.routes[*r];
                            let here = other.destination.contains(&route.destination);
                            here && (other.kind != RouteKind::Unicast || !usable(*r).is_empty())
                        };
                        let others = || hops.len() > 1 || routes[position + 1..].iter().any(leads);
                        if hops.iter().any(|h| passed_over(host, hop(*h))) && others() {
                            self.routes.leaves.leaf(Route::Unknown(still_silent(route)))
                        } else {
                            self.routes.leaves.leaf(Route::Found(*index, hops))
                        }
                    }
                }
            };
            let mut conditions = vec![self.store.in_prefix(Field::Dst, route.destination)?];
            if let Some(source) = route.source {
                conditions.push(self.store.in_prefix(Field::Src, source)?);
            }
            if route.tos != 0 {
                conditions.push(match (v4, route.tos & !0x1c) {
                    (true, 0) => self.store.bits(Field::Tos, Bits { mask: 0x1c, value: route.tos.into() })?,
                    _ => Ref::NONE,
                });
            }
            let set = self.store.all_of(&conditions)?;
            parts.push(self.store.guard(set, leaf)?);
        }
        let found = self.store.first_of(&parts)?;
        self.store.map_leaves(found, &mut |l| {
            if Ref::leaf(l) == THROW {
                Ref::NONE
            } else {
                Ref::leaf(l)
            }
        })
    }

    /// Where the local and the main table of IPv4, one trie until somebody
    /// adds a policy rule (`fib_trie_unmerge`), answer otherwise than the two
    /// in turn; none: nowhere.
    fn one_trie(
        &mut self,
        host: &Host,
        rules: &[PolicyRule],
        family: Family,
    ) -> Result<Option<Ref>, crate::space::Error> {
        let initial = PolicyRule::initial(Family::Ipv4);
        let plain = |r: &PolicyRule| initial.iter().any(|i| i.priority == r.priority && i.action == r.action);
        if family != Family::Ipv4 || !rules.iter().all(plain) {
            return Ok(None);
        }
        let of = |table| -> BTreeSet<IpNet> {
            let routes = host.routes.iter().filter(|r| r.family == Family::Ipv4 && r.table == table);
            routes.map(|r| r.destination).collect()
        };
        let (local, main) = (of(RouteTable::LOCAL), of(RouteTable::MAIN));
        let mut unclear = Vec::new();
        for own in local.iter().filter(|l| l.prefix_len() != 32) {
            let longer: Vec<IpNet> = main.iter().copied().filter(|m| m != own && own.contains(m)).collect();
            for route in longer {
                let mut set = self.store.in_prefix(Field::Dst, route)?;
                for over in local.iter().filter(|l| route.contains(*l)) {
                    let over = self.store.in_prefix(Field::Dst, *over)?;
                    set = self.store.without(set, over)?;
                }
                unclear.push(set);
            }
        }
        Ok(if unclear.is_empty() { None } else { Some(self.store.first_of(&unclear)?) })
    }

    /// The routing of a host, asked about an address field of the packet by
    /// the host itself: leaves are [`Route`]s.
    pub(super) fn asked(
        &mut self,
        host: &Host,
        family: Family,
        mapping: &mut Mapping,
        about: Field,
        iif: &str,
        (oif, vrf): (Option<&str>, Option<&str>),
    ) -> Set {
        let routing = self.routing(host, family, oif, vrf)?;
        let lo = self.names.number(iif);
        mapping.set(Field::Iif, Source::constant(Field::Iif, lo.into()));
        mapping.set(Field::Dst, Source::keep(about));
        self.store.pull_back(Ref::ALL, routing, mapping)
    }

    /// An address field in a prefix that is written here; the field alone.
    pub(super) fn prefix(&mut self, field: Field, text: &str) -> Set {
        match text.parse::<IpNet>() {
            Ok(net) => self.store.in_prefix(field, net),
            Err(_) => Ok(Ref::NONE),
        }
    }

    /// What the reverse path test of a rule says of packets from nowhere without
    /// asking for a route, and `asked` of all others.
    fn but_from_nowhere(&mut self, family: Family, asked: Ref) -> Set {
        if family == Family::Ipv6 {
            let nowhere = self.prefix(Field::Src, "::/128")?;
            return self.store.choose(nowhere, Ref::ALL, asked);
        }
        let nowhere = self.prefix(Field::Src, "0.0.0.0/8")?;
        let mut set = asked;
        for (to, passes) in
            [("224.0.0.0/4", Ref::NONE), ("224.0.0.0/24", Ref::ALL), ("255.255.255.255/32", Ref::ALL)]
        {
            let to = self.prefix(Field::Dst, to)?;
            let both = self.store.guard(nowhere, to)?;
            set = self.store.choose(both, passes, set)?;
        }
        Ok(set)
    }

    /// Where a packet passes the reverse path test of a rule
    /// (`ipt_rpfilter.c`, `ip6t_rpfilter.c`).
    pub(super) fn rpfilter(&mut self, host: &Host, loose: bool, valid_mark: bool, accept_local: bool) -> Set {
        let mut result = Ref::ALL;
        for interface in host.interfaces.iter().filter(|i| i.kind != InterfaceKind::Loopback) {
            let mut here = Ref::NONE;
            for family in [Family::Ipv4, Family::Ipv6] {
                let name = Some(interface.name.as_str());
                let oif = name.filter(|_| !loose && family == Family::Ipv6);
                let mut routing = self.routing(host, family, oif, name)?;
                if loose && family == Family::Ipv6 {
                    // On a link alone, even a loose test asks by that link.
                    let by_link = self.routing(host, family, name, name)?;
                    let link = self.prefix(Field::Dst, "fe80::/10")?;
                    routing = self.store.choose(link, by_link, routing)?;
                }
                let lo = self.names.number("lo");
                let mut back = Mapping::default();
                back.set(Field::Iif, Source::constant(Field::Iif, lo.into()));
                back.set(Field::Dst, Source::keep(Field::Src));
                back.set(Field::Src, Source::keep(Field::Dst));
                back.set(Field::PortsTold, Source::constant(Field::PortsTold, 0));
                if !valid_mark {
                    back.set(Field::Mark, Source::constant(Field::Mark, 0));
                }
                let found = self.store.pull_back(Ref::ALL, routing, &back)?;
                let unknown = self.unknown("the way back")?;
                let Sets { store, routes, .. } = self;
                let mut doubt = false;
                let passes = store.map_leaves(found, &mut |leaf| match routes.leaves.value(leaf) {
                    Some(Route::Unknown(_)) => {
                        doubt = true;
                        Ref::leaf(2)
                    }
                    Some(Route::Found(route, hops)) => {
                        let kind = host.routes[*route].kind;
                        let hops = hops.iter().map(|(r, h)| &host.routes[*r].next_hops[*h]);
                        let there = uses(host, hops, &interface.name);
                        // Whose own address it is, IPv6 does not ask.
                        let own = accept_local && (there || loose || family == Family::Ipv6);
                        let passes = match kind {
                            RouteKind::Unicast => there || loose,
                            RouteKind::Local => own,
                            _ => false,
                        };
                        if passes {
                            Ref::ALL
                        } else {
                            Ref::NONE
                        }
                    }
                    _ => Ref::NONE,
                })?;
                let mut set = self.store.where_leaf(passes, &|leaf| leaf == 1)?;
                if doubt {
                    let open = self.store.where_leaf(passes, &|leaf| leaf == 2)?;
                    set = self.store.choose(open, unknown, set)?;
                }
                let set = self.but_from_nowhere(family, set)?;
                let family = self.store.family(family)?;
                let set = self.store.guard(family, set)?;
                here = self.store.or_else(here, set)?;
            }
            let number = self.names.number(&interface.name);
            let is = self.store.value(Field::Iif, number.into())?;
            result = self.store.choose(is, here, result)?;
        }
        Ok(result)
    }
}
