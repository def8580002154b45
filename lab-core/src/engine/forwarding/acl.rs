//! Access lists and the headers they permit, as boxes of headers.
//!
//! Everything that knows how sets of headers are kept is in this file.

use std::net::Ipv4Addr;

use super::{AddressRange, Prefix};

/// Some IPv4 addresses: those that agree with an address in the bits of a
/// mask, which need not be a prefix.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Addresses {
    value: u32,
    mask: u32,
}

impl Addresses {
    /// Every address.
    pub const ANY: Addresses = Addresses { value: 0, mask: 0 };

    /// The addresses that agree with `address` in the bits set in `mask`.
    pub fn masked(address: Ipv4Addr, mask: Ipv4Addr) -> Self {
        Addresses { value: address.to_bits() & mask.to_bits(), mask: mask.to_bits() }
    }

    /// Whether an address is one of them.
    pub fn contains(self, address: Ipv4Addr) -> bool {
        address.to_bits() & self.mask == self.value
    }

    /// The address that the others agree with, other bits zero.
    pub fn address(self) -> Ipv4Addr {
        Ipv4Addr::from_bits(self.value)
    }

    /// The bits in which they agree.
    pub fn mask(self) -> Ipv4Addr {
        Ipv4Addr::from_bits(self.mask)
    }

    fn meet(self, other: Addresses) -> Option<Addresses> {
        let apart = (self.value ^ other.value) & self.mask & other.mask;
        (apart == 0).then_some(Addresses { value: self.value | other.value, mask: self.mask | other.mask })
    }
}

impl From<Prefix> for Addresses {
    fn from(prefix: Prefix) -> Self {
        let range = prefix.range();
        Addresses { value: range.first, mask: !(range.first ^ range.last) }
    }
}

/// Headers whose every field is in a set of its own. Ranges include both ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Headers {
    /// IP protocol numbers.
    pub protocol: (u8, u8),
    /// Source addresses.
    pub source: Addresses,
    /// Source ports.
    pub source_port: (u16, u16),
    /// Destination addresses.
    pub destination: Addresses,
    /// Destination ports.
    pub destination_port: (u16, u16),
}

/// The fields of one packet that access lists look at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Header {
    /// IP protocol number.
    pub protocol: u8,
    /// Source address.
    pub source: Ipv4Addr,
    /// Source port.
    pub source_port: u16,
    /// Destination address.
    pub destination: Ipv4Addr,
    /// Destination port.
    pub destination_port: u16,
}

fn within<T: PartialOrd>(value: T, range: (T, T)) -> bool {
    range.0 <= value && value <= range.1
}

fn meet<T: Ord + Copy>(a: (T, T), b: (T, T)) -> Option<(T, T)> {
    let both = (a.0.max(b.0), a.1.min(b.1));
    (both.0 <= both.1).then_some(both)
}

impl Headers {
    /// Every header.
    pub const ALL: Headers = Headers {
        protocol: (0, u8::MAX),
        source: Addresses::ANY,
        source_port: (0, u16::MAX),
        destination: Addresses::ANY,
        destination_port: (0, u16::MAX),
    };

    /// Whether a packet's header is one of them.
    pub fn contains(&self, header: &Header) -> bool {
        within(header.protocol, self.protocol)
            && self.source.contains(header.source)
            && within(header.source_port, self.source_port)
            && self.destination.contains(header.destination)
            && within(header.destination_port, self.destination_port)
    }

    /// The lowest of them.
    fn first(&self) -> Header {
        Header {
            protocol: self.protocol.0,
            source: self.source.address(),
            source_port: self.source_port.0,
            destination: self.destination.address(),
            destination_port: self.destination_port.0,
        }
    }

    fn meet(&self, other: &Headers) -> Option<Headers> {
        Some(Headers {
            destination: self.destination.meet(other.destination)?,
            source: self.source.meet(other.source)?,
            protocol: meet(self.protocol, other.protocol)?,
            source_port: meet(self.source_port, other.source_port)?,
            destination_port: meet(self.destination_port, other.destination_port)?,
        })
    }

