//! The model as nft would list it.

use serde_json::{json, Map, Value};

use super::super::json::Object;
use crate::model::{Backend, BaseChain, Chain, ChainKind, Hook, Policy, Rule, Table};

pub(in crate::formats) const HOOKS: [(&str, Hook); 6] = [
    ("ingress", Hook::Ingress),
    ("prerouting", Hook::Prerouting),
    ("input", Hook::Input),
    ("forward", Hook::Forward),
    ("output", Hook::Output),
    ("postrouting", Hook::Postrouting),
];

pub(in crate::formats) const KINDS: [(&str, ChainKind); 3] =
    [("filter", ChainKind::Filter), ("nat", ChainKind::Nat), ("route", ChainKind::Route)];

fn wrap(sort: &str, object: Object) -> Value {
    let mut outer = Map::new();
    outer.insert(sort.to_owned(), Value::Object(object.0));
    Value::Object(outer)
}

fn chain(table: &Table, chain: &Chain) -> Value {
    let mut object = Object::default();
    object.set("family", table.family.to_string());
    object.set("table", table.name.clone());
    object.set("name", chain.name.as_str());
    object.count("handle", chain.handle);
    if let Some(BaseChain { kind, hook, priority, policy }) = chain.base {
        object.show("type", KINDS.iter().find(|(_, k)| *k == kind).map(|(name, _)| *name));
        object.show("hook", HOOKS.iter().find(|(_, h)| *h == hook).map(|(name, _)| *name));
        object.set("prio", priority);
        object.set("policy", if policy == Policy::Drop { "drop" } else { "accept" });
    }
    wrap("chain", object)
}

/// The expressions of a rule, the first counter with what it counted.
fn expressions(rule: &Rule) -> Value {
    let mut expressions = serde_json::from_str(&rule.text).unwrap_or_else(|_| Value::Array(Vec::new()));
    if let (Some((packets, bytes)), Some(items)) = (rule.counters, expressions.as_array_mut()) {
        let counter = items.iter_mut().find_map(|item| item.get_mut("counter").filter(|c| c.is_null()));
        if let Some(counter) = counter {
            *counter = json!({ "packets": packets, "bytes": bytes });
        }
    }
    expressions
}

fn rule(table: &Table, chain: &Chain, rule: &Rule) -> Value {
    let mut object = Object::default();
    object.set("family", table.family.to_string());
    object.set("table", table.name.clone());
    object.set("chain", chain.name.as_str());
    object.count("handle", rule.handle);
    object.show("comment", rule.comment.as_ref());
    object.set("expr", expressions(rule));
    wrap("rule", object)
}

/// Prints the native tables as `nft -j list ruleset` does, without its first
/// object (the version), one object a line. Tables and chains of which
/// something is not modelled are printed as they were read.
pub fn print(tables: &[Table]) -> String {
    let mut objects = Vec::new();
    for table in tables.iter().filter(|t| t.backend == Backend::Nft && !t.xtables) {
        let kept: Vec<Value> =
            table.unmodelled.iter().filter_map(|u| serde_json::from_str(&u.text).ok()).collect();
        let read = |sort: &str, name: &str| {
            kept.iter()
                .find(|o| o.get(sort).is_some_and(|o| o.get("name").is_some_and(|n| n == name)))
                .cloned()
        };
        objects.push(read("table", &table.name).unwrap_or_else(|| {
            let mut object = Object::default();
            object.set("family", table.family.to_string());
            object.set("name", table.name.clone());
            wrap("table", object)
        }));
        let others = kept.iter().filter(|o| o.get("table").is_none() && o.get("chain").is_none());
        objects.extend(others.cloned());
        objects.extend(table.sets.iter().filter_map(|set| serde_json::from_str(&set.text).ok()));
        for c in &table.chains {
            objects.push(read("chain", &c.name).unwrap_or_else(|| chain(table, c)));
        }
        for c in &table.chains {
            objects.extend(c.rules.iter().map(|r| rule(table, c, r)));
        }
    }
    let lines: Vec<String> = objects.iter().map(Value::to_string).collect();
    format!("{{\"nftables\": [{}]}}\n", lines.join(",\n"))
}
