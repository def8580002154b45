//! Sets told to people: a few lines of addresses, protocols and ports.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{Ipv4Subnets, Ipv6Subnets};
use serde::Serialize;

use super::count::COUNTED;
use super::{is_oracle, Bits, Error, Field, Mapping, Ref, Source, Store};
use crate::addr::{Family, PortRange};
use crate::model::TcpFlags;

/// A product of conditions: every header that meets all of them. An empty
/// list means any.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Line {
    /// The IP version.
    pub family: Family,
    /// Source addresses, first and last.
    pub src: Vec<(IpAddr, IpAddr)>,
    /// Destination addresses, first and last.
    pub dst: Vec<(IpAddr, IpAddr)>,
    /// IP protocol numbers, first and last.
    pub protocol: Vec<(u8, u8)>,
    /// Source ports.
    pub sport: Vec<PortRange>,
    /// Destination ports.
    pub dport: Vec<PortRange>,
    /// ICMP types, first and last.
    pub icmp_type: Vec<(u8, u8)>,
    /// ICMP codes, first and last.
    pub icmp_code: Vec<(u8, u8)>,
    /// TCP flag octets, first and last.
    pub tcp_flags: Vec<(u8, u8)>,
    /// Whether SCTP opens an association, if that matters.
    pub sctp_init: Vec<(u8, u8)>,
    /// Types of service, first and last.
    pub tos: Vec<(u8, u8)>,
}

/// Fields of a line, in the order in which they are made as wide as they go:
/// what people read last first.
const WIDENED: [Field; 10] = [
    Field::Tos,
    Field::SctpInit,
    Field::TcpFlags,
    Field::IcmpCode,
    Field::Sport,
    Field::IcmpType,
    Field::Dport,
    Field::Protocol,
    Field::Src,
    Field::Dst,
];

/// How many steps a search for intervals takes before it gives up.
const INTERVAL_STEPS: usize = 1 << 16;

impl Store {
    /// Lines that cover a set of headers exactly among those of `within`, at
    /// most `most` of them, and whether that is all of it. Lines may overlap;
    /// each is as wide as the set allows, and says nothing of what is outside
    /// `within`.
    ///
    /// Cost: a few operations on the set for each line.
    ///
    /// # Errors
    /// As [`Store::or_else`].
    pub fn cover(&mut self, set: Ref, within: Ref, most: usize) -> Result<(Vec<Line>, bool), Error> {
        let headers = self.headers()?;
        let headers = self.guard(within, headers)?;
        let set = self.guard(set, headers)?;
        let beyond = self.without(headers, set)?;
        let mut left = set;
        let mut lines = Vec::new();
        while let Some(example) = self.example(left) {
            if lines.len() == most {
                return Ok((lines, false));
            }
            let mut parts: Vec<Ref> =
                COUNTED.iter().map(|f| self.value(*f, example.get(*f))).collect::<Result<_, _>>()?;
            let mut values: Vec<(Field, Vec<(u128, u128)>)> = Vec::new();
            let family = self.value(Field::Family, example.get(Field::Family))?;
            let kin = self.guard(family, headers)?;
            for field in WIDENED {
                let index = COUNTED.iter().position(|f| *f == field).unwrap_or_default();
                parts[index] = Ref::ALL;
                let others = self.all_of(&parts)?;
                let bad = self.guard(others, beyond)?;
                let (start, end) = (field.bit(0), field.bit(0) + field.width());
                let bad = self.forget(bad, &|p| p < start || p >= end, true)?;
                let mut good = self.not(bad)?;
                let width =
                    if example.get(Field::Family) == 0 && field.width() == 128 { 32 } else { field.width() };
                if width < field.width() {
                    // An IPv4 address has no low bits.
                    let mut short = Mapping::default();
                    short.set(field, Source { field, mask: u128::MAX >> width, value: 0 });
                    good = self.pull_back(Ref::ALL, good, &short)?;
                }
                let found = match self.intervals(good, field, width) {
                    Some(found) => found,
                    None => {
                        let (part, interval) = self.prefix_around(good, field, width, example.get(field))?;
                        good = part;
                        vec![interval]
                    }
                };
                parts[index] = good;
                // Tell nothing of values that are outside anyway.
                let among = self.guard(others, kin)?;
                let shown = match (field, self.shown(among, good, field, width)?) {
                    (Field::Src | Field::Dst, _) if found.len() > 1 << 10 => None,
                    (_, shown) => shown,
                };
                values.push((field, shown.unwrap_or(found)));
            }
            let line = self.all_of(&parts)?;
            left = self.without(left, line)?;
            lines.push(line_of(example.get(Field::Family) == 1, &values));
        }
        lines.sort_by_key(|l| (l.family, l.dst.clone(), l.src.clone(), l.protocol.clone()));
        Ok((lines, true))
    }

