//! What could be changed about one blocker: some changes at a time, the best
//! first.

use std::net::IpAddr;

use super::admit::{self, Action, State};
use super::blocked::{Blocked, Cause, Way};
use super::fix::{self, Spot};
use super::gateways::Gateways;
use super::probe;
use super::search::Search;
use crate::addr::Family;
use crate::engine::symbolic::Ends;
use crate::model::{
    ChainKind, Change, Decision, Hook, HopDirection, Host, Lab, Owner, Place, RuleRef, Stage,
};
use crate::query::what_if::HostChange;
use crate::query::Error;
use crate::space::Field;

/// Changes that may do something about a blocker.
pub(super) fn candidates(
    search: &Search,
    lab: &Lab,
    blocked: &Blocked,
) -> Result<Vec<Vec<HostChange>>, Error> {
    let mut all = Vec::new();
    if let Cause::Astray(_) = &blocked.cause {
        all.extend(exempt(search, lab, blocked)?);
    }
    // What stops them on a detour is not what is wrong.
    if let Cause::Astray(_) | Cause::By(_) = &blocked.cause {
        all.extend(wrong_turns(lab, blocked)?);
    }
    match &blocked.cause {
        Cause::By(Decision::Rule(rule)) => all.extend(by_rule(search, lab, blocked, rule)?),
        Cause::By(Decision::Stage { host, stage }) => all.extend(by_stage(lab, blocked, host, stage)?),
        Cause::Arrives(at) => all.extend(stop(search, lab, blocked, at)?),
        Cause::Astray(_) | Cause::Unasked | Cause::Unknown(_) => {}
    }
    Ok(all)
}

/// A rule before the one that decides.
fn by_rule(
    search: &Search,
    lab: &Lab,
    blocked: &Blocked,
    rule: &RuleRef,
) -> Result<Vec<Vec<HostChange>>, Error> {
    let Some(host) = lab.host(&rule.host) else { return Ok(Vec::new()) };
    let hook = admit::base_of(host, rule).and_then(|(_, c)| c.base).map(|b| (b.hook, b.priority));
    let Some((hook, priority)) = hook else { return Ok(Vec::new()) };
    let output = match hook {
        Hook::Forward | Hook::Output | Hook::Postrouting => {
            probe::output(search.goal(blocked), lab, blocked, hook)?
        }
        Hook::Ingress | Hook::Prerouting | Hook::Input => None,
    };
    let input = match hook {
        Hook::Output | Hook::Postrouting => None,
        _ => blocked.input.as_deref(),
    };
    let Some(specs) = admit::specs(blocked, &search.first, input, output.as_deref())? else {
        return Ok(Vec::new());
    };
    let mut all = Vec::new();
    let places = admit::places(host, rule);
    let accepting = |specs: &[admit::Spec]| {
        let made = places.iter().filter_map(|spot| admit::rules_at(host, spot, specs, Action::Accept));
        made.collect::<Vec<_>>()
    };
    all.extend(accepting(&specs));
    // An answer is of a connection that is there; before conntrack has looked
    // (NF_IP_PRI_CONNTRACK: -200) nobody knows.
    if blocked.way == Way::Back && priority > -200 {
        let mut narrower = specs;
        narrower.iter_mut().for_each(|s| s.state = Some(State::Established));
        all.extend(accepting(&narrower));
    }
    all.extend(unmask(search, lab, blocked)?);
    Ok(all)
}

