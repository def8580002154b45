//! Which packets get from where to where: all of them at once.

use std::collections::BTreeMap;

use serde::Serialize;

use super::ends::End;
use super::flows::{Asker, Headers, Home};
use super::Error;
use crate::engine::symbolic::{Ending, Flowed};
use crate::model::{Decision, Lab, Packet};
use crate::space::{Field, PacketSet, Ref, Source, Space, Store};

/// A question about reachability.
#[derive(Clone, Debug, Default)]
pub struct Question {
    /// Who sends.
    pub from: Option<End>,
    /// Where the packets should arrive; none: anywhere.
    pub to: Option<End>,
    /// Which packets.
    pub headers: Headers,
    /// Whether the answer must come back, too.
    pub and_back: bool,
}

/// A set of packets, for people and machines.
#[derive(Clone, Debug, Serialize)]
pub struct Told {
    /// Lines that describe it, among the packets asked about.
    pub lines: Vec<String>,
    /// Whether the lines are all of it.
    pub whole: bool,
    /// How many headers there are.
    pub count: String,
    /// One of them.
    pub example: Option<Packet>,
    /// The set itself, of packets as they were sent.
    #[serde(skip)]
    pub set: PacketSet,
}

/// Packets that arrive somewhere, with the same header changes.
#[derive(Clone, Debug, Serialize)]
pub struct Arrival {
    /// Who sends them.
    pub from: String,
    /// The host, or `host:interface` where they leave the lab.
    pub at: String,
    /// What became of their header: `source 10.10.10.2`.
    pub changed: Vec<String>,
    /// Those that certainly arrive.
    pub certain: Told,
    /// Those that may, but need not.
    pub possible: Told,
    /// What decides about those that may.
    pub reasons: Vec<String>,
}

/// Packets that something keeps from arriving.
#[derive(Clone, Debug, Serialize)]
pub struct Refusal {
    /// Who sends them.
    pub from: String,
    /// The rule or stage that ends their way.
    pub by: Decision,
    /// Whether it may send an answer.
    pub rejected: bool,
    /// Whether it is the answer to them that does not come back.
    pub on_the_way_back: bool,
    /// Whether they went round until their TTL ran out.
    pub looped: bool,
    /// The packets: each may end so.
    pub packets: Told,
}

/// Packets that arrive, but elsewhere than they were meant to.
#[derive(Clone, Debug, Serialize)]
pub struct Astray {
    /// Who sends them.
    pub from: String,
    /// The host, or `host:interface` where they leave the lab.
    pub at: String,
    /// Whether it is the answer to them that goes there.
    pub on_the_way_back: bool,
    /// The packets: each may go there.
    pub packets: Told,
}

/// The answer.
#[derive(Clone, Debug, Serialize)]
pub struct Reach {
    /// The form of this value: `lab.reach/1`.
    pub schema: &'static str,
    /// Who sends; none: every host, and `@outside`.
    pub from: Option<String>,
    /// Where packets should arrive; none: anywhere.
    pub to: Option<String>,
    /// Whether the answer must come back.
    pub and_back: bool,
    /// Whether only the first packets of connections are asked about.
    pub new: bool,
    /// Packets that arrive.
    pub arrivals: Vec<Arrival>,
    /// Packets meant for there that do not.
    pub refusals: Vec<Refusal>,
    /// Packets meant for there that arrive elsewhere.
    pub astray: Vec<Astray>,
}

/// At most this many lines describe a set.
pub const LINES: usize = 24;

impl Reach {
    /// Whether some packet certainly arrives.
    pub fn holds(&self) -> bool {
        self.arrivals.iter().any(|a| !a.certain.set.is_empty())
    }
}

/// Where a packet's way ended, and what became of its header.
type Place = (String, Vec<String>);

/// What is gathered of the flows from one end.
#[derive(Default)]
struct Gathered {
    /// For each place the packets that may arrive there, and why only may.
    arriving: BTreeMap<Place, (Ref, Vec<String>)>,
    /// For each decision the packets that may end by it.
    ending: BTreeMap<(Decision, bool, bool, bool), Ref>,
    /// For each place the packets, or the answers to them, that go there
    /// instead.
    astray: BTreeMap<(String, bool), Ref>,
    /// Packets of which nothing is claimed, with what is not modelled.
    unclaimed: (Ref, Vec<String>),
}

/// Answers a question about reachability.
///
/// # Errors
/// An end that does not exist or cannot serve; packet sets that outgrow their
/// budget.
pub fn reach(lab: &Lab, question: &Question) -> Result<Reach, Error> {
    reach_with(&mut Asker::new(lab), question)
}

