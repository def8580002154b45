use std::fmt;
use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use super::VlanTag;
use crate::addr::{Family, Mac, PortRange};

/// A port, or what a program or the kernel picks when nobody says which.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(untagged)]
pub enum PortValue {
    /// This port (or ICMP identifier).
    Is(u16),
    /// One of these; which is not known.
    Fresh(PortRange),
}

impl PortValue {
    /// Any port a client's kernel may pick by itself
    /// (`net.ipv4.ip_local_port_range`, its default).
    pub const EPHEMERAL: PortValue = PortValue::Fresh(PortRange { low: 32768, high: 60999 });

    /// The port, if it is known.
    pub fn known(self) -> Option<u16> {
        match self {
            PortValue::Is(port) => Some(port),
            PortValue::Fresh(_) => None,
        }
    }
}

impl fmt::Display for PortValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            PortValue::Is(port) => write!(f, "{port}"),
            PortValue::Fresh(_) => f.write_str("*"),
        }
    }
}

/// TCP flags, as bits of the header's flag octet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct TcpFlags(pub u8);

impl TcpFlags {
    /// FIN.
    pub const FIN: u8 = 1;
    /// SYN.
    pub const SYN: u8 = 2;
    /// RST.
    pub const RST: u8 = 4;
    /// PSH.
    pub const PSH: u8 = 8;
    /// ACK.
    pub const ACK: u8 = 16;
    /// URG.
    pub const URG: u8 = 32;

    /// The flags with their names, lowest bit last as people write them.
    pub const NAMES: [(&'static str, u8); 6] = [
        ("SYN", Self::SYN),
        ("FIN", Self::FIN),
        ("RST", Self::RST),
        ("PSH", Self::PSH),
        ("ACK", Self::ACK),
        ("URG", Self::URG),
    ];

    /// Whether all of these bits are set.
    pub fn has(self, bits: u8) -> bool {
        self.0 & bits == bits
    }
}

impl fmt::Display for TcpFlags {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<&str> = Self::NAMES.iter().filter(|(_, b)| self.has(*b)).map(|(n, _)| *n).collect();
        f.write_str(&names.join(","))
    }
}

/// What follows the IP header.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Transport {
    /// TCP.
    Tcp {
        /// Source port.
        sport: PortValue,
        /// Destination port.
        dport: PortValue,
        /// Flags.
        flags: TcpFlags,
    },
    /// UDP.
    Udp {
        /// Source port.
        sport: PortValue,
        /// Destination port.
        dport: PortValue,
    },
    /// SCTP.
    Sctp {
        /// Source port.
        sport: PortValue,
        /// Destination port.
        dport: PortValue,
        /// Whether it opens an association: its first chunk is INIT.
        init: bool,
    },
    /// ICMP.
    Icmp {
        /// Type.
        kind: u8,
        /// Code.
        code: u8,
        /// Identifier of an echo or its like.
        id: PortValue,
    },
    /// ICMPv6.
    Icmp6 {
        /// Type.
        kind: u8,
        /// Code.
        code: u8,
        /// Identifier of an echo.
        id: PortValue,
    },
    /// Any other protocol, by number.
    Other(u8),
}

impl Transport {
    /// The IP protocol number.
    pub fn protocol(&self) -> u8 {
        match self {
            Transport::Tcp { .. } => 6,
            Transport::Udp { .. } => 17,
            Transport::Sctp { .. } => 132,
            Transport::Icmp { .. } => 1,
            Transport::Icmp6 { .. } => 58,
            Transport::Other(number) => *number,
        }
    }

    /// Source and destination port of TCP, UDP and SCTP.
    pub fn ports(&self) -> Option<(PortValue, PortValue)> {
        match *self {
            Transport::Tcp { sport, dport, .. }
            | Transport::Udp { sport, dport }
            | Transport::Sctp { sport, dport, .. } => Some((sport, dport)),
            Transport::Icmp { .. } | Transport::Icmp6 { .. } | Transport::Other(_) => None,
        }
    }

    /// Type and code of ICMP or ICMPv6.
    pub fn icmp(&self) -> Option<(u8, u8)> {
        match *self {
            Transport::Icmp { kind, code, .. } | Transport::Icmp6 { kind, code, .. } => Some((kind, code)),
            _ => None,
        }
    }

