//! Answers to questions about every packet at once.

use lab_core::query::{self, matrix, policy, reach};
use lab_core::render;
use pyo3::prelude::*;
use pyo3::types::PyDict;

use crate::error::Failure;
use crate::plain;
use crate::sets::PacketSet;

/// The answer of `Lab.reach`: packets that arrive, and what keeps others from
/// it.
///
/// `str()` of it is its text.
#[pyclass(frozen, module = "lab_py")]
pub struct Reach {
    pub answer: reach::Reach,
}

impl Reach {
    fn union(&self, of: impl Fn(&reach::Arrival) -> &reach::Told) -> PyResult<PacketSet> {
        let space = lab_core::space::Space::default();
        let none = space.none().map_err(Failure::from)?;
        let all = self.answer.arrivals.iter().try_fold(none, |all, a| all.union(&of(a).set));
        Ok(PacketSet { set: all.map_err(Failure::from)? })
    }
}

#[pymethods]
impl Reach {
    /// Whether some packet certainly arrives (bool).
    #[getter]
    fn holds(&self) -> bool {
        self.answer.holds()
    }

    /// The packets, as sent, that certainly arrive (PacketSet).
    #[getter]
    fn certain(&self) -> PyResult<PacketSet> {
        self.union(|a| &a.certain)
    }

    /// The packets, as sent, that may arrive, but need not (PacketSet).
    #[getter]
    fn possible(&self) -> PyResult<PacketSet> {
        self.union(|a| &a.possible)
    }

    /// The answer as data (dict[str, Any]): what `lab --json reach` prints.
    fn to_dict<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        plain(py, &self.answer)
    }

    fn __str__(&self) -> String {
        render::reach(&self.answer)
    }

    fn __repr__(&self) -> String {
        let end = |e: &Option<String>| e.clone().unwrap_or_else(|| "anywhere".into());
        let (from, to) = (end(&self.answer.from), end(&self.answer.to));
        format!("<Reach {from} -> {to}: holds={}>", if self.holds() { "True" } else { "False" })
    }
}

/// The answer of `Lab.matrix`: who reaches whom.
///
/// `str()` of it is its text.
#[pyclass(frozen, module = "lab_py")]
pub struct Matrix {
    pub answer: matrix::Matrix,
}

#[pymethods]
impl Matrix {
    /// Whether everybody certainly reaches everybody (bool).
    #[getter]
    fn holds(&self) -> bool {
        self.answer.holds()
    }

    /// The hosts, sorted (list[str]).
    #[getter]
    fn hosts(&self) -> Vec<&str> {
        self.answer.hosts.iter().map(String::as_str).collect()
    }

    /// Whether one host reaches another: `yes`, `no`, `possible` or
    /// `no-address`.
    ///
    /// Args:
    ///     service (str): a service that was asked for.
    ///     from_ (str): who sends.
    ///     to (str): who is meant.
    ///
    /// Raises:
    ///     QuestionError: the service was not asked for, or a host is not
    ///         there.
    fn answer(&self, service: &str, from_: &str, to: &str) -> PyResult<&'static str> {
        let service: matrix::Service = service.parse().map_err(Failure::from)?;
        let cell = self.answer.cell(service, from_, to).ok_or_else(|| {
            let what = format!("the matrix has no cell from {from_} to {to} for {service}");
            Failure::from(query::Error::Unfit(what))
        })?;
        Ok(match cell.answer {
            matrix::Answer::Yes => "yes",
            matrix::Answer::No => "no",
            matrix::Answer::Possible => "possible",
            matrix::Answer::NoAddress => "no-address",
        })
    }

    /// The matrix as Markdown (str).
    fn markdown(&self) -> String {
        render::matrix_markdown(&self.answer)
    }

    /// The answer as data (dict[str, Any]): what `lab --json matrix` prints.
    fn to_dict<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        plain(py, &self.answer)
    }

    fn __str__(&self) -> String {
        render::matrix(&self.answer)
    }

    fn __repr__(&self) -> String {
        format!("<Matrix of {} hosts, {} services>", self.answer.hosts.len(), self.answer.services.len())
    }
}

/// A policy as Python gives it.
#[derive(FromPyObject)]
pub enum Policy<'py> {
    #[pyo3(annotation = "str")]
    Text(String),
    #[pyo3(annotation = "dict")]
    Values(Bound<'py, PyDict>),
}

impl Policy<'_> {
    pub fn read(self, py: Python<'_>) -> PyResult<policy::Policy> {
        match self {
            Policy::Text(text) => Ok(policy::Policy::parse(&text).map_err(Failure::from)?),
            Policy::Values(values) => {
                let text: String = py.import("json")?.call_method1("dumps", (values,))?.extract()?;
                let read = serde_json::from_str(&text).map_err(|e| query::Error::Unfit(e.to_string()));
                Ok(read.map_err(Failure::from)?)
            }
        }
    }
}

/// The answer of `Lab.check`: a policy, judged.
///
/// `str()` of it is its text.
#[pyclass(frozen, module = "lab_py")]
pub struct Checked {
    pub answer: policy::Checked,
}

#[pymethods]
impl Checked {
    /// Whether every demand is certainly met (bool).
    #[getter]
    fn holds(&self) -> bool {
        self.answer.holds()
    }

    /// The answer as data (dict[str, Any]): what `lab --json check` prints.
    fn to_dict<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        plain(py, &self.answer)
    }

    /// The answer as text (str): what `lab check` prints.
    ///
    /// Args:
    ///     coverage (bool): name the rules that no demand meets.
    #[pyo3(signature = (*, coverage=false))]
    fn text(&self, coverage: bool) -> String {
        render::policy(&self.answer, coverage)
    }

    fn __str__(&self) -> String {
        self.text(false)
    }

    fn __repr__(&self) -> String {
        let holds = if self.holds() { "True" } else { "False" };
        format!("<Checked {} demands: holds={holds}>", self.answer.demands.len())
    }
}
