//! What must hold whatever two labs look like.

use std::sync::Arc;

use lab_core::formats::command;
use lab_core::model::{Change, Host, HostChange, Lab, Origin, Rule, Statement, Target};
use lab_core::query::diff::edits::{edits, HostEdits, RuleEdit};
use lab_core::query::what_if::{undo, what_if};
use lab_core::strategies;
use proptest::prelude::*;
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};

use super::bare;

fn runner(cases: u32) -> TestRunner {
    let seed = std::env::var("LAB_SEED").ok().and_then(|v| v.parse().ok()).unwrap_or(1_u64);
    let mut bytes = [9; 32];
    bytes[..8].copy_from_slice(&seed.to_le_bytes());
    let config = Config { failure_persistence: None, cases, max_shrink_iters: 20, ..Config::default() };
    TestRunner::new_with_rng(config, TestRng::from_seed(RngAlgorithm::ChaCha, &bytes))
}

/// A host with another's rules, routes and settings, and some of its addresses.
fn dressed(host: &Host, other: &Host, addresses: bool) -> Host {
    let mut made = Host {
        routes: other.routes.clone(),
        rules: other.rules.clone(),
        sysctls: other.sysctls.clone(),
        ruleset: other.ruleset.clone(),
        ipsets: other.ipsets.clone(),
        ..host.clone()
    };
    let there = |made: &Host, device: &Option<String>| {
        device.as_ref().is_none_or(|device| made.interface(device).is_some())
    };
    let routes: Vec<_> = made.routes.clone();
    made.routes =
        routes.into_iter().filter(|r| r.next_hops.iter().all(|h| there(&made, &h.interface))).collect();
    // Settings that only one tells are no commands.
    made.sysctls.0.retain(|key, _| host.sysctls.0.contains_key(key));
    for (key, value) in &host.sysctls.0 {
        made.sysctls.0.entry(key.clone()).or_insert_with(|| value.clone());
    }
    if addresses {
        for interface in &mut made.interfaces {
            if let Some(other) = other.interface(&interface.name) {
                interface.addresses = other.addresses.clone();
            }
        }
    }
    made
}

fn alike(a: &Lab, b: &Lab, addresses: bool) -> Lab {
    let mut made = a.clone();
    for (name, host) in &a.hosts {
        if let Some(other) = b.hosts.get(name) {
            made.hosts.insert(name.clone(), Arc::new(dressed(host, other, addresses)));
        }
    }
    made
}

fn pair() -> impl Strategy<Value = (Lab, Lab)> {
    (strategies::lab(), strategies::lab(), 0..4).prop_map(|(a, b, how)| match how {
        0 => (a, b),
        1 => {
            let b = alike(&a, &b, true);
            (a, b)
        }
        _ => {
            let b = alike(&a, &b, false);
            (a, b)
        }
    })
}

/// Settings that a switch sets beside others need not have been told.
fn told_in(host: &Host, mut changed: Host) -> Host {
    changed.sysctls.0.retain(|key, _| host.sysctls.0.contains_key(key));
    changed
}

#[test]
fn edits_turn_one_lab_into_the_other() {
    let (mut whole, mut parts) = (0, 0);
    let counts = std::cell::RefCell::new((&mut whole, &mut parts));
    let law = |(a, b): (Lab, Lab)| {
        let edits = edits(&a, &b).unwrap();
        let made = match what_if(&a, &edits.changes()) {
            Ok(made) => made,
            Err(why) => return Err(TestCaseError::fail(format!("{why}\n{:#?}", edits.changes()))),
        };
        for (name, wanted) in &b.hosts {
            let Some(is) = made.host(name) else { continue };
            let (is, wanted) = (bare::host(&told_in(wanted, is.clone())), bare::host(wanted));
            prop_assert!(is.ruleset == wanted.ruleset, "{}", bare::parting(&is.ruleset, &wanted.ruleset));
            prop_assert_eq!(&is.ipsets, &wanted.ipsets);
            prop_assert_eq!(&is.rules, &wanted.rules);
            let unsaid = edits.hosts.iter().find(|h| h.host == *name).map(|h| h.unsaid.clone());
            if unsaid.clone().unwrap_or_default().is_empty() {
                prop_assert!(is == wanted, "{}", bare::parting(&is, &wanted));
                *counts.borrow_mut().0 += 1;
            } else {
                *counts.borrow_mut().1 += 1;
            }
        }
        Ok(())
    };
    runner(400).run(&pair(), law).unwrap();
    assert!(whole > 300, "{whole} hosts were said whole, {parts} in parts");
}

