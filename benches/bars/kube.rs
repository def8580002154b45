//! kube-proxy's nat table, from its text on: what a restore that changes
//! nothing takes is what we are measured by.

use std::io::Write as _;
use std::process::Command;
use std::time::{Duration, Instant};

use lab_core::addr::Family;
use lab_core::engine::symbolic::{End, TableDiagrams};
use lab_core::formats::iptables;
use lab_core::model::{Host, Rule, Table};
use lab_core::space::{Field, Header};

use crate::kube_proxy;
use crate::table::{quantile, time, Row};

/// The tool that reads the same text, as root, into a transaction that it
/// throws away.
const TOOL: &str = "iptables-nft-restore";

/// Reading and compiling together may take so much less than the tool.
const SHARE: u32 = 5;

/// Every row, for each number of Services.
pub fn rows() -> Vec<Row> {
    let mut before = None;
    let mut rows = Vec::new();
    for services in [100, 1_000, 10_000] {
        rows.extend(rows_of(services, &mut before));
    }
    rows
}

/// What may be resident when the largest table is read and compiled.
const MEMORY: u64 = 1 << 30;

/// The option that makes this program read and compile one table, and tell
/// what that took of memory.
pub const ALONE: &str = "--kube-alone=";

fn rows_of(services: u32, before: &mut Option<Duration>) -> Vec<Row> {
    let text = kube_proxy::table(services);
    let size = format!("{services} Services");
    // The bars are those of the largest table; the others show the growth.
    let row = |work, ours: String, bar, met: Option<bool>| {
        let judged = services >= 10_000 || ours.starts_with("WRONG");
        let (bar, met) = if judged { (bar, met) } else { (String::new(), None) };
        Row { work, size: size.clone(), ours, bar, met }
    };
    let host = Host::default();
    let (reading, tables) = best_of(5, || iptables::parse("iptables.save", &text, Family::Ipv4));
    let tables = match tables {
        Ok(tables) if digest(&tables) == expected(services) => tables,
        found => {
            let found = found.map(|tables| digest(&tables));
            return vec![row("read", format!("WRONG: {found:?}"), String::new(), Some(false))];
        }
    };
    let (compiling, diagrams) = best_of(5, || TableDiagrams::new(&host, &tables[0]));
    let mut diagrams = match diagrams.map_err(|e| e.to_string()).and_then(|d| {
        all_answers(services, &tables[0], &d)?;
        Ok(d)
    }) {
        Ok(diagrams) => diagrams,
        Err(why) => return vec![row("compile", format!("WRONG: {why}"), String::new(), Some(false))],
    };
    let mut rows = vec![row("read", time(reading), String::new(), None)];
    let both = reading + compiling;
    let ours = format!("{} + {}, {} nodes", time(reading), time(compiling), diagrams.nodes());
    rows.push(match restore(&text) {
        Ok(tool) => {
            let bar = format!("{}: 1/{SHARE} of {TOOL} --test", time(tool / SHARE));
            row("read and compile", ours, bar, Some(both <= tool / SHARE))
        }
        Err(why) => row("read and compile", ours, format!("NOT COMPARED: {why}"), None),
    });
    if services >= 10_000 {
        let met = memory_alone(services).map(|bytes| (bytes, bytes <= MEMORY));
        let (ours, met) = match met {
            Ok((bytes, met)) => (format!("{} MB", bytes >> 20), Some(met)),
            Err(why) => (format!("NOT MEASURED: {why}"), None),
        };
        rows.push(row("resident at most", ours, "1 GB".into(), met));
    }
    // What compiling leaves behind only stands in the way.
    let start = Instant::now();
    diagrams.collect();
    let collecting = start.elapsed();
    let asked = packets(services);
    let (taken, _) = best_of(20, || {
        asked.iter().map(|header| diagrams.lookup(PREROUTING, header).rule.map_or(0, |id| id.0)).max()
    });
    let each = taken / asked.len() as u32;
    let most = Duration::from_nanos(500).min(before.map_or(Duration::MAX, |b| b * 2));
    let ours = format!("{}, after collecting in {}", time(each), time(collecting));
    rows.push(row("look up", ours, time(most), Some(each <= most)));
    *before = Some(each);
    rows.extend(edits(services, &tables[0], diagrams, &row));
    rows
}

/// The chain that packets from pods and elsewhere go through.
const PREROUTING: usize = 0;

/// A packet to a Service or beside it, from a pod or elsewhere.
fn packet(src: u32, dst: u32, dport: u16) -> Header {
    let mut header = Header::default();
    header.set(Field::CtState, 1);
    header.set(Field::Src, u128::from(src) << 96);
    header.set(Field::Dst, u128::from(dst) << 96);
    header.set(Field::Protocol, 6);
    header.set(Field::Dport, dport.into());
    header.set(Field::Sport, 40_000);
    header
}

