//! Packets as bytes, and what is seen of them again.
//!
//! Each probe carries a marker that NAT keeps: TCP's sequence number, or the
//! start of the payload. Errors about it quote it.

use std::net::IpAddr;

use lab_core::addr::Mac;
use lab_core::formats::probes::transport_header;
use lab_core::formats::wire;
use lab_core::model::{AnswerKind, Packet, Payload, PortValue, TcpFlags, Transport};

use crate::peel;

/// The fewest bytes that hold a marker behind what protocols look at; a
/// transport header has no more.
const ROOM: u32 = 20;

/// What TCP's acknowledgement says, made of the marker: resets repeat it.
const ACKNOWLEDGED: u32 = 0x5a5a_5a5a;

/// The packet as it can be sent and known again: not too short for its marker,
/// not too long for the wire.
pub fn sendable(packet: &Packet) -> Packet {
    Packet {
        length: packet.length.clamp(40 + ROOM * 2, 1500),
        df: packet.df || packet.dst.is_ipv6(),
        ..packet.clone()
    }
}

fn sum(bytes: &[u8], start: u32) -> u32 {
    bytes.chunks(2).fold(start, |sum, pair| {
        sum + u32::from(u16::from_be_bytes([pair[0], pair.get(1).copied().unwrap_or(0)]))
    })
}

fn folded(mut sum: u32) -> u16 {
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}

/// SCTP's checksum (RFC 4960, appendix B).
fn crc32c(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(u32::MAX, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |c, _| (c >> 1) ^ (0x82f6_3b78 & 0_u32.wrapping_sub(c & 1)))
    })
}

fn octets(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(a) => a.octets().to_vec(),
        IpAddr::V6(a) => a.octets().to_vec(),
    }
}

fn port(value: PortValue) -> [u8; 2] {
    value.known().unwrap_or(0).to_be_bytes()
}

/// What a packet carries: zeros, which no protocol takes for something, then
/// the marker.
fn payload(packet: &Packet, marker: u32) -> Vec<u8> {
    let ip = if packet.dst.is_ipv4() { 20 } else { 40 };
    let header = ip + transport_header(&packet.transport);
    let mut bytes = vec![0; packet.length.saturating_sub(header) as usize];
    let mut at = 8;
    if let Transport::Sctp { init, .. } = packet.transport {
        let [high, low] = (bytes.len() as u16).to_be_bytes();
        if init {
            // INIT, alone in its packet: its length, a tag that is not 0, a
            // window, streams.
            bytes[..4].copy_from_slice(&[1, 0, high, low]);
            bytes[8..16].copy_from_slice(&[0, 1, 0, 0, 0, 1, 0, 1]);
            at = 4;
        } else {
            // DATA, from its beginning to its end.
            bytes[..4].copy_from_slice(&[0, 3, high, low]);
        }
    }
    if bytes.len() >= at + 4 {
        bytes[at..at + 4].copy_from_slice(&marker.to_be_bytes());
    }
    bytes
}