#[test]
fn hosts_of_one_shape_leave_nothing_unsaid() {
    let law = |(a, b): (Lab, Lab)| {
        let b = alike(&a, &b, false);
        for host in edits(&a, &b).unwrap().hosts {
            prop_assert_eq!(host.unsaid, Vec::<String>::new());
        }
        Ok(())
    };
    runner(100).run(&(strategies::lab(), strategies::lab()), law).unwrap();
}

#[test]
fn a_lab_and_itself_differ_in_nothing() {
    let law = |mut a: Lab| {
        let b = a.clone();
        for host in a.hosts.values_mut() {
            *host = Arc::new(host.as_ref().clone());
        }
        prop_assert!(edits(&a, &b).unwrap().is_empty());
        Ok(())
    };
    runner(100).run(&strategies::lab(), law).unwrap();
}

/// The length of the longest common subsequence, the plain way.
fn common(old: &[Rule], new: &[Rule]) -> usize {
    let same = |a: &Rule, b: &Rule| a.statements == b.statements && a.comment == b.comment;
    let mut row = vec![0; new.len() + 1];
    for a in old {
        let mut next = vec![0; new.len() + 1];
        for (at, b) in new.iter().enumerate() {
            next[at + 1] = if same(a, b) { row[at] + 1 } else { next[at].max(row[at + 1]) };
        }
        row = next;
    }
    row[new.len()]
}

fn steps(host: &HostEdits) -> Vec<(usize, usize)> {
    let of = |chain: &lab_core::query::diff::edits::ChainEdits| {
        let said: usize = chain
            .edits
            .iter()
            .map(|edit| match edit {
                RuleEdit::Insert { .. } | RuleEdit::Delete { .. } => 1,
                RuleEdit::Replace { .. } | RuleEdit::Move { .. } => 2,
            })
            .sum();
        (said, chain.old.len() + chain.new.len() - 2 * common(&chain.old, &chain.new))
    };
    host.chains.iter().map(of).collect()
}

#[test]
fn scripts_are_the_shortest() {
    // Few sorts of rules, so that chains hold equal ones and the same elsewhere.
    let chains = (prop::collection::vec(0..5_u8, 0..12), prop::collection::vec(0..5_u8, 0..12));
    let distinct = (
        Just((0..9_u8).collect::<Vec<_>>()).prop_shuffle(),
        Just((0..9_u8).collect::<Vec<_>>()).prop_shuffle(),
    );
    let table = |rules: &[u8]| {
        let lines: String = rules.iter().map(|n| format!("-A FORWARD -s 10.0.0.{n} -j DROP\n")).collect();
        let text = format!("*filter\n:FORWARD ACCEPT [0:0]\n{lines}COMMIT\n");
        lab_core::formats::iptables::parse("a", text, lab_core::addr::Family::Ipv4).unwrap()
    };
    let law = |(a, b): (Vec<u8>, Vec<u8>)| {
        let found = lab_core::query::diff::edits::edits_of_tables(&table(&a), &table(&b)).unwrap();
        for (said, least) in steps(&found) {
            prop_assert_eq!(said, least);
        }
        Ok(())
    };
    runner(1000).run(&chains, law).unwrap();
    runner(300).run(&distinct, law).unwrap();
}

