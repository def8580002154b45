//! Who is on an L2 segment, and who answers for an address there.
//!
//! A frame to an unknown address is flooded, and switches learn; so the port
//! towards a MAC address is taken to be the one that leads to it. ARP and ND
//! themselves are taken to pass (`ebtables`, `arptables` and IPv6 filters on
//! bridges are not asked about them).

use std::collections::BTreeSet;
use std::net::IpAddr;

use super::input::{self, Input};
use super::routing::{lookup, Flow, Lookup};
use super::source;
use super::tri::Tri;
use super::vlan;
use crate::addr::{Family, Mac};
use crate::model::{
    Bond, Endpoint, Host, Interface, InterfaceKind, Lab, MacvlanMode, NeighbourState, NextHop, Packet, Part,
    Payload, RouteKind, Scope, Transport, Tunnel, VlanTag,
};

/// A device that frames of a segment reach, of a host that would take them.
#[derive(Clone, Copy, Debug)]
pub struct Receiver<'a> {
    /// The host.
    pub host: &'a Host,
    /// The device that its network layer sees: a NIC, or a bridge.
    pub device: &'a Interface,
}

/// What lies behind an interface.
#[derive(Clone, Debug, Default)]
pub struct Segment<'a> {
    /// Who is there.
    pub receivers: Vec<Receiver<'a>>,
    /// Whether it reaches beyond the lab.
    pub open: bool,
    /// Whether it reaches a device that is not modelled.
    pub unmodelled: Option<String>,
}

/// The segment behind one interface: where frames sent by it arrive.
pub fn behind<'a>(lab: &'a Lab, host: &'a Host, device: &'a Interface) -> Segment<'a> {
    behind_tagged(lab, host, device, &[])
}

/// The segment behind one interface for frames that carry these tags.
pub fn behind_tagged<'a>(
    lab: &'a Lab,
    host: &'a Host,
    device: &'a Interface,
    tags: &[VlanTag],
) -> Segment<'a> {
    let mut walk = Flood { lab, segment: Segment::default(), seen: BTreeSet::new() };
    walk.send(host, device, tags.to_vec());
    walk.segment
}

/// The segment that a frame comes to which arrives at an interface.
pub fn beyond<'a>(lab: &'a Lab, host: &'a Host, device: &'a Interface, tags: &[VlanTag]) -> Segment<'a> {
    let mut walk = Flood { lab, segment: Segment::default(), seen: BTreeSet::new() };
    walk.arrive(host, device, tags.to_vec());
    walk.segment
}

/// A frame to everybody on its way.
struct Flood<'a> {
    lab: &'a Lab,
    segment: Segment<'a>,
    /// Devices passed, in either direction, with the tags it had there.
    seen: BTreeSet<(bool, &'a str, &'a str, Vec<VlanTag>)>,
}

impl<'a> Flood<'a> {
    /// Whether it passes a device for the first time.
    fn passes(&mut self, sent: bool, host: &'a Host, device: &'a Interface, tags: &[VlanTag]) -> bool {
        device.up && self.seen.insert((sent, &host.name, &device.name, tags.to_vec()))
    }

    fn send(&mut self, host: &'a Host, device: &'a Interface, mut tags: Vec<VlanTag>) {
        if !self.passes(true, host, device, &tags) {
            return;
        }
        match &device.kind {
            InterfaceKind::Physical | InterfaceKind::Veth | InterfaceKind::Tun => {
                self.wire(host, device, &tags);
            }
            InterfaceKind::Bridge(_) => self.ports(host, device, None, tags),
            InterfaceKind::Vxlan(vxlan) => {
                for (peer, device) in vtep_peers(self.lab, host, device, vxlan.vni) {
                    self.arrive(peer, device, tags.clone());
                }
            }
            InterfaceKind::Tunnel(tunnel) => {
                for (peer, device) in tunnel_peers(self.lab, host, tunnel) {
                    self.arrive(peer, device, tags.clone());
                }
            }
            InterfaceKind::Vlan(tag) => {
                if let Some(lower) = device.link.as_deref().and_then(|l| host.interface(l)) {
                    tags.insert(0, *tag);
                    self.send(host, lower, tags);
                }
            }
            InterfaceKind::Bond(bond) => {
                for port in bond_ports(host, device, bond) {
                    self.send(host, port, tags.clone());
                }
            }
            InterfaceKind::Macvlan(mode) => match lower(self.lab, host, device) {
                None => {
                    let what = format!("the device below {}:{}", host.name, device.name);
                    self.segment.unmodelled = Some(what);
                }
                Some((below, lower)) => {
                    if *mode == MacvlanMode::Bridge {
                        for (sibling, upper) in uppers(self.lab, below, lower) {
                            let same = sibling.name == host.name && upper.name == device.name;
                            if !same && is_bridged(upper) {
                                self.arrive(sibling, upper, tags.clone());
                            }
                        }
                    }
                    self.send(below, lower, tags);
                }
            },
            InterfaceKind::Loopback
            | InterfaceKind::Dummy
            | InterfaceKind::Vrf(_)
            | InterfaceKind::Wireguard(_) => {}
            InterfaceKind::Other(kind) => {
                self.segment.unmodelled = Some(format!("device {} ({kind})", device.name));
            }
        }
    }

