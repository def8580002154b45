//! `observed.json`: what ping, a TCP client or a UDP client saw.

use std::collections::BTreeMap;
use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use super::{json, Error};

/// How an observed probe ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Ending {
    /// An answer of the service came.
    Reply,
    /// A TCP reset came.
    Refused,
    /// An ICMP destination-unreachable error came.
    IcmpUnreachable,
    /// Nothing came.
    Timeout,
}

/// An ICMP error that came.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ObservedIcmp {
    /// Its type.
    #[serde(rename = "type")]
    pub kind: u8,
    /// Its code.
    pub code: u8,
    /// Its source address.
    pub from: IpAddr,
}

/// One observed probe.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Observed {
    /// Its number.
    pub id: u64,
    /// The host that sent it.
    pub from: String,
    /// The address it was sent to.
    pub to: IpAddr,
    /// The host that has this address, or `service:…`, or nobody.
    pub to_host: Option<String>,
    /// `icmp`, `tcp` or `udp`.
    pub proto: String,
    /// The destination port.
    pub dport: Option<u16>,
    /// How it ended.
    pub outcome: Ending,
    /// TTL of the reply.
    pub ttl: Option<u8>,
    /// The error, if one came.
    pub icmp: Option<ObservedIcmp>,
    /// TTL of the error.
    pub icmp_ttl: Option<u8>,
    /// The source address that the destination saw.
    pub seen_src: Option<IpAddr>,
    /// Where the last packet of a probe without answer was seen,
    /// `host:interface`.
    pub last_seen: Option<String>,
    /// Who answered.
    pub served_by: Option<String>,
    /// By how much libvirt's REJECT rules counted up, by host.
    pub libvirt_fwi_reject_hits: Option<BTreeMap<String, u64>>,
    /// How often it was tried.
    pub attempts: Option<u64>,
}

#[derive(Deserialize)]
struct File<'a> {
    #[serde(borrow)]
    probes: Vec<&'a serde_json::value::RawValue>,
}

/// Reads observed probes. Fields that are not compared are passed over.
///
/// # Errors
/// Broken JSON, or a probe without its fields.
pub fn parse(file: &str, text: &str) -> Result<Vec<Observed>, Error> {
    json::guard(file, text)?;
    let parsed: File = serde_json::from_str(text).map_err(|e| json::broken(file, 1, text, &e))?;
    json::placed(file, text, parsed.probes).iter().map(json::Element::read).collect()
}
