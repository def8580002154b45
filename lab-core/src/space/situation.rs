//! Sets of packets told by where they are met: what holds of interfaces,
//! connections and marks, and which headers are in the set then.

use super::count::COUNTED;
use super::store::Cursor;
use super::{is_oracle, Error, Field, Mapping, Ref, Source, Store};

/// A field that is no part of a header, and the values it may have, first and
/// last of each stretch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Condition {
    /// The field.
    pub field: Field,
    /// Its values, under the mask.
    pub values: Vec<(u128, u128)>,
    /// The bits that are looked at; none: all.
    pub mask: Option<u128>,
}

/// Where packets are met, and which.
#[derive(Clone, Debug)]
pub struct Situation {
    /// Alternatives, each of conditions that hold together; of fields that are
    /// not named, whatever they are.
    pub when: Vec<Vec<Condition>>,
    /// Whether these are all.
    pub all_told: bool,
    /// The headers that are in the set then.
    pub headers: Ref,
}

/// The alternatives that are told of one situation at most.
const ALTERNATIVES: usize = 8;

/// So many bits under a mask are told value by value.
const MASKED: u32 = 6;

fn counted(position: u32) -> bool {
    COUNTED.iter().any(|f| position >= f.bit(0) && position < f.bit(0) + f.width())
}

impl Store {
    /// A set without oracles as situations, at most `most`, and whether these
    /// are all of it. Their headers differ, and each holds in all packets that
    /// are met so.
    ///
    /// Cost: a few operations on the set for each.
    ///
    /// # Errors
    /// As [`Store::or_else`].
    pub fn situations(&mut self, set: Ref, most: usize) -> Result<(Vec<Situation>, bool), Error> {
        let mut left = set;
        let mut found = Vec::new();
        while let Some(example) = self.example(left) {
            if found.len() == most {
                return Ok((found, false));
            }
            let mut fixed = Mapping::default();
            for field in Field::ALL.iter().filter(|f| !COUNTED.contains(f)) {
                fixed.set(*field, Source::constant(*field, example.get(*field)));
            }
            let headers = self.pull_back(Ref::ALL, set, &fixed)?;
            // Where other headers are in the set, or these are not.
            let other = self.differ(set, headers, &mut |_, _| Ref::ALL)?;
            let other = self.forget(other, &counted, true)?;
            let here = self.not(other)?;
            left = self.without(left, here)?;
            let (when, all_told) = self.conditions(here)?;
            found.push(Situation { when, all_told, headers });
        }
        Ok((found, true))
    }

    /// A set that asks nothing of headers, as alternatives.
    fn conditions(&mut self, set: Ref) -> Result<(Vec<Vec<Condition>>, bool), Error> {
        let fields = self.support(set);
        let beyond = self.not(set)?;
        let mut left = set;
        let mut found = Vec::new();
        while let Some(example) = self.example(left) {
            if found.len() == ALTERNATIVES {
                return Ok((found, false));
            }
            let mut parts: Vec<Ref> =
                fields.iter().map(|f| self.value(*f, example.get(*f))).collect::<Result<_, _>>()?;
            let mut alternative = Vec::new();
            // What people read first is told as it is, the rest as widely.
            for index in (0..fields.len()).rev() {
                let field = fields[index];
                parts[index] = Ref::ALL;
                let others = self.all_of(&parts)?;
                let bad = self.guard(others, beyond)?;
                let (start, end) = (field.bit(0), field.bit(0) + field.width());
                let bad = self.forget(bad, &|p| p < start || p >= end, true)?;
                let good = self.not(bad)?;
                let mask = self.bits_of(good, field);
                let few = mask.count_ones() <= MASKED && mask & (mask + 1) != 0 && good != Ref::ALL;
                let (good, values, mask) = match self.intervals(good, field, field.width()) {
                    Some(values) if !few || values.len() == 1 => (good, values, None),
                    _ if few => (good, self.masked(good, field, mask), Some(mask)),
                    _ => {
                        let value = example.get(field);
                        (self.value(field, value)?, vec![(value, value)], None)
                    }
                };
                parts[index] = good;
                if good != Ref::ALL {
                    alternative.insert(0, Condition { field, values, mask });
                }
            }
            let line = self.all_of(&parts)?;
            left = self.without(left, line)?;
            found.push(alternative);
        }
        Ok((found, true))
    }

