//! What the questions about all packets share: who sends which packets, which
//! of them arrive, and what comes back.

use std::net::IpAddr;

use ipnet::IpNet;

use super::ends::{self, End};
use super::Error;
use crate::addr::{Family, PortRange};
use crate::engine::symbolic::{Ending, Flow, Flowed, Sending, Symbolic};
use crate::model::{Host, Lab, Place, RouteKind, TcpFlags};
use crate::semantics::icmp;
use crate::space::{Field, Ref, Source};

/// Which packets are asked about: the first of new connections, by default of
/// every protocol and port.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Headers {
    /// IP protocol number; ICMP (1) stands for ICMPv6 (58) in IPv6.
    pub protocol: Option<u8>,
    /// Source ports.
    pub sport: Option<PortRange>,
    /// Destination ports.
    pub dport: Option<PortRange>,
    /// The IP version.
    pub family: Option<Family>,
    /// Whether any packet is meant, and not only those that open connections:
    /// to one receiver (no group's and nobody's broadcast address), TCP with SYN alone, echo requests, SCTP INIT, type of
    /// service 0.
    pub any: bool,
}

/// The length of the packets asked about, in bytes: a small one.
const LENGTH: u32 = 60;

/// The hops left of packets that come from outside.
const OUTSIDE_TTL: u8 = 64;

/// An engine, and the questions it is asked.
pub struct Asker<'a> {
    /// The lab.
    pub lab: &'a Lab,
    /// The engine.
    pub engine: Symbolic<'a>,
}

impl<'a> Asker<'a> {
    /// An asker for a lab. Ask one several questions: what it learns of the
    /// lab's chains and routes it keeps.
    pub fn new(lab: &'a Lab) -> Self {
        Asker { lab, engine: Symbolic::new(lab) }
    }

    /// The packets that are asked about.
    ///
    /// # Errors
    /// If the packet sets outgrow their budget.
    pub fn headers(&mut self, asked: &Headers) -> Result<Ref, Error> {
        self.headers_beside(asked, self.lab)
    }

    /// The same, where another lab is asked, too: addresses that are nobody's
    /// own in either are left out of both.
    ///
    /// # Errors
    /// If the packet sets outgrow their budget.
    pub fn headers_beside(&mut self, asked: &Headers, other: &Lab) -> Result<Ref, Error> {
        let store = &mut self.engine.sets.store;
        let mut parts = vec![store.headers()?];
        if let Some(protocol) = asked.protocol {
            let mut set = store.value(Field::Protocol, protocol.into())?;
            if protocol == 1 {
                let v4 = store.family(Family::Ipv4)?;
                let six = store.value(Field::Protocol, 58)?;
                set = store.choose(v4, set, six)?;
            }
            parts.push(set);
        }
        for (field, range) in [(Field::Dport, asked.dport), (Field::Sport, asked.sport)] {
            if let Some(range) = range {
                let with_ports = store.with_ports()?;
                let range = store.range(field, range.low.into(), range.high.into())?;
                parts.push(store.guard(with_ports, range)?);
            }
        }
        if let Some(family) = asked.family {
            parts.push(store.family(family)?);
        }
        if !asked.any {
            let first = [
                (6, Field::TcpFlags, u128::from(TcpFlags::SYN)),
                (1, Field::IcmpType, 8),
                (58, Field::IcmpType, 128),
                (132, Field::SctpInit, 1),
            ];
            for (protocol, field, value) in first {
                let is = store.value(Field::Protocol, protocol)?;
                let opens = store.value(field, value)?;
                parts.push(store.choose(is, opens, Ref::ALL)?);
            }
            parts.push(store.value(Field::IcmpCode, 0)?);
            parts.push(store.value(Field::Tos, 0)?);
            let mut groups: Vec<IpNet> = Vec::new();
            for group in ["224.0.0.0/4", "255.255.255.255/32", "ff00::/8", "0.0.0.0/32", "::/128"] {
                groups.push(group.parse().map_err(|_| Error::Unfit(group.into()))?);
            }
            let routes = self.lab.all_hosts().chain(other.all_hosts()).flat_map(|h| &h.routes);
            groups.extend(routes.filter(|r| r.kind == RouteKind::Broadcast).map(|r| r.destination));
            groups.sort_unstable();
            groups.dedup();
            for net in groups {
                let family = store.family(Family::of(net.addr()))?;
                let group = store.in_prefix(Field::Dst, net)?;
                let group = store.guard(family, group)?;
                parts.push(store.not(group)?);
            }
        }
        Ok(store.all_of(&parts)?)
    }

