use std::collections::BTreeSet;

use super::super::ErrorKind;
use super::lexer::Word;
use super::line::{Extension, Given, Line};
use super::{names, values};
use crate::addr::{Family, PortRange};
use crate::model::{
    AddressType, Comparison, ConntrackMatch, ConntrackState, ConntrackStatus, Direction, Match, Not, NthMode,
    PacketType, PhysdevMatch, SetDirection, Statistic, TcpFlagsMatch, Text,
};

type Read<T> = Result<T, ErrorKind>;

/// An extension of a rule, with its options by name.
pub(super) struct Options<'a> {
    pub rule: &'a Line<'a>,
    /// The extension's place in the rule.
    pub at: usize,
    pub extension: &'a Extension<'a>,
    pub family: Family,
    /// The rule's text, and the words it was split into.
    pub text: &'a str,
    pub words: &'a [Word<'a>],
}

impl<'a> Options<'a> {
    pub fn all(&self) -> impl Iterator<Item = &'a Given<'a>> {
        self.rule.options(self.at)
    }

    pub fn get(&self, name: &str) -> Option<&'a Given<'a>> {
        self.all().find(|o| o.name == name)
    }

    /// All options as written.
    pub fn written(&self) -> String {
        self.rule.arguments(self.at, self.text, self.words)
    }

    /// All of the extension as written, for a target without the `-j`.
    pub fn whole(&self) -> String {
        self.rule.text(self.at, self.text, self.words)
    }

    pub fn has(&self, name: &str) -> bool {
        self.get(name).is_some()
    }

    /// The value of an option that must be given.
    pub fn need(&self, name: &str) -> Read<&'a Given<'a>> {
        let of = self.extension.name;
        self.get(name).ok_or_else(|| ErrorKind::Syntax(format!("{of} needs --{name}")))
    }

    fn test<T>(&self, name: &str, read: impl Fn(&str) -> Read<T>) -> Read<Option<Not<T>>> {
        self.get(name).map(|given| given.test(read)).transpose()
    }

    fn must<T>(&self, name: &str, read: impl Fn(&str) -> Read<T>) -> Read<Not<T>> {
        self.need(name)?.test(read)
    }

    fn flag(&self, name: &str) -> Option<Not<()>> {
        self.get(name).map(|given| Not { invert: given.invert, value: () })
    }
}

impl<'a> Given<'a> {
    /// Its first argument.
    pub fn value(&self) -> &'a str {
        self.args[0]
    }

    fn second(&self) -> &'a str {
        self.args[1]
    }

    fn test<T>(&self, read: impl Fn(&str) -> Read<T>) -> Read<Not<T>> {
        Ok(Not { invert: self.invert, value: read(self.value())? })
    }
}

/// The members of a comma list, each read by itself.
fn list<T: Ord>(text: &str, read: impl Fn(&str) -> Read<T>) -> Read<BTreeSet<T>> {
    text.split(',').map(read).collect()
}

