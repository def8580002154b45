//! The kernel's opinion of what a change does to flows: a router in a namespace
//! gets the one rule set and then the other, and packets that
//! [`flows`](lab_core::query::diff::flows) says fare differently are put on its
//! wires under both: each fares as it is said before and after. Packets of
//! which it says nothing fare alike.
//!
//! `LAB_PAIRS` says how many pairs, `LAB_SEED` which ones.

mod draw;
mod router;

use std::time::{Duration, Instant};

use ipnet::IpNet;
use lab_core::addr::Family;
use lab_core::model::{
    AnswerKind, Decision, How, Outcome, Packet, Payload, PortValue, Probe, Stage, TcpFlags, Transport,
};
use lab_core::query::diff::flows::{flows, Answered, Fate, FlowChange};
use lab_core::query::flows::Headers;
use lab_core::query::predict::{predict, Prediction};
use lab_core::space::PacketSet;
use lab_core::Lab;

use self::draw::{Tool, ADDRESSES, PORTS, PREFIXES};
use self::router::{Counts, Doors, Router, Seen, NAME, PROTOCOLS};
use super::draw::Dice;
use crate::wire;

/// How many packets are asked of each change, and beside all of them.
const INSIDE: usize = 4;
const BESIDE: usize = 6;

/// How long a packet that fared otherwise than said is watched, the second time.
const PATIENCE: Duration = Duration::from_millis(40);

/// What was asked, and what came of it.
#[derive(Debug, Default)]
struct Tally {
    pairs: usize,
    refused: usize,
    changes: usize,
    uncertain: usize,
    inside: usize,
    beside: usize,
    open: usize,
    fates: Counts,
    wrong: Vec<String>,
}

/// A packet as it can be sent.
fn whole(packet: &Packet) -> Packet {
    let mut packet = wire::sendable(packet);
    if let Transport::Icmp { id, .. } = &mut packet.transport {
        *id = PortValue::Is(77);
    }
    packet
}

/// Packets of a set, as different as they can be had.
fn some_of(dice: &mut Dice, set: &PacketSet, most: usize) -> Vec<Packet> {
    let space = set.space().clone();
    let v4 = set.intersection(&space.family(Family::Ipv4).unwrap()).unwrap();
    let mut found: Vec<Packet> = Vec::new();
    let narrowed = |set: PacketSet, by: PacketSet| match set.intersection(&by).unwrap() {
        less if less.is_empty() => set,
        less => less,
    };
    for turn in 0..most * 3 {
        let mut part = v4.clone();
        if turn > 0 {
            let net = |dice: &mut Dice| -> IpNet {
                match dice.one_in(3) {
                    true => dice.pick(&PREFIXES).parse().unwrap(),
                    false => format!("{}/32", dice.pick(&ADDRESSES)).parse().unwrap(),
                }
            };
            let mut by = vec![
                space.src(net(dice)).unwrap(),
                space.dst(net(dice)).unwrap(),
                space.protocol(*dice.pick(&[1, 6, 6, 17])).unwrap(),
            ];
            let at = dice.below(by.len());
            by.swap(0, at);
            let port = *dice.pick(&PORTS);
            by.push(space.dport(port, port).unwrap());
            for by in by {
                part = narrowed(part, by);
            }
        }
        let from = 1024 + dice.below(60000) as u16;
        part = narrowed(part, space.sport(from, u16::MAX).unwrap());
        if let Some(packet) = part.example() {
            let heard = PROTOCOLS.contains(&packet.transport.protocol());
            if heard && set.contains(&packet) && !found.contains(&packet) {
                found.push(packet);
            }
        }
        if found.len() == most {
            break;
        }
    }
    found
}

/// Any packet of this small world.
fn any(dice: &mut Dice) -> Packet {
    let address = |dice: &mut Dice| dice.pick(&ADDRESSES).parse().unwrap();
    let (sport, dport) = (PortValue::Is(1024 + dice.below(60000) as u16), PortValue::Is(*dice.pick(&PORTS)));
    let transport = match dice.below(4) {
        0 => Transport::Icmp { kind: 8, code: 0, id: PortValue::Is(77) },
        1 => Transport::Udp { sport, dport },
        _ => Transport::Tcp { sport, dport, flags: TcpFlags(TcpFlags::SYN) },
    };
    let (src, dst) = (address(dice), address(dice));
    wire::sendable(&Packet {
        src,
        dst,
        ttl: 64,
        tos: 0,
        length: 60,
        df: false,
        fragment: None,
        mark: 0,
        transport,
        payload: Payload::Data,
    })
}

fn foretold(lab: &Lab, packet: &Packet, door: &str) -> Prediction {
    let probe = Probe {
        id: String::new(),
        at: NAME.to_owned(),
        how: How::Inject(door.to_owned(), None),
        packet: packet.clone(),
        flow: None,
    };
    predict(lab, &[probe]).remove(0)
}

