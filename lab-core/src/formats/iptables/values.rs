use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::super::ErrorKind;
use super::names;
use crate::addr::{Family, Masked, PortRange};
use crate::formats::names as words;
use crate::model::InterfacePattern;

type Value<T> = Result<T, ErrorKind>;

/// The most bytes of an interface name (`IFNAMSIZ` less its end).
const INTERFACE_NAME: usize = 15;

pub(super) fn bad(text: &str, what: &str) -> ErrorKind {
    ErrorKind::Value(format!("`{text}` is not {what}"))
}

/// The text before and after the first such byte, which is ASCII. Values are
/// short, and `split_once` is slow to start.
pub(super) fn cut(text: &str, at: u8) -> Option<(&str, &str)> {
    let place = text.bytes().position(|b| b == at)?;
    Some((text.get(..place)?, text.get(place + 1..)?))
}

/// A number as C's `strtoul` with base 0 reads it: `10`, `0xa`, `012`.
pub(super) fn number(text: &str) -> Option<u32> {
    let digits = |s: &str, radix| {
        // from_str_radix takes a sign, which no option here does.
        if s.starts_with(['+', '-']) {
            None
        } else {
            u32::from_str_radix(s, radix).ok()
        }
    };
    if let Some(hex) = text.strip_prefix("0x").or_else(|| text.strip_prefix("0X")) {
        digits(hex, 16)
    } else if let Some(octal) = text.strip_prefix('0').filter(|rest| !rest.is_empty()) {
        digits(octal, 8)
    } else {
        digits(text, 10)
    }
}

pub(super) fn uint(text: &str, what: &str) -> Value<u32> {
    number(text).ok_or_else(|| bad(text, what))
}

pub(super) fn byte(text: &str, what: &str) -> Value<u8> {
    number(text).and_then(|n| u8::try_from(n).ok()).ok_or_else(|| bad(text, what))
}

/// `value[/mask]`; the mask is all ones unless given.
pub(super) fn mark(text: &str) -> Value<(u32, u32)> {
    match cut(text, b'/') {
        Some((value, mask)) => Ok((uint(value, "a mark")?, uint(mask, "a mask")?)),
        None => Ok((uint(text, "a mark")?, u32::MAX)),
    }
}

/// `value[/mask]` or the name of a type of service.
pub(super) fn tos(text: &str) -> Value<(u8, u8)> {
    if let Some(value) = names::tos_name(text) {
        return Ok((value, 0x3f));
    }
    match text.split_once('/') {
        Some((value, mask)) => Ok((byte(value, "a type of service")?, byte(mask, "a mask")?)),
        None => Ok((byte(text, "a type of service")?, 0xff)),
    }
}

pub(super) fn dscp(text: &str) -> Value<u8> {
    byte(text, "a DSCP value").and_then(|v| if v < 64 { Ok(v) } else { Err(bad(text, "a DSCP value")) })
}

/// A protocol by name or number; `all` is 0.
pub(super) fn protocol(text: &str) -> Value<u8> {
    if text == "all" {
        return Ok(0);
    }
    words::protocol(text).ok_or_else(|| bad(text, "a protocol"))
}

pub(super) fn dscp_class(text: &str) -> Value<u8> {
    words::dscp(text).ok_or_else(|| bad(text, "a DSCP class"))
}

pub(super) fn port(text: &str) -> Value<u16> {
    number(text)
        .and_then(|n| u16::try_from(n).ok())
        .or_else(|| words::service(text))
        .ok_or_else(|| bad(text, "a port"))
}

/// `22`, `1024:65535`, `:1023`, `1024:`. The kernel takes a range that ends
/// below its start, and it holds no port.
pub(super) fn ports(text: &str) -> Value<PortRange> {
    let Some((low, high)) = cut(text, b':') else {
        return Ok(port(text)?.into());
    };
    let low = if low.is_empty() { 0 } else { port(low)? };
    let high = if high.is_empty() { u16::MAX } else { port(high)? };
    Ok(PortRange { low, high })
}

