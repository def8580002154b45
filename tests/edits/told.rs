//! The texts of small edits, what is refused, and how long equal rule sets take.

use std::time::Instant;

use lab_core::addr::Family;
use lab_core::formats::{iptables, nft_text};
use lab_core::model::{Host, Lab, Table};
use lab_core::query::diff::edits::{edits, edits_of_tables};
use lab_core::query::what_if::{undo, what_if, HostChange};
use lab_core::render::edits::{commands, json, payloads, unified};

fn host(tables: Vec<Table>) -> Host {
    let mut host = Host { name: "router".into(), ..Host::default() };
    host.ruleset.tables = tables;
    host
}

/// Everything that is said of two rule sets.
fn said(old: Vec<Table>, new: &[Table]) -> String {
    let before = host(old);
    let edits = edits_of_tables(&before.ruleset.tables, new).unwrap();
    let mut out: String = edits.chains.iter().map(unified).collect();
    for command in commands(&before, &edits) {
        out += &command.map_or_else(|why| format!("! {why}\n"), |command| format!("$ {command}\n"));
    }
    let (files, unsaid) = payloads(&before, &edits);
    for file in files {
        out += &format!("< {}\n{}", file.command.join(" "), file.text);
    }
    for what in unsaid {
        out += &format!("! {what}\n");
    }
    out
}

fn v4(text: &str) -> Vec<Table> {
    iptables::parse("iptables.save", text.to_owned(), Family::Ipv4).unwrap()
}

const OLD: &str = "*filter
:INPUT ACCEPT [7:420]
:FORWARD ACCEPT [0:0]
:OLD - [0:0]
[5:300] -A INPUT -i lo -j ACCEPT
-A INPUT -p tcp --dport 22 -j ACCEPT
-A INPUT -p tcp --dport 80 -j OLD
-A INPUT -j DROP
-A FORWARD -s 10.0.0.0/8 -j ACCEPT
-A FORWARD -j DROP
-A OLD -j LOG
COMMIT
";

const NEW: &str = "*filter
:FORWARD ACCEPT [0:0]
:INPUT DROP [0:0]
:NEW - [0:0]
-A INPUT -i lo -j ACCEPT
-A INPUT -p tcp -m tcp --dport 80 -m comment --comment \"it's $(new)\" -j NEW
-A INPUT -p tcp -m tcp --dport 22 -j ACCEPT
-A FORWARD -s 10.0.0.0/255.0.0.0 -j ACCEPT
-A FORWARD -j DROP
-A NEW -j ACCEPT
COMMIT
";

#[test]
fn a_table_of_iptables() {
    insta::assert_snapshot!(said(v4(OLD), &v4(NEW)));
}

const NFT: &str = "table inet fw {
	set ports {
		type inet_service
		elements = { 22, 80 }
	}
	chain in { # handle 1
		type filter hook input priority filter; policy accept;
		iif \"lo\" accept # handle 4
		tcp dport @ports accept # handle 5
		limit rate 1/second log # handle 6
		drop # handle 7
	}
}
";

#[test]
fn a_table_of_nft() {
    let new = NFT
        .replace("22, 80", "22, 443")
        .replace("policy accept", "policy drop")
        .replace("rate 1/second", "rate 2/second")
        .replace(
            "\t\tdrop # handle 7\n",
            "\t\tip saddr 10.0.0.0/8 accept comment \"it's $(new)\"\n\t\tjump more\n",
        )
        .replace("\tset ports", "\tchain more {\n\t}\n\tset ports");
    let read = |text: &str| nft_text::parse("nft.txt", text).unwrap();
    insta::assert_snapshot!(said(read(NFT), &read(&new)));
    // Without handles, what is taken out is found when the command runs, and
    // a file fills the chain anew.
    let bare = |text: &str| {
        text.lines().map(|line| line.split(" # handle").next().unwrap().to_owned() + "\n").collect::<String>()
    };
    insta::assert_snapshot!(said(read(&bare(NFT)), &read(&bare(&new))));
}

fn lab(tables: Vec<Table>) -> Lab {
    let mut lab = Lab::default();
    lab.hosts.insert("router".into(), host(tables).into());
    lab
}

#[test]
fn edits_as_json() {
    let (a, b) = (lab(v4(OLD)), lab(v4(NEW)));
    let found = json(&a, &edits(&a, &b).unwrap());
    assert_eq!(found["schema"], "lab.edits/1");
    insta::assert_snapshot!(serde_json::to_string_pretty(&found).unwrap());
}

