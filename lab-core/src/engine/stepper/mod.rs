//! The plain stepper: one packet, rule by rule, as the kernel does it.
//!
//! A packet is carried from place to place by a loop over steps; each
//! stage returns the next. Nothing recurses along the way, so a packet may go
//! as far as its TTL lets it.

mod answer;
mod bridge;
mod chain;
mod deliver;
mod hook;
mod meet;
mod receive;
mod relay;
mod send;
mod skb;
mod tunnel;
mod vxlan;
mod wireguard;

#[cfg(test)]
pub(crate) mod tests;

use std::collections::{BTreeMap, BTreeSet};

use super::explore::Choices;
use super::journey::{Event, Journey};
use crate::addr::Family;
use crate::model::{
    Decision, Frame, Hop, HopDirection, Host, How, Interface, Lab, Outcome, Packet, Part, Place, Probe, Stage,
};
use crate::semantics::conntrack::Connections;

pub use meet::{meet, Met};
use skb::Skb;

/// What the hosts remember between packets: their connections, and what was
/// supposed of them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct World {
    connections: BTreeMap<String, Connections>,
    supposed: BTreeMap<String, usize>,
}

impl World {
    /// The connections a host knows.
    pub fn connections(&mut self, host: &str) -> &mut Connections {
        self.connections.entry(host.to_owned()).or_default()
    }
}

/// How a program sends a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sender {
    /// By a socket of its own: the route look-up knows protocol, ports and
    /// type of service.
    Socket,
    /// By a raw socket with a header of its own: the look-up knows none of
    /// them (`raw_sendmsg` with `IP_HDRINCL`).
    Raw,
}

/// Where a packet enters.
#[derive(Clone, Debug)]
pub enum Entry {
    /// A process of this host sends it.
    Send(String, Sender),
    /// A process of this host sends it by a socket bound to a device.
    SendBound(String, Sender, String),
    /// A frame arrives at this place.
    Arrive(Place),
    /// A frame arrives at this place with an 802.1Q tag.
    ArriveTagged(Place, u16),
}

/// The most steps a packet may take before it counts as going round for ever:
/// every hop takes a handful, and TTL ends it after 255.
const STEPS: usize = 6000;

/// What comes next.
enum Step<'a> {
    /// A frame arrives at an interface from a wire.
    Arrive(&'a Host, &'a Interface, Frame, Skb),
    /// A packet arrives at a host's network layer by a device.
    Receive(&'a Host, &'a Interface, Skb),
    /// The end.
    Done(Outcome),
}

/// One walk of one packet.
struct Walk<'a, 'w> {
    lab: &'a Lab,
    world: &'w mut World,
    choices: &'w mut Choices,
    events: Vec<Event>,
    answer_events: Vec<Event>,
    assumptions: Vec<String>,
    unknown: Vec<String>,
    looped: bool,
    /// The host that sent the packet, or the place where it was injected.
    origin: Origin,
    /// Whether this walk is that of an answer, which gets none itself.
    is_answer: bool,
    /// Tunnel devices that the packet is inside of.
    tunnels: Vec<(String, String)>,
}

#[derive(Clone, Debug)]
enum Origin {
    Host(String),
    Place(Place),
}

/// Takes a packet through a lab. `world` holds what earlier packets left, and
/// is changed by this one.
pub fn walk(lab: &Lab, world: &mut World, choices: &mut Choices, entry: &Entry, packet: &Packet) -> Journey {
    let origin = match entry {
        Entry::Send(host, _) | Entry::SendBound(host, ..) => Origin::Host(host.clone()),
        Entry::Arrive(place) | Entry::ArriveTagged(place, _) => Origin::Place(place.clone()),
    };
    let mut walk = Walk::new(lab, world, choices, origin, false);
    let outcome = walk.start(entry, packet);
    let Walk { events, answer_events, assumptions, unknown, looped, .. } = walk;
    Journey { outcome, events, answer_events, assumptions, unknown, looped }
}

/// Takes a probe through a lab.
pub fn probe(lab: &Lab, world: &mut World, choices: &mut Choices, probe: &Probe) -> Journey {
    let entry = match &probe.how {
        How::Originate(None) => Entry::Send(probe.at.clone(), Sender::Raw),
        How::Originate(Some(device)) => Entry::SendBound(probe.at.clone(), Sender::Raw, device.clone()),
        How::Inject(iface, tag) => {
            let place = Place { host: probe.at.clone(), iface: iface.clone() };
            match tag {
                None => Entry::Arrive(place),
                Some(tag) => Entry::ArriveTagged(place, *tag),
            }
        }
    };
    walk(lab, world, choices, &entry, &probe.packet)
}

