//! What becomes of flows: where each that does not do as it should ends.

use serde::Serialize;

use super::ask::{Goal, Wish};
use crate::addr::Family;
use crate::engine::symbolic::{Ending, Ends, Flowed, Passed};
use crate::model::{Decision, HopDirection, InterfaceKind, Lab, Place, RuleRef};
use crate::query::ends::End;
use crate::query::flows::{Asker, Home};
use crate::query::Error;
use crate::space::{Field, PacketSet, Ref, Source, Space};

/// Which way packets go.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Way {
    /// To where they are meant.
    There,
    /// As the answer to them.
    Back,
}

/// What keeps flows from what is wanted of them.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Cause {
    /// A rule or a stage ends their way.
    By(Decision),
    /// They come to another host, or leave the lab, by this interface.
    Astray(Place),
    /// The answer comes home, but from another address or port than was
    /// asked: no program takes it.
    Unasked,
    /// Nothing refuses them, though they should not pass.
    Arrives(Place),
    /// What happens to them depends on what is not modelled or not told.
    Unknown(Vec<String>),
}

impl Cause {
    /// The same, wherever in its chain a rule stands: others are put before it.
    fn anywhere(&self) -> Cause {
        match self {
            Cause::By(Decision::Rule(rule)) => {
                Cause::By(Decision::Rule(RuleRef { rule: rule.rule.map(|_| 0), ..rule.clone() }))
            }
            other => other.clone(),
        }
    }
}

/// Flows that end alike, and not as they should.
#[derive(Clone, Debug)]
pub(super) struct Blocked {
    /// Which goal, from 0.
    pub goal: usize,
    /// Who sends.
    pub sender: End,
    pub way: Way,
    pub cause: Cause,
    /// Where it happens.
    pub host: String,
    /// The interface by which they came into that host; none: it sent them.
    pub input: Option<String>,
    pub family: Family,
    /// Their header there, by the header as sent.
    pub ends: Ends,
    /// Whether their source port is as sent.
    pub sport_kept: bool,
    /// The packets as sent.
    pub set: PacketSet,
    /// The interfaces passed.
    pub path: Vec<(Place, HopDirection)>,
    /// The rules that rewrote them.
    pub rewritten: Vec<RuleRef>,
    /// Whether they went round.
    pub looped: bool,
}

impl Blocked {
    /// Whether it is the same flows, stopped by the same.
    pub fn same(&self, other: &Blocked) -> Result<bool, Error> {
        let alike =
            |b: &Blocked| (b.goal, b.way, b.cause.anywhere(), b.host.clone(), b.input.clone(), b.ends);
        Ok(alike(self) == alike(other) && self.set.equals(&other.set)?)
    }

    /// The hosts passed, in order, once each: those that route, and not those
    /// that only pass frames on.
    pub fn routers(&self, lab: &Lab) -> Vec<String> {
        let mut hosts: Vec<String> = Vec::new();
        for (number, (place, direction)) in self.path.iter().enumerate() {
            let device = || lab.host(&place.host)?.interface(&place.iface);
            let port = device().is_some_and(|d| d.port.is_some() || d.standby);
            let taken = number == 0 || (*direction == HopDirection::In && !port);
            if taken && !hosts.contains(&place.host) {
                hosts.push(place.host.clone());
            }
        }
        if hosts.is_empty() {
            hosts.push(self.host.clone());
        }
        hosts
    }
}

/// The flows that do not do as they should in a lab, in the order of the
/// goals, those on the way there first.
pub(super) fn blocked(lab: &Lab, goals: &[Goal], space: &Space) -> Result<Vec<Blocked>, Error> {
    let mut asker = Asker::new(lab);
    let mut all = Vec::new();
    for (number, goal) in goals.iter().enumerate() {
        let mut found = Gathered { number, goal, space, blocked: Vec::new() };
        for sender in &goal.senders {
            let set = goal.packets(&mut asker, sender)?;
            let flows = asker.send(sender, set)?;
            if flows.is_empty() && goal.wish == Wish::Pass {
                return Err(Error::Unfit(format!("{sender} cannot send any of: {}", goal.text)));
            }
            for flowed in &flows {
                match goal.wish {
                    Wish::Pass => found.pass(&mut asker, sender, flowed)?,
                    Wish::Refuse => found.refuse(&mut asker, sender, flowed)?,
                }
            }
        }
        found.blocked.sort_by_key(|b| b.way);
        all.extend(found.blocked);
    }
    Ok(all)
}

struct Gathered<'g> {
    number: usize,
    goal: &'g Goal,
    space: &'g Space,
    blocked: Vec<Blocked>,
}