    /// Whether it is an ICMP or ICMPv6 error, which quotes another packet.
    pub fn is_icmp_error(&self) -> bool {
        match *self {
            Transport::Icmp { kind, .. } => matches!(kind, 3 | 4 | 5 | 11 | 12),
            Transport::Icmp6 { kind, .. } => kind < 128,
            _ => false,
        }
    }
}

/// What a packet carries that matters on its way.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Payload {
    /// Nothing that matters.
    Data,
    /// The packet that an ICMP error is about.
    Quoted(Box<Packet>),
    /// A frame in VXLAN.
    Vxlan {
        /// The network identifier.
        vni: u32,
        /// The frame.
        frame: Box<Frame>,
    },
    /// A packet in GRE, or in IP itself.
    Tunnelled {
        /// GRE's key.
        key: Option<u32>,
        /// The packet.
        packet: Box<Packet>,
    },
    /// A frame in GRE.
    Ethernet {
        /// GRE's key.
        key: Option<u32>,
        /// The frame.
        frame: Box<Frame>,
    },
    /// A packet that WireGuard encrypted.
    Wireguard {
        /// The public key of the device that sent it.
        from: String,
        /// The public key of the peer that it is for.
        to: String,
        /// The packet.
        packet: Box<Packet>,
    },
}

/// An IP packet, whole or as all of its fragments, without options or extension
/// headers, with right checksums.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Packet {
    /// Source address.
    pub src: IpAddr,
    /// Destination address; of the same family.
    pub dst: IpAddr,
    /// TTL or hop limit: the hops left.
    pub ttl: u8,
    /// Type of service or traffic class: the whole octet.
    pub tos: u8,
    /// Length of the IP packet in bytes, headers included.
    pub length: u32,
    /// Whether it must not be fragmented (IPv4 DF).
    pub df: bool,
    /// The most bytes of each piece, where it travels in fragments.
    pub fragment: Option<u32>,
    /// The firewall mark: not on the wire, but carried inside a host.
    pub mark: u32,
    /// What follows the IP header.
    pub transport: Transport,
    /// What it carries.
    pub payload: Payload,
}

impl Packet {
    /// The IP version.
    pub fn family(&self) -> Family {
        Family::of(self.dst)
    }

    /// The length of what is on the wire in bytes: of its longest fragment.
    pub fn on_wire(&self) -> u32 {
        self.fragment.map_or(self.length, |piece| piece.min(self.length))
    }

    /// The packet that this ICMP error quotes.
    pub fn quoted(&self) -> Option<&Packet> {
        match &self.payload {
            Payload::Quoted(inner) => Some(inner),
            _ => None,
        }
    }

    /// The packet that a tunnel carries in this one.
    pub fn inner(&self) -> Option<&Packet> {
        match &self.payload {
            Payload::Data | Payload::Quoted(_) => None,
            Payload::Vxlan { frame, .. } | Payload::Ethernet { frame, .. } => Some(&frame.packet),
            Payload::Tunnelled { packet, .. } | Payload::Wireguard { packet, .. } => Some(packet),
        }
    }
}

impl fmt::Display for Packet {
    /// `tcp 10.0.0.1:40000 -> 10.0.0.2:22 SYN`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let end = |address: IpAddr, port: PortValue| match address {
            IpAddr::V4(a) => format!("{a}:{port}"),
            IpAddr::V6(a) => format!("[{a}]:{port}"),
        };
        let (src, dst) = (self.src, self.dst);
        match self.transport {
            Transport::Tcp { sport, dport, flags } => {
                write!(f, "tcp {} -> {} {}", end(src, sport), end(dst, dport), flags)
            }
            Transport::Udp { sport, dport } => {
                write!(f, "udp {} -> {}", end(src, sport), end(dst, dport))
            }
            Transport::Sctp { sport, dport, .. } => {
                write!(f, "sctp {} -> {}", end(src, sport), end(dst, dport))
            }
            Transport::Icmp { kind, code, .. } => write!(f, "icmp {kind}/{code} {src} -> {dst}"),
            Transport::Icmp6 { kind, code, .. } => write!(f, "icmpv6 {kind}/{code} {src} -> {dst}"),
            Transport::Other(number) => write!(f, "proto {number} {src} -> {dst}"),
        }
    }
}

/// An Ethernet frame with an IP packet in it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Frame {
    /// Who sent it.
    pub src: Mac,
    /// To whom.
    pub dst: Mac,
    /// Its VLAN tags, the outermost first.
    pub tags: Vec<VlanTag>,
    /// The packet.
    pub packet: Packet,
}
