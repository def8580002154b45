//! Rule sets and IP sets, loaded by their own tools. What a tool refuses is
//! taken out, line by line, and counted.

use std::collections::BTreeSet;
use std::sync::Mutex;

use lab_core::formats::{ipset, iptables};
use lab_core::model::{Backend, Host, Ipset, Table, TableFamily};

use crate::native;
use crate::space::Space;
use crate::tally::Left;
use crate::vm;

/// How often a file is tried again without a line that was refused.
const TRIES: usize = 40;

/// Types of sets that this kernel does not have.
static REFUSED: Mutex<BTreeSet<String>> = Mutex::new(BTreeSet::new());

/// `hash:net,port`, as `create` names it.
fn kind(set: &Ipset) -> String {
    let text = ipset::print(std::slice::from_ref(set));
    text.split_whitespace().nth(2).unwrap_or_default().to_owned()
}

/// A rule as the tools take it: they want a protocol named where ports are
/// asked for. None if they would refuse it for its place.
fn repaired(line: &str, left: &mut Left) -> Option<String> {
    let has = |what: &str| line.contains(what);
    let wrong = (has("-A INPUT") || has("-A PREROUTING")) && has(" -o ")
        || (has("-A OUTPUT") || has("-A POSTROUTING")) && has(" -i ");
    if wrong {
        left.count("iptables", "a rule that asks for an interface its chain does not know");
        return None;
    }
    if has("--tcp-flags NONE ") {
        left.count("iptables", "flags compared under no mask, which iptables does not print");
        return None;
    }
    if has(" ! --sport 0:65535 ") || has(" ! --dport 0:65535 ") {
        left.count("iptables", "no port at all, which iptables does not print");
        return None;
    }
    if ["-m tcp ", "-m udp "].iter().any(|asked| line.matches(asked).count() > 1) {
        left.count("iptables", "a header asked for twice, of which iptables-nft-save prints one");
        return None;
    }
    if !line.starts_with("-A") || has(" -p ") {
        return Some(line.to_owned());
    }
    let either = if line.len() % 2 == 0 { "tcp" } else { "udp" };
    let to_port = |word: &str| {
        line.split_once(word).is_some_and(|(_, to)| {
            let to = to.split_whitespace().next().unwrap_or_default();
            to.starts_with(':') || to.contains("]:") || to.contains('.') && to.contains(':')
        })
    };
    let protocol = if has("-m tcp ") || has("tcp-reset") {
        "tcp"
    } else if has("-m udp ") {
        "udp"
    } else if has("-m sctp ") {
        "sctp"
    } else if has("-m multiport")
        || has("--to-ports")
        || to_port("--to-source ")
        || to_port("--to-destination ")
    {
        either
    } else {
        return Some(line.to_owned());
    };
    let (head, tail) = line.split_at(line[3..].find(' ').map_or(line.len(), |at| at + 3));
    Some(format!("{head} -p {protocol}{tail}"))
}

/// Whether a line adds a range of ports that the set holds one by one.
fn adds_many(line: &str) -> bool {
    let element = line.strip_prefix("add ").and_then(|l| l.split_whitespace().nth(1)).unwrap_or_default();
    element.split(',').any(|part| {
        let range = part.rsplit(':').next().unwrap_or_default().split_once('-');
        let ends = range.and_then(|(low, high)| Some((low.parse::<u16>().ok()?, high.parse::<u16>().ok()?)));
        ends.is_some_and(|(low, high)| high.saturating_sub(low) > 2000)
    })
}

/// Loads what a host filters and rewrites.
pub fn load(host: &Host, space: &Space, left: &mut Left) {
    if host.ruleset.tables.is_empty() {
        return;
    }
    let refused = |s: &Ipset| REFUSED.lock().expect("no thread panics here").contains(&kind(s));
    let (without, sets): (Vec<Ipset>, Vec<Ipset>) = host.ipsets.values().cloned().partition(refused);
    without.iter().for_each(|set| left.count("ipset", &format!("sets of type {}", kind(set))));
    let text = ipset::print(&sets);
    let few: Vec<&str> = text
        .lines()
        .filter(|line| {
            let many = vm::inside() && adds_many(line);
            if many {
                left.count("ipset", &format!("what an emulated processor prints for minutes: {line}"));
            }
            !many
        })
        .collect();
    let text = if few.is_empty() { String::new() } else { few.join("\n") + "\n" };
    restore(space, "ipset", &["restore"], &text, left);
    // Nobody waits until a limit lets the next packet pass. What was used up
    // comes back with the next tick of the kernel's clock.
    let quick = |line: String| {
        line.replace(" --limit-burst 7", "")
            .replace("--limit 3/hour", "--limit 10000/sec --limit-burst 10000")
            .replace(" 5/sec --hashlimit", " 10000/sec --hashlimit-burst 10000 --hashlimit")
    };
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
        let text = iptables::print(&tables, false);
        let lines: Vec<String> = text.lines().filter_map(|line| repaired(line, left)).map(quick).collect();
        if !lines.is_empty() {
            restore(space, tool, &["-w"], &(lines.join("\n") + "\n"), left);
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

fn joined(text: &str) -> String {
    text.lines().collect::<Vec<_>>().join(" ")
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
        let Some(number) = complaint(&printed.err).filter(|n| (1..=lines.len()).contains(n)) else {
            left.count(tool, &format!("a file | {}", joined(&printed.err)));
            return;
        };
        let line = lines[number - 1];
        left.count(tool, &format!("{line} | {}", joined(&printed.err)));
        if printed.err.contains("set type not supported") {
            let kind = line.split_whitespace().nth(2).unwrap_or_default();
            REFUSED.lock().expect("no thread panics here").insert(kind.to_owned());
        }
        if tool == "ipset" {
            // It has taken what stands before.
            lines.drain(..number);
        } else if line.starts_with("-A") {
            lines.remove(number - 1);
        } else {
            // Of a table, the kernel does not say what it refuses.
            let start = lines[..number].iter().rposition(|l| l.starts_with('*')).unwrap_or(0);
            lines.drain(start..number);
        }
        if lines.is_empty() {
            return;
        }
    }
    left.count(tool, "a table, tried too often");
}