/// A change without where its rule was read and how that was spelt.
fn plain(change: &Change) -> Change {
    let mut change = change.clone();
    match &mut change {
        Change::InsertRule { rule, .. } | Change::ReplaceRule { rule, .. } => {
            (rule.text, rule.counters, rule.origin) = ("".into(), None, Origin::default());
            rule.comment = None;
            rule.statements.sort_by_key(|s| format!("{s:?}"));
            for statement in &mut rule.statements {
                // A prefix may be written with quotes or without.
                if let Statement::Target(Target::NoEffect { options, .. }) = statement {
                    *options = options.replace('"', "");
                }
            }
        }
        Change::AddRoute(route) => {
            route.origin = Origin::default();
            route.next_hops.iter_mut().for_each(|hop| (hop.dead, hop.linkdown) = (false, false));
        }
        Change::AddPolicyRule(rule) | Change::DeletePolicyRule(rule) => rule.origin = Origin::default(),
        _ => {}
    }
    change
}

/// Whether a change is of a sort that is parsed.
fn is_parsed(change: &Change) -> bool {
    match change {
        Change::AddChain { table, .. }
        | Change::DeleteChain { table, .. }
        | Change::SetPolicy { table, .. }
        | Change::InsertRule { table, .. }
        | Change::DeleteRule { table, .. }
        | Change::ReplaceRule { table, .. } => table.xtables,
        Change::AddRoute(_)
        | Change::DeleteRoute(_)
        | Change::AddPolicyRule(_)
        | Change::DeletePolicyRule(_)
        | Change::AddAddress { .. }
        | Change::DeleteAddress { .. }
        | Change::Sysctl(..)
        | Change::Link(..) => true,
        _ => false,
    }
}

#[test]
fn every_change_can_be_taken_back_and_read_again() {
    let (mut read, mut back) = (0, 0);
    let counts = std::cell::RefCell::new((&mut read, &mut back));
    let law = |(a, b): (Lab, Lab)| {
        let mut lab = a.clone();
        for change in edits(&a, &b).unwrap().changes() {
            let host = lab.host(&change.host).unwrap();
            if let (true, Ok(text)) = (is_parsed(&change.change), command::print(host, &change.change)) {
                let parsed = command::parse(&text);
                prop_assert_eq!(parsed.map(|c| plain(&c)), Ok(plain(&change.change)), "{}", text);
                *counts.borrow_mut().0 += 1;
            }
            let next = what_if(&lab, std::slice::from_ref(&change)).unwrap();
            // Of what was not told, no command can make it untold.
            if let Ok(undone) = undo(&lab, &change) {
                let made = what_if(&next, &undone).unwrap();
                let was = bare::host(lab.host(&change.host).unwrap());
                let is = bare::host(&told_in(&was, made.host(&change.host).unwrap().clone()));
                prop_assert!(is == was, "{:?}\n{}", change.change, bare::parting(&is, &was));
                *counts.borrow_mut().1 += 1;
            }
            lab = next;
        }
        Ok(())
    };
    runner(60).run(&pair(), law).unwrap();
    assert!(read > 1000 && back > 1000, "{read} read again, {back} taken back");
}

#[test]
fn links_and_addresses_come_back_with_their_routes() {
    let law = |lab: Lab| {
        for (name, host) in &lab.hosts {
            for interface in &host.interfaces {
                let mut changes = vec![Change::Link(interface.name.clone(), !interface.up)];
                changes.extend(interface.addresses.iter().filter_map(|a| {
                    let (interface, address) = (interface.name.clone(), a.net()?);
                    Some(Change::DeleteAddress { interface, address, peer: a.peer })
                }));
                for change in changes {
                    let change = HostChange { host: name.clone(), change };
                    let changed = what_if(&lab, std::slice::from_ref(&change)).unwrap();
                    prop_assert!(changed.host(name) != lab.host(name));
                    match undo(&lab, &change) {
                        Ok(back) => {
                            let made = what_if(&changed, &back).unwrap();
                            let (is, was) = (made.host(name).unwrap(), lab.host(name).unwrap());
                            let (is, was) = (bare::host(is), bare::host(was));
                            prop_assert!(is == was, "{:?}\n{}", change, bare::parting(&is, &was));
                        }
                        Err(why) => return Err(TestCaseError::fail(format!("{change:?}: {why}"))),
                    }
                }
            }
        }
        Ok(())
    };
    runner(60).run(&strategies::lab(), law).unwrap();
}
