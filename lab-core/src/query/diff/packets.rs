//! What a change of rules does to packets: which a base chain admits anew,
//! refuses anew, or treats otherwise, by which rules, and one of each.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;

use num_bigint::BigUint;
use serde::Serialize;

use crate::engine::journey::RuleStep;
use crate::engine::stepper::{meet, Met};
use crate::engine::symbolic::{Comparison, Differing, Effects, End, Leaf, NatAction, Version};
use crate::model::{
    Backend, BaseChain, ChainKind, Hook, Host, NatKind, Packet, RejectWith, RuleRef, Ruleset, Table,
    TableFamily, Text,
};
use crate::query::Error;
use crate::semantics::conntrack::Info;
use crate::space::{packet_of_header, Condition, Field, Names, PacketSet, Ref, Situation, Space, Store};

/// What a base chain does to a packet.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Deed {
    /// In words: `accepts`, `drops`, `rejects with icmp 3`, `rewrites the
    /// destination to 10.0.0.1`; what was marked on the way after that.
    pub does: String,
    /// Whether the packet goes on.
    pub passes: bool,
    /// The rule that decides, or the policy; none: there is no such chain.
    pub by: Option<RuleRef>,
}

/// What a change does to packets that a base chain meets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Effect {
    /// They were stopped, and pass now.
    Admitted,
    /// They passed, and are stopped now.
    Refused,
    /// They are marked, rewritten or refused otherwise.
    Otherwise,
}

/// Where packets are met, and which.
#[derive(Clone, Debug, Serialize)]
pub struct MetPackets {
    /// Where: `in eth0, state new`; alternatives. Empty: anywhere.
    pub when: Vec<String>,
    /// Lines that describe the packets.
    pub lines: Vec<String>,
    /// Whether lines and places are all of it.
    pub whole: bool,
    /// How many headers there are.
    pub count: String,
    /// The headers.
    #[serde(skip)]
    pub set: PacketSet,
}

/// One packet, and the rules it matches before and after the change.
#[derive(Clone, Debug, Serialize)]
pub struct Example {
    /// The packet.
    pub packet: Packet,
    /// Where it is met: `in eth0, state new`.
    pub when: String,
    /// The rules that it matched, in order.
    pub old: Vec<RuleStep>,
    /// The rules that it matches now.
    pub new: Vec<RuleStep>,
}

/// Packets that one rule decided about, and another does now, not alike.
#[derive(Clone, Debug, Serialize)]
pub struct Treated {
    /// What the change does to them.
    pub effect: Effect,
    /// What was done to them.
    pub old: Deed,
    /// What is done to them.
    pub new: Deed,
    /// Whether that is so for all of them; else it may be.
    pub certain: bool,
    /// The packets, by where they are met.
    pub packets: Vec<MetPackets>,
    /// Whether that is all of them.
    pub whole: bool,
    /// How many headers there are, wherever met.
    pub count: String,
    /// One of them.
    pub example: Option<Example>,
}

/// What a change does to the packets of one base chain.
#[derive(Clone, Debug, Serialize)]
pub struct ChainPackets {
    /// The host; empty for a rule set without one.
    pub host: String,
    /// The machinery.
    pub backend: Backend,
    /// The table's family.
    pub family: TableFamily,
    /// The table.
    pub table: String,
    /// The base chain.
    pub chain: Text,
    /// Where it stands.
    pub hook: Hook,
    /// What is done to which packets; never empty.
    pub treated: Vec<Treated>,
    /// What is not known that this depends on.
    pub depends: Vec<String>,
}

/// A version of a host's rules, or of rules alone.
#[derive(Clone, Copy, Debug)]
pub struct Rules<'a> {
    /// The host they are asked on.
    pub host: &'a Host,
    /// The rules.
    pub ruleset: &'a Ruleset,
}

/// So many situations are told of one change.
const SITUATIONS: usize = 8;

