use crate::addr::Family;

/// The extension whose options `-p` alone brings in.
pub(super) fn protocol_extension(number: u8, family: Family) -> Option<&'static str> {
    match (number, family) {
        (1, Family::Ipv4) => Some("icmp"),
        (58, Family::Ipv6) => Some("icmp6"),
        (6, _) => Some("tcp"),
        (17, _) => Some("udp"),
        (33, _) => Some("dccp"),
        (50, _) => Some("esp"),
        (51, _) => Some("ah"),
        (132, _) => Some("sctp"),
        (135, Family::Ipv6) => Some("mh"),
        _ => None,
    }
}

/// A name, the type, and the first and last code.
type IcmpName = (&'static str, u8, u8, u8);

const ICMP: [IcmpName; 43] = [
    ("any", 255, 0, 255),
    ("echo-reply", 0, 0, 255),
    ("pong", 0, 0, 255),
    ("destination-unreachable", 3, 0, 255),
    ("network-unreachable", 3, 0, 0),
    ("host-unreachable", 3, 1, 1),
    ("protocol-unreachable", 3, 2, 2),
    ("port-unreachable", 3, 3, 3),
    ("fragmentation-needed", 3, 4, 4),
    ("source-route-failed", 3, 5, 5),
    ("network-unknown", 3, 6, 6),
    ("host-unknown", 3, 7, 7),
    ("network-prohibited", 3, 9, 9),
    ("host-prohibited", 3, 10, 10),
    ("TOS-network-unreachable", 3, 11, 11),
    ("TOS-host-unreachable", 3, 12, 12),
    ("communication-prohibited", 3, 13, 13),
    ("host-precedence-violation", 3, 14, 14),
    ("precedence-cutoff", 3, 15, 15),
    ("source-quench", 4, 0, 255),
    ("redirect", 5, 0, 255),
    ("network-redirect", 5, 0, 0),
    ("host-redirect", 5, 1, 1),
    ("TOS-network-redirect", 5, 2, 2),
    ("TOS-host-redirect", 5, 3, 3),
    ("echo-request", 8, 0, 255),
    ("ping", 8, 0, 255),
    ("router-advertisement", 9, 0, 255),
    ("router-solicitation", 10, 0, 255),
    ("time-exceeded", 11, 0, 255),
    ("ttl-exceeded", 11, 0, 255),
    ("ttl-zero-during-transit", 11, 0, 0),
    ("ttl-zero-during-reassembly", 11, 1, 1),
    ("parameter-problem", 12, 0, 255),
    ("ip-header-bad", 12, 0, 0),
    ("required-option-missing", 12, 1, 1),
    ("timestamp-request", 13, 0, 255),
    ("timestamp-reply", 14, 0, 255),
    ("address-mask-request", 17, 0, 255),
    ("address-mask-reply", 18, 0, 255),
    // Not in every version; harmless where they are not.
    ("information-request", 15, 0, 255),
    ("information-reply", 16, 0, 255),
    ("traceroute", 30, 0, 255),
];

const ICMP6: [IcmpName; 32] = [
    ("destination-unreachable", 1, 0, 255),
    ("no-route", 1, 0, 0),
    ("communication-prohibited", 1, 1, 1),
    ("beyond-scope", 1, 2, 2),
    ("address-unreachable", 1, 3, 3),
    ("port-unreachable", 1, 4, 4),
    ("failed-policy", 1, 5, 5),
    ("reject-route", 1, 6, 6),
    ("packet-too-big", 2, 0, 255),
    ("time-exceeded", 3, 0, 255),
    ("ttl-exceeded", 3, 0, 255),
    ("ttl-zero-during-transit", 3, 0, 0),
    ("ttl-zero-during-reassembly", 3, 1, 1),
    ("parameter-problem", 4, 0, 255),
    ("bad-header", 4, 0, 0),
    ("unknown-header-type", 4, 1, 1),
    ("unknown-option", 4, 2, 2),
    ("echo-request", 128, 0, 255),
    ("ping", 128, 0, 255),
    ("echo-reply", 129, 0, 255),
    ("pong", 129, 0, 255),
    ("mld-listener-query", 130, 0, 255),
    ("mld-listener-report", 131, 0, 255),
    ("mld-listener-done", 132, 0, 255),
    ("mld-listener-reduction", 132, 0, 255),
    ("router-solicitation", 133, 0, 255),
    ("router-advertisement", 134, 0, 255),
    ("neighbour-solicitation", 135, 0, 255),
    ("neighbor-solicitation", 135, 0, 255),
    ("neighbour-advertisement", 136, 0, 255),
    ("neighbor-advertisement", 136, 0, 255),
    ("redirect", 137, 0, 255),
];

fn icmp_names(family: Family) -> &'static [IcmpName] {
    match family {
        Family::Ipv4 => &ICMP,
        Family::Ipv6 => &ICMP6,
    }
}

/// An ICMP type with its codes: a name or the unambiguous start of one, `8`
/// or `3/1`.
pub(in crate::formats) fn icmp_type(text: &str, family: Family) -> Option<(u8, u8, u8)> {
    if text.starts_with(|c: char| c.is_ascii_digit()) {
        return match text.split_once('/') {
            Some((kind, code)) => {
                let code = code.parse().ok()?;
                Some((kind.parse().ok()?, code, code))
            }
            None => Some((text.parse().ok()?, 0, 255)),
        };
    }
    let names = icmp_names(family);
    let exact = names.iter().find(|n| n.0.eq_ignore_ascii_case(text));
    let found = exact.or_else(|| {
        let starts =
            |n: &&IcmpName| n.0.get(..text.len()).is_some_and(|start| start.eq_ignore_ascii_case(text));
        let mut all = names.iter().filter(starts);
        let first = all.next()?;
        all.all(|n| (n.1, n.2, n.3) == (first.1, first.2, first.3)).then_some(first)
    });
    found.filter(|_| !text.is_empty()).map(|n| (n.1, n.2, n.3))
}

/// The name of one type and code, as ipset prints it.
pub(in crate::formats) fn icmp_name(kind: u8, code: u8, family: Family) -> Option<&'static str> {
    let of_kind = || icmp_names(family).iter().filter(move |n| n.1 == kind);
    let exact = of_kind().find(|n| n.2 == code && n.3 == code);
    let whole = || of_kind().find(|n| n.2 == code && kind != 255);
    exact.or_else(whole).map(|n| n.0)
}

/// A type of service by name.
pub(super) fn tos_name(name: &str) -> Option<u8> {
    match name.to_ascii_lowercase().as_str() {
        "minimize-delay" => Some(0x10),
        "maximize-throughput" => Some(0x08),
        "maximize-reliability" => Some(0x04),
        "minimize-cost" => Some(0x02),
        "normal-service" => Some(0x00),
        _ => None,
    }
}
