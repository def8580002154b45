//! Route look-up: policy rules, tables, longest prefix, metric, type.
//!
//! IPv4 follows `net/ipv4/fib_rules.c`, `fib_trie.c` (`fib_table_lookup`) and
//! `fib_semantics.c`; IPv6 `net/ipv6/fib6_rules.c`, `ip6_fib.c`, `route.c`.

use std::net::IpAddr;

use super::header::in_range;
use super::Tri;
use crate::addr::Family;
use crate::model::{
    Host, Interface, InterfaceKind, Neighbour, NeighbourState, NextHop, PolicyAction, PolicyRule, PortValue,
    Route, RouteKind, RouteTable,
};

/// What a look-up asks by (`struct flowi`).
#[derive(Clone, Copy, Debug)]
pub struct Flow<'a> {
    /// Where to.
    pub dst: IpAddr,
    /// Where from; none: not chosen yet.
    pub src: Option<IpAddr>,
    /// The interface it came in by; `lo` for what this host sends.
    pub iif: &'a str,
    /// The interface it must leave by; a VRF stands for its table.
    pub oif: Option<&'a str>,
    /// The VRF whose table is asked; none: that of either interface.
    pub vrf: Option<&'a str>,
    /// Whether IPv6 takes no route but by `oif` (`RT6_LOOKUP_F_IFACE`).
    pub bound: bool,
    /// The firewall mark.
    pub mark: u32,
    /// Type of service or traffic class.
    pub tos: u8,
    /// IP protocol number, where the look-up knows it.
    pub protocol: Option<u8>,
    /// Source and destination port, where the look-up knows them.
    pub ports: Option<(PortValue, PortValue)>,
}

impl Flow<'_> {
    /// What a host asks for itself, knowing no more than where to.
    pub(crate) fn to(dst: IpAddr) -> Self {
        Flow {
            dst,
            src: None,
            iif: "lo",
            oif: None,
            vrf: None,
            bound: false,
            mark: 0,
            tos: 0,
            protocol: None,
            ports: None,
        }
    }
}

/// What a look-up found.
#[derive(Clone, Debug, PartialEq)]
pub enum Lookup<'a> {
    /// A route that leads on or in, and its usable next hops; several: the
    /// kernel picks by hash.
    Found(&'a Route, Vec<&'a NextHop>),
    /// An unreachable, prohibit or blackhole route or rule.
    Refused(RouteKind),
    /// Nothing.
    NoRoute,
    /// It depends on what is not modelled.
    Unknown(String),
}

/// A policy rule that names a VRF holds for all that is in it since 6.15, before
/// only for what has that very device (`fib_rule_iif_match`, `net/core/fib_rules.c`).
pub(super) const BY_VRF: &str = "whether a policy rule that names a VRF means its ports";

fn rule_holds(host: &Host, rule: &PolicyRule, flow: &Flow) -> Tri {
    if !rule.unmodelled.is_empty() {
        return Tri::Unknown(format!("policy rule {}: {}", rule.priority, rule.unmodelled));
    }
    let in_net = |net: &Option<ipnet::IpNet>, address: Option<IpAddr>| match (net, address) {
        (None, _) => true,
        (Some(net), Some(address)) => net.contains(&address),
        // An unset source is compared as the unspecified address.
        (Some(net), None) => net.contains(&unspecified(rule.family)),
    };
    let tos_mask = match rule.family {
        // A rule's `tos` is compared under IPTOS_RT_MASK (fib4_rule_match).
        Family::Ipv4 => 0x1c,
        Family::Ipv6 => 0xfc,
    };
    let plain = in_net(&rule.source, flow.src)
        && in_net(&rule.destination, Some(flow.dst))
        && rule.fwmark.is_none_or(|(value, mask)| (value ^ flow.mark) & mask == 0)
        && (rule.tos == 0 || rule.tos == flow.tos & tos_mask)
        && rule.protocol.is_none_or(|p| flow.protocol == Some(p));
    let port = |range: Option<crate::addr::PortRange>, port: Option<PortValue>| match (range, port) {
        (None, _) => Tri::Yes,
        (Some(_), None) => Tri::No,
        (Some(range), Some(port)) => in_range(port, range),
    };
    let inside = vrf(host, flow).map(|vrf| vrf.name.as_str());
    let device = |wanted: &Option<String>, device: Option<&str>| match wanted.as_deref() {
        None => Tri::Yes,
        wanted if wanted == device => Tri::Yes,
        wanted if wanted == inside => Tri::Unknown(BY_VRF.into()),
        _ => Tri::No,
    };
    let holds = Tri::from(plain)
        .and(|| device(&rule.iif, Some(flow.iif)))
        .and(|| device(&rule.oif, flow.oif))
        .and(|| port(rule.sport, flow.ports.map(|p| p.0)))
        .and(|| port(rule.dport, flow.ports.map(|p| p.1)))
        .and(|| match rule.uid_range {
            None => Tri::Yes,
            // What is forwarded is root's.
            Some((low, _)) if flow.iif != "lo" => (low == 0).into(),
            Some(_) => Tri::Unknown("who owns the socket".into()),
        });
    holds.inverted(rule.invert)
}