/// So many lines are told of one situation.
const LINES: usize = 12;

/// Compares two versions of rules, base chain by base chain: every packet that
/// a chain may meet, with every state of its connection. No entry means that no packet
/// is treated differently, and that is a proof.
///
/// # Errors
/// Packet sets that outgrow their budget.
///
/// ```
/// use lab_core::addr::Family;
/// use lab_core::formats::iptables;
/// use lab_core::model::{Host, Ruleset};
/// use lab_core::query::diff::packets::{packets, Rules};
///
/// let read = |rules: &str| {
///     let text = format!("*filter\n:INPUT DROP [0:0]\n{rules}COMMIT\n");
///     iptables::parse("iptables.save", text, Family::Ipv4).map(|tables| Ruleset { tables })
/// };
/// let old = read("-A INPUT -s 10.0.0.0/8 -j ACCEPT\n")?;
/// let new = read("-A INPUT -s 10.0.0.0/9 -j ACCEPT\n-A INPUT -s 10.128.0.0/9 -j ACCEPT\n")?;
/// let host = Host::default();
/// let diff = packets(Rules { host: &host, ruleset: &old }, Rules { host: &host, ruleset: &new })?;
/// assert!(diff.is_empty(), "the same packets come in");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn packets(old: Rules, new: Rules) -> Result<Vec<ChainPackets>, Error> {
    let space = Space::default();
    let mut found = Vec::new();
    let id = |t: &Table| (t.backend, t.family, t.name.clone(), t.xtables);
    let tables: Vec<(Option<&Table>, Option<&Table>)> = {
        let kept = old
            .ruleset
            .tables
            .iter()
            .map(|t| (Some(t), new.ruleset.tables.iter().find(|other| id(other) == id(t))));
        let added = new.ruleset.tables.iter().filter(|t| !old.ruleset.tables.iter().any(|o| id(o) == id(t)));
        kept.chain(added.map(|t| (None, Some(t)))).collect()
    };
    for (before, after) in tables {
        let before = before.map(|table| Version { host: old.host, table });
        let after = after.map(|table| Version { host: new.host, table });
        let mut comparison = Comparison::new(before, after);
        for (base, a, b) in bases(before, after) {
            let differing = comparison.base(a, b)?;
            if differing.is_empty() {
                continue;
            }
            let Some(Version { host, table }) = after.or(before) else { continue };
            let Some(chain) = b.or(a).and_then(|i| table.chains.get(i)) else { continue };
            let at = At { before, after, old: a, new: b, hook: base.hook };
            let mut treated = Vec::new();
            for one in &differing {
                told(&mut comparison, &space, at, one, &mut treated)?;
            }
            treated.sort_by(|x, y| {
                (x.effect, place(&x.new), place(&x.old)).cmp(&(y.effect, place(&y.new), place(&y.old)))
            });
            found.push(ChainPackets {
                host: host.name.clone(),
                backend: table.backend,
                family: table.family,
                table: table.name.clone(),
                chain: chain.name.clone(),
                hook: base.hook,
                treated,
                depends: comparison.doubts().to_vec(),
            });
        }
    }
    Ok(found)
}

fn place(deed: &Deed) -> (Option<Text>, Option<usize>) {
    let rule = deed.by.as_ref();
    (rule.map(|r| r.chain.clone()), rule.and_then(|r| r.rule))
}

/// Base chains by name and place, each by its index in either version.
fn bases(before: Option<Version>, after: Option<Version>) -> Vec<(BaseChain, Option<usize>, Option<usize>)> {
    type Key = (Text, Hook, i32, ChainKind);
    let all = |version: Option<Version>| -> Vec<(Key, BaseChain, usize)> {
        let chains = version.map(|v| v.table.chains.as_slice()).unwrap_or_default();
        let based = chains.iter().enumerate().filter_map(|(i, c)| Some((c, c.base?, i)));
        based
            .map(|(chain, base, i)| ((chain.name.clone(), base.hook, base.priority, base.kind), base, i))
            .collect()
    };
    let (old, new) = (all(before), all(after));
    let mut pairs: BTreeMap<Key, (BaseChain, Option<usize>, Option<usize>)> = BTreeMap::new();
    for (key, base, index) in old {
        pairs.insert(key, (base, Some(index), None));
    }
    for (key, base, index) in new {
        let pair = pairs.entry(key).or_insert((base, None, None));
        *pair = (base, pair.1, Some(index));
    }
    pairs.into_values().collect()
}

