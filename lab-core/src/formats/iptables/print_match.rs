use std::collections::BTreeSet;
use std::fmt::Write as _;

use super::lexer::quote;
use super::matches::{ADDRESS_TYPES, PACKET_TYPES, PSEUDO_STATES, STATES, STATUSES, TCP_FLAGS};
use super::print::option;
use crate::addr::{Masked, PortRange};
use crate::model::{
    Comparison, ConntrackMatch, Direction, InterfacePattern, Match, Not, PhysdevMatch, SetDirection,
    Statistic,
};

/// A match extension, with a blank before each word.
pub(super) fn condition(out: &mut String, condition: &Match) {
    match condition {
        Match::Tcp { sport, dport, flags, option: tcp_option } => {
            out.push_str(" -m tcp");
            ports(out, sport.as_ref(), dport.as_ref());
            given(out, "--tcp-option", tcp_option.as_ref());
            let flags = flags.map(|not| Not {
                invert: not.invert,
                value: format!("{} {}", tcp_flags(not.value.mask), tcp_flags(not.value.set)),
            });
            given(out, "--tcp-flags", flags.as_ref());
        }
        Match::Udp { sport, dport } => {
            out.push_str(" -m udp");
            ports(out, sport.as_ref(), dport.as_ref());
        }
        Match::Sctp { sport, dport, chunks } => {
            out.push_str(" -m sctp");
            ports(out, sport.as_ref(), dport.as_ref());
            given(out, "--chunk-types", chunks.as_ref());
        }
        Match::Icmp(not) => with(out, " -m icmp --icmp-type", not, |v| match v {
            (255, 0, 255) => "any".to_owned(),
            _ => icmp(*v),
        }),
        Match::Icmp6(not) => with(out, " -m icmp6 --icmpv6-type", not, |v| icmp(*v)),
        Match::Multiport { side, ports } => {
            let name = match side {
                Some(SetDirection::Src) => " -m multiport --sports",
                Some(SetDirection::Dst) => " -m multiport --dports",
                None => " -m multiport --ports",
            };
            with(out, name, ports, |v| joined(v.iter().map(PortRange::to_string)));
        }
        Match::Conntrack(conntrack) => conntrack_options(out, conntrack),
        Match::Mark(not) => with(out, " -m mark --mark", not, |v| masked(*v)),
        Match::Connmark(not) => with(out, " -m connmark --mark", not, |v| masked(*v)),
        Match::AddressType { source, destination, limit_in, limit_out } => {
            out.push_str(" -m addrtype");
            for (name, types) in [("--src-type", source), ("--dst-type", destination)] {
                if let Some(not) = types {
                    with(out, &format!(" {name}"), not, |v| names(&ADDRESS_TYPES, |t| v.contains(t)));
                }
            }
            flag(out, *limit_in, " --limit-iface-in");
            flag(out, *limit_out, " --limit-iface-out");
        }
        Match::Set { name, directions, options } => {
            let sides = joined(directions.iter().map(|d| match d {
                SetDirection::Src => "src".to_owned(),
                SetDirection::Dst => "dst".to_owned(),
            }));
            with(out, " -m set --match-set", name, |name| format!("{name} {sides}"));
            flag(out, !options.is_empty(), " ");
            out.push_str(options);
        }
        Match::Mac(not) => with(out, " -m mac --mac-source", not, ToString::to_string),
        Match::Physdev(physdev) => physdev_options(out, physdev),
        Match::Comment(comment) => {
            let _ = write!(out, " -m comment --comment {}", quote(comment));
        }
        Match::Limit { rate, burst } => {
            let _ = write!(out, " -m limit --limit {rate}");
            if let Some(burst) = burst {
                let _ = write!(out, " --limit-burst {burst}");
            }
        }
        Match::Hashlimit { options, .. } => {
            let _ = write!(out, " -m hashlimit {options}");
        }
        Match::Statistic(not) => match &not.value {
            Statistic::Random(p) => {
                with(out, " -m statistic --mode random --probability", not, |_| p.to_string())
            }
            Statistic::Nth(nth) => {
                let text = format!("{} --packet {}", nth.every, nth.packet);
                with(out, " -m statistic --mode nth --every", not, |_| text.clone());
            }
        },
        Match::Dscp(not) => with(out, " -m dscp --dscp", not, |v| format!("0x{v:02x}")),
        Match::Tos(not) => with(out, " -m tos --tos", not, |(v, m)| format!("0x{v:02x}/0x{m:02x}")),
        Match::IpRange { source, destination } => {
            out.push_str(" -m iprange");
            for (name, range) in [(" --src-range", source), (" --dst-range", destination)] {
                if let Some(not) = range {
                    with(out, name, not, |(first, last)| format!("{first}-{last}"));
                }
            }
        }
        Match::Length(not) => with(out, " -m length --length", not, |v| range(*v)),
        Match::Ttl { comparison, value } => hops(out, " -m ttl", "--ttl", *comparison, *value),
        Match::HopLimit { comparison, value } => hops(out, " -m hl", "--hl", *comparison, *value),
        Match::PacketType(not) => with(out, " -m pkttype --pkt-type", not, |v| {
            PACKET_TYPES.iter().find(|(_, t)| t == v).map_or("", |(name, _)| name).to_owned()
        }),
        // iptables 1.8.9 does print two blanks.
        Match::Nfacct(name) => {
            let _ = write!(out, " -m nfacct --nfacct-name  {name}");
        }
        Match::RpFilter { invert, loose, valid_mark, accept_local } => {
            out.push_str(" -m rpfilter");
            flag(out, *loose, " --loose");
            flag(out, *valid_mark, " --validmark");
            flag(out, *accept_local, " --accept-local");
            flag(out, *invert, " --invert");
        }
        Match::Unmodelled { text, .. } => {
            let _ = write!(out, " {text}");
        }
        // The rule's own options are printed before; nft's have no words here.
        Match::Source(_)
        | Match::Destination(_)
        | Match::InInterface(_)
        | Match::OutInterface(_)
        | Match::Protocol(_)
        | Match::Fragment(_)
        | Match::Nft(_) => {}
    }
}

