//! What a change of a lab does to packets on their whole way: which flows
//! between hosts it opens, cuts, or leads elsewhere, and by whose change.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;

use super::edits::edits;
use crate::engine::symbolic::{Ending, Flowed};
use crate::model::{Decision, Host, Interface, Lab, Place};
use crate::query::ends::End;
use crate::query::flows::{Asker, Headers, Home};
use crate::query::reach::{changes, place, Told};
use crate::query::Error;
use crate::space::{Ref, Space, Store};

/// Whether what arrives is answered, and the answer comes back.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Answered {
    /// It does.
    Yes,
    /// It does not; by what.
    No(Option<Decision>),
    /// Nobody can tell: who would answer is outside of the lab.
    Unknown,
}

/// What becomes of packets.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Fate {
    /// They arrive.
    Arrives {
        /// At a host, or `host:interface` where they leave the lab.
        at: String,
        /// What became of their header.
        changed: Vec<String>,
        /// Whether an answer comes back.
        answered: Answered,
    },
    /// They are refused, and whoever sent them may be told.
    Rejected(Decision),
    /// They vanish.
    Dropped(Decision),
    /// They are not sent: the sender is not there, or sends as somebody else.
    NotSent,
    /// Nothing is claimed of them: it depends on what is not modelled.
    Unknown(Vec<String>),
}

/// A fate without who decides about it: packets with the same are treated
/// alike.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Treatment {
    Arrives(String, Vec<String>, bool),
    Rejected,
    Dropped,
    NotSent,
    Unknown,
}

impl Fate {
    /// Whether packets arrive and, as far as that can be told, are answered.
    pub fn passes(&self) -> bool {
        matches!(self, Fate::Arrives { answered: Answered::Yes | Answered::Unknown, .. })
    }

    /// Without what becomes of headers.
    fn roughly(&self) -> Fate {
        match self {
            Fate::Arrives { at, answered, .. } => {
                Fate::Arrives { at: at.clone(), changed: Vec::new(), answered: answered.clone() }
            }
            other => other.clone(),
        }
    }

    fn treatment(&self) -> Treatment {
        match self {
            Fate::Arrives { at, changed, .. } => {
                Treatment::Arrives(at.clone(), changed.clone(), self.passes())
            }
            Fate::Rejected(_) => Treatment::Rejected,
            Fate::Dropped(_) => Treatment::Dropped,
            Fate::NotSent => Treatment::NotSent,
            Fate::Unknown(_) => Treatment::Unknown,
        }
    }

    /// Who decides, if anybody does.
    pub fn by(&self) -> Option<&Decision> {
        match self {
            Fate::Rejected(by) | Fate::Dropped(by) => Some(by),
            Fate::Arrives { answered: Answered::No(by), .. } => by.as_ref(),
            Fate::Arrives { .. } | Fate::NotSent | Fate::Unknown(_) => None,
        }
    }
}

/// What is gathered of packets that fare alike but for their headers.
type Key = (Effect, Fate, Fate, bool, Vec<String>, bool);

#[derive(Default)]
struct Gathered {
    set: Ref,
    old: HeaderChanges,
    new: HeaderChanges,
}

/// What becomes of the headers of several parts.
#[derive(Default)]
struct HeaderChanges(Vec<Vec<String>>);

impl HeaderChanges {
    fn note(&mut self, fate: &Fate) {
        if let Fate::Arrives { changed, .. } = fate {
            if !self.0.contains(changed) {
                self.0.push(changed.clone());
            }
        }
    }

    /// The fate with what becomes of the headers: of all, or of some.
    fn told(&self, fate: Fate) -> Fate {
        let Fate::Arrives { at, answered, .. } = fate else { return fate };
        let mut changed: Vec<String> = Vec::new();
        for one in self.0.iter().flatten() {
            let all = self.0.iter().all(|list| list.contains(one));
            let told = if all { one.clone() } else { format!("{one} (of some)") };
            if !changed.contains(&told) {
                changed.push(told);
            }
        }
        Fate::Arrives { at, changed, answered }
    }
}

