//! How many packets are in a set, and one of them.

use num_bigint::BigUint;

use super::{Field, Header, Ref, Store, WORDS};
use crate::addr::Family;

/// The fields that make up a packet's header, in the order of diagrams; a set
/// is counted by them.
pub const COUNTED: [Field; 11] = [
    Field::Family,
    Field::Dst,
    Field::Src,
    Field::Protocol,
    Field::Dport,
    Field::Sport,
    Field::IcmpType,
    Field::IcmpCode,
    Field::TcpFlags,
    Field::SctpInit,
    Field::Tos,
];

/// How many counted bits lie before a bit of the order.
fn counted_before(position: u32) -> u32 {
    COUNTED.iter().map(|field| position.saturating_sub(field.bit(0)).min(field.width())).sum()
}

impl Store {
    /// The headers that there are: fields that a packet lacks (ports of ICMP,
    /// flags of UDP, the low bits of an IPv4 address) are zero.
    ///
    /// # Errors
    /// If the store's budget is used up.
    pub fn headers(&mut self) -> Result<Ref, super::Error> {
        let zero = |store: &mut Store, fields: &[Field]| -> Result<Ref, super::Error> {
            let parts: Vec<Ref> = fields.iter().map(|f| store.value(*f, 0)).collect::<Result<_, _>>()?;
            store.all_of(&parts)
        };
        const ICMP: [Field; 2] = [Field::IcmpType, Field::IcmpCode];
        let no_icmp = zero(self, &ICMP)?;
        let no_flags = zero(self, &[Field::TcpFlags])?;
        let no_init = zero(self, &[Field::SctpInit])?;
        let no_ports = zero(self, &[Field::Dport, Field::Sport])?;
        let mut kinds = Vec::new();
        let mut named = Vec::new();
        for (protocol, lacks) in [
            (6, vec![no_icmp, no_init]),
            (17, vec![no_icmp, no_flags, no_init]),
            (132, vec![no_icmp, no_flags]),
            (1, vec![no_ports, no_flags, no_init]),
            (58, vec![no_ports, no_flags, no_init]),
        ] {
            let is = self.value(Field::Protocol, protocol)?;
            named.push(is);
            let lacks = self.all_of(&lacks)?;
            kinds.push(self.guard(is, lacks)?);
        }
        let bare = self.all_of(&[no_ports, no_icmp, no_flags, no_init])?;
        let named = self.first_of(&named)?;
        kinds.push(self.without(bare, named)?);
        let kinds = self.first_of(&kinds)?;
        let low = super::Bits { mask: u128::MAX >> 32, value: 0 };
        let v4 = self.family(Family::Ipv4)?;
        let (dst, src) = (self.bits(Field::Dst, low)?, self.bits(Field::Src, low)?);
        let short = self.all_of(&[v4, dst, src])?;
        let v6 = self.family(Family::Ipv6)?;
        let families = self.or_else(short, v6)?;
        self.guard(families, kinds)
    }

    /// How many headers a set holds. What the set says of fields that are not
    /// counted (interfaces, marks, conntrack) must be forgotten first.
    ///
    /// Cost: the size of the diagram.
    pub fn count(&self, set: Ref) -> BigUint {
        let all = counted_before(WORDS as u32 * 32);
        let mut memo = std::collections::HashMap::<Ref, BigUint, rustc_hash::FxBuildHasher>::default();
        let below = self.count_at(set, &mut memo);
        below << (all - self.free_bits(set, all))
    }

    /// How many counted bits lie at and below a diagram's first test.
    fn free_bits(&self, at: Ref, all: u32) -> u32 {
        match self.node(at).filter(|_| at.value().is_none()) {
            Some(node) => all - counted_before(node.position),
            None => 0,
        }
    }

    /// How many assignments of the counted bits at and below the first test.
    fn count_at(
        &self,
        at: Ref,
        memo: &mut std::collections::HashMap<Ref, BigUint, rustc_hash::FxBuildHasher>,
    ) -> BigUint {
        if let Some(value) = at.value() {
            return BigUint::from(u32::from(value != 0));
        }
        if let Some(found) = memo.get(&at) {
            return found.clone();
        }
        let Some(node) = self.node(at) else { return BigUint::ZERO };
        let all = counted_before(WORDS as u32 * 32);
        let here = all - counted_before(node.position);
        let after = all - counted_before(node.position + node.len);
        let then = self.count_at(node.then, memo) << (after - self.free_bits(node.then, all));
        // All ways but one of the bits tested lead to `els`.
        let full = self.count_at(node.els, memo) << (here - self.free_bits(node.els, all));
        let one = self.count_at(node.els, memo) << (after - self.free_bits(node.els, all));
        let result = then + full - one;
        memo.insert(at, result.clone());
        result
    }

    /// One header of a set: its first, where a test of bits is met before it
    /// fails.
    pub fn example(&self, set: Ref) -> Option<Header> {
        if set.is_none() {
            return None;
        }
        let mut header = Header::default();
        let mut at = set;
        loop {
            let Some(node) = self.node(at).filter(|_| at.value().is_none()) else {
                return at.value().filter(|v| *v != 0).map(|_| header);
            };
            let word = (node.position >> 5) as usize;
            let shift = 32 - (node.position & 31) - node.len;
            let value = if node.then.is_none() {
                // Any other value: the last bit turned round.
                at = node.els;
                node.pattern ^ 1
            } else {
                at = node.then;
                node.pattern
            };
            if let Some(place) = header.0.get_mut(word) {
                *place |= value << shift;
            }
        }
    }
}
