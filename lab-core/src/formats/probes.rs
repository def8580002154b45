//! `probes.json`: questions about single packets.
//!
//! TCP sequence numbers are read and not kept: packets are taken to be inside
//! the window.

use std::net::IpAddr;

use serde::Deserialize;

use super::{json, names, wire, Error};
use crate::model::{How, Packet, Payload, PortValue, Probe, TcpFlags, Transport};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawProbe {
    id: String,
    at: String,
    how: String,
    iface: Option<String>,
    packet: RawPacket,
    flow: Option<String>,
    #[serde(rename = "role")]
    _role: Option<String>,
    bind: Option<String>,
    vlan: Option<u16>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawPacket {
    #[serde(rename = "family")]
    _family: Option<String>,
    src: IpAddr,
    dst: IpAddr,
    proto: Protocol,
    sport: Option<u16>,
    dport: Option<u16>,
    icmp_type: Option<u8>,
    icmp_code: Option<u8>,
    icmp_id: Option<u16>,
    tcp_flags: Option<String>,
    #[serde(rename = "tcp_seq")]
    _tcp_seq: Option<u32>,
    #[serde(rename = "tcp_ack")]
    _tcp_ack: Option<u32>,
    ttl: Option<u8>,
    tos: Option<u8>,
    mark: Option<u32>,
    payload_len: Option<u32>,
    df: Option<bool>,
    inner: Option<String>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Protocol {
    Number(u8),
    Name(String),
}

/// The most bytes of payload that fit into an IP packet with its headers.
const LONGEST: u32 = 65_000;

/// Bytes of payload when a probe does not say.
const PAYLOAD: u32 = 12;

/// The number of an IP protocol that probes and questions name.
///
/// ```
/// use lab_core::formats::probes::protocol_number;
/// assert_eq!(protocol_number("gre"), Some(47));
/// assert_eq!(protocol_number("89"), Some(89));
/// ```
pub fn protocol_number(name: &str) -> Option<u8> {
    match name {
        // What people call IP in IP is `ipencap` to /etc/protocols.
        "ipip" => Some(4),
        other => names::protocol(other),
    }
}

/// Reads probes.
///
/// # Errors
/// Broken JSON, unknown fields, addresses of two families, a protocol without
/// its ports or types, a `how` that is neither `originate` nor `inject`.
pub fn parse(file: &str, text: &str) -> Result<Vec<Probe>, Error> {
    json::elements(file, text)?
        .into_iter()
        .map(|element| {
            let raw: RawProbe = element.read()?;
            probe(raw).map_err(|message| Error::value(file, element.line, element.text, message))
        })
        .collect()
}

fn probe(raw: RawProbe) -> Result<Probe, String> {
    let how = match (raw.how.as_str(), raw.iface) {
        ("originate", _) if raw.vlan.is_some() => return Err("vlan needs inject".into()),
        ("inject", _) if raw.bind.is_some() => return Err("bind needs originate".into()),
        ("originate", _) => How::Originate(raw.bind),
        ("inject", Some(iface)) => How::Inject(iface, raw.vlan),
        ("inject", None) => return Err("inject needs iface".into()),
        (other, _) => return Err(format!("how is `{other}`, not originate or inject")),
    };
    Ok(Probe { id: raw.id, at: raw.at, how, packet: packet(raw.packet)?, flow: raw.flow })
}

fn packet(raw: RawPacket) -> Result<Packet, String> {
    if raw.src.is_ipv4() != raw.dst.is_ipv4() {
        return Err("src and dst are of two families".into());
    }
    let protocol = match &raw.proto {
        Protocol::Number(number) => *number,
        Protocol::Name(name) => protocol_number(name).ok_or_else(|| format!("unknown protocol `{name}`"))?,
    };
    let port = |port: Option<u16>, name: &str| port.map(PortValue::Is).ok_or(format!("{name} is missing"));
    let id = PortValue::Is(raw.icmp_id.unwrap_or(0));
    let kind = || raw.icmp_type.ok_or("icmp_type is missing");
    let code = raw.icmp_code.unwrap_or(0);
    let transport = match protocol {
        6 => Transport::Tcp {
            sport: port(raw.sport, "sport")?,
            dport: port(raw.dport, "dport")?,
            flags: flags(raw.tcp_flags.as_deref().unwrap_or("SYN"))?,
        },
        17 => Transport::Udp { sport: port(raw.sport, "sport")?, dport: port(raw.dport, "dport")? },
        // A probe's payload is no chunk that SCTP knows.
        132 => Transport::Sctp {
            sport: port(raw.sport, "sport")?,
            dport: port(raw.dport, "dport")?,
            init: false,
        },
        1 => Transport::Icmp { kind: kind()?, code, id },
        58 => Transport::Icmp6 { kind: kind()?, code, id },
        other => Transport::Other(other),
    };
    let (payload, quoted) = match &raw.inner {
        None => (Payload::Data, None),
        Some(hex) => {
            let bytes = wire::from_hex(hex).ok_or("inner is not hexadecimal")?;
            let inner = wire::packet(&bytes).ok_or("inner is no IP packet")?;
            (Payload::Quoted(Box::new(inner)), Some(bytes.len() as u32))
        }
    };
    let carried = match transport {
        Transport::Tcp { flags, .. } if flags.0 & (TcpFlags::SYN | TcpFlags::RST) != 0 => 0,
        _ => quoted.unwrap_or(raw.payload_len.unwrap_or(PAYLOAD)),
    };
    if carried > LONGEST {
        return Err(format!("a payload of {carried} bytes, at most {LONGEST} are sent"));
    }
    let header = if raw.dst.is_ipv4() { 20 } else { 40 };
    Ok(Packet {
        src: raw.src,
        dst: raw.dst,
        ttl: raw.ttl.unwrap_or(64),
        tos: raw.tos.unwrap_or(0),
        length: header + transport_header(&transport) + carried,
        df: raw.df.unwrap_or(true),
        fragment: None,
        mark: raw.mark.unwrap_or(0),
        transport,
        payload,
    })
}

/// Bytes of a transport header without options.
pub fn transport_header(transport: &Transport) -> u32 {
    match transport {
        Transport::Tcp { .. } => 20,
        Transport::Udp { .. } => 8,
        Transport::Sctp { .. } => 12,
        // Timestamps carry three words more.
        Transport::Icmp { kind: 13 | 14, .. } => 20,
        Transport::Icmp { .. } | Transport::Icmp6 { .. } => 8,
        Transport::Other(47) => 4,
        Transport::Other(_) => 0,
    }
}

fn flags(text: &str) -> Result<TcpFlags, String> {
    let mut bits = 0;
    for name in text.split(',').map(str::trim).filter(|n| !n.is_empty()) {
        let known = TcpFlags::NAMES.iter().find(|(n, _)| n.eq_ignore_ascii_case(name));
        bits |= known.ok_or_else(|| format!("unknown TCP flag `{name}`"))?.1;
    }
    Ok(TcpFlags(bits))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_probe_is_read() {
        let text = r#"[
{"id":"p0","at":"a","how":"originate","packet":{"family":"ipv4","src":"10.0.0.1","dst":"10.0.0.2","proto":"tcp","sport":1,"dport":22,"tcp_flags":"SYN,ACK"}}
]"#;
        let probes = parse("probes.json", text).unwrap();
        assert_eq!(probes[0].packet.to_string(), "tcp 10.0.0.1:1 -> 10.0.0.2:22 SYN,ACK");
        assert_eq!(probes[0].packet.length, 40);
    }

    #[test]
    fn errors_name_the_line() {
        let text = "[\n{\"id\":\"p0\",\"at\":\"a\",\"how\":\"guess\",\"packet\":{\"src\":\"10.0.0.1\",\"dst\":\"10.0.0.2\",\"proto\":\"gre\"}}\n]";
        let error = parse("probes.json", text).unwrap_err();
        assert_eq!((error.line, error.to_string().contains("how is `guess`")), (2, true));
        let error = parse("probes.json", "[\n{\"id\":").unwrap_err();
        assert!(error.to_string().starts_with("probes.json:2: the file ends too early"), "{error}");
    }
}
