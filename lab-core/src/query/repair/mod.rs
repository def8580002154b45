//! What must be changed for flows to pass, or not to pass.
//!
//! A repair is found by asking: what stops the flows? Each change that may do
//! something about it is made in a copy of the lab ([`what_if`]), which is asked
//! again, until the flows pass both ways or nothing is left to try. So whatever
//! is listed is proved by the engine, and what else it would let through, or cut
//! off, is found by comparing all flows of all senders before and after.
//!
//! [`what_if`]: crate::query::what_if

mod admit;
mod ask;
mod blocked;
mod candidates;
mod fix;
mod gained;
mod gateways;
mod persist;
mod probe;
mod search;
#[cfg(test)]
mod tests;

use std::collections::BTreeSet;

use num_bigint::BigUint;
use serde::Serialize;

use self::ask::{contradictions, sending_host, Goal};
use self::blocked::Blocked;
use self::gained::{arrivals, asked, touched, Arrivals};
use self::search::{Found, Search};
use super::ends::{self, End};
use super::reach::Told;
use super::what_if::what_if;
use super::Error;
use crate::formats::command;
use crate::model::{Lab, Origin, Text};
use crate::query::diff::flows;

pub use self::ask::{Ask, Flow, Wish};
pub use self::blocked::{Cause, Way};
pub use self::gained::Difference;
pub use self::persist::{Keeping, Lasting};

/// One thing that keeps flows from what is wanted of them.
#[derive(Clone, Debug, Serialize)]
pub struct Blocker {
    /// What is wanted of them, in words.
    pub flows: String,
    /// Which way they go.
    pub way: Way,
    /// Where it happens.
    pub host: String,
    /// What does it.
    pub cause: Cause,
    /// The host that had sent them another way than nearer to where they go, if
    /// one had.
    pub wrong_turn: Option<String>,
    /// Whether they went round until their TTL ran out.
    pub looped: bool,
    /// The packets, as sent.
    pub packets: Told,
}

/// One change of one host.
#[derive(Clone, Debug, Serialize)]
pub struct Step {
    /// The host.
    pub host: String,
    /// The command that does it, to be typed there.
    pub command: String,
    /// Of a rule: the rule that it comes before, and where that stands.
    pub before: Option<(Text, Origin)>,
    /// How long it lasts, and what to do for it to last.
    pub keeping: Keeping,
}

/// A whole repair: with all its steps every flow does as it should, which the
/// engine was asked.
#[derive(Clone, Debug, Serialize)]
pub struct Plan {
    /// What to do, in this order.
    pub steps: Vec<Step>,
    /// What else arrives or is answered then, and was not before.
    pub surplus: Vec<Difference>,
    /// What no longer arrives or is answered, and was before, apart from what
    /// was to be refused.
    pub lost: Vec<Difference>,
    /// The lab with it.
    #[serde(skip)]
    pub lab: Lab,
}

/// Why there is no repair.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Stuck {
    /// No link joins the hosts: these hang together with the sender, and those
    /// with the receiver.
    Apart(Vec<String>, Vec<String>),
    /// Nothing that is known here to be changed helps against the last of the
    /// blockers; whether something was left untried.
    Wall {
        /// Whether more could have been tried than was.
        cut: bool,
    },
}

/// The answer.
#[derive(Clone, Debug, Serialize)]
pub struct Repair {
    /// The form of this value: `lab.repair/1`.
    pub schema: &'static str,
    /// What should pass.
    pub pass: Vec<String>,
    /// What should not.
    pub refuse: Vec<String>,
    /// What is in the way, in the order in which packets meet it.
    pub blockers: Vec<Blocker>,
    /// Whole repairs, the best first: those that let least else through and
    /// cut least off; of these those that touch the fewest hosts; of these
    /// those that nobody rebuilds.
    pub plans: Vec<Plan>,
    /// Why there is none.
    pub stuck: Option<Stuck>,
}

impl Repair {
    /// Whether nothing has to be changed.
    pub fn holds(&self) -> bool {
        self.blockers.is_empty()
    }
}

/// Finds what must be changed for flows to pass both ways, or not to pass.
///
/// ```no_run
/// use lab_core::query::flows::Headers;
/// use lab_core::query::repair::{repair, Ask, Flow};
/// use lab_core::query::{ends, what_if};
/// use lab_core::Lab;
///
/// let lab = Lab::open("examples/openstack-k8s/02-routes-only")?;
/// let flow = Flow {
///     from: ends::parse(&lab, "master")?,
///     to: ends::parse(&lab, "controller")?,
///     headers: Headers { protocol: Some(1), ..Headers::default() },
/// };
/// let answer = repair(&lab, &Ask { pass: vec![flow], refuse: Vec::new() })?;
/// for step in &answer.plans[0].steps {
///     println!("{}: {}", step.host, step.command);
/// }
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Errors
/// [`Error::Contradiction`] where the same packets are asked both to pass and to
/// be refused; an end that does not exist or cannot serve; packet sets that
/// outgrow their budget.
pub fn repair(lab: &Lab, ask: &Ask) -> Result<Repair, Error> {
    let mut goals = Vec::new();
    for (flows, wish) in [(&ask.pass, Wish::Pass), (&ask.refuse, Wish::Refuse)] {
        for flow in flows {
            goals.push(Goal::new(lab, flow, wish)?);
        }
    }
    contradictions(lab, &goals)?;
    let texts = |wish| goals.iter().filter(|g| g.wish == wish).map(|g| g.text.clone()).collect();
    let mut answer = Repair {
        schema: "lab.repair/1",
        pass: texts(Wish::Pass),
        refuse: texts(Wish::Refuse),
        blockers: Vec::new(),
        plans: Vec::new(),
        stuck: None,
    };
    let mut search = Search::new(lab, &goals)?;
    let now = search.blocked(lab)?;
    if now.is_empty() {
        return Ok(answer);
    }
    if let Some(apart) = apart(lab, ask) {
        answer.blockers = tell(lab, &search, &now)?;
        answer.stuck = Some(apart);
        return Ok(answer);
    }
    let outcome = search.run()?;
    match outcome.plans.first() {
        Some(first) => {
            answer.blockers = tell(lab, &search, &first.blockers)?;
            answer.plans = plans(lab, &goals, &search, &outcome.plans)?;
        }
        None => {
            answer.blockers = tell(lab, &search, &outcome.walls)?;
            answer.stuck = Some(Stuck::Wall { cut: outcome.cut });
        }
    }
    Ok(answer)
}

