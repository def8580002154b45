//! Sets from conditions on one field.

use std::net::IpAddr;

use ipnet::IpNet;

use super::{Error, Field, Ref, Store};
use crate::addr::Family;

/// Some bits of a field and what they should be: `value` under `mask`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bits {
    /// The bits looked at.
    pub mask: u128,
    /// What they should be.
    pub value: u128,
}

impl Store {
    /// Where a field has certain bits.
    ///
    /// # Errors
    /// If the store's budget is used up.
    pub fn bits(&mut self, field: Field, bits: Bits) -> Result<Ref, Error> {
        self.bits_to(field, bits, Ref::ALL, Ref::NONE)
    }

    /// `then` where a field has certain bits, else `els`; both must test later
    /// fields only.
    pub(super) fn bits_to(&mut self, field: Field, bits: Bits, then: Ref, els: Ref) -> Result<Ref, Error> {
        let mut result = then;
        let words = field.words();
        for word in (0..words).rev() {
            let shift = 32 * (words - 1 - word) as u32;
            let (mask, value) = ((bits.mask >> shift) as u32, (bits.value >> shift) as u32);
            result = self.word_to(field.word() + word, (mask, value), result, els)?;
        }
        Ok(result)
    }

    /// `then` where the bits of a word under a mask have a value, else `els`;
    /// both must test later words only.
    pub(super) fn word_to(
        &mut self,
        word: usize,
        (mask, value): (u32, u32),
        then: Ref,
        els: Ref,
    ) -> Result<Ref, Error> {
        let (mut mask, mut result) = (mask, then);
        let end = word as u32 * 32 + 32;
        // Runs of neighbouring bits, from the lowest up.
        while mask != 0 {
            let low = mask.trailing_zeros();
            let len = (mask >> low).trailing_ones();
            let pattern = value >> low & ones(len);
            result = self.run(end - low - len, len, pattern, result, els)?;
            mask &= if low + len == 32 { 0 } else { !0 << (low + len) };
        }
        Ok(result)
    }

    /// Where a field has this value.
    ///
    /// # Errors
    /// If the store's budget is used up.
    pub fn value(&mut self, field: Field, value: u128) -> Result<Ref, Error> {
        let mask = if field.width() >= 128 { u128::MAX } else { (1 << field.width()) - 1 };
        self.bits(field, Bits { mask, value })
    }

    /// Where a field lies between two values, both included.
    ///
    /// # Errors
    /// If the store's budget is used up.
    pub fn range(&mut self, field: Field, low: u128, high: u128) -> Result<Ref, Error> {
        let width = field.width();
        let most = if width >= 128 { u128::MAX } else { (1 << width) - 1 };
        if low > high || low > most {
            return Ok(Ref::NONE);
        }
        let above = self.at_least(field, low)?;
        if high >= most {
            return Ok(above);
        }
        let beyond = self.at_least(field, high + 1)?;
        self.without(above, beyond)
    }

    /// Where a field is at least so much.
    fn at_least(&mut self, field: Field, low: u128) -> Result<Ref, Error> {
        let width = field.width();
        let mut result = Ref::ALL;
        for bit in (0..width).rev() {
            let position = field.bit(bit);
            let one = low >> (width - 1 - bit) & 1 == 1;
            result = if one {
                self.run(position, 1, 1, result, Ref::NONE)?
            } else {
                self.run(position, 1, 1, Ref::ALL, result)?
            };
        }
        Ok(result)
    }

    /// Where one bit is set: an unknowable condition's, or a field's.
    ///
    /// # Errors
    /// If the store's budget is used up.
    pub fn bit(&mut self, position: u32) -> Result<Ref, Error> {
        self.run(position, 1, 1, Ref::ALL, Ref::NONE)
    }

    /// Where the packet is of a family.
    ///
    /// # Errors
    /// If the store's budget is used up.
    pub fn family(&mut self, family: Family) -> Result<Ref, Error> {
        self.value(Field::Family, u128::from(family == Family::Ipv6))
    }

    /// Where an address field lies in a prefix; the field alone is looked at,
    /// not the family.
    ///
    /// # Errors
    /// If the store's budget is used up.
    pub fn in_prefix(&mut self, field: Field, net: IpNet) -> Result<Ref, Error> {
        self.bits(field, prefix_bits(net))
    }

    /// Where an address field is this address; the field alone is looked at.
    ///
    /// # Errors
    /// If the store's budget is used up.
    pub fn is_address(&mut self, field: Field, address: IpAddr) -> Result<Ref, Error> {
        self.in_prefix(field, IpNet::from(address))
    }

    /// Union of many sets, or first match of many diagrams, merged in halves.
    ///
    /// # Errors
    /// If the store's budget is used up.
    pub fn first_of(&mut self, parts: &[Ref]) -> Result<Ref, Error> {
        match parts {
            [] => Ok(Ref::NONE),
            [one] => Ok(*one),
            _ => {
                let (a, b) = parts.split_at(parts.len() / 2);
                let (a, b) = (self.first_of(a)?, self.first_of(b)?);
                self.or_else(a, b)
            }
        }
    }

    /// Where all sets hold.
    ///
    /// # Errors
    /// If the store's budget is used up.
    pub fn all_of(&mut self, parts: &[Ref]) -> Result<Ref, Error> {
        // Later fields first: each guard then only adds tests on top.
        parts.iter().rev().try_fold(Ref::ALL, |all, part| self.guard(*part, all))
    }

    /// The set or what it leaves out.
    ///
    /// # Errors
    /// If the store's budget is used up.
    pub fn invert_if(&mut self, set: Ref, invert: bool) -> Result<Ref, Error> {
        if invert {
            self.not(set)
        } else {
            Ok(set)
        }
    }
}

fn ones(len: u32) -> u32 {
    u32::MAX >> (32 - len)
}

/// An address as the bits of an address field.
pub(super) fn address_bits(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(a) => u128::from(a.to_bits()) << 96,
        IpAddr::V6(a) => a.to_bits(),
    }
}

fn prefix_bits(net: IpNet) -> Bits {
    let length = u32::from(net.prefix_len());
    let mask = if length == 0 { 0 } else { u128::MAX << (128 - length) };
    Bits { mask, value: address_bits(net.network()) & mask }
}
