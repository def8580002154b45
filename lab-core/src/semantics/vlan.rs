//! VLAN tags: what bridges that filter by them do, and the devices that take
//! them off.

use crate::model::{BridgeVlan, Host, Interface, InterfaceKind, VlanTag};

fn filters(bridge: &Interface) -> bool {
    matches!(&bridge.kind, InterfaceKind::Bridge(settings) if settings.vlan_filtering)
}

fn member(port: &Interface, id: u16) -> Option<BridgeVlan> {
    port.vlans.iter().copied().find(|v| v.id == id)
}

/// The tags of a frame inside a bridge that it enters by a port, or by the
/// bridge device itself; none: it is refused (`__allowed_ingress`,
/// `net/bridge/br_vlan.c`).
pub fn ingress(bridge: &Interface, port: &Interface, mut tags: Vec<VlanTag>) -> Option<Vec<VlanTag>> {
    if !filters(bridge) {
        return Some(tags);
    }
    match tags.first() {
        // A tag of another protocol counts as none.
        Some(tag) if !tag.service && tag.id != 0 => member(port, tag.id).map(|_| tags),
        first => {
            let pvid = port.vlans.iter().find(|v| v.pvid)?;
            if first.is_some_and(|tag| !tag.service) {
                tags.remove(0);
            }
            tags.insert(0, VlanTag::new(pvid.id));
            Some(tags)
        }
    }
}

/// The tags of a frame when it leaves a bridge by a port, or by the bridge
/// device to the host; none: it does not (`br_allowed_egress`,
/// `br_handle_vlan`).
pub fn egress(bridge: &Interface, port: &Interface, mut tags: Vec<VlanTag>) -> Option<Vec<VlanTag>> {
    if !filters(bridge) {
        return Some(tags);
    }
    let vlan = member(port, tags.first()?.id)?;
    if vlan.untagged {
        tags.remove(0);
    }
    Some(tags)
}

/// The VLAN device that takes a frame which arrives at a device.
pub fn device<'a>(host: &'a Host, below: &Interface, tags: &[VlanTag]) -> Option<&'a Interface> {
    let tag = tags.first()?;
    host.interfaces.iter().find(|i| {
        i.link.as_deref() == Some(&below.name) && matches!(&i.kind, InterfaceKind::Vlan(own) if own == tag)
    })
}
