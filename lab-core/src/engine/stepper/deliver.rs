//! Delivery to the host itself.

use super::hook::{Ends, HookEnd};
use super::receive::kept;
use super::skb::Skb;
use super::{Step, Walk};
use crate::model::{Hook, Host, Interface, Outcome, Payload, Place};

impl<'a> Walk<'a, '_> {
    /// The INPUT hook, then the socket (`ip_local_deliver`). The socket of a
    /// VXLAN device takes the packet apart.
    pub(super) fn deliver(&mut self, host: &'a Host, device: &'a Interface, mut skb: Skb) -> Step<'a> {
        let ends = Ends { input: Some(&device.name), ..Ends::default() };
        match self.hook(host, Hook::Input, ends, &mut skb, &mut kept) {
            HookEnd::Accept => {}
            end => return self.stopped(host, skb, end, true),
        }
        if matches!(skb.packet.payload, Payload::Vxlan { .. }) {
            return self.decapsulate(host, skb);
        }
        let at = Place { host: host.name.clone(), iface: device.name.clone() };
        Step::Done(Outcome::Delivered { at, seen: skb.packet })
    }
}
