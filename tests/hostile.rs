//! Snapshots made by an adversary: nothing outside is read, nothing hangs,
//! nothing harmful reaches a terminal, nothing panics.

#![allow(clippy::unwrap_used, clippy::panic)]

use std::fs;
use std::os::unix::fs::symlink;
use std::process::Command;
use std::time::{Duration, Instant};

use lab_workspace::{Run, Scratch};

/// Everything a person could ask of the pair.
fn ask_all(snapshot: &Scratch) -> Vec<Run> {
    let show = snapshot.ask("show", &[]);
    let json = snapshot.ask("show", &["--json"]);
    let trace = snapshot.ask("trace", &["a", "b", "--full"]);
    let trace_json = snapshot.ask("trace", &["a", "b", "--json"]);
    vec![show, json, trace, trace_json]
}

fn refused(snapshot: &Scratch, expected: &str) {
    for run in ask_all(snapshot) {
        assert_eq!((run.code, run.out.as_str(), run.err.as_str()), (2, "", expected));
    }
}

const LINK: &str = "a symbolic link; snapshots are read without following any";

#[test]
fn symbolic_links_are_not_followed() {
    let other = Scratch::pair();
    for (at, to, shown) in [
        ("hosts/c", "a", "hosts/c"),
        ("hosts/c", "/etc", "hosts/c"),
        ("hosts/a/ipset.save", "iptables.save", "hosts/a/ipset.save"),
        ("hosts/a/ipset.save", "/etc/passwd", "hosts/a/ipset.save"),
        ("hosts/a/ipset.save", "no/such/file", "hosts/a/ipset.save"),
        ("hosts/a/ipset.save", "../../../../../../../../etc/passwd", "hosts/a/ipset.save"),
        ("lab.toml", "hosts/a/link.json", "lab.toml"),
    ] {
        let pair = Scratch::pair();
        let _ = fs::remove_file(pair.at(at));
        symlink(to, pair.at(at)).unwrap();
        refused(&pair, &format!("lab: {shown}: refused: {LINK}\n"));
    }
    let pair = Scratch::pair();
    fs::remove_dir_all(pair.at("hosts")).unwrap();
    symlink(other.at("hosts"), pair.at("hosts")).unwrap();
    refused(&pair, &format!("lab: hosts: refused: {LINK}\n"));
    for (verb, rest, file) in
        [("predict", &[][..], "probes.json"), ("check", &["--observed"], "observed.json")]
    {
        let pair = Scratch::pair();
        symlink("/etc/passwd", pair.at(file)).unwrap();
        let run = pair.ask(verb, rest);
        assert_eq!((run.code, run.err), (2, format!("lab: {file}: refused: {LINK}\n")));
    }
}

#[test]
fn a_link_to_a_snapshot_may_be_named_on_the_command_line() {
    let pair = Scratch::pair();
    let link = pair.path().with_file_name("link");
    symlink(pair.path(), &link).unwrap();
    assert_eq!(lab_workspace::ask("trace", &link, &["a", "b"]).code, 0);
}

#[test]
fn host_folders_named_with_escape_sequences_are_refused() {
    let pair = Scratch::pair();
    fs::create_dir(pair.at("hosts/\u{1b}[31mred")).unwrap();
    refused(&pair, "lab: hosts/\\u{1b}[31mred: refused: control characters in the name\n");
}

#[test]
fn host_names_are_not_taken_as_paths() {
    for name in ["..", "../a", "/etc", ".", "a/../../b", ""] {
        let pair = Scratch::pair();
        let text = pair.read("lab.toml");
        pair.write("lab.toml", format!("{text}\n[hosts.\"{name}\"]\nkind = \"vm\"\n"));
        let run = pair.ask("show", &[]);
        assert_eq!((run.code, run.out.as_str()), (2, ""), "{name}");
        assert!(run.err.starts_with("lab: lab.toml:9: "), "{name}: {}", run.err);
    }
}