/// The same, with an asker that has learned from earlier questions.
///
/// # Errors
/// As [`reach`].
pub fn reach_with(asker: &mut Asker, question: &Question) -> Result<Reach, Error> {
    let space = Space::default();
    let headers = asker.headers(&question.headers)?;
    let senders: Vec<End> = match &question.from {
        Some(from) => vec![from.clone()],
        None => {
            let hosts = asker.lab.hosts.keys().map(|name| End::Host(name.clone()));
            let outside = asker.doors().next().map(|_| End::Outside);
            hosts.chain(outside).collect()
        }
    };
    let mut reach = Reach {
        schema: "lab.reach/1",
        from: question.from.as_ref().map(End::to_string),
        to: question.to.as_ref().map(End::to_string),
        and_back: question.and_back,
        new: !question.headers.any,
        arrivals: Vec::new(),
        refusals: Vec::new(),
        astray: Vec::new(),
    };
    for from in senders {
        let flows = asker.send(&from, headers)?;
        let gathered = gather(asker, question, &from, &flows)?;
        tell(asker, &space, headers, &from, gathered, &mut reach)?;
    }
    Ok(reach)
}

fn gather(asker: &mut Asker, question: &Question, from: &End, flows: &[Flowed]) -> Result<Gathered, Error> {
    let mut gathered = Gathered { unclaimed: (Ref::NONE, Vec::new()), ..Gathered::default() };
    let meant = match &question.to {
        Some(to) => asker.meant_for(to)?,
        None => Ref::ALL,
    };
    for flowed in flows {
        let arrived = asker.arrived(flowed, question.to.as_ref())?;
        if !flowed.flow.unknown.is_empty() {
            // What was sent elsewhere cannot arrive as sent here; at a host it
            // can, by NAT.
            let set = match &question.to {
                Some(End::Address(_) | End::Prefix(_)) => {
                    asker.engine.store().guard(meant, flowed.flow.set)?
                }
                _ => flowed.flow.set,
            };
            note_unclaimed(asker, &mut gathered, set, &flowed.flow.unknown)?;
            continue;
        }
        let store = asker.engine.store();
        let missed = store.without(flowed.flow.set, arrived)?;
        let missed = store.guard(meant, missed)?;
        if !missed.is_none() {
            note_ending(asker, &mut gathered, flowed, missed, false)?;
        }
        if arrived.is_none() {
            continue;
        }
        if !question.and_back {
            note_arrival(asker, &mut gathered, flowed, arrived, &flowed.flow.reasons)?;
            continue;
        }
        match (asker.replies(flowed)?, Home::of(flowed, from)) {
            (None, _) | (_, None) => {
                let why = format!("whether somebody outside the lab answers, beyond {}", place(flowed));
                note_unclaimed(asker, &mut gathered, arrived, &[why])?;
            }
            (Some(replies), Some(home)) => {
                for reply in &replies {
                    let set = asker.engine.store().guard(arrived, reply.flow.set)?;
                    if !reply.flow.unknown.is_empty() {
                        note_unclaimed(asker, &mut gathered, set, &reply.flow.unknown)?;
                    } else if Asker::is_home(reply, &home) {
                        note_arrival(asker, &mut gathered, flowed, set, &reply.flow.reasons)?;
                    } else {
                        note_ending(asker, &mut gathered, reply, set, true)?;
                    }
                }
            }
        }
    }
    Ok(gathered)
}

fn note_unclaimed(asker: &mut Asker, into: &mut Gathered, set: Ref, why: &[String]) -> Result<(), Error> {
    into.unclaimed.0 = asker.engine.store().or_else(into.unclaimed.0, set)?;
    into.unclaimed
        .1
        .extend(why.iter().filter(|w| !into.unclaimed.1.contains(w)).cloned().collect::<Vec<_>>());
    Ok(())
}

fn note_arrival(
    asker: &mut Asker,
    into: &mut Gathered,
    flowed: &Flowed,
    set: Ref,
    why: &[String],
) -> Result<(), Error> {
    let entry = into.arriving.entry((place(flowed), changes(flowed))).or_insert((Ref::NONE, Vec::new()));
    entry.0 = asker.engine.store().or_else(entry.0, set)?;
    entry.1.extend(why.iter().filter(|w| !entry.1.contains(w)).cloned().collect::<Vec<_>>());
    Ok(())
}

fn note_ending(
    asker: &mut Asker,
    into: &mut Gathered,
    flowed: &Flowed,
    set: Ref,
    back: bool,
) -> Result<(), Error> {
    let entry = match &flowed.ending {
        Ending::Rejected(by) => into.ending.entry((by.clone(), true, back, flowed.looped)),
        Ending::Dropped(by) => into.ending.entry((by.clone(), false, back, flowed.looped)),
        Ending::Delivered(_) | Ending::ForwardedOut(_) => {
            let known = into.astray.entry((place(flowed), back)).or_insert(Ref::NONE);
            *known = asker.engine.store().or_else(*known, set)?;
            return Ok(());
        }
    }
    .or_insert(Ref::NONE);
    *entry = asker.engine.store().or_else(*entry, set)?;
    Ok(())
}

