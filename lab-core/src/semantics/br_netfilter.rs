//! br_netfilter: the IP hooks for frames that a bridge carries
//! (`net/bridge/br_netfilter_hooks.c`).

use crate::addr::{Family, Mac};
use crate::model::{Host, Interface, InterfaceKind};

/// Whether br_netfilter shows this bridge's frames to the IP hooks; none: not
/// told. Without the module its settings are missing from a whole `sysctl -a`.
pub fn filters(host: &Host, bridge: &Interface, family: Family) -> Option<bool> {
    let InterfaceKind::Bridge(settings) = &bridge.kind else { return Some(false) };
    let (key, own) = match family {
        Family::Ipv4 => ("net.bridge.bridge-nf-call-iptables", settings.nf_call_iptables),
        Family::Ipv6 => ("net.bridge.bridge-nf-call-ip6tables", settings.nf_call_ip6tables),
    };
    let whole = host.sysctls.0.keys().any(|k| k.starts_with("kernel.") || k.starts_with("net.bridge."));
    match host.sysctls.number(key) {
        _ if own => Some(true),
        Some(value) => Some(value != 0),
        None if whole || host.ruleset.tables.is_empty() => Some(false),
        None => None,
    }
}

/// Whether a frame that came in by a port is to the host itself (`PACKET_HOST`):
/// to the port's own address (`eth_type_trans`) or the bridge's (`br_handle_frame`).
/// Only then is its sender told of an error: nobody answers where a DNAT sent it.
pub fn to_host(bridge: &Interface, port: &Interface, destination: Option<Mac>) -> bool {
    [bridge.mac, port.mac].contains(&destination)
}
