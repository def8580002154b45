use std::fmt;
use std::net::Ipv4Addr;

use super::Error;

/// An IPv4 prefix; bits beyond its length are zero.
///
/// ```
/// use lab_core::engine::forwarding::Prefix;
/// let prefix = Prefix::new("10.1.2.3".parse().unwrap(), 8)?;
/// assert_eq!(prefix.to_string(), "10.0.0.0/8");
/// assert_eq!(prefix.range().last, u32::from_be_bytes([10, 255, 255, 255]));
/// # Ok::<(), lab_core::engine::forwarding::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Prefix {
    first: u32,
    len: u8,
}

impl Prefix {
    /// The prefix of `len` bits that `address` is in.
    ///
    /// # Errors
    /// [`Error::PrefixLength`] if `len` is more than 32.
    pub fn new(address: Ipv4Addr, len: u8) -> Result<Self, Error> {
        if len > 32 {
            return Err(Error::PrefixLength(len));
        }
        Ok(Self::covering(address.to_bits(), len))
    }

    /// The prefix of `len` bits, at most 32, that `address` is in.
    pub(super) fn covering(address: u32, len: u8) -> Self {
        Prefix { first: address & mask(len), len }
    }

    /// Its length in bits.
    #[allow(clippy::len_without_is_empty)] // A length in bits, not a number of things.
    pub fn len(self) -> u8 {
        self.len
    }

    /// The addresses in it.
    pub fn range(self) -> AddressRange {
        AddressRange { first: self.first, last: self.first + !mask(self.len) }
    }

    /// One number for each prefix.
    pub(super) fn key(self) -> u64 {
        (u64::from(self.first) << 6) + u64::from(self.len)
    }
}

impl fmt::Display for Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", Ipv4Addr::from_bits(self.first), self.len)
    }
}

impl From<ipnet::Ipv4Net> for Prefix {
    fn from(net: ipnet::Ipv4Net) -> Self {
        Prefix::covering(net.addr().to_bits(), net.prefix_len())
    }
}

fn mask(len: u8) -> u32 {
    u32::MAX.checked_shl(32 - u32::from(len)).unwrap_or(0)
}

/// Neighbouring IPv4 addresses, both ends included, as numbers
/// ([`Ipv4Addr::to_bits`]).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AddressRange {
    /// The lowest address.
    pub first: u32,
    /// The highest address; not below `first`.
    pub last: u32,
}

impl AddressRange {
    /// Whether the address is in the range.
    pub fn contains(self, address: Ipv4Addr) -> bool {
        (self.first..=self.last).contains(&address.to_bits())
    }

    /// The fewest prefixes that make up the range, in order: at most 62.
    pub(super) fn prefixes(self) -> impl Iterator<Item = Prefix> {
        let mut at = Some(self.first);
        std::iter::from_fn(move || {
            let first = at?;
            let most = if first == 0 { 32 } else { first.trailing_zeros() };
            let left = u64::from(self.last) - u64::from(first) + 1;
            let bits = most.min(63 - left.leading_zeros()).min(32);
            let next = u64::from(first) + (1u64 << bits);
            at = u32::try_from(next).ok().filter(|n| *n <= self.last);
            Some(Prefix::covering(first, (32 - bits) as u8))
        })
    }
}

impl fmt::Display for AddressRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", Ipv4Addr::from_bits(self.first), Ipv4Addr::from_bits(self.last))
    }
}
