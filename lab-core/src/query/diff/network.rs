//! How links, addresses, routes, policy and settings of a host differ.

use std::collections::{BTreeSet, HashMap};

use ipnet::IpNet;

use super::addresses;
use crate::addr::Family;
use crate::model::{Change, Host, Part, PolicyRule, Route, RouteKey, RouteKind};
use crate::query::what_if::{apply, same_policy, same_route};

/// The changes, and the host as it is when they are made, its rule set apart.
pub(super) struct Steps {
    pub state: Host,
    pub changes: Vec<Change>,
    /// Devices whose state or addresses change.
    pub touched: BTreeSet<String>,
}

impl Steps {
    /// Makes a change, if it fits; gives back why not.
    pub fn make(&mut self, change: Change) -> Result<(), String> {
        apply(&mut self.state, &change).map_err(|error| error.to_string())?;
        match &change {
            Change::Link(device, _)
            | Change::AddAddress { interface: device, .. }
            | Change::DeleteAddress { interface: device, .. } => {
                self.touched.insert(device.clone());
            }
            _ => {}
        }
        self.changes.push(change);
        Ok(())
    }
}

fn both_tell(a: &Host, b: &Host, part: Part) -> bool {
    a.unknown.contains(&part) == b.unknown.contains(&part)
}

/// The changes, and the host after them, without its rule set.
pub(super) fn of_hosts(a: &Host, b: &Host, unsaid: &mut Vec<String>) -> (Vec<Change>, Host) {
    let state = Host {
        name: a.name.clone(),
        kind: a.kind.clone(),
        parent: a.parent.clone(),
        interfaces: a.interfaces.clone(),
        routes: a.routes.clone(),
        rules: a.rules.clone(),
        neighbours: a.neighbours.clone(),
        fdb: a.fdb.clone(),
        sysctls: a.sysctls.clone(),
        ruleset: Default::default(),
        ipsets: Default::default(),
        unknown: a.unknown.clone(),
        unmodelled: a.unmodelled.clone(),
        connections: a.connections.clone(),
    };
    let mut steps = Steps { state, changes: Vec::new(), touched: BTreeSet::new() };
    settings(&mut steps, a, b, unsaid);
    if both_tell(a, b, Part::Links) {
        for interface in &b.interfaces {
            let differs = steps.state.interface(&interface.name).is_some_and(|i| i.up != interface.up);
            if differs {
                if let Err(why) = steps.make(Change::Link(interface.name.clone(), interface.up)) {
                    unsaid.push(why);
                }
            }
        }
    }
    if both_tell(a, b, Part::Addresses) {
        for interface in &b.interfaces {
            addresses::of_interface(&mut steps, interface, unsaid);
        }
    }
    routes(&mut steps, a, b, unsaid);
    policy(&mut steps, b, unsaid);
    (steps.changes, steps.state)
}

/// Settings that set others come first.
fn settings(steps: &mut Steps, a: &Host, b: &Host, unsaid: &mut Vec<String>) {
    let is_switch = |key: &str| key == "net.ipv4.ip_forward" || key.contains(".conf.all.");
    let mut keys: Vec<&String> = b.sysctls.0.keys().filter(|key| key.starts_with("net.")).collect();
    keys.sort_by_key(|key| !is_switch(key));
    for key in keys {
        let wanted = b.sysctls.0.get(key);
        match (steps.state.sysctls.0.get(key), wanted) {
            // What is counted is no setting.
            _ if key.ends_with(".nf_conntrack_count") => {}
            (Some(is), Some(wanted)) if is != wanted => {
                if let Err(why) = steps.make(Change::Sysctl(key.clone(), wanted.clone())) {
                    unsaid.push(why);
                }
            }
            (None, Some(wanted)) => unsaid.push(format!("setting {key} is told anew: {wanted}")),
            _ => {}
        }
    }
    let gone = a.sysctls.0.keys().filter(|key| key.starts_with("net."));
    let gone = gone.filter(|key| !b.sysctls.0.contains_key(*key));
    unsaid.extend(gone.map(|key| format!("setting {key} is no longer told")));
}

/// Whether the kernel adds and deletes a route by itself with addresses and
/// links of its device, beside those that the model brings.
fn is_kernels(route: &Route) -> bool {
    route.protocol == "kernel" && matches!(route.kind, RouteKind::Anycast | RouteKind::Multicast)
}

