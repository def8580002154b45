//! One packet's way there, and its answer's way back.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use super::ends::{self, End};
use super::{Error, WAYS};
use crate::addr::{Family, PortRange};
use crate::engine::explore::{all, Choices};
use crate::engine::journey::Journey;
use crate::engine::stepper::{walk, Entry, Sender, World};
use crate::formats::probes::{protocol_number, transport_header};
use crate::model::{
    AddressType, AnswerKind, Host, Lab, Outcome, Packet, Payload, Place, PortValue, TcpFlags, Transport,
};
use crate::semantics::addrtype::address_type;
use crate::semantics::icmp;

/// What is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Question {
    /// IP protocol number; ICMP (1) stands for ICMPv6 where the addresses
    /// are IPv6.
    pub protocol: u8,
    /// Source port; none: any that the sender's kernel picks.
    pub sport: Option<u16>,
    /// Destination port, of protocols that have ports.
    pub dport: Option<u16>,
    /// Firewall mark of the socket.
    pub mark: u32,
    /// Which family to use where an end has both.
    pub family: Option<Family>,
}

impl Default for Question {
    /// A ping.
    fn default() -> Self {
        Question { protocol: 1, sport: None, dport: None, mark: 0, family: None }
    }
}

impl Question {
    /// The protocol that is meant: the one named, or else TCP where there is a
    /// destination port and ICMP where there is none.
    ///
    /// ```
    /// use lab_core::query::trace::Question;
    /// assert_eq!(Question::protocol(Some("udp"), Some(53)), Ok(17));
    /// assert_eq!(Question::protocol(None, Some(22)), Ok(6));
    /// assert_eq!(Question::protocol(None, None), Ok(1));
    /// ```
    ///
    /// # Errors
    /// A name that is no protocol's.
    pub fn protocol(name: Option<&str>, dport: Option<u16>) -> Result<u8, Error> {
        match (name, dport) {
            (Some(name), _) => {
                protocol_number(name).ok_or_else(|| Error::Unfit(format!("unknown protocol `{name}`")))
            }
            (None, Some(_)) => Ok(6),
            (None, None) => Ok(1),
        }
    }
}

/// What a host answers to a packet that was delivered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reply {
    /// What a program would: an echo reply, a SYN,ACK, a datagram.
    Service,
    /// An ICMP error of this type and code, for want of a program.
    Error(u8, u8),
}

/// There and back again.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RoundTrip {
    /// The packet as it was sent.
    pub sent: Packet,
    /// Its way.
    pub there: Journey,
    /// The reply's way, if the packet was delivered.
    pub back: Option<Journey>,
    /// Whether the reply (or the answer to a rejected packet) reached the
    /// sender.
    pub answered: bool,
    /// The TTL that the sender sees on the reply or answer.
    pub reply_ttl: Option<u8>,
    /// The source address that the destination sees.
    pub seen_source: Option<IpAddr>,
}

/// The answer to a trace question.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Trace {
    /// The form of this value: `lab.trace/1`.
    pub schema: String,
    /// The sending host, or the address outside that sends.
    pub from: String,
    /// The destination address.
    pub to: IpAddr,
    /// Who has it.
    pub to_host: Option<String>,
    /// Whether all ways end alike and nothing unmodelled decides.
    pub certain: bool,
    /// Every way it can go; ways that end alike are listed once.
    pub ways: Vec<RoundTrip>,
    /// What decides between them.
    pub reasons: Vec<String>,
    /// Whether there are more ways than were followed.
    pub cut: bool,
}

impl Trace {
    /// Whether the packet certainly arrives and its reply comes back.
    pub fn holds(&self) -> bool {
        self.certain && self.ways.iter().all(|w| w.back.is_some() && w.answered)
    }
}

/// Bytes that ping and our other questions carry.
const PAYLOAD: u32 = 56;

