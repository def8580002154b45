use std::collections::HashMap;

use super::ids::NONE;
use super::{AclId, DeviceId, Error, LinkId, PortId};

/// A link: whatever leaves by its first port arrives at the second, if every
/// access list on the way permits it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Link {
    /// The port it leaves.
    pub from: PortId,
    /// The port it arrives at.
    pub to: PortId,
    /// The access lists it passes, in order.
    pub acls: Vec<AclId>,
}

/// Builds a [`Topology`].
///
/// Devices and ports come into being when they are first named.
#[derive(Clone, Debug, Default)]
pub struct TopologyBuilder {
    devices: Vec<String>,
    ports: Vec<(DeviceId, String)>,
    acls: Vec<String>,
    links: Vec<Link>,
    groups: HashMap<PortId, Vec<PortId>>,
    device_of: HashMap<String, DeviceId>,
    port_of: HashMap<(DeviceId, String), PortId>,
    acl_of: HashMap<String, AclId>,
    hairpin: bool,
}

impl TopologyBuilder {
    /// The device of that name.
    pub fn device(&mut self, name: &str) -> DeviceId {
        if let Some(id) = self.device_of.get(name) {
            return *id;
        }
        let id = DeviceId(self.devices.len() as u32);
        self.devices.push(name.to_owned());
        self.device_of.insert(name.to_owned(), id);
        id
    }

    /// The port of that name at a device.
    pub fn port(&mut self, device: DeviceId, name: &str) -> PortId {
        let key = (device, name.to_owned());
        if let Some(id) = self.port_of.get(&key) {
            return *id;
        }
        let id = PortId(self.ports.len() as u32);
        self.ports.push(key.clone());
        self.port_of.insert(key, id);
        id
    }

    /// The access list of that name. It denies everything until it has rules.
    pub fn acl(&mut self, name: &str) -> AclId {
        if let Some(id) = self.acl_of.get(name) {
            return *id;
        }
        let id = AclId(self.acls.len() as u32);
        self.acls.push(name.to_owned());
        self.acl_of.insert(name.to_owned(), id);
        id
    }

    /// Makes a port stand for several ports of its device, as a VLAN does:
    /// what is sent to it leaves by each of them but the one it came in by.
    ///
    /// # Errors
    /// [`Error::Group`] if the port has links or a member is a group itself,
    /// [`Error::Port`] if a member is of another device.
    pub fn group(&mut self, port: PortId, members: &[PortId]) -> Result<(), Error> {
        let device = self.device_of_port(port)?;
        for member in members {
            if self.device_of_port(*member)? != device {
                return Err(Error::Port(*member));
            }
            if *member == port || self.groups.contains_key(member) {
                return Err(Error::Group(*member));
            }
        }
        let taken = self.links.iter().any(|l| l.from == port || l.to == port);
        if taken || self.groups.values().any(|g| g.contains(&port)) {
            return Err(Error::Group(port));
        }
        let mut members = members.to_vec();
        members.sort_unstable();
        members.dedup();
        self.groups.insert(port, members);
        Ok(())
    }

    /// A link, one way. A port may have several: what leaves by it arrives at
    /// each of their ends.
    ///
    /// # Errors
    /// [`Error::Group`] if an end is a group, [`Error::Port`] or [`Error::Acl`]
    /// for what is of another topology.
    pub fn link(&mut self, from: PortId, to: PortId, acls: &[AclId]) -> Result<LinkId, Error> {
        for port in [from, to] {
            self.device_of_port(port)?;
            if self.groups.contains_key(&port) {
                return Err(Error::Group(port));
            }
        }
        if let Some(acl) = acls.iter().find(|a| a.index() >= self.acls.len()) {
            return Err(Error::Acl(*acl));
        }
        let id = LinkId(u32::try_from(self.links.len()).map_err(|_| Error::Full)?);
        self.links.push(Link { from, to, acls: acls.to_vec() });
        Ok(id)
    }

    /// Whether a device sends a packet out of the port it came in by, as a
    /// router does and a switch does not. Without this call it does not.
    pub fn hairpin(&mut self, sends: bool) {
        self.hairpin = sends;
    }

    fn device_of_port(&self, port: PortId) -> Result<DeviceId, Error> {
        self.ports.get(port.index()).map(|p| p.0).ok_or(Error::Port(port))
    }

    /// The topology. Costs time and space in proportion to its size.
    pub fn build(self) -> Topology {
        let ports = self.ports.len();
        let mut order: Vec<u32> = (0..self.links.len() as u32).collect();
        order.sort_by_key(|l| self.links[*l as usize].from);
        let mut out = vec![(0u32, 0u32); ports];
        for (at, link) in order.iter().enumerate() {
            let slot = &mut out[self.links[*link as usize].from.index()];
            if slot.0 == slot.1 {
                *slot = (at as u32, at as u32);
            }
            slot.1 += 1;
        }
        let mut members = Vec::new();
        let mut departs = Vec::with_capacity(ports);
        for port in 0..ports as u32 {
            let first = members.len() as u32;
            match self.groups.get(&PortId(port)) {
                Some(group) => members.extend(group.iter().map(|m| m.0)),
                None => members.push(port),
            }
            departs.push((first, members.len() as u32));
        }
        let arrive = self.links.iter().map(|l| (self.ports[l.to.index()].0 .0, l.to.0)).collect();
        let mut topology = Topology {
            plain: false,
            leads: Vec::new(),
            device: self.ports.iter().map(|p| p.0 .0).collect(),
            devices: self.devices,
            ports: self.ports.into_iter().map(|p| p.1).collect(),
            acls: self.acls,
            links: self.links,
            order,
            out,
            members,
            departs,
            arrive,
            hairpin: self.hairpin,
        };
        topology.leads = (0..ports as u32)
            .map(|p| topology.departs(p).iter().any(|m| !topology.out(*m).is_empty()))
            .collect();
        topology.plain = self.groups.is_empty()
            && topology.links.iter().all(|l| l.acls.is_empty())
            && (0..ports as u32).all(|p| topology.out(p).len() <= 1);
        topology
    }
}

