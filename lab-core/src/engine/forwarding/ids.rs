//! Names of things in a topology, as small numbers.

use std::fmt;

macro_rules! id {
    ($(#[$doc:meta])* $name:ident, $letter:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub(super) u32);

        impl $name {
            /// Its place among those of its kind, from 0 in the order they
            /// were added.
            pub fn index(self) -> usize {
                self.0 as usize
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!($letter, "{}"), self.0)
            }
        }
    };
}

id!(
    /// A switch or router of one topology.
    DeviceId,
    "device"
);
id!(
    /// A port of a device, or a group of ports that goes by one name.
    PortId,
    "port"
);
id!(
    /// An access list that links of a topology pass.
    AclId,
    "acl"
);
id!(
    /// A link: one way, from a port to a port.
    LinkId,
    "link"
);

/// No port, no link, no rule, no atom: what does not exist.
pub(super) const NONE: u32 = u32::MAX;
