//! Packets that share one way: a set of packets as they were sent, and what
//! they have become, field by field.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::rc::Rc;

use crate::addr::{Family, Mac, PortRange};
use crate::model::{
    ConntrackState, Decision, Direction, Hook, HopDirection, Host, Interface, PacketType, Place, RuleRef,
    VlanTag,
};
use crate::semantics::conntrack::{Info, TcpState};
use crate::space::{ct, tracking, Field, Mapping, Ref, Source};

/// A field of a header as it is now, by the header as it was sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Ends {
    /// Source address.
    pub src: Source,
    /// Destination address.
    pub dst: Source,
    /// Source port.
    pub sport: Source,
    /// Destination port.
    pub dport: Source,
}

impl Ends {
    /// As sent.
    pub const SENT: Ends = Ends {
        src: Source::keep(Field::Src),
        dst: Source::keep(Field::Dst),
        sport: Source::keep(Field::Sport),
        dport: Source::keep(Field::Dport),
    };

    /// Turned round, as an answer has them.
    #[must_use]
    pub fn inverted(self) -> Ends {
        Ends { src: self.dst, dst: self.src, sport: self.dport, dport: self.sport }
    }
}

/// A header now, by the header as it was sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Now {
    /// Addresses and ports.
    pub ends: Ends,
    /// Type of service.
    pub tos: Source,
    /// Fields that an answer has otherwise than what it answers: ICMP type, TCP
    /// flags.
    pub fixed: Vec<(Field, u128)>,
    /// Hops left.
    pub ttl: u8,
    /// Length in bytes.
    pub length: u32,
    /// Whether it must not be fragmented.
    pub df: bool,
    /// The most bytes of each piece, where they travel in fragments.
    pub fragment: Option<u32>,
    /// The firewall mark.
    pub mark: u32,
}

impl Now {
    /// The length of what is on the wire in bytes: of its longest fragment.
    pub fn on_wire(&self) -> u32 {
        self.fragment.map_or(self.length, |piece| piece.min(self.length))
    }
}

/// A connection that packets of a flow opened at a host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Connection {
    /// As its first packet came.
    pub original: Ends,
    /// As an answer comes.
    pub reply: Ends,
    /// What is asked of the packets besides: the protocol, as a field's source.
    pub protocol: Source,
    /// Zones of both directions.
    pub zones: (u16, u16),
    /// Its mark.
    pub mark: u32,
    /// Whether its first packet has left the host.
    pub confirmed: bool,
    /// Whether a packet went the reply way.
    pub seen_reply: bool,
    /// Whether it saw enough to be kept.
    pub assured: bool,
    /// Whether source and destination are rewritten.
    pub rewritten: (bool, bool),
    /// Whether the questions of source and destination NAT are settled.
    pub settled: (bool, bool),
    /// How far TCP has come; none for other protocols.
    pub tcp: Option<TcpState>,
}

/// The connection of packets inside a host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Tracked {
    /// Not looked at yet, or none.
    None,
    /// Remembered, at this index of the host's.
    Known(usize),
    /// Opened, and not remembered yet.
    New(Box<Connection>),
}

/// Bridge ports that packets came by.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Bridged {
    /// The port they came in by.
    pub input: String,
    /// The port they leave by.
    pub output: Option<String>,
    /// Whether PREROUTING has seen them already.
    pub prerouted: bool,
}

/// What a tunnel carries.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Inside {
    /// The tunnel's host and device.
    pub tunnel: (String, String),
    /// As what it is carried.
    pub carried: Carried,
    /// The VLAN tags of its frame.
    pub tags: Vec<VlanTag>,
    /// The header inside.
    pub now: Now,
    /// Its family and protocol, as sources.
    pub kind: (Source, Source),
    /// What its port is where a kernel picked it.
    pub fresh: Option<PortRange>,
}

