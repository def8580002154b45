//! What is odd about the ways of packets: loops, black holes, and answers that
//! take another way than what they answer.

use std::collections::BTreeMap;

use serde::Serialize;

use super::ends::End;
use super::flows::{Asker, Headers};
use super::Error;
use crate::engine::symbolic::{Ending, Flowed, Passed};
use crate::model::{Decision, Lab, Packet, Stage};
use crate::space::{PacketSet, Ref, Space};

/// Packets that go round until their TTL runs out.
#[derive(Clone, Debug, Serialize)]
pub struct Loop {
    /// Who sends them.
    pub from: String,
    /// The hosts they go round, in order, from the first met twice.
    pub hosts: Vec<String>,
    /// One of them.
    pub example: Option<Packet>,
    /// All of them, as sent.
    #[serde(skip)]
    pub packets: PacketSet,
}

/// Packets that vanish without a word, though no rule drops them.
#[derive(Clone, Debug, Serialize)]
pub struct BlackHole {
    /// Who sends them.
    pub from: String,
    /// The host where they vanish.
    pub host: String,
    /// The stage that swallows them.
    pub stage: Stage,
    /// One of them.
    pub example: Option<Packet>,
    /// All of them, as sent.
    #[serde(skip)]
    pub packets: PacketSet,
}

/// An answer that takes another way than what it answers.
#[derive(Clone, Debug, Serialize)]
pub struct Asymmetry {
    /// Who sends.
    pub from: String,
    /// Who answers.
    pub to: String,
    /// The hosts on the way there.
    pub there: Vec<String>,
    /// The hosts on the way back.
    pub back: Vec<String>,
    /// A packet whose answer does so.
    pub example: Option<Packet>,
}

/// What is odd about a lab's ways.
#[derive(Clone, Debug, Serialize)]
pub struct Odd {
    /// Loops.
    pub loops: Vec<Loop>,
    /// Black holes on the way to addresses that somebody in the lab has.
    pub black_holes: Vec<BlackHole>,
    /// Asymmetric ways.
    pub asymmetric: Vec<Asymmetry>,
}

/// The hosts that a flow passed, each run of one named once.
fn hosts(flowed: &Flowed) -> Vec<String> {
    let mut hosts: Vec<String> = Vec::new();
    for passed in flowed.flow.passed() {
        if let Passed::Hop(at, _) = passed {
            if hosts.last() != Some(&at.host) {
                hosts.push(at.host);
            }
        }
    }
    hosts
}

/// Looks at new connections from every host, and from `@outside`, to every
/// address; and at the answers to those that are delivered.
///
/// Cost: one run of the engine for each host, and one for each part of its
/// packets that is delivered.
///
/// # Errors
/// Packet sets that outgrow their budget.
pub fn odd(lab: &Lab) -> Result<Odd, Error> {
    let mut asker = Asker::new(lab);
    let space = Space::default();
    let headers = asker.headers(&Headers::default())?;
    let own: Vec<std::net::IpAddr> = lab.all_hosts().flat_map(|h| h.addresses()).collect();
    let inside = asker.to_addresses(&own)?;
    let mut odd = Odd { loops: Vec::new(), black_holes: Vec::new(), asymmetric: Vec::new() };
    let senders = lab.hosts.keys().map(|name| End::Host(name.clone()));
    let outside = asker.doors().next().map(|_| End::Outside);
    for from in senders.chain(outside) {
        let flows = asker.send(&from, headers)?;
        let mut loops: BTreeMap<Vec<String>, Ref> = BTreeMap::new();
        let mut holes: BTreeMap<(String, Stage), Ref> = BTreeMap::new();
        for flowed in &flows {
            let set = flowed.flow.set;
            if flowed.looped {
                let round = round(&hosts(flowed));
                let known = loops.entry(round).or_insert(Ref::NONE);
                *known = asker.engine.store().or_else(*known, set)?;
            }
            if let Ending::Dropped(Decision::Stage { host, stage }) = &flowed.ending {
                let set = asker.engine.store().guard(inside, set)?;
                if !set.is_none() && !matches!(stage, Stage::Unmodelled(_) | Stage::Send(_)) {
                    let known = holes.entry((host.clone(), stage.clone())).or_insert(Ref::NONE);
                    *known = asker.engine.store().or_else(*known, set)?;
                }
            }
            if let Ending::Delivered(at) = &flowed.ending {
                asymmetric(&mut asker, &from, flowed, &at.host, &mut odd.asymmetric)?;
            }
        }
        for (hosts, set) in loops {
            let packets = space.adopt(asker.engine.store(), set)?;
            odd.loops.push(Loop { from: from.to_string(), hosts, example: packets.example(), packets });
        }
        for ((host, stage), set) in holes {
            let packets = space.adopt(asker.engine.store(), set)?;
            let example = packets.example();
            odd.black_holes.push(BlackHole { from: from.to_string(), host, stage, example, packets });
        }
    }
    Ok(odd)
}

/// The part of a way between a host and its next time, turned so that the
/// first name in order comes first.
fn round(hosts: &[String]) -> Vec<String> {
    let twice = hosts.iter().enumerate().find_map(|(i, host)| {
        hosts[..i].iter().position(|other| other == host).map(|first| hosts[first..i].to_vec())
    });
    let mut round = twice.unwrap_or_default();
    let first = round.iter().enumerate().min_by_key(|(_, host)| *host).map_or(0, |(i, _)| i);
    round.rotate_left(first);
    round
}

fn asymmetric(
    asker: &mut Asker,
    from: &End,
    flowed: &Flowed,
    to: &str,
    into: &mut Vec<Asymmetry>,
) -> Result<(), Error> {
    let there = hosts(flowed);
    if there.len() < 3 {
        return Ok(());
    }
    for reply in asker.replies(flowed)?.unwrap_or_default() {
        if !matches!(reply.ending, Ending::Delivered(_) | Ending::ForwardedOut(_)) {
            continue;
        }
        let back = hosts(&reply);
        let mut turned = back.clone();
        turned.reverse();
        let known =
            |a: &Asymmetry| a.from == from.to_string() && a.to == to && a.there == there && a.back == back;
        if turned != there && !into.iter().any(known) {
            let space = Space::default();
            let example = space.adopt(asker.engine.store(), reply.flow.set)?.example();
            let (from, to) = (from.to_string(), to.to_owned());
            into.push(Asymmetry { from, to, there: there.clone(), back, example });
        }
    }
    Ok(())
}