/// `22` or `1024-65535`, as NAT targets and ipset write them.
pub(in crate::formats) fn dashed_ports(text: &str) -> Value<PortRange> {
    // A service name may hold a dash itself.
    if let Ok(port) = port(text) {
        return Ok(port.into());
    }
    let (low, high) = text.split_once('-').ok_or_else(|| bad(text, "a port"))?;
    let (low, high) = (port(low)?, port(high)?);
    if high < low {
        return Err(bad(text, "a port range: it ends below its start"));
    }
    Ok(PortRange { low, high })
}

pub(in crate::formats) fn address(text: &str, family: Family) -> Value<IpAddr> {
    match family {
        Family::Ipv4 => text.parse().map(IpAddr::V4).map_err(|_| bad(text, "an IPv4 address")),
        Family::Ipv6 => text.parse().map(IpAddr::V6).map_err(|_| bad(text, "an IPv6 address")),
    }
}

/// `a-b`, or `a` for a range of one.
pub(in crate::formats) fn address_range(text: &str, family: Family) -> Value<(IpAddr, IpAddr)> {
    let Some((first, last)) = cut(text, b'-') else {
        let alone = address(text, family)?;
        return Ok((alone, alone));
    };
    let (first, last) = (address(first, family)?, address(last, family)?);
    if last < first {
        return Err(bad(text, "an address range: it ends below its start"));
    }
    Ok((first, last))
}

/// `10` and `10.1` stand for `10.0.0.0` and `10.1.0.0` where a mask follows.
fn network(text: &str, family: Family) -> Value<IpAddr> {
    let whole = address(text, family);
    let parts = || text.split('.').count();
    let address = match whole {
        Err(_) if family == Family::Ipv4 && !text.is_empty() && parts() < 4 => {
            address(&format!("{text}{}", ".0".repeat(4 - parts())), family)
        }
        _ => whole,
    };
    address.map_err(|_| bad_network(text, family))
}

fn bad_network(text: &str, family: Family) -> ErrorKind {
    let family = if family == Family::Ipv4 { "IPv4" } else { "IPv6" };
    bad(text, &format!("an {family} address (host names are not looked up)"))
}

/// `address[/mask]`, the mask a length or written out.
pub(super) fn masked(text: &str, family: Family) -> Value<Masked> {
    let Some((base, mask)) = cut(text, b'/') else {
        let base = address(text, family).map_err(|_| bad_network(text, family))?;
        return prefix(base, family.bits()).ok_or_else(|| bad(text, "a prefix"));
    };
    let base = network(base, family)?;
    if let Ok(length) = mask.parse::<u8>() {
        return prefix(base, length).ok_or_else(|| bad(text, "a prefix: its length is too great"));
    }
    Ok(Masked::new(base, address(mask, family).map_err(|_| bad(mask, "a mask"))?))
}

fn prefix(base: IpAddr, length: u8) -> Option<Masked> {
    let mask = match base {
        IpAddr::V4(_) => {
            let host = 32_u8.checked_sub(length)?;
            IpAddr::V4(Ipv4Addr::from_bits(u32::MAX.checked_shl(u32::from(host)).unwrap_or(0)))
        }
        IpAddr::V6(_) => {
            let host = 128_u8.checked_sub(length)?;
            IpAddr::V6(Ipv6Addr::from_bits(u128::MAX.checked_shl(u32::from(host)).unwrap_or(0)))
        }
    };
    Some(Masked::new(base, mask))
}

/// An interface name; `eth+` is any name that starts with `eth`.
pub(super) fn interface(text: &str) -> Value<InterfacePattern> {
    if text.is_empty() || text.len() > INTERFACE_NAME || text.contains(char::is_whitespace) {
        return Err(bad(text, "an interface name"));
    }
    Ok(match text.strip_suffix('+') {
        Some(name) => InterfacePattern { name: name.to_owned(), prefix: true },
        None => InterfacePattern { name: text.to_owned(), prefix: false },
    })
}
