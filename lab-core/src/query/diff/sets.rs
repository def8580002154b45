//! How named sets of nft and IP sets differ.

use std::collections::{BTreeMap, BTreeSet};

use crate::formats::command::{declared, elements, Declared};
use crate::model::{Change, Ipset, IpsetElement, NftElement, NftSet, Table, TableId, Verdict};

/// Changes of sets: before rules, between those that go first and the others,
/// and after all rules.
#[derive(Default)]
pub(super) struct SetChanges {
    /// Sets of another sort than before: rules that name them must go first.
    pub redefined: BTreeSet<String>,
    /// Nothing stands in their way.
    pub early: Vec<Change>,
    /// When nothing names what is redefined.
    pub middle: Vec<Change>,
    /// When no rule names what goes.
    pub late: Vec<Change>,
    /// What cannot be said.
    pub unsaid: Vec<String>,
}

fn declarations(a: &NftSet, b: &NftSet) -> bool {
    match (declared(a).map(Declared::bare), declared(b).map(Declared::bare)) {
        (Some(a @ Declared::Json { .. }), Some(b @ Declared::Json { .. })) => a == b,
        (Some(a @ Declared::Text { .. }), Some(b @ Declared::Text { .. })) => a == b,
        // One form cannot be compared with the other.
        _ => a.values.is_empty() == b.values.is_empty() && a.verdicts.is_empty() == b.verdicts.is_empty(),
    }
}

type Entry<'s> = (&'s NftElement, Option<&'s NftElement>, Option<&'s Verdict>);

fn entries(set: &NftSet) -> BTreeSet<Entry<'_>> {
    let all = set.elements.iter().enumerate();
    all.map(|(at, key)| (key, set.values.get(at), set.verdicts.get(at))).collect()
}

fn with<'s>(set: &NftSet, entries: impl Iterator<Item = &'s Entry<'s>>) -> Box<NftSet> {
    let mut part = NftSet { elements: Vec::new(), values: Vec::new(), verdicts: Vec::new(), ..set.clone() };
    for (key, value, verdict) in entries {
        part.elements.push((*key).clone());
        part.values.extend(value.cloned());
        part.verdicts.extend(verdict.cloned());
    }
    Box::new(part)
}

/// What of two sets differs.
enum Differs {
    Not,
    /// The old set's elements that go, and the new one's that come.
    Elements(Box<NftSet>, Box<NftSet>),
    Whole,
}

fn compared(a: &NftSet, b: &NftSet) -> Differs {
    if a.types != b.types || a.unmodelled != b.unmodelled || !declarations(a, b) {
        return Differs::Whole;
    }
    if !a.unmodelled.is_empty() {
        let same = declared(a) == declared(b) && (declared(a).is_some() || a.text == b.text);
        return if same { Differs::Not } else { Differs::Whole };
    }
    let (old, new) = (entries(a), entries(b));
    if old == new {
        return Differs::Not;
    }
    let gone = with(a, old.difference(&new));
    let come = with(b, new.difference(&old));
    // A value that nft has no words for is known by its text alone.
    let sayable = |set: &NftSet, whole| set.elements.is_empty() || elements(set, whole).is_ok();
    let invented = a.text.is_empty() && b.text.is_empty();
    match invented || (sayable(&gone, false) && sayable(&come, true)) {
        true => Differs::Elements(gone, come),
        false => Differs::Whole,
    }
}

/// How the sets of a table differ.
pub(super) fn of_tables(id: &TableId, a: &Table, b: &Table) -> SetChanges {
    let mut changes = SetChanges::default();
    for set in &b.sets {
        let add = || Change::AddSet { table: id.clone(), set: Box::new(set.clone()) };
        let Some(old) = a.set(&set.name) else {
            changes.early.push(add());
            continue;
        };
        match compared(old, set) {
            Differs::Not => {}
            Differs::Elements(gone, come) => {
                if !gone.elements.is_empty() {
                    changes.early.push(Change::DeleteElements { table: id.clone(), set: gone });
                }
                if !come.elements.is_empty() {
                    changes.early.push(Change::AddElements { table: id.clone(), set: come });
                }
            }
            Differs::Whole => {
                changes.redefined.insert(set.name.clone());
                changes.middle.push(Change::DeleteSet { table: id.clone(), set: set.name.clone() });
                changes.middle.push(add());
            }
        }
    }
    let gone = a.sets.iter().filter(|set| b.set(&set.name).is_none());
    changes.late.extend(gone.map(|set| Change::DeleteSet { table: id.clone(), set: set.name.clone() }));
    changes
}

