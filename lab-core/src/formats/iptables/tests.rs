use super::*;
use crate::model::{ChainKind, Hook, Match, Owner, Policy, Statement, Target};

fn filter(rules: &str) -> String {
    format!("*filter\n:INPUT ACCEPT [0:0]\n:web - [0:0]\n{rules}\nCOMMIT\n")
}

fn first(text: &str, family: Family) -> Table {
    parse("iptables.save", text, family).unwrap().remove(0)
}

/// The rules of a file, as they are printed back.
fn printed(text: &str, family: Family) -> Vec<String> {
    let table = first(text, family);
    let rules = |line: &&str| line.starts_with("-A");
    print(&[table], false).lines().filter(rules).map(str::to_owned).collect()
}

fn statements(rule: &str) -> Vec<Statement> {
    let table = first(&filter(rule), Family::Ipv4);
    table.chain("INPUT").unwrap().rules[0].statements.clone()
}

#[test]
fn rules_come_back_in_the_words_of_iptables_save() {
    // What is read, and what iptables-save would make of it; none: the same.
    let lines: &[(&str, &str)] = &[
        ("-A INPUT -s ! 10.0.0.1 -j DROP", "-A INPUT ! -s 10.0.0.1/32 -j DROP"),
        ("-A INPUT ! -s 10.0.0.1/8 -j DROP", "-A INPUT ! -s 10.0.0.0/8 -j DROP"),
        ("-A INPUT -s 10.1/16 -d 0/0 -j DROP", "-A INPUT -s 10.1.0.0/16 -j DROP"),
        ("-A INPUT -s 10.0.0.1/255.0.255.0", "-A INPUT -s 10.0.0.0/255.0.255.0"),
        ("-A INPUT -j DROP -p tcp --dport ! 22", "-A INPUT -p tcp -m tcp ! --dport 22 -j DROP"),
        ("-A INPUT -ptcp --dport=ssh -ieth+", "-A INPUT -i eth+ -p tcp -m tcp --dport 22"),
        (
            "--append INPUT --out-interface lo --in-interface eth0 --protocol 17 --match udp \
             --source-port :1023 --destination-port 1024: --jump web",
            "-A INPUT -i eth0 -o lo -p udp -m udp --sport 0:1023 --dport 1024:65535 -j web",
        ),
        (
            "-A INPUT -p tcp -m tcp --syn -j DROP",
            "-A INPUT -p tcp -m tcp --tcp-flags FIN,SYN,RST,ACK SYN -j DROP",
        ),
        (
            "-A INPUT -p tcp ! --tcp-flags ALL NONE",
            "-A INPUT -p tcp -m tcp ! --tcp-flags FIN,SYN,RST,PSH,ACK,URG NONE",
        ),
        ("-A INPUT -p tcp -m multiport --dport 80,443", "-A INPUT -p tcp -m multiport --dports 80,443"),
        (
            "-A INPUT -p tcp -m conntrack --ctstate NEW --dport 22 -j ACCEPT",
            "-A INPUT -p tcp -m conntrack --ctstate NEW -m tcp --dport 22 -j ACCEPT",
        ),
        (
            "-A INPUT -m state --state ESTABLISHED,RELATED -j ACCEPT",
            "-A INPUT -m state --state RELATED,ESTABLISHED -j ACCEPT",
        ),
        ("-A INPUT -m conntrack ! --ctstate DNAT,NEW", "-A INPUT -m conntrack ! --ctstate NEW,DNAT"),
        (
            r#"-A INPUT -m comment --comment "say \"it's\" \\o/" -j ACCEPT"#,
            r#"-A INPUT -m comment --comment "say \"it\'s\" \\o/" -j ACCEPT"#,
        ),
        ("-A INPUT -m comment --comment it's", r#"-A INPUT -m comment --comment "it\'s""#),
        ("-A INPUT -m comment --comment \"plain\"", "-A INPUT -m comment --comment plain"),
        ("-A INPUT -m comment --comment \"-j DROP\"", ""),
        ("-A INPUT -p icmp --icmp-type echo-request", "-A INPUT -p icmp -m icmp --icmp-type 8"),
        ("-A INPUT -p icmp -m icmp --icmp-type port-unreachable", "-A INPUT -p icmp -m icmp --icmp-type 3/3"),
        ("-A INPUT -p icmp -m icmp", "-A INPUT -p icmp -m icmp --icmp-type any"),
        ("-A INPUT -p ah -m mark --mark 1/0xff", "-A INPUT -p ah -m mark --mark 0x1/0xff"),
        ("-A INPUT -p esp --espspi 500", "-A INPUT -p esp -m esp --espspi 500"),
        ("-A INPUT -f -j DROP", ""),
        ("-A INPUT ! -f -j DROP", ""),
        ("-A INPUT -j REJECT", "-A INPUT -j REJECT --reject-with icmp-port-unreachable"),
        (
            "-A INPUT -j REJECT --reject admin-prohib",
            "-A INPUT -j REJECT --reject-with icmp-admin-prohibited",
        ),
        ("-A INPUT -g web", ""),
        ("-A INPUT -m tcp", ""),
        ("-A INPUT", ""),
        (
            "-A INPUT -m recent --rcheck ! --seconds 60  --name \"a -j\" --rsource ! -i lo -j web",
            "-A INPUT ! -i lo -m recent --rcheck ! --seconds 60  --name \"a -j\" --rsource -j web",
        ),
        ("-A INPUT -m mark --mark 1 --future 3 -j web", ""),
        ("-A INPUT -j TPROXY --on-port 80 --on-ip 0.0.0.0", ""),
        ("-A INPUT -j nowhere", ""),
        ("-A INPUT -j MARK --set-mark 1", "-A INPUT -j MARK --set-xmark 0x1/0xffffffff"),
        ("-A INPUT -j MARK --or-mark 0x4000", "-A INPUT -j MARK --set-xmark 0x4000/0x4000"),
        ("-A INPUT -j MARK --and-mark 0xff", "-A INPUT -j MARK --set-xmark 0x0/0xffffff00"),
        (
            "-A INPUT -j CONNMARK --save-mark",
            "-A INPUT -j CONNMARK --save-mark --nfmask 0xffffffff --ctmask 0xffffffff",
        ),
        ("-A INPUT -j LOG --log-prefix \"a b \" --log-level 4", ""),
        ("-A INPUT -j LOG -p tcp --dport 1 --log-uid", "-A INPUT -p tcp -m tcp --dport 1 -j LOG --log-uid"),
        ("-A INPUT -m limit --limit 5/minute --limit-burst 5", "-A INPUT -m limit --limit 5/min"),
        (
            "-A INPUT -m statistic --mode random --probability 0.5",
            "-A INPUT -m statistic --mode random --probability 0.50000000000",
        ),
        ("-A INPUT -m dscp --dscp-class ef", "-A INPUT -m dscp --dscp 0x2e"),
        ("-A INPUT -m tos --tos Minimize-Delay", "-A INPUT -m tos --tos 0x10/0x3f"),
        ("-A INPUT -m set ! --match-set x src,dst ! --update-counters", ""),
        ("-A INPUT -m set --match-set x src --return-nomatch", ""),
        ("[3:4] -A INPUT -c 1 2 -i lo", "-A INPUT -i lo"),
    ];
    for (line, expected) in lines {
        let expected = if expected.is_empty() { line } else { expected };
        assert_eq!(printed(&filter(line), Family::Ipv4), [*expected], "{line}");
        assert_eq!(printed(&filter(expected), Family::Ipv4), [*expected], "{expected}");
    }
}

#[test]
fn nat_targets_come_back() {
    let same = |family, lines: &[&str]| {
        let text = format!("* nat\n:PREROUTING ACCEPT [0:0]\n{}\nCOMMIT\n", lines.join("\n"));
        assert_eq!(printed(&text, family), lines);
    };
    same(
        Family::Ipv4,
        &[
            "-A PREROUTING -j DNAT --to-destination 10.0.0.1-10.0.0.9:80-90/1000 --random --persistent",
            "-A PREROUTING -j DNAT --to-destination :80",
            "-A PREROUTING -j SNAT --to-source 10.0.0.1 --random-fully",
            "-A PREROUTING -j MASQUERADE --to-ports 1024-65535 --random",
            "-A PREROUTING -j REDIRECT --to-ports 80",
            "-A PREROUTING -j NETMAP --to 10.0.0.0/24",
        ],
    );
    same(
        Family::Ipv6,
        &[
            "-A PREROUTING -j DNAT --to-destination [fd00::1-fd00::9]:80",
            "-A PREROUTING -j DNAT --to-destination fd00::1",
            "-A PREROUTING -j DNAT --to-destination :80",
            "-A PREROUTING -s fd00::/ffff::ff00 -p ipv6-icmp -m icmp6 --icmpv6-type 135 -j RETURN",
        ],
    );
}

#[test]
fn a_list_of_addresses_is_several_rules() {
    let text = filter(
        "-A INPUT -j web\n-I INPUT -s 10.0.0.1,10.0.0.2 -d 1.1.1.1,2.2.2.2 -j DROP\n-I INPUT 2 -j ACCEPT",
    );
    let expected = [
        "-A INPUT -s 10.0.0.2/32 -d 2.2.2.2/32 -j DROP",
        "-A INPUT -j ACCEPT",
        "-A INPUT -s 10.0.0.2/32 -d 1.1.1.1/32 -j DROP",
        "-A INPUT -s 10.0.0.1/32 -d 2.2.2.2/32 -j DROP",
        "-A INPUT -s 10.0.0.1/32 -d 1.1.1.1/32 -j DROP",
        "-A INPUT -j web",
    ];
    assert_eq!(printed(&text, Family::Ipv4), expected);
}

#[test]
fn headers_tell_back_ends_and_chains_their_hooks() {
    let text = "\
# Generated by ip6tables-save v1.8.9 (nf_tables) on Sun Nov 22 23:13:16 2026
*mangle
:OUTPUT DROP [1:2]
-N DOCKER-X
[5:6] -A DOCKER-X -m comment --comment hello -j RETURN
COMMIT
# Completed on Sun Nov 22 23:13:16 2026
# Generated by ip6tables-save v1.8.9 on Sun Nov 22 23:13:16 2026
*mangle
-P POSTROUTING DROP
-A INPUT -j HL --hl-dec 1
COMMIT
";
    let tables = parse("f", text, Family::Ipv6).unwrap();
    let [nft, legacy] = tables.as_slice() else { panic!("two tables, not {}", tables.len()) };
    assert_eq!((nft.backend, legacy.backend), (Backend::Nft, Backend::Legacy));
    let output = nft.chain("OUTPUT").unwrap().base.unwrap();
    assert_eq!((output.kind, output.hook, output.priority), (ChainKind::Route, Hook::Output, -150));
    assert_eq!(output.policy, Policy::Drop);
    assert_eq!(nft.chain("OUTPUT").unwrap().counters, Some((1, 2)));
    let rule = &nft.chain("DOCKER-X").unwrap().rules[0];
    assert_eq!(rule.text, "-A DOCKER-X -m comment --comment hello -j RETURN");
    assert_eq!((rule.comment.as_deref(), rule.counters), (Some("hello"), Some((5, 6))));
    assert_eq!((rule.origin.line, rule.owner), (5, Owner::Docker));
    let names: Vec<&str> = legacy.chains.iter().map(|c| c.name.as_str()).collect();
    assert_eq!(names, ["POSTROUTING", "INPUT"]);
    let again = parse("f", print(&tables, true), Family::Ipv6).unwrap();
    assert_eq!(again.iter().map(|t| t.backend).collect::<Vec<_>>(), [Backend::Nft, Backend::Legacy]);
    assert_eq!(again[0].chain("DOCKER-X").unwrap().rules[0].counters, Some((5, 6)));
}

#[test]
fn what_is_not_modelled_is_kept_apart() {
    let kept = statements("-A INPUT -m recent --set --name x -j TPROXY --on-port 80");
    let text = "-m recent --set --name x".to_owned();
    let target = "TPROXY --on-port 80".to_owned();
    assert_eq!(
        kept,
        [
            Statement::Match(Match::Unmodelled { name: "recent".into(), text }),
            Statement::Target(Target::Unmodelled { name: "TPROXY".into(), text: target }),
        ]
    );
    // What an option of a known extension means is unknown as a whole.
    let kept = statements("-A INPUT -p udp -m udp --dport 53 --bogus 1 -i lo");
    assert!(
        matches!(&kept[2], Statement::Match(Match::Unmodelled { text, .. }) if text == "-m udp --dport 53 --bogus 1")
    );
    assert_eq!(kept.len(), 3);
}

#[test]
fn deep_chains_are_walked_without_a_deep_stack() {
    let depth = 20_000;
    let mut text = String::from("*filter\n");
    for n in 0..=depth {
        text.push_str(&format!(":C{n} - [0:0]\n"));
    }
    for n in 0..depth {
        text.push_str(&format!("-A C{n} -j C{}\n", n + 1));
    }
    text.push_str("COMMIT\n");
    assert_eq!(first(&text, Family::Ipv4).chains.len(), depth + 1);
}

#[test]
fn errors_name_file_line_and_text() {
    let error = |text: &str| parse("iptables.save", text, Family::Ipv4).unwrap_err().to_string();
    let rule = |rule: &str| error(&filter(rule));
    let cases = [
        (error("*filter\n:INPUT ACCEPT [0:0]\n"), "iptables.save:2: the file ends too early: table filter has no COMMIT"),
        (
            error("*filter\n*nat\nCOMMIT\n"),
            "iptables.save:2: the file ends too early: table filter has no COMMIT: `*nat`",
        ),
        (
            error("*filter\n:INPUT ACCEPT [0:x]\nCOMMIT\n"),
            "iptables.save:2: bad counters `[0:x]`, expected `[packets:bytes]`: `:INPUT ACCEPT [0:x]`",
        ),
        (
            rule("[1] -A INPUT"),
            "iptables.save:4: bad counters `[1]`, expected `[packets:bytes]`: `[1] -A INPUT`",
        ),
        (
            rule("-A INPUT --dport 22 -j ACCEPT"),
            "iptables.save:4: unknown option `--dport`: `-A INPUT --dport 22 -j ACCEPT`",
        ),
        (
            rule("-A INPUT -s 10.0.0.256"),
            "iptables.save:4: bad value: `10.0.0.256` is not an IPv4 address (host names are not looked up): \
             `-A INPUT -s 10.0.0.256`",
        ),
        (
            rule("-A INPUT -s 10.0.0.0/33"),
            "iptables.save:4: bad value: `10.0.0.0/33` is not a prefix: its length is too great: \
             `-A INPUT -s 10.0.0.0/33`",
        ),
        (
            rule("-A INPUT -p tcp --dport 65536"),
            "iptables.save:4: bad value: `65536` is not a port: `-A INPUT -p tcp --dport 65536`",
        ),
        (rule("-A INPUT -g nothing"), "iptables.save:4: no chain named nothing: `-A INPUT -g nothing`"),
        (rule("-A nothing -j DROP"), "iptables.save:4: no chain named nothing: `-A nothing -j DROP`"),
        (
            error("*filter\n:A - [0:0]\n:B - [0:0]\n:C - [0:0]\n-A A -j B\n-A B -i lo -g C\n-A C -j B\nCOMMIT\n"),
            "iptables.save:7: jump cycle: B -> C -> B: `-A C -j B`",
        ),
        (rule(":web - [0:0]"), "iptables.save:4: chain web is given twice: `:web - [0:0]`"),
        (error("*nat\nCOMMIT\n*nat\nCOMMIT\n"), "iptables.save:3: table nat is given twice: `*nat`"),
        (
            rule("-A INPUT -m comment --comment \"half"),
            "iptables.save:4: a quote is never closed: `-A INPUT -m comment --comment \"half`",
        ),
        (
            rule("-t nat -A INPUT"),
            "iptables.save:4: expected -A, -I, -N, -P or COMMIT, not `-t`: `-t nat -A INPUT`",
        ),
        (
            rule("-A INPUT -t nat"),
            "iptables.save:4: -t has no place in a file of tables: `-A INPUT -t nat`",
        ),
        (rule("-A INPUT -i lo -i eth0"), "iptables.save:4: -i is given twice: `-A INPUT -i lo -i eth0`"),
        (
            rule("-A INPUT -j DROP -j ACCEPT"),
            "iptables.save:4: -j: the rule already has a target: `-A INPUT -j DROP -j ACCEPT`",
        ),
        (
            rule("-A INPUT ! -s 1.1.1.1,2.2.2.2"),
            "iptables.save:4: `!` cannot stand before several addresses: `-A INPUT ! -s 1.1.1.1,2.2.2.2`",
        ),
        (rule("-I INPUT 2"), "iptables.save:4: bad value: `2` is no place in the chain: `-I INPUT 2`"),
        (rule(":web DROP [0:0]"), "iptables.save:4: chain web is given twice: `:web DROP [0:0]`"),
        (
            rule("-P web DROP"),
            "iptables.save:4: chain web is not built in: it has no policy: `-P web DROP`",
        ),
        (error("-A INPUT -j DROP\n"), "iptables.save:1: expected `*TABLE`: `-A INPUT -j DROP`"),
        (error("*broute\nCOMMIT\n"), "iptables.save:1: no table named broute: `*broute`"),
    ];
    for (error, expected) in cases {
        assert_eq!(error, expected);
    }
}
