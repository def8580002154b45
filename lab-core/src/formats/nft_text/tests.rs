use super::*;
use crate::model::{
    Atom, ChainKind, Comparison, Expression, Hook, Match, NatAddress, NatKind, NatRange, NftSetRef, Policy,
    Statement, TableFamily, Target, Verdict,
};

fn rule(line: &str) -> Vec<Statement> {
    let text = format!("table inet fw {{\n\tchain extra {{\n\t}}\n\tchain c {{\n\t\t{line}\n\t}}\n}}\n");
    parse("nft.txt", &text).unwrap()[0].chains[1].rules[0].statements.clone()
}

fn same(line: &str, json: &str) {
    let head = r#"{"table": {"family": "inet", "name": "fw"}}, {"chain": {"family": "inet", "table": "fw", "name": "extra"}}, {"chain": {"family": "inet", "table": "fw", "name": "c"}}"#;
    let text = format!(
        r#"{{"nftables": [{head}, {{"rule": {{"family": "inet", "table": "fw", "chain": "c", "expr": [{json}]}}}}]}}"#
    );
    let read = nft_json::parse("nft.json", &text).unwrap();
    assert_eq!(rule(line), read[0].chains[1].rules[0].statements, "{line}");
}

#[test]
fn reads_tables_chains_sets_and_what_stands_beside_them() {
    let text = r#"#!/usr/sbin/nft -f
flush ruleset
# Warning: table ip nat is managed by iptables-nft, do not touch!
table ip nat { # handle 7
	comment "first"
	counter seen { # handle 2
		packets 3 bytes 180
	}
	ct helper ftp {
		type "ftp" protocol tcp
		l3proto ip
	}
	set nets { # handle 4
		type ipv4_addr . inet_service
		flags interval,timeout
		comment "a } in a comment"
		elements = { 10.0.0.0/8 . 80-90 timeout 5m expires 4m59s984ms comment "x",
			     192.0.2.1 . 22 }
	}
	map doors {
		typeof tcp dport : verdict
		elements = { 22 counter packets 1 bytes 40 : accept, * : jump extra }
	}
	chain extra { # handle 1
	}
	chain out { # handle 3
		comment "b"
		type nat hook postrouting priority srcnat - 5; policy drop;
		oifname "eth*" ip saddr . tcp dport @nets counter packets 7 bytes 420 masquerade comment "door" # handle 9
		tcp dport { 22,
			     80 } tcp dport vmap @doors
	}
}
table bridge b {
	chain f {
		type filter hook forward priority filter; policy accept;
	}
}
"#;
    let tables = parse("nft.txt", text).unwrap();
    let [nat, bridge] = tables.as_slice() else { panic!("{tables:?}") };
    assert_eq!((nat.family, nat.name.as_str(), nat.origin.line), (TableFamily::Ip, "nat", 4));
    let kept: Vec<(&str, u32)> = nat.unmodelled.iter().map(|u| (u.what.as_str(), u.origin.line)).collect();
    assert_eq!(kept, [("counter seen", 6), ("ct helper ftp", 9)]);
    assert!(nat.unmodelled[0].text.ends_with("packets 3 bytes 180\n\t}"), "{}", nat.unmodelled[0].text);
    let nets = nat.set("nets").unwrap();
    assert_eq!((nets.dynamic, nets.unmodelled.as_str()), (true, ""));
    assert_eq!(nets.elements[0], [Atom::Range(0x0a00_0000, 0x0aff_ffff), Atom::Range(80, 90)]);
    let doors = nat.set("doors").unwrap();
    assert_eq!(doors.verdicts, [Verdict::Accept, Verdict::Jump("extra".into())]);
    let out = nat.chain("out").unwrap();
    let base = out.base.unwrap();
    assert_eq!(
        (base.kind, base.hook, base.priority, base.policy),
        (ChainKind::Nat, Hook::Postrouting, 95, Policy::Drop)
    );
    let [first, second] = out.rules.as_slice() else { panic!("{out:?}") };
    assert_eq!(first.text, "oifname \"eth*\" ip saddr . tcp dport @nets counter masquerade");
    assert_eq!(
        (first.counters, first.comment.as_deref(), first.handle),
        (Some((7, 420)), Some("door"), Some(9))
    );
    assert_eq!(
        (second.text.as_str(), second.origin.line),
        ("tcp dport { 22, 80 } tcp dport vmap @doors", 30)
    );
    assert_eq!(bridge.chain("f").unwrap().base.unwrap().priority, -200);
    assert_eq!(parse("nft.txt", "\n").unwrap(), []);
}