fn routes(steps: &mut Steps, a: &Host, b: &Host, unsaid: &mut Vec<String>) {
    let told = |route: &Route| match route.family {
        Family::Ipv4 => both_tell(a, b, Part::Routes4),
        Family::Ipv6 => both_tell(a, b, Part::Routes6),
    };
    let touched = |steps: &Steps, route: &Route| {
        route.next_hops.iter().filter_map(|h| h.interface.as_ref()).any(|d| steps.touched.contains(d))
    };
    let index = Routes::of(&b.routes);
    let gone: Vec<Route> = steps.state.routes.iter().filter(|r| told(r) && !index.has(r)).cloned().collect();
    for route in &gone {
        if is_kernels(route) && touched(steps, route) {
            continue;
        }
        let key = RouteKey::of(route);
        // Of several that fit, a kernel takes the first: it must be this one.
        let fit = steps.state.routes.iter().filter(|r| key.means(r)).min_by_key(|r| r.metric);
        let said = match fit.is_some_and(|r| same_route(r, route)) {
            true => steps.make(Change::DeleteRoute(Box::new(key))),
            false => Err("no command tells it from others".to_owned()),
        };
        if let Err(why) = said {
            unsaid.push(format!("{} is gone ({why})", shown(route)));
        }
    }
    let index = Routes::of(&steps.state.routes);
    let mut come: Vec<Route> = b.routes.iter().filter(|r| told(r) && !index.has(r)).cloned().collect();
    // A gateway must be on a link that is known by then.
    come.sort_by_key(|route| route.next_hops.iter().any(|h| h.gateway.is_some()));
    for route in come {
        if is_kernels(&route) && touched(steps, &route) {
            continue;
        }
        let text = shown(&route);
        let said = match route.unmodelled.is_empty() {
            true => steps.make(Change::AddRoute(Box::new(route))),
            false => Err("it holds what is not modelled".to_owned()),
        };
        if let Err(why) = said {
            unsaid.push(format!("{text} is new ({why})"));
        }
    }
}

/// Routes by what tells most of them apart.
pub(super) struct Routes<'r>(HashMap<(IpNet, u32), Vec<&'r Route>>);

impl<'r> Routes<'r> {
    pub fn of(routes: &'r [Route]) -> Self {
        let mut map: HashMap<_, Vec<&Route>> = HashMap::new();
        for route in routes {
            map.entry((route.destination, route.table.0)).or_default().push(route);
        }
        Routes(map)
    }

    fn has(&self, route: &Route) -> bool {
        self.find(route).is_some()
    }

    /// The route that is the same, wherever it was read.
    pub fn find(&self, route: &Route) -> Option<&'r Route> {
        let near = self.0.get(&(route.destination, route.table.0))?;
        near.iter().find(|r| same_route(r, route)).copied()
    }
}

fn shown(route: &Route) -> String {
    let mut text = format!("route to {} in table {}", route.destination, route.table);
    for hop in &route.next_hops {
        if let Some(gateway) = hop.gateway {
            text.push_str(&format!(" via {gateway}"));
        }
        if let Some(device) = &hop.interface {
            text.push_str(&format!(" by {device}"));
        }
    }
    text
}

/// Rules of one priority run in the order they were added: what stands behind
/// one that is new must be new, too.
fn policy(steps: &mut Steps, b: &Host, unsaid: &mut Vec<String>) {
    let groups = |host: &Host| -> BTreeSet<(Family, u32)> {
        host.rules.iter().map(|rule| (rule.family, rule.priority)).collect()
    };
    let group = |host: &Host, of: (Family, u32)| -> Vec<PolicyRule> {
        host.rules.iter().filter(|r| (r.family, r.priority) == of).cloned().collect()
    };
    let mut all = groups(&steps.state);
    all.extend(groups(b));
    for of in all {
        let (old, new) = (group(&steps.state, of), group(b, of));
        let mut wanted = new.iter().peekable();
        let mut gone = Vec::new();
        for rule in &old {
            match wanted.next_if(|next| same_policy(next, rule)) {
                Some(_) => {}
                None => gone.push(rule.clone()),
            }
        }
        for rule in gone {
            let text = format!("policy rule {}", rule.priority);
            let said = match rule.unmodelled.is_empty() {
                true => steps.make(Change::DeletePolicyRule(Box::new(rule))),
                false => Err("it holds what is not modelled".to_owned()),
            };
            if let Err(why) = said {
                unsaid.push(format!("{text} is gone ({why})"));
            }
        }
        for rule in wanted {
            let said = match rule.unmodelled.is_empty() {
                true => steps.make(Change::AddPolicyRule(Box::new(rule.clone()))),
                false => Err("it holds what is not modelled".to_owned()),
            };
            if let Err(why) = said {
                unsaid.push(format!("policy rule {} is new ({why})", rule.priority));
            }
        }
    }
}
