//! nft's own tables as nft reads them, a command a line.

use std::net::{Ipv4Addr, Ipv6Addr};

use lab_core::addr::Mac;
use lab_core::model::{
    Atom, ChainKind, Comparison, Direction, Expression, FibResult, Hook, Mangle, Match, NatAddress, NatKind,
    NatRange, NftElement, NftMap, NftMatch, NftSet, NftSetRef, NftType, Policy, RejectWith, Statement, Table,
    Target, Verdict,
};

/// How a value is written.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Sort {
    Number,
    V4,
    V6,
    Ether,
}

/// How what an expression gives is written.
fn sort(expression: &Expression) -> Sort {
    use Expression as E;
    match expression {
        E::IpSource | E::IpDestination | E::CtAddress(..) => Sort::V4,
        E::Ip6Source | E::Ip6Destination => Sort::V6,
        E::EtherSource | E::EtherDestination => Sort::Ether,
        E::And(inner, _) | E::Or(inner, _) | E::Xor(inner, _) => sort(inner),
        _ => Sort::Number,
    }
}

fn constant(value: u128, sort: Sort) -> String {
    match sort {
        Sort::Number => value.to_string(),
        Sort::V4 => Ipv4Addr::from(value as u32).to_string(),
        Sort::V6 => Ipv6Addr::from(value).to_string(),
        Sort::Ether => {
            let [.., a, b, c, d, e, f] = value.to_be_bytes();
            Mac([a, b, c, d, e, f]).to_string()
        }
    }
}

fn atom(atom: &Atom, sort: Sort) -> String {
    match atom {
        Atom::Range(low, high) if low == high => constant(*low, sort),
        Atom::Range(low, high) => format!("{}-{}", constant(*low, sort), constant(*high, sort)),
        Atom::Name(name, prefix) => format!("\"{name}{}\"", if *prefix { "*" } else { "" }),
    }
}

fn element(element: &NftElement, sorts: &[Sort]) -> String {
    let part = |(i, a)| atom(a, sorts.get(i).copied().unwrap_or(Sort::Number));
    element.iter().enumerate().map(part).collect::<Vec<_>>().join(" . ")
}

fn sorts(expression: &Expression) -> Vec<Sort> {
    match expression {
        Expression::Concat(parts) => parts.iter().map(sort).collect(),
        one => vec![sort(one)],
    }
}

fn direction(direction: Direction) -> &'static str {
    match direction {
        Direction::Original => "original",
        Direction::Reply => "reply",
    }
}

fn expression(e: &Expression) -> String {
    use Expression as E;
    let ports = |protocol: Option<u8>| match protocol {
        Some(6) => "tcp",
        Some(17) => "udp",
        Some(132) => "sctp",
        _ => "th",
    };
    let operation = |a: &Expression, sign: &str, b: &Expression| {
        let right = match b {
            E::Constant(value) => constant(*value, sort(a)),
            other => expression(other),
        };
        format!("({} {sign} {right})", expression(a))
    };
    match e {
        E::Iifname => "meta iifname".into(),
        E::Oifname => "meta oifname".into(),
        E::L4proto => "meta l4proto".into(),
        E::Nfproto => "meta nfproto".into(),
        E::Mark => "meta mark".into(),
        E::Length => "meta length".into(),
        E::Pkttype => "meta pkttype".into(),
        E::IpSource => "ip saddr".into(),
        E::IpDestination => "ip daddr".into(),
        E::IpProtocol => "ip protocol".into(),
        E::IpTtl => "ip ttl".into(),
        E::IpDscp => "ip dscp".into(),
        E::IpLength => "ip length".into(),
        E::Ip6Source => "ip6 saddr".into(),
        E::Ip6Destination => "ip6 daddr".into(),
        E::Ip6NextHeader => "ip6 nexthdr".into(),
        E::Ip6HopLimit => "ip6 hoplimit".into(),
        E::Ip6Dscp => "ip6 dscp".into(),
        E::SourcePort(protocol) => format!("{} sport", ports(*protocol)),
        E::DestinationPort(protocol) => format!("{} dport", ports(*protocol)),
        E::TcpFlags => "tcp flags".into(),
        E::IcmpType => "icmp type".into(),
        E::IcmpCode => "icmp code".into(),
        E::Icmp6Type => "icmpv6 type".into(),
        E::Icmp6Code => "icmpv6 code".into(),
        E::EtherSource => "ether saddr".into(),
        E::EtherDestination => "ether daddr".into(),
        E::CtState => "ct state".into(),
        E::CtStatus => "ct status".into(),
        E::CtDirection => "ct direction".into(),
        E::CtMark => "ct mark".into(),
        E::CtAddress(way, to) => {
            format!("ct {} ip {}", direction(*way), if *to { "daddr" } else { "saddr" })
        }
        E::CtPort(way, to) => format!("ct {} proto-{}", direction(*way), if *to { "dst" } else { "src" }),
        E::Fib(result, flags) => {
            let result = match result {
                FibResult::Type => "type",
                FibResult::Oif => "oif",
                FibResult::Oifname => "oifname",
            };
            format!("fib {} {result}", flags.join(" . "))
        }
        E::Numgen { modulus, offset, incremental } => {
            let how = if *incremental { "inc" } else { "random" };
            format!("numgen {how} mod {modulus} offset {offset}")
        }
        E::Constant(value) => value.to_string(),
        E::Concat(parts) => parts.iter().map(expression).collect::<Vec<_>>().join(" . "),
        E::And(a, b) => operation(a, "&", b),
        E::Or(a, b) => operation(a, "|", b),
        E::Xor(a, b) => operation(a, "^", b),
        E::ShiftLeft(a, by) => format!("({} << {by})", expression(a)),
        E::ShiftRight(a, by) => format!("({} >> {by})", expression(a)),
        E::Map(key, map) => match map.as_ref() {
            NftMap::Named(name) => format!("{} map @{name}", expression(key)),
            NftMap::Elements(pairs) => {
                let sorts = sorts(key);
                let pairs: Vec<_> = pairs
                    .iter()
                    .map(|(k, v)| format!("{} : {}", element(k, &sorts), element(v, &[Sort::Number])))
                    .collect();
                format!("{} map {{ {} }}", expression(key), pairs.join(", "))
            }
        },
    }
}