    /// A set of one field's values as intervals, in order; it must depend on
    /// its first `width` bits alone, which are looked at. None if there are too
    /// many to be told.
    pub fn intervals(&self, set: Ref, field: Field, width: u32) -> Option<Vec<(u128, u128)>> {
        let mut found: Vec<(u128, u128)> = Vec::new();
        let whole = field.width();
        let mut steps = 0;
        // (diagram, bits passed, value so far), the lowest value on top.
        let mut stack = vec![(super::store::Cursor::from(set), 0_u32, 0_u128)];
        while let Some((at, depth, value)) = stack.pop() {
            steps += 1;
            if steps > INTERVAL_STEPS {
                return None;
            }
            let Some(test) = self.test(at) else {
                if !at.at.is_none() {
                    let rest = whole - depth;
                    let low = value.checked_shl(rest).unwrap_or(0);
                    let high = low | 1_u128.checked_shl(rest).map_or(u128::MAX, |n| n - 1);
                    match found.last_mut() {
                        Some(last) if last.1.checked_add(1) == Some(low) => last.1 = high,
                        _ => found.push((low, high)),
                    }
                }
                continue;
            };
            let next = test.position - field.bit(0);
            if next >= width {
                return None;
            }
            if next > depth {
                // A bit that does not matter by itself: both ways.
                stack.push((at, depth + 1, value << 1 | 1));
                stack.push((at, depth + 1, value << 1));
                continue;
            }
            let one = test.pattern >> (test.len - 1) == 1;
            let (hit, miss) = (self.pass(at, 1), test.els.into());
            let (high, low) = if one { (hit, miss) } else { (miss, hit) };
            stack.push((high, depth + 1, value << 1 | 1));
            stack.push((low, depth + 1, value << 1));
        }
        Some(found)
    }

    /// The values of a field that are both in a set and among those of
    /// `within`, as intervals; empty if all of the latter are in the set.
    fn shown(
        &mut self,
        within: Ref,
        set: Ref,
        field: Field,
        width: u32,
    ) -> Result<Option<Vec<(u128, u128)>>, Error> {
        let (start, end) = (field.bit(0), field.bit(0) + width);
        let among = self.forget(within, &|p| p < start || p >= end, true)?;
        if self.without(among, set)?.is_none() {
            // A lone protocol is worth its name.
            let all = if field == Field::Protocol { self.intervals(among, field, width) } else { None };
            return Ok(Some(all.filter(|a| matches!(a.as_slice(), [(x, y)] if x == y)).unwrap_or_default()));
        }
        let both = self.guard(set, among)?;
        Ok(self.intervals(both, field, width))
    }

    /// The widest prefix around a value that lies in a set of one field.
    fn prefix_around(
        &mut self,
        set: Ref,
        field: Field,
        width: u32,
        value: u128,
    ) -> Result<(Ref, (u128, u128)), Error> {
        let whole = field.width();
        let most = u128::MAX >> (128 - whole);
        for length in 0..=width {
            let rest = most.checked_shr(length).unwrap_or(0);
            let mask = most & !rest;
            let prefix = self.bits(field, Bits { mask, value: value & mask })?;
            if self.without(prefix, set)?.is_none() {
                return Ok((prefix, (value & mask, value & mask | rest)));
            }
        }
        Ok((self.value(field, value)?, (value, value)))
    }

