//! The kernel's opinion: a rule set is loaded in a network namespace, the
//! commands (or the files) that make another of it are run there by a shell,
//! and what the tools list then is what they list of the other, loaded in a
//! namespace of its own. The namespaces have no names and go with their shell.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write as _;
use std::process::{Command, Stdio};
use std::time::Instant;

use lab_core::addr::Family;
use lab_core::formats::{iptables, nft_json, nft_text};
use lab_core::model::{Host, Table};
use lab_core::query::diff::edits::{edits_of_tables, HostEdits};
use lab_core::render::edits::{commands, payloads, Payload};

use super::draw::{self, Dice};

/// Runs a shell script in a network namespace of its own: what it printed, or
/// what it complained of.
pub fn apart(script: &str) -> Result<String, String> {
    let mut child = Command::new("unshare")
        .args(["-n", "sh", "-e"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|e| e.to_string())?;
    let _ = child.stdin.take().unwrap().write_all(script.as_bytes());
    let output = child.wait_with_output().map_err(|e| e.to_string())?;
    match output.status.success() {
        true => Ok(String::from_utf8_lossy(&output.stdout).into_owned()),
        false => Err(String::from_utf8_lossy(&output.stderr).into_owned()),
    }
}

/// The tools of iptables-legacy under the names of iptables, as on a host that
/// has no other.
fn legacy_path() -> &'static str {
    static FOLDER: std::sync::OnceLock<tempfile::TempDir> = std::sync::OnceLock::new();
    let folder = FOLDER.get_or_init(|| {
        let folder = tempfile::tempdir().unwrap();
        for six in ["", "6"] {
            for verb in ["", "-restore", "-save"] {
                let made = folder.path().join(format!("ip{six}tables{verb}"));
                std::os::unix::fs::symlink(format!("/usr/sbin/ip{six}tables-legacy{verb}"), made).unwrap();
            }
        }
        folder
    });
    folder.path().to_str().unwrap()
}

/// Whether namespaces and the tools are there; else says loudly that not.
pub fn allowed() -> bool {
    let probe = apart("nft list ruleset && iptables-save && ip6tables-save");
    if let Err(why) = &probe {
        eprintln!("SKIPPED: rule sets cannot be loaded in a network namespace here: {why}");
    }
    probe.is_ok()
}

pub fn quoted(text: &str) -> String {
    shlex::try_quote(text).unwrap().into_owned()
}

fn fed(payload: &Payload) -> String {
    let command: Vec<String> = payload.command.iter().map(|w| quoted(w)).collect();
    format!("printf %s {} | {}\n", quoted(&payload.text), command.join(" "))
}

/// Which tool, and what of the listing is read.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Kind {
    Iptables,
    Legacy,
    /// Text without handles, text with them, JSON.
    Nft(Form),
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Form {
    Text,
    Handles,
    Json,
}

impl Kind {
    /// A script that loads a rule set.
    fn load(self, text: &str) -> String {
        match self {
            Kind::Nft(_) => format!("printf %s {} | nft -f -\n", quoted(text)),
            Kind::Iptables | Kind::Legacy => {
                let path = match self {
                    Kind::Legacy => format!("PATH={}:$PATH\n", quoted(legacy_path())),
                    _ => String::new(),
                };
                let (v4, v6) = text.split_once("#6\n").unwrap_or((text, ""));
                let load = |program: &str, text: &str| match text.is_empty() {
                    true => String::new(),
                    false => format!("printf %s {} | {program}\n", quoted(text)),
                };
                path + &load("iptables-restore", v4) + &load("ip6tables-restore", v6)
            }
        }
    }

