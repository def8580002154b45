//! The matrix of a lab with thousands of hosts, those that are alike kept as
//! one class.

use std::time::{Duration, Instant};

use lab_core::query::classes::{class_matrix, classes, ClassMatrix};
use lab_core::query::matrix::{matrix, Service};
use lab_workspace::hypervisors;

use crate::table::{time, Row};

const BAR: Duration = Duration::from_secs(10);
const GUESTS: u32 = 20;

/// The most memory this process has had, in MB.
pub fn peak() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|l| l.strip_prefix("VmHWM:"));
    line.and_then(|l| l.split_whitespace().next()?.parse::<u64>().ok()).map_or(0, |kb| kb / 1024)
}

/// The answers, whatever the number of hosts.
fn answers(matrix: &ClassMatrix) -> String {
    let cell = |c: &lab_core::query::classes::ClassCell| {
        format!("{}>{} {:?} {:?}", c.from, c.to, c.relation, c.answer)
    };
    matrix.cells.iter().map(cell).collect::<Vec<_>>().join(", ")
}

/// Whether the classes of a small lab of the same sort give, cell by cell, what
/// the matrix of all its hosts says.
fn small_agrees(service: Service, routed: bool) -> Option<String> {
    let lab = hypervisors(4, 3, routed);
    let found = classes(&lab);
    let small = class_matrix(&lab, service, None).ok()?;
    let whole = matrix(&lab, &[service], None).ok()?;
    let agree = whole.cells.iter().all(|cell| {
        let (from, to) = (found.class_of[&cell.from], found.class_of[&cell.to]);
        let together = found.group_of[&cell.from] == found.group_of[&cell.to];
        small.cells.iter().any(|c| {
            let relation = c.relation == lab_core::query::classes::Relation::Together;
            (c.from, c.to, relation) == (from, to, together) && c.answer == cell.answer
        })
    });
    agree.then(|| answers(&small))
}

/// Rows for 100, 300 and 1,000 hypervisors, with and without routes to each
/// other's guests.
pub fn rows() -> Vec<Row> {
    let service = Service::tcp(22);
    let mut rows = Vec::new();
    for (routed, kind) in [(false, "NAT alone"), (true, "routes to all")] {
        let expected = small_agrees(service, routed);
        for count in [100, 300, 1000] {
            let lab = hypervisors(count, GUESTS, routed);
            let hosts = u64::from(count * (GUESTS + 1));
            let clock = Instant::now();
            let answer = class_matrix(&lab, service, None);
            let spent = clock.elapsed();
            let right = answer.is_ok_and(|a| {
                Some(answers(&a)) == expected
                    && a.cells.iter().map(|c| c.pairs).sum::<u64>() == hosts * (hosts - 1)
            });
            let peak = peak();
            let last = count == 1000;
            rows.push(Row {
                work: "hypervisors, matrix by classes",
                size: format!("{count} x {GUESTS} guests, {kind}"),
                ours: match right {
                    true => format!("{}, peak {peak} MB in this process", time(spent)),
                    false => "WRONG".into(),
                },
                bar: if last { "10 s, 4 GB".into() } else { String::new() },
                met: if last || !right { Some(right && spent <= BAR && peak <= 4096) } else { None },
            });
        }
    }
    rows
}