#[test]
fn huge_files_are_refused_unread() {
    let pair = Scratch::pair();
    let size = (256 << 20) + 1;
    fs::File::create(pair.at("hosts/a/route.json")).unwrap().set_len(size).unwrap();
    refused(
        &pair,
        &format!("lab: hosts/a/route.json: refused: {size} bytes, at most {} are read\n", size - 1),
    );
}

#[test]
fn deep_nesting_is_refused() {
    let deep = 100_000;
    for file in [
        "link.json",
        "addr.json",
        "route.json",
        "rule.json",
        "neigh.json",
        "fdb.json",
        "bridge-vlan.json",
        "nft.json",
    ] {
        let pair = Scratch::pair();
        let nested = format!("{}{}", "[".repeat(deep), "]".repeat(deep));
        let inside = format!("{{\"nftables\": [{{\"table\": {{\"name\": {nested}}}}}]}}");
        for text in [&nested, &inside, &format!("[{{\"x\": {nested}}}]")] {
            pair.write(&format!("hosts/a/{file}"), text);
            let run = pair.ask("show", &[]);
            assert_eq!((run.code, run.out.as_str()), (2, ""), "{file}");
            assert!(run.err.starts_with(&format!("lab: hosts/a/{file}:1: ")), "{}", run.err);
            assert!(run.err.len() < 500, "{}", run.err.len());
        }
    }
    let pair = Scratch::pair();
    pair.write("lab.toml", format!("x = {}{}\n", "[".repeat(deep), "]".repeat(deep)));
    assert_eq!(pair.ask("show", &[]).code, 2);
    pair.write("lab.toml", format!("{} = 1\n", vec!["x"; deep].join(".")));
    assert_eq!(pair.ask("show", &[]).code, 2);
}

#[test]
fn what_is_no_plain_file_is_refused() {
    let pair = Scratch::pair();
    fs::remove_file(pair.at("hosts/a/route.json")).unwrap();
    match Command::new("mkfifo").arg(pair.at("hosts/a/route.json")).status() {
        Ok(status) if status.success() => {
            refused(&pair, "lab: hosts/a/route.json: refused: not a plain file\n");
            fs::remove_file(pair.at("hosts/a/route.json")).unwrap();
        }
        failed => eprintln!("skipped: no FIFO could be made: {failed:?}"),
    }
    fs::create_dir(pair.at("hosts/a/route.json")).unwrap();
    refused(&pair, "lab: hosts/a/route.json: refused: not a plain file\n");
}

/// Colours, a title, a cursor move, a bell, a C1 sequence, reordered text.
const ESCAPES: &str = "\u{1b}[31m\u{1b}]0;title\u{7}\u{1b}[2J\u{9b}1A\u{202e}";

