//! nft conditions and verdict maps for sets (`man nft`): where what an
//! expression is worth is one of some elements.

use super::value::{unknown_part, Bit, Computed};
use super::{Set, Sets, Site};
use crate::model::{Atom, Comparison, Expression, NftElement, NftMatch, NftSet, NftSetRef, Verdict};
use crate::semantics::nftexpr::bound;
use crate::space::{Error, Ref};

/// Where a verdict map gives which verdict; and where it cannot be told, and
/// why.
pub type Verdicts = (Vec<(Ref, Verdict)>, Vec<(Ref, String)>);

impl Sets {
    /// Where a value that is partly unknown may be one of some elements; all of
    /// it if it is wholly unknown.
    pub(super) fn any_element<'e>(
        &mut self,
        here: Ref,
        value: &Computed,
        elements: impl Iterator<Item = &'e NftElement>,
    ) -> Set {
        if matches!(value, Computed::Unknown(_)) {
            return Ok(here);
        }
        let mut parts = Vec::new();
        for element in elements {
            parts.push(self.element(value, element, Some(Ref::ALL))?);
        }
        let any = self.store.first_of(&parts)?;
        self.store.guard(here, any)
    }

    /// Where a value is an element; `unknown` stands for what is not known.
    pub(super) fn element(&mut self, value: &Computed, element: &NftElement, unknown: Option<Ref>) -> Set {
        let unclear = unknown.unwrap_or(Ref::NONE);
        match value {
            Computed::Unknown(_) => Ok(unclear),
            Computed::Parts(parts) if parts.len() == element.len() => {
                let mut all = Vec::new();
                for (part, atom) in parts.iter().zip(element) {
                    all.push(match part {
                        Computed::Unknown(_) => unclear,
                        known => self.atom(known, atom)?,
                    });
                }
                self.store.all_of(&all)
            }
            single => match element.as_slice() {
                [atom] => self.atom(single, atom),
                _ => Ok(Ref::NONE),
            },
        }
    }

    fn atom(&mut self, value: &Computed, atom: &Atom) -> Set {
        match (value, atom) {
            (Computed::Bits(bits), Atom::Range(low, high)) => self.between(bits, *low, *high),
            (Computed::Name(name), Atom::Name(wanted, prefix)) => {
                let holds = if *prefix { name.starts_with(wanted) } else { name == wanted };
                Ok(if holds { Ref::ALL } else { Ref::NONE })
            }
            (Computed::NameOf(field), Atom::Name(wanted, prefix)) => {
                let numbers: Vec<u32> = if *prefix {
                    self.names
                        .iter()
                        .filter(|(_, n)| n.starts_with(wanted.as_str()))
                        .map(|(i, _)| i)
                        .collect()
                } else {
                    vec![self.names.number(wanted)]
                };
                let mut parts = Vec::new();
                for number in numbers {
                    parts.push(self.store.value(*field, number.into())?);
                }
                if *prefix && wanted.is_empty() {
                    return Ok(Ref::ALL);
                }
                self.store.first_of(&parts)
            }
            _ => Ok(Ref::NONE),
        }
    }

    /// Where a row of bits is a number between two, both included.
    pub(super) fn between(&mut self, bits: &[Bit], low: u128, high: u128) -> Set {
        let above = self.at_least(bits, low)?;
        match high.checked_add(1) {
            None => Ok(above),
            Some(beyond) => {
                let beyond = self.at_least(bits, beyond)?;
                self.store.without(above, beyond)
            }
        }
    }

    fn at_least(&mut self, bits: &[Bit], low: u128) -> Set {
        if bits.len() < 128 && low >> bits.len() != 0 {
            return Ok(Ref::NONE);
        }
        let mut result = Ref::ALL;
        for (i, bit) in bits.iter().enumerate().take(128) {
            let one = self.bit_set(*bit)?;
            result = if low >> i & 1 == 1 {
                self.store.guard(one, result)?
            } else {
                self.store.or_else(one, result)?
            };
        }
        Ok(result)
    }

    fn bit_set(&mut self, bit: Bit) -> Set {
        match bit {
            Bit::Known(true) => Ok(Ref::ALL),
            Bit::Known(false) => Ok(Ref::NONE),
            Bit::Is(at) => self.store.bit(at),
            Bit::Not(at) => {
                let set = self.store.bit(at)?;
                self.store.not(set)
            }
        }
    }

    /// Where an nft condition holds.
    pub(super) fn nft(&mut self, condition: &NftMatch, at: Site) -> Set {
        // Names that a pattern may mean have numbers first.
        for interface in &at.host.interfaces {
            self.names.number(&interface.name);
        }
        let worth = self.worth(&condition.left, at)?;
        let elements = match &condition.right {
            NftSetRef::Elements(elements) => elements.as_slice(),
            NftSetRef::Named(name) => match named(at, name) {
                Ok(set) => set.elements.as_slice(),
                Err(why) => {
                    let sets: Vec<Ref> = worth.iter().map(|(set, _)| *set).collect();
                    let there = self.store.first_of(&sets)?;
                    let unknown = self.unknown(why)?;
                    return self.store.guard(there, unknown);
                }
            },
        };
        let mut result = Vec::new();
        for (here, value) in worth {
            let unknown = match unknown_part(&value) {
                Some(why) => Some(self.unknown(why)?),
                None => None,
            };
            let set = match condition.comparison {
                Comparison::Equal | Comparison::NotEqual => {
                    let mut parts = Vec::new();
                    for element in elements {
                        parts.push(self.element(&value, element, unknown)?);
                    }
                    let any = self.store.first_of(&parts)?;
                    self.store.invert_if(any, condition.comparison == Comparison::NotEqual)?
                }
                other => match (elements.first().map(Vec::as_slice), &value) {
                    (Some([Atom::Range(low, high)]), Computed::Bits(bits)) => {
                        self.ordered(bits, other, bound(other, *low, *high))?
                    }
                    (Some([Atom::Range(..)]), Computed::Unknown(_)) => unknown.unwrap_or(Ref::NONE),
                    _ => Ref::NONE,
                },
            };
            result.push(self.store.guard(here, set)?);
        }
        self.store.first_of(&result)
    }

    /// Where a row of bits stands to a number in an order, or shares bits with it.
    fn ordered(&mut self, bits: &[Bit], comparison: Comparison, right: u128) -> Set {
        match comparison {
            Comparison::Less => {
                let above = self.at_least(bits, right)?;
                self.store.not(above)
            }
            Comparison::GreaterOrEqual => self.at_least(bits, right),
            Comparison::LessOrEqual | Comparison::Greater => {
                let above = match right.checked_add(1) {
                    Some(next) => self.at_least(bits, next)?,
                    None => Ref::NONE,
                };
                self.store.invert_if(above, comparison == Comparison::LessOrEqual)
            }
            Comparison::AnyBit | Comparison::NoBit => {
                let mut any = Vec::new();
                for (_, bit) in bits.iter().enumerate().take(128).filter(|(i, _)| right >> i & 1 == 1) {
                    any.push(self.bit_set(*bit)?);
                }
                let any = self.store.first_of(&any)?;
                self.store.invert_if(any, comparison == Comparison::NoBit)
            }
            // These are asked of each element.
            Comparison::Equal | Comparison::NotEqual => Ok(Ref::NONE),
        }
    }

    /// What a verdict map says: for each verdict where its key is the first
    /// that holds, and where that is not known, with the reason.
    ///
    /// # Errors
    /// If the store's budget is used up.
    pub fn verdicts(
        &mut self,
        key: &Expression,
        elements: &[(NftElement, Verdict)],
        name: Option<&str>,
        at: Site,
    ) -> Result<Verdicts, Error> {
        for interface in &at.host.interfaces {
            self.names.number(&interface.name);
        }
        let keys = self.worth(key, at)?;
        let pairs: Vec<(&NftElement, &Verdict)> = match name {
            None => elements.iter().map(|(k, v)| (k, v)).collect(),
            Some(name) => match named(at, name) {
                Ok(set) => set.elements.iter().zip(&set.verdicts).collect(),
                Err(why) => {
                    let sets: Vec<Ref> = keys.iter().map(|(set, _)| *set).collect();
                    return Ok((Vec::new(), vec![(self.store.first_of(&sets)?, why)]));
                }
            },
        };
        let (mut found, mut unclear) = (Vec::new(), Vec::new());
        for (here, key) in keys {
            if let Some(why) = unknown_part(&key) {
                let keys = pairs.iter().map(|(element, _)| *element);
                unclear.push((self.any_element(here, &key, keys)?, why));
                continue;
            }
            for (element, verdict) in &pairs {
                let set = self.element(&key, element, None)?;
                let hit = self.store.guard(here, set)?;
                if !hit.is_none() {
                    found.push((hit, (*verdict).clone()));
                }
            }
        }
        Ok((found, unclear))
    }
}

/// A named set of a table; or why it is not known what is in it.
pub(super) fn named<'a>(at: Site<'a>, name: &str) -> Result<&'a NftSet, String> {
    match at.table.set(name) {
        None => Err(format!("set @{name} is not in the table")),
        Some(set) if !set.unmodelled.is_empty() => Err(format!("set @{name}: {}", set.unmodelled)),
        Some(set) if set.dynamic => Err(format!("set @{name} changes by itself")),
        Some(set) => Ok(set),
    }
}
