//! Header fields that a packet may lack, and comparisons with them.

use super::Tri;
use crate::addr::PortRange;
use crate::model::PortValue;

/// Whether a port lies in a range, as far as it is known.
pub fn in_range(port: PortValue, range: PortRange) -> Tri {
    match port {
        PortValue::Is(number) => range.contains(number).into(),
        PortValue::Fresh(from) if range.low <= from.low && from.high <= range.high => Tri::Yes,
        PortValue::Fresh(from) if range.high < from.low || from.high < range.low => Tri::No,
        PortValue::Fresh(_) => Tri::Unknown("the port that the sender's kernel picks".into()),
    }
}
