//! Rules of behaviour as tables, a row for each thing that decides.

mod addrtype;
mod bridge;
mod conntrack;
mod hooks;
mod icmp;
mod nat;
mod routing;
mod segment;
mod sets;
mod source;
mod tunnel;
mod vlan;