/// The ports that a host's kernel picks from for a client
/// (`net.ipv4.ip_local_port_range`).
pub fn ephemeral(host: &Host) -> PortValue {
    let setting = host.sysctls.0.get("net.ipv4.ip_local_port_range");
    let numbers = setting.map(|s| s.split_whitespace().map(str::parse).collect::<Result<Vec<u16>, _>>());
    match numbers {
        Some(Ok(ports)) if ports.len() == 2 => PortValue::Fresh(PortRange { low: ports[0], high: ports[1] }),
        _ => PortValue::EPHEMERAL,
    }
}

fn packet(question: &Question, any: PortValue, src: IpAddr, dst: IpAddr, ttl: u8) -> Result<Packet, Error> {
    let sport = question.sport.map_or(any, PortValue::Is);
    let dport = || {
        question
            .dport
            .map(PortValue::Is)
            .ok_or_else(|| Error::Unfit("this protocol needs a destination port (--dport)".into()))
    };
    let v4 = dst.is_ipv4();
    let id = PortValue::Is(1);
    let transport = match question.protocol {
        1 | 58 if v4 => Transport::Icmp { kind: 8, code: 0, id },
        1 | 58 => Transport::Icmp6 { kind: 128, code: 0, id },
        6 => Transport::Tcp { sport, dport: dport()?, flags: TcpFlags(TcpFlags::SYN) },
        17 => Transport::Udp { sport, dport: dport()? },
        132 => Transport::Sctp { sport, dport: dport()?, init: true },
        other => Transport::Other(other),
    };
    let carried = if matches!(transport, Transport::Tcp { .. }) { 0 } else { PAYLOAD };
    let header = if v4 { 20 } else { 40 };
    Ok(Packet {
        src,
        dst,
        ttl,
        tos: 0,
        length: header + transport_header(&transport) + carried,
        df: v4,
        fragment: None,
        mark: question.mark,
        transport,
        payload: Payload::Data,
    })
}

fn unspecified(like: IpAddr) -> IpAddr {
    match like {
        IpAddr::V4(_) => std::net::Ipv4Addr::UNSPECIFIED.into(),
        IpAddr::V6(_) => std::net::Ipv6Addr::UNSPECIFIED.into(),
    }
}

fn to_everybody(host: &Host, address: IpAddr) -> bool {
    matches!(address_type(host, address, None), Ok(AddressType::Broadcast | AddressType::Multicast))
}

/// What a host sends back for a packet as it saw it.
fn reply_to(host: &Host, seen: &Packet, reply: Reply) -> Packet {
    if let Reply::Error(kind, code) = reply {
        let kind =
            if seen.dst.is_ipv4() { AnswerKind::Icmp(kind, code) } else { AnswerKind::Icmp6(kind, code) };
        return icmp::error(host, seen, kind, seen.dst);
    }
    let transport = match seen.transport {
        Transport::Tcp { sport, dport, .. } => {
            Transport::Tcp { sport: dport, dport: sport, flags: TcpFlags(TcpFlags::SYN | TcpFlags::ACK) }
        }
        Transport::Udp { sport, dport } => Transport::Udp { sport: dport, dport: sport },
        Transport::Sctp { sport, dport, .. } => Transport::Sctp { sport: dport, dport: sport, init: false },
        Transport::Icmp { code, id, .. } => Transport::Icmp { kind: 0, code, id },
        Transport::Icmp6 { code, id, .. } => Transport::Icmp6 { kind: 129, code, id },
        Transport::Other(number) => Transport::Other(number),
    };
    // What was sent to everybody is answered from an address of one's own.
    let own = host.interface_with(seen.dst).is_some();
    Packet {
        src: if own || !to_everybody(host, seen.dst) { seen.dst } else { unspecified(seen.dst) },
        dst: seen.src,
        ttl: icmp::default_ttl(host, seen.family()),
        tos: 0,
        length: seen.length,
        df: seen.df,
        fragment: None,
        mark: 0,
        transport,
        payload: Payload::Data,
    }
}