/// Understands a match whose options are all known. `None`: it says something
/// that the model has no place for.
pub(super) fn build(o: &Options<'_>, file: &Text) -> Read<Option<Match>> {
    Ok(Some(match o.extension.name {
        "tcp" => Match::Tcp {
            sport: o.test("sport", values::ports)?,
            dport: o.test("dport", values::ports)?,
            flags: tcp_flags(o)?,
            option: o.test("tcp-option", |v| values::byte(v, "a TCP option"))?,
        },
        "udp" => {
            Match::Udp { sport: o.test("sport", values::ports)?, dport: o.test("dport", values::ports)? }
        }
        "sctp" => Match::Sctp {
            sport: o.test("sport", values::ports)?,
            dport: o.test("dport", values::ports)?,
            chunks: o
                .get("chunk-types")
                .map(|given| Not { invert: given.invert, value: given.args.join(" ") }),
        },
        "icmp" if !o.has("icmp-type") => Match::Icmp(Not::plain((255, 0, 255))),
        "icmp" => Match::Icmp(o.must("icmp-type", |v| icmp(v, Family::Ipv4))?),
        "icmp6" => Match::Icmp6(o.must("icmpv6-type", |v| icmp(v, Family::Ipv6))?),
        "multiport" => multiport(o)?,
        "conntrack" => Match::Conntrack(Box::new(conntrack(o)?)),
        "state" => Match::Conntrack(Box::new(ConntrackMatch {
            legacy_state: true,
            states: Some(o.must("state", states)?),
            ..ConntrackMatch::default()
        })),
        "mark" => Match::Mark(o.must("mark", values::mark)?),
        "connmark" => Match::Connmark(o.must("mark", values::mark)?),
        "addrtype" => Match::AddressType {
            source: o.test("src-type", |v| list(v, address_type))?,
            destination: o.test("dst-type", |v| list(v, address_type))?,
            limit_in: o.has("limit-iface-in"),
            limit_out: o.has("limit-iface-out"),
        },
        "set" => set(o)?,
        "mac" => {
            Match::Mac(o.must("mac-source", |v| v.parse().map_err(|_| values::bad(v, "a MAC address")))?)
        }
        "physdev" => Match::Physdev(Box::new(PhysdevMatch {
            input: o.test("physdev-in", values::interface)?,
            output: o.test("physdev-out", values::interface)?,
            is_in: o.flag("physdev-is-in"),
            is_out: o.flag("physdev-is-out"),
            is_bridged: o.flag("physdev-is-bridged"),
        })),
        "comment" => Match::Comment(file.share(o.need("comment")?.value())),
        "limit" => limit(o)?,
        "hashlimit" => {
            let (upto, above) = (o.get("hashlimit-upto"), o.get("hashlimit-above"));
            let above = match (upto, above) {
                (Some(upto), None) => upto.invert,
                (None, Some(above)) => !above.invert,
                _ => return Ok(None),
            };
            Match::Hashlimit { above, options: o.written() }
        }
        "statistic" => return statistic(o, file),
        "dscp" => match (o.get("dscp"), o.get("dscp-class")) {
            (Some(given), None) => Match::Dscp(given.test(values::dscp)?),
            (None, Some(given)) => Match::Dscp(given.test(values::dscp_class)?),
            _ => return Err(ErrorKind::Syntax("dscp needs one of --dscp and --dscp-class".into())),
        },
        "tos" => Match::Tos(o.must("tos", values::tos)?),
        "iprange" => {
            let range = |v: &str| values::address_range(v, o.family);
            Match::IpRange { source: o.test("src-range", range)?, destination: o.test("dst-range", range)? }
        }
        "length" => Match::Length(o.must("length", length)?),
        "ttl" => {
            let (comparison, value) = hops(o, ["ttl-eq", "ttl-lt", "ttl-gt"])?;
            Match::Ttl { comparison, value }
        }
        "hl" => {
            let (comparison, value) = hops(o, ["hl-eq", "hl-lt", "hl-gt"])?;
            Match::HopLimit { comparison, value }
        }
        "pkttype" => Match::PacketType(o.must("pkt-type", packet_type)?),
        "nfacct" => Match::Nfacct(o.need("nfacct-name")?.value().to_owned()),
        "rpfilter" => Match::RpFilter {
            invert: o.has("invert"),
            loose: o.has("loose"),
            valid_mark: o.has("validmark"),
            accept_local: o.has("accept-local"),
        },
        _ => return Ok(None),
    }))
}

/// TCP's flags in the order that iptables prints them, with their bits.
pub(super) const TCP_FLAGS: [(&str, u8); 6] =
    [("FIN", 0x01), ("SYN", 0x02), ("RST", 0x04), ("PSH", 0x08), ("ACK", 0x10), ("URG", 0x20)];

fn tcp_flags(o: &Options<'_>) -> Read<Option<Not<TcpFlagsMatch>>> {
    let flags = |text: &str| -> Read<u8> {
        text.split(',').try_fold(0, |bits, name| {
            let bit = match name.to_ascii_uppercase().as_str() {
                "ALL" => Some(0x3f),
                "NONE" => Some(0),
                upper => TCP_FLAGS.iter().find(|(n, _)| *n == upper).map(|(_, bit)| *bit),
            };
            Ok(bits | bit.ok_or_else(|| values::bad(name, "a TCP flag"))?)
        })
    };
    match (o.get("tcp-flags"), o.get("syn")) {
        (Some(_), Some(_)) => Err(ErrorKind::Syntax("--syn and --tcp-flags are given together".into())),
        (Some(given), None) => {
            let value = TcpFlagsMatch { mask: flags(given.value())?, set: flags(given.second())? };
            Ok(Some(Not { invert: given.invert, value }))
        }
        (None, Some(given)) => {
            Ok(Some(Not { invert: given.invert, value: TcpFlagsMatch { mask: 0x17, set: 0x02 } }))
        }
        (None, None) => Ok(None),
    }
}

