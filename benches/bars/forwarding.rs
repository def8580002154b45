//! Forwarding devices rule by rule: Stanford and Internet2 with their loops
//! known after every update, uscarrier with what gets from where to where.

use std::collections::{BTreeMap, BTreeSet};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::Path;
use std::time::{Duration, Instant};

use lab_core::engine::forwarding::{Change, Error, LinkId, Network, Reachability, Report};

use crate::fib_data::{backbone, internet2, stanford, undo, uscarrier, Data, Dice};
use crate::table::{quantile, time, Row};

/// Runs of everything; the middle one counts.
const RUNS: usize = 7;

/// All rows of this group.
pub fn rows() -> Vec<Row> {
    let folder = std::env::var_os("LAB_DATA").unwrap_or_default();
    let folder = Path::new(&folder);
    let mut rows = Vec::new();
    match stanford(folder) {
        Some(data) => updates(&data, Some(STANFORD), &mut rows),
        None => updates(&there_and_back(backbone(16, 256, true)), None, &mut rows),
    }
    match internet2(folder) {
        Some(data) => whole(&data, Some(INTERNET2), &mut rows),
        None => whole(&there_and_back(backbone(9, 2048, false)), None, &mut rows),
    }
    match uscarrier(folder) {
        Some(data) => pairs(&data, Some(USCARRIER), &mut rows),
        None => pairs(&backbone(64, 256, false), None, &mut rows),
    }
    rows
}

/// What trying every address in turn gave, update by update, for Stanford in
/// file order and shuffled. APKeep finds the 20 loops of the first too.
const STANFORD: [Loops; 2] = [
    Loops { ways: 20, digest: 12_116_241_666_020_243_598 },
    Loops { ways: 30, digest: 18_236_445_162_551_808_967 },
];
/// The same for Internet2.
const INTERNET2: Loops = Loops { ways: 3, digest: 12_112_229_060_361_187_012 };
/// The same for uscarrier: for the base and after each batch, all sets.
const USCARRIER: u64 = 0xf653_0fd4_aca8_81ee;

/// The loops that were there after some update.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Loops {
    /// Different ways round.
    ways: usize,
    /// Of how many addresses looped by how many ways after each update.
    digest: u64,
}

fn make(network: &mut Network, change: &Change) -> Result<Report, Error> {
    match change {
        Change::Insert(route) => network.insert(*route),
        Change::Remove(route) => network.remove(*route),
        Change::InsertAcl(acl, rule) => network.insert_acl(*acl, *rule),
        Change::RemoveAcl(acl, rule) => network.remove_acl(*acl, rule),
    }
}

/// A step of a digest that any program can follow.
fn mix(digest: u64, number: u64) -> u64 {
    (digest.rotate_left(5) ^ number).wrapping_mul(0x0100_0000_01B3)
}

/// Every change and then its undoing.
fn there_and_back(mut data: Data) -> Data {
    data.changes.extend(data.changes.clone().into_iter().map(undo));
    data
}

/// The changes in an order by dice, each undoing after what it undoes.
fn shuffled(changes: &[Change]) -> Vec<Change> {
    let inserts = changes.iter().filter(|c| matches!(c, Change::Insert(_) | Change::InsertAcl(..)));
    let mut order: Vec<Change> = inserts.flat_map(|c| [*c, *c]).collect();
    let mut dice = Dice(42);
    for n in (1..order.len()).rev() {
        order.swap(n, dice.roll(n + 1));
    }
    let mut times = BTreeMap::new();
    for change in &mut order {
        let count = times.entry(*change).or_insert(0);
        *count += 1;
        if *count % 2 == 0 {
            *change = undo(*change);
        }
    }
    order
}

/// The loops after every change, found without a clock.
fn check(data: &Data, changes: &[Change]) -> Result<Loops, Error> {
    let mut network = Network::new(data.topology.clone());
    let (mut ways, mut digest) = (BTreeSet::new(), 0);
    for change in changes {
        let report = make(&mut network, change)?;
        let (mut addresses, mut found) = (0, 0);
        for it in network.loops() {
            addresses += u64::from(it.range().last - it.range().first) + 1;
            found += 1;
            ways.insert(it.links().collect::<Vec<LinkId>>());
        }
        assert_eq!(report.loops, found);
        digest = mix(digest, addresses);
    }
    assert!(network.all_loops_told());
    assert_eq!((network.rules(), network.ranges().count()), (0, 1));
    Ok(Loops { ways: ways.len(), digest })
}

