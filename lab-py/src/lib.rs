//! Python bindings of lab-core: arguments in, answers out, errors as
//! exceptions. Every decision is lab-core's.

mod answers;
mod changes;
mod error;
mod sets;

use std::net::IpAddr;
use std::path::PathBuf;

use lab_core::addr::Family;
use lab_core::formats::probes;
use lab_core::query::ends::{self, End};
use lab_core::query::trace::Question;
use lab_core::query::{self, observed, predict, show, trace};
use lab_core::{render, snapshot};
use pyo3::prelude::*;
use pyo3::types::{IntoPyDict, PyList};

use answers::{Checked, Matrix, Reach};
use changes::{Diff, Plan, Repair, RulesDiff};
use error::Failure;
use sets::PacketSet;

/// An end of a question as Python gives it.
#[derive(FromPyObject)]
enum Side {
    #[pyo3(annotation = "str")]
    Text(String),
    #[pyo3(annotation = "IPv4Address | IPv6Address")]
    Address(IpAddr),
}

impl Side {
    fn end(&self, lab: &lab_core::Lab) -> Result<End, query::Error> {
        match self {
            Side::Text(text) => ends::parse(lab, text),
            Side::Address(address) => Ok(End::Address(*address)),
        }
    }
}

/// An IP protocol as Python gives it.
#[derive(FromPyObject)]
enum Protocol {
    #[pyo3(annotation = "int")]
    Number(i64),
    #[pyo3(annotation = "str")]
    Name(String),
}

impl Protocol {
    fn name(self) -> String {
        match self {
            Protocol::Number(number) => number.to_string(),
            Protocol::Name(name) => name,
        }
    }
}

/// Probes as Python gives them.
#[derive(FromPyObject)]
enum Probes<'py> {
    #[pyo3(annotation = "str")]
    Text(String),
    #[pyo3(annotation = "list")]
    List(Bound<'py, PyList>),
}

fn family(name: &str) -> Result<Family, query::Error> {
    match name {
        "ipv4" => Ok(Family::Ipv4),
        "ipv6" => Ok(Family::Ipv6),
        other => Err(query::Error::Unfit(format!("family is `{other}`, not ipv4 or ipv6"))),
    }
}

/// An answer as Python's own values: what `json.loads` makes of its JSON, so
/// that it is to the letter what the command prints.
fn loads<'py>(py: Python<'py>, json: &str) -> PyResult<Bound<'py, PyAny>> {
    py.import("json")?.call_method1("loads", (json,))
}

fn plain<'py>(py: Python<'py>, answer: &(impl serde::Serialize + Sync)) -> PyResult<Bound<'py, PyAny>> {
    let json = py.detach(|| serde_json::to_string(answer)).map_err(Failure::from)?;
    loads(py, &json)
}

/// A Linux network, read from a snapshot folder. It never changes, and
/// threads may share it.
///
/// Make one with `Lab.open`.
#[pyclass(frozen, module = "lab_py")]
struct Lab {
    lab: lab_core::Lab,
    /// Where it was read from: probes and observations lie beside it.
    folder: PathBuf,
}

#[pymethods]
impl Lab {
    /// Reads the lab in a snapshot folder.
    ///
    /// Args:
    ///     path (str | os.PathLike[str]): the folder, with its `lab.toml`.
    ///
    /// Raises:
    ///     SnapshotError: the folder or a file cannot be read, leads out of
    ///         the folder, is too large, or does not follow its format; with
    ///         `file`, and `line` where there is one.
    #[staticmethod]
    fn open(py: Python<'_>, path: PathBuf) -> PyResult<Self> {
        let lab = py.detach(|| lab_core::Lab::open(&path)).map_err(Failure::from)?;
        Ok(Lab { lab, folder: path })
    }

    /// The lab's name (str).
    #[getter]
    fn name(&self) -> &str {
        &self.lab.name
    }

    /// A sentence about the lab (str | None).
    #[getter]
    fn description(&self) -> Option<&str> {
        self.lab.description.as_deref()
    }

    /// The names of the hosts, sorted (list[str]).
    #[getter]
    fn hosts(&self) -> Vec<&str> {
        self.lab.hosts.keys().map(String::as_str).collect()
    }