impl<'a, 'w> Walk<'a, 'w> {
    fn new(
        lab: &'a Lab,
        world: &'w mut World,
        choices: &'w mut Choices,
        origin: Origin,
        is_answer: bool,
    ) -> Self {
        Walk {
            lab,
            world,
            choices,
            events: Vec::new(),
            answer_events: Vec::new(),
            assumptions: Vec::new(),
            unknown: Vec::new(),
            looped: false,
            origin,
            is_answer,
            tunnels: Vec::new(),
        }
    }

    fn start(&mut self, entry: &Entry, packet: &Packet) -> Outcome {
        let step = match entry {
            Entry::Send(host, sender) => self.send(host, *sender, None, packet),
            Entry::SendBound(host, sender, device) => self.send(host, *sender, Some(device), packet),
            Entry::Arrive(place) => self.put(place, None, packet),
            Entry::ArriveTagged(place, tag) => self.put(place, Some(*tag), packet),
        };
        self.finish(step)
    }

    fn send(&mut self, host: &str, sender: Sender, device: Option<&str>, packet: &Packet) -> Step<'a> {
        match self.lab.host(host) {
            Some(host) => self.originate(host, packet.clone(), sender, device),
            None => self.dropped(host, Stage::Unmodelled(format!("no host {host}"))),
        }
    }

    fn put(&mut self, place: &Place, tag: Option<u16>, packet: &Packet) -> Step<'a> {
        match self.lab.host(&place.host).and_then(|h| h.interface(&place.iface).map(|i| (h, i))) {
            Some((host, device)) => self.inject(host, device, tag, packet.clone()),
            None => self.dropped(&place.host, Stage::Unmodelled(format!("no interface {place}"))),
        }
    }

    /// Follows a packet to its end.
    fn finish(&mut self, mut step: Step<'a>) -> Outcome {
        for _ in 0..STEPS {
            step = match step {
                Step::Done(outcome) => return outcome,
                Step::Arrive(host, device, frame, skb) => self.arrive(host, device, frame, skb),
                Step::Receive(host, device, skb) => self.receive(host, device, skb),
            };
        }
        self.looped = true;
        let host = match &step {
            Step::Arrive(host, ..) | Step::Receive(host, ..) => host.name.clone(),
            Step::Done(outcome) => return outcome.clone(),
        };
        Outcome::Dropped { by: Decision::Stage { host, stage: Stage::Ttl } }
    }

    fn hop(&mut self, host: &str, device: &str, direction: HopDirection, packet: &Packet) {
        let at = Place { host: host.to_owned(), iface: device.to_owned() };
        self.events.push(Event::Hop(Hop { at, direction, packet: packet.clone() }));
    }

    fn dropped(&mut self, host: &str, stage: Stage) -> Step<'a> {
        if let Stage::Unmodelled(what) = &stage {
            self.unknown.push(format!("{host}: {what}"));
        }
        Step::Done(Outcome::Dropped { by: Decision::Stage { host: host.to_owned(), stage } })
    }

    /// Notes what of a host the snapshot leaves out and a packet of this
    /// family would need: the answer then claims nothing.
    fn note_untold(&mut self, host: &Host, family: Family) {
        let routes = match family {
            Family::Ipv4 => Part::Routes4,
            Family::Ipv6 => Part::Routes6,
        };
        for item in host.unmodelled.iter().filter(|u| !u.stands_apart()) {
            let what = format!("{}: {} ({})", host.name, item.what, item.origin);
            if !self.unknown.contains(&what) {
                self.unknown.push(what);
            }
        }
        for part in [Part::Links, Part::Addresses, routes] {
            if host.unknown.contains(&part) {
                let what = format!("{}: the {part} are not in the snapshot", host.name);
                if !self.unknown.contains(&what) {
                    self.unknown.push(what);
                }
            }
        }
    }

    /// Picks what is true of the lab, though the snapshot does not tell: once
    /// for a whole run, so that no way contradicts itself.
    fn suppose(&mut self, ways: usize, what: String) -> usize {
        if let Some(known) = self.world.supposed.get(&what) {
            return *known;
        }
        let way = self.choices.pick(ways, &what);
        self.world.supposed.insert(what, way);
        way
    }

    fn assume(&mut self, what: String) {
        if !self.assumptions.contains(&what) {
            self.assumptions.push(what);
        }
    }

    /// Whether the packet came by one place more often than a tree of links
    /// explains.
    fn note_loop(&mut self) {
        let mut seen = BTreeSet::new();
        for event in &self.events {
            if let Event::Hop(hop) = event {
                if !seen.insert((&hop.at, hop.direction, hop.packet.dst)) {
                    self.looped = true;
                    return;
                }
            }
        }
    }
}