/// As what a tunnel carries a packet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Carried {
    /// As a frame in VXLAN.
    Vxlan {
        /// The network identifier.
        vni: u32,
        /// Frame addresses.
        macs: (Mac, Mac),
    },
    /// In GRE or IP.
    Packet {
        /// The outer packet's protocol.
        protocol: u8,
        /// GRE's key.
        key: Option<u32>,
    },
    /// As a frame in GRE.
    Frame {
        /// GRE's key.
        key: Option<u32>,
        /// Frame addresses.
        macs: (Mac, Mac),
    },
    /// Encrypted by WireGuard.
    Encrypted {
        /// The sender's public key.
        from: String,
        /// The receiver's.
        to: String,
    },
}

/// Something on the way, for people.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Passed {
    /// An interface.
    Hop(Place, HopDirection),
    /// A rule that rewrote the header.
    Rewritten(RuleRef),
}

/// A linked list of what was passed, shared among flows that part.
#[derive(Debug)]
pub struct Trail {
    before: Option<Rc<Trail>>,
    passed: Passed,
}

/// Packets that share one way so far.
#[derive(Clone, Debug)]
pub struct Flow {
    /// The packets as they were sent.
    pub set: Ref,
    /// What decides, by chance or by what is not told, whether they come this
    /// way.
    pub reasons: Vec<String>,
    /// What was supposed of the lab, which the snapshot does not tell: once for
    /// all of their way.
    pub supposed: Vec<(String, usize)>,
    /// What is not modelled, and yet decides: nothing is claimed of them.
    pub unknown: Vec<String>,
    /// Their header.
    pub now: Now,
    /// Family and protocol (those of a tunnel's outer packet are known).
    pub kind: (Source, Source),
    /// Where the present source port is one that a kernel picked.
    pub fresh: Option<PortRange>,
    /// Connections by host.
    pub world: BTreeMap<String, Vec<Connection>>,
    /// The connection here.
    pub tracked: Tracked,
    /// What they are to it.
    pub info: Info,
    /// Zones that rules set.
    pub zones: (u16, u16),
    /// Bridge ports.
    pub bridged: Option<Bridged>,
    /// Frame source.
    pub source_mac: Option<Mac>,
    /// Frame destination.
    pub destination_mac: Option<Mac>,
    /// To whom the frame was sent.
    pub packet_type: PacketType,
    /// Whether their route is one to everybody.
    pub to_all: bool,
    /// Whether they loop back with their route known.
    pub looped_back: bool,
    /// The VLAN tags of their frames, the outermost first.
    pub tags: Vec<VlanTag>,
    /// The device they came in by.
    pub came_by: Option<String>,
    /// Whether this host's network layer gave them to the device.
    pub sent: bool,
    /// Tunnels they are inside of, the innermost last.
    pub inside: Vec<Inside>,
    /// What they passed.
    pub trail: Option<Rc<Trail>>,
    /// How many steps they took.
    pub steps: u32,
}

impl Flow {
    /// Packets as a host or a wire gives them.
    pub fn new(set: Ref, ttl: u8, length: u32, mark: u32) -> Self {
        Flow {
            set,
            reasons: Vec::new(),
            supposed: Vec::new(),
            unknown: Vec::new(),
            now: Now {
                ends: Ends::SENT,
                tos: Source::keep(Field::Tos),
                fixed: Vec::new(),
                ttl,
                length,
                df: false,
                fragment: None,
                mark,
            },
            kind: (Source::keep(Field::Family), Source::keep(Field::Protocol)),
            fresh: None,
            world: BTreeMap::new(),
            tracked: Tracked::None,
            info: Info::Invalid,
            zones: (0, 0),
            bridged: None,
            source_mac: None,
            destination_mac: None,
            packet_type: PacketType::Unicast,
            to_all: false,
            looped_back: false,
            tags: Vec::new(),
            came_by: None,
            sent: false,
            inside: Vec::new(),
            trail: None,
            steps: 0,
        }
    }

    /// The same packets on another wire or in another host: nothing that the
    /// kernel hangs on them stays but the mark.
    #[must_use]
    pub fn scrubbed(mut self) -> Self {
        self.tracked = Tracked::None;
        self.info = Info::Invalid;
        self.zones = (0, 0);
        self.bridged = None;
        self.source_mac = None;
        self.destination_mac = None;
        self.packet_type = PacketType::Unicast;
        self.to_all = false;
        self.looped_back = false;
        self.came_by = None;
        self.sent = false;
        self
    }