/// What a change does to some packets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Effect {
    /// They passed not, and do now.
    Gained,
    /// They passed, and do no more.
    Lost,
    /// They pass elsewhere or otherwise, or fail otherwise.
    Changed,
    /// Nothing is claimed of them in one of the labs.
    Unknown,
}

/// Packets from one sender to which a change does the same.
#[derive(Clone, Debug, Serialize)]
pub struct FlowChange {
    /// Who sends them.
    pub from: String,
    /// What the change does.
    pub effect: Effect,
    /// What became of them.
    pub old: Fate,
    /// What becomes of them.
    pub new: Fate,
    /// Whether that is certain for all of them; else it may be so.
    pub certain: bool,
    /// The hosts whose change does it: each alone, if `each_alone`, or all
    /// together.
    pub hosts: Vec<String>,
    /// Whether the change of any of these hosts would do it by itself.
    pub each_alone: bool,
    /// The packets.
    pub packets: Told,
}

/// What a change does to the flows of a lab.
#[derive(Clone, Debug, Serialize)]
pub struct FlowDiff {
    /// The form of this value: `lab.flows/1`.
    pub schema: &'static str,
    /// Whether only the first packets of connections were asked about.
    pub new: bool,
    /// The hosts that differ.
    pub hosts: Vec<String>,
    /// What is done to which packets.
    pub changes: Vec<FlowChange>,
}

impl FlowDiff {
    /// Whether no packet is treated differently.
    pub fn is_empty(&self) -> bool {
        self.changes.is_empty()
    }

    /// The changes of a kind.
    pub fn of(&self, effect: Effect) -> impl Iterator<Item = &FlowChange> {
        self.changes.iter().filter(move |c| c.effect == effect)
    }
}

/// Hears of packets of one fate, as a set of the engine's store.
pub(in crate::query) type Tell<'t> = &'t mut dyn FnMut(&mut Store, Fate, Ref) -> Result<(), Error>;

/// Who sends packets whose fates are compared.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::query) enum Sender {
    /// An end of a question.
    End(End),
    /// Whoever is beyond one interface that leads out of the lab.
    Door(Place),
}

impl std::fmt::Display for Sender {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Sender::End(end) => end.fmt(f),
            Sender::Door(place) => write!(f, "{} by {place}", End::Outside),
        }
    }
}

/// What becomes of the packets of one sender.
pub(in crate::query) struct Fates {
    pub known: BTreeMap<Fate, Ref>,
}

/// Answers what becomes of packets from one lab.
pub(in crate::query) struct Side<'a> {
    pub asker: Asker<'a>,
    pub headers: Ref,
    /// Whether hosts send from any of their addresses, and not only from those
    /// that their routes choose.
    pub bound: bool,
}

impl<'a> Side<'a> {
    pub fn new(lab: &'a Lab, headers: &Headers, groups: &Lab) -> Result<Self, Error> {
        let mut asker = Asker::new(lab);
        let headers = asker.headers_beside(headers, groups)?;
        Ok(Side { asker, headers, bound: false })
    }

    /// What becomes of the packets that one end sends, in a store shared with
    /// others.
    pub fn fates(&mut self, from: &Sender, shared: &mut Store) -> Result<Fates, Error> {
        let mut known = BTreeMap::new();
        self.each(from, &mut |store, fate, set| {
            let set = shared.import(store, set)?;
            let all = known.entry(fate).or_insert(Ref::NONE);
            *all = shared.or_else(*all, set)?;
            Ok(())
        })?;
        let mut rest = shared.import(self.asker.engine.store(), self.headers)?;
        for set in known.values() {
            rest = shared.without(rest, *set)?;
        }
        if !rest.is_none() {
            known.insert(Fate::NotSent, rest);
        }
        Ok(Fates { known })
    }

