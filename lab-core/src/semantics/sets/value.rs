//! What nft expressions are worth for sets (`man nft`).
//!
//! What an expression is worth is a list of alternatives, each with the set
//! where it is the one; where none is, the packet has no such thing and the
//! rule ends. A value is a row of bits, each known or a bit of the packet, so
//! that shifts and masks need no cases.

use super::addrtype::{OPEN, OPEN_TYPE};
use super::nft::named;
use super::routes::Route;
use super::{Sets, Site};
use crate::addr::Family;
use crate::model::{
    Atom, ConntrackState, Direction, Expression, FibResult, Hook, Host, InterfaceKind, NftElement, NftMap,
};
use crate::semantics::conntrack::TEMPLATE;
use crate::semantics::input::uses;
use crate::semantics::nftexpr::{fib_tells, TYPE_IN_VRF};
use crate::space::{ct, Error, Field, Mapping, Ref, Source};

/// One bit of a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bit {
    /// It is known.
    Known(bool),
    /// It is a bit of the packet, by its place.
    Is(u32),
    /// It is a bit of the packet turned round.
    Not(u32),
}

/// What an expression is worth where it is one thing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Computed {
    /// A number, its bits from the lowest up.
    Bits(Vec<Bit>),
    /// The interface that a field names.
    NameOf(Field),
    /// This interface name.
    Name(String),
    /// Several values side by side.
    Parts(Vec<Computed>),
    /// It depends on what is not known: the reason.
    Unknown(String),
}

/// The packet's own device, by hook.
const OWN_DEVICE: [(&[Hook], Field); 2] = [
    (&[Hook::Ingress, Hook::Prerouting, Hook::Input, Hook::Forward], Field::Iif),
    (&[Hook::Postrouting], Field::Oif),
];

/// ICMP and ICMPv6 types that open a connection, and those that answer them.
const QUERIES: [(u128, u128); 6] = [(8, 0), (13, 14), (15, 16), (17, 18), (128, 129), (139, 140)];

/// Alternatives, and where each holds.
type Worth = Vec<(Ref, Computed)>;

fn number(value: u128) -> Computed {
    let width = 128 - value.leading_zeros();
    Computed::Bits((0..width).map(|i| Bit::Known(value >> i & 1 == 1)).collect())
}

/// A field's bits, from the lowest up; of an address, its first word alone if
/// it is of IPv4.
fn bits_of(field: Field, from_high: u32, len: u32) -> Computed {
    Computed::Bits((0..len).map(|i| Bit::Is(field.bit(from_high + len - 1 - i))).collect())
}

fn whole(field: Field) -> Computed {
    bits_of(field, 0, field.width())
}

impl Computed {
    /// The number that it is, if all of its bits are known.
    pub fn known(&self) -> Option<u128> {
        let Computed::Bits(bits) = self else { return None };
        bits.iter().rev().try_fold(0_u128, |n, bit| match bit {
            Bit::Known(one) => Some((n << 1) + u128::from(*one)),
            _ => None,
        })
    }
}

/// Why a value, or some of its parts, is not known.
pub(super) fn unknown_part(value: &Computed) -> Option<String> {
    match value {
        Computed::Unknown(why) => Some(why.clone()),
        Computed::Parts(parts) => {
            let why: Vec<String> = parts.iter().filter_map(unknown_part).collect();
            (!why.is_empty()).then(|| why.join(", and "))
        }
        _ => None,
    }
}

fn both(a: &Computed, b: &Computed, then: &dyn Fn(Bit, Bit) -> Option<Bit>) -> Option<Computed> {
    match (a, b) {
        (Computed::Unknown(why), _) | (_, Computed::Unknown(why)) => Some(Computed::Unknown(why.clone())),
        (Computed::Bits(a), Computed::Bits(b)) => {
            let len = a.len().max(b.len());
            let at = |bits: &[Bit], i: usize| bits.get(i).copied().unwrap_or(Bit::Known(false));
            let bits: Option<Vec<Bit>> = (0..len).map(|i| then(at(a, i), at(b, i))).collect();
            Some(bits.map_or_else(|| Computed::Unknown("bits of two fields at once".into()), Computed::Bits))
        }
        _ => None,
    }
}

