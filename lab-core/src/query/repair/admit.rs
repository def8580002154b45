//! Rules that admit or refuse certain flows, and where they can stand.

use std::net::IpAddr;

use ipnet::{IpNet, Ipv4Subnets, Ipv6Subnets};

use super::blocked::{Blocked, Way};
use super::fix::{table_of, Spot};
use crate::addr::{Family, PortRange};
use crate::model::{Chain, ChainKind, Hook, Host, RuleRef, Statement, Table, TableId, Target, Verdict};
use crate::query::what_if::HostChange;
use crate::query::Error;
use crate::space::{Field, Line, PacketSet, Source};

/// More rules than this for one blocker are no repair.
const MOST: usize = 12;

/// At most this many lines are looked at.
const LINES: usize = 12;

/// What rules ask of the flows they are for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Spec {
    family: Family,
    src: Option<(IpAddr, IpAddr)>,
    dst: Option<(IpAddr, IpAddr)>,
    input: Option<String>,
    output: Option<String>,
    protocol: Option<u8>,
    sport: Vec<PortRange>,
    dport: Vec<PortRange>,
    icmp: Option<u8>,
    /// The only state of connections that is meant.
    pub state: Option<State>,
}

/// A state of connections that rules ask for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    /// Not open yet.
    New,
    /// Open, and answered.
    Established,
}

/// What a rule does with the flows it is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Action {
    Accept,
    Drop,
}

/// The conditions that hold for blocked flows where they are blocked, and for
/// no other header; none if they are too scattered for rules.
pub(super) fn specs(
    blocked: &Blocked,
    first: &PacketSet,
    input: Option<&str>,
    output: Option<&str>,
) -> Result<Option<Vec<Spec>>, Error> {
    let (lines, whole) = blocked.set.cover_within(first, LINES)?;
    if !whole {
        return Ok(None);
    }
    let mut specs: Vec<Spec> = Vec::new();
    for line in &lines {
        let ends = blocked.ends;
        let fresh = |source: Source| source.field == Field::FreshPort;
        let ports = |source: Source| match source.field {
            _ if source.mask == u128::MAX => {
                let port = source.value as u16;
                vec![PortRange { low: port, high: port }]
            }
            Field::Sport if blocked.sport_kept || blocked.way == Way::Back => line.sport.clone(),
            Field::Dport => line.dport.clone(),
            _ => Vec::new(),
        };
        let mut sport = ports(ends.sport);
        let mut dport = ports(ends.dport);
        if blocked.way == Way::Back && !blocked.sport_kept && fresh(ends.dport) {
            dport.clear();
        }
        let protocols: Vec<Option<u8>> = match line.protocol.as_slice() {
            [] => vec![None],
            some => some.iter().flat_map(|(a, b)| (*a..=*b).map(Some)).collect(),
        };
        if protocols.len() > MOST {
            return Ok(None);
        }
        for protocol in protocols {
            let ported = matches!(protocol, Some(6 | 17 | 132));
            if !ported {
                (sport, dport) = (Vec::new(), Vec::new());
            }
            let icmp = match (protocol, blocked.way) {
                (Some(1), Way::There) => Some(8),
                (Some(1), Way::Back) => Some(0),
                (Some(58), Way::There) => Some(128),
                (Some(58), Way::Back) => Some(129),
                _ => None,
            };
            for src in addresses(line, ends.src) {
                for dst in addresses(line, ends.dst) {
                    let spec = Spec {
                        family: blocked.family,
                        src,
                        dst,
                        input: input.map(str::to_owned),
                        output: output.map(str::to_owned),
                        protocol,
                        sport: sport.clone(),
                        dport: dport.clone(),
                        icmp,
                        state: None,
                    };
                    if !specs.contains(&spec) {
                        specs.push(spec);
                    }
                }
            }
        }
    }
    Ok((specs.len() <= MOST).then_some(specs))
}

