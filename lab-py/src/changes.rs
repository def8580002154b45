//! Answers about changes: differences, plans, repairs.

use std::path::PathBuf;

use lab_core::model::Ruleset;
use lab_core::query::diff::whole;
use lab_core::query::{plan, repair};
use lab_core::{render, snapshot};
use pyo3::prelude::*;

use crate::error::Failure;
use crate::{loads, plain};

/// The answer of `Lab.diff`: what differs between two labs.
///
/// `str()` of it is its text; it is true if there is a difference.
#[pyclass(frozen, module = "lab_py")]
pub struct Diff {
    pub answer: whole::LabDiff,
    pub old: lab_core::Lab,
}

#[pymethods]
impl Diff {
    /// The answer as data (dict[str, Any]): what `lab --json diff` prints.
    fn to_dict<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        let text = py.detach(|| render::diff::labs_json(&self.old, &self.answer).map(|v| v.to_string()));
        loads(py, &text.map_err(Failure::from)?)
    }

    fn __bool__(&self) -> bool {
        !self.answer.is_empty()
    }

    fn __str__(&self) -> String {
        render::diff::labs(&self.answer)
    }

    fn __repr__(&self) -> String {
        let (hosts, flows) = (self.answer.edits.hosts.len(), self.answer.flows.changes.len());
        format!("<Diff of {hosts} hosts: {flows} changes of flows>")
    }
}

/// The answer of `diff_rules`: what differs between two rule sets.
///
/// `str()` of it is its text; it is true if there is a difference.
#[pyclass(frozen, module = "lab_py")]
pub struct RulesDiff {
    answer: whole::RulesDiff,
    old: Ruleset,
}

#[pymethods]
impl RulesDiff {
    /// Whether every packet is treated alike, which is proved (bool).
    #[getter]
    fn same_packets(&self) -> bool {
        self.answer.packets.is_empty() && self.answer.edits.unsaid.is_empty()
    }

    /// The answer as data (dict[str, Any]): what `lab --json diff` prints.
    fn to_dict<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        let text = py.detach(|| render::diff::rules_json(&self.old, &self.answer).map(|v| v.to_string()));
        loads(py, &text.map_err(Failure::from)?)
    }

    fn __bool__(&self) -> bool {
        !self.answer.is_empty()
    }

    fn __str__(&self) -> String {
        render::diff::rules(&self.answer)
    }

    fn __repr__(&self) -> String {
        let (edited, treated) = (self.answer.edits.chains.len(), self.answer.packets.len());
        format!("<RulesDiff: {edited} chains edited, {treated} treat packets otherwise>")
    }
}

/// Compares two files of rules, as iptables-save or nft printed them.
///
/// Args:
///     old (str | os.PathLike[str]): the rules before.
///     new (str | os.PathLike[str]): the rules after.
///
/// Returns:
///     RulesDiff: the difference; false if there is none.
///
/// Raises:
///     SnapshotError: a file cannot be read, or does not follow its format;
///         with `file`, and `line` where there is one.
///     QuestionError: a rule set does not fit.
#[pyfunction]
pub fn diff_rules(py: Python<'_>, old: PathBuf, new: PathBuf) -> PyResult<RulesDiff> {
    let answer = py.detach(|| -> Result<_, Failure> {
        let (old, new) = (snapshot::read_rules(&old)?, snapshot::read_rules(&new)?);
        Ok(RulesDiff { answer: whole::rules(&old, &new)?, old })
    })?;
    Ok(answer)
}

/// The answer of `Lab.plan`: steps from one lab to another.
///
/// `str()` of it is its text.
#[pyclass(frozen, module = "lab_py")]
pub struct Plan {
    pub answer: plan::Plan,
}

#[pymethods]
impl Plan {
    /// Whether there is a plan, and no step of it hurts (bool).
    #[getter]
    fn holds(&self) -> bool {
        self.answer.refused.is_none() && self.answer.keeps
    }

    /// The plan as shell scripts that undo themselves unless confirmed, in the
    /// order to run them (list[tuple[str, str, str]]): name, host, text.
    ///
    /// Args:
    ///     timeout (int): seconds that each waits to be confirmed.
    #[pyo3(signature = (*, timeout=60))]
    fn scripts(&self, timeout: u32) -> Vec<(String, String, String)> {
        let scripts = render::plan::scripts(&self.answer, timeout);
        scripts.into_iter().map(|s| (s.name, s.host, s.text)).collect()
    }

    /// The answer as data (dict[str, Any]): what `lab --json plan` prints.
    fn to_dict<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        plain(py, &self.answer)
    }

    fn __str__(&self) -> String {
        render::plan::plan(&self.answer)
    }

    fn __repr__(&self) -> String {
        let holds = if self.holds() { "True" } else { "False" };
        format!("<Plan of {} steps: holds={holds}>", self.answer.steps.len())
    }
}

/// The answer of `Lab.repair`: what stands in the way, and what mends it.
///
/// `str()` of it is its text.
#[pyclass(frozen, module = "lab_py")]
pub struct Repair {
    pub answer: repair::Repair,
}

#[pymethods]
impl Repair {
    /// Whether nothing need be changed (bool).
    #[getter]
    fn holds(&self) -> bool {
        self.answer.holds()
    }

    /// The answer as data (dict[str, Any]): what `lab --json repair` prints.
    fn to_dict<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        plain(py, &self.answer)
    }

    fn __str__(&self) -> String {
        render::repair(&self.answer)
    }

    fn __repr__(&self) -> String {
        format!("<Repair: holds={}>", if self.holds() { "True" } else { "False" })
    }
}