fn icmp(text: &str, family: Family) -> Read<(u8, u8, u8)> {
    names::icmp_type(text, family).ok_or_else(|| values::bad(text, "an ICMP type"))
}

/// The kernel's table of ports has this many places; a range takes two.
const MULTIPORT_SIZE: usize = 15;

fn multiport(o: &Options<'_>) -> Read<Match> {
    let sides = [("sports", Some(SetDirection::Src)), ("dports", Some(SetDirection::Dst)), ("ports", None)];
    let mut given = sides.iter().filter_map(|(name, side)| Some((o.get(name)?, *side)));
    let (Some((given, side)), None) = (given.next(), given.next()) else {
        return Err(ErrorKind::Syntax("multiport needs one of --sports, --dports, --ports".into()));
    };
    let ports = given.test(|v| v.split(',').map(values::ports).collect::<Read<Vec<PortRange>>>())?;
    let places: usize = ports.value.iter().map(|p| if p.low == p.high { 1 } else { 2 }).sum();
    if places > MULTIPORT_SIZE {
        return Err(ErrorKind::Value(format!("multiport takes at most {MULTIPORT_SIZE} ports")));
    }
    Ok(Match::Multiport { side, ports })
}

/// Conntrack's states in the order that iptables prints them.
pub(super) const STATES: [(&str, ConntrackState); 5] = [
    ("INVALID", ConntrackState::Invalid),
    ("NEW", ConntrackState::New),
    ("RELATED", ConntrackState::Related),
    ("ESTABLISHED", ConntrackState::Established),
    ("UNTRACKED", ConntrackState::Untracked),
];

/// What else `--ctstate` takes.
pub(super) const PSEUDO_STATES: [(&str, ConntrackStatus); 2] =
    [("SNAT", ConntrackStatus::Snat), ("DNAT", ConntrackStatus::Dnat)];

/// What `--ctstatus` takes, in the order that iptables prints it.
pub(super) const STATUSES: [(&str, ConntrackStatus); 4] = [
    ("EXPECTED", ConntrackStatus::Expected),
    ("SEEN_REPLY", ConntrackStatus::SeenReply),
    ("ASSURED", ConntrackStatus::Assured),
    ("CONFIRMED", ConntrackStatus::Confirmed),
];

type States = (BTreeSet<ConntrackState>, BTreeSet<ConntrackStatus>);

fn states(text: &str) -> Read<States> {
    let mut found = States::default();
    for name in text.split(',') {
        let upper = name.to_ascii_uppercase();
        if let Some((_, state)) = STATES.iter().find(|(n, _)| *n == upper) {
            found.0.insert(*state);
        } else if let Some((_, state)) = PSEUDO_STATES.iter().find(|(n, _)| *n == upper) {
            found.1.insert(*state);
        } else {
            return Err(values::bad(name, "a connection state"));
        }
    }
    Ok(found)
}

fn statuses(text: &str) -> Read<BTreeSet<ConntrackStatus>> {
    let mut found = BTreeSet::new();
    for name in text.split(',').filter(|name| !name.eq_ignore_ascii_case("NONE")) {
        let upper = name.to_ascii_uppercase();
        let status = STATUSES.iter().find(|(n, _)| *n == upper);
        found.insert(status.ok_or_else(|| values::bad(name, "a connection status"))?.1);
    }
    Ok(found)
}