    /// A set without what is not part of a header: interfaces, marks,
    /// conntrack, and what cannot be known. `some`: where it holds for some
    /// value of them; else for every one.
    ///
    /// # Errors
    /// As [`Store::or_else`].
    pub fn header_only(&mut self, set: Ref, some: bool) -> Result<Ref, Error> {
        let counted = |position: u32| {
            !is_oracle(position)
                && COUNTED.iter().any(|f| position >= f.bit(0) && position < f.bit(0) + f.width())
        };
        self.forget(set, &|p| !counted(p), some)
    }

    /// The headers of one family with some bits of a field as wanted.
    ///
    /// # Errors
    /// As [`Store::or_else`].
    pub fn family_bits(&mut self, family: Family, field: Field, bits: Bits) -> Result<Ref, Error> {
        let bits = self.bits(field, bits)?;
        let family = self.family(family)?;
        self.guard(family, bits)
    }
}

fn line_of(v6: bool, values: &[(Field, Vec<(u128, u128)>)]) -> Line {
    let of = |field: Field| {
        let found = values.iter().find(|(f, _)| *f == field).map(|(_, v)| v.as_slice()).unwrap_or_default();
        let most = if field.width() >= 128 { u128::MAX } else { (1 << field.width()) - 1 };
        // An empty list already means any.
        if found == [(0, most)] {
            &[]
        } else {
            found
        }
    };
    let octets = |field| of(field).iter().map(|(a, b)| (*a as u8, *b as u8)).collect();
    let ports =
        |field| of(field).iter().map(|(a, b)| PortRange { low: *a as u16, high: *b as u16 }).collect();
    let addresses = |field| {
        let one = |bits: u128| match v6 {
            true => IpAddr::V6(Ipv6Addr::from_bits(bits)),
            false => IpAddr::V4(Ipv4Addr::from_bits((bits >> 96) as u32)),
        };
        let list: Vec<(IpAddr, IpAddr)> = of(field).iter().map(|(a, b)| (one(*a), one(*b))).collect();
        list
    };
    Line {
        family: if v6 { Family::Ipv6 } else { Family::Ipv4 },
        src: addresses(Field::Src),
        dst: addresses(Field::Dst),
        protocol: octets(Field::Protocol),
        sport: ports(Field::Sport),
        dport: ports(Field::Dport),
        icmp_type: octets(Field::IcmpType),
        icmp_code: octets(Field::IcmpCode),
        tcp_flags: octets(Field::TcpFlags),
        sctp_init: octets(Field::SctpInit),
        tos: octets(Field::Tos),
    }
}

/// Addresses as prefixes where one or two fit, else as a range.
fn addresses(ranges: &[(IpAddr, IpAddr)]) -> String {
    let one = |(first, last): &(IpAddr, IpAddr)| {
        let prefixes: Vec<String> = match (first, last) {
            (IpAddr::V4(a), IpAddr::V4(b)) => Ipv4Subnets::new(*a, *b, 0)
                .take(3)
                .map(|n| if n.prefix_len() == 32 { n.addr().to_string() } else { n.to_string() })
                .collect(),
            (IpAddr::V6(a), IpAddr::V6(b)) => Ipv6Subnets::new(*a, *b, 0)
                .take(3)
                .map(|n| if n.prefix_len() == 128 { n.addr().to_string() } else { n.to_string() })
                .collect(),
            _ => Vec::new(),
        };
        match prefixes.len() {
            1 | 2 => prefixes.join(","),
            _ => format!("{first}-{last}"),
        }
    };
    match ranges {
        [] => "any".to_owned(),
        ranges => ranges.iter().map(one).collect::<Vec<_>>().join(","),
    }
}

fn numbers<T: PartialEq + fmt::Display>(ranges: impl Iterator<Item = (T, T)>) -> String {
    ranges.map(|(a, b)| if a == b { a.to_string() } else { format!("{a}-{b}") }).collect::<Vec<_>>().join(",")
}

fn protocol_name(number: u8) -> String {
    match number {
        1 => "icmp".into(),
        6 => "tcp".into(),
        17 => "udp".into(),
        47 => "gre".into(),
        50 => "esp".into(),
        51 => "ah".into(),
        58 => "icmpv6".into(),
        132 => "sctp".into(),
        other => other.to_string(),
    }
}