fn turned(bit: Bit) -> Bit {
    match bit {
        Bit::Known(one) => Bit::Known(!one),
        Bit::Is(at) => Bit::Not(at),
        Bit::Not(at) => Bit::Is(at),
    }
}

fn and(a: Bit, b: Bit) -> Option<Bit> {
    match (a, b) {
        (Bit::Known(false), _) | (_, Bit::Known(false)) => Some(Bit::Known(false)),
        (Bit::Known(true), other) | (other, Bit::Known(true)) => Some(other),
        (a, b) if a == b => Some(a),
        _ => None,
    }
}

fn xor(a: Bit, b: Bit) -> Option<Bit> {
    match (a, b) {
        (Bit::Known(one), other) | (other, Bit::Known(one)) => Some(if one { turned(other) } else { other }),
        (a, b) if a == b => Some(Bit::Known(false)),
        _ => None,
    }
}

fn or(a: Bit, b: Bit) -> Option<Bit> {
    and(turned(a), turned(b)).map(turned)
}

impl Sets {
    /// What an expression is worth.
    ///
    /// # Errors
    /// If the store's budget is used up.
    pub fn worth(&mut self, expression: &Expression, at: Site) -> Result<Worth, Error> {
        let all = |value: Computed| Ok(vec![(Ref::ALL, value)]);
        let of_family = |sets: &mut Sets, family, value: Computed| -> Result<Worth, Error> {
            Ok(vec![(sets.store.family(family)?, value)])
        };
        let (v4, v6) = (Family::Ipv4, Family::Ipv6);
        let dscp = || bits_of(Field::Tos, 0, 6);
        match expression {
            Expression::Iifname => all(Computed::NameOf(Field::Iif)),
            Expression::Oifname => all(Computed::NameOf(Field::Oif)),
            Expression::L4proto => all(whole(Field::Protocol)),
            Expression::Nfproto => {
                Ok(vec![(self.store.family(v4)?, number(2)), (self.store.family(v6)?, number(10))])
            }
            Expression::Mark => all(whole(Field::Mark)),
            Expression::Length => all(whole(Field::Length)),
            Expression::Pkttype => all(whole(Field::PacketType)),
            Expression::IpSource => of_family(self, v4, bits_of(Field::Src, 0, 32)),
            Expression::IpDestination => of_family(self, v4, bits_of(Field::Dst, 0, 32)),
            Expression::IpProtocol => of_family(self, v4, whole(Field::Protocol)),
            Expression::IpTtl => of_family(self, v4, whole(Field::Ttl)),
            Expression::IpDscp => of_family(self, v4, dscp()),
            Expression::IpLength => of_family(self, v4, whole(Field::Length)),
            Expression::Ip6Source => of_family(self, v6, whole(Field::Src)),
            Expression::Ip6Destination => of_family(self, v6, whole(Field::Dst)),
            Expression::Ip6NextHeader => of_family(self, v6, whole(Field::Protocol)),
            Expression::Ip6HopLimit => of_family(self, v6, whole(Field::Ttl)),
            Expression::Ip6Dscp => of_family(self, v6, dscp()),
            Expression::SourcePort(protocol) => self.port_worth(Field::Sport, *protocol),
            Expression::DestinationPort(protocol) => self.port_worth(Field::Dport, *protocol),
            Expression::TcpFlags => self.of_protocol(6, Field::TcpFlags),
            Expression::IcmpType => self.of_protocol(1, Field::IcmpType),
            Expression::IcmpCode => self.of_protocol(1, Field::IcmpCode),
            Expression::Icmp6Type => self.of_protocol(58, Field::IcmpType),
            Expression::Icmp6Code => self.of_protocol(58, Field::IcmpCode),
            Expression::EtherSource => self.mac_worth(Field::SrcMac),
            Expression::EtherDestination => self.mac_worth(Field::DstMac),
            Expression::CtState => {
                let mut worth = Vec::new();
                for (state, bit) in [
                    (ConntrackState::Invalid, 1),
                    (ConntrackState::Established, 2),
                    (ConntrackState::Related, 4),
                    (ConntrackState::New, 8),
                    (ConntrackState::Untracked, 64),
                ] {
                    worth.push((self.state(&[state].into(), at.raw)?, number(bit)));
                }
                Ok(worth)
            }
            Expression::CtStatus => {
                // In the order of enum ip_conntrack_status; of those left out a
                // lone packet's connection has none.
                let is = |bit: u32| Bit::Is(ct::place(bit));
                let bits = vec![
                    Bit::Known(false),
                    is(ct::SEEN_REPLY),
                    is(ct::ASSURED),
                    is(ct::CONFIRMED),
                    is(ct::SNAT),
                    is(ct::DNAT),
                    Bit::Known(false),
                    is(ct::SNAT_DONE),
                    is(ct::DNAT_DONE),
                ];
                Ok(vec![
                    (self.connection_known()?, Computed::Bits(bits)),
                    (self.template(at)?, Computed::Unknown(TEMPLATE.into())),
                ])
            }
            Expression::CtDirection => {
                let none =
                    self.state(&[ConntrackState::Invalid, ConntrackState::Untracked].into(), at.raw)?;
                let known = self.connection_or_template(at)?;
                let there = self.store.without(known, none)?;
                Ok(vec![(there, Computed::Bits(vec![Bit::Is(ct::place(ct::REPLY))]))])
            }
            Expression::CtMark => Ok(vec![(self.connection_or_template(at)?, whole(Field::CtMark))]),
            Expression::CtAddress(direction, destination) => {
                let field = match (direction, destination) {
                    (Direction::Original, false) => Field::OrigSrc,
                    (Direction::Original, true) => Field::OrigDst,
                    (Direction::Reply, false) => Field::ReplySrc,
                    (Direction::Reply, true) => Field::ReplyDst,
                };
                let known = self.connection_known()?;
                let (short, long) = (self.store.family(v4)?, self.store.family(v6)?);
                let (short, long) = (self.store.guard(short, known)?, self.store.guard(long, known)?);
                let template = (self.template(at)?, Computed::Unknown(TEMPLATE.into()));
                Ok(vec![(short, bits_of(field, 0, 32)), (long, whole(field)), template])
            }
            Expression::CtPort(direction, destination) => {
                let mut worth = self.ct_port(*direction, *destination)?;
                worth.push((self.template(at)?, Computed::Unknown(TEMPLATE.into())));
                Ok(worth)
            }
            Expression::Fib(FibResult::Type, words) => self.fib_type(words, at),
            Expression::Fib(result, words) => self.fib_device(*result, words, at),
            Expression::Numgen { modulus, offset, incremental } => all(match (modulus, incremental) {
                (0 | 1, _) => number((*offset).into()),
                (_, true) => Computed::Unknown(format!("a counter modulo {modulus}")),
                (_, false) => Computed::Unknown(format!("chance, one of {modulus}")),
            }),
            Expression::Constant(n) => all(number(*n)),
            Expression::Concat(parts) => {
                let mut worth: Vec<(Ref, Vec<Computed>)> = vec![(Ref::ALL, Vec::new())];
                for part in parts {
                    let of_part = self.worth(part, at)?;
                    let mut longer = Vec::new();
                    for (set, values) in &worth {
                        for (here, value) in &of_part {
                            let both = self.store.guard(*set, *here)?;
                            if !both.is_none() {
                                let mut values = values.clone();
                                values.push(value.clone());
                                longer.push((both, values));
                            }
                        }
                    }
                    worth = longer;
                }
                Ok(worth.into_iter().map(|(set, values)| (set, Computed::Parts(values))).collect())
            }
            Expression::And(a, b) => self.pairwise(a, b, at, &and),
            Expression::Or(a, b) => self.pairwise(a, b, at, &or),
            Expression::Xor(a, b) => self.pairwise(a, b, at, &xor),
            Expression::ShiftLeft(a, by) => self.shifted(a, at, i32::from(*by)),
            Expression::ShiftRight(a, by) => self.shifted(a, at, -i32::from(*by)),
            Expression::Map(key, map) => self.mapped(key, map, at),
        }
    }

