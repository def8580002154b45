//! Connection tracking: which connection a packet belongs to, and what it is
//! to it. Follows `net/netfilter/nf_conntrack_core.c` and the
//! `nf_conntrack_proto_*.c` beside it.
//!
//! Packets are taken to be inside TCP's window: sequence numbers are not part
//! of a packet here.

use std::net::IpAddr;

use crate::model::{ConntrackState, Direction, Host, Packet, PortValue, TcpFlags, Transport};

/// One direction of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tuple {
    /// Source address.
    pub src: IpAddr,
    /// Destination address.
    pub dst: IpAddr,
    /// IP protocol number.
    pub protocol: u8,
    /// Source port; ICMP identifier; 0 for protocols without ports.
    pub sport: PortValue,
    /// Destination port; ICMP type and code as `type << 8 | code`; else 0.
    pub dport: PortValue,
}

/// How far a TCP connection has come (`enum tcp_conntrack`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TcpState {
    /// Nothing seen yet.
    None,
    /// A SYN was seen.
    SynSent,
    /// A SYN,ACK was seen.
    SynRecv,
    /// Open.
    Established,
    /// One FIN.
    FinWait,
    /// The FIN was acknowledged.
    CloseWait,
    /// The other FIN.
    LastAck,
    /// Both FINs acknowledged.
    TimeWait,
    /// Reset.
    Close,
    /// SYNs of both sides met.
    SynSent2,
}

/// A tracked connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Connection {
    /// As its first packet came.
    pub original: Tuple,
    /// As a reply comes: the original turned round, after NAT.
    pub reply: Tuple,
    /// The zone its original direction is looked up in.
    pub original_zone: u16,
    /// The zone its reply direction is looked up in.
    pub reply_zone: u16,
    /// Its mark.
    pub mark: u32,
    /// Whether its first packet has left the host or was delivered.
    pub confirmed: bool,
    /// Whether a packet went the reply way.
    pub seen_reply: bool,
    /// Whether it saw enough to be kept. UDP is not before it is two seconds
    /// old, which depends on time.
    pub assured: bool,
    /// Whether its source is rewritten.
    pub snat: bool,
    /// Whether its destination is rewritten.
    pub dnat: bool,
    /// Whether the question of source NAT is settled.
    pub source_done: bool,
    /// Whether the question of destination NAT is settled.
    pub destination_done: bool,
    /// How far TCP has come.
    pub tcp: TcpState,
    /// Who reset it last.
    pub reset_by: Option<Direction>,
    /// Whether it is forgotten: later packets do not find it.
    pub dead: bool,
}

/// What a packet is to its connection (`enum ip_conntrack_info`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Info {
    /// It belongs to none, and can open none.
    Invalid,
    /// It opens it, or follows while no reply was seen.
    New,
    /// It goes the original way.
    Established,
    /// It goes the reply way.
    EstablishedReply,
    /// An error about a packet of the reply way.
    Related,
    /// An error about a packet of the original way.
    RelatedReply,
    /// It is not to be tracked.
    Untracked,
    /// A rule has said in which zones it is to be tracked, and nothing has been
    /// looked up yet: rules see a new packet of a blank connection, the template
    /// (`xt_CT.c`, `nft_ct.c`).
    Template,
}

/// The zones of the original and the reply direction, by a rule that sets one
/// for a direction, or for both.
pub fn zones(zone: u16, direction: Option<Direction>) -> (u16, u16) {
    match direction {
        None => (zone, zone),
        Some(Direction::Original) => (zone, 0),
        Some(Direction::Reply) => (0, zone),
    }
}

/// Whether a new connection may be taken for one that is known, and its packet
/// lost (`nf_ct_resolve_clash`): only where either has a zone for one direction
/// alone does a look-up miss what an insertion finds.
pub(crate) fn may_clash(new: (u16, u16), mut known: impl Iterator<Item = (u16, u16)>) -> bool {
    let uneven = |(original, reply): (u16, u16)| original != reply;
    known.any(|zones| uneven(zones) || uneven(new))
}

/// Why nothing is claimed of such a packet.
pub(crate) const CLASH: &str = "whether connections of uneven zones clash";

/// Why nothing is claimed once a rule has written the mark of a template.
pub(crate) const TEMPLATE_MARK: &str = "the mark of a connection's template";

/// Why something is not known that compares what a template holds.
pub(crate) const TEMPLATE: &str = "what stands in the template of a connection";

impl Info {
    /// The state that rules see.
    pub fn state(self) -> ConntrackState {
        match self {
            Info::Invalid => ConntrackState::Invalid,
            Info::New | Info::Template => ConntrackState::New,
            Info::Established | Info::EstablishedReply => ConntrackState::Established,
            Info::Related | Info::RelatedReply => ConntrackState::Related,
            Info::Untracked => ConntrackState::Untracked,
        }
    }

