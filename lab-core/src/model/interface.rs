use std::fmt;
use std::net::IpAddr;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use super::{Bond, BridgeVlan, MacvlanMode, Tunnel, VlanTag, Wireguard};
use crate::addr::{Family, Mac};

/// How far an address or route reaches, as in `/etc/iproute2/rt_scopes`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Scope {
    /// Everywhere (0).
    Global,
    /// Inside a site (200).
    Site,
    /// On this link only (253).
    Link,
    /// On this host only (254).
    Host,
    /// Nowhere (255).
    Nowhere,
}

/// An address of an interface.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Address {
    /// The address.
    pub address: IpAddr,
    /// Its prefix length in bits.
    pub prefix_len: u8,
    /// The other end, of a point-to-point link.
    pub peer: Option<IpAddr>,
    /// How far it reaches.
    pub scope: Scope,
    /// Whether it is a secondary address of its subnet (IPv4), which source
    /// selection passes over.
    pub secondary: bool,
    /// Whether its preferred lifetime has ended (IPv6).
    pub deprecated: bool,
    /// Whether it is a temporary one, for privacy (IPv6).
    pub temporary: bool,
    /// Whether duplicate address detection has not (yet) passed (IPv6).
    pub tentative: bool,
}

impl Address {
    /// The address with its prefix length.
    pub fn net(&self) -> Option<IpNet> {
        IpNet::new(self.address, self.prefix_len).ok()
    }

    /// The address's family.
    pub fn family(&self) -> Family {
        Family::of(self.address)
    }
}

/// Settings of a bridge device.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bridge {
    /// Whether VLAN filtering is on.
    pub vlan_filtering: bool,
    /// `nf_call_iptables` of this bridge: bridged IPv4 meets the IP hooks
    /// even where the sysctl is 0.
    pub nf_call_iptables: bool,
    /// The same for IPv6.
    pub nf_call_ip6tables: bool,
}

/// Settings of a bridge port.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BridgePort {
    /// Whether its state is `forwarding`.
    pub forwarding: bool,
    /// Whether a frame may leave by the port it came in by.
    pub hairpin: bool,
    /// Whether it is cut off from other isolated ports.
    pub isolated: bool,
    /// Whether frames to unknown addresses are flooded to it.
    pub flood: bool,
    /// Whether it learns source addresses.
    pub learning: bool,
}

impl Default for BridgePort {
    fn default() -> Self {
        BridgePort { forwarding: true, hairpin: false, isolated: false, flood: true, learning: true }
    }
}

/// Settings of a VXLAN device.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Vxlan {
    /// The VXLAN network identifier.
    pub vni: u32,
    /// The outer source address, if set.
    pub local: Option<IpAddr>,
    /// The default destination (`remote` or `group`), if set.
    pub remote: Option<IpAddr>,
    /// The device the outer packet must leave by, if set.
    pub link: Option<String>,
    /// The UDP destination port.
    pub port: u16,
    /// The outer TTL; 0: the system's default.
    pub ttl: u8,
    /// Whether it learns remote addresses.
    pub learning: bool,
}

/// What sort of device an interface is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum InterfaceKind {
    /// `lo`.
    Loopback,
    /// A NIC, real or emulated: a device of no special kind.
    Physical,
    /// One end of a veth pair.
    Veth,
    /// A tap or tun device.
    Tun,
    /// A bridge.
    Bridge(Bridge),
    /// A VXLAN tunnel.
    Vxlan(Vxlan),
    /// A device that swallows what is sent.
    Dummy,
    /// A VLAN of the device below.
    Vlan(VlanTag),
    /// Several devices used as one.
    Bond(Bond),
    /// A further Ethernet device on a device below.
    Macvlan(MacvlanMode),
    /// A routing domain of its own, with this table.
    Vrf(u32),
    /// A GRE, IPIP, SIT or ip6tnl tunnel.
    Tunnel(Tunnel),
    /// A WireGuard device.
    Wireguard(Wireguard),
    /// Any other kind, by its `info_kind`: not modelled.
    Other(String),
}

impl InterfaceKind {
    /// Whether the device has a wire that may lead out of the lab.
    pub fn has_wire(&self) -> bool {
        match self {
            InterfaceKind::Physical | InterfaceKind::Veth | InterfaceKind::Tun => true,
            InterfaceKind::Loopback
            | InterfaceKind::Bridge(_)
            | InterfaceKind::Vxlan(_)
            | InterfaceKind::Dummy
            | InterfaceKind::Vlan(_)
            | InterfaceKind::Bond(_)
            | InterfaceKind::Macvlan(_)
            | InterfaceKind::Vrf(_)
            | InterfaceKind::Tunnel(_)
            | InterfaceKind::Wireguard(_)
            | InterfaceKind::Other(_) => false,
        }
    }
}

impl fmt::Display for InterfaceKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            InterfaceKind::Loopback => "loopback",
            InterfaceKind::Physical => "physical",
            InterfaceKind::Veth => "veth",
            InterfaceKind::Tun => "tun",
            InterfaceKind::Bridge(_) => "bridge",
            InterfaceKind::Vxlan(_) => "vxlan",
            InterfaceKind::Dummy => "dummy",
            InterfaceKind::Vlan(_) => "vlan",
            InterfaceKind::Bond(_) => "bond",
            InterfaceKind::Macvlan(_) => "macvlan",
            InterfaceKind::Vrf(_) => "vrf",
            InterfaceKind::Tunnel(tunnel) => tunnel.kind.name(),
            InterfaceKind::Wireguard(_) => "wireguard",
            InterfaceKind::Other(kind) => kind,
        })
    }
}

/// A network interface.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Interface {
    /// The kernel's index, from 1.
    pub index: u32,
    /// Its name.
    pub name: String,
    /// What sort of device it is.
    pub kind: InterfaceKind,
    /// Its MAC address, if it is Ethernet-like.
    pub mac: Option<Mac>,
    /// The largest IP packet it sends, in bytes.
    pub mtu: u32,
    /// Whether it is administratively up.
    pub up: bool,
    /// Whether it has a carrier (`LOWER_UP`).
    pub carrier: bool,
    /// Whether it speaks ARP and ND (no `NOARP`).
    pub arp: bool,
    /// The device of this host that it sits on, as a VLAN or a macvlan.
    pub link: Option<String>,
    /// The bridge, bond or VRF that it belongs to.
    pub master: Option<String>,
    /// Its settings as a bridge port, if its master is a bridge.
    pub port: Option<BridgePort>,
    /// The VLANs it belongs to, as a bridge or a bridge port.
    pub vlans: Vec<BridgeVlan>,
    /// Whether it stands by, as a port of a bond.
    pub standby: bool,
    /// Its addresses, in the order `ip addr` prints them.
    pub addresses: Vec<Address>,
}
