use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use super::Family;

/// An address under a mask, as `iptables -s` takes it. The mask need not be a
/// prefix: `-d 10.0.0.1/255.0.255.0` is legal and the kernel compares just
/// those bits.
///
/// ```
/// use lab_core::addr::Masked;
/// let net = Masked::new("10.1.0.1".parse().unwrap(), "255.0.255.255".parse().unwrap());
/// assert!(net.contains("10.9.0.1".parse().unwrap()));
/// assert_eq!(net.prefix_len(), None);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Masked {
    /// The address; bits outside the mask are zero.
    pub address: IpAddr,
    /// The bits that count; of the same family as `address`.
    pub mask: IpAddr,
}

fn bits(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(a) => u128::from(a.to_bits()),
        IpAddr::V6(a) => a.to_bits(),
    }
}

impl Masked {
    /// An address under a mask; bits outside the mask are cleared.
    pub fn new(address: IpAddr, mask: IpAddr) -> Self {
        let address = match (address, mask) {
            (IpAddr::V4(a), IpAddr::V4(m)) => IpAddr::V4(Ipv4Addr::from_bits(a.to_bits() & m.to_bits())),
            (IpAddr::V6(a), IpAddr::V6(m)) => IpAddr::V6(Ipv6Addr::from_bits(a.to_bits() & m.to_bits())),
            (a, _) => a,
        };
        Masked { address, mask }
    }

    /// Whether an address agrees in every bit that counts. Addresses of the
    /// other family never do.
    pub fn contains(&self, address: IpAddr) -> bool {
        Family::of(address) == Family::of(self.address)
            && bits(address) & bits(self.mask) == bits(self.address)
    }

    /// The prefix length in bits, if the mask is a prefix.
    pub fn prefix_len(&self) -> Option<u8> {
        ipnet::ip_mask_to_prefix(self.mask).ok()
    }
}

impl From<IpNet> for Masked {
    fn from(net: IpNet) -> Self {
        Masked::new(net.addr(), net.netmask())
    }
}

impl fmt::Display for Masked {
    /// As `iptables-save` prints it: `10.0.0.0/8`, or the mask written out.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.prefix_len() {
            Some(length) => write!(f, "{}/{}", self.address, length),
            None => write!(f, "{}/{}", self.address, self.mask),
        }
    }
}
