//! The kernel's opinion of what a change does to flows: a router in a namespace
//! gets the one rule set and then the other, and packets that
//! [`flows`](lab_core::query::diff::flows) says fare differently are put on its
//! wires under both: each fares as it is said before and after. Packets of
//! which it says nothing fare alike.
//!
//! `LAB_PAIRS` says how many pairs, `LAB_SEED` which ones.

mod draw;
mod router;

use std::collections::BTreeMap;
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
use self::router::{Doors, Router, Seen, NAME, PROTOCOLS};
use super::draw::Dice;
use super::kernel::allowed;
use crate::wire;

/// How many packets are asked of each change that is certain, of each that is
/// not, and beside all of them.
const CERTAIN: usize = 4;
const POSSIBLE: usize = 2;
const BESIDE: usize = 6;

/// How long a packet that fared otherwise than said is watched, the second time.
const PATIENCE: Duration = Duration::from_millis(40);

/// What was asked, and what came of it.
#[derive(Debug, Default)]
struct Tally {
    pairs: usize,
    refused: usize,
    changes: usize,
    /// Changes that are not certain: most as it depends on the door.
    possible: usize,
    certain_packets: usize,
    possible_packets: usize,
    beside: usize,
    /// Packets that nothing is claimed of.
    open: usize,
    repeated: usize,
    /// How often what was said, or seen where nothing was.
    fates: BTreeMap<String, usize>,
    wrong: Vec<String>,
}

impl Tally {
    fn count(&mut self, what: &str) {
        *self.fates.entry(what.to_owned()).or_default() += 1;
    }
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

/// Those packets of a set whose ends are known to be there: whether anybody
/// else is, is open.
fn known(set: &PacketSet) -> PacketSet {
    let space = set.space().clone();
    let all = |of: &dyn Fn(IpNet) -> PacketSet| {
        let ends = ADDRESSES.iter().map(|a| of(format!("{a}/32").parse().unwrap()));
        ends.reduce(|some, one| some.union(&one).unwrap()).unwrap()
    };
    let (src, dst) = (all(&|net| space.src(net).unwrap()), all(&|net| space.dst(net).unwrap()));
    set.intersection(&src).unwrap().intersection(&dst).unwrap()
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
        Fate::NotSent | Fate::Unknown(_) => true,
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
        Fate::NotSent => "not sent",
        Fate::Unknown(_) => "unknown",
    }
}

/// A packet to ask about, and the change that it is of, if any.
struct Asked<'c> {
    packet: Packet,
    change: Option<&'c FlowChange>,
    /// What the stepper says of it, before and after, by each door.
    foretold: [Vec<Prediction>; 2],
}

/// What was seen of a packet, before and after, by each door.
type Watched = [Vec<Seen>; 2];

/// Two rule sets, and the labs that they make.
struct Pair {
    tool: Tool,
    texts: [String; 2],
    labs: [Lab; 2],
    doors: Vec<String>,
}

impl Pair {
    /// Draws one; none if a tool refuses it.
    fn draw(router: &Router, tool: Tool, dice: &mut Dice) -> Result<Option<Pair>, String> {
        let (a, b) = tool.pair(dice);
        let mut labs = Vec::new();
        for text in [&a, &b] {
            if let Err(why) = router.load(tool, text) {
                if std::env::var_os("LAB_EDITS_REFUSED").is_some() {
                    eprintln!("refused: {why}\n{text}");
                }
                return Ok(None);
            }
            labs.push(router.lab(tool).map_err(|why| format!("{why}\n{text}"))?);
        }
        let doors = router.doors.iter().map(|d| d.name.clone()).collect();
        let labs = labs.try_into().map_err(|_| "two labs")?;
        Ok(Some(Pair { tool, texts: [a, b], labs, doors }))
    }

