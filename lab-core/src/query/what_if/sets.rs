//! Changes of nft's named sets and of IP sets.

use super::rules::table_of;
use super::{missing, refused};
use crate::model::{
    Expression, Host, Ipset, Match, NatAddress, NftMap, NftSet, NftSetRef, Rule, Statement, TableId, Target,
};
use crate::query::Error;

fn expression_names(expression: &Expression, name: &str) -> bool {
    match expression {
        Expression::Map(key, map) => {
            expression_names(key, name) || matches!(map.as_ref(), NftMap::Named(named) if named == name)
        }
        Expression::Concat(parts) => parts.iter().any(|part| expression_names(part, name)),
        Expression::And(a, b) | Expression::Or(a, b) | Expression::Xor(a, b) => {
            expression_names(a, name) || expression_names(b, name)
        }
        Expression::ShiftLeft(inner, _) | Expression::ShiftRight(inner, _) => expression_names(inner, name),
        _ => false,
    }
}

/// Whether a rule of nft refers to a named set or map.
pub(in crate::query) fn names_set(rule: &Rule, name: &str) -> bool {
    let in_text = |text: &str| {
        let mut parts = text.split('@').skip(1);
        parts.any(|rest| {
            rest.strip_prefix(name).is_some_and(|r| !r.starts_with(|c: char| c.is_alphanumeric() || c == '_'))
        })
    };
    rule.statements.iter().any(|statement| match statement {
        Statement::Match(Match::Nft(one)) => {
            matches!(&one.right, NftSetRef::Named(named) if named == name)
                || expression_names(&one.left, name)
        }
        Statement::Target(Target::VerdictMap { key, name: named, .. }) => {
            named.as_deref() == Some(name) || expression_names(key, name)
        }
        Statement::Target(Target::Mangle(_, value)) => expression_names(value, name),
        Statement::Target(Target::Nat { range, .. }) => {
            matches!(&range.address, Some(NatAddress::Computed(value)) if expression_names(value, name))
        }
        Statement::Match(Match::Unmodelled { text, .. })
        | Statement::Target(Target::Unmodelled { text, .. } | Target::NoEffect { options: text, .. }) => {
            in_text(text)
        }
        Statement::Match(_) | Statement::Target(_) => false,
    })
}

/// Whether a rule of iptables refers to an IP set.
pub(in crate::query) fn names_ipset(rule: &Rule, name: &str) -> bool {
    let in_text = |text: &str| text.split_whitespace().any(|word| word == name);
    rule.statements.iter().any(|statement| match statement {
        Statement::Match(Match::Set { name: named, .. }) => named.value == name,
        Statement::Match(Match::Unmodelled { name: kind, text })
        | Statement::Target(Target::Unmodelled { name: kind, text }) => {
            matches!(kind.as_str(), "set" | "SET") && in_text(text)
        }
        Statement::Match(_) | Statement::Target(_) => false,
    })
}

fn set_of<'h>(host: &'h mut Host, id: &TableId, name: &str) -> Result<&'h mut NftSet, Error> {
    let host_name = host.name.clone();
    let sets = &mut table_of(host, id)?.sets;
    let found = sets.iter_mut().find(|s| s.name == name);
    found.ok_or_else(|| Error::Unfit(format!("{host_name} has no set {name} in table {id}")))
}

pub(super) fn add_set(host: &mut Host, id: &TableId, set: &NftSet) -> Result<(), Error> {
    if table_of(host, id)?.set(&set.name).is_some() {
        return Err(refused(host, format_args!("set {} is there already", set.name)));
    }
    table_of(host, id)?.sets.push(set.clone());
    Ok(())
}

pub(super) fn delete_set(host: &mut Host, id: &TableId, name: &str) -> Result<(), Error> {
    set_of(host, id, name)?;
    let table = table_of(host, id)?;
    let user = table.chains.iter().find(|c| c.rules.iter().any(|r| names_set(r, name)));
    if let Some(chain) = user.map(|c| c.name.clone()) {
        return Err(refused(host, format_args!("a rule of {chain} still asks set {name}")));
    }
    table_of(host, id)?.sets.retain(|s| s.name != name);
    Ok(())
}

