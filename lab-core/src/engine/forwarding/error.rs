use super::{AclId, DeviceId, PortId};

/// A topology, or a change of one, that makes no sense.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A prefix is longer than an address.
    #[error("a prefix of {0} bits; IPv4 has 32")]
    PrefixLength(u8),
    /// The device is not of this topology.
    #[error("{0} is not of this topology")]
    Device(DeviceId),
    /// The port is not of this topology, or not of the device it should be of.
    #[error("{0} is not of this topology or not of that device")]
    Port(PortId),
    /// The access list is not of this topology.
    #[error("{0} is not of this topology")]
    Acl(AclId),
    /// A group of ports where one port is needed, or the other way round: a
    /// link at a group, a group in a group, a group that already has links.
    #[error("{0} is a group of ports, or has links, and cannot serve here")]
    Group(PortId),
    /// No such rule is there to remove.
    #[error("no such rule to remove")]
    NoRule,
    /// An edge port has a link that leads out of it, so traffic that leaves by
    /// it does not leave the network; or it is named twice.
    #[error("{0} is no edge: it has a link, or is named twice")]
    Edge(PortId),
    /// More edge ports than can be told apart.
    #[error("{0} edge ports; at most 65534 can be told apart")]
    Edges(usize),
    /// A network is not on the topology that was asked about before.
    #[error("a network on another topology")]
    Topology,
    /// More rules, ports or links than 32 bits can count.
    #[error("more than 32 bits can count")]
    Full,
}
