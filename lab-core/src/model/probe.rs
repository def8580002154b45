use serde::{Deserialize, Serialize};

use super::Packet;

/// How a probe enters the lab.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum How {
    /// A process of the host sends it.
    Originate,
    /// A frame arrives at this interface of the host.
    Inject(String),
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
    /// What of the question is not modelled (a VRF binding, a VLAN tag, …);
    /// empty where all is.
    pub unmodelled: String,
}
