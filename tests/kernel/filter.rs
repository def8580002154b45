//! Rule sets and IP sets, loaded by their own tools. What a tool refuses is
//! taken out, line by line, and counted.

use lab_core::formats::{ipset, iptables};
use lab_core::model::{Backend, Host, Ipset, Table, TableFamily};

use crate::native;
use crate::space::Space;
use crate::tally::Left;

/// How often a file is tried again without a line that was refused.
const TRIES: usize = 40;

/// Loads what a host filters and rewrites.
pub fn load(host: &Host, space: &Space, left: &mut Left) {
    if host.ruleset.tables.is_empty() {
        return;
    }
    let sets: Vec<Ipset> = host.ipsets.values().cloned().collect();
    restore(space, "ipset", &["restore"], &ipset::print(&sets), left);
    for (backend, family, tool) in [
        (Backend::Nft, TableFamily::Ip, "iptables-nft-restore"),
        (Backend::Nft, TableFamily::Ip6, "ip6tables-nft-restore"),
        (Backend::Legacy, TableFamily::Ip, "iptables-legacy-restore"),
        (Backend::Legacy, TableFamily::Ip6, "ip6tables-legacy-restore"),
    ] {
        let tables: Vec<Table> = host
            .ruleset
            .tables
            .iter()
            .filter(|t| t.xtables && t.backend == backend && t.family == family)
            .cloned()
            .collect();
        // A table of its own each: what cannot be loaded takes no other along.
        for table in tables {
            restore(space, tool, &["-w"], &iptables::print(&[table], false), left);
        }
    }
    let native: Vec<String> =
        host.ruleset.tables.iter().filter(|t| !t.xtables).flat_map(native::commands).collect();
    if native.is_empty() {
        return;
    }
    let printed = space.run("nft", &["-i"], &(native.join("\n") + "\n"));
    let told: Vec<&str> = printed.err.lines().collect();
    for (place, line) in told.iter().enumerate().filter(|(_, l)| l.starts_with("Error")) {
        left.count("nft", &format!("{line} | {}", told.get(place + 1).unwrap_or(&"")));
    }
}

/// The number of the line that a tool complains of.
fn complaint(text: &str) -> Option<usize> {
    let at = text.find("line")?;
    let digits: String =
        text[at + 4..].chars().skip_while(|c| !c.is_ascii_digit()).take_while(char::is_ascii_digit).collect();
    digits.parse().ok()
}

fn restore(space: &Space, tool: &str, arguments: &[&str], text: &str, left: &mut Left) {
    if text.is_empty() {
        return;
    }
    let mut lines: Vec<&str> = text.lines().collect();
    for _ in 0..TRIES {
        let printed = space.run(tool, arguments, &(lines.join("\n") + "\n"));
        if printed.done {
            return;
        }
        let number = complaint(&printed.err).filter(|n| (1..=lines.len()).contains(n));
        let rule = |line: &str| line.starts_with("-A") || line.starts_with("add") || line.starts_with("create");
        match number.filter(|n| rule(lines[n - 1])) {
            Some(number) => {
                let why = printed.err.lines().next().unwrap_or_default();
                left.count(tool, &format!("{} | {why}", lines[number - 1]));
                // ipset has taken what stands before it.
                if tool == "ipset" {
                    lines.drain(..number);
                } else {
                    lines.remove(number - 1);
                }
            }
            None => {
                left.count(tool, &format!("a table | {}", printed.err.lines().next().unwrap_or_default()));
                return;
            }
        }
    }
    left.count(tool, "a table, tried too often");
}