fn unspecified(family: Family) -> IpAddr {
    match family {
        Family::Ipv4 => IpAddr::V4(std::net::Ipv4Addr::UNSPECIFIED),
        Family::Ipv6 => IpAddr::V6(std::net::Ipv6Addr::UNSPECIFIED),
    }
}

/// Looks a destination up as the kernel does, rule by rule.
pub fn lookup<'a>(host: &'a Host, flow: &Flow) -> Lookup<'a> {
    let family = Family::of(flow.dst);
    let own: Vec<&PolicyRule> = host.rules.iter().filter(|r| r.family == family).collect();
    let fallback = if own.is_empty() { PolicyRule::initial(family) } else { Vec::new() };
    let rules: Vec<&PolicyRule> = if own.is_empty() { fallback.iter().collect() } else { own };
    // A VRF as the way out says which table, not which device.
    let is_vrf = |o: &str| host.interface(o).is_some_and(|i| matches!(i.kind, InterfaceKind::Vrf(_)));
    let asked = match flow.oif {
        Some(oif) if is_vrf(oif) => Flow { oif: None, vrf: Some(oif), ..*flow },
        _ => *flow,
    };
    let flow = &asked;
    if let Some(why) = one_trie(host, &rules, flow) {
        return Lookup::Unknown(why);
    }
    let mut at_least = 0;
    for rule in rules {
        if rule.priority < at_least {
            continue;
        }
        match rule_holds(host, rule, flow) {
            Tri::No => continue,
            Tri::Unknown(why) => return Lookup::Unknown(why),
            Tri::Yes => {}
        }
        match &rule.action {
            PolicyAction::Nop => {}
            PolicyAction::Goto(target) => at_least = *target,
            // A rule says network unreachable where a route says host
            // unreachable (fib4_rule_action, fib6_rule_action).
            PolicyAction::Unreachable => return Lookup::NoRoute,
            PolicyAction::Blackhole => return Lookup::Refused(RouteKind::Blackhole),
            PolicyAction::Prohibit => return Lookup::Refused(RouteKind::Prohibit),
            PolicyAction::Lookup(_) | PolicyAction::LookupVrf => {
                let table = match rule.action {
                    PolicyAction::Lookup(table) => Some(table),
                    _ => vrf_table(host, flow),
                };
                let Some(table) = table else { continue };
                let found = lookup_table(host, table, flow);
                let suppressed = match &found {
                    Lookup::Found(route, _) => {
                        rule.suppress_prefix_len.is_some_and(|limit| route.destination.prefix_len() <= limit)
                    }
                    _ => false,
                };
                if found != Lookup::NoRoute && !suppressed {
                    return found;
                }
            }
        }
    }
    Lookup::NoRoute
}

/// Until somebody first adds a policy rule, the local and the main table of
/// IPv4 are one trie (`fib_trie_unmerge`): a longer route of main then comes
/// before a local prefix. Whether one was ever added a snapshot does not tell.
fn one_trie(host: &Host, rules: &[&PolicyRule], flow: &Flow) -> Option<String> {
    let initial = PolicyRule::initial(Family::Ipv4);
    let plain = |r: &&PolicyRule| initial.iter().any(|i| i.priority == r.priority && i.action == r.action);
    if !flow.dst.is_ipv4() || !rules.iter().all(plain) {
        return None;
    }
    let longest = |table| {
        let routes = host.routes.iter().filter(|r| r.table == table && r.destination.contains(&flow.dst));
        routes.map(|r| r.destination.prefix_len()).max()
    };
    let local = longest(RouteTable::LOCAL)?;
    longest(RouteTable::MAIN).filter(|main| *main > local).map(|_| {
        format!("whether a policy rule was ever added on {}: a local prefix holds a longer route", host.name)
    })
}

