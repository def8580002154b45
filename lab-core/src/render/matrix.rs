//! The matrix as text and Markdown.

use std::fmt::Write as _;

use super::reach::decision;
use super::safe;
use crate::query::matrix::{Answer, Matrix, Service};

fn mark(answer: Answer) -> &'static str {
    match answer {
        Answer::Yes => "yes",
        Answer::No => "no",
        Answer::Possible => "?",
        Answer::NoAddress => "-",
    }
}

/// What keeps packets away, with how many pairs it keeps apart.
fn reasons(matrix: &Matrix, service: Service) -> Vec<(String, usize)> {
    let mut found: Vec<(String, usize)> = Vec::new();
    for cell in matrix.cells.iter().filter(|c| c.service == service) {
        let back = if cell.on_the_way_back { ", on the way back" } else { "" };
        let by = cell.by.iter().map(|by| format!("{}{back}", decision(by)));
        let astray = cell.astray.iter().map(|at| safe(&format!("the answer goes to {at}")));
        for text in by.chain(astray) {
            match found.iter_mut().find(|(known, _)| *known == text) {
                Some((_, count)) => *count += 1,
                None => found.push((text, 1)),
            }
        }
    }
    found.sort_by(|a, b| b.1.cmp(&a.1).then_with(|| a.0.cmp(&b.0)));
    found
}

fn rows(matrix: &Matrix, service: Service) -> Vec<Vec<&'static str>> {
    let mut rows = Vec::new();
    let mut cells = matrix.cells.iter().filter(|c| c.service == service);
    for from in 0..matrix.hosts.len() {
        let row = (0..matrix.hosts.len()).map(|to| match from == to {
            true => "",
            false => cells.next().map_or("", |c| mark(c.answer)),
        });
        rows.push(row.collect());
    }
    rows
}

/// The answer to `lab matrix`: a table for each service, receivers numbered as
/// senders are, and what keeps packets away.
pub fn matrix(matrix: &Matrix) -> String {
    let mut out = String::new();
    let names: Vec<String> = matrix.hosts.iter().map(|h| safe(h)).collect();
    let width = names.iter().map(|n| n.chars().count()).max().unwrap_or(0);
    for service in &matrix.services {
        let _ = writeln!(out, "{service}");
        let heads: String = (1..=names.len()).map(|n| format!("{n:>4}")).collect();
        let _ = writeln!(out, "{:>3} {:<width$}{heads}", "", "from \\ to");
        for (index, row) in rows(matrix, *service).iter().enumerate() {
            let marks: String = row.iter().map(|m| format!("{m:>4}")).collect();
            let _ = writeln!(out, "{:>3} {:<width$}{marks}", index + 1, names[index]);
        }
        let reasons = reasons(matrix, *service);
        if !reasons.is_empty() {
            let _ = writeln!(out, "  kept away by");
        }
        for (text, count) in reasons {
            let pairs = if count == 1 { "pair" } else { "pairs" };
            let _ = writeln!(out, "    {text} ({count} {pairs})");
        }
        let _ = writeln!(out);
    }
    let _ = writeln!(
        out,
        "yes: arrives and is answered; ?: depends on chance or on what is not known; -: no address"
    );
    out
}

/// The same as Markdown.
pub fn matrix_markdown(matrix: &Matrix) -> String {
    let plain = |text: &str| safe(text).replace('|', "\\|");
    let mut out = String::new();
    for service in &matrix.services {
        let _ = writeln!(out, "## {service}\n");
        let names: Vec<String> = matrix.hosts.iter().map(|h| plain(h)).collect();
        let _ = writeln!(out, "| from \\ to | {} |", names.join(" | "));
        let _ = writeln!(out, "|---{}|", "|---".repeat(names.len()));
        for (index, row) in rows(matrix, *service).iter().enumerate() {
            let _ = writeln!(out, "| {} | {} |", names[index], row.join(" | "));
        }
        let _ = writeln!(out);
        for (text, count) in reasons(matrix, *service) {
            let _ = writeln!(out, "- `{}` ({count})", plain(&text));
        }
        let _ = writeln!(out);
    }
    out
}
