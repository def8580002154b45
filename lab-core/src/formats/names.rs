//! Words that Linux tools print for numbers.

use std::net::IpAddr;

use ipnet::IpNet;

use crate::addr::Family;
use crate::model::{RouteTable, Scope};

/// A number in digits or after `0x`.
pub(super) fn number(word: &str) -> Option<u64> {
    match word.strip_prefix("0x").or_else(|| word.strip_prefix("0X")) {
        Some(digits) => u64::from_str_radix(digits, 16).ok(),
        None => word.parse().ok(),
    }
}

/// The first pair of that name.
pub(super) fn look(table: &[(&str, u32)], word: &str) -> Option<u32> {
    table.iter().find(|(name, _)| *name == word).map(|(_, number)| *number)
}

/// As `/etc/protocols` has them.
const PROTOCOLS: [(&str, u32); 37] = [
    ("ip", 0),
    ("hopopt", 0),
    ("icmp", 1),
    ("igmp", 2),
    ("ggp", 3),
    ("ipencap", 4),
    ("ipv4", 4),
    ("st", 5),
    ("tcp", 6),
    ("egp", 8),
    ("igp", 9),
    ("pup", 12),
    ("udp", 17),
    ("hmp", 20),
    ("rdp", 27),
    ("dccp", 33),
    ("ipv6", 41),
    ("ipv6-route", 43),
    ("ipv6-frag", 44),
    ("idrp", 45),
    ("rsvp", 46),
    ("gre", 47),
    ("esp", 50),
    ("ah", 51),
    ("skip", 57),
    ("ipv6-icmp", 58),
    ("icmpv6", 58),
    ("ipv6-nonxt", 59),
    ("ipv6-opts", 60),
    ("eigrp", 88),
    ("ospf", 89),
    ("ipip", 94),
    ("pim", 103),
    ("vrrp", 112),
    ("l2tp", 115),
    ("sctp", 132),
    ("udplite", 136),
];

/// An IP protocol, by name or number. `ip rule` writes `ipproto-N` for those
/// it has no name for.
pub(super) fn protocol(word: &str) -> Option<u8> {
    let word = word.to_ascii_lowercase();
    let digits = word.strip_prefix("ipproto-").unwrap_or(&word);
    match number(digits) {
        Some(number) => u8::try_from(number).ok(),
        None => look(&PROTOCOLS, &word).and_then(|n| u8::try_from(n).ok()),
    }
}

/// A differentiated services code point, by name.
pub(super) fn dscp(word: &str) -> Option<u8> {
    const OTHERS: [(&str, u32); 6] =
        [("be", 0), ("default", 0), ("df", 0), ("ef", 46), ("lephb", 1), ("va", 44)];
    let word = word.to_ascii_lowercase();
    let digits: Vec<u32> = word.chars().skip(2).filter_map(|c| c.to_digit(10)).collect();
    let number = match (word.get(..2), digits.as_slice(), word.len()) {
        (Some("cs"), [class @ 0..=7], 3) => Some(class << 3),
        (Some("af"), [class @ 1..=4, drop @ 1..=3], 4) => Some(class << 3 | drop << 1),
        _ => look(&OTHERS, &word),
    };
    number.and_then(|n| u8::try_from(n).ok())
}

/// A type of service as `ip` prints it: a number, or a name of
/// `/etc/iproute2/rt_dsfield`.
pub(super) fn tos(word: &str) -> Option<u8> {
    const NAMES: [(&str, u32); 4] =
        [("lowdelay", 0x10), ("throughput", 0x08), ("reliability", 0x04), ("mincost", 0x02)];
    if let Some(number) = number(word) {
        return u8::try_from(number).ok();
    }
    match look(&NAMES, word) {
        Some(number) => u8::try_from(number).ok(),
        None => dscp(word).map(|d| d << 2),
    }
}

/// A scope, by name or number.
pub(super) fn scope(word: &str) -> Option<Scope> {
    Some(match word {
        "global" | "0" => Scope::Global,
        "site" | "200" => Scope::Site,
        "link" | "253" => Scope::Link,
        "host" | "254" => Scope::Host,
        "nowhere" | "255" => Scope::Nowhere,
        _ => return None,
    })
}

/// The name of a scope.
pub(super) fn scope_name(scope: Scope) -> &'static str {
    match scope {
        Scope::Global => "global",
        Scope::Site => "site",
        Scope::Link => "link",
        Scope::Host => "host",
        Scope::Nowhere => "nowhere",
    }
}

/// A routing table, by number or by one of the names that every system has.
pub(super) fn table(word: &str) -> Option<RouteTable> {
    Some(match word {
        "default" => RouteTable::DEFAULT,
        "main" => RouteTable::MAIN,
        "local" => RouteTable::LOCAL,
        _ => RouteTable(number(word).and_then(|n| u32::try_from(n).ok())?),
    })
}

/// A prefix, or an address as the prefix that holds just it.
pub(super) fn net(word: &str) -> Option<IpNet> {
    match word.parse::<IpNet>() {
        Ok(net) => Some(net),
        Err(_) => word.parse::<IpAddr>().ok().map(IpNet::from),
    }
}

/// The family of a prefix.
pub(super) fn family(net: &IpNet) -> Family {
    Family::of(net.addr())
}

/// A prefix as `ip route` prints it: without its length where it is one
/// address.
pub(super) fn show(net: &IpNet) -> String {
    if net.prefix_len() == net.max_prefix_len() {
        net.addr().to_string()
    } else {
        net.to_string()
    }
}
