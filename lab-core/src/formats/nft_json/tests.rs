use super::*;
use crate::model::{
    Atom, Comparison, Direction, Expression, FibResult, Mangle, Match, NatAddress, NatKind, NatRange, NftMap,
    NftMatch, NftSetRef, NftType, RejectWith, Statement, Target, Verdict,
};

const HEAD: &str = r#"{"metainfo": {"version": "1.0.6", "json_schema_version": 1}},
{"table": {"family": "inet", "name": "fw", "handle": 1}},
{"set": {"family": "inet", "name": "nets", "table": "fw", "type": "ipv4_addr", "handle": 4, "flags": ["interval"], "elem": [{"prefix": {"addr": "10.0.0.0", "len": 8}}, {"range": ["192.0.2.1", "192.0.2.9"]}]}},
{"map": {"family": "inet", "name": "doors", "table": "fw", "type": ["ifname", "inet_service"], "map": "verdict", "elem": [["*", {"drop": null}], [{"elem": {"val": {"concat": ["eth*", 22]}, "timeout": 60}}, {"jump": {"target": "extra"}}]]}},
{"chain": {"family": "inet", "table": "fw", "name": "input", "handle": 2, "type": "filter", "hook": "input", "prio": -5, "policy": "drop"}},
{"chain": {"family": "inet", "table": "fw", "name": "extra", "handle": 3}}"#;

fn document(more: &str) -> String {
    format!("{{\"nftables\": [{HEAD}{more}]}}\n")
}

fn with_rule(expressions: &str) -> String {
    document(&format!(
        ",\n{{\"rule\": {{\"family\": \"inet\", \"table\": \"fw\", \"chain\": \"input\", \"handle\": 9, \"expr\": [{expressions}]}}}}"
    ))
}

fn statements(expressions: &str) -> Vec<Statement> {
    let text = with_rule(expressions);
    let tables = parse("nft.json", &text).unwrap();
    // Whatever a rule holds, it is printed and read back as it was.
    let printed = print(&tables);
    let mut again = parse("nft.json", &printed).unwrap();
    forget(&mut again);
    let mut once = tables.clone();
    forget(&mut once);
    assert_eq!(again, once);
    tables[0].chains[0].rules[0].statements.clone()
}

/// Drops the line numbers: printing lays the text out anew.
fn forget(tables: &mut [Table]) {
    for table in tables {
        table.origin.line = 0;
        table.unmodelled.iter_mut().for_each(|u| u.origin.line = 0);
        for chain in &mut table.chains {
            chain.origin.line = 0;
            chain.rules.iter_mut().for_each(|r| r.origin.line = 0);
        }
    }
}

fn matched(expression: &str) -> NftMatch {
    match statements(expression).as_slice() {
        [Statement::Match(Match::Nft(condition))] => condition.as_ref().clone(),
        other => panic!("{other:?}"),
    }
}

fn condition(left: &str, op: &str, right: &str) -> (Expression, Comparison, NftSetRef) {
    let text = format!("{{\"match\": {{\"op\": \"{op}\", \"left\": {left}, \"right\": {right}}}}}");
    let found = matched(&text);
    (found.left, found.comparison, found.right)
}

fn one(low: u128, high: u128) -> NftSetRef {
    NftSetRef::Elements(vec![vec![Atom::Range(low, high)]])
}

