//! Laws over random labs: every packet is in the computed sets exactly as the
//! plain stepper says, chains are what their rules are, and sets obey their
//! algebra.
//!
//! `LAB_SEED` tries other labs, `LAB_LABS` says how many (2000). Of a lab that
//! breaks a law, `LAB_SHARD` and `LAB_PLACE` run it alone.

#![allow(clippy::unwrap_used, clippy::panic)]

mod agreement;
mod algebra;
mod chains;
mod differences;
mod kinds;

use lab_core::formats::iptables;
use lab_core::model::Lab;
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};

fn number(key: &str, usual: u64) -> u64 {
    std::env::var(key).ok().and_then(|v| v.parse().ok()).unwrap_or(usual)
}

fn runner(shard: u64) -> TestRunner {
    let mut seed = [7; 32];
    seed[..8].copy_from_slice(&number("LAB_SEED", 1).to_le_bytes());
    seed[8..16].copy_from_slice(&shard.to_le_bytes());
    let config = Config { failure_persistence: None, ..Config::default() };
    TestRunner::new_with_rng(config, TestRng::from_seed(RngAlgorithm::ChaCha, &seed))
}

/// The lab's rules and routes as people write them.
fn shown(lab: &Lab) -> String {
    let mut out = String::new();
    for host in lab.hosts.values() {
        out += &format!("== {} ==\n", host.name);
        for table in &host.ruleset.tables {
            if table.chains.iter().all(|c| c.rules.is_empty()) {
                out += &format!("{:?} {} {}: no rules\n", table.backend, table.family, table.name);
                continue;
            }
            if table.xtables {
                out += &format!("{:?} {}\n", table.backend, table.family);
                out += &iptables::print(std::slice::from_ref(table), false);
                continue;
            }
            for chain in &table.chains {
                out += &format!("nft {} {:?}\n", chain.name, chain.base);
                for rule in &chain.rules {
                    out += &format!("    {:?}\n", rule.statements);
                }
            }
            for set in table.sets.iter().filter(|s| !s.elements.is_empty()) {
                out +=
                    &format!("  set {} {:?} {:?} {:?}\n", set.name, set.elements, set.values, set.verdicts);
            }
        }
        for set in host.ipsets.values() {
            out += &format!("ipset {} {:?}\n", set.name, set.elements);
        }
        for rule in &host.rules {
            if ![0, 32766, 32767].contains(&rule.priority) {
                out += &format!("rule {rule:?}\n");
            }
        }
        for r in host.routes.iter().filter(|r| r.protocol != "kernel") {
            let hops: Vec<_> = r.next_hops.iter().map(|h| (h.gateway, h.interface.clone())).collect();
            out += &format!(
                "route {:?} {} table {} metric {} tos {} {hops:?}\n",
                r.kind, r.destination, r.table, r.metric, r.tos
            );
        }
        out += &format!("{:?}\n", host.sysctls.0);
    }
    out
}