fn conntrack(o: &Options<'_>) -> Read<ConntrackMatch> {
    let masked = |v: &str| values::masked(v, o.family);
    let protocol = |v: &str| values::protocol(v);
    let seconds = |v: &str| -> Read<(u32, u32)> {
        let read = |v: &str| values::uint(v, "a number of seconds");
        match v.split_once(':') {
            Some((low, high)) => Ok((
                if low.is_empty() { 0 } else { read(low)? },
                if high.is_empty() { u32::MAX } else { read(high)? },
            )),
            None => Ok((read(v)?, read(v)?)),
        }
    };
    let direction = match o.get("ctdir").map(|given| given.value().to_ascii_uppercase()).as_deref() {
        Some("ORIGINAL") => Some(Direction::Original),
        Some("REPLY") => Some(Direction::Reply),
        Some(other) => return Err(values::bad(other, "a direction")),
        None => None,
    };
    Ok(ConntrackMatch {
        legacy_state: false,
        states: o.test("ctstate", states)?,
        status: o.test("ctstatus", statuses)?,
        protocol: o.test("ctproto", protocol)?,
        original_source: o.test("ctorigsrc", masked)?,
        original_destination: o.test("ctorigdst", masked)?,
        reply_source: o.test("ctreplsrc", masked)?,
        reply_destination: o.test("ctrepldst", masked)?,
        original_sport: o.test("ctorigsrcport", values::ports)?,
        original_dport: o.test("ctorigdstport", values::ports)?,
        reply_sport: o.test("ctreplsrcport", values::ports)?,
        reply_dport: o.test("ctrepldstport", values::ports)?,
        expire: o.test("ctexpire", seconds)?,
        direction,
    })
}

/// Address types in the order that iptables prints them.
pub(super) const ADDRESS_TYPES: [(&str, AddressType); 12] = [
    ("UNSPEC", AddressType::Unspec),
    ("UNICAST", AddressType::Unicast),
    ("LOCAL", AddressType::Local),
    ("BROADCAST", AddressType::Broadcast),
    ("ANYCAST", AddressType::Anycast),
    ("MULTICAST", AddressType::Multicast),
    ("BLACKHOLE", AddressType::Blackhole),
    ("UNREACHABLE", AddressType::Unreachable),
    ("PROHIBIT", AddressType::Prohibit),
    ("THROW", AddressType::Throw),
    ("NAT", AddressType::Nat),
    ("XRESOLVE", AddressType::Xresolve),
];

fn address_type(text: &str) -> Read<AddressType> {
    let found = ADDRESS_TYPES.iter().find(|(name, _)| name.eq_ignore_ascii_case(text));
    found.map(|(_, kind)| *kind).ok_or_else(|| values::bad(text, "an address type"))
}

/// Packet types by the names that `--pkt-type` takes.
pub(super) const PACKET_TYPES: [(&str, PacketType); 7] = [
    ("unicast", PacketType::Unicast),
    ("broadcast", PacketType::Broadcast),
    ("multicast", PacketType::Multicast),
    ("otherhost", PacketType::Otherhost),
    ("host", PacketType::Unicast),
    ("bcast", PacketType::Broadcast),
    ("mcast", PacketType::Multicast),
];

fn packet_type(text: &str) -> Read<PacketType> {
    let found = PACKET_TYPES.iter().find(|(name, _)| name.eq_ignore_ascii_case(text));
    found.map(|(_, kind)| *kind).ok_or_else(|| values::bad(text, "a packet type"))
}

fn set(o: &Options<'_>) -> Read<Match> {
    let given = o.need("match-set")?;
    let directions = given
        .second()
        .split(',')
        .map(|word| match word {
            "src" => Ok(SetDirection::Src),
            "dst" => Ok(SetDirection::Dst),
            _ => Err(values::bad(word, "`src` or `dst`")),
        })
        .collect::<Read<Vec<_>>>()?;
    let counting: Vec<String> = ["update-counters", "update-subcounters"]
        .iter()
        .filter_map(|name| Some(format!("{}--{name}", if o.get(name)?.invert { "! " } else { "" })))
        .collect();
    let name = Not { invert: given.invert, value: given.value().to_owned() };
    Ok(Match::Set { name, directions, options: counting.join(" ") })
}

/// `--limit-burst` unless given; iptables does not print it.
const LIMIT_BURST: u32 = 5;

fn limit(o: &Options<'_>) -> Read<Match> {
    let rate = match o.get("limit") {
        Some(given) => rate(given.value())?,
        None => "3/hour".to_owned(),
    };
    let burst = o.get("limit-burst").map(|given| values::uint(given.value(), "a burst")).transpose()?;
    Ok(Match::Limit { rate, burst: burst.filter(|b| *b != LIMIT_BURST) })
}