/// Sends a packet into a quiet network, and the reply back to where it came
/// from.
pub fn round_trip(lab: &Lab, choices: &mut Choices, from: &Entry, sent: &Packet, reply: Reply) -> RoundTrip {
    let mut world = World::default();
    let there = walk(lab, &mut world, choices, from, sent);
    // Home again: received by the sending host, or out where it came in.
    let home = |outcome: &Outcome| match (from, outcome) {
        (Entry::Send(host, _), Outcome::Delivered { at, seen }) if at.host == *host => Some(seen.ttl),
        (Entry::Arrive(place), Outcome::ForwardedOut { at, seen }) if at == place => Some(seen.ttl),
        _ => None,
    };
    let mut trip = RoundTrip {
        sent: first_header(&there).unwrap_or_else(|| sent.clone()),
        there,
        back: None,
        answered: false,
        reply_ttl: None,
        seen_source: None,
    };
    match &trip.there.outcome {
        Outcome::Delivered { at, seen } => {
            trip.seen_source = Some(seen.src);
            if let Some(host) = lab.hosts.get(&at.host) {
                let answer = reply_to(host, seen, reply);
                let entry = Entry::Send(at.host.clone(), Sender::Socket);
                let back = walk(lab, &mut world, choices, &entry, &answer);
                trip.reply_ttl = home(&back.outcome);
                trip.answered = trip.reply_ttl.is_some();
                trip.back = Some(back);
            }
        }
        Outcome::Rejected { answer, .. } => {
            trip.answered = answer.came_back;
            trip.reply_ttl = answer.received.as_ref().filter(|_| answer.came_back).map(|(_, p)| p.ttl);
        }
        Outcome::ForwardedOut { seen, .. } => trip.seen_source = Some(seen.src),
        Outcome::Dropped { .. } => {}
    }
    trip
}

/// The header as the packet left, with the source that the kernel chose.
fn first_header(journey: &Journey) -> Option<Packet> {
    journey.hops().next().map(|h| h.packet.clone())
}

/// Two round trips that a user would call the same answer.
fn alike(a: &RoundTrip, b: &RoundTrip) -> bool {
    let end = |t: &RoundTrip| {
        let decision = t.there.outcome.decision().cloned();
        let at = match &t.there.outcome {
            Outcome::Delivered { at, seen } => Some((at.host.clone(), seen.dst, seen.transport.ports())),
            Outcome::ForwardedOut { at, seen } => Some((at.to_string(), seen.dst, seen.transport.ports())),
            Outcome::Rejected { .. } | Outcome::Dropped { .. } => None,
        };
        let back = t.back.as_ref().map(|j| (j.outcome.name(), j.outcome.decision().cloned()));
        (decision, at, back, t.answered, t.reply_ttl, t.seen_source)
    };
    end(a) == end(b)
}

/// Groups round trips that end alike: the first of each kind is kept.
pub fn distinct(trips: Vec<RoundTrip>) -> Vec<RoundTrip> {
    let mut kept: Vec<RoundTrip> = Vec::new();
    for trip in trips {
        if !kept.iter().any(|k| alike(k, &trip)) {
            kept.push(trip);
        }
    }
    kept
}

/// Who sends: the host where the packet enters, its source address if the end
/// names one, and how it enters.
struct From<'a> {
    host: &'a Host,
    source: Option<IpAddr>,
    entry: Entry,
    name: String,
}

/// Whatever lies outside sends by the one interface that leads out.
fn outside(lab: &Lab, source: IpAddr) -> Result<From<'_>, Error> {
    let mut doors = lab.hosts.values().flat_map(|h| {
        h.interfaces.iter().filter(move |i| lab.leads_out(&h.name, i)).map(move |i| (h, i.name.as_str()))
    });
    match (doors.next(), doors.next()) {
        (Some((host, iface)), None) => {
            let place = Place { host: host.name.clone(), iface: iface.to_owned() };
            let name = format!("{source} by {place}");
            Ok(From { host, source: Some(source), entry: Entry::Arrive(place), name })
        }
        (None, _) => Err(Error::Unfit(format!(
            "no host of the lab has the address {source}, and no interface leads out of the lab"
        ))),
        (Some(_), Some(_)) => Err(Error::Unfit(format!(
            "no host of the lab has the address {source}, and several interfaces lead out of the lab"
        ))),
    }
}