    /// A script that lists what there is: for us, and then for comparison.
    fn list(self) -> &'static str {
        match self {
            Kind::Iptables | Kind::Legacy => "iptables-save -c; echo '#6'; ip6tables-save -c; echo '#7'; iptables-save; echo '#6'; ip6tables-save",
            Kind::Nft(Form::Text) => "nft list ruleset; echo '#7'; nft -s list ruleset",
            Kind::Nft(Form::Handles) => "nft -a list ruleset; echo '#7'; nft -s list ruleset",
            Kind::Nft(Form::Json) => "nft -j list ruleset; echo '#7'; nft -s list ruleset",
        }
    }

    fn read(self, listed: &str) -> Vec<Table> {
        let text = listed.split_once("#7\n").unwrap().0;
        match self {
            Kind::Iptables | Kind::Legacy => {
                let (v4, v6) = text.split_once("#6\n").unwrap();
                let mut tables = iptables::parse("iptables.save", v4, Family::Ipv4).unwrap();
                tables.extend(iptables::parse("ip6tables.save", v6, Family::Ipv6).unwrap());
                tables
            }
            Kind::Nft(Form::Json) => nft_json::parse("nft.json", text).unwrap(),
            Kind::Nft(_) => nft_text::parse("nft.txt", text).unwrap(),
        }
    }

    /// What is compared: each chain's lines by the tool's own words, without
    /// counters.
    pub fn blocks(self, listed: &str) -> BTreeMap<String, Vec<String>> {
        let text = listed.split_once("#7\n").unwrap().1;
        let mut blocks: BTreeMap<String, Vec<String>> = BTreeMap::new();
        let (mut family, mut table, mut block) = ("4", String::new(), String::new());
        for line in text.lines() {
            let line = line.trim();
            match self {
                Kind::Iptables | Kind::Legacy => {
                    if line == "#6" {
                        family = "6";
                    } else if let Some(name) = line.strip_prefix('*') {
                        table = name.to_owned();
                    } else if let Some(chain) = line.strip_prefix(':') {
                        let words: Vec<&str> = chain.split(' ').collect();
                        let key = format!("{family} {table} {}", words[0]);
                        blocks.entry(key).or_default().push(words[1].to_owned());
                    } else if let Some(rule) = line.strip_prefix("-A ") {
                        let (chain, rule) = rule.split_once(' ').unwrap_or((rule, ""));
                        blocks.entry(format!("{family} {table} {chain}")).or_default().push(rule.to_owned());
                    }
                }
                Kind::Nft(_) => match line.strip_suffix(" {") {
                    Some(head) if head.starts_with("table ") => table = head.to_owned(),
                    Some(head) => block = format!("{table} {head}"),
                    None if line == "}" || line.is_empty() => {}
                    None => blocks.entry(block.clone()).or_default().push(line.to_owned()),
                },
            }
        }
        // A table of iptables that holds nothing does nothing; legacy ones stay.
        if !matches!(self, Kind::Nft(_)) {
            let idle = |lines: &Vec<String>| lines.len() == 1 && lines[0] == "ACCEPT";
            let tables: Vec<String> =
                blocks.keys().map(|k| k.rsplit_once(' ').unwrap().0.to_owned()).collect();
            for table in tables {
                let own = |key: &String| key.rsplit_once(' ').unwrap().0 == table;
                if blocks.iter().filter(|(k, _)| own(k)).all(|(_, lines)| idle(lines)) {
                    blocks.retain(|key, _| !own(key));
                }
            }
        }
        blocks
    }
}

/// A host with just these tables.
fn host(tables: Vec<Table>) -> Host {
    let mut host = Host::default();
    host.ruleset.tables = tables;
    host
}

/// What came of a pair.
#[derive(Default, Debug)]
pub struct Tally {
    pub pairs: usize,
    pub refused: usize,
    pub changes: usize,
    pub same: usize,
    pub several_files: usize,
}

/// Loads both, makes the one of the other by commands and by files, and says
/// what is wrong.
pub fn ask(kind: Kind, a: &str, b: &str, tally: &mut Tally) -> Result<(), String> {
    let listed = |text: &str| apart(&(kind.load(text) + kind.list()));
    let (Ok(old), Ok(new)) = (listed(a), listed(b)) else {
        tally.refused += 1;
        return Ok(());
    };
    let before = host(kind.read(&old));
    let after = kind.read(&new);
    let edits: HostEdits = edits_of_tables(&before.ruleset.tables, &after).map_err(|e| e.to_string())?;
    if !edits.unsaid.is_empty() {
        return Err(format!("unsaid: {:?}", edits.unsaid));
    }
    tally.pairs += 1;
    tally.changes += edits.changes.len();
    tally.same += usize::from(edits.changes.is_empty());
    let wanted = kind.blocks(&new);
    let said: Vec<String> =
        commands(&before, &edits).into_iter().collect::<Result<_, _>>().map_err(|e| e.to_string())?;
    let steps = said.join("\n");
    let told = |how: &str, script: &str, why: String| {
        format!("{kind:?}, by {how}: {why}\n--- from\n{a}\n--- to\n{b}\n--- script\n{script}")
    };
    let judge = |how: &str, script: &str| match apart(&format!("{}{script}\n{}", kind.load(a), kind.list())) {
        Err(why) => Err(told(how, script, why)),
        Ok(is) => {
            let is = kind.blocks(&is);
            let keys = is.keys().chain(wanted.keys()).filter(|k| is.get(*k) != wanted.get(*k));
            let wrong: Vec<String> =
                keys.map(|k| format!("{k}: {:?}, not {:?}", is.get(k), wanted.get(k))).collect();
            match wrong.is_empty() {
                true => Ok(()),
                false => Err(told(how, script, wrong.join("\n"))),
            }
        }
    };
    judge("commands", &steps)?;
    let (files, unsaid) = payloads(&before, &edits);
    let hard: Vec<String> = unsaid
        .iter()
        .map(ToString::to_string)
        .filter(|what| !what.contains("is emptied, but stays"))
        .collect();
    if !hard.is_empty() {
        return Err(told("files", &steps, format!("{hard:?}")));
    }
    tally.several_files += usize::from(files.len() > 2);
    judge("files", &files.iter().map(fed).collect::<String>())
}