/// The fields that [`Fate::Arrives`] tells the changes of.
fn fields(packet: &Packet) -> [(&'static str, String); 4] {
    let (sport, dport) = packet.transport.ports().unwrap_or((PortValue::Is(0), PortValue::Is(0)));
    [
        ("source", packet.src.to_string()),
        ("source port", sport.to_string()),
        ("destination", packet.dst.to_string()),
        ("destination port", dport.to_string()),
    ]
}

/// Whether a header is the one that was sent but for what is said to change.
fn changed_so(sent: &Packet, seen: &Packet, changed: &[String]) -> bool {
    if sent.transport.protocol() != seen.transport.protocol() {
        return false;
    }
    fields(sent).iter().zip(&fields(seen)).all(|((name, before), (_, after))| {
        let (mut sure, mut may) = (false, false);
        for one in changed {
            let (told, some) = one.strip_suffix(" (of some)").map_or((one.as_str(), false), |t| (t, true));
            let Some((field, value)) = told.rsplit_once(' ') else { continue };
            if field == *name {
                sure |= !some;
                may |= value == "any" || value == after;
            }
        }
        may || !sure && before == after
    })
}

/// Whether the answer to what was delivered came home, if that can be told: no
/// program answers here, but the kernel refuses TCP and answers pings.
fn answered(sent: &Packet, door: &str, seen: &Seen) -> Option<bool> {
    match sent.transport {
        Transport::Tcp { .. } => Some(
            seen.answers
                .iter()
                .any(|(d, kind, from)| d == door && *kind == AnswerKind::TcpReset && *from == sent.dst),
        ),
        Transport::Icmp { kind: 8, .. } => {
            Some(seen.replies.iter().any(|(d, from, to)| d == door && *from == sent.dst && *to == sent.src))
        }
        _ => None,
    }
}

/// Holds what was seen of a packet to what is said of it.
fn hold(fate: &Fate, foretold: &Prediction, sent: &Packet, door: &str, seen: &Seen) -> bool {
    match fate {
        Fate::Arrives { at, changed, answered: said } if at == NAME => {
            let told = match said {
                Answered::Yes => Some(true),
                Answered::No(_) => Some(false),
                Answered::Unknown => None,
            };
            let same = told.zip(answered(sent, door, seen)).is_none_or(|(told, is)| told == is);
            seen.out.is_empty() && seen.delivered.iter().any(|p| changed_so(sent, p, changed)) && same
        }
        Fate::Arrives { at, changed, .. } => {
            let here = |d: &str, p: &Packet| *at == format!("{NAME}:{d}") && changed_so(sent, p, changed);
            let alone = seen.delivered.is_empty() && seen.answers.is_empty() && seen.out.len() == 1;
            alone && seen.out.iter().any(|(d, p)| here(d, p))
        }
        Fate::Rejected(_) => {
            let told = foretold.ways.iter().any(|way| match &way.outcome {
                Outcome::Rejected { answer, .. } => seen
                    .answers
                    .iter()
                    .any(|(_, kind, from)| *kind == answer.kind && *from == answer.from_addr),
                Outcome::Dropped { by: Decision::Stage { stage: Stage::AnswerLost, .. } } => {
                    seen.answers.is_empty()
                }
                _ => false,
            });
            seen.out.is_empty() && seen.delivered.is_empty() && told
        }
        Fate::Dropped(_) => *seen == Seen::default(),
        Fate::Unknown(_) => true,
    }
}

/// What becomes of a packet, roughly: a change of no more than who refuses it,
/// and how, is none.
fn roughly(sent: &Packet, door: &str, seen: &Seen) -> String {
    if let Some(packet) = seen.delivered.first() {
        return format!("delivered {:?} {:?}", fields(packet), answered(sent, door, seen));
    }
    match (seen.out.first(), seen.answers.is_empty()) {
        (Some((at, packet)), _) => format!("out {at} {:?}", fields(packet)),
        (None, false) => "rejected".to_owned(),
        (None, true) => "dropped".to_owned(),
    }
}

fn short(fate: &Fate) -> &'static str {
    match fate {
        Fate::Arrives { at, changed, .. } if changed.is_empty() => match at == NAME {
            true => "delivered",
            false => "out",
        },
        Fate::Arrives { at, .. } => match at == NAME {
            true => "delivered rewritten",
            false => "out rewritten",
        },
        Fate::Rejected(_) => "rejected",
        Fate::Dropped(_) => "dropped",
        Fate::Unknown(_) => "unknown",
    }
}

/// A packet to ask about, and the change that it is of.
struct Asked<'c> {
    packet: Packet,
    change: Option<&'c FlowChange>,
}

