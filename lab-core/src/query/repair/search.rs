//! The search for whole repairs: change one thing, ask again, until all is as
//! wanted or nothing is left to try.

use std::collections::VecDeque;

use super::ask::Goal;
use super::blocked::{blocked, Blocked};
use super::candidates::candidates;
use super::fix::apply;
use crate::model::{Change, Lab};
use crate::query::flows::{Asker, Headers};
use crate::query::what_if::HostChange;
use crate::query::Error;
use crate::space::{PacketSet, Space};

/// At most this many changed labs are asked about.
const LABS: usize = 96;

/// At most this many whole repairs are looked for.
const PLANS: usize = 8;

/// At most this many blockers are removed one after the other.
const DEPTH: usize = 16;

/// How often a repair may leave what seemed best at a blocker.
const DETOURS: usize = 2;

/// A search among changes of a lab.
pub(super) struct Search<'a> {
    pub goals: &'a [Goal],
    /// First packets of connections: what sets are told among.
    pub first: PacketSet,
    pub space: Space,
    lab: &'a Lab,
    asked: usize,
}

/// A repair that is whole: with it every goal is met.
#[derive(Clone, Debug)]
pub(super) struct Found {
    pub fixes: Vec<HostChange>,
    pub lab: Lab,
    /// What was in the way, in order.
    pub blockers: Vec<Blocked>,
}

/// What the search came to.
#[derive(Debug, Default)]
pub(super) struct Outcome {
    pub plans: Vec<Found>,
    /// Of the ways that ended before a wall, the one that got farthest: what
    /// was in the way, the wall last.
    pub walls: Vec<Blocked>,
    /// Whether there was more to try than was tried.
    pub cut: bool,
}

/// Some changes, and what they lead to.
struct State {
    fixes: Vec<HostChange>,
    lab: Lab,
    blockers: Vec<Blocked>,
    detours: usize,
}

impl<'a> Search<'a> {
    /// A search for what meets goals in a lab.
    pub fn new(lab: &'a Lab, goals: &'a [Goal]) -> Result<Self, Error> {
        let space = Space::default();
        let mut asker = Asker::new(lab);
        let headers = asker.headers(&Headers::default())?;
        let first = space.adopt(asker.engine.store(), headers)?;
        Ok(Search { goals, first, space, lab, asked: 0 })
    }

    /// The goal that blocked flows are of.
    pub fn goal(&self, blocked: &Blocked) -> &'a Goal {
        &self.goals[blocked.goal]
    }

    /// What is in the way of the goals in a lab.
    pub fn blocked(&mut self, lab: &Lab) -> Result<Vec<Blocked>, Error> {
        self.asked += 1;
        blocked(lab, self.goals, &self.space)
    }

    /// Searches for whole repairs.
    pub fn run(&mut self) -> Result<Outcome, Error> {
        let mut outcome = Outcome::default();
        let start = State { fixes: Vec::new(), lab: self.lab.clone(), blockers: Vec::new(), detours: 0 };
        let mut queue = VecDeque::from([start]);
        while let Some(state) = queue.pop_front() {
            if outcome.plans.len() == PLANS || self.asked >= LABS {
                outcome.cut = true;
                break;
            }
            self.follow(state, &mut queue, &mut outcome)?;
        }
        Ok(outcome)
    }

    /// Removes blocker after blocker, each by the best change that does; the
    /// others are kept for later.
    fn follow(
        &mut self,
        mut state: State,
        queue: &mut VecDeque<State>,
        outcome: &mut Outcome,
    ) -> Result<(), Error> {
        let mut now = self.blocked(&state.lab)?;
        if let Some(before) = state.blockers.last() {
            if still(before, &now)? {
                return Ok(());
            }
        }
        loop {
            let Some(next) = now.first().cloned() else {
                return self.found(state, outcome);
            };
            state.blockers.push(next.clone());
            if state.blockers.len() > DEPTH {
                outcome.cut = true;
                return Ok(());
            }
            let mut ways = candidates(self, &state.lab, &next)?.into_iter();
            let mut gone = None;
            for fixes in ways.by_ref() {
                let Some(lab) = apply(&state.lab, &fixes) else { continue };
                let after = self.blocked(&lab)?;
                if !still(&next, &after)? {
                    gone = Some((fixes, lab, after));
                    break;
                }
            }
            if state.detours < DETOURS {
                for fixes in ways {
                    let Some(lab) = apply(&state.lab, &fixes) else { continue };
                    let fixes = [state.fixes.clone(), fixes].concat();
                    queue.push_back(State {
                        fixes,
                        lab,
                        blockers: state.blockers.clone(),
                        detours: state.detours + 1,
                    });
                }
            }
            let Some((fixes, lab, after)) = gone else {
                if state.blockers.len() > outcome.walls.len() {
                    outcome.walls = state.blockers;
                }
                return Ok(());
            };
            state.fixes.extend(fixes);
            state.lab = lab;
            now = after;
        }
    }

    /// Keeps a whole repair, without what turned out not to be needed.
    fn found(&mut self, mut state: State, outcome: &mut Outcome) -> Result<(), Error> {
        let mut place = 0;
        while place < state.fixes.len() && state.fixes.len() > 1 {
            let mut fewer = state.fixes.clone();
            let gone = fewer.remove(place);
            // Places in a chain are counted with the rules put in before.
            let moves = |other: &HostChange| match (&gone.change, &other.change) {
                (
                    Change::InsertRule { table: a, chain: first, .. },
                    Change::InsertRule { table: b, chain: second, .. },
                ) => gone.host == other.host && (a, first) == (b, second),
                _ => false,
            };
            if !fewer[place..].iter().any(moves) {
                if let Some(lab) = apply(self.lab, &fewer) {
                    if self.blocked(&lab)?.is_empty() {
                        (state.fixes, state.lab) = (fewer, lab);
                        continue;
                    }
                }
            }
            place += 1;
        }
        // What does not depend on its order is one repair in any.
        let alike =
            |p: &Found| p.fixes.len() == state.fixes.len() && p.fixes.iter().all(|f| state.fixes.contains(f));
        if !outcome.plans.iter().any(alike) {
            outcome.plans.push(Found { fixes: state.fixes, lab: state.lab, blockers: state.blockers });
        }
        Ok(())
    }
}

/// Whether flows are still stopped as before.
fn still(before: &Blocked, now: &[Blocked]) -> Result<bool, Error> {
    for blocked in now {
        if before.same(blocked)? {
            return Ok(true);
        }
    }
    Ok(false)
}