/// The ranges of addresses that a field has in a line; `None` in the list: any.
fn addresses(line: &Line, source: Source) -> Vec<Option<(IpAddr, IpAddr)>> {
    let v6 = line.family == Family::Ipv6;
    let bits = |address: IpAddr| match address {
        IpAddr::V4(a) => u128::from(a.to_bits()) << 96,
        IpAddr::V6(a) => a.to_bits(),
    };
    let address = |bits: u128| match v6 {
        true => IpAddr::V6(bits.into()),
        false => IpAddr::V4(((bits >> 96) as u32).into()),
    };
    let ranges = match source.field {
        Field::Src => &line.src,
        Field::Dst => &line.dst,
        _ => return vec![None],
    };
    let width = if v6 { 0 } else { 96 };
    if !source.mask >> width == 0 {
        let one = address(source.value);
        return vec![Some((one, one))];
    }
    if source.mask == 0 {
        return match ranges.as_slice() {
            [] => vec![None],
            some => some.iter().copied().map(Some).collect(),
        };
    }
    // A prefix put in place of another: host bits stay.
    let mapped = |low: u128, high: u128| match high - low <= !source.mask {
        true if source.of(low) <= source.of(high) => (address(source.of(low)), address(source.of(high))),
        _ => (address(source.of(0)), address(source.of(u128::MAX))),
    };
    match ranges.as_slice() {
        [] => vec![Some(mapped(0, u128::MAX))],
        some => some.iter().map(|(a, b)| Some(mapped(bits(*a), bits(*b)))).collect(),
    }
}

/// A range as one prefix, if it is one.
fn prefix(range: (IpAddr, IpAddr)) -> Option<IpNet> {
    let mut nets: Vec<IpNet> = match range {
        (IpAddr::V4(a), IpAddr::V4(b)) => Ipv4Subnets::new(a, b, 0).take(2).map(IpNet::V4).collect(),
        (IpAddr::V6(a), IpAddr::V6(b)) => Ipv6Subnets::new(a, b, 0).take(2).map(IpNet::V6).collect(),
        _ => Vec::new(),
    };
    match nets.len() {
        1 => nets.pop(),
        _ => None,
    }
}

fn numbers(ports: &[PortRange], between: char) -> String {
    let one = |p: &PortRange| match p.low == p.high {
        true => p.low.to_string(),
        false => format!("{}{between}{}", p.low, p.high),
    };
    ports.iter().map(one).collect::<Vec<_>>().join(",")
}

impl Spec {
    /// What holds for every packet of a family.
    pub fn any(family: Family) -> Self {
        Spec {
            family,
            src: None,
            dst: None,
            input: None,
            output: None,
            protocol: None,
            sport: Vec::new(),
            dport: Vec::new(),
            icmp: None,
            state: None,
        }
    }

    /// The words of the rule, as iptables reads them after the chain's name.
    fn iptables(&self, action: Action) -> Vec<String> {
        let mut words: Vec<String> = Vec::new();
        let mut say = |more: &[&str]| words.extend(more.iter().map(|w| (*w).to_owned()));
        let mut ranges = Vec::new();
        for (option, long, range) in [("-s", "--src-range", self.src), ("-d", "--dst-range", self.dst)] {
            let Some(range) = range else { continue };
            match prefix(range) {
                Some(net) => say(&[option, &net.to_string()]),
                None => ranges.push((long, format!("{}-{}", range.0, range.1))),
            }
        }
        for (option, device) in [("-i", &self.input), ("-o", &self.output)] {
            if let Some(device) = device {
                say(&[option, device]);
            }
        }
        if let Some(protocol) = self.protocol {
            let name = match protocol {
                1 => "icmp".to_owned(),
                6 => "tcp".into(),
                17 => "udp".into(),
                58 => "ipv6-icmp".into(),
                132 => "sctp".into(),
                other => other.to_string(),
            };
            say(&["-p", &name]);
            let single = |ports: &[PortRange]| ports.len() == 1;
            if single(&self.sport) || single(&self.dport) {
                say(&["-m", &name]);
            }
            for (option, ports) in [("--sport", &self.sport), ("--dport", &self.dport)] {
                if single(ports) {
                    say(&[option, &numbers(ports, ':')]);
                }
            }
            for (option, ports) in [("--sports", &self.sport), ("--dports", &self.dport)] {
                if ports.len() > 1 {
                    say(&["-m", "multiport", option, &numbers(ports, ':')]);
                }
            }
            if let Some(kind) = self.icmp {
                match protocol {
                    1 => say(&["-m", "icmp", "--icmp-type", &kind.to_string()]),
                    _ => say(&["-m", "icmp6", "--icmpv6-type", &kind.to_string()]),
                }
            }
        }
        if !ranges.is_empty() {
            say(&["-m", "iprange"]);
        }
        for (option, range) in ranges {
            say(&[option, &range]);
        }
        match self.state {
            None => {}
            Some(State::New) => say(&["-m", "conntrack", "--ctstate", "NEW"]),
            Some(State::Established) => say(&["-m", "conntrack", "--ctstate", "ESTABLISHED"]),
        }
        match action {
            Action::Accept => say(&["-j", "ACCEPT"]),
            Action::Drop => say(&["-j", "DROP"]),
        }
        words
    }

