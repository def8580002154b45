//! What happened to a packet on its way, as data.

use serde::{Deserialize, Serialize};

use crate::model::{Backend, ConntrackState, Hook, Hop, Outcome, Packet, RuleRef, TableFamily, Text};

/// A rule that a packet met and matched, or a policy.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RuleStep {
    /// The chain.
    pub chain: Text,
    /// The rule's number from 1; none: the policy.
    pub rule: Option<usize>,
    /// The rule's text.
    pub text: Text,
    /// What it did: `ACCEPT`, `jump LIBVIRT_FWI`, `continue`.
    pub effect: String,
}

/// A base chain that a packet ran through.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChainRun {
    /// The host.
    pub host: String,
    /// The hook.
    pub hook: Hook,
    /// The machinery.
    pub backend: Backend,
    /// The table's family.
    pub family: TableFamily,
    /// The table.
    pub table: String,
    /// The base chain.
    pub base: Text,
    /// The rules that matched, in order; last the one that decided.
    pub steps: Vec<RuleStep>,
    /// Whether it let the packet pass.
    pub passed: bool,
    /// Whether the packet was in a tunnel then: the outer one was looked at.
    pub outer: bool,
}

/// One thing that happened.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Event {
    /// It was seen at an interface.
    Hop(Hop),
    /// Connection tracking looked at it.
    Tracked {
        /// The host.
        host: String,
        /// The state found.
        state: ConntrackState,
    },
    /// It ran through a base chain.
    Chain(ChainRun),
    /// Its header was changed.
    Rewritten {
        /// The host.
        host: String,
        /// The hook.
        hook: Hook,
        /// The rule that settled it; none: what an earlier packet settled.
        by: Option<Box<RuleRef>>,
        /// Before.
        before: Box<Packet>,
        /// After.
        after: Box<Packet>,
    },
    /// A route was taken.
    Routed {
        /// The host.
        host: String,
        /// What was found, as `ip route` would say it.
        route: String,
    },
    /// It was put into a tunnel.
    Encapsulated {
        /// The host.
        host: String,
        /// The tunnel device.
        device: String,
        /// The outer packet.
        outer: Box<Packet>,
    },
    /// It was taken out of a tunnel.
    Decapsulated {
        /// The host.
        host: String,
        /// The tunnel device.
        device: String,
    },
}

/// One packet's way through the lab.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Journey {
    /// What became of it.
    pub outcome: Outcome,
    /// What happened, in order.
    pub events: Vec<Event>,
    /// What happened to the answer to it, if it was rejected.
    pub answer_events: Vec<Event>,
    /// What was taken for granted: "limit within its burst".
    pub assumptions: Vec<String>,
    /// What is not modelled, and yet decides: the outcome is a guess.
    pub unknown: Vec<String>,
    /// Whether it came by the same place again and again until its TTL ran
    /// out.
    pub looped: bool,
}

impl Journey {
    /// The interfaces it passed, in order.
    pub fn hops(&self) -> impl Iterator<Item = &Hop> {
        self.events.iter().filter_map(|e| match e {
            Event::Hop(hop) => Some(hop),
            _ => None,
        })
    }
}