    fn wire(&mut self, host: &'a Host, device: &'a Interface, tags: &[VlanTag]) {
        let lab = self.lab;
        if lab.leads_out(&host.name, device) {
            self.segment.open = true;
        }
        for end in lab.peers(&host.name, &device.name) {
            let Some(peer) = lab.host(&end.host) else { continue };
            if peer.unknown.contains(&Part::Links) || peer.unknown.contains(&Part::Addresses) {
                let what = format!("{}, of which the snapshot tells too little", peer.name);
                self.segment.unmodelled = Some(what);
            }
            if let Some(interface) = peer.interface(&end.interface) {
                self.arrive(peer, interface, tags.to_vec());
            }
        }
    }

    /// Out of the ports of a bridge whose VLANs let it: all but the one it
    /// came by.
    fn ports(
        &mut self,
        host: &'a Host,
        bridge: &'a Interface,
        from: Option<&'a Interface>,
        tags: Vec<VlanTag>,
    ) {
        let Some(tags) = vlan::ingress(bridge, from.unwrap_or(bridge), tags) else { return };
        if from.is_some() && bridge.up {
            if let Some(inner) = vlan::egress(bridge, bridge, tags.clone()) {
                self.taken(host, bridge, inner);
            }
        }
        for port in ports(host, &bridge.name) {
            let hairpin = port.port.as_ref().is_some_and(|p| p.hairpin);
            let back = from.is_some_and(|from| from.name == port.name && !hairpin);
            let isolated = |p: &Interface| p.port.as_ref().is_some_and(|p| p.isolated);
            let apart = from.is_some_and(|from| isolated(from) && isolated(port));
            if !back && !apart {
                if let Some(tags) = vlan::egress(bridge, port, tags.clone()) {
                    self.send(host, port, tags);
                }
            }
        }
    }

    fn arrive(&mut self, host: &'a Host, device: &'a Interface, tags: Vec<VlanTag>) {
        if !self.passes(false, host, device, &tags) {
            return;
        }
        self.taken(host, device, tags);
    }

    /// What a host does with a frame to everybody at a device
    /// (`__netif_receive_skb_core`): VLAN devices on it come first, then
    /// whatever it is a port of, then the host itself.
    fn taken(&mut self, host: &'a Host, device: &'a Interface, mut tags: Vec<VlanTag>) {
        if let Some(upper) = vlan::device(host, device, &tags) {
            tags.remove(0);
            self.arrive(host, upper, tags);
            return;
        }
        for (other, upper) in uppers(self.lab, host, device) {
            self.arrive(other, upper, tags.clone());
        }
        let master = device.master.as_deref().and_then(|m| host.interface(m));
        match master.map(|m| (m, &m.kind)) {
            Some((bridge, InterfaceKind::Bridge(_))) => {
                if device.port.as_ref().is_none_or(|p| p.forwarding) {
                    self.ports(host, bridge, Some(device), tags);
                }
            }
            Some((bond, InterfaceKind::Bond(_))) => {
                if !device.standby {
                    self.arrive(host, bond, tags);
                }
            }
            None | Some((_, InterfaceKind::Vrf(_))) => {
                if tags.iter().all(|tag| tag.id == 0) {
                    self.segment.receivers.push(Receiver { host, device });
                }
            }
            Some((other, kind)) => {
                self.segment.unmodelled = Some(format!("device {} ({kind})", other.name));
            }
        }
    }
}

/// The ports of a bond that frames may leave by.
pub fn bond_ports<'a>(
    host: &'a Host,
    device: &'a Interface,
    bond: &'a Bond,
) -> impl Iterator<Item = &'a Interface> {
    host.interfaces.iter().filter(move |i| {
        let active = || bond.active.as_deref().is_none_or(|active| active == i.name);
        i.up && i.carrier && i.master.as_deref() == Some(&device.name) && !i.standby && active()
    })
}