/// A rate with its unit as iptables prints it.
fn rate(text: &str) -> Read<String> {
    let wrong = || values::bad(text, "a rate");
    let (count, unit) = text.split_once('/').unwrap_or((text, "s"));
    let unit = unit.to_ascii_lowercase();
    let starts = |name: &str| !unit.is_empty() && name.starts_with(&unit);
    let unit = [("second", "sec"), ("minute", "min"), ("hour", "hour"), ("day", "day")]
        .iter()
        .find(|(name, _)| starts(name))
        .ok_or_else(wrong)?;
    match count.parse::<u32>() {
        Ok(count) if count > 0 => Ok(format!("{count}/{}", unit.1)),
        _ => Err(wrong()),
    }
}

fn statistic(o: &Options<'_>, file: &Text) -> Read<Option<Match>> {
    match o.need("mode")?.value() {
        "random" if !o.has("every") && !o.has("packet") => Ok(Some(Match::Statistic(
            o.must("probability", |v| probability(v, file))?.map(Statistic::Random),
        ))),
        "nth" if !o.has("probability") => {
            let every = o.must("every", |v| values::uint(v, "a number of packets"))?;
            let packet = match o.get("packet") {
                Some(given) => values::uint(given.value(), "a packet's number")?,
                None => 0,
            };
            if packet >= every.value {
                return Err(ErrorKind::Value(format!(
                    "--packet {packet} is not below --every {}",
                    every.value
                )));
            }
            Ok(Some(Match::Statistic(every.map(|every| Statistic::Nth(NthMode { every, packet })))))
        }
        "random" | "nth" => Err(ErrorKind::Syntax("an option of the other mode of statistic".into())),
        mode => Err(values::bad(mode, "a mode of statistic")),
    }
}

/// The kernel holds a probability as so many of 2^31; iptables prints that.
const WHOLE: f64 = 2_147_483_648.0;

fn probability(text: &str, file: &Text) -> Read<Text> {
    match text.parse::<f64>() {
        Ok(p) if (0.0..=1.0).contains(&p) => {
            let parts = (p * WHOLE).round();
            let printed = is_printed(text, parts as u64);
            Ok(if printed { file.share(text) } else { format!("{:.11}", parts / WHOLE).into() })
        }
        _ => Err(values::bad(text, "a probability")),
    }
}

/// Whether so many of 2^31 are printed as this text: told without printing
/// them, unless they are 1 or lie between two numbers of 11 digits.
fn is_printed(text: &str, parts: u64) -> bool {
    let digits = text.strip_prefix("0.").filter(|digits| digits.len() == 11);
    let scaled = u128::from(parts) * 100_000_000_000;
    let (below, rest, half) = (scaled >> 31, scaled & 0x7fff_ffff, 0x4000_0000);
    rest != half && digits.and_then(|d| d.parse().ok()) == Some(below + u128::from(rest > half))
}

impl<T> Not<T> {
    fn map<U>(self, change: impl Fn(T) -> U) -> Not<U> {
        Not { invert: self.invert, value: change(self.value) }
    }
}

fn length(text: &str) -> Read<(u32, u32)> {
    let read = |v: &str| match values::number(v) {
        Some(n) if n <= u32::from(u16::MAX) => Ok(n),
        _ => Err(values::bad(text, "a packet length")),
    };
    let Some((low, high)) = text.split_once(':') else {
        return Ok((read(text)?, read(text)?));
    };
    let low = if low.is_empty() { 0 } else { read(low)? };
    let high = if high.is_empty() { u32::from(u16::MAX) } else { read(high)? };
    if high < low {
        return Err(values::bad(text, "a range: it ends below its start"));
    }
    Ok((low, high))
}

fn hops(o: &Options<'_>, names: [&str; 3]) -> Read<(Comparison, u8)> {
    let [equal, less, greater] = names;
    let (given, comparison) = match (o.get(equal), o.get(less), o.get(greater)) {
        (Some(given), None, None) if given.invert => (given, Comparison::NotEqual),
        (Some(given), None, None) => (given, Comparison::Equal),
        (None, Some(given), None) => (given, Comparison::Less),
        (None, None, Some(given)) => (given, Comparison::Greater),
        _ => {
            return Err(ErrorKind::Syntax(format!("needs one of --{equal}, --{less}, --{greater}")));
        }
    };
    Ok((comparison, values::byte(given.value(), "a number of hops")?))
}
