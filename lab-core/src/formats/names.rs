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

/// `/etc/protocols`; the first name of a number is the one printed.
const PROTOCOLS: [(&str, u8); 53] = [
    ("icmp", 1),
    ("igmp", 2),
    ("ggp", 3),
    ("ipencap", 4),
    ("ipip", 94),
    ("st", 5),
    ("tcp", 6),
    ("egp", 8),
    ("igp", 9),
    ("pup", 12),
    ("udp", 17),
    ("hmp", 20),
    ("xns-idp", 22),
    ("rdp", 27),
    ("iso-tp4", 29),
    ("dccp", 33),
    ("xtp", 36),
    ("ddp", 37),
    ("idpr-cmtp", 38),
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
    ("ipv6-nonxt", 59),
    ("ipv6-opts", 60),
    ("eigrp", 88),
    ("ospf", 89),
    ("pim", 103),
    ("vrrp", 112),
    ("l2tp", 115),
    ("sctp", 132),
    ("mobility-header", 135),
    ("udplite", 136),
    ("rspf", 73),
    ("vmtp", 81),
    ("ax.25", 93),
    ("etherip", 97),
    ("encap", 98),
    ("ipcomp", 108),
    ("isis", 124),
    ("fc", 133),
    ("mpls-in-ip", 137),
    ("manet", 138),
    ("hip", 139),
    ("shim6", 140),
    ("wesp", 141),
    ("rohc", 142),
];

/// Names that iptables or `/etc/protocols` take beside those above.
const PROTOCOL_ALIASES: [(&str, u8); 7] =
    [("icmpv6", 58), ("icmp6", 58), ("ipv6-mh", 135), ("mh", 135), ("ipv4", 4), ("ip", 0), ("hopopt", 0)];

/// An IP protocol, by name or number. `ip rule` writes `ipproto-N` for those
/// it has no name for.
pub(super) fn protocol(word: &str) -> Option<u8> {
    let digits = match word.split_at_checked("ipproto-".len()) {
        Some((prefix, digits)) if prefix.eq_ignore_ascii_case("ipproto-") => digits,
        _ => word,
    };
    match number(digits) {
        Some(number) => u8::try_from(number).ok(),
        None => {
            let mut names = PROTOCOLS.iter().chain(&PROTOCOL_ALIASES);
            names.find(|(name, _)| name.eq_ignore_ascii_case(word)).map(|(_, n)| *n)
        }
    }
}

/// A protocol as the tools print it.
pub(super) fn protocol_name(number: u8) -> String {
    let name = PROTOCOLS.iter().find(|(_, n)| *n == number).map(|(name, _)| *name);
    name.map_or_else(|| number.to_string(), str::to_owned)
}

/// The part of `/etc/services` that people write.
const SERVICES: [(&str, u32); 38] = [
    ("ftp-data", 20),
    ("ftp", 21),
    ("ssh", 22),
    ("telnet", 23),
    ("smtp", 25),
    ("domain", 53),
    ("bootps", 67),
    ("bootpc", 68),
    ("tftp", 69),
    ("http", 80),
    ("www", 80),
    ("kerberos", 88),
    ("pop3", 110),
    ("sunrpc", 111),
    ("auth", 113),
    ("ntp", 123),
    ("netbios-ns", 137),
    ("netbios-dgm", 138),
    ("netbios-ssn", 139),
    ("imap2", 143),
    ("snmp", 161),
    ("snmp-trap", 162),
    ("bgp", 179),
    ("ldap", 389),
    ("https", 443),
    ("microsoft-ds", 445),
    ("isakmp", 500),
    ("syslog", 514),
    ("submission", 587),
    ("ldaps", 636),
    ("imaps", 993),
    ("pop3s", 995),
    ("openvpn", 1194),
    ("radius", 1812),
    ("nfs", 2049),
    ("mysql", 3306),
    ("ipsec-nat-t", 4500),
    ("postgresql", 5432),
];

/// A port by the name of its service.
pub(super) fn service(name: &str) -> Option<u16> {
    look(&SERVICES, name).and_then(|port| u16::try_from(port).ok())
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