    /// Packets to certain addresses.
    ///
    /// # Errors
    /// If the packet sets outgrow their budget.
    pub fn to_addresses(&mut self, addresses: &[IpAddr]) -> Result<Ref, Error> {
        self.addressed(Field::Dst, addresses.iter().map(|a| IpNet::from(*a)))
    }

    /// Packets with a field in one of some prefixes.
    pub(super) fn addressed(
        &mut self,
        field: Field,
        nets: impl IntoIterator<Item = IpNet>,
    ) -> Result<Ref, Error> {
        let store = self.engine.store();
        let mut parts = Vec::new();
        for net in nets {
            let family = store.family(Family::of(net.addr()))?;
            let set = store.in_prefix(field, net)?;
            parts.push(store.guard(family, set)?);
        }
        Ok(store.first_of(&parts)?)
    }

    /// Sends packets from an end, and follows them. A host sends with the
    /// sources that its routes choose; an interface or address with its own;
    /// `@outside`, and addresses that nobody in the lab has, by every interface
    /// that leads out.
    ///
    /// # Errors
    /// An end that does not exist or cannot send; packet sets that outgrow
    /// their budget.
    pub fn send(&mut self, from: &End, set: Ref) -> Result<Vec<Flowed>, Error> {
        match from {
            End::Host(name) => {
                let host = ends::host(self.lab, name)?;
                self.send_from(host, set, Sending::Socket)
            }
            End::Interface(place) => {
                let host = ends::host(self.lab, &place.host)?;
                let addresses = host.interface(&place.iface).map(|i| &i.addresses);
                let own: Vec<IpAddr> = addresses.into_iter().flatten().map(|a| a.address).collect();
                let set = self.sent_by(set, own.iter().map(|a| IpNet::from(*a)))?;
                self.send_from(host, set, Sending::Bound)
            }
            End::Address(address) => self.send_prefix(IpNet::from(*address), set),
            End::Prefix(net) => self.send_prefix(*net, set),
            End::Outside => self.send_outside(set),
        }
    }

    /// Sends packets from a host, from any of its addresses, whatever its routes
    /// would choose: what programs that bind to one send.
    ///
    /// # Errors
    /// A host that does not exist; packet sets that outgrow their budget.
    pub fn send_bound(&mut self, name: &str, set: Ref) -> Result<Vec<Flowed>, Error> {
        let host = ends::host(self.lab, name)?;
        let set = self.sent_by(set, host.addresses().map(IpNet::from))?;
        self.send_from(host, set, Sending::Bound)
    }

    fn sent_by(&mut self, set: Ref, nets: impl IntoIterator<Item = IpNet>) -> Result<Ref, Error> {
        let from = self.addressed(Field::Src, nets)?;
        Ok(self.engine.store().guard(from, set)?)
    }

    fn send_prefix(&mut self, net: IpNet, set: Ref) -> Result<Vec<Flowed>, Error> {
        let mut all = Vec::new();
        let mut rest = self.sent_by(set, [net])?;
        for host in self.lab.hosts.values() {
            let own: Vec<IpNet> = host.addresses().filter(|a| net.contains(a)).map(IpNet::from).collect();
            if own.is_empty() {
                continue;
            }
            let here = self.sent_by(set, own)?;
            rest = self.engine.store().without(rest, here)?;
            all.extend(self.send_from(host, here, Sending::Bound)?);
        }
        if self.doors().next().is_some() {
            all.extend(self.send_outside(rest)?);
        }
        if all.is_empty() {
            let what =
                format!("no host of the lab has an address in {net}, and no interface leads out of it");
            return Err(Error::Unfit(what));
        }
        Ok(all)
    }

