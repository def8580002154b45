//! Addresses, prefixes and ports of a small universe.

use std::net::IpAddr;

use ipnet::IpNet;
use proptest::prelude::*;
use proptest::sample::select;

use crate::addr::{Family, Masked, PortRange};

/// The networks that labs are made of; hosts have `.1` to `.3` of them.
pub(super) const NETS_V4: [&str; 5] = ["10.0.1", "10.0.2", "10.0.3", "10.0.4", "10.0.9"];
pub(super) const NETS_V6: [&str; 5] = ["fd01:", "fd02:", "fd03:", "fd04:", "fd09:"];

fn parsed<T: std::str::FromStr>(texts: &[&str]) -> Vec<T> {
    texts.iter().filter_map(|t| t.parse().ok()).collect()
}

/// IPv4 or IPv6; it shrinks to IPv4.
///
/// ```
/// # use proptest::prelude::*;
/// use lab_core::strategies::{address, family};
/// let any_address = family().prop_flat_map(address);
/// # let _ = any_address;
/// ```
pub fn family() -> impl Strategy<Value = Family> {
    select(vec![Family::Ipv4, Family::Ipv6])
}

fn special(family: Family) -> Vec<IpAddr> {
    match family {
        Family::Ipv4 => parsed(&[
            "192.0.2.1",
            "198.51.100.7",
            "10.0.1.0",
            "10.0.1.255",
            "10.0.2.0",
            "10.0.2.255",
            "127.0.0.1",
            "127.0.0.0",
            "255.255.255.255",
            "224.0.0.1",
            "239.255.255.255",
            "240.0.0.1",
            "0.0.0.0",
            "0.0.0.1",
            "169.254.0.1",
        ]),
        Family::Ipv6 => parsed(&[
            "2001:db8::1",
            "2002::1",
            "fd01::",
            "fd01::ffff:ffff:ffff:ffff",
            "fd02::",
            "::1",
            "::",
            "fe80::1",
            "fe80::2",
            "ff02::1",
            "ff02::2",
            "ff01::1",
            "ff05::2",
            "fd01:0:0:1::",
            "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff",
        ]),
    }
}

/// An address of a lab's hosts, of nobody there, or one that means something:
/// network, broadcast, loopback, group, unspecified, link-local.
///
/// ```
/// # use proptest::{prelude::*, strategy::ValueTree, test_runner::TestRunner};
/// use lab_core::addr::Family;
/// use lab_core::strategies::address;
/// let one = address(Family::Ipv6).new_tree(&mut TestRunner::deterministic())?.current();
/// assert!(one.is_ipv6());
/// # Ok::<(), proptest::test_runner::Reason>(())
/// ```
pub fn address(family: Family) -> impl Strategy<Value = IpAddr> + Clone {
    let nets = if family == Family::Ipv4 { NETS_V4 } else { NETS_V6 };
    let join = if family == Family::Ipv4 { "." } else { ":" };
    let hosts: Vec<String> =
        nets.iter().flat_map(|net| (1..=4).map(move |n| format!("{net}{join}{n}"))).collect();
    let hosts: Vec<IpAddr> = hosts.iter().filter_map(|t| t.parse().ok()).collect();
    prop_oneof![5 => select(hosts), 2 => select(special(family))]
}

/// A prefix of any length around an address of the universe; often one of its
/// networks, a single address, or all.
///
/// ```
/// # use proptest::{prelude::*, strategy::ValueTree, test_runner::TestRunner};
/// use lab_core::addr::Family;
/// use lab_core::strategies::prefix;
/// let net = prefix(Family::Ipv4).new_tree(&mut TestRunner::deterministic())?.current();
/// assert_eq!(net, net.trunc());
/// # Ok::<(), proptest::test_runner::Reason>(())
/// ```
pub fn prefix(family: Family) -> impl Strategy<Value = IpNet> + Clone {
    let usual = match family {
        Family::Ipv4 => vec![24, 32, 24, 32, 16, 8, 25, 31, 30, 1, 0],
        Family::Ipv6 => vec![64, 128, 64, 128, 48, 16, 65, 127, 10, 1, 0],
    };
    (address(family), select(usual))
        .prop_map(|(address, length)| IpNet::new(address, length).unwrap_or(IpNet::from(address)).trunc())
}

/// An address under a mask, which is now and then no prefix.
///
/// ```
/// # use proptest::{prelude::*, strategy::ValueTree, test_runner::TestRunner};
/// use lab_core::addr::Family;
/// use lab_core::strategies::masked;
/// let net = masked(Family::Ipv4).new_tree(&mut TestRunner::deterministic())?.current();
/// assert!(net.contains(net.address));
/// # Ok::<(), proptest::test_runner::Reason>(())
/// ```
pub fn masked(family: Family) -> impl Strategy<Value = Masked> + Clone {
    let masks: Vec<IpAddr> = match family {
        Family::Ipv4 => parsed(&["255.0.255.255", "0.0.0.255", "255.255.0.1", "0.0.0.1"]),
        Family::Ipv6 => parsed(&["ffff::ffff", "::1", "ffff:0:0:ffff::"]),
    };
    let prefixes = prefix(family).prop_filter("says nothing", |n| n.prefix_len() > 0);
    prop_oneof![
        5 => prefixes.prop_map(Masked::from),
        1 => (address(family), select(masks)).prop_map(|(a, m)| Masked::new(a, m)),
    ]
}

/// First and last address of a range, in order.
///
/// ```
/// # use proptest::{prelude::*, strategy::ValueTree, test_runner::TestRunner};
/// use lab_core::addr::Family;
/// use lab_core::strategies::address_range;
/// let (low, high) = address_range(Family::Ipv4).new_tree(&mut TestRunner::deterministic())?.current();
/// assert!(low <= high);
/// # Ok::<(), proptest::test_runner::Reason>(())
/// ```
pub fn address_range(family: Family) -> impl Strategy<Value = (IpAddr, IpAddr)> + Clone {
    (address(family), address(family)).prop_map(|(a, b)| (a.min(b), a.max(b)))
}

/// A port: those that people filter, first and last, and both sides of where
/// their meaning changes.
///
/// ```
/// # use proptest::{prelude::*, strategy::ValueTree, test_runner::TestRunner};
/// use lab_core::strategies::port;
/// let _: u16 = port().new_tree(&mut TestRunner::deterministic())?.current();
/// # Ok::<(), proptest::test_runner::Reason>(())
/// ```
pub fn port() -> impl Strategy<Value = u16> + Clone {
    select(vec![80, 22, 53, 443, 8080, 1, 0, 511, 512, 1023, 1024, 32768, 40000, 60999, 61000, 65534, 65535])
}

/// A range of ports, often of one.
///
/// ```
/// # use proptest::{prelude::*, strategy::ValueTree, test_runner::TestRunner};
/// use lab_core::strategies::ports;
/// let range = ports().new_tree(&mut TestRunner::deterministic())?.current();
/// assert!(range.low <= range.high);
/// # Ok::<(), proptest::test_runner::Reason>(())
/// ```
pub fn ports() -> impl Strategy<Value = PortRange> + Clone {
    prop_oneof![
        port().prop_map(PortRange::from),
        (port(), port()).prop_map(|(a, b)| PortRange { low: a.min(b), high: a.max(b) }),
    ]
}