    /// The rule, as nft reads and prints it; none where it has no words for a
    /// device's name.
    fn nft(&self, action: Action) -> Option<String> {
        if self.input.iter().chain(&self.output).any(|device| device.contains('"')) {
            return None;
        }
        let ip = if self.family == Family::Ipv4 { "ip" } else { "ip6" };
        let mut words: Vec<String> = Vec::new();
        words.extend(self.input.iter().map(|i| format!("iifname \"{i}\"")));
        words.extend(self.output.iter().map(|o| format!("oifname \"{o}\"")));
        for (name, range) in [("saddr", self.src), ("daddr", self.dst)] {
            let Some(range) = range else { continue };
            words.push(match prefix(range) {
                Some(net) if net.prefix_len() == net.max_prefix_len() => {
                    format!("{ip} {name} {}", net.addr())
                }
                Some(net) => format!("{ip} {name} {net}"),
                None => format!("{ip} {name} {}-{}", range.0, range.1),
            });
        }
        let set = |ports: &[PortRange]| match ports.len() {
            1 => numbers(ports, '-'),
            _ => format!("{{ {} }}", numbers(ports, '-').replace(',', ", ")),
        };
        if let Some(protocol) = self.protocol {
            let name = match protocol {
                6 => "tcp".to_owned(),
                17 => "udp".into(),
                132 => "sctp".into(),
                other => other.to_string(),
            };
            match (self.icmp, self.sport.is_empty() && self.dport.is_empty()) {
                (Some(8), _) => words.push("icmp type echo-request".into()),
                (Some(0), _) => words.push("icmp type echo-reply".into()),
                (Some(128), _) => words.push("icmpv6 type echo-request".into()),
                (Some(_), _) => words.push("icmpv6 type echo-reply".into()),
                (None, true) => words.push(format!("meta l4proto {name}")),
                (None, false) => {}
            }
            for (field, ports) in [("sport", &self.sport), ("dport", &self.dport)] {
                if !ports.is_empty() {
                    words.push(format!("{name} {field} {}", set(ports)));
                }
            }
        }
        match self.state {
            None => {}
            Some(State::New) => words.push("ct state new".into()),
            Some(State::Established) => words.push("ct state established".into()),
        }
        words.push(match action {
            Action::Accept => "accept".into(),
            Action::Drop => "drop".into(),
        });
        Some(words.join(" "))
    }
}

/// Rules of these conditions, one after the other, where there is room for them.
pub(super) fn rules_at(host: &Host, spot: &Spot, specs: &[Spec], action: Action) -> Option<Vec<HostChange>> {
    let made = specs.iter().enumerate().map(|(more, spec)| {
        let spot = Spot { place: spot.place.map(|p| p + more), ..spot.clone() };
        match spot.table.xtables {
            true => spot.iptables(host, &spec.iptables(action)),
            false => spot.nft(host, &spec.nft(action)?),
        }
    });
    made.collect()
}