    /// The interfaces that lead out of the lab.
    pub fn doors(&self) -> impl Iterator<Item = (&'a Host, &'a crate::model::Interface)> {
        let lab = self.lab;
        lab.all_hosts()
            .flat_map(|h| h.interfaces.iter().map(move |i| (h, i)))
            .filter(move |(h, i)| lab.leads_out(&h.name, i))
    }

    /// Packets that enter the lab by one interface that leads out of it; none,
    /// if it does not.
    ///
    /// # Errors
    /// If the packet sets outgrow their budget.
    pub fn send_by(&mut self, door: &Place, set: Ref) -> Result<Vec<Flowed>, Error> {
        self.enter(set, |host, device| host.name == door.host && device.name == door.iface)
    }

    fn send_outside(&mut self, set: Ref) -> Result<Vec<Flowed>, Error> {
        self.enter(set, |_, _| true)
    }

    fn enter(
        &mut self,
        set: Ref,
        by: impl Fn(&Host, &crate::model::Interface) -> bool,
    ) -> Result<Vec<Flowed>, Error> {
        let doors: Vec<_> = self.doors().filter(|(host, device)| by(host, device)).collect();
        let mut all = Vec::new();
        for (host, device) in doors {
            let flow = Flow::new(set, OUTSIDE_TTL, LENGTH, 0);
            all.extend(self.engine.inject(host, device, flow)?);
        }
        Ok(all)
    }

    fn send_from(&mut self, host: &'a Host, set: Ref, sending: Sending) -> Result<Vec<Flowed>, Error> {
        let mut all = Vec::new();
        for family in [Family::Ipv4, Family::Ipv6] {
            let store = self.engine.store();
            let is = store.family(family)?;
            let set = store.guard(is, set)?;
            if !set.is_none() {
                let flow = Flow::new(set, icmp::default_ttl(host, family), LENGTH, 0);
                all.extend(self.engine.send(host, flow, sending)?);
            }
        }
        Ok(all)
    }

    /// Which of the packets sent are meant for an end: those to an address of
    /// the host or interface; to the prefix; for `@outside` all.
    ///
    /// # Errors
    /// An end that does not exist; packet sets that outgrow their budget.
    pub fn meant_for(&mut self, to: &End) -> Result<Ref, Error> {
        match to {
            End::Host(name) => {
                let own: Vec<IpAddr> = ends::host(self.lab, name)?.addresses().collect();
                self.to_addresses(&own)
            }
            End::Interface(place) => {
                let host = ends::host(self.lab, &place.host)?;
                let addresses = host.interface(&place.iface).map(|i| &i.addresses);
                let own: Vec<IpAddr> = addresses.into_iter().flatten().map(|a| a.address).collect();
                self.to_addresses(&own)
            }
            End::Address(address) => self.to_addresses(&[*address]),
            End::Prefix(net) => self.addressed(Field::Dst, [*net]),
            End::Outside => Ok(Ref::ALL),
        }
    }

    /// The part of a flow that arrives at an end: at a host or interface where
    /// it is delivered there; for a prefix where it was sent to it and was
    /// delivered or left the lab; at `@outside` where it left.
    ///
    /// # Errors
    /// If the packet sets outgrow their budget.
    pub fn arrived(&mut self, flowed: &Flowed, to: Option<&End>) -> Result<Ref, Error> {
        let all = flowed.flow.set;
        let is = |yes: bool| if yes { all } else { Ref::NONE };
        Ok(match (&flowed.ending, to) {
            (Ending::Delivered(_) | Ending::ForwardedOut(_), None) => all,
            (Ending::Delivered(at), Some(End::Host(name))) => is(at.host == *name),
            (Ending::Delivered(at), Some(End::Interface(place))) => is(at == place),
            (Ending::ForwardedOut(_), Some(End::Outside)) => all,
            (
                Ending::Delivered(_) | Ending::ForwardedOut(_),
                Some(to @ (End::Address(_) | End::Prefix(_))),
            ) => {
                let meant = self.meant_for(to)?;
                self.engine.store().guard(meant, all)?
            }
            _ => Ref::NONE,
        })
    }