#[test]
fn escape_sequences_never_reach_a_terminal() {
    let json = serde_json::Value::from(ESCAPES).to_string();
    let inner = &json[1..json.len() - 1];
    let toml = "\\u001b[31m\\u001b]0;title\\u0007\\u001b[2J\\u009b1A\\u202e";
    let changes: Vec<(&str, &str, String)> = vec![
        ("lab.toml", "name = \"pair\"", format!("name = \"pair{toml}\"\ndescription = \"{toml}\"")),
        ("lab.toml", "kind = \"vm\"", format!("kind = \"{toml}\"")),
        ("lab.toml", "endpoints", format!("name = \"{toml}\"\n\"{toml}\" = 1\nendpoints")),
        ("lab.toml", "\"a:eth0\"", format!("\"a:{toml}\"")),
        ("lab.toml", "[hosts.a]", format!("[hosts.\"{toml}\"]")),
        ("hosts/a/link.json", "\"eth0\"", format!("\"eth0{inner}\"")),
        ("hosts/a/link.json", "\"mtu\":1500", format!("\"{inner}\":1,\"mtu\":1500")),
        ("hosts/a/addr.json", "\"10.0.0.1\"", format!("\"10.0.0.1{inner}\"")),
        ("hosts/a/route.json", "\"10.0.0.0/24\"", format!("\"10.0.0.0/24\",\"{inner}\":\"{inner}\"")),
        ("hosts/a/bridge-vlan.json", "[]", format!("[{{\"ifname\":\"{inner}\"}}]")),
        ("hosts/a/sysctl.txt", "net.ipv4.ip_forward = 0", format!("{ESCAPES} {ESCAPES}")),
    ];
    let mut scratches: Vec<Scratch> = changes
        .iter()
        .map(|(file, old, new)| {
            let pair = Scratch::pair();
            pair.replace(file, old, new);
            pair
        })
        .collect();
    for rule in [
        format!("-A INPUT -m comment --comment \"{ESCAPES}\" -j REJECT --reject-with icmp-port-unreachable"),
        format!("-A INPUT -j {ESCAPES}"),
        format!("-A INPUT -j LOG --log-prefix \"{ESCAPES}\"\n-A INPUT -i {ESCAPES} -j DROP"),
        format!("-A INPUT -m {ESCAPES} --x {ESCAPES} -j DROP"),
        format!(":{ESCAPES} - [0:0]\n-A INPUT -j {ESCAPES}\n-A {ESCAPES} -j DROP"),
    ] {
        let pair = Scratch::pair();
        pair.filter_of_b(&rule);
        scratches.push(pair);
    }
    let pair = Scratch::pair();
    pair.write(&format!("hosts/a/{ESCAPES}"), "");
    scratches.push(pair);
    for pair in &scratches {
        let packet = r#"{"src":"10.0.0.1","dst":"10.0.0.2","proto":"icmp","icmp_type":8}"#;
        let probe = format!(r#"[{{"id":"{inner}","at":"a","how":"originate","packet":{packet}}}]"#);
        pair.write("probes.json", probe);
        let asked = r#""id":1,"from":"a","to":"10.0.0.2","proto":"icmp","outcome":"reply""#;
        let seen = format!(r#"{{"probes":[{{{asked},"served_by":"{inner}","to_host":"{inner}"}}]}}"#);
        pair.write("observed.json", seen);
        let more = [
            pair.ask("predict", &[]),
            pair.ask("check", &["--observed"]),
            pair.ask("check", &["--observed", "--json"]),
        ];
        for run in ask_all(pair).into_iter().chain(more) {
            for text in [run.out, run.err] {
                let harmful = |c: char| c != '\n' && (c.is_control() || c == '\u{202e}');
                assert!(!text.contains(harmful), "{text:?}");
            }
        }
    }
}

/// Asks of a filter, and fails if it takes longer than a person waits.
fn quick(lines: &str) -> Run {
    let pair = Scratch::pair();
    pair.filter_of_b(lines);
    let started = Instant::now();
    let run = pair.ask("trace", &["a", "b"]);
    assert!(started.elapsed() < Duration::from_secs(20), "{:?}", started.elapsed());
    assert_eq!(pair.ask("show", &[]).code, 0);
    run
}

fn chains(count: usize) -> String {
    (0..count).map(|i| format!(":c{i} - [0:0]\n")).collect()
}

#[test]
fn a_chain_of_ten_thousand_jumps_neither_hangs_nor_overflows() {
    let count = 10_000;
    let jumps: String = (1..count).map(|i| format!("-A c{} -j c{i}\n", i - 1)).collect();
    let last = count - 1;
    let run = quick(&format!("{}-A INPUT -j c0\n{jumps}-A c{last} -j DROP", chains(count)));
    assert_eq!((run.code, run.err.as_str()), (1, ""));
    let gotos: String = (1..count).map(|i| format!("-A c{} -g c{i}\n", i - 1)).collect();
    let run = quick(&format!("{}-A INPUT -g c0\n{gotos}-A c{last} -j DROP", chains(count)));
    assert!(run.out.contains("b: dropped in ip filter, c9999, rule 1"), "{}", run.out);
    assert_eq!((run.code, run.err.as_str()), (1, ""));
}

#[test]
fn jumps_that_fan_out_without_bound_end_as_possible() {
    let levels = 40;
    let jumps: String = (1..levels).map(|i| format!("-A c{0} -j c{i}\n-A c{0} -j c{i}\n", i - 1)).collect();
    let run = quick(&format!("{}-A INPUT -j c0\n{jumps}-A INPUT -j DROP", chains(levels)));
    assert!(run.out.contains("possible, not certain"), "{}", run.out);
    assert_eq!((run.code, run.err.as_str()), (1, ""));
}

#[test]
fn chance_in_every_rule_ends_as_possible() {
    let rule = "-A INPUT -m statistic --mode random --probability 0.5 -j MARK --set-xmark 0x1/0xffffffff\n";
    let run = quick(&format!("{}-A INPUT -j DROP", rule.repeat(60)));
    assert_eq!((run.code, run.err.as_str()), (1, ""));
}

/// A small generator, so that a failing run can be repeated.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 % (bound.max(1) as u64)).unwrap()
    }
}

