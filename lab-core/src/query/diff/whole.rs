//! A whole difference: what is written otherwise, what each edited rule does,
//! and what that does to packets.

use serde::Serialize;

use super::edits::{edits, edits_of_tables, Edits, HostEdits};
use super::effects::{effects, Effects};
use super::flows::{flows, FlowDiff};
use super::packets::{packets, ChainPackets, Rules};
use crate::model::{Host, Lab, Ruleset};
use crate::query::flows::Headers;
use crate::query::Error;

/// What differs between two labs.
#[derive(Clone, Debug, Serialize)]
pub struct LabDiff {
    /// The form of this value: `lab.diff/1`.
    pub schema: &'static str,
    /// What is written otherwise, host by host.
    #[serde(skip)]
    pub edits: Edits,
    /// What each rule that comes or goes does by itself.
    pub effects: Effects,
    /// The flows that are opened, cut, or treated otherwise.
    pub flows: FlowDiff,
}

impl LabDiff {
    /// Whether nothing differs, in writing or in what is done to packets.
    pub fn is_empty(&self) -> bool {
        self.edits.is_empty() && self.flows.is_empty()
    }
}

/// Compares two labs.
///
/// # Errors
/// Rule sets that do not fit; packet sets that outgrow their budget.
pub fn labs(old: &Lab, new: &Lab, headers: &Headers) -> Result<LabDiff, Error> {
    let edits = edits(old, new)?;
    let effects = effects(old, new, &edits)?;
    Ok(LabDiff { schema: "lab.diff/1", effects, flows: flows(old, new, headers)?, edits })
}

/// What differs between two rule sets without a host.
#[derive(Clone, Debug, Serialize)]
pub struct RulesDiff {
    /// The form of this value: `lab.diff-rules/1`.
    pub schema: &'static str,
    /// What is written otherwise.
    #[serde(skip)]
    pub edits: HostEdits,
    /// What that does to packets, chain by chain; none: no packet is treated
    /// differently, which is proved.
    pub packets: Vec<ChainPackets>,
}

impl RulesDiff {
    /// Whether nothing differs, in writing or in what is done to packets.
    pub fn is_empty(&self) -> bool {
        self.edits.is_empty() && self.packets.is_empty()
    }
}

/// Compares two rule sets.
///
/// # Errors
/// As [`labs`].
pub fn rules(old: &Ruleset, new: &Ruleset) -> Result<RulesDiff, Error> {
    let host = Host::default();
    let edits = edits_of_tables(&old.tables, &new.tables)?;
    let of = |ruleset| Rules { host: &host, ruleset };
    Ok(RulesDiff { schema: "lab.diff-rules/1", edits, packets: packets(of(old), of(new))? })
}
