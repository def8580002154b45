//! Random labs, built for real in network namespaces: what the kernel does with
//! packets is what is predicted from the snapshot that the tools print there.
//!
//! `LAB_KERNEL_MINUTES` says how long (1), `LAB_KERNEL_LABS` how many labs
//! instead; `LAB_SEED` repeats a run, `LAB_KERNEL_LAB` runs one lab of it alone.
//! Needs root, or user namespaces; where neither is to be had it says so and
//! tests nothing.

#![allow(clippy::unwrap_used, clippy::panic, missing_docs)]

mod build;
mod capture;
mod compare;
mod draw;
mod filter;
mod native;
mod run;
mod shrink;
mod space;
mod sys;
mod tally;
mod watch;
mod wire;

use std::time::{Duration, Instant, SystemTime};

use lab_core::strategies;
use proptest::strategy::{Strategy, ValueTree};
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};

use crate::tally::Tally;

/// How many disagreements are made small and kept.
const KEPT: usize = 6;

/// How many packets tell whether the mix is healthy.
const MANY: u64 = 2000;

fn number<T: std::str::FromStr>(key: &str) -> Option<T> {
    std::env::var(key).ok().and_then(|v| v.parse().ok())
}

fn runner(seed: u64, lab: u64) -> TestRunner {
    let mut bytes = [7; 32];
    bytes[..8].copy_from_slice(&seed.to_le_bytes());
    bytes[8..16].copy_from_slice(&lab.to_le_bytes());
    let config = Config { failure_persistence: None, ..Config::default() };
    TestRunner::new_with_rng(config, TestRng::from_seed(RngAlgorithm::ChaCha, &bytes))
}

fn main() {
    // A filter or a listing is meant for tests of the usual harness.
    if std::env::args().any(|a| a == "--list") {
        return;
    }
    if let Err(why) = space::allowed() {
        println!("SKIPPED: this machine lets nobody make network namespaces: {why}");
        return;
    }
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |d| d.as_secs());
    let seed = number("LAB_SEED").unwrap_or(now);
    let minutes: f64 = number("LAB_KERNEL_MINUTES").unwrap_or(1.0);
    let labs: Option<u64> = number("LAB_KERNEL_LABS");
    let only: Option<u64> = number("LAB_KERNEL_LAB");
    println!("seed {seed}");
    let start = Instant::now();
    let mut tally = Tally::default();
    let mut wrong = Vec::new();
    let mut count = 0;
    let first = only.unwrap_or(0);
    for place in first.. {
        let over = match (only, labs) {
            (Some(only), _) => place > only,
            (None, Some(labs)) => place >= labs,
            (None, None) => start.elapsed() > Duration::from_secs_f64(minutes * 60.0),
        };
        if over {
            break;
        }
        let mut runner = runner(seed, place);
        let lab = strategies::lab().new_tree(&mut runner).expect("a lab is drawn").current();
        match run::lab(&lab, &mut runner, &mut tally) {
            Err(why) => *tally.skipped.entry(why).or_default() += 1,
            Ok(found) => {
                for one in found {
                    count += 1;
                    let shown = one.probes.iter().map(|p| format!("{} at {} {:?}: {}", p.id, p.at, p.how, p.packet));
                    let sent: Vec<String> = shown.collect();
                    println!("DISAGREES: seed {seed} lab {place}\n  {}\n    {}", sent.join("\n  "), one.why);
                    if !one.sets_alone && wrong.len() < KEPT && number("LAB_SHRINK") != Some(0) {
                        let (small, why) = shrink::shrink(&lab, &one.probes, one.why);
                        let folder = shrink::keep(&small, &one.probes, &format!("lab-kernel-{seed}-{place}-{count}"));
                        println!("  made small: {}\n    {why}", folder.display());
                        wrong.push(format!("lab {place}: {}\n    {why}", folder.display()));
                    }
                }
            }
        }
    }
    tally.print(seed, start.elapsed());
    assert!(count == 0, "{count} disagree:\n{}", wrong.join("\n"));
    if tally.packets >= MANY {
        let arrived = tally.arrived();
        assert!(arrived > 1.0 / 3.0, "only {arrived:.2} of the packets arrived or left");
        assert!(arrived < 2.0 / 3.0, "only {:.2} of the packets did not arrive", 1.0 - arrived);
        assert!(tally.crossed * 2 > tally.packets, "few packets crossed a forwarding host");
    }
}
