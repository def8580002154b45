//! Rules of behaviour as tables, a row for each thing that decides.

mod conntrack;
mod icmp;
mod nat;
mod routing;
mod source;
mod tunnel;
mod vlan;