fn by_stage(lab: &Lab, blocked: &Blocked, host: &str, stage: &Stage) -> Result<Vec<Vec<HostChange>>, Error> {
    let sysctl = |key: String, value: &str| vec![fix::sysctl(host, key, value)];
    let input = blocked.input.as_deref();
    let slashed = input.map(|i| i.replace('.', "/"));
    Ok(match stage {
        Stage::NotForwarding => match (blocked.family, slashed) {
            (Family::Ipv4, Some(device)) => vec![
                sysctl(format!("net.ipv4.conf.{device}.forwarding"), "1"),
                sysctl("net.ipv4.ip_forward".into(), "1"),
            ],
            (Family::Ipv4, None) => vec![sysctl("net.ipv4.ip_forward".into(), "1")],
            (Family::Ipv6, _) => vec![sysctl("net.ipv6.conf.all.forwarding".into(), "1")],
        },
        Stage::RpFilter => {
            let mut all = Vec::new();
            if let Some(source) = address_now(blocked, Field::Src)? {
                let back = Gateways::new(lab, source).routes(host);
                // Strict again, where the way back leads by the same interface.
                let by = |fixes: &Vec<HostChange>| match fixes.last().map(|f| &f.change) {
                    Some(Change::AddRoute(route)) => {
                        input.is_some() && route.next_hops.iter().any(|h| h.interface.as_deref() == input)
                    }
                    _ => false,
                };
                all.extend(back.into_iter().filter(by));
            }
            if let Some(device) = slashed {
                all.insert(0, sysctl(format!("net.ipv4.conf.{device}.rp_filter"), "2"));
            }
            all
        }
        Stage::LinkDown => links_down(lab, blocked, host),
        Stage::NoRoute
        | Stage::HostUnreachable
        | Stage::NeighbourFailed
        | Stage::Prohibit
        | Stage::Blackhole
        | Stage::AnswerLost
        | Stage::Ttl
        | Stage::Send(_) => {
            let mut all = links_down(lab, blocked, host);
            if let (Stage::HostUnreachable | Stage::NeighbourFailed | Stage::AnswerLost, Some(to)) =
                (stage, address_now(blocked, Field::Dst)?)
            {
                all.extend(Gateways::new(lab, to).loosened(host));
            }
            if let Some(to) = address_now(blocked, Field::Dst)? {
                all.extend(Gateways::new(lab, to).routes(host));
            }
            all
        }
        _ => Vec::new(),
    })
}

/// Interfaces that are down at a host, and at whoever the packets are for.
fn links_down(lab: &Lab, blocked: &Blocked, host: &str) -> Vec<Vec<HostChange>> {
    let target = match address_now(blocked, Field::Dst) {
        Ok(Some(address)) => crate::query::ends::owner(lab, address),
        _ => None,
    };
    let mut all = Vec::new();
    let mut hosts: Vec<&Host> = lab.host(host).into_iter().chain(target).collect();
    hosts.dedup_by_key(|h| &h.name);
    for host in hosts {
        for device in host.interfaces.iter().filter(|i| !i.up) {
            let change = Change::Link(device.name.clone(), true);
            all.push(vec![HostChange { host: host.name.clone(), change }]);
        }
    }
    all
}

/// Routes at the hosts that sent flows no nearer to where they go, the first
/// wrong turn first.
fn wrong_turns(lab: &Lab, blocked: &Blocked) -> Result<Vec<Vec<HostChange>>, Error> {
    let Some(destination) = address_now(blocked, Field::Dst)? else { return Ok(Vec::new()) };
    let gateways = Gateways::new(lab, destination);
    let hosts = blocked.routers(lab);
    let mut at = gateways.wrong_turns(&hosts);
    if let (Cause::Astray(_), Some(last)) = (&blocked.cause, hosts.last()) {
        at.push(last);
    }
    Ok(at.into_iter().flat_map(|host| gateways.routes(host)).collect())
}

/// The first host that sent flows no nearer to where they go.
pub(super) fn wrong_turn(lab: &Lab, blocked: &Blocked) -> Result<Option<String>, Error> {
    let Some(destination) = address_now(blocked, Field::Dst)? else { return Ok(None) };
    let hosts = blocked.routers(lab);
    let gateways = Gateways::new(lab, destination);
    let first = gateways.wrong_turns(&hosts).first().map(|h| (*h).to_owned());
    Ok(first)
}

/// The address that flows have as source or destination where they are, if it
/// is one.
pub(super) fn address_now(blocked: &Blocked, which: Field) -> Result<Option<IpAddr>, Error> {
    let source = match which {
        Field::Src => blocked.ends.src,
        _ => blocked.ends.dst,
    };
    let address = |bits: u128| match blocked.family {
        Family::Ipv4 => IpAddr::V4(((bits >> 96) as u32).into()),
        Family::Ipv6 => IpAddr::V6(bits.into()),
    };
    if source.mask == u128::MAX {
        return Ok(Some(address(source.value)));
    }
    let Some(example) = blocked.set.example() else { return Ok(None) };
    let sent = match source.field {
        Field::Src => example.src,
        _ => example.dst,
    };
    let bits = match sent {
        IpAddr::V4(a) => u128::from(a.to_bits()) << 96,
        IpAddr::V6(a) => a.to_bits(),
    };
    Ok(Some(address(source.of(bits))))
}

/// Exemptions from the rules that rewrote where packets go.
fn exempt(search: &Search, lab: &Lab, blocked: &Blocked) -> Result<Vec<Vec<HostChange>>, Error> {
    if blocked.way == Way::Back {
        return Ok(Vec::new());
    }
    let mut before = blocked.clone();
    // Their header before it: no other rule has rewritten them yet.
    before.ends = Ends::SENT;
    before.sport_kept = true;
    let hooks = [Hook::Prerouting, Hook::Output];
    let mut all = Vec::new();
    for (rule, hook) in rewriting(lab, blocked, &hooks) {
        let input = (hook == Hook::Prerouting).then(|| input_at(&blocked.path, &rule.host)).flatten();
        all.extend(exemptions(search, lab, &before, rule, (input, None))?);
    }
    Ok(all)
}