fn condition(m: &NftMatch) -> String {
    let sign = match m.comparison {
        Comparison::Equal => "==",
        Comparison::NotEqual => "!=",
        Comparison::Less => "<",
        Comparison::LessOrEqual => "<=",
        Comparison::Greater => ">",
        Comparison::GreaterOrEqual => ">=",
        Comparison::AnyBit | Comparison::NoBit => "&",
    };
    // nft lists what is turned round and lies in a range as if it did not.
    let spans = |e: &NftElement| e.iter().any(|a| matches!(a, Atom::Range(low, high) if low != high));
    let ranged = match &m.right {
        NftSetRef::Named(_) => true,
        NftSetRef::Elements(elements) => elements.iter().any(spans),
    };
    let left = match &m.left {
        Expression::Xor(inner, _) if ranged || sign.starts_with(['<', '>']) => inner.as_ref(),
        other => other,
    };
    let sorts = sorts(left);
    let left = expression(left);
    let right = match &m.right {
        NftSetRef::Named(name) => format!("@{name}"),
        NftSetRef::Elements(elements) => match elements.as_slice() {
            [one] if one.len() == 1 => element(one, &sorts),
            several => {
                let all: Vec<_> = several.iter().map(|e| element(e, &sorts)).collect();
                format!("{{ {} }}", all.join(", "))
            }
        },
    };
    match m.comparison {
        Comparison::AnyBit => format!("{left} & {right} != 0"),
        Comparison::NoBit => format!("{left} & {right} == 0"),
        _ => format!("{left} {sign} {right}"),
    }
}

fn verdict(verdict: &Verdict) -> String {
    match verdict {
        Verdict::Accept => "accept".into(),
        Verdict::Drop => "drop".into(),
        Verdict::Return => "return".into(),
        Verdict::Continue => "continue".into(),
        Verdict::Jump(chain) => format!("jump {chain}"),
        Verdict::Goto(chain) => format!("goto {chain}"),
    }
}

fn nat(kind: NatKind, range: &NatRange) -> String {
    let word = match kind {
        NatKind::Dnat => "dnat",
        NatKind::Snat => "snat",
        NatKind::Masquerade => "masquerade",
        NatKind::Redirect => "redirect",
    };
    let ports = range.ports.map_or(String::new(), |p| format!(":{}-{}", p.low, p.high));
    let ports = match range.ports {
        Some(p) if p.low == p.high => format!(":{}", p.low),
        _ => ports,
    };
    match &range.address {
        None if ports.is_empty() => word.into(),
        None => format!("{word} to {ports}"),
        Some(NatAddress::Computed(e)) => format!("{word} ip to {}{ports}", expression(e)),
        Some(NatAddress::Range(low, high)) => {
            let family = if low.is_ipv4() { "ip" } else { "ip6" };
            let shown = |a: &std::net::IpAddr| match (a, ports.is_empty()) {
                (std::net::IpAddr::V6(a), false) => format!("[{a}]"),
                (a, _) => a.to_string(),
            };
            let to = if low == high { shown(low) } else { format!("{}-{}", shown(low), shown(high)) };
            format!("{word} {family} to {to}{ports}")
        }
    }
}

