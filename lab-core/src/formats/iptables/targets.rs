use std::net::IpAddr;

use super::super::ErrorKind;
use super::matches::Options;
use super::{options, values};
use crate::addr::Family;
use crate::model::{
    Direction, MarkOperation, NatAddress, NatKind, NatRange, RejectWith, Target, TtlOperation, Verdict,
};

type Read<T> = Result<T, ErrorKind>;

/// Understands a target whose options are all known. `None`: it says
/// something that the model has no place for.
pub(super) fn build(o: &Options<'_>) -> Read<Option<Target>> {
    let name = o.extension.name;
    Ok(match name {
        "ACCEPT" => Some(Target::Verdict(Verdict::Accept)),
        "DROP" => Some(Target::Verdict(Verdict::Drop)),
        "RETURN" => Some(Target::Verdict(Verdict::Return)),
        "REJECT" => Some(Target::Reject(reject(o)?)),
        "SNAT" => Some(nat(o, NatKind::Snat, o.need("to-source")?.value())?),
        "DNAT" => Some(nat(o, NatKind::Dnat, o.need("to-destination")?.value())?),
        "MASQUERADE" | "REDIRECT" => {
            let kind = if name == "REDIRECT" { NatKind::Redirect } else { NatKind::Masquerade };
            let ports = o.get("to-ports").map(|given| values::dashed_ports(given.value())).transpose()?;
            Some(Target::Nat { kind, range: NatRange { ports, ..flags(o) } })
        }
        "NETMAP" => {
            let net = values::masked(o.need("to")?.value(), o.family)?;
            net.prefix_len().and_then(|l| ipnet::IpNet::new(net.address, l).ok()).map(Target::Netmap)
        }
        "MARK" => mark_operation(o)?.map(Target::Mark),
        "CONNMARK" => connmark_operation(o)?.map(Target::Connmark),
        "CT" => ct(o),
        "NOTRACK" => Some(Target::Notrack { legacy: true }),
        "TTL" => Some(Target::Ttl(hops(o, ["ttl-set", "ttl-inc", "ttl-dec"])?)),
        "HL" => Some(Target::HopLimit(hops(o, ["hl-set", "hl-inc", "hl-dec"])?)),
        "DSCP" => match (o.get("set-dscp"), o.get("set-dscp-class")) {
            (Some(given), None) => Some(Target::Dscp(values::dscp(given.value())?)),
            (None, Some(given)) => Some(Target::Dscp(values::dscp_class(given.value())?)),
            _ => return Err(ErrorKind::Syntax("DSCP needs one of --set-dscp and --set-dscp-class".into())),
        },
        "TOS" => Some(tos(o)?),
        _ if options::of_effectless(name).is_some() => {
            Some(Target::NoEffect { name: name.to_owned(), options: o.written() })
        }
        _ => None,
    })
}

/// The one option given of several that exclude each other.
fn only<'a>(o: &'a Options<'_>, names: &[&'static str]) -> Read<(&'static str, &'a str)> {
    let mut given = names.iter().filter_map(|name| Some((*name, o.get(name)?.value())));
    match (given.next(), given.next()) {
        (Some(one), None) => Ok(one),
        _ => {
            let names: Vec<String> = names.iter().map(|name| format!("--{name}")).collect();
            let of = o.extension.name;
            Err(ErrorKind::Syntax(format!("{of} needs one of {}", names.join(", "))))
        }
    }
}

