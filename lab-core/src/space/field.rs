//! The fields of a packet, and where their bits stand in the order of a
//! diagram.
//!
//! Each field has words of its own, 32 bits each, its value in the low bits.
//! What a hook knows of a packet comes first (interfaces, conntrack's state),
//! because one question fixes it; then family, destination, source and the
//! rest of the header; then what rules seldom ask; then what rules may change
//! ([`Field::is_mutable`]). Words past the last field hold conditions that
//! cannot be known ([`oracle`]).

/// A field that conditions ask about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Field {
    /// The interface it came in by: a name interned by [`super::Names`]; 0: none.
    Iif,
    /// The interface it leaves by.
    Oif,
    /// Conntrack's state: invalid 0, new 1, established 2, related 3,
    /// untracked 4.
    CtState,
    /// 0 for IPv4, 1 for IPv6.
    Family,
    /// Destination address; IPv4 in the first word.
    Dst,
    /// Source address; IPv4 in the first word.
    Src,
    /// IP protocol number.
    Protocol,
    /// Destination port of TCP, UDP, SCTP.
    Dport,
    /// Source port of TCP, UDP, SCTP.
    Sport,
    /// ICMP or ICMPv6 type.
    IcmpType,
    /// ICMP or ICMPv6 code.
    IcmpCode,
    /// TCP flags.
    TcpFlags,
    /// Whether an SCTP packet opens an association.
    SctpInit,
    /// Length of the packet in bytes.
    Length,
    /// To whom the frame was sent: unicast 0, broadcast 1, multicast 2,
    /// other 3.
    PacketType,
    /// The hook that the packet is at: its place in [`Hook`](crate::model::Hook).
    Hook,
    /// The bridge port it came in by.
    PhysIn,
    /// The bridge port it leaves by.
    PhysOut,
    /// Whether the ports are told (a route look-up for a raw socket has none).
    PortsTold,
    /// The frame's source: bit 48 says whether there is one.
    SrcMac,
    /// The frame's destination: bit 48 says whether there is one.
    DstMac,
    /// Bits of the connection, [`ct`] names them.
    CtBits,
    /// Protocol of the connection.
    CtProtocol,
    /// Source of the connection's original direction.
    OrigSrc,
    /// Destination of the connection's original direction.
    OrigDst,
    /// Source port of the connection's original direction.
    OrigSport,
    /// Destination port of the connection's original direction.
    OrigDport,
    /// Source of the connection's reply direction.
    ReplySrc,
    /// Destination of the connection's reply direction.
    ReplyDst,
    /// Source port of the connection's reply direction.
    ReplySport,
    /// Destination port of the connection's reply direction.
    ReplyDport,
    /// Type of service or traffic class.
    Tos,
    /// TTL or hop limit.
    Ttl,
    /// What a rule before connection tracking sees of it, a number of
    /// [`tracking`].
    Tracking,
    /// The firewall mark.
    Mark,
    /// The connection's mark.
    CtMark,
    /// A port that a kernel picked, kept apart from the packet's own.
    FreshPort,
}

/// Numbers of [`Field::Tracking`].
pub mod tracking {
    /// Nobody has looked at the packet yet.
    pub const FRESH: u32 = 0;
    /// It is not to be tracked.
    pub const UNTRACKED: u32 = 1;
    /// A rule has said how it is to be tracked.
    pub const TEMPLATE: u32 = 2;
    /// Connection tracking has looked at it: [`CtState`](super::Field::CtState) tells.
    pub const SEEN: u32 = 3;
}

/// Bits of [`Field::CtBits`].
pub mod ct {
    /// There is a connection.
    pub const KNOWN: u32 = 1;
    /// The packet goes the reply way.
    pub const REPLY: u32 = 2;
    /// The connection's source is rewritten.
    pub const SNAT: u32 = 4;
    /// The connection's destination is rewritten.
    pub const DNAT: u32 = 8;
    /// A packet went the reply way.
    pub const SEEN_REPLY: u32 = 16;
    /// The connection saw enough to be kept.
    pub const ASSURED: u32 = 32;
    /// The connection's first packet has left the host.
    pub const CONFIRMED: u32 = 64;
    /// It is settled what the connection's source becomes.
    pub const SNAT_DONE: u32 = 128;
    /// It is settled what the connection's destination becomes.
    pub const DNAT_DONE: u32 = 256;