    /// Tells of each part of the packets that one end sends what becomes of it.
    pub fn each(&mut self, from: &Sender, tell: Tell) -> Result<(), Error> {
        let flows = match from {
            Sender::End(End::Host(name)) if !self.asker.lab.hosts.contains_key(name) => Vec::new(),
            Sender::End(End::Host(name)) if self.bound => self.asker.send_bound(name, self.headers)?,
            Sender::End(end @ End::Host(_)) => self.asker.send(end, self.headers)?,
            Sender::End(_) if self.asker.doors().next().is_none() => Vec::new(),
            Sender::End(end) => self.asker.send(end, self.headers)?,
            Sender::Door(door) => self.asker.send_by(door, self.headers)?,
        };
        let end = match from {
            Sender::End(end) => end,
            Sender::Door(_) => &End::Outside,
        };
        for flowed in &flows {
            let set = flowed.flow.set;
            let fate = match &flowed.ending {
                _ if !flowed.flow.unknown.is_empty() => Fate::Unknown(flowed.flow.unknown.clone()),
                Ending::Rejected(by) => Fate::Rejected(by.clone()),
                Ending::Dropped(by) => Fate::Dropped(by.clone()),
                Ending::Delivered(_) | Ending::ForwardedOut(_) => {
                    for (answered, set) in self.answered(flowed, end)? {
                        let (at, changed) = (place(flowed), changes(flowed));
                        tell(self.asker.engine.store(), Fate::Arrives { at, changed, answered }, set)?;
                    }
                    continue;
                }
            };
            tell(self.asker.engine.store(), fate, set)?;
        }
        Ok(())
    }

    /// The parts of packets that arrived, by whether the answer comes back.
    fn answered(&mut self, flowed: &Flowed, from: &End) -> Result<Vec<(Answered, Ref)>, Error> {
        let all = flowed.flow.set;
        let (Some(replies), Some(home)) = (self.asker.replies(flowed)?, Home::of(flowed, from)) else {
            return Ok(vec![(Answered::Unknown, all)]);
        };
        let mut parts = Vec::new();
        for reply in &replies {
            let set = self.asker.engine.store().guard(all, reply.flow.set)?;
            let answered = match &reply.ending {
                _ if !reply.flow.unknown.is_empty() => Answered::Unknown,
                _ if Asker::is_home(reply, &home) => Answered::Yes,
                Ending::Rejected(by) | Ending::Dropped(by) => Answered::No(Some(by.clone())),
                Ending::Delivered(_) | Ending::ForwardedOut(_) => Answered::No(None),
            };
            parts.push((answered, set));
        }
        Ok(parts)
    }
}

impl Fates {
    /// The packets by how they are treated, whoever decides.
    fn treatments(&self, store: &mut Store) -> Result<Treated, Error> {
        let mut all = BTreeMap::new();
        for (fate, set) in &self.known {
            let known = all.entry(fate.treatment()).or_insert(Ref::NONE);
            *known = store.or_else(*known, *set)?;
        }
        Ok(all)
    }

    /// Of the packets of one fate those that have no other.
    fn must(&self, fate: &Fate, store: &mut Store) -> Result<Ref, Error> {
        if matches!(fate, Fate::Unknown(_)) {
            return Ok(Ref::NONE);
        }
        let mut set = self.known.get(fate).copied().unwrap_or_default();
        for (other, theirs) in &self.known {
            if other != fate {
                set = store.without(set, *theirs)?;
            }
        }
        Ok(set)
    }
}

/// The packets whose possible treatments differ.
fn differing(a: &Fates, b: &Fates, store: &mut Store) -> Result<Ref, Error> {
    let (a, b) = (a.treatments(store)?, b.treatments(store)?);
    let kinds: BTreeSet<&Treatment> = a.keys().chain(b.keys()).collect();
    let mut all = Ref::NONE;
    for kind in kinds {
        let old = a.get(kind).copied().unwrap_or_default();
        let new = b.get(kind).copied().unwrap_or_default();
        let gone = store.without(old, new)?;
        let come = store.without(new, old)?;
        all = store.first_of(&[all, gone, come])?;
    }
    Ok(all)
}

