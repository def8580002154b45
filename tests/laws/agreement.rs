//! Every packet of random labs is in the set that the stepper says.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use lab_core::engine::symbolic::{Flowed, Sending, Symbolic};
use lab_core::model::{Lab, Packet};
use lab_core::space::{header, Error, Field, Header, Ref, Store};
use lab_core::strategies;
use lab_workspace::{compare, flows_of, packet_of, told, Entrance, GAPS, HEADER};
use proptest::prelude::*;
use proptest::sample::Index;
use proptest::strategy::ValueTree;

use crate::kinds::{kinds, quotas};
use crate::{number, runner, shown};

/// A lab, packets for it, and where they enter.
#[derive(Clone, Debug)]
struct Case {
    lab: Lab,
    packets: Vec<Packet>,
    entrances: Vec<Index>,
}

/// One lab in six has devices on top of others.
fn labs() -> impl Strategy<Value = Lab> {
    prop_oneof![5 => strategies::lab(), 1 => strategies::layered()]
}

fn case() -> impl Strategy<Value = Case> {
    let packets = proptest::collection::vec(strategies::packet(), 10..11);
    let entrances = proptest::collection::vec(any::<Index>(), 2..3);
    (labs(), packets, entrances).prop_map(|(lab, packets, entrances)| Case { lab, packets, entrances })
}

/// Where packets may enter a lab: hosts send, frames come by wires.
fn entrances(lab: &Lab) -> (Vec<Entrance<'_>>, Vec<Entrance<'_>>) {
    let (mut sent, mut come) = (Vec::new(), Vec::new());
    for host in lab.hosts.values() {
        for sending in [Sending::Bound, Sending::Socket, Sending::Raw] {
            sent.push(Entrance::Send(host, sending));
        }
        let wired = host.interfaces.iter().filter(|i| i.kind.has_wire());
        come.extend(wired.map(|device| Entrance::Inject(host, device)));
    }
    (sent, come)
}

/// A header with one field next to what it was.
fn neighbours(header: &Header) -> Vec<Header> {
    let v6 = header.get(Field::Family) == 1;
    let one = if v6 { 1 } else { 1 << 96 };
    let mut all = Vec::new();
    let mut with = |field: Field, value: u128| {
        let mut other = *header;
        other.set(field, value);
        all.push(other);
    };
    for field in [Field::Src, Field::Dst] {
        let now = header.get(field);
        with(field, now.wrapping_add(one));
        with(field, now.wrapping_sub(one));
    }
    if matches!(header.get(Field::Protocol), 6 | 17 | 132) {
        for field in [Field::Sport, Field::Dport] {
            let now = header.get(field);
            with(field, (now + 1) & 0xffff);
            with(field, now.wrapping_sub(1) & 0xffff);
        }
    }
    if header.get(Field::Protocol) == 6 {
        with(Field::TcpFlags, header.get(Field::TcpFlags) ^ 2);
        with(Field::TcpFlags, 0x12);
    }
    if matches!(header.get(Field::Protocol), 1 | 58) {
        with(Field::IcmpType, header.get(Field::IcmpType) ^ 1);
    }
    with(Field::Tos, header.get(Field::Tos) ^ 8);
    all
}

/// Headers from inside of flows: examples, examples near to packets drawn, and
/// what lies next to them.
fn boundaries(store: &mut Store, flows: &[Flowed], packets: &[Packet]) -> Vec<Header> {
    const FLOWS: usize = 12;
    let stride = flows.len().div_ceil(FLOWS).max(1);
    let mut found = Vec::new();
    for (place, flowed) in flows.iter().enumerate().step_by(stride) {
        let like = header(&packets[place % packets.len()]);
        let wanted: &[Field] = match place % 3 {
            0 => &[Field::Protocol, Field::Sport, Field::Dport],
            1 => &[Field::Dst],
            _ => &[Field::Src, Field::Protocol],
        };
        let parts: Vec<Ref> = wanted.iter().map(|f| store.value(*f, like.get(*f)).unwrap()).collect();
        let near = store.all_of(&parts).unwrap();
        let near = store.guard(near, flowed.flow.set).unwrap();
        let Some(example) = store.example(near).or_else(|| store.example(flowed.flow.set)) else { continue };
        found.push(example);
        let around = neighbours(&example);
        found.push(around[place % around.len()]);
        found.push(around[(place * 5 + 3) % around.len()]);
    }
    found
}

/// What was done and seen, in all.
#[derive(Default)]
pub struct Tally {
    pub labs: u64,
    pub with_nat: u64,
    pub with_hosts: u64,
    pub kinds: BTreeMap<String, u64>,
    pub packets: u64,
    pub certain: u64,
    unknown: u64,
    gaps: u64,
    skipped: u64,
    arrived: u64,
    flows: u64,
    sets: Duration,
    steps: Duration,
    draw: Duration,
}