    /// Those that are not in `part`, which is a part of them, in pieces that
    /// do not overlap.
    fn without(mut self, part: &Headers, pieces: &mut Vec<Headers>) {
        for (low, high) in outside(self.protocol, part.protocol) {
            pieces.push(Headers { protocol: (low, high), ..self });
        }
        self.protocol = part.protocol;
        for (low, high) in outside(self.source_port, part.source_port) {
            pieces.push(Headers { source_port: (low, high), ..self });
        }
        self.source_port = part.source_port;
        for (low, high) in outside(self.destination_port, part.destination_port) {
            pieces.push(Headers { destination_port: (low, high), ..self });
        }
        self.destination_port = part.destination_port;
        for rest in apart(self.source, part.source) {
            pieces.push(Headers { source: rest, ..self });
        }
        self.source = part.source;
        for rest in apart(self.destination, part.destination) {
            pieces.push(Headers { destination: rest, ..self });
        }
    }
}

/// What is in `whole` on either side of `part`.
fn outside<T: Copy + Ord + Step>(whole: (T, T), part: (T, T)) -> impl Iterator<Item = (T, T)> {
    let low = (whole.0 < part.0).then(|| (whole.0, part.0.down()));
    let high = (part.1 < whole.1).then(|| (part.1.up(), whole.1));
    low.into_iter().chain(high)
}

/// A number with neighbours.
trait Step {
    /// The number above; there is one.
    fn up(self) -> Self;
    /// The number below; there is one.
    fn down(self) -> Self;
}

impl Step for u8 {
    fn up(self) -> u8 {
        self.wrapping_add(1)
    }
    fn down(self) -> u8 {
        self.wrapping_sub(1)
    }
}

impl Step for u16 {
    fn up(self) -> u16 {
        self.wrapping_add(1)
    }
    fn down(self) -> u16 {
        self.wrapping_sub(1)
    }
}

/// What is in `whole` and not in `part`, a piece for each bit that only `part`
/// cares for.
fn apart(whole: Addresses, part: Addresses) -> impl Iterator<Item = Addresses> {
    let Addresses { mut value, mut mask } = whole;
    let mut left = part.mask & !whole.mask;
    std::iter::from_fn(move || {
        if left == 0 {
            return None;
        }
        let bit = 1 << (31 - left.leading_zeros());
        left &= !bit;
        mask |= bit;
        let piece = Addresses { value: value + (bit & !part.value), mask };
        value |= part.value & bit;
        Some(piece)
    })
}

/// A rule of an access list.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AclRule {
    /// Rules are tried from the highest priority down; of equals, the newest
    /// first.
    pub priority: u32,
    /// Whether what matches passes.
    pub permit: bool,
    /// What matches.
    pub headers: Headers,
}

/// An access list: the first rule that matches decides; what none matches is
/// denied.
#[derive(Clone, Debug, Default)]
pub(super) struct Acl {
    rules: Vec<AclRule>,
}

impl Acl {
    pub fn insert(&mut self, rule: AclRule) {
        let at = self.rules.partition_point(|r| r.priority > rule.priority);
        self.rules.insert(at, rule);
    }

    /// False if there is no such rule.
    pub fn remove(&mut self, rule: &AclRule) -> bool {
        let at = self.rules.iter().position(|r| r == rule);
        at.map(|at| self.rules.remove(at)).is_some()
    }

    pub fn permits(&self, header: &Header) -> bool {
        self.rules.iter().find(|r| r.headers.contains(header)).is_some_and(|r| r.permit)
    }