/// An interface pattern as text.
pub(super) fn interface(not: &Not<InterfacePattern>) -> Not<String> {
    let plus = if not.value.prefix { "+" } else { "" };
    Not { invert: not.invert, value: format!("{}{plus}", not.value.name) }
}

/// `-m NAME ! --option value`, from `-m NAME --option` and the value.
fn with<T>(out: &mut String, names: &str, not: &Not<T>, text: impl Fn(&T) -> String) {
    let (before, name) = names.rsplit_once(' ').unwrap_or(("", names));
    out.push_str(before);
    option(out, name, &Not { invert: not.invert, value: text(&not.value) });
}

fn given<T: std::fmt::Display>(out: &mut String, name: &str, not: Option<&Not<T>>) {
    if let Some(not) = not {
        option(out, name, not);
    }
}

fn flag(out: &mut String, given: bool, text: &str) {
    if given {
        out.push_str(text);
    }
}

fn ports(out: &mut String, sport: Option<&Not<PortRange>>, dport: Option<&Not<PortRange>>) {
    given(out, "--sport", sport);
    given(out, "--dport", dport);
}

fn joined(parts: impl Iterator<Item = String>) -> String {
    parts.collect::<Vec<_>>().join(",")
}

/// The names of a table that hold, in its order.
fn names<T>(table: &[(&str, T)], holds: impl Fn(&T) -> bool) -> String {
    joined(table.iter().filter(|(_, value)| holds(value)).map(|(name, _)| (*name).to_owned()))
}

fn tcp_flags(bits: u8) -> String {
    if bits == 0 {
        return "NONE".to_owned();
    }
    names(&TCP_FLAGS, |bit| bits & bit != 0)
}