fn pairs(usual: usize) -> usize {
    std::env::var("LAB_PAIRS").ok().and_then(|v| v.parse().ok()).unwrap_or(usual)
}

fn run(name: &str, count: usize, mut one: impl FnMut(&mut Dice, usize, &mut Tally) -> Result<(), String>) {
    if !allowed() {
        return;
    }
    let seed = std::env::var("LAB_SEED").ok().and_then(|v| v.parse().ok()).unwrap_or(1_u64);
    let (start, mut tally) = (Instant::now(), Tally::default());
    for at in 0..count {
        let mut dice = Dice::of(seed * 1_000_003 + at as u64);
        if let Err(why) = one(&mut dice, at, &mut tally) {
            if let Ok(folder) = std::env::var("LAB_EDITS_KEEP") {
                let _ = fs::write(format!("{folder}/{name}-{at}.txt"), &why);
            }
            panic!("{name} {at}: {why}");
        }
    }
    eprintln!("{name}: {tally:?} in {:.1} s", start.elapsed().as_secs_f64());
    assert!(tally.pairs * 10 >= count * 9, "most rule sets should load: {tally:?}");
    assert!(tally.changes > count, "{tally:?}");
}

#[test]
fn iptables_becomes_what_was_asked() {
    run("iptables", pairs(40), |dice, at, tally| {
        let (a, b) = draw::iptables_pair(dice);
        let kind = if at % 4 == 3 { Kind::Legacy } else { Kind::Iptables };
        ask(kind, &a, &b, tally)
    });
}

#[test]
fn nft_becomes_what_was_asked() {
    run("nft", pairs(60), |dice, at, tally| {
        let (a, b) = draw::nft_pair(dice);
        let form = [Form::Text, Form::Handles, Form::Json][at % 3];
        ask(Kind::Nft(form), &a, &b, tally)
    });
}

/// One pair that is written here.
fn one(kind: Kind, a: &str, b: &str) {
    if allowed() {
        let mut tally = Tally::default();
        ask(kind, a, b, &mut tally).unwrap_or_else(|why| panic!("{why}"));
        assert_eq!(tally.pairs, 1, "both load: {tally:?}");
    }
}

fn filter(chains: &str, rules: &str) -> String {
    format!(
        "*filter\n:INPUT ACCEPT [0:0]\n:FORWARD ACCEPT [0:0]\n:OUTPUT ACCEPT [0:0]\n{chains}{rules}COMMIT\n"
    )
}

/// While rules change, no circle may be closed even for a moment.
#[test]
fn jumps_can_be_turned_round() {
    let chains = ":x - [0:0]\n:y - [0:0]\n:z - [0:0]\n";
    let a = filter(chains, "-A x -j y\n-A y -j z\n-A FORWARD -j x\n");
    let b = filter(chains, "-A z -j y\n-A y -j x\n-A FORWARD -j z\n");
    one(Kind::Iptables, &a, &b);
    one(Kind::Legacy, &a, &b);
}

/// A target is refused while a packet could come to it from a hook that it is
/// not for, though neither rule set lets one.
#[test]
fn a_chain_can_change_the_hook_it_serves() {
    let nat = |rules: &str| {
        let chains = ["PREROUTING", "INPUT", "OUTPUT", "POSTROUTING"].map(|c| format!(":{c} ACCEPT [0:0]\n"));
        format!("*nat\n{}:x - [0:0]\n{rules}COMMIT\n", chains.concat())
    };
    let a = nat("-A PREROUTING -j x\n-A x -p tcp -j REDIRECT\n");
    let b = nat("-A POSTROUTING -j x\n-A x -p tcp -j MASQUERADE\n");
    one(Kind::Iptables, &a, &b);
    one(Kind::Legacy, &a, &b);
}