/// Options of a set that its kernel draws or changes by itself, each with a
/// value.
const OWN: [&str; 5] = ["hashsize", "initval", "bucketsize", "references", "revision"];
/// Options of an element that time and packets change.
const RUNNING: [&str; 3] = ["timeout", "packets", "bytes"];

fn options(text: &str, without: &[&str]) -> Vec<String> {
    let mut words = text.split_whitespace();
    let mut kept = Vec::new();
    while let Some(word) = words.next() {
        match without.contains(&word) {
            true => drop(words.next()),
            false => kept.push(word.to_owned()),
        }
    }
    kept
}

fn same_element(a: &IpsetElement, b: &IpsetElement) -> bool {
    (&a.items, a.nomatch) == (&b.items, b.nomatch)
        && (a.options == b.options || options(&a.options, &RUNNING) == options(&b.options, &RUNNING))
}

/// The part of a set's elements and members that another lacks.
fn beyond(set: &Ipset, other: &Ipset) -> Ipset {
    let mut by_items: BTreeMap<String, Vec<&IpsetElement>> = BTreeMap::new();
    let key = |e: &IpsetElement| format!("{:?}{}", e.items, if e.items.is_empty() { &e.options } else { "" });
    for element in &other.elements {
        by_items.entry(key(element)).or_default().push(element);
    }
    let lacks = |e: &&IpsetElement| {
        !by_items.get(&key(e)).is_some_and(|others| others.iter().any(|other| same_element(e, other)))
    };
    let members: Vec<(usize, &String)> =
        set.members.iter().enumerate().filter(|(_, m)| !other.members.contains(m)).collect();
    Ipset {
        elements: set.elements.iter().filter(lacks).cloned().collect(),
        member_options: members
            .iter()
            .map(|(at, _)| set.member_options.get(*at).cloned().unwrap_or_default())
            .collect(),
        members: members.into_iter().map(|(_, m)| m.clone()).collect(),
        ..set.clone()
    }
}

fn is_empty(set: &Ipset) -> bool {
    set.elements.is_empty() && set.members.is_empty()
}

/// How the IP sets of a host differ. Sets that list others are made after
/// them, and go before them.
pub(super) fn of_hosts(a: &BTreeMap<String, Ipset>, b: &BTreeMap<String, Ipset>) -> SetChanges {
    let mut changes = SetChanges::default();
    let same_sort = |a: &Ipset, b: &Ipset| {
        (&a.method, &a.fields, a.family, &a.unmodelled) == (&b.method, &b.fields, b.family, &b.unmodelled)
            && options(&a.options, &OWN) == options(&b.options, &OWN)
    };
    for (name, set) in b {
        if a.get(name).is_some_and(|old| !same_sort(old, set)) {
            changes.redefined.insert(name.clone());
        }
    }
    // What lists a set that goes for a while goes with it.
    let lists: Vec<String> = b
        .iter()
        .chain(a)
        .filter(|(_, set)| set.members.iter().any(|m| changes.redefined.contains(m)))
        .map(|(name, _)| name.clone())
        .filter(|name| a.contains_key(name) && b.contains_key(name))
        .collect();
    changes.redefined.extend(lists);

    let lists_last = |sets: &BTreeMap<String, Ipset>| {
        let mut names: Vec<String> = sets.keys().cloned().collect();
        names.sort_by_key(|name| sets.get(name).is_some_and(|s| !s.members.is_empty() || s.method == "list"));
        names
    };
    for name in lists_last(b) {
        let Some(set) = b.get(&name) else { continue };
        match a.get(&name) {
            None if set.members.iter().any(|m| changes.redefined.contains(m)) => {
                changes.middle.push(Change::CreateIpset(Box::new(set.clone())));
            }
            None => changes.early.push(Change::CreateIpset(Box::new(set.clone()))),
            Some(_) if changes.redefined.contains(&name) => {
                changes.middle.insert(0, Change::DestroyIpset(name.clone()));
                changes.middle.push(Change::CreateIpset(Box::new(set.clone())));
            }
            Some(old) => {
                let (gone, come) = (beyond(old, set), beyond(set, old));
                if !is_empty(&gone) {
                    changes.early.push(Change::DeleteIpsetElements(Box::new(gone)));
                }
                if !is_empty(&come) {
                    changes.early.push(Change::AddIpsetElements(Box::new(come)));
                }
            }
        }
    }
    let gone = lists_last(a).into_iter().rev().filter(|name| !b.contains_key(name));
    changes.late.extend(gone.map(Change::DestroyIpset));
    changes
}
