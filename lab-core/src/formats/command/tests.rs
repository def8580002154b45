use super::{parse, print, Error};
use crate::addr::Family;
use crate::model::{
    Backend, Chain, Change, Host, Match, Origin, Owner, Rule, Statement, Table, TableFamily, TableId, Target,
    Verdict,
};

fn again(command: &str) -> String {
    let change = parse(command).unwrap_or_else(|error| panic!("{command}: {error}"));
    print(&Host::default(), &change).unwrap()
}

/// What is printed of a command is that command.
#[test]
fn commands_come_back_as_they_were() {
    for command in [
        "iptables -t filter -I FORWARD 3 -s 10.0.0.0/8 -i eth0 -p tcp -m tcp --dport 22 -j ACCEPT",
        "ip6tables -t nat -A POSTROUTING -o eth0 -j MASQUERADE",
        "iptables-legacy -t raw -R PREROUTING 2 -j NOTRACK",
        "iptables-nft -t mangle -D OUTPUT 1",
        "iptables -t filter -N MINE",
        "iptables -t filter -X MINE",
        "iptables -t filter -P FORWARD DROP",
        "iptables -t filter -A FORWARD -g MINE",
        "iptables -t filter -A FORWARD -m comment --comment 'a b' -j MINE",
        "iptables -t filter -A FORWARD -m comment --comment \"it's \"'$(reboot) `now`' -j MINE",
        "iptables -t filter -A FORWARD -m comment --comment '-j ACCEPT' -j LOG --log-prefix 'in: '",
        "iptables -t filter -A FORWARD -m comment --comment 'two\nlines' -j ACCEPT",
        "ip route add 10.0.0.0/8 via 192.168.0.1 dev eth0",
        "ip route add default table 100 proto static scope host src 10.0.0.1 metric 7 mtu 1400 dev eth0",
        "ip -6 route add fd00::/64 metric 5 via fe80::1 dev eth0 onlink",
        "ip route add 10.0.0.0/8 nexthop via 10.1.0.1 dev eth0 weight 1 nexthop via 10.1.0.2 dev eth1 weight 3",
        "ip route add blackhole 10.9.0.0/16",
        "ip route del 10.0.0.0/8",
        "ip route del unicast 10.0.0.0/8 table 7 proto static scope global metric 3 via 10.1.0.1 dev eth0",
        "ip rule add from 10.0.0.0/8 fwmark 0x1/0xff iif eth0 pref 100 table 7",
        "ip rule del not to 10.0.0.1 uidrange 0-9 ipproto 6 sport 1-2 dport 80-80 pref 100 goto 200",
        "ip -6 rule add pref 5 table main suppress_prefixlength 0",
        "ip addr add 10.0.0.1/24 dev eth0",
        "ip addr add 10.0.0.1 peer 10.0.0.2/32 dev tun0 scope link preferred_lft 0",
        "ip addr del fd00::1/64 dev eth0",
        "ip link set dev eth0 down",
        "sysctl -w 'net.ipv4.conf.eth0/10.rp_filter=1'",
    ] {
        assert_eq!(again(command), command);
    }
}

#[test]
fn commands_may_be_spelt_otherwise() {
    for (typed, said) in [
        ("iptables -I FORWARD -j DROP", "iptables -t filter -I FORWARD 1 -j DROP"),
        ("iptables --append FORWARD -j DROP -t filter", "iptables -t filter -A FORWARD -j DROP"),
        ("ip r delete 10.0.0.1", "ip route del 10.0.0.1"),
        ("ip route add 10.1.2.3/8 dev eth0", "ip route add 10.0.0.0/8 dev eth0"),
        ("ip route add default via fe80::1 dev eth0", "ip -6 route add default via fe80::1 dev eth0"),
        ("ip link set eth0 up", "ip link set dev eth0 up"),
        ("sysctl net.ipv4.ip_forward=1", "sysctl -w 'net.ipv4.ip_forward=1'"),
    ] {
        assert_eq!(again(typed), said);
    }
}

#[test]
fn what_says_no_change_is_refused() {
    for (typed, why) in [
        ("iptables -A FORWARD -m comment --comment \"x", "a quote is never closed"),
        ("iptables -D FORWARD -j DROP", "write -D CHAIN PLACE, the rule's number from 1"),
        (
            "iptables -A FORWARD -s 10.0.0.1,10.0.0.2 -j DROP",
            "the command stands for several rules: give them one by one",
        ),
        ("iptables -Z FORWARD", "-Z is not understood here, or not with these words"),
        ("ip route add 10.0.0.0/8", "the route leads nowhere: write via GATEWAY or dev DEVICE"),
        ("ip route add 10.0.0.0/8 via fd00::1", "fd00::1 is no gateway to 10.0.0.0/8"),
        ("ip rule add from 10.0.0.0/8 table 7", "write the rule's priority: without it the kernel picks one"),
        ("reboot", "only iptables, ip6tables, ip and sysctl commands are understood"),
    ] {
        assert_eq!(parse(typed), Err(Error::Syntax(why.to_owned())), "{typed}");
    }
}

