//! Which port of a bridge a frame leaves by (`br_handle_frame_finish`,
//! `br_forward`).

use super::segment::{behind_tagged, ports};
use super::vlan;
use crate::addr::Mac;
use crate::model::{BridgePort, Host, Interface, Lab, Stage, VlanTag};

/// The port that leads to a frame's receiver; several: any of those that lead
/// out of the lab. `from` is the port it came in by; none: the host sent it.
///
/// # Errors
/// Where no port does: what becomes of the frame.
pub fn towards<'a>(
    lab: &'a Lab,
    host: &'a Host,
    bridge: &'a Interface,
    from: Option<&'a Interface>,
    mac: Mac,
    tags: &[VlanTag],
) -> Result<Vec<&'a Interface>, Stage> {
    let egress = |p: &Interface| vlan::egress(bridge, p, tags.to_vec());
    let setting = |p: &Interface, is: fn(&BridgePort) -> bool| p.port.as_ref().is_some_and(is);
    let may = |p: &&'a Interface| match from {
        None => true,
        Some(from) if from.name == p.name => setting(p, |s| s.hairpin),
        Some(from) => !(setting(from, |s| s.isolated) && setting(p, |s| s.isolated)),
    };
    let own: Vec<&'a Interface> =
        host.interfaces.iter().filter(|i| ports(host, &bridge.name).any(|p| p.name == i.name)).collect();
    let allowed: Vec<&'a Interface> =
        own.iter().copied().filter(may).filter(|p| egress(p).is_some()).collect();
    let there = |p: &'a Interface| behind_tagged(lab, host, p, &egress(p).unwrap_or_default());
    let listed = |fixed: bool| {
        host.fdb.iter().find(|e| {
            e.mac == mac
                && e.master.as_deref() == Some(&bridge.name)
                && e.vlan.is_none_or(|id| tags.first().is_none_or(|tag| tag.id == id))
                && e.fixed == fixed
                && !e.local
        })
    };
    if mac.is_group() {
        return match allowed.as_slice() {
            [] => Err(Stage::BridgeNoPort),
            [only] => Ok(vec![only]),
            _ => Err(Stage::Unmodelled(format!("a frame to every port of {}", bridge.name))),
        };
    }
    if let Some(entry) = listed(true) {
        let port = allowed.iter().copied().find(|p| p.name == entry.interface);
        return port.map(|p| vec![p]).ok_or(Stage::BridgeNoPort);
    }
    let leads = |p: &&'a Interface| there(p).owner(mac).is_some();
    if let Some(port) = allowed.iter().copied().find(|p| leads(p)) {
        let settings = port.port.clone().unwrap_or_default();
        let known = listed(false).is_some_and(|e| e.interface == port.name);
        return match (settings.flood || known, settings.learning) {
            (true, _) => Ok(vec![port]),
            (false, false) => Err(Stage::BridgeNoPort),
            (false, true) => {
                Err(Stage::Unmodelled(format!("whether {} knows {mac} behind {}", bridge.name, port.name)))
            }
        };
    }
    if own.iter().any(leads) {
        return Err(Stage::BridgeNoPort);
    }
    if let Some(entry) = listed(false) {
        if let Some(port) = allowed.iter().copied().find(|p| p.name == entry.interface) {
            return Ok(vec![port]);
        }
    }
    // Nobody in the lab has the address: flooded to all, taken by none, unless
    // a port leads out.
    let out: Vec<&'a Interface> = allowed.iter().copied().filter(|p| there(p).open).collect();
    match (out.is_empty(), allowed.is_empty()) {
        (false, _) => Ok(out),
        (true, true) => Err(Stage::BridgeNoPort),
        (true, false) => Err(Stage::NotMyMac),
    }
}
