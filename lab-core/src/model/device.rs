use std::fmt;
use std::net::{IpAddr, SocketAddr};

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use crate::addr::Family;

/// A VLAN tag of an Ethernet frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct VlanTag {
    /// The VLAN, from 0 (priority only) to 4095.
    pub id: u16,
    /// Whether it is a service tag (802.1ad) and not one of 802.1Q.
    pub service: bool,
}

impl VlanTag {
    /// An 802.1Q tag.
    pub fn new(id: u16) -> Self {
        VlanTag { id, service: false }
    }
}

/// A VLAN that a bridge port belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BridgeVlan {
    /// The VLAN, from 1 to 4094.
    pub id: u16,
    /// Whether frames that come in without a tag belong to it.
    pub pvid: bool,
    /// Whether frames leave without their tag.
    pub untagged: bool,
}

/// What a bond does with its ports.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bond {
    /// `active-backup`, `802.3ad`, `balance-rr`, …
    pub mode: String,
    /// The port in use, in the modes that use one.
    pub active: Option<String>,
}

impl Bond {
    /// Whether one port is in use and the others stand by.
    pub fn is_active_backup(&self) -> bool {
        self.mode == "active-backup"
    }
}

/// How the macvlan devices of one lower device see each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum MacvlanMode {
    /// Not at all.
    Private,
    /// By a switch outside that sends frames back.
    Vepa,
    /// Directly.
    Bridge,
    /// There is only one.
    Passthru,
}

impl fmt::Display for MacvlanMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            MacvlanMode::Private => "private",
            MacvlanMode::Vepa => "vepa",
            MacvlanMode::Bridge => "bridge",
            MacvlanMode::Passthru => "passthru",
        })
    }
}

/// What a tunnel wraps packets in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum TunnelKind {
    /// GRE over IPv4 (`gre`).
    Gre,
    /// Ethernet in GRE over IPv4 (`gretap`).
    Gretap,
    /// IPv4 in IPv4 (`ipip`).
    Ipip,
    /// IPv6 in IPv4 (`sit`).
    Sit,
    /// GRE over IPv6 (`ip6gre`).
    Ip6gre,
    /// Ethernet in GRE over IPv6 (`ip6gretap`).
    Ip6gretap,
    /// IPv4 or IPv6 in IPv6 (`ip6tnl`).
    Ip6tnl,
}

impl TunnelKind {
    /// Every kind.
    pub const ALL: [TunnelKind; 7] = [
        TunnelKind::Gre,
        TunnelKind::Gretap,
        TunnelKind::Ipip,
        TunnelKind::Sit,
        TunnelKind::Ip6gre,
        TunnelKind::Ip6gretap,
        TunnelKind::Ip6tnl,
    ];

    /// The kind as `ip link` names it.
    pub fn name(self) -> &'static str {
        match self {
            TunnelKind::Gre => "gre",
            TunnelKind::Gretap => "gretap",
            TunnelKind::Ipip => "ipip",
            TunnelKind::Sit => "sit",
            TunnelKind::Ip6gre => "ip6gre",
            TunnelKind::Ip6gretap => "ip6gretap",
            TunnelKind::Ip6tnl => "ip6tnl",
        }
    }

    /// The family of the outer packet.
    pub fn outer(self) -> Family {
        match self {
            TunnelKind::Gre | TunnelKind::Gretap | TunnelKind::Ipip | TunnelKind::Sit => Family::Ipv4,
            TunnelKind::Ip6gre | TunnelKind::Ip6gretap | TunnelKind::Ip6tnl => Family::Ipv6,
        }
    }

    /// Whether it wraps frames, so that it is an Ethernet device.
    pub fn is_ethernet(self) -> bool {
        matches!(self, TunnelKind::Gretap | TunnelKind::Ip6gretap)
    }

    /// Whether the outer packet is GRE.
    pub fn is_gre(self) -> bool {
        !matches!(self, TunnelKind::Ipip | TunnelKind::Sit | TunnelKind::Ip6tnl)
    }
}

