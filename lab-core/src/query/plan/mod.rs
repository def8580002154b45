//! From one lab to another, step by step, so that nobody is hurt on the way.

mod promise;
mod search;
mod units;

use std::collections::{HashMap, HashSet};

use serde::Serialize;

pub use promise::Hurt;

use super::diff::edits::{edits, HostEdits};
use super::ends;
use super::flows::Headers;
use super::policy::{self, Judged, Met, Policy};
use super::what_if::{what_if, HostChange};
use super::Error;
use crate::formats::command;
use crate::model::{Host, Lab};
use promise::Promise;
use search::{Search, State};
use units::{units, Grain, Unit};

/// One step of a plan, on one host.
#[derive(Clone, Debug, Serialize)]
pub struct Step {
    /// The host.
    pub host: String,
    /// What is done: one change, or those of one table at once.
    pub changes: Vec<HostChange>,
    /// The commands that do it, for a POSIX shell that root runs.
    pub commands: Vec<String>,
    /// What takes it back, in this order.
    pub undo: Vec<String>,
    /// Of several changes of one table, which one transaction makes: the edits
    /// and the host before them, there and back.
    #[serde(skip)]
    pub at_once: Option<AtOnce>,
    /// What it admits or cuts that it should not, until later steps mend it.
    pub hurts: Vec<Hurt>,
}

/// Edits of one table and the host before them: there, and back.
pub type AtOnce = Box<[(Host, HostEdits); 2]>;

/// Why there is no plan.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Refusal {
    /// What must be kept does not hold at the start.
    NotBefore(Vec<Judged>),
    /// What must be kept does not hold at the end.
    NotAfter(Vec<Judged>),
    /// Every order cuts what must be kept at some step.
    CutOnTheWay,
    /// So many states were looked at, and no order was found; there may be one.
    GivenUp(usize),
}

/// A plan.
#[derive(Clone, Debug, Serialize)]
pub struct Plan {
    /// The form of this value: `lab.plan/1`.
    pub schema: &'static str,
    /// The steps, in order; none if there is nothing to do, or no plan.
    pub steps: Vec<Step>,
    /// Why there is none.
    pub refused: Option<Refusal>,
    /// Whether every state on the way keeps the promise: it admits no packet
    /// that passes neither before nor after, and cuts none that passes in both.
    pub keeps: bool,
    /// How many flows that the user wants kept hold in every state.
    pub kept: usize,
    /// How many states were looked at.
    pub states: usize,
    /// What differs and that no command does: it is not part of the plan.
    pub unsaid: Vec<String>,
}

/// So many states are looked at before a plan is given up.
pub const STATES: usize = 20_000;

/// Plans the way from one lab to another: an order of steps in which no state
/// between admits a packet that passes neither before nor after, nor cuts one that
/// passes in both; the flows of `keep` hold in every state, or the
/// plan is refused. Tables are changed at once where that will do, else rule by
/// rule. Where there is no such order, the steps that hurt say what they hurt.
///
/// Of packets, those that open connections are asked about: what is open
/// already is let through by most rules, and lost by a route that goes.
///
/// Cost: a run of the engine over all senders for each state that is looked
/// at: as many as there are steps, if the first order will do.
///
/// # Errors
/// A lab whose rules or ends do not fit; packet sets that outgrow their budget.
///
/// ```
/// use lab_core::query::plan::plan;
/// use lab_core::query::policy::Policy;
/// use lab_core::Lab;
/// let nothing = plan(&Lab::default(), &Lab::default(), &Policy::default())?;
/// assert!(nothing.steps.is_empty() && nothing.keeps);
/// # Ok::<(), lab_core::query::Error>(())
/// ```
pub fn plan(old: &Lab, new: &Lab, keep: &Policy) -> Result<Plan, Error> {
    let edits = edits(old, new)?;
    let mut unsaid = edits.unsaid.clone();
    for host in &edits.hosts {
        unsaid.extend(host.unsaid.iter().map(|what| format!("{}: {what}", host.host)));
    }
    let mut plan = Plan {
        schema: "lab.plan/1",
        steps: Vec::new(),
        refused: None,
        keeps: true,
        kept: 0,
        states: 0,
        unsaid,
    };
    // What commands bring about: the new lab, but for what they cannot say.
    let target = what_if(old, &edits.changes())?;
    let keep = Policy { keep: keep.keep.clone(), ..Policy::default() };
    if !keep.keep.is_empty() {
        for (lab, at_start) in [(old, true), (&target, false)] {
            let judged = policy::check(lab, &keep)?;
            plan.kept = judged.demands.len();
            let broken: Vec<Judged> = judged.demands.into_iter().filter(|d| d.met != Met::Yes).collect();
            if !broken.is_empty() {
                plan.refused =
                    Some(if at_start { Refusal::NotBefore(broken) } else { Refusal::NotAfter(broken) });
                plan.keeps = false;
                return Ok(plan);
            }
        }
    }
    if edits.hosts.iter().all(|h| h.changes.is_empty()) {
        return Ok(plan);
    }
    let mut promise = Promise::new(old, &target, Headers::default())?;
    for grain in [Grain::Tables, Grain::Rules] {
        let units = units(&edits, grain)?;
        let mut search = searching(&units, &mut promise, &keep, &target, STATES);
        let order = search.from(0, old, &mut HashSet::new())?;
        plan.states += STATES - search.left;
        if let Some(order) = order {
            let states = std::mem::take(&mut search.states);
            plan.steps = steps(old, &units, &order, &states, &promise)?;
            return Ok(plan);
        }
        if grain == Grain::Rules {
            let order = search.with_hurt(old)?;
            plan.states += STATES - search.left;
            plan.keeps = false;
            let (left, states) = (search.left, std::mem::take(&mut search.states));
            match order {
                Some(order) => plan.steps = steps(old, &units, &order, &states, &promise)?,
                None if left == 0 => plan.refused = Some(Refusal::GivenUp(STATES)),
                None => plan.refused = Some(Refusal::CutOnTheWay),
            }
        }
    }
    Ok(plan)
}

