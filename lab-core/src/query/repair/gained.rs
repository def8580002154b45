//! What a change gives and takes, over all senders: the packets that arrive
//! somewhere after it and not before, and those whose answers do.

use std::collections::BTreeMap;

use serde::Serialize;

use super::ask::{Goal, Wish};
use crate::addr::Family;
use crate::model::{Change, Lab, Match, Not, Statement, TableFamily};
use crate::query::diff::flows::{self, Fate, Sender, Side};
use crate::query::flows::{Asker, Headers};
use crate::query::reach::{Told, LINES};
use crate::query::what_if::HostChange;
use crate::query::Error;
use crate::space::{PacketSet, Ref, Space};

/// First packets of connections from one sender to one place.
#[derive(Clone, Debug, Serialize)]
pub struct Difference {
    /// Who sends: a host, from any of its addresses, or `@outside` by an
    /// interface.
    pub from: String,
    /// The host, or `host:interface` where they leave the lab; `not known`
    /// where nothing can be claimed.
    pub at: String,
    /// Whether they arrived all along, and it is their answers that do now, or
    /// no longer.
    pub answers: bool,
    /// The packets, as sent.
    pub packets: Told,
}

/// Where packets come to of which nothing can be claimed.
const UNKNOWN: &str = "not known";

/// What arrives where in a lab, and what is answered.
#[derive(Debug)]
pub(super) struct Arrivals {
    space: Space,
    /// By sender and place: what may arrive, and of it what may be answered,
    /// or nobody can tell.
    sets: BTreeMap<(String, String), (PacketSet, PacketSet)>,
    /// All that is asked about.
    first: PacketSet,
}

/// What arrives where, of first packets of connections from all of them: of
/// those that are asked about.
pub(super) fn arrivals(
    lab: &Lab,
    senders: &[Sender],
    asked: &[Headers],
    space: &Space,
) -> Result<Arrivals, Error> {
    let mut asker = Asker::new(lab);
    let first = asker.headers(&Headers::default())?;
    let first = space.adopt(asker.engine.store(), first)?;
    let mut headers = Ref::NONE;
    for one in asked {
        let more = asker.headers(one)?;
        headers = asker.engine.store().or_else(headers, more)?;
    }
    // A change of routes may change from which of its addresses a host sends,
    // which neither gives nor takes a flow.
    let mut side = Side { asker, headers, bound: true };
    let mut sets = BTreeMap::new();
    for sender in senders {
        let mut found: BTreeMap<String, (Ref, Ref)> = BTreeMap::new();
        side.each(sender, &mut |store, fate, set| {
            let answered = fate.passes();
            let place = match fate {
                Fate::Arrives { at, .. } => at,
                Fate::Unknown(_) => UNKNOWN.to_owned(),
                Fate::Rejected(_) | Fate::Dropped(_) | Fate::NotSent => return Ok(()),
            };
            let known = found.entry(place).or_default();
            known.0 = store.or_else(known.0, set)?;
            if answered {
                known.1 = store.or_else(known.1, set)?;
            }
            Ok(())
        })?;
        for (place, (arrive, answered)) in found {
            let store = side.asker.engine.store();
            let both = (space.adopt(store, arrive)?, space.adopt(store, answered)?);
            sets.insert((sender.to_string(), place), both);
        }
    }
    Ok(Arrivals { space: space.clone(), sets, first })
}

/// The first packets of connections to which changes may do anything: all, but
/// if only rules change that are for certain protocols.
pub(super) fn touched<'c>(changes: impl IntoIterator<Item = &'c HostChange>) -> Vec<Headers> {
    let mut all: Vec<Headers> = Vec::new();
    for one in changes {
        let Some(headers) = touched_by(&one.change) else { return vec![Headers::default()] };
        if !all.contains(&headers) {
            all.push(headers);
        }
    }
    all
}

