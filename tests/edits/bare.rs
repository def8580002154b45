//! Labs without what edits do not speak of.

use lab_core::model::{Host, NftSet, Origin, Rule, Table};

fn rule(rule: &mut Rule) {
    // The text of a rule that says more than it keeps is compared; how others
    // are spelt is not.
    let says_more = format!("{:?}", rule.statements).contains("Limit {");
    if !says_more {
        rule.text = "".into();
    }
    (rule.counters, rule.handle, rule.origin) = (None, None, Origin::default());
}

fn set(set: &mut NftSet) {
    let entries = set.elements.iter().enumerate();
    let mut entries: Vec<_> = entries
        .map(|(at, e)| (e.clone(), set.values.get(at).cloned(), set.verdicts.get(at).cloned()))
        .collect();
    entries.sort();
    set.elements = entries.iter().map(|e| e.0.clone()).collect();
    set.values = entries.iter().filter_map(|e| e.1.clone()).collect();
    set.verdicts = entries.iter().filter_map(|e| e.2.clone()).collect();
    set.text = String::new();
}

pub fn tables(tables: &mut Vec<Table>) {
    tables.sort_by_key(|t| (t.backend, t.family, t.name.clone(), t.xtables));
    for table in tables {
        table.origin = Origin::default();
        table.chains.sort_by_key(|c| c.name.clone());
        table.sets.sort_by_key(|s| s.name.clone());
        table.sets.iter_mut().for_each(set);
        for chain in &mut table.chains {
            (chain.counters, chain.handle, chain.origin) = (None, None, Origin::default());
            chain.rules.iter_mut().for_each(rule);
        }
    }
}

/// A host with only what edits say, in an order of its own.
pub fn host(host: &Host) -> Host {
    let mut host = host.clone();
    tables(&mut host.ruleset.tables);
    for route in &mut host.routes {
        route.origin = Origin::default();
    }
    host.routes.sort_by_key(|r| format!("{r:?}"));
    for rule in &mut host.rules {
        rule.origin = Origin::default();
    }
    host.rules.sort_by_key(|r| (r.family, r.priority));
    for set in host.ipsets.values_mut() {
        set.elements.sort_by_key(|e| format!("{e:?}"));
        set.origin = Origin::default();
    }
    host
}

/// Where two values part, as lines of what is shown of them.
pub fn parting<T: std::fmt::Debug>(a: &T, b: &T) -> String {
    let (a, b) = (format!("{a:#?}"), format!("{b:#?}"));
    let diff = similar::TextDiff::from_lines(&a, &b);
    let text = diff.unified_diff().context_radius(12).to_string();
    text.chars().take(4000).collect()
}