    /// A part of them.
    #[must_use]
    pub fn part(&self, set: Ref) -> Self {
        Flow { set, ..self.clone() }
    }

    /// Notes what decides whether they come this way.
    #[must_use]
    pub fn possibly(mut self, why: &[String]) -> Self {
        add(&mut self.reasons, why);
        self
    }

    /// Notes what is not modelled, and yet decides.
    #[must_use]
    pub fn claimless(mut self, why: &[String]) -> Self {
        add(&mut self.unknown, why);
        self
    }

    /// Notes something passed.
    pub fn note(&mut self, passed: Passed) {
        self.trail = Some(Rc::new(Trail { before: self.trail.take(), passed }));
    }

    /// What was passed, in order.
    pub fn passed(&self) -> Vec<Passed> {
        let mut all = Vec::new();
        let mut at = self.trail.as_ref();
        while let Some(trail) = at {
            all.push(trail.passed.clone());
            at = trail.before.as_ref();
        }
        all.reverse();
        all
    }

    /// The family, if all of them have the same.
    pub fn family(&self, store: &crate::space::Store) -> Option<Family> {
        let v6 = match self.kind.0.mask {
            0 => store.example(self.set)?.get(Field::Family),
            _ => self.kind.0.value,
        };
        Some(if v6 & 1 == 1 { Family::Ipv6 } else { Family::Ipv4 })
    }

    /// The connection they belong to at a host.
    pub fn connection(&self, host: &str) -> Option<&Connection> {
        match &self.tracked {
            Tracked::None => None,
            Tracked::New(connection) => Some(connection),
            Tracked::Known(index) => self.world.get(host)?.get(*index),
        }
    }

    /// The same, to be changed.
    pub fn connection_mut(&mut self, host: &str) -> Option<&mut Connection> {
        match &mut self.tracked {
            Tracked::None => None,
            Tracked::New(connection) => Some(connection),
            Tracked::Known(index) => self.world.get_mut(host)?.get_mut(*index),
        }
    }

    /// What each header field is now, by the packet as sent.
    pub fn mapping(&self) -> Mapping {
        let mut mapping = Mapping::default();
        let mut set = |field: Field, source: Source| {
            if source != Source::keep(field) {
                mapping.set(field, source);
            }
        };
        set(Field::Family, self.kind.0);
        set(Field::Protocol, self.kind.1);
        let ends = self.now.ends;
        set(Field::Src, ends.src);
        set(Field::Dst, ends.dst);
        set(Field::Sport, ends.sport);
        set(Field::Dport, ends.dport);
        set(Field::Tos, self.now.tos);
        for (field, value) in &self.now.fixed {
            set(*field, Source::constant(*field, *value));
        }
        let constant = |field: Field, value: u128| Source::constant(field, value);
        set(Field::Ttl, constant(Field::Ttl, self.now.ttl.into()));
        set(Field::Length, constant(Field::Length, self.now.length.into()));
        set(Field::Mark, constant(Field::Mark, self.now.mark.into()));
        set(Field::PortsTold, constant(Field::PortsTold, 1));
        mapping
    }

