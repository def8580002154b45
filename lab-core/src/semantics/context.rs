//! What a rule can look at.

use super::conntrack::{Connection, Info};
use crate::addr::Mac;
use crate::model::{Hook, Host, Packet, PacketType, Table};

/// A packet at a hook of a host, with everything a rule can ask about it.
#[derive(Clone, Copy, Debug)]
pub struct Context<'a> {
    /// The host.
    pub host: &'a Host,
    /// The hook.
    pub hook: Hook,
    /// The packet as it is now.
    pub packet: &'a Packet,
    /// The interface it came in by, for the hooks that know it.
    pub input: Option<&'a str>,
    /// The interface it leaves by, for the hooks that know it.
    pub output: Option<&'a str>,
    /// The bridge port it came in by.
    pub phys_input: Option<&'a str>,
    /// The bridge port it leaves by, of a bridged frame.
    pub phys_output: Option<&'a str>,
    /// Who sent the frame.
    pub source_mac: Option<Mac>,
    /// To whom the frame was sent.
    pub destination_mac: Option<Mac>,
    /// To whom the frame was addressed.
    pub packet_type: PacketType,
    /// Its connection.
    pub connection: Option<&'a Connection>,
    /// What it is to that connection.
    pub info: Info,
    /// The table of the rule, for its named sets.
    pub table: &'a Table,
}

impl Context<'_> {
    /// The mark of its connection; a template has none yet.
    pub fn connection_mark(&self) -> Option<u32> {
        match (self.connection, self.info) {
            (None, Info::Template) => Some(0),
            (connection, _) => connection.map(|c| c.mark),
        }
    }
}