    /// Follows one packet from one end to another, and its reply back.
    ///
    /// An end is the name of a host, `HOST:IFACE`, or an address as text or
    /// as an object of `ipaddress`.
    ///
    /// Args:
    ///     from_ (str | IPv4Address | IPv6Address): who sends.
    ///     to (str | IPv4Address | IPv6Address): where to.
    ///     proto (str | int | None): icmp, tcp, udp, sctp, …, or the number
    ///         of an IP protocol, 0 to 255. None: tcp if `dport` is given,
    ///         else icmp, an echo request.
    ///     dport (int | None): destination port, 0 to 65535; tcp, udp and
    ///         sctp need it.
    ///     sport (int | None): source port, 0 to 65535. None: any that the
    ///         sender's kernel may pick.
    ///     mark (int): firewall mark of the sending socket, 32 bits.
    ///     family ("ipv4" | "ipv6" | None): which addresses to use where an
    ///         end has both. None: IPv4 if there is one.
    ///     full (bool): whether `str()` of the answer shows every chain, rule
    ///         and route, not just what decides.
    ///
    /// Returns:
    ///     Trace: every way that the packet can go.
    ///
    /// Raises:
    ///     QuestionError: an end is not there or has no address, the ends are
    ///         of two families, the protocol or family is unknown, or a port
    ///         is missing.
    ///     OverflowError: a port or the mark is out of range.
    #[pyo3(signature = (from_, to, *, proto=None, dport=None, sport=None, mark=0, family=None, full=false))]
    #[allow(clippy::too_many_arguments, reason = "they are keywords in Python")]
    fn trace(
        &self,
        py: Python<'_>,
        from_: Side,
        to: Side,
        proto: Option<Protocol>,
        dport: Option<u16>,
        sport: Option<u16>,
        mark: u32,
        family: Option<&str>,
        full: bool,
    ) -> PyResult<Trace> {
        let proto = proto.map(Protocol::name);
        let answer = py.detach(|| -> Result<_, Failure> {
            let (from, to) = (from_.end(&self.lab)?, to.end(&self.lab)?);
            let protocol = Question::protocol(proto.as_deref(), dport)?;
            let family = family.map(self::family).transpose()?;
            let question = Question { protocol, sport, dport, mark, family };
            Ok(trace::trace(&self.lab, &from, &to, &question)?)
        })?;
        Ok(Trace { answer, full })
    }

    /// Tells which packets get from where to where: all of them at once.
    ///
    /// Args:
    ///     from_ (str | IPv4Address | IPv6Address | None): who sends: a host,
    ///         `HOST:IFACE`, an address, a prefix, or `@outside`. None: every
    ///         host, and `@outside`.
    ///     to (str | IPv4Address | IPv6Address | None): where they should
    ///         arrive: a host, `HOST:IFACE`, an address or prefix as written
    ///         in the packet, or `@outside`. None: anywhere.
    ///     proto (str | int | None): the protocol. None: every one, or tcp if
    ///         `dport` is given.
    ///     dport (int | tuple[int, int] | None): destination port or ports,
    ///         first and last.
    ///     sport (int | tuple[int, int] | None): source port or ports.
    ///     family ("ipv4" | "ipv6" | None): one IP version alone.
    ///     and_back (bool): count only what is answered, and the answer comes
    ///         back.
    ///     any_packet (bool): any packets, not only those that open
    ///         connections.
    ///
    /// Returns:
    ///     Reach: the packets that arrive, and what keeps others from it.
    ///
    /// Raises:
    ///     QuestionError: an end is not there or cannot send, or the protocol
    ///         or family is unknown.
    #[pyo3(signature = (from_=None, to=None, *, proto=None, dport=None, sport=None, family=None, and_back=false, any_packet=false))]
    #[allow(clippy::too_many_arguments, reason = "they are keywords in Python")]
    fn reach(
        &self,
        py: Python<'_>,
        from_: Option<Side>,
        to: Option<Side>,
        proto: Option<Protocol>,
        dport: Option<sets::Ports>,
        sport: Option<sets::Ports>,
        family: Option<&str>,
        and_back: bool,
        any_packet: bool,
    ) -> PyResult<Reach> {
        let headers = sets::headers(proto, dport, sport, family, any_packet)?;
        let answer = py.detach(|| -> Result<_, Failure> {
            let end = |side: Option<Side>| side.map(|s| s.end(&self.lab)).transpose();
            let question = query::reach::Question { from: end(from_)?, to: end(to)?, headers, and_back };
            Ok(query::reach::reach(&self.lab, &question)?)
        })?;
        Ok(Reach { answer })
    }

