//! What flows look like inside a host: found out by asking about labs that are
//! changed for the question.

use std::collections::BTreeSet;

use super::admit::{self, Action, Spec};
use super::ask::{Goal, Wish};
use super::blocked::{blocked, Blocked, Cause, Way};
use super::fix::{apply, table_of, Spot};
use super::search::Search;
use crate::engine::symbolic::{Flowed, Passed};
use crate::model::{ChainKind, Decision, Hook, HopDirection, InterfaceKind, Lab, Place, Policy};
use crate::query::flows::Asker;
use crate::query::Error;
use crate::space::PacketSet;

/// The interface by which blocked flows would leave the host, as a hook there
/// knows it; none if there are several, or it cannot be told.
///
/// Found in a lab whose host refuses nothing at that hook and on leaving.
pub(super) fn output(goal: &Goal, lab: &Lab, flows: &Blocked, hook: Hook) -> Result<Option<String>, Error> {
    let mut open = lab.clone();
    if let Some(host) = open.host_mut(&flows.host) {
        let bases = host.ruleset.tables.iter_mut().flat_map(|t| &mut t.chains);
        for chain in bases {
            let filters = |b: &&mut crate::model::BaseChain| {
                b.kind == ChainKind::Filter && (b.hook == hook || b.hook == Hook::Postrouting)
            };
            if let Some(base) = chain.base.as_mut().filter(filters) {
                base.policy = Policy::Accept;
                chain.rules.clear();
            }
        }
    }
    let mut asker = Asker::new(&open);
    let set = goal.packets(&mut asker, &flows.sender)?;
    let mut left: BTreeSet<Option<String>> = BTreeSet::new();
    for flowed in asker.send(&flows.sender, set)? {
        let parts = match flows.way {
            Way::There => vec![flowed],
            Way::Back if goal.arrives(&open, &flowed.ending) => match asker.replies(&flowed)? {
                Some(replies) => replies,
                None => asker.replies_from_outside(&flowed)?.unwrap_or_default(),
            },
            Way::Back => Vec::new(),
        };
        for part in parts {
            let set = flows.set.space().adopt(asker.engine.store(), part.flow.set)?;
            if !set.intersection(&flows.set)?.is_empty() {
                left.insert(leaving(&open, &part, flows));
            }
        }
    }
    let mut left = left.into_iter();
    Ok(match (left.next(), left.next()) {
        (Some(only), None) => only,
        _ => None,
    })
}

/// The interface by which a flow leaves a host after the way that it came there;
/// for a frame that a bridge passes on, the bridge.
fn leaving(lab: &Lab, flowed: &Flowed, flows: &Blocked) -> Option<String> {
    let hops: Vec<(Place, HopDirection)> = flowed
        .flow
        .passed()
        .into_iter()
        .filter_map(|p| match p {
            Passed::Hop(place, direction) => Some((place, direction)),
            Passed::Rewritten(_) => None,
        })
        .collect();
    let came = |(place, direction): &(Place, HopDirection)| {
        place.host == flows.host && *direction == HopDirection::In
    };
    let before = flows.path.iter().rposition(came).map_or(0, |at| at + 1);
    if hops.get(..before) != flows.path.get(..before) {
        return None;
    }
    let leaves = |(place, direction): &&(Place, HopDirection)| {
        place.host == flows.host && *direction == HopDirection::Out
    };
    let out = &hops.get(before..)?.iter().find(leaves)?.0.iface;
    let host = lab.host(&flows.host)?;
    let master = host.interface(out)?.master.as_deref().and_then(|m| host.interface(m));
    Some(match master {
        Some(bridge) if matches!(bridge.kind, InterfaceKind::Bridge(_)) => bridge.name.clone(),
        _ => out.clone(),
    })
}

/// The conditions that hold for flows in a chain that they pass on their way;
/// none if they do not, or are too scattered.
///
/// Found in a lab where that chain drops everything: what it drops of them is
/// as it looks there.
pub(super) fn specs_at(
    search: &Search,
    lab: &Lab,
    flows: &Blocked,
    spot: &Spot,
    hook: Hook,
    host: &str,
) -> Result<Option<Vec<Spec>>, Error> {
    let Some(there) = lab.host(host) else { return Ok(None) };
    let all = Spec::any(flows.family);
    let Some(drop) = admit::rules_at(there, spot, &[all], Action::Drop) else { return Ok(None) };
    let Some(closed) = apply(lab, &drop) else { return Ok(None) };
    let goal = Goal { wish: Wish::Pass, senders: vec![flows.sender.clone()], ..search.goal(flows).clone() };
    let mut specs = Vec::new();
    for mut part in blocked(&closed, std::slice::from_ref(&goal), flows.set.space())? {
        let here = |cause: &Cause| match cause {
            Cause::By(Decision::Rule(rule)) => {
                rule.host == host
                    && rule.rule == Some(1)
                    && rule.chain == *spot.chain
                    && table_of(there, rule).is_none_or(|t| spot.table.means(t))
            }
            _ => false,
        };
        if part.way == Way::Back || !here(&part.cause) {
            continue;
        }
        part.set = within(&part.set, &flows.set)?;
        if part.set.is_empty() {
            continue;
        }
        let (input, output) = match hook {
            Hook::Input => (part.input.clone(), None),
            Hook::Output => (None, self::output(&goal, lab, &part, hook)?),
            _ => (part.input.clone(), self::output(&goal, lab, &part, hook)?),
        };
        let Some(more) = admit::specs(&part, &search.first, input.as_deref(), output.as_deref())? else {
            return Ok(None);
        };
        specs.extend(more.into_iter().filter(|s| !specs.contains(s)).collect::<Vec<_>>());
    }
    Ok((!specs.is_empty()).then_some(specs))
}

fn within(set: &PacketSet, other: &PacketSet) -> Result<PacketSet, Error> {
    Ok(set.intersection(other)?)
}
