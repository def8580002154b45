//! Addresses and sets of them: prefixes, ranges, ports, MAC addresses, and
//! what a prefix length means for the hosts of a subnet.
//!
//! Addresses themselves are [`std::net::IpAddr`], prefixes are
//! [`ipnet::IpNet`]; this room adds what those lack.

mod family;
mod mac;
mod masked;
mod port;
mod subnet;

pub use family::Family;
pub use ipnet::IpNet;
pub use mac::{Mac, ParseMacError};
pub use masked::Masked;
pub use port::PortRange;
pub use subnet::Subnet;