    /// A port of a connection. Of a query it is the identifier, which no header
    /// here has, or type and code.
    pub(super) fn ct_port(&mut self, direction: Direction, destination: bool) -> Result<Worth, Error> {
        let field = match (direction, destination) {
            (Direction::Original, false) => Field::OrigSport,
            (Direction::Original, true) => Field::OrigDport,
            (Direction::Reply, false) => Field::ReplySport,
            (Direction::Reply, true) => Field::ReplyDport,
        };
        let known = self.connection_known()?;
        let mut worth = Vec::new();
        let mut plain = known;
        for protocol in [1, 58] {
            let here = self.store.value(Field::CtProtocol, protocol)?;
            plain = self.store.without(plain, here)?;
            let here = self.store.guard(here, known)?;
            if !destination {
                worth.push((here, Computed::Unknown("the identifier of an ICMP query".into())));
                continue;
            }
            for (query, answer) in QUERIES.iter().copied() {
                let is = self.store.value(Field::IcmpType, query)?;
                let set = self.store.guard(is, here)?;
                let kind = if direction == Direction::Original { query } else { answer };
                let mut bits = (0..8).map(|i| Bit::Is(Field::IcmpCode.bit(7 - i))).collect::<Vec<_>>();
                bits.extend((0..8).map(|i| Bit::Known(kind >> i & 1 == 1)));
                worth.push((set, Computed::Bits(bits)));
            }
        }
        worth.push((plain, whole(field)));
        Ok(worth)
    }

