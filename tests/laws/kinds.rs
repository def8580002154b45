//! What kinds of matches, targets and expressions labs have.

use std::collections::BTreeSet;

use lab_core::model::{Expression, Lab, Match, NftMap, Statement, Target};

use crate::agreement::Tally;

/// The first word of a value as it is written in code.
fn variant(value: &impl std::fmt::Debug) -> String {
    let text = format!("{value:?}");
    text.split(|c: char| !c.is_alphanumeric()).next().unwrap_or_default().to_owned()
}

fn expressions(expression: &Expression, seen: &mut BTreeSet<String>) {
    seen.insert(format!("expression {}", variant(expression)));
    match expression {
        Expression::Concat(parts) => parts.iter().for_each(|p| expressions(p, seen)),
        Expression::And(a, b) | Expression::Or(a, b) | Expression::Xor(a, b) => {
            expressions(a, seen);
            expressions(b, seen);
        }
        Expression::ShiftLeft(a, _) | Expression::ShiftRight(a, _) => expressions(a, seen),
        Expression::Map(key, map) => {
            expressions(key, seen);
            let named = matches!(**map, NftMap::Named(_));
            seen.insert(format!("map {}", if named { "by name" } else { "in place" }));
        }
        _ => {}
    }
}

/// What kinds of matches, targets and expressions a lab has.
pub fn kinds(lab: &Lab) -> BTreeSet<String> {
    let mut seen = BTreeSet::new();
    let tables = lab.hosts.values().flat_map(|h| &h.ruleset.tables);
    for rule in tables.flat_map(|t| &t.chains).flat_map(|c| &c.rules) {
        for statement in &rule.statements {
            match statement {
                Statement::Match(condition) => {
                    seen.insert(format!("match {}", variant(condition)));
                    if let Match::Nft(condition) = condition {
                        expressions(&condition.left, &mut seen);
                    }
                }
                Statement::Target(target) => {
                    seen.insert(format!("target {}", variant(target)));
                    match target {
                        Target::VerdictMap { key, .. } => expressions(key, &mut seen),
                        Target::Mangle(what, value) => {
                            seen.insert(format!("mangle {}", variant(what)));
                            expressions(value, &mut seen);
                        }
                        Target::Nat { kind, .. } => {
                            seen.insert(format!("nat {}", variant(kind)));
                        }
                        Target::Connmark(how) => {
                            seen.insert(format!("connmark {}", variant(how)));
                        }
                        Target::Reject(with) => {
                            seen.insert(format!("reject {with:?}"));
                        }
                        _ => {}
                    }
                }
            }
        }
    }
    for route in lab.hosts.values().flat_map(|h| &h.routes) {
        seen.insert(format!("route {:?}", route.kind));
    }
    seen
}

const MATCHES: &str =
    "Source Destination InInterface OutInterface Protocol Fragment Tcp Udp Sctp Icmp Icmp6 \
    Multiport Conntrack Mark Connmark AddressType Set Mac Physdev Comment Limit Hashlimit Statistic Dscp Tos \
    IpRange Length Ttl HopLimit PacketType Nfacct RpFilter Nft Unmodelled";
const TARGETS: &str =
    "Verdict VerdictMap Reject Nat Netmap Mark Connmark Notrack CtZone Ttl HopLimit Dscp Tos \
    Mangle Limit NoEffect Unmodelled";
const EXPRESSIONS: &str = "Iifname Oifname L4proto Nfproto Mark Length Pkttype IpSource IpDestination \
    IpProtocol IpTtl IpDscp IpLength Ip6Source Ip6Destination Ip6NextHeader Ip6HopLimit Ip6Dscp SourcePort \
    DestinationPort TcpFlags IcmpType IcmpCode Icmp6Type Icmp6Code EtherSource EtherDestination CtState \
    CtStatus CtDirection CtMark CtAddress CtPort Fib Numgen Constant Concat And Or Xor ShiftLeft ShiftRight Map";

/// Everything that laws must have met, by the names of [`kinds`].
fn wanted() -> Vec<String> {
    let of = |what: &'static str, names: &'static str| {
        names.split_whitespace().map(move |name| format!("{what} {name}"))
    };
    of("match", MATCHES)
        .chain(of("target", TARGETS))
        .chain(of("expression", EXPRESSIONS))
        .chain(of("nat", "Snat Dnat Masquerade Redirect"))
        .chain(of("connmark", "SetXor Save Restore"))
        .chain(of("mangle", "Mark CtMark IpTtl Ip6HopLimit IpDscp Ip6Dscp"))
        .chain(of("route", "Unicast Local Broadcast Unreachable Blackhole Prohibit Throw"))
        .collect()
}

/// Enough of everything was met.
pub fn quotas(total: &Tally) {
    assert!(3 * total.with_nat >= total.labs, "{} labs of {} have NAT", total.with_nat, total.labs);
    assert!(3 * total.with_hosts >= total.labs, "{} labs of {} have hosts", total.with_hosts, total.labs);
    assert!(total.packets >= 20 * total.labs, "{} packets", total.packets);
    assert!(4 * total.certain >= total.packets, "{} of {} packets are certain", total.certain, total.packets);
    // 50 labs of 2000.
    let few: Vec<(String, u64)> = wanted()
        .into_iter()
        .map(|kind| (total.kinds.get(&kind).copied().unwrap_or(0), kind))
        .filter(|(n, _)| n * 40 < total.labs)
        .map(|(n, kind)| (kind, n))
        .collect();
    assert!(few.is_empty(), "too few labs of {} have {few:?}", total.labs);
}
