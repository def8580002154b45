//! Who reaches whom, for some services: hosts by hosts.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use serde::{Serialize, Serializer};

use super::ends::{self, End};
use super::flows::{Asker, Headers, Home};
use super::trace::ephemeral;
use super::Error;
use crate::addr::{Family, PortRange};
use crate::engine::symbolic::{Ending, Flowed};
use crate::formats::probes::protocol_number;
use crate::model::{Decision, Host, Lab, PortValue};
use crate::space::{Field, Ref};

/// A service: `tcp/22`, `udp/53`, `tcp/8000-8080`, `tcp`, `icmp`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Service {
    /// IP protocol number; ICMP (1) stands for ICMPv6 in IPv6.
    pub protocol: u8,
    /// Destination ports, of protocols that have ports; none: all.
    pub ports: Option<PortRange>,
}

impl Service {
    /// An echo request and its reply.
    pub const PING: Service = Service { protocol: 1, ports: None };

    /// A TCP service.
    pub fn tcp(port: u16) -> Self {
        Service { protocol: 6, ports: Some(port.into()) }
    }

    fn has_ports(self) -> bool {
        matches!(self.protocol, 6 | 17 | 132)
    }
}

impl FromStr for Service {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let unfit =
            || Error::Unfit(format!("`{text}` is no service: write tcp/22, udp/5000-5100, tcp or icmp"));
        let (name, ports) = match text.split_once('/') {
            Some((name, ports)) => {
                let (low, high) = ports.split_once('-').unwrap_or((ports, ports));
                let bound = |port: &str| port.parse::<u16>().map_err(|_| unfit());
                (name, Some(PortRange { low: bound(low)?, high: bound(high)? }))
            }
            None => (text, None),
        };
        let service = Service { protocol: protocol_number(name).ok_or_else(unfit)?, ports };
        if ports.is_some_and(|p| !service.has_ports() || p.low > p.high) {
            return Err(unfit());
        }
        Ok(service)
    }
}

impl fmt::Display for Service {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.protocol {
            1 => f.write_str("icmp")?,
            6 => f.write_str("tcp")?,
            17 => f.write_str("udp")?,
            132 => f.write_str("sctp")?,
            other => write!(f, "{other}")?,
        }
        match self.ports {
            None => Ok(()),
            Some(ports) if ports.low == ports.high => write!(f, "/{}", ports.low),
            Some(ports) => write!(f, "/{}-{}", ports.low, ports.high),
        }
    }
}

impl Serialize for Service {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// Whether one host reaches another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Answer {
    /// It certainly arrives, and the answer comes back.
    Yes,
    /// It certainly does not arrive, or the answer does not come back.
    No,
    /// That depends on chance, or on what is not modelled.
    Possible,
    /// The other has no address of a family that the first has.
    NoAddress,
}

/// One host to another, for one service.
#[derive(Clone, Debug, Serialize)]
pub struct Cell {
    /// Who sends.
    pub from: String,
    /// Who is meant.
    pub to: String,
    /// The service.
    pub service: Service,
    /// The address it is sent to.
    pub address: Option<IpAddr>,
    /// Whether it arrives and is answered.
    pub answer: Answer,
    /// What keeps it, or its answer, from arriving; several where that depends
    /// on chance.
    pub by: Vec<Decision>,
    /// Whether it is the answer that does not come back.
    pub on_the_way_back: bool,
    /// Where the answer goes instead.
    pub astray: Vec<String>,
}

/// Hosts by hosts.
#[derive(Clone, Debug, Serialize)]
pub struct Matrix {
    /// The form of this value: `lab.matrix/1`.
    pub schema: &'static str,
    /// The hosts, in order.
    pub hosts: Vec<String>,
    /// The services, as asked.
    pub services: Vec<Service>,
    /// For each service, each sender, each other host.
    pub cells: Vec<Cell>,
}

impl Matrix {
    /// One cell.
    pub fn cell(&self, service: Service, from: &str, to: &str) -> Option<&Cell> {
        self.cells.iter().find(|c| c.service == service && c.from == from && c.to == to)
    }

    /// Whether everybody certainly reaches everybody.
    pub fn holds(&self) -> bool {
        self.cells.iter().all(|c| c.answer == Answer::Yes)
    }
}

/// What flows say of one sender's packets.
#[derive(Default)]
struct Said {
    answered: Vec<Ref>,
    refused: BTreeMap<(bool, Decision), Ref>,
    astray: BTreeMap<String, Ref>,
    unclaimed: Vec<Ref>,
}

/// Asks for every pair of hosts whether services are reached: with the address
/// that a user of the one would write for the other
/// ([`ends::address_from`]), from any port that a client's kernel picks.
///
/// Cost: one run of the engine for each host, over all services and receivers
/// at once.
///
/// # Errors
/// Packet sets that outgrow their budget.
pub fn matrix(lab: &Lab, services: &[Service], family: Option<Family>) -> Result<Matrix, Error> {
    let mut asker = Asker::new(lab);
    let hosts: Vec<String> = lab.hosts.keys().cloned().collect();
    let mut cells = Vec::new();
    for from in lab.all_hosts() {
        let receivers = lab.hosts.keys().filter(|to| **to != from.name).collect();
        cells.extend(row(&mut asker, services, family, from, &receivers)?);
    }
    cells.sort_by_key(|c| services.iter().position(|s| *s == c.service));
    Ok(Matrix { schema: "lab.matrix/1", hosts, services: services.to_vec(), cells })
}

