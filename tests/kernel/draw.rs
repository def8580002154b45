//! Probes for a lab: some drawn blindly, most from inside of computed sets, so
//! that every way a packet can go is gone.

use std::net::IpAddr;

use lab_core::engine::symbolic::{Ending, Flowed, Sending, Symbolic};
use lab_core::model::{
    Host, How, Interface, InterfaceKind, Lab, Packet, PortValue, Probe, TcpFlags, Transport,
};
use lab_core::space::{header, Field, Ref};
use lab_core::strategies;
use lab_workspace::{packet_of, Entrance};
use proptest::prop_oneof;
use proptest::strategy::{BoxedStrategy, Strategy, ValueTree};
use proptest::test_runner::TestRunner;

use crate::tally::Left;
use crate::watch::Observed;
use crate::wire;

/// How many entrances of a lab are used, and how many packets by each.
const ENTRANCES: usize = 4;
const LAYERED_ENTRANCES: usize = 8;
const BLIND: usize = 4;
const AIMED: usize = 10;

/// How many parts the packets of an entrance may fall into.
const PARTS: usize = 3000;

/// Of an entrance, what becomes of all that could, and some of them.
pub struct Entering<'a> {
    pub entrance: Entrance<'a>,
    /// None: there are too many.
    pub flows: Option<Vec<Flowed>>,
    pub probes: Vec<Probe>,
}

fn entrances(lab: &Lab) -> Vec<Entrance<'_>> {
    let mut all = Vec::new();
    for host in lab.hosts.values() {
        all.push(Entrance::Send(host, Sending::Raw));
        let wired = |i: &&Interface| i.kind.has_wire() && i.up;
        all.extend(host.interfaces.iter().filter(wired).map(|device| Entrance::Inject(host, device)));
    }
    all
}

/// A number below `below`.
pub fn random(runner: &mut TestRunner, below: usize) -> usize {
    (0..below).new_tree(runner).map_or(0, |tree| tree.current())
}

/// A packet whose arrival raw sockets can tell.
fn heard(packet: &Packet) -> bool {
    match packet.transport {
        Transport::Other(number) => [4, 47, 50, 255].contains(&number),
        _ => true,
    }
}

/// Whether an address means something only together with an interface: the
/// kernel then takes only routes by that one (`rt6_need_strict`), and a socket
/// must name it.
fn link_local(address: IpAddr) -> bool {
    matches!(address, IpAddr::V6(a) if a.is_unicast_link_local())
}

/// Whether no socket can be told to send from there: from nowhere, or from a
/// group.
fn unnamed(packet: &Packet) -> bool {
    let all = matches!(packet.src, IpAddr::V4(a) if a.is_broadcast());
    packet.src.is_unspecified() || packet.src.is_multicast() || all
}

/// The addresses that tunnels lead to: those of their own ends, which few packets
/// drawn blindly are for.
fn tunnel_ends(lab: &Lab) -> Vec<IpAddr> {
    let devices = lab.all_hosts().flat_map(|h| &h.interfaces);
    let tunnels = devices.filter(|i| {
        matches!(i.kind, InterfaceKind::Tunnel(_) | InterfaceKind::Wireguard(_) | InterfaceKind::Vxlan(_))
    });
    tunnels.flat_map(|i| i.addresses.iter().map(|a| a.address)).filter(|a| !link_local(*a)).collect()
}

/// Whether a flow's packets pass a host on their way.
fn passes(entrance: Entrance, flowed: &Flowed) -> bool {
    let ends = match &flowed.ending {
        Ending::Delivered(at) | Ending::ForwardedOut(at) => &at.host,
        Ending::Dropped(by) | Ending::Rejected(by) => by.host(),
    };
    match entrance {
        Entrance::Send(host, _) => *ends != host.name,
        Entrance::Inject(host, _) => *ends != host.name || matches!(flowed.ending, Ending::ForwardedOut(_)),
    }
}

