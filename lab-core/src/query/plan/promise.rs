//! What holds in every state between two labs: nothing passes that passes in
//! neither, and nothing is cut that passes in both.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;

use crate::model::Lab;
use crate::query::diff::flows::{senders, Fate, Sender, Side};
use crate::query::flows::Headers;
use crate::query::reach::Told;
use crate::query::Error;
use crate::space::{Ref, Space, Store};

/// What becomes of packets in a lab, by sender and where they arrive.
#[derive(Debug, Default)]
struct Picture {
    /// Those that may arrive.
    arrive: BTreeMap<(String, String), Ref>,
    /// Those that certainly do, and are answered as far as that can be told.
    pass: BTreeMap<(String, String), Ref>,
    /// Those of which nothing is claimed.
    unknown: BTreeMap<String, Ref>,
}

/// Packets that a state admits or cuts and should not.
#[derive(Clone, Debug, Serialize)]
pub struct Hurt {
    /// Who sends them.
    pub from: String,
    /// Where they arrive, or should.
    pub at: String,
    /// Whether they are cut; else they are admitted.
    pub cut: bool,
    /// The packets.
    pub packets: Told,
}

/// The promise of a plan from one lab to another.
pub(super) struct Promise {
    headers: Headers,
    store: Store,
    space: Space,
    senders: Vec<Sender>,
    old: Picture,
    new: Picture,
    asked: Ref,
}

/// A state that breaks the promise: how badly, and where.
pub(super) type Broken = Vec<(String, String, bool, Ref)>;

impl Promise {
    /// # Errors
    /// Packet sets that outgrow their budget.
    pub fn new(old: &Lab, new: &Lab, headers: Headers) -> Result<Self, Error> {
        let mut promise = Promise {
            headers,
            store: Store::default(),
            space: Space::default(),
            senders: senders(old, new),
            old: Picture::default(),
            new: Picture::default(),
            asked: Ref::NONE,
        };
        // Both are asked about the packets that either knows.
        promise.old = promise.picture(old, new)?;
        promise.new = promise.picture(new, old)?;
        Ok(promise)
    }

    fn picture(&mut self, lab: &Lab, other: &Lab) -> Result<Picture, Error> {
        let mut side = Side::new(lab, &self.headers, other)?;
        self.asked = self.store.import(side.asker.engine.store(), side.headers)?;
        let mut picture = Picture::default();
        for from in &self.senders {
            let fates = side.fates(from, &mut self.store)?;
            let name = from.to_string();
            let mut rest = Ref::NONE;
            for (fate, set) in &fates.known {
                match fate {
                    Fate::Arrives { at, .. } => {
                        let all = picture.arrive.entry((name.clone(), at.clone())).or_default();
                        *all = self.store.or_else(*all, *set)?;
                        if !fate.passes() {
                            rest = self.store.or_else(rest, *set)?;
                        }
                    }
                    Fate::Unknown(_) => {
                        let all = picture.unknown.entry(name.clone()).or_default();
                        *all = self.store.or_else(*all, *set)?;
                        rest = self.store.or_else(rest, *set)?;
                    }
                    Fate::Rejected(_) | Fate::Dropped(_) | Fate::NotSent => {
                        rest = self.store.or_else(rest, *set)?
                    }
                }
            }
            let places: Vec<(String, Ref)> = picture
                .arrive
                .iter()
                .filter(|((from, _), _)| *from == name)
                .map(|((_, at), set)| (at.clone(), *set))
                .collect();
            for (at, set) in &places {
                let mut sure = self.store.without(*set, rest)?;
                for (other, theirs) in &places {
                    if other != at {
                        sure = self.store.without(sure, *theirs)?;
                    }
                }
                picture.pass.insert((name.clone(), at.clone()), sure);
            }
        }
        Ok(picture)
    }

    /// What a state admits that passes in neither lab, and cuts that passes in
    /// both; nothing: it keeps the promise.
    ///
    /// # Errors
    /// Packet sets that outgrow their budget.
    pub fn broken(&mut self, lab: &Lab, ends: &Lab) -> Result<Broken, Error> {
        let state = self.picture(lab, ends)?;
        let mut broken = Broken::new();
        let of = |map: &BTreeMap<(String, String), Ref>, key: &(String, String)| {
            map.get(key).copied().unwrap_or_default()
        };
        for (key, may) in &state.arrive {
            let mut extra = *may;
            for known in [&self.old, &self.new] {
                extra = self.store.without(extra, of(&known.arrive, key))?;
                extra = self.store.without(extra, known.unknown.get(&key.0).copied().unwrap_or_default())?;
            }
            if !extra.is_none() {
                broken.push((key.0.clone(), key.1.clone(), false, extra));
            }
        }
        for (from, set) in &state.unknown {
            let mut extra = *set;
            for known in [&self.old, &self.new] {
                extra = self.store.without(extra, known.unknown.get(from).copied().unwrap_or_default())?;
            }
            if !extra.is_none() {
                broken.push((from.clone(), "not known".into(), false, extra));
            }
        }
        let keys: BTreeSet<_> = self.old.pass.keys().cloned().collect();
        for key in keys {
            let both = self.store.guard(of(&self.old.pass, &key), of(&self.new.pass, &key))?;
            let cut = self.store.without(both, of(&state.pass, &key))?;
            if !cut.is_none() {
                broken.push((key.0.clone(), key.1.clone(), true, cut));
            }
        }
        Ok(broken)
    }

    /// How much a state hurts, for comparison: headers admitted and cut.
    pub fn measure(&self, broken: &Broken) -> num_bigint::BigUint {
        broken.iter().map(|(.., set)| self.store.count(*set)).sum()
    }

    /// What a state hurts, for people.
    ///
    /// # Errors
    /// Packet sets that outgrow their budget.
    pub fn told(&self, broken: &Broken) -> Result<Vec<Hurt>, Error> {
        broken
            .iter()
            .map(|(from, at, cut, set)| {
                let packets = Told::of(&self.space, &self.store, self.asked, *set)?;
                Ok(Hurt { from: from.clone(), at: at.clone(), cut: *cut, packets })
            })
            .collect()
    }
}
