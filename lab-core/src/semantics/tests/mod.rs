//! Rules of behaviour as tables, a row for each thing that decides.

mod icmp;
mod nat;
mod source;
mod tunnel;
mod vlan;