/// A chain that is named on the command line may be the host's own.
#[test]
fn a_target_that_is_no_extension_is_a_chain() {
    let Ok(Change::InsertRule { rule, .. }) = parse("iptables -A FORWARD -j MINE") else { panic!() };
    assert_eq!(rule.statements, [Statement::Target(Target::Verdict(Verdict::Jump("MINE".into())))]);
}

fn nft_rule(text: &str, comment: Option<&str>, handle: Option<u64>) -> Rule {
    Rule {
        statements: vec![Statement::Target(Target::Verdict(Verdict::Accept))],
        text: text.into(),
        comment: comment.map(Into::into),
        counters: None,
        handle,
        origin: Origin::default(),
        owner: Owner::User,
    }
}

/// A host with a table `inet t` and a chain `c` in it, whose rules have these
/// handles.
fn nft_host(chain: &str, handles: &[Option<u64>]) -> (Host, TableId) {
    let id = TableId::nft(TableFamily::Inet, "t");
    let chain = Chain {
        name: chain.into(),
        base: None,
        rules: handles.iter().map(|handle| nft_rule("accept", None, *handle)).collect(),
        counters: None,
        handle: None,
        origin: Origin::default(),
    };
    let table = Table {
        backend: Backend::Nft,
        family: TableFamily::Inet,
        name: "t".into(),
        xtables: false,
        chains: vec![chain],
        sets: Vec::new(),
        unmodelled: Vec::new(),
        origin: Origin::default(),
    };
    let mut host = Host::default();
    host.ruleset.tables.push(table);
    (host, id)
}

#[test]
fn rules_of_nft_are_placed_by_the_handle_of_a_neighbour() {
    let (host, table) = nft_host("c", &[Some(4), None, Some(9), None]);
    let at = |place: Option<usize>| {
        let rule = Box::new(nft_rule("tcp dport 22 drop", Some("a 'b' $(c)"), None));
        let change = Change::InsertRule { table: table.clone(), chain: "c".into(), place, rule };
        print(&host, &change).unwrap()
    };
    let said = |verb: &str, spot: &str| {
        format!("nft \"{verb} rule inet t c{spot} tcp dport 22 drop comment \\\"a 'b' \"'$(c)\"'")
    };
    assert_eq!(at(Some(1)), said("insert", " handle 4"));
    assert_eq!(at(Some(2)), said("add", " handle 4"));
    assert_eq!(at(Some(3)), said("insert", " handle 9"));
    assert_eq!(at(None), said("add", ""));
    let (host, _) = nft_host("c", &[None, None]);
    let rule = Box::new(nft_rule("accept", None, None));
    let change = Change::InsertRule { table, chain: "c".into(), place: Some(2), rule };
    assert_eq!(print(&host, &change).unwrap(), "nft 'insert rule inet t c index 1 accept'");
}

#[test]
fn a_handle_that_is_not_known_is_looked_up_when_the_command_runs() {
    let (host, table) = nft_host("c", &[Some(4), None]);
    let delete = |place| print(&host, &Change::DeleteRule { table: table.clone(), chain: "c".into(), place });
    assert_eq!(delete(1).unwrap(), "nft 'delete rule inet t c handle 4'");
    assert_eq!(
        delete(2).unwrap(),
        "nft 'delete rule inet t c handle' \"$(nft -a list chain inet t c \
         | sed -n 's/.* # handle \\([0-9][0-9]*\\)$/\\1/p' | sed -n 3p)\""
    );
}

#[test]
fn names_that_nft_cannot_write_go_as_json() {
    let (host, table) = nft_host("it's; flush ruleset", &[Some(4)]);
    let chain = "it's; flush ruleset".to_owned();
    let change = Change::DeleteRule { table: table.clone(), chain: chain.clone(), place: 1 };
    let said = print(&host, &change).unwrap();
    let words = shlex::split(&said).unwrap();
    assert_eq!(words[..2], ["nft", "-j"]);
    let json: serde_json::Value = serde_json::from_str(&words[2]).unwrap();
    assert_eq!(json["nftables"][0]["delete"]["rule"]["chain"], *chain);
    // A rule that is known by nft's words alone cannot go there.
    let rule = Box::new(nft_rule("accept", None, None));
    let change = Change::InsertRule { table, chain, place: None, rule };
    assert!(matches!(print(&host, &change), Err(Error::Unsayable(_))));
}

#[test]
fn a_rule_that_a_program_made_has_words_if_it_speaks_iptables() {
    let table = TableId::iptables(Family::Ipv4, "filter");
    let mut rule = nft_rule("", None, None);
    rule.statements.insert(0, Statement::Match(Match::Comment("x y".into())));
    let change = |table: &TableId| Change::InsertRule {
        table: table.clone(),
        chain: "c".into(),
        place: None,
        rule: Box::new(rule.clone()),
    };
    let said = print(&Host::default(), &change(&table)).unwrap();
    assert_eq!(said, "iptables -t filter -A c -m comment --comment 'x y' -j ACCEPT");
    let said = print(&Host::default(), &change(&TableId::nft(TableFamily::Inet, "t")));
    assert!(matches!(said, Err(Error::Unsayable(_))), "{said:?}");
}