/// Now and then with a tag that a VLAN device or a bridge there asks for, or by
/// a socket bound to a VRF.
fn layered(runner: &mut TestRunner, host: &Host, how: How) -> How {
    match how {
        How::Inject(iface, None) => {
            let mut tags: Vec<u16> = host
                .interfaces
                .iter()
                .filter(|i| i.link.as_deref() == Some(&iface))
                .filter_map(|i| match &i.kind {
                    InterfaceKind::Vlan(tag) => Some(tag.id),
                    _ => None,
                })
                .collect();
            let filtered = host.interface(&iface).is_some_and(|i| !i.vlans.is_empty());
            if filtered {
                tags.extend([0, 1, 10, 20]);
            }
            let tagged = !tags.is_empty() && random(runner, 3) > usize::from(filtered);
            let tag = tagged.then(|| tags[random(runner, tags.len())]);
            How::Inject(iface, tag)
        }
        How::Originate(None) => {
            let vrf = host.interfaces.iter().find(|i| matches!(i.kind, InterfaceKind::Vrf(_)));
            How::Originate(vrf.filter(|_| random(runner, 3) > 0).map(|vrf| vrf.name.clone()))
        }
        how => how,
    }
}

/// What labs and packets are drawn from: to set it up takes longer than to draw.
pub struct Deck {
    entrances: usize,
    labs: BoxedStrategy<Lab>,
    packets: BoxedStrategy<Packet>,
}

impl Deck {
    /// What to draw from; most often labs with devices on top of others where
    /// the kernel has such.
    pub fn new(layered: bool) -> Self {
        let (entrances, labs) = match layered {
            // To build a lab there takes long.
            true => {
                let labs = prop_oneof![1 => strategies::lab(), 7 => strategies::layered()];
                (LAYERED_ENTRANCES, labs.boxed())
            }
            false => (ENTRANCES, strategies::lab()),
        };
        Deck { entrances, labs, packets: strategies::packet().boxed() }
    }

    /// A lab.
    pub fn lab(&self, runner: &mut TestRunner) -> Lab {
        self.labs.new_tree(runner).expect("a lab can be drawn").current()
    }

    fn packet(&self, runner: &mut TestRunner) -> Packet {
        self.packets.new_tree(runner).expect("a packet can be drawn").current()
    }

    /// The packets that one entrance gets.
    fn packets(
        &self,
        runner: &mut TestRunner,
        engine: &mut Symbolic,
        lab: &Lab,
        (entrance, flows): (Entrance, &[Flowed]),
        like: &Packet,
    ) -> Vec<Packet> {
        let mut all: Vec<Packet> = (0..BLIND).map(|_| self.packet(runner)).collect();
        let ends = tunnel_ends(lab);
        let arrives = |f: &&Flowed| matches!(f.ending, Ending::Delivered(_) | Ending::ForwardedOut(_));
        let (good, bad): (Vec<&Flowed>, Vec<&Flowed>) = flows.iter().partition(|f| arrives(f));
        for place in 0..AIMED {
            let from = if place % 3 == 2 || good.is_empty() { &bad } else { &good };
            if from.is_empty() {
                continue;
            }
            let far: Vec<&Flowed> = from.iter().filter(|f| passes(entrance, f)).copied().collect();
            let from = if far.is_empty() || place % 5 == 4 { from } else { &far };
            let flowed = from[random(runner, from.len())];
            let mut near = self.packet(runner);
            let through: Vec<IpAddr> =
                ends.iter().copied().filter(|a| a.is_ipv4() == near.dst.is_ipv4()).collect();
            if !through.is_empty() && place % 2 == 0 {
                near.dst = through[random(runner, through.len())];
            }
            let near = header(&near);
            let wanted: &[Field] = match place % 4 {
                0 if !through.is_empty() => &[Field::Dst, Field::Protocol, Field::Sport, Field::Dport],
                0 => &[Field::Family, Field::Protocol, Field::Sport, Field::Dport],
                1 => &[Field::Dst, Field::Protocol],
                2 => &[Field::Src, Field::Dst],
                _ => &[Field::Src, Field::Protocol],
            };
            let store = engine.store();
            // As much of the packet drawn as the set lets.
            let mut set = flowed.flow.set;
            for field in wanted {
                let Ok(part) = store.value(*field, near.get(*field)) else { continue };
                match store.guard(part, set) {
                    Ok(both) if both != Ref::NONE => set = both,
                    _ => {}
                }
            }
            all.extend(store.example(set).and_then(|h| packet_of(&h, like)));
        }
        all
    }