impl Gathered<'_> {
    /// Notes what of a flow does not arrive or is not answered.
    fn pass(&mut self, asker: &mut Asker, sender: &End, flowed: &Flowed) -> Result<(), Error> {
        let set = flowed.flow.set;
        if !flowed.flow.unknown.is_empty() {
            return self.note(asker, sender, flowed, Way::There, unknown(flowed), set);
        }
        if !self.goal.arrives(asker.lab, &flowed.ending) {
            let cause = match &flowed.ending {
                Ending::Rejected(by) | Ending::Dropped(by) => Cause::By(by.clone()),
                Ending::Delivered(at) | Ending::ForwardedOut(at) => Cause::Astray(at.clone()),
            };
            return self.note(asker, sender, flowed, Way::There, cause, set);
        }
        let replies = match asker.replies(flowed)? {
            Some(replies) => Some(replies),
            None => asker.replies_from_outside(flowed)?,
        };
        let Some(home) = Home::of(flowed, sender) else { return Ok(()) };
        for reply in replies.unwrap_or_default() {
            let set = asker.engine.store().guard(set, reply.flow.set)?;
            let cause = match &reply.ending {
                _ if !reply.flow.unknown.is_empty() => unknown(&reply),
                _ if Asker::is_home(&reply, &home) => continue,
                Ending::Rejected(by) | Ending::Dropped(by) => Cause::By(by.clone()),
                Ending::Delivered(at) if matches!(&home, Home::Host(h) if *h == at.host) => Cause::Unasked,
                Ending::ForwardedOut(at) if home == Home::Place(at.clone()) => Cause::Unasked,
                Ending::Delivered(at) | Ending::ForwardedOut(at) => Cause::Astray(at.clone()),
            };
            self.note(asker, sender, &reply, Way::Back, cause, set)?;
        }
        Ok(())
    }

    /// Notes what of a flow arrives, or may.
    fn refuse(&mut self, asker: &mut Asker, sender: &End, flowed: &Flowed) -> Result<(), Error> {
        let cause = match &flowed.ending {
            _ if !flowed.flow.unknown.is_empty() => unknown(flowed),
            Ending::Delivered(at) | Ending::ForwardedOut(at)
                if self.goal.arrives(asker.lab, &flowed.ending) =>
            {
                Cause::Arrives(at.clone())
            }
            _ => return Ok(()),
        };
        self.note(asker, sender, flowed, Way::There, cause, flowed.flow.set)
    }

    fn note(
        &mut self,
        asker: &mut Asker,
        sender: &End,
        flowed: &Flowed,
        way: Way,
        cause: Cause,
        set: Ref,
    ) -> Result<(), Error> {
        let Some(family) = flowed.flow.family(asker.engine.store()) else { return Ok(()) };
        if set.is_none() {
            return Ok(());
        }
        let passed = flowed.flow.passed();
        let path: Vec<(Place, HopDirection)> = passed
            .iter()
            .filter_map(|p| match p {
                Passed::Hop(place, direction) => Some((place.clone(), *direction)),
                Passed::Rewritten(_) => None,
            })
            .collect();
        let rewritten = passed.into_iter().filter_map(|p| match p {
            Passed::Rewritten(rule) => Some(rule),
            Passed::Hop(..) => None,
        });
        let host = match &cause {
            Cause::By(by) => by.host().to_owned(),
            Cause::Astray(at) | Cause::Arrives(at) => at.host.clone(),
            Cause::Unasked | Cause::Unknown(_) => {
                path.last().map(|(place, _)| place.host.clone()).unwrap_or_default()
            }
        };
        let input = input_of(asker.lab, &path, &host);
        let ends = flowed.flow.now.ends;
        let sport_kept = ends.sport == Source::keep(Field::Sport);
        let set = self.space.adopt(asker.engine.store(), set)?;
        // A source port that a kernel picked splits what is one to a rule; an
        // answer has it as its destination port.
        let port = |e: Ends| if way == Way::There { e.dport } else { e.sport };
        let alike = |b: &&mut Blocked| {
            (b.way, &b.cause, &b.host, &b.input, b.family) == (way, &cause, &host, &input, family)
                && b.sender == *sender
                && (b.ends.src, b.ends.dst, port(b.ends)) == (ends.src, ends.dst, port(ends))
        };
        if let Some(known) = self.blocked.iter_mut().find(alike) {
            known.set = known.set.union(&set)?;
            known.sport_kept &= sport_kept;
            return Ok(());
        }
        self.blocked.push(Blocked {
            goal: self.number,
            sender: sender.clone(),
            way,
            cause,
            host,
            input,
            family,
            ends,
            sport_kept,
            set,
            path,
            rewritten: rewritten.collect(),
            looped: flowed.looped,
        });
        Ok(())
    }
}

fn unknown(flowed: &Flowed) -> Cause {
    Cause::Unknown(flowed.flow.unknown.clone())
}

/// The interface by which packets came into a host, as rules there see it: of
/// a bridge port that only passed a frame on the bridge.
fn input_of(lab: &Lab, path: &[(Place, HopDirection)], host: &str) -> Option<String> {
    let (last, direction) = path.iter().rev().find(|(place, _)| place.host == host)?;
    if *direction == HopDirection::Out {
        return None;
    }
    let device = lab.host(host)?.interface(&last.iface)?;
    let master = device.master.as_deref().and_then(|m| lab.host(host)?.interface(m));
    Some(match master {
        Some(bridge) if matches!(bridge.kind, InterfaceKind::Bridge(_)) => bridge.name.clone(),
        _ => device.name.clone(),
    })
}