/// Numbers that look random.
fn numbers(seed: u64) -> impl FnMut() -> u64 {
    let mut state = seed;
    move || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        state >> 33
    }
}

/// Packets to Services, one in eight beside them.
fn packets(services: u32) -> Vec<Header> {
    let mut number = numbers(1);
    let mut one = || {
        let (to, from) = (number() as u32 % services, number() as u32 % services);
        let src = kube_proxy::endpoint(from, number() as u32 % kube_proxy::ENDPOINTS).to_bits();
        match number() % 8 {
            0 => packet(src, kube_proxy::service(to + services).to_bits(), 80),
            _ => packet(src, kube_proxy::service(to).to_bits(), 80),
        }
    };
    (0..20_000).map(|_| one()).collect()
}

/// Checks where each Service's packets go, and that others go nowhere.
fn all_answers(services: u32, table: &Table, diagrams: &TableDiagrams) -> Result<(), String> {
    const MARKED: (u32, u32) = (0x4000, 0);
    for s in 0..services {
        // Chance is taken to have turned down all endpoints but the last.
        let last = kube_proxy::ENDPOINTS - 1;
        let pod = kube_proxy::endpoint(s, last);
        let dst = kube_proxy::service(s).to_bits();
        for (src, marks) in
            [(pod.to_bits(), MARKED), (kube_proxy::endpoint(s, 0).to_bits(), (0, 0)), (0xc0a8_0001, MARKED)]
        {
            let found = diagrams.lookup(PREROUTING, &packet(src, dst, 80));
            let place = found.rule.and_then(|id| diagrams.place(id));
            let (chain, number) = place.ok_or("no rule")?;
            let chain = &table.chains[chain].name;
            let to = match found.end {
                End::Nat(nat) => nat.addresses,
                _ => None,
            };
            let right = *chain == *format!("KUBE-SEP-{s:012X}{last:04X}") && number == Some(2);
            if !right || to != Some((pod.into(), pod.into())) || found.effects.marks(0, 0) != marks {
                return Err(format!("Service {s}: {chain} {number:?} {found:?}"));
            }
        }
        for (dst, port) in [(dst, 81), (kube_proxy::service(s + services).to_bits(), 80)] {
            let found = diagrams.lookup(PREROUTING, &packet(pod.to_bits(), dst, port));
            if found.rule.and_then(|id| diagrams.place(id)) != Some((PREROUTING, None)) {
                return Err(format!("beside Service {s}: {found:?}"));
            }
        }
    }
    Ok(())
}

/// How many edits, each undone at once.
const EDITS: usize = 10_000;