    /// What comes back for packets that were delivered: what a program there
    /// answers, followed to its end. `None` if they were not delivered.
    ///
    /// # Errors
    /// If the packet sets outgrow their budget.
    pub fn replies(&mut self, flowed: &Flowed) -> Result<Option<Vec<Flowed>>, Error> {
        let Ending::Delivered(at) = &flowed.ending else { return Ok(None) };
        let Some(host) = self.lab.hosts.get(&at.host) else { return Ok(None) };
        let Some(reply) = self.answer(flowed, host) else { return Ok(None) };
        Ok(Some(self.engine.send(host, reply, Sending::Bound)?))
    }

    /// What comes back for packets that left the lab, if somebody out there
    /// has their destination and answers. `None` if they did not leave.
    ///
    /// # Errors
    /// If the packet sets outgrow their budget.
    pub fn replies_from_outside(&mut self, flowed: &Flowed) -> Result<Option<Vec<Flowed>>, Error> {
        let Ending::ForwardedOut(at) = &flowed.ending else { return Ok(None) };
        let Some(host) = self.lab.hosts.get(&at.host) else { return Ok(None) };
        let Some(device) = host.interface(&at.iface) else { return Ok(None) };
        let Some(mut reply) = self.answer(flowed, host) else { return Ok(None) };
        reply.now.ttl = OUTSIDE_TTL;
        Ok(Some(self.engine.inject(host, device, reply)?))
    }

    /// The answer to packets where they came to.
    fn answer(&mut self, flowed: &Flowed, host: &Host) -> Option<Flow> {
        let family = flowed.flow.family(self.engine.store())?;
        let mut reply = flowed.flow.clone().scrubbed();
        reply.now.ends = reply.now.ends.inverted();
        reply.now.ttl = icmp::default_ttl(host, family);
        reply.now.mark = 0;
        reply.now.tos = Source::constant(Field::Tos, 0);
        let echo = if family == Family::Ipv4 { 0 } else { 129 };
        reply.now.fixed = vec![
            (Field::TcpFlags, (TcpFlags::SYN | TcpFlags::ACK).into()),
            (Field::IcmpType, echo),
            (Field::SctpInit, 0),
        ];
        reply.trail = None;
        Some(reply)
    }

    /// Whether a reply came home: to the host that sent the packets, or out by
    /// the interface where they came in, as an answer to what was sent.
    pub fn is_home(reply: &Flowed, from: &Home) -> bool {
        let answers = reply.flow.now.ends == crate::engine::symbolic::Ends::SENT.inverted();
        match (&reply.ending, from) {
            (Ending::Delivered(at), Home::Host(name)) => at.host == *name && answers,
            (Ending::ForwardedOut(at), Home::Place(place)) => at == place && answers,
            _ => false,
        }
    }
}

/// Where packets came from, to which answers go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Home {
    /// A host that sent them.
    Host(String),
    /// An interface by which they entered the lab.
    Place(Place),
}

impl Home {
    /// Where the packets of a flow came from: the first interface that they
    /// passed tells.
    pub fn of(flowed: &Flowed, from: &End) -> Option<Home> {
        use crate::engine::symbolic::Passed;
        use crate::model::HopDirection;
        match (flowed.flow.passed().into_iter().next(), from) {
            (Some(Passed::Hop(at, HopDirection::Out)), _) => Some(Home::Host(at.host)),
            (Some(Passed::Hop(at, HopDirection::In)), _) => Some(Home::Place(at)),
            (_, End::Host(name)) => Some(Home::Host(name.clone())),
            (_, End::Interface(place)) => Some(Home::Host(place.host.clone())),
            _ => None,
        }
    }
}
