//! Facts about the kernel that models get wrong, one test each.

mod bridge;
pub(crate) mod build;
mod filter;
mod layer2;
mod nat;
mod reject;
pub(crate) mod route;
mod special;
mod tunnel;
mod vrf;
mod vrf_rules;
mod wireguard;

use crate::engine::journey::Journey;
use crate::model::{Answer, Decision, Outcome, Packet, Stage};

fn seen(journey: &Journey) -> &Packet {
    match &journey.outcome {
        Outcome::Delivered { seen, .. } => seen,
        other => panic!("not delivered: {other:?}"),
    }
}

fn answer(journey: &Journey) -> &Answer {
    match &journey.outcome {
        Outcome::Rejected { answer, .. } => answer,
        other => panic!("not rejected: {other:?}"),
    }
}

fn stage(journey: &Journey) -> &Stage {
    match journey.outcome.decision() {
        Some(Decision::Stage { stage, .. }) => stage,
        other => panic!("no stage decided: {other:?}"),
    }
}

fn rule(journey: &Journey) -> (&str, &str, Option<usize>) {
    match journey.outcome.decision() {
        Some(Decision::Rule(rule)) => (&rule.table, &rule.chain, rule.rule),
        other => panic!("no rule decided: {other:?}"),
    }
}