/// Settings of a GRE, IPIP, SIT or ip6tnl device.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tunnel {
    /// What it wraps packets in.
    pub kind: TunnelKind,
    /// The only family it takes inside; none: both.
    pub inside: Option<Family>,
    /// The outer source; none: any.
    pub local: Option<IpAddr>,
    /// The outer destination; none: any, so nothing is sent without a route
    /// that says where.
    pub remote: Option<IpAddr>,
    /// The device the outer packet must leave by, if set.
    pub link: Option<String>,
    /// The outer TTL; 0: that of the packet inside.
    pub ttl: u8,
    /// Whether the outer packet must not be fragmented (`pmtudisc`).
    pub df: bool,
    /// Whether the DF of the packet inside is passed over (`ignore-df`).
    pub ignore_df: bool,
    /// The key that packets must come with.
    pub key_in: Option<u32>,
    /// The key that packets are sent with.
    pub key_out: Option<u32>,
    /// Whether packets are sent with a checksum.
    pub checksum: bool,
    /// Whether packets are sent with sequence numbers.
    pub sequence: bool,
    /// Whether outer IPv6 packets say how deep they may be wrapped, in a header
    /// of their own.
    pub encap_limit: bool,
}

impl Tunnel {
    /// A tunnel of which nothing but the kind is said, as `ip link` makes it.
    pub fn new(kind: TunnelKind) -> Self {
        let inside = match kind {
            TunnelKind::Ipip => Some(Family::Ipv4),
            TunnelKind::Sit => Some(Family::Ipv6),
            _ => None,
        };
        Tunnel {
            kind,
            inside,
            local: None,
            remote: None,
            link: None,
            ttl: 0,
            df: kind.outer() == Family::Ipv4,
            ignore_df: false,
            key_in: None,
            key_out: None,
            checksum: false,
            sequence: false,
            encap_limit: kind.outer() == Family::Ipv6,
        }
    }

    /// What the outer headers take, in bytes.
    pub fn overhead(&self) -> u32 {
        let outer = match self.kind.outer() {
            Family::Ipv4 => 20,
            Family::Ipv6 if self.encap_limit => 40 + 8,
            Family::Ipv6 => 40,
        };
        let ethernet = if self.kind.is_ethernet() { 14 } else { 0 };
        outer + ethernet + self.gre_header()
    }

    /// The GRE header, in bytes.
    fn gre_header(&self) -> u32 {
        if !self.kind.is_gre() {
            return 0;
        }
        let options = [self.checksum, self.key_out.is_some(), self.sequence];
        4 + 4 * options.into_iter().filter(|on| *on).count() as u32
    }
}

/// Settings of a WireGuard device (`wg show all dump`).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Wireguard {
    /// Its public key.
    pub public_key: String,
    /// The UDP port it listens on.
    pub port: u16,
    /// The mark of its outer packets; 0: none.
    pub mark: u32,
    /// Whom it talks to.
    pub peers: Vec<WireguardPeer>,
}

/// A peer of a WireGuard device.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WireguardPeer {
    /// Its public key.
    pub public_key: String,
    /// Whether a preshared key is used, too.
    pub preshared: bool,
    /// Whether both have ever shaken hands. Where not, nothing is claimed of what
    /// is sent to it.
    pub heard: bool,
    /// Where it was last heard of; none: not known, so nothing is sent.
    pub endpoint: Option<SocketAddr>,
    /// What it may send, and what is sent to it.
    pub allowed: Vec<IpNet>,
    /// Seconds between keepalives; none: off.
    pub keepalive: Option<u16>,
}

impl Wireguard {
    /// The peer that an address belongs to: the longest of all allowed
    /// prefixes (`wg_allowedips_lookup_dst`, `drivers/net/wireguard`).
    pub fn peer(&self, address: IpAddr) -> Option<&WireguardPeer> {
        let prefixes = self.peers.iter().flat_map(|p| p.allowed.iter().map(move |net| (p, net)));
        prefixes
            .filter(|(_, net)| net.contains(&address))
            .max_by_key(|(_, net)| net.prefix_len())
            .map(|(peer, _)| peer)
    }
}