/// The packets that a change may do anything to, if it is a rule for one
/// protocol in which no tunnel wraps packets, and which no link needs to find
/// its neighbours: of other packets none meets it, on no part of their way.
fn touched_by(change: &Change) -> Option<Headers> {
    let Change::InsertRule { table, rule, .. } = change else { return None };
    let conditions = rule.statements.iter().map_while(|s| match s {
        Statement::Match(one) => Some(one),
        Statement::Target(_) => None,
    });
    let protocol = conditions.into_iter().find_map(|m| match m {
        Match::Protocol(Not { invert: false, value: protocol @ (1 | 6 | 132) }) => Some(*protocol),
        _ => None,
    })?;
    let family = match table.family {
        TableFamily::Ip => Some(Family::Ipv4),
        TableFamily::Ip6 => Some(Family::Ipv6),
        TableFamily::Inet => None,
        TableFamily::Arp | TableFamily::Bridge | TableFamily::Netdev => return None,
    };
    if protocol == 1 && family != Some(Family::Ipv4) {
        // There it would be read as ICMPv6.
        return None;
    }
    Some(Headers { protocol: Some(protocol), family, ..Headers::default() })
}

/// The packets that goals ask for, by sender: those of some wishes.
pub(super) fn asked(
    lab: &Lab,
    goals: &[Goal],
    wishes: &[Wish],
    space: &Space,
) -> Result<BTreeMap<String, PacketSet>, Error> {
    let mut asker = Asker::new(lab);
    let doors = flows::senders(lab, lab).into_iter().filter(|s| matches!(s, Sender::Door(_)));
    let doors: Vec<String> = doors.map(|door| door.to_string()).collect();
    let mut all: BTreeMap<String, PacketSet> = BTreeMap::new();
    for goal in goals.iter().filter(|g| wishes.contains(&g.wish)) {
        for sender in &goal.senders {
            let set = goal.packets(&mut asker, sender)?;
            let set = space.adopt(asker.engine.store(), set)?;
            let host = super::ask::sending_host(lab, sender).map(|h| h.name.clone());
            // Whoever is outside may send by each interface that leads out.
            let names = match host {
                Some(name) => vec![name],
                None => doors.clone(),
            };
            for name in names {
                let known = match all.get(&name) {
                    Some(known) => known.union(&set)?,
                    None => set.clone(),
                };
                all.insert(name, known);
            }
        }
    }
    Ok(all)
}

impl Arrivals {
    /// What is here and not in another, apart from what was asked for.
    pub fn beyond(
        &self,
        other: &Arrivals,
        asked: &BTreeMap<String, PacketSet>,
    ) -> Result<Vec<Difference>, Error> {
        let none = self.space.none()?;
        let sets =
            |all: &'_ Arrivals, from: &str, at: &str| match all.sets.get(&(from.to_owned(), at.to_owned())) {
                Some(both) => both.clone(),
                None => (none.clone(), none.clone()),
            };
        let mut all = Vec::new();
        for ((from, at), (arrive, answered)) in &self.sets {
            let (was, had) = sets(other, from, at);
            // Of what nothing could be claimed there, it may have arrived.
            let (unclaimed, _) = sets(other, from, UNKNOWN);
            let wanted = asked.get(from).unwrap_or(&none);
            let beyond = |set: PacketSet| set.difference(&unclaimed)?.difference(wanted);
            let new = beyond(arrive.difference(&was)?)?;
            let heard = beyond(answered.difference(&had)?.intersection(&was)?)?;
            for (set, answers) in [(new, false), (heard, true)] {
                if !set.is_empty() {
                    let packets = told(&set, &self.first)?;
                    all.push(Difference { from: from.clone(), at: at.clone(), answers, packets });
                }
            }
        }
        Ok(all)
    }
}

/// A set for people; its lines say nothing of what is not `within`. As an
/// example a ping if there is one, or TCP from a port that clients use.
pub(super) fn told(set: &PacketSet, within: &PacketSet) -> Result<Told, Error> {
    let space = set.space();
    let usual = space.protocol(6)?.intersection(&space.sport(40_000, 40_000)?)?;
    let mut example = None;
    let ping = |protocol, family| space.protocol(protocol)?.intersection(&space.family(family)?);
    for likely in [ping(1, Family::Ipv4)?, ping(58, Family::Ipv6)?, usual] {
        example = example.or_else(|| set.intersection(&likely).ok()?.example());
    }
    let (lines, whole) = set.cover_within(within, LINES)?;
    Ok(Told {
        lines: lines.iter().map(ToString::to_string).collect(),
        whole,
        count: set.count().to_string(),
        example: example.or_else(|| set.example()),
        set: set.clone(),
    })
}