/// Edits of the chain that every packet goes through.
fn edits(
    services: u32,
    table: &Table,
    mut diagrams: TableDiagrams,
    row: &dyn Fn(&'static str, String, String, Option<bool>) -> Row,
) -> Vec<Row> {
    let wrong = |work, why: String| vec![row(work, format!("WRONG: {why}"), String::new(), Some(false))];
    let chain = table.chains.iter().position(|c| c.name == "KUBE-SERVICES").unwrap_or(0);
    let rules = match new_rules(services) {
        Ok(rules) => rules,
        Err(why) => return wrong("insert a rule", why),
    };
    diagrams.collect();
    let start = diagrams.nodes();
    let (mut inserting, mut removing) = (Vec::new(), Vec::new());
    let (mut most, mut pauses) = (0, 0);
    let mut number = numbers(2);
    for (dst, rule) in rules.iter().cycle().take(EDITS) {
        let place = number() as usize % (services as usize + 1);
        let begun = Instant::now();
        let inserted = diagrams.insert(chain, place, rule);
        pauses += collected(&mut diagrams, &mut most);
        inserting.push(begun.elapsed());
        let found = diagrams.lookup(PREROUTING, &packet(kube_proxy::endpoint(0, 0).to_bits(), *dst, 4711));
        if !matches!(found.end, End::Nat(_)) {
            return wrong("insert a rule", format!("{inserted:?} {found:?}"));
        }
        let begun = Instant::now();
        let removed = diagrams.remove(chain, place);
        pauses += collected(&mut diagrams, &mut most);
        removing.push(begun.elapsed());
        let found = diagrams.lookup(PREROUTING, &packet(kube_proxy::endpoint(0, 0).to_bits(), *dst, 4711));
        if *found.end != End::Accept {
            return wrong("remove a rule", format!("{removed:?} {found:?}"));
        }
    }
    diagrams.collect();
    let end = diagrams.nodes();
    let met = |samples: &mut [Duration]| {
        let (half, late) = (quantile(samples, 0.5), quantile(samples, 0.99));
        let met = half <= Duration::from_micros(20) && late <= Duration::from_micros(200);
        let worst = quantile(samples, 1.0);
        (format!("{}, p99 {}, max {}", time(half), time(late), time(worst)), met)
    };
    let bar = || "20 us, p99 200 us".to_owned();
    let mut rows = Vec::new();
    let (ours, fast) = met(&mut inserting);
    rows.push(row("insert a rule", ours, bar(), Some(fast)));
    let (ours, fast) = met(&mut removing);
    rows.push(row("remove it", ours, bar(), Some(fast)));
    let ours = format!("{start} nodes, most {most}, then {end}; {pauses} pauses");
    let small = most.max(end) <= start + start / 2;
    rows.push(row("memory in 10,000 edits", ours, "1.5 times".into(), Some(small)));
    rows.extend(wide_edit(table, chain, &mut diagrams, row));
    rows
}

/// Collects if it is time to; how often it was.
fn collected(diagrams: &mut TableDiagrams, most: &mut usize) -> usize {
    *most = diagrams.nodes().max(*most);
    if diagrams.is_full_of_dead() {
        diagrams.collect();
        return 1;
    }
    0
}

/// A rule for every destination, in the middle.
fn wide_edit(
    table: &Table,
    chain: usize,
    diagrams: &mut TableDiagrams,
    row: &dyn Fn(&'static str, String, String, Option<bool>) -> Row,
) -> Option<Row> {
    let text = "*nat\n:KUBE-SERVICES - [0:0]\n-A KUBE-SERVICES -p tcp --dport 4711 -j ACCEPT\nCOMMIT\n";
    let rule = iptables::parse("rule", text, Family::Ipv4).ok()?.remove(0).chains.remove(0).rules.remove(0);
    let place = table.chains.get(chain)?.rules.len() / 2;
    let asked = packet(1, kube_proxy::service(1).to_bits(), 4711);
    let mut taken = Vec::new();
    for _ in 0..5 {
        let begun = Instant::now();
        let id = diagrams.insert(chain, place, &rule).ok()?;
        taken.push(begun.elapsed());
        if diagrams.lookup(PREROUTING, &asked).rule != Some(id) {
            return Some(row("insert for any destination", "WRONG".into(), String::new(), Some(false)));
        }
        diagrams.remove(chain, place).ok()?;
        diagrams.collect();
    }
    let half = quantile(&mut taken, 0.5);
    let most = Duration::from_millis(100);
    Some(row("insert for any destination", time(half), time(most), Some(half <= most)))
}

/// Rules for new Services that existing chains answer for, and their
/// addresses.
fn new_rules(services: u32) -> Result<Vec<(u32, Rule)>, String> {
    let mut text = String::from("*nat\n:KUBE-SERVICES - [0:0]\n");
    let mut lines = String::new();
    let mut addresses = Vec::new();
    for n in 0..services.min(1000) {
        let ip = kube_proxy::service(services + 10 + n * 7);
        // Far apart, each once.
        let to = format!("KUBE-SVC-{:016X}", u64::from(n) * u64::from(services / services.min(1000)));
        text.push_str(&format!(":{to} - [0:0]\n"));
        let line = format!("-A KUBE-SERVICES -d {ip}/32 -p tcp -m tcp --dport 4711 -j {to}\n");
        lines.push_str(&line);
        addresses.push(ip.to_bits());
    }
    let text = format!("{text}{lines}COMMIT\n");
    let mut tables = iptables::parse("rules", &text, Family::Ipv4).map_err(|e| e.to_string())?;
    let rules = std::mem::take(&mut tables[0].chains[0].rules);
    Ok(addresses.into_iter().zip(rules).collect())
}

/// Reads and compiles one table, and prints what was resident at most.
pub fn alone(services: &str) {
    let services = services.parse().unwrap_or(100);
    let text = kube_proxy::table(services);
    let host = Host::default();
    let Ok(tables) = iptables::parse("iptables.save", &text, Family::Ipv4) else { return };
    let Ok(diagrams) = TableDiagrams::new(&host, &tables[0]) else { return };
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|l| l.strip_prefix("VmHWM:")).unwrap_or_default();
    println!("{} {}", line.trim_end_matches("kB").trim(), diagrams.nodes());
}

/// What this program takes of memory if it does nothing else.
fn memory_alone(services: u32) -> Result<u64, String> {
    let program = std::env::current_exe().map_err(|e| e.to_string())?;
    let output = Command::new(program).arg(format!("{ALONE}{services}")).output();
    let output = output.map_err(|e| e.to_string())?;
    let text = String::from_utf8_lossy(&output.stdout);
    let kilobytes = text.split_whitespace().next().and_then(|n| n.parse::<u64>().ok());
    kilobytes.map(|k| k << 10).ok_or_else(|| format!("it said {text:?}"))
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