/// Holds one lab to the laws: the first packet that breaks one.
fn hold(case: &Case, tally: &mut Tally) -> Result<(), String> {
    let (sent, come) = entrances(&case.lab);
    let like = &case.packets[0];
    let mut engine = Symbolic::new(&case.lab);
    // The few labs that fall into very many parts take too long.
    engine.limit = PARTS;
    for (index, from) in case.entrances.iter().zip([sent, come]) {
        let entrance = *index.get(&from);
        let start = Instant::now();
        let flows = match entrance.flows(&mut engine, like) {
            Ok(flows) => flows,
            Err(Error::Parts { .. }) => {
                tally.skipped += 1;
                tally.sets += start.elapsed();
                continue;
            }
            Err(other) => return Err(format!("{entrance:?}: {other}")),
        };
        tally.flows += flows.len() as u64;
        tally.sets += start.elapsed();
        let start = Instant::now();
        let headers = engine.headers().unwrap();
        let store = engine.store();
        let socket = matches!(entrance, Entrance::Send(_, Sending::Socket));
        whole(store, &flows, headers, socket).map_err(|e| format!("{}: {e}", named(entrance)))?;
        let mut asked: Vec<Header> = case.packets.iter().map(header).collect();
        asked.extend(boundaries(store, &flows, &case.packets));
        tally.draw += start.elapsed();
        asked.retain(|h| store.lookup(headers, h) != 0);
        for header in &asked {
            let Some(packet) = packet_of(header, like) else { continue };
            let packet = match entrance {
                Entrance::Send(_, Sending::Socket) => {
                    let nobody: IpAddr = if packet.src.is_ipv4() {
                        Ipv4Addr::UNSPECIFIED.into()
                    } else {
                        Ipv6Addr::UNSPECIFIED.into()
                    };
                    Packet { src: nobody, ..packet }
                }
                Entrance::Send(..) if packet.src.is_unspecified() => continue,
                _ => packet,
            };
            let start = Instant::now();
            let Some(ways) = entrance.ways(&case.lab, &packet) else { continue };
            tally.steps += start.elapsed();
            let mut here = flows_of(store, &flows, &packet, socket).unwrap();
            // A socket may pick the very destination.
            here.retain(|(_, h)| h.get(Field::Src) != h.get(Field::Dst));
            if here.is_empty() && socket {
                continue;
            }
            tally.packets += 1;
            if ways.iter().any(|w| !w.unknown.is_empty()) {
                tally.unknown += 1;
            } else if ways.len() == 1 {
                tally.certain += 1;
                tally.arrived += u64::from(ways[0].outcome.decision().is_none());
            }
            if here.iter().any(|(f, _)| f.flow.unknown.iter().any(|u| GAPS.iter().any(|g| u.contains(g)))) {
                tally.gaps += 1;
                continue;
            }
            compare(&here, &ways).map_err(|why| {
                let outcomes: Vec<String> = ways.iter().map(|w| told(&w.outcome)).collect();
                format!(
                    "{}: {packet} ttl {} tos {:#x} length {} df {}\n  {why}\n  ways: {outcomes:?}",
                    named(entrance),
                    packet.ttl,
                    packet.tos,
                    packet.length,
                    packet.df
                )
            })?;
            let certain = ways.len() == 1 && ways[0].unknown.is_empty();
            let queries = here.iter().any(|(f, _)| f.flow.reasons.iter().any(|r| r.contains("identifier")));
            // Whatever NAT picks, one end may be all that comes of it.
            let picks = here.iter().all(|(f, _)| f.ending == here[0].0.ending && !f.flow.reasons.is_empty());
            if certain && !queries && here.len() != 1 && !picks {
                let flows: Vec<_> =
                    here.iter().map(|(f, _)| (&f.flow.reasons, &f.flow.now, &f.ending)).collect();
                return Err(format!("{}: {packet} is in {} flows: {flows:?}", named(entrance), here.len()));
            }
        }
    }
    Ok(())
}

fn named(entrance: Entrance) -> String {
    match entrance {
        Entrance::Send(host, sending) => format!("{} sends {sending:?}", host.name),
        Entrance::Inject(host, device) => format!("at {}:{}", host.name, device.name),
    }
}