    fn pairwise(
        &mut self,
        a: &Expression,
        b: &Expression,
        at: Site,
        then: &dyn Fn(Bit, Bit) -> Option<Bit>,
    ) -> Result<Worth, Error> {
        let (a, b) = (self.worth(a, at)?, self.worth(b, at)?);
        let mut worth = Vec::new();
        for (here, left) in &a {
            for (there, right) in &b {
                let set = self.store.guard(*here, *there)?;
                if let Some(value) = both(left, right, then).filter(|_| !set.is_none()) {
                    worth.push((set, value));
                }
            }
        }
        Ok(worth)
    }

    fn shifted(&mut self, a: &Expression, at: Site, by: i32) -> Result<Worth, Error> {
        let mut worth = Vec::new();
        for (set, value) in self.worth(a, at)? {
            match value {
                Computed::Bits(bits) => {
                    let mut moved = vec![Bit::Known(false); by.max(0) as usize];
                    moved.extend(bits.into_iter().skip((-by).max(0) as usize));
                    moved.truncate(128);
                    worth.push((set, Computed::Bits(moved)));
                }
                Computed::Unknown(why) => worth.push((set, Computed::Unknown(why))),
                _ => {}
            }
        }
        Ok(worth)
    }

    fn of_protocol(&mut self, protocol: u8, field: Field) -> Result<Worth, Error> {
        Ok(vec![(self.store.value(Field::Protocol, protocol.into())?, whole(field))])
    }

    fn port_worth(&mut self, field: Field, protocol: Option<u8>) -> Result<Worth, Error> {
        let is = match protocol {
            Some(number) => self.store.value(Field::Protocol, number.into())?,
            None => Ref::ALL,
        };
        let with_ports = self.store.with_ports()?;
        let there = self.store.guard(is, with_ports)?;
        let rest = self.store.without(is, with_ports)?;
        let why = "header bytes of a protocol without ports".to_owned();
        Ok(vec![(there, whole(field)), (rest, Computed::Unknown(why))])
    }

    fn mac_worth(&mut self, field: Field) -> Result<Worth, Error> {
        Ok(vec![(self.store.bit(field.bit(0))?, bits_of(field, 1, 48))])
    }

