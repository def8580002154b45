//! kube-proxy's nat table, from its text on: what a restore that changes
//! nothing takes is what we are measured by.

use std::io::Write as _;
use std::process::Command;
use std::time::{Duration, Instant};

use lab_core::addr::Family;
use lab_core::formats::iptables;
use lab_core::model::Table;

use crate::kube_proxy;
use crate::table::{time, Row};

/// The tool that reads the same text, as root, into a transaction that it
/// throws away.
const TOOL: &str = "iptables-nft-restore";

/// Reading and compiling together may take so much less than the tool.
const SHARE: u32 = 5;

/// Every row, for each number of Services.
pub fn rows() -> Vec<Row> {
    [100, 1_000, 10_000].into_iter().flat_map(rows_of).collect()
}

fn rows_of(services: u32) -> Vec<Row> {
    let text = kube_proxy::table(services);
    let size = format!("{services} Services");
    let row = |work, ours, bar, met| Row { work, size: size.clone(), ours, bar, met };
    let (taken, tables) = best_of(5, || iptables::parse("iptables.save", &text, Family::Ipv4));
    let found = tables.map(|tables| digest(&tables));
    if found != Ok(expected(services)) {
        return vec![row("read", format!("WRONG: {found:?}"), String::new(), Some(false))];
    }
    let allowed = restore(&text).map(|tool| tool / SHARE);
    let read = match &allowed {
        Ok(most) => {
            let bar = format!("{}: 1/{SHARE} of {TOOL} --test", time(*most));
            row("read", time(taken), bar, Some(taken <= *most))
        }
        Err(why) => row("read", time(taken), format!("NOT COMPARED: {why}"), None),
    };
    // What is done with the tables that were read has its rows here: to
    // compile (with reading, within `allowed`), to look up, to edit.
    vec![read]
}

/// The shortest of some runs, and what the last of them gave.
fn best_of<T>(runs: usize, mut run: impl FnMut() -> T) -> (Duration, T) {
    let mut timed = || {
        let start = Instant::now();
        let result = run();
        (start.elapsed(), result)
    };
    (1..runs).fold(timed(), |(best, _), _| {
        let (taken, result) = timed();
        (best.min(taken), result)
    })
}

/// Chains and rules.
fn digest(tables: &[Table]) -> (usize, usize) {
    let chains = || tables.iter().flat_map(|t| &t.chains);
    (chains().count(), chains().map(|c| c.rules.len()).sum())
}

/// Chains and rules of a table for so many Services.
fn expected(services: u32) -> (usize, usize) {
    let (services, endpoints) = (services as usize, kube_proxy::ENDPOINTS as usize);
    (10 + services * (1 + endpoints), 8 + services * (2 + 3 * endpoints))
}

/// What the tool takes at best; or why it cannot be asked.
fn restore(text: &str) -> Result<Duration, String> {
    let mut file = tempfile::NamedTempFile::new().map_err(|e| e.to_string())?;
    file.write_all(text.as_bytes()).map_err(|e| e.to_string())?;
    let (taken, ran) = best_of(3, || Command::new(TOOL).arg("--test").arg(file.path()).output());
    match ran {
        Err(error) => Err(format!("{TOOL}: {error}")),
        Ok(output) if output.status.success() => Ok(taken),
        Ok(output) => Err(format!("{TOOL}: {}", String::from_utf8_lossy(&output.stderr).trim())),
    }
}
