use crate::addr::{Family, Mac};
use crate::model::{Packet, PacketType, VlanTag};
use crate::semantics::conntrack::{Connection, Info};

/// The connection of a packet inside a host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Tracked {
    /// Not looked at yet, or belongs to none.
    None,
    /// In the host's table, at this index.
    Known(usize),
    /// Opened by this packet, and not remembered yet.
    New(Box<Connection>),
}

/// Bridge ports a packet came by (`struct nf_bridge_info`).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Bridged {
    /// The port it came in by.
    pub input: String,
    /// The port it leaves by, when it is bridged.
    pub output: Option<String>,
    /// Whether PREROUTING has seen it already, so that it is not run again
    /// when the bridge's own device receives the packet (`ip_sabotage_in`).
    pub prerouted: bool,
}

/// A packet inside a host, with what the kernel hangs on it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Skb {
    pub packet: Packet,
    pub tracked: Tracked,
    pub info: Info,
    /// Zones of its template, of either direction.
    pub zones: (u16, u16),
    pub bridged: Option<Bridged>,
    pub source_mac: Option<Mac>,
    pub destination_mac: Option<Mac>,
    /// The VLAN tags of its frame, the outermost first.
    pub tags: Vec<VlanTag>,
    pub packet_type: PacketType,
    /// The device it came in by (`IP6CB(skb)->iif`); none: it was sent here.
    pub device: Option<String>,
    /// The device it is about to leave by.
    pub leaves_by: Option<String>,
    /// Whether its route is one to everybody.
    pub to_all: bool,
    /// Whether it loops back inside the host with its route already known.
    pub looped_back: bool,
}

impl Skb {
    /// A packet that nothing is known about yet.
    pub fn new(packet: Packet) -> Self {
        Skb {
            packet,
            tracked: Tracked::None,
            info: Info::Invalid,
            zones: (0, 0),
            bridged: None,
            source_mac: None,
            destination_mac: None,
            tags: Vec::new(),
            packet_type: PacketType::Unicast,
            device: None,
            leaves_by: None,
            to_all: false,
            looped_back: false,
        }
    }

    /// What is left when a packet leaves for another device of the same host
    /// (`skb_scrub_packet`): the mark stays.
    pub fn scrubbed(self) -> Self {
        Skb::new(self.packet)
    }

    /// What a tunnel's device knows of it: for IPv6 no longer by which device it
    /// came in (`IP6CB(skb)`).
    pub fn nameless(mut self) -> Self {
        if self.packet.family() == Family::Ipv6 {
            self.device = None;
        }
        self
    }

    /// Whether it is tracked already, or not to be: connection tracking then
    /// leaves it alone.
    pub fn is_tracked(&self) -> bool {
        self.tracked != Tracked::None || self.info == Info::Untracked
    }

    /// Says that it is not to be tracked. What said first how it is tracked
    /// counts (`notrack_tg`, `nft_notrack_eval`).
    pub fn untrack(&mut self) {
        if self.tracked == Tracked::None && self.info == Info::Invalid {
            self.info = Info::Untracked;
        }
    }

    /// Says in which zones it is tracked. What said first how it is tracked
    /// counts (`xt_ct_target`), but nft does not ask whether that was not at
    /// all (`nft_ct_set_zone_eval`).
    pub fn give_zones(&mut self, zones: (u16, u16), nft: bool) {
        let open = self.info == Info::Invalid || nft && self.info == Info::Untracked;
        if self.tracked == Tracked::None && open {
            self.info = Info::Template;
            self.zones = zones;
        }
    }
}