/// Devices, their ports, and the links between them. It does not change; the
/// rules of a [`Network`](super::Network) on it do.
///
/// ```
/// use lab_core::engine::forwarding::TopologyBuilder;
/// let mut builder = TopologyBuilder::default();
/// let (a, b) = (builder.device("a"), builder.device("b"));
/// let (out, into) = (builder.port(a, "eth0"), builder.port(b, "eth0"));
/// let link = builder.link(out, into, &[])?;
/// let topology = builder.build();
/// assert_eq!(topology.link(link).unwrap().to, into);
/// assert_eq!(topology.port_name(into), "eth0");
/// # Ok::<(), lab_core::engine::forwarding::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct Topology {
    devices: Vec<String>,
    ports: Vec<String>,
    acls: Vec<String>,
    links: Vec<Link>,
    /// Links by the port they leave.
    order: Vec<u32>,
    /// For each port, where in `order` its links are.
    out: Vec<(u32, u32)>,
    members: Vec<u32>,
    /// For each port, where in `members` the ports it stands for are.
    departs: Vec<(u32, u32)>,
    /// For each link, the device and port it arrives at.
    arrive: Vec<(u32, u32)>,
    device: Vec<u32>,
    /// For each port, whether a link leaves it or a port it stands for.
    leads: Vec<bool>,
    hairpin: bool,
    plain: bool,
}

impl Topology {
    /// How many devices there are.
    pub fn devices(&self) -> usize {
        self.devices.len()
    }

    /// How many ports there are, groups among them.
    pub fn ports(&self) -> usize {
        self.ports.len()
    }

    /// How many access lists there are.
    pub fn acls(&self) -> usize {
        self.acls.len()
    }

    /// A device's name.
    pub fn device_name(&self, device: DeviceId) -> &str {
        self.devices.get(device.index()).map_or("", String::as_str)
    }

    /// A port's name, without its device's.
    pub fn port_name(&self, port: PortId) -> &str {
        self.ports.get(port.index()).map_or("", String::as_str)
    }

    /// The device a port is of.
    pub fn device_of(&self, port: PortId) -> DeviceId {
        DeviceId(self.device.get(port.index()).copied().unwrap_or(NONE))
    }

    /// An access list's name.
    pub fn acl_name(&self, acl: AclId) -> &str {
        self.acls.get(acl.index()).map_or("", String::as_str)
    }

    /// A link; none if it is of another topology, with more links.
    pub fn link(&self, link: LinkId) -> Option<&Link> {
        self.links.get(link.index())
    }

    /// How many links there are.
    pub fn links(&self) -> usize {
        self.links.len()
    }

    /// Whether a device sends a packet out of the port it came in by.
    pub fn hairpin(&self) -> bool {
        self.hairpin
    }

    /// No groups, no access lists, one link a port: a packet has one way.
    pub(super) fn plain(&self) -> bool {
        self.plain
    }

    /// The links that leave a port.
    pub(super) fn out(&self, port: u32) -> &[u32] {
        let (first, end) = self.out[port as usize];
        &self.order[first as usize..end as usize]
    }

    /// The ports that a port stands for.
    pub(super) fn departs(&self, port: u32) -> &[u32] {
        let (first, end) = self.departs[port as usize];
        &self.members[first as usize..end as usize]
    }

    /// The access lists a link passes.
    pub(super) fn passes(&self, link: u32) -> &[AclId] {
        &self.links[link as usize].acls
    }

    /// The device and port a link arrives at.
    pub(super) fn arrive(&self, link: u32) -> (u32, u32) {
        self.arrive[link as usize]
    }

    /// The device of the port a link leaves.
    pub(super) fn origin(&self, link: u32) -> u32 {
        self.device[self.links[link as usize].from.index()]
    }

    /// Whether what is sent to a port may reach another device.
    pub(super) fn leads(&self, port: u32) -> bool {
        port != NONE && self.leads[port as usize]
    }

    pub(super) fn check_device(&self, device: DeviceId) -> Result<(), Error> {
        if device.index() < self.devices.len() {
            Ok(())
        } else {
            Err(Error::Device(device))
        }
    }

    pub(super) fn check_port(&self, device: DeviceId, port: PortId) -> Result<(), Error> {
        if self.device.get(port.index()) == Some(&device.0) {
            Ok(())
        } else {
            Err(Error::Port(port))
        }
    }
}