    /// The direction that rules see.
    pub fn direction(self) -> Direction {
        match self {
            Info::EstablishedReply | Info::RelatedReply => Direction::Reply,
            _ => Direction::Original,
        }
    }

    /// What an answer to such a packet is (`nf_conntrack_attach`).
    #[must_use]
    pub fn of_answer(self) -> Self {
        match self.direction() {
            Direction::Original => Info::RelatedReply,
            Direction::Reply => Info::Related,
        }
    }
}

/// The ICMP type that answers one of these queries (`nf_conntrack_proto_icmp.c`).
fn inverse_icmp(kind: u8) -> Option<u8> {
    Some(match kind {
        8 => 0,
        0 => 8,
        13 => 14,
        14 => 13,
        15 => 16,
        16 => 15,
        17 => 18,
        18 => 17,
        _ => return None,
    })
}

/// The same for ICMPv6 (`nf_conntrack_proto_icmpv6.c`).
fn inverse_icmp6(kind: u8) -> Option<u8> {
    Some(match kind {
        128 => 129,
        129 => 128,
        139 => 140,
        140 => 139,
        _ => return None,
    })
}

fn icmp_key(kind: u8, code: u8) -> PortValue {
    PortValue::Is(u16::from_be_bytes([kind, code]))
}

impl Tuple {
    /// Whether this is another if the ports that a kernel picked are its own.
    fn may_be(&self, other: &Tuple) -> bool {
        let port = |picked: PortValue, is: PortValue| match (picked, is) {
            (PortValue::Fresh(range), PortValue::Is(port)) => range.contains(port),
            _ => picked == is,
        };
        (self.src, self.dst, self.protocol) == (other.src, other.dst, other.protocol)
            && port(self.sport, other.sport)
            && port(self.dport, other.dport)
    }

    /// The tuple of a packet; none for ICMP that is no query or reply.
    pub fn of(packet: &Packet) -> Option<Self> {
        let (sport, dport) = match packet.transport {
            Transport::Tcp { sport, dport, .. }
            | Transport::Udp { sport, dport }
            | Transport::Sctp { sport, dport, .. } => (sport, dport),
            Transport::Icmp { kind, code, id } => {
                inverse_icmp(kind)?;
                (id, icmp_key(kind, code))
            }
            Transport::Icmp6 { kind, code, id } => {
                inverse_icmp6(kind)?;
                (id, icmp_key(kind, code))
            }
            Transport::Other(_) => (PortValue::Is(0), PortValue::Is(0)),
        };
        let protocol = packet.transport.protocol();
        Some(Tuple { src: packet.src, dst: packet.dst, protocol, sport, dport })
    }

    /// The tuple of the answer.
    #[must_use]
    pub fn inverted(&self) -> Self {
        let (sport, dport) = match (self.protocol, self.dport) {
            (1 | 58, PortValue::Is(key)) => {
                let (kind, code) = ((key >> 8) as u8, key as u8);
                let back = if self.protocol == 1 { inverse_icmp(kind) } else { inverse_icmp6(kind) };
                (self.sport, icmp_key(back.unwrap_or(kind), code))
            }
            _ => (self.dport, self.sport),
        };
        Tuple { src: self.dst, dst: self.src, protocol: self.protocol, sport, dport }
    }
}

/// What conntrack makes of a packet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Found {
    /// Belongs to the connection at this index of the table.
    Existing(usize, Info),
    /// Opens a connection.
    Opens(Box<Connection>),
    /// Belongs to none.
    None(Info),
}

/// The connections a host knows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Connections(pub Vec<Connection>);

impl Connections {
    /// The connection that has this tuple, and the zone, in one of its
    /// directions (`nf_ct_key_equal`, `nf_conntrack_find_get`).
    pub fn find(&self, tuple: &Tuple, zones: (u16, u16)) -> Option<(usize, Direction)> {
        self.0.iter().enumerate().filter(|(_, c)| c.confirmed && !c.dead).find_map(|(index, c)| {
            if c.original == *tuple && c.original_zone == zones.0 {
                Some((index, Direction::Original))
            } else if c.reply == *tuple && c.reply_zone == zones.1 {
                Some((index, Direction::Reply))
            } else {
                None
            }
        })
    }

    /// The connections that a packet belongs to only if the kernel picked just its
    /// ports for them.
    pub fn by_chance(&self, packet: &Packet, zones: (u16, u16)) -> Vec<(usize, Tuple)> {
        let Some(tuple) = Tuple::of(packet).filter(|t| self.find(t, zones).is_none()) else {
            return Vec::new();
        };
        let meets = |c: &Connection| {
            (c.original_zone == zones.0 && c.original.may_be(&tuple))
                || (c.reply_zone == zones.1 && c.reply.may_be(&tuple))
        };
        let all = self.0.iter().enumerate().filter(|(_, c)| c.confirmed && !c.dead && meets(c));
        all.map(|(index, _)| (index, tuple)).collect()
    }