    /// The bits of a field that a set asks of.
    fn bits_of(&self, set: Ref, field: Field) -> u128 {
        let mut seen = std::collections::HashSet::<Ref, rustc_hash::FxBuildHasher>::default();
        let mut mask = 0;
        let mut stack = vec![set];
        let end = field.bit(0) + field.width();
        while let Some(at) = stack.pop() {
            let Some(test) = self.test(Cursor::from(at)).filter(|_| seen.insert(at)) else { continue };
            for position in test.position.max(field.bit(0))..(test.position + test.len).min(end) {
                mask |= 1_u128 << (end - 1 - position);
            }
            let passed = self.pass(Cursor::from(at), test.len);
            stack.extend([passed.at, test.els]);
        }
        mask
    }

    /// The values of a field under a mask that are in a set.
    fn masked(&self, set: Ref, field: Field, mask: u128) -> Vec<(u128, u128)> {
        let bits: Vec<u32> = (0..field.width()).filter(|bit| mask >> bit & 1 == 1).collect();
        let values = (0..1_u128 << bits.len())
            .map(|n| bits.iter().enumerate().fold(0, |v, (i, bit)| v | (n >> i & 1) << bit));
        let inside = values.filter(|value| {
            let mut header = super::Header::default();
            header.set(field, *value);
            self.lookup(set, &header) != 0
        });
        inside.map(|value| (value, value)).collect()
    }

    /// The fields that a set asks of, in their order.
    fn support(&self, set: Ref) -> Vec<Field> {
        let mut seen = std::collections::HashSet::<Ref, rustc_hash::FxBuildHasher>::default();
        let mut found = std::collections::BTreeSet::new();
        let mut stack = vec![set];
        while let Some(at) = stack.pop() {
            let Some(test) = self.test(Cursor::from(at)).filter(|_| seen.insert(at)) else { continue };
            if !is_oracle(test.position) {
                found.extend(Field::of_word((test.position >> 5) as usize));
            }
            let passed = self.pass(Cursor::from(at), test.len);
            stack.extend([passed.at, test.els]);
        }
        found.into_iter().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `-i a` or from a connection: two situations, with their own headers.
    #[test]
    fn a_set_falls_into_situations_with_one_set_of_headers_each() {
        let mut store = Store::default();
        let into = |store: &mut Store, n| store.value(Field::Iif, n).unwrap();
        let port = |store: &mut Store, n| store.value(Field::Dport, n).unwrap();
        let (a, b) = (into(&mut store, 1), into(&mut store, 2));
        let (ssh, web) = (port(&mut store, 22), port(&mut store, 80));
        let known = store.value(Field::CtState, 2).unwrap();
        let first = store.guard(a, ssh).unwrap();
        let second = store.guard(b, web).unwrap();
        let second = store.guard(known, second).unwrap();
        let set = store.or_else(first, second).unwrap();
        let (found, whole) = store.situations(set, 10).unwrap();
        assert!(whole);
        let told: Vec<_> = found.iter().map(|s| (s.when.clone(), s.headers)).collect();
        let is = |field, value: u128| Condition { field, values: vec![(value, value)], mask: None };
        let expected = [
            (vec![vec![is(Field::Iif, 2), is(Field::CtState, 2)]], web),
            (vec![vec![is(Field::Iif, 1)]], ssh),
        ];
        assert!(expected.iter().all(|one| told.contains(one)) && told.len() == 2, "{told:?}");
        // Where the headers are the same, it is one situation of two ways.
        let same = store.guard(b, ssh).unwrap();
        let same = store.guard(known, same).unwrap();
        let set = store.or_else(first, same).unwrap();
        let (found, _) = store.situations(set, 10).unwrap();
        assert_eq!((found.len(), found[0].when.len(), found[0].headers), (1, 2, ssh));
        assert!(!store.situations(set, 0).unwrap().1);
        // Bits under a mask are told value by value.
        let bit = store.bits(Field::Mark, super::super::Bits { mask: 5, value: 4 }).unwrap();
        let (found, _) = store.situations(bit, 1).unwrap();
        let masked = Condition { field: Field::Mark, values: vec![(4, 4)], mask: Some(5) };
        assert_eq!(found[0].when, [vec![masked]]);
    }
}
