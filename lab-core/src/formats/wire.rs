//! IP packets as bytes: what an ICMP error quotes, in hexadecimal.
//!
//! Only headers are read; quoted packets may be cut anywhere behind the first
//! eight bytes of their transport header (RFC 792).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::model::{Packet, Payload, PortValue, TcpFlags, Transport};

/// Reads hexadecimal digits; none if they are not pairs of digits.
pub fn from_hex(text: &str) -> Option<Vec<u8>> {
    let digits: Vec<u8> = text.chars().map(|c| c.to_digit(16).map(|d| d as u8)).collect::<Option<_>>()?;
    let pairs = digits.chunks_exact(2);
    if !pairs.remainder().is_empty() {
        return None;
    }
    Some(pairs.map(|p| p[0] << 4 | p[1]).collect())
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_be_bytes([*bytes.get(at)?, *bytes.get(at + 1)?]))
}

/// Reads a packet's headers; none if they are cut short or not IP.
pub fn packet(bytes: &[u8]) -> Option<Packet> {
    match bytes.first()? >> 4 {
        4 => {
            let header = usize::from(bytes[0] & 0xf) * 4;
            let four = |at: usize| <[u8; 4]>::try_from(bytes.get(at..at + 4)?).ok().map(Ipv4Addr::from);
            Some(Packet {
                src: IpAddr::V4(four(12)?),
                dst: IpAddr::V4(four(16)?),
                ttl: *bytes.get(8)?,
                tos: *bytes.get(1)?,
                length: u16_at(bytes, 2)?.into(),
                df: bytes.get(6)? & 0x40 != 0,
                fragment: None,
                mark: 0,
                transport: transport(*bytes.get(9)?, bytes.get(header..)?)?,
                payload: Payload::Data,
            })
        }
        6 => {
            let sixteen = |at: usize| <[u8; 16]>::try_from(bytes.get(at..at + 16)?).ok().map(Ipv6Addr::from);
            Some(Packet {
                src: IpAddr::V6(sixteen(8)?),
                dst: IpAddr::V6(sixteen(24)?),
                ttl: *bytes.get(7)?,
                tos: (u16_at(bytes, 0)? >> 4) as u8,
                length: u32::from(u16_at(bytes, 4)?) + 40,
                df: false,
                fragment: None,
                mark: 0,
                transport: transport(*bytes.get(6)?, bytes.get(40..)?)?,
                payload: Payload::Data,
            })
        }
        _ => None,
    }
}

fn transport(protocol: u8, bytes: &[u8]) -> Option<Transport> {
    let port = |at| u16_at(bytes, at).map(PortValue::Is);
    Some(match protocol {
        6 => Transport::Tcp {
            sport: port(0)?,
            dport: port(2)?,
            flags: TcpFlags(bytes.get(13).copied().unwrap_or(0) & 0x3f),
        },
        17 => Transport::Udp { sport: port(0)?, dport: port(2)? },
        132 => Transport::Sctp { sport: port(0)?, dport: port(2)?, init: bytes.get(12) == Some(&1) },
        1 => Transport::Icmp { kind: *bytes.first()?, code: *bytes.get(1)?, id: port(4)? },
        58 => Transport::Icmp6 { kind: *bytes.first()?, code: *bytes.get(1)?, id: port(4)? },
        other => Transport::Other(other),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quoted_syn_is_read() {
        let bytes =
            from_hex("450000280005400040063cc97f0000017f0000014e20071400000500000000005002fde859c30000")
                .unwrap();
        let read = packet(&bytes).unwrap();
        assert_eq!(read.to_string(), "tcp 127.0.0.1:20000 -> 127.0.0.1:1812 SYN");
        assert_eq!((read.length, read.df), (40, true));
    }

    #[test]
    fn cut_bytes_are_no_packet() {
        assert_eq!(packet(&from_hex("4500002800").unwrap()), None);
        assert_eq!(from_hex("450"), None);
        assert_eq!(from_hex("zz"), None);
    }
}