    /// The kernel did pick those ports for a connection.
    pub fn picked(&mut self, index: usize, tuple: &Tuple) {
        let connection = &mut self.0[index];
        let known = if connection.reply.may_be(tuple) { connection.reply } else { connection.original };
        let pairs = [(known.sport, tuple.sport), (known.dport, tuple.dport)];
        for side in [&mut connection.original, &mut connection.reply] {
            for port in [&mut side.sport, &mut side.dport] {
                if let Some((_, is)) = pairs.iter().find(|(fresh, _)| fresh == port) {
                    *port = *is;
                }
            }
        }
    }

    /// Whether another connection already has what is to be the reply tuple of
    /// one (`nf_nat_used_tuple`). Where the original direction has a zone of its
    /// own, that of other connections is not looked at: it hashes elsewhere.
    pub fn taken(&self, reply: &Tuple, by_other_than: &Connection) -> bool {
        let own = by_other_than;
        self.0.iter().filter(|c| c.confirmed && !c.dead && c.original != own.original).any(|c| {
            c.reply == *reply && c.reply_zone == own.reply_zone
                || c.original == *reply
                    && c.original_zone == own.original_zone
                    && c.original_zone == own.reply_zone
        })
    }

    /// Finds a packet's connection and steps its state
    /// (`nf_conntrack_in`). `zones` are those of the original and the reply
    /// direction, as a `CT --zone` target set them.
    pub fn track(&mut self, host: &Host, packet: &Packet, zones: (u16, u16)) -> Found {
        if packet.transport.is_icmp_error() {
            return self.track_error(packet, zones);
        }
        if let Transport::Icmp6 { kind, .. } = packet.transport {
            // Neighbour discovery and multicast listener messages
            // (`noct_valid_new`).
            if matches!(kind, 130..=137 | 143) {
                return Found::None(Info::Untracked);
            }
        }
        if let Transport::Tcp { flags, .. } = packet.transport {
            if !sane(flags.0) {
                return Found::None(Info::Invalid);
            }
        }
        let Some(tuple) = Tuple::of(packet) else { return Found::None(Info::Invalid) };
        match self.find(&tuple, zones) {
            Some((index, direction)) if self.reopens(index, direction, packet) => {
                self.0[index].dead = true;
                open(host, packet, tuple, zones)
            }
            Some((index, direction)) => self.follow(index, direction, packet),
            None => open(host, packet, tuple, zones),
        }
    }

    /// A SYN opens anew what is closed: after both FINs, or after a reset of
    /// the same side.
    fn reopens(&self, index: usize, direction: Direction, packet: &Packet) -> bool {
        let Transport::Tcp { flags, .. } = packet.transport else { return false };
        let connection = &self.0[index];
        let syn = flags.has(TcpFlags::SYN) && flags.0 & (TcpFlags::ACK + TcpFlags::RST) == 0;
        syn && match connection.tcp {
            TcpState::TimeWait => true,
            TcpState::Close => connection.reset_by == Some(direction),
            _ => false,
        }
    }

    fn follow(&mut self, index: usize, direction: Direction, packet: &Packet) -> Found {
        let connection = &mut self.0[index];
        if let Transport::Tcp { flags, .. } = packet.transport {
            match tcp_step(connection.tcp, flags.0, direction) {
                TcpStep::Invalid => return Found::None(Info::Invalid),
                TcpStep::Ignore => {}
                TcpStep::To(state) => {
                    connection.tcp = state;
                    if flags.has(TcpFlags::RST) {
                        connection.reset_by = Some(direction);
                        // Reset before any reply was seen: not worth keeping.
                        connection.dead = !connection.seen_reply;
                    }
                    if state == TcpState::Established && connection.seen_reply {
                        connection.assured = true;
                    }
                }
            }
        }
        let info = match direction {
            Direction::Reply => {
                connection.seen_reply = true;
                Info::EstablishedReply
            }
            Direction::Original if connection.seen_reply => Info::Established,
            Direction::Original => Info::New,
        };
        Found::Existing(index, info)
    }

    /// An ICMP error belongs to the connection of the packet it quotes
    /// (`nf_conntrack_inet_error`).
    fn track_error(&self, packet: &Packet, zones: (u16, u16)) -> Found {
        let invalid = Found::None(Info::Invalid);
        let Some(inner) = packet.quoted().and_then(Tuple::of) else { return invalid };
        let Some((index, direction)) = self.find(&inner.inverted(), zones) else { return invalid };
        let connection = &self.0[index];
        let expected = match direction {
            Direction::Original => connection.original.dst,
            Direction::Reply => connection.reply.dst,
        };
        if packet.dst != expected {
            return invalid;
        }
        Found::Existing(
            index,
            match direction {
                Direction::Original => Info::Related,
                Direction::Reply => Info::RelatedReply,
            },
        )
    }
}

