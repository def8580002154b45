//! Delivery to the host itself.

use std::net::IpAddr;

use super::hook::{Ends, HookEnd};
use super::receive::kept;
use super::skb::Skb;
use super::{Step, Walk};
use crate::model::{Hook, Host, Interface, Outcome, Packet, Payload, Place};
use crate::semantics::tunnel::accepted;

impl<'a> Walk<'a, '_> {
    /// The INPUT hook, then the socket (`ip_local_deliver`). The socket of a
    /// VXLAN device takes the packet apart.
    pub(super) fn deliver(&mut self, host: &'a Host, device: &'a Interface, mut skb: Skb) -> Step<'a> {
        // Fragments are put together before INPUT (ip_local_deliver).
        skb.packet.fragment = None;
        let ends = Ends { input: Some(&device.name), ..Ends::default() };
        match self.hook(host, Hook::Input, ends, &mut skb, &mut kept) {
            HookEnd::Accept => {}
            end => return self.stopped(host, skb, end, true),
        }
        match &skb.packet.payload {
            Payload::Vxlan { .. } => return self.decapsulate(host, skb),
            Payload::Wireguard { .. } => return self.decrypt(host, skb),
            Payload::Tunnelled { .. } | Payload::Ethernet { .. } => return self.unwrap(host, skb),
            Payload::Data | Payload::Quoted(_) => {
                let Packet { src, dst, transport, .. } = &skb.packet;
                let is = |a: Option<IpAddr>, b: &IpAddr| a.is_none_or(|a| a == *b);
                let ours = |(from, to, number): &(_, _, u8)| {
                    *number == transport.protocol() && is(*from, src) && is(*to, dst)
                };
                if accepted(host, skb.packet.family()).iter().any(ours) {
                    self.unknown.push(format!("{}: a packet for a tunnel that none sent", host.name));
                }
            }
        }
        // In a VRF, the port that it came in by.
        let port = skb.device.filter(|port| host.vrf_of(port).is_some_and(|vrf| vrf.name == device.name));
        let at = Place { host: host.name.clone(), iface: port.unwrap_or_else(|| device.name.clone()) };
        Step::Done(Outcome::Delivered { at, seen: skb.packet })
    }
}
