//! One lab: built, captured, sent packets into, and held to what is predicted
//! from its snapshot.

use std::path::Path;
use std::time::{Duration, Instant};

use lab_core::engine::symbolic::Symbolic;
use lab_core::model::{Decision, How, Lab, Outcome, Probe, Stage};
use lab_core::query::predict::{predict, Prediction};
use lab_workspace::{compare, flows_of, GAPS};
use proptest::test_runner::TestRunner;

use crate::build::{build, unlearn, Built};
use crate::capture::capture;
use crate::compare::hold;
use crate::draw::{random, reply, Deck, Entering};
use crate::record::record;
use crate::tally::{Left, Tally};
use crate::watch::{Observed, Watch};

/// A prediction that does not hold.
pub struct Disagreement {
    /// What was sent, one after the other.
    pub probes: Vec<Probe>,
    pub why: String,
    /// Whether kernel and stepper agree, and sets do not.
    pub sets_alone: bool,
}

/// How long a probe that went another way than predicted is watched, the
/// second time: no processor is that busy.
const PATIENCE: Duration = Duration::from_millis(40);

/// After how long what a packet found out about the way is forgotten: that
/// lives for a tick of the kernel's clock, however soon it shall end.
const FORGETTING: Duration = Duration::from_millis(20);

/// After how long a host that refused a few packets for want of a route, and the
/// errors that they brought about, says so once more (`ip_error`; its limit is not
/// a namespace's to set).
const REFILLING: Duration = Duration::from_millis(2500);

/// Whether a route, or the lack of one, refuses a packet.
fn unroutable(outcome: &Outcome) -> bool {
    let Outcome::Rejected { by: Decision::Stage { stage, .. }, .. } = outcome else { return false };
    matches!(stage, Stage::NoRoute | Stage::HostUnreachable | Stage::Prohibit)
}

/// A number that no other probe of this process has.
fn marker() -> u32 {
    use std::sync::atomic::{AtomicU32, Ordering};
    static NEXT: AtomicU32 = AtomicU32::new(0x0001_9000);
    // Resets count from it by as much as a packet is long.
    NEXT.fetch_add(0x1000, Ordering::Relaxed) ^ 0x4c00_0000
}

/// Sends probes, one after the other, to hosts that remember nothing.
fn send(watch: &mut Watch, probes: &[Probe], patience: Duration) -> Vec<Observed> {
    watch.forget();
    probes.iter().map(|probe| watch.send(probe, marker(), patience)).collect()
}

/// Captures a lab while no tunnel has learned anything: what it learned is
/// forgotten before each probe.
fn captured(lab: &Lab, built: &Built, folder: &Path) -> Result<(), String> {
    const TIMES: usize = 5;
    for _ in 0..TIMES {
        unlearn(lab, built);
        capture(lab, built, folder)?;
        if unlearn(lab, built) == 0 {
            return Ok(());
        }
    }
    Err("tunnels learn all the time".to_owned())
}

/// Makes hosts forget which neighbours did not answer earlier packets: those of
/// IPv6 that forward nothing go past gateways that fail (`rt6_check_neigh`).
fn forget_failures(built: &Built) {
    for space in built.hosts.values() {
        space.run("ip", &["-6", "neigh", "flush", "nud", "failed"], "");
    }
}

/// What of a flow's packets is not as predicted.
fn held(lab: &Lab, observed: &[Observed], predictions: &[Prediction]) -> Result<(), String> {
    observed
        .iter()
        .zip(predictions)
        .try_for_each(|(o, p)| hold(lab, o, p).map_err(|why| format!("{}: {why}", p.id)))
}

/// Whether the sets have a packet where the stepper does.
fn in_sets(
    lab: &Lab,
    engine: &mut Symbolic,
    entering: &Entering,
    probe: &Probe,
) -> Option<Result<(), String>> {
    let flows = entering.flows.as_ref()?;
    if !matches!(probe.how, How::Originate(None) | How::Inject(_, None)) {
        return None;
    }
    let headers = engine.headers().ok()?;
    let store = engine.store();
    if store.lookup(headers, &lab_core::space::header(&probe.packet)) == 0 {
        return None;
    }
    let here = flows_of(store, flows, &probe.packet, false).ok()?;
    let gap = |u: &String| GAPS.iter().any(|g| u.contains(g));
    if here.iter().any(|(f, _)| f.flow.unknown.iter().any(gap)) {
        return None;
    }
    Some(compare(&here, &entering.entrance.ways(lab, &probe.packet)?))
}

