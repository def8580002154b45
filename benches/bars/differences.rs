//! What a change of rules changes: two texts read and compared, and edits of
//! a table that is loaded.

use std::time::{Duration, Instant};

use lab_core::addr::Family;
use lab_core::engine::symbolic::TableDiagrams;
use lab_core::formats::iptables;
use lab_core::model::{Host, Ruleset, Table};
use lab_core::query::diff::packets::{packets, ChainPackets, Rules};

use crate::table::{quantile, time, Row};
use crate::{kube_proxy, tuples};

/// Every row.
pub fn rows() -> Vec<Row> {
    let mut rows = Vec::new();
    for count in [1_000, 10_000] {
        rows.extend(of_tuples(count));
    }
    rows.extend(of_services(10_000));
    rows
}

fn row(work: &'static str, size: &str, took: Duration, most: Option<Duration>, wrong: Option<String>) -> Row {
    let (ours, met) = match wrong {
        Some(why) => (format!("WRONG: {why}"), Some(false)),
        None => (time(took), most.map(|most| took <= most)),
    };
    Row { work, size: size.to_owned(), ours, bar: most.map(time).unwrap_or_default(), met }
}

fn read(text: &str) -> Ruleset {
    Ruleset { tables: iptables::parse("iptables.save", text, Family::Ipv4).unwrap_or_default() }
}

/// Reads two texts side by side, and compares them.
fn compared(old: &str, new: &str) -> (Duration, Vec<ChainPackets>) {
    let start = Instant::now();
    let (old, new) = std::thread::scope(|scope| {
        let first = scope.spawn(|| read(old));
        let second = read(new);
        (first.join().unwrap_or_default(), second)
    });
    let host = Host::default();
    let found = packets(Rules { host: &host, ruleset: &old }, Rules { host: &host, ruleset: &new });
    (start.elapsed(), found.unwrap_or_default())
}

fn best(
    runs: usize,
    mut run: impl FnMut() -> (Duration, Vec<ChainPackets>),
) -> (Duration, Vec<ChainPackets>) {
    let first = run();
    (1..runs).map(|_| run()).fold(first, |best, next| if next.0 < best.0 { next } else { best })
}

fn of_tuples(count: usize) -> Vec<Row> {
    let size = format!("{count} random rules");
    let bar = |most: u64| (count >= 10_000).then(|| Duration::from_millis(most));
    let rules = tuples::rules(1, count);
    let text = tuples::table(&rules);
    let mut rows = Vec::new();
    // A rule that decides about some packets, so that a flip is one.
    let mut flipped = rules.clone();
    flipped[count / 2].accept ^= true;
    let (took, found) = best(3, || compared(&text, &tuples::table(&flipped)));
    let told: usize = found.iter().map(|c| c.treated.len()).sum();
    let wrong = (told == 0).then(|| "no difference".to_owned());
    rows.push(row("one rule flipped, read and compared", &size, took, bar(1_000), wrong));
    let shuffled = tuples::table(&tuples::shuffled(7, &rules));
    let (took, found) = best(3, || compared(&text, &shuffled));
    let wrong = (!found.is_empty()).then(|| "differences".to_owned());
    rows.push(row("reordered and split, read and compared", &size, took, bar(2_000), wrong));
    let loaded = read(&text);
    let Some(table) = loaded.tables.first() else { return rows };
    let (took, wrong) = edited(table, count / 2);
    rows.push(row("one rule flipped, loaded", &size, took, bar(150), wrong));
    rows
}

/// A rule of a loaded table turned round, and what that changes: the median of
/// some.
fn edited(table: &Table, from: usize) -> (Duration, Option<String>) {
    const FORWARD: usize = 1;
    let host = Host::default();
    let Ok(mut diagrams) = TableDiagrams::new(&host, table) else {
        return (Duration::MAX, Some("not compiled".into()));
    };
    let (accept, drop) = (
        read("*filter\n:FORWARD DROP [0:0]\n-A FORWARD -j ACCEPT\nCOMMIT\n"),
        read("*filter\n:FORWARD DROP [0:0]\n-A FORWARD -j DROP\nCOMMIT\n"),
    );
    let targets = [&accept, &drop].map(|r| r.tables[0].chains[0].rules[0].statements[0].clone());
    let mut times = Vec::new();
    for place in from..from + 21 {
        let rule = &table.chains[FORWARD].rules[place];
        let mut other = rule.clone();
        if let Some(last) = other.statements.last_mut() {
            *last = if *last == targets[0] { targets[1].clone() } else { targets[0].clone() };
        }
        let Some(mark) = diagrams.mark(FORWARD) else { continue };
        let start = Instant::now();
        let done = diagrams
            .remove(FORWARD, place)
            .and_then(|()| diagrams.insert(FORWARD, place, &other))
            .and_then(|_| diagrams.differing(FORWARD, mark));
        times.push(start.elapsed());
        if let Err(error) = done {
            return (Duration::MAX, Some(error.to_string()));
        }
    }
    (quantile(&mut times, 0.5), None)
}

/// One endpoint of a Service goes elsewhere.
fn of_services(services: u32) -> Vec<Row> {
    let size = format!("{services} Services");
    let text = kube_proxy::table(services);
    let (old, new) = (kube_proxy::endpoint(services / 2, 0), "10.255.255.1");
    let changed = text
        .replace(&format!("{old}:"), &format!("{new}:"))
        .replace(&format!("{old}/32"), &format!("{new}/32"));
    let (took, found) = best(3, || compared(&text, &changed));
    let wrong = found.is_empty().then(|| "no difference".to_owned());
    let mut rows = vec![row(
        "one Service changed, read and compared",
        &size,
        took,
        Some(Duration::from_millis(300)),
        wrong,
    )];
    let loaded = read(&text);
    let Some(table) = loaded.tables.first() else { return rows };
    let host = Host::default();
    let Ok(mut diagrams) = TableDiagrams::new(&host, table) else { return rows };
    // The rule that sends to the endpoint, as it was and as it is.
    let after = read(&changed);
    let place = table.chains.iter().zip(&after.tables[0].chains).enumerate().find_map(|(chain, (a, b))| {
        let at =
            a.rules.iter().zip(&b.rules).position(|(x, y)| x.text != y.text && x.text.contains("DNAT"))?;
        Some((chain, at, b.rules[at].clone()))
    });
    let Some((chain, at, rule)) = place else { return rows };
    let before = table.chains[chain].rules[at].clone();
    const PREROUTING: usize = 0;
    let mut times = Vec::new();
    let mut wrong = None;
    for turn in 0..21 {
        let Some(mark) = diagrams.mark(PREROUTING) else { continue };
        let rule = if turn % 2 == 0 { &rule } else { &before };
        let start = Instant::now();
        let done = diagrams
            .remove(chain, at)
            .and_then(|()| diagrams.insert(chain, at, rule))
            .and_then(|_| diagrams.differing(PREROUTING, mark));
        times.push(start.elapsed());
        if !done.is_ok_and(|found| !found.is_empty()) {
            wrong = Some("no difference".to_owned());
        }
    }
    let took = quantile(&mut times, 0.5);
    rows.push(row("one Service changed, loaded", &size, took, Some(Duration::from_millis(1)), wrong));
    rows
}