/// The names of `--reject-with`, the one that is printed first.
pub(super) const REJECT4: [(&str, RejectWith); 15] = [
    ("icmp-net-unreachable", RejectWith::Icmp(0)),
    ("icmp-host-unreachable", RejectWith::Icmp(1)),
    ("icmp-proto-unreachable", RejectWith::Icmp(2)),
    ("icmp-port-unreachable", RejectWith::Icmp(3)),
    ("icmp-net-prohibited", RejectWith::Icmp(9)),
    ("icmp-host-prohibited", RejectWith::Icmp(10)),
    ("icmp-admin-prohibited", RejectWith::Icmp(13)),
    ("tcp-reset", RejectWith::TcpReset),
    ("net-unreach", RejectWith::Icmp(0)),
    ("host-unreach", RejectWith::Icmp(1)),
    ("proto-unreach", RejectWith::Icmp(2)),
    ("port-unreach", RejectWith::Icmp(3)),
    ("net-prohib", RejectWith::Icmp(9)),
    ("host-prohib", RejectWith::Icmp(10)),
    ("admin-prohib", RejectWith::Icmp(13)),
];

/// The same for IPv6.
pub(super) const REJECT6: [(&str, RejectWith); 13] = [
    ("icmp6-no-route", RejectWith::Icmp6(0)),
    ("icmp6-adm-prohibited", RejectWith::Icmp6(1)),
    ("icmp6-addr-unreachable", RejectWith::Icmp6(3)),
    ("icmp6-port-unreachable", RejectWith::Icmp6(4)),
    ("icmp6-policy-fail", RejectWith::Icmp6(5)),
    ("icmp6-reject-route", RejectWith::Icmp6(6)),
    ("tcp-reset", RejectWith::TcpReset),
    ("no-route", RejectWith::Icmp6(0)),
    ("adm-prohibited", RejectWith::Icmp6(1)),
    ("addr-unreach", RejectWith::Icmp6(3)),
    ("port-unreach", RejectWith::Icmp6(4)),
    ("policy-fail", RejectWith::Icmp6(5)),
    ("reject-route", RejectWith::Icmp6(6)),
];

fn reject(o: &Options<'_>) -> Read<RejectWith> {
    let (names, default): (&[(&str, RejectWith)], _) = match o.family {
        Family::Ipv4 => (&REJECT4, RejectWith::Icmp(3)),
        Family::Ipv6 => (&REJECT6, RejectWith::Icmp6(4)),
    };
    let Some(given) = o.get("reject-with") else { return Ok(default) };
    let text = given.value().to_ascii_lowercase();
    // iptables takes the first name that starts with the text; `tcp-rst` is
    // an alias that no name starts with.
    let found = names.iter().find(|(name, _)| !text.is_empty() && name.starts_with(&text));
    match found {
        Some((_, with)) => Ok(*with),
        None if text == "tcp-rst" => Ok(RejectWith::TcpReset),
        None => Err(values::bad(given.value(), "a way to reject")),
    }
}

fn flags(o: &Options<'_>) -> NatRange {
    NatRange {
        random: o.has("random"),
        random_fully: o.has("random-fully"),
        persistent: o.has("persistent"),
        ..NatRange::default()
    }
}

/// `1.2.3.4-1.2.3.9:80-90/1000`, `[fd00::1-fd00::9]:80`, `:80`.
fn nat(o: &Options<'_>, kind: NatKind, text: &str) -> Read<Target> {
    let wrong = || values::bad(text, "an address and port to rewrite to");
    let (addresses, ports) = match text.strip_prefix('[') {
        Some(rest) => {
            let (addresses, ports) = rest.split_once(']').ok_or_else(wrong)?;
            match ports {
                "" => (addresses, None),
                _ => (addresses, Some(ports.strip_prefix(':').ok_or_else(wrong)?)),
            }
        }
        None if o.family == Family::Ipv6 && !is_bare_port(text) => (text, None),
        None => match values::cut(text, b':') {
            Some((addresses, ports)) => (addresses, Some(ports)),
            None => (text, None),
        },
    };
    let address = match addresses {
        "" => None,
        _ => {
            let (first, last): (IpAddr, IpAddr) = values::address_range(addresses, o.family)?;
            Some(NatAddress::Range(first, last))
        }
    };
    if address.is_none() && ports.is_none() {
        return Err(wrong());
    }
    let (ports, base_port) = match ports {
        None => (None, None),
        Some(ports) => match values::cut(ports, b'/') {
            Some((range, base)) if kind == NatKind::Dnat => {
                (Some(values::dashed_ports(range)?), Some(values::port(base)?))
            }
            Some(_) => return Err(wrong()),
            None => (Some(values::dashed_ports(ports)?), None),
        },
    };
    Ok(Target::Nat { kind, range: NatRange { address, ports, base_port, ..flags(o) } })
}