/// The base chain that a rule was run from.
pub(super) fn base_of<'h>(host: &'h Host, rule: &RuleRef) -> Option<(&'h Table, &'h Chain)> {
    let table = table_of(host, rule)?;
    Some((table, table.chain(&rule.base)?))
}

/// Places where a rule before a deciding rule can stand: right before it, and
/// earlier in its base chain, before what leads to it.
pub(super) fn places(host: &Host, rule: &RuleRef) -> Vec<Spot> {
    let Some(table) = table_of(host, rule) else { return Vec::new() };
    let mut places = vec![Spot::of(host, table, &rule.chain, rule.rule)];
    let Some(base) = table.chain(&rule.base) else { return places };
    if base.name != rule.chain {
        let leads = |r: &crate::model::Rule| r.statements.iter().any(|s| leads_to(table, s, &rule.chain, 0));
        if let Some(place) = base.rules.iter().position(leads) {
            places.push(Spot::of(host, table, &base.name, Some(place + 1)));
        }
    }
    let user = table.chain("DOCKER-USER").filter(|c| c.name != rule.chain);
    let goes_there = |r: &crate::model::Rule| {
        let to = |s: &Statement| leads_to(table, s, "DOCKER-USER", 0);
        r.statements.iter().any(to)
    };
    if user.is_some()
        && base.base.is_some_and(|b| b.hook == Hook::Forward)
        && base.rules.iter().any(goes_there)
    {
        places.push(Spot::of(host, table, "DOCKER-USER", Some(1)));
    }
    places
}

/// How deep chains may jump (`nft_chain_validate`: 16).
const JUMPS: usize = 16;

fn leads_to(table: &Table, statement: &Statement, chain: &str, depth: usize) -> bool {
    let into = |name: &str| {
        name == chain
            || (depth < JUMPS
                && table.chain(name).is_some_and(|c| {
                    c.rules.iter().flat_map(|r| &r.statements).any(|s| leads_to(table, s, chain, depth + 1))
                }))
    };
    match statement {
        Statement::Target(Target::Verdict(Verdict::Jump(name) | Verdict::Goto(name))) => into(name),
        Statement::Target(Target::VerdictMap { elements, name, .. }) => {
            let named = name.as_deref().and_then(|n| table.set(n)).is_some();
            named
                || elements.iter().any(|(_, verdict)| match verdict {
                    Verdict::Jump(name) | Verdict::Goto(name) => into(name),
                    _ => false,
                })
        }
        _ => false,
    }
}

/// The start of the filter's base chain at a hook where a person's rule can
/// stand; that of iptables unless only nft speaks there.
pub(super) fn filter_at(host: &Host, family: Family, hook: Hook) -> Option<Spot> {
    let name = match hook {
        Hook::Input => "INPUT",
        Hook::Forward => "FORWARD",
        Hook::Output => "OUTPUT",
        Hook::Ingress | Hook::Prerouting | Hook::Postrouting => return None,
    };
    let tables = || host.ruleset.tables.iter().filter(move |t| t.family.sees(family));
    let own = tables().find(|t| t.xtables && t.name == "filter" && t.chain(name).is_some());
    let native = || {
        let at = |c: &&Chain| c.base.is_some_and(|b| (b.hook, b.kind) == (hook, ChainKind::Filter));
        tables()
            .filter(|t| !t.xtables)
            .find_map(|t| t.chains.iter().find(at).map(|c| Spot::of(host, t, &c.name, Some(1))))
    };
    match own {
        Some(table) => Some(Spot::of(host, table, name, Some(1))),
        None => native().or_else(|| {
            // Made with its first rule, by the machinery of the others.
            Some(Spot { table: TableId::iptables(family, "filter"), chain: name.into(), place: Some(1) })
        }),
    }
}