    /// Tells who reaches whom, for some services: hosts by hosts.
    ///
    /// Args:
    ///     services (list[str]): `tcp/22`, `udp/53`, `icmp`.
    ///     family ("ipv4" | "ipv6" | None): which addresses of the hosts to
    ///         use. None: IPv4 if there is one.
    ///
    /// Returns:
    ///     Matrix: for each service, each pair of hosts.
    ///
    /// Raises:
    ///     QuestionError: a service or the family is unknown.
    #[pyo3(signature = (services=None, *, family=None))]
    fn matrix(
        &self,
        py: Python<'_>,
        services: Option<Vec<String>>,
        family: Option<&str>,
    ) -> PyResult<Matrix> {
        let answer = py.detach(|| -> Result<_, Failure> {
            let family = family.map(self::family).transpose()?;
            let services = match services {
                None => vec![query::matrix::Service::PING],
                Some(list) => list.iter().map(|s| s.parse()).collect::<Result<_, _>>()?,
            };
            Ok(query::matrix::matrix(&self.lab, &services, family)?)
        })?;
        Ok(Matrix { answer })
    }

    /// Judges a policy: who must reach whom, who must not, who alone may.
    ///
    /// Args:
    ///     policy (str | dict[str, Any]): the text of a policy file, or its
    ///         values.
    ///
    /// Returns:
    ///     Checked: each demand, and a counterexample for those not met.
    ///
    /// Raises:
    ///     QuestionError: the policy is none, or names an end or service that
    ///         is not there.
    fn check(&self, py: Python<'_>, policy: answers::Policy<'_>) -> PyResult<Checked> {
        let policy = policy.read(py)?;
        let answer = py.detach(|| query::policy::check(&self.lab, &policy)).map_err(Failure::from)?;
        Ok(Checked { answer })
    }

    /// The lab as it would be after some changes. Hosts that are not changed
    /// are shared with this one, which stays as it is.
    ///
    /// Args:
    ///     *changes (str): commands as typed on a host,
    ///         `HOST: iptables -I FORWARD 1 -s 10.0.0.0/8 -j ACCEPT`,
    ///         `HOST: ip route add …`, `HOST: ip link set eth0 down`,
    ///         `HOST: sysctl -w net.ipv4.ip_forward=0`.
    ///
    /// Returns:
    ///     Lab: the changed lab.
    ///
    /// Raises:
    ///     QuestionError: a change is not understood, or is about something
    ///         that is not there.
    #[pyo3(signature = (*changes))]
    fn what_if(&self, changes: Vec<String>) -> PyResult<Self> {
        let changes = changes.iter().map(|c| c.parse()).collect::<Result<Vec<_>, query::Error>>();
        let lab =
            query::what_if::what_if(&self.lab, &changes.map_err(Failure::from)?).map_err(Failure::from)?;
        Ok(Lab { lab, folder: self.folder.clone() })
    }

    /// Compares this lab with what it is to become: what is written otherwise,
    /// what each edited rule does, which flows are opened and cut.
    ///
    /// Args:
    ///     new (Lab): the lab after.
    ///     any_packet (bool): ask of any packets, not only those that open
    ///         connections.
    ///
    /// Returns:
    ///     Diff: the difference; false if there is none.
    ///
    /// Raises:
    ///     QuestionError: a rule set does not fit, or the packets fall into too
    ///         many parts.
    #[pyo3(signature = (new, *, any_packet=false))]
    fn diff(&self, py: Python<'_>, new: &Lab, any_packet: bool) -> PyResult<Diff> {
        let headers = query::flows::Headers { any: any_packet, ..Default::default() };
        let answer = py.detach(|| query::diff::whole::labs(&self.lab, &new.lab, &headers));
        Ok(Diff { answer: answer.map_err(Failure::from)?, old: self.lab.clone() })
    }