/// The base chain that is told of, in either version.
#[derive(Clone, Copy)]
struct At<'a> {
    before: Option<Version<'a>>,
    after: Option<Version<'a>>,
    old: Option<usize>,
    new: Option<usize>,
    hook: Hook,
}

fn told(
    comparison: &mut Comparison,
    space: &Space,
    at: At,
    differing: &Differing,
    into: &mut Vec<Treated>,
) -> Result<(), Error> {
    let named = |version: Option<Version>, base: Option<usize>, place: Option<(usize, Option<usize>)>| {
        let Version { host, table } = version?;
        let (chain, number) = place?;
        Some(RuleRef::of(host, table, table.chains.get(base?)?, table.chains.get(chain)?, number))
    };
    let by_old = differing.old.rule.and_then(|id| comparison.old_place(id));
    let by_new = differing.new.rule.and_then(|id| comparison.new_place(id));
    let old = deed(&differing.old, named(at.before, at.old, by_old));
    let new = deed(&differing.new, named(at.after, at.new, by_new));
    let effect = match (old.passes, new.passes) {
        (false, true) => Effect::Admitted,
        (true, false) => Effect::Refused,
        _ => Effect::Otherwise,
    };
    let store = comparison.store();
    let real = real(store, at)?;
    let must = store.guard(real, differing.must)?;
    let may = store.without(differing.may, must)?;
    let may = store.guard(real, may)?;
    for (set, certain) in [(must, true), (may, false)] {
        if set.is_none() {
            continue;
        }
        let store = comparison.store();
        let (situations, whole) = store.situations(set, SITUATIONS)?;
        let headers = store.header_only(set, true)?;
        let count: BigUint = space.adopt(store, headers)?.count();
        let example = usual(store, set)?;
        let example = store.example(example).map(|h| (h, packet_of_header(&h)));
        let mut packets = Vec::new();
        for situation in &situations {
            packets.push(met(comparison, space, situation, at.hook)?);
        }
        let example = example.map(|(header, packet)| {
            let name = |field| comparison.names().name(header.get(field) as u32).map(str::to_owned);
            let met = Met {
                packet,
                input: name(Field::Iif),
                output: name(Field::Oif),
                info: INFO.get(header.get(Field::CtState) as usize).copied().unwrap_or(Info::New),
            };
            let steps = |version: Option<Version>, base: Option<usize>, last: &Deed| -> Vec<RuleStep> {
                let run = version.and_then(|v| Some(meet(v.host, v.table, v.table.chains.get(base?)?, &met)));
                // What hangs on more of its connection is not shown.
                run.filter(|steps| ends_at(steps, last)).unwrap_or_default()
            };
            let (was, is) = (steps(at.before, at.old, &old), steps(at.after, at.new, &new));
            Example { when: when(&met), packet: met.packet.clone(), old: was, new: is }
        });
        into.push(Treated {
            effect,
            old: old.clone(),
            new: new.clone(),
            certain,
            packets,
            whole,
            count: count.to_string(),
            example,
        });
    }
    Ok(())
}

/// The highest number of a state.
const STATES: u128 = INFO.len() as u128 - 1;

/// By the number of a state ([`Field::CtState`]).
const INFO: [Info; 5] = [Info::Invalid, Info::New, Info::Established, Info::Related, Info::Untracked];