/// Exemptions from the rule that hides who sent packets: without it a rule
/// farther on can tell these senders from others.
fn unmask(search: &Search, lab: &Lab, blocked: &Blocked) -> Result<Vec<Vec<HostChange>>, Error> {
    // Outside nobody knows the way to an address that was hidden.
    if blocked.way == Way::Back || search.goal(blocked).beyond {
        return Ok(Vec::new());
    }
    let hiding: Vec<_> = rewriting(lab, blocked, &[Hook::Postrouting]).collect();
    let [(rule, _)] = hiding.as_slice() else { return Ok(Vec::new()) };
    let mut before = blocked.clone();
    before.ends = Ends { src: Ends::SENT.src, sport: Ends::SENT.sport, ..before.ends };
    before.sport_kept = true;
    before.host = rule.host.clone();
    let output = probe::output(search.goal(blocked), lab, &before, Hook::Postrouting)?;
    exemptions(search, lab, &before, rule, (None, output.as_deref()))
}

/// The rules of NAT at some hooks that rewrote packets.
fn rewriting<'b>(
    lab: &'b Lab,
    blocked: &'b Blocked,
    hooks: &'b [Hook],
) -> impl Iterator<Item = (&'b RuleRef, Hook)> + 'b {
    blocked.rewritten.iter().filter_map(move |rule| {
        let (_, base) = admit::base_of(lab.host(&rule.host)?, rule)?;
        let base = base.base.filter(|b| b.kind == ChainKind::Nat && hooks.contains(&b.hook))?;
        Some((rule, base.hook))
    })
}

/// Rules before one of NAT that leave flows as they are: in a chain that a
/// person owns, if there is one.
fn exemptions(
    search: &Search,
    lab: &Lab,
    before: &Blocked,
    rule: &RuleRef,
    (input, output): (Option<&str>, Option<&str>),
) -> Result<Vec<Vec<HostChange>>, Error> {
    let Some(host) = lab.host(&rule.host) else { return Ok(Vec::new()) };
    let Some(specs) = admit::specs(before, &search.first, input, output)? else { return Ok(Vec::new()) };
    let places = admit::places(host, rule);
    let owned = |spot: &&Spot| Owner::of_chain(&spot.table.name, &spot.chain) == Owner::User;
    let Some(spot) = places.iter().find(owned).or(places.first()) else { return Ok(Vec::new()) };
    Ok(admit::rules_at(host, spot, &specs, Action::Accept).into_iter().collect())
}

/// The first interface by which packets came into a host.
fn input_at<'p>(path: &'p [(Place, HopDirection)], host: &str) -> Option<&'p str> {
    let came = path.iter().find(|(place, way)| place.host == host && *way == HopDirection::In)?;
    Some(&came.0.iface)
}

/// Rules that drop flows, at each host that they pass: where they arrive, where
/// they are sent on, where they are sent.
fn stop(search: &Search, lab: &Lab, blocked: &Blocked, at: &Place) -> Result<Vec<Vec<HostChange>>, Error> {
    let mut all = Vec::new();
    let hosts = blocked.routers(lab);
    for (place, name) in hosts.iter().enumerate().rev() {
        let Some(host) = lab.host(name) else { continue };
        let came_in = blocked.path.iter().any(|(p, d)| p.host == *name && *d == HopDirection::In);
        let last = blocked.path.iter().rev().find(|(p, _)| p.host == *name);
        let leaves = last.is_some_and(|(_, d)| *d == HopDirection::Out);
        let hook = match (came_in, place + 1 == hosts.len() && at.host == *name && !leaves) {
            (true, true) => Hook::Input,
            (true, false) => Hook::Forward,
            (false, _) => Hook::Output,
        };
        let Some(spot) = admit::filter_at(host, blocked.family, hook) else { continue };
        // What they looked like there: rewriting at hosts after it is undone.
        let Some(mut specs) = probe::specs_at(search, lab, blocked, &spot, hook, name)? else { continue };
        all.extend(admit::rules_at(host, &spot, &specs, Action::Drop));
        // Answers to connections of the other's may look the same.
        specs.iter_mut().for_each(|s| s.state = Some(State::New));
        all.extend(admit::rules_at(host, &spot, &specs, Action::Drop));
    }
    Ok(all)
}