/// Whether a sane TCP sends these flags (`tcp_valid_flags`).
pub(crate) fn sane(flags: u8) -> bool {
    // SYN, with URG, with ACK; RST, with ACK; FIN and ACK, with URG; ACK, with URG.
    const SANE: [u8; 9] = [0x02, 0x22, 0x12, 0x04, 0x14, 0x11, 0x31, 0x10, 0x30];
    SANE.contains(&(flags & !TcpFlags::PSH & 0x3f))
}

fn open(host: &Host, packet: &Packet, tuple: Tuple, zones: (u16, u16)) -> Found {
    let mut tcp = TcpState::None;
    match packet.transport {
        Transport::Icmp { kind, .. } if !matches!(kind, 8 | 13 | 15 | 17) => {
            return Found::None(Info::Invalid)
        }
        Transport::Icmp6 { kind, .. } if !matches!(kind, 128 | 139) => return Found::None(Info::Invalid),
        // Only INIT opens an association (sctp_new).
        Transport::Sctp { init: false, .. } => return Found::None(Info::Invalid),
        Transport::Tcp { flags, .. } => {
            let loose = host.sysctls.number("net.netfilter.nf_conntrack_tcp_loose") != Some(0);
            tcp = match tcp_step(TcpState::None, flags.0, Direction::Original) {
                TcpStep::To(TcpState::SynSent) => TcpState::SynSent,
                TcpStep::To(state) if loose => state,
                _ => return Found::None(Info::Invalid),
            };
        }
        _ => {}
    }
    Found::Opens(Box::new(Connection {
        original: tuple,
        reply: tuple.inverted(),
        original_zone: zones.0,
        reply_zone: zones.1,
        mark: 0,
        confirmed: false,
        seen_reply: false,
        assured: false,
        snat: false,
        dnat: false,
        source_done: false,
        destination_done: false,
        tcp,
        reset_by: None,
        dead: false,
    }))
}

/// What a TCP packet does to its connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum TcpStep {
    /// It belongs to no connection.
    Invalid,
    /// It leaves the state as it is.
    Ignore,
    /// It takes the connection there.
    To(TcpState),
}

/// The table `tcp_conntracks` of `nf_conntrack_proto_tcp.c`.
pub(crate) fn tcp_step(state: TcpState, flags: u8, direction: Direction) -> TcpStep {
    let flags = TcpFlags(flags);
    use TcpState::{
        Close, CloseWait, Established, FinWait, LastAck, None as NoState, SynRecv, SynSent, SynSent2,
        TimeWait,
    };
    let to = TcpStep::To;
    let original = direction == Direction::Original;
    if flags.has(TcpFlags::RST) {
        return match state {
            NoState => TcpStep::Invalid,
            _ => to(Close),
        };
    }
    if flags.has(TcpFlags::SYN + TcpFlags::ACK) {
        return match (original, state) {
            (true, SynRecv | SynSent2) => to(SynRecv),
            (true, _) => TcpStep::Invalid,
            (false, SynSent | SynSent2) => to(SynRecv),
            (false, NoState) => TcpStep::Invalid,
            (false, _) => TcpStep::Ignore,
        };
    }
    if flags.has(TcpFlags::SYN) {
        return match (original, state) {
            (true, NoState | SynSent | TimeWait | Close) => to(SynSent),
            (true, SynSent2) => to(SynSent2),
            (true, _) => TcpStep::Ignore,
            (false, SynSent | SynSent2) => to(SynSent2),
            (false, TimeWait) => to(SynSent),
            (false, _) => TcpStep::Invalid,
        };
    }
    if flags.has(TcpFlags::FIN) {
        return match (original, state) {
            (_, NoState | SynSent | SynSent2) => TcpStep::Invalid,
            (_, SynRecv | Established) => to(FinWait),
            (_, FinWait | CloseWait) => to(LastAck),
            (_, LastAck) => to(LastAck),
            (_, TimeWait) => to(TimeWait),
            (_, Close) => to(Close),
        };
    }
    if flags.has(TcpFlags::ACK) {
        return match (original, state) {
            (true, NoState) => to(Established),
            (true, SynSent | SynSent2) => TcpStep::Invalid,
            (false, NoState) => TcpStep::Invalid,
            (false, SynSent | SynSent2) => TcpStep::Ignore,
            (true, SynRecv) => to(Established),
            (false, SynRecv) => to(SynRecv),
            (_, Established) => to(Established),
            (_, FinWait | CloseWait) => to(CloseWait),
            (_, LastAck | TimeWait) => to(TimeWait),
            (_, Close) => to(Close),
        };
    }
    TcpStep::Invalid
}