    /// Plans the way from this lab to another, step by step, so that no state
    /// between lets through what passes neither before nor after, or cuts what
    /// passes in both.
    ///
    /// Args:
    ///     new (Lab): the lab after.
    ///     keep (str | dict[str, Any] | None): a policy, as for `check`; what its
    ///         `keep` lines name passes in every state, or there is no plan.
    ///
    /// Returns:
    ///     Plan: the steps, or why there are none.
    ///
    /// Raises:
    ///     QuestionError: the policy is none, or a rule set does not fit.
    #[pyo3(signature = (new, *, keep=None))]
    fn plan(&self, py: Python<'_>, new: &Lab, keep: Option<answers::Policy<'_>>) -> PyResult<Plan> {
        let keep = keep.map(|policy| policy.read(py)).transpose()?.unwrap_or_default();
        let answer = py.detach(|| query::plan::plan(&self.lab, &new.lab, &keep));
        Ok(Plan { answer: answer.map_err(Failure::from)? })
    }

    /// Finds what must be changed for packets to pass and be answered, or not
    /// to pass.
    ///
    /// Args:
    ///     from_ (str | IPv4Address | IPv6Address): who sends.
    ///     to (str | IPv4Address | IPv6Address): where to.
    ///     proto (str | int | None): the protocol. None: every one, or tcp if
    ///         `dport` is given.
    ///     dport (int | tuple[int, int] | None): destination port or ports,
    ///         first and last.
    ///     sport (int | tuple[int, int] | None): source port or ports.
    ///     family ("ipv4" | "ipv6" | None): one IP version alone.
    ///     refuse (bool): find what stops these packets instead.
    ///
    /// Returns:
    ///     Repair: what stands in the way, and whole repairs, the narrowest
    ///         first.
    ///
    /// Raises:
    ///     QuestionError: an end is not there or cannot send, or the protocol
    ///         or family is unknown.
    #[pyo3(signature = (from_, to, *, proto=None, dport=None, sport=None, family=None, refuse=false))]
    #[allow(clippy::too_many_arguments, reason = "they are keywords in Python")]
    fn repair(
        &self,
        py: Python<'_>,
        from_: Side,
        to: Side,
        proto: Option<Protocol>,
        dport: Option<sets::Ports>,
        sport: Option<sets::Ports>,
        family: Option<&str>,
        refuse: bool,
    ) -> PyResult<Repair> {
        let headers = sets::headers(proto, dport, sport, family, false)?;
        let answer = py.detach(|| -> Result<_, Failure> {
            let (from, to) = (from_.end(&self.lab)?, to.end(&self.lab)?);
            let flow = query::repair::Flow { from, to, headers };
            let mut ask = query::repair::Ask::default();
            if refuse { &mut ask.refuse } else { &mut ask.pass }.push(flow);
            Ok(query::repair::repair(&self.lab, &ask)?)
        })?;
        Ok(Repair { answer })
    }

    /// Says what happens to each of a list of packets.
    ///
    /// Args:
    ///     probes (list[dict[str, Any]] | str | None): the packets in the
    ///         form of `probes.json`, as values or as JSON text; addresses
    ///         may be objects of `ipaddress`. None: the `probes.json` of the
    ///         snapshot folder, read now.
    ///
    /// Returns:
    ///     dict[str, Any]: the document of `lab predict`, one entry a probe
    ///         under `probes`.
    ///
    /// Raises:
    ///     SnapshotError: the snapshot's `probes.json` is missing or damaged.
    ///     QuestionError: the probes given do not follow their form, or start
    ///         at a host or interface that is not there.
    #[pyo3(signature = (probes=None))]
    fn predict<'py>(&self, py: Python<'py>, probes: Option<Probes<'py>>) -> PyResult<Bound<'py, PyAny>> {
        let given = match probes {
            None => None,
            Some(Probes::Text(text)) => Some((text, true)),
            Some(Probes::List(list)) => {
                // What JSON does not know, addresses above all, as its text.
                let options = [("default", py.get_type::<pyo3::types::PyString>())].into_py_dict(py)?;
                let text = py.import("json")?.call_method("dumps", (list,), Some(&options))?;
                Some((text.extract()?, false))
            }
        };
        let document = py.detach(|| -> Result<_, Failure> {
            let probes = match given {
                None => snapshot::read_probes(&self.folder)?,
                Some((text, written)) => {
                    probes::parse("<probes>", &text).map_err(|e| Failure::Probes(e, written))?
                }
            };
            predict::check(&self.lab, &probes)?;
            let predictions = predict::predict(&self.lab, &probes);
            let document = render::predictions::document(&self.lab.name, &predictions);
            Ok(serde_json::to_string(&document)?)
        })?;
        loads(py, &document)
    }