/// Whether the ends of flows that should pass hang together at all.
fn apart(lab: &Lab, ask: &Ask) -> Option<Stuck> {
    ask.pass.iter().find_map(|flow| {
        let from = sending_host(lab, &flow.from)?;
        let to = match &flow.to {
            End::Address(address) => ends::owner(lab, *address)?,
            to => sending_host(lab, to)?,
        };
        let there = gateways::joined(lab, &from.name);
        if there.contains(&to.name) {
            return None;
        }
        let here = gateways::joined(lab, &to.name);
        // Both may hang together beyond the lab, of which nothing is known.
        Some(Stuck::Apart(there.into_iter().collect(), here.into_iter().collect()))
    })
}

fn tell(lab: &Lab, search: &Search, blockers: &[Blocked]) -> Result<Vec<Blocker>, Error> {
    let one = |b: &Blocked| {
        Ok(Blocker {
            flows: search.goal(b).text.clone(),
            way: b.way,
            host: b.host.clone(),
            cause: b.cause.clone(),
            wrong_turn: match b.cause {
                Cause::Arrives(_) => None,
                _ => candidates::wrong_turn(lab, b)?,
            },
            looped: b.looped,
            packets: gained::told(&b.set, &search.first)?,
        })
    };
    blockers.iter().map(one).collect()
}

/// At most this many repairs are told.
const TOLD: usize = 5;

fn plans(lab: &Lab, goals: &[Goal], search: &Search, found: &[Found]) -> Result<Vec<Plan>, Error> {
    let senders = flows::senders(lab, lab);
    let touched = touched(found.iter().flat_map(|one| &one.fixes));
    let before = arrivals(lab, &senders, &touched, &search.space)?;
    let wanted = asked(lab, goals, &[Wish::Pass], &search.space)?;
    // What is to pass and went astray before is not lost.
    let unwanted = asked(lab, goals, &[Wish::Pass, Wish::Refuse], &search.space)?;
    let mut plans = Vec::new();
    for one in found {
        let after: Arrivals = arrivals(&one.lab, &senders, &touched, &search.space)?;
        plans.push(Plan {
            steps: steps(lab, one)?,
            surplus: after.beyond(&before, &wanted)?,
            lost: before.beyond(&after, &unwanted)?,
            lab: one.lab.clone(),
        });
    }
    plans.sort_by_cached_key(rank);
    let mut told: Vec<Plan> = Vec::new();
    for plan in plans {
        // What touches more hosts than a better one, and those, too, is a
        // detour; what asks for another state of connections, the same again.
        let (here, words) = (hosts(&plan), stateless(&plan));
        let worse = |t: &Plan| {
            let there = hosts(t);
            (there.len() < here.len() && there.is_subset(&here)) || stateless(t) == words
        };
        if told.len() < TOLD && !told.iter().any(worse) {
            told.push(plan);
        }
    }
    Ok(told)
}

/// The commands of a plan, whatever state of connections they ask for.
fn stateless(plan: &Plan) -> BTreeSet<String> {
    let states = [
        " -m conntrack --ctstate NEW",
        " -m conntrack --ctstate ESTABLISHED",
        " ct state new",
        " ct state established",
    ];
    let plain = |command: &str| states.iter().fold(command.to_owned(), |text, state| text.replace(state, ""));
    plan.steps.iter().map(|s| plain(&s.command)).collect()
}

fn hosts(plan: &Plan) -> BTreeSet<String> {
    plan.steps.iter().map(|s| s.host.clone()).collect()
}

/// What makes a repair worse than another, the worst first.
fn rank(plan: &Plan) -> (BigUint, usize, usize, usize, usize) {
    let count = |d: &Difference| d.packets.set.count();
    let beyond: BigUint = plan.surplus.iter().chain(&plan.lost).map(count).sum();
    let rebuilt = plan.steps.iter().filter(|s| s.keeping.lasting != Lasting::Volatile).count();
    let stateful = plan.steps.iter().filter(|s| s.command.contains("state ")).count();
    (beyond, hosts(plan).len(), rebuilt, plan.steps.len(), stateful)
}

fn steps(lab: &Lab, found: &Found) -> Result<Vec<Step>, Error> {
    let mut now = lab.clone();
    let mut steps = Vec::new();
    for fix in &found.fixes {
        let Some(host) = now.host(&fix.host) else { continue };
        steps.push(Step {
            host: fix.host.clone(),
            command: command::print(host, &fix.change).map_err(|why| Error::Unfit(why.to_string()))?,
            before: fix::before(host, &fix.change),
            keeping: persist::keeping(host, &fix.change),
        });
        now = what_if(&now, std::slice::from_ref(fix))?;
    }
    Ok(steps)
}
