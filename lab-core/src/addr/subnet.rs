use std::net::IpAddr;

use ipnet::IpNet;

/// What a prefix means for the hosts on it.
///
/// ```
/// use lab_core::addr::Subnet;
/// let net = Subnet::of("192.168.100.7/24".parse().unwrap());
/// assert_eq!(net.network.to_string(), "192.168.100.0");
/// assert_eq!(net.broadcast.unwrap().to_string(), "192.168.100.255");
/// assert_eq!(net.first.to_string(), "192.168.100.1");
/// assert_eq!(net.last.to_string(), "192.168.100.254");
/// assert_eq!(net.usable, 254);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Subnet {
    /// The lowest address of the prefix.
    pub network: IpAddr,
    /// The highest address where it is a broadcast address: IPv4 prefixes up
    /// to /30. A /31 joins two hosts (RFC 3021), and IPv6 has no broadcast.
    pub broadcast: Option<IpAddr>,
    /// The lowest address that a host may have. In IPv6 the lowest address of
    /// a prefix is the subnet-router anycast address (RFC 4291, 2.6.1).
    pub first: IpAddr,
    /// The highest address that a host may have.
    pub last: IpAddr,
    /// How many addresses lie from `first` to `last`; at most `u128::MAX`.
    pub usable: u128,
}

fn step(address: IpAddr, by: i8) -> IpAddr {
    match address {
        IpAddr::V4(a) => IpAddr::V4(a.to_bits().wrapping_add_signed(i32::from(by)).into()),
        IpAddr::V6(a) => IpAddr::V6(a.to_bits().wrapping_add_signed(i128::from(by)).into()),
    }
}

fn distance(from: IpAddr, to: IpAddr) -> u128 {
    match (from, to) {
        (IpAddr::V4(a), IpAddr::V4(b)) => u128::from(b.to_bits() - a.to_bits()),
        (IpAddr::V6(a), IpAddr::V6(b)) => b.to_bits() - a.to_bits(),
        _ => 0,
    }
}

impl Subnet {
    /// The meaning of a prefix; host bits of its address are ignored.
    pub fn of(net: IpNet) -> Self {
        let (network, highest) = (net.network(), net.broadcast());
        let host_bits = net.max_prefix_len() - net.prefix_len();
        let v4 = network.is_ipv4();
        let broadcast = (v4 && host_bits >= 2).then_some(highest);
        let first = if host_bits >= 2 { step(network, 1) } else { network };
        let last = if broadcast.is_some() { step(highest, -1) } else { highest };
        Subnet { network, broadcast, first, last, usable: distance(first, last).saturating_add(1) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_31_joins_two_hosts_and_a_32_is_one() {
        let two = Subnet::of("10.0.0.4/31".parse().unwrap());
        assert_eq!((two.usable, two.broadcast), (2, None));
        assert_eq!(Subnet::of("10.0.0.4/32".parse().unwrap()).usable, 1);
    }

    #[test]
    fn an_ipv6_prefix_has_no_broadcast() {
        let net = Subnet::of("fd00::/64".parse().unwrap());
        assert_eq!(net.broadcast, None);
        assert_eq!(net.first, "fd00::1".parse::<IpAddr>().unwrap());
        assert_eq!(net.usable, (1 << 64) - 1);
    }
}