    /// The same, with all that a hook of a host knows besides.
    pub fn mapping_at(
        &self,
        host: &Host,
        names: &mut dyn FnMut(&str) -> u32,
        hook: Hook,
        ends: HookEnds,
    ) -> Mapping {
        let mut mapping = self.mapping();
        let mut constant = |field: Field, value: u128| mapping.set(field, Source::constant(field, value));
        let mut name = |text: Option<&str>| u128::from(text.map_or(0, &mut *names));
        constant(Field::Iif, name(ends.input));
        constant(Field::Oif, name(ends.output));
        constant(Field::Hook, hook as u128);
        let bridged = self.bridged.as_ref();
        constant(Field::PhysIn, name(bridged.map(|b| b.input.as_str())));
        constant(Field::PhysOut, name(bridged.and_then(|b| b.output.as_deref())));
        let mac = |mac: Option<Mac>| mac.map_or(0, |m| (1 << 48) + u128::from(m.to_bits()));
        constant(Field::SrcMac, mac(self.source_mac));
        constant(Field::DstMac, mac(self.destination_mac));
        constant(
            Field::PacketType,
            match self.packet_type {
                PacketType::Unicast => 0,
                PacketType::Broadcast => 1,
                PacketType::Multicast => 2,
                PacketType::Otherhost => 3,
            },
        );
        constant(
            Field::CtState,
            match self.info.state() {
                ConntrackState::Invalid => 0,
                ConntrackState::New => 1,
                ConntrackState::Established => 2,
                ConntrackState::Related => 3,
                ConntrackState::Untracked => 4,
            },
        );
        constant(
            Field::Tracking,
            u128::from(match (&self.tracked, self.info) {
                (Tracked::None, Info::Invalid) => tracking::FRESH,
                (Tracked::None, Info::Untracked) => tracking::UNTRACKED,
                (Tracked::None, Info::Template) => tracking::TEMPLATE,
                _ => tracking::SEEN,
            }),
        );
        let connection = self.connection(&host.name);
        let mut bits = 0;
        if self.info.direction() == Direction::Reply {
            bits |= ct::REPLY;
        }
        if let Some(c) = connection {
            bits |= ct::KNOWN;
            for (is, bit) in [
                (c.rewritten.0, ct::SNAT),
                (c.rewritten.1, ct::DNAT),
                (c.seen_reply, ct::SEEN_REPLY),
                (c.assured, ct::ASSURED),
                (c.confirmed, ct::CONFIRMED),
                (c.settled.0, ct::SNAT_DONE),
                (c.settled.1, ct::DNAT_DONE),
            ] {
                if is {
                    bits |= bit;
                }
            }
        }
        constant(Field::CtBits, bits.into());
        constant(Field::CtMark, connection.map_or(0, |c| c.mark).into());
        if let Some(c) = connection {
            let mut set = |field: Field, source: Source| mapping.set(field, source);
            set(Field::CtProtocol, c.protocol);
            set(Field::OrigSrc, c.original.src);
            set(Field::OrigDst, c.original.dst);
            set(Field::OrigSport, c.original.sport);
            set(Field::OrigDport, c.original.dport);
            set(Field::ReplySrc, c.reply.src);
            set(Field::ReplyDst, c.reply.dst);
            set(Field::ReplySport, c.reply.sport);
            set(Field::ReplyDport, c.reply.dport);
        }
        mapping
    }
}

fn add(list: &mut Vec<String>, more: &[String]) {
    for item in more {
        if !list.contains(item) {
            list.push(item.clone());
        }
    }
}

/// The interfaces that a hook knows.
#[derive(Clone, Copy, Debug, Default)]
pub struct HookEnds<'s> {
    /// The one they came in by.
    pub input: Option<&'s str>,
    /// The one they leave by.
    pub output: Option<&'s str>,
}

/// The way packets leave a host.
#[derive(Clone, Copy, Debug)]
pub struct Way<'a> {
    /// The device.
    pub device: &'a Interface,
    /// The gateway; none: the destination itself.
    pub gateway: Option<IpAddr>,
    /// Whether the destination is everybody.
    pub broadcast: bool,
    /// The MTU that the route sets.
    pub mtu: Option<u32>,
}

impl Way<'_> {
    /// The MTU there, in bytes: the route's, which is never more than the
    /// device's.
    pub fn mtu(&self) -> u32 {
        self.mtu.unwrap_or(self.device.mtu).min(self.device.mtu)
    }
}

/// How the way of packets ended.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Ending {
    /// They passed INPUT of a host; the interface they came in by.
    Delivered(Place),
    /// They left the lab.
    ForwardedOut(Place),
    /// They were stopped, and whoever sent them may be told.
    Rejected(Decision),
    /// They were stopped in silence.
    Dropped(Decision),
}

/// Whether a port is one that a kernel picked.
pub(super) fn is_fresh(port: Source) -> bool {
    port.field == Field::FreshPort && port.mask == 0
}