    fn fib_type(&mut self, words: &[String], at: Site) -> Result<Worth, Error> {
        let has = |word: &str| words.iter().any(|w| w == word);
        let field = if has("saddr") { Field::Src } else { Field::Dst };
        let limit = match (has("iif"), has("oif")) {
            (true, _) => Some(Field::Iif),
            (_, true) => Some(Field::Oif),
            _ => None,
        };
        let types = self.by_interface(at.host, limit, &mut |sets, device| {
            let v4 = sets.address_types(at.host, field, Family::Ipv4, device)?;
            let v6 = sets.address_types(at.host, field, Family::Ipv6, device)?;
            let family = sets.store.family(Family::Ipv4)?;
            sets.store.choose(family, v4, v6)
        })?;
        let mut worth = Vec::new();
        let mut unclear = Ref::NONE;
        if limit.is_none() {
            for (hooks, own) in OWN_DEVICE {
                let here = self.at_hooks(hooks)?;
                let inside = self.in_vrf(at.host, own)?;
                let inside = self.store.guard(here, inside)?;
                unclear = self.store.or_else(unclear, inside)?;
            }
            if !unclear.is_none() {
                worth.push((unclear, Computed::Unknown(TYPE_IN_VRF.into())));
            }
        }
        for leaf in self.store.leaves(types) {
            let set = self.store.where_leaf(types, &|l| l == leaf)?;
            let set = self.store.without(set, unclear)?;
            worth.push(match Ref::leaf(leaf) {
                OPEN => (set, Computed::Unknown(OPEN_TYPE.into())),
                // ADDRESS_TYPES is in the order of the kernel's RTN_* numbers.
                _ => (set, number(u128::from(leaf - 1))),
            });
        }
        Ok(worth)
    }

    /// Where an interface is in a VRF, or one's own device.
    fn in_vrf(&mut self, host: &Host, field: Field) -> super::Set {
        let mut parts = Vec::new();
        for interface in host.interfaces.iter().filter(|i| host.vrf_of(&i.name).is_some()) {
            let number = self.names.number(&interface.name);
            parts.push(self.store.value(field, number.into())?);
        }
        self.store.first_of(&parts)
    }

    /// Where packets are at one of these hooks.
    fn at_hooks(&mut self, hooks: &[Hook]) -> super::Set {
        let mut parts = Vec::new();
        for hook in hooks {
            parts.push(self.store.value(Field::Hook, *hook as u128)?);
        }
        self.store.first_of(&parts)
    }