/// Whether packets are not sent in one lab, and come to nothing in the other.
fn nobody_cares(old: &Fate, new: &Fate) -> bool {
    let lost = |fate: &Fate| matches!(fate, Fate::Rejected(_) | Fate::Dropped(_));
    (*old == Fate::NotSent && lost(new)) || (lost(old) && *new == Fate::NotSent)
}

fn effect(old: &Fate, new: &Fate) -> Effect {
    match (old, new) {
        (Fate::Unknown(_), _) | (_, Fate::Unknown(_)) => Effect::Unknown,
        _ if !old.passes() && new.passes() => Effect::Gained,
        _ if old.passes() && !new.passes() => Effect::Lost,
        _ => Effect::Changed,
    }
}

/// Compares what becomes of packets in two labs: each host of either sends,
/// and so does whoever is outside.
///
/// Cost: a run of the engine for each sender in each lab; and twice that for
/// each host that differs, for the senders whose flows do, if several hosts
/// differ.
///
/// # Errors
/// Packet sets that outgrow their budget.
///
/// ```
/// use lab_core::query::diff::flows::flows;
/// use lab_core::query::flows::Headers;
/// use lab_core::Lab;
/// let same = flows(&Lab::default(), &Lab::default(), &Headers::default())?;
/// assert!(same.is_empty());
/// # Ok::<(), lab_core::query::Error>(())
/// ```
pub fn flows(old: &Lab, new: &Lab, headers: &Headers) -> Result<FlowDiff, Error> {
    let hosts = differing_hosts(old, new)?;
    let mut diff =
        FlowDiff { schema: "lab.flows/1", new: !headers.any, hosts: hosts.clone(), changes: Vec::new() };
    if old == new {
        return Ok(diff);
    }
    let (mut before, mut after) = (Side::new(old, headers, new)?, Side::new(new, headers, old)?);
    let blame = Blame::new(old, new, &hosts);
    let space = Space::default();
    let mut store = Store::default();
    let asked = store.import(before.asker.engine.store(), before.headers)?;
    let mut sides = blame.sides(headers)?;
    for from in senders(old, new) {
        let a = before.fates(&from, &mut store)?;
        let b = after.fates(&from, &mut store)?;
        let differing = differing(&a, &b, &mut store)?;
        if differing.is_none() {
            continue;
        }
        let mut blamed = Blamed::of(&mut sides, &from, &mut store)?;
        let mut gathered: BTreeMap<Key, Gathered> = BTreeMap::new();
        for (old, in_old) in &a.known {
            let in_old = store.guard(differing, *in_old)?;
            if in_old.is_none() {
                continue;
            }
            let must_old = a.must(old, &mut store)?;
            for (new, in_new) in &b.known {
                let may = store.guard(in_old, *in_new)?;
                if may.is_none() || old.treatment() == new.treatment() || nobody_cares(old, new) {
                    continue;
                }
                let must_new = b.must(new, &mut store)?;
                let must = store.guard(must_old, must_new)?;
                let must = store.guard(may, must)?;
                let open = store.without(may, must)?;
                for (set, certain) in [(must, true), (open, false)] {
                    if set.is_none() {
                        continue;
                    }
                    let (hosts, each_alone) = blamed.of_set(set, &new.treatment(), &hosts, &mut store)?;
                    let key = (effect(old, new), old.roughly(), new.roughly(), certain, hosts, each_alone);
                    let one = gathered.entry(key).or_default();
                    one.set = store.or_else(one.set, set)?;
                    one.old.note(old);
                    one.new.note(new);
                }
            }
        }
        for ((effect, old, new, certain, hosts, each_alone), one) in gathered {
            diff.changes.push(FlowChange {
                from: from.to_string(),
                effect,
                old: one.old.told(old),
                new: one.new.told(new),
                certain,
                hosts,
                each_alone,
                packets: Told::of(&space, &store, asked, one.set)?,
            });
        }
    }
    diff.changes
        .sort_by(|a, b| (a.effect, &a.from, &a.old, &a.new).cmp(&(b.effect, &b.from, &b.old, &b.new)));
    Ok(diff)
}

