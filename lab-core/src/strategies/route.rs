//! Routes and routing policy.

use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use proptest::sample::select;

use super::address::{address, family, ports, prefix};
use crate::addr::Family;
use crate::model::{NextHop, Origin, PolicyAction, PolicyRule, Route, RouteKind, RouteTable, Scope};

/// Tables that policy rules look in, beside main.
const TABLES: [u32; 2] = [100, 101];

pub(super) fn hop(gateway: Option<std::net::IpAddr>, device: &str) -> NextHop {
    NextHop {
        gateway,
        interface: Some(device.into()),
        weight: 1,
        onlink: false,
        dead: false,
        linkdown: false,
    }
}

pub(super) fn route(kind: RouteKind, destination: ipnet::IpNet, table: RouteTable) -> Route {
    Route {
        family: Family::of(destination.addr()),
        destination,
        source: None,
        kind,
        table,
        metric: 0,
        tos: 0,
        scope: Scope::Global,
        prefsrc: None,
        next_hops: Vec::new(),
        mtu: None,
        protocol: "static".into(),
        origin: Origin::default(),
        unmodelled: String::new(),
    }
}

fn one(devices: Vec<String>, family: Family) -> BoxedStrategy<Route> {
    use RouteKind::{Blackhole, Prohibit, Throw, Unicast, Unreachable};
    let table = select(vec![RouteTable::MAIN, RouteTable(TABLES[0]), RouteTable(TABLES[1])]);
    let kind = prop_oneof![6 => Just(Unicast), 4 => select(vec![Blackhole, Unreachable, Prohibit, Throw])];
    let hops = vec((option::weighted(0.8, address(family)), select(devices)), 1..3);
    let usual = if family == Family::Ipv4 { 0 } else { 1024 };
    let more = (
        select(vec![usual, 10, 20]),
        option::weighted(0.1, Just(1400_u32)),
        option::weighted(0.1, Just(8_u8)),
    );
    (prefix(family), kind, table, hops, more)
        .prop_map(move |(destination, kind, table, hops, (metric, mtu, tos))| {
            let unicast = kind == Unicast;
            let mut hops: Vec<NextHop> = hops.iter().map(|(g, d)| hop(*g, d)).collect();
            if !unicast {
                hops.clear();
            }
            let direct = hops.iter().any(|h| h.gateway.is_none());
            if direct {
                hops.truncate(1);
            }
            hops.dedup();
            Route {
                metric,
                mtu,
                tos: if family == Family::Ipv4 { tos.unwrap_or(0) } else { 0 },
                scope: if unicast && direct { Scope::Link } else { Scope::Global },
                next_hops: hops,
                ..route(kind, destination, table)
            }
        })
        .boxed()
}

/// Routes of a host with these devices beside those that its addresses bring:
/// unicast with one or two next hops, refusals, throw; with metrics, a type of
/// service, an MTU; in main and in tables 100 and 101.
///
/// ```
/// # use proptest::{prelude::*, strategy::ValueTree, test_runner::TestRunner};
/// use lab_core::strategies::routes;
/// let list = routes(vec!["eth0".into()]).new_tree(&mut TestRunner::deterministic())?.current();
/// assert!(list.len() < 4);
/// # Ok::<(), proptest::test_runner::Reason>(())
/// ```
pub fn routes(devices: Vec<String>) -> BoxedStrategy<Vec<Route>> {
    vec(family().prop_flat_map(move |family| one(devices.clone(), family)), 0..4)
        .prop_map(|mut routes| {
            // A table holds one route for a prefix, type of service and metric.
            let mut seen = Vec::new();
            routes.retain(|r| {
                let key = (r.destination, r.table, r.tos, r.metric);
                let new = !seen.contains(&key);
                seen.push(key);
                new
            });
            routes
        })
        .boxed()
}

fn policy(family: Family, priority: u32) -> BoxedStrategy<PolicyRule> {
    let action = prop_oneof![
        6 => select(vec![RouteTable::MAIN, RouteTable(TABLES[0]), RouteTable(TABLES[1])])
            .prop_map(PolicyAction::Lookup),
        1 => Just(PolicyAction::Goto(32766)),
        1 => Just(PolicyAction::Nop),
        1 => select(vec![PolicyAction::Unreachable, PolicyAction::Blackhole, PolicyAction::Prohibit]),
    ];
    let selectors = (
        option::weighted(0.3, prefix(family)),
        option::weighted(0.3, prefix(family)),
        option::weighted(0.2, select(vec!["lo", "eth0", "eth1", "br0"])),
        option::weighted(0.3, select(vec![(1_u32, u32::MAX), (0, 1), (0x10, 0xf0)])),
        option::weighted(0.2, select(vec![6_u8, 17])),
        option::weighted(0.15, ports()),
        option::weighted(0.15, ports()),
        select(vec![0_u8, 0, 0, 0, 8, 0x10]),
    );
    let odd = (prop::bool::weighted(0.15), option::weighted(0.15, select(vec![0_u8, 16, 24])));
    (selectors, action, odd)
        .prop_map(move |((source, destination, iif, fwmark, protocol, sport, dport, tos), action, odd)| {
            let (invert, suppress) = odd;
            PolicyRule {
                invert,
                source,
                destination,
                iif: iif.map(str::to_owned),
                fwmark,
                // The kernel wants a protocol where it is asked for ports.
                protocol: protocol.or(sport.or(dport).map(|_| 6)),
                sport,
                dport,
                tos,
                suppress_prefix_len: suppress.filter(|_| matches!(action, PolicyAction::Lookup(_))),
                ..PolicyRule::new(family, priority, action)
            }
        })
        .boxed()
}

/// The routing policy of both families: what a kernel starts with, and up to
/// two rules between.
///
/// ```
/// # use proptest::{prelude::*, strategy::ValueTree, test_runner::TestRunner};
/// use lab_core::strategies::policy_rules;
/// let rules = policy_rules().new_tree(&mut TestRunner::deterministic())?.current();
/// assert_eq!(rules[0].priority, 0);
/// # Ok::<(), proptest::test_runner::Reason>(())
/// ```
pub fn policy_rules() -> BoxedStrategy<Vec<PolicyRule>> {
    let some = |family| {
        (option::weighted(0.35, policy(family, 100)), option::weighted(0.25, policy(family, 200))).prop_map(
            move |(a, b)| {
                let mut rules = PolicyRule::initial(family);
                for (place, rule) in [a, b].into_iter().flatten().enumerate() {
                    rules.insert(1 + place, rule);
                }
                rules
            },
        )
    };
    (some(Family::Ipv4), some(Family::Ipv6)).prop_map(|(a, b)| a.into_iter().chain(b).collect()).boxed()
}