fn searching<'a>(
    units: &'a [Unit],
    promise: &'a mut Promise,
    keep: &'a Policy,
    new: &'a Lab,
    left: usize,
) -> Search<'a> {
    Search { units, promise, keep, new, states: HashMap::new(), allowed: Vec::new(), left }
}

/// The steps of an order.
fn steps(
    old: &Lab,
    units: &[Unit],
    order: &[Vec<usize>],
    states: &HashMap<units::Done, State>,
    promise: &Promise,
) -> Result<Vec<Step>, Error> {
    let mut lab = old.clone();
    let mut done = 0;
    let mut steps = Vec::new();
    for which in order {
        let Some(one) = which.first().and_then(|unit| units.get(*unit)) else { continue };
        let (after, changes) = units::apply(units, which, &lab, done)?;
        done = which.iter().fold(done, |set, unit| set | units::bit(*unit));
        let hurts = match states.get(&done) {
            Some(State::Hurts(broken, _)) => promise.told(broken)?,
            _ => Vec::new(),
        };
        let back = units::undo(&lab, &changes)?;
        steps.push(Step {
            host: one.host.clone(),
            commands: commands(&lab, &changes)?,
            undo: commands(&after, &back)?,
            at_once: at_once(&lab, &after, &changes)?,
            changes,
            hurts,
        });
        lab = after;
    }
    Ok(steps)
}

/// The edits of a table that are one step, there and back.
fn at_once(before: &Lab, after: &Lab, changes: &[HostChange]) -> Result<Option<AtOnce>, Error> {
    let Some(first) = changes.first().filter(|c| changes.len() > 1 && c.change.table().is_some()) else {
        return Ok(None);
    };
    let side = |from: &Lab, to: &Lab| -> Result<(Host, HostEdits), Error> {
        let host = ends::host(from, &first.host)?.clone();
        let found = edits(from, to)?.hosts.into_iter().find(|h| h.host == first.host);
        Ok((host, found.unwrap_or_default()))
    };
    Ok(Some(Box::new([side(before, after)?, side(after, before)?])))
}

/// Changes as commands, each for the host as those before it leave it.
fn commands(lab: &Lab, changes: &[HostChange]) -> Result<Vec<String>, Error> {
    let mut lab = lab.clone();
    let mut commands = Vec::new();
    let mut left = changes.iter().peekable();
    while let Some(one) = left.next() {
        let host = ends::host(&lab, &one.host)?;
        let unsaid = |e: command::Error| Error::Unfit(format!("{}: {e}", one.host));
        commands.push(command::print(host, &one.change).map_err(unsaid)?);
        lab = what_if(&lab, std::slice::from_ref(one))?;
        if let Some(next) = left.next_if(|next| units::takes_the_place(&next.change, &one.change)) {
            // Said of the host without the route that goes: `add`, not `append`.
            let add = command::print(ends::host(&lab, &next.host)?, &next.change).map_err(unsaid)?;
            commands.pop();
            commands.push(add.replacen(" add ", " replace ", 1));
            lab = what_if(&lab, std::slice::from_ref(next))?;
        }
    }
    Ok(commands)
}
