//! `ip -j rule show`: the routing policy of one family.

use ipnet::IpNet;
use serde_json::Value;

use super::json::{self, Fields, Object};
use super::{names, route, Error};
use crate::addr::{Family, PortRange};
use crate::model::{Origin, PolicyAction, PolicyRule};

/// Fields that change nothing: who added the rule, and that a device it names
/// is not there just now.
const HARMLESS: [&str; 3] = ["protocol", "iif_detached", "oif_detached"];

fn prefix(rule: &mut Fields<'_>, key: &str, family: Family) -> Result<Option<IpNet>, Error> {
    let length = rule.number::<u8>(&format!("{key}len"))?;
    let word = match rule.string(key)? {
        None => return Ok(None),
        Some(word) if word == "all" => return Ok(None),
        Some(word) => word,
    };
    let net = names::net(&word).filter(|net| names::family(net) == family);
    let net = net.and_then(|net| match length {
        Some(length) => IpNet::new(net.addr(), length).ok(),
        None => Some(net),
    });
    match net {
        Some(net) => Ok(Some(net)),
        None => Err(rule.wrong(key, &Value::from(word), "an address or prefix of the family")),
    }
}

/// A range, written `low-high`, `one`, or in two fields.
fn range<T>(rule: &mut Fields<'_>, key: &str, name: &str) -> Result<Option<(T, T)>, Error>
where
    T: TryFrom<u64> + Copy,
{
    if let Some(word) = rule.word(name)? {
        let (low, high) = word.split_once('-').unwrap_or((&word, &word));
        let bound = |word: &str| names::number(word).and_then(|n| T::try_from(n).ok());
        return match (bound(low), bound(high)) {
            (Some(low), Some(high)) => Ok(Some((low, high))),
            _ => Err(rule.wrong(name, &Value::from(word), "a range of numbers")),
        };
    }
    let low = rule.number(&format!("{key}_start"))?;
    let high = rule.number(&format!("{key}_end"))?;
    Ok(low.map(|low| (low, high.unwrap_or(low))))
}

fn ports(rule: &mut Fields<'_>, key: &str) -> Result<Option<PortRange>, Error> {
    Ok(range(rule, key, key)?.map(|(low, high)| PortRange { low, high }))
}

fn word_number(
    rule: &mut Fields<'_>,
    key: &str,
    what: &str,
    read: impl Fn(&str) -> Option<u8>,
) -> Result<Option<u8>, Error> {
    match rule.word(key)? {
        None => Ok(None),
        Some(word) => match read(&word) {
            Some(number) => Ok(Some(number)),
            None => Err(rule.wrong(key, &Value::from(word), what)),
        },
    }
}

fn action(rule: &mut Fields<'_>) -> Result<PolicyAction, Error> {
    let table = route::table(rule)?;
    if rule.take("nop").is_some() {
        return Ok(PolicyAction::Nop);
    }
    if let Some(target) = rule.take("goto") {
        let number = target.as_u64().or_else(|| target.as_str().and_then(names::number));
        // `unresolved`: it leads to no rule, and the kernel passes it over.
        let leads = !rule.flag("unresolved")?;
        match number.and_then(|n| u32::try_from(n).ok()).filter(|_| leads) {
            Some(priority) => return Ok(PolicyAction::Goto(priority)),
            // `none`: the rule it led to is gone.
            None if !leads => None,
            None => rule.map.insert("goto".to_owned(), target),
        };
        return Ok(PolicyAction::Nop);
    }
    let word = rule.string("action")?;
    Ok(match (word.as_deref(), table) {
        (Some("blackhole"), _) => PolicyAction::Blackhole,
        (Some("unreachable"), _) => PolicyAction::Unreachable,
        (Some("prohibit"), _) => PolicyAction::Prohibit,
        (Some("nop"), _) => PolicyAction::Nop,
        (None | Some("lookup" | "to_tbl"), Some(table)) => PolicyAction::Lookup(table),
        (Some(other), _) => {
            rule.map.insert("action".to_owned(), Value::from(other));
            PolicyAction::Nop
        }
        (None, None) if rule.flag("l3mdev")? => PolicyAction::LookupVrf,
        (None, None) => return Err(rule.missing("table")),
    })
}

fn rule(mut fields: Fields<'_>, family: Family) -> Result<PolicyRule, Error> {
    let origin = Origin { file: fields.file.into(), line: fields.line };
    let Some(priority) = fields.number("priority")? else { return Err(fields.missing("priority")) };
    let mask = fields.number("fwmask")?;
    let mark = fields.number("fwmark")?;
    let rule = PolicyRule {
        family,
        priority,
        invert: fields.flag("not")?,
        source: prefix(&mut fields, "src", family)?,
        destination: prefix(&mut fields, "dst", family)?,
        iif: fields.string("iif")?,
        oif: fields.string("oif")?,
        // A mask alone compares with mark 0.
        fwmark: match (mark, mask) {
            (None, None) => None,
            (mark, mask) => Some((mark.unwrap_or(0), mask.unwrap_or(u32::MAX))),
        },
        tos: word_number(&mut fields, "tos", "a type of service", names::tos)?.unwrap_or(0),
        protocol: word_number(&mut fields, "ipproto", "a protocol", names::protocol)?,
        sport: ports(&mut fields, "sport")?,
        dport: ports(&mut fields, "dport")?,
        uid_range: range(&mut fields, "uid", "uidrange")?,
        suppress_prefix_len: fields.number("suppress_prefixlen")?.or(fields.number("suppress_prefixlength")?),
        action: action(&mut fields)?,
        origin,
        unmodelled: String::new(),
    };
    fields.map.retain(|key, _| !HARMLESS.contains(&key.as_str()));
    Ok(PolicyRule { unmodelled: fields.rest(), ..rule })
}

/// Reads the rules of a family, in the order listed.
///
/// # Errors
///
/// JSON that is broken, or a field that is missing or of the wrong sort.
pub fn parse(file: &str, text: &str, family: Family) -> Result<Vec<PolicyRule>, Error> {
    json::objects(file, text)?.into_iter().map(|fields| rule(fields, family)).collect()
}

fn show_prefix(object: &mut Object, key: &str, net: Option<IpNet>) {
    if let Some(net) = net {
        object.set(key, net.addr().to_string());
        if net.prefix_len() != net.max_prefix_len() {
            object.set(&format!("{key}len"), net.prefix_len());
        }
    }
}

fn show_range(object: &mut Object, key: &str, range: Option<(u32, u32)>) {
    if let Some((low, high)) = range {
        let text = if low == high { low.to_string() } else { format!("{low}-{high}") };
        object.set(key, text);
    }
}

fn show(rule: &PolicyRule) -> Value {
    let mut object = Object::default();
    object.set("priority", rule.priority);
    if rule.invert {
        object.set("not", Value::Null);
    }
    if rule.source.is_none() {
        object.set("src", "all");
    }
    show_prefix(&mut object, "src", rule.source);
    show_prefix(&mut object, "dst", rule.destination);
    if rule.tos != 0 {
        object.set("tos", format!("{:#x}", rule.tos));
    }
    if let Some((mark, mask)) = rule.fwmark {
        object.set("fwmark", format!("{mark:#x}"));
        if mask != u32::MAX {
            object.set("fwmask", format!("{mask:#x}"));
        }
    }
    object.show("iif", rule.iif.as_ref());
    object.show("oif", rule.oif.as_ref());
    show_range(&mut object, "uidrange", rule.uid_range);
    object.show("ipproto", rule.protocol);
    let wide = |ports: PortRange| (ports.low.into(), ports.high.into());
    show_range(&mut object, "sport", rule.sport.map(wide));
    show_range(&mut object, "dport", rule.dport.map(wide));
    match &rule.action {
        PolicyAction::Lookup(table) => object.set("table", table.to_string()),
        PolicyAction::Goto(priority) => object.set("goto", *priority),
        PolicyAction::LookupVrf => object.set("l3mdev", Value::Null),
        PolicyAction::Nop if rule.unmodelled.is_empty() => object.set("action", "nop"),
        PolicyAction::Nop => {}
        PolicyAction::Unreachable => object.set("action", "unreachable"),
        PolicyAction::Blackhole => object.set("action", "blackhole"),
        PolicyAction::Prohibit => object.set("action", "prohibit"),
    }
    object.count("suppress_prefixlen", rule.suppress_prefix_len);
    let kept = json::kept(&rule.unmodelled);
    if rule.action == PolicyAction::Nop && !["action", "goto"].iter().any(|k| kept.contains_key(*k)) {
        object.set("action", "nop");
    }
    object.0.extend(kept);
    Value::Object(object.0)
}

/// Prints the rules, one a line.
pub fn print(rules: &[PolicyRule]) -> String {
    json::array(rules.iter().map(show))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::RouteTable;

    const TEXT: &str = r#"[{"priority":0,"src":"all","table":"local"},
{"priority":10,"not":null,"src":"10.0.0.0","srclen":8,"dst":"192.0.2.1","tos":"0x10","fwmark":"0x10","fwmask":"0xff","iif":"eth0","uidrange":"0-99","ipproto":"6","sport":"80-90","dport":"443","table":"100","suppress_prefixlen":0},
{"priority":20,"src":"all","action":"blackhole"},
{"priority":30,"src":"all","goto":40},
{"priority":40,"src":"all","action":"nop"},
{"priority":1000,"src":"all","l3mdev":null},
{"priority":32766,"src":"all","table":"main"}]
"#;

    #[test]
    fn reads_and_prints() {
        let rules = parse("rule.json", TEXT, Family::Ipv4).unwrap();
        let all = &rules[1];
        assert!(all.invert);
        assert_eq!(all.source, Some("10.0.0.0/8".parse().unwrap()));
        assert_eq!(all.destination, Some("192.0.2.1/32".parse().unwrap()));
        assert_eq!((all.fwmark, all.tos, all.protocol), (Some((0x10, 0xff)), 0x10, Some(6)));
        assert_eq!(all.sport, Some(PortRange { low: 80, high: 90 }));
        assert_eq!((all.uid_range, all.suppress_prefix_len), (Some((0, 99)), Some(0)));
        assert_eq!(all.action, PolicyAction::Lookup(RouteTable(100)));
        assert_eq!(rules[3].action, PolicyAction::Goto(40));
        assert_eq!(rules[5].action, PolicyAction::LookupVrf);
        assert!(rules.iter().all(|r| r.unmodelled.is_empty()));
        assert_eq!(print(&rules), TEXT);
    }

    #[test]
    fn other_spellings() {
        let text = r#"[{"priority":5,"src":"fd00::","srclen":64,"tos":"EF","ipproto":"ipv6-icmp","sport_start":1,
            "sport_end":9,"dport":53,"uid_start":5,"uid_end":6,"fwmark":"0x1","table":"254","protocol":"kernel"}]"#;
        let rules = parse("rule6.json", text, Family::Ipv6).unwrap();
        assert_eq!((rules[0].tos, rules[0].protocol), (0xb8, Some(58)));
        assert_eq!(rules[0].dport, Some(53.into()));
        assert_eq!((rules[0].uid_range, rules[0].fwmark), (Some((5, 6)), Some((1, u32::MAX))));
        assert_eq!(rules[0].action, PolicyAction::Lookup(RouteTable::MAIN));
        assert_eq!(rules[0].unmodelled, "");
    }

    #[test]
    fn damage_is_named() {
        let message = |from: &str, to: &str| {
            parse("rule.json", &TEXT.replace(from, to), Family::Ipv4).unwrap_err().to_string()
        };
        assert_eq!(
            message("\"10.0.0.0\"", "\"fd00::\""),
            "rule.json:2: bad value: `src` is not an address or prefix of the family: `\"src\":\"fd00::\"`"
        );
        assert_eq!(
            message("\"100\"", "\"mgmt\""),
            "rule.json:2: bad value: `table` is not main, local, default or a number: `\"table\":\"mgmt\"`"
        );
        assert_eq!(
            message("80-90", "80-900000"),
            "rule.json:2: bad value: `sport` is not a range of numbers: `\"sport\":\"80-900000\"`"
        );
    }
}