/// Runs one lab, which is kept in a folder, if one is named and nothing
/// disagrees.
///
/// # Errors
/// Why it cannot be built here.
pub fn lab(
    lab: &Lab,
    deck: &Deck,
    runner: &mut TestRunner,
    tally: &mut Tally,
    keep: Option<&Path>,
) -> Result<Vec<Disagreement>, String> {
    let start = Instant::now();
    let built = build(lab, &mut tally.left)?;
    tally.building += start.elapsed();
    let start = Instant::now();
    let folder = tempfile::tempdir().map_err(|e| e.to_string())?;
    captured(lab, &built, folder.path())?;
    let captured = Lab::open(folder.path()).map_err(|e| format!("the snapshot is not read: {e}"))?;
    tally.capturing += start.elapsed();
    for host in captured.hosts.values() {
        tally.rules +=
            host.ruleset.tables.iter().flat_map(|t| &t.chains).map(|c| c.rules.len() as u64).sum::<u64>();
    }
    let mut watch = Watch::open(&captured, &built).map_err(|e| format!("sockets: {e}"))?;
    let start = Instant::now();
    let mut engine = Symbolic::new(&captured);
    let entering = deck.draw(runner, &captured, &mut engine, &mut tally.left);
    tally.predicting += start.elapsed();
    let (mut wrong, mut all) = (Vec::new(), Vec::new());
    for entering in &entering {
        for probe in &entering.probes {
            let start = Instant::now();
            let mut probes = vec![probe.clone()];
            let mut observed = send(&mut watch, &probes, Duration::ZERO);
            if random(runner, 3) == 0 {
                if let Some(reply) = reply(&captured, probe, &observed[0]) {
                    observed.push(watch.send(&reply, marker(), Duration::ZERO));
                    probes.push(reply);
                    tally.replies += 1;
                }
            }
            tally.sending += start.elapsed();
            let start = Instant::now();
            let predictions = predict(&captured, &probes);
            tally.predicting += start.elapsed();
            let mut outcome = held(&captured, &observed, &predictions);
            if outcome.is_err() {
                tally.repeated += 1;
                let limited = predictions.iter().flat_map(|p| &p.ways).any(|way| unroutable(&way.outcome));
                std::thread::sleep(if limited { REFILLING } else { FORGETTING });
                forget_failures(&built);
                observed = send(&mut watch, &probes, PATIENCE);
                outcome = held(&captured, &observed, &predictions);
            }
            observed.iter().zip(&predictions).for_each(|(o, p)| tally.packet(&captured, o, p));
            let set = in_sets(&captured, &mut engine, entering, probe);
            tally.sets += u64::from(set.is_some());
            all.extend(probes.iter().cloned());
            if let Err(why) = outcome {
                wrong.push(Disagreement { probes, why, sets_alone: false });
            } else if let Some(Err(why)) = set {
                wrong.push(Disagreement { probes, why: format!("sets: {why}"), sets_alone: true });
            }
        }
    }
    drop(engine);
    for _ in 0..watch.old_errors {
        tally.left.count("observing", "an error that a tunnel tells of an earlier packet");
    }
    watch.close();
    if let Some(to) = keep.filter(|_| wrong.is_empty()) {
        record(folder.path(), &all, to);
    }
    tally.labs += 1;
    Ok(wrong)
}

/// Runs probes in a lab once more; how it disagrees, if it still does. The
/// snapshot goes into a folder, if one is named.
pub fn again(lab: &Lab, probes: &[Probe], keep: Option<&Path>) -> Option<String> {
    let built = build(lab, &mut Left::default()).ok()?;
    let own = tempfile::tempdir().ok()?;
    let folder = keep.unwrap_or(own.path());
    captured(lab, &built, folder).ok()?;
    let captured = Lab::open(folder).ok()?;
    let mut watch = Watch::open(&captured, &built).ok()?;
    let observed = send(&mut watch, probes, PATIENCE);
    watch.close();
    held(&captured, &observed, &predict(&captured, probes)).err()
}