fn segment(packet: &Packet, marker: u32) -> Vec<u8> {
    let carried = payload(packet, marker);
    let mut bytes = Vec::with_capacity(packet.length as usize);
    let checksum = match packet.transport {
        Transport::Tcp { sport, dport, flags } => {
            bytes.extend([port(sport), port(dport)].concat());
            bytes.extend(marker.to_be_bytes());
            bytes.extend((marker ^ ACKNOWLEDGED).to_be_bytes());
            bytes.extend([0x50, flags.0, 0xfd, 0xe8, 0, 0, 0, 0]);
            Some(16)
        }
        Transport::Udp { sport, dport } => {
            bytes.extend([port(sport), port(dport)].concat());
            bytes.extend((8 + carried.len() as u16).to_be_bytes());
            bytes.extend([0, 0]);
            Some(6)
        }
        Transport::Sctp { sport, dport, init } => {
            bytes.extend([port(sport), port(dport)].concat());
            // Only INIT has no verification tag.
            bytes.extend(u32::from(!init).to_be_bytes());
            bytes.extend([0; 4]);
            None
        }
        Transport::Icmp { kind, code, id } | Transport::Icmp6 { kind, code, id } => {
            bytes.extend([kind, code, 0, 0]);
            bytes.extend(port(id));
            bytes.extend([0, 1]);
            bytes.resize(transport_header(&packet.transport) as usize, 0);
            Some(2)
        }
        Transport::Other(_) => {
            bytes.resize(transport_header(&packet.transport) as usize, 0);
            None
        }
    };
    bytes.extend(carried);
    if let Some(at) = checksum {
        let pseudo = match packet.transport {
            Transport::Icmp { .. } => 0,
            _ => {
                let ends = sum(&octets(packet.dst), sum(&octets(packet.src), 0));
                ends + u32::from(packet.transport.protocol()) + bytes.len() as u32
            }
        };
        let right = match folded(sum(&bytes, pseudo)) {
            0 if matches!(packet.transport, Transport::Udp { .. }) => 0xffff,
            right => right,
        };
        bytes[at..at + 2].copy_from_slice(&right.to_be_bytes());
    }
    if matches!(packet.transport, Transport::Sctp { .. }) {
        let right = crc32c(&bytes).to_le_bytes();
        bytes[8..12].copy_from_slice(&right);
    }
    bytes
}

/// An IP packet with right checksums.
pub fn bytes(packet: &Packet, marker: u32) -> Vec<u8> {
    let carried = segment(packet, marker);
    let mut bytes = header(packet, carried.len(), ((marker >> 12) as u16).max(1));
    bytes.extend(carried);
    bytes
}

fn header(packet: &Packet, carried: usize, id: u16) -> Vec<u8> {
    let protocol = packet.transport.protocol();
    let mut bytes = Vec::with_capacity(40 + carried);
    if packet.dst.is_ipv4() {
        bytes.extend([0x45, packet.tos]);
        bytes.extend((20 + carried as u16).to_be_bytes());
        bytes.extend(id.to_be_bytes());
        bytes.extend([if packet.df { 0x40 } else { 0 }, 0, packet.ttl, protocol, 0, 0]);
        bytes.extend(octets(packet.src));
        bytes.extend(octets(packet.dst));
        let right = folded(sum(&bytes, 0));
        bytes[10..12].copy_from_slice(&right.to_be_bytes());
    } else {
        bytes.extend([0x60 | packet.tos >> 4, packet.tos << 4, 0, 0]);
        bytes.extend((carried as u16).to_be_bytes());
        bytes.extend([protocol, packet.ttl]);
        bytes.extend(octets(packet.src));
        bytes.extend(octets(packet.dst));
    }
    bytes
}

/// A frame with an IP packet in it, with a tag or not.
pub fn frame(src: Mac, dst: Mac, tag: Option<u16>, packet: &[u8]) -> Vec<u8> {
    let kind: [u8; 2] = if packet[0] >> 4 == 4 { [0x08, 0x00] } else { [0x86, 0xdd] };
    let tag = tag.map_or(Vec::new(), |id| [&[0x81, 0][..], &id.to_be_bytes()].concat());
    [&dst.0[..], &src.0[..], &tag, &kind[..], packet].concat()
}

/// An IPv6 packet as a raw socket gets it: its header is told beside.
pub fn with_header(ends: (IpAddr, IpAddr), hops: u8, class: u8, protocol: u8, carried: &[u8]) -> Vec<u8> {
    let packet = Packet {
        src: ends.0,
        dst: ends.1,
        ttl: hops,
        tos: class,
        length: 0,
        df: true,
        fragment: None,
        mark: 0,
        transport: Transport::Other(protocol),
        payload: Payload::Data,
    };
    let mut bytes = header(&packet, carried.len(), 1);
    bytes.extend(carried);
    bytes
}