    fn asked<'c>(&self, packet: Packet, change: Option<&'c FlowChange>) -> Asked<'c> {
        let by_doors = |lab: &Lab| self.doors.iter().map(|door| foretold(lab, &packet, door)).collect();
        let foretold = [by_doors(&self.labs[0]), by_doors(&self.labs[1])];
        Asked { packet, change, foretold }
    }

    /// Packets of every change, and beside them.
    fn packets<'c>(&self, changes: &[&'c FlowChange], dice: &mut Dice, tally: &mut Tally) -> Vec<Asked<'c>> {
        let mut all = Vec::new();
        let sure = |one: &Asked| one.foretold.iter().flatten().all(Prediction::certain);
        for change in changes {
            tally.changes += 1;
            tally.possible += usize::from(!change.certain);
            let packets = match change.certain {
                true => some_of(dice, &change.packets.set, CERTAIN),
                false => some_of(dice, &known(&change.packets.set), POSSIBLE),
            };
            for packet in packets {
                let one = self.asked(whole(&packet), Some(change));
                if !change.certain && !sure(&one) {
                    tally.open += 1;
                    continue;
                }
                let how = if change.certain { "" } else { "by some door " };
                let fates = (short(&change.old), short(&change.new));
                tally.count(&format!("{how}{:?}: {}, then {}", change.effect, fates.0, fates.1));
                tally.certain_packets += usize::from(change.certain);
                tally.possible_packets += usize::from(!change.certain);
                all.push(one);
            }
        }
        for _ in 0..BESIDE {
            let packet = any(dice);
            if changes.iter().any(|c| c.packets.set.contains(&packet)) {
                continue;
            }
            let one = self.asked(packet, None);
            if !sure(&one) {
                tally.open += 1;
                continue;
            }
            tally.beside += 1;
            all.push(one);
        }
        all
    }

    /// Sends packets by every door under both rule sets.
    fn watch(
        &self,
        router: &mut Router,
        asked: &[&Asked],
        patience: Duration,
    ) -> Result<Vec<Watched>, String> {
        let mut all: Vec<Watched> = asked.iter().map(|_| Watched::default()).collect();
        for (side, text) in self.texts.iter().enumerate() {
            router.load(self.tool, text)?;
            for (one, watched) in asked.iter().zip(&mut all) {
                for door in 0..self.doors.len() {
                    watched[side].push(router.send(&one.packet, door, patience));
                }
            }
        }
        Ok(all)
    }

    /// Holds what was seen of a packet to what is said of it; how it fared, if
    /// nothing is.
    fn judge(&self, one: &Asked, watched: &Watched) -> Result<Option<&'static str>, String> {
        let Some(change) = one.change else {
            let fared = |side: usize| -> Vec<String> {
                let by = self.doors.iter().zip(&watched[side]);
                by.map(|(door, seen)| roughly(&one.packet, door, seen)).collect()
            };
            let (before, after) = (fared(0), fared(1));
            if before != after {
                return Err(self.told(one, watched, "nothing is said of it"));
            }
            return Ok(Some(match &before[0] {
                what if what.starts_with("delivered") => "delivered",
                what if what.starts_with("out") => "out",
                what if what == "rejected" => "rejected",
                _ => "dropped",
            }));
        };
        for (side, fate) in [&change.old, &change.new].into_iter().enumerate() {
            let holds = |door: usize| {
                let (told, seen) = (&one.foretold[side][door], &watched[side][door]);
                hold(fate, told, &one.packet, &self.doors[door], seen)
            };
            let by = |door: &usize| change.from == format!("@outside by {NAME}:{}", self.doors[*door]);
            if !(0..self.doors.len()).filter(by).all(holds) {
                let how = if change.certain { "certainly" } else { "perhaps" };
                let when = ["before", "after"][side];
                return Err(self.told(one, watched, &format!("{when}, {how} {fate:?}")));
            }
        }
        Ok(None)
    }

    fn told(&self, one: &Asked, watched: &Watched, said: &str) -> String {
        let mut text = format!("{}\n    said: {said}\n", one.packet);
        for side in [0, 1] {
            for (at, door) in self.doors.iter().enumerate() {
                let stepper: Vec<&Outcome> = one.foretold[side][at].ways.iter().map(|w| &w.outcome).collect();
                text += &format!(
                    "    {} by {door}: kernel {:?}\n        stepper {stepper:?}\n",
                    ["before", "after"][side],
                    watched[side][at]
                );
            }
        }
        text + &format!("--- before\n{}--- after\n{}", self.texts[0], self.texts[1])
    }
}

/// Asks the kernel about one pair.
fn ask(router: &mut Router, tool: Tool, dice: &mut Dice, tally: &mut Tally) -> Result<(), String> {
    let Some(pair) = Pair::draw(router, tool, dice)? else {
        tally.refused += 1;
        return Ok(());
    };
    let diff = flows(&pair.labs[0], &pair.labs[1], &Headers::default()).map_err(|e| e.to_string())?;
    tally.pairs += 1;
    let changes: Vec<&FlowChange> =
        diff.changes.iter().filter(|c| c.from.starts_with("@outside by ")).collect();
    let asked = pair.packets(&changes, dice, tally);
    let all: Vec<&Asked> = asked.iter().collect();
    let watched = pair.watch(router, &all, Duration::ZERO)?;
    let mut again = Vec::new();
    for (one, watched) in asked.iter().zip(&watched) {
        match pair.judge(one, watched) {
            Ok(fared) => fared.into_iter().for_each(|what| tally.count(&format!("beside: {what}"))),
            Err(_) => again.push(one),
        }
    }
    if again.is_empty() {
        return Ok(());
    }
    tally.repeated += again.len();
    for (one, watched) in again.iter().zip(&pair.watch(router, &again, PATIENCE)?) {
        tally.wrong.extend(pair.judge(one, watched).err());
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
    let asked = [tally.certain_packets + tally.possible_packets, tally.beside];
    assert!(asked.iter().all(|a| *a as u64 >= count), "{tally:?}");
}

#[test]
fn packets_fare_as_changes_of_iptables_say() {
    if allowed() {
        run(Tool::Iptables);
    }
}

#[test]
fn packets_fare_as_changes_of_nft_say() {
    if allowed() {
        run(Tool::Nft);
    }
}