    fn fib_device(&mut self, result: FibResult, words: &[String], at: Site) -> Result<Worth, Error> {
        let has = |word: &str| words.iter().any(|w| w == word);
        let (asked, other) = if has("saddr") { (Field::Src, Field::Dst) } else { (Field::Dst, Field::Src) };
        let limit = match (has("iif"), has("oif")) {
            (true, _) => Some(Field::Iif),
            (_, true) => Some(Field::Oif),
            _ => None,
        };
        const UNKNOWN: u32 = (1 << 31) - 2;
        const NOTHING: u32 = (1 << 31) - 3;
        let named = |sets: &mut Sets, oif: Option<&str>, vrf: Option<&str>, device: Option<&str>| {
            let mut parts = Vec::new();
            for family in [Family::Ipv4, Family::Ipv6] {
                let mut mapping = Mapping::default();
                mapping.set(Field::Src, Source::keep(other));
                mapping.set(Field::PortsTold, Source::constant(Field::PortsTold, 0));
                if !has("mark") {
                    mapping.set(Field::Mark, Source::constant(Field::Mark, 0));
                }
                let routes = sets.asked(at.host, family, &mut mapping, asked, "lo", (oif, vrf))?;
                let Sets { store, routes: cache, names, .. } = sets;
                let named = store.map_leaves(routes, &mut |leaf| match cache.leaves.value(leaf) {
                    Some(Route::Unknown(_)) => Ref::leaf(UNKNOWN),
                    Some(Route::Found(route, hops)) if fib_tells(&at.host.routes[*route]) => {
                        let mut hops = hops.iter().map(|(r, h)| &at.host.routes[*r].next_hops[*h]);
                        let name = match device {
                            Some(device) => uses(at.host, hops, device).then_some(device),
                            None => hops.next().and_then(|h| h.interface.as_deref()),
                        };
                        name.map_or(Ref::leaf(NOTHING), |n| Ref::leaf(names.number(n)))
                    }
                    _ => Ref::leaf(NOTHING),
                })?;
                let is = sets.store.family(family)?;
                parts.push(sets.store.guard(is, named)?);
            }
            sets.store.first_of(&parts)
        };
        let mut found =
            self.by_interface(at.host, limit, &mut |sets, device| named(sets, None, device, device))?;
        let vrfs = at.host.interfaces.iter().any(|i| matches!(i.kind, InterfaceKind::Vrf(_)));
        // What reaches as far as its link is asked by the packet's device
        // (nft_fib6_flowi_init).
        let mut near = Ref::NONE;
        let output = (&[Hook::Output][..], None);
        for (hooks, own) in OWN_DEVICE.map(|(hooks, own)| (hooks, Some(own))).into_iter().chain([output]) {
            let by_own = self.by_interface(at.host, limit.or(own), &mut |sets, device| {
                named(sets, device, device, device.filter(|_| limit.is_some()))
            })?;
            let here = self.at_hooks(hooks)?;
            near = self.store.choose(here, by_own, near)?;
            // Whatever is in a VRF is asked there.
            if vrfs && limit.is_none() {
                let by_vrf =
                    self.by_interface(at.host, own, &mut |sets, device| named(sets, None, device, None))?;
                found = self.store.choose(here, by_vrf, found)?;
            }
        }
        let mut link = vec![self.prefix(asked, "fe80::/10")?];
        for flags in 0..=0xf {
            link.push(self.prefix(asked, &format!("ff{flags:x}2::/16"))?);
        }
        let link = self.store.first_of(&link)?;
        let v6 = self.store.family(Family::Ipv6)?;
        let link = self.store.guard(v6, link)?;
        found = self.store.choose(link, near, found)?;
        // What loops back has no route to look up (nft_fib_is_loopback).
        let first = self.at_hooks(&[Hook::Prerouting])?;
        // In INPUT, kernels differ (nft_fib_can_skip).
        let second = self.at_hooks(&[Hook::Input])?;
        for interface in at.host.interfaces.iter().filter(|i| i.kind == InterfaceKind::Loopback) {
            let number = self.names.number(&interface.name);
            let here = self.store.value(Field::Iif, number.into())?;
            let then = self.store.guard(second, here)?;
            found = self.store.choose(then, Ref::leaf(UNKNOWN), found)?;
            let here = self.store.guard(first, here)?;
            found = self.store.choose(here, Ref::leaf(number), found)?;
        }
        let mut worth = Vec::new();
        for leaf in self.store.leaves(found) {
            let set = self.store.where_leaf(found, &|l| l == leaf)?;
            let name = self.names.name(leaf).map(str::to_owned);
            let value = match (leaf, result) {
                (UNKNOWN, _) => Computed::Unknown("the route".into()),
                // Nothing has no name, and no number.
                (_, FibResult::Oifname) => Computed::Name(name.unwrap_or_default()),
                _ => {
                    let index = name.and_then(|n| at.host.interface(&n)).map_or(0, |i| i.index);
                    number(index.into())
                }
            };
            worth.push((set, value));
        }
        Ok(worth)
    }

    fn mapped(&mut self, key: &Expression, map: &NftMap, at: Site) -> Result<Worth, Error> {
        let keys = self.worth(key, at)?;
        let of = |element: &NftElement| -> Computed {
            let one = |atom: &Atom| match atom {
                Atom::Range(low, _) => number(*low),
                Atom::Name(name, _) => Computed::Name(name.clone()),
            };
            match element.as_slice() {
                [atom] => one(atom),
                parts => Computed::Parts(parts.iter().map(one).collect()),
            }
        };
        let pairs: Vec<(&NftElement, Computed)> = match map {
            NftMap::Elements(pairs) => pairs.iter().map(|(k, v)| (k, of(v))).collect(),
            NftMap::Named(name) => match named(at, name) {
                Ok(set) => set.elements.iter().zip(set.values.iter().map(of)).collect(),
                Err(why) => return Ok(vec![(Ref::ALL, Computed::Unknown(why))]),
            },
        };
        let mut worth = Vec::new();
        for (mut here, key) in keys {
            if let Some(why) = unknown_part(&key) {
                let keys = pairs.iter().map(|(element, _)| *element);
                worth.push((self.any_element(here, &key, keys)?, Computed::Unknown(why)));
                continue;
            }
            for (element, value) in &pairs {
                let set = self.element(&key, element, None)?;
                let hit = self.store.guard(here, set)?;
                if !hit.is_none() {
                    here = self.store.without(here, hit)?;
                    worth.push((hit, value.clone()));
                }
            }
        }
        Ok(worth)
    }
}