/// Asks the kernel about one pair.
fn ask(router: &mut Router, tool: Tool, dice: &mut Dice, tally: &mut Tally) -> Result<(), String> {
    let (a, b) = tool.pair(dice);
    let mut labs = Vec::new();
    for text in [&a, &b] {
        if let Err(why) = router.load(tool, text) {
            if std::env::var_os("LAB_EDITS_REFUSED").is_some() {
                eprintln!("refused: {why}\n{text}");
            }
            tally.refused += 1;
            return Ok(());
        }
        labs.push(router.lab(tool)?);
    }
    let diff = flows(&labs[0], &labs[1], &Headers::default()).map_err(|e| e.to_string())?;
    tally.pairs += 1;
    let changes: Vec<&FlowChange> = diff.changes.iter().filter(|c| c.from == "@outside").collect();
    let mut asked = Vec::new();
    for change in &changes {
        tally.changes += 1;
        if !change.certain {
            tally.uncertain += 1;
            continue;
        }
        for packet in some_of(dice, &change.packets.set, INSIDE) {
            let kind = format!("{:?}: {}, then {}", change.effect, short(&change.old), short(&change.new));
            *tally.fates.entry(kind).or_default() += 1;
            tally.inside += 1;
            asked.push(Asked { packet: whole(&packet), change: Some(change) });
        }
    }
    let doors: Vec<String> = router.doors.iter().map(|d| d.name.clone()).collect();
    for _ in 0..BESIDE {
        let packet = any(dice);
        if changes.iter().any(|c| c.packets.set.contains(&packet)) {
            continue;
        }
        let sure = |lab: &Lab| doors.iter().all(|door| foretold(lab, &packet, door).certain());
        if !labs.iter().all(sure) {
            tally.open += 1;
            continue;
        }
        tally.beside += 1;
        asked.push(Asked { packet, change: None });
    }
    // What became of each packet by each door, before and after.
    let mut beside: Vec<[Vec<String>; 2]> = asked.iter().map(|_| [Vec::new(), Vec::new()]).collect();
    for (side, text) in [&a, &b].into_iter().enumerate() {
        router.load(tool, text)?;
        for (number, one) in asked.iter().enumerate() {
            for (at, door) in doors.iter().enumerate() {
                let mut seen = router.send(&one.packet, at, Duration::ZERO);
                let Some(change) = one.change else {
                    if seen == Seen::default() {
                        seen = router.send(&one.packet, at, PATIENCE / 8);
                    }
                    beside[number][side].push(roughly(&one.packet, door, &seen));
                    continue;
                };
                let fate = if side == 0 { &change.old } else { &change.new };
                let told = foretold(&labs[side], &one.packet, door);
                if hold(fate, &told, &one.packet, door, &seen) {
                    continue;
                }
                seen = router.send(&one.packet, at, PATIENCE);
                if !hold(fate, &told, &one.packet, door, &seen) {
                    let when = ["before", "after"][side];
                    let outcomes: Vec<&Outcome> = told.ways.iter().map(|w| &w.outcome).collect();
                    tally.wrong.push(format!(
                        "{} by {door}, {when}: said {fate:?}\nkernel {seen:?}\nstepper {outcomes:?}\n\
                         --- A\n{a}\n--- B\n{b}",
                        one.packet
                    ));
                }
            }
        }
    }
    for (one, [before, after]) in asked.iter().zip(&beside).filter(|(one, _)| one.change.is_none()) {
        let among = |these: &[String], those: &[String]| these.iter().all(|t| those.contains(t));
        if !among(before, after) || !among(after, before) {
            tally.wrong.push(format!(
                "{}: nothing is said of it, but by {doors:?} {before:?}, then {after:?}\n\
                 --- A\n{a}\n--- B\n{b}",
                one.packet
            ));
        } else if before != after {
            *tally.fates.entry("beside: doors change places".to_owned()).or_default() += 1;
        } else {
            let kind = before[0].split(' ').next().unwrap_or_default();
            *tally.fates.entry(format!("beside: {kind}")).or_default() += 1;
        }
    }
    Ok(())
}

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

fn run(tool: Tool) {
    let mut routers = Vec::new();
    for doors in [Doors::One, Doors::Two] {
        match Router::build(doors) {
            Ok(router) => routers.push(router),
            Err(why) => return eprintln!("SKIPPED: no router can be built in a namespace here: {why}"),
        }
    }
    let (seed, start) = (number("LAB_SEED").unwrap_or(1), Instant::now());
    let (count, mut tally) = (number("LAB_PAIRS").unwrap_or(15), Tally::default());
    for at in 0..count {
        let mut dice = Dice::of(seed * 1_000_003 + at);
        let router = &mut routers[at as usize % 2];
        let before = tally.wrong.len();
        ask(router, tool, &mut dice, &mut tally).unwrap_or_else(|why| panic!("{tool:?} {at}: {why}"));
        for wrong in &mut tally.wrong[before..] {
            *wrong = format!("{tool:?} {at}: {wrong}");
        }
    }
    let wrong = std::mem::take(&mut tally.wrong);
    eprintln!("{tool:?}: {tally:#?} in {:.1} s", start.elapsed().as_secs_f64());
    assert!(
        wrong.is_empty(),
        "{} wrong; the first:\n{}",
        wrong.len(),
        wrong[..wrong.len().min(3)].join("\n\n")
    );
    assert!(tally.pairs as u64 * 10 >= count * 8, "most rule sets should load: {tally:?}");
    assert!(tally.inside as u64 >= count && tally.beside as u64 >= count, "{tally:?}");
}

#[test]
fn packets_fare_as_changes_of_iptables_say() {
    if super::kernel::allowed() {
        run(Tool::Iptables);
    }
}

#[test]
fn packets_fare_as_changes_of_nft_say() {
    if super::kernel::allowed() {
        run(Tool::Nft);
    }
}