pub(super) fn add_elements(host: &mut Host, id: &TableId, new: &NftSet) -> Result<(), Error> {
    let set = set_of(host, id, &new.name)?;
    if set.types != new.types {
        return Err(refused(host, format_args!("set {} is of another type", new.name)));
    }
    for (at, element) in new.elements.iter().enumerate() {
        if set.elements.contains(element) {
            continue;
        }
        set.elements.push(element.clone());
        set.values.extend(new.values.get(at).cloned());
        set.verdicts.extend(new.verdicts.get(at).cloned());
    }
    Ok(())
}

pub(super) fn delete_elements(host: &mut Host, id: &TableId, old: &NftSet) -> Result<(), Error> {
    let set = set_of(host, id, &old.name)?;
    if !old.elements.iter().all(|element| set.elements.contains(element)) {
        return Err(refused(host, format_args!("set {} lacks one of the elements", old.name)));
    }
    let kept: Vec<bool> = set.elements.iter().map(|element| !old.elements.contains(element)).collect();
    fn keep<T>(list: &mut Vec<T>, kept: &[bool]) {
        let mut kept = kept.iter();
        list.retain(|_| kept.next().copied().unwrap_or(true));
    }
    keep(&mut set.elements, &kept);
    keep(&mut set.values, &kept);
    keep(&mut set.verdicts, &kept);
    Ok(())
}

fn ipset_of<'h>(host: &'h mut Host, name: &str) -> Result<&'h mut Ipset, Error> {
    if !host.ipsets.contains_key(name) {
        return Err(missing(host, format_args!("IP set {name}")));
    }
    let host_name = host.name.clone();
    host.ipsets.get_mut(name).ok_or_else(|| Error::Unfit(format!("{host_name} has no IP set {name}")))
}

pub(super) fn create(host: &mut Host, set: &Ipset) -> Result<(), Error> {
    if host.ipsets.contains_key(&set.name) {
        return Err(refused(host, format_args!("IP set {} is there already", set.name)));
    }
    if let Some(member) = set.members.iter().find(|m| !host.ipsets.contains_key(*m)) {
        return Err(missing(host, format_args!("IP set {member}")));
    }
    host.ipsets.insert(set.name.clone(), set.clone());
    Ok(())
}

pub(super) fn destroy(host: &mut Host, name: &str) -> Result<(), Error> {
    ipset_of(host, name)?;
    let tables = host.ruleset.tables.iter().filter(|t| t.xtables);
    let mut chains = tables.flat_map(|t| &t.chains);
    let user = chains.find(|c| c.rules.iter().any(|r| names_ipset(r, name))).map(|c| c.name.to_string());
    let list = host.ipsets.values().find(|s| s.members.iter().any(|m| m == name)).map(|s| s.name.clone());
    if let Some(user) = user.or(list) {
        return Err(refused(host, format_args!("{user} still asks IP set {name}")));
    }
    host.ipsets.remove(name);
    Ok(())
}

pub(super) fn add_members(host: &mut Host, new: &Ipset) -> Result<(), Error> {
    if let Some(member) = new.members.iter().find(|m| !host.ipsets.contains_key(*m)) {
        return Err(missing(host, format_args!("IP set {member}")));
    }
    let set = ipset_of(host, &new.name)?;
    for element in &new.elements {
        // What is there already gets the new options.
        let same = |e: &&mut crate::model::IpsetElement| e.items == element.items && !e.items.is_empty();
        match set.elements.iter_mut().find(same) {
            Some(old) => *old = element.clone(),
            None => set.elements.push(element.clone()),
        }
    }
    for (at, member) in new.members.iter().enumerate() {
        if !set.members.contains(member) {
            set.members.push(member.clone());
            set.member_options.push(new.member_options.get(at).cloned().unwrap_or_default());
        }
    }
    Ok(())
}

pub(super) fn delete_members(host: &mut Host, old: &Ipset) -> Result<(), Error> {
    let set = ipset_of(host, &old.name)?;
    let same = |a: &crate::model::IpsetElement, b: &crate::model::IpsetElement| {
        a.items == b.items && (!a.items.is_empty() || a.options == b.options)
    };
    let there = old.elements.iter().all(|e| set.elements.iter().any(|own| same(own, e)))
        && old.members.iter().all(|m| set.members.contains(m));
    if !there {
        return Err(refused(host, format_args!("IP set {} lacks one of the elements", old.name)));
    }
    set.elements.retain(|own| !old.elements.iter().any(|e| same(own, e)));
    for member in &old.members {
        if let Some(at) = set.members.iter().position(|m| m == member) {
            set.members.remove(at);
            if at < set.member_options.len() {
                set.member_options.remove(at);
            }
        }
    }
    Ok(())
}