#[test]
fn what_does_not_fit_is_refused() {
    let lab = lab(v4(OLD));
    for (change, why) in [
        ("switch: iptables -A FORWARD -j DROP", "no host named `switch`"),
        ("router: iptables -A MINE -j DROP", "router has no chain MINE"),
        ("router: iptables -A FORWARD -j MINE", "router has no chain MINE"),
        ("router: iptables -I FORWARD 4 -j DROP", "router has no place 4 in FORWARD"),
        ("router: iptables -I FORWARD 0 -j DROP", "router has no place 0 in FORWARD"),
        ("router: iptables -D FORWARD 3", "router has no rule 3 in FORWARD"),
        ("router: iptables -R FORWARD 3 -j DROP", "router has no rule 3 in FORWARD"),
        ("router: iptables -X OLD", "router: OLD still has rules"),
        ("router: iptables -X FORWARD", "router: FORWARD is built in"),
        ("router: iptables -N OLD", "router: filter OLD is there already"),
        ("router: iptables -P OLD DROP", "router: OLD is no base chain: it has no policy"),
        ("router: iptables -A OLD -j INPUT", "router: a jump from OLD to INPUT leads back to OLD"),
        ("router: ip6tables -D FORWARD 1", "router has no chain FORWARD"),
        ("router: ip route del 10.0.0.0/8", "router has no route to 10.0.0.0/8"),
        ("router: ip route add 10.0.0.0/8 dev eth0", "router has no interface eth0"),
        ("router: ip rule del pref 7 table 7", "router has no such policy rule 7"),
        ("router: ip addr del 10.0.0.1/8 dev eth0", "router has no interface eth0"),
        ("router: ip link set eth0 up", "router has no interface eth0"),
    ] {
        let change: HostChange = change.parse().unwrap();
        let told = what_if(&lab, std::slice::from_ref(&change)).unwrap_err().to_string();
        assert_eq!(told, why);
        assert_eq!(undo(&lab, &change).unwrap_err().to_string(), why);
    }
    let untold: HostChange = "router: sysctl -w net.ipv4.tcp_ecn=1".parse().unwrap();
    let why = "router: what net.ipv4.tcp_ecn is now is not told";
    assert_eq!(undo(&lab, &untold).unwrap_err().to_string(), why);
}

/// The first rule of iptables makes its table, as `iptables` does.
#[test]
fn a_rule_of_a_table_that_is_not_there_makes_it() {
    let lab = lab(Vec::new());
    let change: HostChange = "router: iptables -t nat -A POSTROUTING -j MASQUERADE".parse().unwrap();
    let made = what_if(&lab, std::slice::from_ref(&change)).unwrap();
    assert_eq!(made.host("router").unwrap().ruleset.tables[0].chains.len(), 4);
    let back = undo(&lab, &change).unwrap();
    assert_eq!(what_if(&made, &back).unwrap(), lab);
}

#[test]
fn hosts_and_wires_that_differ_are_named() {
    let (a, mut b) = (lab(v4(OLD)), lab(v4(OLD)));
    b.hosts.insert("new".into(), Host { name: "new".into(), ..Host::default() }.into());
    b.host_mut("router").unwrap().parent = Some("rack".into());
    let found = edits(&a, &b).unwrap();
    assert_eq!(found.unsaid, ["host new is new"]);
    assert_eq!(found.hosts[0].unsaid, ["host below was None, is Some(\"rack\")"]);
    assert!(found.changes().is_empty());
}

#[test]
fn a_big_table_and_its_like_take_little_time() {
    let text = || {
        let mut text = "*filter\n:FORWARD ACCEPT [0:0]\n".to_owned();
        for chain in 0..40_000 {
            text += &format!(":KUBE-SVC-{chain} - [0:0]\n");
        }
        for chain in 0..40_000 {
            for rule in 0..3 {
                text += &format!(
                    "-A KUBE-SVC-{chain} -s 10.{}.{}.{rule}/32 -p tcp -m tcp --dport 80 -j RETURN\n",
                    chain / 256,
                    chain % 256
                );
            }
        }
        text + "COMMIT\n"
    };
    let (a, mut b) = (v4(&text()), v4(&text()));
    let start = Instant::now();
    assert!(edits_of_tables(&a, &b).unwrap().is_empty());
    let equal = start.elapsed();
    b[0].chains[20_000].rules.remove(1);
    let start = Instant::now();
    assert_eq!(edits_of_tables(&a, &b).unwrap().changes.len(), 1);
    eprintln!("120,000 rules in 40,000 chains: equal in {equal:?}, one rule less in {:?}", start.elapsed());
    // Ten times what it takes unoptimized on a slow machine.
    assert!(equal.as_millis() < 1000, "{equal:?}");
}