/// `:80`, which could be the start of no IPv6 address.
fn is_bare_port(text: &str) -> bool {
    text.starts_with(':') && !text.starts_with("::")
}

fn set_xor(name: &str, text: &str) -> Read<MarkOperation> {
    let plain = |text: &str| values::uint(text, "a mark");
    let (value, mask) = match name {
        "set-xmark" => values::mark(text)?,
        "set-mark" => {
            let (value, mask) = values::mark(text)?;
            (value, value | mask)
        }
        "and-mark" => (0, !plain(text)?),
        "or-mark" => (plain(text)?, plain(text)?),
        _ => (plain(text)?, 0),
    };
    Ok(MarkOperation::SetXor { value, mask })
}

const MARKS: [&str; 5] = ["set-xmark", "set-mark", "and-mark", "or-mark", "xor-mark"];

fn mark_operation(o: &Options<'_>) -> Read<Option<MarkOperation>> {
    let (name, value) = only(o, &MARKS)?;
    Ok(Some(set_xor(name, value)?))
}

fn connmark_operation(o: &Options<'_>) -> Read<Option<MarkOperation>> {
    let (save, restore) = (o.has("save-mark"), o.has("restore-mark"));
    let masks = ["mask", "nfmask", "ctmask"].iter().any(|name| o.has(name));
    if !save && !restore {
        return if masks { Ok(None) } else { mark_operation(o) };
    }
    if save && restore || MARKS.iter().any(|name| o.has(name)) {
        return Err(ErrorKind::Syntax("CONNMARK does one thing at a time".into()));
    }
    let mask = |name: &str| -> Read<u32> {
        match o.get(name).or_else(|| o.get("mask")) {
            Some(given) => values::uint(given.value(), "a mask"),
            None => Ok(u32::MAX),
        }
    };
    let (nfmask, ctmask) = (mask("nfmask")?, mask("ctmask")?);
    Ok(Some(if save {
        MarkOperation::Save { nfmask, ctmask }
    } else {
        MarkOperation::Restore { nfmask, ctmask }
    }))
}

/// Only one thing at a time has a place in the model; a zone taken from the
/// mark (`--zone mark`) has none.
fn ct(o: &Options<'_>) -> Option<Target> {
    let mut all = o.all();
    let (Some(given), None) = (all.next(), all.next()) else { return None };
    let direction = match given.name {
        "notrack" => return Some(Target::Notrack { legacy: false }),
        "zone-orig" => Some(Direction::Original),
        "zone-reply" => Some(Direction::Reply),
        _ => None,
    };
    let zone = values::number(given.value()).and_then(|n| u16::try_from(n).ok())?;
    Some(Target::CtZone { zone, direction })
}

fn hops(o: &Options<'_>, names: [&'static str; 3]) -> Read<TtlOperation> {
    let (name, value) = only(o, &names)?;
    let value = values::byte(value, "a number of hops")?;
    Ok(match name {
        _ if name == names[0] => TtlOperation::Set(value),
        _ if name == names[1] => TtlOperation::Increment(value),
        _ => TtlOperation::Decrement(value),
    })
}

fn tos(o: &Options<'_>) -> Read<Target> {
    let (name, text) = only(o, &["set-tos", "and-tos", "or-tos", "xor-tos"])?;
    let plain = || values::byte(text, "a type of service");
    let (value, mask) = match name {
        "set-tos" => values::tos(text)?,
        "and-tos" => (0, !plain()?),
        "or-tos" => (plain()?, plain()?),
        _ => (plain()?, 0),
    };
    Ok(Target::Tos { value, mask })
}