/// The VRF that a packet is in (`l3mdev_update_flow`, `net/l3mdev/l3mdev.c`).
pub fn vrf<'a>(host: &'a Host, flow: &Flow) -> Option<&'a Interface> {
    let of = |device: &str| host.vrf_of(device);
    flow.vrf.and_then(of).or_else(|| flow.oif.and_then(of)).or_else(|| of(flow.iif))
}

fn vrf_table(host: &Host, flow: &Flow) -> Option<RouteTable> {
    match vrf(host, flow)?.kind {
        InterfaceKind::Vrf(table) => Some(RouteTable(table)),
        _ => None,
    }
}

/// Whether a destination means something on one link only, so that IPv6 takes
/// only routes by that link (`rt6_need_strict`).
pub fn by_link_alone(dst: IpAddr) -> bool {
    match dst {
        IpAddr::V4(_) => false,
        IpAddr::V6(dst) => dst.is_multicast() || dst.is_loopback() || dst.is_unicast_link_local(),
    }
}

/// Whether what OUTPUT sends there instead stays on the link that it was to
/// leave by (`ip6_route_me_harder`).
pub(crate) fn stays_on_link(dst: IpAddr) -> bool {
    by_link_alone(dst) && !dst.is_loopback()
}

/// Why it is open where OUTPUT sends what it changed: kernels since 6.7 tell policy
/// rules its protocol and ports, earlier ones do not (`ip_route_me_harder`).
pub(crate) const DISSECTED: &str = "whether rules by protocol or port see what is routed again";

/// Whether policy rules of a family ask for a protocol or ports
/// (`fib_rules_require_fldissect`).
pub(crate) fn dissects(host: &Host, family: Family) -> bool {
    let asks = |r: &PolicyRule| r.protocol.is_some() || r.sport.is_some() || r.dport.is_some();
    host.rules.iter().any(|r| r.family == family && asks(r))
}

/// Whether what goes by a route is for all on its link, so that the route's
/// gateway does not count: everybody's address, and groups where the route is
/// not about groups (`__mkroute_output`).
pub(crate) fn past_gateways(route: &Route, dst: IpAddr) -> bool {
    match dst {
        IpAddr::V4(dst) => dst.is_broadcast() || (dst.is_multicast() && route.destination.prefix_len() < 4),
        IpAddr::V6(_) => false,
    }
}

/// Whether an address or group of IPv6 reaches as far as its link
/// (`IPV6_ADDR_LINKLOCAL`).
pub(crate) fn link_local(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(_) => false,
        IpAddr::V6(a) => a.is_unicast_link_local() || a.is_multicast() && a.segments()[0] & 0xf == 2,
    }
}

/// The link that next hops must leave by.
fn link<'a>(flow: &Flow<'a>) -> Option<&'a str> {
    let came = (flow.iif != "lo").then_some(flow.iif);
    match flow.dst {
        IpAddr::V4(_) => flow.oif,
        dst if by_link_alone(dst) => flow.oif.or(came),
        _ if flow.bound => flow.oif,
        IpAddr::V6(_) => None,
    }
}

fn usable<'a>(route: &'a Route, flow: &Flow) -> Vec<&'a NextHop> {
    let link = link(flow);
    route
        .next_hops
        .iter()
        .filter(|hop| !hop.dead)
        .filter(|hop| link.is_none() || hop.interface.as_deref() == link)
        .collect()
}

/// Whether a next hop of IPv6 is passed over as long as its gateway does not answer,
/// where another route leads on: hosts that forward do not care (`rt6_check_neigh`,
/// `find_rr_leaf`, `net/ipv6/route.c`). How long that is a snapshot does not tell.
pub(crate) fn passed_over(host: &Host, hop: &NextHop) -> bool {
    let forwards = || host.sysctls.interface("ipv6", "all", "forwarding").is_some_and(|v| v != 0);
    let silent = |gateway: IpAddr| {
        let here = |n: &&Neighbour| n.address == gateway && Some(&n.interface) == hop.interface.as_ref();
        host.neighbours.iter().find(here).is_some_and(|n| n.state == NeighbourState::Failed)
    };
    hop.gateway.is_some_and(|gateway| gateway.is_ipv6() && silent(gateway)) && !forwards()
}

