//! What a network must do, and whether it does (`lab check POLICY.toml`).
//!
//! ```toml
//! [[must]]            # every such packet arrives, and is answered
//! from = ["controller", "compute"]
//! to = "master"
//! services = ["tcp/6443", "icmp"]
//!
//! [[must_not]]        # none arrives
//! from = "@outside"
//! to = "controller"
//!
//! [[only]]            # these hosts, and nobody else, may reach it
//! from = "controller"
//! to = "compute"
//! services = ["tcp/22"]
//!
//! [[keep]]            # as `must`; a plan may never interrupt it
//! from = "controller"
//! to = "compute"
//! services = ["tcp/22"]
//! ```

use serde::{Deserialize, Serialize};

use super::ends::{self, End};
use super::flows::{Asker, Headers};
use super::matrix::Service;
use super::reach::{reach_with, Question, Reach};
use super::trace::{self, Trace};
use super::Error;
use crate::model::{Lab, Packet, RuleRef};

/// One or several words.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Words {
    /// None.
    #[default]
    None,
    /// One.
    One(String),
    /// Several.
    Several(Vec<String>),
}

impl Words {
    fn all(&self) -> Vec<&str> {
        match self {
            Words::None => Vec::new(),
            Words::One(word) => vec![word],
            Words::Several(words) => words.iter().map(String::as_str).collect(),
        }
    }
}

/// A line of a policy.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Line {
    /// What it is for, in words.
    #[serde(default)]
    pub name: Option<String>,
    /// Who sends: ends as `lab reach --from` takes them.
    pub from: Words,
    /// Where to: ends as `lab reach --to` takes them.
    pub to: Words,
    /// Services; none: every new connection.
    #[serde(default)]
    pub services: Words,
}

/// What a network must do.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Policy {
    /// Who must reach whom, and be answered.
    #[serde(default)]
    pub must: Vec<Line>,
    /// Who must not reach whom.
    #[serde(default)]
    pub must_not: Vec<Line>,
    /// Who alone may reach somebody.
    #[serde(default)]
    pub only: Vec<Line>,
    /// Who must reach whom, be answered, and never be cut off by a plan.
    #[serde(default)]
    pub keep: Vec<Line>,
}

impl Policy {
    /// Reads a policy.
    ///
    /// # Errors
    /// What is no policy, with line and text.
    pub fn parse(text: &str) -> Result<Self, Error> {
        toml::from_str(text).map_err(|e| Error::Unfit(e.to_string().trim_end().to_owned()))
    }
}

/// What a line demands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Demand {
    /// They must reach it.
    MustReach,
    /// They must not.
    MustNotReach,
}

/// Whether a demand is met.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Met {
    /// It certainly is.
    Yes,
    /// That depends on chance, or on what is not modelled.
    Possible,
    /// It is not.
    No,
}

/// One demand of a policy, judged.
#[derive(Clone, Debug, Serialize)]
pub struct Judged {
    /// The line's name, if it has one.
    pub name: Option<String>,
    /// What is demanded.
    pub demand: Demand,
    /// Who sends.
    pub from: String,
    /// Where to.
    pub to: String,
    /// The service; none: every new connection.
    pub service: Option<Service>,
    /// Whether it is met.
    pub met: Met,
    /// A packet that breaks it.
    pub counterexample: Option<Packet>,
    /// What becomes of that packet.
    pub trace: Option<Trace>,
}

/// A policy, judged.
#[derive(Clone, Debug, Serialize)]
pub struct Checked {
    /// The form of this value: `lab.check/1`.
    pub schema: &'static str,
    /// Every demand.
    pub demands: Vec<Judged>,
    /// How many rules of the lab decide about packets of the policy.
    pub covered: usize,
    /// The rules of its filters and NAT that decide about none.
    pub uncovered: Vec<RuleRef>,
}

impl Checked {
    /// Whether every demand is certainly met.
    pub fn holds(&self) -> bool {
        self.demands.iter().all(|d| d.met == Met::Yes)
    }
}

/// Judges a policy.
///
/// # Errors
/// An end or service that does not exist; packet sets that outgrow their
/// budget.
pub fn check(lab: &Lab, policy: &Policy) -> Result<Checked, Error> {
    let mut asker = Asker::new(lab);
    asker.engine.watch_rules();
    let mut demands = Vec::new();
    for (lines, demand) in [
        (&policy.must, Demand::MustReach),
        (&policy.keep, Demand::MustReach),
        (&policy.must_not, Demand::MustNotReach),
    ] {
        for line in lines {
            for from in line.from.all() {
                let from = ends::parse(lab, from)?;
                judge_line(&mut asker, line, &from, demand, &mut demands)?;
            }
        }
    }
    for line in &policy.only {
        let allowed: Vec<End> =
            line.from.all().into_iter().map(|f| ends::parse(lab, f)).collect::<Result<_, _>>()?;
        let targets: Vec<End> =
            line.to.all().into_iter().map(|t| ends::parse(lab, t)).collect::<Result<_, _>>()?;
        let hosts = lab.hosts.keys().map(|name| End::Host(name.clone()));
        let outside = asker.doors().next().map(|_| End::Outside);
        let others: Vec<End> = hosts
            .chain(outside)
            .filter(|end| !allowed.contains(end) && !targets.contains(end))
            .filter(|end| !allowed.iter().any(|a| owns(lab, end, a)))
            .collect();
        for from in others {
            judge_line(&mut asker, line, &from, Demand::MustNotReach, &mut demands)?;
        }
    }
    let (covered, uncovered) = asker.engine.watched_rules();
    Ok(Checked { schema: "lab.check/1", demands, covered: covered.len(), uncovered })
}

