//! Packets.

use proptest::prelude::*;
use proptest::sample::select;

use super::address::{address, family, port};
use crate::addr::Family;
use crate::model::{Packet, Payload, PortValue, TcpFlags, Transport};

/// What follows the IP header: TCP with any flags (most often a plain SYN),
/// UDP, SCTP, ICMP of the family, or another protocol.
///
/// ```
/// # use proptest::{prelude::*, strategy::ValueTree, test_runner::TestRunner};
/// use lab_core::addr::Family;
/// use lab_core::strategies::transport;
/// let _ = transport(Family::Ipv4).new_tree(&mut TestRunner::deterministic())?.current();
/// # Ok::<(), proptest::test_runner::Reason>(())
/// ```
pub fn transport(family: Family) -> impl Strategy<Value = Transport> + Clone {
    let is = PortValue::Is;
    let flags = prop_oneof![
        4 => Just(TcpFlags::SYN),
        2 => select(vec![0x10_u8, 0x12, 0x04, 0x14, 0x11, 0x01, 0x18, 0x00, 0x29, 0x3f, 0x06, 0x03, 0x20]),
        1 => 0..=0x3f_u8,
    ];
    let icmp = match family {
        Family::Ipv4 => (select(vec![8_u8, 0, 13, 14, 17, 30, 255]), select(vec![0_u8, 1, 255]))
            .prop_map(move |(kind, code)| Transport::Icmp { kind, code, id: is(7) })
            .boxed(),
        Family::Ipv6 => {
            (select(vec![128_u8, 129, 135, 136, 133, 143, 139, 255, 200]), select(vec![0_u8, 1, 255]))
                .prop_map(move |(kind, code)| Transport::Icmp6 { kind, code, id: is(7) })
                .boxed()
        }
    };
    prop_oneof![
        5 => (port(), port(), flags).prop_map(move |(s, d, flags)| Transport::Tcp {
            sport: is(s),
            dport: is(d),
            flags: TcpFlags(flags)
        }),
        4 => (port(), port()).prop_map(move |(s, d)| Transport::Udp { sport: is(s), dport: is(d) }),
        1 => (port(), port(), any::<bool>()).prop_map(move |(s, d, init)| Transport::Sctp {
            sport: is(s),
            dport: is(d),
            init
        }),
        2 => icmp,
        1 => select(vec![47_u8, 0, 4, 50, 255]).prop_map(Transport::Other),
    ]
}

/// A packet of a family: unfragmented, carrying nothing that matters, no ICMP
/// error. Its source is not its destination.
///
/// ```
/// # use proptest::{prelude::*, strategy::ValueTree, test_runner::TestRunner};
/// use lab_core::addr::Family;
/// use lab_core::strategies::packet_of;
/// let packet = packet_of(Family::Ipv6).new_tree(&mut TestRunner::deterministic())?.current();
/// assert!(packet.src.is_ipv6() && packet.src != packet.dst);
/// # Ok::<(), proptest::test_runner::Reason>(())
/// ```
pub fn packet_of(family: Family) -> impl Strategy<Value = Packet> {
    let tos = prop_oneof![3 => Just(0_u8), 1 => select(vec![4, 8, 0x10, 0x1c, 0xb8, 0xff, 1, 3])];
    let ttl = prop_oneof![4 => Just(64_u8), 1 => select(vec![1, 2, 3, 255])];
    let length = prop_oneof![4 => Just(100_u32), 1 => select(vec![20, 1280, 1400, 1500, 1501])];
    (address(family), address(family), ttl, tos, length, any::<bool>(), transport(family))
        .prop_filter("from itself to itself", |(src, dst, ..)| src != dst)
        .prop_map(|(src, dst, ttl, tos, length, df, transport)| Packet {
            src,
            dst,
            ttl,
            tos,
            length,
            df,
            fragment: None,
            mark: 0,
            transport,
            payload: Payload::Data,
        })
}

/// A packet of either family.
///
/// ```
/// # use proptest::{prelude::*, strategy::ValueTree, test_runner::TestRunner};
/// use lab_core::strategies::packet;
/// let packet = packet().new_tree(&mut TestRunner::deterministic())?.current();
/// assert!(packet.ttl > 0);
/// # Ok::<(), proptest::test_runner::Reason>(())
/// ```
pub fn packet() -> impl Strategy<Value = Packet> {
    family().prop_flat_map(packet_of)
}