/// Who sends in either lab. Each interface that leads out is one by itself: a
/// change may let by one what it keeps from another.
pub(in crate::query) fn senders(old: &Lab, new: &Lab) -> Vec<Sender> {
    let names: BTreeSet<&String> = old.hosts.keys().chain(new.hosts.keys()).collect();
    let mut doors: BTreeSet<Place> = BTreeSet::new();
    for lab in [old, new] {
        let place = |(host, device): (&Host, &Interface)| Place {
            host: host.name.clone(),
            iface: device.name.clone(),
        };
        doors.extend(Asker::new(lab).doors().map(place));
    }
    let hosts = names.into_iter().map(|name| Sender::End(End::Host(name.clone())));
    hosts.chain(doors.into_iter().map(Sender::Door)).collect()
}

/// The hosts that differ in what packets may meet.
fn differing_hosts(old: &Lab, new: &Lab) -> Result<Vec<String>, Error> {
    let mut names: BTreeSet<String> = edits(old, new)?.hosts.into_iter().map(|h| h.host).collect();
    let lone = |a: &Lab, b: &Lab| -> Vec<String> {
        a.hosts.keys().filter(|name| !b.hosts.contains_key(*name)).cloned().collect()
    };
    names.extend(lone(old, new));
    names.extend(lone(new, old));
    Ok(names.into_iter().collect())
}

/// Labs with the change of some hosts alone, to find whose change does what.
struct Blame {
    /// For each host the old lab with its change, and the new one without.
    labs: Vec<(String, Lab, Lab)>,
}

/// The packets by how they are treated.
type Treated = BTreeMap<Treatment, Ref>;

/// What these labs make of the packets of one sender.
struct Blamed {
    known: Vec<(String, Treated, Treated)>,
}

type Sides<'b> = Vec<(String, Side<'b>, Side<'b>)>;

impl Blame {
    fn new(old: &Lab, new: &Lab, hosts: &[String]) -> Self {
        let swap = |to: &Lab, from: &Lab, name: &String| {
            let mut lab = to.clone();
            match from.hosts.get(name) {
                Some(host) => lab.hosts.insert(name.clone(), host.clone()),
                None => lab.hosts.remove(name),
            };
            lab
        };
        // Of one host there is no question.
        let several = if hosts.len() > 1 { hosts } else { &[] };
        let one = |name: &String| (name.clone(), swap(old, new, name), swap(new, old, name));
        Blame { labs: several.iter().map(one).collect() }
    }

    fn sides(&self, headers: &Headers) -> Result<Sides<'_>, Error> {
        self.labs
            .iter()
            .map(|(name, alone, without)| {
                Ok((name.clone(), Side::new(alone, headers, without)?, Side::new(without, headers, alone)?))
            })
            .collect()
    }
}

impl Blamed {
    fn of(sides: &mut Sides, from: &Sender, store: &mut Store) -> Result<Self, Error> {
        let mut known = Vec::new();
        for (name, alone, without) in sides {
            let alone = alone.fates(from, store)?.treatments(store)?;
            let without = without.fates(from, store)?.treatments(store)?;
            known.push((name.clone(), alone, without));
        }
        Ok(Blamed { known })
    }

    /// The hosts whose change alone treats all of a set so; else those without
    /// whose change some of it is not.
    fn of_set(
        &mut self,
        set: Ref,
        treatment: &Treatment,
        hosts: &[String],
        store: &mut Store,
    ) -> Result<(Vec<String>, bool), Error> {
        if self.known.is_empty() {
            return Ok((hosts.to_vec(), true));
        }
        let mut alone = Vec::new();
        let mut needed = Vec::new();
        for (name, with, without) in &self.known {
            let treated = |map: &Treated| map.get(treatment).copied().unwrap_or_default();
            if store.without(set, treated(with))?.is_none() {
                alone.push(name.clone());
            }
            if !store.without(set, treated(without))?.is_none() {
                needed.push(name.clone());
            }
        }
        Ok(match (alone.is_empty(), needed.is_empty()) {
            (false, _) => (alone, true),
            (true, false) => (needed, false),
            (true, true) => (hosts.to_vec(), false),
        })
    }
}