/// In a file, `:CHAIN` would empty a chain that is there: its counters stay.
#[test]
fn files_keep_the_counters_of_kept_rules() {
    if !allowed() {
        return;
    }
    let a = filter(":x - [0:0]\n", "[5:300] -A x -s 10.0.0.1 -j ACCEPT\n-A FORWARD -j x\n");
    let b = a.replace("COMMIT", "-A x -s 10.0.0.2/32 -j DROP\nCOMMIT");
    let a = a.replace("10.0.0.1", "10.0.0.1/32");
    let edits = edits_of_tables(&v4(&a), &v4(&b)).unwrap();
    let before = host(v4(&a));
    let load = format!("printf %s {} | iptables-restore -c\n", quoted(&a));
    for script in [
        commands(&before, &edits).into_iter().map(|c| c.unwrap() + "\n").collect::<String>(),
        payloads(&before, &edits).0.iter().map(fed).collect(),
    ] {
        let kept = apart(&format!("{load}{script}iptables-save -c")).unwrap();
        assert!(kept.contains("[5:300] -A x -s 10.0.0.1/32 -j ACCEPT\n[0:0] -A x -s 10.0.0.2/32"), "{kept}");
    }
}

fn v4(text: &str) -> Vec<Table> {
    iptables::parse("iptables.save", text.to_owned(), Family::Ipv4).unwrap()
}

/// A named set that becomes one of another type is made anew: the rules that
/// ask it go and come, and no others.
#[test]
fn a_set_can_become_another() {
    let table = |kind: &str, elements: &str, rule: &str| {
        format!("table inet t {{\n\tset s {{ type {kind}; elements = {{ {elements} }}; }}\n\tchain c {{\n\t\taccept\n\t\t{rule} @s drop\n\t\treturn\n\t}}\n}}\n")
    };
    let a = table("inet_service", "22, 80", "tcp dport");
    let b = table("ipv4_addr", "10.0.0.1", "ip saddr");
    for form in [Form::Text, Form::Handles, Form::Json] {
        one(Kind::Nft(form), &a, &b);
    }
}

/// A base chain cannot be moved: it is made anew with its rules.
#[test]
fn a_base_chain_can_change_its_hook() {
    let table = |hook: &str, rules: &str| {
        format!("table inet t {{\n\tchain c {{\n\t\ttype filter hook {hook} priority 0; policy drop;\n{rules}\t}}\n}}\n")
    };
    let a = table("input", "\t\tct state established accept\n\t\ttcp dport 22 accept\n");
    let b = table("forward", "\t\tct state established accept\n\t\tudp dport 53 accept\n");
    for form in [Form::Text, Form::Handles, Form::Json] {
        one(Kind::Nft(form), &a, &b);
    }
}

/// nft lists a chain with a name of its grammar's words, and cannot read what
/// it lists: such a chain is spoken of in JSON.
#[test]
fn a_chain_may_be_named_by_a_word_of_nft() {
    if !allowed() {
        return;
    }
    let made = r#"nft -j '{"nftables":[{"add":{"table":{"family":"inet","name":"t"}}},{"add":{"chain":{"family":"inet","table":"t","name":"fwd"}}}]}'"#;
    let refused = apart(&format!("{made}\nnft list ruleset | nft -f -"));
    assert!(refused.unwrap_err().contains("unexpected fwd"));
    let listed = apart(&format!("{made}\nnft -j list ruleset")).unwrap();
    let before = host(nft_json::parse("nft.json", &listed).unwrap());
    let mut after = before.ruleset.tables.clone();
    after[0].chains.clear();
    let edits = edits_of_tables(&before.ruleset.tables, &after).unwrap();
    let said: Vec<String> = commands(&before, &edits).into_iter().map(Result::unwrap).collect();
    let left = apart(&format!("{made}\n{}\nnft list ruleset", said.join("\n"))).unwrap();
    assert_eq!(left.trim(), "table inet t {\n}");
}

/// Nothing of a comment or a name is run.
#[test]
fn hostile_comments_and_names_are_words() {
    let rules = "-A FORWARD -m comment --comment \"$(touch owned); `touch owned`\" -j \\$(id)\n";
    let a = filter("", "");
    let b = filter(":$(touch${IFS}owned) - [0:0]\n", &rules.replace("\\$(id)", "$(touch${IFS}owned)"));
    one(Kind::Iptables, &a, &b);
    one(Kind::Iptables, &b, &a);
    assert!(!std::path::Path::new("owned").exists());
}