/// Whether a run of a chain ended by the rule of a deed.
fn ends_at(steps: &[RuleStep], deed: &Deed) -> bool {
    match (steps.last(), &deed.by) {
        (Some(last), Some(by)) => (&last.chain, last.rule) == (&by.chain, by.rule),
        _ => false,
    }
}

fn when(met: &Met) -> String {
    let mut parts = Vec::new();
    parts.extend(met.input.as_ref().map(|name| format!("in {name}")));
    parts.extend(met.output.as_ref().map(|name| format!("out {name}")));
    let state = match met.info {
        Info::Invalid => "invalid",
        Info::New | Info::Template => "new",
        Info::Established | Info::EstablishedReply => "established",
        Info::Related | Info::RelatedReply => "related",
        Info::Untracked => "untracked",
    };
    parts.push(format!("state {state}"));
    parts.join(", ")
}

/// Headers as there are, of packets that a hook may meet.
fn real(store: &mut Store, at: At) -> Result<Ref, Error> {
    let mut parts = vec![store.headers()?];
    let family = at.after.or(at.before).map(|v| v.table.family);
    match family {
        Some(TableFamily::Ip) => parts.push(store.family(crate::addr::Family::Ipv4)?),
        Some(TableFamily::Ip6) => parts.push(store.family(crate::addr::Family::Ipv6)?),
        _ => {}
    }
    parts.push(store.range(Field::CtState, 0, STATES)?);
    let (input, output) = match at.hook {
        Hook::Ingress | Hook::Prerouting | Hook::Input => (Some(true), Some(false)),
        Hook::Forward => (Some(true), Some(true)),
        Hook::Output => (Some(false), Some(true)),
        // What is sent here came in by none.
        Hook::Postrouting => (None, Some(true)),
    };
    for (field, known) in [(Field::Iif, input), (Field::Oif, output)] {
        let none = store.value(field, 0)?;
        match known {
            Some(true) => parts.push(store.not(none)?),
            Some(false) => parts.push(none),
            None => {}
        }
    }
    Ok(store.all_of(&parts)?)
}

/// A part of a set with a header as programs send it, if there is one.
fn usual(store: &mut Store, set: Ref) -> Result<Ref, Error> {
    let mut set = set;
    for (field, low, high) in [
        (Field::CtState, 1, 1),
        (Field::Protocol, 6, 6),
        (Field::TcpFlags, 2, 2),
        (Field::Sport, 40_000, 40_000),
        (Field::Tos, 0, 0),
        (Field::Mark, 0, 0),
    ] {
        let range = store.range(field, low, high)?;
        let narrow = store.guard(set, range)?;
        if !narrow.is_none() {
            set = narrow;
        }
    }
    Ok(set)
}

fn met(
    comparison: &mut Comparison,
    space: &Space,
    situation: &Situation,
    hook: Hook,
) -> Result<MetPackets, Error> {
    let store = comparison.store();
    let set = space.adopt(store, situation.headers)?;
    let (lines, whole) = set.cover(LINES)?;
    let names = comparison.names();
    let alternative = |conditions: &Vec<Condition>| -> String {
        let said = conditions.iter().filter(|c| !says_nothing(c, hook));
        said.map(|c| condition(c, names)).collect::<Vec<_>>().join(", ")
    };
    let when = situation.when.iter().map(alternative).filter(|text| !text.is_empty()).collect();
    Ok(MetPackets {
        when,
        lines: lines.iter().map(ToString::to_string).collect(),
        whole: whole && situation.all_told,
        count: set.count().to_string(),
        set,
    })
}

/// The greatest value that a field may have.
fn greatest(field: Field) -> u128 {
    match field.width() {
        _ if field == Field::CtState => STATES,
        width @ 0..128 => (1_u128 << width) - 1,
        _ => u128::MAX,
    }
}