fn sender<'a>(lab: &'a Lab, from: &End, family: Option<Family>) -> Result<From<'a>, Error> {
    let own = |host: &'a Host, source| From {
        host,
        source,
        entry: Entry::Send(host.name.clone(), Sender::Socket),
        name: host.name.clone(),
    };
    match from {
        End::Host(name) => Ok(own(ends::host(lab, name)?, None)),
        End::Interface(place) => {
            let host = ends::host(lab, &place.host)?;
            let address = host.interface(&place.iface).and_then(|i| ends::address_of(i, family));
            match address {
                Some(address) => Ok(own(host, Some(address))),
                None => Err(Error::Unfit(format!("{place} has no address to send from"))),
            }
        }
        End::Address(address) => match ends::owner(lab, *address) {
            Some(host) => Ok(own(host, Some(*address))),
            None => outside(lab, *address),
        },
        End::Prefix(_) | End::Outside => Err(Error::Unfit(format!("{from} is not one sender"))),
    }
}

/// Traces a packet from one end to another, and the reply back.
///
/// # Errors
/// An end that does not exist or has no address; a protocol that needs a
/// destination port and has none.
pub fn trace(lab: &Lab, from: &End, to: &End, question: &Question) -> Result<Trace, Error> {
    let wanted = match (from, to) {
        (_, End::Address(a)) | (End::Address(a), _) => Some(Family::of(*a)),
        _ => question.family,
    };
    let From { host, source, entry, name } = sender(lab, from, wanted)?;
    let target = match to {
        End::Address(address) => *address,
        End::Host(name) => {
            let target = ends::host(lab, name)?;
            ends::address_from(host, target, wanted)
                .ok_or_else(|| Error::Unfit(format!("{name} has no address to send to")))?
        }
        End::Interface(place) => ends::host(lab, &place.host)?
            .interface(&place.iface)
            .and_then(|i| ends::address_of(i, wanted))
            .ok_or_else(|| Error::Unfit(format!("{place} has no address to send to")))?,
        End::Prefix(_) | End::Outside => {
            return Err(Error::Unfit(format!("{to} is not one address to send to")));
        }
    };
    let family = Family::of(target);
    if source.is_some_and(|s| Family::of(s) != family) {
        return Err(Error::Unfit("the two ends are of different families".into()));
    }
    let ttl = icmp::default_ttl(host, family);
    let sent = packet(question, ephemeral(host), source.unwrap_or_else(|| unspecified(target)), target, ttl)?;
    Ok(follow(lab, name, &entry, &sent))
}

/// Traces a packet as it stands, sent from an end, and the reply back.
///
/// # Errors
/// An end that does not exist or cannot send it.
pub fn of_packet(lab: &Lab, from: &End, packet: &Packet) -> Result<Trace, Error> {
    let from = match from {
        End::Host(_) | End::Interface(_) => from.clone(),
        End::Address(_) | End::Prefix(_) | End::Outside => End::Address(packet.src),
    };
    let From { entry, name, .. } = sender(lab, &from, Some(packet.family()))?;
    Ok(follow(lab, name, &entry, packet))
}

fn follow(lab: &Lab, name: String, entry: &Entry, sent: &Packet) -> Trace {
    let target = sent.dst;
    let explored = all(WAYS, |choices| round_trip(lab, choices, entry, sent, Reply::Service));
    let ways = distinct(explored.results);
    let known = |j: &Journey| j.unknown.is_empty();
    let certain =
        !explored.cut && ways.len() == 1 && ways.iter().all(|w| known(&w.there) && w.back.iter().all(known));
    Trace {
        schema: "lab.trace/1".into(),
        from: name,
        to: target,
        to_host: ends::owner(lab, target).map(|h| h.name.clone()),
        certain,
        ways,
        reasons: explored.reasons,
        cut: explored.cut,
    }
}
