use serde::{Deserialize, Serialize};

use super::Packet;

/// How a probe enters the lab.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum How {
    /// A process of the host sends it, bound to a device or not.
    Originate(Option<String>),
    /// A frame arrives at this interface of the host, with this tag if any.
    Inject(String, Option<u16>),
}

/// One question: what happens to this packet.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Probe {
    /// Its name.
    pub id: String,
    /// The host where it starts.
    pub at: String,
    /// How it enters.
    pub how: How,
    /// The packet.
    pub packet: Packet,
    /// The first probe of the connection, whose conntrack entries it meets.
    pub flow: Option<String>,
}