/// What somebody outside answers to a question for a neighbour; none if the
/// frame is none.
pub fn neighbour(frame: &[u8], own: Mac) -> Option<Vec<u8>> {
    let asker = Mac(frame.get(6..12)?.try_into().ok()?);
    let tail = frame.get(14..)?;
    if frame[12..14] == [0x08, 0x06] && tail.get(6..8)? == [0, 1] {
        let (from, target) = (tail.get(14..18)?, tail.get(24..28)?);
        let kind = [0, 1, 8, 0, 6, 4, 0, 2];
        return Some([&asker.0[..], &own.0, &[8, 6], &kind, &own.0, target, &asker.0, from].concat());
    }
    let asks = frame[12..14] == [0x86, 0xdd] && tail.get(6)? == &58 && tail.get(40)? == &135;
    // Who asks from nowhere looks for a double of itself.
    let from: [u8; 16] = tail.get(8..24)?.try_into().ok()?;
    if !asks || from == [0; 16] || frame[..3] != [0x33, 0x33, 0xff] {
        return None;
    }
    let target: [u8; 16] = tail.get(48..64)?.try_into().ok()?;
    let ends = (IpAddr::from(target), IpAddr::from(from));
    // An advertisement: solicited, overriding, with its link address.
    let mut carried = [&[136, 0, 0, 0, 0x60, 0, 0, 0][..], &target, &[2, 1], &own.0].concat();
    let pseudo = sum(&octets(ends.1), sum(&octets(ends.0), 58 + carried.len() as u32));
    let right = folded(sum(&carried, pseudo));
    carried[2..4].copy_from_slice(&right.to_be_bytes());
    Some(self::frame(own, asker, None, &with_header(ends, 255, 0, 58, &carried)))
}

/// What a packet on the wire is to a probe.
pub enum Sight {
    /// The probe itself.
    Probe(Packet),
    /// An error about it: what it is, from whom.
    Answer(AnswerKind, IpAddr),
    /// A packet of a tunnel that it is inside of.
    Outer(Packet),
}

/// What a packet is to the probe of a marker; none if nothing.
pub fn sight(bytes: &[u8], marker: u32) -> Option<Sight> {
    let packet = wire::packet(bytes)?;
    if let Some(inner) = peel::carried(bytes) {
        // An error inside is seen again when it comes out.
        return match sight(inner, marker)? {
            Sight::Probe(_) | Sight::Outer(_) => Some(Sight::Outer(packet)),
            Sight::Answer(..) => None,
        };
    }
    let (_, behind) = peel::behind(bytes)?;
    let word = |at: usize| Some(u32::from_be_bytes(behind.get(at..at + 4)?.try_into().ok()?));
    if let Transport::Tcp { flags, .. } = packet.transport {
        let (seq, ack) = (word(4)?, word(8)?);
        if seq == marker {
            return Some(Sight::Probe(packet));
        }
        let about = seq == marker ^ ACKNOWLEDGED || ack.wrapping_sub(marker) < 2000;
        return (flags.has(TcpFlags::RST) && about)
            .then_some(Sight::Answer(AnswerKind::TcpReset, packet.src));
    }
    let found = behind.windows(4).any(|w| w == marker.to_be_bytes());
    if !found {
        return None;
    }
    // What is said about a tunnel's packet its sender does not hear.
    let about_outer = behind.get(8..).and_then(peel::carried).is_some();
    match packet.transport {
        _ if packet.transport.is_icmp_error() && about_outer => None,
        // What is changed by the way is told by a redirect, not refused.
        Transport::Icmp { kind: 5, .. } => None,
        Transport::Icmp { kind, code, .. } if packet.transport.is_icmp_error() => {
            Some(Sight::Answer(AnswerKind::Icmp(kind, code), packet.src))
        }
        Transport::Icmp6 { kind, code, .. } if packet.transport.is_icmp_error() => {
            Some(Sight::Answer(AnswerKind::Icmp6(kind, code), packet.src))
        }
        _ => Some(Sight::Probe(packet)),
    }
}