    /// Probes for a lab.
    pub fn draw<'a>(
        &self,
        runner: &mut TestRunner,
        lab: &'a Lab,
        engine: &mut Symbolic<'a>,
        left: &mut Left,
    ) -> Vec<Entering<'a>> {
        engine.limit = PARTS;
        let all = entrances(lab);
        let mut entering = Vec::new();
        for place in 0..self.entrances {
            let entrance = all[random(runner, all.len())];
            let like = wire::sendable(&self.packet(runner));
            let flows = entrance.flows(engine, &like).ok();
            let (at, how) = match entrance {
                Entrance::Send(host, _) => (host, How::Originate(None)),
                Entrance::Inject(host, device) => (host, How::Inject(device.name.clone(), None)),
            };
            let of = (entrance, flows.as_deref().unwrap_or_default());
            let drawn = self.packets(runner, engine, lab, of, &like);
            let probes = drawn
                .into_iter()
                .map(|p| Packet { ttl: like.ttl, length: like.length, df: like.df, mark: 0, ..p })
                .filter(|p| p.src != p.dst && heard(p) && !p.transport.is_icmp_error())
                .filter(|p| {
                    let scoped = link_local(p.src) || link_local(p.dst);
                    if scoped {
                        left.count(
                            "drawing",
                            "a packet with a link-local IPv6 address, routed by its link alone",
                        );
                    }
                    !scoped
                })
                .filter(|p| !(matches!(entrance, Entrance::Send(..)) && unnamed(p)))
                .collect::<Vec<_>>();
            let probes = probes
                .into_iter()
                .enumerate()
                .map(|(number, packet)| {
                    let id = format!("p{place}-{number}");
                    let how = layered(runner, at, how.clone());
                    Probe { id, at: at.name.clone(), how, packet, flow: None }
                })
                .collect();
            entering.push(Entering { entrance, flows, probes });
        }
        entering
    }
}

/// The reply to a probe that arrived or left, from where it did. What the
/// kernel itself says to a TCP packet that nobody listens for ends the
/// connection, so such get a reply from outside only.
pub fn reply(lab: &Lab, probe: &Probe, observed: &Observed) -> Option<Probe> {
    let (at, how, seen) = match (observed.delivered.as_slice(), observed.out.as_slice()) {
        ([(place, seen)], []) => (place.host.clone(), How::Originate(None), seen),
        ([], [(place, seen)]) => (place.host.clone(), How::Inject(place.iface.clone(), None), seen),
        _ => return None,
    };
    let outside = matches!(how, How::Inject(..));
    let transport = match seen.transport {
        Transport::Udp { sport, dport } => Transport::Udp { sport: dport, dport: sport },
        Transport::Tcp { sport, dport, flags } if outside && flags.0 & 0x17 == TcpFlags::SYN => {
            let flags = TcpFlags(TcpFlags::SYN | TcpFlags::ACK);
            Transport::Tcp { sport: dport, dport: sport, flags }
        }
        Transport::Icmp { kind: 8, code: 0, id } => Transport::Icmp { kind: 0, code: 0, id },
        Transport::Icmp6 { kind: 128, code: 0, id } => Transport::Icmp6 { kind: 129, code: 0, id },
        _ => return None,
    };
    let known = |port: PortValue| port.known().is_some();
    let usual = seen.dst.is_multicast() || seen.src.is_unspecified() || seen.src == seen.dst;
    if usual || transport.ports().is_some_and(|(a, b)| !known(a) || !known(b)) {
        return None;
    }
    let host: &Host = lab.host(&at)?;
    // Who answers a broadcast does so from an address of its own.
    if !outside && host.interface_with(seen.dst).is_none() {
        return None;
    }
    let packet =
        Packet { src: seen.dst, dst: seen.src, ttl: 64, tos: 0, mark: 0, transport, ..probe.packet.clone() };
    Some(Probe { id: format!("{}-reply", probe.id), at, how, packet, flow: Some(probe.id.clone()) })
}
