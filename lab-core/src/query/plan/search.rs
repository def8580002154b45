//! Looking for an order of units in which every state keeps the promise.

use std::collections::{HashMap, HashSet};

use num_bigint::BigUint;

use super::promise::{Broken, Promise};
use super::units::{apply, bit, moves, Done, Unit};
use crate::model::Lab;
use crate::query::policy::{self, Policy};
use crate::query::Error;

/// Units in order, those of one step together.
pub(super) type Order = Vec<Vec<usize>>;

/// What is known of a state.
#[derive(Clone, Debug)]
pub(super) enum State {
    /// It keeps the promise.
    Good,
    /// It breaks it, but nothing that must be kept.
    Hurts(Broken, BigUint),
    /// It cuts what must be kept, or no kernel takes it.
    Bad,
}

/// A search among the orders of units.
pub(super) struct Search<'a> {
    pub units: &'a [Unit],
    pub promise: &'a mut Promise,
    /// What must hold in every state.
    pub keep: &'a Policy,
    pub new: &'a Lab,
    pub states: HashMap<Done, State>,
    /// States that hurt and are gone through all the same.
    pub allowed: Vec<Done>,
    /// So many states may yet be looked at.
    pub left: usize,
}

impl Search<'_> {
    fn all(&self) -> Done {
        match self.units.len() {
            n if n >= 128 => Done::MAX,
            n => (1 << n) - 1,
        }
    }

    /// What is known of the state after these units.
    fn state(&mut self, done: Done, lab: &Lab) -> Result<State, Error> {
        if let Some(known) = self.states.get(&done) {
            return Ok(known.clone());
        }
        if self.left == 0 {
            return Ok(State::Bad);
        }
        self.left -= 1;
        let kept = self.keep.keep.is_empty() || policy::check(lab, self.keep)?.holds();
        let broken = self.promise.broken(lab, self.new)?;
        let state = match (kept, broken.is_empty()) {
            (false, _) => State::Bad,
            (true, true) => State::Good,
            (true, false) => {
                let measure = self.promise.measure(&broken);
                State::Hurts(broken, measure)
            }
        };
        self.states.insert(done, state.clone());
        Ok(state)
    }

    /// An order from a state on, if there is one; `dead` holds states from
    /// which there is none.
    pub fn from(&mut self, done: Done, lab: &Lab, dead: &mut HashSet<Done>) -> Result<Option<Order>, Error> {
        if done == self.all() {
            return Ok(Some(Vec::new()));
        }
        for which in moves(self.units, done) {
            let next = which.iter().fold(done, |set, unit| set | bit(*unit));
            if dead.contains(&next) {
                continue;
            }
            // What a kernel refuses here may be taken later.
            let Ok((after, _)) = apply(self.units, &which, lab, done) else { continue };
            let passable = match self.state(next, &after)? {
                State::Good => true,
                State::Hurts(..) => self.allowed.contains(&next),
                State::Bad => false,
            };
            if passable {
                if let Some(mut rest) = self.from(next, &after, dead)? {
                    rest.insert(0, which);
                    return Ok(Some(rest));
                }
            }
            dead.insert(next);
        }
        Ok(None)
    }

    /// An order in which some steps hurt, as little as can be found, where
    /// there is none without.
    pub fn with_hurt(&mut self, start: &Lab) -> Result<Option<Order>, Error> {
        loop {
            if let Some(order) = self.from(0, start, &mut HashSet::new())? {
                return Ok(Some(order));
            }
            // Of the states that were reached and hurt, the least.
            let least = self
                .states
                .iter()
                .filter(|(done, _)| !self.allowed.contains(done))
                .filter_map(|(done, state)| match state {
                    State::Hurts(_, measure) => Some((measure, *done)),
                    State::Good | State::Bad => None,
                })
                .min();
            match least {
                Some((_, done)) => self.allowed.push(done),
                None => return Ok(None),
            }
        }
    }
}