/// Whether a field may have every value that it can have.
fn says_nothing(condition: &Condition, hook: Hook) -> bool {
    // Where a hook knows an interface, it is some.
    let interface = matches!(condition.field, Field::Iif | Field::Oif);
    let least = u128::from(interface);
    let none = interface && condition.values == [(0, 0)] && hook != Hook::Postrouting;
    none || matches!(condition.values.as_slice(), [(low, high)] if *low <= least && *high >= greatest(condition.field))
}

/// So many values next to each other are told one by one.
const SINGLY: u128 = 8;

/// A condition in words.
fn condition(condition: &Condition, names: &Names) -> String {
    if let Some(mask) = condition.mask {
        let all: Vec<u128> = condition.values.iter().map(|v| v.0).collect();
        let negated = all.len() * 2 > 1 << mask.count_ones();
        // Every value under the mask, those that are told or the others.
        let mut value = 0_u128;
        let mut told = Vec::new();
        loop {
            if all.contains(&value) != negated {
                told.push(format!("{value:#x}/{mask:#x}"));
            }
            value = (value | !mask).wrapping_add(1) & mask;
            if value == 0 {
                break;
            }
        }
        let not = if negated { "not " } else { "" };
        return format!("{} {not}{}", field_name(condition.field), told.join(" or "));
    }
    let most = greatest(condition.field);
    let values: Vec<(u128, u128)> =
        condition.values.iter().filter(|v| v.0 <= most).map(|v| (v.0, v.1.min(most))).collect();
    let (negated, mut values) = few(&values, most);
    if negated && matches!(condition.field, Field::Iif | Field::Oif) {
        // "Not none" goes without saying.
        values.retain(|range| *range != (0..=0));
        for range in values.iter_mut().filter(|range| *range.start() == 0) {
            *range = 1..=*range.end();
        }
    }
    let not = if negated { "not " } else { "" };
    let named =
        matches!(condition.field, Field::Iif | Field::Oif | Field::PhysIn | Field::PhysOut | Field::CtState);
    let list = |show: &dyn Fn(u128) -> String| -> String {
        let each = |range: &RangeInclusive<u128>| match range.end() - range.start() {
            0 => show(*range.start()),
            size if named && size < SINGLY => range.clone().map(show).collect::<Vec<_>>().join(" or "),
            _ => format!("{}-{}", show(*range.start()), show(*range.end())),
        };
        format!("{not}{}", values.iter().map(each).collect::<Vec<_>>().join(" or "))
    };
    let name = |n: u128| match n {
        0 => "none".to_owned(),
        n => names.name(n as u32).map_or_else(|| "another".to_owned(), str::to_owned),
    };
    let state = |n: u128| {
        ["invalid", "new", "established", "related", "untracked"]
            .get(n as usize)
            .map_or_else(|| n.to_string(), ToString::to_string)
    };
    let field = field_name(condition.field);
    match condition.field {
        Field::Iif if condition.values == [(0, 0)] => "sent here".to_owned(),
        Field::Iif | Field::Oif | Field::PhysIn | Field::PhysOut => format!("{field} {}", list(&name)),
        Field::CtState => format!("{field} {}", list(&state)),
        Field::Mark | Field::CtMark => format!("{field} {}", list(&|n| format!("{n:#x}"))),
        _ => format!("{field} {}", list(&|n| n.to_string())),
    }
}

/// What a field is called.
fn field_name(field: Field) -> String {
    match field {
        Field::Iif => "in".into(),
        Field::Oif => "out".into(),
        Field::PhysIn => "bridge port in".into(),
        Field::PhysOut => "bridge port out".into(),
        Field::CtState => "state".into(),
        Field::Mark => "mark".into(),
        Field::CtMark => "connection's mark".into(),
        other => format!("{other:?}"),
    }
}