fn target(expression: &str) -> Target {
    match statements(expression).as_slice() {
        [Statement::Target(target)] => target.clone(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn reads_tables_chains_and_sets() {
    let tables = parse("nft.json", &document("")).unwrap();
    let [table] = tables.as_slice() else { panic!("{tables:?}") };
    assert_eq!((table.family, table.name.as_str(), table.origin.line), (TableFamily::Inet, "fw", 2));
    let base = table.chain("input").unwrap().base.unwrap();
    assert_eq!((base.hook, base.priority, base.policy), (Hook::Input, -5, Policy::Drop));
    assert_eq!(table.chain("extra").unwrap().base, None);
    let nets = table.set("nets").unwrap();
    assert_eq!(nets.types, [NftType::Ipv4]);
    assert_eq!(nets.elements[0], [Atom::Range(0x0a00_0000, 0x0aff_ffff)]);
    let doors = table.set("doors").unwrap();
    assert_eq!(doors.types, [NftType::Name, NftType::Port]);
    assert_eq!(doors.verdicts, [Verdict::Jump("extra".into()), Verdict::Drop]);
    assert_eq!(doors.elements[0], [Atom::Name("eth".into(), true), Atom::Range(22, 22)]);
    assert_eq!(doors.elements[1], [Atom::Name(String::new(), true), Atom::Range(0, 65535)]);
    assert!(doors.unmodelled.is_empty());
    // nft always says something: a tool that failed left nothing.
    assert!(parse("nft.json", "").unwrap_err().to_string().contains("the file ends too early"));
}

#[test]
fn prints_the_objects_it_read() {
    let rule = r#",
{"rule": {"family": "inet", "table": "fw", "chain": "input", "handle": 9, "comment": "door", "expr": [{"counter": {"packets": 3, "bytes": 180}}, {"accept": null}]}},
{"flowtable": {"family": "inet", "name": "ft", "table": "fw", "handle": 7}},
{"chain": {"family": "inet", "table": "fw", "name": "out", "handle": 8, "dev": "eth0", "type": "filter", "hook": "egress", "prio": 0, "policy": "accept"}}"#;
    let text = document(rule);
    let tables = parse("nft.json", &text).unwrap();
    let rule = &tables[0].chains[0].rules[0];
    assert_eq!(
        (rule.counters, rule.comment.as_deref(), rule.handle),
        (Some((3, 180)), Some("door"), Some(9))
    );
    assert_eq!(rule.text, r#"[{"counter":null},{"accept":null}]"#);
    let what: Vec<&str> = tables[0].unmodelled.iter().map(|u| u.what.as_str()).collect();
    assert_eq!(what, ["flowtable ft", "chain hook egress", "chain at a device"]);
    let list = |text: &str| -> Vec<Value> {
        let document: Value = serde_json::from_str(text).unwrap();
        let mut objects: Vec<Value> = document["nftables"].as_array().unwrap().clone();
        objects.retain(|o| o.get("metainfo").is_none());
        for object in &mut objects {
            if let Some(Value::Object(table)) = object.get_mut("table") {
                table.shift_remove("handle");
            }
        }
        objects.sort_by_key(Value::to_string);
        objects
    };
    assert_eq!(list(&print(&tables)), list(&text));
}

#[test]
fn matches() {
    let source = r#"{"payload": {"protocol": "ip", "field": "saddr"}}"#;
    assert_eq!(
        condition(source, "!=", r#"{"prefix": {"addr": "10.1.0.0", "len": 16}}"#),
        (Expression::IpSource, Comparison::NotEqual, one(0x0a01_0000, 0x0a01_ffff))
    );
    assert_eq!(
        condition(source, "==", "\"@nets\""),
        (Expression::IpSource, Comparison::Equal, NftSetRef::Named("nets".into()))
    );
    let state = r#"{"ct": {"key": "state"}}"#;
    assert_eq!(
        condition(state, "in", r#"["established", "related"]"#),
        (Expression::CtState, Comparison::AnyBit, one(6, 6))
    );
    assert_eq!(condition(state, "==", "\"new\""), (Expression::CtState, Comparison::Equal, one(8, 8)));
    let flags = r#"{"payload": {"protocol": "tcp", "field": "flags"}}"#;
    assert_eq!(
        condition(flags, "!", r#"["fin", "syn"]"#),
        (Expression::TcpFlags, Comparison::NoBit, one(3, 3))
    );
    let masked = format!(r#"{{"&": [{flags}, ["fin", "syn", "rst", "ack"]]}}"#);
    let (left, comparison, right) = condition(&masked, "==", r#"{"|": ["syn", "ack"]}"#);
    assert_eq!(
        left,
        Expression::And(Box::new(Expression::TcpFlags), Box::new(Expression::Constant(0b1_0111)))
    );
    assert_eq!((comparison, right), (Comparison::Equal, one(0x12, 0x12)));
    assert_eq!(
        condition(r#"{"meta": {"key": "iifname"}}"#, "==", r#"{"set": ["lo", "eth*"]}"#).2,
        NftSetRef::Elements(vec![vec![Atom::Name("lo".into(), false)], vec![Atom::Name("eth".into(), true)]])
    );
    assert_eq!(
        condition(r#"{"meta": {"key": "protocol"}}"#, "==", "\"ip6\""),
        (Expression::Nfproto, Comparison::Equal, one(10, 10))
    );
    assert_eq!(
        condition(r#"{"payload": {"protocol": "th", "field": "dport"}}"#, "<=", "1023"),
        (Expression::DestinationPort(None), Comparison::LessOrEqual, one(1023, 1023))
    );
    assert_eq!(
        condition(r#"{"payload": {"protocol": "ip", "field": "dscp"}}"#, "==", "\"af11\"").2,
        one(10, 10)
    );
    assert_eq!(condition(r#"{"meta": {"key": "l4proto"}}"#, "==", "\"ipv6-icmp\"").2, one(58, 58));
    assert_eq!(condition(r#"{"meta": {"key": "l4proto"}}"#, "==", "139").2, one(139, 139));
}

#[test]
fn fib_finds_types_and_interfaces() {
    let fib = |result: &str| format!(r#"{{"fib": {{"result": "{result}", "flags": ["saddr", "iif"]}}}}"#);
    let words = || vec!["saddr".to_owned(), "iif".to_owned()];
    assert_eq!(
        condition(&fib("oif"), "==", "true"),
        (Expression::Fib(FibResult::Oif, words()), Comparison::Equal, one(1, u128::from(u32::MAX)))
    );
    assert_eq!(condition(&fib("oif"), "==", "\"eth0\"").0, Expression::Fib(FibResult::Oifname, words()));
    assert_eq!(condition(&fib("type"), "==", "\"local\"").2, one(2, 2));
}

#[test]
fn which_device_comes_before_another_is_not_known() {
    for left in [r#"{"fib": {"result": "oif", "flags": "saddr"}}"#, r#"{"meta": {"key": "iif"}}"#] {
        let text = format!(r#"{{"match": {{"op": "<", "left": {left}, "right": "lo"}}}}"#);
        assert!(matches!(statements(&text)[0], Statement::Match(Match::Unmodelled { .. })), "{text}");
    }
}

#[test]
fn what_stands_beside_a_shifted_code_point_is_not_known() {
    let field = |name: &str| format!(r#"{{"payload": {{"protocol": "ip6", "field": "{name}"}}}}"#);
    let left = format!(r#"{{"concat": [{{">>": [{}, 6]}}, {}]}}"#, field("dscp"), field("hoplimit"));
    let right = r#"{"set": [{"concat": ["cs0", 0]}]}"#;
    let text = format!(r#"{{"match": {{"op": "==", "left": {left}, "right": {right}}}}}"#);
    assert!(matches!(statements(&text)[0], Statement::Match(Match::Unmodelled { .. })));
}

#[test]
fn the_family_of_an_original_address_is_asked_first() {
    let text = r#"{"match": {"op": "==", "left": {"ct": {"key": "ip daddr", "dir": "original"}}, "right": "10.0.0.1"}}"#;
    let found = statements(text);
    let [Statement::Match(Match::Nft(family)), Statement::Match(Match::Nft(address))] = found.as_slice()
    else {
        panic!("{found:?}")
    };
    assert_eq!((&family.left, &family.right), (&Expression::Nfproto, &one(2, 2)));
    assert_eq!(address.left, Expression::CtAddress(Direction::Original, true));
}

#[test]
fn verdict_maps() {
    assert_eq!(
        target(
            r#"{"vmap": {"key": {"ct": {"key": "state"}}, "data": {"set": [["invalid", {"drop": null}], ["new", {"goto": {"target": "extra"}}]]}}}"#
        ),
        Target::VerdictMap {
            key: Expression::CtState,
            elements: vec![
                (vec![Atom::Range(1, 1)], Verdict::Drop),
                (vec![Atom::Range(8, 8)], Verdict::Goto("extra".into())),
            ],
            name: None,
        }
    );
    let named = r#"{"vmap": {"key": {"concat": [{"meta": {"key": "iifname"}}, {"payload": {"protocol": "tcp", "field": "dport"}}]}, "data": "@doors"}}"#;
    let Target::VerdictMap { key, name, .. } = target(named) else { panic!() };
    assert_eq!(key, Expression::Concat(vec![Expression::Iifname, Expression::DestinationPort(Some(6))]));
    assert_eq!(name.as_deref(), Some("doors"));
}

#[test]
fn address_translation() {
    let ports = Some(crate::addr::PortRange { low: 1000, high: 2000 });
    assert_eq!(
        target(r#"{"masquerade": {"port": {"range": [1000, 2000]}, "flags": ["random", "persistent"]}}"#),
        Target::Nat {
            kind: NatKind::Masquerade,
            range: NatRange { ports, random: true, persistent: true, ..NatRange::default() },
        }
    );
    let address = "10.52.48.3".parse().unwrap();
    assert_eq!(
        target(r#"{"dnat": {"family": "ip", "addr": "10.52.48.3", "port": 2222}}"#),
        Target::Nat {
            kind: NatKind::Dnat,
            range: NatRange {
                address: Some(NatAddress::Range(address, address)),
                ports: Some(2222.into()),
                ..NatRange::default()
            },
        }
    );
    let found = statements(
        r#"{"dnat": {"family": "ip", "addr": {"map": {"key": {"payload": {"protocol": "tcp", "field": "dport"}}, "data": {"set": [[80, "10.0.0.2"]]}}}}}"#,
    );
    let Some(Statement::Target(Target::Nat { range, .. })) = found.last() else { panic!("{found:?}") };
    let map =
        NftMap::Elements(vec![(vec![Atom::Range(80, 80)], vec![Atom::Range(0x0a00_0002, 0x0a00_0002)])]);
    let key = Box::new(Expression::DestinationPort(Some(6)));
    assert_eq!(range.address, Some(NatAddress::Computed(Expression::Map(key, Box::new(map)))));
}

#[test]
fn other_targets() {
    assert_eq!(target(r#"{"reject": null}"#), Target::Reject(RejectWith::Icmpx(1)));
    assert_eq!(
        target(r#"{"reject": {"type": "icmp", "expr": "admin-prohibited"}}"#),
        Target::Reject(RejectWith::Icmp(13))
    );
    assert_eq!(target(r#"{"reject": {"type": "tcp reset"}}"#), Target::Reject(RejectWith::TcpReset));
    assert_eq!(
        target(r#"{"limit": {"rate": 5, "per": "second", "inv": true}}"#),
        Target::Limit { over: true }
    );
    assert_eq!(target(r#"{"notrack": null}"#), Target::Notrack { legacy: false });
    assert_eq!(
        target(
            r#"{"mangle": {"key": {"meta": {"key": "mark"}}, "value": {"|": [{"meta": {"key": "mark"}}, 16]}}}"#
        ),
        Target::Mangle(
            Mangle::Mark,
            Expression::Or(Box::new(Expression::Mark), Box::new(Expression::Constant(16)))
        )
    );
    assert_eq!(
        target(r#"{"mangle": {"key": {"payload": {"protocol": "ip", "field": "dscp"}}, "value": "ef"}}"#),
        Target::Mangle(Mangle::IpDscp, Expression::Constant(46))
    );
}

#[test]
fn the_rest_is_kept() {
    let queue = r#"{"queue":{"num":1}}"#;
    assert_eq!(target(queue), Target::Unmodelled { name: "queue".into(), text: queue.into() });
    for (expression, name) in [
        (r#"{"xt":{"type":"match","name":"conntrack"}}"#, "conntrack"),
        (r#"{"match":{"op":"==","left":{"meta":{"key":"skuid"}},"right":0}}"#, "meta skuid"),
        (
            r#"{"match":{"op":"==","left":{"payload":{"protocol":"ip","field":"saddr"}},"right":"nowhere"}}"#,
            "payload saddr",
        ),
        (r#"{"match":{"op":"==","left":{"meta":{"key":"mark"}},"right":4294967296}}"#, "meta mark"),
    ] {
        let found = statements(expression);
        let expected = Match::Unmodelled { name: name.into(), text: expression.into() };
        assert_eq!(found, [Statement::Match(expected)]);
    }
}

#[test]
fn damage_is_named() {
    let message = |text: &str| parse("nft.json", text).unwrap_err().to_string();
    assert_eq!(
        message(&with_rule(r#"{"jump":{"target":"gone"}}"#)),
        "nft.json:7: no chain named gone: `[{\"jump\":{\"target\":\"gone\"}}]`"
    );
    let lookup =
        r#"{"match":{"op":"==","left":{"payload":{"protocol":"ip","field":"saddr"}},"right":"@gone"}}"#;
    assert_eq!(message(&with_rule(lookup)), format!("nft.json:7: no set named gone: `[{lookup}]`"));
    let cycle = r#"{"jump": {"target": "extra"}}]}},
{"rule": {"family": "inet", "table": "fw", "chain": "extra", "handle": 10, "expr": [{"goto": {"target": "input"}}"#;
    assert_eq!(
        message(&with_rule(cycle)),
        "nft.json:8: jump cycle: input -> extra -> input: `[{\"goto\":{\"target\":\"input\"}}]`"
    );
    let stray = r#",
{"rule": {"family": "ip", "table": "fw", "chain": "input", "expr": []}}"#;
    assert_eq!(
        message(&document(stray)),
        "nft.json:7: no table named ip fw: `{\"rule\":{\"family\":\"ip\",\"table\":\"fw\",\"chain\":\"input\",\"expr\":[]}}`"
    );
    assert_eq!(
        message(&document("").replace("\"prio\": -5", "\"prio\": \"soon\"")),
        "nft.json:5: bad value: `prio` is not a priority: `\"prio\":\"soon\"`"
    );
    assert_eq!(
        message(&document(",\n{\"table\": {\"family\": \"inet\", \"name\": \"fw\"}}")),
        "nft.json:7: table fw is given twice: `{\"table\":{\"family\":\"inet\",\"name\":\"fw\"}}`"
    );
    let text = document("");
    let cut = message(&text[..text.len() - 120]);
    assert!(cut.starts_with("nft.json:5: the file ends too early: EOF while parsing"), "{cut}");
    assert_eq!(
        message("{\"nftables\": 7}"),
        "nft.json:1: invalid type: integer `7`, expected a sequence: `{\"nftables\": 7}`"
    );
}

#[test]
fn priorities_have_names() {
    for (prio, number) in [("\"filter\"", 0), ("\"dstnat + 5\"", -95), ("\"mangle - 1\"", -151)] {
        let text = document("").replace("\"prio\": -5", &format!("\"prio\": {prio}"));
        let tables = parse("nft.json", &text).unwrap();
        assert_eq!(tables[0].chains[0].base.unwrap().priority, number);
    }
}

proptest::proptest! {
    #[test]
    fn a_damaged_text_is_read_or_refused(at in 0_usize..1600, with in "[\\[\\]{}\"@:,a0 -]{0,2}", gone in 0_usize..6) {
        let mut text = with_rule(
            r#"{"match": {"op": "in", "left": {"&": [{"meta": {"key": "mark"}}, 255]}, "right": {"range": [1, 2]}}},
            {"vmap": {"key": {"ct": {"key": "state"}}, "data": "@doors"}}, {"snat": {"addr": "10.0.0.1"}}"#,
        );
        let start = at.min(text.len());
        text.replace_range(start..(start + gone).min(text.len()), &with);
        if let Ok(tables) = parse("f", &text) {
            let mut again = parse("f", &print(&tables)).unwrap();
            let mut once = tables;
            forget(&mut once);
            forget(&mut again);
            proptest::prop_assert_eq!(again, once);
        }
    }
}