/// Whether a host is the owner of an address or prefix that is allowed.
fn owns(lab: &Lab, host: &End, allowed: &End) -> bool {
    let End::Host(name) = host else { return false };
    let Some(host) = lab.host(name) else { return false };
    match allowed {
        End::Interface(place) => place.host == *name,
        End::Address(address) => host.interface_with(*address).is_some(),
        End::Prefix(net) => host.addresses().any(|a| net.contains(&a)),
        End::Host(_) | End::Outside => false,
    }
}

fn judge_line(
    asker: &mut Asker,
    line: &Line,
    from: &End,
    demand: Demand,
    into: &mut Vec<Judged>,
) -> Result<(), Error> {
    let services: Vec<Option<Service>> = match line.services.all().as_slice() {
        [] => vec![None],
        words => words.iter().map(|w| w.parse().map(Some)).collect::<Result<_, _>>()?,
    };
    for to in line.to.all() {
        let to = ends::parse(asker.lab, to)?;
        for service in &services {
            let judged = judge(asker, from, &to, *service, demand)?;
            into.push(Judged { name: line.name.clone(), ..judged });
        }
    }
    Ok(())
}

fn judge(
    asker: &mut Asker,
    from: &End,
    to: &End,
    service: Option<Service>,
    demand: Demand,
) -> Result<Judged, Error> {
    let lab = asker.lab;
    let headers = Headers {
        protocol: service.map(|s| s.protocol),
        dport: service.and_then(|s| s.ports),
        ..Headers::default()
    };
    // Who must reach a host, does so by the address that a user would write.
    let target = match (demand, from, to) {
        (Demand::MustReach, End::Host(a), End::Host(b)) => {
            let address = ends::address_from(ends::host(lab, a)?, ends::host(lab, b)?, None);
            address.map(End::Address)
        }
        (Demand::MustReach, _, End::Host(b)) => ends::host(lab, b)?.addresses().next().map(End::Address),
        _ => None,
    };
    let question = Question {
        from: Some(from.clone()),
        to: Some(target.clone().unwrap_or_else(|| to.clone())),
        headers,
        and_back: demand == Demand::MustReach,
    };
    let answer = reach_with(asker, &question)?;
    let (met, counterexample) = match demand {
        Demand::MustReach => missing(&answer)?,
        Demand::MustNotReach => surplus(&answer),
    };
    let trace = match &counterexample {
        Some(packet) => Some(trace::of_packet(lab, from, packet)?),
        None => None,
    };
    Ok(Judged {
        name: None,
        demand,
        from: from.to_string(),
        to: to.to_string(),
        service,
        met,
        counterexample,
        trace,
    })
}

/// What must arrive and does not.
fn missing(answer: &Reach) -> Result<(Met, Option<Packet>), Error> {
    let kept = answer.refusals.iter().map(|r| &r.packets).chain(answer.astray.iter().map(|a| &a.packets));
    for packets in kept {
        // Those that may arrive as well are not certainly kept from it.
        let mut never = packets.set.clone();
        for arrival in &answer.arrivals {
            never = never.difference(&arrival.possible.set)?;
        }
        if !never.is_empty() {
            let usual = packets.example.clone().filter(|p| never.contains(p));
            return Ok((Met::No, usual.or_else(|| never.example())));
        }
    }
    let open = answer.arrivals.iter().find_map(|a| a.possible.example.clone());
    let arrives = answer.arrivals.iter().any(|a| a.certain.example.is_some());
    Ok(match open {
        Some(packet) => (Met::Possible, Some(packet)),
        None if arrives => (Met::Yes, None),
        // Nothing can be sent at all.
        None => (Met::No, None),
    })
}

/// What must not arrive and does.
fn surplus(answer: &Reach) -> (Met, Option<Packet>) {
    let certain = answer.arrivals.iter().find_map(|a| a.certain.example.clone());
    let open = answer.arrivals.iter().find_map(|a| a.possible.example.clone());
    match (certain, open) {
        (Some(packet), _) => (Met::No, Some(packet)),
        (None, Some(packet)) => (Met::Possible, Some(packet)),
        (None, None) => (Met::Yes, None),
    }
}
