//! Packet sets in Python.

use std::net::IpAddr;

use ipnet::IpNet;
use lab_core::addr::PortRange;
use lab_core::query::flows::Headers;
use lab_core::query::trace::Question;
use lab_core::query::Error;
use lab_core::space::{self, Space};
use pyo3::basic::CompareOp;
use pyo3::prelude::*;

use crate::error::Failure;
use crate::{family, plain, Protocol};

/// A port, or the first and last of several, as Python gives them.
#[derive(FromPyObject)]
pub enum Ports {
    #[pyo3(annotation = "int")]
    One(u16),
    #[pyo3(annotation = "tuple[int, int]")]
    Range(u16, u16),
}

impl Ports {
    fn range(&self) -> PortRange {
        match *self {
            Ports::One(port) => PortRange { low: port, high: port },
            Ports::Range(low, high) => PortRange { low, high },
        }
    }
}

/// A prefix as Python gives it: text, or an object of `ipaddress`, by its
/// text.
pub struct Prefix(IpNet);

impl<'a, 'py> FromPyObject<'a, 'py> for Prefix {
    type Error = PyErr;

    fn extract(given: Borrowed<'a, 'py, PyAny>) -> PyResult<Self> {
        let text = given.str()?.to_string();
        let net = text.parse::<IpNet>().ok().or_else(|| text.parse::<IpAddr>().ok().map(IpNet::from));
        let unfit = || Failure::from(Error::Unfit(format!("`{text}` is no prefix or address")));
        Ok(Prefix(net.ok_or_else(unfit)?))
    }
}

pub fn headers(
    proto: Option<Protocol>,
    dport: Option<Ports>,
    sport: Option<Ports>,
    family: Option<&str>,
    any: bool,
) -> PyResult<Headers> {
    let (dport, sport) = (dport.map(|p| p.range()), sport.map(|p| p.range()));
    let protocol = match (proto.map(Protocol::name), dport) {
        (None, None) => None,
        (name, dport) => {
            Some(Question::protocol(name.as_deref(), dport.map(|p| p.low)).map_err(Failure::from)?)
        }
    };
    let family = family.map(self::family).transpose().map_err(Failure::from)?;
    Ok(Headers { protocol, sport, dport, family, any })
}

/// A set of packets: exact, however large. It never changes; it can be
/// pickled.
///
/// Args:
///     src (str | IPv4Network | IPv6Network | … | None): source prefix.
///     dst (str | IPv4Network | IPv6Network | … | None): destination prefix.
///     proto (str | int | None): the protocol; tcp if a port is given.
///     sport (int | tuple[int, int] | None): source port or ports.
///     dport (int | tuple[int, int] | None): destination port or ports.
///     family ("ipv4" | "ipv6" | None): the IP version.
///
/// Without arguments it is every packet there is. `a | b`, `a & b`, `a - b`,
/// `~a`, `a == b`, `a <= b`, `len`-less `a.count`, `bool(a)` do what they do
/// for sets.
///
/// Raises:
///     QuestionError: a prefix, protocol or family is none.
#[pyclass(frozen, module = "lab_py")]
pub struct PacketSet {
    pub set: space::PacketSet,
}

type Made = Result<space::PacketSet, space::Error>;

impl PacketSet {
    fn of(set: Made) -> PyResult<Self> {
        Ok(PacketSet { set: set.map_err(Failure::from)? })
    }
}

#[pymethods]
impl PacketSet {
    #[new]
    #[pyo3(signature = (*, src=None, dst=None, proto=None, sport=None, dport=None, family=None))]
    fn new(
        src: Option<Prefix>,
        dst: Option<Prefix>,
        proto: Option<Protocol>,
        sport: Option<Ports>,
        dport: Option<Ports>,
        family: Option<&str>,
    ) -> PyResult<Self> {
        let ports = dport.is_some() || sport.is_some();
        let number = match (proto.map(Protocol::name), ports) {
            (None, false) => None,
            (name, _) => Some(Question::protocol(name.as_deref(), Some(0)).map_err(Failure::from)?),
        };
        let family = family.map(self::family).transpose().map_err(Failure::from)?;
        let space = Space::default();
        let build = || -> Made {
            let mut set = space.all()?;
            if let Some(Prefix(net)) = src {
                set = set.intersection(&space.src(net)?)?;
            }
            if let Some(Prefix(net)) = dst {
                set = set.intersection(&space.dst(net)?)?;
            }
            if let Some(number) = number {
                set = set.intersection(&space.protocol(number)?)?;
            }
            if let Some(range) = sport.map(|p| p.range()) {
                set = set.intersection(&space.sport(range.low, range.high)?)?;
            }
            if let Some(range) = dport.map(|p| p.range()) {
                set = set.intersection(&space.dport(range.low, range.high)?)?;
            }
            if let Some(family) = family {
                set = set.intersection(&space.family(family)?)?;
            }
            Ok(set)
        };
        PacketSet::of(build())
    }