fn flags(octet: u8) -> String {
    match octet {
        0 => "none".to_owned(),
        _ if octet & 0x3f == octet => TcpFlags(octet).to_string().replace(',', "+"),
        _ => format!("{octet:#04x}"),
    }
}

impl fmt::Display for Line {
    /// `tcp 10.0.0.0/8 -> 10.1.0.0/16 dport 22,80-90`; `any` where nothing is
    /// said.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let few: u32 = self.protocol.iter().map(|(a, b)| u32::from(*b) - u32::from(*a) + 1).sum();
        let protocol = match few {
            0 => match self.family {
                Family::Ipv4 => "ip".to_owned(),
                Family::Ipv6 => "ipv6".to_owned(),
            },
            1..=8 => self
                .protocol
                .iter()
                .flat_map(|(a, b)| *a..=*b)
                .map(protocol_name)
                .collect::<Vec<_>>()
                .join(","),
            _ => format!("protocol {}", numbers(self.protocol.iter().copied())),
        };
        write!(f, "{protocol} {} -> {}", addresses(&self.src), addresses(&self.dst))?;
        let ports = |list: &[PortRange]| numbers(list.iter().map(|r| (r.low, r.high)));
        if !self.sport.is_empty() {
            write!(f, " sport {}", ports(&self.sport))?;
        }
        if !self.dport.is_empty() {
            write!(f, " dport {}", ports(&self.dport))?;
        }
        if !self.icmp_type.is_empty() {
            write!(f, " type {}", numbers(self.icmp_type.iter().copied()))?;
        }
        if !self.icmp_code.is_empty() {
            write!(f, " code {}", numbers(self.icmp_code.iter().copied()))?;
        }
        match self.tcp_flags.as_slice() {
            [] => {}
            list if list.iter().all(|(a, b)| b - a < 4) && list.len() < 4 => {
                let names: Vec<String> = list.iter().flat_map(|(a, b)| *a..=*b).map(flags).collect();
                write!(f, " flags {}", names.join(","))?;
            }
            list => write!(f, " flags {}", numbers(list.iter().copied()))?,
        }
        if !self.sctp_init.is_empty() {
            write!(f, " init {}", numbers(self.sctp_init.iter().copied()))?;
        }
        if !self.tos.is_empty() {
            write!(f, " tos {}", numbers(self.tos.iter().copied()))?;
        }
        Ok(())
    }
}

impl Line {
    /// The set that the line describes.
    ///
    /// # Errors
    /// If the space's budget is used up.
    pub fn to_set(&self, space: &super::Space) -> Result<super::PacketSet, Error> {
        let mut set = space.family(self.family)?;
        let mut within = |field: Field, ranges: Vec<(u128, u128)>| -> Result<(), Error> {
            if !ranges.is_empty() {
                let mut any = space.none()?;
                for (low, high) in ranges {
                    any = any.union(&space.field(field, low, high)?)?;
                }
                set = set.intersection(&any)?;
            }
            Ok(())
        };
        let octets = |list: &[(u8, u8)]| list.iter().map(|(a, b)| ((*a).into(), (*b).into())).collect();
        let ports = |list: &[PortRange]| list.iter().map(|r| (r.low.into(), r.high.into())).collect();
        let addresses = |list: &[(IpAddr, IpAddr)]| {
            let last = |a: IpAddr| match a {
                IpAddr::V4(_) => super::build::address_bits(a) | u128::MAX >> 32,
                IpAddr::V6(_) => super::build::address_bits(a),
            };
            list.iter().map(|(a, b)| (super::build::address_bits(*a), last(*b))).collect()
        };
        within(Field::Dst, addresses(&self.dst))?;
        within(Field::Src, addresses(&self.src))?;
        within(Field::Protocol, octets(&self.protocol))?;
        within(Field::Sport, ports(&self.sport))?;
        within(Field::Dport, ports(&self.dport))?;
        within(Field::IcmpType, octets(&self.icmp_type))?;
        within(Field::IcmpCode, octets(&self.icmp_code))?;
        within(Field::TcpFlags, octets(&self.tcp_flags))?;
        within(Field::SctpInit, octets(&self.sctp_init))?;
        within(Field::Tos, octets(&self.tos))?;
        Ok(set)
    }
}