/// The device that a macvlan sits on.
pub fn lower<'a>(lab: &'a Lab, host: &'a Host, macvlan: &Interface) -> Option<(&'a Host, &'a Interface)> {
    if let Some(link) = &macvlan.link {
        return Some((host, host.interface(link)?));
    }
    let is = |upper: &Endpoint| upper.host == host.name && upper.interface == macvlan.name;
    let (below, _) = lab.macvlans.iter().find(|(_, upper)| is(upper))?;
    let host = lab.host(&below.host)?;
    Some((host, host.interface(&below.interface)?))
}

/// The macvlan devices that sit on a device, of whatever host.
pub fn uppers<'a>(
    lab: &'a Lab,
    host: &'a Host,
    device: &'a Interface,
) -> impl Iterator<Item = (&'a Host, &'a Interface)> {
    let here = move |i: &&Interface| {
        matches!(i.kind, InterfaceKind::Macvlan(_)) && i.link.as_deref() == Some(&device.name)
    };
    let own = host.interfaces.iter().filter(here).map(move |i| (host, i));
    let is = |below: &Endpoint| below.host == host.name && below.interface == device.name;
    let others = lab.macvlans.iter().filter(move |(below, _)| is(below));
    own.chain(others.filter_map(|(_, upper)| {
        let host = lab.host(&upper.host)?;
        Some((host, host.interface(&upper.interface)?))
    }))
}

/// Whether a device is a macvlan that reaches its siblings directly.
pub fn is_bridged(device: &Interface) -> bool {
    device.kind == InterfaceKind::Macvlan(MacvlanMode::Bridge)
}

/// The forwarding ports of a bridge.
pub fn ports<'a>(host: &'a Host, bridge: &'a str) -> impl Iterator<Item = &'a Interface> {
    host.interfaces.iter().filter(move |i| {
        i.up && i.master.as_deref() == Some(bridge) && i.port.as_ref().is_none_or(|p| p.forwarding)
    })
}

/// The other ends of a VXLAN segment that this device's table names.
fn vtep_peers<'a>(
    lab: &'a Lab,
    host: &'a Host,
    device: &'a Interface,
    vni: u32,
) -> Vec<(&'a Host, &'a Interface)> {
    let InterfaceKind::Vxlan(vxlan) = &device.kind else { return Vec::new() };
    let listed = host.fdb.iter().filter(|e| e.interface == device.name).filter_map(|e| e.destination);
    let mut remotes: Vec<IpAddr> = listed.chain(vxlan.remote).collect();
    remotes.sort_unstable();
    remotes.dedup();
    let mut peers = Vec::new();
    for remote in remotes {
        for peer in lab.all_hosts().filter(|h| h.name != host.name && h.interface_with(remote).is_some()) {
            let same = |i: &&Interface| matches!(&i.kind, InterfaceKind::Vxlan(v) if v.vni == vni);
            peers.extend(peer.interfaces.iter().filter(same).map(|i| (peer, i)));
        }
    }
    peers
}

/// The other ends of a tunnel.
fn tunnel_peers<'a>(lab: &'a Lab, host: &'a Host, tunnel: &Tunnel) -> Vec<(&'a Host, &'a Interface)> {
    let Some(remote) = tunnel.remote else { return Vec::new() };
    let peers = lab.all_hosts().filter(|h| h.name != host.name && h.interface_with(remote).is_some());
    let same = |i: &&Interface| matches!(&i.kind, InterfaceKind::Tunnel(t) if t.kind == tunnel.kind && t.key_in == tunnel.key_out);
    peers.flat_map(|peer| peer.interfaces.iter().filter(same).map(move |i| (peer, i))).collect()
}

/// Whether a device takes frames to this address as its own. A bridge takes
/// those to any of its ports, too.
pub fn owns_mac(host: &Host, device: &Interface, mac: Mac) -> bool {
    mac == Mac::ZERO
        || device.mac == Some(mac)
        || (matches!(device.kind, InterfaceKind::Bridge(_))
            && host
                .interfaces
                .iter()
                .any(|i| i.master.as_deref() == Some(&device.name) && i.mac == Some(mac)))
}

/// The addresses, from and to, of a frame that is put on the wire towards an
/// interface: from the link's other end or a neighbour; to the interface, or to
/// the bridge that it is a port of.
pub fn macs_towards(lab: &Lab, host: &Host, device: &Interface) -> (Mac, Mac) {
    let bridge = device.master.as_deref().and_then(|m| host.interface(m));
    let target = match bridge {
        Some(master) if matches!(master.kind, InterfaceKind::Bridge(_)) => master,
        _ => device,
    };
    let far_end = lab
        .peers(&host.name, &device.name)
        .find_map(|e| lab.hosts.get(&e.host)?.interface(&e.interface)?.mac);
    let neighbour = || host.neighbours.iter().find(|n| n.interface == target.name).and_then(|n| n.mac);
    (far_end.or_else(neighbour).unwrap_or(Mac::ZERO), target.mac.unwrap_or(Mac::ZERO))
}