    fn __or__(&self, other: &PacketSet) -> PyResult<Self> {
        PacketSet::of(self.set.union(&other.set))
    }

    fn __and__(&self, other: &PacketSet) -> PyResult<Self> {
        PacketSet::of(self.set.intersection(&other.set))
    }

    fn __sub__(&self, other: &PacketSet) -> PyResult<Self> {
        PacketSet::of(self.set.difference(&other.set))
    }

    fn __invert__(&self) -> PyResult<Self> {
        PacketSet::of(self.set.complement())
    }

    fn __bool__(&self) -> bool {
        !self.set.is_empty()
    }

    fn __richcmp__(&self, other: &PacketSet, op: CompareOp) -> PyResult<bool> {
        let subset = |a: &space::PacketSet, b: &space::PacketSet| a.is_subset(b);
        let (a, b) = (&self.set, &other.set);
        let answer = match op {
            CompareOp::Eq => a.equals(b),
            CompareOp::Ne => a.equals(b).map(|e| !e),
            CompareOp::Le => subset(a, b),
            CompareOp::Ge => subset(b, a),
            CompareOp::Lt => subset(a, b).and_then(|s| Ok(s && !subset(b, a)?)),
            CompareOp::Gt => subset(b, a).and_then(|s| Ok(s && !subset(a, b)?)),
        };
        Ok(answer.map_err(Failure::from)?)
    }

    /// How many headers there are in it (int): addresses, protocol, ports or
    /// ICMP type and code, TCP flags, type of service.
    #[getter]
    fn count(&self, py: Python<'_>) -> PyResult<Py<PyAny>> {
        let digits = self.set.count().to_string();
        Ok(py.import("builtins")?.call_method1("int", (digits,))?.unbind())
    }

    /// One of its packets (dict[str, Any] | None), in the form of the
    /// packets of `lab --json trace`.
    fn example<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        plain(py, &self.set.example())
    }

    /// Lines that describe it, `tcp 10.0.0.0/8 -> any dport 22`, at most so
    /// many (list[str]).
    ///
    /// Args:
    ///     most (int): how many lines, at most.
    #[pyo3(signature = (most=32))]
    fn lines(&self, most: usize) -> PyResult<Vec<String>> {
        let (lines, _) = self.set.cover(most).map_err(Failure::from)?;
        Ok(lines.iter().map(ToString::to_string).collect())
    }

    fn __reduce__<'py>(&self, py: Python<'py>) -> PyResult<(Bound<'py, PyAny>, (String,))> {
        let text = serde_json::to_string(&self.set).map_err(Failure::from)?;
        Ok((py.get_type::<PacketSet>().getattr("from_json")?, (text,)))
    }

    /// The set in a form to keep (str).
    fn to_json(&self) -> PyResult<String> {
        Ok(serde_json::to_string(&self.set).map_err(Failure::from)?)
    }

    /// The set that `to_json` wrote.
    ///
    /// Args:
    ///     text (str): what it wrote.
    ///
    /// Raises:
    ///     QuestionError: the text is no packet set.
    #[staticmethod]
    fn from_json(text: &str) -> PyResult<Self> {
        let read = serde_json::from_str(text).map_err(|e| Error::Unfit(format!("not a packet set: {e}")));
        Ok(PacketSet { set: read.map_err(Failure::from)? })
    }

    fn __str__(&self) -> String {
        self.set.to_string()
    }

    fn __repr__(&self) -> String {
        format!("<{:?}>", self.set)
    }
}