/// Why it is open which route is taken, where one is passed over.
pub(crate) fn still_silent(route: &Route) -> String {
    format!("whether a gateway of route {} still does not answer", route.destination)
}

/// Looks a destination up in one table: the longest prefix, then (IPv6) the
/// longest source prefix, then the service asked for, then the least metric.
/// A `throw` route ends the table.
pub fn lookup_table<'a>(host: &'a Host, table: RouteTable, flow: &Flow) -> Lookup<'a> {
    let family = Family::of(flow.dst);
    let v4 = family == Family::Ipv4;
    let source = |route: &Route| match (&route.source, flow.src) {
        (None, _) => true,
        (Some(net), Some(src)) => net.contains(&src),
        (Some(_), None) => false,
    };
    let mut candidates: Vec<&Route> = host
        .routes
        .iter()
        .filter(|r| r.family == family && r.table == table && r.destination.contains(&flow.dst) && source(r))
        .filter(|r| r.tos == 0 || (v4 && r.tos == flow.tos & 0x1c))
        .collect();
    candidates.sort_by_key(|r| {
        let source_length = r.source.map_or(0, |net| net.prefix_len());
        (
            std::cmp::Reverse(r.destination.prefix_len()),
            std::cmp::Reverse(source_length),
            std::cmp::Reverse(r.tos),
            r.metric,
        )
    });
    let linked = !v4 && link(flow).is_some();
    for (position, route) in candidates.iter().enumerate() {
        if !route.unmodelled.is_empty() {
            return Lookup::Unknown(format!("route {}: {}", route.destination, route.unmodelled));
        }
        let refuses = matches!(
            route.kind,
            RouteKind::Throw | RouteKind::Unreachable | RouteKind::Blackhole | RouteKind::Prohibit
        );
        if refuses && linked && link(flow) != Some("lo") {
            // Such routes of IPv6 are the loopback's.
            continue;
        }
        match route.kind {
            RouteKind::Throw => return Lookup::NoRoute,
            RouteKind::Unreachable | RouteKind::Blackhole | RouteKind::Prohibit => {
                return Lookup::Refused(route.kind)
            }
            RouteKind::Nat => return Lookup::Unknown(format!("nat route {}", route.destination)),
            RouteKind::Local | RouteKind::Broadcast | RouteKind::Multicast | RouteKind::Anycast => {
                let hops = usable(route, flow);
                if !(v4 || linked) || !hops.is_empty() || route.next_hops.is_empty() {
                    return Lookup::Found(route, hops);
                }
            }
            RouteKind::Unicast => {
                // IPv6 keeps the next hops of one multipath route as routes
                // of equal prefix and metric (siblings).
                let mut hops = usable(route, flow);
                if !v4 {
                    let twins = candidates[position + 1..].iter().take_while(|other| {
                        other.destination == route.destination
                            && other.source == route.source
                            && other.metric == route.metric
                            && other.kind == RouteKind::Unicast
                    });
                    let by_gateway = |hop: &&NextHop| hop.gateway.is_some();
                    if hops.iter().all(by_gateway) {
                        hops.extend(twins.flat_map(|r| usable(r, flow)).filter(by_gateway));
                    }
                    if let Some(oif) = flow.oif {
                        let preferred: Vec<_> =
                            hops.iter().copied().filter(|h| h.interface.as_deref() == Some(oif)).collect();
                        if !preferred.is_empty() {
                            hops = preferred;
                        }
                    }
                }
                if hops.is_empty() {
                    continue;
                }
                let leads = |r: &&Route| r.kind != RouteKind::Unicast || !usable(r, flow).is_empty();
                let others = || hops.len() > 1 || candidates[position + 1..].iter().any(leads);
                if hops.iter().any(|hop| passed_over(host, hop)) && others() {
                    return Lookup::Unknown(still_silent(route));
                }
                return Lookup::Found(route, hops);
            }
        }
    }
    Lookup::NoRoute
}