/// Kinds of device that have no Ethernet address of their own on a segment.
const TUNNELS: [&str; 4] = ["vti", "vti6", "wireguard", "xfrm"];

/// What may hide a receiver that is not modelled behind a host's devices: a
/// macvlan or the like there, or a link of another sort in the lab.
pub fn hidden(lab: &Lab, host: &Host) -> Option<String> {
    let device = host.interfaces.iter().find_map(|i| match &i.kind {
        InterfaceKind::Other(kind) if !TUNNELS.contains(&kind.as_str()) => {
            Some(format!("device {} ({kind}) of {}", i.name, host.name))
        }
        _ => None,
    });
    device.or_else(|| lab.unmodelled.first().map(|u| u.what.clone()))
}

impl<'a> Segment<'a> {
    /// Who has this MAC address.
    pub fn owner(&self, mac: Mac) -> Option<Receiver<'a>> {
        self.receivers.iter().copied().find(|r| owns_mac(r.host, r.device, mac))
    }
}

/// What a host finds when it needs a neighbour's MAC address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Resolved {
    /// The frame goes to this address.
    Mac(Mac),
    /// Several answer; the kernel takes whichever comes first.
    Several(Vec<Mac>),
    /// Nobody answers.
    Nobody,
    /// Whoever might answer lies outside the lab.
    Outside,
    /// It depends on a device that is not modelled.
    Unknown(String),
}

/// The Ethernet address of an IP multicast group (RFC 1112, RFC 2464).
fn group_mac(group: IpAddr) -> Mac {
    match group {
        IpAddr::V4(a) => {
            let [_, b, c, d] = a.octets();
            Mac([0x01, 0x00, 0x5e, b & 0x7f, c, d])
        }
        IpAddr::V6(a) => {
            let o = a.octets();
            Mac([0x33, 0x33, o[12], o[13], o[14], o[15]])
        }
    }
}

/// Finds the MAC address to send to, for a next hop on `device`. `packet` is
/// what is to be sent: ARP asks with its source address if that is the
/// host's own (`arp_solicit`, `net/ipv4/arp.c`).
pub fn resolve(
    lab: &Lab,
    host: &Host,
    device: &Interface,
    next_hop: IpAddr,
    broadcast: bool,
    packet: &Packet,
) -> Resolved {
    if next_hop.is_multicast() {
        return Resolved::Mac(group_mac(next_hop));
    }
    // A device that asks nobody sends to its own address (arp_constructor,
    // ndisc_constructor).
    if !device.arp || device.mac.is_none() {
        return Resolved::Mac(device.mac.unwrap_or(Mac::ZERO));
    }
    if broadcast {
        return Resolved::Mac(Mac::BROADCAST);
    }
    let entry =
        host.neighbours.iter().find(|n| !n.proxy && n.interface == device.name && n.address == next_hop);
    if let Some(entry) = entry {
        if let (NeighbourState::Permanent | NeighbourState::Noarp, Some(mac)) = (entry.state, entry.mac) {
            return Resolved::Mac(mac);
        }
    }
    let segment = behind(lab, host, device);
    let own = |a: IpAddr| host.interface_with(a).is_some();
    let asker = if own(packet.src) {
        Some(packet.src)
    } else {
        match next_hop {
            IpAddr::V4(_) => {
                source::for_interface_v4(host, &device.name, Some(next_hop), Scope::Link).map(IpAddr::V4)
            }
            IpAddr::V6(dst) => source::for_interface_v6(host, &device.name, dst).map(IpAddr::V6),
        }
    };
    let mut answering: Vec<Mac> = Vec::new();
    for receiver in &segment.receivers {
        match answers(*receiver, next_hop, asker) {
            Tri::Yes => answering.extend(receiver.device.mac.filter(|mac| !answering.contains(mac))),
            Tri::No => {}
            Tri::Unknown(why) => return Resolved::Unknown(why),
        }
    }
    match answering.as_slice() {
        [] => {}
        [only] => return Resolved::Mac(*only),
        _ => return Resolved::Several(answering),
    }
    // Proxy entries set by hand are not in what `ip neigh show` prints.
    if next_hop.is_ipv6() {
        if let Some(proxy) = segment.receivers.iter().find(|r| proxies_ndp(**r)) {
            return Resolved::Unknown(format!("what {} answers for by proxy_ndp", proxy.host.name));
        }
    }
    let unmodelled =
        segment.unmodelled.clone().or_else(|| segment.receivers.iter().find_map(|r| hidden(lab, r.host)));
    let learned = entry
        .filter(|e| !matches!(e.state, NeighbourState::Failed | NeighbourState::Incomplete))
        .and_then(|e| e.mac);
    match (learned, &unmodelled) {
        (Some(mac), _) if segment.open || segment.owner(mac).is_some() => Resolved::Mac(mac),
        (_, Some(what)) => Resolved::Unknown(what.clone()),
        _ if segment.open => Resolved::Outside,
        _ => Resolved::Nobody,
    }
}