/// Values as they are, or those left out where these are fewer.
fn few(values: &[(u128, u128)], most: u128) -> (bool, Vec<RangeInclusive<u128>>) {
    let mut gaps = Vec::new();
    let mut next = 0;
    for (low, high) in values {
        if *low > next {
            gaps.push(next..=*low - 1);
        }
        next = high.saturating_add(1);
    }
    if next <= most && next != 0 {
        gaps.push(next..=most);
    }
    let size = |ranges: &[RangeInclusive<u128>]| -> u128 {
        ranges.iter().fold(0, |n, r| u128::saturating_add(n, r.end() - r.start()))
    };
    let plain: Vec<RangeInclusive<u128>> = values.iter().map(|(a, b)| *a..=*b).collect();
    if size(&gaps) < size(&plain) {
        (true, gaps)
    } else {
        (false, plain)
    }
}

/// What a leaf of a chain's diagram does, in words.
pub(super) fn deed(leaf: &Leaf, by: Option<RuleRef>) -> Deed {
    let passes = !matches!(leaf.end, End::Drop | End::Reject(_));
    let does = match &leaf.end {
        End::Accept | End::Fall | End::Return => "accepts".to_owned(),
        End::Drop => "drops".to_owned(),
        End::Reject(RejectWith::TcpReset) => "rejects with a TCP reset".to_owned(),
        End::Reject(RejectWith::Icmp(code) | RejectWith::Icmpx(code)) => {
            format!("rejects with ICMP unreachable, code {code}")
        }
        End::Reject(RejectWith::Icmp6(code)) => format!("rejects with ICMPv6 unreachable, code {code}"),
        End::Nat(action) => nat(action),
    };
    let effects = effects(&leaf.effects);
    let does = if effects.is_empty() { does } else { format!("{does} after {}", effects.join(" and ")) };
    Deed { does, passes, by }
}

fn nat(action: &NatAction) -> String {
    let end = match action.kind {
        NatKind::Snat | NatKind::Masquerade => "source",
        NatKind::Dnat | NatKind::Redirect => "destination",
    };
    let to = match (&action.addresses, &action.netmap, action.kind) {
        (Some((a, b)), _, _) if a == b => a.to_string(),
        (Some((a, b)), _, _) => format!("{a}-{b}"),
        (None, Some(net), _) => format!("its like in {net}"),
        (None, None, NatKind::Masquerade) => "the interface's own address".into(),
        (None, None, NatKind::Redirect) => "this host".into(),
        (None, None, _) => "itself".into(),
    };
    let ports = action.ports.map(|p| match p.low == p.high {
        true => format!(" port {}", p.low),
        false => format!(" ports {}-{}", p.low, p.high),
    });
    format!("rewrites the {end} to {to}{}", ports.unwrap_or_default())
}

fn effects(effects: &Effects) -> Vec<String> {
    let mut parts = Vec::new();
    for (what, marking) in [("the mark", effects.mark), ("the connection's mark", effects.connection_mark)] {
        match (marking.keep, marking.from) {
            (u32::MAX, 0) if marking.flip == 0 => {}
            (keep, 0) => parts.push(format!("setting {what} to {:#x} under {:#x}", marking.flip, !keep)),
            (keep, from) => {
                parts.push(format!("copying {from:#x} into {what} under {:#x}", !keep));
            }
        }
    }
    if effects.tos != (u8::MAX, 0) {
        parts
            .push(format!("setting the type of service to {:#x} under {:#x}", effects.tos.1, !effects.tos.0));
    }
    parts.extend(effects.ttl.iter().map(|operation| format!("changing the TTL ({operation:?})")));
    use crate::engine::symbolic::Tracking;
    match (effects.fresh, effects.untracked) {
        (Tracking::Untracked, _) => parts.push("leaving it untracked".into()),
        (Tracking::Zones(a, b), _) if a == b => parts.push(format!("tracking it in zone {a}")),
        (Tracking::Zones(a, b), _) => parts.push(format!("tracking it in zones {a} and {b}")),
        (Tracking::Kept, _) => {}
    }
    parts.extend(effects.unclear.iter().map(|what| format!("{what}, which is not modelled")));
    parts
}
