//! Random labs, built for real in network namespaces: what the kernel does with
//! packets is what is predicted from the snapshot that the tools print there.
//!
//! `LAB_KERNEL_MINUTES` says how long to hunt, `LAB_KERNEL_LABS` how many labs
//! instead; `LAB_SEED` repeats a run, `LAB_KERNEL_LAB` runs one lab of it alone.
//! Where none is given, the labs are those of a seed that is known to agree.
//! `LAB_KERNEL_RECORD` names a folder to keep those labs in that agree.
//! `LAB_KERNEL_CASE` builds a kept folder once more and says how it disagrees.
//! Needs root, or user namespaces; where neither is to be had it says so and
//! tests nothing.
//!
//! With `LAB_KERNEL_VM` it runs in a virtual machine, whose kernel has every
//! device that labs are made of; most labs there have VLANs, bonds, VRFs,
//! macvlans or tunnels.

#![allow(clippy::unwrap_used, clippy::panic, missing_docs)]

mod build;
mod capture;
mod compare;
mod devices;
mod draw;
mod filter;
mod guard;
mod native;
mod peel;
mod record;
mod run;
mod shrink;
mod space;
mod sys;
mod tally;
mod vm;
mod watch;
mod wire;

use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::Mutex;
use std::time::{Duration, Instant, SystemTime};

use lab_core::model::Lab;
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};

use crate::draw::Deck;
use crate::tally::Tally;

/// A seed, and how many of its labs are known to agree.
const KNOWN: (u64, u64) = (8, 20);

/// How many disagreements are made small and kept.
const KEPT: usize = 6;

/// Labs at once for each processor: most of the time they wait.
const WAITING: usize = 3;

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

/// Runs one lab, and notes what disagrees.
fn one(deck: &Deck, seed: u64, place: u64, tally: &mut Tally, wrong: &Mutex<Vec<String>>) {
    let start = Instant::now();
    let mut runner = runner(seed, place);
    let lab = deck.lab(&mut runner);
    tally.drawing += start.elapsed();
    let keep = std::env::var_os("LAB_KERNEL_RECORD").map(|to| Path::new(&to).join(format!("{seed}-{place}")));
    let found = match run::lab(&lab, deck, &mut runner, tally, keep.as_deref()) {
        Ok(found) => found,
        Err(why) => {
            *tally.skipped.entry(why).or_default() += 1;
            return;
        }
    };
    for (number, one) in found.into_iter().enumerate() {
        let sent: Vec<String> = one
            .probes
            .iter()
            .map(|p| {
                let (length, df) = (p.packet.length, p.packet.df);
                format!("{} at {} {:?}: {} length {length} df {df}", p.id, p.at, p.how, p.packet)
            })
            .collect();
        let mut told = format!("lab {place}:\n  {}\n    {}", sent.join("\n  "), one.why);
        let keep = self::number("LAB_SHRINK") != Some(0) && wrong.lock().unwrap().len() < KEPT;
        wrong.lock().unwrap().push(told.clone());
        if keep {
            // To see whether sets alone still disagree takes every set again.
            let (small, why) = match one.sets_alone {
                true => (lab.clone(), one.why),
                false => shrink::shrink(&lab, &one.probes, one.why),
            };
            let folder = shrink::keep(&small, &one.probes, &format!("lab-kernel-{seed}-{place}-{number}"));
            told += &format!("\n  kept: {}\n    {why}", folder.display());
        }
        println!("DISAGREES: seed {seed} {told}");
    }
}

/// Sends the probes of a kept folder into the lab that it holds.
fn case(folder: &Path) {
    let lab = Lab::open(folder).expect("a folder that this test kept");
    let probes = std::fs::read_to_string(folder.join("probes.json")).expect("probes beside the lab");
    let probes =
        lab_core::formats::probes::parse("probes.json", &probes).expect("probes that this test kept");
    match run::again(&lab, &probes, None) {
        Some(why) => panic!("{why}"),
        None => println!("agrees"),
    }
}

fn main() {
    // A filter or a listing is meant for tests of the usual harness.
    if std::env::args().any(|a| a == "--list") {
        return;
    }
    if vm::wanted() {
        return vm::run();
    }
    if let Err(why) = space::allowed() {
        println!("SKIPPED: this machine lets nobody make network namespaces: {why}");
        return;
    }
    let tools = ["ip", "bridge", "sysctl", "iptables-save", "nft", "ipset"];
    let absent = |tool: &str| Command::new(tool).arg("--version").output().is_err();
    if let Some(tool) = tools.iter().find(|tool| absent(tool)) {
        println!("SKIPPED: `{tool}` is not installed, and the kernel is asked by it");
        return;
    }
    if let Some(folder) = std::env::var_os("LAB_KERNEL_CASE") {
        return case(Path::new(&folder));
    }
    let hunting = ["LAB_KERNEL_MINUTES", "LAB_KERNEL_LABS", "LAB_SEED", "LAB_KERNEL_LAB"];
    let hunting = hunting.iter().any(|key| std::env::var_os(key).is_some());
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |d| d.as_secs());
    let seed = number("LAB_SEED").unwrap_or(if hunting { now } else { KNOWN.0 });
    let minutes: f64 = number("LAB_KERNEL_MINUTES").unwrap_or(1.0);
    let labs: Option<u64> = number("LAB_KERNEL_LABS").or((!hunting).then_some(KNOWN.1));
    let only: Option<u64> = number("LAB_KERNEL_LAB");
    println!("seed {seed}");
    let start = Instant::now();
    let (tally, wrong) = (Mutex::new(Tally::default()), Mutex::new(Vec::new()));
    let next = AtomicU64::new(only.unwrap_or(0));
    let work = || {
        let (deck, mut own) = (Deck::new(vm::inside()), Tally::default());
        loop {
            let place = next.fetch_add(1, Ordering::Relaxed);
            let over = match (only, labs) {
                (Some(only), _) => place > only,
                (None, Some(labs)) => place >= labs,
                (None, None) => start.elapsed() > Duration::from_secs_f64(minutes * 60.0),
            };
            if over {
                break;
            }
            one(&deck, seed, place, &mut own, &wrong);
        }
        tally.lock().unwrap().add(own);
    };
    std::thread::scope(|scope| {
        for _ in 0..std::thread::available_parallelism().map_or(1, usize::from) * WAITING {
            scope.spawn(work);
        }
    });
    let (tally, wrong) = (tally.into_inner().unwrap(), wrong.into_inner().unwrap());
    tally.print(seed, start.elapsed());
    assert!(wrong.is_empty(), "{} disagree:\n{}", wrong.len(), wrong.join("\n"));
    if tally.packets >= MANY {
        let arrived = tally.arrived();
        assert!(arrived > 1.0 / 3.0, "only {arrived:.2} of the packets arrived or left");
        assert!(arrived < 2.0 / 3.0, "only {:.2} of the packets did not arrive", 1.0 - arrived);
        assert!(tally.crossed * 2 > tally.packets, "few packets crossed a forwarding host");
    }
}