#[test]
fn statements_mean_what_their_json_means() {
    same(
        "ct state established,related accept",
        r#"{"match": {"op": "in", "left": {"ct": {"key": "state"}}, "right": ["established", "related"]}}, {"accept": null}"#,
    );
    same(
        "tcp flags syn / fin,syn,rst,ack",
        r#"{"match": {"op": "==", "left": {"&": [{"payload": {"protocol": "tcp", "field": "flags"}}, ["fin", "syn", "rst", "ack"]]}, "right": "syn"}}"#,
    );
    same(
        "tcp flags & (fin | syn) != fin | syn",
        r#"{"match": {"op": "!=", "left": {"&": [{"payload": {"protocol": "tcp", "field": "flags"}}, {"|": ["fin", "syn"]}]}, "right": {"|": ["fin", "syn"]}}}"#,
    );
    same(
        "meta mark set (ct mark & 0x000000ff) << 2 | 0x1",
        r#"{"mangle": {"key": {"meta": {"key": "mark"}}, "value": {"|": [{"<<": [{"&": [{"ct": {"key": "mark"}}, 255]}, 2]}, 1]}}}"#,
    );
    same(
        "ct state new  meta mark set mark and 0xfffffff0 xor 0x5",
        r#"{"match": {"op": "in", "left": {"ct": {"key": "state"}}, "right": "new"}}, {"mangle": {"key": {"meta": {"key": "mark"}}, "value": {"^": [{"&": [{"meta": {"key": "mark"}}, 4294967280]}, 5]}}}"#,
    );
    same(
        "fib saddr . iif oif missing drop",
        r#"{"match": {"op": "==", "left": {"fib": {"result": "oif", "flags": ["saddr", "iif"]}}, "right": false}}, {"drop": null}"#,
    );
    same(
        "meta mark set numgen inc mod 2 map { 0 : 0x1, 1 : 0x2 }",
        r#"{"mangle": {"key": {"meta": {"key": "mark"}}, "value": {"map": {"key": {"numgen": {"mode": "inc", "mod": 2, "offset": 0}}, "data": {"set": [[0, 1], [1, 2]]}}}}}"#,
    );
    same(
        "reject with icmpx admin-prohibited",
        r#"{"reject": {"type": "icmpx", "expr": "admin-prohibited"}}"#,
    );
    same(
        "limit rate over 5/minute burst 3 packets log prefix \"ct \" flags tcp sequence,options notrack",
        r#"{"limit": {"rate": 5, "per": "minute", "inv": true}}, {"log": {"prefix": "ct ", "flags": ["tcp sequence", "tcp options"]}}, {"notrack": null}"#,
    );
    same(
        "ip6 saddr ::ffff:1.2.3.4 ip saddr 10.0.0.1-10.0.0.9",
        r#"{"match": {"op": "==", "left": {"payload": {"protocol": "ip6", "field": "saddr"}}, "right": "::ffff:1.2.3.4"}}, {"match": {"op": "==", "left": {"payload": {"protocol": "ip", "field": "saddr"}}, "right": {"range": ["10.0.0.1", "10.0.0.9"]}}}"#,
    );
}

#[test]
fn translations_keep_addresses_apart_from_ports() {
    let range = |line: &str| match rule(line).pop() {
        Some(Statement::Target(Target::Nat { kind, range })) => (kind, range),
        other => panic!("{other:?}"),
    };
    let address = |word: &str| {
        let address = word.parse().unwrap();
        Some(NatAddress::Range(address, address))
    };
    let to = |word: &str, port: u16| NatRange {
        address: address(word),
        ports: Some(port.into()),
        ..NatRange::default()
    };
    assert_eq!(range("dnat to 10.0.0.1:80"), (NatKind::Dnat, to("10.0.0.1", 80)));
    assert_eq!(range("dnat ip6 to [fd00::2]:80"), (NatKind::Dnat, to("fd00::2", 80)));
    let bare = NatRange { address: address("fd00::2:80"), ..NatRange::default() };
    assert_eq!(range("dnat ip6 to fd00::2:80"), (NatKind::Dnat, bare));
    let (_, found) = range("snat ip6 to [fd00::1]-[fd00::9]:1-9 persistent,random");
    assert_eq!(
        found.address,
        Some(NatAddress::Range("fd00::1".parse().unwrap(), "fd00::9".parse().unwrap()))
    );
    assert_eq!((found.ports.unwrap().high, found.persistent, found.random), (9, true, true));
    assert!(range("masquerade fully-random").1.random_fully);
    assert_eq!(range("redirect to :5353").1.ports, Some(5353.into()));
}

