use super::{joined, syntax, unsayable, Error, Words};
use crate::addr::{Family, PortRange};
use crate::formats::names;
use crate::model::{PolicyAction, PolicyRule, RouteTable};

pub(super) fn print(verb: &str, rule: &PolicyRule) -> Result<String, Error> {
    if !rule.unmodelled.is_empty() {
        return unsayable(format!("policy rule {} holds what is not modelled", rule.priority));
    }
    let mut words: Vec<String> = vec!["ip".into()];
    if rule.family == Family::Ipv6 {
        words.push("-6".into());
    }
    words.extend(["rule".into(), verb.into()]);
    if rule.invert {
        words.push("not".into());
    }
    let mut option = |name: &str, value: Option<String>| {
        words.extend(value.into_iter().flat_map(|value| [name.to_owned(), value]));
    };
    option("from", rule.source.map(|s| names::show(&s)));
    option("to", rule.destination.map(|d| names::show(&d)));
    option("tos", Some(format!("{:#04x}", rule.tos)).filter(|_| rule.tos != 0));
    option("fwmark", rule.fwmark.map(|(mark, mask)| format!("{mark:#x}/{mask:#x}")));
    option("iif", rule.iif.clone());
    option("oif", rule.oif.clone());
    option("uidrange", rule.uid_range.map(|(low, high)| format!("{low}-{high}")));
    option("ipproto", rule.protocol.map(|p| p.to_string()));
    let ports = |ports: PortRange| format!("{}-{}", ports.low, ports.high);
    option("sport", rule.sport.map(ports));
    option("dport", rule.dport.map(ports));
    option("pref", Some(rule.priority.to_string()));
    match &rule.action {
        PolicyAction::Lookup(table) => option("table", Some(table.to_string())),
        PolicyAction::Goto(priority) => option("goto", Some(priority.to_string())),
        PolicyAction::LookupVrf => words.push("l3mdev".into()),
        PolicyAction::Nop => words.push("nop".into()),
        PolicyAction::Unreachable => words.push("unreachable".into()),
        PolicyAction::Blackhole => words.push("blackhole".into()),
        PolicyAction::Prohibit => words.push("prohibit".into()),
    }
    if let Some(length) = rule.suppress_prefix_len {
        words.extend(["suppress_prefixlength".into(), length.to_string()]);
    }
    joined(&words)
}

fn range<T: std::str::FromStr + Copy>(text: &str) -> Option<(T, T)> {
    let (low, high) = text.split_once('-').unwrap_or((text, text));
    Some((low.parse().ok()?, high.parse().ok()?))
}

fn mark(text: &str) -> Option<(u32, u32)> {
    let number = |text: &str| names::number(text).and_then(|n| u32::try_from(n).ok());
    match text.split_once('/') {
        Some((mark, mask)) => Some((number(mark)?, number(mask)?)),
        None => Some((number(text)?, u32::MAX)),
    }
}

pub(super) fn parse(words: &[&str], v6: bool) -> Result<Box<PolicyRule>, Error> {
    let mut words = Words::of(words);
    let family = if v6 { Family::Ipv6 } else { Family::Ipv4 };
    let mut rule = PolicyRule::new(family, 0, PolicyAction::Lookup(RouteTable::MAIN));
    let mut priority = None;
    let ports = |text: &str| range(text).map(|(low, high)| PortRange { low, high });
    while let Some(word) = words.next() {
        match word {
            "not" => rule.invert = true,
            "from" | "to" => {
                let value = words.value(word)?;
                let net = match value {
                    "all" | "any" | "default" => None,
                    value => match names::net(value) {
                        Some(net) => Some(net.trunc()),
                        None => return syntax(format!("`{value}` is no prefix")),
                    },
                };
                // As `ip` does, the family may be told by a prefix.
                rule.family = net.map_or(rule.family, |net| Family::of(net.addr()));
                *(if word == "from" { &mut rule.source } else { &mut rule.destination }) = net;
            }
            "tos" | "dsfield" => rule.tos = words.named(word, "type of service", names::tos)?,
            "fwmark" => rule.fwmark = Some(words.named(word, "mark", mark)?),
            "iif" | "dev" => rule.iif = Some(words.value(word)?.to_owned()),
            "oif" => rule.oif = Some(words.value(word)?.to_owned()),
            "uidrange" => rule.uid_range = Some(words.named(word, "range of users", range)?),
            "ipproto" => rule.protocol = Some(words.named(word, "protocol", names::protocol)?),
            "sport" => rule.sport = Some(words.named(word, "range of ports", ports)?),
            "dport" => rule.dport = Some(words.named(word, "range of ports", ports)?),
            "pref" | "priority" | "preference" | "order" => priority = Some(words.parsed(word, "number")?),
            "table" | "lookup" => {
                let table = words.named(word, "table that every system has", names::table)?;
                rule.action = PolicyAction::Lookup(table);
            }
            "goto" => rule.action = PolicyAction::Goto(words.parsed(word, "number")?),
            "l3mdev" => rule.action = PolicyAction::LookupVrf,
            "nop" => rule.action = PolicyAction::Nop,
            "unreachable" => rule.action = PolicyAction::Unreachable,
            "blackhole" => rule.action = PolicyAction::Blackhole,
            "prohibit" => rule.action = PolicyAction::Prohibit,
            "suppress_prefixlength" | "sup_pl" => {
                rule.suppress_prefix_len = Some(words.parsed(word, "number")?);
            }
            other => return syntax(format!("`{other}` is not understood here")),
        }
    }
    let Some(priority) = priority else {
        return syntax("write the rule's priority: without it the kernel picks one");
    };
    Ok(Box::new(PolicyRule { priority, ..rule }))
}