/// Where packets came to: a host, or the interface by which they left the lab.
pub(super) fn place(flowed: &Flowed) -> String {
    match &flowed.ending {
        Ending::Delivered(at) => at.host.clone(),
        Ending::ForwardedOut(at) => at.to_string(),
        Ending::Rejected(by) | Ending::Dropped(by) => by.host().to_owned(),
    }
}

/// What became of a header on the way, for people.
pub(super) fn changes(flowed: &Flowed) -> Vec<String> {
    let ends = flowed.flow.now.ends;
    let v6 = flowed.flow.kind.0.mask != 0 && flowed.flow.kind.0.value == 1;
    let text = |name: &str, field: Field, source: Source| -> Option<String> {
        if source == Source::keep(field) {
            return None;
        }
        if source.field == Field::FreshPort && source.mask == 0 {
            return Some(format!("{name} any"));
        }
        if field.width() < 128 {
            return Some(format!("{name} {}", source.value));
        }
        let v4 = source.mask << 32 == 0 || (!v6 && source.value << 32 == 0);
        Some(match v4 {
            true => format!("{name} {}", std::net::Ipv4Addr::from_bits((source.value >> 96) as u32)),
            false => format!("{name} {}", std::net::Ipv6Addr::from_bits(source.value)),
        })
    };
    [
        text("source", Field::Src, ends.src),
        text("source port", Field::Sport, ends.sport),
        text("destination", Field::Dst, ends.dst),
        text("destination port", Field::Dport, ends.dport),
    ]
    .into_iter()
    .flatten()
    .collect()
}

fn tell(
    asker: &mut Asker,
    space: &Space,
    headers: Ref,
    from: &End,
    gathered: Gathered,
    reach: &mut Reach,
) -> Result<(), Error> {
    let from = from.to_string();
    let (unclaimed, unknown) = gathered.unclaimed;
    // What may end otherwise is not certain.
    let mut otherwise = unclaimed;
    for set in gathered.ending.values().chain(gathered.astray.values()) {
        otherwise = asker.engine.store().or_else(otherwise, *set)?;
    }
    let places: Vec<(Place, (Ref, Vec<String>))> = gathered.arriving.into_iter().collect();
    for (index, ((at, changed), (set, reasons))) in places.iter().enumerate() {
        let store = asker.engine.store();
        let mut certain = store.without(*set, otherwise)?;
        for (other, (_, (elsewhere, _))) in places.iter().enumerate() {
            if other != index {
                certain = store.without(certain, *elsewhere)?;
            }
        }
        let possible = store.without(*set, certain)?;
        let mut reasons = reasons.clone();
        if possible.is_none() {
            reasons.clear();
        }
        reach.arrivals.push(Arrival {
            from: from.clone(),
            at: at.clone(),
            changed: changed.clone(),
            certain: told(asker, space, headers, certain)?,
            possible: told(asker, space, headers, possible)?,
            reasons,
        });
    }
    if !unclaimed.is_none() {
        reach.arrivals.push(Arrival {
            from: from.clone(),
            at: "not known".into(),
            changed: Vec::new(),
            certain: told(asker, space, headers, Ref::NONE)?,
            possible: told(asker, space, headers, unclaimed)?,
            reasons: unknown,
        });
    }
    for ((at, on_the_way_back), set) in gathered.astray {
        let packets = told(asker, space, headers, set)?;
        reach.astray.push(Astray { from: from.clone(), at, on_the_way_back, packets });
    }
    for ((by, rejected, on_the_way_back, looped), set) in gathered.ending {
        reach.refusals.push(Refusal {
            from: from.clone(),
            by,
            rejected,
            on_the_way_back,
            looped,
            packets: told(asker, space, headers, set)?,
        });
    }
    Ok(())
}

fn told(asker: &mut Asker, space: &Space, headers: Ref, set: Ref) -> Result<Told, Error> {
    Told::of(space, asker.engine.store(), headers, set)
}

impl Told {
    /// A set of a store, told among the packets asked about.
    pub(super) fn of(space: &Space, store: &Store, headers: Ref, set: Ref) -> Result<Told, Error> {
        let within = space.adopt(store, headers)?;
        let set = space.adopt(store, set)?;
        // As an example a packet from a port that clients use, if there is one.
        let usual = set.intersection(&space.field(Field::Sport, 40_000, 40_000)?)?.example();
        let (lines, whole) = set.cover_within(&within, LINES)?;
        Ok(Told {
            lines: lines.iter().map(ToString::to_string).collect(),
            whole,
            count: set.count().to_string(),
            example: usual.or_else(|| set.example()),
            set,
        })
    }
}