/// The time of each change, in the run whose sum is in the middle.
fn replay(data: &Data, changes: &[Change]) -> Vec<Duration> {
    let mut runs: Vec<Vec<Duration>> = (0..RUNS)
        .map(|_| {
            let mut network = Network::new(data.topology.clone());
            let samples = changes.iter().map(|change| {
                let start = Instant::now();
                let report = make(&mut network, change);
                let took = start.elapsed();
                assert!(report.is_ok());
                took
            });
            samples.collect()
        })
        .collect();
    runs.sort_by_key(|samples| samples.iter().sum::<Duration>());
    runs.swap_remove(RUNS / 2)
}

fn updates(data: &Data, known: Option<[Loops; 2]>, rows: &mut Vec<Row>) {
    let orders = [("in order", data.changes.clone()), ("shuffled", shuffled(&data.changes))];
    for (nth, (order, changes)) in orders.iter().enumerate() {
        let loops = check(data, changes);
        if let Some(known) = known {
            assert_eq!(loops, Ok(known[nth]), "{} {order}", data.name);
        }
        let Ok(loops) = loops else { continue };
        for share in [4, 2, 1] {
            let some = part(changes, share);
            let samples = replay(data, &some);
            let pick = |forwarding: bool| -> Vec<Duration> {
                let wanted = some.iter().zip(&samples);
                let wanted =
                    wanted.filter(|(c, _)| matches!(c, Change::Insert(_) | Change::Remove(_)) == forwarding);
                wanted.map(|(_, took)| *took).collect()
            };
            let (mut routes, mut lists) = (pick(true), pick(false));
            let mean = |s: &[Duration]| s.iter().sum::<Duration>() / s.len().max(1) as u32;
            let (average, p99) = (mean(&routes), quantile(&mut routes, 0.99));
            let met = average < Duration::from_micros(7) && p99 < Duration::from_micros(300);
            let most = quantile(&mut routes, 1.0);
            let all = share == 1;
            let told = if all { format!("; {} loops", loops.ways) } else { String::new() };
            rows.push(Row {
                work: "forwarding updates, loops each time",
                size: format!("{} {order}, {}", data.name, routes.len()),
                ours: format!("{} each, p99 {}, most {}{told}", time(average), time(p99), time(most)),
                bar: if all { "7 us each, p99 300 us".to_owned() } else { String::new() },
                met: all.then_some(met),
            });
            if all {
                rows.push(Row {
                    work: "access list updates, loops too",
                    size: format!("{} {order}, {}", data.name, lists.len()),
                    ours: format!("{} each, p99 {}", time(mean(&lists)), time(quantile(&mut lists, 0.99))),
                    bar: String::new(),
                    met: None,
                });
            }
        }
    }
}

/// One change in `share`, together with what undoes it.
fn part(changes: &[Change], share: u64) -> Vec<Change> {
    let chosen = |change: &Change| {
        let insert = match change {
            Change::Insert(_) | Change::InsertAcl(..) => *change,
            _ => undo(*change),
        };
        let mut hasher = DefaultHasher::new();
        insert.hash(&mut hasher);
        hasher.finish() % share == 0
    };
    changes.iter().copied().filter(chosen).collect()
}

fn whole(data: &Data, known: Option<Loops>, rows: &mut Vec<Row>) {
    let loops = check(data, &data.changes);
    if let Some(known) = known {
        assert_eq!(loops, Ok(known), "{}", data.name);
    }
    let Ok(loops) = loops else { return };
    for share in [4, 2, 1] {
        let changes = part(&data.changes, share);
        let samples = replay(data, &changes);
        let sum: Duration = samples.iter().sum();
        let all = share == 1;
        let told = if all { format!("; {} loops", loops.ways) } else { String::new() };
        rows.push(Row {
            work: "inserts then deletes, loops each",
            size: format!("{}, {} rules", data.name, changes.len() / 2),
            ours: format!("{}, {} each{told}", time(sum), time(sum / changes.len().max(1) as u32)),
            bar: if all { "3 s".to_owned() } else { String::new() },
            met: all.then_some(sum < Duration::from_secs(3)),
        });
    }
}

