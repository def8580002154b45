use super::{AclId, AclRule, DeviceId, PortId, Prefix};

/// A forwarding rule: what a device does with packets to a prefix.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Route {
    /// The device that has it.
    pub device: DeviceId,
    /// The destinations it is for.
    pub prefix: Prefix,
    /// Where they are sent: a port of the device, or a group of its ports.
    pub port: PortId,
    /// Of the rules that match, the one of highest priority decides; of
    /// equals, the one of the longest prefix, then the newest. Where priority
    /// is the prefix's length, the longest prefix decides.
    pub priority: u32,
}

/// A change of a network.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Change {
    /// A new forwarding rule.
    Insert(Route),
    /// A forwarding rule is gone: of equal ones, the newest.
    Remove(Route),
    /// A new rule of an access list.
    InsertAcl(AclId, AclRule),
    /// A rule of an access list is gone: of equal ones, the newest.
    RemoveAcl(AclId, AclRule),
}

/// What a change did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// How many ranges of addresses some device now sends elsewhere; a range
    /// counts once for each device. Neighbouring ranges that are alike may
    /// count apart.
    pub changed: usize,
    /// How many loops there are for headers that the change concerns, counted
    /// for each range.
    pub found: usize,
    /// How many loops there are in all, counted for each range; see
    /// [`Network::loops`](super::Network::loops).
    pub loops: usize,
}