fn mutate(random: &mut Random, bytes: &mut Vec<u8>) {
    const WORDS: [&str; 12] =
        ["{", "}", "[", "\"", "-1", "99999999999999999999", "null", "0.0.0.0/0", "-j", "!", "\n", "\u{feff}"];
    for _ in 0..=random.below(3) {
        let (at, other) = (random.below(bytes.len()), random.below(bytes.len()));
        if bytes.is_empty() {
            return;
        }
        match random.below(6) {
            0 => bytes[at] = u8::try_from(random.below(256)).unwrap(),
            1 => bytes[at] ^= 1 << random.below(8),
            2 => bytes.truncate(at),
            3 => drop(bytes.drain(at.min(other)..at.max(other).min(at.min(other) + 40))),
            4 => {
                let word = WORDS[random.below(WORDS.len())].bytes();
                drop(bytes.splice(at..at, word));
            }
            _ => {
                let part: Vec<u8> = bytes[at..(at + 60).min(bytes.len())].to_vec();
                drop(bytes.splice(other..other, part));
            }
        }
    }
}

#[test]
fn random_damage_is_an_error_or_an_answer_and_never_a_panic() {
    let copy = Scratch::copy_of("03-rules-inserted");
    let mut files: Vec<String> =
        vec!["lab.toml".into(), "observed.json".into(), "hosts/home-router/nft.json".into()];
    for name in [
        "link.json",
        "addr.json",
        "route.json",
        "route6.json",
        "rule.json",
        "rule6.json",
        "neigh.json",
        "fdb.json",
        "bridge-vlan.json",
        "sysctl.txt",
        "iptables.save",
        "ip6tables.save",
        "ipset.save",
    ] {
        files.push(format!("hosts/compute/{name}"));
    }
    let mut random = Random(0x1ab);
    let (mut refused, mut answered) = (0, 0);
    for file in &files {
        let whole = copy.read(file);
        for round in 0..40 {
            let mut bytes = whole.clone().into_bytes();
            mutate(&mut random, &mut bytes);
            copy.write(file, &bytes);
            let run = if file == "observed.json" {
                copy.ask("check", &["--observed"])
            } else if round % 2 == 0 {
                copy.ask("trace", &["master", "k8s-worker-1", "--dport", "22"])
            } else {
                copy.ask("show", &["compute", "--json"])
            };
            if run.code == 2 {
                assert!(run.out.is_empty() && run.err.starts_with("lab: "), "{file}: {}", run.err);
                refused += 1;
            } else {
                assert!(run.err.is_empty(), "{file}: {}", run.err);
                answered += 1;
            }
        }
        copy.write(file, &whole);
    }
    assert!(refused > 100 && answered > 50, "{refused} refused, {answered} answered");
}