/// The network after the changes, and what gets from where to where.
fn build(data: &Data, changes: &[Change]) -> Result<(Network, Reachability, usize), Error> {
    let mut network = Network::new(data.topology.clone());
    network.apply(changes)?;
    let reach = Reachability::new(&network, &data.edges)?;
    let ranges = reach.all().ranges();
    Ok((network, reach, ranges))
}

/// Of every set, its pair and every range of it joined with its neighbours.
fn digest_sets(reach: &Reachability, mut digest: u64) -> u64 {
    for (from, to, set) in reach.all().iter() {
        let nth = |port| reach.edges().iter().position(|e| *e == port).unwrap_or(usize::MAX);
        digest = mix(mix(digest, nth(from) as u64), nth(to) as u64);
        for it in set {
            digest = mix(mix(digest, it.range.first.into()), it.range.last.into());
        }
    }
    digest
}

fn pairs(data: &Data, known: Option<u64>, rows: &mut Vec<Row>) {
    let built = build(data, &data.changes);
    assert!(built.is_ok(), "{}", data.name);
    let Ok((mut network, mut reach, _)) = built else { return };
    let mut digest = digest_sets(&reach, 0);
    for batch in &data.batches {
        let done = network.apply(batch);
        assert!(done.is_ok(), "{done:?}");
        let before = reach.clone();
        let followed = reach.follow(&network);
        assert!(followed.is_ok(), "{followed:?}");
        let Ok(changes) = followed else { return };
        digest = digest_sets(&reach, digest);
        let fresh = Reachability::new(&network, &data.edges);
        assert_eq!(fresh.map(|f| digest_sets(&f, 0)), Ok(digest_sets(&reach, 0)));
        for change in changes.iter() {
            assert_ne!(before.set(change.from, change.to), reach.set(change.from, change.to));
        }
        let pairs = |reach: &Reachability| -> BTreeSet<(usize, usize)> {
            let all = reach.all();
            all.iter().map(|(from, to, _)| (from.index(), to.index())).collect()
        };
        let moved: BTreeSet<_> = changes.iter().map(|c| (c.from.index(), c.to.index())).collect();
        for pair in pairs(&before).symmetric_difference(&pairs(&reach)) {
            assert!(moved.contains(pair));
        }
    }
    if let Some(known) = known {
        assert_eq!(digest, known, "{}", data.name);
    }
    for share in [4, 2, 1] {
        let changes = part(&data.changes, share);
        let mut ranges = 0;
        let mut samples: Vec<Duration> = (0..RUNS * 3)
            .map(|_| {
                let start = Instant::now();
                let built = build(data, &changes);
                let took = start.elapsed();
                ranges = built.map_or(0, |b| b.2);
                took
            })
            .collect();
        let median = quantile(&mut samples, 0.5);
        let all = share == 1;
        let edges = data.edges.len();
        rows.push(Row {
            work: "model and sets of all edge pairs",
            size: format!("{}, {} rules, {} pairs", data.name, changes.len(), edges * (edges - 1)),
            ours: format!("{}; {ranges} ranges", time(median)),
            bar: if all { "20 ms".to_owned() } else { String::new() },
            met: all.then_some(median < Duration::from_millis(20)),
        });
    }
    let mut batches: Vec<Vec<Duration>> = vec![Vec::new(); data.batches.len()];
    let mut moved = 0;
    for _ in 0..RUNS {
        let Ok((mut network, mut reach, _)) = build(data, &data.changes) else { return };
        moved = 0;
        for (batch, samples) in data.batches.iter().zip(&mut batches) {
            let start = Instant::now();
            let done = network.apply(batch);
            let pairs = reach.follow(&network).map_or(0, |changes| changes.len());
            samples.push(start.elapsed());
            assert!(done.is_ok());
            moved += pairs;
        }
    }
    let mut medians: Vec<Duration> = batches.iter_mut().map(|b| quantile(b, 0.5)).collect();
    let (median, most) = (quantile(&mut medians, 0.5), quantile(&mut medians, 1.0));
    rows.push(Row {
        work: "a link fails: changed pairs",
        size: format!("{}, {} batches", data.name, data.batches.len()),
        ours: format!("{}, most {}; {moved} pairs", time(median), time(most)),
        bar: "5 ms, most 25 ms".to_owned(),
        met: Some(median < Duration::from_millis(5) && most < Duration::from_millis(25)),
    });
}