    /// The place of one of these in its field, from the left.
    pub(crate) const fn place(bit: u32) -> u32 {
        super::Field::CtBits.bit(super::Field::CtBits.width() - 1 - bit.trailing_zeros())
    }
}

/// Every field, its first word, and its width in bits, in the order of
/// diagrams.
const LAYOUT: [(Field, u16); 37] = [
    (Field::Iif, 32),
    (Field::Oif, 32),
    (Field::CtState, 3),
    (Field::Family, 1),
    (Field::Dst, 128),
    (Field::Src, 128),
    (Field::Protocol, 8),
    (Field::Dport, 16),
    (Field::Sport, 16),
    (Field::IcmpType, 8),
    (Field::IcmpCode, 8),
    (Field::TcpFlags, 8),
    (Field::SctpInit, 1),
    (Field::Length, 32),
    (Field::PacketType, 2),
    (Field::Hook, 3),
    (Field::PhysIn, 32),
    (Field::PhysOut, 32),
    (Field::PortsTold, 1),
    (Field::SrcMac, 49),
    (Field::DstMac, 49),
    (Field::CtBits, 9),
    (Field::CtProtocol, 8),
    (Field::OrigSrc, 128),
    (Field::OrigDst, 128),
    (Field::OrigSport, 16),
    (Field::OrigDport, 16),
    (Field::ReplySrc, 128),
    (Field::ReplyDst, 128),
    (Field::ReplySport, 16),
    (Field::ReplyDport, 16),
    (Field::Tos, 8),
    (Field::Ttl, 8),
    (Field::Tracking, 2),
    (Field::Mark, 32),
    (Field::CtMark, 32),
    (Field::FreshPort, 16),
];

const FIRST_WORDS: [u16; 37] = {
    let mut words = [0; 37];
    let mut i = 0;
    while i < 36 {
        words[i + 1] = words[i] + LAYOUT[i].1.div_ceil(32);
        i += 1;
    }
    words
};

/// How many words the fields fill.
pub const WORDS: usize = FIRST_WORDS[36] as usize;

/// The place of an unknowable condition's bit: the first word past the
/// fields, and on.
pub fn oracle(number: u32) -> u32 {
    (WORDS as u32) * 32 + number
}

/// Whether a bit is that of an unknowable condition.
pub fn is_oracle(position: u32) -> bool {
    position >= (WORDS as u32) * 32
}

impl Field {
    /// Every field, in the order of diagrams.
    pub const ALL: [Field; 36] = {
        let mut all = [Field::Iif; 36];
        let mut i = 0;
        while i < 36 {
            all[i] = LAYOUT[i].0;
            i += 1;
        }
        all
    };

    /// The index of its first word.
    pub const fn word(self) -> usize {
        FIRST_WORDS[self as usize] as usize
    }

    /// Its width in bits.
    pub const fn width(self) -> u32 {
        LAYOUT[self as usize].1 as u32
    }

    /// How many words it has.
    pub const fn words(self) -> usize {
        (LAYOUT[self as usize].1 as usize).div_ceil(32)
    }

    /// Whether rules may change it: those fields come after all others.
    pub const fn is_mutable(self) -> bool {
        self as usize >= Field::Tos as usize && self as usize <= Field::CtMark as usize
    }

    /// The field that a word belongs to; none past the last.
    pub fn of_word(word: usize) -> Option<Field> {
        let index = FIRST_WORDS.partition_point(|first| usize::from(*first) <= word);
        Field::ALL.get(index.wrapping_sub(1)).copied().filter(|_| word < WORDS)
    }

    /// The place of one of its bits in the order of diagrams, counted from its
    /// highest.
    pub const fn bit(self, from_high: u32) -> u32 {
        let pad = self.words() as u32 * 32 - self.width();
        self.word() as u32 * 32 + pad + from_high
    }
}

/// The values of every field of one packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header(pub [u32; WORDS]);

impl Default for Header {
    fn default() -> Self {
        Header([0; WORDS])
    }
}

impl Header {
    /// Sets a field.
    pub fn set(&mut self, field: Field, value: u128) {
        let words = field.words();
        for i in 0..words {
            self.0[field.word() + i] = (value >> (32 * (words - 1 - i))) as u32;
        }
    }

    /// A field's value.
    pub fn get(&self, field: Field) -> u128 {
        (0..field.words()).fold(0, |n, i| n << 32 | u128::from(self.0[field.word() + i]))
    }
}