    /// Gives what the list permits of some headers to `each`, in pieces that
    /// do not overlap, until it has had enough.
    fn permitted(&self, headers: Headers, each: &mut dyn FnMut(Headers) -> bool) -> bool {
        let concerns = |r: &AclRule| r.headers.meet(&headers).is_some();
        // What comes after the last rule that permits is denied anyway.
        let mut permits = self.rules.iter().enumerate().filter(|(_, r)| r.permit);
        let Some((last, _)) = permits.rfind(|(_, r)| concerns(r)) else { return false };
        let (mut left, mut next) = (vec![headers], Vec::new());
        for rule in self.rules[..=last].iter().filter(|r| concerns(r)) {
            for piece in left.drain(..) {
                let Some(both) = rule.headers.meet(&piece) else {
                    next.push(piece);
                    continue;
                };
                if rule.permit && each(both) {
                    return true;
                }
                piece.without(&both, &mut next);
            }
            std::mem::swap(&mut left, &mut next);
            if left.is_empty() {
                break;
            }
        }
        false
    }
}

/// Gives the headers to `each` that go to a range and that all the lists
/// permit, until it has had enough.
fn through(lists: &[Acl], acls: &[u32], headers: Headers, each: &mut dyn FnMut(Headers) -> bool) -> bool {
    match acls.split_first() {
        None => each(headers),
        Some((acl, rest)) => {
            lists[*acl as usize].permitted(headers, &mut |some| through(lists, rest, some, each))
        }
    }
}

/// A header that goes to a range, is one of `within`, and that all the lists
/// permit. `like` is tried first, with a destination in the range.
///
/// Costs time in proportion to the rules that concern the range; at worst to
/// the product of the lists' rules that permit, and exponential in the rules
/// that deny where they leave next to nothing.
pub(super) fn witness(
    lists: &[Acl],
    acls: &[u32],
    range: AddressRange,
    within: &Headers,
    like: Option<Header>,
) -> Option<Header> {
    if let Some(like) = like {
        let near = Header { destination: Ipv4Addr::from_bits(range.first), ..like };
        if within.contains(&near) && acls.iter().all(|acl| lists[*acl as usize].permits(&near)) {
            return Some(near);
        }
    }
    let all = range.prefixes().map(|prefix| Headers { destination: prefix.into(), ..Headers::ALL });
    all.filter_map(|all| all.meet(within)).find_map(|some| permitted_by_all(lists, acls, some, &mut vec![]))
}

/// One of some headers that all the lists permit and that none of `denied` is.
///
/// For each list a rule that permits is tried; what that list denies before it
/// is to be kept clear of. What it permits before it need not be.
fn permitted_by_all<'a>(
    lists: &'a [Acl],
    acls: &[u32],
    headers: Headers,
    denied: &mut Vec<&'a Headers>,
) -> Option<Header> {
    let Some((acl, rest)) = acls.split_first() else { return clear_of(headers, denied) };
    let before = denied.len();
    let mut found = None;
    for rule in &lists[*acl as usize].rules {
        let Some(both) = rule.headers.meet(&headers) else { continue };
        if rule.permit {
            found = permitted_by_all(lists, rest, both, denied);
        } else {
            denied.push(&rule.headers);
        }
        if found.is_some() || both == headers {
            break; // No later rule has a say.
        }
    }
    denied.truncate(before);
    found
}

/// One of some headers that is in none of the boxes.
fn clear_of(headers: Headers, boxes: &[&Headers]) -> Option<Header> {
    let mut left = boxes;
    loop {
        let Some((one, rest)) = left.split_first() else { return Some(headers.first()) };
        left = rest;
        if let Some(both) = one.meet(&headers) {
            let mut pieces = Vec::new();
            headers.without(&both, &mut pieces);
            return pieces.into_iter().find_map(|piece| clear_of(piece, rest));
        }
    }
}

/// All headers that go to a range and that all the lists permit, in pieces
/// that do not overlap.
pub(super) fn headers(lists: &[Acl], acls: &[u32], range: AddressRange) -> Vec<Headers> {
    let mut found = Vec::new();
    for prefix in range.prefixes() {
        let all = Headers { destination: prefix.into(), ..Headers::ALL };
        through(lists, acls, all, &mut |headers| {
            found.push(headers);
            false
        });
    }
    found
}