    /// Compares predictions with the `observed.json` of the snapshot folder.
    ///
    /// Returns:
    ///     list[dict[str, Any]]: one entry an observed probe, with `id`,
    ///         `question`, `certain`, and `disagreements`, a list of `field`,
    ///         `observed` and `predicted`; it is empty where both agree.
    ///
    /// Raises:
    ///     SnapshotError: the snapshot's `observed.json` is missing or
    ///         damaged.
    ///     QuestionError: it names a host that is not there.
    fn check_observed<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        let compared = py.detach(|| -> Result<_, Failure> {
            Ok(observed::check(&self.lab, &snapshot::read_observed(&self.folder)?)?)
        })?;
        plain(py, &compared)
    }

    /// Sums up what was understood of the lab, and what was not.
    ///
    /// Args:
    ///     host (str | None): only this host.
    ///
    /// Raises:
    ///     QuestionError: no host has that name.
    #[pyo3(signature = (host=None))]
    fn show(&self, py: Python<'_>, host: Option<&str>) -> PyResult<Summary> {
        let summary = py.detach(|| show::show(&self.lab, host)).map_err(Failure::from)?;
        Ok(Summary { summary })
    }

    fn __repr__(&self) -> String {
        format!("<Lab {:?}: {} hosts>", self.lab.name, self.lab.hosts.len())
    }
}

/// The answer of `Lab.trace`: every way that a packet can go, and its reply.
///
/// `str()` of it is its text.
#[pyclass(frozen, module = "lab_py")]
struct Trace {
    answer: trace::Trace,
    full: bool,
}

#[pymethods]
impl Trace {
    /// Whether all ways end alike and nothing unmodelled decides (bool).
    #[getter]
    fn certain(&self) -> bool {
        self.answer.certain
    }

    /// Whether the packet certainly arrives and its reply certainly comes
    /// back (bool).
    #[getter]
    fn holds(&self) -> bool {
        self.answer.holds()
    }

    /// The answer as data (dict[str, Any]): what `lab --json trace` prints.
    fn to_dict<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        plain(py, &self.answer)
    }

    /// The answer as text (str): what `lab trace` prints.
    ///
    /// Args:
    ///     full (bool | None): show every chain, rule and route, not just
    ///         what decides. None: as `Lab.trace` was asked.
    #[pyo3(signature = (full=None))]
    fn text(&self, full: Option<bool>) -> String {
        render::trace(&self.answer, full.unwrap_or(self.full))
    }

    fn __str__(&self) -> String {
        self.text(None)
    }

    fn __repr__(&self) -> String {
        let word = |yes| if yes { "True" } else { "False" };
        let (from, to) = (&self.answer.from, self.answer.to);
        let (certain, holds) = (word(self.answer.certain), word(self.answer.holds()));
        format!("<Trace {from:?} -> {to}: certain={certain}, holds={holds}>")
    }
}

/// The answer of `Lab.show`: a lab in short.
///
/// `str()` of it is its text.
#[pyclass(frozen, module = "lab_py")]
struct Summary {
    summary: show::Summary,
}

#[pymethods]
impl Summary {
    /// The summary as data (dict[str, Any]): what `lab --json show` prints.
    fn to_dict<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        plain(py, &self.summary)
    }

    fn __str__(&self) -> String {
        render::summary(&self.summary)
    }

    fn __repr__(&self) -> String {
        format!("<Summary {:?}: {} hosts>", self.summary.name, self.summary.hosts.len())
    }
}

/// The compiled part of lab_py.
#[pymodule]
mod _lab_py {
    use pyo3::prelude::*;

    #[pymodule_export]
    use super::changes::diff_rules;
    #[pymodule_export]
    use super::error::{LabError, QuestionError, SnapshotError};
    #[pymodule_export]
    use super::{Checked, Diff, Lab, Matrix, PacketSet, Plan, Reach, Repair, RulesDiff, Summary, Trace};

    #[pymodule_export]
    #[allow(non_upper_case_globals, reason = "the name that Python programs look for")]
    const __version__: &str = env!("CARGO_PKG_VERSION");

    #[pymodule_init]
    fn init(module: &Bound<'_, PyModule>) -> PyResult<()> {
        super::error::declare(module.py())
    }
}