fn icmp((kind, first, last): (u8, u8, u8)) -> String {
    match (kind, first, last) {
        (_, 0, 255) => kind.to_string(),
        _ => format!("{kind}/{first}"),
    }
}

fn masked((value, mask): (u32, u32)) -> String {
    if mask == u32::MAX {
        format!("0x{value:x}")
    } else {
        format!("0x{value:x}/0x{mask:x}")
    }
}

fn range((low, high): (u32, u32)) -> String {
    if low == high {
        low.to_string()
    } else {
        format!("{low}:{high}")
    }
}

fn hops(out: &mut String, name: &str, prefix: &str, comparison: Comparison, value: u8) {
    let how = match comparison {
        Comparison::Less => "lt",
        Comparison::Greater => "gt",
        _ => "eq",
    };
    let invert = comparison == Comparison::NotEqual;
    out.push_str(name);
    option(out, &format!("{prefix}-{how}"), &Not { invert, value });
}

/// A connection's address: a whole one stands without its length.
fn connection_address(address: &Masked) -> String {
    let whole = if address.address.is_ipv4() { 32 } else { 128 };
    if address.prefix_len() == Some(whole) {
        address.address.to_string()
    } else {
        address.to_string()
    }
}

fn conntrack_options(out: &mut String, c: &ConntrackMatch) {
    let (extension, state) = if c.legacy_state { ("state", "state") } else { ("conntrack", "ctstate") };
    let _ = write!(out, " -m {extension}");
    if let Some(not) = &c.states {
        with(out, &format!(" --{state}"), not, |(states, pseudo)| {
            let plain = names(&STATES, |s| states.contains(s));
            let rewritten = names(&PSEUDO_STATES, |s| pseudo.contains(s));
            joined([plain, rewritten].into_iter().filter(|s| !s.is_empty()))
        });
    }
    given(out, "--ctproto", c.protocol.as_ref());
    for (name, address) in [
        (" --ctorigsrc", &c.original_source),
        (" --ctorigdst", &c.original_destination),
        (" --ctreplsrc", &c.reply_source),
        (" --ctrepldst", &c.reply_destination),
    ] {
        if let Some(not) = address {
            with(out, name, not, connection_address);
        }
    }
    given(out, "--ctorigsrcport", c.original_sport.as_ref());
    given(out, "--ctorigdstport", c.original_dport.as_ref());
    given(out, "--ctreplsrcport", c.reply_sport.as_ref());
    given(out, "--ctrepldstport", c.reply_dport.as_ref());
    if let Some(not) = &c.status {
        with(out, " --ctstatus", not, |status: &BTreeSet<_>| {
            if status.is_empty() {
                "NONE".to_owned()
            } else {
                names(&STATUSES, |s| status.contains(s))
            }
        });
    }
    if let Some(not) = &c.expire {
        with(out, " --ctexpire", not, |v| range(*v));
    }
    match c.direction {
        Some(Direction::Original) => out.push_str(" --ctdir ORIGINAL"),
        Some(Direction::Reply) => out.push_str(" --ctdir REPLY"),
        None => {}
    }
}

fn physdev_options(out: &mut String, physdev: &PhysdevMatch) {
    let bare = |out: &mut String, name: &str, not: &Option<Not<()>>| {
        if let Some(not) = not {
            let _ = write!(out, "{} {name}", if not.invert { " !" } else { "" });
        }
    };
    out.push_str(" -m physdev");
    bare(out, "--physdev-is-in", &physdev.is_in);
    if let Some(not) = &physdev.input {
        option(out, "--physdev-in", &interface(not));
    }
    bare(out, "--physdev-is-out", &physdev.is_out);
    if let Some(not) = &physdev.output {
        option(out, "--physdev-out", &interface(not));
    }
    bare(out, "--physdev-is-bridged", &physdev.is_bridged);
}