#[test]
fn what_is_not_understood_keeps_its_text() {
    let kept = |line: &str| {
        let mut found = Vec::new();
        for statement in rule(line) {
            match statement {
                Statement::Match(Match::Unmodelled { name, text })
                | Statement::Target(Target::Unmodelled { name, text }) => found.push((name, text)),
                _ => {}
            }
        }
        found
    };
    let pair = |name: &str, text: &str| (name.to_owned(), text.to_owned());
    assert_eq!(kept("meta skuid 0 accept"), [pair("meta skuid", "meta skuid 0")]);
    assert_eq!(kept("queue flags bypass to 1-3"), [pair("queue", "queue flags bypass to 1-3")]);
    assert_eq!(
        kept("ip saddr 10.0.0.1 frobnicate the packet accept"),
        [pair("frobnicate", "frobnicate the packet accept")]
    );
    assert_eq!(kept("tcp dport 80 dnat ip addr . port to tcp dport map { 80 : 10.0.0.1 . 8080 }").len(), 1);
    assert_eq!(kept("xt match \"conntrack\" drop"), [pair("conntrack", "xt match \"conntrack\"")]);
    // As nft prints what iptables-nft wrote.
    assert_eq!(kept("xt match recent counter packets 0 bytes 0 drop"), [pair("recent", "xt match recent")]);
    assert_eq!(kept("counter packets 0 bytes 0 # xt_CHECKSUM"), [pair("CHECKSUM", "# xt_CHECKSUM")]);
    assert_eq!(kept("counter packets some bytes 0").len(), 1);
    assert_eq!(kept("add @seen { ip saddr timeout 5m }").len(), 1);
    // A statement that reads like flags keeps its operator.
    let read = rule("ct state ! new");
    let [Statement::Match(Match::Nft(found))] = read.as_slice() else { panic!("{read:?}") };
    assert_eq!((&found.left, found.comparison), (&Expression::CtState, Comparison::NoBit));
    assert_eq!(found.right, NftSetRef::Elements(vec![vec![Atom::Range(8, 8)]]));
    let text = "table ip t {\n\tset s {\n\t\ttype ipv4_addr\n\t\tfrobnicate\n\t\telements = { 10.0.0.1 wobble }\n\t}\n}\n";
    let set = &parse("nft.txt", text).unwrap()[0].sets[0];
    assert_eq!(set.unmodelled, "elements, frobnicate \"frobnicate\"");
}

#[test]
fn damage_is_named() {
    let message = |text: &str| parse("nft.txt", text).unwrap_err().to_string();
    let chain = |body: &str| format!("table ip t {{\n\tchain c {{\n\t\t{body}\n\t}}\n}}\n");
    assert_eq!(message(&chain("jump gone")), "nft.txt:3: no chain named gone: `jump gone`");
    assert_eq!(message(&chain("ip saddr @gone")), "nft.txt:3: no set named gone: `ip saddr @gone`");
    assert_eq!(message(&chain("jump c")), "nft.txt:3: jump cycle: c -> c: `jump c`");
    assert_eq!(
        message(&chain("type filter hook sideways priority 0; policy accept;")),
        "nft.txt:2: bad value: `hook` is not a hook: `chain c {`"
    );
    assert_eq!(
        message(&chain("type filter hook input priority;")),
        "nft.txt:3: the head of a base chain is expected here: `type filter hook input priority`"
    );
    assert_eq!(
        message("table ip t {\n\tchain c {\n"),
        "nft.txt:2: the file ends too early: a `{` is not closed: `chain c {`"
    );
    assert_eq!(
        message(&chain("log prefix \"x")),
        "nft.txt:3: the file ends too early: a quote is not closed: `\"x`"
    );
    assert_eq!(message("*filter\n"), "nft.txt:1: a table is expected here: `*filter`");
    assert_eq!(
        message("table ip t {\n}\ntable ip t {\n}\n"),
        "nft.txt:3: table t is given twice: `table ip t {`"
    );
    let deep = chain(&format!("meta mark set {}ct mark{}", "(".repeat(5000), ")".repeat(5000)));
    assert!(parse("nft.txt", &deep).is_ok(), "too deep to be read, but kept");
    let long = chain(&format!("meta mark set ct mark{}", " | 0x1".repeat(100_000)));
    assert!(parse("nft.txt", &long).is_ok(), "too long to be read, but kept");
    let braces = format!("table ip t {{ chain c {{ ip saddr {} }} }}", "{".repeat(100_000));
    assert!(message(&braces).contains("a `{` is not closed"));
}

/// Whatever a text is cut to, and whatever byte of it is another, it is read
/// or an error: never a panic.
#[test]
fn any_damage_is_read_or_refused() {
    let text = "table inet t {\n\tset s {\n\t\ttype ipv4_addr . mark\n\t\telements = { 1.2.3.4 . 0x1-0x5 }\n\t}\n\tchain c {\n\t\ttype nat hook input priority 5; policy drop;\n\t\ttcp flags & (fin|syn) == syn @th,0,8 5 dnat ip to [::1]-[::2]:1-2 comment \"ü\" # handle 3\n\t}\n}\n";
    for at in 0..text.len() {
        if let (Some(head), Some(tail)) = (text.get(..at), text.get(at..)) {
            let _ = parse("nft.txt", head);
            for other in ["", "{", "}", "\"", "@", ";", "\\\n", "-", "/", ":", "é", "#"] {
                let mut rest = tail.chars();
                rest.next();
                let _ = parse("nft.txt", &format!("{head}{other}{}", rest.as_str()));
            }
        }
    }
}