/// Every header is in some flow of an entrance.
fn whole(store: &mut Store, flows: &[Flowed], headers: Ref, socket: bool) -> Result<(), String> {
    let sets: Vec<Ref> = flows.iter().map(|f| f.flow.set).collect();
    let mut union = Ref::NONE;
    for set in sets {
        let yes = store.choose(set, Ref::leaf(1), union).unwrap();
        union = yes;
    }
    if socket {
        let (start, end) = (Field::Src.bit(0), Field::Src.bit(0) + 128);
        union = store.forget(union, &|p| p >= start && p < end, true).unwrap();
    }
    let left = store.without(headers, union).unwrap();
    match store.example(left) {
        None => Ok(()),
        Some(header) => Err(format!("in no flow: {:?}", HEADER.map(|f| (f, format!("{:x}", header.get(f)))))),
    }
}

/// Shrinks a case that breaks a law, for as long as a minute.
fn shrunk(mut tree: impl ValueTree<Value = Case>, mut why: String) -> (Case, String) {
    let start = Instant::now();
    let mut worst = tree.current();
    if number("LAB_SHRINK", 1) == 0 {
        return (worst, why);
    }
    let mut more = tree.simplify();
    while more && start.elapsed() < Duration::from_secs(60) {
        let now = tree.current();
        match hold(&now, &mut Tally::default()) {
            Err(found) => {
                (worst, why) = (now, found);
                more = tree.simplify();
            }
            Ok(()) => more = tree.complicate(),
        }
    }
    (worst, why)
}

const SHARDS: u64 = 16;

/// How many parts an entrance's packets may fall into.
const PARTS: usize = 3000;

#[test]
fn every_packet_of_random_labs_is_in_the_set_that_the_stepper_says() {
    let labs = number("LAB_LABS", 2000);
    let next = AtomicU64::new(0);
    let total = Mutex::new(Tally::default());
    let wrong = Mutex::new(Vec::new());
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let most = number("LAB_WRONG", 3) as usize;
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| loop {
                let shard = next.fetch_add(1, Ordering::Relaxed);
                if shard >= SHARDS {
                    return;
                }
                if number("LAB_SHARD", shard) != shard {
                    continue;
                }
                let (mut runner, strategy) = (runner(shard), case());
                let mut tally = Tally::default();
                for place in 0..labs / SHARDS + u64::from(shard < labs % SHARDS) {
                    let tree = strategy.new_tree(&mut runner).unwrap();
                    let case = tree.current();
                    let seen = kinds(&case.lab);
                    tally.labs += 1;
                    tally.with_nat +=
                        u64::from(seen.contains("target Nat") || seen.contains("target Netmap"));
                    tally.with_hosts += u64::from(case.lab.hosts.len() > 1);
                    for kind in seen {
                        *tally.kinds.entry(kind).or_default() += 1;
                    }
                    if wrong.lock().unwrap().len() >= most {
                        return;
                    }
                    if number("LAB_PLACE", place) != place {
                        continue;
                    }
                    let start = Instant::now();
                    if let Err(why) = hold(&case, &mut tally) {
                        wrong.lock().unwrap().push(String::new());
                        let (case, why) = shrunk(tree, why);
                        let text = format!("shard {shard} lab {place}: {why}\n{}", shown(&case.lab));
                        wrong.lock().unwrap().push(text);
                    }
                    if start.elapsed() > Duration::from_secs(number("LAB_SLOW", 1000)) {
                        println!(
                            "slow: shard {shard} lab {place} {:?}\n{}",
                            start.elapsed(),
                            shown(&case.lab)
                        );
                    }
                }
                add(&mut total.lock().unwrap(), tally);
            });
        }
    });
    let (total, wrong) = (total.into_inner().unwrap(), wrong.into_inner().unwrap());
    println!(
        "{} labs, {} with NAT, {} of several hosts; {} packets, {} certain ({} arrived), {} not modelled, {} gaps, {} entrances skipped; {} flows; \
         sets {:?}, stepper {:?}, drawing {:?}",
        total.labs, total.with_nat, total.with_hosts, total.packets, total.certain, total.arrived, total.unknown, total.gaps, total.skipped,
        total.flows, total.sets, total.steps, total.draw
    );
    let texts: Vec<&String> = wrong.iter().filter(|t| !t.is_empty()).collect();
    assert!(
        wrong.is_empty(),
        "{}",
        texts.iter().map(|t| t.as_str()).collect::<Vec<_>>().join("\n----------\n")
    );
    quotas(&total);
}

fn add(total: &mut Tally, more: Tally) {
    total.labs += more.labs;
    total.with_nat += more.with_nat;
    total.with_hosts += more.with_hosts;
    total.packets += more.packets;
    total.certain += more.certain;
    total.unknown += more.unknown;
    total.gaps += more.gaps;
    total.skipped += more.skipped;
    total.arrived += more.arrived;
    total.flows += more.flows;
    total.sets += more.sets;
    total.steps += more.steps;
    total.draw += more.draw;
    for (kind, count) in more.kinds {
        *total.kinds.entry(kind).or_default() += count;
    }
}