/// The cells of one sender and some receivers.
///
/// # Errors
/// A sender that does not exist; packet sets that outgrow their budget.
pub fn matrix_between(
    lab: &Lab,
    services: &[Service],
    family: Option<Family>,
    from: &str,
    to: &BTreeSet<&String>,
) -> Result<Vec<Cell>, Error> {
    row(&mut Asker::new(lab), services, family, ends::host(lab, from)?, to)
}

fn row<'a>(
    asker: &mut Asker<'a>,
    services: &[Service],
    family: Option<Family>,
    from: &'a Host,
    to: &BTreeSet<&String>,
) -> Result<Vec<Cell>, Error> {
    let mut cells = Vec::new();
    let targets: Vec<(&String, Option<IpAddr>)> = to
        .iter()
        .filter_map(|name| asker.lab.host(name).map(|host| (*name, host)))
        .map(|(name, host)| (name, ends::address_from(from, host, family)))
        .collect();
    let addresses: Vec<IpAddr> = targets.iter().filter_map(|(_, a)| *a).collect();
    let wanted = asker.to_addresses(&addresses)?;
    let mut by_service = Vec::new();
    for service in services {
        let dport = service.ports;
        let sport = match ephemeral(from) {
            PortValue::Fresh(range) if service.has_ports() => Some(range),
            _ => None,
        };
        let headers = Headers { protocol: Some(service.protocol), sport, dport, family: None, any: false };
        let set = asker.headers(&headers)?;
        by_service.push(asker.engine.store().guard(wanted, set)?);
    }
    let all = asker.engine.store().first_of(&by_service)?;
    let end = End::Host(from.name.clone());
    let flows = asker.send(&end, all)?;
    let said = listen(asker, &end, &flows)?;
    for (service, set) in services.iter().zip(by_service) {
        for (to, address) in &targets {
            cells.push(cell(asker, &said, set, *service, &from.name, to, *address)?);
        }
    }
    Ok(cells)
}

fn listen(asker: &mut Asker, from: &End, flows: &[Flowed]) -> Result<Said, Error> {
    let mut said = Said::default();
    for flowed in flows {
        if !flowed.flow.unknown.is_empty() {
            said.unclaimed.push(flowed.flow.set);
            continue;
        }
        let replies = match (&flowed.ending, Home::of(flowed, from)) {
            (Ending::Rejected(by) | Ending::Dropped(by), _) => {
                refuse(asker, &mut said, false, by, flowed.flow.set)?;
                continue;
            }
            (_, Some(home)) => asker.replies(flowed)?.map(|replies| (home, replies)),
            _ => None,
        };
        let Some((home, replies)) = replies else {
            // It left the lab: who answers there is not known.
            said.unclaimed.push(flowed.flow.set);
            continue;
        };
        for reply in replies {
            let set = asker.engine.store().guard(flowed.flow.set, reply.flow.set)?;
            match &reply.ending {
                _ if !reply.flow.unknown.is_empty() => said.unclaimed.push(set),
                _ if Asker::is_home(&reply, &home) => said.answered.push(set),
                Ending::Rejected(by) | Ending::Dropped(by) => refuse(asker, &mut said, true, by, set)?,
                Ending::Delivered(at) | Ending::ForwardedOut(at) => {
                    let known = said.astray.entry(at.to_string()).or_insert(Ref::NONE);
                    *known = asker.engine.store().or_else(*known, set)?;
                }
            }
        }
    }
    Ok(said)
}

fn refuse(asker: &mut Asker, said: &mut Said, back: bool, by: &Decision, set: Ref) -> Result<(), Error> {
    let known = said.refused.entry((back, by.clone())).or_insert(Ref::NONE);
    *known = asker.engine.store().or_else(*known, set)?;
    Ok(())
}

fn cell(
    asker: &mut Asker,
    said: &Said,
    set: Ref,
    service: Service,
    from: &str,
    to: &str,
    address: Option<IpAddr>,
) -> Result<Cell, Error> {
    let mut cell = Cell {
        from: from.to_owned(),
        to: to.to_owned(),
        service,
        address,
        answer: Answer::NoAddress,
        by: Vec::new(),
        on_the_way_back: false,
        astray: Vec::new(),
    };
    let Some(address) = address else { return Ok(cell) };
    let store = asker.engine.store();
    let family = store.family(Family::of(address))?;
    let is = store.is_address(Field::Dst, address)?;
    let mine = store.all_of(&[family, is, set])?;
    let mut any = |sets: &[Ref]| -> Result<bool, Error> {
        for other in sets {
            if !store.guard(mine, *other)?.is_none() {
                return Ok(true);
            }
        }
        Ok(false)
    };
    let (answered, unclaimed) = (any(&said.answered)?, any(&said.unclaimed)?);
    for ((back, by), refused) in &said.refused {
        if any(&[*refused])? {
            cell.by.push(by.clone());
            cell.on_the_way_back |= *back;
        }
    }
    for (at, set) in &said.astray {
        if any(&[*set])? {
            cell.astray.push(at.clone());
        }
    }
    let lost = !cell.by.is_empty() || !cell.astray.is_empty();
    cell.answer = match (answered, !lost, unclaimed) {
        (true, true, false) => Answer::Yes,
        (false, false, false) => Answer::No,
        _ => Answer::Possible,
    };
    Ok(cell)
}