/// Whether a device answers neighbour solicitations for others.
fn proxies_ndp(receiver: Receiver) -> bool {
    let setting = |name: &str| receiver.host.sysctls.interface("ipv6", name, "proxy_ndp");
    setting("all").max(setting(&receiver.device.name)).is_some_and(|v| v != 0)
}

/// What asks for an address, as routing sees it.
pub(crate) fn question(src: IpAddr, dst: IpAddr) -> Packet {
    Packet {
        src,
        dst,
        ttl: 64,
        tos: 0,
        length: 28,
        df: false,
        fragment: None,
        mark: 0,
        transport: Transport::Other(0),
        payload: Payload::Data,
    }
}

/// Whether a host answers ARP or ND for an address on a device.
///
/// ARP answers for any address whose route is local, on whatever interface
/// it sits (weak host model), unless `arp_ignore` says otherwise
/// (`arp_process`, `arp_ignore`). ND answers for addresses of the very
/// interface (`ndisc_recv_ns`).
fn answers(receiver: Receiver, target: IpAddr, asker: Option<IpAddr>) -> Tri {
    let Receiver { host, device } = receiver;
    let here = || device.addresses.iter().any(|a| a.address == target);
    let proxied =
        || host.neighbours.iter().any(|n| n.proxy && n.address == target && n.interface == device.name);
    if !device.arp {
        return Tri::No;
    }
    if Family::of(target) == Family::Ipv6 {
        return (here() || (proxied() && proxies_ndp(receiver))).into();
    }
    let question = question(asker.unwrap_or(IpAddr::V4(std::net::Ipv4Addr::UNSPECIFIED)), target);
    let setting = |key: &str| {
        host.sysctls
            .interface("ipv4", "all", key)
            .max(host.sysctls.interface("ipv4", &device.name, key))
            .unwrap_or(0)
    };
    // arp_filter: only where the way back to the asker leaves by this device.
    if setting("arp_filter") != 0 {
        let back = asker.map(|asker| {
            let flow = Flow { dst: asker, src: Some(target), iif: "lo", ..input::flow(&question, "lo") };
            lookup(host, &flow)
        });
        match back {
            Some(Lookup::Found(_, hops))
                if hops.iter().any(|h| h.interface.as_deref() == Some(&device.name)) => {}
            Some(Lookup::Unknown(why)) => return Tri::Unknown(why),
            _ => return Tri::No,
        }
    }
    let proxies = || setting("proxy_arp") != 0 || proxied();
    match input::decide(host, device, &question) {
        Input::Local => Tri::from(match setting("arp_ignore") {
            0 => true,
            1 => here(),
            2 => device.addresses.iter().any(|a| {
                a.address == target && asker.is_some_and(|s| a.net().is_some_and(|net| net.contains(&s)))
            }),
            3 => !host
                .interfaces
                .iter()
                .flat_map(|i| &i.addresses)
                .any(|a| a.address == target && a.scope == Scope::Host),
            8 => false,
            _ => true,
        }),
        // For others, but not back to where it was asked (arp_fwd_proxy).
        Input::Forward(_, hops) if proxies() => {
            let elsewhere = |hop: &&&NextHop| hop.interface.as_deref() != Some(&device.name);
            match hops.iter().filter(elsewhere).count() {
                0 => Tri::No,
                all if all == hops.len() => Tri::Yes,
                _ => {
                    Tri::Unknown(format!("which next hop {} takes to {target} when asked for it", host.name))
                }
            }
        }
        // Open only if it may be for this host, or it may answer for others.
        Input::Unknown(why) => match lookup(host, &input::flow(&question, &device.name)) {
            Lookup::Unknown(_) => Tri::Unknown(why),
            Lookup::Found(route, _) if route.kind == RouteKind::Local || proxies() => Tri::Unknown(why),
            _ => Tri::No,
        },
        _ => Tri::No,
    }
}
