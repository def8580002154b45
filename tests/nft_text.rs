//! `nft list ruleset` and `nft -j list ruleset` of one rule set are read into
//! one model. The rule sets are those of `tests/nft`, which hold every
//! construct, and those that Docker writes, if `LAB_DATA` names their folder.
//! The kernel's own tool loads and lists them, in a network namespace each.

#![allow(clippy::unwrap_used, clippy::panic)]

use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::{env, fs};

use lab_core::formats::{nft_json, nft_text};
use lab_core::model::{Match, Origin, Statement, Table, Target};
use lab_workspace::Scratch;

fn sources() -> Vec<PathBuf> {
    let own = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/nft");
    let mut folders = vec![own];
    match env::var_os("LAB_DATA") {
        Some(data) => folders.push(Path::new(&data).join("rulesets/moby-nftables")),
        None => eprintln!("SKIPPED: Docker's rule sets, for LAB_DATA is not set"),
    }
    let list = |folder: PathBuf| fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let mut paths: Vec<PathBuf> = folders.into_iter().flat_map(list).collect();
    paths.sort();
    paths
}

/// Runs a script in a network namespace of its own.
fn apart(script: &str, argument: &Path) -> std::io::Result<Output> {
    Command::new("unshare").args(["-n", "sh", "-c", script, "sh"]).arg(argument).output()
}

/// Drops what the two texts may differ in: lines, handles, and the texts of
/// what is not modelled.
fn bare(mut tables: Vec<Table>) -> Vec<Table> {
    let nowhere = Origin { file: "".into(), line: 0 };
    for table in &mut tables {
        table.origin = nowhere.clone();
        for item in &mut table.unmodelled {
            item.origin = nowhere.clone();
            item.text.clear();
        }
        for set in &mut table.sets {
            set.text.clear();
        }
        for chain in &mut table.chains {
            (chain.origin, chain.handle) = (nowhere.clone(), None);
            for rule in &mut chain.rules {
                (rule.origin, rule.handle, rule.text) = (nowhere.clone(), None, "".into());
                for statement in &mut rule.statements {
                    match statement {
                        Statement::Match(Match::Unmodelled { text, .. })
                        | Statement::Target(Target::Unmodelled { text, .. }) => text.clear(),
                        Statement::Target(Target::NoEffect { options, .. }) => options.clear(),
                        Statement::Match(_) | Statement::Target(_) => {}
                    }
                }
            }
        }
    }
    tables
}

/// What two readings differ in.
fn differences(text: &[Table], json: &[Table], lines: &[&str], origins: &[Table]) -> Vec<String> {
    let mut found = Vec::new();
    if text.len() != json.len() {
        found.push(format!("{} tables and {}", text.len(), json.len()));
    }
    for ((a, b), told) in text.iter().zip(json).zip(origins) {
        let sets = a.sets.iter().zip(&b.sets).filter(|(a, b)| a != b);
        found.extend(sets.map(|(a, b)| format!("text: {a:?}\njson: {b:?}")));
        for ((a, b), told) in a.chains.iter().zip(&b.chains).zip(&told.chains) {
            for ((a, b), told) in a.rules.iter().zip(&b.rules).zip(&told.rules) {
                if a != b {
                    let line = lines[told.origin.line as usize - 1].trim();
                    found.push(format!("{line}\ntext: {:?}\njson: {:?}", a.statements, b.statements));
                }
            }
            if a.rules.len() != b.rules.len() || (&a.name, a.base) != (&b.name, b.base) {
                found.push(format!("chain {}: {:?} {:?}", a.name, a.base, b.base));
            }
        }
    }
    if found.is_empty() && text != json {
        found.push(format!("text: {text:?}\njson: {json:?}"));
    }
    found
}

#[test]
fn text_and_json_of_one_rule_set_are_one_model() {
    let probe = apart("nft list ruleset", Path::new(""));
    if !probe.is_ok_and(|output| output.status.success()) {
        eprintln!("SKIPPED: nft does not run in a network namespace here (root and nft are needed)");
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let mut read = 0;
    let mut wrong = Vec::new();
    for path in sources() {
        // nft 1.0.6 does not know `dstnat` at the output hook, though it is
        // what Docker's own version prints.
        let text = fs::read_to_string(&path).unwrap();
        let text = text.replace("hook output priority dstnat", "hook output priority -100");
        let input = folder.path().join("input.nft");
        fs::write(&input, text).unwrap();
        let script = "nft -f \"$1\" && nft list ruleset && echo ---- && nft -j list ruleset";
        let output = apart(script, &input).unwrap();
        let name = path.file_name().unwrap().to_string_lossy();
        assert!(output.status.success(), "{name}: {}", String::from_utf8_lossy(&output.stderr));
        let listed = String::from_utf8(output.stdout).unwrap();
        let (text, json) = listed.split_once("----\n").unwrap();
        let json = nft_json::parse("nft.json", json).unwrap();
        let text_read = nft_text::parse("nft.txt", text).unwrap();
        let lines: Vec<&str> = text.lines().collect();
        let found = differences(&bare(text_read.clone()), &bare(json), &lines, &text_read);
        wrong.extend(found.into_iter().map(|what| format!("{name}: {what}")));
        read += 1;
    }
    eprintln!("{read} rule sets read alike from text and JSON");
    assert!(wrong.is_empty(), "{}", wrong.join("\n\n"));
}

#[test]
fn a_snapshot_may_hold_the_text_instead_of_the_json() {
    let scratch = Scratch::pair();
    fs::remove_file(scratch.at("hosts/b/nft.json")).unwrap();
    let chain = "\tchain in {\n\t\ttype filter hook input priority filter; policy accept;\n\t\ttcp dport 22 counter packets 1 bytes 60 drop comment \"door\"\n\t}\n";
    let nft = format!("table inet fw {{\n{chain}\tlimit slow {{\n\t\trate 1/second\n\t}}\n}}\n");
    scratch.write("hosts/b/nft.txt", nft);
    let shown = scratch.ask("show", &["b"]);
    // What is kept makes it say so.
    assert_eq!(shown.code, 1, "{}", shown.err);
    assert!(shown.out.contains("inet fw"), "{}", shown.out);
    assert!(shown.out.contains("limit slow"), "{}", shown.out);
    let traced = scratch.ask("trace", &["a", "b", "--proto", "tcp", "--dport", "22"]);
    assert!(
        traced.out.contains("`tcp dport 22 counter drop` (hosts/b/nft.txt:4)"),
        "{}{}",
        traced.out,
        traced.err
    );
    scratch.write("hosts/b/nft.txt", "table inet fw {\n\tchain in {\n\t\tjump nowhere\n");
    let broken = scratch.ask("show", &["b"]);
    assert!(broken.err.contains("hosts/b/nft.txt:3"), "{}", broken.err);
}
