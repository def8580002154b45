//! What happens to each of a list of packets.

use crate::engine::explore::all;
use crate::engine::journey::Journey;
use crate::engine::stepper::{probe, World};
use crate::model::{How, Lab, Outcome, Packet, Place, Probe};

use super::{ends, Error, WAYS};

/// The answer to one probe.
#[derive(Clone, Debug)]
pub struct Prediction {
    /// The probe's name.
    pub id: String,
    /// Every way it can go; ways that end alike are listed once.
    pub ways: Vec<Journey>,
    /// What decides between them.
    pub reasons: Vec<String>,
    /// Whether there are more ways than were followed.
    pub cut: bool,
}

/// What two ways must have in common to count as one answer. The interface
/// and hops may differ: of several equal routes any may be taken.
fn essence(journey: &Journey) -> (Outcome, Vec<String>) {
    let plain = |packet: &Packet| Packet { mark: 0, ..packet.clone() };
    let outcome = match journey.outcome.clone() {
        Outcome::Delivered { at, seen } => {
            Outcome::Delivered { at: Place { iface: String::new(), ..at }, seen: plain(&seen) }
        }
        Outcome::ForwardedOut { at, seen } => Outcome::ForwardedOut { at, seen: plain(&seen) },
        Outcome::Rejected { by, mut answer } => {
            answer.hops.clear();
            answer.lost = None;
            answer.received = None;
            Outcome::Rejected { by, answer }
        }
        Outcome::Dropped { by } => Outcome::Dropped { by },
    };
    (outcome, journey.unknown.clone())
}

impl Prediction {
    /// Whether the answer is certain: all ways end alike, and none depends on
    /// what is not modelled.
    pub fn certain(&self) -> bool {
        !self.cut && self.ways.len() == 1 && self.ways.iter().all(|w| w.unknown.is_empty())
    }

    /// The interface of arrival, if all ways agree on it.
    pub fn iface(&self) -> Option<&str> {
        let mut places = self.ways.iter().filter_map(|w| match &w.outcome {
            Outcome::Delivered { at, .. } | Outcome::ForwardedOut { at, .. } => Some(at.iface.as_str()),
            Outcome::Rejected { .. } | Outcome::Dropped { .. } => None,
        });
        let first = places.next()?;
        places.all(|p| p == first).then_some(first)
    }
}

/// Groups ways that end alike: the first of each kind is kept.
pub fn distinct(ways: impl IntoIterator<Item = Journey>) -> Vec<Journey> {
    let mut kept: Vec<Journey> = Vec::new();
    for way in ways {
        if !kept.iter().any(|k| essence(k) == essence(&way)) {
            kept.push(way);
        }
    }
    kept
}

/// Looks whether probes start at hosts and interfaces that the lab has.
///
/// # Errors
/// The first host or interface that is not there.
pub fn check(lab: &Lab, probes: &[Probe]) -> Result<(), Error> {
    for probe in probes {
        let host = ends::host(lab, &probe.at)?;
        if let How::Inject(iface, _) = &probe.how {
            ends::parse(lab, &format!("{}:{iface}", host.name))?;
        }
    }
    Ok(())
}

/// Answers probes. Probes of one flow are sent one after the other and meet
/// the connections of the earlier ones; each flow starts with none.
pub fn predict(lab: &Lab, probes: &[Probe]) -> Vec<Prediction> {
    probes
        .iter()
        .enumerate()
        .map(|(position, asked)| {
            let earlier: Vec<&Probe> = match &asked.flow {
                None => Vec::new(),
                Some(flow) => probes[..position]
                    .iter()
                    .filter(|p| p.id == *flow || p.flow.as_ref() == Some(flow))
                    .collect(),
            };
            let explored = all(WAYS, |choices| {
                let mut world = World::default();
                let mut unknown = Vec::new();
                for before in &earlier {
                    unknown.extend(probe(lab, &mut world, choices, before).unknown);
                }
                // What an earlier packet left behind is not known either.
                let mut journey = probe(lab, &mut world, choices, asked);
                journey.unknown.extend(unknown);
                journey
            });
            Prediction {
                id: asked.id.clone(),
                ways: distinct(explored.results),
                reasons: explored.reasons,
                cut: explored.cut,
            }
        })
        .collect()
}