fn target(t: &Target) -> String {
    match t {
        Target::Verdict(v) => verdict(v),
        Target::VerdictMap { key, elements, name: None } => {
            let sorts = sorts(key);
            let pairs: Vec<_> =
                elements.iter().map(|(k, v)| format!("{} : {}", element(k, &sorts), verdict(v))).collect();
            format!("{} vmap {{ {} }}", expression(key), pairs.join(", "))
        }
        Target::VerdictMap { key, name: Some(name), .. } => format!("{} vmap @{name}", expression(key)),
        Target::Reject(with) => match with {
            RejectWith::TcpReset => "meta l4proto tcp reject with tcp reset".into(),
            RejectWith::Icmp(code) => format!("reject with icmp type {code}"),
            RejectWith::Icmp6(code) => format!("reject with icmpv6 type {code}"),
            RejectWith::Icmpx(code) => format!("reject with icmpx type {code}"),
        },
        Target::Nat { kind, range } => nat(*kind, range),
        Target::Notrack { .. } => "notrack".into(),
        Target::CtZone { zone, direction: way } => {
            format!("ct {}zone set {zone}", way.map_or(String::new(), |d| format!("{} ", direction(d))))
        }
        Target::Mangle(what, value) => {
            let what = match what {
                Mangle::Mark => "meta mark",
                Mangle::CtMark => "ct mark",
                Mangle::IpTtl => "ip ttl",
                Mangle::Ip6HopLimit => "ip6 hoplimit",
                Mangle::IpDscp => "ip dscp",
                Mangle::Ip6Dscp => "ip6 dscp",
            };
            format!("{what} set {}", expression(value))
        }
        Target::Limit { over } => format!("limit rate {}1000000/second", if *over { "over " } else { "" }),
        Target::NoEffect { name, .. } if name == "counter" => "counter".into(),
        Target::Unmodelled { text, .. } => text.clone(),
        other => format!("{other:?}"),
    }
}

fn set_type(kind: NftType) -> &'static str {
    match kind {
        NftType::Ipv4 => "ipv4_addr",
        NftType::Ipv6 => "ipv6_addr",
        NftType::Ether => "ether_addr",
        NftType::Port => "inet_service",
        NftType::Protocol => "inet_proto",
        NftType::Name => "ifname",
        _ => "mark",
    }
}

fn set(table: &str, set: &NftSet) -> Vec<String> {
    let types: Vec<_> = set.types.iter().map(|t| set_type(*t)).collect();
    let sorts: Vec<_> =
        set.types.iter().map(|t| if *t == NftType::Ipv4 { Sort::V4 } else { Sort::Number }).collect();
    let flags = if set.dynamic { "dynamic" } else { "interval" };
    let (word, data) = match (set.values.is_empty(), set.verdicts.is_empty()) {
        (true, true) => ("set", ""),
        (_, false) => ("map", " : verdict"),
        // Its values are addresses, or marks.
        _ if set.name == "servers" => ("map", " : ipv4_addr"),
        _ => ("map", " : mark"),
    };
    let size = if set.dynamic { "size 1000; " } else { "" };
    let mut lines = vec![format!(
        "add {word} {table} {} {{ type {}{data}; flags {flags}; {size}}}",
        set.name,
        types.join(" . ")
    )];
    for (i, key) in set.elements.iter().enumerate() {
        let value = match (set.values.get(i), set.verdicts.get(i)) {
            (Some(value), _) if data.ends_with("ipv4_addr") => format!(" : {}", element(value, &[Sort::V4])),
            (Some(value), _) => format!(" : {}", element(value, &[Sort::Number])),
            (_, Some(v)) => format!(" : {}", verdict(v)),
            _ => String::new(),
        };
        lines.push(format!("add element {table} {} {{ {}{value} }}", set.name, element(key, &sorts)));
    }
    lines
}

/// The commands that make a table.
pub fn commands(table: &Table) -> Vec<String> {
    let name = format!("{} {}", table.family, table.name);
    let mut lines = vec![format!("add table {name}")];
    for chain in &table.chains {
        let base = chain.base.map_or(String::new(), |base| {
            let kind = match base.kind {
                ChainKind::Filter => "filter",
                ChainKind::Nat => "nat",
                ChainKind::Route => "route",
            };
            let hook = match base.hook {
                Hook::Ingress => "ingress",
                Hook::Prerouting => "prerouting",
                Hook::Input => "input",
                Hook::Forward => "forward",
                Hook::Output => "output",
                Hook::Postrouting => "postrouting",
            };
            let policy = if base.policy == Policy::Drop { "drop" } else { "accept" };
            format!(" {{ type {kind} hook {hook} priority {}; policy {policy}; }}", base.priority)
        });
        lines.push(format!("add chain {name} {}{base}", chain.name));
    }
    lines.extend(table.sets.iter().flat_map(|s| set(&name, s)));
    for chain in &table.chains {
        for rule in &chain.rules {
            let parts: Vec<_> = rule
                .statements
                .iter()
                .map(|s| match s {
                    Statement::Match(Match::Nft(m)) => condition(m),
                    Statement::Match(Match::Unmodelled { text, .. }) => text.clone(),
                    Statement::Match(other) => format!("{other:?}"),
                    Statement::Target(t) => target(t),
                })
                .collect();
            lines.push(format!("add rule {name} {} {}", chain.name, parts.join(" ")));
        }
    }
    lines
}
