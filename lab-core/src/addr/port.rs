use std::fmt;

use serde::{Deserialize, Serialize};

/// A range of ports, both ends included.
///
/// ```
/// use lab_core::addr::PortRange;
/// assert!(PortRange { low: 1024, high: 65535 }.contains(1024));
/// assert_eq!(PortRange::from(22).to_string(), "22");
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct PortRange {
    /// The lowest port.
    pub low: u16,
    /// The highest port; a range with `high < low` holds no port.
    pub high: u16,
}

impl PortRange {
    /// Every port.
    pub const ANY: PortRange = PortRange { low: 0, high: u16::MAX };

    /// Whether the port lies in the range.
    pub fn contains(self, port: u16) -> bool {
        self.low <= port && port <= self.high
    }
}

impl From<u16> for PortRange {
    fn from(port: u16) -> Self {
        PortRange { low: port, high: port }
    }
}

impl fmt::Display for PortRange {
    /// `22` or `1024:65535`, as iptables writes them.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.low == self.high {
            write!(f, "{}", self.low)
        } else {
            write!(f, "{}:{}", self.low, self.high)
        }
    }
}
